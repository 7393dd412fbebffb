/* SPDX-License-Identifier: MIT */
/* speculate.c - guessing ahead changes no token.
 *
 * The oracle is a session in this process that computes one token at a time; the others have their
 * middle layers on workers behind TLS on loopback and send windows of guesses.  SmolLM2, hidden
 * states in f32, greedy and drawn: the tokens must be equal, however good the guesses, however
 * many in a window, however many windows in flight, over one worker or two, and also when a worker
 * goes away in the middle.  Draft models are the same weights, the same with noise, and weights
 * drawn at random. */
#include "cluster_common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CTX = 512, ANSWER = 32, TOKENS_MAX = CTX, DEPTHS = 16, WINDOWS = 8 };

static struct cluster world = { .ctx_tokens = CTX, .batch_tokens = 128 };

struct tokens {
    int32_t      id[TOKENS_MAX];
    uint32_t     count;
    uint32_t     stop_after; /* 0: never */
    uint32_t     lose_after; /* close the worker that the session uses after so many; 0: never */
    mcp_worker  *workers[2];
    mcp_session *session;
};

static const char *const prompts[] = {
    "Count from one to twenty in words, then count again.",
    "Repeat this sentence three times: The old ferry crosses the grey river twice a day.",
    "Why is the sky blue?",
    "def add(a, b):\n    return a + b\n\nWrite the same for sub, mul and div.",
};
enum { PROMPTS = sizeof(prompts) / sizeof(prompts[0]) };

/* ---- texts --------------------------------------------------------------------------------- */

static void prompt_tokens(struct tokens *t, size_t index)
{
    t->count = cluster_prompt(&world, prompts[index], t->id, TOKENS_MAX);
}

/* The worker where the middle of the session runs goes away. */
static void lose_worker(struct tokens *t)
{
    mcp_session_stats stats = { .struct_size = sizeof(stats) };

    assert_int_equal(mcp_session_get_stats(t->session, &stats), MCP_OK);
    for (size_t i = 0; i < 2; i++) {
        if (strncmp(stats.stages[1].where, mcp_worker_address(t->workers[i]),
                    strlen(mcp_worker_address(t->workers[i]))) != 0)
            continue;
        mcp_worker_close(t->workers[i]);
        t->workers[i] = NULL;
        return;
    }
    fail_msg("the session runs at %s", stats.stages[1].where);
}

static int on_token(int32_t token, const char *bytes, size_t count, void *ctx)
{
    struct tokens *t = ctx;

    (void)bytes;
    (void)count;
    t->id[t->count++] = token;
    if (t->count == t->lose_after)
        lose_worker(t);
    return t->count == t->stop_after;
}

static mcp_generate_opts ask_for(uint32_t seed)
{
    mcp_generate_opts opts = MCP_GENERATE_OPTS_INIT;

    opts.max_tokens = ANSWER;
    opts.temperature = seed == 0 ? 0.0f : 0.7f;
    opts.seed = seed;
    opts.ignore_end = 1;
    return opts;
}

/* seed 0: greedy. */
static void answer(mcp_session *session, const struct tokens *prompt, uint32_t seed,
                   struct tokens *out)
{
    mcp_generate_opts opts = ask_for(seed);
    mcp_error         err = { 0 };

    out->count = 0;
    out->session = session;
    if (mcp_session_generate(session, prompt->id, prompt->count, &opts, on_token, out, NULL, &err) <
        0)
        fail_msg("%s", err.text);
}

static void same(const struct tokens *expected, const struct tokens *actual, const char *what)
{
    cluster_same_tokens(expected->id, expected->count, actual->id, actual->count, what);
}

/* ---- sessions ------------------------------------------------------------------------------ */

static void expect(const struct tokens *ask, uint32_t seed, struct tokens *out)
{
    mcp_session *session = cluster_session_here(&world, 64);

    answer(session, ask, seed, out);
    mcp_session_close(session);
}

struct way {
    uint32_t depth, windows; /* 0 = chosen */
    float    right;          /* of guesses out of `truth`; below 0: n-grams */
};

