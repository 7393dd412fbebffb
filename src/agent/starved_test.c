/* agent/starved_test.c - a session where memory ends: a sentence, and nothing left.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/session.h"
#include "base/starve_test.h"
#include "engine/run_test.h"

static int keep_on(int32_t token, const char *bytes, size_t count, void *ctx)
{
    (void)token;
    (void)bytes;
    (void)count;
    (void)ctx;
    return 0;
}

static void talk(struct mcp_engine *e, uint32_t cuts)
{
    static const int32_t  tokens[] = { 1, 2, 3, 4, 5, 6 };
    static const uint32_t at[] = { 1, 3 };
    mcp_session_opts      o = MCP_SESSION_OPTS_INIT;
    mcp_generate_opts     g = MCP_GENERATE_OPTS_INIT;
    struct mcp_session   *s;
    mcp_error             err = { 0 };
    int                   rc;

    o.cuts = at;
    o.cut_count = cuts;
    rc = session_open(&s, e, &o, &err);
    starve_check(rc, &err);
    if (rc < 0) {
        assert_null(s);
        return;
    }
    g.max_tokens = 4;
    g.ignore_end = 1;
    g.seed = 1;
    rc = session_generate(s, tokens, 6, &g, keep_on, NULL, NULL, &err);
    starve_check(rc, &err);
    if (rc < 0)
        run_lengths(e, 0, s->count);
    session_close(s);
}

/* Goal:   no allocation of a session, its stages, its sampler or its answer is taken for
 *         granted; after a failure all stages have the positions that the session remembers.
 * Method: each of ours fails in turn, alone and with all that follow. */
static void a_session_survives_any_failing_allocation(void **state)
{
    struct mcp_model  *m = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    mcp_engine_opts    o = run_opts();
    struct mcp_engine *e = run_engine(m, &o);

    (void)state;
    assert_non_null(model_get_vocab(m, NULL));
    for (uint32_t kind = 0; kind < 4; kind++) {
        talk(e, kind / 2 * 2); /* the engine builds and keeps its graphs */
        for (int n = 1, failed = 1; failed > 0; n++) {
            starve_arm(n, kind % 2 != 0);
            talk(e, kind / 2 * 2);
            failed = starve_disarm();
            assert_true(n < 500);
            assert_true(failed > 0 || n > 5);
        }
    }
    engine_close(e);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_survives_any_failing_allocation),
    };

    return cmocka_run_group_tests_name("agent/starved", tests, NULL, NULL);
}
