/* agent/plan.c - see plan.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/plan.h"

#include "base/fail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const enum plan_privacy privacies[] = {
    [MCP_PRIVACY_SPLIT] = PLAN_PRIVATE,
    [MCP_PRIVACY_STRICT] = PLAN_STRICT,
    [MCP_PRIVACY_OPEN] = PLAN_OPEN,
};

static const enum plan_objective objectives[] = {
    [MCP_OPTIMIZE_LATENCY] = PLAN_LATENCY,
    [MCP_OPTIMIZE_COST] = PLAN_COST,
    [MCP_OPTIMIZE_THROUGHPUT] = PLAN_THROUGHPUT,
};

_Static_assert((int)MCP_MODE_LOCAL == (int)PLAN_LOCAL && (int)MCP_MODE_CLOUD == (int)PLAN_CLOUD &&
                   (int)MCP_MODE_SPLIT == (int)PLAN_SPLIT &&
                   (int)MCP_MODE_PREFILL == (int)PLAN_PREFILL && (int)MCP_MODES == (int)PLAN_MODES,
               "modes are passed on as numbers");

static const uint32_t drafters[] = {
    [MCP_SPEC_AUTO] = 0, /* any */
    [MCP_SPEC_NONE] = 1u << PLAN_NO_DRAFTS,
    [MCP_SPEC_NGRAM] = 1u << PLAN_NO_DRAFTS | 1u << PLAN_NGRAM,
    [MCP_SPEC_DRAFT] = 1u << PLAN_NO_DRAFTS | 1u << PLAN_DRAFT_MODEL,
};

static void take_request(struct mcp_plan *plan, const mcp_plan_opts *o)
{
    struct plan_request *r = &plan->request;

    *r = (struct plan_request)PLAN_REQUEST_INIT;
    r->prompt_tokens = o->prompt_tokens;
    r->gen_tokens = o->gen_tokens;
    r->ctx_tokens = o->ctx_tokens;
    r->privacy = privacies[o->privacy];
    r->objective = objectives[o->optimize];
    r->memory_limit_bytes = o->vram_bytes;
    r->quality_pct_max = o->quality_pct_max;
    r->mixed_weights = o->mixed_weights != 0;
    r->even = o->even_windows != 0;
    r->modes = o->modes;
    r->cut_first = o->cut_first;
    r->cut_last = o->cut_last;
    if (o->codec != NULL && strcmp(o->codec, "auto") != 0) {
        snprintf(plan->codec, sizeof(plan->codec), "%s", o->codec);
        r->codec = plan->codec;
    }
    r->chunk_tokens = o->chunk_tokens;
    r->drafters = drafters[o->spec];
    r->depth = o->spec == MCP_SPEC_NONE ? 0 : o->spec_depth > 0 ? (int32_t)o->spec_depth : -1;
    r->windows = o->spec_windows;
}

int agent_plan_choose(struct mcp_plan *plan, mcp_error *err)
{
    mcp_error own = { 0 };
    int       rc = plan_check(&plan->facts, &plan->request, err);

    if (rc < 0)
        return rc;
    rc = plan_choose(&plan->choice, &plan->facts, &plan->request, &own);
    plan->fits = rc == MCP_OK;
    plan->unfit = own;
    return MCP_OK;
}

int agent_plan_open(struct mcp_plan **out, const mcp_plan_opts *opts, mcp_error *err)
{
    struct mcp_plan *plan = calloc(1, sizeof(*plan));
    int              rc;

    *out = NULL;
    if (plan == NULL)
        return base_fail(err, MCP_ENOMEM, "plan");
    take_request(plan, opts);
    rc = agent_plan_collect(plan, opts, err);
    if (rc == MCP_OK)
        rc = agent_plan_choose(plan, err);
    if (rc < 0) {
        agent_plan_close(plan);
        return rc;
    }
    *out = plan;
    return MCP_OK;
}

void agent_plan_close(struct mcp_plan *plan)
{
    if (plan == NULL)
        return;
    free(plan->profiles);
    free(plan->workers);
    free(plan->indices);
    free(plan);
}

static void *copy_of(const void *items, size_t count, size_t size)
{
    void *copy = calloc(count + 1, size);

    if (copy != NULL && count > 0)
        memcpy(copy, items, count * size);
    return copy;
}

int agent_plan_copy(struct mcp_plan **out, const struct mcp_plan *plan, mcp_error *err)
{
    struct mcp_plan *c = copy_of(plan, 1, sizeof(*plan));
    size_t           count = plan->worker_count;

    *out = NULL;
    if (c == NULL)
        return base_fail(err, MCP_ENOMEM, "copy of a plan");
    c->profiles = copy_of(plan->profiles, count, sizeof(*plan->profiles));
    c->workers = copy_of(plan->workers, count, sizeof(*plan->workers));
    c->indices = copy_of(plan->indices, count, sizeof(*plan->indices));
    if (c->profiles == NULL || c->workers == NULL || c->indices == NULL) {
        agent_plan_close(c);
        return base_fail(err, MCP_ENOMEM, "copy of the facts about %zu workers", count);
    }
    for (size_t i = 0; i < count; i++) {
        if (c->workers[i].profile != NULL)
            c->workers[i].profile = &c->profiles[i].p;
        if (c->workers[i].weights != NULL)
            c->workers[i].weights = &c->weights;
    }
    c->engine.device = c->device;
    c->here.profile = &c->here_profile.p;
    c->here.weights = &c->weights;
    c->facts.model = &c->model;
    c->facts.here = &c->here;
    c->facts.workers = c->workers;
    c->facts.codecs = c->codecs;
    c->facts.drafts = c->drafts;
    if (plan->request.codec != NULL)
        c->request.codec = c->codec;
    *out = c;
    return MCP_OK;
}
