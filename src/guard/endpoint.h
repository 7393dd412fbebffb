/* guard/endpoint.h - HOST:PORT of workers, and the file that lists them.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_ENDPOINT_H
#define GUARD_ENDPOINT_H

#include "guard/folder.h"

#include <stdbool.h>

enum {
    GUARD_ENDPOINT_BYTES = 128, /* as mcp_worker_info.endpoint */
    GUARD_WORKERS_MAX = 64,     /* as MCP_WORKERS_MAX */
};

/* A DNS name, an IPv4 address or [an IPv6 address], a colon, a port of 1..65535. */
bool guard_is_endpoint(const char *text);

/* The file `workers`: one a line.  Not there = none.
 *   MCP_EFORMAT  a line that is none, or too many */
struct guard_workers {
    char     endpoint[GUARD_WORKERS_MAX][GUARD_ENDPOINT_BYTES];
    uint32_t count;
};
int guard_workers_load(struct guard_workers *workers, const struct guard_folder *folder,
                       mcp_error *err);

/* Add one unless it is there.
 *   MCP_ERANGE  there are GUARD_WORKERS_MAX */
int guard_workers_add(struct guard_workers *workers, const char *endpoint, mcp_error *err);

/* The file's text. */
int guard_workers_text(const struct guard_workers *workers, struct guard_bytes *text,
                       mcp_error *err);

#endif
