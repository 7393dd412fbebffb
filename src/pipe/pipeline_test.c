/* pipe/pipeline_test.c - windows through the stages, step by step.
 *
 * Losses are in replace_test.c, drains in drain_test.c, everything at random and at once in
 * storm_test.c.
 *
 * SPDX-License-Identifier: MIT */
#include "base/clock.h"
#include "pipe/script_test.h"

/* Stage i on endpoint i + 1, each with room for `windows_max` windows. */
static void begin_open(uint32_t stages, uint32_t windows_max)
{
    script_begin(stages, PIPE_WINDOWS_MAX, true);
    for (uint32_t i = stages; i > 0; i--)
        wants_open(i - 1, PIPE_NO_ENDPOINT, false);
    wants_nothing();
    for (uint32_t i = 0; i < stages; i++)
        script_opened(i, i + 1, windows_max);
    wants_nothing();
}

/* Goal:   a window enters as tokens, its rows go from stage to stage, and what the last one
 *         makes is the output, with as many rows as were asked for.
 * Method: one to five stages; every want. */
static void a_window_passes_through_the_stages_in_order(void **state)
{
    static const uint32_t rows[] = { /* of NONE, LAST, ALL */ 0, 1, 3 };

    (void)state;
    for (uint32_t stages = 1; stages <= 5; stages++) {
        uint32_t pos = 0;

        begin_open(stages, 4);
        for (enum pipe_want want = NONE; want <= ALL; want++, pos += 3) {
            uint64_t window = script_submit(3, want);

            for (uint32_t i = 0; i < stages; i++) {
                bool     final = i + 1 == stages;
                uint64_t number = wants_forward(i + 1, 0, pos, 3, final ? want : ALL);

                wants_nothing();
                assert_int_equal(pipeline_in_flight(script_pipeline), 1);
                script_answer(i + 1, number, final ? rows[want] : 3);
            }
            wants_output(window, rows[want]);
            wants_nothing();
            assert_int_equal(pipeline_in_flight(script_pipeline), 0);
            assert_int_equal(pipeline_length(script_pipeline), pos + 3);
        }
        script_end();
    }
}

/* Goal:   the rows that a stage answers are the very block that the next one gets, and those of
 *         the last are the output: nothing is copied or exchanged. */
static void rows_are_handed_on_as_they_are(void **state)
{
    struct pipe_block *hidden = pipe_block_new(3, 2, 16), *logits = pipe_block_new(0, 1, 40);
    struct pipe_act    act;

    (void)state;
    begin_open(2, 4);
    script_submit(2, LAST);
    pipeline_result(script_pipeline, script_ms, 1, wants_forward(1, 0, 0, 2, ALL), hidden,
                    (struct pipe_timing){ 0 });
    act = script_next(PIPE_ACT_FORWARD);
    assert_ptr_equal(act.block, hidden);
    pipe_block_unref(act.block);
    pipeline_result(script_pipeline, script_ms, 2, act.number, logits, (struct pipe_timing){ 0 });
    act = script_next(PIPE_ACT_OUTPUT);
    assert_ptr_equal(act.block, logits);
    pipe_block_unref(act.block);
    pipe_block_unref(hidden);
    pipe_block_unref(logits);
    script_end();
}

/* Goal:   several windows are under way in several stages at once, each endpoint gets them in
 *         order, and no more than it takes.
 * Method: eight windows, two stages; the first takes three at once, the second one. */
static void windows_are_in_flight_together_up_to_what_an_endpoint_takes(void **state)
{
    uint64_t window[8], first[8], second;

    (void)state;
    script_begin(2, PIPE_WINDOWS_MAX, true);
    wants_open(1, 0, false);
    wants_open(0, 0, false);
    script_opened(0, 1, 3);
    script_opened(1, 2, 1);
    for (uint32_t i = 0; i < 8; i++)
        window[i] = script_submit(2, i == 7 ? LAST : NONE);
    for (uint32_t i = 0; i < 3; i++)
        first[i] = wants_forward(1, 0, 2 * i, 2, ALL);
    wants_nothing();

    script_answer(1, first[0], 2);
    second = wants_forward(2, 0, 0, 2, NONE);
    first[3] = wants_forward(1, 0, 6, 2, ALL);
    for (uint32_t i = 1; i < 8; i++) {
        script_answer(1, first[i], 2);
        if (i + 3 < 8)
            first[i + 3] = wants_forward(1, 0, 2 * (i + 3), 2, ALL);
        wants_nothing(); /* the second one is busy */
    }
    for (uint32_t i = 0; i < 8; i++) {
        script_answer(2, second, i == 7 ? 1 : 0);
        if (i < 7)
            second = wants_forward(2, 0, 2 * (i + 1), 2, i == 6 ? LAST : NONE);
        wants_output(window[i], i == 7 ? 1 : 0);
        wants_nothing();
    }
    script_end();
}

