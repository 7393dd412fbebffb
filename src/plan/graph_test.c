/* plan/graph_test.c - totals, groups and cuts of op lists against what they were made of.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/graph_made_test.h"

static struct plan_graph *built(const struct made_ops *m)
{
    struct plan_graph *graph = NULL;
    mcp_error          err;

    unit_ok(plan_graph_new(&graph, m->shapes, &err), &err);
    assert_non_null(graph);
    return graph;
}

/* Goal:   from four shapes all others follow: the textbook's FLOPs and bytes at any size. */
static void totals_are_those_of_the_formula(void **state)
{
    static struct made_ops m;
    struct plan_graph     *graph;

    (void)state;
    made_transformer(&m, 5);
    graph = built(&m);
    assert_int_equal(plan_graph_layers(graph), 5);
    for (uint32_t n = 1; n < 3000; n = n * 3 + 1) {
        for (uint32_t c = n; c < 9000; c = c * 2 + 7) {
            double           w = MADE_WIDTH;
            struct plan_work layer = plan_graph_layer(graph, 3, n, c);
            struct plan_work head = plan_graph_layer(graph, PLAN_OP_HEAD, n, c);
            struct plan_work all = plan_graph_total(graph, n, c);

            made_close(layer.flops, 7 * 2 * w * w * n + 4 * w * n * c, 1e-9);
            made_close(layer.weight_bytes, 7 * w * w * 2, 1e-9);
            made_close(layer.activation_bytes, (7 + 1 + 6) * w * n * 4 + c * w * 4, 1e-9);
            assert_int_equal(layer.launches, 11); /* views are none */
            made_close(head.flops, 2 * w * MADE_VOCAB * n, 1e-9);
            made_close(all.flops, 5 * layer.flops + head.flops, 1e-9);
            assert_int_equal(all.launches, 57);
        }
    }
    plan_graph_free(graph);
    plan_graph_free(NULL);
}

/* Goal:   of 64 experts with 6 a token, one token reads 6, and many read all. */
static void experts_are_read_as_far_as_tokens_choose_them(void **state)
{
    static struct made_ops m;
    struct plan_graph     *graph;

    (void)state;
    made_transformer(&m, 1);
    for (int shape = 0; shape < PLAN_SHAPES; shape++) {
        m.ops[shape][1].experts = 64;
        m.ops[shape][1].experts_used = 6;
    }
    graph = built(&m);
    made_close(plan_graph_op_work(graph, 1, 1, 256).weight_bytes,
               MADE_WIDTH * MADE_WIDTH * 2 * 6.0 / 64, 1e-9);
    made_close(plan_graph_op_work(graph, 1, 2, 256).weight_bytes,
               MADE_WIDTH * MADE_WIDTH * 2 * (1 - 58.0 / 64 * 58.0 / 64), 1e-9);
    made_close(plan_graph_op_work(graph, 1, 1000, 256).weight_bytes, MADE_WIDTH * MADE_WIDTH * 2,
               1e-9);
    plan_graph_free(graph);
}

/* Goal:   q, k and v may run together, gate and up too, and nothing else of a layer. */
static void independent_ops_share_a_group(void **state)
{
    static struct made_ops m;
    struct plan_graph     *graph;
    uint32_t               sizes[4] = { 0 };

    (void)state;
    made_transformer(&m, 4);
    graph = built(&m);
    /* A layer: qkv, store, attention, out, sum, gate and up, down, hidden; embedding and head. */
    assert_int_equal(plan_graph_groups(graph), 4 * 8 + 2);
    for (uint32_t g = 0; g < plan_graph_groups(graph); g++)
        sizes[plan_graph_group_size(graph, g)]++;
    assert_int_equal(sizes[3], 4);
    assert_int_equal(sizes[2], 4);
    assert_int_equal(sizes[1], 4 * 6 + 2);
    assert_int_equal(plan_graph_op(graph, 1).group, plan_graph_op(graph, 3).group);
    assert_int_equal(plan_graph_group_size(graph, 1000), 0);
    plan_graph_free(graph);
}

static void random_ops(struct made_ops *m, uint64_t *seed, uint32_t count, int32_t layers)
{
    memset(m, 0, sizeof(*m));
    for (int shape = 0; shape < PLAN_SHAPES; shape++)
        m->shapes[shape] = (struct plan_ops){ shape % 2 == 0 ? 2 : 4, shape < 2 ? 10 : 30, count,
                                              m->ops[shape] };
    for (uint32_t i = 0; i < count; i++) {
        struct plan_op op = { .name = "op", .kind = "X" };
        double         width = unit_below(seed, 10);
        int32_t        layer = (int32_t)(i * (uint32_t)(layers + 2) / count) - 1;

        op.layer = layer < layers ? layer : PLAN_OP_HEAD;
        op.flops = unit_below(seed, 4) > 0 ? 1.0 + unit_below(seed, 100) : 0.0;
        for (uint32_t s = 0; i > 0 && s < unit_below(seed, 4); s++)
            op.sources[op.source_count++] = i - 1 - unit_below(seed, i < 9 ? i : 9);
        for (int shape = 0; shape < PLAN_SHAPES; shape++) {
            m->ops[shape][i] = op;
            m->ops[shape][i].elements = width * m->shapes[shape].tokens + 17.0;
        }
    }
}

