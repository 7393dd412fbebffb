/* worker/batch_test.c - what may run together, in which order, and in what pieces.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/made_test.h"

#include "base/clock.h"

/* ---- pieces --------------------------------------------------------------------------- */

/* Run all of `work`, the only one: each piece within `room` where it can be. */
static void check_pieces(struct made *m, const struct worker_work *work, uint32_t room)
{
    uint32_t done = 0;

    while (done < work->count) {
        const struct worker_item *item = &m->batch.items[0];

        made_next(m);
        assert_int_equal(m->batch.count, 1);
        assert_ptr_equal(item->work, work);
        assert_int_equal(item->offset, done);
        assert_int_equal(item->pos, work->pos + done);
        if (work->count <= room)
            assert_true(item->last);
        if (item->count > room) /* it could not be cut */
            assert_true(item->count < 128);
        if (!item->last)
            assert_true(item->count % 64 == 0);
        if (!item->last || done > 0)
            assert_true(item->count >= 64);
        done += item->count;
        assert_int_equal(item->last, done == work->count);
        m->now_ms += 1;
        made_done(m);
    }
    assert_int_equal(done, work->count);
}

/* Goal:   a window is cut at multiples of 64, and neither a piece nor a rest is below 64; one that
 *         fits runs whole.
 * Method: every length from 17 to 512, with chunks of 64, 100, 128, 256, while a decode is
 *         expected; the decode that makes it so is another session's. */
static void pieces_are_multiples_of_64_and_no_rest_is_shorter(void **state)
{
    static const uint32_t chunks[] = { 64, 100, 128, 256 };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(chunks); i++) {
        struct made            m;
        struct worker_session *decoder, *s;

        made_init(&m);
        m.limits.chunk_tokens = chunks[i];
        m.limits.ctx_tokens = 1 << 20;
        made_start(&m);
        decoder = made_open(&m, (struct made_open){ .id = 1 });
        s = made_open(&m, (struct made_open){ .id = 2 });
        for (uint32_t count = 17; count <= 512; count++) {
            made_push(&m, decoder, 1);
            assert_int_equal(made_run(&m), 1);
            check_pieces(&m, made_push(&m, s, count), chunks[i]);
            assert_int_equal(worker_session_info(s)->length, worker_session_info(s)->queued_pos);
        }
        made_free(&m);
    }
}

/* Goal:   a prefill is cut to the chunk while a decode waits or is expected, which it is for 100 ms
 *         after the first, then for twice the time between two; else it has the whole forward. */
static void prefill_is_small_while_a_decode_waits_or_is_expected(void **state)
{
    struct made            m;
    struct worker_session *decoder, *s;

    (void)state;
    made_new(&m);
    decoder = made_open(&m, (struct made_open){ .id = 1 });
    s = made_open(&m, (struct made_open){ .id = 2 });
    made_push(&m, s, 512);
    made_next(&m); /* nobody has decoded yet */
    assert_int_equal(m.batch.tokens, 512);
    made_done(&m);

    made_push(&m, decoder, 16);
    made_push(&m, s, 512);
    made_next(&m); /* one waits */
    assert_int_equal(m.batch.count, 2);
    assert_ptr_equal(m.batch.items[0].session, decoder);
    assert_int_equal(made_item(&m, s)->count, 256);
    made_done(&m);
    m.now_ms += 99;
    made_next(&m); /* one is expected */
    assert_int_equal(m.batch.tokens, 256);
    made_done(&m);
    made_push(&m, s, 512);
    m.now_ms += 2;
    made_next(&m);
    assert_int_equal(m.batch.tokens, 512);
    made_done(&m);
    made_push(&m, decoder, 17); /* longer than a decode: 16 */
    assert_int_equal(made_run(&m), 1);
    made_push(&m, s, 512);
    made_next(&m);
    assert_int_equal(m.batch.tokens, 512);
    made_done(&m);

    for (int i = 0; i < 2; i++) { /* a token every 400 ms: a long way, or a slow stage */
        m.now_ms += 400;
        made_push(&m, decoder, 1);
        made_run(&m);
    }
    made_push(&m, s, 512);
    m.now_ms += 799;
    made_next(&m);
    assert_int_equal(m.batch.tokens, 256);
    made_done(&m);
    m.now_ms += 1;
    made_run(&m);
    made_push(&m, s, 512);
    made_next(&m);
    assert_int_equal(m.batch.tokens, 512);
    made_done(&m);
    m.now_ms += 5000; /* comes too seldom to be waited for */
    made_push(&m, decoder, 1);
    made_run(&m);
    m.now_ms += 101;
    made_push(&m, s, 512);
    made_next(&m);
    assert_int_equal(m.batch.tokens, 512);
    made_free(&m);
}

