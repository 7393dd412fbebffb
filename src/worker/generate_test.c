/* worker/generate_test.c - a worker with the whole model: logits, and answers that it generates by
 * itself, against a local engine and sampler.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/answer_test.h"
#include "worker/compute_private.h"

enum { ROWS_MAX = 64 };

static struct mcp_worker *worker;
static struct rig_client *client;
static uint32_t           layers;

static int begin(void **state)
{
    mcp_worker_opts opts = rig_opts();

    (void)state;
    rig_begin();
    layers = rig_model_open->hp.n_layer;
    opts.debug_commands = 1;
    worker = rig_worker(0, 0, &opts);
    /* Room for fewer rows of logits than a batch may have: see forward_all(). */
    pthread_mutex_lock(&worker->service.lock);
    worker->compute->out_floats = (size_t)ROWS_MAX * rig_model_open->hp.n_vocab;
    pthread_mutex_unlock(&worker->service.lock);
    client = rig_connect(worker);
    return 0;
}

static int end(void **state)
{
    (void)state;
    return rig_finish(client, worker);
}

static void compare_with(const mcp_generate_opts *opts, const int32_t *prompt, uint32_t count,
                         uint32_t max_tokens)
{
    const struct answer     expected = local_answer(prompt, count, max_tokens, opts);
    const struct wire_frame frame = generate_frame(3, 0, prompt, count, max_tokens, opts);
    struct rig_call        *call = rig_session(client, 1, 0, layers);

    rig_send(call, &frame);
    expect_answer(call, 3, count, &expected, 0);
    rig_close(call);
}

/* Goal:   greedy text is the local loop's.
 * Method: prompts of one token, of some, of a whole window, of more than one; stops at
 *         max_tokens and where the context ends. */
static void greedy_answers_equal_the_local_ones(void **state)
{
    static const uint32_t   counts[] = { 1, 7, RIG_BATCH, RIG_BATCH + 44, RIG_CTX - 3, RIG_CTX };
    const mcp_generate_opts opts = greedy();
    int32_t                 prompt[RIG_CTX];

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(counts); i++) {
        prompt_of(prompt, counts[i], i + 100);
        compare_with(&opts, prompt, counts[i], 12);
    }
}

/* Goal:   sampled text is the local loop's with the same seed. */
static void sampled_answers_equal_the_local_ones(void **state)
{
    mcp_generate_opts opts = MCP_GENERATE_OPTS_INIT;
    int32_t           prompt[20];

    (void)state;
    opts.ignore_end = 1;
    for (uint32_t seed = 1; seed <= 4; seed++) {
        opts.seed = seed;
        opts.top_k = seed % 2 == 0 ? 0 : 40;
        opts.top_p = seed % 3 == 0 ? 1.0f : 0.9f;
        prompt_of(prompt, 20, seed);
        compare_with(&opts, prompt, 20, 16);
    }
}

/* Goal:   an answer ends at the end-of-answer token unless told otherwise.
 * Method: look here for a prompt whose first greedy token is one; ask with and without. */
static void an_answer_ends_where_the_model_ends_it(void **state)
{
    mcp_engine_opts    engine_opts = rig_engine_opts(0, 0);
    struct mcp_engine *e = run_engine(rig_model_open, &engine_opts);
    float             *logits = run_floats(e->model->hp.n_vocab);
    mcp_generate_opts  opts = greedy();
    int32_t            prompt[2], best = -1;
    mcp_error          err;

    (void)state;
    for (uint64_t seed = 0; best < 0 || !ends(best); seed++) {
        assert_true(seed < 20000);
        prompt_of(prompt, 2, seed);
        unit_ok(engine_trim(e, 0, 0, &err), &err);
        advance(e, 0, prompt, 2, logits);
        best = 0;
        for (uint32_t i = 1; i < e->model->hp.n_vocab; i++)
            if (logits[i] > logits[best])
                best = (int32_t)i;
    }
    compare_with(&opts, prompt, 2, 5);
    opts.ignore_end = 0;
    compare_with(&opts, prompt, 2, 5);
    free(logits);
    engine_close(e);
}

