/* plan/view.h - facts and request, prepared for looking at many plans.
 *
 * Inside plan/ only.  SPDX-License-Identifier: MIT */
#ifndef PLAN_VIEW_H
#define PLAN_VIEW_H

#include "plan/plan.h"

struct plan_view {
    const struct plan_facts   *facts;
    const struct plan_request *request;
    uint32_t                   layers;
    uint32_t                   ctx_tokens;     /* to be reserved */
    uint32_t                   decode_context; /* on average while generating */
    /* Sums over layers [0, i). */
    double work[PLAN_LAYERS_MAX + 1];
    double weight_bytes[PLAN_HERE_MAX][PLAN_LAYERS_MAX + 1];
};

/* Facts and request have passed plan_check(). */
void plan_view_init(struct plan_view *view, const struct plan_facts *facts,
                    const struct plan_request *request);

double plan_view_work(const struct plan_view *view, uint32_t first, uint32_t last);

/* Layers that hops run; work of those that run here. */
double plan_view_work_there(const struct plan_view *view, const struct plan *plan);
double plan_view_work_here(const struct plan_view *view, const struct plan *plan);

/* Positions of the prompt that must be computed under this plan; 1 at least. */
uint32_t plan_view_fresh(const struct plan_view *view, const struct plan *plan);

/* Everything about a plan that does not need its times, in the order of PLAN_LIMITS: fills memory,
 * quality and limit of *cost, which is zeroed. */
void plan_view_limit(struct plan_cost *cost, const struct plan_view *view, const struct plan *plan);

/* Whether windows of the plan's places give the same bits whatever their size. */
bool plan_view_even(const struct plan_view *view, const struct plan *plan);

/* Whether hidden states leave this machine: then a codec matters, and windows in flight. */
bool plan_view_cuts(const struct plan_view *view, const struct plan *plan);

#endif
