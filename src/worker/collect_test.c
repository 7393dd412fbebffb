/* worker/collect_test.c - windows with guesses: which rows count, with logits made by hand.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/answer_test.h"
#include "worker/compute_private.h"

#include <math.h>

enum { CTX = 64, ROWS = 16, PROMPT = 8 };

/* An answer after its prompt, whose windows are run here. */
struct hand {
    struct worker_service service;
    struct worker_stream  stream;
    struct worker_compute c;
    struct compute_run    run;
    struct compute_item   item;
    struct worker_job    *job;
};

static const int32_t prompt[PROMPT] = { 5, 6, 7, 8, 5, 6, 7, 8 };

static int32_t end_token(void)
{
    for (int32_t i = 0; i < (int32_t)rig_model_open->hp.n_vocab; i++)
        if (ends(i))
            return i;
    fail_msg("no token ends an answer");
    return -1;
}

static void begin_answer(struct hand *h, uint32_t max_tokens)
{
    const struct wire_generate g = { .number = 3,
                                     .tokens = prompt,
                                     .token_count = PROMPT,
                                     .max_tokens = max_tokens,
                                     .guesses = WORKER_GUESSES_MAX };
    struct worker_facts        facts = { 0 };
    struct worker_answer      *answer;
    uint32_t                   offset;
    mcp_error                  err;

    memset(h, 0, sizeof(*h));
    facts.model = rig_model_open;
    facts.n_vocab = h->c.n_vocab = rig_model_open->hp.n_vocab;
    h->stream.call.service = &h->service;
    atomic_init(&h->stream.call.refs, 1);
    h->c.out = run_floats((size_t)ROWS * h->c.n_vocab);
    h->run.items = &h->item;
    unit_ok(worker_answer_new(&answer, &facts, &g, CTX, &err), &err);
    worker_answer_guess(answer, &g, NULL);
    assert_int_equal(worker_answer_prompt(answer, CTX, &offset), PROMPT);
    h->job = worker_job_new(&h->stream, WORKER_GENERATE, NULL, ROWS * sizeof(int32_t));
    assert_non_null(h->job);
    h->job->answer = answer;
    h->item.job = h->job;
    h->item.item.work = &h->job->work;
}

static void end_answer(struct hand *h)
{
    worker_job_free(h->job);
    free(h->c.out);
}

/* Row i is for this token, by far; -1: for none. */
static void set_row(struct hand *h, uint32_t row, int32_t token)
{
    float *logits = h->c.out + (size_t)row * h->c.n_vocab;

    for (uint32_t i = 0; i < h->c.n_vocab; i++)
        logits[i] = token < 0 ? NAN : 0.0f;
    if (token >= 0)
        logits[token] = 50.0f;
}

/* Positions [offset, offset + count) of the window have run, with these rows. */
static void collect(struct hand *h, uint32_t offset, uint32_t count, bool last, const int32_t *rows)
{
    uint32_t wanted = h->job->want == WIRE_WANT_LOGITS ? count : 1;

    for (uint32_t i = 0; i < wanted; i++)
        set_row(h, i, rows[i]);
    h->item.item.offset = offset;
    h->item.item.count = count;
    h->item.item.last = last;
    h->item.rows = wanted;
    h->item.rc = MCP_OK;
    compute_collect(&h->c, &h->run, 0, 1);
}

/* The prompt has run and gave `token`. */
static void run_prompt(struct hand *h, int32_t token)
{
    h->job->want = WIRE_WANT_LOGITS_LAST;
    h->job->work.count = PROMPT;
    collect(h, 0, PROMPT, true, &token);
    assert_int_equal(h->item.rc, MCP_OK);
    assert_int_equal(h->job->chosen, 1);
    assert_int_equal(h->job->reply->frame.u.token.pos, PROMPT);
}

/* The next window, and its replies forgotten; it has `count` positions. */
static void next(struct hand *h, uint32_t pos, uint32_t count)
{
    worker_replies_free(h->job->reply);
    h->job->reply = NULL;
    h->job->chosen = 0;
    h->job->settled = false;
    h->job->want = WIRE_WANT_LOGITS;
    h->job->work.pos = pos;
    h->job->work.count = worker_answer_window(h->job->answer, &h->c.guess, pos, ROWS,
                                              (int32_t *)(void *)h->job->data);
    assert_int_equal(h->job->work.count, count);
}

static void expect_tokens(const struct hand *h, uint32_t pos, const int32_t *tokens, uint32_t count,
                          uint32_t guessed, enum wire_stop stop)
{
    const struct worker_reply *reply = h->job->reply;

    assert_int_equal(h->item.rc, MCP_OK);
    assert_int_equal(h->job->chosen, count);
    assert_int_equal(h->job->stop, stop);
    for (uint32_t i = 0; i < count; i++, reply = reply->next) {
        const struct wire_token *t = &reply->frame.u.token;
        bool                     last = i + 1 == count;

        assert_int_equal(reply->frame.kind, WIRE_TOKEN);
        assert_int_equal(t->number, 3);
        assert_int_equal(t->token, tokens[i]);
        assert_int_equal(t->pos, pos + 1 + i);
        assert_int_equal(t->stop, last ? stop : WIRE_STOP_NOT);
        assert_int_equal(t->guessed, last ? guessed : 0);
        assert_int_equal(t->guessed_right, last ? count - 1 : 0);
    }
    assert_null(reply);
}

