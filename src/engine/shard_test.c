/* engine/shard_test.c - graphs are kept, replaced and forgotten, and no row changes by it.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/engine.h"
#include "engine/run_test.h"

#include <ggml-alloc.h>

enum { SEQS = 6 };

static size_t kept(const struct mcp_engine *e)
{
    size_t count = 0;

    for (size_t i = 0; i < ENGINE_GRAPHS_MAX; i++)
        count += e->shards[0].graphs[i] != NULL;
    return count;
}

static bool keeps(const struct mcp_engine *e, const struct engine_graph *g)
{
    for (size_t i = 0; i < ENGINE_GRAPHS_MAX; i++)
        if (e->shards[0].graphs[i] == g)
            return true;
    return false;
}

/* The graph used last. */
static const struct engine_graph *latest(const struct mcp_engine *e)
{
    for (size_t i = 0; i < ENGINE_GRAPHS_MAX; i++)
        if (e->shards[0].graphs[i] != NULL && e->shards[0].graphs[i]->used == e->shards[0].tick)
            return e->shards[0].graphs[i];
    return NULL;
}

/* `count` tokens from position 0. */
static void run(struct mcp_engine *e, const int32_t *tokens, uint32_t count, float *logits)
{
    assert_int_equal(engine_trim(e, 0, 0, NULL), MCP_OK);
    run_append(e, 0, tokens, count, logits);
}

/* Goal:   a shape that was evicted is computed as before.
 * Method: five more shapes than are kept, in order, backwards and at random; every time the
 *         bits of the first time.  Never more graphs than the table has. */
static void an_evicted_shape_is_computed_as_before(void **state)
{
    enum { SHAPES = ENGINE_GRAPHS_MAX + 5 };
    struct mcp_model  *m = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    mcp_engine_opts    o = run_opts();
    struct mcp_engine *e = run_engine(m, &o);
    size_t             width = m->hp.n_vocab;
    float             *first[SHAPES + 1], *again = run_floats(SHAPES * width);
    uint64_t           rng = unit_seed();
    int32_t            tokens[SHAPES];

    (void)state;
    run_tokens(&rng, tokens, SHAPES, m->hp.n_vocab);
    for (uint32_t n = 1; n <= SHAPES; n++) {
        first[n] = run_floats(n * width);
        run(e, tokens, n, first[n]);
        assert_int_equal(kept(e), n < ENGINE_GRAPHS_MAX ? n : ENGINE_GRAPHS_MAX);
    }
    for (uint32_t round = 0; round < 3 * SHAPES; round++) {
        uint32_t n = round < SHAPES       ? round + 1
                     : round < 2 * SHAPES ? 2 * SHAPES - round
                                          : 1 + unit_below(&rng, SHAPES);
        char     what[64];

        run(e, tokens, n, again);
        snprintf(what, sizeof(what), "%u tokens in round %u", n, round);
        run_rows_equal(again, first[n], n, width, what);
        assert_int_equal(kept(e), ENGINE_GRAPHS_MAX);
    }
    for (uint32_t n = 1; n <= SHAPES; n++)
        free(first[n]);
    free(again);
    engine_close(e);
    model_close(m);
}

/* Goal:   decoding uses one graph again and again; the one that is evicted is the one that
 *         was not used for the longest time. */
static void the_longest_unused_graph_goes_first(void **state)
{
    struct mcp_model          *m = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    mcp_engine_opts            o = run_opts();
    struct mcp_engine         *e = run_engine(m, &o);
    float                     *out = run_floats((size_t)64 * m->hp.n_vocab);
    const struct engine_graph *decode, *second;
    int32_t                    tokens[64] = { 0 };

    (void)state;
    run(e, tokens, 1, out);
    decode = latest(e);
    for (uint32_t i = 0; i < 20; i++) {
        run_append(e, 0, tokens, 1, out);
        assert_ptr_equal(latest(e), decode);
    }
    assert_int_equal(kept(e), 1);
    run(e, tokens, 2, out);
    second = latest(e);
    assert_ptr_not_equal(second, decode);
    for (uint32_t n = 3; n <= ENGINE_GRAPHS_MAX; n++)
        run(e, tokens, n, out);
    assert_true(keeps(e, decode) && keeps(e, second));
    run(e, tokens, 1, out); /* now the second one is the oldest */
    assert_ptr_equal(latest(e), decode);
    run(e, tokens, ENGINE_GRAPHS_MAX + 1, out);
    assert_true(keeps(e, decode));
    run(e, tokens, 3, out);
    assert_int_equal(latest(e)->shape.tokens, 3);
    for (size_t i = 0; i < ENGINE_GRAPHS_MAX; i++)
        assert_int_not_equal(e->shards[0].graphs[i]->shape.tokens, 2);
    free(out);
    engine_close(e);
    model_close(m);
}

/* Goal:   shapes that need more memory than was reserved move the buffer, and every kept
 *         graph is forgotten with it: results stay the same before and after.
 * Method: one window, then up to six of unequal lengths, all rows of them wanted, then the
 *         first again; against engines that see a shape for the first time. */
