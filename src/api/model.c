/* api/model.c - mcp/model.h: checks arguments, then calls src/model.
 *
 * SPDX-License-Identifier: MIT */
#include "model/model.h"

#include "base/fail.h"

int mcp_model_open(mcp_model **out, const char *path, mcp_error *err)
{
    if (out == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_model_open: out is NULL");
    *out = NULL;
    if (path == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_model_open: path is NULL");
    return model_open(out, path, err);
}

void mcp_model_close(mcp_model *model)
{
    model_close(model);
}

const mcp_model_info *mcp_model_get_info(const mcp_model *model)
{
    return model == NULL ? NULL : &model->info;
}

uint64_t mcp_model_range_bytes(const mcp_model *model, uint32_t first, uint32_t last)
{
    return model == NULL ? 0 : model_range_bytes(model, first, last);
}

int mcp_model_fingerprint(const mcp_model *model, uint8_t out[MCP_FINGERPRINT_BYTES],
                          mcp_error *err)
{
    if (model == NULL || out == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_model_fingerprint: model or out is NULL");
    return model_fingerprint(model, out, err);
}

int mcp_model_weights_fingerprint(const mcp_model *model, int layer,
                                  uint8_t out[MCP_FINGERPRINT_BYTES], mcp_error *err)
{
    if (model == NULL || out == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_model_weights_fingerprint: model or out is NULL");
    return model_weights_fingerprint(model, layer, out, err);
}

/* The tokenizer, and why not. */
static int need_vocab(const mcp_model *model, const struct model_vocab **vocab, mcp_error *err)
{
    mcp_error own = { 0 };

    if (model == NULL)
        return base_fail(err, MCP_EINVAL, "model is NULL");
    *vocab = model_get_vocab(model, &own);
    return *vocab != NULL ? MCP_OK : base_fail(err, own.code, "%s", own.text);
}

int mcp_model_tokenize(const mcp_model *model, const char *text, size_t text_bytes, int flags,
                       int32_t *tokens, size_t cap, mcp_error *err)
{
    const struct model_vocab *vocab;
    int                       rc = need_vocab(model, &vocab, err);

    if (rc < 0)
        return rc;
    if ((text == NULL && text_bytes > 0) || (tokens == NULL && cap > 0))
        return base_fail(err, MCP_EINVAL, "mcp_model_tokenize: text or tokens is NULL");
    return model_vocab_tokenize(vocab, text, text_bytes, flags, tokens, cap, err);
}

int mcp_model_token_bytes(const mcp_model *model, int32_t token, int special, char *bytes,
                          size_t cap, mcp_error *err)
{
    const struct model_vocab *vocab;
    int                       rc = need_vocab(model, &vocab, err);

    if (rc < 0)
        return rc;
    if (bytes == NULL && cap > 0)
        return base_fail(err, MCP_EINVAL, "mcp_model_token_bytes: bytes is NULL");
    return model_vocab_token_bytes(vocab, token, special, bytes, cap, err);
}

int mcp_model_token_ends(const mcp_model *model, int32_t token)
{
    const struct model_vocab *vocab;

    return need_vocab(model, &vocab, NULL) == MCP_OK && model_vocab_token_ends(vocab, token);
}

int mcp_model_chat_format(const mcp_model *model, const mcp_chat_message *messages, size_t count,
                          int open_answer, char *text, size_t cap, mcp_error *err)
{
    if (model == NULL || (messages == NULL && count > 0) || (text == NULL && cap > 0))
        return base_fail(err, MCP_EINVAL, "mcp_model_chat_format: model, messages or text is NULL");
    for (size_t i = 0; i < count; i++)
        if (messages[i].role == NULL || messages[i].content == NULL)
            return base_fail(err, MCP_EINVAL, "chat message %zu has no role or content", i);
    return model_chat_format(model, messages, count, open_answer, text, cap, err);
}
