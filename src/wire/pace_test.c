/* wire/pace_test.c - the pace against simulated links, in virtual time.
 *
 * A link is a queue served at a rate, a delay each way, and perhaps jitter and a receiver that
 * gathers its acknowledgements.  The sender always has something to send.  What is measured is
 * what users see: the share of the rate that arrives, and how long a decode frame would wait
 * behind the bulk at the link's entrance.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/pace.h"

#include "base/starve_test.h"

#include <math.h>

enum { FLIGHT_MAX = 1 << 12 }; /* parts: WIRE_CREDIT_MAX is 2048 of them */

static const double RATES[] = { 5, 20, 100, 1000 }; /* Mbit/s */
static const double RTTS[] = { 1, 5, 20, 80, 200 }; /* ms */

#define SHARE_LEAST  0.9
#define QUEUE_MOST   0.35 /* of the RTT, beside one part */
#define RATE_ERROR   0.07
#define QUEUE_JITTER 1.0 /* where the delay varies by as much as the RTT */

struct link {
    double mbit, rtt_ms;
    double jitter_ms;    /* each way, at most; nothing overtakes */
    double ack_every_ms; /* 0: at once */
    bool   stamped;      /* acknowledgements carry stamps, and the sender has a timer */
    /* From change_ms on the rate and the RTT are so many times what they were; until back_ms. */
    double change_ms, back_ms;
    double rate_factor, rtt_factor;
};

/* From..to, in ms: when the estimate should be right. */
struct span {
    double from, to;
    double share;    /* of the rate, at least; 0: SHARE_LEAST */
    double bytes;    /* acknowledged in it */
    double waits_ms; /* sum, of what would be sent beside each part */
    double parts;
};

static bool changed(const struct link *l, double now_ms)
{
    return l->change_ms > 0 && now_ms >= l->change_ms && now_ms < l->back_ms;
}

static double link_rate(const struct link *l, double now_ms) /* bytes/ms */
{
    return l->mbit * 125 * (changed(l, now_ms) ? l->rate_factor : 1);
}

static double link_rtt(const struct link *l, double now_ms)
{
    return l->rtt_ms * (changed(l, now_ms) ? l->rtt_factor : 1);
}

/* The receiver's clock runs since another day. */
static uint64_t stamp_us(const struct link *l, double at_ms)
{
    return l->stamped ? (uint64_t)((at_ms + 86400e3) * 1e3) : 0;
}

static double jitter(const struct link *l, uint64_t *seed)
{
    return l->jitter_ms * unit_below(seed, 1 << 20) / (1 << 20);
}

/* On its way back. */
struct ack {
    double   ms; /* when it will be here */
    uint64_t stamp_us;
};

/* Send without end until `until_ms`; fills the sums of the spans. */
static void link_run(const struct link *l, struct wire_pace *p, double until_ms, struct span *spans,
                     size_t count)
{
    static struct ack acks[FLIGHT_MAX]; /* of each part in flight; a ring */
    size_t            first = 0, flight = 0;
    double            now = 0, free_ms = 0, arrival = 0, ack = 0;
    uint64_t          seed = unit_seed();

    while (now < until_ms) {
        while (wire_pace_may_send(p, now, WIRE_PART_BYTES)) {
            double begin = fmax(now, free_ms);

            for (size_t i = 0; i < count; i++) {
                if (now >= spans[i].from && now < spans[i].to) {
                    spans[i].waits_ms += begin - now;
                    spans[i].parts++;
                }
            }
            free_ms = begin + WIRE_PART_BYTES / link_rate(l, begin);
            arrival = fmax(arrival, free_ms + link_rtt(l, begin) / 2 + jitter(l, &seed));
            ack = fmax(ack, (l->ack_every_ms > 0 ? ceil(arrival / l->ack_every_ms) * l->ack_every_ms
                                                 : arrival) +
                                link_rtt(l, begin) / 2 + jitter(l, &seed));
            assert_true(flight < FLIGHT_MAX);
            acks[(first + flight++) % FLIGHT_MAX] = (struct ack){ ack, stamp_us(l, arrival) };
            wire_pace_sent(p, now, WIRE_PART_BYTES);
        }
        assert_true(flight > 0);
        now = fmin(acks[first].ms, wire_pace_due_ms(p, WIRE_PART_BYTES));
        if (now < acks[first].ms)
            continue;
        wire_pace_acked(p, now, WIRE_PART_BYTES, acks[first].stamp_us);
        first = (first + 1) % FLIGHT_MAX;
        flight--;
        for (size_t i = 0; i < count; i++)
            if (now >= spans[i].from && now < spans[i].to)
                spans[i].bytes += WIRE_PART_BYTES;
    }
}

