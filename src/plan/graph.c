/* plan/graph.c - see graph.h.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/graph.h"

#include "base/fail.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* v(n, c) = constant + n x token + c x column + n c x both */
struct bilinear {
    double constant, token, column, both;
};

struct op {
    char            name[PLAN_OP_NAME_BYTES];
    char            kind[sizeof((struct plan_op){ 0 }.kind)];
    int32_t         layer;
    struct bilinear flops, weight_bytes, activation_bytes;
    double          width; /* elements a token, at the smaller number of columns */
    uint32_t        experts, experts_used;
    uint32_t        source_count;
    uint32_t        sources[PLAN_OP_SOURCES_MAX];
    uint32_t        group;
    bool            works;
    double          cut_width;
};

struct plan_graph {
    uint32_t   layers;
    uint32_t   op_count;
    uint32_t   group_count;
    struct op *ops;                                  /* (op_count) */
    uint32_t  *group_sizes;                          /* (op_count), of which group_count are used */
    double     layer_cut_width[PLAN_LAYERS_MAX + 1]; /* (layers + 1) */
};

/* ---- checking ----------------------------------------------------------------------------- */

static bool is_amount(double value)
{
    return isfinite(value) && value >= 0.0;
}

static int check_shapes(const struct plan_ops s[PLAN_SHAPES], mcp_error *err)
{
    const struct plan_ops *first = &s[PLAN_SHAPE_N0_C0], *last = &s[PLAN_SHAPE_N1_C1];

    if (first->tokens >= last->tokens || first->columns >= last->columns ||
        s[PLAN_SHAPE_N1_C0].tokens != last->tokens ||
        s[PLAN_SHAPE_N1_C0].columns != first->columns ||
        s[PLAN_SHAPE_N0_C1].tokens != first->tokens || s[PLAN_SHAPE_N0_C1].columns != last->columns)
        return base_fail(err, MCP_EFORMAT,
                         "graph: the shapes are no grid of two token counts by two column counts");
    if (first->count == 0 || first->count > PLAN_OPS_MAX)
        return base_fail(err, MCP_ERANGE, "graph: %u ops, must be 1 to %d", first->count,
                         PLAN_OPS_MAX);
    for (int i = 1; i < PLAN_SHAPES; i++)
        if (s[i].count != first->count)
            return base_fail(
                err, MCP_EFORMAT, "graph: %u ops for %u tokens and %u columns, %u for %u and %u",
                first->count, first->tokens, first->columns, s[i].count, s[i].tokens, s[i].columns);
    return 0;
}

/* One op of one shape, by itself. */
static int check_op(const struct plan_op *op, uint32_t index, mcp_error *err)
{
    bool layer_known = op->layer == PLAN_OP_EMBED || op->layer == PLAN_OP_HEAD ||
                       (op->layer >= 0 && op->layer < PLAN_LAYERS_MAX);

    if (memchr(op->name, '\0', sizeof(op->name)) == NULL ||
        memchr(op->kind, '\0', sizeof(op->kind)) == NULL)
        return base_fail(err, MCP_EFORMAT, "graph: the name of op %u has no end", index);
    if (!layer_known)
        return base_fail(err, MCP_ERANGE, "graph: op %u (%s) is in layer %d, the limit is %d",
                         index, op->name, op->layer, PLAN_LAYERS_MAX);
    if (!is_amount(op->flops) || !is_amount(op->weight_bytes) || !is_amount(op->activation_bytes) ||
        !is_amount(op->elements))
        return base_fail(err, MCP_EFORMAT,
                         "graph: op %u (%s) has %g FLOPs, %g and %g bytes, %g elements", index,
                         op->name, op->flops, op->weight_bytes, op->activation_bytes, op->elements);
    if (op->experts_used > op->experts)
        return base_fail(err, MCP_EFORMAT, "graph: op %u (%s) uses %u of %u experts", index,
                         op->name, op->experts_used, op->experts);
    if (op->source_count > PLAN_OP_SOURCES_MAX)
        return base_fail(err, MCP_EFORMAT, "graph: op %u (%s) has %u sources, the limit is %d",
                         index, op->name, op->source_count, PLAN_OP_SOURCES_MAX);
    for (uint32_t i = 0; i < op->source_count; i++)
        if (op->sources[i] >= index)
            return base_fail(err, MCP_EFORMAT, "graph: op %u (%s) reads op %u, which comes later",
                             index, op->name, op->sources[i]);
    return 0;
}

