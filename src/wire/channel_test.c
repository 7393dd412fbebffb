/* wire/channel_test.c - two ends of a stream, and a peer that breaks its rules.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/channel.h"

#include <malloc.h> /* before malloc is replaced */

#include "base/starve_test.h"
#include "wire/made_test.h"

#include <math.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HEAP_IS_GLIBC false
#else
#define HEAP_IS_GLIBC true
#endif

enum { PAYLOAD_MAX = MADE_BYTES_MAX, ROUNDS = 60, FRAMES = 40, STEPS_MAX = 100000 };

static int releases;

static void release(void *owner)
{
    assert_ptr_equal(owner, made_bytes);
    releases++;
}

/* ---- both ends ------------------------------------------------------------------------ */

struct ends {
    struct wire_channel *agent, *worker;
    struct wire_pace     up, down;
};

static struct wire_channel *channel_new(bool worker, struct wire_pace *pace)
{
    struct wire_channel_opts opts = { .worker = worker, .payload_max = PAYLOAD_MAX, .pace = pace };
    struct wire_channel     *c;
    mcp_error                err;

    unit_ok(wire_channel_new(&c, &opts, &err), &err);
    return c;
}

static void ends_open(struct ends *e)
{
    assert_int_equal(wire_pace_init(&e->up), MCP_OK);
    assert_int_equal(wire_pace_init(&e->down), MCP_OK);
    e->agent = channel_new(false, &e->up);
    e->worker = channel_new(true, &e->down);
    releases = 0;
}

static void ends_close(struct ends *e)
{
    wire_channel_free(e->agent);
    wire_channel_free(e->worker);
    wire_pace_fini(&e->up);
    wire_pace_fini(&e->down);
}

static void send_frame(struct wire_channel *c, const struct wire_frame *f, bool owned)
{
    mcp_error err;

    unit_ok(wire_channel_send(c, f, owned ? release : NULL, owned ? made_bytes : NULL, &err), &err);
}

/* One message from one end to the other.  1: *f is whole; 0: it was a part or an answer;
 * -1: there is none. */
static int pass(struct wire_channel *from, struct wire_channel *to, double now, bool *bulk,
                struct wire_frame *f)
{
    size_t         count;
    const uint8_t *bytes = wire_channel_next(from, now, &count, bulk);
    mcp_error      err;
    int            rc;

    if (bytes == NULL)
        return -1;
    rc = wire_channel_receive(to, now, bytes, count, f, &err);
    unit_ok(rc, &err);
    return rc;
}

/* Until nothing moves in either direction; what is told must be nothing. */
static void settle(struct ends *e)
{
    struct wire_frame f;
    bool              bulk;
    int               a, b;

    do {
        a = pass(e->agent, e->worker, 0, &bulk, &f);
        b = pass(e->worker, e->agent, 0, &bulk, &f);
        assert_true(a <= 0 && b <= 0);
    } while (a == 0 || b == 0);
}

static struct wire_frame forward(size_t bytes, bool bulk)
{
    struct wire_frame f = { .kind = WIRE_FORWARD };

    f.u.forward.number = bytes;
    f.u.forward.count = 1;
    f.u.forward.bulk = bulk;
    f.u.forward.in.data = made_bytes;
    f.u.forward.in.bytes = bytes;
    return f;
}

static struct wire_frame plain(enum wire_kind kind)
{
    return (struct wire_frame){ .kind = kind };
}

/* Kind of the next message of an agent's channel, decoded; WIRE_NOTHING when there is none. */
static enum wire_kind next_kind(struct wire_channel *c, struct wire_frame *f)
{
    size_t         count;
    bool           bulk;
    const uint8_t *bytes = wire_channel_next(c, 0, &count, &bulk);
    mcp_error      err;

    if (bytes == NULL)
        return WIRE_NOTHING;
    unit_ok(wire_frame_decode(f, WIRE_REQUEST, bytes, count, NULL, &err), &err);
    return f->kind;
}

/* ---- a peer written by hand ------------------------------------------------------------- */

