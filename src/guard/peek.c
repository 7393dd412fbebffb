/* guard/peek.c - what a token says of itself, for who carries it: unverified.
 *
 * SPDX-License-Identifier: MIT */
#include "base/fail.h"
#include "guard/base64.h"
#include "guard/claims.h"
#include "guard/json.h"

#include <string.h>

int guard_token_scopes(const char *token, uint32_t *scopes, mcp_error *err)
{
    const char *first = strchr(token, '.');
    const char *second = first != NULL ? strchr(first + 1, '.') : NULL;
    size_t      chars = second != NULL ? (size_t)(second - first - 1) : 0;
    uint8_t     bytes[GUARD_TOKEN_BYTES];
    uint32_t    granted = 0, unknown = 0;
    json_t     *claims;
    const char *scope;
    bool        spelled;
    int         rc;

    if (chars == 0 || guard_base64_bytes(chars) > sizeof(bytes) ||
        !guard_base64_decode(bytes, first + 1, chars))
        return base_fail(err, MCP_EFORMAT, "the token is not header.payload.signature");
    rc = guard_json_parse(&claims, (const char *)bytes, guard_base64_bytes(chars),
                          "the token's payload", err);
    if (rc < 0)
        return rc;
    scope = guard_json_text(claims, "scope");
    spelled = scope != NULL && guard_scope_parse(scope, &granted, &unknown);
    json_decref(claims);
    if (!spelled)
        return base_fail(err, MCP_EFORMAT,
                         "the token has no scope, or not words with one blank "
                         "between them");
    *scopes = granted;
    return MCP_OK;
}
