/* net/server.c - accepting: one listener, several loops, limits, drain.
 *
 * gRPC connections are few and live long, so that hashing them over a listener a loop
 * (SO_REUSEPORT) would leave loops idle beside busy ones; and it would hide that another
 * process has the port.  So the first loop accepts for all, and hands each connection to the
 * loop with the fewest.
 *
 * Threads: counters are atomic; the table of addresses is under `lock`, touched once a
 * connection; the rest is fixed after opening.
 *
 * SPDX-License-Identifier: MIT */
#include "net/net_impl.h"

#include "base/fail.h"
#include "base/log.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LOOPS_MAX = 256,
    CONNS_DEFAULT = 4096,
    LISTEN_BACKLOG = 512,
    ACCEPTS_MAX = 64,      /* in one go */
    ACCEPT_RETRY_MS = 100, /* out of descriptors or memory */
    ADDRESS_BUCKETS = 256,
};

struct server_loop {
    struct net_server *server;
    struct net_loop   *loop;
    atomic_uint        conns;
    struct net_work    drain;
};

struct net_server {
    struct net_server_ops ops;
    void                 *ctx;
    uint32_t              conns_max;
    char                  address[NET_ADDRESS_BYTES];

    struct server_loop *loops; /* (loop_count) */
    uint32_t            loop_count;
    atomic_bool         draining;

    /* of the first loop's thread */
    int                fd; /* not yet given to `listener`; -1 */
    struct net_socket *listener;
    struct net_timer   retry;
    struct net_work    start, stop;

    pthread_mutex_t lock;
    LIST_HEAD(net_address_bucket, net_conn) addresses[ADDRESS_BUCKETS];

    atomic_uint_fast64_t conns, conns_open, streams, streams_open, refused, bytes_in, bytes_out,
        shakes_failed, hostile;
};

/* A connection on its way to its loop. */
struct accepted {
    struct net_work     work;
    struct server_loop *to;
    int                 fd;
    union {
        struct sockaddr     any;
        struct sockaddr_in  in4;
        struct sockaddr_in6 in6;
    } address;
};

/* ---- limits ------------------------------------------------------------------------- */

/* Enter it into the table; false: its address has too many. */
static bool address_enter(struct net_server *s, struct net_conn *c)
{
    uint32_t         count = 0;
    struct net_conn *other;
    uint64_t         hash = c->address_key * 0x9e3779b97f4a7c15u >> 56;

    pthread_mutex_lock(&s->lock);
    for (other = LIST_FIRST(&s->addresses[hash]); other != NULL;
         other = LIST_NEXT(other, same_address))
        count += other->address_key == c->address_key;
    if (count < NET_CONNS_ADDRESS_MAX)
        LIST_INSERT_HEAD(&s->addresses[hash], c, same_address);
    pthread_mutex_unlock(&s->lock);
    return count < NET_CONNS_ADDRESS_MAX;
}

/* Closed at once and by a reset: no state stays for it, here or in the kernel. */
static void refuse(struct net_server *s, int fd)
{
    struct linger none = { .l_onoff = 1, .l_linger = 0 };

    atomic_fetch_add(&s->refused, 1);
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    close(fd);
}

/* ---- connections -------------------------------------------------------------------- */

static void conn_begin(struct net_work *work)
{
    struct accepted     *a = NET_OWNER(struct accepted, work, work);
    struct server_loop  *to = a->to;
    struct net_server   *s = to->server;
    struct net_identity *identity = to->loop->stopping ? NULL : s->ops.identity(s->ctx);
    struct net_conn     *c = identity != NULL ? net_conn_new(to->loop, identity) : NULL;

    if (c != NULL) {
        c->index = (uint32_t)(to - s->loops);
        c->address_key = net_address_key(&a->address.any);
        net_address_print(c->peer.address, &a->address.any);
    }
    if (c == NULL || !address_enter(s, c)) {
        if (c != NULL)
            net_conn_free(c);
        atomic_fetch_sub(&to->conns, 1);
        atomic_fetch_sub(&s->conns_open, 1);
        refuse(s, a->fd);
    } else {
        c->server = s;
        net_timer_set(&c->patience, to->loop, to->loop->now_ms + NET_HANDSHAKE_MS);
        net_conn_adopt(c, a->fd);
    }
    net_identity_unref(identity);
    free(a);
}

void net_server_ended(struct net_conn *c)
{
    struct net_server *s = c->server;

    if (c->state == NET_SHAKING) {
        atomic_fetch_add(&s->shakes_failed, 1);
        base_log(BASE_LOG_DETAIL, "%s: no connection: %s", c->peer.address, c->why.text);
    } else if (wire_conn_hostile(c->wire)) {
        atomic_fetch_add(&s->hostile, 1);
        base_log(BASE_LOG_WARN, "%s (%s): connection ended: %s", c->peer.address, c->peer.name,
                 c->why.text);
    }
}

