/* agent/session.h - one conversation: its tokens, its pipeline, its answers.
 *
 * session.c opens and closes it, layout.c says what runs where and steer.c when that changes;
 * answer.c makes text, ahead.c with guesses of what comes next;
 * drive.c does what the pipeline asks for, here and on workers; cloud.c is the mode in which a
 * worker does everything.  One thread at a time.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_SESSION_H
#define AGENT_SESSION_H

#include "agent/endpoint.h"
#include "engine/engine.h"
#include "pipe/codec_choice.h"
#include "pipe/pipeline.h"

#include <mcp/generate.h>
#include <stdatomic.h>

struct ahead;
struct steer;

enum {
    SESSION_WINDOWS_REMOTE = 32, /* in flight where workers take part */
    SESSION_NARROW_TOKENS = 63,  /* windows of at most so many give the same bits */
};

/* What runs a stage, or did: the pipeline knows it by its number. */
struct session_endpoint {
    struct session_endpoint *next;
    uint32_t                 number;
    uint32_t                 stage;
    struct mcp_engine       *engine;   /* here, or */
    struct agent_endpoint   *remote;   /* on a worker */
    bool                     resuming; /* the pipeline waits for its Opened */
};

struct session_stage {
    uint32_t           first, last;
    bool               remote;                     /* belongs on a worker */
    struct mcp_engine *engine;                     /* borrowed; the fallback is session's */
    uint8_t            id[WIRE_SESSION_BYTES];     /* of its session on a worker, the last one */
    uint8_t            weights[WIRE_DIGEST_BYTES]; /* unless mixed */
    uint32_t           codec;                      /* of the rows that enter it */
    int                worker;                     /* where it runs or ran last; -1 */
    bool               waiting;                    /* an endpoint is asked for, none found yet */
    double             waiting_ms;                 /* since when */
    double             waited_ms;                  /* before that, since work last came through */
    uint32_t           replaces;                   /* PIPE_ACT_OPEN's `lost` */
    bool               lost_answers;
};

/* A local forward or trim that waits for its turn. */
struct session_job {
    struct session_job      *next;
    struct session_endpoint *endpoint;
    struct pipe_act          act;
    int32_t                  tokens[]; /* of act */
};

/* What a session remembers of a worker. */
struct session_worker {
    double   blocked_ms; /* not before; INFINITY = never */
    uint32_t losses;     /* since work last came through the pipeline */
    bool     exhausted;  /* it has said so; for whoever plans to ask less of it */
};

/* A window of more than SESSION_NARROW_TOKENS positions. */
struct session_wide {
    uint32_t first, count;
};

/* The codec of a window on its way. */
struct session_codec {
    uint32_t pos, id;
};

/* A window of drive_send() that is out and waits to be looked at. */
struct session_output {
    bool               ready;
    uint32_t           end;  /* positions with it */
    struct pipe_block *rows; /* (its positions, n_vocab) floats; NULL: one row, in `logits` */
};

/* tokens[0, count) have been computed by every stage. */
struct mcp_session {
    const struct mcp_model  *model;
    struct mcp_engine       *engine;          /* the first one here; NULL when there is none */
    pthread_mutex_t          engine_lock;     /* guards the pointer for session_cancel() */
    struct mcp_engine       *fallback_engine; /* owned; opened when needed */
    mcp_engine_opts          fallback;        /* valid when can_fall_back */
    bool                     can_fall_back;
    char                    *fallback_device; /* owned: fallback.device */
    struct mcp_remote       *remote;          /* borrowed; NULL when all is here */
    bool                     cloud;
    bool                     mixed;
    enum wire_qos            qos;
    mcp_spec                 spec; /* asked of the worker in cloud mode, */
    uint32_t                 spec_depth;
    uint64_t                 cloud_guessed, cloud_seen, cloud_right; /* and what came of it */
    uint32_t                 wrap;
    const struct wire_codec *codec;      /* of hidden states that leave */
    bool                     codec_auto; /* another one will do */
    const char              *codec_name; /* of the most windows; "" when nothing leaves */
    struct codec_choice      choice;     /* agent/codecs.c, with codec_auto; no options at first */
    uint32_t                 choice_ids; /* bit i: codec i could be chosen from */
    struct codec_path        choice_path;
    double                   choice_ms;                       /* when links were looked at */
    struct session_codec     window_codecs[PIPE_WINDOWS_MAX]; /* entry n at n mod MAX */
    uint64_t                 window_codec_count;              /* ever */
    uint64_t                 codec_windows[WIRE_CODECS];
    double     codec_pct[WIRE_CODECS]; /* agent_quality(), doubt included; 0: as a table says */
    double     failover_ms;
    double     answer_ms;
    atomic_int cancel;

    struct session_stage *stages; /* (stage_count) */
    uint32_t              stage_count;
    uint32_t              seq;
    uint32_t              ctx_tokens;
    uint32_t              chunk_tokens;  /* of a prefill window */
    uint32_t              window_tokens; /* of any window; at least that */
    struct steer         *steer;         /* NULL: its layout is for good */

