/* pipe/replace_test.c - an endpoint is lost: what its replacement is fed, step by step.
 *
 * The pipeline has two stages here.  Endpoint 1 runs the first and stays; what happens,
 * happens to the second.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/script_test.h"

/* Everything up to the output of one window of `count` positions. */
static void run_window(uint32_t endpoint, uint32_t first_epoch, uint32_t epoch, uint32_t count)
{
    uint32_t pos = pipeline_length(script_pipeline);
    uint64_t window = script_submit(count, LAST);

    script_answer(1, wants_forward(1, first_epoch, pos, count, ALL), count);
    script_answer(endpoint, wants_forward(endpoint, epoch, pos, count, LAST), 1);
    wants_output(window, 1);
    wants_nothing();
}

static void begin(const uint32_t *counts, uint32_t windows)
{
    script_begin(2, PIPE_WINDOWS_MAX, true);
    wants_open(1, PIPE_NO_ENDPOINT, false);
    wants_open(0, PIPE_NO_ENDPOINT, false);
    script_opened(0, 1, 8);
    script_opened(1, 2, 8);
    for (uint32_t i = 0; i < windows; i++)
        run_window(2, 0, 0, counts[i]);
}

/* Lose endpoint 2; endpoint 3 is a new session. */
static void replace(bool even_windows)
{
    script_lost(2);
    wants_open(1, 2, false);
    wants_nothing();
    script_opened_as(1, 3, (struct pipe_opened){ .windows_max = 64, .even_windows = even_windows });
    wants_trim(3, 1, 0);
}

/* Goal:   the windows that were answered are replayed for their KV alone, those that were not are
 *         sent again with what is wanted of them, and answers of the dead are ignored. */
static void answered_windows_are_replayed_and_unanswered_sent_again(void **state)
{
    uint64_t window[2], number[4];

    (void)state;
    begin((uint32_t[]){ 100, 80 }, 2);
    for (uint32_t i = 0; i < 2; i++) {
        window[i] = script_submit(70, i == 0 ? LAST : ALL);
        number[i] = wants_forward(1, 0, 180 + 70 * i, 70, ALL);
    }
    for (uint32_t i = 0; i < 2; i++) {
        script_answer(1, number[i], 70);
        number[i] = wants_forward(2, 0, 180 + 70 * i, 70, i == 0 ? LAST : ALL);
    }
    replace(true);
    script_answer(2, number[0], 1);
    number[0] = wants_forward(3, 1, 0, 100, NONE);
    number[1] = wants_forward(3, 1, 100, 80, NONE);
    number[2] = wants_forward(3, 1, 180, 70, LAST);
    number[3] = wants_forward(3, 1, 250, 70, ALL);
    wants_nothing();
    script_answer(3, number[0], 0);
    script_answer(3, number[1], 0);
    wants_nothing();
    script_answer(3, number[2], 1);
    wants_output(window[0], 1);
    script_answer(3, number[3], 70);
    wants_output(window[1], 70);
    run_window(3, 0, 1, 1);
    script_end();
}

/* Goal:   replays are bulk; what is sent again is bulk only if it was. */
static void replays_may_be_paced(void **state)
{
    (void)state;
    begin((uint32_t[]){ 1, 1 }, 2);
    script_submit(1, LAST);
    script_answer(1, wants_forward(1, 0, 2, 1, ALL), 1);
    wants_forward(2, 0, 2, 1, LAST);
    replace(false);
    for (int replay = 1; replay >= 0; replay--) {
        struct pipe_act act = script_next(PIPE_ACT_FORWARD);

        assert_int_equal(act.bulk, replay);
        pipe_block_unref(act.block);
    }
    script_end();
}

/* Goal:   the replacement is lost as well, in the middle of its replay, twice; and before it was
 *         opened there is nothing to lose. */
static void replacements_are_lost_too(void **state)
{
    uint64_t window, number;

    (void)state;
    begin((uint32_t[]){ 100, 100, 100 }, 3);
    window = script_submit(1, LAST);
    script_answer(1, wants_forward(1, 0, 300, 1, ALL), 1);
    wants_forward(2, 0, 300, 1, LAST);
    script_lost(2);
    script_lost(2);
    wants_open(1, 2, false);
    script_lost(2);
    wants_nothing();
    for (uint32_t e = 3; e < 6; e++) {
        script_opened(1, e, 2);
        wants_trim(e, e - 2, 0);
        script_answer(e, wants_forward(e, e - 2, 0, 100, NONE), 0);
        wants_forward(e, e - 2, 100, 100, NONE);
        wants_forward(e, e - 2, 200, 100, NONE);
        wants_nothing();
        script_lost(e);
        wants_open(1, e, false);
    }
    script_opened(1, 6, 2);
    wants_trim(6, 4, 0);
    for (uint32_t i = 0; i < 3; i++)
        script_answer(6, wants_forward(6, 4, 100 * i, 100, NONE), 0);
    number = wants_forward(6, 4, 300, 1, LAST);
    script_answer(6, number, 1);
    wants_output(window, 1);
    script_end();
}

