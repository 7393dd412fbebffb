/* worker/refuse_test.c - what a client may not do: refused with a status and a sentence, and the
 * other sessions go on as if nothing had been.
 *
 * SPDX-License-Identifier: MIT */
#include "base/sha256.h"
#include "worker/session_test.h"

enum { FIRST = 1, LAST = 3 };

static struct mcp_worker *worker;
static struct rig_client *client;

/* A session that is in nobody's way: it decodes one position after each refusal, and must get the
 * bits that it would get alone. */
static struct {
    struct rig_story *story;
    struct rig_call  *call;
    uint32_t          pos;
} neighbour;

static int begin(void **state)
{
    static uint32_t ends[RIG_CTX];
    mcp_worker_opts opts = rig_opts();

    (void)state;
    rig_begin();
    opts.debug_commands = 1;
    worker = rig_worker(FIRST, LAST, &opts);
    client = rig_connect(worker);
    for (uint32_t i = 0; i < UNIT_COUNT(ends); i++)
        ends[i] = i + 1;
    neighbour.story = rig_tell(FIRST, LAST, ends, UNIT_COUNT(ends), 1);
    neighbour.call = rig_session(client, 200, FIRST, LAST);
    return 0;
}

static int end(void **state)
{
    (void)state;
    rig_close(neighbour.call);
    rig_story_free(neighbour.story);
    rig_disconnect(client);
    worker_close(worker);
    rig_end();
    return 0;
}

static void neighbour_asks(void)
{
    const struct wire_frame frame = rig_part(neighbour.story, neighbour.pos, neighbour.pos, 1);

    rig_send(neighbour.call, &frame);
}

static void neighbour_is_answered(void)
{
    rig_part_result(neighbour.call, neighbour.story, neighbour.pos, neighbour.pos, 1);
    neighbour.pos++;
}

/* After `frame` the call ends so, and the neighbour still runs. */
static void refused_after(struct rig_call *call, const struct wire_frame *frame, int code,
                          const char *about)
{
    neighbour_asks();
    rig_send(call, frame);
    rig_ended(call, code, about);
    neighbour_is_answered();
    rig_drop(call);
}

/* ---- Open --------------------------------------------------------------------------- */

static void open_refused(const struct wire_open *open, int code, const char *about)
{
    const struct wire_frame frame = { .kind = WIRE_OPEN, .u.open = *open };

    refused_after(rig_execute(client, NULL), &frame, code, about);
}

static void another_model_is_refused(void **state)
{
    struct wire_open open = rig_open_frame(1, FIRST, LAST);

    (void)state;
    open.model[7] ^= 1;
    open_refused(&open, WIRE_FAILED_PRECONDITION, "this worker has");
}

/* Goal:   weights are compared where the client names them.
 * Method: the digest over this file's fingerprints is taken, one bit beside it is not. */
static void other_weights_are_refused(void **state)
{
    struct wire_open    open = rig_open_frame(2, FIRST, LAST);
    struct base_sha256 *h = base_sha256_new();
    uint8_t             print[MCP_FINGERPRINT_BYTES];
    struct rig_call    *call = rig_execute(client, NULL);
    mcp_error           err;

    (void)state;
    for (int layer = FIRST; layer < LAST; layer++) {
        unit_ok(model_weights_fingerprint(rig_model_open, layer, print, &err), &err);
        base_sha256_add(h, print, sizeof(print));
    }
    unit_ok(base_sha256_finish(h, open.weights, &err), &err);
    open.weights_given = true;
    rig_open_with(call, &open);
    rig_close(call);
    open.weights[0] ^= 1;
    open_refused(&open, WIRE_FAILED_PRECONDITION, "weights of layers [1, 3)");
}

static void layers_that_are_not_here_are_refused(void **state)
{
    static const uint32_t ranges[][2] = { { 0, 2 }, { 2, 4 }, { 2, 2 }, { 3, 1 }, { 1, 400 } };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(ranges); i++) {
        const struct wire_open open = rig_open_frame(3, ranges[i][0], ranges[i][1]);

        open_refused(&open, WIRE_FAILED_PRECONDITION, "this worker holds [1, 3)");
    }
}

static void a_context_larger_than_a_slot_is_refused(void **state)
{
    struct wire_open open = rig_open_frame(4, FIRST, LAST);

    (void)state;
    open.ctx_tokens = RIG_CTX + 1;
    open_refused(&open, WIRE_INVALID_ARGUMENT, "a session holds 256");
}

