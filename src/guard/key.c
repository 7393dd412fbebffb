/* guard/key.c - see key.h.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/key.h"

#include "base/fail.h"

#include <assert.h>
#include <openssl/bio.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

enum { HALF = GUARD_SIGNATURE_BYTES / 2, DER_SIGNATURE_BYTES = 80 /* a P-256 one has <= 72 */ };

void guard_hex(char *text, const uint8_t *bytes, size_t count)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < count; i++) {
        *text++ = digits[bytes[i] >> 4];
        *text++ = digits[bytes[i] & 15];
    }
    *text = '\0';
}

int guard_openssl_fail(mcp_error *err, int code, const char *what)
{
    unsigned long last = ERR_peek_last_error();
    const char   *reason = ERR_reason_error_string(last);
    int           rc;

    if (ERR_GET_REASON(last) == ERR_R_MALLOC_FAILURE)
        rc = base_fail(err, MCP_ENOMEM, "out of memory for %s", what);
    else
        rc = base_fail(err, code, "%s: %s", what, reason != NULL ? reason : "OpenSSL failed");
    ERR_clear_error();
    return rc;
}

int guard_key_new(EVP_PKEY **out, enum guard_curve curve, mcp_error *err)
{
    *out = curve == GUARD_P256 ? EVP_EC_gen("P-256") : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    return *out != NULL ? MCP_OK : guard_openssl_fail(err, MCP_EIO, "making a key");
}

/* ---- PEM ---------------------------------------------------------------------------- */

int guard_bio_take(BIO *bio, struct guard_bytes *bytes, mcp_error *err)
{
    char *data = NULL;
    long  count = BIO_get_mem_data(bio, &data);

    *bytes = (struct guard_bytes){ 0 };
    bytes->data = malloc((size_t)count + 1);
    if (bytes->data == NULL)
        return base_fail(err, MCP_ENOMEM, "out of memory for %ld bytes", count);
    memcpy(bytes->data, data, (size_t)count);
    bytes->data[count] = '\0';
    bytes->count = (size_t)count;
    return MCP_OK;
}

static int write_pem(const EVP_PKEY *key, bool private, struct guard_bytes *pem, mcp_error *err)
{
    BIO *bio = BIO_new(BIO_s_mem()); /* wiped by BIO_free */
    int  rc;

    *pem = (struct guard_bytes){ 0 };
    if (bio == NULL)
        rc = guard_openssl_fail(err, MCP_ENOMEM, "writing a key");
    else if (private ? PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1
                     : PEM_write_bio_PUBKEY(bio, key) != 1)
        rc = guard_openssl_fail(err, MCP_EIO, "writing a key");
    else
        rc = guard_bio_take(bio, pem, err);
    BIO_free(bio);
    return rc;
}

int guard_key_private_pem(const EVP_PKEY *key, struct guard_bytes *pem, mcp_error *err)
{
    return write_pem(key, true, pem, err);
}

int guard_key_public_pem(const EVP_PKEY *key, struct guard_bytes *pem, mcp_error *err)
{
    return write_pem(key, false, pem, err);
}

/* OpenSSL would ask on the terminal. */
static int no_password(char *password, int size, int writing, void *ctx)
{
    (void)password;
    (void)size;
    (void)writing;
    (void)ctx;
    return -1;
}

static EVP_PKEY *read_one(BIO *bio, bool private)
{
    return private ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL)
                   : PEM_read_bio_PUBKEY(bio, NULL, no_password, NULL);
}

static int read_pem(EVP_PKEY **out, const struct guard_bytes *pem, bool private, const char *name,
                    mcp_error *err)
{
    const char *kind = private ? "private" : "public";
    EVP_PKEY   *key = NULL, *second = NULL;
    BIO        *bio = BIO_new_mem_buf(pem->data, (int)pem->count);
    int         rc = MCP_OK;

    *out = NULL;
    if (bio == NULL)
        return guard_openssl_fail(err, MCP_ENOMEM, name);
    key = read_one(bio, private);
    if (key == NULL) {
        rc = base_fail(err, MCP_EFORMAT, "%s holds no %s key in PEM%s", name, kind,
                       private ? " without a password" : "");
        goto out;
    }
    second = read_one(bio, private);
    if (second != NULL)
        rc = base_fail(err, MCP_EFORMAT, "%s holds more than one %s key", name, kind);
    else if (guard_key_algorithm(key) == NULL)
        rc = base_fail(err, MCP_EFORMAT, "%s holds a key of another kind than Ed25519 and P-256",
                       name);
    if (rc == MCP_OK) {
        *out = key;
        key = NULL;
    }
out:
    ERR_clear_error(); /* "no second key" is one of OpenSSL's errors */
    EVP_PKEY_free(second);
    EVP_PKEY_free(key);
    BIO_free(bio);
    return rc;
}

