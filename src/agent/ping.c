/* agent/ping.c - measure the path to a worker with Probe messages.
 *
 * Three parts one after another on one stream: small messages in turns (round trips), bulk up,
 * bulk down.  The loop's thread does it; the caller sleeps, or there is none: then only the link's
 * meter learns of it.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/remote.h"
#include "base/clock.h"
#include "base/fail.h"

#include <stdlib.h>
#include <string.h>

enum {
    ROUNDS = 10,
    ROUNDS_MAX = 1000,
    SMALL_BYTES = 64,
    BULK_BYTES = 1 << 20,
    BULK_MAX = 1 << 30,
    PART_BYTES = 64 * 1024, /* of bulk in one message */
    PARTS_AHEAD = 64,       /* messages not yet answered: 4 MiB, above 2 BDP of most paths */
    TIMEOUT_MS = 30000,
    PROBE_ROUNDS = 3, /* of a probe that nobody waits for */
};

enum part { SMALL, UP, DOWN, DONE };

struct ping {
    struct net_work    work;
    struct mcp_remote *remote;
    struct agent_link *link;
    mcp_ping_opts      opts;
    struct net_stream *stream;
    enum part          part;
    uint64_t           parts[PLAN_DIRECTIONS]; /* of the bulk */
    uint64_t           sent, answered;
    double             sent_ms, began_ms;
    double            *rtt_ms;  /* (rounds) */
    uint8_t           *data;    /* (PART_BYTES) zeros */
    uint8_t           *message; /* room for one encoded */
    size_t             message_bytes;
    mcp_ping_result    result;

    void (*over_fn)(struct ping *p); /* the last thing; rc and err are set */
    int       rc;
    mcp_error err;

    pthread_mutex_t lock; /* guards the one below */
    pthread_cond_t  over;
    bool            finished;
};

static void finish(struct ping *p, int rc, const mcp_error *err)
{
    p->rc = rc;
    if (rc < 0)
        p->err = *err;
    p->over_fn(p);
}

