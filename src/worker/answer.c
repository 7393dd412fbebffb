/* worker/answer.c - see answer.h.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/answer.h"

#include "base/fail.h"
#include "model/sampler.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <sys/random.h>

/* The largest window in which tokens come out with the bits that they have one by one. */
enum { AGAIN_TOKENS = 63 };

struct worker_answer {
    const struct model_vocab *vocab; /* NULL: nothing ends an answer but its length */
    struct model_sampler     *sampler;
    uint64_t                  number;
    uint32_t                  prompt_left, again_left, taken;
    uint32_t                  tokens_left;
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
                      const struct wire_generate *g, mcp_error *err)
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
    a->ignore_end = g->ignore_end;
    *out = a;
    return MCP_OK;
}

void worker_answer_free(struct worker_answer *a)
{
    if (a == NULL)
        return;
    model_sampler_free(a->sampler);
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

int worker_answer_next(struct worker_answer *a, const float *logits, uint32_t pos,
                       uint32_t ctx_tokens, struct wire_token *token, mcp_error *err)
{
    int32_t picked = model_sampler_pick(a->sampler, logits);

    if (picked < 0)
        return base_fail(err, MCP_EFORMAT,
                         "the logits after position %u are not finite numbers: the model's "
                         "weights are damaged or overflow",
                         pos);
    *token = (struct wire_token){ .number = a->number, .pos = pos, .token = picked };
    a->tokens_left--;
    if (!a->ignore_end && a->vocab != NULL && model_vocab_token_ends(a->vocab, picked))
        token->stop = WIRE_STOP_END;
    else if (a->tokens_left == 0)
        token->stop = WIRE_STOP_LENGTH;
    else if (pos >= ctx_tokens)
        token->stop = WIRE_STOP_CONTEXT;
    return MCP_OK;
}
