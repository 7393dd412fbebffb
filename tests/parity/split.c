/* SPDX-License-Identifier: MIT */
/* split.c - a model that is split across machines says what it says in one piece.
 *
 * The oracle is a session in this process whose windows are the same; the split session has
 * its middle layers on workers behind TLS on loopback.  SmolLM2, greedy, hidden states in f32:
 * the tokens must be equal, wherever it is cut, however the prompt is chunked, with one worker or
 * two, and whoever else is on the worker. */
#include "cluster_common.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CTX = 768, ANSWER = 16, TOKENS_MAX = CTX, SESSIONS = 8 };

static struct cluster world = { .ctx_tokens = CTX, .batch_tokens = 512 };

/* ---- texts --------------------------------------------------------------------------------- */

static const char *const prompts[] = {
    "Hello!",
    "Why is the sky blue?",
    "Write a haiku about rivers.",
    "What is 17 * 23? Think step by step.",
    "Write a C function that reverses a string in place.",
    "def fib(n):\n    if n < 2:\n        return n\n\nFinish this function.",
    "Erkläre den Unterschied zwischen Wärme und Temperatur.",
    "请用中文介绍一下北京。",
    "Расскажи короткую сказку о лисе.",
    "🦙🚀 what do these mean? 👩‍👩‍👧‍👦",
    "   leading spaces\tand a tab\n\n\nand blank lines   ",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23",
    "List the planets of the solar system.",
    "Where is the treasure?",
    "Translate to French: The cat sleeps on the warm stone.",
    "Name a colour.",
    "What is the capital of France, and what is it famous for?",
    "Explain TCP slow start to a child.",
    "SELECT name FROM people WHERE",
    "", /* long_prompt() */
};
enum { PROMPTS = sizeof(prompts) / sizeof(prompts[0]), SHORT = PROMPTS - 1 };

/* Past 512 positions with its answer: ggml's attention takes other paths there. */
static const char *long_prompt(void)
{
    static char text[4096];
    size_t      used = 0;

    for (int i = 1; used + 128 < 1900; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used,
                                 "On day %d the ship sailed %d miles to the %s. ", i, (i * 37) % 90,
                                 i % 2 != 0 ? "north" : "west");
    snprintf(text + used, sizeof(text) - used, "Summarise the journey.");
    return text;
}

struct tokens {
    int32_t  id[TOKENS_MAX];
    uint32_t count;
};

static void prompt_tokens(struct tokens *t, size_t index)
{
    t->count = cluster_prompt(&world, prompts[index][0] != '\0' ? prompts[index] : long_prompt(),
                              t->id, TOKENS_MAX);
}

static int on_token(int32_t token, const char *bytes, size_t count, void *ctx)
{
    struct tokens *t = ctx;

    (void)bytes;
    (void)count;
    t->id[t->count++] = token;
    return 0;
}

/* The answer of `session`; an error fails with its sentence. */
static void answer(mcp_session *session, const struct tokens *prompt, struct tokens *out)
{
    mcp_generate_opts opts = MCP_GENERATE_OPTS_INIT;
    mcp_error         err = { 0 };

    opts.max_tokens = ANSWER;
    opts.temperature = 0.0f;
    opts.ignore_end = 1;
    out->count = 0;
    if (mcp_session_generate(session, prompt->id, prompt->count, &opts, on_token, out, NULL, &err) <
        0)
        fail_msg("%s", err.text);
}

static void same(const struct tokens *expected, const struct tokens *actual, const char *what)
{
    cluster_same_tokens(expected->id, expected->count, actual->id, actual->count, what);
}

/* ---- sessions --------------------------------------------------------------------------------- */

/* Stages between `cuts`: the outer ones here, the inner ones on workers. */
static mcp_session *split_session(mcp_remote *remote, const uint32_t *cuts, uint32_t count,
                                  uint32_t chunk)
{
    mcp_stage        stages[MCP_CUTS_MAX + 1];
    mcp_session_opts opts = MCP_SESSION_OPTS_INIT;

    for (uint32_t i = 0; i <= count; i++) {
        stages[i].first = i > 0 ? cuts[i - 1] : 0;
        stages[i].last = i < count ? cuts[i] : CLUSTER_LAYERS;
        stages[i].engine = i == 0 || i == count ? world.engine : NULL;
    }
    opts.seq = 1;
    opts.stages = stages;
    opts.stage_count = count + 1;
    opts.remote = remote;
    opts.codec = "f32";
    opts.chunk_tokens = chunk;
    return cluster_session(&opts);
}

