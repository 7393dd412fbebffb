/* worker/table.h - who runs next: sessions, their queues, and the batches made of them.
 *
 * A pure state machine: no engine, socket, thread or clock in it.  The service
 * (worker/service.h) tells it what came and when; the compute thread asks it for a batch,
 * runs that, and tells how it went.  The caller serialises all calls.
 *
 *                    open, push, trim, close             next, done
 *     streams  ───────────────────────────────▶  table ◀────────────  compute thread
 *                                                  │
 *                        acts (a session ends)  ◀──┘
 *
 * Sessions.  One holds an engine sequence (its slot), belongs to a subject, covers layers
 * [first, last) and is attached to a stream or, for lease_ms, to none.  Its windows run in the
 * order in which they were pushed; `length` is what has run, in whole windows, `queued_pos` what
 * will have.
 *
 * Batches.  Windows of many sessions at the same range run in one forward.  Decode windows
 * (at most decode_tokens positions) go first; prefill fills what is left, at most chunk_tokens
 * of it while any decode waits or is expected, so that a decode never waits longer than
 * one such forward.  A window larger than that is run in pieces at multiples of 64, of which
 * none is below 64: on a CPU windows of 64 and more positions give the same bits however they
 * are cut (docs/architecture.md), so the cut cannot be seen in the result.  One of fewer than 128
 * cannot be cut and may exceed a smaller chunk, alone.  Where windows of fewer than 64 positions
 * are even with each other, those of batch sessions are cut anywhere.  Windows of other layers and
 * exclusive work get every second batch while decodes wait.
 *
 * Guesses.  The last positions of a decode may be guesses (worker_work.spare).  Whoever is alone
 * runs them all.  Else they have what nobody misses: room that no window waits for, and time that
 * makes the forward longer by a sixteenth at most, in equal parts; the rest of them is left out.
 *
 * Fairness.  Start-time fair queueing (Goyal et al. 1996) over sessions with the weight of their
 * class: each session has a virtual time, one for its decodes and one for its prefill, that grows
 * by tokens / weight as it is served, and the smallest goes first; a session that comes back from
 * idleness starts at the current minimum.
 *
 * Batch sessions run in forwards of their own, and have their weight's share of the compute time
 * as long as realtime or normal windows want the rest, all of it otherwise: nobody starves.  Such
 * a forward is run in slices of layers, half as long as what a decode of the other classes takes
 * by itself, and between two slices waiting windows of those go first.  So what a normal
 * decode waits for batch sessions is one slice, whatever these ask for; and a cut between layers
 * cannot be seen in any result.
 *
 * Places.  sessions_max slots.  A reservation keeps slots for a subject: others may borrow
 * them, and a borrower (the youngest of the lowest class first) is ended with UNAVAILABLE when the
 * owner comes.  Detached sessions older than detached_keep_ms make room before anybody is
 * refused; younger ones only for a subject that has fewer sessions, at the cost of the one that
 * has most.  As long as a place is free, a detached session is kept for its lease.  A refusal
 * tells when to come again.
 *
 * Everything is bounded by worker_limits; nothing a client does makes the table grow past it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_TABLE_H
#define WORKER_TABLE_H

#include "guard/token.h"
#include "wire/frame.h"
#include "wire/status.h"

struct worker_table;
struct worker_session;

enum {
    WORKER_SESSIONS_MAX = 1024,
    WORKER_RESERVATIONS_MAX = 64,
    WORKER_WINDOWS_MAX = 256, /* ceiling of worker_limits.windows_max */
    /* WANT_LOGITS in one Forward: a verify window has some tens; 256 rows of a vocabulary of
     * 152,064 are 156 MB.  Guesses do not make a batch want more. */
    WORKER_LOGITS_ROWS_MAX = 256,
};

struct worker_reservation {
    char     subject[GUARD_SUBJECT_BYTES];
    uint32_t sessions;
};

struct worker_limits {
    uint32_t sessions_max;     /* slots: the engine's sequences */
    uint32_t subject_sessions; /* most sessions of one subject; 0 = no limit of its own */
    uint32_t ctx_tokens;       /* positions a slot holds */
    uint32_t first, last;      /* layers held */
    uint32_t batch_tokens;     /* most positions in one forward, and in one window */
    uint32_t chunk_tokens;     /* prefill positions a forward while decodes wait; >= 64 */
    uint32_t decode_tokens;    /* a window of at most so many positions is a decode */
    bool     even;             /* windows of fewer than 64 positions may be cut (even_windows) */
    uint32_t windows_max;      /* queued windows of one session */
    uint64_t queue_bytes_max;  /* queued payload of one session */
    uint64_t queue_bytes_all;  /* and of all */
    double   lease_ms;         /* how long a detached session is kept */
    double   detached_keep_ms; /* how long it is safe from making room for another */
    double   idle_ms;          /* an attached session without a window is ended; 0 = never */
    uint32_t weight[3];        /* of enum wire_qos: normal, realtime, batch; 1 to 1000 */
    struct worker_reservation reservations[WORKER_RESERVATIONS_MAX];
    uint32_t                  reservation_count;
};

