/* bench/codecs.c - what each codec costs and what it does to the model's answer.
 *
 * A text runs through a split [0, a) [a, b) [b, layers); at both cuts the hidden states pass
 * through the codec, as they do between an agent and a worker.  Against the run without codec:
 *
 *   SNR          of a token's hidden state at the first and at the last cut, mean of all tokens
 *   KL           of the next-token distribution, mean of all tokens; with quantised weights not
 *                even f16 gives 0, as their matrices round what they multiply
 *   perplexity   of the text, its change; noise of both signs, so look at several cuts, and at
 *                KL, which is the steadier number
 *   bytes        a token and cut; zstd and snappy wrap the payload of a chunk
 *   ns           to encode and to decode a token, one core, median of the chunks
 *
 * The last rows are the means of all cuts, and the last lines what `auto` may choose: at most
 * BYTES_BAR of f16's bytes, and a perplexity that changes by at most CHANGE_BAR.
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"
#include "wire/codec.h"

#include <mcp/engine.h>

#define BYTES_BAR  0.55
#define CHANGE_BAR 0.01

enum {
    CHUNK = 128, /* tokens a window; also of the payloads that are timed and wrapped */
    TOKENS_MAX = 4096,
    TEXT_BYTES_MAX = 1 << 20,
    CUTS_MAX = 128,
};

struct cuts {
    uint32_t first, last;
};

/* Sums over the tokens of one codec at one pair of cuts. */
struct score {
    double   loss;                /* nats */
    double   kl;                  /* nats */
    double   snr[2];              /* dB, at the first and the last cut */
    double   wrapped[WIRE_WRAPS]; /* bytes, both cuts */
    double  *encode, *decode;     /* ns a token: (chunks x 2) */
    uint32_t timed;
};

struct bench {
    const char *path, *text_path, *cuts_text;
    uint32_t    threads, count;
    struct cuts cuts[CUTS_MAX];
    uint32_t    cuts_count;
    int32_t     tokens[TOKENS_MAX];

    mcp_model            *model;
    const mcp_model_info *info;
    mcp_engine           *engine;       /* sequence 0 without codec, 1 + i codec i */
    float                *first, *last; /* (CHUNK, n_embd): hidden states at the cuts */
    float                *passed;       /* (CHUNK, n_embd): behind a codec */
    float                *logits;       /* (CHUNK, n_vocab) */
    float                *truth;        /* (CHUNK, n_vocab): log-probabilities without codec */
    uint8_t              *payload, *wrapped;
};

/* ---- options and inputs ------------------------------------------------------------------ */

static const char USAGE[] = "usage: codecs [-m FILE] [options]      default: $MCP_MODEL_SMOLLM2\n"
                            "  -f FILE         text (default bench/text.txt)\n"
                            "  -n N            its first N tokens (default: all)\n"
                            "  -t N            threads (default: what the engine chooses)\n"
                            "  --cuts LIST     pairs of layers, 2-28,5-25; all: every layer once;\n"
                            "                  default: four pairs from the ends to the middle\n";

static void opts_parse(struct bench *b, int argc, char **argv)
{
    b->path = getenv("MCP_MODEL_SMOLLM2");
    b->text_path = "bench/text.txt";
    b->count = TOKENS_MAX;
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(name, "-h") == 0 || strcmp(name, "--help") == 0) {
            fputs(USAGE, stdout);
            exit(0);
        }
        if (value == NULL)
            bench_die("%s: unknown option, or its value is missing; see --help", name);
        if (strcmp(name, "-m") == 0)
            b->path = value;
        else if (strcmp(name, "-f") == 0)
            b->text_path = value;
        else if (strcmp(name, "-n") == 0)
            b->count = bench_number(name, value, 2, TOKENS_MAX);
        else if (strcmp(name, "-t") == 0)
            b->threads = bench_number(name, value, 1, 512);
        else if (strcmp(name, "--cuts") == 0)
            b->cuts_text = value;
        else
            bench_die("%s %s: unknown option; see --help", name, value);
        i++;
    }
    if (b->path == NULL)
        bench_die("-m FILE is required; see --help");
}

static void cuts_add(struct bench *b, uint32_t first, uint32_t last)
{
    if (b->cuts_count == CUTS_MAX)
        bench_die("--cuts: at most %d pairs", CUTS_MAX);
    if (first < 1 || first >= last || last >= b->info->layers)
        bench_die("--cuts %u-%u: wants 1 <= A < B < %u, the model's layers", first, last,
                  b->info->layers);
    b->cuts[b->cuts_count++] = (struct cuts){ first, last };
}

