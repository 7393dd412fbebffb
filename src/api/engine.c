/* api/engine.c - mcp/engine.h: checks arguments, then calls src/engine.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/engine.h"

#include "api/opts.h"
#include "base/fail.h"

int mcp_devices(mcp_device *devices, size_t cap)
{
    return engine_devices(devices, devices == NULL ? 0 : cap);
}

int mcp_engine_open(mcp_engine **out, const mcp_model *model, const mcp_engine_opts *opts,
                    mcp_error *err)
{
    mcp_engine_opts own = MCP_ENGINE_OPTS_INIT;
    int             rc;

    if (out == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_engine_open: out is NULL");
    *out = NULL;
    if (model == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_engine_open: model is NULL");
    rc = api_take_opts(&own, sizeof(own), opts, "mcp_engine_opts", err);
    if (rc < 0)
        return rc;
    if (own.device == NULL)
        own.device = "auto";
    return engine_open(out, model, &own, err);
}

void mcp_engine_close(mcp_engine *engine)
{
    engine_close(engine);
}

int mcp_engine_get_info(const mcp_engine *engine, mcp_engine_info *info)
{
    if (engine == NULL || info == NULL)
        return MCP_EINVAL;
    *info = engine->info;
    return MCP_OK;
}

int mcp_engine_forward(mcp_engine *engine, uint32_t first, uint32_t last, mcp_want want,
                       const mcp_window *windows, uint32_t count, float *out, size_t out_floats,
                       mcp_error *err)
{
    if (engine == NULL || (windows == NULL && count > 0))
        return base_fail(err, MCP_EINVAL, "mcp_engine_forward: engine or windows is NULL");
    return engine_forward(engine, first, last, want, windows, count, out, out_floats, err);
}

float *mcp_engine_alloc(mcp_engine *engine, size_t floats)
{
    return engine == NULL ? NULL : engine_alloc(engine, floats);
}

void mcp_engine_free(mcp_engine *engine, float *memory)
{
    (void)
        engine; /* the memory remembers its device; the argument keeps the order of closing plain */
    engine_free(memory);
}

int mcp_engine_trim(mcp_engine *engine, uint32_t seq, uint32_t pos, mcp_error *err)
{
    if (engine == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_engine_trim: engine is NULL");
    return engine_trim(engine, seq, pos, err);
}

uint32_t mcp_engine_length(const mcp_engine *engine, uint32_t seq, uint32_t layer)
{
    if (engine == NULL || seq >= engine->info.seqs || layer < engine->info.first ||
        layer >= engine->info.last)
        return 0;
    return *engine_kv_length(&engine_shard_of((mcp_engine *)engine, layer)->kv, seq, layer);
}

void mcp_engine_cancel(mcp_engine *engine)
{
    if (engine != NULL)
        atomic_store(&engine->cancel, 1);
}

int mcp_engine_export(mcp_engine *engine, uint32_t seq, uint32_t first, uint32_t last,
                      uint32_t pos_first, uint32_t pos_last, void *buffer, size_t *bytes,
                      mcp_error *err)
{
    if (engine == NULL || bytes == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_engine_export: engine or bytes is NULL");
    return engine_export(engine, seq, first, last, pos_first, pos_last, buffer, bytes, err);
}

int mcp_engine_import(mcp_engine *engine, uint32_t seq, const void *buffer, size_t bytes,
                      mcp_error *err)
{
    if (engine == NULL || buffer == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_engine_import: engine or buffer is NULL");
    return engine_import(engine, seq, buffer, bytes, err);
}
