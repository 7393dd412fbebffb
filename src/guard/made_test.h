/* guard/made_test.h - folders and tokens for the unit tests of guard.
 *
 * Token keys are published ones, so that anybody can check a failing token elsewhere.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_MADE_TEST_H
#define GUARD_MADE_TEST_H

#include "base/unit_test.h"
#include "guard/base64.h"
#include "guard/jws.h"

#include <ftw.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <sys/stat.h>

/* ---- folders ------------------------------------------------------------------------ */

static char made_root[512];

static inline int made_remove_one(const char *path, const struct stat *st, int kind,
                                  struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path);
}

static inline void made_remove(const char *path)
{
    if (path[0] == '/')
        (void)nftw(path, made_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void made_remove_root(void)
{
    made_remove(made_root);
}

/* A path below a folder that goes away with the program; there is nothing yet. */
static inline const char *made_path(const char *name)
{
    static char     paths[64][640];
    static unsigned next;
    char           *path = paths[next++ % 64];

    if (made_root[0] == '\0') {
        snprintf(made_root, sizeof(made_root), "%s", unit_path("made"));
        assert_int_equal(mkdir(made_root, 0700), 0);
        atexit(made_remove_root); /* before unit_test.h's, which was registered earlier */
    }
    snprintf(path, sizeof(paths[0]), "%s/%s", made_root, name);
    return path;
}

/* The same, after removing what an earlier test left there. */
static inline const char *made_fresh(const char *name)
{
    const char *path = made_path(name);

    made_remove(path);
    return path;
}

/* folder/file; lives until 64 others have been asked for. */
static inline const char *made_in(const char *folder, const char *file)
{
    static char    *paths[64];
    static unsigned next;
    char          **path = &paths[next++ % 64], *was = *path;

    assert_true(asprintf(path, "%s/%s", folder, file) > 0);
    free(was); /* `folder` may be an earlier one, but not so early */
    return *path;
}

static inline void made_file(const char *folder, const char *file, mode_t mode, const char *text)
{
    const char *path = made_in(folder, file);

    unit_write(path, text, strlen(text));
    assert_int_equal(chmod(path, mode), 0);
}

/* How many entries a folder has. */
static inline unsigned made_entries(const char *folder)
{
    DIR     *dir = opendir(folder);
    unsigned count = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count - 2;
}

/* ---- keys --------------------------------------------------------------------------- */

/* RFC 8037 appendix A.1 and RFC 7515 appendix A.3.1. */
#define MADE_ED25519_D "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
#define MADE_ED25519_X "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
#define MADE_P256_D    "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
#define MADE_P256_X    "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
#define MADE_P256_Y    "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"

static inline EVP_PKEY *made_ed25519(void)
{
    uint8_t   d[32];
    EVP_PKEY *key;

    assert_true(guard_base64_decode(d, MADE_ED25519_D, 43));
    key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, d, sizeof(d));
    assert_non_null(key);
    return key;
}

static inline EVP_PKEY *made_p256(void)
{
    uint8_t         d[32], point[65] = { 4 };
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    BIGNUM         *number;
    OSSL_PARAM     *params;
    EVP_PKEY_CTX   *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    EVP_PKEY       *key = NULL;

    assert_true(guard_base64_decode(d, MADE_P256_D, 43));
    assert_true(guard_base64_decode(point + 1, MADE_P256_X, 43));
    assert_true(guard_base64_decode(point + 33, MADE_P256_Y, 43));
    number = BN_bin2bn(d, sizeof(d), NULL);
    assert_true(
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0));
    assert_true(OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_PRIV_KEY, number));
    assert_true(
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)));
    params = OSSL_PARAM_BLD_to_param(build);
    assert_int_equal(EVP_PKEY_fromdata_init(ctx), 1);
    assert_int_equal(EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, params), 1);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    BN_free(number);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

/* ---- tokens ------------------------------------------------------------------------- */

#define MADE_AUTHORITY "mcp:c0ffee"

/* A ring with the two keys, and nothing revoked. */
static inline struct guard_keyring *made_ring(void)
{
    struct guard_keyring *ring = calloc(1, sizeof(*ring));
    mcp_error             err;

    assert_non_null(ring);
    atomic_init(&ring->refs, 1);
    strcpy(ring->authority, MADE_AUTHORITY);
    ring->keys[0].key = made_ed25519();
    ring->keys[1].key = made_p256();
    ring->key_count = 2;
    for (size_t i = 0; i < 2; i++) {
        snprintf(ring->keys[i].file, GUARD_KEY_FILE_BYTES, i == 0 ? "token.pub" : "token-2.pub");
        unit_ok(guard_key_id(ring->keys[i].key, ring->keys[i].id, &err), &err);
    }
    return ring;
}

/* base64url of a text, appended at `at`; returns the new end. */
static inline char *made_segment(char *at, const char *text, size_t bytes)
{
    guard_base64_encode(at, (const uint8_t *)text, bytes);
    return at + guard_base64_chars(bytes);
}

/* header.payload.signature of any two texts, whatever they say; to be freed. */
static inline char *made_token(const char *header, const char *payload, EVP_PKEY *key)
{
    uint8_t   signature[GUARD_SIGNATURE_BYTES];
    char     *text = malloc((strlen(header) + strlen(payload)) * 2 + 200);
    char     *end;
    mcp_error err;

    assert_non_null(text);
    end = made_segment(text, header, strlen(header));
    *end++ = '.';
    end = made_segment(end, payload, strlen(payload));
    unit_ok(guard_key_sign(key, text, (size_t)(end - text), signature, &err), &err);
    *end++ = '.';
    made_segment(end, (const char *)signature, sizeof(signature));
    return text;
}

#endif
