/* agent/session.c - see session.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/session.h"

#include "agent/ahead.h"
#include "agent/digest.h"
#include "base/fail.h"
#include "wire/codec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CTX_DEFAULT = 4096,
    CHUNK_DEFAULT = 64, /* the smallest window of the tiled attention class */
    WINDOWS_LOCAL = 1,  /* nothing overlaps when everything is computed by one thread */
    FAILOVER_MS = 10000,
    ANSWER_MS = 120000,
};

/* ---- opening: what runs where ------------------------------------------------------------------ */

static int check_cuts(const struct mcp_engine *e, const mcp_session_opts *opts, mcp_error *err)
{
    uint32_t layers = e->model->hp.n_layer;

    if (opts->cut_count > MCP_CUTS_MAX)
        return base_fail(err, MCP_ERANGE, "%u cuts, at most %d", opts->cut_count, MCP_CUTS_MAX);
    for (uint32_t i = 0; i < opts->cut_count; i++) {
        if (opts->cuts[i] < 1 || opts->cuts[i] >= layers)
            return base_fail(err, MCP_ERANGE, "cut %u is not inside the model's layers 1 to %u",
                             opts->cuts[i], layers - 1);
        if (i > 0 && opts->cuts[i] <= opts->cuts[i - 1])
            return base_fail(err, MCP_ERANGE, "cut %u follows %u: cuts must ascend", opts->cuts[i],
                             opts->cuts[i - 1]);
    }
    return MCP_OK;
}

static int alloc_stages(struct mcp_session *s, uint32_t count, mcp_error *err)
{
    s->stages = calloc(count, sizeof(*s->stages));
    if (s->stages == NULL)
        return base_fail(err, MCP_ENOMEM, "%u stages", count);
    s->stage_count = count;
    return MCP_OK;
}

/* One engine that holds everything, perhaps cut. */
static int stages_of_cuts(struct mcp_session *s, struct mcp_engine *engine,
                          const mcp_session_opts *opts, mcp_error *err)
{
    uint32_t first = 0;
    int      rc;

    if (engine->info.first != 0 || engine->info.last != engine->model->hp.n_layer)
        return base_fail(err, MCP_ERANGE,
                         "the engine holds layers [%u, %u) of %u, a session needs all",
                         engine->info.first, engine->info.last, engine->model->hp.n_layer);
    rc = check_cuts(engine, opts, err);
    if (rc == MCP_OK)
        rc = alloc_stages(s, opts->cut_count + 1, err);
    for (uint32_t i = 0; i < s->stage_count && rc == MCP_OK; i++) {
        s->stages[i].first = first;
        s->stages[i].last = i < opts->cut_count ? opts->cuts[i] : engine->model->hp.n_layer;
        s->stages[i].engine = engine;
        first = s->stages[i].last;
    }
    return rc;
}

static int check_stage(const struct mcp_session *s, const mcp_stage *stage, uint32_t first,
                       mcp_error *err)
{
    const mcp_engine_info *info = stage->engine != NULL ? &stage->engine->info : NULL;

    if (stage->first != first || stage->last <= stage->first || stage->last > s->model->hp.n_layer)
        return base_fail(err, MCP_ERANGE,
                         "stage [%u, %u) does not go on from layer %u inside the model's %u",
                         stage->first, stage->last, first, s->model->hp.n_layer);
    if (info != NULL && stage->engine->model != s->model)
        return base_fail(err, MCP_EINVAL, "the engine of stage [%u, %u) has another model open",
                         stage->first, stage->last);
    if (info != NULL && (stage->first < info->first || stage->last > info->last))
        return base_fail(err, MCP_ERANGE, "stage [%u, %u) is not in its engine's layers [%u, %u)",
                         stage->first, stage->last, info->first, info->last);
    if (info == NULL && s->remote == NULL)
        return base_fail(err, MCP_EINVAL, "stage [%u, %u) has neither an engine nor a remote",
                         stage->first, stage->last);
    return MCP_OK;
}