static void compare(size_t prompt, mcp_remote *remote, const uint32_t *cuts, uint32_t count,
                    uint32_t chunk)
{
    struct tokens ask, expected, actual;
    mcp_session  *local = cluster_session_here(&world, chunk), *split;
    char          what[160];

    prompt_tokens(&ask, prompt);
    answer(local, &ask, &expected);
    mcp_session_close(local);
    split = split_session(remote, cuts, count, chunk);
    answer(split, &ask, &actual);
    mcp_session_close(split);
    snprintf(what, sizeof(what), "prompt %zu, cuts %u..%u, windows of %u", prompt, cuts[0],
             cuts[count - 1], chunk);
    same(&expected, &actual, what);
}

/* ---- around all --------------------------------------------------------------------------------- */

static int begin(void **state)
{
    (void)state;
    return cluster_begin(&world, "split", 0, CLUSTER_LAYERS, SESSIONS);
}

static int end(void **state)
{
    (void)state;
    return cluster_end(&world);
}

/* ---- tests ------------------------------------------------------------------------------------------ */

static void twenty_prompts_are_answered_as_in_one_piece(void **state)
{
    const uint32_t cuts[] = { 2, 28 };

    (void)state;
    smollm2_path();
    for (size_t i = 0; i < PROMPTS; i++)
        compare(i, world.remote, cuts, 2, 64);
}

/* Goal: every layer boundary has been the first cut and the last one. */
static void the_cut_may_be_anywhere(void **state)
{
    (void)state;
    smollm2_path();
    for (uint32_t first = 1; first < CLUSTER_LAYERS - 1; first++) {
        const uint32_t cuts[] = { first, first + 1 + (first * 7) % (CLUSTER_LAYERS - 1 - first) };

        compare(first % SHORT, world.remote, cuts, 2, 64);
    }
    for (uint32_t last = 2; last < CLUSTER_LAYERS; last++) {
        const uint32_t cuts[] = { 1 + (last * 5) % (last - 1), last };

        compare(last % SHORT, world.remote, cuts, 2, 64);
    }
}

static void the_prompt_may_be_chunked_at_will(void **state)
{
    const uint32_t cuts[] = { 3, 26 };
    const uint32_t chunks[] = { 1, 2, 3, 5, 7, 16, 31, 32, 63, 64, 65, 96, 100, 127, 128 };

    (void)state;
    smollm2_path();
    for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++)
        compare(i % 5 == 3 ? SHORT : 16, world.remote, cuts, 2, chunks[i]);
}

/* Goal: a hidden state goes from one worker to another through the agent. */
static void two_workers_in_a_row_give_the_same_text(void **state)
{
    mcp_worker    *workers[2];
    mcp_remote    *remote;
    const uint32_t cuts[] = { 2, 15, 28 };

    (void)state;
    smollm2_path();
    workers[0] = cluster_worker(&world, 2, 15, 1);
    workers[1] = cluster_worker(&world, 15, 28, 1);
    remote = cluster_remote(&world, workers, 2);
    for (size_t i = 0; i < PROMPTS; i += 3)
        compare(i, remote, cuts, 3, 64);
    compare(SHORT, remote, cuts, 3, 40);
    mcp_remote_close(remote);
    mcp_worker_close(workers[0]);
    mcp_worker_close(workers[1]);
}

static void turns_of_a_chat_reuse_what_the_worker_has(void **state)
{
    const uint32_t      cuts[] = { 2, 28 };
    mcp_session        *local, *split;
    struct tokens       ask, expected, actual;
    mcp_generate_opts   opts = MCP_GENERATE_OPTS_INIT;
    mcp_generate_result result;

    (void)state;
    smollm2_path();
    local = cluster_session_here(&world, 64);
    split = split_session(world.remote, cuts, 2, 64);
    prompt_tokens(&ask, 16);
    opts.max_tokens = ANSWER;
    opts.temperature = 0.0f;
    opts.ignore_end = 1;
    for (int turn = 0; turn < 4; turn++) {
        expected.count = actual.count = 0;
        assert_int_equal(
            mcp_session_generate(local, ask.id, ask.count, &opts, on_token, &expected, NULL, NULL),
            MCP_OK);
        assert_int_equal(
            mcp_session_generate(split, ask.id, ask.count, &opts, on_token, &actual, &result, NULL),
            MCP_OK);
        same(&expected, &actual, "a later turn");
        if (turn > 0)
            assert_true(result.prompt_cached > 0);
        /* Half of the answer, then something else: the sessions must go back. */
        for (uint32_t i = 0; i < ANSWER / 2; i++)
            ask.id[ask.count++] = expected.id[i];
        for (uint32_t i = 0; i < 5; i++)
            ask.id[ask.count++] = (int32_t)(1000 + 37 * (uint32_t)turn + i);
    }
    mcp_session_close(local);
    mcp_session_close(split);
}

