/* pipe/pulse_test.c - beats and silence on a clock that the test owns.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/pulse.h"

#include "base/unit_test.h"

#include <math.h>

static const double START_MS = 5000.0, PATIENCE_MS = 60000.0;

/* Settled at a round trip of 20 ms, heard of at START_MS. */
static struct pulse settled(void)
{
    struct pulse p;

    pulse_init(&p, START_MS, PATIENCE_MS);
    for (int i = 0; i < 200; i++)
        pulse_rtt(&p, 20.0);
    return p;
}

/* Ask as its owner does: at once, then whenever it said.  Returns when it was lost (0: not before
 * until_ms), and counts the beats. */
static double ask_until(struct pulse *p, double now_ms, double until_ms, int *beats)
{
    *beats = 0;
    while (now_ms <= until_ms) {
        double             next_ms;
        enum pulse_verdict v = pulse_ask(p, now_ms, &next_ms);

        if (v == PULSE_LOST)
            return now_ms;
        *beats += v == PULSE_BEAT;
        if (next_ms == 0.0)
            return 0.0;
        assert_true(next_ms > now_ms);
        now_ms = next_ms;
    }
    return 0.0;
}

/* Goal:   as long as nothing is awaited, nothing is sent and nothing lost, however long. */
static void an_idle_session_costs_nothing(void **state)
{
    struct pulse p = settled();
    double       next_ms;

    (void)state;
    for (double now = START_MS; now < START_MS + 1e7; now += 1e5) {
        assert_int_equal(pulse_ask(&p, now, &next_ms), PULSE_FINE);
        assert_true(next_ms == 0.0);
    }
    pulse_awaiting(&p, START_MS, true);
    pulse_awaiting(&p, START_MS + 10.0, false);
    assert_int_equal(pulse_ask(&p, START_MS + 9000.0, &next_ms), PULSE_FINE);
    assert_true(next_ms == 0.0);
}

/* Goal:   silence is lost after silence_ms, the round trip and four deviations, and not before;
 *         until then a beat every beat_ms. */
static void silence_is_lost_after_its_time(void **state)
{
    struct pulse p = settled();
    int          beats;
    double       lost_ms;

    (void)state;
    pulse_awaiting(&p, START_MS + 100.0, true);
    lost_ms = ask_until(&p, START_MS + 100.0, START_MS + 5000.0, &beats);
    assert_true(fabs(lost_ms - (START_MS + 100.0 + 250.0 + 20.0)) < 1e-3);
    assert_int_equal(beats, 3); /* at 80, 160 and 240 ms of waiting */
}

/* Goal:   the time runs from the last sign of life, or from when an answer was first awaited if
 *         that was later: a session that was idle for an hour is not lost at its next token. */
static void the_time_runs_from_the_later_of_two(void **state)
{
    struct pulse p = settled();
    double       next_ms, now = START_MS + 3600e3;

    (void)state;
    pulse_awaiting(&p, now, true);
    assert_int_equal(pulse_ask(&p, now, &next_ms), PULSE_FINE);
    assert_true(next_ms == now + 80.0);
    assert_int_equal(pulse_ask(&p, now + 79.9, &next_ms), PULSE_FINE);
    pulse_heard(&p, now + 70.0);
    assert_int_equal(pulse_ask(&p, now + 80.0, &next_ms), PULSE_FINE);
    assert_true(next_ms == now + 150.0);
    assert_int_equal(pulse_ask(&p, now + 150.0, &next_ms), PULSE_BEAT);
    pulse_awaiting(&p, now + 200.0, true); /* still: it does not begin anew */
    assert_int_equal(pulse_ask(&p, now + 70.0 + 269.9, &next_ms), PULSE_BEAT);
    assert_int_equal(pulse_ask(&p, now + 70.0 + 270.1, &next_ms), PULSE_LOST);
    pulse_heard(&p, now + 400.0);
    pulse_heard(&p, now + 300.0); /* told late: time does not go back */
    assert_true(p.heard_ms == now + 400.0);
}

