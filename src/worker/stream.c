/* worker/stream.c - see stream.h: the stream's life, and what leaves it.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/stream.h"

#include "base/clock.h"
#include "base/fail.h"
#include "pipe/draft.h"
#include "worker/link.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    /* A client that takes nothing for so long, while something waits for it, is gone or holds up
     * the credit of its neighbours on the connection. */
    STALL_MS_MAX = 15000,
    OPEN_MS_MAX = 10000, /* from the call to its Open */
    /* A finished stream whose last words are not read is cut off. */
    LINGER_MS_MAX = 5000,
};

/* ---- replies: compute thread to loop ------------------------------------------------ */

struct worker_reply *worker_reply_new(size_t bytes)
{
    struct worker_reply *reply = malloc(sizeof(*reply) + bytes);

    if (reply == NULL)
        return NULL;
    *reply = (struct worker_reply){ .bytes = bytes };
    return reply;
}

void worker_reply_free(struct worker_reply *reply)
{
    if (reply == NULL)
        return;
    if (reply->stream != NULL) {
        atomic_fetch_sub(&reply->stream->unread_bytes, reply->bytes);
        atomic_fetch_sub(&reply->stream->call.service->unread_bytes, reply->bytes);
    }
    free(reply);
}

void worker_replies_free(struct worker_reply *first)
{
    while (first != NULL) {
        struct worker_reply *next = first->next;

        worker_reply_free(first);
        first = next;
    }
}

static void release_reply(void *owner)
{
    worker_reply_free(owner);
}

/* A client that asks for much and reads nothing may not hold our memory. */
static void check_unread(struct worker_stream *s, uint64_t own, uint64_t all)
{
    struct worker_service *service = s->call.service;
    struct wire_status     status;
    mcp_error              error;

    if (own <= WORKER_UNREAD_BYTES_MAX && all <= service->unread_bytes_all)
        return;
    base_fail(&error, MCP_EBUSY,
              "%" PRIu64 " bytes of answers wait to be read, at most %d a session; %" PRIu64
              " of all sessions, at most %" PRIu64,
              own, WORKER_UNREAD_BYTES_MAX, all, service->unread_bytes_all);
    status = wire_status_of(MCP_EBUSY, &error);
    status.retry_after_ms = 1000;
    worker_stream_end(s, &status);
}

void worker_stream_reply(struct worker_stream *s, struct worker_reply *first)
{
    struct worker_reply *last = first;
    uint64_t             bytes = 0, own, all;
    bool                 closed;

    for (struct worker_reply *reply = first; reply != NULL; reply = reply->next) {
        reply->stream = s;
        bytes += reply->bytes;
        last = reply;
    }
    own = atomic_fetch_add(&s->unread_bytes, bytes) + bytes;
    all = atomic_fetch_add(&s->call.service->unread_bytes, bytes) + bytes;

    pthread_mutex_lock(&s->lock);
    closed = s->closed || s->ending;
    if (!closed && s->replies_tail != NULL)
        s->replies_tail->next = first;
    else if (!closed)
        s->replies = first;
    if (!closed)
        s->replies_tail = last;
    pthread_mutex_unlock(&s->lock);
    if (closed) {
        worker_replies_free(first);
        return;
    }
    worker_call_wake(&s->call);
    check_unread(s, own, all);
}

static struct worker_reply *take_replies(struct worker_stream *s)
{
    struct worker_reply *first;

    pthread_mutex_lock(&s->lock);
    first = s->replies;
    s->replies = s->replies_tail = NULL;
    pthread_mutex_unlock(&s->lock);
    return first;
}

/* ---- the end ------------------------------------------------------------------------ */

struct wire_status worker_stream_status(int code, const mcp_error *err)
{
    struct wire_status status = wire_status_of(code, err);

    if (status.code == WIRE_OUT_OF_RANGE || status.code == WIRE_DATA_LOSS)
        status.code = WIRE_INVALID_ARGUMENT;
    return status;
}

void worker_stream_end(struct worker_stream *s, const struct wire_status *status)
{
    pthread_mutex_lock(&s->lock);
    if (!s->ending) {
        s->ending = true;
        s->end = *status;
    }
    pthread_mutex_unlock(&s->lock);
    worker_call_wake(&s->call);
}

