/* wire/pace.c - see pace.h: a small BBR over parts and their acknowledgements.
 *
 *     START   2 x rate x RTT, so that the credit doubles each round, until the rate has grown by
 *             less than a quarter in three rounds
 *     STEADY  1.2 x rate x RTT, 1.5 x while the rate grows
 *     PROBE   0.75 x rate x RTT: the link's queue runs empty, and a round of parts sent so
 *             measures the RTT without it; after START, every ten seconds, and in doubt
 *
 * The rate of a part is what was acknowledged between its sending and its acknowledgement over
 * that time; the estimate is the largest of ten rounds.  Acknowledgements that come together
 * are counted together, or those that a network gathers would show up to a burst too much.  A
 * part that left while there was room in the credit says how much the application had to send,
 * not what the link carries: it counts only when it raises the estimate.
 *
 * The RTT is that of parts, their own transmission included: a link is full when one part more
 * than its bandwidth-delay product is unacknowledged.  It is the mean of a PROBE and not its
 * minimum, or a link whose delay jitters by more than a quarter would starve: each round would
 * find a lower rate and allow less.
 *
 * Both are taken from when parts came to the peer, not from when their acknowledgements came to
 * us.  But the credit must last until these have come, so what the quickest of a round waited is
 * added; not in PROBE, or the two ends, which wait for each other's queues, would never empty one.
 *
 * The credit bounds the queue and a clock the bursts: parts leave at the rate times a gain.  It is
 * above 1 so that the rate can grow, and does not hold parts that no burst can be made of.
 *
 * What lies before a part explains how long it takes: max(RTT, bytes / rate).  If every part
 * of two periods takes much longer, the link has become slower or the path longer.  Then the
 * rate begins anew from what the last period delivered (unless the application had little to
 * send), and a PROBE tells which it was: a path that is longer also without a queue gets the
 * old rate back.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/pace.h"

#include "wire/lag.h"
#include "wire/window.h"

#include <math.h>
#include <mcp/error.h>
#include <stddef.h>
#include <stdlib.h>

/* What may be unacknowledged, of the product of rate and RTT, and how fast parts leave, of the
 * rate.  START doubles only if the last of a round leave early enough: 2 / ln 2, as in BBR. */
struct gain {
    double credit, clock;
};

static const struct gain START_GAIN = { 2.0, 2.9 };
static const struct gain START_LIMITED_GAIN = { 2.0, 1.25 }; /* little to send: nothing doubles */
static const struct gain STEADY_GAIN = { 1.2, 1.25 };
static const struct gain GROWING_GAIN = { 1.5, 2.0 };
static const struct gain PROBE_GAIN = { 0.75, 1.25 };

#define BURST_MS     2.0  /* of parts that the clock was late for: a timer's grain, and some */
#define WAIT_MOST_MS 10.0 /* or an RTT; a longer wait for acknowledgements is not made up for */

#define START_GROWTH      1.25 /* a round's rate over the best so far, to go on doubling */
#define RTT_HOLDS_MS      WIRE_LOW_HOLDS_MS
#define RTT_DOUBTFUL_MS   1000.0 /* when the rate has doubled or halved since */
#define RATE_GROWS        1.1    /* in one round */
#define PERIOD_MS         20.0   /* of the watch on delays, at least; and an RTT */
#define PROBE_AGAIN       0.85   /* of the RTT it began with: a lower one may fall further */
#define DELAY_TOLERANCE   1.3
#define DELAY_SLACK_MS    2.0 /* a busy machine's scheduling */
#define ROOM_UNUSED_MS    1.0 /* longer, and the application had nothing to send */
#define INTERVAL_LEAST_MS 0.01

enum {
    START_FLAT_ROUNDS = 3,
    SLOW_PERIODS = 2,
};

enum phase { START, STEADY, PROBE };

/* A part in flight, or several that share a record, and what was true when it left. */
struct part {
    uint64_t end;      /* sent bytes up to and with it */
    uint64_t flight;   /* unacknowledged bytes up to and with it */
    uint64_t acked;    /* bytes acknowledged before the burst of acknowledgements */
    double   acked_ms; /* that came then (peer's clock), or before the link was idle until then */
    double   sent_ms;
    bool     limited;
};

