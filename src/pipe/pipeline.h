/* pipe/pipeline.h - the ordered stages of a session: windows through them, and what happens
 * when one of them dies.
 *
 * A pure state machine: no engine, socket, thread or clock in it.  Its owner (agent/session.c;
 * tests/sim) tells it what happened and does what it asks:
 *
 *     submit, trim                  FORWARD, TRIM, OPEN, CLOSE to endpoints
 *     opened, result, lost,   ──▶   pipeline   ──▶
 *     draining, unavailable         OUTPUT, FAILED to the generator
 *
 * Endpoints.  A stage is a layer range; what runs it at the moment is an endpoint: the local
 * engine, a session on a worker, the tests' fake.  The pipeline knows endpoints by number only
 * and treats them alike.
 *
 * Windows.  A window enters stage 0 as tokens and leaves each stage as a block of rows which
 * enters the next; several are in flight.  Numbers rise and are never reused, so an answer from
 * a dead endpoint is recognised and ignored.
 *
 * Journal.  Each stage that could be lost keeps what entered it, window by window, from position
 * 0 on:
 *
 *      0                 answered                     sent
 *      ├──────────────────────┼─────────────────────────┤
 *        replayed for their KV   sent again as they were,
 *        (want NONE, joined       answers still wanted
 *        where that is exact)
 *
 * A lost stage asks for another endpoint (OPEN).  When that is there with `length` positions (0:
 * new; more: the same session resumed), the journal from there on is fed to it, then work
 * goes on.  Windows are replayed as they were first sent; neighbours of at most
 * PIPE_JOIN_TOKENS positions in all are joined where the endpoint says that such windows give
 * the same bits (even_windows), or while all columns lie below PIPE_JOIN_COLUMNS
 * (docs/architecture.md, "Window sizes and bits"); of those that a trim has cut only what counts
 * is run then.  So the continuation equals the undisturbed one bit for bit as far as the
 * endpoints' arithmetic is the same.
 *
 * Drain.  An endpoint that is draining still answers.  Its successor is opened and fed the
 * journal beside it, and takes over between two windows: no gap but that.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PIPE_PIPELINE_H
#define PIPE_PIPELINE_H

#include "pipe/block.h"

#include <stdbool.h>

enum {
    PIPE_STAGES_MAX = 256,
    PIPE_WINDOWS_MAX = 64,   /* in flight from submit to OUTPUT */
    PIPE_JOIN_TOKENS = 63,   /* largest window of the row-by-row attention class */
    PIPE_JOIN_COLUMNS = 512, /* columns (positions padded to 256) at which a one-token window
                                 leaves that class */
    PIPE_DECODE_TOKENS = 16, /* a window of more positions is bulk */
    PIPE_NO_ENDPOINT = 0,    /* endpoint numbers are the owner's, from 1 on, each used once */
};

struct pipeline;

struct pipeline_stage {
    uint32_t first, last;
    bool     journal; /* can be lost: keep what enters it */
};

struct pipeline_opts {
    const struct pipeline_stage *stages; /* copied; stage i ends where i + 1 begins */
    uint32_t                     count;
    uint32_t                     windows_max; /* in flight; 1 to PIPE_WINDOWS_MAX */
};

int  pipeline_new(struct pipeline **out, const struct pipeline_opts *opts, mcp_error *err);
void pipeline_free(struct pipeline *p);

/* ---- told by the owner ----------------------------------------------------------------- */

/* Every stage begins without endpoint and asks for one by PIPE_ACT_OPEN. */
struct pipe_opened {
    uint32_t length;      /* positions it holds of this session */
    uint32_t epoch;       /* its epoch; frames must carry a later one after the first trim */
    uint32_t windows_max; /* unanswered Forwards that it takes */
    bool     even_windows;
};

void pipeline_opened(struct pipeline *p, double now_ms, uint32_t stage, uint32_t endpoint,
                     const struct pipe_opened *opened);

/* No endpoint can be had for this stage: the pipeline fails, unless the current one still
 * answers (it was only draining). */
void pipeline_unavailable(struct pipeline *p, double now_ms, uint32_t stage, const mcp_error *why);