static int stages_as_given(struct mcp_session *s, const mcp_session_opts *opts, mcp_error *err)
{
    uint32_t first = 0;
    int      rc;

    if (opts->stage_count > MCP_CUTS_MAX + 1)
        return base_fail(err, MCP_ERANGE, "%u stages, at most %d", opts->stage_count,
                         MCP_CUTS_MAX + 1);
    rc = alloc_stages(s, opts->stage_count, err);
    for (uint32_t i = 0; i < s->stage_count && rc == MCP_OK; i++) {
        const mcp_stage *stage = &opts->stages[i];

        rc = check_stage(s, stage, first, err);
        s->stages[i].first = stage->first;
        s->stages[i].last = stage->last;
        s->stages[i].engine = stage->engine;
        s->stages[i].remote = stage->engine == NULL;
        first = stage->last;
    }
    if (rc == MCP_OK && first != s->model->hp.n_layer)
        rc = base_fail(err, MCP_ERANGE, "the stages end at layer %u of %u", first,
                       s->model->hp.n_layer);
    return rc;
}

static int stages_in_the_cloud(struct mcp_session *s, mcp_error *err)
{
    int rc;

    if (s->remote == NULL)
        return base_fail(err, MCP_EINVAL, "cloud mode needs a remote");
    rc = alloc_stages(s, 1, err);
    if (rc == MCP_OK)
        s->stages[0] = (struct session_stage){ .last = s->model->hp.n_layer, .remote = true };
    return rc;
}

/* False: the worker lacks the codec that was asked for.  Every worker has f32. */
static bool agree_codec(struct mcp_session *s, uint32_t worker)
{
    uint32_t codecs = remote_codecs(s->remote, worker) | UINT32_C(1) << WIRE_F32;

    if ((codecs >> s->codec->id & 1) != 0)
        return true;
    if (s->codec_auto)
        s->codec = wire_codec_by_id((codecs >> WIRE_F16 & 1) != 0 ? WIRE_F16 : WIRE_F32);
    return s->codec_auto;
}

/* Which workers fit, as far as they have said what they hold; the others stay out. */
static int check_workers(struct mcp_session *s, struct session_stage *stage, mcp_error *err)
{
    uint8_t         model[WIRE_DIGEST_BYTES], theirs[WIRE_DIGEST_BYTES];
    mcp_worker_info info;
    int             rc = model_fingerprint(s->model, model, err);
    bool            found = false;

    if (rc == MCP_OK && !s->mixed)
        rc = agent_weights_digest(s->model, stage->first, stage->last, stage->weights, err);
    if (rc < 0)
        return rc;
    rc = base_fail(err, MCP_ERANGE, "no worker that is connected holds layers [%u, %u)",
                   stage->first, stage->last);
    for (uint32_t i = 0; i < s->remote->link_count; i++) {
        if (remote_get_worker(s->remote, i, &info) < 0 || info.layers == 0)
            continue;
        if (memcmp(info.fingerprint, model, sizeof(model)) != 0) {
            if (!found)
                rc = base_fail(err, MCP_ENOTSUP,
                               "worker %s holds another model (%s) than this file; give it the "
                               "same one",
                               info.endpoint, info.model);
            s->workers[i].blocked_ms = INFINITY;
            continue;
        }
        if (remote_weights(s->remote, i, stage->first, stage->last, theirs, NULL) < 0)
            continue; /* other layers */
        if (!s->mixed && memcmp(theirs, stage->weights, sizeof(theirs)) != 0) {
            if (!found)
                rc = base_fail(err, MCP_ENOTSUP,
                               "worker %s holds layers [%u, %u) in other weights (%s); use the "
                               "same file, or allow it (mixed_weights)",
                               info.endpoint, stage->first, stage->last, info.quantisation);
            s->workers[i].blocked_ms = INFINITY;
            continue;
        }
        if (!s->cloud && !agree_codec(s, i)) {
            if (!found)
                rc = base_fail(err, MCP_ENOTSUP, "worker %s has no codec %s, it has %s",
                               info.endpoint, s->codec->name, info.codecs);
            s->workers[i].blocked_ms = INFINITY;
            continue;
        }
        if (info.batch_tokens > 0 && info.batch_tokens < s->window_tokens)
            s->window_tokens = info.batch_tokens;
        if (info.ctx_tokens > 0 && info.ctx_tokens < s->ctx_tokens)
            s->ctx_tokens = info.ctx_tokens;
        found = true;
    }
    return found ? MCP_OK : rc;
}

/* ---- opening: codecs, memory, pipeline ---------------------------------------------------------- */

