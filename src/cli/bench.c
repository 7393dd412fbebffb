/* cli/bench.c - `mcp bench`: tokens a second, measured as llama-bench does.
 *
 * Random token ids from a fixed seed; each test is warmed up once, then repeated; the
 * clock runs around the forward calls only.  ppN prefills N tokens and asks for the
 * logits of the last; tgN feeds N tokens one at a time.  With several sequences all of
 * them go into one forward, as far as -b allows, and the figure is their sum.  At
 * depth D the sequences hold D tokens when the clock starts.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/load.h"
#include "cli/out.h"
#include "cli/stages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    REPETITIONS_MAX = 1000,
    TABLE_TEXT = 128,
};

struct bench_args {
    struct cli_args        args;
    struct cli_engine_args engine;
    struct cli_ints        n_prompt;
    struct cli_ints        n_gen;
    struct cli_ints        seqs;
    struct cli_ints        depth;
    int64_t                repetitions;
    bool                   json;
};

#define AT(member) .at = offsetof(struct bench_args, member)

static const struct cli_option bench_options[] = {
    { .name = "n-prompt",
      .brief = "p",
      .type = CLI_INTS,
      AT(n_prompt),
      .value = "N,...",
      .fallback = "512",
      .min = 0,
      .max = 1 << 24,
      .help = "prefill so many tokens; 0 = not" },
    { .name = "n-gen",
      .brief = "n",
      .type = CLI_INTS,
      AT(n_gen),
      .value = "N,...",
      .fallback = "128",
      .min = 0,
      .max = 1 << 24,
      .help = "generate so many tokens; 0 = not" },
    { .name = "seqs",
      .type = CLI_INTS,
      AT(seqs),
      .value = "N,...",
      .fallback = "1",
      .min = 1,
      .max = 4096,
      .help = "sequences at once" },
    { .name = "depth",
      .brief = "d",
      .also = "n-depth",
      .type = CLI_INTS,
      AT(depth),
      .value = "N,...",
      .fallback = "0",
      .min = 0,
      .max = 1 << 24,
      .help = "tokens already there when the clock starts" },
    { .name = "repetitions",
      .brief = "r",
      .type = CLI_INT,
      AT(repetitions),
      .value = "N",
      .fallback = "3",
      .min = 1,
      .max = REPETITIONS_MAX,
      .help = "runs of each test" },
    { .name = "json", .type = CLI_FLAG, AT(json), .help = "one JSON object with all rows" },
};

#undef AT

struct bench {
    const struct bench_args *args;
    mcp_model               *model;
    mcp_engine              *engine;
    mcp_engine_info          engine_info;
    struct cli_stages        stages;
    uint32_t                 n_vocab;
    uint64_t                 random;
    mcp_window              *windows; /* (seqs) */
    int32_t                 *tokens;  /* (batch_tokens) */
    float                   *logits;  /* (seqs, n_vocab) */
    json_t                  *rows;    /* NULL = a table */
};

struct test {
    bool     prefill;
    uint32_t tokens; /* of one sequence */
    uint32_t seqs;
    uint32_t depth;
};

/* ---- running ---------------------------------------------------------------------- */

static int32_t random_token(struct bench *bench)
{
    bench->random ^= bench->random << 13; /* xorshift64 */
    bench->random ^= bench->random >> 7;
    bench->random ^= bench->random << 17;
    return (int32_t)((bench->random >> 11) % bench->n_vocab);
}

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Append `count` random tokens to sequences [first, last) in one forward, adding its
 * time to *seconds. */
static int append(struct bench *bench, uint32_t first, uint32_t last, uint32_t pos, uint32_t count,
                  mcp_out out, double *seconds)
{
    uint32_t windows = last - first;
    size_t   floats = out == MCP_OUT_NONE ? 0 : (size_t)windows * bench->n_vocab;

    for (uint32_t i = 0; i < windows * count; i++)
        bench->tokens[i] = random_token(bench);
    for (uint32_t w = 0; w < windows; w++)
        bench->windows[w] = (mcp_window){ .seq = first + w,
                                          .pos = pos,
                                          .count = count,
                                          .tokens = bench->tokens + (size_t)w * count,
                                          .out = out };
    double start = seconds_now();
    int    rc = cli_stages_forward(&bench->stages, bench->stages.layers, MCP_WANT_LOGITS,
                                   bench->windows, windows, floats > 0 ? bench->logits : NULL, floats);
    *seconds += seconds_now() - start;
    return rc;
}