/* Goal:   stages are lost together and recover by themselves: what the first one answers anew
 *         the second one has not seen. */
static void several_stages_are_lost_at_once(void **state)
{
    uint64_t window, number;

    (void)state;
    begin((uint32_t[]){ 70 }, 1);
    window = script_submit(2, LAST);
    wants_forward(1, 0, 70, 2, ALL);
    script_lost(1);
    script_lost(2);
    wants_open(1, 2, false);
    wants_open(0, 1, false);
    script_opened(1, 3, 8);
    wants_trim(3, 1, 0);
    number = wants_forward(3, 1, 0, 70, NONE);
    wants_nothing();
    script_opened(0, 4, 8);
    wants_trim(4, 1, 0);
    wants_forward(4, 1, 0, 70, NONE);
    script_answer(4, script_number, 0);
    script_answer(4, wants_forward(4, 1, 70, 2, ALL), 2);
    script_answer(3, number, 0);
    script_answer(3, wants_forward(3, 1, 70, 2, LAST), 1);
    wants_output(window, 1);
    script_end();
}

/* ---- resumed sessions ------------------------------------------------------------------- */

/* Goal:   a session that is resumed goes on from the boundary at or before what it holds, after
 *         a Trim in an epoch of its own, which drops what it had queued.
 * Method: every length, with windows of 70, 90 and 80 answered and one of 60 not. */
static void a_resumed_session_goes_on_from_a_boundary(void **state)
{
    static const uint32_t starts[] = { 0, 70, 160, 240, 300 };

    (void)state;
    for (uint32_t length = 0; length <= 320; length++) {
        uint32_t from = 0;

        begin((uint32_t[]){ 70, 90, 80 }, 3);
        script_submit(60, LAST);
        script_answer(1, wants_forward(1, 0, 240, 60, ALL), 60);
        wants_forward(2, 0, 240, 60, LAST);
        script_lost(2);
        wants_open(1, 2, false);
        script_opened_as(1, 3,
                         (struct pipe_opened){ .length = length, .epoch = 9, .windows_max = 8 });
        while (from < 3 && starts[from + 1] <= length)
            from++;
        wants_trim(3, 10, starts[from]);
        for (; from < 3; from++)
            wants_forward(3, 10, starts[from], starts[from + 1] - starts[from], NONE);
        wants_forward(3, 10, 240, 60, LAST); /* its answer was lost: run again */
        wants_nothing();
        script_end();
    }
}

/* Goal:   windows of which nothing is wanted and which have run are not run again. */
static void a_window_without_rows_that_has_run_is_answered(void **state)
{
    uint64_t window[3];

    (void)state;
    begin((uint32_t[]){ 70 }, 1);
    for (uint32_t i = 0; i < 3; i++) {
        window[i] = script_submit(80, i < 2 ? NONE : LAST);
        script_answer(1, wants_forward(1, 0, 70 + 80 * i, 80, ALL), 80);
        wants_forward(2, 0, 70 + 80 * i, 80, i < 2 ? NONE : LAST);
    }
    script_lost(2);
    wants_open(1, 2, false);
    script_opened_as(1, 3, (struct pipe_opened){ .length = 200, .windows_max = 8 });
    wants_trim(3, 1, 150);
    wants_forward(3, 1, 150, 80, NONE);
    wants_forward(3, 1, 230, 80, LAST);
    wants_output(window[0], 0);
    wants_nothing();
    script_end();
}

/* Goal:   what a lost session holds beyond a trim that it has not seen is never used: not if the
 *         trim came while it was away, nor if the Trim was lost on the way, nor if that
 *         happened to the session that was resumed.
 * Method: windows of which nothing is wanted, which would else count as run. */
