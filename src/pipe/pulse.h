/* pipe/pulse.h - is the other end alive?
 *
 * A stopped process or a black hole closes nothing; only silence tells.  While an answer is
 * awaited and nothing has been heard for beat_ms, a Beat is sent, which the other end echoes at
 * once whatever it computes.  Silence for silence_ms beyond the round trip means lost.  While
 * nothing is awaited nothing is sent: an idle session costs no traffic.
 *
 *     silence_ms is 2 to 3 beats: 250 ms by default
 *     lost when now > last heard or begin of waiting + silence_ms + rtt + spread
 *     spread = 4 x deviation, at most silence_ms: a path that is that uneven is no path
 *     stuck when now > last part of an answer or begin of waiting + patience_ms
 *
 * rtt and deviation are Jacobson's estimates (RFC 6298) from Beats and answers; before the first
 * sample the round trip counts as PULSE_RTT_UNKNOWN_MS.  Stuck is who echoes Beats and does not
 * compute, or sends half of an answer: patience is for the slowest computing.  Pure; one thread; times are > 0.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PIPE_PULSE_H
#define PIPE_PULSE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PULSE_BEAT_MS = 80,
    PULSE_SILENCE_MS = 250,
    PULSE_RTT_UNKNOWN_MS = 1000, /* RFC 6298's first timeout */
};

struct pulse {
    double beat_ms, silence_ms, patience_ms;
    double heard_ms;   /* last byte */
    double answer_ms;  /* last part of an answer */
    double waiting_ms; /* since when an answer is awaited; 0 = none is */
    double beat_sent_ms;
    double rtt_ms, deviation_ms; /* 0 = not measured */
    double rtt_min_ms;
};

void pulse_init(struct pulse *p, double now_ms, double patience_ms);
void pulse_awaiting(struct pulse *p, double now_ms, bool awaiting);
void pulse_heard(struct pulse *p, double now_ms);
void pulse_answer(struct pulse *p, double now_ms); /* a part of what is awaited has come */
void pulse_rtt(struct pulse *p, double rtt_ms);    /* a sample, without the other end's own time */

enum pulse_verdict { PULSE_FINE, PULSE_BEAT, PULSE_LOST, PULSE_STUCK };
/* What to do now; *next_ms is when to ask again (0 = when something changes).  BEAT: send one
 * now. */
enum pulse_verdict pulse_ask(struct pulse *p, double now_ms, double *next_ms);

#endif
