/* agent/endpoint.c - see endpoint.h.
 *
 * Two references: the session's, and the loop's while the stream is open or work is posted.  The
 * fields below `loop's thread` are touched there only; the first and the last thing done
 * there are the posted start() and the posted finish().
 *
 * SPDX-License-Identifier: MIT */
#include "agent/endpoint.h"

#include "base/clock.h"
#include "base/fail.h"
#include "pipe/pulse.h"
#include "wire/channel.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct agent_endpoint {
    atomic_uint        refs;
    struct mcp_remote *remote; /* down to patience_ms: immutable */
    uint32_t           worker;
    uint32_t           number;
    struct mail       *mail;
    struct wire_open   open;
    double             patience_ms;
    struct net_work    start;
    struct net_work    finish;
    atomic_ullong      bytes_out, bytes_in;

    /* loop's thread */
    struct agent_endpoint *next, *previous; /* of the link's list */
    struct agent_link     *link;
    struct net_stream     *stream; /* NULL before start and after closed */
    struct wire_channel   *channel;
    struct pulse           pulse;
    struct net_timer       pulse_timer;
    struct net_timer       pace_timer; /* until bulk that waits is due */
    uint64_t               awaited;    /* number of the last frame that will be answered */
    uint64_t               answered;   /* highest number answered */
    bool                   opening;    /* Opened is awaited */
    struct mail           *states;     /* where blocks of KV go; NULL before one is asked for */
    uint32_t               states_due; /* most that may still come */
    struct meter_stream    meter;
    bool                   lost;
    bool                   closing; /* Close is queued: half-close when it has left */
    /* A message that the connection, full with other streams', has refused: first to leave. */
    uint8_t *held;
    size_t   held_bytes;
    bool     held_bulk;
};

static void ref(struct agent_endpoint *e)
{
    atomic_fetch_add(&e->refs, 1);
}

static void unref(struct agent_endpoint *e)
{
    if (atomic_fetch_sub(&e->refs, 1) != 1)
        return;
    mail_unref(e->mail);
    mail_unref(e->states);
    free(e->held);
    free(e);
}

static struct agent_endpoint *from_timer(struct net_timer *timer)
{
    return (struct agent_endpoint *)(void *)((char *)timer -
                                             offsetof(struct agent_endpoint, pulse_timer));
}

/* ---- telling the session ----------------------------------------------------------------------- */

static struct mail_event *event_new(struct agent_endpoint *e, enum mail_kind kind)
{
    struct mail_event *event = calloc(1, sizeof(*event));

    if (event != NULL) {
        event->kind = kind;
        event->endpoint = e->number;
    }
    return event;
}

static void tell_lost(struct agent_endpoint *e, const struct wire_status *status)
{
    struct mail_event *event;

    if (e->lost)
        return;
    e->lost = true;
    event = event_new(e, MAIL_LOST);
    if (event != NULL)
        event->status = *status;
    mail_put(e->mail, event);
}

/* End a stream that is of no more use. */
__attribute__((format(printf, 3, 4))) static void give_up(struct agent_endpoint *e, uint32_t code,
                                                          const char *format, ...)
{
    struct wire_status status = { .code = code };
    va_list            args;

    va_start(args, format);
    vsnprintf(status.text, sizeof(status.text), format, args);
    va_end(args);
    tell_lost(e, &status);
    net_stream_cancel(e->stream);
}

/* ---- liveness ------------------------------------------------------------------------------------ */

static void pump(struct agent_endpoint *e);

static void send_beat(struct agent_endpoint *e, double now)
{
    struct wire_frame beat = { .kind = WIRE_BEAT };

    beat.u.beat = (uint64_t)(now * 1e3);
    if (wire_channel_send(e->channel, &beat, NULL, NULL, NULL) < 0)
        return;
    meter_beat_sent(&e->link->meter, &e->meter, beat.u.beat, &e->link->pace, now);
    pump(e);
}

