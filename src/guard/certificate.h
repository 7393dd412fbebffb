/* guard/certificate.h - the authority's certificate and those that it issues.
 *
 * X.509 v3, ECDSA P-256 with SHA-256.  Subject: CN = name, OU = role.  A worker's certificate
 * is good for a TLS server under its SAN names only, a client's or admin's for a TLS client
 * only.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_CERTIFICATE_H
#define GUARD_CERTIFICATE_H

#include "guard/key.h"

#include <jansson.h>
#include <mcp/keys.h>
#include <openssl/x509.h>

enum {
    GUARD_NAME_BYTES = 65, /* X.520 allows a CN of 64 */
    GUARD_ROLES = 3,
    GUARD_ROLE_BYTES = 16,          /* "worker", "client", "admin" */
    GUARD_SERIAL_BYTES = 20,        /* RFC 5280 4.1.2.2 */
    GUARD_AUTHORITY_DAYS = 3652,    /* 10 years */
    GUARD_LEAF_DAYS = 365,          /* never longer than the authority */
    GUARD_BACKDATE_S = 3600,        /* the other machine's clock may be behind */
    GUARD_HOSTS_MAX = 64,           /* names in one certificate; arbitrary */
    GUARD_AUTHORITY_BYTES = 4 + 65, /* "mcp:", SHA-256 of the authority's key in hex */
};

/* Index: mcp_role. */
extern const char *const guard_role_names[GUARD_ROLES];

/* What a certificate says. */
struct guard_identity {
    char    name[GUARD_NAME_BYTES];
    char    role[GUARD_ROLE_BYTES];
    uint8_t serial[GUARD_SERIAL_BYTES]; /* big-endian */
    size_t  serial_bytes;
    uint8_t sha256[32]; /* of its DER */
    int64_t begins_s;   /* Unix time */
    int64_t expires_s;
};

/* Names in a SAN: DNS names and addresses. */
struct guard_hosts {
    char   text[GUARD_HOSTS_MAX][256]; /* a DNS name has at most 253 characters */
    size_t count;
};

bool guard_is_dns_name(const char *text);

/* Add the names of a comma separated list, each once.
 *   MCP_EINVAL  not a DNS name or address, or too many */
int guard_hosts_add(struct guard_hosts *hosts, const char *list, mcp_error *err);

int guard_certificate_authority(X509 **out, EVP_PKEY *key, int64_t now_s, mcp_error *err);

/* For `key`'s public half, signed by the authority; hosts only for a worker. */
int guard_certificate_issue(X509 **out, EVP_PKEY *key, mcp_role role, const char *name,
                            const struct guard_hosts *hosts, X509 *authority,
                            EVP_PKEY *authority_key, int64_t now_s, mcp_error *err);

int guard_certificate_pem(X509 *certificate, struct guard_bytes *pem, mcp_error *err);

/* The first certificate of a file called `name` in the sentence.
 *   MCP_EFORMAT  there is none */
int guard_certificate_read(X509 **out, const struct guard_bytes *pem, const char *name,
                           mcp_error *err);

/*   MCP_EFORMAT  no such certificate as we make */
int guard_certificate_identity(X509 *certificate, struct guard_identity *identity, mcp_error *err);

/* Whether the authority's key signed it, or itself: an authority. */
bool guard_certificate_signed_by(X509 *certificate, X509 *authority);
bool guard_certificate_is_authority(X509 *certificate);

/* "mcp:9f86..": issuer of its tokens, and the audience that means any of its workers.  It
 * names the key, so a renewed certificate keeps it. */
int guard_certificate_authority_id(X509 *authority, char id[GUARD_AUTHORITY_BYTES], mcp_error *err);

/* SAN names as an array of strings, for people; NULL when memory is short. */
json_t *guard_certificate_hosts(X509 *certificate);

#endif
