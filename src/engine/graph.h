/* engine/graph.h - building the computation of a layer range.
 *
 * A graph is built for a *shape*: which layers, how many tokens, how they are grouped into
 * sequences, how many rows come out.  Running it again with the same shape only rewrites
 * its inputs, so decoding builds one graph every ENGINE_KV_PAD steps.  The addresses of
 * weights and KV are part of the graph.
 *
 * Tokens of a batch are laid out segment by segment.  A segment is a run of neighbouring
 * sequences with equally many tokens each: all its attention is one operation over a
 * four-dimensional view of the KV store.  Everything but attention runs over all tokens
 * at once, whatever the segments, so weights are read once for the whole batch.
 *
 * SPDX-License-Identifier: MIT */
#ifndef ENGINE_GRAPH_H
#define ENGINE_GRAPH_H

#include "engine/kv.h"
#include "engine/weights.h"

struct engine_segment {
    uint32_t seq;     /* first sequence */
    uint32_t streams; /* sequences: seq, seq + 1, ... */
    uint32_t tokens;  /* of each */
    uint32_t columns; /* KV rows seen: a multiple of ENGINE_KV_PAD, covers the longest */
};

enum engine_output {
    ENGINE_OUTPUT_KV,     /* nothing: the last layer stops after storing K and V */
    ENGINE_OUTPUT_HIDDEN, /* (n_embd, tokens) */
    ENGINE_OUTPUT_LOGITS, /* (n_vocab, rows) */
};

/* The shape; compared member by member. */
struct engine_shape {
    uint32_t               first, last;
    enum engine_output     output;
    enum ggml_type         embed; /* type of embedding rows coming in; COUNT: hidden state */
    uint32_t               tokens;
    uint32_t               rows; /* LOGITS: rows chosen by row_index */
    uint32_t               segment_count;
    struct engine_segment *segments; /* owned by whoever made the shape */
};

/* A built graph and its inputs. */
struct engine_graph {
    struct engine_shape  shape;  /* segments owned */
    void                *memory; /* of ctx: ggml would abort where malloc fails */
    struct ggml_context *ctx;
    struct ggml_cgraph  *nodes;
    struct ggml_tensor  *input;     /* in: f32 or shape.embed (n_embd, tokens) */
    struct ggml_tensor  *order;     /* in: i32 (tokens) 0, 1, ...; only with shape.embed */
    struct ggml_tensor  *position;  /* in: i32 (tokens) */
    struct ggml_tensor  *cell_k;    /* in: i64 (tokens): row of the KV store */
    struct ggml_tensor  *cell_v;    /* in: as cell_k, or i64 (tokens * width_v) transposed */
    struct ggml_tensor  *row_index; /* in: i32 (rows), LOGITS only */
    struct ggml_tensor **mask;      /* in: [segment] f16 or f32 (columns, tokens, 1, streams) */
    struct ggml_tensor  *output;    /* NULL for OUTPUT_KV */
    uint64_t             used;      /* tick of the last use */
};

/* What the builders below work with. */
struct engine_build {
    struct ggml_context         *ctx;
    struct ggml_cgraph          *nodes;
    const struct model_hparams  *hp;
    const struct engine_weights *w;
    const struct engine_kv      *kv;
    const struct engine_graph   *graph;
    const struct engine_layer   *l; /* the layer being built */
    uint32_t                     layer;
};

/* Build a graph of the given shape (segments are copied).  Everything it could assert on
 * has been checked by then; MCP_ENOMEM is the only failure. */
int  engine_graph_build(struct engine_graph **out, const struct engine_shape *shape,
                        const struct model_hparams *hp, const struct engine_weights *w,
                        const struct engine_kv *kv, mcp_error *err);
void engine_graph_free(struct engine_graph *graph);

bool engine_shape_equal(const struct engine_shape *a, const struct engine_shape *b);

/* ---- one layer of each architecture: hidden state in, hidden state out --------------- */

/* `keep`: reduce the result to the rows of graph->row_index as soon as attention is done.
 * NULL is returned when graph->shape.output is KV and this is the last layer. */
typedef struct ggml_tensor *(*engine_layer_fn)(struct engine_build *b, struct ggml_tensor *x,
                                               bool keep);

struct ggml_tensor *engine_llama_layer(struct engine_build *b, struct ggml_tensor *x, bool keep);
struct ggml_tensor *engine_qwen2_layer(struct engine_build *b, struct ggml_tensor *x, bool keep);
struct ggml_tensor *engine_qwen3_layer(struct engine_build *b, struct ggml_tensor *x, bool keep);
struct ggml_tensor *engine_deepseek2_layer(struct engine_build *b, struct ggml_tensor *x,
                                           bool keep);

/* ---- pieces they share ----------------------------------------------------------------- */

/* x (n, tokens) -> x / rms(x) * weight */
struct ggml_tensor *engine_norm(struct engine_build *b, struct ggml_tensor *x,
                                struct ggml_tensor *weight);

/* w x; like ggml_mul_mat(), but a row that is alone goes in twice where that keeps its bits
 * the same as in company (even.h). */
struct ggml_tensor *engine_product(struct engine_build *b, struct ggml_tensor *w,
                                   struct ggml_tensor *x);

/* w x + bias; bias may be NULL */
struct ggml_tensor *engine_linear(struct engine_build *b, struct ggml_tensor *w,
                                  struct ggml_tensor *x, struct ggml_tensor *bias);

/* Rotary embedding of (n, heads, tokens) at graph->position; `freqs` may be NULL. */
struct ggml_tensor *engine_rope(struct engine_build *b, struct ggml_tensor *x,
                                struct ggml_tensor *freqs);

struct engine_qkv {
    struct ggml_tensor *q; /* (head_k, n_head, tokens) */
    struct ggml_tensor *k; /* (head_k, n_head_kv, tokens) */
    struct ggml_tensor *v; /* (head_v, n_head_kv, tokens) */
};

/* The three projections, fused or not, with their biases. */
struct engine_qkv engine_project_qkv(struct engine_build *b, struct ggml_tensor *x);

/* Store k and v, attend from q, project by W_O (+ B_O).  v NULL: values are the first
 * head_v floats of each key (latent attention), and `decompress` (kv_lora, head_v_full,
 * n_head) is applied to each head's result.  -> (n_embd, tokens), or NULL when only the
 * KV is wanted of this layer. */
struct ggml_tensor *engine_attention(struct engine_build *b, struct engine_qkv a,
                                     struct ggml_tensor *decompress, float scale);

/* down(silu(gate(x)) * up(x)) with biases where the layer has them */
struct ggml_tensor *engine_ffn(struct engine_build *b, struct ggml_tensor *x, enum model_slot gate,
                               enum model_slot up, enum model_slot down);

/* Mixture of experts over (n_embd, tokens), without the shared one. */
struct ggml_tensor *engine_experts(struct engine_build *b, struct ggml_tensor *x);

/* `keep`: the rows that are wanted, else t itself. */
struct ggml_tensor *engine_keep_rows(struct engine_build *b, struct ggml_tensor *t, bool keep);

#endif
