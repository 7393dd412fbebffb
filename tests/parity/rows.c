/* SPDX-License-Identifier: MIT */
/* rows.c - a window computes the rows that were asked for, and no others.
 *
 * One engine takes all kinds of requests in turn for the same tokens, since it keeps
 * graphs: one built for another request must not be taken.  Logits are held against
 * llama.cpp with the same request (fewer rows through a matrix may round differently),
 * hidden states against the request for all rows. */
#include "llama_common.h"

#include <stdlib.h>
#include <string.h>

enum { TOKENS = 20, REQUESTS = 9 };

static const uint32_t first_and_last[] = { 0, 19 }, three[] = { 0, 7, 19 }, other[] = { 1, 2, 18 };

/* In an order in which the same shapes come back with other rows. */
static const mcp_window requests[REQUESTS] = {
    { .out = MCP_OUT_LAST },
    { .out = MCP_OUT_ALL },
    { .out = MCP_OUT_NONE },
    { .out = MCP_OUT_CHOSEN, .out_index = three, .out_count = 3 },
    { .out = MCP_OUT_CHOSEN, .out_index = first_and_last, .out_count = 2 },
    { .out = MCP_OUT_LAST },
    { .out = MCP_OUT_CHOSEN, .out_index = other, .out_count = 3 },
    { .out = MCP_OUT_CHOSEN, .out_index = three, .out_count = 1 },
    { .out = MCP_OUT_ALL },
};

static mcp_window request(size_t index, const int32_t *tokens)
{
    mcp_window window = requests[index];

    window.count = TOKENS;
    window.tokens = tokens;
    return window;
}

/* Position in the window of the request's row `row`. */
static uint32_t row_position(const mcp_window *window, uint64_t row)
{
    switch (window->out) {
    case MCP_OUT_LAST: return window->count - 1;
    case MCP_OUT_CHOSEN: return window->out_index[row];
    default: return (uint32_t)row;
    }
}

/* Goal:   logits of the rows asked for are llama.cpp's.
 * Method: every request, then one more token, which also shows that the KV of rows not
 *         asked for is there. */
static void rows_of_logits_are_llamas(void **state)
{
    static const char *const quants[] = { "f16", "q4_0" };

    for (size_t q = 0; q < 2; q++) {
        const char           *path = synth_model(*state, quants[q]);
        mcp_model            *model = parity_model_open(path);
        struct llama_model   *llama = oracle_model_open(path, 1);
        mcp_engine_opts       opts = parity_opts();
        struct llama_context *ctx = oracle_context_open(llama, &opts);
        mcp_engine           *engine = parity_engine_open(model, &opts);
        size_t                n_vocab = mcp_model_get_info(model)->n_vocab;
        float     *actual = floats_new(TOKENS * n_vocab), *expected = floats_new(TOKENS * n_vocab);
        struct rng rng = { parity_seed() };
        int32_t    tokens[TOKENS + 1];

        rng_tokens(&rng, tokens, TOKENS + 1, (uint32_t)n_vocab);
        for (size_t i = 0; i < REQUESTS; i++) {
            mcp_window window = request(i, tokens);
            mcp_window next = {
                .pos = TOKENS, .count = 1, .tokens = tokens + TOKENS, .out = MCP_OUT_LAST
            };
            uint64_t  rows = mcp_windows_rows(&window, 1);
            mcp_error err = { 0 };

            parity_trim(engine, 0, 0);
            oracle_clear(ctx);
            oracle_forward(ctx, &window, 1, expected, rows * n_vocab);
            if (parity_forward(engine, model, NULL, &window, 1, actual, rows * n_vocab, &err) < 0)
                fail_msg("request %zu: %s", i, err.text);
            rows_require_equal(actual, expected, rows, n_vocab, "%s, request %zu", quants[q], i);
            oracle_forward(ctx, &next, 1, expected, n_vocab);
            if (parity_forward(engine, model, NULL, &next, 1, actual, n_vocab, &err) < 0)
                fail_msg("after request %zu: %s", i, err.text);
            rows_require_equal(actual, expected, 1, n_vocab, "%s, after request %zu", quants[q], i);
        }
        free(actual);
        free(expected);
        mcp_engine_close(engine);
        mcp_model_close(model);
        llama_free(ctx);
        llama_model_free(llama);
    }
}

/* Goal:   hidden states of the rows asked for are those rows of all.
 * Method: every request to the state after layer 2. */
