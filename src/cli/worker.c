/* cli/worker.c - `mcp worker`: serve layers of a model to agents elsewhere.
 *
 * One line on standard output says when it serves and where; everything else that it has to say
 * goes to standard error.  SIGTERM and Ctrl-C drain: sessions get --drain-ms to move, a second
 * one ends the program at once.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/keys.h"
#include "cli/load.h"
#include "cli/out.h"
#include "gateway/metrics.h"

#include <mcp/worker.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct worker_args {
    struct cli_args        args;
    struct cli_engine_args engine;
    const char            *layers;
    const char            *listen;
    const char            *keys;
    int64_t                sessions;
    int64_t                ctx_size;
    int64_t                chunk;
    int64_t                subject_sessions;
    const char            *reserve;
    bool                   require_token;
    int64_t                drain_ms;
    int64_t                lease_ms;
    int64_t                idle_ms;
    int64_t                io_threads;
    int64_t                connections;
    const char            *metrics;
    const char            *invite;
    bool                   uneven_windows;
    bool                   debug_commands;
    bool                   json;
};

#define AT(member) .at = offsetof(struct worker_args, member)

static const struct cli_option serve_options[] = {
    { .name = "layers",
      .type = CLI_TEXT,
      AT(layers),
      .value = "A-B",
      .help = "hold layers A to B-1: 4-26 = [4,26); default: all" },
    { .name = "listen",
      .type = CLI_TEXT,
      AT(listen),
      .value = "HOST:PORT",
      .fallback = "127.0.0.1:7070",
      .help = "address of the gRPC server; port 0 = any free one" },
    CLI_KEYS_OPTION(struct worker_args),
    { .name = "sessions",
      .brief = "np",
      .also = "parallel",
      .type = CLI_INT,
      AT(sessions),
      .value = "N",
      .fallback = "8",
      .min = 1,
      .max = 1024,
      .help = "sessions at once, each with its own KV cache of -c tokens" },
    { .name = "ctx-size",
      .brief = "c",
      .type = CLI_INT,
      AT(ctx_size),
      .value = "N",
      .fallback = "0",
      .min = 0,
      .max = 1 << 24,
      .help = "tokens of a session; 0 = what the model was trained for, at most 4096" },
    { .name = "metrics",
      .type = CLI_TEXT,
      AT(metrics),
      .value = "HOST:PORT",
      .help = "serve a page for Prometheus there: plain HTTP, so best on 127.0.0.1" },
    { .name = "invite",
      .type = CLI_TEXT,
      AT(invite),
      .value = "NAME",
      .help = "make a certificate for NAME and print the 'mcp join' line for it" },
    { .name = "json", .type = CLI_FLAG, AT(json), .help = "the ready line as a JSON object" },
};

static const struct cli_option share_options[] = {
    { .name = "reserve",
      .type = CLI_TEXT,
      AT(reserve),
      .value = "TEAM=N,...",
      .help = "sessions that a subject always finds free; lent to others until it comes" },
    { .name = "subject-sessions",
      .type = CLI_INT,
      AT(subject_sessions),
      .value = "N",
      .fallback = "0",
      .min = 0,
      .max = 1024,
      .help = "most sessions of one subject; 0 = all" },
    { .name = "require-token",
      .type = CLI_FLAG,
      AT(require_token),
      .help = "a certificate alone is not enough" },
    { .name = "chunk",
      .type = CLI_INT,
      AT(chunk),
      .value = "N",
      .fallback = "256",
      .min = 64,
      .max = 1 << 20,
      .help = "prefill tokens a forward while others decode" },
    { .name = "drain-ms",
      .type = CLI_INT,
      AT(drain_ms),
      .value = "MS",
      .fallback = "10000",
      .min = 0,
      .max = 24 * 3600000.0,
      .help = "time that sessions have to move after SIGTERM" },
    { .name = "lease-ms",
      .type = CLI_INT,
      AT(lease_ms),
      .value = "MS",
      .fallback = "30000",
      .min = 1,
      .max = 24 * 3600000.0,
      .help = "how long a session outlives its connection" },
    { .name = "idle-ms",
      .type = CLI_INT,
      AT(idle_ms),
      .value = "MS",
      .fallback = "1800000",
      .min = 1,
      .max = 24 * 3600000.0,
      .help = "a session without work for so long ends" },
    { .name = "io-threads",
      .type = CLI_INT,
      AT(io_threads),
      .value = "N",
      .fallback = "0",
      .min = 0,
      .max = 64,
      .help = "threads for connections; 0 = 1, and 2 from 8 processors on" },
    { .name = "connections",
      .type = CLI_INT,
      AT(connections),
      .value = "N",
      .fallback = "1024",
      .min = 1,
      .max = 1 << 20,
      .help = "most connections" },
    { .name = "uneven-windows",
      .type = CLI_FLAG,
      AT(uneven_windows),
      .help = "let the kernels for single tokens differ from those for a few: faster in some "
              "types, and replays and speculation may then change the text" },
    { .name = "debug-commands",
      .type = CLI_FLAG,
      AT(debug_commands),
      .help = "clients may ask for faults (metadata mcp-debug-stall-ms); for tests" },
    { .name = "verbose",
      .brief = "v",
      .type = CLI_FLAG,
      .at = offsetof(struct worker_args, engine.verbose),
      .help = "log lines of the library on stderr" },
};

#undef AT

/* The rows of cli_engine_options before --cuts: what follows is for who cuts. */
enum { ENGINE_OPTIONS = 9 };

