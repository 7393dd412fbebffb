/* worker/collect.c - what a forward made, on its way out: rows encoded, tokens sampled, KV blocks.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/compute_private.h"

#include "base/fail.h"
#include "wire/codec.h"

#include <string.h>

/* ---- rows --------------------------------------------------------------------------- */

/* The reply for a whole window, made at its first rows. */
static int make_reply(struct worker_job *job, size_t row_bytes, mcp_error *err)
{
    struct wire_result *result;

    if (job->reply != NULL)
        return MCP_OK;
    job->reply = worker_reply_new(row_bytes * worker_job_rows(job));
    if (job->reply == NULL)
        return base_fail(err, MCP_ENOMEM, "an answer of %u rows", worker_job_rows(job));
    job->reply->frame.kind = WIRE_RESULT;
    result = &job->reply->frame.u.result;
    result->number = job->work.number;
    result->epoch = job->work.epoch;
    result->pos = job->work.pos;
    result->count = job->work.count;
    result->bulk = job->bulk;
    result->out.codec = job->reply_codec;
    result->out.data = job->reply->data;
    result->out.bytes = job->reply->bytes;
    result->out.total = job->reply->bytes;
    return MCP_OK;
}

/* Compress the whole payload, if that makes it smaller and memory allows: wrapping is a wish. */
static void wrap_reply(struct worker_job *job, const struct wire_codec *codec)
{
    struct worker_reply *plain = job->reply, *wrapped;
    size_t               bound = wire_wrap_bound(job->reply_wrap, plain->bytes), bytes;

    if (job->reply_wrap == WIRE_PLAIN || plain->bytes == 0)
        return;
    wrapped = worker_reply_new(bound);
    if (wrapped == NULL)
        return;
    bytes = wire_wrap(job->reply_wrap, codec, wrapped->data, bound, plain->data, plain->bytes);
    if (bytes == 0) {
        worker_reply_free(wrapped);
        return;
    }
    wrapped->frame = plain->frame;
    wrapped->frame.u.result.out.wrap = job->reply_wrap;
    wrapped->frame.u.result.out.data = wrapped->data;
    wrapped->frame.u.result.out.bytes = bytes;
    wrapped->frame.u.result.out.total = bytes;
    worker_reply_free(plain);
    job->reply = wrapped;
}

static int collect_rows(struct worker_compute *c, const struct compute_run *r,
                        struct compute_item *it)
{
    struct worker_job       *job = it->job;
    uint32_t                 width = compute_width(c, r);
    const struct wire_codec *codec = wire_codec_by_id(job->reply_codec);
    size_t row_bytes = job->want == WIRE_WANT_NONE ? 0 : wire_codec_bytes(codec, 1, width);
    int    rc = make_reply(job, row_bytes, &it->error);

    if (rc < 0)
        return rc;
    if (it->rows > 0)
        wire_codec_encode(codec, job->reply->data + job->reply_rows * row_bytes,
                          c->out + it->row_at * width, it->rows, width);
    job->reply_rows += it->rows;
    if (it->item.last) {
        struct wire_result *result = &job->reply->frame.u.result;

        result->rows = job->reply_rows;
        result->queue_us = (uint32_t)(job->queue_ms * 1e3);
        result->compute_us = (uint32_t)(job->compute_ms * 1e3);
        result->batch_tokens = r->batch.tokens;
        wrap_reply(job, codec);
    }
    return MCP_OK;
}

/* ---- tokens ------------------------------------------------------------------------- */

static int add_token(struct worker_job *job, const struct wire_token *token, mcp_error *err)
{
    struct worker_reply *reply = worker_reply_new(0), **end = &job->reply;

    if (reply == NULL)
        return base_fail(err, MCP_ENOMEM, "a token");
    reply->frame.kind = WIRE_TOKEN;
    reply->frame.u.token = *token;
    while (*end != NULL)
        end = &(*end)->next;
    *end = reply;
    job->chosen++;
    job->stop = token->stop;
    return MCP_OK;
}

/* What the whole window took, and how its guesses went. */
static void finish_tokens(struct worker_job *job)
{
    struct wire_token *token = NULL;

    for (struct worker_reply *reply = job->reply; reply != NULL; reply = reply->next) {
        token = &reply->frame.u.token;
        token->queue_us = (uint32_t)(job->queue_ms * 1e3);
        token->compute_us = (uint32_t)(job->compute_ms * 1e3);
    }
    if (token != NULL && job->want == WIRE_WANT_LOGITS) {
        token->guessed = job->work.count - 1;
        token->guessed_right = job->chosen - 1;
    }
}

