/* engine/graph.c - see graph.h.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/graph.h"

#include "base/fail.h"

#include <stdlib.h>
#include <string.h>

static const engine_layer_fn layer_fns[MODEL_ARCH_COUNT] = {
    [MODEL_LLAMA] = engine_llama_layer,
    [MODEL_QWEN2] = engine_qwen2_layer,
    [MODEL_QWEN3] = engine_qwen3_layer,
    [MODEL_DEEPSEEK2] = engine_deepseek2_layer,
};

struct ggml_tensor *engine_norm(struct engine_build *b, struct ggml_tensor *x,
                                struct ggml_tensor *weight)
{
    return ggml_mul(b->ctx, ggml_rms_norm(b->ctx, x, b->hp->rms_eps), weight);
}

struct ggml_tensor *engine_product(struct engine_build *b, struct ggml_tensor *w,
                                   struct ggml_tensor *x)
{
    struct ggml_tensor *y;

    if (!engine_weights_twice(b->w, w->type))
        return ggml_mul_mat(b->ctx, w, x);
    if (x->ne[1] > 1) /* rows that lie apart would be another kernel's again */
        return ggml_mul_mat(b->ctx, w, ggml_is_contiguous(x) ? x : ggml_cont(b->ctx, x));
    y = ggml_mul_mat(b->ctx, w, ggml_repeat_4d(b->ctx, x, x->ne[0], 2, x->ne[2], x->ne[3]));
    y = ggml_view_4d(b->ctx, y, y->ne[0], 1, y->ne[2], y->ne[3], y->nb[1], y->nb[2], y->nb[3], 0);
    return ggml_is_contiguous(y) ? y : ggml_cont(b->ctx, y);
}

struct ggml_tensor *engine_linear(struct engine_build *b, struct ggml_tensor *w,
                                  struct ggml_tensor *x, struct ggml_tensor *bias)
{
    struct ggml_tensor *y = engine_product(b, w, x);

    return bias == NULL ? y : ggml_add(b->ctx, y, bias);
}

struct ggml_tensor *engine_rope(struct engine_build *b, struct ggml_tensor *x,
                                struct ggml_tensor *freqs)
{
    const struct model_rope *r = &b->hp->rope;

    return ggml_rope_ext(b->ctx, x, b->graph->position, freqs, (int)r->n_rot, r->mode,
                         (int)r->n_ctx_orig, r->freq_base, r->freq_scale, r->ext_factor,
                         r->attn_factor, r->beta_fast, r->beta_slow);
}

struct engine_qkv engine_project_qkv(struct engine_build *b, struct ggml_tensor *x)
{
    const struct model_hparams *hp = b->hp;
    struct ggml_tensor *const  *t = b->l->t;
    int64_t                     n = x->ne[1];
    struct engine_qkv           a;

    if (t[W_QKV] != NULL) {
        struct ggml_tensor *all = engine_linear(b, t[W_QKV], x, t[B_QKV]);
        size_t              k_at = ggml_row_size(all->type, (int64_t)hp->head_k * hp->n_head);
        size_t              v_at = k_at + ggml_row_size(all->type, model_kv_width_k(hp));

        a.q = ggml_view_3d(b->ctx, all, hp->head_k, hp->n_head, n,
                           ggml_row_size(all->type, hp->head_k), all->nb[1], 0);
        a.k = ggml_view_3d(b->ctx, all, hp->head_k, hp->n_head_kv, n,
                           ggml_row_size(all->type, hp->head_k), all->nb[1], k_at);
        a.v = ggml_view_3d(b->ctx, all, hp->head_v, hp->n_head_kv, n,
                           ggml_row_size(all->type, hp->head_v), all->nb[1], v_at);
        return a;
    }
    a.q = engine_linear(b, t[W_Q], x, t[B_Q]);
    a.k = engine_linear(b, t[W_K], x, t[B_K]);
    a.v = engine_linear(b, t[W_V], x, t[B_V]);
    a.q = ggml_reshape_3d(b->ctx, a.q, hp->head_k, hp->n_head, n);
    a.k = ggml_reshape_3d(b->ctx, a.k, hp->head_k, hp->n_head_kv, n);
    a.v = ggml_reshape_3d(b->ctx, a.v, hp->head_v, hp->n_head_kv, n);
    return a;
}

struct ggml_tensor *engine_ffn(struct engine_build *b, struct ggml_tensor *x, enum model_slot gate,
                               enum model_slot up, enum model_slot down)
{
    struct ggml_tensor *const *t = b->l->t;
    bool                       dense = gate == W_GATE;
    struct ggml_tensor        *u = engine_linear(b, t[up], x, dense ? t[B_UP] : NULL);
    struct ggml_tensor        *g = engine_linear(b, t[gate], x, dense ? t[B_GATE] : NULL);

    return engine_linear(b, t[down], ggml_swiglu_split(b->ctx, g, u), dense ? t[B_DOWN] : NULL);
}

struct ggml_tensor *engine_keep_rows(struct engine_build *b, struct ggml_tensor *t, bool keep)
{
    return keep ? ggml_get_rows(b->ctx, t, b->graph->row_index) : t;
}

/* An upper bound of the graph's nodes and leaves: a llama layer makes about 45 tensors with
 * its views, an expert adds two, a segment about ten, and each of a dozen products three more
 * where a row goes in twice; doubled because ggml aborts. */
