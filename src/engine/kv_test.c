/* engine/kv_test.c - rows go into the store and come out, in every layout.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/kv.h"

#include "base/unit_test.h"

#include <math.h>

enum { LAYERS = 3, SEQS = 3, CTX = 300, FIRST = 5, HEADS_KV = 2, HEAD = 64 };

static struct engine_device *device;

static int device_begin(void **state)
{
    mcp_error err;

    (void)state;
    return engine_device_open(&device, "cpu", 1, 50, &err) < 0;
}

static int device_end(void **state)
{
    (void)state;
    engine_device_close(device);
    return 0;
}

static struct model_hparams shape(bool mla)
{
    struct model_hparams hp = {
        .n_layer = 16, .n_head = 4, .n_head_kv = HEADS_KV, .head_k = HEAD, .head_v = HEAD
    };

    if (mla) {
        hp.mla = true;
        hp.n_head_kv = 1;
        hp.head_k = 96;
    }
    return hp;
}

static void must_open(struct engine_kv *kv, bool mla, enum ggml_type type_k, enum ggml_type type_v,
                      bool flash)
{
    struct model_hparams hp = shape(mla);
    mcp_error            err;

    unit_ok(engine_kv_open(kv, &hp, FIRST, FIRST + LAYERS, SEQS, CTX, type_k, type_v, flash, device,
                           &err),
            &err);
}

/* Goal:   the attention's column count is the next multiple of 256. */
static void positions_are_rounded_up_to_256(void **state)
{
    static const uint32_t rows[][2] = { { 0, 0 },     { 1, 256 },   { 255, 256 },
                                        { 256, 256 }, { 257, 512 }, { 1 << 28, 1 << 28 } };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++)
        assert_int_equal(engine_kv_pad(rows[i][0]), rows[i][1]);
}

/* Goal:   a row's bytes follow its type; the store's bytes are rows x layers x sequences. */
static void row_bytes_follow_the_type(void **state)
{
    static const struct {
        enum ggml_type type;
        size_t         bytes; /* of 128 floats */
    } rows[] = { { GGML_TYPE_F16, 256 }, { GGML_TYPE_Q8_0, 136 }, { GGML_TYPE_F32, 512 } };
    struct engine_kv kv;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        must_open(&kv, false, rows[i].type, GGML_TYPE_F16, true);
        assert_int_equal(kv.ctx, 512);
        assert_int_equal(engine_kv_row_bytes(&kv, false), rows[i].bytes);
        assert_int_equal(engine_kv_row_bytes(&kv, true), 256);
        assert_int_equal(engine_kv_bytes(&kv), (rows[i].bytes + 256) * 512 * SEQS * LAYERS);
        engine_kv_close(&kv);
    }
    must_open(&kv, true, GGML_TYPE_F16, GGML_TYPE_F16, true);
    assert_int_equal(engine_kv_row_bytes(&kv, false), 192);
    assert_int_equal(engine_kv_row_bytes(&kv, true), 0); /* V is a view of K */
    assert_null(kv.v[0]);
    engine_kv_close(&kv);
    engine_kv_close(&kv); /* a zeroed one is fine */
}

/* Goal:   every row written is read again, alone and in runs, and no neighbour changes.
 * Method: all rows of all layers and sequences filled with random bytes in a random order of
 *         runs, kept beside in plain arrays, and read in other runs.
 * Replay: MCP_SEED=N ./dev test rows_come_out_as_they_went_in */
