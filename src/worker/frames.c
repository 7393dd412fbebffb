/* worker/frames.c - what a client asks for: checked against the session and the model, then
 * queued.
 *
 * All that can be said without decoding a payload is said here, before anything is queued: what
 * runs with the windows of other sessions cannot fail for its own sake but for one reason, values
 * that are not finite, which the compute thread finds when it decodes.
 *
 * SPDX-License-Identifier: MIT */
#include "base/clock.h"
#include "base/fail.h"
#include "wire/codec.h"
#include "worker/stream.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Open --------------------------------------------------------------------------- */

static int check_model(const struct worker_facts *f, const struct guard_grant *grant,
                       const struct wire_open *open, mcp_error *err)
{
    uint8_t digest[WIRE_DIGEST_BYTES];
    int     rc;

    if (!grant->any_model && memcmp(grant->model, f->fingerprint, WIRE_DIGEST_BYTES) != 0)
        return base_fail(err, MCP_EDENIED,
                         "the token is for model %02x%02x%02x%02x..., this worker has "
                         "%02x%02x%02x%02x...",
                         grant->model[0], grant->model[1], grant->model[2], grant->model[3],
                         f->fingerprint[0], f->fingerprint[1], f->fingerprint[2],
                         f->fingerprint[3]);
    if (memcmp(open->model, f->fingerprint, WIRE_DIGEST_BYTES) != 0)
        return base_fail(err, MCP_ENOTSUP,
                         "model %02x%02x%02x%02x... is asked for, this worker has "
                         "%02x%02x%02x%02x...",
                         open->model[0], open->model[1], open->model[2], open->model[3],
                         f->fingerprint[0], f->fingerprint[1], f->fingerprint[2],
                         f->fingerprint[3]);
    if (open->first >= open->last || open->first < f->first || open->last > f->last)
        return base_fail(err, MCP_ENOTSUP,
                         "layers [%u, %u) are asked for, this worker holds [%u, %u)", open->first,
                         open->last, f->first, f->last);
    if (!open->weights_given)
        return MCP_OK;
    rc = worker_facts_weights(f, open->first, open->last, digest, err);
    if (rc == MCP_OK && memcmp(open->weights, digest, WIRE_DIGEST_BYTES) != 0)
        rc = base_fail(err, MCP_ENOTSUP,
                       "the weights of layers [%u, %u) are others here: another quantisation of "
                       "the same model, which an Open without weights allows",
                       open->first, open->last);
    return rc;
}

/* Take the session, and fill in what the client is told of it. */
static int open_session(struct worker_stream *s, const struct wire_open *open,
                        struct wire_opened *opened, uint32_t *retry_after_ms, mcp_error *err)
{
    struct worker_service            *service = s->call.service;
    const struct worker_limits       *limits = &service->limits;
    const struct worker_session_info *info;
    int                               rc;

    pthread_mutex_lock(&service->lock);
    if (service->broken[0] != '\0')
        rc = base_fail(err, MCP_EUNAVAIL, "%s", service->broken);
    else
        rc = worker_table_open(service->table, base_clock_ms(), open, &s->grant, s, &s->session,
                               retry_after_ms, err);
    worker_service_acts(service);
    if (rc == MCP_OK) {
        info = worker_session_info(s->session);
        *opened = (struct wire_opened){ .length = info->length,
                                        .epoch = info->epoch,
                                        .ctx_tokens = info->ctx_tokens,
                                        .windows_max = limits->windows_max,
                                        .queue_bytes_max = limits->queue_bytes_max,
                                        .lease_ms = (uint32_t)limits->lease_ms,
                                        .batch_tokens = limits->batch_tokens,
                                        .even_windows = service->facts.even_windows };
    }
    worker_service_signal(service); /* slots of others may have become free */
    pthread_mutex_unlock(&service->lock);
    return rc;
}

