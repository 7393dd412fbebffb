/* wire/channel.c - see channel.h.
 *
 *   send()                                                       next()
 *     Beat, Draining -------------------> urgent --\
 *     no payload, or a small one that                \
 *     would be copied anyway: encoded --> queue -----> Ack, echo, urgent, queue --> message
 *     any other payload: kept ----------> queue, from which it leaves part by part, bulk as the
 *                                         pace allows
 *
 * A frame's payload is copied once on the way out (from its owner into a message) and, when it
 * comes in one message, not at all on the way in.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/channel.h"

#include "base/fail.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ASSEMBLY_FIRST = 2 * WIRE_PART_BYTES, /* then doubled, as parts come */
    TOKENS_KEPT = 16384,                  /* ids (64 KiB) that a quiet channel keeps room for */
    ANSWER_BYTES = 2 + 2 * (1 + 10),      /* an Ack or a Beat */
    MESSAGE_BYTES = WIRE_PART_BYTES + WIRE_FRAME_OVERHEAD,
};

/* A frame that waits: either a whole message, or a frame with a payload that leaves in parts. */
struct waiting {
    struct waiting   *next;
    size_t            message_bytes; /* 0: in parts */
    struct wire_frame frame;         /* in parts: with its payload, in `bytes` or at the owner's */
    uint64_t          payload_bytes;
    uint64_t          gone; /* of payload_bytes: have left */
    bool              bulk;
    void (*release)(void *owner);
    void   *owner;
    uint8_t bytes[]; /* the message, or a copy of the payload */
};

struct queue {
    struct waiting *first, **end;
};

struct wire_channel {
    struct wire_channel_opts opts;

    /* out */
    struct queue    urgent, queue;
    struct waiting *given;   /* whose message the caller looks at */
    uint8_t        *message; /* (MESSAGE_BYTES), while payloads wait */
    uint8_t         answer[ANSWER_BYTES];
    uint64_t        queued_bytes, payload_out;
    uint64_t        bulk_sent, bulk_acked;

    /* in */
    struct wire_scratch scratch;
    struct wire_frame   began;    /* whose parts are awaited; WIRE_NOTHING = none */
    uint8_t            *assembly; /* (assembly_cap): its payload so far, or the last one told */
    uint64_t            assembly_bytes, assembly_cap;
    uint64_t            bulk_received, payload_in;

    /* answers that are due */
    bool     ack, echo;
    double   ack_ms; /* when the last bulk part came */
    uint64_t echo_stamp;
};

static enum wire_direction way_out(const struct wire_channel *c)
{
    return c->opts.worker ? WIRE_REPLY : WIRE_REQUEST;
}

static enum wire_direction way_in(const struct wire_channel *c)
{
    return c->opts.worker ? WIRE_REQUEST : WIRE_REPLY;
}

/* Blocks of state are bulk whatever they say: nothing waits for them as it does for a token. */
static bool is_bulk(const struct wire_frame *frame)
{
    switch (frame->kind) {
    case WIRE_FORWARD: return frame->u.forward.bulk;
    case WIRE_RESULT: return frame->u.result.bulk;
    case WIRE_IMPORT:
    case WIRE_STATE: return true;
    default: return false;
    }
}

int wire_channel_new(struct wire_channel **out, const struct wire_channel_opts *opts,
                     mcp_error *err)
{
    struct wire_channel *c = calloc(1, sizeof(*c));

    *out = NULL;
    if (c == NULL)
        return base_fail(err, MCP_ENOMEM, "no memory for a channel");
    c->opts = *opts;
    c->urgent.end = &c->urgent.first;
    c->queue.end = &c->queue.first;
    *out = c;
    return MCP_OK;
}

/* ---- out ---------------------------------------------------------------------------- */

static void append(struct queue *q, struct waiting *w)
{
    *q->end = w;
    q->end = &w->next;
}

/* Nothing waits for a block of KV as it does for a result or a token: those go before blocks at the
 * end of the queue of which no part has left. */
static void pass_states(struct queue *q, struct waiting *w)
{
    struct waiting **place = &q->first;

    for (struct waiting **at = &q->first; *at != NULL; at = &(*at)->next)
        if ((*at)->frame.kind != WIRE_STATE || (*at)->gone > 0)
            place = &(*at)->next;
    w->next = *place;
    *place = w;
    if (w->next == NULL)
        q->end = &w->next;
}

static struct waiting *take_first(struct queue *q)
{
    struct waiting *w = q->first;

    q->first = w->next;
    if (q->first == NULL)
        q->end = &q->first;
    return w;
}

static void waiting_free(struct waiting *w)
{
    if (w != NULL && w->release != NULL)
        w->release(w->owner);
    free(w);
}

