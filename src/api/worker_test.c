/* api/worker_test.c - NULL, and broken options, at the door of mcp/worker.h.
 *
 * SPDX-License-Identifier: MIT */
#include "base/unit_test.h"

#include <ftw.h>
#include <mcp/keys.h>
#include <mcp/worker.h>

static mcp_model *model;
static char       keys[512];

static int begin(void **state)
{
    mcp_error err;

    (void)state;
    unit_ok(mcp_model_open(&model, unit_synth("tiny.gguf", "tiny-llama", "q8_0", NULL), &err),
            &err);
    snprintf(keys, sizeof(keys), "%s", unit_path("keys"));
    unit_ok(mcp_keys_init(keys, NULL, &err), &err);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static int end(void **state)
{
    enum { DESCRIPTORS = 8 };

    (void)state;
    mcp_model_close(model);
    return nftw(keys, remove_one, DESCRIPTORS, FTW_DEPTH | FTW_PHYS);
}

static mcp_worker_opts small(mcp_engine_opts *engine)
{
    mcp_worker_opts opts = MCP_WORKER_OPTS_INIT;
    mcp_engine_opts own = MCP_ENGINE_OPTS_INIT;

    *engine = own;
    engine->device = "cpu";
    engine->threads = 1;
    engine->ctx_tokens = engine->batch_tokens = engine->ubatch_tokens = 64;
    opts.listen = "127.0.0.1:0";
    opts.keys = keys;
    opts.engine = engine;
    return opts;
}

static void null_is_refused(void **state)
{
    mcp_engine_opts  engine;
    mcp_worker_opts  opts = small(&engine);
    mcp_worker      *w = (mcp_worker *)0x5a;
    mcp_worker_stats stats;
    mcp_error        err;

    (void)state;
    unit_refused(mcp_worker_open(NULL, model, &opts, &err), MCP_EINVAL, &err, "out is NULL");
    unit_refused(mcp_worker_open(&w, NULL, &opts, &err), MCP_EINVAL, &err, "model is NULL");
    assert_null(w);
    unit_refused(mcp_worker_open(&w, model, NULL, &err), MCP_EINVAL, &err, "keys is NULL");
    opts.struct_size += 1000;
    unit_refused(mcp_worker_open(&w, model, &opts, &err), MCP_EINVAL, &err, "mcp_worker_opts");
    opts = small(&engine);
    engine.struct_size = 2;
    unit_refused(mcp_worker_open(&w, model, &opts, &err), MCP_EINVAL, &err, "mcp_engine_opts");
    assert_null(w);

    assert_string_equal(mcp_worker_address(NULL), "");
    mcp_worker_drain(NULL, 0);
    assert_int_equal(mcp_worker_wait(NULL, 0), 1);
    mcp_worker_close(NULL);
    assert_int_equal(mcp_worker_get_stats(NULL, &stats), MCP_EINVAL);
    assert_null(mcp_worker_metrics(NULL));
}

/* A worker through the ABI: it listens, drains when nobody is there, and closes. */
static void a_worker_opens_and_closes(void **state)
{
    mcp_engine_opts  engine;
    mcp_worker_opts  opts = small(&engine);
    mcp_worker      *w;
    mcp_worker_stats stats;
    mcp_error        err;
    char            *text;

    (void)state;
    engine.seqs = 3;
    unit_ok(mcp_worker_open(&w, model, &opts, &err), &err);
    assert_memory_equal(mcp_worker_address(w), "127.0.0.1:", 10);
    assert_int_equal(mcp_worker_get_stats(w, &stats), MCP_OK);
    assert_int_equal(stats.sessions_max, 3);
    assert_int_equal(mcp_worker_get_stats(w, NULL), MCP_EINVAL);
    text = mcp_worker_metrics(w);
    assert_non_null(text);
    free(text);
    assert_int_equal(mcp_worker_wait(w, 0), 0);
    mcp_worker_drain(w, 1000);
    assert_int_equal(mcp_worker_wait(w, 5000), 1);
    assert_int_equal(mcp_worker_get_stats(w, &stats), MCP_OK);
    assert_int_equal(stats.draining, 1);
    mcp_worker_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_is_refused),
        cmocka_unit_test(a_worker_opens_and_closes),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
