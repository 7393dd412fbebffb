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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKEN_TYPE_BYTE = 6 }; /* LLAMA_TOKEN_TYPE_BYTE as stored in the file */

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
    { "general.name", GGUF_TYPE_STRING, false },
    { "general.file_type", GGUF_TYPE_UINT32, false },
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
    "bos",     "eos",     "eot",     "eom",     "unknown", "seperator",
    "padding", "mask",    "cls",     "prefix",  "suffix",  "middle",
    "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep",
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

/* A set of the tokens' texts: open addressing, power-of-two slots, at most half full. */
struct texts {
    const char **slot;
    size_t       mask;
};

/* Where the text is, or would be. */
static size_t texts_find(const struct texts *set, const char *text)
{
    size_t at = 14695981039346656037u;

    for (const unsigned char *c = (const unsigned char *)text; *c != 0; c++)
        at = (at ^ *c) * 1099511628211u; /* FNV-1a */
    for (at &= set->mask; set->slot[at] != NULL; at = (at + 1) & set->mask)
        if (strcmp(set->slot[at], text) == 0)
            break;
    return at;
}

/* False when the text was there already. */
static bool texts_add(struct texts *set, const char *text)
{
    size_t at = texts_find(set, text);

    if (set->slot[at] != NULL)
        return false;
    set->slot[at] = text;
    return true;
}

/* libllama looks up the byte of any text that no token covers, and throws when there is
 * none; its table of texts must be as long as its table of ids. */
static int check_texts(const struct gguf_context *gguf, const char *path, bool bytes_needed,
                       struct texts *set, mcp_error *err)
{
    int64_t id = gguf_find_key(gguf, "tokenizer.ggml.tokens");
    size_t  count = gguf_get_arr_n(gguf, id);
    int64_t types = gguf_find_key(gguf, "tokenizer.ggml.token_type");

    for (size_t i = 0; i < count; i++) {
        const char *text = gguf_get_arr_str(gguf, id, i);
        unsigned    byte;
        int         end = 0;

        if (text[0] != '\0' && !texts_add(set, text))
            return base_fail(err, MCP_EFORMAT,
                             "%s: token %zu has the text of an earlier one: '%.48s'", path, i,
                             text);
        if (bytes_needed && types >= 0 &&
            ((const int32_t *)gguf_get_arr_data(gguf, types))[i] == TOKEN_TYPE_BYTE &&
            (sscanf(text, "<0x%2X>%n", &byte, &end) != 1 || end != 6 || text[6] != '\0'))
            return base_fail(err, MCP_EFORMAT,
                             "%s: token %zu '%.48s' is of type byte, must be <0xHH>", path, i,
                             text);
    }
    for (size_t i = 0; i < count; i++) {
        char name[32]; /* libllama's for a token without text */

        snprintf(name, sizeof(name), "[EMPTY_%zu]", i);
        if (gguf_get_arr_str(gguf, id, i)[0] == '\0' && set->slot[texts_find(set, name)] != NULL)
            return base_fail(err, MCP_EFORMAT, "%s: token %zu has no text, and '%s' is taken", path,
                             i, name);
    }
    for (unsigned byte = 0; byte < 256 && bytes_needed; byte++) {
        char form[8], raw[2] = { (char)byte, '\0' };

        snprintf(form, sizeof(form), "<0x%02X>", byte);
        if (set->slot[texts_find(set, form)] == NULL &&
            (byte == 0 || set->slot[texts_find(set, raw)] == NULL))
            return base_fail(err, MCP_EFORMAT, "%s: the vocabulary has no token %s for byte %u",
                             path, form, byte);
    }
    return MCP_OK;
}

static int check_tokens(const struct gguf_context *gguf, const char *path, bool bytes_needed,
                        mcp_error *err)
{
    size_t       count = array_count(gguf, "tokenizer.ggml.tokens");
    struct texts set = { .mask = 1 };
    int          rc;

    while (set.mask < 2 * count)
        set.mask *= 2;
    set.slot = calloc(set.mask, sizeof(*set.slot));
    set.mask--;
    if (set.slot == NULL)
        return base_fail(err, MCP_ENOMEM, "%s: table of %zu tokens", path, count);
    rc = check_texts(gguf, path, bytes_needed, &set, err);
    free(set.slot);
    return rc;
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

        if (gguf_find_key(gguf, parallel[i]) >= 0 && count != tokens)
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
    return check_tokens(gguf, path, strcmp(kind, "llama") == 0, err);
}

int model_vocab_open(struct model_vocab **out, const char *path, mcp_error *err)
{
    struct llama_model_params params = llama_model_default_params();
    ggml_backend_dev_t        none[] = { NULL };
    struct model_vocab       *vocab;
    const char               *reason;

    *out = NULL;
    model_libraries_init();
    vocab = calloc(1, sizeof(*vocab));
    if (vocab == NULL)
        return base_fail(err, MCP_ENOMEM, "%s: vocabulary", path);

    params.vocab_only = true;
    params.devices = none; /* or it would wake every GPU, and from a thread of its own */
    base_log_capture_begin();
    vocab->llama = llama_model_load_from_file(path, params);
    reason = base_log_capture_end();
    if (vocab->llama == NULL) {
        free(vocab);
        while (strstr(reason, "error loading model") == reason && strstr(reason, ": ") != NULL)
            reason = strstr(reason, ": ") + 2; /* said more than once */
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

int model_vocab_token_bytes(const struct model_vocab *vocab, int32_t token, int special,
                            char *bytes, size_t cap, mcp_error *err)
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
