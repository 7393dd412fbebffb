/* plan/link_test.c - what is estimated from which samples.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/made_test.h"

static struct plan_link *fresh_link(void)
{
    static struct plan_link link;

    memset(&link, 0xff, sizeof(link));
    plan_link_init(&link);
    return &link;
}

/* Goal:   nothing known is told as nothing known, and counted pessimistically. */
static void what_is_not_known_is_said(void **state)
{
    struct plan_link         *link = fresh_link();
    struct plan_link_estimate e = plan_link_estimate(link, 5.0);
    char                      text[128];

    (void)state;
    assert_true(e.rtt_ms == 0.0 && e.mbit[PLAN_UP] == 0.0 && e.mbit[PLAN_DOWN] == 0.0);
    plan_link_unknown(&e, text, sizeof(text));
    assert_string_equal(text, "round trip and goodput not measured: 150 ms and 20 Mbit/s assumed");
    made_close(plan_link_message_ms(&e, PLAN_UP, 20e6 / 8), 75.0 + 1000.0, 1e-12);
    assert_true(plan_link_probe_wanted(link, PLAN_DOWN, 5.0));
    plan_link_rtt(link, 20.0, 6.0);
    plan_link_bulk(link, PLAN_UP, 1250000, 1000.0, true, 6.0);
    e = plan_link_estimate(link, 6.0);
    plan_link_unknown(&e, text, sizeof(text));
    assert_string_equal(text, "goodput down not measured: 20 Mbit/s assumed");
    made_close(plan_link_message_ms(&e, PLAN_UP, 12500), 10.0 + 10.0, 1e-12);
    plan_link_bulk(link, PLAN_DOWN, 1250000, 1000.0, true, 6.0);
    e = plan_link_estimate(link, 6.0);
    plan_link_unknown(&e, text, sizeof(text));
    assert_string_equal(text, "");
    plan_link_unknown(&e, text, 0);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Goal:   minimum, median, nine tenths and ages are those of the samples of the last 2.5 s.
 * Method: 400 samples 20 to 100 ms apart; after each the same from all that were sent. */
static void the_round_trip_is_that_of_the_window(void **state)
{
    struct plan_link *link = fresh_link();
    uint64_t          seed = unit_seed();
    double            at[400], ms[400], now = 1000.0;

    (void)state;
    for (uint32_t n = 0; n < 400; n++) {
        struct plan_link_estimate e;
        double                    sorted[400];
        uint32_t                  count = 0;

        now += made_between(&seed, 20.0, 100.0);
        at[n] = now;
        ms[n] = made_between(&seed, 10.0, 30.0);
        plan_link_rtt(link, ms[n], now);
        e = plan_link_estimate(link, now + 7.0);
        for (uint32_t i = n + 1; i > 0 && count < PLAN_LINK_RTTS; i--)
            if (count < PLAN_LINK_RTTS_LEAST || now + 7.0 - at[i - 1] <= PLAN_LINK_WINDOW_MS)
                sorted[count++] = ms[i - 1];
        qsort(sorted, count, sizeof(sorted[0]), by_value);
        assert_true(e.rtt_min_ms == sorted[0]);
        assert_true(e.rtt_ms == 0.5 * (sorted[(count - 1) / 2] + sorted[count / 2]));
        assert_true(e.spread_ms == sorted[(uint32_t)ceil(0.9 * count - 1e-9) - 1] - sorted[0]);
        made_close(e.rtt_age_ms, 7.0, 1e-9);
    }
}

/* Goal:   a round trip that doubles is known within 3 s; one outlier changes nothing. */
static void a_new_round_trip_is_known_within_three_seconds(void **state)
{
    struct plan_link *link = fresh_link();
    double            now = 0.0;

    (void)state;
    for (int i = 0; i < 200; i++) {
        plan_link_rtt(link, 20.0, now);
        now += 50.0;
    }
    plan_link_rtt(link, 500.0, now);
    made_close(plan_link_estimate(link, now).rtt_ms, 20.0, 1e-12);
    for (int i = 0; i < 60; i++) {
        plan_link_rtt(link, 40.0, now);
        now += 50.0;
    }
    made_close(plan_link_estimate(link, now).rtt_min_ms, 40.0, 1e-12);
    made_close(plan_link_estimate(link, now).rtt_ms, 40.0, 1e-12);
}

/* Goal:   on a quiet link the last samples stay, with their age. */
static void a_quiet_link_keeps_what_it_knows(void **state)
{
    struct plan_link         *link = fresh_link();
    struct plan_link_estimate e;

    (void)state;
    for (int i = 0; i < 10; i++)
        plan_link_rtt(link, 10.0 + i, 100.0 * i);
    plan_link_bulk(link, PLAN_DOWN, 125000, 10.0, true, 900.0);
    e = plan_link_estimate(link, 60900.0);
    assert_true(e.rtt_ms == 17.0 && e.rtt_min_ms == 15.0);
    assert_true(e.rtt_age_ms == 60000.0 && e.mbit_age_ms[PLAN_DOWN] == 60000.0);
    made_close(e.mbit[PLAN_DOWN], 100.0, 1e-12);
    assert_true(plan_link_probe_wanted(link, PLAN_DOWN, 60900.0));
    assert_false(plan_link_probe_wanted(link, PLAN_DOWN, 901.0));
}

/* Goal:   jitter is RFC 3550's: J += (|D| - J) / 16. */
static void jitter_is_that_of_rfc_3550(void **state)
{
    struct plan_link *link = fresh_link();
    double            expected = 0.0, last = 0.0;
    uint64_t          seed = unit_seed();

    (void)state;
    for (int i = 0; i < 200; i++) {
        double ms = made_between(&seed, 5.0, 50.0);

        if (i > 0)
            expected += (fabs(ms - last) - expected) / 16.0;
        last = ms;
        plan_link_rtt(link, ms, i);
        assert_true(fabs(plan_link_estimate(link, i).jitter_ms - expected) < 1e-9);
    }
}

/* Goal:   the rate is bytes over time of the window; a fall to a tenth is known within 3 s. */
static void a_rate_that_falls_is_known_within_three_seconds(void **state)
{
    struct plan_link *link = fresh_link();
    double            now = 0.0;

    (void)state;
    for (int i = 0; i < 100; i++) {
        now += 32.768 * 8 / 100;
        plan_link_bulk(link, PLAN_UP, 32768, 32.768 * 8 / 100, true, now);
    }
    made_close(plan_link_estimate(link, now).mbit[PLAN_UP], 100.0, 1e-9);
    assert_true(plan_link_estimate(link, now).mbit[PLAN_DOWN] == 0.0);
    for (int i = 0; i < 114; i++) { /* 3 s */
        now += 32.768 * 8 / 10;
        plan_link_bulk(link, PLAN_UP, 32768, 32.768 * 8 / 10, true, now);
    }
    made_close(plan_link_estimate(link, now).mbit[PLAN_UP], 10.0, 0.01);
}

/* Goal:   a sender that had nothing more to send can only raise the rate. */
static void too_little_to_send_says_at_least(void **state)
{
    struct plan_link *link = fresh_link();

    (void)state;
    plan_link_bulk(link, PLAN_UP, 125000, 100.0, false, 1.0); /* 10 Mbit/s, and that is no news */
    assert_true(plan_link_estimate(link, 1.0).mbit[PLAN_UP] == 0.0);
    plan_link_bulk(link, PLAN_UP, 125000, 25.0, false, 1.0);
    made_close(plan_link_estimate(link, 1.0).mbit[PLAN_UP], 40.0, 1e-12);
    plan_link_bulk(link, PLAN_UP, 125000, 10.0, true, 2.0);
    plan_link_bulk(link, PLAN_UP, 125000, 5.0, false, 3.0); /* 200 */
    made_close(plan_link_estimate(link, 3.0).mbit[PLAN_UP], 200.0, 1e-12);
    plan_link_bulk(link, PLAN_UP, 125000, 100.0, false, 4.0);
    made_close(plan_link_estimate(link, 4.0).mbit[PLAN_UP], 200.0, 1e-12);
}

/* A window a tick of 100 ms over a path of these figures, with small messages beside it. */
static double windows(struct plan_link *link, uint64_t *seed, double now, uint32_t count,
                      double rtt_ms, double mbit, uint64_t bytes)
{
    for (uint32_t i = 0; i < count; i++) {
        double noise = made_between(seed, 0.0, 2.0);

        if (i % 3 == 0)
            plan_link_rtt(link, rtt_ms + made_between(seed, 0.0, 1.0), now);
        plan_link_pass(link, rtt_ms + 16.0 * (double)bytes / (mbit * 1000.0) + noise, bytes, bytes,
                       now + 50.0);
        now += 100.0;
    }
    return now;
}

/* Goal:   where only windows pass, a fall of the rate to a tenth shows within 3 s, and so does its
 *         return; a round trip that doubles is no fall.
 * Method: 8 KiB each way, which at 10 Mbit/s take 13 ms; bulk had shown 100 Mbit/s. */
static void windows_alone_show_a_rate_that_falls(void **state)
{
    struct plan_link         *link = fresh_link();
    uint64_t                  seed = unit_seed();
    struct plan_link_estimate e;
    double                    now = 1000.0;

    (void)state;
    plan_link_bulk(link, PLAN_UP, 1250000, 100.0, true, 900.0);
    plan_link_bulk(link, PLAN_DOWN, 1250000, 100.0, true, 900.0);
    now = windows(link, &seed, now, 60, 20.0, 100.0, 8192);
    e = plan_link_estimate(link, now);
    made_close(e.mbit[PLAN_UP], 100.0, 1e-9);
    assert_true(e.mbit_age_ms[PLAN_DOWN] > 6000.0);
    now = windows(link, &seed, now, 30, 40.0, 100.0, 8192);
    e = plan_link_estimate(link, now);
    made_close(e.mbit[PLAN_UP], 100.0, 1e-9);
    made_close(e.rtt_ms, 40.0, 0.03);
    now = windows(link, &seed, now, 30, 40.0, 10.0, 8192);
    e = plan_link_estimate(link, now);
    made_close(e.mbit[PLAN_UP], 10.0, 0.2);
    made_close(e.mbit[PLAN_DOWN], 10.0, 0.2);
    assert_true(e.mbit_age_ms[PLAN_DOWN] < 200.0);
    made_close(plan_link_estimate(link, now + 60000.0).mbit[PLAN_UP], 10.0, 0.2); /* it stays */
    now = windows(link, &seed, now, 30, 40.0, 100.0, 8192);
    made_close(plan_link_estimate(link, now).mbit[PLAN_UP], 100.0, 1e-9);
}

/* Goal:   bulk knows better than the windows before it.
 * Method: windows showed 10 Mbit/s, then bulk goes through at 50. */
static void new_bulk_counts_more_than_old_windows(void **state)
{
    struct plan_link *link = fresh_link();
    uint64_t          seed = unit_seed();
    double            now;

    (void)state;
    plan_link_bulk(link, PLAN_UP, 1250000, 100.0, true, 1.0);
    now = windows(link, &seed, 3000.0, 40, 20.0, 10.0, 16384);
    made_close(plan_link_estimate(link, now).mbit[PLAN_UP], 10.0, 0.2);
    plan_link_bulk(link, PLAN_UP, 625000, 100.0, true, now);
    made_close(plan_link_estimate(link, now).mbit[PLAN_UP], 50.0, 1e-9);
}

/* Goal:   windows that wait for each other do not pull the rate below what they carried.
 * Method: five of 20 KiB on their way at 8 Mbit/s: each takes five times its own 20 ms up. */
static void what_was_carried_can_be_carried(void **state)
{
    struct plan_link         *link = fresh_link();
    struct plan_link_estimate e;

    (void)state;
    plan_link_bulk(link, PLAN_UP, 1250000, 100.0, true, 1.0);
    for (int i = 0; i < 200; i++) {
        plan_link_rtt(link, 10.0, 3000.0 + i * 20.0);
        plan_link_pass(link, 10.0 + 5.0 * 20.0, 20000, 100, 3000.0 + i * 20.0);
    }
    e = plan_link_estimate(link, 3000.0 + 200 * 20.0);
    assert_true(e.mbit[PLAN_UP] >= 8.0 - 1e-9 && e.mbit[PLAN_UP] < 16.0);
}

/* Goal:   a window of a packet is a small message; a larger one says nothing of the round trip. */
static void a_packet_is_a_small_message(void **state)
{
    struct plan_link *link = fresh_link();

    (void)state;
    plan_link_pass(link, 30.0, 1000, 501, 1.0);
    assert_true(plan_link_estimate(link, 1.0).rtt_ms == 0.0);
    plan_link_pass(link, 20.0, 1000, 500, 2.0);
    assert_true(plan_link_estimate(link, 2.0).rtt_ms == 20.0);
    plan_link_pass(link, 30.0, 1000, 501, 3.0);
    assert_true(plan_link_estimate(link, 3.0).rtt_ms == 20.0);
}

static void samples_that_cannot_be_are_ignored(void **state)
{
    static const double bad[] = { NAN, INFINITY, -INFINITY, -1.0, 0.0 };
    struct plan_link   *link = fresh_link();

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        plan_link_rtt(link, bad[i], 1.0);
        plan_link_bulk(link, PLAN_UP, 1000000, bad[i], true, 1.0);
        plan_link_pass(link, bad[i], 100000, 0, 1.0);
    }
    plan_link_rtt(link, 1.0, NAN);
    plan_link_bulk(link, PLAN_UP, 1000000, 1.0, true, NAN);
    plan_link_bulk(link, PLAN_UP, PLAN_LINK_BULK_BYTES - 1, 1.0, true, 1.0);
    assert_true(plan_link_estimate(link, 2.0).rtt_ms == 0.0);
    assert_true(plan_link_estimate(link, 2.0).mbit[PLAN_UP] == 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_known_is_said),
        cmocka_unit_test(the_round_trip_is_that_of_the_window),
        cmocka_unit_test(a_new_round_trip_is_known_within_three_seconds),
        cmocka_unit_test(a_quiet_link_keeps_what_it_knows),
        cmocka_unit_test(jitter_is_that_of_rfc_3550),
        cmocka_unit_test(a_rate_that_falls_is_known_within_three_seconds),
        cmocka_unit_test(too_little_to_send_says_at_least),
        cmocka_unit_test(windows_alone_show_a_rate_that_falls),
        cmocka_unit_test(new_bulk_counts_more_than_old_windows),
        cmocka_unit_test(what_was_carried_can_be_carried),
        cmocka_unit_test(a_packet_is_a_small_message),
        cmocka_unit_test(samples_that_cannot_be_are_ignored),
    };

    return cmocka_run_group_tests_name("plan/link", tests, NULL, NULL);
}
