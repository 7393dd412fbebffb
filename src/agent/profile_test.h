/* agent/profile_test.h - tiny models and profiles for unit tests.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_PROFILE_TEST_H
#define AGENT_PROFILE_TEST_H

#include "agent/profile.h"
#include "engine/run_test.h"

static inline struct plan_graph *must_graph(const struct mcp_model *m)
{
    struct plan_graph *graph;
    mcp_error          err;

    unit_ok(profile_graph(&graph, m, &err), &err);
    return graph;
}

/* A data sheet, as a hand would write it. */
static inline struct mcp_profile sheet(const struct mcp_model *m, const struct plan_graph *graph,
                                       const char *device, double gb_per_s, double tflops)
{
    struct mcp_profile p;
    char               text[512];
    mcp_error          err;

    snprintf(text, sizeof(text),
             "{\"format\":\"mcp-profile 1\",\"kind\":\"roofline\",\"device\":\"%s\","
             "\"memory_bytes\":1000000000,\"bytes_per_s\":%ge9,\"bytes_share\":1,"
             "\"flops_per_s\":%ge12,\"flops_share\":1,\"launch_ms\":0.001,\"source\":\"a test\"}",
             device, gb_per_s, tflops);
    unit_ok(profile_parse(&p, text, strlen(text), "sheet", m, graph, &err), &err);
    return p;
}

#endif
