/* api/keys.c - mcp/keys.h: checks arguments, then calls src/guard.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/keys.h"

#include "api/opts.h"
#include "base/fail.h"

#include <stdio.h>
#include <stdlib.h>

int mcp_keys_folder(char *path, size_t cap, mcp_error *err)
{
    const char *own = getenv("MCP_KEYS"), *config = getenv("XDG_CONFIG_HOME");
    const char *home = getenv("HOME");
    int         bytes;

    if (path == NULL || cap == 0)
        return base_fail(err, MCP_EINVAL, "mcp_keys_folder: path is NULL or cap is 0");
    if (own != NULL && own[0] != '\0')
        bytes = snprintf(path, cap, "%s", own);
    else if (config != NULL && config[0] == '/') /* a relative one is to be ignored (XDG) */
        bytes = snprintf(path, cap, "%s/mcp/keys", config);
    else if (home != NULL && home[0] != '\0')
        bytes = snprintf(path, cap, "%s/.config/mcp/keys", home);
    else
        return base_fail(err, MCP_ENOTFOUND,
                         "no keys folder: none of MCP_KEYS, XDG_CONFIG_HOME and HOME is set");
    if (bytes < 0 || (size_t)bytes >= cap)
        return base_fail(err, MCP_ERANGE, "the keys folder's path has %d bytes, room is for %zu",
                         bytes, cap - 1);
    return MCP_OK;
}

int mcp_keys_init(const char *folder, const char *hosts, mcp_error *err)
{
    if (folder == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_keys_init: folder is NULL");
    return guard_keys_init(folder, hosts, err);
}

int mcp_keys_issue(const char *folder, mcp_role role, const char *name, const char *hosts,
                   const char *target, mcp_error *err)
{
    if (folder == NULL || name == NULL || target == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_keys_issue: folder, name or target is NULL");
    if ((unsigned)role > MCP_ROLE_ADMIN)
        return base_fail(err, MCP_EINVAL, "mcp_keys_issue: there is no role %d", (int)role);
    return guard_keys_issue(folder, role, name, hosts, target, err);
}

int mcp_keys_token(const char *folder, const mcp_token_opts *opts, char *text, size_t cap,
                   mcp_error *err)
{
    mcp_token_opts own = MCP_TOKEN_OPTS_INIT;
    int            rc;

    if (folder == NULL || opts == NULL || text == NULL || cap == 0)
        return base_fail(err, MCP_EINVAL,
                         "mcp_keys_token: folder, opts or text is NULL, or cap is 0");
    rc = api_take_opts(&own, sizeof(own), opts, "mcp_token_opts", err);
    if (rc < 0)
        return rc;
    if (own.subject == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_token_opts.subject is NULL: say whom it is for");
    return guard_keys_token(folder, &own, text, cap, err);
}

int mcp_keys_revoke(const char *folder, const char *what, uint32_t *count, mcp_error *err)
{
    uint32_t own;

    if (folder == NULL || what == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_keys_revoke: folder or what is NULL");
    return guard_keys_revoke(folder, what, count != NULL ? count : &own, err);
}

int mcp_keys_describe(const char *folder, char **json, mcp_error *err)
{
    if (json == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_keys_describe: json is NULL");
    *json = NULL;
    if (folder == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_keys_describe: folder is NULL");
    return guard_keys_describe(folder, json, err);
}

int mcp_keys_invite(const char *folder, const char *name, const char *endpoint, char **line,
                    mcp_error *err)
{
    if (line == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_keys_invite: line is NULL");
    *line = NULL;
    if (folder == NULL || name == NULL || endpoint == NULL)
        return base_fail(err, MCP_EINVAL, "mcp_keys_invite: folder, name or endpoint is NULL");
    return guard_keys_invite(folder, name, endpoint, line, err);
}

int mcp_keys_join(const char *line, const char *target, char *endpoint, size_t cap, mcp_error *err)
{
    if (line == NULL || target == NULL || endpoint == NULL || cap == 0)
        return base_fail(err, MCP_EINVAL,
                         "mcp_keys_join: line, target or endpoint is NULL, or cap is 0");
    return guard_keys_join(line, target, endpoint, cap, err);
}
