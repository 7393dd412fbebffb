/* model/sampler_test.c - from a row of logits to a token.
 *
 * SPDX-License-Identifier: MIT */
#include "model/sampler.h"

#include "base/unit_test.h"

#include <float.h>
#include <math.h>

enum { VOCAB = 50, SEED = 42 };

static mcp_generate_opts warm(void)
{
    mcp_generate_opts o = MCP_GENERATE_OPTS_INIT;

    o.temperature = 1.0f;
    o.top_k = 0;
    o.top_p = 1.0f;
    o.min_p = 0.0f;
    return o;
}

static struct model_sampler *must_new(const mcp_generate_opts *o, uint32_t n_vocab, uint32_t seed)
{
    struct model_sampler *s = model_sampler_new(o, n_vocab, seed);

    assert_non_null(s);
    return s;
}

/* One token of a fresh sampler. */
static int32_t pick(const mcp_generate_opts *o, const float *logits, uint32_t n_vocab,
                    uint32_t seed)
{
    struct model_sampler *s = must_new(o, n_vocab, seed);
    int32_t               token = model_sampler_pick(s, logits);

    model_sampler_free(s);
    return token;
}

static void random_row(uint64_t *rng, float *logits)
{
    for (int i = 0; i < VOCAB; i++)
        logits[i] = (float)unit_below(rng, 20000) / 1000.0f - 10.0f;
}

