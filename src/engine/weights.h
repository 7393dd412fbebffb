/* engine/weights.h - the tensors of a layer range, in a device's memory.
 *
 * On the CPU most tensors are used where the file is mapped; those that ggml can
 * rearrange for speed (repack) are copied.  On a GPU all are copied, the mapping being
 * dropped behind the copy, so that the host never holds the range.
 *
 * SPDX-License-Identifier: MIT */
#ifndef ENGINE_WEIGHTS_H
#define ENGINE_WEIGHTS_H

#include "engine/device.h"
#include "model/model.h"

struct engine_layer {
    struct ggml_tensor *t[MODEL_SLOT_COUNT]; /* NULL where the model has none */
};

/* Immutable after loading.  A group is one ggml context and the buffers behind its
 * tensors: group 0 is mapped, the others are one a buffer type. */
struct engine_weights {
    uint32_t             first, last;
    struct engine_layer *layers;                     /* [layer - first] */
    struct ggml_tensor  *global[MODEL_GLOBAL_COUNT]; /* head and rope factors; no embedding */
    uint64_t             bytes;
    struct engine_weights_group *groups;
    uint32_t                     group_count;
    bool                         even; /* even_windows is asked for, and holds */
    uint64_t twice; /* bit t: with a tensor of ggml type t, a row that is alone goes in twice */
};

_Static_assert(GGML_TYPE_COUNT <= 64, "types are bits");

/* Load layers [first, last) of the model, and the head when last is its end.  Of the options
 * only repack and even_windows matter.  On failure nothing stays allocated.
 *   MCP_ENOMEM   the device has too little memory
 *   MCP_ENOTSUP  the device cannot multiply by a tensor's type */
int  engine_weights_load(struct engine_weights *w, const struct mcp_model *model, uint32_t first,
                         uint32_t last, struct engine_device *device, const mcp_engine_opts *opts,
                         mcp_error *err);
void engine_weights_free(struct engine_weights *w);

/* With even_windows: see whether products with something else than weights, (rows, width) of a
 * type, are even too. */
int engine_weights_try(struct engine_weights *w, enum ggml_type type, int64_t rows, int64_t width,
                       struct engine_device *device, mcp_error *err);

static inline bool engine_weights_twice(const struct engine_weights *w, enum ggml_type type)
{
    return (w->twice >> type & 1) != 0;
}

static inline struct engine_layer *engine_weights_layer(const struct engine_weights *w,
                                                        uint32_t                     layer)
{
    return &w->layers[layer - w->first];
}

#endif
