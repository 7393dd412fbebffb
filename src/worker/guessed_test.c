/* worker/guessed_test.c - answers whose windows have guesses: the same text, in fewer windows.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/answer_test.h"
#include "worker/compute_private.h"

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
    client = rig_connect(worker);
    return 0;
}

static int end(void **state)
{
    (void)state;
    return rig_finish(client, worker);
}

/* A text that repeats itself every `period` tokens suggests what comes next everywhere. */
static void repeating(int32_t *tokens, uint32_t count, uint32_t period, uint64_t seed)
{
    prompt_of(tokens, count < period ? count : period, seed);
    for (uint32_t i = period; i < count; i++)
        tokens[i] = tokens[i - period];
}

struct tally {
    uint32_t guessed, right;
};

/* The answer, and how its windows went: of those that have guesses only the last Token says so. */
static struct tally expect_guessed(struct rig_call *call, uint64_t number, uint32_t pos,
                                   const struct answer *expected)
{
    struct tally seen = { 0 };

    for (uint32_t i = 0; i < expected->count; i++) {
        struct rig_news         *news = rig_expect(call, WIRE_TOKEN);
        const struct wire_token *t = &news->frame.u.token;
        bool                     last = i + 1 == expected->count;

        assert_int_equal(t->number, number);
        assert_int_equal(t->token, expected->tokens[i]);
        assert_int_equal(t->pos, pos + i);
        assert_int_equal(t->stop, last ? expected->stop : WIRE_STOP_NOT);
        assert_true(t->guessed_right <= t->guessed);
        seen.guessed += t->guessed;
        seen.right += t->guessed_right;
        free(news);
    }
    return seen;
}

/* The answer to a prompt on a session of its own, `guesses` in a window; then one token more to
 * an answer that begins where this one ended: the session is there, and holds its text. */
static struct tally compare(const struct wire_open *open, const mcp_generate_opts *opts,
                            const int32_t *prompt, uint32_t count, uint32_t max_tokens,
                            uint32_t guesses)
{
    const struct answer expected = local_answer(prompt, count, max_tokens, opts);
    struct wire_frame   frame = generate_frame(7, 0, prompt, count, max_tokens, opts);
    struct rig_call    *call = rig_execute(client, NULL);
    struct tally        seen;
    uint32_t            at = count + expected.count - 1;

    rig_open_with(call, open);
    frame.u.generate.guesses = guesses;
    rig_send(call, &frame);
    seen = expect_guessed(call, 7, count, &expected);
    if (at < RIG_CTX) {
        int32_t       all[RIG_CTX], *last = &all[at];
        struct answer next;

        memcpy(all, prompt, count * sizeof(*all));
        memcpy(all + count, expected.tokens, expected.count * sizeof(*all));
        next = local_answer(all, at + 1, 1, opts);
        frame = generate_frame(8, at, last, 1, 1, opts);
        rig_send(call, &frame);
        if (opts->temperature <= 0.0f)
            expect_answer(call, 8, at + 1, &next, 0);
        else
            free(rig_expect(call, WIRE_TOKEN));
    }
    rig_close(call);
    return seen;
}

static void add(struct tally *sum, struct tally more)
{
    sum->guessed += more.guessed;
    sum->right += more.right;
}

/* Goal:   greedy text is the local loop's however many guesses a window has; some are right, some
 *         wrong, and the session goes on behind the last token chosen.
 * Method: repeating prompts; guesses as many as pay, 1, 4, 15, and more than a window may have. */
static void greedy_answers_with_guesses_equal_the_local_ones(void **state)
{
    static const uint32_t   most[] = { 0, 1, 4, 15, 1000 };
    const struct wire_open  open = rig_open_frame(1, 0, layers);
    const mcp_generate_opts opts = greedy();
    int32_t                 prompt[60];
    struct tally            sum = { 0 };

    (void)state;
    for (uint32_t i = 0; i < UNIT_COUNT(most); i++)
        for (uint32_t seed = 1; seed <= 3; seed++) {
            repeating(prompt, 60, 4 + 5 * seed, seed);
            add(&sum, compare(&open, &opts, prompt, 60, 60, most[i]));
        }
    print_message("    %u guesses, %u right\n", sum.guessed, sum.right);
    assert_true(sum.right > 10 && sum.right < sum.guessed);
}

