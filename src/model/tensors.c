/* model/tensors.c - see tensors.h.  Names are llama.cpp's (llama-arch.cpp).
 *
 * SPDX-License-Identifier: MIT */
#include "model/tensors.h"

#include "base/fail.h"
#include "base/log.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct spec {
    const char     *name; /* after "blk.N." */
    enum model_role role;
};

static const struct spec slots[MODEL_SLOT_COUNT] = {
    [W_ATTN_NORM] = { "attn_norm.weight", MODEL_ROLE_NORM },
    [W_Q] = { "attn_q.weight", MODEL_ROLE_MATMUL },
    [W_K] = { "attn_k.weight", MODEL_ROLE_MATMUL },
    [W_V] = { "attn_v.weight", MODEL_ROLE_MATMUL },
    [W_QKV] = { "attn_qkv.weight", MODEL_ROLE_MATMUL },
    [B_Q] = { "attn_q.bias", MODEL_ROLE_BIAS },
    [B_K] = { "attn_k.bias", MODEL_ROLE_BIAS },
    [B_V] = { "attn_v.bias", MODEL_ROLE_BIAS },
    [B_QKV] = { "attn_qkv.bias", MODEL_ROLE_BIAS },
    [W_Q_NORM] = { "attn_q_norm.weight", MODEL_ROLE_NORM },
    [W_K_NORM] = { "attn_k_norm.weight", MODEL_ROLE_NORM },
    [W_O] = { "attn_output.weight", MODEL_ROLE_MATMUL },
    [B_O] = { "attn_output.bias", MODEL_ROLE_BIAS },
    [W_FFN_NORM] = { "ffn_norm.weight", MODEL_ROLE_NORM },
    [W_GATE] = { "ffn_gate.weight", MODEL_ROLE_MATMUL },
    [W_UP] = { "ffn_up.weight", MODEL_ROLE_MATMUL },
    [W_DOWN] = { "ffn_down.weight", MODEL_ROLE_MATMUL },
    [B_GATE] = { "ffn_gate.bias", MODEL_ROLE_BIAS },
    [B_UP] = { "ffn_up.bias", MODEL_ROLE_BIAS },
    [B_DOWN] = { "ffn_down.bias", MODEL_ROLE_BIAS },
    [W_Q_A] = { "attn_q_a.weight", MODEL_ROLE_MATMUL },
    [W_Q_A_NORM] = { "attn_q_a_norm.weight", MODEL_ROLE_NORM },
    [W_Q_B] = { "attn_q_b.weight", MODEL_ROLE_MATMUL },
    [W_KV_A] = { "attn_kv_a_mqa.weight", MODEL_ROLE_MATMUL },
    [W_KV_A_NORM] = { "attn_kv_a_norm.weight", MODEL_ROLE_NORM },
    [W_KV_B] = { "attn_kv_b.weight", MODEL_ROLE_MATMUL },
    [W_K_B] = { "attn_k_b.weight", MODEL_ROLE_MATMUL },
    [W_V_B] = { "attn_v_b.weight", MODEL_ROLE_MATMUL },
    [W_ROUTER] = { "ffn_gate_inp.weight", MODEL_ROLE_MATMUL },
    [B_ROUTER] = { "exp_probs_b.bias", MODEL_ROLE_BIAS },
    [W_GATE_EXPS] = { "ffn_gate_exps.weight", MODEL_ROLE_MATMUL_ID },
    [W_UP_EXPS] = { "ffn_up_exps.weight", MODEL_ROLE_MATMUL_ID },
    [W_GATE_UP_EXPS] = { "ffn_gate_up_exps.weight", MODEL_ROLE_MATMUL_ID },
    [W_DOWN_EXPS] = { "ffn_down_exps.weight", MODEL_ROLE_MATMUL_ID },
    [W_GATE_SHEXP] = { "ffn_gate_shexp.weight", MODEL_ROLE_MATMUL },
    [W_UP_SHEXP] = { "ffn_up_shexp.weight", MODEL_ROLE_MATMUL },
    [W_DOWN_SHEXP] = { "ffn_down_shexp.weight", MODEL_ROLE_MATMUL },
};

static const struct spec globals[MODEL_GLOBAL_COUNT] = {
    [G_TOKEN_EMBD] = { "token_embd.weight", MODEL_ROLE_ROWS },
    [G_OUTPUT_NORM] = { "output_norm.weight", MODEL_ROLE_NORM },
    [G_OUTPUT] = { "output.weight", MODEL_ROLE_MATMUL },
    [G_OUTPUT_B] = { "output.bias", MODEL_ROLE_BIAS },
    [G_ROPE_FREQS] = { "rope_freqs.weight", MODEL_ROLE_FREQS },
};