/* Give a channel one message made of this frame as it is, total and all. */
static int receive_raw(struct wire_channel *c, bool worker, const struct wire_frame *f,
                       struct wire_frame *got, mcp_error *err)
{
    struct made_message m = made_encode(f, worker ? WIRE_REQUEST : WIRE_REPLY);
    int                 rc = wire_channel_receive(c, 0, m.bytes, m.count, got, err);

    free(m.bytes);
    return rc;
}

/* A Forward whose head brings `bytes` of `total`. */
static int begin(struct wire_channel *c, size_t bytes, uint64_t total, bool bulk, mcp_error *err)
{
    struct wire_frame f = forward(bytes, bulk), got;

    f.u.forward.in.total = total;
    return receive_raw(c, true, &f, &got, err);
}

static int go_on(struct wire_channel *c, size_t bytes, struct wire_frame *got, mcp_error *err)
{
    struct wire_frame f = { .kind = WIRE_MORE };

    f.u.more.data = made_bytes;
    f.u.more.bytes = f.u.more.total = bytes;
    return receive_raw(c, true, &f, got, err);
}

/* ---- tests ---------------------------------------------------------------------------- */

struct expected {
    struct made_message frames[FRAMES]; /* whole */
    bool                state[FRAMES], is_come[FRAMES];
    int                 sent, come, owned;
};

/* A random frame of a kind that waits in order, and what must arrive of it. */
static void send_random(struct wire_channel *c, bool worker, struct expected *x, uint64_t *seed)
{
    static const enum wire_kind kinds[2][7] = {
        { WIRE_OPEN, WIRE_FORWARD, WIRE_TRIM, WIRE_GENERATE, WIRE_EXPORT, WIRE_IMPORT, WIRE_CLOSE },
        { WIRE_OPENED, WIRE_RESULT, WIRE_TOKEN, WIRE_STATE, WIRE_CLOSED, WIRE_RESULT, WIRE_STATE },
    };
    struct wire_frame    f;
    struct wire_payload *payload;
    bool                 owned;

    made_frame(&f, kinds[worker][unit_below(seed, 7)], seed);
    payload = wire_frame_payload(&f);
    owned = payload != NULL && unit_below(seed, 2);
    if (payload != NULL && payload->bytes > 0 && unit_below(seed, 4) == 0)
        payload->bytes = unit_below(seed, 300000);
    if (payload != NULL)
        payload->total = payload->bytes;
    x->state[x->sent] = f.kind == WIRE_STATE;
    x->frames[x->sent++] = made_encode(&f, worker ? WIRE_REPLY : WIRE_REQUEST);
    x->owned += owned;
    if (payload != NULL)
        payload->total = 12345; /* the channel knows better */
    send_frame(c, &f, owned);
}

static void check_arrived(const struct wire_frame *f, bool worker, struct expected *x)
{
    struct made_message come = made_encode(f, worker ? WIRE_REPLY : WIRE_REQUEST);
    struct made_message sent;
    int                 next = 0;

    /* Results and tokens may pass blocks of state; those, and all others, keep their order. */
    while (next < x->sent && (x->is_come[next] || x->state[next] != (f->kind == WIRE_STATE)))
        next++;
    assert_true(next < x->sent);
    sent = x->frames[next];
    x->is_come[next] = true;
    if (come.count != sent.count || memcmp(come.bytes, sent.bytes, sent.count) != 0)
        fail_msg("frame %d (%s) came other than it was sent: MCP_SEED=%" PRIu64, x->come,
                 wire_kind_name(f->kind), unit_seed());
    x->come++;
    free(come.bytes);
    free(sent.bytes);
}

/* Goal:   whatever is sent arrives whole, unchanged and in order, in both directions at once;
 *         afterwards nothing waits, nothing is unacknowledged, and owners are released once.
 * Method: random frames and payloads, messages passed in random order, a small credit. */
