/* plan/ways.h - the sizes that the scan tries: of chunks, and of drafts and windows.
 *
 * Inside plan/ only.  SPDX-License-Identifier: MIT */
#ifndef PLAN_WAYS_H
#define PLAN_WAYS_H

#include "plan/pace.h"

enum {
    PLAN_CHUNKS = 6,
    PLAN_DEPTHS = 9,
    PLAN_WINDOW_COUNTS = 8,
    PLAN_WAYS_MAX = 1 + PLAN_DRAFTS_MAX * PLAN_DEPTHS * PLAN_WINDOW_COUNTS,
};

/* One way to decode. */
struct plan_way {
    uint32_t draft, depth, windows; /* windows: where hidden states leave; elsewhere always 1 */
    uint32_t depth_index;           /* into plan_ways.depths */
    bool     first;                 /* of its depth: the one that counts where windows do not */
    struct plan_drafting drafting;  /* with these windows, */
    struct plan_drafting alone;     /* with one at a time */
};

/* What the request leaves open. */
struct plan_ways {
    uint32_t        chunk_count, chunks[PLAN_CHUNKS]; /* ascending */
    uint32_t        depth_count, depths[PLAN_DEPTHS];
    uint32_t        way_count; /* 0: speculation is asked for that no drafter does */
    struct plan_way ways[PLAN_WAYS_MAX];
};

void plan_ways_init(struct plan_ways *ways, const struct plan_facts *facts,
                    const struct plan_request *request);

/* Chunks that differ: all up to the first that holds `fresh` tokens. */
uint32_t plan_ways_chunks(const struct plan_ways *ways, uint32_t fresh);

#endif