int worker_frames_open(struct worker_stream *s, const uint8_t *bytes, size_t count,
                       struct wire_status *status)
{
    const struct worker_service   *service = s->call.service;
    const struct wire_channel_opts opts = { .worker = true,
                                            .payload_max = service->limits.queue_bytes_max,
                                            .pace = worker_stream_pace(s) };
    struct wire_scratch            scratch = { 0 };
    struct wire_frame              frame = { 0 }, reply = { .kind = WIRE_OPENED };
    struct wire_channel           *channel = NULL;
    uint32_t                       retry_after_ms = 0;
    mcp_error                      error = { 0 };
    int                            rc;

    rc = wire_frame_decode(&frame, WIRE_REQUEST, bytes, count, &scratch, &error);
    if (rc == MCP_OK && frame.kind != WIRE_OPEN)
        rc = base_fail(&error, MCP_EINVAL, "the first frame is %s, it must be open",
                       wire_kind_name(frame.kind));
    if (rc == MCP_OK)
        rc = check_model(&service->facts, &s->grant, &frame.u.open, &error);
    if (rc == MCP_OK)
        rc = wire_channel_new(&channel, &opts, &error);
    if (rc == MCP_OK)
        rc = open_session(s, &frame.u.open, &reply.u.opened, &retry_after_ms, &error);
    if (rc == MCP_OK)
        rc = wire_channel_send(channel, &reply, NULL, NULL, &error);
    wire_scratch_fini(&scratch);
    if (rc < 0) {
        wire_channel_free(channel);
        *status = worker_stream_status(rc, &error);
        status->retry_after_ms = retry_after_ms;
        return rc;
    }
    s->first = frame.u.open.first;
    s->last = frame.u.open.last;
    s->ctx_tokens = reply.u.opened.ctx_tokens;
    s->channel = channel;
    return MCP_OK;
}

/* ---- queueing ----------------------------------------------------------------------- */

/* Beside a Generate only what it has made may be asked for, and its next window keeps a place. */
static int beside_answer(const struct worker_stream *s, const struct worker_job *job,
                         mcp_error *err)
{
    uint32_t queued = worker_session_info(s->session)->queued_windows;

    if (job->kind != WORKER_EXPORT)
        return base_fail(err, MCP_EINVAL,
                         "a Generate is under way: a Trim ends it, then the session takes %s",
                         job->kind == WORKER_GENERATE ? "another" : "windows again");
    if (queued + 1 >= s->call.service->limits.windows_max)
        return base_fail(err, MCP_EBUSY,
                         "%u exports wait, at most %u beside a Generate (windows_max less 1)",
                         queued, s->call.service->limits.windows_max - 1);
    return MCP_OK;
}

/* Takes the job over.  A session that was ended meanwhile takes nothing more: its status is on
 * its way. */
static int push(struct worker_stream *s, struct worker_job *job, mcp_error *err)
{
    struct worker_service *service = s->call.service;
    bool                   generate = job->kind == WORKER_GENERATE;
    int                    rc = MCP_OK;

    pthread_mutex_lock(&service->lock);
    worker_job_link(job);
    if (s->session == NULL) {
        worker_job_free(job);
        goto out;
    }
    if (s->answer != NULL)
        rc = beside_answer(s, job, err);
    if (rc == MCP_OK && job->work.exclusive) /* its frame has no epoch: it belongs to the current */
        job->work.epoch = worker_session_info(s->session)->epoch;
    if (rc == MCP_OK)
        rc = worker_table_push(service->table, base_clock_ms(), s->session, &job->work, err);
    if (rc < 0)
        worker_job_free(job);
    else if (generate)
        s->answer = job->answer; /* before acts: those may free it, and then forget it here */
    worker_service_acts(service);
    worker_service_signal(service);
out:
    pthread_mutex_unlock(&service->lock);
    return rc;
}

static int need_scope(const struct worker_stream *s, uint32_t scope, const char *name,
                      mcp_error *err)
{
    if ((s->grant.scopes & scope) != 0)
        return MCP_OK;
    return base_fail(err, MCP_EDENIED, "the token of %s lacks the scope %s", s->grant.subject,
                     name);
}

/* ---- Forward ------------------------------------------------------------------------ */

