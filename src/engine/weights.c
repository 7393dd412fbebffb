/* engine/weights.c - see weights.h.
 *
 * Which buffer type a tensor goes to is llama.cpp's rule (llama-model-loader.cpp): the
 * first one, best first, on which the device supports the operation that reads it.
 * Keeping to that rule is what makes speed and bits equal.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/weights.h"

#include "base/fail.h"
#include "base/log.h"
#include "engine/even.h"

#include <ggml-alloc.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    /* A GPU upload goes in pieces so that the mapped pages behind it can be dropped. */
    UPLOAD_BYTES = 64 << 20,
    TRIALS_MAX =
        32, /* results kept: types x buffer types x widths; what is beyond is tried again */
};

struct engine_weights_group {
    ggml_backend_buffer_type_t  buft;   /* NULL: mapped */
    void                       *memory; /* of ctx: ggml would abort where malloc fails */
    struct ggml_context        *ctx;
    ggml_backend_buffer_t      *buffers; /* mapped: one a part; else one */
    uint32_t                    buffer_count;
    const struct model_tensor **source; /* in the order of the context's tensors */
    uint32_t                    tensor_count;
};

/* Everything that load needs to know, so that its steps stay short. */
struct loading {
    struct engine_weights  *w;
    const struct mcp_model *model;
    struct engine_device   *device;
    bool                    repack;
    uint32_t                tensors_max;
    struct {
        struct engine_even_weight weight;
        enum engine_even          even;
    } tried[TRIALS_MAX];
    uint32_t   tried_count;
    mcp_error *err;
};

/* Would the device run the operation on a weight in this buffer type? */
static bool buft_supports(const struct loading *l, const struct model_tensor *t,
                          enum model_role role, ggml_backend_buffer_type_t buft)
{
    struct ggml_init_params params = { .mem_size = ggml_tensor_overhead() * 8, .no_alloc = true };
    struct ggml_context    *ctx = ggml_init(params);
    struct ggml_tensor     *w, *op = NULL;
    const int               tokens = 512; /* llama.cpp asks with this many */
    const int               used = (int)l->model->hp.n_expert_used;
    bool                    yes;

    if (ctx == NULL)
        return false;
    w = ggml_new_tensor(ctx, t->type, GGML_MAX_DIMS, t->ne);
    switch (role) {
    case MODEL_ROLE_MATMUL:
    case MODEL_ROLE_ROWS: /* a tied embedding, asked for as the head */
        op = ggml_mul_mat(
            ctx, w, ggml_new_tensor_4d(ctx, GGML_TYPE_F32, t->ne[0], tokens, t->ne[2], t->ne[3]));
        break;
    case MODEL_ROLE_MATMUL_ID:
        op = ggml_mul_mat_id(ctx, w, ggml_new_tensor_3d(ctx, GGML_TYPE_F32, t->ne[0], used, tokens),
                             ggml_new_tensor_2d(ctx, GGML_TYPE_I32, used, tokens));
        break;
    case MODEL_ROLE_NORM:
        op = ggml_mul(ctx, ggml_new_tensor(ctx, GGML_TYPE_F32, GGML_MAX_DIMS, t->ne), w);
        break;
    case MODEL_ROLE_BIAS:
        op = ggml_add(ctx, ggml_new_tensor(ctx, GGML_TYPE_F32, GGML_MAX_DIMS, t->ne), w);
        break;
    case MODEL_ROLE_FREQS:
        op = ggml_rope_ext(ctx,
                           ggml_new_tensor_3d(ctx, GGML_TYPE_F32, l->model->hp.head_k,
                                              l->model->hp.n_head, tokens),
                           ggml_new_tensor_1d(ctx, GGML_TYPE_I32, tokens), w,
                           (int)l->model->hp.rope.n_rot, l->model->hp.rope.mode, 0, 1e4f, 1.0f,
                           0.0f, 1.0f, 32.0f, 1.0f);
        break;
    }
    w->buffer = ggml_backend_buft_alloc_buffer(buft, 0);
    yes = ggml_backend_dev_supports_op(l->device->dev, op);
    ggml_backend_buffer_free(w->buffer);
    ggml_free(ctx);
    return yes;
}

/* The group for a buffer type, made on first use.  NULL when out of memory. */
static struct engine_weights_group *group_for(struct loading *l, ggml_backend_buffer_type_t buft)
{
    struct engine_weights       *w = l->w;
    struct engine_weights_group *grown, *g;
    struct ggml_init_params      params = { .mem_size = ggml_tensor_overhead() * l->tensors_max,
                                            .no_alloc = true };

