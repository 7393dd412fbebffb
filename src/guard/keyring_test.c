/* guard/keyring_test.c - what a worker loads from its keys folder, and the lists in it.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/keyring.h"

#include "guard/json.h"
#include "guard/lists.h"
#include "guard/made_test.h"

#include <openssl/pem.h>
#include <pthread.h>

/* Two keys of RFC vectors as files. */
static char *pem_of(EVP_PKEY *key)
{
    struct guard_bytes pem;
    mcp_error          err;

    unit_ok(guard_key_public_pem(key, &pem, &err), &err);
    EVP_PKEY_free(key);
    return pem.data;
}

static const char *new_folder(void)
{
    const char *path = made_fresh("keys");
    char       *pem = pem_of(made_ed25519());

    assert_int_equal(mkdir(path, 0700), 0);
    made_file(path, "token.pub", 0644, pem);
    free(pem);
    return path;
}

static struct guard_keyring *loaded(const char *path)
{
    struct guard_keyring *ring;
    mcp_error             err;

    unit_ok(guard_keyring_load(&ring, path, &err), &err);
    assert_int_equal(ERR_peek_error(), 0);
    return ring;
}

static void refused(const char *path, int code, const char *about)
{
    struct guard_keyring *ring = (struct guard_keyring *)1;
    mcp_error             err;

    unit_refused(guard_keyring_load(&ring, path, &err), code, &err, about);
    assert_null(ring);
    assert_int_equal(ERR_peek_error(), 0);
}

/* ---- token keys --------------------------------------------------------------------- */

/* Goal:   the ring holds token.pub and token-*.pub, of both kinds, found by their ids.
 * Method: a folder with both and with files of similar names that hold no keys. */
static void keys_are_found_by_name_and_id(void **state)
{
    static const char *const others[] = { "token-.pub.old", "token-a.pub~", "tokens.pub",
                                          ".token-a.pub",   "token.pub.1",  "token-.pub" };
    const char              *path = new_folder();
    char                    *pem = pem_of(made_p256()), id[GUARD_HEX_BYTES];
    EVP_PKEY                *ed = made_ed25519();
    struct guard_keyring    *ring;

    (void)state;
    made_file(path, "token-2027.pub", 0644, pem);
    for (size_t i = 0; i < UNIT_COUNT(others); i++)
        made_file(path, others[i], 0644, "no key");
    ring = loaded(path);
    assert_int_equal(ring->key_count, 2);
    assert_string_equal(ring->keys[0].file, "token-2027.pub");
    assert_string_equal(guard_key_algorithm(ring->keys[0].key), "ES256");
    assert_string_equal(ring->keys[1].file, "token.pub");
    assert_int_equal(guard_key_id(ed, id, NULL), 0);
    assert_ptr_equal(guard_keyring_find(ring, id), &ring->keys[1]);
    id[63] ^= 1;
    assert_null(guard_keyring_find(ring, id));
    assert_string_equal(ring->authority, ""); /* there is no ca.pem */
    guard_keyring_unref(ring);
    EVP_PKEY_free(ed);
    free(pem);
}

/* Goal:   a key that cannot be used is said, not left out: its absence would show as refused
 *         tokens only.
 * Method: each kind of bad file as the second key. */
static void a_bad_key_file_fails_the_load(void **state)
{
    const char *path = new_folder();
    EVP_PKEY   *rsa = EVP_RSA_gen(2048);
    BIO        *bio = BIO_new(BIO_s_mem());
    char       *text, name[80];
    long        count;

    (void)state;
    assert_int_equal(PEM_write_bio_PUBKEY(bio, rsa), 1);
    assert_int_equal(BIO_write(bio, "", 1), 1); /* ends the text */
    count = BIO_get_mem_data(bio, &text);
    text = strndup(text, (size_t)count);
    made_file(path, "token-x.pub", 0644, text);
    refused(path, MCP_EFORMAT, "token-x.pub holds a key of another kind");
    free(text);
    BIO_free(bio);
    EVP_PKEY_free(rsa);
    made_file(path, "token-x.pub", 0644, "");
    refused(path, MCP_EFORMAT, "token-x.pub holds no public key");
    made_file(path, "token-x.pub", 0666, "");
    refused(path, MCP_EIO, "lets other users change it");
    assert_int_equal(remove(made_in(path, "token-x.pub")), 0);
    assert_int_equal(symlink("token.pub", made_in(path, "token-x.pub")), 0);
    refused(path, MCP_EIO, "symbolic link");
    assert_int_equal(remove(made_in(path, "token-x.pub")), 0);

    text = pem_of(made_ed25519());
    for (int i = 1; i < GUARD_KEYS_MAX; i++) {
        snprintf(name, sizeof(name), "token-%d.pub", i);
        made_file(path, name, 0644, text);
    }
    guard_keyring_unref(loaded(path));
    made_file(path, "token-one-more.pub", 0644, text);
    refused(path, MCP_EFORMAT, "more than 16 token keys");
    assert_int_equal(remove(made_in(path, "token-one-more.pub")), 0);
    assert_int_equal(remove(made_in(path, "token-1.pub")), 0);
    snprintf(name, sizeof(name), "token-%060d.pub", 1);
    made_file(path, name, 0644, text);
    refused(path, MCP_EFORMAT, "at most 63 characters");
    free(text);
}

