/* plan/pace_test.c - passes, pipelined prefill and speculated decoding against simulations.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/pace.h"

#include "plan/made_test.h"

static struct plan split_2_28(uint32_t codec)
{
    return (struct plan){ .mode = PLAN_SPLIT,
                          .hop_count = 1,
                          .hops = { { 0, 2, 28 } },
                          .codec = codec,
                          .chunk_tokens = 64,
                          .windows = 1 };
}

static void route_of(struct plan_route *route, const struct made *m, uint32_t codec)
{
    struct plan_request r = PLAN_REQUEST_INIT;
    struct plan         plan = split_2_28(codec);
    struct plan_view    view;

    plan_view_init(&view, &m->facts, &r);
    plan_route_init(route, &view, &plan, &m->codecs[codec]);
}

static double sum_of_terms(const double *term_ms)
{
    double sum = 0.0;

    for (int t = 0; t < PLAN_TERMS; t++)
        sum += term_ms[t];
    return sum;
}

/* Goal:   a window takes its computing here and there, the round trip, its bytes both ways and
 *         0.3 ms, each in its own term. */
static void a_pass_is_the_sum_of_its_parts(void **state)
{
    struct made       m;
    struct plan_route route;
    struct plan_paces paces;
    struct plan_pass  pass;
    double            bytes_ms = (3 * 4352 + 120) * 8 / 100e6 * 1000;

    (void)state;
    made_7b(&m, 20.0, 100.0);
    m.workers[0].queue_ms = 1.5;
    route_of(&route, &m, 1);
    plan_paces_init(&paces, &route, 3, 0);
    plan_pass_init(&pass, &route, &paces, 3, PLAN_PHASE_DECODE);
    made_close(pass.term_ms[PLAN_TERM_RTT], 20.0, 1e-12);
    made_close(pass.term_ms[PLAN_TERM_QUEUE], 1.5, 1e-12);
    made_close(pass.term_ms[PLAN_TERM_FRAME], 0.3, 1e-12);
    made_close(pass.term_ms[PLAN_TERM_UP], bytes_ms, 1e-9);
    made_close(pass.term_ms[PLAN_TERM_DOWN], bytes_ms, 1e-9);
    made_close(pass.busy_ms[PLAN_RES_WORKER], pass.term_ms[PLAN_TERM_WORKER], 1e-12);
    made_close(pass.total_ms, sum_of_terms(pass.term_ms), 1e-12);
}

/* When each chunk has left each place, places taking turns: here counts for both ends of a chunk,
 * which is worked on as one. */
static double simulated_prefill(const struct plan_pass *pass, uint32_t chunks)
{
    static const enum plan_resource order[] = { PLAN_RES_HERE, PLAN_RES_UP, PLAN_RES_WORKER,
                                                PLAN_RES_DOWN };
    double                          free_ms[PLAN_RESOURCES] = { 0 }, end = 0.0;

    for (uint32_t i = 0; i < chunks; i++) {
        double at = 0.0;

        for (size_t s = 0; s < UNIT_COUNT(order); s++) {
            at = fmax(at, free_ms[order[s]]) + pass->busy_ms[order[s]];
            free_ms[order[s]] = at;
        }
        end = at;
    }
    return end + pass->total_ms - pass->busy_ms[PLAN_RES_HERE] - pass->busy_ms[PLAN_RES_UP] -
           pass->busy_ms[PLAN_RES_WORKER] - pass->busy_ms[PLAN_RES_DOWN];
}

/* Goal:   the formula is the time of a pipeline: first chunk through all, then the slowest.
 * Method: a flow shop is simulated for 500 sets of times. */
static void prefill_is_a_pipeline(void **state)
{
    uint64_t seed = unit_seed();

    (void)state;
    for (int round = 0; round < 500; round++) {
        uint32_t                  chunks = 1 + unit_below(&seed, 20);
        struct made               m;
        struct plan_route         route;
        struct plan_filling_paces paces;
        struct plan_filling       filling;
        struct plan_pass          pass;

        made_7b(&m, made_between(&seed, 0, 80), made_between(&seed, 5, 1000));
        for (uint32_t t = 0; t < 5; t++)
            for (uint32_t c = 0; c < 3; c++)
                m.here_profiles[0].layer_ms[t][c] *= made_between(&seed, 0.001, 0.1);
        plan_profile_settle(&m.here_profiles[0]);
        route_of(&route, &m, round % 3);
        plan_filling_paces_init(&paces, &route, 0, chunks * 64, 64);
        plan_filling_init(&filling, &route, &paces);
        plan_pass_init(&pass, &route, &paces.chunk_paces, 64, PLAN_PHASE_PREFILL);
        made_close(filling.ms - paces.last_paces.here.head_ms, simulated_prefill(&pass, chunks),
                   1e-9);
        made_close(filling.ms, sum_of_terms(filling.term_ms), 1e-9);
        made_close(filling.first_ms, pass.total_ms, 1e-12);
        made_close(filling.busy_ms[PLAN_RES_UP], chunks * pass.busy_ms[PLAN_RES_UP], 1e-9);
        made_close(filling.bytes_out, chunks * (64 * route.token_bytes + 120.0), 1e-9);
    }
}

