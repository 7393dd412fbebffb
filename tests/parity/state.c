/* SPDX-License-Identifier: MIT */
/* state.c - a sequence's KV can be cut back and moved, and the run goes on unchanged.
 *
 * The oracle is a straight run of the same windows on a fresh sequence: what was trimmed
 * and redone, or exported and continued elsewhere, must have its bits. */
#include "parity_common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 48 };

/* Runs that continue at `head` tokens. */
static const struct windows head_windows = WINDOWS(20, 1);
static const struct windows tail_windows = WINDOWS(5, 1, 1, 3);
enum { HEAD = 21, TAIL = 10, ROWS = HEAD + TAIL };

struct subject {
    mcp_model *model;
    uint32_t   layers;
    uint32_t   n_vocab;
    int32_t    tokens[TOKENS];
    float     *straight; /* (ROWS, n_vocab) */
    float     *actual;
};

static void subject_open(struct subject *s, const char *path, const mcp_engine_opts *opts)
{
    struct rng  rng = { parity_seed() };
    mcp_engine *engine;

    s->model = parity_model_open(path);
    s->layers = mcp_model_get_info(s->model)->layers;
    s->n_vocab = mcp_model_get_info(s->model)->n_vocab;
    s->straight = floats_new((size_t)ROWS * s->n_vocab);
    s->actual = floats_new((size_t)ROWS * s->n_vocab);
    rng_tokens(&rng, s->tokens, TOKENS, s->n_vocab);
    engine = parity_engine_open(s->model, opts);
    parity_run(engine, s->model, NULL, 0, s->tokens, &head_windows, s->straight);
    parity_run(engine, s->model, NULL, 0, s->tokens + HEAD, &tail_windows,
               s->straight + (size_t)HEAD * s->n_vocab);
    mcp_engine_close(engine);
}

static void subject_close(struct subject *s)
{
    free(s->straight);
    free(s->actual);
    mcp_model_close(s->model);
}

/* Run the tail on `seq`, which must stand at HEAD, and compare. */
static void tail_must_equal(struct subject *s, mcp_engine *engine, uint32_t seq, const char *what)
{
    float *rows = s->actual + (size_t)HEAD * s->n_vocab;

    for (uint32_t l = 0; l < s->layers; l++)
        assert_int_equal(mcp_engine_length(engine, seq, l), HEAD);
    parity_run(engine, s->model, NULL, seq, s->tokens + HEAD, &tail_windows, rows);
    rows_require_equal(rows, s->straight + (size_t)HEAD * s->n_vocab, TAIL, s->n_vocab, "%s", what);
}

/* ---- trim ----------------------------------------------------------------------- */

/* Goal:   what was trimmed and computed again equals the straight run.
 * Method: other tokens are appended, in windows of several sizes and partly through some
 *         layers only, and trimmed away, before and between the windows of the run. */
static void trim_and_redo(struct subject *s, const mcp_engine_opts *opts, const char *what)
{
    static const struct windows garbage[] = { WINDOWS(1), WINDOWS(7), WINDOWS(3, 1, 9) };
    mcp_engine                 *engine = parity_engine_open(s->model, opts);
    uint32_t       n_embd = mcp_model_get_info(s->model)->n_embd, half = s->layers / 2, done = 0;
    float         *waste = floats_new((size_t)16 * (s->n_vocab + n_embd));
    struct windows all = WINDOWS(20, 1, 5, 1, 1, 3);
    mcp_error      err = { 0 };

    for (uint32_t i = 0; i < all.count; i++) {
        const struct windows *g = &garbage[i % 3];
        struct windows        one = WINDOWS(all.sizes[i]);
        mcp_window            partly = {
                       .pos = done, .count = 2, .tokens = s->tokens + 31, .out = MCP_OUT_ALL
        };

        parity_run(engine, s->model, NULL, 0, s->tokens + 30, g, waste);
        parity_trim(engine, 0, done + windows_total(g) + 5); /* beyond the end: no effect */
        assert_int_equal(mcp_engine_length(engine, 0, 0), done + windows_total(g));
        parity_trim(engine, 0, done);
        if (mcp_engine_forward(engine, 0, half, MCP_WANT_HIDDEN, &partly, 1, waste,
                               (size_t)2 * n_embd, &err) < 0)
            fail_msg("%s: layers [0,%u): %s", what, half, err.text);
        assert_int_equal(mcp_engine_length(engine, 0, 0), done + 2);
        assert_int_equal(mcp_engine_length(engine, 0, s->layers - 1), done);
        parity_trim(engine, 0, done);
        parity_run(engine, s->model, NULL, 0, s->tokens + done, &one,
                   s->actual + (size_t)done * s->n_vocab);
        done += all.sizes[i];
    }
    rows_require_equal(s->actual, s->straight, ROWS, s->n_vocab, "%s", what);
    /* the last three windows once more */
    parity_trim(engine, 0, HEAD);
    tail_must_equal(s, engine, 0, what);
    free(waste);
    mcp_engine_close(engine);
}

