/* engine/state_test.c - a sequence's KV as bytes: what may come in, and what may not.
 *
 * SPDX-License-Identifier: MIT */
#include "base/sha256.h"
#include "engine/engine.h"
#include "engine/run_test.h"

enum { HEADER = 80, SUM = BASE_SHA256_BYTES, POSITIONS = 6 };

static const int32_t tokens[16] = { 5, 17, 99, 3, 250, 251, 7, 8, 1, 2, 3, 4, 9, 11, 13, 15 };

static struct mcp_model *model;

static int model_begin(void **state)
{
    (void)state;
    model = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    return 0;
}

static int model_end(void **state)
{
    (void)state;
    model_close(model);
    return 0;
}

/* An engine whose sequence 0 has POSITIONS positions; two sequences. */
static struct mcp_engine *begun(const struct mcp_model *m, mcp_engine_opts o)
{
    struct mcp_engine *e;

    o.seqs = 2;
    e = run_engine(m, &o);
    run_append(e, 0, tokens, POSITIONS, NULL);
    return e;
}

static uint8_t *export(struct mcp_engine *e, uint32_t seq, uint32_t first, uint32_t last,
                       uint32_t pos_first, uint32_t pos_last, size_t *bytes)
{
    uint8_t  *block;
    mcp_error err;
    size_t    room;

    *bytes = 0;
    unit_ok(engine_export(e, seq, first, last, pos_first, pos_last, NULL, bytes, &err), &err);
    room = *bytes + 5; /* more than needed: *bytes must come back exact */
    block = malloc(room);
    assert_non_null(block);
    memset(block, 0x5a, room);
    unit_ok(engine_export(e, seq, first, last, pos_first, pos_last, block, &room, &err), &err);
    assert_int_equal(room, *bytes);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(block[*bytes + i], 0x5a);
    return block;
}

static void seal(uint8_t *block, size_t bytes)
{
    struct base_sha256 *h = base_sha256_new();

    base_sha256_add(h, block, bytes - SUM);
    assert_int_equal(base_sha256_finish(h, block + bytes - SUM, NULL), MCP_OK);
}

static void put_u32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
           (uint32_t)from[3] << 24;
}

/* Goal:   the block is laid out as state.c says, byte for byte.
 * Method: header fields spelt out, the digest made again, rows read from the store. */
static void the_block_is_laid_out_as_documented(void **state)
{
    struct mcp_engine      *e = begun(model, run_opts());
    const struct engine_kv *kv = &e->shards[0].kv;
    uint8_t                 print[MCP_FINGERPRINT_BYTES], rows[POSITIONS * 256], *again;
    const uint8_t          *at;
    size_t                  bytes;
    uint8_t                *block = export(e, 0, 1, 3, 2, 5, &bytes);
    static const uint32_t numbers[] = { 1, 3, 2, 5, GGML_TYPE_F16, GGML_TYPE_F16, 256, 256, 0, 0 };

    (void)state;
    assert_int_equal(bytes, HEADER + 2 * 3 * (256 + 256) + SUM);
    assert_memory_equal(block, "mcp-kv-1", 8);
    assert_int_equal(model_fingerprint(model, print, NULL), MCP_OK);
    assert_memory_equal(block + 8, print, sizeof(print));
    for (size_t i = 0; i < UNIT_COUNT(numbers); i++)
        assert_int_equal(get_u32(block + 40 + 4 * i), numbers[i]);
    at = block + HEADER;
    for (uint32_t layer = 1; layer < 3; layer++)
        for (int v = 0; v < 2; v++, at += 3 * 256) {
            assert_int_equal(engine_kv_read(kv, 0, layer, v != 0, 2, 3, rows, NULL), MCP_OK);
            assert_memory_equal(at, rows, 3 * 256);
        }
    again = malloc(bytes);
    assert_non_null(again);
    memcpy(again, block, bytes);
    seal(again, bytes);
    assert_memory_equal(again, block, bytes);
    free(again);
    free(block);
    engine_close(e);
}

