/* wire/conn_impl.h - what the files of the connection core share; nobody else includes it.
 *
 *     conn.c         the connection: feed, next, take, tick, its end
 *     conn_frames.c  what nghttp2 calls: frames in, frames out
 *     conn_stream.c  a stream: what it has to tell, its end
 *     conn_in.c      its messages in           conn_out.c  its messages out
 *     conn_bounds.c  what a peer may do at most          conn_memory.c  what nghttp2 allocates
 *
 * A stream lives in the list `streams` until its CLOSED was told, and may be in two more:
 *
 *     ready   it has something to tell
 *     run     URGENT or BULK: it has bytes to send and, as far as known, room in its window;
 *             BLOCKED: its window is used up, a WINDOW_UPDATE brings it back
 *
 * nghttp2 knows a stream by its user data, a pointer here, which is cleared when the stream is
 * over for its owner: nghttp2 may keep its own half until a last frame has left.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_CONN_IMPL_H
#define WIRE_CONN_IMPL_H

#include "wire/conn.h"

#include <nghttp2/nghttp2.h>
#include <sys/queue.h>

enum {
    FRAME_HEAD = 9, /* HTTP/2's */
    TAKE_MIN = 64,  /* room for a DATA frame that is worth its head */
};

/* ---- bounds (conn_bounds.c tells the attacks) --------------------------------------- */

struct wire_bucket {
    double tokens, burst, per_ms, last_ms;
};

/* The heads of the frames that come in, seen before nghttp2 sees them. */
struct wire_frame_walk {
    uint8_t  head[FRAME_HEAD];
    uint32_t have;           /* bytes of head */
    uint32_t skip;           /* preface or payload bytes before the next head */
    uint32_t continuations;  /* in a row */
    bool     block_open;     /* HEADERS without END_HEADERS yet */
    double   block_began_ms; /* while block_open */
};

struct wire_bounds {
    struct wire_bucket     frames, resets;
    struct wire_frame_walk walk;
};

void wire_bounds_init(struct wire_bounds *b, bool server, double now_ms);
/* NULL, or the sentence of the bound that was broken. */
const char *wire_bounds_feed(struct wire_bounds *b, double now_ms, const uint8_t *bytes,
                             size_t count);
/* A stream that the peer reset, or made us reset; false: too many. */
bool wire_bounds_reset(struct wire_bounds *b, double now_ms, double cost);

enum {
    /* "name + value + 32" as HTTP/2 counts: 16 KiB holds every real request and bounds the
     * HPACK bombs, which repeat one large field or send many empty ones. */
    HEADER_BLOCK_BYTES = 16 << 10,
    /* What stays of requests while their calls run, all streams: 1,024 x 16 KiB would be held
     * by a peer that opens calls and never reads. */
    METADATA_BYTES = 4 << 20,
    /* Memory for half messages, all streams.  It grows with what has come, not with what was
     * announced, so lies cost their sender as much. */
    ASSEMBLY_BYTES = 64 << 20,
    /* Bytes of paused streams for which the connection's window is given back all the same;
     * beyond it, a connection full of paused streams stands still. */
    HELD_BYTES = 8 << 20,
    /* Unsent bytes of all streams: a request of 60 bytes can ask for megabytes and open no
     * window.  A stream may always queue QUEUE_FLOOR, so that one tenant of an edge's
     * connection cannot silence the others. */
    QUEUE_CONN_BYTES = 64 << 20,
    QUEUE_FLOOR = 64 << 10,

    /* What nghttp2 allocates.  1,024 calls refused at once, with long sentences, need 2.3 MB. */
    HTTP2_BYTES = 8 << 20,

    HEADER_BLOCK_MS = 10000, /* first to last byte of a header block */
    STALL_MS = 60000,        /* server: answers wait and the client opens no window */
    MESSAGE_MS = 30000,      /* a message, plus ... */
    MESSAGE_BYTES_MS = 16,   /* ... one ms for so many bytes: 16 kB/s at least */
};

