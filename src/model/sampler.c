/* model/sampler.c - see sampler.h.
 *
 * SPDX-License-Identifier: MIT */
#include "model/sampler.h"

#include <llama.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* Dividing logits by less would overflow; the draw is the most likely token long before. */
#define TEMPERATURE_MIN 1e-6f

struct model_sampler {
    uint32_t              n_vocab;
    struct llama_sampler *chain;      /* NULL: greedy */
    struct llama_sampler *draw;       /* its last link, the only one with a state */
    llama_token_data     *candidates; /* (n_vocab) */
    uint64_t              draws;
};

struct model_sampler *model_sampler_new(const mcp_generate_opts *opts, uint32_t n_vocab,
                                        uint32_t seed)
{
    struct model_sampler *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->n_vocab = n_vocab;
    if (opts->temperature < TEMPERATURE_MIN)
        return s;

    s->candidates = malloc(n_vocab * sizeof(*s->candidates));
    s->chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    if (s->candidates == NULL || s->chain == NULL) {
        model_sampler_free(s);
        return NULL;
    }
    if (opts->top_k > 0)
        llama_sampler_chain_add(s->chain, llama_sampler_init_top_k(opts->top_k));
    if (opts->top_p < 1.0f)
        llama_sampler_chain_add(s->chain, llama_sampler_init_top_p(opts->top_p, 1));
    if (opts->min_p > 0.0f)
        llama_sampler_chain_add(s->chain, llama_sampler_init_min_p(opts->min_p, 1));
    llama_sampler_chain_add(s->chain, llama_sampler_init_temp(opts->temperature));
    s->draw = llama_sampler_init_dist(seed);
    llama_sampler_chain_add(s->chain, s->draw);
    return s;
}

void model_sampler_free(struct model_sampler *s)
{
    if (s == NULL)
        return;
    if (s->chain != NULL)
        llama_sampler_free(s->chain);
    free(s->candidates);
    free(s);
}

/* The first of equals, as libllama's greedy sampler. */
static int32_t pick_greedy(const struct model_sampler *s, const float *logits)
{
    int32_t best = -1;

    for (uint32_t i = 0; i < s->n_vocab; i++)
        if (isfinite(logits[i]) && (best < 0 || logits[i] > logits[best]))
            best = (int32_t)i;
    return best;
}

static bool fill_candidates(struct model_sampler *s, const float *logits)
{
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        if (!isfinite(logits[i]))
            return false;
        s->candidates[i] = (llama_token_data){ .id = (llama_token)i, .logit = logits[i] };
    }
    return true;
}

int32_t model_sampler_pick(struct model_sampler *s, const float *logits)
{
    llama_token_data_array array;

    /* libllama asserts on a distribution that holds NaN.  The pick takes its draw all the same. */
    if (s->chain == NULL || !fill_candidates(s, logits)) {
        model_sampler_skip(s, 1);
        return pick_greedy(s, logits);
    }
    array = (llama_token_data_array){ .data = s->candidates, .size = s->n_vocab, .selected = -1 };
    llama_sampler_apply(s->chain, &array);
    s->draws++;
    if (array.selected < 0 || (size_t)array.selected >= array.size)
        return -1;
    llama_sampler_accept(s->chain, array.data[array.selected].id);
    return array.data[array.selected].id;
}

void model_sampler_skip(struct model_sampler *s, uint64_t draws)
{
    s->draws += draws;
    if (s->draw == NULL)
        return;
    /* libllama draws one number a call, also where a single candidate is left. */
    for (; draws > 0; draws--) {
        llama_token_data       one = { .id = 0 };
        llama_token_data_array array = { .data = &one, .size = 1, .selected = -1 };

        llama_sampler_apply(s->draw, &array);
    }
}

uint64_t model_sampler_draws(const struct model_sampler *s)
{
    return s->draws;
}
