/* model/starved_test.c - opening a model where memory ends: a sentence, and nothing left.
 *
 * SPDX-License-Identifier: MIT */
#include "base/starve_test.h"
#include "model/model.h"

/* Open, ask for all that is lazy, close; each failure must be MCP_ENOMEM. */
static void open_and_close(const char *path)
{
    struct mcp_model *m;
    uint8_t           print[MCP_FINGERPRINT_BYTES];
    mcp_error         err = { 0 };
    int               rc = model_open(&m, path, &err);

    starve_check(rc, &err);
    if (rc < 0) {
        assert_null(m);
        return;
    }
    if (model_get_vocab(m, &err) == NULL)
        starve_check(err.code, &err);
    rc = model_fingerprint(m, print, &err);
    starve_check(rc, &err);
    rc = model_weights_fingerprint(m, 0, print, &err);
    starve_check(rc, &err);
    model_close(m);
}

/* Every allocation in turn, alone and with all that follow it. */
static void starve_all(const char *path)
{
    open_and_close(path); /* what is made once a process is there now */
    for (int all_after = 0; all_after < 2; all_after++) {
        int n = 1, failed = 1;

        for (; failed > 0; n++) {
            starve_arm(n, all_after != 0);
            open_and_close(path);
            failed = starve_disarm();
            assert_true(n < 2000);
        }
        assert_true(n > 5); /* or nothing was counted at all */
    }
}

/* Goal:   no allocation on the way to an open model is taken for granted. */
static void opening_a_model_survives_any_failing_allocation(void **state)
{
    (void)state;
    starve_all(unit_synth("whole.gguf", "tiny-llama", "f32", "--set", "layers=2", NULL));
}

/* Goal:   nor on the way to a model of several files. */
static void opening_a_split_model_survives_any_failing_allocation(void **state)
{
    int  parts = 1;
    char name[64];

    (void)state;
    unit_synth("split.gguf", "tiny-llama", "f32", "--split-max-bytes", "1M", NULL);
    for (; parts < 20; parts++) {
        snprintf(name, sizeof(name), "split-00001-of-%05d.gguf", parts);
        if (access(unit_path(name), R_OK) == 0)
            break;
    }
    assert_true(parts > 1 && parts < 20);
    starve_all(unit_path(name));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_a_model_survives_any_failing_allocation),
        cmocka_unit_test(opening_a_split_model_survives_any_failing_allocation),
    };

    return cmocka_run_group_tests_name("model/starved", tests, NULL, NULL);
}
