/* agent/plan_starved_test.c - a plan where memory ends: a sentence, and nothing left.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/plan.h"

#include "agent/profile_test.h"
#include "base/starve_test.h"

/* Goal:   no allocation on the way from a model's header to a plan is taken for granted.
 * Method: each of ours fails in turn, alone and with all that follow. */
static void a_plan_survives_any_failing_allocation(void **state)
{
    struct mcp_model   *m = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    struct plan_graph  *graph = must_graph(m);
    struct mcp_profile  here = sheet(m, graph, "laptop", 10, 1);
    struct mcp_profile  gpu = sheet(m, graph, "gpu", 1000, 100);
    mcp_supposed_worker w = { "gpu", &gpu, 1.0, 100.0, 100.0, 0.0 };
    mcp_plan_opts       o = MCP_PLAN_OPTS_INIT;
    uint32_t            plans = 0;

    (void)state;
    assert_non_null(model_get_vocab(m, NULL));
    o.model = m;
    o.here = &here;
    o.supposed = &w;
    o.supposed_count = 1;
    o.prompt_tokens = 10;
    o.gen_tokens = 1;
    o.modes = 1u << MCP_MODE_LOCAL;
    for (int all_after = 0; all_after < 2; all_after++) {
        for (int n = 1, failed = 1; failed > 0; n++) {
            struct mcp_plan *plan;
            mcp_error        err = { 0 };
            int              rc;

            starve_arm(n, all_after != 0);
            rc = agent_plan_open(&plan, &o, &err);
            starve_check(rc, &err);
            assert_true((rc < 0) == (plan == NULL));
            plans += plan != NULL;
            agent_plan_close(plan);
            failed = starve_disarm();
        }
    }
    assert_true(plans >= 2);
    plan_graph_free(graph);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_survives_any_failing_allocation),
    };

    return cmocka_run_group_tests_name("agent/plan_starved", tests, NULL, NULL);
}
