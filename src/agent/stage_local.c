/* agent/stage_local.c - see stage_local.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/stage_local.h"

#include <stdlib.h>

struct stage_local {
    struct pipe_stage  stage;
    struct mcp_engine *engine; /* borrowed */
    uint32_t           seq;
    mcp_want           want;
};

static int forward(struct pipe_stage *stage, const mcp_window *window, float *out,
                   size_t out_floats, mcp_error *err)
{
    struct stage_local *s = (struct stage_local *)stage;

    return engine_forward(s->engine, stage->first, stage->last, s->want, window, 1, out, out_floats,
                          err);
}

static int trim(struct pipe_stage *stage, uint32_t pos, mcp_error *err)
{
    struct stage_local *s = (struct stage_local *)stage;

    return engine_trim(s->engine, s->seq, pos, err);
}

static void close_stage(struct pipe_stage *stage)
{
    free(stage);
}

static const struct pipe_stage_ops ops = { .forward = forward, .trim = trim, .close = close_stage };

struct pipe_stage *stage_local_new(struct mcp_engine *engine, uint32_t seq, uint32_t first,
                                   uint32_t last)
{
    struct stage_local *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->stage = (struct pipe_stage){ .ops = &ops, .first = first, .last = last };
    s->engine = engine;
    s->seq = seq;
    s->want = last == engine->model->hp.n_layer ? MCP_WANT_LOGITS : MCP_WANT_HIDDEN;
    return &s->stage;
}
