/* wire/window.c - see window.h.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/window.h"

#include <math.h>
#include <stddef.h>

void wire_low_init(struct wire_low *l)
{
    *l = (struct wire_low){ .value = { INFINITY, INFINITY } };
}

void wire_low_note(struct wire_low *l, double now_ms, double value)
{
    if (now_ms - l->since_ms > WIRE_LOW_HOLDS_MS) {
        l->value[1] = now_ms - l->since_ms > 2 * WIRE_LOW_HOLDS_MS ? INFINITY : l->value[0];
        l->value[0] = INFINITY;
        l->since_ms = now_ms;
    }
    l->value[0] = fmin(l->value[0], value);
}

double wire_low_value(const struct wire_low *l)
{
    return fmin(l->value[0], l->value[1]);
}

void wire_best_note(struct wire_best *b, double value)
{
    b->value[b->round] = fmax(b->value[b->round], value);
}

void wire_best_round(struct wire_best *b)
{
    b->round = (b->round + 1) % WIRE_BEST_ROUNDS;
    b->value[b->round] = 0;
}

void wire_best_restart(struct wire_best *b, double value)
{
    *b = (struct wire_best){ .value = { value } };
}

/* Of all rounds but this one. */
static double best_before(const struct wire_best *b)
{
    double best = 0;

    for (unsigned i = 1; i < WIRE_BEST_ROUNDS; i++)
        best = fmax(best, b->value[(b->round + i) % WIRE_BEST_ROUNDS]);
    return best;
}

double wire_best_value(const struct wire_best *b)
{
    return fmax(b->value[b->round], best_before(b));
}

bool wire_best_grows(const struct wire_best *b, double factor)
{
    return b->value[b->round] > factor * best_before(b);
}
