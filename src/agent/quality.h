/* agent/quality.h - what codecs do to a model's answers, measured: change of perplexity by hidden
 * states that pass through them at a pair of cuts.
 *
 * A short text that is built in runs through all layers here, once as it is and once a codec.  The
 * perplexity of the text itself tells little: with 400 tokens its change is known to 0.4 %, about
 * the bound.  What is to be expected of that change, for text as the model would write it, is the
 * KL divergence of what the model predicts, which takes all tokens that might have come into
 * account and is known ten times as well.  Quantised weights round what they multiply, so that the
 * smallest disturbance, f16's, moves every prediction a little at random; what counts is a codec's
 * divergence beyond that.  Both are told, with their standard errors.
 *
 * It takes seconds, needs the whole model here, and is kept in the cache folder, a file a model's
 * weights, pair of cuts and codecs.  Where it would take too long or too much memory the
 * caller keeps the table of docs/benchmarks.md.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_QUALITY_H
#define AGENT_QUALITY_H

#include "agent/profile.h"
#include "wire/codec.h"

struct agent_quality {
    double   pct[WIRE_CODECS];    /* change of perplexity to be expected beyond f16's; negative
                                     ones are noise */
    double   se_pct[WIRE_CODECS]; /* its standard error */
    double   text_pct[WIRE_CODECS], text_se_pct[WIRE_CODECS]; /* of this text, as it came out */
    uint32_t codecs; /* bit i: codec i was measured; f32 is exact and counts as such */
    uint32_t tokens; /* compared */
};

/* Of hidden states at the cuts of a stage [first, last): none at 0 and at the model's end.  Of the
 * options count: device, threads, gpu_layers, KV types, flash, poll, repack.
 *   MCP_ENOTFOUND  PROFILE_FIND, and it was never measured
 *   MCP_ENOTSUP    no tokenizer, or more than a few GiB for a CPU, or too slow
 *   MCP_ECANCELED  the callback said so         and what mcp_engine_open() may say */
int agent_quality(struct agent_quality *out, const struct mcp_model *model,
                  const mcp_engine_opts *opts, uint32_t first, uint32_t last,
                  enum profile_want want, measure_progress_fn progress, void *ctx, mcp_error *err);

/* The same on tokens of the caller's, nothing kept; stops after ms_max with what it has. */
int quality_measure(struct agent_quality *out, const struct mcp_model *model,
                    const mcp_engine_opts *opts, uint32_t first, uint32_t last,
                    const int32_t *tokens, uint32_t count, double ms_max,
                    measure_progress_fn progress, void *ctx, mcp_error *err);

#endif
