/* wire/protobuf_test.c - the encoding's freedoms, and bytes that no honest peer sends.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/protobuf.h"

#include "wire/codec.h"
#include "wire/made_test.h"
#include "wire/script_test.h"

#include <math.h>

enum { ROUNDS = 400 };

/* ---- tests ---------------------------------------------------------------------------- */

/* Goal:   numbers of every length are written as protobuf's, and read back.
 * Method: around each power of two, and the published example 150 = 96 01. */
static void numbers_of_every_length_travel(void **state)
{
    uint8_t  bytes[WIRE_VARINT_BYTES_MAX];
    uint64_t back = 0;

    (void)state;
    assert_ptr_equal(wire_pb_put_varint(bytes, 150), bytes + 2);
    assert_memory_equal(bytes, "\x96\x01", 2);
    for (int bit = 0; bit < 64; bit++)
        for (int step = -1; step <= 1; step++) {
            uint64_t       value = (1ull << bit) + (uint64_t)step;
            size_t         count = (size_t)(wire_pb_put_varint(bytes, value) - bytes);
            struct wire_pb r = wire_pb_over(bytes, count, "numbers", NULL);

            assert_int_equal(wire_pb_varint_bytes(value), count);
            assert_int_equal(wire_pb_varint(&r, &back), MCP_OK);
            assert_true(back == value && r.at == r.end);
        }
}

/* What protobuf-c makes of a message, written again without the fields it does not know; to be
 * freed. */
static uint8_t *rewritten(const struct script *whole, const char *name, size_t *count)
{
    const ProtobufCFieldDescriptor *field;
    ProtobufCMessage               *m, *body;
    uint8_t                        *bytes;
    unsigned                        strangers;

    m = protobuf_c_message_unpack(&mcp__v1__execute_request__descriptor, NULL, whole->count,
                                  whole->bytes);
    assert_non_null(m);
    body = *(ProtobufCMessage **)oracle_place(m, name, &field);
    strangers = body->n_unknown_fields;
    body->n_unknown_fields = 0;
    bytes = oracle_pack(m, count);
    body->n_unknown_fields = strangers;
    protobuf_c_message_free_unpacked(m, NULL);
    return bytes;
}

/* Goal:   proto3's freedoms: any order, the last of a repeated scalar counts, unknown fields
 *         of every type are skipped.
 * Method: numbers of a Forward at random, each several times, and strangers in between;
 *         protobuf-c reads the same bytes. */
static void fields_may_come_in_any_order_repeatedly_and_with_strangers(void **state)
{
    static const uint32_t fields[] = { 1, 2, 3, 4, 6, 7, 10, 11, 12, 13, 14 };
    uint64_t              seed = unit_seed();
    struct wire_scratch   scratch = { 0 };

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct script       body = { .count = 0 }, whole = { .count = 0 };
        struct wire_frame   f;
        struct made_message ours;
        uint8_t            *expected;
        size_t              count;
        mcp_error           err;

        for (size_t i = 0; i < 3 * UNIT_COUNT(fields); i++) {
            uint32_t field = fields[unit_below(&seed, UNIT_COUNT(fields))];
            bool     small = field == 6 || field == 7 || (field >= 10 && field <= 12);

            put_number(&body, field, small ? unit_below(&seed, 3) : made_u32(&seed));
            switch (unit_below(&seed, 6)) {
            case 0: put_number(&body, 15 + unit_below(&seed, 3000), unit_next(&seed)); break;
            case 1: put_span(&body, 1u << (4 + unit_below(&seed, 24)), made_bytes, 11); break;
            case 2: put_fixed(&body, (1u << 29) - 1, WIRE_PB_8_BYTES, unit_next(&seed)); break;
            case 3: put_fixed(&body, 77, WIRE_PB_4_BYTES, unit_next(&seed)); break;
            default: break;
            }
        }
        put_span(&whole, REQUEST_FORWARD, body.bytes, body.count);
        unit_ok(decode_body(&f, REQUEST_FORWARD, &body, &scratch, &err), &err);
        ours = made_encode(&f, WIRE_REQUEST);
        expected = rewritten(&whole, "forward", &count);
        assert_int_equal(count, ours.count);
        assert_memory_equal(expected, ours.bytes, count);
        free(expected);
        free(ours.bytes);
    }
    wire_scratch_fini(&scratch);
}