/* `count` tokens for each of `seqs` sequences, `step` at a time for a sequence: as many
 * sequences in a forward as -b allows, the rest in turns. */
static int feed(struct bench *bench, uint32_t seqs, uint32_t pos, uint32_t count, uint32_t step,
                mcp_out out, double *seconds)
{
    uint32_t batch = bench->engine_info.batch_tokens;

    if (step > batch)
        step = batch;
    for (uint32_t done = 0; done < count; done += step) {
        uint32_t size = count - done < step ? count - done : step;
        uint32_t together = batch / size;
        for (uint32_t s = 0; s < seqs; s += together)
            if (append(bench, s, seqs - s < together ? seqs : s + together, pos + done, size, out,
                       seconds) < 0)
                return -1;
    }
    return 0;
}

static int trim(struct bench *bench, uint32_t seqs, uint32_t pos)
{
    mcp_error err = { 0 };

    for (uint32_t s = 0; s < seqs; s++)
        if (mcp_engine_trim(bench->engine, s, pos, &err) < 0)
            return cli_fail("%s", err.text), -1;
    return 0;
}

static int run_once(struct bench *bench, const struct test *test, uint32_t tokens, double *seconds)
{
    *seconds = 0.0;
    if (feed(bench, test->seqs, test->depth, tokens, test->prefill ? tokens : 1, MCP_OUT_LAST,
             seconds) < 0)
        return -1;
    return trim(bench, test->seqs, test->depth);
}

/* Tokens a second of each repetition into rates (repetitions). */
static int measure(struct bench *bench, const struct test *test, double *rates)
{
    double seconds = 0.0;

    if (trim(bench, test->seqs, 0) < 0 ||
        feed(bench, test->seqs, 0, test->depth, test->depth, MCP_OUT_NONE, &seconds) < 0 ||
        run_once(bench, test, test->prefill ? test->tokens : 1, &seconds) < 0)
        return -1;
    for (int64_t r = 0; r < bench->args->repetitions; r++) {
        if (run_once(bench, test, test->tokens, &seconds) < 0)
            return -1;
        rates[r] = seconds > 0 ? (double)test->tokens * test->seqs / seconds : 0.0;
    }
    return trim(bench, test->seqs, 0);
}

/* ---- telling ---------------------------------------------------------------------- */

/* The table as llama-bench prints it: Markdown, and aligned for the eye. */
enum column { MODEL, SIZE, DEVICE, THREADS, TEST, SEQS, DEPTH, CUTS, SPEED, SPREAD, COLUMNS };

static const struct {
    const char *title;
    int         width; /* at least; texts known before the first row may widen it */
    bool        right;
} columns[COLUMNS] = {
    [MODEL] = { "model", 5, false },    [SIZE] = { "size", 9, true },
    [DEVICE] = { "device", 6, false },  [THREADS] = { "threads", 7, true },
    [TEST] = { "test", 8, true },       [SEQS] = { "seqs", 4, true },
    [DEPTH] = { "depth", 6, true },     [CUTS] = { "cuts", 4, true },
    [SPEED] = { "tokens/s", 10, true }, [SPREAD] = { "spread", 7, true },
};

typedef char cells[COLUMNS][TABLE_TEXT];

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Cells that are the same in every row. */
static void fixed_cells(const struct bench *bench, cells out)
{
    const mcp_model_info  *info = mcp_model_get_info(bench->model);
    const struct cli_ints *cuts = &bench->args->engine.cuts;
    const char            *slash = strrchr(info->path, '/');
    size_t                 used = 0;

    cli_text_field(out[MODEL], TABLE_TEXT,
                   info->name[0] != '\0' ? info->name
                   : slash != NULL       ? slash + 1
                                         : info->path);
    cli_bytes_text(out[SIZE], info->weight_bytes);
    snprintf(out[DEVICE], TABLE_TEXT, "%s", bench->engine_info.devices);
    snprintf(out[THREADS], TABLE_TEXT, "%u", bench->engine_info.threads);
    snprintf(out[CUTS], TABLE_TEXT, "-");
    for (size_t i = 0; i < cuts->count && used < TABLE_TEXT; i++)
        used += (size_t)snprintf(out[CUTS] + used, TABLE_TEXT - used, "%s%u", i == 0 ? "" : ",",
                                 cuts->values[i]);
}

