/* SPDX-License-Identifier: MIT */
/* refusals.c - an impossible forward is a sentence, and nothing has happened.
 *
 * ggml aborts or computes nonsense on most of these, so each must be caught before it.
 * One engine takes every refusal in turn; its sequence must not grow, and afterwards it
 * must go on with the bits of an engine that was never asked. */
#include "parity_common.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BEGUN = 11, CTX = 40, BATCH = 24, AMBIGUOUS = 1000 };

struct victim {
    mcp_model  *model;
    mcp_engine *engine;
    uint32_t    layers;
    uint32_t    n_embd;
    uint32_t    n_vocab;
    int32_t     tokens[64];
    float      *hidden; /* (64, n_embd), finite */
    float      *out;    /* (64, n_vocab) */
};

static mcp_engine_opts victim_opts(void)
{
    mcp_engine_opts opts = parity_opts();

    opts.ctx_tokens = CTX;
    opts.batch_tokens = BATCH;
    opts.ubatch_tokens = BATCH;
    opts.seqs = 2;
    return opts;
}

static void victim_open(struct victim *v, const char *shape)
{
    static const struct windows begun = WINDOWS(10, 1);
    mcp_engine_opts             opts = victim_opts();
    struct rng                  rng = { parity_seed() };
    const mcp_model_info       *info;

    v->model = parity_model_open(synth_model(shape, "q4_0"));
    v->engine = parity_engine_open(v->model, &opts);
    info = mcp_model_get_info(v->model);
    v->layers = info->layers;
    v->n_embd = info->n_embd;
    v->n_vocab = info->n_vocab;
    v->hidden = floats_new((size_t)64 * v->n_embd);
    v->out = floats_new((size_t)64 * v->n_vocab);
    for (size_t i = 0; i < (size_t)64 * v->n_embd; i++)
        v->hidden[i] = (float)rng_below(&rng, 2000) / 1000.0f - 1.0f;
    rng_tokens(&rng, v->tokens, 64, v->n_vocab);
    parity_run(v->engine, v->model, NULL, 0, v->tokens, &begun, v->out);
}

static void victim_close(struct victim *v)
{
    free(v->hidden);
    free(v->out);
    mcp_engine_close(v->engine);
    mcp_model_close(v->model);
}

/* A window that would work: three tokens at the end of sequence 0. */
static mcp_window good_window(const struct victim *v)
{
    return (mcp_window){
        .seq = 0, .pos = BEGUN, .count = 3, .tokens = v->tokens + BEGUN, .out = MCP_OUT_ALL
    };
}

static void lengths_must_be(struct victim *v, const char *what)
{
    for (uint32_t l = 0; l < v->layers; l++)
        for (uint32_t seq = 0; seq < 2; seq++)
            if (mcp_engine_length(v->engine, seq, l) != (seq == 0 ? BEGUN : 0))
                fail_msg("%s: sequence %u has %u positions in layer %u", what, seq,
                         mcp_engine_length(v->engine, seq, l), l);
}

/* `code` AMBIGUOUS: the header leaves open whether MCP_EINVAL or MCP_ERANGE. */
static void must_refuse(struct victim *v, uint32_t first, uint32_t last, mcp_want want,
                        const mcp_window *windows, uint32_t count, float *out, size_t floats,
                        int code, const char *what)
{
    mcp_error err = { 0 };
    int rc = mcp_engine_forward(v->engine, first, last, want, windows, count, out, floats, &err);

    if (rc >= 0)
        fail_msg("%s was accepted", what);
    if (err.code != rc || err.text[0] == '\0' || memchr(err.text, '\0', sizeof(err.text)) == NULL)
        fail_msg("%s: returned %d, err.code %d, text '%s'", what, rc, err.code, err.text);
    if (code == AMBIGUOUS ? rc != MCP_EINVAL && rc != MCP_ERANGE : rc != code)
        fail_msg("%s: %s (%s), not %s", what, mcp_code_name(rc), err.text,
                 code == AMBIGUOUS ? "MCP_EINVAL or MCP_ERANGE" : mcp_code_name(code));
    if (mcp_engine_forward(v->engine, first, last, want, windows, count, out, floats, NULL) != rc)
        fail_msg("%s: another code without mcp_error", what);
    lengths_must_be(v, what);
}