static void a_buffer_that_grows_changes_no_row(void **state)
{
    static const char *const shapes[] = { "tiny-llama", "tiny-deepseek2" };
    int                      grown = 0;

    (void)state;
    for (size_t s = 0; s < UNIT_COUNT(shapes); s++)
        for (int flash = 0; flash < 2; flash++) {
            struct mcp_model  *m = run_model(unit_synth("g.gguf", shapes[s], "q4_0", NULL));
            mcp_engine_opts    o = run_opts();
            struct mcp_engine *e, *fresh;
            size_t             width = m->hp.n_vocab;
            float             *a = run_floats(64 * width), *b = run_floats(64 * width);
            uint64_t           rng = unit_seed();
            int32_t            tokens[64];
            size_t             smallest;

            o.seqs = SEQS;
            o.ubatch_tokens = 48;
            o.flash = flash ? MCP_FLASH_ON : MCP_FLASH_OFF;
            e = run_engine(m, &o);
            /* An engine reserves enough for any batch; without that, the buffer must grow. */
            ggml_gallocr_free(e->shards[0].compute);
            e->shards[0].compute = ggml_gallocr_new(
                ggml_backend_dev_buffer_type(e->shards[0].device->dev));
            e->shards[0].compute_bytes = 0;
            run_tokens(&rng, tokens, 64, m->hp.n_vocab);
            run(e, tokens, 7, a);
            smallest = e->shards[0].compute_bytes;
            for (uint32_t count = 1; count <= SEQS; count++) {
                mcp_window windows[SEQS];
                mcp_error  err;
                uint64_t   rows;

                run(e, tokens, 7, a); /* a shape from before */
                for (uint32_t i = 0; i < count; i++) {
                    assert_int_equal(engine_trim(e, i, 0, NULL), MCP_OK);
                    windows[i] = (mcp_window){
                        .seq = i, .count = 3 + 2 * i, .tokens = tokens + i, .out = MCP_OUT_ALL
                    };
                }
                rows = mcp_windows_rows(windows, count);
                unit_ok(engine_forward(e, 0, m->hp.n_layer, MCP_WANT_LOGITS, windows, count, a,
                                       64 * width, &err),
                        &err);
                fresh = run_engine(m, &o);
                unit_ok(engine_forward(fresh, 0, m->hp.n_layer, MCP_WANT_LOGITS, windows, count, b,
                                       64 * width, &err),
                        &err);
                run_rows_equal(a, b, rows, width, "many segments");
                assert_int_equal(engine_trim(fresh, 0, 0, NULL), MCP_OK);
                run(e, tokens, 7, a);
                run(fresh, tokens, 7, b);
                run_rows_equal(a, b, 7, width, "a shape from before");
                engine_close(fresh);
            }
            grown += e->shards[0].compute_bytes > smallest;
            free(a);
            free(b);
            engine_close(e);
            model_close(m);
        }
    assert_true(grown > 0); /* or the test has lost its subject */
}

/* Goal:   shapes are told apart by every one of their numbers. */
static void shapes_differ_in_any_number(void **state)
{
    struct engine_segment segments[2] = { { 0, 1, 3, 256 }, { 2, 1, 4, 256 } };
    struct engine_segment others[2] = { { 0, 1, 3, 256 }, { 2, 1, 4, 256 } };
    struct engine_shape   a = { .first = 0,
                                .last = 4,
                                .output = ENGINE_OUTPUT_LOGITS,
                                .embed = GGML_TYPE_F16,
                                .tokens = 7,
                                .rows = 2,
                                .segment_count = 2,
                                .segments = segments };
    struct engine_shape   b = a;

    (void)state;
    b.segments = others;
    assert_true(engine_shape_equal(&a, &b));
#define DIFFERS(change, back)                     \
    do {                                          \
        change;                                   \
        assert_false(engine_shape_equal(&a, &b)); \
        back;                                     \
        assert_true(engine_shape_equal(&a, &b));  \
    } while (0)
    DIFFERS(b.first = 1, b.first = 0);
    DIFFERS(b.last = 3, b.last = 4);
    DIFFERS(b.output = ENGINE_OUTPUT_HIDDEN, b.output = ENGINE_OUTPUT_LOGITS);
    DIFFERS(b.embed = GGML_TYPE_COUNT, b.embed = GGML_TYPE_F16);
    DIFFERS(b.tokens = 8, b.tokens = 7);
    DIFFERS(b.rows = 1, b.rows = 2);
    DIFFERS(b.segment_count = 1, b.segment_count = 2);
    DIFFERS(others[1].seq = 1, others[1].seq = 2);
    DIFFERS(others[1].streams = 2, others[1].streams = 1);
    DIFFERS(others[0].tokens = 4, others[0].tokens = 3);
    DIFFERS(others[1].columns = 512, others[1].columns = 256);
#undef DIFFERS
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_evicted_shape_is_computed_as_before),
        cmocka_unit_test(the_longest_unused_graph_goes_first),
        cmocka_unit_test(a_buffer_that_grows_changes_no_row),
        cmocka_unit_test(shapes_differ_in_any_number),
    };

    return cmocka_run_group_tests_name("engine/shard", tests, NULL, NULL);
}
