/* wire/conn_stream.c - one call: where it stands, what it has to tell, how it ends.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/conn_impl.h"

#include <stdlib.h>
#include <string.h>

enum { METADATA_FIRST = 512 };

/* ---- rows --------------------------------------------------------------------------- */

void wire_stream_tell(struct wire_stream *s, unsigned what)
{
    s->tell |= what;
    if (s->is_ready)
        return;
    s->is_ready = true;
    TAILQ_INSERT_TAIL(&s->conn->ready, s, ready);
}

static void untell(struct wire_stream *s)
{
    if (!s->is_ready)
        return;
    s->is_ready = false;
    TAILQ_REMOVE(&s->conn->ready, s, ready);
}

void wire_stream_park(struct wire_stream *s, enum wire_run run)
{
    if (s->run != RUN_NOT)
        TAILQ_REMOVE(&s->conn->run[s->run], s, running);
    s->run = run;
    if (run != RUN_NOT)
        TAILQ_INSERT_TAIL(&s->conn->run[run], s, running);
}

void wire_stream_run(struct wire_stream *s)
{
    bool last_frame = s->ended && !s->conn->opts.server; /* an empty DATA that ends the stream */

    if (!s->open || s->eof || (s->out.bytes == 0 && !last_frame))
        return;
    wire_stream_park(s, s->out.sent < s->out.urgent_until ? RUN_URGENT : RUN_BULK);
}

/* ---- its life ----------------------------------------------------------------------- */

struct wire_stream *wire_stream_new(struct wire_conn *c, int32_t id)
{
    struct wire_stream *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->conn = c;
    s->id = id;
    TAILQ_INSERT_TAIL(&c->all, s, all);
    c->stream_count++;
    return s;
}

/* What it holds of others' bounds, and its place in the connection's work. */
static void let_go(struct wire_stream *s)
{
    struct wire_conn *c = s->conn;

    if (c->granted == s)
        c->granted = NULL;
    wire_stream_park(s, RUN_NOT);
    wire_queue_drop(s);
    wire_stream_deafen(s);
}

void wire_stream_free(struct wire_stream *s)
{
    if (s == NULL)
        return;
    let_go(s);
    wire_stream_forget(s);
    untell(s);
    s->conn->metadata_bytes -= s->metadata_cap;
    s->conn->stream_count--;
    TAILQ_REMOVE(&s->conn->all, s, all);
    free(s->metadata);
    free(s);
}

void wire_stream_over(struct wire_stream *s, const struct wire_status *status)
{
    if (s->over)
        return;
    if ((s->tell & TELL_CLOSED) == 0) /* else its status is known */
        s->status = *status;
    s->over = s->ended = true;
    nghttp2_session_set_stream_user_data(s->conn->session, s->id, NULL);
    let_go(s);
    wire_stream_tell(s, TELL_CLOSED);
}

void wire_stream_ended(struct wire_stream *s)
{
    nghttp2_session_set_stream_user_data(s->conn->session, s->id, NULL);
    wire_stream_park(s, RUN_NOT);
    wire_queue_drop(s);
    s->ended = s->eof = true;
    wire_stream_tell(s, TELL_CLOSED);
}

static bool told(struct wire_stream *s, struct wire_event *event, unsigned what,
                 enum wire_event_kind kind)
{
    s->tell &= ~what;
    *event = (struct wire_event){ .kind = kind, .stream = s, .owner = s->owner };
    return true;
}

/* A message was begun and not ended. */
static bool half_message(const struct wire_stream *s)
{
    return s->in.head_have > 0 && s->held.count == 0;
}

static bool next_in_order(struct wire_stream *s, struct wire_event *event)
{
    int rc = 0;

    if (s->finished)
        s->tell &= ~(unsigned)(TELL_HALF_CLOSED | TELL_WRITABLE);
    if (s->tell & TELL_CALL) {
        s->told = true;
        return told(s, event, TELL_CALL, WIRE_EVENT_CALL);
    }
    if (s->tell & TELL_WRITABLE)
        return told(s, event, TELL_WRITABLE, WIRE_EVENT_WRITABLE);
    if (!s->paused && s->held.count > 0)
        rc = wire_held_next(s, event);
    else if (s->held.bytes != NULL && s->held.count == 0)
        wire_held_free(s); /* its last message has been looked at */
    if (rc != 0)
        return rc > 0;
    if (!s->paused && (s->tell & TELL_HALF_CLOSED)) {
        if (!half_message(s))
            return told(s, event, TELL_HALF_CLOSED, WIRE_EVENT_HALF_CLOSED);
        wire_stream_refuse(
            s, wire_say(WIRE_INVALID_ARGUMENT,
                        "the call ended inside a message, after %u of %u bytes", s->in.have,
                        s->in.head_have < WIRE_MESSAGE_HEAD ? WIRE_MESSAGE_HEAD : s->in.size));
    }
    return false;
}

