/* net/world_test.h - a server and a client loop on loopback, and logs of what they are told.
 *
 * Tests run on the main thread.  What must happen on a loop is posted there and waited for;
 * what loops are told is written down under one lock, and tests wait for it to become so.
 *
 * guard_keyring_*() are a double here: a ring is a serial number that was revoked.
 *
 * SPDX-License-Identifier: MIT */
#ifndef NET_WORLD_TEST_H
#define NET_WORLD_TEST_H

#include "net/net.h"

#include "base/clock.h"
#include "guard/token.h"
#include "net/certs_test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>

struct guard_keyring {
    long revoked;
};

struct guard_keyring *guard_keyring_ref(struct guard_keyring *ring)
{
    return ring;
}

void guard_keyring_unref(struct guard_keyring *ring)
{
    (void)ring;
}

bool guard_keyring_cert_revoked(const struct guard_keyring *ring, const uint8_t *serial,
                                size_t bytes)
{
    long number = 0;

    for (size_t i = 0; i < bytes; i++)
        number = number << 8 | serial[i];
    return number == ring->revoked;
}

/* ---- waiting ------------------------------------------------------------------------ */

static pthread_mutex_t world_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t  world_changed = PTHREAD_COND_INITIALIZER;

enum { WORLD_PATIENCE_S = 20 }; /* sanitizers and a busy machine */

static inline void world_pause(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 20000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&world_changed, &world_lock, &until);
}

/* Wait until the expression, which reads under the lock, is true.  It is looked at when
 * something was noted, and now and then. */
