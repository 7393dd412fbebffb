/* SPDX-License-Identifier: MIT */
/* shape.h - hyper-parameters of the models that mcp-synth can imitate.
 *
 * A shape is plain numbers: every field can be changed by `--set name=value`
 * through one table, then synth_shape_check() settles derived values and refuses
 * what llama.cpp would abort on.  Shapes are copied, the table is never written. */
#ifndef SYNTH_SHAPE_H
#define SYNTH_SHAPE_H

#include "error.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum synth_arch {
    SYNTH_LLAMA,
    SYNTH_QWEN2,
    SYNTH_QWEN3,
    SYNTH_DEEPSEEK2,
};

/* Values are what `--set rope_scaling=N` takes. */
enum synth_rope_scaling {
    SYNTH_ROPE_NONE = 0,
    SYNTH_ROPE_LINEAR = 1,
    SYNTH_ROPE_YARN = 2,
    SYNTH_ROPE_LLAMA3 = 3, /* no keys; the factors are a rope_freqs.weight tensor */
};

struct synth_shape {
    const char     *name;
    enum synth_arch arch;
    uint32_t        tiny; /* a test model: all its weights are drawn one by one */

    uint32_t layers;
    uint32_t n_embd;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim; /* 0: n_embd / heads */
    uint32_t ff;
    uint32_t vocab;
    uint32_t ctx;
    float    rms_eps;

    float    rope_base;
    uint32_t rope_scaling; /* enum synth_rope_scaling */
    float    rope_factor;
    uint32_t rope_orig_ctx;
    float    rope_log_mul; /* 0: key absent; DeepSeek's 0.1 * mscale_all_dim */

    uint32_t tied; /* no output.weight */
    uint32_t qkv_bias;
    uint32_t out_bias;   /* attn_output.bias, llama only */
    uint32_t ffn_bias;   /* llama only */
    uint32_t logit_bias; /* output.bias, qwen2 only */
    uint32_t fused_qkv;  /* one attn_qkv.weight */

    /* deepseek2 only from here; kv_heads and head_dim are derived there */
    uint32_t mla;    /* 1: attn_k_b and attn_v_b; 0: older files' attn_kv_b */
    uint32_t q_lora; /* 0: one attn_q */
    uint32_t kv_lora;
    uint32_t qk_nope;
    uint32_t qk_rope;
    uint32_t v_dim;
    uint32_t dense_lead; /* leading layers without experts */
    uint32_t experts;
    uint32_t experts_used;
    uint32_t experts_shared;
    uint32_t expert_ff;
    uint32_t groups; /* 0: experts are not grouped */
    uint32_t groups_used;
    uint32_t gating;      /* 1 softmax, 2 sigmoid, as in the GGUF key */
    uint32_t expert_bias; /* exp_probs_b.bias */
    uint32_t weights_norm;
    float    weights_scale;
};

/* The shape of that name, or NULL. */
const struct synth_shape *synth_shape_find(const char *name);

/* Apply one "key=value".  Range errors name the range; *s is unchanged then. */
int synth_shape_set(struct synth_shape *s, const char *assignment, struct synth_error *err);

/* Settle head_dim and kv_heads and verify that the numbers fit together. */
int synth_shape_check(struct synth_shape *s, struct synth_error *err);

/* The value of general.architecture, also the prefix of its keys. */
const char *synth_arch_name(enum synth_arch arch);

/* True where llama.cpp takes a deepseek2 file for a "lite" one, which has no
 * q_lora_rank whatever its keys say. */
bool synth_shape_is_lite(const struct synth_shape *s);

void synth_shape_print_list(FILE *out);
void synth_shape_print_keys(FILE *out);

#endif
