/* SPDX-License-Identifier: MIT */
/* rows_common.c - seeded random numbers, and rows of floats compared bit by bit. */
#include "rows_common.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- random numbers ------------------------------------------------------------- */

uint64_t parity_seed(void)
{
    const char *text = getenv("MCP_SEED");

    return text != NULL && *text != '\0' ? strtoull(text, NULL, 0) : 20240607;
}

/* splitmix64 */
uint64_t rng_next(struct rng *rng)
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t rng_below(struct rng *rng, uint32_t limit)
{
    return (uint32_t)(((rng_next(rng) >> 32) * limit) >> 32);
}

void rng_tokens(struct rng *rng, int32_t *tokens, uint32_t count, uint32_t n_vocab)
{
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = (int32_t)rng_below(rng, n_vocab);
}

/* ---- rows ----------------------------------------------------------------------- */

float *floats_new(size_t count)
{
    float *floats = malloc(count * sizeof(*floats) + 1);

    assert_non_null(floats);
    for (size_t i = 0; i < count; i++)
        floats[i] = NAN;
    return floats;
}

uint32_t row_argmax(const float *row, size_t cols)
{
    size_t best = 0;

    for (size_t i = 1; i < cols; i++)
        if (row[i] > row[best])
            best = i;
    return (uint32_t)best;
}

static double row_log_sum(const float *row, size_t cols)
{
    double max = row[row_argmax(row, cols)], sum = 0;

    for (size_t i = 0; i < cols; i++)
        sum += exp(row[i] - max);
    return max + log(sum);
}

static double row_kl(const float *actual, const float *expected, size_t cols)
{
    double la = row_log_sum(actual, cols), le = row_log_sum(expected, cols), kl = 0;

    for (size_t i = 0; i < cols; i++)
        kl += exp(expected[i] - le) * ((expected[i] - le) - (actual[i] - la));
    return kl;
}

void rows_compare(struct rows_diff *diff, const float *actual, const float *expected, size_t rows,
                  size_t cols)
{
    memset(diff, 0, sizeof(*diff));
    diff->rows = rows;
    diff->finite = true;
    for (size_t r = 0; r < rows; r++) {
        const float *a = actual + r * cols, *e = expected + r * cols;

        for (size_t i = 0; i < cols; i++) {
            float gap = fabsf(a[i] - e[i]);

            diff->finite = diff->finite && isfinite(a[i]) && isfinite(e[i]);
            diff->max_abs = gap > diff->max_abs ? gap : diff->max_abs;
            diff->scale = fabsf(e[i]) > diff->scale ? fabsf(e[i]) : diff->scale;
        }
        if (memcmp(a, e, cols * sizeof(*a)) == 0)
            continue;
        if (diff->rows_differ++ == 0)
            diff->row_first = r;
        diff->top1_differ += row_argmax(a, cols) != row_argmax(e, cols);
        diff->kl_mean += row_kl(a, e, cols) / (double)rows;
    }
}

const char *rows_diff_text(const struct rows_diff *diff, char *text, size_t cap)
{
    snprintf(text, cap,
             "%zu of %zu rows differ, the first is row %zu; max abs %.3g of %.3g, mean KL %.3g, "
             "top-1 differs in %zu%s",
             diff->rows_differ, diff->rows, diff->row_first, (double)diff->max_abs,
             (double)diff->scale, diff->kl_mean, diff->top1_differ,
             diff->finite ? "" : ", NOT FINITE");
    return text;
}

void rows_require_equal(const float *actual, const float *expected, size_t rows, size_t cols,
                        const char *what, ...)
{
    struct rows_diff diff;
    char             label[512], text[256];
    va_list          list;

    rows_compare(&diff, actual, expected, rows, cols);
    if (diff.rows_differ == 0 && diff.finite)
        return;
    va_start(list, what);
    vsnprintf(label, sizeof(label), what, list);
    va_end(list);
    fail_msg("%s: %s\nreplay with MCP_SEED=%" PRIu64, label,
             rows_diff_text(&diff, text, sizeof(text)), parity_seed());
}
