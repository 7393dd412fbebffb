/* worker/cost_test.c - what forwards are expected to take.
 *
 * SPDX-License-Identifier: MIT */
#include "base/unit_test.h"
#include "worker/cost.h"

#include <math.h>

static void near(double value, double expected, double part)
{
    if (!(fabs(value - expected) <= part * fabs(expected)))
        fail_msg("%g is not within %g of %g", value, part, expected);
}

/* Goal:   without a forward nothing is claimed. */
static void at_first_nothing_is_known(void **state)
{
    struct worker_cost cost = { 0 };

    (void)state;
    assert_true(worker_cost_ms(&cost, 10, 30) == 0);
    assert_true(worker_cost_token_ms(&cost, 30) == 0);
    assert_true(worker_cost_tokens(&cost, 30, 1) == UINT32_MAX);
}

/* Goal:   a device that takes a + b n ms a layer is found out from forwards of several sizes over
 *         several layers, whatever a and b are; another one afterwards as well.
 * Method: times vary by 5 %. */
static void a_line_is_found(void **state)
{
    static const struct {
        double a, b;
    } devices[] = { { 0.25, 0.08 }, { 0, 0.1 }, { 0.3, 0.001 }, { 10, 2 } };
    struct worker_cost cost = { 0 };
    uint64_t           seed = unit_seed();

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(devices); i++) {
        double a = devices[i].a, b = devices[i].b;

        for (int j = 0; j < 400; j++) {
            uint32_t n = 1 + unit_below(&seed, 64), layers = 1 + unit_below(&seed, 30);
            double   noise = 0.95 + unit_below(&seed, 101) / 1000.0;

            worker_cost_note(&cost, n, layers, (a + b * n) * layers * noise);
        }
        near(worker_cost_ms(&cost, 10, 30), 30 * (a + 10 * b), 0.1);
        near(worker_cost_ms(&cost, 64, 30), 30 * (a + 64 * b), 0.1);
        near(worker_cost_tokens(&cost, 30, 30 * (a + 40 * b)), 40, i == 2 ? 0.8 : 0.15);
    }
}

/* Goal:   from forwards of one size a position is expected to cost its part of them, no less; and
 *         one position may always run. */
static void one_size_is_judged_safely(void **state)
{
    struct worker_cost cost = { 0 };

    (void)state;
    for (int i = 0; i < 10; i++)
        worker_cost_note(&cost, 8, 4, 16);
    near(worker_cost_token_ms(&cost, 4), 2, 1e-9);
    near(worker_cost_ms(&cost, 16, 4), 32, 1e-9);
    assert_int_equal(worker_cost_tokens(&cost, 4, 5), 2);
    assert_int_equal(worker_cost_tokens(&cost, 4, 0.5), 1);
}

/* Goal:   a slope is never below zero nor beyond the forward's own time, however the times lie. */
static void a_slope_stays_within_reason(void **state)
{
    struct worker_cost cost = { 0 };

    (void)state;
    worker_cost_note(&cost, 1, 1, 100);
    worker_cost_note(&cost, 100, 1, 1);
    assert_true(worker_cost_token_ms(&cost, 1) == 0);
    cost = (struct worker_cost){ 0 };
    worker_cost_note(&cost, 10, 1, 1);
    worker_cost_note(&cost, 11, 1, 100);
    near(worker_cost_token_ms(&cost, 1), 101.0 / 21, 0.05);
    assert_true(worker_cost_ms(&cost, 0, 1) >= -1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_first_nothing_is_known),
        cmocka_unit_test(a_line_is_found),
        cmocka_unit_test(one_size_is_judged_safely),
        cmocka_unit_test(a_slope_stays_within_reason),
    };

    return cmocka_run_group_tests_name("worker/cost", tests, NULL, NULL);
}
