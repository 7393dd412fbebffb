/* worker/stream_test.c - sessions on a real worker: what comes back is what a local engine
 * computes, bit for bit, however windows are cut, mixed, trimmed and resumed.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/session_test.h"

enum { FIRST = 1, LAST = 3, LEASE_MS = 1000 }; /* of the model's 4 layers */

/* A forward with such a session lasts so long that others queue up behind it. */
static const char *const slow[] = { "mcp-debug-stall-ms", "150", NULL };
static const char *const slower[] = { "mcp-debug-stall-ms", "700", NULL };

static struct mcp_worker *worker;
static struct rig_client *client;

static int begin(void **state)
{
    mcp_worker_opts opts = rig_opts();

    (void)state;
    rig_begin();
    opts.debug_commands = 1;
    opts.lease_ms = LEASE_MS;
    worker = rig_worker(FIRST, LAST, &opts);
    client = rig_connect(worker);
    return 0;
}

static int end(void **state)
{
    (void)state;
    return rig_finish(client, worker);
}

static void send_part(struct rig_call *call, const struct rig_story *story, uint64_t number,
                      uint32_t pos, uint32_t count)
{
    const struct wire_frame frame = rig_part(story, number, pos, count);

    rig_send(call, &frame);
}

/* All windows of a story at once; and then all their results. */
static void send_all(struct rig_call *call, const struct rig_story *story, const uint32_t *ends,
                     size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t pos = i > 0 ? ends[i - 1] : 0;

        send_part(call, story, i, pos, ends[i] - pos);
    }
}

static void expect_all(struct rig_call *call, const struct rig_story *story, const uint32_t *ends,
                       size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t pos = i > 0 ? ends[i - 1] : 0;

        rig_part_result(call, story, i, pos, ends[i] - pos);
    }
}

static struct rig_call *session_with(const char *const *metadata, uint8_t id)
{
    const struct wire_open open = rig_open_frame(id, FIRST, LAST);
    struct rig_call       *call = rig_execute(client, metadata);

    rig_open_with(call, &open);
    return call;
}

static struct rig_call *slow_session(uint8_t id)
{
    return session_with(slow, id);
}

/* ---- windows ------------------------------------------------------------------------ */

/* Goal:   prefill in chunks and decode give the local run's bits.
 * Method: windows of 40, 1, 63 and then single positions, and the same ends on an engine here. */
static void chunks_and_decodes_equal_the_local_run(void **state)
{
    static const uint32_t ends[] = { 40, 41, 104, 105, 106, 107, 108 };
    struct rig_story     *story = rig_tell(FIRST, LAST, ends, UNIT_COUNT(ends), 1);
    struct rig_call      *call = rig_session(client, 1, FIRST, LAST);

    (void)state;
    send_all(call, story, ends, UNIT_COUNT(ends));
    expect_all(call, story, ends, UNIT_COUNT(ends));
    rig_close(call);
    rig_story_free(story);
}

/* Windows of several sessions behind a slow one.  Returns how many results came out of a larger
 * forward than their own window. */
static uint32_t run_together(struct rig_story **stories, const uint32_t (*ends)[4], int sessions)
{
    struct rig_call *calls[RIG_SESSIONS], *first = slow_session(9);
    uint32_t         shared = 0;

    for (int i = 0; i < sessions; i++)
        calls[i] = rig_session(client, (uint8_t)(10 + i), FIRST, LAST);
    send_part(first, stories[0], 0, 0, 8);
    for (int i = 0; i < sessions; i++)
        send_all(calls[i], stories[i], ends[i], 4);
    for (int i = 0; i < sessions; i++) {
        for (int j = 0; j < 4; j++) {
            uint32_t pos = j > 0 ? ends[i][j - 1] : 0, count = ends[i][j] - pos;

            shared += rig_look(calls[i])->frame.u.result.batch_tokens > count;
            rig_part_result(calls[i], stories[i], (uint64_t)j, pos, count);
        }
        rig_close(calls[i]);
    }
    rig_close(first);
    return shared;
}

/* Goal:   who shares a forward changes nothing.
 * Method: five sessions, each with a story of its own, told here alone; again until some did share
 *         one. */
