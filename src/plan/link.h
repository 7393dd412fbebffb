/* plan/link.h - what the path to a worker does: round trip, its spread, bytes a second each way.
 *
 * Fed with samples by whoever owns the connection, asked for an estimate by the planner.  All of it
 * is about the last PLAN_LINK_WINDOW_MS (or, on a quiet link, the last few samples), so that a path
 * that changes is followed within that time; older figures are kept until newer ones come, and
 * their age is told.
 *
 * The goodput is that of bulk.  Where there has been none for a while, windows that are more than a
 * packet tell whether it still holds: what they take beyond small messages of the same time has to
 * be what their bytes take.  If it is half as much again, or two thirds, beyond the noise of small
 * messages and PLAN_LINK_PASS_NOISE_MS, both goodputs are taken to have changed by that factor: a
 * window goes up and its answer down, and which of the two was slow does not show.  A change that
 * costs a window less than that noise is not seen before bulk shows it.
 *
 *     message of n bytes, one way:   rtt / 2 + n / goodput
 *
 * Connections are warm and do not slow down after idling, so nothing is added for slow start.
 *
 * Pure: times are given, in ms of any monotonic clock.  One thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PLAN_LINK_H
#define PLAN_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PLAN_LINK_WINDOW_MS = 2500,    /* a change has to show within 3 s */
    PLAN_LINK_RTTS = 64,           /* round trips remembered: the window, at 25 tokens a second */
    PLAN_LINK_RTTS_LEAST = 5,      /* of these always, however old: a median needs some */
    PLAN_LINK_PASSES = 64,         /* windows remembered that are more than a packet */
    PLAN_LINK_PASSES_LEAST = 5,    /* of these always, as above; fewer prove nothing */
    PLAN_LINK_PACKET_BYTES = 1500, /* both ways; up to here a message counts as small */
    PLAN_LINK_PASS_NOISE_MS = 3,   /* threads of a busy machine that wake each other */
    PLAN_LINK_DOUBT_MS =
        1000,             /* until small messages have shown that it is not the path's length */
    PLAN_LINK_BULKS = 32, /* pieces of bulk remembered, each way */
    PLAN_LINK_BULK_BYTES = 16384, /* less than this is gone before a rate can be seen */
    PLAN_LINK_PROBE_MS = 15000,   /* a goodput older than this is worth a probe when idle */
};

enum plan_direction { PLAN_UP, PLAN_DOWN, PLAN_DIRECTIONS };

struct plan_link_rtt {
    double now_ms, rtt_ms;
};

/* A window and its answer: what they took beyond the small messages before them. */
struct plan_link_pass {
    double now_ms, excess_ms;
    double bytes[PLAN_DIRECTIONS];
};

struct plan_link_bulk {
    double   now_ms, ms;
    uint64_t bytes;
};

struct plan_link {
    uint64_t              rtt_count; /* ever; the newest is at (rtt_count - 1) % PLAN_LINK_RTTS */
    struct plan_link_rtt  rtts[PLAN_LINK_RTTS];
    double                jitter_ms;
    uint64_t              pass_count;
    struct plan_link_pass passes[PLAN_LINK_PASSES];
    double                seen_mbit[PLAN_DIRECTIONS]; /* by windows since bulk; 0: as bulk says */
    double                slow_ms;                    /* since when windows are too slow; 0 */
    double                seen_ms;                    /* when windows last told enough */
    uint64_t              bulk_count[PLAN_DIRECTIONS];
    struct plan_link_bulk bulks[PLAN_DIRECTIONS][PLAN_LINK_BULKS];
};

void plan_link_init(struct plan_link *link);

/* A small message and its answer took rtt_ms, less the other end's own time.  Not for those that
 * waited behind bulk of ours: they measure us.  Values that are no time are ignored. */
void plan_link_rtt(struct plan_link *link, double rtt_ms, double now_ms);

/* A window of `up` bytes, which found the way free, and its answer of `down` bytes took ms, less the
 * other end's own time.  Up to a packet it is a small message; more counts once one of these is
 * known.  `up` has the bytes that were sent just before it, too. */
void plan_link_pass(struct plan_link *link, double ms, uint64_t up, uint64_t down, double now_ms);

/* `bytes` were acknowledged over `ms`.  `saturated`: all the while there was more to send, so they
 * tell what the path can do; else it can do at least that much, which counts only when it is more
 * than was known, or than is taken for what is not known.  Pieces below PLAN_LINK_BULK_BYTES are
 * ignored. */
void plan_link_bulk(struct plan_link *link, enum plan_direction direction, uint64_t bytes,
                    double ms, bool saturated, double now_ms);

/* 0 = not known; of ages: never measured.  Can also be filled by hand ("what if"). */
struct plan_link_estimate {
    double rtt_ms;     /* the median: what a window pays */
    double rtt_min_ms; /* what the path itself takes */
    double spread_ms;  /* nine of ten are at most this much above the minimum */
    double jitter_ms;  /* mean change from one to the next (RFC 3550) */
    double mbit[PLAN_DIRECTIONS];
    double rtt_age_ms, mbit_age_ms[PLAN_DIRECTIONS];
};

struct plan_link_estimate plan_link_estimate(const struct plan_link *link, double now_ms);

/* Whether to send a probe in that direction, the link being idle. */
bool plan_link_probe_wanted(const struct plan_link *link, enum plan_direction direction,
                            double now_ms);

/* Taken for what is not known, so that nothing wins by being unknown: 150 ms (what Petals takes),
 * 20 Mbit/s (the slowest access that we plan for). */
extern const double plan_link_rtt_ms_unknown, plan_link_mbit_unknown;

/* The parts of a message's time, with the above for what is not known. */
double plan_link_rtt_ms(const struct plan_link_estimate *estimate);
double plan_link_bytes_ms(const struct plan_link_estimate *estimate, enum plan_direction direction,
                          double bytes);

/* rtt / 2 + bytes / goodput. */
double plan_link_message_ms(const struct plan_link_estimate *estimate,
                            enum plan_direction direction, double bytes);

/* "round trip and goodput down not measured: 150 ms and 20 Mbit/s assumed"; "" when all is
 * known. */
void plan_link_unknown(const struct plan_link_estimate *estimate, char *text, size_t bytes);

#endif
