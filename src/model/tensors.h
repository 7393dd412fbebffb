/* model/tensors.h - which tensors a layer is made of, found and checked.
 *
 * ggml aborts on a shape it does not expect, so every tensor is compared here, once,
 * with what the hyper-parameters say; the engine then builds graphs without asking.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MODEL_TENSORS_H
#define MODEL_TENSORS_H

#include "model/hparams.h"

/* Tensors of one layer.  The comment gives ggml's order of dimensions: (in, out). */
enum model_slot {
    W_ATTN_NORM, /* (n_embd) */
    W_Q,         /* (n_embd, n_head * head_k) */
    W_K,         /* (n_embd, n_head_kv * head_k) */
    W_V,         /* (n_embd, n_head_kv * head_v) */
    W_QKV,       /* (n_embd, q + k + v): instead of the three */
    B_Q,
    B_K,
    B_V,
    B_QKV,
    W_Q_NORM, /* (head_k) */
    W_K_NORM, /* (head_k) */
    W_O,      /* (n_head * head_v, n_embd) */
    B_O,
    W_FFN_NORM, /* (n_embd) */
    W_GATE,     /* (n_embd, n_ff) */
    W_UP,       /* (n_embd, n_ff) */
    W_DOWN,     /* (n_ff, n_embd) */
    B_GATE,
    B_UP,
    B_DOWN,
    /* latent attention */
    W_Q_A,       /* (n_embd, q_lora) */
    W_Q_A_NORM,  /* (q_lora) */
    W_Q_B,       /* (q_lora, n_head * head_k_full) */
    W_KV_A,      /* (n_embd, kv_lora + n_rot) */
    W_KV_A_NORM, /* (kv_lora) */
    W_KV_B,      /* (kv_lora, n_head * (nope + head_v_full)) */
    W_K_B,       /* (nope, kv_lora, n_head) */
    W_V_B,       /* (kv_lora, head_v_full, n_head) */
    /* experts */
    W_ROUTER,       /* (n_embd, n_expert) */
    B_ROUTER,       /* (n_expert): added for the choice only */
    W_GATE_EXPS,    /* (n_embd, n_ff_expert, n_expert) */
    W_UP_EXPS,      /* (n_embd, n_ff_expert, n_expert) */
    W_GATE_UP_EXPS, /* (n_embd, 2 * n_ff_expert, n_expert): instead of the two */
    W_DOWN_EXPS,    /* (n_ff_expert, n_embd, n_expert) */
    W_GATE_SHEXP,   /* (n_embd, n_ff_expert * n_expert_shared) */
    W_UP_SHEXP,
    W_DOWN_SHEXP,
    MODEL_SLOT_COUNT
};

/* Tensors outside the layers. */
enum model_global {
    G_TOKEN_EMBD,  /* (n_embd, n_vocab) */
    G_OUTPUT_NORM, /* (n_embd) */
    G_OUTPUT,      /* (n_embd, n_vocab); absent when tied to the embedding */
    G_OUTPUT_B,    /* (n_vocab) */
    G_ROPE_FREQS,  /* (n_rot / 2) */
    MODEL_GLOBAL_COUNT
};

/* The ggml operation that reads the tensor; decides which types are computable and
 * which buffer it may live in. */
enum model_role {
    MODEL_ROLE_NORM,      /* MUL, f32 */
    MODEL_ROLE_BIAS,      /* ADD, f32 */
    MODEL_ROLE_MATMUL,    /* MUL_MAT */
    MODEL_ROLE_MATMUL_ID, /* MUL_MAT_ID */
    MODEL_ROLE_ROWS,      /* rows are looked up on the host */
    MODEL_ROLE_FREQS,     /* ROPE, f32 */
};

enum model_role model_slot_role(enum model_slot slot);
enum model_role model_global_role(enum model_global global);

struct model_layer {
    const struct model_tensor *t[MODEL_SLOT_COUNT]; /* NULL where the model has none */
};

struct model_tensors {
    struct model_layer        *layers; /* (n_layer) */
    const struct model_tensor *global[MODEL_GLOBAL_COUNT];
};

/* Every tensor of the file is accounted for: a missing one, one of another shape or
 * type, and one that this build would not use are all refused. */
int  model_tensors_find(struct model_tensors *out, const struct model_hparams *hp,
                        const struct model_file *file, mcp_error *err);
void model_tensors_free(struct model_tensors *tensors);

#endif
