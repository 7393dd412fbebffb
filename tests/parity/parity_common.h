/* SPDX-License-Identifier: MIT */
/* parity_common.h - what the parity tests share: models on disk, windows of tokens and
 * runs through our own engine.
 *
 * A helper that cannot do its work fails the running test at once with a sentence;
 * it never returns an error.  One thread. */
#ifndef PARITY_COMMON_H
#define PARITY_COMMON_H

#include "rows_common.h"

#include <mcp/generate.h>

/* ---- models --------------------------------------------------------------------- */

/* Every tiny shape of mcp-synth; two whose q8_0 KV cache llama.cpp rotates (heads of 64 and
 * 128); one whose experts are wide enough for the k-quants.  X(shape[:key=value,...]) */
#define PARITY_SHAPES(X)         \
    X("tiny-llama")              \
    X("tiny-llama-256")          \
    X("tiny-llama-gqa3")         \
    X("tiny-llama-linear")       \
    X("tiny-llama-yarn")         \
    X("tiny-llama-llama3")       \
    X("tiny-llama-bias")         \
    X("tiny-llama-fused")        \
    X("tiny-qwen2")              \
    X("tiny-qwen2-outbias")      \
    X("tiny-qwen3")              \
    X("tiny-qwen3-yarn")         \
    X("tiny-deepseek2")          \
    X("tiny-deepseek2-mla")      \
    X("tiny-deepseek2-groups")   \
    X("tiny-deepseek2-lite-mla") \
    X("tiny-llama:head_dim=64")  \
    X("tiny-qwen3:head_dim=128") \
    X("tiny-deepseek2-mla:n_embd=256,ff=256,expert_ff=256")

/* The path of a model that mcp-synth (MCP_SYNTH) wrote; the same one for the same
 * arguments, removed when the program ends.  `quant` is mcp-synth's name. */
const char *synth_model(const char *shape, const char *quant);

/* Remove them all now: together they are some 100 MB. */
void synth_clear(void);

/* Run mcp-synth with these arguments (NULL ends them) and give what it printed, to be
 * freed; fails the test when it exits with another status than 0. */
char *synth_output(const char *const *arguments);

/* MCP_MODEL_SMOLLM2; skips the running test when it is not set. */
const char *smollm2_path(void);

/* ---- our engine ----------------------------------------------------------------- */

enum { PARITY_WINDOWS_MAX = 64 };

/* CPU, one sequence of 256 positions, flash attention, f16 KV, one thread: threads wait
 * for each other at every operation, which on a busy machine takes 100 times longer than
 * the work. */
mcp_engine_opts parity_opts(void);

/* The same with two threads, for the few tests that are about them. */
mcp_engine_opts parity_opts_threads(void);

mcp_model  *parity_model_open(const char *path);
mcp_engine *parity_engine_open(const mcp_model *model, const mcp_engine_opts *opts);

/* How a sequence is split into windows. */
struct windows {
    uint32_t sizes[PARITY_WINDOWS_MAX];
    uint32_t count;
};

#define WINDOWS(...)                                                               \
    {                                                                              \
        .sizes = { __VA_ARGS__ }, .count = sizeof((uint32_t[]){ __VA_ARGS__ }) / 4 \
    }

uint32_t windows_total(const struct windows *windows);

/* Sizes from 1 to `largest` that add up to `total`. */
void windows_random(struct windows *windows, struct rng *rng, uint32_t total, uint32_t largest);

struct cuts {
    uint32_t at[MCP_CUTS_MAX]; /* ascending, in (0, layers) */
    uint32_t count;
};

/* Some of the possible cuts, at least one. */
void        cuts_random(struct cuts *cuts, struct rng *rng, uint32_t layers);
const char *cuts_text(const struct cuts *cuts, char *text, size_t cap);

/* One forward of tokens through stages cut at `cuts` (NULL: uncut) to logits.  Returns
 * what mcp_engine_forward() returned. */
int parity_forward(mcp_engine *engine, const mcp_model *model, const struct cuts *cuts,
                   const mcp_window *windows, uint32_t count, float *logits, size_t floats,
                   mcp_error *err);

/* Append tokens to a sequence, window by window, and write logits of all rows.  Fails
 * the test on an error. */
void parity_run(mcp_engine *engine, const mcp_model *model, const struct cuts *cuts, uint32_t seq,
                const int32_t *tokens, const struct windows *windows, float *logits);

void parity_trim(mcp_engine *engine, uint32_t seq, uint32_t pos);

/* The block of mcp_engine_export(), to be freed. */
void *parity_export(mcp_engine *engine, uint32_t seq, uint32_t first, uint32_t last,
                    uint32_t pos_first, uint32_t pos_last, size_t *bytes);
void  parity_import(mcp_engine *engine, uint32_t seq, const void *block, size_t bytes);

#endif
