/* wire/codec_q8.c - q8 and q8r rows, and the rotation that q8r and q4r share.
 *
 * q8, 34 bytes for 32 elements:
 *
 *     0   2    f16 scale d
 *     2  32    int8 q[32]                  x[i] = d q[i]
 *
 * An encoder takes for d the half nearest to (largest magnitude) / 127 and for q[i] the integer
 * nearest to x[i] / d in [-127, 127].  Where d would be subnormal (magnitudes below 0.008) its
 * own rounding, at most 2^-25, adds up to 127 times that to the error.
 *
 * q8r: the row's elements in blocks of 64, each rotated, y = H S x / 8, then written as two
 * blocks of q8; a decoder computes x = S H y / 8.  H is the Walsh-Hadamard matrix of order 64
 * in natural order, H[i][j] = (-1)^popcount(i & j); it is symmetric and H H = 64.  S changes
 * the sign of the elements i of the block for which
 *
 *     (b0 & b1) ^ (b2 & b3) ^ (b4 & b5) = 1,      i = b0 + 2 b1 + 4 b2 + ... + 32 b5.
 *
 * Why: a few channels of a hidden state are 10 to 1,000 times as large as the others and would
 * set the scale of their 31 neighbours.  Rotated, one value v becomes 64 of v / 8, and the
 * noise of the block falls by up to 32.  The signs are a bent function: its own transform is
 * flat, so that a block of equal or of alternating values, too, is spread evenly.
 * Blocks larger than 64 were measured to be worse: they carry outliers into blocks of scale 32
 * that had none, and the sum of their noise is no smaller.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/codec_rows.h"

enum { Q8_BYTES = 2 + WIRE_Q8_BLOCK };

#define Q8_MAX (WIRE_HALF_MAX * 127)

/* ---- rotation ------------------------------------------------------------------------- */

/* 1/8 and the signs in one exact factor. */
#define P 0.125f
#define N (-0.125f)
static const float SIGNS[WIRE_ROTATED] = {
    P, P, P, N, P, P, P, N, P, P, P, N, N, N, N, P, /* 0: b4 & b5 = 0 */
    P, P, P, N, P, P, P, N, P, P, P, N, N, N, N, P, /* 16 */
    P, P, P, N, P, P, P, N, P, P, P, N, N, N, N, P, /* 32 */
    N, N, N, P, N, N, N, P, N, N, N, P, P, P, P, N, /* 48 */
};
#undef P
#undef N

/* One of the six steps: sums and differences of elements `half` apart. */
__attribute__((always_inline)) static inline void butterflies(float *y, size_t half)
{
    for (size_t i = 0; i < WIRE_ROTATED; i += 2 * half) {
        for (size_t j = i; j < i + half; j++) {
            float a = y[j], b = y[j + half];

            y[j] = a + b;
            y[j + half] = a - b;
        }
    }
}

__attribute__((always_inline)) static inline void hadamard(float *y)
{
    butterflies(y, 1);
    butterflies(y, 2);
    butterflies(y, 4);
    butterflies(y, 8);
    butterflies(y, 16);
    butterflies(y, 32);
}

void wire_rotate(float y[WIRE_ROTATED])
{
    for (size_t i = 0; i < WIRE_ROTATED; i++)
        y[i] *= SIGNS[i];
    hadamard(y);
}

void wire_rotate_back(float x[WIRE_ROTATED])
{
    hadamard(x);
    for (size_t i = 0; i < WIRE_ROTATED; i++)
        x[i] *= SIGNS[i];
}

/* ---- blocks of 32 ------------------------------------------------------------------------ */

/* |y[i]| <= Q8_MAX */
static void block_put(uint8_t *restrict target, const float *restrict y)
{
    int32_t  most = 0;
    uint16_t half;
    float    scale, twice; /* y * twice = 2 y / scale */
    int16_t  n[WIRE_Q8_BLOCK];

    /* Magnitudes compare as their bits do, and integers have a vector maximum. */
    for (size_t i = 0; i < WIRE_Q8_BLOCK; i++) {
        int32_t magnitude = (int32_t)(wire_bits(y[i]) & 0x7fffffff);

        most = most > magnitude ? most : magnitude;
    }
    half = wire_half(wire_float((uint32_t)most) / 127);
    scale = wire_half_value(half);
    twice = scale > 0 ? 2 / scale : 0;
    wire_half_put(target, half);
    for (size_t i = 0; i < WIRE_Q8_BLOCK; i++) {
        float t = y[i] * twice;

        t = t < 254 ? t : 254;
        t = t > -254 ? t : -254;
        n[i] = (int16_t)(int32_t)t;
    }
    for (size_t i = 0; i < WIRE_Q8_BLOCK; i++) {
        n[i] = (int16_t)(n[i] + (n[i] < 0 ? -1 : 1)); /* odd: the fraction was at least a half */
        target[2 + i] = (uint8_t)(n[i] / 2);
    }
}

/* false: the scale is not finite. */
static bool block_get(float *restrict y, const uint8_t *restrict source)
{
    uint16_t half = wire_half_get(source);
    float    scale = wire_half_value(half);

    for (size_t i = 0; i < WIRE_Q8_BLOCK; i++)
        y[i] = scale * (float)(int8_t)source[2 + i];
    return wire_half_finite(half);
}

/* ---- rows -------------------------------------------------------------------------------- */

size_t wire_q8_bytes(size_t elems)
{
    return elems / WIRE_Q8_BLOCK * Q8_BYTES;
}

void wire_q8_encode(uint8_t *target, const float *source, size_t elems)
{
    for (size_t i = 0; i < elems; i += WIRE_Q8_BLOCK) {
        float y[WIRE_Q8_BLOCK];

        for (size_t j = 0; j < WIRE_Q8_BLOCK; j++)
            y[j] = wire_clean(source[i + j], Q8_MAX);
        block_put(target, y);
        target += Q8_BYTES;
    }
}

bool wire_q8_decode(float *target, const uint8_t *source, size_t elems)
{
    bool good = true;

    for (size_t i = 0; i < elems; i += WIRE_Q8_BLOCK) {
        good &= block_get(target + i, source);
        source += Q8_BYTES;
    }
    return good;
}

size_t wire_q8r_bytes(size_t elems)
{
    return wire_q8_bytes(elems);
}

void wire_q8r_encode(uint8_t *target, const float *source, size_t elems)
{
    for (size_t i = 0; i < elems; i += WIRE_ROTATED) {
        float y[WIRE_ROTATED];

        for (size_t j = 0; j < WIRE_ROTATED; j++)
            y[j] = wire_clean(source[i + j], WIRE_ROTATED_MAX);
        wire_rotate(y);
        block_put(target, y);
        block_put(target + Q8_BYTES, y + WIRE_Q8_BLOCK);
        target += 2 * Q8_BYTES;
    }
}

bool wire_q8r_decode(float *target, const uint8_t *source, size_t elems)
{
    bool good = true;

    for (size_t i = 0; i < elems; i += WIRE_ROTATED) {
        good &= block_get(target + i, source);
        good &= block_get(target + i + WIRE_Q8_BLOCK, source + Q8_BYTES);
        wire_rotate_back(target + i);
        source += 2 * Q8_BYTES;
    }
    return good;
}