#define WORLD_AWAIT(expression)                                                            \
    do {                                                                                   \
        double world_until = base_clock_ms() + WORLD_PATIENCE_S * 1000.0;                  \
        bool   world_true = false;                                                         \
                                                                                           \
        while (!world_true) {                                                              \
            pthread_mutex_lock(&world_lock);                                               \
            world_true = (expression);                                                     \
            if (!world_true)                                                               \
                world_pause();                                                             \
            pthread_mutex_unlock(&world_lock);                                             \
            if (!world_true && base_clock_ms() > world_until)                              \
                fail_msg("%s:%d: waited in vain for %s", __FILE__, __LINE__, #expression); \
        }                                                                                  \
    } while (0)

#define WORLD_NOTE(statement)                   \
    do {                                        \
        pthread_mutex_lock(&world_lock);        \
        statement;                              \
        pthread_cond_broadcast(&world_changed); \
        pthread_mutex_unlock(&world_lock);      \
    } while (0)

struct world_errand {
    struct net_work work;
    void (*run)(void *ctx);
    void *ctx;
    bool  done;
};

static inline void world_run_errand(struct net_work *work)
{
    struct world_errand *e = (struct world_errand *)(void *)work;

    e->run(e->ctx);
    WORLD_NOTE(e->done = true);
}

/* Run it on the loop, and return when it has run. */
static inline void world_do(struct net_loop *loop, void (*run)(void *ctx), void *ctx)
{
    struct world_errand e = { .work.run = world_run_errand, .run = run, .ctx = ctx };

    net_loop_post(loop, &e.work);
    WORLD_AWAIT(e.done);
}

/* ---- the server's side -------------------------------------------------------------- */

/* What it was told, of all calls. */
struct world_served {
    uint32_t           calls, messages, halves, closed;
    struct wire_status last;
    struct net_peer    peer; /* of the last call */
    char               tenant[32];
    uint32_t           refused_sends;
    uint64_t           flooded; /* bytes of Flood */
};

struct world {
    char                 folder[300];
    struct net_identity *identity; /* the server's; changed under the lock */
    struct net_server   *server;
    struct net_loop     *loop; /* the client's */
    struct net_identity *own;  /* the client's identity */
    struct world_served  served;
};

static struct world world;

static inline void world_on_message(struct net_stream *stream, void *ctx, const uint8_t *bytes,
                                    size_t count)
{
    mcp_error err;

    WORLD_NOTE(world.served.messages++);
    if (strcmp(ctx, "Echo") != 0)
        return;
    if (net_stream_send(stream, bytes, count, NET_URGENT, &err) < 0)
        WORLD_NOTE(world.served.refused_sends++);
}

static inline void world_on_half(struct net_stream *stream, void *ctx)
{
    struct wire_status ok = { 0 };

    (void)ctx;
    WORLD_NOTE(world.served.halves++);
    net_stream_finish(stream, &ok);
}

/* Flood: 24 MB in messages of 1 MB, as fast as they are taken. */
static inline void world_on_writable(struct net_stream *stream, void *ctx)
{
    static const uint8_t part[1 << 20];
    struct wire_status   ok = { 0 };
    uint64_t             out, in;

    if (strcmp(ctx, "Flood") != 0)
        return;
    for (;;) {
        net_stream_bytes(stream, &out, &in);
        if (out >= 24 * sizeof(part)) {
            net_stream_finish(stream, &ok);
            return;
        }
        if (net_stream_send(stream, part, sizeof(part), NET_BULK, NULL) < 0)
            return;
        WORLD_NOTE(world.served.flooded += sizeof(part));
    }
}

static inline void world_on_closed(struct net_stream *stream, void *ctx,
                                   const struct wire_status *status)
{
    (void)stream;
    (void)ctx;
    WORLD_NOTE(world.served.closed++; world.served.last = *status);
}

static const struct net_stream_ops world_served_ops = { world_on_message, world_on_half,
                                                        world_on_writable, world_on_closed };

static inline const struct net_stream_ops *world_on_open(struct net_stream *stream,
                                                         const char *path, void *ctx,
                                                         void              **stream_ctx,
                                                         struct wire_status *status)
{
    static const char *const methods[] = { "Echo", "Sink", "Flood" };
    const char              *tenant = net_stream_metadata(stream, "x-tenant");

    (void)ctx;
    for (size_t i = 0; i < UNIT_COUNT(methods); i++)
        if (strncmp(path, "/t.T/", 5) == 0 && strcmp(path + 5, methods[i]) == 0)
            *stream_ctx = (void *)(uintptr_t)methods[i];
    if (strcmp(path, "/t.T/Busy") == 0) {
        status->code = WIRE_RESOURCE_EXHAUSTED;
        status->retry_after_ms = 70;
        strcpy(status->text, "too many");
    }
    if (*stream_ctx == NULL)
        return NULL;
    WORLD_NOTE(world.served.calls++; world.served.peer = *net_stream_peer(stream);
               snprintf(world.served.tenant, sizeof(world.served.tenant), "%s",
                        tenant != NULL ? tenant : ""));
    if (strcmp(*stream_ctx, "Flood") == 0)
        world_on_writable(stream, *stream_ctx);
    return &world_served_ops;
}

static inline struct net_identity *world_identity(void *ctx)
{
    struct net_identity *identity;

    (void)ctx;
    pthread_mutex_lock(&world_lock);
    identity = net_identity_ref(world.identity);
    pthread_mutex_unlock(&world_lock);
    return identity;
}

static inline void world_serve(uint32_t threads, uint32_t conns_max)
{
    static const struct net_server_ops ops = { world_on_open, world_identity };
    struct net_server_opts             opts = { .listen = "127.0.0.1:0",
                                                .threads = threads,
                                                .conns_max = conns_max };
    mcp_error                          err;

    memset(&world.served, 0, sizeof(world.served));
    unit_ok(net_server_open(&world.server, &opts, &ops, NULL, &err), &err);
}

static inline void world_stop(void)
{
    net_server_close(world.server);
    world.server = NULL;
}

/* ---- the client's side -------------------------------------------------------------- */

struct world_conn {
    struct net_conn     *conn;
    struct net_identity *identity;
    char                 endpoint[128];
    double               timeout_ms;
    bool                 up, down, by_identity;
    struct net_peer      peer;
    struct wire_status   why;
    int                  rc;
    mcp_error            err;
};

static inline void world_on_up(struct net_conn *conn, void *ctx, const struct net_peer *peer)
{
    struct world_conn *w = ctx;

    (void)conn;
    WORLD_NOTE(w->up = true; w->peer = *peer);
}

static inline void world_on_down(struct net_conn *conn, void *ctx, const struct wire_status *why,
                                 bool identity)
{
    struct world_conn *w = ctx;

    (void)conn;
    WORLD_NOTE(w->down = true; w->why = *why; w->by_identity = identity; w->conn = NULL);
}

static inline void world_dial_here(void *ctx)
{
    static const struct net_conn_ops ops = { world_on_up, world_on_down };
    struct world_conn               *w = ctx;

    w->rc = net_conn_dial(&w->conn, world.loop, w->endpoint, w->identity, w->timeout_ms, &ops, w,
                          &w->err);
}

static inline void world_dial(struct world_conn *w, const char *endpoint,
                              struct net_identity *identity)
{
    memset(w, 0, sizeof(*w));
    snprintf(w->endpoint, sizeof(w->endpoint), "%s", endpoint);
    w->identity = identity;
    w->timeout_ms = 10000;
    world_do(world.loop, world_dial_here, w);
    unit_ok(w->rc, &w->err);
}

static inline void world_hang_up_here(void *ctx)
{
    struct world_conn *w = ctx;

    if (w->conn != NULL)
        net_conn_close(w->conn);
}

static inline void world_hang_up(struct world_conn *w)
{
    world_do(world.loop, world_hang_up_here, w);
    WORLD_AWAIT(w->down);
}

struct world_call {
    struct world_conn *over;
    const char        *path;
    double             deadline_ms;
    struct net_stream *stream;
    uint32_t           messages, writable;
    uint64_t           bytes;
    uint32_t           sum;
    int                closed;
    double             closed_ms;
    struct wire_status status;
    int                rc;
    mcp_error          err;
    const void        *say; /* what to send at once, and how often */
    size_t             count, times;
    bool               end, pause;
};

static inline uint32_t world_sum(uint32_t sum, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i += 97)
        sum = (sum ^ bytes[i]) * 16777619u;
    return sum * 16777619u ^ (uint32_t)count;
}

