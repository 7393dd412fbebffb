/* bench/load.h - what load_mcp and load_llama share: the same job on two libraries.
 *
 * The job: a fresh process loads the model, runs one prompt and picks one token, then ends.
 * Standard output carries two lines,
 *     first <token id>          written the moment the first token is known
 *     {"load_ms": ..., ...}     where the time and the memory went
 * and process_vs_llama.py takes the time of the first line and the kernel's account of the
 * process.  With -p 0 the prompt is the word "Hello", so that the tokenizer is loaded too. */
/* SPDX-License-Identifier: MIT */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include "bench.h"

enum { LOAD_PROMPT_MAX = 2048 };

struct load_opts {
    const char *path;
    const char *device;
    uint32_t    threads;
    uint32_t    ctx;
    uint32_t    prompt; /* tokens; 0 = "Hello" */
};

static inline void load_opts_parse(struct load_opts *o, int argc, char **argv)
{
    *o = (struct load_opts){ .device = "cpu", .threads = 2, .ctx = 4096 };
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];

        if (strcmp(name, "-m") == 0)
            o->path = value;
        else if (strcmp(name, "-t") == 0)
            o->threads = bench_number(name, value, 1, 512);
        else if (strcmp(name, "-c") == 0)
            o->ctx = bench_number(name, value, 256, 1u << 20);
        else if (strcmp(name, "-p") == 0)
            o->prompt = bench_number(name, value, 0, LOAD_PROMPT_MAX);
        else if (strcmp(name, "--device") == 0)
            o->device = value;
        else
            bench_die("%s: unknown option", name);
    }
    if (o->path == NULL || argc % 2 == 0)
        bench_die("usage: %s -m FILE [-t N] [-c N] [-p N] [--device NAME]", argv[0]);
}

/* The most likely token: greedy, as `--temp 0`. */
static inline int32_t load_pick(const float *logits, uint32_t n_vocab)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n_vocab; i++)
        best = logits[i] > logits[best] ? i : best;
    return (int32_t)best;
}

static inline void load_first(int32_t token)
{
    printf("first %d\n", token);
    fflush(stdout);
}

/* One number of /proc/self/status in bytes; 0 where there is none. */
static inline uint64_t load_status_bytes(const char *key)
{
    FILE    *f = fopen("/proc/self/status", "r");
    char     line[256];
    uint64_t kib = 0;

    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':')
            kib = strtoull(line + strlen(key) + 1, NULL, 10);
    }
    if (f != NULL)
        fclose(f);
    return kib * 1024;
}

/* load: model and context; prompt: tokenizing and the forward. */
static inline void load_report(double load_seconds, double prompt_seconds)
{
    printf("{\"load_ms\": %.2f, \"prompt_ms\": %.2f, \"peak_bytes\": %llu, "
           "\"anonymous_bytes\": %llu, \"file_bytes\": %llu}\n",
           load_seconds * 1e3, prompt_seconds * 1e3, (unsigned long long)load_status_bytes("VmHWM"),
           (unsigned long long)load_status_bytes("RssAnon"),
           (unsigned long long)load_status_bytes("RssFile"));
}

#endif
