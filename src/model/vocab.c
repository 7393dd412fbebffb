/* model/vocab.c - see vocab.h.
 *
 * SPDX-License-Identifier: MIT */
#include "model/vocab.h"

#include "base/fail.h"
#include "base/log.h"
#include "model/file.h"
#include "model/keys.h"

#include <inttypes.h>
#include <llama.h>
#include <stdlib.h>
#include <string.h>

struct model_vocab {
    struct llama_model       *llama; /* vocabulary only */
    const struct llama_vocab *vocab;
};

/* Keys that libllama reads with a fixed type and aborts on another. */
static const struct {
    const char    *key;
    enum gguf_type type;
    bool           array;
} typed[] = {
    { "tokenizer.ggml.model", GGUF_TYPE_STRING, false },
    { "tokenizer.ggml.pre", GGUF_TYPE_STRING, false },
    { "tokenizer.ggml.tokens", GGUF_TYPE_STRING, true },
    { "tokenizer.ggml.merges", GGUF_TYPE_STRING, true },
    { "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, true },
    { "tokenizer.ggml.token_type", GGUF_TYPE_INT32, true },
    { "tokenizer.chat_template", GGUF_TYPE_STRING, false },
    { "tokenizer.ggml.add_bos_token", GGUF_TYPE_BOOL, false },
    { "tokenizer.ggml.add_eos_token", GGUF_TYPE_BOOL, false },
    { "tokenizer.ggml.add_sep_token", GGUF_TYPE_BOOL, false },
    { "tokenizer.ggml.add_space_prefix", GGUF_TYPE_BOOL, false },
    { "tokenizer.ggml.remove_extra_whitespaces", GGUF_TYPE_BOOL, false },
};

/* Ids of special tokens: u32, below the vocabulary's size. */
static const char *const ids[] = {
    "bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask",
    "cls", "prefix", "suffix", "middle", "fim_pre", "fim_suf", "fim_mid", "fim_pad",
    "fim_rep", "fim_sep",
};

static size_t array_count(const struct gguf_context *gguf, const char *key)
{
    int64_t id = gguf_find_key(gguf, key);

    return id < 0 ? 0 : gguf_get_arr_n(gguf, id);
}

static int check_types(const struct gguf_context *gguf, const char *path, mcp_error *err)
{
    for (size_t i = 0; i < sizeof(typed) / sizeof(typed[0]); i++) {
        int64_t id = gguf_find_key(gguf, typed[i].key);
        bool    array, same;

        if (id < 0)
            continue;
        array = gguf_get_kv_type(gguf, id) == GGUF_TYPE_ARRAY;
        same = (array ? gguf_get_arr_type(gguf, id) : gguf_get_kv_type(gguf, id)) == typed[i].type;
        if (array != typed[i].array || !same)
            return base_fail(err, MCP_EFORMAT, "%s: key %s must be %s%s", path, typed[i].key,
                             typed[i].array ? "an array of " : "of type ",
                             gguf_type_name(typed[i].type));
    }
    return MCP_OK;
}

int model_vocab_check(const struct gguf_context *gguf, const char *path, mcp_error *err)
{
    static const char *const parallel[] = { "tokenizer.ggml.scores", "tokenizer.ggml.token_type" };
    const char              *kind = model_keys_global_string(gguf, "tokenizer.ggml.model");
    size_t                   tokens;
    int                      rc;

    rc = check_types(gguf, path, err);
    if (rc < 0)
        return rc;
    tokens = array_count(gguf, "tokenizer.ggml.tokens");
    if (kind == NULL || tokens == 0)
        return base_fail(err, MCP_ENOTSUP, "%s: the file carries no tokenizer", path);
    if (strcmp(kind, "llama") != 0 && strcmp(kind, "gpt2") != 0)
        return base_fail(err, MCP_ENOTSUP,
                         "%s: tokenizer.ggml.model '%.32s' is not one of llama, gpt2", path, kind);
    for (size_t i = 0; i < sizeof(parallel) / sizeof(parallel[0]); i++) {
        size_t count = array_count(gguf, parallel[i]);

        if (count != 0 && count != tokens)
            return base_fail(err, MCP_EFORMAT, "%s: key %s has %zu entries for %zu tokens", path,
                             parallel[i], count, tokens);
    }
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        char    key[64];
        int64_t id;

        snprintf(key, sizeof(key), "tokenizer.ggml.%s_token_id", ids[i]);
        id = gguf_find_key(gguf, key);
        if (id < 0)
            continue;
        if (gguf_get_kv_type(gguf, id) != GGUF_TYPE_UINT32)
            return base_fail(err, MCP_EFORMAT, "%s: key %s must be of type u32", path, key);
        if (gguf_get_val_u32(gguf, id) >= tokens && gguf_get_val_u32(gguf, id) != UINT32_MAX)
            return base_fail(err, MCP_EFORMAT, "%s: key %s is %u, there are %zu tokens", path, key,
                             gguf_get_val_u32(gguf, id), tokens);
    }
    return MCP_OK;
}

