/* plan/pace.c - see pace.h.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/pace.h"

#include <math.h>
#include <string.h>

/* What a window takes beside computing, its bytes and the round trip: both programs, TLS, gRPC.
 * 0.32 ms measured over loopback (docs/benchmarks.md, "One round trip a token"); the 0.7 to 0.9 ms
 * beyond it at longer round trips are wake-ups of idle cores, left to the correction. */
static const double frame_ms = 0.3;

/* Headers of gRPC, HTTP/2, TLS and TCP with the message's own fields, each way: 141 bytes were
 * measured for both ways of a 64 byte message, which leaves 39 for a message's empty half; real
 * ones have positions, timings and seals besides. */
static const double frame_bytes = 120.0;

/* A token id in a message of many, and a message of one token with its text. */
static const double prompt_token_bytes = 4.0;
static const double answer_token_bytes = 20.0;

/* Acceptance is an estimate; a certain draft would make windows without end. */
static const double accept_max = 0.99;

/* ---- the way ------------------------------------------------------------------------------ */

static void add_hops(struct plan_route *route, const struct plan_view *v, const struct plan *plan)
{
    route->hop_count = plan->hop_count;
    for (uint32_t i = 0; i < plan->hop_count; i++) {
        const struct plan_hop    *hop = &plan->hops[i];
        const struct plan_worker *w = &v->facts->workers[hop->worker];

        route->workers[i] = w;
        route->work_there[i] = plan_view_work(v, hop->first, hop->last);
        route->rtt_ms += plan_link_rtt_ms(&w->link);
        route->queue_ms += w->queue_ms;
        route->frame_ms += frame_ms;
        /* Two hops share our access to the network. */
        route->up_bytes_ms += plan_link_bytes_ms(&w->link, PLAN_UP, 1.0);
        route->down_bytes_ms += plan_link_bytes_ms(&w->link, PLAN_DOWN, 1.0);
    }
}

void plan_route_init(struct plan_route *route, const struct plan_view *v, const struct plan *plan,
                     const struct plan_codec *codec)
{
    memset(route, 0, sizeof(*route));
    if (plan->hop_count == 0) {
        plan_route_home(route, v, plan->here);
        return;
    }
    add_hops(route, v, plan);
    route->window_bytes = frame_bytes;
    if (plan->hops[0].first == 0 && plan->hops[0].last == v->layers) {
        route->cloud = true;
        route->token_bytes = prompt_token_bytes;
        return;
    }
    route->here = v->facts->here[plan->here].profile;
    route->forwards_here = 2;
    route->work_here = plan_view_work_here(v, plan);
    if (codec != NULL) {
        route->token_bytes = codec->token_bytes;
        route->codec_ms = 2.0 * codec->token_ms; /* one is encoded, one decoded */
    }
}

void plan_route_home(struct plan_route *route, const struct plan_view *v, uint32_t here)
{
    memset(route, 0, sizeof(*route));
    route->here = v->facts->here[here].profile;
    route->forwards_here = 1;
    route->work_here = v->work[v->layers];
}

/* ---- one window --------------------------------------------------------------------------- */

static struct plan_pace pace_of(const struct plan_profile *profile, uint32_t tokens,
                                uint32_t context)
{
    return (struct plan_pace){
        .layer_ms = plan_profile_layer_ms(profile, tokens, context, 1),
        .embed_ms = plan_profile_embed_ms(profile, tokens),
        .head_ms = plan_profile_head_ms(profile, tokens),
        .call_ms = profile->call_ms,
    };
}

void plan_paces_init(struct plan_paces *paces, const struct plan_route *route, uint32_t tokens,
                     uint32_t context)
{
    memset(paces, 0, sizeof(*paces));
    if (route->here != NULL)
        paces->here = pace_of(route->here, tokens, context);
    for (uint32_t i = 0; i < route->hop_count; i++) {
        const struct plan_worker *w = route->workers[i];
        struct plan_pace         *pace = &paces->there[i];

        /* The others' tokens ride in the same forward. */
        *pace = pace_of(w->profile, tokens, context);
        pace->layer_ms += plan_profile_layer_ms(w->profile, 1, context, 1 + w->others) -
                          plan_profile_layer_ms(w->profile, 1, context, 1);
    }
}

