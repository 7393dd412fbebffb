/* agent/quality.c - see quality.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/quality.h"

#include "agent/cache.h"
#include "agent/digest.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/sha256.h"
#include "engine/engine.h"
#include "model/vocab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK = 64, /* tokens a window: each codec sees the same ones */
    TOKENS_LEAST = 2 * CHUNK,
    TOKENS_MAX = 1024,
    PATH_MAX_BYTES = 4096,
    FORMAT = 1, /* of the file kept; another one is measured anew */
};

#define MS_MAX               20000.0
#define CPU_WEIGHT_BYTES_MAX ((uint64_t)3 << 30) /* about 1 s a pass of 64 tokens on few cores */

/* Written for this purpose: prose, a list, numbers and code, so that no kind of token is missing.
 * Changing a word changes what is kept: raise FORMAT. */
static const char text[] =
    "The ferry left the island at half past six, an hour later than the board had promised, with "
    "eleven passengers, two goats and a piano. Nobody complained about the delay. The captain had "
    "explained it to each of them in person: the wind had turned during the afternoon, the harbour "
    "on the other side was narrow, and he preferred to arrive slowly rather than twice. So they "
    "sat on the benches along the rail, unpacked bread and cheese, and watched the lighthouse "
    "become a candle and then a star.\n\n"
    "Before a bridge is opened, three questions have to be answered. First, how much can it carry? "
    "Engineers load it with trucks full of gravel and measure how far it bends; a span of 120 "
    "metres may sink by 14 millimetres and must rise again when the trucks are gone. Second, how "
    "does it behave in the wind? A model is built at a scale of 1:50 and placed in a tunnel. "
    "Third, "
    "who will look after it? Steel that is painted every twelve years lasts for a century, and "
    "steel that is not painted lasts for thirty.\n\n"
    "To make soup for four people you need:\n"
    "- 500 g of carrots, peeled and cut into slices\n"
    "- 1 onion, 2 cloves of garlic and a piece of ginger\n"
    "- 800 ml of vegetable stock\n"
    "- salt, pepper and the juice of one orange\n"
    "Fry the onion until it is soft, add everything else except for the juice, cook it for twenty "
    "minutes, and blend it. Add the juice at the end, because heat makes it bitter.\n\n"
    "def mean(values):\n"
    "    total = 0.0\n"
    "    for value in values:\n"
    "        total += value\n"
    "    return total / len(values) if values else 0.0\n\n"
    "The function returns zero for an empty list. Some programmers would rather raise an error, "
    "since the mean of nothing is not a number, but a report that is printed every night should "
    "not fail because one day nobody bought anything.\n";

/* What is left out has nothing to be chosen for: see src/agent/codecs.c.  f16 is the measure of the
 * others and comes first. */
static const uint32_t measured[] = { WIRE_F16, WIRE_Q8R, WIRE_Q4R };

enum { RUNS = 1 + sizeof(measured) / sizeof(measured[0]) }; /* the first one without codec */

/* ---- measuring ---------------------------------------------------------------------------------- */

/* Of a difference, token by token. */
struct sums {
    double sum, squares;
};

struct bench {
    struct mcp_engine *engine; /* sequence i is run i */
    uint32_t           first, last, layers;
    size_t             n_embd, n_vocab;
    float             *hidden[2];                 /* (CHUNK, n_embd) */
    uint8_t           *bytes;                     /* (CHUNK) rows encoded */
    float             *logits;                    /* (CHUNK, n_vocab) */
    float             *truth;                     /* (CHUNK, n_vocab): log-probabilities of run 0 */
    double             loss[CHUNK], floor[CHUNK]; /* of run 0; divergence of run 1, f16 */
    struct sums        text[RUNS], expected[RUNS];
    uint32_t           tokens;
};

/* The rows as the other end of a link would see them. */
static int pass_codec(struct bench *b, uint32_t run, float *rows, uint32_t count, mcp_error *err)
{
    const struct wire_codec *codec = run == 0 ? NULL : wire_codec_by_id(measured[run - 1]);

    if (codec == NULL)
        return MCP_OK;
    wire_codec_encode(codec, b->bytes, rows, count, b->n_embd);
    return wire_codec_decode(codec, rows, b->bytes, wire_codec_bytes(codec, count, b->n_embd),
                             count, b->n_embd, err);
}