static void sessions_in_one_batch_do_not_see_each_other(void **state)
{
    enum { SESSIONS = 5 };
    static const uint32_t ends[SESSIONS][4] = {
        { 30, 31, 32, 33 }, { 5, 10, 15, 20 },  { 1, 2, 3, 4 },
        { 64, 65, 70, 71 }, { 17, 18, 40, 41 },
    };
    struct rig_story *stories[SESSIONS];
    int               rounds = 0;

    (void)state;
    for (int i = 0; i < SESSIONS; i++)
        stories[i] = rig_tell(FIRST, LAST, ends[i], 4, (uint64_t)i + 10);
    while (run_together(stories, ends, SESSIONS) == 0)
        assert_true(++rounds < RIG_ROUNDS);
    for (int i = 0; i < SESSIONS; i++)
        rig_story_free(stories[i]);
}

/* Goal:   a long window that runs in pieces, because others decode, is answered in one piece with
 *         the same bits.
 * Method: 128 positions (chunk_tokens is 64) beside a session that decodes, until its last forward
 *         was smaller than it. */
static void a_window_run_in_pieces_is_answered_whole(void **state)
{
    static const uint32_t ends[] = { 128, 129 }, other_ends[] = { 1, 2, 3, 4, 5 };
    struct rig_story     *story = rig_tell(FIRST, LAST, ends, UNIT_COUNT(ends), 3);
    struct rig_story     *other = rig_tell(FIRST, LAST, other_ends, UNIT_COUNT(other_ends), 4);
    bool                  pieces = false;

    (void)state;
    for (int rounds = 0; !pieces; rounds++) {
        struct rig_call *call = rig_session(client, 20, FIRST, LAST), *decoder = slow_session(21);

        assert_true(rounds < RIG_ROUNDS);
        send_part(decoder, other, 0, 0, 1);
        send_all(call, story, ends, UNIT_COUNT(ends));
        for (uint32_t i = 1; i < 5; i++)
            send_part(decoder, other, i, i, 1);
        expect_all(decoder, other, other_ends, UNIT_COUNT(other_ends));
        pieces = rig_look(call)->frame.u.result.batch_tokens < 128;
        expect_all(call, story, ends, UNIT_COUNT(ends));
        rig_close(call);
        rig_close(decoder);
    }
    rig_story_free(story);
    rig_story_free(other);
}

/* Goal:   each codec and wrap, in and out.
 * Method: rows of the story through the codec here, computed here, and encoded here: the worker's
 *         bytes are the same. */
static void codecs_and_wraps_arrive_as_they_were_sent(void **state)
{
    enum { COUNT = 24 };
    static const uint32_t ends[] = { COUNT };
    struct rig_story     *story = rig_tell(FIRST, LAST, ends, 1, 5);
    mcp_engine_opts       opts = rig_engine_opts(FIRST, LAST);
    struct mcp_engine    *engine = run_engine(rig_model_open, &opts);
    uint32_t              n = rig_embd();
    float                *in = run_floats((size_t)COUNT * n), *out = run_floats((size_t)COUNT * n);
    mcp_error             err;

    (void)state;
    for (uint32_t id = 0; id < WIRE_CODECS * WIRE_WRAPS; id++) {
        const struct wire_codec *codec = wire_codec_by_id(id % WIRE_CODECS);
        uint32_t                 wrap = id / WIRE_CODECS;
        struct rig_call         *call = rig_session(client, 30, FIRST, LAST);
        size_t                   bytes = wire_codec_bytes(codec, COUNT, n), packed = 0;
        uint8_t   *plain = malloc(bytes), *wrapped = malloc(wire_wrap_bound(wrap, bytes) + 1);
        mcp_window window = { .count = COUNT, .hidden = in, .out = MCP_OUT_ALL };
        struct wire_frame         frame = rig_part(story, id, 0, COUNT);
        struct rig_news          *news;
        const struct wire_result *result;

        assert_non_null(plain);
        assert_non_null(wrapped);
        wire_codec_encode(codec, plain, story->in, COUNT, n);
        if (wrap != WIRE_PLAIN)
            packed = wire_wrap(wrap, codec, wrapped, wire_wrap_bound(wrap, bytes), plain, bytes);
        frame.u.forward.in = (struct wire_payload){ .codec = codec->id,
                                                    .wrap = packed > 0 ? wrap : WIRE_PLAIN,
                                                    .data = packed > 0 ? wrapped : plain,
                                                    .bytes = packed > 0 ? packed : bytes };
        frame.u.forward.in.total = frame.u.forward.in.bytes;
        frame.u.forward.reply_codec = codec->id;
        frame.u.forward.reply_wrap = wrap;
        rig_send(call, &frame);

        unit_ok(wire_codec_decode(codec, in, plain, bytes, COUNT, n, &err), &err);
        unit_ok(engine_trim(engine, 0, 0, &err), &err);
        unit_ok(engine_forward(engine, FIRST, LAST, MCP_WANT_HIDDEN, &window, 1, out,
                               (size_t)COUNT * n, &err),
                &err);
        wire_codec_encode(codec, plain, out, COUNT, n);

        news = rig_expect(call, WIRE_RESULT);
        result = &news->frame.u.result;
        assert_int_equal(result->out.codec, codec->id);
        assert_int_equal(result->rows, COUNT);
        if (result->out.wrap != WIRE_PLAIN) {
            assert_int_equal(result->out.wrap, wrap);
            unit_ok(
                wire_unwrap(wrap, codec, wrapped, bytes, result->out.data, result->out.bytes, &err),
                &err);
            assert_memory_equal(wrapped, plain, bytes);
        } else {
            assert_int_equal(result->out.bytes, bytes);
            assert_memory_equal(result->out.data, plain, bytes);
        }
        free(news);
        free(plain);
        free(wrapped);
        rig_close(call);
    }
    free(in);
    free(out);
    engine_close(engine);
    rig_story_free(story);
}