/* ---- export and import ---------------------------------------------------------- */

/* Goal:   a sequence continued in another engine equals the straight run.
 * Method: head in sequence 0 of one engine; its block goes into sequence 2 of another
 *         engine, as one block, and as layers x positions in four; then the tail.  The
 *         importer's own export must be the same bytes. */
static void export_import_continue(struct subject *s, const mcp_engine_opts *opts, const char *what)
{
    mcp_engine_opts other = *opts;
    uint32_t        half = s->layers / 2;
    const uint32_t  parts[4][4] = {
         { 0, half, 0, 9 },
         { half, s->layers, 0, 9 },
         { half, s->layers, 9, HEAD },
         { 0, half, 9, HEAD },
    };
    mcp_engine *from = parity_engine_open(s->model, opts), *to;
    size_t      bytes, again;
    void       *block, *copy;

    other.seqs = 3;
    other.ctx_tokens = opts->ctx_tokens + 256;
    to = parity_engine_open(s->model, &other);
    parity_run(from, s->model, NULL, 0, s->tokens, &head_windows, s->actual);
    /* the neighbours of the target are not empty */
    parity_run(to, s->model, NULL, 1, s->tokens + 7, &head_windows, s->actual);
    block = parity_export(from, 0, 0, s->layers, 0, HEAD, &bytes);
    parity_import(to, 2, block, bytes);
    copy = parity_export(to, 2, 0, s->layers, 0, HEAD, &again);
    assert_int_equal(bytes, again);
    assert_memory_equal(block, copy, bytes);
    tail_must_equal(s, to, 2, what);
    parity_trim(to, 2, 0);
    for (int i = 0; i < 4; i++) {
        size_t part_bytes;
        void  *part = parity_export(from, 0, parts[i][0], parts[i][1], parts[i][2], parts[i][3],
                                    &part_bytes);

        parity_import(to, 2, part, part_bytes);
        free(part);
    }
    tail_must_equal(s, to, 2, what);
    /* and the exporter is as it was */
    tail_must_equal(s, from, 0, what);
    free(block);
    free(copy);
    mcp_engine_close(from);
    mcp_engine_close(to);
}

static const struct variant {
    const char *name;
    const char *quant;
    mcp_flash   flash;
    mcp_kv_type kv;
} variants[] = {
    { "flash, f16 kv", "q4_0", MCP_FLASH_ON, MCP_KV_F16 },
    { "no flash, f16 kv", "f16", MCP_FLASH_OFF, MCP_KV_F16 },
    { "flash, q8_0 kv", "q8_0", MCP_FLASH_ON, MCP_KV_Q8_0 },
    { "no flash, f32 kv", "f32", MCP_FLASH_OFF, MCP_KV_F32 },
};
enum { VARIANTS = sizeof(variants) / sizeof(variants[0]) };

static mcp_engine_opts variant_opts(const struct variant *variant)
{
    mcp_engine_opts opts = parity_opts();

    opts.flash = variant->flash;
    opts.kv_k = variant->kv;
    opts.kv_v = variant->kv;
    return opts;
}

