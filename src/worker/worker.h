/* worker/worker.h - the worker behind mcp/worker.h: all of it put together.
 *
 * Threads: those of net for connections, the compute thread, and the keeper, which looks at the
 * clock every 100 ms and at the keys folder every second.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "worker/service.h"

#include <mcp/worker.h>

struct worker_compute;

struct mcp_worker {
    struct worker_service  service;
    struct mcp_engine     *engine;
    struct worker_compute *compute;
    struct net_server     *server;
    char                   devices[128]; /* of the engine: "cpu" */
    uint64_t               kv_bytes, weight_bytes;
    bool                   service_open;

    pthread_t       keeper;
    bool            keeper_open;
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t  changed;
    bool            stopping;
};

/* `opts` and `engine` are complete structs of today's size. */
int worker_open(struct mcp_worker **out, const struct mcp_model *model, const mcp_worker_opts *opts,
                const mcp_engine_opts *engine, mcp_error *err);
void worker_close(struct mcp_worker *w);

const char *worker_address(const struct mcp_worker *w);
void        worker_drain(struct mcp_worker *w, uint32_t within_ms);
bool        worker_wait(struct mcp_worker *w, uint32_t timeout_ms);
void        worker_get_stats(struct mcp_worker *w, mcp_worker_stats *stats);

/* worker/metrics.c: Prometheus text, to be freed; NULL when out of memory. */
char *worker_metrics(struct mcp_worker *w);

#endif
