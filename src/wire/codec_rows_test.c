/* wire/codec_rows_test.c - the formats of rows, read back by a second implementation.
 *
 * The functions named naive_* follow the descriptions at the head of codec_float.c, codec_q8.c
 * and codec_q4r.c in double precision and without any trick, as a client in another language
 * would.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/codec_rows.h"

#include "base/unit_test.h"

enum { ELEMS = 576, OUTLIERS = 4, BLOCK_BYTES = 34 };

static float random_float(uint64_t *seed)
{
    float value;

    do
        value = wire_float((uint32_t)unit_next(seed));
    while (!isfinite(value) || value == 0);
    return value;
}

static float random_normal(uint64_t *seed)
{
    float sum = -6;

    for (int i = 0; i < 12; i++)
        sum += (float)unit_below(seed, 1 << 20) * 0x1p-20f;
    return sum;
}

/* ---- halves ------------------------------------------------------------------------------- */

static double naive_half_value(uint16_t half)
{
    int    exponent = half >> 10 & 31;
    double value = exponent == 0 ? ldexp(half & 1023, -24)
                                 : ldexp(1024 + (half & 1023), exponent - 25);

    return half & 0x8000 ? -value : value;
}

/* Rounded to the unit of its binade; rint() takes the even one of two equally near. */
static double naive_half(float value)
{
    int exponent;

    frexp(value, &exponent); /* in [0.5, 1) 2^exponent */
    exponent = exponent - 1 < -14 ? -14 : exponent - 1;
    return ldexp(rint(ldexp(value, 10 - exponent)), exponent - 10);
}

static void must_round(float value)
{
    uint16_t half = wire_half(value);

    if (naive_half_value(half) != naive_half(value) || (signbit(value) != 0) != half >> 15)
        fail_msg("%a became the half %04x = %a, not %a", value, half, naive_half_value(half),
                 naive_half(value));
}

/* Goal:   all 63,488 finite halves have the value that IEEE 754 gives them, and are what that
 *         value is written as. */
static void every_half_has_its_value(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 1 << 16; half++) {
        if (!wire_half_finite((uint16_t)half)) {
            assert_true((half & 0x7fff) >= 0x7c00);
            continue;
        }
        assert_true(wire_half_value((uint16_t)half) == naive_half_value((uint16_t)half));
        assert_int_equal(wire_half(wire_half_value((uint16_t)half)), half);
    }
}

/* Goal:   floats become the nearest half, the even one of two.
 * Method: the middle between each two neighbours, the floats beside it, and random floats. */
static void floats_round_to_the_nearest_half(void **state)
{
    uint64_t seed = unit_seed();

    (void)state;
    for (uint16_t half = 0; half < 0x7bff; half++) {
        float middle = (wire_half_value(half) + wire_half_value((uint16_t)(half + 1))) / 2;

        must_round(middle);
        must_round(-middle);
        must_round(nextafterf(middle, 0));
        must_round(nextafterf(middle, 1e9f));
    }
    for (int i = 0; i < 200000; i++) {
        float value = random_float(&seed);

        if (fabsf(value) <= WIRE_HALF_MAX)
            must_round(value);
        must_round(ldexpf(value, -ilogbf(value) - (int)unit_below(&seed, 30) + 14));
    }
}

/* Goal:   floats become the nearest bf16, the even one of two.
 * Method: random floats and middles between neighbours, whose distances doubles tell exactly. */
static void floats_round_to_the_nearest_bf16(void **state)
{
    uint64_t seed = unit_seed();

    (void)state;
    for (int i = 0; i < 200000; i++) {
        float    x = random_float(&seed), y;
        uint32_t below = wire_bits(x) & 0xffff0000;
        double   to_below, to_above;
        uint8_t  bytes[2];

        if ((below & 0x7fff0000) == 0x7f7f0000)
            continue; /* the largest has no neighbour above */
        if (i % 4 == 0)
            x = wire_float(below | 0x8000);
        to_below = fabs((double)x - wire_float(below));
        to_above = fabs((double)x - wire_float(below + 0x10000));
        wire_bf16_encode(bytes, &x, 1);
        assert_true(wire_bf16_decode(&y, bytes, 1));
        if (to_below != to_above)
            assert_int_equal(wire_bits(y), to_below < to_above ? below : below + 0x10000);
        else
            assert_int_equal(wire_bits(y), below & 0x10000 ? below + 0x10000 : below);
    }
}

