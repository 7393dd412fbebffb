/* agent/profile_worker.c - how fast a worker computes, by a session of our own on its layers.
 *
 * The worker says of every window how long it waited and how long it computed; only the latter
 * counts.  What is sent is noise in the smallest codec, and one row comes back.  Each window runs
 * at its position and is trimmed away again.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/profile_measure.h"

#include "agent/endpoint.h"
#include "base/clock.h"
#include "base/fail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
    WINDOW_TOKENS_MAX = 512,
    CONTEXTS_MAX = 2,     /* of the grid: to fill 4,096 positions would take longer than it tells */
    RUNS = 4,             /* of a window, */
    RUNS_LARGE = 2,       /* of one that is bound by arithmetic, */
    LARGE_TOKENS = 128,   /* that is: from here on; the first one warms up and does not count */
    WINDOW_MS_MAX = 1500, /* larger windows that would take longer are left to extrapolation, */
    FILL_MS_MAX = 4000,   /* and so is a context that would take longer to fill */
    ANSWER_MS_MAX = 60000, /* for one window; the largest on a slow CPU takes seconds */
    ENDPOINT = 1,          /* the only one of our mailbox */
};

struct probe {
    const struct mcp_model  *model;
    struct agent_endpoint   *endpoint;
    struct mail             *mail;
    const struct wire_codec *codec;
    struct pipe_block       *noise; /* (WINDOW_TOKENS_MAX) rows */
    uint32_t                 first, last, ctx_tokens, batch_tokens;
    uint32_t                 epoch;
    uint64_t                 number;
    uint32_t                 done, all;
    measure_progress_fn      progress;
    void                    *ctx;
    const char              *name; /* of the worker, for sentences */
};

/* Wait for the answer to the last Forward, or with number 0 for Opened. */
static int await(struct probe *p, uint64_t number, struct pipe_timing *timing, mcp_error *err)
{
    double until = base_clock_ms() + ANSWER_MS_MAX;

    while (base_clock_ms() < until) {
        bool               starved = false;
        struct mail_event *event = mail_take(p->mail, &starved);
        int                rc = MCP_OK;
        bool               over = false;

        if (starved)
            return base_fail(err, MCP_ENOMEM, "answer of worker %s", p->name);
        if (event == NULL) {
            mail_wait(p->mail, until);
            continue;
        }
        switch (event->kind) {
        case MAIL_OPENED:
            p->batch_tokens = event->opened.batch_tokens;
            if (event->opened.ctx_tokens > 0)
                p->ctx_tokens = event->opened.ctx_tokens;
            over = number == 0;
            break;
        case MAIL_RESULT:
            over = number != 0 && event->number == number;
            if (over)
                *timing = event->timing;
            break;
        case MAIL_LOST:
            rc = wire_status_fail(&event->status, err);
            if (rc == MCP_OK)
                rc = base_fail(err, MCP_EUNAVAIL, "worker %s ended the measurement", p->name);
            break;
        default: break;
        }
        mail_event_free(event);
        if (rc < 0 || over)
            return rc;
    }
    return base_fail(err, MCP_ETIMEOUT, "worker %s did not answer within %d ms", p->name,
                     ANSWER_MS_MAX);
}

/* One window at `pos`; what it took to compute there. */
static int forward(struct probe *p, uint32_t pos, uint32_t tokens, enum wire_want want, double *ms,
                   mcp_error *err)
{
    struct wire_frame  frame = { .kind = WIRE_FORWARD };
    struct pipe_timing timing = { 0 };
    int                rc;

    frame.u.forward = (struct wire_forward){
        .number = ++p->number,
        .epoch = p->epoch,
        .pos = pos,
        .count = tokens,
        .in = { .codec = p->codec->id,
                .data = p->noise->data,
                .bytes = tokens * pipe_block_row_bytes(p->noise),
                .total = tokens * pipe_block_row_bytes(p->noise) },
        .want = want,
        .reply_codec = want == WIRE_WANT_LOGITS_LAST ? (uint32_t)WIRE_F32 : p->codec->id,
        .bulk = true,
    };
    rc = endpoint_send(p->endpoint, &frame, p->noise, err);
    if (rc == MCP_OK)
        rc = await(p, p->number, &timing, err);
    if (rc == MCP_OK)
        *ms = timing.compute_us * 1e-3;
    return rc;
}

