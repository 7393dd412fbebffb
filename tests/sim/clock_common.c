/* sim/clock_common.c - see clock_common.h: a binary heap.
 *
 * SPDX-License-Identifier: MIT */
#include "sim/clock_common.h"

static const double START_MS = 1000.0; /* 0 means "never" to many */

void sim_clock_init(struct sim_clock *c, uint64_t seed)
{
    *c = (struct sim_clock){ .now_ms = START_MS, .seed = seed, .random = seed, .cap = 1024 };
    c->heap = calloc(c->cap, sizeof(*c->heap));
    assert_non_null(c->heap);
}

void sim_clock_fini(struct sim_clock *c)
{
    for (uint32_t i = 0; i < c->count; i++)
        free(c->heap[i].bytes);
    free(c->heap);
}

static bool is_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ms < b->at_ms || (a->at_ms == b->at_ms && a->order < b->order);
}

void sim_post(struct sim_clock *c, double at_ms, struct sim_event event)
{
    uint32_t i = c->count++;

    SIM_REQUIRE(c, c->count < SIM_EVENTS_MAX, "%u events wait\n", c->count);
    if (c->count > c->cap) {
        c->cap *= 2;
        c->heap = realloc(c->heap, c->cap * sizeof(*c->heap));
        assert_non_null(c->heap);
    }
    c->count_max = c->count > c->count_max ? c->count : c->count_max;
    event.at_ms = at_ms > c->now_ms ? at_ms : c->now_ms;
    event.order = ++c->order;
    for (; i > 0 && is_before(&event, &c->heap[(i - 1) / 2]); i = (i - 1) / 2)
        c->heap[i] = c->heap[(i - 1) / 2];
    c->heap[i] = event;
}

bool sim_clock_step(struct sim_clock *c)
{
    struct sim_event first, last;
    uint32_t         i = 0;

    if (c->count == 0)
        return false;
    first = c->heap[0];
    last = c->heap[--c->count];
    for (;;) {
        uint32_t child = 2 * i + 1;

        if (child + 1 < c->count && is_before(&c->heap[child + 1], &c->heap[child]))
            child++;
        if (child >= c->count || !is_before(&c->heap[child], &last))
            break;
        c->heap[i] = c->heap[child];
        i = child;
    }
    c->heap[i] = last;
    c->now_ms = first.at_ms;
    c->fired++;
    first.fire(&first);
    return true;
}

uint32_t sim_below(struct sim_clock *c, uint32_t limit)
{
    return unit_below(&c->random, limit);
}

bool sim_chance(struct sim_clock *c, uint32_t percent)
{
    return sim_below(c, 100) < percent;
}

double sim_between(struct sim_clock *c, double low, double high)
{
    return low + (high - low) * (sim_below(c, 1 << 20) / (double)(1 << 20));
}