struct wire_pace_state {
    enum phase  phase;
    struct part parts[WIRE_PACE_SENT_MAX]; /* a ring; touched only as far as it was in use */
    size_t      first, count;
    uint64_t    forgotten; /* bytes that will not be acknowledged */
    uint64_t    acked;     /* what the next part will note */
    double      acked_ms;

    struct wire_lag lag;
    double          wait_ms;      /* of the quickest acknowledgement of the last round, */
    double          wait_next_ms; /* and of this one */

    double   clock_gain;    /* of the rate's estimate */
    double   free_ms;       /* when the clock lets the next part go */
    bool     held;          /* only the clock has held one since the last one left */
    uint64_t limited_until; /* parts sent before so much was acknowledged are limited */
    double   room_ms;       /* since when the credit has room for a part; INFINITY: none */

    struct wire_best rates;
    uint64_t         round_sent;   /* a part that is sent beyond this ends the round */
    bool             round_counts; /* it had a part that was not limited */
    double           start_rate;   /* best of START so far */
    unsigned         start_flat;   /* rounds without growth */

    double          rtt_ms;    /* of a part without a queue; START: the smallest yet; 0: none yet */
    double          rtt_at_ms; /* when PROBE measured it, */
    double          rtt_rate;  /* and the rate's estimate then */
    struct wire_low rtt_low;   /* for rtt_min_ms */

    double   period_ms;    /* when the period began */
    uint64_t period_acked; /* acknowledged by then */
    bool     period_slow;  /* every part of it so far was too late, */
    bool     period_full;  /* and none was limited */
    unsigned slow_periods; /* one after another */

    uint64_t probe_sent;   /* parts beyond measure, */
    uint64_t probe_last;   /* as far as this */
    unsigned probe_parts;  /* that have come through */
    double   probe_sum_ms; /* of their RTTs */
    double   probe_min_ms;
    double   rate_before; /* the estimate that PROBE puts in doubt */
};

/* ---- estimates -------------------------------------------------------------------------- */

uint64_t wire_pace_unacked(const struct wire_pace *p)
{
    return p->sent_bytes - p->acked_bytes - p->state->forgotten;
}

static void rtt_note(struct wire_pace *p, double now_ms, double rtt_ms)
{
    wire_low_note(&p->state->rtt_low, now_ms, rtt_ms);
    p->rtt_min_ms = wire_low_value(&p->state->rtt_low);
}

static void rate_restart(struct wire_pace *p, double rate)
{
    wire_best_restart(&p->state->rates, rate);
    p->rate_bytes_per_ms = rate;
}

/* In whole parts, as a fraction of one could never leave.  PROBE rounds down; else a quarter of
 * a part is not worth one, but 0.4 is: two parts in flight must be able to become three. */
static void gain_set(struct wire_pace *p, struct gain gain)
{
    struct wire_pace_state *s = p->state;
    const bool              drain = gain.credit < 1;
    const double            wait_ms = drain ? 0 : fmin(s->wait_ms, fmax(s->rtt_ms, WAIT_MOST_MS));
    const double            parts = p->rate_bytes_per_ms * (gain.credit * s->rtt_ms + wait_ms) /
                         WIRE_PART_BYTES;
    const double credit = (drain ? floor(parts) : ceil(parts - 0.25)) * WIRE_PART_BYTES;
    const double least = drain ? WIRE_PART_BYTES : WIRE_CREDIT_MIN;

    p->credit_bytes = (uint64_t)fmin(fmax(credit, least), WIRE_CREDIT_MAX);
    s->clock_gain = gain.clock;
}

/* A part that is acknowledged later than this was held up by more than what lay before it. */
static double late_ms(const struct wire_pace *p, uint64_t flight)
{
    double explained = fmax(p->state->rtt_ms, (double)flight / p->rate_bytes_per_ms);

    return DELAY_TOLERANCE * explained + DELAY_SLACK_MS;
}

