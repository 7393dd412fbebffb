/* pipe/calibrate.c - see calibrate.h.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/calibrate.h"

/* Upper ends of all bins but the last.  Most guesses are said to be nearly certain. */
static const float bin_ends[CALIBRATE_BINS - 1] = { 0.2f, 0.4f, 0.6f, 0.75f, 0.85f, 0.93f, 0.98f };

/* Each guess leaves so much of those before it in its bin: the last 30 or so count. */
#define DECAY 0.97f
/* And each token without a guess. */
#define FADE 0.995f
/* What was said counts as so many guesses; so does MEAN_PRIOR before anything was compared. */
#define PRIOR_TRIES 4.0f
#define MEAN_PRIOR  0.7f

static unsigned bin_of(float said)
{
    unsigned i = 0;

    while (i < CALIBRATE_BINS - 1 && said >= bin_ends[i])
        i++;
    return i;
}

static void count(struct calibrate_count *c, bool right)
{
    c->tries = c->tries * DECAY + 1.0f;
    c->right = c->right * DECAY + (right ? 1.0f : 0.0f);
}

void calibrate_learn(struct calibrate *c, float said, bool right)
{
    count(&c->bins[bin_of(said)], right);
    count(&c->all, right);
}

static void fade(struct calibrate_count *c)
{
    c->tries *= FADE;
    c->right *= FADE;
}

void calibrate_fade(struct calibrate *c)
{
    for (unsigned i = 0; i < CALIBRATE_BINS; i++)
        fade(&c->bins[i]);
    fade(&c->all);
}

static float rate(const struct calibrate_count *c, float prior)
{
    return (c->right + PRIOR_TRIES * prior) / (c->tries + PRIOR_TRIES);
}

float calibrate_said(const struct calibrate *c, float said)
{
    return rate(&c->bins[bin_of(said)], said);
}

float calibrate_mean(const struct calibrate *c)
{
    return rate(&c->all, MEAN_PRIOR);
}
