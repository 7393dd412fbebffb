/* plan/choose.c - the scan of all plans.
 *
 * For each mode, set of weights, worker (or pair) and pair of cuts the parts that do not depend on
 * each other are computed once: prefill for each chunk size, decoding for each way to draft.  What
 * is left out never changes the result:
 *
 *   - cuts whose remote work equals that of cuts seen before on the same workers cost the same,
 *     and of equals the first wins;
 *   - cuts that would not win even with a codec that costs nothing and, at once, the best of every
 *     chunk size and way to draft;
 *   - where the objective is a sum of prefill and decoding and there is no deadline, all pairs but
 *     the best prefill with the best decoding;
 *   - chunks larger than the smallest that holds the whole prompt.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/describe.h"
#include "plan/scan.h"

#include "base/fail.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- cuts --------------------------------------------------------------------------------- */

/* Whether cuts with as much remote work were seen; sums in another order differ by rounding. */
static bool was_seen(const struct plan_scan *s, uint32_t layers, double work)
{
    for (uint32_t i = 0; i < s->seen_count[layers]; i++)
        if (fabs(s->seen_work[layers][i] - work) <= 1e-9 * work)
            return true;
    return false;
}

/* Whether these cuts differ in time from all before; those that break a limit do not count, and
 * two hops share the work in ways that the sum does not show. */
static bool is_new_work(struct plan_scan *s, struct plan *plan)
{
    uint32_t layers = plan->hops[0].last - plan->hops[0].first;
    double   work = plan_view_work_there(&s->view, plan);

    if (plan->hop_count > 1 || s->view.request->current != NULL)
        return true;
    if (was_seen(s, layers, work))
        return false;
    if (plan_scan_limit(s, plan) == PLAN_FITS && s->seen_count[layers] < PLAN_SEEN_MAX)
        s->seen_work[layers][s->seen_count[layers]++] = work;
    return true;
}

static void scan_cut(struct plan_scan *s, struct plan *plan)
{
    if (is_new_work(s, plan))
        plan_scan_places(s, plan);
}

/* The cuts that policy and request leave open. */
struct cut_range {
    uint32_t first_least, first_most, last_least, last_most;
};

static uint32_t at_least_one(uint32_t count)
{
    return count > 0 ? count : 1;
}

static struct cut_range cuts_of(const struct plan_scan *s)
{
    const struct plan_request *r = s->view.request;
    uint32_t                   first_min = at_least_one(r->layers_first_min);
    uint32_t                   last_most = s->view.layers - at_least_one(r->layers_last_min);

    if (r->cut_last > 0)
        return (struct cut_range){ r->cut_first, r->cut_first, r->cut_last, r->cut_last };
    return (struct cut_range){ first_min, last_most - 1, first_min + 1, last_most };
}

/* What a worker breaks whatever the cuts: no need to look at more of them. */
static bool in_any_case(enum plan_limit limit)
{
    return limit == PLAN_NO_PLACE || limit == PLAN_NO_PROFILE || limit == PLAN_NOT_ABLE ||
           limit == PLAN_OTHER_WEIGHTS || limit == PLAN_NO_SESSION || limit == PLAN_NO_CONTEXT;
}

/* At each pair of cuts that the worker's layers allow. */
static void scan_one_hop(struct plan_scan *s, struct plan *plan, uint32_t worker)
{
    const struct plan_worker *w = &s->view.facts->workers[worker];
    struct cut_range          cuts = cuts_of(s);
    uint32_t                  first = cuts.first_least > w->first ? cuts.first_least : w->first;
    uint32_t                  last_most = cuts.last_most < w->last ? cuts.last_most : w->last;

    memset(s->seen_count, 0, sizeof(s->seen_count));
    plan->hop_count = 1;
    plan->hops[0] = (struct plan_hop){ worker, cuts.first_least, cuts.last_least };
    if (first > cuts.first_most || last_most < cuts.last_least || first >= last_most) {
        plan_scan_limit(s, plan); /* notes that the layers are not held */
        return;
    }
    plan->hops[0] = (struct plan_hop){ worker, first, first + 1 };
    if (s->view.request->cut_last == 0 && in_any_case(plan_scan_limit(s, plan)))
        return;
    for (; first <= cuts.first_most && first < last_most; first++) {
        uint32_t least = cuts.last_least > first ? cuts.last_least : first + 1;

        /* Most layers away first: often the best, with which others can be ruled out. */
        for (uint32_t last = last_most; last >= least; last--) {
            plan->hops[0] = (struct plan_hop){ worker, first, last };
            scan_cut(s, plan);
        }
    }
}