static void check_pulse(struct agent_endpoint *e)
{
    double now = base_clock_ms(), next = 0.0;
    double heard;

    if (e->stream == NULL)
        return;
    heard = net_conn_heard_ms(net_stream_conn(e->stream));
    if (heard > e->pulse.heard_ms)
        pulse_heard(&e->pulse, heard);
    switch (pulse_ask(&e->pulse, now, &next)) {
    case PULSE_BEAT: send_beat(e, now); break;
    case PULSE_LOST:
        link_lost(e->link, "worker %s has been silent for %.0f ms", e->link->endpoint,
                  now - e->pulse.heard_ms);
        return;
    case PULSE_STUCK:
        give_up(e, WIRE_DEADLINE_EXCEEDED,
                "worker %s is there, but has sent nothing of an answer for %.0f ms (answer_ms_max)",
                e->link->endpoint, e->pulse.patience_ms);
        return;
    case PULSE_FINE: break;
    }
    if (next > 0.0)
        net_timer_set(&e->pulse_timer, e->remote->loop, next);
    else
        net_timer_cancel(&e->pulse_timer);
}

static void pulse_due(struct net_timer *timer)
{
    check_pulse(from_timer(timer));
}

static void await_changed(struct agent_endpoint *e)
{
    bool awaiting = e->opening || e->answered < e->awaited;

    pulse_awaiting(&e->pulse, base_clock_ms(), awaiting);
    check_pulse(e);
}

/* ---- frames from the worker ------------------------------------------------------------------------ */

/* The payload as a block without its wrap; NULL with *err on failure. */
static struct pipe_block *payload_block(const struct wire_payload *in, uint32_t rows,
                                        mcp_error *err)
{
    const struct wire_codec *codec = wire_codec_by_id(in->codec);
    struct pipe_block       *block;
    size_t                   bytes = in->bytes;

    if (codec == NULL || rows == 0) {
        base_fail(err, MCP_EFORMAT, "a result of %u rows in codec %u", rows, in->codec);
        return NULL;
    }
    /* Plain payloads say their size themselves; a wrapped one is unwrapped by the session, who
     * knows the width of a row. */
    if (bytes % rows != 0 && in->wrap == WIRE_PLAIN) {
        base_fail(err, MCP_EFORMAT, "a result of %zu bytes is not %u equal rows", bytes, rows);
        return NULL;
    }
    block = pipe_block_new(in->codec, in->wrap == WIRE_PLAIN ? rows : 1,
                           in->wrap == WIRE_PLAIN ? bytes / rows : bytes);
    if (block == NULL) {
        base_fail(err, MCP_ENOMEM, "a result of %zu bytes", bytes);
        return NULL;
    }
    memcpy(block->data, in->data, bytes);
    return block;
}

static int on_result(struct agent_endpoint *e, const struct wire_result *r, mcp_error *err)
{
    double             own_ms = (r->queue_us + r->compute_us) * 1e-3, rtt;
    struct pipe_block *block = NULL;
    struct mail_event *event;

    if (r->number > e->awaited)
        return base_fail(err, MCP_EFORMAT,
                         "worker %s answers window %" PRIu64 ", the last one sent is %" PRIu64,
                         e->link->endpoint, r->number, e->awaited);
    if (r->rows > 0) {
        block = payload_block(&r->out, r->rows, err);
        if (block == NULL)
            return MCP_EFORMAT;
    }
    if (meter_answered(&e->link->meter, &e->meter, r->number, r->rows > 0 ? r->out.bytes : 0,
                       own_ms, base_clock_ms(), &rtt)) {
        pulse_rtt(&e->pulse, rtt);
        link_rtt(e->link, rtt);
    }
    if (r->number > e->answered)
        e->answered = r->number;
    event = event_new(e, MAIL_RESULT);
    if (event == NULL) {
        pipe_block_unref(block);
    } else {
        event->number = r->number;
        event->block = block;
        event->rows = r->rows;
        event->wrap = r->rows > 0 ? r->out.wrap : WIRE_PLAIN;
        event->timing = (struct pipe_timing){ r->queue_us, r->compute_us };
    }
    mail_put(e->mail, event);
    return MCP_OK;
}

