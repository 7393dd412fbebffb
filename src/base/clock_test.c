/* base/clock_test.c - time that only goes forward.
 *
 * SPDX-License-Identifier: MIT */
#include "base/clock.h"

#include "base/unit_test.h"

/* Goal:   the clock never goes back. */
static void time_never_goes_back(void **state)
{
    double last = base_clock_ms();

    (void)state;
    for (int i = 0; i < 100000; i++) {
        double now = base_clock_ms();

        assert_true(now >= last);
        last = now;
    }
}

/* Goal:   the unit is a millisecond.
 * Method: a sleep of 20 ms takes at least that; its upper bound is wide, machines are busy. */
static void a_sleep_of_twenty_milliseconds_counts_twenty(void **state)
{
    const struct timespec twenty = { .tv_nsec = 20 * 1000 * 1000 };
    double                start = base_clock_ms(), passed;

    (void)state;
    assert_int_equal(nanosleep(&twenty, NULL), 0);
    passed = base_clock_ms() - start;
    assert_true(passed >= 20.0);
    assert_true(passed < 10000.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_never_goes_back),
        cmocka_unit_test(a_sleep_of_twenty_milliseconds_counts_twenty),
    };

    return cmocka_run_group_tests_name("base/clock", tests, NULL, NULL);
}
