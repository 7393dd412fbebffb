/* agent/guess_test.c - a draft model against the same model run plainly, and without memory.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/guess.h"

#include "agent/session.h"
#include "base/starve_test.h"
#include "engine/run_test.h"

enum { TEXT = 100 };

static struct mcp_model *model;
static mcp_engine_opts   opts;
static int32_t           text[TEXT];

static int begin(void **state)
{
    uint64_t rng = unit_seed();

    (void)state;
    model = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    assert_non_null(model_get_vocab(model, NULL));
    opts = run_opts();
    opts.even_windows = 1;
    run_tokens(&rng, text, TEXT, model->hp.n_vocab);
    return 0;
}

static int end(void **state)
{
    (void)state;
    model_close(model);
    return 0;
}

static struct guess *must_new(uint32_t ctx_tokens)
{
    struct guess *g;
    mcp_error     err;

    unit_ok(guess_new(&g, model, model, &opts, NULL, ctx_tokens, &err), &err);
    return g;
}

/* Steps until the guess behind tokens[0, length) is there. */
static struct draft_guess must_guess(struct guess *g, const int32_t *tokens, uint32_t length)
{
    struct draft_guess guess = { -1, -1.0f };
    mcp_error          err;
    int                rc = 0;

    for (uint32_t steps = 0; rc == 0; steps++) {
        assert_true(steps <= length);
        rc = guess_step(g, tokens, length, &guess, &err);
        unit_ok(rc, &err);
    }
    assert_int_equal(guess_behind(g, length), 0);
    return guess;
}

/* Goal:   the guess is the most likely token, with its probability, however the text was read.
 * Method: the oracle is one forward of all of the text, and a softmax in double. */
static void a_guess_is_the_most_likely_token(void **state)
{
    struct mcp_engine *e = run_engine(model, &opts);
    uint32_t           n_vocab = model->hp.n_vocab;
    float             *logits = run_floats((size_t)TEXT * n_vocab);
    struct guess      *g = must_new(TEXT + 1);

    (void)state;
    run_append(e, 0, text, TEXT / 2, logits);
    for (uint32_t length = TEXT / 2; length > 0; length -= 1 + length / 4) {
        const float       *row = logits + (size_t)(length - 1) * n_vocab;
        struct draft_guess guess = must_guess(g, text, length);
        double             sum = 0.0;

        for (uint32_t i = 0; i < n_vocab; i++) {
            assert_true(row[i] <= row[guess.token]);
            sum += exp((double)row[i] - row[guess.token]);
        }
        assert_true(fabs(guess.probability - 1.0 / sum) < 1e-4);
    }
    assert_true(guess_each_ms(g) > 0.0 && guess_total_ms(g) > 0.0);
    guess_free(g);
    free(logits);
    engine_close(e);
}

/* Goal: another text from a position on gives that text's guess, and nothing of the former one. */
static void a_text_that_was_another_is_forgotten(void **state)
{
    int32_t            other[TEXT];
    struct guess      *g = must_new(TEXT), *fresh = must_new(TEXT);
    struct draft_guess a, b;

    (void)state;
    memcpy(other, text, sizeof(text));
    for (uint32_t i = 30; i < 40; i++)
        other[i] = text[TEXT - i];
    must_guess(g, text, 60);
    a = must_guess(g, other, 40);
    b = must_guess(fresh, other, 40);
    assert_int_equal(a.token, b.token);
    assert_true(a.probability == b.probability);
    guess_free(fresh);
    guess_free(g);
}

static void a_text_beyond_the_context_is_an_error(void **state)
{
    struct guess      *g = must_new(16);
    struct draft_guess guess;
    mcp_error          err;

    (void)state;
    assert_int_equal(guess_room(g), 16);
    must_guess(g, text, 16);
    assert_int_equal(guess_step(g, text, 17, &guess, &err), MCP_ERANGE);
    guess_free(g);
}

/* What was right and wrong lately moves the probability of what is guessed next. */
static void a_guess_is_believed_as_far_as_it_was_right(void **state)
{
    struct guess      *g = must_new(TEXT);
    struct draft_guess first = must_guess(g, text, 20), later;

    (void)state;
    for (int i = 0; i < 100; i++)
        guess_learn(g, 20, false);
    later = must_guess(g, text, 20);
    assert_int_equal(later.token, first.token);
    assert_true(later.probability < first.probability / 4.0f + 1e-6f);
    assert_true(guess_mean(g) < 0.15f);
    guess_free(g);
}

/* ---- without memory ------------------------------------------------------------------------ */

struct answer {
    int32_t  tokens[16];
    uint32_t count;
};

static int collect(int32_t token, const char *bytes, size_t count, void *ctx)
{
    struct answer *a = ctx;

    (void)bytes;
    (void)count;
    assert_true(a->count < UNIT_COUNT(a->tokens));
    a->tokens[a->count++] = token;
    return 0;
}

/* Open a session with a draft model and let it answer.  False: memory was missing. */
static bool talk(struct mcp_engine *e, const struct mcp_model *draft, struct answer *a)
{
    mcp_session_opts    o = MCP_SESSION_OPTS_INIT;
    mcp_generate_opts   g = MCP_GENERATE_OPTS_INIT;
    struct mcp_session *s;
    mcp_error           err = { 0 };
    int                 rc;

    a->count = 0;
    o.spec = draft != NULL ? MCP_SPEC_DRAFT : MCP_SPEC_NONE;
    o.spec_depth = draft != NULL ? 3 : 0;
    o.draft_model = draft;
    o.draft_engine = &opts;
    rc = session_open(&s, e, &o, &err);
    starve_check(rc, &err);
    if (rc < 0) {
        assert_null(s);
        return false;
    }
    g.max_tokens = 8;
    g.ignore_end = 1;
    g.temperature = 0.0f;
    rc = session_generate(s, text, 10, &g, collect, a, NULL, &err);
    starve_check(rc, &err);
    session_close(s);
    return rc == MCP_OK;
}

/* Goal:   no allocation of a draft model is taken for granted, and an answer without its guesses
 *         is the same answer.
 * Method: each of ours fails in turn, alone and with all that follow. */
static void an_answer_survives_a_draft_model_without_memory(void **state)
{
    struct mcp_engine *e = run_engine(model, &opts);
    struct answer      expected, actual;

    (void)state;
    assert_true(talk(e, NULL, &expected));
    engine_close(e);
    for (int all_after = 0; all_after < 2; all_after++) {
        for (int n = 1, failed = 1; failed > 0; n++) {
            bool done;

            e = run_engine(model, &opts);
            starve_arm(n, all_after != 0);
            done = talk(e, model, &actual);
            engine_close(e); /* with the graphs that it has kept */
            failed = starve_disarm();
            if (done && (actual.count != expected.count ||
                         memcmp(actual.tokens, expected.tokens,
                                sizeof(expected.tokens[0]) * expected.count) != 0))
                fail_msg("with allocation %d failing the answer is another one", n);
            assert_true(n < 1000);
            assert_true(failed > 0 || (n > 10 && done));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guess_is_the_most_likely_token),
        cmocka_unit_test(a_text_that_was_another_is_forgotten),
        cmocka_unit_test(a_text_beyond_the_context_is_an_error),
        cmocka_unit_test(a_guess_is_believed_as_far_as_it_was_right),
        cmocka_unit_test(an_answer_survives_a_draft_model_without_memory),
    };

    return cmocka_run_group_tests_name("agent/guess", tests, begin, end);
}
