/* pipe/places_test.c - which place is chosen, and when one is tried again.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/places.h"

#include "base/unit_test.h"

static const double NOW_MS = 10000.0;

static struct pipe_place up(double rtt_ms)
{
    return (struct pipe_place){
        .state = PLACE_UP, .first = 4, .last = 20, .sessions_free = 3, .rtt_ms = rtt_ms
    };
}

static int choose(const struct pipe_place *places, uint32_t count, int lost, uint64_t excluded)
{
    return pipe_places_choose(places, count, 4, 20, lost, excluded, NOW_MS);
}

/* Goal:   only places that hold the layers and are not known to be unfit are chosen. */
static void a_place_must_be_fit(void **state)
{
    struct pipe_place p = up(10.0);

    (void)state;
    assert_int_equal(choose(NULL, 0, -1, 0), -1);
    assert_int_equal(choose(&p, 1, -1, 0), 0);
    assert_int_equal(choose(&p, 1, -1, 1), -1);
    assert_int_equal(pipe_places_choose(&p, 1, 5, 19, -1, 0, NOW_MS), 0);
    assert_int_equal(pipe_places_choose(&p, 1, 3, 20, -1, 0, NOW_MS), -1);
    assert_int_equal(pipe_places_choose(&p, 1, 4, 21, -1, 0, NOW_MS), -1);
    p.state = PLACE_UNFIT;
    assert_int_equal(choose(&p, 1, -1, 0), -1);
    p.state = PLACE_DRAINING;
    assert_int_equal(choose(&p, 1, -1, 0), -1);
    p.state = PLACE_DOWN;
    p.retry_ms = NOW_MS + 1.0;
    assert_int_equal(choose(&p, 1, -1, 0), -1);
    p.retry_ms = NOW_MS;
    assert_int_equal(choose(&p, 1, -1, 0), 0);
    p.first = p.last = 0; /* never seen: it may hold anything */
    assert_int_equal(choose(&p, 1, -1, 0), 0);
    p = up(1.0);
    p.local = true;
    assert_int_equal(choose(&p, 1, -1, 0), 0);
    p.state = PLACE_DOWN;
    assert_int_equal(choose(&p, 1, -1, 0), -1);
}

/* Goal:   connected goes before free, free before near, and local comes last.
 * Method: the order from best to worst, every pair of it in both orders in the table. */
static void places_are_ranked(void **state)
{
    struct pipe_place order[9];
    const int         lost = 7;

    (void)state;
    for (int i = 0; i < 9; i++)
        order[i] = up(50.0);
    order[0].rtt_ms = 20.0;
    order[0].queue_ms = 5.0;
    order[1].rtt_ms = 10.0;
    order[1].queue_ms = 16.0;
    order[3].sessions_free = 0;
    order[3].rtt_ms = 1.0;
    order[4].sessions_free = 0;
    order[5].state = PLACE_DIALING;
    order[5].rtt_ms = 1.0;
    order[6].state = PLACE_DOWN;
    order[6].rtt_ms = 0.5;
    order[lost].state = PLACE_DIALING;
    order[8].local = true;
    order[8].rtt_ms = 0.0;
    for (int better = 0; better < 9; better++) {
        for (int worse = better + 1; worse < 9; worse++) {
            struct pipe_place pair[] = { order[better], order[worse] };
            struct pipe_place turned[] = { order[worse], order[better] };

            assert_int_equal(choose(pair, 2, better == lost ? 0 : worse == lost ? 1 : -1, 0), 0);
            assert_int_equal(choose(turned, 2, better == lost ? 1 : worse == lost ? 0 : -1, 0), 1);
        }
    }
}

/* Goal:   of equals the first is chosen, so that the choice is stable. */
static void of_equals_the_first_is_chosen(void **state)
{
    struct pipe_place places[] = { up(9.0), up(9.0), up(9.0) };

    (void)state;
    assert_int_equal(choose(places, 3, -1, 0), 0);
    assert_int_equal(choose(places, 3, -1, 1), 1);
    assert_int_equal(choose(places, 3, -1, 3), 2);
}

/* Goal:   the lost place is taken only when no other worker is fit, unless its connection is up
 *         again: then its session is resumed, however far it is. */
static void the_lost_place_is_resumed_or_comes_late(void **state)
{
    struct pipe_place places[] = { up(90.0), up(10.0), up(0.0) };

    (void)state;
    places[2].local = true;
    assert_int_equal(choose(places, 3, 0, 0), 0);
    assert_int_equal(choose(places, 3, 0, 1), 1);
    places[0].sessions_free = 0; /* its own session is one of those that fill it */
    assert_int_equal(choose(places, 3, 0, 0), 0);
    places[0].state = PLACE_DOWN;
    assert_int_equal(choose(places, 3, 0, 0), 1);
    assert_int_equal(choose(places, 3, 0, 2), 0);
    assert_int_equal(choose(places, 3, 0, 3), 2);
    places[0].retry_ms = NOW_MS + 50.0;
    assert_int_equal(choose(places, 3, 0, 2), 2);
    places[0].state = PLACE_DRAINING;
    assert_int_equal(choose(places, 3, 0, 2), 2);
}

/* Goal:   the delay doubles from 100 ms to 5 s, between half and all of it by chance, and begins
 *         anew once the place was up. */
static void retries_come_later_and_later(void **state)
{
    static const double delays[] = { 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000 };
    struct pipe_place   p = up(1.0);

    (void)state;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < UNIT_COUNT(delays); i++) {
            struct pipe_place least = p;

            pipe_place_failed(&least, NOW_MS, 0);
            assert_true(least.retry_ms == NOW_MS + delays[i] / 2);
            pipe_place_failed(&p, NOW_MS, UINT32_MAX);
            assert_true(p.retry_ms == NOW_MS + delays[i]);
            assert_int_equal(p.state, PLACE_DOWN);
            assert_int_equal(p.failures, i + 1);
        }
        pipe_place_up(&p, NOW_MS);
        assert_int_equal(p.state, PLACE_UP);
        assert_int_equal(p.failures, 0);
    }
    p.failures = UINT32_MAX;
    p.state = PLACE_UNFIT;
    pipe_place_failed(&p, NOW_MS, UINT32_MAX);
    assert_int_equal(p.failures, UINT32_MAX);
    assert_int_equal(p.state, PLACE_UNFIT);
    assert_true(p.retry_ms == NOW_MS + 5000.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_place_must_be_fit),
        cmocka_unit_test(places_are_ranked),
        cmocka_unit_test(of_equals_the_first_is_chosen),
        cmocka_unit_test(the_lost_place_is_resumed_or_comes_late),
        cmocka_unit_test(retries_come_later_and_later),
    };

    return cmocka_run_group_tests_name("pipe/places", tests, NULL, NULL);
}
