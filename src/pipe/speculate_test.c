/* pipe/speculate_test.c - plans against a simulation of what they plan.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/speculate.h"

#include "base/unit_test.h"

#include <math.h>

/* ---- the slow oracle: windows through a head here, a worker, and a tail here --------------------- */

struct world {
    double wait_ms;
    double head_fixed, head_each, away_fixed, away_each, tail_fixed, tail_each;
    double right; /* probability of a guess */
    double draft; /* to make one here, one after the other; 0: they are all there */
};

enum { FLIGHT_MAX = 64, WINDOWS_MAX = 32, TOKENS = 4000 };

struct flight {
    uint32_t count;
    double   starts_ms, done_ms; /* at the worker */
};

struct run {
    const struct world *w;
    uint64_t            rng;
    double              now_ms, worker_free_ms;
    struct flight       flight[FLIGHT_MAX];
    uint32_t            flights;
    uint32_t            ready; /* guesses that were made and not sent */
    bool                fresh; /* the next window begins with a token of the text */
};

static void sim_send(struct run *r, uint32_t count)
{
    const struct world *w = r->w;
    struct flight      *f = &r->flight[r->flights++];
    double              arrives;

    assert_true(r->flights <= FLIGHT_MAX);
    r->now_ms += w->head_fixed + w->head_each * count;
    arrives = r->now_ms + w->wait_ms / 2.0;
    f->count = count;
    f->starts_ms = arrives > r->worker_free_ms ? arrives : r->worker_free_ms;
    f->done_ms = f->starts_ms + w->away_fixed + w->away_each * count;
    r->worker_free_ms = f->done_ms;
}

/* All in flight is void once the next window, of `count`, arrives: what has not begun never does. */
static void sim_reject(struct run *r, uint32_t count)
{
    double arrives = r->now_ms + r->w->head_fixed + r->w->head_each * count + r->w->wait_ms / 2.0;

    for (uint32_t i = 0; i < r->flights; i++) {
        if (r->flight[i].starts_ms >= arrives) {
            r->worker_free_ms = i > 0 ? r->flight[i - 1].done_ms : arrives;
            break;
        }
    }
    r->flights = 0;
}

static bool sim_chance(struct run *r)
{
    return (double)(unit_next(&r->rng) >> 11) * 0x1p-53 < r->w->right;
}

/* Send the next window if it is full, or is the first of several. */
static bool sim_send_next(struct run *r, uint32_t drafts, uint32_t windows)
{
    uint32_t full = drafts > 0 || r->fresh ? drafts : 1;
    uint32_t count = r->ready < full ? r->ready : full;

    if (r->flights == windows || (count < full && (!r->fresh || windows == 1)))
        return false;
    sim_send(r, count + r->fresh);
    r->fresh = false;
    if (r->w->draft > 0.0)
        r->ready -= count;
    return true;
}

/* Is the guess behind the front window right, whose rows were?  Sent or only made, it is used. */
static bool sim_next_is_right(struct run *r)
{
    bool made = r->flights > 0 || r->ready > 0, right = made && sim_chance(r);

    if (r->flights > 0)
        return right;
    r->fresh = true;
    if (r->w->draft > 0.0)
        r->ready = right ? r->ready - 1 : 0;
    return true; /* nothing was sent that could be void */
}

static void sim_receive(struct run *r, uint32_t drafts, uint32_t *tokens)
{
    const struct world *w = r->w;
    struct flight       front = r->flight[0];
    bool                right = true;

    if (r->now_ms < front.done_ms + w->wait_ms / 2.0)
        r->now_ms = front.done_ms + w->wait_ms / 2.0;
    r->now_ms += w->tail_fixed + w->tail_each * front.count;
    r->flights--;
    memmove(r->flight, r->flight + 1, r->flights * sizeof(r->flight[0]));
    for (uint32_t i = 0; i < front.count && right; i++) {
        ++*tokens;
        right = i + 1 < front.count ? sim_chance(r) : sim_next_is_right(r);
    }
    if (right)
        return;
    sim_reject(r, drafts + 1);
    r->fresh = true;
    if (w->draft > 0.0)
        r->ready = 0;
}

