/* agent/link.c - one worker's connection: dial, describe, watch, dial again.
 *
 * Loop's thread only; what others read is published under the remote's lock.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/endpoint.h"
#include "agent/remote.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WATCH_EVERY_MS = 1000,
    GOODBYE_MS = 500, /* longest wait for workers to hear that sessions are closed */
};

/* ---- publishing ------------------------------------------------------------------------------ */

static void publish_begin(struct agent_link *link)
{
    pthread_mutex_lock(&link->remote->lock);
}

/* Tell whoever waits. */
static void publish_end(struct agent_link *link)
{
    struct mcp_remote *r = link->remote;

    for (struct remote_listener *l = r->listeners; l != NULL; l = l->next) {
        struct mail_event *event = calloc(1, sizeof(*event));

        if (event != NULL)
            event->kind = MAIL_PLACES;
        mail_put(l->mail, event);
    }
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static const struct {
    mcp_worker_state      shown;
    enum pipe_place_state place;
} states[] = {
    { MCP_WORKER_DOWN, PLACE_DOWN },   { MCP_WORKER_DIALING, PLACE_DIALING },
    { MCP_WORKER_UP, PLACE_UP },       { MCP_WORKER_DRAINING, PLACE_DRAINING },
    { MCP_WORKER_UNFIT, PLACE_UNFIT },
};

static void set_state(struct agent_link *link, enum pipe_place_state state, const char *problem)
{
    struct link_shown *shown = &link->shown;

    shown->place.state = state;
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
        if (states[i].place == state)
            shown->info.state = states[i].shown;
    snprintf(shown->info.problem, sizeof(shown->info.problem), "%.255s", problem);
}

void link_rtt(struct agent_link *link, double rtt_ms)
{
    struct link_shown *shown = &link->shown;
    double             now = base_clock_ms();

    wire_pace_rtt(&link->pace, now, rtt_ms);
    pthread_mutex_lock(&link->remote->lock);
    shown->place.rtt_ms = link->pace.rtt_min_ms > 0.0 ? link->pace.rtt_min_ms : rtt_ms;
    shown->info.rtt_ms = shown->place.rtt_ms;
    pthread_mutex_unlock(&link->remote->lock);
}

static void show_capacity(struct link_shown *shown, const struct wire_capacity *c)
{
    shown->info.sessions = c->sessions;
    shown->info.sessions_free = c->sessions_free;
    shown->info.ctx_tokens = c->ctx_tokens;
    shown->info.batch_tokens = c->batch_tokens;
    shown->info.queued_tokens = c->queued_tokens;
    shown->info.tokens_per_second = c->tokens_per_second;
    shown->windows_max = c->windows_max;
    shown->even_windows = c->even_windows;
    shown->place.sessions_free = c->sessions_free;
    shown->place.queue_ms = c->tokens_per_second > 0.0f
                                ? c->queued_tokens * 1e3 / (double)c->tokens_per_second
                                : 0.0;
}

static void set_draining(struct agent_link *link)
{
    if (link->shown.place.state == PLACE_UP)
        set_state(link, PLACE_DRAINING, "it is draining");
}

void link_draining(struct agent_link *link)
{
    publish_begin(link);
    set_draining(link);
    publish_end(link);
}

void link_capacity(struct agent_link *link, const struct wire_capacity *c, bool draining,
                   const char *degraded)
{
    struct link_shown *shown = &link->shown;

    publish_begin(link);
    show_capacity(shown, c);
    snprintf(shown->info.degraded, sizeof(shown->info.degraded), "%s", degraded);
    if (draining)
        set_draining(link);
    publish_end(link);
}

/* ---- Describe -------------------------------------------------------------------------------- */

static void show_names(char *out, size_t cap, uint32_t bits, const char *(*name)(uint32_t))
{
    size_t used = 0;

    out[0] = '\0';
    for (uint32_t i = 0; i < 32 && used < cap; i++)
        if ((bits >> i & 1) != 0 && name(i) != NULL)
            used += (size_t)snprintf(out + used, cap - used, "%s%s", used > 0 ? " " : "", name(i));
}

static const char *codec_name(uint32_t id)
{
    const struct wire_codec *c = wire_codec_by_id(id);

    return c != NULL ? c->name : NULL;
}

static void described(struct agent_link *link, struct wire_describe *d)
{
    struct link_shown *shown = &link->shown;
    mcp_worker_info   *info = &shown->info;
    size_t             used = 0;

    publish_begin(link);
    snprintf(info->version, sizeof(info->version), "%.63s", d->version);
    snprintf(info->model, sizeof(info->model), "%s", d->model.name);
    snprintf(info->architecture, sizeof(info->architecture), "%.63s", d->model.architecture);
    snprintf(info->quantisation, sizeof(info->quantisation), "%.63s", d->model.quantisation);
    snprintf(info->degraded, sizeof(info->degraded), "%s", d->degraded);
    shown->codecs = d->codecs;
    show_names(info->codecs, sizeof(info->codecs), d->codecs, codec_name);
    info->features[0] = '\0';
    for (uint32_t i = 0; i < d->feature_count && used < sizeof(info->features); i++)
        used += (size_t)snprintf(info->features + used, sizeof(info->features) - used, "%s%s",
                                 i > 0 ? " " : "", d->features[i]);
    memcpy(info->fingerprint, d->model.fingerprint, sizeof(info->fingerprint));
    info->layers = d->model.layers;
    info->n_embd = d->model.n_embd;
    info->n_vocab = d->model.n_vocab;
    info->first = shown->place.first = d->model.first;
    info->last = shown->place.last = d->model.last;
    free(shown->weights);
    shown->weights = d->model.weights;
    d->model.weights = NULL;
    show_capacity(shown, &d->capacity);
    pipe_place_up(&shown->place, base_clock_ms());
    set_state(link, d->draining ? PLACE_DRAINING : PLACE_UP, d->draining ? "it is draining" : "");
    shown->tried = true;
    publish_end(link);
    link->described = true;
}

static void describe_message(struct net_stream *stream, void *ctx, const uint8_t *bytes,
                             size_t count)
{
    struct agent_link   *link = ctx;
    struct wire_describe d = { 0 };
    mcp_error            err;

    if (wire_describe_decode(&d, bytes, count, &err) < 0) {
        snprintf(link->silence, sizeof(link->silence), "%.200s", err.text);
        net_stream_cancel(stream);
        return;
    }
    described(link, &d);
    wire_describe_fini(&d);
}

static void describe_closed(struct net_stream *stream, void *ctx, const struct wire_status *status)
{
    struct agent_link *link = ctx;
    bool refused = status->code == WIRE_UNAUTHENTICATED || status->code == WIRE_PERMISSION_DENIED ||
                   status->code == WIRE_UNIMPLEMENTED;

    (void)stream;
    if (link->described || link->conn == NULL)
        return;
    if (link->silence[0] == '\0')
        snprintf(link->silence, sizeof(link->silence), "%.255s", status->text);
    if (refused) {
        publish_begin(link);
        set_state(link, PLACE_UNFIT, link->silence);
        link->shown.tried = true;
        publish_end(link);
    }
    net_conn_close(link->conn);
}

static const struct net_stream_ops describe_ops = { .message = describe_message,
                                                    .closed = describe_closed };

/* ---- Watch ----------------------------------------------------------------------------------- */

/* The worker speaks once a second: a clock that costs nothing.  Whatever any worker does for us may
 * share the line with this one. */
static void consider_probe(struct agent_link *link)
{
    const struct mcp_remote *r = link->remote;
    uint64_t                 bytes[PLAN_DIRECTIONS];
    bool                     idle = atomic_load(&r->computing) == 0;

    for (uint32_t i = 0; i < r->link_count; i++)
        idle = idle && !r->links[i].probing && !link_awaits(&r->links[i]);
    if (!idle || link->stop)
        return;
    meter_probe(&link->meter, base_clock_ms(), bytes);
    if (bytes[PLAN_UP] + bytes[PLAN_DOWN] > 0)
        link_probe(link, bytes);
}

static void watch_message(struct net_stream *stream, void *ctx, const uint8_t *bytes, size_t count)
{
    struct agent_link      *link = ctx;
    struct wire_watch_event event = { 0 };

    (void)stream;
    if (wire_watch_event_decode(&event, bytes, count, NULL) == 0)
        link_capacity(link, &event.capacity, event.draining, event.degraded);
    consider_probe(link);
}

/* Without Watch we know less, and nothing else is lost. */
static void watch_closed(struct net_stream *stream, void *ctx, const struct wire_status *status)
{
    (void)stream;
    (void)ctx;
    (void)status;
}

static const struct net_stream_ops watch_ops = { .message = watch_message, .closed = watch_closed };

/* A call with one message from us. */
static int call(struct agent_link *link, const char *path, const void *bytes, size_t count,
                double deadline_ms, const struct net_stream_ops *ops, mcp_error *err)
{
    const char        *metadata[4];
    struct net_stream *stream;
    int                rc;

    remote_metadata(link->remote, metadata);
    rc = net_call_open(&stream, link->conn, path, deadline_ms, metadata, ops, link, err);
    if (rc < 0)
        return rc;
    rc = net_stream_send(stream, bytes, count, NET_URGENT, err);
    if (rc < 0)
        net_stream_cancel(stream);
    else
        net_stream_end(stream);
    return rc;
}

/* ---- the connection ---------------------------------------------------------------------------- */

static void dial(struct agent_link *link);

static void retry_now(struct net_timer *timer)
{
    struct agent_link *link = (struct agent_link *)(void *)((char *)timer -
                                                            offsetof(struct agent_link, retry));

    dial(link);
}

static void up(struct net_conn *conn, void *ctx, const struct net_peer *peer)
{
    struct agent_link *link = ctx;

    (void)conn;
    publish_begin(link);
    snprintf(link->shown.info.name, sizeof(link->shown.info.name), "%.63s", peer->name);
    snprintf(link->shown.info.tls, sizeof(link->shown.info.tls), "%.63s", peer->tls);
    publish_end(link);
}

static void down(struct net_conn *conn, void *ctx, const struct wire_status *why, bool identity)
{
    struct agent_link *link = ctx;
    struct link_shown *shown = &link->shown;
    const char        *problem = link->silence[0] != '\0' ? link->silence : why->text;

    (void)conn;
    link->conn = NULL;
    link->described = false;
    publish_begin(link);
    if (shown->place.state != PLACE_UNFIT)
        set_state(link, identity ? PLACE_UNFIT : PLACE_DOWN, problem);
    shown->tried = true;
    pipe_place_failed(&shown->place, base_clock_ms(), (uint32_t)rand());
    if (link->stop) {
        net_timer_cancel(&link->retry);
        link->remote->closed_links++;
    } else if (shown->place.state == PLACE_DOWN) {
        base_log(BASE_LOG_DETAIL, "worker %s: %s", link->endpoint, problem);
        net_timer_set(&link->retry, link->remote->loop, shown->place.retry_ms);
    }
    publish_end(link);
    link->silence[0] = '\0';
}

static const struct net_conn_ops conn_ops = { .up = up, .down = down };

static void dial(struct agent_link *link)
{
    struct wire_status why = { .code = WIRE_UNAVAILABLE };
    uint8_t           *watch = NULL;
    size_t             watch_bytes = 0;
    mcp_error          err = { 0 };
    int                rc;

    if (link->stop)
        return;
    publish_begin(link);
    set_state(link, PLACE_DIALING, "");
    publish_end(link);
    wire_pace_fini(&link->pace);
    rc = wire_pace_init(&link->pace);
    link->pace.clocked = true;
    meter_restart(&link->meter);
    if (rc == MCP_OK)
        rc = net_conn_dial(&link->conn, link->remote->loop, link->endpoint, link->remote->identity,
                           link->remote->connect_ms, &conn_ops, link, &err);
    if (rc < 0) {
        snprintf(why.text, sizeof(why.text), "%s", err.text);
        down(NULL, link, &why, false);
        return;
    }
    /* Both travel with the handshake's last flight. */
    rc = call(link, WIRE_PATH_DESCRIBE, "", 0, link->remote->connect_ms, &describe_ops, &err);
    if (rc == MCP_OK)
        rc = wire_watch_request_encode(WATCH_EVERY_MS, &watch, &watch_bytes, &err);
    if (rc == MCP_OK)
        rc = call(link, WIRE_PATH_WATCH, watch, watch_bytes, 0.0, &watch_ops, &err);
    free(watch);
    if (rc < 0) {
        snprintf(link->silence, sizeof(link->silence), "%.255s", err.text);
        net_conn_close(link->conn);
    }
}

void link_start(struct agent_link *link)
{
    link->retry.run = retry_now;
    dial(link);
}

static void hang_up(struct net_timer *timer)
{
    struct agent_link *link = (struct agent_link *)(void *)((char *)timer -
                                                            offsetof(struct agent_link, retry));

    if (link->conn != NULL)
        net_conn_close(link->conn);
}

void link_idle(struct agent_link *link)
{
    if (link->stop && link->endpoints == NULL)
        hang_up(&link->retry);
}

void link_stop(struct agent_link *link)
{
    link->stop = true;
    net_timer_cancel(&link->retry);
    if (link->conn != NULL) {
        link->retry.run = hang_up;
        net_timer_set(&link->retry, link->remote->loop, base_clock_ms() + GOODBYE_MS);
        link_idle(link);
        return;
    }
    publish_begin(link);
    link->remote->closed_links++;
    publish_end(link);
}

void link_lost(struct agent_link *link, const char *format, ...)
{
    va_list args;

    if (link->conn == NULL || link->silence[0] != '\0')
        return;
    va_start(args, format);
    vsnprintf(link->silence, sizeof(link->silence), format, args);
    va_end(args);
    net_conn_close(link->conn);
}
