/* plan/watch_test.c - correcting predictions, and changing plans neither too late nor too often.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/made_test.h"

/* ---- correction --------------------------------------------------------------------------- */

static struct plan_request asking(uint32_t positions, uint32_t left)
{
    struct plan_request r = PLAN_REQUEST_INIT;

    r.prompt_tokens = positions + 1;
    r.cached_tokens = positions;
    r.gen_tokens = left;
    return r;
}

/* Goal:   what is always wrong by a factor is predicted right after a few requests, per worker and
 *         mode; others are left alone. */
static void a_constant_error_is_learned(void **state)
{
    static struct plan_adjust adjust;
    struct plan               split = { .mode = PLAN_SPLIT,
                                        .hop_count = 1,
                                        .hops = { { 0, 2, 28 } },
                                        .codec = 1,
                                        .chunk_tokens = 64,
                                        .windows = 1 };
    struct plan               local = { .mode = PLAN_LOCAL, .chunk_tokens = 64, .windows = 1 };
    struct plan_request       r = asking(100, 50);
    struct plan_cost          raw, cost, before;
    struct made               m;
    mcp_error                 err;

    (void)state;
    made_7b(&m, 20.0, 100.0);
    unit_ok(plan_predict(&raw, &m.facts, &r, &split, &err), &err);
    unit_ok(plan_predict(&before, &m.facts, &r, &local, &err), &err);
    m.facts.adjust = &adjust;
    for (int i = 0; i < 10; i++) {
        unit_ok(plan_predict(&cost, &m.facts, &r, &split, &err), &err);
        plan_observe(&adjust, &split, &cost, raw.ttft_ms * 1.7, raw.token_ms * 0.6);
    }
    unit_ok(plan_predict(&cost, &m.facts, &r, &split, &err), &err);
    made_close(cost.ttft_ms, raw.ttft_ms * 1.7, 1e-9);
    made_close(cost.token_ms, raw.token_ms * 0.6, 1e-9);
    made_close(cost.total_ms, cost.ttft_ms + 49 * cost.token_ms, 1e-9);
    unit_ok(plan_predict(&cost, &m.facts, &r, &local, &err), &err);
    assert_memory_equal(&cost, &before, sizeof(cost));
}

/* Goal:   factors stay within 1/4 and 4 whatever was measured, and nonsense is ignored. */
static void corrections_are_bounded(void **state)
{
    static struct plan_adjust adjust;
    static const double       nonsense[] = { 0.0, -1.0, NAN, INFINITY };
    struct plan               plan = { .mode = PLAN_LOCAL };
    struct plan_cost          cost = { .ttft_ms = 100.0, .token_ms = 10.0 };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(nonsense); i++)
        plan_observe(&adjust, &plan, &cost, nonsense[i], nonsense[i]);
    assert_true(plan_adjust_ttft(&adjust, &plan) == 1.0 &&
                plan_adjust_token(&adjust, &plan) == 1.0);
    for (int i = 0; i < 100; i++) {
        cost.ttft_ms = 100.0 * plan_adjust_ttft(&adjust, &plan);
        cost.token_ms = 10.0 * plan_adjust_token(&adjust, &plan);
        plan_observe(&adjust, &plan, &cost, 1e9, 1e-9);
    }
    made_close(plan_adjust_ttft(&adjust, &plan), 4.0, 1e-6);
    made_close(plan_adjust_token(&adjust, &plan), 0.25, 1e-6);
}

/* Goal:   noise of 30 % leaves a correction near the middle. */
static void noise_is_averaged(void **state)
{
    static struct plan_adjust adjust;
    struct plan               plan = { .mode = PLAN_LOCAL };
    uint64_t                  seed = unit_seed();
    double                    sum = 0.0;

    (void)state;
    for (int i = 0; i < 2000; i++) {
        double           factor = plan_adjust_token(&adjust, &plan);
        struct plan_cost cost = { .token_ms = 10.0 * factor };

        plan_observe(&adjust, &plan, &cost, 0.0, 15.0 * made_between(&seed, 0.7, 1.3));
        sum += i >= 1000 ? plan_adjust_token(&adjust, &plan) : 0.0;
    }
    made_close(sum / 1000.0, 1.5, 0.05);
}

/* ---- the band ----------------------------------------------------------------------------- */