/* Goal:   an answer goes on elsewhere with the same tokens.
 * Method: the first 5 of 12 tokens from one session; prompt and those 5 to a new one, with
 *         draws = 5. */
static void an_answer_goes_on_after_so_many_draws(void **state)
{
    mcp_generate_opts opts = MCP_GENERATE_OPTS_INIT;
    struct answer     expected;
    struct wire_frame frame;
    struct rig_call  *call;
    int32_t           prompt[30];

    (void)state;
    opts.seed = 77;
    opts.ignore_end = 1;
    prompt_of(prompt, 10, 5);
    expected = local_answer(prompt, 10, 12, &opts);
    memcpy(prompt + 10, expected.tokens, 5 * sizeof(int32_t));

    call = rig_session(client, 2, 0, layers);
    frame = generate_frame(1, 0, prompt, 15, 7, &opts);
    frame.u.generate.draws = 5;
    rig_send(call, &frame);
    expect_answer(call, 1, 15, &expected, 5);
    rig_close(call);
}

/* Goal:   answers, prefill and verify windows of several sessions at once do not mix.
 * Method: four answers at once behind a slow session; each is the local one. */
static void answers_of_several_sessions_do_not_mix(void **state)
{
    enum { SESSIONS = 4, PROMPT = 25 };
    static const char *const slow[] = { "mcp-debug-stall-ms", "5", NULL };
    mcp_generate_opts        opts = MCP_GENERATE_OPTS_INIT;
    struct answer            expected[SESSIONS];
    struct rig_call         *calls[SESSIONS];
    int32_t                  prompts[SESSIONS][PROMPT];

    (void)state;
    opts.ignore_end = 1;
    for (uint32_t i = 0; i < SESSIONS; i++) {
        const struct wire_open open = rig_open_frame((uint8_t)(10 + i), 0, layers);

        opts.seed = i;
        prompt_of(prompts[i], PROMPT, 40 + i);
        expected[i] = local_answer(prompts[i], PROMPT - i, 20, &opts);
        calls[i] = rig_execute(client, i == 0 ? slow : NULL);
        rig_open_with(calls[i], &open);
    }
    for (uint32_t i = 0; i < SESSIONS; i++) {
        struct wire_frame frame;

        opts.seed = i;
        frame = generate_frame(i, 0, prompts[i], PROMPT - i, 20, &opts);
        rig_send(calls[i], &frame);
    }
    for (uint32_t i = 0; i < SESSIONS; i++) {
        expect_answer(calls[i], i, PROMPT - i, &expected[i], 0);
        rig_close(calls[i]);
    }
}

/* Goal:   Trim stops an answer; the session then does something else.
 * Method: a long answer on a slowed session; after three tokens Trim to the prompt's start in
 *         epoch 1, then another answer, which is the local one. */
static void trim_stops_an_answer(void **state)
{
    static const char *const slow[] = { "mcp-debug-stall-ms", "5", NULL };
    const mcp_generate_opts  opts = greedy();
    const struct wire_open   open = rig_open_frame(20, 0, layers);
    const struct wire_frame  trim = rig_trim(1, 0);
    struct rig_call         *call = rig_execute(client, slow);
    struct wire_frame        frame;
    struct answer            expected;
    int32_t                  prompt[8];

    (void)state;
    rig_open_with(call, &open);
    prompt_of(prompt, 8, 1);
    frame = generate_frame(1, 0, prompt, 8, 200, &opts);
    rig_send(call, &frame);
    for (int i = 0; i < 3; i++)
        free(rig_expect(call, WIRE_TOKEN));
    rig_send(call, &trim);
    prompt_of(prompt, 8, 2);
    expected = local_answer(prompt, 8, 6, &opts);
    frame = generate_frame(2, 0, prompt, 8, 6, &opts);
    frame.u.generate.epoch = 1;
    rig_send(call, &frame);
    while (rig_look(call)->frame.u.token.number != 2) /* said before the Trim came */
        free(rig_expect(call, WIRE_TOKEN));
    expect_answer(call, 2, 8, &expected, 0);
    rig_close(call);
}

