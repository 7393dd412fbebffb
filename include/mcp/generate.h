/* mcp/generate.h - text out of a model: prompt windows, sampling, stop conditions.
 *
 * A session is one conversation's computation: positions 0..n of one sequence, run as one or
 * several stages cut at given layers, here or on workers.  It remembers the tokens it has seen,
 * so a prompt that begins with them costs only its new part.
 *
 *     tokens --> [0, a) here --> [a, b) on a worker --> [b, layers) here --> logits
 *
 * A stage whose worker dies is moved: to another worker, which is fed what the first had been
 * sent, or to this machine.  The text goes on where it was.
 *
 * Threads: one session is used by one thread at a time, the one that uses its engines; only
 * mcp_session_cancel() may be called from any thread and from signal handlers.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MCP_GENERATE_H
#define MCP_GENERATE_H

#include <mcp/engine.h>
#include <mcp/remote.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mcp_session mcp_session;
typedef struct mcp_plan    mcp_plan; /* mcp/plan.h */

enum { MCP_CUTS_MAX = 255, MCP_SPEC_DEPTH_MAX = 62 };

/* Where layers [first, last) of a session run. */
typedef struct {
    uint32_t    first, last;
    mcp_engine *engine; /* here, on an engine that holds them; NULL = on a worker */
} mcp_stage;

typedef enum {
    MCP_QOS_NORMAL = 0,
    MCP_QOS_REALTIME = 1, /* needs a token that grants it */
    MCP_QOS_BATCH = 2,
} mcp_qos;

/* Guesses of the next tokens, computed together with the last one: where a worker is far away, one
 * round trip then brings several tokens.  The answer is the same with and without, also a sampled
 * one of a given seed, as far as windows of several sizes give the same bits
 * (mcp_engine_opts.even_windows; GPUs do not promise it). */
typedef enum {
    MCP_SPEC_AUTO = 0, /* all means where stages run on workers; none where all is here */
    MCP_SPEC_NONE,
    MCP_SPEC_NGRAM, /* out of the prompt and the answer so far */
    MCP_SPEC_DRAFT, /* by a draft model */
} mcp_spec;

/* One of four ways to say what runs where:
 *   cuts on one engine that holds the whole model (the default: no cut);
 *   stages, together the whole model, some of them on workers of `remote`;
 *   cloud = 1: everything on a worker, which samples too and so sees the text;
 *   plan: as it says, and as something better says while an answer runs. */
typedef struct {
    uint32_t         struct_size;
    uint32_t         seq;       /* the sequence of each engine that this session owns */
    const uint32_t  *cuts;      /* ascending, inside the engine's range; copied */
    uint32_t         cut_count; /* 0 = one stage */
    const mcp_stage *stages;    /* copied; at most MCP_CUTS_MAX + 1 */
    uint32_t         stage_count;
    const mcp_model *model;  /* needed when there is no engine to ask */
    mcp_remote      *remote; /* borrowed; for stages without engine, and cloud */
    int              cloud;
    uint32_t         ctx_tokens;   /* positions, where no engine here limits them; 0 = 4096 */
    const char      *codec;        /* of hidden states to and from workers: "auto", "f32", "f16",
                                   "bf16", "q8", "q8r", "q4r" */
    const char      *wrap;         /* lossless around it: "none", "zstd", "snappy" */
    uint32_t         chunk_tokens; /* prefill window; 0 = 64 where workers take part, else the
                                    engine's batch_tokens */
    mcp_qos          qos;
    int              mixed_weights; /* 1 = a worker's weights may be another quantisation */
    /* When no worker is left, load the missing layers from `model` with these options (beside
     * the session's first engine) and go on here; NULL = fail. */
    const mcp_engine_opts *fallback;
    uint32_t               failover_ms_max; /* longest wait for a worker to come back; 0 = 10000 */
    uint32_t answer_ms_max; /* a worker that is there but sends nothing of an answer for so long
                               is given up; 0 = 120000 */
    mcp_spec spec;          /* in cloud mode the worker guesses, from n-grams alone */
    uint32_t spec_depth;    /* guesses in a window, at most MCP_SPEC_DEPTH_MAX; 0 = choose */
    uint32_t spec_windows;  /* windows in flight; 0 = choose, 1 = stop and wait */
    /* For benches: guesses are the answer's true tokens, as an earlier run gave them (borrowed),
     * each made wrong with probability 1 - spec_synth. */
    const int32_t *spec_truth;
    uint32_t       spec_truth_count;
    float          spec_synth;
    /* A smaller model of the same vocabulary that guesses for this one (MCP_SPEC_DRAFT, and
     * MCP_SPEC_AUTO beside n-grams), and how it runs here; NULL = none.  Both are borrowed.
     *   MCP_ENOTSUP  its tokens are not the model's */
    const mcp_model       *draft_model;
    const mcp_engine_opts *draft_engine;
    /* The fourth way: the session opens engines of its own, as mcp_plan_opts.engine says, pins
     * workers, and lets the plan choose codec ("auto") and chunk (0).  While an answer runs it
     * watches links and loads, and moves its layers when that saves more than it costs; the text
     * goes on as it would have, as far as the places' arithmetic is the same.  `fallback` NULL =
     * do not go on here when workers are lost; what it says is the plan's to say.  The plan is
     * copied and may be closed. */
    const mcp_plan *plan;
} mcp_session_opts;