/* ---- what runs together --------------------------------------------------------------- */

/* Goal:   a forward takes the decodes of all sessions, then prefill of several within the chunk. */
static void many_sessions_run_in_one_forward(void **state)
{
    struct made            m;
    struct worker_session *s[48];

    (void)state;
    made_new(&m);
    for (uint8_t i = 0; i < 48; i++)
        s[i] = made_open(&m, (struct made_open){ .id = i });
    for (uint32_t i = 0; i < 48; i++)
        made_push(&m, s[i], i < 40 ? 1 : 60);
    made_next(&m);
    assert_int_equal(m.batch.count, 44);
    assert_int_equal(m.batch.tokens, 40 + 4 * 60);
    for (uint32_t i = 0; i < 44; i++) {
        assert_int_equal(m.batch.items[i].count, i < 40 ? 1 : 60);
        assert_int_equal(m.batch.items[i].slot, i);
    }
    made_done(&m);
    made_next(&m);
    assert_int_equal(m.batch.count, 4);
    made_done(&m);
    assert_int_equal(made_stats(&m).windows_run, 48);
    made_free(&m);
}

/* Goal:   windows of other layers, or that want logits, are never mixed in; one window of a
 *         session runs at a time.
 * Method: eight kinds of sessions with several windows each. */
static void only_windows_of_one_kind_run_together(void **state)
{
    struct made            m;
    struct worker_session *s[16];
    uint32_t               seen = 0;

    (void)state;
    made_new(&m);
    for (uint8_t i = 0; i < 16; i++) {
        s[i] = made_open(
            &m, (struct made_open){ .id = i, .first = 4 + i % 2, .last = 11 + (i / 2) % 2 });
        for (int j = 0; j < 3; j++) {
            struct worker_work *work = made_work(&m, s[i], j == 1 ? 100 : 2);

            work->logits = i & 4;
            made_queue(&m, s[i], work);
        }
    }
    while (seen < 16 * 3) {
        bool has[16] = { false };

        made_next(&m);
        for (uint32_t i = 0; i < m.batch.count; i++) {
            const struct worker_item         *item = &m.batch.items[i];
            const struct worker_session_info *info = worker_session_info(item->session);

            assert_int_equal(info->first, m.batch.first);
            assert_int_equal(info->last, m.batch.last);
            assert_int_equal(item->work->logits, m.batch.logits);
            assert_false(has[item->slot]);
            has[item->slot] = true;
            seen += item->last;
        }
        made_done(&m);
    }
    made_free(&m);
}

/* Goal:   exclusive work runs alone, in its place among its session's windows. */
static void exclusive_work_runs_alone_and_in_order(void **state)
{
    struct made            m;
    struct worker_session *s, *other;
    struct worker_work    *works[3];

    (void)state;
    made_new(&m);
    s = made_open(&m, (struct made_open){ .id = 1 });
    other = made_open(&m, (struct made_open){ .id = 2 });
    works[0] = made_push(&m, s, 3);
    works[1] = made_exclusive(&m, s);
    works[2] = made_push(&m, s, 2);
    for (int ran = 0, tries = 0; ran < 3; tries++) {
        assert_true(tries < 9);
        if (worker_session_info(other)->queued_windows == 0)
            made_push(&m, other, 1);
        made_next(&m);
        if (made_item(&m, s) != NULL) {
            assert_ptr_equal(made_item(&m, s)->work, works[ran]);
            assert_int_equal(m.batch.exclusive, ran == 1);
            ran++;
        }
        if (m.batch.exclusive)
            assert_int_equal(m.batch.count, 1);
        made_done(&m);
    }
    assert_int_equal(worker_session_info(s)->length, 5);
    made_free(&m);
}