static bool same_op(const struct plan_op *a, const struct plan_op *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->kind, b->kind) == 0 && a->layer == b->layer &&
           a->experts == b->experts && a->experts_used == b->experts_used &&
           a->source_count == b->source_count &&
           memcmp(a->sources, b->sources, a->source_count * sizeof(a->sources[0])) == 0;
}

static int check_ops(const struct plan_ops s[PLAN_SHAPES], mcp_error *err)
{
    for (uint32_t i = 0; i < s[0].count; i++) {
        for (int shape = 0; shape < PLAN_SHAPES; shape++) {
            int rc = check_op(&s[shape].ops[i], i, err);

            if (rc < 0)
                return rc;
            if (!same_op(&s[0].ops[i], &s[shape].ops[i]))
                return base_fail(err, MCP_EFORMAT,
                                 "graph: op %u is %s for %u tokens and %s for %u: take token "
                                 "counts for which the same ops run",
                                 i, s[0].ops[i].name, s[0].tokens, s[shape].ops[i].name,
                                 s[shape].tokens);
        }
    }
    return 0;
}

/* ---- building ----------------------------------------------------------------------------- */

/* The one bilinear function through four corners. */
static struct bilinear fit(const struct plan_ops s[PLAN_SHAPES], const double v[PLAN_SHAPES])
{
    double n0 = s[PLAN_SHAPE_N0_C0].tokens, n1 = s[PLAN_SHAPE_N1_C1].tokens;
    double c0 = s[PLAN_SHAPE_N0_C0].columns, c1 = s[PLAN_SHAPE_N1_C1].columns;
    double across = v[PLAN_SHAPE_N1_C1] - v[PLAN_SHAPE_N1_C0] - v[PLAN_SHAPE_N0_C1] +
                    v[PLAN_SHAPE_N0_C0];

    struct bilinear f = { .both = across / ((n1 - n0) * (c1 - c0)) };

    f.token = (v[PLAN_SHAPE_N1_C0] - v[PLAN_SHAPE_N0_C0]) / (n1 - n0) - f.both * c0;
    f.column = (v[PLAN_SHAPE_N0_C1] - v[PLAN_SHAPE_N0_C0]) / (c1 - c0) - f.both * n0;
    f.constant = v[PLAN_SHAPE_N0_C0] - f.token * n0 - f.column * c0 - f.both * n0 * c0;
    return f;
}

/* Rounding may leave a little less than nothing. */
static double value_of(const struct bilinear *f, double n, double c)
{
    return fmax(0.0, f->constant + f->token * n + f->column * c + f->both * n * c);
}

static void fit_op(struct op *op, const struct plan_ops s[PLAN_SHAPES], uint32_t index)
{
    const struct plan_op *o[PLAN_SHAPES];
    double                flops[PLAN_SHAPES], weights[PLAN_SHAPES], activations[PLAN_SHAPES];

    op->works = false;
    for (int i = 0; i < PLAN_SHAPES; i++) {
        o[i] = &s[i].ops[index];
        flops[i] = o[i]->flops;
        weights[i] = o[i]->weight_bytes;
        activations[i] = o[i]->activation_bytes;
        op->works = op->works || flops[i] > 0.0 || weights[i] > 0.0 || activations[i] > 0.0;
    }
    op->flops = fit(s, flops);
    op->weight_bytes = fit(s, weights);
    op->activation_bytes = fit(s, activations);
    op->width = (o[PLAN_SHAPE_N1_C0]->elements - o[PLAN_SHAPE_N0_C0]->elements) /
                (s[PLAN_SHAPE_N1_C0].tokens - s[PLAN_SHAPE_N0_C0].tokens);
    op->width = fmax(0.0, op->width);
    memcpy(op->name, o[0]->name, sizeof(op->name));
    memcpy(op->kind, o[0]->kind, sizeof(op->kind));
    op->layer = o[0]->layer;
    op->experts = o[0]->experts;
    op->experts_used = o[0]->experts_used;
    op->source_count = o[0]->source_count;
    memcpy(op->sources, o[0]->sources, sizeof(op->sources));
}

