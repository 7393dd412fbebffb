/* plan/graph_made_test.h - lists of ops for tests: a transformer of known FLOPs, and random ones.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PLAN_GRAPH_MADE_TEST_H
#define PLAN_GRAPH_MADE_TEST_H

#include "plan/made_test.h"

enum { MADE_WIDTH = 64, MADE_VOCAB = 1000, MADE_OPS_MAX = 256 };

/* The lists of four shapes and where they are kept. */
struct made_ops {
    struct plan_op  ops[PLAN_SHAPES][MADE_OPS_MAX];
    struct plan_ops shapes[PLAN_SHAPES];
};

static inline uint32_t made_add(struct made_ops *m, int shape, const char *name, int32_t layer,
                                double flops, double weights, double activations, double elements,
                                uint32_t source_count, const uint32_t *sources)
{
    uint32_t        index = m->shapes[shape].count++;
    struct plan_op *op = &m->ops[shape][index];

    memset(op, 0, sizeof(*op));
    snprintf(op->name, sizeof(op->name), "%s-%d", name, layer);
    snprintf(op->kind, sizeof(op->kind), "%s", flops > 0.0 ? "MUL_MAT" : "ADD");
    op->layer = layer;
    op->flops = flops;
    op->weight_bytes = weights;
    op->activation_bytes = activations;
    op->elements = elements;
    op->source_count = source_count;
    for (uint32_t i = 0; i < source_count; i++)
        op->sources[i] = sources[i];
    return index;
}

#define MADE_SOURCES(...)                                                        \
    (sizeof((uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t)), (const uint32_t[]) \
    {                                                                            \
        __VA_ARGS__                                                              \
    }

/* One layer: q, k, v side by side, the cache, attention, output, sum; then gate and up side by
 * side, down, sum.  Returns the hidden state. */
static inline uint32_t made_layer(struct made_ops *m, int shape, int32_t layer, uint32_t in,
                                  double n, double c)
{
    double   w = MADE_WIDTH, square = 2 * w * w * n, bytes = w * w * 2, row = w * n * 4;
    uint32_t q = made_add(m, shape, "q", layer, square, bytes, row, w * n, MADE_SOURCES(in));
    uint32_t k = made_add(m, shape, "k", layer, square, bytes, row, w * n, MADE_SOURCES(in));
    uint32_t v = made_add(m, shape, "v", layer, square, bytes, row, w * n, MADE_SOURCES(in));
    uint32_t view = made_add(m, shape, "q_view", layer, 0, 0, 0, w * n, MADE_SOURCES(q));
    uint32_t store = made_add(m, shape, "store", layer, 0, 0, row, 5000, MADE_SOURCES(k, v));
    uint32_t attention = made_add(m, shape, "attention", layer, 4 * w * n * c, 0, c * w * 4, w * n,
                                  MADE_SOURCES(view, store));
    uint32_t merged = made_add(m, shape, "merged", layer, 0, 0, 0, w * n, MADE_SOURCES(attention));
    uint32_t out = made_add(m, shape, "out", layer, square, bytes, row, w * n,
                            MADE_SOURCES(merged));
    uint32_t sum = made_add(m, shape, "sum", layer, 0, 0, 3 * row, w * n, MADE_SOURCES(out, in));
    uint32_t gate = made_add(m, shape, "gate", layer, square, bytes, row, w * n, MADE_SOURCES(sum));
    uint32_t up = made_add(m, shape, "up", layer, square, bytes, row, w * n, MADE_SOURCES(sum));
    uint32_t down = made_add(m, shape, "down", layer, square, bytes, row, w * n,
                             MADE_SOURCES(gate, up));

    return made_add(m, shape, "hidden", layer, 0, 0, 3 * row, w * n, MADE_SOURCES(down, sum));
}

static inline void made_transformer(struct made_ops *m, uint32_t layers)
{
    static const uint32_t tokens[] = { 32, 64, 32, 64 }, columns[] = { 256, 256, 1024, 1024 };

    memset(m, 0, sizeof(*m));
    for (int shape = 0; shape < PLAN_SHAPES; shape++) {
        double   n = tokens[shape], c = columns[shape];
        uint32_t hidden;

        m->shapes[shape] = (struct plan_ops){ tokens[shape], columns[shape], 0, m->ops[shape] };
        hidden = made_add(m, shape, "embed", PLAN_OP_EMBED, 0, 0, MADE_WIDTH * n * 4,
                          MADE_WIDTH * n, 0, NULL);
        for (uint32_t layer = 0; layer < layers; layer++)
            hidden = made_layer(m, shape, (int32_t)layer, hidden, n, c);
        made_add(m, shape, "logits", PLAN_OP_HEAD, 2.0 * MADE_WIDTH * MADE_VOCAB * n,
                 2.0 * MADE_WIDTH * MADE_VOCAB, 0, MADE_VOCAB * n, MADE_SOURCES(hidden));
    }
}

#endif