static mcp_session *split_session(mcp_remote *remote, uint32_t hops, const struct way *way,
                                  const struct tokens *truth)
{
    const mcp_stage one[] = { { 0, 2, world.engine }, { 2, 28, NULL }, { 28, 30, world.engine } };
    const mcp_stage two[] = {
        { 0, 2, world.engine }, { 2, 15, NULL }, { 15, 28, NULL }, { 28, 30, world.engine }
    };
    mcp_session_opts opts = MCP_SESSION_OPTS_INIT;

    opts.seq = 1;
    opts.stages = hops == 1 ? one : two;
    opts.stage_count = hops + 2;
    opts.remote = remote;
    opts.codec = "f32";
    opts.chunk_tokens = 64;
    opts.spec = MCP_SPEC_NGRAM;
    opts.spec_depth = way->depth;
    opts.spec_windows = way->windows;
    if (way->right >= 0.0f) {
        opts.spec_truth = truth->id;
        opts.spec_truth_count = truth->count;
        opts.spec_synth = way->right;
    }
    return cluster_session(&opts);
}

static const char *name_of(const struct way *way, size_t prompt, uint32_t seed)
{
    static char text[160];

    snprintf(text, sizeof(text), "prompt %zu, seed %u, guesses %s (%g), %u a window, %u windows",
             prompt, seed, way->right < 0.0f ? "by n-gram" : "made", (double)way->right, way->depth,
             way->windows);
    return text;
}

/* The oracle's answer to a prompt; greedy ones are kept. */
static const struct tokens *expected_for(const struct tokens *ask, size_t prompt, uint32_t seed)
{
    static struct tokens greedy[PROMPTS], drawn;

    if (seed != 0) {
        expect(ask, seed, &drawn);
        return &drawn;
    }
    if (greedy[prompt].count == 0)
        expect(ask, 0, &greedy[prompt]);
    return &greedy[prompt];
}

/* One answer, and that it was made in the way meant. */
static void compare(mcp_remote *remote, uint32_t hops, const struct way *way, size_t prompt,
                    uint32_t seed)
{
    struct tokens        ask = { 0 }, actual = { 0 };
    const struct tokens *expected;
    mcp_session_stats    stats = { .struct_size = sizeof(stats) };
    mcp_session         *split;

    prompt_tokens(&ask, prompt);
    expected = expected_for(&ask, prompt, seed);
    split = split_session(remote, hops, way, expected);
    answer(split, &ask, seed, &actual);
    assert_int_equal(mcp_session_get_stats(split, &stats), MCP_OK);
    mcp_session_close(split);
    same(expected, &actual, name_of(way, prompt, seed));
    if (way->windows > 0)
        assert_true(stats.in_flight_max <= way->windows);
    if (way->right < 0.0f || way->depth == 0)
        return;
    if (way->right == 0.0f)
        assert_int_equal(stats.accepted, 0);
    if (way->right == 1.0f)
        assert_int_equal(stats.accepted, stats.drafted_seen);
    if (way->right > 0.4f)
        assert_true(stats.accepted > 0);
    if (way->right > 0.4f && way->windows > 1)
        assert_true(stats.in_flight_max > 1);
}

/* ---- around all --------------------------------------------------------------------------------- */

static int begin(void **state)
{
    (void)state;
    return cluster_begin(&world, "speculate", 2, 28, 4);
}

static int end(void **state)
{
    (void)state;
    return cluster_end(&world);
}

/* ---- tests --------------------------------------------------------------------------------- */

static const float rights[] = { 0.0f, 0.5f, 0.9f, 1.0f };
enum { RIGHTS = sizeof(rights) / sizeof(rights[0]) };

/* Goal:   no number of guesses, of windows, and no quality of guesses changes a token.
 * Method: each depth with each quality; every number of windows with each of both in turns. */
static void guesses_in_any_number_change_no_token(void **state)
{
    uint32_t round = 0;

    (void)state;
    smollm2_path();
    for (uint32_t depth = 1; depth <= DEPTHS; depth++) {
        for (uint32_t r = 0; r < RIGHTS; r++, round++) {
            struct way way = { depth, 1 + (depth * 3 + r * 5) % WINDOWS, rights[r] };

            compare(world.remote, 1, &way, round % PROMPTS, round % 3 == 2 ? 100 + round : 0);
        }
    }
}

static void guesses_by_n_gram_change_no_token(void **state)
{
    (void)state;
    smollm2_path();
    for (uint32_t i = 0; i <= WINDOWS; i++) {
        struct way way = { i * 2, i, -1.0f }; /* the first: as it chooses itself */

        compare(world.remote, 1, &way, i % PROMPTS, 0);
        compare(world.remote, 1, &way, (i + 1) % PROMPTS, i + 1);
    }
}

