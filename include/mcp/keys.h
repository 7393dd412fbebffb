/* mcp/keys.h - identities: a certificate authority of one's own, certificates, tokens.
 *
 * A keys folder is all that a machine needs to take part in a cluster.  mcp_keys_init() makes
 * a complete one; what another machine needs is put into a folder of its own by
 * mcp_keys_issue().  Private keys are files of mode 0600 in a folder of mode 0700; a folder
 * that others can read is refused.
 *
 *     ca.pem ca.key                 the authority (ca.key only where certificates are made)
 *     worker.pem worker.key         one pair a role: worker, client, admin
 *     client.pem client.key         admin.pem admin.key
 *     token.pub token.key           Ed25519: verifies / signs tokens
 *     client.token                  optional: a token that this machine's agent presents
 *     revoked.json                  certificates (serial) and tokens (jti) no longer good
 *
 * Threads: any; calls on the same folder from several processes are serialised by a lock file.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MCP_KEYS_H
#define MCP_KEYS_H

#include <mcp/error.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MCP_KEYS_TEXT_BYTES = 4096 };

/* MCP_KEYS, else $XDG_CONFIG_HOME/mcp/keys, else ~/.config/mcp/keys, into `path`.
 *   MCP_ENOTFOUND  none of the variables is set */
MCP_API int mcp_keys_folder(char *path, size_t cap, mcp_error *err);

/* Make a new authority and one certificate a role in `folder`, which is created.  Names that
 * the worker's certificate is good for: `hosts` (DNS names or addresses, comma separated), plus
 * localhost, 127.0.0.1, ::1 and this machine's name.  All or nothing.
 *   MCP_EINVAL  the folder holds keys already (they are never overwritten)
 *   MCP_EIO     cannot be written, or its permissions let others in */
MCP_API int mcp_keys_init(const char *folder, const char *hosts, mcp_error *err);

typedef enum { MCP_ROLE_WORKER = 0, MCP_ROLE_CLIENT = 1, MCP_ROLE_ADMIN = 2 } mcp_role;

/* Make a certificate for `name` (1 to 64 of a-z A-Z 0-9 . _ -) and put it, with ca.pem and
 * token.pub, into `target`, a new folder to be carried to the other machine.  hosts as in
 * mcp_keys_init(), for workers; NULL = `name`. */
MCP_API int mcp_keys_issue(const char *folder, mcp_role role, const char *name, const char *hosts,
                           const char *target, mcp_error *err);

typedef struct {
    uint32_t    struct_size;
    const char *subject; /* who: shown in logs, counted for rates and reservations; required */
    const char *model;   /* hex of a model fingerprint, or NULL = any */
    uint32_t    first;   /* layers [first, last) that may be used; last 0 = all */
    uint32_t    last;
    uint32_t    tokens_per_minute; /* 0 = no limit of its own */
    const char *priority;          /* highest QoS class allowed: "batch", "normal", "realtime" */
    const char
        *scope; /* blank separated: "infer" "generate" "state" "admin"; NULL = "infer generate" */
    const char *audience;    /* the worker's certificate name, or NULL = any of this authority */
    int64_t     expires_s;   /* from now; at most 30 days */
    const char *certificate; /* PEM file that the token is bound to; NULL = folder's client.pem */
} mcp_token_opts;

#define MCP_TOKEN_OPTS_INIT                                                                  \
    {                                                                                        \
        .struct_size = sizeof(mcp_token_opts), .priority = "normal", .expires_s = 24 * 3600, \
    }

/* Sign a token (JWT, EdDSA) bound to a client certificate: stolen by itself it is worth
 * nothing.  text is terminated. */
MCP_API int mcp_keys_token(const char *folder, const mcp_token_opts *opts, char *text, size_t cap,
                           mcp_error *err);

/* Take back: a PEM file's certificate, a token (or its jti), or a name (all certificates that
 * this folder's authority issued to it).  Workers that watch the folder apply it within a
 * second; *count = how many identities were added. */
MCP_API int mcp_keys_revoke(const char *folder, const char *what, uint32_t *count, mcp_error *err);

/* What the folder holds, as JSON (names, roles, serials, expiry, fingerprints); to be freed
 * with free().  Never a private key. */
MCP_API int mcp_keys_describe(const char *folder, char **json, mcp_error *err);

/* A line that carries one client's whole folder and a worker's address: pasted on the user's
 * machine it is all the configuration needed.  It holds a private key: treat it as one.
 * join writes the folder `target` (new, or holding the same authority's files) and returns the
 * worker's address in `endpoint`. */
MCP_API int mcp_keys_invite(const char *folder, const char *name, const char *endpoint, char **line,
                            mcp_error *err);
MCP_API int mcp_keys_join(const char *line, const char *target, char *endpoint, size_t cap,
                          mcp_error *err);

#ifdef __cplusplus
}
#endif
#endif
