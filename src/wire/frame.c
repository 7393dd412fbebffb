/* wire/frame.c - see frame.h.  One table a frame, one row a field of compute.proto.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/frame.h"

#include "base/fail.h"
#include "wire/codec.h"
#include "wire/fields.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define AT(place) offsetof(struct wire_frame, u.place)
#define ROW(kind, place, more, limit, field_name)             \
    {                                                         \
        WIRE_FIELD_##kind, AT(place), more, limit, field_name \
    }

#define FLAG(place, name)       ROW(FLAG, place, 0, 0, name)
#define U32(place, name)        ROW(U32, place, 0, UINT32_MAX, name)
#define ENUM(place, name, last) ROW(U32, place, 0, last, name)
#define U64(place, name)        ROW(U64, place, 0, 0, name)
#define I32(place, name)        ROW(I32, place, 0, 0, name)
#define FLOAT(place, name)      ROW(FLOAT, place, 0, 0, name)
#define DIGEST(place, name)     ROW(DIGEST, place, 0, sizeof(((struct wire_frame *)0)->u.place), name)
#define DIGEST_IF(place, if_name) \
    ROW(DIGEST_IF, place, AT(place##_given), WIRE_DIGEST_BYTES, if_name)
#define DATA(payload)      ROW(DATA, payload.data, AT(payload.bytes), 0, "data")
#define TOKENS(of)         ROW(TOKENS, of.tokens, AT(of.token_count), 0, "tokens")
#define CODEC(place, name) ENUM(place, name, WIRE_CODECS - 1)
#define WRAP(place, name)  ENUM(place, name, WIRE_WRAPS - 1)

static const struct wire_field open_fields[] = {
    [1] = DIGEST(open.session, "session"),    [2] = DIGEST(open.model, "model"),
    [3] = U32(open.first, "first"),           [4] = U32(open.last, "last"),
    [5] = U32(open.ctx_tokens, "ctx_tokens"), [6] = ENUM(open.qos, "qos", WIRE_QOS_BATCH),
    [7] = DIGEST_IF(open.weights, "weights"), [8] = FLAG(open.resume, "resume"),
};

static const struct wire_field opened_fields[] = {
    [1] = U32(opened.length, "length"),
    [2] = U32(opened.epoch, "epoch"),
    [3] = U32(opened.ctx_tokens, "ctx_tokens"),
    [4] = U32(opened.windows_max, "windows_max"),
    [5] = U64(opened.queue_bytes_max, "queue_bytes_max"),
    [6] = U32(opened.lease_ms, "lease_ms"),
    [7] = U32(opened.batch_tokens, "batch_tokens"),
    [8] = FLAG(opened.even_windows, "even_windows"),
};

static const struct wire_field forward_fields[] = {
    [1] = U64(forward.number, "number"),
    [2] = U32(forward.epoch, "epoch"),
    [3] = U32(forward.pos, "pos"),
    [4] = U32(forward.count, "count"),
    [5] = TOKENS(forward),
    [6] = CODEC(forward.in.codec, "codec"),
    [7] = WRAP(forward.in.wrap, "wrap"),
    [8] = DATA(forward.in),
    [9] = U64(forward.in.total, "data_total"),
    [10] = ENUM(forward.want, "want", WIRE_WANT_LOGITS),
    [11] = CODEC(forward.reply_codec, "reply_codec"),
    [12] = WRAP(forward.reply_wrap, "reply_wrap"),
    [13] = FLAG(forward.bulk, "bulk"),
    [14] = U32(forward.deadline_ms, "deadline_ms"),
};

static const struct wire_field result_fields[] = {
    [1] = U64(result.number, "number"),
    [2] = U32(result.epoch, "epoch"),
    [3] = U32(result.pos, "pos"),
    [4] = U32(result.count, "count"),
    [5] = U32(result.rows, "rows"),
    [6] = CODEC(result.out.codec, "codec"),
    [7] = WRAP(result.out.wrap, "wrap"),
    [8] = DATA(result.out),
    [9] = U64(result.out.total, "data_total"),
    [10] = FLAG(result.bulk, "bulk"),
    [11] = U32(result.queue_us, "queue_us"),
    [12] = U32(result.compute_us, "compute_us"),
    [13] = U32(result.batch_tokens, "batch_tokens"),
};

static const struct wire_field more_fields[] = {
    [1] = DATA(more),
};

static const struct wire_field trim_fields[] = {
    [1] = U32(trim.epoch, "epoch"),
    [2] = U32(trim.pos, "pos"),
};

static const struct wire_field generate_fields[] = {
    [1] = U64(generate.number, "number"),
    [2] = U32(generate.epoch, "epoch"),
    [3] = U32(generate.pos, "pos"),
    [4] = TOKENS(generate),
    [5] = U32(generate.max_tokens, "max_tokens"),
    [6] = FLOAT(generate.temperature, "temperature"),
    [7] = I32(generate.top_k, "top_k"),
    [8] = FLOAT(generate.top_p, "top_p"),
    [9] = FLOAT(generate.min_p, "min_p"),
    [10] = U32(generate.seed, "seed"),
    [11] = U64(generate.draws, "draws"),
    [12] = FLAG(generate.ignore_end, "ignore_end"),
    [13] = FLAG(generate.no_guesses, "no_guesses"),
    [14] = U32(generate.guesses, "guesses"),
};

static const struct wire_field token_fields[] = {
    [1] = U64(token.number, "number"),     [2] = U32(token.pos, "pos"),
    [3] = I32(token.token, "token"),       [4] = ENUM(token.stop, "stop", WIRE_STOP_CONTEXT),
    [5] = U32(token.queue_us, "queue_us"), [6] = U32(token.compute_us, "compute_us"),
    [7] = U32(token.guessed, "guessed"),   [8] = U32(token.guessed_right, "guessed_right"),
};

static const struct wire_field export_fields[] = {
    [1] = U64(export.number, "number"),     [2] = U32(export.first, "first"),
    [3] = U32(export.last, "last"),         [4] = U32(export.pos_first, "pos_first"),
    [5] = U32(export.pos_last, "pos_last"),
};

static const struct wire_field import_fields[] = {
    [1] = U64(state.number, "number"),
    [2] = DATA(state.block),
    [3] = U64(state.block.total, "data_total"),
};

static const struct wire_field state_fields[] = {
    [1] = U64(state.number, "number"),
    [2] = U32(state.length, "length"),
    [3] = DATA(state.block),
    [4] = U64(state.block.total, "data_total"),
};

static const struct wire_field nothing_fields[] = { [0] = { .type = WIRE_FIELD_NONE } };

static const struct wire_field beat_fields[] = { [1] = U64(beat, "stamp") };
static const struct wire_field ack_fields[] = {
    [1] = U64(ack.bytes, "bytes"), [2] = U64(ack.stamp_us, "stamp_us")
};
static const struct wire_field draining_fields[] = { [1] = U32(draining_within_ms, "within_ms") };

/* Numbers in the oneof of ExecuteRequest and ExecuteReply; 0 = does not go that way. */
#define KIND(name, fields, request, reply, payload)                                         \
    {                                                                                       \
        { name, fields, sizeof(fields) / sizeof((fields)[0]) }, { request, reply }, payload \
    }