    struct pipeline         *pipeline; /* NULL in cloud mode */
    struct session_endpoint *endpoints;
    uint32_t                 endpoint_next; /* number of the next one */
    struct session_job      *jobs, **jobs_last;
    struct mail             *mail;
    struct remote_listener   listener;
    struct session_worker    workers[MCP_WORKERS_MAX];
    bool                     unsettled;     /* a worker has losses, or a stage has waited */
    bool                     failed;        /* the pipeline has: see PIPE_ACT_FAILED */
    mcp_error                last_loss;     /* why a stage was lost last */
    uint64_t                 output_number; /* highest window that has left the last stage */
    uint32_t              window_end[PIPE_WINDOWS_MAX]; /* positions after window n, at n mod MAX */
    bool                  guessing; /* windows may hold guesses: see drive_send() */
    struct session_output output;
    struct ahead         *ahead; /* NULL: answers without guesses */

    float   *scratch[2]; /* (window_tokens, n_embd): decoded in, to encode out; may be NULL */
    float   *row;        /* (n_embd or n_vocab): to look at what workers sent; may be NULL */
    int32_t *tokens;     /* (ctx_tokens) */
    uint32_t count;
    /* Wide windows among them, ascending: layout_note(). */
    struct session_wide *wide; /* (ctx_tokens / (SESSION_NARROW_TOKENS + 1)) */
    uint32_t             wide_count;
    bool                 replaying;
    float               *logits; /* (n_vocab) */

    mcp_session_stats before;              /* what earlier layouts have counted */
    uint64_t          bytes_out, bytes_in; /* of endpoints that are closed */
    uint64_t          windows;
    uint32_t          cloud_failovers;
    uint32_t          cloud_epoch; /* of the session on the worker, in cloud mode */
    double            stall_ms_max;
};

int  session_open(struct mcp_session **out, struct mcp_engine *engine, const mcp_session_opts *opts,
                  mcp_error *err);
void session_close(struct mcp_session *session);
int  session_generate(struct mcp_session *s, const int32_t *tokens, uint32_t count,
                      const mcp_generate_opts *opts, mcp_token_fn fn, void *ctx,
                      mcp_generate_result *result, mcp_error *err);
void session_stats(const struct mcp_session *s, mcp_session_stats *stats);

/* As mcp_session_cancel(): any thread. */
void session_cancel(struct mcp_session *s);

/* True once after mcp_session_cancel() or mcp_engine_cancel(). */
bool session_cancelled(struct mcp_session *s);

/* ---- agent/drive.c -------------------------------------------------------------------------------- */

/* Compute `count` tokens after what the session holds, in windows; the last one's logits go to
 * s->logits when wanted.  On failure s->count positions remain everywhere. */
int drive_advance(struct mcp_session *s, const int32_t *tokens, uint32_t count, bool logits,
                  mcp_error *err);
/* Forget positions from `pos` on, also those in flight. */
int drive_trim(struct mcp_session *s, uint32_t pos, mcp_error *err);

/* The same step by step, for windows that hold guesses: s->guessing is set.  Each comes out at
 * s->output, which stops everything until it is taken from there with drive_taken(); the taker
 * decides which of its positions count, and raises s->count.
 *
 * Send a window of at most window_tokens on after what is in flight. */
int drive_send(struct mcp_session *s, const int32_t *tokens, uint32_t count, mcp_error *err);
/* One round: do what there is to do, or wait a little. */
int  drive_turn(struct mcp_session *s, mcp_error *err);
void drive_taken(struct mcp_session *s);
/* No more of these.  After a failure (rc < 0) everything stands at s->count. */
void drive_end(struct mcp_session *s, int rc);

/* A worker that may run the stage now, or -1. */
int drive_choose(struct mcp_session *s, const struct session_stage *stage, double now_ms);
/* A worker has ended its session: how long it is left alone.  A first loss without a reason of
 * its own costs nothing; more of them without any work done in between cost more and more. */
void drive_block(struct mcp_session *s, uint32_t worker, const struct wire_status *why,
                 double now_ms);
/* Waiting for a worker, from now on; how long in all since work last came through. */
void   drive_wait(struct session_stage *stage, double now_ms);
double drive_waited(const struct session_stage *stage, double now_ms);
/* Work has come through: what was lost before counts no more. */
void drive_progress(struct mcp_session *s);
/* Open a stream for `stage` on a worker, which ends the stage's waiting. */
int  drive_open_remote(struct mcp_session *s, uint32_t stage, uint32_t worker, bool resume,
                       struct session_endpoint **out, mcp_error *err);
void drive_close_endpoint(struct mcp_session *s, struct session_endpoint *e);
/* Let go of all endpoints and jobs. */
void drive_close(struct mcp_session *s);

/* ---- agent/cloud.c -------------------------------------------------------------------------------- */

/* One token of an answer; returns non-zero to stop, negative on failure. */
typedef int (*cloud_token_fn)(int32_t token, enum wire_stop stop, void *ctx);

/* Bring the worker to `tokens`, of which the last `made` are the answer's, and let it go on by
 * itself.  What fn returns ends it: negative fails, ANSWER_MOVES is returned, else 0 is. */
int cloud_generate(struct mcp_session *s, const int32_t *tokens, uint32_t count, uint32_t made,
                   const mcp_generate_opts *opts, uint32_t seed, uint32_t *cached,
                   cloud_token_fn fn, void *ctx, mcp_error *err);

#endif
