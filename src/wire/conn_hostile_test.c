/* wire/conn_hostile_test.c - peers that flood, lie and stall: refused, at a bounded price.
 *
 * The peer writes its frames by hand.  Each case checks what it gets for it, that the core
 * holds no more than its bounds meanwhile, and where only a stream is to blame, that another
 * call on the same connection goes on.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/conn_rig_test.h"

struct hostile {
    struct wire_conn   *c; /* a server */
    struct rig_bytes    in, out;
    struct wire_stream *served;
    uint32_t            calls, messages, closed;
    struct wire_status  last;         /* of the last CLOSED */
    size_t              answer_bytes; /* to send when a call begins */
    int                 busy;         /* answers that found no room */
};

static void on_event(struct wire_conn *c, const struct wire_event *e, void *ctx)
{
    static uint8_t  answer[RIG_MESSAGE];
    struct hostile *h = ctx;
    mcp_error       err;

    (void)c;
    h->messages += e->kind == WIRE_EVENT_MESSAGE;
    if (e->kind == WIRE_EVENT_CLOSED) {
        h->closed++;
        h->last = *e->status;
    }
    if (e->kind != WIRE_EVENT_CALL)
        return;
    h->calls++;
    h->served = e->stream;
    for (size_t left = h->answer_bytes; left > 0;) {
        size_t part = left > RIG_MESSAGE / 4 ? RIG_MESSAGE / 4 : left;

        if (wire_stream_send(e->stream, answer, part, WIRE_BULK, &err) < 0) {
            h->busy++;
            break;
        }
        left -= part;
    }
}

static struct hostile hostile_open(uint32_t window)
{
    struct hostile h = { .c = rig_conn(true) };

    raw_hello(&h.in, window);
    return h;
}

/* What was written by hand goes in, in pieces that cut frames; answers come out if asked. */
static void strike(struct hostile *h, bool read)
{
    for (size_t at = 0; at < h->in.count;) {
        size_t part = h->in.count - at > 16001 ? 16001 : h->in.count - at;

        rig_feed(h->c, h->in.bytes + at, part, on_event, h);
        if (read)
            rig_take(h->c, &h->out, 16384);
        at += part;
    }
    h->in.count = 0;
    rig_events(h->c, on_event, h);
}

/* It is thrown out, by a GOAWAY with this error, and no call of its is left. */
static void must_be_thrown_out(struct hostile *h, uint32_t error)
{
    struct wire_status why;

    rig_take(h->c, &h->out, 16384);
    rig_events(h->c, on_event, h);
    assert_true(wire_conn_hostile(h->c));
    assert_true(wire_conn_over(h->c, &why));
    assert_int_equal(why.code, WIRE_UNAVAILABLE);
    assert_true(strlen(why.text) > 20);
    assert_int_equal(raw_error(&h->out, NGHTTP2_GOAWAY, 0), error);
    rig_calm(h->c);
}

/* It is still welcome: a call is served. */
static void must_be_served(struct hostile *h, uint32_t stream)
{
    uint32_t messages = h->messages;

    raw_call(&h->in, stream);
    raw_message(&h->in, stream, 0, 3, 3, 0);
    strike(h, true);
    assert_false(wire_conn_hostile(h->c));
    assert_false(wire_conn_over(h->c, NULL));
    assert_int_equal(h->messages, messages + 1);
}

static void hostile_close(struct hostile *h)
{
    wire_conn_free(h->c);
    rig_drop(&h->in);
    rig_drop(&h->out);
}

/* ---- floods ------------------------------------------------------------------------- */

static void write_ping(struct rig_bytes *b)
{
    raw_frame(b, NGHTTP2_PING, 0, 0, "12345678", 8);
}