/* normal 4, realtime 16, batch 1; lease 30 s, kept 5 s; chunk 256, decode 16; 64 windows,
 * 64 MiB a session, 1 GiB in all.  Sessions, context, layers and batch_tokens are the engine's:
 * left 0, to be filled in. */
struct worker_limits worker_limits_default(void);

int worker_table_new(struct worker_table **out, const struct worker_limits *limits, mcp_error *err);
void worker_table_free(struct worker_table *t);

/* ---- sessions ------------------------------------------------------------------------- */

struct worker_session_info {
    uint8_t                   id[WIRE_SESSION_BYTES];
    const struct guard_grant *grant;
    uint32_t                  first, last, ctx_tokens;
    enum wire_qos             qos;
    uint32_t                  slot;   /* UINT32_MAX while its former user is still in a batch */
    uint32_t                  length; /* positions run, of whole windows */
    uint32_t                  queued_pos;
    uint32_t                  epoch;
    uint32_t                  queued_windows; /* not given back yet: waiting or running */
    void                     *stream;         /* NULL = detached */
};

/* Open, or resume when asked and possible (info->length tells).  `stream` is the caller's
 * mark for where its answers go, not NULL; a session that is attached elsewhere is taken over when
 * the same subject resumes it (the old stream gets WORKER_ACT_END with CANCELLED).  What still
 * waits or runs of a resumed session is void, and a window that had begun is taken back: the new
 * stream goes on at info->length, in the session's epoch.
 *   MCP_EBUSY    no place; *retry_after_ms says when to try again
 *   MCP_EDENIED  the grant lacks the layers or the class, or the id is another subject's.  Ids are
 *                128 random bits: whoever names a foreign one has it from its owner, and learns
 *                no more than that it is not to be had
 *   MCP_ERANGE   layers not held, context larger than a slot
 *   MCP_EINVAL   the id is in use and resume was not asked, or for other layers
 *   MCP_EUNAVAIL draining */
int worker_table_open(struct worker_table *t, double now_ms, const struct wire_open *open,
                      const struct guard_grant *grant, void *stream, struct worker_session **out,
                      uint32_t *retry_after_ms, mcp_error *err);

const struct worker_session_info *worker_session_info(const struct worker_session *s);

/* The stream is gone: the session stays for its lease.  Its queued windows still run. */
void worker_table_detach(struct worker_table *t, double now_ms, struct worker_session *s);

/* End at once: Close, or a protocol error.  Queued work is given back as WORKER_ACT_DROP.  The
 * slot is free once it is in no running batch. */
void worker_table_close(struct worker_table *t, double now_ms, struct worker_session *s);

/* ---- windows -------------------------------------------------------------------------- */

/* What the caller queues; owned by it, returned exactly once: in a batch item with `last` set,
 * or by WORKER_ACT_DROP. */
struct worker_work {
    uint64_t number;
    uint32_t epoch;
    uint32_t pos, count;  /* for exclusive work: 0, 0 */
    uint32_t spare;       /* of count, less than it: guesses at the end, which the table may leave
                             out, taking them off both, when no window waits behind */
    bool     logits;      /* wants rows of logits: runs only with its like */
    bool     exclusive;   /* export or import: alone with its session, in order */
    uint64_t bytes;       /* of payload held */
    double   deadline_ms; /* absolute; 0 = none: past it the work is dropped (DEADLINE) unless
                             it runs, and what waits behind it as well: it continues nothing */
    void    *data;        /* the caller's */
    /* the table's */
    double              came_ms;
    uint32_t            done;   /* positions already run */
    uint32_t            unkept; /* and not to be kept */
    bool                expired;
    void               *stream; /* of its session when it was dropped */
    struct worker_work *next;
};

/* Queue.  MCP_ERANGE: does not continue the session, or past its context; MCP_EBUSY: a bound
 * of the queue (a client that respects Opened never meets it); MCP_EINVAL: epoch from the
 * future, or empty.  A window of an older epoch is dropped at once (WORKER_ACT_DROP), which is
 * no failure. */
int worker_table_push(struct worker_table *t, double now_ms, struct worker_session *s,
                      struct worker_work *work, mcp_error *err);

/* Trim to `pos` in a new epoch: queued windows of older epochs are dropped.  A piecewise window
 * that has begun is dropped as well: what it wrote lies behind pos and is trimmed with it.
 *   MCP_EINVAL  the epoch is not larger than the session's; MCP_ERANGE  pos beyond the length
 *   once the windows in the running batch count */
int worker_table_trim(struct worker_table *t, double now_ms, struct worker_session *s,
                      uint32_t epoch, uint32_t pos, mcp_error *err);

