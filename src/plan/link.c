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
        if ((double)bytes * 8.0 / (ms * 1000.0) <= goodput_mbit(link, direction, now_ms))
            return;
        *count = 0; /* what came before said less than the path can do */
    }
    link->bulks[direction][*count % PLAN_LINK_BULKS] =
        (struct plan_link_bulk){ .now_ms = now_ms, .ms = ms, .bytes = bytes };
    ++*count;
}

static void estimate_goodput(struct plan_link_estimate *e, const struct plan_link *link,
                             enum plan_direction direction, double now_ms)
{
    if (link->bulk_count[direction] == 0)
        return;
    e->mbit[direction] = goodput_mbit(link, direction, now_ms);
    e->mbit_age_ms[direction] = fmax(0.0, now_ms - bulk_back(link, direction, 0)->now_ms);
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
