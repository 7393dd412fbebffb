/* api/remote.c - mcp/remote.h: checks arguments, then calls src/agent.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/remote.h"
#include "api/opts.h"
#include "base/fail.h"

#include <string.h>

static const char *const state_names[] = {
    [MCP_WORKER_DOWN] = "down",         [MCP_WORKER_DIALING] = "dialing", [MCP_WORKER_UP] = "up",
    [MCP_WORKER_DRAINING] = "draining", [MCP_WORKER_UNFIT] = "unfit",
};

const char *mcp_worker_state_name(mcp_worker_state state)
{
    return (unsigned)state < sizeof(state_names) / sizeof(state_names[0]) ? state_names[state]
                                                                          : "unknown";
}

int mcp_remote_open(mcp_remote **out, const mcp_remote_opts *opts, mcp_error *err)
{
    mcp_remote_opts own = MCP_REMOTE_OPTS_INIT;
    int             rc;

    if (out == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_remote_open: out is NULL");
    *out = NULL;
    if (opts == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_remote_open: opts is NULL");
    rc = api_take_opts(&own, sizeof(own), opts, "mcp_remote_opts", err);
    if (rc < 0)
        return rc;
    if (own.keys == NULL || own.workers == NULL || own.worker_count == 0)
        return base_fail(err, MCP_EINVAL, "mcp_remote_open: keys and at least one worker needed");
    if (own.worker_count > MCP_WORKERS_MAX)
        return base_fail(err, MCP_ERANGE, "%u workers, at most %d", own.worker_count,
                         MCP_WORKERS_MAX);
    for (uint32_t i = 0; i < own.worker_count; i++)
        if (own.workers[i] == NULL)
            return base_fail(err, MCP_EINVAL, "mcp_remote_open: worker %u is NULL", i);
    return remote_open(out, &own, err);
}

void mcp_remote_close(mcp_remote *remote)
{
    remote_close(remote);
}

uint32_t mcp_remote_worker_count(const mcp_remote *remote)
{
    return remote != NULL ? remote->link_count : 0;
}

int mcp_remote_get_worker(const mcp_remote *remote, uint32_t index, mcp_worker_info *info)
{
    mcp_worker_info own;
    uint32_t        size;
    int             rc;

    if (remote == NULL || info == NULL)
        return MCP_EINVAL;
    size = info->struct_size;
    if (size < sizeof(size))
        return MCP_EINVAL;
    rc = remote_get_worker(remote, index, &own);
    if (rc < 0)
        return rc;
    own.struct_size = size;
    memcpy(info, &own, size < sizeof(own) ? size : sizeof(own));
    return MCP_OK;
}

int mcp_remote_weights(const mcp_remote *remote, uint32_t index, uint32_t first, uint32_t last,
                       uint8_t digest[MCP_FINGERPRINT_BYTES], mcp_error *err)
{
    if (remote == NULL || digest == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_remote_weights: remote or digest is NULL");
    return remote_weights(remote, index, first, last, digest, err);
}

int mcp_remote_ping(mcp_remote *remote, uint32_t index, const mcp_ping_opts *opts,
                    mcp_ping_result *result, mcp_error *err)
{
    if (remote == NULL || result == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_remote_ping: remote or result is NULL");
    return remote_ping(remote, index, opts, result, err);
}
