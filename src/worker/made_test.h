/* worker/made_test.h - a session table, and one line for each thing that happens to it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_MADE_TEST_H
#define WORKER_MADE_TEST_H

#include "base/unit_test.h"
#include "worker/table.h"

enum { MADE_WORKS = 256 };

struct made {
    struct worker_limits limits;
    struct worker_table *t;
    double               now_ms;
    struct worker_work   works[MADE_WORKS]; /* in turn: none may be queued for longer */
    uint32_t             next;
    struct worker_batch  batch; /* the one that runs */
};

/* What a client says when it opens; zeroes are what it usually says. */
struct made_open {
    uint8_t             id;
    const char         *subject; /* "team" */
    enum wire_qos       qos;
    bool                resume;
    uint32_t            first, last; /* the whole range */
    uint32_t            ctx_tokens;
    uint32_t            tokens_per_minute;
    enum guard_priority no_priority; /* lower than realtime by so much */
    uint32_t            grant_first, grant_last;
};

static inline void *made_stream(uintptr_t number)
{
    static char streams[512];

    return &streams[number];
}

/* Layers [4, 12), 64 slots of 100,000 positions; forwards of 512 tokens.  Change m->limits,
 * then made_start(). */
static inline void made_init(struct made *m)
{
    memset(m, 0, sizeof(*m));
    m->now_ms = 1000;
    m->limits = worker_limits_default();
    m->limits.sessions_max = 64;
    m->limits.ctx_tokens = 100000;
    m->limits.first = 4;
    m->limits.last = 12;
    m->limits.batch_tokens = 512;
}

static inline void made_start(struct made *m)
{
    mcp_error err;

    unit_ok(worker_table_new(&m->t, &m->limits, &err), &err);
}

static inline void made_new(struct made *m)
{
    made_init(m);
    made_start(m);
}

static inline void made_free(struct made *m)
{
    worker_table_free(m->t);
}

/* Open on stream `stream`. */
static inline int made_try(struct made *m, struct made_open o, uintptr_t stream,
                           struct worker_session **s, uint32_t *retry_ms, mcp_error *err)
{
    struct wire_open   open = { .session = { o.id },
                                .first = o.last != 0 ? o.first : m->limits.first,
                                .last = o.last != 0 ? o.last : m->limits.last,
                                .ctx_tokens = o.ctx_tokens,
                                .qos = o.qos,
                                .resume = o.resume };
    struct guard_grant grant = { .priority = GUARD_REALTIME - o.no_priority,
                                 .first = o.grant_first,
                                 .last = o.grant_last,
                                 .tokens_per_minute = o.tokens_per_minute };

    snprintf(grant.subject, sizeof(grant.subject), "%s", o.subject != NULL ? o.subject : "team");
    return worker_table_open(m->t, m->now_ms, &open, &grant, made_stream(stream), s, retry_ms, err);
}

/* The same, on the stream with the number of the id; it must be granted. */
static inline struct worker_session *made_open(struct made *m, struct made_open o)
{
    struct worker_session *s;
    uint32_t               retry_ms;
    mcp_error              err;

    unit_ok(made_try(m, o, o.id, &s, &retry_ms, &err), &err);
    assert_non_null(s);
    assert_int_equal(retry_ms, 0);
    return s;
}

static inline struct worker_work *made_work(struct made *m, const struct worker_session *s,
                                            uint32_t count)
{
    const struct worker_session_info *info = worker_session_info(s);
    struct worker_work               *work = &m->works[m->next++ % MADE_WORKS];

    *work = (struct worker_work){
        .number = m->next, .epoch = info->epoch, .pos = info->queued_pos, .count = count
    };
    return work;
}

static inline struct worker_work *made_queue(struct made *m, struct worker_session *s,
                                             struct worker_work *work)
{
    mcp_error err;

    unit_ok(worker_table_push(m->t, m->now_ms, s, work, &err), &err);
    return work;
}

/* A window of `count` positions, where the session goes on. */
static inline struct worker_work *made_push(struct made *m, struct worker_session *s,
                                            uint32_t count)
{
    return made_queue(m, s, made_work(m, s, count));
}

static inline struct worker_work *made_exclusive(struct made *m, struct worker_session *s)
{
    struct worker_work *work = made_work(m, s, 0);

    work->pos = 0;
    work->exclusive = true;
    return made_queue(m, s, work);
}

static inline void made_next(struct made *m)
{
    double wake_ms;

    assert_true(worker_table_next(m->t, m->now_ms, &m->batch, &wake_ms));
}

/* Nothing can run; returns when that changes. */
static inline double made_idle(struct made *m)
{
    double wake_ms = -1;

    assert_false(worker_table_next(m->t, m->now_ms, &m->batch, &wake_ms));
    return wake_ms;
}

static inline void made_done(struct made *m)
{
    worker_table_done(m->t, m->now_ms, &m->batch, 1.0);
}

/* One batch after the other until nothing runs; returns how many. */
static inline uint32_t made_run(struct made *m)
{
    double   wake_ms;
    uint32_t count = 0;

    while (worker_table_next(m->t, m->now_ms, &m->batch, &wake_ms)) {
        made_done(m);
        count++;
    }
    return count;
}

/* The item of `s` in the batch; NULL when it has none. */
static inline const struct worker_item *made_item(const struct made           *m,
                                                  const struct worker_session *s)
{
    for (uint32_t i = 0; i < m->batch.count; i++)
        if (m->batch.items[i].session == s)
            return &m->batch.items[i];
    return NULL;
}

/* The next act drops `work`. */
static inline void made_dropped(struct made *m, const struct worker_work *work, bool expired)
{
    struct worker_act act;

    assert_true(worker_table_act(m->t, &act));
    assert_int_equal(act.kind, WORKER_ACT_DROP);
    assert_ptr_equal(act.work, work);
    assert_int_equal(act.expired, expired);
}

/* The next act ends `stream` (NULL: of a detached session). */
static inline void made_ended(struct made *m, const void *stream, int code, const char *about)
{
    struct worker_act act;

    assert_true(worker_table_act(m->t, &act));
    assert_int_equal(act.kind, WORKER_ACT_END);
    assert_ptr_equal(act.stream, stream);
    assert_string_equal(wire_status_name(act.status.code), wire_status_name(code));
    if (strstr(act.status.text, about) == NULL)
        fail_msg("'%s' does not say '%s'", act.status.text, about);
}

static inline void made_no_act(struct made *m)
{
    struct worker_act act;

    assert_false(worker_table_act(m->t, &act));
}

static inline struct worker_table_stats made_stats(const struct made *m)
{
    struct worker_table_stats stats;

    worker_table_get_stats(m->t, &stats);
    return stats;
}

#endif
