/* wire/codec_rows.h - the row functions behind the table in codec.c, and their arithmetic.
 *
 * The same row must give the same bytes whatever the compiler, its flags and the machine.  So
 * there is no expression here whose value depends on whether a product and a sum are fused
 * (FMA): each product either is exact, or only feeds a comparison or a conversion to an
 * integer.  Sums are written in the order in which they are added.  The test has the digests.
 *
 * Loops that matter have constant lengths: gcc -O2 vectorises only those.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_CODEC_ROWS_H
#define WIRE_CODEC_ROWS_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

_Static_assert(FLT_EVAL_METHOD == 0, "floats are computed as floats, or bytes would differ");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "payloads are little-endian");

#define WIRE_HALF_MAX 65504.0f

/* The table's columns of one row kind; see struct wire_codec. */
#define WIRE_ROW_FUNCTIONS(name)                                                     \
    size_t wire_##name##_bytes(size_t elems);                                        \
    void   wire_##name##_encode(uint8_t *target, const float *source, size_t elems); \
    bool   wire_##name##_decode(float *target, const uint8_t *source, size_t elems)

WIRE_ROW_FUNCTIONS(f32);
WIRE_ROW_FUNCTIONS(f16);
WIRE_ROW_FUNCTIONS(bf16);
WIRE_ROW_FUNCTIONS(q8);
WIRE_ROW_FUNCTIONS(q8r);
WIRE_ROW_FUNCTIONS(q4r);

/* ---- bits -------------------------------------------------------------------------- */

static inline uint32_t wire_bits(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static inline float wire_float(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* What is encoded for a value: NaN has no neighbour and becomes 0, the rest saturates. */
static inline float wire_clean(float value, float limit)
{
    value = isnan(value) ? 0.0f : value;
    value = value < limit ? value : limit;
    return value > -limit ? value : -limit;
}

/* ---- half precision ------------------------------------------------------------------ */

/* Nearest half, ties to even.  |value| <= WIRE_HALF_MAX.
 *
 * A half of exponent e counts in 2^(e-10), one below 2^-14 as if e were -14.  A float at
 * 2^(e+13) counts in the same unit: adding that rounds, and leaves the count in the last bits. */
static inline uint16_t wire_half(float value)
{
    const int32_t  least = 113 << 23; /* 2^-14 */
    const uint32_t bits = wire_bits(value), magnitude = bits & 0x7fffffff;
    int32_t        exponent = (int32_t)(bits & 0x7f800000);
    uint32_t       base, count;

    exponent = exponent > least ? exponent : least;
    base = (uint32_t)exponent + (13u << 23);
    count = wire_bits(wire_float(magnitude) + wire_float(base)) - base;
    return (uint16_t)((bits >> 16 & 0x8000) + ((uint32_t)(exponent - least) >> 13) + count);
}

/* Its value; of a half that is not finite, some number (see wire_half_finite). */
static inline float wire_half_value(uint16_t half)
{
    uint32_t exponent = half >> 10 & 31, subnormal = exponent == 0;
    uint32_t count = (half & 1023u) + 1024 - (subnormal << 10);
    float    unit = wire_float((exponent + subnormal + 102) << 23); /* 2^(e-10) */

    return wire_float(wire_bits((float)(int32_t)count * unit) | (half & 0x8000u) << 16);
}

static inline bool wire_half_finite(uint16_t half)
{
    return (half & 0x7c00) != 0x7c00;
}

static inline void wire_half_put(uint8_t *target, uint16_t half)
{
    memcpy(target, &half, sizeof(half));
}

static inline uint16_t wire_half_get(const uint8_t *source)
{
    uint16_t half;

    memcpy(&half, source, sizeof(half));
    return half;
}

/* ---- blocks (codec_q8.c) ---------------------------------------------------------------- */

enum { WIRE_Q8_BLOCK = 32, WIRE_ROTATED = 64 };

/* The largest magnitude that every encoder of scaled blocks can hold in any position: a scale
 * of WIRE_HALF_MAX times 127, divided by 8, which is how much a rotation can add up. */
#define WIRE_ROTATED_MAX (WIRE_HALF_MAX * 127 / 8)

/* y <- H S y / 8, and x <- S H x / 8: see codec_q8.c. */
void wire_rotate(float y[WIRE_ROTATED]);
void wire_rotate_back(float x[WIRE_ROTATED]);

#endif
