/* agent/ahead.h - an answer in windows that hold guesses of what comes next.
 *
 *     [t d1 d2 d3]        t is the last token of the text, the d are guesses
 *                [d4 d5 d6]          sent before the first window is back,
 *                          [d7 d8 d9]    as if all guesses were right
 *
 * Each row of logits that comes back gives the text's next token, as it would without guesses:
 * the sampler picks from the rows in their order, one draw a token.  If that is the token guessed,
 * its row is good as well; if not, everything from there on is void, in the stages too, and a
 * window with the right token goes out at once.  So guesses change when rows are there, never
 * which token is picked from them.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_AHEAD_H
#define AGENT_AHEAD_H

#include "agent/answer.h"

struct ahead;

/* *out stays NULL where answers are to be computed one token at a time. */
int  ahead_new(struct ahead **out, const struct mcp_session *s, const mcp_session_opts *opts,
               mcp_error *err);
void ahead_free(struct ahead *h);

/* Go on from *token, which has been shown and is to be computed next.  0 when the answer is over,
 * ANSWER_MOVES when *token is to be computed elsewhere; s->count positions, all before the text's
 * last token, remain. */
int ahead_generate(struct answer *a, struct model_sampler *sampler, int32_t *token);

void ahead_stats(const struct ahead *h, mcp_session_stats *stats);

#endif