/* The session is over, whatever becomes of the stream.  Service's lock held. */
static void close_session(struct worker_stream *s)
{
    struct worker_service *service = s->call.service;

    if (s->session == NULL)
        return;
    worker_table_close(service->table, base_clock_ms(), s->session);
    s->session = NULL;
    s->answer = NULL;
    worker_service_acts(service);
    worker_service_signal(service);
}

void worker_stream_fail(struct worker_stream *s, int code, const mcp_error *err)
{
    struct wire_status status = worker_stream_status(code, err);

    s->call.service->meters.failed++;
    close_session(s);
    worker_stream_end(s, &status);
}

void worker_stream_keep_text(struct worker_stream *s, struct worker_answer *answer)
{
    struct draft *text = worker_answer_text(answer);

    if (text == NULL)
        return;
    draft_free(s->text);
    s->text = text;
}

/* The session, if it has not ended, waits for another stream. */
static void detach_session(struct worker_stream *s)
{
    struct worker_service *service = s->call.service;

    pthread_mutex_lock(&service->lock);
    if (s->session != NULL)
        worker_table_detach(service->table, base_clock_ms(), s->session);
    s->session = NULL;
    s->answer = NULL;
    worker_service_acts(service);
    worker_service_signal(service);
    pthread_mutex_unlock(&service->lock);
}

/* Nothing is sent any more, and nothing kept for it. */
static void let_go(struct worker_stream *s)
{
    s->finished = true;
    s->held = NULL;
    worker_link_block(s, false);
    wire_channel_free(s->channel);
    s->channel = NULL;
    pthread_mutex_lock(&s->lock);
    s->closed = true;
    pthread_mutex_unlock(&s->lock);
    worker_replies_free(take_replies(s));
    detach_session(s);
}

static void finish(struct worker_stream *s, const struct wire_status *status)
{
    if (s->finished)
        return;
    let_go(s);
    s->finished_ms = net_loop_now_ms(s->call.loop);
    net_stream_finish(s->call.stream, status);
}

/* End the session and the stream, from the loop: what has left already is still delivered. */
static void refuse(struct worker_stream *s, const struct wire_status *status)
{
    struct worker_service *service = s->call.service;

    pthread_mutex_lock(&service->lock);
    service->meters.failed += s->session != NULL;
    close_session(s);
    pthread_mutex_unlock(&service->lock);
    worker_stream_pump(s, net_loop_now_ms(s->call.loop));
    finish(s, status);
}

/* ---- what leaves -------------------------------------------------------------------- */

/* Give net the next message; false when there is none, or no room for it. */
static bool send_next(struct worker_stream *s, double now_ms)
{
    mcp_error error = { 0 };
    int       rc;

    if (s->held == NULL)
        s->held = wire_channel_next(s->channel, now_ms, &s->held_bytes, &s->held_bulk);
    if (s->held == NULL)
        return false;
    rc = net_stream_send(s->call.stream, s->held, s->held_bytes,
                         s->held_bulk ? NET_BULK : NET_URGENT, &error);
    if (rc == MCP_EBUSY) /* until writable() */
        return false;
    if (rc < 0) {
        struct wire_status status = worker_stream_status(rc, &error);

        finish(s, &status);
        return false;
    }
    s->held = NULL;
    s->progress_ms = now_ms;
    return true;
}

void worker_stream_pump(struct worker_stream *s, double now_ms)
{
    double due_ms;
    bool   pending;

    if (s->finished || s->channel == NULL)
        return;
    while (send_next(s, now_ms))
        continue;
    if (s->finished)
        return;
    pending = s->held != NULL || wire_channel_pending(s->channel);
    if (!pending)
        s->progress_ms = now_ms;
    worker_link_block(s, pending);
    due_ms = wire_channel_due_ms(s->channel);
    if (due_ms > now_ms && due_ms < INFINITY)
        net_timer_set(&s->link->timer, s->call.loop, due_ms);
    if (!pending && s->finishing)
        finish(s, &s->final);
}

struct wire_pace *worker_stream_pace(const struct worker_stream *s)
{
    return &s->link->pace;
}