/* ---- who comes first ------------------------------------------------------------------ */

/* Goal:   where decodes do not all fit, realtime ones go before normal ones, and nobody waits for
 *         ever.
 * Method: 60 sessions with 4 positions each time, forwards of 64. */
static void realtime_goes_before_normal(void **state)
{
    struct made            m;
    struct worker_session *s[60];
    uint32_t               waited[60] = { 0 }, runs[60] = { 0 };

    (void)state;
    made_init(&m);
    m.limits.batch_tokens = m.limits.chunk_tokens = 64;
    made_start(&m);
    for (uint8_t i = 0; i < 60; i++)
        s[i] = made_open(
            &m,
            (struct made_open){ .id = i, .qos = i % 6 == 5 ? WIRE_QOS_REALTIME : WIRE_QOS_NORMAL });
    for (int round = 0; round < 200; round++) {
        for (uint32_t i = 0; i < 60; i++)
            if (worker_session_info(s[i])->queued_windows == 0)
                made_push(&m, s[i], 4);
        made_next(&m);
        assert_int_equal(m.batch.tokens, 64);
        for (uint32_t i = 0; i < 60; i++) {
            bool ran = made_item(&m, s[i]) != NULL;

            runs[i] += ran;
            waited[i] = ran ? 0 : waited[i] + 1;
            /* At first all are equal in virtual time. */
            assert_true(waited[i] <= (i % 6 == 5 && round > 6 ? 2 : 6));
            if (round == 0 && i % 6 == 5)
                assert_true(ran);
        }
        made_done(&m);
        m.now_ms += 10;
    }
    /* 16 places a round; 10 sessions of weight 16 and 50 of weight 4: 0.71 and 0.18 of each. */
    for (uint32_t i = 0; i < 60; i++)
        assert_in_range(runs[i], i % 6 == 5 ? 130 : 32, i % 6 == 5 ? 155 : 40);
    made_free(&m);
}

/* Goal:   a session that comes back from idleness has saved up nothing: it does not go before those
 *         who have waited until it has had as much as they.
 * Method: one of two sessions pauses for 100 windows; afterwards both get the same. */
static void idleness_saves_up_nothing(void **state)
{
    struct made            m;
    struct worker_session *s[2];
    uint32_t               had[2] = { 0 };

    (void)state;
    made_init(&m);
    m.limits.batch_tokens = 64;
    m.limits.ctx_tokens = INT32_MAX;
    made_start(&m);
    for (uint8_t i = 0; i < 2; i++)
        s[i] = made_open(&m, (struct made_open){ .id = i });
    for (int round = 0; round < 300; round++) {
        for (uint32_t i = 0; i < 2; i++)
            if (worker_session_info(s[i])->queued_windows == 0 && (i == 0 || round >= 100))
                made_push(&m, s[i], 64);
        made_next(&m);
        assert_int_equal(m.batch.count, 1);
        if (round >= 100)
            had[m.batch.items[0].session == s[1]]++;
        made_done(&m);
    }
    assert_in_range(had[0], 99, 101);
    assert_in_range(had[1], 99, 101);
    made_free(&m);
}

/* Goal:   neither closing and opening again, nor resuming, makes a subject younger than it is.
 * Method: one subject does so for each window of 60 positions, another just goes on; each forward
 *         has room for one window. */
