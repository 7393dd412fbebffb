/* plan/profile.h - how fast a device runs a model: measured on a grid, or from a data sheet.
 *
 *                 context ->  0     1024    4096
 *     tokens   1            0.11    0.13    0.19    ms of one layer of average work
 *              8            0.14     ...
 *            ...
 *            512            1.30     ...
 *
 * Between grid points times are linear in tokens and in context; more tokens than the largest
 * count cost in proportion (they run as several micro-batches), more context continues the last
 * slope.  Noise of measuring must not make more work look cheaper: plan_profile_settle() raises
 * such values, and a profile that was not settled is refused.
 *
 * Profiles are files that people share, so every number of one is checked before it is used.
 * Pure; times are in ms.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PLAN_PROFILE_H
#define PLAN_PROFILE_H

#include "plan/graph.h"

enum {
    PLAN_TOKENS_MAX = 12,
    PLAN_CONTEXTS_MAX = 8,
    PLAN_NAME_BYTES = 128,
    PLAN_QUANTISATION_BYTES = 64,
    PLAN_PROFILE_MS_MAX = 36000000,  /* ten hours; arbitrary but safe: sums stay finite */
    PLAN_PROFILE_TOKENS_MAX = 65536, /* of the grid */
    PLAN_PROFILE_CONTEXT_MAX = 1 << 24,
};

/* What is measured when nobody says otherwise. */
extern const uint32_t plan_profile_tokens[5];   /* 1, 8, 32, 128, 512 */
extern const uint32_t plan_profile_contexts[3]; /* 0, 1024, 4096 */

enum plan_profile_kind {
    PLAN_MEASURED, /* on the device itself */
    PLAN_ROOFLINE, /* from bandwidth and FLOP/s: a guess, and shown as one */
};

const char *plan_profile_kind_name(enum plan_profile_kind kind); /* "measured" */

struct plan_profile {
    char                   device[PLAN_NAME_BYTES]; /* "NVIDIA GeForce RTX 3060" */
    char                   model[PLAN_NAME_BYTES];
    char                   quantisation[PLAN_QUANTISATION_BYTES]; /* of the weights it ran with */
    enum plan_profile_kind kind;
    uint64_t               memory_bytes;   /* of the device; 0 = unknown */
    uint32_t               layers, n_embd; /* of the model */
    uint32_t               token_count, context_count;
    uint32_t               tokens[PLAN_TOKENS_MAX];      /* ascending, from 1 */
    uint32_t               contexts[PLAN_CONTEXTS_MAX];  /* ascending, from 0: positions before the
                                                           window */
    double layer_ms[PLAN_TOKENS_MAX][PLAN_CONTEXTS_MAX]; /* one layer of average work */
    double head_ms[PLAN_TOKENS_MAX];  /* final norm and output for so many rows */
    double embed_ms[PLAN_TOKENS_MAX]; /* tokens to hidden states */
    double call_ms;                   /* what a forward costs beside its layers */
};

/* Grid and shape in order, every time finite, not negative, at most PLAN_PROFILE_MS_MAX and, once
 * settled, never smaller for more work; a layer takes some time; strings terminated.
 *   MCP_EFORMAT  with the field, its value and what it may be */
int plan_profile_check(const struct plan_profile *profile, mcp_error *err);

/* Raise every time to that of the largest smaller work.  Grid counts must be in range. */
void plan_profile_settle(struct plan_profile *profile);

/* Every time `factor` times as long; a positive number. */
void plan_profile_scale(struct plan_profile *profile, double factor);

/* A forward: `batch` sequences, each of `tokens` positions behind `context` others. */
struct plan_forward {
    double   layers; /* 1 = one of average work; see plan_model.work */
    uint32_t tokens;
    uint32_t context;
    uint32_t batch;     /* 0 = 1 */
    bool     embed;     /* begins with tokens */
    uint32_t head_rows; /* rows of logits of each sequence; 0 = none */
};

/* Never smaller for more layers, tokens, context, batch or rows.  A batch reads the weights once
 * and each sequence's cache by itself. */
double plan_profile_ms(const struct plan_profile *profile, const struct plan_forward *forward);

/* Its parts: one layer of average work; rows of logits; embedding. */
double plan_profile_layer_ms(const struct plan_profile *profile, uint32_t tokens, uint32_t context,
                             uint32_t batch);
double plan_profile_head_ms(const struct plan_profile *profile, uint32_t rows);
double plan_profile_embed_ms(const struct plan_profile *profile, uint32_t tokens);

/* A profile from the data sheet: `roof` on the graph's ops, on the default grid.  `profile` has
 * names, memory and shape set already.  MCP_ERANGE: a rate that is no positive finite number, a
 * graph of other layers. */
int plan_profile_roofline(struct plan_profile *profile, const struct plan_graph *graph,
                          const struct plan_roof *roof, mcp_error *err);

/* The number of tokens a forward of `layers` layers should have: the smallest that reaches 95 % of
 * the best tokens a second, but no more than take ms_max (0 = no limit), 1 at least. */
uint32_t plan_profile_batch(const struct plan_profile *profile, double layers, uint32_t context,
                            double ms_max);

#endif
