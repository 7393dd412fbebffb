/* worker/fair_test.c - what sessions get of a worker that has too much to do.
 *
 * Minutes of load in virtual time: see load_test.h.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/load_test.h"

static struct load w;

static void settled(double ms)
{
    load_run(&w, 2000);
    load_settle(&w);
    load_run(&w, ms);
}

/* The longest that a window of clients [from, to) waited for its first piece. */
static double waited_ms(uint32_t from, uint32_t to)
{
    double longest = 0;

    for (uint32_t i = from; i < to; i++)
        longest = w.clients[i].waited_ms_max > longest ? w.clients[i].waited_ms_max : longest;
    return longest;
}

static void no_wait_above(uint32_t from, uint32_t to, double limit_ms, const char *who)
{
    double longest = waited_ms(from, to);

    if (longest > limit_ms)
        fail_msg("a window of %s waited %.1f ms, more than %.1f", who, longest, limit_ms);
}

/* What a run of decoders saw, in ms; and the share of compute time that batch sessions had. */
struct seen {
    double p50, p99, batch;
};

/* `decoders` of the class normal, `prompts` of it beside them; and an overload of batch sessions:
 * endless prefill in long windows, windows that cannot be cut, and decodes without a pause, which
 * is far more than twice what the worker can do. */
static struct seen run_normal(uint32_t decoders, uint32_t prompts, double rtt_ms, bool overload,
                              uint64_t seed)
{
    static const struct load_client decode = { .tokens = 1, .ahead = 1 };
    struct load_client              normal = decode, batch = decode;
    struct seen                     seen;

    load_init(&w);
    w.seed += seed;
    batch.qos = WIRE_QOS_BATCH;
    normal.pause_ms = rtt_ms;
    load_clients(&w, decoders, normal);
    normal.pause_ms = normal.tokens = 200;
    load_clients(&w, prompts, normal);
    if (overload) {
        load_clients(&w, 16, batch);
        batch.tokens = 40;
        load_clients(&w, 12, batch);
        batch.tokens = 256;
        batch.ahead = 4;
        load_clients(&w, 24, batch);
    }
    settled(20000);
    seen.p50 = load_quantile(&w, 0, decoders, 0.50);
    seen.p99 = load_quantile(&w, 0, decoders, 0.99);
    seen.batch = w.back_ms / (w.back_ms + w.front_ms);
    load_fini(&w);
    return seen;
}

/* Goal:   however much batch sessions want, a normal session's p99 is at most 3 times the p50 that
 *         it has without them, and beside prompts of its own class at most 1.2 times its p99; and
 *         batch sessions still get their share of the compute time.
 * Method: 1 to 16 normal sessions that decode, at several round trips, with and without an
 *         overload of batch sessions. */
static void a_normal_session_stays_fast_under_batch_overload(void **state)
{
    static const struct {
        uint32_t decoders, prompts;
        double   rtt_ms;
    } cases[] = {
        { 1, 0, 0 },   { 1, 0, 1 },   { 1, 0, 20 },  { 8, 0, 0 },   { 8, 0, 5 },  { 8, 0, 20 },
        { 16, 0, 80 }, { 4, 0, 300 }, { 1, 0, 700 }, { 16, 4, 20 }, { 4, 8, 40 },
    };

    (void)state;
    for (size_t n = 0; n < 2 * UNIT_COUNT(cases); n++) {
        uint32_t    decoders = cases[n / 2].decoders, prompts = cases[n / 2].prompts;
        double      rtt_ms = cases[n / 2].rtt_ms;
        struct seen alone = run_normal(decoders, prompts, rtt_ms, false, n % 2);
        struct seen beside = run_normal(decoders, prompts, rtt_ms, true, n % 2);

        if (beside.p99 > (prompts == 0 ? 3 * alone.p50 : 1.2 * alone.p99))
            fail_msg("%u sessions at %.0f ms, MCP_SEED=%" PRIu64
                     ": p50 %.1f ms, p99 %.1f ms; without batch %.1f ms, %.1f ms",
                     decoders, rtt_ms, unit_seed() + n % 2, beside.p50, beside.p99, alone.p50,
                     alone.p99);
        if (beside.batch < 0.95 / 5)
            fail_msg("%u sessions at %.0f ms: batch sessions had %.3f of the time", decoders,
                     rtt_ms, beside.batch);
    }
}

/* Goal:   a decode waits at most for one forward, of a chunk and the decodes.
 * Method: 24 sessions decode, four prefill without end, of the same class; the range and what is
 *         wanted are the same. */
