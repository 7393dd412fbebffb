/* plan/link.c - see link.h.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/link.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const double plan_link_rtt_ms_unknown = 150.0;
const double plan_link_mbit_unknown = 20.0;

/* RFC 3550's gain. */
static const double jitter_gain = 1.0 / 16;

static bool is_time(double ms)
{
    return isfinite(ms) && ms >= 0.0;
}

void plan_link_init(struct plan_link *link)
{
    memset(link, 0, sizeof(*link));
}

/* ---- round trips -------------------------------------------------------------------------- */

static const struct plan_link_rtt *rtt_back(const struct plan_link *link, uint32_t back)
{
    return &link->rtts[(link->rtt_count - 1 - back) % PLAN_LINK_RTTS];
}

void plan_link_rtt(struct plan_link *link, double rtt_ms, double now_ms)
{
    if (!is_time(rtt_ms) || rtt_ms <= 0.0 || !is_time(now_ms))
        return;
    if (link->rtt_count > 0)
        link->jitter_ms += jitter_gain *
                           (fabs(rtt_ms - rtt_back(link, 0)->rtt_ms) - link->jitter_ms);
    link->rtts[link->rtt_count % PLAN_LINK_RTTS] = (struct plan_link_rtt){ .now_ms = now_ms,
                                                                           .rtt_ms = rtt_ms };
    link->rtt_count++;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The samples that count, ascending. */
static uint32_t recent_rtts(const struct plan_link *link, double now_ms, double out[PLAN_LINK_RTTS])
{
    uint32_t held = link->rtt_count < PLAN_LINK_RTTS ? (uint32_t)link->rtt_count : PLAN_LINK_RTTS;
    uint32_t count = 0;

    for (; count < held; count++) {
        const struct plan_link_rtt *sample = rtt_back(link, count);

        if (count >= PLAN_LINK_RTTS_LEAST && now_ms - sample->now_ms > PLAN_LINK_WINDOW_MS)
            break;
        out[count] = sample->rtt_ms;
    }
    qsort(out, count, sizeof(out[0]), ascending);
    return count;
}

static void estimate_rtt(struct plan_link_estimate *e, const struct plan_link *link, double now_ms)
{
    double   sorted[PLAN_LINK_RTTS] = { 0.0 };
    uint32_t count = recent_rtts(link, now_ms, sorted);

    if (count == 0)
        return;
    e->rtt_min_ms = sorted[0];
    e->rtt_ms = 0.5 * (sorted[(count - 1) / 2] + sorted[count / 2]);
    e->spread_ms = sorted[(count * 9 + 9) / 10 - 1] - sorted[0];
    e->jitter_ms = link->jitter_ms;
    e->rtt_age_ms = fmax(0.0, now_ms - rtt_back(link, 0)->now_ms);
}

/* ---- goodput ------------------------------------------------------------------------------ */

static const struct plan_link_bulk *bulk_back(const struct plan_link *link,
                                              enum plan_direction direction, uint32_t back)
{
    return &link->bulks[direction][(link->bulk_count[direction] - 1 - back) % PLAN_LINK_BULKS];
}

/* Bytes over time of the window; of the newest piece alone where that is older. */
static double goodput_mbit(const struct plan_link *link, enum plan_direction direction,
                           double now_ms)
{
    uint64_t count = link->bulk_count[direction];
    uint32_t held = count < PLAN_LINK_BULKS ? (uint32_t)count : PLAN_LINK_BULKS;
    double   bytes = 0.0, ms = 0.0;

    for (uint32_t back = 0; back < held; back++) {
        const struct plan_link_bulk *piece = bulk_back(link, direction, back);

        if (back > 0 && now_ms - piece->now_ms > PLAN_LINK_WINDOW_MS)
            break;
        bytes += (double)piece->bytes;
        ms += piece->ms;
    }
    return ms > 0.0 ? bytes * 8.0 / (ms * 1000.0) : 0.0;
}

void plan_link_bulk(struct plan_link *link, enum plan_direction direction, uint64_t bytes,
                    double ms, bool saturated, double now_ms)
{
    uint64_t *count = &link->bulk_count[direction];

    if (bytes < PLAN_LINK_BULK_BYTES || !is_time(ms) || ms <= 0.0 || !is_time(now_ms))
        return;
    if (!saturated) {
        double known = link->seen_mbit[direction] > 0.0 ? link->seen_mbit[direction]
                       : *count > 0                     ? goodput_mbit(link, direction, now_ms)
                                                        : plan_link_mbit_unknown;

        if ((double)bytes * 8.0 / (ms * 1000.0) <= known)
            return;
        *count = 0; /* what came before said less than the path can do */
    }
    link->bulks[direction][*count % PLAN_LINK_BULKS] =
        (struct plan_link_bulk){ .now_ms = now_ms, .ms = ms, .bytes = bytes };
    ++*count;
    link->seen_mbit[PLAN_UP] = link->seen_mbit[PLAN_DOWN] = 0.0;
}

static void estimate_goodput(struct plan_link_estimate *e, const struct plan_link *link,
                             enum plan_direction direction, double now_ms)
{
    if (link->seen_mbit[direction] > 0.0) {
        e->mbit[direction] = link->seen_mbit[direction];
        e->mbit_age_ms[direction] = fmax(0.0, now_ms - link->seen_ms);
    } else if (link->bulk_count[direction] > 0) {
        e->mbit[direction] = goodput_mbit(link, direction, now_ms);
        e->mbit_age_ms[direction] = fmax(0.0, now_ms - bulk_back(link, direction, 0)->now_ms);
    }
}

/* ---- windows, where bulk is old ------------------------------------------------------------- */

/* Of the last three small messages the quickest: others may have waited behind windows. */
static double base_ms(const struct plan_link *link)
{
    double least = rtt_back(link, 0)->rtt_ms;

    for (uint32_t back = 1; back < 3 && back < link->rtt_count; back++)
        least = fmin(least, rtt_back(link, back)->rtt_ms);
    return least;
}

static double newest_bulk_ms(const struct plan_link *link)
{
    double newest = -INFINITY;

    for (int d = 0; d < PLAN_DIRECTIONS; d++)
        if (link->bulk_count[d] > 0)
            newest = fmax(newest, bulk_back(link, (enum plan_direction)d, 0)->now_ms);
    return newest;
}

/* What the windows since the last bulk say. */
struct passes {
    uint32_t count;
    double   bytes;                  /* both ways, on average */
    double   excess_ms, expected_ms; /* of such a one: taken, and by the goodput of bulk */
    double   carried_mbit[PLAN_DIRECTIONS];
    double   now_ms; /* of the newest */
};

/* A direction of which nothing is known counts as the other. */
static double pass_expected_ms(const struct plan_link_pass     *pass,
                               const struct plan_link_estimate *e)
{
    double up = e->mbit[PLAN_UP] > 0.0 ? e->mbit[PLAN_UP] : e->mbit[PLAN_DOWN];
    double down = e->mbit[PLAN_DOWN] > 0.0 ? e->mbit[PLAN_DOWN] : up;

    return up > 0.0 ? (pass->bytes[PLAN_UP] / up + pass->bytes[PLAN_DOWN] / down) * 8e-3 : 0.0;
}

static struct passes recent_passes(const struct plan_link *link, const struct plan_link_estimate *e,
                                   double now_ms)
{
    double        slopes[PLAN_LINK_PASSES], bytes[PLAN_DIRECTIONS] = { 0.0 }, expected = 0.0;
    double        after_ms = newest_bulk_ms(link), oldest_ms = 0.0;
    uint32_t      held = (uint32_t)fmin((double)link->pass_count, PLAN_LINK_PASSES);
    struct passes p = { .count = 0 };

    for (; p.count < held; p.count++) {
        const struct plan_link_pass *pass =
            &link->passes[(link->pass_count - 1 - p.count) % PLAN_LINK_PASSES];
        bool old = now_ms - pass->now_ms > PLAN_LINK_WINDOW_MS;

        if (pass->now_ms <= after_ms || (old && p.count >= PLAN_LINK_PASSES_LEAST))
            break;
        slopes[p.count] = pass->excess_ms / (pass->bytes[PLAN_UP] + pass->bytes[PLAN_DOWN]);
        expected += pass_expected_ms(pass, e);
        for (int d = 0; d < PLAN_DIRECTIONS; d++)
            bytes[d] += pass->bytes[d];
        p.now_ms = fmax(p.now_ms, pass->now_ms);
        oldest_ms = pass->now_ms;
    }
    if (p.count < PLAN_LINK_PASSES_LEAST)
        return p;
    qsort(slopes, p.count, sizeof(slopes[0]), ascending);
    p.bytes = (bytes[PLAN_UP] + bytes[PLAN_DOWN]) / p.count;
    p.excess_ms = slopes[p.count / 2] * p.bytes;
    p.expected_ms = expected / p.count;
    for (int d = 0; d < PLAN_DIRECTIONS && p.now_ms > oldest_ms; d++)
        p.carried_mbit[d] = bytes[d] * (p.count - 1) / p.count * 8e-3 / (p.now_ms - oldest_ms);
    return p;
}

static const double pass_tolerance = 1.5;

static bool slower_than(double expected_ms, double excess_ms, double noise_ms)
{
    return excess_ms > pass_tolerance * expected_ms + noise_ms;
}

/* Take the goodputs to have changed by a factor, both; what is not known of one is not known
 * thereafter.  Several windows on their way wait for each other and seem to go more slowly than the
 * path does; it does carry what it has carried. */
static void scale_goodput(struct plan_link *link, const struct plan_link_estimate *e,
                          const struct passes *p, double factor)
{
    for (int d = 0; d < PLAN_DIRECTIONS; d++)
        if (e->mbit[d] > 0.0)
            link->seen_mbit[d] = fmax(e->mbit[d] * factor, p->carried_mbit[d]);
}

/* What is believed stays as long as windows do not contradict it: noise hides much.  When it is
 * too slow and what bulk has shown would do, that is believed again. */
static void correct_goodput(struct plan_link *link, double now_ms)
{
    struct plan_link_estimate believed = plan_link_estimate(link, now_ms), bulk = believed;
    struct passes             p = recent_passes(link, &believed, now_ms);
    double                    noise_ms, slow_ms, bulk_ms;

    if (p.count < PLAN_LINK_PASSES_LEAST)
        return;
    noise_ms = PLAN_LINK_PASS_NOISE_MS + believed.rtt_ms - believed.rtt_min_ms;
    link->seen_ms = now_ms;
    if (p.expected_ms <= 0.0) { /* nothing was known: both ways alike */
        for (int d = 0; d < PLAN_DIRECTIONS && p.excess_ms > noise_ms; d++)
            link->seen_mbit[d] = fmax(p.bytes * 8e-3 / p.excess_ms, p.carried_mbit[d]);
        return;
    }
    slow_ms = link->slow_ms;
    link->slow_ms = 0.0;
    if (slower_than(p.expected_ms, p.excess_ms, noise_ms)) {
        link->slow_ms = slow_ms > 0.0 ? slow_ms : now_ms;
        if (now_ms - link->slow_ms < PLAN_LINK_DOUBT_MS)
            return;
        scale_goodput(link, &believed, &p, p.expected_ms / p.excess_ms);
        return;
    }
    if (p.expected_ms <= pass_tolerance * (p.excess_ms + noise_ms))
        return;
    for (int d = 0; d < PLAN_DIRECTIONS; d++)
        bulk.mbit[d] = goodput_mbit(link, (enum plan_direction)d, now_ms);
    bulk_ms = recent_passes(link, &bulk, now_ms).expected_ms;
    if (link->seen_mbit[PLAN_UP] + link->seen_mbit[PLAN_DOWN] > 0.0 && bulk_ms > 0.0 &&
        !slower_than(bulk_ms, p.excess_ms, noise_ms))
        link->seen_mbit[PLAN_UP] = link->seen_mbit[PLAN_DOWN] = 0.0;
    else
        scale_goodput(link, &believed, &p, p.expected_ms / (p.excess_ms + noise_ms));
}

void plan_link_pass(struct plan_link *link, double ms, uint64_t up, uint64_t down, double now_ms)
{
    if (up + down <= PLAN_LINK_PACKET_BYTES) {
        plan_link_rtt(link, ms, now_ms);
        return;
    }
    if (!is_time(ms) || ms <= 0.0 || !is_time(now_ms) || link->rtt_count == 0)
        return;
    link->passes[link->pass_count++ % PLAN_LINK_PASSES] =
        (struct plan_link_pass){ .now_ms = now_ms,
                                 .excess_ms = fmax(0.0, ms - base_ms(link)),
                                 .bytes = { (double)up, (double)down } };
    correct_goodput(link, now_ms);
}

/* ---- the estimate ------------------------------------------------------------------------- */

struct plan_link_estimate plan_link_estimate(const struct plan_link *link, double now_ms)
{
    struct plan_link_estimate e = { .rtt_ms = 0.0 };

    estimate_rtt(&e, link, now_ms);
    estimate_goodput(&e, link, PLAN_UP, now_ms);
    estimate_goodput(&e, link, PLAN_DOWN, now_ms);
    return e;
}

bool plan_link_probe_wanted(const struct plan_link *link, enum plan_direction direction,
                            double now_ms)
{
    return link->bulk_count[direction] == 0 ||
           now_ms - bulk_back(link, direction, 0)->now_ms > PLAN_LINK_PROBE_MS;
}

double plan_link_rtt_ms(const struct plan_link_estimate *e)
{
    return e->rtt_ms > 0.0 ? e->rtt_ms : plan_link_rtt_ms_unknown;
}

double plan_link_bytes_ms(const struct plan_link_estimate *e, enum plan_direction direction,
                          double bytes)
{
    double mbit = e->mbit[direction] > 0.0 ? e->mbit[direction] : plan_link_mbit_unknown;

    return bytes * 8.0 / (mbit * 1000.0);
}

double plan_link_message_ms(const struct plan_link_estimate *e, enum plan_direction direction,
                            double bytes)
{
    return 0.5 * plan_link_rtt_ms(e) + plan_link_bytes_ms(e, direction, bytes);
}

void plan_link_unknown(const struct plan_link_estimate *e, char *text, size_t bytes)
{
    bool        rtt = e->rtt_ms <= 0.0, up = e->mbit[PLAN_UP] <= 0.0;
    bool        down = e->mbit[PLAN_DOWN] <= 0.0;
    const char *goodput = up && down ? "goodput" : up ? "goodput up" : "goodput down";

    if (bytes > 0)
        text[0] = '\0';
    if (rtt && (up || down))
        snprintf(text, bytes, "round trip and %s not measured: %g ms and %g Mbit/s assumed",
                 goodput, plan_link_rtt_ms_unknown, plan_link_mbit_unknown);
    else if (rtt)
        snprintf(text, bytes, "round trip not measured: %g ms assumed", plan_link_rtt_ms_unknown);
    else if (up || down)
        snprintf(text, bytes, "%s not measured: %g Mbit/s assumed", goodput,
                 plan_link_mbit_unknown);
}