static void refuse_logits(struct victim *v, const mcp_window *window, int code, const char *what)
{
    must_refuse(v, 0, v->layers, MCP_WANT_LOGITS, window, 1, v->out, (size_t)64 * v->n_vocab, code,
                what);
}

static void refuse_range(struct victim *v, uint32_t first, uint32_t last, mcp_want want, int code,
                         const char *what)
{
    mcp_window window = good_window(v);

    if (first > 0) {
        window.tokens = NULL;
        window.hidden = v->hidden;
    }
    must_refuse(v, first, last, want, &window, 1, v->out, (size_t)64 * v->n_vocab, code, what);
}

/* Goal:   the engine is unharmed.
 * Method: it and a fresh one go on from the same tokens. */
static void must_still_work(struct victim *v)
{
    static const struct windows begun = WINDOWS(10, 1), next = WINDOWS(3, 1, 8);
    mcp_engine_opts             opts = victim_opts();
    mcp_engine                 *fresh = parity_engine_open(v->model, &opts);
    float                      *expected = floats_new((size_t)12 * v->n_vocab);

    parity_run(fresh, v->model, NULL, 0, v->tokens, &begun, expected);
    parity_run(fresh, v->model, NULL, 0, v->tokens + BEGUN, &next, expected);
    parity_run(v->engine, v->model, NULL, 0, v->tokens + BEGUN, &next, v->out);
    rows_require_equal(v->out, expected, 12, v->n_vocab, "after the refusals");
    free(expected);
    mcp_engine_close(fresh);
}

static void an_impossible_range_is_refused(void **state)
{
    struct victim v;

    victim_open(&v, *state);
    refuse_range(&v, 0, v.layers + 1, MCP_WANT_LOGITS, MCP_ERANGE, "a range past the last layer");
    refuse_range(&v, 0, UINT32_MAX, MCP_WANT_HIDDEN, MCP_ERANGE, "layer 4294967295");
    refuse_range(&v, UINT32_MAX, 1, MCP_WANT_HIDDEN, AMBIGUOUS, "a range from 4294967295");
    refuse_range(&v, 0, 0, MCP_WANT_HIDDEN, AMBIGUOUS, "an empty range");
    refuse_range(&v, v.layers, v.layers, MCP_WANT_LOGITS, AMBIGUOUS, "an empty range at the end");
    refuse_range(&v, 2, 1, MCP_WANT_HIDDEN, AMBIGUOUS, "a range backwards");
    refuse_range(&v, 0, v.layers - 1, MCP_WANT_LOGITS, AMBIGUOUS, "logits of an inner layer");
    refuse_range(&v, 0, 1, (mcp_want)99, AMBIGUOUS, "an unknown want");
    must_still_work(&v);
    victim_close(&v);
}

static void a_layer_that_is_not_loaded_is_refused(void **state)
{
    mcp_engine_opts opts = victim_opts();
    mcp_engine     *whole, *part;
    struct victim   v;

    victim_open(&v, *state);
    opts.first = 1;
    opts.last = 3;
    part = parity_engine_open(v.model, &opts);
    whole = v.engine;
    v.engine = part;
    for (int i = 0; i < 5; i++) {
        static const uint32_t bad[][2] = { { 0, 1 }, { 0, 3 }, { 1, 4 }, { 3, 4 }, { 0, 4 } };
        mcp_window            window = { .count = 2, .out = MCP_OUT_ALL };
        mcp_error             err = { 0 };
        int                   rc;

        if (bad[i][0] == 0)
            window.tokens = v.tokens;
        else
            window.hidden = v.hidden;
        rc = mcp_engine_forward(part, bad[i][0], bad[i][1], MCP_WANT_HIDDEN, &window, 1, v.out,
                                (size_t)2 * v.n_embd, &err);
        if (rc != MCP_ERANGE || err.text[0] == '\0')
            fail_msg("[%u,%u) of an engine with [1,3): %d %s", bad[i][0], bad[i][1], rc, err.text);
    }
    v.engine = whole;
    mcp_engine_close(part);
    must_still_work(&v);
    victim_close(&v);
}

