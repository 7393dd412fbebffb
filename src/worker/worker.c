/* worker/worker.c - see worker.h.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/worker.h"

#include "base/clock.h"
#include "base/fail.h"
#include "worker/compute.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    TICK_MS = 100,
    LOOKS = 10, /* ticks from one look at the keys to the next */
    LEASE_MS = 30000,
    IDLE_MS = 30 * 60000,
    CHUNK_TOKENS = 256,
    CONNECTIONS_MAX = 1024,
    CORES_FOR_TWO_LOOPS = 8,
    IO_THREADS_MAX = 64,
};

/* ---- limits ------------------------------------------------------------------------- */

/* "TEAM=4,OTHER=2" */
static int parse_reservations(struct worker_limits *limits, const char *text, mcp_error *err)
{
    while (text != NULL && *text != '\0') {
        size_t                     bytes = strcspn(text, ",");
        const char                *sign = memchr(text, '=', bytes);
        struct worker_reservation *r = &limits->reservations[limits->reservation_count];
        char                      *end = NULL;
        unsigned long              sessions = 0;

        if (sign != NULL && sign[1] >= '0' && sign[1] <= '9')
            sessions = strtoul(sign + 1, &end, 10);
        if (sign == NULL || sign == text || end != text + bytes ||
            (size_t)(sign - text) >= sizeof(r->subject) || sessions < 1 ||
            sessions > WORKER_SESSIONS_MAX)
            return base_fail(err, MCP_EINVAL,
                             "reserve: '%.*s' is not SUBJECT=SESSIONS with 1 to %d sessions",
                             (int)(bytes < 200 ? bytes : 200), text, WORKER_SESSIONS_MAX);
        if (limits->reservation_count == WORKER_RESERVATIONS_MAX)
            return base_fail(err, MCP_EINVAL, "reserve: more than %d subjects",
                             WORKER_RESERVATIONS_MAX);
        memcpy(r->subject, text, (size_t)(sign - text));
        r->sessions = (uint32_t)sessions;
        limits->reservation_count++;
        text += bytes + (text[bytes] == ',');
    }
    return MCP_OK;
}

/* What is larger the engine would cut where it likes, perhaps leaving a rest of the small class
 * (mcp/engine.h, even_windows), and compute no faster. */
static uint32_t batch_tokens(const struct mcp_engine *engine)
{
    const mcp_engine_info *info = &engine->info;

    return info->batch_tokens < info->ubatch_tokens ? info->batch_tokens : info->ubatch_tokens;
}

/* A window's payload must fit the queue of its session, twice, so that one can travel while
 * another waits. */
static uint64_t queue_bytes(uint64_t usual, const struct mcp_engine *engine)
{
    uint64_t window = (uint64_t)engine->info.batch_tokens * engine->model->hp.n_embd *
                      sizeof(float);

    return 2 * window > usual ? 2 * window : usual;
}

static int make_limits(struct worker_limits *l, const mcp_worker_opts *opts,
                       const struct mcp_engine *engine, mcp_error *err)
{
    const mcp_engine_info *info = &engine->info;

    *l = worker_limits_default();
    l->sessions_max = info->seqs;
    l->subject_sessions = opts->subject_sessions;
    l->ctx_tokens = info->ctx_tokens;
    l->first = info->first;
    l->last = info->last;
    l->batch_tokens = batch_tokens(engine);
    l->chunk_tokens = opts->chunk_tokens != 0 ? opts->chunk_tokens : CHUNK_TOKENS;
    l->even = info->even_windows != 0;
    if (l->decode_tokens > l->batch_tokens)
        l->decode_tokens = l->batch_tokens;
    l->queue_bytes_max = queue_bytes(l->queue_bytes_max, engine);
    if (l->queue_bytes_all < 2 * l->queue_bytes_max)
        l->queue_bytes_all = 2 * l->queue_bytes_max;
    l->lease_ms = opts->lease_ms != 0 ? opts->lease_ms : LEASE_MS;
    if (l->detached_keep_ms > l->lease_ms)
        l->detached_keep_ms = l->lease_ms;
    l->idle_ms = opts->idle_ms != 0 ? opts->idle_ms : IDLE_MS;
    return parse_reservations(l, opts->reserve, err);
}

/* ---- the keeper --------------------------------------------------------------------- */

static struct timespec after(double ms)
{
    double          at_ms = base_clock_ms() + ms;
    struct timespec at = { .tv_sec = (time_t)(at_ms / 1e3) };

    at.tv_nsec = (long)((at_ms - (double)at.tv_sec * 1e3) * 1e6);
    return at;
}

