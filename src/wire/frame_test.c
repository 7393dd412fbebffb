/* wire/frame_test.c - frames against protobuf-c, and against bytes that no honest peer sends.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/frame.h"

#include "base/starve_test.h"
#include "wire/made_test.h"
#include "wire/script_test.h"

enum { ROUNDS = 400 };

/* ---- tests ---------------------------------------------------------------------------- */

/* Goal:   our bytes are protobuf's, and read back they are the same frame.
 * Method: frames of every kind with random fields, in both directions, beside protobuf-c
 *         filled by field names; what is decoded is encoded once more, which shows every
 *         field, because the encoder was just compared. */
static void every_frame_is_byte_for_byte_what_protobuf_writes(void **state)
{
    struct wire_scratch scratch = { 0 };
    uint64_t            seed = unit_seed();

    (void)state;
    for (int round = 0; round < ROUNDS * WIRE_KINDS * 2; round++) {
        enum wire_kind      kind = (enum wire_kind)(round / 2 % WIRE_KINDS);
        enum wire_direction direction = round % 2 == 0 ? WIRE_REQUEST : WIRE_REPLY;
        struct wire_frame   f, back;
        struct made_message ours, again;
        ProtobufCMessage   *m;
        uint8_t            *expected;
        size_t              count;
        mcp_error           err;

        if (!made_goes(kind, direction))
            continue;
        made_frame(&f, kind, &seed);
        m = oracle_frame(&f, direction);
        expected = oracle_pack(m, &count);
        ours = made_encode(&f, direction);
        if (ours.count != count || memcmp(ours.bytes, expected, count) != 0)
            fail_msg("%s frame %d differs from protobuf's: MCP_SEED=%" PRIu64, wire_kind_name(kind),
                     round, unit_seed());
        unit_ok(wire_frame_decode(&back, direction, ours.bytes, ours.count, &scratch, &err), &err);
        assert_int_equal(back.kind, kind);
        again = made_encode(&back, direction);
        assert_int_equal(again.count, count);
        assert_memory_equal(again.bytes, expected, count);
        free(again.bytes);
        free(ours.bytes);
        free(expected);
        oracle_frame_free(m);
    }
    wire_scratch_fini(&scratch);
}

/* Goal:   a payload is not copied on the way in, and token ids into memory that is kept. */
static void made_bytes_stay_in_the_message_and_ids_in_one_place(void **state)
{
    struct wire_scratch scratch = { 0 };
    struct wire_frame   f = { .kind = WIRE_FORWARD };
    struct made_message m;
    mcp_error           err;
    int32_t            *place = NULL;

    (void)state;
    f.u.forward.in = (struct wire_payload){ .data = made_bytes, .bytes = 8192, .total = 8192 };
    m = made_encode(&f, WIRE_REQUEST);
    unit_ok(wire_frame_decode(&f, WIRE_REQUEST, m.bytes, m.count, &scratch, &err), &err);
    assert_true(f.u.forward.in.data > m.bytes && f.u.forward.in.data + 8192 < m.bytes + m.count);
    assert_memory_equal(f.u.forward.in.data, made_bytes, 8192);
    assert_null(f.u.forward.tokens);
    assert_null(scratch.tokens);
    free(m.bytes);

    for (uint32_t count = 500; count > 0; count -= 100) {
        f = (struct wire_frame){ .kind = WIRE_FORWARD };
        f.u.forward.tokens = made_ids;
        f.u.forward.token_count = f.u.forward.count = count;
        m = made_encode(&f, WIRE_REQUEST);
        unit_ok(wire_frame_decode(&f, WIRE_REQUEST, m.bytes, m.count, &scratch, &err), &err);
        assert_int_equal(f.u.forward.token_count, count);
        assert_ptr_equal(f.u.forward.tokens, scratch.tokens);
        assert_memory_equal(f.u.forward.tokens, made_ids, count * sizeof(int32_t));
        assert_true(place == NULL || place == scratch.tokens);
        place = scratch.tokens;
        free(m.bytes);
    }
    wire_scratch_fini(&scratch);
}

