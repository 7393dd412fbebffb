/* plan/describe.h - plans, and why they won, lost or are impossible, in words.
 *
 * Inside plan/ only.  SPDX-License-Identifier: MIT */
#ifndef PLAN_DESCRIBE_H
#define PLAN_DESCRIBE_H

#include "plan/plan.h"

/* What one mode breaks, from rival->cost. */
void plan_why_impossible(char text[PLAN_WHY_BYTES], const struct plan_facts *facts,
                         const struct plan_request *request, enum plan_mode mode,
                         const struct plan_rival *rival);

/* `second` is the best other mode; NULL = there is none. */
void plan_why_won(char text[PLAN_WHY_BYTES], const struct plan_request *request,
                  const struct plan_rival *winner, const struct plan_rival *second);
void plan_why_lost(char text[PLAN_WHY_BYTES], const struct plan_request *request,
                   const struct plan_rival *loser, const struct plan_rival *winner);

#endif