/* An answer to the FORWARD of this number; `rows` is borrowed (NULL when none were wanted).
 * Unknown endpoint or number: an answer that nobody waits for any more, ignored.  Answers out of
 * order or with another number of rows: the endpoint is given up (CLOSE) and replaced. */
struct pipe_timing {
    uint32_t queue_us, compute_us;
};
void pipeline_result(struct pipeline *p, double now_ms, uint32_t endpoint, uint64_t number,
                     struct pipe_block *rows, struct pipe_timing timing);

/* The endpoint is gone; it will not be asked anything again. */
void pipeline_lost(struct pipeline *p, double now_ms, uint32_t endpoint, const mcp_error *why);
void pipeline_draining(struct pipeline *p, double now_ms, uint32_t endpoint);

/* Push tokens through all stages.  want: rows of logits at the end.  MCP_EBUSY: windows_max are
 * in flight, come again after the next OUTPUT.  MCP_ERANGE, MCP_ENOMEM; after a failure, its
 * error.  Nothing changed then. */
enum pipe_want { PIPE_WANT_NONE, PIPE_WANT_LAST, PIPE_WANT_ALL };
int pipeline_submit(struct pipeline *p, double now_ms, const int32_t *tokens, uint32_t count,
                    enum pipe_want want, uint64_t *number, mcp_error *err);

/* Forget positions >= pos in all stages: windows beyond it that are in flight are void (no
 * OUTPUT); the one that spans it still comes out, and stays whole in the journal, with a trim
 * after it.  Allowed at any time, also with windows in flight and after a failure.  MCP_ERANGE. */
int pipeline_trim(struct pipeline *p, double now_ms, uint32_t pos, mcp_error *err);

/* Positions submitted and not trimmed. */
uint32_t pipeline_length(const struct pipeline *p);
uint32_t pipeline_in_flight(const struct pipeline *p);

/* ---- asked of the owner ------------------------------------------------------------------ */

enum pipe_act_kind {
    PIPE_ACT_OPEN,    /* find an endpoint for `stage`: answer with opened or unavailable.  `lost`
                         is the endpoint to replace (its session may be resumed), or NO_ENDPOINT */
    PIPE_ACT_FORWARD, /* run a window on `endpoint` */
    PIPE_ACT_TRIM,    /* trim `endpoint` to pos, in `epoch`.  What is wanted of the windows sent to
                         it before has been answered: no answer is awaited from it any more */
    PIPE_ACT_CLOSE,   /* `endpoint` is no longer needed.  error.code < 0: it broke the contract, do
                         not take it again */
    PIPE_ACT_OUTPUT,  /* window `number` has left the last stage */
    PIPE_ACT_FAILED,  /* the pipeline cannot go on; `error` says why.  Only trim and free now;
                         after a trim to 0 it begins afresh */
};

struct pipe_act {
    enum pipe_act_kind kind;
    uint32_t           stage, endpoint;
    uint32_t           lost;
    bool               lost_answers; /* OPEN: the stage still has one that answers (drain) */
    uint64_t           number;       /* FORWARD: of this sending, rising; OUTPUT: as submit said */
    uint32_t           epoch, pos, count;
    const int32_t     *tokens; /* FORWARD of stage 0: (count), valid until the next call */
    struct pipe_block *block;  /* FORWARD of others: its input; OUTPUT: rows or NULL.  The
                                  receiver's: unref it */
    enum pipe_want     want;   /* FORWARD: rows wanted back (hidden states ALL or NONE; of the last
                                  stage, logits) */
    bool               bulk;   /* FORWARD: prefill or replay, may be paced */
    mcp_error          error;
};

/* The next thing to do, or false.  Ask after every call above, until false. */
bool pipeline_act(struct pipeline *p, double now_ms, struct pipe_act *act);

struct pipeline_stage_stats {
    uint64_t windows, positions;
    double   elapsed_ms, queue_ms, compute_ms; /* summed: sent to answered; as the endpoint says */
    uint64_t failovers, handovers;             /* endpoints replaced after a loss, after a drain */
    uint64_t replayed_positions;
    double   outage_ms_max; /* longest time from a loss to the first answer wanted after it */
};
void pipeline_get_stats(const struct pipeline *p, uint32_t stage,
                        struct pipeline_stage_stats *stats);

#endif