static void two_hops_change_no_token(void **state)
{
    mcp_worker *workers[2];
    mcp_remote *remote;

    (void)state;
    smollm2_path();
    workers[0] = cluster_worker(&world, 2, 15, 1);
    workers[1] = cluster_worker(&world, 15, 28, 1);
    remote = cluster_remote(&world, workers, 2);
    for (uint32_t i = 0; i < 10; i++) {
        struct way way = { (i * 3) % 17, (i * 5) % (WINDOWS + 1),
                           i % 5 < RIGHTS ? rights[i % 5] : -1.0f };

        compare(remote, 2, &way, i % PROMPTS, i % 2 == 0 ? 0 : 200 + i);
    }
    mcp_remote_close(remote);
    mcp_worker_close(workers[0]);
    mcp_worker_close(workers[1]);
}

/* Goal:   the journal and the windows in flight survive a worker together.
 * Method: two workers with the same layers; the one in use is closed at various tokens. */
static void a_worker_that_goes_away_changes_no_token(void **state)
{
    uint32_t moved = 0;

    (void)state;
    smollm2_path();
    for (uint32_t i = 0; i < 6; i++) {
        struct way        way = { 1 + i * 2, 1 + i, rights[1 + i % 3] };
        struct tokens     ask = { 0 }, expected = { 0 }, actual = { .lose_after = 3 + 2 * i };
        mcp_session_stats stats = { .struct_size = sizeof(stats) };
        uint32_t          seed = i % 2 == 0 ? 0 : 300 + i;
        mcp_remote       *remote;
        mcp_session      *split;

        prompt_tokens(&ask, i % PROMPTS);
        expect(&ask, seed, &expected);
        actual.workers[0] = cluster_worker(&world, 2, 28, 1);
        actual.workers[1] = cluster_worker(&world, 2, 28, 1);
        remote = cluster_remote(&world, actual.workers, 2);
        split = split_session(remote, 1, &way, &expected);
        answer(split, &ask, seed, &actual);
        same(&expected, &actual, name_of(&way, i % PROMPTS, seed));
        assert_int_equal(mcp_session_get_stats(split, &stats), MCP_OK);
        moved += stats.failovers + stats.handovers > 0; /* or all that was left was on its way */
        mcp_session_close(split);
        mcp_remote_close(remote);
        mcp_worker_close(actual.workers[0]);
        mcp_worker_close(actual.workers[1]);
    }
    assert_true(moved >= 3);
}

/* Goal:   an answer that is stopped leaves nothing of its guesses behind.
 * Method: stop after each of some tokens; the next turn of the same session goes on otherwise. */
static void a_stopped_answer_leaves_no_guess_behind(void **state)
{
    (void)state;
    smollm2_path();
    for (uint32_t i = 1; i <= 12; i++) {
        struct way    way = { i, 1 + i % 5, 1.0f };
        struct tokens ask = { 0 }, truth = { 0 }, expected = { 0 }, actual = { .stop_after = i };
        mcp_session  *split;

        prompt_tokens(&ask, i % PROMPTS);
        expect(&ask, 0, &truth);
        split = split_session(world.remote, 1, &way, &truth);
        answer(split, &ask, 0, &actual);
        assert_int_equal(actual.count, i);
        for (uint32_t k = 0; k < i; k++)
            ask.id[ask.count++] = actual.id[k];
        ask.id[ask.count++] = (int32_t)(1000 + i);
        expect(&ask, 7, &expected);
        actual.stop_after = 0;
        answer(split, &ask, 7, &actual);
        mcp_session_close(split);
        same(&expected, &actual, name_of(&way, i % PROMPTS, 7));
    }
}

/* ---- draft models ------------------------------------------------------------------------------ */

enum drafter { DRAFT_SAME, DRAFT_NOISY, DRAFT_RANDOM, DRAFTERS };

static const char *const drafter_names[] = { "the model itself", "the model with noise",
                                             "random weights" };

/* Open it; its file is gone once it is open. */
static mcp_model *open_drafter(enum drafter which)
{
    char              path[400];
    const char *const noisy[] = { "--from", smollm2_path(), "--noise", "0.1", "-o", path, NULL };
    const char *const random[] = { "--shape", "tiny-llama",  "--quant", "q4_0",
                                   "--set",   "vocab=49152", "--vocab", smollm2_path(),
                                   "-o",      path,          NULL };
    mcp_model        *model = NULL;
    mcp_error         err = { 0 };

    snprintf(path, sizeof(path), "%s/draft.gguf", world.folder);
    if (which != DRAFT_SAME)
        free(synth_output(which == DRAFT_NOISY ? noisy : random));
    if (mcp_model_open(&model, which == DRAFT_SAME ? smollm2_path() : path, &err) < 0)
        fail_msg("%s", err.text);
    if (mcp_model_tokenize(model, "a", 1, 0, NULL, 0, &err) < 0) /* the tokenizer is read later */
        fail_msg("%s", err.text);
    if (which != DRAFT_SAME)
        unlink(path);
    return model;
}