static void a_position_that_does_not_continue_is_refused(void **state)
{
    static const uint32_t bad[] = { 0, BEGUN - 1, BEGUN + 1, CTX, UINT32_MAX, UINT32_MAX - 2 };
    struct victim         v;
    mcp_window            window, partly;
    mcp_error             err = { 0 };

    victim_open(&v, *state);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        window = good_window(&v);
        window.pos = bad[i];
        refuse_logits(&v, &window, MCP_ERANGE, "a position off the sequence's end");
    }
    /* layers that stand at different positions */
    partly = good_window(&v);
    if (mcp_engine_forward(v.engine, 0, 1, MCP_WANT_HIDDEN, &partly, 1, v.out, (size_t)3 * v.n_embd,
                           &err) < 0)
        fail_msg("layer 0 alone: %s", err.text);
    for (uint32_t pos = BEGUN; pos <= BEGUN + 3; pos += 3) {
        window = good_window(&v);
        window.pos = pos;
        assert_int_equal(mcp_engine_forward(v.engine, 0, v.layers, MCP_WANT_LOGITS, &window, 1,
                                            v.out, (size_t)64 * v.n_vocab, &err),
                         MCP_ERANGE);
    }
    parity_trim(v.engine, 0, BEGUN);
    must_still_work(&v);
    victim_close(&v);
}

static void too_many_tokens_are_refused(void **state)
{
    struct victim v;
    mcp_window    window, two[2];

    victim_open(&v, *state);
    window = good_window(&v);
    window.count = BATCH + 1;
    refuse_logits(&v, &window, MCP_ERANGE, "more than batch_tokens");
    window.count = CTX - BEGUN + 1;
    refuse_logits(&v, &window, MCP_ERANGE, "more than batch and context");
    window.count = UINT32_MAX;
    refuse_logits(&v, &window, MCP_ERANGE, "4294967295 tokens");
    window.count = UINT32_MAX - BEGUN + 1;
    refuse_logits(&v, &window, MCP_ERANGE, "a count that wraps");
    window.count = 0;
    refuse_logits(&v, &window, AMBIGUOUS, "a window of 0 tokens");
    two[0] = two[1] = good_window(&v);
    two[1].seq = 1;
    two[1].pos = 0;
    two[1].count = BATCH - 2;
    must_refuse(&v, 0, v.layers, MCP_WANT_LOGITS, two, 2, v.out, (size_t)64 * v.n_vocab, MCP_ERANGE,
                "more than batch_tokens in two windows");
    must_still_work(&v);
    /* now 23 of 40 positions are taken: 17 fit, 18 do not */
    window = good_window(&v);
    window.pos = BEGUN + 12;
    window.count = CTX - window.pos + 1;
    assert_int_equal(mcp_engine_forward(v.engine, 0, v.layers, MCP_WANT_LOGITS, &window, 1, v.out,
                                        (size_t)64 * v.n_vocab, NULL),
                     MCP_ERANGE);
    window.count--;
    assert_int_equal(mcp_engine_forward(v.engine, 0, v.layers, MCP_WANT_LOGITS, &window, 1, v.out,
                                        (size_t)64 * v.n_vocab, NULL),
                     0);
    assert_int_equal(mcp_engine_length(v.engine, 0, 0), CTX);
    victim_close(&v);
}

static void a_token_outside_the_vocabulary_is_refused(void **state)
{
    struct victim v;
    int32_t       tokens[3];

    victim_open(&v, *state);
    {
        const int32_t bad[] = { -1, (int32_t)v.n_vocab, INT32_MAX, INT32_MIN };

        for (size_t i = 0; i < 12; i++) {
            mcp_window window = good_window(&v);

            memset(tokens, 0, sizeof(tokens));
            tokens[i % 3] = bad[i / 3];
            window.tokens = tokens;
            refuse_logits(&v, &window, MCP_ERANGE, "a token outside the vocabulary");
        }
    }
    must_still_work(&v);
    victim_close(&v);
}