/* Goal:   sampled text as well: each row takes one draw, and wrong guesses take none. */
static void sampled_answers_with_guesses_equal_the_local_ones(void **state)
{
    const struct wire_open open = rig_open_frame(1, 0, layers);
    mcp_generate_opts      opts = MCP_GENERATE_OPTS_INIT;
    int32_t                prompt[50];
    struct tally           sum = { 0 };

    (void)state;
    opts.ignore_end = 1;
    for (uint32_t seed = 1; seed <= 6; seed++) {
        opts.seed = seed;
        opts.temperature = 0.2f + 0.1f * (float)seed;
        opts.top_k = 3;
        repeating(prompt, 50, 6 + seed, seed);
        add(&sum, compare(&open, &opts, prompt, 50, 50, seed % 2 == 0 ? 3 : 15));
    }
    print_message("    %u guesses, %u right\n", sum.guessed, sum.right);
    assert_true(sum.right > 0 && sum.right < sum.guessed);
}

/* Goal:   an answer that may have no guesses has none. */
static void no_guesses_are_made_where_they_are_forbidden(void **state)
{
    const mcp_generate_opts opts = greedy();
    struct rig_call        *call = rig_session(client, 1, 0, layers);
    struct wire_frame       frame;
    struct answer           expected;
    int32_t                 prompt[40];

    (void)state;
    repeating(prompt, 40, 5, 9);
    expected = local_answer(prompt, 40, 60, &opts);
    frame = generate_frame(1, 0, prompt, 40, 60, &opts);
    frame.u.generate.no_guesses = true;
    frame.u.generate.guesses = 15;
    rig_send(call, &frame);
    assert_int_equal(expect_guessed(call, 1, 40, &expected).guessed, 0);
    rig_close(call);
}

/* Goal:   an answer stops at max_tokens and where the context ends, never behind.
 * Method: prompts up to the context's end; every length from 1 to 20. */
static void answers_with_guesses_stop_where_they_have_to(void **state)
{
    const struct wire_open  open = rig_open_frame(1, 0, layers);
    const mcp_generate_opts opts = greedy();
    int32_t                 prompt[RIG_CTX];

    (void)state;
    for (uint32_t left = 0; left < 20; left += 3) {
        repeating(prompt, RIG_CTX, 11, 3);
        compare(&open, &opts, prompt, RIG_CTX - left, 100, 15);
    }
    for (uint32_t most = 1; most < 20; most += 3)
        compare(&open, &opts, prompt, 80, most, 15);
}

/* Goal:   a batch session's windows, which may be cut anywhere and run in slices, as well. */
static void a_batch_session_guesses_too(void **state)
{
    struct wire_open        open = rig_open_frame(1, 0, layers);
    const mcp_generate_opts opts = greedy();
    int32_t                 prompt[60];
    struct tally            seen;

    (void)state;
    open.qos = WIRE_QOS_BATCH;
    repeating(prompt, 60, 7, 5);
    seen = compare(&open, &opts, prompt, 60, 80, 15);
    assert_true(seen.guessed > 0);
}

/* Goal:   answers of several sessions and classes at once are the local ones, with guesses. */
static void answers_with_guesses_do_not_mix(void **state)
{
    enum { SESSIONS = 5, PROMPT = 45, LENGTH = 60 };
    mcp_generate_opts opts = MCP_GENERATE_OPTS_INIT;
    struct answer     expected[SESSIONS];
    struct rig_call  *calls[SESSIONS];
    int32_t           prompts[SESSIONS][PROMPT];

    (void)state;
    opts.ignore_end = 1;
    opts.top_k = 2;
    for (uint32_t i = 0; i < SESSIONS; i++) {
        struct wire_open open = rig_open_frame((uint8_t)(10 + i), 0, layers);

        open.qos = i % 2 == 0 ? WIRE_QOS_NORMAL : WIRE_QOS_BATCH;
        opts.seed = i;
        repeating(prompts[i], PROMPT, 5 + i, 40 + i);
        expected[i] = local_answer(prompts[i], PROMPT, LENGTH, &opts);
        calls[i] = rig_execute(client, NULL);
        rig_open_with(calls[i], &open);
    }
    for (uint32_t i = 0; i < SESSIONS; i++) {
        struct wire_frame frame;

        opts.seed = i;
        frame = generate_frame(i, 0, prompts[i], PROMPT, LENGTH, &opts);
        frame.u.generate.guesses = 8;
        rig_send(calls[i], &frame);
    }
    for (uint32_t i = 0; i < SESSIONS; i++) {
        expect_guessed(calls[i], i, PROMPT, &expected[i]);
        rig_close(calls[i]);
    }
}