static void frames_arrive_whole_and_in_order(void **state)
{
    uint64_t seed = unit_seed();

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct ends     e;
        struct expected up = { .sent = 0 }, down = { .sent = 0 };
        uint64_t        sent, received, back;
        double          now = 0;
        int             steps = 0;

        ends_open(&e);
        while (up.come < FRAMES || down.come < FRAMES) {
            struct wire_frame f;
            bool              bulk;

            if (++steps > STEPS_MAX)
                fail_msg("round %d does not end: MCP_SEED=%" PRIu64, round, unit_seed());
            now += unit_below(&seed, 3);
            e.up.credit_bytes = e.down.credit_bytes = (1 + unit_below(&seed, 4)) *
                                                      (uint64_t)WIRE_PART_BYTES;
            switch (unit_below(&seed, 4)) {
            case 0:
                if (up.sent < FRAMES)
                    send_random(e.agent, false, &up, &seed);
                break;
            case 1:
                if (down.sent < FRAMES)
                    send_random(e.worker, true, &down, &seed);
                break;
            case 2:
                if (pass(e.agent, e.worker, now, &bulk, &f) == 1)
                    check_arrived(&f, false, &up);
                break;
            default:
                if (pass(e.worker, e.agent, now, &bulk, &f) == 1)
                    check_arrived(&f, true, &down);
                break;
            }
        }
        settle(&e);
        assert_int_equal(releases, up.owned + down.owned);
        assert_false(wire_channel_pending(e.agent) || wire_channel_pending(e.worker));
        assert_int_equal(wire_channel_queued_bytes(e.agent), 0);
        assert_int_equal(wire_channel_queued_bytes(e.worker), 0);
        assert_int_equal(e.up.sent_bytes, e.up.acked_bytes);
        assert_int_equal(e.down.sent_bytes, e.down.acked_bytes);
        wire_channel_bytes(e.agent, &sent, &back);
        wire_channel_bytes(e.worker, &received, &back);
        wire_channel_bytes(e.worker, &back, &received);
        assert_int_equal(sent, received);
        ends_close(&e);
    }
}

/* Goal:   a bulk payload leaves in parts, the first inside its frame, and each is acknowledged
 *         at once with the sum so far. */
static void a_bulk_payload_leaves_in_parts_and_each_is_acknowledged(void **state)
{
    enum { TOTAL = 3 * WIRE_PART_BYTES + 5 };
    struct wire_frame f = forward(TOTAL, true), got;
    struct ends       e;
    uint64_t          come = 0;

    (void)state;
    ends_open(&e);
    send_frame(e.agent, &f, true);
    assert_int_equal(wire_channel_queued_bytes(e.agent), TOTAL);
    for (int part = 0; part < 4; part++) {
        size_t         count, bytes = part < 3 ? WIRE_PART_BYTES : 5;
        bool           bulk;
        const uint8_t *message = wire_channel_next(e.agent, 0, &count, &bulk);
        mcp_error      err;
        int            rc;

        assert_non_null(message);
        assert_true(bulk);
        assert_in_range(count, bytes, bytes + WIRE_FRAME_OVERHEAD);
        assert_int_equal(releases, part == 3);
        rc = wire_channel_receive(e.worker, 100 + part, message, count, &got, &err);
        unit_ok(rc, &err);
        assert_int_equal(rc, part == 3);
        come += bytes;
        assert_int_equal(wire_channel_queued_bytes(e.agent), TOTAL - come);
        if (rc == 1) {
            assert_int_equal(got.u.forward.number, TOTAL);
            assert_int_equal(got.u.forward.in.bytes, TOTAL);
            assert_memory_equal(got.u.forward.in.data, made_bytes, TOTAL);
        }

        message = wire_channel_next(e.worker, 0, &count, &bulk);
        assert_non_null(message);
        assert_false(bulk);
        unit_ok(wire_frame_decode(&f, WIRE_REPLY, message, count, NULL, &err), &err);
        assert_int_equal(f.kind, WIRE_ACK);
        assert_int_equal(f.u.ack.bytes, come);
        assert_int_equal(f.u.ack.stamp_us, (100 + part) * 1000);
        assert_int_equal(wire_channel_receive(e.agent, 0, message, count, &f, &err), 0);
        assert_int_equal(e.up.acked_bytes, come);
        assert_null(wire_channel_next(e.worker, 0, &count, &bulk));
    }
    ends_close(&e);
}

/* Goal:   bulk leaves only as the pace allows; Beats pass it, later frames of the session do
 *         not: a Trim or Close keeps its place. */
