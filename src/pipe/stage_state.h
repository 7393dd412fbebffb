/* pipe/stage_state.h - a stage of a running pipeline: its journal and who runs it.
 *
 * Usually one endpoint is active and alone.  A loss leaves none, until the replacement that was
 * asked for is there.  A drain goes through
 *
 *     active (draining)                       alone; a successor is asked for
 *     active (draining) + feeding             the successor is fed beside it, no rows wanted
 *     finishing + active                      once it is level, new windows go to it
 *     active                                  the predecessor owes nothing more and is closed
 *
 * and whichever of the two is lost on the way, the other one takes up what it owed.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PIPE_STAGE_STATE_H
#define PIPE_STAGE_STATE_H

#include "pipe/endpoint.h"

enum pipe_open {
    PIPE_OPEN_NOT,    /* none is asked for */
    PIPE_OPEN_WANTED, /* PIPE_ACT_OPEN is to be told */
    PIPE_OPEN_ASKED,  /* it was; opened or unavailable will come */
};

struct pipe_stage_state {
    bool                 keep;  /* the journal, from position 0 on */
    bool                 final; /* makes logits */
    struct pipe_journal  journal;
    uint64_t             answered; /* entries before it were, and were handed on */
    struct pipe_endpoint slots[2];
    enum pipe_open       open;
    uint32_t             lost;      /* the endpoint that the asked one replaces */
    struct pipe_legacy   legacy;    /* of that one, should its session be resumed */
    double               outage_ms; /* since when a window waits for a replacement; 0 = none */
    bool                 outage;    /* a loss is not yet made good */
    struct pipeline_stage_stats stats;
};

void pipe_stage_fini(struct pipe_stage_state *s);

/* The endpoint in this role, or NULL. */
struct pipe_endpoint *pipe_stage_in_role(struct pipe_stage_state *s, enum pipe_role role);
struct pipe_endpoint *pipe_stage_by_id(struct pipe_stage_state *s, uint32_t id);

/* A window comes in.  The block is the stage's on success; MCP_ENOMEM. */
int  pipe_stage_append(struct pipe_stage_state *s, double now_ms, const struct pipe_entry *entry);
void pipe_stage_trim(struct pipe_stage_state *s, uint32_t pos);

/* Ask for an endpoint when there is none and none is asked for. */
void pipe_stage_ask(struct pipe_stage_state *s);

void pipe_stage_opened(struct pipe_stage_state *s, double now_ms, uint32_t id,
                       const struct pipe_opened *opened);

/* The endpoint in this slot is gone, or is given up and has to be closed (`close`).  False: the
 * stage is lost for good, it kept no journal. */
bool pipe_stage_gone(struct pipe_stage_state *s, double now_ms, struct pipe_endpoint *e,
                     bool close);
void pipe_stage_draining(struct pipe_stage_state *s, struct pipe_endpoint *e);

/* The next window, in order, that has been answered: its entry (without the block) and its rows
 * (the caller's, or NULL).  False when there is none. */
bool pipe_stage_take(struct pipe_stage_state *s, double now_ms, struct pipe_entry *entry,
                     struct pipe_block **rows);

/* The next CLOSE; the next FORWARD, TRIM or OPEN.  `number` counts sendings. */
bool pipe_stage_close_act(struct pipe_stage_state *s, struct pipe_act *act);
bool pipe_stage_act(struct pipe_stage_state *s, double now_ms, uint64_t *number,
                    struct pipe_act *act);

#endif