/* In each span the link was used, to its own share, and its queue short. */
static void spans_check(const struct link *l, const struct wire_pace *p, const struct span *spans,
                        size_t count, double queue_most, const char *what)
{
    for (size_t i = 0; i < count; i++) {
        const double at = spans[i].from, rate = link_rate(l, at);
        const double share = spans[i].bytes / (rate * (spans[i].to - spans[i].from));
        const double wait = spans[i].waits_ms / spans[i].parts;
        const double rtt = link_rtt(l, at) + 2 * l->jitter_ms + l->ack_every_ms; /* at most */
        const double bound = queue_most * rtt + WIRE_PART_BYTES / rate;

        const double least = spans[i].share > 0 ? spans[i].share : SHARE_LEAST;

        if (share < least || wait > bound)
            fail_msg(
                "%s, %g Mbit/s, RTT %g ms, jitter %g ms, acks every %g ms%s, from %g to %g ms: "
                "%.3f of the rate, a frame waits %.2f ms (at most %.2f); estimates at the "
                "end: %.2f Mbit/s, RTT %.2f ms, credit %" PRIu64 " KiB; MCP_SEED=%" PRIu64,
                what, l->mbit, l->rtt_ms, l->jitter_ms, l->ack_every_ms,
                l->stamped ? ", stamped" : "", spans[i].from, spans[i].to, share, wait, bound,
                wire_pace_goodput_mbit(p), p->rtt_min_ms, p->credit_bytes / 1024, unit_seed());
    }
}

static void link_check(const struct link *l, double until_ms, struct span *spans, size_t count,
                       double queue_most, const char *what)
{
    struct wire_pace p;

    assert_int_equal(wire_pace_init(&p), MCP_OK);
    p.clocked = l->stamped;
    link_run(l, &p, until_ms, spans, count);
    spans_check(l, &p, spans, count, queue_most, what);
    if (l->jitter_ms == 0 && fabs(wire_pace_goodput_mbit(&p) / l->mbit - 1) > RATE_ERROR)
        fail_msg("%s, %g Mbit/s, RTT %g ms, acks every %g ms: estimated are %.2f Mbit/s", what,
                 l->mbit, l->rtt_ms, l->ack_every_ms, wire_pace_goodput_mbit(&p));
    wire_pace_fini(&p);
}

/* When a link's start is over: a second, and twenty round trips (seven to grow from 256 KiB to
 * 1 Gbit/s at 200 ms, three to see that there is no more, a PROBE). */
static double started_ms(const struct link *l)
{
    return 1000 + 20 * l->rtt_ms;
}

/* Goal:   after its start each link is used to 90 % and its queue is a third of an RTT.
 * Method: four rates x five RTTs, steady, with jitter, with gathered acknowledgements, each
 *         with and without stamps and a timer; long enough for the RTT to be measured again. */
static void links_are_full_and_their_queues_short(void **state)
{
    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(RATES) * UNIT_COUNT(RTTS) * 6; i++) {
        struct link l = { .mbit = RATES[i / 6 % UNIT_COUNT(RATES)],
                          .rtt_ms = RTTS[i / 6 / UNIT_COUNT(RATES)],
                          .stamped = i % 2 == 1 };
        struct span s = { .from = started_ms(&l), .to = 18000 };

        if (i % 6 / 2 == 1)
            l.jitter_ms = l.rtt_ms / 10;
        if (i % 6 / 2 == 2)
            l.ack_every_ms = fmin(l.rtt_ms / 5, 5);
        link_check(&l, s.to, &s, 1, QUEUE_MOST, "steady link");
    }
}

/* Goal:   a link whose delay varies by as much as its RTT is used all the same: a pace that
 *         takes the smallest RTT for the usual one allows less each round. */
static void jitter_does_not_starve_a_link(void **state)
{
    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(RATES) * UNIT_COUNT(RTTS) * 2; i++) {
        struct link l = { .mbit = RATES[i / 2 % UNIT_COUNT(RATES)],
                          .rtt_ms = RTTS[i / 2 / UNIT_COUNT(RATES)],
                          .stamped = i % 2 == 1 };
        struct span s = { .from = 12000, .to = 30000 };

        l.jitter_ms = l.rtt_ms / 2;
        link_check(&l, s.to, &s, 1, QUEUE_JITTER, "jitter");
    }
}

