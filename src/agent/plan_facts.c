/* agent/plan_facts.c - see plan.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/plan.h"

#include "agent/digest.h"
#include "base/clock.h"
#include "base/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PING_ROUNDS = 5,
    PING_BULK_BYTES = 512 << 10, /* 0.2 s each way at 20 Mbit/s */
    CODEC_ROWS = 16,             /* encoded and decoded to see what a row costs */
};

/* Change of perplexity by one pair of cuts, per cent: `bench codecs`, the mean over four pairs of
 * cuts of SmolLM2 (docs/benchmarks.md).  What lies within the noise of 0.3 % and has no error that
 * shows in the logits counts as none. */
static const double codec_quality_pct[WIRE_CODECS] = {
    [WIRE_F32] = 0.0, [WIRE_F16] = 0.0,  [WIRE_BF16] = 0.0,
    [WIRE_Q8] = 0.31, [WIRE_Q8R] = 0.02, [WIRE_Q4R] = 1.06,
};

/* Before anything was drafted: a little below what n-gram lookup gives SmolLM2 on continued text,
 * 1.9 tokens a window of 8 drafts. */
static const struct plan_draft ngram_prior = {
    .drafter = PLAN_NGRAM, .accept = 0.65, .hit = 0.5, .depth_max = MCP_SPEC_DEPTH_MAX
};

/* A worker's other quantisation, of which nothing is known: half of the default bound. */
static const double other_weights_pct = 0.5;

void agent_plan_note(struct mcp_plan *plan, const char *format, ...)
{
    va_list args;

    if (plan->note_count == AGENT_PLAN_NOTES_MAX)
        return;
    va_start(args, format);
    vsnprintf(plan->notes[plan->note_count++], AGENT_PLAN_NOTE_BYTES, format, args);
    va_end(args);
}

/* ---- the model ------------------------------------------------------------------------------- */

static size_t kv_row_bytes(mcp_kv_type type, uint32_t width)
{
    return ggml_row_size(type == MCP_KV_Q8_0  ? GGML_TYPE_Q8_0
                         : type == MCP_KV_F32 ? GGML_TYPE_F32
                                              : GGML_TYPE_F16,
                         width);
}

static uint64_t tensor_bytes(const struct model_tensor *t)
{
    return t != NULL ? t->bytes : 0;
}

static void collect_model(struct mcp_plan *plan, const struct mcp_model *model,
                          const struct plan_graph *graph, const mcp_engine_opts *engine)
{
    const struct model_hparams *hp = &model->hp;
    const struct model_tensors *t = &model->tensors;

    plan->model.layers = hp->n_layer;
    plan->model.n_embd = hp->n_embd;
    plan->model.n_vocab = hp->n_vocab;
    plan->model.kv_layer_bytes = (uint32_t)(kv_row_bytes(engine->kv_k, model_kv_width_k(hp)) +
                                            kv_row_bytes(engine->kv_v, model_kv_width_v(hp)));
    profile_work(graph, plan->model.work);
    for (uint32_t layer = 0; layer < hp->n_layer; layer++)
        for (int slot = 0; slot < MODEL_SLOT_COUNT; slot++)
            plan->weights.layer_bytes[layer] += tensor_bytes(t->layers[layer].t[slot]);
    plan->weights.embed_bytes = tensor_bytes(t->global[G_TOKEN_EMBD]);
    plan->weights.head_bytes =
        tensor_bytes(t->global[G_OUTPUT_NORM]) + tensor_bytes(t->global[G_OUTPUT_B]) +
        tensor_bytes(t->global[t->global[G_OUTPUT] != NULL ? G_OUTPUT : G_TOKEN_EMBD]);
}

/* ---- this machine ---------------------------------------------------------------------------- */

/* About what a forward's buffers take beside weights and KV: the widest values of a micro-batch
 * that are alive at once, and its logits. */
static uint64_t compute_bytes(const struct model_hparams *hp, const mcp_engine_opts *engine)
{
    uint64_t token = 2 * (uint64_t)hp->n_ff + 6 * (uint64_t)hp->n_embd + hp->n_vocab;

    return engine->ubatch_tokens * token * sizeof(float);
}