/* A block that was not asked for is nobody's, and takes no memory. */
static void on_state(struct agent_endpoint *e, const struct wire_state *state)
{
    struct mail_event *event, *wake;

    if (e->states_due == 0)
        return;
    e->states_due--;
    event = event_new(e, MAIL_STATE);
    if (event != NULL) {
        event->number = state->number;
        event->length = state->length;
        event->block = pipe_block_new(WIRE_F32, 1, state->block.bytes);
        if (event->block != NULL)
            memcpy(event->block->data, state->block.data, state->block.bytes);
    }
    mail_put(e->states, event);
    wake = event_new(e, MAIL_STATE);
    if (wake != NULL)
        mail_put(e->mail, wake);
}

static int on_frame(struct agent_endpoint *e, const struct wire_frame *frame, mcp_error *err)
{
    struct mail_event *event;

    switch (frame->kind) {
    case WIRE_OPENED:
        e->opening = false;
        event = event_new(e, MAIL_OPENED);
        if (event != NULL)
            event->opened = frame->u.opened;
        mail_put(e->mail, event);
        return MCP_OK;
    case WIRE_RESULT: return on_result(e, &frame->u.result, err);
    case WIRE_TOKEN:
        if (frame->u.token.stop != WIRE_STOP_NOT)
            e->answered = frame->u.token.number;
        event = event_new(e, MAIL_TOKEN);
        if (event != NULL)
            event->token = frame->u.token;
        mail_put(e->mail, event);
        return MCP_OK;
    case WIRE_BEAT: {
        double rtt = base_clock_ms() - (double)frame->u.beat * 1e-3;

        if (rtt > 0.0 && rtt < 1e6) {
            pulse_rtt(&e->pulse, rtt);
            link_rtt(e->link, rtt);
            meter_echoed(&e->link->meter, &e->meter, frame->u.beat, base_clock_ms());
        }
        return MCP_OK;
    }
    case WIRE_DRAINING:
        link_draining(e->link); /* first: whoever hears of it looks for another place */
        mail_put(e->mail, event_new(e, MAIL_DRAINING));
        return MCP_OK;
    case WIRE_CLOSED:
        return e->lost ? MCP_OK
                       : base_fail(err, MCP_EUNAVAIL, "worker %s closed the session unasked",
                                   e->link->endpoint);
    case WIRE_STATE: on_state(e, &frame->u.state); return MCP_OK;
    default:
        return base_fail(err, MCP_EFORMAT, "worker %s sent a frame of kind %s", e->link->endpoint,
                         wire_kind_name(frame->kind));
    }
}

bool link_awaits(const struct agent_link *link)
{
    for (const struct agent_endpoint *e = link->endpoints; e != NULL; e = e->next)
        if (e->opening || e->answered < e->awaited)
            return true;
    return false;
}

static bool is_answer(const struct wire_frame *frame)
{
    return frame->kind == WIRE_OPENED || frame->kind == WIRE_RESULT || frame->kind == WIRE_TOKEN;
}

/* What came may have made room for bulk of any stream of the connection.  The others' goes first,
 * or whoever is acknowledged first would go on for ever. */
static void pump_link(struct agent_endpoint *e)
{
    struct agent_endpoint *other, *next;

    for (other = e->next; other != NULL; other = next) {
        next = other->next;
        pump(other);
    }
    for (other = e->link->endpoints; other != e; other = next) {
        next = other->next;
        pump(other);
    }
    pump(e);
}

static void on_message(struct net_stream *stream, void *ctx, const uint8_t *bytes, size_t count)
{
    struct agent_endpoint *e = ctx;
    struct wire_frame      frame;
    mcp_error              err = { 0 };
    double                 now = base_clock_ms();
    uint64_t               out, in, bulk;
    bool                   inside, answer;
    int                    rc;

    rc = wire_channel_receive(e->channel, now, bytes, count, &frame, &err);
    bulk = wire_channel_bulk_in(e->channel, &inside);
    meter_received(&e->link->meter, &e->meter, &e->link->pace, bulk, inside, now);
    answer = rc > 0 && is_answer(&frame);
    /* Before the session hears of the frame: it may be the last, and the bytes asked for. */
    wire_channel_bytes(e->channel, &out, &in);
    if (in != atomic_exchange(&e->bytes_in, in) || answer)
        pulse_answer(&e->pulse, now);
    if (rc > 0)
        rc = on_frame(e, &frame, &err);
    if (rc < 0) {
        struct wire_status status = wire_status_of(rc, &err);

        tell_lost(e, &status);
        net_stream_cancel(stream);
        return;
    }
    pump_link(e);
    if (answer && e->stream != NULL && meter_beat_due(&e->link->meter, now))
        send_beat(e, now);
    await_changed(e);
}

