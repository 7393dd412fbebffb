/* worker/run.c - one batch through the engine, whole or in slices of layers.
 *
 *     tokens, payloads ──▶ [first, a) ──▶ in ──▶ [a, b) ──▶ in ──▶ [b, last) ──▶ collected
 *
 * Between two slices the rows of all positions lie in `in`.  A cut there cannot be seen in the
 * result: layers pass floats on, and so does the cut.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/compute_private.h"

#include "base/clock.h"
#include "base/fail.h"
#include "wire/codec.h"

#include <stdlib.h>
#include <string.h>
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

/* Windows of the items, payloads decoded into r->in. */
static void prepare(struct worker_compute *c, struct compute_run *r)
{
    float *to = r->in;

    for (uint32_t i = 0; i < r->batch.count; i++) {
        struct compute_item *it = &r->items[i];
        struct worker_job   *job = it->job;
        mcp_window          *w = &r->windows[i];

        *w = (mcp_window){ .seq = it->item.slot, .pos = it->item.pos, .count = it->item.count };
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
static void set_slots(struct worker_compute *c, const struct compute_run *r)
{
    for (uint32_t i = 0; i < r->batch.clear_count; i++)
        engine_trim(c->engine, r->batch.clears[i], 0, NULL);
    for (uint32_t i = 0; i < r->batch.count; i++)
        if (r->items[i].item.trim_to != UINT32_MAX)
            engine_trim(c->engine, r->items[i].item.slot, r->items[i].item.trim_to, NULL);
}

/* ---- forward ------------------------------------------------------------------------ */

/* Of items [first, first + count) those that can be run, in one forward of the slice whose rows
 * begin at `row` of c->out. */
static int forward(struct worker_compute *c, struct compute_run *r, uint32_t first, uint32_t count,
                   size_t row, mcp_error *err)
{
    const struct worker_batch *b = &r->batch;
    bool                       logits = b->logits && b->slice_last == b->last;
    uint32_t                   width = logits ? c->n_vocab : c->n_embd, ready = 0;
    size_t                     at = row;
    double                     begin_ms = base_clock_ms(), ms;
    int                        rc;

    for (uint32_t i = first; i < first + count; i++) {
        struct compute_item *it = &r->items[i];

        if (it->rc < 0)
            continue;
        it->row_at = at;
        at += it->rows;
        c->ready[ready++] = r->windows[i];
    }
    rc = engine_forward(c->engine, b->slice_first, b->slice_last,
                        logits ? MCP_WANT_LOGITS : MCP_WANT_HIDDEN, c->ready, ready,
                        c->out + row * width, (at - row) * width, err);
    ms = base_clock_ms() - begin_ms;
    r->compute_ms += ms;
    r->slice_ms += ms;
    return rc;
}

/* Together they failed, which says nothing about whose fault it is. */
static void forward_each(struct worker_compute *c, struct compute_run *r, uint32_t first,
                         uint32_t count)
{
    size_t row = 0;

    for (uint32_t i = first; i < first + count; i++) {
        struct compute_item *it = &r->items[i];

        if (it->rc < 0)
            continue;
        it->rc = forward(c, r, i, 1, row, &it->error);
        row += it->rows;
    }
}

static void forward_group(struct worker_compute *c, struct compute_run *r, uint32_t first,
                          uint32_t count)
{
    mcp_error error = { 0 };
    int       rc = forward(c, r, first, count, 0, &error);

    if (rc < 0 && rc != MCP_EDEVICE && rc != MCP_ECANCELED && count > 1) {
        c->faults++;
        forward_each(c, r, first, count);
    } else if (rc < 0) {
        for (uint32_t i = first; i < first + count; i++) {
            if (r->items[i].rc < 0)
                continue;
            r->items[i].rc = rc;
            r->items[i].error = error;
        }
    }
}

/* Rows of logits may be more than there is room for: then several forwards, each as large as
 * fits.  The rows of one item always fit (worker_compute_open()). */
static void forward_last(struct worker_compute *c, struct compute_run *r)
{
    size_t   rows_max = c->out_floats / compute_width(c, r), rows = 0;
    uint32_t first = 0;

    for (uint32_t i = 0; i <= r->batch.count; i++) {
        bool end = i == r->batch.count;

        if (end || rows + r->items[i].rows > rows_max) {
            forward_group(c, r, first, i - first);
            compute_collect(c, r, first, i - first);
            first = i;
            rows = 0;
        }
        rows += end ? 0 : r->items[i].rows;
    }
}

/* The fault that was asked for (mcp_worker_opts.debug_commands): a slow device, in all layers. */
static void stall(struct compute_run *r)
{
    const struct worker_batch *b = &r->batch;
    double                     longest_ms = 0.0;

    for (uint32_t i = 0; i < b->count; i++) {
        double ms = r->items[i].job->stream->stall_ms;

        longest_ms = ms > longest_ms ? ms : longest_ms;
    }
    if (longest_ms > 0.0) {
        double          ms = longest_ms * (b->slice_last - b->slice_first) / (b->last - b->first);
        struct timespec pause = { .tv_sec = (time_t)(ms / 1e3) };

        pause.tv_nsec = (long)((ms - (double)pause.tv_sec * 1e3) * 1e6);
        nanosleep(&pause, NULL);
        r->compute_ms += ms;
        r->slice_ms += ms;
    }
}

void compute_begin(struct worker_compute *c, struct compute_run *r)
{
    r->began_ms = base_clock_ms();
    r->compute_ms = 0.0;
    r->paused_ms = 0.0;
    for (uint32_t i = 0; i < r->batch.count; i++)
        if (r->items[i].job->queue_ms < 0.0)
            r->items[i].job->queue_ms = r->began_ms - r->items[i].item.work->came_ms;
    set_slots(c, r);
    if (!r->batch.exclusive)
        prepare(c, r);
}

/* A pause is time in a queue, to those who measure. */
static void end_pause(struct compute_run *r)
{
    double now_ms = base_clock_ms();

    for (uint32_t i = 0; r->paused_ms > 0.0 && i < r->batch.count; i++)
        r->items[i].job->queue_ms += now_ms - r->paused_ms;
    r->paused_ms = 0.0;
    r->slice_ms = 0.0;
}

void compute_slice(struct worker_compute *c, struct compute_run *r)
{
    end_pause(r);
    stall(r);
    for (uint32_t i = 0; i < r->batch.count; i++) {
        r->windows[i].out = MCP_OUT_ALL;
        r->items[i].rows = r->windows[i].count;
    }
    forward_group(c, r, 0, r->batch.count);
    for (uint32_t i = 0; i < r->batch.count; i++) {
        struct compute_item *it = &r->items[i];
        mcp_window          *w = &r->windows[i];
        float               *to = r->in + it->row_at * c->n_embd;

        if (it->rc < 0)
            continue;
        memcpy(to, c->out + it->row_at * c->n_embd, (size_t)w->count * c->n_embd * sizeof(*to));
        w->tokens = NULL;
        w->hidden = to;
    }
    r->paused_ms = base_clock_ms();
}

void compute_finish(struct worker_compute *c, struct compute_run *r)
{
    end_pause(r);
    stall(r);
    if (r->batch.exclusive) {
        compute_state(c, r);
        r->compute_ms = r->slice_ms = base_clock_ms() - r->began_ms;
        return;
    }
    for (uint32_t i = 0; i < r->batch.count; i++) {
        r->windows[i].out = out_of(&r->items[i]);
        r->items[i].rows = (uint32_t)mcp_windows_rows(&r->windows[i], 1);
    }
    forward_last(c, r);
}
