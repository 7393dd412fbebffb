/* api/plan_test.c - arguments of mcp/plan.h that break its contract, and structs of other sizes.
 *
 * SPDX-License-Identifier: MIT */
#include "base/unit_test.h"

#include <mcp/plan.h>

static mcp_model *model;

static int begin(void **state)
{
    mcp_error err;

    (void)state;
    unit_ok(mcp_model_open(&model, unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL), &err),
            &err);
    return 0;
}

static int end(void **state)
{
    (void)state;
    mcp_model_close(model);
    return 0;
}

static mcp_profile *must_read(void)
{
    static const char text[] =
        "{\"format\":\"mcp-profile 1\",\"kind\":\"roofline\",\"device\":\"d\","
        "\"memory_bytes\":0,\"bytes_per_s\":1e9,\"bytes_share\":1,"
        "\"flops_per_s\":1e9,\"flops_share\":1,\"launch_ms\":0,"
        "\"source\":\"s\"}";
    mcp_profile *p;
    mcp_error    err;

    unit_write(unit_path("sheet.json"), text, sizeof(text) - 1);
    unit_ok(mcp_profile_read(&p, unit_path("sheet.json"), model, &err), &err);
    return p;
}

static void missing_arguments_are_refused(void **state)
{
    mcp_plan_opts    o = MCP_PLAN_OPTS_INIT;
    mcp_graph       *graph = NULL;
    mcp_profile     *profile = NULL;
    mcp_plan        *plan = NULL;
    mcp_plan_info    info = { .struct_size = sizeof(info) };
    mcp_profile_info told = { .struct_size = sizeof(told) };
    mcp_error        err = { 0 };

    (void)state;
    unit_refused(mcp_graph_open(NULL, model, &err), MCP_EINVAL, &err, "out");
    unit_refused(mcp_graph_open(&graph, NULL, &err), MCP_EINVAL, &err, "model");
    unit_refused(mcp_profile_here(NULL, model, NULL, MCP_PROFILE_KEPT, NULL, NULL, &err),
                 MCP_EINVAL, &err, "out");
    unit_refused(mcp_profile_here(&profile, NULL, NULL, MCP_PROFILE_KEPT, NULL, NULL, &err),
                 MCP_EINVAL, &err, "model");
    unit_refused(mcp_profile_here(&profile, model, NULL, (mcp_profile_when)7, NULL, NULL, &err),
                 MCP_EINVAL, &err, "when 7");
    unit_refused(mcp_profile_worker(&profile, model, NULL, 0, MCP_PROFILE_KEPT, NULL, NULL, &err),
                 MCP_EINVAL, &err, "remote");
    unit_refused(mcp_profile_read(&profile, NULL, model, &err), MCP_EINVAL, &err, "name");
    unit_refused(mcp_profile_write(NULL, "x", &err), MCP_EINVAL, &err, "profile");
    unit_refused(mcp_plan_open(NULL, &o, &err), MCP_EINVAL, &err, "out");
    unit_refused(mcp_plan_open(&plan, &o, &err), MCP_EINVAL, &err, "model");
    assert_null(graph);
    assert_null(profile);
    assert_null(plan);
    assert_int_equal(mcp_plan_get_info(NULL, &info), MCP_EINVAL);
    assert_int_equal(mcp_profile_get_info(NULL, &told), MCP_EINVAL);
    assert_null(mcp_plan_note(NULL, 0));
    mcp_graph_close(NULL);
    mcp_profile_close(NULL);
    mcp_plan_close(NULL);
}

