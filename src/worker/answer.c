/* worker/answer.c - see answer.h.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/answer.h"

#include "base/fail.h"
#include "model/sampler.h"
#include "pipe/draft.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <sys/random.h>

/* The largest window in which tokens come out with the bits that they have one by one. */
enum { AGAIN_TOKENS = 63 };

struct worker_answer {
    const struct model_vocab *vocab; /* NULL: nothing ends an answer but its length */
    struct model_sampler     *sampler;
    struct draft             *draft; /* NULL: no guesses */
    uint64_t                  number;
    uint32_t                  prompt_left, again_left, taken;
    uint32_t                  tokens_left, ctx_tokens;
    uint32_t                  guesses; /* in each window; 0 = as many as pay */
    int32_t                   last;    /* chosen */
    bool                      ignore_end;
};

static int check(const struct wire_generate *g, mcp_error *err)
{
    if (g->max_tokens == 0)
        return base_fail(err, MCP_EINVAL, "generate: max_tokens is 0, it must be at least 1");
    if (!isfinite(g->temperature) || !isfinite(g->top_p) || !isfinite(g->min_p) ||
        g->temperature < 0.0f)
        return base_fail(err, MCP_EINVAL,
                         "generate: temperature %g, top_p %g, min_p %g are not all numbers that "
                         "mean something",
                         (double)g->temperature, (double)g->top_p, (double)g->min_p);
    return MCP_OK;
}

/* A client that means to go on elsewhere with `draws` names a seed; the others do not care. */
static int choose_seed(uint32_t wanted, uint32_t *seed, mcp_error *err)
{
    *seed = wanted;
    if (wanted == MCP_SEED_RANDOM && getrandom(seed, sizeof(*seed), 0) != (ssize_t)sizeof(*seed))
        return base_fail(err, MCP_EIO, "no random seed from the system");
    return MCP_OK;
}

int worker_answer_new(struct worker_answer **out, const struct worker_facts *facts,
                      const struct wire_generate *g, uint32_t ctx_tokens, mcp_error *err)
{
    mcp_generate_opts     opts = MCP_GENERATE_OPTS_INIT;
    struct worker_answer *a;
    uint32_t              seed;
    int                   rc = check(g, err);

    *out = NULL;
    if (rc == MCP_OK)
        rc = choose_seed(g->seed, &seed, err);
    if (rc < 0)
        return rc;
    opts.temperature = g->temperature;
    opts.top_k = g->top_k;
    opts.top_p = g->top_p > 0.0f ? g->top_p : 1.0f;
    opts.min_p = g->min_p;
    a = calloc(1, sizeof(*a));
    if (a != NULL)
        a->sampler = model_sampler_new(&opts, facts->n_vocab, seed);
    if (a == NULL || a->sampler == NULL) {
        worker_answer_free(a);
        return base_fail(err, MCP_ENOMEM, "sampler of %u logits", facts->n_vocab);
    }
    model_sampler_skip(a->sampler, g->draws);
    a->vocab = model_get_vocab(facts->model, NULL);
    a->number = g->number;
    /* One draw a token: so many at the end have been this answer's, on a worker that is lost. */
    a->again_left = (uint32_t)(g->draws < g->token_count ? g->draws : g->token_count - 1);
    a->prompt_left = (uint32_t)g->token_count - a->again_left;
    a->tokens_left = g->max_tokens;
    a->ctx_tokens = ctx_tokens;
    a->ignore_end = g->ignore_end;
    *out = a;
    return MCP_OK;
}

void worker_answer_guess(struct worker_answer *a, const struct wire_generate *g, struct draft *text)
{
    if (g->no_guesses || (text == NULL && draft_new(&text, a->ctx_tokens + 1, NULL) < 0)) {
        draft_free(text);
        return;
    }
    a->draft = text;
    a->guesses = g->guesses;
    if (g->pos > draft_known(text)) {
        draft_begin(text, g->tokens, (uint32_t)g->token_count);
        return;
    }
    draft_begin(text, draft_tokens(text), g->pos);
    for (size_t i = 0; i < g->token_count; i++)
        draft_take(text, g->tokens[i]);
}

struct draft *worker_answer_text(struct worker_answer *a)
{
    struct draft *text = a->draft;

    a->draft = NULL;
    return text;
}

void worker_answer_free(struct worker_answer *a)
{
    if (a == NULL)
        return;
    model_sampler_free(a->sampler);
    draft_free(a->draft);
    free(a);
}

uint32_t worker_answer_prompt(struct worker_answer *a, uint32_t most, uint32_t *offset)
{
    uint32_t *left = a->prompt_left > 0 ? &a->prompt_left : &a->again_left;
    uint32_t  take;

    if (left == &a->again_left && most > AGAIN_TOKENS)
        most = AGAIN_TOKENS;
    take = *left < most ? *left : most;
    *offset = a->taken;
    a->taken += take;
    *left -= take;
    return take;
}

bool worker_answer_prompting(const struct worker_answer *a)
{
    return a->prompt_left + a->again_left > 0;
}

/* What the text suggests, and how probably each is right; at most `most`. */
static uint32_t offer(struct worker_answer *a, uint32_t most, int32_t *tokens, float *probability)
{
    struct draft_guess guess;
    uint32_t           count = 0;

    while (count < most && draft_next(a->draft, &guess)) {
        tokens[count] = guess.token;
        probability[count++] = guess.probability;
        draft_push(a->draft, guess.token);
    }
    draft_drop(a->draft, draft_known(a->draft));
    return count;
}

uint32_t worker_answer_window(struct worker_answer *a, struct worker_guess *guess, uint32_t pos,
                              uint32_t most, int32_t *tokens)
{
    float    probability[WORKER_GUESSES_MAX];
    uint32_t offered, room = a->ctx_tokens - pos;

    tokens[0] = a->last;
    if (a->draft == NULL)
        return 1;
    /* Each row gives a token, the last one too. */
    most = most < room ? most : room;
    most = most < a->tokens_left ? most : a->tokens_left;
    most = most <= WORKER_GUESSES_MAX ? most - 1 : WORKER_GUESSES_MAX;
    if (a->guesses != 0 && most > a->guesses)
        most = a->guesses;
    offered = offer(a, most, tokens + 1, probability);
    return 1 + (a->guesses != 0 ? offered : worker_guess_choose(guess, probability, offered));
}

int worker_answer_next(struct worker_answer *a, const float *logits, uint32_t pos,
                       struct wire_token *token, mcp_error *err)
{
    int32_t picked = model_sampler_pick(a->sampler, logits);

    if (picked < 0)
        return base_fail(err, MCP_EFORMAT,
                         "the logits after position %u are not finite numbers: the model's "
                         "weights are damaged or overflow",
                         pos);
    *token = (struct wire_token){ .number = a->number, .pos = pos, .token = picked };
    a->last = picked;
    a->tokens_left--;
    if (a->draft != NULL && draft_known(a->draft) <= a->ctx_tokens)
        draft_take(a->draft, picked);
    if (!a->ignore_end && a->vocab != NULL && model_vocab_token_ends(a->vocab, picked))
        token->stop = WIRE_STOP_END;
    else if (a->tokens_left == 0)
        token->stop = WIRE_STOP_LENGTH;
    else if (pos >= a->ctx_tokens)
        token->stop = WIRE_STOP_CONTEXT;
    return MCP_OK;
}
