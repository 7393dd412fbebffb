/* bench/engine_vs_llama.c - our engine against libllama, row by row, in one process.
 *
 * Same file, threads, context, micro-batch (512), f16 KV and flash attention; both are
 * warmed up, then timed round by round in the order A B, B A, A B, ...  A row's ratio is
 * the median of its per-round ratios, so that a machine that drifts, drifts for both.
 *
 * Both sides keep compute threads that spin for 0.1-0.2 s after their last graph, hoping for
 * the next.  With as many threads as cores they would steal from whoever is timed next (a
 * fifth of the speed), so each timed run begins with a rest.  A GPU needs none.
 *
 * With several sequences libllama runs both ways that it has, one KV region a sequence and a
 * unified one, and the row shows the pairing that is worse for us.
 *
 * The last logits of both sides are compared too: a fast wrong answer is no answer. */
/* SPDX-License-Identifier: MIT */
#include "peer.h"
#include "rows.h"

#include <mcp/engine.h>

static const char ROWS_DEFAULT[] = "pp512,pp1024,tg64,tg64@1024,tg32x8@128,tg32x32@128,tg64/4";
enum { ROUNDS_MAX = 1001 }; /* arbitrary; an odd number keeps the median a measured value */

struct opts {
    const char *path;
    const char *device;
    const char *rows;
    uint32_t    threads;
    uint32_t    rounds;
    int32_t     gpu_layers;
    int         flash;
    int         json;
    double      rest_seconds;
};

enum side { SIDE_OURS, SIDE_UNCUT, SIDE_PEER };

struct bench {
    struct opts opts;
    struct row  rows[ROWS_MAX];
    uint32_t    row_count;

    mcp_model            *model;
    const mcp_model_info *info;
    mcp_engine           *engine;
    uint32_t              engine_seqs; /* what the open engine was opened for; 0 = none */
    float                *hidden[2];   /* (PEER_BATCH, n_embd): between two stages */
    float                *logits;      /* (ROW_SEQS_MAX, n_vocab): our last call */

    struct peer_model peer_model;
    struct peer       peer;
    int               peer_unified;
};

/* Positions a sequence needs in the rows of so many sequences, in libllama's steps of 256,
 * so that both sides attend over equally large caches. */
static uint32_t ctx_for(const struct bench *b, uint32_t seqs)
{
    uint32_t ctx = 0;

    for (uint32_t i = 0; i < b->row_count; i++) {
        const struct row *row = &b->rows[i];

        if (row->seqs == seqs && row->depth + row->count > ctx)
            ctx = row->depth + row->count;
    }
    return (ctx + 255) / 256 * 256;
}

/* ---- our side ------------------------------------------------------------------------ */

static void ours_close(struct bench *b)
{
    mcp_engine_free(b->engine, b->hidden[0]);
    mcp_engine_free(b->engine, b->hidden[1]);
    mcp_engine_free(b->engine, b->logits);
    mcp_engine_close(b->engine);
}

static void ours_open(struct bench *b, uint32_t seqs)
{
    mcp_engine_opts opts = MCP_ENGINE_OPTS_INIT;
    mcp_error       err;

    if (b->engine_seqs == seqs)
        return;
    ours_close(b);
    opts.ctx_tokens = ctx_for(b, seqs);
    opts.seqs = seqs;
    opts.batch_tokens = PEER_BATCH;
    opts.ubatch_tokens = PEER_UBATCH;
    opts.threads = b->opts.threads;
    opts.device = b->opts.device;
    opts.gpu_layers = b->opts.gpu_layers;
    opts.flash = b->opts.flash ? MCP_FLASH_ON : MCP_FLASH_OFF;
    if (mcp_engine_open(&b->engine, b->model, &opts, &err) < 0)
        bench_die("%s", err.text);
    b->engine_seqs = seqs;
    /* libllama's rows land in page-locked memory of its own, too. */
    b->logits = mcp_engine_alloc(b->engine, (size_t)seqs * b->info->n_vocab);
    for (int i = 0; i < 2; i++)
        b->hidden[i] = mcp_engine_alloc(b->engine, (size_t)PEER_BATCH * b->info->n_embd);
    if (b->logits == NULL || b->hidden[0] == NULL || b->hidden[1] == NULL)
        bench_die("no memory for the rows of %u sequences", seqs);
}

