/* engine/ops.c - see ops.h.
 *
 * Tensors of the shadow carry a mark in ggml's `extra`, which backends would use and none is
 * here: who they are, and which op made them.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/ops.h"

#include "base/fail.h"
#include "engine/engine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[ENGINE_OP_KINDS] = {
    [ENGINE_OP_PRODUCT] = "product",     [ENGINE_OP_EXPERTS] = "experts",
    [ENGINE_OP_ATTENTION] = "attention", [ENGINE_OP_NORM] = "norm",
    [ENGINE_OP_ROPE] = "rope",           [ENGINE_OP_ELEMENTWISE] = "elementwise",
    [ENGINE_OP_CHOICE] = "choice",       [ENGINE_OP_MOVE] = "move",
};

const char *engine_op_kind_name(enum engine_op_kind kind)
{
    return (unsigned)kind < ENGINE_OP_KINDS ? kind_names[kind] : "unknown";
}

/* ---- tensors without memory ------------------------------------------------------------------ */

enum mark_kind { MARK_WEIGHT, MARK_STORE, MARK_OP };

struct mark {
    enum mark_kind kind;
    int32_t        layer;
    const char    *name;   /* of a weight */
    uint32_t       op;     /* index + 1; of a store, of the op that wrote it last; 0 = none */
    bool           global; /* a weight that all layers share tells nothing about the layer */
};

/* What the graph builder wants to see, and nothing behind it. */
struct shadow {
    const struct mcp_model *model;
    struct engine_weights   weights;
    struct engine_kv        kv;
    struct ggml_context    *ctx;
    void                   *memory; /* of ctx: ggml would abort where malloc fails */
    struct mark            *marks;
    uint32_t                mark_count;
    struct engine_graph    *graph;
};

static struct mark *mark(struct shadow *s, struct ggml_tensor *t, enum mark_kind kind,
                         int32_t layer)
{
    struct mark *m = &s->marks[s->mark_count++];

    m->kind = kind;
    m->layer = layer;
    t->extra = m;
    return m;
}

static struct ggml_tensor *shadow_weight(struct shadow *s, const struct model_tensor *source,
                                         int32_t layer, bool global)
{
    struct ggml_tensor *t;
    struct mark        *m;

    if (source == NULL)
        return NULL;
    t = ggml_new_tensor(s->ctx, source->type, GGML_MAX_DIMS, source->ne);
    m = mark(s, t, MARK_WEIGHT, layer);
    m->name = source->name;
    m->global = global;
    return t;
}

static struct ggml_tensor *shadow_store(struct shadow *s, uint32_t width, int32_t layer)
{
    struct ggml_tensor *t = ggml_new_tensor_3d(s->ctx, GGML_TYPE_F16, width, s->kv.ctx, 1);

    mark(s, t, MARK_STORE, layer);
    return t;
}

static void fill_weights(struct shadow *s)
{
    const struct model_tensors *t = &s->model->tensors;
    struct engine_weights      *w = &s->weights;
    int32_t                     head = (int32_t)s->model->hp.n_layer;

    for (uint32_t layer = w->first; layer < w->last; layer++)
        for (int slot = 0; slot < MODEL_SLOT_COUNT; slot++)
            engine_weights_layer(w, layer)->t[slot] = shadow_weight(s, t->layers[layer].t[slot],
                                                                    (int32_t)layer, false);
    w->global[G_ROPE_FREQS] = shadow_weight(s, t->global[G_ROPE_FREQS], 0, true);
    if (w->last != s->model->hp.n_layer)
        return;
    w->global[G_OUTPUT_NORM] = shadow_weight(s, t->global[G_OUTPUT_NORM], head, false);
    w->global[G_OUTPUT] = shadow_weight(
        s, t->global[t->global[G_OUTPUT] != NULL ? G_OUTPUT : G_TOKEN_EMBD], head, false);
    w->global[G_OUTPUT_B] = shadow_weight(s, t->global[G_OUTPUT_B], head, false);
}

static void fill_stores(struct shadow *s)
{
    struct engine_kv *kv = &s->kv;

    for (uint32_t layer = kv->first; layer < kv->last; layer++) {
        kv->k[layer - kv->first] = shadow_store(s, kv->width_k, (int32_t)layer);
        if (kv->width_v > 0)
            kv->v[layer - kv->first] = shadow_store(s, kv->width_v, (int32_t)layer);
    }
}