static void rows_come_out_as_they_went_in(void **state)
{
    static const struct {
        enum ggml_type k, v;
        bool           flash, mla;
    } layouts[] = {
        { GGML_TYPE_F16, GGML_TYPE_F16, true, false },
        { GGML_TYPE_F16, GGML_TYPE_F16, false, false },
        { GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, true, false },
        { GGML_TYPE_Q8_0, GGML_TYPE_F16, false, false },
        { GGML_TYPE_F32, GGML_TYPE_F32, false, false },
        { GGML_TYPE_F32, GGML_TYPE_F16, true, false },
        { GGML_TYPE_F16, GGML_TYPE_F16, true, true },
        { GGML_TYPE_F16, GGML_TYPE_F16, false, true },
    };
    uint64_t rng = unit_seed();

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(layouts); i++) {
        struct engine_kv kv;
        uint8_t         *truth[SEQS][LAYERS][2], *got;
        size_t           row[2];

        must_open(&kv, layouts[i].mla, layouts[i].k, layouts[i].v, layouts[i].flash);
        for (int v = 0; v < 2; v++)
            row[v] = engine_kv_row_bytes(&kv, v != 0);
        got = malloc(CTX * (row[0] + row[1]));
        assert_non_null(got);
        for (int s = 0; s < SEQS; s++)
            for (int l = 0; l < LAYERS; l++)
                for (int v = 0; v < 2; v++) {
                    truth[s][l][v] = calloc(CTX, row[v] + 1); /* the store begins with zeros */
                    assert_non_null(truth[s][l][v]);
                }
        for (int round = 0; round < 400; round++) {
            uint32_t s = unit_below(&rng, SEQS), l = unit_below(&rng, LAYERS),
                     v = unit_below(&rng, 2);
            uint32_t  pos = unit_below(&rng, CTX), count = unit_below(&rng, CTX - pos + 1);
            uint8_t  *rows = truth[s][l][v] + pos * row[v];
            mcp_error err;

            if (round % 2 == 0) {
                for (size_t b = 0; b < count * row[v]; b++)
                    rows[b] = (uint8_t)unit_next(&rng);
                unit_ok(engine_kv_write(&kv, s, FIRST + l, v != 0, pos, count, rows, &err), &err);
            } else {
                memset(got, 0x5a, CTX * row[v]);
                unit_ok(engine_kv_read(&kv, s, FIRST + l, v != 0, pos, count, got, &err), &err);
                if (memcmp(got, rows, count * row[v]) != 0)
                    fail_msg("layout %zu: rows [%u,%u) differ: seed=%" PRIu64, i, pos, pos + count,
                             unit_seed());
            }
        }
        for (int s = 0; s < SEQS; s++)
            for (int l = 0; l < LAYERS; l++)
                for (int v = 0; v < 2; v++) {
                    assert_int_equal(engine_kv_read(&kv, (uint32_t)s, (uint32_t)(FIRST + l), v != 0,
                                                    0, CTX, got, NULL),
                                     0);
                    assert_memory_equal(got, truth[s][l][v], CTX * row[v]);
                    free(truth[s][l][v]);
                }
        free(got);
        engine_kv_close(&kv);
    }
}

/* Goal:   the layouts are what the attention expects: with flash attention a V row lies in
 *         one piece, without it element j of position p is at (seq, j, p).
 * Method: one position written, then looked for in the tensor's memory. */
static void without_flash_attention_v_is_transposed(void **state)
{
    enum { SEQ = 2, POS = 37, WIDTH = HEADS_KV * HEAD };

    (void)state;
    for (int flash = 0; flash < 2; flash++) {
        struct engine_kv kv;
        uint16_t         row[WIDTH];
        const uint16_t  *k, *v;
        size_t           set = 0;

        must_open(&kv, false, GGML_TYPE_F16, GGML_TYPE_F16, flash != 0);
        for (size_t j = 0; j < WIDTH; j++)
            row[j] = (uint16_t)(1000 + j);
        for (int side = 0; side < 2; side++)
            assert_int_equal(
                engine_kv_write(&kv, SEQ, FIRST + 1, side != 0, POS, 1, (const uint8_t *)row, NULL),
                0);
        k = kv.k[1]->data;
        v = kv.v[1]->data;
        for (size_t j = 0; j < WIDTH; j++) {
            assert_int_equal(k[((size_t)SEQ * kv.ctx + POS) * WIDTH + j], row[j]);
            assert_int_equal(v[flash ? ((size_t)SEQ * kv.ctx + POS) * WIDTH + j
                                     : ((size_t)SEQ * WIDTH + j) * kv.ctx + POS],
                             row[j]);
        }
        for (size_t j = 0; j < (size_t)SEQS * kv.ctx * WIDTH; j++)
            set += v[j] != 0;
        assert_int_equal(set, WIDTH); /* and nothing else was touched */
        engine_kv_close(&kv);
    }
}

