/* plan/made_test.h - facts for tests: a 7B shape as it was measured, and small random ones.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PLAN_MADE_TEST_H
#define PLAN_MADE_TEST_H

#include "plan/adjust.h"
#include "plan/plan.h"

#include "base/unit_test.h"

#include <math.h>

static inline void made_close(double value, double expected, double share)
{
    if (!(fabs(value - expected) <= share * fabs(expected)))
        fail_msg("%g is not within %g %% of %g", value, share * 100.0, expected);
}

/* From 0 to below 1. */
static inline double made_random(uint64_t *seed)
{
    return (double)(unit_next(seed) >> 11) / 9007199254740992.0;
}

static inline double made_between(uint64_t *seed, double least, double most)
{
    return least + (most - least) * made_random(seed);
}

/* layer_ms(n, c) = fixed + n x token + c x context + n c x both */
static inline struct plan_profile made_profile(uint32_t layers, double fixed, double token,
                                               double context, double both)
{
    struct plan_profile p = { .device = "made",
                              .model = "made",
                              .quantisation = "Q4_K_M",
                              .layers = layers,
                              .n_embd = 4096,
                              .token_count = 5,
                              .context_count = 3,
                              .call_ms = 0.05 };

    memcpy(p.tokens, plan_profile_tokens, sizeof(plan_profile_tokens));
    memcpy(p.contexts, plan_profile_contexts, sizeof(plan_profile_contexts));
    for (uint32_t t = 0; t < p.token_count; t++) {
        double n = p.tokens[t];

        for (uint32_t c = 0; c < p.context_count; c++)
            p.layer_ms[t][c] = fixed + token * n + context * p.contexts[c] +
                               both * n * p.contexts[c];
        p.head_ms[t] = 2.0 * fixed + token * n;
        p.embed_ms[t] = 0.001 * n;
    }
    return p;
}

/* Everything that facts point at, in one place. */
struct made {
    struct plan_model   model;
    struct plan_profile here_profiles[PLAN_HERE_MAX], worker_profiles[4];
    struct plan_weights weights;
    struct plan_here    here[PLAN_HERE_MAX];
    struct plan_worker  workers[4];
    struct plan_codec   codecs[3];
    struct plan_draft   drafts[2];
    struct plan_facts   facts;
};

static inline void made_point(struct made *m)
{
    m->facts.model = &m->model;
    m->facts.here = m->here;
    m->facts.workers = m->workers;
    m->facts.codecs = m->codecs;
    m->facts.drafts = m->drafts;
    for (int i = 0; i < PLAN_HERE_MAX; i++) {
        m->here[i].profile = &m->here_profiles[i];
        m->here[i].weights = &m->weights;
    }
    for (int i = 0; i < 4; i++)
        m->workers[i].profile = &m->worker_profiles[i];
}

static inline struct plan_link_estimate made_link(double rtt_ms, double mbit)
{
    return (struct plan_link_estimate){ .rtt_ms = rtt_ms,
                                        .rtt_min_ms = rtt_ms,
                                        .mbit = { mbit, mbit } };
}

/* DeepSeek-LLM-7B's shape in Q4_K_M, 4 cores of an EPYC here and an H100 there, from
 * docs/benchmarks.md "A 7B model, a laptop's cores and a GPU elsewhere": 4 layers and the head
 * take 52 ms here, all 30 and the head 1000 / 4.04 ms; the worker's 26 layers 3.2 ms. */
static inline void made_7b(struct made *m, double rtt_ms, double mbit)
{
    const double         layer_ms = (1000.0 / 4.04 - 52.0) / 26.0, head_ms = 52.0 - 4.0 * layer_ms;
    struct plan_profile *cores = &m->here_profiles[0], *gpu = &m->worker_profiles[0];

    memset(m, 0, sizeof(*m));
    m->model = (struct plan_model){ .layers = 30, .n_embd = 4096, .n_vocab = 102400 };
    m->model.kv_layer_bytes = 2 * 2 * 4096;
    for (uint32_t i = 0; i < 30; i++)
        m->weights.layer_bytes[i] = 123000000;
    m->weights.embed_bytes = 236000000;
    m->weights.head_bytes = 344000000;
    *cores = made_profile(30, layer_ms, 0.0, 0.0, 0.0);
    *gpu = made_profile(30, 3.2 / 26.0, 0.0, 0.0, 0.0);
    cores->memory_bytes = 16ull << 30;
    cores->call_ms = gpu->call_ms = 0.0;
    for (uint32_t t = 0; t < 5; t++) {
        cores->head_ms[t] = head_ms;
        /* 41.2 s for 931 tokens; 11,574 tokens a second. */
        for (uint32_t c = 0; c < 3; c++) {
            cores->layer_ms[t][c] = fmax(layer_ms, 41200.0 / 931.0 / 30.0 * cores->tokens[t]);
            gpu->layer_ms[t][c] = fmax(3.2 / 26.0, 1000.0 / 11574.0 / 30.0 * gpu->tokens[t]);
        }
    }
    m->here[0] = (struct plan_here){ .name = "4 cores", .weights_id = 1, .even_windows = true };
    m->workers[0] = (struct plan_worker){ .name = "gpu-01",
                                          .link = made_link(rtt_ms, mbit),
                                          .up = true,
                                          .last = 30,
                                          .sessions_free = 2,
                                          .generates = true,
                                          .exports_kv = true,
                                          .weights_id = 1,
                                          .price_hour = 2.0 };
    m->codecs[0] = (struct plan_codec){ .name = "f16", .token_bytes = 8192 };
    m->codecs[1] = (struct plan_codec){ .name = "q8r", .token_bytes = 4352 };
    m->codecs[2] = (struct plan_codec){ .name = "q4r", .token_bytes = 2304, .quality_pct = 1.06 };
    m->drafts[0] = (struct plan_draft){ .drafter = PLAN_NGRAM, .accept = 0.7, .hit = 0.8 };
    m->drafts[1] = (struct plan_draft){
        .drafter = PLAN_DRAFT_MODEL, .accept = 0.9, .hit = 1.0, .token_ms = 5
    };
    m->facts.here_count = m->facts.worker_count = 1;
    m->facts.codec_count = 3;
    made_point(m);
}

