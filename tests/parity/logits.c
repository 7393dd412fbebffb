/* SPDX-License-Identifier: MIT */
/* logits.c - our logits are llama.cpp's, bit for bit, on the CPU.
 *
 * Both engines run in this process on the same file, in the same windows, with the same
 * flags and threads.  A combination that llama.cpp itself refuses is listed in the
 * output and must not crash ours.  See exempt[] for what may differ and why. */
#include "llama_common.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const quants[] = {
    "f32",  "f16",  "bf16", "q8_0", "q4_0",   "q4_1",   "q5_0",  "q5_1",   "q2_k",
    "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4", "q4_k_m",
};
enum { QUANTS = sizeof(quants) / sizeof(quants[0]) };

struct config {
    const char *name;
    mcp_flash   flash;
    mcp_kv_type kv_k;
    mcp_kv_type kv_v;
    uint32_t    ubatch; /* below the prefill: it is computed in several parts */
    uint32_t    threads;
    int         repack;
};

/* The first four are what users choose; SmolLM2 runs these.  (llama.cpp rounds an f32 cache
 * to f16 for flash attention; our engine refuses the pair.) */
enum { CONFIG_FLASH, CONFIG_FLASH_Q8_0, CONFIG_PLAIN, CONFIG_PLAIN_Q8_0, CONFIGS_CHOSEN };

static const struct config configs[] = {
    { "flash", MCP_FLASH_ON, MCP_KV_F16, MCP_KV_F16, 256, 1, 1 },
    { "flash, q8_0 kv", MCP_FLASH_ON, MCP_KV_Q8_0, MCP_KV_Q8_0, 256, 1, 1 },
    { "no flash", MCP_FLASH_OFF, MCP_KV_F16, MCP_KV_F16, 256, 1, 1 },
    { "no flash, q8_0 k", MCP_FLASH_OFF, MCP_KV_Q8_0, MCP_KV_F16, 256, 1, 1 },
    { "flash, ubatch 16, no repack", MCP_FLASH_ON, MCP_KV_F16, MCP_KV_F16, 16, 1, 0 },
    { "no flash, f32 kv", MCP_FLASH_OFF, MCP_KV_F32, MCP_KV_F32, 256, 1, 1 },
};
enum { CONFIGS = sizeof(configs) / sizeof(configs[0]) };

/* Combinations whose graph has a good reason to differ; shell patterns.  They are held to
 * a mean KL of 1e-6 (f32, f16, bf16) or 1e-4 and to llama.cpp's top token in 99.9 %. */
static const struct {
    const char *shape;
    const char *quant;
    const char *config;
    const char *reason;
} exempt[] = {
    { NULL, NULL, NULL, NULL },
};

static const char *exempt_reason(const char *shape, const char *quant, const char *config)
{
    for (size_t i = 0; exempt[i].shape != NULL; i++)
        if (fnmatch(exempt[i].shape, shape, 0) == 0 && fnmatch(exempt[i].quant, quant, 0) == 0 &&
            fnmatch(exempt[i].config, config, 0) == 0)
            return exempt[i].reason;
    return NULL;
}

/* True when the rows pass; says why not, or what an exempt row measured. */
static bool verdict(const struct rows_diff *diff, const char *shape, const char *quant,
                    const char *config)
{
    const char *reason = exempt_reason(shape, quant, config);
    bool        whole = quant[0] == 'f' || quant[0] == 'b';
    char        text[256];

    if (diff->rows_differ == 0 && diff->finite)
        return true;
    print_message("%s %s, %s: %s\n", shape, quant, config,
                  rows_diff_text(diff, text, sizeof(text)));
    if (reason == NULL)
        return false;
    print_message("    may differ: %s\n", reason);
    return diff->finite && diff->kl_mean <= (whole ? 1e-6 : 1e-4) &&
           (double)diff->top1_differ <= 0.001 * (double)diff->rows;
}

static mcp_engine_opts config_opts(const struct config *config)
{
    mcp_engine_opts opts = parity_opts();

    opts.flash = config->flash;
    opts.kv_k = config->kv_k;
    opts.kv_v = config->kv_v;
    opts.ubatch_tokens = config->ubatch;
    opts.threads = config->threads;
    opts.repack = config->repack;
    return opts;
}

