/* worker/export_test.c - KV that is asked for block by block while its session goes on.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/session_test.h"

enum { PROMPT = 40, ANSWER = 20 };

/* What runs is still running when the next frames come. */
static const char *const slow[] = { "mcp-debug-stall-ms", "20", NULL };
static const char *const slower[] = { "mcp-debug-stall-ms", "200", NULL };

static struct mcp_worker *worker;
static struct rig_client *client;
static uint32_t           layers;
static int32_t            prompt[PROMPT];

static int begin(void **state)
{
    mcp_worker_opts opts = rig_opts();

    (void)state;
    rig_begin();
    layers = rig_model_open->hp.n_layer;
    opts.debug_commands = 1;
    worker = rig_worker(0, 0, &opts);
    client = rig_connect(worker);
    for (uint32_t i = 0; i < PROMPT; i++)
        prompt[i] = (int32_t)(3 + 7 * i);
    return 0;
}

static int end(void **state)
{
    (void)state;
    return rig_finish(client, worker);
}

static struct rig_call *slow_session(uint8_t id, const char *const *how)
{
    const struct wire_open open = rig_open_frame(id, 0, layers);
    struct rig_call       *call = rig_execute(client, how);

    rig_open_with(call, &open);
    return call;
}

static void ask(struct rig_call *call, uint64_t number, uint32_t first, uint32_t last,
                uint32_t pos_first, uint32_t pos_last)
{
    struct wire_frame frame = { .kind = WIRE_EXPORT };

    frame.u.export = (struct wire_export){ number, first, last, pos_first, pos_last };
    rig_send(call, &frame);
}

static void generate(struct rig_call *call, const int32_t *tokens, uint32_t count)
{
    struct wire_frame frame = { .kind = WIRE_GENERATE };

    frame.u.generate = (struct wire_generate){ .number = 1,
                                               .tokens = tokens,
                                               .token_count = count,
                                               .max_tokens = ANSWER,
                                               .ignore_end = true };
    rig_send(call, &frame);
}

/* An engine here that has computed the prompt in one window, as the worker does. */
static struct mcp_engine *local(void)
{
    mcp_engine_opts    opts = rig_engine_opts(0, 0);
    struct mcp_engine *e = run_engine(rig_model_open, &opts);
    float             *logits = run_floats(e->model->hp.n_vocab);
    mcp_window         w = { .count = PROMPT, .tokens = prompt, .out = MCP_OUT_LAST };
    mcp_error          err;

    unit_ok(
        engine_forward(e, 0, layers, MCP_WANT_LOGITS, &w, 1, logits, e->model->hp.n_vocab, &err),
        &err);
    free(logits);
    return e;
}

/* ---- beside an answer ---------------------------------------------------------------- */

/* The next Token or State; a Token is counted, the last one ends an answer. */
static struct rig_news *next_state(struct rig_call *call, uint32_t *tokens, bool *over)
{
    for (;;) {
        struct rig_news *news = rig_take(call);

        assert_non_null(news);
        if (news->frame.kind == WIRE_STATE)
            return news;
        assert_int_equal(news->frame.kind, WIRE_TOKEN);
        assert_int_equal(news->frame.u.token.pos, PROMPT + *tokens);
        ++*tokens;
        *over = news->frame.u.token.stop != WIRE_STOP_NOT;
        free(news);
    }
}

/* Goal:   an answer's KV can be had while it is made, and the answer does not end for that.
 * Method: Generate, then the prompt's KV layer by layer; each block equals a local engine's, byte
 *         for byte, and comes before the answer is over.  `length` tells how far the worker is. */
static void kv_comes_home_while_the_worker_answers(void **state)
{
    struct rig_call   *call = slow_session(1, slow);
    struct mcp_engine *e = local();
    uint32_t           tokens = 0;
    bool               over = false;

    (void)state;
    generate(call, prompt, PROMPT);
    for (uint32_t layer = 0; layer < layers; layer++)
        ask(call, 10 + layer, layer, layer + 1, 0, PROMPT);
    for (uint32_t layer = 0; layer < layers; layer++) {
        struct rig_news *news = next_state(call, &tokens, &over);
        size_t           bytes = 0;
        uint8_t         *block;
        mcp_error        err;

        assert_int_equal(news->frame.u.state.number, 10 + layer);
        assert_in_range(news->frame.u.state.length, PROMPT, PROMPT + ANSWER);
        unit_ok(engine_export(e, 0, layer, layer + 1, 0, PROMPT, NULL, &bytes, &err), &err);
        block = malloc(bytes);
        assert_non_null(block);
        unit_ok(engine_export(e, 0, layer, layer + 1, 0, PROMPT, block, &bytes, &err), &err);
        assert_int_equal(news->frame.u.state.block.bytes, bytes);
        assert_memory_equal(news->frame.u.state.block.data, block, bytes);
        free(block);
        free(news);
    }
    assert_false(over);
    while (!over) {
        struct rig_news *news = rig_expect(call, WIRE_TOKEN);

        assert_int_equal(news->frame.u.token.pos, PROMPT + tokens);
        tokens++;
        over = news->frame.u.token.stop != WIRE_STOP_NOT;
        free(news);
    }
    assert_int_equal(tokens, ANSWER);
    engine_close(e);
    rig_close(call);
}

/* Goal:   what goes into the session's KV, or asks for more than the queue holds beside the
 *         answer's next window, is refused. */
static void an_answer_is_not_disturbed(void **state)
{
    struct rig_call  *call = slow_session(2, slow);
    struct wire_frame frame = { .kind = WIRE_IMPORT };
    uint32_t          most = worker->service.limits.windows_max;

    (void)state;
    frame.u.state.block = (struct wire_payload){ .data = (const uint8_t *)prompt,
                                                 .bytes = sizeof(prompt) };
    generate(call, prompt, PROMPT);
    rig_send(call, &frame);
    rig_ended(call, WIRE_INVALID_ARGUMENT, "a Generate is under way");
    rig_drop(call);

    call = slow_session(3, slow);
    generate(call, prompt, PROMPT);
    for (uint32_t i = 0; i < 4 * most; i++) /* faster than it exports behind a slow window */
        ask(call, 10 + i, 0, 1, 0, 1);
    rig_ended(call, WIRE_RESOURCE_EXHAUSTED, "beside a Generate");
    rig_drop(call);
}

/* ---- and a trim ---------------------------------------------------------------------- */

/* Goal:   requests that a Trim finds waiting are never answered, later ones are, in order.
 * Method: a slow window, a request, a Trim; then a window and a request again. */
static void a_trim_voids_requests_that_wait(void **state)
{
    struct rig_call  *call = slow_session(4, slower);
    struct wire_frame frame = rig_tokens(1, 0, 8, prompt, WIRE_WANT_NONE);
    struct rig_news  *news;

    (void)state;
    rig_send(call, &frame);
    ask(call, 10, 0, 1, 0, 8);
    frame = rig_trim(1, 0);
    rig_send(call, &frame);
    frame = rig_tokens(2, 0, 4, prompt, WIRE_WANT_NONE);
    frame.u.forward.epoch = 1;
    rig_send(call, &frame);
    ask(call, 11, 0, 1, 0, 4);
    while ((news = rig_take(call))->frame.kind != WIRE_STATE)
        free(news);
    assert_int_equal(news->frame.u.state.number, 11);
    assert_int_equal(news->frame.u.state.length, 4);
    free(news);
    rig_close(call);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kv_comes_home_while_the_worker_answers),
        cmocka_unit_test(an_answer_is_not_disturbed),
        cmocka_unit_test(a_trim_voids_requests_that_wait),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
