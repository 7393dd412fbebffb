/* wire/codec_limits_test.c - codecs at their limits: what is too large, too small or not a number,
 * rows of odd lengths, and payloads that lie.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/codec.h"

#include "base/unit_test.h"

#include <float.h>
#include <math.h>

enum { ELEMS_MAX = 4096, GUARD = 16 };

static const size_t WIDTHS[] = { 576, 2048, 3584, 4096 };

/* Nearly normal, deviation 1. */
static void row_make(float *row, size_t elems, uint64_t *seed)
{
    for (size_t i = 0; i < elems; i++) {
        row[i] = -6;
        for (int k = 0; k < 12; k++)
            row[i] += (float)unit_below(seed, 1 << 20) * 0x1p-20f;
    }
}

static float largest(const float *row, size_t elems)
{
    float most = 0;

    for (size_t i = 0; i < elems; i++)
        most = fabsf(row[i]) > most ? fabsf(row[i]) : most;
    return most;
}

/* There and back; nothing is written behind the row. */
static void pass(const struct wire_codec *c, float *target, const float *source, size_t elems)
{
    static uint8_t bytes[ELEMS_MAX * sizeof(float) + GUARD];
    static float   back[ELEMS_MAX + GUARD];
    size_t         count = wire_codec_bytes(c, 1, elems);
    mcp_error      err;

    assert_true(count > 0 && count + GUARD <= sizeof(bytes));
    memset(bytes + count, 0x5a, GUARD);
    back[elems] = 12345;
    wire_codec_encode(c, bytes, source, 1, elems);
    unit_ok(wire_codec_decode(c, back, bytes, count, 1, elems, &err), &err);
    for (size_t i = 0; i < GUARD; i++)
        assert_int_equal(bytes[count + i], 0x5a);
    assert_true(back[elems] == 12345);
    memcpy(target, back, elems * sizeof(float));
}

/* ---- limits ------------------------------------------------------------------------------------- */

/* Goal:   whatever is encoded, what is decoded is finite.
 * Method: rows sprinkled with NaN, infinities, the largest and the smallest floats. */
static void what_was_encoded_always_decodes_to_finite_values(void **state)
{
    static const float odd[] = { NAN, -NAN,    INFINITY, -INFINITY, FLT_MAX, -FLT_MAX,   65520,
                                 1e9, -3e38f,  1e30f,    -1e20f,    FLT_MIN, 0x1p-149f,  -0.0f,
                                 0,   65504.f, 0x1p-24f, 0x1p-25f,  -1e-6f,  8319008.0f, 1e7f };
    static float       x[ELEMS_MAX], y[ELEMS_MAX];
    uint64_t           seed = unit_seed();

    (void)state;
    for (uint32_t id = 0; id < WIRE_CODECS; id++) {
        for (int run = 0; run < 60; run++) {
            size_t elems = WIDTHS[run % UNIT_COUNT(WIDTHS)];

            row_make(x, elems, &seed);
            for (size_t i = 0; i < elems; i++)
                if (run < 3 || unit_below(&seed, 64) < (uint32_t)run)
                    x[i] = run < 3 ? odd[run] : odd[unit_below(&seed, UNIT_COUNT(odd))];
            pass(wire_codec_by_id(id), y, x, elems);
            for (size_t i = 0; i < elems; i++)
                if (!isfinite(y[i]))
                    fail_msg("%s made %g of %g at %zu of %zu, run %d", wire_codec_by_id(id)->name,
                             y[i], x[i], i, elems, run);
        }
    }
}

