/* mcp/plan.h - what a model consists of, how fast machines run it, and where it should run.
 *
 *     mcp_graph     the operations of a model, from its header: work, groups, widths of cuts
 *     mcp_profile   the speed of a device for a model: measured, or from a data sheet
 *     mcp_plan      the best way for a request, what it will cost, and why the others lost
 *
 * Handles are immutable once opened and may be used from any thread; opening may measure, which
 * blocks for seconds.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MCP_PLAN_H
#define MCP_PLAN_H

#include <mcp/generate.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- operations ------------------------------------------------------------------------ */

typedef struct mcp_graph mcp_graph;

/* Pseudo layers of operations before the first layer and behind the last. */
enum { MCP_LAYER_EMBED = -1, MCP_LAYER_HEAD = -2 };

/* Build the graph of all layers.  No weight is read; the graph does not need the model later. */
MCP_API int  mcp_graph_open(mcp_graph **out, const mcp_model *model, mcp_error *err);
MCP_API void mcp_graph_close(mcp_graph *graph);

MCP_API uint32_t mcp_graph_op_count(const mcp_graph *graph);
MCP_API uint32_t mcp_graph_group_count(const mcp_graph *graph);

enum { MCP_OP_SOURCES_MAX = 10 };

typedef struct {
    uint32_t    struct_size;
    const char *name; /* "ffn_gate-3"; the graph's */
    const char *kind; /* ggml's: "MUL_MAT" */
    int32_t     layer;
    uint32_t    source_count;
    uint32_t    sources[MCP_OP_SOURCES_MAX]; /* ops that must have run; smaller indices */
    uint32_t    group;     /* ops of one group may run at the same time; groups run in order */
    double      cut_width; /* floats a token that would cross, were the model cut behind this op */
    double      flops, weight_bytes, activation_bytes; /* for the tokens and context asked about */
} mcp_op;

/* What op `index` costs in a window of `tokens` positions behind `context` others. */
MCP_API int mcp_graph_get_op(const mcp_graph *graph, uint32_t index, uint32_t tokens,
                             uint32_t context, mcp_op *op);

/* Floats a token that cross below layer `layer` (0 to the number of layers). */
MCP_API double mcp_graph_cut_width(const mcp_graph *graph, uint32_t layer);

/* ---- profiles -------------------------------------------------------------------------- */

typedef struct mcp_profile mcp_profile;

/* Called before each of `all` figures is taken; return non-zero to stop. */
typedef int (*mcp_progress_fn)(uint32_t done, uint32_t all, void *ctx);

typedef enum {
    MCP_PROFILE_KEPT = 0, /* as measured before, else MCP_ENOTFOUND */
    MCP_PROFILE_ONCE,     /* measured when it never was; kept in the cache folder */
    MCP_PROFILE_AGAIN,    /* measured now; kept */
} mcp_profile_when;

/* The device that engine options mean (NULL: defaults), for this model.  Loads at most a GiB. */
MCP_API int mcp_profile_here(mcp_profile **out, const mcp_model *model, const mcp_engine_opts *opts,
                             mcp_profile_when when, mcp_progress_fn fn, void *ctx, mcp_error *err);

/* A worker, by a session of ours on its layers.
 *   MCP_ENOTSUP  it holds another model        and what it may say to a session */
MCP_API int mcp_profile_worker(mcp_profile **out, const mcp_model *model, mcp_remote *remote,
                               uint32_t index, mcp_profile_when when, mcp_progress_fn fn, void *ctx,
                               mcp_error *err);

/* A file, or the name of one ("a100") in $MCP_PROFILES, the cache folder or the program's.
 *   MCP_EFORMAT  no profile        MCP_ENOTSUP  measured with another model */
MCP_API int mcp_profile_read(mcp_profile **out, const char *name, const mcp_model *model,
                             mcp_error *err);

/* To a file that can be shared.  MCP_EIO; MCP_ENOTSUP: it was not measured. */
MCP_API int  mcp_profile_write(const mcp_profile *profile, const char *path, mcp_error *err);
MCP_API void mcp_profile_close(mcp_profile *profile);

enum { MCP_PROFILE_TOKENS_MAX = 12, MCP_PROFILE_CONTEXTS_MAX = 8 };

typedef struct {
    uint32_t    struct_size;
    int         measured; /* 0: computed from a data sheet */
    const char *device;   /* strings are the profile's */
    const char *model;
    const char *quantisation;
    const char *source; /* of a data sheet's figures; "" */
    const char *path;   /* "" = no file */
    uint64_t    memory_bytes;
    uint32_t    threads; /* of a CPU; 0 */
    uint32_t    layers;
    uint32_t    token_count, context_count;
    uint32_t    tokens[MCP_PROFILE_TOKENS_MAX];
    uint32_t    contexts[MCP_PROFILE_CONTEXTS_MAX];
    double      layer_ms[MCP_PROFILE_TOKENS_MAX][MCP_PROFILE_CONTEXTS_MAX];
    double      head_ms[MCP_PROFILE_TOKENS_MAX];
    double      call_ms; /* of a forward beside its layers */
} mcp_profile_info;

MCP_API int mcp_profile_get_info(const mcp_profile *profile, mcp_profile_info *info);

/* ---- plans ----------------------------------------------------------------------------- */

typedef enum {
    MCP_PRIVACY_SPLIT = 0, /* tokens, logits, first and last layers stay here */
    MCP_PRIVACY_STRICT,    /* nothing leaves */
    MCP_PRIVACY_OPEN,      /* anything may */
} mcp_privacy;

