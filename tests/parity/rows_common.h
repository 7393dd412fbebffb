/* SPDX-License-Identifier: MIT */
/* rows_common.h - seeded random numbers, and rows of floats compared bit by bit.
 *
 * A helper that cannot do its work fails the running test with a sentence. */
#ifndef ROWS_COMMON_H
#define ROWS_COMMON_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* ---- random numbers ------------------------------------------------------------- */

struct rng {
    uint64_t state;
};

/* MCP_SEED when set, else a fixed number; tests print it with every failure. */
uint64_t parity_seed(void);
uint64_t rng_next(struct rng *rng);
uint32_t rng_below(struct rng *rng, uint32_t limit);
void     rng_tokens(struct rng *rng, int32_t *tokens, uint32_t count, uint32_t n_vocab);

/* ---- rows ----------------------------------------------------------------------- */

float *floats_new(size_t count); /* NaN everywhere, so that a row not written shows */

struct rows_diff {
    size_t rows;
    size_t rows_differ; /* not bit-identical */
    size_t row_first;   /* first of these */
    size_t top1_differ;
    float  max_abs; /* largest difference of two values */
    float  scale;   /* largest absolute expected value */
    double kl_mean; /* KL(expected || actual) of the softmax, nats */
    bool   finite;  /* all values of both */
};

/* kl_mean and top1_differ cost an exp a value and are filled only where bits differ. */
void rows_compare(struct rows_diff *diff, const float *actual, const float *expected, size_t rows,
                  size_t cols);
const char *rows_diff_text(const struct rows_diff *diff, char *text, size_t cap);

/* Fail unless every row has the same bits and is finite; the message carries `what`. */
void rows_require_equal(const float *actual, const float *expected, size_t rows, size_t cols,
                        const char *what, ...) __attribute__((format(printf, 5, 6)));

uint32_t row_argmax(const float *row, size_t cols); /* the first of equal ones */

#endif
