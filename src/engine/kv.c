/* engine/kv.c - see kv.h.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/kv.h"

#include "base/fail.h"

#include <ggml-alloc.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROT_MIN = 64 }; /* smallest Hadamard block, as in llama.cpp */

/* Orthonormal Walsh-Hadamard matrix of size n (a power of two): its own inverse.
 * Rotating a head spreads outliers over all its elements before they are quantised. */
static void hadamard(float *m, uint32_t n)
{
    m[0] = (float)(1.0 / sqrtf((float)n)); /* llama.cpp's very rounding: bits must agree */
    for (uint32_t s = 1; s < n; s *= 2) {
        for (uint32_t i = 0; i < s; i++) {
            for (uint32_t j = 0; j < s; j++) {
                float value = m[i * n + j];

                m[(i + s) * n + j] = value;
                m[i * n + j + s] = value;
                m[(i + s) * n + j + s] = -value;
            }
        }
    }
}

static int fill_hadamard(struct ggml_tensor *t, mcp_error *err)
{
    uint32_t n;
    float   *m;

    if (t == NULL)
        return MCP_OK;
    n = (uint32_t)t->ne[0];
    m = malloc(ggml_nbytes(t));
    if (m == NULL)
        return base_fail(err, MCP_ENOMEM, "rotation matrix of %u", n);
    hadamard(m, n);
    ggml_backend_tensor_set(t, m, 0, ggml_nbytes(t));
    free(m);
    return MCP_OK;
}

/* K takes the largest block that divides a head, V the smallest (llama.cpp's choice). */
static struct ggml_tensor *new_rotation(struct ggml_context *ctx, enum ggml_type type,
                                        uint32_t head, bool largest)
{
    uint32_t n = ROT_MIN;

    if (!ggml_is_quantized(type) || head == 0 || head % ROT_MIN != 0)
        return NULL;
    while (largest && head % (2 * n) == 0)
        n *= 2;
    return ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n, n);
}

static int check_types(const struct engine_kv *kv, const struct model_hparams *hp, mcp_error *err)
{
    const struct {
        const char    *flag;
        enum ggml_type type;
        uint32_t       head;
    } sides[] = { { "-ctk", kv->type_k, hp->head_k }, { "-ctv", kv->type_v, hp->head_v } };

    for (size_t i = 0; i < 2; i++)
        if (sides[i].head % (uint32_t)ggml_blck_size(sides[i].type) != 0)
            return base_fail(err, MCP_ENOTSUP,
                             "%s %s needs a head size that is a multiple of %d, the model has %u",
                             sides[i].flag, ggml_type_name(sides[i].type),
                             (int)ggml_blck_size(sides[i].type), sides[i].head);
    if (hp->mla && kv->type_v != kv->type_k)
        return base_fail(err, MCP_ENOTSUP,
                         "latent attention keeps keys and values in one cache: -ctk %s and -ctv %s "
                         "must be the same",
                         ggml_type_name(kv->type_k), ggml_type_name(kv->type_v));
    if (ggml_is_quantized(kv->type_v) && !kv->flash)
        return base_fail(err, MCP_ENOTSUP, "-ctv %s needs flash attention (-fa on)",
                         ggml_type_name(kv->type_v));
    return MCP_OK;
}

