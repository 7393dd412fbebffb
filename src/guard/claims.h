/* guard/claims.h - words and bounds of a token's claims, for those who read and write them.
 *
 *     iss, sub, aud, iat, nbf, exp, jti   RFC 9068
 *     cnf      { "x5t#S256": ... }        RFC 8705: SHA-256 of the client certificate's DER
 *     scope    "infer generate"           words of guard_scope_names; others grant nothing here
 *     model    "9f86.."                   hex of a model fingerprint; absent = any
 *     layers   [ first, last ]            absent = all
 *     rate     1000                       tokens a minute; absent = no limit
 *     priority "normal"                   highest class; absent = "batch"
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_CLAIMS_H
#define GUARD_CLAIMS_H

#include "guard/token.h"

#include <stdbool.h>

enum {
    GUARD_LIFETIME_S = 30 * 24 * 3600,
    GUARD_LAYERS_MAX = 1 << 20, /* arbitrary; the largest models have a few hundred */
    GUARD_AUDIENCES_MAX = 16,
    GUARD_SCOPE_BYTES = 256,
    GUARD_MODEL_BYTES = 32,
    GUARD_PRIORITIES = 3,
    GUARD_SCOPES = 4,
};

/* Lower to higher, as enum guard_priority. */
extern const char *const guard_priority_names[GUARD_PRIORITIES];

/* Bit i of enum guard_scope. */
extern const char *const guard_scope_names[GUARD_SCOPES];

/* Words with one blank between them (RFC 6749 section 3.3).  Adds the bits of those that are
 * known and counts the others.  False when it is spelled otherwise or too long. */
bool guard_scope_parse(const char *text, uint32_t *scopes, uint32_t *unknown);

/* -1 for a word that is none. */
int guard_priority_parse(const char *text);

/* 64 lower-case hex digits. */
bool guard_model_parse(const char *text, uint8_t model[GUARD_MODEL_BYTES]);

/* 1 to GUARD_SUBJECT_BYTES - 1 bytes of UTF-8 without control characters: it is written into
 * logs. */
bool guard_is_subject(const char *text);

#endif
