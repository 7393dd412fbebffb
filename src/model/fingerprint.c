/* model/fingerprint.c - who a model is.
 *
 * Two identities (DESIGN, "fingerprint"): the *model* one must agree between all ends of
 * a pipeline, the *weights* ones (one a layer) must agree unless mixed precision is
 * allowed.  Both are SHA-256 over a canonical byte string; numbers are little-endian
 * u64, floats their IEEE bits as u64, strings length-prefixed.
 *
 *   model:    "mcp-model-1", architecture, the hyper-parameters in the order of
 *             add_hparams(), the tokenizer keys in the order of tokenizer_keys[] (name and
 *             GGUF type, then a string, a number's own bytes, or element type, count and
 *             elements), then for each norm tensor, in order of layer and slot, then the
 *             output norm and the rope factors, its name and f32 bytes.
 *   weights:  "mcp-weights-1", then for each tensor of the layer, in order of slot, its
 *             name, type, four dimensions and bytes.
 *
 * SPDX-License-Identifier: MIT */
#include "base/fail.h"
#include "base/sha256.h"
#include "model/keys.h"
#include "model/model.h"

#include <string.h>

static void add_text(struct base_sha256 *h, const char *text)
{
    base_sha256_add_string(h, text, strlen(text));
}

static void add_hparams(struct base_sha256 *h, const struct model_hparams *hp)
{
    const uint64_t numbers[] = {
        hp->n_layer,
        hp->n_embd,
        hp->n_vocab,
        hp->n_head,
        hp->n_head_kv,
        hp->head_k,
        hp->head_v,
        hp->n_ff,
        hp->n_layer_dense,
        hp->n_expert,
        hp->n_expert_used,
        hp->n_expert_shared,
        hp->n_expert_groups,
        hp->n_group_used,
        hp->n_ff_expert,
        hp->gate_sigmoid,
        hp->weights_norm,
        hp->q_lora,
        hp->kv_lora,
        hp->mla,
        hp->head_k_full,
        hp->head_v_full,
        (uint64_t)hp->rope.mode,
        hp->rope.n_rot,
        hp->rope.n_ctx_orig,
    };
    const float floats[] = {
        hp->rms_eps,         hp->weights_scale,   hp->rope.freq_base,
        hp->rope.freq_scale, hp->rope.ext_factor, hp->rope.attn_factor,
        hp->rope.beta_fast,  hp->rope.beta_slow,  hp->rope.log_mul,
    };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        base_sha256_add_u64(h, numbers[i]);
    for (size_t i = 0; i < sizeof(floats) / sizeof(floats[0]); i++)
        base_sha256_add_f32(h, floats[i]);
}

static const char *const tokenizer_keys[] = {
    "tokenizer.ggml.model",        "tokenizer.ggml.pre",          "tokenizer.ggml.tokens",
    "tokenizer.ggml.merges",       "tokenizer.ggml.token_type",   "tokenizer.ggml.scores",
    "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_bos_token",
};

static void add_key(struct base_sha256 *h, const struct gguf_context *gguf, const char *key)
{
    int64_t        id = gguf_find_key(gguf, key);
    enum gguf_type type;
    size_t         count;

    add_text(h, key);
    if (id < 0) {
        base_sha256_add_u64(h, UINT64_MAX);
        return;
    }
    type = gguf_get_kv_type(gguf, id);
    base_sha256_add_u64(h, (uint64_t)type);
    if (type == GGUF_TYPE_STRING) {
        add_text(h, gguf_get_val_str(gguf, id));
    } else if (type != GGUF_TYPE_ARRAY) {
        base_sha256_add(h, gguf_get_val_data(gguf, id), model_number_bytes(type));
    } else {
        type = gguf_get_arr_type(gguf, id);
        count = gguf_get_arr_n(gguf, id);
        base_sha256_add_u64(h, (uint64_t)type);
        base_sha256_add_u64(h, count);
        for (size_t i = 0; i < count && type == GGUF_TYPE_STRING; i++)
            add_text(h, gguf_get_arr_str(gguf, id, i));
        if (type != GGUF_TYPE_STRING)
            base_sha256_add(h, gguf_get_arr_data(gguf, id), count * model_number_bytes(type));
    }
}

static void add_norm(struct base_sha256 *h, const struct model_tensor *t)
{
    if (t == NULL)
        return;
    add_text(h, t->name);
    base_sha256_add_string(h, (const char *)t->data, t->bytes);
}

int model_fingerprint(const struct mcp_model *model, uint8_t out[MCP_FINGERPRINT_BYTES],
                      mcp_error *err)
{
    struct mcp_model   *m = (struct mcp_model *)model; /* the lazy part is not const */
    struct base_sha256 *h;
    int                 rc = MCP_OK;

    pthread_mutex_lock(&m->lock);
    if (!m->fingerprint_known) {
        h = base_sha256_new();
        add_text(h, "mcp-model-1");
        add_text(h, model_arch_name(m->hp.arch));
        add_hparams(h, &m->hp);
        for (size_t i = 0; i < sizeof(tokenizer_keys) / sizeof(tokenizer_keys[0]); i++)
            add_key(h, m->file.parts[0].gguf, tokenizer_keys[i]);
        for (uint32_t layer = 0; layer < m->hp.n_layer; layer++)
            for (int slot = 0; slot < MODEL_SLOT_COUNT; slot++)
                if (model_slot_role((enum model_slot)slot) == MODEL_ROLE_NORM)
                    add_norm(h, m->tensors.layers[layer].t[slot]);
        add_norm(h, m->tensors.global[G_OUTPUT_NORM]);
        add_norm(h, m->tensors.global[G_ROPE_FREQS]);
        rc = base_sha256_finish(h, m->fingerprint, err);
        m->fingerprint_known = rc == MCP_OK;
    }
    if (rc == MCP_OK)
        memcpy(out, m->fingerprint, MCP_FINGERPRINT_BYTES);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

static void add_weight(struct base_sha256 *h, const struct model_tensor *t)
{
    if (t == NULL)
        return;
    add_text(h, t->name);
    base_sha256_add_u64(h, (uint64_t)t->type);
    for (int d = 0; d < GGML_MAX_DIMS; d++)
        base_sha256_add_u64(h, (uint64_t)t->ne[d]);
    base_sha256_add_string(h, (const char *)t->data, t->bytes);
}

int model_weights_fingerprint(const struct mcp_model *model, int layer,
                              uint8_t out[MCP_FINGERPRINT_BYTES], mcp_error *err)
{
    const struct model_tensors *tensors = &model->tensors;
    struct base_sha256         *h;

    if (layer < MCP_PART_HEAD || layer >= (int)model->hp.n_layer)
        return base_fail(err, MCP_ERANGE, "layer %d is outside the model's %u layers", layer,
                         model->hp.n_layer);
    h = base_sha256_new();
    add_text(h, "mcp-weights-1");
    if (layer == MCP_PART_EMBED) {
        add_weight(h, tensors->global[G_TOKEN_EMBD]);
    } else if (layer == MCP_PART_HEAD) {
        add_weight(h, tensors->global[G_OUTPUT_NORM]);
        add_weight(h, tensors->global[tensors->global[G_OUTPUT] ? G_OUTPUT : G_TOKEN_EMBD]);
        add_weight(h, tensors->global[G_OUTPUT_B]);
        add_weight(h, tensors->global[G_ROPE_FREQS]);
    } else {
        for (int slot = 0; slot < MODEL_SLOT_COUNT; slot++)
            add_weight(h, tensors->layers[layer].t[slot]);
    }
    return base_sha256_finish(h, out, err);
}
