/* wire/fields.c - see fields.h.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/fields.h"

#include "base/fail.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(enum wire_want) == sizeof(uint32_t), "enums are read and written as such");

enum { TOKENS_FIRST = 64 }; /* room for a few decode frames' worth */

static const void *member(const void *from, size_t at)
{
    return (const char *)from + at;
}

static void *member_to(void *to, size_t at)
{
    return (char *)to + at;
}

/* An enum's type is the compiler's choice: read and written as bytes. */
static uint32_t u32_at(const void *from, size_t at)
{
    uint32_t value;

    memcpy(&value, member(from, at), sizeof(value));
    return value;
}

static size_t size_at(const void *from, size_t at)
{
    return *(const size_t *)member(from, at);
}

/* ---- writing ------------------------------------------------------------------------ */

/* A number as its varint; 0 is the default, which is not written. */
static uint64_t number_at(const struct wire_field *f, const void *from)
{
    switch (f->type) {
    case WIRE_FIELD_FLAG: return *(const bool *)member(from, f->at);
    case WIRE_FIELD_U64: return *(const uint64_t *)member(from, f->at);
    case WIRE_FIELD_I32: return (uint64_t)(int64_t)(int32_t)u32_at(from, f->at); /* sign-extended */
    default: return u32_at(from, f->at);
    }
}

/* The bytes behind the tag and length of a field that has them: 0 = default, not written. */
static size_t span_bytes(const struct wire_field *f, const void *from)
{
    const int32_t *tokens;
    size_t         sum = 0;

    switch (f->type) {
    case WIRE_FIELD_DIGEST: return f->limit;
    case WIRE_FIELD_DIGEST_IF: return *(const bool *)member(from, f->more) ? f->limit : 0;
    case WIRE_FIELD_DATA: return size_at(from, f->more);
    default: break;
    }
    tokens = *(const int32_t *const *)member(from, f->at);
    for (size_t i = 0; i < size_at(from, f->more); i++)
        sum += wire_pb_varint_bytes((uint64_t)(int64_t)tokens[i]);
    return sum;
}

size_t wire_fields_bytes(const struct wire_layout *layout, const void *from)
{
    size_t sum = 0;

    assert(layout->count <= WIRE_FIELD_NUMBER_MAX + 1);
    for (uint32_t number = 1; number < layout->count; number++) {
        const struct wire_field *f = &layout->fields[number];
        uint64_t                 value;
        size_t                   bytes;

        switch (f->type) {
        case WIRE_FIELD_NONE: break;
        case WIRE_FIELD_FLAG:
        case WIRE_FIELD_U32:
        case WIRE_FIELD_U64:
        case WIRE_FIELD_I32:
            value = number_at(f, from);
            sum += value == 0 ? 0 : 1 + wire_pb_varint_bytes(value);
            break;
        case WIRE_FIELD_FLOAT: sum += *(const float *)member(from, f->at) == 0.0f ? 0 : 5; break;
        default:
            bytes = span_bytes(f, from);
            sum += bytes == 0 ? 0 : 1 + wire_pb_varint_bytes(bytes) + bytes;
            break;
        }
    }
    return sum;
}

static uint8_t *put_span(const struct wire_field *f, uint32_t number, const void *from, uint8_t *to)
{
    size_t         bytes = span_bytes(f, from);
    const int32_t *tokens;

    if (bytes == 0)
        return to;
    to = wire_pb_put_tag(to, number, WIRE_PB_SPAN);
    to = wire_pb_put_varint(to, bytes);
    switch (f->type) {
    case WIRE_FIELD_DIGEST:
    case WIRE_FIELD_DIGEST_IF: memcpy(to, member(from, f->at), bytes); break;
    case WIRE_FIELD_DATA: memcpy(to, *(const uint8_t *const *)member(from, f->at), bytes); break;
    default:
        tokens = *(const int32_t *const *)member(from, f->at);
        for (size_t i = 0; i < size_at(from, f->more); i++)
            to = wire_pb_put_varint(to, (uint64_t)(int64_t)tokens[i]);
        return to;
    }
    return to + bytes;
}

