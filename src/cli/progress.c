/* cli/progress.c - see progress.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/progress.h"

#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

static bool open_line;

int cli_progress(uint32_t done, uint32_t all, void *ctx)
{
    const char *what = ctx;

    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\rmeasuring %s: %u of %u ", what, done + 1, all);
        open_line = true;
    } else if (done == 0) {
        fprintf(stderr, "measuring %s, %u figures: takes seconds\n", what, all);
    }
    return 0;
}

void cli_progress_end(void)
{
    if (open_line)
        fprintf(stderr, "\r\033[K");
    open_line = false;
}
