/* sim/engine_common.c - see engine_common.h.
 *
 * SPDX-License-Identifier: MIT */
#include "sim/engine_common.h"

/* Attention paths of the CPU: windows of 64 and more are tiled, single tokens at 512 columns and
 * more are split over KV (unless the engine keeps them even), the rest go row by row. */
enum attention { ROW_BY_ROW, TILED, SPLIT_KV };

static enum attention class_of(const struct sim_model *m, uint32_t pos, uint32_t count)
{
    if (count >= 64)
        return TILED;
    return count == 1 && !m->even_windows && (pos + count + 255) / 256 * 256 >= 512 ? SPLIT_KV
                                                                                    : ROW_BY_ROW;
}

uint64_t sim_mix(uint64_t a, uint64_t b)
{
    uint64_t z = (a ^ 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u + b;

    z = (z ^ (z >> 29)) * 0x94d049bb133111ebu;
    return z ^ (z >> 32);
}

void sim_kv_init(struct sim_kv *kv, uint32_t first, uint32_t last)
{
    *kv = (struct sim_kv){ .first = first, .last = last };
    kv->at = calloc((size_t)(last - first) * SIM_CTX, sizeof(*kv->at));
    assert_non_null(kv->at);
}

void sim_kv_fini(struct sim_kv *kv)
{
    free(kv->at);
    *kv = (struct sim_kv){ 0 };
}

/* A row is its hash, then what only tells damage. */
static void write_row(const struct sim_model *m, uint8_t *row, uint64_t hash)
{
    for (uint32_t i = 0; i < m->row_bytes; i += sizeof(hash)) {
        uint64_t word = hash + i;

        memcpy(row + i, &word, sizeof(word));
    }
}

static uint64_t read_row(const struct sim_model *m, const uint8_t *row)
{
    uint64_t hash = sim_row_hash(row), last;

    memcpy(&last, row + m->row_bytes - sizeof(last), sizeof(last));
    assert_int_equal(last, hash + m->row_bytes - sizeof(last));
    return hash;
}

uint64_t sim_row_hash(const uint8_t *row)
{
    uint64_t hash;

    memcpy(&hash, row, sizeof(hash));
    return hash;
}

int32_t sim_sample(const uint8_t *logits)
{
    return (int32_t)(sim_row_hash(logits) % SIM_TOKENS);
}

void sim_forward(const struct sim_model *m, struct sim_kv *kv, uint32_t first, uint32_t last,
                 uint32_t pos, uint32_t count, const int32_t *tokens, const uint8_t *rows,
                 uint8_t *out)
{
    enum attention class = class_of(m, pos, count);

    assert_true(first >= kv->first && last <= kv->last);
    assert_int_equal(pos, kv->length);
    assert_true(count > 0 && count <= SIM_CTX - pos);
    assert_true((tokens != NULL) == (first == 0));
    for (uint32_t i = 0; i < count; i++) {
        uint64_t hash = tokens != NULL ? sim_mix(1, (uint64_t)tokens[i])
                                       : read_row(m, rows + (size_t)i * m->row_bytes);

        for (uint32_t layer = first; layer < last; layer++) {
            uint64_t *at = kv->at + (size_t)(layer - kv->first) * SIM_CTX + pos + i;
            uint64_t  before = pos + i > 0 ? at[-1] : 0;

            *at = sim_mix(sim_mix(hash, before), layer * 4 + class);
            hash = sim_mix(hash, *at);
        }
        if (out != NULL)
            write_row(m, out + (size_t)i * m->row_bytes, hash);
    }
    kv->length = pos + count;
}
