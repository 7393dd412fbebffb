/* SPDX-License-Identifier: MIT */
/* handback.c - a session whose KV came home goes on here and says what it would have said.
 *
 * The oracle is a session in this process whose windows are the same.  The other one begins with
 * its middle layers, or all of them, on a worker behind TLS on loopback; at each token the
 * hand-back takes a step, and when it says so, the answer is stopped there and goes on in an
 * engine here, by forwards of one token.  SmolLM2, greedy, hidden states in f32: the tokens must be
 * equal. */
#include "agent/handback.h"
#include "cluster_common.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CTX = 768, ANSWER = 40, TOKENS_MAX = CTX + ANSWER, SESSIONS = 8 };

static struct cluster world = { .ctx_tokens = CTX, .batch_tokens = 512 };

static const char *const prompts[] = {
    "Why is the sky blue?",
    "Write a C function that reverses a string in place, and explain each line of it to someone "
    "who "
    "has only ever programmed in Python. Mention pointers, the terminating zero, and what happens "
    "with an empty string. Then write a test for it with at least four cases.",
    "Repeat these lines twice: one two three four five six seven eight. one two three four five "
    "six "
    "seven eight. one two three four five six seven eight.",
};
enum { SHORT, LONG, REPEATING };

/* ---- answers ------------------------------------------------------------------------- */

struct tokens {
    int32_t  id[TOKENS_MAX];
    uint32_t count;
};

/* An answer in the making, and the hand-back beside it. */
struct tale {
    struct tokens    said;
    struct handback *handback; /* NULL: none */
    uint32_t         least;    /* tokens before it may end the session */
    uint32_t         lose_at;  /* token at which `lose` is called */
    void (*lose)(void);
    bool      home;
    int       rc; /* of the hand-back */
    mcp_error why;
};

static int on_token(int32_t token, const char *bytes, size_t count, void *ctx)
{
    struct tale *t = ctx;

    (void)bytes;
    (void)count;
    t->said.id[t->said.count++] = token;
    if (t->lose != NULL && t->said.count == t->lose_at)
        t->lose();
    if (t->handback == NULL)
        return 0;
    t->rc = handback_step(t->handback, &t->why);
    t->home = t->rc == 1 && t->said.count >= t->least;
    return t->home;
}

static void tell(mcp_session *session, const struct tokens *ask, struct tale *t)
{
    mcp_generate_opts opts = MCP_GENERATE_OPTS_INIT;
    mcp_error         err = { 0 };

    opts.max_tokens = ANSWER;
    opts.temperature = 0.0f;
    opts.ignore_end = 1;
    if (mcp_session_generate(session, ask->id, ask->count, &opts, on_token, t, NULL, &err) < 0)
        fail_msg("%s", err.text);
}

static void ask_for(struct tokens *ask, size_t prompt)
{
    ask->count = cluster_prompt(&world, prompts[prompt], ask->id, CTX - ANSWER);
}

static const struct tokens *expected(size_t prompt, uint32_t chunk)
{
    static struct tale t;
    struct tokens      ask;
    mcp_session       *session = cluster_session_here(&world, chunk);

    memset(&t, 0, sizeof(t));
    ask_for(&ask, prompt);
    tell(session, &ask, &t);
    mcp_session_close(session);
    return &t.said;
}

/* ---- going on here ------------------------------------------------------------------- */