/* Goal:   an endpoint that says it takes none, or more than the pipeline remembers, gets one,
 *         or as many as there can be. */
static void an_endpoints_limit_is_brought_into_range(void **state)
{
    (void)state;
    for (uint32_t limit = 0; limit <= 1000; limit += 1000) {
        uint32_t sent = limit == 0 ? 1 : PIPE_WINDOWS_MAX;

        script_begin(1, PIPE_WINDOWS_MAX, true);
        wants_open(0, 0, false);
        script_opened(0, 1, limit);
        for (uint32_t i = 0; i < PIPE_WINDOWS_MAX; i++)
            script_submit(1, LAST);
        for (uint32_t i = 0; i < sent; i++)
            wants_forward(1, 0, i, 1, LAST);
        wants_nothing();
        script_end();
    }
}

/* Goal:   windows may be submitted before any endpoint is there; they wait. */
static void windows_wait_for_endpoints(void **state)
{
    uint64_t window, number;

    (void)state;
    script_begin(2, 4, true);
    window = script_submit(5, LAST);
    wants_open(1, 0, false);
    wants_open(0, 0, false);
    wants_nothing();
    script_opened(0, 1, 4);
    script_answer(1, wants_forward(1, 0, 0, 5, ALL), 5);
    wants_nothing();
    script_opened(1, 2, 4);
    number = wants_forward(2, 0, 0, 5, LAST);
    script_answer(2, number, 1);
    wants_output(window, 1);
    script_end();
}

/* Goal:   more windows than were agreed are refused until an output makes room, and a refused
 *         call changes nothing. */
static void too_many_windows_are_refused(void **state)
{
    int32_t   token = 1;
    uint64_t  number = 99;
    mcp_error err;

    (void)state;
    script_begin(1, 2, true);
    wants_open(0, 0, false);
    script_opened(0, 1, 8);
    script_submit(1, LAST);
    script_submit(1, LAST);
    unit_refused(pipeline_submit(script_pipeline, script_ms, &token, 1, LAST, &number, &err),
                 MCP_EBUSY, &err, "2 windows are in flight");
    assert_int_equal(number, 99);
    assert_int_equal(pipeline_length(script_pipeline), 2);
    script_answer(1, wants_forward(1, 0, 0, 1, LAST), 1);
    unit_refused(pipeline_submit(script_pipeline, script_ms, &token, 1, LAST, &number, &err),
                 MCP_EBUSY, &err, "2 windows are in flight");
    wants_forward(1, 0, 1, 1, LAST);
    wants_output(1, 1);
    script_submit(1, LAST);
    wants_forward(1, 0, 2, 1, LAST);

    unit_refused(pipeline_submit(script_pipeline, script_ms, &token, 0, LAST, &number, &err),
                 MCP_ERANGE, &err, "a window of 0 positions");
    unit_refused(
        pipeline_submit(script_pipeline, script_ms, &token, UINT32_MAX - 1, LAST, &number, &err),
        MCP_ERANGE, &err, "4294967294 positions at position 3");
    unit_refused(pipeline_trim(script_pipeline, script_ms, 4, &err), MCP_ERANGE, &err,
                 "position 4 of 3");
    script_end();
}

/* Goal:   bulk is what is larger than a decode. */
static void large_windows_are_bulk(void **state)
{
    (void)state;
    begin_open(1, 4);
    for (uint32_t count = 15; count <= 18; count++) {
        struct pipe_act act;

        script_submit(count, NONE);
        act = script_next(PIPE_ACT_FORWARD);
        assert_int_equal(act.bulk, count > 16);
    }
    script_end();
}

/* Goal:   answers that nobody waits for change nothing: unknown endpoints and numbers, the same
 *         answer twice. */