static void shadow_fini(struct shadow *s)
{
    engine_graph_free(s->graph);
    ggml_free(s->ctx);
    free(s->memory);
    free(s->weights.layers);
    free(s->kv.k);
    free(s->kv.v);
    free(s->marks);
}

/* The graph of the options, over tensors that are only described. */
static int shadow_build(struct shadow *s, const struct mcp_model *model,
                        const struct engine_ops_opts *o, mcp_error *err)
{
    const struct model_hparams *hp = &model->hp;
    uint32_t                    layers = o->last - o->first;
    bool                        head = o->last == hp->n_layer;
    size_t                  leaves = (size_t)layers * (MODEL_SLOT_COUNT + 2) + MODEL_GLOBAL_COUNT;
    struct ggml_init_params params = { .mem_size = ggml_tensor_overhead() * leaves,
                                       .no_alloc = true };
    struct engine_segment   segment = { 0, 1, o->tokens, engine_kv_pad(o->context + o->tokens) };
    struct engine_shape     shape = {
            .first = o->first,
            .last = o->last,
            .output = head ? ENGINE_OUTPUT_LOGITS : ENGINE_OUTPUT_HIDDEN,
            .embed = o->first == 0 ? model->tensors.global[G_TOKEN_EMBD]->type : GGML_TYPE_COUNT,
            .tokens = o->tokens,
            .rows = head ? o->rows : 0,
            .segment_count = 1,
            .segments = &segment,
    };

    s->model = model;
    s->weights.first = s->kv.first = o->first;
    s->weights.last = s->kv.last = o->last;
    s->weights.layers = calloc(layers, sizeof(*s->weights.layers));
    s->kv.seqs = 1;
    s->kv.ctx = segment.columns;
    s->kv.width_k = model_kv_width_k(hp);
    s->kv.width_v = model_kv_width_v(hp);
    s->kv.type_k = s->kv.type_v = GGML_TYPE_F16;
    s->kv.flash = o->flash;
    s->kv.k = calloc(layers, sizeof(struct ggml_tensor *));
    s->kv.v = calloc(layers, sizeof(struct ggml_tensor *));
    s->memory = params.mem_buffer = malloc(params.mem_size);
    s->marks = calloc(leaves, sizeof(*s->marks));
    if (s->memory != NULL)
        s->ctx = ggml_init(params);
    if (s->weights.layers == NULL || s->kv.k == NULL || s->kv.v == NULL || s->ctx == NULL ||
        s->marks == NULL)
        return base_fail(err, MCP_ENOMEM, "description of %u layers", layers);
    fill_weights(s);
    fill_stores(s);
    return engine_graph_build(&s->graph, &shape, hp, &s->weights, &s->kv, err);
}

/* ---- what an op costs ------------------------------------------------------------------------ */

static uint64_t elements(const struct ggml_tensor *t)
{
    return (uint64_t)ggml_nelements(t);
}

/* Of the values themselves: a view counts what it shows. */
static uint64_t value_bytes(const struct ggml_tensor *t)
{
    return (uint64_t)ggml_row_size(t->type, t->ne[0]) * (uint64_t)(ggml_nelements(t) / t->ne[0]);
}

static bool is_view(const struct ggml_tensor *t)
{
    return t->op == GGML_OP_VIEW || t->op == GGML_OP_RESHAPE || t->op == GGML_OP_PERMUTE ||
           t->op == GGML_OP_TRANSPOSE;
}

/* The tensor whose values a view shows. */
static const struct ggml_tensor *origin(const struct ggml_tensor *t)
{
    while (is_view(t))
        t = t->src[0];
    return t;
}

/* Weights, stores and ops that were seen already; NULL: an input of the graph. */
static struct mark *mark_of(const struct ggml_tensor *t)
{
    return origin(t)->extra;
}

static bool is_kind(const struct ggml_tensor *t, enum mark_kind kind)
{
    const struct mark *m = t != NULL ? mark_of(t) : NULL;

    return m != NULL && m->kind == kind;
}

/* Exponential, sigmoid and the like are counted as one operation each, as in the literature;
 * additions and multiplications as one each. */