static int32_t argmax(const float *logits)
{
    int32_t best = 0;

    for (int32_t i = 1; i < VOCAB; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* Goal:   without temperature the most likely token is taken, of equals the first.
 * Method: temperatures of zero and below; ties at the front, the end and everywhere. */
static void greedy_takes_the_first_of_equals(void **state)
{
    static const float cold[] = { 0.0f, -0.0f, -1.0f, -INFINITY };
    float              logits[VOCAB];
    mcp_generate_opts  o = warm();

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(cold); i++) {
        o.temperature = cold[i];
        for (int j = 0; j < VOCAB; j++)
            logits[j] = -5.0f;
        assert_int_equal(pick(&o, logits, VOCAB, SEED), 0);
        logits[VOCAB - 1] = -4.0f;
        assert_int_equal(pick(&o, logits, VOCAB, SEED), VOCAB - 1);
        logits[17] = logits[30] = -4.0f;
        assert_int_equal(pick(&o, logits, VOCAB, SEED), 17);
    }
}

/* Goal:   top-k of one, top-p of nearly nothing, and a min-p of one all equal greedy. */
static void the_narrowest_limits_equal_greedy(void **state)
{
    uint64_t rng = unit_seed();
    float    logits[VOCAB];

    (void)state;
    for (int round = 0; round < 100; round++) {
        mcp_generate_opts k = warm(), p = warm(), m = warm();

        k.top_k = 1;
        p.top_p = 1e-6f;
        m.min_p = 1.0f;
        random_row(&rng, logits);
        logits[unit_below(&rng, VOCAB)] = 11.0f; /* one winner */
        assert_int_equal(pick(&k, logits, VOCAB, (uint32_t)round), argmax(logits));
        assert_int_equal(pick(&p, logits, VOCAB, (uint32_t)round), argmax(logits));
        assert_int_equal(pick(&m, logits, VOCAB, (uint32_t)round), argmax(logits));
    }
}

/* Goal:   one seed makes one series of tokens; another seed another one. */
static void one_seed_makes_one_series(void **state)
{
    mcp_generate_opts o = MCP_GENERATE_OPTS_INIT;
    int               differ = 0;

    (void)state;
    for (uint32_t seed = 0; seed < 20; seed++) {
        struct model_sampler *a = must_new(&o, VOCAB, seed), *b = must_new(&o, VOCAB, seed);
        struct model_sampler *c = must_new(&o, VOCAB, seed + 1000);
        uint64_t              rng = unit_seed() + seed;

        for (int i = 0; i < 50; i++) {
            float   logits[VOCAB];
            int32_t token;

            for (int j = 0; j < VOCAB; j++)
                logits[j] = (float)unit_below(&rng, 1000) / 1000.0f;
            token = model_sampler_pick(a, logits);
            assert_true(token >= 0 && token < VOCAB);
            assert_int_equal(model_sampler_pick(b, logits), token);
            differ += model_sampler_pick(c, logits) != token;
        }
        model_sampler_free(a);
        model_sampler_free(b);
        model_sampler_free(c);
    }
    assert_true(differ > 500);
}

/* Goal:   tokens come out as often as the softmax says.
 * Method: four tokens, 20,000 draws of one sampler, against the probabilities within five
 *         standard deviations; at two temperatures. */
static void tokens_come_as_often_as_their_probability(void **state)
{
    static const float logits[4] = { 2.0f, 0.0f, 1.0f, -1.0f };
    enum { DRAWS = 20000 };

    (void)state;
    for (int hot = 0; hot < 2; hot++) {
        mcp_generate_opts     o = warm();
        struct model_sampler *s;
        int                   counts[4] = { 0 };
        double                sum = 0.0;

        o.temperature = hot ? 2.0f : 1.0f;
        s = must_new(&o, 4, SEED);
        for (int i = 0; i < DRAWS; i++)
            counts[model_sampler_pick(s, logits)]++;
        model_sampler_free(s);
        for (int i = 0; i < 4; i++)
            sum += exp((double)logits[i] / (hot ? 2.0 : 1.0));
        for (int i = 0; i < 4; i++) {
            double p = exp((double)logits[i] / (hot ? 2.0 : 1.0)) / sum;

            assert_true(fabs(counts[i] - p * DRAWS) < 5.0 * sqrt(p * (1 - p) * DRAWS));
        }
    }
}

/* Tokens that come out in 2,000 draws, as a bit set. */
static uint64_t drawn(const mcp_generate_opts *o, const float *logits, uint32_t n_vocab)
{
    struct model_sampler *s = must_new(o, n_vocab, SEED);
    uint64_t              set = 0;

    for (int i = 0; i < 2000; i++)
        set |= (uint64_t)1 << model_sampler_pick(s, logits);
    model_sampler_free(s);
    return set;
}

/* Goal:   top-k, top-p and min-p leave exactly the tokens that they should.
 * Method: five tokens with probabilities 0.4, 0.3, 0.15, 0.1 and 0.05, in mixed order. */
static void each_limit_leaves_exactly_its_tokens(void **state)
{
    static const float p[5] = { 0.1f, 0.4f, 0.05f, 0.3f, 0.15f };
    static const struct {
        int32_t  top_k;
        float    top_p, min_p;
        uint64_t set;
    } rows[] = {
        { 0, 1.0f, 0.0f, 0x1f },    { -1, 2.0f, -1.0f, 0x1f }, { 5, 1.0f, 0.0f, 0x1f },
        { 1000, 1.0f, 0.0f, 0x1f }, { 1, 1.0f, 0.0f, 0x02 },   { 2, 1.0f, 0.0f, 0x0a },
        { 3, 1.0f, 0.0f, 0x1a },    { 0, 0.5f, 0.0f, 0x0a },   { 0, 0.8f, 0.0f, 0x1a },
        { 0, 0.9f, 0.0f, 0x1b },    { 0, 0.0f, 0.0f, 0x02 },   { 0, -1.0f, 0.0f, 0x02 },
        { 0, 1.0f, 0.9f, 0x02 },    { 0, 1.0f, 0.5f, 0x0a },   { 0, 1.0f, 0.3f, 0x1a },
        { 0, 1.0f, 0.2f, 0x1b },    { 0, 1.0f, 5.0f, 0x02 },   { 3, 0.5f, 0.0f, 0x0a },
        { 2, 1.0f, 0.9f, 0x02 },
    };
    float logits[5];

    (void)state;
    for (int i = 0; i < 5; i++)
        logits[i] = logf(p[i]) + 3.0f;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        mcp_generate_opts o = warm();
        uint64_t          set;

        o.top_k = rows[i].top_k;
        o.top_p = rows[i].top_p;
        o.min_p = rows[i].min_p;
        set = drawn(&o, logits, 5);
        if (set != rows[i].set)
            fail_msg("row %zu draws %#" PRIx64 ", not %#" PRIx64, i, set, rows[i].set);
    }
}

