/* model/model.c - see model.h.
 *
 * SPDX-License-Identifier: MIT */
#include "model/model.h"

#include "base/fail.h"
#include "model/keys.h"

#include <llama.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "q4_1 90, q8_0 120, f32 61": the mix, most elements first. */
static char *describe_types(const struct model_file *file)
{
    uint64_t elements[GGML_TYPE_COUNT] = { 0 };
    uint32_t tensors[GGML_TYPE_COUNT] = { 0 };
    char    *text = NULL;
    size_t   bytes = 0;
    FILE    *out = open_memstream(&text, &bytes);

    if (out == NULL)
        return NULL;
    for (uint32_t i = 0; i < file->tensor_count; i++) {
        const struct model_tensor *t = &file->tensors[i];

        tensors[t->type]++;
        elements[t->type] += (uint64_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
    }
    for (const char *comma = "";; comma = ", ") {
        int best = -1;

        for (int t = 0; t < GGML_TYPE_COUNT; t++)
            if (tensors[t] > 0 && (best < 0 || elements[t] > elements[best]))
                best = t;
        if (best < 0)
            break;
        fprintf(out, "%s%s %u", comma, ggml_type_name((enum ggml_type)best), tensors[best]);
        tensors[best] = 0;
    }
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

static char *describe_tokenizer(const struct gguf_context *gguf)
{
    const char *kind = model_keys_global_string(gguf, "tokenizer.ggml.model");
    const char *pre = model_keys_global_string(gguf, "tokenizer.ggml.pre");
    char       *text = NULL;

    if (kind == NULL)
        return strdup("none");
    if (asprintf(&text, "%.64s%s%.64s", kind, pre ? "/" : "", pre ? pre : "") < 0)
        return NULL;
    return text;
}

static int fill_info(struct mcp_model *m, mcp_error *err)
{
    const struct model_hparams *hp = &m->hp;
    const struct gguf_context  *gguf = m->file.parts[0].gguf;
    mcp_model_info             *info = &m->info;
    uint64_t                    width = (uint64_t)model_kv_width_k(hp) + model_kv_width_v(hp);

    m->tokenizer_name = describe_tokenizer(gguf);
    m->quantisation = describe_types(&m->file);
    if (m->tokenizer_name == NULL || m->quantisation == NULL)
        return base_fail(err, MCP_ENOMEM, "%s: description", m->file.parts[0].path);

    *info = (mcp_model_info){
        .path = m->file.parts[0].path,
        .architecture = model_arch_name(hp->arch),
        .name = model_keys_global_string(gguf, "general.name"),
        .quantisation = m->quantisation,
        .chat_template = model_keys_global_string(gguf, "tokenizer.chat_template"),
        .tokenizer = m->tokenizer_name,
        .parts = m->file.part_count,
        .layers = hp->n_layer,
        .n_embd = hp->n_embd,
        .n_vocab = hp->n_vocab,
        .n_ctx_train = hp->n_ctx_train,
        .n_head = hp->n_head,
        .n_head_kv = hp->n_head_kv,
        .n_ff = hp->n_ff,
        .n_expert = hp->n_expert,
        .n_expert_used = hp->n_expert_used,
        .kv_bytes_f16 = width * 2 * hp->n_layer,
        .kv_bytes_q8_0 = width * 34 / 32 * hp->n_layer,
    };
    if (info->name == NULL)
        info->name = "";
    for (uint32_t i = 0; i < m->file.tensor_count; i++) {
        const struct model_tensor *t = &m->file.tensors[i];

        info->parameters += (uint64_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
        info->weight_bytes += t->bytes;
    }
    for (uint32_t i = 0; i < m->file.part_count; i++)
        info->file_bytes += m->file.parts[i].bytes;
    return MCP_OK;
}

static void *load_vocab(void *arg)
{
    struct mcp_model *m = arg;

    m->vocab_rc = model_vocab_check(m->file.parts[0].gguf, m->file.parts[0].path, &m->vocab_error);
    if (m->vocab_rc == MCP_OK)
        m->vocab_rc = model_vocab_open(&m->vocab, m->file.parts[0].path, &m->vocab_error);
    return NULL;
}

int model_open(struct mcp_model **out, const char *path, mcp_error *err)
{
    struct mcp_model *m;
    int               rc;

    *out = NULL;
    m = calloc(1, sizeof(*m));
    if (m == NULL)
        return base_fail(err, MCP_ENOMEM, "%s: model", path);
    pthread_mutex_init(&m->lock, NULL);

    rc = model_file_open(&m->file, path, err);
    if (rc == MCP_OK)
        rc = model_hparams_read(&m->hp, &m->file, err);
    if (rc == MCP_OK)
        rc = model_tensors_find(&m->tensors, &m->hp, &m->file, err);
    if (rc == MCP_OK)
        rc = fill_info(m, err);
    if (rc < 0) {
        model_close(m);
        return rc;
    }

    /* A model without a usable tokenizer still runs layers: the error waits. */
    m->loader_running = pthread_create(&m->loader, NULL, load_vocab, m) == 0;
    if (!m->loader_running)
        load_vocab(m);
    *out = m;
    return MCP_OK;
}

void model_close(struct mcp_model *model)
{
    if (model == NULL)
        return;
    if (model->loader_running)
        pthread_join(model->loader, NULL);
    model_vocab_close(model->vocab);
    model_tensors_free(&model->tensors);
    model_file_close(&model->file);
    free(model->tokenizer_name);
    free(model->quantisation);
    pthread_mutex_destroy(&model->lock);
    free(model);
}

const struct model_vocab *model_get_vocab(const struct mcp_model *model, mcp_error *err)
{
    struct mcp_model *m = (struct mcp_model *)model; /* the lazy part is not const */

    pthread_mutex_lock(&m->lock);
    if (m->loader_running) {
        pthread_join(m->loader, NULL);
        m->loader_running = 0;
    }
    pthread_mutex_unlock(&m->lock);

    if (m->vocab == NULL)
        base_fail(err, m->vocab_rc, "%s", m->vocab_error.text);
    return m->vocab;
}

static uint64_t global_bytes(const struct mcp_model *m, enum model_global g)
{
    const struct model_tensor *t = m->tensors.global[g];

    return t == NULL ? 0 : t->bytes;
}

uint64_t model_range_bytes(const struct mcp_model *model, uint32_t first, uint32_t last)
{
    uint64_t bytes = 0;

    for (uint32_t layer = first; layer < last && layer < model->hp.n_layer; layer++)
        for (int slot = 0; slot < MODEL_SLOT_COUNT; slot++)
            if (model->tensors.layers[layer].t[slot] != NULL)
                bytes += model->tensors.layers[layer].t[slot]->bytes;
    if (first == 0)
        bytes += global_bytes(model, G_TOKEN_EMBD);
    if (last == model->hp.n_layer) {
        bytes += global_bytes(model, G_OUTPUT_NORM) + global_bytes(model, G_OUTPUT_B);
        bytes += global_bytes(model, model->tensors.global[G_OUTPUT] ? G_OUTPUT : G_TOKEN_EMBD);
    }
    return bytes;
}

void model_embed(const struct model_tensor *embd, int32_t token, float *out)
{
    const uint8_t *row = embd->data + (size_t)token * ggml_row_size(embd->type, embd->ne[0]);

    if (embd->type == GGML_TYPE_F32)
        memcpy(out, row, (size_t)embd->ne[0] * sizeof(float));
    else
        ggml_get_type_traits(embd->type)->to_float(row, out, embd->ne[0]);
}

int model_chat_format(const struct mcp_model *model, const mcp_chat_message *messages, size_t count,
                      int open_answer, char *text, size_t cap, mcp_error *err)
{
    const char *template = model->info.chat_template;
    llama_chat_message *chat;
    int32_t             bytes;

    if (template == NULL)
        return base_fail(err, MCP_ENOTSUP, "%s: the file has no chat template", model->info.path);
    if (strlen(template) > MODEL_TEMPLATE_BYTES_MAX)
        return base_fail(err, MCP_ENOTSUP, "%s: the chat template is above %d bytes",
                         model->info.path, MODEL_TEMPLATE_BYTES_MAX);
    chat = calloc(count > 0 ? count : 1, sizeof(*chat));
    if (chat == NULL)
        return base_fail(err, MCP_ENOMEM, "%zu chat messages", count);
    for (size_t i = 0; i < count; i++)
        chat[i] = (llama_chat_message){ messages[i].role, messages[i].content };
    bytes = llama_chat_apply_template(template, chat, count, open_answer != 0, text,
                                      cap > INT32_MAX ? INT32_MAX : (int32_t)cap);
    free(chat);
    if (bytes < 0)
        return base_fail(err, MCP_ENOTSUP,
                         "%s: the chat template is none of those that libllama knows",
                         model->info.path);
    /* libllama does not terminate. */
    if ((size_t)bytes < cap)
        text[bytes] = '\0';
    return bytes;
}