/* [first, middle) on one worker and [middle, last) on the other. */
static void scan_middle(struct plan_scan *s, struct plan *plan, uint32_t middle)
{
    struct cut_range          cuts = cuts_of(s);
    uint32_t                  one = plan->hops[0].worker, two = plan->hops[1].worker;
    const struct plan_worker *a = &s->view.facts->workers[one];
    const struct plan_worker *b = &s->view.facts->workers[two];
    uint32_t                  first = cuts.first_least > a->first ? cuts.first_least : a->first;

    for (; first <= cuts.first_most && first < middle; first++) {
        uint32_t last = cuts.last_least > middle ? cuts.last_least : middle + 1;

        for (; last <= cuts.last_most && last <= b->last; last++) {
            if (last <= a->last || first >= b->first)
                continue; /* one of them can do it alone */
            plan->hops[0] = (struct plan_hop){ one, first, middle };
            plan->hops[1] = (struct plan_hop){ two, middle, last };
            scan_cut(s, plan);
        }
    }
}

/* Two workers of which neither holds all.  They may meet where the first's layers end or the
 * second's begin. */
static void scan_two_hops(struct plan_scan *s, struct plan *plan, uint32_t one, uint32_t two)
{
    const struct plan_worker *a = &s->view.facts->workers[one];
    const struct plan_worker *b = &s->view.facts->workers[two];

    if (!a->up || !b->up || a->profile == NULL || b->profile == NULL)
        return; /* noted with one hop */
    if (one == two || b->first > a->last || b->first <= a->first || b->last <= a->last)
        return;
    plan->hop_count = 2;
    plan->hops[0].worker = one;
    plan->hops[1].worker = two;
    scan_middle(s, plan, a->last);
    if (b->first != a->last)
        scan_middle(s, plan, b->first);
}

/* ---- modes -------------------------------------------------------------------------------- */

static void scan_whole(struct plan_scan *s, struct plan *plan, uint32_t worker)
{
    plan->hop_count = 1;
    plan->hops[0] = (struct plan_hop){ worker, 0, s->view.layers };
    plan_scan_places(s, plan);
}

static bool has_cuts(const struct plan_scan *s)
{
    const struct plan_request *r = s->view.request;

    return s->codec_last > s->codec_first &&
           (uint64_t)at_least_one(r->layers_first_min) + at_least_one(r->layers_last_min) <
               s->view.layers;
}

static void scan_workers(struct plan_scan *s, struct plan *plan)
{
    uint32_t count = s->view.facts->worker_count;

    for (uint32_t w = 0; w < count; w++) {
        if (plan->mode != PLAN_SPLIT)
            scan_whole(s, plan, w);
        if (plan->mode != PLAN_CLOUD && has_cuts(s))
            scan_one_hop(s, plan, w);
    }
    if (plan->mode == PLAN_CLOUD || !has_cuts(s))
        return;
    for (uint32_t one = 0; one < count; one++)
        for (uint32_t two = 0; two < count; two++)
            scan_two_hops(s, plan, one, two);
}

/* Whether the policy leaves anything of a mode. */
static bool may_leave(const struct plan_scan *s, enum plan_mode mode, struct plan_cost *cost)
{
    const struct plan_request *r = s->view.request;
    double stay = (double)at_least_one(r->layers_first_min) + at_least_one(r->layers_last_min);
    bool   some = mode != PLAN_SPLIT || stay < s->view.layers;
    bool   leave = mode == PLAN_LOCAL ||
                 (mode == PLAN_CLOUD ? r->privacy == PLAN_OPEN : r->privacy != PLAN_STRICT);

    if (leave && some)
        return true;
    cost->limit = PLAN_NOT_PRIVATE;
    if (leave) {
        cost->limit_need = stay;
        cost->limit_have = s->view.layers - 1.0;
    }
    return false;
}