static int trim(struct probe *p, uint32_t pos, mcp_error *err)
{
    struct wire_frame frame = { .kind = WIRE_TRIM };

    frame.u.trim.epoch = ++p->epoch;
    frame.u.trim.pos = pos;
    return endpoint_send(p->endpoint, &frame, NULL, err);
}

static int step(struct probe *p, mcp_error *err)
{
    if (p->progress != NULL && p->progress(p->done++, p->all, p->ctx) != 0)
        return base_fail(err, MCP_ECANCELED, "the measurement was stopped");
    return MCP_OK;
}

/* A window behind `context` positions, in the median. */
static int window_ms(struct probe *p, uint32_t context, uint32_t tokens, enum wire_want want,
                     double *ms, mcp_error *err)
{
    uint32_t runs = tokens < LARGE_TOKENS ? RUNS : RUNS_LARGE;
    double   samples[RUNS];
    int      rc = MCP_OK;

    for (uint32_t i = 0; i < runs && rc == MCP_OK; i++) {
        rc = forward(p, context, tokens, want, &samples[i], err);
        if (rc == MCP_OK)
            rc = trim(p, context, err);
    }
    if (rc == MCP_OK)
        *ms = measure_median(samples + 1, runs - 1);
    return rc;
}

/* Positions [from, to), whatever is in them. */
static int fill(struct probe *p, uint32_t from, uint32_t to, uint32_t window, mcp_error *err)
{
    double ms;
    int    rc = MCP_OK;

    for (uint32_t pos = from; pos < to && rc == MCP_OK; pos += window)
        rc = forward(p, pos, to - pos < window ? to - pos : window, WIRE_WANT_NONE, &ms, err);
    return rc;
}

/* The column of one context.  On a slow worker the largest windows are left out, of all contexts
 * once they were of the first. */
static int measure_column(struct probe *p, struct plan_profile *out, double layers, uint32_t c,
                          mcp_error *err)
{
    double ms = 0.0;
    int    rc = MCP_OK;

    for (uint32_t t = 0; t < out->token_count && rc == MCP_OK; t++) {
        if (t > 0 && c == 0 && ms * out->tokens[t] / out->tokens[t - 1] > WINDOW_MS_MAX) {
            out->token_count = t;
            break;
        }
        rc = step(p, err);
        if (rc == MCP_OK)
            rc = window_ms(p, out->contexts[c], out->tokens[t], WIRE_WANT_HIDDEN_LAST, &ms, err);
        out->layer_ms[t][c] = ms / layers;
    }
    return rc;
}

static int measure_grid(struct probe *p, struct plan_profile *out, const double *work,
                        mcp_error *err)
{
    double layers = measure_work(work, p->first, p->last), ms = 0.0;
    int    rc = measure_column(p, out, layers, 0, err);

    for (uint32_t c = 1; c < out->context_count && rc == MCP_OK; c++) {
        uint32_t largest = out->token_count - 1, window = out->tokens[largest];
        double   fill_ms = out->layer_ms[largest][0] * layers / window *
                         (out->contexts[c] - out->contexts[c - 1]);

        if (fill_ms > FILL_MS_MAX) {
            out->context_count = c;
            break;
        }
        rc = fill(p, out->contexts[c - 1], out->contexts[c], window, err);
        if (rc == MCP_OK)
            rc = measure_column(p, out, layers, c, err);
    }
    if (rc < 0 || p->last < p->model->hp.n_layer)
        return rc;
    rc = trim(p, 0, err);
    if (rc == MCP_OK)
        rc = window_ms(p, 0, 1, WIRE_WANT_LOGITS_LAST, &ms, err);
    ms -= out->layer_ms[0][0] * layers;
    out->head_ms[0] = ms > 0.0 ? ms : 0.0;
    measure_fill_heads(out, 1);
    return rc;
}