/* Milliseconds a token, of a long text under one plan. */
static double simulate(const struct world *w, uint32_t drafts, uint32_t windows, uint64_t seed)
{
    struct run r = { .w = w, .rng = seed, .fresh = true };
    uint32_t   tokens = 0;

    if (w->draft <= 0.0)
        r.ready = UINT32_MAX;
    while (tokens < TOKENS) {
        bool out = r.flights > 0 && r.now_ms >= r.flight[0].done_ms + w->wait_ms / 2.0;

        if (!out && sim_send_next(&r, drafts, windows))
            continue;
        if (!out && r.ready <= drafts && (drafts > 0 || windows > 1)) {
            r.now_ms += w->draft;
            r.ready++;
        } else {
            sim_receive(&r, drafts, &tokens);
        }
    }
    return r.now_ms / tokens;
}

/* Let `s` see windows of several sizes run. */
static void teach(struct speculate *s, const struct world *w)
{
    for (uint32_t i = 0; i < 60; i++) {
        uint32_t n = 1 + i % 5;

        speculate_ran(s, 1, false, 1.0, n, w->head_fixed + w->head_each * n);
        speculate_ran(s, 2, true, 1.0, n, w->away_fixed + w->away_each * n);
        speculate_ran(s, 3, false, 1.0, n, w->tail_fixed + w->tail_each * n);
        speculate_waited(s, w->wait_ms + (i % 3) * 2.0);
    }
}

static const double       waits[] = { 1.0, 5.0, 20.0, 80.0 };
static const double       rights[] = { 0.1, 0.3, 0.5, 0.7, 0.9, 0.97 };
static const struct world computers[] = {
    { 0, 0.3, 0.2, 4.0, 2.0, 1.0, 0.4, 0, 0 }, /* a small model on two CPUs */
    { 0, 0.3, 0.2, 4.0, 6.0, 1.0, 0.4, 0, 0 }, /* each position costs as much as the first */
    { 0, 2.0, 0.2, 8.0, 0.1, 2.0, 0.2, 0, 0 }, /* a large one, a GPU as worker */
    { 0, 8.0, 2.0, 4.0, 0.1, 8.0, 2.0, 0, 0 }, /* slow here */
};

static void in_each_world(void (*look)(const struct world *w))
{
    for (size_t c = 0; c < UNIT_COUNT(computers); c++) {
        for (size_t i = 0; i < UNIT_COUNT(waits); i++) {
            for (size_t k = 0; k < UNIT_COUNT(rights); k++) {
                struct world w = computers[c];

                w.wait_ms = waits[i];
                w.right = rights[k];
                look(&w);
            }
        }
    }
}

static void choose_in(const struct world *w, struct speculate_plan *plan)
{
    float            chances[SPECULATE_HORIZON];
    struct speculate s;

    for (uint32_t i = 0; i < SPECULATE_HORIZON; i++)
        chances[i] = (float)w->right;
    speculate_init(&s, 0, 0, WINDOWS_MAX);
    teach(&s, w);
    speculate_drafts(&s, 0, w->draft);
    *plan = speculate_choose(&s, chances, SPECULATE_HORIZON);
}

/* ---- tests ------------------------------------------------------------------------------------- */

static struct {
    double   sum;
    uint32_t worlds;
} regret;

static void look_for_regret(const struct world *w)
{
    struct speculate_plan plan;
    double                best = INFINITY, chosen, plain = simulate(w, 0, 1, 1);

    choose_in(w, &plan);
    chosen = simulate(w, plan.drafts, plan.windows, 1);
    for (uint32_t d = 0; d <= SPECULATE_DRAFTS_MAX; d++) {
        for (uint32_t n = 1; n <= WINDOWS_MAX; n += n < 8 ? 1 : 4) {
            double ms = simulate(w, d, n, 1);

            best = ms < best ? ms : best;
        }
    }
    if (chosen > 1.02 * plain || chosen > 1.25 * best)
        fail_msg(
            "wait %g ms, guesses right %g, made in %g, worker %g + %g: %u drafts, %u windows give "
            "%.2f ms, plain decoding %.2f, the best plan %.2f",
            w->wait_ms, w->right, w->draft, w->away_fixed, w->away_each, plan.drafts, plan.windows,
            chosen, plain, best);
    regret.sum += chosen / best;
    regret.worlds++;
}