/* ---- signals ------------------------------------------------------------------------ */

/* The handler writes the signal's number here; it may run on any thread. */
static int wake[2] = { -1, -1 };

static void on_signal(int number)
{
    int           saved = errno;
    unsigned char byte = (unsigned char)number;

    (void)!write(wake[1], &byte, 1); /* a full pipe is as readable as one with a byte */
    errno = saved;
}

static int catch_signals(void)
{
    static const int numbers[] = { SIGTERM, SIGINT, SIGHUP };
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

    if (pipe2(wake, O_CLOEXEC | O_NONBLOCK) < 0)
        return cli_fail("no pipe for signals: %s", strerror(errno)), -1;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (sigaction(numbers[i], &action, NULL) < 0)
            return cli_fail("cannot take over signal %d: %s", numbers[i], strerror(errno)), -1;
    return 0;
}

/* The next one, or 0 after `timeout_ms` (-1 = for ever). */
static int next_signal(int timeout_ms)
{
    struct pollfd fd = { .fd = wake[0], .events = POLLIN };
    unsigned char byte;

    if (poll(&fd, 1, timeout_ms) > 0 && read(wake[0], &byte, 1) == 1)
        return byte;
    return 0;
}

/* ---- opening ------------------------------------------------------------------------ */

/* "4-26" into [*first, *last); 0, or -1 with the line printed. */
static int parse_layers(const char *text, const mcp_model *model, uint32_t *first, uint32_t *last)
{
    uint32_t      layers = mcp_model_get_info(model)->layers;
    unsigned long from, to;
    char         *end, *rest = NULL;

    *first = 0;
    *last = 0;
    if (text == NULL)
        return 0;
    from = strtoul(text, &end, 10);
    to = *end == '-' && end[1] >= '0' && end[1] <= '9' ? strtoul(end + 1, &rest, 10) : 0;
    if (text[0] < '0' || text[0] > '9' || rest == NULL || *rest != '\0')
        return cli_fail("--layers: '%.200s' is not A-B, like 4-26 for layers 4 to 25", text), -1;
    if (from >= to || to > layers)
        return cli_fail("--layers: %.200s is not a range inside 0-%u (the model has %u layers)",
                        text, layers, layers),
               -1;
    *first = (uint32_t)from;
    *last = (uint32_t)to;
    return 0;
}

struct serving {
    mcp_model              *model;
    mcp_worker             *worker;
    struct gateway_metrics *metrics;
    char                    keys[MCP_KEYS_TEXT_BYTES];
    uint32_t                first, last;
};

static char *metrics_page(void *ctx)
{
    return mcp_worker_metrics(ctx);
}

static int open_worker(struct serving *s, const struct worker_args *given)
{
    mcp_engine_opts engine;
    mcp_worker_opts opts = MCP_WORKER_OPTS_INIT;
    mcp_error       err = { 0 };

    if (cli_keys_folder(s->keys, given->keys) < 0 ||
        cli_model_open(&s->model, given->engine.model) < 0 ||
        parse_layers(given->layers, s->model, &s->first, &s->last) < 0)
        return -1;
    engine = cli_engine_opts(&given->args, &given->engine, (uint32_t)given->ctx_size,
                             (uint32_t)given->sessions);
    engine.first = s->first;
    engine.last = s->last;
    opts.listen = given->listen;
    opts.keys = s->keys;
    opts.io_threads = (uint32_t)given->io_threads;
    opts.engine = &engine;
    opts.uneven_windows = given->uneven_windows;
    opts.chunk_tokens = (uint32_t)given->chunk;
    opts.subject_sessions = (uint32_t)given->subject_sessions;
    opts.reserve = given->reserve;
    opts.lease_ms = (uint32_t)given->lease_ms;
    opts.idle_ms = (uint32_t)given->idle_ms;
    opts.connections_max = (uint32_t)given->connections;
    opts.require_token = given->require_token;
    opts.debug_commands = given->debug_commands;
    if (mcp_worker_open(&s->worker, s->model, &opts, &err) < 0)
        return cli_fail("%s", err.text), -1;
    if (given->metrics != NULL &&
        gateway_metrics_open(&s->metrics, given->metrics, metrics_page, s->worker, &err) < 0)
        return cli_fail("%s", err.text), -1;
    return 0;
}

