/* wire/conn.c - the connection: nghttp2's session, feed, next, take, tick and the end.
 *
 * DATA makes nghttp2's mem_recv pause, so that at most one chunk waits to be parsed and nothing
 * has to be copied or queued for it.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/conn_impl.h"

#include "base/fail.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PEER_STREAMS_GUESS = 100, /* calls in flight before the server's SETTINGS are here */
    SETTINGS_ENTRIES_MAX = 32,
    OUTBOUND_ACKS_MAX = 1000, /* PING and SETTINGS that a peer that does not read may send */
};

/* Newer than nghttp2 1.52, or Debian's addition to it: used when the library has it. */
/* NOLINTNEXTLINE(readability-redundant-declaration): some headers lack it */
void nghttp2_option_set_stream_reset_rate_limit(nghttp2_option *option, uint64_t burst,
                                                uint64_t rate) __attribute__((weak));

/* ---- the end ------------------------------------------------------------------------ */

struct wire_status wire_say(int code, const char *format, ...)
{
    struct wire_status status = { .code = code };
    va_list            args;

    va_start(args, format);
    vsnprintf(status.text, sizeof(status.text), format, args);
    va_end(args);
    return status;
}

void wire_conn_end_streams(struct wire_conn *c)
{
    struct wire_stream *s, *next;

    for (s = TAILQ_FIRST(&c->all); s != NULL; s = next) {
        next = TAILQ_NEXT(s, all);
        wire_stream_over(s, &c->why);
    }
}

/* End it without a word to the peer. */
static void die(struct wire_conn *c, const struct wire_status *why)
{
    if (c->dead)
        return;
    c->dead = true;
    c->input_bytes = c->frame_bytes = 0;
    if (!c->failed)
        c->why = *why;
    wire_conn_end_streams(c);
}

int wire_conn_check(struct wire_conn *c, int rc)
{
    struct wire_status why;

    if (rc < 0 && nghttp2_is_fatal(rc)) {
        why = wire_say(WIRE_RESOURCE_EXHAUSTED, "the connection ended: %s",
                       rc == NGHTTP2_ERR_CALLBACK_FAILURE ? nghttp2_strerror(NGHTTP2_ERR_NOMEM)
                                                          : nghttp2_strerror(rc));
        die(c, &why);
    }
    return rc;
}

void wire_conn_lose(struct wire_conn *c, const struct wire_status *why)
{
    die(c, why);
}

/* The peer broke a bound or the protocol: a GOAWAY says which error it was. */
void wire_conn_fail(struct wire_conn *c, uint32_t http2_error, const char *text)
{
    if (c->failed || c->dead)
        return;
    c->failed = c->hostile = true;
    c->input_bytes = 0;
    c->why = wire_say(WIRE_UNAVAILABLE, "the peer broke the protocol: %s", text);
    wire_conn_end_streams(c);
    wire_conn_check(c, nghttp2_session_terminate_session(c->session, http2_error));
}

/* ---- going out ---------------------------------------------------------------------- */

/* Choose who sends the next DATA frame. */
static bool grant(struct wire_conn *c)
{
    struct wire_stream *s;

    if (nghttp2_session_get_remote_window_size(c->session) <= 0)
        return false;
    for (;;) {
        s = TAILQ_FIRST(&c->run[RUN_URGENT]);
        if (s == NULL)
            s = TAILQ_FIRST(&c->run[RUN_BULK]);
        if (s == NULL)
            return false;
        if (nghttp2_session_get_stream_remote_window_size(c->session, s->id) > 0)
            break;
        wire_stream_park(s, RUN_BLOCKED);
    }
    wire_stream_park(s, RUN_NOT);
    c->granted = s;
    /* It may not be deferred yet (its HEADERS have just left); that is as good. */
    return !nghttp2_is_fatal(wire_conn_check(c, nghttp2_session_resume_data(c->session, s->id)));
}

