/* mcp/model.h - a GGUF file: what it holds, who it is, its tokenizer.
 *
 * A model is opened without reading its weights; engines (mcp/engine.h) load the
 * layers that they run.  A model is immutable: every function here may be called
 * from several threads at once, except mcp_model_close(), which must be the last
 * use and must come after the close of every engine opened on it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MCP_MODEL_H
#define MCP_MODEL_H

#include <mcp/error.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mcp_model mcp_model;

enum { MCP_FINGERPRINT_BYTES = 32 };

/* Pseudo layers of mcp_model_weights_fingerprint(): the token embedding, and the
 * final norm with the output head. */
enum { MCP_PART_EMBED = -1, MCP_PART_HEAD = -2 };

/* All strings belong to the model and live as long as it. */
typedef struct {
    const char *path;          /* as given; the first part of a split file */
    const char *architecture;  /* "llama", "qwen2", "qwen3", "deepseek2" */
    const char *name;          /* general.name, "" when absent */
    const char *quantisation;  /* "Q4_0", "Q4_K 169, Q6_K 29, F32 61": types and tensor counts */
    const char *chat_template; /* Jinja text, NULL when the file has none */
    const char *tokenizer;     /* tokenizer.ggml.model/pre, "none" when absent */
    uint32_t    parts;         /* files that make up the model */
    uint32_t    layers;
    uint32_t    n_embd;  /* floats in one token's hidden state */
    uint32_t    n_vocab; /* floats in one row of logits */
    uint32_t    n_ctx_train;
    uint32_t    n_head;
    uint32_t    n_head_kv;
    uint32_t    n_ff;
    uint32_t    n_expert; /* 0 for a dense model */
    uint32_t    n_expert_used;
    uint64_t    parameters;    /* elements of all tensors */
    uint64_t    weight_bytes;  /* bytes of all tensors */
    uint64_t    file_bytes;    /* sum over the parts */
    uint64_t    kv_bytes_f16;  /* KV cache of one token in all layers, f16 */
    uint64_t    kv_bytes_q8_0; /* the same in q8_0 */
} mcp_model_info;

/* Map a GGUF file and check everything in it that a wrong byte could turn into a
 * crash later: header, keys, tensor shapes, types, offsets.  For a split model
 * `path` names any part; the others are found beside it.
 *
 * On failure *out is NULL and nothing stays mapped.  Expected failures:
 *   MCP_ENOTFOUND  no such file            MCP_EIO      not a regular file, unreadable
 *   MCP_EFORMAT    not a (whole) GGUF      MCP_ENOTSUP  an architecture or key that is not built */
MCP_API int  mcp_model_open(mcp_model **out, const char *path, mcp_error *err);
MCP_API void mcp_model_close(mcp_model *model);

MCP_API const mcp_model_info *mcp_model_get_info(const mcp_model *model);

/* Bytes of the weights of layers [first, last), plus embedding and head where the
 * range includes them. */
MCP_API uint64_t mcp_model_range_bytes(const mcp_model *model, uint32_t first, uint32_t last);

/* The identity that two ends of a pipeline must share: SHA-256 over the
 * architecture, the hyper-parameters, the tokenizer and the norm tensors, which no
 * quantisation changes.  docs/architecture.md gives the byte layout. */
MCP_API int mcp_model_fingerprint(const mcp_model *model, uint8_t out[MCP_FINGERPRINT_BYTES],
                                  mcp_error *err);

/* SHA-256 over the weights of one layer (or MCP_PART_*): names, types, shapes and
 * bytes.  Reads the layer from disk, about 1 s a gigabyte. */
MCP_API int mcp_model_weights_fingerprint(const mcp_model *model, int layer,
                                          uint8_t out[MCP_FINGERPRINT_BYTES], mcp_error *err);

/* ---- tokenizer ------------------------------------------------------------------ */

enum {
    MCP_TOKENIZE_SPECIAL = 1, /* text may spell control tokens such as <|im_start|> */
    MCP_TOKENIZE_BOS = 2,     /* begin with the model's own prefix token, if it has one */
};

/* Text to token ids.  Returns the number of tokens; when that is more than `cap`,
 * nothing was written and the call is to be repeated with room.  Failures:
 *   MCP_ENOTSUP  the file carries no tokenizer    MCP_ERANGE  text above 1 GiB */
MCP_API int mcp_model_tokenize(const mcp_model *model, const char *text, size_t text_bytes,
                               int flags, int32_t *tokens, size_t cap, mcp_error *err);

/* The bytes of one token, not terminated; may be part of a UTF-8 sequence.  Returns
 * the number of bytes, needed or written; control tokens give 0 unless `special`. */
MCP_API int mcp_model_token_bytes(const mcp_model *model, int32_t token, int special, char *bytes,
                                  size_t cap, mcp_error *err);

/* 1 when the token ends an answer (EOS, end of turn, ...), else 0. */
MCP_API int mcp_model_token_ends(const mcp_model *model, int32_t token);

typedef struct {
    const char *role;    /* "system", "user", "assistant" */
    const char *content; /* UTF-8, terminated */
} mcp_chat_message;

/* Write a conversation in the model's chat format, ending where the assistant's
 * answer begins when `open_answer` is set.  Returns the number of bytes needed,
 * excluding the terminator; the text is complete only when that is below `cap`.
 *   MCP_ENOTSUP  no template, or none that is known; use the raw text instead */
MCP_API int mcp_model_chat_format(const mcp_model *model, const mcp_chat_message *messages,
                                  size_t count, int open_answer, char *text, size_t cap,
                                  mcp_error *err);

#ifdef __cplusplus
}
#endif
#endif
