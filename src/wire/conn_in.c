/* wire/conn_in.c - messages in: found in the bytes fed, put together, or held while paused.
 *
 * A message that lies whole in what was fed is told where it lies; others are put together in
 * a buffer that grows with what has come.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/conn_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    BODY_KEPT = 16 << 10, /* larger buffers go back after their message */
    BODY_FIRST = 1024,
};

/* ---- messages in -------------------------------------------------------------------- */

int wire_stream_refuse(struct wire_stream *s, struct wire_status status)
{
    wire_stream_abort(s, &status);
    return -1;
}

/* The head is complete: is this message welcome? */
static int head_check(struct wire_stream *s)
{
    struct wire_assembler *a = &s->in;
    struct wire_conn      *c = s->conn;

    a->size = (uint32_t)a->head[1] << 24 | (uint32_t)a->head[2] << 16 | (uint32_t)a->head[3] << 8 |
              a->head[4];
    a->have = 0;
    if (a->head[0] != 0)
        return wire_stream_refuse(s, wire_say(WIRE_UNIMPLEMENTED,
                                              "compressed messages are not understood "
                                              "(grpc-encoding: identity)"));
    if (a->size > c->opts.message_bytes)
        return wire_stream_refuse(s, wire_say(WIRE_RESOURCE_EXHAUSTED,
                                              "a message of %u bytes is larger than %u", a->size,
                                              c->opts.message_bytes));
    return 0;
}

static int body_grow(struct wire_stream *s, size_t need)
{
    struct wire_assembler *a = &s->in;
    struct wire_conn      *c = s->conn;
    size_t                 cap = 2 * a->cap;
    uint8_t               *body;

    if (need <= a->cap)
        return 0;
    cap = cap < BODY_FIRST ? BODY_FIRST : cap;
    cap = cap > a->size ? a->size : cap;
    cap = cap < need ? need : cap;
    if (c->assembly_bytes + cap - a->cap > ASSEMBLY_BYTES)
        return wire_stream_refuse(
            s,
            wire_say(WIRE_RESOURCE_EXHAUSTED,
                     "half messages of this connection hold %zu bytes already", c->assembly_bytes));
    body = realloc(a->body, cap);
    if (body == NULL)
        return wire_stream_refuse(
            s, wire_say(WIRE_RESOURCE_EXHAUSTED, "no memory for a message of %u bytes", a->size));
    c->assembly_bytes += cap - a->cap;
    a->body = body;
    a->cap = cap;
    return 0;
}

static void body_free(struct wire_stream *s)
{
    free(s->in.body);
    s->conn->assembly_bytes -= s->in.cap;
    s->in.body = NULL;
    s->in.cap = 0;
}

static int message(struct wire_stream *s, struct wire_event *event, const uint8_t *bytes,
                   size_t count)
{
    event->kind = WIRE_EVENT_MESSAGE;
    event->stream = s;
    event->owner = s->owner;
    event->bytes = bytes;
    event->count = count;
    s->bytes_in += count;
    return 1;
}

/* The rest of a message whose head is complete. */
static int parse_body(struct wire_stream *s, const uint8_t **bytes, size_t *count,
                      struct wire_event *event)
{
    struct wire_assembler *a = &s->in;
    size_t                 step = a->size - a->have;

    if (a->have == 0 && *count >= a->size) { /* it lies there whole */
        a->head_have = 0;
        *bytes += a->size;
        *count -= a->size;
        return message(s, event, *bytes - a->size, a->size);
    }
    step = step > *count ? *count : step;
    if (step == 0)
        return 0;
    if (body_grow(s, a->have + step) < 0)
        return -1;
    memcpy(a->body + a->have, *bytes, step);
    a->have += (uint32_t)step;
    *bytes += step;
    *count -= step;
    if (a->have < a->size)
        return 0;
    a->head_have = 0;
    return message(s, event, a->body, a->size);
}

int wire_stream_parse(struct wire_stream *s, const uint8_t **bytes, size_t *count,
                      struct wire_event *event)
{
    struct wire_assembler *a = &s->in;
    bool                   begins = a->head_have == 0;
    int                    rc = 0;