struct wire_piece;
struct wire_memory {
    LIST_HEAD(wire_pieces, wire_piece) pieces;
    size_t bytes;
};

nghttp2_mem wire_memory_functions(struct wire_memory *m);
void        wire_memory_fini(struct wire_memory *m);

/* ---- streams ------------------------------------------------------------------------ */

enum wire_run { RUN_NOT, RUN_URGENT, RUN_BULK, RUN_BLOCKED, RUNS };

/* What a stream has to tell, beside messages; told in this order. */
enum { TELL_CALL = 1, TELL_HALF_CLOSED = 2, TELL_WRITABLE = 4, TELL_CLOSED = 8 };

/* The message that is coming in.  One that lies whole in the bytes fed never gets here. */
struct wire_assembler {
    uint8_t  head[WIRE_MESSAGE_HEAD];
    uint32_t head_have;
    uint32_t size, have; /* of the body, once the head is there */
    uint8_t *body;       /* (cap); kept for the next message when small */
    size_t   cap;
    double   began_ms; /* when its first byte came */
};

/* Unparsed bytes of a paused stream, in order. */
struct wire_held {
    uint8_t *bytes; /* (cap) */
    size_t   first, count, cap;
    size_t   owed; /* of these, not yet given back to the connection's window */
};

/* Messages waiting to leave, heads included. */
struct wire_block {
    struct wire_block *next;
    size_t             cap, used;
    uint8_t            bytes[];
};

struct wire_queue {
    struct wire_block *first, *last;
    size_t             first_sent; /* bytes of `first` that have left */
    size_t             bytes;
    uint64_t           sent;         /* since the beginning */
    uint64_t           urgent_until; /* of `sent`: an urgent message ends there */
    double             moved_ms;     /* when it last got shorter, or began */
};

struct wire_stream {
    struct wire_conn *conn;
    void             *owner;
    int32_t           id;

    TAILQ_ENTRY(wire_stream) all, ready, running;
    bool          is_ready;
    enum wire_run run;
    unsigned      tell; /* TELL_* */

    bool told;      /* the owner knows it: CLOSED is due */
    bool open;      /* our HEADERS have left: DATA may */
    bool responded; /* server: response HEADERS were submitted */
    bool ended;     /* no more messages from our owner */
    bool finished;  /* server: `status` goes into trailers after the queue */
    bool eof;       /* END_STREAM is nghttp2's business now */
    bool over;      /* nothing more happens but telling CLOSED; nghttp2 does not know it */
    bool paused;
    bool want_room;

    struct wire_assembler in;
    struct wire_held      held;
    struct wire_queue     out;
    uint64_t              bytes_out, bytes_in;

    char    *metadata; /* "name\0value\0..."; the path is ":path" */
    size_t   metadata_bytes, metadata_cap;
    uint32_t header_bytes; /* of the block coming in, as HTTP/2 counts */
    double   timeout_ms;
    uint32_t http_status; /* client: 0 = not seen */
    bool     is_grpc;     /* the content type is gRPC's */
    bool     is_post;     /* server */
    bool     bad_timeout; /* server */
    bool     has_status;  /* client: grpc-status has come */

    struct wire_status status;
};

TAILQ_HEAD(wire_streams, wire_stream);

/* ---- the connection ----------------------------------------------------------------- */

struct wire_conn {
    struct wire_conn_opts opts;
    char                 *authority; /* owned; opts.authority */
    nghttp2_session      *session;   /* in `memory` */
    struct wire_memory    memory;
    double                now_ms;

    struct wire_streams all, ready, run[RUNS];
    uint32_t            stream_count;
    struct wire_stream *doomed; /* its CLOSED was told: freed by the next wire_conn_next() */

    const uint8_t *input; /* borrowed from wire_conn_feed() */
    size_t         input_bytes;
    bool           input_paused; /* nghttp2 stands after a chunk and wants to be called again */
    struct {                     /* DATA that is being parsed */
        struct wire_stream *stream;
        const uint8_t      *bytes;
        size_t              count;
        size_t              eaten; /* parsed, window not yet given back */
    } chunk;

