/* api/generate.c - mcp/generate.h: checks arguments, then calls src/agent.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/session.h"
#include "api/opts.h"
#include "base/fail.h"

#include <math.h>
#include <string.h>

static const char *const stop_names[] = {
    [MCP_STOP_END] = "end",           [MCP_STOP_LENGTH] = "length", [MCP_STOP_CONTEXT] = "context",
    [MCP_STOP_CALLBACK] = "callback", [MCP_STOP_CANCEL] = "cancel",
};

const char *mcp_stop_name(mcp_stop stop)
{
    return (unsigned)stop < sizeof(stop_names) / sizeof(stop_names[0]) ? stop_names[stop]
                                                                       : "unknown";
}

/* One way to say what runs where, and whole. */
static int check_session(const mcp_engine *engine, const mcp_session_opts *o, mcp_error *err)
{
    bool stages = o->stage_count > 0, cloud = o->cloud != 0;
    int  ways;

    if (o->cuts == NULL && o->cut_count > 0)
        return base_fail(err, MCP_EINVAL, "mcp_session_open: %u cuts without a list", o->cut_count);
    if (o->stages == NULL && stages)
        return base_fail(err, MCP_EINVAL, "mcp_session_open: %u stages without a list",
                         o->stage_count);
    ways = (engine != NULL) + stages + cloud + (o->plan != NULL);
    if (ways == 0)
        return base_fail(err, MCP_EINVAL, "mcp_session_open: engine is NULL");
    if (ways > 1 || (o->cut_count > 0 && engine == NULL))
        return base_fail(err, MCP_EINVAL,
                         "mcp_session_open: an engine with cuts, stages, cloud, or a plan: one of "
                         "them");
    if (o->qos < MCP_QOS_NORMAL || o->qos > MCP_QOS_BATCH)
        return base_fail(err, MCP_EINVAL, "mcp_session_open: qos %d is not one of mcp_qos",
                         (int)o->qos);
    return MCP_OK;
}

int mcp_session_open(mcp_session **out, mcp_engine *engine, const mcp_session_opts *opts,
                     mcp_error *err)
{
    mcp_session_opts own = MCP_SESSION_OPTS_INIT;
    int              rc;

    if (out == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_session_open: out is NULL");
    *out = NULL;
    rc = api_take_opts(&own, sizeof(own), opts, "mcp_session_opts", err);
    if (rc < 0)
        return rc;
    return check_session(engine, &own, err) < 0 ? MCP_EINVAL : session_open(out, engine, &own, err);
}

void mcp_session_close(mcp_session *session)
{
    session_close(session);
}

int mcp_session_generate(mcp_session *session, const int32_t *tokens, uint32_t count,
                         const mcp_generate_opts *opts, mcp_token_fn fn, void *ctx,
                         mcp_generate_result *result, mcp_error *err)
{
    mcp_generate_opts own = MCP_GENERATE_OPTS_INIT;
    int               rc;

    if (session == NULL || (tokens == NULL && count > 0))
        return base_fail(err, MCP_EINVAL, "mcp_session_generate: session or tokens is NULL");
    rc = api_take_opts(&own, sizeof(own), opts, "mcp_generate_opts", err);
    if (rc < 0)
        return rc;
    if (isnan(own.temperature) || isnan(own.top_p) || isnan(own.min_p))
        return base_fail(err, MCP_EINVAL, "temperature, top_p and min_p must be numbers");
    return session_generate(session, tokens, count, &own, fn, ctx, result, err);
}

void mcp_session_cancel(mcp_session *session)
{
    if (session == NULL)
        return;
    session_cancel(session);
}

int mcp_session_get_stats(const mcp_session *session, mcp_session_stats *stats)
{
    mcp_session_stats own;

    if (session == NULL || stats == NULL || stats->struct_size < sizeof(stats->struct_size))
        return MCP_EINVAL;
    own.struct_size = stats->struct_size;
    session_stats(session, &own);
    memcpy(stats, &own, own.struct_size < sizeof(own) ? own.struct_size : sizeof(own));
    return MCP_OK;
}
