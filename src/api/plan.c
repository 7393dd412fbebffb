/* api/plan.c - mcp/plan.h: checks arguments, then calls src/agent and src/plan.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/plan.h"
#include "api/opts.h"
#include "base/fail.h"

#include <stdlib.h>
#include <string.h>

/* What the caller's struct has room for, behind its struct_size.  0 or MCP_EINVAL. */
static int give(void *target, const void *own, size_t own_bytes)
{
    uint32_t size;

    memcpy(&size, target, sizeof(size)); /* every struct's first member */
    if (size < sizeof(size))
        return MCP_EINVAL;
    memcpy((uint8_t *)target + sizeof(size), (const uint8_t *)own + sizeof(size),
           (size < own_bytes ? size : own_bytes) - sizeof(size));
    return MCP_OK;
}

/* ---- operations ------------------------------------------------------------------------------ */

struct mcp_graph {
    struct plan_graph *graph;
};

int mcp_graph_open(mcp_graph **out, const mcp_model *model, mcp_error *err)
{
    struct mcp_graph *g;
    int               rc;

    if (out == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_graph_open: out is NULL");
    *out = NULL;
    if (model == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_graph_open: model is NULL");
    g = calloc(1, sizeof(*g));
    if (g == NULL)
        return base_fail(err, MCP_ENOMEM, "graph");
    rc = profile_graph(&g->graph, model, err);
    if (rc < 0)
        free(g);
    else
        *out = g;
    return rc;
}

void mcp_graph_close(mcp_graph *graph)
{
    if (graph == NULL)
        return;
    plan_graph_free(graph->graph);
    free(graph);
}

uint32_t mcp_graph_op_count(const mcp_graph *graph)
{
    return graph == NULL ? 0 : plan_graph_ops(graph->graph);
}

uint32_t mcp_graph_group_count(const mcp_graph *graph)
{
    return graph == NULL ? 0 : plan_graph_groups(graph->graph);
}

_Static_assert((int)MCP_OP_SOURCES_MAX == (int)PLAN_OP_SOURCES_MAX, "sources are copied");

int mcp_graph_get_op(const mcp_graph *graph, uint32_t index, uint32_t tokens, uint32_t context,
                     mcp_op *op)
{
    struct plan_op_info info;
    struct plan_work    work;
    mcp_op              own = { 0 };

    if (graph == NULL || op == NULL || index >= plan_graph_ops(graph->graph) || tokens == 0 ||
        tokens > MODEL_CTX_MAX || context > MODEL_CTX_MAX)
        return MCP_EINVAL;
    info = plan_graph_op(graph->graph, index);
    work = plan_graph_op_work(graph->graph, index, tokens, engine_kv_pad(context + tokens));
    own.name = info.name;
    own.kind = info.kind;
    own.layer = info.layer == PLAN_OP_EMBED  ? MCP_LAYER_EMBED
                : info.layer == PLAN_OP_HEAD ? MCP_LAYER_HEAD
                                             : info.layer;
    own.source_count = info.source_count;
    memcpy(own.sources, info.sources, info.source_count * sizeof(*info.sources));
    own.group = info.group;
    own.cut_width = info.cut_width;
    own.flops = work.flops;
    own.weight_bytes = work.weight_bytes;
    own.activation_bytes = work.activation_bytes;
    return give(op, &own, sizeof(own));
}

double mcp_graph_cut_width(const mcp_graph *graph, uint32_t layer)
{
    return graph == NULL || layer > plan_graph_layers(graph->graph)
               ? 0.0
               : plan_graph_cut_width(graph->graph, layer);
}

/* ---- profiles -------------------------------------------------------------------------------- */

static int check_when(mcp_profile_when when, mcp_error *err)
{
    if (when >= MCP_PROFILE_KEPT && when <= MCP_PROFILE_AGAIN)
        return MCP_OK;
    return base_fail(err, MCP_EINVAL, "when %d is not one of mcp_profile_when", (int)when);
}

static int take_engine(mcp_engine_opts *own, const mcp_engine_opts *opts, mcp_error *err)
{
    int rc = api_take_opts(own, sizeof(*own), opts, "mcp_engine_opts", err);

    if (own->device == NULL)
        own->device = "auto";
    return rc;
}

/* A handle and the model's graph, which every way to a profile needs. */
static int begin_profile(mcp_profile **profile, struct plan_graph **graph, mcp_profile **out,
                         const mcp_model *model, const char *what, mcp_error *err)
{
    int rc;

    *profile = NULL;
    *graph = NULL;
    if (out == NULL)
        return base_fail(err, MCP_EINVAL, "%s: out is NULL", what);
    *out = NULL;
    if (model == NULL)
        return base_fail(err, MCP_EINVAL, "%s: model is NULL", what);
    rc = profile_graph(graph, model, err);
    if (rc < 0)
        return rc;
    *profile = calloc(1, sizeof(**profile));
    return *profile != NULL ? MCP_OK : base_fail(err, MCP_ENOMEM, "profile");
}

static int end_profile(mcp_profile *profile, struct plan_graph *graph, mcp_profile **out, int rc)
{
    plan_graph_free(graph);
    if (rc == MCP_OK)
        *out = profile;
    else
        free(profile);
    return rc;
}

int mcp_profile_here(mcp_profile **out, const mcp_model *model, const mcp_engine_opts *opts,
                     mcp_profile_when when, mcp_progress_fn fn, void *ctx, mcp_error *err)
{
    mcp_engine_opts    own = MCP_ENGINE_OPTS_INIT;
    mcp_profile       *profile;
    struct plan_graph *graph;
    int                rc = begin_profile(&profile, &graph, out, model, "mcp_profile_here", err);

    if (rc == MCP_OK)
        rc = check_when(when, err);
    if (rc == MCP_OK)
        rc = take_engine(&own, opts, err);
    if (rc == MCP_OK)
        rc = profile_here(profile, model, graph, &own, (enum profile_want)when, fn, ctx, err);
    return end_profile(profile, graph, out, rc);
}

_Static_assert((int)MCP_PROFILE_KEPT == (int)PROFILE_FIND &&
                   (int)MCP_PROFILE_ONCE == (int)PROFILE_FIND_OR_MEASURE &&
                   (int)MCP_PROFILE_AGAIN == (int)PROFILE_MEASURE,
               "passed on as numbers");

int mcp_profile_worker(mcp_profile **out, const mcp_model *model, mcp_remote *remote,
                       uint32_t index, mcp_profile_when when, mcp_progress_fn fn, void *ctx,
                       mcp_error *err)
{
    mcp_profile       *profile;
    struct plan_graph *graph;
    int                rc = begin_profile(&profile, &graph, out, model, "mcp_profile_worker", err);

    if (rc == MCP_OK && remote == NULL)
        rc = base_fail(err, MCP_EINVAL, "mcp_profile_worker: remote is NULL");
    if (rc == MCP_OK)
        rc = check_when(when, err);
    if (rc == MCP_OK)
        rc = profile_worker(profile, model, graph, remote, index, (enum profile_want)when, fn, ctx,
                            err);
    return end_profile(profile, graph, out, rc);
}

int mcp_profile_read(mcp_profile **out, const char *name, const mcp_model *model, mcp_error *err)
{
    mcp_profile       *profile;
    struct plan_graph *graph;
    int                rc = begin_profile(&profile, &graph, out, model, "mcp_profile_read", err);

    if (rc == MCP_OK && (name == NULL || name[0] == '\0'))
        rc = base_fail(err, MCP_EINVAL, "mcp_profile_read: no name");
    if (rc == MCP_OK)
        rc = profile_find(profile, name, model, graph, err);
    return end_profile(profile, graph, out, rc);
}

int mcp_profile_write(const mcp_profile *profile, const char *path, mcp_error *err)
{
    if (profile == NULL || path == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_profile_write: profile or path is NULL");
    if (profile->p.kind != PLAN_MEASURED)
        return base_fail(err, MCP_ENOTSUP, "%s was not measured: copy its data sheet instead",
                         profile->p.device);
    return profile_write(profile, path, err);
}

void mcp_profile_close(mcp_profile *profile)
{
    free(profile);
}

_Static_assert((int)MCP_PROFILE_TOKENS_MAX == (int)PLAN_TOKENS_MAX &&
                   (int)MCP_PROFILE_CONTEXTS_MAX == (int)PLAN_CONTEXTS_MAX,
               "grids are copied");

int mcp_profile_get_info(const mcp_profile *profile, mcp_profile_info *info)
{
    const struct plan_profile *p;
    mcp_profile_info           own = { 0 };

    if (profile == NULL || info == NULL)
        return MCP_EINVAL;
    p = &profile->p;
    own.measured = p->kind == PLAN_MEASURED;
    own.device = p->device;
    own.model = p->model;
    own.quantisation = p->quantisation;
    own.source = profile->source;
    own.path = profile->path;
    own.memory_bytes = p->memory_bytes;
    own.threads = profile->threads;
    own.layers = p->layers;
    own.token_count = p->token_count;
    own.context_count = p->context_count;
    memcpy(own.tokens, p->tokens, sizeof(own.tokens));
    memcpy(own.contexts, p->contexts, sizeof(own.contexts));
    memcpy(own.layer_ms, p->layer_ms, sizeof(own.layer_ms));
    memcpy(own.head_ms, p->head_ms, sizeof(own.head_ms));
    own.call_ms = p->call_ms;
    return give(info, &own, sizeof(own));
}

/* ---- plans ----------------------------------------------------------------------------------- */

const char *mcp_mode_name(mcp_mode mode)
{
    return (unsigned)mode < MCP_MODES ? plan_mode_name((enum plan_mode)mode) : "unknown";
}

static int check_plan(const mcp_plan_opts *o, mcp_error *err)
{
    if (o->model == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_plan_open: model is NULL");
    if (o->supposed == NULL && o->supposed_count > 0)
        return base_fail(err, MCP_EINVAL, "mcp_plan_open: %u workers without a list",
                         o->supposed_count);
    for (uint32_t i = 0; i < o->supposed_count; i++)
        if (o->supposed[i].profile == NULL)
            return base_fail(err, MCP_EINVAL, "mcp_plan_open: supposed worker %u has no profile",
                             i);
    if (o->privacy < MCP_PRIVACY_SPLIT || o->privacy > MCP_PRIVACY_OPEN ||
        o->optimize < MCP_OPTIMIZE_LATENCY || o->optimize > MCP_OPTIMIZE_THROUGHPUT ||
        o->spec < MCP_SPEC_AUTO || o->spec > MCP_SPEC_DRAFT)
        return base_fail(err, MCP_EINVAL,
                         "privacy %d, optimize %d or spec %d is none of their enums",
                         (int)o->privacy, (int)o->optimize, (int)o->spec);
    if (o->spec_depth > MCP_SPEC_DEPTH_MAX)
        return base_fail(err, MCP_ERANGE, "%u guesses in a window, at most %d", o->spec_depth,
                         (int)MCP_SPEC_DEPTH_MAX);
    if (o->codec != NULL && strcmp(o->codec, "auto") != 0 && wire_codec_by_name(o->codec) == NULL)
        return base_fail(err, MCP_EINVAL, "codec '%.32s' is not known", o->codec);
    return check_when(o->when, err);
}

int mcp_plan_open(mcp_plan **out, const mcp_plan_opts *opts, mcp_error *err)
{
    mcp_plan_opts   own = MCP_PLAN_OPTS_INIT;
    mcp_engine_opts engine = MCP_ENGINE_OPTS_INIT;
    int             rc;

    if (out == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_plan_open: out is NULL");
    *out = NULL;
    rc = api_take_opts(&own, sizeof(own), opts, "mcp_plan_opts", err);
    if (rc == MCP_OK)
        rc = check_plan(&own, err);
    if (rc == MCP_OK)
        rc = take_engine(&engine, own.engine, err);
    if (rc < 0)
        return rc;
    own.engine = &engine;
    return agent_plan_open(out, &own, err);
}

void mcp_plan_close(mcp_plan *plan)
{
    agent_plan_close(plan);
}

_Static_assert((int)MCP_PLAN_HOPS_MAX == (int)PLAN_HOPS_MAX &&
                   (int)MCP_PLAN_TERMS_MAX >= (int)PLAN_TERMS,
               "copied");

static void tell_cost(mcp_plan_info *info, const struct plan_cost *cost)
{
    info->ttft_ms = cost->ttft_ms;
    info->token_ms = cost->token_ms;
    info->total_ms = cost->total_ms;
    info->bytes_out = cost->bytes_out;
    info->bytes_in = cost->bytes_in;
    info->price = cost->price;
    info->quality_pct = cost->quality_pct;
    info->memory_here_bytes = cost->memory_here_bytes;
    info->memory_there_bytes = cost->memory_there_bytes;
    memcpy(info->term_ms, cost->term_ms, sizeof(cost->term_ms));
}

static void tell_rival(const mcp_plan *plan, enum plan_mode mode, mcp_plan_info *info)
{
    const struct plan_rival *rival = &plan->choice.modes[mode];
    const struct plan       *p = &rival->plan;
    bool hidden = p->mode == PLAN_SPLIT || p->mode == PLAN_PREFILL; /* states leave */

    info->mode = (mcp_mode)mode;
    info->fits = rival->possible;
    info->chosen = plan->fits && plan->choice.plan.mode == mode;
    memcpy(info->why, rival->why, sizeof(rival->why));
    info->codec = "";
    tell_cost(info, &rival->cost);
    if (!rival->possible)
        return;
    plan_describe(info->text, sizeof(info->text), &plan->facts, p);
    info->hop_count = p->hop_count;
    for (uint32_t i = 0; i < p->hop_count; i++) {
        info->hops[i].worker = plan->indices[p->hops[i].worker];
        info->hops[i].name = plan->workers[p->hops[i].worker].name;
        info->hops[i].first = p->hops[i].first;
        info->hops[i].last = p->hops[i].last;
    }
    if (hidden)
        info->codec = plan->codecs[p->codec].name;
    info->chunk_tokens = p->chunk_tokens;
    info->spec_depth = p->depth;
    info->spec_windows = p->windows;
}

_Static_assert((int)MCP_ERROR_TEXT_BYTES >= (int)PLAN_WHY_BYTES, "sentences are copied");

int mcp_plan_get_mode(const mcp_plan *plan, mcp_mode mode, mcp_plan_info *info)
{
    mcp_plan_info own = { 0 };

    if (plan == NULL || info == NULL)
        return MCP_EINVAL;
    if ((unsigned)mode >= MCP_MODES)
        return MCP_ERANGE;
    tell_rival(plan, (enum plan_mode)mode, &own);
    return give(info, &own, sizeof(own));
}

int mcp_plan_get_info(const mcp_plan *plan, mcp_plan_info *info)
{
    mcp_plan_info own = { 0 };

    if (plan == NULL || info == NULL)
        return MCP_EINVAL;
    if (plan->fits) {
        tell_rival(plan, plan->choice.plan.mode, &own);
    } else {
        own.codec = "";
        memcpy(own.why, plan->unfit.text, sizeof(own.why));
    }
    return give(info, &own, sizeof(own));
}

const char *mcp_plan_term_name(uint32_t term)
{
    return term < PLAN_TERMS ? plan_term_name((enum plan_term)term) : NULL;
}

const char *mcp_plan_note(const mcp_plan *plan, uint32_t index)
{
    return plan != NULL && index < plan->note_count ? plan->notes[index] : NULL;
}
