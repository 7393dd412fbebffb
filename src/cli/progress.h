/* cli/progress.h - a line on stderr while a device is measured.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdint.h>

/* An mcp_progress_fn; ctx is what is measured, as text.  On a terminal one line that counts;
 * elsewhere one line at the beginning. */
int cli_progress(uint32_t done, uint32_t all, void *ctx);

/* The line's end, where there is one. */
void cli_progress_end(void);

#endif