/* Goal:   a window is the token chosen last and what followed it in the text, as far as a window
 *         may go; and the rows count up to the first that says otherwise. */
static void rows_count_up_to_the_first_wrong_guess(void **state)
{
    static const int32_t right[] = { 6, 7, 8, 5, 6, 7, 8, 5, 6, 7, 8, 5, 6, 7, 8, 5 };
    int32_t              rows[ROWS];
    struct hand          h;

    (void)state;
    for (uint32_t wrong = 0; wrong <= ROWS; wrong++) {
        begin_answer(&h, 100);
        run_prompt(&h, 5);
        next(&h, PROMPT, ROWS);
        assert_memory_equal(h.job->data + sizeof(int32_t), right, (ROWS - 1) * sizeof(int32_t));
        memcpy(rows, right, sizeof(rows));
        if (wrong < ROWS)
            rows[wrong] = 9;
        collect(&h, 0, ROWS, true, rows);
        expect_tokens(&h, PROMPT, rows, wrong < ROWS ? wrong + 1 : ROWS, ROWS - 1, WIRE_STOP_NOT);
        end_answer(&h);
    }
}

/* Goal:   a window in pieces gives what it gives whole, wherever it is cut. */
static void pieces_give_the_tokens_of_the_whole(void **state)
{
    static const int32_t rows[] = { 6, 7, 8, 5, 6, 9, 8, 5, 6, 7, 8, 5, 6, 7, 8, 5 };
    struct hand          h;

    (void)state;
    for (uint32_t cut = 1; cut < ROWS; cut++) {
        begin_answer(&h, 100);
        run_prompt(&h, 5);
        next(&h, PROMPT, ROWS);
        collect(&h, 0, cut, false, rows);
        collect(&h, cut, ROWS - cut, true, rows + cut);
        expect_tokens(&h, PROMPT, rows, 6, ROWS - 1, WIRE_STOP_NOT);
        end_answer(&h);
    }
}

/* Goal:   an answer that ends at a right guess ends there, in one piece or in several.
 * Method: the end of an answer is in its text, as a guess that two right ones follow. */
static void an_answer_ends_amid_right_guesses(void **state)
{
    int32_t     last = end_token(), rows[ROWS] = { 6, 7, 8, 5, 6, 7, 8 };
    struct hand h;

    (void)state;
    for (uint32_t cut = 0; cut < 3; cut++) {
        begin_answer(&h, 100);
        run_prompt(&h, 5);
        next(&h, PROMPT, ROWS);
        ((int32_t *)(void *)h.job->data)[3] = last; /* was 8 */
        rows[2] = last;
        if (cut > 0)
            collect(&h, 0, cut, false, rows);
        collect(&h, cut, ROWS - cut, true, rows + cut);
        expect_tokens(&h, PROMPT, rows, 3, ROWS - 1, WIRE_STOP_END);
        end_answer(&h);
    }
}

/* Goal:   a window asks for no row that cannot count: at most what is left of max_tokens and of the
 *         context; where that is used up the answer stops. */
static void windows_end_where_answers_have_to(void **state)
{
    static const int32_t rows[] = { 6, 7, 8, 5, 6, 7, 8, 5 };
    struct hand          h;

    (void)state;
    begin_answer(&h, 5);
    run_prompt(&h, 5);
    next(&h, PROMPT, 4);
    collect(&h, 0, 4, true, rows);
    expect_tokens(&h, PROMPT, rows, 4, 3, WIRE_STOP_LENGTH);
    end_answer(&h);

    begin_answer(&h, 1000);
    run_prompt(&h, 5);
    next(&h, CTX - 3, 3);
    collect(&h, 0, 3, true, rows);
    expect_tokens(&h, CTX - 3, rows, 3, 2, WIRE_STOP_CONTEXT);
    end_answer(&h);
}

/* Goal:   rows that are no numbers fail the session where they count, and nowhere else. */
static void broken_rows_fail_only_where_they_count(void **state)
{
    int32_t     rows[ROWS] = { 6, 9, -1 };
    struct hand h;

    (void)state;
    begin_answer(&h, 100);
    run_prompt(&h, 5);
    next(&h, PROMPT, ROWS);
    collect(&h, 0, ROWS, true, rows);
    expect_tokens(&h, PROMPT, rows, 2, ROWS - 1, WIRE_STOP_NOT);
    next(&h, PROMPT + 2, 1); /* nothing follows 9 in the text */
    rows[0] = -1;
    collect(&h, 0, 1, true, rows);
    assert_int_equal(h.item.rc, MCP_EFORMAT);
    end_answer(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_count_up_to_the_first_wrong_guess),
        cmocka_unit_test(pieces_give_the_tokens_of_the_whole),
        cmocka_unit_test(an_answer_ends_amid_right_guesses),
        cmocka_unit_test(windows_end_where_answers_have_to),
        cmocka_unit_test(broken_rows_fail_only_where_they_count),
    };
    int failed;

    rig_begin();
    failed = cmocka_run_group_tests_name("worker/collect", tests, NULL, NULL);
    rig_end();
    return failed;
}
