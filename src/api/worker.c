/* api/worker.c - mcp/worker.h: checks arguments, then calls src/worker.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/worker.h"

#include "api/opts.h"
#include "base/fail.h"

enum { SESSIONS = 8 };

/* What is const to the caller has locks inside. */
static struct mcp_worker *inside(const mcp_worker *worker)
{
    return (struct mcp_worker *)(uintptr_t)worker;
}

int mcp_worker_open(mcp_worker **out, const mcp_model *model, const mcp_worker_opts *opts,
                    mcp_error *err)
{
    mcp_worker_opts own = MCP_WORKER_OPTS_INIT;
    mcp_engine_opts engine = MCP_ENGINE_OPTS_INIT;
    int             rc;

    if (out == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_worker_open: out is NULL");
    *out = NULL;
    if (model == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_worker_open: model is NULL");
    rc = api_take_opts(&own, sizeof(own), opts, "mcp_worker_opts", err);
    if (rc < 0)
        return rc;
    if (own.keys == NULL)
        return base_fail(err, MCP_EINVAL,
                         "mcp_worker_open: opts.keys is NULL; it names the folder "
                         "that 'mcp keys init' made");
    if (own.listen == NULL)
        own.listen = "127.0.0.1:7070";
    engine.seqs = SESSIONS;
    rc = api_take_opts(&engine, sizeof(engine), own.engine, "mcp_engine_opts", err);
    if (rc < 0)
        return rc;
    if (engine.device == NULL)
        engine.device = "auto";
    engine.even_windows = !own.uneven_windows;
    return worker_open(out, model, &own, &engine, err);
}

const char *mcp_worker_address(const mcp_worker *worker)
{
    return worker == NULL ? "" : worker_address(worker);
}

void mcp_worker_drain(mcp_worker *worker, uint32_t within_ms)
{
    if (worker != NULL)
        worker_drain(worker, within_ms);
}

int mcp_worker_wait(mcp_worker *worker, uint32_t timeout_ms)
{
    return worker == NULL || worker_wait(worker, timeout_ms);
}

void mcp_worker_close(mcp_worker *worker)
{
    worker_close(worker);
}

int mcp_worker_get_stats(const mcp_worker *worker, mcp_worker_stats *stats)
{
    if (worker == NULL || stats == NULL)
        return MCP_EINVAL;
    worker_get_stats(inside(worker), stats);
    return MCP_OK;
}

char *mcp_worker_metrics(const mcp_worker *worker)
{
    return worker == NULL ? NULL : worker_metrics(inside(worker));
}
