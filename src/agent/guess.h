/* agent/guess.h - guesses by a draft model: a smaller model of the same vocabulary, run here.
 *
 *     text and guesses   0 ................................ length
 *     its KV             0 ............ count
 *                                      [a step]             the last one gives the next guess
 *
 * It goes through the text in steps that are short, so that whoever calls it can look at what
 * matters more between two of them: a few positions while it catches up with a prompt, one while
 * it guesses.  A guess is its most likely token; the probability is what it says, corrected by how
 * right it was lately (pipe/calibrate.h).
 *
 * One thread, the session's.  SPDX-License-Identifier: MIT */
#ifndef AGENT_GUESS_H
#define AGENT_GUESS_H

#include "pipe/draft.h"

#include <mcp/engine.h>

struct guess;
struct mcp_engine;
struct mcp_model;

enum { GUESS_AHEAD_MAX = 128 /* guesses that are neither right nor wrong yet */ };

/* Open `draft` for guesses of a text of `model`, with at most ctx_tokens positions, as `opts` say
 * (NULL = as is usual; its layers, sequences and batch sizes are not looked at).  It computes on the
 * threads of `beside` (NULL = none) unless opts name another device.  Two tokens are computed, to
 * know what they cost.
 *   MCP_ENOTSUP  another vocabulary      and as mcp_engine_open() */
int  guess_new(struct guess **out, const struct mcp_model *model, const struct mcp_model *draft,
               const mcp_engine_opts *opts, const struct mcp_engine *beside, uint32_t ctx_tokens,
               mcp_error *err);
void guess_free(struct guess *g);

/* One step towards the token at position `length`, after tokens[0, length).  1: *guess is it;
 * 0: not there yet.  What it has read of another text, from the first difference on, is forgotten.
 *   MCP_ERANGE  length is beyond its context */
int guess_step(struct guess *g, const int32_t *tokens, uint32_t length, struct draft_guess *guess,
               mcp_error *err);

/* The guess at `pos`, one of the last GUESS_AHEAD_MAX, was compared; or a token came without. */
void guess_learn(struct guess *g, uint32_t pos, bool right);
void guess_fade(struct guess *g);

/* The probability of a guess not yet made; positions of a text of `length` that it has not read;
 * how many it has room for; what a guess takes, and all steps so far have taken. */
float    guess_mean(const struct guess *g);
uint32_t guess_behind(const struct guess *g, uint32_t length);
uint32_t guess_room(const struct guess *g);
double   guess_each_ms(const struct guess *g);
double   guess_total_ms(const struct guess *g);

#endif