/* A simple rule until the planner decides: rotated 8 bits a value cost 0.53 of f16's bytes and
 * change perplexity no more than f16 does (docs/benchmarks.md, Codecs). */
static const char *const auto_codec = "q8r";

static int choose_codec(struct mcp_session *s, const mcp_session_opts *opts, mcp_error *err)
{
    const char              *wrap = opts->wrap == NULL ? "none" : opts->wrap;
    const struct wire_codec *codec;

    s->codec_auto = opts->codec == NULL || strcmp(opts->codec, "auto") == 0;
    codec = wire_codec_by_name(s->codec_auto ? auto_codec : opts->codec);
    if (codec == NULL)
        return base_fail(err, MCP_EINVAL, "there is no codec \"%.30s\"", opts->codec);
    if (s->model->hp.n_embd % codec->row_elems != 0) {
        if (!s->codec_auto)
            return base_fail(err, MCP_EINVAL,
                             "codec %s needs a hidden state of a multiple of %u values, this "
                             "model's has %u",
                             codec->name, codec->row_elems, s->model->hp.n_embd);
        codec = wire_codec_by_id(WIRE_F16);
    }
    s->codec = codec;
    for (s->wrap = 0; s->wrap < WIRE_WRAPS; s->wrap++) {
        const char *known = s->wrap == WIRE_PLAIN ? "none" : wire_wrap_name(s->wrap);

        if (known != NULL && strcmp(wrap, known) == 0)
            break;
    }
    if (s->wrap == WIRE_WRAPS)
        return base_fail(err, MCP_EINVAL, "there is no wrap \"%.30s\": none, zstd or snappy", wrap);
    return MCP_OK;
}

static void set_codecs(struct mcp_session *s)
{
    for (uint32_t i = 1; i < s->stage_count; i++) {
        bool leaves = s->stages[i].remote || s->stages[i - 1].remote;

        s->stages[i].codec = leaves ? s->codec->id : (uint32_t)WIRE_F32;
        if (leaves)
            s->codec_name = s->codec->name;
    }
}

static int make_memory(struct mcp_session *s, mcp_error *err)
{
    size_t row = s->model->hp.n_embd * sizeof(float);
    bool   coded = false;

    for (uint32_t i = 1; i < s->stage_count; i++)
        coded = coded || s->stages[i].codec != WIRE_F32;
    s->tokens = malloc((size_t)s->ctx_tokens * sizeof(*s->tokens));
    if (s->engine != NULL)
        s->logits = engine_alloc(s->engine, s->model->hp.n_vocab);
    else
        s->logits = malloc((size_t)s->model->hp.n_vocab * sizeof(float));
    for (size_t i = 0; i < 2 && coded; i++)
        s->scratch[i] = malloc(s->window_tokens * row);
    if (s->remote != NULL && !s->cloud) {
        uint32_t n_vocab = s->model->hp.n_vocab, n_embd = s->model->hp.n_embd;

        s->row = malloc((n_vocab > n_embd ? n_vocab : n_embd) * sizeof(float));
        if (s->row == NULL)
            return base_fail(err, MCP_ENOMEM, "a row of %u values", n_vocab);
    }
    if (s->tokens == NULL || s->logits == NULL ||
        (coded && (s->scratch[0] == NULL || s->scratch[1] == NULL)))
        return base_fail(err, MCP_ENOMEM, "session of %u tokens", s->ctx_tokens);
    return MCP_OK;
}

static int make_pipeline(struct mcp_session *s, mcp_error *err)
{
    struct pipeline_stage *stages = calloc(s->stage_count, sizeof(*stages));
    struct pipeline_opts   opts = { .stages = stages,
                                    .count = s->stage_count,
                                    .windows_max = s->remote != NULL ? SESSION_WINDOWS_REMOTE
                                                                     : WINDOWS_LOCAL };
    int                    rc;

    if (stages == NULL)
        return base_fail(err, MCP_ENOMEM, "%u stages", s->stage_count);
    for (uint32_t i = 0; i < s->stage_count; i++)
        stages[i] = (struct pipeline_stage){ .first = s->stages[i].first,
                                             .last = s->stages[i].last,
                                             .journal = s->stages[i].remote };
    rc = pipeline_new(&s->pipeline, &opts, err);
    free(stages);
    return rc;
}