static const struct {
    struct wire_layout layout;
    uint8_t            number[2]; /* by enum wire_direction */
    uint16_t           payload;   /* offset of the struct wire_payload; 0 = none */
} kinds[WIRE_KINDS] = {
    [WIRE_NOTHING] = KIND("nothing", nothing_fields, 0, 0, 0),
    [WIRE_OPEN] = KIND("open", open_fields, 1, 0, 0),
    [WIRE_OPENED] = KIND("opened", opened_fields, 0, 1, 0),
    [WIRE_FORWARD] = KIND("forward", forward_fields, 2, 0, AT(forward.in)),
    [WIRE_RESULT] = KIND("result", result_fields, 0, 2, AT(result.out)),
    [WIRE_MORE] = KIND("more", more_fields, 3, 3, AT(more)),
    [WIRE_TRIM] = KIND("trim", trim_fields, 4, 0, 0),
    [WIRE_GENERATE] = KIND("generate", generate_fields, 5, 0, 0),
    [WIRE_TOKEN] = KIND("token", token_fields, 0, 4, 0),
    [WIRE_EXPORT] = KIND("export_state", export_fields, 6, 0, 0),
    [WIRE_IMPORT] = KIND("import_state", import_fields, 7, 0, AT(state.block)),
    [WIRE_STATE] = KIND("state", state_fields, 0, 5, AT(state.block)),
    [WIRE_CLOSE] = KIND("close", nothing_fields, 8, 0, 0),
    [WIRE_CLOSED] = KIND("closed", nothing_fields, 0, 6, 0),
    [WIRE_BEAT] = KIND("beat", beat_fields, 9, 7, 0),
    [WIRE_ACK] = KIND("ack", ack_fields, 10, 8, 0),
    [WIRE_DRAINING] = KIND("draining", draining_fields, 0, 9, 0),
};

const char *wire_kind_name(enum wire_kind kind)
{
    return kind < WIRE_KINDS ? kinds[kind].layout.name : "unknown";
}

struct wire_payload *wire_frame_payload(struct wire_frame *frame)
{
    size_t at = kinds[frame->kind].payload;

    return at == 0 ? NULL : (struct wire_payload *)(void *)((char *)frame + at);
}