int guard_key_read_private(EVP_PKEY **out, const struct guard_bytes *pem, const char *name,
                           mcp_error *err)
{
    return read_pem(out, pem, true, name, err);
}

int guard_key_read_public(EVP_PKEY **out, const struct guard_bytes *pem, const char *name,
                          mcp_error *err)
{
    return read_pem(out, pem, false, name, err);
}

int guard_key_id(const EVP_PKEY *key, char hex[GUARD_HEX_BYTES], mcp_error *err)
{
    unsigned char *der = NULL;
    uint8_t        digest[EVP_MAX_MD_SIZE];
    int            bytes = i2d_PUBKEY(key, &der);
    int            rc = MCP_OK;

    if (bytes <= 0 || EVP_Digest(der, (size_t)bytes, digest, NULL, EVP_sha256(), NULL) != 1)
        rc = guard_openssl_fail(err, MCP_EIO, "a key's id");
    else
        guard_hex(hex, digest, 32);
    OPENSSL_free(der);
    return rc;
}

/* ---- signatures --------------------------------------------------------------------- */

const char *guard_key_algorithm(const EVP_PKEY *key)
{
    char group[32] = "";

    if (EVP_PKEY_is_a(key, "ED25519"))
        return "EdDSA";
    if (EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) == 1 &&
        strcmp(group, "prime256v1") == 0)
        return "ES256";
    return NULL;
}

/* NULL is Ed25519's digest: it hashes by itself. */
static const EVP_MD *digest_of(const EVP_PKEY *key)
{
    return EVP_PKEY_is_a(key, "ED25519") ? NULL : EVP_sha256();
}

/* OpenSSL spells an ECDSA signature as DER, JWS as two numbers of 32 bytes. */
static int raw_from_der(uint8_t raw[GUARD_SIGNATURE_BYTES], const uint8_t *der, size_t bytes)
{
    ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &der, (long)bytes);
    bool       good = pair != NULL && BN_bn2binpad(ECDSA_SIG_get0_r(pair), raw, HALF) == HALF &&
                BN_bn2binpad(ECDSA_SIG_get0_s(pair), raw + HALF, HALF) == HALF;

    ECDSA_SIG_free(pair);
    return good ? MCP_OK : MCP_EIO;
}

/* 0 when memory is short. */
static size_t der_from_raw(uint8_t       der[DER_SIGNATURE_BYTES],
                           const uint8_t raw[GUARD_SIGNATURE_BYTES])
{
    ECDSA_SIG *pair = ECDSA_SIG_new();
    BIGNUM    *r = BN_bin2bn(raw, HALF, NULL), *s = BN_bin2bn(raw + HALF, HALF, NULL);
    int        bytes = -1;

    if (pair != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(pair, r, s) == 1) {
        r = s = NULL; /* the pair's */
        bytes = i2d_ECDSA_SIG(pair, &der);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(pair);
    return bytes > 0 ? (size_t)bytes : 0;
}

int guard_key_sign(EVP_PKEY *key, const void *bytes, size_t count,
                   uint8_t signature[GUARD_SIGNATURE_BYTES], mcp_error *err)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t     made[DER_SIGNATURE_BYTES];
    size_t      made_bytes = sizeof(made);
    int         rc = MCP_OK;

    assert(guard_key_algorithm(key) != NULL);
    if (ctx == NULL || EVP_DigestSignInit(ctx, NULL, digest_of(key), NULL, key) != 1 ||
        EVP_DigestSign(ctx, made, &made_bytes, bytes, count) != 1)
        rc = guard_openssl_fail(err, MCP_EIO, "signing");
    else if (digest_of(key) == NULL)
        memcpy(signature, made, GUARD_SIGNATURE_BYTES);
    else if (raw_from_der(signature, made, made_bytes) < 0)
        rc = guard_openssl_fail(err, MCP_EIO, "signing");
    EVP_MD_CTX_free(ctx);
    return rc;
}

bool guard_key_verify(EVP_PKEY *key, const void *bytes, size_t count,
                      const uint8_t signature[GUARD_SIGNATURE_BYTES])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t     der[DER_SIGNATURE_BYTES];
    size_t      given_bytes = GUARD_SIGNATURE_BYTES;
    bool        good;

    if (digest_of(key) != NULL) {
        given_bytes = der_from_raw(der, signature);
        signature = der;
    }
    good = ctx != NULL && given_bytes > 0 &&
           EVP_DigestVerifyInit(ctx, NULL, digest_of(key), NULL, key) == 1 &&
           EVP_DigestVerify(ctx, signature, given_bytes, bytes, count) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error(); /* a wrong signature is no error of ours */
    return good;
}
