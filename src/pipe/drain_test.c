/* pipe/drain_test.c - an endpoint drains: the handover to its successor, and what is lost in the
 * middle of it.
 *
 * One stage.  Endpoint 1 drains, endpoint 2 is its successor.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/script_test.h"

/* Endpoint 1 has run windows of 100 positions; a successor is asked for. */
static void begin(uint32_t windows, uint32_t windows_max)
{
    script_begin(1, PIPE_WINDOWS_MAX, true);
    wants_open(0, PIPE_NO_ENDPOINT, false);
    script_opened(0, 1, windows_max);
    for (uint32_t i = 0; i < windows; i++) {
        uint64_t window = script_submit(100, LAST);

        script_answer(1, wants_forward(1, 0, 100 * i, 100, LAST), 1);
        wants_output(window, 1);
    }
    script_draining(1);
    wants_open(0, 1, true);
    wants_nothing();
}

static void successor_opened(uint32_t endpoint, uint32_t windows_max)
{
    script_opened(0, endpoint, windows_max);
    wants_trim(endpoint, 1, 0);
}

static struct pipeline_stage_stats stats_now(void)
{
    struct pipeline_stage_stats stats;

    pipeline_get_stats(script_pipeline, 0, &stats);
    return stats;
}

/* Goal:   the draining endpoint runs what comes while its successor is fed, and the successor
 *         takes over between two windows once it has all: nothing waits. */
static void a_successor_is_fed_beside_and_takes_over_between_windows(void **state)
{
    uint64_t window, fed[3], number;

    (void)state;
    begin(3, 8);
    successor_opened(2, 8);
    for (uint32_t i = 0; i < 3; i++)
        fed[i] = wants_forward(2, 1, 100 * i, 100, NONE);
    wants_nothing();

    window = script_submit(1, LAST);
    number = wants_forward(1, 0, 300, 1, LAST); /* the successor is behind */
    wants_forward(2, 1, 300, 1, NONE);
    script_answer(1, number, 1);
    wants_output(window, 1);
    for (uint32_t i = 0; i < 3; i++) {
        script_answer(2, fed[i], 0);
        wants_nothing();
    }
    script_answer(2, script_number, 0);
    wants_close(1, false);
    wants_nothing();

    window = script_submit(1, LAST);
    number = wants_forward(2, 1, 301, 1, LAST);
    script_answer(2, number, 1);
    wants_output(window, 1);
    assert_int_equal(stats_now().handovers, 1);
    assert_int_equal(stats_now().failovers, 0);
    assert_int_equal(stats_now().replayed_positions, 301);
    script_end();
}

/* Goal:   a successor that is level takes the next window although the draining one still owes an
 *         answer, and answers come out in order whoever is faster. */
static void answers_of_both_come_out_in_order(void **state)
{
    uint64_t window[3], last, fed, next[2];

    (void)state;
    begin(1, 8);
    successor_opened(2, 8);
    script_answer(2, wants_forward(2, 1, 0, 100, NONE), 0);
    wants_close(1, false); /* nothing was in flight */
    script_draining(2);
    wants_open(0, 2, true);
    window[0] = script_submit(70, LAST);
    last = wants_forward(2, 1, 100, 70, LAST);
    script_opened(0, 3, 8);
    wants_trim(3, 1, 0);
    script_answer(3, wants_forward(3, 1, 0, 100, NONE), 0);
    fed = wants_forward(3, 1, 100, 70, NONE);
    wants_nothing();

    window[1] = script_submit(70, LAST); /* level: to the successor, behind what both run */
    window[2] = script_submit(70, LAST);
    next[0] = wants_forward(3, 1, 170, 70, LAST);
    next[1] = wants_forward(3, 1, 240, 70, LAST);
    wants_nothing();
    script_answer(3, fed, 0);
    script_answer(3, next[0], 1);
    wants_nothing();
    script_answer(2, last, 1);
    wants_close(2, false);
    wants_output(window[0], 1);
    wants_output(window[1], 1);
    script_answer(3, next[1], 1);
    wants_output(window[2], 1);
    assert_int_equal(stats_now().handovers, 2);
    script_end();
}

