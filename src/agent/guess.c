/* agent/guess.c - see guess.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/guess.h"

#include "base/clock.h"
#include "base/fail.h"
#include "engine/device.h"
#include "engine/engine.h"
#include "pipe/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    CATCH_UP_MIN = 4,   /* positions a step: powers of two, a graph for each.  Fewer might not */
    CATCH_UP_MAX = 32,  /* catch up with a text that grows meanwhile */
    PIECE_BYTES = 1024, /* longer tokens are compared by their length */
};

/* A step of catching up may take so long, half of what a near link takes; or as long as so many
 * guesses, each of which is a step too. */
#define STEP_MS      5.0
#define STEP_GUESSES 2.0
/* A guess's time is believed this much when it is shorter than those before, and when longer. */
#define SHORTER_SHARE 0.5
#define LONGER_SHARE  0.1

struct guess {
    struct mcp_engine *engine;                /* owned; sequence 0 is the text */
    float             *logits;                /* (n_vocab); the engine's */
    int32_t           *read;                  /* (the context's positions): the tokens in its KV */
    uint32_t           count;                 /* of them */
    uint32_t           step;                  /* positions of the next step, while it catches up */
    float              said[GUESS_AHEAD_MAX]; /* of the guess at position n, at n mod MAX */
    struct calibrate   calibrate;
    double             each_ms, total_ms;
};

/* ---- opening ------------------------------------------------------------------------------- */

static bool same_token(const struct model_vocab *a, const struct model_vocab *b, int32_t token)
{
    char piece_a[PIECE_BYTES], piece_b[PIECE_BYTES];
    int  bytes_a = model_vocab_token_bytes(a, token, 1, piece_a, sizeof(piece_a), NULL);
    int  bytes_b = model_vocab_token_bytes(b, token, 1, piece_b, sizeof(piece_b), NULL);

    return bytes_a == bytes_b &&
           (bytes_a < 0 || bytes_a > PIECE_BYTES || memcmp(piece_a, piece_b, (size_t)bytes_a) == 0);
}

/* Guesses are token ids: both models must mean the same by them. */
static int check_vocabulary(const struct mcp_model *model, const struct mcp_model *draft,
                            mcp_error *err)
{
    const struct model_vocab *a = model_get_vocab(model, NULL), *b = model_get_vocab(draft, NULL);
    uint32_t                  count;

    if (model->hp.n_vocab != draft->hp.n_vocab)
        return base_fail(err, MCP_ENOTSUP,
                         "the draft model %s has a vocabulary of %u tokens, the model's has %u; "
                         "give a draft model of the same family",
                         draft->info.path, draft->hp.n_vocab, model->hp.n_vocab);
    if (a == NULL || b == NULL)
        return MCP_OK; /* only ids are known */
    count = model_vocab_size(a);
    if (count != model_vocab_size(b))
        return base_fail(err, MCP_ENOTSUP,
                         "the draft model %s has %u tokens with a text, the model has %u",
                         draft->info.path, model_vocab_size(b), count);
    for (uint32_t i = 0; i < count; i++)
        if (!same_token(a, b, (int32_t)i))
            return base_fail(err, MCP_ENOTSUP,
                             "token %u of the draft model %s is another one than the model's; "
                             "give a draft model of the same family",
                             i, draft->info.path);
    return MCP_OK;
}

/* Threads of two engines would spin for the same cores. */
static bool computes_on(const struct mcp_engine *e, const char *device)
{
    bool found = strcmp(device, "auto") == 0;

    for (uint32_t i = 0; i < e->shard_count && !found; i++)
        found = strcmp(e->shards[i].device->name, device) == 0;
    return found;
}

static int open_engine(struct guess *g, const struct mcp_model *draft, const mcp_engine_opts *given,
                       const struct mcp_engine *beside, uint32_t ctx_tokens, mcp_error *err)
{
    mcp_engine_opts opts = MCP_ENGINE_OPTS_INIT;

    if (given != NULL)
        opts = *given;
    opts.first = opts.last = 0;
    opts.seqs = 1;
    opts.batch_tokens = opts.ubatch_tokens = CATCH_UP_MAX;
    if (opts.ctx_tokens == 0 || opts.ctx_tokens > ctx_tokens)
        opts.ctx_tokens = ctx_tokens;
    if (opts.beside == NULL && beside != NULL && computes_on(beside, opts.device))
        opts.beside = beside;
    return engine_open(&g->engine, draft, &opts, err);
}

static int run(struct guess *g, const int32_t *tokens, uint32_t count, bool last, mcp_error *err)
{
    mcp_window window = {
        .pos = g->count, .count = count, .tokens = tokens, .out = last ? MCP_OUT_LAST : MCP_OUT_NONE
    };
    uint32_t n_vocab = g->engine->model->hp.n_vocab;
    int rc = engine_forward(g->engine, 0, g->engine->model->hp.n_layer, MCP_WANT_LOGITS, &window, 1,
                            g->logits, n_vocab, err);

    if (rc < 0)
        return rc;
    memcpy(g->read + g->count, tokens, count * sizeof(*tokens));
    g->count += count;
    return MCP_OK;
}

static int trim(struct guess *g, uint32_t pos, mcp_error *err)
{
    int rc = pos < g->count ? engine_trim(g->engine, 0, pos, err) : MCP_OK;

    if (rc == MCP_OK && pos < g->count)
        g->count = pos;
    return rc;
}

/* The first token builds a graph, the second is timed. */
static int warm_up(struct guess *g, mcp_error *err)
{
    const int32_t token = 0;
    double        start;
    int           rc = run(g, &token, 1, true, err);

    start = base_clock_ms();
    if (rc == MCP_OK && g->engine->info.ctx_tokens > 1)
        rc = run(g, &token, 1, true, err);
    g->each_ms = base_clock_ms() - start;
    return rc == MCP_OK ? trim(g, 0, err) : rc;
}

