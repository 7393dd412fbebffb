/* SPDX-License-Identifier: MIT */
/* even.c - with even_windows, windows of 1 to 63 positions give the same bits, however a run is
 * cut and whoever shares the forward.
 *
 * The oracle is our own engine, alone, one position at a time.  What is compared is all that a
 * run leaves: the keys and values of every position in every layer, as they are exported, and
 * the logits of the last one.  The same comparisons must fail without even_windows.
 *
 * Attention is tested with two threads: with one, the split-KV path has a single part to add
 * and gives the bits of the row-by-row path.  They wait for each other at every node, so those
 * runs are cut in different ways only in their last positions. */
#include "parity_common.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEQS = 8, TOKENS = 700, CTX = 768, SMALL_MAX = 63, ROOM = SEQS * 128 };

/* How a run is cut: windows of `size`, or of random sizes up to 63 where that is 0. */
struct cutting {
    uint32_t size;
};

static const struct cutting one_by_one = { 1 };
static const struct cutting cuttings[] = { { 2 }, { 7 }, { SMALL_MAX }, { 0 } };

/* What a run leaves. */
struct trace {
    void  *block; /* of mcp_engine_export() */
    size_t bytes;
    float *logits; /* (n_vocab), of the last position */
};

struct subject {
    const char *name;
    mcp_model  *model;
    mcp_engine *engine;
    uint32_t    layers;
    size_t      n_vocab;
    uint32_t    tail; /* so many positions are cut in different ways, before: windows of 63 */
    int32_t     tokens[SEQS][TOKENS];
};

static mcp_engine_opts even_opts(void)
{
    mcp_engine_opts opts = parity_opts();

    opts.ctx_tokens = CTX;
    opts.seqs = SEQS;
    opts.batch_tokens = ROOM;
    opts.ubatch_tokens = 128; /* so that a forward of eight sequences is cut as well */
    opts.even_windows = 1;
    return opts;
}

static void subject_open(struct subject *s, const char *name, const char *path,
                         const mcp_engine_opts *opts)
{
    struct rng      rng = { parity_seed() };
    mcp_engine_info info;

    s->name = name;
    s->tail = opts->threads > 1 ? 20 : 100;
    s->model = parity_model_open(path);
    s->engine = parity_engine_open(s->model, opts);
    s->layers = mcp_model_get_info(s->model)->layers;
    s->n_vocab = mcp_model_get_info(s->model)->n_vocab;
    for (int i = 0; i < SEQS; i++)
        rng_tokens(&rng, s->tokens[i], TOKENS, (uint32_t)s->n_vocab);
    assert_int_equal(mcp_engine_get_info(s->engine, &info), 0);
#if !defined(__x86_64__)
    if (info.even_windows != opts->even_windows) {
        print_message("%s: even_windows does not hold on this processor\n", name);
        skip();
    }
#endif
    assert_int_equal(info.even_windows, opts->even_windows);
}

static void subject_close(struct subject *s)
{
    mcp_engine_close(s->engine);
    mcp_model_close(s->model);
}

static void trace_take(struct trace *t, const struct subject *s, uint32_t seq, uint32_t total,
                       const float *logits)
{
    t->block = parity_export(s->engine, seq, 0, s->layers, 0, total, &t->bytes);
    t->logits = floats_new(s->n_vocab);
    memcpy(t->logits, logits, s->n_vocab * sizeof(float));
}

static void trace_free(struct trace *t)
{
    free(t->block);
    free(t->logits);
}

static bool trace_equal(const struct trace *a, const struct trace *b, const struct subject *s)
{
    return a->bytes == b->bytes && memcmp(a->block, b->block, a->bytes) == 0 &&
           memcmp(a->logits, b->logits, s->n_vocab * sizeof(float)) == 0;
}

static void forward(struct subject *s, const mcp_window *windows, uint32_t count, float *logits)
{
    mcp_error err = { 0 };

    if (mcp_engine_forward(s->engine, 0, s->layers, MCP_WANT_LOGITS, windows, count, logits,
                           SEQS * s->n_vocab, &err) < 0)
        fail_msg("%s: %s", s->name, err.text);
}

static uint32_t head_of(const struct subject *s, uint32_t total)
{
    return total > s->tail ? total - s->tail : 0;
}

/* Tokens [pos, end) of a sequence, alone in the engine. */
static void run_windows(struct subject *s, uint32_t seq, uint32_t pos, uint32_t end,
                        struct cutting cutting, float *logits)
{
    struct rng rng = { parity_seed() ^ end };

