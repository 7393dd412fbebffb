/* guard/jws.h - compact JWS (RFC 7515): the envelope of a token.
 *
 * Opening checks, in this order: size, three segments, header, key, signature; only then is
 * the payload read.  Every refusal is MCP_EDENIED with a sentence that begins "token refused:".
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_JWS_H
#define GUARD_JWS_H

#include "guard/keyring.h"

/* Refuse a token; the rule follows as a printf format and its values. */
#define guard_refuse(err, ...) base_fail(err, MCP_EDENIED, "token refused: " __VA_ARGS__)

/* The payload of a token that a key of the ring signed, to be given back with json_decref(). */
int guard_jws_open(json_t **payload, const struct guard_keyring *ring, const char *token,
                   size_t bytes, mcp_error *err);

/* Sign `payload` with a private key whose public half has this id.
 *   MCP_ERANGE  longer than cap or GUARD_TOKEN_BYTES */
int guard_jws_make(char *token, size_t cap, const json_t *payload, EVP_PKEY *key, const char *id,
                   mcp_error *err);

#endif
