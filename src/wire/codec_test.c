/* wire/codec_test.c - the table of codecs: sizes, errors, and bytes that never change.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/codec.h"

#include "base/sha256.h"
#include "base/unit_test.h"

#include <math.h>

enum { ELEMS_MAX = 4096 };

/* Widths of hidden states: SmolLM2, 2B models, Qwen2 7B, Llama 7B and 8B. */
static const size_t WIDTHS[] = { 576, 2048, 3584, 4096 };

/* ---- rows like those that models make, and worse ---------------------------------------------- */

static double uniform(uint64_t *seed)
{
    return (double)(unit_next(seed) >> 11) * 0x1p-53;
}

/* Nearly normal, deviation 1; only sums and exact products, so the same on every machine. */
static float normal(uint64_t *seed)
{
    double sum = -6;

    for (int i = 0; i < 12; i++)
        sum += uniform(seed);
    return (float)sum;
}

enum kind { NORMAL, CHANNELS, MASSIVE, UNIFORM, CONSTANT, ALTERNATING, SPARSE, RAMP, ZERO, KINDS };

static const char *const KIND_NAMES[KINDS] = {
    "normal", "channels", "massive", "uniform", "constant", "alternating", "sparse", "ramp", "zero",
};

static void row_make(float *row, size_t elems, enum kind kind, uint64_t *seed)
{
    for (size_t i = 0; i < elems; i++) {
        switch (kind) {
        case UNIFORM: row[i] = (float)(uniform(seed) - 0.5); break;
        case CONSTANT: row[i] = 3.7f; break;
        case ALTERNATING: row[i] = i % 2 == 0 ? 3.7f : -3.7f; break;
        case SPARSE: row[i] = unit_below(seed, 50) == 0 ? normal(seed) : 0; break;
        case RAMP: row[i] = ((float)i - 100) / 16; break;
        case ZERO: row[i] = 0; break;
        default: row[i] = normal(seed); break;
        }
    }
    /* A few channels 20 times as large as the rest, in each row; two values a thousand times. */
    for (size_t i = 0; kind == CHANNELS && i < elems / 100; i++)
        row[i * 97 % elems] *= 20;
    if (kind == MASSIVE) {
        row[unit_below(seed, (uint32_t)elems)] = 1000;
        row[unit_below(seed, (uint32_t)elems)] = -1500;
    }
}

static float largest(const float *row, size_t elems)
{
    float most = 0;

    for (size_t i = 0; i < elems; i++)
        most = fabsf(row[i]) > most ? fabsf(row[i]) : most;
    return most;
}

static void must_decode(const struct wire_codec *c, float *target, const uint8_t *source,
                        size_t rows, size_t elems)
{
    mcp_error err;

    unit_ok(
        wire_codec_decode(c, target, source, wire_codec_bytes(c, rows, elems), rows, elems, &err),
        &err);
}

/* There and back. */
static void pass(const struct wire_codec *c, float *target, const float *source, size_t elems)
{
    static uint8_t bytes[ELEMS_MAX * sizeof(float)];

    assert_true(wire_codec_bytes(c, 1, elems) <= sizeof(bytes));
    wire_codec_encode(c, bytes, source, 1, elems);
    must_decode(c, target, bytes, 1, elems);
}

static double snr(const float *x, const float *y, size_t elems)
{
    double signal = 0, noise = 1e-30;

    for (size_t i = 0; i < elems; i++) {
        signal += (double)x[i] * x[i];
        noise += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    }
    return 10 * log10(signal / noise);
}

/* ---- the table ---------------------------------------------------------------------------------- */

/* Goal:   ids are those of compute.proto, names find their row, strangers are no error. */
static void the_table_has_each_codec_at_its_id(void **state)
{
    static const char *const names[] = { "f32", "f16", "bf16", "q8", "q8r", "q4r" };

    (void)state;
    assert_int_equal(WIRE_CODECS, UNIT_COUNT(names));
    for (uint32_t id = 0; id < WIRE_CODECS; id++) {
        const struct wire_codec *c = wire_codec_by_id(id);

        assert_int_equal(c->id, id);
        assert_string_equal(c->name, names[id]);
        assert_ptr_equal(wire_codec_by_name(names[id]), c);
    }
    assert_null(wire_codec_by_id(WIRE_CODECS));
    assert_null(wire_codec_by_id(UINT32_MAX));
    assert_null(wire_codec_by_name("q8rr"));
    assert_null(wire_codec_by_name(""));
}

