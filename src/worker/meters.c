/* worker/meters.c - see meters.h.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/meters.h"

#include <string.h>

void worker_histogram_add(struct worker_histogram *h, double value)
{
    double   bound = h->first;
    uint32_t i = 0;

    while (i < WORKER_BUCKETS && value > bound) {
        bound *= 2.0;
        i++;
    }
    h->bucket[i]++;
    h->count++;
    h->sum += value;
}

void worker_meters_init(struct worker_meters *m)
{
    memset(m, 0, sizeof(*m));
    m->batch_tokens.first = 1.0;
    m->queue_ms.first = 0.125;
    m->compute_ms.first = 0.125;
}
