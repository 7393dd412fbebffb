/* wire/conn_rig_test.h - a client core and a server core with a pipe of bytes between them, and
 * a peer that writes its frames by hand.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_CONN_RIG_TEST_H
#define WIRE_CONN_RIG_TEST_H

#include "wire/conn_impl.h"

#include "base/unit_test.h"

enum { RIG_MESSAGE = 4 << 20, RIG_QUEUE = 4 << 20, RIG_STREAMS = 64 };

/* ---- bytes -------------------------------------------------------------------------- */

struct rig_bytes {
    uint8_t *bytes;
    size_t   count, cap;
};

static inline void rig_add(struct rig_bytes *b, const void *bytes, size_t count)
{
    if (b->count + count > b->cap) {
        b->cap = 2 * (b->count + count);
        b->bytes = realloc(b->bytes, b->cap);
        assert_non_null(b->bytes);
    }
    if (count > 0)
        memcpy(b->bytes + b->count, bytes, count);
    b->count += count;
}

static inline void rig_drop(struct rig_bytes *b)
{
    free(b->bytes);
    memset(b, 0, sizeof(*b));
}

/* ---- cores -------------------------------------------------------------------------- */

static double rig_now = 1000; /* the tests' clock, ms */

static inline struct wire_conn *rig_conn(bool server)
{
    struct wire_conn_opts opts = { .server = server,
                                   .authority = "worker.example:7000",
                                   .streams_max = RIG_STREAMS,
                                   .message_bytes = RIG_MESSAGE,
                                   .queue_bytes = RIG_QUEUE };
    struct wire_conn     *c;
    mcp_error             err;

    unit_ok(wire_conn_new(&c, &opts, rig_now, &err), &err);
    return c;
}

/* What an event handler does; events of one core go to one handler. */
typedef void (*rig_handler)(struct wire_conn *c, const struct wire_event *e, void *ctx);

static inline void rig_events(struct wire_conn *c, rig_handler handler, void *ctx)
{
    struct wire_event e;

    while (wire_conn_next(c, &e))
        if (handler != NULL)
            handler(c, &e, ctx);
}

/* All that `c` has to send, in pieces of at most `step`. */
static inline void rig_take(struct wire_conn *c, struct rig_bytes *out, size_t step)
{
    uint8_t buffer[65536];
    size_t  count;

    assert_true(step <= sizeof(buffer));
    while ((count = wire_conn_take(c, buffer, step)) > 0)
        rig_add(out, buffer, count);
}

static inline void rig_feed(struct wire_conn *c, const void *bytes, size_t count,
                            rig_handler handler, void *ctx)
{
    uint8_t *copy = malloc(count > 0 ? count : 1); /* so that reading beyond it is seen */

    assert_non_null(copy);
    memcpy(copy, bytes, count);
    wire_conn_feed(c, rig_now, copy, count);
    rig_events(c, handler, ctx);
    free(copy);
}

struct rig {
    struct wire_conn *client, *server;
    rig_handler       on_client, on_server;
    void             *ctx;
    size_t            step; /* bytes a feed; 0 = all there are */
};

static inline void rig_open(struct rig *r, rig_handler on_client, rig_handler on_server, void *ctx)
{
    *r = (struct rig){ rig_conn(false), rig_conn(true), on_client, on_server, ctx, 0 };
}

static inline void rig_close(struct rig *r)
{
    wire_conn_free(r->client);
    wire_conn_free(r->server);
}

static inline size_t rig_carry(struct wire_conn *from, struct wire_conn *to, size_t step,
                               rig_handler handler, void *ctx)
{
    struct rig_bytes b = { NULL, 0, 0 };
    size_t           moved;

    rig_take(from, &b, 16384);
    for (size_t at = 0; at < b.count;) {
        size_t part = step == 0 || step > b.count - at ? b.count - at : step;

        rig_feed(to, b.bytes + at, part, handler, ctx);
        at += part;
    }
    moved = b.count;
    rig_drop(&b);
    return moved;
}

/* Until both are quiet. */
static inline void rig_run(struct rig *r)
{
    size_t moved;

    do {
        rig_events(r->client, r->on_client, r->ctx);
        rig_events(r->server, r->on_server, r->ctx);
        moved = rig_carry(r->client, r->server, r->step, r->on_server, r->ctx);
        rig_events(r->client, r->on_client, r->ctx);
        moved += rig_carry(r->server, r->client, r->step, r->on_client, r->ctx);
    } while (moved > 0);
}

/* No call, and nothing of one is left. */
static inline void rig_calm(const struct wire_conn *c)
{
    assert_int_equal(wire_conn_streams(c), 0);
    assert_int_equal(c->queue_bytes, 0);
    assert_int_equal(c->held_bytes, 0);
    assert_int_equal(c->assembly_bytes, 0);
    assert_int_equal(c->metadata_bytes, 0);
}