struct drafted {
    mcp_spec spec;
    uint32_t depth, windows;
    bool     here; /* all layers */
};

static mcp_session *drafted_session(const struct drafted *way, const mcp_model *draft)
{
    const mcp_stage here = { 0, 30, world.engine };
    const mcp_stage split[] = { { 0, 2, world.engine }, { 2, 28, NULL }, { 28, 30, world.engine } };
    mcp_session_opts opts = MCP_SESSION_OPTS_INIT;

    opts.seq = 1;
    opts.stages = way->here ? &here : split;
    opts.stage_count = way->here ? 1 : 3;
    opts.remote = way->here ? NULL : world.remote;
    opts.codec = "f32";
    opts.chunk_tokens = 64;
    opts.spec = way->spec;
    opts.spec_depth = way->depth;
    opts.spec_windows = way->windows;
    opts.draft_model = draft;
    return cluster_session(&opts);
}

/* Two answers of one session, the second without what the first one's guesses left behind. */
static void compare_drafted(const struct drafted *way, const mcp_model *draft, size_t prompt,
                            uint32_t seed, mcp_session_stats *stats)
{
    mcp_session  *session = drafted_session(way, draft);
    struct tokens ask = { 0 }, actual = { 0 };

    for (size_t i = 0; i < 2; i++) {
        char what[160];

        prompt_tokens(&ask, (prompt + i) % PROMPTS);
        answer(session, &ask, seed, &actual);
        snprintf(what, sizeof(what), "prompt %zu, seed %u, %s, %u a window, %u windows",
                 (prompt + i) % PROMPTS, seed, way->here ? "here" : "split", way->depth,
                 way->windows);
        same(expected_for(&ask, (prompt + i) % PROMPTS, seed), &actual, what);
    }
    *stats = (mcp_session_stats){ .struct_size = sizeof(*stats) };
    assert_int_equal(mcp_session_get_stats(session, stats), MCP_OK);
    mcp_session_close(session);
}

/* Goal:   a draft model changes no token, however often it agrees, and its guesses are as good as
 *         it is: those of the same weights are right always where the most likely token is picked,
 *         but for last bits of another window size; random ones hardly ever.
 * Method: each draft model alone and with n-grams, here and split, depth and windows told and
 *         chosen, greedy and drawn. */
static void guesses_by_a_draft_model_change_no_token(void **state)
{
    static const struct drafted ways[] = {
        { MCP_SPEC_DRAFT, 4, 1, true },  { MCP_SPEC_DRAFT, 0, 0, true },
        { MCP_SPEC_DRAFT, 3, 3, false }, { MCP_SPEC_DRAFT, 0, 0, false },
        { MCP_SPEC_DRAFT, 7, 1, false }, { MCP_SPEC_AUTO, 5, 2, false },
        { MCP_SPEC_AUTO, 0, 0, false },
    };

    (void)state;
    smollm2_path();
    for (enum drafter which = 0; which < DRAFTERS; which++) {
        mcp_model *draft = open_drafter(which);
        uint64_t   seen = 0, accepted = 0;

        for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
            mcp_session_stats greedy, drawn;

            compare_drafted(&ways[i], draft, i % PROMPTS, 0, &greedy);
            compare_drafted(&ways[i], draft, (i + 1) % PROMPTS, 400 + (uint32_t)i, &drawn);
            if (ways[i].depth > 0 && ways[i].spec == MCP_SPEC_DRAFT)
                assert_true(greedy.draft_made > 0 && drawn.draft_made > 0);
            assert_true(greedy.draft_seen <= greedy.drafted_seen);
            assert_true(greedy.draft_accepted <= greedy.accepted);
            if (ways[i].windows > 1 && ways[i].spec == MCP_SPEC_DRAFT)
                assert_true(greedy.in_flight_max > 1 && greedy.in_flight_max <= ways[i].windows);
            seen += greedy.draft_seen;
            accepted += greedy.draft_accepted;
        }
        mcp_model_close(draft);
        print_message("%s: %llu of %llu guesses right\n", drafter_names[which],
                      (unsigned long long)accepted, (unsigned long long)seen);
        assert_true(seen > 50);
        if (which == DRAFT_SAME)
            assert_true(accepted >= 0.98 * (double)seen);
        if (which == DRAFT_NOISY)
            assert_true(accepted >= 0.3 * (double)seen && accepted < seen);
        if (which == DRAFT_RANDOM)
            assert_true(accepted <= 0.05 * (double)seen);
    }
}

