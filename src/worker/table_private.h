/* worker/table_private.h - what the files of the session table share.
 *
 *     table.c    limits, memory, acts, the tick, figures
 *     places.c   subjects (rate, reservations), slots, who makes room for whom
 *     session.c  open, resume, detach, end
 *     queue.c    the windows of one session: push, trim, deadlines
 *     batch.c    which windows run next: the survey, and filling a batch
 *     spare.c    what guesses may have of a batch
 *     turn.c     whose turn it is: compute time shared between the lanes, who leads a batch
 *
 * All memory is taken in worker_table_new(): nothing else here can fail for want of it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_TABLE_PRIVATE_H
#define WORKER_TABLE_PRIVATE_H

#include "worker/cost.h"
#include "worker/table.h"

/* No slot; no trim. */
#define TABLE_NONE UINT32_MAX

enum {
    TABLE_CLASSES = 3, /* of enum wire_qos */
    /* Subjects remembered beyond those with sessions or a reservation: a subject that leaves and
     * comes back finds its debt of tokens again, unless so many others came in between. */
    TABLE_SUBJECTS_SPARE = 256,
    TABLE_RETRY_MS_MIN = 100, /* sooner would be polling */
    TABLE_RETRY_MS_MAX = 30000,
    /* Pieces are multiples of this, and none is shorter: see table.h. */
    TABLE_PIECE_TOKENS = 64,
    /* Of a longer window a piece can always be run; shorter ones run whole. */
    TABLE_UNCUT_TOKENS_MAX = 2 * TABLE_PIECE_TOKENS - 1,
    /* What an export or import costs in virtual time. */
    TABLE_TURN_TOKENS = TABLE_PIECE_TOKENS,
};

/* Batch sessions do not compete with the others for room in a forward: they have forwards of their
 * own, and a share of the time (turn.c). */
enum table_lane { TABLE_FRONT, TABLE_BACK, TABLE_LANES };

/* Decodes and prefill have separate room in a batch, so each has its own virtual time. */
enum table_flow { TABLE_DECODE, TABLE_PREFILL, TABLE_FLOWS };

/* Everything that outlives a session: what a subject has used, and what is kept for it.  One
 * that has no session and no reservation may be replaced. */
struct table_subject {
    char     name[GUARD_SUBJECT_BYTES]; /* "" = unused row */
    uint32_t sessions;
    uint32_t reserved;
    uint32_t tokens_per_minute; /* of the grant that came last */
    double   tokens;            /* in the bucket; below zero is debt */
    double   filled_ms;         /* when `tokens` was true */
    double   left_ms;           /* when its last session ended */
    /* Where its sessions ended in virtual time: one that is closed and opened again does not
     * begin younger than it was. */
    double tag[TABLE_LANES][TABLE_FLOWS];
};

/* One session.  Its windows:
 *
 *     running ─▶ head ─▶ ... ─▶ tail
 *
 * `running` is in the running batch and in no list; between two pieces of it a window is the
 * head again, with done > 0.  `length` counts whole windows, `held` every position that the
 * engine's slot has once the running batch is done.  held > length means a window has begun, or
 * a trim to `trim_to` is still to be passed on with the next item.  While none of them runs:
 *
 *     length == the head's pos, held == its pos + done     when the head has begun
 *     length == min(held, trim_to)                         else */
struct worker_session {
    struct worker_session_info info;
    struct table_subject      *subject;
    struct worker_work        *head, *tail;
    struct worker_work        *running;
    bool                       running_last; /* this piece completes it */
    bool                       running_void; /* trimmed, resumed or closed since */
    bool                       closed;       /* only the running batch still refers to it */
    bool                       touched;      /* something has run in its slot */
    bool                       runnable;     /* batch.c: its head may run now */
    bool               left_out; /* turn.c: first of its queue, yet not in its lane's batch */
    uint32_t           held;
    uint32_t           trim_to;
    uint32_t           live_index, ready_index; /* ready: TABLE_NONE without a window */
    uint64_t           queued_bytes;
    uint64_t           order; /* of opening */
    double             tag[TABLE_FLOWS];
    double             deadline_ms; /* earliest of its waiting windows; 0 = none */
    double             opened_ms, detached_ms, active_ms;
    double             decoded_ms;  /* end of its last decode */
    double             expected_ms; /* until then its next one is expected */
    struct guard_grant grant;
};

/* Why the table ended a stream; the sentences are in table.c. */
enum table_why {
    TABLE_TAKEN_OVER,
    TABLE_LEASE_OVER,
    TABLE_IDLE,
    TABLE_MADE_ROOM,
    TABLE_CALLED_BACK,
};