/* One frame of nghttp2's, or one DATA frame straight from a stream's queue. */
static bool take_frame(struct wire_conn *c)
{
    struct wire_stream *unused;
    ssize_t             bytes = nghttp2_session_mem_send(c->session, &c->frame);

    unused = c->granted;
    c->granted = NULL;
    if (wire_conn_check(c, (int)bytes) < 0)
        return false;
    if (bytes > 0) {
        c->frame_bytes = (size_t)bytes;
        if (unused != NULL)
            wire_stream_run(unused); /* control frames go first */
        return true;
    }
    if (unused != NULL) /* nghttp2 did not want it after all */
        wire_stream_park(unused, RUN_BLOCKED);
    return c->out_cap - c->out_used >= TAKE_MIN && grant(c);
}

size_t wire_conn_take(struct wire_conn *c, uint8_t *out, size_t cap)
{
    c->out = out;
    c->out_cap = cap;
    c->out_used = 0;
    while (!c->dead && c->out_used < cap) {
        size_t step = cap - c->out_used;

        if (c->frame_bytes == 0) {
            if (!take_frame(c))
                break;
            continue;
        }
        step = step > c->frame_bytes ? c->frame_bytes : step;
        memcpy(out + c->out_used, c->frame, step);
        c->frame += step;
        c->frame_bytes -= step;
        c->out_used += step;
    }
    return c->out_used;
}

/* ---- events ------------------------------------------------------------------------- */

void wire_conn_feed(struct wire_conn *c, double now_ms, const uint8_t *bytes, size_t count)
{
    const char *wrong;

    assert(c->input_bytes == 0 && c->chunk.count == 0);
    c->now_ms = now_ms;
    if (c->dead || c->failed)
        return;
    c->input = bytes;
    c->input_bytes = count;
    wrong = wire_bounds_feed(&c->bounds, now_ms, bytes, count);
    if (wrong != NULL)
        wire_conn_fail(c, NGHTTP2_ENHANCE_YOUR_CALM, wrong);
}

/* nghttp2 is called until it has eaten the input or has something for us. */
static bool input_step(struct wire_conn *c)
{
    ssize_t eaten;

    if (c->dead || c->failed || (c->input_bytes == 0 && !c->input_paused))
        return false;
    c->input_paused = false;
    eaten = nghttp2_session_mem_recv(c->session, c->input, c->input_bytes);
    if (eaten < 0) {
        if (c->breach != NULL)
            wire_conn_fail(c, NGHTTP2_ENHANCE_YOUR_CALM, c->breach);
        else if (eaten == NGHTTP2_ERR_FLOODED)
            wire_conn_fail(c, NGHTTP2_ENHANCE_YOUR_CALM,
                           "PING and SETTINGS, and their answers are not read");
        else if (eaten == NGHTTP2_ERR_NOMEM || eaten == NGHTTP2_ERR_CALLBACK_FAILURE)
            wire_conn_check(c, (int)eaten);
        else
            wire_conn_fail(c, NGHTTP2_PROTOCOL_ERROR, nghttp2_strerror((int)eaten));
        return true;
    }
    assert((size_t)eaten <= c->input_bytes);
    assert(eaten > 0 || c->input_paused || c->input_bytes == 0);
    c->input += eaten;
    c->input_bytes -= (size_t)eaten;
    /* Every frame may have queued an answer: a peer that does not take them is cut off. */
    if (nghttp2_session_get_outbound_queue_size(c->session) >
        4 * ((size_t)c->stream_count + c->opts.streams_max) + OUTBOUND_ACKS_MAX)
        wire_conn_fail(c, NGHTTP2_ENHANCE_YOUR_CALM, "it does not read our control frames");
    return true;
}

/* Give the chunk's window back, in one call for all its messages. */
static void chunk_done(struct wire_conn *c)
{
    if (c->chunk.eaten > 0 && !c->dead)
        wire_conn_check(c,
                        nghttp2_session_consume(c->session, c->chunk.stream->id, c->chunk.eaten));
    c->chunk.stream = NULL;
    c->chunk.count = c->chunk.eaten = 0;
}

