/* guard/token.h - verify a bearer token (JWT) strictly.
 *
 * Compact JWS only.  The algorithm is the configured key's, never the token's own idea; the
 * signature is checked before a claim is read; sizes, depth and duplicates are bounded
 * (RFC 8725, RFC 9068, RFC 8705).  docs/security.md lists what is refused and why.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_TOKEN_H
#define GUARD_TOKEN_H

#include <mcp/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    GUARD_TOKEN_BYTES = 4096, /* longest token accepted */
    GUARD_SUBJECT_BYTES = 128,
    GUARD_JTI_BYTES = 64,
    GUARD_SKEW_S = 60, /* clocks of two machines may differ by so much */
};

enum guard_priority { GUARD_BATCH = 0, GUARD_NORMAL = 1, GUARD_REALTIME = 2 };

enum guard_scope {
    GUARD_INFER = 1,    /* Execute: Forward */
    GUARD_GENERATE = 2, /* Execute: Generate (the worker sees the text) */
    GUARD_STATE = 4,    /* export and import of KV */
    GUARD_ADMIN = 8,
};

/* What a verified token, or a certificate without one, allows. */
struct guard_grant {
    char                subject[GUARD_SUBJECT_BYTES];
    char                jti[GUARD_JTI_BYTES]; /* "" without a token */
    uint32_t            scopes;               /* enum guard_scope bits */
    bool                any_model;
    uint8_t             model[32];         /* fingerprint, unless any_model */
    uint32_t            first, last;       /* layers; last 0 = all */
    uint32_t            tokens_per_minute; /* 0 = no limit */
    enum guard_priority priority;          /* highest allowed */
    int64_t             expires_s;         /* Unix time; 0 = with the certificate */
};

struct guard_keyring; /* verification keys and revocations of a keys folder; immutable */

/* Load ca.pem (whose key is the only issuer), token.pub, its neighbours token-*.pub (rotation:
 * each PEM, Ed25519 or P-256, kid = SHA-256 of its SubjectPublicKeyInfo in hex) and
 * revoked.json.  A folder without ca.pem or token keys gives a ring that refuses every token.
 * Reference counted: a reload makes a new ring, and verifiers on other threads finish with the
 * old.  After a failed reload the old ring is what still holds.
 *   MCP_ENOTFOUND  there is no such folder
 *   MCP_EIO        it, or a file in it, is open to others or cannot be read
 *   MCP_EFORMAT    a key or list is malformed: none is passed over */
int guard_keyring_load(struct guard_keyring **out, const char *folder, mcp_error *err);
struct guard_keyring *guard_keyring_ref(struct guard_keyring *ring);
void                  guard_keyring_unref(struct guard_keyring *ring);

/* Certificate serials (big-endian bytes) taken back. */
bool guard_keyring_cert_revoked(const struct guard_keyring *ring, const uint8_t *serial,
                                size_t bytes);

/* Check `token` as presented by the holder of a certificate with this SHA-256 (DER), at
 * now_s (Unix), for a worker called `audience`: the name in the worker's own certificate.
 * MCP_EINVAL-class failures are all reported as MCP_EDENIED with a sentence that names the
 * rule, never a secret; *grant is then unchanged. */
int guard_token_verify(const struct guard_keyring *ring, const char *token, size_t bytes,
                       const uint8_t cert_sha256[32], const char *audience, int64_t now_s,
                       struct guard_grant *grant, mcp_error *err);

/* The scopes (enum guard_scope) that a token names, for who carries it and would not ask in vain:
 * nothing of it is verified.  MCP_EFORMAT: it is no token, or names none. */
int guard_token_scopes(const char *token, uint32_t *scopes, mcp_error *err);

#endif
