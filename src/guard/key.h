/* guard/key.h - key pairs, their PEM files, and signatures as JWS spells them.
 *
 * P-256 for certificates: what TLS 1.3 of every library accepts (BoringSSL, and with it grpcio
 * and Envoy, refuses Ed25519 certificates unless told).  Ed25519 for tokens.
 *
 * No function of this folder leaves an entry in OpenSSL's error queue: TLS on the same thread
 * would take it for its own.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_KEY_H
#define GUARD_KEY_H

#include "guard/folder.h"

#include <openssl/evp.h>
#include <stdbool.h>

enum {
    GUARD_HEX_BYTES = 65,       /* a SHA-256 in hex, and a terminator */
    GUARD_SIGNATURE_BYTES = 64, /* EdDSA (RFC 8037) and ES256 (RFC 7518: r, s) alike */
};

/* "00ff..": 2 * count characters and a terminator. */
void guard_hex(char *text, const uint8_t *bytes, size_t count);

/* `what` failed in OpenSSL: MCP_ENOMEM when that was the reason, else `code`.  Empties the
 * error queue. */
int guard_openssl_fail(mcp_error *err, int code, const char *what);

enum guard_curve { GUARD_P256, GUARD_ED25519 };

int guard_key_new(EVP_PKEY **out, enum guard_curve curve, mcp_error *err);

/* Private: PKCS#8, not encrypted.  Public: SubjectPublicKeyInfo. */
int guard_key_private_pem(const EVP_PKEY *key, struct guard_bytes *pem, mcp_error *err);
int guard_key_public_pem(const EVP_PKEY *key, struct guard_bytes *pem, mcp_error *err);

/* Exactly one key of a kind that we use, from a file called `name` in the sentence.
 *   MCP_EFORMAT  something else */
int guard_key_read_private(EVP_PKEY **out, const struct guard_bytes *pem, const char *name,
                           mcp_error *err);
int guard_key_read_public(EVP_PKEY **out, const struct guard_bytes *pem, const char *name,
                          mcp_error *err);

/* What an OpenSSL writer left in a memory BIO. */
int guard_bio_take(BIO *bio, struct guard_bytes *bytes, mcp_error *err);

/* SHA-256 of the SubjectPublicKeyInfo, in hex. */
int guard_key_id(const EVP_PKEY *key, char hex[GUARD_HEX_BYTES], mcp_error *err);

/* "EdDSA", "ES256"; NULL for a key that signs neither. */
const char *guard_key_algorithm(const EVP_PKEY *key);

int guard_key_sign(EVP_PKEY *key, const void *bytes, size_t count,
                   uint8_t signature[GUARD_SIGNATURE_BYTES], mcp_error *err);

/* Whether it is this key's signature of these bytes, by the one algorithm that the key has. */
bool guard_key_verify(EVP_PKEY *key, const void *bytes, size_t count,
                      const uint8_t signature[GUARD_SIGNATURE_BYTES]);

#endif
