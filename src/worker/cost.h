/* worker/cost.h - how long forwards take, learned from those that have run.
 *
 * A forward of n positions through one layer takes about a + b n ms: reading the weights, and work
 * for each position.  Both are fitted to the last forwards by least squares, so a model, a device
 * or a depth that changes is followed within some tens of them.  It is an estimate for planning;
 * what a forward took is what counts.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_COST_H
#define WORKER_COST_H

#include <stdint.h>

/* Zeroed: nothing is known yet. */
struct worker_cost {
    double count, tokens, ms, tokens_tokens, tokens_ms; /* sums that forget */
};

/* `tokens` positions have run through `layers` layers in `ms`.  What else a forward does counts as
 * some layers more, not necessarily whole ones. */
void worker_cost_note(struct worker_cost *cost, uint32_t tokens, double layers, double ms);

/* What that will take; 0 while nothing is known. */
double worker_cost_ms(const struct worker_cost *cost, uint32_t tokens, double layers);

/* What each further position adds; 0 while nothing is known. */
double worker_cost_token_ms(const struct worker_cost *cost, double layers);

/* The most positions that take no longer than `ms`; 1 at least, UINT32_MAX while nothing is
 * known. */
uint32_t worker_cost_tokens(const struct worker_cost *cost, double layers, double ms);

#endif
