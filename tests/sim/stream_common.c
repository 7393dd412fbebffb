/* sim/stream_common.c - an agent's end of its streams: frames out and in, and whether the other
 * end lives.
 *
 * SPDX-License-Identifier: MIT */
#include "sim/world_common.h"

enum {
    RETRY_MS = 100, /* when a refusal does not say */
    PATIENCE_MS = 60000,
    PAYLOAD_MAX = SIM_WINDOW_MAX * SIM_ROW_BYTES_MAX,
    /* What a stage was sent, and what was trimmed before it had left. */
    QUEUED_MAX = 2 * PIPE_WINDOWS_MAX * PAYLOAD_MAX,
};

static double now(const struct sim_agent *a)
{
    return a->world->clock.now_ms;
}

static void pump(struct sim_stream *s)
{
    const uint8_t *bytes;
    size_t         count;
    bool           bulk;

    while (s->up != NULL &&
           (bytes = wire_channel_next(s->up, now(s->conn->agent), &count, &bulk)) != NULL)
        sim_send(s, SIM_UP, SIM_DATA, bytes, count);
}

void sim_agent_pump(struct sim_agent *a)
{
    for (uint32_t i = 0; i < a->world->opts.workers; i++)
        for (uint32_t k = 0; k < a->conns[i].stream_count; k++)
            pump(a->conns[i].streams[k]);
}

static void let_go(struct sim_stream *s)
{
    wire_channel_free(s->up);
    s->up = NULL;
    s->agent_holds = false;
}

struct sim_stream *sim_stream_of(struct sim_agent *a, uint32_t endpoint)
{
    for (uint32_t i = 0; i < a->world->opts.workers; i++) {
        for (uint32_t k = 0; k < a->conns[i].stream_count; k++) {
            struct sim_stream *s = a->conns[i].streams[k];

            if (s->agent_holds && !s->closed && s->endpoint == endpoint)
                return s;
        }
    }
    return NULL;
}

/* The stream is over: its endpoint is lost, or was never there. */
void sim_stream_over(struct sim_stream *s, const char *why)
{
    struct sim_agent *a = s->conn->agent;
    mcp_error         err = { MCP_EUNAVAIL, "" };

    snprintf(err.text, sizeof(err.text), "%s", why);
    let_go(s);
    if (s->closed)
        return;
    if (s->told)
        pipeline_lost(a->pipeline, now(a), s->endpoint, &err);
    else
        a->wanted[s->stage].opening = NULL;
}

/* ---- is it alive? ------------------------------------------------------------------------- */

static void beat(struct sim_stream *s);

static void timer_fired(struct sim_event *e)
{
    struct sim_stream *s = e->ctx;
    struct sim_agent  *a = s->conn->agent;

    s->timer = false;
    s->under_way--;
    if (s->agent_holds)
        beat(s);
    sim_agent_run(a);
}

static void beat(struct sim_stream *s)
{
    struct sim_clock *clock = &s->conn->world->clock;
    struct wire_frame f = { .kind = WIRE_BEAT, .u.beat = (uint64_t)(clock->now_ms * 1e3) };
    double            next_ms;
    mcp_error         err;

    pulse_awaiting(&s->pulse, clock->now_ms, s->owed > 0);
    switch (pulse_ask(&s->pulse, clock->now_ms, &next_ms)) {
    case PULSE_STUCK:
    case PULSE_LOST: sim_conn_reset(s->conn, true, false); return;
    case PULSE_BEAT:
        unit_ok(wire_channel_send(s->up, &f, NULL, NULL, &err), &err);
        pump(s);
        break;
    case PULSE_FINE: break;
    }
    if (next_ms > 0.0 && !s->timer) {
        s->timer = true;
        s->under_way++;
        sim_post(clock, next_ms, (struct sim_event){ .fire = timer_fired, .ctx = s });
    }
}

void sim_stream_opened(struct sim_stream *s, const struct pipe_opened *opened)
{
    struct sim_agent *a = s->conn->agent;

    s->told = true;
    a->wanted[s->stage].asked = false;
    a->wanted[s->stage].opening = NULL;
    pipeline_opened(a->pipeline, now(a), s->stage, s->endpoint, opened);
}

/* ---- frames to the worker ----------------------------------------------------------------- */

static void release_block(void *owner)
{
    pipe_block_unref(owner);
}

/* The block is taken over. */
static void send_frame(struct sim_stream *s, const struct wire_frame *f, struct pipe_block *block)
{
    mcp_error err;

    unit_ok(wire_channel_send(s->up, f, block != NULL ? release_block : NULL, block, &err), &err);
    SIM_REQUIRE(&s->conn->world->clock, wire_channel_queued_bytes(s->up) < QUEUED_MAX,
                "%" PRIu64 " bytes wait to leave\n", wire_channel_queued_bytes(s->up));
    pump(s);
    beat(s);
}

void sim_stream_open(struct sim_stream *s)
{
    struct sim_agent            *a = s->conn->agent;
    const struct pipeline_stage *stage = &a->stages[s->stage];
    struct wire_channel_opts     opts = { false, PAYLOAD_MAX, &s->path->pace[SIM_UP] };
    struct wire_frame            f = { .kind = WIRE_OPEN };
    mcp_error                    err;

    s->agent_holds = true;
    s->owed = 1;
    pulse_init(&s->pulse, now(a), PATIENCE_MS);
    pulse_rtt(&s->pulse, a->places[s->conn->worker->index].rtt_ms);
    unit_ok(wire_channel_new(&s->up, &opts, &err), &err);
    memcpy(f.u.open.session, s->session_id, WIRE_SESSION_BYTES);
    f.u.open.first = stage->first;
    f.u.open.last = stage->last;
    f.u.open.ctx_tokens = SIM_CTX;
    f.u.open.resume = s->resume;
    send_frame(s, &f, NULL);
}