static double stage_ms(const struct plan_pace *pace, double work, uint32_t forwards, bool ends,
                       bool logits)
{
    return forwards * pace->call_ms + work * pace->layer_ms + (ends ? pace->embed_ms : 0.0) +
           (ends && logits ? pace->head_ms : 0.0);
}

static void occupy(struct plan_pass *pass, enum plan_resource resource, enum plan_term term,
                   double ms)
{
    pass->busy_ms[resource] += ms;
    pass->term_ms[term] += ms;
    pass->total_ms += ms;
}

static void wait_for(struct plan_pass *pass, enum plan_term term, double ms)
{
    pass->term_ms[term] += ms;
    pass->total_ms += ms;
}

/* Tokens stream from a worker that generates: nobody waits for one on its way. */
static void add_link(struct plan_pass *pass, const struct plan_route *route, uint32_t tokens,
                     enum plan_phase phase)
{
    double bytes = tokens * route->token_bytes + route->window_bytes;

    if (route->cloud && phase == PLAN_PHASE_DECODE) {
        pass->busy_ms[PLAN_RES_DOWN] += tokens * (answer_token_bytes + route->window_bytes) *
                                        route->down_bytes_ms;
        return;
    }
    wait_for(pass, PLAN_TERM_RTT, route->rtt_ms);
    wait_for(pass, PLAN_TERM_FRAME, route->frame_ms);
    occupy(pass, PLAN_RES_UP, PLAN_TERM_UP, bytes * route->up_bytes_ms);
    occupy(pass, PLAN_RES_DOWN, PLAN_TERM_DOWN,
           (route->cloud ? route->window_bytes : bytes) * route->down_bytes_ms);
}

void plan_pass_init(struct plan_pass *pass, const struct plan_route *route,
                    const struct plan_paces *paces, uint32_t tokens, enum plan_phase phase)
{
    bool   logits = phase == PLAN_PHASE_DECODE;
    double codec_ms = tokens * route->codec_ms;

    memset(pass, 0, sizeof(*pass));
    if (route->here != NULL)
        occupy(pass, PLAN_RES_HERE, PLAN_TERM_HERE,
               stage_ms(&paces->here, route->work_here, route->forwards_here, true, logits));
    occupy(pass, PLAN_RES_HERE, PLAN_TERM_FRAME, route->hop_count * codec_ms);
    for (uint32_t i = 0; i < route->hop_count; i++) {
        enum plan_resource worker = i == 0 ? PLAN_RES_WORKER : PLAN_RES_WORKER_2;

        occupy(pass, worker, PLAN_TERM_WORKER,
               stage_ms(&paces->there[i], route->work_there[i], 1, route->cloud, logits));
        occupy(pass, worker, PLAN_TERM_FRAME, codec_ms);
    }
    if (route->hop_count > 0) {
        wait_for(pass, PLAN_TERM_QUEUE, route->queue_ms);
        add_link(pass, route, tokens, phase);
    }
}

static enum plan_resource slowest_of(const struct plan_pass *pass)
{
    enum plan_resource slowest = PLAN_RES_HERE;

    for (int r = 1; r < PLAN_RESOURCES; r++)
        if (pass->busy_ms[r] > pass->busy_ms[slowest])
            slowest = (enum plan_resource)r;
    return slowest;
}

