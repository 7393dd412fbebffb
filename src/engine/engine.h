/* engine/engine.h - the engine behind mcp/engine.h.
 *
 * SPDX-License-Identifier: MIT */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "engine/graph.h"

enum {
    ENGINE_SEQS_MAX = 4096,
    ENGINE_BATCH_MAX = 65536,
    ENGINE_THREADS_MAX = 512, /* ggml's own limit */
    ENGINE_SHARDS_MAX = 2,    /* the CPU's layers, then a GPU's */
    /* Graphs kept built: decode, verify and prefill shapes of four stages, with room.
     * Each holds about 1 MB of nodes; the compute buffer is shared. */
    ENGINE_GRAPHS_MAX = 16,
    /* Windows below this are even with each other (mcp_engine_opts.even_windows): from here on
     * the CPU's flash attention works in tiles. */
    ENGINE_TILE_TOKENS = 64,
};

/* The layers that one device holds, and everything needed to run them. */
struct engine_shard {
    uint32_t              first, last;
    struct engine_device *device; /* perhaps held by engines beside this one too */
    const atomic_int     *cancel; /* the engine's */
    struct engine_weights weights;
    struct engine_kv      kv;
    struct ggml_gallocr  *compute; /* one buffer, shared by the graphs below */
    size_t                compute_bytes;
    struct engine_graph  *graphs[ENGINE_GRAPHS_MAX];
    uint64_t              tick; /* of graph use, for eviction */
    /* Embedding rows go to the device in this type; GGML_TYPE_COUNT: the host widens them. */
    enum ggml_type embed;
    /* GPU only: inputs are written here and copied asynchronously.  Two, so that the next
     * batch is prepared while one computes; `busy` fires when the copies are done. */
    struct {
        struct engine_host   host;
        ggml_backend_event_t busy;
        bool                 pending;
    } stage[2];
    uint32_t stage_next;
};

/* A run of one window's positions inside a batch that is computed at once. */
struct engine_piece {
    uint32_t window;
    uint32_t offset; /* into the window */
    uint32_t count;
    uint32_t token; /* where its tokens begin in the batch */
};

struct mcp_engine {
    const struct mcp_model *model;
    mcp_engine_info         info;
    struct engine_shard     shards[ENGINE_SHARDS_MAX];
    uint32_t                shard_count;
    atomic_int              cancel;
    bool                    even; /* even_windows, and there is a CPU: batches are formed for it */

    /* Scratch of one forward, sized at opening. */
    struct engine_host     hidden[2]; /* (ubatch_tokens, n_embd): in and out of a shard */
    int32_t               *tokens;    /* (ubatch_tokens) */
    struct engine_piece   *pieces;    /* (seqs) */
    struct engine_segment *segments;  /* (seqs) */
    int32_t               *positions; /* (ubatch_tokens) */
    uint32_t              *sequences; /* (ubatch_tokens) */
    int32_t               *rows;      /* (ubatch_tokens) */
    uint8_t               *seen;      /* (seqs) */
};

int engine_open(struct mcp_engine **out, const struct mcp_model *model, const mcp_engine_opts *opts,
                mcp_error *err);
void engine_close(struct mcp_engine *engine);

int engine_forward(struct mcp_engine *e, uint32_t first, uint32_t last, mcp_want want,
                   const mcp_window *windows, uint32_t count, float *out, size_t out_floats,
                   mcp_error *err);
int engine_trim(struct mcp_engine *e, uint32_t seq, uint32_t pos, mcp_error *err);

/* Host memory of the last shard's device; NULL when out of memory. */
float *engine_alloc(struct mcp_engine *e, size_t floats);
void   engine_free(float *memory); /* NULL is allowed */

/* engine/state.c */
int engine_export(struct mcp_engine *e, uint32_t seq, uint32_t first, uint32_t last,
                  uint32_t pos_first, uint32_t pos_last, void *buffer, size_t *bytes,
                  mcp_error *err);
int engine_import(struct mcp_engine *e, uint32_t seq, const void *buffer, size_t bytes,
                  mcp_error *err);

/* engine_import() of a block that has to be the one asked for: from a peer, who might send another.
 *   MCP_EFORMAT  it is of other layers or positions */
struct engine_block {
    uint32_t first, last;         /* layers */
    uint32_t pos_first, pos_last; /* positions */
};
int engine_import_as(struct mcp_engine *e, uint32_t seq, const struct engine_block *asked,
                     const void *buffer, size_t bytes, mcp_error *err);

/* Bytes of a block that this engine exports or takes; and of them, those of one position in one
 * layer. */
uint64_t engine_block_bytes(const struct mcp_engine *e, const struct engine_block *block);
size_t   engine_block_row_bytes(const struct mcp_engine *e);

/* The shard that holds a layer. */
struct engine_shard *engine_shard_of(struct mcp_engine *e, uint32_t layer);

/* [first, last) is not empty and inside the layers loaded. */
int engine_check_range(const struct mcp_engine *e, uint32_t first, uint32_t last, mcp_error *err);

/* ---- engine/shard.c: one device ------------------------------------------------------- */

/* Load the layers of a shard whose range and device are set.  On failure the shard is to be
 * closed all the same. */
int  engine_shard_open(struct engine_shard *s, const struct mcp_engine *e,
                       const mcp_engine_opts *opts, bool flash, mcp_error *err);
void engine_shard_close(struct engine_shard *s);

/* A batch ready to compute: the shape and what goes into its inputs. */
struct engine_batch {
    struct engine_shape shape;     /* `embed` is the shard's to fill in */
    const float        *hidden;    /* (tokens, n_embd), or */
    const int32_t      *tokens;    /* (tokens) ids */
    const int32_t      *positions; /* (tokens) */
    const uint32_t     *sequences; /* (tokens) */
    const int32_t      *rows;      /* (shape.rows) */
    bool                reference; /* by arithmetic that does not depend on the shape (even.h) */
};

/* Run the batch; for HIDDEN and LOGITS the rows land in `out` before this returns.  A batch
 * that only fills the KV may still be computing; the next one, or engine_shard_wait(),
 * waits for it. */
int  engine_shard_run(struct engine_shard *s, const struct mcp_model *model,
                      const struct engine_batch *batch, float *out, mcp_error *err);
void engine_shard_wait(struct engine_shard *s);

#endif