/* Goal:   a row that is not all finite does not end the process: the best finite token is
 *         taken, or -1 where there is none.
 * Method: NaN and infinities at the front, the end, in the place of the best, everywhere;
 *         greedy and drawing. */
static void rows_with_nan_give_the_best_finite_token(void **state)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };

    (void)state;
    for (int drawing = 0; drawing < 2; drawing++)
        for (size_t b = 0; b < UNIT_COUNT(bad); b++) {
            mcp_generate_opts     o = MCP_GENERATE_OPTS_INIT;
            struct model_sampler *s;
            float                 logits[VOCAB];

            o.temperature = drawing ? 0.8f : 0.0f;
            s = must_new(&o, VOCAB, SEED);
            for (int i = 0; i < VOCAB; i++)
                logits[i] = (float)-i;
            logits[VOCAB - 1] = bad[b];
            assert_int_equal(model_sampler_pick(s, logits), 0);
            logits[0] = bad[b];
            assert_int_equal(model_sampler_pick(s, logits), 1);
            for (int i = 0; i < VOCAB; i++)
                logits[i] = bad[b];
            assert_int_equal(model_sampler_pick(s, logits), -1);
            logits[33] = -1e30f;
            assert_int_equal(model_sampler_pick(s, logits), 33);
            for (int i = 0; i < VOCAB; i++) /* and the sampler still works */
                logits[i] = i == 5 ? 100.0f : 0.0f;
            assert_int_equal(model_sampler_pick(s, logits), 5);
            model_sampler_free(s);
        }
}

/* Goal:   extreme finite logits and temperatures give a token of the vocabulary; a
 *         temperature near zero gives the most likely one.
 * Method: temperatures from the smallest number to the largest, rows from tiny to huge. */
static void extreme_numbers_still_give_a_token(void **state)
{
    static const float temperatures[] = { FLT_TRUE_MIN, 1e-40f, FLT_MIN, 1e-30f,  1e-6f,
                                          1.0f,         1e6f,   FLT_MAX, INFINITY };
    static const float scales[] = { 1e-30f, 1.0f, 1e6f, 1e30f };

    (void)state;
    for (size_t t = 0; t < UNIT_COUNT(temperatures); t++)
        for (size_t c = 0; c < UNIT_COUNT(scales); c++)
            for (int all = 0; all < 2; all++) {
                mcp_generate_opts o = MCP_GENERATE_OPTS_INIT;
                float             logits[VOCAB];
                int32_t           token;

                if (all) /* every limit off: nothing narrows the row first */
                    o = warm();
                o.temperature = temperatures[t];
                for (int i = 0; i < VOCAB; i++)
                    logits[i] = (i == 7 ? 3.0f : (float)(i % 3)) * scales[c];
                token = pick(&o, logits, VOCAB, SEED);
                if (token < 0 || token >= VOCAB)
                    fail_msg("temperature %g, logits of %g, limits %s: token %d",
                             (double)temperatures[t], (double)scales[c], all ? "off" : "on", token);
                if (temperatures[t] < 1e-5f && scales[c] >= 1.0f)
                    assert_int_equal(token, 7);
            }
}

/* Goal:   a vocabulary of one token needs no luck. */
static void a_vocabulary_of_one_gives_that_one(void **state)
{
    mcp_generate_opts o = MCP_GENERATE_OPTS_INIT;
    float             logits[1] = { -3.0f };

    (void)state;
    assert_int_equal(pick(&o, logits, 1, SEED), 0);
    o.temperature = 0.0f;
    assert_int_equal(pick(&o, logits, 1, SEED), 0);
    model_sampler_free(NULL);
}

/* ---- going on elsewhere ------------------------------------------------------------ */