/* ---- what it says ------------------------------------------------------------------- */

static int print_ready(const struct serving *s, const struct worker_args *given)
{
    uint32_t    layers = mcp_model_get_info(s->model)->layers;
    uint32_t    last = s->last == 0 ? layers : s->last;
    const char *address = mcp_worker_address(s->worker);
    json_t     *object;

    if (!given->json)
        return cli_printf("ready %s layers [%u,%u) of %u sessions %u\n", address, s->first, last,
                          layers, (uint32_t)given->sessions) < 0
                   ? CLI_FAILED
                   : CLI_OK;
    object = json_object();
    json_object_set_new(object, "ready", cli_json_string(address));
    json_object_set_new(object, "first", json_integer(s->first));
    json_object_set_new(object, "last", json_integer(last));
    json_object_set_new(object, "layers", json_integer(layers));
    json_object_set_new(object, "sessions", json_integer(given->sessions));
    json_object_set_new(
        object, "metrics",
        cli_json_string(s->metrics != NULL ? gateway_metrics_address(s->metrics) : NULL));
    return cli_print_json(object);
}

/* How a user gets here: the command to type, for the line itself holds a private key; or that
 * line, when it was asked for. */
static int print_invitation(const struct serving *s, const struct worker_args *given)
{
    const char *address = mcp_worker_address(s->worker);
    char       *line = NULL;
    mcp_error   err = { 0 };

    if (s->metrics != NULL)
        cli_note("metrics: http://%s/metrics", gateway_metrics_address(s->metrics));
    if (given->invite != NULL) {
        if (mcp_keys_invite(s->keys, given->invite, address, &line, &err) < 0)
            return cli_fail("--invite: %s", err.text);
        fprintf(stderr, "mcp join %s\n", line);
        free(line);
    } else if (isatty(STDOUT_FILENO)) {
        cli_note("a line for a user's 'mcp join': mcp keys invite NAME --endpoint %s%s%s", address,
                 cli_args_given(&given->args, "keys") ? " --keys " : "",
                 cli_args_given(&given->args, "keys") ? s->keys : "");
    }
    return CLI_OK;
}

/* ---- serving ------------------------------------------------------------------------ */

/* Until a signal has drained it.  SIGHUP has nothing to do: keys are looked at once a second. */
static void serve(struct serving *s, const struct worker_args *given)
{
    enum { LOOK_MS = 20 };
    bool draining = false;

    while (!draining || !mcp_worker_wait(s->worker, 0)) {
        int number = next_signal(draining ? LOOK_MS : -1);

        if (number != SIGTERM && number != SIGINT)
            continue;
        if (draining) {
            cli_note("ended before the drain was over");
            _exit(CLI_FAILED); /* a forward may take long; nothing here needs closing */
        }
        draining = true;
        mcp_worker_drain(s->worker, (uint32_t)given->drain_ms);
    }
}

static int worker_run(struct cli_args *args)
{
    const struct worker_args *given = (const struct worker_args *)args;
    struct serving            s = { 0 };
    int                       status = CLI_FAILED;

    assert(strcmp(cli_engine_options[ENGINE_OPTIONS].name, "cuts") == 0);
    if (given->engine.verbose)
        cli_log_verbose();
    if (open_worker(&s, given) < 0 || catch_signals() < 0)
        goto out;
    status = print_ready(&s, given);
    if (status == CLI_OK)
        status = print_invitation(&s, given);
    if (status == CLI_OK)
        serve(&s, given);
out:
    gateway_metrics_close(s.metrics);
    mcp_worker_close(s.worker);
    mcp_model_close(s.model);
    return status;
}

const struct cli_verb cli_verb_worker = {
    .name = "worker",
    .summary = "serve layers of a model to agents elsewhere",
    .usage = "-m FILE [--layers A-B] [--listen HOST:PORT] [options]",
    .notes =
        "Prints one line when it serves: ready HOST:PORT layers [A,B) of N sessions M.\n"
        "SIGTERM and Ctrl-C drain it; a second one ends it at once. Keys are loaded again when\n"
        "files in their folder change.",
    .groups = { { "Serving", serve_options, sizeof(serve_options) / sizeof(serve_options[0]), 0 },
                { "Sharing", share_options, sizeof(share_options) / sizeof(share_options[0]), 0 },
                { "Model and engine", cli_engine_options, ENGINE_OPTIONS,
                  offsetof(struct worker_args, engine) } },
    .args_bytes = sizeof(struct worker_args),
    .run = worker_run,
};