/* llama.cpp said no: ours may say no in a sentence, or work. */
static void must_not_crash(const mcp_model *model, const mcp_engine_opts *opts)
{
    mcp_engine *engine = NULL;
    mcp_error   err = { 0 };
    int         rc = mcp_engine_open(&engine, model, opts, &err);

    assert_true((rc == 0) == (engine != NULL));
    if (rc < 0) {
        assert_int_equal(err.code, rc);
        assert_true(err.text[0] != '\0');
    }
    mcp_engine_close(engine);
}

/* Returns 1 for a failure.  *refused is counted up where llama.cpp refuses. */
static int compare_config(struct llama_model *llama, const mcp_model *model, const char *shape,
                          const char *quant, const struct config *config,
                          const struct windows *windows, int *refused)
{
    uint32_t        total = windows_total(windows), n_vocab = mcp_model_get_info(model)->n_vocab;
    mcp_engine_opts opts = config_opts(config);
    struct llama_context *ctx = oracle_context_try(llama, &opts);
    struct rng            rng = { parity_seed() };
    struct rows_diff      diff;
    mcp_engine           *engine = NULL;
    mcp_error             err = { 0 };
    float                *actual, *expected;
    int32_t               tokens[64];
    char                  text[256];
    int                   failed = 0;

    if (ctx == NULL) {
        if (strcmp(quant, quants[0]) == 0)
            print_message("%s, %s: llama.cpp refuses: %s\n", shape, config->name, oracle_reason());
        must_not_crash(model, &opts);
        ++*refused;
        return 0;
    }
    actual = floats_new((size_t)total * n_vocab);
    expected = floats_new((size_t)total * n_vocab);
    rng_tokens(&rng, tokens, total, n_vocab);
    if (mcp_engine_open(&engine, model, &opts, &err) < 0) {
        print_message("%s %s, %s: does not open: %s\n", shape, quant, config->name, err.text);
        failed = 1;
        goto out;
    }
    oracle_run(ctx, 0, tokens, windows, expected);
    parity_run(engine, model, NULL, 0, tokens, windows, actual);
    rows_compare(&diff, actual, expected, total, n_vocab);
    failed = !verdict(&diff, shape, quant, config->name);
    if (failed)
        print_message("    %s\n",
                      oracle_first_layer(llama, model, &opts, tokens, windows, text, sizeof(text)));
    /* A model that answers the same everywhere would prove nothing. */
    if (memcmp(expected, expected + n_vocab, n_vocab * sizeof(float)) == 0) {
        print_message("%s %s: two positions have the same logits\n", shape, quant);
        failed = 1;
    }
out:
    free(actual);
    free(expected);
    mcp_engine_close(engine);
    llama_free(ctx);
    return failed;
}

/* Goal:   a shape gives llama.cpp's bits in every quantisation, with and without flash
 *         attention, for each KV type, with and without repacked weights.
 * Method: prefill of 37 random tokens, 8 single ones, a window of 5, one more; all rows.
 *         A failure goes on to the next combination, so that the output is a picture. */
static void shape_gives_llama_bits(void **state)
{
    static const struct windows windows = WINDOWS(37, 1, 1, 1, 1, 1, 1, 1, 1, 5, 1);
    const char                 *shape = *state;
    int                         failed = 0, refused = 0;

    for (size_t q = 0; q < QUANTS; q++) {
        const char *path = synth_model(shape, quants[q]);
        mcp_model  *model = parity_model_open(path);

        for (size_t c = 0; c < CONFIGS; c++) {
            struct llama_model *llama = oracle_model_try(path, configs[c].repack);

            if (llama == NULL) {
                print_message("%s %s: llama.cpp refuses the model: %s\n", shape, quants[q],
                              oracle_reason());
                refused++;
                break;
            }
            failed += compare_config(llama, model, shape, quants[q], &configs[c], &windows,
                                     &refused);
            llama_model_free(llama);
        }
        mcp_model_close(model);
    }
    synth_clear();
    if (failed > 0)
        fail_msg("%d combinations of %s differ, llama.cpp refuses %d", failed, shape, refused);
    assert_true(refused < (int)(QUANTS * CONFIGS));
}

/* Goal:   nor do threads change a bit.
 * Method: three shapes with two threads in both engines; SmolLM2 has the rest. */
