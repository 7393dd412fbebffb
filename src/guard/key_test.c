/* guard/key_test.c - key files, and signatures against published vectors.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/key.h"

#include "guard/made_test.h"

#include <openssl/pem.h>
#include <openssl/rsa.h>

/* ---- signatures --------------------------------------------------------------------- */

struct vector {
    const char *signed_text; /* header.payload */
    const char *signature;
};

/* RFC 8037 appendix A.4 */
static const struct vector eddsa = {
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
};

/* RFC 7515 appendix A.3 */
static const struct vector es256 = {
    "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNv"
    "bS9pc19yb290Ijp0cnVlfQ",
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
};

static void check_vector(EVP_PKEY *key, const struct vector *v, const char *algorithm)
{
    uint8_t signature[GUARD_SIGNATURE_BYTES];
    size_t  count = strlen(v->signed_text);
    char    other[200];

    assert_string_equal(guard_key_algorithm(key), algorithm);
    assert_int_equal(strlen(v->signature), guard_base64_chars(sizeof(signature)));
    assert_true(guard_base64_decode(signature, v->signature, strlen(v->signature)));
    assert_true(guard_key_verify(key, v->signed_text, count, signature));

    for (size_t bit = 0; bit < 8 * sizeof(signature); bit++) {
        signature[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(guard_key_verify(key, v->signed_text, count, signature));
        signature[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_false(guard_key_verify(key, v->signed_text, count - 1, signature));
    memcpy(other, v->signed_text, count);
    other[count - 1] ^= 1;
    assert_false(guard_key_verify(key, other, count, signature));
    memset(signature, 0, sizeof(signature));
    assert_false(guard_key_verify(key, v->signed_text, count, signature));
    memset(signature, 0xff, sizeof(signature));
    assert_false(guard_key_verify(key, v->signed_text, count, signature));
    assert_int_equal(ERR_peek_error(), 0);
}

/* Goal:   the vectors of RFC 8037 and RFC 7515 verify, and nothing near them.
 * Method: each bit of the signature turned; other texts; all zeros and all ones. */
static void published_signatures_verify_and_no_others(void **state)
{
    EVP_PKEY *ed = made_ed25519(), *ec = made_p256();

    (void)state;
    check_vector(ed, &eddsa, "EdDSA");
    check_vector(ec, &es256, "ES256");
    EVP_PKEY_free(ed);
    EVP_PKEY_free(ec);
}

/* Goal:   signing gives what the vector says (EdDSA has one signature), or verifies (ES256). */
static void what_is_signed_verifies(void **state)
{
    EVP_PKEY *ed = made_ed25519(), *ec = made_p256();
    uint8_t   signature[GUARD_SIGNATURE_BYTES];
    char      text[100];
    mcp_error err;

    (void)state;
    unit_ok(guard_key_sign(ed, eddsa.signed_text, strlen(eddsa.signed_text), signature, &err),
            &err);
    guard_base64_encode(text, signature, sizeof(signature));
    assert_string_equal(text, eddsa.signature);
    /* r or s has a leading zero in one of 128: the padding must be right too */
    for (int i = 0; i < 400; i++) {
        unit_ok(guard_key_sign(ec, &i, sizeof(i), signature, &err), &err);
        assert_true(guard_key_verify(ec, &i, sizeof(i), signature));
        assert_false(guard_key_verify(ed, &i, sizeof(i), signature));
    }
    EVP_PKEY_free(ed);
    EVP_PKEY_free(ec);
}

/* ---- files -------------------------------------------------------------------------- */

static struct guard_bytes bytes_of(const char *text)
{
    return (struct guard_bytes){ .data = (char *)(uintptr_t)text, .count = strlen(text) };
}

/* Goal:   a key comes back from its PEM files, public from public, private from private, with
 *         the same id.
 * Method: both curves; each file given to the reader of the other is refused. */
static void keys_come_back_from_their_files(void **state)
{
    (void)state;
    for (int curve = GUARD_P256; curve <= GUARD_ED25519; curve++) {
        struct guard_bytes private, public;
        EVP_PKEY *key, *again;
        char      id[GUARD_HEX_BYTES], id_again[GUARD_HEX_BYTES];
        mcp_error err;

        unit_ok(guard_key_new(&key, (enum guard_curve)curve, &err), &err);
        unit_ok(guard_key_private_pem(key, &private, &err), &err);
        unit_ok(guard_key_public_pem(key, &public, &err), &err);
        unit_ok(guard_key_id(key, id, &err), &err);
        assert_non_null(strstr(private.data, "-----BEGIN PRIVATE KEY-----"));
        assert_non_null(strstr(public.data, "-----BEGIN PUBLIC KEY-----"));

        unit_ok(guard_key_read_private(&again, &private, "a", &err), &err);
        assert_int_equal(EVP_PKEY_eq(key, again), 1);
        EVP_PKEY_free(again);
        unit_ok(guard_key_read_public(&again, &public, "a", &err), &err);
        assert_int_equal(EVP_PKEY_eq(key, again), 1);
        unit_ok(guard_key_id(again, id_again, &err), &err);
        assert_string_equal(id, id_again);
        EVP_PKEY_free(again);

        unit_refused(guard_key_read_public(&again, &private, "the file", &err), MCP_EFORMAT, &err,
                     "the file holds no public key");
        assert_null(again);
        unit_refused(guard_key_read_private(&again, &public, "the file", &err), MCP_EFORMAT, &err,
                     "the file holds no private key");
        assert_int_equal(ERR_peek_error(), 0);
        guard_bytes_fini(&private);
        guard_bytes_fini(&public);
        EVP_PKEY_free(key);
    }
}

/* The PEM text of a key of another kind. */
static char *foreign_public(EVP_PKEY *key)
{
    BIO  *bio = BIO_new(BIO_s_mem());
    char *text;
    long  count;

    assert_non_null(key);
    assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
    assert_int_equal(BIO_write(bio, "", 1), 1); /* ends the text */
    count = BIO_get_mem_data(bio, &text);
    text = strndup(text, (size_t)count);
    BIO_free(bio);
    EVP_PKEY_free(key);
    return text;
}

/* Goal:   a key that signs by no algorithm of ours is refused by its file's name. */
static void keys_of_other_kinds_are_refused(void **state)
{
    EVP_PKEY *keys[] = { EVP_RSA_gen(2048), EVP_EC_gen("P-384"), EVP_EC_gen("secp256k1"),
                         EVP_PKEY_Q_keygen(NULL, NULL, "ED448"),
                         EVP_PKEY_Q_keygen(NULL, NULL, "X25519") };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(keys); i++) {
        char              *text = foreign_public(keys[i]);
        struct guard_bytes pem = bytes_of(text);
        EVP_PKEY          *key;
        mcp_error          err;

        unit_refused(guard_key_read_public(&key, &pem, "token-x.pub", &err), MCP_EFORMAT, &err,
                     "token-x.pub holds a key of another kind");
        assert_null(key);
        free(text);
    }
}

/* Goal:   nothing in a file is passed over in silence, and no password is asked for.
 * Method: two keys in one file, an encrypted key, no PEM at all, an empty file. */
static void odd_key_files_are_refused(void **state)
{
    static const char encrypted[] =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
        "MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAg1v3HFoC3nPgICCAAw\n"
        "DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEA==\n"
        "-----END ENCRYPTED PRIVATE KEY-----\n";
    struct guard_bytes pem, twice = { 0 };
    EVP_PKEY          *ed = made_ed25519(), *key;
    mcp_error          err;

    (void)state;
    unit_ok(guard_key_public_pem(ed, &pem, &err), &err);
    assert_true(asprintf(&twice.data, "%s%s", pem.data, pem.data) > 0);
    twice.count = strlen(twice.data);
    unit_refused(guard_key_read_public(&key, &twice, "f", &err), MCP_EFORMAT, &err,
                 "more than one public key");
    assert_null(key);
    guard_bytes_fini(&pem);
    guard_bytes_fini(&twice);
    EVP_PKEY_free(ed);

    pem = bytes_of(encrypted);
    unit_refused(guard_key_read_private(&key, &pem, "f", &err), MCP_EFORMAT, &err, "password");
    pem = bytes_of("token");
    unit_refused(guard_key_read_public(&key, &pem, "f", &err), MCP_EFORMAT, &err, "no public key");
    pem = bytes_of("");
    unit_refused(guard_key_read_public(&key, &pem, "f", &err), MCP_EFORMAT, &err, "no public key");
    assert_int_equal(ERR_peek_error(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_signatures_verify_and_no_others),
        cmocka_unit_test(what_is_signed_verifies),
        cmocka_unit_test(keys_come_back_from_their_files),
        cmocka_unit_test(keys_of_other_kinds_are_refused),
        cmocka_unit_test(odd_key_files_are_refused),
    };

    return cmocka_run_group_tests_name("guard/key", tests, NULL, NULL);
}
