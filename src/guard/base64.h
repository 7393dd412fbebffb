/* guard/base64.h - base64url without padding (RFC 4648 section 5).
 *
 * Decoding is strict, so that a token has one spelling only: no padding, no blanks, and the
 * bits of the last character that belong to no byte must be zero.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_BASE64_H
#define GUARD_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Characters for so many bytes, without a terminator; and room for what they decode to. */
static inline size_t guard_base64_chars(size_t bytes)
{
    return bytes / 3 * 4 + (bytes % 3 == 0 ? 0 : bytes % 3 + 1);
}

static inline size_t guard_base64_bytes(size_t chars)
{
    return chars / 4 * 3 + (chars % 4 == 0 ? 0 : chars % 4 - 1);
}

/* Writes guard_base64_chars(count) characters and a terminator. */
void guard_base64_encode(char *text, const uint8_t *bytes, size_t count);

/* Writes guard_base64_bytes(chars) bytes.  False when `text` is not canonical; `bytes` then
 * holds nothing of use. */
bool guard_base64_decode(uint8_t *bytes, const char *text, size_t chars);

#endif