/* What comes after `count` tokens, all of whose KV but from `pos` on is in the engine. */
static int32_t next_token(mcp_engine *engine, uint32_t seq, const int32_t *tokens, uint32_t pos,
                          uint32_t count)
{
    static float logits[65536];
    uint32_t     n_vocab = mcp_model_get_info(world.model)->n_vocab, best = 0;
    mcp_window   w = { .seq = seq, .pos = pos, .count = count - pos, .tokens = tokens + pos };
    mcp_error    err = { 0 };

    assert_true(n_vocab <= sizeof(logits) / sizeof(logits[0]));
    w.out = MCP_OUT_LAST;
    if (mcp_engine_forward(engine, 0, CLUSTER_LAYERS, MCP_WANT_LOGITS, &w, 1, logits, n_vocab,
                           &err) < 0)
        fail_msg("%s", err.text);
    for (uint32_t i = 1; i < n_vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

/* The hand-back is done: the rest of the answer, from the KV that came home. */
static void go_on(struct tale *t, const struct tokens *ask, mcp_engine *engine, uint32_t seq)
{
    struct tokens all = *ask;
    uint32_t      home;
    mcp_error     err = { 0 };

    if (handback_finish(t->handback, &home, &err) < 0)
        fail_msg("%s", err.text);
    memcpy(all.id + all.count, t->said.id, t->said.count * sizeof(*t->said.id));
    all.count += t->said.count;
    assert_true(home < all.count);
    /* In the cloud two tokens are known that the session does not count yet. */
    assert_true(all.count - home <= HANDBACK_BEHIND_MAX + 2);
    for (uint32_t layer = 0; layer < CLUSTER_LAYERS; layer++)
        assert_int_equal(mcp_engine_length(engine, seq, layer), home);
    while (t->said.count < ANSWER) {
        int32_t token = next_token(engine, seq, all.id, home, all.count);

        home = all.count;
        all.id[all.count++] = t->said.id[t->said.count++] = token;
    }
}

static mcp_engine *whole_engine(mcp_kv_type kv)
{
    mcp_engine_opts opts = MCP_ENGINE_OPTS_INIT;
    mcp_engine     *engine;
    mcp_error       err = { 0 };

    opts.ctx_tokens = CTX;
    opts.threads = 1;
    opts.device = "cpu";
    opts.even_windows = 1;
    opts.beside = world.engine;
    opts.kv_k = opts.kv_v = kv;
    if (mcp_engine_open(&engine, world.model, &opts, &err) < 0)
        fail_msg("%s", err.text);
    return engine;
}

/* ---- sessions ------------------------------------------------------------------------ */

static mcp_session *split_session(mcp_remote *remote, mcp_spec spec)
{
    const mcp_stage  stages[] = { { 0, 2, world.engine },
                                  { 2, 28, NULL },
                                  { 28, CLUSTER_LAYERS, world.engine } };
    mcp_session_opts opts = MCP_SESSION_OPTS_INIT;

    opts.seq = 1;
    opts.stages = stages;
    opts.stage_count = 3;
    opts.remote = remote;
    opts.codec = "f32";
    opts.chunk_tokens = 64;
    opts.spec = spec;
    return cluster_session(&opts);
}

static mcp_session *cloud_session(void)
{
    mcp_session_opts opts = MCP_SESSION_OPTS_INIT;

    opts.model = world.model;
    opts.remote = world.remote;
    opts.cloud = 1;
    opts.ctx_tokens = CTX;
    return cluster_session(&opts);
}

/* Begin in `session`, come home to `engine`, end there; compare.  The session is closed. */
static void come_home(mcp_session *session, size_t prompt, uint32_t chunk, mcp_engine *engine,
                      uint32_t seq, const char *what)
{
    const struct tokens  *right = expected(prompt, chunk);
    struct tale           t = { .least = 3 };
    struct tokens         ask;
    struct handback_stats stats;
    mcp_error             err = { 0 };

    ask_for(&ask, prompt);
    if (handback_new(&t.handback, session, engine, seq, &err) < 0)
        fail_msg("%s", err.text);
    handback_prompt(t.handback, ask.count);
    tell(session, &ask, &t);
    if (!t.home)
        fail_msg("%s: %u tokens and not home: %s", what, t.said.count, t.why.text);
    handback_get_stats(t.handback, &stats);
    print_message("%s: home at token %u, %u positions, %u behind, %llu blocks, %llu KiB\n", what,
                  t.said.count, stats.home, stats.behind, (unsigned long long)stats.blocks,
                  (unsigned long long)stats.bytes >> 10);
    assert_true(stats.blocks > 0);
    go_on(&t, &ask, engine, seq);
    handback_free(t.handback);
    mcp_session_close(session);
    cluster_same_tokens(right->id, right->count, t.said.id, t.said.count, what);
}

static void the_middle_of_a_split_comes_home_to_the_engine_of_the_rest(void **state)
{
    (void)state;
    smollm2_path();
    for (size_t prompt = SHORT; prompt <= LONG; prompt++)
        come_home(split_session(world.remote, MCP_SPEC_NONE), prompt, 64, world.engine, 1, "split");
}

static void all_parts_of_a_split_come_home_to_an_engine_of_their_own(void **state)
{
    mcp_engine *engine = (smollm2_path(), whole_engine(MCP_KV_F16));

    (void)state;
    come_home(split_session(world.remote, MCP_SPEC_NONE), LONG, 64, engine, 0, "another engine");
    mcp_engine_close(engine);
}

static void a_session_with_guesses_comes_home(void **state)
{
    (void)state;
    smollm2_path();
    come_home(split_session(world.remote, MCP_SPEC_NGRAM), REPEATING, 64, world.engine, 1,
              "with guesses");
}

static void a_session_in_the_cloud_comes_home(void **state)
{
    (void)state;
    smollm2_path();
    for (size_t prompt = SHORT; prompt <= LONG; prompt++) {
        assert_int_equal(mcp_engine_trim(world.engine, 1, 0, NULL), MCP_OK);
        come_home(cloud_session(), prompt, 0, world.engine, 1, "cloud");
    }
}

/* ---- what does not come home ---------------------------------------------------------- */

/* Tell the whole answer with a hand-back beside it that must fail, by a sentence about `about`. */
static void stays_away(mcp_session *session, uint32_t chunk, mcp_engine *engine, struct tale *t,
                       const char *about)
{
    const struct tokens *right = expected(LONG, chunk);
    struct tokens        ask;
    mcp_error            err = { 0 };

    ask_for(&ask, LONG);
    t->least = ANSWER + 1;
    if (handback_new(&t->handback, session, engine, 0, &err) < 0)
        fail_msg("%s", err.text);
    tell(session, &ask, t);
    assert_true(t->rc < 0);
    if (strstr(t->why.text, about) == NULL)
        fail_msg("the sentence '%s' does not say '%s'", t->why.text, about);
    assert_int_equal(handback_step(t->handback, &err), t->rc); /* and stays so */
    assert_string_equal(err.text, t->why.text);
    handback_free(t->handback);
    mcp_session_close(session);
    cluster_same_tokens(right->id, right->count, t->said.id, t->said.count, about);
}

/* Goal:   a block that cannot be taken ends the hand-back, and the session does not notice.
 * Method: blocks of f16, for an engine with q8_0: from a worker, and from an engine beside it. */
static void a_block_that_does_not_fit_ends_only_the_hand_back(void **state)
{
    mcp_engine *engine = (smollm2_path(), whole_engine(MCP_KV_Q8_0));
    struct tale from_worker = { 0 }, from_here = { 0 };

    (void)state;
    stays_away(cloud_session(), 0, engine, &from_worker, "-ctk and -ctv");
    stays_away(split_session(world.remote, MCP_SPEC_NONE), 64, engine, &from_here, "-ctk and -ctv");
    for (uint32_t layer = 0; layer < CLUSTER_LAYERS; layer++)
        assert_int_equal(mcp_engine_length(engine, 0, layer), 0);
    mcp_engine_close(engine);
}

static mcp_worker  *pair[2];
static mcp_session *paired;

/* The one where the session runs. */
static void lose_one(void)
{
    mcp_session_stats stats = { .struct_size = sizeof(stats) };

    assert_int_equal(mcp_session_get_stats(paired, &stats), MCP_OK);
    for (size_t i = 0; i < 2; i++) {
        const char *address = mcp_worker_address(pair[i]);

        if (strncmp(stats.stages[1].where, address, strlen(address)) != 0)
            continue;
        mcp_worker_close(pair[i]);
        pair[i] = NULL;
        return;
    }
    fail_msg("the session runs at %s", stats.stages[1].where);
}

/* Goal:   a lost worker ends the hand-back; the session goes on with another one.
 * Method: two workers with all layers; one dies at the second token. */
static void a_lost_worker_ends_only_the_hand_back(void **state)
{
    mcp_engine *engine = (smollm2_path(), whole_engine(MCP_KV_F16));
    struct tale t = { .lose_at = 2, .lose = lose_one };
    mcp_remote *remote;

    (void)state;
    for (size_t i = 0; i < 2; i++)
        pair[i] = cluster_worker(&world, 0, CLUSTER_LAYERS, 2);
    remote = cluster_remote(&world, pair, 2);
    paired = split_session(remote, MCP_SPEC_NONE);
    stays_away(paired, 64, engine, &t, "elsewhere now");
    mcp_remote_close(remote);
    mcp_worker_close(pair[0]);
    mcp_worker_close(pair[1]);
    mcp_engine_close(engine);
}

/* Goal:   whoever may not ask for KV does not: the request would end the session there. */
static void a_token_without_the_right_is_not_tried(void **state)
{
    static char      without[] = "Bearer e30.eyJzY29wZSI6ImluZmVyIGdlbmVyYXRlIn0.c2ln";
    mcp_session     *session = (smollm2_path(), split_session(world.remote, MCP_SPEC_NONE));
    struct handback *h;
    mcp_error        err = { 0 };
    char            *own = world.remote->authorization;

    (void)state;
    world.remote->authorization = without;
    assert_int_equal(handback_new(&h, session, world.engine, 1, &err), MCP_EDENIED);
    world.remote->authorization = own;
    assert_null(h);
    assert_non_null(strstr(err.text, "scope state"));
    mcp_session_close(session);
}

/* ---- requests that are voided -------------------------------------------------------- */

/* Keeps the worker busy for a second or so. */
static void *be_in_the_way(void *ctx)
{
    static struct tale t;
    struct tokens     *ask = ctx;
    mcp_session       *session = cloud_session();
    mcp_generate_opts  opts = MCP_GENERATE_OPTS_INIT;

    opts.max_tokens = 1;
    (void)mcp_session_generate(session, ask->id, ask->count, &opts, on_token, &t, NULL, NULL);
    mcp_session_close(session);
    return NULL;
}

/* Goal:   requests that a Trim has dropped are noticed and made again.
 * Method: a session of three tokens; the worker is busy with another one when the first requests
 *         come, and a Trim follows them.  Then everything comes home, and the answer goes on. */
static bool trimmed_session_comes_home(void)
{
    const struct tokens  *right = expected(LONG, 64);
    struct tokens         ask, busy = { .count = 512 };
    struct tale           t = { 0 };
    mcp_session          *session = split_session(world.remote, MCP_SPEC_NONE);
    mcp_generate_opts     opts = MCP_GENERATE_OPTS_INIT;
    struct handback_stats stats;
    pthread_t             thread;
    mcp_error             err = { 0 };
    int                   rc;

    ask_for(&ask, LONG);
    opts.max_tokens = 3;
    opts.temperature = 0.0f;
    if (mcp_session_generate(session, ask.id, ask.count, &opts, on_token, &t, NULL, &err) < 0 ||
        handback_new(&t.handback, session, world.engine, 1, &err) < 0)
        fail_msg("%s", err.text);
    for (uint32_t i = 0; i < busy.count; i++)
        busy.id[i] = (int32_t)(1000 + i);
    assert_int_equal(pthread_create(&thread, NULL, be_in_the_way, &busy), 0);
    usleep(200000);
    assert_int_equal(handback_step(t.handback, &err), 0);
    if (drive_trim(session, session->count - 1, &err) < 0)
        fail_msg("%s", err.text);
    do {
        usleep(2000);
        rc = handback_step(t.handback, &err);
    } while (rc == 0);
    if (rc < 0)
        fail_msg("%s", err.text);
    pthread_join(thread, NULL);
    handback_get_stats(t.handback, &stats);
    go_on(&t, &ask, world.engine, 1);
    handback_free(t.handback);
    mcp_session_close(session);
    cluster_same_tokens(right->id, right->count, t.said.id, t.said.count, "trimmed");
    return stats.again > 0;
}

static void requests_that_a_trim_drops_are_made_again(void **state)
{
    enum { ROUNDS = 10 };
    int rounds = 0;

    (void)state;
    smollm2_path();
    while (!trimmed_session_comes_home())
        assert_true(++rounds < ROUNDS);
}

/* ---- a prompt on its way -------------------------------------------------------------- */

/* A Generate by hand, in a session that nothing else drives.  False: the worker was silent for too
 * long, as one on a busy machine may be. */
static bool prompt_comes_home(mcp_session *session, const int32_t *tokens, uint32_t count)
{
    struct wire_frame        frame = { .kind = WIRE_GENERATE };
    struct session_endpoint *e;
    struct handback         *h;
    enum mail_kind           last = MAIL_OPENED;
    mcp_error                err = { 0 };

    frame.u.generate = (struct wire_generate){
        .number = 1, .tokens = tokens, .token_count = count, .max_tokens = 1
    };
    if (mcp_engine_trim(world.engine, 1, 0, &err) < 0 ||
        drive_open_remote(session, 0, 0, false, &e, &err) < 0 ||
        endpoint_send(e->remote, &frame, NULL, &err) < 0 ||
        handback_new(&h, session, world.engine, 1, &err) < 0)
        fail_msg("%s", err.text);
    handback_prompt(h, count);
    while (last != MAIL_TOKEN && last != MAIL_LOST) {
        struct mail_event *event;
        bool               starved;

        if (handback_step(h, &err) < 0)
            fail_msg("%s", err.text);
        mail_wait(session->mail, base_clock_ms() + 20.0);
        event = mail_take(session->mail, &starved);
        last = event != NULL ? event->kind : last;
        if (last == MAIL_LOST && strstr(event->status.text, "silent") == NULL)
            fail_msg("%s", event->status.text);
        mail_event_free(event);
    }
    handback_free(h);
    return last == MAIL_TOKEN;
}

/* Goal:   the prompt's KV comes home while the worker still computes the prompt.
 * Method: the prompt runs in several windows; when the first token comes, every layer has some of
 *         it. */
static void a_prompt_comes_home_while_it_is_computed(void **state)
{
    enum { WINDOW = 64, PROMPT = 8 * WINDOW, ROUNDS = 20 };
    struct cluster   small = (smollm2_path(), world);
    mcp_session_opts opts = MCP_SESSION_OPTS_INIT;
    mcp_session     *session;
    int32_t          tokens[PROMPT];
    int              rounds = 0;
    bool             whole = false;

    (void)state;
    small.batch_tokens = WINDOW;
    small.worker = cluster_worker(&small, 0, CLUSTER_LAYERS, 2);
    for (uint32_t i = 0; i < PROMPT; i++)
        tokens[i] = (int32_t)(1000 + i);
    while (!whole) {
        assert_true(rounds++ < ROUNDS);
        small.remote = cluster_remote(&small, &small.worker, 1);
        opts.model = world.model;
        opts.remote = small.remote;
        opts.cloud = 1;
        opts.ctx_tokens = CTX;
        session = cluster_session(&opts);
        whole = prompt_comes_home(session, tokens, PROMPT);
        mcp_session_close(session);
        mcp_remote_close(small.remote);
    }
    for (uint32_t layer = 0; layer < CLUSTER_LAYERS; layer++)
        assert_in_range(mcp_engine_length(world.engine, 1, layer), 1, PROMPT);
    mcp_worker_close(small.worker);
}

/* ---- around all ---------------------------------------------------------------------- */

static int begin(void **state)
{
    (void)state;
    return cluster_begin(&world, "handback", 0, CLUSTER_LAYERS, SESSIONS);
}

static int end(void **state)
{
    (void)state;
    return cluster_end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_middle_of_a_split_comes_home_to_the_engine_of_the_rest),
        cmocka_unit_test(all_parts_of_a_split_come_home_to_an_engine_of_their_own),
        cmocka_unit_test(a_session_with_guesses_comes_home),
        cmocka_unit_test(a_session_in_the_cloud_comes_home),
        cmocka_unit_test(a_block_that_does_not_fit_ends_only_the_hand_back),
        cmocka_unit_test(a_lost_worker_ends_only_the_hand_back),
        cmocka_unit_test(a_token_without_the_right_is_not_tried),
        cmocka_unit_test(requests_that_a_trim_drops_are_made_again),
        cmocka_unit_test(a_prompt_comes_home_while_it_is_computed),
    };

    cmocka_set_test_filter(getenv("MCP_TEST_FILTER")); /* NULL: all */
    return cmocka_run_group_tests(tests, begin, end);
}