/* One chunk of one run: up to three pieces of the model, a codec between them. */
static int run_chunk(struct bench *b, uint32_t run, const int32_t *tokens, uint32_t pos,
                     uint32_t count, mcp_error *err)
{
    const uint32_t ends[] = { b->first, b->last, b->layers };
    mcp_window     w = {
            .seq = run, .pos = pos, .count = count, .tokens = tokens + pos, .out = MCP_OUT_ALL
    };
    uint32_t begin = 0;
    int      rc = MCP_OK;

    for (size_t i = 0; i < 3 && rc == MCP_OK; i++) {
        bool   end = ends[i] == b->layers;
        float *out = end ? b->logits : b->hidden[i % 2];

        if (ends[i] == begin)
            continue;
        rc = engine_forward(b->engine, begin, ends[i], end ? MCP_WANT_LOGITS : MCP_WANT_HIDDEN, &w,
                            1, out, count * (end ? b->n_vocab : b->n_embd), err);
        if (rc == MCP_OK && !end)
            rc = pass_codec(b, run, out, count, err);
        w.tokens = NULL;
        w.hidden = out;
        begin = ends[i];
        if (end)
            break;
    }
    return rc;
}

/* A row of logits to log-probabilities, in place. */
static void normalise(float *row, size_t n)
{
    double most = -INFINITY, sum = 0.0;

    for (size_t i = 0; i < n; i++)
        most = fmax(most, (double)row[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)row[i] - most);
    for (size_t i = 0; i < n; i++)
        row[i] = (float)((double)row[i] - most - log(sum));
}

static double divergence(const float *truth, const float *row, size_t n)
{
    double sum = 0.0;

    for (size_t i = 0; i < n; i++)
        sum += exp((double)truth[i]) * ((double)truth[i] - (double)row[i]);
    return sum;
}

static void add(struct sums *s, double difference)
{
    s->sum += difference;
    s->squares += difference * difference;
}

/* Token i of a chunk in a run: `next` is the one that came. */
static void compare_token(struct bench *b, uint32_t run, uint32_t i, int32_t next)
{
    float *row = b->logits + i * b->n_vocab, *truth = b->truth + i * b->n_vocab;
    double kl;

    normalise(row, b->n_vocab);
    if (run == 0) {
        memcpy(truth, row, b->n_vocab * sizeof(*row));
        b->loss[i] = -(double)row[next];
        return;
    }
    kl = divergence(truth, row, b->n_vocab);
    if (run == 1)
        b->floor[i] = kl;
    add(&b->text[run], -(double)row[next] - b->loss[i]);
    add(&b->expected[run], kl - b->floor[i]);
}

/* All runs over one chunk; its last position predicts the first of the next. */
static int compare_chunk(struct bench *b, const int32_t *tokens, uint32_t pos, uint32_t count,
                         mcp_error *err)
{
    for (uint32_t run = 0; run < RUNS; run++) {
        int rc = run_chunk(b, run, tokens, pos, count, err);

        if (rc < 0)
            return rc;
        for (uint32_t i = 0; i < count; i++)
            compare_token(b, run, i, tokens[pos + i + 1]);
    }
    b->tokens += count;
    return MCP_OK;
}

/* Per cent of perplexity, and the standard error of that. */
static void to_pct(const struct sums *s, uint32_t tokens, double *pct, double *se_pct)
{
    double mean = s->sum / tokens;
    double variance = fmax(0.0, s->squares / tokens - mean * mean) / (tokens - 1.0);

    *pct = 100.0 * expm1(mean);
    *se_pct = 100.0 * sqrt(variance);
}

static void sum_up(const struct bench *b, struct agent_quality *out)
{
    *out = (struct agent_quality){ .codecs = UINT32_C(1) << WIRE_F32, .tokens = b->tokens };
    for (uint32_t run = 1; run < RUNS; run++) {
        uint32_t id = measured[run - 1];

        to_pct(&b->expected[run], b->tokens, &out->pct[id], &out->se_pct[id]);
        to_pct(&b->text[run], b->tokens, &out->text_pct[id], &out->text_se_pct[id]);
        out->codecs |= UINT32_C(1) << id;
    }
}

