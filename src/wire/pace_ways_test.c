/* wire/pace_ways_test.c - two paces on one simulated link, bulk both ways, in virtual time.
 *
 * Each way is a queue served at a rate, and a delay; acknowledgements and decode frames wait in it
 * behind the bulk of their way.  One decode frame at a time goes to the far end and comes back.
 * The near end always has bulk to send; the far end has, too, or it answers windows.  The ends
 * have clocks of their own, timers with a grain, and are at times too busy to look.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/pace.h"

#include "base/unit_test.h"

#include <math.h>

enum {
    RING = 1 << 13, /* messages on one way: WIRE_CREDIT_MAX in parts, and their Acks */
    FRAMES_MAX = 1 << 16,
    FRAME_BYTES = 2304,
    ACK_BYTES = 60,
    WINDOW_PARTS = 16,
    NEAR = 0,
    FAR = 1,
};

#define TIMER_GRAIN_MS 1.0
#define EPOCH_MS       86400e3 /* the far end's clock is a day ahead of ours */

enum kind { PART, ACK, FRAME };

struct message {
    enum kind kind;
    double    at_ms; /* it will be there */
    uint64_t  bytes; /* ACK: received so far */
    uint64_t  stamp_us;
};

struct link {
    double mbit, rtt_ms;
    double jitter_ms; /* each way, at most; nothing overtakes */
    double stall_ms;  /* at most; after one message in 500 */
    double drift;     /* of the far clock */
    bool   windows;   /* the far end sends as much as has come, by windows, */
    bool   one_way;   /* or nothing */
    bool   no_stamps;
};

/* An end, and the way from it to the other. */
struct end {
    struct wire_pace pace;
    uint64_t         parts; /* that it could send */
    uint64_t         received, acked;
    double           due_ms; /* its timer; INFINITY = not set */

    struct message way[RING];
    size_t         first, count;
    double         free_ms, last_ms; /* of the queue; of what was sent last */
};

static struct world {
    struct link l;
    struct end  ends[2];
    double      now_ms, sent_ms; /* of the decode frame */
    uint64_t    seed;
    double      frame_ms[FRAMES_MAX];
    size_t      frames;
} w;

static double random_ms(double most)
{
    return most * unit_below(&w.seed, 1 << 20) / (1 << 20);
}

static void put(struct end *e, struct message m, double bytes)
{
    e->free_ms = fmax(w.now_ms, e->free_ms) + bytes / (w.l.mbit * 125);
    e->last_ms = fmax(e->last_ms, e->free_ms + w.l.rtt_ms / 2 + random_ms(w.l.jitter_ms));
    m.at_ms = e->last_ms;
    assert_true(e->count < RING);
    e->way[(e->first + e->count++) % RING] = m;
}

static uint64_t stamp_us(int end)
{
    const double ms = end == NEAR ? w.now_ms + 1 : EPOCH_MS + w.now_ms * (1 + w.l.drift);

    return w.l.no_stamps ? 0 : (uint64_t)(ms * 1e3);
}

static void pump(struct end *e)
{
    while (e->parts > 0 && wire_pace_may_send(&e->pace, w.now_ms, WIRE_PART_BYTES)) {
        e->parts--;
        wire_pace_sent(&e->pace, w.now_ms, WIRE_PART_BYTES);
        put(e, (struct message){ .kind = PART }, WIRE_PART_BYTES);
    }
    e->due_ms = e->parts > 0 ? wire_pace_due_ms(&e->pace, WIRE_PART_BYTES) : INFINITY;
    if (e->due_ms < INFINITY)
        e->due_ms = ceil(e->due_ms / TIMER_GRAIN_MS) * TIMER_GRAIN_MS;
}

static void take_part(int end)
{
    struct end *e = &w.ends[end];

    e->received += WIRE_PART_BYTES;
    if (w.l.windows && end == FAR && e->received % (WINDOW_PARTS * WIRE_PART_BYTES) == 0)
        e->parts += WINDOW_PARTS;
    put(e, (struct message){ .kind = ACK, .bytes = e->received, .stamp_us = stamp_us(end) },
        ACK_BYTES);
}

static void take_frame(int end)
{
    if (end == NEAR) {
        assert_true(w.frames < FRAMES_MAX);
        w.frame_ms[w.frames++] = w.now_ms - w.sent_ms;
        w.sent_ms = w.now_ms;
    }
    put(&w.ends[end], (struct message){ .kind = FRAME }, FRAME_BYTES);
}

