/* agent/quality_test.c - codecs measured on a tiny model, and what is kept of it.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/quality.h"

#include "agent/digest.h"
#include "engine/run_test.h"
#include "model/edit_test.h"

#include <math.h>
#include <sys/stat.h>

enum { TOKENS = 200 };

static struct mcp_model *model;
static int32_t           tokens[TOKENS];

static int model_begin(void **state)
{
    uint64_t rng = unit_seed();

    (void)state;
    model = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    run_tokens(&rng, tokens, TOKENS, model->hp.n_vocab);
    setenv("MCP_CACHE", unit_path("cache"), 1);
    return 0;
}

static int model_end(void **state)
{
    (void)state;
    model_close(model);
    return 0;
}

static struct agent_quality measure(uint32_t first, uint32_t last)
{
    mcp_engine_opts      opts = run_opts();
    struct agent_quality q;
    mcp_error            err;

    memset(&q, 0xff, sizeof(q));
    unit_ok(
        quality_measure(&q, model, &opts, first, last, tokens, TOKENS, 60000.0, NULL, NULL, &err),
        &err);
    assert_int_equal(q.tokens, TOKENS - 1);
    assert_true((q.codecs >> WIRE_F32 & 1) != 0 && q.pct[WIRE_F32] == 0.0);
    return q;
}

/* Goal:   f16 is the measure; q8r is about as good, q4r costs what can be told from noise; what has
 *         no cut is exact. */
static void coarser_codecs_cost_more(void **state)
{
    struct agent_quality q = measure(1, 3), none = measure(0, model->hp.n_layer);

    (void)state;
    assert_true(q.pct[WIRE_F16] == 0.0 && q.text_se_pct[WIRE_F16] > 0.0);
    assert_true(q.pct[WIRE_Q4R] > 5.0 * q.se_pct[WIRE_Q4R]);
    assert_true(q.pct[WIRE_Q8R] < 0.5 * q.pct[WIRE_Q4R]);
    assert_true(fabs(q.text_pct[WIRE_Q8R]) < 5.0 * q.text_se_pct[WIRE_Q8R]);
    for (uint32_t id = 0; id < WIRE_CODECS; id++)
        assert_true(none.pct[id] == 0.0 && none.text_se_pct[id] == 0.0);
}

/* Goal:   the same text gives the same figures: what is kept is what would be measured. */
static void the_same_is_measured_twice(void **state)
{
    struct agent_quality a = measure(1, 2), b = measure(1, 2);

    (void)state;
    assert_memory_equal(a.pct, b.pct, sizeof(a.pct));
    assert_memory_equal(a.se_pct, b.se_pct, sizeof(a.se_pct));
}

static int stop_at_second(uint32_t done, uint32_t all, void *ctx)
{
    uint32_t *calls = ctx;

    assert_int_equal(all, TOKENS - 1);
    assert_int_equal(done, 64 * *calls);
    return ++*calls == 2;
}

/* Goal:   it can be stopped, takes no longer than it may, and refuses what it cannot do. */
static void it_is_bounded(void **state)
{
    mcp_engine_opts      opts = run_opts();
    struct agent_quality q;
    uint32_t             calls = 0;
    mcp_error            err;

    (void)state;
    unit_refused(
        quality_measure(&q, model, &opts, 1, 3, tokens, TOKENS, 1e6, stop_at_second, &calls, &err),
        MCP_ECANCELED, &err, "cancelled");
    unit_refused(quality_measure(&q, model, &opts, 1, 3, tokens, TOKENS, 0.0, NULL, NULL, &err),
                 MCP_ENOTSUP, &err, "too slow");
    unit_refused(quality_measure(&q, model, &opts, 1, 3, tokens, 128, 1e6, NULL, NULL, &err),
                 MCP_ERANGE, &err, "128 tokens");
    unit_refused(quality_measure(&q, model, &opts, 1, 5, tokens, TOKENS, 1e6, NULL, NULL, &err),
                 MCP_ERANGE, &err, "layers [1, 5)");
}

static void put_kept(const char *content)
{
    uint8_t   weights[WIRE_DIGEST_BYTES];
    char      path[512];
    int       used;
    mcp_error err;

    unit_ok(agent_weights_digest(model, 0, model->hp.n_layer, weights, &err), &err);
    used = snprintf(path, sizeof(path), "%s/codecs/", unit_path("cache"));
    for (size_t i = 0; i < 16; i++)
        used += snprintf(path + used, sizeof(path) - (size_t)used, "%02x", weights[i]);
    snprintf(path + used, sizeof(path) - (size_t)used, "-1-3");
    unit_write(path, content, strlen(content));
}

/* Goal:   what was measured is found again; a file that is damaged or of another format is not. */
static void what_is_kept_is_found_if_it_is_whole(void **state)
{
    static const char *const broken[] = {
        "",
        "mcp-codecs 2 300\n1 0.1 0.2 0 0\n4 0.3 0.4 0 0\n5 0.5 0.6 0 0\n",
        "mcp-codecs 1 3\n1 0.1 0.2 0 0\n4 0.3 0.4 0 0\n5 0.5 0.6 0 0\n",
        "mcp-codecs 1 300\n1 0.1 0.2 0 0\n4 0.3 0.4 0 0\n",
        "mcp-codecs 1 300\n1 nan 0.2 0 0\n4 0.3 0.4 0 0\n5 0.5 0.6 0 0\n",
        "mcp-codecs 1 300\n1 0.1 -0.2 0 0\n4 0.3 0.4 0 0\n5 0.5 0.6 0 0\n",
        "mcp-codecs 1 300\n1 0.1 0.2 0 0\n4 0.3 0.4 0 0\n77 0.5 0.6 0 0\n",
    };
    mcp_engine_opts      opts = run_opts();
    struct agent_quality q;
    mcp_error            err;

    (void)state;
    unit_refused(agent_quality(&q, model, &opts, 1, 3, PROFILE_FIND, NULL, NULL, &err),
                 MCP_ENOTFOUND, &err, "have not been measured");
    for (size_t i = 0; i < UNIT_COUNT(broken); i++) {
        put_kept(broken[i]);
        assert_int_equal(agent_quality(&q, model, &opts, 1, 3, PROFILE_FIND, NULL, NULL, &err),
                         MCP_ENOTFOUND);
    }
    put_kept("mcp-codecs 1 300\n1 -0.1 0.2 -0.7 0.8\n4 0.3 0.4 0 0\n5 0.5 0.6 0 0\n");
    unit_ok(agent_quality(&q, model, &opts, 1, 3, PROFILE_FIND, NULL, NULL, &err), &err);
    assert_int_equal(q.tokens, 300);
    assert_true(q.text_pct[WIRE_F16] == -0.7 && q.text_se_pct[WIRE_F16] == 0.8);
    assert_true(q.pct[WIRE_F16] == -0.1 && q.se_pct[WIRE_Q4R] == 0.6);
    assert_int_equal(q.codecs, 1 << WIRE_F32 | 1 << WIRE_F16 | 1 << WIRE_Q8R | 1 << WIRE_Q4R);
    assert_int_equal(agent_quality(&q, model, &opts, 1, 2, PROFILE_FIND, NULL, NULL, &err),
                     MCP_ENOTFOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(coarser_codecs_cost_more),
        cmocka_unit_test(the_same_is_measured_twice),
        cmocka_unit_test(it_is_bounded),
        cmocka_unit_test(what_is_kept_is_found_if_it_is_whole),
    };

    return cmocka_run_group_tests_name("agent/quality", tests, model_begin, model_end);
}
