/* base/sha256.c - see sha256.h.
 *
 * SPDX-License-Identifier: MIT */
#include "base/sha256.h"

#include "base/fail.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

struct base_sha256 {
    EVP_MD_CTX *ctx;
    int         failed;
};

struct base_sha256 *base_sha256_new(void)
{
    struct base_sha256 *h = calloc(1, sizeof(*h));

    if (h == NULL)
        return NULL;
    h->ctx = EVP_MD_CTX_new();
    h->failed = h->ctx == NULL || EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1;
    return h;
}

void base_sha256_add(struct base_sha256 *h, const void *bytes, size_t count)
{
    if (h == NULL || h->failed || count == 0)
        return;
    h->failed = EVP_DigestUpdate(h->ctx, bytes, count) != 1;
}

void base_sha256_add_u64(struct base_sha256 *h, uint64_t value)
{
    uint8_t bytes[8];

    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    base_sha256_add(h, bytes, sizeof(bytes));
}

void base_sha256_add_f32(struct base_sha256 *h, float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    base_sha256_add_u64(h, bits);
}

void base_sha256_add_string(struct base_sha256 *h, const char *text, size_t bytes)
{
    base_sha256_add_u64(h, bytes);
    base_sha256_add(h, text, bytes);
}

int base_sha256_finish(struct base_sha256 *h, uint8_t out[BASE_SHA256_BYTES], mcp_error *err)
{
    unsigned length = 0;
    int      rc = MCP_OK;

    if (h == NULL)
        return base_fail(err, MCP_ENOMEM, "SHA-256 state");
    if (h->failed || EVP_DigestFinal_ex(h->ctx, out, &length) != 1 || length != BASE_SHA256_BYTES)
        rc = base_fail(err, MCP_ENOMEM, "SHA-256 failed in the crypto library");
    EVP_MD_CTX_free(h->ctx);
    free(h);
    return rc;
}
