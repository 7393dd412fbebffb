/* worker/service.c - see service.h.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/service.h"

#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"
#include "worker/stream.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* Answers that wait to be read, of all sessions: as much as their questions may be. */
#define UNREAD_BYTES_ALL (UINT64_C(1) << 30)

int worker_service_init(struct worker_service *s, mcp_error *err)
{
    pthread_condattr_t attr;

    atomic_init(&s->unread_bytes, 0);
    atomic_init(&s->draining, false);
    s->unread_bytes_all = UNREAD_BYTES_ALL;
    worker_meters_init(&s->meters);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->work, &attr);
    pthread_cond_init(&s->settled, &attr);
    pthread_condattr_destroy(&attr);
    return worker_table_new(&s->table, &s->limits, err);
}

void worker_service_fini(struct worker_service *s)
{
    assert(s->calls == NULL);
    pthread_mutex_lock(&s->lock); /* nobody else is left; worker_job_free() wants it held */
    while (s->jobs != NULL)       /* of detached sessions */
        worker_job_free(s->jobs);
    pthread_mutex_unlock(&s->lock);
    worker_table_free(s->table);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->settled);
    pthread_mutex_destroy(&s->lock);
}

/* ---- the table's wishes ------------------------------------------------------------- */

static void end_stream(const struct worker_act *act)
{
    struct worker_stream *stream = act->stream;

    if (stream == NULL)
        return;
    stream->session = NULL;
    stream->answer = NULL;
    worker_stream_end(stream, &act->status);
}

/* Only the stream ends: what the session has computed so far is good. */
static void drop_job(const struct worker_act *act)
{
    struct worker_job *job = worker_job_of(act->work);

    if (act->expired) {
        struct wire_status status = { .code = WIRE_DEADLINE_EXCEEDED };

        snprintf(status.text, sizeof(status.text), "window %llu was not run within its deadline_ms",
                 (unsigned long long)job->work.number);
        worker_stream_end(job->stream, &status);
    }
    worker_job_free(job);
}

void worker_service_acts(struct worker_service *s)
{
    struct worker_act act;

    while (worker_table_act(s->table, &act)) {
        if (act.kind == WORKER_ACT_END)
            end_stream(&act);
        else
            drop_job(&act);
    }
}

void worker_service_signal(struct worker_service *s)
{
    pthread_cond_signal(&s->work);
}

/* ---- time --------------------------------------------------------------------------- */

/* Every session that has a stream ends with it.  Lock held. */
static void end_sessions(struct worker_service *s, const struct wire_status *status)
{
    struct worker_session *session;

    for (struct worker_call *call = s->calls; call != NULL; call = call->next) {
        struct worker_stream *stream = worker_stream_of(call);

        if (stream == NULL)
            continue;
        session = stream->session;
        stream->session = NULL;
        stream->answer = NULL;
        if (session != NULL)
            worker_table_close(s->table, base_clock_ms(), session);
        worker_service_acts(s);
        worker_stream_end(stream, status);
    }
    worker_service_signal(s);
}

static void wake_all(struct worker_service *s)
{
    for (struct worker_call *call = s->calls; call != NULL; call = call->next)
        worker_call_wake(call);
}

/* The drain is over when the last agent has left, or the time is up.  Lock held. */
static void check_drained(struct worker_service *s, double now_ms)
{
    struct wire_status status = { .code = WIRE_UNAVAILABLE,
                                  .text = "this worker was drained and ends" };

    if (!atomic_load(&s->draining) || s->drained)
        return;
    if (now_ms >= s->drain_until_ms)
        end_sessions(s, &status);
    s->drained = s->stream_count == 0;
    if (s->drained)
        pthread_cond_broadcast(&s->settled);
}

void worker_service_tick(struct worker_service *s, bool look)
{
    double now_ms = base_clock_ms();

    pthread_mutex_lock(&s->lock);
    worker_table_tick(s->table, now_ms);
    worker_service_acts(s);
    check_drained(s, now_ms);
    if (look)
        wake_all(s);
    pthread_mutex_unlock(&s->lock);
}

void worker_service_drain(struct worker_service *s, uint32_t within_ms)
{
    double until_ms = base_clock_ms() + within_ms;

    pthread_mutex_lock(&s->lock);
    if (!atomic_load(&s->draining)) {
        s->drain_until_ms = until_ms;
        worker_table_drain(s->table);
        atomic_store(&s->draining, true);
        wake_all(s);
    } else if (until_ms < s->drain_until_ms) { /* asked again, with less patience */
        s->drain_until_ms = until_ms;
    }
    pthread_mutex_unlock(&s->lock);
}

