/* worker/table_test.c - limits, memory, figures; and everything at random beside a model.
 *
 * SPDX-License-Identifier: MIT */
#include "base/starve_test.h"
#include "worker/made_test.h"

static uint64_t shadow_seed;
static uint32_t shadow_event;

#define SHADOW_CHECK(condition)                                                        \
    do {                                                                               \
        if (!(condition))                                                              \
            fail_msg("line %d, seed %" PRIu64 ", event %u: %s", __LINE__, shadow_seed, \
                     shadow_event, #condition);                                        \
    } while (0)
#include "worker/shadow_test.h"

/* ---- limits --------------------------------------------------------------------------- */

static void change_limits(struct worker_limits *l, int which)
{
    switch (which) {
    case 0: l->sessions_max = 0; break;
    case 1: l->sessions_max = WORKER_SESSIONS_MAX + 1; break;
    case 2: l->ctx_tokens = 0; break;
    case 3: l->last = l->first; break;
    case 4: l->batch_tokens = 0; break;
    case 5: l->chunk_tokens = 63; break;
    case 6: l->decode_tokens = 0; break;
    case 7: l->decode_tokens = l->batch_tokens + 1; break;
    case 8: l->windows_max = WORKER_WINDOWS_MAX + 1; break;
    case 9: l->queue_bytes_max = 0; break;
    case 10: l->queue_bytes_all = 0; break;
    case 11: l->lease_ms = -1; break;
    case 12: l->detached_keep_ms = 0.0 / 0.0; break;
    case 13: l->idle_ms = 1e300; break;
    case 14: l->weight[WIRE_QOS_BATCH] = 0; break;
    case 15: l->reservation_count = WORKER_RESERVATIONS_MAX + 1; break;
    case 16: l->reservations[0].subject[0] = '\0'; break;
    case 17: memset(l->reservations[0].subject, 'x', GUARD_SUBJECT_BYTES); break;
    case 18: l->reservations[0].sessions = 0; break;
    case 19: l->reservations[0].sessions = 64; break;
    case 20: strcpy(l->reservations[0].subject, "bob"); break;
    default: break;
    }
}

/* Goal:   limits that cannot be kept are refused, each with its name and value. */
static void impossible_limits_are_refused(void **state)
{
    static const char *const about[] = {
        "sessions_max is 0",
        "sessions_max is 1025",
        "ctx_tokens is 0",
        "last is 4, it must be 5",
        "batch_tokens is 0",
        "chunk_tokens is 63",
        "decode_tokens is 0",
        "decode_tokens is 513",
        "windows_max is 257",
        "queue_bytes_max is 0",
        "queue_bytes_all is 0",
        "lease_ms is -1",
        "detached_keep_ms is ",
        "idle_ms is 1e+300",
        "weight of batch is 0",
        "reservation_count is 65",
        "reservation 0",
        "reservation 0",
        "0 sessions are reserved for ann",
        "65 sessions are reserved",
        "two reservations for bob",
    };

    (void)state;
    for (size_t i = 0; i <= UNIT_COUNT(about); i++) {
        struct made m;
        mcp_error   err;
        int         rc;

        made_init(&m);
        m.limits.reservation_count = 2;
        m.limits.reservations[0] = (struct worker_reservation){ "ann", 63 };
        m.limits.reservations[1] = (struct worker_reservation){ "bob", 1 };
        change_limits(&m.limits, (int)i);
        rc = worker_table_new(&m.t, &m.limits, &err);
        if (i < UNIT_COUNT(about)) {
            unit_refused(rc, MCP_EINVAL, &err, about[i]);
            assert_null(m.t);
        } else {
            unit_ok(rc, &err);
        }
        made_free(&m);
    }
}

/* Goal:   no allocation of a new table is taken for granted, and nothing after it allocates.
 * Method: each fails in turn, alone and with all that follow; then a table is used with none
 *         left. */
static void a_table_survives_any_failing_allocation(void **state)
{
    (void)state;
    for (int all_after = 0; all_after < 2; all_after++) {
        bool done = false;

        for (int n = 1; !done; n++) {
            struct made m;
            mcp_error   err;
            int         rc;

            made_init(&m);
            starve_arm(n, all_after);
            rc = worker_table_new(&m.t, &m.limits, &err);
            starve_check(rc, &err);
            assert_true((rc == MCP_OK) == (m.t != NULL));
            worker_table_free(m.t);
            done = starve_disarm() == 0;
            assert_true(n < 100);
        }
    }
    for (int i = 0; i < 2; i++) {
        struct made            m;
        struct worker_session *s;

        made_new(&m);
        starve_arm(1, true);
        s = made_open(&m, (struct made_open){ .id = 1 });
        made_push(&m, s, 300);
        made_exclusive(&m, s);
        made_run(&m);
        worker_table_close(m.t, m.now_ms, s);
        assert_int_equal(starve_disarm(), 0);
        made_free(&m);
    }
}

/* ---- figures -------------------------------------------------------------------------- */

/* Goal:   the figures are those of what happened: positions a second, waits by class, totals. */
static void the_figures_are_those_of_what_happened(void **state)
{
    struct made               m;
    struct worker_session    *s, *batch;
    struct worker_table_stats stats;

    (void)state;
    made_init(&m);
    m.limits.ctx_tokens = 1 << 20;
    made_start(&m);
    s = made_open(&m, (struct made_open){ .id = 1 });
    batch = made_open(&m, (struct made_open){ .id = 2, .qos = WIRE_QOS_BATCH });
    for (int i = 0; i < 1000; i++) { /* 100 positions in 10 ms, for 10 s */
        made_push(&m, s, 100);
        made_next(&m);
        m.now_ms += 10;
        made_done(&m);
    }
    stats = made_stats(&m);
    assert_in_range(stats.tokens_per_second, 9800, 10200);
    assert_int_equal(stats.batches, 1000);
    assert_int_equal(stats.batch_tokens, 100000);
    assert_int_equal(stats.windows_run, 1000);
    assert_true(stats.compute_ms == 1000.0);
    made_push(&m, batch, 30);
    m.now_ms += 70;
    made_push(&m, s, 20);
    m.now_ms += 30;
    worker_table_tick(m.t, m.now_ms);
    stats = made_stats(&m);
    assert_true(stats.queue_wait_ms[WIRE_QOS_BATCH] == 100);
    assert_true(stats.queue_wait_ms[WIRE_QOS_NORMAL] == 30);
    assert_true(stats.queue_wait_ms[WIRE_QOS_REALTIME] == 0);
    assert_int_equal(stats.queued_tokens, 50);
    assert_int_equal(stats.queued_windows, 2);
    m.now_ms += 20000;
    worker_table_tick(m.t, m.now_ms);
    assert_true(made_stats(&m).tokens_per_second < 10);
    made_free(&m);
}

/* ---- everything at random ------------------------------------------------------------- */

/* Goal:   whatever happens in whatever order, the table does what the model in shadow_test.h says:
 *         every window comes back exactly once, positions continue, slots hold what they should.
 * Method: 1000 tables with 1500 events each; MCP_SEED=N MCP_TABLES=1 to see one again. */
static void random_events_agree_with_a_model(void **state)
{
    static struct shadow w;
    const char          *tables = getenv("MCP_TABLES");
    uint64_t run = 0, interruptions = 0, count = tables != NULL ? strtoull(tables, NULL, 0) : 1000;

    (void)state;
    for (uint64_t i = 0; i < count; i++) {
        struct shadow_source source = { .seed = unit_seed() + i };

        shadow_seed = source.seed;
        shadow_init(&w, &source);
        for (shadow_event = 0; shadow_event < 1500; shadow_event++)
            shadow_step(&w);
        shadow_fini(&w);
        run += w.windows_run;
        interruptions += w.interruptions;
    }
    assert_true(run > 20 * count);
    assert_true(interruptions > count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(impossible_limits_are_refused),
        cmocka_unit_test(a_table_survives_any_failing_allocation),
        cmocka_unit_test(the_figures_are_those_of_what_happened),
        cmocka_unit_test(random_events_agree_with_a_model),
    };

    return cmocka_run_group_tests_name("worker/table", tests, NULL, NULL);
}
