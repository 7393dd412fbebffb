/* wire/conn_frames.c - what nghttp2 calls from inside mem_recv and mem_send.
 *
 * Nothing is decided here but by the bytes at hand: what happened is written down, and told
 * by wire_conn_next() when nghttp2 has returned.  A callback never ends the session, in whose
 * midst it is; it fails, and says why in `breach`.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/conn_impl.h"

#include "wire/conn_grpc.h"

#include <assert.h>
#include <string.h>

enum {
    HEADER_OVERHEAD = 32, /* of a field, as HTTP/2 counts */
    BOMB_RESETS = 50,     /* an oversized header block counts as so many resets */
};

static int count_reset(struct wire_conn *c, double cost)
{
    if (wire_bounds_reset(&c->bounds, c->now_ms, cost))
        return 0;
    c->breach = "too many calls were reset (200 a second pass)";
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

/* ---- coming in ---------------------------------------------------------------------- */

static struct wire_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    struct wire_conn   *c = ctx;
    struct wire_stream *s = stream_of(session, frame->hd.stream_id);

    if (c->opts.server && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        s = wire_stream_new(c, frame->hd.stream_id);
        if (s == NULL)
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, s);
    }
    if (s != NULL)
        s->header_bytes = 0;
    return 0;
}

static bool is(const uint8_t *name, size_t bytes, const char *text)
{
    return bytes == strlen(text) && memcmp(name, text, bytes) == 0;
}

/* A field of a request.  False: the stream must go. */
static bool request_field(struct wire_stream *s, const uint8_t *name, size_t name_bytes,
                          const char *value, size_t value_bytes)
{
    static const char *const dropped[] = { "te", "grpc-encoding", "grpc-accept-encoding",
                                           "accept-encoding", "user-agent" };

    if (is(name, name_bytes, ":method"))
        s->is_post = value_bytes == 4 && memcmp(value, "POST", 4) == 0;
    else if (is(name, name_bytes, "content-type"))
        s->is_grpc = wire_grpc_content_type(value, value_bytes);
    else if (is(name, name_bytes, "grpc-timeout"))
        s->bad_timeout = !wire_grpc_timeout_parse(&s->timeout_ms, value, value_bytes);
    else if (name[0] != ':' || is(name, name_bytes, ":path")) {
        for (size_t i = 0; i < sizeof(dropped) / sizeof(dropped[0]); i++)
            if (is(name, name_bytes, dropped[i]))
                return true;
        return wire_stream_keep(s, (const char *)name, name_bytes, value, value_bytes);
    }
    return true;
}

