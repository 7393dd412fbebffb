/* SPDX-License-Identifier: MIT */
/* cloud.c - a worker that answers by itself, with guesses of its own, says what is said here.
 *
 * The oracle is a session in this process that computes one token at a time; the others have
 * everything on a worker behind TLS on loopback, which guesses ahead as it likes.  SmolLM2, greedy
 * and drawn, texts that repeat themselves: the tokens must be equal, whoever else is on the worker,
 * over several turns, and after an answer that was broken off. */
#include "cluster_common.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { CTX = 768, ANSWER = 48, TOKENS_MAX = CTX, SESSIONS = 4 };

static struct cluster world = { .ctx_tokens = CTX, .batch_tokens = 512 };

struct tokens {
    int32_t  id[TOKENS_MAX];
    uint32_t count;
    uint32_t stop_after; /* 0: never */
};

static const char *const prompts[] = {
    "Repeat this sentence three times: The old ferry crosses the grey river twice a day.",
    "Count from one to twenty in words, then count again.",
    "def add(a, b):\n    return a + b\n\ndef sub(a, b):\n    return a - b\n\nWrite mul and div.",
    "List the planets of the solar system, then list them again.",
};
enum { PROMPTS = sizeof(prompts) / sizeof(prompts[0]) };

/* ---- answers ------------------------------------------------------------------------------- */

static int on_token(int32_t token, const char *bytes, size_t count, void *ctx)
{
    struct tokens *t = ctx;

    (void)bytes;
    (void)count;
    t->id[t->count++] = token;
    return t->count == t->stop_after;
}

/* seed 0: greedy. */
static int ask(mcp_session *session, const struct tokens *prompt, uint32_t seed, struct tokens *out,
               mcp_error *err)
{
    mcp_generate_opts opts = MCP_GENERATE_OPTS_INIT;

    opts.max_tokens = ANSWER;
    opts.temperature = seed == 0 ? 0.0f : 0.7f;
    opts.seed = seed;
    opts.ignore_end = 1;
    out->count = 0;
    return mcp_session_generate(session, prompt->id, prompt->count, &opts, on_token, out, NULL,
                                err);
}

static void answer(mcp_session *session, const struct tokens *prompt, uint32_t seed,
                   struct tokens *out)
{
    mcp_error err = { 0 };

    if (ask(session, prompt, seed, out, &err) < 0)
        fail_msg("%s", err.text);
}

static void same(const struct tokens *expected, const struct tokens *actual, const char *what)
{
    cluster_same_tokens(expected->id, expected->count, actual->id, actual->count, what);
}

static void prompt_tokens(struct tokens *t, size_t index)
{
    t->count = cluster_prompt(&world, prompts[index], t->id, TOKENS_MAX);
}

/* `depth` guesses wherever the text suggests them; 0: as the worker likes. */
static mcp_session *cloud_session(uint32_t depth)
{
    mcp_session_opts opts = MCP_SESSION_OPTS_INIT;

    opts.model = world.model;
    opts.remote = world.remote;
    opts.cloud = 1;
    opts.ctx_tokens = CTX;
    opts.spec_depth = depth;
    return cluster_session(&opts);
}

/* A figure of the worker. */
static double metric(const char *name)
{
    char       *text = mcp_worker_metrics(world.worker);
    const char *at = text;
    double      value;

    assert_non_null(text);
    do {
        at = strstr(at, name);
        assert_non_null(at);
        at += strlen(name);
    } while (*at != ' ' || at[-(ptrdiff_t)strlen(name) - 1] != '\n');
    value = strtod(at, NULL);
    free(text);
    return value;
}

/* ---- tests --------------------------------------------------------------------------------- */