/* Goal:   a rate that falls to a tenth is followed within 3 s, and so is its return.  Where the
 *         slow link needs longer than 2 s for what lay in it, a second after that. */
static void a_changed_rate_is_followed(void **state)
{
    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(RATES) * UNIT_COUNT(RTTS) * 2; i++) {
        struct link  l = { .mbit = RATES[i / 2 % UNIT_COUNT(RATES)],
                           .rtt_ms = RTTS[i / 2 / UNIT_COUNT(RATES)],
                           .stamped = i % 2 == 1,
                           .change_ms = 7000,
                           .back_ms = 18000,
                           .rate_factor = 0.1,
                           .rtt_factor = 1 };
        const double flight = 1.25 * (l.mbit * 125 * l.rtt_ms + WIRE_PART_BYTES);
        const double empty_ms = flight / (l.mbit * 12.5) + l.rtt_ms;
        struct span  s[] = { { .from = started_ms(&l), .to = l.change_ms - l.rtt_ms - 300 },
                             { .from = l.change_ms + fmax(3000, empty_ms + 1000), .to = l.back_ms },
                             { .from = l.back_ms + 3000, .to = l.back_ms + 7000 } };

        link_check(&l, s[2].to, s, UNIT_COUNT(s), QUEUE_MOST, "rate to a tenth and back");
    }
}

/* Goal:   an RTT that doubles is followed within 3 s; one that returns is found when the RTT is
 *         measured again, after 10 s.  With stamps the way back's half of it looks like a wait
 *         until then, which the credit makes up for but for a fifth. */
static void a_changed_rtt_is_followed(void **state)
{
    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(RATES) * UNIT_COUNT(RTTS) * 2; i++) {
        struct link l = { .mbit = RATES[i / 2 % UNIT_COUNT(RATES)],
                          .rtt_ms = RTTS[i / 2 / UNIT_COUNT(RATES)],
                          .stamped = i % 2 == 1,
                          .change_ms = 7000,
                          .back_ms = 18000,
                          .rate_factor = 1,
                          .rtt_factor = 2 };
        struct span s[] = {
            { .from = started_ms(&l), .to = l.change_ms },
            { .from = l.change_ms + 3000, .to = l.back_ms, .share = l.stamped ? 0.8 : SHARE_LEAST },
            { .from = l.back_ms + 10500 + 10 * l.rtt_ms, .to = 38000 }
        };

        link_check(&l, s[2].to, s, UNIT_COUNT(s), QUEUE_MOST, "RTT doubled and back");
    }
}

/* Goal:   the start takes few round trips: 90 % of 1 Gbit/s at 80 ms, which is 38 times the
 *         first credit, is there after ten. */
static void the_start_doubles_each_round(void **state)
{
    struct wire_pace p;

    (void)state;
    for (int stamped = 0; stamped < 2; stamped++) {
        struct link l = { .mbit = 1000, .rtt_ms = 80, .stamped = stamped == 1 };

        assert_int_equal(wire_pace_init(&p), MCP_OK);
        assert_int_equal(p.credit_bytes, WIRE_CREDIT_FIRST);
        p.clocked = l.stamped;
        link_run(&l, &p, 10 * l.rtt_ms, NULL, 0);
        if (wire_pace_goodput_mbit(&p) < 900)
            fail_msg("after ten round trips %.0f Mbit/s", wire_pace_goodput_mbit(&p));
        wire_pace_fini(&p);
    }
}

/* ---- without a simulated link ------------------------------------------------------------- */

/* Goal:   an application with little to send does not look like a slow link.
 * Method: a full link, then four parts every 100 ms for a minute. */
static void an_idle_application_is_not_a_slow_link(void **state)
{
    struct link      l = { .mbit = 100, .rtt_ms = 20 };
    struct wire_pace p;
    double           before;

    (void)state;
    assert_int_equal(wire_pace_init(&p), MCP_OK);
    link_run(&l, &p, 5000, NULL, 0);
    wire_pace_acked(&p, 5040, p.sent_bytes - p.acked_bytes, 0);
    before = p.rate_bytes_per_ms;
    for (int now = 6000; now < 66000; now += 100) {
        for (int i = 0; i < 4; i++)
            wire_pace_sent(&p, now, WIRE_PART_BYTES);
        for (int i = 1; i <= 4; i++)
            wire_pace_acked(&p, now + 20 + 2.6 * i, WIRE_PART_BYTES, 0);
    }
    assert_true(p.rate_bytes_per_ms >= 0.99 * before);
    assert_true((double)p.credit_bytes >= before * l.rtt_ms);
    /* Some rounds at half the rate, which is all that the credit allows: the others are left. */
    for (int i = 0; i < 4; i++)
        wire_pace_sent(&p, 66000, WIRE_PART_BYTES);
    for (int now = 66020; now < 66100; now += 5) {
        p.credit_bytes = 4 * WIRE_PART_BYTES;
        wire_pace_acked(&p, now, WIRE_PART_BYTES, 0);
        p.credit_bytes = 4 * WIRE_PART_BYTES;
        wire_pace_sent(&p, now, WIRE_PART_BYTES);
    }
    assert_true(p.rate_bytes_per_ms >= 0.99 * before);
    wire_pace_fini(&p);
}