/* ---- rotation ------------------------------------------------------------------------------- */

static double naive_sign(unsigned i)
{
    unsigned b0 = i & 1, b1 = i >> 1 & 1, b2 = i >> 2 & 1, b3 = i >> 3 & 1, b4 = i >> 4 & 1,
             b5 = i >> 5 & 1;

    return (b0 & b1) ^ (b2 & b3) ^ (b4 & b5) ? -1 : 1;
}

static double naive_walsh(unsigned i, unsigned j)
{
    return __builtin_popcount(i & j) % 2 == 1 ? -1 : 1;
}

/* x = S H y / 8 */
static void naive_rotate_back(double x[WIRE_ROTATED], const double y[WIRE_ROTATED])
{
    for (unsigned i = 0; i < WIRE_ROTATED; i++) {
        x[i] = 0;
        for (unsigned j = 0; j < WIRE_ROTATED; j++)
            x[i] += naive_walsh(i, j) * y[j];
        x[i] *= naive_sign(i) / 8;
    }
}

/* Goal:   the fast rotation is the documented matrix, and its reverse undoes it. */
static void the_rotation_is_the_documented_one(void **state)
{
    uint64_t seed = unit_seed();

    (void)state;
    for (int run = 0; run < 20; run++) {
        float x[WIRE_ROTATED], y[WIRE_ROTATED], z[WIRE_ROTATED];

        for (size_t i = 0; i < WIRE_ROTATED; i++)
            x[i] = y[i] = random_normal(&seed);
        wire_rotate(y);
        memcpy(z, y, sizeof(z));
        wire_rotate_back(z);
        for (unsigned i = 0; i < WIRE_ROTATED; i++) {
            double sum = 0;

            for (unsigned j = 0; j < WIRE_ROTATED; j++)
                sum += naive_walsh(i, j) * naive_sign(j) * x[j] / 8;
            assert_true(fabs(sum - y[i]) < 1e-5);
            assert_true(fabsf(z[i] - x[i]) < 1e-5f);
        }
    }
}

/* Goal:   a single value, and any Walsh function (equal values, alternating ones, ...), is
 *         spread evenly: every coefficient has the same magnitude. */
static void outliers_and_patterns_are_spread_evenly(void **state)
{
    (void)state;
    for (unsigned k = 0; k < WIRE_ROTATED; k++) {
        float one[WIRE_ROTATED] = { 0 }, pattern[WIRE_ROTATED];

        one[k] = 8;
        for (unsigned i = 0; i < WIRE_ROTATED; i++)
            pattern[i] = (float)naive_walsh(k, i);
        wire_rotate(one);
        wire_rotate(pattern);
        for (unsigned i = 0; i < WIRE_ROTATED; i++) {
            assert_true(fabsf(one[i]) == 1);
            assert_true(fabsf(pattern[i]) == 1);
        }
    }
}

/* ---- decoders --------------------------------------------------------------------------------- */

static void naive_q8(double *x, const uint8_t *payload, size_t elems)
{
    for (size_t i = 0; i < elems; i++) {
        const uint8_t *block = payload + i / 32 * BLOCK_BYTES;

        x[i] = naive_half_value(wire_half_get(block)) * (int8_t)block[2 + i % 32];
    }
}

static void naive_q8r(double *x, const uint8_t *payload, size_t elems)
{
    double y[ELEMS];

    naive_q8(y, payload, elems);
    for (size_t i = 0; i < elems; i += WIRE_ROTATED)
        naive_rotate_back(x + i, y + i);
}

static const double NAIVE_LEVELS[16] = { -127, -97, -76, -59, -44, -31, -18, -6,
                                         6,    18,  31,  44,  59,  76,  97,  127 };

static void naive_q4r(double *x, const uint8_t *payload, size_t elems)
{
    const uint8_t *blocks = payload + 4 * (elems / 128);
    double         y[ELEMS];

    for (size_t i = 0; i < elems; i++) {
        const uint8_t *block = blocks + i / 64 * BLOCK_BYTES;
        uint8_t        byte = block[2 + i % 32];

        y[i] = naive_half_value(wire_half_get(block)) *
               NAIVE_LEVELS[i % 64 < 32 ? byte & 15 : byte >> 4];
    }
    for (size_t i = 0; i < elems; i += WIRE_ROTATED)
        naive_rotate_back(x + i, y + i);
    for (size_t i = 0; i < elems / 128; i++)
        x[wire_half_get(payload + 2 * i)] += naive_half_value(
            wire_half_get(payload + 2 * (elems / 128 + i)));
}

