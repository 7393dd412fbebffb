/* agent/steer.c - see steer.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/steer.h"

#include "agent/layout.h"
#include "agent/plan.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"
#include "plan/adjust.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOOK_MS = 250,       /* between two looks at links and loads */
    RECONSIDER_MS = 500, /* between two reconsiderations: each takes milliseconds */
    REST_TOKENS = 64,    /* an answer without a limit is expected to go on for so long, or for as
                            long again as it has */
    LESS_PCT = 80,       /* of the layers, of a worker that is exhausted */
    LOOK_WINDOWS = 4,    /* of a stage, at least, before its times are judged */
    SCALE_MAX = 16,      /* a device is at most so many times slower or faster than its profile */
    STEER_ENGINES = 4,   /* two of the layout, two of the next one */
    STEER_STAGES = PLAN_HOPS_MAX + 2,
};

/* A device's times are its profile's, or so many times as long, as its stages show. */
struct device {
    struct plan_profile base;
    double              scale;
};

struct steer {
    struct mcp_plan        *plan;    /* facts and request, kept up to date */
    struct device          *devices; /* (worker_count + 1): the workers, then this machine */
    const struct mcp_model *model;
    struct mcp_remote      *remote;
    mcp_session_opts        given;
    mcp_engine_opts         here;         /* as the plan's, but for the context */
    char                   *codec, *wrap; /* owned: given's */
    struct mcp_engine      *engines[STEER_ENGINES];
    mcp_stage               stages[STEER_STAGES];
    int                     workers[STEER_STAGES];
    uint32_t                stage_count;

    struct plan        running;
    struct plan_adjust adjust;
    struct plan_watch  watch;
    struct plan_change next;
    double             token_ms;      /* predicted for the running plan */
    uint32_t           seen;          /* tokens of the answer when the last sample was taken */
    double             seen_ms;       /* and when */
    double             look_ms;       /* not before */
    double             reconsider_ms; /* not before */
    bool               news;          /* not reconsidered yet */

    struct pipeline_stage_stats before[STEER_STAGES]; /* when the last look was taken */
    uint64_t                    excluded;             /* workers that a move has failed with */

    uint32_t moves;
    double   move_ms;
    char     why[PLAN_WHY_BYTES];
};

/* ---- opening --------------------------------------------------------------------------------- */

static int take_options(struct steer *st, const mcp_session_opts *opts, mcp_error *err)
{
    st->model = opts->model;
    st->remote = opts->remote;
    st->given = *opts;
    st->codec = strdup(opts->codec != NULL ? opts->codec : "auto");
    st->wrap = strdup(opts->wrap != NULL ? opts->wrap : "none");
    if (st->codec == NULL || st->wrap == NULL)
        return base_fail(err, MCP_ENOMEM, "options of a session");
    st->here = st->plan->engine;
    st->here.even_windows = 1; /* a move, a replay, a worker's batches give the same bits */
    if (opts->ctx_tokens != 0)
        st->here.ctx_tokens = opts->ctx_tokens;
    st->given.codec = st->codec;
    st->given.wrap = st->wrap;
    return MCP_OK;
}

static int take_devices(struct steer *st, mcp_error *err)
{
    uint32_t count = st->plan->worker_count;

    st->devices = calloc(count + 1, sizeof(*st->devices));
    if (st->devices == NULL)
        return base_fail(err, MCP_ENOMEM, "profiles of %u workers", count);
    for (uint32_t i = 0; i <= count; i++) {
        st->devices[i].base = i < count ? st->plan->profiles[i].p : st->plan->here_profile.p;
        st->devices[i].scale = 1.0;
    }
    return MCP_OK;
}