/* Row i says what follows position i of the window, and counts as long as the tokens up to there
 * are the answer's. */
static int collect_tokens(struct worker_compute *c, struct compute_item *it)
{
    struct worker_job *job = it->job;
    const int32_t     *window = (const int32_t *)(const void *)(job->data + job->offset_bytes);
    uint32_t           row = it->item.offset + it->item.count - it->rows;

    if (worker_answer_prompting(job->answer))
        return MCP_OK;
    for (uint32_t i = 0; i < it->rows && !job->settled; i++) {
        uint32_t          next = row + i + 1;
        struct wire_token token;
        int rc = worker_answer_next(job->answer, c->out + (it->row_at + i) * c->n_vocab,
                                    job->work.pos + next, &token, &it->error);

        if (rc == MCP_OK)
            rc = add_token(job, &token, &it->error);
        if (rc < 0)
            return rc;
        job->settled = token.stop != WIRE_STOP_NOT || next == job->work.count ||
                       window[next] != token.token;
    }
    if (it->item.last)
        finish_tokens(job);
    return MCP_OK;
}

void compute_collect(struct worker_compute *c, struct compute_run *r, uint32_t first,
                     uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        struct compute_item *it = &r->items[i];

        if (it->rc < 0)
            continue;
        it->job->compute_ms += r->compute_ms;
        it->rc = it->job->kind == WORKER_GENERATE ? collect_tokens(c, it) : collect_rows(c, r, it);
    }
}

/* ---- state -------------------------------------------------------------------------- */

static int export_block(struct worker_compute *c, struct compute_item *it, mcp_error *err)
{
    struct worker_job        *job = it->job;
    const struct wire_export *e = &job->export;
    uint64_t                  most = c->service->limits.queue_bytes_max;
    size_t                    bytes = 0;
    int rc = engine_export(c->engine, it->item.slot, e->first, e->last, e->pos_first, e->pos_last,
                           NULL, &bytes, err);

    if (rc == MCP_OK && bytes > most)
        rc = base_fail(err, MCP_EINVAL,
                       "export: %zu bytes for positions [%u, %u), at most %llu in one block "
                       "(queue_bytes_max of Opened); ask for fewer positions",
                       bytes, e->pos_first, e->pos_last, (unsigned long long)most);
    if (rc < 0)
        return rc;
    job->reply = worker_reply_new(bytes);
    if (job->reply == NULL)
        return base_fail(err, MCP_ENOMEM, "a block of %zu bytes", bytes);
    rc = engine_export(c->engine, it->item.slot, e->first, e->last, e->pos_first, e->pos_last,
                       job->reply->data, &bytes, err);
    job->reply->frame.u.state.block =
        (struct wire_payload){ .data = job->reply->data, .bytes = bytes, .total = bytes };
    return rc;
}

static int import_block(struct worker_compute *c, struct compute_item *it, mcp_error *err)
{
    struct worker_job *job = it->job;
    int                rc = engine_import(c->engine, it->item.slot, job->data, job->bytes, err);

    if (rc < 0)
        return rc;
    job->reply = worker_reply_new(0);
    return job->reply != NULL ? MCP_OK : base_fail(err, MCP_ENOMEM, "an answer");
}

void compute_state(struct worker_compute *c, struct compute_run *r)
{
    struct compute_item *it = &r->items[0];
    struct worker_job   *job = it->job;
    uint32_t             first = r->batch.first;
    struct engine_shard *shard = engine_shard_of(c->engine, first);
    bool export = job->kind == WORKER_EXPORT;

    it->rc = export ? export_block(c, it, &it->error) : import_block(c, it, &it->error);
    it->length = *engine_kv_length(&shard->kv, it->item.slot, first);
    if (it->rc == MCP_OK && it->length > job->stream->ctx_tokens)
        it->rc = base_fail(&it->error, MCP_EINVAL,
                           "import: %u positions in a session of %u (ctx_tokens)", it->length,
                           job->stream->ctx_tokens);
    if (it->rc < 0)
        return;
    job->reply->frame.kind = WIRE_STATE;
    job->reply->frame.u.state.number = job->work.number;
    job->reply->frame.u.state.length = it->length;
}