static int bench_open(struct bench *b, const struct mcp_model *model, const mcp_engine_opts *opts,
                      uint32_t first, uint32_t last, uint32_t count, mcp_error *err)
{
    mcp_engine_opts o = *opts;

    b->first = first;
    b->last = last;
    b->layers = model->hp.n_layer;
    b->n_embd = model->hp.n_embd;
    b->n_vocab = model->hp.n_vocab;
    for (size_t i = 0; i < RUNS - 1; i++)
        if (wire_codec_bytes(wire_codec_by_id(measured[i]), 1, b->n_embd) == 0)
            return base_fail(err, MCP_ENOTSUP, "codec %s does not take rows of %zu values",
                             wire_codec_by_id(measured[i])->name, b->n_embd);
    o.first = o.last = 0;
    o.seqs = RUNS;
    o.ctx_tokens = count;
    o.batch_tokens = o.ubatch_tokens = CHUNK;
    o.beside = NULL;
    b->hidden[0] = malloc(CHUNK * b->n_embd * sizeof(float));
    b->hidden[1] = malloc(CHUNK * b->n_embd * sizeof(float));
    b->bytes = malloc(wire_codec_bytes(wire_codec_by_id(WIRE_F32), CHUNK, b->n_embd));
    b->logits = malloc(CHUNK * b->n_vocab * sizeof(float));
    b->truth = malloc(CHUNK * b->n_vocab * sizeof(float));
    if (b->hidden[0] == NULL || b->hidden[1] == NULL || b->bytes == NULL || b->logits == NULL ||
        b->truth == NULL)
        return base_fail(err, MCP_ENOMEM, "logits of %d tokens", CHUNK);
    return engine_open(&b->engine, model, &o, err);
}

static void bench_close(struct bench *b)
{
    engine_close(b->engine);
    free(b->hidden[0]);
    free(b->hidden[1]);
    free(b->bytes);
    free(b->logits);
    free(b->truth);
}

int quality_measure(struct agent_quality *out, const struct mcp_model *model,
                    const mcp_engine_opts *opts, uint32_t first, uint32_t last,
                    const int32_t *tokens, uint32_t count, double ms_max,
                    measure_progress_fn progress, void *ctx, mcp_error *err)
{
    struct bench b = { .engine = NULL };
    double       until_ms = base_clock_ms() + ms_max;
    uint32_t     done = 0;
    int          rc;

    if (first > last || last > model->hp.n_layer)
        return base_fail(err, MCP_ERANGE, "a stage of layers [%u, %u), the model has %u", first,
                         last, model->hp.n_layer);
    if (count < TOKENS_LEAST + 1)
        return base_fail(err, MCP_ERANGE, "a text of %u tokens, at least %d", count,
                         TOKENS_LEAST + 1);
    rc = bench_open(&b, model, opts, first, last, count, err);
    while (rc == MCP_OK && done + 1 < count && base_clock_ms() < until_ms) {
        uint32_t take = count - 1 - done < CHUNK ? count - 1 - done : CHUNK;

        if (progress != NULL && progress(done, count - 1, ctx) != 0)
            rc = base_fail(err, MCP_ECANCELED, "the measurement was cancelled");
        if (rc == MCP_OK)
            rc = compare_chunk(&b, tokens, done, take, err);
        done += take;
    }
    if (rc == MCP_OK && b.tokens < TOKENS_LEAST)
        rc = base_fail(err, MCP_ENOTSUP, "%u tokens in %.0f s: too slow to measure codecs here",
                       b.tokens, ms_max * 1e-3);
    if (rc == MCP_OK)
        sum_up(&b, out);
    bench_close(&b);
    return rc;
}

/* ---- what is kept ------------------------------------------------------------------------------- */

static bool kept_path(char path[PATH_MAX_BYTES], const uint8_t weights[WIRE_DIGEST_BYTES],
                      uint32_t first, uint32_t last)
{
    int used;

    if (!agent_cache_folder(path, PATH_MAX_BYTES - 128, "codecs", true))
        return false;
    used = (int)strlen(path);
    path[used++] = '/';
    for (size_t i = 0; i < 16; i++) /* 128 bits of the digest tell weights apart */
        used += snprintf(path + used, PATH_MAX_BYTES - (size_t)used, "%02x", weights[i]);
    snprintf(path + used, PATH_MAX_BYTES - (size_t)used, "-%u-%u", first, last);
    return true;
}