/* Level of each op: one more than the highest of what it waits for.  Ops of one level with a path
 * between them would contradict that, so they are independent.  What does no work adds no level. */
static void find_groups(struct plan_graph *g)
{
    for (uint32_t i = 0; i < g->op_count; i++) {
        struct op *op = &g->ops[i];
        uint32_t   before = 0; /* levels that must have run */

        for (uint32_t s = 0; s < op->source_count; s++) {
            const struct op *source = &g->ops[op->sources[s]];
            uint32_t         levels = source->group + (source->works ? 1 : 0);

            before = levels > before ? levels : before;
        }
        op->group = before;
        if (!op->works)
            continue;
        g->group_sizes[before]++;
        if (before + 1 > g->group_count)
            g->group_count = before + 1;
    }
    for (uint32_t i = 0; i < g->op_count; i++)
        if (g->ops[i].group >= g->group_count && g->group_count > 0)
            g->ops[i].group = g->group_count - 1; /* views at the very end */
}

/* Each output is carried across the cuts from its op to its last reader. */
static void find_cut_widths(struct plan_graph *g, uint32_t *last_reader)
{
    double crossing = 0.0;

    for (uint32_t i = 0; i < g->op_count; i++) {
        last_reader[i] = i;
        for (uint32_t s = 0; s < g->ops[i].source_count; s++)
            last_reader[g->ops[i].sources[s]] = i; /* i ascends */
    }
    /* ending[i] is kept in cut_width until op i is passed. */
    for (uint32_t i = 0; i < g->op_count; i++)
        if (last_reader[i] > i)
            g->ops[last_reader[i]].cut_width += g->ops[i].width;
    for (uint32_t i = 0; i < g->op_count; i++) {
        crossing -= g->ops[i].cut_width;
        if (last_reader[i] > i)
            crossing += g->ops[i].width;
        g->ops[i].cut_width = crossing;
    }
}

/* Boundaries are numbered by the layer above: 0 behind the embedding, `layers` below the head. */
static int32_t boundary_above(const struct plan_graph *g, int32_t layer)
{
    return layer == PLAN_OP_HEAD ? (int32_t)g->layers : layer;
}

static void find_layer_cut_widths(struct plan_graph *g, int32_t *highest)
{
    for (uint32_t i = 0; i < g->op_count; i++) {
        int32_t layer = boundary_above(g, g->ops[i].layer);

        highest[i] = layer;
        for (uint32_t s = 0; s < g->ops[i].source_count; s++)
            if (highest[g->ops[i].sources[s]] < layer)
                highest[g->ops[i].sources[s]] = layer;
    }
    for (uint32_t i = 0; i < g->op_count; i++)
        for (int32_t b = boundary_above(g, g->ops[i].layer) + 1; b <= highest[i]; b++)
            g->layer_cut_width[b] += g->ops[i].width;
}

static void count_layers(struct plan_graph *g)
{
    for (uint32_t i = 0; i < g->op_count; i++) {
        int32_t layer = g->ops[i].layer;

        if (layer != PLAN_OP_HEAD && layer >= (int32_t)g->layers)
            g->layers = (uint32_t)layer + 1;
    }
}

