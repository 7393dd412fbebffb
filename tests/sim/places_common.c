/* sim/places_common.c - where an agent finds its endpoints: connections kept warm, places chosen,
 * sessions opened and resumed.
 *
 * SPDX-License-Identifier: MIT */
#include "sim/world_common.h"

static double now(const struct sim_agent *a)
{
    return a->world->clock.now_ms;
}

/* ---- connections ---------------------------------------------------------------------------- */

/* What Describe tells. */
static void describe(struct pipe_place *p, const struct sim_conn *c)
{
    struct worker_table_stats stats;

    worker_table_get_stats(c->worker->table, &stats);
    p->first = c->worker->first;
    p->last = c->worker->last;
    p->rtt_ms = c->rtt_ms;
    p->sessions_free = stats.sessions_free;
    if (c->worker->draining)
        p->state = PLACE_DRAINING;
}

static void dialled(struct sim_event *e)
{
    struct sim_conn   *c = e->ctx;
    struct sim_agent  *a = c->agent;
    struct pipe_place *p = &a->places[c->worker->index];
    bool               silent = !sim_conn_passes(c) || now(a) < c->worker->stopped_until_ms;

    if (e->number != c->dials || a->over)
        return;
    if (c->worker->alive && silent && now(a) < c->dial_ms + SIM_DIAL_MS_MAX) {
        sim_post(&a->world->clock, now(a) + c->rtt_ms, *e);
        return;
    }
    if (c->worker->alive && !silent) {
        sim_conn_up(c);
        pipe_place_up(p, now(a));
        describe(p, c);
    } else {
        pipe_place_failed(p, now(a), (uint32_t)unit_next(&a->world->clock.random));
    }
    sim_agent_look(a);
    sim_agent_run(a);
}

static void dial(struct sim_conn *c)
{
    struct sim_agent *a = c->agent;

    a->places[c->worker->index].state = PLACE_DIALING;
    c->dial_ms = now(a);
    sim_post(&a->world->clock, now(a) + 2.0 * c->rtt_ms,
             (struct sim_event){ .fire = dialled, .ctx = c, .number = ++c->dials });
}

/* Connections are kept warm: a lost one is dialled again. */
static void dial_what_is_down(struct sim_agent *a)
{
    for (uint32_t i = 0; i < a->world->opts.workers; i++)
        if (a->places[i].state == PLACE_DOWN && now(a) >= a->places[i].retry_ms)
            dial(&a->conns[i]);
}

void sim_agent_conn_lost(struct sim_conn *c)
{
    struct sim_agent *a = c->agent;

    for (uint32_t i = 0; i < c->stream_count; i++)
        if (c->streams[i]->cut && c->streams[i]->agent_holds)
            sim_stream_over(c->streams[i], "the connection is lost");
    if (a->over)
        return;
    pipe_place_failed(&a->places[c->worker->index], now(a),
                      (uint32_t)unit_next(&a->world->clock.random));
    if (a->places[c->worker->index].failures == 1)
        a->places[c->worker->index].retry_ms = now(a); /* the first time at once */
    sim_agent_look(a);
}

/* ---- opening ------------------------------------------------------------------------------ */

static struct sim_session_note *note_of(struct sim_agent *a, uint32_t endpoint)
{
    struct sim_session_note *note = &a->sessions[endpoint % UNIT_COUNT(a->sessions)];

    return endpoint != PIPE_NO_ENDPOINT && note->endpoint == endpoint ? note : NULL;
}

/* The session of the lost endpoint is resumed if it was at this worker, and is not still in use
 * there. */
static void choose_session(struct sim_agent *a, struct sim_stream *s, uint32_t lost)
{
    const struct sim_session_note *note = note_of(a, lost);

    s->resume = note != NULL && note->worker == s->conn->worker->index &&
                sim_stream_of(a, lost) == NULL;
    if (s->resume)
        memcpy(s->session_id, note->id, WIRE_SESSION_BYTES);
    else
        for (uint32_t i = 0; i < WIRE_SESSION_BYTES; i++)
            s->session_id[i] = (uint8_t)sim_below(&a->world->clock, 256);
}

static void open_remote(struct sim_agent *a, uint32_t stage, uint32_t worker)
{
    struct sim_wanted       *want = &a->wanted[stage];
    struct sim_stream       *s = sim_stream_new(&a->conns[worker]);
    struct sim_session_note *note;

    s->stage = stage;
    s->endpoint = ++a->endpoints;
    choose_session(a, s, want->lost);
    note = &a->sessions[s->endpoint % UNIT_COUNT(a->sessions)];
    note->endpoint = s->endpoint;
    note->worker = worker;
    memcpy(note->id, s->session_id, WIRE_SESSION_BYTES);
    a->opens++;
    a->resumes += s->resume;
    want->opening = s;
    sim_stream_open(s);
    /* What a new session will say is known from Describe. */
    if (a->optimistic && !s->resume && s->agent_holds)
        sim_stream_opened(
            s, &(struct pipe_opened){ .windows_max = a->conns[worker].worker->limits.windows_max,
                                      .even_windows = a->world->model.even_windows });
}

static void look_stage(struct sim_agent *a, uint32_t stage)
{
    struct sim_wanted             *want = &a->wanted[stage];
    uint32_t                       count = a->world->opts.workers;
    const struct sim_session_note *note = note_of(a, want->lost);
    int                            lost = note != NULL ? (int)note->worker : -1, place;
    uint64_t                       excluded = 0;

    if (!a->stages[stage].journal) {
        sim_local_open(a, stage);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        if (now(a) < a->refused_until_ms[i])
            excluded |= UINT64_C(1) << i;
    place = pipe_places_choose(a->places, count + 1, a->stages[stage].first, a->stages[stage].last,
                               lost, excluded, now(a));
    if (place == (int)count) {
        sim_local_open(a, stage);
    } else if (place >= 0 && a->places[place].state == PLACE_UP) {
        open_remote(a, stage, (uint32_t)place);
    } else if (place < 0 && now(a) - want->since_ms > a->patience_ms) {
        want->asked = false;
        pipeline_unavailable(a->pipeline, now(a), stage,
                             &(mcp_error){ MCP_EUNAVAIL, "no worker is left" });
    }
}

/* Find places for the stages that want one. */
void sim_agent_look(struct sim_agent *a)
{
    if (a->over)
        return;
    dial_what_is_down(a);
    for (uint32_t i = 0; i < a->stage_count; i++)
        if (a->wanted[i].asked && a->wanted[i].opening == NULL)
            look_stage(a, i);
}
