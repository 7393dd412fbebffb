/* bench/even_windows.c - what mcp_engine_opts.even_windows costs on the CPU.
 *
 * Two engines over one file, with and without, beside each other on one pool of threads; timed
 * step by step in the order A B, B A, ...  A row's ratio is the quotient of the medians, time
 * with even windows over time without.
 *
 *     even_windows -m FILE [-t THREADS] [-r STEPS] [--cpu-time 1]
 *
 * With --cpu-time 1 the process's own time is taken and not the clock's: with -t 1 that is right
 * on a busy machine too, but it does not see how well threads share the work. */
/* SPDX-License-Identifier: MIT */
#include "bench.h"

#include <mcp/engine.h>

enum { SEQS = 8, CHUNK = 512, DEPTH_MAX = 2048, STEPS_MAX = 1000 };

struct bench {
    const char           *path;
    uint32_t              threads;
    uint32_t              steps;
    int                   cpu_time;
    mcp_model            *model;
    const mcp_model_info *info;
    mcp_engine           *engine[2]; /* [even_windows] */
    int32_t               tokens[DEPTH_MAX];
    float                *logits; /* (SEQS, n_vocab) */
};

static double now(const struct bench *b)
{
    struct timespec ts;

    if (!b->cpu_time)
        return bench_seconds();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void open_engines(struct bench *b)
{
    mcp_error err;

    if (mcp_model_open(&b->model, b->path, &err) < 0)
        bench_die("%s", err.text);
    b->info = mcp_model_get_info(b->model);
    for (int even = 0; even < 2; even++) {
        mcp_engine_opts opts = MCP_ENGINE_OPTS_INIT;
        mcp_engine_info info;

        opts.device = "cpu";
        opts.threads = b->threads;
        opts.ctx_tokens = DEPTH_MAX + 1;
        opts.seqs = SEQS;
        opts.even_windows = even;
        opts.beside = even ? b->engine[0] : NULL;
        if (mcp_engine_open(&b->engine[even], b->model, &opts, &err) < 0)
            bench_die("%s", err.text);
        mcp_engine_get_info(b->engine[even], &info);
        if (info.even_windows != even)
            bench_die("even windows do not hold for this file on this processor");
    }
    b->logits = bench_alloc((size_t)SEQS * b->info->n_vocab, sizeof(float));
    for (uint32_t i = 0; i < DEPTH_MAX; i++)
        b->tokens[i] = bench_token(0, i, b->info->n_vocab);
}

static void forward(struct bench *b, int even, const mcp_window *windows, uint32_t count)
{
    mcp_error err;

    if (mcp_engine_forward(b->engine[even], 0, b->info->layers, MCP_WANT_LOGITS, windows, count,
                           b->logits, (size_t)SEQS * b->info->n_vocab, &err) < 0)
        bench_die("%s", err.text);
}

/* `seqs` sequences of `depth` positions each. */
static void fill(struct bench *b, int even, uint32_t seqs, uint32_t depth)
{
    for (uint32_t seq = 0; seq < seqs; seq++) {
        mcp_engine_trim(b->engine[even], seq, 0, NULL);
        for (uint32_t pos = 0; pos < depth; pos += CHUNK) {
            mcp_window w = { .seq = seq,
                             .pos = pos,
                             .count = depth - pos < CHUNK ? depth - pos : CHUNK,
                             .tokens = b->tokens + pos };

            forward(b, even, &w, 1);
        }
    }
}

/* One step: a window of `count` positions at `depth` in each of `seqs` sequences. */
static double step(struct bench *b, int even, uint32_t seqs, uint32_t depth, uint32_t count)
{
    mcp_window windows[SEQS];
    double     seconds = now(b);

    for (uint32_t seq = 0; seq < seqs; seq++)
        windows[seq] = (mcp_window){
            .seq = seq, .pos = depth, .count = count, .tokens = b->tokens, .out = MCP_OUT_LAST
        };
    forward(b, even, windows, seqs);
    seconds = now(b) - seconds;
    for (uint32_t seq = 0; seq < seqs; seq++)
        mcp_engine_trim(b->engine[even], seq, depth, NULL);
    return seconds;
}

static void row(struct bench *b, const char *name, uint32_t seqs, uint32_t depth, uint32_t count,
                uint32_t steps)
{
    double times[2][STEPS_MAX];

    for (int even = 0; even < 2; even++) {
        fill(b, even, seqs, depth);
        step(b, even, seqs, depth, count); /* builds the graph */
    }
    for (uint32_t i = 0; i < steps; i++)
        for (int half = 0; half < 2; half++) {
            int even = (int)(i % 2) ^ half;

            times[even][i] = step(b, even, seqs, depth, count);
        }
    printf("%-10s %10.3f ms %10.3f ms %8.3f\n", name, 1e3 * bench_median(times[0], steps),
           1e3 * bench_median(times[1], steps),
           bench_median(times[1], steps) / bench_median(times[0], steps));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct bench b = { .threads = 2, .steps = 200 };

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "-m") == 0)
            b.path = argv[i + 1];
        else if (strcmp(argv[i], "-t") == 0)
            b.threads = bench_number("-t", argv[i + 1], 1, 512);
        else if (strcmp(argv[i], "-r") == 0)
            b.steps = bench_number("-r", argv[i + 1], 1, STEPS_MAX);
        else if (strcmp(argv[i], "--cpu-time") == 0)
            b.cpu_time = (int)bench_number("--cpu-time", argv[i + 1], 0, 1);
        else
            bench_die("unknown option %s", argv[i]);
    }
    if (b.path == NULL)
        b.path = getenv("MCP_MODEL_SMOLLM2");
    if (b.path == NULL)
        bench_die("-m FILE is missing");
    open_engines(&b);
    printf("%s, %u threads\n%-10s %13s %13s %8s\n", b.path, b.threads, "", "without", "even",
           "ratio");
    row(&b, "tg@128", 1, 128, 1, b.steps);
    row(&b, "tg@512", 1, 512, 1, b.steps);
    row(&b, "tg@1024", 1, 1024, 1, b.steps);
    row(&b, "tg@2048", 1, 2048, 1, b.steps);
    row(&b, "tgx8@128", SEQS, 128, 1, b.steps / 4 + 1);
    row(&b, "pp512", 1, 0, CHUNK, b.steps / 20 + 1);
    mcp_engine_close(b.engine[0]);
    mcp_engine_close(b.engine[1]);
    mcp_model_close(b.model);
    free(b.logits);
    return 0;
}
