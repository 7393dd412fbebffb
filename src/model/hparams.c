/* model/hparams.c - see hparams.h.  Keys and defaults are llama.cpp's
 * (llama-arch.cpp, llama-model.cpp load_hparams, models/<arch>.cpp).
 *
 * SPDX-License-Identifier: MIT */
#include "model/hparams.h"

#include "base/fail.h"
#include "model/keys.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define ROPE_FACTOR_MIN 0.01f /* published ones are 1 to 40 */

static const char *const arch_names[MODEL_ARCH_COUNT] = {
    [MODEL_LLAMA] = "llama",
    [MODEL_QWEN2] = "qwen2",
    [MODEL_QWEN3] = "qwen3",
    [MODEL_DEEPSEEK2] = "deepseek2",
};

const char *model_arch_name(enum model_arch arch)
{
    return arch_names[arch];
}

static int read_arch(enum model_arch *arch, const struct model_file *file, mcp_error *err)
{
    const char *name = model_keys_global_string(file->parts[0].gguf, "general.architecture");

    if (name == NULL)
        return base_fail(err, MCP_EFORMAT, "%s: key general.architecture is missing or no string",
                         file->parts[0].path);
    for (int a = 0; a < MODEL_ARCH_COUNT; a++) {
        if (strcmp(name, arch_names[a]) == 0) {
            *arch = (enum model_arch)a;
            return MCP_OK;
        }
    }
    return base_fail(err, MCP_ENOTSUP,
                     "%s: architecture '%.64s' is not one of llama, qwen2, qwen3, deepseek2",
                     file->parts[0].path, name);
}

/* YaRN's attention scale, as in Hugging Face's modeling_rope_utils.py. */
static float yarn_mscale(float scale, float mscale)
{
    return scale <= 1.0f ? 1.0f : (0.1f * mscale * logf(scale) + 1.0f);
}

static int read_rope(struct model_hparams *hp, const struct model_keys *k, mcp_error *err)
{
    struct model_rope *rope = &hp->rope;
    const char        *scaling = "linear";
    float              factor = 0.0f, file_attn_factor = 1.0f;
    bool               yarn;
    int                rc;

    rope->mode = hp->arch == MODEL_QWEN2 || hp->arch == MODEL_QWEN3 ? GGML_ROPE_TYPE_NEOX : 0;
    rope->freq_base = 10000.0f;
    rope->beta_fast = 32.0f;
    rope->beta_slow = 1.0f;
    rope->n_ctx_orig = hp->n_ctx_train;

    rc = model_keys_f32(k, "rope.freq_base", 1.0f, 1e12f, &rope->freq_base, err);
    if (rc >= 0)
        rc = model_keys_string(k, "rope.scaling.type", &scaling, err);
    if (rc >= 0)
        rc = model_keys_f32(k, "rope.scaling.factor", 0.0f, 1e6f, &factor, err);
    if (rc == 0)
        rc = model_keys_f32(k, "rope.scale_linear", 0.0f, 1e6f, &factor, err);
    if (rc >= 0)
        rc = model_keys_u32(k, "rope.scaling.original_context_length", 1, MODEL_CTX_MAX,
                            &rope->n_ctx_orig, err);
    if (rc >= 0)
        rc = model_keys_f32(k, "rope.scaling.attn_factor", 1e-3f, 1e3f, &file_attn_factor, err);
    if (rc < 0)
        return rc;

    /* YaRN divides by 1 + 0.1 ln(factor), which is 0 at 4.5e-5. */
    if (factor != 0.0f && factor < ROPE_FACTOR_MIN)
        return base_fail(err, MCP_EFORMAT,
                         "%s: rope.scaling.factor is %g, must be 0 or at least %g", k->path,
                         (double)factor, (double)ROPE_FACTOR_MIN);

    yarn = strcmp(scaling, "yarn") == 0;
    if (!yarn && strcmp(scaling, "linear") != 0 && strcmp(scaling, "none") != 0)
        return base_fail(err, MCP_ENOTSUP,
                         "%s: rope.scaling.type '%.32s' is not one of none, linear, yarn", k->path,
                         scaling);

    rope->freq_scale = factor == 0.0f || strcmp(scaling, "none") == 0 ? 1.0f : 1.0f / factor;
    rope->ext_factor = yarn ? 1.0f : 0.0f;
    rope->attn_factor = 1.0f;
    if (yarn) {
        float scale = 1.0f / rope->freq_scale;

        if (rope->log_mul != 0.0f) {
            float mscale = hp->arch == MODEL_DEEPSEEK2 && rope->log_mul != 1.0f ? rope->log_mul
                                                                                : 1.0f;

            rope->attn_factor = yarn_mscale(scale, mscale) / yarn_mscale(scale, rope->log_mul);
        } else {
            rope->attn_factor = yarn_mscale(scale, 1.0f);
        }
        /* ggml_rope_ext multiplies by this itself when ext_factor is set. */
        rope->attn_factor *= 1.0f / (1.0f + 0.1f * logf(scale));
    }
    rope->attn_factor *= file_attn_factor;
    return MCP_OK;
}