static void bulk_waits_for_the_pace_and_only_beats_pass_it(void **state)
{
    struct wire_frame f = forward(4 * WIRE_PART_BYTES, true), trim = plain(WIRE_TRIM),
                      close = plain(WIRE_CLOSE), beat = plain(WIRE_BEAT);
    struct ends e;

    (void)state;
    ends_open(&e);
    e.up.credit_bytes = 2 * WIRE_PART_BYTES;
    trim.u.trim.epoch = 1;
    send_frame(e.agent, &f, true);
    send_frame(e.agent, &trim, false);
    send_frame(e.agent, &close, false);
    assert_int_equal(next_kind(e.agent, &f), WIRE_FORWARD);
    assert_int_equal(next_kind(e.agent, &f), WIRE_MORE);
    assert_int_equal(next_kind(e.agent, &f), WIRE_NOTHING);
    assert_true(wire_channel_pending(e.agent));
    beat.u.beat = 77;
    send_frame(e.agent, &beat, false);
    assert_int_equal(next_kind(e.agent, &f), WIRE_BEAT);
    assert_int_equal(f.u.beat, 77);
    assert_int_equal(next_kind(e.agent, &f), WIRE_NOTHING);

    wire_pace_acked(&e.up, 1, WIRE_PART_BYTES, 0); /* of another stream, say */
    e.up.credit_bytes = 2 * WIRE_PART_BYTES;
    assert_int_equal(next_kind(e.agent, &f), WIRE_MORE);
    assert_int_equal(next_kind(e.agent, &f), WIRE_NOTHING);
    e.up.credit_bytes = 8 * WIRE_PART_BYTES;
    assert_int_equal(next_kind(e.agent, &f), WIRE_MORE);
    assert_int_equal(next_kind(e.agent, &f), WIRE_TRIM);
    assert_int_equal(next_kind(e.agent, &f), WIRE_CLOSE);
    assert_int_equal(next_kind(e.agent, &f), WIRE_NOTHING);
    assert_false(wire_channel_pending(e.agent));
    ends_close(&e);
}

/* Goal:   what is not bulk is not paced, and no Ack is spent on it, in one part or in many. */
static void a_decode_frame_is_not_paced(void **state)
{
    static const size_t sizes[] = { 1, WIRE_PART_BYTES, 5 * WIRE_PART_BYTES };
    struct wire_frame   prefill = forward(1000, true);
    struct ends         e;

    (void)state;
    ends_open(&e);
    e.up.credit_bytes = 1000;
    send_frame(e.agent, &prefill, false);
    assert_int_equal(next_kind(e.agent, &prefill), WIRE_FORWARD); /* never acknowledged */
    for (size_t i = 0; i < UNIT_COUNT(sizes); i++) {
        struct wire_frame f = forward(sizes[i], false), got;
        bool              bulk = true;
        int               rc;

        send_frame(e.agent, &f, true);
        assert_int_equal(releases, i); /* it counts as held until it has left */
        for (rc = 0; rc == 0;) {
            rc = pass(e.agent, e.worker, 0, &bulk, &got);
            assert_false(bulk);
        }
        assert_int_equal(rc, 1);
        assert_int_equal(releases, i + 1);
        assert_memory_equal(got.u.forward.in.data, made_bytes, sizes[i]);
        assert_false(wire_channel_pending(e.worker));
    }
    assert_int_equal(e.up.sent_bytes, 1000);
    ends_close(&e);
}

/* Goal:   blocks of state, which have no such field, are bulk in both directions. */
static void blocks_of_state_are_bulk(void **state)
{
    static const enum wire_kind kinds[] = { WIRE_IMPORT, WIRE_STATE };
    struct ends                 e;

    (void)state;
    ends_open(&e);
    for (size_t i = 0; i < UNIT_COUNT(kinds); i++) {
        struct wire_channel *from = i == 0 ? e.agent : e.worker, *to = i == 0 ? e.worker : e.agent;
        struct wire_pace    *pace = i == 0 ? &e.up : &e.down;
        struct wire_frame    f = plain(kinds[i]), got;
        bool                 bulk;

        f.u.state.block.data = made_bytes;
        f.u.state.block.bytes = 500;
        send_frame(from, &f, false);
        assert_int_equal(pass(from, to, 0, &bulk, &got), 1);
        assert_true(bulk);
        assert_int_equal(got.kind, kinds[i]);
        assert_int_equal(pace->sent_bytes, 500);
        assert_int_equal(pass(to, from, 0, &bulk, &got), 0);
        assert_int_equal(pace->acked_bytes, 500);
    }
    ends_close(&e);
}