static void write_settings(struct rig_bytes *b)
{
    raw_frame(b, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
}

static void write_unknown(struct rig_bytes *b)
{
    raw_frame(b, 0x42, 0, 0, NULL, 0);
}

static void write_window_update(struct rig_bytes *b)
{
    raw_number_frame(b, NGHTTP2_WINDOW_UPDATE, 1, 1);
}

static void write_priority(struct rig_bytes *b)
{
    raw_frame(b, NGHTTP2_PRIORITY, 0, 5, "\0\0\0\3\17", 5);
}

static void write_empty_data(struct rig_bytes *b)
{
    raw_frame(b, NGHTTP2_DATA, 0, 1, NULL, 0);
}

static void write_data_of_a_closed_stream(struct rig_bytes *b)
{
    raw_frame(b, NGHTTP2_DATA, 0, 3, NULL, 0);
}

static const struct {
    const char *name;
    void (*write)(struct rig_bytes *b);
} floods[] = {
    { "PING", write_ping },
    { "SETTINGS", write_settings },
    { "unknown frames", write_unknown },
    { "WINDOW_UPDATE", write_window_update },
    { "PRIORITY", write_priority },
    { "empty DATA", write_empty_data },
    { "DATA of a closed call", write_data_of_a_closed_stream },
};

/* Calls 1, which is open, and 3, which was reset. */
static void write_calls(struct rig_bytes *b)
{
    raw_call(b, 1);
    raw_call(b, 3);
    raw_number_frame(b, NGHTTP2_RST_STREAM, 3, NGHTTP2_CANCEL);
}

static void a_flood_of_empty_frames_ends_the_connection(void **state)
{
    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(floods); i++) {
        struct hostile h = hostile_open(65535);

        write_calls(&h.in);
        for (int n = 0; n < 100200; n++)
            floods[i].write(&h.in);
        strike(&h, true);
        if (!wire_conn_hostile(h.c))
            fail_msg("100,200 %s at once are taken", floods[i].name);
        must_be_thrown_out(&h, NGHTTP2_ENHANCE_YOUR_CALM);
        hostile_close(&h);
    }
}

static void the_same_frames_in_reason_are_taken(void **state)
{
    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(floods); i++) {
        struct hostile h = hostile_open(65535);

        write_calls(&h.in);
        for (int n = 0; n < 200; n++) { /* 20,000 a second */
            for (int k = 0; k < 200; k++)
                floods[i].write(&h.in);
            strike(&h, true);
            rig_now += 10;
        }
        must_be_served(&h, 5);
        hostile_close(&h);
    }
}

static void small_messages_are_no_flood(void **state)
{
    struct hostile h = hostile_open(65535);

    (void)state;
    raw_call(&h.in, 1);
    for (int n = 0; n < 300000; n++)
        raw_message(&h.in, 1, 0, 59, 59, 0);
    strike(&h, true);
    assert_false(wire_conn_hostile(h.c));
    assert_int_equal(h.messages, 300000);
    hostile_close(&h);
}

/* Goal:   a peer that does not read what it asks for is cut off before its answers pile up.
 * Method: nothing is taken from the core meanwhile. */
static void answers_that_are_not_read_end_the_connection(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) { /* PING, SETTINGS */
        struct hostile h = hostile_open(65535);

        for (int n = 0; n < 1100; n++)
            floods[i].write(&h.in);
        strike(&h, false);
        must_be_thrown_out(&h, NGHTTP2_ENHANCE_YOUR_CALM);
        hostile_close(&h);
    }
}

static void rapid_reset_ends_the_connection(void **state)
{
    struct hostile h = hostile_open(65535);

    (void)state;
    for (uint32_t n = 0; n < 1100; n++) {
        raw_call(&h.in, 1 + 2 * n);
        raw_number_frame(&h.in, NGHTTP2_RST_STREAM, 1 + 2 * n, NGHTTP2_CANCEL);
    }
    strike(&h, true);
    must_be_thrown_out(&h, NGHTTP2_ENHANCE_YOUR_CALM);
    assert_true(h.calls < 1100);
    hostile_close(&h);
}

static void an_edge_may_cancel_a_hundred_calls_a_second(void **state)
{
    struct hostile h = hostile_open(65535);

    (void)state;
    for (uint32_t n = 0; n < 3000; n++) {
        raw_call(&h.in, 1 + 2 * n);
        raw_number_frame(&h.in, NGHTTP2_RST_STREAM, 1 + 2 * n, NGHTTP2_CANCEL);
        strike(&h, true);
        rig_now += 10;
    }
    must_be_served(&h, 7001);
    hostile_close(&h);
}

/* Goal:   streams that we reset for the peer's mistakes count like its own resets.
 * Method: requests without the fields that HTTP/2 demands. */
