/* plan/pace.h - how long windows take through the places of a plan, one by one and one behind the
 * other.
 *
 *     here --codec--> up --> worker --> down --codec--> here       a pass: all of them in turn
 *
 * While many windows follow each other each place works on another one, so the slowest sets the
 * pace.  First and last layers are one place: they share this machine.
 *
 * Inside plan/ only.  SPDX-License-Identifier: MIT */
#ifndef PLAN_PACE_H
#define PLAN_PACE_H

#include "plan/view.h"

/* A forward of some number of tokens at one place. */
struct plan_pace {
    double layer_ms, embed_ms, head_ms, call_ms;
};

/* At this machine and at each worker of a plan. */
struct plan_paces {
    struct plan_pace here, there[PLAN_HOPS_MAX];
};

/* What a plan's places and codec say about any window. */
struct plan_route {
    const struct plan_profile *here; /* NULL: nothing runs here */
    uint32_t                   hop_count;
    const struct plan_worker  *workers[PLAN_HOPS_MAX];
    bool                       cloud; /* tokens go out, tokens come back */
    uint32_t                   forwards_here;
    double                     work_here, work_there[PLAN_HOPS_MAX];
    double                     rtt_ms, queue_ms, frame_ms; /* of a window, all hops */
    double                     codec_ms;                   /* a token and hop, at each end */
    double                     up_bytes_ms, down_bytes_ms; /* a byte, all hops */
    double                     token_bytes, window_bytes;  /* each way and hop */
};

/* The way of windows before any handover: `mode` of a prefill plan does not matter.  `codec` NULL
 * = one that costs nothing, for a lower bound. */
void plan_route_init(struct plan_route *route, const struct plan_view *view,
                     const struct plan *plan, const struct plan_codec *codec);
/* All layers here. */
void plan_route_home(struct plan_route *route, const struct plan_view *view, uint32_t here);

void plan_paces_init(struct plan_paces *paces, const struct plan_route *route, uint32_t tokens,
                     uint32_t context);

struct plan_pass {
    double total_ms; /* sum of the terms */
    double term_ms[PLAN_TERMS];
    double busy_ms[PLAN_RESOURCES];
};

enum plan_phase { PLAN_PHASE_PREFILL, PLAN_PHASE_DECODE };

/* A window of `tokens`; with the logits of all of them in PLAN_PHASE_DECODE. */
void plan_pass_init(struct plan_pass *pass, const struct plan_route *route,
                    const struct plan_paces *paces, uint32_t tokens, enum plan_phase phase);

/* ---- prefill ------------------------------------------------------------------------------ */

struct plan_filling {
    double ms;       /* to the first logits */
    double first_ms; /* of the first chunk: from then on KV is there to be fetched */
    double term_ms[PLAN_TERMS];
    double busy_ms[PLAN_RESOURCES];
    double bytes_out, bytes_in;
};

struct plan_filling_paces {
    uint32_t          fresh, chunk, rest, full; /* tokens, of a chunk, of the last, full chunks */
    struct plan_paces chunk_paces, rest_paces;
    struct plan_paces last_paces; /* one row of logits */
};

void plan_filling_paces_init(struct plan_filling_paces *paces, const struct plan_route *route,
                             uint32_t cached, uint32_t fresh, uint32_t chunk);
void plan_filling_init(struct plan_filling *filling, const struct plan_route *route,
                       const struct plan_filling_paces *paces);

/* ---- decode ------------------------------------------------------------------------------- */

/* One way to send windows: a token, or drafts behind it, one or several at once. */
struct plan_drafting {
    const struct plan_draft *draft; /* NULL = none */
    uint32_t                 positions, windows;
    double                   accept;
    double                   again;      /* windows that follow the first of a run, expected */
    double                   rounds;     /* of these, times that all windows were used up */
    double                   run_tokens; /* until a draft is wrong, expected */
    double                   draft_ms;   /* a window */
};

void plan_drafting_init(struct plan_drafting *drafting, const struct plan_draft *draft,
                        uint32_t depth, uint32_t windows);

/* Per token. */
struct plan_rate {
    double ms;
    double window_ms; /* from sending to rows */
    double window_tokens;
    double windows;       /* sent, those in vain included */
    double slot_ms;       /* between windows sent at once: what the slowest place takes */
    double passes, slots; /* of a run: its time is that of so many windows and slots */
    double busy_ms[PLAN_RESOURCES];
};

/* `window` is a pass of drafting->positions, `plain` of one token. */
void plan_rate_init(struct plan_rate *rate, const struct plan_route *route,
                    const struct plan_drafting *drafting, const struct plan_pass *window,
                    const struct plan_pass *plain);
/* What rate->ms consists of. */
void plan_rate_terms(double term_ms[PLAN_TERMS], const struct plan_rate *rate,
                     const struct plan_drafting *drafting, const struct plan_pass *window,
                     const struct plan_pass *plain);

#endif