/* A part's RTT includes its own transmission: another rate puts it in doubt. */
static bool rtt_holds(const struct wire_pace *p, double now_ms)
{
    const double ratio = p->rate_bytes_per_ms / p->state->rtt_rate;
    const bool   doubtful = ratio <= 0.5 || ratio >= 2;

    return now_ms - p->state->rtt_at_ms < (doubtful ? RTT_DOUBTFUL_MS : RTT_HOLDS_MS);
}

/* ---- phases ------------------------------------------------------------------------------ */

static void period_begin(struct wire_pace *p, double now_ms)
{
    p->state->period_ms = now_ms;
    p->state->period_acked = p->acked_bytes;
    p->state->period_slow = p->state->period_full = true;
}

static void steady_enter(struct wire_pace *p, double now_ms)
{
    p->state->phase = STEADY;
    p->state->slow_periods = 0;
    period_begin(p, now_ms);
}

static void probe_enter(struct wire_pace *p, double rate_before)
{
    struct wire_pace_state *s = p->state;

    s->phase = PROBE;
    s->probe_sent = p->sent_bytes;
    s->probe_parts = 0;
    s->probe_sum_ms = 0;
    s->probe_min_ms = INFINITY;
    s->rate_before = rate_before;
    gain_set(p, PROBE_GAIN);
}

/* A round has passed in START: has the rate grown? */
static void start_round(struct wire_pace *p)
{
    struct wire_pace_state *s = p->state;

    if (p->rate_bytes_per_ms >= START_GROWTH * s->start_rate) {
        s->start_rate = p->rate_bytes_per_ms;
        s->start_flat = 0;
    } else if (++s->start_flat == START_FLAT_ROUNDS) {
        probe_enter(p, p->rate_bytes_per_ms);
    }
}

/* A part has come through in STEADY: do delays need another explanation? */
static void steady_part(struct wire_pace *p, double now_ms, double rtt_ms, const struct part *part)
{
    struct wire_pace_state *s = p->state;
    const double            took_ms = now_ms - s->period_ms, before = p->rate_bytes_per_ms;

    s->period_slow &= rtt_ms > late_ms(p, part->flight);
    s->period_full &= !part->limited;
    if (took_ms >= fmax(PERIOD_MS, s->rtt_ms)) {
        s->slow_periods = s->period_slow ? s->slow_periods + 1 : 0;
        if (s->slow_periods == SLOW_PERIODS) {
            /* From the last period only: the first may have begun before the change. */
            if (s->period_full)
                rate_restart(p, (double)(p->acked_bytes - s->period_acked) / took_ms);
            probe_enter(p, before);
            return;
        }
        period_begin(p, now_ms);
    }
    if (!rtt_holds(p, now_ms))
        probe_enter(p, before);
    else
        gain_set(p, wire_best_grows(&s->rates, RATE_GROWS) ? GROWING_GAIN : STEADY_GAIN);
}

/* A part that was sent in PROBE has come through. */
static void probe_part(struct wire_pace *p, double now_ms, double rtt_ms, uint64_t end)
{
    struct wire_pace_state *s = p->state;
    double                  own_ms, before_ms;

    if (s->probe_parts++ == 0)
        s->probe_last = p->sent_bytes;
    s->probe_sum_ms += rtt_ms;
    s->probe_min_ms = fmin(s->probe_min_ms, rtt_ms);
    if (end < s->probe_last)
        return;
    /* At a lower rate a part's own transmission takes longer, too; twice that, as the new rate
     * is known badly, proves nothing about the path. */
    own_ms = WIRE_PART_BYTES / p->rate_bytes_per_ms;
    if (p->rate_bytes_per_ms < s->rate_before && s->probe_min_ms - 2 * own_ms > late_ms(p, 0))
        rate_restart(p, s->rate_before);
    before_ms = s->rtt_ms;
    s->rtt_ms = s->probe_sum_ms / s->probe_parts;
    s->rtt_at_ms = now_ms;
    s->rtt_rate = p->rate_bytes_per_ms;
    if (s->rtt_ms < PROBE_AGAIN * before_ms) {
        probe_enter(p, s->rate_before); /* the queue may not be empty yet */
    } else {
        steady_enter(p, now_ms);
        gain_set(p, STEADY_GAIN);
    }
}

