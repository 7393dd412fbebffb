/* mcp/remote.h - the workers that an agent may use: connections, what they hold, how far they are.
 *
 * A remote keeps one warm connection to each worker it was given, dials again what was lost, and
 * watches load and drain notices.  Sessions (mcp/generate.h) run stages on it and move between
 * its workers by themselves.
 *
 * Threads: all functions may be called from any thread.  A remote has one thread of its own.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MCP_REMOTE_H
#define MCP_REMOTE_H

#include <mcp/engine.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mcp_remote mcp_remote;

enum { MCP_WORKERS_MAX = 64 };

typedef struct {
    uint32_t           struct_size;
    const char        *keys;    /* folder with ca.pem, client.pem, client.key; required */
    const char *const *workers; /* "HOST:PORT"; copied */
    uint32_t           worker_count;
    const char        *token;      /* JWT; NULL = the folder's client.token when there is one */
    uint32_t           connect_ms; /* to be connected and described; 0 = 5000 */
} mcp_remote_opts;

#define MCP_REMOTE_OPTS_INIT                   \
    {                                          \
        .struct_size = sizeof(mcp_remote_opts) \
    }

/* Connect to all workers at once and ask what they hold.  Success when at least one answered;
 * what became of each tells mcp_remote_get_worker().
 *   MCP_EDENIED   keys missing or unsafe, or every worker refused our identity
 *   MCP_EUNAVAIL  no worker could be reached */
MCP_API int mcp_remote_open(mcp_remote **out, const mcp_remote_opts *opts, mcp_error *err);

/* Sessions that use it must be closed before.  NULL is allowed. */
MCP_API void mcp_remote_close(mcp_remote *remote);

typedef enum {
    MCP_WORKER_DOWN = 0, /* no connection; dialled again by and by */
    MCP_WORKER_DIALING,
    MCP_WORKER_UP,
    MCP_WORKER_DRAINING, /* takes no new session */
    MCP_WORKER_UNFIT,    /* identity, version or contract do not fit: not tried again */
} mcp_worker_state;

MCP_API const char *mcp_worker_state_name(mcp_worker_state state); /* "up" */

typedef struct {
    uint32_t         struct_size;
    char             endpoint[128]; /* as given */
    mcp_worker_state state;
    char             problem[256];  /* why not up; "" */
    char             degraded[256]; /* what it says itself; "" = healthy */
    /* The rest as of the last contact; zeros before. */
    char     name[64]; /* of its certificate */
    char     version[64];
    char     tls[64];       /* "TLSv1.3 TLS_AES_256_GCM_SHA384" */
    char     features[256]; /* blank separated */
    char     codecs[128];
    char     model[128], architecture[64], quantisation[64];
    uint8_t  fingerprint[MCP_FINGERPRINT_BYTES]; /* model */
    uint32_t layers, n_embd, n_vocab;
    uint32_t first, last; /* layers held */
    uint32_t sessions, sessions_free, ctx_tokens, batch_tokens;
    uint32_t queued_tokens;
    float    tokens_per_second;
    double   rtt_ms;              /* smallest seen lately; 0 = not measured */
    double   goodput_mbit;        /* up; 0 = not measured */
    uint64_t bytes_out, bytes_in; /* on the wire, TLS included */
    /* Of the last 2.5 s in which there was traffic, as goodput_mbit: the median round trip, and
     * how far above the least nine of ten are; 0 = not measured. */
    double rtt_ms_p50, rtt_spread_ms;
    double goodput_down_mbit;
} mcp_worker_info;

MCP_API uint32_t mcp_remote_worker_count(const mcp_remote *remote);
MCP_API int mcp_remote_get_worker(const mcp_remote *remote, uint32_t index, mcp_worker_info *info);

/* SHA-256 over the weights fingerprints of layers [first, last) in order, as Open.weights: of
 * a file here, and of what a worker says it holds.  MCP_ERANGE: it does not hold them. */
MCP_API int mcp_remote_weights(const mcp_remote *remote, uint32_t index, uint32_t first,
                               uint32_t last, uint8_t digest[MCP_FINGERPRINT_BYTES],
                               mcp_error *err);

typedef struct {
    uint32_t rounds;      /* small messages in turns; 0 = 10 */
    uint32_t small_bytes; /* payload of each way; 0 = 64 */
    uint64_t bulk_bytes;  /* each way, for goodput; 0 = 1 MiB; UINT64_MAX = none */
} mcp_ping_opts;

typedef struct {
    double rtt_ms_min, rtt_ms_p50, rtt_ms_max; /* request to answer */
    double tcp_rtt_ms; /* what the kernel measured for the bare connection; 0 = unknown */
    double added_ms;   /* p50 less tcp_rtt_ms: protocol, TLS, both programs; negative = noise */
    double up_mbit, down_mbit; /* payload */
} mcp_ping_result;

/* Measure the path to a worker; takes rounds x RTT plus the bulk.  opts may be NULL. */
MCP_API int mcp_remote_ping(mcp_remote *remote, uint32_t index, const mcp_ping_opts *opts,
                            mcp_ping_result *result, mcp_error *err);

#ifdef __cplusplus
}
#endif
#endif