/* Goal:   a longer path under such an application is taken for what it is.
 * Method: the same, with an RTT of 60 instead of 20 ms. */
static void an_idle_application_on_a_longer_path_keeps_its_rate(void **state)
{
    struct link      l = { .mbit = 100, .rtt_ms = 20 };
    struct wire_pace p;
    double           before;

    (void)state;
    assert_int_equal(wire_pace_init(&p), MCP_OK);
    link_run(&l, &p, 5000, NULL, 0);
    wire_pace_acked(&p, 5040, p.sent_bytes - p.acked_bytes, 0);
    before = p.rate_bytes_per_ms;
    for (int now = 6000; now < 16000; now += 1000) {
        wire_pace_sent(&p, now, WIRE_PART_BYTES);
        wire_pace_acked(&p, now + 62.6, WIRE_PART_BYTES, 0);
    }
    assert_true(p.rate_bytes_per_ms >= 0.99 * before);
    assert_true((double)p.credit_bytes >= before * 60);
    wire_pace_fini(&p);
}

/* Goal:   one part may always leave when nothing is on its way, and never more than the credit. */
static void a_single_part_may_always_leave(void **state)
{
    struct wire_pace p;

    (void)state;
    assert_int_equal(wire_pace_init(&p), MCP_OK);
    assert_true(wire_pace_may_send(&p, 100, (uint64_t)1 << 40));
    wire_pace_sent(&p, 0, WIRE_CREDIT_FIRST - 100);
    assert_true(wire_pace_may_send(&p, 100, 100));
    assert_false(wire_pace_may_send(&p, 100, 101));
    p.credit_bytes = 0;
    wire_pace_acked(&p, 10, WIRE_CREDIT_FIRST - 101, 0);
    assert_false(wire_pace_may_send(&p, 100, 1));
    wire_pace_acked(&p, 11, 1, 0);
    assert_true(wire_pace_may_send(&p, 100, WIRE_PART_BYTES));
    wire_pace_fini(&p);
}

/* Goal:   a peer that acknowledges what was never sent, all at once or again, gains nothing. */
static void acknowledgements_of_more_than_was_sent_are_ignored(void **state)
{
    struct wire_pace p;

    (void)state;
    assert_int_equal(wire_pace_init(&p), MCP_OK);
    wire_pace_acked(&p, 1, UINT64_MAX, 0);
    assert_int_equal(p.acked_bytes, 0);
    for (int i = 0; i < 8; i++)
        wire_pace_sent(&p, 2, WIRE_PART_BYTES);
    wire_pace_acked(&p, 3, UINT64_MAX, 0);
    assert_int_equal(p.acked_bytes, 8 * WIRE_PART_BYTES);
    wire_pace_acked(&p, 3, WIRE_PART_BYTES, 0);
    assert_int_equal(p.acked_bytes, p.sent_bytes);
    wire_pace_sent(&p, 4, WIRE_PART_BYTES);
    wire_pace_acked(&p, 4, WIRE_PART_BYTES, 0); /* in no time at all */
    wire_pace_acked(&p, 2, 0, 0);               /* a clock that went back */
    assert_true(isfinite(p.rate_bytes_per_ms));
    assert_true(p.credit_bytes <= WIRE_CREDIT_MAX);
    wire_pace_fini(&p);
}