int steer_new(struct steer **out, const mcp_session_opts *opts, mcp_error *err)
{
    const struct mcp_plan *plan = opts->plan;
    struct steer          *st;
    int                    rc;

    *out = NULL;
    if (plan == NULL)
        return MCP_OK;
    if (opts->stage_count > 0 || opts->cut_count > 0 || opts->cloud)
        return base_fail(err, MCP_EINVAL, "a plan says what runs where: no cuts, stages or cloud");
    if (opts->model == NULL)
        return base_fail(err, MCP_EINVAL, "a session that follows a plan needs its model");
    if (!plan->fits)
        return base_fail(err, plan->unfit.code, "%s", plan->unfit.text);
    if (plan->choice.plan.mode == PLAN_PREFILL)
        return base_fail(err, MCP_EINVAL, "a session cannot follow a prefill plan");
    for (uint32_t i = 0; i < plan->choice.plan.hop_count; i++)
        if (plan->indices[plan->choice.plan.hops[i].worker] < 0)
            return base_fail(err, MCP_EINVAL, "the plan counts on %s, which is only supposed",
                             plan->workers[plan->choice.plan.hops[i].worker].name);
    st = calloc(1, sizeof(*st));
    if (st == NULL)
        return base_fail(err, MCP_ENOMEM, "plan of a session");
    rc = agent_plan_copy(&st->plan, plan, err);
    if (rc == MCP_OK)
        rc = take_options(st, opts, err);
    if (rc == MCP_OK)
        rc = take_devices(st, err);
    if (rc < 0) {
        steer_free(st);
        return rc;
    }
    st->plan->facts.adjust = &st->adjust;
    for (uint32_t i = 0; i < st->plan->worker_count; i++)
        st->plan->workers[i].exports_kv = false; /* a move computes again, it fetches nothing */
    st->running = plan->choice.plan;
    st->token_ms = plan->choice.cost.token_ms;
    *out = st;
    return MCP_OK;
}

void steer_free(struct steer *st)
{
    if (st == NULL)
        return;
    for (size_t i = STEER_ENGINES; i-- > 0;) /* those beside the first go before it */
        engine_close(st->engines[i]);
    agent_plan_close(st->plan);
    free(st->devices);
    free(st->codec);
    free(st->wrap);
    free(st);
}

/* ---- layouts --------------------------------------------------------------------------------- */

/* An engine that holds layers [first, last): one that is there, or a new one. */
static int need_engine(struct steer *st, uint32_t first, uint32_t last, struct mcp_engine **out,
                       mcp_error *err)
{
    mcp_engine_opts opts = st->here;
    size_t          free_slot = STEER_ENGINES;
    int             rc;

    for (size_t i = STEER_ENGINES; i-- > 0;) {
        struct mcp_engine *e = st->engines[i];

        if (e == NULL)
            free_slot = i;
        else if (e->info.first <= first && e->info.last >= last) {
            *out = e;
            return MCP_OK;
        }
    }
    assert(free_slot < STEER_ENGINES);
    opts.first = first;
    opts.last = last;
    for (size_t i = 0; i < STEER_ENGINES && opts.beside == NULL; i++)
        opts.beside = st->engines[i];
    rc = engine_open(&st->engines[free_slot], st->model, &opts, err);
    *out = st->engines[free_slot];
    return rc;
}

static int add_stage(struct steer *st, uint32_t last, int worker, mcp_error *err)
{
    uint32_t   first = st->stage_count > 0 ? st->stages[st->stage_count - 1].last : 0;
    mcp_stage *stage = &st->stages[st->stage_count];

    if (first == last)
        return MCP_OK;
    *stage = (mcp_stage){ .first = first, .last = last };
    st->workers[st->stage_count++] = worker;
    return worker >= 0 ? MCP_OK : need_engine(st, first, last, &stage->engine, err);
}

int steer_layout(struct steer *st, mcp_session_opts *opts, mcp_error *err)
{
    const struct plan *plan = &st->running;
    uint32_t           layers = st->model->hp.n_layer;
    int                rc = MCP_OK;

    *opts = st->given;
    if (opts->fallback != NULL)
        opts->fallback = &st->here;
    st->stage_count = 0;
    if (plan->mode == PLAN_CLOUD) {
        opts->cloud = 1;
        st->workers[0] = st->plan->indices[plan->hops[0].worker];
    } else {
        for (uint32_t i = 0; i < plan->hop_count && rc == MCP_OK; i++) {
            rc = add_stage(st, plan->hops[i].first, -1, err);
            if (rc == MCP_OK)
                rc = add_stage(st, plan->hops[i].last, st->plan->indices[plan->hops[i].worker],
                               err);
        }
        if (rc == MCP_OK)
            rc = add_stage(st, layers, -1, err);
        opts->stages = st->stages;
        opts->stage_count = st->stage_count;
    }
    if (opts->chunk_tokens == 0)
        opts->chunk_tokens = plan->chunk_tokens;
    /* How far to guess is for those to decide who see what comes of it; where there is no round
     * trip to save, guesses are for who asks for them. */
    if (plan->mode == PLAN_LOCAL && opts->spec == MCP_SPEC_AUTO)
        opts->spec = MCP_SPEC_NONE;
    return rc;
}

int steer_worker(const struct steer *st, uint32_t stage)
{
    return st != NULL ? st->workers[stage] : -1;
}