/* Goal:   Trim stops an answer with guesses in any of its windows; the session then does something
 *         else.
 * Method: Trim to what is known after some tokens, and go on there as another worker would: with
 *         the draws made. */
static void trim_stops_an_answer_with_guesses(void **state)
{
    static const char *const slow[] = { "mcp-debug-stall-ms", "2", NULL };
    enum { PROMPT = 40, LENGTH = 60 };
    const struct wire_open open = rig_open_frame(20, 0, layers);
    mcp_generate_opts      opts = MCP_GENERATE_OPTS_INIT;
    struct rig_call       *call = rig_execute(client, slow);
    struct wire_frame      frame;
    struct answer          expected;
    int32_t                text[PROMPT + LENGTH];
    uint32_t               known = 0;

    (void)state;
    opts.ignore_end = 1;
    opts.top_k = 2;
    opts.seed = 5;
    rig_open_with(call, &open);
    repeating(text, PROMPT, 6, 8);
    expected = local_answer(text, PROMPT, LENGTH, &opts);
    memcpy(text + PROMPT, expected.tokens, LENGTH * sizeof(*text));
    for (uint32_t epoch = 0; known < LENGTH; epoch++) {
        uint32_t pos = epoch == 0 ? 0 : PROMPT + known - 1;

        frame = generate_frame(epoch, pos, text + pos, PROMPT + known - pos, LENGTH - known, &opts);
        frame.u.generate.epoch = epoch;
        frame.u.generate.draws = known;
        frame.u.generate.guesses = 10;
        rig_send(call, &frame);
        for (uint32_t i = 0; i < 4 && known < LENGTH; i++, known++) {
            struct rig_news *news = rig_expect(call, WIRE_TOKEN);

            while (news->frame.u.token.number != epoch) { /* said before the Trim came */
                free(news);
                news = rig_expect(call, WIRE_TOKEN);
            }
            assert_int_equal(news->frame.u.token.pos, PROMPT + known);
            assert_int_equal(news->frame.u.token.token, expected.tokens[known]);
            free(news);
        }
        frame = rig_trim(epoch + 1, PROMPT + known - 1);
        rig_send(call, &frame);
    }
    rig_close(call);
}

/* Goal:   a session whose stream is lost holds its text and no guess.
 * Method: resume it, go on at the length that Opened tells, without a Trim. */
static void a_lost_session_holds_no_guesses(void **state)
{
    static const char *const slow[] = { "mcp-debug-stall-ms", "3", NULL };
    enum { PROMPT = 40, LENGTH = 150 };
    const mcp_generate_opts opts = greedy();
    int32_t                 text[PROMPT + LENGTH];
    struct answer           expected, rest;

    (void)state;
    repeating(text, PROMPT, 9, 21);
    expected = local_answer(text, PROMPT, LENGTH, &opts);
    memcpy(text + PROMPT, expected.tokens, LENGTH * sizeof(*text));
    for (uint32_t round = 0; round < 6; round++) {
        struct wire_open   open = rig_open_frame((uint8_t)(30 + round), 0, layers);
        struct rig_call   *call = rig_execute(client, slow);
        struct wire_frame  frame = generate_frame(1, 0, text, PROMPT, LENGTH, &opts);
        struct wire_opened opened;

        rig_open_with(call, &open);
        frame.u.generate.guesses = 15;
        rig_send(call, &frame);
        for (uint32_t i = 0; i < 3 + round; i++)
            free(rig_expect(call, WIRE_TOKEN));
        rig_drop(call);

        usleep(30 * 1000);
        call = rig_execute(client, NULL);
        open.resume = true;
        opened = rig_open_with(call, &open);
        assert_in_range(opened.length, PROMPT, PROMPT + LENGTH - 1);
        rest = local_answer(text, opened.length + 1, 5, &opts);
        frame = generate_frame(2, opened.length, text + opened.length, 1, 5, &opts);
        frame.u.generate.epoch = opened.epoch;
        rig_send(call, &frame);
        expect_answer(call, 2, opened.length + 1, &rest, 0);
        rig_close(call);
    }
}

