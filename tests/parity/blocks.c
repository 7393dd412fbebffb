/* SPDX-License-Identifier: MIT */
/* blocks.c - exported KV that was damaged or goes to the wrong place is refused.
 *
 * Blocks come from other hosts: every damage must be noticed, nothing may be read beyond
 * the end, and a refusal changes nothing.  state.c has the runs that go well. */
#include "parity_common.h"

#include "base/sha256.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER_BYTES = 80 }; /* src/engine/state.c has the layout */

/* A model and an engine whose sequence 0 holds HELD positions. */
struct exporter {
    mcp_model  *model;
    mcp_engine *engine;
    uint32_t    layers;
    uint32_t    n_vocab;
    int32_t     tokens[32];
    float      *rows; /* (32, n_vocab) */
};

static const struct windows held = WINDOWS(20, 1), next = WINDOWS(5, 1);
enum { HELD = 21, NEXT = 6 };

static void exporter_open(struct exporter *x, const char *path, const mcp_engine_opts *opts)
{
    struct rng rng = { parity_seed() };

    x->model = parity_model_open(path);
    x->engine = parity_engine_open(x->model, opts);
    x->layers = mcp_model_get_info(x->model)->layers;
    x->n_vocab = mcp_model_get_info(x->model)->n_vocab;
    x->rows = floats_new((size_t)32 * x->n_vocab);
    rng_tokens(&rng, x->tokens, 32, x->n_vocab);
    parity_run(x->engine, x->model, NULL, 0, x->tokens, &held, x->rows);
}

static void exporter_close(struct exporter *x)
{
    free(x->rows);
    mcp_engine_close(x->engine);
    mcp_model_close(x->model);
}

/* The exporter and an engine that imported its HELD positions go on alike. */
static void must_go_on_alike(struct exporter *x, mcp_engine *engine)
{
    float *rows = x->rows + (size_t)NEXT * x->n_vocab;

    parity_run(x->engine, x->model, NULL, 0, x->tokens + HELD, &next, x->rows);
    parity_run(engine, x->model, NULL, 0, x->tokens + HELD, &next, rows);
    rows_require_equal(rows, x->rows, NEXT, x->n_vocab, "after refusals");
}

/* The import fails with a sentence and changes nothing.  Returns the code. */
static int import_must_fail(mcp_engine *engine, uint32_t seq, const void *block, size_t bytes,
                            uint32_t layers, const char *what, size_t where)
{
    uint32_t  before[64];
    mcp_error err = { 0 };
    int       rc;

    assert_true(layers <= 64);
    for (uint32_t l = 0; l < layers; l++)
        before[l] = mcp_engine_length(engine, seq, l);
    rc = mcp_engine_import(engine, seq, block, bytes, &err);
    if (rc >= 0)
        fail_msg("%s (%zu) was accepted", what, where);
    if (err.code != rc || err.text[0] == '\0')
        fail_msg("%s (%zu): code %d, err.code %d, text '%s'", what, where, rc, err.code, err.text);
    for (uint32_t l = 0; l < layers; l++)
        if (mcp_engine_length(engine, seq, l) != before[l])
            fail_msg("%s (%zu) changed layer %u's length", what, where, l);
    return rc;
}

/* Goal:   no damaged block gets in.
 * Method: a block of 2 layers x 3 positions of a tiny model; every byte flipped in one
 *         bit and in all, cut at every length, with bytes appended.  Then the whole block
 *         still imports and the run goes on as if nothing had happened. */