/* Engines of which the layout needs none. */
static void close_engines(struct steer *st)
{
    for (size_t i = STEER_ENGINES; i-- > 0;) {
        bool used = false;

        for (uint32_t k = 0; k < st->stage_count; k++)
            used = used || (st->engines[i] != NULL && st->stages[k].engine == st->engines[i]);
        if (!used) {
            engine_close(st->engines[i]);
            st->engines[i] = NULL;
        }
    }
}

/* ---- watching -------------------------------------------------------------------------------- */

/* What remains of the answer, as the planner asks for it. */
static struct plan_request rest_of(const struct steer *st, const struct answer *a)
{
    struct plan_request r = st->plan->request;
    uint32_t            made = a->result.generated_tokens, left = a->opts->max_tokens - made;
    uint32_t            guess = made > REST_TOKENS ? made : REST_TOKENS;

    r.cached_tokens = a->result.prompt_tokens + made - 1;
    r.prompt_tokens = r.cached_tokens + 1;
    r.gen_tokens = left == 0 ? 1 : left < guess ? left : guess;
    r.ctx_tokens = a->session->ctx_tokens;
    r.workers_excluded |= st->excluded;
    r.current = NULL;
    return r;
}

/* The worker of a stage: its index in the plan, or -1. */
static int worker_of(const struct steer *st, const struct session_stage *stage)
{
    for (uint32_t w = 0; w < st->plan->worker_count; w++)
        if (stage->worker >= 0 && st->plan->indices[w] == stage->worker)
            return (int)w;
    return -1;
}

/* Whether the running plan has layers on worker `w`. */
static bool runs_on(const struct steer *st, uint32_t w)
{
    for (uint32_t i = 0; i < st->running.hop_count; i++)
        if (st->running.hops[i].worker == w)
            return true;
    return false;
}

/* The running plan as the pipeline runs it: stages may have failed over, to other workers or to
 * this machine. */
static void follow_failovers(struct steer *st, const struct mcp_session *s)
{
    struct plan as_is = st->running;
    int         worker;

    as_is.hop_count = 0;
    for (uint32_t i = 0; i < s->stage_count && as_is.hop_count < PLAN_HOPS_MAX; i++) {
        if (!s->stages[i].remote || s->stages[i].engine != NULL)
            continue;
        worker = worker_of(st, &s->stages[i]);
        if (worker >= 0)
            as_is.hops[as_is.hop_count++] = (struct plan_hop){ (uint32_t)worker, s->stages[i].first,
                                                               s->stages[i].last };
    }
    if (as_is.hop_count == 0)
        as_is.mode = PLAN_LOCAL;
    if (plan_same_places(&as_is, &st->running))
        return;
    st->running = st->watch.plan = as_is;
    st->news = true;
}

/* The device of a stage: its index in st->devices, or -1. */
static int device_of(const struct steer *st, const struct session_stage *stage)
{
    return stage->engine != NULL ? (int)st->plan->worker_count : worker_of(st, stage);
}

static void scale_profile(struct steer *st, int device, double scale)
{
    struct plan_profile *p = (uint32_t)device < st->plan->worker_count
                                 ? &st->plan->profiles[device].p
                                 : &st->plan->here_profile.p;

    *p = st->devices[device].base;
    plan_profile_scale(p, scale);
    st->devices[device].scale = scale;
    st->news = true;
    base_log(BASE_LOG_DETAIL, "%s takes %.2f times as long as its profile says",
             (uint32_t)device < st->plan->worker_count ? st->plan->workers[device].name
                                                       : "this machine",
             scale);
}

/* The device has taken so long where its profile says otherwise.  A machine that has become busy
 * is slow for every plan that uses it, not only for the one that runs. */
static void judge(struct steer *st, int device, double took_ms, double should_ms)
{
    double ratio = should_ms > 0.0 ? took_ms / should_ms : 0.0;

    if (ratio > plan_watch_band * st->devices[device].scale ||
        (ratio > 0.0 && ratio * plan_watch_band < st->devices[device].scale))
        scale_profile(st, device, fmin(fmax(ratio, 1.0 / SCALE_MAX), SCALE_MAX));
}

/* In the cloud there are only tokens; too slow, they are the worker's. */
static void look_at_cloud(struct steer *st, const struct mcp_session *s)
{
    struct plan_forward forward = { .layers = st->model->hp.n_layer,
                                    .tokens = 1,
                                    .context = s->count,
                                    .batch = 1,
                                    .embed = true,
                                    .head_rows = 1 };
    int                 device = device_of(st, &s->stages[0]);

    if (device >= 0 && st->watch.outside >= PLAN_WATCH_SAMPLES)
        judge(st, device, st->watch.mean_ms, plan_profile_ms(&st->devices[device].base, &forward));
}

