/* pipe/speculate.h - how many guesses a window gets, and how many windows are on their way.
 *
 * Pure: told what windows took and how likely guesses are, it picks the plan under which a
 * token is expected to cost the least time.  docs/planning.md, "Speculation", has the formulas.
 *
 * A window of w positions keeps a stage for fixed + w x each milliseconds, learned from what has
 * run, and besides waits for the links.  The stages here share one thread; each one on a worker
 * computes beside the others.  Guesses by a draft model take that thread's time as well, one after
 * the other; a window that stops and waits has all of them first, and where windows follow each
 * other the first one goes out with those that are there.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PIPE_SPECULATE_H
#define PIPE_SPECULATE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SPECULATE_DRAFTS_MAX = 15, /* with the token before them a window of decode
                                   (PIPE_DECODE_TOKENS): urgent, not bulk */
    SPECULATE_HORIZON = 128,   /* guesses that are looked at */
    SPECULATE_STAGES = 16,     /* those beyond share the last place */
    SPECULATE_SIZES = 20,      /* larger windows teach nothing */
    SPECULATE_WAITS = 32,      /* windows over which the shortest wait is taken */
};

/* What windows of each size, up to SPECULATE_SIZES positions, have taken of late. */
struct speculate_cost {
    double ms[SPECULATE_SIZES], weight[SPECULATE_SIZES];
    bool   seen[SPECULATE_SIZES];
};

struct speculate {
    uint32_t              drafts, windows; /* as told; 0 = choose */
    uint32_t              windows_max;
    struct speculate_cost costs[SPECULATE_STAGES];
    bool                  away[SPECULATE_STAGES]; /* on a worker */
    double                waits[SPECULATE_WAITS];
    uint32_t              wait_count;
    uint32_t              draft_from; /* guesses from this one on cost draft_ms each, here */
    double                draft_ms;
};

struct speculate_plan {
    uint32_t drafts;  /* in a window.  The first also has the token before them */
    uint32_t windows; /* in flight; 1 = stop and wait */
    double   token_ms;
};

void speculate_init(struct speculate *s, uint32_t drafts, uint32_t windows, uint32_t windows_max);

/* `windows` windows of `positions` in all have kept a stage for so long.  What is done with their
 * rows is a stage too. */
void speculate_ran(struct speculate *s, uint32_t stage, bool away, double windows, double positions,
                   double ms);
/* A window spent so long neither computed nor queued at a worker: links, mostly. */
void speculate_waited(struct speculate *s, double ms);

/* From now on guesses `from` and later take `ms` each to be made; 0 = none does. */
void speculate_drafts(struct speculate *s, uint32_t from, double ms);

/* The best plan when guess i, after right ones, is right with probabilities[i].  Whoever lacks
 * guesses gets a plan without (drafts = 0, windows = 1), whatever was told. */
struct speculate_plan speculate_choose(const struct speculate *s, const float *probabilities,
                                       uint32_t count);

/* The time of a token under a plan, for speculate_choose() and its test. */
double speculate_token_ms(const struct speculate *s, const float *probabilities, uint32_t count,
                          uint32_t drafts, uint32_t windows);

#endif