int plan_graph_new(struct plan_graph **out, const struct plan_ops shapes[PLAN_SHAPES],
                   mcp_error *err)
{
    struct plan_graph *g = NULL;
    uint32_t          *readers = NULL;
    int32_t           *highest = NULL;
    uint32_t           count = shapes[0].count;
    int                rc;

    *out = NULL;
    rc = check_shapes(shapes, err);
    if (rc == 0)
        rc = check_ops(shapes, err);
    if (rc < 0)
        goto out;
    g = calloc(1, sizeof(*g));
    readers = calloc(count, sizeof(*readers));
    highest = calloc(count, sizeof(*highest));
    if (g != NULL) {
        g->ops = calloc(count, sizeof(*g->ops));
        g->group_sizes = calloc(count, sizeof(*g->group_sizes));
    }
    if (readers == NULL || highest == NULL || g == NULL || g->ops == NULL ||
        g->group_sizes == NULL) {
        rc = base_fail(err, MCP_ENOMEM, "no memory for a graph of %u ops", count);
        goto out;
    }
    g->op_count = count;
    for (uint32_t i = 0; i < count; i++)
        fit_op(&g->ops[i], shapes, i);
    count_layers(g);
    if (g->layers == 0) {
        rc = base_fail(err, MCP_EFORMAT, "graph: no op belongs to a layer");
        goto out;
    }
    find_groups(g);
    find_cut_widths(g, readers);
    find_layer_cut_widths(g, highest);
    *out = g;
    g = NULL;
out:
    free(readers);
    free(highest);
    plan_graph_free(g);
    return rc;
}

void plan_graph_free(struct plan_graph *g)
{
    if (g == NULL)
        return;
    free(g->ops);
    free(g->group_sizes);
    free(g);
}

/* ---- asking ------------------------------------------------------------------------------- */

uint32_t plan_graph_layers(const struct plan_graph *g)
{
    return g->layers;
}

uint32_t plan_graph_ops(const struct plan_graph *g)
{
    return g->op_count;
}

uint32_t plan_graph_groups(const struct plan_graph *g)
{
    return g->group_count;
}

uint32_t plan_graph_group_size(const struct plan_graph *g, uint32_t group)
{
    return group < g->group_count ? g->group_sizes[group] : 0;
}

double plan_graph_cut_width(const struct plan_graph *g, uint32_t layer)
{
    return layer <= g->layers ? g->layer_cut_width[layer] : 0.0;
}

struct plan_op_info plan_graph_op(const struct plan_graph *g, uint32_t index)
{
    const struct op *op = &g->ops[index];

    return (struct plan_op_info){ .name = op->name,
                                  .kind = op->kind,
                                  .layer = op->layer,
                                  .source_count = op->source_count,
                                  .sources = op->sources,
                                  .group = op->group,
                                  .works = op->works,
                                  .cut_width = op->cut_width };
}

/* Of E experts, u a token, n tokens that choose at random touch E (1 - (1 - u / E)^n). */
static double experts_touched(const struct op *op, uint32_t tokens)
{
    if (op->experts == 0)
        return 1.0;
    return 1.0 - pow(1.0 - (double)op->experts_used / op->experts, tokens);
}

struct plan_work plan_graph_op_work(const struct plan_graph *g, uint32_t index, uint32_t tokens,
                                    uint32_t columns)
{
    const struct op *op = &g->ops[index];

    return (struct plan_work){
        .flops = value_of(&op->flops, tokens, columns),
        .weight_bytes = value_of(&op->weight_bytes, tokens, columns) * experts_touched(op, tokens),
        .activation_bytes = value_of(&op->activation_bytes, tokens, columns),
        .launches = op->works ? 1 : 0,
    };
}

static void add_work(struct plan_work *sum, struct plan_work more)
{
    sum->flops += more.flops;
    sum->weight_bytes += more.weight_bytes;
    sum->activation_bytes += more.activation_bytes;
    sum->launches += more.launches;
}

struct plan_work plan_graph_layer(const struct plan_graph *g, int32_t layer, uint32_t tokens,
                                  uint32_t columns)
{
    struct plan_work sum = { .launches = 0 };

    for (uint32_t i = 0; i < g->op_count; i++)
        if (g->ops[i].layer == layer)
            add_work(&sum, plan_graph_op_work(g, i, tokens, columns));
    return sum;
}

struct plan_work plan_graph_total(const struct plan_graph *g, uint32_t tokens, uint32_t columns)
{
    struct plan_work sum = { .launches = 0 };

    for (uint32_t i = 0; i < g->op_count; i++)
        add_work(&sum, plan_graph_op_work(g, i, tokens, columns));
    return sum;
}