/* Goal:   NaN becomes 0, and what is too large becomes the format's largest number. */
static void encoders_saturate(void **state)
{
    static const float bf16_max = 0x1.fep127f;
    static const float most[WIRE_CODECS] = { FLT_MAX,           65504,           bf16_max,
                                             65504.0f * 127.0f, 65504 * 15.875f, 65504 * 15.875f };
    float              x[128] = { 0 }, y[128];

    (void)state;
    for (uint32_t id = 0; id < WIRE_CODECS; id++) {
        x[5] = INFINITY;
        x[100] = -FLT_MAX;
        x[7] = NAN;
        pass(wire_codec_by_id(id), y, x, 128);
        assert_true(fabsf(y[5] / most[id] - 1) < 0.01f);
        assert_true(fabsf(y[100] / most[id] + 1) < 0.01f);
        assert_true(fabsf(y[7] / most[id]) < 0.01f);
    }
}

/* Goal:   small values lose no more than the subnormal scales' own step. */
static void small_rows_err_by_a_tiny_amount_only(void **state)
{
    float    x[576], y[576];
    uint64_t seed = unit_seed();

    (void)state;
    for (uint32_t id = 0; id < WIRE_CODECS; id++) {
        for (int exponent = -150; exponent < -6; exponent += 3) {
            float bound;

            row_make(x, 576, &seed);
            for (size_t i = 0; i < 576; i++)
                x[i] = ldexpf(x[i], exponent);
            pass(wire_codec_by_id(id), y, x, 576);
            bound = wire_codec_by_id(id)->err_max * largest(x, 576) + 0x1p-17f;
            for (size_t i = 0; i < 576; i++)
                assert_true(fabsf(x[i] - y[i]) <= bound);
        }
    }
}

/* Goal:   rows of any length that the table allows come back whole, also those that end within a
 *         tile of the vectorised loops.
 * Method: small integers, which the float formats hold exactly; the others at their error. */
static void rows_of_any_length_come_back(void **state)
{
    float x[300], y[300];

    (void)state;
    for (size_t i = 0; i < 300; i++)
        x[i] = (float)(i * 37 % 255) - 127;
    for (uint32_t id = 0; id < WIRE_CODECS; id++) {
        const struct wire_codec *c = wire_codec_by_id(id);

        for (size_t elems = c->row_elems; elems < 300; elems += c->row_elems) {
            pass(c, y, x, elems);
            for (size_t i = 0; i < elems; i++)
                assert_true(fabsf(x[i] - y[i]) <= (id <= WIRE_BF16 ? 0 : 127 * c->err_max));
        }
    }
}

/* ---- hostile payloads --------------------------------------------------------------------------- */

static void must_refuse(const struct wire_codec *c, const uint8_t *payload, size_t bytes,
                        size_t rows, size_t elems, const char *about)
{
    static float target[ELEMS_MAX];
    mcp_error    err;

    unit_refused(wire_codec_decode(c, target, payload, bytes, rows, elems, &err), MCP_EFORMAT, &err,
                 about);
}

/* Goal:   a payload of another size than its rows have is refused, before it is read. */
static void a_payload_of_another_size_is_refused(void **state)
{
    static const uint8_t payload[8 * 576];

    (void)state;
    for (uint32_t id = 0; id < WIRE_CODECS; id++) {
        const struct wire_codec *c = wire_codec_by_id(id);
        size_t                   bytes = wire_codec_bytes(c, 2, 576);

        must_refuse(c, payload, bytes - 1, 2, 576, c->name);
        must_refuse(c, payload, bytes + 1, 2, 576, "bytes");
        must_refuse(c, payload, bytes, 1, 576, "bytes");
        must_refuse(c, payload, 0, 0, 576, "0 rows");
        must_refuse(c, payload, 0, SIZE_MAX / 64, 576, "rows");
        if (c->row_elems > 1)
            must_refuse(c, payload, bytes, 2, 575, "multiple of");
    }
}

/* Goal:   infinities and NaN are refused wherever a payload can spell them.
 * Method: one number a time is overwritten in a good payload of two rows; the sentence names
 *         the second. */
