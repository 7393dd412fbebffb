/* pipe/pulse.c - see pulse.h.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/pulse.h"

#include <math.h>

/* RFC 6298, section 2: gains of the smoothed round trip and of its mean deviation. */
static const double RTT_GAIN = 1.0 / 8, DEVIATION_GAIN = 1.0 / 4;

void pulse_init(struct pulse *p, double now_ms, double patience_ms)
{
    *p = (struct pulse){ .beat_ms = PULSE_BEAT_MS,
                         .silence_ms = PULSE_SILENCE_MS,
                         .patience_ms = patience_ms,
                         .heard_ms = now_ms };
}

void pulse_awaiting(struct pulse *p, double now_ms, bool awaiting)
{
    if (!awaiting)
        p->waiting_ms = 0.0;
    else if (p->waiting_ms == 0.0)
        p->waiting_ms = now_ms;
}

void pulse_heard(struct pulse *p, double now_ms)
{
    p->heard_ms = fmax(p->heard_ms, now_ms);
}

void pulse_answer(struct pulse *p, double now_ms)
{
    p->answer_ms = fmax(p->answer_ms, now_ms);
}

void pulse_rtt(struct pulse *p, double rtt_ms)
{
    /* A sample less the other end's own time can come out below nothing; !(>=) also for NaN. */
    if (!(rtt_ms >= 0.0))
        return;
    if (p->rtt_ms == 0.0) {
        p->rtt_ms = p->rtt_min_ms = rtt_ms;
        p->deviation_ms = rtt_ms / 2.0;
        return;
    }
    p->deviation_ms += DEVIATION_GAIN * (fabs(rtt_ms - p->rtt_ms) - p->deviation_ms);
    p->rtt_ms += RTT_GAIN * (rtt_ms - p->rtt_ms);
    p->rtt_min_ms = fmin(p->rtt_min_ms, rtt_ms);
}

enum pulse_verdict pulse_ask(struct pulse *p, double now_ms, double *next_ms)
{
    double quiet_ms = fmax(p->heard_ms, p->waiting_ms); /* since then nothing came */
    double spread_ms = fmin(4.0 * p->deviation_ms, p->silence_ms);
    double trip_ms = p->rtt_ms > 0.0 ? p->rtt_ms + spread_ms : PULSE_RTT_UNKNOWN_MS;
    double lost_ms = quiet_ms + p->silence_ms + trip_ms;
    double beat_ms = fmax(quiet_ms, p->beat_sent_ms) + p->beat_ms;

    *next_ms = 0.0;
    if (p->waiting_ms == 0.0)
        return PULSE_FINE;
    if (now_ms > lost_ms)
        return PULSE_LOST;
    if (now_ms > fmax(p->answer_ms, p->waiting_ms) + p->patience_ms)
        return PULSE_STUCK;
    if (now_ms >= beat_ms) {
        p->beat_sent_ms = now_ms;
        *next_ms = fmin(now_ms + p->beat_ms, nextafter(lost_ms, INFINITY));
        return PULSE_BEAT;
    }
    *next_ms = fmin(beat_ms, nextafter(lost_ms, INFINITY));
    return PULSE_FINE;
}