/* Goal:   payloads mean what the descriptions say, whoever wrote them.
 * Method: random bytes with finite scales and indices inside the row, both decoders. */
static void payloads_mean_what_their_descriptions_say(void **state)
{
    static const struct {
        size_t (*bytes)(size_t elems);
        bool (*decode)(float *target, const uint8_t *source, size_t elems);
        void (*naive)(double *x, const uint8_t *payload, size_t elems);
        size_t first_scale;
    } kinds[] = {
        { wire_q8_bytes, wire_q8_decode, naive_q8, 0 },
        { wire_q8r_bytes, wire_q8r_decode, naive_q8r, 0 },
        { wire_q4r_bytes, wire_q4r_decode, naive_q4r, 4 * OUTLIERS },
    };
    uint64_t seed = unit_seed();

    (void)state;
    for (int run = 0; run < 60; run++) {
        size_t  kind = (size_t)run % UNIT_COUNT(kinds), bytes = kinds[kind].bytes(ELEMS);
        uint8_t payload[ELEMS * 2];
        float   x[ELEMS];
        double  naive[ELEMS], most = 0;

        for (size_t i = 0; i < bytes; i++)
            payload[i] = (uint8_t)unit_next(&seed);
        for (size_t i = kinds[kind].first_scale; i < bytes; i += BLOCK_BYTES)
            payload[i + 1] &= 0xbf; /* below 2 */
        for (size_t i = 0; i < kinds[kind].first_scale / 4; i++) {
            wire_half_put(payload + 2 * i, (uint16_t)unit_below(&seed, ELEMS));
            payload[2 * (OUTLIERS + i) + 1] &= 0xbf;
        }
        assert_true(kinds[kind].decode(x, payload, ELEMS));
        kinds[kind].naive(naive, payload, ELEMS);
        for (size_t i = 0; i < ELEMS; i++)
            most = fabs(naive[i]) > most ? fabs(naive[i]) : most;
        for (size_t i = 0; i < ELEMS; i++)
            assert_true(fabs(naive[i] - x[i]) <= 1e-5 * most);
    }
}

/* ---- encoders ---------------------------------------------------------------------------------- */

/* Goal:   q8's scale is the half nearest to a 127th of the largest magnitude, and each number
 *         the nearest multiple of it. */
static void q8_takes_the_nearest_multiples(void **state)
{
    uint64_t seed = unit_seed();
    float    x[ELEMS];
    uint8_t  payload[ELEMS * 2];

    (void)state;
    for (int run = 0; run < 50; run++) {
        for (size_t i = 0; i < ELEMS; i++)
            x[i] = ldexpf(random_normal(&seed), run % 20 - 5);
        wire_q8_encode(payload, x, ELEMS);
        for (size_t i = 0; i < ELEMS; i++) {
            const uint8_t *block = payload + i / 32 * BLOCK_BYTES;
            double         scale = naive_half_value(wire_half_get(block)), q;
            float          most = 0;

            for (size_t j = i - i % 32; j < i - i % 32 + 32; j++)
                most = fabsf(x[j]) > most ? fabsf(x[j]) : most;
            assert_true(scale == naive_half(most / 127));
            q = (int8_t)block[2 + i % 32];
            assert_true(fabs(q) <= 127);
            assert_true(fabs(x[i] - scale * q) <= scale * (fabs(q) == 127 ? 0.6 : 0.5 + 1e-4));
        }
    }
}

/* Squared error of a block at a scale, each element at its nearest level. */
static double naive_block_error(const float *y, double scale)
{
    double sum = 0;

    for (size_t i = 0; i < WIRE_ROTATED; i++) {
        double least = INFINITY;

        for (size_t c = 0; c < 16; c++) {
            double error = fabs(y[i] - scale * NAIVE_LEVELS[c]);

            least = error < least ? error : least;
        }
        sum += least * least;
    }
    return sum;
}

/* Goal:   q4r's outliers are the largest magnitudes in order of their place, the first of
 *         equals; what is left is rotated, and written at the best of three scales in the
 *         nearest levels.
 * Method: everything is done again from the payload; rows have ties among their largest. */