static int collect_here(struct mcp_plan *plan, const mcp_plan_opts *opts,
                        const struct plan_graph *graph, const mcp_engine_opts *engine,
                        mcp_error *err)
{
    static const enum profile_want wants[] = { [MCP_PROFILE_KEPT] = PROFILE_FIND,
                                               [MCP_PROFILE_ONCE] = PROFILE_FIND_OR_MEASURE,
                                               [MCP_PROFILE_AGAIN] = PROFILE_MEASURE };
    struct plan_here              *here = &plan->here;
    int                            rc = MCP_OK;

    if (opts->here != NULL)
        plan->here_profile = *opts->here;
    else
        rc = profile_here(&plan->here_profile, opts->model, graph, engine, wants[opts->when],
                          opts->progress, opts->progress_ctx, err);
    if (rc < 0)
        return rc;
    if (plan->here_profile.p.kind == PLAN_ROOFLINE)
        agent_plan_note(plan, "this machine: %s as by its data sheet, not measured",
                        plan->here_profile.p.device);
    snprintf(here->name, sizeof(here->name), "%.40s on %.80s", plan->here_profile.p.quantisation,
             plan->here_profile.p.device);
    here->profile = &plan->here_profile.p;
    here->weights = &plan->weights;
    here->weights_id = 1;
    here->compute_bytes = compute_bytes(&opts->model->hp, engine);
    here->even_windows = true; /* steer.c and profile_here() open engines so */
    return MCP_OK;
}

/* ---- workers --------------------------------------------------------------------------------- */

static bool has_feature(const mcp_worker_info *info, const char *name)
{
    size_t bytes = strlen(name);

    for (const char *at = info->features; (at = strstr(at, name)) != NULL; at += bytes)
        if ((at == info->features || at[-1] == ' ') && (at[bytes] == ' ' || at[bytes] == '\0'))
            return true;
    return false;
}

/* The link as stated, as seen lately, or as a short measurement finds it. */
static void collect_link(struct mcp_plan *plan, struct plan_worker *w, const mcp_plan_opts *opts,
                         uint32_t index, const mcp_worker_info *info)
{
    struct plan_link_estimate *link = &w->link;
    mcp_ping_opts              ping = { .rounds = PING_ROUNDS, .bulk_bytes = PING_BULK_BYTES };
    mcp_ping_result            seen = { 0 };
    mcp_error                  err = { 0 };
    char                       text[128];
    bool stated = opts->rtt_ms > 0 && opts->up_mbit > 0 && opts->down_mbit > 0;

    if (!stated && w->up && remote_ping(opts->remote, index, &ping, &seen, &err) < 0)
        agent_plan_note(plan, "the link to %s could not be measured: %s", info->endpoint, err.text);
    link->rtt_ms = opts->rtt_ms > 0      ? opts->rtt_ms
                   : seen.rtt_ms_p50 > 0 ? seen.rtt_ms_p50
                                         : info->rtt_ms;
    link->rtt_min_ms = opts->rtt_ms > 0 ? opts->rtt_ms : seen.rtt_ms_min;
    if (link->rtt_min_ms <= 0)
        link->rtt_min_ms = link->rtt_ms;
    link->mbit[PLAN_UP] = opts->up_mbit > 0  ? opts->up_mbit
                          : seen.up_mbit > 0 ? seen.up_mbit
                                             : info->goodput_mbit;
    link->mbit[PLAN_DOWN] = opts->down_mbit > 0 ? opts->down_mbit : seen.down_mbit;
    plan_link_unknown(link, text, sizeof(text));
    if (text[0] != '\0')
        agent_plan_note(plan, "the link to %s: %s", info->endpoint, text);
}

/* The same weights as ours?  Of a worker that does not say, the quantisation tells. */
static bool same_weights(struct mcp_remote *remote, const struct mcp_model *model, uint32_t index,
                         const mcp_worker_info *info)
{
    uint8_t ours[WIRE_DIGEST_BYTES], theirs[WIRE_DIGEST_BYTES];

    if (remote_weights(remote, index, info->first, info->last, theirs, NULL) < 0)
        return strcmp(info->quantisation, model->info.quantisation) == 0;
    return agent_weights_digest(model, info->first, info->last, ours, NULL) == MCP_OK &&
           memcmp(ours, theirs, sizeof(ours)) == 0;
}