static void refused(const mcp_session_opts *opts, int code, const char *about)
{
    mcp_session *session = NULL;
    mcp_error    err = { 0 };

    assert_int_equal(mcp_session_open(&session, NULL, opts, &err), code);
    assert_null(session);
    if (strstr(err.text, about) == NULL)
        fail_msg("\"%s\" is not about \"%s\"", err.text, about);
}

/* Goal: guesses are token ids, so another vocabulary is refused: another size, or other tokens. */
static void a_draft_model_of_another_vocabulary_is_refused(void **state)
{
    char              path[400];
    const char *const other[] = { "--shape",     "tiny-llama", "--quant", "q4_0", "--set",
                                  "vocab=49152", "-o",         path,      NULL };
    const mcp_stage   here = { 0, 30, world.engine };
    mcp_session_opts  opts = MCP_SESSION_OPTS_INIT;
    mcp_model        *small, *made_up;
    mcp_error         err = { 0 };

    (void)state;
    smollm2_path();
    snprintf(path, sizeof(path), "%s/draft.gguf", world.folder);
    free(synth_output(other));
    if (mcp_model_open(&small, synth_model("tiny-llama", "q4_0"), &err) < 0 ||
        mcp_model_open(&made_up, path, &err) < 0)
        fail_msg("%s", err.text);
    opts.stages = &here;
    opts.stage_count = 1;
    opts.spec = MCP_SPEC_DRAFT;
    refused(&opts, MCP_ENOTSUP, "none is given");
    opts.draft_model = small;
    refused(&opts, MCP_ENOTSUP, "the model's has 49152");
    opts.draft_model = made_up;
    refused(&opts, MCP_ENOTSUP, "is another one than the model's");
    mcp_model_close(made_up);
    mcp_model_close(small);
}

/* Goal:   a draft model whose context is shorter than the text guesses as far as it reaches. */
static void a_draft_model_of_a_short_context_stops_guessing(void **state)
{
    const mcp_stage      here = { 0, 30, world.engine };
    mcp_session_opts     opts = MCP_SESSION_OPTS_INIT;
    mcp_engine_opts      engine = MCP_ENGINE_OPTS_INIT;
    struct tokens        ask = { 0 }, actual = { 0 };
    const struct tokens *expected;
    mcp_session_stats    stats = { .struct_size = sizeof(stats) };
    mcp_session         *session;

    (void)state;
    smollm2_path();
    prompt_tokens(&ask, 0);
    expected = expected_for(&ask, 0, 0);
    engine.ctx_tokens = ask.count + ANSWER / 2;
    opts.seq = 1;
    opts.stages = &here;
    opts.stage_count = 1;
    opts.spec = MCP_SPEC_DRAFT;
    opts.spec_depth = 4;
    opts.draft_model = world.model;
    opts.draft_engine = &engine;
    session = cluster_session(&opts);
    answer(session, &ask, 0, &actual);
    assert_int_equal(mcp_session_get_stats(session, &stats), MCP_OK);
    mcp_session_close(session);
    same(expected, &actual, "a short context of the draft model");
    assert_in_range(stats.draft_made, ANSWER / 4, ANSWER / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_in_any_number_change_no_token),
        cmocka_unit_test(guesses_by_n_gram_change_no_token),
        cmocka_unit_test(two_hops_change_no_token),
        cmocka_unit_test(a_worker_that_goes_away_changes_no_token),
        cmocka_unit_test(a_stopped_answer_leaves_no_guess_behind),
        cmocka_unit_test(guesses_by_a_draft_model_change_no_token),
        cmocka_unit_test(a_draft_model_of_another_vocabulary_is_refused),
        cmocka_unit_test(a_draft_model_of_a_short_context_stops_guessing),
    };

    cmocka_set_test_filter(getenv("MCP_TEST_FILTER")); /* NULL: all */
    return cmocka_run_group_tests(tests, begin, end);
}
