/* pipe/draft_test.c - guesses against a search of the whole text.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/draft.h"

#include "base/starve_test.h"

enum { TEXT_MAX = 60000, TEXT = 600, MATCH_MAX = 32 };

static struct draft *must_new(uint32_t tokens_max)
{
    struct draft *d;
    mcp_error     err;

    unit_ok(draft_new(&d, tokens_max, &err), &err);
    return d;
}

/* ---- the slow oracle --------------------------------------------------------------------------- */

/* Tokens before `a` that equal those before `b`. */
static uint32_t matched(const int32_t *tokens, uint32_t a, uint32_t b)
{
    uint32_t n = 0;

    while (n < MATCH_MAX && n < a && tokens[a - 1 - n] == tokens[b - 1 - n])
        n++;
    return n;
}

/* The latest place in the text where at least `run` tokens before it are those before the end. */
static uint32_t latest(const struct draft *d, uint32_t run)
{
    for (uint32_t pos = draft_known(d) - 1; pos > 0; pos--)
        if (matched(draft_tokens(d), pos, draft_length(d)) >= run)
            return pos;
    return 0;
}

/* Where a guess is to come from: 0 = there is none. */
static uint32_t source(const struct draft *d)
{
    static const uint32_t runs[] = { 16, 12, 8, 6, 4, 3, 2, 1 };

    for (size_t i = 0; i < UNIT_COUNT(runs); i++)
        if (latest(d, runs[i]) > 0)
            return latest(d, runs[i]);
    return 0;
}

/* Does the drafter say what the oracle says?  Two runs that share a slot may hide one. */
static bool as_the_oracle(const struct draft *d)
{
    struct draft_guess guess;
    uint32_t           pos = source(d);
    bool               any = draft_next(d, &guess);

    if (!any)
        return pos == 0;
    assert_true(guess.probability >= 0.0f && guess.probability <= 1.0f);
    return pos > 0 && guess.token == draft_tokens(d)[pos];
}

/* ---- tests ------------------------------------------------------------------------------------- */

/* Goal:   a guess is what followed the longest run, at its latest place.
 * Method: texts of few and of many words, guesses upon guesses, texts that are cut back and go on
 *         otherwise, so that the index is full of what is no longer there. */
static void a_guess_follows_the_longest_run(void **state)
{
    uint64_t      rng = unit_seed();
    struct draft *d = must_new(TEXT_MAX);
    int32_t       text[TEXT];
    uint32_t      asked = 0, wrong = 0;

    (void)state;
    for (uint32_t round = 0; round < 24; round++) {
        uint32_t words = 2 + unit_below(&rng, round % 3 == 0 ? 4 : 60);
        uint32_t kept = round % 4 == 0 ? 0 : unit_below(&rng, TEXT / 2), count = kept;

        while (count < TEXT) { /* pieces of itself and new words */
            uint32_t from = unit_below(&rng, TEXT), n = 1 + unit_below(&rng, 40);

            for (; n > 0 && count < TEXT; n--, from++, count++)
                text[count] = from < count ? text[from] : (int32_t)unit_below(&rng, words);
        }
        draft_begin(d, text, TEXT / 2);
        for (uint32_t i = TEXT / 2; i < TEXT; i++) {
            struct draft_guess guess;

            for (uint32_t k = 0; k < 5 && draft_next(d, &guess); k++) {
                asked++;
                wrong += !as_the_oracle(d);
                draft_push(d, guess.token);
            }
            draft_take(d, text[i]);
            draft_drop(d, draft_known(d));
        }
        assert_int_equal(draft_known(d), TEXT);
        assert_memory_equal(draft_tokens(d), text, sizeof(text));
    }
    assert_true(asked > 10000);
    if (wrong * 100 > asked * 2)
        fail_msg("%u of %u guesses are not the oracle's", wrong, asked);
    draft_free(d);
}

static void a_wrong_guess_takes_the_later_ones_with_it(void **state)
{
    const int32_t text[] = { 5, 6, 7 };
    struct draft *d = must_new(10);

    (void)state;
    draft_begin(d, text, 3);
    assert_true(draft_take(d, 8)); /* nothing was guessed */
    for (int32_t i = 1; i <= 4; i++)
        draft_push(d, i);
    assert_true(draft_take(d, 1));
    assert_int_equal(draft_length(d), 8);
    draft_drop(d, 7);
    assert_int_equal(draft_length(d), 7);
    assert_false(draft_take(d, 9));
    assert_int_equal(draft_length(d), 6);
    assert_int_equal(draft_known(d), 6);
    assert_int_equal(draft_tokens(d)[5], 9);
    draft_free(d);
}

static void a_text_of_new_words_has_no_guess(void **state)
{
    struct draft      *d = must_new(1000);
    struct draft_guess guess;

    (void)state;
    draft_begin(d, NULL, 0);
    assert_false(draft_next(d, &guess));
    for (int32_t i = 0; i < 1000; i++) {
        draft_take(d, i);
        assert_false(draft_next(d, &guess));
    }
    draft_free(d);
}

/* What is said of the next guess after `count` more tokens of a text of that period. */
static float belief(struct draft *d, uint64_t *rng, uint32_t period, uint32_t count)
{
    struct draft_guess guess = { 0 };

    for (uint32_t i = 0; i < count; i++)
        draft_take(d, (int32_t)(period > 0 ? i % period : unit_below(rng, 3)));
    assert_true(draft_next(d, &guess));
    return guess.probability;
}

/* Goal: the probability follows the text: up where it repeats, down where it does not, up again. */
static void the_probability_is_that_of_late(void **state)
{
    uint64_t      rng = unit_seed();
    struct draft *d = must_new(4000);
    float         repeated, drawn, again;

    (void)state;
    draft_begin(d, NULL, 0);
    repeated = belief(d, &rng, 9, 400);
    drawn = belief(d, &rng, 0, 1000);
    again = belief(d, &rng, 9, 400);
    if (repeated < 0.97f || drawn > 0.6f || again < 0.97f)
        fail_msg("said %.2f where the text repeats, %.2f where it is drawn, %.2f then",
                 (double)repeated, (double)drawn, (double)again);
    draft_free(d);
}

/* Method: each allocation fails alone, and all from each on. */
static void a_lack_of_memory_is_an_error(void **state)
{
    (void)state;
    for (int all_after = 0; all_after < 2; all_after++) {
        int failed = 1;

        for (int n = 1; failed > 0; n++) {
            struct draft *d;
            mcp_error     err = { 0 };
            int           rc;

            starve_arm(n, all_after);
            rc = draft_new(&d, 3000, &err);
            draft_free(d);
            failed = starve_disarm();
            starve_check(rc, &err);
            assert_true(failed > 0 || rc == MCP_OK);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guess_follows_the_longest_run),
        cmocka_unit_test(a_wrong_guess_takes_the_later_ones_with_it),
        cmocka_unit_test(a_text_of_new_words_has_no_guess),
        cmocka_unit_test(the_probability_is_that_of_late),
        cmocka_unit_test(a_lack_of_memory_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