/* Goal:   wants, one by one: none, hidden, the last row.
 * Method: the same window three times in sessions of their own. */
static void a_window_returns_the_rows_wanted(void **state)
{
    static const uint32_t       ends[] = { 12 };
    static const enum wire_want wants[] = { WIRE_WANT_NONE, WIRE_WANT_HIDDEN,
                                            WIRE_WANT_HIDDEN_LAST };
    static const uint32_t       rows[] = { 0, 12, 1 };
    struct rig_story           *story = rig_tell(FIRST, LAST, ends, 1, 6);

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(wants); i++) {
        struct rig_call  *call = rig_session(client, (uint8_t)(40 + i), FIRST, LAST);
        struct wire_frame frame = rig_part(story, 7, 0, 12);

        frame.u.forward.want = wants[i];
        rig_send(call, &frame);
        rig_result(call, 7, rows[i], rig_embd(), story->out + (12 - rows[i]) * rig_embd());
        rig_close(call);
    }
    rig_story_free(story);
}

/* Goal:   answers that find no room wait for a slow reader, in order and whole.
 * Method: 10 MB of rows that are not bulk, and so not paced, are computed while nothing is read:
 *         more than window and queue hold. */
static void answers_wait_for_a_slow_reader(void **state)
{
    enum { COUNT = 100, ROUNDS = 200 };
    static const uint32_t ends[] = { COUNT };
    struct rig_story     *story = rig_tell(FIRST, LAST, ends, 1, 18);
    struct rig_call      *call = rig_session(client, 41, FIRST, LAST);
    mcp_worker_stats      before, now;

    (void)state;
    worker_get_stats(worker, &before);
    rig_deafen(call, true);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct wire_frame       frame = rig_part(story, i, 0, COUNT);
        const struct wire_frame trim = rig_trim(i + 1, 0);

        frame.u.forward.epoch = i;
        frame.u.forward.bulk = false;
        rig_send(call, &frame);
        do
            worker_get_stats(worker, &now);
        while (now.windows <= before.windows + i);
        rig_send(call, &trim);
    }
    rig_deafen(call, false);
    for (uint32_t i = 0; i < ROUNDS; i++)
        rig_part_result(call, story, i, 0, COUNT);
    rig_close(call);
    rig_story_free(story);
}

/* ---- trim, close, resume ------------------------------------------------------------ */

/* Goal:   after a Trim the session goes on as if what was trimmed had never run.
 * Method: a story; all of it trimmed and another told; trimmed to its middle and told again. */