static void cuts_parse(struct bench *b)
{
    const uint32_t layers = b->info->layers;
    const char    *text = b->cuts_text;

    if (text == NULL) {
        static const uint32_t thirtieths[] = { 1, 3, 6, 10 };

        for (uint32_t i = 0; i < 4; i++) {
            uint32_t a = thirtieths[i] * layers / 30;

            cuts_add(b, a > 0 ? a : 1, layers - (a > 0 ? a : 1));
        }
        return;
    }
    if (strcmp(text, "all") == 0) {
        for (uint32_t a = 1; a <= layers / 2; a++)
            cuts_add(b, a, layers - a > a ? layers - a : a + 1);
        return;
    }
    while (*text != '\0') {
        unsigned first, last;
        int      end = 0;

        if (sscanf(text, "%u-%u%n", &first, &last, &end) != 2)
            bench_die("--cuts %s: wants pairs A-B,C-D or all", b->cuts_text);
        cuts_add(b, first, last);
        text += end;
        text += *text == ',';
    }
}

static void text_read(struct bench *b)
{
    FILE     *file = fopen(b->text_path, "rb");
    char     *text = bench_alloc(TEXT_BYTES_MAX, 1);
    int32_t  *tokens = bench_alloc(TEXT_BYTES_MAX, sizeof(int32_t));
    size_t    bytes;
    mcp_error err;
    int       count;

    if (file == NULL)
        bench_die("%s: cannot be opened", b->text_path);
    bytes = fread(text, 1, TEXT_BYTES_MAX, file);
    fclose(file);
    count = mcp_model_tokenize(b->model, text, bytes, MCP_TOKENIZE_BOS, tokens, TEXT_BYTES_MAX,
                               &err);
    if (count < 0)
        bench_die("%s", err.text);
    if ((uint32_t)count < b->count)
        b->count = (uint32_t)count;
    if (b->count < 2)
        bench_die("%s: too short", b->text_path);
    memcpy(b->tokens, tokens, b->count * sizeof(int32_t));
    free(text);
    free(tokens);
}

static void bench_open(struct bench *b)
{
    const struct wire_codec *f32 = wire_codec_by_id(WIRE_F32);
    mcp_engine_opts          opts = MCP_ENGINE_OPTS_INIT;
    size_t                   bytes, room = 0;
    mcp_error                err;

    if (mcp_model_open(&b->model, b->path, &err) < 0)
        bench_die("%s", err.text);
    b->info = mcp_model_get_info(b->model);
    text_read(b);
    cuts_parse(b);
    opts.ctx_tokens = b->count;
    opts.seqs = 1 + WIRE_CODECS;
    opts.batch_tokens = opts.ubatch_tokens = CHUNK;
    opts.threads = b->threads;
    opts.device = "cpu";
    if (mcp_engine_open(&b->engine, b->model, &opts, &err) < 0)
        bench_die("%s", err.text);
    bytes = wire_codec_bytes(f32, CHUNK, b->info->n_embd);
    for (uint32_t i = 0; i < WIRE_WRAPS; i++)
        room = room < wire_wrap_bound(i, bytes) ? wire_wrap_bound(i, bytes) : room;
    b->first = bench_alloc(bytes, 1);
    b->last = bench_alloc(bytes, 1);
    b->passed = bench_alloc(bytes, 1);
    b->payload = bench_alloc(bytes, 1);
    b->wrapped = bench_alloc(room, 1);
    b->logits = bench_alloc((size_t)CHUNK * b->info->n_vocab, sizeof(float));
    b->truth = bench_alloc((size_t)CHUNK * b->info->n_vocab, sizeof(float));
}

static void bench_close(struct bench *b)
{
    free(b->first);
    free(b->last);
    free(b->passed);
    free(b->payload);
    free(b->wrapped);
    free(b->logits);
    free(b->truth);
    mcp_engine_close(b->engine);
    mcp_model_close(b->model);
}

/* ---- one chunk ---------------------------------------------------------------------------- */

static void forward(struct bench *b, uint32_t seq, uint32_t pos, uint32_t count, uint32_t first,
                    uint32_t last, const float *hidden, float *out)
{
    const int  logits = last == b->info->layers;
    mcp_window window = { .seq = seq, .pos = pos, .count = count, .out = MCP_OUT_ALL };
    mcp_error  err;

    if (first == 0)
        window.tokens = b->tokens + pos;
    else
        window.hidden = hidden;
    if (mcp_engine_forward(b->engine, first, last, logits ? MCP_WANT_LOGITS : MCP_WANT_HIDDEN,
                           &window, 1, out,
                           (size_t)CHUNK * (logits ? b->info->n_vocab : b->info->n_embd), &err) < 0)
        bench_die("%s", err.text);
}

