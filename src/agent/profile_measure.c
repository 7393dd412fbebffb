/* agent/profile_measure.c - see profile_measure.h.
 *
 * What is timed is a forward of the engine, so copies to and from a device are in it.  Decoding
 * streams the weights from memory: as many layers as the budget allows are run one after
 * another, so that none waits for the next turn in a cache.  Large windows are bound by
 * arithmetic; there one layer is enough.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/profile_measure.h"

#include "base/clock.h"
#include "base/fail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOAD_BYTES = 1 << 30, /* of weights: beyond any last-level cache, read in a second or two */
    LAYERS_MIN = 2,       /* whatever they weigh */
    WINDOW_TOKENS_MAX = 512,
    HEADS = 3,     /* of the grid's token counts are measured as rows: 1, 8, 32 */
    ROWS_MAX = 32, /* 13 MB of logits at the largest vocabularies */
    RUNS_MIN = 3,  /* for a median; fewer where they take longer than twice ENOUGH_MS */
    RUNS_MAX = 9,
    ENOUGH_MS = 300, /* spent on one figure */
    RANGE_MS = 150,  /* wanted of one forward: more layers are left out */
    EMBED_RUNS = 3,
};

struct rig {
    struct mcp_engine  *engine;
    float              *hidden; /* (WINDOW_TOKENS_MAX, n_embd), finite and of a state's size */
    float              *out;    /* rows */
    size_t              floats; /* of out */
    const double       *work;   /* (layers of the model) */
    uint32_t            first, last;
    uint32_t            done, all; /* figures */
    measure_progress_fn progress;
    void               *ctx;
};

/* How many of the last layers to load. */
static uint32_t layers_to_load(const struct mcp_model *model)
{
    uint32_t n = model->hp.n_layer, count = 0;
    uint64_t bytes = 0;

    while (count < n) {
        bytes += model_range_bytes(model, n - count - 1, n - count);
        if (count >= LAYERS_MIN && bytes > LOAD_BYTES)
            break;
        count++;
    }
    return count;
}

static int open_rig(struct rig *r, const struct mcp_model *model, const mcp_engine_opts *opts,
                    uint32_t context_max, mcp_error *err)
{
    mcp_engine_opts o = *opts;
    size_t          n = model->hp.n_embd;
    uint32_t        noise = 1;
    int             rc;

    r->last = o.last = model->hp.n_layer;
    r->first = o.first = o.last - layers_to_load(model);
    o.seqs = 1;
    o.ctx_tokens = context_max + WINDOW_TOKENS_MAX;
    o.batch_tokens = o.ubatch_tokens = WINDOW_TOKENS_MAX;
    o.gpu_layers = -1;
    o.beside = NULL;
    rc = engine_open(&r->engine, model, &o, err);
    if (rc < 0)
        return rc;
    r->floats = (size_t)ROWS_MAX * model->hp.n_vocab;
    if (r->floats < WINDOW_TOKENS_MAX * n)
        r->floats = WINDOW_TOKENS_MAX * n;
    r->hidden = engine_alloc(r->engine, WINDOW_TOKENS_MAX * n);
    r->out = engine_alloc(r->engine, r->floats);
    if (r->hidden == NULL || r->out == NULL)
        return base_fail(err, MCP_ENOMEM, "hidden states of %d tokens", WINDOW_TOKENS_MAX);
    for (size_t i = 0; i < WINDOW_TOKENS_MAX * n; i++) {
        noise = noise * 1664525u + 1013904223u;
        r->hidden[i] = (float)(noise >> 8) / (float)(1 << 23) - 1.0f;
    }
    return MCP_OK;
}

static void close_rig(struct rig *r)
{
    engine_free(r->hidden);
    engine_free(r->out);
    engine_close(r->engine);
}

/* One forward through [first, end of the model) behind `context` positions.  Those are rows of
 * zeros that nobody computed: attention over them costs what it always costs. */
static int forward(struct rig *r, uint32_t first, mcp_want want, uint32_t tokens, uint32_t context,
                   double *ms, mcp_error *err)
{
    mcp_window w = { .pos = context, .count = tokens, .hidden = r->hidden, .out = MCP_OUT_ALL };
    double     began;
    int        rc;

    for (uint32_t layer = first; layer < r->last; layer++)
        *engine_kv_length(&engine_shard_of(r->engine, layer)->kv, 0, layer) = context;
    began = base_clock_ms();
    rc = engine_forward(r->engine, first, r->last, want, &w, 1, r->out, r->floats, err);
    *ms = base_clock_ms() - began;
    return rc;
}