static void resets_made_by_us_count_too(void **state)
{
    struct hostile   h = hostile_open(65535);
    struct rig_bytes block = { NULL, 0, 0 };

    (void)state;
    raw_field(&block, ":method", "POST");
    for (uint32_t n = 0; n < 1100 && !wire_conn_over(h.c, NULL); n++) {
        raw_headers(&h.in, 1 + 2 * n, NGHTTP2_FLAG_END_HEADERS, &block);
        strike(&h, true);
    }
    must_be_thrown_out(&h, NGHTTP2_ENHANCE_YOUR_CALM);
    assert_int_equal(h.calls, 0);
    rig_drop(&block);
    hostile_close(&h);
}

/* ---- headers ------------------------------------------------------------------------ */

static void a_header_block_without_end_is_cut_off(void **state)
{
    struct hostile   h = hostile_open(65535);
    struct rig_bytes block = { NULL, 0, 0 };

    (void)state;
    raw_request_fields(&block, "POST", "application/grpc");
    raw_headers(&h.in, 1, 0, &block);
    for (int n = 0; n < 12; n++)
        raw_frame(&h.in, NGHTTP2_CONTINUATION, 0, 1, NULL, 0);
    strike(&h, true);
    must_be_thrown_out(&h, NGHTTP2_ENHANCE_YOUR_CALM);
    rig_drop(&block);
    hostile_close(&h);
}

/* A request whose block is `fields` times a byte that names an entry of 120 bytes. */
static void write_bomb(struct rig_bytes *b, uint32_t stream, size_t fields)
{
    struct rig_bytes block = { NULL, 0, 0 };
    char             value[120];
    uint8_t          indexed = 0x40; /* literal, to be remembered */

    raw_request_fields(&block, "POST", "application/grpc");
    memset(value, 'b', sizeof(value));
    value[sizeof(value) - 1] = '\0';
    rig_add(&block, &indexed, 1);
    rig_add(&block, "\4bomb\167", 6);
    rig_add(&block, value, 119);
    indexed = 0x80 | 62; /* the newest entry */
    for (size_t i = 0; i < fields; i++)
        rig_add(&block, &indexed, 1);
    raw_headers(b, stream, NGHTTP2_FLAG_END_HEADERS, &block);
    rig_drop(&block);
}

static void a_header_bomb_costs_its_stream_and_then_the_connection(void **state)
{
    struct hostile h = hostile_open(65535);

    (void)state;
    raw_call(&h.in, 1);
    write_bomb(&h.in, 3, 12000);
    strike(&h, true);
    assert_int_equal(raw_error(&h.out, NGHTTP2_RST_STREAM, 3), NGHTTP2_INTERNAL_ERROR);
    assert_int_equal(h.calls, 1);
    assert_true(h.c->metadata_bytes <= 2 * HEADER_BLOCK_BYTES);
    must_be_served(&h, 5);
    for (uint32_t n = 0; n < 30; n++)
        write_bomb(&h.in, 7 + 2 * n, 12000);
    strike(&h, true);
    must_be_thrown_out(&h, NGHTTP2_ENHANCE_YOUR_CALM);
    hostile_close(&h);
}

/* Goal:   what stays of requests is bounded over all streams: many large but legal ones are
 *         refused at some point. */
static void metadata_of_all_calls_is_bounded(void **state)
{
    struct hostile h = hostile_open(65535);

    (void)state;
    for (uint32_t n = 0; n < RIG_STREAMS; n++)
        write_bomb(&h.in, 1 + 2 * n, 90);
    strike(&h, true);
    assert_int_equal(h.calls, RIG_STREAMS); /* 64 x 16 KiB fit */
    assert_true(h.c->metadata_bytes <= METADATA_BYTES);
    h.c->metadata_bytes += METADATA_BYTES; /* as if it were 256 times as many */
    raw_number_frame(&h.in, NGHTTP2_RST_STREAM, 1, NGHTTP2_CANCEL);
    write_bomb(&h.in, 1001, 90);
    strike(&h, true);
    assert_int_equal(raw_error(&h.out, NGHTTP2_RST_STREAM, 1001), NGHTTP2_INTERNAL_ERROR);
    assert_int_equal(h.calls, RIG_STREAMS);
    h.c->metadata_bytes -= METADATA_BYTES;
    hostile_close(&h);
}

static void a_header_block_that_drips_is_cut_off(void **state)
{
    struct hostile   h = hostile_open(65535);
    struct rig_bytes block = { NULL, 0, 0 };

    (void)state;
    raw_request_fields(&block, "POST", "application/grpc");
    raw_headers(&h.in, 1, 0, &block);
    strike(&h, true);
    assert_true(wire_conn_waits(h.c));
    wire_conn_tick(h.c, rig_now + HEADER_BLOCK_MS);
    assert_false(wire_conn_hostile(h.c));
    wire_conn_tick(h.c, rig_now + HEADER_BLOCK_MS + 1);
    must_be_thrown_out(&h, NGHTTP2_ENHANCE_YOUR_CALM);
    rig_drop(&block);
    hostile_close(&h);
}