/* Rows of logits to log-probabilities, in place. */
static void normalise(float *row, uint32_t n)
{
    float  most = row[0];
    double sum = 0;

    for (uint32_t i = 1; i < n; i++)
        most = row[i] > most ? row[i] : most;
    for (uint32_t i = 0; i < n; i++)
        sum += expf(row[i] - most);
    for (uint32_t i = 0; i < n; i++)
        row[i] -= most + (float)log(sum);
}

/* In dB; INFINITY for equal rows. */
static double snr(const float *x, const float *y, uint32_t n)
{
    double signal = 0, noise = 0;

    for (uint32_t i = 0; i < n; i++) {
        signal += (double)x[i] * x[i];
        noise += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    }
    return 10 * log10(signal / noise);
}

/* Encode, wrap, decode `count` rows of x into b->passed. */
static void pass(struct bench *b, const struct wire_codec *codec, const float *x, uint32_t count,
                 struct score *s, int cut)
{
    const uint32_t n = b->info->n_embd;
    const size_t   bytes = wire_codec_bytes(codec, count, n);
    double         begin = bench_seconds(), middle, end;
    mcp_error      err;

    wire_codec_encode(codec, b->payload, x, count, n);
    middle = bench_seconds();
    if (wire_codec_decode(codec, b->passed, b->payload, bytes, count, n, &err) < 0)
        bench_die("%s", err.text);
    end = bench_seconds();
    s->encode[s->timed] = (middle - begin) * 1e9 / count;
    s->decode[s->timed++] = (end - middle) * 1e9 / count;

    for (uint32_t wrap = 0; wrap < WIRE_WRAPS; wrap++) {
        size_t wrapped = wire_wrap(wrap, codec, b->wrapped, wire_wrap_bound(wrap, bytes),
                                   b->payload, bytes);

        s->wrapped[wrap] += wrapped > 0 ? (double)wrapped : (double)bytes;
    }
    for (uint32_t i = 0; i < count; i++)
        s->snr[cut] += snr(x + (size_t)i * n, b->passed + (size_t)i * n, n);
}

/* Loss and divergence of the rows in b->logits. */
static void judge(const struct bench *b, float *logits, uint32_t pos, uint32_t count,
                  struct score *s)
{
    const uint32_t n = b->info->n_vocab;

    for (uint32_t i = 0; i < count; i++) {
        const float *p = b->truth + (size_t)i * n;
        float       *q = logits + (size_t)i * n;
        double       kl = 0;

        normalise(q, n);
        for (uint32_t j = 0; p != q && j < n; j++)
            kl += (double)expf(p[j]) * (p[j] - q[j]);
        s->kl += kl;
        if (pos + i + 1 < b->count)
            s->loss -= q[b->tokens[pos + i + 1]];
    }
}

/* ---- one pair of cuts ------------------------------------------------------------------------ */

/* scores[0] is the run without codec. */
static void cuts_run(struct bench *b, struct cuts cuts, struct score *scores)
{
    const uint32_t layers = b->info->layers;
    mcp_error      err;

    for (uint32_t seq = 0; seq < 1 + WIRE_CODECS; seq++)
        if (mcp_engine_trim(b->engine, seq, 0, &err) < 0)
            bench_die("%s", err.text);
    for (uint32_t pos = 0; pos < b->count; pos += CHUNK) {
        uint32_t count = b->count - pos < CHUNK ? b->count - pos : CHUNK;

        forward(b, 0, pos, count, 0, cuts.first, NULL, b->first);
        forward(b, 0, pos, count, cuts.first, cuts.last, b->first, b->last);
        forward(b, 0, pos, count, cuts.last, layers, b->last, b->truth);
        judge(b, b->truth, pos, count, &scores[0]);
        for (uint32_t i = 0; i < WIRE_CODECS; i++) {
            const struct wire_codec *codec = wire_codec_by_id(i);
            struct score            *s = &scores[1 + i];

            pass(b, codec, b->first, count, s, 0);
            forward(b, 1 + i, pos, count, cuts.first, cuts.last, b->passed, b->last);
            pass(b, codec, b->last, count, s, 1);
            forward(b, 1 + i, pos, count, cuts.last, layers, b->passed, b->logits);
            judge(b, b->logits, pos, count, s);
        }
    }
}

/* ---- report ----------------------------------------------------------------------------------- */

/* Of a pair of cuts, or of all. */
struct mean {
    double bytes[WIRE_WRAPS], snr[2], kl, change, encode, decode;
};

static const char HEAD[] =
    "| cuts  | codec | bytes | of f16 | zstd  | snappy | SNR dB      | KL      | perplexity "
    "| encode ns | decode ns |\n"
    "|-------|-------|-------|--------|-------|--------|-------------|---------|------------"
    "|-----------|-----------|\n";