static enum plan_term term_of(enum plan_resource resource)
{
    static const enum plan_term terms[PLAN_RESOURCES] = {
        [PLAN_RES_HERE] = PLAN_TERM_HERE,     [PLAN_RES_UP] = PLAN_TERM_UP,
        [PLAN_RES_WORKER] = PLAN_TERM_WORKER, [PLAN_RES_WORKER_2] = PLAN_TERM_WORKER,
        [PLAN_RES_DOWN] = PLAN_TERM_DOWN,
    };

    return terms[resource];
}

/* ---- prefill ------------------------------------------------------------------------------ */

void plan_filling_paces_init(struct plan_filling_paces *p, const struct plan_route *route,
                             uint32_t cached, uint32_t fresh, uint32_t chunk)
{
    /* The mean of what lies before a full chunk. */
    uint32_t full_context = cached + (fresh > chunk ? (fresh - chunk) / 2 : 0);

    p->fresh = fresh;
    p->chunk = chunk;
    p->full = fresh / chunk;
    p->rest = fresh % chunk;
    if (p->full > 0)
        plan_paces_init(&p->chunk_paces, route, chunk, full_context);
    if (p->rest > 0)
        plan_paces_init(&p->rest_paces, route, p->rest, cached + fresh - p->rest);
    plan_paces_init(&p->last_paces, route, 1, 0);
}

static void add_occupied(struct plan_filling *f, const struct plan_pass *pass, double windows)
{
    for (int r = 0; r < PLAN_RESOURCES; r++)
        f->busy_ms[r] += windows * pass->busy_ms[r];
}

/* `windows` more behind those that run: each takes as long as the slowest place. */
static void follow(struct plan_filling *f, const struct plan_pass *pass, double windows)
{
    enum plan_resource slowest = slowest_of(pass);

    f->ms += windows * pass->busy_ms[slowest];
    f->term_ms[term_of(slowest)] += windows * pass->busy_ms[slowest];
    add_occupied(f, pass, windows);
}

static void add_logits(struct plan_filling *f, const struct plan_route *route,
                       const struct plan_filling_paces *p)
{
    double ms = route->cloud ? p->last_paces.there[0].head_ms : p->last_paces.here.head_ms;

    f->ms += ms;
    f->term_ms[route->cloud ? PLAN_TERM_WORKER : PLAN_TERM_HERE] += ms;
    f->busy_ms[route->cloud ? PLAN_RES_WORKER : PLAN_RES_HERE] += ms;
}

void plan_filling_init(struct plan_filling *f, const struct plan_route *route,
                       const struct plan_filling_paces *p)
{
    struct plan_pass chunk = { .total_ms = 0.0 }, rest = chunk;
    double           windows = p->full + (p->rest > 0 ? 1 : 0);

    memset(f, 0, sizeof(*f));
    if (p->full > 0)
        plan_pass_init(&chunk, route, &p->chunk_paces, p->chunk, PLAN_PHASE_PREFILL);
    if (p->rest > 0)
        plan_pass_init(&rest, route, &p->rest_paces, p->rest, PLAN_PHASE_PREFILL);
    const struct plan_pass *first = p->full > 0 ? &chunk : &rest;

    f->first_ms = f->ms = first->total_ms;
    memcpy(f->term_ms, first->term_ms, sizeof(f->term_ms));
    add_occupied(f, first, 1.0);
    if (p->full > 0) {
        follow(f, &chunk, p->full - 1.0);
        if (p->rest > 0)
            follow(f, &rest, 1.0);
    }
    add_logits(f, route, p);
    f->bytes_out = route->hop_count *
                   (p->fresh * route->token_bytes + windows * route->window_bytes);
    f->bytes_in = route->cloud ? route->window_bytes : f->bytes_out;
}

/* ---- decode ------------------------------------------------------------------------------- */