static void queue_free(struct queue *q)
{
    while (q->first != NULL)
        waiting_free(take_first(q));
}

void wire_channel_free(struct wire_channel *c)
{
    if (c == NULL)
        return;
    if (c->opts.pace != NULL)
        wire_pace_forget(c->opts.pace, c->bulk_sent - c->bulk_acked);
    queue_free(&c->urgent);
    queue_free(&c->queue);
    waiting_free(c->given);
    wire_scratch_fini(&c->scratch);
    free(c->message);
    free(c->assembly);
    free(c);
}

/* As one message, encoded now. */
static struct waiting *wait_encoded(const struct wire_channel *c, const struct wire_frame *frame)
{
    size_t          bytes = wire_frame_bytes(frame, way_out(c));
    struct waiting *w = malloc(sizeof(*w) + bytes);

    if (w == NULL)
        return NULL;
    memset(w, 0, sizeof(*w));
    w->message_bytes = bytes;
    wire_frame_encode(frame, way_out(c), w->bytes);
    return w;
}

/* In parts, which next() encodes: it cannot fail, so its memory is taken here. */
static struct waiting *wait_in_parts(struct wire_channel *c, const struct wire_frame *frame,
                                     bool copy)
{
    struct wire_frame    kept = *frame;
    struct wire_payload *payload = wire_frame_payload(&kept);
    struct waiting      *w;

    if (c->message == NULL)
        c->message = malloc(MESSAGE_BYTES);
    if (c->message == NULL)
        return NULL;
    w = malloc(sizeof(*w) + (copy ? payload->bytes : 0));
    if (w == NULL)
        return NULL;
    memset(w, 0, sizeof(*w));
    if (copy) {
        memcpy(w->bytes, payload->data, payload->bytes);
        payload->data = w->bytes;
    }
    w->frame = kept;
    return w;
}

int wire_channel_send(struct wire_channel *c, const struct wire_frame *frame,
                      void (*release)(void *owner), void *owner, mcp_error *err)
{
    struct wire_frame    whole = *frame;
    struct wire_payload *payload = wire_frame_payload(&whole);
    size_t               bytes = payload != NULL ? payload->bytes : 0;
    bool                 bulk = is_bulk(frame);
    bool            in_parts = bytes > WIRE_PART_BYTES || (bytes > 0 && (bulk || owner != NULL));
    struct waiting *w;

    assert(frame->kind != WIRE_MORE && frame->kind != WIRE_ACK);
    assert(owner == NULL || release != NULL);
    assert(frame->kind != WIRE_FORWARD || bytes == 0 || frame->u.forward.token_count == 0);
    if (bytes > WIRE_PAYLOAD_MAX)
        return base_fail(err, MCP_ERANGE, "%s: a payload of %zu bytes, at most %d",
                         wire_kind_name(frame->kind), bytes, WIRE_PAYLOAD_MAX);
    if (payload != NULL)
        payload->total = bytes;
    w = in_parts ? wait_in_parts(c, &whole, owner == NULL) : wait_encoded(c, &whole);
    if (w == NULL)
        return base_fail(err, MCP_ENOMEM, "no memory to queue a %s frame with %zu bytes of payload",
                         wire_kind_name(frame->kind), bytes);
    w->payload_bytes = bytes;
    w->bulk = bulk;
    w->release = owner != NULL ? release : NULL;
    w->owner = owner;
    c->queued_bytes += in_parts ? bytes : w->message_bytes;
    if (frame->kind == WIRE_RESULT || frame->kind == WIRE_TOKEN)
        pass_states(&c->queue, w);
    else
        append(frame->kind == WIRE_BEAT || frame->kind == WIRE_DRAINING ? &c->urgent : &c->queue,
               w);
    return MCP_OK;
}

static const uint8_t *give_answer(struct wire_channel *c, const struct wire_frame *f, size_t *count)
{
    *count = wire_frame_bytes(f, way_out(c));
    assert(*count <= sizeof(c->answer));
    wire_frame_encode(f, way_out(c), c->answer);
    return c->answer;
}

static const uint8_t *give_ack(struct wire_channel *c, size_t *count)
{
    struct wire_frame f = { .kind = WIRE_ACK };

    c->ack = false;
    f.u.ack.bytes = c->bulk_received;
    f.u.ack.stamp_us = (uint64_t)(c->ack_ms * 1e3);
    return give_answer(c, &f, count);
}

static const uint8_t *give_echo(struct wire_channel *c, size_t *count)
{
    struct wire_frame f = { .kind = WIRE_BEAT, .u.beat = c->echo_stamp };

    c->echo = false;
    return give_answer(c, &f, count);
}

