/* cli/answer.c - one answer: text to tokens, tokens to text, and what it cost.
 *
 * Ctrl-C reaches a running forward through mcp_engine_cancel() and the time between
 * two of them through the callback, so an answer stops wherever it is.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/stats.h"
#include "cli/talk.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* What the callback fills, token by token. */
struct collect {
    struct cli_stream  stream;
    bool               show;   /* stream to standard output */
    bool               failed; /* a line was printed, or standard output is gone */
    struct cli_buffer  bytes;  /* the answer as it came */
    json_t            *ids;
    const struct talk *talk;
    struct timespec    told; /* --stats: when the last line was printed */
};

enum { STATS_S = 1 /* between two lines of --stats */ };

static void tell_stats(struct collect *c)
{
    struct timespec now;

    if (!c->talk->args->stats || clock_gettime(CLOCK_MONOTONIC, &now) != 0 ||
        now.tv_sec - c->told.tv_sec < STATS_S)
        return;
    c->told = now;
    cli_stats_live(&c->talk->place, c->talk->model, (uint32_t)json_array_size(c->ids));
}

static int on_token(int32_t token, const char *bytes, size_t count, void *ctx)
{
    struct collect *c = ctx;

    if (json_array_append_new(c->ids, json_integer(token)) < 0 ||
        cli_buffer_add(&c->bytes, bytes, count) < 0 ||
        (c->show && cli_stream_write(&c->stream, bytes, count) < 0))
        c->failed = true;
    tell_stats(c);
    return c->failed || cli_interrupt_came();
}

/* ---- what it cost ----------------------------------------------------------------- */

