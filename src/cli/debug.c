/* cli/debug.c - `mcp debug logits`: what the engine computes, as numbers, for tests and
 * for comparison with other programs.
 *
 * The tokens are run in the windows asked for, since on a CPU the arithmetic depends
 * on a window's size; rows come out in the order of positions, sequence by sequence,
 * as little-endian float32 and nothing else.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/load.h"
#include "cli/out.h"
#include "cli/stages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rows are written as they lie in memory");

struct logits_args {
    struct cli_args        args;
    struct cli_engine_args engine;
    struct cli_ints        tokens;
    const char            *text;
    struct cli_ints        windows;
    int64_t                seqs;
    int64_t                hidden; /* boundary; 0 = logits */
    const char            *output;
};

#define AT(member) .at = offsetof(struct logits_args, member)

static const struct cli_option logits_options[] = {
    { .name = "tokens",
      .type = CLI_INTS,
      AT(tokens),
      .value = "ID,...",
      .min = 0,
      .max = 2147483647,
      .help = "token ids to run" },
    { .name = "text",
      .type = CLI_TEXT,
      AT(text),
      .value = "TEXT",
      .help = "text to run instead, made into tokens as by 'mcp run --raw'" },
    { .name = "windows",
      .type = CLI_INTS,
      AT(windows),
      .value = "N,...",
      .min = 1,
      .max = 1 << 20,
      .help = "tokens in each forward, the last size repeated; default: as many as -b allows" },
    { .name = "seqs",
      .type = CLI_INT,
      AT(seqs),
      .value = "N",
      .fallback = "1",
      .min = 1,
      .max = 4096,
      .help = "the same tokens in so many sequences at once" },
    { .name = "hidden",
      .type = CLI_INT,
      AT(hidden),
      .value = "L",
      .fallback = "0",
      .min = 0,
      .max = 100000,
      .help = "hidden states after the first L layers; 0 = logits" },
    { .name = "output",
      .brief = "o",
      .type = CLI_TEXT,
      AT(output),
      .value = "FILE",
      .fallback = "-",
      .help = "where the rows go; - = standard output" },
};

#undef AT

/* Everything of one run, so that it is released in one place. */
struct dump {
    const struct logits_args *args;
    mcp_model                *model;
    mcp_engine               *engine;
    struct cli_stages         stages;
    int32_t                  *tokens; /* (count) */
    uint32_t                  count;
    uint32_t                  columns; /* floats in a row */
    mcp_window               *windows; /* (seqs) */
    float                    *step;    /* (seqs, window, columns): rows of one forward */
    float                    *rows;    /* (seqs, count, columns) */
};

static int read_tokens(struct dump *dump)
{
    const struct logits_args *args = dump->args;
    size_t    cap = args->text != NULL ? strlen(args->text) + 16 : args->tokens.count;
    mcp_error err = { 0 };
    int       count;

    if ((args->text != NULL) == (args->tokens.count > 0))
        return cli_fail("give either --tokens or --text"), -1;
    dump->tokens = calloc(cap, sizeof(dump->tokens[0]));
    if (dump->tokens == NULL)
        return cli_fail("out of memory for %zu tokens", cap), -1;
    if (args->text != NULL) {
        count = mcp_model_tokenize(dump->model, args->text, strlen(args->text),
                                   MCP_TOKENIZE_SPECIAL | MCP_TOKENIZE_BOS, dump->tokens, cap,
                                   &err);
        if (count <= 0 || (size_t)count > cap)
            return cli_fail("--text: %s", count < 0 ? err.text : "gives no usable tokens"), -1;
        dump->count = (uint32_t)count;
        return 0;
    }
    for (size_t i = 0; i < cap; i++)
        dump->tokens[i] = (int32_t)args->tokens.values[i];
    dump->count = (uint32_t)cap;
    return 0;
}

/* Size of the n-th window from position `pos` on. */
static uint32_t window_size(const struct dump *dump, size_t n, uint32_t pos, uint32_t most)
{
    const struct cli_ints *sizes = &dump->args->windows;
    uint32_t               size = sizes->count == 0 ? most
                                                    : sizes->values[n < sizes->count ? n : sizes->count - 1];

    return size < dump->count - pos ? size : dump->count - pos;
}