/* Goal:   a successor that keeps running behind does not take over while windows are under way,
 *         and does when it has caught up. */
static void a_slow_successor_waits_until_it_is_level(void **state)
{
    uint64_t window, number, fed;

    (void)state;
    begin(1, 2);
    successor_opened(2, 1);
    fed = wants_forward(2, 1, 0, 100, NONE);
    for (uint32_t i = 0; i < 5; i++) {
        window = script_submit(100, LAST);
        number = wants_forward(1, 0, 100 + 100 * i, 100, LAST);
        wants_nothing();
        script_answer(1, number, 1);
        wants_output(window, 1);
    }
    for (uint32_t i = 0; i < 5; i++) {
        script_answer(2, fed, 0);
        fed = wants_forward(2, 1, 100 + 100 * i, 100, NONE);
        wants_nothing();
    }
    script_answer(2, fed, 0);
    wants_close(1, false);
    script_end();
}

/* ---- losses on the way -------------------------------------------------------------------- */

/* Goal:   the draining endpoint is lost before its successor is there: that becomes its
 *         replacement; nothing is asked for twice. */
static void the_draining_one_is_lost_before_its_successor_is_there(void **state)
{
    uint64_t window;

    (void)state;
    begin(1, 8);
    window = script_submit(1, LAST);
    wants_forward(1, 0, 100, 1, LAST);
    script_lost(1);
    wants_nothing();
    script_opened_as(0, 2, (struct pipe_opened){ .length = 101, .epoch = 0, .windows_max = 8 });
    wants_trim(2, 1, 100); /* resumed after all */
    script_answer(2, wants_forward(2, 1, 100, 1, LAST), 1);
    wants_output(window, 1);
    script_end();
}

/* Goal:   it is lost while the successor is fed: that takes over and goes on with its replay.  What
 *         it ran without rows that are now wanted is run again, behind a Trim. */
static void the_draining_one_is_lost_while_its_successor_is_fed(void **state)
{
    uint64_t window, fed[3];

    (void)state;
    begin(2, 8);
    successor_opened(2, 8);
    fed[0] = wants_forward(2, 1, 0, 100, NONE);
    fed[1] = wants_forward(2, 1, 100, 100, NONE);
    window = script_submit(1, LAST);
    wants_forward(1, 0, 200, 1, LAST);
    fed[2] = wants_forward(2, 1, 200, 1, NONE);
    script_lost(1);
    wants_nothing(); /* no other is asked for; a Trim would drop the replays */
    script_answer(2, fed[0], 0);
    script_answer(2, fed[1], 0);
    wants_trim(2, 2, 200);
    script_answer(2, fed[2], 0);
    script_answer(2, wants_forward(2, 2, 200, 1, LAST), 1);
    wants_output(window, 1);
    assert_int_equal(stats_now().failovers, 1);
    assert_int_equal(stats_now().handovers, 0);
    script_end();
}

/* Goal:   the successor is lost while it is fed: the draining one goes on, another successor is
 *         asked for. */
static void the_successor_is_lost_while_it_is_fed(void **state)
{
    uint64_t window;

    (void)state;
    begin(1, 8);
    successor_opened(2, 8);
    wants_forward(2, 1, 0, 100, NONE);
    script_lost(2);
    wants_open(0, 2, true);
    window = script_submit(1, LAST);
    script_answer(1, wants_forward(1, 0, 100, 1, LAST), 1);
    wants_output(window, 1);
    script_opened_as(0, 3, (struct pipe_opened){ .length = 100, .epoch = 1, .windows_max = 8 });
    wants_trim(3, 2, 100); /* resumed */
    script_answer(3, wants_forward(3, 2, 100, 1, NONE), 0);
    wants_close(1, false);
    script_end();
}

/* Goal:   a successor that is resumed may already have run what the draining one still owes: that
 *         is neither fed again nor taken for an answer. */
