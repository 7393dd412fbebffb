/* wire/made_test.h - frames made at random, and protobuf-c as the oracle of their bytes.
 *
 * The oracle is filled by field names through protobuf-c's descriptors, so that it shares
 * nothing with the tables of frame.c but compute.proto.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_MADE_TEST_H
#define WIRE_MADE_TEST_H

#include "base/unit_test.h"
#include "wire/frame.h"

#include <protobuf-c/protobuf-c.h>

extern const ProtobufCMessageDescriptor mcp__v1__execute_request__descriptor;
extern const ProtobufCMessageDescriptor mcp__v1__execute_reply__descriptor;

/* ---- protobuf-c by names ------------------------------------------------------------- */

static inline ProtobufCMessage *oracle_new(const ProtobufCMessageDescriptor *d)
{
    ProtobufCMessage *m = calloc(1, d->sizeof_message);

    assert_non_null(m);
    protobuf_c_message_init(d, m);
    return m;
}

static inline void *oracle_place(ProtobufCMessage *m, const char *name,
                                 const ProtobufCFieldDescriptor **field)
{
    *field = protobuf_c_message_descriptor_get_field_by_name(m->descriptor, name);
    if (*field == NULL)
        fail_msg("%s has no field %s", m->descriptor->name, name);
    return (char *)m + (*field)->offset;
}

static inline void oracle_number(ProtobufCMessage *m, const char *name, uint64_t value)
{
    const ProtobufCFieldDescriptor *field;
    void                           *place = oracle_place(m, name, &field);

    switch (field->type) {
    case PROTOBUF_C_TYPE_UINT64: *(uint64_t *)place = value; break;
    case PROTOBUF_C_TYPE_UINT32: *(uint32_t *)place = (uint32_t)value; break;
    case PROTOBUF_C_TYPE_INT32: *(int32_t *)place = (int32_t)value; break;
    case PROTOBUF_C_TYPE_ENUM: *(int *)place = (int)value; break;
    case PROTOBUF_C_TYPE_BOOL: *(protobuf_c_boolean *)place = (protobuf_c_boolean)value; break;
    default: fail_msg("%s is no number", name);
    }
}

static inline void oracle_float(ProtobufCMessage *m, const char *name, float value)
{
    const ProtobufCFieldDescriptor *field;
    float                          *place = oracle_place(m, name, &field);

    assert_int_equal(field->type, PROTOBUF_C_TYPE_FLOAT);
    *place = value;
}

static inline void oracle_text(ProtobufCMessage *m, const char *name, const char *text)
{
    const ProtobufCFieldDescriptor *field;
    const char                    **place = oracle_place(m, name, &field);

    assert_int_equal(field->type, PROTOBUF_C_TYPE_STRING);
    *place = text;
}

/* The bytes are borrowed. */
static inline void oracle_bytes(ProtobufCMessage *m, const char *name, const void *bytes,
                                size_t count)
{
    const ProtobufCFieldDescriptor *field;
    ProtobufCBinaryData            *place = oracle_place(m, name, &field);

    assert_int_equal(field->type, PROTOBUF_C_TYPE_BYTES);
    place->data = (uint8_t *)(uintptr_t)bytes;
    place->len = count;
}

/* A repeated field; `items` are in protobuf-c's form and borrowed. */
static inline void oracle_list(ProtobufCMessage *m, const char *name, const void *items,
                               size_t count)
{
    const ProtobufCFieldDescriptor *field;
    const void                    **place = (const void **)oracle_place(m, name, &field);

    assert_int_equal(field->label, PROTOBUF_C_LABEL_REPEATED);
    *place = items;
    *(size_t *)(void *)((char *)m + field->quantifier_offset) = count;
}

/* A new message inside `m`, chosen if it is one of a oneof. */
static inline ProtobufCMessage *oracle_child(ProtobufCMessage *m, const char *name)
{
    const ProtobufCFieldDescriptor *field;
    ProtobufCMessage              **place = oracle_place(m, name, &field);

    assert_int_equal(field->type, PROTOBUF_C_TYPE_MESSAGE);
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0)
        *(uint32_t *)(void *)((char *)m + field->quantifier_offset) = field->id;
    *place = oracle_new(field->descriptor);
    return *place;
}