/* ---- frames by hand ----------------------------------------------------------------- */

static inline void raw_frame(struct rig_bytes *b, uint8_t type, uint8_t flags, uint32_t stream,
                             const void *payload, size_t count)
{
    uint8_t head[9] = { (uint8_t)(count >> 16),
                        (uint8_t)(count >> 8),
                        (uint8_t)count,
                        type,
                        flags,
                        (uint8_t)(stream >> 24),
                        (uint8_t)(stream >> 16),
                        (uint8_t)(stream >> 8),
                        (uint8_t)stream };

    rig_add(b, head, sizeof(head));
    rig_add(b, payload, count);
}

static inline void raw_u32(uint8_t out[4], uint32_t value)
{
    out[0] = (uint8_t)(value >> 24);
    out[1] = (uint8_t)(value >> 16);
    out[2] = (uint8_t)(value >> 8);
    out[3] = (uint8_t)value;
}

static inline void raw_number_frame(struct rig_bytes *b, uint8_t type, uint32_t stream,
                                    uint32_t number)
{
    uint8_t payload[4];

    raw_u32(payload, number);
    raw_frame(b, type, 0, stream, payload, 4);
}

/* A client's preface, SETTINGS with this initial window, and its consent to ours. */
static inline void raw_hello(struct rig_bytes *b, uint32_t window)
{
    uint8_t entry[6] = { 0, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE };

    raw_u32(entry + 2, window);
    rig_add(b, NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN);
    raw_frame(b, NGHTTP2_SETTINGS, 0, 0, entry, sizeof(entry));
    raw_frame(b, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, NULL, 0);
}

/* HPACK: a literal without indexing, lengths below 127. */
static inline void raw_field(struct rig_bytes *b, const char *name, const char *value)
{
    uint8_t lengths[3] = { 0, (uint8_t)strlen(name), (uint8_t)strlen(value) };

    assert_true(strlen(name) < 127 && strlen(value) < 127);
    rig_add(b, lengths, 2);
    rig_add(b, name, strlen(name));
    rig_add(b, lengths + 2, 1);
    rig_add(b, value, strlen(value));
}

static inline void raw_request_fields(struct rig_bytes *b, const char *method, const char *type)
{
    raw_field(b, ":method", method);
    raw_field(b, ":scheme", "https");
    raw_field(b, ":path", "/p.S/M");
    raw_field(b, ":authority", "worker");
    raw_field(b, "te", "trailers");
    raw_field(b, "content-type", type);
}

static inline void raw_headers(struct rig_bytes *b, uint32_t stream, uint8_t flags,
                               const struct rig_bytes *block)
{
    raw_frame(b, NGHTTP2_HEADERS, flags, stream, block->bytes, block->count);
}

/* A gRPC request without a message. */
static inline void raw_call(struct rig_bytes *b, uint32_t stream)
{
    struct rig_bytes block = { NULL, 0, 0 };

    raw_request_fields(&block, "POST", "application/grpc");
    raw_headers(b, stream, NGHTTP2_FLAG_END_HEADERS, &block);
    rig_drop(&block);
}

/* DATA with a message head that announces `size`, and `count` bytes of it. */
static inline void raw_message(struct rig_bytes *b, uint32_t stream, uint8_t flag, uint32_t size,
                               size_t count, uint8_t frame_flags)
{
    uint8_t *payload = calloc(1, count + WIRE_MESSAGE_HEAD);

    assert_non_null(payload);
    payload[0] = flag;
    raw_u32(payload + 1, size);
    raw_frame(b, NGHTTP2_DATA, frame_flags, stream, payload, count + WIRE_MESSAGE_HEAD);
    free(payload);
}

/* The first frame of this type in what a core has sent; NULL.  *length: of its payload. */
static inline const uint8_t *raw_find(const struct rig_bytes *b, uint8_t type, uint32_t stream,
                                      size_t *length)
{
    for (size_t at = 0; at + 9 <= b->count;) {
        const uint8_t *head = b->bytes + at;
        size_t         count = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
        uint32_t id = (uint32_t)head[5] << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 |
                      head[8];

        if (head[3] == type && id == stream) {
            *length = count;
            return head + 9;
        }
        at += 9 + count;
    }
    return NULL;
}

/* The error of the last frame of this type (GOAWAY: stream 0; RST_STREAM); -1 = none. */
static inline int64_t raw_error(const struct rig_bytes *b, uint8_t type, uint32_t stream)
{
    size_t         length = 0;
    const uint8_t *payload = raw_find(b, type, stream, &length);

    if (payload == NULL)
        return -1;
    payload += type == NGHTTP2_GOAWAY ? 4 : 0;
    return (int64_t)payload[0] << 24 | payload[1] << 16 | payload[2] << 8 | payload[3];
}

#endif