static void print_line(const struct bench *bench, cells line)
{
    cells fixed;

    fixed_cells(bench, fixed);
    for (int c = 0; c < COLUMNS; c++) {
        int width = columns[c].width;
        if ((c == MODEL || c == DEVICE || c == CUTS) && (int)strlen(fixed[c]) > width)
            width = (int)strlen(fixed[c]);
        cli_printf("| %*s ", columns[c].right ? width : -width, line[c]);
    }
    cli_printf("|\n");
}

static void print_head(const struct bench *bench)
{
    cells line, fixed;

    fixed_cells(bench, fixed);
    for (int c = 0; c < COLUMNS; c++)
        snprintf(line[c], TABLE_TEXT, "%s", columns[c].title);
    print_line(bench, line);
    for (int c = 0; c < COLUMNS; c++) {
        size_t width = (size_t)columns[c].width;
        if ((c == MODEL || c == DEVICE || c == CUTS) && strlen(fixed[c]) > width)
            width = strlen(fixed[c]);
        memset(line[c], '-', width);
        line[c][width] = '\0';
        if (columns[c].right)
            line[c][width - 1] = ':';
    }
    print_line(bench, line);
}

static json_t *row_json(const struct bench *bench, const struct test *test, const char *name,
                        const double *rates, double median, double spread)
{
    const struct cli_ints *cuts = &bench->args->engine.cuts;
    json_t                *samples = json_array(), *list = json_array();

    for (int64_t i = 0; i < bench->args->repetitions; i++)
        json_array_append_new(samples, cli_json_real(rates[i]));
    for (size_t i = 0; i < cuts->count; i++)
        json_array_append_new(list, json_integer(cuts->values[i]));
    return json_pack("{s:s, s:i, s:i, s:o, s:o, s:o, s:o}", "test", name, "seqs", (int)test->seqs,
                     "depth", (int)test->depth, "cuts", list, "tokens_per_second",
                     cli_json_real(median), "spread", cli_json_real(spread), "samples", samples);
}

static int tell(struct bench *bench, const struct test *test, const double *rates)
{
    size_t count = (size_t)bench->args->repetitions;
    double sorted[REPETITIONS_MAX];
    char   name[32];

    memcpy(sorted, rates, count * sizeof(rates[0]));
    qsort(sorted, count, sizeof(sorted[0]), by_value);
    double median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
    double spread = median > 0 ? (sorted[count - 1] - sorted[0]) / median : 0.0;
    snprintf(name, sizeof(name), "%s%u", test->prefill ? "pp" : "tg", test->tokens);

    if (bench->rows != NULL)
        return json_array_append_new(bench->rows,
                                     row_json(bench, test, name, rates, median, spread));
    cells line;
    fixed_cells(bench, line);
    snprintf(line[TEST], TABLE_TEXT, "%s", name);
    snprintf(line[SEQS], TABLE_TEXT, "%u", test->seqs);
    snprintf(line[DEPTH], TABLE_TEXT, "%u", test->depth);
    snprintf(line[SPEED], TABLE_TEXT, "%.2f", median);
    snprintf(line[SPREAD], TABLE_TEXT, "%.1f %%", 100.0 * spread);
    print_line(bench, line);
    return cli_out_failed() ? -1 : 0;
}

static int print_json(struct bench *bench)
{
    const mcp_model_info  *info = mcp_model_get_info(bench->model);
    const mcp_engine_info *engine = &bench->engine_info;
    json_t                *rows = bench->rows;

    bench->rows = NULL; /* goes into the object */
    return cli_print_json(json_pack(
        "{s:o, s:o, s:o, s:o, s:I, s:I, s:o, s:i, s:i, s:i, s:b, s:o}", "version",
        cli_json_string(mcp_version()), "model", cli_json_string(info->name), "path",
        cli_json_string(info->path), "quantisation", cli_json_string(info->quantisation),
        "weight_bytes", (json_int_t)info->weight_bytes, "parameters", (json_int_t)info->parameters,
        "device", cli_json_string(engine->devices), "threads", (int)engine->threads, "batch_size",
        (int)engine->batch_tokens, "ubatch_size", (int)engine->ubatch_tokens, "flash_attn",
        engine->flash, "rows", rows));
}

/* ---- the run ---------------------------------------------------------------------- */

static uint32_t largest(const struct cli_ints *list)
{
    uint32_t most = 0;

    for (size_t i = 0; i < list->count; i++)
        if (list->values[i] > most)
            most = list->values[i];
    return most;
}

