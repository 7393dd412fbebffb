/* engine/experts.c - mixture of experts: choose, run, weigh, add.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/graph.h"

#include <math.h>

/* DeepSeek V3: experts come in groups; a group scores the sum of its two best, and only
 * experts of the best groups may be chosen.  (n_expert, n) -> the same, others at -inf. */
static struct ggml_tensor *mask_groups(struct engine_build *b, struct ggml_tensor *scores,
                                       int64_t n)
{
    const struct model_hparams *hp = b->hp;
    int64_t                     groups = hp->n_expert_groups;
    int64_t                     each = hp->n_expert / hp->n_expert_groups;
    struct ggml_tensor         *grouped, *best, *chosen;

    grouped = ggml_reshape_3d(b->ctx, scores, each, groups, n);
    best = ggml_argsort_top_k(b->ctx, grouped, 2); /* (2, groups, n) */
    best = ggml_get_rows(b->ctx, ggml_reshape_4d(b->ctx, grouped, 1, each, groups, n), best);
    best = ggml_sum_rows(b->ctx, ggml_reshape_3d(b->ctx, best, 2, groups, n)); /* (1, groups, n) */
    best = ggml_reshape_2d(b->ctx, best, groups, n);
    chosen = ggml_argsort_top_k(b->ctx, best, (int)hp->n_group_used); /* (n_group_used, n) */

    scores = ggml_get_rows(b->ctx, grouped, chosen); /* (each, used, n) */
    scores = ggml_set_rows(b->ctx, ggml_fill(b->ctx, grouped, -INFINITY), scores, chosen);
    return ggml_reshape_2d(b->ctx, scores, hp->n_expert, n);
}

/* The chosen experts' ids (used, n) and their weights (1, used, n). */
static struct ggml_tensor *route(struct engine_build *b, struct ggml_tensor *x, int64_t n,
                                 struct ggml_tensor **ids)
{
    const struct model_hparams *hp = b->hp;
    int64_t                     used = hp->n_expert_used;
    struct ggml_tensor         *probs, *scores, *weights;

    probs = engine_product(b, b->l->t[W_ROUTER], x); /* (n_expert, n) */
    probs = hp->gate_sigmoid ? ggml_sigmoid(b->ctx, probs) : ggml_soft_max(b->ctx, probs);
    scores = probs;
    if (b->l->t[B_ROUTER] != NULL) /* biases the choice, not the weight */
        scores = ggml_add(b->ctx, probs, b->l->t[B_ROUTER]);
    if (hp->n_expert_groups > 1)
        scores = mask_groups(b, scores, n);
    *ids = ggml_argsort_top_k(b->ctx, scores, (int)used); /* (used, n) */

    probs = ggml_reshape_3d(b->ctx, probs, 1, hp->n_expert, n);
    weights = ggml_get_rows(b->ctx, probs, *ids); /* (1, used, n) */
    if (hp->weights_norm) {
        struct ggml_tensor *sum;

        weights = ggml_reshape_2d(b->ctx, weights, used, n);
        sum = ggml_sum_rows(b->ctx, weights);                     /* (1, n) */
        sum = ggml_clamp(b->ctx, sum, 6.103515625e-5f, INFINITY); /* smallest f16 */
        weights = ggml_div(b->ctx, weights, sum);
        weights = ggml_reshape_3d(b->ctx, weights, 1, used, n);
    }
    if (hp->weights_scale != 0.0f && hp->weights_scale != 1.0f)
        weights = ggml_scale(b->ctx, weights, hp->weights_scale);
    ggml_build_forward_expand(b->nodes, weights); /* together: backends fuse the routing */
    return weights;
}

struct ggml_tensor *engine_experts(struct engine_build *b, struct ggml_tensor *x)
{
    const struct engine_layer *l = b->l;
    int64_t                    n = x->ne[1];
    int64_t                    used = b->hp->n_expert_used;
    struct ggml_tensor        *ids, *weights, *gate, *up, *y, *sum, *part[MODEL_EXPERTS_MAX];

    weights = route(b, x, n, &ids);
    x = ggml_reshape_3d(b->ctx, x, x->ne[0], 1, n);

    if (l->t[W_GATE_UP_EXPS] != NULL) {
        struct ggml_tensor *both = ggml_mul_mat_id(b->ctx, l->t[W_GATE_UP_EXPS], x, ids);
        int64_t             half = both->ne[0] / 2;

        gate = ggml_view_3d(b->ctx, both, half, used, n, both->nb[1], both->nb[2], 0);
        up = ggml_view_3d(b->ctx, both, half, used, n, both->nb[1], both->nb[2],
                          (size_t)half * both->nb[0]);
    } else {
        up = ggml_mul_mat_id(b->ctx, l->t[W_UP_EXPS], x, ids); /* (n_ff_expert, used, n) */
        gate = ggml_mul_mat_id(b->ctx, l->t[W_GATE_EXPS], x, ids);
    }
    y = ggml_swiglu_split(b->ctx, gate, up);
    y = ggml_mul_mat_id(b->ctx, l->t[W_DOWN_EXPS], y, ids); /* (n_embd, used, n) */
    y = ggml_mul(b->ctx, y, weights);
    ggml_build_forward_expand(b->nodes, y);

    /* All views before all sums: the order llama.cpp adds in. */
    sum = part[0] = ggml_view_2d(b->ctx, y, y->ne[0], n, y->nb[2], 0);
    ggml_build_forward_expand(b->nodes, sum);
    for (int64_t i = 1; i < used; i++) {
        part[i] = ggml_view_2d(b->ctx, y, y->ne[0], n, y->nb[2], (size_t)i * y->nb[1]);
        ggml_build_forward_expand(b->nodes, part[i]);
    }
    for (int64_t i = 1; i < used; i++) {
        sum = ggml_add(b->ctx, sum, part[i]);
        ggml_build_forward_expand(b->nodes, sum);
    }
    return used == 1 ? ggml_cont(b->ctx, sum) : sum;
}
