/* worker/watch.c - calls that tell what changes: Watch of Compute, Watch of health.
 *
 * Compute's says the load every so often, and the drain at once; health's speaks when its answer
 * is another.  A client that does not read misses events, it does not pile them up.
 *
 * Threads: the connection's loop.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/service.h"

#include "base/fail.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    EVERY_MS = 1000,
    EVERY_MS_MIN = 100,
    REQUEST_BYTES_MAX = 1024,
    REQUEST_MS_MAX = 10000, /* from the call to its message */
};

struct watch {
    struct worker_call call;  /* first */
    struct net_timer   timer; /* until its message has come; then, Compute only, for events */
    bool               health;
    bool               begun; /* its one message has come */
    bool               finished;
    bool               serving;  /* as the last event said */
    bool               draining; /* the same */
    uint32_t           every_ms;
    uint8_t            request[REQUEST_BYTES_MAX]; /* of health: asked again for each answer */
    size_t             request_bytes;
};

static void finish(struct watch *w, int rc, const mcp_error *err)
{
    struct wire_status status = wire_status_of(rc, err);

    if (w->finished)
        return;
    w->finished = true;
    net_timer_cancel(&w->timer);
    net_stream_finish(w->call.stream, &status);
}

/* ---- events ------------------------------------------------------------------------- */

/* The event as it is now; *serving and *draining are what it says. */
static int make_event(const struct watch *w, bool *serving, bool *draining, uint8_t **bytes,
                      size_t *count, mcp_error *err)
{
    struct worker_service  *s = w->call.service;
    struct wire_watch_event event = { 0 };

    *serving = worker_service_healthy(s, event.degraded);
    *draining = atomic_load(&s->draining);
    if (w->health)
        return wire_health_answer(w->request, w->request_bytes, *serving, bytes, count, err);
    worker_service_capacity(s, &event.capacity);
    event.draining = *draining;
    event.within_ms = *draining ? worker_service_drain_ms(s) : 0;
    return wire_watch_event_encode(&event, bytes, count, err);
}

static void tell(struct watch *w)
{
    uint8_t  *bytes = NULL;
    size_t    count;
    bool      serving, draining;
    mcp_error error = { 0 };
    int       rc;

    rc = make_event(w, &serving, &draining, &bytes, &count, &error);
    if (rc == MCP_OK)
        rc = net_stream_send(w->call.stream, bytes, count, NET_URGENT, &error);
    free(bytes);
    if (rc == MCP_EBUSY)
        return; /* it reads nothing, for now: a later event will be as good */
    if (rc < 0) {
        finish(w, rc, &error);
        return;
    }
    w->serving = serving;
    w->draining = draining;
}

static void set_timer(struct watch *w)
{
    net_timer_set(&w->timer, w->call.loop, net_loop_now_ms(w->call.loop) + w->every_ms);
}

static void run_timer(struct net_timer *timer)
{
    struct watch *w = (struct watch *)(void *)((char *)timer - offsetof(struct watch, timer));
    mcp_error     error;

    if (!w->begun) {
        finish(w, base_fail(&error, MCP_ETIMEOUT, "no message came within 10 s of the call"),
               &error);
        return;
    }
    tell(w);
    if (!w->finished)
        set_timer(w);
}

/* Once a second, and when a drain begins. */
static void woken(struct worker_call *call)
{
    struct watch          *w = (struct watch *)(void *)call;
    struct worker_service *s = call->service;
    char                   degraded[WORKER_PROBLEM_BYTES];
    struct wire_status     status;

    if (w->finished)
        return;
    if (worker_access_peer(s->access, net_stream_peer(call->stream), &status) < 0) {
        w->finished = true;
        net_timer_cancel(&w->timer);
        net_stream_finish(call->stream, &status);
        return;
    }
    if (!w->begun)
        return;
    if (w->health ? worker_service_healthy(s, degraded) != w->serving
                  : atomic_load(&s->draining) && !w->draining)
        tell(w);
}

/* ---- from net ----------------------------------------------------------------------- */

static int begin(struct watch *w, const uint8_t *bytes, size_t count, mcp_error *err)
{
    uint32_t every_ms = 0;
    int      rc;

    if (w->begun)
        return base_fail(err, MCP_EINVAL, "Watch takes one message, this is the second");
    if (count > sizeof(w->request))
        return base_fail(err, MCP_EINVAL, "a Watch request of %zu bytes, at most %zu", count,
                         sizeof(w->request));
    memcpy(w->request, bytes, count);
    w->request_bytes = count;
    w->begun = true;
    net_timer_cancel(&w->timer);
    if (w->health)
        return MCP_OK;
    rc = wire_watch_request_decode(&every_ms, bytes, count, err);
    if (rc < 0)
        return rc;
    if (every_ms != 0 && every_ms < EVERY_MS_MIN)
        return base_fail(err, MCP_EINVAL, "every_ms is %u, it must be at least %d", every_ms,
                         EVERY_MS_MIN);
    w->every_ms = every_ms == 0 ? EVERY_MS : every_ms;
    set_timer(w);
    return MCP_OK;
}

static void message(struct net_stream *stream, void *ctx, const uint8_t *bytes, size_t count)
{
    struct watch *w = ctx;
    mcp_error     error = { 0 };
    int           rc;

    (void)stream;
    if (w->finished)
        return;
    rc = begin(w, bytes, count, &error);
    if (rc < 0)
        finish(w, rc, &error);
    else
        tell(w);
}

static void half_closed(struct net_stream *stream, void *ctx)
{
    struct watch *w = ctx;
    mcp_error     error = { 0 };

    (void)stream;
    if (!w->begun)
        finish(w, base_fail(&error, MCP_EINVAL, "Watch takes one message, none came"), &error);
}

static void closed(struct net_stream *stream, void *ctx, const struct wire_status *status)
{
    struct watch *w = ctx;

    (void)stream;
    (void)status;
    w->finished = true;
    net_timer_cancel(&w->timer);
    worker_call_closed(&w->call);
}

static void release(struct worker_call *call)
{
    free(call); /* its first member */
}

static const struct worker_call_kind kind = { .woken = woken, .release = release };
static const struct net_stream_ops   ops = { .message = message,
                                             .half_closed = half_closed,
                                             .closed = closed };

const struct net_stream_ops *worker_watch_open(struct worker_service *s, struct net_stream *stream,
                                               const char *path, void **ctx,
                                               struct wire_status *status)
{
    struct watch *w = calloc(1, sizeof(*w));

    if (w == NULL) {
        *status = wire_status_of(MCP_ENOMEM, NULL);
        return NULL;
    }
    w->health = strcmp(path, WIRE_PATH_HEALTH_WATCH) == 0;
    w->timer.run = run_timer;
    worker_call_init(&w->call, &kind, s, stream);
    net_timer_set(&w->timer, w->call.loop, net_loop_now_ms(w->call.loop) + REQUEST_MS_MAX);
    *ctx = w;
    return &ops;
}
