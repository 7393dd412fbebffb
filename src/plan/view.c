/* plan/view.c - see view.h.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/view.h"

#include <math.h>
#include <string.h>

/* DESIGN section 7: the rest of the card is for the screen, other programs and ggml's scratch. */
static const double memory_share = 0.70;

/* ---- sums --------------------------------------------------------------------------------- */

static bool has_work(const struct plan_model *model)
{
    for (uint32_t i = 0; i < model->layers; i++)
        if (model->work[i] > 0.0)
            return true;
    return false;
}

void plan_view_init(struct plan_view *v, const struct plan_facts *facts,
                    const struct plan_request *request)
{
    const struct plan_model *m = facts->model;
    uint64_t                 all = (uint64_t)request->prompt_tokens + request->gen_tokens;
    bool                     uneven = has_work(m);

    v->facts = facts;
    v->request = request;
    v->layers = m->layers;
    v->ctx_tokens = request->ctx_tokens > all ? request->ctx_tokens : (uint32_t)all;
    v->decode_context = request->prompt_tokens + request->gen_tokens / 2;
    v->work[0] = 0.0;
    for (uint32_t i = 0; i < m->layers; i++)
        v->work[i + 1] = v->work[i] + (uneven ? m->work[i] : 1.0);
    for (uint32_t h = 0; h < facts->here_count; h++) {
        v->weight_bytes[h][0] = 0.0;
        for (uint32_t i = 0; i < m->layers; i++)
            v->weight_bytes[h][i + 1] = v->weight_bytes[h][i] +
                                        (double)facts->here[h].weights->layer_bytes[i];
    }
}

double plan_view_work(const struct plan_view *v, uint32_t first, uint32_t last)
{
    return v->work[last] - v->work[first];
}

double plan_view_work_there(const struct plan_view *v, const struct plan *plan)
{
    double work = 0.0;

    for (uint32_t i = 0; i < plan->hop_count; i++)
        work += plan_view_work(v, plan->hops[i].first, plan->hops[i].last);
    return work;
}

double plan_view_work_here(const struct plan_view *v, const struct plan *plan)
{
    return v->work[v->layers] - plan_view_work_there(v, plan);
}

bool plan_speculates(const struct plan *plan)
{
    return plan->depth > 0 || plan->windows > 1;
}

bool plan_same_places(const struct plan *a, const struct plan *b)
{
    if (a->mode != b->mode || a->hop_count != b->hop_count ||
        (a->mode != PLAN_CLOUD && a->here != b->here))
        return false;
    for (uint32_t i = 0; i < a->hop_count; i++)
        if (a->hops[i].worker != b->hops[i].worker || a->hops[i].first != b->hops[i].first ||
            a->hops[i].last != b->hops[i].last)
            return false;
    return true;
}

uint32_t plan_view_fresh(const struct plan_view *v, const struct plan *plan)
{
    const struct plan_request *r = v->request;

    if (r->current != NULL && !plan_same_places(plan, r->current))
        return r->prompt_tokens;
    return r->cached_tokens < r->prompt_tokens ? r->prompt_tokens - r->cached_tokens : 1;
}

/* ---- limits ------------------------------------------------------------------------------- */

/* A prefill plan without cuts shows the prompt to the worker, as cloud does. */
static bool shows_tokens(const struct plan_view *v, const struct plan *plan)
{
    return plan->mode == PLAN_CLOUD ||
           (plan->mode == PLAN_PREFILL && plan->hop_count == 1 && plan->hops[0].first == 0 &&
            plan->hops[0].last == v->layers);
}

/* Ends with all layers here, or never leaves. */
static bool needs_all_here(const struct plan *plan)
{
    return plan->mode == PLAN_LOCAL || plan->mode == PLAN_PREFILL;
}

static bool broken(struct plan_cost *cost, enum plan_limit limit)
{
    cost->limit = limit;
    return false;
}

static bool exceeded(struct plan_cost *cost, enum plan_limit limit, double need, double have)
{
    cost->limit_need = need;
    cost->limit_have = have;
    return broken(cost, limit);
}

typedef bool limit_fn(struct plan_cost *cost, const struct plan_view *v, const struct plan *plan);

/* The same for one remote stage. */
typedef bool hop_limit_fn(struct plan_cost *cost, const struct plan_view *v,
                          const struct plan_hop *hop, const struct plan *plan);

static bool asked(struct plan_cost *cost, const struct plan_view *v, const struct plan *plan)
{
    uint32_t modes = v->request->modes;

    return modes == 0 || (modes >> plan->mode & 1) != 0 ? true : broken(cost, PLAN_NOT_ASKED);
}

