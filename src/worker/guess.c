/* worker/guess.c - see guess.h.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/guess.h"

#include <assert.h>

/* Of a token's time, what a further position is supposed to cost where nothing like it was seen. */
static const double part_supposed = 0.25;

/* Times follow a change within some windows, and one that was disturbed counts little. */
static const double weight = 0.25;

/* Tokens a ms have to be more by so much: what is gained by less is within the times' noise. */
static const double gain_least = 1.02;

/* So many windows go without a guess that does not pay, then one is tried: at twice the time of a
 * token that is 1.6 % lost. */
enum { DECLINED_MAX = 64 };

enum {
    WINDOW_MAX = WORKER_GUESSES_MAX + 1,
    /* A token, and one with the guess that is tried: what is supposed begins with these. */
    KEPT_MAX = 2,
    FORGOTTEN_AFTER = 256,
};

void worker_guess_note(struct worker_guess *g, uint32_t positions, double ms)
{
    double *seen;

    if (positions == 0 || positions > WINDOW_MAX)
        return;
    seen = &g->ms[positions];
    *seen = *seen > 0 ? *seen + weight * (ms - *seen) : ms;
    g->seen[positions] = ++g->noted;
    for (uint32_t i = KEPT_MAX + 1; i <= WINDOW_MAX; i++)
        if (g->noted - g->seen[i] > FORGOTTEN_AFTER)
            g->ms[i] = 0;
}

/* The largest size below, or the smallest from `from` on, that was seen; 0 = none. */
static uint32_t seen_below(const struct worker_guess *g, uint32_t from)
{
    while (from > 0 && g->ms[--from] <= 0)
        ;
    return from;
}

static uint32_t seen_from(const struct worker_guess *g, uint32_t from)
{
    while (from <= WINDOW_MAX && g->ms[from] <= 0)
        from++;
    return from <= WINDOW_MAX ? from : 0;
}

static double slope(const struct worker_guess *g, uint32_t a, uint32_t b)
{
    return (g->ms[b] - g->ms[a]) / (b - a);
}

double worker_guess_ms(const struct worker_guess *g, uint32_t positions)
{
    uint32_t above = seen_from(g, positions), below = seen_below(g, positions), before;
    double   position_ms;

    if (above == positions || below == 0)
        return g->ms[above];
    if (above != 0)
        return g->ms[below] + slope(g, below, above) * (positions - below);
    before = seen_below(g, below);
    position_ms = before != 0 ? slope(g, before, below) : part_supposed * g->ms[below] / below;
    return g->ms[below] + (position_ms > 0 ? position_ms : 0) * (positions - below);
}

/* The best number by these times; *gain: its tokens a ms over those without guesses. */
static uint32_t best_of(const struct worker_guess *g, const float *probability, uint32_t offered,
                        double *gain)
{
    double   first_ms = worker_guess_ms(g, 1), tokens = 1, right = 1;
    uint32_t best = 0;

    *gain = 1;
    for (uint32_t i = 0; i < offered && first_ms > 0; i++) {
        double ms = worker_guess_ms(g, i + 2);

        right *= probability[i];
        tokens += right;
        if (tokens * first_ms / ms > *gain) {
            *gain = tokens * first_ms / ms;
            best = i + 1;
        }
    }
    return best;
}

uint32_t worker_guess_choose(struct worker_guess *g, const float *probability, uint32_t offered)
{
    uint32_t best;
    double   gain;

    assert(offered <= WORKER_GUESSES_MAX);
    if (offered == 0 || g->ms[1] <= 0)
        return 0;
    best = best_of(g, probability, offered, &gain);
    if (gain >= gain_least) {
        g->declined = 0;
        return best;
    }
    if (++g->declined < DECLINED_MAX)
        return 0;
    g->declined = 0;
    return 1;
}
