/* plan/adjust.h - plans while they run: correcting predictions by what was measured, and when to
 * change the plan.
 *
 * Correction: for each worker and mode one factor on the time to the first token and one on the
 * time a token, learned from measured / predicted and kept within 1/4 and 4.
 *
 * Changing is dear (state is rebuilt elsewhere) and the measurements are noisy, so three things
 * must hold: several samples in a row outside the band around the prediction, or news (a worker
 * came, went or became busy); a new prediction that is better for what remains of the request;
 * and a gain that pays for the switch with a margin.
 *
 * Pure.  One thread for each struct.  SPDX-License-Identifier: MIT */
#ifndef PLAN_ADJUST_H
#define PLAN_ADJUST_H

#include "plan/plan.h"

/* ---- correction ------------------------------------------------------------------------- */

enum {
    PLAN_ADJUST_HERE = PLAN_WORKERS_MAX, /* the place of local plans in the table */
    PLAN_ADJUST_PLACES = PLAN_WORKERS_MAX + 1,
};

struct plan_factor {
    double   value; /* 0 = nothing learned: 1 */
    uint32_t samples;
};

/* Zeroed: nothing learned.  By index of the facts' workers; two hops count for the first. */
struct plan_adjust {
    struct plan_factor ttft[PLAN_ADJUST_PLACES][PLAN_MODES];
    struct plan_factor token[PLAN_ADJUST_PLACES][PLAN_MODES];
};

/* Factors as they are now; 1 for adjust == NULL. */
double plan_adjust_ttft(const struct plan_adjust *adjust, const struct plan *plan);
double plan_adjust_token(const struct plan_adjust *adjust, const struct plan *plan);

/* A request, or a part of one, took so long where `cost` (by the facts with this same table) had
 * been predicted; 0 = not measured.  Values that are no time are ignored. */
void plan_observe(struct plan_adjust *adjust, const struct plan *plan, const struct plan_cost *cost,
                  double ttft_ms, double token_ms);

/* As if the time a token had been measured for long: from now on it is predicted to be token_ms,
 * where `cost` says what it was predicted to be. */
void plan_observe_fully(struct plan_adjust *adjust, const struct plan *plan,
                        const struct plan_cost *cost, double token_ms);

/* A worker that was left is not measured any more.  What is known of it is void when it was
 * restarted or its load changed: start again from its profile. */
void plan_adjust_forget(struct plan_adjust *adjust, uint32_t worker);

/* ---- watching --------------------------------------------------------------------------- */

enum {
    PLAN_WATCH_SAMPLES = 8, /* in a row outside the band: 0.7 s at 80 ms; chance does it seldom */
    PLAN_WATCH_SETTLE = 4,  /* ignored after each plan: windows of the old one, cold caches */
};

/* The band: a sample is inside within this factor of the prediction, either way. */
extern const double plan_watch_band;

/* A new plan must save this share of what remains, beyond what the switch costs. */
extern const double plan_watch_gain;

/* A switch counts for this many times its predicted cost. */
extern const double plan_watch_margin;

struct plan_watch {
    struct plan plan;
    double      expected_ms; /* a token */
    double      mean_ms;     /* of the samples of the run outside */
    uint32_t    settle;      /* samples still to be ignored */
    int32_t     outside;     /* samples in a row: > 0 slower than the band, < 0 faster */
    uint32_t    switches;
};

void plan_watch_init(struct plan_watch *watch, const struct plan *plan,
                     const struct plan_cost *cost);

/* `tokens` more took `ms`.  True: outside the band for long enough, ask plan_reconsider(). */
bool plan_watch_sample(struct plan_watch *watch, uint32_t tokens, double ms);

/* What it costs to go on with `to` after `positions` have run by `from`: nothing when every layer
 * stays; the KV fetched when layers only come home from a worker that exports; else all
 * positions replayed through the new places, the journal's bytes included. */
int plan_switch_ms(double *ms, const struct plan_facts *facts, const struct plan_request *request,
                   const struct plan *from, const struct plan *to, uint32_t positions,
                   mcp_error *err);

enum plan_verdict {
    PLAN_KEEP,   /* nothing better, or it does not pay */
    PLAN_SWITCH, /* go on with `plan` */
    PLAN_FORCED, /* the running plan breaks a limit now (its worker went): go on with `plan` */
};

struct plan_change {
    enum plan_verdict verdict;
    struct plan       plan;      /* the best for what remains, the switch counted */
    struct plan_cost  cost;      /* of what remains, with the state moved already */
    double            stay_ms;   /* what remains, by the running plan, */
    double            go_ms;     /* by this one, */
    double            switch_ms; /* and moving the state before */
    char              why[PLAN_WHY_BYTES];
};

/* After plan_watch_sample() said so, or when facts changed.  `request` is what remains: gen_tokens
 * left, prompt_tokens = positions so far + 1, cached_tokens = positions so far; `current` is not
 * looked at.  Facts should be today's.  `adjust` (NULL, or the table that the facts point at) is
 * told fully what the samples outside the band were, so that the running plan is judged by what it
 * does and the plan that is left does not look good again at once.  Looked
 * at are the best plan of each mode, the best with the places as they are, and the best that only
 * takes layers home from the present worker.  Time decides, whatever the objective.
 *
 * On PLAN_SWITCH and PLAN_FORCED the watch follows the new plan; on PLAN_KEEP its band moves to
 * what is measured, so that the same change is not reconsidered for ever.
 *
 * A prefill plan is no plan to go on with: before its handover watch the cloud or split plan that
 * it is then, afterwards the local one that it has become.
 *   MCP_EINVAL   the running plan is a prefill plan
 *   as plan_choose(): when nothing fits, which includes the running plan */
int plan_reconsider(struct plan_change *change, struct plan_watch *watch,
                    const struct plan_facts *facts, const struct plan_request *request,
                    struct plan_adjust *adjust, mcp_error *err);

#endif
