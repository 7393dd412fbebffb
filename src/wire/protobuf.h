/* wire/protobuf.h - the protobuf encoding itself: tags, numbers, lengths.
 *
 * A reader walks one message without allocating or copying.  What can be wrong with the bytes
 * of a peer is a sentence with MCP_EFORMAT: a number that is cut off or longer than 64 bits, a
 * length beyond the end, a group (proto3 has none).  The same for writing, where the caller
 * has measured the room.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_PROTOBUF_H
#define WIRE_PROTOBUF_H

#include <mcp/error.h>
#include <stddef.h>
#include <stdint.h>

enum { WIRE_VARINT_BYTES_MAX = 10 };

enum wire_pb_type {
    WIRE_PB_VARINT = 0,
    WIRE_PB_8_BYTES = 1,
    WIRE_PB_SPAN = 2, /* a length and so many bytes */
    WIRE_PB_GROUP = 3,
    WIRE_PB_GROUP_END = 4,
    WIRE_PB_4_BYTES = 5,
};

struct wire_pb {
    const uint8_t *at, *end;
    const char    *what;  /* the message's name, for sentences */
    uint32_t       field; /* number and type of the field whose tag was read last */
    uint32_t       type;  /* enum wire_pb_type, or 6 or 7 */
    mcp_error     *err;
};

static inline struct wire_pb wire_pb_over(const uint8_t *bytes, size_t count, const char *what,
                                          mcp_error *err)
{
    const uint8_t *at = count > 0 ? bytes : (const uint8_t *)""; /* NULL has no end */

    return (struct wire_pb){ .at = at, .end = at + count, .what = what, .err = err };
}

/* Numbers of two bytes and more; and what is wrong. */
int wire_pb_long_varint(struct wire_pb *r, uint64_t *value);

static inline int wire_pb_varint(struct wire_pb *r, uint64_t *value)
{
    if (r->at < r->end && *r->at < 0x80) {
        *value = *r->at++;
        return MCP_OK;
    }
    return wire_pb_long_varint(r, value);
}

/* The next field's tag into r->field and r->type: 1; 0 at the end of the message; negative. */
int wire_pb_next(struct wire_pb *r);
/* MCP_EFORMAT unless the field just begun has this type. */
int wire_pb_expect(const struct wire_pb *r, enum wire_pb_type type);
/* A field of type WIRE_PB_SPAN: *span reads its bytes. */
int wire_pb_span(struct wire_pb *r, struct wire_pb *span);
/* A field of type WIRE_PB_4_BYTES. */
int wire_pb_fixed32(struct wire_pb *r, uint32_t *value);
/* Step over a field that we do not know. */
int wire_pb_skip(struct wire_pb *r);

static inline size_t wire_pb_varint_bytes(uint64_t value)
{
    size_t bytes = 1;

    for (; value >= 0x80; value >>= 7)
        bytes++;
    return bytes;
}

/* Each returns the place behind what it wrote. */
static inline uint8_t *wire_pb_put_varint(uint8_t *to, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *to++ = (uint8_t)(value | 0x80);
    *to++ = (uint8_t)value;
    return to;
}

static inline uint8_t *wire_pb_put_tag(uint8_t *to, uint32_t field, enum wire_pb_type type)
{
    return wire_pb_put_varint(to, (uint64_t)field << 3 | type);
}

static inline uint8_t *wire_pb_put_fixed32(uint8_t *to, uint32_t value)
{
    for (int shift = 0; shift < 32; shift += 8)
        *to++ = (uint8_t)(value >> shift);
    return to;
}

#endif
