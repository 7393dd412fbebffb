/* cli/profile.c - `mcp profile`: how fast this machine, or a worker, computes a model.
 *
 * Measures, shows, and keeps the result in the cache folder, where `mcp plan` and `mcp run` find
 * it.  With workers also the link to each.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/load.h"
#include "cli/out.h"
#include "cli/place.h"
#include "cli/progress.h"

#include <mcp/plan.h>

#include <stdio.h>
#include <string.h>

struct profile_args {
    struct cli_args        args;
    struct cli_engine_args engine;
    struct cli_texts       workers;
    const char            *keys;
    const char            *token;
    const char            *output;
    const char            *stored;
    bool                   json;
};

#define AT(member) .at = offsetof(struct profile_args, member)

static const struct cli_option profile_options[] = {
    { .name = "worker",
      .type = CLI_TEXTS,
      AT(workers),
      .value = "HOST:PORT",
      .help = "measure this worker, and the link to it, instead of this machine" },
    { .name = "keys",
      .type = CLI_TEXT,
      AT(keys),
      .value = "DIR",
      .help = "folder with ca.pem, client.pem, client.key (default ~/.config/mcp/keys)" },
    { .name = "token",
      .type = CLI_TEXT,
      AT(token),
      .value = "TOKEN",
      .help = "without: client.token in the keys folder" },
    { .name = "show",
      .type = CLI_TEXT,
      AT(stored),
      .value = "FILE|NAME",
      .help = "measure nothing: show this profile (rtx3060, a100, h100 come with mcp)" },
    { .name = "output",
      .brief = "o",
      .type = CLI_TEXT,
      AT(output),
      .value = "FILE",
      .help = "also write the profile to this file, to be shared" },
    { .name = "json", .type = CLI_FLAG, AT(json), .help = "one JSON object a device" },
};

#undef AT

/* ---- showing ------------------------------------------------------------------------ */

static void print_text(const mcp_profile_info *p, const mcp_ping_result *link)
{
    char bytes[CLI_BYTES_TEXT];

    if (p->threads > 0)
        cli_row("device", "%s, %u thread%s", p->device, p->threads, p->threads == 1 ? "" : "s");
    else
        cli_row("device", "%s", p->device);
    cli_row("figures", "%s", p->measured ? "measured" : "from the data sheet, not measured");
    if (p->source[0] != '\0')
        cli_row("source", "%s", p->source);
    if (p->memory_bytes > 0)
        cli_row("memory", "%s", cli_bytes_text(bytes, p->memory_bytes));
    cli_row("model", "%s, %s, %u layers", p->model[0] != '\0' ? p->model : "without name",
            p->quantisation, p->layers);
    if (p->path[0] != '\0')
        cli_row("kept in", "%s", p->path);
    if (link != NULL) {
        cli_row("round trip", "min %.2f, p50 %.2f, max %.2f ms", link->rtt_ms_min, link->rtt_ms_p50,
                link->rtt_ms_max);
        cli_row("goodput", "%.1f Mbit/s up, %.1f down", link->up_mbit, link->down_mbit);
    }
    cli_printf("\nms a layer      ");
    for (uint32_t c = 0; c < p->context_count; c++)
        cli_printf("  behind %5u", p->contexts[c]);
    cli_printf("          head   layers/s\n");
    for (uint32_t t = 0; t < p->token_count; t++) {
        cli_printf("%6u token%s  ", p->tokens[t], p->tokens[t] == 1 ? " " : "s");
        for (uint32_t c = 0; c < p->context_count; c++)
            cli_printf("  %12.4f", p->layer_ms[t][c]);
        cli_printf("  %12.4f %10.0f\n", p->head_ms[t],
                   p->layer_ms[t][0] > 0.0 ? p->tokens[t] * 1e3 / p->layer_ms[t][0] : 0.0);
    }
    cli_printf("and %.4f ms for each forward beside its layers\n", p->call_ms);
}

static json_t *numbers(const double *values, uint32_t count)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < count; i++)
        json_array_append_new(list, cli_json_real(values[i]));
    return list;
}

static json_t *counts(const uint32_t *values, uint32_t count)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < count; i++)
        json_array_append_new(list, json_integer(values[i]));
    return list;
}