/* `count` tokens at `pos` in each of sequences 0..seqs-1 through `stages` ranges. */
static void ours_forward(struct bench *b, uint32_t seqs, uint32_t pos, uint32_t count,
                         uint32_t stages)
{
    static int32_t    tokens[PEER_BATCH];
    static mcp_window windows[ROW_SEQS_MAX];
    const uint32_t    n_embd = b->info->n_embd, layers = b->info->layers;
    mcp_error         err;

    for (uint32_t s = 0; s < seqs; s++) {
        for (uint32_t i = 0; i < count; i++)
            tokens[s * count + i] = bench_token(s, pos + i, b->info->n_vocab);
    }
    for (uint32_t k = 0; k < stages; k++) {
        int    last = k + 1 == stages;
        float *out = last ? b->logits : b->hidden[k % 2];
        size_t room = last ? (size_t)ROW_SEQS_MAX * b->info->n_vocab : (size_t)PEER_BATCH * n_embd;

        for (uint32_t s = 0; s < seqs; s++) {
            windows[s] = (mcp_window){
                .seq = s, .pos = pos, .count = count, .out = last ? MCP_OUT_LAST : MCP_OUT_ALL
            };
            if (k == 0)
                windows[s].tokens = &tokens[s * count];
            else
                windows[s].hidden = b->hidden[(k + 1) % 2] + (size_t)s * count * n_embd;
        }
        if (mcp_engine_forward(b->engine, layers * k / stages, layers * (k + 1) / stages,
                               last ? MCP_WANT_LOGITS : MCP_WANT_HIDDEN, windows, seqs, out, room,
                               &err) < 0)
            bench_die("%s", err.text);
    }
}

static void ours_trim(struct bench *b, uint32_t pos)
{
    mcp_error err;

    for (uint32_t s = 0; s < b->engine_seqs; s++) {
        if (mcp_engine_trim(b->engine, s, pos, &err) < 0)
            bench_die("%s", err.text);
    }
}

/* As peer_fill(): one sequence is computed, the others import its state. */
static void ours_fill(struct bench *b, uint32_t depth)
{
    size_t    bytes = 0;
    void     *state;
    mcp_error err;

    ours_trim(b, 0);
    for (uint32_t pos = 0; pos < depth; pos += PEER_BATCH)
        ours_forward(b, 1, pos, depth - pos < PEER_BATCH ? depth - pos : PEER_BATCH, 1);
    if (depth == 0 || b->engine_seqs == 1)
        return;
    if (mcp_engine_export(b->engine, 0, 0, b->info->layers, 0, depth, NULL, &bytes, &err) < 0)
        bench_die("%s", err.text);
    state = bench_alloc(bytes, 1);
    if (mcp_engine_export(b->engine, 0, 0, b->info->layers, 0, depth, state, &bytes, &err) < 0)
        bench_die("%s", err.text);
    for (uint32_t s = 1; s < b->engine_seqs; s++) {
        if (mcp_engine_import(b->engine, s, state, bytes, &err) < 0)
            bench_die("%s", err.text);
    }
    free(state);
}

/* ---- a pairing ------------------------------------------------------------------------ */

static void peer_ready(struct bench *b, uint32_t seqs, int unified)
{
    if (b->peer.ctx != NULL && b->peer.seqs == seqs && b->peer_unified == unified)
        return;
    peer_close(&b->peer);
    peer_open(&b->peer, &b->peer_model,
              &(struct peer_opts){ .ctx = ctx_for(b, seqs),
                                   .seqs = seqs,
                                   .threads = b->opts.threads,
                                   .flash = b->opts.flash,
                                   .unified = unified });
    b->peer_unified = unified;
}

/* Seconds that the row takes on one side, from a cache of row->depth positions. */
static double side_run(struct bench *b, const struct row *row, enum side side)
{
    uint32_t calls = row->prompt ? 1 : row->count, tokens = row->prompt ? row->count : 1;
    double   start;

    if (side == SIDE_PEER)
        peer_trim(&b->peer, row->depth);
    else
        ours_trim(b, row->depth);
    bench_sleep(b->opts.rest_seconds);

    start = bench_seconds();
    for (uint32_t i = 0; i < calls; i++) {
        if (side == SIDE_PEER)
            peer_forward(&b->peer, row->seqs, row->depth + i, tokens);
        else
            ours_forward(b, row->seqs, row->depth + i, tokens,
                         side == SIDE_OURS && row->stages > 0 ? row->stages : 1);
    }
    return bench_seconds() - start;
}

