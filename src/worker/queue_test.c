/* worker/queue_test.c - a session's windows: queued, trimmed, voided, expired, given back once.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/made_test.h"

/* ---- push ----------------------------------------------------------------------------- */

/* Goal:   a window that does not continue its session, or is beyond a bound, is refused with the
 *         reason, and changes nothing. */
static void a_window_that_does_not_fit_is_refused(void **state)
{
    static const struct {
        uint32_t    pos, count, epoch;
        uint64_t    bytes;
        int         code;
        const char *about;
    } cases[] = {
        { 9, 1, 1, 0, MCP_ERANGE, "begins at position 9, the session goes on at 10" },
        { 11, 1, 1, 0, MCP_ERANGE, "begins at position 11" },
        { UINT32_MAX, 1, 1, 0, MCP_ERANGE, "begins at position 4294967295" },
        { 10, 0, 1, 0, MCP_EINVAL, "has no position" },
        { 10, 513, 1, 0, MCP_ERANGE, "has 513 positions, at most 512 (batch_tokens)" },
        { 10, UINT32_MAX, 1, 0, MCP_ERANGE, "has 4294967295 positions" },
        { 10, 91, 1, 0, MCP_ERANGE, "ends at position 101, the session has 100" },
        { 10, 1, 2, 0, MCP_EINVAL, "epoch 2, the session is in epoch 1" },
        { 10, 1, 1, 901, MCP_EBUSY, "901 bytes behind 100, at most 1000 a session" },
        { 10, 1, 1, UINT64_MAX, MCP_EBUSY, "queue_bytes_max" },
        { 10, 1, 1, 600, MCP_EBUSY, "behind 1000 of all sessions, at most 1500" },
    };
    struct made            m;
    struct worker_session *s, *other;
    struct worker_work    *work;
    mcp_error              err;

    (void)state;
    made_init(&m);
    m.limits.queue_bytes_max = 1000;
    m.limits.queue_bytes_all = 1500;
    m.limits.windows_max = 3;
    made_start(&m);
    s = made_open(&m, (struct made_open){ .id = 1, .ctx_tokens = 100 });
    other = made_open(&m, (struct made_open){ .id = 2 });
    unit_ok(worker_table_trim(m.t, m.now_ms, s, 1, 0, &err), &err);
    work = made_work(&m, s, 10);
    work->bytes = 100;
    made_queue(&m, s, work);
    work = made_work(&m, other, 1);
    work->bytes = 900;
    made_queue(&m, other, work);
    for (size_t i = 0; i < UNIT_COUNT(cases); i++) {
        work = made_work(&m, s, cases[i].count);
        work->pos = cases[i].pos;
        work->epoch = cases[i].epoch;
        work->bytes = cases[i].bytes;
        unit_refused(worker_table_push(m.t, m.now_ms, s, work, &err), cases[i].code, &err,
                     cases[i].about);
        made_no_act(&m);
    }
    assert_int_equal(worker_session_info(s)->queued_windows, 1);
    assert_int_equal(made_stats(&m).queued_bytes, 1000);

    made_push(&m, s, 1);
    made_exclusive(&m, s);
    unit_refused(worker_table_push(m.t, m.now_ms, s, made_work(&m, s, 1), &err), MCP_EBUSY, &err,
                 "3 windows wait, at most 3 a session (windows_max)");
    made_next(&m); /* one that runs is not answered yet: it counts */
    unit_refused(worker_table_push(m.t, m.now_ms, s, made_work(&m, s, 1), &err), MCP_EBUSY, &err,
                 "windows_max");
    made_done(&m);
    made_push(&m, s, 89);
    unit_refused(worker_table_push(m.t, m.now_ms, s, made_work(&m, s, 1), &err), MCP_ERANGE, &err,
                 "ends at position 101");
    made_free(&m);
}

/* Goal:   a window of an older epoch, sent before the Trim was known, is dropped and no failure. */
static void a_window_of_an_older_epoch_is_dropped(void **state)
{
    struct made            m;
    struct worker_session *s;
    struct worker_work    *late;
    mcp_error              err;

    (void)state;
    made_new(&m);
    s = made_open(&m, (struct made_open){ .id = 1 });
    late = made_work(&m, s, 5);
    unit_ok(worker_table_trim(m.t, m.now_ms, s, 3, 0, &err), &err);
    made_queue(&m, s, late);
    made_dropped(&m, late, false);
    made_no_act(&m);
    assert_int_equal(worker_session_info(s)->queued_pos, 0);
    assert_int_equal(worker_session_info(s)->queued_windows, 0);
    assert_int_equal(made_stats(&m).windows_dropped, 1);
    made_free(&m);
}