static void response_field(struct wire_stream *s, const uint8_t *name, size_t name_bytes,
                           const char *value, size_t value_bytes)
{
    uint32_t number;

    if (is(name, name_bytes, ":status")) {
        if (wire_grpc_number_parse(&number, value, value_bytes))
            s->http_status = number;
    } else if (is(name, name_bytes, "content-type")) {
        s->is_grpc = wire_grpc_content_type(value, value_bytes);
    } else if (is(name, name_bytes, "grpc-status")) {
        s->has_status = true;
        s->status.code = WIRE_UNKNOWN;
        if (wire_grpc_number_parse(&number, value, value_bytes) && number <= WIRE_UNAUTHENTICATED)
            s->status.code = (int)number;
    } else if (is(name, name_bytes, "grpc-message")) {
        wire_grpc_message_unescape(s->status.text, sizeof(s->status.text), value, value_bytes);
    } else if (is(name, name_bytes, "retry-after-ms")) {
        if (wire_grpc_number_parse(&number, value, value_bytes))
            s->status.retry_after_ms = number;
    }
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_bytes, const uint8_t *value, size_t value_bytes, uint8_t flags,
                     void *ctx)
{
    struct wire_conn   *c = ctx;
    struct wire_stream *s = stream_of(session, frame->hd.stream_id);

    (void)flags;
    if (s == NULL || name_bytes == 0)
        return 0;
    s->header_bytes += (uint32_t)(name_bytes + value_bytes + HEADER_OVERHEAD);
    if (s->header_bytes > HEADER_BLOCK_BYTES) { /* temporal: only the stream is reset */
        int rc = count_reset(c, BOMB_RESETS);

        return rc != 0 ? rc : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (!c->opts.server)
        response_field(s, name, name_bytes, (const char *)value, value_bytes);
    else if (frame->headers.cat == NGHTTP2_HCAT_REQUEST &&
             !request_field(s, name, name_bytes, (const char *)value, value_bytes))
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    return 0;
}

static nghttp2_nv field(const char *name, const char *value)
{
    return (nghttp2_nv){ (uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name),
                         strlen(value), NGHTTP2_NV_FLAG_NONE };
}

/* A request is whole: tell the owner, or answer what is no gRPC as HTTP does. */
static void request_arrived(struct wire_stream *s)
{
    struct wire_status no = { .code = WIRE_INVALID_ARGUMENT };
    nghttp2_nv         status;

    if (s->is_post && s->is_grpc && !s->bad_timeout) {
        wire_stream_tell(s, TELL_CALL);
    } else if (s->bad_timeout) {
        no = wire_say(no.code, "grpc-timeout is not 1 to 8 digits and a unit");
        wire_stream_abort(s, &no);
    } else {
        status = field(":status", s->is_post ? "415" : "405");
        wire_conn_check(s->conn,
                        nghttp2_submit_response(s->conn->session, s->id, &status, 1, NULL));
        wire_stream_over(s, &no);
    }
}

static void goaway_arrived(struct wire_conn *c, const nghttp2_goaway *goaway)
{
    struct wire_stream *s, *next;
    char                reason[128] = "";

    c->draining = true;
    if (c->opts.server)
        return; /* the client's calls go on as they are */
    if (goaway->error_code == NGHTTP2_NO_ERROR) {
        c->why = wire_say(WIRE_UNAVAILABLE, "the server takes no more calls on this connection");
    } else {
        wire_grpc_message_unescape(reason, sizeof(reason), (const char *)goaway->opaque_data,
                                   goaway->opaque_data_len);
        c->why = wire_say(WIRE_UNAVAILABLE, "the server ended the connection: %s%s%s",
                          nghttp2_http2_strerror(goaway->error_code), reason[0] != '\0' ? ", " : "",
                          reason);
    }
    /* Calls that wait for the server's permission would wait for ever. */
    for (s = TAILQ_FIRST(&c->all); s != NULL; s = next) {
        next = TAILQ_NEXT(s, all);
        if (!s->open && !s->over && (s->tell & TELL_CLOSED) == 0)
            wire_stream_cancel(s, &c->why);
    }
}

static void unblock_all(struct wire_conn *c)
{
    struct wire_stream *s, *next;

    for (s = TAILQ_FIRST(&c->run[RUN_BLOCKED]); s != NULL; s = next) {
        next = TAILQ_NEXT(s, running);
        wire_stream_run(s);
    }
}

/* The status of a call that ended without one. */
static struct wire_status status_of_close(const struct wire_stream *s, uint32_t error)
{
    const char *name = nghttp2_http2_strerror(error);

    if (s->conn->opts.server)
        return wire_say(WIRE_CANCELLED, "the client reset the call: %s", name);
    if (s->http_status != 0 && (s->http_status != 200 || !s->is_grpc))
        return wire_say(wire_grpc_status_of_http(s->http_status),
                        "the server answered HTTP %u and no gRPC", s->http_status);
    if (error == NGHTTP2_NO_ERROR)
        return wire_say(WIRE_UNKNOWN, "the server ended the call without grpc-status");
    return wire_say(wire_grpc_status_of_reset(error), "the server reset the call: %s", name);
}

static void close_call(struct wire_stream *s, uint32_t error)
{
    struct wire_status status;

    if (s->conn->opts.server ? s->finished && error == NGHTTP2_NO_ERROR : s->has_status) {
        wire_stream_ended(s); /* messages that are held are told before CLOSED */
    } else {
        status = status_of_close(s, error);
        wire_stream_over(s, &status);
    }
}

/* The peer has sent its last frame of this call. */
static void peer_ended(struct wire_stream *s)
{
    struct wire_conn *c = s->conn;
    int32_t           id = s->id;

    if (c->opts.server) {
        wire_stream_tell(s, TELL_HALF_CLOSED);
        return;
    }
    if (nghttp2_session_get_stream_local_close(c->session, id) != 0)
        return; /* nghttp2 closes it */
    /* The server wants nothing more of us. */
    close_call(s, NGHTTP2_NO_ERROR);
    wire_conn_check(c,
                    nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR));
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    struct wire_conn   *c = ctx;
    struct wire_stream *s = stream_of(session, frame->hd.stream_id);

    switch (frame->hd.type) {
    case NGHTTP2_SETTINGS:
        c->greeted = true;
        if ((frame->hd.flags & NGHTTP2_FLAG_ACK) == 0)
            unblock_all(c); /* the initial window may have grown */
        break;
    case NGHTTP2_WINDOW_UPDATE:
        if (s != NULL && s->run == RUN_BLOCKED)
            wire_stream_run(s);
        break;
    case NGHTTP2_GOAWAY: goaway_arrived(c, &frame->goaway); break;
    case NGHTTP2_RST_STREAM: return c->opts.server && s != NULL ? count_reset(c, 1) : 0;
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        if (s == NULL)
            break;
        if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
            request_arrived(s);
        if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0)
            peer_ended(s);
        break;
    default: break;
    }
    return 0;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error,
                            void *ctx)
{
    (void)session;
    (void)frame;
    (void)error;
    return count_reset(ctx, 1);
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes,
                         size_t count, void *ctx)
{
    struct wire_conn   *c = ctx;
    struct wire_stream *s = stream_of(session, id);

    (void)flags;
    if (s == NULL || s->finished || !s->is_grpc)
        return nghttp2_session_consume(session, id, count);
    c->chunk.stream = s;
    c->chunk.bytes = bytes;
    c->chunk.count = count;
    c->chunk.eaten = 0;
    c->input_paused = true;
    return NGHTTP2_ERR_PAUSE;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *ctx)
{
    struct wire_stream *s = stream_of(session, id);

    (void)ctx;
    if (s != NULL)
        close_call(s, error);
    return 0;
}