    if (begins && a->cap > BODY_KEPT)
        body_free(s); /* the message that was told last */
    while (a->head_have<WIRE_MESSAGE_HEAD && * count> 0) {
        a->head[a->head_have++] = *(*bytes)++;
        --*count;
        if (a->head_have == WIRE_MESSAGE_HEAD && head_check(s) < 0)
            return -1;
    }
    if (a->head_have == WIRE_MESSAGE_HEAD)
        rc = parse_body(s, bytes, count, event);
    if (begins && rc == 0)
        a->began_ms = s->conn->now_ms;
    return rc;
}

/* ---- paused ------------------------------------------------------------------------- */

/* Give windows back: the stream's for `eaten` bytes, the connection's for `owed`. */
static void give_back(struct wire_stream *s, size_t eaten, size_t owed)
{
    struct wire_conn *c = s->conn;

    if (c->dead)
        return;
    if (eaten > 0)
        wire_conn_check(c, nghttp2_session_consume_stream(c->session, s->id, eaten));
    if (owed > 0)
        wire_conn_check(c, nghttp2_session_consume_connection(c->session, owed));
}

static bool held_grow(struct wire_held *h, size_t count)
{
    size_t   cap = 2 * (h->count + count);
    uint8_t *grown;

    if (h->first + h->count + count <= h->cap)
        return true;
    if (h->first > 0)
        memmove(h->bytes, h->bytes + h->first, h->count);
    h->first = 0;
    grown = realloc(h->bytes, cap);
    if (grown == NULL)
        return false;
    h->bytes = grown;
    h->cap = cap;
    return true;
}

void wire_stream_hold(struct wire_stream *s, const uint8_t *bytes, size_t count)
{
    struct wire_held *h = &s->held;
    struct wire_conn *c = s->conn;

    /* The stream's window bounds this; nghttp2 lets the frame that breaks it pass. */
    if (h->count + count > WIRE_WINDOW_STREAM || !held_grow(h, count)) {
        give_back(s, 0, count);
        wire_stream_refuse(s, wire_say(WIRE_RESOURCE_EXHAUSTED,
                                       "no room to hold %zu bytes of a paused call",
                                       h->count + count));
        return;
    }
    memcpy(h->bytes + h->first + h->count, bytes, count);
    h->count += count;
    c->held_bytes += count;
    if (c->held_bytes <= HELD_BYTES)
        give_back(s, 0, count);
    else
        h->owed += count;
}

int wire_held_next(struct wire_stream *s, struct wire_event *event)
{
    struct wire_held *h = &s->held;
    const uint8_t    *bytes = h->bytes + h->first;
    size_t            count = h->count, owed;
    int               rc = wire_stream_parse(s, &bytes, &count, event);

    if (rc < 0)
        return rc; /* all was dropped */
    owed = h->count - count > h->owed ? h->owed : h->count - count;
    h->owed -= owed;
    give_back(s, h->count - count, owed);
    s->conn->held_bytes -= h->count - count;
    h->first += h->count - count;
    h->count = count;
    return rc;
}

static void held_drop(struct wire_stream *s)
{
    give_back(s, 0, s->held.owed);
    s->conn->held_bytes -= s->held.count;
    s->held.count = s->held.owed = s->held.first = 0;
}

/* The buffers stay: the message that was told last may lie in them. */
void wire_stream_deafen(struct wire_stream *s)
{
    struct wire_conn *c = s->conn;

    if (c->chunk.stream == s) {
        give_back(s, c->chunk.eaten + c->chunk.count, c->chunk.eaten + c->chunk.count);
        c->chunk.stream = NULL;
        c->chunk.count = c->chunk.eaten = 0;
    }
    held_drop(s);
    s->in.head_have = 0;
}

void wire_held_free(struct wire_stream *s)
{
    free(s->held.bytes);
    s->held.bytes = NULL;
    s->held.cap = s->held.first = 0;
}

void wire_stream_forget(struct wire_stream *s)
{
    wire_held_free(s);
    body_free(s);
}

void wire_stream_pause(struct wire_stream *s, bool paused)
{
    s->paused = paused;
    if (!paused)
        wire_stream_tell(s, 0);
}
