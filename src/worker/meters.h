/* worker/meters.h - figures that the service and the compute thread count.
 *
 * Guarded by the service's lock.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_METERS_H
#define WORKER_METERS_H

#include <stdint.h>

/* Powers of two: 0.125 ms .. 4 s for times, 1 .. 4096 positions for batches. */
enum { WORKER_BUCKETS = 16 };

struct worker_histogram {
    double   first; /* upper bound of the first bucket; each next one is twice as large */
    uint64_t bucket[WORKER_BUCKETS + 1]; /* the last: larger than all bounds */
    uint64_t count;
    double   sum;
};

void worker_histogram_add(struct worker_histogram *h, double value);

struct worker_meters {
    struct worker_histogram batch_tokens; /* positions in a forward */
    struct worker_histogram queue_ms;     /* a window's wait */
    struct worker_histogram compute_ms;   /* a forward */
    uint64_t                windows, positions;
    uint64_t                tokens_generated;       /* by Generate */
    uint64_t                guesses, guesses_right; /* of its windows */
    uint64_t                failed;                 /* sessions ended for what they sent */
    uint64_t                calls_refused;          /* Execute without the right to it */
    uint64_t                faults;                 /* forwards that failed for several sessions */
};

void worker_meters_init(struct worker_meters *m);

#endif