static int open_probe(struct probe *p, struct mcp_remote *remote, uint32_t index,
                      const mcp_worker_info *info, mcp_error *err)
{
    struct wire_open open = { .first = p->first, .last = p->last, .ctx_tokens = p->ctx_tokens };
    uint32_t         codecs = remote_codecs(remote, index);
    size_t           n = p->model->hp.n_embd;
    float           *row = malloc(n * sizeof(*row));
    uint32_t         noise = 1;
    int              rc;

    p->codec = wire_codec_by_id(WIRE_F32);
    for (uint32_t id = 0; id < WIRE_CODECS; id++) {
        const struct wire_codec *c = wire_codec_by_id(id);

        if ((codecs >> id & 1) != 0 && wire_codec_bytes(c, 1, n) > 0 &&
            wire_codec_bytes(c, 1, n) < wire_codec_bytes(p->codec, 1, n))
            p->codec = c;
    }
    p->mail = mail_new();
    p->noise = pipe_block_new(p->codec->id, WINDOW_TOKENS_MAX, wire_codec_bytes(p->codec, 1, n));
    if (row == NULL || p->mail == NULL || p->noise == NULL) {
        free(row);
        return base_fail(err, MCP_ENOMEM, "hidden states of %d tokens", WINDOW_TOKENS_MAX);
    }
    for (uint32_t t = 0; t < WINDOW_TOKENS_MAX; t++) {
        for (size_t i = 0; i < n; i++) {
            noise = noise * 1664525u + 1013904223u;
            row[i] = (float)(noise >> 8) / (float)(1 << 23) - 1.0f;
        }
        wire_codec_encode(p->codec, p->noise->data + t * pipe_block_row_bytes(p->noise), row, 1, n);
    }
    free(row);
    if (getrandom(open.session, sizeof(open.session), 0) != (ssize_t)sizeof(open.session))
        return base_fail(err, MCP_EIO, "no random numbers");
    memcpy(open.model, info->fingerprint, sizeof(open.model));
    rc = endpoint_open(&p->endpoint, remote, index, ENDPOINT, p->mail, &open, ANSWER_MS_MAX, err);
    return rc == MCP_OK ? await(p, 0, NULL, err) : rc;
}

/* Only what the session has room for. */
static int fit_grid(struct plan_profile *out, const struct probe *p, mcp_error *err)
{
    if (out->context_count > CONTEXTS_MAX)
        out->context_count = CONTEXTS_MAX;
    while (out->token_count > 1 &&
           (out->tokens[out->token_count - 1] > p->ctx_tokens ||
            (p->batch_tokens > 0 && out->tokens[out->token_count - 1] > p->batch_tokens)))
        out->token_count--;
    while (out->context_count > 1 &&
           out->contexts[out->context_count - 1] + out->tokens[out->token_count - 1] >
               p->ctx_tokens)
        out->context_count--;
    return p->ctx_tokens > 0 ? MCP_OK
                             : base_fail(err, MCP_ERANGE, "worker %s has no context", p->name);
}

int measure_worker(struct plan_profile *out, const struct mcp_model *model, const double *work,
                   struct mcp_remote *remote, uint32_t index, measure_progress_fn progress,
                   void *ctx, mcp_error *err)
{
    struct probe        p = { .model = model, .progress = progress, .ctx = ctx };
    struct plan_profile profile;
    mcp_worker_info     info;
    uint32_t            wanted;
    int                 rc = remote_get_worker(remote, index, &info);

    if (rc < 0)
        return base_fail(err, rc, "there is no worker %u", index);
    p.name = info.endpoint;
    if (info.state != MCP_WORKER_UP)
        return base_fail(err, MCP_EUNAVAIL, "worker %s takes no session%s%s", info.endpoint,
                         info.problem[0] != '\0' ? ": " : "", info.problem);
    measure_begin(&profile, model);
    p.first = info.first > 0 || info.last == 1 ? info.first : 1; /* tokens enter layer 0 */
    p.last = info.last;
    if (info.layers != profile.layers || p.first >= p.last || p.last > profile.layers)
        return base_fail(err, MCP_ENOTSUP,
                         "worker %s holds layers [%u, %u) of %u, the model has %u", info.endpoint,
                         info.first, info.last, info.layers, profile.layers);
    wanted = profile.contexts[profile.context_count > 1 ? 1 : 0] + WINDOW_TOKENS_MAX;
    p.ctx_tokens = info.ctx_tokens > 0 && info.ctx_tokens < wanted ? info.ctx_tokens : wanted;
    rc = open_probe(&p, remote, index, &info, err);
    if (rc == MCP_OK)
        rc = fit_grid(&profile, &p, err);
    p.all = profile.context_count * profile.token_count;
    if (rc == MCP_OK)
        rc = measure_grid(&p, &profile, work, err);
    endpoint_close(p.endpoint);
    mail_unref(p.mail);
    pipe_block_unref(p.noise);
    if (rc < 0)
        return rc;
    snprintf(profile.device, sizeof(profile.device), "%s",
             info.name[0] != '\0' ? info.name : info.endpoint);
    snprintf(profile.quantisation, sizeof(profile.quantisation), "%.60s", info.quantisation);
    plan_profile_settle(&profile);
    *out = profile;
    return MCP_OK;
}