struct table_end {
    void          *stream;
    enum table_why why;
};

struct worker_table {
    struct worker_limits limits;
    double               now_ms; /* the latest that was told */
    bool                 draining;
    uint64_t             order;

    /* At most sessions_max live, and as many closed ones that the running batch still holds. */
    struct worker_session  *pool;   /* (2 * sessions_max) */
    struct worker_session **unused; /* (2 * sessions_max), a stack */
    uint32_t                unused_count;
    struct worker_session **live; /* (sessions_max), in no order */
    uint32_t                live_count;
    struct worker_session **ready; /* (sessions_max): live ones with a waiting window */
    uint32_t                ready_count;
    bool                   *slot_used;  /* (sessions_max) */
    bool                   *slot_dirty; /* (sessions_max): to be cleared before the next batch */
    uint32_t                dirty_count;
    struct table_subject   *subjects;
    uint32_t                subjects_max;

    /* Acts to be taken: ends in a ring, dropped works in a list through `next`. */
    struct table_end   *ends;
    uint32_t            ends_max, ends_first, ends_count;
    struct worker_work *dropped, *dropped_tail;

    /* batch.c */
    struct table_candidate *candidates;           /* (sessions_max), a heap while a batch is made */
    struct worker_item     *items[TABLE_LANES];   /* (sessions_max) */
    uint32_t               *clears[TABLE_LANES];  /* (sessions_max) */
    bool                    running[TABLE_LANES]; /* both: the back one is paused */
    double                  clock[TABLE_LANES][TABLE_FLOWS]; /* virtual time now */
    double                  expected_ms[TABLE_CLASSES];      /* until then a decode is expected */

    /* turn.c */
    struct worker_cost cost;
    double             head_layers; /* as many layers take as long as the head of a logits batch */
    double             layer_ms;    /* of the back lane's batch, as seen; 0 = not yet */
    bool               decode_owed[TABLE_LANES]; /* the last forward passed a waiting decode by */
    bool               back_ran;     /* the last forward was of the back lane, or a slice of it */
    bool               contended;    /* and the front lane had something to run */
    uint32_t           riders;       /* positions of batch sessions in the front lane's batch */
    double             back_due_ms;  /* compute time that the back lane is behind its share */
    double             back_portion; /* its time for each ms of the front lane's */
    double             front_ms;     /* of a front forward with decodes, on average; 0 = unknown */

    struct worker_table_stats stats; /* counters; what can be counted is filled in when asked */
    double                    speed, speed_ms;
    double                    life_ms; /* of a session, on average; 0 = none has ended */
};

/* What waits, seen once before a batch is made. */
struct table_survey {
    struct worker_session *first[TABLE_LANES][TABLE_FLOWS]; /* by virtual time; NULL = none */
    bool                   about[TABLE_CLASSES]; /* has a window, or a decode is expected */
    bool                   front;                /* realtime or normal is about */
    bool                   decode_near;          /* a decode waits or is expected */
    bool                   any;                  /* something can run */
    double                 wake_ms;              /* when a throttled session may run; 0 = none */
};

static inline void table_note_time(struct worker_table *t, double now_ms)
{
    if (now_ms > t->now_ms)
        t->now_ms = now_ms;
}

static inline enum table_lane table_lane_of(const struct worker_session *s)
{
    return s->info.qos == WIRE_QOS_BATCH ? TABLE_BACK : TABLE_FRONT;
}

static inline uint32_t table_smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline bool table_is_decode(const struct worker_table *t, const struct worker_work *work)
{
    return !work->exclusive && work->count <= t->limits.decode_tokens;
}

/* Of the session's head. */
static inline enum table_flow table_flow_of(const struct worker_table   *t,
                                            const struct worker_session *s)
{
    return table_is_decode(t, s->head) ? TABLE_DECODE : TABLE_PREFILL;
}

/* Most positions of prefill in the next batch. */
static inline uint32_t table_prefill_room(const struct worker_table *t,
                                          const struct table_survey *survey)
{
    uint32_t room = t->limits.batch_tokens;

    return survey->decode_near ? table_smaller(room, t->limits.chunk_tokens) : room;
}

/* ---- table.c -------------------------------------------------------------------------- */

void table_end_note(struct worker_table *t, void *stream, enum table_why why);

/* When the session ends by itself; 0 = not as things are. */
double table_session_expires_ms(const struct worker_table *t, const struct worker_session *s);

/* So many positions have just been run. */
void table_note_speed(struct worker_table *t, uint32_t tokens);