static void realtime_takes_a_token_that_grants_it(void **state)
{
    struct wire_open open = rig_open_frame(5, FIRST, LAST);

    (void)state;
    open.qos = WIRE_QOS_REALTIME;
    open_refused(&open, WIRE_PERMISSION_DENIED, "realtime");
}

/* Goal:   another subject's session is not to be had, whatever is asked.
 * Method: the neighbour's id from a client with a certificate of its own. */
static void another_tenants_session_is_refused(void **state)
{
    const char        *folder = unit_path("keys-mallory");
    struct rig_client *other;
    struct wire_open   open = rig_open_frame(200, FIRST, LAST);
    mcp_error          err;

    (void)state;
    unit_ok(guard_keys_issue(rig_keys, MCP_ROLE_CLIENT, "mallory", NULL, folder, &err), &err);
    other = rig_connect_as(worker, folder, "client");
    for (int resume = 0; resume < 2; resume++) {
        const struct wire_frame frame = { .kind = WIRE_OPEN, .u.open = open };
        struct rig_call        *call = rig_execute(other, NULL);

        rig_send(call, &frame);
        rig_ended(call, WIRE_PERMISSION_DENIED, "not for this subject");
        rig_drop(call);
        open.resume = true;
    }
    neighbour_asks();
    neighbour_is_answered();
    rig_disconnect(other);
}

/* Places are bounded, and the refusal tells when to come again. */
static void a_full_worker_says_when_to_come_again(void **state)
{
    struct rig_call       *calls[RIG_SESSIONS - 1], *late = rig_execute(client, NULL);
    const struct wire_open open = rig_open_frame(99, FIRST, LAST);
    struct wire_frame      frame = { .kind = WIRE_OPEN, .u.open = open };

    (void)state;
    for (uint32_t i = 0; i < RIG_SESSIONS - 1; i++)
        calls[i] = rig_session(client, (uint8_t)(10 + i), FIRST, LAST);
    rig_send(late, &frame);
    rig_ended(late, WIRE_RESOURCE_EXHAUSTED, "sessions");
    assert_true(rig_status(late).retry_after_ms > 0);
    for (uint32_t i = 0; i < RIG_SESSIONS - 1; i++)
        rig_close(calls[i]);
    rig_drop(late);
}

static void the_first_frame_must_be_open(void **state)
{
    const struct wire_frame trim = rig_trim(1, 0);

    (void)state;
    refused_after(rig_execute(client, NULL), &trim, WIRE_INVALID_ARGUMENT, "it must be open");
}

static void a_second_open_is_refused(void **state)
{
    const struct wire_open  open = rig_open_frame(6, FIRST, LAST);
    const struct wire_frame frame = { .kind = WIRE_OPEN, .u.open = open };

    (void)state;
    refused_after(rig_session(client, 6, FIRST, LAST), &frame, WIRE_INVALID_ARGUMENT,
                  "a second open");
}

static void bytes_that_are_no_frame_are_refused(void **state)
{
    struct rig_call *call = rig_session(client, 7, FIRST, LAST);

    (void)state;
    rig_send_bytes(call, "\xff\xff\xff", 3);
    rig_ended(call, WIRE_INVALID_ARGUMENT, "");
    rig_drop(call);
    call = rig_execute(client, NULL);
    rig_send_bytes(call, "\xff\xff\xff", 3);
    rig_ended(call, WIRE_INVALID_ARGUMENT, "");
    rig_drop(call);
}

/* ---- Forward ------------------------------------------------------------------------ */

static const int32_t zeros[8];

static void at_1(struct wire_forward *f)
{
    f->pos = 1;
}

static void of_epoch_3(struct wire_forward *f)
{
    f->epoch = 3;
}

static void of_7(struct wire_forward *f)
{
    f->count = 7;
}

static void of_none(struct wire_forward *f)
{
    f->count = 0;
}

static void of_too_many(struct wire_forward *f)
{
    f->count = RIG_BATCH + 1;
}

static void wanting_logits(struct wire_forward *f)
{
    f->want = WIRE_WANT_LOGITS_LAST;
}

static void with_tokens(struct wire_forward *f)
{
    f->tokens = zeros;
    f->token_count = 8;
    f->in = (struct wire_payload){ 0 };
}

static void with_7_tokens(struct wire_forward *f)
{
    with_tokens(f);
    f->token_count = 7;
}

static void with_nothing(struct wire_forward *f)
{
    f->in = (struct wire_payload){ 0 };
}