/* Encoded, to be freed. */
static inline uint8_t *oracle_pack(const ProtobufCMessage *m, size_t *count)
{
    uint8_t *bytes;

    *count = protobuf_c_message_get_packed_size(m);
    bytes = malloc(*count + 1);
    assert_non_null(bytes);
    assert_int_equal(protobuf_c_message_pack(m, bytes), *count);
    return bytes;
}

/* ---- frames --------------------------------------------------------------------------- */

enum { MADE_BYTES_MAX = 1 << 20, MADE_TOKENS_MAX = 600 };

/* What frames point to. */
static uint8_t made_bytes[MADE_BYTES_MAX];
static int32_t made_ids[MADE_TOKENS_MAX];

static const struct {
    const char *request, *reply; /* in the oneof; NULL: does not go that way */
} made_kinds[WIRE_KINDS] = {
    [WIRE_OPEN] = { "open", NULL },
    [WIRE_OPENED] = { NULL, "opened" },
    [WIRE_FORWARD] = { "forward", NULL },
    [WIRE_RESULT] = { NULL, "result" },
    [WIRE_MORE] = { "more", "more" },
    [WIRE_TRIM] = { "trim", NULL },
    [WIRE_GENERATE] = { "generate", NULL },
    [WIRE_TOKEN] = { NULL, "token" },
    [WIRE_EXPORT] = { "export_state", NULL },
    [WIRE_IMPORT] = { "import_state", NULL },
    [WIRE_STATE] = { NULL, "state" },
    [WIRE_CLOSE] = { "close", NULL },
    [WIRE_CLOSED] = { NULL, "closed" },
    [WIRE_BEAT] = { "beat", "beat" },
    [WIRE_ACK] = { "ack", "ack" },
    [WIRE_DRAINING] = { NULL, "draining" },
};

static inline bool made_goes(enum wire_kind kind, enum wire_direction direction)
{
    return (direction == WIRE_REQUEST ? made_kinds[kind].request : made_kinds[kind].reply) != NULL;
}

/* Small and large numbers alike; 0 and the largest often enough. */
static inline uint64_t made_number(uint64_t *seed, unsigned bits)
{
    uint64_t value = unit_next(seed) >> (64 - bits);

    return unit_below(seed, 8) == 0 ? UINT64_MAX >> (64 - bits)
                                    : value >> unit_below(seed, bits + 1) % 64;
}

static inline uint32_t made_u32(uint64_t *seed)
{
    return (uint32_t)made_number(seed, 32);
}

/* The set-up of a group of tests. */
static inline int made_fill(void **state)
{
    uint64_t seed = unit_seed();

    (void)state;
    for (size_t i = 0; i < MADE_BYTES_MAX; i++)
        made_bytes[i] = (uint8_t)unit_next(&seed);
    for (size_t i = 0; i < MADE_TOKENS_MAX; i++)
        made_ids[i] = (int32_t)made_number(&seed, 32); /* some negative: protobuf allows it */
    return 0;
}

static inline float made_float(uint64_t *seed)
{
    return unit_below(seed, 4) == 0 ? 0.0f : (float)unit_below(seed, 2000) / 1000.0f - 0.5f;
}

static inline void made_payload(struct wire_payload *p, uint64_t *seed, bool coded)
{
    p->bytes = (size_t)made_number(seed, 16);
    p->data = made_bytes;
    p->total = p->bytes + (unit_below(seed, 2) ? made_number(seed, 29) / 2 : 0);
    p->codec = coded ? unit_below(seed, 6) : 0;
    p->wrap = coded ? unit_below(seed, 3) : 0;
}

