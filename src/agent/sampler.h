/* agent/sampler.h - from a row of logits to a token, by libllama's samplers.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_SAMPLER_H
#define AGENT_SAMPLER_H

#include <mcp/generate.h>

struct sampler;

/* The chain is llama-server's order: top-k, top-p, min-p, temperature, draw.  `seed` is
 * the number used.  NULL when out of memory. */
struct sampler *sampler_new(const mcp_generate_opts *opts, uint32_t n_vocab, uint32_t seed);
void            sampler_free(struct sampler *s);

/* -1 when no logit is a finite number. */
int32_t sampler_pick(struct sampler *s, const float *logits);

#endif
