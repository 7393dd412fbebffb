/* bench/behind.c - decode behind a prefill: two sessions on one connection to a worker.
 *
 *     behind -m FILE --keys DIR --connect HOST:PORT --cuts A,B [--tokens N] [--codec NAME]
 *
 * One session decodes all the time.  When it has done so alone for a while, the other one sends a
 * prompt of N tokens, which fills the link.  One JSON object: the time from token to token alone
 * and meanwhile, and the rate of the prompt's payload.  The worker must hold layers [A, B), and
 * the model be so small that the link is what the prompt waits for.  Hidden states come back as
 * they went, so that both directions are full; with B the model's last layer, only logits do.
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include <mcp/generate.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum {
    TIMES_MAX = 1 << 16,
    PROMPT_DECODE = 8,
    VOCAB_LEAST = 256, /* token ids below are in any vocabulary */
};

static const double ALONE_S = 2.0, SETTLE_S = 0.5;

/* A session with engines of its own for the layers here. */
struct user {
    mcp_engine  *engine[2]; /* [1] is NULL where the worker has the last layers */
    mcp_session *session;
    int32_t     *tokens;
    uint32_t     count; /* of the prompt */
};

static struct opts {
    const char *model, *keys, *endpoint, *codec;
    uint32_t    cuts[2], tokens, ctx;
} opts = { .codec = "f16", .tokens = 3072 };

/* The decoding thread's, until it has ended. */
static struct {
    double      at[TIMES_MAX]; /* seconds, token by token */
    uint32_t    count;
    atomic_bool stop;
} decode;

static mcp_engine *engine_of(const mcp_model *model, uint32_t first, uint32_t last,
                             const mcp_engine *beside)
{
    mcp_engine_opts o = MCP_ENGINE_OPTS_INIT;
    mcp_engine     *engine;
    mcp_error       err;

    o.first = first;
    o.last = last;
    o.ctx_tokens = opts.ctx;
    o.threads = 1;
    o.device = "cpu";
    o.even_windows = 1;
    o.beside = beside;
    if (mcp_engine_open(&engine, model, &o, &err) < 0)
        bench_die("%s", err.text);
    return engine;
}

static void user_open(struct user *u, const mcp_model *model, mcp_remote *remote, uint32_t seed,
                      uint32_t count)
{
    uint32_t         layers = mcp_model_get_info(model)->layers;
    mcp_session_opts o = MCP_SESSION_OPTS_INIT;
    mcp_stage        stages[3] = { { .last = opts.cuts[0] },
                                   { .first = opts.cuts[0], .last = opts.cuts[1] },
                                   { .first = opts.cuts[1], .last = layers } };
    mcp_error        err;

    stages[0].engine = u->engine[0] = engine_of(model, 0, opts.cuts[0], NULL);
    if (opts.cuts[1] < layers)
        stages[2].engine = u->engine[1] = engine_of(model, opts.cuts[1], layers, u->engine[0]);
    o.model = model;
    o.remote = remote;
    o.stages = stages;
    o.stage_count = opts.cuts[1] < layers ? 3 : 2;
    o.codec = opts.codec;
    if (mcp_session_open(&u->session, NULL, &o, &err) < 0)
        bench_die("%s", err.text);
    u->count = count;
    u->tokens = bench_alloc(count, sizeof(*u->tokens));
    for (uint32_t i = 0; i < count; i++)
        u->tokens[i] = bench_token(seed, i, VOCAB_LEAST);
}

static void user_close(struct user *u)
{
    mcp_session_close(u->session);
    mcp_engine_close(u->engine[1]);
    mcp_engine_close(u->engine[0]);
    free(u->tokens);
}

static mcp_generate_result generate(struct user *u, uint32_t max_tokens, mcp_token_fn fn)
{
    mcp_generate_opts   o = MCP_GENERATE_OPTS_INIT;
    mcp_generate_result result;
    mcp_error           err;

    o.max_tokens = max_tokens;
    o.temperature = 0.0f;
    o.ignore_end = 1;
    if (mcp_session_generate(u->session, u->tokens, u->count, &o, fn, NULL, &result, &err) < 0)
        bench_die("%s", err.text);
    return result;
}

static int on_token(int32_t token, const char *bytes, size_t count, void *ctx)
{
    (void)token;
    (void)bytes;
    (void)count;
    (void)ctx;
    if (decode.count < TIMES_MAX)
        decode.at[decode.count++] = bench_seconds();
    return atomic_load(&decode.stop);
}

static void *decode_on(void *ctx)
{
    generate(ctx, UINT32_MAX, on_token);
    return NULL;
}

