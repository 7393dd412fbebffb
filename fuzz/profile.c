/* fuzz/profile.c - a profile of a device, as people share them, is the input.
 *
 * Beside what the sanitizers see, broken promises are findings: a failure is a sentence; what is
 * taken is a profile that the planner takes, of the model at hand.
 *
 * ./dev fuzz profile SECONDS; MCP_SYNTH makes the model.
 *
 * SPDX-License-Identifier: MIT */
#include "check.h"

#include "agent/profile.h"

#include <stdio.h>
#include <stdlib.h>

static struct mcp_model  *model;
static struct plan_graph *graph;

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static char path[] = "/tmp/fuzz-profile-XXXXXX";
    const char *synth = getenv("MCP_SYNTH");
    char        command[4200];
    int         fd = mkstemp(path);

    (void)argc;
    (void)argv;
    CHECK(fd >= 0 && synth != NULL);
    snprintf(command, sizeof(command), "'%s' --shape tiny-llama --quant q4_0 -o %s >/dev/null 2>&1",
             synth, path);
    CHECK(system(command) == 0);
    CHECK(model_open(&model, path, NULL) == MCP_OK);
    CHECK(profile_graph(&graph, model, NULL) == MCP_OK);
    remove(path);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mcp_profile p;
    mcp_error          err;
    int rc = profile_parse(&p, (const char *)data, size, "input", model, graph, &err);

    if (rc < 0) {
        check_failure(rc, &err);
        return 0;
    }
    CHECK(plan_profile_check(&p.p, NULL) == MCP_OK);
    CHECK(p.p.layers == model->hp.n_layer && p.p.n_embd == model->hp.n_embd);
    return 0;
}