static bool is_private(struct plan_cost *cost, const struct plan_view *v, const struct plan *plan)
{
    const struct plan_request *r = v->request;
    uint32_t                   first_min = r->layers_first_min > 0 ? r->layers_first_min : 1;
    uint32_t                   last_min = r->layers_last_min > 0 ? r->layers_last_min : 1;
    uint32_t                   first, last;

    if (plan->hop_count == 0)
        return true;
    if (r->privacy == PLAN_STRICT || (shows_tokens(v, plan) && r->privacy != PLAN_OPEN))
        return broken(cost, PLAN_NOT_PRIVATE);
    if (shows_tokens(v, plan))
        return true;
    first = plan->hops[0].first;
    last = v->layers - plan->hops[plan->hop_count - 1].last;
    return (first >= first_min && last >= last_min) ||
           exceeded(cost, PLAN_NOT_PRIVATE, (double)first_min + last_min, (double)first + last);
}

static bool has_place(struct plan_cost *cost, const struct plan_view *v, const struct plan *plan)
{
    if (plan->mode != PLAN_CLOUD && v->facts->here_count == 0)
        return broken(cost, PLAN_NO_PLACE);
    for (uint32_t i = 0; i < plan->hop_count; i++) {
        uint32_t worker = plan->hops[i].worker;

        cost->limit_worker = worker;
        if (!v->facts->workers[worker].up || (v->request->workers_excluded >> worker & 1) != 0)
            return broken(cost, PLAN_NO_PLACE);
    }
    return true;
}

static bool has_profile(struct plan_cost *cost, const struct plan_view *v,
                        const struct plan_hop *hop, const struct plan *plan)
{
    (void)plan;
    return v->facts->workers[hop->worker].profile != NULL || broken(cost, PLAN_NO_PROFILE);
}

static bool is_able(struct plan_cost *cost, const struct plan_view *v, const struct plan_hop *hop,
                    const struct plan *plan)
{
    const struct plan_worker *w = &v->facts->workers[hop->worker];

    if ((shows_tokens(v, plan) && !w->generates) || (plan->mode == PLAN_PREFILL && !w->exports_kv))
        return broken(cost, PLAN_NOT_ABLE);
    return true;
}

static bool holds(struct plan_cost *cost, const struct plan_view *v, const struct plan_hop *hop,
                  const struct plan *plan)
{
    const struct plan_worker *w = &v->facts->workers[hop->worker];
    uint32_t                  layers = hop->last - hop->first;

    (void)plan;
    if (hop->first < w->first || hop->last > w->last)
        return broken(cost, PLAN_NOT_HELD);
    return w->layers_max == 0 || layers <= w->layers_max ||
           exceeded(cost, PLAN_NOT_HELD, layers, w->layers_max);
}

/* Cloud uses no weights of ours, but must be the model that we have, if we have it. */
static bool right_weights(struct plan_cost *cost, const struct plan_view *v,
                          const struct plan_hop *hop, const struct plan *plan)
{
    const struct plan_facts *f = v->facts;
    uint64_t                 id = f->workers[hop->worker].weights_id;
    bool                     same = f->here_count == 0;

    for (uint32_t h = 0; h < f->here_count; h++)
        if ((plan->mode == PLAN_CLOUD || h == plan->here) && f->here[h].weights_id == id)
            same = true;
    return same || v->request->mixed_weights || broken(cost, PLAN_OTHER_WEIGHTS);
}

static bool has_session(struct plan_cost *cost, const struct plan_view *v,
                        const struct plan_hop *hop, const struct plan *plan)
{
    (void)plan;
    return v->facts->workers[hop->worker].sessions_free > 0 || broken(cost, PLAN_NO_SESSION);
}

static bool has_context(struct plan_cost *cost, const struct plan_view *v,
                        const struct plan_hop *hop, const struct plan *plan)
{
    uint32_t have = v->facts->workers[hop->worker].ctx_tokens;

    (void)plan;
    return have == 0 || v->ctx_tokens <= have ||
           exceeded(cost, PLAN_NO_CONTEXT, v->ctx_tokens, have);
}

static double kv_bytes(const struct plan_view *v, uint32_t layers)
{
    return (double)layers * v->ctx_tokens * v->facts->model->kv_layer_bytes;
}

static double limit_here_bytes(const struct plan_view *v, const struct plan_here *here)
{
    if (v->request->memory_limit_bytes > 0)
        return (double)v->request->memory_limit_bytes;
    return memory_share * (double)here->profile->memory_bytes;
}

static bool fits_here(struct plan_cost *cost, const struct plan_view *v, const struct plan *plan)
{
    const double           *sums = v->weight_bytes[plan->here];
    const struct plan_here *here;
    double                  bytes, limit;
    uint32_t                layers = v->layers;

    if (plan->mode == PLAN_CLOUD)
        return true;
    here = &v->facts->here[plan->here];
    bytes = sums[v->layers] + (double)here->weights->embed_bytes +
            (double)here->weights->head_bytes + (double)here->compute_bytes;
    if (!needs_all_here(plan)) {
        for (uint32_t i = 0; i < plan->hop_count; i++) {
            bytes -= sums[plan->hops[i].last] - sums[plan->hops[i].first];
            layers -= plan->hops[i].last - plan->hops[i].first;
        }
    }
    bytes += kv_bytes(v, layers);
    cost->memory_here_bytes = (uint64_t)fmin(bytes, 1e18);
    limit = limit_here_bytes(v, here);
    return limit <= 0.0 || bytes <= limit || exceeded(cost, PLAN_MEMORY_HERE, bytes, limit);
}

