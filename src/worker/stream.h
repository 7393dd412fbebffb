/* worker/stream.h - one Execute stream: frames to jobs, replies to frames.
 *
 * The session belongs to the table; the stream is where its frames come from and its answers go.
 * When the stream ends without Close the session is detached and waits for another one.
 *
 * A failure ends this stream with a status and one sentence and its session with it; other
 * sessions never notice.
 *
 * Threads: the connection's loop, but for worker_stream_reply() and worker_stream_end().
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_STREAM_H
#define WORKER_STREAM_H

#include "wire/channel.h"
#include "worker/answer.h"
#include "worker/job.h"

/* A frame on its way from the compute thread to the stream's loop. */
struct worker_reply {
    struct worker_reply  *next;
    struct worker_stream *stream; /* counts its bytes; referenced once it is sent */
    struct wire_frame     frame;
    size_t                bytes; /* room in data */
    uint8_t               data[];
};

/* NULL when out of memory. */
struct worker_reply *worker_reply_new(size_t bytes);
void                 worker_reply_free(struct worker_reply *reply);   /* one that was not sent */
void                 worker_replies_free(struct worker_reply *first); /* a list of such */

struct worker_link;

struct worker_stream {
    struct worker_call call; /* first */

    /* Loop's thread. */
    struct worker_link   *link;    /* of the connection */
    struct wire_channel  *channel; /* NULL before Open */
    struct guard_grant    grant;
    uint32_t              access_version; /* that the grant was checked with */
    uint32_t              first, last;    /* layers of the session */
    uint32_t              ctx_tokens;     /* positions granted to it */
    double                progress_ms;    /* when something last left, or nothing waited */
    const uint8_t        *held;           /* of the channel: the message that found no room */
    size_t                held_bytes;
    bool                  held_bulk;
    double                finished_ms;
    bool                  draining_told;
    bool                  finishing; /* `final` once what is queued has left; frames are ignored */
    bool                  finished;  /* trailers were given to net */
    bool                  blocked;   /* in the link's list: something waits for room or for Acks */
    struct worker_stream *blocked_prev, *blocked_next;
    struct wire_status    final;

    double stall_ms; /* fixed: a fault, each batch takes so much longer */

    /* The service's lock. */
    struct worker_session *session; /* NULL before Open, and after its end */
    struct worker_answer  *answer;  /* of the Generate that runs; only compared */
    struct draft          *text;    /* after the last one; NULL when there was none */

    atomic_uint           jobs;        /* not freed yet */
    atomic_bool           half_closed; /* and not closed: who frees the last job wakes it */
    atomic_uint_least64_t unread_bytes;

    pthread_mutex_t      lock; /* guards the rest */
    struct worker_reply *replies, *replies_tail;
    bool                 closed; /* nobody takes replies any more */
    bool                 ending; /* finish with `end` */
    struct wire_status   end;
};

/* The call as a stream; NULL when it is a Watch. */
struct worker_stream *worker_stream_of(struct worker_call *call);

/* Hand over a list of replies; each is freed when it has left, or at once when nobody waits for
 * it.  Any thread that holds a job of the stream. */
void worker_stream_reply(struct worker_stream *s, struct worker_reply *first);

/* Finish the stream with this status; the first one counts.  Any thread. */
void worker_stream_end(struct worker_stream *s, const struct wire_status *status);

/* The same, and end its session: it sent what cannot be computed.  The service's lock is held. */
void worker_stream_fail(struct worker_stream *s, int code, const mcp_error *err);

/* A failure as Execute tells it: compute.proto knows neither OUT_OF_RANGE nor DATA_LOSS. */
struct wire_status worker_stream_status(int code, const mcp_error *err);

/* Keep the text of an answer that is over for the session's next one.  The service's lock is
 * held. */
void worker_stream_keep_text(struct worker_stream *s, struct worker_answer *answer);

/* Give net what may leave now.  Loop's thread. */
void              worker_stream_pump(struct worker_stream *s, double now_ms);
struct wire_pace *worker_stream_pace(const struct worker_stream *s);

/* ---- worker/frames.c: what the client asks for.  Loop's thread. --------------------- */

/* The first message: it must be Open.  Makes the channel, since before it a client may not make
 * us hold more than one message.  Negative with the status to end the stream with. */
int worker_frames_open(struct worker_stream *s, const uint8_t *bytes, size_t count,
                       struct wire_status *status);

/* A whole frame after it. */
int worker_frames_take(struct worker_stream *s, const struct wire_frame *frame,
                       struct wire_status *status);

#endif