void net_server_forget(struct net_conn *c)
{
    struct net_server *s = c->server;

    pthread_mutex_lock(&s->lock);
    LIST_REMOVE(c, same_address);
    pthread_mutex_unlock(&s->lock);
    atomic_fetch_sub(&s->loops[c->index].conns, 1);
    atomic_fetch_sub(&s->conns_open, 1);
}

const struct net_stream_ops *net_server_call(struct net_conn *c, struct net_stream *stream,
                                             void **ctx, struct wire_status *status)
{
    struct net_server           *s = c->server;
    const struct net_stream_ops *ops = NULL;

    if (!c->called)
        net_timer_cancel(&c->patience);
    c->called = true;
    atomic_fetch_add(&s->streams, 1);
    atomic_fetch_add(&s->streams_open, 1);
    if (atomic_load(&s->draining)) {
        status->code = WIRE_UNAVAILABLE;
        snprintf(status->text, sizeof(status->text), "this server is draining");
    } else {
        ops = s->ops.open(stream, net_stream_metadata(stream, ":path"), s->ctx, ctx, status);
    }
    return ops;
}

void net_server_call_ended(struct net_conn *c)
{
    atomic_fetch_sub(&c->server->streams_open, 1);
}

void net_server_moved(struct net_conn *c, size_t in, size_t out)
{
    atomic_fetch_add_explicit(&c->server->bytes_in, in, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->server->bytes_out, out, memory_order_relaxed);
}

bool net_server_draining(const struct net_server *server)
{
    return atomic_load(&server->draining);
}

/* ---- accepting ---------------------------------------------------------------------- */

static void accept_later(struct net_server *s)
{
    net_socket_watch(s->listener, 0);
    net_timer_set(&s->retry, s->loops[0].loop, s->loops[0].loop->now_ms + ACCEPT_RETRY_MS);
}

static void on_retry(struct net_timer *timer)
{
    struct net_server *s = NET_OWNER(struct net_server, retry, timer);

    net_socket_watch(s->listener, UV_READABLE);
}

static void hand_over(struct net_server *s, struct accepted *a)
{
    struct server_loop *to = &s->loops[0];

    for (uint32_t i = 1; i < s->loop_count; i++)
        if (atomic_load(&s->loops[i].conns) < atomic_load(&to->conns))
            to = &s->loops[i];
    atomic_fetch_add(&to->conns, 1);
    atomic_fetch_add(&s->conns, 1);
    a->to = to;
    a->work.run = conn_begin;
    net_loop_post(to->loop, &a->work);
}

static void on_listener(void *owner, int events)
{
    struct net_server *s = owner;
    struct accepted   *a;
    socklen_t          bytes;

    (void)events;
    net_loop_enter(s->loops[0].loop);
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        a = calloc(1, sizeof(*a));
        bytes = sizeof(a->address);
        if (a != NULL)
            a->fd = accept4(s->listener->fd, &a->address.any, &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (a == NULL || a->fd < 0) {
            free(a);
            if (a == NULL || errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
                errno == ENOMEM)
                accept_later(s);
            if (a == NULL || (errno != EINTR && errno != ECONNABORTED))
                break;
        } else if (atomic_fetch_add(&s->conns_open, 1) >= s->conns_max) {
            atomic_fetch_sub(&s->conns_open, 1);
            refuse(s, a->fd);
            free(a);
        } else {
            hand_over(s, a);
        }
    }
    net_loop_settle(s->loops[0].loop);
}

static void start(struct net_work *work)
{
    struct net_server *s = NET_OWNER(struct net_server, start, work);
    int                fd = s->fd;

    s->fd = -1;
    if (net_socket_open(&s->listener, s->loops[0].loop, fd, on_listener, s, NULL) == MCP_OK)
        net_socket_watch(s->listener, UV_READABLE);
}

static void stop(struct net_work *work)
{
    struct net_server *s = NET_OWNER(struct net_server, stop, work);

    net_timer_cancel(&s->retry);
    net_socket_close(s->listener);
    s->listener = NULL;
}

/* ---- opening and closing ------------------------------------------------------------ */

static int listen_at(struct net_server *s, const struct addrinfo *a)
{
    union {
        struct sockaddr         any;
        struct sockaddr_storage storage;
    } bound;
    socklen_t bytes = sizeof(bound);
    int       yes = 1;

    s->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        return errno;
    (void)setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (bind(s->fd, a->ai_addr, a->ai_addrlen) != 0 || listen(s->fd, LISTEN_BACKLOG) != 0 ||
        getsockname(s->fd, &bound.any, &bytes) != 0) {
        int error = errno;

        close(s->fd);
        s->fd = -1;
        return error;
    }
    net_address_print(s->address, &bound.any);
    return 0;
}

