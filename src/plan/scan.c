/* plan/scan.c - see scan.h.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/scan.h"

#include "plan/adjust.h"

#include <math.h>

/* All that is computed for one pair of cuts and codec. */
struct parts {
    struct plan_route   route;
    struct plan_filling fillings[PLAN_CHUNKS];
    struct plan_pass    windows[PLAN_DEPTHS];
    struct plan_pass    plain;
    struct plan_route   home;
    struct plan_pass    home_windows[PLAN_DEPTHS];
    struct plan_pass    home_plain;
};

bool plan_key_less(struct plan_key a, struct plan_key b)
{
    return a.first < b.first || (a.first == b.first && a.second < b.second);
}

/* ---- comparing ---------------------------------------------------------------------------- */

static struct plan_key key_of(const struct plan_scan *s, const struct plan_totals *t)
{
    double busiest = 0.0;

    for (int r = 0; r < PLAN_RESOURCES; r++)
        busiest = fmax(busiest, t->busy_ms[r]);
    switch (s->view.request->objective) {
    case PLAN_COST: return (struct plan_key){ t->price, t->total_ms };
    case PLAN_THROUGHPUT: return (struct plan_key){ busiest, t->total_ms };
    case PLAN_LATENCY: break;
    }
    return (struct plan_key){ t->total_ms, t->price };
}

/* The mode's nearest miss: the one that passes most checks, and then exceeds the limit least. */
static void note_miss(struct plan_scan *s, const struct plan *plan, const struct plan_cost *cost)
{
    struct plan_rival *rival = &s->choice->modes[plan->mode];
    double             over = cost->limit_need - cost->limit_have;
    double             known = rival->cost.limit_need - rival->cost.limit_have;

    if (rival->possible || cost->limit < rival->cost.limit ||
        (cost->limit == rival->cost.limit && over >= known))
        return;
    rival->plan = *plan;
    rival->cost = *cost;
}

static void note_late(struct plan_scan *s, const struct plan *plan, double total_ms)
{
    struct plan_cost cost = { .limit = PLAN_LATE,
                              .limit_need = total_ms,
                              .limit_have = s->view.request->deadline_ms };

    note_miss(s, plan, &cost);
}

static void note_hit(struct plan_scan *s, const struct plan *plan, struct plan_key key)
{
    struct plan_rival *rival = &s->choice->modes[plan->mode];

    if (rival->possible && !plan_key_less(key, s->best[plan->mode]))
        return;
    rival->possible = true;
    rival->plan = *plan;
    s->best[plan->mode] = key;
}

/* ---- one pair of cuts --------------------------------------------------------------------- */

static bool ends_here(const struct plan *plan)
{
    return plan->mode == PLAN_PREFILL;
}

static void compute_passes(struct plan_pass *windows, struct plan_pass *plain,
                           const struct plan_scan *s, const struct plan_route *route)
{
    struct plan_paces paces;

    for (uint32_t i = 0; i < s->ways.depth_count; i++) {
        plan_paces_init(&paces, route, s->ways.depths[i] + 1, s->view.decode_context);
        plan_pass_init(&windows[i], route, &paces, s->ways.depths[i] + 1, PLAN_PHASE_DECODE);
    }
    plan_paces_init(&paces, route, 1, s->view.decode_context);
    plan_pass_init(plain, route, &paces, 1, PLAN_PHASE_DECODE);
}

static void compute_parts(struct parts *p, const struct plan_scan *s, const struct plan *plan,
                          const struct plan_codec *codec, uint32_t fresh, uint32_t chunk_count)
{
    struct plan_filling_paces paces;

    plan_route_init(&p->route, &s->view, plan, codec);
    for (uint32_t i = 0; i < chunk_count; i++) {
        plan_filling_paces_init(&paces, &p->route, s->view.request->prompt_tokens - fresh, fresh,
                                s->ways.chunks[i]);
        plan_filling_init(&p->fillings[i], &p->route, &paces);
    }
    compute_passes(p->windows, &p->plain, s, &p->route);
    if (!ends_here(plan))
        return;
    plan_route_home(&p->home, &s->view, plan->here);
    compute_passes(p->home_windows, &p->home_plain, s, &p->home);
}

static struct plan_totals total_of(struct plan_scan *s, const struct parts *p,
                                   const struct plan *plan, uint32_t chunk,
                                   const struct plan_way *way, bool cuts)
{
    uint32_t           depth = way->depth_index;
    struct plan_rate   rate, home;
    struct plan_totals totals;

    plan_rate_init(&rate, &p->route, cuts ? &way->drafting : &way->alone, &p->windows[depth],
                   &p->plain);
    /* Here a round trip costs nothing: one window at a time. */
    if (ends_here(plan))
        plan_rate_init(&home, &p->home, &way->alone, &p->home_windows[depth], &p->home_plain);
    plan_totals_init(&totals, &s->view, plan, &p->route, &p->fillings[chunk], &rate,
                     ends_here(plan) ? &home : NULL);
    s->choice->predicted++;
    return totals;
}