static void what_is_no_grpc_is_answered_as_http(void **state)
{
    static const struct {
        const char *method, *type, *status;
    } rows[] = { { "GET", "application/grpc", "405" }, { "POST", "text/plain", "415" } };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct hostile   h = hostile_open(65535);
        struct rig_bytes block = { NULL, 0, 0 };
        const uint8_t   *answer;
        size_t           length = 0;

        raw_request_fields(&block, rows[i].method, rows[i].type);
        raw_headers(&h.in, 1, NGHTTP2_FLAG_END_HEADERS, &block);
        raw_message(&h.in, 1, 0, 3, 3, NGHTTP2_FLAG_END_STREAM);
        strike(&h, true);
        assert_int_equal(h.calls, 0);
        answer = raw_find(&h.out, NGHTTP2_HEADERS, 1, &length);
        assert_non_null(answer);
        must_be_served(&h, 3);
        wire_stream_cancel(h.served, &h.last);
        rig_events(h.c, on_event, &h);
        rig_calm(h.c);
        rig_drop(&block);
        hostile_close(&h);
    }
}

static void a_bad_timeout_is_an_invalid_argument(void **state)
{
    struct hostile   h = hostile_open(65535);
    struct rig_bytes block = { NULL, 0, 0 };
    size_t           length = 0;

    (void)state;
    raw_request_fields(&block, "POST", "application/grpc");
    raw_field(&block, "grpc-timeout", "soon");
    raw_headers(&h.in, 1, NGHTTP2_FLAG_END_HEADERS, &block);
    strike(&h, true);
    assert_int_equal(h.calls, 0);
    assert_non_null(raw_find(&h.out, NGHTTP2_HEADERS, 1, &length));
    must_be_served(&h, 3);
    rig_drop(&block);
    hostile_close(&h);
}

/* ---- memory ------------------------------------------------------------------------- */

/* Goal:   a request that opens no window cannot make answers pile up.
 * Method: each call of 64 is answered with 8 MB, of which nothing may leave. */
static void answers_without_a_window_are_bounded_and_end(void **state)
{
    struct hostile h = hostile_open(0);

    (void)state;
    h.answer_bytes = 8 << 20;
    for (uint32_t n = 0; n < RIG_STREAMS; n++)
        raw_call(&h.in, 1 + 2 * n);
    strike(&h, true);
    assert_int_equal(h.calls, RIG_STREAMS);
    assert_int_equal(h.busy, RIG_STREAMS);
    assert_true(h.c->queue_bytes <= QUEUE_CONN_BYTES + RIG_STREAMS * QUEUE_FLOOR);

    wire_conn_tick(h.c, rig_now + STALL_MS);
    rig_events(h.c, on_event, &h);
    assert_int_equal(h.closed, 0);
    wire_conn_tick(h.c, rig_now + STALL_MS + 1);
    rig_events(h.c, on_event, &h);
    assert_true(h.closed >= QUEUE_CONN_BYTES / RIG_QUEUE - 1);
    assert_int_equal(h.last.code, WIRE_DEADLINE_EXCEEDED);
    assert_int_equal(h.c->queue_bytes, 0);
    hostile_close(&h);
}

static void a_message_too_large_is_refused_on_its_head(void **state)
{
    static const uint32_t sizes[] = { RIG_MESSAGE + 1, 0x7fffffff, 0xffffffff };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(sizes); i++) {
        struct hostile h = hostile_open(65535);

        raw_call(&h.in, 1);
        raw_message(&h.in, 1, 0, sizes[i], 100, 0);
        strike(&h, true);
        assert_int_equal(h.closed, 1);
        assert_int_equal(h.last.code, WIRE_RESOURCE_EXHAUSTED);
        assert_int_equal(h.c->assembly_bytes, 0);
        must_be_served(&h, 3);
        hostile_close(&h);
    }
}