    while (pos < end) {
        uint32_t   size = cutting.size > 0 ? cutting.size : 1 + rng_below(&rng, SMALL_MAX);
        mcp_window w = { .seq = seq,
                         .pos = pos,
                         .count = size < end - pos ? size : end - pos,
                         .tokens = s->tokens[seq] + pos,
                         .out = MCP_OUT_LAST };

        forward(s, &w, 1, logits);
        pos += w.count;
    }
}

/* The first `total` tokens of a sequence, the last of them in windows as `cutting` says. */
static void run_alone(struct subject *s, uint32_t seq, uint32_t total, struct cutting cutting,
                      struct trace *trace)
{
    float *logits = floats_new(SEQS * s->n_vocab);

    parity_trim(s->engine, seq, 0);
    run_windows(s, seq, 0, head_of(s, total), (struct cutting){ SMALL_MAX }, logits);
    run_windows(s, seq, head_of(s, total), total, cutting, logits);
    trace_take(trace, s, seq, total, logits);
    free(logits);
}

/* The tails of all sequences together, each up to its own total: they pause at random, sequence
 * 0 decodes one by one, the last two take windows beyond 63 as well. */
static void run_together(struct subject *s, const uint32_t *totals, struct trace *traces)
{
    float     *logits = floats_new(SEQS * s->n_vocab);
    struct rng rng = { parity_seed() };
    uint32_t   pos[SEQS], left = SEQS;

    for (uint32_t i = 0; i < SEQS; i++) {
        parity_trim(s->engine, i, 0);
        pos[i] = i < SEQS - 2 ? head_of(s, totals[i]) : 0;
        run_windows(s, i, 0, pos[i], (struct cutting){ SMALL_MAX }, logits);
    }
    while (left > 0) {
        mcp_window windows[SEQS];
        uint32_t   count = 0;

        for (uint32_t i = 0; i < SEQS; i++) {
            uint32_t most = i == 0 ? 1 : i < SEQS - 2 ? 20 : 100;
            uint32_t size = 1 + rng_below(&rng, most);

            if (pos[i] == totals[i] || rng_below(&rng, 4) == 0)
                continue;
            windows[count++] =
                (mcp_window){ .seq = i,
                              .pos = pos[i],
                              .count = size < totals[i] - pos[i] ? size : totals[i] - pos[i],
                              .tokens = s->tokens[i] + pos[i],
                              .out = MCP_OUT_LAST };
        }
        forward(s, windows, count, logits);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t seq = windows[i].seq;

            pos[seq] += windows[i].count;
            if (pos[seq] < totals[seq])
                continue;
            trace_take(&traces[seq], s, seq, totals[seq], logits + i * s->n_vocab);
            left--;
        }
    }
    free(logits);
}

/* ---- the promise ------------------------------------------------------------------ */

/* Goal:   a run of `total` positions leaves the same bits in windows of 2, 7, 63 and mixed as
 *         one by one.  Returns how many of the four do not. */
static int cuts_that_differ(struct subject *s, uint32_t total)
{
    struct trace expected;
    int          differ = 0;

    run_alone(s, 0, total, one_by_one, &expected);
    for (size_t i = 0; i < sizeof(cuttings) / sizeof(cuttings[0]); i++) {
        struct trace actual;

        run_alone(s, 0, total, cuttings[i], &actual);
        differ += !trace_equal(&actual, &expected, s);
        trace_free(&actual);
    }
    trace_free(&expected);
    return differ;
}

/* Goal:   in company every sequence with small windows leaves what it leaves alone, one by
 *         one.  Returns how many of the six do not. */
static int company_that_differs(struct subject *s, uint32_t total)
{
    struct trace traces[SEQS];
    struct rng   rng = { parity_seed() ^ 1 };
    uint32_t     totals[SEQS];
    int          differ = 0;

    for (uint32_t i = 0; i < SEQS; i++)
        totals[i] = i == 0 ? total : total / 7 + rng_below(&rng, total - total / 7);
    run_together(s, totals, traces);
    for (uint32_t i = 0; i < SEQS - 2; i++) {
        struct trace alone;

        run_alone(s, i, totals[i], one_by_one, &alone);
        differ += !trace_equal(&traces[i], &alone, s);
        trace_free(&alone);
    }
    for (uint32_t i = 0; i < SEQS; i++)
        trace_free(&traces[i]);
    return differ;
}

static void require_even(struct subject *s, uint32_t total)
{
    int cuts = cuts_that_differ(s, total), company = company_that_differs(s, total);

    if (cuts + company > 0)
        fail_msg("%s, %u positions: %d of 4 ways to cut it differ, %d of 6 sequences in company\n"
                 "replay with MCP_SEED=%" PRIu64,
                 s->name, total, cuts, company, parity_seed());
}