static void trim_forgets(void **state)
{
    static const uint32_t ends[] = { 20, 40, 41 };
    struct rig_story     *story = rig_tell(FIRST, LAST, ends, UNIT_COUNT(ends), 7);
    struct rig_story     *other = rig_tell(FIRST, LAST, ends, UNIT_COUNT(ends), 8);
    struct rig_call      *call = rig_session(client, 50, FIRST, LAST);
    struct wire_frame     trim = rig_trim(1, 0), frame;

    (void)state;
    send_all(call, story, ends, UNIT_COUNT(ends));
    expect_all(call, story, ends, UNIT_COUNT(ends));
    rig_send(call, &trim);
    for (uint64_t i = 0; i < UNIT_COUNT(ends); i++) {
        uint32_t pos = i > 0 ? ends[i - 1] : 0;

        frame = rig_part(other, 10 + i, pos, ends[i] - pos);
        frame.u.forward.epoch = 1;
        rig_send(call, &frame);
        rig_part_result(call, other, 10 + i, pos, ends[i] - pos);
    }
    trim = rig_trim(2, 20);
    rig_send(call, &trim);
    frame = rig_part(other, 20, 20, 20);
    frame.u.forward.epoch = 2;
    rig_send(call, &frame);
    rig_part_result(call, other, 20, 20, 20);
    rig_close(call);
    rig_story_free(story);
    rig_story_free(other);
}

/* Goal:   windows of an older epoch that wait are dropped, also while one of them runs.
 * Method: a slow window runs, four wait, a Trim comes, then one of the new epoch: after it nothing
 *         of the old one is answered. */
static void trim_drops_what_waits(void **state)
{
    static const uint32_t   ends[] = { 8, 16, 24, 32, 40 };
    struct rig_story       *story = rig_tell(FIRST, LAST, ends, UNIT_COUNT(ends), 9);
    struct rig_call        *call = slow_session(51);
    const struct wire_frame trim = rig_trim(1, 0);
    struct wire_frame       frame = rig_part(story, 100, 0, 8);
    mcp_worker_stats        before, after;

    (void)state;
    worker_get_stats(worker, &before);
    send_all(call, story, ends, UNIT_COUNT(ends));
    rig_send(call, &trim);
    frame.u.forward.epoch = 1;
    rig_send(call, &frame);
    for (;;) {
        struct rig_news *news = rig_take(call);
        uint64_t         number = news->frame.u.result.number;

        free(news);
        if (number == 100)
            break;
        assert_true(number == 0); /* ran before the Trim came */
    }
    worker_get_stats(worker, &after);
    assert_true(after.windows - before.windows < UNIT_COUNT(ends) + 1);
    rig_close(call);
    rig_story_free(story);
}

/* Goal:   a session whose stream was lost goes on where it was.
 * Method: cancel after two windows, resume on another connection, tell the rest. */
static void a_session_resumes_where_it_was(void **state)
{
    static const uint32_t ends[] = { 33, 50, 51, 52 };
    struct rig_story     *story = rig_tell(FIRST, LAST, ends, UNIT_COUNT(ends), 11);
    struct rig_call      *call = rig_session(client, 60, FIRST, LAST);
    struct rig_client    *other = rig_connect(worker);
    struct wire_open      open = rig_open_frame(60, FIRST, LAST);
    struct wire_opened    opened;

    (void)state;
    send_all(call, story, ends, 2);
    expect_all(call, story, ends, 2);
    rig_drop(call);

    call = rig_execute(other, NULL);
    open.resume = true;
    opened = rig_open_with(call, &open);
    assert_int_equal(opened.length, 50);
    for (uint32_t i = 2; i < 4; i++) {
        send_part(call, story, i, ends[i - 1], 1);
        rig_part_result(call, story, i, ends[i - 1], 1);
    }
    rig_close(call);
    rig_disconnect(other);
    rig_story_free(story);
}

/* Goal:   the length told on resume is exact also when windows were running and waiting.
 * Method: cancel while a slow window runs and others wait; whatever length is told, the story goes
 *         on from there with the right bits. */