static int make_remote(struct mcp_session *s, const mcp_session_opts *opts, mcp_error *err)
{
    int rc = MCP_OK;

    s->mail = mail_new();
    if (s->mail == NULL)
        return base_fail(err, MCP_ENOMEM, "mailbox");
    for (uint32_t i = 0; i < s->stage_count && rc == MCP_OK; i++) {
        struct session_stage *stage = &s->stages[i];

        stage->worker = -1;
        if (!stage->remote)
            continue;
        rc = check_workers(s, stage, err);
    }
    if (rc == MCP_OK && opts->fallback != NULL) {
        s->fallback = *opts->fallback;
        s->fallback_device = strdup(opts->fallback->device);
        if (s->fallback_device == NULL)
            return base_fail(err, MCP_ENOMEM, "fallback");
        s->can_fall_back = true;
    }
    s->listener.mail = s->mail;
    remote_listen(s->remote, &s->listener);
    return rc;
}

/* The engines' limits: positions, tokens a forward, sequences. */
static int take_limits(struct mcp_session *s, const mcp_session_opts *opts, mcp_error *err)
{
    bool here = true;

    s->ctx_tokens = opts->ctx_tokens != 0 ? opts->ctx_tokens : CTX_DEFAULT;
    if (opts->ctx_tokens > MODEL_CTX_MAX)
        return base_fail(err, MCP_ERANGE, "a context of %u tokens, at most %u", opts->ctx_tokens,
                         MODEL_CTX_MAX);
    for (uint32_t i = 0; i < s->stage_count; i++)
        here = here && !s->stages[i].remote;
    s->window_tokens = opts->chunk_tokens != 0 ? opts->chunk_tokens
                       : here                  ? UINT32_MAX
                                               : CHUNK_DEFAULT;
    for (uint32_t i = 0; i < s->stage_count; i++) {
        struct mcp_engine *e = s->stages[i].engine;

        if (e == NULL)
            continue;
        if (opts->seq >= e->info.seqs)
            return base_fail(err, MCP_ERANGE, "sequence %u: the engine has %u", opts->seq,
                             e->info.seqs);
        if (s->engine == NULL) {
            s->engine = e;
            if (opts->ctx_tokens == 0)
                s->ctx_tokens = e->info.ctx_tokens;
        }
        if (e->info.ctx_tokens < s->ctx_tokens)
            s->ctx_tokens = e->info.ctx_tokens;
        if (e->info.batch_tokens < s->window_tokens)
            s->window_tokens = e->info.batch_tokens;
    }
    return MCP_OK;
}

int session_open(struct mcp_session **out, struct mcp_engine *engine, const mcp_session_opts *opts,
                 mcp_error *err)
{
    struct mcp_session *s = calloc(1, sizeof(*s));
    int                 rc;

    *out = NULL;
    if (s == NULL)
        return base_fail(err, MCP_ENOMEM, "session");
    s->seq = opts->seq;
    s->model = engine != NULL ? engine->model : opts->model;
    s->cloud = opts->cloud != 0;
    s->mixed = opts->mixed_weights != 0;
    s->qos = (enum wire_qos)opts->qos;
    s->failover_ms = opts->failover_ms_max != 0 ? opts->failover_ms_max : FAILOVER_MS;
    s->answer_ms = opts->answer_ms_max != 0 ? opts->answer_ms_max : ANSWER_MS;
    s->codec_name = "";
    s->endpoint_next = PIPE_NO_ENDPOINT + 1;
    s->jobs_last = &s->jobs;
    if (s->model == NULL && opts->stage_count > 0 && opts->stages[0].engine != NULL)
        s->model = opts->stages[0].engine->model;
    if (s->model == NULL) {
        rc = base_fail(err, MCP_EINVAL, "a session needs an engine or a model");
        goto out;
    }
    if (s->cloud || opts->stage_count > 0)
        s->remote = opts->remote;
    rc = s->cloud                ? stages_in_the_cloud(s, err)
         : opts->stage_count > 0 ? stages_as_given(s, opts, err)
                                 : stages_of_cuts(s, engine, opts, err);
    if (rc == MCP_OK)
        rc = take_limits(s, opts, err);
    if (rc == MCP_OK)
        rc = choose_codec(s, opts, err);
    if (rc == MCP_OK && s->remote != NULL)
        rc = make_remote(s, opts, err);
    if (rc == MCP_OK)
        set_codecs(s);
    if (rc == MCP_OK)
        rc = make_memory(s, err);
    if (rc == MCP_OK && !s->cloud)
        rc = make_pipeline(s, err);
    if (rc == MCP_OK && !s->cloud)
        rc = ahead_new(&s->ahead, s, opts, err);
    for (uint32_t i = 0; i < s->stage_count && rc == MCP_OK; i++)
        if (s->stages[i].engine != NULL)
            rc = engine_trim(s->stages[i].engine, s->seq, 0, err);
    if (rc < 0)
        goto out;
    *out = s;
    s = NULL;
out:
    session_close(s);
    return rc;
}