/* Things that would change the arithmetic and are not built: ignoring one would give
 * wrong text instead of an error. */
static int refuse_unbuilt(const struct model_hparams *hp, const struct model_keys *k,
                          mcp_error *err)
{
    static const char *const zero_only[] = {
        "attention.max_alibi_bias", "attention.clamp_kqv",   "attention.temperature_scale",
        "attention.scale",          "attention.value_scale", "logit_scale",
        "residual_scale",           "embedding_scale",       "final_logit_softcapping",
        "attn_logit_softcapping",
    };
    bool     causal = true;
    uint32_t experts = 0;
    int      rc;

    for (size_t i = 0; i < sizeof(zero_only) / sizeof(zero_only[0]); i++) {
        float value = 0.0f;

        rc = model_keys_f32(k, zero_only[i], -1e30f, 1e30f, &value, err);
        if (rc < 0)
            return rc;
        if (value != 0.0f)
            return base_fail(err, MCP_ENOTSUP, "%s: key %s.%s is %g, which this build does not run",
                             k->path, k->arch, zero_only[i], (double)value);
    }
    rc = model_keys_bool(k, "attention.causal", &causal, err);
    if (rc < 0)
        return rc;
    if (!causal)
        return base_fail(err, MCP_ENOTSUP, "%s: attention.causal is false: not a generating model",
                         k->path);
    if (hp->arch != MODEL_DEEPSEEK2) {
        rc = model_keys_u32(k, "expert_count", 0, UINT32_MAX, &experts, err);
        if (rc < 0)
            return rc;
        if (experts > 0)
            return base_fail(err, MCP_ENOTSUP,
                             "%s: expert_count is %u: experts are built for deepseek2 only",
                             k->path, experts);
    }
    return MCP_OK;
}

static int read_experts(struct model_hparams *hp, const struct model_keys *k, mcp_error *err)
{
    uint32_t gating = 0;
    int      rc;

    hp->weights_scale = 0.0f;
    rc = model_keys_u32(k, "leading_dense_block_count", 0, hp->n_layer, &hp->n_layer_dense, err);
    if (rc >= 0)
        rc = model_keys_need_u32(k, "expert_count", 1, MODEL_EXPERTS_MAX, &hp->n_expert, err);
    if (rc >= 0)
        rc = model_keys_need_u32(k, "expert_used_count", 1, hp->n_expert, &hp->n_expert_used, err);
    if (rc >= 0)
        rc = model_keys_need_u32(k, "expert_shared_count", 1, MODEL_EXPERTS_MAX,
                                 &hp->n_expert_shared, err);
    if (rc >= 0)
        rc = model_keys_need_u32(k, "expert_feed_forward_length", 1, MODEL_FF_MAX, &hp->n_ff_expert,
                                 err);
    if (rc >= 0)
        rc = model_keys_u32(k, "expert_group_count", 0, hp->n_expert, &hp->n_expert_groups, err);
    if (rc >= 0)
        rc = model_keys_u32(k, "expert_group_used_count", 0, hp->n_expert, &hp->n_group_used, err);
    if (rc >= 0)
        rc = model_keys_f32(k, "expert_weights_scale", -1e4f, 1e4f, &hp->weights_scale, err);
    if (rc >= 0)
        rc = model_keys_bool(k, "expert_weights_norm", &hp->weights_norm, err);
    if (rc >= 0)
        rc = model_keys_u32(k, "expert_gating_func", 0, 255, &gating, err);
    if (rc < 0)
        return rc;

    if (gating > 2)
        return base_fail(err, MCP_ENOTSUP,
                         "%s: expert_gating_func is %u, must be 1 (softmax) or 2 (sigmoid)",
                         k->path, gating);
    hp->gate_sigmoid = gating == 2;
    if (hp->n_expert_groups > 1) {
        uint32_t per_group = hp->n_expert / hp->n_expert_groups;

        /* A group is scored by its two best experts, and the experts chosen must lie in
         * the groups used. */
        if (hp->n_expert % hp->n_expert_groups != 0 || per_group < 2 || hp->n_group_used < 1 ||
            hp->n_group_used >= hp->n_expert_groups ||
            hp->n_expert_used > hp->n_group_used * per_group)
            return base_fail(err, MCP_EFORMAT,
                             "%s: %u experts (%u used) do not fit %u groups of which %u are used",
                             k->path, hp->n_expert, hp->n_expert_used, hp->n_expert_groups,
                             hp->n_group_used);
    }
    return MCP_OK;
}