static int check_tokens(const struct worker_stream *s, const int32_t *tokens, size_t count,
                        mcp_error *err)
{
    uint32_t n_vocab = s->call.service->facts.n_vocab;

    if (s->first != 0)
        return base_fail(err, MCP_EINVAL, "tokens enter at layer 0, this stage begins at layer %u",
                         s->first);
    for (size_t i = 0; i < count; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= n_vocab)
            return base_fail(err, MCP_EINVAL, "token %d at %zu is outside the vocabulary of %u",
                             tokens[i], i, n_vocab);
    return MCP_OK;
}

static int check_payload(const struct worker_stream *s, const struct wire_forward *f,
                         mcp_error *err)
{
    uint32_t                 n_embd = s->call.service->facts.n_embd;
    const struct wire_codec *codec = wire_codec_by_id(f->in.codec);
    size_t                   bytes = codec != NULL ? wire_codec_bytes(codec, f->count, n_embd) : 0;

    if (bytes == 0)
        return base_fail(err, MCP_EINVAL, "codec %u is not one for rows of %u floats; see Describe",
                         f->in.codec, n_embd);
    if (wire_wrap_name(f->in.wrap) == NULL)
        return base_fail(err, MCP_EINVAL, "wrap %u is not known here; see Describe", f->in.wrap);
    if (f->in.wrap == WIRE_PLAIN ? f->in.bytes != bytes : f->in.bytes > bytes)
        return base_fail(err, MCP_EINVAL,
                         "a payload of %zu bytes for %u positions of %u floats in %s; it must be "
                         "%s%zu",
                         f->in.bytes, f->count, n_embd, codec->name,
                         f->in.wrap == WIRE_PLAIN ? "" : "at most ", bytes);
    return MCP_OK;
}

static int check_reply(const struct worker_stream *s, const struct wire_forward *f, mcp_error *err)
{
    const struct worker_facts *facts = &s->call.service->facts;
    const struct wire_codec   *codec = wire_codec_by_id(f->reply_codec);
    uint32_t                   width = worker_want_logits(f->want) ? facts->n_vocab : facts->n_embd;

    if (f->want == WIRE_WANT_NONE)
        return MCP_OK;
    if (worker_want_logits(f->want) && s->last != facts->layers)
        return base_fail(err, MCP_EINVAL, "logits come after layer %u, this stage ends at layer %u",
                         facts->layers, s->last);
    if (f->want == WIRE_WANT_LOGITS && f->count > WORKER_LOGITS_ROWS_MAX)
        return base_fail(err, MCP_EINVAL, "%u rows of logits are wanted, at most %d in one Forward",
                         f->count, WORKER_LOGITS_ROWS_MAX);
    if (codec == NULL || wire_codec_bytes(codec, 1, width) == 0)
        return base_fail(err, MCP_EINVAL, "reply_codec %u is not one for rows of %u floats",
                         f->reply_codec, width);
    if (wire_wrap_name(f->reply_wrap) == NULL)
        return base_fail(err, MCP_EINVAL, "reply_wrap %u is not known here; see Describe",
                         f->reply_wrap);
    return MCP_OK;
}

static int check_forward(const struct worker_stream *s, const struct wire_forward *f,
                         mcp_error *err)
{
    uint32_t most = s->call.service->limits.batch_tokens;
    int      rc;

    if (f->count == 0 || f->count > most)
        return base_fail(err, MCP_EINVAL,
                         "window %" PRIu64 " has %u positions, it must have 1 to %u (batch_tokens)",
                         f->number, f->count, most);
    if (f->token_count > 0 && (f->token_count != f->count || f->in.bytes > 0))
        return base_fail(err, MCP_EINVAL,
                         "window %" PRIu64 " of %u positions carries %zu tokens and %zu bytes; it "
                         "must be one token a position, or a payload",
                         f->number, f->count, f->token_count, f->in.bytes);
    rc = f->token_count > 0 ? check_tokens(s, f->tokens, f->token_count, err)
                            : check_payload(s, f, err);
    return rc < 0 ? rc : check_reply(s, f, err);
}

