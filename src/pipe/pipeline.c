/* pipe/pipeline.c - see pipeline.h.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/pipeline.h"

#include "base/fail.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int pipeline_open(struct pipeline *p, struct pipe_stage **stages, uint32_t count, uint32_t n_embd,
                  uint32_t n_vocab, uint32_t window_tokens, mcp_error *err)
{
    size_t floats = (size_t)window_tokens * n_embd;

    *p = (struct pipeline){ .stages = stages,
                            .count = count,
                            .n_embd = n_embd,
                            .n_vocab = n_vocab,
                            .window_tokens = window_tokens };
    if (count > 1) { /* one stage passes nothing on */
        p->hidden[0] = malloc(floats * sizeof(float));
        p->hidden[1] = malloc(floats * sizeof(float));
        if (p->hidden[0] == NULL || p->hidden[1] == NULL) {
            pipeline_close(p);
            return base_fail(err, MCP_ENOMEM, "hidden states of %u tokens", window_tokens);
        }
    }
    return MCP_OK;
}

void pipeline_close(struct pipeline *p)
{
    for (uint32_t i = 0; i < p->count; i++)
        if (p->stages[i] != NULL)
            p->stages[i]->ops->close(p->stages[i]);
    free(p->stages);
    free(p->hidden[0]);
    free(p->hidden[1]);
    memset(p, 0, sizeof(*p));
}

int pipeline_forward(struct pipeline *p, uint32_t seq, uint32_t pos, const int32_t *tokens,
                     uint32_t count, float *logits, mcp_error *err)
{
    mcp_window window = { .seq = seq, .pos = pos, .count = count, .tokens = tokens };
    int        rc = MCP_OK;

    for (uint32_t i = 0; i < p->count && rc == MCP_OK; i++) {
        struct pipe_stage *stage = p->stages[i];
        bool               final = i + 1 == p->count;
        float             *out = final ? logits : p->hidden[i % 2];
        size_t             floats = final ? p->n_vocab : (size_t)count * p->n_embd;

        window.out = !final ? MCP_OUT_ALL : logits != NULL ? MCP_OUT_LAST : MCP_OUT_NONE;
        rc = stage->ops->forward(stage, &window, out, floats, err);
        window.tokens = NULL;
        window.hidden = out;
    }
    if (rc < 0) {
        /* Stages before the failed one are ahead of it: bring all back to `pos`. */
        for (uint32_t i = 0; i < p->count; i++)
            p->stages[i]->ops->trim(p->stages[i], pos, NULL);
    }
    return rc;
}

int pipeline_trim(struct pipeline *p, uint32_t pos, mcp_error *err)
{
    for (uint32_t i = 0; i < p->count; i++) {
        int rc = p->stages[i]->ops->trim(p->stages[i], pos, err);

        if (rc < 0)
            return rc;
    }
    return MCP_OK;
}
