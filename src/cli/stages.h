/* cli/stages.h - forward calls stage by stage, the hidden state handed on in memory.
 * What a session does for generation, bench and debug need bare.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_STAGES_H
#define CLI_STAGES_H

#include "cli/args.h"

#include <mcp/engine.h>

struct cli_stages {
    mcp_engine            *engine;
    const struct cli_ints *cuts; /* checked by cli_cuts_check */
    uint32_t               layers;
    uint32_t               n_embd;
    uint32_t               windows_max;
    mcp_window            *windows;   /* (windows_max) scratch */
    float                 *hidden[2]; /* (batch_tokens, n_embd): a stage's input and output */
    size_t                 hidden_floats;
};

/* Room for forwards of up to `windows_max` windows.  0, or -1 with the line printed. */
int  cli_stages_init(struct cli_stages *stages, mcp_engine *engine, const mcp_model *model,
                     const struct cli_ints *cuts, uint32_t windows_max);
void cli_stages_fini(struct cli_stages *stages);

/* Run windows of tokens through layers [0, last), cut where the cuts lie inside.  Rows
 * as the windows ask for, of what `want` names.  0, or -1 with the line printed. */
int cli_stages_forward(struct cli_stages *stages, uint32_t last, mcp_want want,
                       const mcp_window *windows, uint32_t count, float *out, size_t out_floats);

#endif