static void every_damaged_byte_is_refused(void **state)
{
    static const char *const shapes[] = { "tiny-llama-gqa3", "tiny-deepseek2-mla" };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        mcp_engine_opts opts = parity_opts();
        struct exporter x;
        mcp_engine     *to;
        unsigned char  *block, *longer;
        size_t          bytes, corrupt = 0;

        exporter_open(&x, synth_model(shapes[i], "f16"), &opts);
        to = parity_engine_open(x.model, &opts);
        block = parity_export(x.engine, 0, 0, 2, 0, 3, &bytes);
        for (size_t b = 0; b < bytes; b++) {
            unsigned char kept = block[b];

            block[b] = kept ^ (unsigned char)(1u << (b % 8));
            corrupt += import_must_fail(to, 0, block, bytes, x.layers, "a flipped bit", b) ==
                       MCP_ECORRUPT;
            block[b] = (unsigned char)~kept;
            import_must_fail(to, 0, block, bytes, x.layers, "a flipped byte", b);
            block[b] = kept;
        }
        /* the header may be refused for what it says, the body only by its digest */
        if (corrupt * 2 < bytes)
            fail_msg("only %zu of %zu flipped bits are MCP_ECORRUPT", corrupt, bytes);
        for (size_t cut = 0; cut < bytes; cut++) {
            unsigned char *shorter = malloc(cut > 0 ? cut : 1); /* so that ASan sees the end */

            assert_non_null(shorter);
            memcpy(shorter, block, cut);
            import_must_fail(to, 0, shorter, cut, x.layers, "a truncated block", cut);
            free(shorter);
        }
        import_must_fail(to, 0, NULL, 0, x.layers, "no block", 0);
        longer = calloc(1, bytes + 64);
        assert_non_null(longer);
        memcpy(longer, block, bytes);
        for (size_t more = 1; more <= 64; more += 21)
            import_must_fail(to, 0, longer, bytes + more, x.layers, "a longer block", more);
        free(longer);
        parity_import(to, 0, block, bytes);
        assert_int_equal(mcp_engine_length(to, 0, 0), 3);
        assert_int_equal(mcp_engine_length(to, 0, 1), 3);
        assert_int_equal(mcp_engine_length(to, 0, 2), 0);
        parity_trim(to, 0, 0);
        free(block);
        block = parity_export(x.engine, 0, 0, x.layers, 0, HELD, &bytes);
        parity_import(to, 0, block, bytes);
        must_go_on_alike(&x, to);
        free(block);
        mcp_engine_close(to);
        exporter_close(&x);
    }
}

static void seal(unsigned char *block, size_t bytes)
{
    struct base_sha256 *hash = base_sha256_new();
    mcp_error           err = { 0 };

    assert_non_null(hash);
    base_sha256_add(hash, block, bytes - BASE_SHA256_BYTES);
    assert_int_equal(base_sha256_finish(hash, block + bytes - BASE_SHA256_BYTES, &err), 0);
}

/* Goal:   a header that lies is refused for what it says: the digest is no signature.
 * Method: the damage above in the 80 bytes before the rows, then a digest that fits it;
 *         each byte flipped, each 32 bits overwritten with sizes that tempt to overflow. */
static void a_sealed_header_that_lies_is_refused(void **state)
{
    static const uint32_t tempting[] = { 0,       1,          2,          4,         255,
                                         1 << 16, 0x7fffffff, 0x80000000, UINT32_MAX };
    mcp_engine_opts       opts = parity_opts();
    struct exporter       x;
    mcp_engine           *to;
    unsigned char        *block, kept[HEADER_BYTES];
    size_t                bytes;

    (void)state;
    exporter_open(&x, synth_model("tiny-llama-gqa3", "f16"), &opts);
    to = parity_engine_open(x.model, &opts);
    block = parity_export(x.engine, 0, 0, 2, 0, 3, &bytes);
    memcpy(kept, block, sizeof(kept));
    for (size_t b = 0; b < HEADER_BYTES; b++) {
        block[b] = (unsigned char)~block[b];
        seal(block, bytes);
        import_must_fail(to, 0, block, bytes, x.layers, "a sealed flipped byte", b);
        block[b] = kept[b];
        for (size_t i = 0; b % 4 == 0 && i < sizeof(tempting) / sizeof(tempting[0]); i++) {
            memcpy(block + b, &tempting[i], 4);
            if (memcmp(block, kept, sizeof(kept)) != 0) {
                seal(block, bytes);
                import_must_fail(to, 0, block, bytes, x.layers, "a sealed number", b);
            }
            memcpy(block + b, kept + b, 4);
        }
    }
    seal(block, bytes);
    parity_import(to, 0, block, bytes); /* the seal is the engine's own */
    free(block);
    mcp_engine_close(to);
    exporter_close(&x);
}

