/* engine/deepseek2.c - one layer of DeepSeek V2-Lite, V2, V3, R1.
 *
 * Keys and values are compressed into one latent of kv_lora floats a token, plus n_rot
 * rotated floats shared by all heads.  A file either carries the decompression as one
 * matrix (W_KV_B: K and V are materialised, the cache is an ordinary one), or as two
 * (W_K_B, W_V_B: the first is absorbed into the query, the second applied after
 * attention; the cache holds only the latent, as one KV head).
 *
 * Shapes are ggml's, n is the number of tokens; nope = head_k_full - n_rot.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/graph.h"

#include <math.h>

/* (head_k_full, n_head, n) */
static struct ggml_tensor *project_query(struct engine_build *b, struct ggml_tensor *x)
{
    struct ggml_tensor *q;

    if (b->hp->q_lora > 0) {
        q = engine_product(b, b->l->t[W_Q_A], x); /* (q_lora, n) */
        q = engine_norm(b, q, b->l->t[W_Q_A_NORM]);
        q = engine_product(b, b->l->t[W_Q_B], q); /* (head_k_full * n_head, n) */
    } else {
        q = engine_product(b, b->l->t[W_Q], x);
    }
    return ggml_reshape_3d(b->ctx, q, b->hp->head_k_full, b->hp->n_head, b->graph->shape.tokens);
}

/* The latent path: one KV head of kv_lora + n_rot floats. */
static struct ggml_tensor *attend_latent(struct engine_build *b, struct ggml_tensor *q,
                                         struct ggml_tensor *latent, struct ggml_tensor *k_pe,
                                         float scale)
{
    const struct model_hparams *hp = b->hp;
    int64_t                     n = b->graph->shape.tokens;
    int64_t                     nope = (int64_t)hp->head_k_full - hp->rope.n_rot;
    struct ggml_tensor         *q_nope, *q_pe;
    struct engine_qkv           a = { 0 };

    q_nope = ggml_view_3d(b->ctx, q, nope, hp->n_head, n, q->nb[1], q->nb[2], 0);
    q_pe = ggml_view_3d(b->ctx, q, hp->rope.n_rot, hp->n_head, n, q->nb[1], q->nb[2],
                        ggml_row_size(q->type, nope));
    q_pe = engine_rope(b, q_pe, NULL); /* (n_rot, n_head, n) */

    q_nope = ggml_permute(b->ctx, q_nope, 0, 2, 1, 3);  /* (nope, n, n_head) */
    q_nope = engine_product(b, b->l->t[W_K_B], q_nope); /* (kv_lora, n, n_head) */
    q_nope = ggml_permute(b->ctx, q_nope, 0, 2, 1, 3);  /* (kv_lora, n_head, n) */
    a.q = ggml_concat(b->ctx, q_nope, q_pe, 0);         /* (kv_lora + n_rot, n_head, n) */

    latent = ggml_reshape_3d(b->ctx, latent, hp->kv_lora, 1, n);
    a.k = ggml_concat(b->ctx, latent, k_pe, 0); /* (kv_lora + n_rot, 1, n) */
    return engine_attention(b, a, b->l->t[W_V_B], scale);
}

/* The materialised path: n_head full keys and values. */
static struct ggml_tensor *attend_full(struct engine_build *b, struct ggml_tensor *q,
                                       struct ggml_tensor *latent, struct ggml_tensor *k_pe,
                                       float scale)
{
    const struct model_hparams *hp = b->hp;
    int64_t                     n = b->graph->shape.tokens;
    int64_t                     nope = (int64_t)hp->head_k_full - hp->rope.n_rot;
    struct ggml_tensor         *kv = engine_product(b, b->l->t[W_KV_B], latent);
    size_t                      head = ggml_row_size(kv->type, nope + hp->head_v_full);
    struct ggml_tensor         *k_nope;
    struct engine_qkv           a;

    k_nope = ggml_view_3d(b->ctx, kv, nope, hp->n_head, n, head, head * hp->n_head, 0);
    a.v = ggml_view_3d(b->ctx, kv, hp->head_v_full, hp->n_head, n, head, head * hp->n_head,
                       ggml_row_size(kv->type, nope));
    a.v = ggml_cont(b->ctx, a.v); /* (head_v_full, n_head, n) */

    a.q = ggml_rope_set_offset(engine_rope(b, q, NULL), (int)nope); /* only the trailing n_rot */
    a.k = ggml_concat(b->ctx, k_nope,
                      ggml_repeat_4d(b->ctx, k_pe, hp->rope.n_rot, hp->n_head, n, 1), 0);
    return engine_attention(b, a, NULL, scale);
}

/* YaRN scales the attention by mscale^2.  hp->rope.attn_factor has ggml's own correction
 * taken out; this puts the model's in (llama.cpp discussion 7416, PR 17945). */
static float attention_scale(const struct model_hparams *hp)
{
    const struct model_rope *r = &hp->rope;
    float                    factor = r->attn_factor * (1.0f + 0.1f * logf(1.0f / r->freq_scale));
    float mscale = factor * (1.0f + 0.1f * r->log_mul * logf(1.0f / r->freq_scale));

    return 1.0f * mscale * mscale / sqrtf((float)hp->head_k_full);
}

struct ggml_tensor *engine_deepseek2_layer(struct engine_build *b, struct ggml_tensor *x, bool keep)
{
    const struct model_hparams *hp = b->hp;
    int64_t                     n = b->graph->shape.tokens;
    float                       scale = attention_scale(hp);
    struct ggml_tensor         *y, *q, *kv, *latent, *k_pe, *h;
    size_t                      row;

    y = engine_norm(b, x, b->l->t[W_ATTN_NORM]);
    q = project_query(b, y); /* (head_k_full, n_head, n) */

    kv = engine_product(b, b->l->t[W_KV_A], y); /* (kv_lora + n_rot, n) */
    row = ggml_row_size(kv->type, (int64_t)hp->kv_lora + hp->rope.n_rot);
    latent = ggml_view_2d(b->ctx, kv, hp->kv_lora, n, row, 0);
    k_pe = ggml_view_3d(b->ctx, kv, hp->rope.n_rot, 1, n, row, row,
                        ggml_row_size(kv->type, hp->kv_lora));
    k_pe = engine_rope(b, k_pe, NULL);                     /* (n_rot, 1, n) */
    latent = engine_norm(b, latent, b->l->t[W_KV_A_NORM]); /* (kv_lora, n) */

    y = hp->mla ? attend_latent(b, q, latent, k_pe, scale) : attend_full(b, q, latent, k_pe, scale);
    if (y == NULL)
        return NULL;
    y = engine_keep_rows(b, y, keep); /* (n_embd, n or rows) */
    x = engine_keep_rows(b, x, keep);
    h = ggml_add(b->ctx, y, x);

    y = engine_norm(b, h, b->l->t[W_FFN_NORM]);
    if (b->layer < hp->n_layer_dense) {
        y = engine_ffn(b, y, W_GATE, W_UP, W_DOWN);
    } else {
        struct ggml_tensor *experts = engine_experts(b, y);

        y = engine_ffn(b, y, W_GATE_SHEXP, W_UP_SHEXP, W_DOWN_SHEXP);
        y = ggml_add(b->ctx, experts, y);
    }
    return ggml_add(b->ctx, y, h);
}
