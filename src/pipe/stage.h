/* pipe/stage.h - the one seam in the middle: something that runs a layer range.
 *
 * A local engine, a remote worker and the tests' fake engine are three implementations.
 * Nothing above this header knows which one it holds.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PIPE_STAGE_H
#define PIPE_STAGE_H

#include <mcp/engine.h>

struct pipe_stage;

/* Errors are those of mcp_engine_forward() and friends. */
struct pipe_stage_ops {
    /* Run one window of the session; rows of hidden state, or of logits from the last
     * stage, go to `out`. */
    int (*forward)(struct pipe_stage *stage, const mcp_window *window, float *out,
                   size_t out_floats, mcp_error *err);
    /* Forget positions >= pos. */
    int (*trim)(struct pipe_stage *stage, uint32_t pos, mcp_error *err);
    /* Release the stage; NULL is not passed. */
    void (*close)(struct pipe_stage *stage);
};

/* First member of every implementation. */
struct pipe_stage {
    const struct pipe_stage_ops *ops;
    uint32_t                     first, last; /* layers */
};

#endif
