/* bench/peer.h - libllama, set up as llama-bench and llama-batched-bench set it up.
 *
 * A peer is worth beating only at its best: a threadpool is attached (without one, a
 * ggml built without OpenMP starts threads anew for every graph), the model stays
 * loaded, the KV cache is kept between rounds, weights may be repacked.  One thread.
 *
 * Backends must be registered before peer_model_open(): a portable build loads them at run
 * time, in the first mcp_devices() or by ggml_backend_load_all_from_path(). */
/* SPDX-License-Identifier: MIT */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include "bench.h"

#include <ggml-backend.h>
#include <ggml.h>
#include <llama.h>

enum { PEER_BATCH = 2048, PEER_UBATCH = 512 }; /* -b and -ub of llama-bench */

struct peer_model {
    struct llama_model *model;
    const char         *device;     /* "cpu", "cuda0" */
    ggml_backend_dev_t  devices[2]; /* NULL-terminated; empty keeps every layer on the CPU */
    uint32_t            n_vocab;
    uint32_t            n_embd;
};

/* One context; sequences 0..seqs-1, each with room for ctx positions. */
struct peer {
    const struct peer_model *model;
    struct llama_context    *ctx;
    struct ggml_threadpool  *pool;
    void (*pool_free)(struct ggml_threadpool *);
    struct llama_batch batch;
    uint32_t           seqs;
};

struct peer_opts {
    uint32_t ctx; /* positions a sequence; rounded up to 256 by libllama */
    uint32_t seqs;
    uint32_t threads;
    int      flash;   /* 0 or 1 */
    int      unified; /* one KV buffer for all sequences instead of one region each */
};

