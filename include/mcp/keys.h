/* mcp/keys.h - identities: a certificate authority of one's own, certificates, tokens.
 *
 * A keys folder is all that a machine needs to take part in a cluster.  mcp_keys_init() makes
 * a complete one; what another machine needs is put into a folder of its own by
 * mcp_keys_issue().  Private keys are files of mode 0600 in a folder of mode 0700; a folder
 * that others can read is refused, and so is a symbolic link in place of a file.
 *
 *     ca.pem ca.key                 the authority (ca.key only where certificates are made)
 *     worker.pem worker.key         one pair a role: worker, client, admin
 *     client.pem client.key         admin.pem admin.key
 *     token.pub token.key           Ed25519: verifies / signs tokens
 *     token-*.pub                   optional: further keys that verify, for rotation
 *     client.token                  optional: a token that this machine's agent presents
 *     revoked.json                  certificates (serial) and tokens (jti) no longer good
 *     issued.json                   where ca.key is: whom it certified
 *     workers                       optional: HOST:PORT of workers to use, one a line
 *     lock                          empty; held while files change
 *
 * The PEM files are ordinary ones: openssl reads them, and keys that it makes (P-256 for
 * certificates, Ed25519 or P-256 for tokens) can be put in their place.
 *
 * Threads: any; calls on the same folder from several processes are serialised by the lock
 * file.  A process that holds it for ten seconds makes the others fail with MCP_EBUSY.
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

enum { MCP_KEYS_TEXT_BYTES = 4096 }; /* more than any token that is made here has */

/* MCP_KEYS, else $XDG_CONFIG_HOME/mcp/keys, else ~/.config/mcp/keys, into `path`.
 *   MCP_ENOTFOUND  none of the variables is set */
MCP_API int mcp_keys_folder(char *path, size_t cap, mcp_error *err);

/* Make a new authority and one certificate a role, called like the role, in `folder`, which is
 * created (or exists and is empty).  Names that the worker's certificate is good for: `hosts`
 * (DNS names or addresses, comma separated; may be NULL), plus localhost, 127.0.0.1, ::1 and
 * this machine's name.  The authority is good for ten years, what it issues for one.  All or
 * nothing, also when two processes make the same folder at once.
 *   MCP_EINVAL  the folder holds something already (keys are never overwritten), bad hosts
 *   MCP_EIO     cannot be written, or its permissions let others in */
MCP_API int mcp_keys_init(const char *folder, const char *hosts, mcp_error *err);

typedef enum { MCP_ROLE_WORKER = 0, MCP_ROLE_CLIENT = 1, MCP_ROLE_ADMIN = 2 } mcp_role;

/* Make a certificate for `name` (1 to 64 of a-z A-Z 0-9 . _ -) and put it, with ca.pem, the
 * token keys that verify and revoked.json, into `target`, a new folder to be carried to the
 * other machine.  hosts for workers only: NULL = `name`, and always localhost, 127.0.0.1, ::1.
 * A name may be certified again, to renew it.
 *   MCP_ENOTFOUND  folder is none, or has no ca.key
 *   MCP_EINVAL     bad name or hosts, or the target holds something */
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

/* Sign a token (JWT, EdDSA) bound to a client's or admin's certificate: stolen by itself it is
 * worth nothing.  text is terminated; MCP_KEYS_TEXT_BYTES are always enough.
 *   MCP_EINVAL     subject, scope, priority, model or certificate is none
 *   MCP_ERANGE     lifetime or layers outside their limits, or cap is too small
 *   MCP_ENOTFOUND  folder or certificate is not there, or has no token.key
 *   MCP_EDENIED    the folder's own token keys would refuse it: token.pub is another key's */
MCP_API int mcp_keys_token(const char *folder, const mcp_token_opts *opts, char *text, size_t cap,
                           mcp_error *err);

/* Take back: a PEM file's certificate, a token (its text, its file, its jti, "jti:ID" for an id
 * of another form), or a name or serial number (certificates that this folder's authority
 * issued).  Workers that watch the folder apply it within a second, others once revoked.json
 * was copied to theirs; *count = how many identities were added: 0 = all were there already.
 *   MCP_ENOTFOUND  `what` is none of these
 *   MCP_EINVAL     a certificate of another authority, or the authority itself
 *   MCP_EDENIED    a token that no key of the folder signed */
MCP_API int mcp_keys_revoke(const char *folder, const char *what, uint32_t *count, mcp_error *err);

/* What the folder holds, as JSON; to be freed with free().  Never a private key.
 *   authority     name, role, serial, sha256, begins, expires, id (issuer of its tokens), key;
 *                 null without ca.pem
 *   certificates  array: the same, and file, hosts, revoked; key is "ok", "missing",
 *                 "unusable" (permissions, format) or "other" (belongs to another certificate)
 *   token_keys    array: file, id, algorithm
 *   signs_tokens  whether token.key is there
 *   token         the claims of client.token, unchecked; null without
 *   workers       array of "HOST:PORT"
 *   issued        array: serial, name, role, expires, sha256, revoked
 *   revoked       certificates and tokens, as in revoked.json
 * Times are Unix seconds, serial numbers and digests lower-case hex. */
MCP_API int mcp_keys_describe(const char *folder, char **json, mcp_error *err);

/* A line that carries one client's whole folder and a worker's address ("HOST:PORT"): pasted on
 * the user's machine it is all the configuration needed.  It holds a private key: treat it as
 * one.  *line is to be freed with free().
 *
 * join writes the folder `target` (new, or holding the same authority's files, whose
 * client.pem and client.key it then replaces), adds the address to its file `workers` and
 * returns it in `endpoint`, terminated.
 *   MCP_EFORMAT  the line is damaged, too long, or not what invite makes
 *   MCP_ENOTSUP  it was made by a newer mcp
 *   MCP_EINVAL   the target holds another authority's files; or the certificate has expired */
MCP_API int mcp_keys_invite(const char *folder, const char *name, const char *endpoint, char **line,
                            mcp_error *err);
MCP_API int mcp_keys_join(const char *line, const char *target, char *endpoint, size_t cap,
                          mcp_error *err);

#ifdef __cplusplus
}
#endif
#endif
