/* cli/show.c - `mcp show`: what a model file holds and who it is.
 *
 * Reads the header, and the norm tensors for the model fingerprint; the weights only
 * when their fingerprints are asked for.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/load.h"
#include "cli/out.h"
#include "cli/place.h"

#include <mcp/model.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEMPLATE_LINES = 4, /* of the chat template, without --template */
    TEMPLATE_LINE_BYTES = 76,
    HEX_BYTES = 2 * MCP_FINGERPRINT_BYTES + 1,
};

struct show_args {
    struct cli_args args;
    const char     *model;
    bool            json;
    bool            fingerprints;
    bool            whole_template;

    struct cli_texts workers; /* then no file is read: what they say of themselves is shown */
    const char      *keys;
    const char      *token;
};

static const struct cli_option show_options[] = {
    { .name = "model",
      .brief = "m",
      .type = CLI_TEXT,
      .bare = true,
      .at = offsetof(struct show_args, model),
      .value = "FILE",
      .help = "GGUF file, or the name of one in the models folder" },
    { .name = "json",
      .type = CLI_FLAG,
      .at = offsetof(struct show_args, json),
      .help = "one JSON object" },
    { .name = "fingerprints",
      .type = CLI_FLAG,
      .at = offsetof(struct show_args, fingerprints),
      .help = "also the fingerprint of each layer's weights; reads the whole file" },
    { .name = "template",
      .type = CLI_FLAG,
      .at = offsetof(struct show_args, whole_template),
      .help = "the chat template whole instead of its beginning" },
    { .name = "worker",
      .type = CLI_TEXTS,
      .at = offsetof(struct show_args, workers),
      .value = "HOST:PORT",
      .help = "instead of a file: what this worker holds" },
    { .name = "keys",
      .type = CLI_TEXT,
      .at = offsetof(struct show_args, keys),
      .value = "DIR",
      .help = "with --worker: folder with ca.pem, client.pem, client.key" },
    { .name = "token",
      .type = CLI_TEXT,
      .at = offsetof(struct show_args, token),
      .value = "TOKEN",
      .help = "with --worker: without, client.token in the keys folder" },
};