/* Goal:   quantised rows are rotated by a matrix that is its own inverse; K takes the largest
 *         block of its head, V the smallest; nothing else is rotated. */
static void quantised_rows_have_a_rotation_that_undoes_itself(void **state)
{
    struct model_hparams hp = shape(false);
    struct engine_kv     kv;
    mcp_error            err;

    (void)state;
    hp.head_k = 256;
    hp.head_v = 128;
    unit_ok(
        engine_kv_open(&kv, &hp, 0, 1, 1, 10, GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, true, device, &err),
        &err);
    assert_int_equal(kv.rot_k->ne[0], 256);
    assert_int_equal(kv.rot_v->ne[0], 64);
    for (int side = 0; side < 2; side++) {
        const struct ggml_tensor *t = side ? kv.rot_v : kv.rot_k;
        const float              *m = t->data;
        size_t                    n = (size_t)t->ne[0];

        for (size_t i = 0; i < n; i++) {
            for (size_t j = 0; j < n; j++) {
                double sum = 0.0;

                for (size_t l = 0; l < n; l++)
                    sum += (double)m[i * n + l] * (double)m[l * n + j];
                assert_true(fabs(sum - (i == j)) < 1e-5);
            }
        }
    }
    engine_kv_close(&kv);

    hp.head_k = hp.head_v = 96; /* no power of two from 64 on divides it */
    unit_ok(
        engine_kv_open(&kv, &hp, 0, 1, 1, 10, GGML_TYPE_Q8_0, GGML_TYPE_F16, true, device, &err),
        &err);
    assert_null(kv.rot_k);
    assert_null(kv.rot_v);
    engine_kv_close(&kv);
    must_open(&kv, true, GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, true);
    assert_null(kv.rot_k); /* latents are left as they are */
    engine_kv_close(&kv);
    must_open(&kv, false, GGML_TYPE_F16, GGML_TYPE_F16, true);
    assert_null(kv.rot_k);
    assert_null(kv.rot_v);
    engine_kv_close(&kv);
}

/* Goal:   lengths start at zero and are one number a sequence and layer. */
static void every_layer_of_a_sequence_has_its_own_length(void **state)
{
    struct engine_kv kv;

    (void)state;
    must_open(&kv, false, GGML_TYPE_F16, GGML_TYPE_F16, true);
    for (uint32_t s = 0; s < SEQS; s++)
        for (uint32_t l = FIRST; l < FIRST + LAYERS; l++) {
            assert_int_equal(*engine_kv_length(&kv, s, l), 0);
            *engine_kv_length(&kv, s, l) = 100 * s + l;
        }
    for (uint32_t s = 0; s < SEQS; s++)
        for (uint32_t l = FIRST; l < FIRST + LAYERS; l++)
            assert_int_equal(*engine_kv_length(&kv, s, l), 100 * s + l);
    engine_kv_close(&kv);
}

/* Every byte of all rows of all sequences is 0x5a, and counts as written up to row 100. */
static void fill_store(struct engine_kv *kv)
{
    size_t   bytes = CTX * (engine_kv_row_bytes(kv, false) + engine_kv_row_bytes(kv, true));
    uint8_t *rows = malloc(bytes);

    assert_non_null(rows);
    memset(rows, 0x5a, bytes);
    for (uint32_t s = 0; s < SEQS; s++) {
        engine_kv_claim(kv, s, FIRST, FIRST + LAYERS, 100);
        for (uint32_t l = FIRST; l < FIRST + LAYERS; l++)
            for (int v = 0; v < 2; v++)
                assert_int_equal(engine_kv_write(kv, s, l, v != 0, 0, CTX, rows, NULL), MCP_OK);
    }
    free(rows);
}

