/* cli/load.c - see load.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/load.h"

#include "cli/cli.h"

#include <mcp/generate.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- options ---------------------------------------------------------------------- */

static const struct cli_word layer_words[] = { { "auto", -1 }, { "all", -1 }, { NULL, 0 } };
static const struct cli_word kv_words[] = {
    { "f16", MCP_KV_F16 }, { "q8_0", MCP_KV_Q8_0 }, { "f32", MCP_KV_F32 }, { NULL, 0 }
};
static const struct cli_word flash_words[] = {
    { "auto", MCP_FLASH_AUTO }, { "on", MCP_FLASH_ON }, { "off", MCP_FLASH_OFF }, { NULL, 0 }
};

#define AT(member) .at = offsetof(struct cli_engine_args, member)

const struct cli_option cli_engine_options[CLI_ENGINE_OPTIONS] = {
    { .name = "model",
      .brief = "m",
      .type = CLI_TEXT,
      AT(model),
      .value = "FILE",
      .help = "GGUF file, or the name of one in the models folder" },
    { .name = "threads",
      .brief = "t",
      .type = CLI_INT,
      AT(threads),
      .value = "N",
      .fallback = "0",
      .min = -1,
      .max = 512,
      .help = "CPU threads; 0 = one for each physical core" },
    { .name = "batch-size",
      .brief = "b",
      .type = CLI_INT,
      AT(batch),
      .value = "N",
      .fallback = "2048",
      .min = 1,
      .max = 1 << 20,
      .help = "most tokens in one forward" },
    { .name = "ubatch-size",
      .brief = "ub",
      .type = CLI_INT,
      AT(ubatch),
      .value = "N",
      .fallback = "512",
      .min = 1,
      .max = 1 << 20,
      .help = "most tokens computed at once; sizes the compute buffer" },
    { .name = "device",
      .type = CLI_TEXT,
      AT(device),
      .value = "NAME",
      .fallback = "auto",
      .help = "auto, cpu, cuda0, ...; 'mcp devices' lists them" },
    { .name = "n-gpu-layers",
      .brief = "ngl",
      .also = "gpu-layers",
      .type = CLI_INT,
      AT(gpu_layers),
      .value = "N",
      .fallback = "auto",
      .min = 0,
      .max = 100000,
      .words = layer_words,
      .help = "so many of the last layers on the GPU" },
    { .name = "cache-type-k",
      .brief = "ctk",
      .type = CLI_WORD,
      AT(kv_k),
      .value = "",
      .fallback = "f16",
      .words = kv_words,
      .help = "type of the keys in the KV cache" },
    { .name = "cache-type-v",
      .brief = "ctv",
      .type = CLI_WORD,
      AT(kv_v),
      .value = "",
      .fallback = "f16",
      .words = kv_words,
      .help = "type of the values; q8_0 needs flash attention" },
    { .name = "flash-attn",
      .brief = "fa",
      .type = CLI_WORD,
      AT(flash),
      .value = "",
      .fallback = "auto",
      .words = flash_words,
      .help = "flash attention" },
    { .name = "cuts",
      .type = CLI_INTS,
      AT(cuts),
      .value = "L,...",
      .min = 0,
      .max = 100000,
      .help = "run as stages that end before these layers: 4,20 = [0,4) [4,20) [20,end)" },
    { .name = "even-windows",
      .type = CLI_FLAG,
      AT(even_windows),
      .help = "on CPU: one attention path for windows of 1 to 63 tokens, as workers have it" },
    { .name = "verbose",
      .brief = "v",
      .type = CLI_FLAG,
      AT(verbose),
      .help = "log lines of the library on stderr" },
};

/* ---- files ------------------------------------------------------------------------ */

int cli_models_folder(char out[CLI_PATH_BYTES])
{
    /* In this order; the first variable that is set decides. */
    static const struct {
        const char *env, *below;
    } places[] = {
        { "MCP_MODELS", "" },
        { "MCP_CACHE", "/models" },
        { "XDG_CACHE_HOME", "/mcp/models" },
        { "HOME", "/.cache/mcp/models" },
    };

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        const char *base = getenv(places[i].env);
        if (base == NULL || base[0] == '\0')
            continue;
        int n = snprintf(out, CLI_PATH_BYTES, "%s%s", base, places[i].below);
        if (n < CLI_PATH_BYTES)
            return 0;
        cli_fail("%s is longer than a path may be", places[i].env);
        return -1;
    }
    cli_fail("no models folder: set MCP_MODELS, MCP_CACHE or HOME");
    return -1;
}