static void answers_that_nobody_waits_for_are_ignored(void **state)
{
    uint64_t window, number;

    (void)state;
    begin_open(1, 4);
    window = script_submit(2, LAST);
    number = wants_forward(1, 0, 0, 2, LAST);
    script_answer(2, number, 1);
    script_answer(PIPE_NO_ENDPOINT, number, 1);
    script_answer(1, number + 1, 1);
    script_answer(1, 0, 1);
    wants_nothing();
    script_answer(1, number, 1);
    script_answer(1, number, 1);
    wants_output(window, 1);
    script_answer(1, number, 1);
    wants_nothing();
    script_end();
}

/* Goal:   an endpoint that answers out of order, or with other rows than were asked for, is given
 *         up with a sentence and replaced; what it answered is not believed. */
static void an_endpoint_that_breaks_the_contract_is_given_up(void **state)
{
    static const struct {
        uint32_t which, rows;
    } lies[] = { { 1, 1 }, { 0, 0 }, { 0, 2 } };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(lies); i++) {
        uint64_t window, number[2];

        begin_open(1, 4);
        window = script_submit(2, LAST);
        script_submit(1, LAST);
        number[0] = wants_forward(1, 0, 0, 2, LAST);
        number[1] = wants_forward(1, 0, 2, 1, LAST);
        script_answer(1, number[lies[i].which], lies[i].rows);
        wants_close(1, true);
        wants_open(0, 1, false);
        script_answer(1, number[0], 1);
        wants_nothing();
        script_opened(0, 2, 4);
        wants_trim(2, 1, 0);
        number[0] = wants_forward(2, 1, 0, 2, LAST);
        wants_forward(2, 1, 2, 1, LAST);
        script_answer(2, number[0], 1);
        wants_output(window, 1);
        script_end();
    }
}

/* ---- trims ------------------------------------------------------------------------------ */

/* Answer FORWARD [pos, +count) of each of `stages` endpoints in turn, up to the output. */
static void run_window(uint32_t stages, uint32_t epoch, uint32_t pos, uint32_t count)
{
    uint64_t window = script_submit(count, ALL);

    for (uint32_t i = 0; i < stages; i++)
        script_answer(i + 1, wants_forward(i + 1, epoch, pos, count, ALL), count);
    wants_output(window, count);
}

/* Goal:   a trim reaches every stage at once, in a new epoch, and the next window carries it.
 *         What is at its end already is not trimmed. */
static void a_trim_reaches_every_stage_in_a_new_epoch(void **state)
{
    (void)state;
    begin_open(3, 4);
    run_window(3, 0, 0, 8);
    script_trim(8);
    wants_nothing();
    script_trim(5);
    assert_int_equal(pipeline_length(script_pipeline), 5);
    for (uint32_t i = 3; i > 0; i--)
        wants_trim(i, 1, 5);
    wants_nothing();
    script_trim(5);
    wants_nothing();
    run_window(3, 1, 5, 4);
    script_trim(2); /* over two windows */
    for (uint32_t i = 3; i > 0; i--)
        wants_trim(i, 2, 2);
    run_window(3, 2, 2, 1);
    script_end();
}

/* Goal:   windows beyond a trim never come out, wherever they are; their late answers are
 *         ignored, also those that come after the Trim was sent.
 * Method: four windows, each at another place of a pipeline of three. */
static void windows_beyond_a_trim_are_void(void **state)
{
    uint64_t window, first[2], last[3];

    (void)state;
    begin_open(3, 1);
    window = script_submit(4, LAST);
    for (uint32_t i = 0; i < 3; i++)
        script_submit(4, LAST);
    script_answer(1, wants_forward(1, 0, 0, 4, ALL), 4);
    last[0] = wants_forward(2, 0, 0, 4, ALL);
    first[0] = wants_forward(1, 0, 4, 4, ALL);
    script_answer(2, last[0], 4);
    last[0] = wants_forward(3, 0, 0, 4, LAST);
    script_answer(1, first[0], 4);
    last[1] = wants_forward(2, 0, 4, 4, ALL);
    first[1] = wants_forward(1, 0, 8, 4, ALL);
    wants_nothing();

    script_trim(4); /* the third stage still owes [0, 4), the others are beyond */
    assert_int_equal(pipeline_in_flight(script_pipeline), 1);
    wants_trim(2, 1, 4);
    wants_trim(1, 1, 4);
    wants_nothing();
    script_answer(1, first[1], 4);
    script_answer(2, last[1], 4);
    wants_nothing();
    script_answer(3, last[0], 1);
    wants_output(window, 1);

    window = script_submit(1, LAST);
    script_answer(1, wants_forward(1, 1, 4, 1, ALL), 1);
    script_answer(2, wants_forward(2, 1, 4, 1, ALL), 1);
    script_answer(3, wants_forward(3, 0, 4, 1, LAST), 1);
    wants_output(window, 1);
    script_end();
}

