/* base/sha256.h - SHA-256 (FIPS 180-4) from OpenSSL, as the rest of mcp needs it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include <mcp/error.h>
#include <stddef.h>
#include <stdint.h>

enum { BASE_SHA256_BYTES = 32 };

/* A hash in progress.  Every function may be called after a failed one: the failure
 * sticks and shows in finish(). */
struct base_sha256;

/* NULL when out of memory; the functions below then report MCP_ENOMEM at finish. */
struct base_sha256 *base_sha256_new(void);
void                base_sha256_add(struct base_sha256 *h, const void *bytes, size_t count);

/* Numbers go in little-endian, so that a digest is the same on every machine. */
void base_sha256_add_u64(struct base_sha256 *h, uint64_t value);
void base_sha256_add_f32(struct base_sha256 *h, float value);

/* Length first, then the bytes: "ab","c" and "a","bc" differ. */
void base_sha256_add_string(struct base_sha256 *h, const char *text, size_t bytes);

/* Write the digest and free `h`, also on failure. */
int base_sha256_finish(struct base_sha256 *h, uint8_t out[BASE_SHA256_BYTES], mcp_error *err);

#endif
