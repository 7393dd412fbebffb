/* net/net.h - gRPC calls over real sockets: loops, listeners, connections, streams.
 *
 * A net_loop is a thread that runs libuv.  Everything about a connection and its streams
 * happens on its loop's thread: callbacks come there, and every function below is to be called
 * there, but for those marked "any thread".  net_loop_post() is the way in from elsewhere.
 *
 * Callbacks: never from inside the call that caused them; `closed` exactly once a stream, and
 * nothing after it.  Bytes passed to a callback are borrowed for its duration.
 *
 * Under this header: wire/conn.h (HTTP/2 and gRPC without sockets), TLS 1.3 with certificates
 * both ways (net/tls.c), and libuv.
 *
 * SPDX-License-Identifier: MIT */
#ifndef NET_NET_H
#define NET_NET_H

#include "wire/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct guard_keyring;

/* ---- loops -------------------------------------------------------------------------- */

struct net_loop;

/* Start the thread.  close() stops it: connections are reset, every open stream gets its
 * closed(UNAVAILABLE), posted work is run; it returns when the thread has ended.  Nobody else
 * may post any more by then. */
int  net_loop_open(struct net_loop **out, mcp_error *err);
void net_loop_close(struct net_loop *loop);

/* Work for the loop's thread.  The node lies in the caller's struct and belongs to the loop
 * until `run` is called, once, in the order of posting from each thread. */
struct net_work {
    void (*run)(struct net_work *work);
    struct net_work *next; /* the loop's */
};

void   net_loop_post(struct net_loop *loop, struct net_work *work); /* any thread */
bool   net_loop_here(const struct net_loop *loop);                  /* any thread */
double net_loop_now_ms(const struct net_loop *loop); /* base_clock_ms() of this iteration */

/* One-shot timers.  `run` is called once, at or after `at_ms` (base_clock_ms), unless
 * cancelled.  Setting a set timer moves it. */
struct net_timer {
    void (*run)(struct net_timer *timer);
    double            at_ms; /* 0 = not set */
    struct net_loop  *loop;
    struct net_timer *left, *right, *up; /* the loop's */
};

void net_timer_set(struct net_timer *timer, struct net_loop *loop, double at_ms);
void net_timer_cancel(struct net_timer *timer);

/* ---- identity ----------------------------------------------------------------------- */

enum { NET_NAME_BYTES = 128, NET_ADDRESS_BYTES = 64, NET_SERIAL_BYTES = 20 };

/* Who is at the other end: what TLS proved. */
struct net_peer {
    char    address[NET_ADDRESS_BYTES]; /* "192.0.2.1:4711", "[::1]:4711" */
    char    name[NET_NAME_BYTES];       /* certificate's CN */
    char    role[16];                   /* certificate's OU: "worker", "client", "admin"; "" */
    uint8_t cert_sha256[32];            /* of its DER */
    uint8_t serial[NET_SERIAL_BYTES];
    size_t  serial_bytes;
    char    tls[64]; /* "TLSv1.3 TLS_AES_256_GCM_SHA384 X25519" */
};

/* Certificates, key and authority from a keys folder (include/mcp/keys.h), for one role:
 * "worker", "client", "admin".  Immutable; a reload makes a new one.  Both sides demand
 * TLS 1.3, ALPN h2 and a certificate of the authority that `keyring` (may be NULL) does not
 * call revoked. */
struct net_identity;
int net_identity_load(struct net_identity **out, const char *folder, const char *role,
                      struct guard_keyring *keyring, mcp_error *err);
struct net_identity *net_identity_ref(struct net_identity *identity);
void                 net_identity_unref(struct net_identity *identity);

/* ---- streams ------------------------------------------------------------------------ */

/* One gRPC call, at either end. */
struct net_stream;

/* Urgent goes before bulk on the same connection, always. */
enum net_class { NET_URGENT = 0, NET_BULK = 1 };

struct net_stream_ops {
    /* One whole message. */
    void (*message)(struct net_stream *stream, void *ctx, const uint8_t *bytes, size_t count);
    /* The other side has sent its last message (server: time to answer a unary call). */
    void (*half_closed)(struct net_stream *stream, void *ctx);
    /* What was queued has gone to the socket; called only after `net_stream_room` was zero or a
     * message was refused for want of room.  May be NULL, as half_closed may. */
    void (*writable)(struct net_stream *stream, void *ctx);
    /* The call is over; `stream` is invalid after this returns. */
    void (*closed)(struct net_stream *stream, void *ctx, const struct wire_status *status);
};

/* Queue a message.  Messages of a stream keep their order.  On a stream that is closing the
 * message is dropped.  MCP_EBUSY: more than NET_QUEUE_BYTES would be queued, or the connection's
 * streams together queue too much (nothing was taken); MCP_ERANGE: above NET_MESSAGE_BYTES;
 * MCP_ENOMEM. */
int net_stream_send(struct net_stream *stream, const void *bytes, size_t count, enum net_class,
                    mcp_error *err);