static bool holds(const int32_t *tokens, uint32_t count, int32_t token)
{
    for (uint32_t i = 0; i < count; i++)
        if (tokens[i] == token)
            return true;
    return false;
}

/* Goal:   an answer guesses out of the whole conversation, not only out of what came with it.
 * Method: look here for a second turn of one token whose answer begins with another one, which the
 *         first turn has as well: what followed there is the guess. */
static void later_turns_guess_out_of_earlier_ones(void **state)
{
    enum { FIRST = 200 };
    const mcp_generate_opts opts = greedy();
    struct rig_call        *call = rig_session(client, 1, 0, layers);
    struct wire_frame       frame;
    struct answer           one, two;
    uint64_t                seed = 1000;
    int32_t                 text[FIRST + 1];

    (void)state;
    do {
        assert_true(seed < 2000);
        prompt_of(text, FIRST + 1, seed++);
        one = local_answer(text, FIRST + 1, 1, &opts);
    } while (one.tokens[0] == text[FIRST] || !holds(text, FIRST - 1, one.tokens[0]));
    two = local_answer(text, FIRST + 1, 3, &opts);
    one = local_answer(text, FIRST, 1, &opts);

    frame = generate_frame(1, 0, text, FIRST, 1, &opts);
    rig_send(call, &frame);
    expect_answer(call, 1, FIRST, &one, 0);
    frame = generate_frame(2, FIRST, text + FIRST, 1, 3, &opts);
    frame.u.generate.guesses = 1;
    rig_send(call, &frame);
    assert_int_equal(expect_guessed(call, 2, FIRST + 1, &two).guessed, 1);
    rig_close(call);
}

static uint64_t metric(const char *name)
{
    char       *text = worker_metrics(worker), *at = strstr(text, name);
    const char *line = at != NULL ? strchr(strstr(at, "\nmcp_worker_"), ' ') : NULL;
    uint64_t    value;

    assert_non_null(line);
    value = strtoull(line, NULL, 10);
    free(text);
    return value;
}

/* Goal:   the worker's figures count the guesses that clients are told of, and the tokens. */
static void metrics_count_guesses(void **state)
{
    const uint64_t          guesses = metric("# TYPE mcp_worker_guesses_total");
    const uint64_t          right = metric("# TYPE mcp_worker_guesses_right_total");
    const uint64_t          tokens = metric("# TYPE mcp_worker_tokens_generated_total");
    const struct wire_open  open = rig_open_frame(1, 0, layers);
    const mcp_generate_opts opts = greedy();
    int32_t                 prompt[60];
    struct tally            seen;

    (void)state;
    repeating(prompt, 60, 9, 1);
    seen = compare(&open, &opts, prompt, 60, 40, 6);
    assert_true(seen.right > 0);
    assert_int_equal(metric("# TYPE mcp_worker_guesses_total") - guesses, seen.guessed);
    assert_int_equal(metric("# TYPE mcp_worker_guesses_right_total") - right, seen.right);
    assert_int_equal(metric("# TYPE mcp_worker_tokens_generated_total") - tokens, 41);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_answers_with_guesses_equal_the_local_ones),
        cmocka_unit_test(sampled_answers_with_guesses_equal_the_local_ones),
        cmocka_unit_test(no_guesses_are_made_where_they_are_forbidden),
        cmocka_unit_test(answers_with_guesses_stop_where_they_have_to),
        cmocka_unit_test(a_batch_session_guesses_too),
        cmocka_unit_test(answers_with_guesses_do_not_mix),
        cmocka_unit_test(trim_stops_an_answer_with_guesses),
        cmocka_unit_test(a_lost_session_holds_no_guesses),
        cmocka_unit_test(later_turns_guess_out_of_earlier_ones),
        cmocka_unit_test(metrics_count_guesses),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
