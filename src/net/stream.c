/* net/stream.c - calls: a stream of the core, its owner's functions, and its deadline.
 *
 * SPDX-License-Identifier: MIT */
#include "net/net_impl.h"

#include "base/fail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct net_stream {
    struct net_conn             *conn;
    struct wire_stream          *wire;
    const struct net_stream_ops *ops; /* NULL: refused, or over */
    void                        *ctx;
    struct net_timer             deadline;
    double                       deadline_ms; /* from its beginning */
};

static void on_deadline(struct net_timer *timer)
{
    struct net_stream *s = NET_OWNER(struct net_stream, deadline, timer);
    struct wire_status late = { .code = WIRE_DEADLINE_EXCEEDED };

    snprintf(late.text, sizeof(late.text), "the deadline of %.0f ms has passed", s->deadline_ms);
    wire_stream_abort(s->wire, &late);
    net_conn_touch(s->conn);
}

static struct net_stream *stream_new(struct net_conn *c, const struct net_stream_ops *ops,
                                     void *ctx, double deadline_ms)
{
    struct net_stream *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->conn = c;
    s->ops = ops;
    s->ctx = ctx;
    s->deadline.run = on_deadline;
    s->deadline_ms = deadline_ms;
    if (deadline_ms > 0)
        net_timer_set(&s->deadline, c->loop, c->loop->now_ms + deadline_ms);
    return s;
}

static void stream_free(struct net_stream *s)
{
    net_timer_cancel(&s->deadline);
    free(s);
}

/* ---- events ------------------------------------------------------------------------- */

static void on_call(struct net_conn *c, struct wire_stream *wire)
{
    struct wire_status status = { .code = WIRE_RESOURCE_EXHAUSTED, .text = "no memory for a call" };
    struct net_stream *s = stream_new(c, NULL, NULL, wire_stream_timeout_ms(wire));

    if (s == NULL) {
        wire_stream_finish(wire, &status);
        return;
    }
    s->wire = wire;
    wire_stream_set_owner(wire, s);
    status.code = WIRE_OK;
    status.text[0] = '\0';
    s->ops = net_server_call(c, s, &s->ctx, &status);
    if (s->ops != NULL)
        return;
    if (status.code == WIRE_OK) {
        status.code = WIRE_UNIMPLEMENTED;
        snprintf(status.text, sizeof(status.text), "there is no method %.128s",
                 wire_stream_path(wire));
    }
    wire_stream_finish(wire, &status);
}

static void on_closed(struct net_conn *c, struct net_stream *s, const struct wire_status *status)
{
    const struct net_stream_ops *ops = s->ops;

    net_timer_cancel(&s->deadline);
    if (ops != NULL)
        ops->closed(s, s->ctx, status);
    if (c->server != NULL)
        net_server_call_ended(c);
    stream_free(s);
}

void net_stream_event(struct net_conn *c, const struct wire_event *e)
{
    struct net_stream *s = e->owner;

    if (e->kind == WIRE_EVENT_CALL) {
        on_call(c, e->stream);
        return;
    }
    if (s == NULL)
        return; /* there was no memory for it */
    switch (e->kind) {
    case WIRE_EVENT_MESSAGE:
        if (s->ops != NULL)
            s->ops->message(s, s->ctx, e->bytes, e->count);
        break;
    case WIRE_EVENT_HALF_CLOSED:
        if (s->ops != NULL && s->ops->half_closed != NULL)
            s->ops->half_closed(s, s->ctx);
        break;
    case WIRE_EVENT_WRITABLE:
        if (s->ops != NULL && s->ops->writable != NULL)
            s->ops->writable(s, s->ctx);
        break;
    case WIRE_EVENT_CLOSED: on_closed(c, s, e->status); break;
    case WIRE_EVENT_CALL: break;
    }
}

/* ---- what owners do ----------------------------------------------------------------- */

int net_stream_send(struct net_stream *stream, const void *bytes, size_t count,
                    enum net_class class, mcp_error *err)
{
    net_conn_touch(stream->conn);
    return wire_stream_send(stream->wire, bytes, count,
                            class == NET_URGENT ? WIRE_URGENT : WIRE_BULK, err);
}

size_t net_stream_room(const struct net_stream *stream)
{
    return wire_stream_room(stream->wire);
}

void net_stream_end(struct net_stream *stream)
{
    wire_stream_end(stream->wire);
    net_conn_touch(stream->conn);
}

void net_stream_finish(struct net_stream *stream, const struct wire_status *status)
{
    wire_stream_finish(stream->wire, status);
    net_conn_touch(stream->conn);
}

void net_stream_cancel(struct net_stream *stream)
{
    struct wire_status status = { .code = WIRE_CANCELLED, .text = "cancelled" };

    wire_stream_cancel(stream->wire, &status);
    net_conn_touch(stream->conn);
}

void net_stream_pause(struct net_stream *stream, bool paused)
{
    wire_stream_pause(stream->wire, paused);
    net_conn_touch(stream->conn);
}

struct net_conn *net_stream_conn(const struct net_stream *stream)
{
    return stream->conn;
}

const struct net_peer *net_stream_peer(const struct net_stream *stream)
{
    return &stream->conn->peer;
}

const char *net_stream_metadata(const struct net_stream *stream, const char *name)
{
    return wire_stream_metadata(stream->wire, name);
}

void net_stream_bytes(const struct net_stream *stream, uint64_t *out, uint64_t *in)
{
    wire_stream_bytes(stream->wire, out, in);
}

int net_call_open(struct net_stream **out, struct net_conn *conn, const char *path,
                  double deadline_ms, const char *const *metadata, const struct net_stream_ops *ops,
                  void *ctx, mcp_error *err)
{
    struct net_stream *s;
    int                rc;

    *out = NULL;
    if (conn->ended)
        return base_fail(err, MCP_EUNAVAIL, "%s", conn->why.text);
    s = stream_new(conn, ops, ctx, deadline_ms);
    if (s == NULL)
        return base_fail(err, MCP_ENOMEM, "no memory for a call");
    rc = wire_call_open(&s->wire, conn->wire, path, deadline_ms, metadata, s, err);
    if (rc < 0) {
        stream_free(s);
        return rc;
    }
    net_conn_touch(conn);
    *out = s;
    return MCP_OK;
}