static inline void world_got_message(struct net_stream *stream, void *ctx, const uint8_t *bytes,
                                     size_t count)
{
    struct world_call *c = ctx;

    (void)stream;
    WORLD_NOTE(c->messages++; c->bytes += count; c->sum = world_sum(c->sum, bytes, count));
}

static inline void world_got_writable(struct net_stream *stream, void *ctx)
{
    struct world_call *c = ctx;

    (void)stream;
    WORLD_NOTE(c->writable++);
}

static inline void world_got_closed(struct net_stream *stream, void *ctx,
                                    const struct wire_status *status)
{
    struct world_call *c = ctx;

    (void)stream;
    WORLD_NOTE(c->closed++; c->status = *status; c->closed_ms = base_clock_ms(); c->stream = NULL);
}

static inline void world_call_here(void *ctx)
{
    static const struct net_stream_ops ops = { world_got_message, NULL, world_got_writable,
                                               world_got_closed };
    static const char *const           metadata[] = { "x-tenant", "blue", NULL };
    struct world_call                 *c = ctx;

    c->rc = MCP_EUNAVAIL;
    if (c->over->conn == NULL)
        return;
    c->rc = net_call_open(&c->stream, c->over->conn, c->path, c->deadline_ms, metadata, &ops, c,
                          &c->err);
    if (c->rc < 0)
        return;
    for (size_t i = 0; i < c->times && c->rc == MCP_OK; i++)
        c->rc = net_stream_send(c->stream, c->say, c->count, NET_URGENT, &c->err);
    if (c->end)
        net_stream_end(c->stream);
    if (c->pause)
        net_stream_pause(c->stream, true);
}

static inline void world_call(struct world_call *c)
{
    world_do(world.loop, world_call_here, c);
    unit_ok(c->rc, &c->err);
}

static inline void world_cancel_here(void *ctx)
{
    struct world_call *c = ctx;

    if (c->stream != NULL)
        net_stream_cancel(c->stream);
}

static inline void world_resume_here(void *ctx)
{
    struct world_call *c = ctx;

    if (c->stream != NULL)
        net_stream_pause(c->stream, false);
}

static inline void world_end_here(void *ctx)
{
    struct world_call *c = ctx;

    if (c->stream != NULL)
        net_stream_end(c->stream);
}

/* A TCP connection to the server, without anything on it. */
static inline int world_dial_raw(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int                fd = socket(AF_INET, SOCK_STREAM, 0);

    at.sin_port = htons((uint16_t)atoi(strchr(net_server_address(world.server), ':') + 1));
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    return fd;
}

/* ---- beginning and end -------------------------------------------------------------- */

static struct certs_authority world_authority;

static inline struct net_identity *world_load(const char *folder, const char *role,
                                              struct guard_keyring *ring)
{
    struct net_identity *identity;
    mcp_error            err;

    unit_ok(net_identity_load(&identity, folder, role, ring, &err), &err);
    return identity;
}

/* One folder with a worker's and a client's certificate of one authority. */
static inline int world_begin(void **state)
{
    struct certs_spec worker = { .name = "w1" }, client = { .name = "alice", .serial = 0x1234 };
    mcp_error         err;

    (void)state;
    snprintf(world.folder, sizeof(world.folder), "%s", unit_path("keys"));
    certs_authority_new(&world_authority, "authority");
    certs_issue(&world_authority, world.folder, "worker", &worker);
    certs_issue(&world_authority, world.folder, "client", &client);
    world.identity = world_load(world.folder, "worker", NULL);
    world.own = world_load(world.folder, "client", NULL);
    return net_loop_open(&world.loop, &err);
}

static inline int world_end(void **state)
{
    (void)state;
    net_loop_close(world.loop);
    net_identity_unref(world.identity);
    net_identity_unref(world.own);
    certs_authority_free(&world_authority);
    certs_remove(world.folder);
    return 0;
}

#endif