/* A frame that a decoder accepts, every field at random. */
static inline void made_frame(struct wire_frame *f, enum wire_kind kind, uint64_t *seed)
{
    memset(f, 0, sizeof(*f));
    f->kind = kind;
    switch (kind) {
    case WIRE_OPEN:
        for (size_t i = 0; i < WIRE_DIGEST_BYTES; i++)
            f->u.open.session[i / 2] = f->u.open.model[i] = (uint8_t)unit_next(seed);
        f->u.open.weights_given = unit_below(seed, 2);
        for (size_t i = 0; i < WIRE_DIGEST_BYTES && f->u.open.weights_given; i++)
            f->u.open.weights[i] = (uint8_t)unit_next(seed);
        f->u.open.first = made_u32(seed);
        f->u.open.last = made_u32(seed);
        f->u.open.ctx_tokens = made_u32(seed);
        f->u.open.qos = (enum wire_qos)unit_below(seed, 3);
        f->u.open.resume = unit_below(seed, 2);
        break;
    case WIRE_OPENED:
        f->u.opened.length = made_u32(seed);
        f->u.opened.epoch = made_u32(seed);
        f->u.opened.ctx_tokens = made_u32(seed);
        f->u.opened.windows_max = made_u32(seed);
        f->u.opened.lease_ms = made_u32(seed);
        f->u.opened.batch_tokens = made_u32(seed);
        f->u.opened.queue_bytes_max = made_number(seed, 64);
        f->u.opened.even_windows = unit_below(seed, 2);
        break;
    case WIRE_FORWARD:
        f->u.forward.number = made_number(seed, 64);
        f->u.forward.epoch = made_u32(seed);
        f->u.forward.pos = made_u32(seed);
        f->u.forward.count = made_u32(seed);
        if (unit_below(seed, 2)) {
            f->u.forward.tokens = made_ids;
            f->u.forward.token_count = f->u.forward.count = 1 + unit_below(seed, MADE_TOKENS_MAX);
        } else {
            made_payload(&f->u.forward.in, seed, true);
        }
        f->u.forward.want = (enum wire_want)unit_below(seed, 5);
        f->u.forward.reply_codec = unit_below(seed, 6);
        f->u.forward.reply_wrap = unit_below(seed, 3);
        f->u.forward.bulk = unit_below(seed, 2);
        f->u.forward.deadline_ms = made_u32(seed);
        break;
    case WIRE_RESULT:
        f->u.result.number = made_number(seed, 64);
        f->u.result.epoch = made_u32(seed);
        f->u.result.pos = made_u32(seed);
        f->u.result.count = made_u32(seed);
        f->u.result.rows = made_u32(seed);
        made_payload(&f->u.result.out, seed, true);
        f->u.result.bulk = unit_below(seed, 2);
        f->u.result.queue_us = made_u32(seed);
        f->u.result.compute_us = made_u32(seed);
        f->u.result.batch_tokens = made_u32(seed);
        break;
    case WIRE_MORE:
        made_payload(&f->u.more, seed, false);
        f->u.more.total = f->u.more.bytes;
        break;
    case WIRE_TRIM:
        f->u.trim.epoch = made_u32(seed);
        f->u.trim.pos = made_u32(seed);
        break;
    case WIRE_GENERATE:
        f->u.generate.number = made_number(seed, 64);
        f->u.generate.epoch = made_u32(seed);
        f->u.generate.pos = made_u32(seed);
        f->u.generate.token_count = unit_below(seed, MADE_TOKENS_MAX + 1);
        f->u.generate.tokens = f->u.generate.token_count > 0 ? made_ids : NULL;
        f->u.generate.max_tokens = made_u32(seed);
        f->u.generate.temperature = made_float(seed);
        f->u.generate.top_p = made_float(seed);
        f->u.generate.min_p = made_float(seed);
        f->u.generate.top_k = (int32_t)made_u32(seed);
        f->u.generate.seed = made_u32(seed);
        f->u.generate.draws = made_number(seed, 64);
        f->u.generate.ignore_end = unit_below(seed, 2);
        break;
    case WIRE_TOKEN:
        f->u.token.number = made_number(seed, 64);
        f->u.token.pos = made_u32(seed);
        f->u.token.token = (int32_t)made_u32(seed);
        f->u.token.stop = (enum wire_stop)unit_below(seed, 4);
        f->u.token.queue_us = made_u32(seed);
        f->u.token.compute_us = made_u32(seed);
        break;
    case WIRE_EXPORT:
        f->u.export.number = made_number(seed, 64);
        f->u.export.first = made_u32(seed);
        f->u.export.last = made_u32(seed);
        f->u.export.pos_first = made_u32(seed);
        f->u.export.pos_last = made_u32(seed);
        break;
    case WIRE_IMPORT:
    case WIRE_STATE:
        f->u.state.number = made_number(seed, 64);
        f->u.state.length = kind == WIRE_STATE ? made_u32(seed) : 0;
        made_payload(&f->u.state.block, seed, false);
        break;
    case WIRE_BEAT: f->u.beat = made_number(seed, 64); break;
    case WIRE_ACK:
        f->u.ack.bytes = made_number(seed, 64);
        f->u.ack.stamp_us = made_number(seed, 64);
        break;
    case WIRE_DRAINING: f->u.draining_within_ms = made_u32(seed); break;
    default: break;
    }
}

