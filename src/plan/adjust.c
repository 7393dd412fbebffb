/* plan/adjust.c - the correction learned from what plans took; see adjust.h.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/adjust.h"

#include <math.h>
#include <string.h>

/* The first samples count fully (their mean), later ones for this much at least: about the last
 * five. */
static const double gain_least = 0.2;

/* A prediction that is wronger than this is a broken profile, not one to be corrected; and one
 * stalled request must not condemn a worker. */
static const double factor_max = 4.0;

static uint32_t place_of(const struct plan *plan)
{
    return plan->hop_count > 0 ? plan->hops[0].worker : PLAN_ADJUST_HERE;
}

static double value_of(const struct plan_factor *factor)
{
    return factor->samples > 0 ? factor->value : 1.0;
}

double plan_adjust_ttft(const struct plan_adjust *adjust, const struct plan *plan)
{
    return adjust == NULL ? 1.0 : value_of(&adjust->ttft[place_of(plan)][plan->mode]);
}

double plan_adjust_token(const struct plan_adjust *adjust, const struct plan *plan)
{
    return adjust == NULL ? 1.0 : value_of(&adjust->token[place_of(plan)][plan->mode]);
}

static bool is_time(double ms)
{
    return isfinite(ms) && ms > 0.0;
}

static double ratio_of(const struct plan_factor *factor, double predicted_ms, double measured_ms)
{
    double ratio = measured_ms / (predicted_ms / value_of(factor));

    return fmin(fmax(ratio, 1.0 / factor_max), factor_max);
}

/* In the logarithm: half as long and twice as long weigh the same. */
static void learn(struct plan_factor *factor, double predicted_ms, double measured_ms)
{
    double ratio, gain;

    if (!is_time(measured_ms) || !is_time(predicted_ms))
        return;
    ratio = ratio_of(factor, predicted_ms, measured_ms);
    gain = fmax(gain_least, 1.0 / (factor->samples + 1.0));
    factor->value = value_of(factor) * pow(ratio / value_of(factor), gain);
    if (factor->samples < UINT32_MAX)
        factor->samples++;
}

void plan_observe(struct plan_adjust *adjust, const struct plan *plan, const struct plan_cost *cost,
                  double ttft_ms, double token_ms)
{
    learn(&adjust->ttft[place_of(plan)][plan->mode], cost->ttft_ms, ttft_ms);
    learn(&adjust->token[place_of(plan)][plan->mode], cost->token_ms, token_ms);
}

void plan_observe_fully(struct plan_adjust *adjust, const struct plan *plan,
                        const struct plan_cost *cost, double token_ms)
{
    struct plan_factor *factor = &adjust->token[place_of(plan)][plan->mode];

    if (!is_time(token_ms) || !is_time(cost->token_ms))
        return;
    factor->value = ratio_of(factor, cost->token_ms, token_ms);
    if (factor->samples == 0)
        factor->samples = 1;
}

void plan_adjust_forget(struct plan_adjust *adjust, uint32_t worker)
{
    memset(adjust->ttft[worker], 0, sizeof(adjust->ttft[worker]));
    memset(adjust->token[worker], 0, sizeof(adjust->token[worker]));
}
