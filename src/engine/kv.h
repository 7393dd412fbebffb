/* engine/kv.h - the keys and values of every sequence, layer by layer.
 *
 *      layer l:   K  (width_k, ctx, seqs)        one row a position, one region a sequence
 *                 V  (width_v, ctx, seqs)        with flash attention: as K
 *                 V  (ctx, width_v, seqs)        without: transposed, so that the product
 *                                                with the attention weights reads rows
 *
 * A position's row is its index: nothing is searched, moved or fragmented, and trimming
 * is lowering a number.  Rows at and behind a sequence's length hold old or zero bytes;
 * the attention mask keeps them out.
 *
 * Masked is not harmless, though: zero times a NaN or an infinity is NaN.  Numbers
 * that overflowed must not hurt what comes in their place, so imported rows must be finite,
 * and no forward reads rows that were given up: what it does not overwrite itself is zeroed
 * first (engine_kv_claim).  Guesses that were trimmed are overwritten by the next window as a
 * rule, so that costs nothing.
 *
 *      0          length            written           ctx
 *      |  stored    |  given up        |  zero         |       length <= written
 *
 * length[seq][layer] is the truth about what is stored: ranges of one sequence may run at
 * different times, so each layer has its own.
 *
 * SPDX-License-Identifier: MIT */
#ifndef ENGINE_KV_H
#define ENGINE_KV_H

#include "engine/device.h"
#include "model/hparams.h"

enum {
    /* The attention's column count is rounded up to this, so that a decode graph can be
     * used again for as many steps (llama.cpp's figure; equal padding also gives equal
     * bits on the CPU). */
    ENGINE_KV_PAD = 256,
};

struct engine_kv {
    uint32_t              first, last; /* layers */
    uint32_t              seqs;
    uint32_t              ctx;              /* rows a sequence: a multiple of ENGINE_KV_PAD */
    uint32_t              width_k, width_v; /* floats a row; width_v 0: V is a view of K */
    enum ggml_type        type_k, type_v;
    bool                  flash;
    struct ggml_context  *meta;
    ggml_backend_buffer_t buffer;
    struct ggml_tensor  **k, **v;        /* [layer - first] */
    struct ggml_tensor   *rot_k, *rot_v; /* Hadamard matrices for quantised rows, or NULL */
    uint32_t             *length;        /* (seqs, last - first) */
    uint32_t             *written;       /* the same: rows that may hold something */
};

int  engine_kv_open(struct engine_kv *kv, const struct model_hparams *hp, uint32_t first,
                    uint32_t last, uint32_t seqs, uint32_t ctx_tokens, enum ggml_type type_k,
                    enum ggml_type type_v, bool flash, const struct engine_device *device,
                    mcp_error *err);
void engine_kv_close(struct engine_kv *kv);

uint64_t engine_kv_bytes(const struct engine_kv *kv);

static inline uint32_t *engine_kv_length(const struct engine_kv *kv, uint32_t seq, uint32_t layer)
{
    return &kv->length[(size_t)seq * (kv->last - kv->first) + (layer - kv->first)];
}

static inline uint32_t *engine_kv_written(const struct engine_kv *kv, uint32_t seq, uint32_t layer)
{
    return &kv->written[(size_t)seq * (kv->last - kv->first) + (layer - kv->first)];
}

static inline uint32_t engine_kv_pad(uint32_t positions)
{
    return (positions + ENGINE_KV_PAD - 1) / ENGINE_KV_PAD * ENGINE_KV_PAD;
}

/* Rows from the length up to `end` of layers [first, last) are about to be written, and more
 * may be read behind a mask: those are zeroed unless they are zero.  Lengths are not touched. */
void engine_kv_claim(struct engine_kv *kv, uint32_t seq, uint32_t first, uint32_t last,
                     uint32_t end);

/* Zero all rows of a sequence, in every layer.  Lengths are not touched. */
void engine_kv_clear(struct engine_kv *kv, uint32_t seq);

/* No NaN and no infinity in `bytes` of whole rows (or of their scales). */
bool engine_kv_finite(enum ggml_type type, const uint8_t *rows, size_t bytes);

/* Rows [pos, pos + count) of one layer and sequence, to or from host memory in row order
 * whatever the layout.  `bytes` per row: see engine_kv_row_bytes(). */
size_t engine_kv_row_bytes(const struct engine_kv *kv, bool v);
int engine_kv_read(const struct engine_kv *kv, uint32_t seq, uint32_t layer, bool v, uint32_t pos,
                   uint32_t count, uint8_t *rows, mcp_error *err);
int engine_kv_write(const struct engine_kv *kv, uint32_t seq, uint32_t layer, bool v, uint32_t pos,
                    uint32_t count, const uint8_t *rows, mcp_error *err);

#endif
