/* model/vocab.h - tokenizer and chat template, by libllama.
 *
 * libllama reads the vocabulary from the file itself (vocab_only).  It asserts on some
 * inconsistent tokenizers, so their arrays are checked here first.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MODEL_VOCAB_H
#define MODEL_VOCAB_H

#include <gguf.h>
#include <mcp/model.h>

struct llama_vocab;
struct model_vocab;

enum {
    /* Longest text tokenized at once: token counts must fit an int32. */
    MODEL_TEXT_BYTES_MAX = 1 << 30,
    /* A chat template is a few KB; 1 MB is arbitrary but safe. */
    MODEL_TEMPLATE_BYTES_MAX = 1 << 20,
};

/* Check the tokenizer keys of `gguf`; `path` is for the sentence.  MCP_ENOTSUP when
 * there is no tokenizer. */
int model_vocab_check(const struct gguf_context *gguf, const char *path, mcp_error *err);

/* Load the tokenizer of a GGUF file, which need not hold any tensor. */
int  model_vocab_open(struct model_vocab **out, const char *path, mcp_error *err);
void model_vocab_close(struct model_vocab *vocab);

/* Contracts as mcp_model_tokenize() and its neighbours. */
int model_vocab_tokenize(const struct model_vocab *vocab, const char *text, size_t text_bytes,
                         int flags, int32_t *tokens, size_t cap, mcp_error *err);
int model_vocab_token_bytes(const struct model_vocab *vocab, int32_t token, int special,
                            char *bytes, size_t cap, mcp_error *err);
int model_vocab_token_ends(const struct model_vocab *vocab, int32_t token);

uint32_t model_vocab_size(const struct model_vocab *vocab);

#endif
