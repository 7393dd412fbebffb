/* agent/handback_ask.c - requests for one worker's KV, and their answers.
 *
 * Requests are in a ring in the order in which they were sent, which is the order of the answers:
 *
 *     answered     tail            head
 *     ----------+------------------+------>  request
 *               |  on their way    |  free
 *
 * A Trim drops requests that have not run yet, without a word.  That shows when a later one is
 * answered: what was left in the ring before it is lost.  Blocks append to a layer, so what follows
 * a lost one is of no use either (`stale`), and asking begins again where the layers end.
 * When nothing is answered for a while, a request for a single position is sent behind the others,
 * to see whether they are lost.
 *
 * asked[layer] is how many positions of a layer are here or on their way; the next request is
 * for the layer that has the fewest.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/handback_private.h"

#include "base/fail.h"

#include <inttypes.h>

enum {
    /* One message: a decode's answer then never waits for the rest of a block. */
    BLOCK_BYTES_FIRST = WIRE_PART_BYTES,
    BLOCK_BYTES_MAX = 16 * WIRE_PART_BYTES,
    WINDOW_FIRST = 4, /* requests on their way: 128 KiB are 10 ms of 100 Mbit/s */
};

static const double late_ms = 250.0;    /* a request that waits longer: there are too many */
static const double silence_ms = 500.0; /* then a fence; and twice as long to the next one */
static const double poll_ms = 50.0;     /* how far the worker is with the prompt */

void handback_source_init(struct handback_source *src, uint32_t first, uint32_t last)
{
    src->first = first;
    src->last = last;
    src->block_bytes = BLOCK_BYTES_FIRST;
    src->fenced_ms = silence_ms;
}

/* How many requests a worker takes beside the session's windows. */
int handback_find_room(struct handback *h, struct handback_source *src,
                       const struct session_endpoint *e, mcp_error *err)
{
    struct mcp_remote *remote = h->session->remote;
    uint32_t           used = h->session->cloud ? 1 : SESSION_WINDOWS_REMOTE, room;
    struct pipe_opened terms;

    remote_terms(remote, endpoint_worker(e->remote), &terms);
    used += HANDBACK_FENCES_MAX;
    room = terms.windows_max > used ? terms.windows_max - used : 0;
    if (room == 0)
        return base_fail(
            err, MCP_ENOTSUP, "worker %s takes %u windows at once, %u are needed to bring KV home",
            remote->links[endpoint_worker(e->remote)].endpoint, terms.windows_max, used + 1);
    src->room = handback_smaller(room, HANDBACK_REQUESTS_MAX);
    src->window = handback_smaller(src->room, WINDOW_FIRST);
    return MCP_OK;
}

/* ---- requests ------------------------------------------------------------------------ */

static struct handback_request *handback_slot(struct handback_source *src, uint32_t at)
{
    return &src->ring[at & (HANDBACK_RING - 1)];
}

/* What the layers have, and what is still on its way to them. */
void handback_count_asked(struct handback *h, struct handback_source *src)
{
    for (uint32_t layer = src->first; layer < src->last; layer++)
        h->asked[layer] = handback_length(h, layer);
    for (uint32_t at = src->tail; at != src->head; at++) {
        const struct handback_request *r = handback_slot(src, at);

        for (uint32_t layer = r->block.first; !r->stale && layer < r->block.last; layer++)
            h->asked[layer] = r->block.pos_last;
    }
}

static int send_request(struct handback *h, struct handback_source *src, struct session_endpoint *e,
                        const struct engine_block *block, bool stale, double now_ms, mcp_error *err)
{
    const struct wire_export asked = { .number = h->number,
                                       .first = block->first,
                                       .last = block->last,
                                       .pos_first = block->pos_first,
                                       .pos_last = block->pos_last };
    int                      rc = endpoint_export(e->remote, &asked, h->mail, err);

    if (rc < 0)
        return rc;
    if (src->tail == src->head)
        src->heard_ms = now_ms;
    *handback_slot(src, src->head++) = (struct handback_request){ h->number++, *block, now_ms,
                                                                  stale };
    return MCP_OK;
}

/* A block of at most `bytes`, but of one position at least; false when all is asked for. */
bool handback_next_block(const struct handback *h, const struct handback_source *src, size_t bytes,
                         struct engine_block *block)
{
    size_t   row = engine_block_row_bytes(h->engine);
    uint32_t limit = handback_standing(h, src), first = src->first, last, from, most;

    for (uint32_t layer = first; layer < src->last; layer++)
        if (h->asked[layer] < h->asked[first])
            first = layer;
    from = h->asked[first];
    if (from >= limit)
        return false;
    *block = (struct engine_block){ first, first, from, from };
    bytes -= (size_t)engine_block_bytes(h->engine, block); /* its frame alone */
    most = bytes / row > 0 ? (uint32_t)(bytes / row) : 1;
    block->pos_last = from + handback_smaller(limit - from, most);
    most /= block->pos_last - from;
    for (last = first + 1; last < src->last && last - first < most && h->asked[last] == from;)
        last++;
    block->last = last;
    return true;
}

/* As many requests, and then as large ones, as keep the link busy between two steps.  Not more:
 * what is on its way may be in the way of a decode's answer. */