static int compute(struct dump *dump)
{
    const struct logits_args *args = dump->args;
    uint32_t seqs = (uint32_t)args->seqs, layers = mcp_model_get_info(dump->model)->layers;
    uint32_t last = args->hidden > 0 ? (uint32_t)args->hidden : layers;
    uint32_t most = (uint32_t)args->engine.batch / seqs; /* tokens of one sequence a forward */
    uint32_t pos = 0, size;

    if (most == 0)
        return cli_fail("--seqs: %u sequences are more than -b/--batch-size %lld", seqs,
                        (long long)args->engine.batch),
               -1;
    for (size_t n = 0; pos < dump->count; n++, pos += size) {
        size = window_size(dump, n, pos, most);
        if (size > most)
            return cli_fail("--windows: %u tokens of %u sequence(s) are more than "
                            "-b/--batch-size %lld",
                            size, seqs, (long long)args->engine.batch),
                   -1;
        for (uint32_t s = 0; s < seqs; s++)
            dump->windows[s] = (mcp_window){ .seq = s,
                                             .pos = pos,
                                             .count = size,
                                             .tokens = dump->tokens + pos,
                                             .out = MCP_OUT_ALL };
        size_t row_floats = (size_t)size * dump->columns;
        if (cli_stages_forward(&dump->stages, last,
                               args->hidden > 0 ? MCP_WANT_HIDDEN : MCP_WANT_LOGITS, dump->windows,
                               seqs, dump->step, row_floats * seqs) < 0)
            return -1;
        for (uint32_t s = 0; s < seqs; s++)
            memcpy(dump->rows + ((size_t)s * dump->count + pos) * dump->columns,
                   dump->step + s * row_floats, row_floats * sizeof(float));
    }
    return 0;
}

static int write_rows(const struct dump *dump)
{
    const char *path = dump->args->output;
    size_t      bytes = (size_t)dump->args->seqs * dump->count * dump->columns * sizeof(float);
    int         fd, rc;

    if (strcmp(path, "-") == 0)
        return cli_write(dump->rows, bytes);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    rc = fd < 0 ? -1 : cli_write_all(fd, dump->rows, bytes);
    if (fd >= 0 && rc == 0)
        rc = close(fd);
    else if (fd >= 0)
        (void)close(fd); /* the write has failed already, with its errno kept below */
    return rc < 0 ? (cli_fail("-o/--output: %.300s: %s", path, strerror(errno)), -1) : 0;
}

static int prepare(struct dump *dump)
{
    const struct logits_args *args = dump->args;
    const mcp_model_info     *info;
    uint32_t                  seqs = (uint32_t)args->seqs;

    if (strcmp(args->output, "-") == 0 && isatty(STDOUT_FILENO))
        return cli_fail("rows are binary and standard output is a terminal: give -o FILE"), -1;
    if (cli_model_open(&dump->model, args->engine.model) < 0)
        return -1;
    info = mcp_model_get_info(dump->model);
    if (cli_cuts_check(&args->engine.cuts, dump->model) < 0 || read_tokens(dump) < 0)
        return -1;
    if (args->hidden > info->layers)
        return cli_fail("--hidden: %lld is outside 0..%u (the model has %u layers)",
                        (long long)args->hidden, info->layers, info->layers),
               -1;
    dump->columns = args->hidden > 0 ? info->n_embd : info->n_vocab;
    if (cli_engine_open(&dump->engine, dump->model, &args->args, &args->engine, dump->count, seqs) <
            0 ||
        cli_stages_init(&dump->stages, dump->engine, dump->model, &args->engine.cuts, seqs) < 0)
        return -1;

    size_t rows = (size_t)seqs * dump->count;
    size_t most = rows < (size_t)args->engine.batch ? rows : (size_t)args->engine.batch;
    dump->windows = calloc(seqs, sizeof(dump->windows[0]));
    dump->rows = calloc(rows, dump->columns * sizeof(float));
    dump->step = calloc(most, dump->columns * sizeof(float));
    if (dump->windows == NULL || dump->rows == NULL || dump->step == NULL)
        return cli_fail("out of memory for %zu rows of %u numbers", rows, dump->columns), -1;
    return 0;
}

static int logits_run(struct cli_args *args)
{
    struct dump dump = { .args = (const struct logits_args *)args };
    int         status = CLI_FAILED;

    if (dump.args->engine.verbose)
        cli_log_verbose();
    if (prepare(&dump) == 0 && compute(&dump) == 0 && write_rows(&dump) == 0)
        status = CLI_OK;

    free(dump.rows);
    free(dump.step);
    free(dump.windows);
    free(dump.tokens);
    cli_stages_fini(&dump.stages);
    mcp_engine_close(dump.engine);
    mcp_model_close(dump.model);
    return status;
}

static const struct cli_verb verb_logits = {
    .name = "debug logits",
    .summary = "logits or hidden states of every position, as float32 rows",
    .usage = "-m FILE --tokens ID,... [options] -o FILE",
    .groups = { { "Rows", logits_options, sizeof(logits_options) / sizeof(logits_options[0]), 0 },
                CLI_ENGINE_GROUP(struct logits_args) },
    .args_bytes = sizeof(struct logits_args),
    .run = logits_run,
};

static const struct cli_verb *const debug_verbs[] = { &verb_logits, NULL };

const struct cli_verb cli_verb_debug = {
    .name = "debug",
    .summary = "look inside",
    .usage = "logits [options]",
    .subs = debug_verbs,
};
