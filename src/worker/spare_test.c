/* worker/spare_test.c - guesses at the end of decodes: when they run, and what becomes of wrong
 * ones.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/made_test.h"

/* A table that has seen forwards of a device: n positions take fixed_ms + n position_ms. */
static void begin(struct made *m, double fixed_ms, double position_ms)
{
    struct worker_session *s;
    double                 wake_ms;

    made_start(m);
    s = made_open(m, (struct made_open){ .id = 200 });
    for (uint32_t i = 0; i < 60; i++) {
        made_push(m, s, 1 + i % 16);
        assert_true(worker_table_next(m->t, m->now_ms, &m->batch, &wake_ms));
        worker_table_done(m->t, m->now_ms, &m->batch, fixed_ms + position_ms * m->batch.tokens);
    }
    worker_table_close(m->t, m->now_ms, s);
    m->now_ms += 10000; /* nothing is expected any more */
}

static void begin_gpu(struct made *m)
{
    made_init(m);
    begin(m, 6.4, 0.02);
}

static void begin_cpu(struct made *m)
{
    made_init(m);
    begin(m, 0.1, 10);
}

/* A token and so many guesses. */
static struct worker_work *push_guesses(struct made *m, struct worker_session *s, uint32_t guesses)
{
    struct worker_work *work = made_work(m, s, 1 + guesses);

    work->spare = guesses;
    return made_queue(m, s, work);
}

/* Goal:   whoever is alone runs all guesses, whatever a position costs. */
static void alone_all_guesses_run(void **state)
{
    struct made            m;
    struct worker_session *s, *other;

    (void)state;
    begin_cpu(&m);
    s = made_open(&m, (struct made_open){ .id = 1 });
    other = made_open(&m, (struct made_open){ .id = 2 });
    (void)other; /* has a session, and wants nothing */
    push_guesses(&m, s, 15);
    made_next(&m);
    assert_int_equal(m.batch.tokens, 16);
    assert_true(m.batch.items[0].last);
    made_done(&m);
    made_free(&m);
}

/* Goal:   where a position costs what a token does, no other session waits for guesses: not one
 *         that has a window, nor one that is expected to.  What is left out has left no trace.
 * Method: beside a decode; 50 ms after it; 10 s after it. */
static void others_do_not_wait_for_guesses(void **state)
{
    struct made            m;
    struct worker_session *s, *other;

    (void)state;
    begin_cpu(&m);
    s = made_open(&m, (struct made_open){ .id = 1 });
    other = made_open(&m, (struct made_open){ .id = 2 });
    push_guesses(&m, s, 15);
    made_push(&m, other, 1);
    assert_int_equal(made_stats(&m).queued_tokens, 17);
    made_next(&m);
    assert_int_equal(m.batch.tokens, 2);
    assert_int_equal(made_item(&m, s)->work->count, 1);
    assert_int_equal(made_item(&m, s)->work->spare, 0);
    assert_true(made_item(&m, s)->last);
    assert_int_equal(worker_session_info(s)->queued_pos, 1);
    made_done(&m);
    assert_int_equal(made_stats(&m).queued_tokens, 0);

    m.now_ms += 50;
    push_guesses(&m, s, 15);
    made_next(&m);
    assert_int_equal(m.batch.tokens, 1);
    made_done(&m);

    m.now_ms += 10000;
    push_guesses(&m, s, 15);
    made_next(&m);
    assert_int_equal(m.batch.tokens, 16);
    made_done(&m);
    made_free(&m);
}

/* Goal:   where positions cost next to nothing, sessions guess beside each other: in equal parts, as
 *         far as the forward grows by a sixteenth. */
static void cheap_guesses_run_in_equal_parts(void **state)
{
    enum { SESSIONS = 4 };
    struct made            m;
    struct worker_session *s[SESSIONS], *plain;
    uint32_t               each = (uint32_t)((6.4 + 5 * 0.02) / 16 / 0.02) / SESSIONS;

    (void)state;
    begin_gpu(&m);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        s[i] = made_open(&m, (struct made_open){ .id = (uint8_t)(1 + i) });
        push_guesses(&m, s[i], i == 0 ? 2 : 15);
    }
    plain = made_open(&m, (struct made_open){ .id = 9 });
    made_push(&m, plain, 1);
    made_next(&m);
    assert_int_equal(m.batch.count, SESSIONS + 1);
    assert_int_equal(made_item(&m, plain)->count, 1);
    assert_int_equal(made_item(&m, s[0])->count, 3);
    for (uint32_t i = 1; i < SESSIONS; i++)
        assert_in_range(made_item(&m, s[i])->count, each, 1 + each);
    made_done(&m);
    made_free(&m);
}

/* Goal:   guesses take no room that a window wants, and no row of logits more than one Forward may
 *         want. */
static void guesses_take_what_is_left(void **state)
{
    struct made            m;
    struct worker_session *s, *prefill;

    (void)state;
    made_init(&m);
    m.limits.batch_tokens = m.limits.chunk_tokens = 128;
    begin(&m, 64, 0.02);
    s = made_open(&m, (struct made_open){ .id = 1 });
    prefill = made_open(&m, (struct made_open){ .id = 2 });
    push_guesses(&m, s, 15);
    made_push(&m, prefill, 121);
    made_next(&m);
    assert_int_equal(made_item(&m, prefill)->count, 121);
    assert_int_equal(made_item(&m, s)->count, 7);
    made_done(&m);
    made_free(&m);
}

