/* plan/ways.c - see ways.h.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/ways.h"

static const uint32_t chunk_sizes[PLAN_CHUNKS] = { 16, 32, 64, 128, 256, 512 };
static const uint32_t depths[PLAN_DEPTHS] = { 0, 1, 2, 3, 4, 6, 8, 12, 16 };
static const uint32_t window_counts[PLAN_WINDOW_COUNTS] = { 1, 2, 3, 4, 6, 8, 12, 16 };

static void list_chunks(struct plan_ways *w, uint32_t forced)
{
    w->chunk_count = 0;
    if (forced > 0)
        w->chunks[w->chunk_count++] = forced;
    for (int i = 0; i < PLAN_CHUNKS && forced == 0; i++)
        w->chunks[w->chunk_count++] = chunk_sizes[i];
}

static uint32_t index_of_depth(struct plan_ways *w, uint32_t depth)
{
    uint32_t i = 0;

    while (i < w->depth_count && w->depths[i] != depth)
        i++;
    if (i == w->depth_count)
        w->depths[w->depth_count++] = depth;
    return i;
}

/* Where windows do not count, depth 0 is plain decoding, which is listed by itself. */
static bool is_first(const struct plan_ways *w, uint32_t draft, uint32_t depth)
{
    const struct plan_way *last = &w->ways[w->way_count - 1];

    if (w->way_count == 0)
        return true;
    return depth > 0 && (last->depth != depth || last->draft != draft);
}

static void add_way(struct plan_ways *w, const struct plan_draft *draft, uint32_t index,
                    uint32_t depth, uint32_t windows)
{
    struct plan_way *way = &w->ways[w->way_count];
    bool             first = is_first(w, index, depth);

    if (draft != NULL && draft->depth_max > 0 && depth > draft->depth_max)
        return;
    *way = (struct plan_way){ .draft = index, .depth = depth, .windows = windows, .first = first };
    way->depth_index = index_of_depth(w, depth);
    plan_drafting_init(&way->drafting, draft, depth, windows);
    plan_drafting_init(&way->alone, draft, depth, 1);
    w->way_count++;
}

static void add_ways_of(struct plan_ways *w, const struct plan_facts *f,
                        const struct plan_request *r, uint32_t draft)
{
    uint32_t depth_count = r->depth >= 0 ? 1 : PLAN_DEPTHS;
    uint32_t window_count = r->windows > 0 ? 1 : PLAN_WINDOW_COUNTS;

    for (uint32_t d = 0; d < depth_count; d++) {
        uint32_t depth = r->depth >= 0 ? (uint32_t)r->depth : depths[d];

        for (uint32_t i = 0; i < window_count; i++) {
            uint32_t windows = r->windows > 0 ? r->windows : window_counts[i];

            if (depth > 0 || windows > 1)
                add_way(w, &f->drafts[draft], draft, depth, windows);
        }
    }
}

void plan_ways_init(struct plan_ways *w, const struct plan_facts *f, const struct plan_request *r)
{
    list_chunks(w, r->chunk_tokens);
    w->depth_count = w->way_count = 0;
    /* Plain decoding first: drafts have to be better, not as good. */
    if (r->depth <= 0 && r->windows <= 1)
        add_way(w, NULL, 0, 0, 1);
    for (uint32_t i = 0; i < f->draft_count; i++)
        if (r->drafters == 0 || (r->drafters >> f->drafts[i].drafter & 1) != 0)
            add_ways_of(w, f, r, i);
}

uint32_t plan_ways_chunks(const struct plan_ways *w, uint32_t fresh)
{
    uint32_t count = 1;

    while (count < w->chunk_count && w->chunks[count - 1] < fresh)
        count++;
    return count;
}