uint8_t *wire_fields_encode(const struct wire_layout *layout, const void *from, uint8_t *target)
{
    for (uint32_t number = 1; number < layout->count; number++) {
        const struct wire_field *f = &layout->fields[number];
        uint64_t                 value;

        switch (f->type) {
        case WIRE_FIELD_NONE: break;
        case WIRE_FIELD_FLAG:
        case WIRE_FIELD_U32:
        case WIRE_FIELD_U64:
        case WIRE_FIELD_I32:
            value = number_at(f, from);
            if (value == 0)
                break;
            target = wire_pb_put_tag(target, number, WIRE_PB_VARINT);
            target = wire_pb_put_varint(target, value);
            break;
        case WIRE_FIELD_FLOAT:
            if (*(const float *)member(from, f->at) == 0.0f)
                break;
            target = wire_pb_put_tag(target, number, WIRE_PB_4_BYTES);
            target = wire_pb_put_fixed32(target, u32_at(from, f->at));
            break;
        default: target = put_span(f, number, from, target); break;
        }
    }
    return target;
}

/* ---- reading ------------------------------------------------------------------------ */

static int take_number(const struct wire_field *f, void *to, struct wire_pb *r)
{
    void    *target = member_to(to, f->at);
    uint64_t value = 0;
    uint32_t low;
    int      rc = wire_pb_expect(r, WIRE_PB_VARINT);

    if (rc == MCP_OK)
        rc = wire_pb_varint(r, &value);
    if (rc < 0)
        return rc;
    low = (uint32_t)value;
    switch (f->type) {
    case WIRE_FIELD_FLAG: *(bool *)target = value != 0; return MCP_OK;
    case WIRE_FIELD_U64: *(uint64_t *)target = value; return MCP_OK;
    case WIRE_FIELD_I32:
        if ((int64_t)value < INT32_MIN || (int64_t)value > INT32_MAX)
            return base_fail(r->err, MCP_EFORMAT, "%s: %s is %" PRId64 ", which exceeds 32 bits",
                             r->what, f->name, (int64_t)value);
        break;
    default:
        if (value > f->limit)
            return base_fail(r->err, MCP_EFORMAT, "%s: %s is %" PRIu64 ", at most %" PRIu32,
                             r->what, f->name, value, f->limit);
        break;
    }
    memcpy(target, &low, sizeof(low));
    return MCP_OK;
}

static int take_float(const struct wire_field *f, void *to, struct wire_pb *r)
{
    uint32_t bits = 0;
    float    value;
    int      rc = wire_pb_fixed32(r, &bits);

    if (rc < 0)
        return rc;
    memcpy(&value, &bits, sizeof(value));
    if (!isfinite(value))
        return base_fail(r->err, MCP_EFORMAT, "%s: %s is not a finite number", r->what, f->name);
    *(float *)member_to(to, f->at) = value;
    return MCP_OK;
}

static int take_digest(const struct wire_field *f, void *to, struct wire_pb *r)
{
    bool           may_lack = f->type == WIRE_FIELD_DIGEST_IF;
    struct wire_pb span;
    size_t         bytes;
    int            rc = wire_pb_span(r, &span);

    if (rc < 0)
        return rc;
    bytes = (size_t)(span.end - span.at);
    if (bytes != f->limit && !(may_lack && bytes == 0))
        return base_fail(r->err, MCP_EFORMAT, "%s: %s has %zu bytes, must have %" PRIu32, r->what,
                         f->name, bytes, f->limit);
    memset(member_to(to, f->at), 0, f->limit);
    memcpy(member_to(to, f->at), span.at, bytes);
    if (may_lack)
        *(bool *)member_to(to, f->more) = bytes > 0;
    return MCP_OK;
}

static int take_data(const struct wire_field *f, void *to, struct wire_pb *r)
{
    struct wire_pb span;
    int            rc = wire_pb_span(r, &span);

    if (rc < 0)
        return rc;
    *(const uint8_t **)member_to(to, f->at) = span.at;
    *(size_t *)member_to(to, f->more) = (size_t)(span.end - span.at);
    return MCP_OK;
}

