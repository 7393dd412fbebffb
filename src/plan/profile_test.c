/* plan/profile_test.c - times between the grid's points, and hostile profiles.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/made_test.h"

/* Goal:   what is linear in tokens and context between grid points is met exactly, and the rules
 *         beyond the grid hold: in proportion, and on the last slope. */
static void a_linear_device_is_met_everywhere(void **state)
{
    struct plan_profile p = made_profile(30, 2.0, 0.25, 1e-3, 1e-5);

    (void)state;
    for (uint32_t n = 1; n <= 512; n += 3)
        for (uint32_t c = 0; c <= 8192; c += 97)
            made_close(plan_profile_layer_ms(&p, n, c, 1), 2.0 + 0.25 * n + 1e-3 * c + 1e-5 * n * c,
                       1e-9);
    made_close(plan_profile_layer_ms(&p, 1024, 100, 1),
               2.0 * plan_profile_layer_ms(&p, 512, 100, 1), 1e-12);
    made_close(plan_profile_head_ms(&p, 20), 4.0 + 0.25 * 20, 1e-12);
    assert_true(plan_profile_layer_ms(&p, 0, 5, 1) == 0.0);
}

/* Goal:   a forward is the sum of its parts; a batch reads the weights once and each cache by
 *         itself. */
static void a_forward_is_the_sum_of_its_parts(void **state)
{
    struct plan_profile p = made_profile(30, 2.0, 0.25, 1e-3, 1e-5);
    struct plan_forward f = { .layers = 7.5, .tokens = 4, .context = 1000, .batch = 3 };

    (void)state;
    made_close(plan_profile_ms(&p, &f),
               0.05 + 7.5 * (2.0 + 0.25 * 12 + 3 * (1.0 + 1e-5 * 4 * 1000)), 1e-9);
    f.embed = true;
    f.head_rows = 2;
    made_close(plan_profile_ms(&p, &f),
               0.05 + 7.5 * (2.0 + 0.25 * 12 + 3 * (1.0 + 1e-5 * 4 * 1000)) + 0.012 + 4.0 +
                   0.25 * 6,
               1e-9);
}

static struct plan_profile noisy(uint64_t *seed)
{
    struct plan_profile p = made_profile(12, made_between(seed, 0.01, 3.0), made_random(seed),
                                         1e-3 * made_random(seed), 1e-5 * made_random(seed));

    for (uint32_t t = 0; t < p.token_count; t++) {
        for (uint32_t c = 0; c < p.context_count; c++)
            p.layer_ms[t][c] *= made_between(seed, 0.5, 1.5);
        p.head_ms[t] *= made_between(seed, 0.5, 1.5);
        p.embed_ms[t] *= made_between(seed, 0.5, 1.5);
    }
    return p;
}

/* Goal:   noise of measuring never makes more work cheaper.
 * Method: 300 profiles with 50 % noise, settled; 200 pairs of forwards each, one of which has at
 *         least as much of everything. */
static void more_work_never_takes_less_time(void **state)
{
    uint64_t  seed = unit_seed();
    mcp_error err;

    (void)state;
    for (int round = 0; round < 300; round++) {
        struct plan_profile p = noisy(&seed);

        plan_profile_settle(&p);
        unit_ok(plan_profile_check(&p, &err), &err);
        for (int i = 0; i < 200; i++) {
            struct plan_forward less = { .layers = made_between(&seed, 0, 30),
                                         .tokens = 1 + unit_below(&seed, 700),
                                         .context = unit_below(&seed, 20000),
                                         .batch = 1 + unit_below(&seed, 5),
                                         .head_rows = unit_below(&seed, 3) };
            struct plan_forward more = less;

            more.layers += unit_below(&seed, 2);
            more.tokens += unit_below(&seed, 2) * unit_below(&seed, 100);
            more.context += unit_below(&seed, 2) * unit_below(&seed, 9000);
            more.batch += unit_below(&seed, 2);
            more.head_rows += unit_below(&seed, 2);
            if (plan_profile_ms(&p, &more) < plan_profile_ms(&p, &less) * (1 - 1e-12))
                fail_msg("round %d: %u tokens behind %u, %u sequences, %g ms; less work %g ms",
                         round, more.tokens, more.context, more.batch, plan_profile_ms(&p, &more),
                         plan_profile_ms(&p, &less));
        }
    }
}