static void what_a_session_holds_beyond_an_unseen_trim_is_stale(void **state)
{
    (void)state;
    begin((uint32_t[]){ 70, 90, 80 }, 3);
    script_lost(2);
    wants_open(1, 2, false);
    script_trim(160);
    wants_trim(1, 1, 160);
    script_submit(80, NONE); /* other tokens at the same positions */
    script_answer(1, wants_forward(1, 1, 160, 80, ALL), 80);
    script_opened_as(1, 3, (struct pipe_opened){ .length = 240, .windows_max = 8 });
    wants_trim(3, 1, 160);
    script_answer(3, wants_forward(3, 1, 160, 80, NONE), 0);
    wants_output(4, 0);

    script_trim(70);
    wants_trim(3, 2, 70); /* lost on the way */
    wants_trim(1, 2, 70);
    script_submit(90, NONE);
    script_answer(1, wants_forward(1, 2, 70, 90, ALL), 90);
    wants_forward(3, 2, 70, 90, NONE);
    for (uint32_t e = 4; e < 7; e++) { /* the Trims of e = 4 and 5 are lost too */
        script_lost(e - 1);
        wants_open(1, e - 1, false);
        script_opened_as(1, e, (struct pipe_opened){ .length = 240, .epoch = 1, .windows_max = 8 });
        wants_trim(e, e - 1, 70);
        wants_forward(e, e - 1, 70, 90, NONE);
        wants_nothing();
    }
    script_lost(6); /* whose Trim was seen */
    wants_open(1, 6, false);
    script_opened_as(1, 7, (struct pipe_opened){ .length = 160, .epoch = 5, .windows_max = 8 });
    wants_trim(7, 6, 160);
    wants_output(5, 0);
    wants_nothing();
    script_end();
}

/* Goal:   a Trim that was seen does not hold a resumed session back. */
static void a_trim_that_was_seen_is_no_reason_to_replay(void **state)
{
    (void)state;
    begin((uint32_t[]){ 70, 90 }, 2);
    script_trim(70);
    wants_trim(2, 1, 70);
    wants_trim(1, 1, 70);
    run_window(2, 1, 1, 80);
    script_lost(2);
    wants_open(1, 2, false);
    script_opened_as(1, 3, (struct pipe_opened){ .length = 150, .epoch = 1, .windows_max = 8 });
    wants_trim(3, 2, 150);
    run_window(3, 1, 2, 1);
    script_end();
}

/* ---- windows as they were first sent ---------------------------------------------------- */

/* Goal:   a window that was trimmed in its middle is replayed whole, and trimmed, and only
 *         then followed by what came after it. */
static void a_cut_window_is_replayed_whole_and_trimmed(void **state)
{
    uint64_t number;

    (void)state;
    begin((uint32_t[]){ 100 }, 1);
    script_trim(30);
    wants_trim(2, 1, 30);
    wants_trim(1, 1, 30);
    run_window(2, 1, 1, 70);
    script_trim(90);
    wants_trim(2, 2, 90);
    wants_trim(1, 2, 90);
    script_lost(2);
    wants_open(1, 2, false);
    script_opened_as(1, 3, (struct pipe_opened){ .windows_max = 8, .even_windows = true });
    wants_trim(3, 3, 0);
    number = wants_forward(3, 3, 0, 100, NONE);
    wants_nothing();
    script_answer(3, number, 0);
    wants_trim(3, 4, 30);
    number = wants_forward(3, 4, 30, 70, NONE);
    wants_nothing();
    script_submit(1, LAST);
    script_answer(1, wants_forward(1, 2, 90, 1, ALL), 1);
    wants_nothing();
    script_answer(3, number, 0);
    wants_trim(3, 5, 90);
    wants_forward(3, 5, 90, 1, LAST);
    script_end();
}

/* Goal:   answered neighbours are joined as far as the class of their attention allows.
 * Method: rows of windows, and what they must become on an even endpoint and on another. */
