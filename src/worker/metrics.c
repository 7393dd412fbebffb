/* worker/metrics.c - a worker's figures in Prometheus' text format (version 0.0.4).
 *
 * The figures are copied under the lock and written without it.  No label is anything that a
 * client chose: the number of lines is fixed.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct figures {
    struct worker_table_stats table;
    struct worker_meters      meters;
    struct net_server_stats   net;
    uint32_t                  sessions_max, calls, streams;
    uint64_t                  unread_bytes;
    bool                      draining, healthy;
};

static void gather(struct mcp_worker *w, struct figures *f)
{
    struct worker_service *s = &w->service;
    char                   degraded[WORKER_PROBLEM_BYTES];

    net_server_get_stats(w->server, &f->net);
    f->healthy = worker_service_healthy(s, degraded);
    f->draining = atomic_load(&s->draining);
    f->unread_bytes = atomic_load(&s->unread_bytes);
    f->sessions_max = s->limits.sessions_max;
    pthread_mutex_lock(&s->lock);
    worker_table_get_stats(s->table, &f->table);
    f->meters = s->meters;
    f->calls = s->call_count;
    f->streams = s->stream_count;
    pthread_mutex_unlock(&s->lock);
}

/* ---- writing ------------------------------------------------------------------------ */

static void head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP mcp_worker_%s %s\n# TYPE mcp_worker_%s %s\n", name, help, name, type);
}

static void histogram(FILE *out, const char *name, const char *help,
                      const struct worker_histogram *h, double unit)
{
    double   bound = h->first;
    uint64_t below = 0;

    head(out, name, "histogram", help);
    for (uint32_t i = 0; i < WORKER_BUCKETS; i++, bound *= 2.0) {
        below += h->bucket[i];
        fprintf(out, "mcp_worker_%s_bucket{le=\"%.9g\"} %" PRIu64 "\n", name, bound * unit, below);
    }
    fprintf(out, "mcp_worker_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, h->count);
    fprintf(out, "mcp_worker_%s_sum %.9g\nmcp_worker_%s_count %" PRIu64 "\n", name, h->sum * unit,
            name, h->count);
}

static void write_numbers(FILE *out, const struct figures *f)
{
    const struct {
        const char *name, *type, *help;
        double      value;
    } rows[] = {
        { "up", "gauge", "1 = takes sessions", f->healthy },
        { "draining", "gauge", "1 = sessions have to move", f->draining },
        { "sessions", "gauge", "sessions held", f->table.sessions },
        { "sessions_max", "gauge", "sessions that can be held", f->sessions_max },
        { "sessions_detached", "gauge", "of them without a stream", f->table.detached },
        { "sessions_opened_total", "counter", "sessions begun", (double)f->table.opened },
        { "sessions_resumed_total", "counter", "sessions resumed on another stream",
          (double)f->table.resumed },
        { "sessions_full_total", "counter", "sessions refused for want of a place",
          (double)f->table.refused_full },
        { "sessions_denied_total", "counter", "sessions refused for want of the right",
          (double)(f->table.refused_denied + f->meters.calls_refused) },
        { "sessions_expired_total", "counter", "sessions whose lease ended",
          (double)f->table.expired_leases },
        { "sessions_evicted_total", "counter", "sessions that made room for others",
          (double)f->table.evicted },
        { "sessions_failed_total", "counter", "sessions ended for what they sent",
          (double)f->meters.failed },
        { "windows_total", "counter", "windows run", (double)f->meters.windows },
        { "windows_dropped_total", "counter", "windows dropped unrun",
          (double)f->table.windows_dropped },
        { "deadlines_missed_total", "counter", "of them past their deadline",
          (double)f->table.deadlines_missed },
        { "positions_total", "counter", "positions computed", (double)f->meters.positions },
        { "tokens_generated_total", "counter", "tokens sampled here",
          (double)f->meters.tokens_generated },
        { "guesses_total", "counter", "tokens guessed here before they were sampled",
          (double)f->meters.guesses },
        { "guesses_right_total", "counter", "of them right", (double)f->meters.guesses_right },
        { "batches_total", "counter", "forwards", (double)f->table.batches },
        { "batch_faults_total", "counter", "forwards that failed for several sessions together",
          (double)f->meters.faults },
        { "compute_seconds_total", "counter", "time in forwards", f->table.compute_ms / 1e3 },
        { "tokens_per_second", "gauge", "positions a second lately", f->table.tokens_per_second },
        { "queued_windows", "gauge", "windows that wait", f->table.queued_windows },
        { "queued_tokens", "gauge", "their positions", (double)f->table.queued_tokens },
        { "queued_bytes", "gauge", "their payload", (double)f->table.queued_bytes },
        { "unread_bytes", "gauge", "answers that wait to be read", (double)f->unread_bytes },
        { "connections", "gauge", "connections open", (double)f->net.connections_open },
        { "connections_total", "counter", "connections accepted", (double)f->net.connections },
        { "connections_refused_total", "counter", "connections and calls refused by net",
          (double)f->net.refused },
        { "connections_hostile_total", "counter", "connections ended for breaking a bound",
          (double)f->net.hostile },
        { "handshakes_failed_total", "counter", "TLS handshakes that failed",
          (double)f->net.handshakes_failed },
        { "calls", "gauge", "Execute and Watch calls open", f->calls },
        { "streams", "gauge", "of them Execute", f->streams },
        { "bytes_in_total", "counter", "bytes received", (double)f->net.bytes_in },
        { "bytes_out_total", "counter", "bytes sent", (double)f->net.bytes_out },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        head(out, rows[i].name, rows[i].type, rows[i].help);
        fprintf(out, "mcp_worker_%s %.17g\n", rows[i].name, rows[i].value);
    }
}

static void write_waits(FILE *out, const struct figures *f)
{
    static const char *const classes[] = {
        [WIRE_QOS_NORMAL] = "normal", [WIRE_QOS_REALTIME] = "realtime", [WIRE_QOS_BATCH] = "batch"
    };

    head(out, "longest_wait_seconds", "gauge", "of the windows that wait now");
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
        fprintf(out, "mcp_worker_longest_wait_seconds{qos=\"%s\"} %.9g\n", classes[i],
                f->table.queue_wait_ms[i] / 1e3);
}

char *worker_metrics(struct mcp_worker *w)
{
    struct figures f;
    char          *text = NULL;
    size_t         bytes = 0;
    FILE          *out = open_memstream(&text, &bytes);
    bool           bad;

    if (out == NULL)
        return NULL;
    gather(w, &f);
    write_numbers(out, &f);
    write_waits(out, &f);
    histogram(out, "batch_tokens", "positions in a forward", &f.meters.batch_tokens, 1.0);
    histogram(out, "queue_seconds", "a window's wait before it ran", &f.meters.queue_ms, 1e-3);
    histogram(out, "forward_seconds", "time of a forward", &f.meters.compute_ms, 1e-3);
    bad = ferror(out) != 0;
    bad = fclose(out) != 0 || bad;
    if (bad) {
        free(text);
        return NULL;
    }
    return text;
}
