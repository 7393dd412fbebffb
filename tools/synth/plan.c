/* SPDX-License-Identifier: MIT */
/* plan.c - names, sizes and types as llama.cpp's loaders and quantiser have them.
 *
 * Standard deviations: 1/sqrt(inputs) hands unit variance on, and since every
 * layer starts with a norm the residual grows with sqrt(depth) only.  Queries
 * and keys get a little more so that attention prefers some tokens, the router
 * more still so that its choices are seldom near ties, and the output enough for
 * logits with a deviation of about 3.  Tied embeddings stay small and the last
 * norm makes up for it: else each token's best successor would be itself. */
#include "plan.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const struct synth_quant quants[] = {
    { "f32", GGML_TYPE_F32, 0, 0 },        { "f16", GGML_TYPE_F16, 1, 0 },
    { "bf16", GGML_TYPE_BF16, 32, 0 },     { "q8_0", GGML_TYPE_Q8_0, 7, 0 },
    { "q4_0", GGML_TYPE_Q4_0, 2, 0 },      { "q4_1", GGML_TYPE_Q4_1, 3, 0 },
    { "q5_0", GGML_TYPE_Q5_0, 8, 0 },      { "q5_1", GGML_TYPE_Q5_1, 9, 0 },
    { "q2_k", GGML_TYPE_Q2_K, 10, 0 },     { "q3_k", GGML_TYPE_Q3_K, 11, 0 },
    { "q4_k", GGML_TYPE_Q4_K, 14, 0 },     { "q5_k", GGML_TYPE_Q5_K, 16, 0 },
    { "q6_k", GGML_TYPE_Q6_K, 18, 0 },     { "iq4_nl", GGML_TYPE_IQ4_NL, 25, 0 },
    { "iq4_xs", GGML_TYPE_IQ4_XS, 30, 0 }, { "mxfp4", GGML_TYPE_MXFP4, 38, 0 },
    { "q4_k_m", GGML_TYPE_Q4_K, 15, 1 },
};

enum { QUANTS = sizeof quants / sizeof quants[0] };

static const float GAIN_QK = 1.5f;
static const float GAIN_ROUTER = 3.0f;
static const float GAIN_LOGITS = 3.0f;
static const float STD_BIAS = 0.1f;
static const float STD_NORM = 0.1f;

const struct synth_quant *synth_quant_find(const char *name)
{
    for (size_t i = 0; i < QUANTS; i++)
        if (strcmp(quants[i].name, name) == 0)
            return &quants[i];
    return NULL;
}

void synth_quant_print(FILE *out)
{
    for (size_t i = 0; i < QUANTS; i++)
        fprintf(out, "%s%s", i % 9 ? " " : "\n    ", quants[i].name);
    fputc('\n', out);
}