/* Goal:   the largest frame of each kind keeps its promise of overhead, and names differ. */
static void no_frame_exceeds_the_overhead(void **state)
{
    static const int32_t minus_one = -1;

    (void)state;
    for (int kind = WIRE_OPEN; kind < WIRE_KINDS; kind++) {
        enum wire_direction direction = made_goes((enum wire_kind)kind, WIRE_REQUEST) ? WIRE_REQUEST
                                                                                      : WIRE_REPLY;
        struct wire_frame   f;
        size_t              ids = 0;

        /* Negative ids and numbers are the longest ones. */
        memset(&f, 0xff, sizeof(f));
        f.kind = (enum wire_kind)kind;
        if (kind == WIRE_OPEN)
            f.u.open.weights_given = f.u.open.resume = true;
        if (kind == WIRE_OPENED)
            f.u.opened.even_windows = true;
        if (kind == WIRE_RESULT)
            f.u.result.bulk = true;
        if (kind == WIRE_FORWARD) {
            f.u.forward.bulk = true;
            f.u.forward.tokens = NULL;
            f.u.forward.token_count = 0;
        }
        if (kind == WIRE_GENERATE) {
            f.u.generate.ignore_end = f.u.generate.no_guesses = true;
            f.u.generate.tokens = &minus_one;
            f.u.generate.token_count = 1;
            ids = 10;
        }
        if (wire_frame_payload(&f) != NULL)
            wire_frame_payload(&f)->bytes = WIRE_PAYLOAD_MAX;
        assert_in_range(wire_frame_bytes(&f, direction), 2,
                        WIRE_FRAME_OVERHEAD + ids +
                            (wire_frame_payload(&f) != NULL ? WIRE_PAYLOAD_MAX : 0));
        for (int other = 0; other < kind; other++)
            assert_string_not_equal(wire_kind_name((enum wire_kind)other),
                                    wire_kind_name((enum wire_kind)kind));
    }
    assert_string_equal(wire_kind_name(WIRE_FORWARD), "forward");
}

/* Goal:   of several frames in a message the last counts; two of one kind in a row, and none,
 *         are refused. */
static void a_message_holds_one_frame(void **state)
{
    static const char beat[] = "\x4a\x02\x08\x07", trim[] = "\x22\x02\x08\x05";
    struct wire_frame f;
    struct script     s = { .count = 0 };
    mcp_error         err;

    (void)state;
    put_raw(&s, beat, 4);
    put_raw(&s, trim, 4);
    unit_ok(wire_frame_decode(&f, WIRE_REQUEST, s.bytes, s.count, NULL, &err), &err);
    assert_int_equal(f.kind, WIRE_TRIM);
    assert_int_equal(f.u.trim.epoch, 5);
    assert_int_equal(f.u.trim.pos, 0);
    put_raw(&s, beat, 4);
    put_number(&s, 15, 1);
    unit_ok(wire_frame_decode(&f, WIRE_REQUEST, s.bytes, s.count, NULL, &err), &err);
    assert_int_equal(f.kind, WIRE_BEAT);
    assert_int_equal(f.u.beat, 7);

    put_raw(&s, beat, 4);
    refuse_message((const char *)s.bytes, s.count, "two beat frames");
    refuse_message("", 0, "no frame of a kind that is known");
    unit_refused(wire_frame_decode(&f, WIRE_REPLY, NULL, 0, NULL, &err), MCP_EFORMAT, &err,
                 "no frame of a kind that is known");
    refuse_message("\x5a\x00", 2, "no frame of a kind that is known");
    /* An agent's Ack is field 10; in a worker's direction nothing is. */
    unit_refused(
        wire_frame_decode(&f, WIRE_REPLY, (const uint8_t *)"\x52\x02\x08\x05", 4, NULL, &err),
        MCP_EFORMAT, &err, "no frame of a kind that is known");
}

/* Goal:   an Open has a session and a model of the right lengths, and weights of 32 bytes or
 *         none. */
static void identities_have_their_lengths(void **state)
{
    struct wire_frame f;
    struct script     body = { .count = 0 };
    mcp_error         err;

    (void)state;
    put_span(&body, 2, made_bytes, 32);
    refuse_body(REQUEST_OPEN, &body, "open: session is missing");
    put_span(&body, 1, made_bytes, 15);
    refuse_body(REQUEST_OPEN, &body, "open: session has 15 bytes, must have 16");
    body.count = 0;
    put_span(&body, 1, made_bytes, 16);
    refuse_body(REQUEST_OPEN, &body, "open: model is missing");
    put_span(&body, 2, made_bytes, 33);
    refuse_body(REQUEST_OPEN, &body, "open: model has 33 bytes, must have 32");
    body.count = 0;
    put_span(&body, 1, made_bytes, 16);
    put_span(&body, 2, made_bytes, 32);
    unit_ok(decode_body(&f, REQUEST_OPEN, &body, NULL, &err), &err);
    assert_false(f.u.open.weights_given);
    put_span(&body, 7, made_bytes + 7, 32);
    unit_ok(decode_body(&f, REQUEST_OPEN, &body, NULL, &err), &err);
    assert_true(f.u.open.weights_given);
    assert_memory_equal(f.u.open.weights, made_bytes + 7, 32);
    put_span(&body, 7, "", 0);
    unit_ok(decode_body(&f, REQUEST_OPEN, &body, NULL, &err), &err);
    assert_false(f.u.open.weights_given);
    put_span(&body, 7, made_bytes, 31);
    refuse_body(REQUEST_OPEN, &body, "open: weights has 31 bytes, must have 32");
}

