/* bench/rows.h - a row of engine_vs_llama's table: its name, its result, how it is printed.
 *
 * Rows are named like llama-bench's tests, <n> tokens each:
 *     pp<n>[@<depth>]            a prompt in one call
 *     tg<n>[x<seqs>][@<depth>]   one token a call, or one token of each of <seqs> sequences,
 *                                counted together, as llama-batched-bench does
 *     .../<stages>               ours cut into so many stages, against ours uncut */
/* SPDX-License-Identifier: MIT */
#ifndef BENCH_ROWS_H
#define BENCH_ROWS_H

#include "bench.h"

#define ROW_BAR 0.97 /* below it a row is a defect; a cut may cost 3 % */

enum {
    ROWS_MAX = 64,
    ROW_PROMPT_MAX = 2048,   /* a prompt is one call: -b */
    ROW_SEQS_MAX = 256,      /* libllama's own limit */
    ROW_DEPTH_MAX = 1 << 20, /* arbitrary; far above what any model here was trained on */
};

struct row {
    char     name[48];
    int      prompt; /* one call of `count` tokens, else `count` calls */
    uint32_t count;
    uint32_t seqs;
    uint32_t depth;
    uint32_t stages; /* 0: the opponent is libllama */
};

struct row_result {
    const char *against;
    double      ours_per_second; /* tokens; medians */
    double      theirs_per_second;
    double      ratio, ratio_min, ratio_max;
    double      kl;
    int         same_bits;
};

static inline const char *row_number_after(const char *p, const char *what, uint32_t low,
                                           uint32_t high, const char *row, uint32_t *out)
{
    char   digits[16] = "";
    size_t n = strspn(p, "0123456789");

    if (n == 0 || n >= sizeof(digits))
        bench_die("--rows %s: a number is missing or too long", row);
    memcpy(digits, p, n);
    *out = bench_number(what, digits, low, high);
    return p + n;
}

static inline void row_parse(struct row *row, const char *text)
{
    const char *p = text + 2;

    memset(row, 0, sizeof(*row));
    row->seqs = 1;
    snprintf(row->name, sizeof(row->name), "%s", text);
    if (strncmp(text, "pp", 2) != 0 && strncmp(text, "tg", 2) != 0)
        bench_die("--rows %s: rows begin with pp or tg", text);
    row->prompt = text[0] == 'p';
    p = row_number_after(p, "tokens of a row", 1, row->prompt ? ROW_PROMPT_MAX : ROW_DEPTH_MAX,
                         text, &row->count);
    if (*p == 'x' && !row->prompt)
        p = row_number_after(p + 1, "sequences of a row", 1, ROW_SEQS_MAX, text, &row->seqs);
    if (*p == '@')
        p = row_number_after(p + 1, "depth of a row", 0, ROW_DEPTH_MAX, text, &row->depth);
    if (*p == '/')
        p = row_number_after(p + 1, "stages of a row", 1, 256, text, &row->stages);
    if (*p != '\0')
        bench_die("--rows %s: cannot read \"%s\"", text, p);
}

/* Returns how many rows the list holds, at least one. */
static inline uint32_t rows_parse(struct row *rows, const char *list)
{
    char    *copy = bench_alloc(strlen(list) + 1, 1), *rest = NULL;
    uint32_t count = 0;

    strcpy(copy, list);
    for (char *t = strtok_r(copy, ",", &rest); t != NULL; t = strtok_r(NULL, ",", &rest)) {
        if (count == ROWS_MAX)
            bench_die("--rows: more than %d rows", ROWS_MAX);
        row_parse(&rows[count++], t);
    }
    free(copy);
    if (count == 0)
        bench_die("--rows: the list is empty");
    return count;
}

static inline void row_json_string(const char *s)
{
    putchar('"');
    for (; *s != '\0'; s++) {
        if (*s == '"' || *s == '\\')
            putchar('\\');
        if ((unsigned char)*s >= 0x20)
            putchar(*s);
    }
    putchar('"');
}

static inline void row_report(FILE *table, const struct row *row, const struct row_result *r)
{
    char kl[32] = "same bits";

    if (!r->same_bits)
        snprintf(kl, sizeof(kl), "%.1e", r->kl);
    fprintf(table,
            "| %-12s | %10.2f | %10.2f | %-14s | %5.3f | %5.3f..%5.3f | >= %.2f%s | %-9s |\n",
            row->name, r->ours_per_second, r->theirs_per_second, r->against, r->ratio, r->ratio_min,
            r->ratio_max, ROW_BAR, r->ratio >= ROW_BAR ? "     " : " MISS", kl);
    fflush(table);
}

static inline void row_json(const struct row *row, const struct row_result *r, int first)
{
    printf("%s\n  {\"test\": \"%s\", \"seqs\": %u, \"depth\": %u, \"stages\": %u, "
           "\"against\": \"%s\", \"tokens_per_second\": %.3f, \"peer_tokens_per_second\": %.3f, "
           "\"ratio\": %.4f, \"spread\": [%.4f, %.4f], \"bar\": %.2f, \"ok\": %s, \"kl\": %.3e, "
           "\"same_bits\": %s}",
           first ? "" : ",", row->name, row->seqs, row->depth, row->stages, r->against,
           r->ours_per_second, r->theirs_per_second, r->ratio, r->ratio_min, r->ratio_max, ROW_BAR,
           r->ratio >= ROW_BAR ? "true" : "false", r->kl, r->same_bits ? "true" : "false");
}

#endif