static void a_hidden_state_that_is_not_finite_is_refused(void **state)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    struct victim      v;

    victim_open(&v, *state);
    for (size_t i = 0; i < 9; i++) {
        const size_t place[] = { 0, v.n_embd + 1, (size_t)3 * v.n_embd - 1 };
        float        kept = v.hidden[place[i / 3]];

        v.hidden[place[i / 3]] = bad[i % 3];
        refuse_range(&v, 1, v.layers, MCP_WANT_LOGITS, MCP_EINVAL, "a hidden state not finite");
        v.hidden[place[i / 3]] = kept;
    }
    must_still_work(&v);
    victim_close(&v);
}

static void a_broken_contract_is_refused(void **state)
{
    static const uint32_t        descending[] = { 1, 0 }, twice[] = { 1, 1 }, beyond[] = { 0, 3 };
    static const uint32_t *const chosen[] = { descending, twice, beyond, NULL };
    struct victim                v;
    mcp_window                   window, two[2];
    size_t                       floats;

    victim_open(&v, *state);
    floats = (size_t)64 * v.n_vocab;
    window = good_window(&v);
    window.hidden = v.hidden;
    refuse_logits(&v, &window, MCP_EINVAL, "tokens and hidden states");
    window.hidden = NULL;
    window.tokens = NULL;
    refuse_logits(&v, &window, MCP_EINVAL, "neither tokens nor hidden states");
    window = good_window(&v);
    must_refuse(&v, 1, v.layers, MCP_WANT_LOGITS, &window, 1, v.out, floats, MCP_EINVAL,
                "tokens for layer 1");
    window.seq = 2;
    refuse_logits(&v, &window, AMBIGUOUS, "a sequence that is not there");
    window.seq = UINT32_MAX;
    refuse_logits(&v, &window, AMBIGUOUS, "sequence 4294967295");
    window = good_window(&v);
    window.out = (mcp_out)77;
    refuse_logits(&v, &window, AMBIGUOUS, "an unknown choice of rows");
    for (size_t i = 0; i < sizeof(chosen) / sizeof(chosen[0]); i++) {
        window = good_window(&v);
        window.out = MCP_OUT_CHOSEN;
        window.out_index = chosen[i];
        window.out_count = 2;
        refuse_logits(&v, &window, AMBIGUOUS, "a bad list of rows");
    }
    two[0] = two[1] = good_window(&v);
    must_refuse(&v, 0, v.layers, MCP_WANT_LOGITS, two, 2, v.out, floats, MCP_EINVAL,
                "a sequence twice");
    must_refuse(&v, 0, v.layers, MCP_WANT_LOGITS, NULL, 1, v.out, floats, MCP_EINVAL,
                "windows that are NULL");
    must_refuse(&v, 0, v.layers, MCP_WANT_LOGITS, two, UINT32_MAX, v.out, floats, AMBIGUOUS,
                "4294967295 windows");
    must_refuse(&v, 0, v.layers, MCP_WANT_LOGITS, two, 1, v.out, (size_t)3 * v.n_vocab - 1,
                AMBIGUOUS, "too little room for the rows");
    must_refuse(&v, 0, v.layers, MCP_WANT_LOGITS, two, 1, NULL, floats, AMBIGUOUS,
                "no room for the rows");
    must_still_work(&v);
    victim_close(&v);
}

/* Goal:   one bad window keeps the good ones beside it from happening.
 * Method: a good window of sequence 0 and a bad one of sequence 1, both orders. */
static void one_bad_window_spoils_the_call_and_nothing_else(void **state)
{
    struct victim v;

    victim_open(&v, *state);
    for (int i = 0; i < 2; i++) {
        mcp_window pair[2] = { good_window(&v), good_window(&v) };

        pair[i].seq = 1;
        pair[i].pos = 7;
        must_refuse(&v, 0, v.layers, MCP_WANT_LOGITS, pair, 2, v.out, (size_t)64 * v.n_vocab,
                    MCP_ERANGE, "a gap in sequence 1");
    }
    must_still_work(&v);
    victim_close(&v);
}

/* Whether no windows are an error is left open; nothing may happen. */
static void no_windows_are_no_work(void **state)
{
    struct victim v;

    victim_open(&v, *state);
    mcp_engine_forward(v.engine, 0, v.layers, MCP_WANT_LOGITS, NULL, 0, NULL, 0, NULL);
    lengths_must_be(&v, "no windows");
    must_still_work(&v);
    victim_close(&v);
}

