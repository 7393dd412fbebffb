/* engine/engine_test.c - opening and its limits, trimming, memory for rows.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/engine.h"

#include "engine/run_test.h"

static const char *tiny(void)
{
    return unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL);
}

/* ---- opening -------------------------------------------------------------------- */

/* Goal:   each limit of the options holds exactly: the value passes, the next one not.
 * Method: one option at a time. */
static void options_outside_their_limits_are_refused(void **state)
{
    struct mcp_model *m = run_model(tiny());
    uint32_t          cpus = engine_cpus() * ENGINE_THREADS_PER_CPU;
    const struct {
        size_t      offset;
        uint32_t    value;
        int         code;
        const char *about;
    } rows[] = {
#define O(field) offsetof(mcp_engine_opts, field)
        { O(first), 4, MCP_ERANGE, "layers [4, 4)" },
        { O(first), UINT32_MAX, MCP_ERANGE, "layers [4294967295, 4)" },
        { O(first), 3, MCP_OK, "" },
        { O(last), 5, MCP_ERANGE, "layers [0, 5) are not a range of the model's 4" },
        { O(last), UINT32_MAX, MCP_ERANGE, "layers [0, 4294967295)" },
        { O(last), 4, MCP_OK, "" },
        { O(last), 1, MCP_OK, "" },
        { O(ctx_tokens), 1, MCP_OK, "" },
        { O(ctx_tokens), MODEL_CTX_MAX + 1, MCP_ERANGE, "-c" },
        { O(ctx_tokens), UINT32_MAX, MCP_ERANGE, "-c" },
        { O(ctx_tokens), MODEL_CTX_MAX, MCP_ENOMEM, "lower -c" },
        { O(seqs), 0, MCP_ERANGE, "sequences is 0, must be 1 to 4096" },
        { O(seqs), ENGINE_SEQS_MAX + 1, MCP_ERANGE, "sequences is 4097" },
        { O(seqs), 64, MCP_OK, "" },
        { O(batch_tokens), 0, MCP_ERANGE, "-b" },
        { O(batch_tokens), 1, MCP_OK, "" },
        { O(batch_tokens), ENGINE_BATCH_MAX, MCP_OK, "" },
        { O(batch_tokens), ENGINE_BATCH_MAX + 1, MCP_ERANGE, "-b (tokens a batch) is 65537" },
        { O(ubatch_tokens), 0, MCP_ERANGE, "-ub" },
        { O(ubatch_tokens), 1, MCP_OK, "" },
        { O(threads), 1, MCP_OK, "" },
        { O(threads), cpus + 1, MCP_ERANGE, "-t" },
        { O(threads), UINT32_MAX, MCP_ERANGE, "-t" },
        { O(poll), 100, MCP_OK, "" },
        { O(poll), 101, MCP_ERANGE, "polling level is 101" },
        { O(kv_k), 3, MCP_EINVAL, "KV type" },
        { O(kv_v), UINT32_MAX, MCP_EINVAL, "KV type" },
        { O(gpu_layers), 0, MCP_OK, "" },
        { O(gpu_layers), 1000, MCP_OK, "" },
#undef O
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        mcp_engine_opts    o = run_opts();
        struct mcp_engine *e = NULL;
        mcp_error          err;
        int                rc;

        memcpy((char *)&o + rows[i].offset, &rows[i].value, sizeof(uint32_t));
        rc = engine_open(&e, m, &o, &err);
        if (rows[i].code == MCP_OK) {
            if (rc < 0)
                fail_msg("row %zu: %s", i, err.text);
            engine_close(e);
        } else {
            unit_refused(rc, rows[i].code, &err, rows[i].about);
            assert_null(e);
            assert_int_equal(engine_open(&e, m, &o, NULL), rows[i].code);
        }
    }
    model_close(m);
    engine_close(NULL);
}