/* What the stages have computed since the last look, against the profiles. */
static void look_at_stages(struct steer *st, const struct mcp_session *s)
{
    double   took_ms[PLAN_WORKERS_MAX + 1] = { 0 }, should_ms[PLAN_WORKERS_MAX + 1] = { 0 };
    uint32_t count = s->pipeline != NULL ? s->stage_count : 0;

    for (uint32_t i = 0; i < count && i < STEER_STAGES; i++) {
        const struct session_stage *stage = &s->stages[i];
        struct pipeline_stage_stats now;
        struct plan_forward         forward = { .batch = 1, .embed = stage->first == 0 };
        int                         device = device_of(st, stage);
        double                      windows;

        pipeline_get_stats(s->pipeline, i, &now);
        windows = (double)(now.windows - st->before[i].windows);
        if (windows < LOOK_WINDOWS || device < 0 || st->devices[device].base.layers == 0)
            continue;
        forward.tokens = (uint32_t)((double)(now.positions - st->before[i].positions) / windows +
                                    0.5);
        forward.context = s->count;
        forward.head_rows = i + 1 == count ? forward.tokens : 0;
        for (uint32_t layer = stage->first; layer < stage->last; layer++)
            forward.layers += st->plan->model.work[layer];
        took_ms[device] += (now.compute_ms - st->before[i].compute_ms) / windows;
        should_ms[device] += plan_profile_ms(&st->devices[device].base, &forward);
        if ((uint32_t)device < st->plan->worker_count)
            st->plan->workers[device].queue_ms = (now.queue_ms - st->before[i].queue_ms) / windows;
        st->before[i] = now;
    }
    for (uint32_t d = 0; d <= st->plan->worker_count; d++)
        judge(st, (int)d, took_ms[d], should_ms[d]);
}

void steer_begin(struct answer *a)
{
    struct steer       *st = a->session->steer;
    struct plan_request rest;
    struct plan_cost    cost;

    if (st == NULL)
        return;
    st->seen = a->result.generated_tokens;
    st->seen_ms = base_clock_ms();
    for (uint32_t i = 0; i < STEER_STAGES; i++)
        if (a->session->pipeline != NULL && i < a->session->stage_count)
            pipeline_get_stats(a->session->pipeline, i, &st->before[i]);
    rest = rest_of(st, a);
    if (plan_predict(&cost, &st->plan->facts, &rest, &st->running, NULL) == MCP_OK &&
        cost.token_ms > 0.0) {
        st->token_ms = cost.token_ms;
        plan_watch_init(&st->watch, &st->running, &cost);
    }
}

/* A worker whose resources are exhausted is asked for less: the rest comes home. */
static void ask_less(struct steer *st, uint32_t w)
{
    struct plan_worker *worker = &st->plan->workers[w];
    uint32_t            layers = worker->last - worker->first;

    for (uint32_t i = 0; i < st->running.hop_count; i++)
        if (st->running.hops[i].worker == w)
            layers = st->running.hops[i].last - st->running.hops[i].first;
    if (worker->layers_max > 0 && worker->layers_max < layers)
        layers = worker->layers_max;
    worker->layers_max = layers * LESS_PCT / 100 > 0 ? layers * LESS_PCT / 100 : 1;
    st->news = true;
    base_log(BASE_LOG_INFO, "worker %s is exhausted: at most %u layers are asked of it from now on",
             worker->name, worker->layers_max);
}

/* Links and loads as they are now.  Sets news where something came or went. */
static void look(struct steer *st, const struct answer *a, double now_ms)
{
    struct mcp_session *s = a->session;

    follow_failovers(st, s);
    if (s->cloud)
        look_at_cloud(st, s);
    else
        look_at_stages(st, s);
    for (uint32_t w = 0; w < st->plan->worker_count; w++) {
        struct session_worker *seen;

        if (st->plan->indices[w] < 0)
            continue; /* only supposed */
        seen = &s->workers[st->plan->indices[w]];
        if (seen->exhausted)
            ask_less(st, w);
        seen->exhausted = false;
        if (agent_plan_look(st->plan, w, st->remote, st->model, runs_on(st, w),
                            seen->blocked_ms > now_ms)) {
            st->news = true;
            plan_adjust_forget(&st->adjust, w);
        }
    }
}

