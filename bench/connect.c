/* bench/connect.c - a connection's first messages: when they leave, when they are answered.
 *
 *     connect --keys DIR --connect HOST:PORT [--bytes N] [--rounds N]
 *
 * Each round dials a worker anew and sends so many bytes in Probes with the dial, which travel
 * with the handshake's last flight; when they are answered, the same once more.  One JSON object
 * a round, all times in ms:
 *
 *     up      from the dial to an identity that is proven: the first frame leaves now
 *     first   from the dial to the answer
 *     warm    from the second sending to its answer
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include "base/clock.h"
#include "net/net.h"
#include "wire/describe.h"

#include <pthread.h>
#include <stdbool.h>

enum {
    PART_BYTES = 1000000, /* of one Probe, which holds 1 MiB at most */
    PARTS_MAX = 4,        /* NET_QUEUE_BYTES holds them at once */
    PROBE_ROOM = 64,      /* of an encoded probe beside its data */
    TIMEOUT_MS = 60000,   /* of a call: 4 MB at a megabit */
    CONNECT_MS = 10000,
};

struct visit {
    struct net_work      dial;
    struct net_loop     *loop;
    struct net_identity *identity;
    const char          *endpoint;
    struct net_conn     *conn;
    uint8_t             *message; /* an encoded Probe */
    size_t               message_bytes;
    uint32_t             parts; /* Probes of one sending */
    uint32_t             answers;
    double               dial_ms, up_ms, sent_ms, answer_ms[2];

    pthread_mutex_t lock; /* guards `over` */
    pthread_cond_t  ended;
    bool            over;
};

static void send_all(struct visit *v, struct net_stream *stream)
{
    mcp_error err;

    v->sent_ms = base_clock_ms();
    for (uint32_t i = 0; i < v->parts; i++)
        if (net_stream_send(stream, v->message, v->message_bytes, NET_URGENT, &err) < 0)
            bench_die("%s", err.text);
}

static void on_message(struct net_stream *stream, void *ctx, const uint8_t *bytes, size_t count)
{
    struct visit *v = ctx;

    (void)bytes;
    (void)count;
    if (++v->answers % v->parts != 0)
        return;
    v->answer_ms[v->answers / v->parts - 1] = base_clock_ms();
    if (v->answers == v->parts)
        send_all(v, stream);
    else
        net_stream_end(stream);
}

static void on_closed(struct net_stream *stream, void *ctx, const struct wire_status *status)
{
    struct visit *v = ctx;

    (void)stream;
    if (status->code != WIRE_OK || v->answers != 2 * v->parts)
        bench_die("the call ended with %s: %s", wire_status_name(status->code), status->text);
    net_conn_close(v->conn);
}

static void on_up(struct net_conn *conn, void *ctx, const struct net_peer *peer)
{
    struct visit *v = ctx;

    (void)conn;
    (void)peer;
    v->up_ms = base_clock_ms();
}

static void on_down(struct net_conn *conn, void *ctx, const struct wire_status *why, bool identity)
{
    struct visit *v = ctx;

    (void)conn;
    (void)identity;
    if (v->answers != 2 * v->parts)
        bench_die("%s", why->text);
    pthread_mutex_lock(&v->lock);
    v->over = true;
    pthread_cond_signal(&v->ended);
    pthread_mutex_unlock(&v->lock);
}

static void dial(struct net_work *work)
{
    static const struct net_stream_ops call_ops = { .message = on_message, .closed = on_closed };
    static const struct net_conn_ops   conn_ops = { .up = on_up, .down = on_down };
    struct visit      *v = (struct visit *)(void *)((char *)work - offsetof(struct visit, dial));
    struct net_stream *stream;
    mcp_error          err;

    v->dial_ms = base_clock_ms();
    if (net_conn_dial(&v->conn, v->loop, v->endpoint, v->identity, CONNECT_MS, &conn_ops, v, &err) <
            0 ||
        net_call_open(&stream, v->conn, WIRE_PATH_PROBE, TIMEOUT_MS, NULL, &call_ops, v, &err) < 0)
        bench_die("%s", err.text);
    send_all(v, stream);
}

static void visit(struct visit *v, uint32_t bytes)
{
    v->answers = 0;
    v->over = false;
    v->dial.run = dial;
    net_loop_post(v->loop, &v->dial);
    pthread_mutex_lock(&v->lock);
    while (!v->over) /* every call has a deadline */
        pthread_cond_wait(&v->ended, &v->lock);
    pthread_mutex_unlock(&v->lock);
    printf("{\"bytes\": %u, \"up_ms\": %.2f, \"first_ms\": %.2f, \"warm_ms\": %.2f}\n", bytes,
           v->up_ms - v->dial_ms, v->answer_ms[0] - v->dial_ms, v->answer_ms[1] - v->sent_ms);
    fflush(stdout);
}

/* Probes whose answers are empty. */
static void make_message(struct visit *v, uint32_t bytes)
{
    struct wire_probe probe = { 0 };
    uint8_t          *data;

    v->parts = bytes > PART_BYTES ? (bytes + PART_BYTES - 1) / PART_BYTES : 1;
    probe.bytes = bytes / v->parts;
    probe.data = data = bench_alloc(probe.bytes, 1);
    v->message = bench_alloc(probe.bytes + PROBE_ROOM, 1);
    v->message_bytes = wire_probe_encode(&probe, WIRE_REQUEST, v->message,
                                         probe.bytes + PROBE_ROOM);
    free(data);
}

int main(int argc, char **argv)
{
    struct visit v = { .lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER };
    const char  *keys = NULL;
    uint32_t     bytes = 64, rounds = 3;
    mcp_error    err;

    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[++i] : NULL;

        if (value == NULL)
            bench_die("%s needs a value; the head of bench/connect.c lists the options", name);
        if (strcmp(name, "--keys") == 0)
            keys = value;
        else if (strcmp(name, "--connect") == 0)
            v.endpoint = value;
        else if (strcmp(name, "--bytes") == 0)
            bytes = bench_number(name, value, 0, PART_BYTES * PARTS_MAX);
        else if (strcmp(name, "--rounds") == 0)
            rounds = bench_number(name, value, 1, 1000);
        else
            bench_die("unknown option %s; the head of bench/connect.c lists them", name);
    }
    if (keys == NULL || v.endpoint == NULL)
        bench_die("--keys DIR and --connect HOST:PORT are needed");
    if (net_identity_load(&v.identity, keys, "client", NULL, &err) < 0 ||
        net_loop_open(&v.loop, &err) < 0)
        bench_die("%s", err.text);
    make_message(&v, bytes);
    for (uint32_t i = 0; i < rounds; i++)
        visit(&v, bytes);
    net_loop_close(v.loop);
    net_identity_unref(v.identity);
    free(v.message);
    return 0;
}
