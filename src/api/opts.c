/* api/opts.c - see opts.h.
 *
 * SPDX-License-Identifier: MIT */
#include "api/opts.h"

#include "base/fail.h"

#include <string.h>

int api_take_opts(void *target, size_t target_bytes, const void *source, const char *what,
                  mcp_error *err)
{
    uint32_t size;

    if (source == NULL)
        return MCP_OK;
    memcpy(&size, source, sizeof(size)); /* struct_size is every options struct's first member */
    if (size < sizeof(size) || size > target_bytes)
        return base_fail(err, MCP_EINVAL,
                         "%s.struct_size is %u, this library knows up to %zu; start from the INIT "
                         "macro",
                         what, size, target_bytes);
    memcpy(target, source, size);
    return MCP_OK;
}