static inline void peer_log(enum ggml_log_level level, const char *text, void *ctx)
{
    (void)ctx;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

static inline void peer_model_open(struct peer_model *m, const char *path, const char *device,
                                   int32_t gpu_layers)
{
    struct llama_model_params params = llama_model_default_params();

    memset(m, 0, sizeof(*m));
    m->device = device;
    if (strcmp(device, "cpu") != 0) {
        m->devices[0] = ggml_backend_dev_by_name(device);
        if (m->devices[0] == NULL)
            bench_die("libllama has no device %s: is LD_LIBRARY_PATH right?", device);
    }
    params.devices = m->devices;
    params.n_gpu_layers = m->devices[0] == NULL ? 0 : gpu_layers;
    m->model = llama_model_load_from_file(path, params);
    if (m->model == NULL)
        bench_die("libllama cannot load %s", path);
    m->n_vocab = (uint32_t)llama_vocab_n_tokens(llama_model_get_vocab(m->model));
    m->n_embd = (uint32_t)llama_model_n_embd(m->model);
}

static inline void peer_model_close(struct peer_model *m)
{
    llama_model_free(m->model);
    memset(m, 0, sizeof(*m));
}

/* The pool is made through the registry because a portable build has the CPU backend in a
 * library of its own, chosen at run time. */
static inline void peer_pool_attach(struct peer *p, uint32_t threads)
{
    ggml_backend_dev_t            cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    ggml_backend_reg_t            reg = cpu == NULL ? NULL : ggml_backend_dev_backend_reg(cpu);
    struct ggml_threadpool_params params = ggml_threadpool_params_default((int)threads);
    struct ggml_threadpool *(*pool_new)(struct ggml_threadpool_params *) = NULL;
    void *f;

    if (reg == NULL)
        bench_die("ggml has no CPU backend registered");
    f = ggml_backend_reg_get_proc_address(reg, "ggml_threadpool_new");
    memcpy(&pool_new, &f, sizeof(f)); /* ISO C has no cast from data to function pointer */
    f = ggml_backend_reg_get_proc_address(reg, "ggml_threadpool_free");
    memcpy(&p->pool_free, &f, sizeof(f));
    p->pool = pool_new == NULL ? NULL : pool_new(&params);
    if (p->pool == NULL)
        bench_die("no threadpool of %u threads", threads);
    llama_attach_threadpool(p->ctx, p->pool, NULL);
}

static inline void peer_open(struct peer *p, const struct peer_model *m,
                             const struct peer_opts *opts)
{
    struct llama_context_params params = llama_context_default_params();

    memset(p, 0, sizeof(*p));
    p->model = m;
    p->seqs = opts->seqs;
    params.n_ctx = opts->ctx * opts->seqs;
    params.n_batch = PEER_BATCH;
    params.n_ubatch = PEER_UBATCH;
    params.n_seq_max = opts->seqs;
    params.n_threads = params.n_threads_batch = (int32_t)opts->threads;
    params.flash_attn_type = opts->flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED
                                         : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.kv_unified = opts->unified;
    params.no_perf = true;
    p->ctx = llama_init_from_model(m->model, params);
    if (p->ctx == NULL)
        bench_die("libllama cannot make a context of %u x %u tokens", opts->seqs, opts->ctx);
    peer_pool_attach(p, opts->threads);
    p->batch = llama_batch_init(PEER_BATCH, 0, 1);
}

static inline void peer_close(struct peer *p)
{
    if (p->ctx == NULL)
        return;
    llama_batch_free(p->batch);
    llama_free(p->ctx);
    p->pool_free(p->pool);
    memset(p, 0, sizeof(*p));
}

/* `count` tokens at `pos` in each of sequences 0..seqs-1, in one call; logits for the
 * last token of each.  Returns when the device is done. */
static inline void peer_forward(struct peer *p, uint32_t seqs, uint32_t pos, uint32_t count)
{
    struct llama_batch *b = &p->batch;

    b->n_tokens = 0;
    for (uint32_t s = 0; s < seqs; s++) {
        for (uint32_t i = 0; i < count; i++) {
            int32_t n = b->n_tokens++;

            b->token[n] = bench_token(s, pos + i, p->model->n_vocab);
            b->pos[n] = (llama_pos)(pos + i);
            b->n_seq_id[n] = 1;
            b->seq_id[n][0] = (llama_seq_id)s;
            b->logits[n] = i + 1 == count;
        }
    }
    if (llama_decode(p->ctx, *b) != 0)
        bench_die("llama_decode failed: %u sequences x %u tokens at %u", seqs, count, pos);
    llama_synchronize(p->ctx);
}

static inline void peer_trim(struct peer *p, uint32_t pos)
{
    for (uint32_t s = 0; s < p->seqs; s++)
        llama_memory_seq_rm(llama_get_memory(p->ctx), (llama_seq_id)s, (llama_pos)pos, -1);
}

/* Give every sequence the same `depth` positions.  One is computed, the others are copies
 * of its state: as many cells in use as if all were computed, which llama_memory_seq_cp()
 * would not give (a unified cache shares the cells, which makes attention cheaper). */
static inline void peer_fill(struct peer *p, uint32_t depth)
{
    size_t   bytes;
    uint8_t *state;

    llama_memory_clear(llama_get_memory(p->ctx), false);
    for (uint32_t pos = 0; pos < depth; pos += PEER_BATCH)
        peer_forward(p, 1, pos, depth - pos < PEER_BATCH ? depth - pos : PEER_BATCH);
    if (depth == 0 || p->seqs == 1)
        return;
    bytes = llama_state_seq_get_size(p->ctx, 0);
    state = bench_alloc(bytes, 1);
    if (llama_state_seq_get_data(p->ctx, state, bytes, 0) != bytes)
        bench_die("libllama cannot save %zu bytes of state", bytes);
    for (uint32_t s = 1; s < p->seqs; s++) {
        if (llama_state_seq_set_data(p->ctx, state, bytes, (llama_seq_id)s) == 0)
            bench_die("libllama cannot restore a state into sequence %u", s);
    }
    free(state);
}

#endif
