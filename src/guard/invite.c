/* guard/invite.c - one line that carries a client's whole folder; join.c reads it.
 *
 *     mcp1:<base64url of { "endpoint": "HOST:PORT", "ca": PEM, "certificate": PEM,
 *                          "key": PEM, "token": JWT (optional) }>
 *
 * The token is for other programs that write such lines: here the certificate is enough.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/keys.h"

#include "base/fail.h"
#include "guard/authority.h"
#include "guard/base64.h"
#include "guard/endpoint.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char prefix[] = "mcp1:";

static int check_endpoint(const char *endpoint, mcp_error *err)
{
    return guard_is_endpoint(endpoint)
               ? MCP_OK
               : base_fail(err, MCP_EINVAL,
                           "'%.140s' is not the HOST:PORT of a worker, such as gpu-1.lan:7070 or "
                           "[2001:db8::1]:7070",
                           endpoint);
}

static int make_line(char **out, const json_t *content, mcp_error *err)
{
    struct guard_bytes text = { .count = json_dumpb(content, NULL, 0, JSON_COMPACT) };
    char              *line = malloc(sizeof(prefix) + guard_base64_chars(text.count));
    int                rc = MCP_OK;

    text.data = text.count > 0 ? malloc(text.count) : NULL;
    if (text.data == NULL || line == NULL ||
        json_dumpb(content, text.data, text.count, JSON_COMPACT) != text.count) {
        free(line);
        rc = base_fail(err, MCP_ENOMEM, "out of memory for a line");
    } else {
        memcpy(line, prefix, sizeof(prefix));
        guard_base64_encode(line + sizeof(prefix) - 1, (const uint8_t *)text.data, text.count);
        *out = line;
    }
    guard_bytes_fini(&text);
    return rc;
}

int guard_keys_invite(const char *folder, const char *name, const char *endpoint, char **line,
                      mcp_error *err)
{
    struct guard_authority authority = GUARD_AUTHORITY_NONE;
    struct guard_bytes     ca = { 0 };
    struct guard_pair      pair = { 0 };
    json_t                *content = NULL;
    int                    rc = guard_name_check(name, err);

    if (rc == MCP_OK)
        rc = check_endpoint(endpoint, err);
    if (rc == MCP_OK)
        rc = guard_authority_open(&authority, folder, err);
    if (rc == MCP_OK)
        rc = guard_certificate_pem(authority.pair.certificate, &ca, err);
    if (rc == MCP_OK)
        rc = guard_pair_make(&pair, MCP_ROLE_CLIENT, name, NULL, &authority.pair, time(NULL), err);
    if (rc < 0)
        goto out;
    content = json_pack("{s:s, s:s, s:s, s:s}", "endpoint", endpoint, "ca", ca.data, "certificate",
                        pair.certificate_pem.data, "key", pair.key_pem.data);
    rc = content != NULL ? guard_authority_record(&authority, &pair.who, err)
                         : base_fail(err, MCP_ENOMEM, "out of memory for a line");
    if (rc == MCP_OK)
        rc = make_line(line, content, err);
out:
    json_decref(content);
    guard_bytes_fini(&ca);
    guard_pair_fini(&pair);
    guard_authority_close(&authority);
    return rc;
}