/* Into the channel.  A reply that finds no memory takes the stream with it. */
static void queue_replies(struct worker_stream *s)
{
    struct worker_reply *next;

    for (struct worker_reply *reply = take_replies(s); reply != NULL; reply = next) {
        mcp_error error = { 0 };
        int       rc = MCP_OK;

        next = reply->next;
        if (s->channel != NULL && !s->finished)
            rc = wire_channel_send(s->channel, &reply->frame, release_reply, reply, &error);
        if (s->channel == NULL || s->finished || rc < 0)
            worker_reply_free(reply);
        if (rc < 0) {
            struct wire_status status = worker_stream_status(rc, &error);

            finish(s, &status);
        }
    }
}

/* ---- looking at the clock, the keys, the drain -------------------------------------- */

/* False when the stream was finished. */
static bool check_right(struct worker_stream *s)
{
    struct worker_access *access = s->call.service->access;
    uint32_t              version = worker_access_version(access);
    struct wire_status    status = { .code = WIRE_UNAUTHENTICATED,
                                     .text = "the token has expired: resume with a new one" };

    if (s->access_version != version) {
        s->access_version = version;
        if (worker_access_grant(access, net_stream_peer(s->call.stream),
                                net_stream_metadata(s->call.stream, "authorization"), &s->grant,
                                &status) < 0) {
            refuse(s, &status);
            return false;
        }
    }
    if (s->grant.expires_s != 0 && (int64_t)time(NULL) > s->grant.expires_s + GUARD_SKEW_S) {
        finish(s, &status); /* the session waits, as after any loss, for the same subject */
        return false;
    }
    return true;
}

static bool check_stall(struct worker_stream *s, double now_ms)
{
    const struct wire_status unopened = { .code = WIRE_DEADLINE_EXCEEDED,
                                          .text = "no Open came within 10 s of the call" };
    struct wire_status       status;
    mcp_error                error;

    if (s->channel == NULL && now_ms - s->progress_ms > OPEN_MS_MAX) {
        finish(s, &unopened);
        return false;
    }
    if (s->channel == NULL || (s->held == NULL && !wire_channel_pending(s->channel)) ||
        now_ms - s->progress_ms < STALL_MS_MAX)
        return true;
    base_fail(&error, MCP_EBUSY,
              "nothing was read for %d ms while %" PRIu64 " bytes wait for this client",
              STALL_MS_MAX, wire_channel_queued_bytes(s->channel));
    status = wire_status_of(MCP_EBUSY, &error);
    status.retry_after_ms = 1000;
    finish(s, &status);
    return false;
}

static void tell_draining(struct worker_stream *s)
{
    struct wire_frame frame = { .kind = WIRE_DRAINING };

    if (s->draining_told || s->channel == NULL || s->finishing ||
        !atomic_load(&s->call.service->draining))
        return;
    frame.u.draining_within_ms = worker_service_drain_ms(s->call.service);
    /* Without memory for these few bytes: told at the next look. */
    s->draining_told = wire_channel_send(s->channel, &frame, NULL, NULL, NULL) == MCP_OK;
}

/* Trailers once all is said: the client has half-closed, and no work of it is left. */
static void check_over(struct worker_stream *s, bool idle)
{
    if (!atomic_load(&s->half_closed) || !idle || s->finishing)
        return;
    s->finishing = true;
    s->final = (struct wire_status){ .code = WIRE_OK };
}

static bool take_end(struct worker_stream *s, struct wire_status *status)
{
    bool ending;

    pthread_mutex_lock(&s->lock);
    ending = s->ending;
    *status = s->end;
    pthread_mutex_unlock(&s->lock);
    return ending;
}

static void woken(struct worker_call *call)
{
    struct worker_stream *s = (struct worker_stream *)(void *)call;
    double                now_ms = net_loop_now_ms(call->loop);
    bool                  idle = atomic_load(&s->jobs) == 0; /* before: its last reply is there */
    struct wire_status    status;

    if (s->finished) {
        if (now_ms - s->finished_ms > LINGER_MS_MAX)
            net_stream_cancel(call->stream);
        return;
    }
    queue_replies(s);
    if (s->finished)
        return;
    if (take_end(s, &status)) {
        worker_stream_pump(s, now_ms);
        finish(s, &status);
        return;
    }
    if (!check_right(s) || !check_stall(s, now_ms))
        return;
    tell_draining(s);
    check_over(s, idle);
    worker_stream_pump(s, now_ms);
}

/* ---- from net ----------------------------------------------------------------------- */