void session_close(struct mcp_session *s)
{
    if (s == NULL)
        return;
    if (s->listener.mail != NULL)
        remote_unlisten(s->remote, &s->listener);
    drive_close(s);
    ahead_free(s->ahead);
    pipe_block_unref(s->output.rows);
    pipeline_free(s->pipeline);
    mail_unref(s->mail);
    if (s->engine != NULL)
        engine_free(s->logits);
    else
        free(s->logits);
    engine_close(s->fallback_engine);
    free(s->fallback_device);
    free(s->scratch[0]);
    free(s->scratch[1]);
    free(s->row);
    free(s->tokens);
    free(s->stages);
    free(s);
}

bool session_cancelled(struct mcp_session *s)
{
    bool cancelled = atomic_exchange(&s->cancel, 0) != 0;

    if (s->engine != NULL && atomic_load(&s->engine->cancel) != 0) {
        atomic_store(&s->engine->cancel, 0);
        cancelled = true;
    }
    return cancelled;
}

/* ---- what it took ---------------------------------------------------------------------------------------- */

static void where(const struct mcp_session *s, const struct session_stage *stage, char *text,
                  size_t cap)
{
    mcp_worker_info info;

    if (stage->engine != NULL)
        snprintf(text, cap, "here: %.80s", stage->engine->info.devices);
    else if (stage->worker < 0 || remote_get_worker(s->remote, (uint32_t)stage->worker, &info) < 0)
        snprintf(text, cap, "nowhere yet");
    else
        snprintf(text, cap, "%.60s (%.30s)", info.endpoint, info.name);
}

void session_stats(const struct mcp_session *s, mcp_session_stats *stats)
{
    uint32_t size = stats->struct_size;

    memset(stats, 0, sizeof(*stats));
    stats->struct_size = size;
    stats->bytes_out = s->bytes_out;
    stats->bytes_in = s->bytes_in;
    for (const struct session_endpoint *e = s->endpoints; e != NULL; e = e->next) {
        uint64_t out, in;

        if (e->remote == NULL)
            continue;
        endpoint_bytes(e->remote, &out, &in);
        stats->bytes_out += out;
        stats->bytes_in += in;
    }
    stats->windows = s->windows;
    stats->failovers = s->cloud_failovers;
    stats->stall_ms_max = s->stall_ms_max;
    snprintf(stats->codec, sizeof(stats->codec), "%s", s->codec_name);
    if (s->ahead != NULL)
        ahead_stats(s->ahead, stats);
    stats->stage_count = s->stage_count;
    for (uint32_t i = 0; i < s->stage_count; i++) {
        struct pipeline_stage_stats p = { 0 };

        if (s->pipeline != NULL)
            pipeline_get_stats(s->pipeline, i, &p);
        stats->failovers += (uint32_t)p.failovers;
        stats->handovers += (uint32_t)p.handovers;
        if (i >= MCP_STAGE_STATS_MAX)
            continue;
        stats->stages[i] = (mcp_stage_stats){ .first = s->stages[i].first,
                                              .last = s->stages[i].last,
                                              .windows = p.windows,
                                              .positions = p.positions,
                                              .elapsed_ms = p.elapsed_ms,
                                              .queue_ms = p.queue_ms,
                                              .compute_ms = p.compute_ms,
                                              .failovers = (uint32_t)p.failovers,
                                              .handovers = (uint32_t)p.handovers,
                                              .replayed_positions = p.replayed_positions };
        where(s, &s->stages[i], stats->stages[i].where, sizeof(stats->stages[i].where));
    }
}