/* ---- going out ---------------------------------------------------------------------- */

/* DATA of the stream whose turn it is: its size and whether it is the last. */
static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t length,
                       uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
    struct wire_conn   *c = ctx;
    struct wire_stream *s = stream_of(session, id);
    size_t              room = c->out_cap - c->out_used;

    (void)buffer;
    (void)source;
    if (s == NULL || s != c->granted || room < TAKE_MIN)
        return NGHTTP2_ERR_DEFERRED;
    c->granted = NULL;
    length = length > room - FRAME_HEAD ? room - FRAME_HEAD : length;
    length = length > s->out.bytes ? s->out.bytes : length;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (length < s->out.bytes || !s->ended)
        return length > 0 ? (ssize_t)length : NGHTTP2_ERR_DEFERRED;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    s->eof = true;
    if (c->opts.server) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        wire_stream_trailers(s);
    }
    return (ssize_t)length;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                        size_t length, nghttp2_data_source *source, void *ctx)
{
    struct wire_conn   *c = ctx;
    struct wire_stream *s = stream_of(session, frame->hd.stream_id);

    (void)source;
    if (s == NULL)
        return NGHTTP2_ERR_CALLBACK_FAILURE; /* memory ended in on_read */
    assert(c->out_cap - c->out_used >= FRAME_HEAD + length);
    memcpy(c->out + c->out_used, head, FRAME_HEAD);
    c->out_used += FRAME_HEAD;
    wire_queue_take(s, c->out + c->out_used, length);
    c->out_used += length;
    wire_stream_run(s); /* to the end of its row */
    return 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    struct wire_conn   *c = ctx;
    struct wire_stream *s;

    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR &&
        !c->failed) { /* nghttp2 found a breach of the protocol */
        c->failed = c->hostile = true;
        c->why = wire_say(WIRE_UNAVAILABLE, "the peer broke HTTP/2: %.*s",
                          (int)frame->goaway.opaque_data_len,
                          (const char *)frame->goaway.opaque_data);
        wire_conn_end_streams(c);
    }
    if (frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    s = stream_of(session, frame->hd.stream_id);
    if (s != NULL && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) {
        s->open = true;
        wire_stream_run(s);
    }
    /* The status has left: what the client still sends has no taker. */
    if (c->opts.server && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 &&
        nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id) == 0)
        return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                         NGHTTP2_NO_ERROR);
    return 0;
}

const nghttp2_data_provider wire_conn_provider = { .read_callback = on_read };

int wire_callbacks_new(nghttp2_session_callbacks **out)
{
    nghttp2_session_callbacks *k;

    if (nghttp2_session_callbacks_new(&k) != 0)
        return MCP_ENOMEM;
    nghttp2_session_callbacks_set_on_begin_headers_callback(k, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(k, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(k, on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(k, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(k, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(k, on_stream_close);
    nghttp2_session_callbacks_set_send_data_callback(k, on_send_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(k, on_frame_send);
    *out = k;
    return MCP_OK;
}