/* Rows [from, to) of one layer are zero, all others as they were filled; but a transposed V is
 * cleared whole or from a row on. */
static void zeroed(const struct engine_kv *kv, uint32_t seq, uint32_t layer, uint32_t from,
                   uint32_t to)
{
    for (int v = 0; v < 2; v++) {
        size_t   row = engine_kv_row_bytes(kv, v != 0);
        uint32_t end = v && !kv->flash && from == 0 && to > 0 ? CTX : to;
        uint8_t *got = malloc(CTX * row + 1);

        assert_non_null(got);
        assert_int_equal(engine_kv_read(kv, seq, layer, v != 0, 0, CTX, got, NULL), MCP_OK);
        for (size_t b = 0; b < CTX * row; b++)
            if (got[b] != (b >= from * row && b < end * row ? 0 : 0x5a))
                fail_msg("sequence %u, layer %u, %s: row %zu is %#x", seq, layer, v ? "V" : "K",
                         b / row, got[b]);
        free(got);
    }
}

/* Goal:   claiming rows zeroes what a longer past left behind them, in the layers claimed, and
 *         no other byte; clearing zeroes all that was written.
 * Method: all rows of all sequences filled, 100 of them written; V transposed, plain and
 *         absent. */
static void rows_that_were_given_up_are_zeroed(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct engine_kv kv;
        const uint32_t   second = FIRST + 1, last = FIRST + LAYERS;

        must_open(&kv, kind == 2, GGML_TYPE_F16, GGML_TYPE_F16, kind != 1);
        fill_store(&kv);
        engine_kv_claim(&kv, 1, FIRST, last, 100); /* just as far: nothing is left behind */
        zeroed(&kv, 1, FIRST, 0, 0);
        engine_kv_claim(&kv, 1, FIRST, second, 30);
        zeroed(&kv, 1, FIRST, 30, 100);
        assert_int_equal(*engine_kv_written(&kv, 1, FIRST), 30);
        engine_kv_claim(&kv, 1, FIRST, second, 60); /* further: they are overwritten */
        zeroed(&kv, 1, FIRST, 30, 100);
        assert_int_equal(*engine_kv_written(&kv, 1, FIRST), 60);
        engine_kv_claim(&kv, 1, second, last, 99);
        for (uint32_t l = second; l < last; l++)
            zeroed(&kv, 1, l, 99, 100);
        engine_kv_clear(&kv, 1);
        for (uint32_t l = FIRST; l < last; l++)
            assert_int_equal(*engine_kv_written(&kv, 1, l), 0);
        for (uint32_t l = FIRST; l < last; l++)
            zeroed(&kv, 1, l, 0, 100);
        for (uint32_t s = 0; s < SEQS; s += 2)
            for (uint32_t l = FIRST; l < last; l++)
                zeroed(&kv, s, l, 0, 0);
        engine_kv_close(&kv);
    }
}

/* Goal:   a NaN or an infinity is found in any element, or scale, of each type; the largest
 *         finite number, and a q8_0 block's bytes of any value, are none. */
