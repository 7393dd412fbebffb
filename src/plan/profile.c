/* plan/profile.c - see profile.h.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/profile.h"

#include "base/fail.h"

#include <math.h>
#include <string.h>

const uint32_t plan_profile_tokens[5] = { 1, 8, 32, 128, 512 };
const uint32_t plan_profile_contexts[3] = { 0, 1024, 4096 };

const char *plan_profile_kind_name(enum plan_profile_kind kind)
{
    return kind == PLAN_MEASURED ? "measured" : "roofline";
}

/* ---- checking ----------------------------------------------------------------------------- */

static int check_name(const char *what, const char *text, size_t bytes, mcp_error *err)
{
    if (memchr(text, '\0', bytes) == NULL)
        return base_fail(err, MCP_EFORMAT, "profile: %s has no end within its %zu bytes", what,
                         bytes);
    return 0;
}

static int check_grid(const char *what, const uint32_t *grid, uint32_t count, uint32_t count_max,
                      uint32_t begin, uint32_t value_max, mcp_error *err)
{
    if (count == 0 || count > count_max)
        return base_fail(err, MCP_EFORMAT, "profile: %u %s, must be 1 to %u", count, what,
                         count_max);
    if (grid[0] != begin)
        return base_fail(err, MCP_EFORMAT, "profile: %s begin with %u, must begin with %u", what,
                         grid[0], begin);
    for (uint32_t i = 1; i < count; i++)
        if (grid[i] <= grid[i - 1] || grid[i] > value_max)
            return base_fail(err, MCP_EFORMAT,
                             "profile: %s go from %u to %u, must ascend and end by %u", what,
                             grid[i - 1], grid[i], value_max);
    return 0;
}

static int check_ms(const char *what, double ms, mcp_error *err)
{
    if (!(ms >= 0.0 && ms <= PLAN_PROFILE_MS_MAX))
        return base_fail(err, MCP_EFORMAT, "profile: %s is %g ms, must be 0 to %d", what, ms,
                         PLAN_PROFILE_MS_MAX);
    return 0;
}

/* One time against the same for less work. */
static int check_order(const char *what, double ms, double less_ms, uint32_t tokens,
                       uint32_t context, mcp_error *err)
{
    if (ms < less_ms)
        return base_fail(err, MCP_EFORMAT,
                         "profile: %s of %u tokens behind %u takes %g ms, less than the %g ms of "
                         "less work",
                         what, tokens, context, ms, less_ms);
    return 0;
}

static int check_layers(const struct plan_profile *p, mcp_error *err)
{
    int rc = 0;

    for (uint32_t t = 0; t < p->token_count; t++) {
        for (uint32_t c = 0; c < p->context_count && rc == 0; c++) {
            double less_tokens = t > 0 ? p->layer_ms[t - 1][c] : 0.0;
            double less_context = c > 0 ? p->layer_ms[t][c - 1] : 0.0;

            rc = check_ms("layer_ms", p->layer_ms[t][c], err);
            if (rc == 0)
                rc = check_order("a layer", p->layer_ms[t][c], fmax(less_tokens, less_context),
                                 p->tokens[t], p->contexts[c], err);
        }
    }
    if (rc == 0 && p->layer_ms[0][0] <= 0.0)
        rc = base_fail(err, MCP_EFORMAT, "profile: a layer of one token takes no time");
    return rc;
}

static int check_rows(const char *what, const char *name, const struct plan_profile *p,
                      const double *ms, mcp_error *err)
{
    int rc = 0;

    for (uint32_t t = 0; t < p->token_count && rc == 0; t++) {
        rc = check_ms(name, ms[t], err);
        if (rc == 0)
            rc = check_order(what, ms[t], t > 0 ? ms[t - 1] : 0.0, p->tokens[t], 0, err);
    }
    return rc;
}

int plan_profile_check(const struct plan_profile *p, mcp_error *err)
{
    int rc = check_name("device", p->device, sizeof(p->device), err);

    if (rc == 0)
        rc = check_name("model", p->model, sizeof(p->model), err);
    if (rc == 0)
        rc = check_name("quantisation", p->quantisation, sizeof(p->quantisation), err);
    if (rc == 0 && (unsigned)p->kind > PLAN_ROOFLINE)
        rc = base_fail(err, MCP_EFORMAT, "profile: kind %u is neither measured nor roofline",
                       (unsigned)p->kind);
    if (rc == 0 && (p->layers == 0 || p->layers > PLAN_LAYERS_MAX || p->n_embd == 0))
        rc = base_fail(err, MCP_EFORMAT,
                       "profile: %u layers of width %u, must be 1 to %d, at least 1 wide",
                       p->layers, p->n_embd, PLAN_LAYERS_MAX);
    if (rc == 0)
        rc = check_grid("token counts", p->tokens, p->token_count, PLAN_TOKENS_MAX, 1,
                        PLAN_PROFILE_TOKENS_MAX, err);
    if (rc == 0)
        rc = check_grid("context lengths", p->contexts, p->context_count, PLAN_CONTEXTS_MAX, 0,
                        PLAN_PROFILE_CONTEXT_MAX, err);
    if (rc == 0)
        rc = check_layers(p, err);
    if (rc == 0)
        rc = check_rows("the head", "head_ms", p, p->head_ms, err);
    if (rc == 0)
        rc = check_rows("the embedding", "embed_ms", p, p->embed_ms, err);
    return rc == 0 ? check_ms("call_ms", p->call_ms, err) : rc;
}

