/* agent/plan_test.c - plans for a machine and workers that are only supposed.
 *
 * What is best is the planner's business (src/plan); here it must be asked the right question.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/plan.h"

#include "agent/profile_test.h"

static struct mcp_model  *model;
static struct plan_graph *graph;
static struct mcp_profile here, worker;

static int begin(void **state)
{
    (void)state;
    model = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    graph = must_graph(model);
    here = sheet(model, graph, "laptop", 0.01, 0.0001);
    worker = sheet(model, graph, "worker", 1000, 100);
    return 0;
}

static int end(void **state)
{
    (void)state;
    plan_graph_free(graph);
    model_close(model);
    return 0;
}

/* A laptop and one fast worker at 1 ms. */
static mcp_plan_opts options(const mcp_supposed_worker *supposed, uint32_t count)
{
    mcp_plan_opts o = MCP_PLAN_OPTS_INIT;

    o.model = model;
    o.here = &here;
    o.supposed = supposed;
    o.supposed_count = count;
    o.prompt_tokens = 100;
    o.gen_tokens = 20;
    return o;
}

static struct mcp_plan *must_plan(const mcp_plan_opts *o)
{
    struct mcp_plan *plan;
    mcp_error        err;

    unit_ok(agent_plan_open(&plan, o, &err), &err);
    return plan;
}

/* Goal:   alone, only local is possible; a fast worker takes the middle; what may leave decides
 *         whether it takes all. */
static void privacy_decides_what_a_fast_worker_takes(void **state)
{
    const mcp_supposed_worker w = { "gpu", &worker, 1.0, 1000.0, 1000.0, 0.0 };
    static const struct {
        mcp_privacy    privacy;
        uint32_t       workers;
        enum plan_mode mode;
    } rows[] = {
        { MCP_PRIVACY_OPEN, 0, PLAN_LOCAL },
        { MCP_PRIVACY_STRICT, 1, PLAN_LOCAL },
        { MCP_PRIVACY_SPLIT, 1, PLAN_SPLIT },
        { MCP_PRIVACY_OPEN, 1, PLAN_CLOUD },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        mcp_plan_opts    o = options(&w, rows[i].workers);
        struct mcp_plan *plan;

        o.privacy = rows[i].privacy;
        o.modes = 1u << MCP_MODE_LOCAL | 1u << MCP_MODE_SPLIT | 1u << MCP_MODE_CLOUD;
        plan = must_plan(&o);
        assert_true(plan->fits);
        assert_int_equal(plan->choice.plan.mode, rows[i].mode);
        agent_plan_close(plan);
    }
}

/* Goal:   what the user has decided is what is planned. */
static void what_is_decided_is_kept(void **state)
{
    const mcp_supposed_worker w = { "gpu", &worker, 1.0, 1000.0, 1000.0, 0.0 };
    mcp_plan_opts             o = options(&w, 1);
    struct mcp_plan          *plan;

    (void)state;
    o.modes = 1u << MCP_MODE_SPLIT;
    o.cut_first = 1;
    o.cut_last = 2;
    o.codec = "f32";
    o.chunk_tokens = 25;
    o.spec = MCP_SPEC_NONE;
    plan = must_plan(&o);
    assert_true(plan->fits);
    assert_int_equal(plan->choice.plan.hop_count, 1);
    assert_int_equal(plan->choice.plan.hops[0].first, 1);
    assert_int_equal(plan->choice.plan.hops[0].last, 2);
    assert_string_equal(plan->codecs[plan->choice.plan.codec].name, "f32");
    assert_int_equal(plan->choice.plan.chunk_tokens, 25);
    assert_false(plan_speculates(&plan->choice.plan));
    assert_int_equal(plan->indices[plan->choice.plan.hops[0].worker], -1);
    agent_plan_close(plan);
}

/* Goal:   what nothing satisfies is told, with the limit, and is no failure. */
static void a_request_that_nothing_satisfies_says_which_limit(void **state)
{
    mcp_plan_opts    o = options(NULL, 0);
    struct mcp_plan *plan;

    (void)state;
    o.vram_bytes = 1000;
    plan = must_plan(&o);
    assert_false(plan->fits);
    assert_int_equal(plan->unfit.code, MCP_ENOMEM);
    assert_non_null(strstr(plan->unfit.text, "limit"));
    agent_plan_close(plan);
}

/* Goal:   facts are the model's: bytes of layers add up, the KV of all layers is what the file's
 *         header says, a codec that another one of the same size beats is not considered. */
static void facts_are_those_of_the_model(void **state)
{
    const mcp_supposed_worker w = { "gpu", &worker, 0.0, 0.0, 0.0, 0.0 };
    mcp_plan_opts             o = options(&w, 1);
    struct mcp_plan          *plan = must_plan(&o);
    uint64_t                  bytes = plan->weights.embed_bytes + plan->weights.head_bytes;

    (void)state;
    for (uint32_t i = 0; i < model->hp.n_layer; i++)
        bytes += plan->weights.layer_bytes[i];
    if (model->tensors.global[G_OUTPUT] == NULL) /* tied: counted as embedding and as head */
        bytes -= model->tensors.global[G_TOKEN_EMBD]->bytes;
    assert_int_equal(bytes, model->info.weight_bytes);
    assert_int_equal((uint64_t)plan->model.kv_layer_bytes * model->hp.n_layer,
                     model->info.kv_bytes_f16);
    assert_true(plan->facts.codec_count >= 3);
    for (uint32_t i = 0; i < plan->facts.codec_count; i++) {
        assert_string_not_equal(plan->codecs[i].name, "q8");
        assert_string_not_equal(plan->codecs[i].name, "bf16");
    }
    assert_int_equal(plan->note_count, 3); /* two data sheets, a link that is assumed */
    assert_non_null(strstr(plan->notes[2], "assumed"));
    agent_plan_close(plan);

    o.codec = "q8";
    plan = must_plan(&o);
    assert_string_equal(plan->request.codec, "q8");
    agent_plan_close(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(privacy_decides_what_a_fast_worker_takes),
        cmocka_unit_test(what_is_decided_is_kept),
        cmocka_unit_test(a_request_that_nothing_satisfies_says_which_limit),
        cmocka_unit_test(facts_are_those_of_the_model),
    };

    return cmocka_run_group_tests_name("agent/plan", tests, begin, end);
}