    uint8_t            *out; /* during wire_conn_take() */
    size_t              out_cap, out_used;
    const uint8_t      *frame; /* nghttp2's, not yet copied out */
    size_t              frame_bytes;
    struct wire_stream *granted; /* whose turn to send DATA it is */
    struct wire_block  *spare;   /* standard blocks for the next messages */
    uint32_t            spare_count;

    struct wire_bounds bounds;
    size_t             metadata_bytes, assembly_bytes, held_bytes, queue_bytes;

    bool               starved; /* a stream was refused room for QUEUE_CONN_BYTES' sake */
    bool               greeted;
    bool               draining; /* GOAWAY has come */
    bool               failed;   /* GOAWAY with an error is on its way out */
    bool               dead;     /* nothing can be sent any more */
    bool               hostile;
    const char        *breach; /* what a callback found; mem_recv has failed because of it */
    struct wire_status why;
};

/* conn_stream.c: its place in the rows, its end */
struct wire_stream *wire_stream_new(struct wire_conn *c, int32_t id);
void                wire_stream_free(struct wire_stream *s);
void                wire_stream_tell(struct wire_stream *s, unsigned what);
bool                wire_stream_next(struct wire_stream *s, struct wire_event *event);
void                wire_stream_run(struct wire_stream *s); /* put it where it may send */
void                wire_stream_park(struct wire_stream *s, enum wire_run run);
/* The call is over for its owner: all that it holds is dropped, CLOSED will be told. */
void wire_stream_over(struct wire_stream *s, const struct wire_status *status);
/* nghttp2 has closed it in order: CLOSED with its status, after what is held. */
void wire_stream_ended(struct wire_stream *s);
/* Keep a field of the request; false: out of memory or over METADATA_BYTES. */
bool wire_stream_keep(struct wire_stream *s, const char *name, size_t name_bytes, const char *value,
                      size_t value_bytes);

/* conn_in.c: messages in */
/* 1: *event is a message; 0: all bytes are eaten; -1: the stream was ended for what is in them. */
int wire_stream_parse(struct wire_stream *s, const uint8_t **bytes, size_t *count,
                      struct wire_event *event);
/* End the call for the peer's mistake; -1. */
int wire_stream_refuse(struct wire_stream *s, struct wire_status status);
/* Keep bytes that must not be parsed yet; parse them. */
void wire_stream_hold(struct wire_stream *s, const uint8_t *bytes, size_t count);
int  wire_held_next(struct wire_stream *s, struct wire_event *event);
void wire_held_free(struct wire_stream *s); /* the buffer, when empty */
/* Drop all that has come in and was not told; and the buffers. */
void wire_stream_deafen(struct wire_stream *s);
void wire_stream_forget(struct wire_stream *s);

/* conn_out.c: messages out */
/* Move the first `count` queued bytes out; drop all. */
void wire_queue_take(struct wire_stream *s, uint8_t *target, size_t count);
void wire_queue_drop(struct wire_stream *s);
/* Server: trailers from `status`, whatever has been sent so far. */
void wire_stream_trailers(struct wire_stream *s);

/* conn_frames.c: what nghttp2 calls */
int wire_callbacks_new(nghttp2_session_callbacks **out); /* 0, or MCP_ENOMEM */
/* Where every stream's DATA comes from. */
extern const nghttp2_data_provider wire_conn_provider;

/* conn.c */
/* nghttp2's return value, passed on; without memory the connection dies. */
int wire_conn_check(struct wire_conn *c, int rc);
/* End it by a GOAWAY that says which error.  Not from inside nghttp2's callbacks. */
void wire_conn_fail(struct wire_conn *c, uint32_t http2_error, const char *text);
/* End all streams with c->why. */
void wire_conn_end_streams(struct wire_conn *c);

/* A status with its sentence. */
struct wire_status wire_say(int code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