/* A message in memory of its own, so that a read behind its end is seen; to be freed. */
struct made_message {
    uint8_t *bytes;
    size_t   count;
};

static inline struct made_message made_encode(const struct wire_frame *f,
                                              enum wire_direction      direction)
{
    struct made_message m = { NULL, wire_frame_bytes(f, direction) };

    m.bytes = malloc(m.count);
    assert_non_null(m.bytes);
    wire_frame_encode(f, direction, m.bytes);
    return m;
}

static inline void oracle_payload(ProtobufCMessage *m, const struct wire_payload *p, bool coded)
{
    if (coded) {
        oracle_number(m, "codec", p->codec);
        oracle_number(m, "wrap", p->wrap);
    }
    oracle_bytes(m, "data", p->data, p->bytes);
    oracle_number(m, "data_total", p->total);
}

/* The same frame for protobuf-c: release with oracle_frame_free(). */
static inline ProtobufCMessage *oracle_frame(const struct wire_frame *f,
                                             enum wire_direction      direction)
{
    ProtobufCMessage *whole = oracle_new(direction == WIRE_REQUEST
                                             ? &mcp__v1__execute_request__descriptor
                                             : &mcp__v1__execute_reply__descriptor);
    ProtobufCMessage *m = oracle_child(
        whole, direction == WIRE_REQUEST ? made_kinds[f->kind].request : made_kinds[f->kind].reply);

