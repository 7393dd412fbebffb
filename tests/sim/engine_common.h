/* sim/engine_common.h - a model that forgets nothing, in place of an engine.
 *
 * The KV of a layer at a position is a hash of what came into that layer there, of the KV before
 * it, and of the attention class of its window (docs/architecture.md, "Window sizes and bits").
 * So an input that is lost, doubled, exchanged or stale, and a window that is run in another
 * class than it was first, changes every later row.
 *
 * SPDX-License-Identifier: MIT */
#ifndef SIM_ENGINE_COMMON_H
#define SIM_ENGINE_COMMON_H

#include "base/unit_test.h"

enum {
    SIM_LAYERS = 8,
    SIM_CTX = 2560,
    SIM_ROW_BYTES_MAX = 256,
    SIM_WINDOW_MAX = 256, /* positions: batch_tokens of workers, largest chunk */
    SIM_TOKENS = 3,       /* so few that drafts are often right */
};

struct sim_model {
    uint32_t row_bytes; /* of a hidden state and of a row of logits; a multiple of 8 */
    bool     even_windows;
};

/* A slot's cache for layers [first, last). */
struct sim_kv {
    uint32_t  first, last, length;
    uint64_t *at; /* (last - first, SIM_CTX) */
};

void sim_kv_init(struct sim_kv *kv, uint32_t first, uint32_t last);
void sim_kv_fini(struct sim_kv *kv);

/* Run layers [first, last) over positions [pos, pos + count): from `tokens` (layer 0), or from rows.
 * Fails the test when pos is not the length, or a row was damaged on its way. */
void sim_forward(const struct sim_model *m, struct sim_kv *kv, uint32_t first, uint32_t last,
                 uint32_t pos, uint32_t count, const int32_t *tokens, const uint8_t *rows,
                 uint8_t *out);

uint64_t sim_mix(uint64_t a, uint64_t b);
uint64_t sim_row_hash(const uint8_t *row);
int32_t  sim_sample(const uint8_t *logits);

#endif
