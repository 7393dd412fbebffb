/* wire/lag_test.c - waits told from lags, and the windowed extremes against a plain search.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/lag.h"

#include "base/unit_test.h"

#include <math.h>

enum { STEPS = 5000 };

/* Goal:   the smallest value is no larger than any of the last period, no smaller than all of the
 *         last two.
 * Method: random values at random times, at most half a second apart but for long pauses, and the
 *         same values searched. */
static void the_smallest_is_of_the_last_periods(void **state)
{
    static double   at[STEPS], value[STEPS];
    struct wire_low l;
    uint64_t        seed = unit_seed();
    double          now = 0;

    (void)state;
    wire_low_init(&l);
    assert_true(isinf(wire_low_value(&l)));
    for (int i = 0; i < STEPS; i++) {
        double one = INFINITY, two = INFINITY;

        now += unit_below(&seed, 200) == 0 ? 25000 : unit_below(&seed, 500);
        at[i] = now;
        value[i] = unit_below(&seed, 1000) - 500.0;
        wire_low_note(&l, now, value[i]);
        for (int k = 0; k <= i; k++) {
            one = fmin(one, now - at[k] <= WIRE_LOW_HOLDS_MS ? value[k] : INFINITY);
            two = fmin(two, now - at[k] <= 2 * (WIRE_LOW_HOLDS_MS + 500) ? value[k] : INFINITY);
        }
        if (wire_low_value(&l) > one || wire_low_value(&l) < two)
            fail_msg("step %d: %.0f, not between %.0f and %.0f; MCP_SEED=%" PRIu64, i,
                     wire_low_value(&l), two, one, unit_seed());
    }
}

/* Goal:   the best is that of the last ten rounds, and growth is told against the nine before. */
static void the_best_is_of_the_last_rounds(void **state)
{
    static double    best[STEPS];
    struct wire_best b = { .round = 0 };
    uint64_t         seed = unit_seed();
    int              round = 0;

    (void)state;
    assert_true(wire_best_value(&b) == 0);
    for (int i = 0; i < STEPS; i++) {
        double value = 1 + unit_below(&seed, 1000), before = 0;

        wire_best_note(&b, value);
        best[round] = fmax(best[round], value);
        for (int k = round - 1; k >= 0 && k > round - WIRE_BEST_ROUNDS; k--)
            before = fmax(before, best[k]);
        assert_true(wire_best_value(&b) == fmax(before, best[round]));
        assert_int_equal(wire_best_grows(&b, 1.5), best[round] > 1.5 * before);
        if (unit_below(&seed, 3) == 0) {
            wire_best_round(&b);
            round++;
        }
    }
    wire_best_restart(&b, 7);
    assert_true(wire_best_value(&b) == 7 && wire_best_grows(&b, 1000));
}

/* Goal:   what an acknowledgement waited is what it has beyond the quickest one, whatever the
 *         peer's clock shows.
 * Method: a way back of 10 ms; waits of 0 to 9 ms; three epochs, one of a clock that is behind. */
static void waits_are_told_whatever_the_epoch(void **state)
{
    static const double epochs_ms[] = { 1, 86400e3, 1.7e12 };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(epochs_ms); i++) {
        struct wire_lag l;

        wire_lag_init(&l);
        for (int k = 0; k < 1000; k++) {
            const double   came = 5000 + 3 * k, wait = (k + 4) % 10, now = came + 10 + wait;
            const uint64_t stamp = (uint64_t)llround((came - 4999 + epochs_ms[i]) * 1e3);
            const double   at = wire_lag_at_ms(&l, now, stamp);

            if (k >= 10)
                assert_true(fabs(now - wire_lag_own_ms(&l, at) - wait) < 0.01);
            assert_true(wire_lag_own_ms(&l, at) <= now + 1e-6);
        }
        assert_true(fabs(wire_lag_own_ms(&l, wire_lag_peer_ms(&l, 42)) - 42) < 1e-6);
    }
}

/* Goal:   without stamps both clocks are one, and a stamp that is missing once has no wait. */
static void without_stamps_there_are_no_waits(void **state)
{
    struct wire_lag l;
    double          at;

    (void)state;
    wire_lag_init(&l);
    assert_true(wire_lag_at_ms(&l, 100, 0) == 100 && wire_lag_own_ms(&l, 100) == 100);
    at = wire_lag_at_ms(&l, 200, 5000000);
    assert_true(wire_lag_own_ms(&l, at) == 200);
    at = wire_lag_at_ms(&l, 230, 5020000);
    assert_true(fabs(wire_lag_own_ms(&l, at) - 220) < 1e-6);
    at = wire_lag_at_ms(&l, 250, 0);
    assert_true(fabs(wire_lag_own_ms(&l, at) - 250) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smallest_is_of_the_last_periods),
        cmocka_unit_test(the_best_is_of_the_last_rounds),
        cmocka_unit_test(waits_are_told_whatever_the_epoch),
        cmocka_unit_test(without_stamps_there_are_no_waits),
    };

    return cmocka_run_group_tests_name("wire/lag", tests, NULL, NULL);
}