/* ---- acknowledgements ---------------------------------------------------------------------- */

/* Rounds without a part that counts do not age the others. */
static void round_end(struct wire_pace *p)
{
    struct wire_pace_state *s = p->state;

    s->round_sent = p->sent_bytes;
    s->wait_ms = s->wait_next_ms;
    s->wait_next_ms = INFINITY;
    if (!s->round_counts)
        return;
    s->round_counts = false;
    wire_best_round(&s->rates);
    if (s->phase == START)
        start_round(p);
}

/* The rate that an acknowledged part shows. */
static void rate_sample(struct wire_pace *p, double at_ms, const struct part *part)
{
    struct wire_pace_state *s = p->state;
    const double            took_ms = at_ms - part->acked_ms;
    const uint64_t          bytes = s->acked - part->acked;
    double                  rate;

    if (part->end > s->round_sent)
        round_end(p);
    if (took_ms < INTERVAL_LEAST_MS || bytes == 0)
        return;
    rate = (double)bytes / took_ms;
    p->sample = (struct wire_pace_sample){ .number = p->sample.number + 1,
                                           .bytes = bytes,
                                           .ms = took_ms,
                                           .full = s->phase == STEADY && !part->limited };
    if (part->limited && rate < p->rate_bytes_per_ms)
        return;
    s->round_counts = true;
    wire_best_note(&s->rates, rate);
    p->rate_bytes_per_ms = wire_best_value(&s->rates);
}

/* It came to the peer at at_ms of its clock, which was own_ms at most by ours. */
static void part_acked(struct wire_pace *p, double now_ms, double at_ms, const struct part *part)
{
    struct wire_pace_state *s = p->state;
    const double            own_ms = wire_lag_own_ms(&s->lag, at_ms);
    const double            rtt_ms = fmax(own_ms - part->sent_ms, INTERVAL_LEAST_MS);

    s->wait_next_ms = fmin(s->wait_next_ms, now_ms - own_ms);
    rtt_note(p, now_ms, rtt_ms);
    if (s->phase == PROBE && part->end <= s->probe_sent)
        return; /* still of the time before */
    if (s->phase == START && (s->rtt_ms <= 0 || rtt_ms < s->rtt_ms))
        s->rtt_ms = rtt_ms;
    rate_sample(p, at_ms, part);
    switch (s->phase) {
    case START:
        if (s->start_rate > 0) /* a round has passed */
            gain_set(p, part->limited ? START_LIMITED_GAIN : START_GAIN);
        break;
    case STEADY: steady_part(p, now_ms, rtt_ms, part); break;
    case PROBE:
        if (part->end > s->probe_sent)
            probe_part(p, now_ms, rtt_ms, part->end);
        break;
    }
}

/* Take the parts that are done from the ring; the last of them goes to *last. */
static bool parts_pop(struct wire_pace *p, struct part *last)
{
    struct wire_pace_state *s = p->state;
    bool                    any = false;

    while (s->count > 0 && s->parts[s->first].end <= p->acked_bytes + s->forgotten) {
        *last = s->parts[s->first];
        s->first = (s->first + 1) % WIRE_PACE_SENT_MAX;
        s->count--;
        any = true;
    }
    if (s->count == 0)
        s->first = 0; /* the same memory again */
    return any;
}

/* Has the credit room for a part, and since when? */
static void room_note(struct wire_pace *p, double now_ms)
{
    if (wire_pace_unacked(p) + WIRE_PART_BYTES > p->credit_bytes)
        p->state->room_ms = INFINITY;
    else
        p->state->room_ms = fmin(p->state->room_ms, now_ms);
}

/* ---- pace.h -------------------------------------------------------------------------------- */

int wire_pace_init(struct wire_pace *p)
{
    struct wire_pace_state *s = calloc(1, sizeof(*s));

    *p = (struct wire_pace){ .credit_bytes = WIRE_CREDIT_FIRST, .state = s };
    if (s == NULL)
        return MCP_ENOMEM;
    s->room_ms = s->wait_next_ms = INFINITY;
    s->clock_gain = START_GAIN.clock;
    wire_lag_init(&s->lag);
    wire_low_init(&s->rtt_low);
    return MCP_OK;
}