static void take(int end, const struct message *m)
{
    struct end *e = &w.ends[end];

    if (w.l.stall_ms > 0 && unit_below(&w.seed, 500) == 0)
        w.now_ms += random_ms(w.l.stall_ms);
    switch (m->kind) {
    case PART: take_part(end); break;
    case FRAME: take_frame(end); break;
    case ACK:
        wire_pace_acked(&e->pace, w.now_ms, m->bytes - e->acked, m->stamp_us);
        e->acked = m->bytes;
        break;
    }
    pump(e);
}

static double next_ms(const struct end *e)
{
    return e->count > 0 ? e->way[e->first].at_ms : INFINITY;
}

/* What happens first: a message there, or a timer. */
static void step(void)
{
    const int      from = next_ms(&w.ends[NEAR]) <= next_ms(&w.ends[FAR]) ? NEAR : FAR;
    const int      late = w.ends[NEAR].due_ms <= w.ends[FAR].due_ms ? NEAR : FAR;
    struct end    *e = &w.ends[from];
    const double   due_ms = w.ends[late].due_ms, at_ms = next_ms(e);
    struct message m;

    w.now_ms = fmax(w.now_ms, fmin(due_ms, at_ms));
    if (due_ms < at_ms) {
        pump(&w.ends[late]);
        return;
    }
    m = e->way[e->first];
    e->first = (e->first + 1) % RING;
    e->count--;
    take(1 - from, &m);
}

static void world_open(const struct link *l)
{
    memset(&w, 0, sizeof(w));
    w.l = *l;
    w.seed = unit_seed();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(wire_pace_init(&w.ends[i].pace), MCP_OK);
        w.ends[i].pace.clocked = true;
    }
    w.ends[NEAR].parts = UINT64_MAX;
    w.ends[FAR].parts = l->windows || l->one_way ? 0 : UINT64_MAX;
    put(&w.ends[NEAR], (struct message){ .kind = FRAME }, FRAME_BYTES);
    pump(&w.ends[NEAR]);
    pump(&w.ends[FAR]);
}

static void world_close(void)
{
    for (int i = 0; i < 2; i++)
        wire_pace_fini(&w.ends[i].pace);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* From from_ms on, each way carries `share` of the rate, and half of the decode frames take at
 * most the RTT + slack_ms. */
static void check(const struct link *l, double from_ms, double to_ms, double share, double slack_ms)
{
    uint64_t before[2];
    double   p50_ms, least;

    world_open(l);
    while (w.now_ms < from_ms)
        step();
    from_ms = w.now_ms;
    w.frames = 0;
    for (int i = 0; i < 2; i++)
        before[i] = w.ends[i].received;
    while (w.now_ms < to_ms)
        step();
    least = fmin((double)(w.ends[NEAR].received - before[NEAR]),
                 (double)(w.ends[FAR].received - before[FAR])) /
            (l->mbit * 125 * (w.now_ms - from_ms));
    qsort(w.frame_ms, w.frames, sizeof(*w.frame_ms), compare);
    p50_ms = w.frame_ms[w.frames / 2];
    if (least < share || p50_ms > l->rtt_ms + slack_ms)
        fail_msg("%g Mbit/s, RTT %g ms, jitter %g ms, stalls of %g ms, drift %g%s%s: %.3f of the "
                 "rate (at least %.2f), half of the frames take more than %.1f ms (at most %.1f); "
                 "estimates %.1f and %.1f Mbit/s, credits %" PRIu64 " and %" PRIu64
                 " KiB; MCP_SEED=%" PRIu64,
                 l->mbit, l->rtt_ms, l->jitter_ms, l->stall_ms, l->drift,
                 l->windows ? ", windows" : "", l->no_stamps ? ", no stamps" : "", least, share,
                 p50_ms, l->rtt_ms + slack_ms, wire_pace_goodput_mbit(&w.ends[NEAR].pace),
                 wire_pace_goodput_mbit(&w.ends[FAR].pace), w.ends[NEAR].pace.credit_bytes / 1024,
                 w.ends[FAR].pace.credit_bytes / 1024, unit_seed());
    world_close();
}

/* Goal:   with bulk both ways each way is used to 90 %, and a decode frame waits 25 ms at most
 *         in both queues together; at 80 ms, where a credit's slack is longer, 40 ms.
 * Method: three RTTs, bulk without end or answers to windows; from the second second on. */
static void both_ways_are_full_and_their_queues_short(void **state)
{
    static const struct {
        double mbit, rtt_ms, slack_ms;
    } links[] = {
        { 100, 5, 25 }, { 100, 20, 25 }, { 100, 80, 40 }, { 1000, 20, 25 }, { 1000, 80, 40 },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(links) * 2; i++) {
        const struct link l = { .mbit = links[i / 2].mbit,
                                .rtt_ms = links[i / 2].rtt_ms,
                                .windows = i % 2 == 1 };

        check(&l, 2000, 12000, 0.9, links[i / 2].slack_ms);
    }
}

/* Goal:   the same while ends are busy and delays vary. */
static void busy_ends_and_jitter_leave_both_ways_full(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        const struct link l = { .mbit = 100,
                                .rtt_ms = 20,
                                .jitter_ms = i / 2 == 0 ? 2 : 0,
                                .stall_ms = i / 2 == 1 ? 10 : 0,
                                .windows = i % 2 == 1 };

        check(&l, 2000, 22000, 0.88, 25);
    }
}

