/* pipe/pipeline.c - see pipeline.h.
 *
 * What happens inside a stage is stage_state.c's; here windows pass from one to the next.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/stage_state.h"

#include "base/fail.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A window between submit and OUTPUT. */
struct window {
    uint64_t           number;
    uint32_t           pos;
    struct pipe_block *rows;
};

struct pipeline {
    uint32_t           windows_max;
    uint32_t           length;                   /* positions submitted and not trimmed */
    uint64_t           windows;                  /* numbers given so far */
    uint64_t           sends;                    /* the same of FORWARDs */
    struct window      window[PIPE_WINDOWS_MAX]; /* ring: in flight, by position */
    uint32_t           window_first, window_count;
    uint32_t           window_done; /* of these have left the last stage */
    struct pipe_block *lent;        /* the tokens of the last act */
    bool               failed, failure_told;
    bool               lacking; /* a stage without endpoint has not asked for one */
    mcp_error          error;   /* failed: why */

    uint32_t                count;
    struct pipe_stage_state stages[];
};

int pipeline_new(struct pipeline **out, const struct pipeline_opts *opts, mcp_error *err)
{
    struct pipeline *p;

    *out = NULL;
    if (opts->count < 1 || opts->count > PIPE_STAGES_MAX)
        return base_fail(err, MCP_ERANGE, "%u stages, a pipeline has 1 to %d", opts->count,
                         PIPE_STAGES_MAX);
    if (opts->windows_max < 1 || opts->windows_max > PIPE_WINDOWS_MAX)
        return base_fail(err, MCP_ERANGE, "%u windows in flight, a pipeline takes 1 to %d",
                         opts->windows_max, PIPE_WINDOWS_MAX);
    for (uint32_t i = 0; i < opts->count; i++) {
        const struct pipeline_stage *s = &opts->stages[i];

        if (s->first >= s->last || (i > 0 && s->first != s[-1].last))
            return base_fail(err, MCP_ERANGE, "stage %u has layers [%u, %u) where [%u, ...) comes",
                             i, s->first, s->last, i > 0 ? s[-1].last : s->first);
    }
    p = calloc(1, sizeof(*p) + opts->count * sizeof(p->stages[0]));
    if (p == NULL)
        return base_fail(err, MCP_ENOMEM, "a pipeline of %u stages", opts->count);
    p->windows_max = opts->windows_max;
    p->count = opts->count;
    for (uint32_t i = 0; i < p->count; i++) {
        p->stages[i].keep = opts->stages[i].journal;
        p->stages[i].final = i + 1 == p->count;
        pipe_stage_ask(&p->stages[i]);
    }
    *out = p;
    return MCP_OK;
}

void pipeline_free(struct pipeline *p)
{
    if (p == NULL)
        return;
    for (uint32_t i = 0; i < p->count; i++)
        pipe_stage_fini(&p->stages[i]);
    for (uint32_t i = 0; i < p->window_count; i++)
        pipe_block_unref(p->window[(p->window_first + i) % PIPE_WINDOWS_MAX].rows);
    pipe_block_unref(p->lent);
    free(p);
}

uint32_t pipeline_length(const struct pipeline *p)
{
    return p->length;
}

uint32_t pipeline_in_flight(const struct pipeline *p)
{
    return p->window_count;
}

void pipeline_get_stats(const struct pipeline *p, uint32_t stage,
                        struct pipeline_stage_stats *stats)
{
    assert(stage < p->count);
    *stats = p->stages[stage].stats;
}

/* ---- failure ---------------------------------------------------------------------------- */

static void fail_with(struct pipeline *p, const mcp_error *why)
{
    if (p->failed)
        return;
    p->failed = true;
    p->failure_told = false;
    p->error = *why;
    for (uint32_t i = 0; i < p->count; i++) {
        if (p->stages[i].open == PIPE_OPEN_WANTED)
            p->stages[i].open = PIPE_OPEN_NOT;
    }
    p->lacking = true;
}