static struct plan_watch watching(double token_ms)
{
    struct plan       plan = { .mode = PLAN_LOCAL };
    struct plan_cost  cost = { .token_ms = token_ms };
    struct plan_watch w;

    plan_watch_init(&w, &plan, &cost);
    return w;
}

/* Goal:   eight samples in a row outside, after four of grace, and not one earlier; by windows of
 *         any number of tokens. */
static void it_takes_eight_samples_in_a_row(void **state)
{
    struct plan_watch w = watching(10.0);

    (void)state;
    for (int i = 0; i < PLAN_WATCH_SETTLE + PLAN_WATCH_SAMPLES - 1; i++)
        assert_false(plan_watch_sample(&w, 3, 3 * 20.0));
    assert_true(plan_watch_sample(&w, 1, 20.0));
    assert_true(plan_watch_sample(&w, 1, 20.0));
    made_close(w.mean_ms, 20.0, 1e-9);
    assert_false(plan_watch_sample(&w, 1, 10.0)); /* inside: from the beginning */
    for (int i = 0; i < PLAN_WATCH_SAMPLES - 1; i++)
        assert_false(plan_watch_sample(&w, 1, 5.0));
    assert_false(plan_watch_sample(&w, 1, 20.0)); /* the other side: from the beginning */
    for (int i = 0; i < PLAN_WATCH_SAMPLES - 2; i++)
        assert_false(plan_watch_sample(&w, 1, 20.0));
    assert_true(plan_watch_sample(&w, 1, 20.0));
    assert_false(plan_watch_sample(&w, 0, 20.0));
    assert_false(plan_watch_sample(&w, 1, NAN));
}

static void noise_inside_and_outliers_do_not_alarm(void **state)
{
    struct plan_watch w = watching(10.0);
    uint64_t          seed = unit_seed();

    (void)state;
    for (int i = 0; i < 10000; i++) {
        double ms = 10.0 * made_between(&seed, 0.75, 1.3);

        if (plan_watch_sample(&w, 1, unit_below(&seed, 20) == 0 ? 90.0 : ms))
            fail_msg("an alarm after %d samples of noise", i);
    }
}

/* ---- what a switch costs ------------------------------------------------------------------ */

static void a_switch_costs_what_must_be_moved(void **state)
{
    struct plan         split = { .mode = PLAN_SPLIT,
                                  .hop_count = 1,
                                  .hops = { { 0, 2, 28 } },
                                  .codec = 1,
                                  .chunk_tokens = 64,
                                  .windows = 1 };
    struct plan         other = split, narrow = split, wide = split;
    struct plan         local = { .mode = PLAN_LOCAL, .chunk_tokens = 512, .windows = 1 };
    struct plan_request r = asking(500, 50), whole = PLAN_REQUEST_INIT;
    struct plan_cost    cost;
    struct made         m;
    mcp_error           err;
    double              ms, replay_ms;

    (void)state;
    made_7b(&m, 20.0, 100.0);
    m.model.kv_layer_bytes = 512;
    whole.prompt_tokens = 500;
    /* Another codec, chunk or depth: nothing moves. */
    other.codec = 0;
    other.chunk_tokens = 128;
    unit_ok(plan_switch_ms(&ms, &m.facts, &r, &split, &other, 500, &err), &err);
    assert_true(ms == 0.0);
    /* More layers there: everything is replayed. */
    wide.hops[0].first = 1;
    unit_ok(plan_predict(&cost, &m.facts, &whole, &wide, &err), &err);
    unit_ok(plan_switch_ms(&ms, &m.facts, &r, &split, &wide, 500, &err), &err);
    made_close(ms, cost.ttft_ms, 1e-9);
    unit_ok(plan_switch_ms(&ms, &m.facts, &r, &split, &wide, 0, &err), &err);
    assert_true(ms == 0.0);
    /* Fewer: their KV comes home, a round trip and bytes down. */
    narrow.hops[0].first = 5;
    unit_ok(plan_switch_ms(&ms, &m.facts, &r, &split, &narrow, 500, &err), &err);
    made_close(ms, 20.0 + 3 * 500 * 512 * 8 / 100e3, 1e-9);
    /* From a worker that cannot hand it back, or is gone: replayed. */
    unit_ok(plan_predict(&cost, &m.facts, &whole, &local, &err), &err);
    replay_ms = cost.ttft_ms;
    unit_ok(plan_switch_ms(&ms, &m.facts, &r, &split, &local, 500, &err), &err);
    made_close(ms, 20.0 + 26 * 500 * 512 * 8 / 100e3, 1e-9);
    m.workers[0].exports_kv = false;
    unit_ok(plan_switch_ms(&ms, &m.facts, &r, &split, &local, 500, &err), &err);
    made_close(ms, replay_ms, 1e-9);
}