static int read_latent(struct model_hparams *hp, const struct model_keys *k,
                       const struct model_file *file, mcp_error *err)
{
    uint32_t key_mla = 0, value_mla = 0;
    int      rc;

    /* V2-Lite has no query compression, and its files may still carry the key. */
    if (model_file_find(file, "blk.0.attn_q.weight") == NULL) {
        rc = model_keys_need_u32(k, "attention.q_lora_rank", 1, MODEL_EMBD_MAX, &hp->q_lora, err);
        if (rc < 0)
            return rc;
    }
    rc = model_keys_need_u32(k, "attention.kv_lora_rank", 1, MODEL_HEAD_DIM_MAX, &hp->kv_lora, err);
    if (rc >= 0)
        rc = model_keys_u32(k, "attention.key_length_mla", 0, MODEL_HEAD_DIM_MAX, &key_mla, err);
    if (rc >= 0)
        rc = model_keys_u32(k, "attention.value_length_mla", 0, MODEL_HEAD_DIM_MAX, &value_mla,
                            err);
    if (rc < 0)
        return rc;

    if ((key_mla == 0) != (value_mla == 0))
        return base_fail(
            err, MCP_EFORMAT,
            "%s: attention.key_length_mla %u and value_length_mla %u must come together", k->path,
            key_mla, value_mla);
    hp->mla = key_mla != 0;
    hp->head_k_full = hp->mla ? key_mla : hp->head_k;
    hp->head_v_full = hp->mla ? value_mla : hp->head_v;
    if (hp->rope.n_rot >= hp->head_k_full)
        return base_fail(err, MCP_EFORMAT,
                         "%s: rope.dimension_count %u must be below the query size of %u a head",
                         k->path, hp->rope.n_rot, hp->head_k_full);
    if (hp->mla && (hp->n_head_kv != 1 || hp->head_k != hp->kv_lora + hp->rope.n_rot ||
                    hp->head_v != hp->kv_lora))
        return base_fail(
            err, MCP_EFORMAT,
            "%s: latent attention needs head_count_kv 1, key_length %u, value_length %u;"
            " the file has %u, %u, %u",
            k->path, hp->kv_lora + hp->rope.n_rot, hp->kv_lora, hp->n_head_kv, hp->head_k,
            hp->head_v);
    if (!hp->mla && hp->n_head_kv != hp->n_head)
        return base_fail(err, MCP_EFORMAT, "%s: attention.head_count_kv %u must be head_count %u",
                         k->path, hp->n_head_kv, hp->n_head);
    return MCP_OK;
}

/* The vocabulary's size is the embedding's; a tokenizer of another size would make
 * token ids that have no row. */
static int read_vocab(struct model_hparams *hp, const struct model_file *file, mcp_error *err)
{
    const char                *path = file->parts[0].path;
    const struct gguf_context *gguf = file->parts[0].gguf;
    const struct model_tensor *embd = model_file_find(file, "token_embd.weight");
    int64_t                    id = gguf_find_key(gguf, "tokenizer.ggml.tokens");

    if (embd == NULL)
        return base_fail(err, MCP_EFORMAT, "%s: tensor token_embd.weight is missing", path);
    if (embd->ne[1] > MODEL_VOCAB_MAX)
        return base_fail(err, MCP_EFORMAT, "%s: token_embd.weight has %" PRId64 " rows, at most %d",
                         path, embd->ne[1], MODEL_VOCAB_MAX);
    hp->n_vocab = (uint32_t)embd->ne[1];
    if (id >= 0 && gguf_get_kv_type(gguf, id) == GGUF_TYPE_ARRAY &&
        gguf_get_arr_n(gguf, id) != hp->n_vocab)
        return base_fail(err, MCP_EFORMAT,
                         "%s: the tokenizer has %zu tokens, token_embd.weight %u rows", path,
                         gguf_get_arr_n(gguf, id), hp->n_vocab);
    return MCP_OK;
}