static uint64_t op_flops(const struct ggml_tensor *t)
{
    const struct ggml_tensor *a = t->src[0];

    switch (t->op) {
    case GGML_OP_MUL_MAT:    /* (k, m) x (k, n): a multiplication and an addition for each */
    case GGML_OP_MUL_MAT_ID: /* of m n k; by experts, n counts the chosen ones */
        return 2 * (uint64_t)a->ne[0] * elements(t);
    case GGML_OP_FLASH_ATTN_EXT: { /* q.k and p.v over every column, and softmax's 5 */
        uint64_t scores = (uint64_t)t->src[1]->ne[1] * (uint64_t)(a->ne[1] * a->ne[2] * a->ne[3]);

        return scores * (2 * (uint64_t)a->ne[0] + 2 * (uint64_t)t->ne[0] + 5);
    }
    case GGML_OP_SOFT_MAX: /* scale or mask, maximum, difference, exponential, division */
        return 5 * elements(t);
    case GGML_OP_RMS_NORM: /* square, sum, scale; the root is once a row */ return 3 * elements(t);
    case GGML_OP_ROPE: { /* each pair: four multiplications and two additions */
        uint64_t rotated = (uint64_t)t->op_params[1]; /* ggml_rope_ext()'s n_dims */

        return 3 * rotated * (elements(t) / (uint64_t)t->ne[0]);
    }
    case GGML_OP_GLU: /* silu (exponential, sum, division), times the other half */
        return 4 * elements(t);
    case GGML_OP_UNARY: /* sigmoid: exponential, sum, division */ return 3 * elements(t);
    case GGML_OP_SUM_ROWS: return elements(a);
    case GGML_OP_ADD:
    case GGML_OP_MUL:
    case GGML_OP_DIV:
    case GGML_OP_SCALE: return elements(t);
    default: return 0; /* moves, fills, compares: bytes only */
    }
}

static enum engine_op_kind op_kind(const struct ggml_tensor *t)
{
    switch (t->op) {
    case GGML_OP_MUL_MAT:
        return is_kind(t->src[0], MARK_WEIGHT) ? ENGINE_OP_PRODUCT : ENGINE_OP_ATTENTION;
    case GGML_OP_MUL_MAT_ID: return ENGINE_OP_EXPERTS;
    case GGML_OP_FLASH_ATTN_EXT: return ENGINE_OP_ATTENTION;
    case GGML_OP_SOFT_MAX: return t->src[1] != NULL ? ENGINE_OP_ATTENTION : ENGINE_OP_NORM;
    case GGML_OP_RMS_NORM:
    case GGML_OP_SUM_ROWS: return ENGINE_OP_NORM;
    case GGML_OP_ROPE: return ENGINE_OP_ROPE;
    case GGML_OP_ARGSORT:
    case GGML_OP_TOP_K: return ENGINE_OP_CHOICE;
    case GGML_OP_GET_ROWS:
    case GGML_OP_SET_ROWS:
    case GGML_OP_CONT:
    case GGML_OP_CPY:
    case GGML_OP_CONCAT:
    case GGML_OP_REPEAT:
    case GGML_OP_FILL: return ENGINE_OP_MOVE;
    default: return ENGINE_OP_ELEMENTWISE;
    }
}

/* ---- the walk -------------------------------------------------------------------------------- */

static void add_source(struct engine_op *op, uint32_t source)
{
    for (uint32_t i = 0; i < op->source_count; i++)
        if (op->sources[i] == source)
            return;
    assert(op->source_count < ENGINE_OP_SOURCES_MAX);
    op->sources[op->source_count++] = source;
}

/* What comes in through one of the op's operands. */
static void take_operand(struct engine_op *op, const struct ggml_tensor *t,
                         const struct ggml_tensor *operand)
{
    const struct mark *m = mark_of(operand);

    if (m == NULL) {
        op->read_bytes += value_bytes(operand);
        return;
    }
    if (!(m->kind == MARK_WEIGHT && m->global) && m->layer > op->layer)
        op->layer = m->layer;
    if (m->op > 0)
        add_source(op, m->op - 1);
    switch (m->kind) {
    case MARK_WEIGHT:
        op->weight = m->name;
        op->weight_bytes += ggml_nbytes(operand);
        op->experts = t->op == GGML_OP_MUL_MAT_ID ? (uint32_t)operand->ne[2] : 0;
        op->experts_used = op->experts > 0 ? (uint32_t)t->src[2]->ne[0] : 0;
        break;
    case MARK_STORE: op->kv_bytes += value_bytes(operand); break;
    case MARK_OP: op->read_bytes += value_bytes(operand); break;
    }
}

