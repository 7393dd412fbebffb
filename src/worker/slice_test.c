/* worker/slice_test.c - forwards that are paused between layers: nobody sees it but who is faster.
 *
 * A device that takes so much longer (mcp-debug-stall-ms) that each layer is a slice.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/session_test.h"

enum { STALL_MS = 400 };

static struct mcp_worker *worker;
static struct rig_client *client;

static int begin(void **state)
{
    mcp_worker_opts opts = rig_opts();

    (void)state;
    rig_begin();
    opts.debug_commands = 1;
    worker = rig_worker(0, 0, &opts);
    client = rig_connect(worker);
    return 0;
}

static int end(void **state)
{
    (void)state;
    return rig_finish(client, worker);
}

/* A session of the class batch on a slow device, whose first window has run whole: from then on
 * the worker knows how slow it is. */
static struct rig_call *slow_session(uint8_t id, const struct rig_story *story, uint32_t count)
{
    static const char *const slow[] = { "mcp-debug-stall-ms", "400", NULL };
    struct wire_open         open = rig_open_frame(id, story->first, story->last);
    struct rig_call         *call = rig_execute(client, slow);
    const struct wire_frame  frame = rig_tokens(0, 0, count, story->tokens, WIRE_WANT_LOGITS);

    open.qos = WIRE_QOS_BATCH;
    rig_open_with(call, &open);
    rig_send(call, &frame);
    rig_result(call, 0, count, rig_model_open->hp.n_vocab, story->logits);
    return call;
}

static void send_part(struct rig_call *call, const struct rig_story *story, uint64_t number,
                      uint32_t pos, uint32_t count)
{
    const struct wire_frame frame = rig_tokens(number, pos, count, story->tokens + pos,
                                               WIRE_WANT_LOGITS);

    rig_send(call, &frame);
}

static void part_result(struct rig_call *call, const struct rig_story *story, uint64_t number,
                        uint32_t pos, uint32_t count)
{
    size_t vocab = rig_model_open->hp.n_vocab;

    rig_result(call, number, count, (uint32_t)vocab, story->logits + pos * vocab);
}

static bool has_answer(struct rig_call *call)
{
    bool has;

    pthread_mutex_lock(&client->lock);
    has = call->news != NULL;
    pthread_mutex_unlock(&client->lock);
    return has;
}

/* Goal:   a normal session's windows run between the layers of a batch session's forward; both get
 *         the bits that they get alone; and the pauses count as time in the queue.
 * Method: prefill in two windows of 70 positions, which cannot be cut, from tokens to logits.
 *         Three decodes one after the other while the first of them runs: all are back before
 *         it. */
static void decodes_run_between_layers(void **state)
{
    static const uint32_t    ends[] = { 8, 78, 148 };
    static const uint32_t    ones[] = { 1, 2, 3, 4 };
    static const char *const twenty[] = { "mcp-debug-stall-ms", "20", NULL };
    enum { DECODES = UNIT_COUNT(ones) - 1 };
    struct rig_story         *long_one = rig_tell(0, 4, ends, UNIT_COUNT(ends), 1);
    struct rig_story         *short_one = rig_tell(0, 4, ones, UNIT_COUNT(ones), 2);
    struct rig_call          *slow = slow_session(1, long_one, ends[0]);
    struct rig_call          *fast = rig_execute(client, twenty);
    const struct wire_open    open = rig_open_frame(2, 0, 4);
    const struct wire_result *r;

    (void)state;
    rig_open_with(fast, &open);
    send_part(fast, short_one, 0, 0, 1);
    part_result(fast, short_one, 0, 0, 1);
    send_part(slow, long_one, 1, 8, 70);
    usleep(STALL_MS * 1000 / 8); /* in its first layer */
    for (uint32_t i = 1; i <= DECODES; i++) {
        send_part(fast, short_one, i, i, 1);
        part_result(fast, short_one, i, i, 1);
        assert_false(has_answer(slow));
    }
    r = &rig_look(slow)->frame.u.result;
    assert_true(r->compute_us >= STALL_MS * 1000 && r->compute_us < 2 * STALL_MS * 1000);
    assert_true(r->queue_us >= DECODES * 20 * 1000);
    part_result(slow, long_one, 1, 8, 70);
    send_part(slow, long_one, 2, 78, 70);
    part_result(slow, long_one, 2, 78, 70);
    rig_close(slow);
    rig_close(fast);
    rig_story_free(long_one);
    rig_story_free(short_one);
}

/* Goal:   a window that is trimmed, or whose session is closed, while its forward is paused harms
 *         nobody: the session goes on where the Trim says, and a new one in the slot is right. */
static void a_paused_window_can_be_taken_back(void **state)
{
    static const uint32_t   ends[] = { 8, 78, 108 };
    const struct wire_frame trim = rig_trim(1, 8);
    struct rig_story       *story = rig_tell(0, 4, ends, UNIT_COUNT(ends), 3);
    struct rig_call        *call = slow_session(3, story, ends[0]);
    struct wire_frame       again;

    (void)state;
    send_part(call, story, 1, 8, 70);
    usleep(STALL_MS * 1000 / 8);
    rig_send(call, &trim);
    again = rig_tokens(2, 8, 70, story->tokens + 8, WIRE_WANT_LOGITS);
    again.u.forward.epoch = 1;
    rig_send(call, &again);
    part_result(call, story, 2, 8, 70);
    again = rig_tokens(3, 78, 30, story->tokens + 78, WIRE_WANT_LOGITS);
    again.u.forward.epoch = 1;
    rig_send(call, &again);
    usleep(STALL_MS * 1000 / 8);
    rig_close(call);
    call = slow_session(3, story, ends[0]);
    send_part(call, story, 1, 8, 70);
    part_result(call, story, 1, 8, 70);
    rig_close(call);
    rig_story_free(story);
}

/* Goal:   a worker that is closed while a forward is paused ends it. */
static void close_ends_a_paused_forward(void **state)
{
    static const uint32_t ends[] = { 8, 78 };
    struct rig_story     *story = rig_tell(0, 4, ends, UNIT_COUNT(ends), 4);
    struct rig_call      *call = slow_session(4, story, ends[0]);
    mcp_worker_opts       opts = rig_opts();

    (void)state;
    send_part(call, story, 1, 8, 70);
    usleep(STALL_MS * 1000 / 8);
    worker_close(worker);
    assert_int_equal(rig_status(call).code, WIRE_UNAVAILABLE);
    rig_drop(call);
    rig_disconnect(client);
    rig_story_free(story);
    worker = rig_worker(0, 0, &opts);
    client = rig_connect(worker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_run_between_layers),
        cmocka_unit_test(a_paused_window_can_be_taken_back),
        cmocka_unit_test(close_ends_a_paused_forward),
    };

    return cmocka_run_group_tests_name("worker/slice", tests, begin, end);
}
