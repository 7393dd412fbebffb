/* agent/answer.h - one answer: tokens picked, shown, counted and timed.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_ANSWER_H
#define AGENT_ANSWER_H

#include "agent/session.h"

struct model_sampler;

enum { ANSWER_MOVES = 2 /* the answer is to go on elsewhere, from its last token */ };

/* What ended the loop of an answer, for its caller: that it was over (1) is success. */
static inline int answer_ended(int rc)
{
    return rc == ANSWER_MOVES || rc < 0 ? rc : MCP_OK;
}

/* Where an answer stands. */
struct answer {
    struct mcp_session      *session;
    const mcp_generate_opts *opts;
    mcp_token_fn             fn;
    void                    *ctx;
    double                   start_ms, last_ms, first_ms;
    mcp_generate_result      result;
    int32_t                  token; /* the last one shown: to be computed next */
    mcp_error               *err;
};

/* Pick the token after position s->count - 1 by its logits, and show it.  1: the answer is over,
 * a->result.stop says why; 0: *token is to be computed next. */
int answer_next(struct answer *a, struct model_sampler *sampler, const float *logits,
                int32_t *token);

#endif