/* Token times that lie whole in [from, to): their median and 99th part, in ms. */
static uint32_t token_times(double from, double to, double *p50_ms, double *p99_ms)
{
    double  *ms = bench_alloc(decode.count, sizeof(*ms));
    uint32_t count = 0;

    for (uint32_t i = 1; i < decode.count; i++)
        if (decode.at[i - 1] >= from && decode.at[i] < to)
            ms[count++] = (decode.at[i] - decode.at[i - 1]) * 1e3;
    if (count == 0)
        bench_die("no token came between %.1f and %.1f s", from, to);
    *p50_ms = bench_median(ms, count);
    *p99_ms = ms[(uint32_t)((count - 1) * 0.99)];
    free(ms);
    return count;
}

static void measure(struct user *decoding, struct user *bulk)
{
    mcp_session_stats   stats = { .struct_size = sizeof(stats) };
    mcp_generate_result result;
    pthread_t           thread;
    double              began, sent, ended, alone[2], behind[2];
    uint32_t            tokens;

    if (pthread_create(&thread, NULL, decode_on, decoding) != 0)
        bench_die("no thread");
    bench_sleep(SETTLE_S);
    began = bench_seconds();
    bench_sleep(ALONE_S);
    sent = bench_seconds();
    result = generate(bulk, 1, NULL);
    ended = bench_seconds();
    atomic_store(&decode.stop, true);
    pthread_join(thread, NULL);

    token_times(began, sent, &alone[0], &alone[1]);
    tokens = token_times(sent, ended, &behind[0], &behind[1]);
    if (mcp_session_get_stats(bulk->session, &stats) < 0)
        bench_die("no statistics");
    printf("{\"alone_p50_ms\": %.2f, \"alone_p99_ms\": %.2f, \"behind_p50_ms\": %.2f, "
           "\"behind_p99_ms\": %.2f, \"behind_tokens\": %u, \"bulk_bytes\": %llu, "
           "\"bulk_ms\": %.1f, \"bulk_tokens\": %u}\n",
           alone[0], alone[1], behind[0], behind[1], tokens, (unsigned long long)stats.bytes_out,
           result.ttft_ms, bulk->count);
}

static void parse_cuts(const char *text)
{
    char *end = NULL;

    opts.cuts[0] = (uint32_t)strtoul(text, &end, 10);
    opts.cuts[1] = *end == ',' ? (uint32_t)strtoul(end + 1, &end, 10) : 0;
    if (*end != '\0' || opts.cuts[0] == 0 || opts.cuts[1] <= opts.cuts[0])
        bench_die("--cuts %s: two layers in order, such as 2,28", text);
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[++i] : NULL;

        if (value == NULL)
            bench_die("%s needs a value; the head of bench/behind.c lists the options", name);
        if (strcmp(name, "-m") == 0)
            opts.model = value;
        else if (strcmp(name, "--keys") == 0)
            opts.keys = value;
        else if (strcmp(name, "--connect") == 0)
            opts.endpoint = value;
        else if (strcmp(name, "--codec") == 0)
            opts.codec = value;
        else if (strcmp(name, "--cuts") == 0)
            parse_cuts(value);
        else if (strcmp(name, "--tokens") == 0)
            opts.tokens = bench_number(name, value, 64, 1 << 20);
        else
            bench_die("unknown option %s; the head of bench/behind.c lists them", name);
    }
    if (opts.model == NULL || opts.keys == NULL || opts.endpoint == NULL || opts.cuts[1] == 0)
        bench_die("-m, --keys, --connect and --cuts are needed");
    opts.ctx = opts.tokens + 1;
}

int main(int argc, char **argv)
{
    struct user     decoding = { 0 }, bulk = { 0 };
    mcp_remote_opts remote_opts = MCP_REMOTE_OPTS_INIT;
    mcp_remote     *remote;
    mcp_model      *model;
    mcp_error       err;

    parse(argc, argv);
    remote_opts.keys = opts.keys;
    remote_opts.workers = &opts.endpoint;
    remote_opts.worker_count = 1;
    if (mcp_model_open(&model, opts.model, &err) < 0 ||
        mcp_remote_open(&remote, &remote_opts, &err) < 0)
        bench_die("%s", err.text);
    user_open(&decoding, model, remote, 1, PROMPT_DECODE);
    user_open(&bulk, model, remote, 2, opts.tokens);
    measure(&decoding, &bulk);
    user_close(&bulk);
    user_close(&decoding);
    mcp_remote_close(remote);
    mcp_model_close(model);
    return 0;
}
