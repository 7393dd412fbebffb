/* guard/keys.h - what include/mcp/keys.h promises, behind its argument checks.
 *
 *     init, issue    keys.c       token   mint.c       invite, join   invite.c
 *     revoke         revoke.c     describe   describe.c
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_KEYS_H
#define GUARD_KEYS_H

#include <mcp/keys.h>

int guard_keys_init(const char *folder, const char *hosts, mcp_error *err);
int guard_keys_issue(const char *folder, mcp_role role, const char *name, const char *hosts,
                     const char *target, mcp_error *err);
int guard_keys_token(const char *folder, const mcp_token_opts *opts, char *text, size_t cap,
                     mcp_error *err);
int guard_keys_revoke(const char *folder, const char *what, uint32_t *count, mcp_error *err);
int guard_keys_describe(const char *folder, char **json, mcp_error *err);
int guard_keys_invite(const char *folder, const char *name, const char *endpoint, char **line,
                      mcp_error *err);
int guard_keys_join(const char *line, const char *target, char *endpoint, size_t cap,
                    mcp_error *err);

#endif
