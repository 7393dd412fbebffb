/* agent/meter_test.c - a session's traffic over a simulated path, and what is made of it.
 *
 * The path: two directions that carry one message after another at a rate, then half a round trip
 * with a little jitter.  The other end echoes Beats at once and computes windows for 15 ms.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/meter.h"
#include "base/unit_test.h"

#include <math.h>

enum { FRAME_BYTES = 120 };

struct path {
    double   rtt_ms, mbit;
    double   free_ms[PLAN_DIRECTIONS]; /* when the direction can take the next message */
    uint64_t seed;
};

static double noise(struct path *p, double most)
{
    return (double)(unit_next(&p->seed) >> 11) * 0x1p-53 * most;
}

/* When a message that leaves at now_ms is there. */
static double carry(struct path *p, enum plan_direction direction, double bytes, double now_ms)
{
    double *free_ms = &p->free_ms[direction];

    *free_ms = fmax(*free_ms, now_ms) + (bytes + FRAME_BYTES) * 8e-3 / p->mbit;
    return *free_ms + p->rtt_ms / 2.0 + noise(p, 0.5);
}

struct rig {
    struct agent_meter  meter;
    struct meter_stream stream;
    struct wire_pace    pace;
    struct path         path;
    uint64_t            number, bulk_in;
    double              now_ms;
};

static struct rig *rig_new(double rtt_ms, double mbit)
{
    static struct rig r;

    memset(&r, 0, sizeof(r));
    meter_init(&r.meter);
    assert_int_equal(wire_pace_init(&r.pace), MCP_OK);
    r.path = (struct path){ .rtt_ms = rtt_ms, .mbit = mbit, .seed = unit_seed() };
    r.now_ms = 1000.0;
    return &r;
}

static void rig_free(struct rig *r)
{
    wire_pace_fini(&r->pace);
    meter_fini(&r->meter);
}

static struct plan_link_estimate estimate(struct rig *r)
{
    return meter_estimate(&r->meter, true, r->now_ms);
}

static void beat(struct rig *r)
{
    double there, back;

    if (!meter_beat_due(&r->meter, r->now_ms))
        return;
    meter_beat_sent(&r->meter, &r->stream, (uint64_t)(r->now_ms * 1e3), &r->pace, r->now_ms);
    there = carry(&r->path, PLAN_UP, 0, r->now_ms);
    back = carry(&r->path, PLAN_DOWN, 0, there);
    meter_echoed(&r->meter, &r->stream, (uint64_t)(r->now_ms * 1e3), back);
}

/* Plain decoding: a window of so many bytes, 15 ms there, its answer, 12 ms here. */
static void decode(struct rig *r, double for_ms, uint64_t bytes)
{
    double until = r->now_ms + for_ms, rtt_ms;

    while (r->now_ms < until) {
        double there, back;

        r->number++;
        meter_sent(&r->meter, &r->stream, r->number, bytes, &r->pace, r->now_ms);
        there = carry(&r->path, PLAN_UP, (double)bytes, r->now_ms);
        back = carry(&r->path, PLAN_DOWN, (double)bytes, there + 15.0 + noise(&r->path, 0.3));
        r->now_ms = back;
        meter_received(&r->meter, &r->stream, &r->pace, r->bulk_in, false, r->now_ms);
        assert_true(meter_answered(&r->meter, &r->stream, r->number, bytes, 15.0, back, &rtt_ms));
        beat(r);
        r->now_ms += 12.0;
    }
}

static void near(double actual, double expected, double tolerance)
{
    if (fabs(actual - expected) > tolerance * expected)
        fail_msg("%g, expected %g", actual, expected);
}

/* Goal:   in plain decoding of small windows a round trip that doubles is known after 3 s, and
 *         the goodput is not blamed for it; the same for one that halves. */
static void decoding_shows_a_new_round_trip(void **state)
{
    struct rig *r = rig_new(20.0, 100.0);

    (void)state;
    meter_probed_bulk(&r->meter, PLAN_UP, 1 << 20, 84.0, r->now_ms);
    meter_probed_bulk(&r->meter, PLAN_DOWN, 1 << 20, 84.0, r->now_ms);
    decode(r, 5000.0, 4352);
    near(estimate(r).rtt_ms, 20.0, 0.05);
    r->path.rtt_ms = 40.0;
    for (int i = 0; i < 12; i++) { /* also on the way there */
        decode(r, 250.0, 4352);
        near(estimate(r).mbit[PLAN_UP], 100.0, 0.01);
    }
    near(estimate(r).rtt_ms, 40.0, 0.05);
    r->path.rtt_ms = 20.0;
    decode(r, 3000.0, 4352);
    near(estimate(r).rtt_ms, 20.0, 0.05);
    rig_free(r);
}