/* Several windows in flight only where hidden states are; drafts only where bits allow. */
static bool way_is_open(const struct plan_way *way, bool cuts, bool even)
{
    bool speculates = way->depth > 0 || (cuts && way->windows > 1);

    return (cuts || way->first) && (even || !speculates);
}

/* Whether the best prefill and the best decoding make the best plan. */
static bool additive(const struct plan_scan *s, const struct plan *plan)
{
    return s->view.request->objective != PLAN_THROUGHPUT && s->view.request->deadline_ms <= 0.0 &&
           !ends_here(plan);
}

static uint32_t best_chunk(struct plan_scan *s, const struct parts *p, const struct plan *plan,
                           uint32_t chunk_count, bool cuts)
{
    struct plan_key best = { INFINITY, INFINITY };
    uint32_t        chosen = 0;

    for (uint32_t c = 0; c < chunk_count; c++) {
        struct plan_totals t = total_of(s, p, plan, c, &s->ways.ways[0], cuts);
        struct plan_key    key = key_of(s, &t);

        if (plan_key_less(key, best)) {
            best = key;
            chosen = c;
        }
    }
    return chosen;
}

static double price_of(const struct plan_route *route, const double busy_ms[PLAN_RESOURCES])
{
    double price = 0.0;

    for (uint32_t i = 0; i < route->hop_count; i++)
        price += busy_ms[i == 0 ? PLAN_RES_WORKER : PLAN_RES_WORKER_2] *
                 route->workers[i]->price_hour;
    return price;
}

static uint32_t best_way(const struct plan_scan *s, const struct parts *p, bool cuts, bool even)
{
    bool            cost = s->view.request->objective == PLAN_COST;
    struct plan_key best = { INFINITY, INFINITY };
    uint32_t        chosen = 0;

    for (uint32_t w = 0; w < s->ways.way_count; w++) {
        const struct plan_way *way = &s->ways.ways[w];
        struct plan_rate       rate;
        struct plan_key        key;
        double                 price;

        if (!way_is_open(way, cuts, even))
            continue;
        plan_rate_init(&rate, &p->route, cuts ? &way->drafting : &way->alone,
                       &p->windows[way->depth_index], &p->plain);
        price = price_of(&p->route, rate.busy_ms);
        key = cost ? (struct plan_key){ price, rate.ms } : (struct plan_key){ rate.ms, price };
        if (plan_key_less(key, best)) {
            best = key;
            chosen = w;
        }
    }
    return chosen;
}

static void note(struct plan_scan *s, const struct parts *p, struct plan *plan, uint32_t chunk,
                 const struct plan_way *way, bool cuts)
{
    double             deadline_ms = s->view.request->deadline_ms;
    struct plan_totals t = total_of(s, p, plan, chunk, way, cuts);

    plan->chunk_tokens = s->ways.chunks[chunk];
    plan->draft = way->draft;
    plan->depth = way->depth;
    plan->windows = cuts ? way->windows : 1;
    if (deadline_ms > 0.0 && t.total_ms > deadline_ms)
        note_late(s, plan, t.total_ms);
    else
        note_hit(s, plan, key_of(s, &t));
}

/* All chunks and ways of one plan. */
static void scan_parts(struct plan_scan *s, const struct parts *p, struct plan *plan,
                       uint32_t chunk_count)
{
    bool cuts = plan_view_cuts(&s->view, plan);
    bool even = !s->view.request->even || plan_view_even(&s->view, plan);

    if (additive(s, plan)) {
        note(s, p, plan, best_chunk(s, p, plan, chunk_count, cuts),
             &s->ways.ways[best_way(s, p, cuts, even)], cuts);
        return;
    }
    for (uint32_t c = 0; c < chunk_count; c++)
        for (uint32_t w = 0; w < s->ways.way_count; w++)
            if (way_is_open(&s->ways.ways[w], cuts, even))
                note(s, p, plan, c, &s->ways.ways[w], cuts);
}

/* ---- what cannot win ---------------------------------------------------------------------- */

/* The least of everything over all chunks and ways. */
struct least {
    double filling_ms, token_ms;
    double filling_busy_ms[PLAN_RESOURCES], token_busy_ms[PLAN_RESOURCES];
};

static void lower(double *least, double value)
{
    *least = fmin(*least, value);
}

