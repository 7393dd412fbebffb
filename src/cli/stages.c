/* cli/stages.c - see stages.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/stages.h"

#include "cli/cli.h"

#include <assert.h>
#include <stdlib.h>

int cli_stages_init(struct cli_stages *stages, mcp_engine *engine, const mcp_model *model,
                    const struct cli_ints *cuts, uint32_t windows_max)
{
    const mcp_model_info *info = mcp_model_get_info(model);
    mcp_engine_info       engine_info;

    *stages = (struct cli_stages){ .engine = engine,
                                   .cuts = cuts,
                                   .layers = info->layers,
                                   .n_embd = info->n_embd,
                                   .windows_max = windows_max };
    if (mcp_engine_get_info(engine, &engine_info) < 0)
        return cli_fail("the engine tells nothing about itself"), -1;
    stages->hidden_floats = (size_t)engine_info.batch_tokens * info->n_embd;
    stages->windows = calloc(windows_max, sizeof(stages->windows[0]));
    bool short_of_memory = stages->windows == NULL;
    for (size_t i = 0; i < 2 && cuts->count > 0; i++) {
        stages->hidden[i] = malloc(stages->hidden_floats * sizeof(float));
        short_of_memory |= stages->hidden[i] == NULL;
    }
    if (short_of_memory) {
        cli_fail("out of memory for hidden states of %u tokens: lower -b/--batch-size",
                 engine_info.batch_tokens);
        cli_stages_fini(stages);
        return -1;
    }
    return 0;
}

void cli_stages_fini(struct cli_stages *stages)
{
    free(stages->windows);
    free(stages->hidden[0]);
    free(stages->hidden[1]);
    *stages = (struct cli_stages){ 0 };
}

int cli_stages_forward(struct cli_stages *stages, uint32_t last, mcp_want want,
                       const mcp_window *windows, uint32_t count, float *out, size_t out_floats)
{
    uint32_t  first = 0;
    mcp_error err = { 0 };

    assert(count <= stages->windows_max);
    for (size_t i = 0; first < last; i++) {
        uint32_t     end = i < stages->cuts->count ? stages->cuts->values[i] : last;
        bool         final = end >= last;
        const float *input = stages->hidden[(i + 1) % 2];
        float       *output = stages->hidden[i % 2];
        size_t       at = 0; /* tokens before this window */

        for (uint32_t w = 0; w < count; w++) {
            stages->windows[w] = windows[w];
            if (first > 0) {
                stages->windows[w].tokens = NULL;
                stages->windows[w].hidden = input + at * stages->n_embd;
            }
            if (!final)
                stages->windows[w].out = MCP_OUT_ALL;
            at += windows[w].count;
        }
        if (final)
            end = last;
        if (mcp_engine_forward(stages->engine, first, end, final ? want : MCP_WANT_HIDDEN,
                               stages->windows, count, final ? out : output,
                               final ? out_floats : stages->hidden_floats, &err) < 0) {
            cli_fail("%s", err.text);
            return -1;
        }
        first = end;
    }
    return 0;
}
