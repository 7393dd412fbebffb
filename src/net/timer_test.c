/* net/timer_test.c - timers run once, in order, not before their time, and not when cancelled.
 *
 * SPDX-License-Identifier: MIT */
#include "net/world_test.h"

enum { TIMERS = 3000, SPAN_MS = 200 };

struct watch {
    struct net_timer timer;
    double           due_ms; /* as last set; 0 = cancelled */
    int              runs;
};

/* The loop's while it runs. */
static struct {
    struct net_loop *loop;
    struct watch     watches[TIMERS];
    struct net_timer last;
    double           last_ms; /* due time of the last that ran */
    int              early, disorder;
    uint64_t         seed;
    bool             meddle; /* timers cancel others while they run */
    bool             done;
} t;

static void on_timer(struct net_timer *timer)
{
    struct watch *w = (struct watch *)(void *)timer;
    struct watch *other = &t.watches[unit_below(&t.seed, TIMERS)];

    w->runs++;
    t.early += base_clock_ms() < w->due_ms;
    t.disorder += w->due_ms < t.last_ms;
    t.last_ms = w->due_ms;
    if (!t.meddle || other->timer.at_ms == 0)
        return;
    net_timer_cancel(&other->timer);
    other->due_ms = 0;
}

static void on_last(struct net_timer *timer)
{
    (void)timer;
    WORLD_NOTE(t.done = true);
}

static void set_all(void *ctx)
{
    double now = base_clock_ms();

    (void)ctx;
    for (size_t i = 0; i < TIMERS; i++) {
        struct watch *w = &t.watches[i];

        w->timer.run = on_timer;
        w->due_ms = now + unit_below(&t.seed, 100 * SPAN_MS) / 100.0; /* many at one time */
        net_timer_set(&w->timer, t.loop, w->due_ms);
    }
    for (size_t i = 0; i < TIMERS; i++) { /* some are moved, some cancelled, some twice */
        struct watch *w = &t.watches[unit_below(&t.seed, TIMERS)];

        if (i % 3 == 0) {
            w->due_ms = now + unit_below(&t.seed, 100 * SPAN_MS) / 100.0;
            net_timer_set(&w->timer, t.loop, w->due_ms);
        } else if (i % 3 == 1) {
            net_timer_cancel(&w->timer);
            w->due_ms = 0;
        }
    }
    t.last.run = on_last;
    net_timer_set(&t.last, t.loop, now + SPAN_MS);
}

static void timers_run_once_in_order_and_not_before_their_time(void **state)
{
    mcp_error err;
    int       count = 0;

    (void)state;
    for (int meddle = 0; meddle < 2; meddle++) {
        memset(&t, 0, sizeof(t));
        t.seed = unit_seed() + (uint64_t)meddle;
        t.meddle = meddle != 0;
        unit_ok(net_loop_open(&t.loop, &err), &err);
        world_do(t.loop, set_all, NULL);
        WORLD_AWAIT(t.done);
        net_loop_close(t.loop);
        assert_int_equal(t.early, 0);
        assert_int_equal(t.disorder, 0);
        for (size_t i = 0; i < TIMERS; i++) {
            assert_true(t.watches[i].timer.at_ms == 0);
            assert_int_equal(t.watches[i].runs, t.watches[i].due_ms > 0);
            count += t.watches[i].runs;
        }
    }
    assert_in_range(count, TIMERS, 2 * TIMERS - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_run_once_in_order_and_not_before_their_time),
    };

    return cmocka_run_group_tests_name("net/timer", tests, NULL, NULL);
}