/* Goal:   token ids packed, one a field, and both mixed are the same ids. */
static void ids_may_be_packed_or_not(void **state)
{
    struct wire_scratch scratch = { 0 };
    struct script       body = { .count = 0 };
    struct wire_frame   f;
    mcp_error           err;

    (void)state;
    put_number(&body, 4, 7);
    put_span(&body, 4, "\x01\x82\x01", 3); /* 1, 130 */
    put_span(&body, 4, "", 0);
    put_number(&body, 4, (uint64_t)-5);
    put_span(&body, 4, "\x09", 1);
    unit_ok(decode_body(&f, REQUEST_GENERATE, &body, &scratch, &err), &err);
    assert_int_equal(f.u.generate.token_count, 5);
    assert_memory_equal(f.u.generate.tokens, ((const int32_t[]){ 7, 1, 130, -5, 9 }),
                        5 * sizeof(int32_t));
    wire_scratch_fini(&scratch);
}

/* Goal:   bytes that are no protobuf are a sentence.
 * Method: one row a fault, at the top and inside a frame. */
static void malformed_bytes_are_a_sentence(void **state)
{
    static const struct {
        const char *bytes;
        size_t      count;
        const char *about;
    } rows[] = {
        { "\x80", 1, "ends inside" },             /* a tag */
        { "\x12", 1, "ends inside field 2" },     /* no length */
        { "\x12\x80", 2, "ends inside field 2" }, /* half a length */
        { "\x12\x05\x08\x01", 4, "field 2 announces 5 bytes, 2 follow" },
        { "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "announces 18446744073709551615" },
        { "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11, "exceeds 64 bits" },
        { "\x12\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 12, "exceeds 64 bits" },
        { "\x10\x05", 2, "field 2 has wire type 0, must be 2" },
        { "\x15\x01\x02\x03\x04", 5, "field 2 has wire type 5, must be 2" },
        { "\x02\x00", 2, "field number 0 cannot be" },
        { "\x80\x80\x80\x80\x10\x00", 6, "field number 536870912 cannot be" },
        { "\x7b\x7c", 2, "field 15 has wire type 3, which proto3 has not" },
        { "\x7c", 1, "field 15 has wire type 4" },
        { "\x7e", 1, "field 15 has wire type 6" },
        { "\x7f", 1, "field 15 has wire type 7" },
        { "\x79\x01\x02\x03\x04\x05\x06\x07", 8, "ends inside field 15" },
        { "\x7d\x01\x02\x03", 4, "ends inside field 15" },
        { "\x7a\x02\x01", 3, "field 15 announces 2 bytes, 1 follow" },
        { "\x78\xff", 2, "ends inside field 15" },
        /* inside a Forward: its own end is the end, though bytes follow */
        { "\x12\x01\x08\x78\x01", 5, "forward: the message ends inside field 1" },
        { "\x12\x02\x42\x01\x78\x01", 6, "forward: field 8 announces 1 bytes, 0 follow" },
        { "\x12\x02\x2a\x01\x78\x01", 6, "forward: field 5 announces 1 bytes, 0 follow" },
        { "\x12\x03\x2a\x01\x80\x78\x01", 7, "forward: the message ends inside field 5" },
        { "\x12\x05\x2d\x01\x02\x03\x04", 7, "forward: field 5 has wire type 5, must be 2" },
        { "\x12\x02\x0a\x00", 4, "forward: field 1 has wire type 2, must be 0" },
        { "\x12\x02\x0b\x0c", 4, "forward: field 1 has wire type 3, must be 0" },
        { "\x2a\x02\x30\x01", 4, "generate: field 6 has wire type 0, must be 5" },
        { "\x2a\x04\x35\x01\x02\x03\x78\x01", 8, "generate: the message ends inside field 6" },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++)
        refuse_message(rows[i].bytes, rows[i].count, rows[i].about);
}

/* Goal:   a message cut at any byte, with or without its length put right, is read or refused
 *         and nothing else.  Memory behind the end is not ours: the sanitizer sees it.
 * Method: every kind with random fields, every cut. */
static void a_message_cut_anywhere_is_refused(void **state)
{
    struct wire_scratch scratch = { 0 };
    uint64_t            seed = unit_seed();

    (void)state;
    for (int kind = WIRE_OPEN; kind < WIRE_KINDS; kind++) {
        enum wire_direction direction = made_goes((enum wire_kind)kind, WIRE_REQUEST) ? WIRE_REQUEST
                                                                                      : WIRE_REPLY;
        struct wire_frame   f, back;
        struct made_message m;
        size_t              head;

        made_frame(&f, (enum wire_kind)kind, &seed);
        if (wire_frame_payload(&f) != NULL)
            wire_frame_payload(&f)->bytes %= 40;
        m = made_encode(&f, direction);
        for (head = 1; m.bytes[head] >= 0x80; head++)
            ;
        for (size_t cut = 0; cut < m.count; cut++) {
            uint8_t  *part = malloc(cut + WIRE_VARINT_BYTES_MAX);
            uint8_t  *end;
            mcp_error err = { 0 };
            int       rc;

            assert_non_null(part);
            memcpy(part, m.bytes, cut);
            end = realloc(part, cut > 0 ? cut : 1);
            assert_non_null(end);
            part = end;
            assert_int_equal(wire_frame_decode(&back, direction, part, cut, &scratch, &err),
                             MCP_EFORMAT);
            assert_string_not_equal(err.text, "");
            free(part);
            if (cut <= head)
                continue;

            part = malloc(1 + wire_pb_varint_bytes(cut - head - 1) + cut - head - 1);
            assert_non_null(part);
            part[0] = m.bytes[0];
            end = wire_pb_put_varint(part + 1, cut - head - 1);
            memcpy(end, m.bytes + head + 1, cut - head - 1);
            end += cut - head - 1;
            rc = wire_frame_decode(&back, direction, part, (size_t)(end - part), &scratch, &err);
            assert_true(rc == MCP_OK || (rc == MCP_EFORMAT && back.kind == WIRE_NOTHING));
            free(part);
        }
        free(m.bytes);
    }
    wire_scratch_fini(&scratch);
}

/* Goal:   a value outside its field's range is refused and never becomes another value. */
static void values_out_of_range_are_refused(void **state)
{
    static const struct {
        uint32_t    frame, field;
        uint64_t    value;
        const char *about;
    } rows[] = {
        { REQUEST_OPEN, 6, WIRE_QOS_BATCH + 1, "open: qos is 3, at most 2" },
        { REQUEST_FORWARD, 6, WIRE_CODECS, "forward: codec is 6, at most 5" },
        { REQUEST_FORWARD, 7, WIRE_WRAPS, "forward: wrap is 3, at most 2" },
        { REQUEST_FORWARD, 10, WIRE_WANT_LOGITS + 1, "forward: want is 5, at most 4" },
        { REQUEST_FORWARD, 11, WIRE_CODECS, "forward: reply_codec is 6, at most 5" },
        { REQUEST_FORWARD, 12, (uint64_t)-1, "forward: reply_wrap is 18446744073709551615" },
        { REQUEST_FORWARD, 3, 1ull << 32, "forward: pos is 4294967296, at most 4294967295" },
        { REQUEST_FORWARD, 5, 1ull << 31, "forward: tokens has an id of 2147483648" },
        { REQUEST_FORWARD, 9, WIRE_PAYLOAD_MAX + 1, "forward: data_total is 536870913, at most" },
        { REQUEST_IMPORT, 3, UINT64_MAX, "import_state: data_total is 18446744073709551615" },
        { REQUEST_GENERATE, 7, 1ull << 31, "generate: top_k is 2147483648" },
        { REQUEST_GENERATE, 7, (uint64_t)INT32_MIN - 1, "generate: top_k is -2147483649" },
    };
    static const float floats[] = { INFINITY, -INFINITY, NAN };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct script body = { .count = 0 };

        put_number(&body, rows[i].field, rows[i].value);
        refuse_body(rows[i].frame, &body, rows[i].about);
    }
    for (uint32_t field = 6; field <= 9; field++)
        for (size_t i = 0; i < UNIT_COUNT(floats) && field != 7; i++) {
            struct script body = { .count = 0 };

            put_float(&body, field, floats[i]);
            refuse_body(REQUEST_GENERATE, &body, "is not a finite number");
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_every_length_travel),
        cmocka_unit_test(fields_may_come_in_any_order_repeatedly_and_with_strangers),
        cmocka_unit_test(ids_may_be_packed_or_not),
        cmocka_unit_test(malformed_bytes_are_a_sentence),
        cmocka_unit_test(a_message_cut_anywhere_is_refused),
        cmocka_unit_test(values_out_of_range_are_refused),
    };

    return cmocka_run_group_tests_name("wire/protobuf", tests, made_fill, NULL);
}