/* After a failure: the stages that were left without endpoint want one again. */
static void ask_where_lacking(struct pipeline *p)
{
    if (!p->lacking)
        return;
    p->lacking = false;
    for (uint32_t i = 0; i < p->count; i++)
        pipe_stage_ask(&p->stages[i]);
}

/* ---- windows ---------------------------------------------------------------------------- */

static struct window *window_at(struct pipeline *p, uint32_t i)
{
    return &p->window[(p->window_first + i) % PIPE_WINDOWS_MAX];
}

/* Hand on what stage i has answered: to the next one, or out. */
static void pass_on(struct pipeline *p, double now_ms, uint32_t i)
{
    struct pipe_entry  entry;
    struct pipe_block *rows;

    while (!p->failed && pipe_stage_take(&p->stages[i], now_ms, &entry, &rows)) {
        mcp_error err;

        if (i + 1 == p->count) {
            struct window *w = window_at(p, p->window_done++);

            assert(w->number == entry.window);
            w->rows = rows;
            continue;
        }
        entry.block = rows;
        if (pipe_stage_append(&p->stages[i + 1], now_ms, &entry) == MCP_OK)
            continue;
        pipe_block_unref(rows);
        base_fail(&err, MCP_ENOMEM, "the journal of stage %u at position %u", i + 1, entry.pos);
        fail_with(p, &err);
    }
}

int pipeline_submit(struct pipeline *p, double now_ms, const int32_t *tokens, uint32_t count,
                    enum pipe_want want, uint64_t *number, mcp_error *err)
{
    struct pipe_entry entry = { .pos = p->length, .count = count, .kept = count, .want = want };

    if (p->failed)
        return base_fail(err, p->error.code, "%s", p->error.text);
    if (count == 0 || count > UINT32_MAX - p->length)
        return base_fail(err, MCP_ERANGE, "a window of %u positions at position %u", count,
                         p->length);
    if (p->window_count == p->windows_max)
        return base_fail(err, MCP_EBUSY, "%u windows are in flight, the most that were asked for",
                         p->windows_max);
    entry.block = pipe_block_new(0, count, sizeof(*tokens));
    if (entry.block == NULL)
        return base_fail(err, MCP_ENOMEM, "%u tokens", count);
    memcpy(entry.block->data, tokens, entry.block->bytes);
    entry.window = p->windows + 1;
    if (pipe_stage_append(&p->stages[0], now_ms, &entry) < 0) {
        pipe_block_unref(entry.block);
        return base_fail(err, MCP_ENOMEM, "the journal of stage 0 at position %u", p->length);
    }
    *window_at(p, p->window_count++) = (struct window){ .number = entry.window, .pos = p->length };
    p->windows++;
    p->length += count;
    *number = entry.window;
    ask_where_lacking(p);
    return MCP_OK;
}

int pipeline_trim(struct pipeline *p, double now_ms, uint32_t pos, mcp_error *err)
{
    (void)now_ms;
    if (pos > p->length)
        return base_fail(err, MCP_ERANGE, "trim to position %u of %u", pos, p->length);
    while (p->window_count > 0 && window_at(p, p->window_count - 1)->pos >= pos)
        pipe_block_unref(window_at(p, --p->window_count)->rows);
    if (p->window_done > p->window_count)
        p->window_done = p->window_count;
    for (uint32_t i = 0; i < p->count; i++)
        pipe_stage_trim(&p->stages[i], pos);
    p->length = pos;
    if (pos == 0)
        p->failed = false;
    return MCP_OK;
}

/* ---- events ------------------------------------------------------------------------------- */

/* The stage and slot of an endpoint; NULL when it is none of ours (any more). */
static struct pipe_endpoint *find(struct pipeline *p, uint32_t endpoint, uint32_t *stage)
{
    for (*stage = 0; *stage < p->count; ++*stage) {
        struct pipe_endpoint *e = pipe_stage_by_id(&p->stages[*stage], endpoint);

        if (e != NULL)
            return e;
    }
    return NULL;
}

void pipeline_opened(struct pipeline *p, double now_ms, uint32_t stage, uint32_t endpoint,
                     const struct pipe_opened *opened)
{
    assert(stage < p->count);
    pipe_stage_opened(&p->stages[stage], now_ms, endpoint, opened);
    pass_on(p, now_ms, stage);
}

