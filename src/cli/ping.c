/* cli/ping.c - `mcp ping`: is a worker there, how far is it, and what is wrong if it is not.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/out.h"
#include "cli/place.h"

#include <stdio.h>
#include <string.h>

struct ping_args {
    struct cli_args  args;
    struct cli_texts workers;
    const char      *keys;
    const char      *token;
    int64_t          count;
    int64_t          size;
    int64_t          bulk_kib;
    bool             json;
};

#define AT(member) .at = offsetof(struct ping_args, member)

static const struct cli_option ping_options[] = {
    { .name = "worker",
      .type = CLI_TEXTS,
      .bare = true,
      AT(workers),
      .value = "HOST:PORT",
      .help = "the worker; without: those of 'mcp join'" },
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
    { .name = "count",
      .type = CLI_INT,
      AT(count),
      .value = "N",
      .fallback = "10",
      .min = 1,
      .max = 1000,
      .help = "small messages, in turns" },
    { .name = "size",
      .type = CLI_INT,
      AT(size),
      .value = "BYTES",
      .fallback = "64",
      .min = 1,
      .max = 65536,
      .help = "of a small message, each way" },
    { .name = "bulk",
      .type = CLI_INT,
      AT(bulk_kib),
      .value = "KIB",
      .fallback = "1024",
      .min = 0,
      .max = 1 << 20,
      .help = "sent each way to measure the goodput; 0 = not" },
    { .name = "json", .type = CLI_FLAG, AT(json), .help = "one JSON object a worker" },
};

#undef AT

static void print_text(const mcp_worker_info *info, const mcp_ping_result *r)
{
    cli_row("worker", "%s %s%s%s", info->endpoint, mcp_worker_state_name(info->state),
            info->problem[0] != '\0' ? ": " : "", info->problem);
    if (info->layers == 0)
        return;
    cli_row("name", "%s, mcp %s, %s", info->name, info->version, info->tls);
    if (info->degraded[0] != '\0')
        cli_row("degraded", "%s", info->degraded);
    cli_row("holds", "layers [%u,%u) of %u of %s (%s)", info->first, info->last, info->layers,
            info->model, info->quantisation);
    cli_row("room", "%u of %u sessions free, context %u, %u positions queued", info->sessions_free,
            info->sessions, info->ctx_tokens, info->queued_tokens);
    cli_row("features", "%s", info->features);
    cli_row("codecs", "%s", info->codecs);
    if (r == NULL)
        return;
    cli_row("rtt", "min %.2f, p50 %.2f, max %.2f ms", r->rtt_ms_min, r->rtt_ms_p50, r->rtt_ms_max);
    if (r->tcp_rtt_ms > 0.0)
        cli_row("added", "%.2f ms over TCP's own %.2f ms", r->added_ms, r->tcp_rtt_ms);
    if (r->up_mbit > 0.0)
        cli_row("goodput", "%.1f Mbit/s up, %.1f down", r->up_mbit, r->down_mbit);
}

static int print_json(const mcp_worker_info *info, const mcp_ping_result *r)
{
    json_t *object = json_pack(
        "{s:o, s:s, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:i, s:i, s:i, s:i, s:i}", "endpoint",
        cli_json_string(info->endpoint), "state", mcp_worker_state_name(info->state), "problem",
        cli_json_string(info->problem), "name", cli_json_string(info->name), "version",
        info->version, "tls", cli_json_string(info->tls), "model", cli_json_string(info->model),
        "quantisation", cli_json_string(info->quantisation), "features",
        cli_json_string(info->features), "codecs", cli_json_string(info->codecs), "layers",
        (int)info->layers, "first", (int)info->first, "last", (int)info->last, "sessions",
        (int)info->sessions, "sessions_free", (int)info->sessions_free);

    if (r != NULL) {
        json_object_set_new(object, "rtt_ms",
                            json_pack("{s:f, s:f, s:f}", "min", r->rtt_ms_min, "p50", r->rtt_ms_p50,
                                      "max", r->rtt_ms_max));
        json_object_set_new(object, "tcp_rtt_ms", cli_json_real(r->tcp_rtt_ms));
        json_object_set_new(object, "added_ms", cli_json_real(r->added_ms));
        json_object_set_new(object, "up_mbit", cli_json_real(r->up_mbit));
        json_object_set_new(object, "down_mbit", cli_json_real(r->down_mbit));
    }
    return cli_print_json(object);
}

static int ping_one(mcp_remote *remote, uint32_t index, const struct ping_args *ping)
{
    mcp_ping_opts   opts = { .rounds = (uint32_t)ping->count,
                             .small_bytes = (uint32_t)ping->size,
                             .bulk_bytes = ping->bulk_kib > 0 ? (uint64_t)ping->bulk_kib << 10
                                                              : UINT64_MAX };
    mcp_ping_result result = { 0 };
    mcp_worker_info info = { .struct_size = sizeof(info) };
    mcp_error       err = { 0 };
    bool            up;
    int             rc = 0;

    if (mcp_remote_get_worker(remote, index, &info) < 0)
        return cli_fail("worker %u is not known", index), -1;
    up = info.state == MCP_WORKER_UP || info.state == MCP_WORKER_DRAINING;
    if (up)
        rc = mcp_remote_ping(remote, index, &opts, &result, &err);
    if (ping->json && print_json(&info, up && rc == 0 ? &result : NULL) != CLI_OK)
        return -1;
    if (!ping->json)
        print_text(&info, up && rc == 0 ? &result : NULL);
    if (rc < 0)
        return cli_fail("%s", err.text), -1;
    return up ? 0 : -1;
}

static int ping_run(struct cli_args *args)
{
    const struct ping_args *ping = (const struct ping_args *)args;
    struct cli_place_args   place = { .workers = ping->workers,
                                      .keys = ping->keys,
                                      .token = ping->token };
    mcp_remote             *remote = NULL;
    int                     status = CLI_OK;

    if (cli_remote_open(&remote, &place, false) < 0)
        return CLI_FAILED;
    for (uint32_t i = 0; i < mcp_remote_worker_count(remote); i++)
        if (ping_one(remote, i, ping) < 0)
            status = CLI_FAILED;
    mcp_remote_close(remote);
    return status;
}

const struct cli_verb cli_verb_ping = {
    .name = "ping",
    .summary = "reach a worker: round trip, goodput, identity, what it holds",
    .usage = "[HOST:PORT] [--keys DIR] [options]",
    .groups = { { "Options", ping_options, sizeof(ping_options) / sizeof(ping_options[0]), 0 } },
    .args_bytes = sizeof(struct ping_args),
    .run = ping_run,
};