/* Goal:   every way in which a window can be wrong.
 * Method: a right one, with one thing changed. */
static void windows_that_do_not_fit_are_refused(void **state)
{
    static const struct {
        void (*change)(struct wire_forward *f);
        const char *about;
    } rows[] = {
        { at_1, "the session goes on at 0" },
        { of_epoch_3, "epoch 3" },
        { of_7, "it must be" },
        { of_none, "0 positions" },
        { of_too_many, "batch_tokens" },
        { wanting_logits, "logits come after layer 4" },
        { with_tokens, "tokens enter at layer 0" },
        { with_7_tokens, "7 token" },
        { with_nothing, "it must be" },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct wire_frame frame = rig_part(neighbour.story, 1, 0, 8);

        rows[i].change(&frame.u.forward);
        refused_after(rig_session(client, (uint8_t)(20 + i), FIRST, LAST), &frame,
                      WIRE_INVALID_ARGUMENT, rows[i].about);
    }
}

static void positions_beyond_the_context_are_refused(void **state)
{
    struct wire_open  open = rig_open_frame(28, FIRST, LAST);
    struct rig_call  *call = rig_execute(client, NULL);
    struct wire_frame frame;

    (void)state;
    open.ctx_tokens = 20;
    assert_int_equal(rig_open_with(call, &open).ctx_tokens, 20);
    frame = rig_part(neighbour.story, 0, 0, 21);
    refused_after(call, &frame, WIRE_INVALID_ARGUMENT, "ctx_tokens");
}

/* Goal:   values that are not finite end their own session only, though they come into a batch
 *         with others.
 * Method: bytes that decode to NaN or infinity, in f32, f16 and q8; the neighbour's window waits
 *         beside them behind a slow one. */
static void values_that_are_not_finite_are_refused(void **state)
{
    static const char *const slow[] = { "mcp-debug-stall-ms", "60", NULL };
    static const struct {
        uint32_t    codec;
        size_t      at;
        const char *bytes;
        size_t      count;
    } rows[] = {
        { WIRE_F32, 400, "\0\0\xc0\x7f", 4 }, /* NaN */
        { WIRE_F32, 404, "\0\0\x80\xff", 4 }, /* -infinity */
        { WIRE_F16, 20, "\0\x7c", 2 },        /* infinity */
        { WIRE_Q8, 0, "\0\x7e", 2 },          /* a scale: NaN */
    };
    uint32_t n = rig_embd();
    uint8_t  bytes[4 * 128 * sizeof(float)];

    (void)state;
    assert_true(4 * n * sizeof(float) <= sizeof(bytes));
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct wire_codec *codec = wire_codec_by_id(rows[i].codec);
        const struct wire_open   open = rig_open_frame(30, FIRST, LAST);
        struct wire_frame        frame = rig_part(neighbour.story, 1, 0, 4);
        struct rig_call         *call = rig_session(client, 31, FIRST, LAST);
        struct rig_call         *first = rig_execute(client, slow);

        rig_open_with(first, &open);
        rig_send(first, &frame);
        wire_codec_encode(codec, bytes, neighbour.story->in, 4, n);
        memcpy(bytes + rows[i].at, rows[i].bytes, rows[i].count);
        frame.u.forward.in.codec = codec->id;
        frame.u.forward.in.data = bytes;
        frame.u.forward.in.bytes = frame.u.forward.in.total = wire_codec_bytes(codec, 4, n);
        refused_after(call, &frame, WIRE_INVALID_ARGUMENT, "finite");
        rig_close(first);
    }
}

/* A wrapped payload that is not what it says. */
static void a_damaged_wrap_is_refused(void **state)
{
    struct wire_frame frame = rig_part(neighbour.story, 1, 0, 4);

    (void)state;
    for (uint32_t wrap = WIRE_ZSTD; wrap < WIRE_WRAPS; wrap++) {
        frame.u.forward.in.wrap = wrap;
        frame.u.forward.in.bytes = frame.u.forward.in.total = 100;
        refused_after(rig_session(client, 32, FIRST, LAST), &frame, WIRE_INVALID_ARGUMENT, "");
    }
    frame.u.forward.in.wrap = WIRE_ZSTD;
    frame.u.forward.in.bytes = frame.u.forward.in.total = 4 * rig_embd() * sizeof(float) + 1;
    frame.u.forward.in.data = (const uint8_t *)neighbour.story->in;
    refused_after(rig_session(client, 33, FIRST, LAST), &frame, WIRE_INVALID_ARGUMENT, "at most");
}

