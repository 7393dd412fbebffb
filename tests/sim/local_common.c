/* sim/local_common.c - an agent's own engine: one task after another.
 *
 * SPDX-License-Identifier: MIT */
#include "sim/world_common.h"

static double now(const struct sim_agent *a)
{
    return a->world->clock.now_ms;
}

void sim_local_open(struct sim_agent *a, uint32_t stage)
{
    struct sim_local *l = &a->locals[a->local_count++];

    SIM_REQUIRE(&a->world->clock, a->local_count < SIM_LOCALS_MAX, "%u local endpoints\n",
                a->local_count);
    *l = (struct sim_local){ .endpoint = ++a->endpoints, .stage = stage, .open = true };
    sim_kv_init(&l->kv, a->stages[stage].first, a->stages[stage].last);
    a->wanted[stage].asked = false;
    pipeline_opened(
        a->pipeline, now(a), stage, l->endpoint,
        &(struct pipe_opened){ .windows_max = 8, .even_windows = a->world->model.even_windows });
}

struct sim_local *sim_local_of(struct sim_agent *a, uint32_t endpoint)
{
    for (uint32_t i = 0; i < a->local_count; i++)
        if (a->locals[i].open && a->locals[i].endpoint == endpoint)
            return &a->locals[i];
    return NULL;
}

static void task_free(struct sim_task *t)
{
    if (t != NULL)
        pipe_block_unref(t->in);
    free(t);
}

static void task_done(struct sim_event *e);

/* The link to the task that is next: the first one, but a token goes before windows of a replay at
 * another endpoint. */
static struct sim_task **task_choose(struct sim_agent *a)
{
    for (struct sim_task **link = &a->tasks; *link != NULL; link = &(*link)->next) {
        bool behind_own = false;

        for (const struct sim_task *t = a->tasks; t != *link; t = t->next)
            behind_own = behind_own || t->local == (*link)->local;
        if (!(*link)->bulk && !behind_own)
            return link;
    }
    return &a->tasks;
}

static void task_next(struct sim_agent *a)
{
    struct sim_task **link = task_choose(a), *t = *link;
    double            ms = 0.0;

    if (a->computing != NULL || t == NULL)
        return;
    *link = t->next;
    if (!t->trim)
        ms = a->token_ms * (t->local->kv.last - t->local->kv.first) * (1 + t->count / 4.0);
    a->computing = t;
    sim_post(&a->world->clock, now(a) + ms, (struct sim_event){ .fire = task_done, .ctx = a });
}

static void task_run(struct sim_agent *a, struct sim_task *t)
{
    const struct sim_model *m = &a->world->model;
    struct sim_kv          *kv = &t->local->kv;
    uint32_t                rows = t->want == PIPE_WANT_ALL ? t->count : t->want == PIPE_WANT_LAST;
    struct pipe_block      *out = pipe_block_new(WIRE_F32, t->count, m->row_bytes), *tail = NULL;
    bool                    first = kv->first == 0;

    if (t->trim) {
        kv->length = t->pos;
    } else {
        sim_forward(m, kv, kv->first, kv->last, t->pos, t->count,
                    first ? (const int32_t *)(const void *)t->in->data : NULL, t->in->data,
                    out->data);
        if (rows > 0) {
            tail = pipe_block_new(WIRE_F32, rows, m->row_bytes);
            memcpy(tail->data, out->data + out->bytes - tail->bytes, tail->bytes);
        }
        pipeline_result(a->pipeline, now(a), t->local->endpoint, t->number, tail,
                        (struct pipe_timing){ 0 });
    }
    pipe_block_unref(out);
    pipe_block_unref(tail);
}

static void task_done(struct sim_event *e)
{
    struct sim_agent *a = e->ctx;
    struct sim_task  *t = a->computing;

    a->computing = NULL;
    if (t->local->open && !a->over)
        task_run(a, t);
    task_free(t);
    if (a->over)
        return;
    task_next(a);
    sim_agent_run(a);
}

void sim_local_add(struct sim_agent *a, struct sim_local *l, const struct pipe_act *act)
{
    struct sim_task *t = calloc(1, sizeof(*t)), **end = &a->tasks;

    assert_non_null(t);
    *t = (struct sim_task){ .local = l,
                            .trim = act->kind == PIPE_ACT_TRIM,
                            .number = act->number,
                            .pos = act->pos,
                            .count = act->count,
                            .want = act->want,
                            .bulk = act->bulk,
                            .in = act->block };
    if (act->tokens != NULL) {
        t->in = pipe_block_new(0, act->count, sizeof(int32_t));
        memcpy(t->in->data, act->tokens, t->in->bytes);
    }
    while (*end != NULL)
        end = &(*end)->next;
    *end = t;
    task_next(a);
}

void sim_local_fini(struct sim_agent *a)
{
    task_free(a->computing);
    while (a->tasks != NULL) {
        struct sim_task *t = a->tasks;

        a->tasks = t->next;
        task_free(t);
    }
    for (uint32_t i = 0; i < a->local_count; i++)
        sim_kv_fini(&a->locals[i].kv);
}