void plan_profile_settle(struct plan_profile *p)
{
    for (uint32_t t = 0; t < p->token_count; t++) {
        for (uint32_t c = 0; c < p->context_count; c++) {
            if (t > 0)
                p->layer_ms[t][c] = fmax(p->layer_ms[t][c], p->layer_ms[t - 1][c]);
            if (c > 0)
                p->layer_ms[t][c] = fmax(p->layer_ms[t][c], p->layer_ms[t][c - 1]);
        }
        if (t > 0) {
            p->head_ms[t] = fmax(p->head_ms[t], p->head_ms[t - 1]);
            p->embed_ms[t] = fmax(p->embed_ms[t], p->embed_ms[t - 1]);
        }
    }
}

void plan_profile_scale(struct plan_profile *p, double factor)
{
    for (uint32_t t = 0; t < p->token_count; t++) {
        for (uint32_t c = 0; c < p->context_count; c++)
            p->layer_ms[t][c] *= factor;
        p->head_ms[t] *= factor;
        p->embed_ms[t] *= factor;
    }
    p->call_ms *= factor;
}

/* ---- reading the grid --------------------------------------------------------------------- */

/* Where a token count lies: value = share x ms[low] + (1 - share) x ms[low - 1], times scale. */
struct spot {
    uint32_t low, high;
    double   share; /* of high */
    double   scale;
};

static struct spot spot_of(const struct plan_profile *p, double tokens)
{
    uint32_t    last = p->token_count - 1;
    struct spot s = { .low = last, .high = last, .share = 0.0, .scale = 1.0 };

    if (tokens >= p->tokens[last]) {
        s.scale = tokens / p->tokens[last];
        return s;
    }
    s.high = 1;
    while (p->tokens[s.high] < tokens)
        s.high++;
    s.low = s.high - 1;
    s.share = (tokens - p->tokens[s.low]) / (double)(p->tokens[s.high] - p->tokens[s.low]);
    return s;
}

static double blend(struct spot s, double low, double high)
{
    return s.scale * (low + s.share * (high - low));
}

static double rows_ms(const struct plan_profile *p, const double *ms, double tokens)
{
    struct spot s = spot_of(p, tokens);

    return blend(s, ms[s.low], ms[s.high]);
}

/* Growth a position beyond the last context.  No row grows slower than one of fewer tokens, or
 * far out more tokens would come to take less time. */
static double slope_beyond(const struct plan_profile *p, uint32_t row)
{
    uint32_t last = p->context_count - 1;
    double   slope = 0.0;

    if (last == 0)
        return 0.0;
    for (uint32_t t = 0; t <= row; t++)
        slope = fmax(slope, (p->layer_ms[t][last] - p->layer_ms[t][last - 1]) /
                                (double)(p->contexts[last] - p->contexts[last - 1]));
    return slope;
}

/* Row `row` of the grid at a context. */
static double context_ms(const struct plan_profile *p, uint32_t row, uint32_t context)
{
    uint32_t      last = p->context_count - 1, high = 1;
    const double *ms = p->layer_ms[row];

    if (context >= p->contexts[last])
        return ms[last] + slope_beyond(p, row) * (context - p->contexts[last]);
    while (p->contexts[high] < context)
        high++;
    return ms[high - 1] + (ms[high] - ms[high - 1]) * (context - p->contexts[high - 1]) /
                              (double)(p->contexts[high] - p->contexts[high - 1]);
}

static double one_ms(const struct plan_profile *p, double tokens, uint32_t context)
{
    struct spot s = spot_of(p, tokens);

    return blend(s, context_ms(p, s.low, context), context_ms(p, s.high, context));
}

/* What the context adds for one of several sequences: never less for more tokens, though a
 * kernel for many tokens may in truth read the cache better than the one for few. */
