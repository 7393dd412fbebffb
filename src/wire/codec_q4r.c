/* wire/codec_q4r.c - q4r rows: outliers apart, the rest rotated and written in 4 bits.
 *
 * A row of n elements has k = min(n / 128, 64) outliers and n / 64 blocks:
 *
 *     0       2 k             uint16 index[k], below n
 *     2 k     2 k             f16 value[k]
 *     4 k     34 (n / 64)     blocks:   0    2    f16 scale d
 *                                       2   32    codes; byte j holds that of element j in
 *                                                 its low half, of element j + 32 in its high
 *
 * A decoder takes y = d LEVELS[code] for each element of a block, rotates it back as q8r does
 * (codec_q8.c), and adds value[i] to element index[i] of the row.
 *
 * The encoder here picks the elements of largest magnitude (the first of equals; among the
 * first 65,536 of the row), subtracts their halves, and tries three scales a block for the
 * smallest squared error; another one may choose as it likes.
 *
 * Why: 4 bits leave noise 21 dB below what they hold, so the handful of channels that are far
 * larger than the rest would drown it even when their weight is spread over a block; as
 * outliers they cost 4 bytes each (7 % of the row) and win 3 dB.  What is left is close to
 * normally distributed after the rotation, and LEVELS are the best 16 for that (Lloyd's
 * algorithm over rotated hidden states and over a normal source, scales chosen as here).
 *
 * SPDX-License-Identifier: MIT */
#include "wire/codec_rows.h"

#include <stdlib.h>

enum {
    ELEMS_PER_OUTLIER = 128,
    OUTLIERS_MAX = 64, /* n_embd 8192; beyond, hidden states have no more of them */
    OUTLIER_BYTES = 4,
    INDEX_LIMIT = 1 << 16,
    BLOCK_BYTES = 2 + WIRE_ROTATED / 2,
    STEPS = 7, /* from the smallest of 8 magnitudes to the largest */
    FINE = 16, /* magnitudes are compared in 1/16 of a level's unit */
};

static const int8_t LEVELS[16] = {
    -127, -97, -76, -59, -44, -31, -18, -6, 6, 18, 31, 44, 59, 76, 97, 127,
};

/* Above it a magnitude is nearer to the next level: between levels 8 + k and 9 + k. */
#define MIDDLE(k) (FINE / 2 * (LEVELS[8 + (k)] + LEVELS[9 + (k)]))

/* ---- outliers ----------------------------------------------------------------------------- */

struct outlier {
    uint32_t magnitude; /* the float's bits without sign: they compare as the values do */
    uint32_t index;
    float    value; /* of its half */
};

static size_t outliers_of(size_t elems)
{
    size_t count = elems / ELEMS_PER_OUTLIER;

    return count < OUTLIERS_MAX ? count : OUTLIERS_MAX;
}

/* Into its place among those kept so far, largest first; the last one may fall out. */
static size_t outlier_keep(struct outlier *kept, size_t count, size_t room, struct outlier next)
{
    size_t at = count < room ? count++ : room - 1;

    for (; at > 0 && kept[at - 1].magnitude < next.magnitude; at--)
        kept[at] = kept[at - 1];
    kept[at] = next;
    return count;
}

static void outliers_find(struct outlier *kept, size_t room, const float *source, size_t elems)
{
    size_t limit = elems < INDEX_LIMIT ? elems : INDEX_LIMIT, count = 0;

    for (size_t i = 0; i < limit && room > 0; i += WIRE_ROTATED) {
        int32_t magnitude[WIRE_ROTATED], most = 0;

        for (size_t j = 0; j < WIRE_ROTATED; j++) {
            float value = wire_clean(source[i + j], WIRE_ROTATED_MAX);

            magnitude[j] = (int32_t)(wire_bits(value) & 0x7fffffff);
            most = most > magnitude[j] ? most : magnitude[j];
        }
        if (count == room && (uint32_t)most <= kept[room - 1].magnitude)
            continue;
        for (size_t j = 0; j < WIRE_ROTATED; j++) {
            struct outlier next = { (uint32_t)magnitude[j], (uint32_t)(i + j), 0 };

            if (count < room || next.magnitude > kept[room - 1].magnitude)
                count = outlier_keep(kept, count, room, next);
        }
    }
}

static int outlier_compare(const void *a, const void *b)
{
    const struct outlier *x = a, *y = b;

    return (x->index > y->index) - (x->index < y->index);
}

/* Find and write them; they are left in order of their index. */
static void outliers_put(uint8_t *target, struct outlier *kept, size_t room, const float *source,
                         size_t elems)
{
    outliers_find(kept, room, source, elems);
    qsort(kept, room, sizeof(*kept), outlier_compare);
    for (size_t i = 0; i < room; i++) {
        uint16_t half = wire_half(wire_clean(source[kept[i].index], WIRE_HALF_MAX));

        kept[i].value = wire_half_value(half);
        wire_half_put(target + 2 * i, (uint16_t)kept[i].index);
        wire_half_put(target + 2 * (room + i), half);
    }
}

/* false: a value is not finite, or an index lies outside the row. */
static bool outliers_add(float *target, size_t elems, const uint8_t *source, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t index = wire_half_get(source + 2 * i);
        uint16_t half = wire_half_get(source + 2 * (count + i));

        if (index >= elems || !wire_half_finite(half))
            return false;
        target[index] += wire_half_value(half);
    }
    return true;
}

