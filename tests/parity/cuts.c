/* SPDX-License-Identifier: MIT */
/* cuts.c - where the layers are cut, and who shares the forward, changes nothing.
 *
 * The oracle is our own engine, uncut and alone, in the same windows: attention on the
 * CPU takes other paths for windows of other sizes, so only equal windows have equal
 * bits.  logits.c ties the uncut engine to llama.cpp. */
#include "parity_common.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANDOM_CUTS = 50, TOKENS_MAX = 640 };

/* One model under test and the buffers of its runs. */
struct subject {
    const char *name;
    mcp_model  *model;
    mcp_engine *engine;
    uint32_t    layers;
    uint32_t    n_vocab;
    int32_t     tokens[TOKENS_MAX];
    float      *expected; /* (tokens_max, n_vocab) */
    float      *actual;
};

static void subject_open(struct subject *s, const char *name, const char *path,
                         const mcp_engine_opts *opts, uint32_t tokens_max)
{
    struct rng            rng = { parity_seed() };
    const mcp_model_info *info;

    assert_true(tokens_max <= TOKENS_MAX);
    s->name = name;
    s->model = parity_model_open(path);
    s->engine = parity_engine_open(s->model, opts);
    info = mcp_model_get_info(s->model);
    s->layers = info->layers;
    s->n_vocab = info->n_vocab;
    rng_tokens(&rng, s->tokens, tokens_max, s->n_vocab);
    s->expected = floats_new((size_t)tokens_max * s->n_vocab);
    s->actual = floats_new((size_t)tokens_max * s->n_vocab);
}

static void subject_close(struct subject *s)
{
    free(s->expected);
    free(s->actual);
    mcp_engine_close(s->engine);
    mcp_model_close(s->model);
}

static void run_uncut(struct subject *s, const struct windows *windows)
{
    parity_trim(s->engine, 0, 0);
    parity_run(s->engine, s->model, NULL, 0, s->tokens, windows, s->expected);
}

static void run_cut_and_compare(struct subject *s, const struct windows *windows,
                                const struct cuts *cuts)
{
    uint32_t total = windows_total(windows);
    char     text[1024];

    for (size_t i = 0; i < (size_t)total * s->n_vocab; i++)
        s->actual[i] = NAN;
    parity_trim(s->engine, 0, 0);
    parity_run(s->engine, s->model, cuts, 0, s->tokens, windows, s->actual);
    rows_require_equal(s->actual, s->expected, total, s->n_vocab, "%s cut at %s", s->name,
                       cuts_text(cuts, text, sizeof(text)));
}

static void every_single_cut(struct subject *s, const struct windows *windows)
{
    run_uncut(s, windows);
    for (uint32_t at = 1; at < s->layers; at++) {
        struct cuts cuts = { .at = { at }, .count = 1 };

        run_cut_and_compare(s, windows, &cuts);
    }
}

static void random_cuts_and_windows(struct subject *s, uint32_t trials, uint32_t total,
                                    uint32_t largest)
{
    struct rng rng = { parity_seed() ^ s->layers };

    for (uint32_t t = 0; t < trials; t++) {
        struct windows windows;
        struct cuts    cuts;

        windows_random(&windows, &rng, total, largest);
        cuts_random(&cuts, &rng, s->layers);
        run_uncut(s, &windows);
        run_cut_and_compare(s, &windows, &cuts);
    }
}

/* Goal:   a tiny shape gives the same bits wherever it is cut.
 * Method: every single cut with a prefill of 37; 50 random sets of cuts, each with its
 *         own random windows; whole and repacked weights, flash attention on and off. */