/* A lost stream ends its answer; the session keeps what was computed, and can be resumed. */
static void a_lost_stream_stops_its_answer(void **state)
{
    static const char *const slow[] = { "mcp-debug-stall-ms", "5", NULL };
    const mcp_generate_opts  opts = greedy();
    struct wire_open         open = rig_open_frame(21, 0, layers);
    struct rig_call         *call = rig_execute(client, slow);
    struct wire_frame        frame;
    struct answer            expected;
    uint32_t                 length;
    int32_t                  prompt[8];

    (void)state;
    rig_open_with(call, &open);
    prompt_of(prompt, 8, 3);
    frame = generate_frame(1, 0, prompt, 8, 200, &opts);
    rig_send(call, &frame);
    for (int i = 0; i < 3; i++)
        free(rig_expect(call, WIRE_TOKEN));
    rig_drop(call);

    usleep(50 * 1000);
    call = rig_execute(client, NULL);
    open.resume = true;
    length = rig_open_with(call, &open).length;
    assert_true(length >= 10 && length < 8 + 199);
    expected = local_answer(prompt, 8, 4, &opts);
    frame = rig_trim(1, 0);
    rig_send(call, &frame);
    frame = generate_frame(2, 0, prompt, 8, 4, &opts);
    frame.u.generate.epoch = 1;
    rig_send(call, &frame);
    expect_answer(call, 2, 8, &expected, 0);
    rig_close(call);
}

/* Goal:   the session that answers takes nothing else, and says what to do. */
static void nothing_else_runs_beside_an_answer(void **state)
{
    static const char *const slow[] = { "mcp-debug-stall-ms", "20", NULL };
    const mcp_generate_opts  opts = greedy();
    const struct wire_open   open = rig_open_frame(22, 0, layers);
    struct rig_call         *call = rig_execute(client, slow);
    struct wire_frame        frame;
    int32_t                  prompt[8];

    (void)state;
    rig_open_with(call, &open);
    prompt_of(prompt, 8, 4);
    frame = generate_frame(1, 0, prompt, 8, 200, &opts);
    rig_send(call, &frame);
    frame = rig_tokens(2, 8, 1, prompt, WIRE_WANT_LOGITS_LAST);
    rig_send(call, &frame);
    rig_ended(call, WIRE_INVALID_ARGUMENT, "a Generate is under way");
    rig_drop(call);
}

/* Goal:   the last token of an answer may be followed at once by the next question.
 * Method: fifty answers of one token, each asked the moment the one before is there. */
static void answers_follow_each_other_at_once(void **state)
{
    const mcp_generate_opts opts = greedy();
    struct rig_call        *call = rig_session(client, 23, 0, layers);
    int32_t                 token = 5;

    (void)state;
    for (uint32_t i = 0; i < 50; i++) {
        struct wire_frame frame = generate_frame(i, i, &token, 1, 1, &opts);
        struct rig_news  *news;

        rig_send(call, &frame);
        news = rig_expect(call, WIRE_TOKEN);
        assert_int_equal(news->frame.u.token.stop, WIRE_STOP_LENGTH);
        token = news->frame.u.token.token;
        free(news);
    }
    rig_close(call);
}

/* ---- logits ------------------------------------------------------------------------- */

/* Goal:   rows of logits, of the last position and of all.
 * Method: prefill with LAST, a verify window with all rows, and the oracle's rows. */
