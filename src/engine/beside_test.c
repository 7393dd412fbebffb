/* engine/beside_test.c - engines beside each other share a device and nothing else.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/engine.h"
#include "engine/run_test.h"

enum { TOKENS = 24 };

/* Windows of 9, 1, 1, 13 through engines that hold neighbouring layers; logits of all rows. */
static void run_chain(struct mcp_engine *const *stages, uint32_t count, const int32_t *tokens,
                      float *logits)
{
    static const uint32_t       sizes[] = { 9, 1, 1, 13 };
    const struct model_hparams *hp = &stages[0]->model->hp;
    float *hidden[2] = { run_floats(TOKENS * hp->n_embd), run_floats(TOKENS * hp->n_embd) };

    for (uint32_t w = 0, done = 0; w < UNIT_COUNT(sizes); done += sizes[w++]) {
        for (uint32_t i = 0; i < count; i++) {
            bool       ends = i + 1 == count;
            size_t     width = ends ? hp->n_vocab : hp->n_embd;
            float     *out = ends ? logits + done * width : hidden[i % 2];
            mcp_window window = { .pos = done, .count = sizes[w], .out = MCP_OUT_ALL };
            mcp_error  err;

            if (i == 0)
                window.tokens = tokens + done;
            else
                window.hidden = hidden[(i + 1) % 2];
            unit_ok(engine_forward(stages[i], stages[i]->info.first, stages[i]->info.last,
                                   ends ? MCP_WANT_LOGITS : MCP_WANT_HIDDEN, &window, 1, out,
                                   sizes[w] * width, &err),
                    &err);
        }
    }
    free(hidden[0]);
    free(hidden[1]);
}

/* Goal:   layers in three engines on one device do what one engine with all of them does; each
 *         has the weights and the KV of its own layers only.
 * Method: [0,1) and [3,4), then [1,3) between them, as a session does that takes the middle
 *         over; every order of closing two of them, and the last goes on. */
static void layers_beside_each_other_equal_one_engine(void **state)
{
    static const uint32_t ranges[3][2] = { { 0, 1 }, { 3, 4 }, { 1, 3 } };
    struct mcp_model     *m = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    mcp_engine_opts       o = run_opts();
    struct mcp_engine    *whole = run_engine(m, &o);
    size_t                width = m->hp.n_vocab;
    float   *expected = run_floats(TOKENS * width), *actual = run_floats(TOKENS * width);
    float   *zeros = calloc(m->hp.n_embd, sizeof(*zeros));
    uint64_t rng = unit_seed();
    int32_t  tokens[TOKENS];

    (void)state;
    assert_non_null(zeros);
    run_tokens(&rng, tokens, TOKENS, m->hp.n_vocab);
    run_chain(&whole, 1, tokens, expected);
    for (uint32_t order = 0; order < 6; order++) {
        const uint32_t     first = order % 3, second = (first + 1 + order / 3) % 3;
        struct mcp_engine *e[3], *chain[3], *left;
        mcp_window         one = { .count = 1, .hidden = zeros, .out = MCP_OUT_NONE };
        mcp_error          err;

        o.beside = NULL;
        for (uint32_t i = 0; i < 3; i++) {
            o.first = ranges[i][0];
            o.last = ranges[i][1];
            e[i] = run_engine(m, &o);
            o.beside = e[i]; /* the third beside one that is itself beside the first */
            o.threads = 3;   /* not looked at any more */
            assert_int_equal(e[i]->info.threads, 1);
            assert_int_equal(e[i]->info.weight_bytes, model_range_bytes(m, o.first, o.last));
            assert_int_equal(e[i]->info.kv_bytes * 4, whole->info.kv_bytes * (o.last - o.first));
            assert_ptr_equal(e[i]->shards[0].device, e[0]->shards[0].device);
        }
        o.threads = 1;
        assert_int_equal(e[0]->shards[0].device->holders, 3);
        chain[0] = e[0];
        chain[1] = e[2];
        chain[2] = e[1];
        run_chain(chain, 3, tokens, actual);
        run_rows_equal(actual, expected, TOKENS, width, "three engines");

        engine_close(e[first]);
        engine_close(e[second]);
        left = e[3 - first - second];
        unit_ok(engine_trim(left, 0, 0, &err), &err);
        unit_ok(engine_forward(left, left->info.first, left->info.last, MCP_WANT_HIDDEN, &one, 1,
                               NULL, 0, &err),
                &err);
        assert_int_equal(left->shards[0].device->holders, 1);
        engine_close(left);
    }
    free(zeros);
    free(expected);
    free(actual);
    engine_close(whole);
    model_close(m);
}

/* Goal:   "auto" is the device of the engine beside, whatever would be the best; another device
 *         is refused with both names, and nothing is held.
 * Method: devices that do not exist; the engine beside serves on. */