static int reserve(struct wire_scratch *scratch, size_t count, const struct wire_pb *r)
{
    size_t   cap = scratch->cap * 2 > TOKENS_FIRST ? scratch->cap * 2 : TOKENS_FIRST;
    int32_t *grown;

    if (count > WIRE_TOKENS_MAX)
        return base_fail(r->err, MCP_EFORMAT, "%s: more than %d token ids in one frame", r->what,
                         WIRE_TOKENS_MAX);
    if (count <= scratch->cap)
        return MCP_OK;
    cap = cap > count ? cap : count;
    grown = realloc(scratch->tokens, cap * sizeof(*grown));
    if (grown == NULL)
        return base_fail(r->err, MCP_ENOMEM, "%s: no memory for %zu token ids", r->what, cap);
    scratch->tokens = grown;
    scratch->cap = cap;
    return MCP_OK;
}

/* Ids until the span ends; there is room for all of them. */
static int take_ids(const struct wire_field *f, struct wire_pb *span, int32_t *ids, size_t *count)
{
    while (span->at < span->end) {
        uint64_t value = 0;
        int      rc = wire_pb_varint(span, &value);

        if (rc < 0)
            return rc;
        if ((int64_t)value < INT32_MIN || (int64_t)value > INT32_MAX)
            return base_fail(span->err, MCP_EFORMAT,
                             "%s: %s has an id of %" PRId64 ", which exceeds 32 bits", span->what,
                             f->name, (int64_t)value);
        ids[(*count)++] = (int32_t)value;
    }
    return MCP_OK;
}

/* Packed (all ids in one field) or one a field: both are proto3, and may be mixed. */
static int take_tokens(const struct wire_field *f, void *to, struct wire_pb *r,
                       struct wire_scratch *scratch)
{
    size_t        *count = member_to(to, f->more);
    size_t         more = 1;
    struct wire_pb span = *r;
    int            rc = MCP_OK;

    if (r->type == WIRE_PB_VARINT) {
        uint64_t ignored;

        rc = wire_pb_varint(r, &ignored); /* to find where it ends */
        span.end = r->at;
    } else {
        rc = wire_pb_span(r, &span);
        more = 0;
        for (const uint8_t *at = span.at; rc == MCP_OK && at < span.end; at++)
            more += *at < 0x80; /* each id has one such byte, its last */
    }
    if (rc == MCP_OK)
        rc = reserve(scratch, *count + more, r);
    if (rc == MCP_OK)
        rc = take_ids(f, &span, scratch->tokens, count);
    *(const int32_t **)member_to(to, f->at) = *count > 0 ? scratch->tokens : NULL;
    return rc;
}

static int take(const struct wire_field *f, void *to, struct wire_pb *r,
                struct wire_scratch *scratch)
{
    switch (f->type) {
    case WIRE_FIELD_FLOAT: return take_float(f, to, r);
    case WIRE_FIELD_DIGEST:
    case WIRE_FIELD_DIGEST_IF: return take_digest(f, to, r);
    case WIRE_FIELD_DATA: return take_data(f, to, r);
    case WIRE_FIELD_TOKENS: return take_tokens(f, to, r, scratch);
    default: return take_number(f, to, r);
    }
}

int wire_fields_decode(const struct wire_layout *layout, void *to, struct wire_pb *r,
                       struct wire_scratch *scratch)
{
    uint32_t seen = 0; /* bit i: field i */
    int      rc;

    for (rc = wire_pb_next(r); rc > 0; rc = wire_pb_next(r)) {
        const struct wire_field *f = &layout->fields[r->field < layout->count ? r->field : 0];

        rc = f->type == WIRE_FIELD_NONE ? wire_pb_skip(r) : take(f, to, r, scratch);
        if (rc < 0)
            return rc;
        seen |= r->field < layout->count ? 1u << r->field : 0;
    }
    if (rc < 0)
        return rc;
    for (uint32_t number = 1; number < layout->count; number++)
        if (layout->fields[number].type == WIRE_FIELD_DIGEST && (seen & 1u << number) == 0)
            return base_fail(r->err, MCP_EFORMAT, "%s: %s is missing", r->what,
                             layout->fields[number].name);
    return MCP_OK;
}
