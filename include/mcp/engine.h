/* mcp/engine.h - run any contiguous range of a model's layers.
 *
 * An engine holds the weights of the layers it was opened for, one KV store and one
 * compute buffer a device.  Every call chooses its own layer range inside them: from
 * token ids (range begins at layer 0) or hidden states, to hidden states or logits
 * (range ends at the model's last layer).  Cutting a range anywhere and feeding the
 * hidden state on gives the same bits on CPU.
 *
 *     tokens --> [0, a) --hidden--> [a, b) --hidden--> [b, layers) --> logits
 *
 * Threads: an engine is used by one thread at a time, and fastest when it is always
 * the same one (ggml keeps worker threads spinning for their caller); engines are
 * independent of each other, unless one was opened beside the other.  Only
 * mcp_engine_cancel() may be called from any thread and from a signal handler.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MCP_ENGINE_H
#define MCP_ENGINE_H

#include <mcp/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mcp_engine mcp_engine;

/* ---- devices -------------------------------------------------------------------- */

typedef struct {
    char     name[64];         /* "cpu", "cuda0": what mcp_engine_opts.device takes */
    char     description[128]; /* "AMD EPYC", "NVIDIA H200" */
    int      gpu;              /* 1 for a device with its own memory */
    uint64_t memory_bytes;     /* total; 0 when unknown */
    uint64_t memory_free_bytes;
} mcp_device;

/* Fill up to `cap` devices and return how many there are. The first call loads the
 * compute backends. */
MCP_API int mcp_devices(mcp_device *devices, size_t cap);

/* ---- opening -------------------------------------------------------------------- */

typedef enum { MCP_KV_F16 = 0, MCP_KV_Q8_0 = 1, MCP_KV_F32 = 2 } mcp_kv_type;
typedef enum { MCP_FLASH_AUTO = 0, MCP_FLASH_ON = 1, MCP_FLASH_OFF = 2 } mcp_flash;

/* Start from MCP_ENGINE_OPTS_INIT and change what you need.  New fields are appended;
 * a caller built against an older header passes a smaller struct_size and gets the
 * defaults for what it does not know. */
typedef struct {
    uint32_t    struct_size;
    uint32_t    first;         /* layers [first, last) are loaded */
    uint32_t    last;          /* 0 = all layers of the model */
    uint32_t    ctx_tokens;    /* positions a sequence can hold; 0 = min(trained, 4096) */
    uint32_t    seqs;          /* sequences, each with ctx_tokens positions of KV */
    uint32_t    batch_tokens;  /* -b: most tokens in one forward */
    uint32_t    ubatch_tokens; /* -ub: most tokens computed at once; sizes the compute buffer */
    uint32_t    threads;       /* 0 = one a physical core this process may use */
    const char *device;        /* "auto", "cpu", "cuda0", ...; borrowed for the call */
    int32_t     gpu_layers;    /* -ngl: so many of the last layers on the GPU; -1 = all */
    mcp_kv_type kv_k;          /* -ctk */
    mcp_kv_type kv_v;          /* -ctv; q8_0 needs flash attention, f32 needs it off */
    mcp_flash   flash;         /* -fa; auto: on where the device and the KV types allow it */
    uint32_t    poll;          /* 0..100: how hard idle compute threads spin; 50 as llama.cpp */
    int         repack;        /* 1 = let the CPU rearrange weights for speed (default) */
    int         even_windows;  /* 1 = bits do not depend on the windows' sizes; see below */
    const mcp_engine *beside;  /* compute on the device of this engine; see below */
} mcp_engine_opts;

#define MCP_ENGINE_OPTS_INIT                                                                       \
    {                                                                                              \
        .struct_size = sizeof(mcp_engine_opts), .first = 0, .last = 0, .ctx_tokens = 0, .seqs = 1, \
        .batch_tokens = 2048, .ubatch_tokens = 512, .threads = 0, .device = "auto",                \
        .gpu_layers = -1, .kv_k = MCP_KV_F16, .kv_v = MCP_KV_F16, .flash = MCP_FLASH_AUTO,         \
        .poll = 50, .repack = 1, .even_windows = 0, .beside = NULL                                 \
    }

/* even_windows.  A CPU computes one token, a few and many by different kernels, which round
 * differently: greedy text may then depend on how a run was cut into windows, and on who else
 * was in the batch.  With even_windows = 1, on CPUs,
 *
 *   - all windows of 1 to 63 positions give the same bits: in whatever windows of this kind a
 *     run is cut, and whoever shares the forward;
 *   - windows of 64 and more are another such class; they share no batch with smaller ones (so
 *     list them one after another) and are cut by ubatch_tokens as if each were alone, which may
 *     leave a rest of the first class.  Their bits, too, are the same in any company, but for
 *     weights in K- and IQ-quants.
 *
 * mcp_engine_info.even_windows says whether the first promise holds for this engine: it is tried
 * at opening, weight by weight.  It does not hold on GPUs, where the option has no effect.
 *
 * It costs nothing in most types of weight.  In F16, BF16 and F32 a token that is alone takes up
 * to 1.7 times as long, and K-quants are not rearranged (docs/architecture.md has figures).  A
 * forward with windows of both classes reads the weights twice.
 *
 * beside.  Two engines with compute threads of their own would spin for the same cores.  An
 * engine that is opened beside another computes on the other's device and threads (`threads` and
 * `poll` are not looked at), so that one thread may use both in turns, say for layers [0, 2) and
 * [28, 30) of a model, or load layers between them later.  Both must be used by the same
 * thread; they share nothing else, and either may be closed first.  `device` must be auto or
 * what the other one computes on. */

