/* engine/shard.c - run batches on one device: graphs kept, inputs written, compute.
 *
 * SPDX-License-Identifier: MIT */
#include "base/fail.h"
#include "base/log.h"
#include "engine/engine.h"

#include <ggml-alloc.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Reserve the compute buffer for the largest batches, so that it never moves: built
 * graphs hold addresses into it. */
static int reserve(struct engine_shard *s, const struct mcp_engine *e, mcp_error *err)
{
    bool     head = s->last == e->model->hp.n_layer;
    uint32_t seqs = s->kv.seqs < e->info.ubatch_tokens ? s->kv.seqs : e->info.ubatch_tokens;
    struct engine_segment one = { 0, 1, e->info.ubatch_tokens, s->kv.ctx };
    struct engine_segment all = { 0, seqs, e->info.ubatch_tokens / seqs, s->kv.ctx };
    struct {
        struct engine_segment *segment;
        uint32_t               rows;
    } worst[] = { { &all, seqs }, { &one, e->info.ubatch_tokens } };

    s->compute = ggml_gallocr_new(ggml_backend_dev_buffer_type(s->device->dev));
    if (s->compute == NULL)
        return base_fail(err, MCP_ENOMEM, "graph allocator");
    for (size_t i = 0; i < 2; i++) {
        struct engine_graph *g;
        struct engine_shape  shape = {
             .first = s->first,
             .last = s->last,
             .output = head ? ENGINE_OUTPUT_LOGITS : ENGINE_OUTPUT_HIDDEN,
             .embed = s->embed,
             .tokens = worst[i].segment->tokens * worst[i].segment->streams,
             .rows = head ? worst[i].rows : 0,
             .segment_count = 1,
             .segments = worst[i].segment,
        };
        bool ok;
        int  rc = engine_graph_build(&g, &shape, &e->model->hp, &s->weights, &s->kv, err);

        if (rc < 0)
            return rc;
        ok = ggml_gallocr_reserve(s->compute, g->nodes);
        engine_graph_free(g);
        if (!ok)
            return base_fail(err, MCP_ENOMEM,
                             "a compute buffer for %u tokens does not fit %s; lower -ub or -c",
                             e->info.ubatch_tokens, s->device->name);
    }
    s->compute_bytes = ggml_gallocr_get_buffer_size(s->compute, 0);
    return MCP_OK;
}

/* Can the device widen the embedding's rows itself, and to the very bits that the host
 * would get?  That holds where a value is one product; the others (K-quants) have two terms
 * and round by the order of operations. */
static enum ggml_type embed_type(const struct engine_shard *s, const struct mcp_model *model)
{
    enum ggml_type          type = model->tensors.global[G_TOKEN_EMBD]->type;
    struct ggml_init_params params = { .mem_size = ggml_tensor_overhead() * 4, .no_alloc = true };
    struct ggml_context    *ctx;
    bool                    yes;

    if (type != GGML_TYPE_F32 && type != GGML_TYPE_F16 && type != GGML_TYPE_BF16 &&
        type != GGML_TYPE_Q8_0 && type != GGML_TYPE_Q4_0)
        return GGML_TYPE_COUNT;
    ctx = ggml_init(params);
    if (ctx == NULL)
        return GGML_TYPE_COUNT;
    yes = ggml_backend_dev_supports_op(
        s->device->dev, ggml_get_rows(ctx, ggml_new_tensor_2d(ctx, type, model->hp.n_embd, 8),
                                      ggml_new_tensor_1d(ctx, GGML_TYPE_I32, 8)));
    ggml_free(ctx);
    return yes ? type : GGML_TYPE_COUNT;
}

static enum ggml_type kv_type(mcp_kv_type type)
{
    return type == MCP_KV_Q8_0  ? GGML_TYPE_Q8_0
           : type == MCP_KV_F32 ? GGML_TYPE_F32
                                : GGML_TYPE_F16;
}

