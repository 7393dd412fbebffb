/* engine/layers.c - one layer of llama, qwen2, qwen3: a dense transformer.
 *
 * Each function reads top to bottom; shapes are ggml's (fastest dimension first), n is
 * the number of tokens in the batch.  The order of operations is llama.cpp's, so that
 * both round alike.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/graph.h"

#include <math.h>

/* The second half of a layer, the same for all three: residual, norm, feed-forward. */
static struct ggml_tensor *finish(struct engine_build *b, struct ggml_tensor *x,
                                  struct ggml_tensor *attended, bool keep)
{
    struct ggml_tensor *h, *y;

    if (attended == NULL)
        return NULL;
    attended = engine_keep_rows(b, attended, keep); /* (n_embd, n or rows) */
    x = engine_keep_rows(b, x, keep);
    h = ggml_add(b->ctx, attended, x);          /* (n_embd, n) */
    y = engine_norm(b, h, b->l->t[W_FFN_NORM]); /* (n_embd, n) */
    y = engine_ffn(b, y, W_GATE, W_UP, W_DOWN); /* (n_embd, n) */
    return ggml_add(b->ctx, y, h);              /* (n_embd, n) */
}

struct ggml_tensor *engine_llama_layer(struct engine_build *b, struct ggml_tensor *x, bool keep)
{
    struct ggml_tensor *freqs = b->w->global[G_ROPE_FREQS]; /* (n_rot / 2), Llama 3 only */
    struct engine_qkv   a;

    a = engine_project_qkv(b, engine_norm(b, x, b->l->t[W_ATTN_NORM]));
    a.q = engine_rope(b, a.q, freqs); /* (head_k, n_head, n) */
    a.k = engine_rope(b, a.k, freqs); /* (head_k, n_head_kv, n) */
    return finish(b, x, engine_attention(b, a, NULL, 1.0f / sqrtf((float)b->hp->head_k)), keep);
}

struct ggml_tensor *engine_qwen2_layer(struct engine_build *b, struct ggml_tensor *x, bool keep)
{
    struct engine_qkv a;

    a = engine_project_qkv(b, engine_norm(b, x, b->l->t[W_ATTN_NORM])); /* with biases */
    a.q = engine_rope(b, a.q, NULL);
    a.k = engine_rope(b, a.k, NULL);
    return finish(b, x, engine_attention(b, a, NULL, 1.0f / sqrtf((float)b->hp->head_k)), keep);
}

struct ggml_tensor *engine_qwen3_layer(struct engine_build *b, struct ggml_tensor *x, bool keep)
{
    struct engine_qkv a;

    a = engine_project_qkv(b, engine_norm(b, x, b->l->t[W_ATTN_NORM]));
    a.q = engine_rope(b, engine_norm(b, a.q, b->l->t[W_Q_NORM]), NULL); /* norm a head */
    a.k = engine_rope(b, engine_norm(b, a.k, b->l->t[W_K_NORM]), NULL);
    return finish(b, x, engine_attention(b, a, NULL, 1.0f / sqrtf((float)b->hp->head_k)), keep);
}