static int prepare(struct bench *bench)
{
    const struct bench_args *args = bench->args;
    uint32_t                 seqs = largest(&args->seqs), prompt = largest(&args->n_prompt);
    uint32_t                 most = prompt > largest(&args->n_gen) ? prompt : largest(&args->n_gen);

    if (most == 0 || seqs == 0 || args->depth.count == 0)
        return cli_fail("nothing to measure: -p, -n, --seqs or --depth is empty"), -1;
    if (cli_model_open(&bench->model, args->engine.model) < 0 ||
        cli_cuts_check(&args->engine.cuts, bench->model) < 0)
        return -1;
    uint32_t trained = mcp_model_get_info(bench->model)->n_ctx_train;
    if (largest(&args->depth) + most > trained)
        cli_note("position %u is beyond the %u that the model was trained for",
                 largest(&args->depth) + most, trained);
    if (cli_engine_open(&bench->engine, bench->model, &args->args, &args->engine,
                        largest(&args->depth) + most, seqs) < 0)
        return -1;
    if (mcp_engine_get_info(bench->engine, &bench->engine_info) < 0)
        return cli_fail("the engine tells nothing about itself"), -1;
    if (cli_stages_init(&bench->stages, bench->engine, bench->model, &args->engine.cuts, seqs) < 0)
        return -1;
    bench->n_vocab = mcp_model_get_info(bench->model)->n_vocab;
    bench->windows = calloc(seqs, sizeof(bench->windows[0]));
    bench->tokens = calloc(bench->engine_info.batch_tokens, sizeof(bench->tokens[0]));
    bench->logits = calloc(seqs, bench->n_vocab * sizeof(bench->logits[0]));
    bench->rows = args->json ? json_array() : NULL;
    if (bench->windows == NULL || bench->tokens == NULL || bench->logits == NULL)
        return cli_fail("out of memory for the logits of %u sequences", seqs), -1;
    return 0;
}

/* All tests with `tokens` of one kind at one depth and number of sequences. */
static int measure_list(struct bench *bench, const struct cli_ints *tokens, struct test test)
{
    for (size_t i = 0; i < tokens->count; i++) {
        double rates[REPETITIONS_MAX];

        test.tokens = tokens->values[i];
        if (test.tokens > 0 && (measure(bench, &test, rates) < 0 || tell(bench, &test, rates) < 0))
            return -1;
    }
    return 0;
}

static int measure_all(struct bench *bench)
{
    const struct bench_args *args = bench->args;

    if (bench->rows == NULL)
        print_head(bench);
    for (size_t d = 0; d < args->depth.count; d++)
        for (size_t s = 0; s < args->seqs.count; s++) {
            struct test test = { .depth = args->depth.values[d], .seqs = args->seqs.values[s] };

            test.prefill = true;
            if (measure_list(bench, &args->n_prompt, test) < 0)
                return -1;
            test.prefill = false;
            if (measure_list(bench, &args->n_gen, test) < 0)
                return -1;
        }
    return 0;
}

static int bench_run(struct cli_args *args)
{
    struct bench bench = { .args = (const struct bench_args *)args,
                           .random = UINT64_C(0x9E3779B97F4A7C15) };
    int          status = CLI_FAILED;

    if (bench.args->engine.verbose)
        cli_log_verbose();
    if (prepare(&bench) == 0 && measure_all(&bench) == 0)
        status = bench.rows != NULL ? print_json(&bench) : CLI_OK;

    json_decref(bench.rows);
    free(bench.logits);
    free(bench.tokens);
    free(bench.windows);
    cli_stages_fini(&bench.stages);
    mcp_engine_close(bench.engine);
    mcp_model_close(bench.model);
    return status;
}

const struct cli_verb cli_verb_bench = {
    .name = "bench",
    .summary = "measure tokens a second, as llama-bench does",
    .usage = "-m FILE [-p N,...] [-n N,...] [--seqs N,...] [--depth N,...] [options]",
    .notes = "tokens/s is the median of the repetitions, all sequences together; spread is\n"
             "(largest - smallest) / median.",
    .groups = { { "Tests", bench_options, sizeof(bench_options) / sizeof(bench_options[0]), 0 },
                CLI_ENGINE_GROUP(struct bench_args) },
    .args_bytes = sizeof(struct bench_args),
    .run = bench_run,
};