uint32_t worker_service_drain_ms(struct worker_service *s)
{
    double left_ms;

    pthread_mutex_lock(&s->lock);
    left_ms = s->drain_until_ms - base_clock_ms();
    pthread_mutex_unlock(&s->lock);
    return left_ms > 0.0 ? (uint32_t)left_ms : 0;
}

void worker_service_break(struct worker_service *s, const mcp_error *why)
{
    struct wire_status status = wire_status_of(MCP_EUNAVAIL, why);

    snprintf(s->broken, sizeof(s->broken), "the device failed: %.200s", why->text);
    base_log(BASE_LOG_WARN, "%s", s->broken);
    end_sessions(s, &status);
}

/* ---- what it tells ------------------------------------------------------------------ */

bool worker_service_healthy(struct worker_service *s, char degraded[WORKER_PROBLEM_BYTES])
{
    bool keys = worker_access_problem(s->access, degraded), broken;

    (void)keys; /* the keys from before are in use: it serves, and says so */
    pthread_mutex_lock(&s->lock);
    broken = s->broken[0] != '\0';
    if (broken)
        memcpy(degraded, s->broken, WORKER_PROBLEM_BYTES);
    pthread_mutex_unlock(&s->lock);
    return !broken && !atomic_load(&s->draining);
}

void worker_service_capacity(struct worker_service *s, struct wire_capacity *capacity)
{
    struct worker_table_stats stats;

    pthread_mutex_lock(&s->lock);
    worker_table_get_stats(s->table, &stats);
    pthread_mutex_unlock(&s->lock);
    *capacity = (struct wire_capacity){ .sessions = s->limits.sessions_max,
                                        .sessions_free = stats.sessions_free,
                                        .ctx_tokens = s->limits.ctx_tokens,
                                        .batch_tokens = s->limits.batch_tokens,
                                        .windows_max = s->limits.windows_max,
                                        .lease_ms = (uint32_t)s->limits.lease_ms,
                                        .queue_bytes_max = s->limits.queue_bytes_max,
                                        .queued_tokens = stats.queued_tokens > UINT32_MAX
                                                             ? UINT32_MAX
                                                             : (uint32_t)stats.queued_tokens,
                                        .tokens_per_second = (float)stats.tokens_per_second,
                                        .even_windows = s->facts.even_windows };
}

uint32_t worker_service_retry_ms(struct worker_service *s)
{
    uint32_t ms;

    pthread_mutex_lock(&s->lock);
    ms = worker_table_retry_ms(s->table, base_clock_ms());
    pthread_mutex_unlock(&s->lock);
    return ms;
}

/* ---- routes ------------------------------------------------------------------------- */

static const struct {
    const char *path;
    const struct net_stream_ops *(*open)(struct worker_service *s, struct net_stream *stream,
                                         const char *path, void **ctx, struct wire_status *status);
} routes[] = {
    { WIRE_PATH_EXECUTE, worker_stream_open },
    { WIRE_PATH_DESCRIBE, worker_plain_open },
    { WIRE_PATH_WATCH, worker_watch_open },
    { WIRE_PATH_PROBE, worker_plain_open },
    { WIRE_PATH_HEALTH_CHECK, worker_plain_open },
    { WIRE_PATH_HEALTH_WATCH, worker_watch_open },
    { WIRE_PATH_REFLECTION, worker_plain_open },
    { WIRE_PATH_REFLECTION_ALPHA, worker_plain_open },
};

static const struct net_stream_ops *open_call(struct net_stream *stream, const char *path,
                                              void *ctx, void **stream_ctx,
                                              struct wire_status *status)
{
    struct worker_service *s = ctx;

    if (worker_access_peer(s->access, net_stream_peer(stream), status) < 0)
        return NULL;
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
        if (strcmp(routes[i].path, path) == 0)
            return routes[i].open(s, stream, path, stream_ctx, status);
    *status = (struct wire_status){ .code = WIRE_UNIMPLEMENTED };
    snprintf(status->text, sizeof(status->text), "there is no method %.200s here", path);
    return NULL;
}

static struct net_identity *identity(void *ctx)
{
    return worker_access_identity(((struct worker_service *)ctx)->access);
}

const struct net_server_ops worker_service_ops = { .open = open_call, .identity = identity };