static void a_decode_waits_for_one_chunk_at_most(void **state)
{
    static const double rtts_ms[] = { 0, 1, 5, 20, 60 };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rtts_ms); i++) {
        load_init(&w);
        load_clients(&w, 24,
                     (struct load_client){ .tokens = 4, .ahead = 1, .pause_ms = rtts_ms[i] });
        load_clients(&w, 4, (struct load_client){ .tokens = 512, .ahead = 4 });
        settled(20000);
        no_wait_above(0, 24, load_forward_ms(256 + 24 * 4), "a decoder");
        assert_true(load_served(&w, 24, 28) > 200 * w.forwards);
        load_fini(&w);
    }
}

/* Goal:   with prefill of other layers as well a decode waits for one forward more, within a chunk,
 *         and that prefill goes on. */
static void a_decode_waits_for_one_chunk_of_other_layers_at_most(void **state)
{
    (void)state;
    load_init(&w);
    load_clients(&w, 16, (struct load_client){ .tokens = 1, .ahead = 1, .pause_ms = 20 });
    load_clients(&w, 4, (struct load_client){ .tokens = 500, .ahead = 4, .first = 6 });
    load_clients(&w, 4, (struct load_client){ .tokens = 500, .ahead = 4 });
    settled(20000);
    no_wait_above(0, 16, 2 * load_forward_ms(256 + 16), "a decoder");
    assert_true(load_served(&w, 16, 20) > 80 * w.forwards);
    assert_true(load_served(&w, 20, 24) > 80 * w.forwards);
    load_fini(&w);
}

/* Goal:   equal sessions get the same within 10 %, however they cut their windows.
 * Method: prefill in windows of 64 to 512 positions, some queued far ahead; then decodes of 1 to
 *         16 positions that do not all fit. */
static void equal_sessions_get_the_same(void **state)
{
    static const uint32_t prefills[] = { 64, 100, 127, 128, 200, 256, 300, 512 };
    static const uint32_t decodes[] = { 1, 2, 4, 8, 12, 16 };

    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        uint64_t least = UINT64_MAX, most = 0;

        load_init(&w);
        if (kind == 1)
            w.m.limits.batch_tokens = w.m.limits.chunk_tokens = 64;
        for (uint32_t i = 0; i < 24; i++) {
            uint32_t tokens = kind == 0 ? prefills[i % 8] : decodes[i % 6];

            /* The small ones have to wait as long as the large ones: none pauses. */
            load_clients(&w, kind == 0 ? 1 : 2,
                         (struct load_client){ .tokens = tokens, .ahead = 1 + i % 8 });
        }
        load_run(&w, kind == 0 ? 120000 : 30000);
        for (uint32_t i = 0; i < w.count; i++) {
            /* Whoever asks for one position a forward cannot get more. */
            if (kind == 1 && w.clients[i].tokens < 4)
                continue;
            least = w.clients[i].served < least ? w.clients[i].served : least;
            most = w.clients[i].served > most ? w.clients[i].served : most;
        }
        if ((double)(most - least) > 0.1 * (double)most)
            fail_msg("kind %d: equal sessions had %" PRIu64 " to %" PRIu64 " positions", kind,
                     least, most);
        load_fini(&w);
    }
}

/* Goal:   with everything at once nobody waits for ever, and the higher class is never worse off.
 * Method: each class decodes, prefills and exports, over three layer ranges: 27 kinds of clients,
 *         all of them without end. */
static void nobody_waits_for_ever(void **state)
{
    static const enum wire_qos classes[] = { WIRE_QOS_REALTIME, WIRE_QOS_NORMAL, WIRE_QOS_BATCH };
    double                     longest[3];

    (void)state;
    load_init(&w);
    for (uint32_t i = 0; i < 3; i++)
        for (uint32_t first = 4; first < 7; first++) {
            struct load_client like = { .qos = classes[i], .ahead = 1, .first = first };

            like.tokens = 1;
            like.pause_ms = 10;
            load_clients(&w, 3, like);
            like.tokens = 300;
            load_clients(&w, 3, like);
            like.exclusive = true;
            load_clients(&w, 1, like);
        }
    settled(300000);
    for (uint32_t i = 0; i < 3; i++)
        longest[i] = waited_ms(21 * i, 21 * (i + 1));
    assert_true(longest[0] <= longest[1] && longest[1] <= longest[2]);
    assert_true(longest[2] < 60000); /* a class of weight 1 in 21, nine exports */
    for (uint32_t i = 0; i < w.count; i++)
        assert_true(w.clients[i].samples > 4);
    load_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_normal_session_stays_fast_under_batch_overload),
        cmocka_unit_test(a_decode_waits_for_one_chunk_at_most),
        cmocka_unit_test(a_decode_waits_for_one_chunk_of_other_layers_at_most),
        cmocka_unit_test(equal_sessions_get_the_same),
        cmocka_unit_test(nobody_waits_for_ever),
    };

    return cmocka_run_group_tests_name("worker/fair", tests, NULL, NULL);
}
