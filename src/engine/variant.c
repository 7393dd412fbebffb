/* engine/variant.c - see variant.h.
 *
 * ggml ranks its CPU variants by what CPUID announces.  Some virtual machines announce
 * AMX or AVX-512 parts that they do not let run, and the best variant then dies of an
 * illegal instruction in the middle of a graph.  So a variant is tried first, in a
 * child process, on a matrix product of each kind of kernel.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/variant.h"

#include "base/log.h"

#include <dirent.h>
#include <dlfcn.h>
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { VARIANTS_MAX = 64, PATH_BYTES = 4096 };

struct variant {
    char path[PATH_BYTES];
    int  score;
};

/* The folder of the library or program that holds this function, and "../lib" of it. */
static int module_folders(char folders[2][PATH_BYTES])
{
    Dl_info self;
    char   *slash;

    if (dladdr((const void *)(uintptr_t)&engine_variants_load, &self) == 0 ||
        self.dli_fname == NULL || strlen(self.dli_fname) >= PATH_BYTES - 16)
        return 0;
    strcpy(folders[0], self.dli_fname);
    if (strchr(folders[0], '/') == NULL &&
        readlink("/proc/self/exe", folders[0], PATH_BYTES - 16) < 0)
        return 0;
    slash = strrchr(folders[0], '/');
    if (slash == NULL)
        return 0;
    *slash = '\0';
    snprintf(folders[1], PATH_BYTES, "%.*s/../lib", PATH_BYTES - 16, folders[0]);
    return 2;
}

static int by_score(const void *a, const void *b)
{
    return ((const struct variant *)b)->score - ((const struct variant *)a)->score;
}

/* What the module itself thinks of this processor; 0 = cannot run. */
static int score_of(const char *path)
{
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    int   score = 0;
    int (*score_fn)(void);

    if (module == NULL) {
        base_log(BASE_LOG_WARN, "%s does not load: %s", path, dlerror());
        return 0;
    }
    *(void **)&score_fn = dlsym(module, "ggml_backend_score");
    if (score_fn != NULL)
        score = score_fn();
    dlclose(module);
    return score;
}

/* One product of `type`, its weight in buffer type `buft`. */
static void try_product(ggml_backend_t backend, ggml_backend_buffer_type_t buft,
                        enum ggml_type type)
{
    enum { ROWS = 64, COLUMNS = 256, TOKENS = 32 };
    struct ggml_init_params params = {
        .mem_size = ggml_tensor_overhead() * 8 + ggml_graph_overhead(), .no_alloc = true
    };
    struct ggml_context  *weights = ggml_init(params), *ctx = ggml_init(params);
    struct ggml_tensor   *w = ggml_new_tensor_2d(weights, type, COLUMNS, ROWS);
    struct ggml_tensor   *x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, COLUMNS, TOKENS);
    struct ggml_tensor   *y = ggml_mul_mat(ctx, w, x);
    struct ggml_cgraph   *graph = ggml_new_graph(ctx);
    ggml_backend_buffer_t held = ggml_backend_alloc_ctx_tensors_from_buft(weights, buft);
    void                 *zeros = calloc(1, ggml_nbytes(w) + ggml_nbytes(x));

    ggml_build_forward_expand(graph, y);
    if (held != NULL && zeros != NULL && ggml_backend_alloc_ctx_tensors(ctx, backend) != NULL) {
        ggml_backend_buffer_set_usage(held, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        if (ggml_backend_supports_op(backend, y)) {
            ggml_backend_tensor_set(w, zeros, 0, ggml_nbytes(w));
            ggml_backend_tensor_set(x, zeros, 0, ggml_nbytes(x));
            ggml_backend_graph_compute(backend, graph);
        }
    }
}

/* In the child: load and use the variant; everything is freed by exiting. */
static void try_variant(const char *path)
{
    static const enum ggml_type types[] = { GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16,
                                            GGML_TYPE_Q4_0, GGML_TYPE_Q8_0, GGML_TYPE_Q4_K,
                                            GGML_TYPE_Q6_K };
    ggml_backend_reg_t          reg = ggml_backend_load(path);
    ggml_backend_dev_t          dev = reg == NULL ? NULL : ggml_backend_reg_dev_get(reg, 0);
    ggml_backend_t              backend = dev == NULL ? NULL : ggml_backend_dev_init(dev, NULL);
    ggml_backend_dev_get_extra_bufts_t get_extra;
    ggml_backend_set_n_threads_t       set_threads;

    if (backend == NULL)
        _exit(1);
    *(void **)&set_threads = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    if (set_threads != NULL)
        set_threads(backend, 1); /* a few products: starting threads would take longer */
    *(void **)&get_extra = ggml_backend_reg_get_proc_address(reg,
                                                             "ggml_backend_dev_get_extra_bufts");
    for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++) {
        ggml_backend_buffer_type_t *extra = get_extra == NULL ? NULL : get_extra(dev);

        for (; extra != NULL && *extra != NULL; extra++)
            try_product(backend, *extra, types[t]);
        try_product(backend, ggml_backend_dev_buffer_type(dev), types[t]);
    }
    _exit(0);
}

static bool variant_runs(const char *path)
{
    int   status = 0;
    pid_t child = fork();

    if (child < 0)
        return true; /* no process to spare: trust CPUID */
    if (child == 0)
        try_variant(path);
    if (waitpid(child, &status, 0) != child)
        return true;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    base_log(BASE_LOG_WARN,
             "%s is skipped: the processor announces instructions that it does not "
             "run (signal %d)",
             path, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    return false;
}

/* Call fn(path) for every file of the folder that begins with `prefix`. */
static void each_module(const char *folder, const char *prefix, void (*fn)(const char *path))
{
    DIR           *dir = opendir(folder);
    struct dirent *entry;

    if (dir == NULL)
        return;
    while ((entry = readdir(dir)) != NULL) {
        size_t length = strlen(entry->d_name);
        char   path[PATH_BYTES];

        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 && length > 3 &&
            strcmp(entry->d_name + length - 3, ".so") == 0) {
            snprintf(path, sizeof(path), "%.3000s/%.255s", folder, entry->d_name);
            fn(path);
        }
    }
    closedir(dir);
}

/* Filled by note_variant() during engine_variants_load(), which runs once. */
static struct variant variants[VARIANTS_MAX];
static size_t         variant_count;

static void note_variant(const char *path)
{
    if (variant_count == VARIANTS_MAX)
        return;
    strcpy(variants[variant_count].path, path);
    variants[variant_count].score = score_of(path);
    variant_count += variants[variant_count].score > 0;
}

static void load_gpu(const char *path)
{
    if (ggml_backend_load(path) == NULL)
        base_log(BASE_LOG_INFO, "%s does not load (no driver?): no GPU is used", path);
}

/* The CPU first: its trial forks, which a process with a GPU context should not do. */
static void load_folder(const char *folder)
{
    variant_count = 0;
    each_module(folder, "libggml-cpu", note_variant);
    qsort(variants, variant_count, sizeof(variants[0]), by_score);
    for (size_t i = 0; i < variant_count; i++)
        if (variant_runs(variants[i].path) && ggml_backend_load(variants[i].path) != NULL)
            break;
    if (variant_count > 0)
        each_module(folder, "libggml-cuda", load_gpu);
}

void engine_variants_load(void)
{
    char folders[2][PATH_BYTES];
    int  count = module_folders(folders);

    for (int i = 0; i < count; i++)
        if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == NULL)
            load_folder(folders[i]);
    if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == NULL)
        base_log(BASE_LOG_WARN, "no CPU backend was found beside the library");
}
