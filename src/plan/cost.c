/* plan/cost.c - see cost.h and plan.h.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/cost.h"

#include "plan/adjust.h"

#include "base/fail.h"

#include <math.h>
#include <string.h>

const double plan_hour_ms = 3600.0 * 1000.0;

/* q8_0 for f16: 34 bytes for 32 elements instead of 64. */
static const double kv_q8_share = 34.0 / 64.0;

/* ---- handing over ------------------------------------------------------------------------- */

/* ms of downlink for the KV of one position. */
static double kv_down_ms(const struct plan_view *v, const struct plan *plan,
                         const struct plan_route *route)
{
    double layers = 0.0;

    for (uint32_t i = 0; i < plan->hop_count; i++)
        layers += plan->hops[i].last - plan->hops[i].first;
    return layers * v->facts->model->kv_layer_bytes * (plan->kv_q8 ? kv_q8_share : 1.0) *
           route->down_bytes_ms / plan->hop_count;
}

/* The KV of each chunk is sent behind it; what the worker decodes meanwhile makes more.  A link
 * that does not keep up with that never hands over. */
static void hand_over(struct plan_totals *t, const struct plan_filling *f,
                      const struct plan_rate *rate, double kv_ms, double fresh, double half_rtt_ms)
{
    double more = t->tokens_there;
    double left_ms = f->first_ms + fresh * kv_ms + f->busy_ms[PLAN_RES_DOWN] - f->ms;
    double growth = (kv_ms + rate->busy_ms[PLAN_RES_DOWN]) / rate->ms;
    double wait_ms = fmax(0.0, left_ms) / (1.0 - growth) + half_rtt_ms;

    if (growth >= 1.0 || wait_ms > more * rate->ms)
        return;
    t->tokens_there = wait_ms / rate->ms;
    t->tokens_home = more - t->tokens_there;
    t->handover_ms = f->ms + wait_ms;
}

/* ---- totals ------------------------------------------------------------------------------- */

static void add_up_busy(struct plan_totals *t, const struct plan_filling *f,
                        const struct plan_rate *rate, const struct plan_rate *home)
{
    for (int r = 0; r < PLAN_RESOURCES; r++) {
        t->busy_ms[r] = f->busy_ms[r] + t->tokens_there * rate->busy_ms[r];
        if (home != NULL)
            t->busy_ms[r] += t->tokens_home * home->busy_ms[r];
    }
}

void plan_totals_init(struct plan_totals *t, const struct plan_view *v, const struct plan *plan,
                      const struct plan_route *route, const struct plan_filling *f,
                      const struct plan_rate *rate, const struct plan_rate *home)
{
    const struct plan_adjust *adjust = v->facts->adjust;
    double more = v->request->gen_tokens > 1 ? v->request->gen_tokens - 1.0 : 0.0;
    double fresh = plan_view_fresh(v, plan), kv_ms = 0.0;

    memset(t, 0, sizeof(*t));
    t->tokens_there = more;
    if (home != NULL) {
        kv_ms = kv_down_ms(v, plan, route);
        hand_over(t, f, rate, kv_ms, fresh, 0.5 * route->rtt_ms);
    }
    add_up_busy(t, f, rate, home);
    t->busy_ms[PLAN_RES_DOWN] += kv_ms * (fresh + t->tokens_there);
    t->ttft_ms = f->ms * plan_adjust_ttft(adjust, plan);
    t->token_ms = rate->ms;
    if (t->tokens_home > 0.0)
        t->token_ms = (t->tokens_there * rate->ms + t->tokens_home * home->ms) / more;
    t->token_ms *= plan_adjust_token(adjust, plan);
    t->total_ms = t->ttft_ms + more * t->token_ms;
    for (uint32_t i = 0; i < route->hop_count; i++)
        t->price += t->busy_ms[i == 0 ? PLAN_RES_WORKER : PLAN_RES_WORKER_2] / plan_hour_ms *
                    route->workers[i]->price_hour;
}

/* ---- one plan in full --------------------------------------------------------------------- */

/* The rate of a plan's windows along a route, with the passes it comes from. */
struct decoding {
    struct plan_drafting drafting;
    struct plan_pass     window, plain;
    struct plan_rate     rate;
};