void pipeline_unavailable(struct pipeline *p, double now_ms, uint32_t stage, const mcp_error *why)
{
    struct pipe_stage_state *s = &p->stages[stage];

    (void)now_ms;
    assert(stage < p->count && s->open == PIPE_OPEN_ASKED);
    s->open = PIPE_OPEN_NOT;
    if (pipe_stage_in_role(s, PIPE_ROLE_ACTIVE) == NULL)
        fail_with(p, why);
}

static void gone(struct pipeline *p, double now_ms, uint32_t stage, struct pipe_endpoint *e,
                 bool close, const mcp_error *why)
{
    if (!pipe_stage_gone(&p->stages[stage], now_ms, e, close))
        fail_with(p, why);
    if (p->failed && p->stages[stage].open == PIPE_OPEN_WANTED)
        p->stages[stage].open = PIPE_OPEN_NOT;
}

void pipeline_lost(struct pipeline *p, double now_ms, uint32_t endpoint, const mcp_error *why)
{
    uint32_t              stage;
    struct pipe_endpoint *e = find(p, endpoint, &stage);

    if (e != NULL)
        gone(p, now_ms, stage, e, false, why);
}

void pipeline_draining(struct pipeline *p, double now_ms, uint32_t endpoint)
{
    uint32_t              stage;
    struct pipe_endpoint *e = find(p, endpoint, &stage);

    (void)now_ms;
    if (e != NULL)
        pipe_stage_draining(&p->stages[stage], e);
}

void pipeline_result(struct pipeline *p, double now_ms, uint32_t endpoint, uint64_t number,
                     struct pipe_block *rows, struct pipe_timing timing)
{
    uint32_t              stage;
    struct pipe_endpoint *e = find(p, endpoint, &stage);
    mcp_error             err;

    if (e == NULL || p->failed)
        return;
    if (pipe_endpoint_answer(e, number, rows, timing) < 0) {
        base_fail(&err, MCP_EFORMAT, "endpoint %u is given up: %s", endpoint, e->broken);
        gone(p, now_ms, stage, e, true, &err);
    }
    pass_on(p, now_ms, stage);
}

/* ---- acts --------------------------------------------------------------------------------- */

static bool act_of_stages(struct pipeline *p, double now_ms, struct pipe_act *act)
{
    /* The last stages first: what is furthest on its way leaves room for what follows. */
    for (uint32_t i = p->count; i > 0; i--) {
        act->stage = i - 1;
        if (pipe_stage_close_act(&p->stages[i - 1], act) ||
            (!p->failed && pipe_stage_act(&p->stages[i - 1], now_ms, &p->sends, act)))
            return true;
    }
    act->stage = 0;
    return false;
}

/* Stage 0 takes token ids, which are lent until the next act. */
static void lend_tokens(struct pipeline *p, struct pipe_act *act)
{
    p->lent = act->block;
    act->tokens = (const int32_t *)(const void *)act->block->data;
    act->block = NULL;
}

bool pipeline_act(struct pipeline *p, double now_ms, struct pipe_act *act)
{
    struct window *w;

    pipe_block_unref(p->lent);
    p->lent = NULL;
    *act = (struct pipe_act){ 0 };
    if (act_of_stages(p, now_ms, act)) {
        if (act->kind == PIPE_ACT_FORWARD && act->stage == 0)
            lend_tokens(p, act);
        return true;
    }
    if (p->failed && !p->failure_told) {
        act->kind = PIPE_ACT_FAILED;
        act->error = p->error;
        p->failure_told = true;
        return true;
    }
    if (p->failed || p->window_done == 0)
        return false;
    w = window_at(p, 0);
    act->kind = PIPE_ACT_OUTPUT;
    act->number = w->number;
    act->block = w->rows;
    w->rows = NULL;
    p->window_first = (p->window_first + 1) % PIPE_WINDOWS_MAX;
    p->window_count--;
    p->window_done--;
    return true;
}
