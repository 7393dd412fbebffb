/* engine/attention.c - store keys and values, attend over them, project.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/graph.h"

/* Multiply each block of rot->ne[0] floats by the (symmetric, orthonormal) matrix. */
static struct ggml_tensor *rotate(struct engine_build *b, struct ggml_tensor *x,
                                  struct ggml_tensor *rot)
{
    int64_t             n = rot->ne[0];
    struct ggml_tensor *y = ggml_is_contiguous(x)
                                ? ggml_reshape_2d(b->ctx, x, n, ggml_nelements(x) / n)
                                : ggml_cont_2d(b->ctx, x, n, ggml_nelements(x) / n);

    y = engine_product(b, rot, y);
    if (y->op == GGML_OP_MUL_MAT) /* the reference arithmetic of a single row has no use for it */
        ggml_mul_mat_set_hint(y, GGML_HINT_SRC0_IS_HADAMARD);
    return ggml_reshape_4d(b->ctx, y, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
}

/* (head, heads, tokens) -> rows of the store. */
static void store(struct engine_build *b, struct ggml_tensor *x, struct ggml_tensor *target,
                  struct ggml_tensor *cells)
{
    int64_t             width = x->ne[0] * x->ne[1];
    struct ggml_tensor *rows = ggml_view_2d(b->ctx, x, width, x->ne[2], x->nb[2], 0);

    if (target->ne[2] > 1) /* cells count through all sequences */
        target = ggml_reshape_2d(b->ctx, target, width, target->ne[1] * target->ne[2]);
    ggml_build_forward_expand(b->nodes, ggml_set_rows(b->ctx, target, rows, cells));
}

/* The same into the transposed layout: every element is a row of its own. */
static void store_transposed(struct engine_build *b, struct ggml_tensor *x,
                             struct ggml_tensor *target, struct ggml_tensor *cells)
{
    int64_t width = x->ne[0] * x->ne[1];