/* ---- frames to the worker --------------------------------------------------------------------------- */

/* 0: it has left; MCP_EBUSY: it is held until the stream is writable; else a failure. */
static int push(struct agent_endpoint *e, const uint8_t *bytes, size_t count, bool bulk,
                mcp_error *err)
{
    int rc = net_stream_send(e->stream, bytes, count, bulk ? NET_BULK : NET_URGENT, err);

    if (rc != MCP_EBUSY || e->held != NULL)
        return rc;
    e->held = malloc(count);
    if (e->held == NULL)
        return base_fail(err, MCP_ENOMEM, "a message of %zu bytes", count);
    memcpy(e->held, bytes, count);
    e->held_bytes = count;
    e->held_bulk = bulk;
    return rc;
}

/* Hand to the stream what may leave now.  Half of the stream's queue is kept free, which any
 * message fits. */
static void pump(struct agent_endpoint *e)
{
    double    now = base_clock_ms(), due;
    uint64_t  out, in;
    mcp_error err = { 0 };
    int       rc = MCP_OK;

    if (e->held != NULL && e->stream != NULL) {
        rc = push(e, e->held, e->held_bytes, e->held_bulk, &err);
        if (rc != MCP_EBUSY) {
            free(e->held);
            e->held = NULL;
        }
    }
    while (rc == MCP_OK && e->stream != NULL && net_stream_room(e->stream) > NET_QUEUE_BYTES / 2) {
        size_t         count;
        bool           bulk;
        const uint8_t *bytes = wire_channel_next(e->channel, now, &count, &bulk);

        if (bytes == NULL)
            break;
        rc = push(e, bytes, count, bulk, &err);
    }
    if (rc < 0 && rc != MCP_EBUSY) {
        struct wire_status status = wire_status_of(rc, &err);

        tell_lost(e, &status);
        net_stream_cancel(e->stream);
    }
    if (e->channel == NULL)
        return;
    due = wire_channel_due_ms(e->channel);
    if (due > now && due < INFINITY && e->stream != NULL)
        net_timer_set(&e->pace_timer, e->remote->loop, due);
    else
        net_timer_cancel(&e->pace_timer);
    wire_channel_bytes(e->channel, &out, &in);
    atomic_store(&e->bytes_out, out);
    if (e->closing && e->stream != NULL && e->held == NULL && !wire_channel_pending(e->channel)) {
        e->closing = false;
        net_stream_end(e->stream);
    }
}

static void pace_due(struct net_timer *timer)
{
    pump((struct agent_endpoint *)(void *)((char *)timer -
                                           offsetof(struct agent_endpoint, pace_timer)));
}

static void on_writable(struct net_stream *stream, void *ctx)
{
    (void)stream;
    pump(ctx);
}

static void on_closed(struct net_stream *stream, void *ctx, const struct wire_status *status)
{
    struct agent_endpoint *e = ctx;
    struct wire_status     why = *status;

    (void)stream;
    e->stream = NULL;
    net_timer_cancel(&e->pulse_timer);
    net_timer_cancel(&e->pace_timer);
    if (e->previous != NULL)
        e->previous->next = e->next;
    else
        e->link->endpoints = e->next;
    if (e->next != NULL)
        e->next->previous = e->previous;
    if (e->link->silence[0] != '\0') { /* we closed the connection, and know why */
        why.code = WIRE_UNAVAILABLE;
        snprintf(why.text, sizeof(why.text), "%s", e->link->silence);
    } else if (why.code == WIRE_OK) {
        why.code = WIRE_UNAVAILABLE;
        snprintf(why.text, sizeof(why.text), "worker %s ended the session", e->link->endpoint);
    }
    wire_channel_free(e->channel);
    e->channel = NULL;
    tell_lost(e, &why);
    link_idle(e->link);
    unref(e); /* the stream's */
}

