/* worker/answer.h - a Generate under way: from rows of logits to tokens.
 *
 * The prompt's windows, then one window a token, run through the table like any other's, one at
 * a time; this is what is remembered between them.  Tokens that the answer had made elsewhere
 * (draws) are the end of its prompt, in windows that give the same bits as one by one.  It travels from job to job.
 *
 * Threads: whoever has the job.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_ANSWER_H
#define WORKER_ANSWER_H

#include "wire/frame.h"
#include "worker/facts.h"

struct worker_answer;

/* MCP_EINVAL: parameters that mean nothing. */
int  worker_answer_new(struct worker_answer **out, const struct worker_facts *facts,
                       const struct wire_generate *g, mcp_error *err);
void worker_answer_free(struct worker_answer *a);

/* Take the prompt's next window of at most `most` tokens, which begins at *offset; 0 when the
 * prompt has been taken. */
uint32_t worker_answer_prompt(struct worker_answer *a, uint32_t most, uint32_t *offset);

/* Whether there is such a window still. */
bool worker_answer_prompting(const struct worker_answer *a);

/* The next token from the logits of position `pos` - 1, in a session of ctx_tokens positions.
 *   MCP_EFORMAT  no logit is a finite number */
int worker_answer_next(struct worker_answer *a, const float *logits, uint32_t pos,
                       uint32_t ctx_tokens, struct wire_token *token, mcp_error *err);

#endif