/* Goal:   sizes are those of the formats' descriptions, for every width that models have. */
static void sizes_follow_from_rows_and_width(void **state)
{
    static const size_t bytes[UNIT_COUNT(WIDTHS)][WIRE_CODECS] = {
        { 2304, 1152, 1152, 612, 612, 322 },
        { 8192, 4096, 4096, 2176, 2176, 1152 },
        { 14336, 7168, 7168, 3808, 3808, 2016 },
        { 16384, 8192, 8192, 4352, 4352, 2304 },
    };

    (void)state;
    for (uint32_t id = 0; id < WIRE_CODECS; id++) {
        const struct wire_codec *c = wire_codec_by_id(id);

        for (size_t i = 0; i < UNIT_COUNT(WIDTHS); i++) {
            assert_int_equal(wire_codec_bytes(c, 1, WIDTHS[i]), bytes[i][id]);
            assert_int_equal(wire_codec_bytes(c, 1000, WIDTHS[i]), 1000 * bytes[i][id]);
        }
        assert_int_equal(wire_codec_bytes(c, 0, 576), 0);
        assert_int_equal(wire_codec_bytes(c, SIZE_MAX / 64, 576), 0);
        assert_int_equal(wire_codec_bytes(c, 1, SIZE_MAX - SIZE_MAX % 64), 0);
        if (c->row_elems > 1)
            assert_int_equal(wire_codec_bytes(c, 1, 576 + c->row_elems / 2), 0);
    }
}

/* Goal:   rows are independent: a run may be cut and joined without decoding. */
static void a_run_of_rows_is_its_rows_one_after_another(void **state)
{
    enum { ROWS = 5, ELEMS = 576 };
    static float   rows[ROWS * ELEMS];
    static uint8_t together[sizeof(rows)], alone[sizeof(rows)];
    uint64_t       seed = unit_seed();

    (void)state;
    for (size_t i = 0; i < ROWS; i++)
        row_make(rows + i * ELEMS, ELEMS, (enum kind)(i % KINDS), &seed);
    for (uint32_t id = 0; id < WIRE_CODECS; id++) {
        const struct wire_codec *c = wire_codec_by_id(id);
        size_t                   bytes = wire_codec_bytes(c, 1, ELEMS);

        wire_codec_encode(c, together, rows, ROWS, ELEMS);
        for (size_t i = 0; i < ROWS; i++)
            wire_codec_encode(c, alone + i * bytes, rows + i * ELEMS, 1, ELEMS);
        assert_memory_equal(together, alone, ROWS * bytes);
    }
}

/* ---- errors ----------------------------------------------------------------------------------- */

/* Goal:   no element is further off than the table says, and the table does not exaggerate.
 * Method: rows of all kinds in all widths and at scales from 2^-8 to 2^4. */
static void an_error_is_below_what_the_table_says(void **state)
{
    static float x[ELEMS_MAX], y[ELEMS_MAX];

    (void)state;
    for (uint32_t id = 0; id < WIRE_CODECS; id++) {
        const struct wire_codec *c = wire_codec_by_id(id);
        uint64_t                 seed = unit_seed();
        double                   worst = 0;

        for (int run = 0; run < 24 * KINDS; run++) {
            enum kind kind = (enum kind)(run % KINDS);
            size_t    elems = WIDTHS[run / KINDS % UNIT_COUNT(WIDTHS)];
            float     most;

            row_make(x, elems, kind, &seed);
            for (size_t i = 0; i < elems; i++)
                x[i] = ldexpf(x[i], run % 13 - 8);
            pass(c, y, x, elems);
            most = largest(x, elems);
            for (size_t i = 0; i < elems; i++) {
                double error = most > 0 ? fabs((double)x[i] - y[i]) / most : fabsf(y[i]);

                worst = error > worst ? error : worst;
                if (error > c->err_max)
                    fail_msg("%s, %s row of %zu, element %zu: %g became %g, %.5f of the largest "
                             "(%g); the table says %.5f; MCP_SEED=%" PRIu64,
                             c->name, KIND_NAMES[kind], elems, i, x[i], y[i], error, most,
                             c->err_max, unit_seed());
            }
        }
        if (worst < c->err_max / 2)
            fail_msg("%s: the table says %.5f, the worst found is %.5f", c->name, c->err_max,
                     worst);
    }
}

