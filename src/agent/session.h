/* agent/session.h - one conversation: its tokens, its pipeline, its answers.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_SESSION_H
#define AGENT_SESSION_H

#include "engine/engine.h"
#include "pipe/pipeline.h"

#include <mcp/generate.h>

/* tokens[0, count) have been computed by every stage. */
struct mcp_session {
    struct mcp_engine *engine; /* borrowed */
    uint32_t           seq;
    struct pipeline    pipeline;
    int32_t           *tokens; /* (ctx_tokens) */
    uint32_t           count;
    float             *logits; /* (n_vocab) */
};

int  session_open(struct mcp_session **out, struct mcp_engine *engine, const mcp_session_opts *opts,
                  mcp_error *err);
void session_close(struct mcp_session *session);
int  session_generate(struct mcp_session *s, const int32_t *tokens, uint32_t count,
                      const mcp_generate_opts *opts, mcp_token_fn fn, void *ctx,
                      mcp_generate_result *result, mcp_error *err);

#endif
