/* engine/device.c - see device.h.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/device.h"

#include "base/fail.h"
#include "base/log.h"
#include "engine/variant.h"
#include "model/file.h"

#include <ctype.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void devices_init(void)
{
    model_libraries_init();
    if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == NULL)
        engine_variants_load();
}

void engine_devices_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, devices_init);
}

/* ggml says "CPU" and "CUDA0"; flags are lower case. */
static void device_name(ggml_backend_dev_t dev, char name[64])
{
    snprintf(name, 64, "%s", ggml_backend_dev_name(dev));
    for (char *c = name; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
}

static bool is_gpu(ggml_backend_dev_t dev)
{
    enum ggml_backend_dev_type type = ggml_backend_dev_type(dev);

    return type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU;
}

/* Accelerators (BLAS) and remote devices are not places to keep layers in. */
static bool is_usable(ggml_backend_dev_t dev)
{
    return is_gpu(dev) || ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU;
}

int engine_devices(mcp_device *devices, size_t cap)
{
    size_t count = 0;

    engine_devices_init();
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);

        if (!is_usable(dev))
            continue;
        if (count < cap) {
            mcp_device *d = &devices[count];
            size_t      free_bytes = 0, total = 0;

            memset(d, 0, sizeof(*d));
            device_name(dev, d->name);
            snprintf(d->description, sizeof(d->description), "%s",
                     ggml_backend_dev_description(dev));
            d->gpu = is_gpu(dev);
            ggml_backend_dev_memory(dev, &free_bytes, &total);
            d->memory_bytes = total;
            d->memory_free_bytes = free_bytes;
        }
        count++;
    }
    return (int)count;
}

const char *engine_device_best(void)
{
    static char name[64]; /* the same answer every time */

    engine_devices_init();
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        if (is_gpu(ggml_backend_dev_get(i))) {
            device_name(ggml_backend_dev_get(i), name);
            return name;
        }
    }
    return "cpu";
}

static int topology(int cpu, const char *what)
{
    char  path[96];
    int   value = -1;
    FILE *f;

    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/%s", cpu, what);
    f = fopen(path, "re");
    if (f == NULL)
        return -1;
    if (fscanf(f, "%d", &value) != 1)
        value = -1;
    fclose(f);
    return value;
}

uint32_t engine_cores(void)
{
    cpu_set_t set;
    int       seen[CPU_SETSIZE];
    int       count = 0;

    if (sched_getaffinity(0, sizeof(set), &set) != 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);

        return online > 0 ? (uint32_t)online : 1;
    }
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        int core, known = 0;

        if (!CPU_ISSET(cpu, &set))
            continue;
        core = topology(cpu, "core_id");
        core = core < 0 ? -1 - cpu : topology(cpu, "physical_package_id") * 65536 + core;
        for (int i = 0; i < count && !known; i++)
            known = seen[i] == core;
        if (!known)
            seen[count++] = core;
    }
    return count > 0 ? (uint32_t)count : 1;
}

uint32_t engine_cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) == 0 ? (uint32_t)CPU_COUNT(&set)
                                                        : engine_cores();
}

static void *do_nothing(void *arg)
{
    return arg;
}

/* ggml aborts when a thread does not start; so see first whether that many do. */
static bool threads_start(uint32_t count)
{
    pthread_t *threads = calloc(count, sizeof(*threads));
    uint32_t   started = 0;

    if (threads == NULL)
        return false;
    while (started < count && pthread_create(&threads[started], NULL, do_nothing, NULL) == 0)
        started++;
    for (uint32_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    return started == count;
}

static ggml_backend_dev_t find_device(const char *name)
{
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        char               own[64];

        device_name(dev, own);
        if (is_usable(dev) && strcmp(own, name) == 0)
            return dev;
    }
    return NULL;
}

static void list_devices(char *text, size_t bytes)
{
    mcp_device devices[32];
    int        count = engine_devices(devices, 32);
    size_t     used = 0;

    text[0] = '\0';
    for (int i = 0; i < count && i < 32 && used < bytes; i++)
        used += (size_t)snprintf(text + used, bytes - used, "%s%s", i ? ", " : "", devices[i].name);
}

static bool cancelled(void *ctx)
{
    const struct engine_device *device = ctx;

    return atomic_load_explicit(device->cancel, memory_order_relaxed) != 0;
}

