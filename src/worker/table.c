/* worker/table.c - see table.h: limits, memory, acts, the tick, figures.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/table_private.h"

#include "base/fail.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TOKENS_MAX = 1 << 20, /* arbitrary but safe: sums of them fit 32 bits */
    WEIGHT_MAX = 1000,    /* a class that weighs less than this has a turn within seconds */
    /* tokens_per_second forgets within about so long. */
    SPEED_MS = 2000,
};

static const double duration_ms_max = 1e12; /* 30 years */

/* ---- limits --------------------------------------------------------------------------- */

struct worker_limits worker_limits_default(void)
{
    return (struct worker_limits){
        .chunk_tokens = 256,
        .decode_tokens = 16,
        .windows_max = 64,
        .queue_bytes_max = 64u << 20,
        .queue_bytes_all = 1u << 30,
        .lease_ms = 30000,
        .detached_keep_ms = 5000,
        .weight = { [WIRE_QOS_NORMAL] = 4, [WIRE_QOS_REALTIME] = 16, [WIRE_QOS_BATCH] = 1 },
    };
}

static int check_numbers(const struct worker_limits *l, mcp_error *err)
{
    const struct {
        const char *name;
        uint64_t    value, least, most;
    } rows[] = {
        { "sessions_max", l->sessions_max, 1, WORKER_SESSIONS_MAX },
        { "ctx_tokens", l->ctx_tokens, 1, INT32_MAX },
        { "last", l->last, (uint64_t)l->first + 1, INT32_MAX },
        { "batch_tokens", l->batch_tokens, 1, TOKENS_MAX },
        { "chunk_tokens", l->chunk_tokens, 64, TOKENS_MAX },
        { "decode_tokens", l->decode_tokens, 1, l->batch_tokens },
        { "windows_max", l->windows_max, 1, WORKER_WINDOWS_MAX },
        { "queue_bytes_max", l->queue_bytes_max, 1, UINT64_MAX },
        { "queue_bytes_all", l->queue_bytes_all, 1, UINT64_MAX },
        { "weight of normal", l->weight[WIRE_QOS_NORMAL], 1, WEIGHT_MAX },
        { "weight of realtime", l->weight[WIRE_QOS_REALTIME], 1, WEIGHT_MAX },
        { "weight of batch", l->weight[WIRE_QOS_BATCH], 1, WEIGHT_MAX },
        { "reservation_count", l->reservation_count, 0, WORKER_RESERVATIONS_MAX },
    };
    const struct {
        const char *name;
        double      value;
    } durations[] = {
        { "lease_ms", l->lease_ms },
        { "detached_keep_ms", l->detached_keep_ms },
        { "idle_ms", l->idle_ms },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].value < rows[i].least || rows[i].value > rows[i].most)
            return base_fail(err, MCP_EINVAL,
                             "%s is %" PRIu64 ", it must be %" PRIu64 " to %" PRIu64, rows[i].name,
                             rows[i].value, rows[i].least, rows[i].most);
    for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++)
        if (!(durations[i].value >= 0 && durations[i].value <= duration_ms_max))
            return base_fail(err, MCP_EINVAL, "%s is %g, it must be 0 to %g", durations[i].name,
                             durations[i].value, duration_ms_max);
    return MCP_OK;
}

static int check_reservations(const struct worker_limits *l, mcp_error *err)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < l->reservation_count; i++) {
        const struct worker_reservation *r = &l->reservations[i];

        if (memchr(r->subject, '\0', sizeof(r->subject)) == NULL || r->subject[0] == '\0')
            return base_fail(err, MCP_EINVAL,
                             "reservation %u needs a subject of 1 to %zu bytes (--reserve)", i,
                             sizeof(r->subject) - 1);
        if (r->sessions == 0)
            return base_fail(err, MCP_EINVAL, "0 sessions are reserved for %s (--reserve)",
                             r->subject);
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(l->reservations[j].subject, r->subject) == 0)
                return base_fail(err, MCP_EINVAL, "two reservations for %s (--reserve)",
                                 r->subject);
        sum += r->sessions;
    }
    if (sum > l->sessions_max)
        return base_fail(err, MCP_EINVAL,
                         "%" PRIu64 " sessions are reserved (--reserve), there are %u (-np)", sum,
                         l->sessions_max);
    return MCP_OK;
}

