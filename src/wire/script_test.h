/* wire/script_test.h - messages written by hand, field by field, right or wrong.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_SCRIPT_TEST_H
#define WIRE_SCRIPT_TEST_H

#include "base/unit_test.h"
#include "wire/frame.h"
#include "wire/protobuf.h"

struct script {
    uint8_t bytes[4096];
    size_t  count;
};

static inline void put_number(struct script *s, uint32_t field, uint64_t value)
{
    uint8_t *to = wire_pb_put_tag(s->bytes + s->count, field, WIRE_PB_VARINT);

    s->count = (size_t)(wire_pb_put_varint(to, value) - s->bytes);
}

static inline void put_span(struct script *s, uint32_t field, const void *bytes, size_t count)
{
    uint8_t *to = wire_pb_put_tag(s->bytes + s->count, field, WIRE_PB_SPAN);

    to = wire_pb_put_varint(to, count);
    assert_true((size_t)(to - s->bytes) + count <= sizeof(s->bytes));
    memcpy(to, bytes, count);
    s->count = (size_t)(to - s->bytes) + count;
}

static inline void put_fixed(struct script *s, uint32_t field, enum wire_pb_type type,
                             uint64_t bits)
{
    uint8_t *to = wire_pb_put_tag(s->bytes + s->count, field, type);

    to = wire_pb_put_fixed32(to, (uint32_t)bits);
    if (type == WIRE_PB_8_BYTES)
        to = wire_pb_put_fixed32(to, (uint32_t)(bits >> 32));
    s->count = (size_t)(to - s->bytes);
}

static inline void put_raw(struct script *s, const char *bytes, size_t count)
{
    memcpy(s->bytes + s->count, bytes, count);
    s->count += count;
}

static inline void put_float(struct script *s, uint32_t field, float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    put_fixed(s, field, WIRE_PB_4_BYTES, bits);
}

/* Numbers in the oneof of ExecuteRequest, from compute.proto. */
enum {
    REQUEST_OPEN = 1,
    REQUEST_FORWARD = 2,
    REQUEST_MORE = 3,
    REQUEST_TRIM = 4,
    REQUEST_GENERATE = 5,
    REQUEST_IMPORT = 7,
    REQUEST_CLOSE = 8,
    REQUEST_BEAT = 9
};

static inline int decode_body(struct wire_frame *f, uint32_t number, const struct script *body,
                              struct wire_scratch *scratch, mcp_error *err)
{
    struct script whole = { .count = 0 };
    uint8_t      *bytes;
    int           rc;

    put_span(&whole, number, body->bytes, body->count);
    bytes = malloc(whole.count);
    assert_non_null(bytes);
    memcpy(bytes, whole.bytes, whole.count);
    rc = wire_frame_decode(f, WIRE_REQUEST, bytes, whole.count, scratch, err);
    free(bytes); /* only numbers of *f are looked at afterwards */
    return rc;
}

static inline void refuse_body(uint32_t number, const struct script *body, const char *about)
{
    struct wire_scratch scratch = { 0 };
    struct wire_frame   f;
    mcp_error           err = { 0 };

    unit_refused(decode_body(&f, number, body, &scratch, &err), MCP_EFORMAT, &err, about);
    assert_int_equal(f.kind, WIRE_NOTHING);
    wire_scratch_fini(&scratch);
}

static inline void refuse_message(const char *bytes, size_t count, const char *about)
{
    struct wire_scratch scratch = { 0 };
    struct wire_frame   f;
    mcp_error           err = { 0 };

    unit_refused(wire_frame_decode(&f, WIRE_REQUEST, (const uint8_t *)bytes, count, &scratch, &err),
                 MCP_EFORMAT, &err, about);
    assert_int_equal(f.kind, WIRE_NOTHING);
    wire_scratch_fini(&scratch);
}

#endif