/* Goal:   guesses that a window continues cannot be left out; those before an export can. */
static void guesses_that_are_continued_stay(void **state)
{
    struct made            m;
    struct worker_session *s, *other;

    (void)state;
    begin_cpu(&m);
    s = made_open(&m, (struct made_open){ .id = 1 });
    other = made_open(&m, (struct made_open){ .id = 2 });
    push_guesses(&m, s, 3);
    made_push(&m, s, 1);
    made_push(&m, other, 1);
    made_next(&m);
    assert_int_equal(made_item(&m, s)->count, 4);
    made_done(&m);
    made_run(&m);
    assert_int_equal(worker_session_info(s)->length, 5);

    push_guesses(&m, s, 3);
    made_exclusive(&m, s);
    made_push(&m, other, 1);
    made_next(&m);
    assert_int_equal(made_item(&m, s)->count, 1);
    made_done(&m);
    assert_int_equal(made_run(&m), 1);
    assert_int_equal(worker_session_info(s)->length, 6);
    made_no_act(&m);
    made_free(&m);
}

/* Goal:   of a batch session that rides along in front no guess rides. */
static void guesses_do_not_ride(void **state)
{
    struct made            m;
    struct worker_session *s, *batch;

    (void)state;
    begin_gpu(&m);
    s = made_open(&m, (struct made_open){ .id = 1 });
    batch = made_open(&m, (struct made_open){ .id = 2, .qos = WIRE_QOS_BATCH });
    made_push(&m, s, 1);
    push_guesses(&m, batch, 4);
    made_next(&m);
    assert_false(m.batch.back);
    assert_non_null(made_item(&m, batch));
    assert_int_equal(made_item(&m, batch)->count, 1);
    made_done(&m);
    made_free(&m);
}

/* Goal:   a session goes on behind what was kept of its window: the next one begins there, and the
 *         engine's slot is trimmed first.  Windows that waited behind are dropped, exports are not. */
static void a_session_goes_on_behind_what_is_kept(void **state)
{
    struct made            m;
    struct worker_session *s;
    struct worker_work    *behind;

    (void)state;
    begin_gpu(&m);
    s = made_open(&m, (struct made_open){ .id = 1 });
    made_push(&m, s, 100);
    made_run(&m);
    push_guesses(&m, s, 8);
    made_next(&m);
    made_exclusive(&m, s);
    behind = made_push(&m, s, 5);
    worker_table_keep(m.t, &m.batch.items[0], 3);
    made_done(&m);
    made_dropped(&m, m.works + (m.next - 2) % MADE_WORKS, false);
    made_dropped(&m, behind, false);
    made_no_act(&m);
    assert_int_equal(worker_session_info(s)->length, 103);
    assert_int_equal(worker_session_info(s)->queued_pos, 103);
    assert_int_equal(worker_session_info(s)->epoch, 0);

    push_guesses(&m, s, 8);
    made_next(&m);
    made_exclusive(&m, s);
    assert_int_equal(m.batch.items[0].pos, 103);
    assert_int_equal(m.batch.items[0].trim_to, 103);
    worker_table_keep(m.t, &m.batch.items[0], 1);
    made_done(&m);
    made_next(&m);
    assert_true(m.batch.exclusive);
    assert_int_equal(m.batch.items[0].trim_to, 104);
    made_done(&m);
    made_no_act(&m);
    made_free(&m);
}

/* Goal:   a window that was trimmed while it ran keeps nothing of its own. */
static void a_trim_counts_more_than_what_is_kept(void **state)
{
    struct made            m;
    struct worker_session *s;
    mcp_error              err;

    (void)state;
    begin_gpu(&m);
    s = made_open(&m, (struct made_open){ .id = 1 });
    made_push(&m, s, 20);
    made_run(&m);
    push_guesses(&m, s, 8);
    made_next(&m);
    unit_ok(worker_table_trim(m.t, m.now_ms, s, 1, 10, &err), &err);
    worker_table_keep(m.t, &m.batch.items[0], 3);
    made_done(&m);
    assert_int_equal(worker_session_info(s)->length, 10);
    made_free(&m);
}

/* Goal:   a subject's rate pays for tokens, not for guesses in vain.
 * Method: windows of 15 guesses of which none is right: as many tokens as without run before the
 *         subject has to wait. */
static void guesses_in_vain_are_not_charged(void **state)
{
    uint32_t ran[2];

    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct made            m;
        struct worker_session *s;
        double                 wake_ms;

        begin_gpu(&m);
        s = made_open(&m, (struct made_open){ .id = 1, .tokens_per_minute = 600 });
        push_guesses(&m, s, 15 * i);
        for (ran[i] = 0; worker_table_next(m.t, m.now_ms, &m.batch, &wake_ms); ran[i]++) {
            worker_table_keep(m.t, &m.batch.items[0], 1);
            made_done(&m);
            push_guesses(&m, s, 15 * i);
        }
        made_free(&m);
    }
    assert_int_equal(ran[0], 100);
    assert_in_range(ran[1], ran[0] - 1, ran[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_all_guesses_run),
        cmocka_unit_test(others_do_not_wait_for_guesses),
        cmocka_unit_test(cheap_guesses_run_in_equal_parts),
        cmocka_unit_test(guesses_take_what_is_left),
        cmocka_unit_test(guesses_that_are_continued_stay),
        cmocka_unit_test(guesses_do_not_ride),
        cmocka_unit_test(a_session_goes_on_behind_what_is_kept),
        cmocka_unit_test(a_trim_counts_more_than_what_is_kept),
        cmocka_unit_test(guesses_in_vain_are_not_charged),
    };

    return cmocka_run_group_tests_name("worker/spare", tests, NULL, NULL);
}