/* Goal:   what a Forward says about itself fits together. */
static void a_forward_contradicting_itself_is_refused(void **state)
{
    struct script body = { .count = 0 };

    (void)state;
    put_span(&body, 8, made_bytes, 10);
    put_number(&body, 9, 9);
    refuse_body(REQUEST_FORWARD, &body, "data has 10 bytes, more than the 9 of data_total");
    body.count = 0;
    put_span(&body, 8, made_bytes, 10);
    refuse_body(REQUEST_FORWARD, &body, "data has 10 bytes, more than the 0 of data_total");
    body.count = 0;
    put_number(&body, 4, 1);
    put_number(&body, 5, 17);
    put_number(&body, 9, 4);
    refuse_body(REQUEST_FORWARD, &body, "token ids and a payload at once");
    body.count = 0;
    put_number(&body, 4, 3);
    put_span(&body, 5, "\x01\x02", 2);
    refuse_body(REQUEST_FORWARD, &body, "2 token ids for 3 positions");
}

/* Goal:   the number of ids in a frame is bounded, packed and not, before memory is taken. */
static void too_many_ids_are_refused(void **state)
{
    struct wire_scratch scratch = { 0 };
    struct wire_frame   f;
    mcp_error           err;
    size_t              ids = WIRE_TOKENS_MAX + 1;
    uint8_t            *bytes = calloc(1, 2 * ids + 16), *to;

    (void)state;
    assert_non_null(bytes);
    to = wire_pb_put_tag(bytes, REQUEST_GENERATE, WIRE_PB_SPAN);
    to = wire_pb_put_varint(to, 1 + wire_pb_varint_bytes(ids) + ids);
    to = wire_pb_put_tag(to, 4, WIRE_PB_SPAN);
    to = wire_pb_put_varint(to, ids);
    unit_refused(
        wire_frame_decode(&f, WIRE_REQUEST, bytes, (size_t)(to - bytes) + ids, &scratch, &err),
        MCP_EFORMAT, &err, "more than 1048576 token ids");
    assert_null(scratch.tokens);

    to = wire_pb_put_tag(bytes, REQUEST_GENERATE, WIRE_PB_SPAN);
    to = wire_pb_put_varint(to, 2 * ids);
    for (size_t i = 0; i < ids; i++) {
        *to++ = 4 << 3;
        *to++ = 1;
    }
    unit_refused(wire_frame_decode(&f, WIRE_REQUEST, bytes, (size_t)(to - bytes), &scratch, &err),
                 MCP_EFORMAT, &err, "more than 1048576 token ids");
    free(bytes);
    wire_scratch_fini(&scratch);
}

/* Goal:   without memory for ids a frame is MCP_ENOMEM, and what was there stays usable. */
static void without_memory_for_ids_it_says_so(void **state)
{
    struct wire_scratch scratch = { 0 };
    struct wire_frame   f = { .kind = WIRE_GENERATE };
    struct made_message m;
    mcp_error           err = { 0 };
    int                 rc;

    (void)state;
    f.u.generate.tokens = made_ids;
    f.u.generate.token_count = 300;
    m = made_encode(&f, WIRE_REQUEST);
    starve_arm(1, false);
    rc = wire_frame_decode(&f, WIRE_REQUEST, m.bytes, m.count, &scratch, &err);
    assert_int_equal(starve_disarm(), 1);
    assert_int_equal(rc, MCP_ENOMEM);
    starve_check(rc, &err);
    assert_int_equal(f.kind, WIRE_NOTHING);
    unit_ok(wire_frame_decode(&f, WIRE_REQUEST, m.bytes, m.count, &scratch, &err), &err);
    assert_memory_equal(f.u.generate.tokens, made_ids, 300 * sizeof(int32_t));
    wire_scratch_fini(&scratch);
    assert_null(scratch.tokens);
    free(m.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_frame_is_byte_for_byte_what_protobuf_writes),
        cmocka_unit_test(made_bytes_stay_in_the_message_and_ids_in_one_place),
        cmocka_unit_test(no_frame_exceeds_the_overhead),
        cmocka_unit_test(a_message_holds_one_frame),
        cmocka_unit_test(identities_have_their_lengths),
        cmocka_unit_test(a_forward_contradicting_itself_is_refused),
        cmocka_unit_test(too_many_ids_are_refused),
        cmocka_unit_test(without_memory_for_ids_it_says_so),
    };

    return cmocka_run_group_tests_name("wire/frame", tests, made_fill, NULL);
}