enum model_role model_slot_role(enum model_slot slot)
{
    return slots[slot].role;
}

enum model_role model_global_role(enum model_global global)
{
    return globals[global].role;
}

/* Types that ggml can multiply by on every backend we build for.  Others are valid in
 * a GGUF, and ggml's supports_op even says yes to them, but computing crashes. */
static bool type_multiplies(enum ggml_type type)
{
    switch (type) {
    case GGML_TYPE_F32:
    case GGML_TYPE_F16:
    case GGML_TYPE_BF16:
    case GGML_TYPE_Q4_0:
    case GGML_TYPE_Q4_1:
    case GGML_TYPE_Q5_0:
    case GGML_TYPE_Q5_1:
    case GGML_TYPE_Q8_0:
    case GGML_TYPE_Q2_K:
    case GGML_TYPE_Q3_K:
    case GGML_TYPE_Q4_K:
    case GGML_TYPE_Q5_K:
    case GGML_TYPE_Q6_K:
    case GGML_TYPE_IQ1_S:
    case GGML_TYPE_IQ1_M:
    case GGML_TYPE_IQ2_XXS:
    case GGML_TYPE_IQ2_XS:
    case GGML_TYPE_IQ2_S:
    case GGML_TYPE_IQ3_XXS:
    case GGML_TYPE_IQ3_S:
    case GGML_TYPE_IQ4_NL:
    case GGML_TYPE_IQ4_XS:
    case GGML_TYPE_TQ1_0:
    case GGML_TYPE_TQ2_0:
    case GGML_TYPE_MXFP4: return true;
    default: return false;
    }
}

static int check_type(const struct model_tensor *t, enum model_role role, const char *path,
                      mcp_error *err)
{
    switch (role) {
    case MODEL_ROLE_NORM:
    case MODEL_ROLE_BIAS:
    case MODEL_ROLE_FREQS:
        if (t->type != GGML_TYPE_F32)
            return base_fail(err, MCP_ENOTSUP, "%s: tensor %s is %s, must be f32", path, t->name,
                             ggml_type_name(t->type));
        return MCP_OK;
    case MODEL_ROLE_MATMUL:
    case MODEL_ROLE_MATMUL_ID:
    case MODEL_ROLE_ROWS:
        if (!type_multiplies(t->type))
            return base_fail(err, MCP_ENOTSUP, "%s: tensor %s is %s, which no weight can be", path,
                             t->name, ggml_type_name(t->type));
        return MCP_OK;
    }
    return MCP_OK;
}

/* The search in progress: counts what was found, so that leftovers show. */
struct search {
    const struct model_file    *file;
    const struct model_hparams *hp;
    uint8_t                    *used; /* (tensor_count) */
    const char                 *path;
    mcp_error                  *err;
    int                         rc; /* first failure sticks */
};

static const struct model_tensor *take(struct search *s, const char *name, enum model_role role,
                                       bool required, int64_t ne0, int64_t ne1, int64_t ne2)
{
    const struct model_tensor *t;

    if (s->rc < 0)
        return NULL;
    t = model_file_find(s->file, name);
    if (t == NULL) {
        if (required)
            s->rc = base_fail(s->err, MCP_EFORMAT, "%s: tensor %s is missing", s->path, name);
        return NULL;
    }
    if (t->ne[0] != ne0 || t->ne[1] != ne1 || t->ne[2] != ne2 || t->ne[3] != 1) {
        s->rc = base_fail(s->err, MCP_EFORMAT,
                          "%s: tensor %s has shape (%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64
                          "), the hyper-parameters say (%" PRId64 ", %" PRId64 ", %" PRId64 ", 1)",
                          s->path, name, t->ne[0], t->ne[1], t->ne[2], t->ne[3], ne0, ne1, ne2);
        return NULL;
    }
    s->rc = check_type(t, role, s->path, s->err);
    s->used[t - s->file->tensors] = 1;
    return t;
}

static bool has(struct search *s, uint32_t layer, enum model_slot slot)
{
    char name[GGML_MAX_NAME];

    snprintf(name, sizeof(name), "blk.%u.%s", layer, slots[slot].name);
    return model_file_find(s->file, name) != NULL;
}

/* Layer-local shorthand: NEED and MAY fill out->t[slot]. */
struct layer_search {
    struct search      *s;
    struct model_layer *out;
    uint32_t            layer;
};

static void need(struct layer_search *l, enum model_slot slot, bool required, int64_t ne0,
                 int64_t ne1, int64_t ne2)
{
    char name[GGML_MAX_NAME];

    snprintf(name, sizeof(name), "blk.%u.%s", l->layer, slots[slot].name);
    l->out->t[slot] = take(l->s, name, slots[slot].role, required, ne0, ne1, ne2);
}