static bool fits_there(struct plan_cost *cost, const struct plan_view *v,
                       const struct plan_hop *hop, const struct plan *plan)
{
    const struct plan_worker  *w = &v->facts->workers[hop->worker];
    const struct plan_weights *weights = w->weights;
    double                     bytes = kv_bytes(v, hop->last - hop->first);

    for (uint32_t i = hop->first; weights != NULL && i < hop->last; i++)
        bytes += (double)weights->layer_bytes[i];
    if (weights != NULL && shows_tokens(v, plan))
        bytes += (double)weights->embed_bytes + (double)weights->head_bytes;
    cost->memory_there_bytes += (uint64_t)fmin(bytes, 1e18);
    return w->memory_bytes == 0 || bytes <= (double)w->memory_bytes ||
           exceeded(cost, PLAN_MEMORY_THERE, bytes, (double)w->memory_bytes);
}

bool plan_view_cuts(const struct plan_view *v, const struct plan *plan)
{
    return plan->hop_count > 0 && !shows_tokens(v, plan);
}

static bool chosen(struct plan_cost *cost, const struct plan_view *v, const struct plan *plan)
{
    const struct plan_request *r = v->request;
    bool                       cut = plan_view_cuts(v, plan);
    bool                       right = true;

    if (cut && r->cut_last > 0)
        right = plan->hops[0].first == r->cut_first &&
                plan->hops[plan->hop_count - 1].last == r->cut_last;
    if (cut && r->codec != NULL)
        right = right && strcmp(v->facts->codecs[plan->codec].name, r->codec) == 0;
    if (r->chunk_tokens > 0)
        right = right && plan->chunk_tokens == r->chunk_tokens;
    if (r->depth >= 0)
        right = right && plan->depth == (uint32_t)r->depth;
    if (cut && r->windows > 0)
        right = right && plan->windows == r->windows;
    if (plan_speculates(plan) && r->drafters != 0)
        right = right && (r->drafters >> v->facts->drafts[plan->draft].drafter & 1) != 0;
    return right || broken(cost, PLAN_NOT_CHOSEN);
}

/* Damage adds up; what looks like an improvement is noise. */
static bool good_enough(struct plan_cost *cost, const struct plan_view *v, const struct plan *plan)
{
    const struct plan_facts *f = v->facts;
    double                   all = v->work[v->layers], pct = 0.0;

    if (plan->mode != PLAN_CLOUD)
        pct += plan_view_work_here(v, plan) / all * fmax(0.0, f->here[plan->here].quality_pct);
    for (uint32_t i = 0; i < plan->hop_count; i++)
        pct += plan_view_work(v, plan->hops[i].first, plan->hops[i].last) / all *
               fmax(0.0, f->workers[plan->hops[i].worker].quality_pct);
    if (plan_view_cuts(v, plan))
        pct += plan->hop_count * fmax(0.0, f->codecs[plan->codec].quality_pct);
    cost->quality_pct = pct;
    return pct <= v->request->quality_pct_max ||
           exceeded(cost, PLAN_QUALITY, pct, v->request->quality_pct_max);
}

bool plan_view_even(const struct plan_view *v, const struct plan *plan)
{
    bool even = plan->mode == PLAN_CLOUD || v->facts->here[plan->here].even_windows;

    for (uint32_t i = 0; i < plan->hop_count; i++)
        even = even && v->facts->workers[plan->hops[i].worker].even_windows;
    return even;
}

static bool is_even(struct plan_cost *cost, const struct plan_view *v, const struct plan *plan)
{
    return !v->request->even || !plan_speculates(plan) || plan_view_even(v, plan) ||
           broken(cost, PLAN_NOT_EVEN);
}

/* In the order of PLAN_LIMITS. */
static const struct {
    limit_fn     *plan; /* one of the two */
    hop_limit_fn *hop;
} limits[] = {
    { asked, NULL },       { is_private, NULL }, { has_place, NULL },     { NULL, has_profile },
    { NULL, is_able },     { NULL, holds },      { NULL, right_weights }, { NULL, has_session },
    { NULL, has_context }, { fits_here, NULL },  { NULL, fits_there },    { chosen, NULL },
    { good_enough, NULL }, { is_even, NULL },
};

void plan_view_limit(struct plan_cost *cost, const struct plan_view *v, const struct plan *plan)
{
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        if (limits[i].plan != NULL && !limits[i].plan(cost, v, plan))
            return;
        for (uint32_t h = 0; limits[i].hop != NULL && h < plan->hop_count; h++) {
            cost->limit_worker = plan->hops[h].worker;
            if (!limits[i].hop(cost, v, &plan->hops[h], plan))
                return;
        }
    }
    cost->limit = PLAN_FITS;
}