/* Both, for one shape in every variant whose KV type fits the heads. */
static void shape_survives_trims_and_moves(void **state)
{
    for (size_t v = 0; v < VARIANTS; v++) {
        mcp_engine_opts opts = variant_opts(&variants[v]);
        const char     *path = synth_model(*state, variants[v].quant);
        mcp_model      *model = parity_model_open(path);
        mcp_engine     *engine = NULL;
        mcp_error       err = { 0 };
        int             rc = mcp_engine_open(&engine, model, &opts, &err);
        struct subject  s;
        char            what[128];

        mcp_engine_close(engine);
        mcp_model_close(model);
        if (rc < 0 && variants[v].kv == MCP_KV_Q8_0)
            continue; /* heads that are no multiple of 32; logits.c says which */
        if (rc < 0)
            fail_msg("%s: %s", variants[v].name, err.text);
        subject_open(&s, path, &opts);
        snprintf(what, sizeof(what), "trim and redo, %s", variants[v].name);
        trim_and_redo(&s, &opts, what);
        snprintf(what, sizeof(what), "export, import, continue, %s", variants[v].name);
        export_import_continue(&s, &opts, what);
        subject_close(&s);
    }
}

static void smollm2_survives_trims_and_moves(void **state)
{
    (void)state;
    for (size_t v = 0; v < 3; v += 2) {
        mcp_engine_opts opts = variant_opts(&variants[v]);
        struct subject  s;

        subject_open(&s, smollm2_path(), &opts);
        trim_and_redo(&s, &opts, "SmolLM2, trim and redo");
        export_import_continue(&s, &opts, "SmolLM2, export, import, continue");
        subject_close(&s);
    }
}

/* Goal:   the layout of a block does not depend on flash attention.
 * Method: KV of an engine with it goes into one without it, which exports the same bytes
 *         and goes on with nearly the same logits: all rows within 2 %, or half of them
 *         where a last bit may choose another expert. */
static void a_block_moves_between_flash_and_no_flash(void **state)
{
    static const char *const shapes[] = { "tiny-llama-gqa3", "tiny-qwen2", "tiny-deepseek2",
                                          "tiny-deepseek2-mla" };

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        mcp_engine_opts  opts = parity_opts();
        mcp_engine      *on, *off;
        struct subject   s;
        struct rows_diff diff;
        size_t           bytes, again;
        uint32_t         near = 0;
        void            *block, *copy;

        subject_open(&s, synth_model(shapes[i], "f16"), &opts);
        on = parity_engine_open(s.model, &opts);
        opts.flash = MCP_FLASH_OFF;
        off = parity_engine_open(s.model, &opts);
        parity_run(on, s.model, NULL, 0, s.tokens, &head_windows, s.actual);
        block = parity_export(on, 0, 0, s.layers, 0, HEAD, &bytes);
        parity_import(off, 0, block, bytes);
        copy = parity_export(off, 0, 0, s.layers, 0, HEAD, &again);
        assert_int_equal(bytes, again);
        assert_memory_equal(block, copy, bytes);
        parity_run(off, s.model, NULL, 0, s.tokens + HEAD, &tail_windows, s.actual);
        for (size_t r = 0; r < TAIL; r++) {
            rows_compare(&diff, s.actual + r * s.n_vocab, s.straight + (HEAD + r) * s.n_vocab, 1,
                         s.n_vocab);
            assert_true(diff.finite);
            near += diff.max_abs <= 0.02f * diff.scale;
        }
        if (near < (strstr(shapes[i], "deepseek2") != NULL ? TAIL / 2 : TAIL))
            fail_msg("%s: without flash attention only %u of %d rows are near", shapes[i], near,
                     TAIL);
        free(block);
        free(copy);
        mcp_engine_close(on);
        mcp_engine_close(off);
        subject_close(&s);
    }
}

int main(void)
{
#define X(shape) \
    { shape " survives trims and moves", shape_survives_trims_and_moves, NULL, NULL, shape },
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_moves_between_flash_and_no_flash),
        cmocka_unit_test(smollm2_survives_trims_and_moves),
        PARITY_SHAPES(X)
    };
#undef X
    return cmocka_run_group_tests(tests, NULL, NULL);
}