int engine_kv_open(struct engine_kv *kv, const struct model_hparams *hp, uint32_t first,
                   uint32_t last, uint32_t seqs, uint32_t ctx_tokens, enum ggml_type type_k,
                   enum ggml_type type_v, bool flash, const struct engine_device *device,
                   mcp_error *err)
{
    uint32_t                layers = last - first;
    struct ggml_init_params params = { .mem_size = ggml_tensor_overhead() * (2 * layers + 2),
                                       .no_alloc = true };
    size_t                  needed, free_bytes = 0, total = 0;
    int                     rc;

    memset(kv, 0, sizeof(*kv));
    kv->first = first;
    kv->last = last;
    kv->seqs = seqs;
    kv->ctx = engine_kv_pad(ctx_tokens);
    kv->width_k = model_kv_width_k(hp);
    kv->width_v = model_kv_width_v(hp);
    kv->type_k = type_k;
    kv->type_v = type_v;
    kv->flash = flash;
    rc = check_types(kv, hp, err);
    if (rc < 0)
        goto out;

    kv->meta = ggml_init(params);
    kv->k = calloc(layers, sizeof(*kv->k));
    kv->v = calloc(layers, sizeof(*kv->v));
    kv->length = calloc((size_t)seqs * layers, sizeof(*kv->length));
    kv->written = calloc((size_t)seqs * layers, sizeof(*kv->written));
    if (kv->meta == NULL || kv->k == NULL || kv->v == NULL || kv->length == NULL ||
        kv->written == NULL) {
        rc = base_fail(err, MCP_ENOMEM, "KV table of %u sequences x %u layers", seqs, layers);
        goto out;
    }
    for (uint32_t i = 0; i < layers; i++) {
        kv->k[i] = ggml_new_tensor_3d(kv->meta, kv->type_k, kv->width_k, kv->ctx, seqs);
        if (kv->width_v > 0)
            kv->v[i] = ggml_new_tensor_3d(kv->meta, kv->type_v, kv->width_v, kv->ctx, seqs);
    }
    if (!hp->mla) { /* latents are left as they are, as in llama.cpp */
        kv->rot_k = new_rotation(kv->meta, kv->type_k, hp->head_k, true);
        kv->rot_v = new_rotation(kv->meta, kv->type_v, hp->head_v, false);
    }

    needed = ggml_backend_alloc_ctx_tensors_from_buft_size(
        kv->meta, ggml_backend_dev_buffer_type(device->dev));
    ggml_backend_dev_memory(device->dev, &free_bytes, &total);
    if (total > 0 && needed > (device->gpu ? free_bytes : total))
        needed = SIZE_MAX; /* do not even try: on the host an overcommitted KV would be
                            * granted and the process killed later */
    if (needed != SIZE_MAX)
        kv->buffer = ggml_backend_alloc_ctx_tensors_from_buft(
            kv->meta, ggml_backend_dev_buffer_type(device->dev));
    if (kv->buffer == NULL) {
        rc = base_fail(err, MCP_ENOMEM,
                       "a KV cache of %" PRIu64 " MiB (%u sequences of %u tokens) does not fit %s; "
                       "lower -c or the number of sequences",
                       engine_kv_bytes(kv) >> 20, seqs, kv->ctx, device->name);
        goto out;
    }
    engine_want_huge_pages(device, kv->buffer);
    /* A NaN left in memory would pass through a masked column. */
    ggml_backend_buffer_clear(kv->buffer, 0);
    rc = fill_hadamard(kv->rot_k, err);
    if (rc == MCP_OK)
        rc = fill_hadamard(kv->rot_v, err);

out:
    if (rc < 0)
        engine_kv_close(kv);
    return rc;
}

void engine_kv_close(struct engine_kv *kv)
{
    ggml_backend_buffer_free(kv->buffer);
    ggml_free(kv->meta);
    free(kv->k);
    free(kv->v);
    free(kv->length);
    free(kv->written);
    memset(kv, 0, sizeof(*kv));
}

uint64_t engine_kv_bytes(const struct engine_kv *kv)
{
    uint64_t rows = (uint64_t)kv->ctx * kv->seqs * (kv->last - kv->first);

    return rows * (engine_kv_row_bytes(kv, false) + engine_kv_row_bytes(kv, true));
}

size_t engine_kv_row_bytes(const struct engine_kv *kv, bool v)
{
    return v ? ggml_row_size(kv->type_v, kv->width_v) : ggml_row_size(kv->type_k, kv->width_k);
}

/* Transposed rows are columns: the same positions of every column, or the region whole. */
static void clear_transposed(struct engine_kv *kv, struct ggml_tensor *t, uint32_t seq,
                             uint32_t pos, uint32_t end)
{
    size_t element = ggml_type_size(kv->type_v);
    size_t region = element * kv->ctx * kv->width_v;

    if (pos == 0) {
        ggml_backend_tensor_memset(t, 0, region * seq, region);
        return;
    }
    for (uint32_t j = 0; j < kv->width_v; j++)
        ggml_backend_tensor_memset(t, 0, region * seq + (j * (size_t)kv->ctx + pos) * element,
                                   (end - pos) * element);
}