/* ---- memory --------------------------------------------------------------------------- */

static bool take_memory(struct worker_table *t)
{
    size_t sessions = t->limits.sessions_max;

    t->subjects_max = t->limits.sessions_max + t->limits.reservation_count + TABLE_SUBJECTS_SPARE;
    /* A call ends at most every session and one more stream, and acts are taken after each. */
    t->ends_max = t->limits.sessions_max + 1;

    t->pool = calloc(2 * sessions, sizeof(*t->pool));
    t->unused = calloc(2 * sessions, sizeof(struct worker_session *));
    t->live = calloc(sessions, sizeof(struct worker_session *));
    t->ready = calloc(sessions, sizeof(struct worker_session *));
    t->slot_used = calloc(sessions, sizeof(*t->slot_used));
    t->slot_dirty = calloc(sessions, sizeof(*t->slot_dirty));
    t->subjects = calloc(t->subjects_max, sizeof(*t->subjects));
    t->ends = calloc(t->ends_max, sizeof(*t->ends));
    for (int lane = 0; lane < TABLE_LANES; lane++) {
        t->items[lane] = calloc(sessions, sizeof(*t->items[lane]));
        t->clears[lane] = calloc(sessions, sizeof(*t->clears[lane]));
        if (t->items[lane] == NULL || t->clears[lane] == NULL)
            return false;
    }
    return t->pool != NULL && t->unused != NULL && t->live != NULL && t->ready != NULL &&
           t->slot_used != NULL && t->slot_dirty != NULL && t->subjects != NULL &&
           t->ends != NULL && table_batch_init(t);
}

int worker_table_new(struct worker_table **out, const struct worker_limits *limits, mcp_error *err)
{
    struct worker_table *t;
    int                  rc;

    *out = NULL;
    rc = check_numbers(limits, err);
    if (rc == MCP_OK)
        rc = check_reservations(limits, err);
    if (rc < 0)
        return rc;
    t = calloc(1, sizeof(*t));
    if (t == NULL)
        return base_fail(err, MCP_ENOMEM, "session table");
    t->limits = *limits;
    if (!take_memory(t)) {
        worker_table_free(t);
        return base_fail(err, MCP_ENOMEM, "session table of %u sessions", limits->sessions_max);
    }
    while (t->unused_count < 2 * limits->sessions_max) {
        t->unused[t->unused_count] = &t->pool[t->unused_count];
        t->unused_count++;
    }
    for (uint32_t i = 0; i < limits->reservation_count; i++)
        table_subject_take(t, limits->reservations[i].subject)->reserved =
            limits->reservations[i].sessions;
    *out = t;
    return MCP_OK;
}

void worker_table_free(struct worker_table *t)
{
    if (t == NULL)
        return;
    table_batch_fini(t);
    free(t->pool);
    free(t->unused);
    free(t->live);
    free(t->ready);
    free(t->slot_used);
    free(t->slot_dirty);
    free(t->subjects);
    free(t->ends);
    for (int lane = 0; lane < TABLE_LANES; lane++) {
        free(t->items[lane]);
        free(t->clears[lane]);
    }
    free(t);
}

/* ---- acts ----------------------------------------------------------------------------- */

void table_end_note(struct worker_table *t, void *stream, enum table_why why)
{
    assert(t->ends_count < t->ends_max); /* else the caller has not taken its acts */
    t->ends[(t->ends_first + t->ends_count++) % t->ends_max] = (struct table_end){ stream, why };
}

static struct wire_status status_of(const struct worker_table *t, enum table_why why)
{
    const struct worker_limits *l = &t->limits;
    struct wire_status          status = { .code = WIRE_UNAVAILABLE };
    char                       *text = status.text;
    size_t                      bytes = sizeof(status.text);