static void small_windows_are_joined_where_that_is_exact(void **state)
{
    static const struct {
        uint32_t windows[12]; /* 0 ends */
        uint32_t even[12], odd[12];
    } rows[] = {
        { { 1, 1, 1 }, { 3 }, { 3 } },
        { { 63, 1, 62, 2 }, { 63, 63, 2 }, { 63, 63, 2 } },
        { { 64, 1, 1, 64, 63, 5 }, { 64, 2, 64, 63, 5 }, { 64, 2, 64, 63, 5 } },
        { { 20, 20, 20, 20 }, { 60, 20 }, { 60, 20 } },
        /* 250 + 6 = 256 columns; from there on the row-by-row class is left by single tokens */
        { { 250, 3, 3, 1, 1, 5, 5 }, { 250, 18 }, { 250, 6, 1, 1, 5, 5 } },
        { { 250, 3, 4, 1 }, { 250, 8 }, { 250, 3, 4, 1 } },
        { { 500, 63, 63, 1 }, { 500, 63, 63, 1 }, { 500, 63, 63, 1 } },
        { { 1, 255, 1, 1 }, { 1, 255, 2 }, { 1, 255, 1, 1 } },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        for (int even = 0; even < 2; even++) {
            const uint32_t *expected = even ? rows[i].even : rows[i].odd;
            uint32_t        count = 0, pos = 0;

            while (rows[i].windows[count] != 0)
                count++;
            begin(rows[i].windows, count);
            replace(even);
            for (uint32_t k = 0; expected[k] != 0; pos += expected[k++])
                wants_forward(3, 1, pos, expected[k], NONE);
            wants_nothing();
            assert_int_equal(pos, pipeline_length(script_pipeline));
            script_submit(1, LAST);
            script_answer(1, wants_forward(1, 0, pos, 1, ALL), 1);
            wants_forward(3, 1, pos, 1, LAST);
            script_end();
        }
    }
}

/* Goal:   windows that are not answered are sent as they were, never joined; so are those in
 *         another codec. */
static void only_answered_windows_of_one_codec_are_joined(void **state)
{
    (void)state;
    begin((uint32_t[]){ 2, 2 }, 2);
    script_codec++;
    run_window(2, 0, 0, 3);
    run_window(2, 0, 0, 3);
    for (uint32_t i = 0; i < 2; i++) {
        script_submit(1, LAST);
        script_answer(1, wants_forward(1, 0, 10 + i, 1, ALL), 1);
        wants_forward(2, 0, 10 + i, 1, LAST);
    }
    replace(true);
    wants_forward(3, 1, 0, 4, NONE);
    wants_forward(3, 1, 4, 6, NONE);
    wants_forward(3, 1, 10, 1, LAST);
    wants_forward(3, 1, 11, 1, LAST);
    wants_nothing();
    script_end();
}

/* Goal:   of small windows that were cut only what counts is replayed where that is exact, which
 *         saves the round trip of each Trim: what speculation leaves behind. */
static void cut_windows_are_shortened_where_that_is_exact(void **state)
{
    (void)state;
    for (int even = 0; even < 2; even++) {
        uint32_t epoch = 0;

        begin((uint32_t[]){ 250 }, 1);
        for (uint32_t i = 0; i < 3; i++) { /* [250, +4), [251, +4), [252, +4) and 1 of each kept */
            run_window(2, epoch, epoch, 4);
            epoch++;
            script_trim(251 + i);
            wants_trim(2, epoch, 251 + i);
            wants_trim(1, epoch, 251 + i);
        }
        script_lost(2);
        wants_open(1, 2, false);
        script_opened_as(1, 3, (struct pipe_opened){ .windows_max = 9, .even_windows = even });
        wants_trim(3, 4, 0);
        wants_forward(3, 4, 0, 250, NONE);
        /* All columns are below 512: positions 250 to 255 */
        wants_forward(3, 4, 250, 3, NONE);
        wants_nothing();
        script_end();

        epoch = 0;
        begin((uint32_t[]){ 255 }, 1);
        for (uint32_t i = 0; i < 3; i++) {
            run_window(2, epoch, epoch, 4);
            epoch++;
            script_trim(256 + i);
            wants_trim(2, epoch, 256 + i);
            wants_trim(1, epoch, 256 + i);
        }
        script_lost(2);
        wants_open(1, 2, false);
        script_opened_as(1, 3, (struct pipe_opened){ .windows_max = 9, .even_windows = even });
        wants_trim(3, 4, 0);
        script_answer(3, wants_forward(3, 4, 0, 255, NONE), 0);
        if (even) {
            wants_forward(3, 4, 255, 3, NONE);
        } else {
            for (uint32_t i = 0; i < 3; i++) {
                uint64_t number = wants_forward(3, 4 + i, 255 + i, 4, NONE);

                wants_nothing();
                script_answer(3, number, 0);
                wants_trim(3, 5 + i, 256 + i);
            }
        }
        wants_nothing();
        script_end();
    }
}

/* ---- trims in the middle of it ---------------------------------------------------------- */

/* Goal:   a trim while a replacement is fed: what is beyond is not sent, what was sent beyond is
 *         trimmed once the rest is answered. */
