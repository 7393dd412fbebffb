/* plan/scan.h - all codecs, chunks and ways to draft for one choice of places, and the best so far.
 *
 * Inside plan/ only.  SPDX-License-Identifier: MIT */
#ifndef PLAN_SCAN_H
#define PLAN_SCAN_H

#include "plan/cost.h"
#include "plan/ways.h"

enum { PLAN_SEEN_MAX = 8 };

/* Lexicographic; smaller is better. */
struct plan_key {
    double first, second;
};

struct plan_scan {
    struct plan_view    view;
    struct plan_ways    ways;
    struct plan_choice *choice;
    struct plan_key     best[PLAN_MODES];        /* of the modes that are possible */
    uint32_t            codec_first, codec_last; /* that may be used */
    /* Different amounts of remote work in the cuts seen on the present worker, by number of
     * layers.  Weights of mixed types make a few; what finds no room is looked at again. */
    uint32_t seen_count[PLAN_LAYERS_MAX + 1];
    double   seen_work[PLAN_LAYERS_MAX + 1][PLAN_SEEN_MAX];
};

bool plan_key_less(struct plan_key a, struct plan_key b);

/* Whether the plan's places pass all limits with the first codec, chunk and way; a miss is
 * noted. */
enum plan_limit plan_scan_limit(struct plan_scan *scan, struct plan *plan);

/* Note the hits and misses of all plans with these places. */
void plan_scan_places(struct plan_scan *scan, struct plan *plan);

#endif
