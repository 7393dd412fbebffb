/* worker/guess.h - how many guesses a window has to have so that they pay.
 *
 * A window of a token and d guesses brings 1 token for certain, and each guess as probably as all
 * up to it are right; it takes as long as its size is seen to take.  On a GPU some positions more
 * cost next to nothing, on a CPU each of them nearly what a token does.  The best d is the one with
 * most tokens a ms; with 0 there is no speculation.
 *
 * Sizes that were not seen are supposed to lie on the line through those that were; as long as only
 * one was, a position is supposed to cost a quarter of a token.  So a new device tries guesses at
 * once, and has its own figures after the first of them.  Figures age, with the context and the
 * load: where guesses do not pay, one is tried all the same now and then, and of more than
 * one what was not seen for long is forgotten.
 *
 * Pure.  Threads: one at a time.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_GUESS_H
#define WORKER_GUESS_H

#include <stdint.h>

enum {
    /* In one window: with more, the last ones are hardly ever right, and a window that others wait
     * for would be long. */
    WORKER_GUESSES_MAX = 15,
};

/* Zeroed: nothing is known yet. */
struct worker_guess {
    double   ms[WORKER_GUESSES_MAX + 2];   /* of a forward of so many positions; 0 = not seen */
    uint64_t seen[WORKER_GUESSES_MAX + 2]; /* the last of them among all noted */
    uint64_t noted;
    uint32_t declined; /* windows in a row that went without what was offered */
};

/* A forward of so many positions, each with its row of logits, took `ms`. */
void worker_guess_note(struct worker_guess *g, uint32_t positions, double ms);

/* What one takes; 0 while nothing is known. */
double worker_guess_ms(const struct worker_guess *g, uint32_t positions);

/* Of `offered` guesses, at most WORKER_GUESSES_MAX, of which probability[i] is right if those
 * before it are: how many to run. */
uint32_t worker_guess_choose(struct worker_guess *g, const float *probability, uint32_t offered);

#endif