/* Goal:   memory grows with what comes, not with what is announced. */
static void announced_sizes_cost_nothing(void **state)
{
    struct hostile h = hostile_open(65535);

    (void)state;
    for (uint32_t n = 0; n < RIG_STREAMS; n++) {
        raw_call(&h.in, 1 + 2 * n);
        raw_message(&h.in, 1 + 2 * n, 0, RIG_MESSAGE, 10, 0);
    }
    strike(&h, true);
    assert_int_equal(h.calls, RIG_STREAMS);
    assert_true(h.c->assembly_bytes <= RIG_STREAMS * 1024);
    hostile_close(&h);
}

static void half_messages_of_all_streams_are_bounded(void **state)
{
    struct hostile h = hostile_open(65535);
    static uint8_t part[16000];
    uint32_t       n, chunks = RIG_MESSAGE / sizeof(part);

    (void)state;
    for (n = 0; n < 40 && h.closed == 0; n++) {
        raw_call(&h.in, 1 + 2 * n);
        raw_message(&h.in, 1 + 2 * n, 0, RIG_MESSAGE, 0, 0);
        for (uint32_t i = 0; i < chunks; i++)
            raw_frame(&h.in, NGHTTP2_DATA, 0, 1 + 2 * n, part, sizeof(part));
        strike(&h, true);
        assert_true(h.c->assembly_bytes <= ASSEMBLY_BYTES);
    }
    assert_in_range(n, 15, 17); /* 16 x 4 MiB */
    assert_int_equal(h.last.code, WIRE_RESOURCE_EXHAUSTED);
    assert_false(wire_conn_hostile(h.c));
    hostile_close(&h);
}

/* Goal:   paused calls hold no more than the connection's window and its allowance. */
static void what_paused_calls_hold_is_bounded(void **state)
{
    struct hostile h = hostile_open(65535);
    static uint8_t part[16000];

    (void)state;
    for (uint32_t n = 0; n < 40 && !wire_conn_over(h.c, NULL); n++) {
        raw_call(&h.in, 1 + 2 * n);
        strike(&h, true);
        wire_stream_pause(h.served, true);
        for (uint32_t i = 0; i < (4 << 20) / sizeof(part); i++)
            raw_frame(&h.in, NGHTTP2_DATA, 0, 1 + 2 * n, part, sizeof(part));
        strike(&h, true);
        assert_true(h.c->held_bytes <= HELD_BYTES + WIRE_WINDOW_CONN + 65536);
    }
    /* It went on past the connection's window. */
    must_be_thrown_out(&h, NGHTTP2_FLOW_CONTROL_ERROR);
    hostile_close(&h);
}

/* ---- messages that are not whole ---------------------------------------------------- */

static void a_half_message_ends_in_time(void **state)
{
    struct hostile h = hostile_open(65535);

    (void)state;
    raw_call(&h.in, 1);
    raw_message(&h.in, 1, 0, 1600, 10, 0);
    strike(&h, true);
    wire_conn_tick(h.c, rig_now + MESSAGE_MS + 100);
    rig_events(h.c, on_event, &h);
    assert_int_equal(h.closed, 0);
    wire_conn_tick(h.c, rig_now + MESSAGE_MS + 101);
    rig_events(h.c, on_event, &h);
    assert_int_equal(h.closed, 1);
    assert_int_equal(h.last.code, WIRE_DEADLINE_EXCEEDED);
    must_be_served(&h, 3);
    hostile_close(&h);
}

static void a_call_that_ends_inside_a_message_is_refused_at_every_byte(void **state)
{
    (void)state;
    for (size_t cut = 1; cut < 5 + 20; cut++) {
        struct hostile h = hostile_open(65535);
        uint8_t        message[25] = { 0, 0, 0, 0, 20 };

        raw_call(&h.in, 1);
        raw_frame(&h.in, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, message, cut);
        strike(&h, true);
        assert_int_equal(h.messages, 0);
        assert_int_equal(h.closed, 1);
        assert_int_equal(h.last.code, WIRE_INVALID_ARGUMENT);
        must_be_served(&h, 3);
        hostile_close(&h);
    }
}

static void compressed_messages_are_unimplemented(void **state)
{
    struct hostile h = hostile_open(65535);

    (void)state;
    raw_call(&h.in, 1);
    raw_message(&h.in, 1, 1, 20, 20, 0);
    strike(&h, true);
    assert_int_equal(h.last.code, WIRE_UNIMPLEMENTED);
    must_be_served(&h, 3);
    hostile_close(&h);
}

/* ---- HTTP/2 broken ------------------------------------------------------------------ */

