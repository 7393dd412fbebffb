/* net/net_impl.h - loops, sockets and connections inside; nobody outside src/net includes it.
 *
 *     loop.c      the thread, posted work        timer.c     its timers
 *     conn.c      a connection: bytes between socket, TLS and wire/conn.h
 *     stream.c    calls                          identity.c  certificates
 *     client.c    dialling                       tls.c       TLS without a socket
 *     server.c    accepting                      address.c   names and socket options
 *
 * Everything happens in callbacks of libuv (a socket is ready, a timer, posted work), each of
 * which ends with net_loop_settle(): connections that were touched tell their events and send.
 * So an owner is never called from inside its own call, and many answers leave in one write.
 *
 * SPDX-License-Identifier: MIT */
#ifndef NET_NET_IMPL_H
#define NET_NET_IMPL_H

#include "net/net.h"
#include "net/tls.h"
#include "wire/conn.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <uv.h>

enum {
    NET_READ_BYTES = 64 << 10,   /* of one recv */
    NET_RECORD_BYTES = 16 << 10, /* plaintext of one TLS record */
    /* Encrypted bytes that wait for the socket.  What is in here, and what TCP_NOTSENT_LOWAT
     * lets into the kernel, an urgent message cannot pass. */
    NET_BACKLOG_BYTES = 64 << 10,
    NET_NOTSENT_BYTES = 16 << 10,

    NET_STALL_MS = 30000, /* the peer's TCP takes nothing */
    NET_LINGER_MS = 1000, /* for the peer to read our last words */
    NET_LINGER_BYTES = 1 << 20,
    NET_TICK_MS = 1000,

    NET_HOST_BYTES = 256,
};

#define NET_OWNER(type, member, pointer) ((type *)((char *)(pointer)-offsetof(type, member)))

/* ---- loops -------------------------------------------------------------------------- */

TAILQ_HEAD(net_conns, net_conn);

struct net_loop {
    uv_loop_t                  uv;
    uv_async_t                 wake;
    uv_timer_t                 clock;
    pthread_t                  thread;
    _Atomic(struct net_work *) posted; /* newest first */
    struct net_work            stop;
    bool                       stopping;

    double            now_ms;
    struct net_timer *timers;   /* the heap's root */
    double            armed_ms; /* what `clock` waits for; 0 = nothing */

    struct net_conns conns, touched;

    /* Of whichever connection is at work. */
    uint8_t in[NET_READ_BYTES];
    uint8_t plain[NET_RECORD_BYTES];
};

void net_loop_enter(struct net_loop *loop);  /* first in each callback of libuv */
void net_loop_settle(struct net_loop *loop); /* last */
void net_loop_on_clock(uv_timer_t *clock);
void net_timers_run(struct net_loop *loop);

/* ---- sockets ------------------------------------------------------------------------ */

/* A socket that libuv watches.  Closed independently of who used it. */
struct net_socket {
    uv_poll_t poll;
    int       fd;
    int       events; /* UV_READABLE | UV_WRITABLE */
    void (*ready)(void *owner, int events);
    void *owner; /* NULL once closed */
};

/* Takes fd, also when it fails. */
int  net_socket_open(struct net_socket **out, struct net_loop *loop, int fd,
                     void (*ready)(void *owner, int events), void *owner, mcp_error *err);
void net_socket_watch(struct net_socket *s, int events);
void net_socket_close(struct net_socket *s); /* NULL is fine */

/* "HOST:PORT", "[v6]:PORT" */
int  net_address_split(const char *text, char host[NET_HOST_BYTES], char port[8], mcp_error *err);
void net_address_print(char text[NET_ADDRESS_BYTES], const struct sockaddr *address);
/* Who counts as one: an IPv4 address, an IPv6 /64. */
uint64_t net_address_key(const struct sockaddr *address);
/* Of every connection. */
void net_socket_tune(int fd);

/* ---- connections -------------------------------------------------------------------- */

/* Ordered: a comparison tells whether there is a socket, or TLS. */
enum net_conn_state {
    NET_RESOLVING,  /* client: the name is looked up */
    NET_CONNECTING, /* client: TCP */
    NET_SHAKING,    /* TLS */
    NET_UP,         /* calls */
    NET_LEAVING,    /* its end was told; last words go out */
    NET_LINGERING,  /* they have; waits for the peer to hang up */
};

struct net_dial {
    uv_getaddrinfo_t request;
    bool             resolving; /* libuv has `request` */
    bool             orphan;    /* the connection is gone; free when libuv is done */
    struct addrinfo *list, *next;
    uint32_t         left; /* addresses not tried */
    struct net_conn *conn;
};

struct net_conn {
    struct net_loop     *loop;
    struct net_server   *server; /* NULL: client */
    struct net_identity *identity;
    enum net_conn_state  state;
    struct net_socket   *socket;
    struct net_tls       tls;
    struct wire_conn    *wire; /* client: from the start; server: from its greeting on */
    struct net_peer      peer;
    uint64_t             bytes_in, bytes_out;
    double               heard_ms;
    bool                 blocked; /* the socket took less than we had */
    double               blocked_ms;
    bool                 mute;     /* sending failed: only reading may tell why */
    struct net_timer     patience; /* for the state that it is in */
    struct net_timer     tick;
    size_t               lingered_bytes;

    bool               ended, told; /* its end is known; its owner knows */
    bool               graceful;    /* last words are worth sending */
    struct wire_status why;
    bool               why_identity;

    TAILQ_ENTRY(net_conn) all, touching;
    bool is_touched;

    void *data; /* the owner's */
    void (*release)(void *data);

    /* client */
    struct net_conn_ops ops;
    void               *ctx;
    char                endpoint[NET_HOST_BYTES + 16];
    double              give_up_ms;
    struct net_dial    *dial;

    /* server */
    bool     called; /* it has made a call */
    uint32_t index;  /* of the server's loop */
    uint64_t address_key;
    LIST_ENTRY(net_conn) same_address;
};

struct net_conn *net_conn_new(struct net_loop *loop, struct net_identity *identity);
/* Have it settled at the end of this callback. */
void net_conn_touch(struct net_conn *c);
void net_conn_settle(struct net_conn *c);
/* Server: watch the accepted socket and speak TLS. */
void net_conn_adopt(struct net_conn *c, int fd);
/* c->socket is connected: speak TLS.  `host`: whom a client expects. */
void net_conn_start(struct net_conn *c, const char *host);
/* It is over, told at the next settling.  The first reason counts. */
void net_conn_end(struct net_conn *c, const struct wire_status *why, bool identity, bool graceful);
void net_conn_free(struct net_conn *c);
void net_conn_on_tick(struct net_timer *timer); /* what `tick` runs once it is connected */
/* What an event of the core means to a stream's owner. */
void net_stream_event(struct net_conn *c, const struct wire_event *event);

/* client.c */
void net_dial_free(struct net_dial *d);

/* server.c: what connections report */
struct net_stream;
const struct net_stream_ops *net_server_call(struct net_conn *c, struct net_stream *stream,
                                             void **ctx, struct wire_status *status);
void                         net_server_call_ended(struct net_conn *c);
void                         net_server_ended(struct net_conn *c);
void net_server_forget(struct net_conn *c); /* it is freed, and its place is free */
void net_server_moved(struct net_conn *c, size_t in, size_t out);
bool net_server_draining(const struct net_server *server);

#endif