/* Goal:   a Trim drops what has not run, so it waits for the answers that are still wanted,
 *         and what comes after the trim waits behind it. */
static void a_trim_waits_for_the_answers_that_are_wanted(void **state)
{
    uint64_t window[2], number[3];

    (void)state;
    begin_open(1, 8);
    window[0] = script_submit(4, LAST);
    window[1] = script_submit(4, LAST);
    script_submit(4, LAST);
    for (uint32_t i = 0; i < 3; i++)
        number[i] = wants_forward(1, 0, 4 * i, 4, LAST);
    script_trim(6);
    script_submit(1, LAST); /* waits */
    wants_nothing();
    script_answer(1, number[0], 1);
    wants_output(window[0], 1);
    wants_nothing();
    script_answer(1, number[1], 1);
    wants_trim(1, 1, 6);
    wants_forward(1, 1, 6, 1, LAST);
    wants_output(window[1], 1);
    wants_nothing();
    script_end();
}

/* Goal:   trims one after another before anything could be sent are one Trim, to the lowest. */
static void trims_in_a_row_are_one(void **state)
{
    uint64_t number;

    (void)state;
    begin_open(1, 8);
    run_window(1, 0, 0, 8);
    script_trim(6);
    script_trim(4);
    script_submit(3, ALL);
    script_trim(5);
    script_trim(3);
    wants_trim(1, 1, 3);
    wants_nothing();
    script_submit(2, ALL);
    number = wants_forward(1, 1, 3, 2, ALL);
    script_trim(0);
    wants_trim(1, 2, 0);
    script_answer(1, number, 2);
    wants_nothing();
    script_end();
}

/* Goal:   an output that was not yet fetched is void too when the session is trimmed before it;
 *         the window that spans the trim still comes out. */
static void outputs_beyond_a_trim_are_void(void **state)
{
    uint64_t window, number[2];

    (void)state;
    begin_open(1, 8);
    window = script_submit(4, ALL);
    script_submit(4, ALL);
    number[0] = wants_forward(1, 0, 0, 4, ALL);
    number[1] = wants_forward(1, 0, 4, 4, ALL);
    script_answer(1, number[0], 4);
    script_answer(1, number[1], 4);
    script_trim(2);
    wants_trim(1, 1, 2);
    wants_output(window, 4);
    wants_nothing();
    script_end();
}

/* ---- no journal, no endpoint, no way on ------------------------------------------------- */

/* Goal:   without a place for a stage the pipeline fails, once, with the reason; a trim to 0 and
 *         a new window begin afresh, and only the stage that lacks an endpoint asks for one. */
static void a_pipeline_without_a_place_fails_and_can_begin_afresh(void **state)
{
    int32_t   token = 1;
    uint64_t  window, number;
    mcp_error err;

    (void)state;
    begin_open(2, 8);
    run_window(2, 0, 0, 8);
    script_submit(1, ALL);
    number = wants_forward(1, 0, 8, 1, ALL);
    script_lost(2);
    wants_open(1, 2, false);
    script_unavailable(1);
    wants_failed(MCP_EUNAVAIL);
    wants_nothing();
    script_answer(1, number, 1);
    wants_nothing();
    unit_refused(pipeline_submit(script_pipeline, script_ms, &token, 1, ALL, &number, &err),
                 MCP_EUNAVAIL, &err, "no worker is left");
    script_trim(3);
    wants_nothing();
    unit_refused(pipeline_submit(script_pipeline, script_ms, &token, 1, ALL, &number, &err),
                 MCP_EUNAVAIL, &err, "no worker is left");

    script_trim(0);
    wants_trim(1, 1, 0);
    wants_nothing();
    window = script_submit(5, ALL);
    wants_open(1, 2, false);
    script_answer(1, wants_forward(1, 1, 0, 5, ALL), 5);
    script_opened(1, 3, 8);
    wants_trim(3, 1, 0);
    script_answer(3, wants_forward(3, 1, 0, 5, ALL), 5);
    wants_output(window, 5);
    script_end();
}

/* Goal:   what happens to endpoints while the pipeline has failed is remembered: one that comes
 *         late is used, one that goes is asked for again. */