    x = ggml_row_size(x->type, width) == x->nb[2] ? ggml_reshape_2d(b->ctx, x, width, x->ne[2])
                                                  : ggml_cont_2d(b->ctx, x, width, x->ne[2]);
    target = ggml_reshape_2d(b->ctx, target, 1, ggml_nelements(target));
    x = ggml_reshape_2d(b->ctx, x, 1, ggml_nelements(x));
    ggml_build_forward_expand(b->nodes, ggml_set_rows(b->ctx, target, x, cells));
}

/* A segment's part of the store: (head, heads, columns, streams). */
static struct ggml_tensor *view_rows(struct engine_build *b, struct ggml_tensor *t, uint32_t head,
                                     uint32_t heads, const struct engine_segment *s)
{
    size_t row = ggml_row_size(t->type, t->ne[0]);
    size_t region = row * b->kv->ctx;

    return ggml_view_4d(b->ctx, t, head, heads, s->columns, s->streams,
                        ggml_row_size(t->type, head), row, region, region * s->seq);
}

/* Transposed: (columns, heads, head, streams). */
static struct ggml_tensor *view_columns(struct engine_build *b, struct ggml_tensor *t,
                                        uint32_t head, uint32_t heads,
                                        const struct engine_segment *s)
{
    size_t column = ggml_row_size(t->type, b->kv->ctx);
    size_t region = column * b->kv->width_v;

    return ggml_view_4d(b->ctx, t, s->columns, heads, head, s->streams, column * head, column,
                        region, region * s->seq);
}

/* Attention of one segment; q (head_k, tokens, n_head, streams) and so on, permuted.
 * -> (head_v * n_head, tokens * streams) */
static struct ggml_tensor *attend_flash(struct engine_build *b, struct ggml_tensor *q,
                                        struct ggml_tensor *k, struct ggml_tensor *v,
                                        struct ggml_tensor *mask, struct ggml_tensor *decompress,
                                        float scale)
{
    struct ggml_tensor *y = ggml_flash_attn_ext(b->ctx, q, k, v, mask, scale, 0.0f, 0.0f);

    ggml_prec_set_acc(y, GGML_PREC_F32); /* (head_v, n_head, tokens, streams) */
    if (decompress != NULL) {
        y = ggml_permute(b->ctx, y, 0, 2, 1, 3);
        y = engine_product(b, decompress, y); /* (head_v_full, tokens, n_head, ..) */
        y = ggml_cont(b->ctx, ggml_permute(b->ctx, y, 0, 2, 1, 3));
    }
    return ggml_reshape_2d(b->ctx, y, y->ne[0] * y->ne[1], y->ne[2] * y->ne[3]);
}

static struct ggml_tensor *attend_plain(struct engine_build *b, struct ggml_tensor *q,
                                        struct ggml_tensor *k, struct ggml_tensor *v,
                                        struct ggml_tensor *mask, struct ggml_tensor *decompress,
                                        float scale, bool transposed)
{
    struct ggml_tensor *w = engine_product(b, k, q); /* (columns, tokens, n_head, streams) */
    struct ggml_tensor *y;

    ggml_prec_set_acc(w, GGML_PREC_F32);
    w = ggml_soft_max_ext(b->ctx, w, mask, scale, 0.0f);
    if (!transposed)
        v = ggml_cont(b->ctx, ggml_transpose(b->ctx, v));
    y = engine_product(b, v, w); /* (head_v, tokens, n_head, streams) */
    if (decompress != NULL)
        y = engine_product(b, decompress, y);
    y = ggml_permute(b->ctx, y, 0, 2, 1, 3);
    return ggml_cont_2d(b->ctx, y, y->ne[0] * y->ne[1], y->ne[2] * y->ne[3]);
}

/* Attention of segment `index`, whose tokens begin at `token` of the batch. */
static struct ggml_tensor *attend_segment(struct engine_build *b, struct ggml_tensor *q,
                                          struct ggml_tensor *decompress, float scale,
                                          uint32_t index, uint32_t token)
{
    const struct engine_segment *s = &b->graph->shape.segments[index];
    const struct model_hparams  *hp = b->hp;
    struct ggml_tensor          *k_store = b->kv->k[b->layer - b->kv->first];
    struct ggml_tensor          *v_store = b->kv->v[b->layer - b->kv->first];
    struct ggml_tensor          *mask = b->graph->mask[index];
    bool                         transposed = v_store != NULL && !b->kv->flash;
    struct ggml_tensor          *k, *v, *y;

    q = ggml_view_4d(b->ctx, q, q->ne[0], q->ne[1], s->tokens, s->streams, q->nb[1], q->nb[2],
                     q->nb[2] * s->tokens, q->nb[2] * token);
    k = view_rows(b, k_store, hp->head_k, hp->n_head_kv, s);
    if (v_store == NULL) /* latent attention: the head of each key is its value */
        v = ggml_view_4d(b->ctx, k, hp->head_v, k->ne[1], k->ne[2], k->ne[3], k->nb[1], k->nb[2],
                         k->nb[3], 0);
    else
        v = transposed ? view_columns(b, v_store, hp->head_v, hp->n_head_kv, s)
                       : view_rows(b, v_store, hp->head_v, hp->n_head_kv, s);

    q = ggml_permute(b->ctx, q, 0, 2, 1, 3); /* (head_k, tokens, n_head, streams) */
    k = ggml_permute(b->ctx, k, 0, 2, 1, 3); /* (head_k, columns, n_head_kv, ..) */
    v = ggml_permute(b->ctx, v, 0, 2, 1, 3);
    y = b->kv->flash ? attend_flash(b, q, k, v, mask, decompress, scale)
                     : attend_plain(b, q, k, v, mask, decompress, scale, transposed);
    ggml_build_forward_expand(b->nodes, y);
    return y;
}

struct ggml_tensor *engine_attention(struct engine_build *b, struct engine_qkv a,
                                     struct ggml_tensor *decompress, float scale)
{
    const struct engine_shape *shape = &b->graph->shape;
    uint32_t                   at = b->layer - b->kv->first;
    bool                kv_only = shape->output == ENGINE_OUTPUT_KV && b->layer + 1 == shape->last;
    struct ggml_tensor *y = NULL;
    uint32_t            token = 0;

    if (b->kv->rot_k != NULL) {
        a.q = rotate(b, a.q, b->kv->rot_k);
        a.k = rotate(b, a.k, b->kv->rot_k);
    }
    if (b->kv->rot_v != NULL && a.v != NULL)
        a.v = rotate(b, a.v, b->kv->rot_v);

    /* Together and in this order: backends fuse rope with the store that follows. */
    if (!kv_only)
        ggml_build_forward_expand(b->nodes, a.q);
    if (a.v != NULL)
        ggml_build_forward_expand(b->nodes, a.v);
    ggml_build_forward_expand(b->nodes, a.k);
    store(b, a.k, b->kv->k[at], b->graph->cell_k);
    if (a.v != NULL && b->kv->flash)
        store(b, a.v, b->kv->v[at], b->graph->cell_v);
    else if (a.v != NULL)
        store_transposed(b, a.v, b->kv->v[at], b->graph->cell_v);
    if (kv_only)
        return NULL;

    for (uint32_t i = 0; i < shape->segment_count; i++) {
        struct ggml_tensor *part = attend_segment(b, a.q, decompress, scale, i, token);

        y = y == NULL ? part : ggml_concat(b->ctx, y, part, 1);
        token += shape->segments[i].tokens * shape->segments[i].streams;
    }
    if (b->kv->rot_v != NULL && a.v != NULL)
        y = rotate(b, y, b->kv->rot_v);
    return engine_linear(b, b->l->t[W_O], y, b->l->t[B_O]);
}