static void too_many_calls_end_the_connection_that_was_told_the_limit(void **state)
{
    struct hostile h = hostile_open(65535);

    (void)state;
    for (uint32_t n = 0; n < RIG_STREAMS + 1; n++)
        raw_call(&h.in, 1 + 2 * n);
    strike(&h, true);
    assert_true(h.calls <= RIG_STREAMS);
    must_be_thrown_out(&h, NGHTTP2_PROTOCOL_ERROR);
    hostile_close(&h);
}

static void what_is_no_http2_ends_the_connection(void **state)
{
    static const char *const hello[] = { "GET / HTTP/1.1\r\n\r\n",
                                         "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxx" };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(hello); i++) {
        struct hostile h = { .c = rig_conn(true) };

        rig_add(&h.in, hello[i], strlen(hello[i]));
        strike(&h, true);
        must_be_thrown_out(&h, NGHTTP2_PROTOCOL_ERROR);
        hostile_close(&h);
    }
}

/* Goal:   whatever byte is changed, the core survives, ends in order, and holds nothing.
 * Method: one talk, each byte in turn replaced by each of a few values. */
static void no_changed_byte_breaks_the_core(void **state)
{
    static const uint8_t values[] = { 0, 1, 0x7f, 0xff };
    struct rig_bytes     good = { NULL, 0, 0 };

    (void)state;
    raw_hello(&good, 100);
    raw_call(&good, 1);
    raw_message(&good, 1, 0, 30, 30, 0);
    raw_call(&good, 3);
    raw_message(&good, 3, 0, 30, 30, NGHTTP2_FLAG_END_STREAM);
    raw_number_frame(&good, NGHTTP2_WINDOW_UPDATE, 0, 1000);
    raw_number_frame(&good, NGHTTP2_RST_STREAM, 1, NGHTTP2_CANCEL);
    write_ping(&good);
    for (size_t at = 0; at < good.count; at++) {
        for (size_t v = 0; v < UNIT_COUNT(values); v++) {
            struct hostile     h = { .c = rig_conn(true), .answer_bytes = 500 };
            struct wire_status why = { .code = WIRE_UNAVAILABLE };

            rig_add(&h.in, good.bytes, good.count);
            h.in.bytes[at] = values[v];
            strike(&h, true);
            wire_conn_lose(h.c, &why);
            rig_events(h.c, on_event, &h);
            assert_int_equal(h.closed, h.calls);
            rig_calm(h.c);
            hostile_close(&h);
        }
    }
    rig_drop(&good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flood_of_empty_frames_ends_the_connection),
        cmocka_unit_test(the_same_frames_in_reason_are_taken),
        cmocka_unit_test(small_messages_are_no_flood),
        cmocka_unit_test(answers_that_are_not_read_end_the_connection),
        cmocka_unit_test(rapid_reset_ends_the_connection),
        cmocka_unit_test(an_edge_may_cancel_a_hundred_calls_a_second),
        cmocka_unit_test(resets_made_by_us_count_too),
        cmocka_unit_test(a_header_block_without_end_is_cut_off),
        cmocka_unit_test(a_header_bomb_costs_its_stream_and_then_the_connection),
        cmocka_unit_test(metadata_of_all_calls_is_bounded),
        cmocka_unit_test(a_header_block_that_drips_is_cut_off),
        cmocka_unit_test(what_is_no_grpc_is_answered_as_http),
        cmocka_unit_test(a_bad_timeout_is_an_invalid_argument),
        cmocka_unit_test(answers_without_a_window_are_bounded_and_end),
        cmocka_unit_test(a_message_too_large_is_refused_on_its_head),
        cmocka_unit_test(announced_sizes_cost_nothing),
        cmocka_unit_test(half_messages_of_all_streams_are_bounded),
        cmocka_unit_test(what_paused_calls_hold_is_bounded),
        cmocka_unit_test(a_half_message_ends_in_time),
        cmocka_unit_test(a_call_that_ends_inside_a_message_is_refused_at_every_byte),
        cmocka_unit_test(compressed_messages_are_unimplemented),
        cmocka_unit_test(too_many_calls_end_the_connection_that_was_told_the_limit),
        cmocka_unit_test(what_is_no_http2_ends_the_connection),
        cmocka_unit_test(no_changed_byte_breaks_the_core),
    };

    return cmocka_run_group_tests_name("wire/conn_hostile", tests, NULL, NULL);
}
