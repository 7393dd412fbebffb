/* worker/compute.h - the thread that computes: batches from the table through the engine.
 *
 *     table_next ─▶ clear and trim slots ─▶ decode ─▶ engine_forward ─▶ table_done ─▶ encode, reply
 *
 * It alone calls the engine (ggml's threads spin for one caller).  Payloads are decoded here,
 * into memory taken once at opening: what waits in queues is as small as it came, and a GPU
 * copies from page-locked memory.
 *
 * A batch of batch sessions runs in slices of layers, and is paused between two of them for what
 * the table calls urgent.
 *
 * A forward that fails for several sessions together is run again for each alone: only the
 * culprit's session ends.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_COMPUTE_H
#define WORKER_COMPUTE_H

#include "worker/service.h"

struct worker_compute;

/* Start the thread.  The engine is the thread's until close. */
int worker_compute_open(struct worker_compute **out, struct worker_service *service,
                        struct mcp_engine *engine, mcp_error *err);

/* End the thread; the running batch is cancelled.  NULL is allowed. */
void worker_compute_close(struct worker_compute *c);

#endif