/* Goal:   the header tells every type and rotation of the store.
 * Method: each KV type, and heads of 64 whose quantised rows are rotated. */
static void the_header_tells_types_and_rotation(void **state)
{
    static const struct {
        const char *shape;
        mcp_kv_type k, v;
        uint32_t    numbers[6]; /* types, row bytes, flags */
    } rows[] = {
        { "tiny-llama", MCP_KV_F32, MCP_KV_F32, { GGML_TYPE_F32, GGML_TYPE_F32, 512, 512, 0, 0 } },
        { "tiny-llama",
          MCP_KV_Q8_0,
          MCP_KV_F16,
          { GGML_TYPE_Q8_0, GGML_TYPE_F16, 136, 256, 0, 0 } },
        { "tiny-llama-256",
          MCP_KV_Q8_0,
          MCP_KV_F16,
          { GGML_TYPE_Q8_0, GGML_TYPE_F16, 136, 256, 1, 0 } },
        { "tiny-llama-256",
          MCP_KV_F16,
          MCP_KV_Q8_0,
          { GGML_TYPE_F16, GGML_TYPE_Q8_0, 256, 136, 2, 0 } },
        { "tiny-llama-256",
          MCP_KV_Q8_0,
          MCP_KV_Q8_0,
          { GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, 136, 136, 3, 0 } },
        { "tiny-deepseek2-mla",
          MCP_KV_F16,
          MCP_KV_F16,
          { GGML_TYPE_F16, GGML_TYPE_F16, 160, 0, 0, 0 } },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct mcp_model  *m = run_model(unit_synth("kind.gguf", rows[i].shape, "f16", NULL));
        mcp_engine_opts    o = run_opts();
        struct mcp_engine *e;
        uint8_t           *block;
        size_t             bytes;

        o.kv_k = rows[i].k;
        o.kv_v = rows[i].v;
        e = begun(m, o);
        block = export(e, 0, 0, 1, 0, POSITIONS, &bytes);
        for (size_t n = 0; n < 6; n++)
            assert_int_equal(get_u32(block + 56 + 4 * n), rows[i].numbers[n]);
        assert_int_equal(engine_import(e, 1, block, bytes, NULL), MCP_OK);
        free(block);
        engine_close(e);
        model_close(m);
    }
}

/* Goal:   a block says the same whether V lies transposed or not: one engine's block goes
 *         through the other's store unchanged. */
static void blocks_do_not_depend_on_flash_attention(void **state)
{
    mcp_engine_opts    o = run_opts();
    struct mcp_engine *with = begun(model, o), *without;
    size_t             bytes, again;
    uint8_t           *block = export(with, 0, 0, 4, 0, POSITIONS, &bytes), *copy;
    mcp_error          err;

    (void)state;
    o.flash = MCP_FLASH_OFF;
    without = begun(model, o);
    unit_ok(engine_import(without, 1, block, bytes, &err), &err);
    copy = export(without, 1, 0, 4, 0, POSITIONS, &again);
    assert_int_equal(again, bytes);
    assert_memory_equal(block, copy, bytes);
    run_lengths(without, 1, POSITIONS);
    free(block);
    free(copy);
    engine_close(with);
    engine_close(without);
}

/* Goal:   no damaged byte passes.
 * Method: a block of one layer and two positions, each of its bytes changed in turn, in one
 *         bit and in all. */