static void shape_is_the_same_wherever_it_is_cut(void **state)
{
    static const struct {
        const char *quant;
        mcp_flash   flash;
        mcp_kv_type kv;
    } variants[] = {
        { "q4_0", MCP_FLASH_ON, MCP_KV_F16 },
        { "f32", MCP_FLASH_OFF, MCP_KV_F32 },
    };
    static const struct windows windows = WINDOWS(37, 1, 1, 5, 1);
    const char                 *shape = *state;

    /* ggml rounds the rotation of 8 floats in one of two ways, by where the result lies
     * beside its source, and a cut changes that; 16 or more always round alike. */
    if (strcmp(shape, "tiny-deepseek2-lite-mla") == 0)
        shape = "tiny-deepseek2-lite-mla:qk_rope=16";
    for (size_t v = 0; v < sizeof(variants) / sizeof(variants[0]); v++) {
        mcp_engine_opts opts = parity_opts();
        struct subject  s;

        opts.flash = variants[v].flash;
        opts.kv_k = variants[v].kv;
        opts.kv_v = variants[v].kv;
        subject_open(&s, shape, synth_model(shape, variants[v].quant), &opts, 96);
        every_single_cut(&s, &windows);
        random_cuts_and_windows(&s, v == 0 ? RANDOM_CUTS : 10, 90, 70);
        subject_close(&s);
    }
}

static void smollm2_is_the_same_at_every_single_cut(void **state)
{
    static const struct windows windows = WINDOWS(9, 1, 1, 3);
    mcp_engine_opts             opts = parity_opts();
    struct subject              s;

    (void)state;
    subject_open(&s, "SmolLM2", smollm2_path(), &opts, 14);
    every_single_cut(&s, &windows);
    subject_close(&s);
}

static void smollm2_is_the_same_at_50_random_cuts_and_windows(void **state)
{
    mcp_engine_opts opts = parity_opts();
    struct subject  s;

    (void)state;
    subject_open(&s, "SmolLM2", smollm2_path(), &opts, 12);
    random_cuts_and_windows(&s, RANDOM_CUTS, 12, 8);
    subject_close(&s);
}

/* Goal:   the other attention paths too: tiled (windows of 64 and more) and split-KV
 *         (single tokens past 512 positions).
 * Method: 500 tokens in one window, 24, then single ones; three cuts. */
static void smollm2_is_the_same_when_cut_in_a_long_context(void **state)
{
    static const struct windows windows = WINDOWS(500, 24, 1, 1, 4, 1);
    static const struct cuts    cuts = { .at = { 3, 11, 29 }, .count = 3 };
    mcp_engine_opts             opts = parity_opts_threads();
    struct subject              s;

    (void)state;
    opts.ctx_tokens = 640;
    opts.batch_tokens = 512;
    opts.ubatch_tokens = 512;
    subject_open(&s, "SmolLM2 in a long context", smollm2_path(), &opts, 532);
    run_uncut(&s, &windows);
    run_cut_and_compare(&s, &windows, &cuts);
    subject_close(&s);
}

/* Goal:   the cuts may change from one window to the next: KV belongs to layers.
 * Method: each window of a run with random cuts of its own. */
static void cuts_may_change_from_one_window_to_the_next(void **state)
{
    static const struct windows windows = WINDOWS(12, 1, 5, 1, 1, 3);
    mcp_engine_opts             opts = parity_opts();
    struct rng                  rng = { parity_seed() };
    struct subject              s;

    (void)state;
    subject_open(&s, "tiny-deepseek2-lite-mla", synth_model("tiny-deepseek2-lite-mla", "q8_0"),
                 &opts, 23);
    run_uncut(&s, &windows);
    parity_trim(s.engine, 0, 0);
    for (uint32_t i = 0, done = 0; i < windows.count; i++) {
        struct windows one = WINDOWS(windows.sizes[i]);
        struct cuts    cuts;

        cuts_random(&cuts, &rng, s.layers);
        parity_run(s.engine, s.model, &cuts, 0, s.tokens + done, &one,
                   s.actual + (size_t)done * s.n_vocab);
        done += windows.sizes[i];
    }
    rows_require_equal(s.actual, s.expected, 23, s.n_vocab, "cuts that change");
    subject_close(&s);
}

/* Goal:   engines that each hold only their layers do what one with all layers does.
 * Method: [0,a), [a,b), [b,layers) in three engines of the same model. */