/* Warm up, compare the last call's last row of logits, then time. */
static struct row_result pairing_run(struct bench *b, const struct row *row, enum side other)
{
    const double      tokens = (double)row->count * row->seqs;
    const uint32_t    n_vocab = b->info->n_vocab, rounds = b->opts.rounds;
    float            *ours_last = b->logits + (size_t)(row->seqs - 1) * n_vocab;
    float            *other_last = bench_alloc(n_vocab, sizeof(float));
    double           *ours = bench_alloc(rounds, sizeof(double));
    double           *theirs = bench_alloc(rounds, sizeof(double));
    double           *ratio = bench_alloc(rounds, sizeof(double));
    struct row_result r = { .against = "llama" };

    ours_fill(b, row->depth);
    if (other == SIDE_PEER)
        peer_fill(&b->peer, row->depth);

    side_run(b, row, other);
    memcpy(other_last, other == SIDE_PEER ? llama_get_logits_ith(b->peer.ctx, -1) : ours_last,
           n_vocab * sizeof(float));
    side_run(b, row, SIDE_OURS);
    r.kl = bench_kl(other_last, ours_last, n_vocab);
    r.same_bits = memcmp(other_last, ours_last, n_vocab * sizeof(float)) == 0;

    for (uint32_t i = 0; i < rounds; i++) {
        if (i % 2 == 0)
            ours[i] = side_run(b, row, SIDE_OURS);
        theirs[i] = side_run(b, row, other);
        if (i % 2 == 1)
            ours[i] = side_run(b, row, SIDE_OURS);
        ratio[i] = theirs[i] / ours[i];
    }
    r.ratio = bench_median(ratio, rounds);
    r.ratio_min = ratio[0]; /* sorted now */
    r.ratio_max = ratio[rounds - 1];
    r.ours_per_second = tokens / bench_median(ours, rounds);
    r.theirs_per_second = tokens / bench_median(theirs, rounds);

    free(other_last);
    free(ours);
    free(theirs);
    free(ratio);
    return r;
}

static struct row_result row_run(struct bench *b, const struct row *row)
{
    struct row_result r, unified;

    ours_open(b, row->seqs);
    if (row->stages > 0) {
        r = pairing_run(b, row, SIDE_UNCUT);
        r.against = "ours uncut";
        return r;
    }
    peer_ready(b, row->seqs, 0);
    r = pairing_run(b, row, SIDE_PEER);
    if (row->seqs == 1)
        return r;
    r.against = "llama, regions";
    peer_ready(b, row->seqs, 1);
    unified = pairing_run(b, row, SIDE_PEER);
    unified.against = "llama, unified";
    return unified.ratio < r.ratio ? unified : r;
}

/* ---- command line and report ------------------------------------------------------------ */

static const char USAGE[] =
    "usage: engine_vs_llama [-m FILE] [options]   default: $MCP_MODEL_SMOLLM2\n"
    "  -t N            threads of each side (default: what the engine chooses)\n"
    "  -r N            timed rounds a row (default 7)\n"
    "  --rows LIST     default %s\n"
    "  --device NAME   cpu (default), cuda0, ...\n"
    "  -ngl N          layers on the GPU (default: all)\n"
    "  -fa on|off      flash attention on both sides (default on)\n"
    "  --rest MS       before each timed run (default 700 on cpu, else 0)\n"
    "  --json          one JSON object on standard output, the table on standard error\n";

static void opts_parse(struct opts *o, int argc, char **argv)
{
    *o = (struct opts){ .path = getenv("MCP_MODEL_SMOLLM2"),
                        .device = "cpu",
                        .rows = ROWS_DEFAULT,
                        .rounds = 7,
                        .gpu_layers = -1,
                        .flash = 1,
                        .rest_seconds = -1 };
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value;

        if (strcmp(name, "-h") == 0 || strcmp(name, "--help") == 0) {
            printf(USAGE, ROWS_DEFAULT);
            exit(0);
        }
        if (strcmp(name, "--json") == 0) {
            o->json = 1;
            continue;
        }
        value = i + 1 < argc ? argv[++i] : NULL;
        if (value == NULL)
            bench_die("%s: unknown option, or its value is missing; see --help", name);
        else if (strcmp(name, "-m") == 0)
            o->path = value;
        else if (strcmp(name, "-t") == 0)
            o->threads = bench_number(name, value, 1, 512);
        else if (strcmp(name, "-r") == 0)
            o->rounds = bench_number(name, value, 1, ROUNDS_MAX);
        else if (strcmp(name, "--rows") == 0)
            o->rows = value;
        else if (strcmp(name, "--device") == 0)
            o->device = value;
        else if (strcmp(name, "-ngl") == 0)
            o->gpu_layers = (int32_t)bench_number(name, value, 0, 100000);
        else if (strcmp(name, "-fa") == 0 && (!strcmp(value, "on") || !strcmp(value, "off")))
            o->flash = strcmp(value, "on") == 0;
        else if (strcmp(name, "--rest") == 0)
            o->rest_seconds = bench_number(name, value, 0, 60000) / 1000.0;
        else
            bench_die("%s %s: unknown option or value; see --help", name, value);
    }
    if (o->path == NULL)
        bench_die("-m FILE is required; see --help");
    if (o->rest_seconds < 0)
        o->rest_seconds = strcmp(o->device, "cpu") == 0 ? 0.7 : 0;
}

