/* engine/even.h - does a matrix product give the same bits however many rows come at once?
 *
 * ggml chooses a kernel by the number of rows: llamafile's from two rows on, a tiled one from
 * eight, rearranged weights in fours with another kernel for the rest.  Kernels that add in
 * another order give other last bits, so a token could depend on who shares its batch.  Which
 * kernels there are depends on the type, the processor and ggml's version.  So this is tried,
 * with a small weight of the same type and width, before an engine with even_windows takes a
 * place for a tensor.
 *
 * The engine computes such batches by ggml's reference arithmetic, which leaves out split-KV and
 * tiled attention and the tiled products; what remains uneven is the single row, which then goes
 * in twice, and some rearranged weights, which are then used as the file has them.
 *
 * SPDX-License-Identifier: MIT */
#ifndef ENGINE_EVEN_H
#define ENGINE_EVEN_H

#include "engine/device.h"

enum engine_even {
    ENGINE_EVEN_NOT,   /* the bits depend on the number of rows */
    ENGINE_EVEN_TWICE, /* they do not from two rows on: a single one must go in twice */
    ENGINE_EVEN,       /* they do not */
};

/* A weight to try. */
struct engine_even_weight {
    enum ggml_type             type;
    int64_t                    width; /* of a row */
    int64_t                    rows;  /* its number decides between kernels too */
    const uint8_t             *data;  /* (rows, width), or NULL when there are none */
    bool                       by_id; /* of an expert: MUL_MAT_ID */
    ggml_backend_buffer_type_t buft;  /* where it would lie */
};

/* MCP_ENOMEM is the only failure. */
int engine_even_try(enum engine_even *out, struct engine_device *device,
                    const struct engine_even_weight *weight, mcp_error *err);

#endif