static void engines_with_their_own_layers_equal_one_with_all(void **state)
{
    static const struct windows windows = WINDOWS(20, 1, 6, 1);
    static const uint32_t       sizes[] = { 1, 2, 1 };
    mcp_engine_opts             opts = parity_opts();
    mcp_engine                 *stages[3];
    struct subject              s;
    float                      *hidden[2];
    uint32_t                    n_embd, done = 0;
    mcp_error                   err = { 0 };

    (void)state;
    subject_open(&s, "tiny-llama-gqa3", synth_model("tiny-llama-gqa3", "q8_0"), &opts, 28);
    n_embd = mcp_model_get_info(s.model)->n_embd;
    run_uncut(&s, &windows);
    for (uint32_t i = 0, first = 0; i < 3; i++) {
        mcp_engine_info info;

        opts.first = first;
        opts.last = first + sizes[i];
        stages[i] = parity_engine_open(s.model, &opts);
        assert_int_equal(mcp_engine_get_info(stages[i], &info), 0);
        assert_int_equal(info.first, opts.first);
        assert_int_equal(info.last, opts.last);
        first = opts.last;
    }
    assert_int_equal(opts.last, s.layers);
    hidden[0] = floats_new((size_t)28 * n_embd);
    hidden[1] = floats_new((size_t)28 * n_embd);
    for (uint32_t i = 0; i < windows.count; i++) {
        uint32_t count = windows.sizes[i];

        for (uint32_t e = 0, first = 0; e < 3; first += sizes[e++]) {
            mcp_window window = { .pos = done, .count = count, .out = MCP_OUT_ALL };
            float     *out = e == 2 ? s.actual + (size_t)done * s.n_vocab : hidden[e];

            if (e == 0)
                window.tokens = s.tokens + done;
            else
                window.hidden = hidden[e - 1];
            if (mcp_engine_forward(stages[e], first, first + sizes[e],
                                   e == 2 ? MCP_WANT_LOGITS : MCP_WANT_HIDDEN, &window, 1, out,
                                   (size_t)count * (e == 2 ? s.n_vocab : n_embd), &err) < 0)
                fail_msg("stage %u: %s", e, err.text);
        }
        done += count;
    }
    rows_require_equal(s.actual, s.expected, done, s.n_vocab, "three engines");
    for (int i = 0; i < 3; i++)
        mcp_engine_close(stages[i]);
    free(hidden[0]);
    free(hidden[1]);
    subject_close(&s);
}

/* ---- many sequences ------------------------------------------------------------- */

enum { SEQS = 32, SEQ_TOKENS_MAX = 40, SEQ_ROWS = SEQS * SEQ_TOKENS_MAX };

/* What a sequence does: its tokens, the windows it takes, where it is. */
struct walker {
    struct windows windows;
    uint32_t       total;
    uint32_t       begins; /* the step at which it arrives */
    uint32_t       next;   /* window */
    uint32_t       done;   /* tokens */
};

/* Run all walkers together: at each step, those that have arrived and feel like it. */
static void run_together(struct subject *s, struct walker *walkers, const int32_t *tokens,
                         struct rng *rng, float *logits)
{
    float   *rows = floats_new((size_t)SEQ_ROWS * s->n_vocab);
    uint32_t left = SEQS;

    for (uint32_t step = 0; left > 0; step++) {
        mcp_window windows[SEQS];
        uint32_t   count = 0, offset = 0;
        mcp_error  err = { 0 };

        memset(windows, 0, sizeof(windows));
        for (uint32_t i = 0; i < SEQS; i++) {
            struct walker *w = &walkers[i];

            if (w->next == w->windows.count || step < w->begins || rng_below(rng, 8) == 0)
                continue;
            windows[count].seq = i;
            windows[count].pos = w->done;
            windows[count].count = w->windows.sizes[w->next];
            windows[count].tokens = tokens + i * SEQ_TOKENS_MAX + w->done;
            windows[count++].out = MCP_OUT_ALL;
        }
        if (count == 0)
            continue;
        if (parity_forward(s->engine, s->model, NULL, windows, count, rows,
                           (size_t)SEQ_ROWS * s->n_vocab, &err) < 0)
            fail_msg("%s, step %u, %u sequences: %s", s->name, step, count, err.text);
        for (uint32_t i = 0; i < count; i++) {
            struct walker *w = &walkers[windows[i].seq];
            size_t         to = (size_t)windows[i].seq * SEQ_TOKENS_MAX + w->done;

            memcpy(logits + to * s->n_vocab, rows + (size_t)offset * s->n_vocab,
                   (size_t)windows[i].count * s->n_vocab * sizeof(*rows));
            offset += windows[i].count;
            w->done += windows[i].count;
            left -= ++w->next == w->windows.count;
        }
    }
    free(rows);
}