static void impossible_requests_are_refused(void **state)
{
    mcp_profile        *here = must_read();
    mcp_supposed_worker nobody = { .name = "nobody" };
    const mcp_plan_opts good = { .struct_size = sizeof(good),
                                 .model = model,
                                 .here = here,
                                 .prompt_tokens = 1,
                                 .gen_tokens = 1,
                                 .quality_pct_max = 1.0 };
    mcp_plan_opts       o;
    mcp_plan           *plan;
    mcp_error           err = { 0 };

    (void)state;
#define REFUSED(change, code, about)                                       \
    do {                                                                   \
        o = good;                                                          \
        change;                                                            \
        unit_refused(mcp_plan_open(&plan, &o, &err), (code), &err, about); \
        assert_null(plan);                                                 \
    } while (0)
    REFUSED(o.struct_size = sizeof(o) + 8, MCP_EINVAL, "struct_size");
    REFUSED(o.privacy = (mcp_privacy)9, MCP_EINVAL, "privacy 9");
    REFUSED(o.optimize = (mcp_optimize)9, MCP_EINVAL, "optimize 9");
    REFUSED(o.spec = (mcp_spec)9, MCP_EINVAL, "spec 9");
    REFUSED(o.spec_depth = MCP_SPEC_DEPTH_MAX + 1, MCP_ERANGE, "guesses");
    REFUSED(o.codec = "mp3", MCP_EINVAL, "mp3");
    REFUSED(o.prompt_tokens = 0, MCP_ERANGE, "prompt tokens");
    REFUSED(o.quality_pct_max = -1.0, MCP_ERANGE, "quality");
    REFUSED((o.supposed = &nobody, o.supposed_count = 1), MCP_EINVAL, "profile");
    REFUSED(o.supposed_count = 1, MCP_EINVAL, "without a list");
#undef REFUSED
    mcp_profile_close(here);
}

/* Goal:   a caller with a shorter struct gets what it has room for, and not a byte more. */
static void shorter_structs_are_filled_as_far_as_they_go(void **state)
{
    mcp_profile  *here = must_read();
    mcp_plan_opts o = MCP_PLAN_OPTS_INIT;
    mcp_graph    *graph;
    mcp_plan     *plan;
    mcp_plan_info whole = { .struct_size = sizeof(whole) };
    mcp_op        op = { .struct_size = sizeof(op) };
    mcp_error     err;
    union {
        mcp_plan_info info;
        uint8_t       bytes[sizeof(mcp_plan_info)];
    } part;

    (void)state;
    o.model = model;
    o.here = here;
    unit_ok(mcp_plan_open(&plan, &o, &err), &err);
    assert_int_equal(mcp_plan_get_info(plan, &whole), MCP_OK);
    assert_int_equal(whole.fits, 1);
    assert_int_equal(whole.mode, MCP_MODE_LOCAL);
    memset(&part, 0x5a, sizeof(part));
    part.info.struct_size = offsetof(mcp_plan_info, why);
    assert_int_equal(mcp_plan_get_info(plan, &part.info), MCP_OK);
    assert_string_equal(part.info.text, whole.text);
    for (size_t i = offsetof(mcp_plan_info, why); i < sizeof(part); i++)
        assert_int_equal(part.bytes[i], 0x5a);
    assert_int_equal(mcp_plan_get_mode(plan, MCP_MODES, &whole), MCP_ERANGE);

    unit_ok(mcp_graph_open(&graph, model, &err), &err);
    assert_int_equal(mcp_graph_get_op(graph, 0, 1, 0, &op), MCP_OK);
    assert_int_equal(mcp_graph_get_op(graph, mcp_graph_op_count(graph), 1, 0, &op), MCP_EINVAL);
    assert_int_equal(mcp_graph_get_op(graph, 0, 0, 0, &op), MCP_EINVAL);
    assert_true(mcp_graph_cut_width(graph, 4) == 128.0);
    assert_true(mcp_graph_cut_width(graph, 5) == 0.0);
    mcp_graph_close(graph);
    mcp_plan_close(plan);
    mcp_profile_close(here);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_arguments_are_refused),
        cmocka_unit_test(impossible_requests_are_refused),
        cmocka_unit_test(shorter_structs_are_filled_as_far_as_they_go),
    };

    return cmocka_run_group_tests_name("api/plan", tests, begin, end);
}