    switch (why) {
    case TABLE_TAKEN_OVER:
        status.code = WIRE_CANCELLED;
        snprintf(text, bytes, "the session was resumed on another stream");
        break;
    case TABLE_LEASE_OVER:
        snprintf(text, bytes, "the session had no stream for %.0f ms (lease_ms)", l->lease_ms);
        break;
    case TABLE_IDLE:
        snprintf(text, bytes, "the session had no window for %.0f ms (idle_ms)", l->idle_ms);
        break;
    case TABLE_MADE_ROOM:
        snprintf(text, bytes, "the session had no stream and made room for another");
        break;
    case TABLE_CALLED_BACK:
        status.retry_after_ms = worker_table_retry_ms(t, t->now_ms);
        snprintf(text, bytes,
                 "the session's place was reserved for another subject (--reserve), which came; "
                 "come again in %u ms",
                 status.retry_after_ms);
        break;
    }
    return status;
}

/* Works first: an expired one may still refer to a stream that ends. */
bool worker_table_act(struct worker_table *t, struct worker_act *act)
{
    struct worker_work *work = t->dropped;
    struct table_end    end;

    if (work != NULL) {
        t->dropped = work->next;
        work->next = NULL;
        *act = (struct worker_act){
            .kind = WORKER_ACT_DROP, .stream = work->stream, .work = work, .expired = work->expired
        };
        return true;
    }
    if (t->ends_count == 0)
        return false;
    end = t->ends[t->ends_first];
    t->ends_first = (t->ends_first + 1) % t->ends_max;
    t->ends_count--;
    *act = (struct worker_act){ .kind = WORKER_ACT_END,
                                .stream = end.stream,
                                .status = status_of(t, end.why) };
    return true;
}

/* ---- time ----------------------------------------------------------------------------- */

double table_session_expires_ms(const struct worker_table *t, const struct worker_session *s)
{
    if (s->info.stream == NULL)
        return s->detached_ms + t->limits.lease_ms;
    if (t->limits.idle_ms > 0 && s->info.queued_windows == 0)
        return s->active_ms + t->limits.idle_ms;
    return 0;
}

void worker_table_tick(struct worker_table *t, double now_ms)
{
    table_note_time(t, now_ms);
    for (uint32_t i = t->live_count; i-- > 0;) { /* downwards: an end moves the last one here */
        struct worker_session *s = t->live[i];
        bool                   detached = s->info.stream == NULL;
        double                 expires_ms;

        table_queue_expire(t, s, now_ms);
        expires_ms = table_session_expires_ms(t, s);
        if (expires_ms <= 0 || expires_ms > now_ms)
            continue;
        table_end_note(t, s->info.stream, detached ? TABLE_LEASE_OVER : TABLE_IDLE);
        t->stats.expired_leases += detached;
        table_session_end(t, now_ms, s);
    }
}

void worker_table_drain(struct worker_table *t)
{
    t->draining = true;
}

/* ---- figures -------------------------------------------------------------------------- */

/* Tokens a millisecond, by an average that forgets exponentially. */
static double speed_now(const struct worker_table *t)
{
    return t->speed * exp((t->speed_ms - t->now_ms) / SPEED_MS);
}

void table_note_speed(struct worker_table *t, uint32_t tokens)
{
    t->speed = speed_now(t) + (double)tokens / SPEED_MS;
    t->speed_ms = t->now_ms;
}

void worker_table_get_stats(const struct worker_table *t, struct worker_table_stats *stats)
{
    *stats = t->stats;
    stats->sessions = t->live_count;
    stats->sessions_free = t->limits.sessions_max - t->live_count;
    stats->tokens_per_second = speed_now(t) * 1e3;
    for (uint32_t i = 0; i < t->live_count; i++)
        stats->detached += t->live[i]->info.stream == NULL;
    for (uint32_t i = 0; i < t->ready_count; i++) {
        const struct worker_session *s = t->ready[i];
        double                      *longest = &stats->queue_wait_ms[s->info.qos];
        double                       wait_ms = t->now_ms - s->head->came_ms;

        *longest = wait_ms > *longest ? wait_ms : *longest;
    }
}