/* ---- trim ----------------------------------------------------------------------------- */

/* Goal:   a trim drops what waits, makes what runs void, and reaches the slot with the next
 *         item. */
static void a_trim_drops_what_waits_and_voids_what_runs(void **state)
{
    struct made            m;
    struct worker_session *s;
    struct worker_work    *works[3];
    mcp_error              err;

    (void)state;
    made_new(&m);
    s = made_open(&m, (struct made_open){ .id = 1 });
    made_push(&m, s, 10);
    made_run(&m);
    for (int i = 0; i < 3; i++)
        works[i] = made_push(&m, s, 5);
    made_next(&m);
    assert_ptr_equal(m.batch.items[0].work, works[0]);
    assert_int_equal(m.batch.items[0].trim_to, UINT32_MAX);

    unit_refused(worker_table_trim(m.t, m.now_ms, s, 0, 3, &err), MCP_EINVAL, &err, "epoch 0");
    unit_refused(worker_table_trim(m.t, m.now_ms, s, 1, 16, &err), MCP_ERANGE, &err,
                 "position 16, the session has 15");
    assert_false(worker_item_void(m.t, &m.batch.items[0]));
    unit_ok(worker_table_trim(m.t, m.now_ms, s, 1, 13, &err), &err); /* inside what runs */
    made_dropped(&m, works[1], false);
    made_dropped(&m, works[2], false);
    made_no_act(&m);
    assert_true(worker_item_void(m.t, &m.batch.items[0]));
    assert_int_equal(worker_session_info(s)->length, 13);
    unit_refused(worker_table_trim(m.t, m.now_ms, s, 2, 14, &err), MCP_ERANGE, &err, "has 13");
    unit_ok(worker_table_trim(m.t, m.now_ms, s, 2, 7, &err), &err);
    works[1] = made_push(&m, s, 4);
    assert_int_equal(works[1]->pos, 7);
    made_done(&m);
    made_no_act(&m); /* the void one came back with the batch */
    assert_int_equal(worker_session_info(s)->length, 7);
    made_next(&m);
    assert_ptr_equal(m.batch.items[0].work, works[1]);
    assert_int_equal(m.batch.items[0].trim_to, 7);
    made_done(&m);
    assert_int_equal(worker_session_info(s)->length, 11);
    made_push(&m, s, 1);
    made_next(&m);
    assert_int_equal(m.batch.items[0].trim_to, UINT32_MAX); /* once is enough */
    made_free(&m);
}

/* Goal:   a window that has begun is dropped by a trim, when it waits and when a piece of it runs;
 *         its positions go with it. */
static void a_trim_drops_a_window_that_has_begun(void **state)
{
    (void)state;
    for (int running = 0; running < 2; running++) {
        struct made            m;
        struct worker_session *s, *decoder;
        struct worker_work    *work;
        mcp_error              err;

        made_new(&m);
        s = made_open(&m, (struct made_open){ .id = 1 });
        decoder = made_open(&m, (struct made_open){ .id = 2 });
        made_push(&m, s, 10);
        made_push(&m, decoder, 1);
        made_run(&m);
        work = made_push(&m, s, 500);
        made_next(&m);
        assert_int_equal(m.batch.items[0].count, 256);
        assert_false(m.batch.items[0].last);
        if (!running)
            made_done(&m);
        assert_int_equal(worker_session_info(s)->length, 10);
        unit_refused(worker_table_trim(m.t, m.now_ms, s, 1, 11, &err), MCP_ERANGE, &err, "has 10");
        unit_ok(worker_table_trim(m.t, m.now_ms, s, 1, 10, &err), &err);
        if (running) {
            made_no_act(&m); /* it is in use */
            assert_true(worker_item_void(m.t, &m.batch.items[0]));
            made_done(&m);
        }
        made_dropped(&m, work, false);
        made_no_act(&m);
        made_push(&m, s, 3);
        made_next(&m);
        assert_int_equal(m.batch.items[0].pos, 10);
        assert_int_equal(m.batch.items[0].trim_to, 10);
        made_done(&m);
        assert_int_equal(made_stats(&m).queued_tokens, 0);
        made_free(&m);
    }
}

