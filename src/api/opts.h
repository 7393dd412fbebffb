/* api/opts.h - versioned option structs.
 *
 * SPDX-License-Identifier: MIT */
#ifndef API_OPTS_H
#define API_OPTS_H

#include <mcp/error.h>
#include <stddef.h>
#include <stdint.h>

/* Copy a caller's options over today's defaults: what an older caller's smaller struct
 * lacks keeps its default.  NULL takes all defaults.  A larger struct than ours comes
 * from a newer header and is refused: it may ask for what this library cannot do. */
int api_take_opts(void *target, size_t target_bytes, const void *source, const char *what,
                  mcp_error *err);

#endif
