/* agent/cache.h - what the agent keeps between runs: folders below the user's cache, and files in
 * them that are whole or not there.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_CACHE_H
#define AGENT_CACHE_H

#include <mcp/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The cache's folder `name`: in MCP_CACHE, else XDG_CACHE_HOME/mcp, else HOME/.cache/mcp; `make`:
 * made when it is missing.  False: there is none to be had, or its path needs more than `cap`. */
bool agent_cache_folder(char *path, size_t cap, const char *name, bool make);

/* Put `count` bytes in the file's place.  Whole or not at all: readers never see a half, and a
 * failure leaves what was there.  MCP_EINVAL, MCP_EIO. */
int agent_cache_write(const char *path, const void *bytes, size_t count, mode_t mode,
                      mcp_error *err);

#endif