static int send_one(struct ping *p, size_t bytes, uint32_t reply_bytes, mcp_error *err)
{
    struct wire_probe probe = {
        .stamp = p->sent, .data = p->data, .bytes = bytes, .reply_bytes = reply_bytes
    };
    size_t count = wire_probe_encode(&probe, WIRE_REQUEST, p->message, p->message_bytes);

    p->sent++;
    return net_stream_send(p->stream, p->message, count, p->part == SMALL ? NET_URGENT : NET_BULK,
                           err);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void sum_up_small(struct ping *p)
{
    qsort(p->rtt_ms, p->opts.rounds, sizeof(*p->rtt_ms), compare);
    p->result.rtt_ms_min = p->rtt_ms[0];
    p->result.rtt_ms_p50 = p->rtt_ms[p->opts.rounds / 2];
    p->result.rtt_ms_max = p->rtt_ms[p->opts.rounds - 1];
    p->result.tcp_rtt_ms = net_conn_tcp_rtt_ms(net_stream_conn(p->stream));
    p->result.added_ms = p->result.rtt_ms_p50 - p->result.tcp_rtt_ms;
    link_rtt(p->link, p->result.rtt_ms_min);
}

/* The bulk's rate: less one round trip, which the first message would need alone. */
static double bulk_mbit(const struct ping *p, enum plan_direction direction, double now)
{
    double   ms = now - p->began_ms - p->result.rtt_ms_min;
    uint64_t bytes = p->parts[direction] * PART_BYTES;

    if (bytes == 0 || ms <= 0.0)
        return 0.0;
    meter_probed_bulk(&p->link->meter, direction, bytes, ms, now);
    return (double)bytes * 8e-3 / ms;
}

/* Send what this part may have on its way; go to the next when it is through. */
static int step(struct ping *p, mcp_error *err)
{
    double   now = base_clock_ms();
    uint64_t parts;
    int      rc = MCP_OK;

    if (p->part == SMALL && p->answered == p->opts.rounds) {
        sum_up_small(p);
        p->part = UP;
        p->sent = p->answered = 0;
        p->began_ms = now;
    }
    if (p->part == UP && p->answered == p->parts[PLAN_UP]) {
        p->result.up_mbit = bulk_mbit(p, PLAN_UP, now);
        p->part = DOWN;
        p->sent = p->answered = 0;
        p->began_ms = now;
    }
    if (p->part == DOWN && p->answered == p->parts[PLAN_DOWN]) {
        p->result.down_mbit = bulk_mbit(p, PLAN_DOWN, now);
        p->part = DONE;
    }
    parts = p->parts[p->part == UP ? PLAN_UP : PLAN_DOWN];
    switch (p->part) {
    case SMALL:
        if (p->sent == p->answered) {
            p->sent_ms = now;
            rc = send_one(p, p->opts.small_bytes, p->opts.small_bytes, err);
        }
        break;
    case UP:
    case DOWN:
        while (rc == MCP_OK && p->sent < parts && p->sent - p->answered < PARTS_AHEAD &&
               net_stream_room(p->stream) > 2 * (size_t)PART_BYTES)
            rc = p->part == UP ? send_one(p, PART_BYTES, 0, err) : send_one(p, 0, PART_BYTES, err);
        break;
    case DONE: net_stream_end(p->stream); break;
    }
    return rc;
}

static void on_message(struct net_stream *stream, void *ctx, const uint8_t *bytes, size_t count)
{
    struct ping      *p = ctx;
    struct wire_probe probe;
    mcp_error         err = { 0 };

    if (wire_probe_decode(&probe, WIRE_REPLY, bytes, count, &err) < 0 ||
        probe.stamp != p->answered) {
        net_stream_cancel(stream);
        return;
    }
    if (p->part == SMALL) {
        double now = base_clock_ms();

        p->rtt_ms[p->answered] = now - p->sent_ms;
        meter_probed_rtt(&p->link->meter, now - p->sent_ms, now);
    }
    p->answered++;
    if (step(p, &err) < 0)
        net_stream_cancel(stream);
}

static void on_writable(struct net_stream *stream, void *ctx)
{
    mcp_error err;

    if (step(ctx, &err) < 0)
        net_stream_cancel(stream);
}

static void on_closed(struct net_stream *stream, void *ctx, const struct wire_status *status)
{
    struct ping *p = ctx;
    mcp_error    err = { 0 };
    int          rc = MCP_OK;

    (void)stream;
    if (p->part != DONE) {
        rc = wire_status_fail(status, &err);
        if (rc == MCP_OK)
            rc = base_fail(&err, MCP_EUNAVAIL, "worker %s ended the measurement",
                           p->link->endpoint);
    }
    finish(p, rc, &err);
}

static const struct net_stream_ops ops = { .message = on_message,
                                           .writable = on_writable,
                                           .closed = on_closed };

static void start(struct net_work *work)
{
    struct ping *p = (struct ping *)(void *)work;
    const char  *metadata[4];
    mcp_error    err = { 0 };
    int          rc;

    remote_metadata(p->remote, metadata);
    if (p->link->conn == NULL)
        rc = base_fail(&err, MCP_EUNAVAIL, "worker %s is not connected", p->link->endpoint);
    else
        rc = net_call_open(&p->stream, p->link->conn, WIRE_PATH_PROBE, TIMEOUT_MS, metadata, &ops,
                           p, &err);
    if (rc < 0) {
        finish(p, rc, &err);
        return;
    }
    if (step(p, &err) < 0)
        net_stream_cancel(p->stream);
}

static uint64_t parts_of(uint64_t bytes)
{
    return (bytes + PART_BYTES - 1) / PART_BYTES;
}

static bool take_memory(struct ping *p)
{
    p->message_bytes = PART_BYTES + WIRE_FRAME_OVERHEAD;
    p->rtt_ms = calloc(p->opts.rounds, sizeof(*p->rtt_ms));
    p->data = calloc(1, PART_BYTES);
    p->message = malloc(p->message_bytes);
    return p->rtt_ms != NULL && p->data != NULL && p->message != NULL;
}

static void give_memory(struct ping *p)
{
    free(p->rtt_ms);
    free(p->data);
    free(p->message);
}

static int check_opts(struct ping *p, const mcp_ping_opts *opts, mcp_error *err)
{
    if (opts != NULL)
        p->opts = *opts;
    if (p->opts.rounds == 0)
        p->opts.rounds = ROUNDS;
    if (p->opts.small_bytes == 0)
        p->opts.small_bytes = SMALL_BYTES;
    if (p->opts.bulk_bytes == 0)
        p->opts.bulk_bytes = BULK_BYTES;
    if (p->opts.bulk_bytes == UINT64_MAX)
        p->opts.bulk_bytes = 0;
    if (p->opts.rounds > ROUNDS_MAX || p->opts.small_bytes > PART_BYTES ||
        p->opts.bulk_bytes > BULK_MAX)
        return base_fail(err, MCP_ERANGE,
                         "a ping of %u rounds of %u bytes and %llu bytes of bulk: at most %d, %d "
                         "and %d",
                         p->opts.rounds, p->opts.small_bytes,
                         (unsigned long long)p->opts.bulk_bytes, ROUNDS_MAX, PART_BYTES, BULK_MAX);
    p->parts[PLAN_UP] = p->parts[PLAN_DOWN] = parts_of(p->opts.bulk_bytes);
    return MCP_OK;
}

/* ---- somebody waits ------------------------------------------------------------------------- */

static void wake(struct ping *p)
{
    pthread_mutex_lock(&p->lock);
    p->finished = true;
    pthread_cond_signal(&p->over);
    pthread_mutex_unlock(&p->lock);
}

int remote_ping(struct mcp_remote *r, uint32_t index, const mcp_ping_opts *opts,
                mcp_ping_result *result, mcp_error *err)
{
    struct ping p = { .work = { .run = start }, .remote = r, .over_fn = wake };
    int         rc;

    if (index >= r->link_count)
        return base_fail(err, MCP_ERANGE, "worker %u: the remote has %u", index, r->link_count);
    p.link = &r->links[index];
    rc = check_opts(&p, opts, err);
    if (rc < 0)
        return rc;
    pthread_mutex_init(&p.lock, NULL);
    pthread_cond_init(&p.over, NULL);
    if (!take_memory(&p)) {
        rc = base_fail(err, MCP_ENOMEM, "a ping of %u rounds", p.opts.rounds);
    } else {
        net_loop_post(r->loop, &p.work);
        pthread_mutex_lock(&p.lock);
        while (!p.finished) /* the stream's deadline ends it */
            pthread_cond_wait(&p.over, &p.lock);
        rc = p.rc;
        if (rc < 0)
            base_fail(err, rc, "%s", p.err.text);
        pthread_mutex_unlock(&p.lock);
    }
    if (rc == MCP_OK)
        *result = p.result;
    give_memory(&p);
    pthread_cond_destroy(&p.over);
    pthread_mutex_destroy(&p.lock);
    return rc;
}

/* ---- nobody waits ----------------------------------------------------------------------------- */

static void probe_over(struct ping *p)
{
    p->link->probing = false;
    give_memory(p);
    free(p);
}

/* Without memory there is no probe, and nothing else is lost. */
void link_probe(struct agent_link *link, const uint64_t bytes[PLAN_DIRECTIONS])
{
    struct ping *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return;
    p->remote = link->remote;
    p->link = link;
    p->opts = (mcp_ping_opts){ .rounds = PROBE_ROUNDS, .small_bytes = SMALL_BYTES };
    p->parts[PLAN_UP] = parts_of(bytes[PLAN_UP]);
    p->parts[PLAN_DOWN] = parts_of(bytes[PLAN_DOWN]);
    p->over_fn = probe_over;
    link->probing = true;
    if (take_memory(p))
        start(&p->work);
    else
        probe_over(p);
}