/* llama.cpp's choice of the layers where a mix spends more bits. */
static bool use_more_bits(uint32_t layer, uint32_t layers)
{
    return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

/* The type that the q4_k_m mix wants for a tensor, before its row is looked at. */
static enum ggml_type mixed_type(const struct synth_shape *s, const char *name, int64_t row)
{
    uint32_t layer = 0;

    if (strcmp(name, "output.weight") == 0 || (s->tied && strcmp(name, "token_embd.weight") == 0))
        return row % ggml_blck_size(GGML_TYPE_Q4_K) ? GGML_TYPE_Q8_0 : GGML_TYPE_Q6_K;
    if (sscanf(name, "blk.%u.", &layer) != 1)
        return GGML_TYPE_Q4_K;
    if (strstr(name, "attn_v.weight") || strstr(name, "attn_qkv.weight") ||
        strstr(name, "attn_kv_b.weight")) {
        if (s->experts == 8)
            return GGML_TYPE_Q8_0;
        return use_more_bits(layer, s->layers) ? GGML_TYPE_Q6_K : GGML_TYPE_Q4_K;
    }
    if (strstr(name, "ffn_down"))
        return use_more_bits(layer, s->layers) ? GGML_TYPE_Q6_K : GGML_TYPE_Q4_K;
    if (s->experts == 8 && strstr(name, "attn_k.weight"))
        return GGML_TYPE_Q8_0;
    if (s->experts == 8 && strstr(name, "attn_output.weight"))
        return GGML_TYPE_Q5_K;
    return GGML_TYPE_Q4_K;
}

/* The nearest type whose blocks divide the row: llama.cpp's fallbacks. */
static enum ggml_type fitting_type(enum ggml_type type, int64_t row)
{
    enum ggml_type small = type;

    if (row % ggml_blck_size(type) == 0)
        return type;
    switch ((int)type) {
    case GGML_TYPE_IQ4_XS: small = GGML_TYPE_IQ4_NL; break;
    case GGML_TYPE_Q2_K:
    case GGML_TYPE_Q3_K: small = GGML_TYPE_Q4_0; break;
    case GGML_TYPE_Q4_K: small = GGML_TYPE_Q5_0; break;
    case GGML_TYPE_Q5_K: small = GGML_TYPE_Q5_1; break;
    case GGML_TYPE_Q6_K: small = GGML_TYPE_Q8_0; break;
    default: break;
    }
    return row % ggml_blck_size(small) == 0 ? small : GGML_TYPE_F16;
}

/* State of one listing.  Running out of memory is noted and reported once. */
struct builder {
    struct synth_plan        *plan;
    const struct synth_shape *s;
    const struct synth_quant *q;
    int                       layer; /* -1: outside of the layers */
    bool                      out_of_memory;
};

static struct synth_tensor *append(struct builder *b, const char *name)
{
    struct synth_plan   *p = b->plan;
    struct synth_tensor *t;

    if (p->count == p->capacity) {
        size_t               capacity = p->capacity ? 2 * p->capacity : 256;
        struct synth_tensor *grown = realloc(p->tensors, capacity * sizeof *grown);

        if (!grown) {
            b->out_of_memory = true;
            return NULL;
        }
        p->tensors = grown;
        p->capacity = capacity;
    }
    t = &p->tensors[p->count++];
    memset(t, 0, sizeof *t);
    if (b->layer < 0)
        snprintf(t->name, sizeof t->name, "%s", name);
    else
        snprintf(t->name, sizeof t->name, "blk.%d.%s", b->layer, name);
    return t;
}

static void settle(struct synth_tensor *t, enum ggml_type type, float std, int64_t n0, int64_t n1,
                   int64_t n2)
{
    t->type = type;
    t->std = std;
    t->n_dims = n2 ? 3 : n1 ? 2 : 1;
    t->ne[0] = n0;
    t->ne[1] = n1 ? n1 : 1;
    t->ne[2] = n2 ? n2 : 1;
    t->bytes = ggml_row_size(type, n0) * (size_t)t->ne[1] * (size_t)t->ne[2];
}

/* Vectors are always in F32. */
static void norm(struct builder *b, const char *name, float mean, int64_t n)
{
    struct synth_tensor *t = append(b, name);

    if (!t)
        return;
    settle(t, GGML_TYPE_F32, STD_NORM * mean, n, 0, 0);
    t->mean = mean;
}

static void bias(struct builder *b, const char *name, int64_t n)
{
    struct synth_tensor *t = append(b, name);

    if (t)
        settle(t, GGML_TYPE_F32, STD_BIAS, n, 0, 0);
}

static void rope_factors(struct builder *b, int64_t n)
{
    struct synth_tensor *t = append(b, "rope_freqs.weight");

    if (!t)
        return;
    settle(t, GGML_TYPE_F32, 0, n, 0, 0);
    t->content = SYNTH_ROPE_FACTOR;
}

/* A matrix (n2 == 0) or a stack of n2 matrices of the file's quantisation. */
static void weight(struct builder *b, const char *name, float std, int64_t n0, int64_t n1,
                   int64_t n2)
{
    struct synth_tensor *t = append(b, name);
    enum ggml_type       type = b->q->type;

    if (!t)
        return;
    if (strstr(t->name, "ffn_gate_inp")) {
        type = GGML_TYPE_F32;
    } else {
        if (b->q->mixed)
            type = mixed_type(b->s, t->name, n0);
        type = fitting_type(type, n0);
    }
    settle(t, type, std, n0, n1, n2);
}

/* A matrix which maps n0 inputs to n1 outputs without changing their variance. */
static void linear(struct builder *b, const char *name, float gain, int64_t n0, int64_t n1)
{
    weight(b, name, gain / sqrtf((float)n0), n0, n1, 0);
}

static void add_attention(struct builder *b)
{
    const struct synth_shape *s = b->s;
    const int64_t q = (int64_t)s->heads * s->head_dim, kv = (int64_t)s->kv_heads * s->head_dim;

    if (s->fused_qkv) {
        linear(b, "attn_qkv.weight", GAIN_QK, s->n_embd, q + 2 * kv);
        if (s->qkv_bias)
            bias(b, "attn_qkv.bias", q + 2 * kv);
    } else {
        linear(b, "attn_q.weight", GAIN_QK, s->n_embd, q);
        linear(b, "attn_k.weight", GAIN_QK, s->n_embd, kv);
        linear(b, "attn_v.weight", 1, s->n_embd, kv);
        if (s->qkv_bias) {
            bias(b, "attn_q.bias", q);
            bias(b, "attn_k.bias", kv);
            bias(b, "attn_v.bias", kv);
        }
    }
    if (s->arch == SYNTH_QWEN3) {
        norm(b, "attn_q_norm.weight", 1, s->head_dim);
        norm(b, "attn_k_norm.weight", 1, s->head_dim);
    }
    linear(b, "attn_output.weight", 1, q, s->n_embd);
    if (s->out_bias)
        bias(b, "attn_output.bias", s->n_embd);
}

static void add_latent_attention(struct builder *b)
{
    const struct synth_shape *s = b->s;
    const int64_t             heads = s->heads, q = heads * s->head_dim;

    if (s->q_lora) {
        linear(b, "attn_q_a.weight", 1, s->n_embd, s->q_lora);
        norm(b, "attn_q_a_norm.weight", 1, s->q_lora);
        linear(b, "attn_q_b.weight", GAIN_QK, s->q_lora, q);
    } else {
        linear(b, "attn_q.weight", GAIN_QK, s->n_embd, q);
    }
    linear(b, "attn_kv_a_mqa.weight", GAIN_QK, s->n_embd, s->kv_lora + s->qk_rope);
    norm(b, "attn_kv_a_norm.weight", 1, s->kv_lora);
    if (s->mla) {
        /* stored transposed: its inputs are the second dimension */
        weight(b, "attn_k_b.weight", GAIN_QK / sqrtf((float)s->kv_lora), s->qk_nope, s->kv_lora,
               heads);
        weight(b, "attn_v_b.weight", 1 / sqrtf((float)s->kv_lora), s->kv_lora, s->v_dim, heads);
    } else {
        linear(b, "attn_kv_b.weight", 1, s->kv_lora, heads * (s->qk_nope + s->v_dim));
    }
    linear(b, "attn_output.weight", 1, heads * s->v_dim, s->n_embd);
}

static void add_ffn(struct builder *b)
{
    const struct synth_shape *s = b->s;

    linear(b, "ffn_gate.weight", 1, s->n_embd, s->ff);
    linear(b, "ffn_up.weight", 1, s->n_embd, s->ff);
    linear(b, "ffn_down.weight", 1, s->ff, s->n_embd);
    if (s->ffn_bias) {
        bias(b, "ffn_gate.bias", s->ff);
        bias(b, "ffn_up.bias", s->ff);
        bias(b, "ffn_down.bias", s->n_embd);
    }
}

static void add_experts(struct builder *b)
{
    const struct synth_shape *s = b->s;
    const int64_t             shared = (int64_t)s->expert_ff * s->experts_shared;
    const float in = 1 / sqrtf((float)s->n_embd), out = 1 / sqrtf((float)s->expert_ff);

    linear(b, "ffn_gate_inp.weight", GAIN_ROUTER, s->n_embd, s->experts);
    if (s->expert_bias)
        bias(b, "exp_probs_b.bias", s->experts);
    weight(b, "ffn_gate_exps.weight", in, s->n_embd, s->expert_ff, s->experts);
    weight(b, "ffn_up_exps.weight", in, s->n_embd, s->expert_ff, s->experts);
    weight(b, "ffn_down_exps.weight", out, s->expert_ff, s->n_embd, s->experts);
    linear(b, "ffn_gate_shexp.weight", 1, s->n_embd, shared);
    linear(b, "ffn_up_shexp.weight", 1, s->n_embd, shared);
    linear(b, "ffn_down_shexp.weight", 1, shared, s->n_embd);
}

int synth_plan_init(struct synth_plan *p, const struct synth_shape *s, const struct synth_quant *q,
                    struct synth_error *err)
{
    struct builder b = { .plan = p, .s = s, .q = q, .layer = -1 };
    const float    unit = 1 / sqrtf((float)s->n_embd);

    *p = (struct synth_plan){ 0 };
    weight(&b, "token_embd.weight", s->tied ? unit : 1, s->n_embd, s->vocab, 0);
    if (s->rope_scaling == SYNTH_ROPE_LLAMA3)
        rope_factors(&b, s->head_dim / 2);
    for (uint32_t i = 0; i < s->layers; i++) {
        b.layer = (int)i;
        norm(&b, "attn_norm.weight", 1, s->n_embd);
        if (s->arch == SYNTH_DEEPSEEK2)
            add_latent_attention(&b);
        else
            add_attention(&b);
        norm(&b, "ffn_norm.weight", 1, s->n_embd);
        if (s->arch == SYNTH_DEEPSEEK2 && i >= s->dense_lead)
            add_experts(&b);
        else
            add_ffn(&b);
    }
    b.layer = -1;
    norm(&b, "output_norm.weight", s->tied ? GAIN_LOGITS : 1, s->n_embd);
    if (!s->tied)
        weight(&b, "output.weight", GAIN_LOGITS * unit, s->n_embd, s->vocab, 0);
    if (s->logit_bias)
        bias(&b, "output.bias", s->vocab);
    if (b.out_of_memory) {
        synth_plan_fini(p);
        return synth_fail(err, "out of memory while listing tensors");
    }
    return 0;
}

void synth_plan_fini(struct synth_plan *p)
{
    free(p->tensors);
    *p = (struct synth_plan){ 0 };
}