static const uint8_t *give_message(struct wire_channel *c, struct queue *q, size_t *count)
{
    struct waiting *w = take_first(q);

    c->given = w;
    c->queued_bytes -= w->message_bytes;
    c->payload_out += w->payload_bytes;
    *count = w->message_bytes;
    return w->bytes;
}

static size_t next_part_bytes(const struct waiting *w)
{
    uint64_t left = w->payload_bytes - w->gone;

    return left < WIRE_PART_BYTES ? (size_t)left : WIRE_PART_BYTES;
}

/* The next part of the first frame; NULL while the pace says wait. */
static const uint8_t *give_part(struct wire_channel *c, double now_ms, size_t *count)
{
    struct waiting      *w = c->queue.first;
    struct wire_frame    part = { .kind = WIRE_MORE };
    struct wire_payload *p;
    size_t               bytes = next_part_bytes(w);

    if (w->bulk && c->opts.pace != NULL && !wire_pace_may_send(c->opts.pace, now_ms, bytes))
        return NULL;
    if (w->gone == 0)
        part = w->frame;
    p = wire_frame_payload(&part);
    p->data = wire_frame_payload(&w->frame)->data + w->gone;
    p->bytes = bytes;
    *count = wire_frame_bytes(&part, way_out(c));
    assert(*count <= MESSAGE_BYTES);
    wire_frame_encode(&part, way_out(c), c->message);

    w->gone += bytes;
    c->queued_bytes -= bytes;
    c->payload_out += bytes;
    if (w->bulk) {
        c->bulk_sent += bytes;
        if (c->opts.pace != NULL)
            wire_pace_sent(c->opts.pace, now_ms, bytes);
    }
    if (w->gone == w->payload_bytes)
        waiting_free(take_first(&c->queue));
    return c->message;
}

const uint8_t *wire_channel_next(struct wire_channel *c, double now_ms, size_t *count, bool *bulk)
{
    waiting_free(c->given);
    c->given = NULL;
    *count = 0;
    *bulk = false;
    if (c->ack)
        return give_ack(c, count);
    if (c->echo)
        return give_echo(c, count);
    if (c->urgent.first != NULL)
        return give_message(c, &c->urgent, count);
    if (c->queue.first == NULL) {
        free(c->message);
        c->message = NULL;
        return NULL;
    }
    *bulk = c->queue.first->bulk;
    return c->queue.first->message_bytes > 0 ? give_message(c, &c->queue, count)
                                             : give_part(c, now_ms, count);
}

double wire_channel_due_ms(const struct wire_channel *c)
{
    const struct waiting *w = c->queue.first;

    if (w == NULL || w->message_bytes > 0 || !w->bulk || c->opts.pace == NULL)
        return INFINITY;
    return wire_pace_due_ms(c->opts.pace, next_part_bytes(w));
}

bool wire_channel_pending(const struct wire_channel *c)
{
    return c->ack || c->echo || c->urgent.first != NULL || c->queue.first != NULL;
}

uint64_t wire_channel_queued_bytes(const struct wire_channel *c)
{
    return c->queued_bytes;
}

/* ---- in ----------------------------------------------------------------------------- */

/* What the caller borrowed from the last call is no longer looked at. */
static void let_go(struct wire_channel *c)
{
    if (c->began.kind == WIRE_NOTHING) {
        free(c->assembly);
        c->assembly = NULL;
        c->assembly_bytes = c->assembly_cap = 0;
    }
    if (c->scratch.cap > TOKENS_KEPT)
        wire_scratch_fini(&c->scratch);
}

/* Add a part to the payload.  The peer's total bounds it, but only what has come is paid for:
 * room is doubled. */
static int add_part(struct wire_channel *c, const struct wire_payload *part, mcp_error *err)
{
    uint64_t total = wire_frame_payload(&c->began)->total;
    uint64_t bytes = c->assembly_bytes + part->bytes;
    uint64_t cap = c->assembly_cap * 2 > ASSEMBLY_FIRST ? c->assembly_cap * 2 : ASSEMBLY_FIRST;
    uint8_t *grown;

    if (bytes > c->assembly_cap) {
        cap = cap > bytes ? cap : bytes;
        cap = cap < total ? cap : total;
        grown = realloc(c->assembly, cap);
        if (grown == NULL)
            return base_fail(err, MCP_ENOMEM, "no memory for a payload of %" PRIu64 " bytes", cap);
        c->assembly = grown;
        c->assembly_cap = cap;
    }
    if (part->bytes > 0)
        memcpy(c->assembly + c->assembly_bytes, part->data, part->bytes);
    c->assembly_bytes = bytes;
    return MCP_OK;
}