/* Goal:   NaN from another host harms no run that comes after it in the same sequence.
 * Method: a sealed block whose rows are all NaN; it may be refused.  If it is not, the
 *         sequence is emptied and a run of fewer tokens must be as in a fresh engine:
 *         without flash attention, a masked column is multiplied by 0, and 0 x NaN shows. */
static void nan_in_a_sealed_block_harms_no_later_run(void **state)
{
    static const char *const    shapes[] = { "tiny-llama", "tiny-deepseek2", "tiny-deepseek2-mla" };
    static const mcp_kv_type    types[] = { MCP_KV_F16, MCP_KV_F32 };
    static const struct windows few = WINDOWS(7, 1);

    (void)state;
    for (size_t i = 0; i < 2 * sizeof(shapes) / sizeof(shapes[0]); i++) {
        mcp_engine_opts opts = parity_opts();
        struct exporter x;
        mcp_engine     *to;
        mcp_error       err = { 0 };
        unsigned char  *block;
        float          *expected;
        size_t          bytes;

        opts.flash = MCP_FLASH_OFF;
        opts.kv_k = opts.kv_v = types[i % 2];
        exporter_open(&x, synth_model(shapes[i / 2], "f16"), &opts);
        to = parity_engine_open(x.model, &opts);
        block = parity_export(x.engine, 0, 0, x.layers, 0, HELD, &bytes);
        memset(block + HEADER_BYTES, 0xff, bytes - HEADER_BYTES); /* NaN in each type */
        seal(block, bytes);
        if (mcp_engine_import(to, 0, block, bytes, &err) < 0)
            assert_true(err.text[0] != '\0');
        parity_trim(to, 0, 0);
        parity_trim(x.engine, 0, 0);
        expected = floats_new((size_t)8 * x.n_vocab);
        parity_run(x.engine, x.model, NULL, 0, x.tokens, &few, expected);
        parity_run(to, x.model, NULL, 0, x.tokens, &few, x.rows);
        rows_require_equal(x.rows, expected, 8, x.n_vocab, "%s after a block of NaN",
                           shapes[i / 2]);
        free(expected);
        free(block);
        mcp_engine_close(to);
        exporter_close(&x);
    }
}

/* Goal:   a whole block in the wrong place is refused and says why.
 * Method: gaps and overlaps of positions, a sequence or layers that are not there, a full
 *         context, another model, other weights' shapes, other KV types. */