/* ms a token, and windows sent a token, when windows are really sent and drafts really tossed. */
static void simulate(const struct plan_drafting *d, double pass_ms, double slot_ms, uint64_t *seed,
                     double *token_ms, double *windows)
{
    double   ms = 0.0, tokens = 0.0, sent = 0.0;
    uint32_t runs = 40000;

    for (uint32_t run = 0; run < runs; run++) {
        double   back[PLAN_WINDOWS_MAX] = { 0 }, last = -1e9, end = 0.0;
        uint32_t right = 0, wrong_window, window = 0;

        while (made_random(seed) < d->accept)
            right++;
        wrong_window = right / d->positions;
        for (;; window++) {
            uint32_t slot = window % d->windows;
            double   at = window >= d->windows ? back[slot] : 0.0;

            at = fmax(at, last + slot_ms); /* one behind the other through the slowest place */
            if (window > wrong_window && at >= end)
                break;
            last = at;
            back[slot] = at + pass_ms;
            if (window == wrong_window)
                end = back[slot];
        }
        ms += end;
        tokens += right + 1;
        sent += window;
    }
    *token_ms = ms / tokens;
    *windows = sent / tokens;
}

/* Goal:   time and windows a token of pipelined speculation, for any pass, slot, acceptance, depth
 *         and number of windows.
 * Method: 60 cases against 40,000 simulated runs each. */
static void speculation_is_what_sending_windows_gives(void **state)
{
    uint64_t seed = unit_seed();

    (void)state;
    for (int round = 0; round < 60; round++) {
        struct plan_draft    draft = { .drafter = PLAN_NGRAM,
                                       .accept = made_between(&seed, 0.1, 0.95),
                                       .hit = 1.0 };
        uint32_t             depth = unit_below(&seed, 9);
        uint32_t             count = 1 + unit_below(&seed, PLAN_WINDOWS_MAX);
        struct plan_route    route = { .hop_count = 1 };
        struct plan_drafting d;
        struct plan_pass     window = { .total_ms = made_between(&seed, 10, 100) }, plain = window;
        struct plan_rate     rate;
        double               token_ms, windows, terms[PLAN_TERMS];

        if (depth == 0 && count == 1)
            continue;
        window.busy_ms[PLAN_RES_WORKER] = made_between(&seed, 0.1, window.total_ms);
        window.term_ms[PLAN_TERM_WORKER] = window.busy_ms[PLAN_RES_WORKER];
        window.term_ms[PLAN_TERM_RTT] = window.total_ms - window.term_ms[PLAN_TERM_WORKER];
        plan_drafting_init(&d, &draft, depth, count);
        plan_rate_init(&rate, &route, &d, &window, &plain);
        simulate(&d, window.total_ms, window.busy_ms[PLAN_RES_WORKER], &seed, &token_ms, &windows);
        made_close(rate.ms, token_ms, 0.03);
        made_close(rate.windows, windows, 0.03);
        plan_rate_terms(terms, &rate, &d, &window, &plain);
        made_close(sum_of_terms(terms), rate.ms, 1e-9);
    }
}

/* Goal:   stop-and-wait gives Leviathan's (1 - a^(k+1)) / (1 - a) tokens a round. */
static void one_window_is_stop_and_wait(void **state)
{
    static const struct {
        double   accept, tokens;
        uint32_t depth;
    } known[] = {
        { 0.5, 1.5, 1 }, { 0.5, 1.88, 3 }, { 0.7, 2.53, 3 }, { 0.8, 4.33, 8 }, { 0.9, 6.13, 8 }
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(known); i++) {
        struct plan_draft draft = { .drafter = PLAN_NGRAM, .accept = known[i].accept, .hit = 1.0 };
        struct plan_route route = { .hop_count = 1 };
        struct plan_pass  window = { .total_ms = 100.0 }, plain = window;
        struct plan_drafting d;
        struct plan_rate     rate;

        plan_drafting_init(&d, &draft, known[i].depth, 1);
        plan_rate_init(&rate, &route, &d, &window, &plain);
        made_close(100.0 / rate.ms, known[i].tokens, 0.003);
        made_close(rate.window_tokens, known[i].tokens, 0.003);
    }
}

/* Goal:   drafts that are never there, or never right, are plain decoding at best. */
static void bad_drafts_gain_nothing(void **state)
{
    struct plan_draft    draft = { .drafter = PLAN_NGRAM, .accept = 0.9, .hit = 0.0 };
    struct plan_route    route = { .hop_count = 1 };
    struct plan_pass     window = { .total_ms = 110.0 }, plain = { .total_ms = 100.0 };
    struct plan_drafting d;
    struct plan_rate     rate;

    (void)state;
    plan_drafting_init(&d, &draft, 4, 3);
    plan_rate_init(&rate, &route, &d, &window, &plain);
    made_close(rate.ms, 100.0, 1e-12);
    draft = (struct plan_draft){ .drafter = PLAN_NGRAM, .accept = 0.0, .hit = 1.0, .token_ms = 1 };
    plan_drafting_init(&d, &draft, 4, 1);
    plan_rate_init(&rate, &route, &d, &window, &plain);
    made_close(rate.ms, 114.0, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pass_is_the_sum_of_its_parts),
        cmocka_unit_test(prefill_is_a_pipeline),
        cmocka_unit_test(speculation_is_what_sending_windows_gives),
        cmocka_unit_test(one_window_is_stop_and_wait),
        cmocka_unit_test(bad_drafts_gain_nothing),
    };

    return cmocka_run_group_tests_name("plan/pace", tests, NULL, NULL);
}