/* More than the windows that Opened allows. */
static void a_flood_of_windows_is_refused(void **state)
{
    static const char *const slow[] = { "mcp-debug-stall-ms", "300", NULL };
    const struct wire_open   open = rig_open_frame(34, FIRST, LAST);
    struct rig_call         *call = rig_execute(client, slow);
    struct wire_opened       opened = rig_open_with(call, &open);

    (void)state;
    for (uint32_t i = 0; i < opened.windows_max + 2; i++) {
        const struct wire_frame frame = rig_part(neighbour.story, i, i, 1);

        rig_send(call, &frame);
    }
    rig_ended(call, WIRE_RESOURCE_EXHAUSTED, "windows_max");
    assert_true(rig_status(call).retry_after_ms > 0);
    rig_drop(call);
}

/* Goal:   a client that asks and does not read cannot make our memory grow.
 * Method: the bound of all sessions lowered; one that acknowledges nothing sends rows in q4r, for
 *         which it gets eight times as many bytes, until its own credit is used up. */
static void a_client_that_does_not_read_is_refused(void **state)
{
    enum { COUNT = 100, ROUNDS = 30, BOUND = 200 << 10 }; /* 51,200 bytes a round */
    const struct wire_codec *codec = wire_codec_by_id(WIRE_Q4R);
    struct rig_call         *call = rig_session(client, 35, FIRST, LAST);
    size_t                   bytes = wire_codec_bytes(codec, COUNT, rig_embd());
    uint8_t                 *rows = malloc(bytes);
    uint64_t                 usual;

    (void)state;
    assert_non_null(rows);
    wire_codec_encode(codec, rows, neighbour.story->in, COUNT, rig_embd());
    neighbour_asks(); /* nothing of the tests before runs any more */
    neighbour_is_answered();
    pthread_mutex_lock(&worker->service.lock);
    usual = worker->service.unread_bytes_all;
    worker->service.unread_bytes_all = BOUND;
    pthread_mutex_unlock(&worker->service.lock);
    rig_deafen(call, true);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct wire_frame       frame = rig_part(neighbour.story, i, 0, COUNT);
        const struct wire_frame trim = rig_trim(i + 1, 0);

        frame.u.forward.epoch = i;
        frame.u.forward.in = (struct wire_payload){
            .codec = WIRE_Q4R, .data = rows, .bytes = bytes, .total = bytes
        };
        rig_send(call, &frame);
        usleep(10000); /* else it is dropped unrun */
        rig_send(call, &trim);
    }
    rig_wait_for_streams(worker, 1); /* the neighbour's */
    rig_deafen(call, false);
    rig_ended(call, WIRE_RESOURCE_EXHAUSTED, "wait to be read");
    rig_drop(call);
    neighbour_asks();
    neighbour_is_answered();
    pthread_mutex_lock(&worker->service.lock);
    worker->service.unread_bytes_all = usual;
    pthread_mutex_unlock(&worker->service.lock);
    free(rows);
}

/* ---- Trim, Generate, state ---------------------------------------------------------- */

static void trims_out_of_order_are_refused(void **state)
{
    struct wire_frame frame = rig_trim(0, 0);

    (void)state;
    refused_after(rig_session(client, 40, FIRST, LAST), &frame, WIRE_INVALID_ARGUMENT, "epoch");
    frame = rig_trim(1, 5);
    refused_after(rig_session(client, 41, FIRST, LAST), &frame, WIRE_INVALID_ARGUMENT, "5");
}

static void generate_takes_the_whole_model(void **state)
{
    static const int32_t tokens[] = { 1, 2 };
    struct wire_frame    frame = { .kind = WIRE_GENERATE };

    (void)state;
    frame.u.generate.tokens = tokens;
    frame.u.generate.token_count = 2;
    frame.u.generate.max_tokens = 5;
    refused_after(rig_session(client, 42, FIRST, LAST), &frame, WIRE_FAILED_PRECONDITION,
                  "whole model");
}