void wire_pace_fini(struct wire_pace *p)
{
    free(p->state);
    *p = (struct wire_pace){ 0 };
}

double wire_pace_due_ms(const struct wire_pace *p, uint64_t bytes)
{
    const uint64_t flight = wire_pace_unacked(p), most = flight + bytes;

    if (flight == 0)
        return -INFINITY;
    if (most > p->credit_bytes)
        return INFINITY;
    return p->clocked && most > WIRE_CREDIT_MIN ? p->state->free_ms : -INFINITY;
}

bool wire_pace_may_send(struct wire_pace *p, double now_ms, uint64_t bytes)
{
    const double due_ms = wire_pace_due_ms(p, bytes);

    if (due_ms <= now_ms)
        return true;
    p->state->held = p->state->held || due_ms < INFINITY;
    return false;
}

/* The next part may leave when these bytes have, at the clock's rate. */
static void clock_advance(struct wire_pace *p, double now_ms, uint64_t bytes)
{
    struct wire_pace_state *s = p->state;

    if (p->rate_bytes_per_ms > 0)
        s->free_ms = fmin(fmax(s->free_ms, now_ms - BURST_MS), now_ms) +
                     (double)bytes / (s->clock_gain * p->rate_bytes_per_ms);
}

void wire_pace_sent(struct wire_pace *p, double now_ms, uint64_t bytes)
{
    struct wire_pace_state *s = p->state;
    const uint64_t          before = wire_pace_unacked(p);
    struct part            *part;

    if (!s->held && now_ms - s->room_ms > ROOM_UNUSED_MS)
        s->limited_until = p->acked_bytes + before + 1;
    s->held = false;
    if (before == 0) {
        s->acked = p->acked_bytes;
        s->acked_ms = wire_lag_peer_ms(&s->lag, now_ms);
    }
    clock_advance(p, now_ms, bytes);
    p->sent_bytes += bytes;
    if (s->count == WIRE_PACE_SENT_MAX) {
        part = &s->parts[(s->first + s->count - 1) % WIRE_PACE_SENT_MAX];
        part->end = p->sent_bytes;
    } else {
        part = &s->parts[(s->first + s->count++) % WIRE_PACE_SENT_MAX];
        *part = (struct part){
            .end = p->sent_bytes,
            .flight = before + bytes,
            .acked = s->acked,
            .acked_ms = s->acked_ms,
            .sent_ms = now_ms,
            .limited = p->acked_bytes < s->limited_until,
        };
    }
    s->room_ms = INFINITY;
    room_note(p, now_ms);
}

void wire_pace_acked(struct wire_pace *p, double now_ms, uint64_t bytes, uint64_t stamp_us)
{
    struct wire_pace_state *s = p->state;
    const double            at_ms = wire_lag_at_ms(&s->lag, now_ms, stamp_us);
    struct part             last = { 0 };

    bytes = bytes < wire_pace_unacked(p) ? bytes : wire_pace_unacked(p);
    if (fabs(at_ms - s->acked_ms) > INTERVAL_LEAST_MS) { /* a lying stamp may go back */
        s->acked = p->acked_bytes;
        s->acked_ms = at_ms;
    }
    p->acked_bytes += bytes;
    if (parts_pop(p, &last))
        part_acked(p, now_ms, at_ms, &last);
    room_note(p, now_ms);
}

void wire_pace_forget(struct wire_pace *p, uint64_t bytes)
{
    struct part last = { 0 };

    p->state->forgotten += bytes < wire_pace_unacked(p) ? bytes : wire_pace_unacked(p);
    parts_pop(p, &last); /* their end says nothing about the link */
}

void wire_pace_rtt(struct wire_pace *p, double now_ms, double rtt_ms)
{
    if (rtt_ms > 0)
        rtt_note(p, now_ms, rtt_ms);
}

double wire_pace_goodput_mbit(const struct wire_pace *p)
{
    return p->rate_bytes_per_ms * 8 / 1000;
}
