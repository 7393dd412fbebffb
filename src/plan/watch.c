/* plan/watch.c - when a running plan is changed; see adjust.h.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/adjust.h"

#include "plan/cost.h"

#include "base/fail.h"

#include <math.h>
#include <stdio.h>

const double plan_watch_band = 1.25;
const double plan_watch_gain = 0.10;
const double plan_watch_margin = 1.5;

/* ---- the band ----------------------------------------------------------------------------- */

static void follow(struct plan_watch *w, double expected_ms)
{
    w->expected_ms = expected_ms;
    w->mean_ms = 0.0;
    w->outside = 0;
    w->settle = PLAN_WATCH_SETTLE;
}

void plan_watch_init(struct plan_watch *w, const struct plan *plan, const struct plan_cost *cost)
{
    w->plan = *plan;
    w->switches = 0;
    follow(w, cost->token_ms);
}

static bool is_alarm(const struct plan_watch *w)
{
    return w->outside >= PLAN_WATCH_SAMPLES || w->outside <= -PLAN_WATCH_SAMPLES;
}

bool plan_watch_sample(struct plan_watch *w, uint32_t tokens, double ms)
{
    double  token_ms = ms / tokens;
    int32_t side;

    if (tokens == 0 || !isfinite(ms) || ms < 0.0)
        return false;
    if (w->settle > 0) {
        w->settle--;
        return false;
    }
    side = token_ms > w->expected_ms * plan_watch_band   ? 1
           : token_ms < w->expected_ms / plan_watch_band ? -1
                                                         : 0;
    if (side == 0 || (w->outside != 0 && (w->outside > 0) != (side > 0))) {
        w->outside = side;
        w->mean_ms = token_ms;
        return false;
    }
    w->outside += side;
    /* Over the run, or its last PLAN_WATCH_SAMPLES. */
    w->mean_ms += (token_ms - w->mean_ms) /
                  fmin(PLAN_WATCH_SAMPLES, side > 0 ? w->outside : -w->outside);
    if (is_alarm(w))
        w->outside = side * PLAN_WATCH_SAMPLES;
    return is_alarm(w);
}

/* ---- what a switch costs ------------------------------------------------------------------ */

/* The worker that has a layer's KV, or -1 for this machine. */
static int place_of(const struct plan *plan, uint32_t layer)
{
    for (uint32_t i = 0; i < plan->hop_count; i++)
        if (layer >= plan->hops[i].first && layer < plan->hops[i].last)
            return (int)plan->hops[i].worker;
    return -1;
}

struct moves {
    uint32_t home;    /* layers that come home */
    uint32_t away;    /* layers that go to a worker, or from one to another */
    int      source;  /* a worker that layers come home from */
    bool     exports; /* all such workers hand back KV */
};

static struct moves moves_of(const struct plan_facts *facts, const struct plan *from,
                             const struct plan *to)
{
    struct moves m = { .source = -1, .exports = true };

    for (uint32_t layer = 0; layer < facts->model->layers; layer++) {
        int before = place_of(from, layer), after = place_of(to, layer);

        if (before == after)
            continue;
        if (after >= 0) {
            m.away++;
            continue;
        }
        m.home++;
        m.source = before;
        m.exports = m.exports && (uint32_t)before < facts->worker_count &&
                    facts->workers[before].up && facts->workers[before].exports_kv;
    }
    return m;
}

/* All positions run again, as if they were a prompt of which nothing is known. */
static double replay_ms(const struct plan_view *view, const struct plan *to)
{
    struct plan_cost cost;

    plan_cost_init(&cost, view, to);
    return cost.ttft_ms;
}