/* "mcp-codecs 1 TOKENS", then a codec "ID PCT SE", and the text's own PCT and SE.  A file that says anything else is none. */
static bool read_kept(struct agent_quality *out, const char *path)
{
    struct agent_quality q = { .codecs = UINT32_C(1) << WIRE_F32 };
    FILE                *file = fopen(path, "re");
    unsigned             format = 0, id;
    double               v[4];
    bool                 good;

    if (file == NULL)
        return false;
    good = fscanf(file, "mcp-codecs %u %u", &format, &q.tokens) == 2 && format == FORMAT &&
           q.tokens >= TOKENS_LEAST && q.tokens <= TOKENS_MAX;
    while (good && fscanf(file, "%u %lf %lf %lf %lf", &id, &v[0], &v[1], &v[2], &v[3]) == 5) {
        good = id < WIRE_CODECS;
        for (size_t i = 0; i < 4 && good; i++)
            good = isfinite(v[i]) && v[i] > (i % 2 == 0 ? -100.0 : -1e-9);
        if (good) {
            q.pct[id] = v[0];
            q.se_pct[id] = v[1];
            q.text_pct[id] = v[2];
            q.text_se_pct[id] = v[3];
            q.codecs |= UINT32_C(1) << id;
        }
    }
    for (size_t i = 0; i < RUNS - 1; i++)
        good = good && (q.codecs >> measured[i] & 1) != 0;
    fclose(file);
    if (good)
        *out = q;
    return good;
}

static void keep(const struct agent_quality *q, const char *path)
{
    char   bytes[64 + 128 * WIRE_CODECS];
    size_t used;

    used = (size_t)snprintf(bytes, sizeof(bytes), "mcp-codecs %d %u\n", FORMAT, q->tokens);
    for (uint32_t id = 1; id < WIRE_CODECS; id++)
        if ((q->codecs >> id & 1) != 0)
            used += (size_t)snprintf(bytes + used, sizeof(bytes) - used, "%u %.6f %.6f %.6f %.6f\n",
                                     id, q->pct[id], q->se_pct[id], q->text_pct[id],
                                     q->text_se_pct[id]);
    (void)agent_cache_write(path, bytes, used, 0644, NULL); /* or measured again next time */
}

/* ---- agent_quality ------------------------------------------------------------------------------ */

static bool on_cpu(const mcp_engine_opts *opts)
{
    const char *name = strcmp(opts->device, "auto") == 0 ? engine_device_best() : opts->device;

    return strncmp(name, "cpu", 3) == 0;
}

int agent_quality(struct agent_quality *out, const struct mcp_model *model,
                  const mcp_engine_opts *opts, uint32_t first, uint32_t last,
                  enum profile_want want, measure_progress_fn progress, void *ctx, mcp_error *err)
{
    const struct model_vocab *vocab;
    uint8_t                   weights[WIRE_DIGEST_BYTES];
    int32_t                   tokens[TOKENS_MAX];
    char                      path[PATH_MAX_BYTES];
    bool                      keeps;
    int                       rc, count;

    rc = agent_weights_digest(model, 0, model->hp.n_layer, weights, err);
    if (rc < 0)
        return rc;
    keeps = kept_path(path, weights, first, last);
    if (want != PROFILE_MEASURE && keeps && read_kept(out, path))
        return MCP_OK;
    if (want == PROFILE_FIND)
        return base_fail(err, MCP_ENOTFOUND,
                         "codecs have not been measured with this model at layers %u and %u", first,
                         last);
    engine_devices_init();
    if (on_cpu(opts) && model->info.weight_bytes > CPU_WEIGHT_BYTES_MAX)
        return base_fail(
            err, MCP_ENOTSUP,
            "%.1f GiB of weights are too many to measure codecs with on a CPU, at most "
            "%.0f",
            (double)model->info.weight_bytes / (1 << 30), (double)CPU_WEIGHT_BYTES_MAX / (1 << 30));
    vocab = model_get_vocab(model, err);
    if (vocab == NULL)
        return MCP_ENOTSUP;
    count = model_vocab_tokenize(vocab, text, sizeof(text) - 1, MCP_TOKENIZE_BOS, tokens,
                                 TOKENS_MAX, err);
    if (count < 0)
        return count;
    if (count > TOKENS_MAX)
        count = TOKENS_MAX;
    rc = quality_measure(out, model, opts, first, last, tokens, (uint32_t)count, MS_MAX, progress,
                         ctx, err);
    if (rc == MCP_OK && keeps)
        keep(out, path);
    return rc;
}