static void collect_profile(struct mcp_plan *plan, uint32_t at, const mcp_plan_opts *opts,
                            const struct plan_graph *graph, const char *endpoint)
{
    static const enum profile_want wants[] = { [MCP_PROFILE_KEPT] = PROFILE_FIND,
                                               [MCP_PROFILE_ONCE] = PROFILE_FIND_OR_MEASURE,
                                               [MCP_PROFILE_AGAIN] = PROFILE_MEASURE };
    mcp_error                      err = { 0 };

    if (profile_worker(&plan->profiles[at], opts->model, graph, opts->remote,
                       (uint32_t)plan->indices[at], wants[opts->when], opts->progress,
                       opts->progress_ctx, &err) == MCP_OK)
        plan->workers[at].profile = &plan->profiles[at].p;
    else
        agent_plan_note(plan, "%s is left out, its speed is not known: %s", endpoint, err.text);
}

/* Load, as it says; a session of ours there loads nobody but us, and what it waits there its own
 * windows show.  The queue takes as long as one forward with all of it: positions a second "lately"
 * say nothing of a worker that has been idle. */
static void take_load(struct plan_worker *w, const mcp_worker_info *info, bool ours)
{
    uint32_t open = info->sessions > info->sessions_free ? info->sessions - info->sessions_free : 0;

    w->sessions_free = info->sessions_free + ours;
    w->others = open > (uint32_t)ours ? open - ours : 0;
    if (!ours)
        w->queue_ms = info->queued_tokens > 0 && w->profile != NULL
                          ? (w->last - w->first) *
                                plan_profile_layer_ms(w->profile, info->queued_tokens, 0, 1)
                          : 0.0;
}

/* The link as its traffic shows it; what that has not shown yet stays. */
static void take_link(struct plan_link_estimate *link, struct mcp_remote *remote, uint32_t index)
{
    struct plan_link_estimate seen = { 0 };

    if (remote_link_estimate(remote, index, base_clock_ms(), &seen) < 0)
        return;
    if (seen.rtt_ms > 0.0) {
        link->rtt_ms = seen.rtt_ms;
        link->rtt_min_ms = seen.rtt_min_ms;
    }
    for (int d = 0; d < PLAN_DIRECTIONS; d++)
        if (seen.mbit[d] > 0.0)
            link->mbit[d] = seen.mbit[d];
}

/* What the worker holds and can do.  False, with a note: it takes no session of this model. */
static bool take_worker(struct mcp_plan *plan, uint32_t at, struct mcp_remote *remote,
                        const struct mcp_model *model, const mcp_worker_info *info)
{
    struct plan_worker *w = &plan->workers[at];
    uint32_t            index = (uint32_t)plan->indices[at];
    uint8_t             fingerprint[MCP_FINGERPRINT_BYTES];

    snprintf(w->name, sizeof(w->name), "%.60s",
             info->name[0] != '\0' ? info->name : info->endpoint);
    w->first = info->first;
    w->last = info->last;
    if (info->state != MCP_WORKER_UP) {
        agent_plan_note(plan, "%s is left out, it takes no session%s%s", info->endpoint,
                        info->problem[0] != '\0' ? ": " : "", info->problem);
        return false;
    }
    if (model_fingerprint(model, fingerprint, NULL) < 0 ||
        memcmp(fingerprint, info->fingerprint, sizeof(fingerprint)) != 0) {
        agent_plan_note(plan, "%s is left out, it holds another model (%s)", info->endpoint,
                        info->model);
        return false;
    }
    w->ctx_tokens = info->ctx_tokens;
    w->generates = has_feature(info, "generate");
    w->exports_kv = has_feature(info, "state");
    pthread_mutex_lock(&remote->lock);
    w->even_windows = remote->links[index].shown.even_windows;
    pthread_mutex_unlock(&remote->lock);
    w->weights_id = same_weights(remote, model, index, info) ? 1 : 2 + (uint64_t)index;
    w->quality_pct = w->weights_id != 1 ? other_weights_pct : 0.0;
    return true;
}

static void collect_worker(struct mcp_plan *plan, uint32_t at, const mcp_plan_opts *opts,
                           const struct plan_graph *graph)
{
    struct plan_worker *w = &plan->workers[at];
    uint32_t            index = (uint32_t)plan->indices[at];
    mcp_worker_info     info;

    if (remote_get_worker(opts->remote, index, &info) < 0)
        return;
    w->price_hour = opts->price_hour;
    w->up = take_worker(plan, at, opts->remote, opts->model, &info);
    if (!w->up)
        return;
    plan->codecs_common &= remote_codecs(opts->remote, index);
    collect_link(plan, w, opts, index, &info);
    collect_profile(plan, at, opts, graph, info.endpoint);
    take_load(w, &info, false);
}