static void scan_mode(struct plan_scan *s, enum plan_mode mode)
{
    /* The weights here do not matter to cloud: one round, even without any. */
    uint32_t here_count = mode == PLAN_CLOUD ? 1 : s->view.facts->here_count;

    s->choice->modes[mode].plan.mode = mode;
    s->choice->modes[mode].cost.limit = PLAN_NO_PLACE;
    if (s->view.request->modes != 0 && (s->view.request->modes >> mode & 1) == 0) {
        s->choice->modes[mode].cost.limit = PLAN_NOT_ASKED;
        return;
    }
    /* Before there is anything to scan, so that a policy is named though no worker is there. */
    if (!may_leave(s, mode, &s->choice->modes[mode].cost))
        return;
    for (uint32_t here = 0; here < here_count; here++) {
        struct plan plan = { .mode = mode, .here = here, .codec = s->codec_first };

        if (mode == PLAN_LOCAL)
            plan_scan_places(s, &plan);
        else
            scan_workers(s, &plan);
    }
}

/* ---- the result --------------------------------------------------------------------------- */

static int no_plan(struct plan_choice *out, mcp_error *err)
{
    static const int codes[PLAN_LIMIT_COUNT] = {
#define X(name, code, text) [name] = code,
        PLAN_LIMITS(X)
#undef X
    };
    enum plan_limit nearest = PLAN_NOT_ASKED;
    char            text[PLAN_MODES * (PLAN_WHY_BYTES + 2)];
    size_t          used = 0;

    text[0] = '\0';
    for (int m = 0; m < PLAN_MODES; m++) {
        enum plan_limit limit = out->modes[m].cost.limit;

        if (limit == PLAN_NOT_ASKED)
            continue;
        nearest = limit > nearest ? limit : nearest;
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s", used > 0 ? "; " : "",
                                 out->modes[m].why);
    }
    return base_fail(err, codes[nearest], "no plan is possible: %s", text);
}

static void compare(struct plan_scan *s, struct plan_rival **winner, struct plan_rival **second)
{
    *winner = *second = NULL;
    for (int m = 0; m < PLAN_MODES; m++) {
        struct plan_rival *rival = &s->choice->modes[m];

        if (!rival->possible)
            continue;
        if (*winner == NULL || plan_key_less(s->best[m], s->best[(*winner)->plan.mode])) {
            *second = *winner;
            *winner = rival;
        } else if (*second == NULL || plan_key_less(s->best[m], s->best[(*second)->plan.mode])) {
            *second = rival;
        }
    }
}

static int conclude(struct plan_scan *s, mcp_error *err)
{
    struct plan_choice *out = s->choice;
    struct plan_rival  *winner, *second;

    compare(s, &winner, &second);
    for (int m = 0; m < PLAN_MODES; m++) {
        struct plan_rival *rival = &out->modes[m];

        if (rival->possible)
            plan_cost_init(&rival->cost, &s->view, &rival->plan);
        if (!rival->possible)
            plan_why_impossible(rival->why, s->view.facts, s->view.request, (enum plan_mode)m,
                                rival);
    }
    if (winner == NULL)
        return no_plan(out, err);
    for (int m = 0; m < PLAN_MODES; m++)
        if (out->modes[m].possible && &out->modes[m] != winner)
            plan_why_lost(out->modes[m].why, s->view.request, &out->modes[m], winner);
    plan_why_won(winner->why, s->view.request, winner, second);
    out->plan = winner->plan;
    out->cost = winner->cost;
    return 0;
}

static void find_codecs(struct plan_scan *s)
{
    const struct plan_facts *f = s->view.facts;
    const char              *name = s->view.request->codec;

    s->codec_first = 0;
    s->codec_last = f->codec_count;
    for (uint32_t i = 0; name != NULL && i < f->codec_count; i++) {
        if (strcmp(f->codecs[i].name, name) != 0)
            continue;
        s->codec_first = i;
        s->codec_last = i + 1;
        return;
    }
}

int plan_choose(struct plan_choice *out, const struct plan_facts *facts,
                const struct plan_request *request, mcp_error *err)
{
    struct plan_scan s = { .choice = out };
    int              rc = plan_check(facts, request, err);

    if (rc < 0)
        return rc;
    memset(out, 0, sizeof(*out));
    plan_view_init(&s.view, facts, request);
    plan_ways_init(&s.ways, facts, request);
    find_codecs(&s);
    if (s.ways.way_count == 0)
        return base_fail(err, MCP_ENOTSUP,
                         "drafts of depth %d in %u windows were asked for, and no drafter makes "
                         "them",
                         request->depth, request->windows);
    for (int mode = 0; mode < PLAN_MODES; mode++)
        scan_mode(&s, (enum plan_mode)mode);
    return conclude(&s, err);
}
