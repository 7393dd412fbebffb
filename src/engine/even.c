/* engine/even.c - see even.h.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/even.h"

#include "base/fail.h"

#include <ggml-alloc.h>
#include <stdlib.h>
#include <string.h>

enum {
    TRY_ROWS = 64,     /* the largest even window, and one more */
    WEIGHT_ROWS = 48,  /* enough to meet each kernel, and a remainder: */
    WEIGHT_ALIGN = 16, /* kernels ask whether the number is a multiple of up to 16 */
};

struct trial {
    struct engine_device *device;
    bool                  by_id;
    struct ggml_context  *ctx;
    struct ggml_tensor   *w; /* (width, height) */
    ggml_backend_buffer_t buffer;
    float                *x;     /* (TRY_ROWS, width) */
    float                *pair;  /* (2, width) */
    float                *once;  /* (TRY_ROWS, height): each row alone */
    float                *twice; /* (TRY_ROWS, height): each beside itself */
    float                *y;     /* (TRY_ROWS, height): several together */
};

/* A product of a fixed number of rows, to be run with any. */
struct product {
    struct ggml_context  *ctx;
    struct ggml_tensor   *x, *y;
    struct ggml_cgraph   *nodes;
    ggml_backend_buffer_t buffer;
};

static void product_close(struct product *p)
{
    ggml_backend_buffer_free(p->buffer);
    ggml_free(p->ctx);
}

static int product_open(struct product *p, const struct trial *t, int64_t count, mcp_error *err)
{
    struct ggml_init_params params = {
        .mem_size = ggml_tensor_overhead() * 8 + ggml_graph_overhead(), .no_alloc = true
    };

    memset(p, 0, sizeof(*p));
    p->ctx = ggml_init(params);
    if (p->ctx == NULL)
        return base_fail(err, MCP_ENOMEM, "product of %d rows", (int)count);
    if (t->by_id) {
        p->x = ggml_new_tensor_3d(p->ctx, GGML_TYPE_F32, t->w->ne[0], 1, count);
        p->y = ggml_mul_mat_id(p->ctx, t->w, p->x,
                               ggml_new_tensor_2d(p->ctx, GGML_TYPE_I32, 1, count));
    } else {
        p->x = ggml_new_tensor_2d(p->ctx, GGML_TYPE_F32, t->w->ne[0], count);
        p->y = ggml_mul_mat(p->ctx, t->w, p->x);
    }
    p->nodes = ggml_new_graph(p->ctx);
    ggml_build_forward_expand(p->nodes, p->y);
    p->buffer = ggml_backend_alloc_ctx_tensors(p->ctx, t->device->backend);
    if (p->buffer == NULL) {
        product_close(p);
        return base_fail(err, MCP_ENOMEM, "product of %d rows", (int)count);
    }
    ggml_backend_buffer_clear(p->buffer, 0); /* every row goes to expert 0 */
    return MCP_OK;
}

static void product_run(struct product *p, const struct trial *t, const float *x, float *y)
{
    static const atomic_int never;

    ggml_backend_tensor_set(p->x, x, 0, ggml_nbytes(p->x));
    engine_device_compute(t->device, p->nodes, true, &never);
    ggml_backend_tensor_get(p->y, y, 0, ggml_nbytes(p->y));
}

/* Numbers of both signs and several magnitudes, so that the order of adding shows. */
static void make_up(float *x, size_t count)
{
    uint32_t state = 1;

    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = ((float)(state >> 8) / 8388608.0f - 1.0f) * (float)(1u << i % 5);
    }
}

/* Made-up numbers, which show every difference; a weight's own rows may be blank, and serve only
 * where the type cannot be written without knowing what matters to the model. */
static int fill_weight(struct trial *t, const struct engine_even_weight *weight, mcp_error *err)
{
    int64_t  height = t->w->ne[1], apart = weight->rows / height;
    size_t   row = ggml_row_size(weight->type, weight->width), bytes = ggml_nbytes(t->w);
    float   *numbers = malloc((size_t)ggml_nelements(t->w) * sizeof(*numbers));
    uint8_t *rows = malloc(bytes);

    if (numbers != NULL && rows != NULL) {
        if (weight->data != NULL && ggml_quantize_requires_imatrix(weight->type)) {
            for (int64_t i = 0; i < height; i++)
                memcpy(rows + (size_t)i * row, weight->data + (size_t)(i * apart) * row, row);
        } else {
            make_up(numbers, (size_t)ggml_nelements(t->w));
            ggml_quantize_chunk(weight->type, numbers, rows, 0, height, weight->width, NULL);
        }
        ggml_backend_tensor_set(t->w, rows, 0, bytes);
    }
    free(rows);
    free(numbers);
    return numbers == NULL || rows == NULL
               ? base_fail(err, MCP_ENOMEM, "weight of %zu bytes to try", bytes)
               : MCP_OK;
}