static void any_changed_byte_is_noticed(void **state)
{
    struct mcp_engine *e = begun(model, run_opts());
    size_t             bytes;
    uint8_t           *block = export(e, 0, 2, 3, 0, 2, &bytes);

    (void)state;
    for (size_t i = 0; i < bytes; i++) {
        static const uint8_t masks[] = { 1, 0x80, 0xff };

        for (size_t k = 0; k < UNIT_COUNT(masks); k++) {
            mcp_error err;
            int       rc;

            block[i] ^= masks[k];
            rc = engine_import(e, 1, block, bytes, &err);
            block[i] ^= masks[k];
            if (rc != (i < 8 ? MCP_EFORMAT : MCP_ECORRUPT) || err.code != rc || err.text[0] == '\0')
                fail_msg("byte %zu of %zu changed by %#x: %s", i, bytes, masks[k],
                         mcp_code_name(rc));
        }
    }
    run_lengths(e, 1, 0);
    assert_int_equal(engine_import(e, 1, block, bytes, NULL), MCP_OK);
    assert_int_equal(*engine_kv_length(&e->shards[0].kv, 1, 2), 2);
    assert_int_equal(*engine_kv_length(&e->shards[0].kv, 1, 1), 0);
    free(block);
    engine_close(e);
}

/* Goal:   a block cut at any byte, or followed by others, is refused.
 * Method: each length in memory of exactly that length, with and without a fresh digest. */
static void a_block_of_another_length_is_refused(void **state)
{
    struct mcp_engine *e = begun(model, run_opts());
    size_t             bytes;
    uint8_t           *block = export(e, 0, 2, 3, 0, 2, &bytes);

    (void)state;
    for (size_t length = 0; length <= bytes + 40; length++) {
        uint8_t  *cut = malloc(length > 0 ? length : 1);
        mcp_error err;
        int       rc;

        assert_non_null(cut);
        memset(cut, 0, length);
        memcpy(cut, block, length < bytes ? length : bytes);
        if (length == bytes) {
            free(cut);
            continue;
        }
        rc = engine_import(e, 1, cut, length, &err);
        assert_true(rc == MCP_EFORMAT || rc == MCP_ECORRUPT);
        assert_true(err.text[0] != '\0');
        if (length >= HEADER + SUM) {
            seal(cut, length);
            unit_refused(engine_import(e, 1, cut, length, &err), MCP_EFORMAT, &err, "should have");
        }
        free(cut);
    }
    run_lengths(e, 1, 0);
    free(block);
    engine_close(e);
}

/* Goal:   a sealed block with another header is refused for what it says: whoever made it
 *         may be hostile.
 * Method: each field set to neighbouring and extreme values, sealed again. */
static void a_sealed_block_with_another_header_is_refused(void **state)
{
    static const struct {
        size_t      offset;
        uint32_t    value;
        int         code;
        const char *about;
    } rows[] = {
        { 8, 0x12345678, MCP_EFORMAT, "another model" },
        { 36, 0, MCP_EFORMAT, "another model" },
        { 40, 3, MCP_ERANGE, "layers [3, 3)" },
        { 40, 1, MCP_EFORMAT, "should have" },
        { 40, UINT32_MAX, MCP_ERANGE, "layers [4294967295, 3)" },
        { 44, 2, MCP_ERANGE, "layers [2, 2)" },
        { 44, 4, MCP_EFORMAT, "should have" },
        { 44, 5, MCP_ERANGE, "layers [2, 5)" },
        { 44, UINT32_MAX, MCP_ERANGE, "layers" },
        { 48, 3, MCP_ERANGE, "positions [3, 2)" },
        { 48, 1, MCP_EFORMAT, "should have" },
        { 52, 3, MCP_EFORMAT, "should have" },
        { 52, 257, MCP_ERANGE, "exceed the context of 256" },
        { 52, UINT32_MAX, MCP_ERANGE, "exceed the context" },
        { 56, GGML_TYPE_Q8_0, MCP_EFORMAT, "set -ctk and -ctv" },
        { 60, GGML_TYPE_F32, MCP_EFORMAT, "set -ctk and -ctv" },
        { 56, 9999, MCP_EFORMAT, "types ? and f16" },
        { 60, UINT32_MAX, MCP_EFORMAT, "types f16 and ?" },
        { 64, 255, MCP_EFORMAT, "types" },
        { 68, 0, MCP_EFORMAT, "types" },
        { 72, 1, MCP_EFORMAT, "types" },
        { 76, 1, MCP_EFORMAT, "types" },
    };
    struct mcp_engine *e = begun(model, run_opts());
    size_t             bytes;
    uint8_t           *block = export(e, 0, 2, 3, 0, 2, &bytes), *changed = malloc(bytes);

    (void)state;
    assert_non_null(changed);
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        mcp_error err;

        memcpy(changed, block, bytes);
        put_u32(changed + rows[i].offset, rows[i].value);
        seal(changed, bytes);
        unit_refused(engine_import(e, 1, changed, bytes, &err), rows[i].code, &err, rows[i].about);
    }
    run_lengths(e, 1, 0);
    free(changed);
    free(block);
    engine_close(e);
}

