/* worker/spare.c - what guesses may have of a batch.
 *
 * A guess costs its session nothing that it would miss, if it is wrong, but time; so whoever is
 * alone decides by itself (worker/guess.h).  To others it costs room in the batch, rows of logits,
 * and the time by which it makes the forward longer that they are in or wait for.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/table_private.h"

/* A forward that others wait for may be longer by this part for guesses. */
static const double longer_part = 1.0 / 16;

bool table_spare_alone(const struct worker_table *t, const struct worker_session *s, double now_ms)
{
    if (t->running[TABLE_BACK])
        return false;
    for (uint32_t i = 0; i < t->live_count; i++) {
        const struct worker_session *other = t->live[i];

        if (other != s && (other->info.queued_windows > 0 || now_ms < other->expected_ms))
            return false;
    }
    return true;
}

uint32_t table_spare_room(const struct worker_table *t, uint32_t needed, uint32_t room)
{
    double   layers = t->limits.last - t->limits.first;
    double   token_ms = worker_cost_token_ms(&t->cost, layers);
    double   most_ms = worker_cost_ms(&t->cost, needed, layers) * longer_part;
    uint32_t most = table_smaller(room, WORKER_LOGITS_ROWS_MAX);

    most = most > needed ? most - needed : 0;
    if (most_ms <= 0)
        return 0;
    return token_ms * most > most_ms ? (uint32_t)(most_ms / token_ms) : most;
}
