/* worker/guess_test.c - how many guesses pay.
 *
 * SPDX-License-Identifier: MIT */
#include "base/unit_test.h"
#include "worker/guess.h"

#include <math.h>

enum { WINDOW_MAX = WORKER_GUESSES_MAX + 1 };

/* A device on which n positions take fixed_ms + n position_ms. */
struct device {
    double fixed_ms, position_ms;
};

static double forward_ms(const struct device *d, uint32_t positions)
{
    return d->fixed_ms + d->position_ms * positions;
}

/* By trying all: the number of guesses, each right with p, with most tokens a ms. */
static uint32_t best(const struct device *d, double p)
{
    double   most = 1 / forward_ms(d, 1), tokens = 1;
    uint32_t found = 0;

    for (uint32_t i = 1; i <= WORKER_GUESSES_MAX; i++) {
        tokens += pow(p, i);
        if (tokens / forward_ms(d, i + 1) > most) {
            most = tokens / forward_ms(d, i + 1);
            found = i;
        }
    }
    return found;
}

/* A text with such guesses everywhere: windows as chosen, each of them seen; the last choice. */
static uint32_t settle(struct worker_guess *g, const struct device *d, float p, uint32_t windows)
{
    float    probability[WORKER_GUESSES_MAX];
    uint32_t chosen = 0;

    for (uint32_t i = 0; i < WORKER_GUESSES_MAX; i++)
        probability[i] = p;
    for (uint32_t i = 0; i < windows; i++) {
        chosen = worker_guess_choose(g, probability, WORKER_GUESSES_MAX);
        worker_guess_note(g, 1 + chosen, forward_ms(d, 1 + chosen));
    }
    return chosen;
}

/* Goal:   nothing is guessed before it is known what a token takes, nor without an offer. */
static void nothing_is_guessed_without_a_reason(void **state)
{
    struct worker_guess g = { 0 };
    const float         certain[] = { 1, 1, 1 };

    (void)state;
    assert_int_equal(worker_guess_choose(&g, certain, 3), 0);
    worker_guess_note(&g, 1, 10);
    assert_int_equal(worker_guess_choose(&g, certain, 0), 0);
    assert_int_equal(worker_guess_choose(&g, certain, 3), 3);
}

/* Goal:   what the device shows is used: after some windows tokens a ms are within 5 % of the best
 *         that any number of guesses gives, on devices from a GPU to a CPU where a position costs
 *         a token, for guesses of any quality. */
static void the_best_number_is_found(void **state)
{
    static const struct device devices[] = { { 6, 0.02 }, { 5, 1 }, { 1, 1 }, { 0, 4 } };
    static const float         p[] = { 0.2f, 0.5f, 0.8f, 0.95f };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(devices); i++)
        for (size_t j = 0; j < UNIT_COUNT(p); j++) {
            const struct device *d = &devices[i];
            struct worker_guess  g = { 0 };
            double               tokens[2] = { 0 };
            uint32_t             number[2];

            worker_guess_note(&g, 1, forward_ms(d, 1));
            number[0] = settle(&g, d, p[j], 200);
            number[1] = best(d, p[j]);
            for (int k = 0; k < 2; k++) {
                for (uint32_t n = 0; n <= number[k]; n++)
                    tokens[k] += pow(p[j], n);
                tokens[k] /= forward_ms(d, 1 + number[k]);
            }
            if (tokens[0] < 0.95 * tokens[1])
                fail_msg("device %zu, p %g: %u guesses, best are %u", i, (double)p[j], number[0],
                         number[1]);
        }
}

/* Goal:   where a position costs a token nothing is guessed, but for one window in 64; when the
 *         device becomes another one, that shows. */
static void a_device_that_changes_is_noticed(void **state)
{
    const struct device slow = { 0, 4 }, fast = { 6, 0.02 };
    struct worker_guess g = { 0 };
    const float         p[] = { 0.7f, 0.7f };
    uint32_t            tried = 0;

    (void)state;
    worker_guess_note(&g, 1, 4);
    settle(&g, &slow, 0.7f, 10);
    for (uint32_t i = 0; i < 640; i++) {
        uint32_t chosen = worker_guess_choose(&g, p, 2);

        worker_guess_note(&g, 1 + chosen, forward_ms(&slow, 1 + chosen));
        tried += chosen;
    }
    assert_in_range(tried, 9, 11);
    assert_true(settle(&g, &fast, 0.7f, 640) > 4);
    assert_true(settle(&g, &slow, 0.7f, 640) <= 1);
}

/* Goal:   times of sizes that were not seen lie between those of their neighbours, and no size is
 *         out of bounds. */
static void unseen_sizes_are_supposed(void **state)
{
    struct worker_guess g = { 0 };

    (void)state;
    assert_true(worker_guess_ms(&g, 3) == 0);
    worker_guess_note(&g, 0, 1);
    worker_guess_note(&g, WINDOW_MAX + 1, 1);
    assert_true(worker_guess_ms(&g, WINDOW_MAX) == 0);
    worker_guess_note(&g, 1, 10);
    assert_true(worker_guess_ms(&g, 5) == 20);
    worker_guess_note(&g, WINDOW_MAX, 25);
    assert_true(fabs(worker_guess_ms(&g, 6) - 15) < 1e-9);
    assert_true(worker_guess_ms(&g, WINDOW_MAX) == 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_guessed_without_a_reason),
        cmocka_unit_test(the_best_number_is_found),
        cmocka_unit_test(a_device_that_changes_is_noticed),
        cmocka_unit_test(unseen_sizes_are_supposed),
    };

    return cmocka_run_group_tests_name("worker/guess", tests, NULL, NULL);
}