    for (uint32_t i = 0; i < w->group_count; i++)
        if (w->groups[i].buft == buft)
            return &w->groups[i];
    grown = realloc(w->groups, (w->group_count + 1) * sizeof(*grown));
    if (grown == NULL)
        return NULL;
    w->groups = grown;
    g = &w->groups[w->group_count];
    memset(g, 0, sizeof(*g));
    g->buft = buft;
    g->memory = params.mem_buffer = malloc(params.mem_size);
    if (g->memory != NULL)
        g->ctx = ggml_init(params);
    g->source = calloc(l->tensors_max, sizeof(*g->source));
    w->group_count++;
    return g->ctx != NULL && g->source != NULL ? g : NULL;
}

static bool tried_equal(const struct engine_even_weight *a, const struct engine_even_weight *b)
{
    return a->type == b->type && a->width == b->width && a->rows == b->rows &&
           a->by_id == b->by_id && a->buft == b->buft;
}

/* Would products with the tensor be even in this buffer type?  Tensors of one shape are tried
 * once. */
static int try_even(struct loading *l, const struct model_tensor *t, enum model_role role,
                    ggml_backend_buffer_type_t buft, enum engine_even *even)
{
    struct engine_even_weight weight = {
        .type = t->type,
        .width = t->ne[0],
        .rows = t->ne[1],
        .data = t->data,
        .by_id = role == MODEL_ROLE_MATMUL_ID,
        .buft = buft,
    };
    int rc;

    for (uint32_t i = 0; i < l->tried_count; i++) {
        if (tried_equal(&l->tried[i].weight, &weight)) {
            *even = l->tried[i].even;
            return MCP_OK;
        }
    }
    rc = engine_even_try(even, l->device, &weight, l->err);
    if (rc == MCP_OK && l->tried_count < TRIALS_MAX) {
        l->tried[l->tried_count].weight = weight;
        l->tried[l->tried_count++].even = *even;
    }
    return rc;
}

static bool is_product(enum model_role role)
{
    return role == MODEL_ROLE_MATMUL || role == MODEL_ROLE_MATMUL_ID || role == MODEL_ROLE_ROWS;
}

/* The first buffer type, best first, in which the device can compute with the tensor, and
 * evenly if that is wanted.  *out is NULL when there is none. */
static int choose_buft(struct loading *l, const struct model_tensor *t, enum model_role role,
                       ggml_backend_buffer_type_t *out)
{
    ggml_backend_buffer_type_t own = ggml_backend_dev_buffer_type(l->device->dev), best = NULL;
    uint32_t                   extra = l->repack ? l->device->extra_count : 0;

    *out = NULL;
    for (uint32_t i = 0; i <= extra; i++) {
        ggml_backend_buffer_type_t buft = i < extra ? l->device->extra[i] : own;
        enum engine_even           even = ENGINE_EVEN;
        int                        rc = MCP_OK;

        if (!buft_supports(l, t, role, buft))
            continue;
        if (best == NULL)
            best = buft;
        if (l->w->even && is_product(role))
            rc = try_even(l, t, role, buft, &even);
        if (rc < 0)
            return rc;
        if (even == ENGINE_EVEN_NOT)
            continue;
        if (even == ENGINE_EVEN_TWICE)
            l->w->twice |= (uint64_t)1 << t->type;
        *out = buft;
        return MCP_OK;
    }
    *out = best;
    if (best != NULL) {
        base_log(BASE_LOG_WARN,
                 "even_windows does not hold: on this processor products with %s (%s) "
                 "depend on how many rows come at once",
                 t->name, ggml_type_name(t->type));
        l->w->even = false;
    }
    return MCP_OK;
}

/* Create the tensor in the group where it will live. */
static int place(struct loading *l, const struct model_tensor *t, enum model_role role,
                 struct ggml_tensor **out)
{
    ggml_backend_buffer_type_t   own = ggml_backend_dev_buffer_type(l->device->dev), buft;
    struct engine_weights_group *g;
    int                          rc;

    if (t == NULL)
        return MCP_OK;
    rc = choose_buft(l, t, role, &buft);
    if (rc < 0)
        return rc;
    if (buft == NULL)
        return base_fail(l->err, MCP_ENOTSUP,
                         "%s: device %s cannot compute with tensor %s of type %s",
                         l->model->info.path, l->device->name, t->name, ggml_type_name(t->type));