static int print_json(const mcp_profile_info *p, const char *worker, const mcp_ping_result *link)
{
    json_t *object = json_object(), *rows = json_array();

    for (uint32_t t = 0; t < p->token_count; t++)
        json_array_append_new(rows, numbers(p->layer_ms[t], p->context_count));

    const struct {
        const char *key;
        json_t     *value;
    } fields[] = {
        { "worker", worker != NULL ? cli_json_string(worker) : json_null() },
        { "device", cli_json_string(p->device) },
        { "kind", json_string(p->measured ? "measured" : "roofline") },
        { "source", cli_json_string(p->source) },
        { "model", cli_json_string(p->model) },
        { "quantisation", cli_json_string(p->quantisation) },
        { "path", cli_json_string(p->path) },
        { "memory_bytes", json_integer((json_int_t)p->memory_bytes) },
        { "threads", json_integer(p->threads) },
        { "layers", json_integer(p->layers) },
        { "tokens", counts(p->tokens, p->token_count) },
        { "contexts", counts(p->contexts, p->context_count) },
        { "layer_ms", rows },
        { "head_ms", numbers(p->head_ms, p->token_count) },
        { "call_ms", cli_json_real(p->call_ms) },
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        json_object_set_new(object, fields[i].key, fields[i].value);
    if (link != NULL) {
        json_object_set_new(object, "rtt_ms", cli_json_real(link->rtt_ms_p50));
        json_object_set_new(object, "up_mbit", cli_json_real(link->up_mbit));
        json_object_set_new(object, "down_mbit", cli_json_real(link->down_mbit));
    }
    return cli_print_json(object);
}

/* Show it, and write it where it was asked for; takes the profile. */
static int finish(const struct profile_args *args, mcp_profile *profile, const char *worker,
                  const mcp_ping_result *link)
{
    mcp_profile_info info = { .struct_size = sizeof(info) };
    mcp_error        err = { 0 };
    int              status = CLI_OK;

    mcp_profile_get_info(profile, &info);
    if (args->json)
        status = print_json(&info, worker, link);
    else
        print_text(&info, link);
    if (args->output != NULL && mcp_profile_write(profile, args->output, &err) < 0)
        status = cli_fail("%s", err.text);
    mcp_profile_close(profile);
    return status;
}

/* ---- measuring ---------------------------------------------------------------------- */

static int profile_worker(const struct profile_args *args, const mcp_model *model,
                          mcp_remote *remote, uint32_t index)
{
    mcp_worker_info worker = { .struct_size = sizeof(worker) };
    mcp_ping_result link = { 0 };
    mcp_profile    *profile;
    mcp_error       err = { 0 };
    int             rc;

    if (mcp_remote_get_worker(remote, index, &worker) < 0)
        return cli_fail("worker %u is not known", index);
    rc = mcp_remote_ping(remote, index, NULL, &link, &err);
    if (rc == MCP_OK)
        rc = mcp_profile_worker(&profile, model, remote, index, MCP_PROFILE_AGAIN, cli_progress,
                                worker.endpoint, &err);
    cli_progress_end();
    if (rc < 0)
        return cli_fail("%s", err.text);
    return finish(args, profile, worker.endpoint, &link);
}

static int profile_workers(const struct profile_args *args, const mcp_model *model)
{
    struct cli_place_args place = { .workers = args->workers,
                                    .keys = args->keys,
                                    .token = args->token };
    mcp_remote           *remote = NULL;
    int                   status = CLI_OK;

    if (args->output != NULL && args->workers.count > 1)
        return cli_fail("-o/--output is one file: measure one worker at a time");
    if (cli_remote_open(&remote, &place, false) < 0)
        return CLI_FAILED;
    for (uint32_t i = 0; i < mcp_remote_worker_count(remote); i++)
        if (profile_worker(args, model, remote, i) != CLI_OK)
            status = CLI_FAILED;
    mcp_remote_close(remote);
    return status;
}

static int profile_this(const struct profile_args *args, const mcp_model *model)
{
    static char     here[] = "this machine";
    mcp_engine_opts opts = cli_engine_opts(&args->args, &args->engine, 0, 1);
    mcp_profile    *profile;
    mcp_error       err = { 0 };
    int             rc;

    if (args->stored != NULL)
        rc = mcp_profile_read(&profile, args->stored, model, &err);
    else
        rc = mcp_profile_here(&profile, model, &opts, MCP_PROFILE_AGAIN, cli_progress, here, &err);
    cli_progress_end();
    if (rc < 0)
        return cli_fail("%s", err.text);
    return finish(args, profile, NULL, NULL);
}

static int profile_run(struct cli_args *args)
{
    const struct profile_args *own = (const struct profile_args *)args;
    mcp_model                 *model;
    int                        status;

    if (own->engine.verbose)
        cli_log_verbose();
    if (own->engine.cuts.count > 0)
        cli_note("--cuts has no effect: layers are measured one by one");
    if (own->stored != NULL && own->workers.count > 0)
        return cli_fail("--show shows a file, --worker measures a worker: one of them");
    if (cli_model_open(&model, own->engine.model) < 0)
        return CLI_FAILED;
    status = own->workers.count > 0 ? profile_workers(own, model) : profile_this(own, model);
    mcp_model_close(model);
    return status;
}

const struct cli_verb cli_verb_profile = {
    .name = "profile",
    .summary = "measure how fast this machine, or a worker, computes a model",
    .usage = "-m FILE [--worker HOST:PORT] [options]",
    .groups = { { "Options", profile_options, sizeof(profile_options) / sizeof(profile_options[0]),
                  0 },
                CLI_ENGINE_GROUP(struct profile_args) },
    .args_bytes = sizeof(struct profile_args),
    .run = profile_run,
};
