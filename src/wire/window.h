/* wire/window.h - the extremes of late: filters for estimates of a path.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_WINDOW_H
#define WIRE_WINDOW_H

#include <stdbool.h>

#define WIRE_LOW_HOLDS_MS 10000.0

enum { WIRE_BEST_ROUNDS = 10 };

/* The smallest value of the last one to two WIRE_LOW_HOLDS_MS; INFINITY: there was none. */
struct wire_low {
    double value[2]; /* of this period and the last one */
    double since_ms; /* when this one began */
};

void   wire_low_init(struct wire_low *l);
void   wire_low_note(struct wire_low *l, double now_ms, double value);
double wire_low_value(const struct wire_low *l);

/* The largest value of the last rounds; 0: there was none.  Zeroed, it is ready. */
struct wire_best {
    double   value[WIRE_BEST_ROUNDS]; /* of each round, the current one at [round] */
    unsigned round;
};

void   wire_best_note(struct wire_best *b, double value);
void   wire_best_round(struct wire_best *b);                 /* the next one begins */
void   wire_best_restart(struct wire_best *b, double value); /* all that is known */
double wire_best_value(const struct wire_best *b);
/* This round's is more than so many times the best of the others. */
bool wire_best_grows(const struct wire_best *b, double factor);

#endif