/* Threads, abort hook and extra buffer types exist for the CPU only. */
static int open_cpu(struct engine_device *device, uint32_t threads, uint32_t poll, mcp_error *err)
{
    typedef struct ggml_threadpool *(*pool_new_fn)(struct ggml_threadpool_params *);
    typedef void (*set_pool_fn)(ggml_backend_t, struct ggml_threadpool *);
    ggml_backend_reg_t                 reg = ggml_backend_dev_backend_reg(device->dev);
    struct ggml_threadpool_params      params;
    pool_new_fn                        pool_new;
    set_pool_fn                        set_pool;
    ggml_backend_set_n_threads_t       set_threads;
    ggml_backend_set_abort_callback_t  set_abort;
    ggml_backend_dev_get_extra_bufts_t get_extra;

/* POSIX lets a function travel as void *; ISO C has no word for it. */
#define PROC(target, name) (*(void **)&(target) = ggml_backend_reg_get_proc_address(reg, name))
    PROC(pool_new, "ggml_threadpool_new");
    PROC(device->pool_free, "ggml_threadpool_free");
    PROC(set_pool, "ggml_backend_cpu_set_threadpool");
    PROC(set_threads, "ggml_backend_set_n_threads");
    PROC(set_abort, "ggml_backend_set_abort_callback");
    PROC(get_extra, "ggml_backend_dev_get_extra_bufts");
    PROC(device->set_reference, "ggml_backend_cpu_set_use_ref");
#undef PROC

    if (pool_new == NULL || device->pool_free == NULL || set_pool == NULL || set_threads == NULL)
        return base_fail(err, MCP_EDEVICE, "cpu: ggml's CPU backend offers no thread pool");
    params = ggml_threadpool_params_default((int)threads);
    params.poll = poll;
    device->pool = threads_start(threads) ? pool_new(&params) : NULL;
    if (device->pool == NULL)
        return base_fail(err, MCP_ENOMEM, "cpu: a pool of %u threads cannot be started", threads);
    set_pool(device->backend, device->pool);
    set_threads(device->backend, (int)threads);
    if (set_abort != NULL)
        set_abort(device->backend, cancelled, device);
    if (get_extra != NULL) {
        ggml_backend_buffer_type_t *list = get_extra(device->dev);

        while (list != NULL && *list != NULL && device->extra_count < ENGINE_BUFTS_MAX)
            device->extra[device->extra_count++] = *list++;
    }
    return MCP_OK;
}

int engine_device_open(struct engine_device **out, const char *name, uint32_t threads,
                       uint32_t poll, mcp_error *err)
{
    struct engine_device *device;
    ggml_backend_dev_t    dev;
    char                  known[256];
    int                   rc = MCP_OK;

    *out = NULL;
    engine_devices_init();
    dev = find_device(name);
    if (dev == NULL) {
        list_devices(known, sizeof(known));
        return base_fail(err, MCP_ENOTFOUND,
                         "device '%.32s' does not exist; --device takes auto, %s", name, known);
    }
    device = calloc(1, sizeof(*device));
    if (device == NULL)
        return base_fail(err, MCP_ENOMEM, "device %s", name);
    device->holders = 1;
    device->dev = dev;
    snprintf(device->name, sizeof(device->name), "%s", name);
    device->gpu = is_gpu(dev);
    device->threads = threads;
    device->backend = ggml_backend_dev_init(dev, NULL);
    if (device->backend == NULL)
        rc = base_fail(err, MCP_EDEVICE, "device %s cannot be started", name);
    else if (!device->gpu)
        rc = open_cpu(device, threads, poll, err);
    if (rc < 0) {
        engine_device_close(device);
        return rc;
    }
    *out = device;
    return MCP_OK;
}

struct engine_device *engine_device_share(struct engine_device *device)
{
    device->holders++;
    return device;
}

void engine_device_close(struct engine_device *device)
{
    if (device == NULL || --device->holders > 0)
        return;
    ggml_backend_free(device->backend);
    if (device->pool != NULL)
        device->pool_free(device->pool);
    free(device);
}

enum ggml_status engine_device_compute(struct engine_device *device, struct ggml_cgraph *nodes,
                                       bool reference, const atomic_int *cancel)
{
    enum ggml_status status;

    if (device->set_reference != NULL)
        device->set_reference(device->backend, reference);
    device->cancel = cancel;
    status = ggml_backend_graph_compute_async(device->backend, nodes);
    device->cancel = NULL;
    return status;
}

void engine_want_huge_pages(const struct engine_device *device, ggml_backend_buffer_t buffer)
{
    const uintptr_t huge = 2u << 20;
    uintptr_t       first, last;

    if (buffer == NULL || device->gpu)
        return;
    first = (uintptr_t)ggml_backend_buffer_get_base(buffer);
    last = (first + ggml_backend_buffer_get_size(buffer)) / huge * huge;
    first = (first + huge - 1) / huge * huge;
    if (last > first)
        madvise((void *)first, last - first, MADV_HUGEPAGE); /* a hint: refusal is fine */
}

struct engine_host engine_host_new(const struct engine_device *device, size_t bytes)
{
    struct engine_host         h = { .bytes = bytes };
    ggml_backend_buffer_type_t pinned = device->gpu ? ggml_backend_dev_host_buffer_type(device->dev)
                                                    : NULL;

    if (pinned != NULL && bytes > 0)
        h.buffer = ggml_backend_buft_alloc_buffer(pinned, bytes);
    h.data = h.buffer != NULL ? ggml_backend_buffer_get_base(h.buffer)
                              : malloc(bytes > 0 ? bytes : 1);
    return h;
}

void engine_host_free(struct engine_host *host)
{
    if (host->buffer != NULL)
        ggml_backend_buffer_free(host->buffer);
    else
        free(host->data);
    memset(host, 0, sizeof(*host));
}