static void logits_equal_the_local_ones(void **state)
{
    static const uint32_t window_ends[] = { 50, 58, 59 };
    uint32_t              v = rig_model_open->hp.n_vocab;
    struct rig_story     *story = rig_tell(0, layers, window_ends, UNIT_COUNT(window_ends), 60);
    struct rig_call      *call = rig_session(client, 30, 0, layers);
    struct wire_frame     frame = rig_tokens(0, 0, 50, story->tokens, WIRE_WANT_LOGITS_LAST);

    (void)state;
    rig_send(call, &frame);
    rig_result(call, 0, 1, v, story->logits + (size_t)49 * v);
    frame = rig_tokens(1, 50, 8, story->tokens + 50, WIRE_WANT_LOGITS);
    rig_send(call, &frame);
    rig_result(call, 1, 8, v, story->logits + (size_t)50 * v);
    frame = rig_tokens(2, 58, 1, story->tokens + 58, WIRE_WANT_LOGITS);
    rig_send(call, &frame);
    rig_result(call, 2, 1, v, story->logits + (size_t)58 * v);
    rig_close(call);
    rig_story_free(story);
}

/* Five windows of 16 rows behind a slow one: did they come into one batch? */
static bool run_rows_together(struct rig_story **stories, uint32_t count, uint32_t rows)
{
    static const char *const slow[] = { "mcp-debug-stall-ms", "100", NULL };
    struct rig_call         *calls[RIG_SESSIONS], *first = rig_execute(client, slow);
    const struct wire_open   open = rig_open_frame(40, 0, layers);
    struct wire_frame        frame;
    bool                     together = false;

    rig_open_with(first, &open);
    for (uint32_t i = 0; i < count; i++)
        calls[i] = rig_session(client, (uint8_t)(41 + i), 0, layers);
    frame = rig_tokens(0, 0, 1, stories[0]->tokens, WIRE_WANT_LOGITS);
    rig_send(first, &frame);
    for (uint32_t i = 0; i < count; i++) {
        frame = rig_tokens(1, 0, rows, stories[i]->tokens, WIRE_WANT_LOGITS);
        rig_send(calls[i], &frame);
    }
    for (uint32_t i = 0; i < count; i++) {
        together = together || rig_look(calls[i])->frame.u.result.batch_tokens > ROWS_MAX;
        rig_result(calls[i], 1, rows, rig_model_open->hp.n_vocab, stories[i]->logits);
        rig_close(calls[i]);
    }
    rig_close(first);
    return together;
}

/* Goal:   a batch with more rows of logits than there is room for runs in several forwards.
 * Method: windows of 80 rows in all, where there is room for 64; again until they share a batch. */
static void many_rows_of_logits_run_in_several_forwards(void **state)
{
    enum { SESSIONS = 5, ROWS = 16 };
    static const uint32_t window_ends[] = { ROWS };
    struct rig_story     *stories[SESSIONS];
    int                   rounds = 0;

    (void)state;
    for (uint32_t i = 0; i < SESSIONS; i++)
        stories[i] = rig_tell(0, layers, window_ends, 1, 70 + i);
    while (!run_rows_together(stories, SESSIONS, ROWS))
        assert_true(++rounds < RIG_ROUNDS);
    for (uint32_t i = 0; i < SESSIONS; i++)
        rig_story_free(stories[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_answers_equal_the_local_ones),
        cmocka_unit_test(sampled_answers_equal_the_local_ones),
        cmocka_unit_test(an_answer_ends_where_the_model_ends_it),
        cmocka_unit_test(an_answer_goes_on_after_so_many_draws),
        cmocka_unit_test(answers_of_several_sessions_do_not_mix),
        cmocka_unit_test(trim_stops_an_answer),
        cmocka_unit_test(a_lost_stream_stops_its_answer),
        cmocka_unit_test(nothing_else_runs_beside_an_answer),
        cmocka_unit_test(answers_follow_each_other_at_once),
        cmocka_unit_test(logits_equal_the_local_ones),
        cmocka_unit_test(many_rows_of_logits_run_in_several_forwards),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