static void a_resumed_successor_answers_for_nobody(void **state)
{
    uint64_t window, number;

    (void)state;
    begin(1, 8);
    successor_opened(2, 8);
    wants_forward(2, 1, 0, 100, NONE);
    window = script_submit(100, NONE);
    number = wants_forward(1, 0, 100, 100, NONE);
    wants_forward(2, 1, 100, 100, NONE);
    script_lost(2);
    wants_open(0, 2, true);
    script_opened_as(0, 3, (struct pipe_opened){ .length = 200, .epoch = 1, .windows_max = 8 });
    wants_trim(3, 2, 200);
    wants_nothing();
    script_answer(1, number, 0);
    wants_close(1, false);
    wants_output(window, 0);
    script_end();
}

/* Both owe an answer: the predecessor [100, +50), the successor [150, +50) and [200, +50). */
static void hand_over_in_flight(uint64_t window[3], uint64_t *owed, uint64_t next[2])
{
    begin(1, 8);
    window[0] = script_submit(50, LAST);
    *owed = wants_forward(1, 0, 100, 50, LAST);
    successor_opened(2, 8);
    script_answer(2, wants_forward(2, 1, 0, 100, NONE), 0);
    wants_forward(2, 1, 100, 50, NONE);
    for (uint32_t i = 0; i < 2; i++) {
        window[1 + i] = script_submit(50, LAST);
        next[i] = wants_forward(2, 1, 150 + 50 * i, 50, LAST);
    }
    wants_nothing();
}

/* Goal:   the predecessor is lost while it owes an answer: the successor runs that window again,
 *         and all that followed, also what it had answered already. */
static void the_predecessor_is_lost_while_it_owes(void **state)
{
    uint64_t window[3], owed, next[2];

    (void)state;
    hand_over_in_flight(window, &owed, next);
    script_answer(2, script_number - 2, 0);
    script_answer(2, next[0], 1);
    script_lost(1);
    wants_trim(2, 2, 100);
    script_answer(2, next[1], 1); /* late */
    for (uint32_t i = 0; i < 3; i++)
        next[i % 2] = wants_forward(2, 2, 100 + 50 * i, 50, LAST);
    wants_nothing();
    for (uint32_t i = 0; i < 3; i++) {
        script_answer(2, script_number - 2 + i, 1);
        wants_output(window[i], 1);
    }
    wants_nothing();
    script_end();
}

/* Goal:   the successor is lost after it took over: the predecessor, which is not yet closed, goes
 *         on, and another successor is asked for. */
static void the_successor_is_lost_after_it_took_over(void **state)
{
    uint64_t window[3], owed, next[2];

    (void)state;
    hand_over_in_flight(window, &owed, next);
    script_lost(2);
    wants_open(0, 2, true);
    next[0] = wants_forward(1, 0, 150, 50, LAST);
    next[1] = wants_forward(1, 0, 200, 50, LAST);
    wants_nothing();
    script_answer(1, owed, 1);
    wants_output(window[0], 1);
    script_answer(1, next[0], 1);
    script_answer(1, next[1], 1);
    wants_output(window[1], 1);
    wants_output(window[2], 1);
    wants_nothing();
    script_end();
}

/* Goal:   both are lost: one replacement. */
static void both_are_lost(void **state)
{
    uint64_t window[3], owed, next[2];

    (void)state;
    for (uint32_t first = 1; first <= 2; first++) {
        hand_over_in_flight(window, &owed, next);
        script_lost(first);
        script_lost(3 - first);
        wants_open(0, 2, false);
        wants_nothing();
        script_opened(0, 3, 8);
        wants_trim(3, 2, 0);
        wants_forward(3, 2, 0, 100, NONE);
        for (uint32_t i = 0; i < 3; i++)
            wants_forward(3, 2, 100 + 50 * i, 50, LAST);
        script_end();
    }
}

/* ---- other turns -------------------------------------------------------------------------- */

/* Goal:   no successor can be had: the draining one goes on until it is lost, and only then
 *         another is asked for; a second notice asks again. */