/* Goal:   32 sequences together equal each alone within `limit` of the logits' scale.
 * Method: prompts of 4 to 12 tokens, then windows of 1 to 3, arriving at random steps and
 *         pausing now and then; the same windows alone, in sequence 0 of the same engine.
 *         `even`: all begin at once with equal prompts and go on one by one. */
static void compare_together(struct subject *s, uint32_t tokens_each, bool even, float limit)
{
    struct walker *walkers = calloc(SEQS, sizeof(*walkers));
    int32_t       *tokens = calloc(SEQ_ROWS, sizeof(*tokens));
    float         *together = floats_new((size_t)SEQ_ROWS * s->n_vocab);
    float         *alone = floats_new((size_t)SEQ_TOKENS_MAX * s->n_vocab);
    struct rng     rng = { parity_seed() };
    float          worst = 0;

    assert_true(tokens_each <= SEQ_TOKENS_MAX);
    assert_non_null(walkers);
    assert_non_null(tokens);
    rng_tokens(&rng, tokens, SEQ_ROWS, s->n_vocab);
    for (uint32_t i = 0; i < SEQS; i++) {
        struct walker *w = &walkers[i];
        uint32_t       prompt = even ? 8 : 4 + rng_below(&rng, 9);

        w->total = even ? tokens_each : prompt + rng_below(&rng, tokens_each - prompt + 1);
        w->begins = even ? 0 : rng_below(&rng, 6);
        windows_random(&w->windows, &rng, w->total - prompt, even ? 1 : 3);
        memmove(&w->windows.sizes[1], &w->windows.sizes[0],
                w->windows.count * sizeof(w->windows.sizes[0]));
        w->windows.sizes[0] = prompt;
        w->windows.count++;
    }
    for (uint32_t i = 0; i < SEQS; i++)
        parity_trim(s->engine, i, 0);
    run_together(s, walkers, tokens, &rng, together);
    for (uint32_t i = 0; i < SEQS; i++) {
        struct walker   *w = &walkers[i];
        struct rows_diff diff;

        assert_int_equal(mcp_engine_length(s->engine, i, s->layers - 1), w->total);
        parity_trim(s->engine, 0, 0);
        parity_run(s->engine, s->model, NULL, 0, tokens + i * SEQ_TOKENS_MAX, &w->windows, alone);
        rows_compare(&diff, together + (size_t)i * SEQ_TOKENS_MAX * s->n_vocab, alone, w->total,
                     s->n_vocab);
        worst = fmaxf(worst, diff.max_abs / diff.scale);
        if (!diff.finite || !(diff.max_abs <= limit * diff.scale)) {
            char text[256];

            fail_msg("%s, sequence %u: %s\nreplay with MCP_SEED=%" PRIu64, s->name, i,
                     rows_diff_text(&diff, text, sizeof(text)), parity_seed());
        }
    }
    print_message("%s, %s: together and alone differ by at most %.2g of the scale\n", s->name,
                  even ? "in step" : "random arrival", (double)worst);
    free(walkers);
    free(tokens);
    free(together);
    free(alone);
}

static mcp_engine_opts many_opts(mcp_flash flash)
{
    mcp_engine_opts opts = parity_opts();

    opts.ctx_tokens = 64;
    opts.seqs = SEQS;
    opts.batch_tokens = SEQ_ROWS;
    opts.ubatch_tokens = 256;
    opts.flash = flash;
    return opts;
}