bool wire_stream_next(struct wire_stream *s, struct wire_event *event)
{
    if (s->over && !s->told) {
        wire_stream_free(s); /* its owner never heard of it */
        return false;
    }
    if (!s->over && next_in_order(s, event))
        return true;
    if ((s->tell & TELL_CLOSED) && (s->over || s->held.count == 0)) {
        if (half_message(s) && s->status.code == WIRE_OK)
            s->status = wire_say(WIRE_INTERNAL, "the server ended the call inside a message");
        told(s, event, s->tell, WIRE_EVENT_CLOSED);
        event->status = &s->status;
        s->over = true;
        s->conn->doomed = s;
        untell(s);
        return true;
    }
    if (!s->over || s->told)
        untell(s);
    return false;
}

void wire_stream_cancel(struct wire_stream *s, const struct wire_status *status)
{
    if (s->over)
        return;
    if ((s->tell & TELL_CLOSED) == 0)
        wire_conn_check(s->conn, nghttp2_submit_rst_stream(s->conn->session, NGHTTP2_FLAG_NONE,
                                                           s->id, NGHTTP2_CANCEL));
    wire_stream_over(s, status);
}

void wire_stream_abort(struct wire_stream *s, const struct wire_status *status)
{
    if (!s->conn->opts.server || s->eof) {
        wire_stream_cancel(s, status);
        return;
    }
    if (s->over)
        return;
    s->status = *status;
    wire_stream_trailers(s);
    wire_stream_over(s, status);
}

/* ---- what its owner asks ------------------------------------------------------------ */

bool wire_stream_keep(struct wire_stream *s, const char *name, size_t name_bytes, const char *value,
                      size_t value_bytes)
{
    size_t need = s->metadata_bytes + name_bytes + value_bytes + 2;
    size_t cap = s->metadata_cap == 0 ? METADATA_FIRST : s->metadata_cap;
    char  *grown;

    while (cap < need)
        cap *= 2;
    if (cap > s->metadata_cap) {
        if (s->conn->metadata_bytes + cap - s->metadata_cap > METADATA_BYTES)
            return false;
        grown = realloc(s->metadata, cap);
        if (grown == NULL)
            return false;
        s->conn->metadata_bytes += cap - s->metadata_cap;
        s->metadata = grown;
        s->metadata_cap = cap;
    }
    memcpy(s->metadata + s->metadata_bytes, name, name_bytes);
    s->metadata[s->metadata_bytes + name_bytes] = '\0';
    memcpy(s->metadata + s->metadata_bytes + name_bytes + 1, value, value_bytes);
    s->metadata[need - 1] = '\0';
    s->metadata_bytes = need;
    return true;
}

const char *wire_stream_metadata(const struct wire_stream *s, const char *name)
{
    for (size_t at = 0; at < s->metadata_bytes;) {
        const char *key = s->metadata + at, *value = key + strlen(key) + 1;

        if (strcmp(key, name) == 0)
            return value;
        at = (size_t)(value + strlen(value) + 1 - s->metadata);
    }
    return NULL;
}

const char *wire_stream_path(const struct wire_stream *s)
{
    const char *path = wire_stream_metadata(s, ":path");

    return path != NULL ? path : "";
}

double wire_stream_timeout_ms(const struct wire_stream *s)
{
    return s->timeout_ms;
}

void wire_stream_set_owner(struct wire_stream *s, void *owner)
{
    s->owner = owner;
}

void *wire_stream_owner(const struct wire_stream *s)
{
    return s->owner;
}

void wire_stream_bytes(const struct wire_stream *s, uint64_t *out, uint64_t *in)
{
    *out = s->bytes_out;
    *in = s->bytes_in;
}