/* Rows of every kind that a pick meets: any, one far ahead, all equal, not finite. */
static void any_row(uint64_t *rng, float *logits)
{
    random_row(rng, logits);
    switch (unit_below(rng, 6)) {
    case 0: logits[unit_below(rng, VOCAB)] = 1000.0f; break;
    case 1:
        for (int i = 0; i < VOCAB; i++)
            logits[i] = 1.0f;
        break;
    case 2: logits[unit_below(rng, VOCAB)] = NAN; break;
    case 3:
        if (unit_below(rng, 4) == 0)
            for (int i = 0; i < VOCAB; i++)
                logits[i] = -INFINITY;
        break;
    default: break;
    }
}

/* How many of the next 40 tokens differ between two samplers that see the same rows. */
static int next_differ(struct model_sampler *a, struct model_sampler *b, uint64_t *rng)
{
    int differ = 0;

    for (int i = 0; i < 40; i++) {
        float logits[VOCAB];

        random_row(rng, logits);
        differ += model_sampler_pick(a, logits) != model_sampler_pick(b, logits);
    }
    return differ;
}

/* Goal:   a sampler that skipped n draws goes on as one that picked n tokens, whatever the
 *         rows were; one draw more or less goes on otherwise.
 * Method: every chain (each limit off, usual, and so narrow that one candidate is left), each
 *         with random rows, a clear winner, ties, NaN and nothing finite; skipped at once and
 *         in parts.  A hot chain must notice a wrong count, or the test shows nothing. */
static void skipped_draws_equal_picked_tokens(void **state)
{
    static const float   temperatures[] = { 0.0f, 0.8f, 3.0f };
    static const int32_t top_k[] = { 0, 40, 1 };
    static const float   top_p[] = { 1.0f, 0.95f, 1e-6f };
    static const float   min_p[] = { 0.0f, 0.05f, 1.0f };
    uint64_t             rng = unit_seed();
    int                  noticed = 0;

    (void)state;
    for (int chain = 0; chain < 81; chain++) {
        uint32_t              count = unit_below(&rng, 200), part = unit_below(&rng, count + 1);
        mcp_generate_opts     o = warm();
        struct model_sampler *picked, *skipped, *wrong;
        uint64_t              same;

        o.temperature = temperatures[chain % 3];
        o.top_k = top_k[chain / 3 % 3];
        o.top_p = top_p[chain / 9 % 3];
        o.min_p = min_p[chain / 27];
        picked = must_new(&o, VOCAB, SEED);
        skipped = must_new(&o, VOCAB, SEED);
        wrong = must_new(&o, VOCAB, SEED);
        for (uint32_t i = 0; i < count; i++) {
            float logits[VOCAB];

            any_row(&rng, logits);
            model_sampler_pick(picked, logits);
        }
        model_sampler_skip(skipped, part);
        model_sampler_skip(skipped, count - part);
        model_sampler_skip(wrong, count + 1);
        assert_int_equal(model_sampler_draws(picked), count);
        assert_int_equal(model_sampler_draws(skipped), count);
        same = rng;
        if (next_differ(picked, skipped, &rng) > 0)
            fail_msg("chain %d goes on otherwise after %u draws (seed=%" PRIu64 ")", chain, count,
                     unit_seed());
        model_sampler_free(skipped);
        skipped = must_new(&o, VOCAB, SEED);
        model_sampler_skip(skipped, count);
        noticed += next_differ(skipped, wrong, &same) > 0;
        model_sampler_free(picked);
        model_sampler_free(skipped);
        model_sampler_free(wrong);
    }
    assert_true(noticed >= 8); /* the warm chains that no limit narrows to one candidate */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_first_of_equals),
        cmocka_unit_test(the_narrowest_limits_equal_greedy),
        cmocka_unit_test(one_seed_makes_one_series),
        cmocka_unit_test(tokens_come_as_often_as_their_probability),
        cmocka_unit_test(each_limit_leaves_exactly_its_tokens),
        cmocka_unit_test(rows_with_nan_give_the_best_finite_token),
        cmocka_unit_test(extreme_numbers_still_give_a_token),
        cmocka_unit_test(a_vocabulary_of_one_gives_that_one),
        cmocka_unit_test(skipped_draws_equal_picked_tokens),
    };

    return cmocka_run_group_tests_name("model/sampler", tests, NULL, NULL);
}
