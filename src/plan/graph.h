/* plan/graph.h - what a model's computation consists of: work of every op, what may run at the same
 * time, how wide each cut is.
 *
 * The engine builds the graph of all layers, with logits of every position, and lists its ops for
 * four shapes, two token counts by two numbers of KV columns.  FLOPs, bytes and elements of an op
 * are bilinear in those two
 *
 *     v(n, c) = v0 + vn n + vc c + vnc n c        n tokens, c columns (context and window)
 *
 * (a matrix product grows with n, reading the cache with c, attention with n c), so four shapes
 * give all others.  Only how many experts a layer touches is not linear in n; see `experts`.
 *
 * Pure: a graph copies what it needs and may be used by any number of threads.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PLAN_GRAPH_H
#define PLAN_GRAPH_H

#include <mcp/error.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    PLAN_OPS_MAX = 1 << 16,   /* 61 layers of DeepSeek-V3 have about 4,000 */
    PLAN_OP_SOURCES_MAX = 10, /* GGML_MAX_SRC */
    PLAN_LAYERS_MAX = 256,    /* of a model; the largest known has 126 */
    PLAN_OP_EMBED = -1,       /* layer of what happens before layer 0 */
    PLAN_OP_HEAD = 1 << 20,   /* layer of final norm and output */
    PLAN_OP_NAME_BYTES = 64,
};

/* One op at one shape. */
struct plan_op {
    char     name[PLAN_OP_NAME_BYTES]; /* "ffn_gate-3" */
    char     kind[24];                 /* "MUL_MAT" */
    int32_t  layer;                    /* PLAN_OP_EMBED, 0..layers-1, PLAN_OP_HEAD */
    double   flops;
    double   weight_bytes;          /* of parameters read; of all experts where `experts` is set */
    double   activation_bytes;      /* read and written, KV included */
    double   elements;              /* of the output */
    uint32_t experts, experts_used; /* of a layer, and by each token; 0 = not such an op */
    /* Ops that must have run: those whose output it reads, and those that stored the rows of the
     * cache that it reads.  Smaller than its own index; weights and inputs are not listed. */
    uint32_t source_count;
    uint32_t sources[PLAN_OP_SOURCES_MAX];
};

/* The ops of one shape in an order in which they may run. */
struct plan_ops {
    uint32_t              tokens, columns;
    uint32_t              count;
    const struct plan_op *ops;
};

/* In this order; the same ops in each, n[0] < n[1], c[0] < c[1]. */
enum plan_shape {
    PLAN_SHAPE_N0_C0,
    PLAN_SHAPE_N1_C0,
    PLAN_SHAPE_N0_C1,
    PLAN_SHAPE_N1_C1,
    PLAN_SHAPES
};

struct plan_graph;

/* MCP_EFORMAT: shapes that are no such grid, lists of different ops, a source that comes later, a
 * number that is negative or not finite.  MCP_ERANGE: too many ops or layers.  MCP_ENOMEM. */
int  plan_graph_new(struct plan_graph **out, const struct plan_ops shapes[PLAN_SHAPES],
                    mcp_error *err);
void plan_graph_free(struct plan_graph *graph); /* NULL is allowed */

uint32_t plan_graph_layers(const struct plan_graph *graph);
uint32_t plan_graph_ops(const struct plan_graph *graph);

/* What something costs for `tokens` positions that see `columns` of KV. */
struct plan_work {
    double   flops;
    double   weight_bytes;
    double   activation_bytes;
    uint32_t launches; /* ops that do anything: views and reshapes do not */
};

/* layer: as in plan_op. */
struct plan_work plan_graph_layer(const struct plan_graph *graph, int32_t layer, uint32_t tokens,
                                  uint32_t columns);
struct plan_work plan_graph_total(const struct plan_graph *graph, uint32_t tokens,
                                  uint32_t columns);

/* One op of the graph; valid as long as the graph. */
struct plan_op_info {
    const char     *name, *kind;
    int32_t         layer;
    uint32_t        source_count;
    const uint32_t *sources;
    /* Ops with work of one group depend on none of the same group: they may run at once.  Groups
     * are numbered in the order in which they must run.  An op without work has its source's. */
    uint32_t group;
    bool     works; /* has FLOPs or moves bytes */
    /* Elements a token that would cross the wire, were the list cut behind this op: outputs of
     * this and earlier ops that later ones read. */
    double cut_width;
};

struct plan_op_info plan_graph_op(const struct plan_graph *graph, uint32_t index);
struct plan_work plan_graph_op_work(const struct plan_graph *graph, uint32_t index, uint32_t tokens,
                                    uint32_t columns);

uint32_t plan_graph_groups(const struct plan_graph *graph);
uint32_t plan_graph_group_size(const struct plan_graph *graph, uint32_t group); /* ops with work */

/* Elements a token that cross the boundary below layer `layer` (0..layers; 0 = behind the
 * embedding, layers = before the head).  A plan may cut where this is n_embd. */
double plan_graph_cut_width(const struct plan_graph *graph, uint32_t layer);

/* A device of which only the data sheet is known. */
struct plan_roof {
    double bytes_per_s; /* that it really reaches, of its memory */
    double flops_per_s; /* that it really reaches, in the type that it computes in */
    double launch_ms;   /* before an op begins */
};

/* An op takes the longer of its bytes and its FLOPs, and a launch; ops run one after another. */
double plan_roof_ms(const struct plan_roof *roof, const struct plan_work *work);
double plan_graph_layer_ms(const struct plan_graph *graph, int32_t layer, uint32_t tokens,
                           uint32_t columns, const struct plan_roof *roof);

/* The longest chain of dependent ops, ms: what would be left if all that may run at once did.
 * With `chain` (room for plan_graph_ops()) also its ops in order, *chain_count of them.
 * MCP_ENOMEM. */
int plan_graph_critical_ms(const struct plan_graph *graph, uint32_t tokens, uint32_t columns,
                           const struct plan_roof *roof, double *ms, uint32_t *chain,
                           uint32_t *chain_count, mcp_error *err);

#endif