/* Anything that plan_check() accepts, of `layers` layers; about half of the workers hold a part. */
static inline void made_random_facts(struct made *m, uint64_t *seed, uint32_t layers)
{
    bool uneven;

    memset(m, 0, sizeof(*m));
    m->model = (struct plan_model){ .layers = layers, .n_embd = 4096, .n_vocab = 1000 };
    m->model.kv_layer_bytes = 256 << unit_below(seed, 7);
    uneven = unit_below(seed, 2) == 0;
    for (uint32_t i = 0; i < layers && uneven; i++)
        m->model.work[i] = i + 1 == layers && i % 2 == 0 ? 1.0 : i % 2 == 0 ? 1.5 : 0.5;
    m->weights.embed_bytes = m->weights.head_bytes = 100000000;
    for (uint32_t i = 0; i < layers; i++)
        m->weights.layer_bytes[i] = 50000000 + unit_below(seed, 100000000);
    m->facts.here_count = unit_below(seed, 3);
    m->facts.worker_count = unit_below(seed, 4);
    m->facts.codec_count = 1 + unit_below(seed, 3);
    m->facts.draft_count = unit_below(seed, 3);
    for (uint32_t i = 0; i < PLAN_HERE_MAX; i++) {
        double slow = made_between(seed, 0.2, 8.0);

        m->here_profiles[i] = made_profile(layers, slow, slow * made_between(seed, 0.01, 0.5),
                                           slow * 1e-4, slow * 1e-6);
        m->here_profiles[i].memory_bytes = 1000000000ull + unit_below(seed, 2000000000u);
        snprintf(m->here[i].name, sizeof(m->here[i].name), "weights %u", i);
        m->here[i].weights_id = i;
        m->here[i].even_windows = unit_below(seed, 2) == 0;
        m->here[i].quality_pct = made_between(seed, 0.0, 0.8);
    }
    for (uint32_t i = 0; i < 4; i++) {
        struct plan_worker *w = &m->workers[i];
        double              fast = made_between(seed, 0.02, 1.0);

        m->worker_profiles[i] = made_profile(layers, fast, fast * made_between(seed, 0.001, 0.1),
                                             fast * 1e-4, fast * 1e-6);
        snprintf(w->name, sizeof(w->name), "worker %u", i);
        w->link = made_link(made_between(seed, 0.1, 100.0), made_between(seed, 10.0, 1000.0));
        w->up = unit_below(seed, 8) > 0;
        w->last = layers;
        if (unit_below(seed, 2) == 0) {
            w->first = unit_below(seed, layers);
            w->last = w->first + 1 + unit_below(seed, layers - w->first);
        }
        w->sessions_free = unit_below(seed, 5);
        w->others = unit_below(seed, 4);
        w->queue_ms = made_between(seed, 0.0, 3.0);
        w->generates = unit_below(seed, 4) > 0;
        w->exports_kv = unit_below(seed, 3) > 0;
        w->even_windows = unit_below(seed, 2) == 0;
        w->weights_id = unit_below(seed, 2);
        w->quality_pct = made_between(seed, 0.0, 0.8);
        w->price_hour = made_between(seed, 0.0, 5.0);
        w->layers_max = unit_below(seed, 3) == 0 ? 1 + unit_below(seed, layers) : 0;
    }
    for (uint32_t i = 0; i < 3; i++) {
        static const char *const names[] = { "f16", "q8r", "q4r" };

        m->codecs[i] = (struct plan_codec){ .token_bytes = made_between(seed, 2000.0, 9000.0),
                                            .quality_pct = made_between(seed, 0.0, 1.0),
                                            .token_ms = made_between(seed, 0.0, 0.05) };
        snprintf(m->codecs[i].name, sizeof(m->codecs[i].name), "%s", names[i]);
    }
    for (uint32_t i = 0; i < 2; i++)
        m->drafts[i] = (struct plan_draft){ .drafter = i == 0 ? PLAN_NGRAM : PLAN_DRAFT_MODEL,
                                            .accept = made_random(seed),
                                            .hit = made_random(seed),
                                            .token_ms = i * made_between(seed, 0.0, 9.0),
                                            .depth_max = unit_below(seed, 2) * 5 };
    made_point(m);
}

static inline struct plan_request made_random_request(uint64_t *seed)
{
    struct plan_request r = PLAN_REQUEST_INIT;

    r.prompt_tokens = 1 + unit_below(seed, 1500);
    r.gen_tokens = unit_below(seed, 200);
    r.cached_tokens = unit_below(seed, 3) == 0 ? unit_below(seed, r.prompt_tokens) : 0;
    r.privacy = (enum plan_privacy)unit_below(seed, 3);
    r.objective = (enum plan_objective)unit_below(seed, 3);
    r.deadline_ms = unit_below(seed, 3) == 0 ? made_between(seed, 100.0, 30000.0) : 0.0;
    r.quality_pct_max = made_between(seed, 0.3, 3.0);
    r.layers_first_min = unit_below(seed, 3);
    r.layers_last_min = unit_below(seed, 3);
    r.mixed_weights = unit_below(seed, 2) == 0;
    r.kv_q8 = unit_below(seed, 2) == 0;
    r.even = unit_below(seed, 4) == 0;
    return r;
}

#endif