    switch (f->kind) {
    case WIRE_OPEN:
        oracle_bytes(m, "session", f->u.open.session, WIRE_SESSION_BYTES);
        oracle_bytes(m, "model", f->u.open.model, WIRE_DIGEST_BYTES);
        oracle_number(m, "first", f->u.open.first);
        oracle_number(m, "last", f->u.open.last);
        oracle_number(m, "ctx_tokens", f->u.open.ctx_tokens);
        oracle_number(m, "qos", f->u.open.qos);
        if (f->u.open.weights_given)
            oracle_bytes(m, "weights", f->u.open.weights, WIRE_DIGEST_BYTES);
        oracle_number(m, "resume", f->u.open.resume);
        break;
    case WIRE_OPENED:
        oracle_number(m, "length", f->u.opened.length);
        oracle_number(m, "epoch", f->u.opened.epoch);
        oracle_number(m, "ctx_tokens", f->u.opened.ctx_tokens);
        oracle_number(m, "windows_max", f->u.opened.windows_max);
        oracle_number(m, "queue_bytes_max", f->u.opened.queue_bytes_max);
        oracle_number(m, "lease_ms", f->u.opened.lease_ms);
        oracle_number(m, "batch_tokens", f->u.opened.batch_tokens);
        oracle_number(m, "even_windows", f->u.opened.even_windows);
        break;
    case WIRE_FORWARD:
        oracle_number(m, "number", f->u.forward.number);
        oracle_number(m, "epoch", f->u.forward.epoch);
        oracle_number(m, "pos", f->u.forward.pos);
        oracle_number(m, "count", f->u.forward.count);
        oracle_list(m, "tokens", f->u.forward.tokens, f->u.forward.token_count);
        oracle_payload(m, &f->u.forward.in, true);
        oracle_number(m, "want", f->u.forward.want);
        oracle_number(m, "reply_codec", f->u.forward.reply_codec);
        oracle_number(m, "reply_wrap", f->u.forward.reply_wrap);
        oracle_number(m, "bulk", f->u.forward.bulk);
        oracle_number(m, "deadline_ms", f->u.forward.deadline_ms);
        break;
    case WIRE_RESULT:
        oracle_number(m, "number", f->u.result.number);
        oracle_number(m, "epoch", f->u.result.epoch);
        oracle_number(m, "pos", f->u.result.pos);
        oracle_number(m, "count", f->u.result.count);
        oracle_number(m, "rows", f->u.result.rows);
        oracle_payload(m, &f->u.result.out, true);
        oracle_number(m, "bulk", f->u.result.bulk);
        oracle_number(m, "queue_us", f->u.result.queue_us);
        oracle_number(m, "compute_us", f->u.result.compute_us);
        oracle_number(m, "batch_tokens", f->u.result.batch_tokens);
        break;
    case WIRE_MORE: oracle_bytes(m, "data", f->u.more.data, f->u.more.bytes); break;
    case WIRE_TRIM:
        oracle_number(m, "epoch", f->u.trim.epoch);
        oracle_number(m, "pos", f->u.trim.pos);
        break;
    case WIRE_GENERATE:
        oracle_number(m, "number", f->u.generate.number);
        oracle_number(m, "epoch", f->u.generate.epoch);
        oracle_number(m, "pos", f->u.generate.pos);
        oracle_list(m, "tokens", f->u.generate.tokens, f->u.generate.token_count);
        oracle_number(m, "max_tokens", f->u.generate.max_tokens);
        oracle_float(m, "temperature", f->u.generate.temperature);
        oracle_float(m, "top_p", f->u.generate.top_p);
        oracle_float(m, "min_p", f->u.generate.min_p);
        oracle_number(m, "top_k", (uint64_t)f->u.generate.top_k);
        oracle_number(m, "seed", f->u.generate.seed);
        oracle_number(m, "draws", f->u.generate.draws);
        oracle_number(m, "ignore_end", f->u.generate.ignore_end);
        break;
    case WIRE_TOKEN:
        oracle_number(m, "number", f->u.token.number);
        oracle_number(m, "pos", f->u.token.pos);
        oracle_number(m, "token", (uint64_t)f->u.token.token);
        oracle_number(m, "stop", f->u.token.stop);
        oracle_number(m, "queue_us", f->u.token.queue_us);
        oracle_number(m, "compute_us", f->u.token.compute_us);
        break;
    case WIRE_EXPORT:
        oracle_number(m, "number", f->u.export.number);
        oracle_number(m, "first", f->u.export.first);
        oracle_number(m, "last", f->u.export.last);
        oracle_number(m, "pos_first", f->u.export.pos_first);
        oracle_number(m, "pos_last", f->u.export.pos_last);
        break;
    case WIRE_STATE: oracle_number(m, "length", f->u.state.length); /* fall through */
    case WIRE_IMPORT:
        oracle_number(m, "number", f->u.state.number);
        oracle_payload(m, &f->u.state.block, false);
        break;
    case WIRE_BEAT: oracle_number(m, "stamp", f->u.beat); break;
    case WIRE_ACK:
        oracle_number(m, "bytes", f->u.ack.bytes);
        oracle_number(m, "stamp_us", f->u.ack.stamp_us);
        break;
    case WIRE_DRAINING: oracle_number(m, "within_ms", f->u.draining_within_ms); break;
    default: break;
    }
    return whole;
}

static inline void oracle_frame_free(ProtobufCMessage *whole)
{
    for (unsigned i = 0; i < whole->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &whole->descriptor->fields[i];

        if (*(uint32_t *)(void *)((char *)whole + field->quantifier_offset) == field->id)
            free(*(void **)(void *)((char *)whole + field->offset));
    }
    free(whole);
}

#endif
