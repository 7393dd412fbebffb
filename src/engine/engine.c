/* engine/engine.c - opening an engine, and what needs no computing.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/engine.h"

#include "base/fail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CTX_DEFAULT = 4096 };

/* ---- opening ---------------------------------------------------------------------------- */

static int in_range(const char *what, uint32_t value, uint32_t min, uint32_t max, mcp_error *err)
{
    if (value >= min && value <= max)
        return MCP_OK;
    return base_fail(err, MCP_ERANGE, "%s is %u, must be %u to %u", what, value, min, max);
}

static int check_opts(struct mcp_engine *e, const mcp_engine_opts *o, mcp_error *err)
{
    const struct model_hparams *hp = &e->model->hp;
    mcp_engine_info            *info = &e->info;
    uint32_t                    cpus = engine_cpus() * ENGINE_THREADS_PER_CPU;
    int                         rc;

    info->first = o->first;
    info->last = o->last == 0 ? hp->n_layer : o->last;
    if (info->first >= info->last || info->last > hp->n_layer)
        return base_fail(err, MCP_ERANGE, "layers [%u, %u) are not a range of the model's %u",
                         info->first, info->last, hp->n_layer);
    info->ctx_tokens = o->ctx_tokens != 0              ? o->ctx_tokens
                       : hp->n_ctx_train < CTX_DEFAULT ? hp->n_ctx_train
                                                       : CTX_DEFAULT;
    info->seqs = o->seqs;
    info->batch_tokens = o->batch_tokens;
    info->ubatch_tokens = o->ubatch_tokens < o->batch_tokens ? o->ubatch_tokens : o->batch_tokens;
    info->threads = o->beside != NULL ? o->beside->info.threads
                    : o->threads == 0 ? engine_cores()
                                      : o->threads;

    rc = in_range("-c (tokens a sequence)", info->ctx_tokens, 1, MODEL_CTX_MAX, err);
    if (rc == MCP_OK)
        rc = in_range("sequences", info->seqs, 1, ENGINE_SEQS_MAX, err);
    if (rc == MCP_OK)
        rc = in_range("-b (tokens a batch)", info->batch_tokens, 1, ENGINE_BATCH_MAX, err);
    if (rc == MCP_OK)
        rc = in_range("-ub (tokens computed at once)", info->ubatch_tokens, 1, ENGINE_BATCH_MAX,
                      err);
    if (rc == MCP_OK)
        rc = in_range("-t (threads)", info->threads, 1,
                      cpus < ENGINE_THREADS_MAX ? cpus : ENGINE_THREADS_MAX, err);
    if (rc == MCP_OK)
        rc = in_range("polling level", o->poll, 0, 100, err);
    if (rc == MCP_OK && (o->kv_k < MCP_KV_F16 || o->kv_k > MCP_KV_F32 || o->kv_v < MCP_KV_F16 ||
                         o->kv_v > MCP_KV_F32))
        rc = base_fail(err, MCP_EINVAL, "KV type is none of f16, q8_0, f32");
    return rc;
}

/* Would this device run flash attention with the model's head sizes? */
static bool flash_supported(const struct mcp_engine *e, ggml_backend_dev_t dev,
                            enum ggml_type type_k, enum ggml_type type_v)
{
    const struct model_hparams *hp = &e->model->hp;
    struct ggml_init_params params = { .mem_size = ggml_tensor_overhead() * 8, .no_alloc = true };
    struct ggml_context    *ctx = ggml_init(params);
    struct ggml_tensor     *q, *k, *v, *mask, *y;
    bool                    yes;

    if (ctx == NULL)
        return false;
    if (hp->head_k % (uint32_t)ggml_blck_size(type_k) != 0 ||
        hp->head_v % (uint32_t)ggml_blck_size(type_v) != 0) {
        ggml_free(ctx); /* the KV store will say why */
        return true;
    }
    q = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, hp->head_k, 1, hp->n_head, 1);
    k = ggml_new_tensor_4d(ctx, type_k, hp->head_k, ENGINE_KV_PAD, hp->n_head_kv, 1);
    v = ggml_new_tensor_4d(ctx, type_v, hp->head_v, ENGINE_KV_PAD, hp->n_head_kv, 1);
    if (hp->mla)
        v = ggml_view_4d(ctx, k, hp->head_v, ENGINE_KV_PAD, 1, 1, k->nb[1], k->nb[2], k->nb[3], 0);
    mask = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, ENGINE_KV_PAD, 1, 1, 1);
    y = ggml_flash_attn_ext(ctx, q, k, v, mask, 1.0f, 0.0f, 0.0f);
    ggml_prec_set_acc(y, GGML_PREC_F32);
    yes = ggml_backend_dev_supports_op(dev, y);
    ggml_free(ctx);
    return yes;
}

static ggml_backend_dev_t device_of(const char *name)
{
    /* ggml compares without regard to case. */
    return ggml_backend_dev_by_name(name);
}

