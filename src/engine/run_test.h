/* engine/run_test.h - tiny engines for unit tests: one thread, short contexts.
 *
 * SPDX-License-Identifier: MIT */
#ifndef ENGINE_RUN_TEST_H
#define ENGINE_RUN_TEST_H

#include "base/unit_test.h"
#include "engine/engine.h"

#include <math.h>

static inline struct mcp_model *run_model(const char *path)
{
    struct mcp_model *m;
    mcp_error         err;

    unit_ok(model_open(&m, path, &err), &err);
    return m;
}

/* One thread: a tiny model takes longer to share than to compute. */
static inline mcp_engine_opts run_opts(void)
{
    mcp_engine_opts o = MCP_ENGINE_OPTS_INIT;

    o.device = "cpu";
    o.threads = 1;
    o.ctx_tokens = 256;
    o.batch_tokens = 256;
    o.ubatch_tokens = 64;
    return o;
}

static inline struct mcp_engine *run_engine(const struct mcp_model *m, const mcp_engine_opts *o)
{
    struct mcp_engine *e;
    mcp_error          err;

    unit_ok(engine_open(&e, m, o, &err), &err);
    return e;
}

/* NaN everywhere, so that a row not written shows. */
static inline float *run_floats(size_t count)
{
    float *floats = malloc(count * sizeof(*floats) + 1);

    assert_non_null(floats);
    for (size_t i = 0; i < count; i++)
        floats[i] = NAN;
    return floats;
}

static inline void run_tokens(uint64_t *rng, int32_t *tokens, uint32_t count, uint32_t n_vocab)
{
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = (int32_t)unit_below(rng, n_vocab);
}

/* Append `count` tokens to a sequence, through all layers; logits of all rows. */
static inline void run_append(struct mcp_engine *e, uint32_t seq, const int32_t *tokens,
                              uint32_t count, float *logits)
{
    uint32_t   n = e->model->hp.n_layer;
    mcp_window w = { .seq = seq, .count = count, .tokens = tokens, .out = MCP_OUT_ALL };
    mcp_error  err;

    w.pos = *engine_kv_length(&e->shards[0].kv, seq, e->info.first);
    if (logits == NULL)
        w.out = MCP_OUT_NONE;
    unit_ok(engine_forward(e, 0, n, MCP_WANT_LOGITS, &w, 1, logits,
                           (size_t)count * e->model->hp.n_vocab, &err),
            &err);
}

static inline void run_rows_equal(const float *actual, const float *expected, size_t rows,
                                  size_t width, const char *what)
{
    for (size_t i = 0; i < rows * width; i++)
        if (!isfinite(actual[i]) || actual[i] != expected[i])
            fail_msg("%s: row %zu differs at %zu: %.9g, not %.9g (seed=%" PRIu64 ")", what,
                     i / width, i % width, (double)actual[i], (double)expected[i], unit_seed());
}

/* The same but for what ggml's kernels round differently when more rows come at once. */
static inline void run_rows_near(const float *actual, const float *expected, size_t rows,
                                 size_t width, float tolerance, const char *what)
{
    float scale = 0.0f;

    for (size_t i = 0; i < rows * width; i++)
        scale = fmaxf(scale, fabsf(expected[i]));
    for (size_t i = 0; i < rows * width; i++)
        if (!(fabsf(actual[i] - expected[i]) <= tolerance * scale))
            fail_msg("%s: row %zu differs at %zu: %.9g, not %.9g (seed=%" PRIu64 ")", what,
                     i / width, i % width, (double)actual[i], (double)expected[i], unit_seed());
}

/* Every layer of every sequence has as many positions as given. */
static inline void run_lengths(struct mcp_engine *e, uint32_t seq, uint32_t length)
{
    for (uint32_t l = e->info.first; l < e->info.last; l++)
        assert_int_equal(*engine_kv_length(&engine_shard_of(e, l)->kv, seq, l), length);
}

#endif