/* Goal:   a device or a combination that cannot be is refused with what there is. */
static void impossible_devices_and_combinations_are_refused(void **state)
{
    struct mcp_model  *m = run_model(tiny());
    mcp_engine_opts    o = run_opts();
    struct mcp_engine *e;
    mcp_error          err;

    (void)state;
    o.device = "cuda99";
    unit_refused(engine_open(&e, m, &o, &err), MCP_ENOTFOUND, &err, "'cuda99' does not exist");
    assert_non_null(strstr(err.text, "cpu"));
    o.device = "";
    unit_refused(engine_open(&e, m, &o, &err), MCP_ENOTFOUND, &err, "does not exist");
    o = run_opts();
    o.flash = MCP_FLASH_ON;
    o.kv_k = MCP_KV_F32;
    unit_refused(engine_open(&e, m, &o, &err), MCP_ENOTSUP, &err, "f32 needs -fa off");
    o.kv_k = MCP_KV_F16;
    o.kv_v = MCP_KV_F32;
    unit_refused(engine_open(&e, m, &o, &err), MCP_ENOTSUP, &err, "f32 needs -fa off");
    o.flash = MCP_FLASH_OFF;
    o.kv_v = MCP_KV_Q8_0;
    unit_refused(engine_open(&e, m, &o, &err), MCP_ENOTSUP, &err, "needs flash attention");
    model_close(m);
}

/* Goal:   the description says what was opened. */
static void the_description_says_what_was_opened(void **state)
{
    struct mcp_model  *m = run_model(tiny());
    mcp_engine_opts    o = run_opts();
    struct mcp_engine *e;

    (void)state;
    o.first = 1;
    o.last = 3;
    o.seqs = 2;
    e = run_engine(m, &o);
    assert_int_equal(e->info.first, 1);
    assert_int_equal(e->info.last, 3);
    assert_int_equal(e->info.ctx_tokens, 256);
    assert_int_equal(e->info.seqs, 2);
    assert_int_equal(e->info.batch_tokens, 256);
    assert_int_equal(e->info.ubatch_tokens, 64);
    assert_int_equal(e->info.threads, 1);
    assert_int_equal(e->info.flash, 1);
    assert_string_equal(e->info.devices, "cpu");
    assert_int_equal(e->info.weight_bytes, model_range_bytes(m, 1, 3));
    assert_int_equal(e->info.kv_bytes, 2 * 256 * 2 * (128 + 128) * 2); /* layers .. f16 */
    assert_true(e->info.compute_bytes > 0);
    engine_close(e);

    o = run_opts();
    o.kv_k = MCP_KV_F32;
    o.ctx_tokens = 0;
    e = run_engine(m, &o);
    assert_int_equal(e->info.flash, 0);         /* f32 keys would be rounded by it */
    assert_int_equal(e->info.ctx_tokens, 1024); /* as trained */
    assert_int_equal(e->info.weight_bytes, model_range_bytes(m, 0, 4));
    engine_close(e);
    model_close(m);
}

/* Goal:   even windows hold where they are asked for, and only there.
 * Method: a type that is rearranged and even, one whose rearranged form is not: it stays as the
 *         file has it. */
static void even_windows_hold_where_asked_for(void **state)
{
    static const char *const quants[] = { "q4_0", "q4_k" };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(quants); i++) {
        struct mcp_model *m = run_model(unit_synth(quants[i], "tiny-llama-256", quants[i], NULL));

        for (int even = 0; even < 2; even++) {
            mcp_engine_opts    o = run_opts();
            struct mcp_engine *e;

            o.even_windows = even;
            e = run_engine(m, &o);
#if defined(__x86_64__)
            assert_int_equal(e->info.even_windows, even);
#endif
            assert_true(e->info.even_windows <= even);
            engine_close(e);
        }
        model_close(m);
    }
}

/* Goal:   a -ub above -b is -b: it neither costs memory nor overflows anything.
 * Method: the compute buffer of -ub = -b against those of much larger ones. */
static void a_ubatch_above_the_batch_is_the_batch(void **state)
{
    static const uint32_t larger[] = { 17, 512, 1 << 20, UINT32_MAX };
    struct mcp_model     *m = run_model(tiny());
    mcp_engine_opts       o = run_opts();
    struct mcp_engine    *e;
    uint64_t              bytes;

    (void)state;
    o.batch_tokens = o.ubatch_tokens = 16;
    e = run_engine(m, &o);
    bytes = e->info.compute_bytes;
    engine_close(e);
    for (size_t i = 0; i < UNIT_COUNT(larger); i++) {
        mcp_error err;
        int       rc;

        o.ubatch_tokens = larger[i];
        rc = engine_open(&e, m, &o, &err);
        if (rc < 0)
            fail_msg("-b 16 -ub %u: %s", larger[i], err.text);
        assert_int_equal(e->info.ubatch_tokens, 16);
        assert_int_equal(e->info.compute_bytes, bytes);
        engine_close(e);
    }
    model_close(m);
}

