/* worker/starved_test.c - a worker without memory: a sentence, never a crash or a leak.
 *
 * SPDX-License-Identifier: MIT */
#include "base/starve_test.h"
#include "worker/answer.h"
#include "worker/session_test.h"

static void open_close(void)
{
    mcp_worker_opts    opts = rig_opts();
    mcp_engine_opts    engine = rig_engine_opts(0, 0);
    struct mcp_worker *w;
    mcp_error          err = { 0 };
    char              *text;
    int                rc;

    opts.reserve = "team=2";
    opts.io_threads = 2;
    engine.seqs = 2;
    engine.ctx_tokens = engine.batch_tokens = engine.ubatch_tokens = 64;
    rc = worker_open(&w, rig_model_open, &opts, &engine, &err);
    starve_check(rc, &err);
    if (rc < 0) {
        assert_null(w);
        return;
    }
    text = worker_metrics(w); /* NULL is its way to say it */
    free(text);
    worker_close(w);
}

/* Goal:   no allocation on the way to a worker that listens is taken for granted.
 * Method: each of ours fails in turn, alone and with all that follow. */
static void a_worker_survives_any_failing_allocation(void **state)
{
    (void)state;
    open_close(); /* what is made once a process is there now */
    for (int all_after = 0; all_after < 2; all_after++) {
        for (int n = 1, failed = 1; failed > 0; n++) {
            starve_arm(n, all_after != 0);
            open_close();
            failed = starve_disarm();
            assert_true(n < 1000);
            assert_true(failed > 0 || n > 50);
        }
    }
}

static void an_answer_survives_any_failing_allocation(void **state)
{
    const int32_t              tokens[] = { 1, 2, 1 };
    const struct wire_generate g = {
        .tokens = tokens, .token_count = 3, .max_tokens = 5, .temperature = 0.8f
    };
    struct worker_facts facts = { 0 };
    mcp_error           err = { 0 };

    (void)state;
    facts.model = rig_model_open;
    facts.n_vocab = rig_model_open->hp.n_vocab;
    for (int n = 1, failed = 1; failed > 0; n++) {
        struct worker_answer *answer;
        int                   rc;

        starve_arm(n, false);
        rc = worker_answer_new(&answer, &facts, &g, 64, &err);
        starve_check(rc, &err);
        assert_int_equal(answer == NULL, rc < 0);
        if (answer != NULL)
            worker_answer_guess(answer, &g, NULL);
        worker_answer_free(answer);
        failed = starve_disarm();
        assert_true(failed > 0 || n > 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_survives_any_failing_allocation),
        cmocka_unit_test(an_answer_survives_any_failing_allocation),
    };
    int failed;

    rig_begin();
    failed = cmocka_run_group_tests_name("worker/starved", tests, NULL, NULL);
    rig_end();
    return failed;
}