static void rows_that_are_not_finite_are_found(void **state)
{
    static const struct {
        enum ggml_type type;
        size_t         step, bytes; /* between numbers, in a number */
        uint32_t       bad[4], good[3];
    } rows[] = {
        { GGML_TYPE_F16, 2, 2, { 0x7c00, 0xfc00, 0x7e00, 0xffff }, { 0x7bff, 0xfbff, 0x0001 } },
        { GGML_TYPE_F32,
          4,
          4,
          { 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001 },
          { 0x7f7fffff, 0xff7fffff, 0x00000001 } },
        { GGML_TYPE_Q8_0, 34, 2, { 0x7c00, 0xfc00, 0x7e00, 0xffff }, { 0x7bff, 0xfbff, 0x0001 } },
    };
    uint8_t bytes[34 * 8];

    (void)state;
    for (size_t r = 0; r < UNIT_COUNT(rows); r++) {
        for (size_t at = 0; at < sizeof(bytes); at += rows[r].step) {
            memset(bytes, rows[r].type == GGML_TYPE_Q8_0 ? 0xff : 0, sizeof(bytes));
            for (size_t b = 0; b < sizeof(bytes); b += rows[r].step)
                memset(bytes + b, 0, rows[r].bytes);
            assert_true(engine_kv_finite(rows[r].type, bytes, sizeof(bytes)));
            for (size_t i = 0; i < 3; i++) {
                memcpy(bytes + at, &rows[r].good[i], rows[r].bytes);
                assert_true(engine_kv_finite(rows[r].type, bytes, sizeof(bytes)));
            }
            for (size_t i = 0; i < 4; i++) {
                memcpy(bytes + at, &rows[r].bad[i], rows[r].bytes);
                assert_false(engine_kv_finite(rows[r].type, bytes, sizeof(bytes)));
            }
        }
        assert_true(engine_kv_finite(rows[r].type, bytes, 0));
    }
}

/* Goal:   combinations that cannot be stored or computed are refused with what to change. */
static void impossible_stores_are_refused(void **state)
{
    struct model_hparams hp = shape(false);
    struct engine_kv     kv;
    mcp_error            err;

    (void)state;
    unit_refused(
        engine_kv_open(&kv, &hp, 0, 1, 1, 10, GGML_TYPE_F16, GGML_TYPE_Q8_0, false, device, &err),
        MCP_ENOTSUP, &err, "-ctv q8_0 needs flash attention");
    assert_null(kv.length);
    {
        struct model_hparams latent = shape(true);

        unit_refused(engine_kv_open(&kv, &latent, 0, 1, 1, 10, GGML_TYPE_F16, GGML_TYPE_Q8_0, true,
                                    device, &err),
                     MCP_ENOTSUP, &err, "-ctk f16 and -ctv q8_0 must be the same");
    }
    hp.head_k = 40;
    unit_refused(
        engine_kv_open(&kv, &hp, 0, 1, 1, 10, GGML_TYPE_Q8_0, GGML_TYPE_F16, true, device, &err),
        MCP_ENOTSUP, &err, "-ctk q8_0 needs a head size that is a multiple of 32");
    hp.head_k = 64;
    hp.head_v = 40;
    unit_refused(
        engine_kv_open(&kv, &hp, 0, 1, 1, 10, GGML_TYPE_F16, GGML_TYPE_Q8_0, true, device, &err),
        MCP_ENOTSUP, &err, "-ctv q8_0");
    hp.head_v = 64;
    unit_refused(engine_kv_open(&kv, &hp, 0, 16, 4096, MODEL_CTX_MAX, GGML_TYPE_F16, GGML_TYPE_F16,
                                true, device, &err),
                 MCP_ENOMEM, &err, "lower -c");
    assert_null(kv.buffer);
    assert_null(kv.length);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(positions_are_rounded_up_to_256),
        cmocka_unit_test(row_bytes_follow_the_type),
        cmocka_unit_test(rows_come_out_as_they_went_in),
        cmocka_unit_test(without_flash_attention_v_is_transposed),
        cmocka_unit_test(quantised_rows_have_a_rotation_that_undoes_itself),
        cmocka_unit_test(every_layer_of_a_sequence_has_its_own_length),
        cmocka_unit_test(rows_that_were_given_up_are_zeroed),
        cmocka_unit_test(rows_that_are_not_finite_are_found),
        cmocka_unit_test(impossible_stores_are_refused),
    };

    return cmocka_run_group_tests_name("engine/kv", tests, device_begin, device_end);
}