/* Goal:   what someone waits for goes before blocks of state that have not begun; all else keeps
 *         its order, and the end stays the end.
 * Method: two blocks, of which one has begun; a result in parts, a token, the end. */
static void results_pass_blocks_of_state_that_wait(void **state)
{
    static const enum wire_kind order[] = { WIRE_STATE, WIRE_RESULT, WIRE_TOKEN, WIRE_STATE,
                                            WIRE_CLOSED };
    struct wire_frame           block = plain(WIRE_STATE), result = plain(WIRE_RESULT), got;
    struct wire_frame           token = plain(WIRE_TOKEN), closed = plain(WIRE_CLOSED);
    struct ends                 e;
    bool                        bulk;

    (void)state;
    ends_open(&e);
    block.u.state.block.data = result.u.result.out.data = made_bytes;
    block.u.state.block.bytes = 2 * WIRE_PART_BYTES;
    result.u.result.out.bytes = 2 * WIRE_PART_BYTES;
    send_frame(e.worker, &block, false);
    send_frame(e.worker, &block, false);
    assert_int_equal(pass(e.worker, e.agent, 0, &bulk, &got), 0); /* the first has begun */
    send_frame(e.worker, &result, true);
    send_frame(e.worker, &token, false);
    send_frame(e.worker, &closed, false);
    for (size_t i = 0; i < UNIT_COUNT(order); i++) {
        int rc;

        do {
            rc = pass(e.worker, e.agent, 0, &bulk, &got);
            assert_in_range(rc, 0, 1);
        } while (rc == 0);
        assert_int_equal(got.kind, order[i]);
    }
    ends_close(&e);
}

/* Goal:   a payload that comes in one message is not copied. */
static void a_payload_of_one_message_is_not_copied(void **state)
{
    struct wire_frame f = forward(8192, false);
    struct ends       e;
    size_t            count;
    bool              bulk;
    const uint8_t    *message;
    mcp_error         err;

    (void)state;
    ends_open(&e);
    send_frame(e.agent, &f, false);
    message = wire_channel_next(e.agent, 0, &count, &bulk);
    assert_int_equal(wire_channel_receive(e.worker, 0, message, count, &f, &err), 1);
    assert_true(f.u.forward.in.data > message && f.u.forward.in.data + 8192 <= message + count);
    ends_close(&e);
}

/* Goal:   the worker's end echoes a Beat before all else and once; of those that could not
 *         leave only the last; the agent's end tells the echo. */
static void a_beat_is_echoed_before_what_waits(void **state)
{
    struct wire_frame f = plain(WIRE_RESULT), beat = plain(WIRE_BEAT), got;
    struct ends       e;
    mcp_error         err;
    bool              bulk;

    (void)state;
    ends_open(&e);
    send_frame(e.worker, &f, false);
    for (beat.u.beat = 5; beat.u.beat < 9; beat.u.beat++)
        assert_int_equal(receive_raw(e.worker, true, &beat, &got, &err), 0);
    assert_int_equal(pass(e.worker, e.agent, 0, &bulk, &got), 1);
    assert_int_equal(got.kind, WIRE_BEAT);
    assert_int_equal(got.u.beat, 8);
    assert_int_equal(pass(e.worker, e.agent, 0, &bulk, &got), 1);
    assert_int_equal(got.kind, WIRE_RESULT);
    assert_int_equal(pass(e.worker, e.agent, 0, &bulk, &got), -1);
    ends_close(&e);
}

