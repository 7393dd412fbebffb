/* worker/job.h - a unit of a session's work, from its frame to its answer.
 *
 *     loop: made from a frame ─▶ table: queued ─▶ compute thread: run, answered ─▶ freed
 *                                       └─▶ dropped (trim, close, deadline) ─────▶ freed
 *
 * The table sees its first member, struct worker_work.  One thread has a job at a time: its
 * stream's loop until it is pushed, the compute thread while it is in a batch.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_JOB_H
#define WORKER_JOB_H

#include "worker/service.h"

struct worker_stream;
struct worker_answer;
struct worker_reply;

enum worker_job_kind {
    WORKER_FORWARD,  /* answered by a Result */
    WORKER_GENERATE, /* a window of an answer being generated; goes on by itself */
    WORKER_EXPORT,   /* answered by a State with the block */
    WORKER_IMPORT,   /* answered by a State without */
};

struct worker_job {
    struct worker_work    work; /* first: the table's */
    enum worker_job_kind  kind;
    struct worker_stream *stream;      /* where the answer goes; referenced */
    struct worker_job    *prev, *next; /* of the service; its lock */
    bool                  linked;
    double                queue_ms;   /* until the first piece ran; below 0 before */
    double                compute_ms; /* of all pieces so far */

    /* Windows: positions from `data` at `offset_bytes` on, tokens or an encoded payload. */
    enum wire_want        want;
    bool                  tokens;
    bool                  bulk;
    uint32_t              codec, wrap; /* of the payload */
    uint32_t              reply_codec, reply_wrap;
    size_t                offset_bytes;
    uint8_t              *plain;      /* the payload unwrapped; NULL = it is not wrapped */
    struct worker_reply  *reply;      /* rows of the pieces so far; GENERATE: a list of tokens */
    uint32_t              reply_rows; /* filled in of it */
    struct worker_answer *answer;     /* of GENERATE; owned */
    uint32_t              chosen;     /* tokens by this window's rows so far */
    bool                  settled;    /* its further rows follow a wrong guess, or the end */
    enum wire_stop        stop;       /* of the token chosen last */

    struct wire_export export; /* of EXPORT */

    size_t bytes; /* of data */
    _Alignas(16) uint8_t data[];
};

/* Zeroed but for these, and data copied when given.  NULL when out of memory. */
struct worker_job *worker_job_new(struct worker_stream *stream, enum worker_job_kind kind,
                                  const void *data, size_t bytes);

/* Into and out of the service's list of jobs, and of the stream's count.  Lock held. */
void worker_job_link(struct worker_job *job);

/* With its answer and reply.  Lock held when it was linked. */
void worker_job_free(struct worker_job *job);

static inline struct worker_job *worker_job_of(struct worker_work *work)
{
    return (struct worker_job *)(void *)work;
}

/* Rows of floats that the whole window returns, and which. */
uint32_t worker_job_rows(const struct worker_job *job);
bool     worker_want_logits(enum wire_want want);

#endif