/* Goal:   a cancel without a running forward stops the next one, once, and changes nothing.
 * Method: cancel, then a forward that fails and another that works. */
static void a_cancel_stops_the_next_forward_once(void **state)
{
    struct victim v;
    mcp_window    window;

    victim_open(&v, *state);
    window = good_window(&v);
    mcp_engine_cancel(v.engine);
    mcp_engine_cancel(v.engine);
    assert_int_equal(mcp_engine_forward(v.engine, 0, v.layers, MCP_WANT_LOGITS, &window, 1, v.out,
                                        (size_t)64 * v.n_vocab, NULL),
                     MCP_ECANCELED);
    lengths_must_be(&v, "a cancelled forward");
    must_still_work(&v);
    victim_close(&v);
}

static void *cancel_soon(void *engine)
{
    const struct timespec pause = { .tv_nsec = 50000000 };

    nanosleep(&pause, NULL);
    mcp_engine_cancel(engine);
    return NULL;
}

/* Goal:   a running forward stops, and the KV cache is as before.
 * Method: SmolLM2, 256 tokens (a second of work), cancelled by another thread after 50 ms;
 *         then 12 tokens give the bits that they give to an engine that was left alone. */
static void a_cancel_stops_a_running_forward(void **state)
{
    static const struct windows begun = WINDOWS(10, 1), next = WINDOWS(3, 1, 8);
    mcp_engine_opts             opts = parity_opts();
    mcp_model                  *model = parity_model_open(smollm2_path());
    size_t                      n_vocab = mcp_model_get_info(model)->n_vocab;
    float     *actual = floats_new(12 * n_vocab), *expected = floats_new(12 * n_vocab);
    struct rng rng = { parity_seed() };
    int32_t    tokens[256];
    mcp_window window = { .pos = 11, .count = 245, .tokens = tokens, .out = MCP_OUT_LAST };

    (void)state;
    rng_tokens(&rng, tokens, 256, (uint32_t)n_vocab);
    for (int cancelled = 0; cancelled < 2; cancelled++) {
        mcp_engine *engine = parity_engine_open(model, &opts);
        float      *rows = cancelled ? actual : expected;

        parity_run(engine, model, NULL, 0, tokens, &begun, rows);
        if (cancelled) {
            pthread_t thread;

            assert_int_equal(pthread_create(&thread, NULL, cancel_soon, engine), 0);
            assert_int_equal(mcp_engine_forward(engine, 0, mcp_model_get_info(model)->layers,
                                                MCP_WANT_LOGITS, &window, 1, rows, n_vocab, NULL),
                             MCP_ECANCELED);
            pthread_join(thread, NULL);
            assert_int_equal(mcp_engine_length(engine, 0, 0), 11);
        }
        parity_run(engine, model, NULL, 0, tokens + 11, &next, rows);
        mcp_engine_close(engine);
    }
    rows_require_equal(actual, expected, 12, n_vocab, "after a cancelled forward");
    free(actual);
    free(expected);
    mcp_model_close(model);
}

int main(void)
{
#define EACH(test)                                                           \
    { #test ": tiny-llama-gqa3", test, NULL, NULL, "tiny-llama-gqa3" },      \
    {                                                                        \
#test ": tiny-deepseek2-mla", test, NULL, NULL, "tiny-deepseek2-mla" \
    }
    const struct CMUnitTest tests[] = {
        EACH(an_impossible_range_is_refused),
        EACH(a_layer_that_is_not_loaded_is_refused),
        EACH(a_position_that_does_not_continue_is_refused),
        EACH(too_many_tokens_are_refused),
        EACH(a_token_outside_the_vocabulary_is_refused),
        EACH(a_hidden_state_that_is_not_finite_is_refused),
        EACH(a_broken_contract_is_refused),
        EACH(one_bad_window_spoils_the_call_and_nothing_else),
        EACH(no_windows_are_no_work),
        EACH(a_cancel_stops_the_next_forward_once),
        cmocka_unit_test(a_cancel_stops_a_running_forward),
    };
#undef EACH
    return cmocka_run_group_tests(tests, NULL, NULL);
}