static bool chunk_next(struct wire_conn *c, struct wire_event *event)
{
    struct wire_stream *s = c->chunk.stream;
    size_t              before = c->chunk.count;
    int                 rc;

    if (before > 0 && (s->paused || s->held.count > 0)) {
        const uint8_t *rest = c->chunk.bytes;

        chunk_done(c);
        wire_stream_hold(s, rest, before);
        return false;
    }
    rc = wire_stream_parse(s, &c->chunk.bytes, &c->chunk.count, event);
    if (rc < 0)
        return false;
    c->chunk.eaten += before - c->chunk.count;
    if (rc == 0)
        chunk_done(c);
    return rc > 0;
}

bool wire_conn_next(struct wire_conn *c, struct wire_event *event)
{
    struct wire_stream *s;

    wire_stream_free(c->doomed);
    c->doomed = NULL;
    for (;;) {
        s = TAILQ_FIRST(&c->ready);
        if (s != NULL) {
            if (wire_stream_next(s, event))
                return true;
        } else if (c->chunk.stream != NULL) {
            if (chunk_next(c, event))
                return true;
        } else if (!input_step(c)) {
            return false;
        }
    }
}

/* A message that was begun and does not go on: too slow, or a way to hold memory. */
static bool message_is_late(const struct wire_stream *s, double now_ms)
{
    const struct wire_assembler *a = &s->in;
    double                       size = a->head_have == WIRE_MESSAGE_HEAD ? a->size : 0;

    return a->head_have > 0 && !s->paused && s->held.count == 0 &&
           now_ms > a->began_ms + MESSAGE_MS + size / MESSAGE_BYTES_MS;
}

static void stream_tick(struct wire_stream *s, double now_ms)
{
    struct wire_status late;

    if (message_is_late(s, now_ms)) {
        late = wire_say(WIRE_DEADLINE_EXCEEDED,
                        "a message stopped after %u of %u bytes (16 kB/s are the least)",
                        s->in.have, s->in.size);
        wire_stream_abort(s, &late);
    } else if (s->conn->opts.server && s->out.bytes > 0 && now_ms - s->out.moved_ms > STALL_MS) {
        late = wire_say(WIRE_DEADLINE_EXCEEDED, "no byte of the answer was taken for %d s",
                        STALL_MS / 1000);
        wire_stream_cancel(s, &late);
    }
}

void wire_conn_tick(struct wire_conn *c, double now_ms)
{
    const struct wire_frame_walk *walk = &c->bounds.walk;
    struct wire_stream           *s, *next;

    c->now_ms = now_ms;
    if (walk->block_open && now_ms - walk->block_began_ms > HEADER_BLOCK_MS)
        wire_conn_fail(c, NGHTTP2_ENHANCE_YOUR_CALM, "a header block is not complete after 10 s");
    for (s = TAILQ_FIRST(&c->all); s != NULL; s = next) {
        next = TAILQ_NEXT(s, all);
        if (!s->over)
            stream_tick(s, now_ms);
    }
}

bool wire_conn_waits(const struct wire_conn *c)
{
    return c->stream_count > 0 || c->bounds.walk.block_open;
}

/* ---- opening and closing ------------------------------------------------------------ */

static int option_new(nghttp2_option **out)
{
    nghttp2_option *o;

    if (nghttp2_option_new(&o) != 0)
        return MCP_ENOMEM;
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_option_set_no_closed_streams(o, 1);
    nghttp2_option_set_max_settings(o, SETTINGS_ENTRIES_MAX);
    nghttp2_option_set_max_outbound_ack(o, OUTBOUND_ACKS_MAX);
    nghttp2_option_set_peer_max_concurrent_streams(o, PEER_STREAMS_GUESS);
    /* conn_bounds.c has a limit that an edge with many clients can live with, and our clock. */
    if (nghttp2_option_set_stream_reset_rate_limit != NULL)
        nghttp2_option_set_stream_reset_rate_limit(o, UINT32_MAX, UINT32_MAX);
    *out = o;
    return MCP_OK;
}

