/* sim/net_common.c - connections: messages arrive late, in order, or never.
 *
 * As TCP does it: a hole in the network delays, a reset loses what is under way and is told to
 * both ends, each in its own time.
 *
 * SPDX-License-Identifier: MIT */
#include "sim/world_common.h"

static const double RETRANSMIT_MS = 200.0; /* after a hole, at most */

enum { HEADER_BYTES = 60 }; /* of a message, in all layers */

static void path_unref(struct sim_path *path)
{
    if (path == NULL || --path->references > 0)
        return;
    wire_pace_fini(&path->pace[SIM_UP]);
    wire_pace_fini(&path->pace[SIM_DOWN]);
    free(path);
}

void sim_conn_up(struct sim_conn *c)
{
    struct sim_path *path = calloc(1, sizeof(*path));

    assert_non_null(path);
    assert_int_equal(wire_pace_init(&path->pace[SIM_UP]), 0);
    assert_int_equal(wire_pace_init(&path->pace[SIM_DOWN]), 0);
    path->references = 1;
    path_unref(c->path);
    c->path = path;
}

void sim_conn_fini(struct sim_conn *c)
{
    path_unref(c->path);
}

struct sim_stream *sim_stream_new(struct sim_conn *c)
{
    struct sim_stream *s = calloc(1, sizeof(*s));

    assert_non_null(s);
    SIM_REQUIRE(&c->world->clock, c->stream_count < SIM_STREAMS_MAX, "%u streams\n",
                c->stream_count);
    s->conn = c;
    s->path = c->path;
    s->path->references++;
    s->cut = s->path->cut;
    c->streams[c->stream_count++] = s;
    return s;
}

bool sim_conn_passes(const struct sim_conn *c)
{
    return c->world->clock.now_ms >= c->hole_until_ms;
}

static void arrive(struct sim_event *e)
{
    struct sim_stream *s = e->ctx;
    struct sim_agent  *a = s->conn->agent;
    enum sim_way       way = (enum sim_way)(e->number >> 1);
    enum sim_message   kind = (enum sim_message)(e->number & 1);

    if (way == SIM_UP && !s->cut && sim_worker_puts_off(s->conn->worker, e))
        return;
    if (!s->cut && way == SIM_UP)
        sim_worker_receive(s, e->bytes, e->count);
    else if (!s->cut && kind == SIM_DATA)
        sim_agent_receive(s, e->bytes, e->count);
    else if (!s->cut)
        sim_agent_ended(s, (const struct wire_status *)(const void *)e->bytes);
    free(e->bytes);
    s->under_way--;
    sim_agent_run(a);
}

void sim_send(struct sim_stream *s, enum sim_way way, enum sim_message kind, const void *bytes,
              size_t count)
{
    struct sim_conn  *c = s->conn;
    struct sim_clock *clock = &c->world->clock;
    double            at_ms = clock->now_ms;
    uint8_t          *copy;

    if (s->cut)
        return;
    if (at_ms < c->hole_until_ms)
        at_ms = c->hole_until_ms + sim_between(clock, 0.0, RETRANSMIT_MS);
    if (at_ms < c->free_ms[way])
        at_ms = c->free_ms[way];
    c->free_ms[way] = at_ms + (double)(count + HEADER_BYTES) / c->bytes_per_ms;
    at_ms = c->free_ms[way] + c->rtt_ms / 2.0;
    if (clock->now_ms < c->spike_until_ms)
        at_ms += c->spike_ms;
    if (at_ms < c->last_ms[way])
        at_ms = c->last_ms[way];
    c->last_ms[way] = at_ms;
    copy = malloc(count);
    assert_non_null(copy);
    memcpy(copy, bytes, count);
    s->under_way++;
    sim_post(clock, at_ms,
             (struct sim_event){ .fire = arrive,
                                 .ctx = s,
                                 .number = (uint64_t)way << 1 | (uint64_t)kind,
                                 .bytes = copy,
                                 .count = count });
}

void sim_conn_sweep(struct sim_conn *c)
{
    for (uint32_t i = c->stream_count; i > 0; i--) {
        struct sim_stream *s = c->streams[i - 1];

        if (s->agent_holds || s->worker_holds || s->under_way > 0)
            continue;
        c->streams[i - 1] = c->streams[--c->stream_count];
        path_unref(s->path);
        free(s);
    }
}

/* ---- resets --------------------------------------------------------------------------------- */

static void agent_learns(struct sim_event *e)
{
    struct sim_conn *c = e->ctx;

    if (e->number == c->dials) { /* else it has dialled anew since */
        sim_agent_conn_lost(c);
        sim_agent_run(c->agent);
    }
}

static void worker_learns(struct sim_event *e)
{
    struct sim_stream *s = e->ctx;

    if (sim_worker_puts_off(s->conn->worker, e))
        return;
    s->under_way--;
    if (s->worker_holds)
        sim_worker_lost(s);
    sim_conn_sweep(s->conn);
}

/* The connection is over.  Who knows at once knows; the other one hears of it when the network
 * lets it. */
void sim_conn_reset(struct sim_conn *c, bool agent_knows, bool worker_knows)
{
    struct sim_clock *clock = &c->world->clock;
    double            at_ms = clock->now_ms > c->hole_until_ms ? clock->now_ms : c->hole_until_ms;

    at_ms += c->rtt_ms / 2.0;
    if (c->path != NULL)
        c->path->cut = true;
    for (uint32_t i = 0; i < c->stream_count; i++) {
        struct sim_stream *s = c->streams[i];

        if (s->cut)
            continue;
        s->cut = true;
        s->under_way++;
        sim_post(clock, worker_knows ? clock->now_ms : at_ms,
                 (struct sim_event){ .fire = worker_learns, .ctx = s });
    }
    if (agent_knows)
        sim_agent_conn_lost(c);
    else
        sim_post(clock, at_ms,
                 (struct sim_event){ .fire = agent_learns, .ctx = c, .number = c->dials });
}
