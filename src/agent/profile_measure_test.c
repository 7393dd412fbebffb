/* agent/profile_measure_test.c - the op graph of a model, and measuring this machine with it.
 *
 * How fast the machine is, is not tested.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/profile_test.h"

#include "engine/ops.h"

static const char *const shapes[] = { "tiny-llama", "tiny-qwen2", "tiny-qwen3", "tiny-deepseek2",
                                      "tiny-deepseek2-mla" };

/* Goal:   the planner's graph says for any window what a list of that very window says, and that
 *         a cut below any layer crosses one hidden state. */
static void the_graph_is_that_of_the_engine(void **state)
{
    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(shapes); i++) {
        struct mcp_model      *m = run_model(unit_synth("graph.gguf", shapes[i], "f16", NULL));
        struct plan_graph     *graph = must_graph(m);
        struct engine_ops_opts o = {
            .last = m->hp.n_layer, .tokens = 37, .context = 987, .rows = 37, .flash = true
        };
        struct engine_ops list;
        double            flops = 0.0, kv = 0.0;
        mcp_error         err;

        unit_ok(engine_ops_list(&list, m, &o, &err), &err);
        assert_int_equal(plan_graph_ops(graph), list.count);
        assert_int_equal(plan_graph_layers(graph), m->hp.n_layer);
        for (uint32_t j = 0; j < list.count; j++) {
            struct plan_work work = plan_graph_op_work(graph, j, 37, 1024);

            flops += (double)list.ops[j].flops;
            kv += (double)list.ops[j].kv_bytes;
            if (fabs(work.flops - (double)list.ops[j].flops) > 1e-6 * work.flops)
                fail_msg("%s: op %u (%s) is %g FLOPs, not %g", shapes[i], j,
                         plan_graph_op(graph, j).name, work.flops, (double)list.ops[j].flops);
        }
        assert_true(kv > 0.0);
        assert_true(fabs(plan_graph_total(graph, 37, 1024).flops - flops) < 1e-6 * flops);
        for (uint32_t layer = 0; layer <= m->hp.n_layer; layer++)
            assert_true(plan_graph_cut_width(graph, layer) == m->hp.n_embd);
        engine_ops_fini(&list);
        plan_graph_free(graph);
        model_close(m);
    }
}

/* Goal:   work is 1 on average, and tells the dense layer of a model of experts from the others. */
static void work_is_one_on_average(void **state)
{
    struct mcp_model  *m = run_model(unit_synth("work.gguf", "tiny-deepseek2", "f16", NULL));
    struct plan_graph *graph = must_graph(m);
    double             work[PLAN_LAYERS_MAX];

    (void)state;
    profile_work(graph, work);
    assert_true(fabs(measure_work(work, 0, m->hp.n_layer) - m->hp.n_layer) < 1e-9);
    assert_true(work[0] != work[m->hp.n_layer - 1]);
    assert_true(work[m->hp.n_layer] == 0.0);
    plan_graph_free(graph);
    model_close(m);
}

static void names_say_layer_and_weight(void **state)
{
    struct mcp_model  *m = run_model(unit_synth("names.gguf", "tiny-llama", "f16", NULL));
    struct plan_graph *graph = must_graph(m);
    const char *const  expected[] = { "get_rows", "rms_norm-0", "attn_norm-0", "attn_q-0",
                                      "rope.attn_q-0" };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(expected); i++)
        assert_string_equal(plan_graph_op(graph, (uint32_t)i).name, expected[i]);
    assert_int_equal(plan_graph_op(graph, 0).layer, PLAN_OP_EMBED);
    assert_int_equal(plan_graph_op(graph, plan_graph_ops(graph) - 1).layer, PLAN_OP_HEAD);
    assert_string_equal(plan_graph_op(graph, plan_graph_ops(graph) - 1).name, "output");
    plan_graph_free(graph);
    model_close(m);
}

struct progress {
    uint32_t calls, all, stop_after;
};

static int count(uint32_t done, uint32_t all, void *ctx)
{
    struct progress *p = ctx;

    assert_int_equal(done, p->calls);
    p->calls++;
    p->all = all;
    return p->calls == p->stop_after;
}

/* Goal:   a measurement gives a profile that the planner takes, tells of each figure, and can be
 *         stopped; kept, it is found again without measuring, and not for other options. */
static void measuring_gives_a_sound_profile_and_keeps_it(void **state)
{
    struct mcp_model  *m = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    struct plan_graph *graph = must_graph(m);
    mcp_engine_opts    o = run_opts();
    struct mcp_profile p, again;
    struct progress    progress = { .stop_after = 3 }, none = { 0 };
    mcp_error          err = { 0 };

    (void)state;
    setenv("MCP_CACHE", unit_path("cache"), 1);
    unit_refused(profile_here(&p, m, graph, &o, PROFILE_FIND, count, &none, &err), MCP_ENOTFOUND,
                 &err, "mcp profile");
    unit_refused(profile_here(&p, m, graph, &o, PROFILE_FIND_OR_MEASURE, count, &progress, &err),
                 MCP_ECANCELED, &err, "stopped");
    assert_int_equal(progress.calls, 3);

    progress = (struct progress){ 0 };
    unit_ok(profile_here(&p, m, graph, &o, PROFILE_FIND_OR_MEASURE, count, &progress, &err), &err);
    assert_int_equal(progress.calls, progress.all);
    unit_ok(plan_profile_check(&p.p, &err), &err);
    assert_int_equal(p.p.kind, PLAN_MEASURED);
    assert_int_equal(p.threads, 1);
    assert_int_equal(p.p.layers, m->hp.n_layer);
    assert_true(p.p.device[0] != '\0' && p.path[0] == '/');

    unit_ok(profile_here(&again, m, graph, &o, PROFILE_FIND, count, &none, &err), &err);
    assert_int_equal(none.calls, 0);
    assert_string_equal(again.path, p.path);
    for (uint32_t t = 0; t < p.p.token_count; t++)
        assert_true(fabs(again.p.layer_ms[t][0] - p.p.layer_ms[t][0]) <= 1e-5 * p.p.layer_ms[t][0]);
    o.kv_k = MCP_KV_Q8_0;
    assert_int_equal(profile_here(&again, m, graph, &o, PROFILE_FIND, count, &none, &err),
                     MCP_ENOTFOUND);
    unsetenv("MCP_CACHE");
    plan_graph_free(graph);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_graph_is_that_of_the_engine),
        cmocka_unit_test(work_is_one_on_average),
        cmocka_unit_test(names_say_layer_and_weight),
        cmocka_unit_test(measuring_gives_a_sound_profile_and_keeps_it),
    };

    return cmocka_run_group_tests_name("agent/profile_measure", tests, NULL, NULL);
}