static void another_device_beside_is_refused(void **state)
{
    struct mcp_model  *m = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    mcp_engine_opts    o = run_opts();
    struct mcp_engine *e = run_engine(m, &o), *beside;
    int32_t            tokens[4] = { 1, 2, 3, 4 };
    mcp_error          err;

    (void)state;
    o.beside = e;
    o.device = "cuda7";
    unit_refused(engine_open(&beside, m, &o, &err), MCP_EINVAL, &err,
                 "an engine on cuda7 cannot share the device of the engine beside it, which runs "
                 "on cpu");
    assert_null(beside);
    o.gpu_layers = 1; /* some layers here, some there */
    unit_refused(engine_open(&beside, m, &o, &err), MCP_EINVAL, &err, "an engine on cuda7");
    o.gpu_layers = -1;
    o.device = "auto";
    o.seqs = 0;
    unit_refused(engine_open(&beside, m, &o, &err), MCP_ERANGE, &err, "sequences is 0");
    assert_int_equal(e->shards[0].device->holders, 1);
    o.seqs = 1;
    beside = run_engine(m, &o);
    assert_string_equal(beside->info.devices, "cpu");
    run_append(beside, 0, tokens, 4, NULL);
    engine_close(beside);
    run_append(e, 0, tokens, 4, NULL);
    engine_close(e);
    model_close(m);
}

/* Goal:   cancelling one engine leaves the other alone, before a forward and inside a graph.
 * Method: flags set beforehand; a kept graph computed with either engine's flag. */
static void cancelling_one_leaves_the_other_alone(void **state)
{
    struct mcp_model     *m = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    mcp_engine_opts       o = run_opts();
    struct mcp_engine    *a = run_engine(m, &o), *b;
    struct engine_device *device;
    struct ggml_cgraph   *nodes;
    int32_t               tokens[4] = { 1, 2, 3, 4 };
    mcp_window            w = { .pos = 4, .count = 4, .tokens = tokens };
    mcp_error             err;

    (void)state;
    o.beside = a;
    b = run_engine(m, &o);
    run_append(a, 0, tokens, 4, NULL);
    run_append(b, 0, tokens, 4, NULL);

    atomic_store(&a->cancel, 1);
    run_append(b, 0, tokens, 4, NULL);
    assert_int_equal(atomic_load(&a->cancel), 1);
    unit_refused(engine_forward(a, 0, 4, MCP_WANT_LOGITS, &w, 1, NULL, 0, &err), MCP_ECANCELED,
                 &err, "cancelled");
    run_append(a, 0, tokens, 4, NULL);

    device = a->shards[0].device;
    nodes = b->shards[0].graphs[0]->nodes;
    atomic_store(&a->cancel, 1);
    assert_int_equal(engine_device_compute(device, nodes, false, b->shards[0].cancel),
                     GGML_STATUS_SUCCESS);
    assert_int_equal(engine_device_compute(device, nodes, false, a->shards[0].cancel),
                     GGML_STATUS_ABORTED);
    engine_close(a);
    run_append(b, 0, tokens, 4, NULL);
    engine_close(b);
    model_close(m);
}

/* Goal:   an engine with even windows and one without do not change each other's arithmetic.
 * Method: a type whose products are uneven from eight rows on, in windows of 9, in turns on one
 *         device, against each alone on its own; the two must differ. */
static void even_and_uneven_engines_go_together(void **state)
{
    struct mcp_model  *m = run_model(unit_synth("k.gguf", "tiny-llama-256", "q6_k", NULL));
    size_t             width = m->hp.n_vocab;
    float             *expected[2], *actual = run_floats(9 * width);
    struct mcp_engine *e[2];
    mcp_engine_opts    o = run_opts();
    uint64_t           rng = unit_seed();
    int32_t            tokens[18];

    (void)state;
    run_tokens(&rng, tokens, 18, m->hp.n_vocab);
    for (int i = 0; i < 2; i++) {
        struct mcp_engine *alone;

        expected[i] = run_floats(18 * width);
        o.even_windows = i;
        alone = run_engine(m, &o);
        assert_int_equal(alone->info.even_windows, i);
        run_append(alone, 0, tokens, 9, expected[i]);
        run_append(alone, 0, tokens + 9, 9, expected[i] + 9 * width);
        engine_close(alone);
    }
    assert_memory_not_equal(expected[0], expected[1], 18 * width * sizeof(float));
    for (int i = 0; i < 2; i++) {
        o.even_windows = i;
        o.beside = i == 0 ? NULL : e[0];
        e[i] = run_engine(m, &o);
    }
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 2; i++) {
            run_append(e[i], 0, tokens + 9 * half, 9, actual);
            run_rows_equal(actual, expected[i] + (size_t)half * 9 * width, 9, width,
                           i == 0 ? "uneven" : "even");
        }
    for (int i = 0; i < 2; i++) {
        engine_close(e[i]);
        free(expected[i]);
    }
    free(actual);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_beside_each_other_equal_one_engine),
        cmocka_unit_test(another_device_beside_is_refused),
        cmocka_unit_test(cancelling_one_leaves_the_other_alone),
        cmocka_unit_test(even_and_uneven_engines_go_together),
    };

    return cmocka_run_group_tests_name("engine/beside", tests, NULL, NULL);
}