static void state_that_is_not_there_is_refused(void **state)
{
    static const struct {
        struct wire_export export;
        const char *about;
    } rows[] = {
        { { 1, 0, 2, 0, 1 }, "not of this stage" }, { { 1, 1, 4, 0, 1 }, "not of this stage" },
        { { 1, 2, 2, 0, 1 }, "not of this stage" }, { { 1, 1, 3, 1, 1 }, "no range" },
        { { 1, 1, 3, 0, 300 }, "no range" },        { { 1, 1, 3, 0, 5 }, "" },
    };
    static const uint8_t garbage[200] = "mcp-kv-1";
    struct wire_frame    frame = { .kind = WIRE_EXPORT };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        frame.u.export = rows[i].export;
        refused_after(rig_session(client, (uint8_t)(50 + i), FIRST, LAST), &frame,
                      WIRE_INVALID_ARGUMENT, rows[i].about);
    }
    frame = (struct wire_frame){ .kind = WIRE_IMPORT };
    refused_after(rig_session(client, 60, FIRST, LAST), &frame, WIRE_INVALID_ARGUMENT, "empty");
    frame.u.state.block = (struct wire_payload){ .data = garbage,
                                                 .bytes = sizeof(garbage),
                                                 .total = sizeof(garbage) };
    refused_after(rig_session(client, 61, FIRST, LAST), &frame, WIRE_INVALID_ARGUMENT, "");
}

/* A session whose layers are of different lengths: a block of its first layer was imported. */
static struct rig_call *uneven_session(const struct rig_news *block)
{
    struct wire_frame frame = { .kind = WIRE_IMPORT };
    struct rig_call  *call = rig_session(client, 72, FIRST, LAST);

    frame.u.state.block = block->frame.u.state.block;
    rig_send(call, &frame);
    free(rig_expect(call, WIRE_STATE));
    return call;
}

static uint64_t batch_faults(void)
{
    uint64_t faults;

    pthread_mutex_lock(&worker->service.lock);
    faults = worker->service.meters.faults;
    pthread_mutex_unlock(&worker->service.lock);
    return faults;
}

/* Goal:   a window that the engine itself refuses takes no other window of its batch with it.
 * Method: one of a session with layers of different lengths and the neighbour's wait behind a slow
 *         one and fail together; then each is run alone.  Again until they did meet. */
static void only_the_culprit_of_a_failed_batch_ends(void **state)
{
    static const char *const slow[] = { "mcp-debug-stall-ms", "60", NULL };
    const struct wire_open   open = rig_open_frame(70, FIRST, LAST);
    struct rig_call         *from = rig_session(client, 71, FIRST, LAST);
    struct wire_frame        frame = rig_part(neighbour.story, 1, 0, 8);
    struct rig_news         *block;

    (void)state;
    rig_send(from, &frame);
    free(rig_expect(from, WIRE_RESULT));
    frame = (struct wire_frame){ .kind = WIRE_EXPORT };
    frame.u.export = (struct wire_export){ 2, FIRST, FIRST + 1, 0, 8 };
    rig_send(from, &frame);
    block = rig_expect(from, WIRE_STATE);
    for (int rounds = 0; batch_faults() == 0; rounds++) {
        struct rig_call *to = uneven_session(block), *first = rig_execute(client, slow);

        assert_true(rounds < RIG_ROUNDS);
        rig_open_with(first, &open);
        frame = rig_part(neighbour.story, 1, 0, 4);
        rig_send(first, &frame);
        frame = rig_part(neighbour.story, 3, 8, 1);
        refused_after(to, &frame, WIRE_INVALID_ARGUMENT, "layer 2");
        rig_close(first);
    }
    free(block);
    rig_close(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_model_is_refused),
        cmocka_unit_test(other_weights_are_refused),
        cmocka_unit_test(layers_that_are_not_here_are_refused),
        cmocka_unit_test(a_context_larger_than_a_slot_is_refused),
        cmocka_unit_test(realtime_takes_a_token_that_grants_it),
        cmocka_unit_test(another_tenants_session_is_refused),
        cmocka_unit_test(a_full_worker_says_when_to_come_again),
        cmocka_unit_test(the_first_frame_must_be_open),
        cmocka_unit_test(a_second_open_is_refused),
        cmocka_unit_test(bytes_that_are_no_frame_are_refused),
        cmocka_unit_test(windows_that_do_not_fit_are_refused),
        cmocka_unit_test(positions_beyond_the_context_are_refused),
        cmocka_unit_test(values_that_are_not_finite_are_refused),
        cmocka_unit_test(a_damaged_wrap_is_refused),
        cmocka_unit_test(a_flood_of_windows_is_refused),
        cmocka_unit_test(a_client_that_does_not_read_is_refused),
        cmocka_unit_test(trims_out_of_order_are_refused),
        cmocka_unit_test(generate_takes_the_whole_model),
        cmocka_unit_test(state_that_is_not_there_is_refused),
        cmocka_unit_test(only_the_culprit_of_a_failed_batch_ends),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