/* What the numbers were measured on.  Compute threads meet at barriers several hundred times
 * a token, so one other busy process spoils every row: say so rather than print nonsense. */
static void heading(struct bench *b, FILE *table)
{
    mcp_device  devices[16];
    int         count = mcp_devices(devices, 16);
    const char *machine = b->opts.device;
    double      load = 0;

    for (int i = 0; i < count && i < 16; i++) {
        if (strcmp(devices[i].name, b->opts.device) == 0)
            machine = devices[i].description;
    }
    fprintf(table, "mcp %s against libllama %s; %s, %u threads, flash attention %s\n%s: %s, %s\n\n",
            mcp_version(), llama_version(), machine, b->opts.threads, b->opts.flash ? "on" : "off",
            b->opts.path, b->info->architecture, b->info->quantisation);
    if (getloadavg(&load, 1) == 1 && load > 0.5)
        fprintf(stderr,
                "warning: load average %.1f, something else is running; "
                "the ratios below mean little\n",
                load);
    fprintf(table, "| row          | ours tok/s | theirs     | against        | ratio | spread "
                   "      | bar          | KL        |\n"
                   "|--------------|------------|------------|----------------|-------|--------"
                   "------|--------------|-----------|\n");
    if (!b->opts.json)
        return;
    printf("{\"bench\": \"engine_vs_llama\", \"device\": ");
    row_json_string(machine);
    printf(", \"threads\": %u, \"flash\": %s, \"rounds\": %u, \"load\": %.2f, \"model\": ",
           b->opts.threads, b->opts.flash ? "true" : "false", b->opts.rounds, load);
    row_json_string(b->opts.path);
    printf(", \"quantisation\": ");
    row_json_string(b->info->quantisation);
    printf(", \"rows\": [");
}

int main(int argc, char **argv)
{
    static struct bench b;
    FILE               *table;
    mcp_engine_info     engine_info;
    mcp_error           err;
    uint32_t            missed = 0;

    opts_parse(&b.opts, argc, argv);
    b.row_count = rows_parse(b.rows, b.opts.rows);
    table = b.opts.json ? stderr : stdout;

    /* The first mcp_devices() registers the backends, for libllama as well: a portable build
     * has them in libraries of their own, beside libmcp. */
    llama_log_set(peer_log, NULL);
    mcp_devices(NULL, 0);
    llama_backend_init();

    if (mcp_model_open(&b.model, b.opts.path, &err) < 0)
        bench_die("%s", err.text);
    b.info = mcp_model_get_info(b.model);
    for (uint32_t i = 0; i < b.row_count; i++) {
        if (b.rows[i].stages > b.info->layers)
            bench_die("--rows %s: the model has %u layers", b.rows[i].name, b.info->layers);
    }
    ours_open(&b, b.rows[0].seqs);
    if (mcp_engine_get_info(b.engine, &engine_info) < 0)
        bench_die("mcp_engine_get_info failed");
    b.opts.threads = engine_info.threads;
    peer_model_open(&b.peer_model, b.opts.path, b.opts.device, b.opts.gpu_layers);
    heading(&b, table);

    for (uint32_t i = 0; i < b.row_count; i++) {
        struct row_result r = row_run(&b, &b.rows[i]);

        row_report(table, &b.rows[i], &r);
        if (b.opts.json)
            row_json(&b.rows[i], &r, i == 0);
        missed += r.ratio < ROW_BAR;
    }
    if (b.opts.json)
        printf("\n]}\n");
    fprintf(table, "\n%u of %u rows miss their bar\n", missed, b.row_count);

    peer_close(&b.peer);
    peer_model_close(&b.peer_model);
    ours_close(&b);
    mcp_model_close(b.model);
    llama_backend_free();
    return 0;
}
