/* engine/starved_test.c - an engine where memory ends: a sentence, and nothing left.
 *
 * SPDX-License-Identifier: MIT */
#include "base/starve_test.h"
#include "engine/engine.h"
#include "engine/run_test.h"

static struct mcp_model *model;

/* Open, run, export, import, close; each failure must be MCP_ENOMEM. */
static void open_run_close(const mcp_engine_opts *o)
{
    static const int32_t tokens[] = { 1, 2, 3, 4, 5, 6 };
    mcp_window         windows[] = { { .seq = 0, .count = 3, .tokens = tokens, .out = MCP_OUT_ALL },
                                     { .seq = 1, .count = 2, .tokens = tokens, .out = MCP_OUT_LAST } };
    static float       out[4 * 4096];
    static uint8_t     block[65536];
    struct mcp_engine *e;
    float             *memory;
    size_t             bytes = sizeof(block);
    mcp_error          err = { 0 };
    int                rc = engine_open(&e, model, o, &err);

    starve_check(rc, &err);
    if (rc < 0) {
        assert_null(e);
        return;
    }
    rc = engine_forward(e, 0, 4, MCP_WANT_LOGITS, windows, 2, out, UNIT_COUNT(out), &err);
    starve_check(rc, &err);
    run_lengths(e, 0, rc < 0 ? 0 : 3);
    run_lengths(e, 1, rc < 0 ? 0 : 2);
    if (rc == MCP_OK) {
        rc = engine_export(e, 0, 0, 4, 0, 3, block, &bytes, &err);
        starve_check(rc, &err);
    }
    if (rc == MCP_OK) {
        assert_int_equal(engine_trim(e, 1, 0, NULL), MCP_OK);
        rc = engine_import(e, 1, block, bytes, &err);
        starve_check(rc, &err);
        run_lengths(e, 1, rc < 0 ? 0 : 3);
    }
    memory = engine_alloc(e, 100);
    if (memory != NULL)
        memory[99] = 1.0f;
    engine_free(memory);
    engine_close(e);
}

/* Goal:   no allocation on the way to an open engine, through a forward, or through moving
 *         state is taken for granted.
 * Method: each of ours fails in turn, alone and with all that follow; with copied weights
 *         and without, V transposed and not, tried for even windows and not. */
static void an_engine_survives_any_failing_allocation(void **state)
{
    (void)state;
    model = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    for (int kind = 0; kind < 6; kind++) {
        mcp_engine_opts o = run_opts();
        int             all_after = kind % 2;

        o.seqs = 2;
        o.repack = kind < 2;
        o.flash = kind < 2 ? MCP_FLASH_ON : MCP_FLASH_OFF;
        o.kv_k = kind < 2 ? MCP_KV_Q8_0 : MCP_KV_F16;
        o.even_windows = kind >= 4;
        open_run_close(&o); /* what is made once a process is there now */
        for (int n = 1, failed = 1; failed > 0; n++) {
            starve_arm(n, all_after != 0);
            open_run_close(&o);
            failed = starve_disarm();
            assert_true(n < 2000);
            assert_true(failed > 0 || n > 15); /* or nothing was counted at all */
        }
    }
    model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_engine_survives_any_failing_allocation),
    };

    return cmocka_run_group_tests_name("engine/starved", tests, NULL, NULL);
}
