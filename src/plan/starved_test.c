/* plan/starved_test.c - the graph, the only part that allocates, without memory.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/graph_made_test.h"

#include "base/starve_test.h"

/* Goal:   wherever memory ends, the answer is MCP_ENOMEM and nothing leaks. */
static void a_graph_without_memory_is_refused(void **state)
{
    static struct made_ops m;
    const struct plan_roof roof = { .bytes_per_s = 1e9, .flops_per_s = 1e9 };
    mcp_error              err;

    (void)state;
    made_transformer(&m, 3);
    for (int n = 1, failed = 1; failed > 0; n++) {
        struct plan_graph *graph;
        double             ms = 0.0;
        int                rc;

        starve_arm(n, false);
        rc = plan_graph_new(&graph, m.shapes, &err);
        if (rc == 0)
            rc = plan_graph_critical_ms(graph, 1, 32, &roof, &ms, NULL, NULL, &err);
        plan_graph_free(graph);
        failed = starve_disarm();
        assert_int_equal(rc<0, failed> 0);
        starve_check(rc, &err);
    }
}

/* Goal:   choosing, predicting and reconsidering need none. */
static void planning_needs_no_memory(void **state)
{
    struct plan_request r = PLAN_REQUEST_INIT;
    struct plan_choice  choice;
    struct plan_change  change;
    struct plan_watch   watch;
    struct made         m;
    mcp_error           err;
    int                 rc;

    (void)state;
    made_7b(&m, 20.0, 100.0);
    m.facts.draft_count = 2;
    r.prompt_tokens = 500;
    r.gen_tokens = 100;
    starve_arm(1, true);
    rc = plan_choose(&choice, &m.facts, &r, &err);
    plan_watch_init(&watch, &choice.plan, &choice.cost);
    if (rc == 0)
        rc = plan_reconsider(&change, &watch, &m.facts, &r, NULL, &err);
    assert_int_equal(starve_disarm(), 0);
    unit_ok(rc, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_graph_without_memory_is_refused),
        cmocka_unit_test(planning_needs_no_memory),
    };

    return cmocka_run_group_tests_name("plan/starved", tests, NULL, NULL);
}
