/* pipe/calibrate_test.c - probabilities against guesses that are right by chance.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/calibrate.h"

#include "base/unit_test.h"

#include <math.h>

static float chance(uint64_t *rng)
{
    return (float)unit_below(rng, 1000001) / 1e6f;
}

/* Before anything was compared the model's word is all there is. */
static void at_first_the_word_is_believed(void **state)
{
    const struct calibrate c = { 0 };

    (void)state;
    for (int i = 0; i <= 100; i++)
        assert_true(fabsf(calibrate_said(&c, (float)i / 100.0f) - (float)i / 100.0f) < 1e-6f);
    assert_true(calibrate_mean(&c) > 0.5f && calibrate_mean(&c) < 0.9f);
}

/* Goal:   a model that is too sure of itself is believed as far as it was right.
 * Method: it says p, and is right with p squared, or never, or always. */
static void what_is_said_is_corrected_by_what_was_right(void **state)
{
    uint64_t rng = unit_seed();

    (void)state;
    for (int way = 0; way < 3; way++) {
        struct calibrate c = { 0 };
        double           off = 0.0, right = 0.0;

        for (int i = 0; i < 20000; i++) {
            float said = chance(&rng), truth = way == 0 ? said * said : way == 1 ? 0.0f : 1.0f;

            if (i >= 2000) {
                off += calibrate_said(&c, said) - truth;
                right += truth;
            }
            calibrate_learn(&c, said, chance(&rng) < truth);
        }
        if (fabs(off) > 0.12 * 18000)
            fail_msg("way %d: off by %.3f on average", way, off / 18000);
        if (fabs(calibrate_mean(&c) - right / 18000) > 0.25)
            fail_msg("way %d: the mean is %.3f, not %.3f", way, (double)calibrate_mean(&c),
                     right / 18000);
    }
}

/* Goal: what was learned is forgotten when nothing confirms it, so that a draft model that failed
 *       in one passage is tried again in another. */
static void what_is_not_confirmed_fades(void **state)
{
    struct calibrate c = { 0 };
    float            low;

    (void)state;
    for (int i = 0; i < 200; i++)
        calibrate_learn(&c, 0.9f, false);
    low = calibrate_mean(&c);
    assert_true(low < 0.12f && calibrate_said(&c, 0.9f) < 0.15f);
    for (int i = 0; i < 1000; i++)
        calibrate_fade(&c);
    assert_true(calibrate_mean(&c) > 0.6f);
    assert_true(calibrate_said(&c, 0.9f) > 0.8f);
}

static void probabilities_stay_probabilities(void **state)
{
    uint64_t         rng = unit_seed();
    struct calibrate c = { 0 };

    (void)state;
    for (int i = 0; i < 5000; i++) {
        float said = chance(&rng);

        if (unit_below(&rng, 3) == 0)
            calibrate_fade(&c);
        else
            calibrate_learn(&c, said, unit_below(&rng, 2) == 0);
        assert_true(calibrate_said(&c, said) >= 0.0f && calibrate_said(&c, said) <= 1.0f);
        assert_true(calibrate_mean(&c) >= 0.0f && calibrate_mean(&c) <= 1.0f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_first_the_word_is_believed),
        cmocka_unit_test(what_is_said_is_corrected_by_what_was_right),
        cmocka_unit_test(what_is_not_confirmed_fades),
        cmocka_unit_test(probabilities_stay_probabilities),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