/* Goal:   the plan is within 25 % of the best one everywhere, 3 % on average, and never loses
 *         against plain decoding.
 * Method: links, computers and guesses of all kinds; every plan by simulation. */
static void the_plan_is_close_to_the_best_there_is(void **state)
{
    (void)state;
    regret.sum = regret.worlds = 0;
    in_each_world(look_for_regret);
    if (regret.sum > 1.03 * regret.worlds)
        fail_msg("plans take %.3f of the best ones' time", regret.sum / regret.worlds);
}

static void look_with_a_draft_model(const struct world *w)
{
    static const double drafts[] = { 1.0, 10.0 };
    struct world        drafted = *w;

    for (size_t i = 0; i < UNIT_COUNT(drafts); i++) {
        drafted.draft = drafts[i];
        look_for_regret(&drafted);
    }
}

/* Goal:   the same where a draft model shares this thread, from one far faster than the model to
 *         one as slow: it is used where it gains and left alone where it loses. */
static void the_plan_counts_what_a_draft_model_takes(void **state)
{
    (void)state;
    regret.sum = regret.worlds = 0;
    in_each_world(look_with_a_draft_model);
    if (regret.sum > 1.03 * regret.worlds)
        fail_msg("plans take %.3f of the best ones' time", regret.sum / regret.worlds);
}

/* Goal:   on a far link a fast draft model that is mostly right is worth six times plain decoding;
 *         one that takes as long as a token here, without a link, is left alone; and guesses that
 *         cost nothing still count where the model's cost too much. */
static void a_draft_model_is_used_where_it_gains(void **state)
{
    struct world          w = computers[2];
    struct speculate_plan plan;
    float                 chances[SPECULATE_HORIZON];
    struct speculate      s;

    (void)state;
    w.wait_ms = 80.0;
    w.right = 0.9;
    w.draft = 2.0;
    choose_in(&w, &plan);
    assert_true(plan.windows > 1);
    assert_true(simulate(&w, plan.drafts, plan.windows, 1) < simulate(&w, 0, 1, 1) / 6.0);

    w = computers[1];
    w.wait_ms = 1.0;
    w.right = 0.9;
    w.draft = 12.0;
    choose_in(&w, &plan);
    assert_int_equal(plan.drafts, 0);
    assert_int_equal(plan.windows, 1);

    w = computers[2];
    w.wait_ms = 20.0;
    for (uint32_t i = 0; i < SPECULATE_HORIZON; i++)
        chances[i] = 0.9f;
    speculate_init(&s, 0, 0, WINDOWS_MAX);
    teach(&s, &w);
    speculate_drafts(&s, 4, 500.0);
    plan = speculate_choose(&s, chances, 4);
    assert_true(plan.drafts > 0);
}

static void look_at_prediction(const struct world *w)
{
    float            chances[SPECULATE_HORIZON];
    struct speculate s;

    for (uint32_t i = 0; i < SPECULATE_HORIZON; i++)
        chances[i] = (float)w->right;
    speculate_init(&s, 0, 0, WINDOWS_MAX);
    teach(&s, w);
    for (uint32_t d = 0; d <= SPECULATE_DRAFTS_MAX; d += 5) {
        double said = speculate_token_ms(&s, chances, SPECULATE_HORIZON, d, 1);
        double took = simulate(w, d, 1, 2);

        if (fabs(said / took - 1.0) > 0.04)
            fail_msg("%u drafts, one window: %.3f ms predicted, %.3f simulated", d, said, took);
    }
}