static void a_trim_during_a_replay(void **state)
{
    uint64_t number[3], window;

    (void)state;
    begin((uint32_t[]){ 100, 100, 100 }, 3);
    script_lost(2);
    wants_open(1, 2, false);
    script_opened(1, 3, 2);
    wants_trim(3, 1, 0);
    number[0] = wants_forward(3, 1, 0, 100, NONE);
    number[1] = wants_forward(3, 1, 100, 100, NONE);
    wants_nothing();
    script_trim(100);
    wants_trim(1, 1, 100);
    wants_nothing();
    window = script_submit(1, LAST);
    script_answer(1, wants_forward(1, 1, 100, 1, ALL), 1);
    wants_nothing();
    script_answer(3, number[0], 0);
    wants_trim(3, 2, 100);
    number[2] = wants_forward(3, 2, 100, 1, LAST);
    script_answer(3, number[1], 0);
    script_answer(3, number[2], 1);
    wants_output(window, 1);
    script_end();
}

/* Goal:   trimmed to nothing, the replacement has nothing to replay. */
static void a_trim_to_nothing_ends_a_replay(void **state)
{
    (void)state;
    begin((uint32_t[]){ 100, 100 }, 2);
    script_lost(2);
    wants_open(1, 2, false);
    script_trim(0);
    wants_trim(1, 1, 0);
    script_opened_as(1, 3, (struct pipe_opened){ .length = 150, .windows_max = 2 });
    wants_trim(3, 1, 0);
    wants_nothing();
    run_window(3, 1, 1, 5);
    script_end();
}

/* Goal:   the longest outage is from the loss, or from when a window came if that was later, to
 *         the first answer that somebody waited for; replays and failovers are counted. */
static void outages_are_measured(void **state)
{
    struct pipeline_stage_stats stats;
    uint64_t                    number, window;

    (void)state;
    begin((uint32_t[]){ 100 }, 1);
    window = script_submit(1, LAST);
    script_answer(1, wants_forward(1, 0, 100, 1, ALL), 1);
    wants_forward(2, 0, 100, 1, LAST);
    script_ms = 2000.0;
    script_lost(2);
    wants_open(1, 2, false);
    script_ms = 2100.0;
    script_opened(1, 3, 8);
    wants_trim(3, 1, 0);
    script_answer(3, wants_forward(3, 1, 0, 100, NONE), 0);
    number = wants_forward(3, 1, 100, 1, LAST);
    script_ms = 2300.0;
    script_answer(3, number, 1);
    wants_output(window, 1);
    pipeline_get_stats(script_pipeline, 1, &stats);
    assert_true(stats.outage_ms_max == 300.0);
    assert_int_equal(stats.failovers, 1);
    assert_int_equal(stats.replayed_positions, 100);

    script_lost(3); /* while nobody waits */
    wants_open(1, 3, false);
    script_ms = 9000.0;
    script_opened(1, 4, 8);
    wants_trim(4, 2, 0);
    script_answer(4, wants_forward(4, 2, 0, 100, NONE), 0);
    script_answer(4, wants_forward(4, 2, 100, 1, NONE), 0);
    script_ms = 10000.0;
    script_submit(1, LAST);
    script_answer(1, wants_forward(1, 0, 101, 1, ALL), 1);
    number = wants_forward(4, 2, 101, 1, LAST);
    script_ms = 10400.0;
    script_answer(4, number, 1);
    pipeline_get_stats(script_pipeline, 1, &stats);
    assert_true(stats.outage_ms_max == 400.0);
    assert_int_equal(stats.failovers, 2);
    script_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answered_windows_are_replayed_and_unanswered_sent_again),
        cmocka_unit_test(replays_may_be_paced),
        cmocka_unit_test(replacements_are_lost_too),
        cmocka_unit_test(several_stages_are_lost_at_once),
        cmocka_unit_test(a_resumed_session_goes_on_from_a_boundary),
        cmocka_unit_test(a_window_without_rows_that_has_run_is_answered),
        cmocka_unit_test(what_a_session_holds_beyond_an_unseen_trim_is_stale),
        cmocka_unit_test(a_trim_that_was_seen_is_no_reason_to_replay),
        cmocka_unit_test(a_cut_window_is_replayed_whole_and_trimmed),
        cmocka_unit_test(small_windows_are_joined_where_that_is_exact),
        cmocka_unit_test(only_answered_windows_of_one_codec_are_joined),
        cmocka_unit_test(cut_windows_are_shortened_where_that_is_exact),
        cmocka_unit_test(a_trim_during_a_replay),
        cmocka_unit_test(a_trim_to_nothing_ends_a_replay),
        cmocka_unit_test(outages_are_measured),
    };

    return cmocka_run_group_tests_name("pipe/replace", tests, NULL, NULL);
}