static void without_a_successor_the_draining_one_goes_on(void **state)
{
    uint64_t window;

    (void)state;
    begin(1, 8);
    script_unavailable(0);
    window = script_submit(1, LAST);
    script_answer(1, wants_forward(1, 0, 100, 1, LAST), 1);
    wants_output(window, 1);
    wants_nothing();
    script_draining(1);
    wants_open(0, 1, true);
    script_draining(1);
    wants_nothing();
    script_unavailable(0);
    script_lost(1);
    wants_open(0, 1, false);
    script_unavailable(0);
    wants_failed(MCP_EUNAVAIL);
    script_end();
}

/* Goal:   a successor that drains itself while it is fed takes over all the same, and then is
 *         followed by one of its own. */
static void a_successor_may_drain_too(void **state)
{
    uint64_t number;

    (void)state;
    begin(1, 8);
    successor_opened(2, 8);
    number = wants_forward(2, 1, 0, 100, NONE);
    script_draining(2);
    wants_nothing();
    script_answer(2, number, 0);
    wants_close(1, false);
    wants_open(0, 2, true);
    script_opened(0, 3, 8);
    wants_trim(3, 1, 0);
    script_answer(3, wants_forward(3, 1, 0, 100, NONE), 0);
    wants_close(2, false);
    wants_nothing();
    script_end();
}

/* Goal:   a trim reaches both; one in the middle of a window keeps its order with it at both. */
static void a_trim_during_a_drain_reaches_both(void **state)
{
    uint64_t fed[2], window;

    (void)state;
    begin(2, 8);
    successor_opened(2, 8);
    fed[0] = wants_forward(2, 1, 0, 100, NONE);
    fed[1] = wants_forward(2, 1, 100, 100, NONE);
    script_trim(150);
    wants_trim(1, 1, 150);
    wants_nothing();
    window = script_submit(1, LAST);
    script_answer(1, wants_forward(1, 1, 150, 1, LAST), 1);
    wants_output(window, 1);
    script_answer(2, fed[0], 0);
    wants_nothing();
    script_answer(2, fed[1], 0);
    wants_trim(2, 2, 150);
    script_answer(2, wants_forward(2, 2, 150, 1, NONE), 0);
    wants_close(1, false);
    wants_nothing();
    script_end();
}

/* Goal:   when what the predecessor owed is trimmed away, it is closed at once. */
static void a_predecessor_that_owes_nothing_more_is_closed(void **state)
{
    uint64_t window[3], owed, next[2];

    (void)state;
    hand_over_in_flight(window, &owed, next);
    script_trim(100);
    wants_close(1, false);
    wants_trim(2, 2, 100);
    wants_nothing();
    script_answer(1, owed, 1);
    wants_nothing();
    script_end();
}

/* Goal:   a draining notice for an endpoint that is not ours changes nothing. */
static void a_notice_from_a_stranger_is_ignored(void **state)
{
    (void)state;
    script_begin(1, 4, true);
    wants_open(0, PIPE_NO_ENDPOINT, false);
    script_draining(1);
    script_opened(0, 1, 4);
    script_draining(2);
    wants_nothing();
    script_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_successor_is_fed_beside_and_takes_over_between_windows),
        cmocka_unit_test(answers_of_both_come_out_in_order),
        cmocka_unit_test(a_slow_successor_waits_until_it_is_level),
        cmocka_unit_test(the_draining_one_is_lost_before_its_successor_is_there),
        cmocka_unit_test(the_draining_one_is_lost_while_its_successor_is_fed),
        cmocka_unit_test(the_successor_is_lost_while_it_is_fed),
        cmocka_unit_test(a_resumed_successor_answers_for_nobody),
        cmocka_unit_test(the_predecessor_is_lost_while_it_owes),
        cmocka_unit_test(the_successor_is_lost_after_it_took_over),
        cmocka_unit_test(both_are_lost),
        cmocka_unit_test(without_a_successor_the_draining_one_goes_on),
        cmocka_unit_test(a_successor_may_drain_too),
        cmocka_unit_test(a_trim_during_a_drain_reaches_both),
        cmocka_unit_test(a_predecessor_that_owes_nothing_more_is_closed),
        cmocka_unit_test(a_notice_from_a_stranger_is_ignored),
    };

    return cmocka_run_group_tests_name("pipe/drain", tests, NULL, NULL);
}