static uint32_t number_of(const struct wire_frame *frame, enum wire_direction direction)
{
    uint32_t number = kinds[frame->kind].number[direction];

    assert(number != 0); /* this kind goes this way */
    return number;
}

size_t wire_frame_bytes(const struct wire_frame *frame, enum wire_direction direction)
{
    size_t body = wire_fields_bytes(&kinds[frame->kind].layout, frame);

    return wire_pb_varint_bytes(number_of(frame, direction) << 3) + wire_pb_varint_bytes(body) +
           body;
}

void wire_frame_encode(const struct wire_frame *frame, enum wire_direction direction,
                       uint8_t *target)
{
    const struct wire_layout *layout = &kinds[frame->kind].layout;

    target = wire_pb_put_tag(target, number_of(frame, direction), WIRE_PB_SPAN);
    target = wire_pb_put_varint(target, wire_fields_bytes(layout, frame));
    wire_fields_encode(layout, frame, target);
}

/* ---- reading ------------------------------------------------------------------------ */

static enum wire_kind kind_of(uint32_t number, enum wire_direction direction)
{
    for (int kind = WIRE_OPEN; kind < WIRE_KINDS; kind++)
        if (kinds[kind].number[direction] == number)
            return (enum wire_kind)kind;
    return WIRE_NOTHING;
}

/* Find the frame in a message.  Of several the last counts, as in any oneof; but two of the
 * same kind in a row, which protobuf would merge field by field, are a mistake. */
static int find(struct wire_pb *message, enum wire_direction direction, enum wire_kind *kind,
                struct wire_pb *body)
{
    int rc;

    *kind = WIRE_NOTHING;
    for (rc = wire_pb_next(message); rc > 0; rc = wire_pb_next(message)) {
        enum wire_kind found = kind_of(message->field, direction);

        if (found == WIRE_NOTHING) {
            rc = wire_pb_skip(message);
        } else if (found == *kind) {
            rc = base_fail(message->err, MCP_EFORMAT, "the message holds two %s frames",
                           wire_kind_name(found));
        } else {
            rc = wire_pb_span(message, body);
            *kind = found;
        }
        if (rc < 0)
            return rc;
    }
    if (rc == MCP_OK && *kind == WIRE_NOTHING)
        rc = base_fail(message->err, MCP_EFORMAT,
                       "the message holds no frame of a kind that is known here");
    return rc;
}

static int check_payload(struct wire_payload *p, enum wire_kind kind, mcp_error *err)
{
    if (kind == WIRE_MORE)
        p->total = p->bytes;
    if (p->bytes > p->total)
        return base_fail(err, MCP_EFORMAT,
                         "%s: data has %zu bytes, more than the %" PRIu64 " of data_total",
                         wire_kind_name(kind), p->bytes, p->total);
    if (p->total > WIRE_PAYLOAD_MAX)
        return base_fail(err, MCP_EFORMAT, "%s: data_total is %" PRIu64 ", at most %d",
                         wire_kind_name(kind), p->total, WIRE_PAYLOAD_MAX);
    return MCP_OK;
}

static int check_forward(const struct wire_forward *f, mcp_error *err)
{
    if (f->token_count == 0)
        return MCP_OK;
    if (f->in.total > 0)
        return base_fail(err, MCP_EFORMAT, "forward: token ids and a payload at once");
    if (f->token_count != f->count)
        return base_fail(err, MCP_EFORMAT, "forward: %zu token ids for %" PRIu32 " positions",
                         f->token_count, f->count);
    return MCP_OK;
}

int wire_frame_decode(struct wire_frame *frame, enum wire_direction direction, const uint8_t *bytes,
                      size_t count, struct wire_scratch *scratch, mcp_error *err)
{
    struct wire_pb       message = wire_pb_over(bytes, count, "message", err), body = message;
    struct wire_payload *payload;
    enum wire_kind       kind;
    int                  rc = find(&message, direction, &kind, &body);

    memset(frame, 0, sizeof(*frame));
    if (rc < 0)
        return rc;
    body.what = wire_kind_name(kind);
    rc = wire_fields_decode(&kinds[kind].layout, frame, &body, scratch);
    frame->kind = kind;
    payload = wire_frame_payload(frame);
    if (rc == MCP_OK && payload != NULL)
        rc = check_payload(payload, kind, err);
    if (rc == MCP_OK && kind == WIRE_FORWARD)
        rc = check_forward(&frame->u.forward, err);
    if (rc < 0)
        frame->kind = WIRE_NOTHING;
    return rc;
}

void wire_scratch_fini(struct wire_scratch *scratch)
{
    free(scratch->tokens);
    *scratch = (struct wire_scratch){ 0 };
}
