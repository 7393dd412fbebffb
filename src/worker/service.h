/* worker/service.h - what the threads of a worker share, and which call is answered by whom.
 *
 *     I/O threads (net)                 compute thread            keeper (worker.c)
 *     service.c  routes                 compute.c                 lease, drain, keys
 *     plain.c    Describe, health, ...      │                        │
 *     watch.c    Watch                      ▼                        ▼
 *     stream.c   Execute  ──jobs──▶   table (worker/table.h)  ◀── tick
 *        ▲                                  │
 *        └────── replies, wake ◀────────────┘
 *
 * Locks, in the order in which they may be taken:
 *     worker_service.lock   the table, its sessions, the lists of calls and jobs, meters
 *     worker_stream.lock    replies that wait for the stream's loop
 * worker_access has a lock of its own, under which no other is taken.  No lock is held while the
 * engine computes, while rows are encoded, or while net is called, but for net_loop_post().
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_SERVICE_H
#define WORKER_SERVICE_H

#include "worker/access.h"
#include "worker/call.h"
#include "worker/facts.h"
#include "worker/meters.h"
#include "worker/table.h"

#include <pthread.h>

struct worker_job;

enum {
    /* Answers computed and not yet read by the client of one session.  64 windows of 256
     * positions of 4096 floats in f32 are as many. */
    WORKER_UNREAD_BYTES_MAX = 256 << 20,
};

struct worker_service {
    /* Fixed once open. */
    struct worker_facts   facts;
    struct worker_access *access;
    struct worker_limits  limits;
    bool                  debug_commands;
    uint64_t              unread_bytes_all; /* of all sessions, most */

    atomic_uint_least64_t unread_bytes; /* answers computed and not yet handed to a socket */
    atomic_bool           draining;

    pthread_mutex_t      lock;    /* guards the rest */
    pthread_cond_t       work;    /* the table may have something to run */
    pthread_cond_t       settled; /* a call has closed, or the drain is over */
    struct worker_table *table;
    struct worker_call  *calls;
    struct worker_job   *jobs;
    uint32_t             call_count;
    uint32_t             stream_count; /* of the calls, those of Execute */
    struct worker_meters meters;
    double               drain_until_ms;
    bool                 drained;
    bool                 stopping;                     /* the compute thread is to end */
    char                 broken[WORKER_PROBLEM_BYTES]; /* why nothing can be computed any more */
};

/* facts, access, limits, ... are the caller's to fill in before, and to give back after. */
int  worker_service_init(struct worker_service *s, mcp_error *err);
void worker_service_fini(struct worker_service *s); /* calls are closed, threads have ended */

/* For net_server_open(), with the service as ctx. */
extern const struct net_server_ops worker_service_ops;

/* Do what the table asks for.  After every call of it, lock held. */
void worker_service_acts(struct worker_service *s);

/* Lock held: something may be there to run. */
void worker_service_signal(struct worker_service *s);

/* Leases, deadlines, drain; every 100 ms.  `look` wakes all calls, which then look at the clock
 * and at the keys: once a second. */
void worker_service_tick(struct worker_service *s, bool look);

void worker_service_drain(struct worker_service *s, uint32_t within_ms);

/* Nothing can be computed any more: every session ends with UNAVAILABLE, none is taken, and
 * health says why.  Compute thread, lock held. */
void worker_service_break(struct worker_service *s, const mcp_error *why);

/* 1, or 0 with the reason (draining, broken, keys), which is empty while only draining. */
bool     worker_service_healthy(struct worker_service *s, char degraded[WORKER_PROBLEM_BYTES]);
void     worker_service_capacity(struct worker_service *s, struct wire_capacity *capacity);
uint32_t worker_service_retry_ms(struct worker_service *s); /* when to come again */
uint32_t worker_service_drain_ms(struct worker_service *s); /* left; 0 = over */

/* ---- who answers: each returns ops and *ctx, or NULL with the status ---------------- */

/* worker/plain.c: one answer for each message.  Describe, health Check, Probe, reflection. */
const struct net_stream_ops *worker_plain_open(struct worker_service *s, struct net_stream *stream,
                                               const char *path, void **ctx,
                                               struct wire_status *status);
/* worker/watch.c: Watch of Compute and of health. */
const struct net_stream_ops *worker_watch_open(struct worker_service *s, struct net_stream *stream,
                                               const char *path, void **ctx,
                                               struct wire_status *status);
/* worker/stream.c: Execute. */
const struct net_stream_ops *worker_stream_open(struct worker_service *s, struct net_stream *stream,
                                                const char *path, void **ctx,
                                                struct wire_status *status);

#endif