/* Goal:   Beat, Ack and Draining may come between the parts of a payload and change nothing. */
static void signs_of_life_may_come_between_parts(void **state)
{
    struct wire_frame result = plain(WIRE_RESULT), draining = plain(WIRE_DRAINING), f, got;
    struct ends       e;
    bool              bulk;

    (void)state;
    ends_open(&e);
    result.u.result.out.data = made_bytes;
    result.u.result.out.bytes = 2 * WIRE_PART_BYTES;
    send_frame(e.worker, &result, false);
    assert_int_equal(pass(e.worker, e.agent, 0, &bulk, &got), 0);
    draining.u.draining_within_ms = 900;
    send_frame(e.worker, &draining, false);
    assert_int_equal(pass(e.worker, e.agent, 0, &bulk, &got), 1);
    assert_int_equal(got.kind, WIRE_DRAINING);
    assert_int_equal(got.u.draining_within_ms, 900);
    f = forward(100, true);
    send_frame(e.agent, &f, false);
    assert_int_equal(pass(e.agent, e.worker, 0, &bulk, &got), 1);
    assert_int_equal(pass(e.worker, e.agent, 0, &bulk, &got), 0); /* the Ack */
    assert_int_equal(e.up.acked_bytes, 100);
    assert_int_equal(pass(e.worker, e.agent, 0, &bulk, &got), 1);
    assert_int_equal(got.kind, WIRE_RESULT);
    assert_memory_equal(got.u.result.out.data, made_bytes, 2 * WIRE_PART_BYTES);
    ends_close(&e);
}

/* Goal:   parts that only the pace's clock holds say when they are due, and leave then.
 * Method: an estimate of 10 ms a part; two may always be on their way. */
static void bulk_that_the_clock_holds_is_due_later(void **state)
{
    struct wire_frame f = forward(4 * WIRE_PART_BYTES, true);
    struct ends       e;
    const uint8_t    *message;
    size_t            count;
    bool              bulk;
    double            due_ms;

    (void)state;
    ends_open(&e);
    e.up.clocked = true;
    e.up.rate_bytes_per_ms = WIRE_PART_BYTES / 10.0;
    assert_true(isinf(wire_channel_due_ms(e.agent)));
    send_frame(e.agent, &f, true);
    assert_true(wire_channel_due_ms(e.agent) <= 1000);
    for (int part = 0; part < 2; part++)
        assert_non_null(wire_channel_next(e.agent, 1000, &count, &bulk));
    due_ms = wire_channel_due_ms(e.agent);
    assert_true(due_ms > 1000 && due_ms < 1010);
    assert_null(wire_channel_next(e.agent, due_ms - 0.1, &count, &bulk));
    message = wire_channel_next(e.agent, due_ms, &count, &bulk);
    assert_non_null(message);
    assert_true(bulk);
    e.up.credit_bytes = 3 * WIRE_PART_BYTES;
    assert_true(isinf(wire_channel_due_ms(e.agent)) && wire_channel_pending(e.agent));
    ends_close(&e);
}

/* Goal:   a peer that breaks the order of parts, or acknowledges what cannot be, is told what
 *         it did. */
static void a_peer_that_breaks_the_order_is_refused(void **state)
{
    struct wire_frame f, got, ack = plain(WIRE_ACK);
    struct ends       e;
    mcp_error         err;

    (void)state;
    ends_open(&e);
    unit_refused(go_on(e.worker, 5, &got, &err), MCP_EFORMAT, &err, "no payload was begun");

    assert_int_equal(begin(e.worker, 10, 100, true, &err), 0);
    unit_refused(go_on(e.worker, 0, &got, &err), MCP_EFORMAT, &err, "a part without bytes");
    unit_refused(go_on(e.worker, 91, &got, &err), MCP_EFORMAT, &err,
                 "91 bytes, but only 90 of the forward frame's 100 are missing");
    f = plain(WIRE_TRIM);
    unit_refused(receive_raw(e.worker, true, &f, &got, &err), MCP_EFORMAT, &err,
                 "a trim frame came inside the payload of a forward frame, 10 of 100 bytes");
    f = forward(3, false);
    f.u.forward.in.total = 3;
    unit_refused(receive_raw(e.worker, true, &f, &got, &err), MCP_EFORMAT, &err,
                 "a forward frame came inside");
    assert_int_equal(go_on(e.worker, 90, &got, &err), 1);
    unit_refused(go_on(e.worker, 1, &got, &err), MCP_EFORMAT, &err, "no payload was begun");

    unit_refused(begin(e.worker, 10, PAYLOAD_MAX + 1, true, &err), MCP_ERANGE, &err,
                 "a payload of 1048577 bytes, this end takes at most 1048576");
    unit_refused(wire_channel_receive(e.worker, 0, (const uint8_t *)"\x12", 1, &got, &err),
                 MCP_EFORMAT, &err, "ends inside");

    ack.u.ack.bytes = 1;
    unit_refused(receive_raw(e.agent, false, &ack, &got, &err), MCP_ERANGE, &err,
                 "1 bytes acknowledged, 0 were sent");
    f = forward(50, true);
    send_frame(e.agent, &f, false);
    assert_int_equal(next_kind(e.agent, &f), WIRE_FORWARD);
    ack.u.ack.bytes = 51;
    unit_refused(receive_raw(e.agent, false, &ack, &got, &err), MCP_ERANGE, &err,
                 "51 bytes acknowledged, 50 were sent");
    ack.u.ack.bytes = 40;
    assert_int_equal(receive_raw(e.agent, false, &ack, &got, &err), 0);
    assert_int_equal(receive_raw(e.agent, false, &ack, &got, &err), 0);
    ack.u.ack.bytes = 39;
    unit_refused(receive_raw(e.agent, false, &ack, &got, &err), MCP_ERANGE, &err,
                 "39 bytes acknowledged after 40");
    assert_int_equal(e.up.acked_bytes, 40);
    ends_close(&e);
}