static void endpoints_come_and_go_while_a_pipeline_has_failed(void **state)
{
    (void)state;
    script_begin(3, 8, true);
    for (uint32_t i = 3; i > 0; i--)
        wants_open(i - 1, PIPE_NO_ENDPOINT, false);
    script_opened(0, 1, 8);
    script_submit(4, ALL);
    wants_forward(1, 0, 0, 4, ALL);
    script_unavailable(1);
    wants_failed(MCP_EUNAVAIL);
    script_unavailable(2); /* no second failure */
    script_lost(1);
    wants_nothing();
    script_trim(0);
    wants_nothing();
    script_submit(4, ALL);
    wants_open(2, PIPE_NO_ENDPOINT, false);
    wants_open(1, PIPE_NO_ENDPOINT, false);
    wants_open(0, 1, false);
    script_unavailable(1);
    wants_failed(MCP_EUNAVAIL);
    script_opened(0, 2, 8);
    script_draining(2);
    wants_nothing();
    script_trim(0);
    wants_open(0, 2, true); /* it was draining, and nothing else is amiss with it */
    wants_trim(2, 1, 0);
    script_submit(4, ALL);
    wants_open(1, PIPE_NO_ENDPOINT, false);
    wants_forward(2, 1, 0, 4, ALL);
    wants_nothing();
    script_end();
}

/* Goal:   a stage that keeps no journal passes windows on and trims like any other, and fails
 *         when it is lost; its memory does not grow with the session. */
static void a_stage_without_journal_cannot_be_lost(void **state)
{
    (void)state;
    script_begin(2, 8, false);
    wants_open(1, 0, false);
    wants_open(0, 0, false);
    script_opened(0, 1, 8);
    script_opened(1, 2, 8);
    run_window(2, 0, 0, 8);
    run_window(2, 0, 8, 8);
    script_trim(12);
    wants_trim(2, 1, 12);
    wants_trim(1, 1, 12);
    run_window(2, 1, 12, 2);
    script_trim(3);
    wants_trim(2, 2, 3);
    wants_trim(1, 2, 3);
    script_draining(1);
    wants_nothing(); /* nothing to feed a successor with */
    run_window(2, 2, 3, 2);
    script_submit(1, ALL);
    wants_forward(1, 2, 5, 1, ALL);
    script_lost(1);
    wants_failed(MCP_EUNAVAIL);
    wants_nothing();
    script_trim(0);
    wants_trim(2, 3, 0);
    script_submit(1, ALL);
    wants_open(0, 1, false);
    script_opened(0, 3, 8);
    wants_trim(3, 3, 0); /* above every epoch that its predecessor was sent */
    wants_forward(3, 3, 0, 1, ALL);
    script_end();
}

static void impossible_pipelines_are_refused(void **state)
{
    static const struct pipeline_stage gap[] = { { 0, 2, true }, { 3, 4, true } };
    static const struct pipeline_stage empty[] = { { 0, 2, true }, { 2, 2, true } };
    struct pipeline                   *p;
    mcp_error                          err;

    (void)state;
    unit_refused(pipeline_new(&p, &(struct pipeline_opts){ gap, 2, 1 }, &err), MCP_ERANGE, &err,
                 "stage 1 has layers [3, 4) where [2, ...) comes");
    unit_refused(pipeline_new(&p, &(struct pipeline_opts){ empty, 2, 1 }, &err), MCP_ERANGE, &err,
                 "stage 1 has layers [2, 2)");
    unit_refused(pipeline_new(&p, &(struct pipeline_opts){ gap, 1, 0 }, &err), MCP_ERANGE, &err,
                 "0 windows in flight");
    unit_refused(pipeline_new(&p, &(struct pipeline_opts){ gap, 1, PIPE_WINDOWS_MAX + 1 }, &err),
                 MCP_ERANGE, &err, "65 windows in flight");
    unit_refused(pipeline_new(&p, &(struct pipeline_opts){ gap, 0, 1 }, &err), MCP_ERANGE, &err,
                 "0 stages");
    unit_refused(pipeline_new(&p, &(struct pipeline_opts){ gap, PIPE_STAGES_MAX + 1, 1 }, &err),
                 MCP_ERANGE, &err, "257 stages");
    assert_null(p);
    pipeline_free(NULL);
}

/* ---- figures ---------------------------------------------------------------------------- */