/* Bytes that may still be queued before MCP_EBUSY. */
size_t net_stream_room(const struct net_stream *stream);
/* Client: no more messages. */
void net_stream_end(struct net_stream *stream);
/* Server: trailers with this status, after what is queued. */
void net_stream_finish(struct net_stream *stream, const struct wire_status *status);
/* Either side: RST_STREAM(CANCEL) at once.  closed(CANCELLED) follows. */
void net_stream_cancel(struct net_stream *stream);
/* Stop delivering messages (their bytes stay in the flow-control window, which bounds what the
 * peer can send), and go on. */
void net_stream_pause(struct net_stream *stream, bool paused);

struct net_conn;
struct net_loop       *net_conn_loop(const struct net_conn *conn); /* any thread */
struct net_conn       *net_stream_conn(const struct net_stream *stream);
const struct net_peer *net_stream_peer(const struct net_stream *stream);
/* A request's metadata; NULL when absent.  Valid as long as the stream. */
const char *net_stream_metadata(const struct net_stream *stream, const char *name);
/* Bytes of this stream's messages, sent and received (payload of gRPC messages). */
void net_stream_bytes(const struct net_stream *stream, uint64_t *out, uint64_t *in);
/* When this stream, and this connection, last got any byte (base_clock_ms). */
double net_conn_heard_ms(const struct net_conn *conn);
/* Of this connection since it opened: TLS records included. */
/* The round trip as the kernel measures it, acknowledgements alone; 0 = unknown. */
double net_conn_tcp_rtt_ms(const struct net_conn *conn);
void   net_conn_bytes(const struct net_conn *conn, uint64_t *out, uint64_t *in);
/* A place for the owner's per-connection state (a wire_pace, ...): set once. */
void  net_conn_set_data(struct net_conn *conn, void *data, void (*release)(void *data));
void *net_conn_data(const struct net_conn *conn);

/* ---- server ------------------------------------------------------------------------- */

struct net_server;

enum {
    NET_QUEUE_BYTES = 4 << 20,   /* unsent messages of one stream */
    NET_MESSAGE_BYTES = 4 << 20, /* largest message, checked on its 5-byte head */
    NET_STREAMS_MAX = 1024,      /* of one connection: an edge carries all its clients' */
    NET_HANDSHAKE_MS = 5000,     /* TCP accepted to identity proven */
    NET_FIRST_CALL_MS = 10000,   /* from there to the first call */
    NET_CONNS_ADDRESS_MAX = 256, /* of one address */
};

struct net_server_ops {
    /* A call begins.  Return ops (and *stream_ctx) to take it, or NULL with *status filled to
     * refuse it.  Called on the connection's loop; loops run in parallel. */
    const struct net_stream_ops *(*open)(struct net_stream *stream, const char *path, void *ctx,
                                         void **stream_ctx, struct wire_status *status);
    /* Certificates may be changed while the server runs: asked for each new connection.
     * The result is referenced for the caller. */
    struct net_identity *(*identity)(void *ctx);
};

struct net_server_opts {
    const char *listen;  /* "HOST:PORT", "[::1]:7000", "0.0.0.0:0" (any port) */
    uint32_t    threads; /* loops; 0 = 1 */
    uint32_t    conns_max;
};

/* The server's own functions may be called from any thread but its loops'. */
int net_server_open(struct net_server **out, const struct net_server_opts *opts,
                    const struct net_server_ops *ops, void *ctx, mcp_error *err);
/* "127.0.0.1:43211": the address that it really has. */
const char *net_server_address(const struct net_server *server);
/* No new connections and calls (they get GOAWAY and UNAVAILABLE); running streams go on. */
void net_server_drain(struct net_server *server);
void net_server_close(struct net_server *server);

struct net_server_stats {
    uint64_t connections, connections_open, streams, streams_open, refused, bytes_in, bytes_out;
    uint64_t handshakes_failed, hostile; /* connections ended for breaking a bound */
};
void net_server_get_stats(const struct net_server *server, struct net_server_stats *stats);

/* ---- client ------------------------------------------------------------------------- */

struct net_conn_ops {
    /* TLS is up and the server's certificate is right (it was checked for `host`). */
    void (*up)(struct net_conn *conn, void *ctx, const struct net_peer *peer);
    /* Once, last: never came up, or was lost.  `identity` when certificates were the reason:
     * do not try again.  conn is invalid after this returns. */
    void (*down)(struct net_conn *conn, void *ctx, const struct wire_status *why, bool identity);
};

/* Dial "HOST:PORT".  Calls may be opened at once: they travel with the handshake's last
 * flight.  *out is valid until `down`. */
int  net_conn_dial(struct net_conn **out, struct net_loop *loop, const char *endpoint,
                   struct net_identity *identity, double timeout_ms, const struct net_conn_ops *ops,
                   void *ctx, mcp_error *err);
void net_conn_close(struct net_conn *conn); /* down(CANCELLED) follows */

/* Begin a call.  deadline_ms: from now, 0 = none; sent as grpc-timeout and kept here too.
 * metadata: pairs of names and values ended by NULL, or NULL. */
int net_call_open(struct net_stream **out, struct net_conn *conn, const char *path,
                  double deadline_ms, const char *const *metadata, const struct net_stream_ops *ops,
                  void *ctx, mcp_error *err);

#endif