/* The products of attention without flash, and those that rotate quantised rows. */
static int try_kv(struct engine_shard *s, const struct model_hparams *hp, mcp_error *err)
{
    const struct engine_kv *kv = &s->kv;
    int                     rc = MCP_OK;

    if (!kv->flash)
        rc = engine_weights_try(&s->weights, kv->type_k, ENGINE_KV_PAD, hp->head_k, s->device, err);
    if (rc == MCP_OK && !kv->flash)
        rc = engine_weights_try(&s->weights, kv->type_v, hp->head_v, ENGINE_KV_PAD, s->device, err);
    if (rc == MCP_OK && kv->rot_k != NULL)
        rc = engine_weights_try(&s->weights, kv->rot_k->type, kv->rot_k->ne[1], kv->rot_k->ne[0],
                                s->device, err);
    if (rc == MCP_OK && kv->rot_v != NULL)
        rc = engine_weights_try(&s->weights, kv->rot_v->type, kv->rot_v->ne[1], kv->rot_v->ne[0],
                                s->device, err);
    return rc;
}

int engine_shard_open(struct engine_shard *s, const struct mcp_engine *e,
                      const mcp_engine_opts *opts, bool flash, mcp_error *err)
{
    int rc;

    s->cancel = &e->cancel;
    rc = engine_weights_load(&s->weights, e->model, s->first, s->last, s->device, opts, err);
    if (rc == MCP_OK)
        rc = engine_kv_open(&s->kv, &e->model->hp, s->first, s->last, e->info.seqs,
                            e->info.ctx_tokens, kv_type(opts->kv_k), kv_type(opts->kv_v), flash,
                            s->device, err);
    if (rc == MCP_OK)
        rc = try_kv(s, &e->model->hp, err);
    s->embed = GGML_TYPE_COUNT;
    if (rc == MCP_OK && s->first == 0)
        s->embed = embed_type(s, e->model);
    for (size_t i = 0; i < 2 && rc == MCP_OK && s->device->gpu; i++)
        s->stage[i].busy = ggml_backend_event_new(s->device->dev);
    if (rc == MCP_OK)
        rc = reserve(s, e, err);
    return rc;
}

void engine_shard_wait(struct engine_shard *s)
{
    ggml_backend_synchronize(s->device->backend);
}

void engine_shard_close(struct engine_shard *s)
{
    if (s->device != NULL)
        engine_shard_wait(s);
    for (size_t i = 0; i < 2; i++) {
        engine_host_free(&s->stage[i].host);
        ggml_backend_event_free(s->stage[i].busy);
    }
    for (size_t i = 0; i < ENGINE_GRAPHS_MAX; i++)
        engine_graph_free(s->graphs[i]);
    ggml_gallocr_free(s->compute);
    engine_kv_close(&s->kv);
    engine_weights_free(&s->weights);
    engine_device_close(s->device);
    memset(s, 0, sizeof(*s));
}

static void forget_graphs(struct engine_shard *s)
{
    for (size_t i = 0; i < ENGINE_GRAPHS_MAX; i++) {
        engine_graph_free(s->graphs[i]);
        s->graphs[i] = NULL;
    }
}

/* The graph of this shape: a kept one, or built in the place of the longest unused. */
static int graph_for(struct engine_shard *s, const struct model_hparams *hp,
                     const struct engine_shape *shape, struct engine_graph **out, mcp_error *err)
{
    struct engine_graph *g;
    size_t               slot = 0, bytes;
    int                  rc;

    for (size_t i = 0; i < ENGINE_GRAPHS_MAX; i++) {
        if (s->graphs[i] != NULL && engine_shape_equal(&s->graphs[i]->shape, shape)) {
            *out = s->graphs[i];
            s->graphs[i]->used = ++s->tick;
            return MCP_OK;
        }
    }
    for (size_t i = 0; i < ENGINE_GRAPHS_MAX; i++) {
        if (s->graphs[i] == NULL) {
            slot = i;
            break;
        }
        if (s->graphs[i]->used < s->graphs[slot]->used)
            slot = i;
    }
    if (s->graphs[slot] != NULL)
        engine_shard_wait(s); /* it may be computing */
    engine_graph_free(s->graphs[slot]);
    s->graphs[slot] = NULL;

    rc = engine_graph_build(&g, shape, hp, &s->weights, &s->kv, err);
    if (rc < 0)
        return rc;
    if (!ggml_gallocr_alloc_graph(s->compute, g->nodes)) {
        engine_graph_free(g);
        forget_graphs(s); /* the buffer they point into may be gone */
        return base_fail(err, MCP_ENOMEM,
                         "a compute buffer for %u tokens does not fit %s; lower -ub", shape->tokens,
                         s->device->name);
    }
    bytes = ggml_gallocr_get_buffer_size(s->compute, 0);
    if (bytes != s->compute_bytes) { /* it grew after all, and so moved */
        base_log(BASE_LOG_DETAIL, "compute buffer of %s grew from %zu to %zu KiB", s->device->name,
                 s->compute_bytes >> 10, bytes >> 10);
        s->compute_bytes = bytes;
        forget_graphs(s);
    }
    g->used = ++s->tick;
    s->graphs[slot] = g;
    *out = g;
    return MCP_OK;
}