/* Goal:   an honest digest over numbers that are none does not bring them in.
 * Method: an infinity in the first and in the last element of K and of V, sealed again. */
static void a_sealed_block_of_infinities_is_refused(void **state)
{
    struct mcp_engine *e = begun(model, run_opts());
    size_t             bytes;
    uint8_t           *block = export(e, 0, 2, 4, 0, 2, &bytes);
    const size_t       ends[] = { HEADER, HEADER + 510, HEADER + 512, bytes - SUM - 2 };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(ends); i++) {
        uint8_t   was = block[ends[i] + 1];
        mcp_error err;

        block[ends[i] + 1] |= 0x7c;
        seal(block, bytes);
        unit_refused(engine_import(e, 1, block, bytes, &err), MCP_EFORMAT, &err, "NaN or infinity");
        block[ends[i] + 1] = was;
    }
    run_lengths(e, 1, 0);
    seal(block, bytes);
    assert_int_equal(engine_import(e, 1, block, bytes, NULL), MCP_OK);
    free(block);
    engine_close(e);
}

/* Goal:   only a block of this model and these types comes in; its quantisation may differ. */
static void blocks_of_another_model_or_type_are_refused(void **state)
{
    struct mcp_model *seed = run_model(
        unit_synth("s.gguf", "tiny-llama", "q4_0", "--seed", "2", NULL));
    struct mcp_model  *f16 = run_model(unit_synth("f16.gguf", "tiny-llama", "f16", NULL));
    mcp_engine_opts    o = run_opts();
    struct mcp_engine *e = begun(model, o), *other;
    size_t             bytes;
    uint8_t           *block = export(e, 0, 0, 4, 0, POSITIONS, &bytes);
    mcp_error          err;

    (void)state;
    other = begun(seed, o);
    unit_refused(engine_import(other, 1, block, bytes, &err), MCP_EFORMAT, &err, "another model");
    run_lengths(other, 1, 0);
    engine_close(other);
    other = begun(f16, o);
    unit_ok(engine_import(other, 1, block, bytes, &err), &err);
    run_lengths(other, 1, POSITIONS);
    engine_close(other);
    o.kv_k = MCP_KV_Q8_0;
    other = begun(model, o);
    unit_refused(engine_import(other, 1, block, bytes, &err), MCP_EFORMAT, &err,
                 "types f16 and f16, this engine q8_0 and f16");
    run_lengths(other, 1, 0);
    engine_close(other);
    free(block);
    engine_close(e);
    model_close(seed);
    model_close(f16);
}

/* Goal:   a block is appended: it must begin where every one of its layers ends.  Nothing
 *         changes when one layer does not fit. */