/* Zero rows [pos, end) of one layer. */
static void clear_rows(struct engine_kv *kv, uint32_t seq, uint32_t layer, uint32_t pos,
                       uint32_t end)
{
    struct ggml_tensor *k = kv->k[layer - kv->first], *v = kv->v[layer - kv->first];
    size_t row_k = engine_kv_row_bytes(kv, false), row_v = engine_kv_row_bytes(kv, true);
    size_t first = (size_t)seq * kv->ctx + pos;

    ggml_backend_tensor_memset(k, 0, first * row_k, (end - pos) * row_k);
    if (v != NULL && kv->flash)
        ggml_backend_tensor_memset(v, 0, first * row_v, (end - pos) * row_v);
    else if (v != NULL)
        clear_transposed(kv, v, seq, pos, end);
}

void engine_kv_claim(struct engine_kv *kv, uint32_t seq, uint32_t first, uint32_t last,
                     uint32_t end)
{
    for (uint32_t layer = first; layer < last; layer++) {
        uint32_t *written = engine_kv_written(kv, seq, layer);

        if (*written > end)
            clear_rows(kv, seq, layer, end, *written);
        *written = end;
    }
}

void engine_kv_clear(struct engine_kv *kv, uint32_t seq)
{
    engine_kv_claim(kv, seq, kv->first, kv->last, 0);
}

bool engine_kv_finite(enum ggml_type type, const uint8_t *rows, size_t bytes)
{
    const bool     wide = type == GGML_TYPE_F32;
    const size_t   step = wide ? 4 : ggml_type_size(type); /* a q8_0 block begins with its scale */
    const uint32_t exponent = wide ? 0x7F800000u : 0x7C00u;

    for (size_t i = 0; i + step <= bytes; i += step) {
        uint32_t bits = (uint32_t)rows[i] | (uint32_t)rows[i + 1] << 8;

        if (wide)
            bits |= (uint32_t)rows[i + 2] << 16 | (uint32_t)rows[i + 3] << 24;
        if ((bits & exponent) == exponent)
            return false;
    }
    return true;
}

/* Transposed V is copied element by element through one column at a time. */
static int move_transposed(const struct engine_kv *kv, struct ggml_tensor *t, uint32_t seq,
                           uint32_t pos, uint32_t count, uint8_t *read_rows,
                           const uint8_t *write_rows, mcp_error *err)
{
    size_t   element = ggml_type_size(kv->type_v);
    size_t   row = engine_kv_row_bytes(kv, true);
    uint8_t *column = malloc(count * element);

    if (column == NULL)
        return base_fail(err, MCP_ENOMEM, "KV column of %u positions", count);
    for (uint32_t j = 0; j < kv->width_v; j++) {
        size_t offset = (((size_t)seq * kv->width_v + j) * kv->ctx + pos) * element;

        if (write_rows != NULL) {
            for (uint32_t i = 0; i < count; i++)
                memcpy(column + i * element, write_rows + i * row + j * element, element);
            ggml_backend_tensor_set(t, column, offset, count * element);
        } else {
            ggml_backend_tensor_get(t, column, offset, count * element);
            for (uint32_t i = 0; i < count; i++)
                memcpy(read_rows + i * row + j * element, column + i * element, element);
        }
    }
    free(column);
    return MCP_OK;
}

int engine_kv_read(const struct engine_kv *kv, uint32_t seq, uint32_t layer, bool v, uint32_t pos,
                   uint32_t count, uint8_t *rows, mcp_error *err)
{
    struct ggml_tensor *t = v ? kv->v[layer - kv->first] : kv->k[layer - kv->first];
    size_t              row = engine_kv_row_bytes(kv, v);

    if (t == NULL || count == 0)
        return MCP_OK;
    if (v && !kv->flash)
        return move_transposed(kv, t, seq, pos, count, rows, NULL, err);
    ggml_backend_tensor_get(t, rows, ((size_t)seq * kv->ctx + pos) * row, count * row);
    return MCP_OK;
}

int engine_kv_write(const struct engine_kv *kv, uint32_t seq, uint32_t layer, bool v, uint32_t pos,
                    uint32_t count, const uint8_t *rows, mcp_error *err)
{
    struct ggml_tensor *t = v ? kv->v[layer - kv->first] : kv->k[layer - kv->first];
    size_t              row = engine_kv_row_bytes(kv, v);

    if (t == NULL || count == 0)
        return MCP_OK;
    if (v && !kv->flash)
        return move_transposed(kv, t, seq, pos, count, NULL, rows, err);
    ggml_backend_tensor_set(t, rows, ((size_t)seq * kv->ctx + pos) * row, count * row);
    return MCP_OK;
}