/* Load layers [first, last) of `model`, which must outlive the engine.
 *
 * All or nothing: on failure *out is NULL and no device holds a byte of it.
 *   MCP_ERANGE     a range, size or count outside its limit
 *   MCP_ENOTFOUND  no such device        MCP_ENOMEM  too little memory for weights or KV
 *   MCP_ENOTSUP    a combination that the device cannot run
 *   MCP_EINVAL     the engine beside computes on another device */
MCP_API int  mcp_engine_open(mcp_engine **out, const mcp_model *model, const mcp_engine_opts *opts,
                             mcp_error *err);
MCP_API void mcp_engine_close(mcp_engine *engine);

typedef struct {
    uint32_t first, last; /* layers loaded */
    uint32_t ctx_tokens;  /* positions a sequence, as asked */
    uint32_t seqs;
    uint32_t batch_tokens;
    uint32_t ubatch_tokens;
    uint32_t threads;
    int      flash;        /* 1 when flash attention is on */
    char     devices[128]; /* "cpu", "cpu [0,12) + cuda0 [12,30)" */
    uint64_t weight_bytes; /* as held: mapped, copied or repacked */
    uint64_t kv_bytes;
    uint64_t compute_bytes;
    int      even_windows; /* 1 when windows of 1 to 63 positions give the same bits */
} mcp_engine_info;

MCP_API int mcp_engine_get_info(const mcp_engine *engine, mcp_engine_info *info);

/* ---- running -------------------------------------------------------------------- */

typedef enum {
    MCP_OUT_NONE = 0, /* only the KV cache is wanted */
    MCP_OUT_LAST,     /* one row: the window's last position */
    MCP_OUT_ALL,      /* count rows */
    MCP_OUT_CHOSEN,   /* the positions listed in out_index */
} mcp_out;

/* A run of `count` positions of one sequence.  Exactly one of tokens and hidden is
 * set: tokens where the range begins at layer 0, hidden elsewhere (and allowed at 0:
 * it is the embedding).  pos must be the number of positions the sequence already
 * has in every layer of the range. */
typedef struct {
    uint32_t        seq;
    uint32_t        pos;
    uint32_t        count;
    const int32_t  *tokens;    /* (count) */
    const float    *hidden;    /* (count, n_embd), finite */
    mcp_out         out;       /* which rows are wanted */
    const uint32_t *out_index; /* MCP_OUT_CHOSEN: (out_count), ascending, below count */
    uint32_t        out_count;
} mcp_window;

typedef enum {
    MCP_WANT_HIDDEN = 0, /* rows of n_embd floats: the state after layer last-1 */
    MCP_WANT_LOGITS,     /* rows of n_vocab floats; last must be the model's layer count */
} mcp_want;

/* Number of rows that the windows ask for. */
MCP_API uint64_t mcp_windows_rows(const mcp_window *windows, uint32_t count);

/* Run the windows, each of another sequence, through layers [first, last) together.
 * Rows come out in the order of the windows.  out_floats is the room behind `out`;
 * it must hold rows x (n_embd or n_vocab).  Windows of different lengths may be mixed.
 *
 * On failure the KV cache is as before the call, unless MCP_EDEVICE.
 *   MCP_ERANGE  range not loaded, position does not continue the sequence, context
 *               full, token id not in the vocabulary, more than batch_tokens
 *   MCP_EINVAL  contract broken, hidden state with NaN or infinity
 *   MCP_ECANCELED */
MCP_API int mcp_engine_forward(mcp_engine *engine, uint32_t first, uint32_t last, mcp_want want,
                               const mcp_window *windows, uint32_t count, float *out,
                               size_t out_floats, mcp_error *err);

/* Host memory for rows in and out that the engine's device copies at full speed (page-locked
 * where the device is a GPU; an ordinary allocation otherwise).  NULL when out of memory.
 * Any memory may be passed to mcp_engine_forward(); this one is faster.  Free it before
 * the engine is closed. */
MCP_API float *mcp_engine_alloc(mcp_engine *engine, size_t floats);
MCP_API void   mcp_engine_free(mcp_engine *engine, float *memory);

/* Forget positions >= pos of a sequence, in all layers.  No data moves; with pos 0, which
 * makes place for another conversation, what was stored is also zeroed.  A pos beyond the
 * end changes nothing. */
MCP_API int mcp_engine_trim(mcp_engine *engine, uint32_t seq, uint32_t pos, mcp_error *err);

/* Positions that the sequence holds in layer `layer`. */
MCP_API uint32_t mcp_engine_length(const mcp_engine *engine, uint32_t seq, uint32_t layer);

/* Make the running forward, or else the next one, return MCP_ECANCELED.  Any thread, and
 * signal handlers. */
MCP_API void mcp_engine_cancel(mcp_engine *engine);

/* ---- moving state --------------------------------------------------------------- */

/* The KV rows of positions [pos_first, pos_last) in layers [first, last) as one block
 * of bytes, sealed by SHA-256.  With buffer NULL only *bytes is set.  The layout is in
 * src/engine/state.c; it does not depend on the device, nor on flash attention. */
MCP_API int mcp_engine_export(mcp_engine *engine, uint32_t seq, uint32_t first, uint32_t last,
                              uint32_t pos_first, uint32_t pos_last, void *buffer, size_t *bytes,
                              mcp_error *err);

/* Append an exported block to a sequence.  The block's model fingerprint, KV types and
 * shapes must be this engine's, its layers loaded here, and its first position the
 * sequence's length in each of them.  On failure nothing changed.
 *   MCP_ECORRUPT  damaged        MCP_EFORMAT  not such a block, or of another model */
MCP_API int mcp_engine_import(mcp_engine *engine, uint32_t seq, const void *buffer, size_t bytes,
                              mcp_error *err);

#ifdef __cplusplus
}
#endif
#endif