/* An import has run: the slot holds so many positions now.  To be called before
 * worker_table_done() of its batch.  Windows that wait behind it and do not go on there are
 * dropped. */
void worker_table_set_length(struct worker_table *t, struct worker_session *s, uint32_t length);

/* ---- batches -------------------------------------------------------------------------- */

struct worker_item {
    struct worker_session *session;
    struct worker_work    *work;
    uint32_t               slot;
    uint32_t               pos;    /* of this piece */
    uint32_t               offset; /* into the work's positions */
    uint32_t               count;
    bool                   last;    /* this piece completes the work */
    uint32_t               trim_to; /* trim the slot to this first; UINT32_MAX = no */
};

struct worker_batch {
    uint32_t            first, last;             /* layers */
    uint32_t            slice_first, slice_last; /* those to run before worker_table_sliced() */
    bool                back;                    /* of batch sessions */
    bool                logits;
    bool                exclusive;
    uint32_t            tokens;
    uint32_t            count;
    struct worker_item *items; /* (sessions_max); the table's, until done */
    /* Slots whose former session is gone: to be cleared (trim to 0) before anything runs. */
    uint32_t  clear_count;
    uint32_t *clears;
};

/* The next batch, or false when nothing can run now; none runs.  When false,
 * *wake_ms (absolute, 0 = only by an event) tells when a throttled window may run or a
 * deadline or lease ends.
 *
 * A subject may use its grant's tokens_per_minute in all its sessions together, ten seconds' worth
 * at once; what is beyond waits. */
bool worker_table_next(struct worker_table *t, double now_ms, struct worker_batch *batch,
                       double *wake_ms);

/* A batch that is to run in slices (slice_last < last): layers [slice_first, slice_last) have run
 * in `compute_ms`, and it is paused.  Ask worker_table_urgent() now: while that is true, another
 * batch has to run first, with worker_table_done() of its own, and then ask again; when it is
 * false, [slice_first, slice_last) says how the paused one goes on.  Who has no use for slices
 * runs the batch whole and never calls these. */
void worker_table_sliced(struct worker_table *t, double now_ms, struct worker_batch *batch,
                         double compute_ms);
bool worker_table_urgent(struct worker_table *t, double now_ms, struct worker_batch *paused,
                         struct worker_batch *urgent);

/* The batch has run, `compute_ms` long since its last slice.  Sessions of items that failed are to
 * be closed before the next batch: their slots do not hold what the table believes.  Items whose
 * session was closed, trimmed or resumed meanwhile have `work` given back all the same (the caller
 * sees it in the batch): ask worker_item_void(), before worker_table_done(), whether its result is
 * still wanted.  `batch` and closed sessions in it are invalid afterwards. */
bool worker_item_void(const struct worker_table *t, const struct worker_item *item);
void worker_table_done(struct worker_table *t, double now_ms, struct worker_batch *batch,
                       double compute_ms);

/* Only the first `count` positions, at least one, of the window that `item` completes are to be
 * kept, since the others were wrong guesses; the session goes on behind them in its epoch, and
 * windows that waited there are dropped.  Nothing happens when the item is void.  To be called directly
 * before worker_table_done() of its batch. */
void worker_table_keep(struct worker_table *t, const struct worker_item *item, uint32_t count);

/* ---- what the caller has to do -------------------------------------------------------- */

enum worker_act_kind {
    WORKER_ACT_END,  /* finish `stream` with `status`; the session is gone (stream may be NULL),
                        or with CANCELLED has moved to another stream */
    WORKER_ACT_DROP, /* `work` will not run: free it.  expired: its deadline passed, tell the
                        client; else it is void and never answered */
};

struct worker_act {
    enum worker_act_kind kind;
    void                *stream;
    struct wire_status   status;
    struct worker_work  *work;
    bool                 expired;
};

/* Pop one; false when there is none.  Look after every call above. */
bool worker_table_act(struct worker_table *t, struct worker_act *act);

/* Leases, idleness, deadlines, reservations: call at least every 100 ms. */
void worker_table_tick(struct worker_table *t, double now_ms);

/* No new sessions from now on (MCP_EUNAVAIL). */
void worker_table_drain(struct worker_table *t);

struct worker_table_stats {
    uint32_t sessions, sessions_free, detached, queued_windows;
    uint64_t queued_tokens, queued_bytes;
    uint64_t opened, resumed, refused_full, refused_denied, expired_leases, evicted;
    uint64_t batches, batch_tokens, windows_run, windows_dropped, deadlines_missed;
    double   tokens_per_second; /* of the last seconds */
    double   compute_ms;        /* in all */
    double   queue_wait_ms[3];  /* longest wait of a window that waits now, by class */
};
void worker_table_get_stats(const struct worker_table *t, struct worker_table_stats *stats);

/* When a refused client should come again: the estimate behind retry_after_ms. */
uint32_t worker_table_retry_ms(const struct worker_table *t, double now_ms);

#endif