static void a_worker_that_does_it_all_gives_the_same_text(void **state)
{
    mcp_session_opts opts = MCP_SESSION_OPTS_INIT;
    struct tokens    ask, expected, actual;

    (void)state;
    smollm2_path();
    opts.model = world.model;
    opts.remote = world.remote;
    opts.cloud = 1;
    opts.ctx_tokens = CTX;
    for (size_t i = 0; i < PROMPTS; i += 2) {
        mcp_session *local = cluster_session_here(&world, 0), *cloud = cluster_session(&opts);

        prompt_tokens(&ask, i);
        answer(local, &ask, &expected);
        answer(cloud, &ask, &actual);
        same(&expected, &actual, prompts[i]);
        mcp_session_close(local);
        mcp_session_close(cloud);
    }
}

/* ---- many at once --------------------------------------------------------------------------------- */

struct guest {
    pthread_t     thread;
    struct tokens ask, expected, actual;
    uint32_t      cuts[2];
    mcp_error     err;
    int           rc;
};

/* A guest has engines of its own, as another machine would. */
static void *be_a_guest(void *ctx)
{
    struct guest     *g = ctx;
    mcp_engine_opts   opts = MCP_ENGINE_OPTS_INIT;
    mcp_session_opts  session_opts = MCP_SESSION_OPTS_INIT;
    mcp_generate_opts generate = MCP_GENERATE_OPTS_INIT;
    mcp_engine       *head = NULL, *tail = NULL;
    mcp_session      *session = NULL;

    opts.ctx_tokens = CTX;
    opts.threads = 1;
    opts.device = "cpu";
    opts.even_windows = 1;
    opts.batch_tokens = opts.ubatch_tokens = 64;
    opts.last = g->cuts[0];
    g->rc = mcp_engine_open(&head, world.model, &opts, &g->err);
    opts.first = g->cuts[1];
    opts.last = CLUSTER_LAYERS;
    opts.beside = head;
    if (g->rc == MCP_OK)
        g->rc = mcp_engine_open(&tail, world.model, &opts, &g->err);

    mcp_stage stages[] = { { 0, g->cuts[0], head },
                           { g->cuts[0], g->cuts[1], NULL },
                           { g->cuts[1], CLUSTER_LAYERS, tail } };
    session_opts.stages = stages;
    session_opts.stage_count = 3;
    session_opts.remote = world.remote;
    session_opts.codec = "f32";
    if (g->rc == MCP_OK)
        g->rc = mcp_session_open(&session, NULL, &session_opts, &g->err);
    generate.max_tokens = ANSWER;
    generate.temperature = 0.0f;
    generate.ignore_end = 1;
    if (g->rc == MCP_OK)
        g->rc = mcp_session_generate(session, g->ask.id, g->ask.count, &generate, on_token,
                                     &g->actual, NULL, &g->err);
    mcp_session_close(session);
    mcp_engine_close(tail);
    mcp_engine_close(head);
    return NULL;
}

/* Goal:   a session's tokens do not depend on who else is on the worker.
 * Method: eight sessions at once at the same range, some of them past 512 positions, each
 *         compared with its text alone. */
static void eight_sessions_on_one_worker_do_not_disturb_each_other(void **state)
{
    static struct guest guests[SESSIONS];

    (void)state;
    smollm2_path();
    for (size_t i = 0; i < SESSIONS; i++) {
        mcp_session *local = cluster_session_here(&world, 64);

        guests[i].cuts[0] = 2;
        guests[i].cuts[1] = i % 4 == 3 ? 20 : 28; /* two ranges, which cannot share a forward */
        prompt_tokens(&guests[i].ask, i % 4 == 0 ? SHORT : i);
        answer(local, &guests[i].ask, &guests[i].expected);
        mcp_session_close(local);
    }
    for (size_t i = 0; i < SESSIONS; i++)
        assert_int_equal(pthread_create(&guests[i].thread, NULL, be_a_guest, &guests[i]), 0);
    for (size_t i = 0; i < SESSIONS; i++)
        pthread_join(guests[i].thread, NULL);
    for (size_t i = 0; i < SESSIONS; i++) {
        char what[32];

        if (guests[i].rc < 0)
            fail_msg("session %zu: %s", i, guests[i].err.text);
        snprintf(what, sizeof(what), "session %zu", i);
        same(&guests[i].expected, &guests[i].actual, what);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twenty_prompts_are_answered_as_in_one_piece),
        cmocka_unit_test(the_cut_may_be_anywhere),
        cmocka_unit_test(the_prompt_may_be_chunked_at_will),
        cmocka_unit_test(two_workers_in_a_row_give_the_same_text),
        cmocka_unit_test(turns_of_a_chat_reuse_what_the_worker_has),
        cmocka_unit_test(a_worker_that_does_it_all_gives_the_same_text),
        cmocka_unit_test(eight_sessions_on_one_worker_do_not_disturb_each_other),
    };

    cmocka_set_test_filter(getenv("MCP_TEST_FILTER")); /* NULL: all */
    return cmocka_run_group_tests(tests, begin, end);
}
