/* worker/link.h - what the Execute streams of one connection share: the pace of the downlink.
 *
 * Bulk that leaves on one stream uses credit which another's Ack gives back, so streams that wait
 * stand in a list here and are all tried, in turns, when anything came in.
 *
 * Threads: the connection's loop.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_LINK_H
#define WORKER_LINK_H

#include "worker/stream.h"

struct worker_link {
    struct wire_pace      pace;
    struct net_timer      timer; /* until bulk that waits is due */
    struct worker_stream *blocked, *blocked_tail;
};

/* The connection's, made at its first Execute; NULL when out of memory.  Freed with the
 * connection, after its streams. */
struct worker_link *worker_link_of(struct net_conn *conn);

/* Into the list, at its end, or out of it. */
void worker_link_block(struct worker_stream *s, bool blocked);

/* Try every stream that waits. */
void worker_link_pump(struct worker_link *link, double now_ms);

#endif
