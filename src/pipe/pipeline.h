/* pipe/pipeline.h - the ordered stages of a session.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PIPE_PIPELINE_H
#define PIPE_PIPELINE_H

#include "pipe/stage.h"

struct pipeline {
    struct pipe_stage **stages; /* owned; stage i ends where i + 1 begins */
    uint32_t            count;
    uint32_t            n_embd, n_vocab;
    uint32_t            window_tokens; /* longest window */
    float              *hidden[2];     /* (window_tokens, n_embd): in and out of a stage */
};

/* Takes the stages over, also on failure. */
int  pipeline_open(struct pipeline *p, struct pipe_stage **stages, uint32_t count, uint32_t n_embd,
                   uint32_t n_vocab, uint32_t window_tokens, mcp_error *err);
void pipeline_close(struct pipeline *p);

/* Push positions [pos, pos + count) through all stages.  `logits` (n_vocab) receives the
 * last position's row, or NULL: only the KV is wanted. */
int pipeline_forward(struct pipeline *p, uint32_t seq, uint32_t pos, const int32_t *tokens,
                     uint32_t count, float *logits, mcp_error *err);

int pipeline_trim(struct pipeline *p, uint32_t pos, mcp_error *err);

#endif