static void row_print(const char *cuts, const char *codec, const struct mean *m, double f16_bytes)
{
    printf("| %-5s | %-5s | %5.0f | %6.3f | %5.3f | %6.3f | %5.1f %5.1f | %7.5f | %+9.2f%% "
           "| %9.0f | %9.0f |\n",
           cuts, codec, m->bytes[WIRE_PLAIN], m->bytes[WIRE_PLAIN] / f16_bytes,
           m->bytes[WIRE_ZSTD] / f16_bytes, m->bytes[WIRE_SNAPPY] / f16_bytes, m->snr[0], m->snr[1],
           m->kl, 100 * m->change, m->encode, m->decode);
    fflush(stdout);
}

static void verdict_print(const struct mean *means, double f16_bytes)
{
    printf("\nauto (at most %.2f of f16's bytes, perplexity within %.0f%%):\n", BYTES_BAR,
           100 * CHANGE_BAR);
    for (uint32_t i = 0; i < WIRE_CODECS; i++) {
        double ratio = means[i].bytes[WIRE_PLAIN] / f16_bytes;

        if (ratio <= BYTES_BAR)
            printf("  %-4s %.3f of the bytes, %+.2f%%: %s\n", wire_codec_by_id(i)->name, ratio,
                   100 * means[i].change, fabs(means[i].change) <= CHANGE_BAR ? "yes" : "no");
    }
}

static struct mean score_mean(const struct bench *b, struct score *s, const struct score *truth)
{
    struct mean m = { .snr = { s->snr[0] / b->count, s->snr[1] / b->count },
                      .kl = s->kl / b->count,
                      .change = exp((s->loss - truth->loss) / (b->count - 1)) - 1,
                      .encode = bench_median(s->encode, s->timed),
                      .decode = bench_median(s->decode, s->timed) };

    for (uint32_t i = 0; i < WIRE_WRAPS; i++)
        m.bytes[i] = s->wrapped[i] / (2.0 * b->count);
    return m;
}

static void mean_add(struct mean *sum, const struct mean *m, double weight)
{
    for (uint32_t i = 0; i < WIRE_WRAPS; i++)
        sum->bytes[i] += m->bytes[i] * weight;
    sum->snr[0] += m->snr[0] * weight;
    sum->snr[1] += m->snr[1] * weight;
    sum->kl += m->kl * weight;
    sum->change += m->change * weight;
    sum->encode += m->encode * weight;
    sum->decode += m->decode * weight;
}

/* One pair of cuts: run it, print its rows, add them to the means. */
static void cuts_report(struct bench *b, struct cuts cuts, struct mean *means)
{
    struct score scores[1 + WIRE_CODECS] = { 0 };
    char         label[32];

    for (uint32_t i = 0; i < 1 + WIRE_CODECS; i++) {
        scores[i].encode = bench_alloc(2 * (TOKENS_MAX / CHUNK), sizeof(double));
        scores[i].decode = bench_alloc(2 * (TOKENS_MAX / CHUNK), sizeof(double));
    }
    cuts_run(b, cuts, scores);
    snprintf(label, sizeof(label), "%u-%u", cuts.first, cuts.last);
    for (uint32_t i = 0; i < WIRE_CODECS; i++) {
        struct mean m = score_mean(b, &scores[1 + i], &scores[0]);

        row_print(label, wire_codec_by_id(i)->name, &m, 2.0 * b->info->n_embd);
        mean_add(&means[i], &m, 1.0 / b->cuts_count);
    }
    for (uint32_t i = 0; i < 1 + WIRE_CODECS; i++) {
        free(scores[i].encode);
        free(scores[i].decode);
    }
}

int main(int argc, char **argv)
{
    static struct bench b;
    struct mean         means[WIRE_CODECS] = { 0 };
    mcp_engine_info     engine;
    double              f16_bytes, load = 0;

    opts_parse(&b, argc, argv);
    bench_open(&b);
    if (mcp_engine_get_info(b.engine, &engine) < 0)
        bench_die("mcp_engine_get_info failed");
    if (getloadavg(&load, 1) == 1 && load > 0.5)
        fprintf(stderr,
                "warning: load average %.1f, something else is running; "
                "the times below mean little\n",
                load);
    printf("mcp %s, %s: %s, %u layers of %u; %u tokens of %s, %u threads\n\n%s", mcp_version(),
           b.path, b.info->quantisation, b.info->layers, b.info->n_embd, b.count, b.text_path,
           engine.threads, HEAD);

    f16_bytes = 2.0 * b.info->n_embd;
    for (uint32_t i = 0; i < b.cuts_count; i++)
        cuts_report(&b, b.cuts[i], means);
    for (uint32_t i = 0; i < WIRE_CODECS; i++)
        row_print("mean", wire_codec_by_id(i)->name, &means[i], f16_bytes);
    verdict_print(means, f16_bytes);
    bench_close(&b);
    return 0;
}
