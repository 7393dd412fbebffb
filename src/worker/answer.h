/* worker/answer.h - a Generate under way: from rows of logits to tokens.
 *
 * The prompt's windows, then one with the token chosen last and guesses of those to come, run
 * through the table like any other's, one at a time; this is what is remembered between them.
 * Tokens that the answer had made elsewhere (draws) are the end of its prompt, in windows that give
 * the same bits as one by one.  It travels from job to job.
 *
 * Guesses.  Each row of such a window is drawn from as if it were alone, in order, until a draw is
 * not what was guessed: so the text is what it would be without guesses, and what they give is
 * time.  They come out of the text itself (pipe/draft.h).
 *
 * Threads: whoever has the job.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_ANSWER_H
#define WORKER_ANSWER_H

#include "wire/frame.h"
#include "worker/facts.h"
#include "worker/guess.h"

struct worker_answer;
struct draft;

/* In a session of ctx_tokens positions.  MCP_EINVAL: parameters that mean nothing. */
int  worker_answer_new(struct worker_answer **out, const struct worker_facts *facts,
                       const struct wire_generate *g, uint32_t ctx_tokens, mcp_error *err);
void worker_answer_free(struct worker_answer *a);

/* Guess, if `g` allows it.  What the session's text is that the answer goes on with is known from
 * the answer before (`text`, taken over), or, without one, begins with g->tokens; a wrong text
 * makes bad guesses, nothing worse.  Guesses are a wish: without memory there are none. */
void worker_answer_guess(struct worker_answer *a, const struct wire_generate *g,
                         struct draft *text);

/* The text with the answer, for the next one; the caller's.  NULL without guesses.  No window is
 * to be asked for any more. */
struct draft *worker_answer_text(struct worker_answer *a);

/* Take the prompt's next window of at most `most` tokens, which begins at *offset; 0 when the
 * prompt has been taken. */
uint32_t worker_answer_prompt(struct worker_answer *a, uint32_t most, uint32_t *offset);

/* Whether there is such a window still. */
bool worker_answer_prompting(const struct worker_answer *a);

/* The next window after that, from position `pos` on: the token chosen last, and guesses if they
 * pay; at most `most` positions.  Returns how many. */
uint32_t worker_answer_window(struct worker_answer *a, struct worker_guess *guess, uint32_t pos,
                              uint32_t most, int32_t *tokens);

/* The next token from the logits of position `pos` - 1.
 *   MCP_EFORMAT  no logit is a finite number */
int worker_answer_next(struct worker_answer *a, const float *logits, uint32_t pos,
                       struct wire_token *token, mcp_error *err);

#endif
