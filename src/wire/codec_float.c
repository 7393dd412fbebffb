/* wire/codec_float.c - f32, f16 and bf16 rows: one little-endian number an element.
 *
 *     f32    4 bytes  IEEE 754 binary32
 *     f16    2 bytes  IEEE 754 binary16, nearest, ties to even; beyond +-65504 it saturates
 *     bf16   2 bytes  the upper half of a binary32, nearest, ties to even
 *
 * Encoders write the format's largest finite number for an infinity and 0 for NaN; decoders
 * refuse both.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/codec_rows.h"

/* Rows are worked in tiles, whose constant length and local arrays let the compiler vectorise;
 * the last one is filled up with zeros. */
enum { TILE = 64 };

#define BF16_MAX 0x1.fep127f

/* ---- f32 ----------------------------------------------------------------------------- */

size_t wire_f32_bytes(size_t elems)
{
    return elems * sizeof(float);
}

static void f32_put(uint8_t *target, const float *source)
{
    float out[TILE];

    for (size_t i = 0; i < TILE; i++)
        out[i] = wire_clean(source[i], FLT_MAX);
    memcpy(target, out, sizeof(out));
}

static bool f32_get(float *target, const uint8_t *source)
{
    uint32_t in[TILE], bad = 0;

    memcpy(in, source, sizeof(in));
    for (size_t i = 0; i < TILE; i++)
        bad |= (in[i] & 0x7f800000) == 0x7f800000;
    memcpy(target, in, sizeof(in));
    return bad == 0;
}

/* ---- f16 ----------------------------------------------------------------------------- */

size_t wire_f16_bytes(size_t elems)
{
    return elems * sizeof(uint16_t);
}

static void f16_put(uint8_t *target, const float *source)
{
    float    clean[TILE];
    uint16_t out[TILE];

    for (size_t i = 0; i < TILE; i++)
        clean[i] = wire_clean(source[i], WIRE_HALF_MAX);
    for (size_t i = 0; i < TILE; i++)
        out[i] = wire_half(clean[i]);
    memcpy(target, out, sizeof(out));
}

static bool f16_get(float *target, const uint8_t *source)
{
    uint16_t in[TILE];
    uint32_t bad = 0;

    memcpy(in, source, sizeof(in));
    for (size_t i = 0; i < TILE; i++) {
        bad |= !wire_half_finite(in[i]);
        target[i] = wire_half_value(in[i]);
    }
    return bad == 0;
}

/* ---- bf16 ---------------------------------------------------------------------------- */

size_t wire_bf16_bytes(size_t elems)
{
    return elems * sizeof(uint16_t);
}

static void bf16_put(uint8_t *target, const float *source)
{
    uint16_t out[TILE];

    for (size_t i = 0; i < TILE; i++) {
        uint32_t bits = wire_bits(wire_clean(source[i], BF16_MAX));

        out[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
    memcpy(target, out, sizeof(out));
}

static bool bf16_get(float *target, const uint8_t *source)
{
    uint16_t in[TILE];
    uint32_t bad = 0;

    memcpy(in, source, sizeof(in));
    for (size_t i = 0; i < TILE; i++) {
        bad |= (in[i] & 0x7f80) == 0x7f80;
        target[i] = wire_float((uint32_t)in[i] << 16);
    }
    return bad == 0;
}

/* ---- whole rows ------------------------------------------------------------------------- */

#define WHOLE_ROWS(name)                                                               \
    void wire_##name##_encode(uint8_t *target, const float *source, size_t elems)      \
    {                                                                                  \
        const size_t rest = elems % TILE, tiled = elems - rest;                        \
        float        last[TILE] = { 0 };                                               \
        uint8_t      bytes[TILE * sizeof(float)];                                      \
                                                                                       \
        for (size_t i = 0; i < tiled; i += TILE)                                       \
            name##_put(target + wire_##name##_bytes(i), source + i);                   \
        if (rest == 0)                                                                 \
            return;                                                                    \
        memcpy(last, source + tiled, rest * sizeof(float));                            \
        name##_put(bytes, last);                                                       \
        memcpy(target + wire_##name##_bytes(tiled), bytes, wire_##name##_bytes(rest)); \
    }                                                                                  \
                                                                                       \
    bool wire_##name##_decode(float *target, const uint8_t *source, size_t elems)      \
    {                                                                                  \
        const size_t rest = elems % TILE, tiled = elems - rest;                        \
        float        last[TILE];                                                       \
        uint8_t      bytes[TILE * sizeof(float)] = { 0 };                              \
        bool         good = true;                                                      \
                                                                                       \
        for (size_t i = 0; i < tiled; i += TILE)                                       \
            good &= name##_get(target + i, source + wire_##name##_bytes(i));           \
        if (rest == 0)                                                                 \
            return good;                                                               \
        memcpy(bytes, source + wire_##name##_bytes(tiled), wire_##name##_bytes(rest)); \
        good &= name##_get(last, bytes);                                               \
        memcpy(target + tiled, last, rest * sizeof(float));                            \
        return good;                                                                   \
    }

WHOLE_ROWS(f32)
WHOLE_ROWS(f16)
WHOLE_ROWS(bf16)
