/* worker/cost.c - see cost.h.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/cost.h"

/* A forward weighs this much less with each that follows: about the last 32 count. */
static const double keep = 1.0 - 1.0 / 32;

/* Sizes that vary by less than this, relative to their mean, say nothing about the slope. */
static const double spread_least = 0.01;

void worker_cost_note(struct worker_cost *cost, uint32_t tokens, double layers, double ms)
{
    double n = tokens, layer_ms = ms / layers;

    cost->count = cost->count * keep + 1;
    cost->tokens = cost->tokens * keep + n;
    cost->ms = cost->ms * keep + layer_ms;
    cost->tokens_tokens = cost->tokens_tokens * keep + n * n;
    cost->tokens_ms = cost->tokens_ms * keep + n * layer_ms;
}

/* ms a position and layer.  Never more than if the weights cost nothing, which is also what holds
 * until sizes have varied: whoever plans with it then errs on the safe side. */
static double slope(const struct worker_cost *cost)
{
    double mean_tokens, variance, covariance, most;

    if (cost->tokens <= 0)
        return 0;
    mean_tokens = cost->tokens / cost->count;
    most = cost->ms / cost->tokens;
    variance = cost->tokens_tokens / cost->count - mean_tokens * mean_tokens;
    if (variance <= spread_least * spread_least * mean_tokens * mean_tokens)
        return most;
    covariance = cost->tokens_ms / cost->count - mean_tokens * cost->ms / cost->count;
    if (covariance <= 0)
        return 0;
    return covariance / variance < most ? covariance / variance : most;
}

static double layer_ms(const struct worker_cost *cost, double tokens)
{
    if (cost->count <= 0)
        return 0;
    return cost->ms / cost->count + slope(cost) * (tokens - cost->tokens / cost->count);
}

double worker_cost_ms(const struct worker_cost *cost, uint32_t tokens, double layers)
{
    return layer_ms(cost, tokens) * layers;
}

double worker_cost_token_ms(const struct worker_cost *cost, double layers)
{
    return slope(cost) * layers;
}

uint32_t worker_cost_tokens(const struct worker_cost *cost, double layers, double ms)
{
    double token_ms = worker_cost_token_ms(cost, layers), most;

    if (cost->count <= 0)
        return UINT32_MAX;
    ms -= layer_ms(cost, 0) * layers;
    if (ms <= token_ms)
        return 1;
    most = token_ms > 0 ? ms / token_ms : UINT32_MAX;
    return most < UINT32_MAX ? (uint32_t)most : UINT32_MAX;
}