/* Goal:   folders: none, open to others, empty.
 * Method: an empty one gives a ring that knows nothing. */
static void an_empty_folder_gives_a_ring_that_knows_nothing(void **state)
{
    const char           *path = made_fresh("keys");
    struct guard_keyring *ring;
    uint8_t               serial[20] = { 1 };

    (void)state;
    refused(path, MCP_ENOTFOUND, "there is no keys folder");
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(chmod(path, 0755), 0);
    refused(path, MCP_EIO, "chmod 700");
    assert_int_equal(chmod(path, 0700), 0);
    ring = loaded(path);
    assert_int_equal(ring->key_count, 0);
    assert_false(guard_keyring_cert_revoked(ring, serial, sizeof(serial)));
    assert_false(guard_keyring_cert_revoked(ring, serial, 0));
    assert_false(guard_keyring_token_revoked(ring, ""));
    guard_keyring_unref(ring);
    guard_keyring_unref(NULL);
    assert_null(guard_keyring_ref(NULL));
    made_file(path, "ca.pem", 0644, "no certificate");
    refused(path, MCP_EFORMAT, "ca.pem holds no certificate");
}

/* ---- revocations -------------------------------------------------------------------- */

/* Goal:   exactly what was revoked is revoked.
 * Method: random serials and ids, half of them listed, of all lengths; the list is the oracle.
 *         Leading zeros do not matter. */
static void exactly_what_is_listed_is_revoked(void **state)
{
    enum { COUNT = 1000 };
    static uint8_t        serials[COUNT][GUARD_SERIAL_BYTES];
    static size_t         lengths[COUNT];
    const char           *path = new_folder();
    uint64_t              seed = unit_seed();
    struct guard_folder   folder;
    struct guard_keyring *ring;
    json_t               *list;
    mcp_error             err;
    char                  text[2 * GUARD_SERIAL_BYTES + 1];
    uint8_t               padded[GUARD_SERIAL_BYTES + 2];

    (void)state;
    unit_ok(guard_folder_open(&folder, path, &err), &err);
    unit_ok(guard_revoked_load(&list, &folder, &err), &err);
    for (size_t i = 0; i < COUNT; i++) {
        lengths[i] = 4 + unit_below(&seed, GUARD_SERIAL_BYTES - 3);
        for (size_t b = 0; b < lengths[i]; b++)
            serials[i][b] = (uint8_t)unit_next(&seed);
        serials[i][0] |= 1;
        guard_hex(text, serials[i], lengths[i]);
        if (i % 2 == 0) {
            assert_int_equal(guard_revoked_add_certificate(list, text, "n", 1, &err), 1);
            assert_int_equal(guard_revoked_add_token(list, text, 1, &err), 1);
        }
        assert_int_equal(guard_revoked_has_certificate(list, text), i % 2 == 0);
    }
    guard_hex(text, serials[0], lengths[0]);
    assert_int_equal(guard_revoked_add_certificate(list, text, "n", 1, &err), 0);
    assert_int_equal(guard_revoked_add_token(list, text, 1, &err), 0);
    assert_int_equal(guard_revoked_add_certificate(list, "00000a", "n", 1, &err), 1);
    unit_ok(guard_revoked_save(list, &folder, &err), &err);
    json_decref(list);
    guard_folder_close(&folder);

    ring = loaded(path);
    assert_int_equal(ring->serial_count, COUNT / 2 + 1);
    assert_int_equal(ring->jti_count, COUNT / 2);
    for (size_t i = 0; i < COUNT; i++) {
        bool listed = i % 2 == 0;

        guard_hex(text, serials[i], lengths[i]);
        assert_int_equal(guard_keyring_cert_revoked(ring, serials[i], lengths[i]), listed);
        assert_int_equal(guard_keyring_token_revoked(ring, text), listed);
        assert_false(guard_keyring_cert_revoked(ring, serials[i], lengths[i] - 1));
        memset(padded, 0, sizeof(padded));
        memcpy(padded + 2, serials[i], lengths[i]);
        assert_int_equal(guard_keyring_cert_revoked(ring, padded, lengths[i] + 2), listed);
    }
    assert_true(guard_keyring_cert_revoked(ring, (const uint8_t *)"\x0a", 1));
    memset(padded, 0xff, sizeof(padded));
    assert_false(guard_keyring_cert_revoked(ring, padded, sizeof(padded)));
    guard_keyring_unref(ring);
}

