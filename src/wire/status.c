/* wire/status.c - see status.h.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/status.h"

#include "base/fail.h"

#include <stddef.h>
#include <stdio.h>

static const struct {
    const char *name;
    int         code;
} statuses[] = {
#define X(name, value, code) [value] = { #name, code },
    WIRE_STATUSES(X)
#undef X
};

enum { STATUSES = sizeof(statuses) / sizeof(statuses[0]), PREFIX = sizeof("WIRE_") - 1 };

const char *wire_status_name(int code)
{
    return code >= 0 && code < STATUSES ? statuses[code].name + PREFIX : "UNKNOWN";
}

int wire_status_fail(const struct wire_status *status, mcp_error *err)
{
    int code = status->code >= 0 && status->code < STATUSES ? statuses[status->code].code
                                                            : MCP_EFORMAT;

    if (code == MCP_OK)
        return MCP_OK;
    if (status->text[0] == '\0')
        return base_fail(err, code, "%s", wire_status_name(status->code));
    return base_fail(err, code, "%s", status->text);
}

struct wire_status wire_status_of(int code, const mcp_error *err)
{
    struct wire_status status = { .code = WIRE_INTERNAL };

    switch (code) {
    case MCP_OK: status.code = WIRE_OK; return status;
    case MCP_EINVAL:
    case MCP_EFORMAT: status.code = WIRE_INVALID_ARGUMENT; break;
    case MCP_ERANGE: status.code = WIRE_OUT_OF_RANGE; break;
    case MCP_ENOTFOUND: status.code = WIRE_NOT_FOUND; break;
    case MCP_ENOTSUP: status.code = WIRE_FAILED_PRECONDITION; break;
    case MCP_ENOMEM:
    case MCP_EBUSY: status.code = WIRE_RESOURCE_EXHAUSTED; break;
    case MCP_ECORRUPT: status.code = WIRE_DATA_LOSS; break;
    case MCP_ECANCELED: status.code = WIRE_CANCELLED; break;
    case MCP_EDENIED: status.code = WIRE_PERMISSION_DENIED; break;
    case MCP_EUNAVAIL: status.code = WIRE_UNAVAILABLE; break;
    case MCP_ETIMEOUT: status.code = WIRE_DEADLINE_EXCEEDED; break;
    default: break;
    }
    snprintf(status.text, sizeof(status.text), "%s",
             err != NULL && err->text[0] != '\0' ? err->text : mcp_code_text(code));
    return status;
}