/* ---- inputs ----------------------------------------------------------------------------- */

/* Where an input is written: the tensor itself on the CPU, else a host copy that is sent
 * when complete. */
struct writer {
    struct engine_shard *s;
    uint8_t             *stage; /* NULL on the CPU */
    size_t               used;
};

/* NULL when the graph does not use the tensor. */
static void *write_begin(struct writer *w, struct ggml_tensor *t)
{
    void *place;

    if (t == NULL || t->buffer == NULL)
        return NULL;
    if (w->stage == NULL)
        return t->data;
    place = w->stage + w->used;
    w->used += (ggml_nbytes(t) + 63) / 64 * 64;
    return place;
}

static void write_end(struct writer *w, struct ggml_tensor *t, const void *place)
{
    if (place != NULL && w->stage != NULL)
        ggml_backend_tensor_set_async(w->s->device->backend, t, place, 0, ggml_nbytes(t));
}

/* One segment's mask: token i of a sequence sees rows 0..its own position. */
static void write_mask(struct writer *w, struct ggml_tensor *t, const struct engine_segment *seg,
                       const int32_t *positions, bool flash)
{
    static const uint16_t half_minus_infinity = 0xFC00;
    size_t                rows = (size_t)seg->tokens * seg->streams;
    void                 *place = write_begin(w, t);

    if (place == NULL)
        return;
    for (size_t i = 0; i < rows; i++) {
        uint32_t seen = (uint32_t)positions[i] + 1;

        if (flash) {
            uint16_t *row = (uint16_t *)place + i * seg->columns;

            memset(row, 0, seen * sizeof(*row));
            for (uint32_t j = seen; j < seg->columns; j++)
                row[j] = half_minus_infinity;
        } else {
            float *row = (float *)place + i * seg->columns;

            memset(row, 0, seen * sizeof(*row));
            for (uint32_t j = seen; j < seg->columns; j++)
                row[j] = -INFINITY;
        }
    }
    write_end(w, t, place);
}

static void write_cells(struct writer *w, const struct engine_graph *g,
                        const struct engine_batch *batch)
{
    const struct engine_kv *kv = &w->s->kv;
    int64_t                *place = write_begin(w, g->cell_k);

    if (place != NULL) {
        for (uint32_t i = 0; i < batch->shape.tokens; i++)
            place[i] = (int64_t)batch->sequences[i] * kv->ctx + batch->positions[i];
        write_end(w, g->cell_k, place);
    }
    if (g->cell_v == g->cell_k)
        return;
    place = write_begin(w, g->cell_v);
    if (place == NULL)
        return;
    for (uint32_t i = 0; i < batch->shape.tokens; i++) {
        int64_t region = (int64_t)batch->sequences[i] * kv->ctx * kv->width_v;

        for (uint32_t j = 0; j < kv->width_v; j++)
            place[(size_t)i * kv->width_v + j] = region + (int64_t)j * kv->ctx +
                                                 batch->positions[i];
    }
    write_end(w, g->cell_v, place);
}

static void write_plain(struct writer *w, struct ggml_tensor *t, const void *data)
{
    void *place = write_begin(w, t);

    if (place == NULL)
        return;
    memcpy(place, data, ggml_nbytes(t));
    write_end(w, t, place);
}

/* The hidden state as it came, or the tokens' embeddings: raw rows that the device widens,
 * or widened here. */
static void write_input(struct writer *w, const struct engine_graph *g,
                        const struct engine_batch *batch, const struct mcp_model *model)
{
    const struct model_tensor *embd = model->tensors.global[G_TOKEN_EMBD];
    size_t                     to = g->input->nb[1];
    uint8_t                   *place = write_begin(w, g->input);
    int32_t                   *order;

    if (batch->hidden != NULL) {
        memcpy(place, batch->hidden, ggml_nbytes(g->input));
        write_end(w, g->input, place);
        return;
    }
    for (uint32_t i = 0; i < batch->shape.tokens; i++) {
        if (g->input->type == embd->type)
            memcpy(place + i * to, embd->data + (size_t)batch->tokens[i] * to, to);
        else
            model_embed(embd, batch->tokens[i], (float *)(place + i * to));
    }
    write_end(w, g->input, place);
    order = write_begin(w, g->order);
    if (order == NULL)
        return;
    for (uint32_t i = 0; i < batch->shape.tokens; i++)
        order[i] = (int32_t)i;
    write_end(w, g->order, order);
}