static void numbers_that_are_not_finite_are_refused(void **state)
{
    static const struct {
        uint32_t id;
        size_t   offset; /* in the second row */
        uint8_t  bytes[4];
        size_t   count;
    } places[] = {
        { WIRE_F32, 0, { 0, 0, 0x80, 0x7f }, 4 },
        { WIRE_F32, 575 * 4, { 0, 0, 0x80, 0xff }, 4 },
        { WIRE_F32, 64 * 4, { 1, 0, 0x80, 0x7f }, 4 },
        { WIRE_F16, 0, { 0, 0x7c }, 2 },
        { WIRE_F16, 575 * 2, { 0xff, 0xff }, 2 },
        { WIRE_BF16, 0, { 0x80, 0x7f }, 2 },
        { WIRE_BF16, 575 * 2, { 0xff, 0xff }, 2 },
        { WIRE_Q8, 0, { 0, 0x7c }, 2 },
        { WIRE_Q8, 17 * 34, { 1, 0xfc }, 2 },
        { WIRE_Q8R, 34, { 0, 0x7c }, 2 },
        { WIRE_Q8R, 16 * 34, { 0, 0x7e }, 2 },
        { WIRE_Q4R, 8, { 0, 0x7c }, 2 },           /* first outlier's value */
        { WIRE_Q4R, 14, { 0xff, 0x7f }, 2 },       /* last one's */
        { WIRE_Q4R, 16, { 0, 0xfc }, 2 },          /* first scale */
        { WIRE_Q4R, 16 + 8 * 34, { 0, 0x7c }, 2 }, /* last scale */
        { WIRE_Q4R, 0, { 0x40, 0x02 }, 2 },        /* index 576 */
        { WIRE_Q4R, 6, { 0xff, 0xff }, 2 },        /* index 65535 */
    };
    static float   x[2 * 576];
    static uint8_t payload[sizeof(x)];
    uint64_t       seed = unit_seed();

    (void)state;
    row_make(x, 2 * 576, &seed);
    for (size_t i = 0; i < UNIT_COUNT(places); i++) {
        const struct wire_codec *c = wire_codec_by_id(places[i].id);
        size_t                   bytes = wire_codec_bytes(c, 2, 576);

        wire_codec_encode(c, payload, x, 2, 576);
        memcpy(payload + bytes / 2 + places[i].offset, places[i].bytes, places[i].count);
        must_refuse(c, payload, bytes, 2, 576, "row 1 of 2");
    }
}

/* Goal:   the check of the last, shorter tile does not hide that of the others, nor they its. */
static void every_element_of_odd_rows_is_checked(void **state)
{
    static const uint8_t infinity[3][4] = {
        [WIRE_F32] = { 0, 0, 0x80, 0x7f }, [WIRE_F16] = { 0, 0x7c }, [WIRE_BF16] = { 0x80, 0x7f }
    };
    static const size_t size[3] = { [WIRE_F32] = 4, [WIRE_F16] = 2, [WIRE_BF16] = 2 };
    uint8_t             payload[150 * 4] = { 0 };

    (void)state;
    for (uint32_t id = 0; id <= WIRE_BF16; id++) {
        for (size_t i = 0; i < 150; i++) {
            memcpy(payload + i * size[id], infinity[id], size[id]);
            must_refuse(wire_codec_by_id(id), payload, 150 * size[id], 1, 150, "row 0 of 1");
            memset(payload + i * size[id], 0, size[id]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_encoded_always_decodes_to_finite_values),
        cmocka_unit_test(encoders_saturate),
        cmocka_unit_test(small_rows_err_by_a_tiny_amount_only),
        cmocka_unit_test(rows_of_any_length_come_back),
        cmocka_unit_test(a_payload_of_another_size_is_refused),
        cmocka_unit_test(numbers_that_are_not_finite_are_refused),
        cmocka_unit_test(every_element_of_odd_rows_is_checked),
    };

    return cmocka_run_group_tests_name("wire/codec_limits", tests, NULL, NULL);
}
