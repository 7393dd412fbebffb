/* worker/answer_test.h - what a local loop generates, and a worker's Tokens beside it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_ANSWER_TEST_H
#define WORKER_ANSWER_TEST_H

#include "model/sampler.h"
#include "worker/session_test.h"

enum { ANSWER_MAX = RIG_CTX };

struct answer {
    int32_t        tokens[ANSWER_MAX];
    uint32_t       count;
    enum wire_stop stop;
};

static inline bool ends(int32_t token)
{
    return model_vocab_token_ends(model_get_vocab(rig_model_open, NULL), token) != 0;
}

static inline void advance(struct mcp_engine *e, uint32_t pos, const int32_t *tokens,
                           uint32_t count, float *logits)
{
    mcp_window w = { .pos = pos, .count = count, .tokens = tokens, .out = MCP_OUT_LAST };
    mcp_error  err;

    unit_ok(engine_forward(e, 0, e->model->hp.n_layer, MCP_WANT_LOGITS, &w, 1, logits,
                           e->model->hp.n_vocab, &err),
            &err);
}

static inline struct answer local_answer(const int32_t *prompt, uint32_t count, uint32_t max_tokens,
                                         const mcp_generate_opts *opts)
{
    mcp_engine_opts       engine_opts = rig_engine_opts(0, 0);
    struct mcp_engine    *e = run_engine(rig_model_open, &engine_opts);
    float                *logits = run_floats(e->model->hp.n_vocab);
    struct model_sampler *sampler = model_sampler_new(opts, e->model->hp.n_vocab, opts->seed);
    struct answer         a = { .stop = WIRE_STOP_NOT };
    uint32_t              pos = 0;

    assert_non_null(sampler);
    for (uint32_t take; pos < count; pos += take) {
        take = count - pos < RIG_BATCH ? count - pos : RIG_BATCH;
        advance(e, pos, prompt + pos, take, logits);
    }
    while (a.stop == WIRE_STOP_NOT) {
        int32_t token = model_sampler_pick(sampler, logits);

        a.tokens[a.count++] = token;
        if (ends(token) && !opts->ignore_end)
            a.stop = WIRE_STOP_END;
        else if (a.count == max_tokens)
            a.stop = WIRE_STOP_LENGTH;
        else if (pos == RIG_CTX)
            a.stop = WIRE_STOP_CONTEXT;
        else
            advance(e, pos++, &token, 1, logits);
    }
    model_sampler_free(sampler);
    free(logits);
    engine_close(e);
    return a;
}

static inline struct wire_frame generate_frame(uint64_t number, uint32_t pos, const int32_t *tokens,
                                               uint32_t count, uint32_t max_tokens,
                                               const mcp_generate_opts *opts)
{
    struct wire_frame frame = { .kind = WIRE_GENERATE };

    frame.u.generate = (struct wire_generate){ .number = number,
                                               .pos = pos,
                                               .tokens = tokens,
                                               .token_count = count,
                                               .max_tokens = max_tokens,
                                               .temperature = opts->temperature,
                                               .top_k = opts->top_k,
                                               .top_p = opts->top_p,
                                               .min_p = opts->min_p,
                                               .seed = opts->seed,
                                               .ignore_end = opts->ignore_end };
    return frame;
}

/* Tokens of answer `number`, of which the first would be computed at `pos`. */
static inline void expect_answer(struct rig_call *call, uint64_t number, uint32_t pos,
                                 const struct answer *expected, uint32_t from)
{
    for (uint32_t i = from; i < expected->count; i++) {
        struct rig_news         *news = rig_expect(call, WIRE_TOKEN);
        const struct wire_token *t = &news->frame.u.token;
        bool                     last = i + 1 == expected->count;

        assert_int_equal(t->number, number);
        assert_int_equal(t->token, expected->tokens[i]);
        assert_int_equal(t->pos, pos + i - from);
        assert_int_equal(t->stop, last ? expected->stop : WIRE_STOP_NOT);
        free(news);
    }
}

static inline mcp_generate_opts greedy(void)
{
    mcp_generate_opts o = MCP_GENERATE_OPTS_INIT;

    o.temperature = 0.0f;
    o.seed = 1;
    o.ignore_end = 1;
    return o;
}

static inline void prompt_of(int32_t *tokens, uint32_t count, uint64_t seed)
{
    run_tokens(&seed, tokens, count, rig_model_open->hp.n_vocab);
}

#endif