static void two_threads_give_llama_bits(void **state)
{
    static const struct config config = {
        "flash, 2 threads", MCP_FLASH_ON, MCP_KV_F16, MCP_KV_F16, 256, 2, 1
    };
    static const char *const    shapes[] = { "tiny-llama", "tiny-qwen3", "tiny-deepseek2-mla" };
    static const struct windows windows = WINDOWS(37, 1, 5, 1);
    int                         failed = 0, refused = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const char         *path = synth_model(shapes[i], "q4_0");
        mcp_model          *model = parity_model_open(path);
        struct llama_model *llama = oracle_model_open(path, 1);

        failed += compare_config(llama, model, shapes[i], "q4_0", &config, &windows, &refused);
        llama_model_free(llama);
        mcp_model_close(model);
    }
    assert_int_equal(failed + refused, 0);
}

/* Goal:   the list of shapes above is complete.
 * Method: every "tiny-" line of mcp-synth --list is a row of PARITY_SHAPES. */
static void every_tiny_shape_of_mcp_synth_is_tested_here(void **state)
{
#define X(name) name,
    static const char *const shapes[] = { PARITY_SHAPES(X) };
#undef X
    static const char *const arguments[] = { "--list", NULL };
    char                    *list = synth_output(arguments), *rest = NULL;

    (void)state;
    for (char *line = strtok_r(list, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        size_t known = 0;

        if (strncmp(line, "tiny-", 5) != 0)
            continue;
        line[strcspn(line, " ")] = '\0';
        for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
            known += strcmp(shapes[i], line) == 0;
        if (known == 0)
            fail_msg("%s is missing in PARITY_SHAPES", line);
    }
    free(list);
}

/* Goal:   sequences computed together give what llama.cpp gives for them together.
 * Method: 4 sequences, 9 tokens of each in one forward, then 5 forwards of one token
 *         each; llama.cpp has the same sequences in streams of their own. */
static void sequences_together_give_llama_bits(void **state)
{
    static const char *const shapes[] = { "tiny-llama", "tiny-llama-gqa3", "tiny-qwen2",
                                          "tiny-qwen3", "tiny-deepseek2",  "tiny-deepseek2-mla" };
    enum { SEQS = 4, PROMPT = 9, STEPS = 5, ROWS = SEQS * (PROMPT + STEPS) };
    int failed = 0;

    (void)state;
    for (size_t i = 0; i < 4 * sizeof(shapes) / sizeof(shapes[0]); i++) {
        const char           *shape = shapes[i / 4], *quant = i & 1 ? "q4_0" : "f16";
        const struct config  *config = &configs[i & 2 ? CONFIG_PLAIN : CONFIG_FLASH];
        const char           *path = synth_model(shape, quant);
        mcp_model            *model = parity_model_open(path);
        struct llama_model   *llama = oracle_model_open(path, 1);
        mcp_engine_opts       opts = config_opts(config);
        uint32_t              n_vocab = mcp_model_get_info(model)->n_vocab;
        float                *actual = floats_new((size_t)ROWS * n_vocab);
        float                *expected = floats_new((size_t)ROWS * n_vocab);
        struct rng            rng = { parity_seed() };
        struct llama_context *ctx;
        mcp_engine           *engine;
        int32_t               tokens[ROWS];
        struct rows_diff      diff;
        size_t                rows = 0;

        opts.seqs = SEQS;
        ctx = oracle_context_open(llama, &opts);
        engine = parity_engine_open(model, &opts);
        rng_tokens(&rng, tokens, ROWS, n_vocab);
        for (uint32_t step = 0; step <= STEPS; step++) {
            uint32_t   count = step == 0 ? PROMPT : 1;
            mcp_window windows[SEQS] = { 0 };
            mcp_error  err = { 0 };
            size_t     floats = (size_t)SEQS * count * n_vocab;

            for (uint32_t s = 0; s < SEQS; s++) {
                windows[s].seq = s;
                windows[s].pos = step == 0 ? 0 : PROMPT + step - 1;
                windows[s].count = count;
                windows[s].tokens = tokens + rows + s * count;
                windows[s].out = MCP_OUT_ALL;
            }
            oracle_forward(ctx, windows, SEQS, expected + rows * n_vocab, floats);
            if (parity_forward(engine, model, NULL, windows, SEQS, actual + rows * n_vocab, floats,
                               &err) < 0)
                fail_msg("%s %s, %s, step %u: %s", shape, quant, config->name, step, err.text);
            rows += (size_t)SEQS * count;
        }
        rows_compare(&diff, actual, expected, ROWS, n_vocab);
        failed += !verdict(&diff, shape, quant, config->name);
        free(actual);
        free(expected);
        mcp_engine_close(engine);
        mcp_model_close(model);
        llama_free(ctx);
        llama_model_free(llama);
    }
    if (failed > 0)
        fail_msg("%d combinations differ", failed);
}

/* One run of SmolLM2 in both engines; a window may exceed the ubatch. */
static void smollm2_run(const struct windows *windows, mcp_engine_opts opts, const char *name)
{
    const char           *path = smollm2_path();
    mcp_model            *model = parity_model_open(path);
    struct llama_model   *llama = oracle_model_open(path, opts.repack);
    struct llama_context *ctx = oracle_context_open(llama, &opts);
    mcp_engine           *engine = parity_engine_open(model, &opts);
    uint32_t         total = windows_total(windows), n_vocab = mcp_model_get_info(model)->n_vocab;
    float           *actual = floats_new((size_t)total * n_vocab);
    float           *expected = floats_new((size_t)total * n_vocab);
    int32_t         *tokens = malloc(total * sizeof(*tokens));
    struct rng       rng = { parity_seed() };
    struct rows_diff diff;
    char             text[256];

    assert_non_null(tokens);
    rng_tokens(&rng, tokens, total, n_vocab);
    oracle_run(ctx, 0, tokens, windows, expected);
    parity_run(engine, model, NULL, 0, tokens, windows, actual);
    rows_compare(&diff, actual, expected, total, n_vocab);
    if (!verdict(&diff, "smollm2", "q4_1", name))
        fail_msg("SmolLM2 (%s): %s", name,
                 oracle_first_layer(llama, model, &opts, tokens, windows, text, sizeof(text)));
    free(tokens);
    free(actual);
    free(expected);
    mcp_engine_close(engine);
    mcp_model_close(model);
    llama_free(ctx);
    llama_model_free(llama);
}

/* Goal:   a real model, prompt of 100 tokens (tiled attention) and 16 decodes.
 * Method: random tokens; each of the KV types that users choose, flash on and off. */
static void smollm2_prefill_and_decode_give_llama_bits(void **state)
{
    static const struct windows windows = WINDOWS(100, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                                  1);

    (void)state;
    for (size_t c = 0; c < CONFIGS_CHOSEN; c++) {
        mcp_engine_opts opts = config_opts(&configs[c]);

        smollm2_run(&windows, opts, configs[c].name);
    }
}

/* Goal:   past 512 positions, where decoding takes ggml's split-KV path, and in prompts
 *         longer than a ubatch.
 * Method: 700 tokens as windows of 512 and 188, then single ones and one of 6; the same
 *         700 as one window, which both engines cut at the ubatch themselves. */
static void smollm2_long_prompts_give_llama_bits(void **state)
{
    static const struct windows pair = WINDOWS(512, 188, 1, 1, 6, 1), one = WINDOWS(700, 1, 1);
    mcp_engine_opts             opts = parity_opts_threads();

    (void)state;
    opts.ctx_tokens = 1024;
    opts.batch_tokens = 1024;
    opts.ubatch_tokens = 512;
    smollm2_run(&pair, opts, "512+188");
    smollm2_run(&one, opts, "700 in one window");
}

int main(void)
{
#define X(shape) { shape " gives llama.cpp's bits", shape_gives_llama_bits, NULL, NULL, shape },
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tiny_shape_of_mcp_synth_is_tested_here),
        cmocka_unit_test(two_threads_give_llama_bits),
        cmocka_unit_test(sequences_together_give_llama_bits),
        cmocka_unit_test(smollm2_prefill_and_decode_give_llama_bits),
        cmocka_unit_test(smollm2_long_prompts_give_llama_bits),
        PARITY_SHAPES(X)
    };
#undef X
    return cmocka_run_group_tests(tests, NULL, NULL);
}