/* Goal: what stop-and-wait takes is predicted exactly, but for chance. */
static void stop_and_wait_takes_as_long_as_predicted(void **state)
{
    (void)state;
    in_each_world(look_at_prediction);
}

static void without_guesses_there_is_one_plan(void **state)
{
    const float      chances[] = { 0.9f, 0.9f };
    struct speculate s;

    (void)state;
    speculate_init(&s, 7, 3, WINDOWS_MAX);
    assert_int_equal(speculate_choose(&s, chances, 0).drafts, 0);
    assert_int_equal(speculate_choose(&s, chances, 0).windows, 1);
    assert_int_equal(speculate_choose(&s, chances, 2).drafts, 7);
    assert_int_equal(speculate_choose(&s, chances, 2).windows, 3);
}

/* Goal:   what was told is done, also where it does not pay, and the other number is chosen. */
static void what_was_told_is_done(void **state)
{
    float            chances[SPECULATE_HORIZON];
    struct world     w = computers[1];
    struct speculate s;

    (void)state;
    w.wait_ms = 1.0;
    for (uint32_t i = 0; i < SPECULATE_HORIZON; i++)
        chances[i] = 0.01f;
    for (uint32_t told = 1; told <= 32; told++) {
        speculate_init(&s, told, 0, WINDOWS_MAX);
        teach(&s, &w);
        assert_int_equal(speculate_choose(&s, chances, SPECULATE_HORIZON).drafts, told);
        speculate_init(&s, 0, told, WINDOWS_MAX);
        teach(&s, &w);
        assert_int_equal(speculate_choose(&s, chances, SPECULATE_HORIZON).windows, told);
        assert_true(speculate_choose(&s, chances, SPECULATE_HORIZON).drafts > 0);
    }
    speculate_init(&s, 0, 0, WINDOWS_MAX);
    teach(&s, &w);
    assert_int_equal(speculate_choose(&s, chances, SPECULATE_HORIZON).drafts, 0);
    assert_int_equal(speculate_choose(&s, chances, SPECULATE_HORIZON).windows, 1);
}

/* Goal:   any measurements, also absurd ones, give a plan within its bounds. */
static void a_plan_is_always_within_its_bounds(void **state)
{
    uint64_t rng = unit_seed();

    (void)state;
    for (uint32_t round = 0; round < 2000; round++) {
        float                 chances[SPECULATE_HORIZON + 10];
        uint32_t              count = unit_below(&rng, SPECULATE_HORIZON + 10);
        struct speculate      s;
        struct speculate_plan plan;

        speculate_init(&s, 0, 0, 1 + unit_below(&rng, WINDOWS_MAX));
        speculate_drafts(&s, unit_below(&rng, 140), (double)unit_below(&rng, 100) - 20.0);
        for (uint32_t i = 0; i < count; i++)
            chances[i] = (float)unit_below(&rng, 101) / 100.0f;
        for (uint32_t i = unit_below(&rng, 50); i > 0; i--) {
            speculate_ran(&s, unit_below(&rng, 40), unit_below(&rng, 2) == 0, unit_below(&rng, 4),
                          unit_below(&rng, 70), unit_below(&rng, 1000));
            speculate_waited(&s, (double)unit_below(&rng, 300) - 100.0);
        }
        plan = speculate_choose(&s, chances, count);
        assert_true(plan.drafts <= SPECULATE_DRAFTS_MAX);
        assert_true(plan.windows >= 1 && plan.windows <= s.windows_max);
        assert_true(isfinite(plan.token_ms) && plan.token_ms >= 0.0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_plan_is_close_to_the_best_there_is),
        cmocka_unit_test(the_plan_counts_what_a_draft_model_takes),
        cmocka_unit_test(a_draft_model_is_used_where_it_gains),
        cmocka_unit_test(stop_and_wait_takes_as_long_as_predicted),
        cmocka_unit_test(without_guesses_there_is_one_plan),
        cmocka_unit_test(what_was_told_is_done),
        cmocka_unit_test(a_plan_is_always_within_its_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