/* ---- streams come and go -------------------------------------------------------------- */

/* Goal:   resuming takes the session over: the old stream ends, what waited or ran for it is void,
 *         and the session goes on where its last whole window ended. */
static void resuming_takes_the_session_over(void **state)
{
    struct made            m;
    struct worker_session *s, *again;
    struct worker_work    *waiting;
    uint32_t               retry_ms;
    mcp_error              err;

    (void)state;
    made_new(&m);
    s = made_open(&m, (struct made_open){ .id = 1, .ctx_tokens = 50, .no_priority = 1 });
    unit_ok(worker_table_trim(m.t, m.now_ms, s, 4, 0, &err), &err);
    made_push(&m, s, 10);
    made_run(&m);
    made_push(&m, s, 5);
    waiting = made_push(&m, s, 5);
    made_next(&m);
    unit_ok(made_try(&m,
                     (struct made_open){
                         .id = 1, .resume = true, .qos = WIRE_QOS_REALTIME, .ctx_tokens = 60 },
                     2, &again, &retry_ms, &err),
            &err);
    assert_ptr_equal(again, s);
    made_dropped(&m, waiting, false);
    made_ended(&m, made_stream(1), WIRE_CANCELLED, "another stream");
    made_no_act(&m);
    assert_true(worker_item_void(m.t, &m.batch.items[0]));
    assert_ptr_equal(worker_session_info(s)->stream, made_stream(2));
    assert_int_equal(worker_session_info(s)->qos, WIRE_QOS_REALTIME);
    assert_int_equal(worker_session_info(s)->ctx_tokens, 60);
    assert_int_equal(worker_session_info(s)->grant->priority, GUARD_REALTIME);
    assert_int_equal(worker_session_info(s)->epoch, 4);
    assert_int_equal(worker_session_info(s)->length, 10);
    made_push(&m, s, 6);
    made_done(&m);
    made_next(&m);
    assert_int_equal(m.batch.items[0].pos, 10);
    assert_int_equal(m.batch.items[0].trim_to, 10);
    made_done(&m);
    assert_int_equal(worker_session_info(s)->length, 16);
    assert_int_equal(made_stats(&m).resumed, 1);
    assert_int_equal(made_stats(&m).opened, 1);
    made_free(&m);
}

/* Goal:   closing gives every window back exactly once: by an act, or by the batch that runs it. */
static void closing_gives_every_window_back(void **state)
{
    struct made            m;
    struct worker_session *s;
    struct worker_work    *works[3];

    (void)state;
    made_new(&m);
    made_push(&m, made_open(&m, (struct made_open){ .id = 9 }), 1);
    made_run(&m); /* a decode is expected */
    s = made_open(&m, (struct made_open){ .id = 1 });
    works[0] = made_push(&m, s, 400);
    works[1] = made_exclusive(&m, s);
    works[2] = made_push(&m, s, 3);
    made_next(&m);
    worker_table_close(m.t, m.now_ms, s);
    made_dropped(&m, works[1], false);
    made_dropped(&m, works[2], false);
    made_no_act(&m);
    made_done(&m);
    made_dropped(&m, works[0], false); /* a piece of it ran */
    made_no_act(&m);
    assert_int_equal(made_stats(&m).queued_windows, 0);
    assert_int_equal(made_stats(&m).sessions, 1);
    assert_true(made_idle(&m) == 0);
    made_free(&m);
}

/* ---- deadlines ------------------------------------------------------------------------ */

/* Goal:   a window past its deadline is dropped and told, with what waits behind it; what runs and
 *         what is before it is not touched, and the session goes on where the dropped one began. */