/* Goal:   windows, positions and times are counted a stage, from sent to answered. */
static void each_stage_counts_its_windows_and_times(void **state)
{
    struct pipeline_stage_stats stats;
    uint64_t                    number;

    (void)state;
    begin_open(2, 8);
    for (uint32_t i = 0; i < 3; i++) {
        script_submit(4, ALL);
        number = wants_forward(1, 0, 4 * i, 4, ALL);
        script_ms += 5.0;
        script_answer(1, number, 4);
        number = wants_forward(2, 0, 4 * i, 4, ALL);
        script_ms += 7.0;
        script_answer(2, number, 4);
        wants_output(i + 1, 4);
    }
    for (uint32_t i = 0; i < 2; i++) {
        pipeline_get_stats(script_pipeline, i, &stats);
        assert_int_equal(stats.windows, 3);
        assert_int_equal(stats.positions, 12);
        assert_true(stats.elapsed_ms == (i == 0 ? 15.0 : 21.0));
        assert_true(stats.queue_ms == 3.0 && stats.compute_ms == 6.0);
        assert_int_equal(stats.failovers + stats.handovers + stats.replayed_positions, 0);
        assert_true(stats.outage_ms_max == 0.0);
    }
    script_end();
}

/* One token through three stages, everything that the pipeline does for it. */
static void decode(struct pipeline *p, struct pipe_block *rows)
{
    int32_t         token = 1;
    uint64_t        number;
    struct pipe_act act;
    mcp_error       err;

    unit_ok(pipeline_submit(p, 1.0, &token, 1, LAST, &number, &err), &err);
    while (pipeline_act(p, 1.0, &act) && act.kind == PIPE_ACT_FORWARD) {
        pipeline_result(p, 1.0, act.endpoint, act.number, rows, (struct pipe_timing){ 0 });
        pipe_block_unref(act.block);
    }
    assert_int_equal(act.kind, PIPE_ACT_OUTPUT);
    pipe_block_unref(act.block);
}

/* Goal:   a decode window through three stages costs less than 5 us of pipeline time, behind a
 *         history of 100,000 as behind none.
 * Method: the fastest of many rounds, so that a busy machine does not matter. */
static void a_decode_costs_less_than_5_us(void **state)
{
    enum { ROUNDS = 500, WINDOWS = 200 };
    struct pipe_block *rows = pipe_block_new(0, 1, 64);
    double             best_us = 1e9;

    (void)state;
    begin_open(3, 8);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        double start_ms = base_clock_ms(), us;

        for (uint32_t i = 0; i < WINDOWS; i++)
            decode(script_pipeline, rows);
        us = (base_clock_ms() - start_ms) * 1e3 / WINDOWS;
        if (round >= ROUNDS / 2 && us < best_us)
            best_us = us;
    }
    print_message("%.2f us a decode window through 3 stages\n", best_us);
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(best_us < 5.0);
#endif
    script_end();
    pipe_block_unref(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_passes_through_the_stages_in_order),
        cmocka_unit_test(rows_are_handed_on_as_they_are),
        cmocka_unit_test(windows_are_in_flight_together_up_to_what_an_endpoint_takes),
        cmocka_unit_test(an_endpoints_limit_is_brought_into_range),
        cmocka_unit_test(windows_wait_for_endpoints),
        cmocka_unit_test(too_many_windows_are_refused),
        cmocka_unit_test(large_windows_are_bulk),
        cmocka_unit_test(answers_that_nobody_waits_for_are_ignored),
        cmocka_unit_test(an_endpoint_that_breaks_the_contract_is_given_up),
        cmocka_unit_test(a_trim_reaches_every_stage_in_a_new_epoch),
        cmocka_unit_test(windows_beyond_a_trim_are_void),
        cmocka_unit_test(a_trim_waits_for_the_answers_that_are_wanted),
        cmocka_unit_test(trims_in_a_row_are_one),
        cmocka_unit_test(outputs_beyond_a_trim_are_void),
        cmocka_unit_test(a_pipeline_without_a_place_fails_and_can_begin_afresh),
        cmocka_unit_test(endpoints_come_and_go_while_a_pipeline_has_failed),
        cmocka_unit_test(a_stage_without_journal_cannot_be_lost),
        cmocka_unit_test(impossible_pipelines_are_refused),
        cmocka_unit_test(each_stage_counts_its_windows_and_times),
        cmocka_unit_test(a_decode_costs_less_than_5_us),
    };

    return cmocka_run_group_tests_name("pipe/pipeline", tests, NULL, NULL);
}