static void guesses_change_no_token(void **state)
{
    struct tokens prompt, expected, actual = { 0 };
    double        guesses, right;

    (void)state;
    smollm2_path();
    expected.stop_after = 0;
    for (size_t i = 0; i < PROMPTS; i++)
        for (uint32_t seed = 0; seed < 3; seed++) {
            mcp_session *local = cluster_session_here(&world, 0);
            mcp_session *cloud = cloud_session(4 * seed);

            prompt_tokens(&prompt, i);
            answer(local, &prompt, seed, &expected);
            answer(cloud, &prompt, seed, &actual);
            same(&expected, &actual, prompts[i]);
            mcp_session_close(local);
            mcp_session_close(cloud);
        }
    guesses = metric("mcp_worker_guesses_total");
    right = metric("mcp_worker_guesses_right_total");
    print_message("    %g guesses, %g right\n", guesses, right);
    assert_true(guesses > 0 && right <= guesses);
}

/* Goal:   what was cut off or broken off leaves no guess behind.
 * Method: answers broken off after each number of tokens up to 10, then the next turn, which begins
 *         with what was said. */
static void an_answer_that_is_broken_off_leaves_no_guess(void **state)
{
    mcp_session  *local, *cloud;
    struct tokens prompt, expected = { 0 }, actual = { 0 };

    (void)state;
    smollm2_path();
    local = cluster_session_here(&world, 0);
    cloud = cloud_session(6);
    prompt_tokens(&prompt, 0);
    for (uint32_t turn = 1; turn <= 10; turn++) {
        expected.stop_after = actual.stop_after = turn;
        answer(local, &prompt, turn % 3, &expected);
        answer(cloud, &prompt, turn % 3, &actual);
        same(&expected, &actual, "an answer broken off");
        memcpy(prompt.id + prompt.count, expected.id, turn * sizeof(int32_t));
        prompt.count += turn;
    }
    mcp_session_close(local);
    mcp_session_close(cloud);
}

struct guest {
    pthread_t     thread;
    mcp_session  *session;
    struct tokens prompt, expected, actual;
    uint32_t      seed;
    mcp_error     err;
    int           rc;
};

static void *be_a_guest(void *ctx)
{
    struct guest *g = ctx;

    g->rc = ask(g->session, &g->prompt, g->seed, &g->actual, &g->err);
    return NULL;
}

static void sessions_that_guess_at_once_do_not_mix(void **state)
{
    static struct guest guests[SESSIONS];

    (void)state;
    smollm2_path();
    for (uint32_t i = 0; i < SESSIONS; i++) {
        struct guest *g = &guests[i];
        mcp_session  *local = cluster_session_here(&world, 0);

        g->seed = i % 2 == 0 ? 0 : i;
        prompt_tokens(&g->prompt, i % PROMPTS);
        answer(local, &g->prompt, g->seed, &g->expected);
        mcp_session_close(local);
        g->session = cloud_session(2 * i);
    }
    for (uint32_t i = 0; i < SESSIONS; i++)
        assert_int_equal(pthread_create(&guests[i].thread, NULL, be_a_guest, &guests[i]), 0);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        pthread_join(guests[i].thread, NULL);
        if (guests[i].rc < 0)
            fail_msg("%s", guests[i].err.text);
        mcp_session_close(guests[i].session);
    }
    for (uint32_t i = 0; i < SESSIONS; i++)
        same(&guests[i].expected, &guests[i].actual, "beside others");
}

/* ---- main ---------------------------------------------------------------------------------- */

static int begin(void **state)
{
    (void)state;
    return cluster_begin(&world, "cloud", 0, CLUSTER_LAYERS, SESSIONS);
}

static int end(void **state)
{
    (void)state;
    return cluster_end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_change_no_token),
        cmocka_unit_test(an_answer_that_is_broken_off_leaves_no_guess),
        cmocka_unit_test(sessions_that_guess_at_once_do_not_mix),
    };

    cmocka_set_test_filter(getenv("MCP_TEST_FILTER")); /* NULL: all */
    return cmocka_run_group_tests(tests, begin, end);
}
