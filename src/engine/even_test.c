/* engine/even_test.c - a verdict on a small weight holds for other numbers.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/even.h"

#include "base/unit_test.h"

#include <ggml-alloc.h>

enum { WIDTH = 512, HEIGHT = 80, ROWS = 64 };

static struct engine_device *device;

static int device_begin(void **state)
{
    mcp_error err;

    (void)state;
    return engine_device_open(&device, "cpu", 1, 50, &err) < 0;
}

static int device_end(void **state)
{
    (void)state;
    engine_device_close(device);
    return 0;
}

static float *random_floats(uint64_t *rng, size_t count)
{
    float *x = malloc(count * sizeof(*x));

    assert_non_null(x);
    for (size_t i = 0; i < count; i++)
        x[i] = (float)unit_below(rng, 20001) / 10000.0f - 1.0f;
    return x;
}

/* w x for `count` rows -> y, by the reference arithmetic. */
static void multiply(const struct engine_even_weight *weight, const void *data, const float *x,
                     int64_t count, float *y)
{
    static const atomic_int never;
    struct ggml_init_params params = {
        .mem_size = ggml_tensor_overhead() * 8 + ggml_graph_overhead(), .no_alloc = true
    };
    struct ggml_context  *held = ggml_init(params), *ctx = ggml_init(params);
    struct ggml_tensor   *w = ggml_new_tensor_2d(held, weight->type, WIDTH, HEIGHT);
    struct ggml_tensor   *in = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, WIDTH, count);
    struct ggml_tensor   *out = ggml_mul_mat(ctx, w, in);
    struct ggml_cgraph   *nodes = ggml_new_graph(ctx);
    ggml_backend_buffer_t buffers[2];

    ggml_build_forward_expand(nodes, out);
    buffers[0] = ggml_backend_alloc_ctx_tensors_from_buft(held, weight->buft);
    buffers[1] = ggml_backend_alloc_ctx_tensors(ctx, device->backend);
    assert_true(buffers[0] != NULL && buffers[1] != NULL);
    ggml_backend_buffer_set_usage(buffers[0], GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    ggml_backend_tensor_set(w, data, 0, ggml_nbytes(w));
    ggml_backend_tensor_set(in, x, 0, ggml_nbytes(in));
    assert_int_equal(engine_device_compute(device, nodes, true, &never), GGML_STATUS_SUCCESS);
    ggml_backend_tensor_get(out, y, 0, ggml_nbytes(out));
    for (int i = 0; i < 2; i++)
        ggml_backend_buffer_free(buffers[i]);
    ggml_free(held);
    ggml_free(ctx);
}

/* Rows of a product whose bits in company are not those that they have alone, or in pairs. */
static uint32_t uneven_rows(const struct engine_even_weight *weight, const void *data,
                            const float *x, int64_t copies)
{
    float   *pair = malloc(2 * WIDTH * sizeof(float)), *alone = malloc(2 * HEIGHT * sizeof(float));
    float   *y = malloc((size_t)ROWS * HEIGHT * sizeof(float));
    uint32_t uneven = 0;

    assert_true(pair != NULL && alone != NULL && y != NULL);
    for (int64_t count = 2; count <= ROWS; count += 1 + count / 6) {
        multiply(weight, data, x, count, y);
        for (int64_t i = 0; i < count; i += 5) {
            for (int64_t c = 0; c < 2; c++)
                memcpy(pair + c * WIDTH, x + i * WIDTH, WIDTH * sizeof(float));
            multiply(weight, data, pair, copies, alone);
            uneven += memcmp(alone, y + i * HEIGHT, HEIGHT * sizeof(float)) != 0;
        }
    }
    free(pair);
    free(alone);
    free(y);
    return uneven;
}

static bool supported(enum ggml_type type, ggml_backend_buffer_type_t buft)
{
    struct ggml_init_params params = { .mem_size = ggml_tensor_overhead() * 4, .no_alloc = true };
    struct ggml_context    *ctx = ggml_init(params);
    struct ggml_tensor     *w = ggml_new_tensor_2d(ctx, type, WIDTH, HEIGHT);
    bool                    yes;

    w->buffer = ggml_backend_buft_alloc_buffer(buft, 0);
    yes = ggml_backend_dev_supports_op(
        device->dev, ggml_mul_mat(ctx, w, ggml_new_tensor_2d(ctx, GGML_TYPE_F32, WIDTH, ROWS)));
    ggml_backend_buffer_free(w->buffer);
    ggml_free(ctx);
    return yes;
}