/* The profile of a worker that has come, when it was measured before: an answer does not wait for
 * that. */
static void find_profile(struct mcp_plan *plan, uint32_t at, struct mcp_remote *remote,
                         const struct mcp_model *model)
{
    mcp_plan_opts      opts = { .model = model, .remote = remote, .when = MCP_PROFILE_KEPT };
    struct plan_graph *graph;
    mcp_worker_info    info;

    if (remote_get_worker(remote, (uint32_t)plan->indices[at], &info) < 0 ||
        profile_graph(&graph, model, NULL) < 0)
        return;
    collect_profile(plan, at, &opts, graph, info.endpoint);
    plan_graph_free(graph);
}

bool agent_plan_look(struct mcp_plan *plan, uint32_t at, struct mcp_remote *remote,
                     const struct mcp_model *model, bool ours, bool blocked)
{
    struct plan_worker *w = &plan->workers[at];
    int32_t             index = plan->indices[at];
    bool                was = w->up;
    mcp_worker_info     info;

    if (index < 0 || remote == NULL || remote_get_worker(remote, (uint32_t)index, &info) < 0)
        return false;
    w->up = !blocked && info.state == MCP_WORKER_UP &&
            (was || take_worker(plan, at, remote, model, &info));
    if (!w->up)
        return was;
    take_load(w, &info, ours);
    take_link(&w->link, remote, (uint32_t)index);
    if (!was && w->profile == NULL)
        find_profile(plan, at, remote, model);
    return !was && w->profile != NULL;
}

static void suppose_worker(struct mcp_plan *plan, uint32_t at, const mcp_supposed_worker *s)
{
    struct plan_worker *w = &plan->workers[at];
    char                text[128];

    plan->profiles[at] = *s->profile;
    plan->indices[at] = -1;
    snprintf(w->name, sizeof(w->name), "%s", s->name != NULL ? s->name : s->profile->p.device);
    w->profile = &plan->profiles[at].p;
    w->link.rtt_ms = w->link.rtt_min_ms = s->rtt_ms;
    w->link.mbit[PLAN_UP] = s->up_mbit;
    w->link.mbit[PLAN_DOWN] = s->down_mbit;
    w->up = w->generates = w->exports_kv = w->even_windows = true;
    w->last = plan->model.layers;
    w->sessions_free = 1;
    w->weights_id = 1;
    w->price_hour = s->price_hour;
    w->weights = &plan->weights;
    w->memory_bytes = s->profile->p.memory_bytes;
    if (s->profile->p.kind == PLAN_ROOFLINE)
        agent_plan_note(plan, "%s: supposed, as by its data sheet, not measured", w->name);
    plan_link_unknown(&w->link, text, sizeof(text));
    if (text[0] != '\0')
        agent_plan_note(plan, "the link to %s: %s", w->name, text);
}

static int collect_workers(struct mcp_plan *plan, const mcp_plan_opts *opts,
                           const struct plan_graph *graph, mcp_error *err)
{
    uint32_t links = opts->remote != NULL ? opts->remote->link_count : 0;
    uint32_t count = links + opts->supposed_count;

    if (count > PLAN_WORKERS_MAX)
        return base_fail(err, MCP_ERANGE, "%u workers, at most %d", count, PLAN_WORKERS_MAX);
    plan->profiles = calloc(count + 1, sizeof(*plan->profiles));
    plan->workers = calloc(count + 1, sizeof(*plan->workers));
    plan->indices = calloc(count + 1, sizeof(*plan->indices));
    if (plan->profiles == NULL || plan->workers == NULL || plan->indices == NULL)
        return base_fail(err, MCP_ENOMEM, "facts about %u workers", count);
    plan->codecs_common = UINT32_MAX;
    for (uint32_t i = 0; i < links; i++) {
        plan->indices[i] = (int32_t)i;
        collect_worker(plan, i, opts, graph);
    }
    for (uint32_t i = 0; i < opts->supposed_count; i++)
        suppose_worker(plan, links + i, &opts->supposed[i]);
    plan->worker_count = count;
    return MCP_OK;
}