/* True: the session is to move, to st->next. */
static bool reconsider(struct steer *st, const struct answer *a)
{
    struct plan_request rest = rest_of(st, a);
    double              expected_ms = st->watch.expected_ms, mean_ms = st->watch.mean_ms;
    mcp_error           err = { 0 };

    if (plan_reconsider(&st->next, &st->watch, &st->plan->facts, &rest, &st->adjust, &err) < 0) {
        base_log(BASE_LOG_INFO, "the plan stays: %s", err.text);
        return false;
    }
    base_log(BASE_LOG_DETAIL,
             "plan reconsidered for %u tokens more, at %.1f ms each instead of %.1f: %.0f ms as it "
             "is, %.0f by the best other, %.0f to move: %s",
             rest.gen_tokens, mean_ms, expected_ms, st->next.stay_ms, st->next.go_ms,
             st->next.switch_ms, st->next.why);
    if (st->next.verdict == PLAN_KEEP)
        return false;
    /* Another codec or other guesses in the same places are for those to find who see each
     * window. */
    return !plan_same_places(&st->next.plan, &st->running);
}

bool steer_wants(struct answer *a)
{
    struct steer *st = a->session->steer;
    double        now = base_clock_ms();
    uint32_t      tokens;

    if (st == NULL || a->result.generated_tokens == st->seen)
        return false;
    tokens = a->result.generated_tokens - st->seen;
    if (plan_watch_sample(&st->watch, tokens, now - st->seen_ms))
        st->news = true;
    st->seen = a->result.generated_tokens;
    st->seen_ms = now;
    if (now >= st->look_ms || st->news) {
        st->look_ms = now + LOOK_MS;
        look(st, a, now);
    }
    if (!st->news || now < st->reconsider_ms)
        return false;
    st->news = false;
    st->reconsider_ms = now + RECONSIDER_MS;
    return reconsider(st, a);
}

/* ---- moving ---------------------------------------------------------------------------------- */

static int lay_out(struct steer *st, struct mcp_session *s, uint32_t count, mcp_error *err)
{
    mcp_session_opts opts;
    int              rc = steer_layout(st, &opts, err);

    if (rc < 0)
        return rc;
    layout_close(s);
    rc = layout_open(s, NULL, &opts, err);
    if (rc < 0) {
        layout_close(s);
        return rc;
    }
    return s->cloud ? MCP_OK : layout_replay(s, count, err);
}

/* What a move needed and the running plan does not is not tried again in this answer. */
static void exclude(struct steer *st)
{
    for (uint32_t i = 0; i < st->next.plan.hop_count; i++)
        if (!runs_on(st, st->next.plan.hops[i].worker))
            st->excluded |= UINT64_C(1) << st->next.plan.hops[i].worker;
}

int steer_move(struct answer *a)
{
    struct mcp_session *s = a->session;
    struct steer       *st = s->steer;
    struct plan         from = st->running;
    uint32_t            count = a->result.prompt_tokens + a->result.generated_tokens - 1;
    double              began = base_clock_ms();
    char                text[PLAN_WHY_BYTES];
    mcp_error           err = { 0 };
    int                 rc;

    st->here.ctx_tokens = s->ctx_tokens;
    st->running = st->next.plan;
    plan_describe(text, sizeof(text), &st->plan->facts, &st->running);
    rc = lay_out(st, s, count, &err);
    if (rc == MCP_OK) {
        st->moves++;
        snprintf(st->why, sizeof(st->why), "%s", st->next.why);
    } else if (rc != MCP_ECANCELED) {
        base_log(BASE_LOG_WARN, "the answer could not move to %s: %s", text, err.text);
        st->running = from;
        exclude(st);
        rc = lay_out(st, s, count, a->err);
    } else {
        *a->err = err;
    }
    close_engines(st);
    st->move_ms += base_clock_ms() - began;
    base_log(BASE_LOG_INFO, "the answer goes on after %.0f ms: %s (%s)", base_clock_ms() - began,
             text, st->next.why);
    return rc;
}

/* ---- what it took ---------------------------------------------------------------------------- */

void steer_stats(const struct steer *st, mcp_session_stats *stats)
{
    plan_describe(stats->plan, sizeof(stats->plan), &st->plan->facts, &st->running);
    stats->moves = st->moves;
    snprintf(stats->move_why, sizeof(stats->move_why), "%s", st->why);
    stats->move_ms = st->move_ms;
    stats->plan_ttft_ms = st->plan->choice.cost.ttft_ms;
    stats->plan_token_ms = st->token_ms;
}