static double boundary(const struct plan_op *op, int32_t layers)
{
    return op->layer == PLAN_OP_HEAD ? layers : op->layer;
}

/* Goal:   widths of all cuts, groups and the critical path of any graph.
 * Method: 200 random graphs; each width by looking at all pairs of op and reader, independence by
 *         all paths, the longest path by longest distances to all ops. */
static void random_graphs_agree_with_brute_force(void **state)
{
    static struct made_ops m;
    static bool            path[MADE_OPS_MAX][MADE_OPS_MAX];
    const struct plan_roof roof = { .bytes_per_s = 1.0, .flops_per_s = 1000.0 }; /* 1 FLOP: 1 ms */
    uint64_t               seed = unit_seed();
    mcp_error              err;

    (void)state;
    for (int round = 0; round < 200; round++) {
        uint32_t           count = 10 + unit_below(&seed, 60);
        int32_t            layers = 1 + (int32_t)unit_below(&seed, 5);
        struct plan_graph *graph;
        uint32_t           chain[MADE_OPS_MAX], chain_count;
        double             longest = 0.0, ms, end[MADE_OPS_MAX] = { 0 };

        random_ops(&m, &seed, count, layers);
        graph = built(&m);
        memset(path, 0, sizeof(path));
        for (uint32_t i = 0; i < count; i++) {
            const struct plan_op *op = &m.ops[0][i];

            for (uint32_t s = 0; s < op->source_count; s++) {
                uint32_t from = op->sources[s];

                end[i] = fmax(end[i], end[from]);
                path[from][i] = true;
                for (uint32_t j = 0; j < from; j++)
                    path[j][i] = path[j][i] || path[j][from];
            }
            end[i] += op->flops;
            longest = fmax(longest, end[i]);
        }
        for (uint32_t cut = 0; cut < count; cut++) {
            double width = 0.0;

            for (uint32_t i = 0; i <= cut; i++) {
                bool crosses = false;

                for (uint32_t j = cut + 1; j < count; j++)
                    for (uint32_t s = 0; s < m.ops[0][j].source_count; s++)
                        crosses = crosses || m.ops[0][j].sources[s] == i;
                if (crosses)
                    width += (m.ops[1][i].elements - m.ops[0][i].elements) / 2.0;
            }
            assert_true(fabs(plan_graph_op(graph, cut).cut_width - width) < 1e-9);
        }
        for (int32_t b = 0; b <= layers; b++) {
            double width = 0.0;

            for (uint32_t i = 0; i < count; i++) {
                bool crosses = false;

                for (uint32_t j = i + 1; j < count; j++)
                    for (uint32_t s = 0; s < m.ops[0][j].source_count; s++)
                        crosses = crosses || (m.ops[0][j].sources[s] == i &&
                                              boundary(&m.ops[0][i], layers) < b &&
                                              boundary(&m.ops[0][j], layers) >= b);
                if (crosses)
                    width += (m.ops[1][i].elements - m.ops[0][i].elements) / 2.0;
            }
            if (plan_graph_layers(graph) == (uint32_t)layers)
                assert_true(fabs(plan_graph_cut_width(graph, (uint32_t)b) - width) < 1e-9);
        }
        for (uint32_t i = 0; i < count; i++) {
            struct plan_op_info a = plan_graph_op(graph, i);

            for (uint32_t j = i + 1; j < count; j++) {
                struct plan_op_info b = plan_graph_op(graph, j);

                if (a.works && b.works && path[i][j])
                    assert_true(a.group < b.group);
            }
        }
        unit_ok(plan_graph_critical_ms(graph, 2, 10, &roof, &ms, chain, &chain_count, &err), &err);
        made_close(ms, longest, 1e-9);
        for (uint32_t i = 0; i < chain_count; i++) {
            longest -= m.ops[0][chain[i]].flops;
            assert_true(i == 0 || path[chain[i - 1]][chain[i]]);
        }
        assert_true(fabs(longest) < 1e-6);
        plan_graph_free(graph);
    }
}

/* Goal:   where a transformer may be cut, n_embd numbers cross, and nowhere fewer. */
static void between_layers_the_hidden_state_crosses(void **state)
{
    static struct made_ops m;
    struct plan_graph     *graph;

    (void)state;
    made_transformer(&m, 3);
    graph = built(&m);
    for (uint32_t b = 0; b <= 3; b++)
        made_close(plan_graph_cut_width(graph, b), MADE_WIDTH, 1e-12);
    for (uint32_t i = 0; i + 1 < plan_graph_ops(graph); i++)
        assert_true(plan_graph_op(graph, i).cut_width >= MADE_WIDTH * (1 - 1e-9));
    plan_graph_free(graph);
}

/* Goal:   a roofline profile is bytes over bandwidth for one token and FLOPs over their rate for
 *         many, with a launch for each op. */