static int listen_on(struct net_server *s, const char *text, mcp_error *err)
{
    struct addrinfo  hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *list = NULL;
    char             host[NET_HOST_BYTES], port[8];
    int              rc = net_address_split(text, host, port, err), error = 0;

    if (rc < 0)
        return rc;
    rc = getaddrinfo(host, port, &hints, &list);
    if (rc != 0)
        return base_fail(err, MCP_ENOTFOUND, "cannot listen on %s: %s", text, gai_strerror(rc));
    for (const struct addrinfo *a = list; a != NULL && s->fd < 0; a = a->ai_next)
        error = listen_at(s, a);
    freeaddrinfo(list);
    if (s->fd < 0)
        return base_fail(err, error == EACCES ? MCP_EDENIED : MCP_EIO, "cannot listen on %s: %s",
                         text, strerror(error));
    return MCP_OK;
}

static void server_free(struct net_server *s)
{
    for (uint32_t i = 0; i < s->loop_count; i++)
        net_loop_close(s->loops[i].loop); /* the first one, which accepts, first */
    if (s->fd >= 0)
        close(s->fd);
    pthread_mutex_destroy(&s->lock);
    free(s->loops);
    free(s);
}

static void drain_loop(struct net_work *work)
{
    struct server_loop *l = NET_OWNER(struct server_loop, drain, work);
    struct net_conn    *c;

    for (c = TAILQ_FIRST(&l->loop->conns); c != NULL; c = TAILQ_NEXT(c, all)) {
        if (c->wire == NULL || c->ended)
            continue;
        wire_conn_drain(c->wire);
        net_conn_touch(c);
    }
}

int net_server_open(struct net_server **out, const struct net_server_opts *opts,
                    const struct net_server_ops *ops, void *ctx, mcp_error *err)
{
    struct net_server *s = calloc(1, sizeof(*s));
    uint32_t           count = opts->threads > 0 ? opts->threads : 1;
    int                rc = MCP_OK;

    *out = NULL;
    if (count > LOOPS_MAX) {
        free(s);
        return base_fail(err, MCP_EINVAL, "%u I/O threads are more than %d", count, LOOPS_MAX);
    }
    if (s != NULL)
        s->loops = calloc(count, sizeof(*s->loops));
    if (s == NULL || s->loops == NULL) {
        free(s);
        return base_fail(err, MCP_ENOMEM, "no memory for a server");
    }
    s->ops = *ops;
    s->ctx = ctx;
    s->conns_max = opts->conns_max > 0 ? opts->conns_max : CONNS_DEFAULT;
    s->fd = -1;
    s->start.run = start;
    s->stop.run = stop;
    s->retry.run = on_retry;
    pthread_mutex_init(&s->lock, NULL);
    for (size_t i = 0; i < ADDRESS_BUCKETS; i++)
        LIST_INIT(&s->addresses[i]);
    rc = listen_on(s, opts->listen, err);
    for (uint32_t i = 0; i < count && rc == MCP_OK; i++) {
        s->loops[i].server = s;
        s->loops[i].drain.run = drain_loop;
        rc = net_loop_open(&s->loops[i].loop, err);
        s->loop_count += rc == MCP_OK;
    }
    if (rc < 0) {
        server_free(s);
        return rc;
    }
    net_loop_post(s->loops[0].loop, &s->start);
    *out = s;
    return MCP_OK;
}

const char *net_server_address(const struct net_server *server)
{
    return server->address;
}

void net_server_drain(struct net_server *server)
{
    if (atomic_exchange(&server->draining, true))
        return;
    net_loop_post(server->loops[0].loop, &server->stop);
    for (uint32_t i = 0; i < server->loop_count; i++)
        net_loop_post(server->loops[i].loop, &server->loops[i].drain);
}

void net_server_close(struct net_server *server)
{
    if (server == NULL)
        return;
    if (!atomic_exchange(&server->draining, true))
        net_loop_post(server->loops[0].loop, &server->stop);
    server_free(server);
}

void net_server_get_stats(const struct net_server *server, struct net_server_stats *stats)
{
    *stats = (struct net_server_stats){
        .connections = atomic_load(&server->conns),
        .connections_open = atomic_load(&server->conns_open),
        .streams = atomic_load(&server->streams),
        .streams_open = atomic_load(&server->streams_open),
        .refused = atomic_load(&server->refused),
        .bytes_in = atomic_load(&server->bytes_in),
        .bytes_out = atomic_load(&server->bytes_out),
        .handshakes_failed = atomic_load(&server->shakes_failed),
        .hostile = atomic_load(&server->hostile),
    };
}
