/* worker/compute_private.h - what the files of the compute thread share.
 *
 *     compute.c  the thread: takes a batch, settles with the table, answers
 *     run.c      the batch through the engine
 *     collect.c  rows of results into replies, logits into tokens
 *
 * All on the compute thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_COMPUTE_PRIVATE_H
#define WORKER_COMPUTE_PRIVATE_H

#include "worker/compute.h"
#include "worker/stream.h"

/* A piece of one session's window in the batch that runs, or its export or import. */
struct compute_item {
    struct worker_item item; /* a copy: the table's is gone after worker_table_done() */
    struct worker_job *job; /* ours after that only if item.last: else it may be dropped any time */
    uint32_t           rows;     /* of floats that this piece returns, */
    size_t             row_at;   /* the first of them in `out` */
    bool               unwanted; /* trimmed, closed or resumed meanwhile */
    int                rc;       /* what became of it */
    mcp_error          error;
    uint32_t           length; /* IMPORT: positions afterwards */
};

/* A batch on its way, with what it needs while it is paused between two slices. */
struct compute_run {
    struct worker_batch  batch;
    struct compute_item *items;   /* (sessions_max), batch.count of them in use */
    mcp_window          *windows; /* (sessions_max) one an item */
    float               *in;      /* (batch_tokens, n_embd) rows for the layers to come */
    double               began_ms, compute_ms;
    double               slice_ms;  /* of compute_ms, since the last pause */
    double               paused_ms; /* since then it is paused; 0 = it runs */
};

/* The batch that runs, and one of batch sessions that may be paused for it. */
enum { COMPUTE_RUNS = 2 };

struct worker_compute {
    struct worker_service *service;
    struct mcp_engine     *engine;
    pthread_t              thread;
    bool                   started;
    uint32_t               n_embd, n_vocab;

    struct compute_run  runs[COMPUTE_RUNS];
    mcp_window         *ready; /* (sessions_max) those of one forward */
    float              *out;   /* (out_floats) */
    size_t              out_floats;
    struct worker_guess guess;  /* of answers: what windows take */
    uint64_t            faults; /* forwards that failed for several items together */
};

/* Floats in a row of this batch's results. */
static inline uint32_t compute_width(const struct worker_compute *c, const struct compute_run *r)
{
    return r->batch.logits ? c->n_vocab : c->n_embd;
}

/* Make ready to run what was taken.  No lock is held here and below. */
void compute_begin(struct worker_compute *c, struct compute_run *r);

/* Run layers [slice_first, slice_last) of the batch, which are not its last ones. */
void compute_slice(struct worker_compute *c, struct compute_run *r);

/* Run the rest, and note in every item what became of it. */
void compute_finish(struct worker_compute *c, struct compute_run *r);

/* The rows of items [first, first + count) lie in `out`: put them where they belong, before the
 * next forward overwrites them. */
void compute_collect(struct worker_compute *c, struct compute_run *r, uint32_t first,
                     uint32_t count);

/* The one item of an exclusive batch: a block of KV out of the engine, or into it. */
void compute_state(struct worker_compute *c, struct compute_run *r);

#endif
