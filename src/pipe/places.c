/* pipe/places.c - see places.h.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/places.h"

static const double RETRY_MS_MIN = 100.0, RETRY_MS_MAX = 5000.0;

/* How soon a place could serve.  Ordered: smaller is better. */
enum rank {
    RANK_RESUME,  /* the lost place, connected again: its session may still be there */
    RANK_UP,      /* connected, with a free session */
    RANK_FULL,    /* connected; the last known count of free sessions was 0 */
    RANK_DIALING, /* on its way to be connected */
    RANK_DOWN,    /* may be dialled */
    RANK_LOST,    /* the place just lost, not connected */
    RANK_LOCAL,
    RANK_NEVER,
};

static enum rank rank_of(const struct pipe_place *p, uint32_t first, uint32_t last, bool lost,
                         double now_ms)
{
    bool known = p->last > p->first; /* else it never was up: it may hold anything */

    if (known && (first < p->first || last > p->last))
        return RANK_NEVER;
    if (p->state == PLACE_UNFIT || p->state == PLACE_DRAINING ||
        (p->state == PLACE_DOWN && now_ms < p->retry_ms))
        return RANK_NEVER;
    if (p->local)
        return p->state == PLACE_UP ? RANK_LOCAL : RANK_NEVER;
    if (lost)
        return p->state == PLACE_UP ? RANK_RESUME : RANK_LOST;
    if (p->state == PLACE_UP)
        return p->sessions_free > 0 ? RANK_UP : RANK_FULL;
    return p->state == PLACE_DIALING ? RANK_DIALING : RANK_DOWN;
}

int pipe_places_choose(const struct pipe_place *places, uint32_t count, uint32_t first,
                       uint32_t last, int lost, uint64_t excluded, double now_ms)
{
    enum rank best_rank = RANK_NEVER;
    double    best_ms = 0.0;
    int       best = -1;

    for (uint32_t i = 0; i < count && i < PIPE_PLACES_MAX; i++) {
        double    ms = places[i].rtt_ms + places[i].queue_ms;
        enum rank rank;

        if ((excluded >> i & 1) != 0)
            continue;
        rank = rank_of(&places[i], first, last, lost == (int)i, now_ms);
        if (rank == RANK_NEVER || rank > best_rank || (rank == best_rank && ms >= best_ms))
            continue;
        best_rank = rank;
        best_ms = ms;
        best = (int)i;
    }
    return best;
}

void pipe_place_failed(struct pipe_place *place, double now_ms, uint32_t random)
{
    double delay_ms = RETRY_MS_MIN;

    for (uint32_t i = 0; i < place->failures && delay_ms < RETRY_MS_MAX; i++)
        delay_ms *= 2.0;
    if (delay_ms > RETRY_MS_MAX)
        delay_ms = RETRY_MS_MAX;
    if (place->failures < UINT32_MAX)
        place->failures++;
    if (place->state != PLACE_UNFIT)
        place->state = PLACE_DOWN;
    /* From half to all of the delay, so that the clients of a dead worker do not come back as
     * one. */
    place->retry_ms = now_ms + delay_ms * (0.5 + 0.5 * random / (double)UINT32_MAX);
}

void pipe_place_up(struct pipe_place *place, double now_ms)
{
    place->state = PLACE_UP;
    place->failures = 0;
    place->retry_ms = now_ms;
}
