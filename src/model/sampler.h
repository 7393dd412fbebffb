/* model/sampler.h - from a row of logits to a token, by libllama's samplers.
 *
 * A sampler's state is how many tokens it has picked: each pick takes one draw from the seed's
 * random numbers, whatever the row and the options.  So seed and count are all that another
 * sampler, perhaps on another machine, needs to go on with the same tokens.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MODEL_SAMPLER_H
#define MODEL_SAMPLER_H

#include <mcp/generate.h>

struct model_sampler;

/* The chain is llama-server's order: top-k, top-p, min-p, temperature, draw.  `seed` is
 * the number used: MCP_SEED_RANDOM is the caller's to replace.  NULL when out of memory. */
struct model_sampler *model_sampler_new(const mcp_generate_opts *opts, uint32_t n_vocab,
                                        uint32_t seed);
void                  model_sampler_free(struct model_sampler *s);

/* -1 when no logit is a finite number. */
int32_t model_sampler_pick(struct model_sampler *s, const float *logits);

/* As if so many more tokens had been picked.  Takes some 10 ns a draw: a count that a peer sent
 * is to be bounded first, by the positions of a context. */
void model_sampler_skip(struct model_sampler *s, uint64_t draws);

/* Tokens picked and skipped so far. */
uint64_t model_sampler_draws(const struct model_sampler *s);

#endif
