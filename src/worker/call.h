/* worker/call.h - a call that lives longer than one answer: Execute, Watch.
 *
 * Everything about it happens on its connection's loop, but others have news for it: the compute
 * thread a result, the keeper a look at the clock, the table an end.  They put the news down
 * where the call finds it and wake it; `woken` then runs on the loop.
 *
 *     any thread      worker_call_wake()  ──net_loop_post──▶  woken()      loop's thread
 *
 * Reference counted: one for net (until closed), one for a wake on its way, one for each job
 * (worker/job.h).  A call that is closed stays as long as somebody may still wake it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_CALL_H
#define WORKER_CALL_H

#include "net/net.h"

#include <stdatomic.h>

struct worker_service;
struct worker_call;

struct worker_call_kind {
    void (*woken)(struct worker_call *call);   /* loop's thread, while the stream lives */
    void (*release)(struct worker_call *call); /* the last reference is gone: free it */
};

struct worker_call {
    const struct worker_call_kind *kind;
    struct worker_service         *service;
    struct net_loop               *loop;
    struct net_stream             *stream; /* loop's thread; NULL once closed */
    struct net_work                wake;
    atomic_bool                    waking; /* `wake` is posted and has not run */
    atomic_uint                    refs;
    struct worker_call            *prev, *next; /* of the service; its lock */
};

/* With one reference, and in the service's list: call it from the server's `open`. */
void worker_call_init(struct worker_call *call, const struct worker_call_kind *kind,
                      struct worker_service *service, struct net_stream *stream);

/* From the stream's `closed`, last: leaves the list and gives net's reference back. */
void worker_call_closed(struct worker_call *call);

void worker_call_ref(struct worker_call *call);
void worker_call_unref(struct worker_call *call);
void worker_call_wake(struct worker_call *call); /* any thread that holds a reference */

#endif