static void rows_of_hidden_states_are_rows_of_all(void **state)
{
    mcp_model      *model = parity_model_open(synth_model(*state, "q4_0"));
    mcp_engine_opts opts = parity_opts();
    mcp_engine     *engine = parity_engine_open(model, &opts);
    size_t          n_embd = mcp_model_get_info(model)->n_embd;
    float          *all = floats_new(TOKENS * n_embd), *some = floats_new(TOKENS * n_embd);
    struct rng      rng = { parity_seed() };
    int32_t         tokens[TOKENS];
    mcp_window      whole = { .count = TOKENS, .tokens = tokens, .out = MCP_OUT_ALL };
    mcp_error       err = { 0 };

    rng_tokens(&rng, tokens, TOKENS, mcp_model_get_info(model)->n_vocab);
    if (mcp_engine_forward(engine, 0, 2, MCP_WANT_HIDDEN, &whole, 1, all, TOKENS * n_embd, &err) <
        0)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < REQUESTS; i++) {
        mcp_window window = request(i, tokens);
        uint64_t   rows = mcp_windows_rows(&window, 1);

        parity_trim(engine, 0, 0);
        if (mcp_engine_forward(engine, 0, 2, MCP_WANT_HIDDEN, &window, 1, some, rows * n_embd,
                               &err) < 0)
            fail_msg("request %zu: %s", i, err.text);
        for (uint64_t r = 0; r < rows; r++)
            rows_require_equal(some + r * n_embd, all + row_position(&window, r) * n_embd, 1,
                               n_embd, "request %zu, row %u", i, row_position(&window, r));
    }
    free(all);
    free(some);
    mcp_engine_close(engine);
    mcp_model_close(model);
}

/* Goal:   rows of several windows come out in the order of the windows.
 * Method: three sequences in the order 2, 0, 1, each with another request, against each
 *         alone; f32 weights and KV, so that only the order of sums differs. */
static void rows_of_several_windows_keep_their_order(void **state)
{
    static const uint32_t sequences[] = { 2, 0, 1 };
    static const uint32_t middle[] = { 3, 5 };
    mcp_model            *model = parity_model_open(synth_model(*state, "f32"));
    mcp_engine_opts       opts = parity_opts();
    mcp_engine           *engine;
    size_t                n_vocab = mcp_model_get_info(model)->n_vocab, at = 0;
    float                *together = floats_new(16 * n_vocab), *alone = floats_new(16 * n_vocab);
    struct rng            rng = { parity_seed() };
    int32_t               tokens[3][8];
    mcp_window            windows[3] = {
                   { .count = 8, .out = MCP_OUT_CHOSEN, .out_index = middle, .out_count = 2 },
                   { .count = 5, .out = MCP_OUT_ALL },
                   { .count = 8, .out = MCP_OUT_LAST }
    };
    mcp_error err = { 0 };

    opts.seqs = 3;
    opts.flash = MCP_FLASH_OFF;
    opts.kv_k = opts.kv_v = MCP_KV_F32;
    engine = parity_engine_open(model, &opts);
    for (int i = 0; i < 3; i++) {
        rng_tokens(&rng, tokens[i], 8, (uint32_t)n_vocab);
        windows[i].seq = sequences[i];
        windows[i].tokens = tokens[i];
    }
    assert_int_equal(mcp_windows_rows(windows, 3), 8);
    if (parity_forward(engine, model, NULL, windows, 3, together, 8 * n_vocab, &err) < 0)
        fail_msg("together: %s", err.text);
    for (int i = 0; i < 3; i++) {
        uint64_t         rows = mcp_windows_rows(&windows[i], 1);
        struct rows_diff diff;

        parity_trim(engine, windows[i].seq, 0);
        if (parity_forward(engine, model, NULL, &windows[i], 1, alone, rows * n_vocab, &err) < 0)
            fail_msg("window %d alone: %s", i, err.text);
        rows_compare(&diff, together + at * n_vocab, alone, rows, n_vocab);
        assert_true(diff.finite);
        if (!(diff.max_abs <= 1e-4f * diff.scale))
            fail_msg("window %d: %.3g of %.3g away", i, (double)diff.max_abs, (double)diff.scale);
        at += rows;
    }
    free(together);
    free(alone);
    mcp_engine_close(engine);
    mcp_model_close(model);
}

int main(void)
{
#define EACH(shape)                                                                               \
    { shape ": rows of logits are llama.cpp's", rows_of_logits_are_llamas, NULL, NULL, shape },   \
        { shape ": rows of hidden states are rows of all", rows_of_hidden_states_are_rows_of_all, \
          NULL, NULL, shape },                                                                    \
    {                                                                                             \
        shape ": rows of several windows keep their order",                                       \
            rows_of_several_windows_keep_their_order, NULL, NULL, shape                           \
    }
    const struct CMUnitTest tests[] = {
        EACH("tiny-llama"),     EACH("tiny-llama-gqa3"),    EACH("tiny-qwen3"),
        EACH("tiny-deepseek2"), EACH("tiny-deepseek2-mla"),
    };
#undef EACH
    return cmocka_run_group_tests(tests, NULL, NULL);
}