int plan_switch_ms(double *ms, const struct plan_facts *facts, const struct plan_request *request,
                   const struct plan *from, const struct plan *to, uint32_t positions,
                   mcp_error *err)
{
    struct plan_request all = *request;
    struct plan_view    view;
    struct plan_cost    ignored;
    struct moves        m = moves_of(facts, from, to);
    int                 rc;

    *ms = 0.0;
    all.prompt_tokens = positions > 0 ? positions : 1;
    all.gen_tokens = 0;
    all.cached_tokens = 0;
    all.current = NULL;
    rc = plan_predict(&ignored, facts, &all, to, err);
    if (rc < 0 || positions == 0)
        return rc;
    /* Other weights here, or a stage that begins to be the whole model: nothing can be kept. */
    if ((m.home == 0 && m.away == 0) && (to->hop_count == 0 || from->mode == to->mode) &&
        from->here == to->here)
        return 0;
    plan_view_init(&view, facts, &all);
    *ms = replay_ms(&view, to);
    if (m.away == 0 && m.home > 0 && m.exports && from->here == to->here) {
        const struct plan_link_estimate *link = &facts->workers[m.source].link;
        double bytes = (double)m.home * positions * facts->model->kv_layer_bytes;

        *ms = fmin(*ms, plan_link_rtt_ms(link) + plan_link_bytes_ms(link, PLAN_DOWN, bytes));
    }
    return 0;
}

/* ---- reconsidering ------------------------------------------------------------------------ */

/* What is reconsidered, and the best to go on with so far. */
struct review {
    const struct plan_facts *facts;
    const struct plan       *running;
    struct plan_request      rest;
    bool                     found;
    struct plan_change      *change;
};

/* Modes to go on with: a prefill plan ends as a local one. */
static uint32_t modes_left(uint32_t modes)
{
    const uint32_t all = (1u << PLAN_MODES) - 1, prefill = 1u << PLAN_PREFILL;

    if (modes == 0)
        return all & ~prefill;
    return (modes & prefill) != 0 ? (modes & ~prefill) | 1u << PLAN_LOCAL : modes;
}

/* Whether the running plan's places are still among the facts. */
static bool exists(const struct review *r)
{
    if (r->running->mode != PLAN_CLOUD && r->running->here >= r->facts->here_count)
        return false;
    for (uint32_t i = 0; i < r->running->hop_count; i++)
        if (r->running->hops[i].worker >= r->facts->worker_count)
            return false;
    return true;
}

/* A session of ours that runs there is no reason to leave. */
static bool is_broken(enum plan_limit limit)
{
    return limit != PLAN_FITS && limit != PLAN_LATE && limit != PLAN_NO_SESSION;
}

/* Moving the state is a risk, too: it counts for more than it takes. */
static double burden_ms(double go_ms, double switch_ms)
{
    return go_ms + plan_watch_margin * switch_ms;
}

static int consider(struct review *r, const struct plan_rival *rival, mcp_error *err)
{
    static const struct plan nowhere = { .mode = PLAN_LOCAL, .here = PLAN_HERE_MAX };

    struct plan_change *c = r->change;
    double              go_ms = rival->cost.token_ms * r->rest.gen_tokens, switch_ms;
    int                 rc;

    if (!rival->possible)
        return 0;
    rc = plan_switch_ms(&switch_ms, r->facts, &r->rest, exists(r) ? r->running : &nowhere,
                        &rival->plan, r->rest.cached_tokens, err);
    if (rc < 0 || (r->found && burden_ms(go_ms, switch_ms) >= burden_ms(c->go_ms, c->switch_ms)))
        return rc;
    r->found = true;
    c->plan = rival->plan;
    c->cost = rival->cost;
    c->go_ms = go_ms;
    c->switch_ms = switch_ms;
    return 0;
}

/* The best of each mode that the request leaves.  That there is none is no failure here. */
static int consider_all(struct review *r, const struct plan_request *request, mcp_error *err)
{
    struct plan_choice choice;
    mcp_error          ignored;
    int                rc = plan_check(r->facts, request, err);

    if (rc < 0 || plan_choose(&choice, r->facts, request, &ignored) < 0)
        return rc;
    for (int mode = 0; mode < PLAN_MODES && rc == 0; mode++)
        rc = consider(r, &choice.modes[mode], err);
    return rc;
}

/* On the workers of the running plan alone. */
static void stay_on_workers(struct plan_request *request, const struct plan *running)
{
    uint64_t used = 0;

    for (uint32_t i = 0; i < running->hop_count; i++)
        used |= 1ull << running->hops[i].worker;
    request->workers_excluded |= ~used;
    request->modes = modes_left(request->modes) & 1u << running->mode;
}