static int forward(struct worker_stream *s, const struct wire_forward *f, mcp_error *err)
{
    bool               tokens = f->token_count > 0;
    struct worker_job *job;
    int                rc = need_scope(s, GUARD_INFER, "infer", err);

    if (rc == MCP_OK)
        rc = check_forward(s, f, err);
    if (rc < 0)
        return rc;
    job = worker_job_new(s, WORKER_FORWARD, tokens ? (const void *)f->tokens : f->in.data,
                         tokens ? f->token_count * sizeof(*f->tokens) : f->in.bytes);
    if (job == NULL)
        return base_fail(err, MCP_ENOMEM, "window of %u positions", f->count);
    job->work.number = f->number;
    job->work.epoch = f->epoch;
    job->work.pos = f->pos;
    job->work.count = f->count;
    job->work.logits = worker_want_logits(f->want);
    if (f->deadline_ms > 0)
        job->work.deadline_ms = base_clock_ms() + f->deadline_ms;
    job->tokens = tokens;
    job->codec = f->in.codec;
    job->wrap = tokens ? (uint32_t)WIRE_PLAIN : f->in.wrap;
    job->want = f->want;
    job->bulk = f->bulk;
    job->reply_codec = f->reply_codec;
    job->reply_wrap = f->reply_wrap;
    return push(s, job, err);
}

/* ---- Generate ----------------------------------------------------------------------- */

static int check_generate(const struct worker_stream *s, const struct wire_generate *g,
                          mcp_error *err)
{
    if (!s->call.service->facts.whole || s->first != 0 || s->last != s->call.service->facts.layers)
        return base_fail(err, MCP_ENOTSUP,
                         "generate takes a stage of the whole model, this one is layers [%u, %u) "
                         "of %u",
                         s->first, s->last, s->call.service->facts.layers);
    if (g->token_count == 0)
        return base_fail(err, MCP_EINVAL, "generate: no token; at least one");
    if (g->pos > s->ctx_tokens || g->token_count > s->ctx_tokens - g->pos)
        return base_fail(err, MCP_EINVAL,
                         "generate: %zu tokens from position %u, the session holds %u (ctx_tokens)",
                         g->token_count, g->pos, s->ctx_tokens);
    /* Each takes time to skip; an answer cannot have used more than there are positions. */
    if (g->draws > s->ctx_tokens)
        return base_fail(err, MCP_EINVAL,
                         "generate: %" PRIu64 " draws used in a session of %u positions", g->draws,
                         s->ctx_tokens);
    return check_tokens(s, g->tokens, g->token_count, err);
}

/* The text of the session's last answer; the caller's. */
static struct draft *take_text(struct worker_stream *s)
{
    struct worker_service *service = s->call.service;
    struct draft          *text;

    pthread_mutex_lock(&service->lock);
    text = s->text;
    s->text = NULL;
    pthread_mutex_unlock(&service->lock);
    return text;
}

static int generate(struct worker_stream *s, const struct wire_generate *g, mcp_error *err)
{
    const struct worker_service *service = s->call.service;
    struct worker_answer        *answer = NULL;
    struct worker_job           *job;
    const size_t                 window = (1 + WORKER_GUESSES_MAX) * sizeof(*g->tokens);
    size_t                       bytes;
    uint32_t                     offset;
    int                          rc = need_scope(s, GUARD_GENERATE, "generate", err);

    if (rc == MCP_OK)
        rc = check_generate(s, g, err);
    if (rc == MCP_OK)
        rc = worker_answer_new(&answer, &service->facts, g, s->ctx_tokens, err);
    if (rc < 0)
        return rc;
    worker_answer_guess(answer, g, take_text(s));
    bytes = g->token_count * sizeof(*g->tokens);
    job = worker_job_new(s, WORKER_GENERATE, NULL, bytes > window ? bytes : window);
    if (job == NULL) {
        worker_answer_free(answer);
        return base_fail(err, MCP_ENOMEM, "prompt of %zu tokens", g->token_count);
    }
    memcpy(job->data, g->tokens, bytes);
    job->answer = answer;
    job->tokens = true;
    job->want = WIRE_WANT_LOGITS_LAST;
    job->work.logits = true;
    job->work.number = g->number;
    job->work.epoch = g->epoch;
    job->work.pos = g->pos;
    job->work.count = worker_answer_prompt(answer, service->limits.batch_tokens, &offset);
    return push(s, job, err);
}

/* ---- state -------------------------------------------------------------------------- */