static void q4r_takes_the_largest_apart_and_the_nearest_levels(void **state)
{
    uint64_t seed = unit_seed();

    (void)state;
    for (int run = 0; run < 40; run++) {
        float   x[ELEMS], least = INFINITY;
        uint8_t payload[ELEMS * 2];
        size_t  beyond = 0, equal_before = 0;

        for (size_t i = 0; i < ELEMS; i++)
            x[i] = random_normal(&seed);
        for (size_t i = 0; i < 6; i++)
            x[unit_below(&seed, ELEMS)] = i < 2 ? -70 : i % 2 == 0 ? 50 : -50;
        wire_q4r_encode(payload, x, ELEMS);

        for (size_t i = 0; i < OUTLIERS; i++) {
            uint16_t index = wire_half_get(payload + 2 * i);

            assert_true(index < ELEMS);
            assert_true(i == 0 || index > wire_half_get(payload + 2 * i - 2));
            least = fabsf(x[index]) < least ? fabsf(x[index]) : least;
            assert_true(naive_half_value(wire_half_get(payload + 2 * (OUTLIERS + i))) ==
                        naive_half(x[index]));
        }
        for (size_t i = 0; i < ELEMS; i++)
            beyond += fabsf(x[i]) > least;
        assert_true(beyond < OUTLIERS);
        for (size_t i = 0, k = 0; i < ELEMS; i++) {
            bool taken = k < OUTLIERS && wire_half_get(payload + 2 * k) == i;

            if (fabsf(x[i]) == least && !taken)
                equal_before++;
            if (fabsf(x[i]) == least && taken)
                assert_int_equal(equal_before, 0);
            if (taken)
                x[i] -= wire_half_value(wire_half_get(payload + 2 * (OUTLIERS + k++)));
        }

        for (size_t i = 0; i < ELEMS; i += WIRE_ROTATED) {
            const uint8_t *block = payload + 4 * OUTLIERS + i / WIRE_ROTATED * BLOCK_BYTES;
            double scale = naive_half_value(wire_half_get(block)), error = 0, best = INFINITY;
            float  most = 0, *y = x + i;

            wire_rotate(y);
            for (size_t j = 0; j < WIRE_ROTATED; j++) {
                double level = NAIVE_LEVELS[j < 32 ? block[2 + j] & 15 : block[2 + j - 32] >> 4];

                most = fabsf(y[j]) > most ? fabsf(y[j]) : most;
                error += (y[j] - scale * level) * (y[j] - scale * level);
            }
            for (int tenths = 9; tenths <= 11; tenths++) {
                float  share = most * (float)(tenths / 10.0 / 127);
                double other = naive_block_error(y, naive_half(share));

                best = other < best ? other : best;
            }
            /* The encoder compares in sixteenths of a unit. */
            if (fabs(error / best - 1) > 0.01)
                fail_msg("run %d, block at %zu: error %g, the best of three %g; MCP_SEED=%" PRIu64,
                         run, i, error, best, unit_seed());
        }
    }
}

/* Goal:   a row longer than an index can name, and one too short for outliers, pass. */
static void q4r_holds_rows_of_any_length(void **state)
{
    enum { LONG = 151936 };
    static float   x[LONG], y[LONG];
    static uint8_t payload[LONG];
    uint64_t       seed = unit_seed();

    (void)state;
    for (size_t i = 0; i < LONG; i++)
        x[i] = random_normal(&seed);
    x[LONG - 1] = 500;
    for (size_t elems = 64; elems <= LONG; elems += LONG - 64) {
        double signal = 0, noise = 0;

        assert_true(wire_q4r_bytes(elems) <= sizeof(payload));
        wire_q4r_encode(payload, x, elems);
        assert_true(wire_q4r_decode(y, payload, elems));
        for (size_t i = 0; i < elems; i++) {
            signal += (double)x[i] * x[i];
            noise += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        }
        assert_true(10 * log10(signal / noise) > 18);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_has_its_value),
        cmocka_unit_test(floats_round_to_the_nearest_half),
        cmocka_unit_test(floats_round_to_the_nearest_bf16),
        cmocka_unit_test(the_rotation_is_the_documented_one),
        cmocka_unit_test(outliers_and_patterns_are_spread_evenly),
        cmocka_unit_test(payloads_mean_what_their_descriptions_say),
        cmocka_unit_test(q8_takes_the_nearest_multiples),
        cmocka_unit_test(q4r_takes_the_largest_apart_and_the_nearest_levels),
        cmocka_unit_test(q4r_holds_rows_of_any_length),
    };

    return cmocka_run_group_tests_name("wire/codec_rows", tests, NULL, NULL);
}