int guess_new(struct guess **out, const struct mcp_model *model, const struct mcp_model *draft,
              const mcp_engine_opts *opts, const struct mcp_engine *beside, uint32_t ctx_tokens,
              mcp_error *err)
{
    struct guess *g;
    int           rc = check_vocabulary(model, draft, err);

    *out = NULL;
    if (rc < 0)
        return rc;
    g = calloc(1, sizeof(*g));
    if (g == NULL)
        return base_fail(err, MCP_ENOMEM, "a draft model");
    g->step = CATCH_UP_MIN;
    rc = open_engine(g, draft, opts, beside, ctx_tokens, err);
    if (rc < 0)
        goto out;
    g->logits = engine_alloc(g->engine, draft->hp.n_vocab);
    g->read = calloc(g->engine->info.ctx_tokens, sizeof(*g->read));
    if (g->logits == NULL || g->read == NULL) {
        rc = base_fail(err, MCP_ENOMEM, "%u logits and a text of %u tokens", draft->hp.n_vocab,
                       g->engine->info.ctx_tokens);
        goto out;
    }
    rc = warm_up(g, err);
    if (rc < 0)
        goto out;
    *out = g;
    g = NULL;
out:
    guess_free(g);
    return rc;
}

void guess_free(struct guess *g)
{
    if (g == NULL)
        return;
    free(g->read);
    engine_free(g->logits);
    engine_close(g->engine);
    free(g);
}

/* ---- steps --------------------------------------------------------------------------------- */

/* The most likely token and its share.  Without a temperature: it guesses what will be picked, and
 * calibrate.h learns what the text's temperature makes of it. */
static int pick(struct guess *g, uint32_t pos, struct draft_guess *guess, mcp_error *err)
{
    uint32_t n_vocab = g->engine->model->hp.n_vocab, best = 0;
    double   sum = 0.0;

    for (uint32_t i = 1; i < n_vocab; i++)
        if (g->logits[i] > g->logits[best])
            best = i;
    for (uint32_t i = 0; i < n_vocab; i++)
        sum += expf(g->logits[i] - g->logits[best]);
    if (!(sum >= 1.0) || !isfinite(sum))
        return base_fail(err, MCP_EFORMAT, "%s: logits after position %u are not finite numbers",
                         g->engine->model->info.path, pos - 1);
    g->said[pos % GUESS_AHEAD_MAX] = (float)(1.0 / sum);
    *guess = (struct draft_guess){ (int32_t)best,
                                   calibrate_said(&g->calibrate, (float)(1.0 / sum)) };
    return 1;
}

/* Tokens at the front of both texts, at most `most`: the last one's logits are wanted, also if it
 * has been read. */
static uint32_t shared(const struct guess *g, const int32_t *tokens, uint32_t most)
{
    uint32_t count = 0;

    while (count < g->count && count < most && g->read[count] == tokens[count])
        count++;
    return count;
}

/* Positions of the next step, of `left`. */
static uint32_t size_of_step(const struct guess *g, uint32_t left)
{
    uint32_t size = g->step;

    while (size > left)
        size /= 2;
    return size;
}

/* Longer steps read the weights less often; others have to wait for them. */
static void adapt(struct guess *g, uint32_t count, double ms)
{
    double most_ms = STEP_GUESSES * g->each_ms;

    if (most_ms < STEP_MS)
        most_ms = STEP_MS;
    if (ms > most_ms && g->step > CATCH_UP_MIN)
        g->step /= 2;
    else if (count == g->step && 2.0 * ms < most_ms && g->step < CATCH_UP_MAX)
        g->step *= 2;
}

int guess_step(struct guess *g, const int32_t *tokens, uint32_t length, struct draft_guess *guess,
               mcp_error *err)
{
    double   start = base_clock_ms(), ms;
    uint32_t left, count;
    int      rc;

    if (length > g->engine->info.ctx_tokens)
        return base_fail(err, MCP_ERANGE, "%u positions, the draft model's context is %u", length,
                         g->engine->info.ctx_tokens);
    rc = trim(g, shared(g, tokens, length - 1), err);
    if (rc < 0)
        return rc;
    left = length - g->count;
    count = size_of_step(g, left);
    rc = run(g, tokens + g->count, count, count == left, err);
    if (rc == MCP_OK && count == left)
        rc = pick(g, length, guess, err);
    ms = base_clock_ms() - start;
    g->total_ms += ms;
    if (left > 1)
        adapt(g, count, ms);
    else
        g->each_ms += (ms - g->each_ms) * (ms < g->each_ms ? SHORTER_SHARE : LONGER_SHARE);
    return rc;
}

/* ---- how good and how fast ------------------------------------------------------------------- */

void guess_learn(struct guess *g, uint32_t pos, bool right)
{
    calibrate_learn(&g->calibrate, g->said[pos % GUESS_AHEAD_MAX], right);
}

void guess_fade(struct guess *g)
{
    calibrate_fade(&g->calibrate);
}

float guess_mean(const struct guess *g)
{
    return calibrate_mean(&g->calibrate);
}

uint32_t guess_behind(const struct guess *g, uint32_t length)
{
    return length > g->count ? length - g->count : 0;
}

uint32_t guess_room(const struct guess *g)
{
    return g->engine->info.ctx_tokens;
}

double guess_each_ms(const struct guess *g)
{
    return g->each_ms;
}

double guess_total_ms(const struct guess *g)
{
    return g->total_ms;
}
