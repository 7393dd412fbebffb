/* cli/load.h - the options that open a model and an engine, and doing so.
 *
 * run, bench and debug share these rows, so that a flag means the same everywhere.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_LOAD_H
#define CLI_LOAD_H

#include "cli/args.h"

#include <mcp/engine.h>

struct cli_engine_args {
    const char     *model;
    int64_t         threads;
    int64_t         batch;
    int64_t         ubatch;
    const char     *device;
    int64_t         gpu_layers; /* -1 = all */
    int64_t         kv_k;       /* mcp_kv_type */
    int64_t         kv_v;
    int64_t         flash; /* mcp_flash */
    struct cli_ints cuts;
    bool            even_windows;
    bool            verbose;
};

enum { CLI_ENGINE_OPTIONS = 12 };
extern const struct cli_option cli_engine_options[CLI_ENGINE_OPTIONS];

/* The group's row in a verb whose struct T keeps them in its member `engine`. */
#define CLI_ENGINE_GROUP(T)                                                             \
    {                                                                                   \
        "Model and engine", cli_engine_options, CLI_ENGINE_OPTIONS, offsetof(T, engine) \
    }

/* Where models are kept: $MCP_MODELS, else `models` in the cache folder, which is
 * $MCP_CACHE, else $XDG_CACHE_HOME/mcp, else ~/.cache/mcp.  0, or -1 with a line. */
enum { CLI_PATH_BYTES = 4096 };
int cli_models_folder(char out[CLI_PATH_BYTES]);

/* Open the model that -m (or a word on the command line) names: a path, or a file in
 * the models folder, there also without ".gguf".  0, or -1 with the line printed. */
int cli_model_open(mcp_model **out, const char *name);

/* The options of an engine as given; says which have no effect.  ctx_tokens 0 = the library's
 * choice. */
mcp_engine_opts cli_engine_opts(const struct cli_args *args, const struct cli_engine_args *engine,
                                uint32_t ctx_tokens, uint32_t seqs);

/* Open an engine with all layers of `model`.  ctx_tokens 0 = the library's choice.
 * Says which given flags have no effect.  0, or -1 with the line printed. */
int cli_engine_open(mcp_engine **out, const mcp_model *model, const struct cli_args *args,
                    const struct cli_engine_args *engine, uint32_t ctx_tokens, uint32_t seqs);

/* Whether the cuts lie inside the model and ascend; 0, or -1 with the line printed. */
int cli_cuts_check(const struct cli_ints *cuts, const mcp_model *model);

#endif