/* Goal:   clocks that drift by 100 ppm, which is 2 ms while a lag is remembered, do no harm.
 * Method: a minute of it, in both directions. */
static void drifting_clocks_do_no_harm(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        const struct link l = {
            .mbit = 100, .rtt_ms = 20, .drift = i / 2 == 0 ? 1e-4 : -1e-4, .windows = i % 2 == 1
        };

        check(&l, 20000, 60000, 0.9, 25);
    }
}

/* Goal:   a peer that does not stamp is served: not as well, but neither way starves. */
static void peers_without_stamps_get_on(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        const struct link l = { .mbit = 100, .rtt_ms = 20, .windows = i == 1, .no_stamps = true };

        check(&l, 2000, 12000, 0.5, 250);
    }
}

static uint64_t lie(unsigned kind, uint64_t stamp)
{
    switch (kind) {
    case 0: return UINT64_MAX;
    case 1: return 1;
    case 2: return unit_next(&w.seed);
    case 3: return UINT64_MAX - stamp; /* a clock that runs backwards */
    case 4: return unit_below(&w.seed, 50) == 0 ? UINT64_MAX / 2 : stamp;
    case 5: return 2 * stamp;
    default: return unit_below(&w.seed, 2) == 0 ? 0 : stamp;
    }
}

/* Goal:   whatever a peer stamps, the credit keeps its bounds, numbers stay finite, and bulk
 *         moves on: a lie costs the liar speed at most.
 * Method: seven kinds of lies on the acknowledgements of a link one way; 20 s, so that what is
 *         remembered of a lag is forgotten, too. */
static void lying_stamps_leave_the_credit_in_its_bounds(void **state)
{
    const struct link l = { .mbit = 100, .rtt_ms = 20, .one_way = true };

    (void)state;
    for (unsigned kind = 0; kind < 7; kind++) {
        struct end *e = &w.ends[NEAR];
        uint64_t    before = 0;
        double      look_ms = 1000;

        world_open(&l);
        while (w.now_ms < 20000) {
            struct end *far = &w.ends[FAR];

            if (far->count > 0 && far->way[far->first].kind == ACK)
                far->way[far->first].stamp_us = lie(kind, far->way[far->first].stamp_us);
            step();
            assert_true(e->pace.credit_bytes >= WIRE_PART_BYTES);
            assert_true(e->pace.credit_bytes <= WIRE_CREDIT_MAX);
            assert_true(isfinite(e->pace.rate_bytes_per_ms));
            assert_true(isfinite(e->pace.rtt_min_ms) && e->pace.rtt_min_ms >= 0);
            if (w.now_ms < look_ms)
                continue;
            if (far->received < before + 2 * WIRE_PART_BYTES)
                fail_msg("lie %u: at %.0f ms nothing moves; MCP_SEED=%" PRIu64, kind, w.now_ms,
                         unit_seed());
            before = far->received;
            look_ms += 1000;
        }
        world_close();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways_are_full_and_their_queues_short),
        cmocka_unit_test(busy_ends_and_jitter_leave_both_ways_full),
        cmocka_unit_test(drifting_clocks_do_no_harm),
        cmocka_unit_test(peers_without_stamps_get_on),
        cmocka_unit_test(lying_stamps_leave_the_credit_in_its_bounds),
    };

    return cmocka_run_group_tests_name("wire/pace, both ways", tests, NULL, NULL);
}
