/* bench/load_llama.c - load a model with libllama, compute one token, end.
 *
 * The twin of load_mcp.c; process_vs_llama.py runs both in turns.  No warm-up run: the
 * question is how long a user waits. */
/* SPDX-License-Identifier: MIT */
#include "load.h"
#include "peer.h"

#include <unistd.h>

/* A portable build has the backends in ../lib; the usual one has linked them in. */
static void backends_load(void)
{
    char    path[4096];
    ssize_t n;
    char   *slash;

    if (ggml_backend_dev_count() > 0)
        return;
    n = readlink("/proc/self/exe", path, sizeof(path) - sizeof("/../lib"));
    if (n <= 0)
        bench_die("/proc/self/exe cannot be read: where are ggml's backends?");
    path[n] = '\0';
    slash = strrchr(path, '/');
    strcpy(slash, "/../lib");
    ggml_backend_load_all_from_path(path);
}

int main(int argc, char **argv)
{
    double            start = bench_seconds(), loaded;
    struct load_opts  opts;
    struct peer_model model;
    struct peer       peer;

    load_opts_parse(&opts, argc, argv);
    llama_log_set(peer_log, NULL);
    backends_load();
    llama_backend_init();
    peer_model_open(&model, opts.path, opts.device, -1);
    peer_open(
        &peer, &model,
        &(struct peer_opts){ .ctx = opts.ctx, .seqs = 1, .threads = opts.threads, .flash = 1 });
    loaded = bench_seconds();

    if (opts.prompt > 0) {
        peer_forward(&peer, 1, 0, opts.prompt);
    } else {
        llama_token tokens[16];
        int32_t count = llama_tokenize(llama_model_get_vocab(model.model), "Hello", 5, tokens, 16,
                                       true, false);

        if (count <= 0)
            bench_die("%s: libllama cannot tokenize \"Hello\"", opts.path);
        if (llama_decode(peer.ctx, llama_batch_get_one(tokens, count)) != 0)
            bench_die("llama_decode failed: %d tokens", count);
        llama_synchronize(peer.ctx);
    }
    load_first(load_pick(llama_get_logits_ith(peer.ctx, -1), model.n_vocab));
    load_report(loaded - start, bench_seconds() - loaded);

    peer_close(&peer);
    peer_model_close(&model);
    llama_backend_free();
    return 0;
}
