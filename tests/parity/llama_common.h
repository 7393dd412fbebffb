/* SPDX-License-Identifier: MIT */
/* llama_common.h - llama.cpp as the oracle: the same model, windows and flags.
 *
 * The oracle takes mcp's own options and windows, so that a test describes a run once
 * and both engines get it.  Failures of llama.cpp where it must work fail the test. */
#ifndef LLAMA_COMMON_H
#define LLAMA_COMMON_H

#include "parity_common.h"

#include <llama.h>

/* Load on the CPU; NULL when llama.cpp refuses, see oracle_reason(). */
struct llama_model *oracle_model_try(const char *path, int repack);
struct llama_model *oracle_model_open(const char *path, int repack);
struct llama_model *oracle_vocab_open(const char *path);

/* A context for opts->seqs sequences of opts->ctx_tokens positions (which llama.cpp
 * rounds up to 256), not unified.  NULL when llama.cpp refuses. */
struct llama_context *oracle_context_try(struct llama_model *model, const mcp_engine_opts *opts);
struct llama_context *oracle_context_open(struct llama_model *model, const mcp_engine_opts *opts);

/* The last error line of llama.cpp. */
const char *oracle_reason(void);

/* One llama_decode() of windows of tokens; rows as mcp_engine_forward() orders them. */
void oracle_forward(struct llama_context *ctx, const mcp_window *windows, uint32_t count,
                    float *logits, size_t floats);

/* Append tokens to an empty or begun sequence, window by window; logits of all rows. */
void oracle_run(struct llama_context *ctx, uint32_t seq, const int32_t *tokens,
                const struct windows *windows, float *logits);

/* Forget all sequences. */
void oracle_clear(struct llama_context *ctx);

/* The most likely token, `count` times, after a prompt in one window.  End tokens do not
 * end it. */
void oracle_greedy(struct llama_context *ctx, const int32_t *prompt, uint32_t prompt_count,
                   int32_t *tokens, uint32_t count);

int32_t oracle_tokenize(const struct llama_vocab *vocab, const char *text, size_t bytes,
                        bool add_special, bool parse_special, int32_t *tokens, int32_t cap);

/* Say where our engine first leaves llama.cpp in a run of windows on sequence 0: "layer 3
 * of 4, window 0, row 0, max abs 1e-4", or that only the head differs. */
const char *oracle_first_layer(struct llama_model *llama, const mcp_model *model,
                               const mcp_engine_opts *opts, const int32_t *tokens,
                               const struct windows *windows, char *text, size_t cap);

#endif
