/* worker/run.c - one batch through the engine.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/compute_private.h"

#include "base/clock.h"
#include "base/fail.h"
#include "wire/codec.h"

#include <stdlib.h>
#include <time.h>

/* ---- input -------------------------------------------------------------------------- */

/* The payload without its wrap, kept for the window's further pieces. */
static int unwrap(struct worker_job *job, const struct wire_codec *codec, size_t row_bytes,
                  mcp_error *err)
{
    size_t bytes = row_bytes * job->work.count;

    if (job->wrap == WIRE_PLAIN || job->plain != NULL)
        return MCP_OK;
    job->plain = malloc(bytes);
    if (job->plain == NULL)
        return base_fail(err, MCP_ENOMEM, "a payload of %zu bytes", bytes);
    return wire_unwrap(job->wrap, codec, job->plain, bytes, job->data, job->bytes, err);
}

/* The rows of an item's piece. */
static int decode(const struct worker_compute *c, struct compute_item *it, float *to)
{
    struct worker_job       *job = it->job;
    const struct wire_codec *codec = wire_codec_by_id(job->codec);
    size_t                   row_bytes = wire_codec_bytes(codec, 1, c->n_embd);
    int                      rc = unwrap(job, codec, row_bytes, &it->error);
    const uint8_t           *from = job->plain != NULL ? job->plain : job->data;

    if (rc < 0)
        return rc;
    return wire_codec_decode(codec, to, from + it->item.offset * row_bytes,
                             it->item.count * row_bytes, it->item.count, c->n_embd, &it->error);
}

static mcp_out out_of(const struct compute_item *it)
{
    switch (it->job->want) {
    case WIRE_WANT_HIDDEN:
    case WIRE_WANT_LOGITS: return MCP_OUT_ALL;
    case WIRE_WANT_HIDDEN_LAST:
    case WIRE_WANT_LOGITS_LAST: return it->item.last ? MCP_OUT_LAST : MCP_OUT_NONE;
    default: return MCP_OUT_NONE;
    }
}

/* Windows of the items, payloads decoded into c->in. */
static void prepare(struct worker_compute *c)
{
    float *to = c->in;

    for (uint32_t i = 0; i < c->batch.count; i++) {
        struct compute_item *it = &c->items[i];
        struct worker_job   *job = it->job;
        mcp_window          *w = &c->windows[i];

        *w = (mcp_window){
            .seq = it->item.slot, .pos = it->item.pos, .count = it->item.count, .out = out_of(it)
        };
        it->rows = w->out == MCP_OUT_ALL ? w->count : w->out == MCP_OUT_LAST;
        if (job->tokens) {
            w->tokens = (const int32_t *)(const void *)(job->data + job->offset_bytes) +
                        it->item.offset;
            continue;
        }
        it->rc = decode(c, it, to);
        w->hidden = to;
        to += (size_t)it->item.count * c->n_embd;
    }
}

/* Slots as the table says they are to be. */
static void set_slots(struct worker_compute *c)
{
    for (uint32_t i = 0; i < c->batch.clear_count; i++)
        engine_trim(c->engine, c->batch.clears[i], 0, NULL);
    for (uint32_t i = 0; i < c->batch.count; i++)
        if (c->items[i].item.trim_to != UINT32_MAX)
            engine_trim(c->engine, c->items[i].item.slot, c->items[i].item.trim_to, NULL);
}

/* ---- forward ------------------------------------------------------------------------ */

/* Of items [first, first + count) those that can be run, in one forward whose rows begin at
 * `row` of c->out. */
static int forward(struct worker_compute *c, uint32_t first, uint32_t count, size_t row,
                   mcp_error *err)
{
    uint32_t width = compute_width(c), ready = 0;
    size_t   at = row;
    double   begin_ms = base_clock_ms();
    int      rc;

    for (uint32_t i = first; i < first + count; i++) {
        struct compute_item *it = &c->items[i];

        if (it->rc < 0)
            continue;
        it->row_at = at;
        at += it->rows;
        c->ready[ready++] = c->windows[i];
    }
    rc = engine_forward(c->engine, c->batch.first, c->batch.last,
                        c->batch.logits ? MCP_WANT_LOGITS : MCP_WANT_HIDDEN, c->ready, ready,
                        c->out + row * width, (at - row) * width, err);
    c->compute_ms += base_clock_ms() - begin_ms;
    return rc;
}

/* Together they failed, which says nothing about whose fault it is. */
static void forward_each(struct worker_compute *c, uint32_t first, uint32_t count)
{
    size_t row = 0;

    for (uint32_t i = first; i < first + count; i++) {
        struct compute_item *it = &c->items[i];

        if (it->rc < 0)
            continue;
        it->rc = forward(c, i, 1, row, &it->error);
        row += it->rows;
    }
}

static void forward_group(struct worker_compute *c, uint32_t first, uint32_t count)
{
    mcp_error error = { 0 };
    int       rc = forward(c, first, count, 0, &error);

    if (rc < 0 && rc != MCP_EDEVICE && rc != MCP_ECANCELED && count > 1) {
        c->faults++;
        forward_each(c, first, count);
    } else if (rc < 0) {
        for (uint32_t i = first; i < first + count; i++) {
            if (c->items[i].rc < 0)
                continue;
            c->items[i].rc = rc;
            c->items[i].error = error;
        }
    }
    compute_collect(c, first, count);
}

/* Rows of logits may be more than there is room for: then several forwards, each as large as
 * fits.  The rows of one item always fit (worker_compute_open()). */
static void forward_all(struct worker_compute *c)
{
    size_t   rows_max = c->out_floats / compute_width(c), rows = 0;
    uint32_t first = 0;

    for (uint32_t i = 0; i < c->batch.count; i++) {
        if (rows + c->items[i].rows > rows_max) {
            forward_group(c, first, i - first);
            first = i;
            rows = 0;
        }
        rows += c->items[i].rows;
    }
    forward_group(c, first, c->batch.count - first);
}

/* The fault that was asked for (mcp_worker_opts.debug_commands): a slow device. */
static void stall(const struct worker_compute *c)
{
    double longest_ms = 0.0;

    for (uint32_t i = 0; i < c->batch.count; i++) {
        double ms = c->items[i].job->stream->stall_ms;

        longest_ms = ms > longest_ms ? ms : longest_ms;
    }
    if (longest_ms > 0.0) {
        struct timespec pause = { .tv_sec = (time_t)(longest_ms / 1e3) };

        pause.tv_nsec = (long)((longest_ms - (double)pause.tv_sec * 1e3) * 1e6);
        nanosleep(&pause, NULL);
    }
}

void compute_run(struct worker_compute *c)
{
    c->began_ms = base_clock_ms();
    c->compute_ms = 0.0;
    for (uint32_t i = 0; i < c->batch.count; i++)
        if (c->items[i].job->queue_ms < 0.0)
            c->items[i].job->queue_ms = c->began_ms - c->items[i].item.work->came_ms;
    stall(c);
    set_slots(c);
    if (c->batch.exclusive) {
        compute_state(c, &c->items[0]);
        c->compute_ms = base_clock_ms() - c->began_ms;
        return;
    }
    prepare(c);
    forward_all(c);
}