/* ---- a session ---------------------------------------------------------------------------- */

/* A session on a simulated world: tokens take what the true facts say, times noise; every alarm
 * and every news is reconsidered with what an agent would know by then. */
struct session {
    struct made        made; /* today's truth */
    struct plan_adjust adjust;
    struct plan_watch  watch;
    uint32_t           positions, left;
    double             noise;
    uint64_t           seed;
};

static void start(struct session *s, double rtt_ms, double noise)
{
    struct plan_request r = asking(300, 4000);
    struct plan_choice  choice;
    mcp_error           err;

    memset(s, 0, sizeof(*s));
    made_7b(&s->made, rtt_ms, 100.0);
    s->made.here_profiles[0] = made_profile(30, 1.6, 0.2, 0.0, 0.0); /* 50 ms a token */
    s->seed = unit_seed();
    s->noise = noise;
    s->positions = 300;
    s->left = 4000;
    unit_ok(plan_choose(&choice, &s->made.facts, &r, &err), &err);
    plan_watch_init(&s->watch, &choice.plan, &choice.cost);
}

static enum plan_verdict reconsider(struct session *s)
{
    struct plan_request r = asking(s->positions, s->left);
    struct plan_change  change;
    mcp_error           err;

    s->made.facts.adjust = &s->adjust;
    unit_ok(plan_reconsider(&change, &s->watch, &s->made.facts, &r, &s->adjust, &err), &err);
    s->made.facts.adjust = NULL;
    return change.verdict;
}

/* Returns the switches of these tokens. */
static uint32_t generate(struct session *s, uint32_t tokens, double slower)
{
    uint32_t before = s->watch.switches;

    for (uint32_t i = 0; i < tokens; i++) {
        struct plan_request r = asking(s->positions, s->left);
        struct plan_cost    truth, predicted;
        mcp_error           err;
        double              ms;

        unit_ok(plan_predict(&truth, &s->made.facts, &r, &s->watch.plan, &err), &err);
        s->made.facts.adjust = &s->adjust;
        unit_ok(plan_predict(&predicted, &s->made.facts, &r, &s->watch.plan, &err), &err);
        s->made.facts.adjust = NULL;
        ms = truth.token_ms * made_between(&s->seed, 1.0 - s->noise, 1.0 + s->noise);
        if (s->watch.plan.mode == PLAN_SPLIT)
            ms *= slower;
        plan_observe(&s->adjust, &s->watch.plan, &predicted, 0.0, ms);
        if (plan_watch_sample(&s->watch, 1, ms))
            reconsider(s);
        s->positions++;
        s->left--;
    }
    return s->watch.switches - before;
}

/* Goal:   under 40 % noise and without any change nothing is switched; each real change, for the
 *         worse or for the better, switches once, within 3 s, and then stays. */
static void a_change_switches_once(void **state)
{
    struct session s;

    (void)state;
    start(&s, 5.0, 0.4);
    assert_int_equal(s.watch.plan.mode, PLAN_SPLIT);
    assert_int_equal(generate(&s, 500, 1.0), 0);
    s.made.workers[0].link.rtt_ms = 200.0;
    assert_int_equal(generate(&s, 15, 1.0), 1); /* 15 x 0.2 s */
    assert_int_equal(s.watch.plan.mode, PLAN_LOCAL);
    assert_int_equal(generate(&s, 500, 1.0), 0);
    s.made.workers[0].link.rtt_ms = 5.0;
    assert_int_equal(reconsider(&s), PLAN_SWITCH); /* news: the link is good again */
    assert_int_equal(s.watch.plan.mode, PLAN_SPLIT);
    assert_int_equal(generate(&s, 500, 1.0), 0);
}