static void find_least(struct least *l, const struct plan_scan *s, const struct parts *p,
                       uint32_t chunk_count, bool home)
{
    l->filling_ms = l->token_ms = INFINITY;
    for (int r = 0; r < PLAN_RESOURCES; r++)
        l->filling_busy_ms[r] = l->token_busy_ms[r] = INFINITY;
    for (uint32_t c = 0; c < chunk_count; c++) {
        lower(&l->filling_ms, p->fillings[c].ms);
        for (int r = 0; r < PLAN_RESOURCES; r++)
            lower(&l->filling_busy_ms[r], p->fillings[c].busy_ms[r]);
    }
    for (uint32_t w = 0; w < s->ways.way_count; w++) {
        const struct plan_way *way = &s->ways.ways[w];
        struct plan_rate       rate;

        plan_rate_init(&rate, &p->route, &way->drafting, &p->windows[way->depth_index], &p->plain);
        lower(&l->token_ms, rate.ms);
        for (int r = 0; r < PLAN_RESOURCES; r++)
            lower(&l->token_busy_ms[r], home ? 0.0 : rate.busy_ms[r]);
        if (!home)
            continue;
        plan_rate_init(&rate, &p->home, &way->alone, &p->home_windows[way->depth_index],
                       &p->home_plain);
        lower(&l->token_ms, rate.ms);
    }
}

/* No chunk and way of these parts compares better than this. */
static struct plan_key bound_of(const struct plan_scan *s, const struct parts *p,
                                const struct plan *plan, uint32_t chunk_count)
{
    uint32_t           gen = s->view.request->gen_tokens;
    double             more = gen > 1 ? gen - 1.0 : 0.0;
    struct plan_totals t = { .price = 0.0 };
    struct least       l;

    find_least(&l, s, p, chunk_count, ends_here(plan));
    t.total_ms = l.filling_ms * plan_adjust_ttft(s->view.facts->adjust, plan) +
                 more * l.token_ms * plan_adjust_token(s->view.facts->adjust, plan);
    for (int r = 0; r < PLAN_RESOURCES; r++)
        t.busy_ms[r] = l.filling_busy_ms[r] + more * l.token_busy_ms[r];
    t.price = price_of(&p->route, t.busy_ms) / plan_hour_ms;
    return key_of(s, &t);
}

/* Sums in another order differ by rounding: what is as good within that may still win. */
static bool cannot_win(struct plan_key bound, struct plan_key best)
{
    static const double rounding = 1.0 - 1e-9;

    return bound.first * rounding > best.first;
}

/* With a codec that costs nothing. */
static bool hopeless(const struct plan_scan *s, const struct plan *plan, struct parts *p,
                     uint32_t fresh, uint32_t chunk_count)
{
    if (!s->choice->modes[plan->mode].possible)
        return false;
    if (additive(s, plan) && s->codec_last - s->codec_first < 2)
        return false; /* to look is as quick */
    compute_parts(p, s, plan, NULL, fresh, chunk_count);
    return cannot_win(bound_of(s, p, plan, chunk_count), s->best[plan->mode]);
}

/* ---- codecs ------------------------------------------------------------------------------- */

enum plan_limit plan_scan_limit(struct plan_scan *s, struct plan *plan)
{
    const struct plan_way *way = &s->ways.ways[0];
    struct plan_cost       cost = { .limit = PLAN_FITS };

    plan->chunk_tokens = s->ways.chunks[0];
    plan->draft = way->draft;
    plan->depth = way->depth;
    plan->windows = plan_view_cuts(&s->view, plan) ? way->windows : 1;
    plan_view_limit(&cost, &s->view, plan);
    if (cost.limit != PLAN_FITS)
        note_miss(s, plan, &cost);
    return cost.limit;
}

static void scan_codecs(struct plan_scan *s, struct plan *plan)
{
    const struct plan_facts *f = s->view.facts;
    bool                     cuts = plan_view_cuts(&s->view, plan);
    uint32_t                 fresh = plan_view_fresh(&s->view, plan);
    uint32_t                 chunk_count = plan_ways_chunks(&s->ways, fresh);
    uint32_t                 last = cuts ? s->codec_last : s->codec_first + 1;
    struct parts             parts;

    if (cuts && hopeless(s, plan, &parts, fresh, chunk_count))
        return;
    for (plan->codec = s->codec_first; plan->codec < last; plan->codec++) {
        if (plan_scan_limit(s, plan) != PLAN_FITS)
            continue;
        compute_parts(&parts, s, plan, cuts ? &f->codecs[plan->codec] : NULL, fresh, chunk_count);
        scan_parts(s, &parts, plan, chunk_count);
    }
    plan->codec = s->codec_first;
}

/* KV comes back as it is, or smaller where that is allowed. */
void plan_scan_places(struct plan_scan *s, struct plan *plan)
{
    plan->kv_q8 = false;
    scan_codecs(s, plan);
    if (!ends_here(plan) || !s->view.request->kv_q8)
        return;
    plan->kv_q8 = true;
    scan_codecs(s, plan);
}
