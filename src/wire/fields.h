/* wire/fields.h - protobuf messages to and from C structs, by a table of their fields.
 *
 * For the messages of the hot path.  Reading copies numbers and token ids only: bytes stay in
 * the message and the struct points to them.  Writing gives what any protobuf library gives:
 * fields in order of their numbers, defaults left out, ids packed.
 *
 * Reading is stricter than protobuf where a peer's mistake would otherwise become another
 * value: a number too large for its field, an enum value that does not exist, another wire type
 * than the field's and a float that is not finite are refused.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_FIELDS_H
#define WIRE_FIELDS_H

#include "wire/frame.h"
#include "wire/protobuf.h"

enum wire_field_type {
    WIRE_FIELD_NONE = 0,  /* no field has this number: skipped */
    WIRE_FIELD_FLAG,      /* bool */
    WIRE_FIELD_U32,       /* uint32_t or an enum, at most `limit` */
    WIRE_FIELD_U64,       /* uint64_t */
    WIRE_FIELD_I32,       /* int32_t */
    WIRE_FIELD_FLOAT,     /* float */
    WIRE_FIELD_DIGEST,    /* uint8_t[limit]; must be there */
    WIRE_FIELD_DIGEST_IF, /* uint8_t[limit]; `more` is the bool that tells whether it is there */
    WIRE_FIELD_DATA,      /* const uint8_t *; `more` is the size_t of bytes */
    WIRE_FIELD_TOKENS,    /* const int32_t *; `more` is the size_t of ids */
};

enum { WIRE_FIELD_NUMBER_MAX = 15 }; /* so that a tag is one byte */

struct wire_field {
    uint8_t     type;     /* enum wire_field_type */
    uint16_t    at, more; /* offsets in the struct */
    uint32_t    limit;
    const char *name; /* as in the .proto file */
};

struct wire_layout {
    const char              *name;
    const struct wire_field *fields; /* by number; the first entry is not used */
    uint32_t                 count;  /* the largest number + 1 */
};

/* Encoded size; the bytes, returning the place behind them. */
size_t   wire_fields_bytes(const struct wire_layout *layout, const void *from);
uint8_t *wire_fields_encode(const struct wire_layout *layout, const void *from, uint8_t *target);

/* Read the message in `r` to its end.  `to` is zeroed beforehand.  `scratch` is for token ids
 * and may be NULL where the layout has none.  MCP_EFORMAT, MCP_ENOMEM. */
int wire_fields_decode(const struct wire_layout *layout, void *to, struct wire_pb *r,
                       struct wire_scratch *scratch);

#endif
