/* plan/cost.h - what a request costs by one plan, from its prefill and its decoding.
 *
 * Inside plan/ only.  SPDX-License-Identifier: MIT */
#ifndef PLAN_COST_H
#define PLAN_COST_H

#include "plan/pace.h"

extern const double plan_hour_ms;

/* What plans are compared by. */
struct plan_totals {
    double ttft_ms, token_ms, total_ms;
    double handover_ms;  /* prefill: when all KV is here; 0 = never, or another mode */
    double tokens_there; /* generated before that; all, in other modes */
    double tokens_home;  /* prefill: generated here after that */
    double busy_ms[PLAN_RESOURCES];
    double price;
};

/* `home` is the rate with all layers here; only for prefill plans, else NULL. */
void plan_totals_init(struct plan_totals *totals, const struct plan_view *view,
                      const struct plan *plan, const struct plan_route *route,
                      const struct plan_filling *filling, const struct plan_rate *rate,
                      const struct plan_rate *home);

/* Limit and prediction of a plan whose indices are in range. */
void plan_cost_init(struct plan_cost *cost, const struct plan_view *view, const struct plan *plan);

#endif
