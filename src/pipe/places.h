/* pipe/places.h - which of the known workers should run a stage, at first and after a loss.
 *
 * Pure choice over a table that the owner keeps up to date.  A simple rule until the planner
 * decides (DESIGN section 7): among places that hold the layers and are not known to be
 * unfit, prefer one that is connected, then free sessions, then the smaller round trip plus
 * queue; after a loss prefer another place than the lost one, unless the lost one's session can
 * be resumed at once (its connection is up again).  Local comes last, after the lost place if
 * that may be dialled: exclude it to have local at once.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PIPE_PLACES_H
#define PIPE_PLACES_H

#include <stdbool.h>
#include <stdint.h>

enum { PIPE_PLACES_MAX = 64 };

enum pipe_place_state {
    PLACE_DOWN,     /* no connection; may be dialled after retry_ms */
    PLACE_DIALING,  /* being connected */
    PLACE_UP,       /* connected and described */
    PLACE_DRAINING, /* connected, takes no new session */
    PLACE_UNFIT,    /* wrong model, version or identity: never again */
};

struct pipe_place {
    enum pipe_place_state state;
    bool                  local;
    uint32_t              first, last; /* layers held; known once it was up */
    uint32_t              sessions_free;
    double                rtt_ms;
    double                queue_ms; /* estimated wait for a decode there */
    double                retry_ms; /* absolute: not before */
    uint32_t              failures; /* in a row */
};

/* The place for layers [first, last), or -1.  `lost` is the place just lost (-1 = none), which is
 * taken only when its connection is up again or no other worker is fit; `excluded` is a bit for
 * each place not to be used. */
int pipe_places_choose(const struct pipe_place *places, uint32_t count, uint32_t first,
                       uint32_t last, int lost, uint64_t excluded, double now_ms);

/* After a failure: when to try again (doubling from 100 ms to 5 s, with jitter from `random`). */
void pipe_place_failed(struct pipe_place *place, double now_ms, uint32_t random);
void pipe_place_up(struct pipe_place *place, double now_ms);

#endif
