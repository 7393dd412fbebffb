/* wire/conn_out.c - messages out: a stream's queue, its HEADERS and trailers, a client's call.
 *
 * Messages are copied behind their heads into blocks; DATA frames of any size are cut from
 * them straight into what goes to TLS (wire_queue_take).
 *
 * SPDX-License-Identifier: MIT */
#include "wire/conn_impl.h"

#include "base/fail.h"
#include "wire/conn_grpc.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_BYTES = 16000, /* of a standard block: many small messages, or one of 8 KB */
    BLOCKS_SPARE = 16,
    METADATA_PAIRS_MAX = 32,
    FIELDS_MAX = 8 + METADATA_PAIRS_MAX,
};

/* ---- HEADERS ------------------------------------------------------------------------ */

struct fields {
    nghttp2_nv list[FIELDS_MAX];
    size_t     count;
};

static void add(struct fields *f, const char *name, const char *value)
{
    assert(f->count < FIELDS_MAX);
    f->list[f->count++] = (nghttp2_nv){ (uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value,
                                        strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE };
}

/* Of a response, before the first message. */
static void respond(struct wire_stream *s)
{
    struct fields f = { .count = 0 };

    add(&f, ":status", "200");
    add(&f, "content-type", "application/grpc");
    s->responded = true;
    wire_conn_check(s->conn, nghttp2_submit_response(s->conn->session, s->id, f.list, f.count,
                                                     &wire_conn_provider));
}

void wire_stream_trailers(struct wire_stream *s)
{
    nghttp2_session *session = s->conn->session;
    struct fields    f = { .count = 0 };
    char             code[16], retry[16], text[WIRE_ESCAPED_BYTES];

    if (!s->responded) { /* "trailers-only" */
        add(&f, ":status", "200");
        add(&f, "content-type", "application/grpc");
    }
    snprintf(code, sizeof(code), "%d", s->status.code);
    add(&f, "grpc-status", code);
    if (wire_grpc_message_escape(text, sizeof(text), s->status.text) > 0)
        add(&f, "grpc-message", text);
    if (s->status.retry_after_ms > 0) {
        snprintf(retry, sizeof(retry), "%u", s->status.retry_after_ms);
        add(&f, "retry-after-ms", retry);
    }
    s->eof = true;
    wire_conn_check(s->conn, s->responded
                                 ? nghttp2_submit_trailer(session, s->id, f.list, f.count)
                                 : nghttp2_submit_response(session, s->id, f.list, f.count, NULL));
    s->responded = true;
}

/* Metadata of our own call: names and values that HTTP/2 carries and gRPC does not use. */
static int add_metadata(struct fields *f, const char *const *pairs, mcp_error *err)
{
    static const char *const reserved[] = { "te", "content-type", "user-agent" };

    for (; pairs != NULL && pairs[0] != NULL; pairs += 2) {
        const char *name = pairs[0], *value = pairs[1];
        bool        good = name[0] != ':' && strncmp(name, "grpc-", 5) != 0 && value != NULL &&
                    nghttp2_check_header_name((const uint8_t *)name, strlen(name)) &&
                    nghttp2_check_header_value((const uint8_t *)value, strlen(value));

        for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
            good = good && strcmp(name, reserved[i]) != 0;
        if (!good)
            return base_fail(err, MCP_EINVAL, "metadata \"%.32s\" cannot be sent: name or value",
                             name);
        if (f->count == FIELDS_MAX)
            return base_fail(err, MCP_EINVAL, "more than %d pairs of metadata", METADATA_PAIRS_MAX);
        add(f, name, value);
    }
    return MCP_OK;
}

int wire_call_open(struct wire_stream **out, struct wire_conn *c, const char *path,
                   double timeout_ms, const char *const *metadata, void *owner, mcp_error *err)
{
    struct wire_stream *s;
    struct fields       f = { .count = 0 };
    char                timeout[WIRE_TIMEOUT_TEXT];
    int                 rc;

    *out = NULL;
    assert(!c->opts.server && path[0] == '/');
    if (wire_conn_draining(c))
        return base_fail(err, MCP_EUNAVAIL, "%s", c->why.text);
    add(&f, ":method", "POST");
    add(&f, ":scheme", "https");
    add(&f, ":path", path);
    add(&f, ":authority", c->opts.authority);
    add(&f, "te", "trailers");
    add(&f, "content-type", "application/grpc");
    add(&f, "user-agent", "mcp/" MCP_VERSION);
    if (timeout_ms > 0) {
        wire_grpc_timeout_print(timeout, timeout_ms);
        add(&f, "grpc-timeout", timeout);
    }
    rc = add_metadata(&f, metadata, err);
    if (rc < 0)
        return rc;
    s = wire_stream_new(c, 0);
    if (s == NULL)
        return base_fail(err, MCP_ENOMEM, "no memory for a call");
    rc = nghttp2_submit_request(c->session, NULL, f.list, f.count, &wire_conn_provider, s);
    if (rc < 0) {
        wire_stream_free(s);
        return wire_conn_check(c, rc) == NGHTTP2_ERR_NOMEM
                   ? base_fail(err, MCP_ENOMEM, "no memory for a call")
                   : base_fail(err, MCP_EUNAVAIL, "no more calls on this connection: %s",
                               nghttp2_strerror(rc));
    }
    s->id = rc;
    s->told = true;
    s->owner = owner;
    *out = s;
    return MCP_OK;
}

/* ---- the queue out ------------------------------------------------------------------ */

static struct wire_block *block_new(struct wire_conn *c, size_t bytes)
{
    struct wire_block *b = c->spare;
    size_t             cap = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;

    if (b != NULL && cap == BLOCK_BYTES) {
        c->spare = b->next;
        c->spare_count--;
    } else {
        b = malloc(sizeof(*b) + cap);
        if (b == NULL)
            return NULL;
        b->cap = cap;
    }
    b->next = NULL;
    b->used = 0;
    return b;
}

static void block_free(struct wire_conn *c, struct wire_block *b)
{
    if (b->cap != BLOCK_BYTES || c->spare_count == BLOCKS_SPARE) {
        free(b);
        return;
    }
    b->next = c->spare;
    c->spare = b;
    c->spare_count++;
}

void wire_queue_drop(struct wire_stream *s)
{
    struct wire_queue *q = &s->out;

    s->conn->queue_bytes -= q->bytes;
    while (q->first != NULL) {
        struct wire_block *b = q->first;

        q->first = b->next;
        block_free(s->conn, b);
    }
    q->last = NULL;
    q->bytes = q->first_sent = 0;
}

/* Room again, for those who were refused it because of all streams together. */
static void feed_starved(struct wire_conn *c)
{
    struct wire_stream *s;

    if (!c->starved || c->queue_bytes > QUEUE_CONN_BYTES / 2)
        return;
    c->starved = false;
    for (s = TAILQ_FIRST(&c->all); s != NULL; s = TAILQ_NEXT(s, all)) {
        if (s->want_room && s->out.bytes == 0 && !s->over) {
            s->want_room = false;
            wire_stream_tell(s, TELL_WRITABLE);
        }
    }
}

void wire_queue_take(struct wire_stream *s, uint8_t *target, size_t count)
{
    struct wire_queue *q = &s->out;

    assert(count <= q->bytes);
    q->bytes -= count;
    q->sent += count;
    q->moved_ms = s->conn->now_ms;
    s->conn->queue_bytes -= count;
    while (count > 0) {
        struct wire_block *b = q->first;
        size_t             step = b->used - q->first_sent;

        step = step > count ? count : step;
        memcpy(target, b->bytes + q->first_sent, step);
        target += step;
        count -= step;
        q->first_sent += step;
        if (q->first_sent == b->used) {
            q->first = b->next;
            q->first_sent = 0;
            block_free(s->conn, b);
        }
    }
    if (q->first == NULL)
        q->last = NULL;
    if (q->bytes == 0 && s->want_room) {
        s->want_room = false;
        wire_stream_tell(s, TELL_WRITABLE);
    }
    feed_starved(s->conn);
}

/* Payload that fits behind `used` bytes. */
static size_t left(size_t limit, size_t used)
{
    if (used == 0)
        return limit;
    used += WIRE_MESSAGE_HEAD;
    return limit > used ? limit - used : 0;
}

size_t wire_stream_room(const struct wire_stream *s)
{
    size_t own = left(s->conn->opts.queue_bytes, s->out.bytes);
    size_t shared = left(QUEUE_CONN_BYTES, s->conn->queue_bytes);
    size_t floor = left(QUEUE_FLOOR, s->out.bytes);

    shared = shared > floor ? shared : floor;
    return own < shared ? own : shared;
}

int wire_stream_send(struct wire_stream *s, const void *bytes, size_t count, enum wire_class class,
                     mcp_error *err)
{
    struct wire_conn  *c = s->conn;
    struct wire_queue *q = &s->out;
    struct wire_block *b = q->last;
    size_t             total = count + WIRE_MESSAGE_HEAD;
    uint8_t           *target;

    if (count > c->opts.message_bytes)
        return base_fail(err, MCP_ERANGE, "a message of %zu bytes is larger than %u", count,
                         c->opts.message_bytes);
    if (s->ended || s->over)
        return MCP_OK;
    if (count > wire_stream_room(s)) {
        s->want_room = true;
        c->starved = c->starved || q->bytes == 0;
        return base_fail(err, MCP_EBUSY, "%zu bytes wait to be sent and %zu are too many more",
                         q->bytes, count);
    }
    if (b == NULL || b->cap - b->used < total) {
        b = block_new(c, total);
        if (b == NULL)
            return base_fail(err, MCP_ENOMEM, "no memory for a message of %zu bytes", count);
        if (q->last != NULL)
            q->last->next = b;
        else
            q->first = b;
        q->last = b;
    }
    target = b->bytes + b->used;
    target[0] = 0; /* not compressed */
    target[1] = (uint8_t)(count >> 24);
    target[2] = (uint8_t)(count >> 16);
    target[3] = (uint8_t)(count >> 8);
    target[4] = (uint8_t)count;
    if (count > 0)
        memcpy(target + WIRE_MESSAGE_HEAD, bytes, count);
    b->used += total;
    if (q->bytes == 0)
        q->moved_ms = c->now_ms;
    q->bytes += total;
    c->queue_bytes += total;
    s->bytes_out += count;
    s->want_room = s->want_room || wire_stream_room(s) == 0;
    if (class == WIRE_URGENT)
        q->urgent_until = q->sent + q->bytes;
    if (c->opts.server && !s->responded)
        respond(s);
    if (s->run == RUN_NOT || (s->run == RUN_BULK && class == WIRE_URGENT))
        wire_stream_run(s);
    return MCP_OK;
}

void wire_stream_end(struct wire_stream *s)
{
    if (s->ended || s->over)
        return;
    s->ended = true;
    if (s->run == RUN_NOT)
        wire_stream_run(s);
}

void wire_stream_finish(struct wire_stream *s, const struct wire_status *status)
{
    if (s->finished || s->over)
        return;
    s->status = *status;
    s->finished = s->ended = true;
    wire_stream_deafen(s);
    if (s->out.bytes == 0)
        wire_stream_trailers(s);
}