static bool there(const char *path)
{
    struct stat st;

    /* Anything but "no such file" is left to mcp_model_open, which says it better. */
    return stat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

/* The path that `name` stands for, in `out`; 0, or -1 with the line printed. */
static int resolve(char out[CLI_PATH_BYTES], const char *name)
{
    char folder[CLI_PATH_BYTES];

    if (snprintf(out, CLI_PATH_BYTES, "%s", name) >= CLI_PATH_BYTES) {
        cli_fail("the model's path is longer than %d bytes", CLI_PATH_BYTES);
        return -1;
    }
    if (there(out))
        return 0;
    if (name[0] == '/') {
        cli_fail("there is no file %.300s", name);
        return -1;
    }
    if (cli_models_folder(folder) < 0)
        return -1;
    for (size_t i = 0; i < 2; i++) {
        int n = snprintf(out, CLI_PATH_BYTES, "%s/%s%s", folder, name, i == 0 ? "" : ".gguf");
        if (n < CLI_PATH_BYTES && there(out))
            return 0;
    }
    cli_fail("there is no file %.300s, neither here nor in %.300s", name, folder);
    return -1;
}

int cli_model_open(mcp_model **out, const char *name)
{
    char      path[CLI_PATH_BYTES];
    mcp_error err = { 0 };

    *out = NULL;
    if (name == NULL || name[0] == '\0') {
        cli_fail("no model: give -m/--model FILE or set MCP_MODEL");
        return -1;
    }
    if (resolve(path, name) < 0)
        return -1;
    if (mcp_model_open(out, path, &err) < 0) {
        cli_fail("%s", err.text);
        return -1;
    }
    return 0;
}

/* ---- engine ----------------------------------------------------------------------- */

int cli_cuts_check(const struct cli_ints *cuts, const mcp_model *model)
{
    uint32_t layers = mcp_model_get_info(model)->layers;

    if (cuts->count > MCP_CUTS_MAX) {
        cli_fail("--cuts: %zu cuts are more than %d", cuts->count, (int)MCP_CUTS_MAX);
        return -1;
    }
    for (size_t i = 0; i < cuts->count; i++) {
        if (cuts->values[i] < 1 || cuts->values[i] >= layers) {
            if (layers < 2)
                cli_fail("--cuts: a model of %u layer cannot be cut", layers);
            else
                cli_fail("--cuts: %u is outside 1..%u (the model has %u layers)", cuts->values[i],
                         layers - 1, layers);
            return -1;
        }
        if (i > 0 && cuts->values[i] <= cuts->values[i - 1]) {
            cli_fail("--cuts: %u after %u does not ascend", cuts->values[i], cuts->values[i - 1]);
            return -1;
        }
    }
    return 0;
}

mcp_engine_opts cli_engine_opts(const struct cli_args *args, const struct cli_engine_args *engine,
                                uint32_t ctx_tokens, uint32_t seqs)
{
    mcp_engine_opts opts = MCP_ENGINE_OPTS_INIT;

    opts.ctx_tokens = ctx_tokens;
    opts.seqs = seqs;
    opts.batch_tokens = (uint32_t)engine->batch;
    opts.ubatch_tokens = (uint32_t)engine->ubatch;
    opts.threads = engine->threads < 0 ? 0 : (uint32_t)engine->threads;
    opts.device = engine->device;
    opts.gpu_layers = (int32_t)engine->gpu_layers;
    opts.kv_k = (mcp_kv_type)engine->kv_k;
    opts.kv_v = (mcp_kv_type)engine->kv_v;
    opts.flash = (mcp_flash)engine->flash;
    opts.even_windows = engine->even_windows;
    if (opts.ubatch_tokens > opts.batch_tokens) {
        if (cli_args_given(args, "ubatch-size"))
            cli_note("-ub/--ubatch-size %u is lowered to -b/--batch-size %u", opts.ubatch_tokens,
                     opts.batch_tokens);
        opts.ubatch_tokens = opts.batch_tokens;
    }
    return opts;
}

int cli_engine_open(mcp_engine **out, const mcp_model *model, const struct cli_args *args,
                    const struct cli_engine_args *engine, uint32_t ctx_tokens, uint32_t seqs)
{
    mcp_engine_opts opts = cli_engine_opts(args, engine, ctx_tokens, seqs);
    mcp_engine_info info;
    mcp_error       err = { 0 };

    if (mcp_engine_open(out, model, &opts, &err) < 0 || mcp_engine_get_info(*out, &info) < 0) {
        cli_fail("%s", err.text[0] != '\0' ? err.text : mcp_code_text(MCP_EINVAL));
        return -1;
    }
    if (cli_args_given(args, "n-gpu-layers") && engine->gpu_layers != 0 &&
        strcmp(info.devices, "cpu") == 0)
        cli_note("-ngl/--n-gpu-layers has no effect: all layers run on the CPU");
    return 0;
}