static void coming_again_does_not_put_a_subject_first(void **state)
{
    (void)state;
    for (int resume = 0; resume < 2; resume++) {
        struct made            m;
        struct worker_session *stays, *comes = NULL;
        struct worker_act      act;
        uint32_t               had = 0;

        made_init(&m);
        m.limits.batch_tokens = 64;
        made_start(&m);
        stays = made_open(&m, (struct made_open){ .id = 0, .subject = "stays" });
        for (uint8_t i = 1; i < 200; i++) {
            comes = made_open(&m, (struct made_open){
                                      .id = resume ? 1 : i, .subject = "comes", .resume = resume });
            if (worker_session_info(stays)->queued_windows == 0)
                made_push(&m, stays, 60);
            made_push(&m, comes, 60);
            made_next(&m);
            assert_int_equal(m.batch.count, 1);
            had += made_item(&m, stays) != NULL;
            made_done(&m);
            if (!resume)
                worker_table_close(m.t, m.now_ms, comes);
            while (worker_table_act(m.t, &act)) {
            }
        }
        assert_in_range(had, 60, 140); /* else none, or one in 200 */
        made_free(&m);
    }
}

/* ---- rates ---------------------------------------------------------------------------- */

/* Goal:   a subject beyond its tokens a minute waits, never fails, and is told for how long; its
 *         sessions share one account, which closing does not clear.
 * Method: 600 a minute: 100 at once, then 10 a second. */
static void beyond_its_rate_a_subject_waits(void **state)
{
    struct made_open       slow = { .id = 1, .subject = "slow", .tokens_per_minute = 600 };
    struct made            m;
    struct worker_session *s, *other;
    double                 wake_ms, begin_ms;
    uint32_t               tokens = 0;

    (void)state;
    made_new(&m);
    s = made_open(&m, slow);
    begin_ms = m.now_ms;
    while (m.now_ms < begin_ms + 60000) {
        while (worker_session_info(s)->queued_windows < 2)
            made_push(&m, s, 16);
        wake_ms = 0;
        if (worker_table_next(m.t, m.now_ms, &m.batch, &wake_ms)) {
            tokens += m.batch.tokens;
            made_done(&m);
        } else {
            assert_true(wake_ms > m.now_ms && wake_ms < m.now_ms + 2000);
            m.now_ms = wake_ms;
        }
    }
    assert_in_range(tokens, 700 - 16, 700 + 16);

    made_run(&m);
    other = made_open(&m, (struct made_open){ .id = 2 });
    made_push(&m, s, 16);
    made_push(&m, other, 1);
    made_next(&m); /* others do not wait with it */
    assert_int_equal(m.batch.count, 1);
    made_done(&m);

    worker_table_close(m.t, m.now_ms, s);
    slow.id = 3;
    s = made_open(&m, slow);
    made_push(&m, s, 400);
    wake_ms = made_idle(&m);
    assert_true(wake_ms > m.now_ms);
    m.now_ms = wake_ms;
    made_next(&m); /* a window larger than what may be saved runs whole, and is paid afterwards */
    assert_int_equal(m.batch.tokens, 400);
    made_done(&m);
    made_push(&m, s, 1);
    wake_ms = made_idle(&m);
    assert_true(wake_ms > m.now_ms + 39000 && wake_ms < m.now_ms + 41000);
    made_free(&m);
}

/* Goal:   a pause saves up ten seconds' worth and no more; what a subject owes is remembered when
 *         it leaves, even while hundreds of others come and go.
 * Method: an hour of silence; then a debt, 1000 others before it and 200 after it. */