static void a_block_must_continue_the_sequence(void **state)
{
    mcp_engine_opts    o = run_opts();
    struct mcp_engine *e = begun(model, o);
    size_t             head_bytes, tail_bytes, upper_bytes, again;
    uint8_t           *head = export(e, 0, 0, 4, 0, 4, &head_bytes);
    uint8_t           *tail = export(e, 0, 0, 4, 4, POSITIONS, &tail_bytes);
    uint8_t           *upper = export(e, 0, 2, 4, 4, POSITIONS, &upper_bytes), *copy, *whole;
    mcp_error          err;

    (void)state;
    unit_refused(engine_import(e, 1, tail, tail_bytes, &err), MCP_ERANGE, &err,
                 "begins at position 4, sequence 1 has 0 in layer 0");
    unit_refused(engine_import(e, 0, head, head_bytes, &err), MCP_ERANGE, &err, "has 6 in layer 0");
    unit_refused(engine_import(e, 2, head, head_bytes, &err), MCP_ERANGE, &err, "sequence 2");
    run_lengths(e, 0, POSITIONS);
    run_lengths(e, 1, 0);
    unit_ok(engine_import(e, 1, head, head_bytes, &err), &err);
    unit_ok(engine_import(e, 1, upper, upper_bytes, &err), &err);
    unit_refused(engine_import(e, 1, tail, tail_bytes, &err), MCP_ERANGE, &err, "has 6 in layer 2");
    assert_int_equal(*engine_kv_length(&e->shards[0].kv, 1, 0), 4);
    assert_int_equal(*engine_kv_length(&e->shards[0].kv, 1, 3), 6);
    unit_ok(engine_trim(e, 1, 4, &err), &err);
    unit_ok(engine_import(e, 1, tail, tail_bytes, &err), &err);
    copy = export(e, 1, 0, 4, 0, POSITIONS, &again);
    whole = export(e, 0, 0, 4, 0, POSITIONS, &head_bytes);
    assert_int_equal(again, head_bytes);
    assert_memory_equal(copy, whole, again);
    free(head);
    free(tail);
    free(upper);
    free(copy);
    free(whole);
    engine_close(e);
}

/* Goal:   who asked for a block takes that one only, of what a peer may send.
 * Method: blocks that engine_import() would take, one off in each of their four bounds; a few bytes;
 *         then the right one.  Nothing changes before. */
static void only_the_block_asked_for_is_taken(void **state)
{
    static const struct engine_block asked = { 1, 3, 0, 4 };
    static const struct engine_block others[] = {
        { 0, 3, 0, 4 }, { 1, 2, 0, 4 }, { 1, 4, 0, 4 }, { 1, 3, 0, 3 }, { 1, 3, 0, 5 },
    };
    struct mcp_engine *e = begun(model, run_opts());
    uint8_t           *block;
    size_t             bytes;
    mcp_error          err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(others); i++) {
        const struct engine_block *o = &others[i];

        block = export(e, 0, o->first, o->last, o->pos_first, o->pos_last, &bytes);
        assert_int_equal(bytes, engine_block_bytes(e, o));
        unit_refused(engine_import_as(e, 1, &asked, block, bytes, &err), MCP_EFORMAT, &err,
                     "asked for");
        unit_refused(engine_import_as(e, 1, &asked, block, 7, &err), MCP_EFORMAT, &err, "7 bytes");
        free(block);
    }
    assert_int_equal(*engine_kv_length(&engine_shard_of(e, 1)->kv, 1, 1), 0);
    block = export(e, 0, 1, 3, 0, 4, &bytes);
    unit_ok(engine_import_as(e, 1, &asked, block, bytes, &err), &err);
    assert_int_equal(*engine_kv_length(&engine_shard_of(e, 1)->kv, 1, 1), 4);
    free(block);
    block = export(e, 0, 1, 3, 3, 5, &bytes); /* what was asked for, but it does not go on there */
    unit_refused(engine_import_as(e, 1, &(struct engine_block){ 1, 3, 3, 5 }, block, bytes, &err),
                 MCP_ERANGE, &err, "begins at position 3");
    free(block);
    engine_close(e);
}