static void a_block_in_the_wrong_place_is_refused(void **state)
{
    mcp_engine_opts opts = parity_opts(), changed = opts;
    struct exporter x;
    mcp_model      *other_model;
    mcp_engine     *to;
    size_t          bytes, late_bytes;
    void           *block, *late;

    (void)state;
    exporter_open(&x, synth_model("tiny-llama", "f16"), &opts);
    block = parity_export(x.engine, 0, 0, x.layers, 0, HELD, &bytes);
    late = parity_export(x.engine, 0, 0, x.layers, 10, HELD, &late_bytes);

    import_must_fail(x.engine, 0, block, bytes, x.layers, "positions that are there already", 0);
    to = parity_engine_open(x.model, &opts);
    import_must_fail(to, 0, late, late_bytes, x.layers, "a gap before the block", 0);
    import_must_fail(to, 1, block, bytes, x.layers, "a sequence that is not there", 0);
    mcp_engine_close(to);

    changed = opts;
    changed.last = x.layers - 1;
    to = parity_engine_open(x.model, &changed);
    import_must_fail(to, 0, block, bytes, x.layers - 1, "a layer that is not loaded", 0);
    mcp_engine_close(to);

    changed = opts;
    changed.ctx_tokens = HELD - 1;
    to = parity_engine_open(x.model, &changed);
    import_must_fail(to, 0, block, bytes, x.layers, "a block longer than the context", 0);
    mcp_engine_close(to);

    changed = opts;
    changed.kv_k = changed.kv_v = MCP_KV_Q8_0;
    to = parity_engine_open(x.model, &changed);
    import_must_fail(to, 0, block, bytes, x.layers, "f16 into q8_0", 0);
    mcp_engine_close(to);
    changed.flash = MCP_FLASH_OFF; /* f32 needs it */
    changed.kv_k = changed.kv_v = MCP_KV_F32;
    to = parity_engine_open(x.model, &changed);
    import_must_fail(to, 0, block, bytes, x.layers, "f16 into f32", 0);
    mcp_engine_close(to);

    for (int i = 0; i < 2; i++) {
        /* the same KV shape with another rope base, and another architecture */
        const char *shape = i == 0 ? "tiny-llama:rope_base=500000" : "tiny-qwen2";
        int         rc;

        other_model = parity_model_open(synth_model(shape, "f16"));
        to = parity_engine_open(other_model, &opts);
        rc = import_must_fail(to, 0, block, bytes, x.layers, shape, 0);
        assert_int_equal(rc, MCP_EFORMAT);
        mcp_engine_close(to);
        mcp_model_close(other_model);
    }
    free(block);
    free(late);
    exporter_close(&x);
}

/* Goal:   an impossible export is refused.
 * Method: ranges of layers and positions outside what the sequence holds, and a buffer
 *         that is too small. */
static void an_impossible_export_is_refused(void **state)
{
    mcp_engine_opts opts = parity_opts();
    struct exporter x;
    mcp_engine     *to;
    mcp_error       err = { 0 };
    size_t          bytes;
    char           *block;

    (void)state;
    exporter_open(&x, synth_model("tiny-llama", "f16"), &opts);
    {
        const uint32_t bad[][5] = {
            { 0, 0, x.layers + 1, 0, 5 },
            { 0, 2, 1, 0, 5 },
            { 0, 1, 1, 0, 5 },
            { 0, UINT32_MAX, 1, 0, 5 },
            { 0, 0, x.layers, 0, HELD + 1 },
            { 0, 0, x.layers, 5, 4 },
            { 0, 0, x.layers, 0, UINT32_MAX },
            { 1, 0, x.layers, 0, 5 },
            { UINT32_MAX, 0, x.layers, 0, 5 },
        };

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            int rc;

            bytes = 0;
            memset(&err, 0, sizeof(err));
            rc = mcp_engine_export(x.engine, bad[i][0], bad[i][1], bad[i][2], bad[i][3], bad[i][4],
                                   NULL, &bytes, &err);
            if (rc >= 0 || err.text[0] == '\0')
                fail_msg("export %zu gave %d '%s'", i, rc, err.text);
        }
    }
    block = parity_export(x.engine, 0, 0, x.layers, 0, HELD, &bytes);
    bytes -= 1;
    assert_true(mcp_engine_export(x.engine, 0, 0, x.layers, 0, HELD, block, &bytes, &err) < 0);
    free(block);
    to = parity_engine_open(x.model, &opts);
    block = parity_export(x.engine, 0, 0, x.layers, 0, HELD, &bytes);
    parity_import(to, 0, block, bytes);
    must_go_on_alike(&x, to);
    free(block);
    mcp_engine_close(to);
    exporter_close(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_damaged_byte_is_refused),
        cmocka_unit_test(a_sealed_header_that_lies_is_refused),
        cmocka_unit_test(nan_in_a_sealed_block_harms_no_later_run),
        cmocka_unit_test(a_block_in_the_wrong_place_is_refused),
        cmocka_unit_test(an_impossible_export_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