typedef enum {
    MCP_OPTIMIZE_LATENCY = 0,
    MCP_OPTIMIZE_COST,
    MCP_OPTIMIZE_THROUGHPUT,
} mcp_optimize;

typedef enum {
    MCP_MODE_LOCAL = 0,
    MCP_MODE_CLOUD,
    MCP_MODE_SPLIT,
    MCP_MODE_PREFILL, /* the worker prefills and hands its KV back */
    MCP_MODES
} mcp_mode;

MCP_API const char *mcp_mode_name(mcp_mode mode); /* "split" */

/* A worker that is only supposed: its speed and the link to it are stated. */
typedef struct {
    const char        *name; /* NULL = the profile's device */
    const mcp_profile *profile;
    double             rtt_ms, up_mbit, down_mbit;
    double             price_hour; /* in any currency */
} mcp_supposed_worker;

typedef struct {
    uint32_t                   struct_size;
    const mcp_model           *model;  /* required */
    const mcp_engine_opts     *engine; /* how it would run here; NULL = defaults */
    const mcp_profile         *here;   /* NULL = kept or measured, as `when` says */
    mcp_remote                *remote; /* its workers take part: described, pinged, profiled */
    const mcp_supposed_worker *supposed;
    uint32_t                   supposed_count;
    mcp_profile_when           when;
    mcp_progress_fn            progress; /* of measuring; NULL */
    void                      *progress_ctx;
    /* For the workers of `remote` where not 0: in place of what is measured. */
    double rtt_ms, up_mbit, down_mbit;
    double price_hour;
    /* The request. */
    uint32_t     prompt_tokens, gen_tokens;
    uint32_t     ctx_tokens; /* to reserve; 0 = prompt and generated */
    mcp_privacy  privacy;
    mcp_optimize optimize;
    uint64_t     vram_bytes; /* most memory here; 0 = 70 % of the device's */
    double       quality_pct_max;
    int          mixed_weights;
    int          even_windows; /* bits as without speculation */
    /* Decided already, where given. */
    uint32_t    modes;               /* bits, 1 << MCP_MODE_SPLIT; 0 = any */
    uint32_t    cut_first, cut_last; /* both 0 = choose */
    const char *codec;               /* NULL or "auto" = choose */
    uint32_t    chunk_tokens;
    mcp_spec    spec;
    uint32_t    spec_depth, spec_windows;
} mcp_plan_opts;

#define MCP_PLAN_OPTS_INIT                                                                     \
    {                                                                                          \
        .struct_size = sizeof(mcp_plan_opts), .when = MCP_PROFILE_ONCE, .prompt_tokens = 1024, \
        .gen_tokens = 128, .quality_pct_max = 1.0,                                             \
    }

/* Collect the facts and choose.  That no plan satisfies the request is no failure of this
 * function: mcp_plan_info.fits is 0 then, and its `why` says which limit is in the way.  Neither
 * is a worker that cannot be measured: it is left out, and mcp_plan_note() says so.
 *   MCP_EINVAL, MCP_ERANGE  a request that contradicts itself or exceeds a limit
 *   and what measuring this machine may say */
MCP_API int  mcp_plan_open(mcp_plan **out, const mcp_plan_opts *opts, mcp_error *err);
MCP_API void mcp_plan_close(mcp_plan *plan);

enum { MCP_PLAN_HOPS_MAX = 2, MCP_PLAN_WHY_BYTES = 256, MCP_PLAN_TERMS_MAX = 8 };

/* The best plan of a mode. */
typedef struct {
    uint32_t struct_size;
    mcp_mode mode;
    int      fits;
    int      chosen;
    char     text[MCP_PLAN_WHY_BYTES];  /* the plan in words */
    char     why[MCP_ERROR_TEXT_BYTES]; /* one sentence: why it won, lost, or does not fit */
    uint32_t hop_count;                 /* stages on workers */
    struct {
        int32_t     worker; /* in the remote; -1 = supposed */
        const char *name;   /* the plan's */
        uint32_t    first, last;
    } hops[MCP_PLAN_HOPS_MAX];
    const char *codec; /* "" when no hidden state leaves */
    uint32_t    chunk_tokens;
    uint32_t    spec_depth, spec_windows; /* 0, 1: no speculation */
    double      ttft_ms, token_ms, total_ms;
    double      bytes_out, bytes_in;
    double      price;
    double      quality_pct;
    uint64_t    memory_here_bytes, memory_there_bytes;
    double      term_ms[MCP_PLAN_TERMS_MAX]; /* what total_ms consists of: mcp_plan_term_name() */
} mcp_plan_info;

/* The choice, or what came nearest to fitting. */
MCP_API int mcp_plan_get_info(const mcp_plan *plan, mcp_plan_info *info);

/* The best of one mode.  MCP_ERANGE: no such mode. */
MCP_API int mcp_plan_get_mode(const mcp_plan *plan, mcp_mode mode, mcp_plan_info *info);

/* "round trips"; NULL past the last. */
MCP_API const char *mcp_plan_term_name(uint32_t term);

/* What is to be known of the facts, a sentence each: what was assumed, which worker was left out
 * and why; NULL past the last. */
MCP_API const char *mcp_plan_note(const mcp_plan *plan, uint32_t index);

#ifdef __cplusplus
}
#endif
#endif