/* Goal:   the promise, for every kind of attention, past 512 columns where a single token would
 *         take the split-KV path.
 * Method: grouped and single heads, one KV head for all, latents; f16 and quantised KV (rotated
 *         with heads of 64), and f32 and f16 without flash attention. */
static void attention_is_even(void **state)
{
    static const struct {
        const char *shape;
        mcp_flash   flash;
        mcp_kv_type kv;
    } cases[] = {
        { "tiny-llama", MCP_FLASH_ON, MCP_KV_F16 },
        { "tiny-llama-gqa3", MCP_FLASH_ON, MCP_KV_F16 },
        { "tiny-llama:kv_heads=1", MCP_FLASH_ON, MCP_KV_F16 },
        { "tiny-llama:heads=1,kv_heads=1", MCP_FLASH_ON, MCP_KV_F16 },
        { "tiny-qwen2", MCP_FLASH_ON, MCP_KV_F16 },
        { "tiny-qwen3", MCP_FLASH_ON, MCP_KV_F16 },
        { "tiny-deepseek2", MCP_FLASH_ON, MCP_KV_F16 },
        { "tiny-deepseek2-mla", MCP_FLASH_ON, MCP_KV_F16 },
        { "tiny-llama:head_dim=64", MCP_FLASH_ON, MCP_KV_Q8_0 },
        { "tiny-llama:head_dim=64,kv_heads=1", MCP_FLASH_ON, MCP_KV_Q8_0 },
        { "tiny-qwen2", MCP_FLASH_OFF, MCP_KV_F16 },
        { "tiny-llama-gqa3", MCP_FLASH_OFF, MCP_KV_F32 },
        { "tiny-deepseek2-mla", MCP_FLASH_OFF, MCP_KV_F32 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mcp_engine_opts opts = even_opts();
        struct subject  s;
        char            name[128];

        opts.threads = 2;
        opts.flash = cases[i].flash;
        opts.kv_k = opts.kv_v = cases[i].kv;
        snprintf(name, sizeof(name), "%s, flash %d, KV %d", cases[i].shape, cases[i].flash,
                 cases[i].kv);
        subject_open(&s, name, synth_model(cases[i].shape, "q8_0"), &opts);
        require_even(&s, 520 + (uint32_t)i);
        subject_close(&s);
    }
}

/* Goal:   the promise, for every type of weight: products take other kernels for one, two,
 *         four or eight rows, by type.
 * Method: all quantisations, rearranged where that is possible and not; a mixture of experts,
 *         where the rows of an expert are counted. */
static void products_are_even(void **state)
{
    static const char *const quants[] = { "f32",  "f16",    "bf16",   "q8_0",  "q4_0",  "q4_1",
                                          "q5_0", "q5_1",   "q2_k",   "q3_k",  "q4_k",  "q5_k",
                                          "q6_k", "iq4_nl", "iq4_xs", "mxfp4", "q4_k_m" };
    static const char *const shapes[] = { "tiny-llama-256",
                                          "tiny-deepseek2-mla:n_embd=256,ff=256,expert_ff=256" };

    (void)state;
    for (size_t i = 0; i < sizeof(quants) / sizeof(quants[0]); i++)
        for (int kind = 0; kind < 3; kind++) {
            mcp_engine_opts opts = even_opts();
            struct subject  s;
            char            name[128];

            opts.repack = kind != 1;
            snprintf(name, sizeof(name), "%s in %s, repack %d", shapes[kind / 2], quants[i],
                     opts.repack);
            subject_open(&s, name, synth_model(shapes[kind / 2], quants[i]), &opts);
            require_even(&s, 90);
            subject_close(&s);
        }
}

/* Goal:   the promise does not depend on the number of threads, nor the bits.
 * Method: one by one with one thread, then in windows of 7 with two; 20 positions past 512. */
static void threads_change_nothing(void **state)
{
    mcp_engine_opts opts = even_opts();
    struct trace    traces[2];
    struct subject  s;

    (void)state;
    for (int i = 0; i < 2; i++) {
        opts.threads = (uint32_t)i + 1;
        subject_open(&s, "two threads", synth_model("tiny-llama-gqa3", "q4_0"), &opts);
        run_alone(&s, 0, 532, i == 0 ? one_by_one : (struct cutting){ 7 }, &traces[i]);
        if (i == 1)
            assert_true(trace_equal(&traces[0], &traces[1], &s));
        subject_close(&s);
    }
    trace_free(&traces[0]);
    trace_free(&traces[1]);
}

/* Four large windows of sequence 4, the last of them to be cut in two, alone or each with small
 * windows before it and large ones around it. */
static void run_large(struct subject *s, bool company, struct trace *trace)
{
    static const uint32_t sizes[] = { 64, 100, 127, 300 };
    float                *logits = floats_new(SEQS * s->n_vocab);

    for (uint32_t seq = 0; seq < SEQS; seq++)
        parity_trim(s->engine, seq, 0);
    for (size_t w = 0; w < sizeof(sizes) / sizeof(sizes[0]); w++) {
        mcp_window windows[SEQS];
        uint32_t   count = 0;

        for (uint32_t seq = company ? 0 : 4; seq < (company ? SEQS : 5); seq++) {
            uint32_t pos = mcp_engine_length(s->engine, seq, 0);

            windows[count++] = (mcp_window){ .seq = seq,
                                             .pos = pos,
                                             .count = seq == 4  ? sizes[w]
                                                      : seq < 3 ? 1 + seq
                                                                : 64 + seq,
                                             .tokens = s->tokens[seq] + pos,
                                             .out = MCP_OUT_LAST };
        }
        forward(s, windows, count, logits);
    }
    trace_take(trace, s, 4, mcp_engine_length(s->engine, 4, 0),
               logits + (company ? 4 : 0) * s->n_vocab);
    free(logits);
}

/* Goal:   windows beyond 63 leave the same bits in any company too, for types that ggml does not
 *         multiply by tiles.
 * Method: in company the forwards are cut between windows and inside them. */
static void large_windows_do_not_mind_company(void **state)
{
    static const char *const quants[] = { "q4_0", "q8_0", "f16" };

    (void)state;
    for (size_t i = 0; i < sizeof(quants) / sizeof(quants[0]); i++) {
        mcp_engine_opts opts = even_opts();
        struct subject  s;
        struct trace    alone, together;

        opts.ubatch_tokens = 256;
        subject_open(&s, quants[i], synth_model("tiny-llama-256", quants[i]), &opts);
        run_large(&s, false, &alone);
        run_large(&s, true, &together);
        if (!trace_equal(&alone, &together, &s))
            fail_msg("%s: large windows differ in company", quants[i]);
        trace_free(&alone);
        trace_free(&together);
        subject_close(&s);
    }
}

static void smollm2_is_even(void **state)
{
    mcp_engine_opts opts = even_opts();
    struct trace    expected, actual;
    struct subject  s;

    (void)state;
    opts.threads = 2;
    subject_open(&s, "SmolLM2", smollm2_path(), &opts);
    run_alone(&s, 0, 530, one_by_one, &expected);
    run_alone(&s, 0, 530, (struct cutting){ 0 }, &actual);
    assert_true(trace_equal(&actual, &expected, &s));
    trace_free(&actual);
    trace_free(&expected);
    assert_int_equal(company_that_differs(&s, 120), 0);
    subject_close(&s);
}

/* ---- and that it is needed --------------------------------------------------------- */

/* Goal:   without even_windows these comparisons fail, or they would show nothing: past 512
 *         columns by attention, before by the weights' types alone.
 * Method: the same runs; which of the types are uneven depends on the processor. */
static void without_even_windows_bits_differ(void **state)
{
    static const char *const uneven[] = { "f16", "q4_k", "q6_k" };
    mcp_engine_opts          opts = even_opts();
    struct subject           s;
    int                      cuts = 0, company = 0;

    (void)state;
    opts.even_windows = 0;
    opts.threads = 2;
    subject_open(&s, "plain q8_0", synth_model("tiny-llama", "q8_0"), &opts);
    assert_int_equal(cuts_that_differ(&s, 560), 4);
    assert_true(company_that_differs(&s, 560) > 0);
    subject_close(&s);
    opts.threads = 1;
    for (size_t i = 0; i < sizeof(uneven) / sizeof(uneven[0]); i++) {
        subject_open(&s, uneven[i], synth_model("tiny-llama-256", uneven[i]), &opts);
        cuts += cuts_that_differ(&s, 90);
        company += company_that_differs(&s, 90);
        subject_close(&s);
    }
    assert_true(cuts > 0);
    assert_true(company > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_even_windows_bits_differ),
        cmocka_unit_test(attention_is_even),
        cmocka_unit_test(products_are_even),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(large_windows_do_not_mind_company),
        cmocka_unit_test(smollm2_is_even),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