/* Goal:   a list that cannot be read whole fails the load: the caller keeps its old ring, and
 *         nobody comes back in because a file was damaged. */
static void a_damaged_list_fails_the_load(void **state)
{
    static const char *const rows[] = {
        "",
        "[]",
        "{}",
        "{\"certificates\":[]}",
        "{\"certificates\":{},\"tokens\":[]}",
        "{\"certificates\":[{}],\"tokens\":[]}",
        "{\"certificates\":[\"4f\"],\"tokens\":[]}",
        "{\"certificates\":[{\"serial\":4}],\"tokens\":[]}",
        "{\"certificates\":[{\"serial\":\"4F\"}],\"tokens\":[]}",
        "{\"certificates\":[{\"serial\":\"4f4\"}],\"tokens\":[]}",
        "{\"certificates\":[{\"serial\":\"\"}],\"tokens\":[]}",
        "{\"certificates\":[],\"tokens\":[{\"jti\":\"\"}]}",
        "{\"certificates\":[],\"tokens\":[{\"jti\":\"a b\"}]}",
        "{\"certificates\":[],\"certificates\":[],\"tokens\":[]}",
        "{\"certificates\":[],\"tokens\":[]",
        "{\"certificates\":[],\"tokens\":[]} x",
    };
    const char *path = new_folder();

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        made_file(path, "revoked.json", 0644, rows[i]);
        refused(path, MCP_EFORMAT, "revoked.json");
    }
    for (int which = 0; which < 2; which++) {
        char text[256]; /* a serial of 21 bytes; an id of 64 */

        snprintf(text, sizeof(text),
                 which == 0 ? "{\"certificates\":[{\"serial\":\"%042d\"}],\"tokens\":[]}"
                            : "{\"certificates\":[],\"tokens\":[{\"jti\":\"%064d\"}]}",
                 1);
        made_file(path, "revoked.json", 0644, text);
        refused(path, MCP_EFORMAT, "revoked.json");
    }
    made_file(path, "revoked.json", 0644, "{\"certificates\":[{\"serial\":\"00\"}],\"tokens\":[]}");
    guard_keyring_unref(loaded(path));
    made_file(path, "revoked.json", 0666, "{\"certificates\":[],\"tokens\":[]}");
    refused(path, MCP_EIO, "lets other users change it");
}

/* ---- threads ------------------------------------------------------------------------ */

static void *use(void *arg)
{
    struct guard_keyring *ring = arg;
    struct guard_grant    grant;

    for (int i = 0; i < 50; i++) {
        assert_int_equal(
            guard_token_verify(ring, "a.b.c", 5, (const uint8_t[32]){ 0 }, "w", 1, &grant, NULL),
            MCP_EDENIED);
        guard_keyring_unref(guard_keyring_ref(ring));
    }
    guard_keyring_unref(ring);
    return NULL;
}

/* Goal:   a ring lives until its last user is done, whichever thread that is. */
static void a_ring_lives_until_its_last_user_is_done(void **state)
{
    struct guard_keyring *ring = loaded(new_folder());
    pthread_t             threads[4];

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use, guard_keyring_ref(ring)), 0);
    guard_keyring_unref(ring);
    for (size_t i = 0; i < UNIT_COUNT(threads); i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_found_by_name_and_id),
        cmocka_unit_test(a_bad_key_file_fails_the_load),
        cmocka_unit_test(an_empty_folder_gives_a_ring_that_knows_nothing),
        cmocka_unit_test(exactly_what_is_listed_is_revoked),
        cmocka_unit_test(a_damaged_list_fails_the_load),
        cmocka_unit_test(a_ring_lives_until_its_last_user_is_done),
    };

    return cmocka_run_group_tests_name("guard/keyring", tests, NULL, NULL);
}
