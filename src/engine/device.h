/* engine/device.h - compute devices of this machine, and one opened for use.
 *
 * SPDX-License-Identifier: MIT */
#ifndef ENGINE_DEVICE_H
#define ENGINE_DEVICE_H

#include <ggml-backend.h>
#include <ggml.h>
#include <mcp/engine.h>
#include <stdatomic.h>
#include <stdbool.h>

/* Load ggml's backends once.  In a portable build they are modules beside the library:
 * every GPU module that loads, and the best CPU variant that really runs here. */
void engine_devices_init(void);

int engine_devices(mcp_device *devices, size_t cap);

/* Physical cores that this process may use, at least 1. */
uint32_t engine_cores(void);

enum {
    ENGINE_BUFTS_MAX = 8,
    /* Threads spin while they wait for each other: more than processors is slower, many
     * more never ends.  Some slack for machines whose affinity mask lies. */
    ENGINE_THREADS_PER_CPU = 4,
};

/* Processors that this process may use, at least 1. */
uint32_t engine_cpus(void);

/* One backend and the single thread pool that computes on it.  Engines beside each other
 * hold one together, and run on it in turns, from one thread.
 *
 * The CPU backend's own functions are reached through ggml's registry, never linked:
 * in a portable build they live in a module chosen at run time. */
struct engine_device {
    uint32_t                holders; /* the last one to close it frees it */
    ggml_backend_dev_t      dev;
    ggml_backend_t          backend;
    bool                    gpu;
    char                    name[64];
    uint32_t                threads;
    struct ggml_threadpool *pool; /* CPU only; owned */
    void (*pool_free)(struct ggml_threadpool *);
    ggml_backend_buffer_type_t extra[ENGINE_BUFTS_MAX]; /* rearranged weights, best first */
    uint32_t                   extra_count;
    void (*set_reference)(ggml_backend_t, bool); /* CPU only; NULL where ggml has none */
    /* Polled between the nodes of a graph: whoever computes puts his flag here. */
    const atomic_int *cancel;
};

/* `name` as in mcp_engine_opts.device, but not "auto". */
int engine_device_open(struct engine_device **out, const char *name, uint32_t threads,
                       uint32_t poll, mcp_error *err);

/* The same device once more, to be closed as often. */
struct engine_device *engine_device_share(struct engine_device *device);
void                  engine_device_close(struct engine_device *device); /* NULL is allowed */

/* Compute a graph, perhaps by ggml's reference arithmetic, which does not choose kernels by
 * the number of rows (even.h).  `cancel` ends it early with GGML_STATUS_ABORTED.  Both are the
 * CPU's only. */
enum ggml_status engine_device_compute(struct engine_device *device, struct ggml_cgraph *nodes,
                                       bool reference, const atomic_int *cancel);

/* Host memory that the device copies from and to at full speed: page-locked for a GPU,
 * plain otherwise.  bytes 0 gives a valid, empty piece. */
struct engine_host {
    void                 *data; /* NULL when out of memory */
    size_t                bytes;
    ggml_backend_buffer_t buffer; /* behind data on a GPU */
};

/* Ask the kernel for huge pages behind a CPU buffer, before it is first touched: weights and
 * KV are streamed through, and in a virtual machine a missed translation costs two page
 * walks.  Nothing on a GPU. */
void engine_want_huge_pages(const struct engine_device *device, ggml_backend_buffer_t buffer);

struct engine_host engine_host_new(const struct engine_device *device, size_t bytes);
void               engine_host_free(struct engine_host *host);

/* "cuda0" when there is a GPU, else "cpu". */
const char *engine_device_best(void);

#endif