static uint64_t peak_rss_bytes(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

static unsigned long long mib(uint64_t bytes)
{
    return (unsigned long long)((bytes + (1 << 19)) >> 20);
}

/* " | why" when the answer did not end by itself; `out` is always terminated. */
static void stop_text(char *out, size_t cap, const struct talk *talk, mcp_stop stop)
{
    uint32_t ctx = talk->place.ctx_tokens;

    out[0] = '\0';
    if (stop == MCP_STOP_CANCEL)
        snprintf(out, cap, " | stopped by Ctrl-C");
    else if (stop == MCP_STOP_LENGTH)
        snprintf(out, cap, " | stopped at -n %lld", (long long)talk->args->n_predict);
    else if (stop == MCP_STOP_CONTEXT && ctx >= mcp_model_get_info(talk->model)->n_ctx_train)
        snprintf(out, cap, " | context full: %u tokens, all that the model was trained for (-c)",
                 ctx);
    else if (stop == MCP_STOP_CONTEXT)
        snprintf(out, cap, " | context full: %u tokens, raise -c/--ctx-size", ctx);
}

static void print_timings(const struct talk *talk, const mcp_generate_result *r)
{
    const struct cli_place *place = &talk->place;
    mcp_session_stats       stats = { .struct_size = sizeof(stats) };
    char                    cached[48] = "", rate[48] = "", stop[128];

    (void)mcp_session_get_stats(place->session, &stats);

    if (r->prompt_cached > 0)
        snprintf(cached, sizeof(cached), " (%u cached)", r->prompt_cached);
    if (r->generated_tokens > 1)
        snprintf(rate, sizeof(rate), ", %.1f tokens/s", r->predicted_per_second);
    stop_text(stop, sizeof(stop), talk, r->stop);
    fprintf(stderr,
            "prompt %u token%s%s, %.1f tokens/s | generated %u token%s%s | first token %.0f ms | "
            "memory %llu MiB (weights %llu, KV %llu, compute %llu)%s\n",
            r->prompt_tokens, r->prompt_tokens == 1 ? "" : "s", cached, r->prompt_per_second,
            r->generated_tokens, r->generated_tokens == 1 ? "" : "s", rate, r->ttft_ms,
            mib(peak_rss_bytes()), mib(stats.weight_bytes), mib(stats.kv_bytes),
            mib(stats.compute_bytes), stop);
    if (place->remote != NULL)
        cli_stats_stages(&stats);
}

/* The devices of layers [first, last), out of "cpu" or "cpu [0,12) + cuda0 [12,30)". */
static void devices_of(char *out, size_t cap, const char *devices, uint32_t first, uint32_t last)
{
    size_t used = 0;

    out[0] = '\0';
    while (*devices != '\0') {
        char     name[64];
        unsigned from, to;
        int      end = 0;

        if (sscanf(devices, "%63s [%u,%u)%n", name, &from, &to, &end) != 3 || end == 0) {
            if (used == 0)
                snprintf(out, cap, "%s", devices);
            return;
        }
        if (from < last && to > first && used < cap)
            used += (size_t)snprintf(out + used, cap - used, "%s%s", used == 0 ? "" : "+", name);
        devices += end;
        devices += strspn(devices, " +");
    }
}

/* A stage's line in the plan.  Its device here, or its worker. */
static json_t *stage_json(const mcp_stage_stats *s)
{
    static const char here[] = "here: ";
    bool              ours = strncmp(s->where, here, strlen(here)) == 0;
    char              device[sizeof(s->where)];

    if (ours)
        devices_of(device, sizeof(device), s->where + strlen(here), s->first, s->last);
    else
        snprintf(device, sizeof(device), "%s", s->where);
    return json_pack("{s:i, s:i, s:s, s:o, s:I, s:I, s:f, s:f, s:f, s:i, s:i, s:I}", "first",
                     (int)s->first, "last", (int)s->last, "where", ours ? "here" : "worker",
                     "device", cli_json_string(device), "windows", (json_int_t)s->windows,
                     "positions", (json_int_t)s->positions, "elapsed_ms", s->elapsed_ms, "queue_ms",
                     s->queue_ms, "compute_ms", s->compute_ms, "failovers", (int)s->failovers,
                     "handovers", (int)s->handovers, "replayed_positions",
                     (json_int_t)s->replayed_positions);
}

static json_t *plan_json(const struct talk *talk, const mcp_session_stats *stats)
{
    json_t       *cuts = json_array(), *stages = json_array(), *plan;
    mcp_plan_info info = { .struct_size = sizeof(info) };

    for (uint32_t i = 0; i < stats->stage_count && i < MCP_STAGE_STATS_MAX; i++) {
        if (i > 0)
            json_array_append_new(cuts, json_integer(stats->stages[i].first));
        json_array_append_new(stages, stage_json(&stats->stages[i]));
    }
    plan = json_pack("{s:s, s:o, s:o}", "mode", cli_mode_name(talk->place.mode), "cuts", cuts,
                     "stages", stages);
    if (talk->place.plan != NULL && mcp_plan_get_info(talk->place.plan, &info) == MCP_OK)
        json_object_update_new(
            plan,
            json_pack("{s:o, s:o, s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:s, s:i, s:f}", "text",
                      cli_json_string(info.text), "why", cli_json_string(info.why), "codec",
                      info.codec, "chunk_tokens", (int)info.chunk_tokens, "spec_depth",
                      (int)info.spec_depth, "spec_windows", (int)info.spec_windows, "ttft_ms",
                      info.ttft_ms, "token_ms", info.token_ms, "total_ms", info.total_ms, "now",
                      stats->plan, "moves", (int)stats->moves, "move_ms", stats->move_ms));
    return plan;
}

static int print_json(const struct talk *talk, const struct collect *c,
                      const mcp_generate_result *r, const char *failure)
{
    const struct cli_place *place = &talk->place;
    mcp_session_stats       stats = { .struct_size = sizeof(stats) };

    (void)mcp_session_get_stats(place->session, &stats);
    const struct {
        const char *key;
        json_t     *value;
    } fields[] = {
        { "text", cli_json_text(c->bytes.text != NULL ? c->bytes.text : "", c->bytes.bytes) },
        { "tokens", json_incref(c->ids) },
        { "prompt_tokens", json_integer(r->prompt_tokens) },
        { "prompt_cached", json_integer(r->prompt_cached) },
        { "generated_tokens", json_integer(r->generated_tokens) },
        { "ttft_ms", cli_json_real(r->ttft_ms) },
        { "prompt_per_second", cli_json_real(r->prompt_per_second) },
        { "predicted_per_second", cli_json_real(r->predicted_per_second) },
        { "stop_reason", json_string(failure != NULL ? "error" : mcp_stop_name(r->stop)) },
        { "seed", json_integer((json_int_t)r->seed) },
        { "ctx_size", json_integer(place->ctx_tokens) },
        { "plan", plan_json(talk, &stats) },
        { "codec", json_string(stats.codec[0] != '\0' ? stats.codec : "none") },
        { "bytes_out", json_integer((json_int_t)stats.bytes_out) },
        { "bytes_in", json_integer((json_int_t)stats.bytes_in) },
        { "windows", json_integer((json_int_t)stats.windows) },
        { "drafted", json_integer((json_int_t)stats.drafted) },
        { "drafted_seen", json_integer((json_int_t)stats.drafted_seen) },
        { "accepted", json_integer((json_int_t)stats.accepted) },
        { "draft_made", json_integer((json_int_t)stats.draft_made) },
        { "draft_seen", json_integer((json_int_t)stats.draft_seen) },
        { "draft_accepted", json_integer((json_int_t)stats.draft_accepted) },
        { "draft_ms", cli_json_real(stats.draft_ms) },
        { "in_flight_max", json_integer(stats.in_flight_max) },
        { "failovers", json_integer(stats.failovers) },
        { "handovers", json_integer(stats.handovers) },
        { "stall_ms_max", cli_json_real(stats.stall_ms_max) },
        { "memory",
          json_pack("{s:I, s:I, s:I, s:I}", "peak_rss_bytes", (json_int_t)peak_rss_bytes(),
                    "weight_bytes", (json_int_t)stats.weight_bytes, "kv_bytes",
                    (json_int_t)stats.kv_bytes, "compute_bytes", (json_int_t)stats.compute_bytes) },
    };
    json_t *object = json_object();

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        json_object_set_new(object, fields[i].key, fields[i].value);
    if (failure != NULL)
        json_object_set_new(object, "error", cli_json_string(failure));
    return cli_print_json(object) == CLI_OK ? 0 : -1;
}

/* ---- the answer ------------------------------------------------------------------- */

/* Tokens of `text` into *out, which is the caller's to free.  Their number, or -1. */
static int tokenize(const struct talk *talk, const char *text, size_t bytes, int32_t **out)
{
    const int flags = MCP_TOKENIZE_SPECIAL | MCP_TOKENIZE_BOS;
    size_t    cap = bytes / 2 + 16; /* mostly enough at once */
    mcp_error err = { 0 };

    *out = NULL;
    for (;;) {
        int32_t *tokens = calloc(cap, sizeof(*tokens));
        if (tokens == NULL)
            return cli_fail("out of memory for %zu tokens", cap), -1;
        int count = mcp_model_tokenize(talk->model, text, bytes, flags, tokens, cap, &err);
        if (count >= 0 && (size_t)count <= cap) {
            *out = tokens;
            return count;
        }
        free(tokens);
        if (count < 0)
            return cli_fail("%s", err.text), -1;
        cap = (size_t)count;
    }
}

static int check_room(const struct talk *talk, uint32_t count)
{
    uint32_t ctx = talk->place.ctx_tokens;
    uint32_t trained = mcp_model_get_info(talk->model)->n_ctx_train;

    if (count == 0)
        return cli_fail("the prompt is empty"), -1;
    if (count <= ctx)
        return 0;
    if (count <= trained)
        cli_fail("the prompt has %u tokens, the context holds %u: raise -c/--ctx-size", count, ctx);
    else
        cli_fail("the prompt has %u tokens, the context holds %u and -c/--ctx-size can raise it "
                 "to %u, the length that the model was trained for",
                 count, ctx, trained);
    return -1;
}

static mcp_generate_opts options_of(const struct run_args *args)
{
    mcp_generate_opts opts = MCP_GENERATE_OPTS_INIT;

    opts.max_tokens = args->n_predict < 0 ? UINT32_MAX : (uint32_t)args->n_predict;
    opts.temperature = (float)args->temp;
    opts.top_k = (int32_t)args->top_k;
    opts.top_p = (float)args->top_p;
    opts.min_p = (float)args->min_p;
    opts.seed = args->seed < 0 ? MCP_SEED_RANDOM : (uint32_t)args->seed;
    opts.ignore_end = args->ignore_eos;
    return opts;
}

enum talk_end talk_answer(struct talk *talk, const char *text, size_t bytes,
                          struct cli_buffer *answer)
{
    struct collect      c = { .show = !talk->args->json, .ids = json_array(), .talk = talk };
    mcp_generate_opts   opts = options_of(talk->args);
    mcp_generate_result result = { 0 };
    mcp_error           err = { 0 };
    int32_t            *tokens = NULL;
    enum talk_end       end = TALK_FAILED;

    cli_buffer_drop(answer, answer->bytes);
    cli_stream_init(&c.stream, isatty(STDOUT_FILENO) != 0);
    int count = tokenize(talk, text, bytes, &tokens);
    if (c.ids == NULL || count < 0 || check_room(talk, (uint32_t)count) < 0)
        goto out;

    cli_interrupt_target(talk->place.session);
    int rc = mcp_session_generate(talk->place.session, tokens, (uint32_t)count, &opts, on_token, &c,
                                  &result, &err);
    cli_interrupt_target(NULL);
    bool interrupted = cli_interrupt_came();

    if (c.show && !c.failed && c.bytes.bytes > 0 && cli_stream_end(&c.stream) < 0)
        c.failed = true;
    if (cli_utf8_repair(answer, c.bytes.text, c.bytes.bytes) < 0 || c.failed)
        goto out;
    for (size_t i = 0; i < answer->bytes; i++)
        if (answer->text[i] == '\0')
            answer->text[i] = '\x1a'; /* SUB: a chat message cannot hold a NUL */
    if (interrupted && result.stop == MCP_STOP_CALLBACK)
        result.stop = MCP_STOP_CANCEL; /* the callback passed the Ctrl-C on */

    if (!c.show && (rc == 0 || c.bytes.bytes > 0) &&
        print_json(talk, &c, &result, rc < 0 ? err.text : NULL) < 0)
        goto out;
    if (rc < 0) {
        cli_fail("%s", err.text);
        goto out;
    }
    if (c.show)
        print_timings(talk, &result);
    end = result.stop == MCP_STOP_CANCEL ? TALK_INTERRUPTED : TALK_DONE;
out:
    cli_stream_fini(&c.stream);
    cli_buffer_fini(&c.bytes);
    json_decref(c.ids);
    free(tokens);
    return end;
}

int talk_format(const struct talk *talk, const mcp_chat_message *messages, size_t count,
                struct cli_buffer *text)
{
    mcp_error err = { 0 };
    int       bytes = mcp_model_chat_format(talk->model, messages, count, 1, NULL, 0, &err);
    char     *room;

    if (bytes < 0)
        return cli_fail("%s", err.text), -1;
    room = malloc((size_t)bytes + 1);
    if (room == NULL)
        return cli_fail("out of memory for a conversation of %d bytes", bytes), -1;
    int rc = mcp_model_chat_format(talk->model, messages, count, 1, room, (size_t)bytes + 1, &err);
    rc = rc < 0 ? (cli_fail("%s", err.text), -1) : cli_buffer_add(text, room, (size_t)bytes);
    free(room);
    return rc;
}