static void *keep(void *ctx)
{
    struct mcp_worker *w = ctx;
    uint32_t           ticks = 0;

    pthread_mutex_lock(&w->lock);
    while (!w->stopping) {
        struct timespec until = after(TICK_MS);
        bool            look = ++ticks % LOOKS == 0;

        pthread_cond_timedwait(&w->changed, &w->lock, &until);
        pthread_mutex_unlock(&w->lock);
        if (look)
            worker_access_refresh(w->service.access);
        worker_service_tick(&w->service, look);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static int start_keeper(struct mcp_worker *w, mcp_error *err)
{
    if (pthread_create(&w->keeper, NULL, keep, w) != 0)
        return base_fail(err, MCP_ENOMEM, "no thread to keep time on");
    w->keeper_open = true;
    return MCP_OK;
}

static void stop_keeper(struct mcp_worker *w)
{
    if (!w->keeper_open)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->keeper, NULL);
}

/* ---- opening ------------------------------------------------------------------------ */

/* The engine loads its layers while other threads read the same bytes for the fingerprints. */
static int open_engine(struct mcp_worker *w, const struct mcp_model *model,
                       const mcp_engine_opts *opts, mcp_error *err)
{
    mcp_error other = { 0 };
    int       rc, hashed;

    rc = worker_facts_begin(&w->service.facts, model, opts->first, opts->last, err);
    if (rc < 0)
        return rc;
    rc = engine_open(&w->engine, model, opts, err);
    hashed = worker_facts_finish(&w->service.facts, &other);
    if (rc == MCP_OK && hashed < 0)
        rc = base_fail(err, hashed, "%s", other.text);
    if (rc < 0)
        return rc;
    snprintf(w->devices, sizeof(w->devices), "%s", w->engine->info.devices);
    w->kv_bytes = w->engine->info.kv_bytes;
    w->weight_bytes = w->engine->info.weight_bytes;
    return MCP_OK;
}

static int open_server(struct mcp_worker *w, const mcp_worker_opts *opts, mcp_error *err)
{
    long                   cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct net_server_opts server = { .listen = opts->listen, .threads = opts->io_threads };

    if (opts->io_threads > IO_THREADS_MAX)
        return base_fail(err, MCP_ERANGE, "%u threads for connections, at most %d (--io-threads)",
                         opts->io_threads, IO_THREADS_MAX);
    if (server.threads == 0)
        server.threads = cores >= CORES_FOR_TWO_LOOPS ? 2 : 1;
    server.conns_max = opts->connections_max != 0 ? opts->connections_max : CONNECTIONS_MAX;
    return net_server_open(&w->server, &server, &worker_service_ops, &w->service, err);
}

static struct mcp_worker *make(void)
{
    struct mcp_worker *w = calloc(1, sizeof(*w));
    pthread_condattr_t attr;

    if (w == NULL)
        return NULL;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &attr);
    pthread_condattr_destroy(&attr);
    return w;
}

int worker_open(struct mcp_worker **out, const struct mcp_model *model, const mcp_worker_opts *opts,
                const mcp_engine_opts *engine, mcp_error *err)
{
    struct mcp_worker *w = make();
    int                rc;

    *out = NULL;
    if (w == NULL)
        return base_fail(err, MCP_ENOMEM, "worker");
    w->service.debug_commands = opts->debug_commands != 0;
    rc = worker_access_open(&w->service.access, opts->keys, opts->require_token != 0, err);
    if (rc == MCP_OK)
        rc = open_engine(w, model, engine, err);
    if (rc == MCP_OK)
        rc = make_limits(&w->service.limits, opts, w->engine, err);
    if (rc == MCP_OK) {
        w->service.facts.even_windows = w->engine->info.even_windows != 0;
        w->service_open = true;
        rc = worker_service_init(&w->service, err);
    }
    if (rc == MCP_OK)
        rc = worker_compute_open(&w->compute, &w->service, w->engine, err);
    if (rc == MCP_OK)
        rc = start_keeper(w, err);
    if (rc == MCP_OK) /* last: whoever can connect finds everything there */
        rc = open_server(w, opts, err);
    if (rc < 0) {
        worker_close(w);
        return rc;
    }
    *out = w;
    return MCP_OK;
}

void worker_close(struct mcp_worker *w)
{
    if (w == NULL)
        return;
    /* Who wakes calls ends before the loops on which they would wake. */
    stop_keeper(w);
    worker_compute_close(w->compute);
    net_server_close(w->server);
    if (w->service_open)
        worker_service_fini(&w->service);
    engine_close(w->engine);
    worker_facts_fini(&w->service.facts);
    worker_access_close(w->service.access);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

/* ---- running ------------------------------------------------------------------------ */

const char *worker_address(const struct mcp_worker *w)
{
    return net_server_address(w->server);
}

void worker_drain(struct mcp_worker *w, uint32_t within_ms)
{
    worker_service_drain(&w->service, within_ms);
}

bool worker_wait(struct mcp_worker *w, uint32_t timeout_ms)
{
    struct worker_service *s = &w->service;
    struct timespec        until = after(timeout_ms);
    bool                   drained;

    pthread_mutex_lock(&s->lock);
    while (!s->drained && timeout_ms > 0 &&
           pthread_cond_timedwait(&s->settled, &s->lock, &until) == 0)
        continue;
    drained = s->drained;
    pthread_mutex_unlock(&s->lock);
    return drained;
}

void worker_get_stats(struct mcp_worker *w, mcp_worker_stats *stats)
{
    struct worker_service    *s = &w->service;
    struct worker_table_stats table;
    struct net_server_stats   net;

    net_server_get_stats(w->server, &net);
    pthread_mutex_lock(&s->lock);
    worker_table_get_stats(s->table, &table);
    *stats = (mcp_worker_stats){ .sessions = table.sessions,
                                 .sessions_max = s->limits.sessions_max,
                                 .connections = (uint32_t)net.connections_open,
                                 .sessions_opened = table.opened,
                                 .sessions_resumed = table.resumed,
                                 .sessions_refused = table.refused_full + table.refused_denied,
                                 .sessions_evicted = table.evicted,
                                 .windows = s->meters.windows,
                                 .positions = s->meters.positions,
                                 .batches = table.batches,
                                 .bytes_in = net.bytes_in,
                                 .bytes_out = net.bytes_out,
                                 .hostile = net.hostile,
                                 .compute_ms = table.compute_ms,
                                 .tokens_per_second = table.tokens_per_second,
                                 .draining = atomic_load(&s->draining) };
    pthread_mutex_unlock(&s->lock);
}