static void resize(struct handback_source *src, double now_ms)
{
    uint32_t out = src->head - src->tail;
    bool     late = out >= src->window / 2 && out > 0 &&
                now_ms - handback_slot(src, src->tail)->asked_ms > late_ms &&
                now_ms - src->resized_ms > late_ms;

    if (out == 0 && src->was_full) {
        if (src->window < src->room)
            src->window = handback_smaller(2 * src->window, src->room);
        else if (src->block_bytes < BLOCK_BYTES_MAX)
            src->block_bytes *= 2;
    } else if (late) {
        if (src->block_bytes > BLOCK_BYTES_FIRST)
            src->block_bytes /= 2;
        else if (src->window > WINDOW_FIRST)
            src->window /= 2;
    } else {
        return;
    }
    src->resized_ms = now_ms;
}

/* A request for one position: its answer tells how far the worker is, and that nothing sent before
 * will be answered any more. */
static int fence(struct handback *h, struct handback_source *src, struct session_endpoint *e,
                 double now_ms, mcp_error *err)
{
    const struct engine_block one = { src->first, src->first + 1, 0, 1 };

    return send_request(h, src, e, &one, true, now_ms, err);
}

static int watch(struct handback *h, struct handback_source *src, struct session_endpoint *e,
                 double now_ms, mcp_error *err)
{
    uint32_t out = src->head - src->tail;
    double   silent_ms = now_ms - src->heard_ms;

    if (out == 0) {
        src->fenced_ms = silence_ms;
        /* It must have a position to tell: a Generate that was sent will have run one before. */
        if (handback_standing(h, src) >= h->prompt || silent_ms <= poll_ms ||
            (!h->session->cloud && h->session->count == 0))
            return MCP_OK;
        return fence(h, src, e, now_ms, err);
    }
    if (silent_ms > h->session->answer_ms)
        return base_fail(err, MCP_ETIMEOUT,
                         "layers [%u, %u): no block of KV for %.0f ms (answer_ms_max)", src->first,
                         src->last, silent_ms);
    if (silent_ms < src->fenced_ms || out >= src->room + HANDBACK_FENCES_MAX ||
        handback_standing(h, src) == 0)
        return MCP_OK;
    src->fenced_ms *= 2;
    return fence(h, src, e, now_ms, err);
}

int handback_ask(struct handback *h, struct handback_source *src, struct session_endpoint *e,
                 double now_ms, mcp_error *err)
{
    /* While the worker is at the prompt, no decode's answer is near, and requests wait for its
     * windows: so many a window. */
    bool                prompting = h->session->count < h->prompt && src->length < h->prompt;
    uint32_t            most = prompting ? src->room : src->window;
    struct engine_block block;
    int                 rc = MCP_OK;

    resize(src, now_ms);
    while (rc == MCP_OK && src->head - src->tail < most &&
           handback_next_block(h, src, src->block_bytes, &block)) {
        rc = send_request(h, src, e, &block, false, now_ms, err);
        for (uint32_t layer = block.first; layer < block.last; layer++)
            h->asked[layer] = block.pos_last;
    }
    src->was_full = !prompting && src->head - src->tail >= src->window;
    return rc < 0 ? rc : watch(h, src, e, now_ms, err);
}

/* ---- answers ------------------------------------------------------------------------- */

/* A worker may send what it likes: the engine takes what was asked for, or nothing. */
static int take_block(struct handback *h, const struct engine_block *asked,
                      const struct pipe_block *block, mcp_error *err)
{
    int rc;

    if (block == NULL)
        return base_fail(err, MCP_ENOMEM, "a block of KV");
    rc = engine_import_as(h->engine, h->seq, asked, block->data, block->bytes, err);
    if (rc == MCP_OK) {
        h->blocks++;
        h->bytes += block->bytes;
    }
    return rc;
}

uint32_t handback_void(struct handback *h, struct handback_source *src, uint32_t pos)
{
    uint32_t voided = 0;

    for (uint32_t at = src->tail; at != src->head; at++) {
        struct handback_request *r = handback_slot(src, at);

        if (r->stale || r->block.pos_last <= pos)
            continue;
        r->stale = true;
        voided++;
    }
    handback_count_asked(h, src);
    return voided;
}

int handback_take_answer(struct handback *h, struct handback_source *src,
                         const struct mail_event *event, double now_ms, mcp_error *err)
{
    struct handback_request *r;
    bool                     lost = false;

    if (event->number >= h->number)
        return base_fail(err, MCP_EFORMAT,
                         "a block of KV answers request %" PRIu64 ", the last one was %" PRIu64,
                         event->number, h->number - 1);
    for (; src->tail != src->head && handback_slot(src, src->tail)->number < event->number;
         src->tail++) {
        lost = lost || !handback_slot(src, src->tail)->stale;
        h->again += !handback_slot(src, src->tail)->stale;
    }
    src->heard_ms = now_ms;
    src->fenced_ms = silence_ms;
    src->length = event->length;
    if (lost) /* begin again where the layers end */
        h->again += handback_void(h, src, 0);
    r = handback_slot(src, src->tail);
    if (src->tail == src->head || r->number != event->number)
        return MCP_OK; /* twice, or of another source's: nobody waits for it */
    src->tail++;
    return r->stale ? MCP_OK : take_block(h, &r->block, event->block, err);
}