/* Goal:   an engine of some layers takes blocks of those alone. */
static void a_part_of_the_layers_takes_its_own_blocks(void **state)
{
    mcp_engine_opts    o = run_opts();
    struct mcp_engine *e = begun(model, o), *part;
    size_t             in_bytes, out_bytes;
    uint8_t           *in = export(e, 0, 2, 4, 0, POSITIONS, &in_bytes);
    uint8_t           *out = export(e, 0, 1, 4, 0, POSITIONS, &out_bytes);
    mcp_error          err;

    (void)state;
    o.first = 2;
    part = run_engine(model, &o);
    unit_ok(engine_import(part, 0, in, in_bytes, &err), &err);
    run_lengths(part, 0, POSITIONS);
    unit_ok(engine_trim(part, 0, 0, &err), &err);
    unit_refused(engine_import(part, 0, out, out_bytes, &err), MCP_ERANGE, &err,
                 "layers [1, 4) are not a range of the loaded [2, 4)");
    run_lengths(part, 0, 0);
    free(in);
    free(out);
    engine_close(part);
    engine_close(e);
}

/* Goal:   an export that cannot be is refused, and what it would write is untouched; an
 *         empty one is a block that changes nothing. */
static void an_impossible_export_is_refused(void **state)
{
    static const struct {
        uint32_t    seq, first, last, pos_first, pos_last;
        const char *about;
    } rows[] = {
        { 2, 0, 4, 0, 1, "sequence 2" },
        { 0, 0, 5, 0, 1, "layers [0, 5)" },
        { 0, 2, 2, 0, 1, "layers [2, 2)" },
        { 0, 3, 2, 0, 1, "layers [3, 2)" },
        { 0, 0, 4, 3, 2, "positions [3, 2)" },
        { 0, 0, 4, 0, POSITIONS + 1, "sequence 0 has 6 in layer 0" },
        { 0, 0, 4, 0, UINT32_MAX, "sequence 0 has 6 in layer 0" },
        { 1, 0, 4, 0, 1, "sequence 1 has 0 in layer 0" },
    };
    struct mcp_engine *e = begun(model, run_opts());
    size_t             bytes, exact;
    uint8_t           *block = export(e, 0, 0, 4, 0, POSITIONS, &exact);
    mcp_error          err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++)
        for (int buffer = 0; buffer < 2; buffer++) {
            bytes = 12345;
            unit_refused(engine_export(e, rows[i].seq, rows[i].first, rows[i].last,
                                       rows[i].pos_first, rows[i].pos_last, buffer ? block : NULL,
                                       &bytes, &err),
                         MCP_ERANGE, &err, rows[i].about);
            assert_int_equal(bytes, 12345);
        }
    bytes = exact - 1;
    memset(block, 0x5a, exact);
    unit_refused(engine_export(e, 0, 0, 4, 0, POSITIONS, block, &bytes, &err), MCP_EINVAL, &err,
                 "does not fit");
    assert_int_equal(bytes, exact - 1);
    for (size_t i = 0; i < exact; i++)
        assert_int_equal(block[i], 0x5a);
    free(block);
    block = export(e, 0, 0, 4, 3, 3, &bytes);
    assert_int_equal(bytes, HEADER + SUM);
    unit_refused(engine_import(e, 1, block, bytes, &err), MCP_ERANGE, &err, "begins at position 3");
    assert_int_equal(engine_trim(e, 0, 3, NULL), MCP_OK);
    unit_ok(engine_import(e, 0, block, bytes, &err), &err);
    run_lengths(e, 0, 3);
    free(block);
    engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_block_is_laid_out_as_documented),
        cmocka_unit_test(the_header_tells_types_and_rotation),
        cmocka_unit_test(blocks_do_not_depend_on_flash_attention),
        cmocka_unit_test(any_changed_byte_is_noticed),
        cmocka_unit_test(a_block_of_another_length_is_refused),
        cmocka_unit_test(a_sealed_block_with_another_header_is_refused),
        cmocka_unit_test(a_sealed_block_of_infinities_is_refused),
        cmocka_unit_test(blocks_of_another_model_or_type_are_refused),
        cmocka_unit_test(a_block_must_continue_the_sequence),
        cmocka_unit_test(only_the_block_asked_for_is_taken),
        cmocka_unit_test(a_part_of_the_layers_takes_its_own_blocks),
        cmocka_unit_test(an_impossible_export_is_refused),
    };

    return cmocka_run_group_tests_name("engine/state", tests, model_begin, model_end);
}