    g = group_for(l, buft == own && !l->device->gpu ? NULL : buft);
    if (g == NULL)
        return base_fail(l->err, MCP_ENOMEM, "%s: table of %u tensors", l->model->info.path,
                         l->tensors_max);
    *out = ggml_new_tensor(g->ctx, t->type, GGML_MAX_DIMS, t->ne);
    ggml_set_name(*out, t->name);
    g->source[g->tensor_count++] = t;
    l->w->bytes += t->bytes;
    return MCP_OK;
}

static int place_all(struct loading *l)
{
    const struct model_tensors *tensors = &l->model->tensors;
    struct engine_weights      *w = l->w;
    bool                        head = w->last == l->model->hp.n_layer;
    int                         rc = MCP_OK;

    for (uint32_t layer = w->first; layer < w->last && rc == MCP_OK; layer++)
        for (int slot = 0; slot < MODEL_SLOT_COUNT && rc == MCP_OK; slot++)
            rc = place(l, tensors->layers[layer].t[slot], model_slot_role((enum model_slot)slot),
                       &engine_weights_layer(w, layer)->t[slot]);
    if (rc == MCP_OK)
        rc = place(l, tensors->global[G_ROPE_FREQS], MODEL_ROLE_FREQS, &w->global[G_ROPE_FREQS]);
    if (!head || rc < 0)
        return rc;
    rc = place(l, tensors->global[G_OUTPUT_NORM], MODEL_ROLE_NORM, &w->global[G_OUTPUT_NORM]);
    if (rc == MCP_OK) /* tied: the embedding once more, now as a matrix */
        rc = place(l, tensors->global[tensors->global[G_OUTPUT] ? G_OUTPUT : G_TOKEN_EMBD],
                   MODEL_ROLE_MATMUL, &w->global[G_OUTPUT]);
    if (rc == MCP_OK)
        rc = place(l, tensors->global[G_OUTPUT_B], MODEL_ROLE_BIAS, &w->global[G_OUTPUT_B]);
    return rc;
}

/* Whole pages of [data, data + bytes), outward or inward. */
static void advise(const uint8_t *data, size_t bytes, bool outward, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)data + (outward ? 0 : page - 1)) / page * page;
    uintptr_t last = ((uintptr_t)data + bytes + (outward ? page - 1 : 0)) / page * page;

    if (last > first)
        madvise((void *)first, last - first, advice);
}

/* Start reading from disk what is about to be used. */
static void want_pages(const uint8_t *data, size_t bytes)
{
    advise(data, bytes, true, MADV_WILLNEED);
}

/* These have been copied and will not be read again. */
static void drop_pages(const uint8_t *data, size_t bytes)
{
    advise(data, bytes, false, MADV_DONTNEED);
}