static int choose_flash(const struct mcp_engine *e, const mcp_engine_opts *o,
                        const char *const *devices, uint32_t count, bool *flash, mcp_error *err)
{
    enum ggml_type type_k = o->kv_k == MCP_KV_Q8_0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
    enum ggml_type type_v = o->kv_v == MCP_KV_Q8_0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;

    *flash = o->flash != MCP_FLASH_OFF;
    if (o->kv_k == MCP_KV_F32 || o->kv_v == MCP_KV_F32) {
        /* ggml's kernels would round such keys to f16 again, so nothing would be won. */
        if (o->flash == MCP_FLASH_ON)
            return base_fail(err, MCP_ENOTSUP, "a KV cache in f32 needs -fa off");
        *flash = false;
    }
    for (uint32_t i = 0; i < count && *flash; i++) {
        ggml_backend_dev_t dev = device_of(devices[i]);

        if (dev == NULL || flash_supported(e, dev, type_k, type_v))
            continue;
        if (o->flash == MCP_FLASH_ON)
            return base_fail(err, MCP_ENOTSUP,
                             "device %s has no flash attention for heads of %u; use -fa off",
                             devices[i], e->model->hp.head_k);
        *flash = false;
    }
    return MCP_OK;
}

/* Which devices hold which layers: the last gpu_layers on the GPU, the rest on the CPU. */
static uint32_t plan_shards(struct mcp_engine *e, const mcp_engine_opts *o, const char *devices[2])
{
    const char *best = o->beside != NULL
                           ? o->beside->shards[o->beside->shard_count - 1].device->name
                           : engine_device_best();
    const char *name = strcmp(o->device, "auto") == 0 ? best : o->device;
    uint32_t    layers = e->info.last - e->info.first;
    uint32_t    on_gpu = o->gpu_layers < 0 || (uint32_t)o->gpu_layers > layers
                             ? layers
                             : (uint32_t)o->gpu_layers;
    uint32_t    count = 0;

    if (strcmp(name, "cpu") == 0)
        on_gpu = 0;
    if (on_gpu < layers) {
        devices[count] = "cpu";
        e->shards[count].first = e->info.first;
        e->shards[count].last = e->info.last - on_gpu;
        count++;
    }
    if (on_gpu > 0) {
        devices[count] = name;
        e->shards[count].first = e->info.last - on_gpu;
        e->shards[count].last = e->info.last;
        count++;
    }
    return count;
}

/* The device of a shard: its own, or that of the engine beside. */
static int take_device(struct engine_device **out, const struct mcp_engine *e,
                       const mcp_engine_opts *o, const char *name, mcp_error *err)
{
    if (o->beside == NULL)
        return engine_device_open(out, name, e->info.threads, o->poll, err);
    for (uint32_t i = 0; i < o->beside->shard_count; i++) {
        if (strcmp(o->beside->shards[i].device->name, name) == 0) {
            *out = engine_device_share(o->beside->shards[i].device);
            return MCP_OK;
        }
    }
    return base_fail(err, MCP_EINVAL,
                     "an engine on %.32s cannot share the device of the engine beside it, which "
                     "runs on %s",
                     name, o->beside->info.devices);
}

static int make_scratch(struct mcp_engine *e, mcp_error *err)
{
    e->tokens = calloc(e->info.ubatch_tokens, sizeof(*e->tokens));
    e->pieces = calloc(e->info.seqs, sizeof(*e->pieces));
    e->segments = calloc(e->info.seqs, sizeof(*e->segments));
    e->positions = calloc(e->info.ubatch_tokens, sizeof(*e->positions));
    e->sequences = calloc(e->info.ubatch_tokens, sizeof(*e->sequences));
    e->rows = calloc(e->info.ubatch_tokens, sizeof(*e->rows));
    e->seen = calloc(e->info.seqs, 1);
    if (e->tokens == NULL || e->pieces == NULL || e->segments == NULL || e->positions == NULL ||
        e->sequences == NULL || e->rows == NULL || e->seen == NULL)
        return base_fail(err, MCP_ENOMEM, "a batch of %u tokens in %u sequences",
                         e->info.ubatch_tokens, e->info.seqs);
    return MCP_OK;
}