/* Goal:   an end that echoes beats is never lost, however long it computes. */
static void whoever_echoes_is_alive(void **state)
{
    struct pulse p = settled();
    double       now = START_MS, next_ms, echo_ms = INFINITY;
    int          beats = 0;

    (void)state;
    pulse_awaiting(&p, now, true);
    while (now < START_MS + 60e3) {
        enum pulse_verdict v = pulse_ask(&p, now, &next_ms);

        assert_int_not_equal(v, PULSE_LOST);
        if (v == PULSE_BEAT) {
            beats++;
            echo_ms = now + 20.0;
        }
        if (echo_ms <= next_ms) {
            now = echo_ms;
            echo_ms = INFINITY;
            pulse_heard(&p, now);
            pulse_rtt(&p, 20.0);
        } else {
            now = next_ms;
        }
    }
    assert_in_range(beats, 590, 610); /* one a beat and its round trip */
}

/* Goal:   the estimates are RFC 6298's.
 * Method: its formulas, written out, on random samples; nonsense is ignored. */
static void round_trips_are_estimated_as_rfc_6298_says(void **state)
{
    struct pulse p;
    uint64_t     random = unit_seed();
    double       srtt = 0.0, rttvar = 0.0, least = 1e9;

    (void)state;
    pulse_init(&p, START_MS, PATIENCE_MS);
    for (int i = 0; i < 1000; i++) {
        double r = 5.0 + unit_below(&random, 10000) / 100.0;

        if (i == 0) {
            srtt = r;
            rttvar = r / 2;
        } else {
            rttvar = 0.75 * rttvar + 0.25 * fabs(srtt - r);
            srtt = 0.875 * srtt + 0.125 * r;
        }
        least = fmin(least, r);
        pulse_rtt(&p, r);
        pulse_rtt(&p, -1.0);
        pulse_rtt(&p, NAN);
        assert_true(fabs(p.rtt_ms - srtt) < 1e-9 && fabs(p.deviation_ms - rttvar) < 1e-9);
        assert_true(p.rtt_min_ms == least);
    }
}

/* Goal:   before the first sample nobody is taken for dead for being far away. */
static void an_unknown_round_trip_counts_as_a_second(void **state)
{
    struct pulse p;
    int          beats;

    (void)state;
    pulse_init(&p, START_MS, PATIENCE_MS);
    pulse_awaiting(&p, START_MS, true);
    assert_true(fabs(ask_until(&p, START_MS, START_MS + 5000.0, &beats) - (START_MS + 1250.0)) <
                1e-3);
    assert_int_equal(beats, 15);
}

/* Goal:   who echoes and never answers is stuck when the patience is over, counted from the last
 *         part of an answer; not while nothing is awaited. */
static void echoes_without_an_answer_are_stuck_in_the_end(void **state)
{
    struct pulse p = settled();
    double       next_ms, now = START_MS, part_ms = START_MS + 20000.0;

    (void)state;
    pulse_awaiting(&p, now, true);
    for (; now <= part_ms + PATIENCE_MS; now += 40.0) {
        pulse_heard(&p, now);
        if (now <= part_ms)
            pulse_answer(&p, now);
        assert_int_not_equal(pulse_ask(&p, now, &next_ms), PULSE_STUCK);
    }
    pulse_heard(&p, now);
    assert_int_equal(pulse_ask(&p, now, &next_ms), PULSE_STUCK);
    pulse_awaiting(&p, now, false);
    assert_int_equal(pulse_ask(&p, now, &next_ms), PULSE_FINE);
    pulse_awaiting(&p, now, true);
    assert_int_not_equal(pulse_ask(&p, now, &next_ms), PULSE_STUCK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_session_costs_nothing),
        cmocka_unit_test(silence_is_lost_after_its_time),
        cmocka_unit_test(the_time_runs_from_the_later_of_two),
        cmocka_unit_test(whoever_echoes_is_alive),
        cmocka_unit_test(round_trips_are_estimated_as_rfc_6298_says),
        cmocka_unit_test(an_unknown_round_trip_counts_as_a_second),
        cmocka_unit_test(echoes_without_an_answer_are_stuck_in_the_end),
    };

    return cmocka_run_group_tests_name("pipe/pulse", tests, NULL, NULL);
}