static const char *hex(char out[HEX_BYTES], const uint8_t digest[MCP_FINGERPRINT_BYTES])
{
    for (size_t i = 0; i < MCP_FINGERPRINT_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
    return out;
}

/* ---- for people ------------------------------------------------------------------- */

static void print_template(const char *text, bool whole)
{
    struct cli_buffer safe = { 0 };

    if (text == NULL) {
        cli_row("chat template", "none");
        return;
    }
    if (whole) {
        cli_row("chat template", "%zu bytes:", strlen(text));
        if (cli_text_tame(&safe, text, strlen(text)) == 0)
            cli_printf("%s\n", safe.text != NULL ? safe.text : "");
        cli_buffer_fini(&safe);
        return;
    }
    cli_row("chat template", "%zu bytes (all of it with --template):", strlen(text));
    for (int i = 0; i < TEMPLATE_LINES && *text != '\0'; i++) {
        char   line[TEMPLATE_LINE_BYTES + 1], shown[3 * TEMPLATE_LINE_BYTES + 1];
        size_t bytes = strcspn(text, "\n");
        size_t part = bytes < TEMPLATE_LINE_BYTES ? bytes : TEMPLATE_LINE_BYTES;

        memcpy(line, text, part);
        line[cli_utf8_complete(line, part)] = '\0';
        cli_text_field(shown, sizeof(shown), line);
        cli_printf("  %s%s\n", shown, bytes > TEMPLATE_LINE_BYTES ? " ..." : "");
        text += bytes + (text[bytes] == '\n');
    }
}

static void print_info(const mcp_model *model, const char *fingerprint)
{
    const mcp_model_info *info = mcp_model_get_info(model);
    char                  a[CLI_BYTES_TEXT], b[CLI_BYTES_TEXT];

    if (info->parts > 1)
        cli_row("file", "%s (%s in %u parts)", info->path, cli_bytes_text(a, info->file_bytes),
                info->parts);
    else
        cli_row("file", "%s (%s)", info->path, cli_bytes_text(a, info->file_bytes));
    cli_row("architecture", "%s", info->architecture);
    cli_row("name", "%s", info->name[0] != '\0' ? info->name : "none");
    cli_row("layers", "%u", info->layers);
    cli_row("hidden state", "%u floats a token (n_embd), feed-forward %u", info->n_embd,
            info->n_ff);
    cli_row("heads", "%u, of which %u have keys and values", info->n_head, info->n_head_kv);
    if (info->n_expert > 0)
        cli_row("experts", "%u, %u used for a token", info->n_expert, info->n_expert_used);
    cli_row("context", "%u tokens in training", info->n_ctx_train);
    cli_row("tokenizer", "%s, %u tokens", info->tokenizer, info->n_vocab);
    cli_row("parameters", "%s", cli_count_text(a, info->parameters));
    cli_row("weights", "%s, %.2f bits each", cli_bytes_text(a, info->weight_bytes),
            info->parameters > 0 ? 8.0 * (double)info->weight_bytes / (double)info->parameters
                                 : 0.0);
    cli_row("quantisation", "%s", info->quantisation);
    cli_row("KV cache", "%s a token in f16, %s in q8_0", cli_bytes_text(a, info->kv_bytes_f16),
            cli_bytes_text(b, info->kv_bytes_q8_0));
    cli_row("fingerprint", "%s", fingerprint);
}

/* ---- for programs ----------------------------------------------------------------- */

static json_t *info_json(const mcp_model *model, const char *fingerprint)
{
    const mcp_model_info *info = mcp_model_get_info(model);
    json_t               *ranges = json_array();

    for (uint32_t i = 0; i < info->layers; i++)
        json_array_append_new(ranges,
                              json_integer((json_int_t)mcp_model_range_bytes(model, i, i + 1)));

    const struct {
        const char *key;
        json_t     *value;
    } fields[] = {
        { "path", cli_json_string(info->path) },
        { "architecture", cli_json_string(info->architecture) },
        { "name", cli_json_string(info->name) },
        { "parts", json_integer(info->parts) },
        { "layers", json_integer(info->layers) },
        { "n_embd", json_integer(info->n_embd) },
        { "n_vocab", json_integer(info->n_vocab) },
        { "n_ctx_train", json_integer(info->n_ctx_train) },
        { "n_head", json_integer(info->n_head) },
        { "n_head_kv", json_integer(info->n_head_kv) },
        { "n_ff", json_integer(info->n_ff) },
        { "n_expert", json_integer(info->n_expert) },
        { "n_expert_used", json_integer(info->n_expert_used) },
        { "parameters", json_integer((json_int_t)info->parameters) },
        { "file_bytes", json_integer((json_int_t)info->file_bytes) },
        { "weight_bytes", json_integer((json_int_t)info->weight_bytes) },
        { "layer_bytes", ranges }, /* the first with the embedding, the last with the head */
        { "quantisation", cli_json_string(info->quantisation) },
        { "kv_bytes_f16", json_integer((json_int_t)info->kv_bytes_f16) },
        { "kv_bytes_q8_0", json_integer((json_int_t)info->kv_bytes_q8_0) },
        { "tokenizer", cli_json_string(info->tokenizer) },
        { "fingerprint", json_string(fingerprint) },
        { "chat_template", cli_json_string(info->chat_template) },
    };
    json_t *object = json_object();
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        json_object_set_new(object, fields[i].key, fields[i].value);
    return object;
}

/* The weights' fingerprints, part by part, as they are read: on screen, or into
 * `object` when there is one.  0, or -1 with the line printed. */
static int weights_fingerprints(const mcp_model *model, json_t *object)
{
    int     layers = (int)mcp_model_get_info(model)->layers;
    json_t *parts = NULL;

    if (object != NULL) {
        parts = json_object();
        json_object_set_new(object, "weights_fingerprints", parts);
    } else {
        cli_printf("weights fingerprints:\n");
    }
    for (int i = -1; i <= layers; i++) {
        uint8_t   digest[MCP_FINGERPRINT_BYTES];
        char      text[HEX_BYTES], name[32];
        mcp_error err = { 0 };
        int       part = i < 0 ? (int)MCP_PART_EMBED : i == layers ? (int)MCP_PART_HEAD : i;

        if (mcp_model_weights_fingerprint(model, part, digest, &err) < 0) {
            cli_fail("%s", err.text);
            return -1;
        }
        if (part == MCP_PART_EMBED || part == MCP_PART_HEAD)
            snprintf(name, sizeof(name), "%s", part == MCP_PART_EMBED ? "embedding" : "head");
        else
            snprintf(name, sizeof(name), "%d", part);
        if (parts != NULL)
            json_object_set_new(parts, name, json_string(hex(text, digest)));
        else if (cli_printf("  %-12s %s\n", name, hex(text, digest)) < 0)
            return -1;
    }
    return 0;
}

/* ---- a worker ------------------------------------------------------------------------ */

static int worker_json(const mcp_worker_info *info)
{
    char fingerprint[HEX_BYTES];

    return cli_print_json(json_pack(
        "{s:o, s:s, s:o, s:o, s:o, s:o, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:o, s:o}",
        "endpoint", cli_json_string(info->endpoint), "state", mcp_worker_state_name(info->state),
        "name", cli_json_string(info->name), "model", cli_json_string(info->model), "architecture",
        cli_json_string(info->architecture), "quantisation", cli_json_string(info->quantisation),
        "fingerprint", hex(fingerprint, info->fingerprint), "layers", (int)info->layers, "first",
        (int)info->first, "last", (int)info->last, "n_embd", (int)info->n_embd, "sessions",
        (int)info->sessions, "sessions_free", (int)info->sessions_free, "ctx_tokens",
        (int)info->ctx_tokens, "batch_tokens", (int)info->batch_tokens, "features",
        cli_json_string(info->features), "codecs", cli_json_string(info->codecs)));
}

static void worker_text(const mcp_worker_info *info)
{
    char fingerprint[HEX_BYTES];

    cli_row("worker", "%s (%s), %s", info->endpoint, info->name,
            mcp_worker_state_name(info->state));
    if (info->problem[0] != '\0')
        cli_row("problem", "%s", info->problem);
    if (info->layers == 0)
        return;
    cli_row("model", "%s, %s, %s", info->model, info->architecture, info->quantisation);
    cli_row("fingerprint", "%s", hex(fingerprint, info->fingerprint));
    cli_row("layers", "[%u, %u) of %u", info->first, info->last, info->layers);
    cli_row("hidden state", "%u floats a token (n_embd)", info->n_embd);
    cli_row("sessions", "%u, of which %u are free", info->sessions, info->sessions_free);
    cli_row("context", "%u tokens a session, %u a window", info->ctx_tokens, info->batch_tokens);
    cli_row("features", "%s", info->features);
    cli_row("codecs", "%s", info->codecs);
    cli_row("version", "%s, %s", info->version, info->tls);
}

static int show_workers(const struct show_args *show)
{
    struct cli_place_args given = { .workers = show->workers,
                                    .keys = show->keys,
                                    .token = show->token };
    mcp_remote           *remote = NULL;
    int                   status = CLI_OK;

    if (cli_remote_open(&remote, &given, false) < 0)
        return CLI_FAILED;
    for (uint32_t i = 0; i < mcp_remote_worker_count(remote); i++) {
        mcp_worker_info info = { .struct_size = sizeof(info) };

        if (mcp_remote_get_worker(remote, i, &info) < 0)
            continue;
        if (show->json)
            status = worker_json(&info) == CLI_OK ? status : CLI_FAILED;
        else
            worker_text(&info);
    }
    mcp_remote_close(remote);
    return status;
}

static int show_run(struct cli_args *args)
{
    const struct show_args *show = (const struct show_args *)args;
    uint8_t                 digest[MCP_FINGERPRINT_BYTES];
    char                    fingerprint[HEX_BYTES];
    mcp_model              *model = NULL;
    json_t                 *object = NULL;
    mcp_error               err = { 0 };
    int                     status = CLI_FAILED;

    /* MCP_WORKER, which other verbs want set, does not keep a file from being shown. */
    if (show->workers.count > 0 && (show->model == NULL || !show->workers.from_env))
        return show_workers(show);
    if (cli_model_open(&model, show->model) < 0)
        goto out;
    if (mcp_model_fingerprint(model, digest, &err) < 0) {
        cli_fail("%s", err.text);
        goto out;
    }
    hex(fingerprint, digest);
    if (show->json) {
        object = info_json(model, fingerprint);
        if (show->fingerprints && weights_fingerprints(model, object) < 0)
            goto out;
        status = cli_print_json(object);
        object = NULL; /* taken */
    } else {
        print_info(model, fingerprint);
        print_template(mcp_model_get_info(model)->chat_template, show->whole_template);
        if (show->fingerprints && weights_fingerprints(model, NULL) < 0)
            goto out;
        status = CLI_OK;
    }
out:
    json_decref(object);
    mcp_model_close(model);
    return status;
}

const struct cli_verb cli_verb_show = {
    .name = "show",
    .summary =
        "what a model file or a worker holds: sizes, quantisation, fingerprint, chat template",
    .usage = "FILE | --worker HOST:PORT [--json] [--fingerprints] [--template]",
    .groups = { { "Options", show_options, sizeof(show_options) / sizeof(show_options[0]), 0 } },
    .args_bytes = sizeof(struct show_args),
    .run = show_run,
};
