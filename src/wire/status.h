/* wire/status.h - gRPC status codes, and our errors as such.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_STATUS_H
#define WIRE_STATUS_H

#include <mcp/error.h>
#include <stdint.h>

/* code, value (gRPC's, fixed), the MCP_E* that a caller of ours sees */
#define WIRE_STATUSES(X)                        \
    X(WIRE_OK, 0, MCP_OK)                       \
    X(WIRE_CANCELLED, 1, MCP_ECANCELED)         \
    X(WIRE_UNKNOWN, 2, MCP_EFORMAT)             \
    X(WIRE_INVALID_ARGUMENT, 3, MCP_EINVAL)     \
    X(WIRE_DEADLINE_EXCEEDED, 4, MCP_ETIMEOUT)  \
    X(WIRE_NOT_FOUND, 5, MCP_ENOTFOUND)         \
    X(WIRE_ALREADY_EXISTS, 6, MCP_EINVAL)       \
    X(WIRE_PERMISSION_DENIED, 7, MCP_EDENIED)   \
    X(WIRE_RESOURCE_EXHAUSTED, 8, MCP_EBUSY)    \
    X(WIRE_FAILED_PRECONDITION, 9, MCP_ENOTSUP) \
    X(WIRE_ABORTED, 10, MCP_EUNAVAIL)           \
    X(WIRE_OUT_OF_RANGE, 11, MCP_ERANGE)        \
    X(WIRE_UNIMPLEMENTED, 12, MCP_ENOTSUP)      \
    X(WIRE_INTERNAL, 13, MCP_EDEVICE)           \
    X(WIRE_UNAVAILABLE, 14, MCP_EUNAVAIL)       \
    X(WIRE_DATA_LOSS, 15, MCP_ECORRUPT)         \
    X(WIRE_UNAUTHENTICATED, 16, MCP_EDENIED)

enum wire_status_code {
#define X(name, value, code) name = (value),
    WIRE_STATUSES(X)
#undef X
};

enum { WIRE_STATUS_TEXT_BYTES = 512 };

/* How a call ended. */
struct wire_status {
    int      code;           /* enum wire_status_code */
    uint32_t retry_after_ms; /* trailer of RESOURCE_EXHAUSTED and UNAVAILABLE; 0 = not said */
    char     text[WIRE_STATUS_TEXT_BYTES]; /* one sentence; "" for OK */
};

const char *wire_status_name(int code); /* "RESOURCE_EXHAUSTED" */

/* status -> MCP_E* with its sentence; and an MCP_E* with its sentence -> status. */
int                wire_status_fail(const struct wire_status *status, mcp_error *err);
struct wire_status wire_status_of(int code, const mcp_error *err);

#endif