static double context_part_ms(const struct plan_profile *p, uint32_t tokens, uint32_t context)
{
    double most = one_ms(p, tokens, context) - one_ms(p, tokens, 0);

    for (uint32_t t = 0; t < p->token_count && p->tokens[t] < tokens; t++)
        most = fmax(most, context_ms(p, t, context) - context_ms(p, t, 0));
    return most;
}

double plan_profile_layer_ms(const struct plan_profile *p, uint32_t tokens, uint32_t context,
                             uint32_t batch)
{
    if (tokens == 0)
        return 0.0;
    if (batch <= 1)
        return one_ms(p, tokens, context);
    return one_ms(p, (double)tokens * batch, 0) + batch * context_part_ms(p, tokens, context);
}

double plan_profile_head_ms(const struct plan_profile *p, uint32_t rows)
{
    return rows == 0 ? 0.0 : rows_ms(p, p->head_ms, rows);
}

double plan_profile_embed_ms(const struct plan_profile *p, uint32_t tokens)
{
    return tokens == 0 ? 0.0 : rows_ms(p, p->embed_ms, tokens);
}

double plan_profile_ms(const struct plan_profile *p, const struct plan_forward *f)
{
    uint32_t batch = f->batch == 0 ? 1 : f->batch;
    double   ms = p->call_ms;

    ms += f->layers * plan_profile_layer_ms(p, f->tokens, f->context, batch);
    if (f->embed)
        ms += rows_ms(p, p->embed_ms, (double)f->tokens * batch);
    if (f->head_rows > 0)
        ms += rows_ms(p, p->head_ms, (double)f->head_rows * batch);
    return ms;
}

/* ---- from a data sheet -------------------------------------------------------------------- */

static bool positive(double value)
{
    return isfinite(value) && value > 0.0;
}

static void fill_roofline(struct plan_profile *p, const struct plan_graph *graph,
                          const struct plan_roof *roof)
{
    for (uint32_t t = 0; t < p->token_count; t++) {
        uint32_t n = p->tokens[t];

        p->embed_ms[t] = plan_graph_layer_ms(graph, PLAN_OP_EMBED, n, n, roof);
        p->head_ms[t] = plan_graph_layer_ms(graph, PLAN_OP_HEAD, n, n, roof);
        for (uint32_t c = 0; c < p->context_count; c++) {
            double ms = 0.0;

            for (uint32_t layer = 0; layer < p->layers; layer++)
                ms += plan_graph_layer_ms(graph, (int32_t)layer, n, p->contexts[c] + n, roof);
            p->layer_ms[t][c] = ms / p->layers;
        }
    }
}

int plan_profile_roofline(struct plan_profile *p, const struct plan_graph *graph,
                          const struct plan_roof *roof, mcp_error *err)
{
    if (!positive(roof->bytes_per_s) || !positive(roof->flops_per_s))
        return base_fail(err, MCP_ERANGE,
                         "a roofline needs bytes and FLOPs a second above 0, not %g and %g",
                         roof->bytes_per_s, roof->flops_per_s);
    if (!(roof->launch_ms >= 0.0 && roof->launch_ms <= 1000.0))
        return base_fail(err, MCP_ERANGE, "a launch of %g ms, must be 0 to 1000", roof->launch_ms);
    if (p->layers != plan_graph_layers(graph))
        return base_fail(err, MCP_ERANGE, "the profile is of %u layers, the graph has %u",
                         p->layers, plan_graph_layers(graph));
    p->kind = PLAN_ROOFLINE;
    p->token_count = sizeof(plan_profile_tokens) / sizeof(plan_profile_tokens[0]);
    p->context_count = sizeof(plan_profile_contexts) / sizeof(plan_profile_contexts[0]);
    memcpy(p->tokens, plan_profile_tokens, sizeof(plan_profile_tokens));
    memcpy(p->contexts, plan_profile_contexts, sizeof(plan_profile_contexts));
    p->call_ms = 0.0;
    fill_roofline(p, graph, roof);
    plan_profile_settle(p);
    return plan_profile_check(p, err);
}

/* ---- batch size --------------------------------------------------------------------------- */

uint32_t plan_profile_batch(const struct plan_profile *p, double layers, uint32_t context,
                            double ms_max)
{
    static const double enough = 0.95;

    struct plan_forward f = { .layers = layers, .context = context };
    double              best = 0.0;
    uint32_t            most = 1;

    for (f.tokens = 1; f.tokens <= p->tokens[p->token_count - 1]; f.tokens++) {
        double ms = plan_profile_ms(p, &f);

        if (ms_max > 0.0 && ms > ms_max)
            break;
        most = f.tokens;
        best = fmax(best, f.tokens / ms);
    }
    for (f.tokens = 1; f.tokens < most; f.tokens++)
        if (f.tokens / plan_profile_ms(p, &f) >= enough * best)
            break;
    return f.tokens;
}