int engine_open(struct mcp_engine **out, const struct mcp_model *model, const mcp_engine_opts *opts,
                mcp_error *err)
{
    struct mcp_engine *e = calloc(1, sizeof(*e));
    const char        *devices[ENGINE_SHARDS_MAX];
    bool               flash;
    size_t             used = 0;
    int                rc;

    *out = NULL;
    if (e == NULL)
        return base_fail(err, MCP_ENOMEM, "engine");
    e->model = model;
    engine_devices_init();
    rc = check_opts(e, opts, err);
    if (rc == MCP_OK)
        rc = make_scratch(e, err);
    if (rc < 0)
        goto out;

    e->shard_count = plan_shards(e, opts, devices);
    rc = choose_flash(e, opts, devices, e->shard_count, &flash, err);
    for (uint32_t i = 0; i < e->shard_count && rc == MCP_OK; i++) {
        struct engine_shard *s = &e->shards[i];
        size_t               room = sizeof(e->info.devices) - used;

        rc = take_device(&s->device, e, opts, devices[i], err);
        if (rc == MCP_OK)
            rc = engine_shard_open(s, e, opts, flash, err);
        e->info.weight_bytes += s->weights.bytes;
        e->info.kv_bytes += engine_kv_bytes(&s->kv);
        e->info.compute_bytes += s->compute_bytes;
        if (e->shard_count == 1)
            snprintf(e->info.devices, room, "%.64s", devices[i]);
        else if (room > 1)
            used += (size_t)snprintf(e->info.devices + used, room, "%s%.32s [%u,%u)",
                                     i > 0 ? " + " : "", devices[i], s->first, s->last);
    }
    for (size_t i = 0; i < 2 && rc == MCP_OK; i++) {
        e->hidden[i] = engine_host_new(e->shards[e->shard_count - 1].device,
                                       (size_t)e->info.ubatch_tokens * model->hp.n_embd *
                                           sizeof(float));
        if (e->hidden[i].data == NULL)
            rc = base_fail(err, MCP_ENOMEM, "hidden states of %u tokens", e->info.ubatch_tokens);
    }
    if (rc < 0)
        goto out;
    /* The tokenizer has been loading meanwhile; its thread must not take a core from compute
     * threads that wait for each other.  Whether it loaded is not the engine's business. */
    (void)model_get_vocab(model, NULL);
    e->info.flash = flash;
    e->info.even_windows = 1;
    for (uint32_t i = 0; i < e->shard_count; i++) {
        e->even = e->even || (opts->even_windows != 0 && !e->shards[i].device->gpu);
        e->info.even_windows &= e->shards[i].weights.even;
    }
    if (e->info.first == 0)
        e->info.weight_bytes += model->tensors.global[G_TOKEN_EMBD]->bytes;
    *out = e;
    e = NULL;
out:
    engine_close(e);
    return rc;
}

void engine_close(struct mcp_engine *e)
{
    if (e == NULL)
        return;
    for (size_t i = 0; i < 2; i++)
        engine_host_free(&e->hidden[i]);
    for (uint32_t i = 0; i < e->shard_count; i++)
        engine_shard_close(&e->shards[i]);
    free(e->tokens);
    free(e->pieces);
    free(e->segments);
    free(e->positions);
    free(e->sequences);
    free(e->rows);
    free(e->seen);
    free(e);
}

struct engine_shard *engine_shard_of(struct mcp_engine *e, uint32_t layer)
{
    for (uint32_t i = 0; i < e->shard_count; i++)
        if (layer >= e->shards[i].first && layer < e->shards[i].last)
            return &e->shards[i];
    return NULL;
}

int engine_check_range(const struct mcp_engine *e, uint32_t first, uint32_t last, mcp_error *err)
{
    if (first < last && first >= e->info.first && last <= e->info.last)
        return MCP_OK;
    return base_fail(err, MCP_ERANGE, "layers [%u, %u) are not a range of the loaded [%u, %u)",
                     first, last, e->info.first, e->info.last);
}

/* ---- sequences --------------------------------------------------------------------------- */

int engine_trim(struct mcp_engine *e, uint32_t seq, uint32_t pos, mcp_error *err)
{
    if (seq >= e->info.seqs)
        return base_fail(err, MCP_ERANGE, "sequence %u: the engine has %u", seq, e->info.seqs);
    for (uint32_t layer = e->info.first; layer < e->info.last; layer++) {
        uint32_t *length = engine_kv_length(&engine_shard_of(e, layer)->kv, seq, layer);

        if (*length > pos)
            *length = pos;
    }
    for (uint32_t i = 0; i < e->shard_count && pos == 0; i++)
        engine_kv_clear(&e->shards[i].kv, seq);
    return MCP_OK;
}

/* ---- memory that devices copy fast ------------------------------------------------------- */

/* In front of the caller's floats, so that freeing needs no table. */
union host_header {
    struct engine_host host;
    uint8_t            pad[64]; /* keeps the floats aligned for vector loads */
};

float *engine_alloc(struct mcp_engine *e, size_t floats)
{
    const struct engine_device *device = e->shards[e->shard_count - 1].device;
    union host_header          *h;
    struct engine_host          host;

    if (floats > (SIZE_MAX - sizeof(*h)) / sizeof(float))
        return NULL;
    host = engine_host_new(device, sizeof(*h) + floats * sizeof(float));
    if (host.data == NULL)
        return NULL;
    h = host.data;
    h->host = host;
    return (float *)(h + 1);
}

void engine_free(float *memory)
{
    struct engine_host host;

    if (memory == NULL)
        return;
    host = ((union host_header *)(void *)memory - 1)->host;
    engine_host_free(&host);
}
