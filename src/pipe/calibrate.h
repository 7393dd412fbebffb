/* pipe/calibrate.h - how often a draft model's guesses are right, by how sure it says it is.
 *
 * A draft model gives its guess a probability.  That is its own belief about its own text; what
 * counts is how often the text's model agrees, which depends on both and on how tokens are picked.
 * So guesses are counted in bins of what was said, of late; the word itself stands in for a few of
 * them.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PIPE_CALIBRATE_H
#define PIPE_CALIBRATE_H

#include <stdbool.h>

enum { CALIBRATE_BINS = 8 };

/* Decayed counts of guesses; all zeros is the beginning. */
struct calibrate_count {
    float right, tries;
};

struct calibrate {
    struct calibrate_count bins[CALIBRATE_BINS], all;
};

/* A guess that was given probability `said` has been compared. */
void calibrate_learn(struct calibrate *c, float said, bool right);

/* A token has come without one: what is known gets older. */
void calibrate_fade(struct calibrate *c);

/* The probability of a guess, in [0, 1]; and of one that is yet to be made. */
float calibrate_said(const struct calibrate *c, float said);
float calibrate_mean(const struct calibrate *c);

#endif