/* Point the tensors into the mapped file: one ggml buffer over each part. */
static int fill_mapped(struct loading *l, struct engine_weights_group *g)
{
    const struct model_file *file = &l->model->file;
    struct ggml_tensor      *t = ggml_get_first_tensor(g->ctx);

    g->buffers = calloc(file->part_count, sizeof(*g->buffers));
    if (g->buffers == NULL)
        return base_fail(l->err, MCP_ENOMEM, "%s: table of %u parts", l->model->info.path,
                         file->part_count);
    g->buffer_count = file->part_count;
    for (uint32_t i = 0; i < g->tensor_count; i++, t = ggml_get_next_tensor(g->ctx, t)) {
        const struct model_tensor *source = g->source[i];
        const struct model_part   *part = &file->parts[source->part];
        ggml_backend_buffer_t     *buffer = &g->buffers[source->part];

        if (*buffer == NULL) {
            *buffer = ggml_backend_dev_buffer_from_host_ptr(l->device->dev, part->base, part->bytes,
                                                            part->bytes);
            if (*buffer == NULL)
                return base_fail(l->err, MCP_ENOMEM, "%s: device %s cannot use the mapped file",
                                 part->path, l->device->name);
            ggml_backend_buffer_set_usage(*buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        }
        want_pages(source->data, source->bytes);
        if (ggml_backend_tensor_alloc(*buffer, t, (void *)(uintptr_t)source->data) !=
            GGML_STATUS_SUCCESS)
            return base_fail(l->err, MCP_EDEVICE, "%s: tensor %s cannot be placed", part->path,
                             source->name);
    }
    return MCP_OK;
}

/* Allocate the group's own buffer and copy the tensors in. */
static int fill_copied(struct loading *l, struct engine_weights_group *g)
{
    struct ggml_tensor *t = ggml_get_first_tensor(g->ctx);
    size_t              needed = ggml_backend_alloc_ctx_tensors_from_buft_size(g->ctx, g->buft);
    size_t              free_bytes = 0, total = 0;

    ggml_backend_dev_memory(l->device->dev, &free_bytes, &total);
    if (l->device->gpu && total > 0 && needed > free_bytes)
        return base_fail(l->err, MCP_ENOMEM,
                         "layers [%u, %u) need %zu MiB on %s, which has %zu MiB free; lower -ngl",
                         l->w->first, l->w->last, needed >> 20, l->device->name, free_bytes >> 20);
    g->buffers = calloc(1, sizeof(*g->buffers));
    if (g->buffers != NULL)
        g->buffers[0] = ggml_backend_alloc_ctx_tensors_from_buft(g->ctx, g->buft);
    if (g->buffers == NULL || g->buffers[0] == NULL)
        return base_fail(l->err, MCP_ENOMEM,
                         "layers [%u, %u) need %zu MiB on %s, which is too much", l->w->first,
                         l->w->last, needed >> 20, l->device->name);
    g->buffer_count = 1;
    engine_want_huge_pages(l->device, g->buffers[0]);
    ggml_backend_buffer_set_usage(g->buffers[0], GGML_BACKEND_BUFFER_USAGE_WEIGHTS);

    for (uint32_t i = 0; i < g->tensor_count; i++, t = ggml_get_next_tensor(g->ctx, t)) {
        const uint8_t *data = g->source[i]->data;
        size_t         bytes = g->source[i]->bytes;
        /* A rearranging buffer takes a tensor whole. */
        size_t step = l->device->gpu ? UPLOAD_BYTES : bytes;

        want_pages(data, bytes);
        for (size_t done = 0; done < bytes; done += step) {
            size_t count = bytes - done < step ? bytes - done : step;

            ggml_backend_tensor_set(t, data + done, done, count);
            drop_pages(data + done, count);
        }
    }
    return MCP_OK;
}

int engine_weights_load(struct engine_weights *w, const struct mcp_model *model, uint32_t first,
                        uint32_t last, struct engine_device *device, const mcp_engine_opts *opts,
                        mcp_error *err)
{
    struct loading l = {
        .w = w, .model = model, .device = device, .repack = opts->repack != 0, .err = err
    };
    int rc;

    memset(w, 0, sizeof(*w));
    w->first = first;
    w->last = last;
    w->even = opts->even_windows != 0 && device->set_reference != NULL;
    l.tensors_max = (last - first) * MODEL_SLOT_COUNT + MODEL_GLOBAL_COUNT;
    w->layers = calloc(last - first, sizeof(*w->layers));
    if (w->layers == NULL)
        rc = base_fail(err, MCP_ENOMEM, "table of %u layers", last - first);
    else
        rc = place_all(&l);
    for (uint32_t i = 0; i < w->group_count && rc == MCP_OK; i++)
        rc = w->groups[i].buft == NULL ? fill_mapped(&l, &w->groups[i])
                                       : fill_copied(&l, &w->groups[i]);
    if (rc < 0)
        engine_weights_free(w);
    return rc;
}

int engine_weights_try(struct engine_weights *w, enum ggml_type type, int64_t rows, int64_t width,
                       struct engine_device *device, mcp_error *err)
{
    struct engine_even_weight weight = {
        .type = type,
        .width = width,
        .rows = rows,
        .buft = ggml_backend_dev_buffer_type(device->dev),
    };
    enum engine_even even;
    int              rc;

    if (!w->even)
        return MCP_OK;
    rc = engine_even_try(&even, device, &weight, err);
    if (rc < 0)
        return rc;
    if (even == ENGINE_EVEN_TWICE)
        w->twice |= (uint64_t)1 << type;
    w->even = even != ENGINE_EVEN_NOT;
    return MCP_OK;
}

void engine_weights_free(struct engine_weights *w)
{
    for (uint32_t i = 0; i < w->group_count; i++) {
        struct engine_weights_group *g = &w->groups[i];

        for (uint32_t b = 0; b < g->buffer_count; b++)
            ggml_backend_buffer_free(g->buffers[b]);
        free(g->buffers);
        free(g->source);
        ggml_free(g->ctx);
        free(g->memory);
    }
    free(w->groups);
    free(w->layers);
    memset(w, 0, sizeof(*w));
}