void sim_stream_forward(struct sim_stream *s, const struct pipe_act *act)
{
    static const enum wire_want hidden[] = { WIRE_WANT_NONE, WIRE_WANT_HIDDEN_LAST,
                                             WIRE_WANT_HIDDEN };
    static const enum wire_want logits[] = { WIRE_WANT_NONE, WIRE_WANT_LOGITS_LAST,
                                             WIRE_WANT_LOGITS };
    bool                        final = act->stage + 1 == s->conn->agent->stage_count;
    struct wire_frame           f = { .kind = WIRE_FORWARD };

    f.u.forward = (struct wire_forward){ .number = act->number,
                                         .epoch = act->epoch,
                                         .pos = act->pos,
                                         .count = act->count,
                                         .tokens = act->tokens,
                                         .token_count = act->tokens != NULL ? act->count : 0,
                                         .want = final ? logits[act->want] : hidden[act->want],
                                         .bulk = act->bulk };
    if (act->block != NULL)
        f.u.forward.in = (struct wire_payload){ .data = act->block->data,
                                                .bytes = act->block->bytes };
    s->owed++;
    s->sent = act->number;
    send_frame(s, &f, act->block);
}

/* What is still wanted of the windows before it has been answered; the rest never will be. */
void sim_stream_trim(struct sim_stream *s, const struct pipe_act *act)
{
    struct wire_frame f = { .kind = WIRE_TRIM };

    f.u.trim.epoch = act->epoch;
    f.u.trim.pos = act->pos;
    s->owed = s->answered_open ? 0 : 1;
    s->void_until = s->sent;
    send_frame(s, &f, NULL);
}

void sim_stream_close(struct sim_stream *s)
{
    s->closed = true;
    s->owed = 0;
    send_frame(s, &(struct wire_frame){ .kind = WIRE_CLOSE }, NULL);
}

/* ---- frames from the worker --------------------------------------------------------------- */

static void take_result(struct sim_stream *s, const struct wire_result *r)
{
    struct sim_agent  *a = s->conn->agent;
    struct pipe_block *block = NULL;

    if (r->number > s->void_until && s->owed > 0)
        s->owed--;
    a->places[s->conn->worker->index].queue_ms = r->queue_us / 1e3;
    if (r->rows > 0) {
        block = pipe_block_new(WIRE_F32, r->rows, r->out.bytes / r->rows);
        memcpy(block->data, r->out.data, r->out.bytes);
    }
    pipeline_result(a->pipeline, now(a), s->endpoint, r->number, block,
                    (struct pipe_timing){ r->queue_us, r->compute_us });
    pipe_block_unref(block);
}

static void take_frame(struct sim_stream *s, const struct wire_frame *f)
{
    struct sim_agent *a = s->conn->agent;

    switch (f->kind) {
    case WIRE_OPENED:
        s->answered_open = true;
        s->owed--;
        if (!s->told && !s->closed)
            sim_stream_opened(s, &(struct pipe_opened){ .length = f->u.opened.length,
                                                        .epoch = f->u.opened.epoch,
                                                        .windows_max = f->u.opened.windows_max,
                                                        .even_windows = f->u.opened.even_windows });
        break;
    case WIRE_RESULT:
        if (!s->closed)
            take_result(s, &f->u.result);
        break;
    case WIRE_BEAT: pulse_rtt(&s->pulse, now(a) - (double)f->u.beat / 1e3); break;
    case WIRE_DRAINING:
        a->places[s->conn->worker->index].state = PLACE_DRAINING;
        if (s->told && !s->closed)
            pipeline_draining(a->pipeline, now(a), s->endpoint);
        sim_spite(a, 3.0 * a->world->opts.rtt_ms);
        break;
    default: fail_msg("an agent is sent a %s", wire_kind_name(f->kind));
    }
}

void sim_agent_receive(struct sim_stream *s, const uint8_t *bytes, size_t count)
{
    struct wire_frame f;
    mcp_error         err;
    int               rc;

    if (!s->agent_holds)
        return;
    /* A sign of life on one stream is one of the connection: what this stream waits for may lie
     * behind the other's. */
    for (uint32_t i = 0; i < s->conn->stream_count; i++)
        pulse_heard(&s->conn->streams[i]->pulse, now(s->conn->agent));
    rc = wire_channel_receive(s->up, now(s->conn->agent), bytes, count, &f, &err);
    unit_ok(rc, &err);
    if (rc > 0 && !s->conn->agent->over)
        take_frame(s, &f);
    sim_agent_pump(s->conn->agent);
}

void sim_agent_ended(struct sim_stream *s, const struct wire_status *status)
{
    struct sim_agent *a = s->conn->agent;
    uint32_t          worker = s->conn->worker->index;
    uint32_t          later_ms = status->retry_after_ms > 0 ? status->retry_after_ms : RETRY_MS;

    if (!s->agent_holds)
        return;
    s->cut = true;
    if (!s->closed &&
        (status->code == WIRE_RESOURCE_EXHAUSTED || status->code == WIRE_UNAVAILABLE)) {
        a->refused_until_ms[worker] = now(a) + later_ms;
        a->places[worker].sessions_free = 0;
    }
    sim_stream_over(s, wire_status_name(status->code));
    sim_agent_look(a);
}