/* Goal:   a worker that is slower than its profile and load say is found out by its answers. */
static void a_worker_that_is_slower_than_it_says_is_left(void **state)
{
    struct session s;

    (void)state;
    start(&s, 5.0, 0.1);
    assert_int_equal(generate(&s, 100, 1.0), 0);
    /* One place is measured: the change is learned before the other one could be known. */
    assert_int_equal(generate(&s, 60, 6.0), 1);
    assert_int_equal(s.watch.plan.mode, PLAN_LOCAL);
    assert_int_equal(generate(&s, 500, 6.0), 0);
    assert_int_equal(reconsider(&s), PLAN_KEEP); /* other news: it is remembered */
    plan_adjust_forget(&s.adjust, 0);
    assert_int_equal(reconsider(&s), PLAN_SWITCH); /* it was restarted */
}

/* Goal:   conditions between two plans that are about as good do not swing it to and fro. */
static void plans_that_are_as_good_do_not_alternate(void **state)
{
    struct session s;

    (void)state;
    start(&s, 5.0, 0.3);
    for (int i = 0; i < 300; i++) {
        s.made.workers[0].link.rtt_ms = made_between(&s.seed, 43.0, 51.0);
        generate(&s, 5, 1.0);
        reconsider(&s);
    }
    assert_true(s.watch.switches <= 1);
}

/* Goal:   no switch for the last few tokens, nor for a gain that the replay eats up. */
static void a_switch_that_does_not_pay_is_not_made(void **state)
{
    struct session s;

    (void)state;
    start(&s, 5.0, 0.0);
    s.made.workers[0].exports_kv = false;
    s.made.workers[0].link.rtt_ms = 200.0;
    s.positions = 4000;
    s.left = 3;
    assert_int_equal(reconsider(&s), PLAN_KEEP);
    s.left = 3900;
    assert_int_equal(reconsider(&s), PLAN_SWITCH);
}

/* Goal:   a plan whose worker went or may no longer be used is replaced at once. */
static void a_plan_that_is_no_longer_possible_is_replaced(void **state)
{
    struct plan_request r = asking(300, 100);
    struct plan_change  change;
    struct session      s;
    mcp_error           err;

    (void)state;
    start(&s, 5.0, 0.0);
    s.watch.plan.mode = PLAN_PREFILL;
    unit_refused(plan_reconsider(&change, &s.watch, &s.made.facts, &r, NULL, &err), MCP_EINVAL,
                 &err, "prefill");
    start(&s, 5.0, 0.0);
    s.made.workers[0].up = false;
    assert_int_equal(reconsider(&s), PLAN_FORCED);
    assert_int_equal(s.watch.plan.mode, PLAN_LOCAL);
    start(&s, 5.0, 0.0);
    s.made.workers[0].layers_max = 10; /* its resources were exhausted: a part comes home */
    assert_int_equal(reconsider(&s), PLAN_FORCED);
    assert_int_equal(s.watch.plan.mode, PLAN_SPLIT);
    assert_int_equal(s.watch.plan.hops[0].last - s.watch.plan.hops[0].first, 10);
    start(&s, 5.0, 0.0);
    s.made.facts.worker_count = 0;
    assert_int_equal(reconsider(&s), PLAN_FORCED);
    assert_int_equal(s.watch.plan.mode, PLAN_LOCAL);
    s.made.facts.here_count = 0;
    unit_refused(plan_reconsider(&change, &s.watch, &s.made.facts, &r, NULL, &err), MCP_EUNAVAIL,
                 &err, "not on this machine");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_constant_error_is_learned),
        cmocka_unit_test(corrections_are_bounded),
        cmocka_unit_test(noise_is_averaged),
        cmocka_unit_test(it_takes_eight_samples_in_a_row),
        cmocka_unit_test(noise_inside_and_outliers_do_not_alarm),
        cmocka_unit_test(a_switch_costs_what_must_be_moved),
        cmocka_unit_test(a_change_switches_once),
        cmocka_unit_test(a_worker_that_is_slower_than_it_says_is_left),
        cmocka_unit_test(plans_that_are_as_good_do_not_alternate),
        cmocka_unit_test(a_switch_that_does_not_pay_is_not_made),
        cmocka_unit_test(a_plan_that_is_no_longer_possible_is_replaced),
    };

    return cmocka_run_group_tests_name("plan/watch", tests, NULL, NULL);
}