/* ---- places.c ------------------------------------------------------------------------- */

struct table_subject *table_subject_find(struct worker_table *t, const char *name);

/* The same, made when it is not there; never fails. */
struct table_subject *table_subject_take(struct worker_table *t, const char *name);

/* The grant's rate from now on. */
void table_rate_set(struct table_subject *subject, uint32_t tokens_per_minute, double now_ms);

/* May a window of `s` run now?  Else *when_ms is lowered to when it may. */
bool table_rate_allows(struct worker_session *s, double now_ms, double *when_ms);
void table_rate_charge(struct worker_session *s, uint32_t tokens);
void table_rate_refund(struct worker_session *s, uint32_t tokens);

/* Give `s` the lowest free slot, or none for now. */
void table_slot_take(struct worker_table *t, struct worker_session *s);
/* Its slot is free, and goes to the session that waits longest for one. */
void table_slot_give(struct worker_table *t, struct worker_session *s);

/* See that one more session of `subject` may live, at the cost of another if need be.
 * MCP_EBUSY with *retry_after_ms. */
int table_place_make(struct worker_table *t, double now_ms, const char *subject,
                     uint32_t *retry_after_ms, mcp_error *err);

/* ---- session.c ------------------------------------------------------------------------ */

void table_session_end(struct worker_table *t, double now_ms, struct worker_session *s);
/* What is left of a closed session once no batch refers to it. */
void table_session_release(struct worker_table *t, struct worker_session *s);

/* ---- queue.c -------------------------------------------------------------------------- */

/* Take the head out to run `count` more of its positions; and after it has run. */
struct worker_work *table_queue_issue(struct worker_table *t, struct worker_session *s,
                                      uint32_t count);
void table_queue_return(struct worker_table *t, struct worker_session *s, uint32_t count);

/* Guesses of the head that may be left out; and leave out `count` of them. */
uint32_t table_queue_spare(const struct worker_session *s);
void     table_queue_shorten(struct worker_table *t, struct worker_session *s, uint32_t count);

/* Forget what waits, what runs, and the positions from `pos` on. */
void table_queue_rewind(struct worker_table *t, struct worker_session *s, uint32_t pos);

/* Drop what is past its deadline, and what waits behind it: that continues nothing any more. */
void table_queue_expire(struct worker_table *t, struct worker_session *s, double now_ms);

/* ---- batch.c -------------------------------------------------------------------------- */

bool table_batch_init(struct worker_table *t); /* false without memory */
void table_batch_fini(struct worker_table *t);

/* ---- spare.c -------------------------------------------------------------------------- */

/* Does nobody but `s` want anything, now or before long? */
bool table_spare_alone(const struct worker_table *t, const struct worker_session *s, double now_ms);

/* Positions of guesses, in all, that nobody else misses in a forward which has `needed` positions
 * without them, and room for `room`. */
uint32_t table_spare_room(const struct worker_table *t, uint32_t needed, uint32_t room);

/* ---- turn.c --------------------------------------------------------------------------- */

/* The least that can be run of the session's head. */
uint32_t table_least_of(const struct worker_table *t, const struct worker_session *s);

/* Whose turn it is; survey->any, or the back lane's batch is paused. */
enum table_lane table_turn_lane(struct worker_table *t, const struct table_survey *survey);

/* Who leads the lane's batch; it has something to run. */
struct worker_session *table_turn_leader(const struct worker_table *t,
                                         const struct table_survey *survey, enum table_lane lane);

/* Most positions of a batch of the back lane. */
uint32_t table_turn_back_room(const struct worker_table *t, const struct table_survey *survey);

/* How many positions of batch decodes may ride along with `tokens` of the front lane. */
uint32_t table_turn_riders(const struct worker_table *t, const struct table_survey *survey,
                           uint32_t tokens);

/* How many layers a batch of the back lane runs from slice_first on, before the front lane is
 * asked. */
uint32_t table_turn_slice(const struct worker_table *t, const struct table_survey *survey,
                          const struct worker_batch *batch);

/* After a batch was made, and when the paused one goes on. */
void table_turn_note_batch(struct worker_table *t, const struct table_survey *survey,
                           const struct worker_session *leader);
void table_turn_note_slice(struct worker_table *t, const struct table_survey *survey);

/* A slice of a batch, or the rest of it, has run in `ms`. */
void table_turn_charge_slice(struct worker_table *t, const struct worker_batch *batch, double ms);
void table_turn_charge_rest(struct worker_table *t, const struct worker_batch *batch, double ms);

#endif