static const struct net_stream_ops stream_ops = { .message = on_message,
                                                  .writable = on_writable,
                                                  .closed = on_closed };

static void start(struct net_work *work)
{
    struct agent_endpoint *e =
        (struct agent_endpoint *)(void *)((char *)work - offsetof(struct agent_endpoint, start));
    struct agent_link       *link = &e->remote->links[e->worker];
    struct wire_channel_opts opts = { .payload_max = WIRE_PAYLOAD_MAX, .pace = &link->pace };
    struct wire_frame        open = { .kind = WIRE_OPEN };
    const char              *metadata[4];
    struct wire_status       status;
    mcp_error                err = { 0 };
    int                      rc;

    e->link = link;
    e->pulse_timer.run = pulse_due;
    e->pace_timer.run = pace_due;
    pulse_init(&e->pulse, base_clock_ms(), e->patience_ms);
    open.u.open = e->open;
    remote_metadata(e->remote, metadata);
    if (link->conn == NULL) {
        rc = base_fail(&err, MCP_EUNAVAIL, "worker %s is not connected", link->endpoint);
        goto fail;
    }
    rc = wire_channel_new(&e->channel, &opts, &err);
    if (rc == MCP_OK)
        rc = wire_channel_send(e->channel, &open, NULL, NULL, &err);
    if (rc == MCP_OK)
        rc = net_call_open(&e->stream, link->conn, WIRE_PATH_EXECUTE, 0.0, metadata, &stream_ops, e,
                           &err);
    if (rc < 0)
        goto fail;
    ref(e); /* the stream's, until on_closed */
    e->next = link->endpoints;
    if (e->next != NULL)
        e->next->previous = e;
    link->endpoints = e;
    e->opening = true;
    pump(e);
    await_changed(e);
    unref(e); /* the work's */
    return;
fail:
    wire_channel_free(e->channel);
    e->channel = NULL;
    status = wire_status_of(rc, &err);
    tell_lost(e, &status);
    unref(e);
}

/* A frame on its way to the loop's thread. */
struct passage {
    struct net_work        work;
    struct agent_endpoint *endpoint;
    struct wire_frame      frame;
    struct pipe_block     *block;
    struct mail           *states;   /* of an export */
    int32_t                tokens[]; /* of the frame */
};

static void release_block(void *block)
{
    pipe_block_unref(block);
}

/* What will be answered, and when it left. */
static void note_sent(struct agent_endpoint *e, struct passage *p)
{
    const struct wire_frame *frame = &p->frame;

    switch (frame->kind) {
    case WIRE_FORWARD:
        e->awaited = frame->u.forward.number;
        if (!frame->u.forward.bulk)
            meter_sent(&e->link->meter, &e->meter, frame->u.forward.number,
                       frame->u.forward.in.bytes, &e->link->pace, base_clock_ms());
        break;
    case WIRE_GENERATE: e->awaited = frame->u.generate.number; break;
    case WIRE_EXPORT:
        mail_unref(e->states);
        e->states = p->states;
        p->states = NULL;
        e->states_due++;
        break;
    case WIRE_TRIM: e->answered = e->awaited; break; /* what was dropped is never answered */
    default: break;
    }
}

static void pass(struct net_work *work)
{
    struct passage        *p = (struct passage *)(void *)work;
    struct agent_endpoint *e = p->endpoint;
    struct pipe_block     *block = p->block;
    mcp_error              err = { 0 };
    int                    rc;

    if (e->stream != NULL && !e->lost) {
        rc = wire_channel_send(e->channel, &p->frame, block != NULL ? release_block : NULL, block,
                               &err);
        if (rc < 0) {
            struct wire_status status = wire_status_of(rc, &err);

            tell_lost(e, &status);
            net_stream_cancel(e->stream);
        } else {
            block = NULL; /* the channel's */
            note_sent(e, p);
            pump(e);
            await_changed(e);
        }
    }
    pipe_block_unref(block);
    mail_unref(p->states);
    unref(e);
    free(p);
}