/* Goal:   a rate that falls to a tenth is known after 3 s of plain decoding, without any bulk.
 * Method: hidden states of 8 KiB (a 7B model in f16), 4.3 KiB (in q8r), and of eight rows. */
static void decoding_shows_a_rate_that_falls(void **state)
{
    static const uint64_t bytes[] = { 8192, 4352, 8 * 4352 };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(bytes); i++) {
        struct rig *r = rig_new(20.0, 100.0);

        meter_probed_bulk(&r->meter, PLAN_UP, 1 << 20, 84.0, r->now_ms);
        meter_probed_bulk(&r->meter, PLAN_DOWN, 1 << 20, 84.0, r->now_ms);
        decode(r, 5000.0, bytes[i]);
        near(estimate(r).mbit[PLAN_DOWN], 100.0, 0.01);
        r->path.mbit = 10.0;
        decode(r, 3000.0, bytes[i]);
        near(estimate(r).mbit[PLAN_UP], 10.0, 0.15);
        near(estimate(r).mbit[PLAN_DOWN], 10.0, 0.15);
        near(estimate(r).rtt_ms, 20.0, 0.1);
        rig_free(r);
    }
}

/* A payload of bulk arrives in parts; the last one's time. */
static void arrive(struct rig *r, double from_ms, uint64_t bytes)
{
    for (uint64_t left = bytes; left > 0;) {
        uint64_t part = left < WIRE_PART_BYTES ? left : WIRE_PART_BYTES;

        left -= part;
        r->bulk_in += part;
        r->now_ms = carry(&r->path, PLAN_DOWN, (double)part, from_ms);
        meter_received(&r->meter, &r->stream, &r->pace, r->bulk_in, left > 0, r->now_ms);
    }
}

/* Goal:   results of prefill that arrive one behind the other tell the rate down, and its fall
 *         within 3 s; those with pauses between them do not pull it down. */
static void arriving_bulk_shows_the_rate_down(void **state)
{
    struct rig *r = rig_new(20.0, 100.0);

    (void)state;
    for (int i = 0; i < 20; i++)
        arrive(r, 1000.0, 278528);
    near(estimate(r).mbit[PLAN_DOWN], 100.0, 0.05);
    for (int i = 0; i < 20; i++) /* two parts a second */
        arrive(r, r->now_ms + 500.0, WIRE_PART_BYTES);
    near(estimate(r).mbit[PLAN_DOWN], 100.0, 0.05);
    r->path.mbit = 10.0;
    for (double until = r->now_ms + 3000.0, from = r->now_ms; r->now_ms < until;)
        arrive(r, from, 278528);
    near(estimate(r).mbit[PLAN_DOWN], 10.0, 0.05);
    assert_true(estimate(r).mbit[PLAN_UP] == 0.0);
    rig_free(r);
}

/* Goal:   the first part of a run does not count: the pause before it is the sender's.
 * Method: payloads of nine parts at 100 Mbit/s, 300 ms apart: the mean would be 7 Mbit/s. */
static void pauses_of_the_sender_are_not_the_path(void **state)
{
    struct rig *r = rig_new(20.0, 100.0);

    (void)state;
    for (int i = 0; i < 10; i++)
        arrive(r, r->now_ms + 300.0, 9 * WIRE_PART_BYTES);
    near(estimate(r).mbit[PLAN_DOWN], 100.0, 0.05);
    rig_free(r);
}

/* Prefill: bulk up as the pace allows, always more to send, for_ms long. */
static void prefill(struct rig *r, double for_ms)
{
    enum { FLIGHT_MAX = 4096 };
    static double acks[FLIGHT_MAX], stamps[FLIGHT_MAX];
    uint64_t      sent = 0, acked = 0;
    double        until = r->now_ms + for_ms;

    while (r->now_ms < until || acked < sent) {
        while (r->now_ms < until && wire_pace_may_send(&r->pace, r->now_ms, WIRE_PART_BYTES)) {
            double there = carry(&r->path, PLAN_UP, WIRE_PART_BYTES, r->now_ms);

            wire_pace_sent(&r->pace, r->now_ms, WIRE_PART_BYTES);
            stamps[sent % FLIGHT_MAX] = there;
            acks[sent % FLIGHT_MAX] = carry(&r->path, PLAN_DOWN, 0, there);
            sent++;
        }
        r->now_ms = acks[acked % FLIGHT_MAX];
        wire_pace_acked(&r->pace, r->now_ms, WIRE_PART_BYTES,
                        (uint64_t)(stamps[acked % FLIGHT_MAX] * 1e3));
        acked++;
        meter_received(&r->meter, &r->stream, &r->pace, r->bulk_in, false, r->now_ms);
    }
}