static void settling_leaves_a_settled_profile_alone(void **state)
{
    struct plan_profile p = made_profile(30, 2.0, 0.25, 1e-3, 1e-5), before = p;

    (void)state;
    plan_profile_settle(&p);
    assert_memory_equal(&p, &before, sizeof(p));
}

/* One wrong thing at a time. */
#define REFUSED(about, change)                                                \
    do {                                                                      \
        struct plan_profile p = made_profile(30, 2.0, 0.25, 1e-3, 1e-5);      \
        mcp_error           err = { 0 };                                      \
        change;                                                               \
        unit_refused(plan_profile_check(&p, &err), MCP_EFORMAT, &err, about); \
    } while (0)

/* Goal:   a profile that somebody else wrote cannot bring in a number that breaks the planner. */
static void hostile_profiles_are_refused(void **state)
{
    (void)state;
    REFUSED("device", memset(p.device, 'x', sizeof(p.device)));
    REFUSED("model", memset(p.model, 'x', sizeof(p.model)));
    REFUSED("quantisation", memset(p.quantisation, 'x', sizeof(p.quantisation)));
    REFUSED("kind", p.kind = (enum plan_profile_kind)7);
    REFUSED("layers", p.layers = 0);
    REFUSED("layers", p.layers = PLAN_LAYERS_MAX + 1);
    REFUSED("wide", p.n_embd = 0);
    REFUSED("token counts", p.token_count = 0);
    REFUSED("token counts", p.token_count = PLAN_TOKENS_MAX + 1);
    REFUSED("token counts", p.token_count = UINT32_MAX);
    REFUSED("context lengths", p.context_count = PLAN_CONTEXTS_MAX + 1);
    REFUSED("begin with 2", p.tokens[0] = 2);
    REFUSED("begin with 1", p.contexts[0] = 1);
    REFUSED("ascend", p.tokens[2] = p.tokens[1]);
    REFUSED("ascend", p.tokens[4] = PLAN_PROFILE_TOKENS_MAX + 1);
    REFUSED("ascend", p.contexts[2] = UINT32_MAX);
    REFUSED("layer_ms", p.layer_ms[2][1] = NAN);
    REFUSED("layer_ms", p.layer_ms[2][1] = INFINITY);
    REFUSED("layer_ms", p.layer_ms[2][1] = -1e-9);
    REFUSED("layer_ms", p.layer_ms[4][2] = 1e300);
    REFUSED("less work", p.layer_ms[2][1] = p.layer_ms[1][1] * 0.99);
    REFUSED("less work", p.layer_ms[0][1] = p.layer_ms[0][0] * 0.99);
    REFUSED("no time", p.layer_ms[0][0] = 0.0);
    REFUSED("head_ms", p.head_ms[3] = NAN);
    REFUSED("the head", p.head_ms[3] = 0.0);
    REFUSED("embed_ms", p.embed_ms[0] = -INFINITY);
    REFUSED("call_ms", p.call_ms = NAN);
}

/* Goal:   the batch that reaches 95 % of the best rate, found by trying all; a time limit holds. */
static void the_batch_is_the_smallest_that_is_fast_enough(void **state)
{
    struct plan_profile p = made_profile(30, 2.0, 0.02, 0.0, 0.0);
    double              best = 512.0 / (0.05 + 30 * (2.0 + 0.02 * 512));
    uint32_t            n = 1;

    (void)state;
    while (n / (0.05 + 30 * (2.0 + 0.02 * n)) < 0.95 * best)
        n++;
    assert_int_equal(plan_profile_batch(&p, 30, 0, 0.0), n);
    n = plan_profile_batch(&p, 30, 0, 100.0);
    assert_true(0.05 + 30 * (2.0 + 0.02 * n) <= 100.0 && n > 1);
    assert_int_equal(plan_profile_batch(&p, 30, 0, 1e-3), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_linear_device_is_met_everywhere),
        cmocka_unit_test(a_forward_is_the_sum_of_its_parts),
        cmocka_unit_test(more_work_never_takes_less_time),
        cmocka_unit_test(settling_leaves_a_settled_profile_alone),
        cmocka_unit_test(hostile_profiles_are_refused),
        cmocka_unit_test(the_batch_is_the_smallest_that_is_fast_enough),
    };

    return cmocka_run_group_tests_name("plan/profile", tests, NULL, NULL);
}