int model_vocab_open(struct model_vocab **out, const char *path, mcp_error *err)
{
    struct llama_model_params params = llama_model_default_params();
    struct model_vocab       *vocab;
    const char               *reason;

    *out = NULL;
    model_libraries_init();
    vocab = calloc(1, sizeof(*vocab));
    if (vocab == NULL)
        return base_fail(err, MCP_ENOMEM, "%s: vocabulary", path);

    params.vocab_only = true;
    base_log_capture_begin();
    vocab->llama = llama_model_load_from_file(path, params);
    reason = base_log_capture_end();
    if (vocab->llama == NULL) {
        free(vocab);
        return base_fail(err, MCP_EFORMAT, "%s: the tokenizer cannot be used: %s", path,
                         reason[0] != '\0' ? reason : "libllama gives no reason");
    }
    vocab->vocab = llama_model_get_vocab(vocab->llama);
    *out = vocab;
    return MCP_OK;
}

void model_vocab_close(struct model_vocab *vocab)
{
    if (vocab == NULL)
        return;
    llama_model_free(vocab->llama);
    free(vocab);
}

uint32_t model_vocab_size(const struct model_vocab *vocab)
{
    return (uint32_t)llama_vocab_n_tokens(vocab->vocab);
}

int model_vocab_tokenize(const struct model_vocab *vocab, const char *text, size_t text_bytes,
                         int flags, int32_t *tokens, size_t cap, mcp_error *err)
{
    int32_t count;

    if (text_bytes > MODEL_TEXT_BYTES_MAX)
        return base_fail(err, MCP_ERANGE, "text of %zu bytes, at most %d can be tokenized at once",
                         text_bytes, MODEL_TEXT_BYTES_MAX);
    if (cap > INT32_MAX)
        cap = INT32_MAX;
    count = llama_tokenize(vocab->vocab, text, (int32_t)text_bytes, tokens, (int32_t)cap,
                           (flags & MCP_TOKENIZE_BOS) != 0, (flags & MCP_TOKENIZE_SPECIAL) != 0);
    if (count == INT32_MIN)
        return base_fail(err, MCP_ERANGE, "text of %zu bytes makes more than 2^31 tokens",
                         text_bytes);
    return count < 0 ? -count : count;
}

int model_vocab_token_bytes(const struct model_vocab *vocab, int32_t token, int special, char *bytes,
                            size_t cap, mcp_error *err)
{
    int32_t count;

    if (token < 0 || (uint32_t)token >= model_vocab_size(vocab))
        return base_fail(err, MCP_ERANGE, "token %d is outside the vocabulary of %u", token,
                         model_vocab_size(vocab));
    if (cap > INT32_MAX)
        cap = INT32_MAX;
    count = llama_token_to_piece(vocab->vocab, token, bytes, (int32_t)cap, 0, special != 0);
    return count < 0 ? -count : count;
}

int model_vocab_token_ends(const struct model_vocab *vocab, int32_t token)
{
    return token >= 0 && (uint32_t)token < model_vocab_size(vocab) &&
           llama_vocab_is_eog(vocab->vocab, token);
}
