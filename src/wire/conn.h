/* wire/conn.h - one gRPC connection over HTTP/2, either end, without a socket.
 *
 *     bytes from TLS --> wire_conn_feed --> wire_conn_next --> events
 *     bytes to TLS   <-- wire_conn_take <-- wire_stream_send, _finish, ...
 *
 * nghttp2 does HTTP/2; this is gRPC on top of it and the bounds that nghttp2 lacks.  Nothing is
 * ever called back: what happened is told by wire_conn_next(), one event at a time, and every
 * function of this header may be called while an event is looked at.
 *
 * Order of what leaves: control frames, then streams with an urgent message, then bulk; among
 * equals one frame each in turn.  A stream whose urgent message stands behind a bulk one is
 * urgent, because a stream's messages keep their order.
 *
 * Flow control: a stream's window is given back as its messages are told, so a paused stream
 * holds up its peer; the connection's as bytes arrive, so that it holds up nobody else.
 *
 * Sans-IO: the caller gives the time (base_clock_ms).  One thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_CONN_H
#define WIRE_CONN_H

#include "wire/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_MESSAGE_HEAD = 5, /* flag and length before each message */

    /* Receive windows: 2 BDP at 100 ms and 160 Mbit/s for a stream, four such streams at once.
     * nghttp2 refills a window when half of it is used, hence twice the BDP. */
    WIRE_WINDOW_STREAM = 4 << 20,
    WIRE_WINDOW_CONN = 16 << 20,
};

struct wire_conn;
struct wire_stream;

struct wire_conn_opts {
    bool        server;
    const char *authority;     /* client: of its calls; copied */
    uint32_t    streams_max;   /* server: calls at once */
    uint32_t    message_bytes; /* largest message, in and out */
    uint32_t    queue_bytes;   /* unsent bytes of one stream */
};

int  wire_conn_new(struct wire_conn **out, const struct wire_conn_opts *opts, double now_ms,
                   mcp_error *err);
void wire_conn_free(struct wire_conn *c); /* its streams go with it, untold */

/* ---- bytes and events --------------------------------------------------------------- */

enum wire_event_kind {
    WIRE_EVENT_CALL,        /* server: a call begins; take it with wire_stream_set_owner() */
    WIRE_EVENT_MESSAGE,     /* bytes, count: borrowed until the next wire_conn_next() */
    WIRE_EVENT_HALF_CLOSED, /* server: no more messages from the client */
    WIRE_EVENT_WRITABLE,    /* the queue was full and is empty */
    WIRE_EVENT_CLOSED,      /* status; the stream is invalid at the next wire_conn_next() */
};

struct wire_event {
    enum wire_event_kind      kind;
    struct wire_stream       *stream;
    void                     *owner; /* as set for the stream */
    const uint8_t            *bytes;
    size_t                    count;
    const struct wire_status *status;
};

/* Bytes have come.  They are borrowed until wire_conn_next() has returned false, which must
 * have happened for earlier bytes. */
void wire_conn_feed(struct wire_conn *c, double now_ms, const uint8_t *bytes, size_t count);

/* The next event; false: nothing more to tell for now, and all bytes are eaten.  Ask also after
 * wire_conn_take() and after anything done to a stream. */
bool wire_conn_next(struct wire_conn *c, struct wire_event *event);

/* Up to `cap` bytes to be sent; 0: nothing to send now.  A cap below 64 may give nothing. */
size_t wire_conn_take(struct wire_conn *c, uint8_t *out, size_t cap);

/* Look for what has waited too long; about once a second while something may (there are streams,
 * or half a header block). */
void wire_conn_tick(struct wire_conn *c, double now_ms);
bool wire_conn_waits(const struct wire_conn *c);

/* ---- the connection ----------------------------------------------------------------- */

/* No new calls: GOAWAY.  Running ones go on, and when they have ended the connection is over. */
void wire_conn_drain(struct wire_conn *c);
/* The bytes' way is gone: every stream ends with this status, nothing more is taken. */
void wire_conn_lose(struct wire_conn *c, const struct wire_status *why);
/* True once nothing more will come or go, and all that had to be sent was taken: hang up.
 * *why (may be NULL) says the reason, WIRE_OK when it has just come to its end. */
bool wire_conn_over(const struct wire_conn *c, struct wire_status *why);
/* The peer broke a bound or the protocol. */
bool wire_conn_hostile(const struct wire_conn *c);
/* No new calls can be begun here: the peer has sent GOAWAY, or the connection has ended. */
bool wire_conn_draining(const struct wire_conn *c);
/* Client: what the server's GOAWAY said; NULL = none has come. */
const struct wire_status *wire_conn_goaway(const struct wire_conn *c);
/* The peer has said hello (its preface and SETTINGS). */
bool     wire_conn_greeted(const struct wire_conn *c);
uint32_t wire_conn_streams(const struct wire_conn *c); /* those not told CLOSED */

/* ---- streams ------------------------------------------------------------------------ */

enum wire_class { WIRE_URGENT, WIRE_BULK };

/* Client: begin a call.  timeout_ms: sent as grpc-timeout; 0 = none (keep your own timer too).
 * metadata: pairs of names and values ended by NULL, or NULL.
 *   MCP_EINVAL    a name or value that HTTP/2 does not carry
 *   MCP_EUNAVAIL  the connection is draining or over */
int wire_call_open(struct wire_stream **out, struct wire_conn *c, const char *path,
                   double timeout_ms, const char *const *metadata, void *owner, mcp_error *err);

void  wire_stream_set_owner(struct wire_stream *s, void *owner);
void *wire_stream_owner(const struct wire_stream *s);

/* Server: of the request.  Valid as long as the stream. */
const char *wire_stream_path(const struct wire_stream *s);
const char *wire_stream_metadata(const struct wire_stream *s, const char *name); /* NULL: absent */
double      wire_stream_timeout_ms(const struct wire_stream *s); /* grpc-timeout; 0 = none */

/* Queue a message; copied.  Dropped when the stream is finished or over.
 *   MCP_EBUSY   more than queue_bytes would wait; nothing was taken
 *   MCP_ERANGE  larger than message_bytes */
int    wire_stream_send(struct wire_stream *s, const void *bytes, size_t count, enum wire_class,
                        mcp_error *err);
size_t wire_stream_room(const struct wire_stream *s);
/* Client: no more messages. */
void wire_stream_end(struct wire_stream *s);
/* Server: trailers with this status, after what is queued. */
void wire_stream_finish(struct wire_stream *s, const struct wire_status *status);
/* RST_STREAM(CANCEL) now; CLOSED with `status` follows.  What was queued is dropped. */
void wire_stream_cancel(struct wire_stream *s, const struct wire_status *status);
/* The same, but a server says the status in trailers: deadlines and refusals. */
void wire_stream_abort(struct wire_stream *s, const struct wire_status *status);
/* Stop, or go on, telling MESSAGE and HALF_CLOSED. */
void wire_stream_pause(struct wire_stream *s, bool paused);
/* Payload bytes of its messages so far. */
void wire_stream_bytes(const struct wire_stream *s, uint64_t *out, uint64_t *in);

#endif