static void a_roofline_follows_bytes_and_flops(void **state)
{
    static struct made_ops m;
    struct plan_graph     *graph;
    struct plan_roof       roof = { .bytes_per_s = 1e6, .flops_per_s = 1e12, .launch_ms = 0.25 };
    struct plan_profile    p = { .device = "made", .layers = 5, .n_embd = MADE_WIDTH };
    struct plan_work       work;
    mcp_error              err;

    (void)state;
    made_transformer(&m, 5);
    graph = built(&m);
    unit_ok(plan_profile_roofline(&p, graph, &roof, &err), &err);
    assert_int_equal(p.kind, PLAN_ROOFLINE);
    work = plan_graph_layer(graph, 0, 1, 1);
    made_close(p.layer_ms[0][0], (work.weight_bytes + work.activation_bytes) / 1000.0 + 11 * 0.25,
               1e-9);
    roof = (struct plan_roof){ .bytes_per_s = 1e15, .flops_per_s = 1e6 };
    unit_ok(plan_profile_roofline(&p, graph, &roof, &err), &err);
    made_close(p.layer_ms[4][1], plan_graph_layer(graph, 0, 512, 1536).flops / 1000.0, 1e-3);
    made_close(p.head_ms[1], plan_graph_layer(graph, PLAN_OP_HEAD, 8, 8).flops / 1000.0, 1e-3);
    roof.flops_per_s = NAN;
    unit_refused(plan_profile_roofline(&p, graph, &roof, &err), MCP_ERANGE, &err, "FLOPs");
    roof = (struct plan_roof){ .bytes_per_s = 1.0, .flops_per_s = 1.0, .launch_ms = -1.0 };
    unit_refused(plan_profile_roofline(&p, graph, &roof, &err), MCP_ERANGE, &err, "launch");
    roof.launch_ms = 0.0;
    p.layers = 6;
    unit_refused(plan_profile_roofline(&p, graph, &roof, &err), MCP_ERANGE, &err, "6 layers");
    plan_graph_free(graph);
}

#define REFUSED(code, about, change)                                             \
    do {                                                                         \
        struct plan_graph *graph = (struct plan_graph *)&m;                      \
        mcp_error          err = { 0 };                                          \
        made_transformer(&m, 2);                                                 \
        change;                                                                  \
        unit_refused(plan_graph_new(&graph, m.shapes, &err), code, &err, about); \
        assert_null(graph);                                                      \
    } while (0)

static void lists_that_contradict_themselves_are_refused(void **state)
{
    static struct made_ops m;

    (void)state;
    REFUSED(MCP_EFORMAT, "grid", m.shapes[1].tokens = 32);
    REFUSED(MCP_EFORMAT, "grid", m.shapes[2].columns = 1000);
    REFUSED(MCP_ERANGE, "0 ops", m.shapes[0].count = 0);
    REFUSED(MCP_ERANGE, "ops", m.shapes[0].count = PLAN_OPS_MAX + 1);
    REFUSED(MCP_EFORMAT, "ops for", m.shapes[3].count--);
    REFUSED(MCP_EFORMAT, "same ops", strcpy(m.ops[2][3].name, "other"));
    REFUSED(MCP_EFORMAT, "same ops", m.ops[1][7].layer = 1);
    REFUSED(MCP_EFORMAT, "comes later", m.ops[0][5].sources[0] = 5);
    REFUSED(MCP_EFORMAT, "sources", m.ops[0][5].source_count = PLAN_OP_SOURCES_MAX + 1);
    REFUSED(MCP_ERANGE, "layer", m.ops[0][5].layer = PLAN_LAYERS_MAX);
    REFUSED(MCP_ERANGE, "layer", m.ops[0][5].layer = -2);
    REFUSED(MCP_EFORMAT, "FLOPs", m.ops[3][5].flops = NAN);
    REFUSED(MCP_EFORMAT, "FLOPs", m.ops[3][5].elements = -1.0);
    REFUSED(MCP_EFORMAT, "FLOPs", m.ops[3][5].weight_bytes = INFINITY);
    REFUSED(MCP_EFORMAT, "experts", m.ops[0][5].experts_used = 1);
    REFUSED(MCP_EFORMAT, "no end", memset(m.ops[0][5].name, 'x', sizeof(m.ops[0][5].name)));
    REFUSED(MCP_EFORMAT, "no op belongs",
            for (int s = 0; s < PLAN_SHAPES; s++) for (uint32_t i = 0; i < m.shapes[s].count; i++)
                m.ops[s][i]
                    .layer = PLAN_OP_HEAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(totals_are_those_of_the_formula),
        cmocka_unit_test(experts_are_read_as_far_as_tokens_choose_them),
        cmocka_unit_test(independent_ops_share_a_group),
        cmocka_unit_test(random_graphs_agree_with_brute_force),
        cmocka_unit_test(between_layers_the_hidden_state_crosses),
        cmocka_unit_test(a_roofline_follows_bytes_and_flops),
        cmocka_unit_test(lists_that_contradict_themselves_are_refused),
    };

    return cmocka_run_group_tests_name("plan/graph", tests, NULL, NULL);
}
