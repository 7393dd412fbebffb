/* bench/load_mcp.c - load a model with libmcp, compute one token, end.
 *
 * The twin of load_llama.c; process_vs_llama.py runs both in turns. */
/* SPDX-License-Identifier: MIT */
#include "load.h"

#include <mcp/engine.h>

int main(int argc, char **argv)
{
    double                start = bench_seconds(), loaded;
    mcp_engine_opts       engine_opts = MCP_ENGINE_OPTS_INIT;
    struct load_opts      opts;
    static int32_t        tokens[LOAD_PROMPT_MAX];
    mcp_window            window = { .tokens = tokens, .out = MCP_OUT_LAST };
    const mcp_model_info *info;
    mcp_model            *model = NULL;
    mcp_engine           *engine = NULL;
    float                *logits;
    mcp_error             err;

    load_opts_parse(&opts, argc, argv);
    if (mcp_model_open(&model, opts.path, &err) < 0)
        bench_die("%s", err.text);
    info = mcp_model_get_info(model);
    engine_opts.ctx_tokens = opts.ctx;
    engine_opts.threads = opts.threads;
    engine_opts.device = opts.device;
    engine_opts.flash = MCP_FLASH_ON;
    if (mcp_engine_open(&engine, model, &engine_opts, &err) < 0)
        bench_die("%s", err.text);
    logits = bench_alloc(info->n_vocab, sizeof(float));
    loaded = bench_seconds();

    if (opts.prompt > 0) {
        for (uint32_t i = 0; i < opts.prompt; i++)
            tokens[i] = bench_token(0, i, info->n_vocab);
        window.count = opts.prompt;
    } else {
        int count = mcp_model_tokenize(model, "Hello", 5, MCP_TOKENIZE_BOS, tokens, LOAD_PROMPT_MAX,
                                       &err);

        if (count < 0)
            bench_die("%s", err.text);
        window.count = (uint32_t)count;
    }
    if (mcp_engine_forward(engine, 0, info->layers, MCP_WANT_LOGITS, &window, 1, logits,
                           info->n_vocab, &err) < 0)
        bench_die("%s", err.text);
    load_first(load_pick(logits, info->n_vocab));
    load_report(loaded - start, bench_seconds() - loaded);

    free(logits);
    mcp_engine_close(engine);
    mcp_model_close(model);
    return 0;
}