static size_t inputs_bytes(const struct engine_graph *g)
{
    const struct ggml_tensor *const inputs[] = { g->input,  g->order,  g->position,
                                                 g->cell_k, g->cell_v, g->row_index };
    size_t                          bytes = 0;

    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++)
        bytes += inputs[i] == NULL ? 0 : ggml_nbytes(inputs[i]) + 64;
    for (uint32_t i = 0; i < g->shape.segment_count; i++)
        bytes += ggml_nbytes(g->mask[i]) + 64;
    return bytes;
}

/* A stage whose last copies are done, with room for the graph's inputs. */
static int open_stage(struct engine_shard *s, const struct engine_graph *g, struct writer *w,
                      mcp_error *err)
{
    size_t   bytes = inputs_bytes(g);
    uint32_t i = s->stage_next;

    s->stage_next ^= 1;
    if (s->stage[i].pending && s->stage[i].busy != NULL)
        ggml_backend_event_synchronize(s->stage[i].busy);
    else if (s->stage[i].pending)
        engine_shard_wait(s);
    s->stage[i].pending = true;
    if (s->stage[i].host.bytes < bytes) {
        engine_host_free(&s->stage[i].host);
        s->stage[i].host = engine_host_new(s->device, bytes);
        if (s->stage[i].host.data == NULL) {
            s->stage[i].host.bytes = 0;
            return base_fail(err, MCP_ENOMEM, "%zu bytes of graph inputs", bytes);
        }
    }
    w->stage = s->stage[i].host.data;
    return MCP_OK;
}

static int write_inputs(struct engine_shard *s, const struct engine_graph *g,
                        const struct engine_batch *batch, const struct mcp_model *model,
                        mcp_error *err)
{
    struct writer w = { .s = s };
    uint32_t      token = 0, stage = s->stage_next;

    if (s->device->gpu) {
        int rc = open_stage(s, g, &w, err);

        if (rc < 0)
            return rc;
    }
    write_input(&w, g, batch, model);
    write_plain(&w, g->position, batch->positions);
    write_cells(&w, g, batch);
    if (g->row_index != NULL)
        write_plain(&w, g->row_index, batch->rows);
    for (uint32_t i = 0; i < g->shape.segment_count; i++) {
        const struct engine_segment *seg = &g->shape.segments[i];

        write_mask(&w, g->mask[i], seg, batch->positions + token, s->kv.flash);
        token += seg->tokens * seg->streams;
    }
    if (s->device->gpu && s->stage[stage].busy != NULL)
        ggml_backend_event_record(s->stage[stage].busy, s->device->backend);
    return MCP_OK;
}

int engine_shard_run(struct engine_shard *s, const struct mcp_model *model,
                     const struct engine_batch *batch, float *out, mcp_error *err)
{
    struct engine_shape  shape = batch->shape;
    struct engine_graph *g = NULL;
    enum ggml_status     status;
    int                  rc;

    shape.embed = batch->hidden != NULL ? GGML_TYPE_COUNT : s->embed;
    rc = graph_for(s, &model->hp, &shape, &g, err);
    if (rc == MCP_OK)
        rc = write_inputs(s, g, batch, model, err);
    if (rc < 0)
        return rc;

    status = engine_device_compute(s->device, g->nodes, batch->reference, s->cancel);
    if (status == GGML_STATUS_SUCCESS && g->output != NULL) {
        ggml_backend_tensor_get_async(s->device->backend, g->output, out, 0,
                                      ggml_nbytes(g->output));
        engine_shard_wait(s);
    }

    if (status == GGML_STATUS_ABORTED)
        return base_fail(err, MCP_ECANCELED, "the forward was cancelled");
    if (status == GGML_STATUS_ALLOC_FAILED)
        return base_fail(err, MCP_ENOMEM, "device %s ran out of memory while computing",
                         s->device->name);
    if (status != GGML_STATUS_SUCCESS)
        return base_fail(err, MCP_EDEVICE, "device %s failed while computing", s->device->name);
    return MCP_OK;
}