static void count_part(struct wire_channel *c, double now_ms, bool bulk, size_t bytes)
{
    c->payload_in += bytes;
    if (!bulk || bytes == 0)
        return;
    c->bulk_received += bytes;
    c->ack = true;
    c->ack_ms = now_ms;
}

static int receive_ack(struct wire_channel *c, double now_ms, const struct wire_frame *frame,
                       mcp_error *err)
{
    const uint64_t bytes = frame->u.ack.bytes;

    if (bytes > c->bulk_sent)
        return base_fail(err, MCP_ERANGE,
                         "ack: %" PRIu64 " bytes acknowledged, %" PRIu64 " were sent", bytes,
                         c->bulk_sent);
    if (bytes < c->bulk_acked)
        return base_fail(err, MCP_ERANGE,
                         "ack: %" PRIu64 " bytes acknowledged after %" PRIu64
                         ", the count never falls",
                         bytes, c->bulk_acked);
    if (c->opts.pace != NULL)
        wire_pace_acked(c->opts.pace, now_ms, bytes - c->bulk_acked, frame->u.ack.stamp_us);
    c->bulk_acked = bytes;
    return 0;
}

static int receive_more(struct wire_channel *c, double now_ms, struct wire_frame *frame,
                        mcp_error *err)
{
    struct wire_payload *part = wire_frame_payload(frame);
    struct wire_payload *whole = wire_frame_payload(&c->began);
    int                  rc;

    if (c->began.kind == WIRE_NOTHING)
        return base_fail(err, MCP_EFORMAT, "more: no payload was begun");
    if (part->bytes == 0)
        return base_fail(err, MCP_EFORMAT, "more: a part without bytes");
    if (part->bytes > whole->total - c->assembly_bytes)
        return base_fail(err, MCP_EFORMAT,
                         "more: %zu bytes, but only %" PRIu64 " of the %s frame's %" PRIu64
                         " are missing",
                         part->bytes, whole->total - c->assembly_bytes,
                         wire_kind_name(c->began.kind), whole->total);
    rc = add_part(c, part, err);
    if (rc < 0)
        return rc;
    count_part(c, now_ms, is_bulk(&c->began), part->bytes);
    if (c->assembly_bytes < whole->total)
        return 0;
    whole->data = c->assembly;
    whole->bytes = c->assembly_bytes;
    *frame = c->began;
    c->began.kind = WIRE_NOTHING;
    return 1;
}

/* A frame that may begin a payload. */
static int receive_frame(struct wire_channel *c, double now_ms, struct wire_frame *frame,
                         mcp_error *err)
{
    struct wire_payload *payload = wire_frame_payload(frame);
    int                  rc;

    if (c->began.kind != WIRE_NOTHING)
        return base_fail(err, MCP_EFORMAT,
                         "a %s frame came inside the payload of a %s frame, %" PRIu64 " of %" PRIu64
                         " bytes",
                         wire_kind_name(frame->kind), wire_kind_name(c->began.kind),
                         c->assembly_bytes, wire_frame_payload(&c->began)->total);
    if (payload == NULL)
        return 1;
    if (payload->total > c->opts.payload_max)
        return base_fail(err, MCP_ERANGE,
                         "%s: a payload of %" PRIu64 " bytes, this end takes at most %" PRIu64,
                         wire_kind_name(frame->kind), payload->total, c->opts.payload_max);
    count_part(c, now_ms, is_bulk(frame), payload->bytes);
    if (payload->bytes == payload->total)
        return 1;
    c->began = *frame;
    rc = add_part(c, payload, err);
    return rc < 0 ? rc : 0;
}

int wire_channel_receive(struct wire_channel *c, double now_ms, const uint8_t *bytes, size_t count,
                         struct wire_frame *frame, mcp_error *err)
{
    int rc;

    let_go(c);
    rc = wire_frame_decode(frame, way_in(c), bytes, count, &c->scratch, err);
    if (rc < 0)
        return rc;
    switch (frame->kind) {
    case WIRE_MORE: return receive_more(c, now_ms, frame, err);
    case WIRE_ACK: return receive_ack(c, now_ms, frame, err);
    case WIRE_DRAINING: return 1;
    case WIRE_BEAT:
        if (!c->opts.worker)
            return 1;
        c->echo = true;
        c->echo_stamp = frame->u.beat;
        return 0;
    default: return receive_frame(c, now_ms, frame, err);
    }
}

void wire_channel_bytes(const struct wire_channel *c, uint64_t *out, uint64_t *in)
{
    *out = c->payload_out;
    *in = c->payload_in;
}

uint64_t wire_channel_bulk_in(const struct wire_channel *c, bool *inside)
{
    *inside = c->began.kind != WIRE_NOTHING && is_bulk(&c->began);
    return c->bulk_received;
}