/* Goal:   a payload larger than any frame's is refused before it is queued. */
static void a_payload_above_the_limit_is_not_queued(void **state)
{
    struct wire_frame f = forward(WIRE_PAYLOAD_MAX + 1, true);
    struct ends       e;
    mcp_error         err;

    (void)state;
    ends_open(&e);
    unit_refused(wire_channel_send(e.agent, &f, release, made_bytes, &err), MCP_ERANGE, &err,
                 "a payload of 536870913 bytes, at most 536870912");
    assert_int_equal(releases, 0);
    assert_false(wire_channel_pending(e.agent));
    ends_close(&e);
}

/* Goal:   a large total costs nothing until its bytes come, at most about twice them then, and
 *         nothing once the payload has been told. */
static void memory_grows_with_what_arrives_and_goes_back(void **state)
{
    struct wire_channel_opts opts = { .worker = true, .payload_max = WIRE_PAYLOAD_MAX };
    struct wire_channel     *c;
    struct wire_frame        got, beat = plain(WIRE_BEAT);
    mcp_error                err;
    size_t                   before, held;

    (void)state;
    unit_ok(wire_channel_new(&c, &opts, &err), &err);
    before = mallinfo2().uordblks + mallinfo2().hblkhd;
    assert_int_equal(begin(c, 1000, WIRE_PAYLOAD_MAX, true, &err), 0);
    for (size_t come = 1000; come < (16 << 20); come += PAYLOAD_MAX) {
        held = mallinfo2().uordblks + mallinfo2().hblkhd - before;
        if (HEAP_IS_GLIBC)
            assert_in_range(held, come, 2 * come + (128 << 10));
        assert_int_equal(go_on(c, PAYLOAD_MAX, &got, &err), 0);
    }
    wire_channel_free(c);

    unit_ok(wire_channel_new(&c, &opts, &err), &err);
    before = mallinfo2().uordblks + mallinfo2().hblkhd;
    assert_int_equal(begin(c, 0, 2 * PAYLOAD_MAX, true, &err), 0);
    assert_int_equal(go_on(c, PAYLOAD_MAX, &got, &err), 0);
    assert_int_equal(go_on(c, PAYLOAD_MAX, &got, &err), 1);
    assert_memory_equal(got.u.forward.in.data, made_bytes, PAYLOAD_MAX);
    assert_memory_equal(got.u.forward.in.data + PAYLOAD_MAX, made_bytes, PAYLOAD_MAX);
    assert_int_equal(receive_raw(c, true, &beat, &got, &err), 0);
    held = mallinfo2().uordblks + mallinfo2().hblkhd - before;
    if (HEAP_IS_GLIBC)
        assert_in_range(held, 0, 8 << 10);
    wire_channel_free(c);
}

/* Goal:   the bytes of a stream that ends unacknowledged leave the connection's pace, and what
 *         waited is released. */