/* Goal:   a rotation pays for itself where channels stick out, and costs nothing elsewhere;
 *         4 bits keep what the table's users count on.
 * Method: mean ratio of signal to noise over many rows, next to that of q8. */
static void rotated_codecs_are_not_drowned_by_outliers(void **state)
{
    enum { ROWS = 40, ELEMS = 4096 };
    static const struct {
        enum kind kind;
        double    q8r_over_q8, q4r_least; /* dB */
    } rows[] = { { NORMAL, -0.5, 21 }, { CHANNELS, 5, 20 }, { MASSIVE, 5, 45 } };
    static float x[ELEMS], y[ELEMS];
    uint64_t     seed = unit_seed();

    (void)state;
    for (size_t k = 0; k < UNIT_COUNT(rows); k++) {
        double mean[WIRE_CODECS] = { 0 };

        for (int i = 0; i < ROWS; i++) {
            row_make(x, ELEMS, rows[k].kind, &seed);
            for (uint32_t id = WIRE_Q8; id < WIRE_CODECS; id++) {
                pass(wire_codec_by_id(id), y, x, ELEMS);
                mean[id] += snr(x, y, ELEMS) / ROWS;
            }
        }
        if (mean[WIRE_Q8R] < mean[WIRE_Q8] + rows[k].q8r_over_q8 ||
            mean[WIRE_Q4R] < rows[k].q4r_least)
            fail_msg("%s rows: q8 %.1f, q8r %.1f, q4r %.1f dB", KIND_NAMES[rows[k].kind],
                     mean[WIRE_Q8], mean[WIRE_Q8R], mean[WIRE_Q4R]);
    }
}

/* ---- bytes for ever -------------------------------------------------------------------------------- */

/* Goal:   the same row gives the same bytes whatever the machine, the compiler and its flags; a
 *         replay depends on it.
 * Method: SHA-256 of the payloads and of what they decode to, over all kinds and widths. */
static void bytes_are_the_same_on_every_machine(void **state)
{
    static const char *const digests[WIRE_CODECS] = {
        "c6e649f962ab0d3c", "cef9a58147a2db9d", "f25d7fe75432654f",
        "1e90f71fa4c9a749", "7c8dd2f6a8e2c9a2", "05b920c947f54b2c",
    };
    static float   x[ELEMS_MAX], y[ELEMS_MAX];
    static uint8_t payload[sizeof(x)];

    (void)state;
    for (uint32_t id = 0; id < WIRE_CODECS; id++) {
        const struct wire_codec *c = wire_codec_by_id(id);
        struct base_sha256      *hash = base_sha256_new();
        uint64_t                 seed = 7;
        uint8_t                  digest[BASE_SHA256_BYTES];
        char                     text[17];
        mcp_error                err;

        for (int run = 0; run < 4 * KINDS; run++) {
            size_t elems = WIDTHS[run / KINDS];

            row_make(x, elems, (enum kind)(run % KINDS), &seed);
            wire_codec_encode(c, payload, x, 1, elems);
            must_decode(c, y, payload, 1, elems);
            base_sha256_add(hash, payload, wire_codec_bytes(c, 1, elems));
            base_sha256_add(hash, y, elems * sizeof(float));
        }
        unit_ok(base_sha256_finish(hash, digest, &err), &err);
        for (size_t i = 0; i < 8; i++)
            snprintf(text + 2 * i, 3, "%02x", digest[i]);
        if (strcmp(text, digests[id]) != 0)
            fail_msg("%s: the digest begins %s, not %s", c->name, text, digests[id]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_has_each_codec_at_its_id),
        cmocka_unit_test(sizes_follow_from_rows_and_width),
        cmocka_unit_test(a_run_of_rows_is_its_rows_one_after_another),
        cmocka_unit_test(an_error_is_below_what_the_table_says),
        cmocka_unit_test(rotated_codecs_are_not_drowned_by_outliers),
        cmocka_unit_test(bytes_are_the_same_on_every_machine),
    };

    return cmocka_run_group_tests_name("wire/codec", tests, NULL, NULL);
}
