/* agent/layout.c - see layout.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/layout.h"

#include "agent/ahead.h"
#include "agent/digest.h"
#include "agent/steer.h"
#include "base/fail.h"
#include "wire/codec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    CTX_DEFAULT = 4096,
    CHUNK_DEFAULT = 64, /* the smallest window of the tiled attention class */
    WINDOWS_LOCAL = 1,  /* nothing overlaps when everything is computed by one thread */
};

/* ---- what runs where ------------------------------------------------------------------ */

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
        if (s->tokens != NULL && info.ctx_tokens > 0 && info.ctx_tokens < s->ctx_tokens) {
            if (!found)
                rc = base_fail(err, MCP_ERANGE, "worker %s has sessions of %u tokens, this one %u",
                               info.endpoint, info.ctx_tokens, s->ctx_tokens);
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

/* ---- codecs, memory, pipeline ---------------------------------------------------------- */

/* While nothing is known of the link (agent/codecs.h): rotated 8 bits a value cost 0.53 of f16's
 * bytes and change perplexity no more than f16 does (docs/benchmarks.md, Codecs). */
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
    if (s->tokens == NULL)
        s->tokens = malloc((size_t)s->ctx_tokens * sizeof(*s->tokens));
    if (s->wide == NULL)
        s->wide = malloc((s->ctx_tokens / (SESSION_NARROW_TOKENS + 1) + 1) * sizeof(*s->wide));
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
    if (s->tokens == NULL || s->wide == NULL || s->logits == NULL ||
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

        stage->worker = steer_worker(s->steer, i);
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

static void set_engine(struct mcp_session *s, struct mcp_engine *engine)
{
    pthread_mutex_lock(&s->engine_lock);
    s->engine = engine;
    pthread_mutex_unlock(&s->engine_lock);
}

/* The engines' limits: positions, tokens a forward, sequences.  Later layouts keep the positions of
 * the first. */
static int take_limits(struct mcp_session *s, const mcp_session_opts *opts, mcp_error *err)
{
    uint32_t ctx = opts->ctx_tokens != 0 ? opts->ctx_tokens : CTX_DEFAULT;
    bool     here = true;

    if (opts->ctx_tokens > MODEL_CTX_MAX)
        return base_fail(err, MCP_ERANGE, "a context of %u tokens, at most %u", opts->ctx_tokens,
                         MODEL_CTX_MAX);
    for (uint32_t i = 0; i < s->stage_count; i++)
        here = here && !s->stages[i].remote;
    s->chunk_tokens = opts->chunk_tokens != 0 ? opts->chunk_tokens
                      : here                  ? UINT32_MAX
                                              : CHUNK_DEFAULT;
    s->window_tokens = s->steer != NULL ? UINT32_MAX : s->chunk_tokens;
    for (uint32_t i = 0; i < s->stage_count; i++) {
        struct mcp_engine *e = s->stages[i].engine;

        if (e == NULL)
            continue;
        if (opts->seq >= e->info.seqs)
            return base_fail(err, MCP_ERANGE, "sequence %u: the engine has %u", opts->seq,
                             e->info.seqs);
        if (s->engine == NULL) {
            set_engine(s, e);
            if (opts->ctx_tokens == 0)
                ctx = e->info.ctx_tokens;
        }
        if (e->info.ctx_tokens < ctx)
            ctx = e->info.ctx_tokens;
        if (e->info.batch_tokens < s->window_tokens)
            s->window_tokens = e->info.batch_tokens;
    }
    if (s->tokens != NULL && ctx < s->ctx_tokens)
        return base_fail(err, MCP_ERANGE, "a context of %u tokens, the session has %u", ctx,
                         s->ctx_tokens);
    if (s->tokens == NULL)
        s->ctx_tokens = ctx;
    return MCP_OK;
}

/* The longest window: of a new prompt, or of what may have to be replayed. */
static void settle_windows(struct mcp_session *s)
{
    uint32_t most = s->chunk_tokens > SESSION_NARROW_TOKENS ? s->chunk_tokens
                                                            : SESSION_NARROW_TOKENS;

    for (uint32_t i = 0; i < s->wide_count; i++)
        if (s->wide[i].count > most)
            most = s->wide[i].count;
    if (s->steer != NULL && most < s->window_tokens)
        s->window_tokens = most;
    if (s->chunk_tokens > s->window_tokens)
        s->chunk_tokens = s->window_tokens;
}

/* ---- opening and closing -------------------------------------------------------------------------- */

int layout_open(struct mcp_session *s, struct mcp_engine *engine, const mcp_session_opts *opts,
                mcp_error *err)
{
    int rc;

    s->cloud = opts->cloud != 0;
    s->codec_name = "";
    s->count = 0;
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
    settle_windows(s);
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
    return rc;
}

void layout_close(struct mcp_session *s)
{
    mcp_session_stats all = { .struct_size = sizeof(all) };

    session_stats(s, &all); /* what the layout's parts have counted is the session's */
    s->before = all;
    s->bytes_out = s->bytes_in = 0;
    s->cloud_failovers = 0;
    s->cloud_guessed = s->cloud_seen = s->cloud_right = 0;
    if (s->listener.mail != NULL)
        remote_unlisten(s->remote, &s->listener);
    s->listener = (struct remote_listener){ 0 };
    drive_close(s);
    ahead_free(s->ahead);
    s->ahead = NULL;
    pipe_block_unref(s->output.rows);
    s->output = (struct session_output){ 0 };
    pipeline_free(s->pipeline);
    s->pipeline = NULL;
    s->output_number = 0; /* the next pipeline counts from the beginning */
    mail_unref(s->mail);
    s->mail = NULL;
    if (s->engine != NULL)
        engine_free(s->logits);
    else
        free(s->logits);
    s->logits = NULL;
    set_engine(s, NULL);
    engine_close(s->fallback_engine);
    s->fallback_engine = NULL;
    free(s->fallback_device);
    s->fallback_device = NULL;
    s->can_fall_back = false;
    for (size_t i = 0; i < 2; i++) {
        free(s->scratch[i]);
        s->scratch[i] = NULL;
    }
    free(s->row);
    s->row = NULL;
    free(s->stages);
    s->stages = NULL;
    s->stage_count = 0;
    s->remote = NULL;
    s->failed = false;
    s->count = 0;
}

/* ---- windows, and the same ones again --------------------------------------------------------------- */

uint32_t layout_window(const struct mcp_session *s, uint32_t pos, uint32_t left)
{
    uint32_t count = s->replaying ? SESSION_NARROW_TOKENS : s->chunk_tokens;

    for (uint32_t i = 0; i < s->wide_count && s->replaying; i++) {
        if (pos >= s->wide[i].first + s->wide[i].count)
            continue;
        count = pos >= s->wide[i].first          ? s->wide[i].first + s->wide[i].count - pos
                : s->wide[i].first - pos < count ? s->wide[i].first - pos
                                                 : count;
        break;
    }
    if (count > s->window_tokens)
        count = s->window_tokens;
    return count < left ? count : left;
}

void layout_note(struct mcp_session *s, uint32_t pos, uint32_t count)
{
    if (s->replaying || s->steer == NULL)
        return;
    while (s->wide_count > 0 && s->wide[s->wide_count - 1].first >= pos)
        s->wide_count--;
    if (s->wide_count > 0 &&
        s->wide[s->wide_count - 1].first + s->wide[s->wide_count - 1].count > pos)
        s->wide[s->wide_count - 1].count = pos - s->wide[s->wide_count - 1].first;
    if (s->wide_count > 0 && s->wide[s->wide_count - 1].count <= SESSION_NARROW_TOKENS)
        s->wide_count--; /* cut short by a trim: its bits cannot be had again */
    if (count > SESSION_NARROW_TOKENS)
        s->wide[s->wide_count++] = (struct session_wide){ pos, count };
}

int layout_replay(struct mcp_session *s, uint32_t count, mcp_error *err)
{
    int rc;

    s->replaying = true;
    rc = drive_advance(s, s->tokens, count, false, err);
    s->replaying = false;
    return rc;
}