static size_t count_tensors(const struct engine_shape *shape, const struct model_hparams *hp)
{
    size_t layer = 2 * (96 + 24 * (size_t)shape->segment_count + 2 * (size_t)hp->n_expert_used);

    return 256 + 2 * (size_t)shape->segment_count + layer * (shape->last - shape->first);
}

static struct ggml_tensor *input(struct ggml_tensor *t)
{
    ggml_set_input(t);
    return t;
}

static void make_inputs(struct engine_graph *g, const struct model_hparams *hp,
                        const struct engine_kv *kv)
{
    int64_t n = g->shape.tokens;

    if (g->shape.embed == GGML_TYPE_COUNT) {
        g->input = input(ggml_new_tensor_2d(g->ctx, GGML_TYPE_F32, hp->n_embd, n));
    } else {
        g->input = input(ggml_new_tensor_2d(g->ctx, g->shape.embed, hp->n_embd, n));
        g->order = input(ggml_new_tensor_1d(g->ctx, GGML_TYPE_I32, n));
    }
    g->position = input(ggml_new_tensor_1d(g->ctx, GGML_TYPE_I32, n));
    g->cell_k = input(ggml_new_tensor_1d(g->ctx, GGML_TYPE_I64, n));
    if (kv->width_v > 0 && !kv->flash)
        g->cell_v = input(ggml_new_tensor_1d(g->ctx, GGML_TYPE_I64, n * kv->width_v));
    else
        g->cell_v = g->cell_k;
    if (g->shape.output == ENGINE_OUTPUT_LOGITS)
        g->row_index = input(ggml_new_tensor_1d(g->ctx, GGML_TYPE_I32, g->shape.rows));
    for (uint32_t i = 0; i < g->shape.segment_count; i++) {
        const struct engine_segment *s = &g->shape.segments[i];

        g->mask[i] = input(ggml_new_tensor_4d(g->ctx, kv->flash ? GGML_TYPE_F16 : GGML_TYPE_F32,
                                              s->columns, s->tokens, 1, s->streams));
    }
}

int engine_graph_build(struct engine_graph **out, const struct engine_shape *shape,
                       const struct model_hparams *hp, const struct engine_weights *w,
                       const struct engine_kv *kv, mcp_error *err)
{
    size_t                  tensors = count_tensors(shape, hp);
    struct ggml_init_params params = {
        .mem_size = ggml_tensor_overhead() * tensors + ggml_graph_overhead_custom(tensors, false),
        .no_alloc = true,
    };
    struct engine_graph *g = calloc(1, sizeof(*g));
    struct engine_build  b = { .hp = hp, .w = w, .kv = kv, .graph = g };
    struct ggml_tensor  *x;

    *out = NULL;
    if (g != NULL) {
        g->shape = *shape;
        g->shape.segments = calloc(shape->segment_count, sizeof(*shape->segments));
        g->mask = calloc(shape->segment_count, sizeof(struct ggml_tensor *));
        g->memory = params.mem_buffer = malloc(params.mem_size);
        if (g->memory != NULL)
            g->ctx = ggml_init(params);
    }
    if (g == NULL || g->shape.segments == NULL || g->mask == NULL || g->ctx == NULL) {
        engine_graph_free(g);
        return base_fail(err, MCP_ENOMEM, "graph of %zu tensors", tensors);
    }
    memcpy(g->shape.segments, shape->segments, shape->segment_count * sizeof(*shape->segments));
    b.ctx = g->ctx;
    b.nodes = g->nodes = ggml_new_graph_custom(g->ctx, tensors, false);
    make_inputs(g, hp, kv);

    x = g->input;
    if (shape->embed != GGML_TYPE_COUNT) /* the device widens the rows to f32 */
        x = ggml_get_rows(g->ctx, g->input, g->order);
    for (uint32_t layer = shape->first; layer < shape->last; layer++) {
        b.layer = layer;
        b.l = engine_weights_layer(w, layer);
        x = layer_fns[hp->arch](&b, x,
                                shape->output == ENGINE_OUTPUT_LOGITS && layer + 1 == shape->last);
    }
    if (shape->output == ENGINE_OUTPUT_LOGITS) {
        x = engine_norm(&b, x, w->global[G_OUTPUT_NORM]);
        x = engine_linear(&b, w->global[G_OUTPUT], x, w->global[G_OUTPUT_B]);
    }
    if (x != NULL) {
        ggml_set_output(x);
        ggml_build_forward_expand(g->nodes, x);
    }
    g->output = x;
    *out = g;
    return MCP_OK;
}

void engine_graph_free(struct engine_graph *graph)
{
    if (graph == NULL)
        return;
    ggml_free(graph->ctx);
    free(graph->memory);
    free(graph->shape.segments);
    free(graph->mask);
    free(graph);
}

bool engine_shape_equal(const struct engine_shape *a, const struct engine_shape *b)
{
    return a->first == b->first && a->last == b->last && a->output == b->output &&
           a->embed == b->embed && a->tokens == b->tokens && a->rows == b->rows &&
           a->segment_count == b->segment_count &&
           memcmp(a->segments, b->segments, a->segment_count * sizeof(*a->segments)) == 0;
}