static void find_qkv(struct layer_search *l)
{
    const struct model_hparams *hp = l->s->hp;
    int64_t                     q = (int64_t)hp->head_k * hp->n_head;
    int64_t                     k = model_kv_width_k(hp);
    int64_t                     v = (int64_t)hp->head_v * hp->n_head_kv;

    if (has(l->s, l->layer, W_QKV)) {
        need(l, W_QKV, true, hp->n_embd, q + k + v, 1);
        need(l, B_QKV, false, q + k + v, 1, 1);
        return;
    }
    need(l, W_Q, true, hp->n_embd, q, 1);
    need(l, W_K, true, hp->n_embd, k, 1);
    need(l, W_V, true, hp->n_embd, v, 1);
    need(l, B_Q, false, q, 1, 1);
    need(l, B_K, false, k, 1, 1);
    need(l, B_V, false, v, 1, 1);
}

static void find_dense_ffn(struct layer_search *l)
{
    const struct model_hparams *hp = l->s->hp;

    need(l, W_GATE, true, hp->n_embd, hp->n_ff, 1);
    need(l, W_UP, true, hp->n_embd, hp->n_ff, 1);
    need(l, W_DOWN, true, hp->n_ff, hp->n_embd, 1);
    if (hp->arch == MODEL_LLAMA) {
        need(l, B_GATE, false, hp->n_ff, 1, 1);
        need(l, B_UP, false, hp->n_ff, 1, 1);
        need(l, B_DOWN, false, hp->n_embd, 1, 1);
    }
}

static void find_latent_attention(struct layer_search *l)
{
    const struct model_hparams *hp = l->s->hp;
    int64_t                     nope = (int64_t)hp->head_k_full - hp->rope.n_rot;
    int64_t                     q = (int64_t)hp->head_k_full * hp->n_head;

    if (hp->q_lora > 0) {
        need(l, W_Q_A, true, hp->n_embd, hp->q_lora, 1);
        need(l, W_Q_A_NORM, true, hp->q_lora, 1, 1);
        need(l, W_Q_B, true, hp->q_lora, q, 1);
    } else {
        need(l, W_Q, true, hp->n_embd, q, 1);
    }
    need(l, W_KV_A, true, hp->n_embd, (int64_t)hp->kv_lora + hp->rope.n_rot, 1);
    need(l, W_KV_A_NORM, true, hp->kv_lora, 1, 1);
    if (hp->mla) {
        need(l, W_K_B, true, nope, hp->kv_lora, hp->n_head);
        need(l, W_V_B, true, hp->kv_lora, hp->head_v_full, hp->n_head);
    } else {
        need(l, W_KV_B, true, hp->kv_lora, hp->n_head * (nope + hp->head_v_full), 1);
    }
    need(l, W_O, true, (int64_t)hp->n_head * hp->head_v_full, hp->n_embd, 1);
}

static void find_experts(struct layer_search *l)
{
    const struct model_hparams *hp = l->s->hp;
    int64_t                     shared = (int64_t)hp->n_ff_expert * hp->n_expert_shared;

    need(l, W_ROUTER, true, hp->n_embd, hp->n_expert, 1);
    need(l, B_ROUTER, false, hp->n_expert, 1, 1);
    if (has(l->s, l->layer, W_GATE_UP_EXPS)) {
        need(l, W_GATE_UP_EXPS, true, hp->n_embd, 2 * (int64_t)hp->n_ff_expert, hp->n_expert);
    } else {
        need(l, W_GATE_EXPS, true, hp->n_embd, hp->n_ff_expert, hp->n_expert);
        need(l, W_UP_EXPS, true, hp->n_embd, hp->n_ff_expert, hp->n_expert);
    }
    need(l, W_DOWN_EXPS, true, hp->n_ff_expert, hp->n_embd, hp->n_expert);
    need(l, W_GATE_SHEXP, true, hp->n_embd, shared, 1);
    need(l, W_UP_SHEXP, true, hp->n_embd, shared, 1);
    need(l, W_DOWN_SHEXP, true, shared, hp->n_embd, 1);
}

static void find_layer(struct search *s, struct model_layer *out, uint32_t layer)
{
    const struct model_hparams *hp = s->hp;
    struct layer_search         l = { .s = s, .out = out, .layer = layer };

    need(&l, W_ATTN_NORM, true, hp->n_embd, 1, 1);
    need(&l, W_FFN_NORM, true, hp->n_embd, 1, 1);
    if (hp->arch == MODEL_DEEPSEEK2) {
        find_latent_attention(&l);
        if (layer < hp->n_layer_dense)
            find_dense_ffn(&l);
        else
            find_experts(&l);
        return;
    }
    find_qkv(&l);
    need(&l, W_O, true, (int64_t)hp->head_v * hp->n_head, hp->n_embd, 1);
    if (hp->arch == MODEL_LLAMA)
        need(&l, B_O, false, hp->n_embd, 1, 1);
    if (hp->arch == MODEL_QWEN3) {
        need(&l, W_Q_NORM, true, hp->head_k, 1, 1);
        need(&l, W_K_NORM, true, hp->head_k, 1, 1);
    }
    find_dense_ffn(&l);
}