int model_hparams_read(struct model_hparams *hp, const struct model_file *file, mcp_error *err)
{
    struct model_keys k = { .gguf = file->parts[0].gguf, .path = file->parts[0].path };
    uint32_t          nextn = 0;
    int               rc;

    memset(hp, 0, sizeof(*hp));
    rc = read_arch(&hp->arch, file, err);
    if (rc < 0)
        return rc;
    k.arch = arch_names[hp->arch];

    rc = model_keys_need_u32(&k, "block_count", 1, MODEL_LAYERS_MAX, &hp->n_layer, err);
    if (rc >= 0) /* trailing layers that only predict further tokens are not run */
        rc = model_keys_u32(&k, "nextn_predict_layers", 0, hp->n_layer - 1, &nextn, err);
    hp->n_layer -= nextn;
    hp->n_layer_nextn = nextn;
    if (rc >= 0)
        rc = model_keys_need_u32(&k, "embedding_length", 1, MODEL_EMBD_MAX, &hp->n_embd, err);
    if (rc >= 0)
        rc = model_keys_need_u32(&k, "context_length", 1, MODEL_CTX_MAX, &hp->n_ctx_train, err);
    if (rc >= 0)
        rc = model_keys_need_u32(&k, "feed_forward_length", 1, MODEL_FF_MAX, &hp->n_ff, err);
    if (rc >= 0)
        rc = model_keys_need_u32(&k, "attention.head_count", 1, MODEL_HEADS_MAX, &hp->n_head, err);
    if (rc < 0)
        return rc;

    hp->n_head_kv = hp->n_head;
    hp->head_k = hp->head_v = hp->n_embd / hp->n_head;
    rc = model_keys_u32(&k, "attention.head_count_kv", 1, hp->n_head, &hp->n_head_kv, err);
    if (rc >= 0)
        rc = model_keys_u32(&k, "attention.key_length", 1, MODEL_HEAD_DIM_MAX, &hp->head_k, err);
    if (rc >= 0)
        rc = model_keys_u32(&k, "attention.value_length", 1, MODEL_HEAD_DIM_MAX, &hp->head_v, err);
    hp->rope.n_rot = hp->head_k;
    if (rc >= 0)
        rc = model_keys_u32(&k, "rope.dimension_count", 2, MODEL_HEAD_DIM_MAX, &hp->rope.n_rot,
                            err);
    if (rc >= 0) /* below 1e-12 a zero vector would divide by (almost) zero */
        rc = model_keys_need_f32(&k, "attention.layer_norm_rms_epsilon", 1e-12f, 1.0f, &hp->rms_eps,
                                 err);
    if (rc < 0)
        return rc;
    if (hp->head_k == 0 || hp->head_v == 0 || hp->n_head % hp->n_head_kv != 0)
        return base_fail(err, MCP_EFORMAT,
                         "%s: %u heads, %u KV heads and embedding_length %u do not fit together",
                         k.path, hp->n_head, hp->n_head_kv, hp->n_embd);
    if (hp->rope.n_rot % 2 != 0)
        return base_fail(err, MCP_EFORMAT, "%s: rope.dimension_count is %u, must be even", k.path,
                         hp->rope.n_rot);

    if (hp->arch == MODEL_DEEPSEEK2) {
        rc = model_keys_f32(&k, "rope.scaling.yarn_log_multiplier", -1e3f, 1e3f, &hp->rope.log_mul,
                            err);
        hp->rope.log_mul /= 0.1f; /* converters store a tenth of mscale_all_dim */
        if (rc >= 0)
            rc = read_latent(hp, &k, file, err);
        if (rc >= 0)
            rc = read_experts(hp, &k, err);
    } else if (hp->head_k != hp->head_v || hp->rope.n_rot != hp->head_k) {
        rc = base_fail(
            err, MCP_ENOTSUP,
            "%s: attention.key_length %u, value_length %u (embedding_length / head_count "
            "when absent) and rope.dimension_count %u must be equal for %s",
            k.path, hp->head_k, hp->head_v, hp->rope.n_rot, k.arch);
    } else if (hp->arch == MODEL_QWEN2 && hp->head_k * hp->n_head != hp->n_embd) {
        rc = base_fail(err, MCP_EFORMAT, "%s: %u heads of %u are not embedding_length %u", k.path,
                       hp->n_head, hp->head_k, hp->n_embd);
    }
    if (rc >= 0)
        rc = refuse_unbuilt(hp, &k, err);
    if (rc >= 0)
        rc = read_rope(hp, &k, err);
    if (rc >= 0)
        rc = read_vocab(hp, file, err);
    return rc < 0 ? rc : MCP_OK;
}