/* Goal:   the bytes of a stream that ended make room, and a late answer to them adds none. */
static void forgotten_bytes_count_no_longer(void **state)
{
    struct wire_pace p;

    (void)state;
    assert_int_equal(wire_pace_init(&p), MCP_OK);
    for (int i = 0; i < 8; i++)
        wire_pace_sent(&p, 0, WIRE_PART_BYTES);
    assert_false(wire_pace_may_send(&p, 100, WIRE_PART_BYTES));
    wire_pace_forget(&p, 3 * WIRE_PART_BYTES);
    assert_true(wire_pace_may_send(&p, 100, 3 * WIRE_PART_BYTES));
    assert_false(wire_pace_may_send(&p, 100, 3 * WIRE_PART_BYTES + 1));
    wire_pace_acked(&p, 20, 8 * WIRE_PART_BYTES, 0);
    assert_int_equal(p.acked_bytes, 5 * WIRE_PART_BYTES);
    wire_pace_forget(&p, UINT64_MAX);
    wire_pace_sent(&p, 30, WIRE_PART_BYTES);
    wire_pace_forget(&p, UINT64_MAX);
    assert_true(wire_pace_may_send(&p, 100, (uint64_t)1 << 40));
    wire_pace_fini(&p);
}

/* Goal:   more parts in flight than there are records share one, and nothing is lost. */
static void more_parts_than_records_share_one(void **state)
{
    enum { PARTS = 2 * WIRE_PACE_SENT_MAX + 7, BYTES = 1000 };
    struct wire_pace p;

    (void)state;
    assert_int_equal(wire_pace_init(&p), MCP_OK);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < PARTS; i++)
            wire_pace_sent(&p, 100 * round + i * 1e-3, BYTES);
        for (int i = 0; i < PARTS; i++)
            wire_pace_acked(&p, 100 * round + 20 + i * 1e-3, BYTES, 0);
        assert_int_equal(p.acked_bytes, p.sent_bytes);
    }
    assert_int_equal(p.sent_bytes, (uint64_t)3 * PARTS * BYTES);
    assert_true(p.rate_bytes_per_ms > 0.1 * BYTES * 1000 &&
                p.rate_bytes_per_ms < 2.0 * BYTES * 1000);
    wire_pace_fini(&p);
}

/* Goal:   a round trip measured elsewhere is known at once, the smallest of ten seconds stays,
 *         and an old one goes. */
static void the_smallest_round_trip_of_ten_seconds_is_known(void **state)
{
    struct wire_pace p;

    (void)state;
    assert_int_equal(wire_pace_init(&p), MCP_OK);
    assert_true(p.rtt_min_ms == 0);
    wire_pace_rtt(&p, 0, 30);
    assert_true(p.rtt_min_ms == 30);
    wire_pace_rtt(&p, 1, 20);
    wire_pace_rtt(&p, 2, 25);
    wire_pace_rtt(&p, 3, 0);
    wire_pace_rtt(&p, 4, -5);
    assert_true(p.rtt_min_ms == 20);
    for (int now = 0; now <= 9500; now += 500)
        wire_pace_rtt(&p, now, 40);
    assert_true(p.rtt_min_ms == 20);
    for (int now = 10000; now <= 22000; now += 500)
        wire_pace_rtt(&p, now, 40);
    assert_true(p.rtt_min_ms == 40);
    wire_pace_rtt(&p, 60000, 50);
    assert_true(p.rtt_min_ms == 50);
    wire_pace_fini(&p);
}

/* Goal:   without memory there is no pace, and nothing to give back. */
static void without_memory_there_is_no_pace(void **state)
{
    struct wire_pace p;
    int              rc;

    (void)state;
    starve_arm(1, false);
    rc = wire_pace_init(&p);
    wire_pace_fini(&p);
    assert_int_equal(starve_disarm(), 1);
    assert_int_equal(rc, MCP_ENOMEM);
    wire_pace_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(links_are_full_and_their_queues_short),
        cmocka_unit_test(jitter_does_not_starve_a_link),
        cmocka_unit_test(a_changed_rate_is_followed),
        cmocka_unit_test(a_changed_rtt_is_followed),
        cmocka_unit_test(the_start_doubles_each_round),
        cmocka_unit_test(an_idle_application_is_not_a_slow_link),
        cmocka_unit_test(an_idle_application_on_a_longer_path_keeps_its_rate),
        cmocka_unit_test(a_single_part_may_always_leave),
        cmocka_unit_test(acknowledgements_of_more_than_was_sent_are_ignored),
        cmocka_unit_test(forgotten_bytes_count_no_longer),
        cmocka_unit_test(more_parts_than_records_share_one),
        cmocka_unit_test(the_smallest_round_trip_of_ten_seconds_is_known),
        cmocka_unit_test(without_memory_there_is_no_pace),
    };

    return cmocka_run_group_tests_name("wire/pace", tests, NULL, NULL);
}
