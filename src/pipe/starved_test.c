/* pipe/starved_test.c - each allocation of a session's life fails in turn.
 *
 * SPDX-License-Identifier: MIT */
#include "base/starve_test.h"
#include "pipe/pipeline.h"

enum { WINDOWS = 90 };

/* A life: windows of several sizes through two stages, trims, a loss, a drain.  Answers are
 * made beforehand, so that every allocation is the pipeline's own. */
struct life {
    struct pipe_block *rows[101]; /* [count] */
    struct pipeline   *p;
    uint32_t           endpoints;
    uint32_t           open; /* bit i: stage i wants an endpoint */
    uint32_t           lose; /* the endpoint to be lost next, or 0 */
    uint64_t           output;
    bool               failed;
};

static void act(struct life *l, struct pipe_act *a)
{
    static const struct pipe_opened opened = { .windows_max = 4, .even_windows = true };
    uint32_t                        rows;

    switch (a->kind) {
    case PIPE_ACT_OPEN: pipeline_opened(l->p, 1.0, a->stage, ++l->endpoints, &opened); break;
    case PIPE_ACT_FORWARD:
        rows = a->want == PIPE_WANT_ALL ? a->count : a->want == PIPE_WANT_LAST;
        if (a->endpoint == l->lose) {
            pipeline_lost(l->p, 1.0, a->endpoint, &(mcp_error){ MCP_EUNAVAIL, "gone" });
            l->lose = 0;
        }
        pipeline_result(l->p, 1.0, a->endpoint, a->number, l->rows[rows],
                        (struct pipe_timing){ 0 });
        break;
    case PIPE_ACT_OUTPUT: l->output = a->number; break;
    case PIPE_ACT_FAILED:
        if (a->error.code != MCP_ENOMEM)
            fail_msg("it failed with %d (%s)", a->error.code, a->error.text);
        l->failed = true;
        break;
    default: break;
    }
    pipe_block_unref(a->block);
}

static int live(struct life *l, mcp_error *err)
{
    static const struct pipeline_stage stages[] = { { 0, 2, true }, { 2, 4, true } };
    static const int32_t               tokens[100];
    struct pipeline_opts               opts = { stages, 2, 8 };
    struct pipe_act                    a;
    int                                rc = pipeline_new(&l->p, &opts, err);

    for (uint32_t i = 0; i < WINDOWS && rc == MCP_OK && !l->failed; i++) {
        uint32_t length = pipeline_length(l->p);
        uint64_t number = 0;

        rc = pipeline_submit(l->p, 1.0, tokens, i % 20 == 3 ? 100 : 1 + i % 3,
                             (enum pipe_want)(i % 3), &number, err);
        if (rc < 0 && pipeline_length(l->p) != length)
            fail_msg("a refused window left %u positions", pipeline_length(l->p) - length);
        if (i == 70)
            l->lose = 2;
        while (pipeline_act(l->p, 1.0, &a))
            act(l, &a);
        if (rc == MCP_OK && !l->failed && l->output != number)
            fail_msg("window %u has not come out", i);
        if (rc == MCP_OK && i % 10 == 9)
            rc = pipeline_trim(l->p, 1.0, pipeline_length(l->p) - 2, err);
        if (i == 80)
            pipeline_draining(l->p, 1.0, 1);
    }
    pipeline_free(l->p);
    return rc;
}

/* Goal:   without memory a call says so and changed nothing, or the pipeline fails with
 *         MCP_ENOMEM; a replay that cannot be joined is sent in its parts; nothing leaks.
 * Method: each allocation fails alone, and all from each on. */
static void without_memory_a_pipeline_fails_cleanly(void **state)
{
    struct life made = { 0 };

    (void)state;
    for (uint32_t i = 1; i <= 100; i++)
        made.rows[i] = pipe_block_new(0, i, 8);
    for (int all_after = 0; all_after < 2; all_after++) {
        int failed = 1;

        for (int n = 1; failed > 0; n++) {
            struct life l = made;
            mcp_error   err;
            int         rc;

            starve_arm(n, all_after);
            rc = live(&l, &err);
            failed = starve_disarm();
            starve_check(rc, &err);
            if (failed == 0 && (rc < 0 || l.failed))
                fail_msg("it fails although memory was there");
        }
    }
    for (uint32_t i = 1; i <= 100; i++)
        pipe_block_unref(made.rows[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_memory_a_pipeline_fails_cleanly),
    };

    return cmocka_run_group_tests_name("pipe/starved", tests, NULL, NULL);
}
