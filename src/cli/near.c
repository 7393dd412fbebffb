/* cli/near.c - what a mistyped word may have meant.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/args.h"

#include <string.h>

enum { WORD_BYTES_MAX = 64 }; /* longer words are compared with nothing */

/* Edit distance with neighbouring letters exchanged counted as one error. */
static size_t distance(const char *a, const char *b)
{
    size_t rows = strlen(a), cols = strlen(b);
    size_t d[3][WORD_BYTES_MAX + 1];

    if (rows > WORD_BYTES_MAX || cols > WORD_BYTES_MAX)
        return WORD_BYTES_MAX;
    for (size_t j = 0; j <= cols; j++)
        d[0][j] = j;
    for (size_t i = 1; i <= rows; i++) {
        size_t *now = d[i % 3], *above = d[(i + 2) % 3], *above2 = d[(i + 1) % 3];

        now[0] = i;
        for (size_t j = 1; j <= cols; j++) {
            size_t best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                above2[j - 2] + 1 < best)
                best = above2[j - 2] + 1;
            now[j] = best;
        }
    }
    return d[rows % 3][cols];
}

const char *cli_nearest(const char *word, const char *const *names, size_t count)
{
    size_t      allowed = strlen(word) / 3 + 1, best = allowed + 1;
    const char *found = NULL;

    for (size_t i = 0; i < count; i++) {
        size_t d = distance(word, names[i]);
        if (d < best && d < strlen(names[i])) {
            best = d;
            found = names[i];
        }
    }
    return found;
}