/* Angles are divided by these: a zero or a NaN would spread into every token. */
static int check_freqs(const struct search *s, const struct model_tensor *t)
{
    if (t == NULL || s->rc < 0)
        return s->rc;
    for (int64_t i = 0; i < t->ne[0]; i++) {
        float factor;

        memcpy(&factor, t->data + (size_t)i * sizeof(factor), sizeof(factor));
        if (!isfinite(factor) || factor <= 0.0f)
            return base_fail(s->err, MCP_EFORMAT,
                             "%s: element %" PRId64 " of tensor %s is %g, must be "
                             "above 0",
                             s->path, i, t->name, (double)factor);
    }
    return MCP_OK;
}

static const struct model_tensor *global(struct search *s, enum model_global g, bool required,
                                         int64_t ne0, int64_t ne1)
{
    return take(s, globals[g].name, globals[g].role, required, ne0, ne1, 1);
}

/* "blk.12.name" -> 12; UINT32_MAX for another form. */
static uint32_t layer_of(const char *name)
{
    uint32_t layer = 0;
    size_t   digits = 0;

    if (strncmp(name, "blk.", 4) != 0)
        return UINT32_MAX;
    for (name += 4; *name >= '0' && *name <= '9' && digits < 6; name++, digits++)
        layer = layer * 10 + (uint32_t)(*name - '0');
    return digits > 0 && *name == '.' ? layer : UINT32_MAX;
}

/* A tensor nobody asked for may change what the model computes: refuse it.  Those of the
 * layers that only predict further tokens are known to be unused. */
static int refuse_leftovers(const struct search *s)
{
    uint32_t skipped = 0;

    for (uint32_t i = 0; i < s->file->tensor_count; i++) {
        const char *name = s->file->tensors[i].name;
        uint32_t    layer = layer_of(name);

        if (s->used[i])
            continue;
        if (layer >= s->hp->n_layer && layer - s->hp->n_layer < s->hp->n_layer_nextn) {
            skipped++;
            continue;
        }
        return base_fail(s->err, MCP_ENOTSUP,
                         "%s: tensor %s is not part of a %s model that this build runs", s->path,
                         name, model_arch_name(s->hp->arch));
    }
    if (skipped > 0)
        base_log(BASE_LOG_WARN, "%s: %u tensors past layer %u (token prediction) are not used",
                 s->path, skipped, s->hp->n_layer - 1);
    return MCP_OK;
}

int model_tensors_find(struct model_tensors *out, const struct model_hparams *hp,
                       const struct model_file *file, mcp_error *err)
{
    struct search s = { .file = file, .hp = hp, .path = file->parts[0].path, .err = err };

    memset(out, 0, sizeof(*out));
    s.used = calloc(file->tensor_count, 1);
    out->layers = calloc(hp->n_layer, sizeof(*out->layers));
    if (s.used == NULL || out->layers == NULL) {
        s.rc = base_fail(err, MCP_ENOMEM, "%s: table of %u layers", s.path, hp->n_layer);
        goto out;
    }

    out->global[G_TOKEN_EMBD] = global(&s, G_TOKEN_EMBD, true, hp->n_embd, hp->n_vocab);
    out->global[G_OUTPUT_NORM] = global(&s, G_OUTPUT_NORM, true, hp->n_embd, 1);
    out->global[G_OUTPUT] = global(&s, G_OUTPUT, false, hp->n_embd, hp->n_vocab);
    if (hp->arch == MODEL_QWEN2)
        out->global[G_OUTPUT_B] = global(&s, G_OUTPUT_B, false, hp->n_vocab, 1);
    if (hp->arch == MODEL_LLAMA)
        out->global[G_ROPE_FREQS] = global(&s, G_ROPE_FREQS, false, hp->rope.n_rot / 2, 1);
    s.rc = check_freqs(&s, out->global[G_ROPE_FREQS]);
    for (uint32_t i = 0; i < hp->n_layer && s.rc == MCP_OK; i++)
        find_layer(&s, &out->layers[i], i);
    if (s.rc == MCP_OK)
        s.rc = refuse_leftovers(&s);

out:
    free(s.used);
    if (s.rc < 0)
        model_tensors_free(out);
    return s.rc;
}

void model_tensors_free(struct model_tensors *tensors)
{
    free(tensors->layers);
    memset(tensors, 0, sizeof(*tensors));
}