#define MCP_SESSION_OPTS_INIT                                                     \
    {                                                                             \
        .struct_size = sizeof(mcp_session_opts), .codec = "auto", .wrap = "none", \
    }

/* engine: holds all layers, for the first way; NULL for the others.  Engines, model and remote
 * must outlive the session.
 *   MCP_ERANGE    a cut outside (0, layers) or not ascending, stages that do not join, a
 *                 sequence that an engine does not have, layers that no worker holds
 *   MCP_ENOTSUP   a worker's model or weights are others
 *   MCP_EUNAVAIL  no worker is connected        MCP_EDENIED, MCP_EBUSY  as it says */
MCP_API int  mcp_session_open(mcp_session **out, mcp_engine *engine, const mcp_session_opts *opts,
                              mcp_error *err);
MCP_API void mcp_session_close(mcp_session *session);

/* Make the running mcp_session_generate() stop with MCP_STOP_CANCEL.  One from before the call
 * does not count. */
MCP_API void mcp_session_cancel(mcp_session *session);

typedef struct {
    uint32_t struct_size;
    uint32_t max_tokens;  /* -n: most tokens generated */
    float    temperature; /* below 1e-6: the most likely token, always */
    int32_t  top_k;       /* <= 0: off */
    float    top_p;       /* >= 1: off */
    float    min_p;       /* <= 0: off */
    uint32_t seed;        /* MCP_SEED_RANDOM: a different one each time */
    int      ignore_end;  /* 1 = go on after an end-of-answer token */
} mcp_generate_opts;

#define MCP_SEED_RANDOM 0xFFFFFFFFu

/* llama-server's defaults. */
#define MCP_GENERATE_OPTS_INIT                                                                \
    {                                                                                         \
        .struct_size = sizeof(mcp_generate_opts), .max_tokens = 512, .temperature = 0.8f,     \
        .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .seed = MCP_SEED_RANDOM, .ignore_end = 0 \
    }

typedef enum {
    MCP_STOP_END = 0,  /* the model ended its answer */
    MCP_STOP_LENGTH,   /* max_tokens reached */
    MCP_STOP_CONTEXT,  /* no position left */
    MCP_STOP_CALLBACK, /* the callback asked for it */
    MCP_STOP_CANCEL,   /* mcp_session_cancel(), mcp_engine_cancel() */
} mcp_stop;

/* "end", "length", "context", "callback", "cancel" */
MCP_API const char *mcp_stop_name(mcp_stop stop);