/* Goal:   nothing of one sequence reaches another, in any shape.
 * Method: f32 weights and KV, where only the order of sums differs (wherever a number is
 *         rounded to f16 or q8_0, a last bit may become a step, and in a mixture of
 *         experts another expert); and whole q8_0 weights, whose products are the same
 *         bits for one token and for many.  The steps are llama.cpp's: see logits.c. */
static void thirty_two_tiny_sequences_together_equal_each_alone(void **state)
{
    static const struct {
        const char *shape;
        const char *quant;
        mcp_flash   flash;
        mcp_kv_type kv;
        float       limit;
    } cases[] = {
        { "tiny-llama", "f32", MCP_FLASH_OFF, MCP_KV_F32, 1e-4f },
        { "tiny-llama-gqa3", "f32", MCP_FLASH_OFF, MCP_KV_F32, 1e-4f },
        { "tiny-llama-llama3", "f32", MCP_FLASH_OFF, MCP_KV_F32, 1e-4f },
        { "tiny-qwen2", "f32", MCP_FLASH_OFF, MCP_KV_F32, 1e-4f },
        { "tiny-qwen3-yarn", "f32", MCP_FLASH_OFF, MCP_KV_F32, 1e-4f },
        { "tiny-deepseek2", "f32", MCP_FLASH_OFF, MCP_KV_F32, 1e-4f },
        { "tiny-deepseek2-mla", "f32", MCP_FLASH_OFF, MCP_KV_F32, 1e-4f },
        { "tiny-deepseek2-groups", "f32", MCP_FLASH_OFF, MCP_KV_F32, 1e-4f },
        { "tiny-llama", "q8_0", MCP_FLASH_ON, MCP_KV_F16, 0.0f },
        { "tiny-llama", "q8_0", MCP_FLASH_ON, MCP_KV_Q8_0, 0.0f },
        { "tiny-qwen2", "q8_0", MCP_FLASH_ON, MCP_KV_F16, 0.0f },
        { "tiny-qwen3-yarn", "q4_0", MCP_FLASH_ON, MCP_KV_F16, 0.0f },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mcp_engine_opts opts = many_opts(cases[i].flash);
        struct subject  s;

        opts.kv_k = cases[i].kv;
        opts.kv_v = cases[i].kv;
        subject_open(&s, cases[i].shape, synth_model(cases[i].shape, cases[i].quant), &opts, 1);
        compare_together(&s, 24, true, cases[i].limit);
        compare_together(&s, SEQ_TOKENS_MAX, false, cases[i].limit);
        subject_close(&s);
    }
}

static void thirty_two_smollm2_sequences_together_equal_each_alone(void **state)
{
    mcp_engine_opts opts = many_opts(MCP_FLASH_ON);
    struct subject  s;

    (void)state;
    subject_open(&s, "SmolLM2", smollm2_path(), &opts, 1);
    compare_together(&s, 12, true, 1e-3f);
    compare_together(&s, 18, false, 1e-3f);
    subject_close(&s);
}

int main(void)
{
#define X(shape)                                                                                 \
    { shape " is the same wherever it is cut", shape_is_the_same_wherever_it_is_cut, NULL, NULL, \
      shape },
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_may_change_from_one_window_to_the_next),
        cmocka_unit_test(engines_with_their_own_layers_equal_one_with_all),
        cmocka_unit_test(thirty_two_tiny_sequences_together_equal_each_alone),
        cmocka_unit_test(smollm2_is_the_same_at_every_single_cut),
        cmocka_unit_test(smollm2_is_the_same_at_50_random_cuts_and_windows),
        cmocka_unit_test(smollm2_is_the_same_when_cut_in_a_long_context),
        cmocka_unit_test(thirty_two_smollm2_sequences_together_equal_each_alone),
        PARITY_SHAPES(X)
    };
#undef X
    return cmocka_run_group_tests(tests, NULL, NULL);
}