void plan_drafting_init(struct plan_drafting *d, const struct plan_draft *draft, uint32_t depth,
                        uint32_t windows)
{
    uint32_t drafts; /* a window: only the first begins with a token that is known */
    double   right;

    *d = (struct plan_drafting){ .positions = depth + 1, .windows = windows, .run_tokens = 1.0 };
    if (depth == 0 && windows <= 1)
        return;
    drafts = windows > 1 ? depth + 1 : depth;
    d->draft = draft;
    d->accept = fmin(draft->accept, accept_max);
    d->run_tokens = 1.0 / (1.0 - d->accept);
    right = pow(d->accept, d->positions);
    d->again = right / (1.0 - right);
    right = pow(right, d->windows);
    d->rounds = right / (1.0 - right);
    d->draft_ms = drafts * draft->token_ms;
}

/* Where drafting takes place. */
static enum plan_resource draft_place(const struct plan_route *route)
{
    return route->cloud ? PLAN_RES_WORKER : PLAN_RES_HERE;
}

/* A run is what happens until a draft is wrong.  W windows of k positions are sent at once and come
 * back a slot s apart, the first after a pass T; as each comes back another is sent:
 *
 *     window i of a run is back after   T + floor(i / W) max(T, W s) + (i mod W) s
 *
 * Drafts are right with probability a, each by itself.  So a run emits 1 / (1 - a) tokens and the
 * window in which it ends has the expected number q / (1 - q), q = a^k, and q^W / (1 - q^W) full
 * rounds of W have gone by before it.  With one window this is stop-and-wait:
 * (1 - q) / (1 - a) tokens a pass. */
void plan_rate_init(struct plan_rate *rate, const struct plan_route *route,
                    const struct plan_drafting *d, const struct plan_pass *window,
                    const struct plan_pass *plain)
{
    double hit = d->draft != NULL ? d->draft->hit : 0.0;
    double tokens = hit * d->run_tokens + (1.0 - hit);
    double run_ms, launched;
    bool   waits; /* all windows are sent before the first is back */

    rate->window_ms = window->total_ms + d->draft_ms;
    rate->window_tokens = d->run_tokens / (1.0 + d->again);
    rate->slot_ms = 0.0;
    for (int r = 0; r < PLAN_RESOURCES; r++) {
        rate->busy_ms[r] = window->busy_ms[r];
        if (r == (int)draft_place(route))
            rate->busy_ms[r] += d->draft_ms;
        rate->slot_ms = fmax(rate->slot_ms, rate->busy_ms[r]);
    }
    waits = d->windows * rate->slot_ms <= rate->window_ms;
    rate->passes = 1.0 + (waits ? d->rounds : 0.0);
    rate->slots = d->again - (waits ? d->windows * d->rounds : 0.0);
    run_ms = rate->passes * rate->window_ms + rate->slots * rate->slot_ms;
    /* When the last of a run comes back, those behind it are in flight in vain. */
    launched = d->again + (waits ? d->windows : ceil(rate->window_ms / rate->slot_ms));
    rate->ms = (hit * run_ms + (1.0 - hit) * plain->total_ms) / tokens;
    rate->windows = (hit * launched + (1.0 - hit)) / tokens;
    for (int r = 0; r < PLAN_RESOURCES; r++)
        rate->busy_ms[r] = (hit * launched * rate->busy_ms[r] + (1.0 - hit) * plain->busy_ms[r]) /
                           tokens;
}

void plan_rate_terms(double term_ms[PLAN_TERMS], const struct plan_rate *rate,
                     const struct plan_drafting *d, const struct plan_pass *window,
                     const struct plan_pass *plain)
{
    double hit = d->draft != NULL ? d->draft->hit : 0.0;
    double tokens = hit * d->run_tokens + (1.0 - hit);

    for (int t = 0; t < PLAN_TERMS; t++) {
        double ms = window->term_ms[t] + (t == PLAN_TERM_DRAFT ? d->draft_ms : 0.0);

        term_ms[t] = (hit * rate->passes * ms + (1.0 - hit) * plain->term_ms[t]) / tokens;
    }
    term_ms[term_of(slowest_of(window))] += hit * rate->slots * rate->slot_ms / tokens;
}
