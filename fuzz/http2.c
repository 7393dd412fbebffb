/* fuzz/http2.c - bytes from a peer that may be anything, fed to the connection core.
 *
 * The first byte chooses the end (server, or client with calls under way) and how it behaves:
 * what it answers, whether it pauses, cancels, drains, how large the pieces are.  The rest goes
 * in; what the core sends is taken and thrown away, or left to pile up.
 *
 * Beside crashes, leaks and undefined behaviour, broken promises are findings:
 *   - an owner is told CALL first and CLOSED exactly once, and nothing after it;
 *   - a message is no larger than the limit;
 *   - bounds of memory hold, and when the connection is lost all of it is given back.
 *
 * ./dev fuzz http2 SECONDS; seeds are talks of real ends, recorded.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/conn_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* assert() without its dependence on NDEBUG. */
#define CHECK(condition)                                                                    \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                        \
        }                                                                                   \
    } while (0)

enum {
    MESSAGE_BYTES = 1 << 16,
    QUEUE_BYTES = 1 << 16,
    STREAMS = 16,
    CALLS_MAX = 4096,
};

/* Bits of the first byte. */
enum { CLIENT = 1, ECHO = 2, PAUSE = 4, CANCEL = 8, DRAIN = 16, MUTE = 32, SMALL = 64, TICK = 128 };

struct owner {
    bool closed;
    bool paused;
};

struct fuzz {
    uint8_t           how;
    double            now_ms;
    struct wire_conn *c;
    struct owner      owners[CALLS_MAX]; /* of calls, in order of their beginning */
    uint32_t          count, messages;
};

static void on_event(struct fuzz *f, const struct wire_event *e)
{
    struct owner      *o = e->owner;
    struct wire_status ok = { 0 }, no = { .code = WIRE_CANCELLED };

    if (e->kind == WIRE_EVENT_CALL) {
        CHECK(o == NULL && (f->how & CLIENT) == 0);
        CHECK(wire_stream_path(e->stream) != NULL && wire_stream_timeout_ms(e->stream) >= 0);
        (void)wire_stream_metadata(e->stream, "authorization");
        if (f->count == CALLS_MAX) {
            wire_stream_cancel(e->stream, &no);
            return;
        }
        wire_stream_set_owner(e->stream, &f->owners[f->count++]);
        return;
    }
    CHECK(o != NULL || f->count == CALLS_MAX);
    if (o == NULL)
        return;
    CHECK(!o->closed);
    switch (e->kind) {
    case WIRE_EVENT_MESSAGE:
        CHECK(e->count <= MESSAGE_BYTES && !o->paused);
        if (e->count > 0)
            CHECK(e->bytes[0] + e->bytes[e->count - 1] >= 0); /* readable */
        f->messages++;
        if (f->how & ECHO)
            wire_stream_send(e->stream, e->bytes, e->count,
                             e->count % 2 == 0 ? WIRE_URGENT : WIRE_BULK, NULL);
        if ((f->how & PAUSE) && f->messages % 3 == 0)
            wire_stream_pause(e->stream, o->paused = true);
        if ((f->how & CANCEL) && f->messages % 5 == 0)
            wire_stream_cancel(e->stream, &no);
        else if ((f->how & CANCEL) && f->messages % 7 == 0)
            wire_stream_abort(e->stream, &no);
        break;
    case WIRE_EVENT_HALF_CLOSED: wire_stream_finish(e->stream, &ok); break;
    case WIRE_EVENT_CLOSED:
        CHECK(e->status->code >= 0 && e->status->code <= WIRE_UNAUTHENTICATED);
        CHECK(memchr(e->status->text, '\0', sizeof(e->status->text)) != NULL);
        o->closed = true;
        break;
    default: break;
    }
}

static void events(struct fuzz *f)
{
    struct wire_event e;

    while (wire_conn_next(f->c, &e))
        on_event(f, &e);
    CHECK(f->c->assembly_bytes <= ASSEMBLY_BYTES && f->c->metadata_bytes <= METADATA_BYTES);
    CHECK(f->c->queue_bytes <= QUEUE_CONN_BYTES + STREAMS * QUEUE_FLOOR);
    CHECK(f->c->memory.bytes <= HTTP2_BYTES);
}

static void take(struct fuzz *f)
{
    static uint8_t out[16384];

    while (wire_conn_take(f->c, out, (f->how & SMALL) ? 100 : sizeof(out)) > 0)
        ;
    events(f);
}

static void resume_all(struct fuzz *f)
{
    struct wire_stream *s;

    for (s = TAILQ_FIRST(&f->c->all); s != NULL; s = TAILQ_NEXT(s, all)) {
        struct owner *o = wire_stream_owner(s);

        if (o != NULL && o->paused)
            wire_stream_pause(s, o->paused = false);
    }
    events(f);
}

static void begin_calls(struct fuzz *f)
{
    static const uint8_t message[3000];
    struct wire_stream  *s;

    for (uint32_t i = 0; i < 3; i++) {
        CHECK(wire_call_open(&s, f->c, "/a.B/C", i * 100, NULL, &f->owners[f->count++], NULL) == 0);
        CHECK(wire_stream_send(s, message, i * 1000, WIRE_URGENT, NULL) == 0);
        if (i == 1)
            wire_stream_end(s);
    }
}

static void feed_all(struct fuzz *f, const uint8_t *data, size_t size)
{
    size_t piece = (f->how & SMALL) ? 7 : 5000;

    for (size_t at = 0; at < size; at += piece) {
        wire_conn_feed(f->c, f->now_ms, data + at, size - at < piece ? size - at : piece);
        events(f);
        if ((f->how & MUTE) == 0)
            take(f);
        f->now_ms += 1;
        if ((f->how & PAUSE) && at / piece % 4 == 3)
            resume_all(f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz    f;
    struct wire_status    why = { .code = WIRE_UNAVAILABLE };
    struct wire_conn_opts opts = { .authority = "w",
                                   .streams_max = STREAMS,
                                   .message_bytes = MESSAGE_BYTES,
                                   .queue_bytes = QUEUE_BYTES };

    if (size == 0)
        return 0;
    memset(&f, 0, sizeof(f));
    f.how = data[0];
    opts.server = (f.how & CLIENT) == 0;
    CHECK(wire_conn_new(&f.c, &opts, f.now_ms, NULL) == 0);
    if (f.how & CLIENT)
        begin_calls(&f);
    take(&f);
    feed_all(&f, data + 1, size - 1);
    if (f.how & DRAIN)
        wire_conn_drain(f.c);
    take(&f);
    if (f.how & TICK) {
        wire_conn_tick(f.c, f.now_ms + 1e6);
        events(&f);
    }
    wire_conn_lose(f.c, &why);
    events(&f);
    CHECK(wire_conn_over(f.c, NULL) && wire_conn_streams(f.c) == 0);
    CHECK(f.c->queue_bytes == 0 && f.c->held_bytes == 0 && f.c->assembly_bytes == 0 &&
          f.c->metadata_bytes == 0);
    for (uint32_t i = 0; i < f.count; i++)
        CHECK(f.owners[i].closed);
    wire_conn_free(f.c);
    return 0;
}