static int export_state(struct worker_stream *s, const struct wire_export *e, mcp_error *err)
{
    struct worker_job *job;
    int                rc = need_scope(s, GUARD_STATE, "state", err);

    if (rc < 0)
        return rc;
    if (e->first >= e->last || e->first < s->first || e->last > s->last)
        return base_fail(err, MCP_EINVAL,
                         "export: layers [%u, %u) are not of this stage, which is [%u, %u)",
                         e->first, e->last, s->first, s->last);
    if (e->pos_first >= e->pos_last || e->pos_last > s->ctx_tokens)
        return base_fail(err, MCP_EINVAL,
                         "export: positions [%u, %u) are no range in a session of %u", e->pos_first,
                         e->pos_last, s->ctx_tokens);
    job = worker_job_new(s, WORKER_EXPORT, NULL, 0);
    if (job == NULL)
        return base_fail(err, MCP_ENOMEM, "export");
    job->export = *e;
    job->work.number = e->number;
    job->work.exclusive = true;
    return push(s, job, err);
}

static int import_state(struct worker_stream *s, const struct wire_state *block, mcp_error *err)
{
    struct worker_job *job;
    int                rc = need_scope(s, GUARD_STATE, "state", err);

    if (rc < 0)
        return rc;
    if (block->block.bytes == 0)
        return base_fail(err, MCP_EINVAL, "import: an empty block");
    job = worker_job_new(s, WORKER_IMPORT, block->block.data, block->block.bytes);
    if (job == NULL)
        return base_fail(err, MCP_ENOMEM, "import of %zu bytes", block->block.bytes);
    job->work.number = block->number;
    job->work.exclusive = true;
    return push(s, job, err);
}

/* ---- Trim, Close -------------------------------------------------------------------- */

static int trim(struct worker_stream *s, uint32_t epoch, uint32_t pos, mcp_error *err)
{
    struct worker_service *service = s->call.service;
    int                    rc = MCP_OK;

    pthread_mutex_lock(&service->lock);
    if (s->session != NULL) {
        rc = worker_table_trim(service->table, base_clock_ms(), s->session, epoch, pos, err);
        s->answer = NULL; /* its job is void now, or was dropped */
        worker_service_acts(service);
        worker_service_signal(service);
    }
    pthread_mutex_unlock(&service->lock);
    return rc;
}

static int close_session(struct worker_stream *s, mcp_error *err)
{
    const struct wire_frame reply = { .kind = WIRE_CLOSED };
    struct worker_service  *service = s->call.service;

    pthread_mutex_lock(&service->lock);
    if (s->session != NULL)
        worker_table_close(service->table, base_clock_ms(), s->session);
    s->session = NULL;
    s->answer = NULL;
    worker_service_acts(service);
    worker_service_signal(service);
    pthread_mutex_unlock(&service->lock);
    s->finishing = true;
    s->final = (struct wire_status){ .code = WIRE_OK };
    return wire_channel_send(s->channel, &reply, NULL, NULL, err);
}

int worker_frames_take(struct worker_stream *s, const struct wire_frame *frame,
                       struct wire_status *status)
{
    mcp_error error = { 0 };
    int       rc;

    switch (frame->kind) {
    case WIRE_FORWARD: rc = forward(s, &frame->u.forward, &error); break;
    case WIRE_GENERATE: rc = generate(s, &frame->u.generate, &error); break;
    case WIRE_EXPORT: rc = export_state(s, &frame->u.export, &error); break;
    case WIRE_IMPORT: rc = import_state(s, &frame->u.state, &error); break;
    case WIRE_TRIM: rc = trim(s, frame->u.trim.epoch, frame->u.trim.pos, &error); break;
    case WIRE_CLOSE: rc = close_session(s, &error); break;
    default:
        rc = base_fail(&error, MCP_EINVAL, "a second %s frame in a session",
                       wire_kind_name(frame->kind));
    }
    if (rc == MCP_OK)
        return MCP_OK;
    *status = worker_stream_status(rc, &error);
    if (rc == MCP_EBUSY)
        status->retry_after_ms = worker_service_retry_ms(s->call.service);
    return rc;
}