/* Goal:   what is called even is even, also with other numbers; what is not, is not.
 * Method: every common type in every buffer type of the processor; the verdict is checked with
 *         a weight and rows of our own.  One type is tried by the weight's own rows. */
static void a_verdict_holds_for_other_numbers(void **state)
{
    static const enum ggml_type types[] = { GGML_TYPE_F32,  GGML_TYPE_F16,    GGML_TYPE_BF16,
                                            GGML_TYPE_Q8_0, GGML_TYPE_Q4_0,   GGML_TYPE_Q4_1,
                                            GGML_TYPE_Q5_0, GGML_TYPE_Q5_1,   GGML_TYPE_Q2_K,
                                            GGML_TYPE_Q3_K, GGML_TYPE_Q4_K,   GGML_TYPE_Q5_K,
                                            GGML_TYPE_Q6_K, GGML_TYPE_IQ4_NL, GGML_TYPE_IQ2_XXS };
    uint64_t                    rng = unit_seed();
    float *numbers = random_floats(&rng, WIDTH * HEIGHT), *x = random_floats(&rng, WIDTH * ROWS);

    float matters[WIDTH];

    (void)state;
    for (int i = 0; i < WIDTH; i++)
        matters[i] = 1.0f;
    assert_non_null(device->set_reference);
    for (size_t i = 0; i < UNIT_COUNT(types); i++) {
        void *data = malloc(HEIGHT * ggml_row_size(types[i], WIDTH));

        assert_non_null(data);
        ggml_quantize_chunk(types[i], numbers, data, 0, HEIGHT, WIDTH, matters);
        for (uint32_t b = 0; b <= device->extra_count; b++) {
            struct engine_even_weight weight = {
                .type = types[i],
                .width = WIDTH,
                .rows = HEIGHT,
                .data = data,
                .buft = b < device->extra_count ? device->extra[b]
                                                : ggml_backend_dev_buffer_type(device->dev),
            };
            enum engine_even even;
            mcp_error        err;

            if (!supported(types[i], weight.buft))
                continue;
            unit_ok(engine_even_try(&even, device, &weight, &err), &err);
            if ((uneven_rows(&weight, data, x, 1) == 0) != (even == ENGINE_EVEN))
                fail_msg("%s in %s: the verdict is %d", ggml_type_name(types[i]),
                         ggml_backend_buft_name(weight.buft), even);
            if (even != ENGINE_EVEN &&
                (uneven_rows(&weight, data, x, 2) == 0) != (even == ENGINE_EVEN_TWICE))
                fail_msg("%s in %s, twice: the verdict is %d", ggml_type_name(types[i]),
                         ggml_backend_buft_name(weight.buft), even);
        }
        free(data);
    }
    free(numbers);
    free(x);
}

/* Goal:   experts, weights of one row and rows of one block are tried as well. */
static void odd_shapes_can_be_tried(void **state)
{
    static const struct engine_even_weight odd[] = {
        { .type = GGML_TYPE_F32, .width = 1, .rows = 1 },
        { .type = GGML_TYPE_F32, .width = 80, .rows = 5, .by_id = true },
        { .type = GGML_TYPE_Q8_0, .width = 32, .rows = 3 },
        { .type = GGML_TYPE_Q8_0, .width = 32, .rows = 1000, .by_id = true },
        { .type = GGML_TYPE_F16, .width = 40, .rows = 49 },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(odd); i++) {
        struct engine_even_weight weight = odd[i];
        enum engine_even          even;
        mcp_error                 err;

        weight.buft = ggml_backend_dev_buffer_type(device->dev);
        unit_ok(engine_even_try(&even, device, &weight, &err), &err);
        assert_in_range(even, ENGINE_EVEN_NOT, ENGINE_EVEN);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_verdict_holds_for_other_numbers),
        cmocka_unit_test(odd_shapes_can_be_tried),
    };

    return cmocka_run_group_tests_name("engine/even", tests, device_begin, device_end);
}
