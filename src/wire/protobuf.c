/* wire/protobuf.c - see protobuf.h.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/protobuf.h"

#include "base/fail.h"

#include <inttypes.h>

static int ends_early(const struct wire_pb *r)
{
    return base_fail(r->err, MCP_EFORMAT, "%s: the message ends inside field %" PRIu32, r->what,
                     r->field);
}

int wire_pb_long_varint(struct wire_pb *r, uint64_t *value)
{
    uint64_t sum = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint64_t byte;

        if (r->at == r->end)
            return ends_early(r);
        byte = *r->at++;
        if (shift == 63 && byte > 1)
            break; /* the tenth byte has room for one bit */
        sum |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = sum;
            return MCP_OK;
        }
    }
    return base_fail(r->err, MCP_EFORMAT, "%s: a number at field %" PRIu32 " exceeds 64 bits",
                     r->what, r->field);
}

int wire_pb_next(struct wire_pb *r)
{
    uint64_t tag = 0;
    int      rc;

    if (r->at == r->end)
        return 0;
    rc = wire_pb_varint(r, &tag);
    if (rc < 0)
        return rc;
    if (tag > UINT32_MAX || tag >> 3 == 0)
        return base_fail(r->err, MCP_EFORMAT,
                         "%s: field number %" PRIu64 " cannot be, they go from 1 to 2^29 - 1",
                         r->what, tag >> 3);
    r->field = (uint32_t)(tag >> 3);
    r->type = (uint32_t)(tag & 7);
    return 1;
}

int wire_pb_expect(const struct wire_pb *r, enum wire_pb_type type)
{
    if (r->type == (uint32_t)type)
        return MCP_OK;
    return base_fail(r->err, MCP_EFORMAT,
                     "%s: field %" PRIu32 " has wire type %" PRIu32 ", must be %d", r->what,
                     r->field, r->type, (int)type);
}

int wire_pb_span(struct wire_pb *r, struct wire_pb *span)
{
    uint64_t bytes = 0;
    int      rc = wire_pb_expect(r, WIRE_PB_SPAN);

    if (rc == MCP_OK)
        rc = wire_pb_varint(r, &bytes);
    if (rc < 0)
        return rc;
    if (bytes > (uint64_t)(r->end - r->at))
        return base_fail(r->err, MCP_EFORMAT,
                         "%s: field %" PRIu32 " announces %" PRIu64 " bytes, %td follow", r->what,
                         r->field, bytes, r->end - r->at);
    *span = *r;
    span->end = r->at + bytes;
    r->at += bytes;
    return MCP_OK;
}

int wire_pb_fixed32(struct wire_pb *r, uint32_t *value)
{
    int rc = wire_pb_expect(r, WIRE_PB_4_BYTES);

    if (rc < 0)
        return rc;
    if (r->end - r->at < 4)
        return ends_early(r);
    *value = (uint32_t)r->at[0] | (uint32_t)r->at[1] << 8 | (uint32_t)r->at[2] << 16 |
             (uint32_t)r->at[3] << 24;
    r->at += 4;
    return MCP_OK;
}

int wire_pb_skip(struct wire_pb *r)
{
    struct wire_pb span;
    uint64_t       number;
    ptrdiff_t      bytes = r->type == WIRE_PB_8_BYTES ? 8 : 4;

    switch (r->type) {
    case WIRE_PB_VARINT: return wire_pb_varint(r, &number);
    case WIRE_PB_SPAN: return wire_pb_span(r, &span);
    case WIRE_PB_8_BYTES:
    case WIRE_PB_4_BYTES:
        if (r->end - r->at < bytes)
            return ends_early(r);
        r->at += bytes;
        return MCP_OK;
    default:
        return base_fail(r->err, MCP_EFORMAT,
                         "%s: field %" PRIu32 " has wire type %" PRIu32 ", which proto3 has not",
                         r->what, r->field, r->type);
    }
}