static void a_pause_saves_up_little_and_a_debt_stays(void **state)
{
    struct made_open       slow = { .id = 1, .subject = "slow", .tokens_per_minute = 600 };
    struct made            m;
    struct worker_session *s;
    uint32_t               tokens = 0;
    double                 wake_ms;

    (void)state;
    made_new(&m);
    s = made_open(&m, slow);
    m.now_ms += 3600e3;
    made_push(&m, s, 1);
    while (worker_table_next(m.t, m.now_ms, &m.batch, &wake_ms)) {
        tokens += m.batch.tokens;
        made_done(&m);
        made_push(&m, s, 1);
    }
    assert_in_range(tokens, 99, 101);

    worker_table_close(m.t, m.now_ms, s);
    for (uint32_t i = 0; i < 1200; i++) {
        char name[16];

        snprintf(name, sizeof(name), "u%u", i);
        if (i == 1000) {
            s = made_open(&m, slow);
            made_push(&m, s, 500);
            m.now_ms += 1000;
            made_next(&m);
            made_done(&m);
            worker_table_close(m.t, m.now_ms, s);
        }
        m.now_ms += 0.001;
        worker_table_close(m.t, m.now_ms,
                           made_open(&m, (struct made_open){ .id = 2, .subject = name }));
    }
    made_push(&m, made_open(&m, slow), 1);
    assert_true(made_idle(&m) > m.now_ms + 40000);
    made_free(&m);
}

/* ---- cost ----------------------------------------------------------------------------- */

/* Goal:   making batches costs about a microsecond a window, and not more than in proportion with
 *         more sessions.
 * Method: push, next and done with a decode of each session, 16 and 64 sessions; the bound is
 *         generous, because the machine may be busy. */
static void a_window_costs_about_a_microsecond(void **state)
{
    static const uint32_t counts[] = { 16, 64, 1024 };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(counts); i++) {
        static struct worker_session *s[WORKER_SESSIONS_MAX];
        static struct worker_work     works[WORKER_SESSIONS_MAX];
        struct made                   m;
        uint32_t                      rounds = (1 << 18) / counts[i];
        double                        begin_ms, ns;

        made_init(&m);
        m.limits.sessions_max = counts[i];
        m.limits.batch_tokens = 2048;
        m.limits.ctx_tokens = INT32_MAX;
        made_start(&m);
        for (uint32_t j = 0; j < counts[i]; j++) {
            struct wire_open   open = { .session = { (uint8_t)j, (uint8_t)(j >> 8) },
                                        .first = 4,
                                        .last = 12 };
            struct guard_grant grant = { .subject = "team", .priority = GUARD_NORMAL };
            uint32_t           retry_ms;

            assert_int_equal(worker_table_open(m.t, 0, &open, &grant, &m, &s[j], &retry_ms, NULL),
                             MCP_OK);
        }
        begin_ms = base_clock_ms();
        for (uint32_t round = 0; round < rounds; round++) {
            for (uint32_t j = 0; j < counts[i]; j++) {
                works[j] = (struct worker_work){ .pos = round, .count = 1 };
                worker_table_push(m.t, m.now_ms, s[j], &works[j], NULL);
            }
            made_next(&m);
            assert_int_equal(m.batch.count, counts[i]);
            m.now_ms += 5;
            made_done(&m);
        }
        ns = (base_clock_ms() - begin_ms) * 1e6 / rounds / counts[i];
        print_message("    %u sessions: %.0f ns a window (push + next + done)\n", counts[i], ns);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        assert_true(ns < 5000);
#endif
        made_free(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_multiples_of_64_and_no_rest_is_shorter),
        cmocka_unit_test(prefill_is_small_while_a_decode_waits_or_is_expected),
        cmocka_unit_test(many_sessions_run_in_one_forward),
        cmocka_unit_test(only_windows_of_one_kind_run_together),
        cmocka_unit_test(exclusive_work_runs_alone_and_in_order),
        cmocka_unit_test(realtime_goes_before_normal),
        cmocka_unit_test(idleness_saves_up_nothing),
        cmocka_unit_test(coming_again_does_not_put_a_subject_first),
        cmocka_unit_test(beyond_its_rate_a_subject_waits),
        cmocka_unit_test(a_pause_saves_up_little_and_a_debt_stays),
        cmocka_unit_test(a_window_costs_about_a_microsecond),
    };

    return cmocka_run_group_tests_name("worker/batch", tests, NULL, NULL);
}
