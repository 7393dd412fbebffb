/* agent/session.c - see session.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/session.h"

#include "agent/ahead.h"
#include "agent/layout.h"
#include "agent/steer.h"
#include "base/fail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FAILOVER_MS = 10000,
    ANSWER_MS = 120000,
};

/* ---- opening and closing -------------------------------------------------------------------------- */

int session_open(struct mcp_session **out, struct mcp_engine *engine, const mcp_session_opts *opts,
                 mcp_error *err)
{
    struct mcp_session *s = calloc(1, sizeof(*s));
    mcp_session_opts    laid = *opts;
    int                 rc;

    *out = NULL;
    if (s == NULL)
        return base_fail(err, MCP_ENOMEM, "session");
    pthread_mutex_init(&s->engine_lock, NULL);
    s->seq = opts->seq;
    s->model = engine != NULL ? engine->model : opts->model;
    s->mixed = opts->mixed_weights != 0;
    s->qos = (enum wire_qos)opts->qos;
    s->spec = opts->spec;
    s->spec_depth = opts->spec_depth;
    s->failover_ms = opts->failover_ms_max != 0 ? opts->failover_ms_max : FAILOVER_MS;
    s->answer_ms = opts->answer_ms_max != 0 ? opts->answer_ms_max : ANSWER_MS;
    s->endpoint_next = PIPE_NO_ENDPOINT + 1;
    s->jobs_last = &s->jobs;
    if (s->model == NULL && opts->stage_count > 0 && opts->stages[0].engine != NULL)
        s->model = opts->stages[0].engine->model;
    rc = s->model == NULL ? base_fail(err, MCP_EINVAL, "a session needs an engine or a model")
                          : steer_new(&s->steer, opts, err);
    if (rc == MCP_OK && s->steer != NULL)
        rc = steer_layout(s->steer, &laid, err);
    if (rc == MCP_OK)
        rc = layout_open(s, engine, &laid, err);
    if (rc < 0)
        goto out;
    *out = s;
    s = NULL;
out:
    session_close(s);
    return rc;
}

void session_close(struct mcp_session *s)
{
    if (s == NULL)
        return;
    layout_close(s);
    steer_free(s->steer);
    free(s->tokens);
    free(s->wide);
    pthread_mutex_destroy(&s->engine_lock);
    free(s);
}

void session_cancel(struct mcp_session *s)
{
    atomic_store(&s->cancel, 1);
    pthread_mutex_lock(&s->engine_lock);
    if (s->engine != NULL)
        atomic_store(&s->engine->cancel, 1);
    pthread_mutex_unlock(&s->engine_lock);
}

bool session_cancelled(struct mcp_session *s)
{
    bool cancelled = atomic_exchange(&s->cancel, 0) != 0;

    if (s->engine != NULL && atomic_load(&s->engine->cancel) != 0) {
        atomic_store(&s->engine->cancel, 0);
        cancelled = true;
    }
    return cancelled;
}

/* ---- what it took ---------------------------------------------------------------------------------------- */

static void where(const struct mcp_session *s, const struct session_stage *stage, char *text,
                  size_t cap)
{
    mcp_worker_info info;

    if (stage->engine != NULL)
        snprintf(text, cap, "here: %.80s", stage->engine->info.devices);
    else if (stage->worker < 0 || remote_get_worker(s->remote, (uint32_t)stage->worker, &info) < 0)
        snprintf(text, cap, "nowhere yet");
    else
        snprintf(text, cap, "%.60s (%.30s)", info.endpoint, info.name);
}

/* Each engine once, however many stages run on it. */
static void engines_here(const struct mcp_session *s, mcp_session_stats *stats)
{
    stats->weight_bytes = stats->kv_bytes = stats->compute_bytes = 0;
    stats->devices[0] = '\0';
    for (uint32_t i = 0; i < s->stage_count; i++) {
        const struct mcp_engine *e = s->stages[i].engine;
        bool                     counted = e == NULL;

        for (uint32_t k = 0; k < i; k++)
            counted = counted || s->stages[k].engine == e;
        if (counted)
            continue;
        stats->weight_bytes += e->info.weight_bytes;
        stats->kv_bytes += e->info.kv_bytes;
        stats->compute_bytes += e->info.compute_bytes;
        if (stats->devices[0] == '\0')
            snprintf(stats->devices, sizeof(stats->devices), "%s", e->info.devices);
    }
}

void session_stats(const struct mcp_session *s, mcp_session_stats *stats)
{
    uint32_t size = stats->struct_size;

    *stats = s->before;
    stats->struct_size = size;
    stats->bytes_out += s->bytes_out;
    stats->bytes_in += s->bytes_in;
    for (const struct session_endpoint *e = s->endpoints; e != NULL; e = e->next) {
        uint64_t out, in;

        if (e->remote == NULL)
            continue;
        endpoint_bytes(e->remote, &out, &in);
        stats->bytes_out += out;
        stats->bytes_in += in;
    }
    stats->windows = s->windows;
    stats->failovers += s->cloud_failovers;
    stats->stall_ms_max = s->stall_ms_max;
    snprintf(stats->codec, sizeof(stats->codec), "%s", s->codec_name);
    if (s->ahead != NULL)
        ahead_stats(s->ahead, stats);
    stats->drafted += s->cloud_guessed;
    stats->drafted_seen += s->cloud_seen;
    stats->accepted += s->cloud_right;
    if (s->steer != NULL)
        steer_stats(s->steer, stats);
    stats->ctx_tokens = s->ctx_tokens;
    memcpy(stats->codec_windows, s->codec_windows, sizeof(s->codec_windows));
    engines_here(s, stats);
    stats->stage_count = s->stage_count;
    for (uint32_t i = 0; i < s->stage_count; i++) {
        struct pipeline_stage_stats p = { 0 };

        if (s->pipeline != NULL)
            pipeline_get_stats(s->pipeline, i, &p);
        stats->failovers += (uint32_t)p.failovers;
        stats->handovers += (uint32_t)p.handovers;
        if (i >= MCP_STAGE_STATS_MAX)
            continue;
        stats->stages[i] = (mcp_stage_stats){ .first = s->stages[i].first,
                                              .last = s->stages[i].last,
                                              .windows = p.windows,
                                              .positions = p.positions,
                                              .elapsed_ms = p.elapsed_ms,
                                              .queue_ms = p.queue_ms,
                                              .compute_ms = p.compute_ms,
                                              .failovers = (uint32_t)p.failovers,
                                              .handovers = (uint32_t)p.handovers,
                                              .replayed_positions = p.replayed_positions };
        where(s, &s->stages[i], stats->stages[i].where, sizeof(stats->stages[i].where));
    }
}