/* ---- codecs ---------------------------------------------------------------------------------- */

/* What encoding and decoding one row takes here: the other end is hardly slower. */
static double codec_ms(const struct wire_codec *c, const float *rows, uint8_t *bytes, float *back,
                       size_t n)
{
    double began = base_clock_ms();

    wire_codec_encode(c, bytes, rows, CODEC_ROWS, n);
    (void)wire_codec_decode(c, back, bytes, wire_codec_bytes(c, CODEC_ROWS, n), CODEC_ROWS, n,
                            NULL);
    return (base_clock_ms() - began) / CODEC_ROWS;
}

/* As large as one that is listed already and no closer to the original: nothing is won by it,
 * whatever a microsecond of encoding says. */
static bool codec_is_idle(const struct mcp_plan *plan, const struct plan_codec *c)
{
    for (uint32_t i = 0; i < plan->facts.codec_count; i++)
        if (plan->codecs[i].token_bytes <= c->token_bytes &&
            plan->codecs[i].quality_pct <= c->quality_pct)
            return plan->request.codec == NULL || strcmp(plan->request.codec, c->name) != 0;
    return false;
}

static int collect_codecs(struct mcp_plan *plan, mcp_error *err)
{
    /* By size, and of equals the closest first. */
    static const uint32_t order[] = { WIRE_Q4R, WIRE_Q8R, WIRE_Q8, WIRE_F16, WIRE_BF16, WIRE_F32 };
    size_t                n = plan->model.n_embd;
    float                *rows = malloc(2 * CODEC_ROWS * n * sizeof(*rows));
    uint8_t *bytes = malloc(wire_codec_bytes(wire_codec_by_id(WIRE_F32), CODEC_ROWS, n));
    uint32_t noise = 1;

    if (rows == NULL || bytes == NULL) {
        free(rows);
        free(bytes);
        return base_fail(err, MCP_ENOMEM, "%d hidden states", CODEC_ROWS);
    }
    for (size_t i = 0; i < CODEC_ROWS * n; i++) {
        noise = noise * 1664525u + 1013904223u;
        rows[i] = (float)(noise >> 8) / (float)(1 << 23) - 1.0f;
    }
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        uint32_t                 id = order[i];
        const struct wire_codec *c = wire_codec_by_id(id);
        struct plan_codec       *out = &plan->codecs[plan->facts.codec_count];

        if ((plan->codecs_common >> id & 1) == 0 || wire_codec_bytes(c, 1, n) == 0)
            continue;
        snprintf(out->name, sizeof(out->name), "%s", c->name);
        out->token_bytes = (double)wire_codec_bytes(c, 1, n);
        out->quality_pct = codec_quality_pct[id];
        if (codec_is_idle(plan, out))
            continue;
        (void)codec_ms(c, rows, bytes, rows + CODEC_ROWS * n, n); /* pages and tables */
        out->token_ms = codec_ms(c, rows, bytes, rows + CODEC_ROWS * n, n);
        plan->facts.codec_count++;
    }
    free(rows);
    free(bytes);
    return MCP_OK;
}

/* ---- all ------------------------------------------------------------------------------------- */

int agent_plan_collect(struct mcp_plan *plan, const mcp_plan_opts *opts, mcp_error *err)
{
    mcp_engine_opts    engine = MCP_ENGINE_OPTS_INIT;
    struct plan_graph *graph;
    struct plan_facts *f = &plan->facts;
    int                rc = profile_graph(&graph, opts->model, err);

    if (rc < 0)
        return rc;
    if (opts->engine != NULL)
        engine = *opts->engine;
    snprintf(plan->device, sizeof(plan->device), "%s", engine.device);
    plan->engine = engine;
    plan->engine.device = plan->device;
    collect_model(plan, opts->model, graph, &engine);
    rc = collect_here(plan, opts, graph, &engine, err);
    if (rc == MCP_OK)
        rc = collect_workers(plan, opts, graph, err);
    if (rc == MCP_OK)
        rc = collect_codecs(plan, err);
    plan_graph_free(graph);
    plan->drafts[0] = ngram_prior;
    f->model = &plan->model;
    f->here = &plan->here;
    f->here_count = 1;
    f->workers = plan->workers;
    f->worker_count = plan->worker_count;
    f->codecs = plan->codecs;
    f->drafts = plan->drafts;
    f->draft_count = 1;
    return rc;
}