static void decode_along(struct decoding *d, const struct plan_view *v, const struct plan *plan,
                         const struct plan_route *route, uint32_t windows)
{
    const struct plan_draft *draft = plan_speculates(plan) ? &v->facts->drafts[plan->draft] : NULL;
    struct plan_paces        paces;

    plan_drafting_init(&d->drafting, draft, plan->depth, windows);
    plan_paces_init(&paces, route, d->drafting.positions, v->decode_context);
    plan_pass_init(&d->window, route, &paces, d->drafting.positions, PLAN_PHASE_DECODE);
    plan_paces_init(&paces, route, 1, v->decode_context);
    plan_pass_init(&d->plain, route, &paces, 1, PLAN_PHASE_DECODE);
    plan_rate_init(&d->rate, route, &d->drafting, &d->window, &d->plain);
}

static void add_terms(struct plan_cost *cost, const struct plan_filling *f,
                      const struct decoding *d, double tokens, double ttft_factor,
                      double token_factor)
{
    double token[PLAN_TERMS];

    plan_rate_terms(token, &d->rate, &d->drafting, &d->window, &d->plain);
    for (int t = 0; t < PLAN_TERMS; t++) {
        cost->term_ms[t] += tokens * token_factor * token[t];
        if (f != NULL)
            cost->term_ms[t] += ttft_factor * f->term_ms[t];
    }
}

static void add_bytes(struct plan_cost *cost, const struct plan_view *v, const struct plan *plan,
                      const struct plan_route *route, const struct plan_filling *f,
                      const struct decoding *d, const struct plan_totals *t)
{
    double windows = route->hop_count * d->rate.windows * t->tokens_there;
    double bytes = d->drafting.positions * route->token_bytes + route->window_bytes;

    cost->bytes_out = f->bytes_out;
    cost->bytes_in = f->bytes_in;
    if (!route->cloud) {
        cost->bytes_out += windows * bytes;
        cost->bytes_in += windows * bytes;
    } else {
        cost->bytes_in += d->rate.busy_ms[PLAN_RES_DOWN] * t->tokens_there / route->down_bytes_ms;
    }
    if (plan->mode == PLAN_PREFILL)
        cost->bytes_in += kv_down_ms(v, plan, route) * plan->hop_count / route->down_bytes_ms *
                          (plan_view_fresh(v, plan) + t->tokens_there);
}

static void predict(struct plan_cost *cost, const struct plan_view *v, const struct plan *plan)
{
    bool                      hands_over = plan->mode == PLAN_PREFILL;
    double                    ttft_factor = plan_adjust_ttft(v->facts->adjust, plan);
    double                    token_factor = plan_adjust_token(v->facts->adjust, plan);
    uint32_t                  fresh = plan_view_fresh(v, plan);
    struct plan_route         route, home_route;
    struct plan_filling_paces paces;
    struct plan_filling       filling;
    struct decoding           there, home;
    struct plan_totals        t;

    plan_route_init(&route, v, plan,
                    plan_view_cuts(v, plan) ? &v->facts->codecs[plan->codec] : NULL);
    plan_filling_paces_init(&paces, &route, v->request->prompt_tokens - fresh, fresh,
                            plan->chunk_tokens);
    plan_filling_init(&filling, &route, &paces);
    decode_along(&there, v, plan, &route, plan->windows);
    if (hands_over) {
        plan_route_home(&home_route, v, plan->here);
        decode_along(&home, v, plan, &home_route, 1);
    }
    plan_totals_init(&t, v, plan, &route, &filling, &there.rate, hands_over ? &home.rate : NULL);
    cost->ttft_ms = t.ttft_ms;
    cost->token_ms = t.token_ms;
    cost->total_ms = t.total_ms;
    cost->handover_ms = t.handover_ms;
    cost->price = t.price;
    cost->round_ms = there.rate.window_ms * token_factor;
    cost->round_tokens = there.rate.window_tokens;
    memcpy(cost->busy_ms, t.busy_ms, sizeof(cost->busy_ms));
    add_terms(cost, &filling, &there, t.tokens_there, ttft_factor, token_factor);
    if (hands_over)
        add_terms(cost, NULL, &home, t.tokens_home, 0.0, token_factor);
    add_bytes(cost, v, plan, &route, &filling, &there, &t);
}

static bool predictable(const struct plan_view *v, const struct plan *plan)
{
    if (plan->mode != PLAN_CLOUD && v->facts->here_count == 0)
        return false;
    for (uint32_t i = 0; i < plan->hop_count; i++)
        if (v->facts->workers[plan->hops[i].worker].profile == NULL)
            return false;
    return true;
}