/* ---- trim ----------------------------------------------------------------------- */

/* Goal:   trimming lowers the lengths of one sequence, never raises one.
 * Method: layers of unequal length; positions below, between, at and beyond them. */
static void trimming_forgets_one_sequences_end(void **state)
{
    struct mcp_model  *m = run_model(tiny());
    mcp_engine_opts    o = run_opts();
    struct mcp_engine *e;
    int32_t            tokens[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    mcp_window half = { .seq = 1, .pos = 8, .count = 5, .tokens = tokens, .out = MCP_OUT_NONE };
    mcp_error  err;

    (void)state;
    o.seqs = 2;
    e = run_engine(m, &o);
    run_append(e, 0, tokens, 8, NULL);
    run_append(e, 1, tokens, 8, NULL);
    unit_ok(engine_forward(e, 0, 2, MCP_WANT_HIDDEN, &half, 1, NULL, 0, &err), &err);
    assert_int_equal(*engine_kv_length(&e->shards[0].kv, 1, 1), 13);
    assert_int_equal(*engine_kv_length(&e->shards[0].kv, 1, 2), 8);

    unit_ok(engine_trim(e, 1, 100, &err), &err);
    unit_ok(engine_trim(e, 1, 13, &err), &err);
    assert_int_equal(*engine_kv_length(&e->shards[0].kv, 1, 1), 13);
    unit_ok(engine_trim(e, 1, 10, &err), &err);
    assert_int_equal(*engine_kv_length(&e->shards[0].kv, 1, 1), 10);
    assert_int_equal(*engine_kv_length(&e->shards[0].kv, 1, 2), 8);
    unit_ok(engine_trim(e, 1, 3, &err), &err);
    run_lengths(e, 1, 3);
    run_lengths(e, 0, 8);
    unit_ok(engine_trim(e, 0, 0, &err), &err);
    run_lengths(e, 0, 0);
    unit_refused(engine_trim(e, 2, 0, &err), MCP_ERANGE, &err, "sequence 2: the engine has 2");
    run_lengths(e, 1, 3);
    engine_close(e);
    model_close(m);
}

/* ---- memory --------------------------------------------------------------------- */

/* Goal:   memory for rows is aligned, all usable, and impossible sizes are NULL. */
static void memory_for_rows_is_aligned_and_bounded(void **state)
{
    static const size_t counts[] = { 0, 1, 15, 4096, 1 << 20 };
    struct mcp_model   *m = run_model(tiny());
    mcp_engine_opts     o = run_opts();
    struct mcp_engine  *e = run_engine(m, &o);

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(counts); i++) {
        float *floats = engine_alloc(e, counts[i]);

        assert_non_null(floats);
        assert_int_equal((uintptr_t)floats % 16, 0);
        memset(floats, 0x5a, counts[i] * sizeof(float));
        engine_free(floats);
    }
    assert_null(engine_alloc(e, SIZE_MAX));
    assert_null(engine_alloc(e, SIZE_MAX / 4));
    assert_null(engine_alloc(e, SIZE_MAX / 2 + 2)); /* a product that wraps to little */
#if !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__) /* which end the program instead of returning NULL */
    assert_null(engine_alloc(e, SIZE_MAX / 4 - 16));
    assert_null(engine_alloc(e, SIZE_MAX / 8));
#endif
    engine_free(NULL);
    engine_close(e);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_outside_their_limits_are_refused),
        cmocka_unit_test(impossible_devices_and_combinations_are_refused),
        cmocka_unit_test(the_description_says_what_was_opened),
        cmocka_unit_test(even_windows_hold_where_asked_for),
        cmocka_unit_test(a_ubatch_above_the_batch_is_the_batch),
        cmocka_unit_test(trimming_forgets_one_sequences_end),
        cmocka_unit_test(memory_for_rows_is_aligned_and_bounded),
    };

    return cmocka_run_group_tests_name("engine/engine", tests, NULL, NULL);
}