static int step(struct rig *r, mcp_error *err)
{
    if (r->progress != NULL && r->progress(r->done++, r->all, r->ctx) != 0)
        return base_fail(err, MCP_ECANCELED, "the measurement was stopped");
    return MCP_OK;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double measure_median(double *samples, uint32_t count)
{
    qsort(samples, count, sizeof(*samples), compare);
    return count % 2 == 1 ? samples[count / 2]
                          : (samples[count / 2 - 1] + samples[count / 2]) / 2.0;
}

/* Enough samples, or enough time spent? */
static bool enough(uint32_t runs, double spent_ms)
{
    return runs >= RUNS_MAX || spent_ms >= 2 * ENOUGH_MS ||
           (runs >= RUNS_MIN && spent_ms >= ENOUGH_MS);
}

/* A forward through the last `layers` layers, in the median. */
static int measure_range(struct rig *r, uint32_t layers, uint32_t tokens, uint32_t context,
                         bool warm_up, double *range_ms, mcp_error *err)
{
    uint32_t runs = 0;
    double   samples[RUNS_MAX], spent = 0.0, ms;
    int      rc = MCP_OK;

    if (warm_up) /* graphs are built, pages touched, clocks raised */
        rc = forward(r, r->last - layers, MCP_WANT_HIDDEN, tokens, context, &ms, err);
    while (rc == MCP_OK && !enough(runs, spent)) {
        rc = forward(r, r->last - layers, MCP_WANT_HIDDEN, tokens, context, &ms, err);
        samples[runs++] = ms;
        spent += ms;
    }
    if (rc == MCP_OK)
        *range_ms = measure_median(samples, runs);
    return rc;
}

/* A layer of average work.  `expected_ms` of it decides how many layers take part; 0: all. */
static int measure_layer(struct rig *r, uint32_t tokens, uint32_t context, double expected_ms,
                         double call_ms, double *layer_ms, mcp_error *err)
{
    uint32_t layers = r->last - r->first;
    double   ms;
    int      rc = step(r, err);

    if (expected_ms * layers > RANGE_MS)
        layers = expected_ms < RANGE_MS ? (uint32_t)(RANGE_MS / expected_ms) : 1;
    if (rc == MCP_OK)
        rc = measure_range(r, layers, tokens, context, expected_ms * layers < ENOUGH_MS, &ms, err);
    if (rc == MCP_OK)
        *layer_ms = (ms > call_ms ? ms - call_ms : ms) /
                    measure_work(r->work, r->last - layers, r->last);
    return rc;
}

/* What a forward costs beside its layers: twice a half of them less the whole. */
static int measure_call(struct rig *r, double *call_ms, mcp_error *err)
{
    uint32_t half = (r->last - r->first) / 2;
    double   part, whole, work;
    int      rc = step(r, err);

    *call_ms = 0.0;
    if (half == 0)
        return rc;
    if (rc == MCP_OK)
        rc = measure_range(r, half, 1, 0, true, &part, err);
    if (rc == MCP_OK)
        rc = measure_range(r, r->last - r->first, 1, 0, true, &whole, err);
    if (rc < 0)
        return rc;
    work = measure_work(r->work, r->last - half, r->last) /
           measure_work(r->work, r->first, r->last);
    if (part > whole * work) /* part = call + work (whole - call) */
        *call_ms = (part - whole * work) / (1.0 - work);
    if (*call_ms > part / 2.0)
        *call_ms = part / 2.0;
    return MCP_OK;
}

/* One forward of the last layer with or without the head, as it comes in decoding: after all other
 * layers have gone through the caches. */
static int measure_last(struct rig *r, mcp_want want, uint32_t rows, double *ms, mcp_error *err)
{
    double unused;
    int    rc = forward(r, r->first, MCP_WANT_HIDDEN, 1, 0, &unused, err);

    return rc == MCP_OK ? forward(r, r->last - 1, want, rows, 0, ms, err) : rc;
}

/* The head alone: what the last layer takes longer with it than without, in turns. */
static int measure_head(struct rig *r, uint32_t rows, double *head_ms, mcp_error *err)
{
    uint32_t runs = 0;
    double   samples[RUNS_MAX], spent = 0.0, with, without;
    int      rc = step(r, err);

    for (bool warm = false; rc == MCP_OK && !enough(runs, spent); warm = true) {
        rc = measure_last(r, MCP_WANT_HIDDEN, rows, &without, err);
        if (rc == MCP_OK)
            rc = measure_last(r, MCP_WANT_LOGITS, rows, &with, err);
        if (rc < 0 || !warm)
            continue;
        samples[runs++] = with > without ? with - without : 0.0;
        spent += with + without;
    }
    if (rc == MCP_OK)
        *head_ms = measure_median(samples, runs);
    return rc;
}

/* Looking up and widening rows of the embedding, which the host does or could do. */
static double measure_embed(struct rig *r, uint32_t tokens)
{
    const struct mcp_model *model = r->engine->model;
    double                  samples[EMBED_RUNS];

    for (uint32_t run = 0; run < EMBED_RUNS; run++) {
        double began = base_clock_ms();

        for (uint32_t i = 0; i < tokens; i++)
            model_embed(model->tensors.global[G_TOKEN_EMBD],
                        (int32_t)((i * 7919u + run) % model->hp.n_vocab),
                        r->out + (size_t)i * model->hp.n_embd);
        samples[run] = base_clock_ms() - began;
    }
    return measure_median(samples, EMBED_RUNS);
}

static void describe(struct plan_profile *p, const struct mcp_engine *e)
{
    enum { DEVICES_MAX = 32 };
    mcp_device  devices[DEVICES_MAX];
    int         count = engine_devices(devices, DEVICES_MAX);
    const char *name = e->shards[0].device->name;

    for (int i = 0; i < count && i < DEVICES_MAX; i++) {
        if (strcmp(devices[i].name, name) != 0)
            continue;
        snprintf(p->device, sizeof(p->device), "%s", devices[i].description);
        p->memory_bytes = devices[i].memory_bytes;
    }
    if (p->device[0] == '\0')
        snprintf(p->device, sizeof(p->device), "%s", name);
}

int measure_here(struct plan_profile *out, const struct mcp_model *model, const double *work,
                 const mcp_engine_opts *opts, measure_progress_fn progress, void *ctx,
                 mcp_error *err)
{
    struct rig          r = { .progress = progress, .ctx = ctx, .work = work };
    struct plan_profile p;
    int                 rc;

    measure_begin(&p, model);
    r.all = HEADS + 1 + p.context_count * p.token_count;
    rc = open_rig(&r, model, opts, p.contexts[p.context_count - 1], err);
    /* After the heads, ends of windows only rise within a context and from one to the next: rows beyond would be
     * zeroed first (engine_kv_claim), on the clock. */
    for (uint32_t i = 0; i < HEADS && rc == MCP_OK; i++)
        rc = measure_head(&r, p.tokens[i], &p.head_ms[i], err);
    if (rc == MCP_OK)
        rc = measure_call(&r, &p.call_ms, err);
    for (uint32_t c = 0; c < p.context_count && rc == MCP_OK; c++)
        for (uint32_t t = 0; t < p.token_count && rc == MCP_OK; t++) {
            double expected = t > 0 ? p.layer_ms[t - 1][c] * p.tokens[t] / p.tokens[t - 1] : 0.0;

            rc = measure_layer(&r, p.tokens[t], p.contexts[c], expected, p.call_ms,
                               &p.layer_ms[t][c], err);
        }
    for (uint32_t t = 0; t < p.token_count && rc == MCP_OK; t++)
        p.embed_ms[t] = measure_embed(&r, p.tokens[t]);
    if (rc == MCP_OK) {
        describe(&p, r.engine);
        measure_fill_heads(&p, HEADS);
        plan_profile_settle(&p);
        *out = p;
    }
    close_rig(&r);
    return rc;
}

/* ---- shared with workers --------------------------------------------------------------------- */

double measure_work(const double *work, uint32_t first, uint32_t last)
{
    double sum = 0.0;

    for (uint32_t i = first; i < last; i++)
        sum += work[i];
    return sum;
}

void measure_fill_heads(struct plan_profile *p, uint32_t known)
{
    for (uint32_t t = known; t < p->token_count; t++)
        p->head_ms[t] = p->head_ms[known - 1] * p->layer_ms[t][0] / p->layer_ms[known - 1][0];
}

void measure_begin(struct plan_profile *p, const struct mcp_model *model)
{
    enum { CONTEXTS = sizeof(plan_profile_contexts) / sizeof(plan_profile_contexts[0]) };

    memset(p, 0, sizeof(*p));
    p->kind = PLAN_MEASURED;
    snprintf(p->model, sizeof(p->model), "%.100s", model->info.name);
    snprintf(p->quantisation, sizeof(p->quantisation), "%.60s", model->info.quantisation);
    p->layers = model->hp.n_layer;
    p->n_embd = model->hp.n_embd;
    p->token_count = sizeof(plan_profile_tokens) / sizeof(plan_profile_tokens[0]);
    memcpy(p->tokens, plan_profile_tokens, sizeof(plan_profile_tokens));
    while (p->context_count < CONTEXTS &&
           (p->context_count == 0 ||
            plan_profile_contexts[p->context_count] + WINDOW_TOKENS_MAX <= model->hp.n_ctx_train)) {
        p->contexts[p->context_count] = plan_profile_contexts[p->context_count];
        p->context_count++;
    }
}