static void a_session_resumes_from_the_middle_of_a_batch(void **state)
{
    static const uint32_t ends[] = { 8, 16, 24, 32, 40 };
    struct rig_story     *story = rig_tell(FIRST, LAST, ends, UNIT_COUNT(ends), 12);
    struct rig_call      *call = slow_session(61);
    struct wire_open      open = rig_open_frame(61, FIRST, LAST);
    struct wire_opened    opened;

    (void)state;
    send_all(call, story, ends, UNIT_COUNT(ends));
    rig_drop(call);
    call = rig_execute(client, NULL);
    open.resume = true;
    opened = rig_open_with(call, &open);
    assert_true(opened.length % 8 == 0 && opened.length <= 40);
    for (uint32_t pos = opened.length; pos < 40; pos += 8) {
        struct wire_frame frame = rig_part(story, pos, pos, 8);

        frame.u.forward.epoch = opened.epoch;
        rig_send(call, &frame);
        rig_part_result(call, story, pos, pos, 8);
    }
    rig_close(call);
    rig_story_free(story);
}

static void a_resume_takes_the_session_from_its_old_stream(void **state)
{
    struct rig_call   *old = rig_session(client, 62, FIRST, LAST), *new;
    struct wire_open   open = rig_open_frame(62, FIRST, LAST);
    struct wire_opened opened;

    (void)state;
    open.resume = true;
    new = rig_execute(client, NULL);
    opened = rig_open_with(new, &open);
    assert_int_equal(opened.length, 0);
    rig_ended(old, WIRE_CANCELLED, "resumed on another stream");
    rig_close(old);
    rig_close(new);
}

/* Goal:   a lease ends; Close ends at once.
 * Method: resume finds nothing after either. */
static void nothing_is_left_after_the_lease_or_close(void **state)
{
    static const uint32_t   ends[] = { 8 };
    const struct wire_frame close_frame = { .kind = WIRE_CLOSE };
    struct rig_story       *story = rig_tell(FIRST, LAST, ends, 1, 13);
    struct wire_open        open = rig_open_frame(63, FIRST, LAST);

    (void)state;
    open.resume = true;
    for (int closes = 0; closes < 2; closes++) {
        struct rig_call   *call = rig_session(client, 63, FIRST, LAST);
        struct wire_opened opened;

        send_all(call, story, ends, 1);
        expect_all(call, story, ends, 1);
        if (closes) {
            rig_send(call, &close_frame);
            free(rig_expect(call, WIRE_CLOSED));
            rig_ended(call, WIRE_OK, "");
        }
        rig_drop(call);
        if (!closes)
            usleep((LEASE_MS + 400) * 1000);
        call = rig_execute(client, NULL);
        opened = rig_open_with(call, &open);
        assert_int_equal(opened.length, 0);
        rig_send(call, &close_frame);
        free(rig_expect(call, WIRE_CLOSED));
        rig_close(call);
    }
    rig_story_free(story);
}

/* A client that has said all it had to say still gets all its answers, then OK.
 */
static void half_close_waits_for_the_answers(void **state)
{
    static const uint32_t ends[] = { 8, 16, 24 };
    struct rig_story     *story = rig_tell(FIRST, LAST, ends, UNIT_COUNT(ends), 14);
    struct rig_call      *call = slow_session(64);

    (void)state;
    send_all(call, story, ends, UNIT_COUNT(ends));
    rig_half_close(call);
    expect_all(call, story, ends, UNIT_COUNT(ends));
    rig_ended(call, WIRE_OK, "");
    rig_close(call);
    rig_story_free(story);
}

/* ---- liveness ----------------------------------------------------------------------- */

/* Goal:   a Beat is echoed while the worker computes.
 * Method: a window that takes long, a Beat behind it: the echo comes first. */
static void beats_are_echoed_while_the_worker_computes(void **state)
{
    static const uint32_t   ends[] = { 4 };
    struct rig_story       *story = rig_tell(FIRST, LAST, ends, 1, 15);
    struct rig_call        *call = session_with(slower, 70);
    const struct wire_frame beat = { .kind = WIRE_BEAT, .u.beat = 4711 };
    struct rig_news        *news;

    (void)state;
    send_all(call, story, ends, 1);
    rig_send(call, &beat);
    news = rig_expect(call, WIRE_BEAT);
    assert_int_equal(news->frame.u.beat, 4711);
    free(news);
    expect_all(call, story, ends, 1);
    rig_close(call);
    rig_story_free(story);
}

/* Goal:   a window that could not begin in time is refused unrun, and only the stream ends for it.
 * Method: it waits behind a slow one; the session is resumed and told to its end. */
