/* mcp/generate.h - text out of a model: prompt windows, sampling, stop conditions.
 *
 * A session is one conversation's computation on an engine: positions 0..n of one
 * sequence, run as one or several stages cut at given layers.  It remembers the
 * tokens it has seen, so a prompt that begins with them costs only its new part.
 *
 * Threads: one session is used by one thread at a time, the one that uses its engine.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MCP_GENERATE_H
#define MCP_GENERATE_H

#include <mcp/engine.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mcp_session mcp_session;

enum { MCP_CUTS_MAX = 255 };

typedef struct {
    uint32_t        struct_size;
    uint32_t        seq;       /* the engine's sequence that this session owns */
    const uint32_t *cuts;      /* ascending, inside the engine's range; copied */
    uint32_t        cut_count; /* 0 = one stage */
} mcp_session_opts;

#define MCP_SESSION_OPTS_INIT                                                           \
    {                                                                                   \
        .struct_size = sizeof(mcp_session_opts), .seq = 0, .cuts = NULL, .cut_count = 0 \
    }

/* The engine must hold all layers and outlive the session.  MCP_ERANGE: a cut outside
 * (0, layers) or not ascending, or a sequence the engine does not have. */
MCP_API int  mcp_session_open(mcp_session **out, mcp_engine *engine, const mcp_session_opts *opts,
                              mcp_error *err);
MCP_API void mcp_session_close(mcp_session *session);

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
    MCP_STOP_CANCEL,   /* mcp_engine_cancel() */
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

#ifdef __cplusplus
}
#endif
#endif