/* With the cuts as they are, and, on one worker, inside them: little or nothing moves. */
static int consider_near(struct review *r, mcp_error *err)
{
    const struct plan  *running = r->running;
    struct plan_request near = r->rest;
    uint32_t            last;
    int                 rc;

    stay_on_workers(&near, running);
    if (near.modes == 0)
        return 0;
    if (running->mode != PLAN_SPLIT)
        return consider_all(r, &near, err);
    last = running->hops[running->hop_count - 1].last;
    near.cut_first = running->hops[0].first;
    near.cut_last = last;
    rc = consider_all(r, &near, err);
    if (rc < 0 || running->hop_count > 1 || r->rest.cut_last > 0)
        return rc;
    near.cut_first = near.cut_last = 0;
    near.layers_first_min = running->hops[0].first;
    near.layers_last_min = r->facts->model->layers - last;
    return consider_all(r, &near, err);
}

static int predict_running(struct plan_cost *cost, const struct review *r, mcp_error *err)
{
    if (!exists(r)) {
        *cost = (struct plan_cost){ .limit = PLAN_NO_PLACE };
        return 0;
    }
    return plan_predict(cost, r->facts, &r->rest, r->running, err);
}

static bool same_way(const struct plan *a, const struct plan *b)
{
    bool spoken = plan_speculates(a) == plan_speculates(b) &&
                  (!plan_speculates(a) ||
                   (a->draft == b->draft && a->depth == b->depth && a->windows == b->windows));

    return plan_same_places(a, b) && a->codec == b->codec && spoken;
}

static void keep(struct plan_change *change, struct plan_watch *watch, const char *why)
{
    change->verdict = PLAN_KEEP;
    snprintf(change->why, sizeof(change->why), "%s", why);
    follow(watch, watch->outside != 0 ? watch->mean_ms : watch->expected_ms);
}

static void move(struct plan_change *change, struct plan_watch *watch, enum plan_verdict verdict)
{
    change->verdict = verdict;
    watch->plan = change->plan;
    watch->switches++;
    follow(watch, change->cost.token_ms);
}

static void decide(struct plan_change *c, struct plan_watch *watch, enum plan_limit running)
{
    double gain_ms = c->stay_ms - c->go_ms;

    if (is_broken(running)) {
        snprintf(c->why, sizeof(c->why), "the running plan is no longer possible: %s",
                 plan_limit_name(running));
        move(c, watch, PLAN_FORCED);
    } else if (same_way(&watch->plan, &c->plan)) {
        keep(c, watch, "the running plan is still the best");
    } else if (gain_ms <= plan_watch_margin * c->switch_ms + plan_watch_gain * c->stay_ms) {
        keep(c, watch, "a better plan would not pay for the switch");
    } else {
        snprintf(c->why, sizeof(c->why),
                 "saves %.0f of the %.0f ms that remain, switching takes "
                 "%.0f",
                 gain_ms, c->stay_ms, c->switch_ms);
        move(c, watch, PLAN_SWITCH);
    }
}

int plan_reconsider(struct plan_change *change, struct plan_watch *watch,
                    const struct plan_facts *facts, const struct plan_request *request,
                    struct plan_adjust *adjust, mcp_error *err)
{
    struct review r = {
        .facts = facts, .running = &watch->plan, .rest = *request, .change = change
    };
    struct plan_cost running;
    int              rc;

    if (watch->plan.mode == PLAN_PREFILL)
        return base_fail(err, MCP_EINVAL,
                         "plan: a prefill plan is not reconsidered, but what it has become");
    r.rest.current = NULL;
    r.rest.modes = modes_left(request->modes);
    rc = predict_running(&running, &r, err);
    if (rc == 0 && adjust != NULL && is_alarm(watch)) {
        plan_observe_fully(adjust, &watch->plan, &running, watch->mean_ms);
        rc = predict_running(&running, &r, err);
    }
    if (rc == 0)
        rc = consider_all(&r, &r.rest, err);
    if (rc == 0 && exists(&r))
        rc = consider_near(&r, err);
    if (rc < 0)
        return rc;
    if (!r.found) {
        struct plan_choice choice;

        /* Once more, for the sentence. */
        return plan_choose(&choice, facts, &r.rest, err);
    }
    change->stay_ms = running.token_ms * request->gen_tokens;
    decide(change, watch, running.limit);
    return 0;
}