/* ---- blocks of 64 --------------------------------------------------------------------------- */

/* Magnitudes in units of scale / FINE, as integers: from here on arithmetic is exact. */
static void block_measure(int16_t *restrict fine, const float *restrict y, float scale)
{
    float inverse = scale > 0 ? FINE / scale : 0;

    for (size_t i = 0; i < WIRE_ROTATED; i++) {
        float t = fabsf(y[i]) * inverse;

        t = t < 2 * 127 * FINE ? t : 2 * 127 * FINE;
        fine[i] = (int16_t)(int32_t)t;
    }
}

/* Squared error of rounding to the levels, in the same units. */
static int32_t block_error(const int16_t *restrict fine)
{
    int16_t level[WIRE_ROTATED];
    int32_t sum = 0; /* 64 (2 x 127 - 127)^2 FINE^2 at most */

    for (size_t i = 0; i < WIRE_ROTATED; i++)
        level[i] = FINE * 6;
    for (size_t k = 0; k < STEPS; k++) {
        const int16_t middle = MIDDLE(k), step = FINE * (LEVELS[9 + k] - LEVELS[8 + k]);

        for (size_t i = 0; i < WIRE_ROTATED; i++)
            level[i] = (int16_t)(level[i] + (fine[i] > middle ? step : 0));
    }
    for (size_t i = 0; i < WIRE_ROTATED; i++)
        sum += (fine[i] - level[i]) * (fine[i] - level[i]);
    return sum;
}

static void block_put(uint8_t *restrict target, const float *restrict y)
{
    /* The largest level stands for so much of the largest magnitude: clipped, just met, or
     * with room above.  Five or nine scales were measured to win 0.06 and 0.12 dB more. */
    static const float SHARES[] = { 0.9f / 127, 1.0f / 127, 1.1f / 127 };
    int16_t            fine[WIRE_ROTATED], code[WIRE_ROTATED] = { 0 };
    double             error_least = INFINITY;
    uint16_t           best = 0;
    int32_t            most = 0;

    for (size_t i = 0; i < WIRE_ROTATED; i++) {
        int32_t magnitude = (int32_t)(wire_bits(y[i]) & 0x7fffffff);

        most = most > magnitude ? most : magnitude;
    }
    for (size_t k = 0; k < sizeof(SHARES) / sizeof(SHARES[0]); k++) {
        float    share = wire_float((uint32_t)most) * SHARES[k];
        uint16_t half = wire_half(share < WIRE_HALF_MAX ? share : WIRE_HALF_MAX);
        double   scale = wire_half_value(half), error;

        block_measure(fine, y, (float)scale);
        error = scale * scale * block_error(fine); /* 50 bits: exact */
        if (error < error_least) {
            error_least = error;
            best = half;
        }
    }

    block_measure(fine, y, wire_half_value(best));
    for (size_t k = 0; k < STEPS; k++) {
        const int16_t middle = MIDDLE(k);

        for (size_t i = 0; i < WIRE_ROTATED; i++)
            code[i] = (int16_t)(code[i] + (fine[i] > middle));
    }
    for (size_t i = 0; i < WIRE_ROTATED; i++)
        code[i] = (int16_t)(y[i] < 0 ? 7 - code[i] : 8 + code[i]);
    wire_half_put(target, best);
    for (size_t i = 0; i < WIRE_ROTATED / 2; i++)
        target[2 + i] = (uint8_t)(code[i] | code[i + WIRE_ROTATED / 2] << 4);
}

/* false: the scale is not finite. */
static bool block_get(float *restrict y, const uint8_t *restrict source)
{
    uint16_t half = wire_half_get(source);
    float    scale = wire_half_value(half);

    for (size_t i = 0; i < WIRE_ROTATED / 2; i++) {
        y[i] = scale * LEVELS[source[2 + i] & 15];
        y[i + WIRE_ROTATED / 2] = scale * LEVELS[source[2 + i] >> 4];
    }
    return wire_half_finite(half);
}

/* ---- rows -------------------------------------------------------------------------------------- */

size_t wire_q4r_bytes(size_t elems)
{
    return outliers_of(elems) * OUTLIER_BYTES + elems / WIRE_ROTATED * BLOCK_BYTES;
}

void wire_q4r_encode(uint8_t *target, const float *source, size_t elems)
{
    struct outlier outliers[OUTLIERS_MAX];
    size_t         count = outliers_of(elems), next = 0;

    outliers_put(target, outliers, count, source, elems);
    target += count * OUTLIER_BYTES;
    for (size_t i = 0; i < elems; i += WIRE_ROTATED) {
        float y[WIRE_ROTATED];

        for (size_t j = 0; j < WIRE_ROTATED; j++)
            y[j] = wire_clean(source[i + j], WIRE_ROTATED_MAX);
        for (; next < count && outliers[next].index < i + WIRE_ROTATED; next++)
            y[outliers[next].index - i] -= outliers[next].value;
        wire_rotate(y);
        block_put(target, y);
        target += BLOCK_BYTES;
    }
}

bool wire_q4r_decode(float *target, const uint8_t *source, size_t elems)
{
    size_t         count = outliers_of(elems);
    const uint8_t *block = source + count * OUTLIER_BYTES;
    bool           good = true;

    for (size_t i = 0; i < elems; i += WIRE_ROTATED) {
        good &= block_get(target + i, block);
        wire_rotate_back(target + i);
        block += BLOCK_BYTES;
    }
    return good && outliers_add(target, elems, source, count);
}
