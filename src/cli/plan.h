/* cli/plan.h - what the two halves of `mcp plan` share.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_PLAN_H
#define CLI_PLAN_H

#include "cli/load.h"

#include <mcp/plan.h>

struct plan_args {
    struct cli_args        args;
    struct cli_engine_args engine;

    int64_t     prompt_tokens, gen_tokens;
    int64_t     privacy;  /* mcp_privacy */
    int64_t     optimize; /* mcp_optimize */
    const char *vram;
    double      quality;
    bool        mixed;
    int64_t     mode; /* mcp_mode; MCP_MODES = any */
    const char *codec;
    int64_t     chunk;
    int64_t     spec; /* mcp_spec */
    int64_t     spec_depth, spec_windows;

    struct cli_texts workers;
    const char      *keys;
    const char      *token;
    struct cli_texts remote_profiles;
    const char      *local_profile;
    double           rtt_ms, up_mbit, down_mbit;
    double           price_hour;

    bool    graph;
    bool    dot;
    bool    json;
    int64_t tokens, context; /* of the window whose work --graph shows */
};

/* cli/plan_graph.c: `mcp plan --graph`.  Returns the exit status. */
int plan_show_graph(const struct plan_args *args, const mcp_model *model);

#endif