static void finish(struct net_work *work)
{
    struct agent_endpoint *e =
        (struct agent_endpoint *)(void *)((char *)work - offsetof(struct agent_endpoint, finish));
    struct wire_frame close = { .kind = WIRE_CLOSE };

    e->lost = true; /* nobody listens any more */
    if (e->stream != NULL) {
        pulse_awaiting(&e->pulse, base_clock_ms(), false);
        net_timer_cancel(&e->pulse_timer);
        e->closing = wire_channel_send(e->channel, &close, NULL, NULL, NULL) == 0;
        if (e->closing)
            pump(e);
        else
            net_stream_cancel(e->stream);
    }
    unref(e); /* the session's */
}

/* ---- the session's thread ----------------------------------------------------------------------------- */

int endpoint_open(struct agent_endpoint **out, struct mcp_remote *remote, uint32_t index,
                  uint32_t number, struct mail *mail, const struct wire_open *open,
                  double patience_ms, mcp_error *err)
{
    struct agent_endpoint *e = calloc(1, sizeof(*e));

    *out = NULL;
    if (e == NULL)
        return base_fail(err, MCP_ENOMEM, "a stream to a worker");
    atomic_init(&e->refs, 2); /* the session's and the posted start's */
    e->remote = remote;
    e->worker = index;
    e->number = number;
    e->mail = mail_ref(mail);
    e->open = *open;
    e->patience_ms = patience_ms;
    e->start.run = start;
    e->finish.run = finish;
    net_loop_post(remote->loop, &e->start);
    *out = e;
    return MCP_OK;
}

void endpoint_close(struct agent_endpoint *e)
{
    if (e != NULL)
        net_loop_post(e->remote->loop, &e->finish);
}

int endpoint_send(struct agent_endpoint *e, const struct wire_frame *frame,
                  struct pipe_block *block, mcp_error *err)
{
    const int32_t  *tokens = NULL;
    size_t          count = 0;
    struct passage *p;

    if (frame->kind == WIRE_FORWARD) {
        tokens = frame->u.forward.tokens;
        count = frame->u.forward.token_count;
    } else if (frame->kind == WIRE_GENERATE) {
        tokens = frame->u.generate.tokens;
        count = frame->u.generate.token_count;
    }
    p = malloc(sizeof(*p) + count * sizeof(*tokens));
    if (p == NULL)
        return base_fail(err, MCP_ENOMEM, "a frame of %zu tokens", count);
    p->work = (struct net_work){ .run = pass };
    p->endpoint = e;
    p->frame = *frame;
    p->block = block != NULL ? pipe_block_ref(block) : NULL;
    p->states = NULL;
    if (count > 0)
        memcpy(p->tokens, tokens, count * sizeof(*tokens));
    if (frame->kind == WIRE_FORWARD && count > 0)
        p->frame.u.forward.tokens = p->tokens;
    else if (frame->kind == WIRE_GENERATE)
        p->frame.u.generate.tokens = p->tokens;
    ref(e);
    net_loop_post(e->remote->loop, &p->work);
    return MCP_OK;
}

int endpoint_export(struct agent_endpoint *e, const struct wire_export *asked, struct mail *states,
                    mcp_error *err)
{
    struct passage *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return base_fail(err, MCP_ENOMEM, "a request for a block of KV");
    p->work = (struct net_work){ .run = pass };
    p->endpoint = e;
    p->frame = (struct wire_frame){ .kind = WIRE_EXPORT, .u.export = *asked };
    p->states = mail_ref(states);
    ref(e);
    net_loop_post(e->remote->loop, &p->work);
    return MCP_OK;
}

uint32_t endpoint_worker(const struct agent_endpoint *e)
{
    return e->worker;
}

void endpoint_bytes(const struct agent_endpoint *e, uint64_t *out, uint64_t *in)
{
    *out = atomic_load(&e->bytes_out);
    *in = atomic_load(&e->bytes_in);
}