/* Rows go into a store or into a tensor that another op made: only they are written. */
static void take_set_rows(struct engine_op *op, const struct ggml_tensor *t)
{
    const struct ggml_tensor *rows = t->src[0], *target = t->src[2];
    struct mark              *m = mark_of(target);
    uint64_t                  bytes = (uint64_t)ggml_row_size(target->type, ggml_nelements(rows));

    take_operand(op, t, rows);
    take_operand(op, t, t->src[1]);
    memcpy(op->ne, rows->ne, sizeof(op->ne));
    if (m->layer > op->layer)
        op->layer = m->layer;
    if (m->kind == MARK_STORE) {
        op->kv_bytes += bytes;
    } else {
        add_source(op, m->op - 1);
        op->write_bytes += bytes;
    }
}

static void describe(struct engine_op *op, const struct ggml_tensor *t)
{
    op->name = ggml_op_desc(t);
    op->kind = op_kind(t);
    op->layer = ENGINE_OP_EMBED;
    op->flops = op_flops(t);
    if (t->op == GGML_OP_SET_ROWS) {
        take_set_rows(op, t);
        return;
    }
    memcpy(op->ne, t->ne, sizeof(op->ne));
    op->write_bytes = value_bytes(t);
    for (int i = 0; i < GGML_MAX_SRC; i++)
        if (t->src[i] != NULL)
            take_operand(op, t, t->src[i]);
}

/* A norm before its weight, and the rows kept of what a layer got, belong to the layer that
 * wants them; their operands are of the layer before. */
static void settle_layers(struct engine_ops *list, const bool *follows)
{
    for (uint32_t i = list->count; i-- > 0;)
        for (uint32_t s = 0; s < list->ops[i].source_count; s++) {
            uint32_t source = list->ops[i].sources[s];

            if (follows[source] && list->ops[i].layer > list->ops[source].layer)
                list->ops[source].layer = list->ops[i].layer;
        }
}

static int walk(struct engine_ops *out, struct shadow *s, mcp_error *err)
{
    struct ggml_cgraph *nodes = s->graph->nodes;
    int                 count = ggml_graph_n_nodes(nodes);
    struct mark        *marks = calloc((size_t)count, sizeof(*marks));
    bool               *follows = calloc((size_t)count, sizeof(*follows));
    int                 rc = MCP_OK;

    out->ops = calloc((size_t)count, sizeof(*out->ops));
    if (marks == NULL || follows == NULL || out->ops == NULL) {
        rc = base_fail(err, MCP_ENOMEM, "list of %d operations", count);
        goto out;
    }
    for (int i = 0; i < count; i++) {
        struct ggml_tensor *t = ggml_graph_node(nodes, i);
        struct engine_op   *op = &out->ops[out->count];
        struct mark        *m = &marks[out->count];

        if (is_view(t))
            continue;
        describe(op, t);
        follows[out->count] = t->op == GGML_OP_RMS_NORM ||
                              (t->op == GGML_OP_GET_ROWS && op->source_count > 0);
        out->count++;
        if (t->op == GGML_OP_SET_ROWS && is_kind(t->src[2], MARK_STORE))
            mark_of(t->src[2])->op = out->count;
        *m = (struct mark){ .kind = MARK_OP, .layer = op->layer, .op = out->count };
        t->extra = m;
    }
    settle_layers(out, follows);
out:
    free(follows);
    free(marks);
    return rc;
}

int engine_ops_list(struct engine_ops *out, const struct mcp_model *model,
                    const struct engine_ops_opts *opts, mcp_error *err)
{
    struct shadow s = { 0 };
    int           rc;

    memset(out, 0, sizeof(*out));
    if (opts->first >= opts->last || opts->last > model->hp.n_layer)
        return base_fail(err, MCP_ERANGE, "layers [%u, %u) are not a range of the model's %u",
                         opts->first, opts->last, model->hp.n_layer);
    if (opts->tokens < 1 || opts->tokens > ENGINE_BATCH_MAX || opts->context > MODEL_CTX_MAX)
        return base_fail(err, MCP_ERANGE,
                         "%u tokens behind %u positions: 1 to %d behind at most %d", opts->tokens,
                         opts->context, ENGINE_BATCH_MAX, MODEL_CTX_MAX);
    if (opts->last == model->hp.n_layer && (opts->rows < 1 || opts->rows > opts->tokens))
        return base_fail(err, MCP_ERANGE, "%u rows of logits of %u tokens", opts->rows,
                         opts->tokens);
    rc = shadow_build(&s, model, opts, err);
    if (rc == MCP_OK)
        rc = walk(out, &s, err);
    shadow_fini(&s);
    if (rc < 0)
        engine_ops_fini(out);
    return rc;
}

void engine_ops_fini(struct engine_ops *ops)
{
    free(ops->ops);
    memset(ops, 0, sizeof(*ops));
}