static int trial_open(struct trial *t, const struct engine_even_weight *weight, mcp_error *err)
{
    struct ggml_init_params params = { .mem_size = ggml_tensor_overhead() * 2, .no_alloc = true };
    int64_t                 height = weight->rows;
    size_t                  width = (size_t)weight->width;

    if (height > WEIGHT_ROWS)
        height = WEIGHT_ROWS + height % WEIGHT_ALIGN;
    t->by_id = weight->by_id;
    t->ctx = ggml_init(params);
    if (t->ctx != NULL) {
        t->w = ggml_new_tensor_3d(t->ctx, weight->type, weight->width, height, 1);
        t->buffer = ggml_backend_alloc_ctx_tensors_from_buft(t->ctx, weight->buft);
    }
    t->x = malloc(TRY_ROWS * width * sizeof(float));
    t->pair = malloc(2 * width * sizeof(float));
    t->once = malloc(TRY_ROWS * (size_t)height * sizeof(float));
    t->twice = malloc(TRY_ROWS * (size_t)height * sizeof(float));
    t->y = malloc(TRY_ROWS * (size_t)height * sizeof(float));
    if (t->buffer == NULL || t->x == NULL || t->pair == NULL || t->once == NULL ||
        t->twice == NULL || t->y == NULL)
        return base_fail(err, MCP_ENOMEM, "trial of rows of %zu", width);
    ggml_backend_buffer_set_usage(t->buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    make_up(t->x, TRY_ROWS * width);
    return fill_weight(t, weight, err);
}

static void trial_close(struct trial *t)
{
    free(t->x);
    free(t->pair);
    free(t->once);
    free(t->twice);
    free(t->y);
    ggml_backend_buffer_free(t->buffer);
    ggml_free(t->ctx);
}

/* What each row gives alone, and in two copies. */
static int run_singly(struct trial *t, mcp_error *err)
{
    size_t         width = (size_t)t->w->ne[0], height = (size_t)t->w->ne[1];
    struct product one, two;
    int            rc = product_open(&one, t, 1, err);

    if (rc < 0)
        return rc;
    rc = product_open(&two, t, 2, err);
    if (rc < 0) {
        product_close(&one);
        return rc;
    }
    for (size_t i = 0; i < TRY_ROWS; i++) {
        const float *row = t->x + i * width;

        product_run(&one, t, row, t->once + i * height);
        memcpy(t->pair, row, width * sizeof(float));
        memcpy(t->pair + width, row, width * sizeof(float));
        product_run(&two, t, t->pair, t->y);
        memcpy(t->twice + i * height, t->y, height * sizeof(float));
    }
    product_close(&one);
    product_close(&two);
    return MCP_OK;
}

int engine_even_try(enum engine_even *out, struct engine_device *device,
                    const struct engine_even_weight *weight, mcp_error *err)
{
    static const uint8_t counts[] = { 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 63, TRY_ROWS };
    struct trial         t = { .device = device };
    bool                 once = true, twice = true;
    int                  rc = trial_open(&t, weight, err);

    if (rc == MCP_OK)
        rc = run_singly(&t, err);
    for (size_t i = 0; i < sizeof(counts) && rc == MCP_OK; i++) {
        size_t         bytes = counts[i] * (size_t)t.w->ne[1] * sizeof(float);
        struct product p;

        rc = product_open(&p, &t, counts[i], err);
        if (rc < 0)
            break;
        product_run(&p, &t, t.x, t.y);
        product_close(&p);
        once = once && memcmp(t.y, t.once, bytes) == 0;
        twice = twice && memcmp(t.y, t.twice, bytes) == 0;
    }
    trial_close(&t);
    *out = once ? ENGINE_EVEN : twice ? ENGINE_EVEN_TWICE : ENGINE_EVEN_NOT;
    return rc;
}
