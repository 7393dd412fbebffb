/* mcp/worker.h - serve layers of a model to agents elsewhere.
 *
 * A worker holds layers [first, last) of one model and runs them for many sessions at once, over
 * gRPC (proto/mcp/v1/compute.proto) with TLS 1.3 and certificates both ways.  It owns its
 * threads: some for connections, one that computes.  mcp_worker_open() returns when it listens.
 *
 * Threads: mcp_worker_drain() may be called from any thread; the others from one at a time.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MCP_WORKER_H
#define MCP_WORKER_H

#include <mcp/engine.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mcp_worker mcp_worker;

typedef struct {
    uint32_t    struct_size;
    const char *listen;     /* "127.0.0.1:7070"; port 0 = any free one */
    const char *keys;       /* folder with ca.pem, worker.pem, worker.key, ...; required */
    uint32_t    io_threads; /* threads for connections; 0 = 1, and 2 from 8 processors on */
    /* The engine.  first, last, ctx_tokens, seqs (sessions at once), threads, device, ... mean
     * what they mean in mcp_engine_opts; NULL takes its defaults with 8 sequences.  Windows of
     * 1 to 63 positions are even (mcp_engine_opts.even_windows) unless uneven_windows. */
    const mcp_engine_opts *engine;
    int                    uneven_windows;
    uint32_t    chunk_tokens;     /* prefill positions a forward while decodes wait; 0 = 256 */
    uint32_t    subject_sessions; /* most sessions of one subject; 0 = all */
    const char *reserve;          /* "TEAM=4,OTHER=2": sessions kept for subjects; NULL */
    uint32_t    lease_ms;         /* how long a session outlives its stream; 0 = 30000 */
    uint32_t    idle_ms;          /* an attached session without work ends; 0 = 30 minutes */
    uint32_t    connections_max;  /* 0 = 1024 */
    int         require_token;    /* 1 = a certificate alone is not enough */
    int         debug_commands;   /* 1 = faults may be injected (tests) */
} mcp_worker_opts;

#define MCP_WORKER_OPTS_INIT                                                \
    {                                                                       \
        .struct_size = sizeof(mcp_worker_opts), .listen = "127.0.0.1:7070", \
    }

/* Load the layers and listen.  `model` must outlive the worker.  All or nothing.  Failures of
 * mcp_engine_open(), and:
 *   MCP_EDENIED  keys missing, unreadable, readable by others, expired
 *   MCP_EIO      the address cannot be listened on */
MCP_API int mcp_worker_open(mcp_worker **out, const mcp_model *model, const mcp_worker_opts *opts,
                            mcp_error *err);

/* "127.0.0.1:43211": the address that it really has.  Lives as long as the worker. */
MCP_API const char *mcp_worker_address(const mcp_worker *worker);

/* Take no new sessions, tell agents to move theirs within so many milliseconds, then end what is
 * left.  Idempotent.  Any thread, not signal handlers. */
MCP_API void mcp_worker_drain(mcp_worker *worker, uint32_t within_ms);

/* Wait until it has drained, or for `timeout_ms` (0 = only look): 1 when drained, else 0. */
MCP_API int mcp_worker_wait(mcp_worker *worker, uint32_t timeout_ms);

/* Ends everything at once.  NULL is allowed. */
MCP_API void mcp_worker_close(mcp_worker *worker);

typedef struct {
    uint32_t sessions, sessions_max, connections;
    uint64_t sessions_opened, sessions_resumed, sessions_refused, sessions_evicted;
    uint64_t windows, positions, batches; /* run */
    uint64_t bytes_in, bytes_out;
    uint64_t hostile;           /* connections ended for breaking a bound */
    double   compute_ms;        /* in all */
    double   tokens_per_second; /* of the last seconds */
    int      draining;
} mcp_worker_stats;

MCP_API int mcp_worker_get_stats(const mcp_worker *worker, mcp_worker_stats *stats);

/* All numbers in Prometheus' text format; to be freed with free().  NULL when out of memory. */
MCP_API char *mcp_worker_metrics(const mcp_worker *worker);

#ifdef __cplusplus
}
#endif
#endif
