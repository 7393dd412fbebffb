/* bench/bench.h - what every bench needs: a clock, a way to stop, options, tokens, medians.
 *
 * Benches are programs, not libraries: what goes wrong ends them with one sentence and
 * exit status 1.  Everything is static inline because each bench is one file. */
/* SPDX-License-Identifier: MIT */
#ifndef BENCH_H
#define BENCH_H

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

__attribute__((format(printf, 1, 2), noreturn)) static inline void bench_die(const char *fmt, ...)
{
    va_list args;

    fflush(stdout);
    fputs("bench: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static inline void *bench_alloc(size_t count, size_t size)
{
    void *p = calloc(count > 0 ? count : 1, size);

    if (p == NULL)
        bench_die("out of memory: %zu x %zu bytes", count, size);
    return p;
}

static inline double bench_seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static inline void bench_sleep(double seconds)
{
    struct timespec ts = { .tv_sec = (time_t)seconds,
                           .tv_nsec = (long)((seconds - floor(seconds)) * 1e9) };

    if (seconds > 0)
        nanosleep(&ts, NULL);
}

/* The token at a position of a sequence: random to the eye, the same for both sides. */
static inline int32_t bench_token(uint32_t seq, uint32_t pos, uint32_t n_vocab)
{
    uint32_t x = (pos + 1) * 2654435761u ^ (seq + 1) * 2246822519u;

    x = (x ^ x >> 15) * 2654435761u;
    return (int32_t)((x ^ x >> 13) % n_vocab);
}

/* A whole number in [low, high], or the end of the program. */
static inline uint32_t bench_number(const char *option, const char *text, uint32_t low,
                                    uint32_t high)
{
    char         *end = NULL;
    unsigned long n = strtoul(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || n < low || n > high)
        bench_die("%s %s: must be a whole number from %u to %u", option, text, low, high);
    return (uint32_t)n;
}

static inline int bench_compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Sorts in place. */
static inline double bench_median(double *v, uint32_t count)
{
    qsort(v, count, sizeof(*v), bench_compare_doubles);
    return count % 2 == 1 ? v[count / 2] : 0.5 * (v[count / 2 - 1] + v[count / 2]);
}

/* Kullback-Leibler divergence of softmax(q) from softmax(p), in nats; 0 for equal rows. */
static inline double bench_kl(const float *p, const float *q, uint32_t n)
{
    double max_p = p[0], max_q = q[0], sum_p = 0, sum_q = 0, kl = 0;

    for (uint32_t i = 1; i < n; i++) {
        max_p = p[i] > max_p ? p[i] : max_p;
        max_q = q[i] > max_q ? q[i] : max_q;
    }
    for (uint32_t i = 0; i < n; i++) {
        sum_p += exp(p[i] - max_p);
        sum_q += exp(q[i] - max_q);
    }
    for (uint32_t i = 0; i < n; i++) {
        double log_p = p[i] - max_p - log(sum_p), log_q = q[i] - max_q - log(sum_q);

        kl += exp(log_p) * (log_p - log_q);
    }
    return kl > 0 ? kl : 0; /* rounding can leave -1e-17 */
}

#endif