static void a_window_past_its_deadline_takes_along_what_is_behind(void **state)
{
    struct made            m;
    struct worker_session *s;
    struct worker_work    *works[5];

    (void)state;
    made_new(&m);
    s = made_open(&m, (struct made_open){ .id = 1 });
    for (int i = 0; i < 5; i++) {
        works[i] = made_work(&m, s, 5);
        works[i]->deadline_ms = i == 0 ? 1010 : i == 2 ? 1020 : i == 3 ? 5000 : i == 4 ? 1015 : 0;
        made_queue(&m, s, works[i]);
    }
    made_next(&m);
    m.now_ms = 1019.9;
    worker_table_tick(m.t, m.now_ms);
    made_dropped(&m, works[4], true);
    made_no_act(&m);
    assert_int_equal(worker_session_info(s)->queued_pos, 20);
    m.now_ms = 1020;
    worker_table_tick(m.t, m.now_ms);
    made_dropped(&m, works[2], true);
    made_dropped(&m, works[3], false);
    made_no_act(&m);
    assert_int_equal(worker_session_info(s)->queued_pos, 10);
    made_done(&m);
    made_next(&m);
    assert_ptr_equal(m.batch.items[0].work, works[1]);
    made_done(&m);
    assert_int_equal(worker_session_info(s)->length, 10);
    assert_int_equal(made_stats(&m).deadlines_missed, 2);
    assert_int_equal(made_stats(&m).windows_run, 2);
    made_free(&m);
}

/* Goal:   the deadline counts when a batch is made, also between the pieces of a window, which are
 *         then taken back; and who waits for work is told of it. */
static void a_deadline_passes_between_pieces(void **state)
{
    struct made            m;
    struct worker_session *s, *slow;
    struct worker_work    *work;

    (void)state;
    made_new(&m);
    made_push(&m, made_open(&m, (struct made_open){ .id = 9 }), 1);
    made_run(&m); /* a decode is expected */
    s = made_open(&m, (struct made_open){ .id = 1 });
    work = made_work(&m, s, 500);
    work->deadline_ms = m.now_ms + 10;
    made_queue(&m, s, work);
    made_next(&m);
    m.now_ms += 10;
    made_done(&m);
    made_idle(&m);
    made_dropped(&m, work, true);
    assert_int_equal(worker_session_info(s)->length, 0);
    made_push(&m, s, 3);
    made_next(&m);
    assert_int_equal(m.batch.items[0].pos, 0);
    assert_int_equal(m.batch.items[0].trim_to, 0);
    made_done(&m);

    slow = made_open(&m, (struct made_open){ .id = 2, .subject = "slow", .tokens_per_minute = 60 });
    made_push(&m, slow, 500);
    made_run(&m);
    work = made_work(&m, slow, 1);
    work->deadline_ms = m.now_ms + 700;
    made_queue(&m, slow, work);
    assert_true(made_idle(&m) == m.now_ms + 700);
    made_free(&m);
}

/* ---- import --------------------------------------------------------------------------- */

/* Goal:   after an import the session goes on where the block ends; windows that were queued
 *         without waiting for it run only if they do so, too. */
static void a_session_goes_on_where_an_import_ends(void **state)
{
    (void)state;
    for (uint32_t length = 0; length <= 40; length += 20) {
        struct made            m;
        struct worker_session *s;
        struct worker_work    *behind;

        made_new(&m);
        s = made_open(&m, (struct made_open){ .id = 1 });
        made_push(&m, s, 20);
        made_run(&m);
        made_exclusive(&m, s);
        behind = made_push(&m, s, 5);
        made_next(&m);
        assert_true(m.batch.exclusive);
        worker_table_set_length(m.t, s, length);
        if (length != 20)
            made_dropped(&m, behind, false);
        made_no_act(&m);
        made_done(&m);
        assert_int_equal(worker_session_info(s)->length, length);
        assert_int_equal(worker_session_info(s)->queued_pos, length == 20 ? 25 : length);
        if (length != 20)
            made_push(&m, s, 5);
        made_next(&m);
        assert_int_equal(m.batch.items[0].pos, length);
        assert_int_equal(m.batch.items[0].trim_to, UINT32_MAX);
        made_free(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_that_does_not_fit_is_refused),
        cmocka_unit_test(a_window_of_an_older_epoch_is_dropped),
        cmocka_unit_test(a_trim_drops_what_waits_and_voids_what_runs),
        cmocka_unit_test(a_trim_drops_a_window_that_has_begun),
        cmocka_unit_test(resuming_takes_the_session_over),
        cmocka_unit_test(closing_gives_every_window_back),
        cmocka_unit_test(a_window_past_its_deadline_takes_along_what_is_behind),
        cmocka_unit_test(a_deadline_passes_between_pieces),
        cmocka_unit_test(a_session_goes_on_where_an_import_ends),
    };

    return cmocka_run_group_tests_name("worker/queue", tests, NULL, NULL);
}