static void message(struct net_stream *stream, void *ctx, const uint8_t *bytes, size_t count)
{
    struct worker_stream *s = ctx;
    double                now_ms = net_loop_now_ms(s->call.loop);
    struct wire_status    status = { 0 };
    struct wire_frame     frame;
    mcp_error             error = { 0 };
    int                   rc;

    (void)stream;
    if (s->finishing || s->finished)
        return;
    if (s->channel == NULL) {
        rc = worker_frames_open(s, bytes, count, &status);
    } else {
        rc = wire_channel_receive(s->channel, now_ms, bytes, count, &frame, &error);
        if (rc < 0)
            status = worker_stream_status(rc, &error);
        else if (rc > 0)
            rc = worker_frames_take(s, &frame, &status);
    }
    if (rc < 0) {
        refuse(s, &status);
        return;
    }
    tell_draining(s);
    worker_stream_pump(s, now_ms);
    worker_link_pump(s->link, now_ms);
}

static void half_closed(struct net_stream *stream, void *ctx)
{
    struct worker_stream    *s = ctx;
    const struct wire_status fine = { .code = WIRE_OK };

    (void)stream;
    atomic_store(&s->half_closed, true);
    if (s->channel == NULL)
        finish(s, &fine);
    else
        worker_call_wake(&s->call); /* replies that wait, then the end */
}

static void writable(struct net_stream *stream, void *ctx)
{
    struct worker_stream *s = ctx;

    (void)stream;
    worker_stream_pump(s, net_loop_now_ms(s->call.loop));
}

static void closed(struct net_stream *stream, void *ctx, const struct wire_status *why)
{
    struct worker_stream  *s = ctx;
    struct worker_service *service = s->call.service;

    (void)stream;
    (void)why;
    let_go(s);
    atomic_store(&s->half_closed, false);
    pthread_mutex_lock(&service->lock);
    service->stream_count--;
    pthread_mutex_unlock(&service->lock);
    worker_call_closed(&s->call);
}

static void release(struct worker_call *call)
{
    struct worker_stream *s = (struct worker_stream *)(void *)call;

    pthread_mutex_destroy(&s->lock);
    draft_free(s->text);
    free(s);
}

static const struct worker_call_kind kind = { .woken = woken, .release = release };
static const struct net_stream_ops   stream_ops = {
      .message = message, .half_closed = half_closed, .writable = writable, .closed = closed
};

struct worker_stream *worker_stream_of(struct worker_call *call)
{
    return call->kind == &kind ? (struct worker_stream *)(void *)call : NULL;
}

/* A fault to be injected, where those are allowed: milliseconds that every batch with this
 * session takes longer. */
static double fault_of(const struct worker_service *service, const struct net_stream *stream)
{
    enum { STALL_MS = 10000 };
    const char *text = service->debug_commands ? net_stream_metadata(stream, "mcp-debug-stall-ms")
                                               : NULL;
    double      ms = text != NULL ? strtod(text, NULL) : 0.0;

    return ms > 0.0 && ms <= STALL_MS ? ms : 0.0;
}

const struct net_stream_ops *worker_stream_open(struct worker_service *service,
                                                struct net_stream *stream, const char *path,
                                                void **ctx, struct wire_status *status)
{
    struct worker_link   *link = worker_link_of(net_stream_conn(stream));
    struct worker_stream *s = calloc(1, sizeof(*s));

    (void)path;
    if (link == NULL || s == NULL) {
        free(s);
        *status = wire_status_of(MCP_ENOMEM, NULL);
        return NULL;
    }
    s->access_version = worker_access_version(service->access);
    if (worker_access_grant(service->access, net_stream_peer(stream),
                            net_stream_metadata(stream, "authorization"), &s->grant, status) < 0) {
        free(s);
        pthread_mutex_lock(&service->lock);
        service->meters.calls_refused++;
        pthread_mutex_unlock(&service->lock);
        return NULL;
    }
    s->link = link;
    s->progress_ms = net_loop_now_ms(net_conn_loop(net_stream_conn(stream)));
    s->stall_ms = fault_of(service, stream);
    atomic_init(&s->jobs, 0);
    atomic_init(&s->half_closed, false);
    atomic_init(&s->unread_bytes, 0);
    pthread_mutex_init(&s->lock, NULL);
    worker_call_init(&s->call, &kind, service, stream);
    pthread_mutex_lock(&service->lock);
    service->stream_count++;
    pthread_mutex_unlock(&service->lock);
    *ctx = s;
    return &stream_ops;
}
