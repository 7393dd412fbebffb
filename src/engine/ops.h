/* engine/ops.h - what a forward does, op by op, without doing it.
 *
 * Builds the graph that engine_forward() would compute, over tensors that have shapes and types
 * and no memory, and walks it.  Only the file's header is looked at: a 7B model takes
 * milliseconds.
 *
 * The list is in the order of computation.  Views, reshapes and permutations cost nothing and
 * are left out: an op's sources are those that made the values.  Reading the KV cache counts as
 * reading what the same forward wrote there.
 *
 * SPDX-License-Identifier: MIT */
#ifndef ENGINE_OPS_H
#define ENGINE_OPS_H

#include "engine/graph.h"

enum {
    /* Attention has most: the query, and those that stored K and V; with a mask as made by an
     * op, one more. */
    ENGINE_OP_SOURCES_MAX = 4,
    ENGINE_OP_EMBED = -1, /* engine_op.layer of what comes before layer 0 */
};

enum engine_op_kind {
    ENGINE_OP_PRODUCT,     /* by a weight */
    ENGINE_OP_EXPERTS,     /* by the weights of chosen experts */
    ENGINE_OP_ATTENTION,   /* over the KV cache: fused, or its products and softmax */
    ENGINE_OP_NORM,        /* sums along a row */
    ENGINE_OP_ROPE,        /* rotary embedding */
    ENGINE_OP_ELEMENTWISE, /* one or a few operations an element */
    ENGINE_OP_CHOICE,      /* sorts and picks: comparisons, which are not counted */
    ENGINE_OP_MOVE,        /* copies: bytes and no arithmetic */
    ENGINE_OP_KINDS
};

struct engine_op {
    const char         *name; /* ggml's: "MUL_MAT", "ROPE", "SWIGLU" */
    enum engine_op_kind kind;
    int32_t             layer;  /* ENGINE_OP_EMBED, a layer, or n_layer: the head */
    const char         *weight; /* the model's name of the tensor it reads; NULL */
    int64_t             ne[4];  /* of the result, fastest first */
    uint32_t            sources[ENGINE_OP_SOURCES_MAX]; /* ops before this one */
    uint32_t            source_count;
    uint64_t            flops;
    uint64_t            weight_bytes;          /* of all experts, where there are any: */
    uint32_t            experts, experts_used; /* in the tensor, and by each token; 0 */
    uint64_t            kv_bytes;              /* of the cache, read or written */
    uint64_t            read_bytes;            /* of results of other ops, and of inputs */
    uint64_t            write_bytes;
};

struct engine_ops {
    struct engine_op *ops;
    uint32_t          count;
};

/* One window of one sequence, with a KV cache in f16. */
struct engine_ops_opts {
    uint32_t first, last;
    uint32_t tokens;  /* of the window */
    uint32_t context; /* positions before it */
    uint32_t rows;    /* of logits, where the head is in the range; 1 to tokens */
    bool     flash;
};

/* Layers [first, last), with the embedding when first is 0 and the head when last is the model's
 * end.  Names in the list are the model's.
 *   MCP_ERANGE  layers outside the model; tokens, rows or positions that no engine runs */
int  engine_ops_list(struct engine_ops *out, const struct mcp_model *model,
                     const struct engine_ops_opts *opts, mcp_error *err);
void engine_ops_fini(struct engine_ops *ops);

const char *engine_op_kind_name(enum engine_op_kind kind);

#endif