/* Goal:   acknowledged bulk tells the rate up; a fall to a tenth within 3 s. */
static void acknowledged_bulk_shows_the_rate_up(void **state)
{
    struct rig *r = rig_new(20.0, 100.0);

    (void)state;
    prefill(r, 3000.0);
    near(estimate(r).mbit[PLAN_UP], 100.0, 0.05);
    r->path.mbit = 10.0;
    prefill(r, 3000.0);
    near(estimate(r).mbit[PLAN_UP], 10.0, 0.1);
    r->path.mbit = 100.0;
    prefill(r, 3000.0);
    near(estimate(r).mbit[PLAN_UP], 100.0, 0.1);
    rig_free(r);
}

/* Goal:   windows that wait behind bulk say nothing of the round trip. */
static void windows_behind_bulk_do_not_count(void **state)
{
    struct rig *r = rig_new(20.0, 100.0);
    double      rtt_ms;

    (void)state;
    decode(r, 3000.0, 1024);
    for (int i = 0; i < 50; i++) {
        wire_pace_sent(&r->pace, r->now_ms, WIRE_PART_BYTES);
        meter_sent(&r->meter, &r->stream, ++r->number, 512, &r->pace, r->now_ms);
        assert_true(meter_answered(&r->meter, &r->stream, r->number, 512, 15.0, r->now_ms + 200.0,
                                   &rtt_ms));
        near(rtt_ms, 185.0, 1e-9); /* whoever watches for silence wants to know */
        wire_pace_acked(&r->pace, r->now_ms, WIRE_PART_BYTES, 0);
        meter_sent(&r->meter, &r->stream, ++r->number, 512, &r->pace, r->now_ms);
        r->bulk_in += 100; /* the answer comes behind bulk */
        meter_received(&r->meter, &r->stream, &r->pace, r->bulk_in, true, r->now_ms + 100.0);
        (void)meter_answered(&r->meter, &r->stream, r->number, 512, 15.0, r->now_ms + 200.0,
                             &rtt_ms);
        r->now_ms += 250.0;
    }
    near(estimate(r).rtt_ms, 20.0, 0.05);
    assert_false(meter_answered(&r->meter, &r->stream, r->number, 512, 15.0, r->now_ms, &rtt_ms));
    assert_false(meter_answered(&r->meter, &r->stream, 9999, 512, 15.0, r->now_ms, &rtt_ms));
    rig_free(r);
}

/* Goal:   an idle link is probed when somebody asked, once, with bounded bytes, and not while a
 *         session uses it; what is known sets the size. */
static void probes_are_rare_bounded_and_asked_for(void **state)
{
    struct rig *r = rig_new(20.0, 100.0);
    uint64_t    bytes[PLAN_DIRECTIONS];

    (void)state;
    meter_probe(&r->meter, r->now_ms, bytes);
    assert_true(bytes[PLAN_UP] == 0 && bytes[PLAN_DOWN] == 0); /* nobody asked */
    estimate(r);
    meter_probe(&r->meter, r->now_ms, bytes);
    assert_true(bytes[PLAN_UP] == METER_PROBE_BYTES && bytes[PLAN_DOWN] == METER_PROBE_BYTES);
    meter_probe(&r->meter, r->now_ms, bytes);
    assert_true(bytes[PLAN_UP] == 0 && bytes[PLAN_DOWN] == 0); /* answered already */
    meter_probed_bulk(&r->meter, PLAN_UP, METER_PROBE_BYTES, 21.0, r->now_ms);
    meter_probed_bulk(&r->meter, PLAN_DOWN, METER_PROBE_BYTES, 0.2, r->now_ms);
    r->now_ms += 10000.0;
    estimate(r);
    meter_probe(&r->meter, r->now_ms, bytes);
    assert_true(bytes[PLAN_UP] == 0 && bytes[PLAN_DOWN] == 0); /* fresh enough */
    r->now_ms += 10000.0;
    decode(r, 200.0, 1024);
    estimate(r);
    meter_probe(&r->meter, r->now_ms + METER_IDLE_MS - 100.0, bytes);
    assert_true(bytes[PLAN_UP] == 0 && bytes[PLAN_DOWN] == 0); /* a session was at work */
    meter_probe(&r->meter, r->now_ms + METER_IDLE_MS, bytes);
    near((double)bytes[PLAN_UP], 100.0 * 125 * METER_PROBE_MS, 0.02);
    assert_true(bytes[PLAN_DOWN] == METER_PROBE_BYTES_MAX);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoding_shows_a_new_round_trip),
        cmocka_unit_test(decoding_shows_a_rate_that_falls),
        cmocka_unit_test(arriving_bulk_shows_the_rate_down),
        cmocka_unit_test(pauses_of_the_sender_are_not_the_path),
        cmocka_unit_test(acknowledged_bulk_shows_the_rate_up),
        cmocka_unit_test(windows_behind_bulk_do_not_count),
        cmocka_unit_test(probes_are_rare_bounded_and_asked_for),
    };

    return cmocka_run_group_tests_name("agent/meter", tests, NULL, NULL);
}