static void a_stream_that_ends_gives_its_credit_back(void **state)
{
    struct wire_frame f = forward(2 * WIRE_PART_BYTES, true);
    struct ends       e;

    (void)state;
    ends_open(&e);
    e.up.credit_bytes = WIRE_PART_BYTES;
    send_frame(e.agent, &f, true);
    send_frame(e.agent, &f, true);
    assert_int_equal(next_kind(e.agent, &f), WIRE_FORWARD);
    assert_false(wire_pace_may_send(&e.up, 0, WIRE_PART_BYTES));
    wire_channel_free(e.agent);
    e.agent = NULL;
    assert_int_equal(releases, 2);
    assert_true(wire_pace_may_send(&e.up, 0, WIRE_PART_BYTES));
    ends_close(&e);
}

/* Goal:   without memory a call says so, and nothing leaks or is released twice.
 * Method: each allocation of a short conversation fails in turn. */
static void every_allocation_may_fail(void **state)
{
    struct wire_frame one = forward(100, false), many = forward(3 * WIRE_PART_BYTES, true);
    struct wire_frame generate = plain(WIRE_GENERATE), got;
    struct ends       e;
    bool              done = false;

    (void)state;
    generate.u.generate.tokens = made_ids;
    generate.u.generate.token_count = MADE_TOKENS_MAX;
    ends_open(&e); /* for its paces */
    for (int n = 1; !done; n++) {
        struct wire_channel_opts agent_opts = { .payload_max = PAYLOAD_MAX, .pace = &e.up };
        struct wire_channel_opts worker_opts = { .worker = true, .payload_max = PAYLOAD_MAX };
        struct wire_channel     *agent = NULL, *worker = NULL;
        mcp_error                err = { 0 };
        int                      rc, queued = 0, owned = 0;

        releases = 0;
        starve_arm(n, false);
        rc = wire_channel_new(&agent, &agent_opts, &err);
        if (rc == MCP_OK)
            rc = wire_channel_new(&worker, &worker_opts, &err);
        if (rc == MCP_OK)
            rc = wire_channel_send(agent, &one, NULL, NULL, &err);
        if (rc == MCP_OK)
            rc = wire_channel_send(agent, &many, NULL, NULL, &err);
        if (rc == MCP_OK)
            rc = wire_channel_send(agent, &generate, NULL, NULL, &err);
        if (rc == MCP_OK) {
            rc = wire_channel_send(agent, &many, release, made_bytes, &err);
            owned = rc == MCP_OK;
        }
        while (rc >= 0 && wire_channel_pending(agent)) {
            size_t         count;
            bool           bulk;
            const uint8_t *message = wire_channel_next(agent, 0, &count, &bulk);

            rc = wire_channel_receive(worker, 0, message, count, &got, &err);
            queued += rc == 1;
        }
        wire_channel_free(agent);
        wire_channel_free(worker);
        done = starve_disarm() == 0;
        starve_check(rc, &err);
        assert_int_equal(releases, owned);
        assert_true(!done || queued == 4);
    }
    ends_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_arrive_whole_and_in_order),
        cmocka_unit_test(a_bulk_payload_leaves_in_parts_and_each_is_acknowledged),
        cmocka_unit_test(bulk_waits_for_the_pace_and_only_beats_pass_it),
        cmocka_unit_test(a_decode_frame_is_not_paced),
        cmocka_unit_test(blocks_of_state_are_bulk),
        cmocka_unit_test(results_pass_blocks_of_state_that_wait),
        cmocka_unit_test(a_payload_of_one_message_is_not_copied),
        cmocka_unit_test(a_beat_is_echoed_before_what_waits),
        cmocka_unit_test(signs_of_life_may_come_between_parts),
        cmocka_unit_test(bulk_that_the_clock_holds_is_due_later),
        cmocka_unit_test(a_peer_that_breaks_the_order_is_refused),
        cmocka_unit_test(a_payload_above_the_limit_is_not_queued),
        cmocka_unit_test(memory_grows_with_what_arrives_and_goes_back),
        cmocka_unit_test(a_stream_that_ends_gives_its_credit_back),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests_name("wire/channel", tests, made_fill, NULL);
}