typedef struct {
    mcp_stop stop;
    uint32_t prompt_tokens; /* in the prompt */
    uint32_t prompt_cached; /* of these, already in the session */
    uint32_t generated_tokens;
    double   ttft_ms; /* from the call to the first token */
    double   prompt_ms;
    double   generate_ms;          /* from the first token to the last */
    double   prompt_per_second;    /* tokens computed, over prompt_ms */
    double   predicted_per_second; /* tokens after the first, over generate_ms; 0 below two */
    uint32_t seed;                 /* the one used */
} mcp_generate_result;

/* Called once a token, in order, with the bytes that it adds (possibly none, possibly
 * part of a UTF-8 sequence).  Return non-zero to stop.  ctx is the caller's. */
typedef int (*mcp_token_fn)(int32_t token, const char *bytes, size_t count, void *ctx);

/* Continue `tokens` (the whole conversation so far: the longest prefix shared with
 * what the session has seen is not computed again).  *result is filled also when the
 * answer was cut short; a stop by callback or by an mcp_engine_cancel() during the call is
 * success.  (One from before the call does not count.)  After a failure the
 * session keeps the positions that were computed.
 *   MCP_ERANGE  empty prompt, prompt longer than the context, bad token id */
MCP_API int mcp_session_generate(mcp_session *session, const int32_t *tokens, uint32_t count,
                                 const mcp_generate_opts *opts, mcp_token_fn fn, void *ctx,
                                 mcp_generate_result *result, mcp_error *err);

/* ---- what it took --------------------------------------------------------------------- */

enum { MCP_STAGE_STATS_MAX = 16 };

typedef struct {
    uint32_t first, last;
    char     where[96]; /* "here: cpu", "192.0.2.7:7070 (gpu-01)" */
    uint64_t windows;
    uint64_t positions;
    double   elapsed_ms; /* sums over windows: from sending to the answer, */
    double   queue_ms;   /* of it waiting at the worker, */
    double   compute_ms; /* of it computing */
    uint32_t failovers;  /* times it was moved after a loss, */
    uint32_t handovers;  /* after a drain notice */
    uint64_t replayed_positions;
} mcp_stage_stats;

/* Since the session was opened. */
typedef struct {
    uint32_t        struct_size;
    uint64_t        bytes_out, bytes_in; /* payload of frames to and from workers */
    uint64_t        windows;             /* that have left the last stage */
    uint32_t        failovers;
    uint32_t        handovers;
    double          stall_ms_max; /* longest time between two tokens of one answer */
    char            codec[16];    /* the one in use; "" when nothing leaves */
    uint32_t        stage_count;  /* of which the first MCP_STAGE_STATS_MAX are told */
    mcp_stage_stats stages[MCP_STAGE_STATS_MAX];
    uint64_t        drafted;       /* guesses sent to be computed; */
    uint64_t        drafted_seen;  /* of them compared: not behind a wrong one, */
    uint64_t        accepted;      /* and right */
    uint32_t        in_flight_max; /* windows of an answer at once */
    /* Of a session that follows a plan, else "" and 0. */
    char     plan[256];     /* as it runs now, in words */
    uint32_t moves;         /* to another layout */
    char     move_why[256]; /* the last one's reason */
    double   move_ms;       /* all moves together: engines opened, positions computed again */
    double   plan_ttft_ms;  /* predicted when the session was opened, */
    double   plan_token_ms; /* for the plan of now */
    uint32_t ctx_tokens;    /* positions it can hold */
    /* Of the engines here. */
    uint64_t weight_bytes, kv_bytes, compute_bytes;
    char     devices[128];
    uint64_t draft_made;     /* guesses by the draft model; */
    uint64_t draft_seen;     /* of drafted_seen, those that are its own, */
    uint64_t draft_accepted; /* and right */
    double   draft_ms;       /* its time on this machine */
    /* Windows whose hidden states left, by their codec's number (f32, f16, bf16, q8, q8r, q4r);
     * `codec` is that of most. */
    uint64_t codec_windows[8];
} mcp_session_stats;

MCP_API int mcp_session_get_stats(const mcp_session *session, mcp_session_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