/* Our SETTINGS and the connection's window. */
static int greet(struct wire_conn *c)
{
    nghttp2_settings_entry entries[] = {
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WIRE_WINDOW_STREAM },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEADER_BLOCK_BYTES },
        /* No dependency trees: their upkeep is another flood. */
        { NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1 },
        { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
    };

    if (c->opts.server)
        entries[3] = (nghttp2_settings_entry){ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                               c->opts.streams_max };
    if (nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, entries, 4) != 0 ||
        nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, WIRE_WINDOW_CONN) !=
            0)
        return MCP_ENOMEM;
    return MCP_OK;
}

static int session_new(struct wire_conn *c)
{
    nghttp2_mem                memory = wire_memory_functions(&c->memory);
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option            *option = NULL;
    int                        rc;

    rc = wire_callbacks_new(&callbacks);
    if (rc < 0)
        goto out;
    rc = option_new(&option);
    if (rc < 0)
        goto out;
    if ((c->opts.server ? nghttp2_session_server_new3 : nghttp2_session_client_new3)(
            &c->session, callbacks, c, option, &memory) != 0) {
        c->session = NULL;
        rc = MCP_ENOMEM;
        goto out;
    }
    rc = greet(c);
out:
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return rc;
}

int wire_conn_new(struct wire_conn **out, const struct wire_conn_opts *opts, double now_ms,
                  mcp_error *err)
{
    struct wire_conn *c = calloc(1, sizeof(*c));
    int               rc = MCP_ENOMEM;

    *out = NULL;
    if (c == NULL)
        goto out;
    c->opts = *opts;
    c->now_ms = now_ms;
    TAILQ_INIT(&c->all);
    TAILQ_INIT(&c->ready);
    for (int i = 0; i < RUNS; i++)
        TAILQ_INIT(&c->run[i]);
    wire_bounds_init(&c->bounds, opts->server, now_ms);
    c->authority = strdup(opts->authority != NULL ? opts->authority : "");
    if (c->authority == NULL)
        goto out;
    c->opts.authority = c->authority;
    rc = session_new(c);
    if (rc < 0)
        goto out;
    *out = c;
    c = NULL;
out:
    wire_conn_free(c);
    return rc < 0 ? base_fail(err, rc, "no memory for a connection") : MCP_OK;
}

void wire_conn_free(struct wire_conn *c)
{
    struct wire_block *block;

    if (c == NULL)
        return;
    c->dead = true;
    wire_stream_free(c->doomed);
    while (!TAILQ_EMPTY(&c->all))
        wire_stream_free(TAILQ_FIRST(&c->all));
    wire_memory_fini(&c->memory);
    while (c->spare != NULL) {
        block = c->spare;
        c->spare = block->next;
        free(block);
    }
    free(c->authority);
    free(c);
}

void wire_conn_drain(struct wire_conn *c)
{
    if (c->dead || c->failed)
        return;
    wire_conn_check(c, nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE,
                                             nghttp2_session_get_last_proc_stream_id(c->session),
                                             NGHTTP2_NO_ERROR, NULL, 0));
}

bool wire_conn_over(const struct wire_conn *c, struct wire_status *why)
{
    bool over = c->dead || (c->stream_count == 0 && c->frame_bytes == 0 && c->input_bytes == 0 &&
                            c->chunk.stream == NULL && nghttp2_session_want_read(c->session) == 0 &&
                            nghttp2_session_want_write(c->session) == 0);

    if (over && why != NULL)
        *why = c->why;
    return over;
}

bool wire_conn_hostile(const struct wire_conn *c)
{
    return c->hostile;
}

bool wire_conn_draining(const struct wire_conn *c)
{
    return c->draining || c->failed || c->dead;
}

const struct wire_status *wire_conn_goaway(const struct wire_conn *c)
{
    return c->draining && !c->opts.server ? &c->why : NULL;
}

bool wire_conn_greeted(const struct wire_conn *c)
{
    return c->greeted;
}

uint32_t wire_conn_streams(const struct wire_conn *c)
{
    return c->stream_count;
}