void plan_cost_init(struct plan_cost *cost, const struct plan_view *v, const struct plan *plan)
{
    double deadline_ms = v->request->deadline_ms;

    memset(cost, 0, sizeof(*cost));
    plan_view_limit(cost, v, plan);
    if (!predictable(v, plan))
        return;
    predict(cost, v, plan);
    if (cost->limit == PLAN_FITS && deadline_ms > 0.0 && cost->total_ms > deadline_ms) {
        cost->limit = PLAN_LATE;
        cost->limit_need = cost->total_ms;
        cost->limit_have = deadline_ms;
    }
}

/* ---- plan_predict ------------------------------------------------------------------------- */

static int check_hops(const struct plan *p, const struct plan_facts *f, mcp_error *err)
{
    uint32_t layers = f->model->layers;

    for (uint32_t i = 0; i < p->hop_count; i++) {
        const struct plan_hop *hop = &p->hops[i];

        if (hop->worker >= f->worker_count)
            return base_fail(err, MCP_ERANGE, "plan: worker %u of %u", hop->worker,
                             f->worker_count);
        if (hop->first >= hop->last || hop->last > layers ||
            (i > 0 && hop->first != p->hops[i - 1].last))
            return base_fail(err, MCP_ERANGE,
                             "plan: a stage [%u, %u) that does not continue the one before or is "
                             "not in the model's %u layers",
                             hop->first, hop->last, layers);
    }
    return 0;
}

static int check_mode(const struct plan *p, const struct plan_facts *f, mcp_error *err)
{
    uint32_t first, last;
    bool     whole, inside;

    if ((unsigned)p->mode >= PLAN_MODES || p->hop_count > PLAN_HOPS_MAX ||
        (p->hop_count == 0) != (p->mode == PLAN_LOCAL))
        return base_fail(err, MCP_ERANGE, "plan: mode %u with %u remote stages", (unsigned)p->mode,
                         p->hop_count);
    if (p->mode != PLAN_CLOUD && p->here >= f->here_count)
        return base_fail(err, MCP_ERANGE, "plan: weights %u of %u here", p->here, f->here_count);
    if (p->mode == PLAN_LOCAL)
        return 0;
    first = p->hops[0].first;
    last = p->hops[p->hop_count - 1].last;
    whole = p->hop_count == 1 && first == 0 && last == f->model->layers;
    inside = first > 0 && last < f->model->layers;
    if ((p->mode == PLAN_CLOUD && !whole) || (p->mode == PLAN_SPLIT && !inside) ||
        (p->mode == PLAN_PREFILL && !whole && !inside))
        return base_fail(err, MCP_ERANGE, "plan: %s with layers [%u, %u) of %u elsewhere",
                         plan_mode_name(p->mode), first, last, f->model->layers);
    if (inside && p->codec >= f->codec_count)
        return base_fail(err, MCP_ERANGE, "plan: codec %u of %u", p->codec, f->codec_count);
    if (!inside && p->windows > 1)
        return base_fail(err, MCP_ERANGE, "plan: %u windows in flight, but no hidden state leaves",
                         p->windows);
    return 0;
}

static int check_sizes(const struct plan *p, const struct plan_facts *f, mcp_error *err)
{
    if (p->chunk_tokens == 0 || p->chunk_tokens > PLAN_CHUNK_MAX || p->depth > PLAN_DEPTH_MAX ||
        p->windows == 0 || p->windows > PLAN_WINDOWS_MAX)
        return base_fail(err, MCP_ERANGE,
                         "plan: chunks of %u, %u drafts, %u windows; must be 1 to %d, 0 to %d, 1 "
                         "to %d",
                         p->chunk_tokens, p->depth, p->windows, PLAN_CHUNK_MAX, PLAN_DEPTH_MAX,
                         PLAN_WINDOWS_MAX);
    if (plan_speculates(p) && p->draft >= f->draft_count)
        return base_fail(err, MCP_ERANGE, "plan: drafter %u of %u", p->draft, f->draft_count);
    return 0;
}

int plan_predict(struct plan_cost *cost, const struct plan_facts *facts,
                 const struct plan_request *request, const struct plan *plan, mcp_error *err)
{
    struct plan_view view;
    int              rc = plan_check(facts, request, err);

    if (rc == 0)
        rc = check_hops(plan, facts, err);
    if (rc == 0)
        rc = check_mode(plan, facts, err);
    if (rc == 0)
        rc = check_sizes(plan, facts, err);
    if (rc < 0)
        return rc;
    plan_view_init(&view, facts, request);
    plan_cost_init(cost, &view, plan);
    return 0;
}
