/* model/hparams.h - the numbers that define a model's shape and arithmetic.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MODEL_HPARAMS_H
#define MODEL_HPARAMS_H

#include "model/file.h"

#include <stdbool.h>

enum model_arch { MODEL_LLAMA, MODEL_QWEN2, MODEL_QWEN3, MODEL_DEEPSEEK2, MODEL_ARCH_COUNT };

/* Bounds on what a file may claim: several times the largest public model, small
 * enough that products of any three fit 64 bits. */
enum {
    MODEL_LAYERS_MAX = 512, /* libllama's own limit */
    MODEL_EMBD_MAX = 1 << 17,
    MODEL_HEADS_MAX = 4096,
    MODEL_HEAD_DIM_MAX = 4096,
    MODEL_FF_MAX = 1 << 21,
    MODEL_VOCAB_MAX = 1 << 22,
    MODEL_CTX_MAX = 1 << 28,
    MODEL_EXPERTS_MAX = 1024, /* libllama's own limit */
};

/* Rotary embedding, as ggml_rope_ext takes it.  The YaRN factors follow libllama's
 * reading of the keys (llama-context.cpp), so that both rotate by the same bits. */
struct model_rope {
    int      mode;       /* 0 = consecutive pairs, GGML_ROPE_TYPE_NEOX = halves */
    uint32_t n_rot;      /* dimensions rotated */
    uint32_t n_ctx_orig; /* trained length before YaRN */
    float    freq_base;
    float    freq_scale; /* 1 / scaling factor */
    float    ext_factor; /* 1 with YaRN, else 0 */
    float    attn_factor;
    float    beta_fast;
    float    beta_slow;
    float    log_mul; /* deepseek2: YaRN's mscale_all_dim */
};

struct model_hparams {
    enum model_arch arch;
    uint32_t        n_layer;       /* layers that run */
    uint32_t        n_layer_nextn; /* layers behind them that only predict further tokens: unused */
    uint32_t        n_embd;
    uint32_t        n_vocab;
    uint32_t        n_ctx_train;
    uint32_t        n_head;
    uint32_t        n_head_kv;
    uint32_t        head_k; /* floats of K a KV head in the cache */
    uint32_t        head_v; /* floats of V a KV head in the cache */
    uint32_t        n_ff;   /* of dense layers */
    float           rms_eps;
    struct model_rope rope;

    /* Mixture of experts; n_expert == 0 means dense. */
    uint32_t n_layer_dense; /* leading layers without experts */
    uint32_t n_expert;
    uint32_t n_expert_used;
    uint32_t n_expert_shared;
    uint32_t n_expert_groups; /* <= 1: no groups */
    uint32_t n_group_used;
    uint32_t n_ff_expert;
    bool     gate_sigmoid; /* else softmax */
    bool     weights_norm;
    float    weights_scale; /* 0 or 1: none */

    /* Latent attention (deepseek2). */
    uint32_t q_lora; /* 0: queries come straight from the hidden state */
    uint32_t kv_lora;
    bool     mla;         /* the cache holds latents; K and V are never materialised */
    uint32_t head_k_full; /* query size a head: nope + rope */
    uint32_t head_v_full; /* value size a head after decompression */
};

/* "llama", ... */
const char *model_arch_name(enum model_arch arch);

/* Read and check everything.  The tokenizer's size, when there is one, must be the
 * embedding's. */
int model_hparams_read(struct model_hparams *hp, const struct model_file *file, mcp_error *err);

/* Floats a token of K and V in one layer's cache; V is 0 with latent attention, whose
 * values are a view of K. */
static inline uint32_t model_kv_width_k(const struct model_hparams *hp)
{
    return hp->head_k * hp->n_head_kv;
}

static inline uint32_t model_kv_width_v(const struct model_hparams *hp)
{
    return hp->mla ? 0 : hp->head_v * hp->n_head_kv;
}

#endif