static void a_deadline_ends_the_stream_and_not_the_session(void **state)
{
    static const uint32_t ends[] = { 4, 8 };
    struct rig_story     *story = rig_tell(FIRST, LAST, ends, UNIT_COUNT(ends), 16);
    struct rig_call      *call = session_with(slower, 71), *again;
    struct wire_open      open = rig_open_frame(71, FIRST, LAST);
    struct wire_frame     late = rig_part(story, 1, 4, 4);

    (void)state;
    late.u.forward.deadline_ms = 20;
    send_part(call, story, 0, 0, 4);
    rig_send(call, &late);
    rig_ended(call, WIRE_DEADLINE_EXCEEDED, "window 1");
    rig_drop(call);
    again = rig_execute(client, NULL);
    open.resume = true;
    for (uint32_t pos = rig_open_with(again, &open).length; pos < 8; pos += 4) {
        send_part(again, story, pos, pos, 4);
        rig_part_result(again, story, pos, pos, 4);
    }
    rig_close(again);
    rig_story_free(story);
}

/* ---- state -------------------------------------------------------------------------- */

/* Goal:   a session's KV moved to another one goes on there.
 * Method: export of the first 30 positions from one, import into a fresh one, the same continuation
 *         on it. */
static void exported_state_goes_on_in_another_session(void **state)
{
    static const uint32_t   ends[] = { 30, 31, 40 };
    struct rig_story       *story = rig_tell(FIRST, LAST, ends, UNIT_COUNT(ends), 17);
    struct rig_call        *from = rig_session(client, 80, FIRST, LAST);
    struct rig_call        *to = rig_session(client, 81, FIRST, LAST);
    const struct wire_frame trim = rig_trim(1, 0);
    struct wire_frame       frame;
    struct rig_news        *block, *answer;

    (void)state;
    rig_send(from, &trim); /* exports have no epoch of their own: they belong to the current one */
    frame = rig_part(story, 0, 0, 30);
    frame.u.forward.epoch = 1;
    rig_send(from, &frame);
    expect_all(from, story, ends, 1);
    frame = (struct wire_frame){ .kind = WIRE_EXPORT };
    frame.u.export = (struct wire_export){ 5, FIRST, LAST, 0, 30 };
    rig_send(from, &frame);
    block = rig_expect(from, WIRE_STATE);
    assert_int_equal(block->frame.u.state.number, 5);
    assert_int_equal(block->frame.u.state.length, 30);

    frame = (struct wire_frame){ .kind = WIRE_IMPORT };
    frame.u.state.number = 6;
    frame.u.state.block = block->frame.u.state.block;
    rig_send(to, &frame);
    answer = rig_expect(to, WIRE_STATE);
    assert_int_equal(answer->frame.u.state.number, 6);
    assert_int_equal(answer->frame.u.state.length, 30);
    assert_int_equal(answer->bytes, 0);
    for (uint32_t i = 1; i < 3; i++) {
        send_part(to, story, i, ends[i - 1], ends[i] - ends[i - 1]);
        rig_part_result(to, story, i, ends[i - 1], ends[i] - ends[i - 1]);
    }
    free(block);
    free(answer);
    rig_close(from);
    rig_close(to);
    rig_story_free(story);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_and_decodes_equal_the_local_run),
        cmocka_unit_test(sessions_in_one_batch_do_not_see_each_other),
        cmocka_unit_test(a_window_run_in_pieces_is_answered_whole),
        cmocka_unit_test(codecs_and_wraps_arrive_as_they_were_sent),
        cmocka_unit_test(a_window_returns_the_rows_wanted),
        cmocka_unit_test(answers_wait_for_a_slow_reader),
        cmocka_unit_test(trim_forgets),
        cmocka_unit_test(trim_drops_what_waits),
        cmocka_unit_test(a_session_resumes_where_it_was),
        cmocka_unit_test(a_session_resumes_from_the_middle_of_a_batch),
        cmocka_unit_test(a_resume_takes_the_session_from_its_old_stream),
        cmocka_unit_test(nothing_is_left_after_the_lease_or_close),
        cmocka_unit_test(half_close_waits_for_the_answers),
        cmocka_unit_test(beats_are_echoed_while_the_worker_computes),
        cmocka_unit_test(a_deadline_ends_the_stream_and_not_the_session),
        cmocka_unit_test(exported_state_goes_on_in_another_session),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
