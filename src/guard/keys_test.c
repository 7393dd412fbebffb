/* guard/keys_test.c - a cluster's identities from init to revocation, in folders.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/keys.h"

#include "guard/authority.h"
#include "guard/claims.h"
#include "guard/json.h"
#include "guard/keyring.h"
#include "guard/lists.h"
#include "guard/made_test.h"

#include <openssl/x509v3.h>
#include <time.h>

static const char *folder; /* an authority that all tests share */

static int everything_begin(void **state)
{
    mcp_error err;

    (void)state;
    folder = strdup(made_path("authority"));
    unit_ok(guard_keys_init(folder, "gpu.lan", &err), &err);
    return 0;
}

static int everything_end(void **state)
{
    (void)state;
    free((void *)(uintptr_t)folder);
    return 0;
}

static json_t *description(const char *path)
{
    char     *text;
    json_t   *object;
    mcp_error err;

    unit_ok(guard_keys_describe(path, &text, &err), &err);
    if (strstr(text, "PRIVATE") != NULL)
        fail_msg("a description holds a private key");
    object = json_loads(text, 0, NULL);
    assert_non_null(object);
    free(text);
    return object;
}

static X509 *certificate(const char *path, const char *file)
{
    struct guard_folder opened;
    X509               *x;
    mcp_error           err;

    unit_ok(guard_folder_open(&opened, path, &err), &err);
    unit_ok(guard_folder_certificate(&x, &opened, file, &err), &err);
    guard_folder_close(&opened);
    return x;
}

static struct guard_identity identity(const char *path, const char *file)
{
    X509                 *x = certificate(path, file);
    struct guard_identity who;
    mcp_error             err;

    unit_ok(guard_certificate_identity(x, &who, &err), &err);
    X509_free(x);
    return who;
}

static struct guard_keyring *ring_of(const char *path)
{
    struct guard_keyring *ring;
    mcp_error             err;

    unit_ok(guard_keyring_load(&ring, path, &err), &err);
    return ring;
}

static bool is_revoked(const char *path, const struct guard_identity *who)
{
    struct guard_keyring *ring = ring_of(path);
    bool revoked = guard_keyring_cert_revoked(ring, who->serial, who->serial_bytes);

    guard_keyring_unref(ring);
    return revoked;
}

/* How many of these revocations are new. */
static uint32_t revoked(const char *what)
{
    uint32_t  count = 77;
    mcp_error err;

    unit_ok(guard_keys_revoke(folder, what, &count, &err), &err);
    return count;
}

/* ---- init and issue ----------------------------------------------------------------- */

struct file {
    const char *name;
    mode_t      mode;
};

static void holds_exactly(const char *path, const struct file *files, size_t count)
{
    struct stat st;

    assert_int_equal(lstat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    for (size_t i = 0; i < count; i++) {
        if (lstat(made_in(path, files[i].name), &st) < 0)
            fail_msg("%s is missing", files[i].name);
        assert_int_equal(st.st_mode & 07777, files[i].mode);
        assert_true(S_ISREG(st.st_mode));
    }
    assert_int_equal(made_entries(path), count);
}

/* Goal:   init makes the set that the header lists, with its modes, and never touches it again.
 * Method: the umask is 0; a second init into the same folder, the bytes before and after. */
static void init_makes_a_whole_folder_once(void **state)
{
    static const struct file files[] = {
        { "ca.pem", 0644 },     { "ca.key", 0600 },      { "worker.pem", 0644 },
        { "worker.key", 0600 }, { "client.pem", 0644 },  { "client.key", 0600 },
        { "admin.pem", 0644 },  { "admin.key", 0600 },   { "token.pub", 0644 },
        { "token.key", 0600 },  { "issued.json", 0644 }, { "revoked.json", 0644 },
    };
    const char *path = made_fresh("new");
    mode_t      umask_was = umask(0);
    uint8_t    *before, *after;
    size_t      bytes, bytes_after;
    mcp_error   err;

    (void)state;
    unit_ok(guard_keys_init(path, NULL, &err), &err);
    umask(umask_was);
    holds_exactly(path, files, UNIT_COUNT(files));
    before = unit_read(made_in(path, "ca.key"), &bytes);
    unit_refused(guard_keys_init(path, NULL, &err), MCP_EINVAL, &err, "never overwritten");
    after = unit_read(made_in(path, "ca.key"), &bytes_after);
    assert_int_equal(bytes, bytes_after);
    assert_memory_equal(before, after, bytes);
    holds_exactly(path, files, UNIT_COUNT(files));
    unit_refused(guard_keys_init(made_fresh("bad"), "a b", &err), MCP_EINVAL, &err, "'a b'");
    assert_int_equal(access(made_path("bad"), F_OK), -1);
    free(before);
    free(after);
}

/* Goal:   what init made belongs together: keys to certificates, certificates to the authority,
 *         the worker to this machine and the names given. */
static void what_init_made_belongs_together(void **state)
{
    json_t       *object = description(folder);
    const json_t *list = json_object_get(object, "certificates");
    X509         *ca = certificate(folder, "ca.pem"), *worker = certificate(folder, "worker.pem");
    char          machine[256] = "";

    (void)state;
    assert_int_equal(json_array_size(list), 3);
    for (size_t i = 0; i < 3; i++) {
        const json_t *c = json_array_get(list, i);

        assert_string_equal(guard_json_text(c, "role"), guard_role_names[i]);
        assert_string_equal(guard_json_text(c, "name"), guard_role_names[i]);
        assert_string_equal(guard_json_text(c, "key"), "ok");
        assert_true(json_is_false(json_object_get(c, "revoked")));
    }
    assert_string_equal(guard_json_text(json_object_get(object, "authority"), "key"), "ok");
    assert_true(json_is_true(json_object_get(object, "signs_tokens")));
    assert_true(json_is_null(json_object_get(object, "token")));
    assert_true(guard_certificate_is_authority(ca));
    assert_true(guard_certificate_signed_by(worker, ca));
    assert_int_equal(X509_check_host(worker, "gpu.lan", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(worker, "localhost", 0, 0, NULL), 1);
    assert_int_equal(X509_check_ip_asc(worker, "127.0.0.1", 0), 1);
    assert_int_equal(X509_check_ip_asc(worker, "::1", 0), 1);
    assert_int_equal(gethostname(machine, sizeof(machine) - 1), 0);
    if (guard_is_dns_name(machine))
        assert_int_equal(X509_check_host(worker, machine, 0, 0, NULL), 1);
    X509_free(worker);
    X509_free(ca);
    json_decref(object);
}

/* Goal:   an issued folder holds what its machine needs and no key of anybody else. */
static void an_issued_folder_holds_what_its_machine_needs(void **state)
{
    static const struct file worker[] = {
        { "ca.pem", 0644 },    { "worker.pem", 0644 },   { "worker.key", 0600 },
        { "token.pub", 0644 }, { "revoked.json", 0644 },
    };
    static const struct file client[] = {
        { "ca.pem", 0644 },    { "client.pem", 0644 },   { "client.key", 0600 },
        { "token.pub", 0644 }, { "revoked.json", 0644 },
    };
    struct guard_identity who;
    json_t               *object;
    X509                 *x;
    mcp_error             err;

    (void)state;
    unit_ok(guard_keys_issue(folder, MCP_ROLE_WORKER, "gpu-7", NULL, made_fresh("w"), &err), &err);
    holds_exactly(made_path("w"), worker, UNIT_COUNT(worker));
    x = certificate(made_path("w"), "worker.pem");
    assert_int_equal(X509_check_host(x, "gpu-7", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(x, "localhost", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(x, "gpu.lan", 0, 0, NULL), 0);
    X509_free(x);
    unit_ok(guard_keys_issue(folder, MCP_ROLE_WORKER, "gpu-8", "10.0.0.8,gpu-8.lan",
                             made_fresh("w8"), &err),
            &err);
    x = certificate(made_path("w8"), "worker.pem");
    assert_int_equal(X509_check_ip_asc(x, "10.0.0.8", 0), 1);
    assert_int_equal(X509_check_host(x, "gpu-8", 0, 0, NULL), 0);
    X509_free(x);

    unit_ok(guard_keys_issue(folder, MCP_ROLE_CLIENT, "team.a_1", NULL, made_fresh("c"), &err),
            &err);
    holds_exactly(made_path("c"), client, UNIT_COUNT(client));
    who = identity(made_path("c"), "client.pem");
    assert_string_equal(who.name, "team.a_1");
    assert_string_equal(who.role, "client");
    object = description(made_path("c"));
    assert_string_equal(guard_json_text(json_object_get(object, "authority"), "key"), "missing");
    assert_true(json_is_false(json_object_get(object, "signs_tokens")));
    assert_int_equal(json_array_size(json_object_get(object, "issued")), 0);
    json_decref(object);
    unit_refused(
        guard_keys_issue(made_path("c"), MCP_ROLE_CLIENT, "x", NULL, made_fresh("x"), &err),
        MCP_ENOTFOUND, &err, "has no ca.key");
}

/* Goal:   names that are none, and what makes no sense, are refused and leave nothing. */
static void wrong_requests_issue_nothing(void **state)
{
    static const char *const names[] = { "", "a b", "a/b", "../a", "a\n", "gr\xc3\xbc\xc3\x9f" };
    char                     too_long[66];
    const char              *target = made_fresh("x");
    json_t                  *before = description(folder), *after;
    mcp_error                err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(names); i++)
        unit_refused(guard_keys_issue(folder, MCP_ROLE_CLIENT, names[i], NULL, target, &err),
                     MCP_EINVAL, &err, "1 to 64 of the characters");
    memset(too_long, 'a', 65);
    too_long[65] = '\0';
    unit_refused(guard_keys_issue(folder, MCP_ROLE_CLIENT, too_long, NULL, target, &err),
                 MCP_EINVAL, &err, "1 to 64 of the characters");
    unit_refused(guard_keys_issue(folder, MCP_ROLE_CLIENT, "a", "a.lan", target, &err), MCP_EINVAL,
                 &err, "not for a client's");
    unit_refused(guard_keys_issue(folder, MCP_ROLE_WORKER, "a", "a:1", target, &err), MCP_EINVAL,
                 &err, "without ports");
    unit_refused(guard_keys_issue(made_path("none"), MCP_ROLE_CLIENT, "a", NULL, target, &err),
                 MCP_ENOTFOUND, &err, "there is no keys folder");
    unit_refused(guard_keys_issue(folder, MCP_ROLE_CLIENT, "a", NULL, folder, &err), MCP_EINVAL,
                 &err, "never overwritten");
    assert_int_equal(access(target, F_OK), -1);
    after = description(folder);
    assert_true(json_equal(before, after));
    json_decref(before);
    json_decref(after);
}

/* ---- tokens ------------------------------------------------------------------------- */

static mcp_token_opts token_opts(void)
{
    mcp_token_opts opts = MCP_TOKEN_OPTS_INIT;

    opts.subject = "alice";
    return opts;
}

/* Goal:   a token grants exactly what was asked for, on every worker of the authority, in the
 *         hands of the certificate it was made for. */
static void a_token_grants_what_was_asked_for(void **state)
{
    struct guard_identity who = identity(folder, "client.pem"),
                          other = identity(folder, "admin.pem");
    mcp_token_opts        opts = token_opts();
    char                  text[MCP_KEYS_TEXT_BYTES];
    struct guard_keyring *ring;
    struct guard_grant    grant;
    int64_t               now = time(NULL);
    mcp_error             err;

    (void)state;
    unit_ok(guard_keys_issue(folder, MCP_ROLE_WORKER, "gpu-1", NULL, made_fresh("w"), &err), &err);
    ring = ring_of(made_path("w"));
    unit_ok(guard_keys_token(folder, &opts, text, sizeof(text), &err), &err);
    unit_ok(guard_token_verify(ring, text, strlen(text), who.sha256, "gpu-1", now, &grant, &err),
            &err);
    assert_string_equal(grant.subject, "alice");
    assert_int_equal(strlen(grant.jti), 32);
    assert_int_equal(grant.scopes, GUARD_INFER | GUARD_GENERATE);
    assert_true(grant.any_model);
    assert_int_equal(grant.last, 0);
    assert_int_equal(grant.priority, GUARD_NORMAL);
    assert_in_range(grant.expires_s, now + 86400 - 5, now + 86400 + 5);
    unit_refused(
        guard_token_verify(ring, text, strlen(text), other.sha256, "gpu-1", now, &grant, &err),
        MCP_EDENIED, &err, "another client certificate");

    opts.model = "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff";
    opts.first = 4;
    opts.last = 26;
    opts.tokens_per_minute = 1000;
    opts.priority = "realtime";
    opts.scope = "state admin";
    opts.audience = "gpu-1";
    opts.expires_s = 60;
    opts.certificate = made_in(folder, "admin.pem");
    unit_ok(guard_keys_token(folder, &opts, text, sizeof(text), &err), &err);
    unit_ok(guard_token_verify(ring, text, strlen(text), other.sha256, "gpu-1", now, &grant, &err),
            &err);
    assert_int_equal(grant.scopes, GUARD_STATE | GUARD_ADMIN);
    assert_false(grant.any_model);
    assert_int_equal(grant.model[10], 0xaa);
    assert_int_equal(grant.first, 4);
    assert_int_equal(grant.last, 26);
    assert_int_equal(grant.tokens_per_minute, 1000);
    assert_int_equal(grant.priority, GUARD_REALTIME);
    unit_refused(
        guard_token_verify(ring, text, strlen(text), other.sha256, "gpu-2", now, &grant, &err),
        MCP_EDENIED, &err, "its aud is not this worker");
    guard_keyring_unref(ring);
}

/* Goal:   a token that could not be meant is not signed. */
static void wrong_requests_sign_nothing(void **state)
{
    char           text[MCP_KEYS_TEXT_BYTES] = "untouched";
    mcp_token_opts opts;
    mcp_error      err;

    (void)state;
#define WRONG(code, about, ...)                                                               \
    do {                                                                                      \
        opts = token_opts();                                                                  \
        __VA_ARGS__;                                                                          \
        unit_refused(guard_keys_token(folder, &opts, text, sizeof(text), &err), (code), &err, \
                     (about));                                                                \
        assert_string_equal(text, "untouched");                                               \
    } while (0)

    WRONG(MCP_EINVAL, "the subject", opts.subject = "");
    WRONG(MCP_EINVAL, "the subject", opts.subject = "a\nb");
    WRONG(MCP_EINVAL, "the subject", opts.subject = "\xff");
    WRONG(MCP_EINVAL, "the scope 'everything'", opts.scope = "everything");
    WRONG(MCP_EINVAL, "the scope ''", opts.scope = "");
    WRONG(MCP_EINVAL, "the priority 'top'", opts.priority = "top");
    WRONG(MCP_EINVAL, "64 hex digits", opts.model = "abc");
    WRONG(MCP_EINVAL, "the name 'a b'", opts.audience = "a b");
    WRONG(MCP_ERANGE, "lives 1 to 2592000 s, not 0", opts.expires_s = 0);
    WRONG(MCP_ERANGE, "not -1", opts.expires_s = -1);
    WRONG(MCP_ERANGE, "not 2592001", opts.expires_s = 2592001);
    WRONG(MCP_ERANGE, "layers [4, 4)", opts.first = 4; opts.last = 4);
    WRONG(MCP_ERANGE, "layers from 4 on", opts.first = 4);
    WRONG(MCP_ERANGE, "layers [0, 1048577)", opts.last = 1048577);
    WRONG(MCP_ENOTFOUND, "there is no", opts.certificate = made_path("none.pem"));
    WRONG(MCP_EFORMAT, "holds no certificate", opts.certificate = made_in(folder, "token.pub"));
    WRONG(MCP_EINVAL, "is a worker's", opts.certificate = made_in(folder, "worker.pem"));
#undef WRONG
    opts = token_opts();
    unit_refused(guard_keys_token(folder, &opts, text, 100, &err), MCP_ERANGE, &err,
                 "room is for 99");
    assert_string_equal(text, "untouched");
}

/* Goal:   certificates of another authority get no token; a signing key that the workers do not
 *         know is noticed when it signs, not when its tokens fail. */
static void keys_that_do_not_belong_together_are_noticed(void **state)
{
    const char    *other = made_fresh("other");
    mcp_token_opts opts = token_opts();
    char           text[MCP_KEYS_TEXT_BYTES];
    uint8_t       *key;
    size_t         bytes;
    mcp_error      err;

    (void)state;
    unit_ok(guard_keys_init(other, NULL, &err), &err);
    opts.certificate = made_in(other, "client.pem");
    unit_refused(guard_keys_token(folder, &opts, text, sizeof(text), &err), MCP_EINVAL, &err,
                 "was not issued by the authority");

    opts.certificate = NULL;
    key = unit_read(made_in(folder, "token.key"), &bytes);
    unit_write(made_in(other, "token.key"), key, bytes);
    free(key);
    unit_refused(guard_keys_token(other, &opts, text, sizeof(text), &err), MCP_EDENIED, &err,
                 "names no token key of this keys folder");

    key = unit_read(made_in(folder, "ca.key"), &bytes);
    unit_write(made_in(other, "ca.key"), key, bytes);
    free(key);
    unit_refused(guard_keys_issue(other, MCP_ROLE_CLIENT, "a", NULL, made_fresh("x"), &err),
                 MCP_EFORMAT, &err, "does not belong to its ca.pem");
    assert_int_equal(chmod(made_in(other, "ca.key"), 0640), 0);
    unit_refused(guard_keys_issue(other, MCP_ROLE_CLIENT, "a", NULL, made_fresh("x"), &err),
                 MCP_EIO, &err, "chmod 600");
}

/* ---- revocation --------------------------------------------------------------------- */

/* Goal:   each way to name an identity takes back that one and no other.
 * Method: two certificates of one name and one of another; by file, serial number and name. */
static void certificates_are_revoked_by_file_serial_and_name(void **state)
{
    struct guard_identity who[4];
    char                  serial[64], path[32];
    uint32_t              count;
    mcp_error             err;

    (void)state;
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "r%d", i);
        unit_ok(guard_keys_issue(folder, MCP_ROLE_CLIENT, i < 3 ? "rex" : "rob", NULL,
                                 made_fresh(path), &err),
                &err);
        who[i] = identity(made_path(path), "client.pem");
    }
    assert_int_equal(revoked(made_in(made_path("r0"), "client.pem")), 1);
    assert_true(is_revoked(folder, &who[0]));
    assert_false(is_revoked(folder, &who[1]));
    assert_int_equal(revoked(made_in(made_path("r0"), "client.pem")), 0);

    guard_hex(serial, who[1].serial, who[1].serial_bytes);
    assert_int_equal(revoked(serial), 1);
    assert_true(is_revoked(folder, &who[1]));
    assert_false(is_revoked(folder, &who[2]));
    assert_int_equal(revoked("rex"), 1); /* the third; two are in the list already */
    assert_true(is_revoked(folder, &who[2]));
    assert_false(is_revoked(folder, &who[3]));

    unit_refused(guard_keys_revoke(folder, "nobody", &count, &err), MCP_ENOTFOUND, &err,
                 "'nobody' is no certificate's");
    unit_refused(guard_keys_revoke(folder, "", &count, &err), MCP_ENOTFOUND, &err, "''");
    unit_refused(guard_keys_revoke(folder, made_in(folder, "ca.pem"), &count, &err), MCP_EINVAL,
                 &err, "is the authority itself");
    unit_refused(guard_keys_revoke(folder, made_in(folder, "token.pub"), &count, &err),
                 MCP_ENOTFOUND, &err, "is no certificate's");

    /* What is issued from now on knows: a new worker starts with the list. */
    unit_ok(guard_keys_issue(folder, MCP_ROLE_WORKER, "w", NULL, made_fresh("w"), &err), &err);
    assert_true(is_revoked(made_path("w"), &who[0]));
    assert_false(is_revoked(made_path("w"), &who[3]));
}

/* Goal:   a token is taken back by its text, its file or its id, after which it is refused.
 * Method: three tokens, each verified before and after; what only looks like one is refused. */
static void tokens_are_revoked_by_text_file_and_id(void **state)
{
    struct guard_identity who = identity(folder, "client.pem");
    mcp_token_opts        opts = token_opts();
    char                  text[4][MCP_KEYS_TEXT_BYTES];
    struct guard_grant    grant[4];
    struct guard_keyring *ring = ring_of(folder);
    uint32_t              count;
    mcp_error             err;

    (void)state;
    for (int i = 0; i < 4; i++) {
        unit_ok(guard_keys_token(folder, &opts, text[i], sizeof(text[i]), &err), &err);
        unit_ok(guard_token_verify(ring, text[i], strlen(text[i]), who.sha256, "any", time(NULL),
                                   &grant[i], &err),
                &err);
    }
    assert_int_equal(revoked(text[0]), 1);
    unit_write(made_path("token"), text[1], strlen(text[1]));
    assert_int_equal(revoked(made_path("token")), 1);
    assert_int_equal(revoked(grant[2].jti), 1);
    assert_int_equal(revoked(grant[2].jti), 0);
    assert_int_equal(revoked("jti:of-another-kind"), 1);
    unit_refused(guard_keys_revoke(folder, "jti:a b", &count, &err), MCP_EINVAL, &err,
                 "is no token id");
    text[3][strlen(text[3]) - 10] ^= 1;
    unit_refused(guard_keys_revoke(folder, text[3], &count, &err), MCP_EDENIED, &err,
                 "its signature is not");
    text[3][strlen(text[3]) - 10] ^= 1;
    guard_keyring_unref(ring);

    ring = ring_of(folder);
    for (int i = 0; i < 4; i++) {
        int rc = guard_token_verify(ring, text[i], strlen(text[i]), who.sha256, "any", time(NULL),
                                    &grant[i], &err);
        if (i < 3)
            unit_refused(rc, MCP_EDENIED, &err, "it was revoked");
        else
            unit_ok(rc, &err);
    }
    guard_keyring_unref(ring);
}

/* Goal:   a certificate of another authority cannot be put into the list. */
static void strangers_are_not_revoked(void **state)
{
    const char *other = made_fresh("other");
    uint32_t    count = 5;
    mcp_error   err;

    (void)state;
    unit_ok(guard_keys_init(other, NULL, &err), &err);
    unit_refused(guard_keys_revoke(folder, made_in(other, "client.pem"), &count, &err), MCP_EINVAL,
                 &err, "was not issued by the authority");
    assert_int_equal(count, 5);
}

/* ---- rotation ----------------------------------------------------------------------- */

/* Goal:   the token key changes without a moment in which a good token is refused.
 * Method: the old public key stays as token-old.pub; both keys' tokens are accepted; once it is
 *         removed only the new one's. */
static void the_token_key_can_be_rotated(void **state)
{
    const char           *path = made_fresh("rotate");
    struct guard_identity who;
    mcp_token_opts        opts = token_opts();
    char                  old[MCP_KEYS_TEXT_BYTES], new[MCP_KEYS_TEXT_BYTES];
    struct guard_bytes private, public;
    struct guard_keyring *ring;
    struct guard_grant    grant;
    EVP_PKEY             *key;
    int64_t               now = time(NULL);
    mcp_error             err;

    (void)state;
    unit_ok(guard_keys_init(path, NULL, &err), &err);
    who = identity(path, "client.pem");
    unit_ok(guard_keys_token(path, &opts, old, sizeof(old), &err), &err);

    assert_int_equal(rename(made_in(path, "token.pub"), made_in(path, "token-old.pub")), 0);
    unit_ok(guard_key_new(&key, GUARD_P256, &err), &err); /* another kind, too */
    unit_ok(guard_key_private_pem(key, &private, &err), &err);
    unit_ok(guard_key_public_pem(key, &public, &err), &err);
    made_file(path, "token.key", 0600, private.data);
    made_file(path, "token.pub", 0644, public.data);
    unit_ok(guard_keys_token(path, &opts, new, sizeof(new), &err), &err);
    ring = ring_of(path);
    unit_ok(guard_token_verify(ring, old, strlen(old), who.sha256, "w", now, &grant, &err), &err);
    unit_ok(guard_token_verify(ring, new, strlen(new), who.sha256, "w", now, &grant, &err), &err);
    guard_keyring_unref(ring);
    assert_int_equal(remove(made_in(path, "token-old.pub")), 0);
    ring = ring_of(path);
    unit_refused(guard_token_verify(ring, old, strlen(old), who.sha256, "w", now, &grant, &err),
                 MCP_EDENIED, &err, "names no token key");
    unit_ok(guard_token_verify(ring, new, strlen(new), who.sha256, "w", now, &grant, &err), &err);
    guard_keyring_unref(ring);
    guard_bytes_fini(&private);
    guard_bytes_fini(&public);
    EVP_PKEY_free(key);
}

/* ---- description -------------------------------------------------------------------- */

/* Goal:   a description tells what is wrong instead of failing, where one file is the matter. */
static void a_description_tells_what_is_wrong(void **state)
{
    const char    *path = made_fresh("d");
    mcp_token_opts opts = token_opts();
    char           text[MCP_KEYS_TEXT_BYTES];
    json_t        *object;
    const json_t  *list;
    char          *json;
    mcp_error      err;

    (void)state;
    unit_ok(guard_keys_init(path, NULL, &err), &err);
    unit_ok(guard_keys_token(path, &opts, text, sizeof(text), &err), &err);
    made_file(path, "client.token", 0600, text);
    made_file(path, "workers", 0644, "a:1\n\nb:2");
    assert_int_equal(remove(made_in(path, "worker.key")), 0);
    assert_int_equal(chmod(made_in(path, "client.key"), 0644), 0);
    assert_int_equal(rename(made_in(path, "ca.key"), made_in(path, "admin.key")), 0);
    object = description(path);
    list = json_object_get(object, "certificates");
    assert_string_equal(guard_json_text(json_array_get(list, 0), "key"), "missing");
    assert_string_equal(guard_json_text(json_array_get(list, 1), "key"), "unusable");
    assert_string_equal(guard_json_text(json_array_get(list, 2), "key"), "other");
    assert_string_equal(guard_json_text(json_object_get(object, "authority"), "key"), "missing");
    assert_string_equal(guard_json_text(json_object_get(object, "token"), "sub"), "alice");
    assert_int_equal(json_array_size(json_object_get(object, "workers")), 2);
    json_decref(object);

    made_file(path, "client.token", 0600, "no token");
    unit_refused(guard_keys_describe(path, &json, &err), MCP_EFORMAT, &err, "client.token");
    made_file(path, "client.token", 0600, text);
    made_file(path, "workers", 0644, "no port\n");
    unit_refused(guard_keys_describe(path, &json, &err), MCP_EFORMAT, &err,
                 "'no port' is not HOST:PORT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_makes_a_whole_folder_once),
        cmocka_unit_test(what_init_made_belongs_together),
        cmocka_unit_test(an_issued_folder_holds_what_its_machine_needs),
        cmocka_unit_test(wrong_requests_issue_nothing),
        cmocka_unit_test(a_token_grants_what_was_asked_for),
        cmocka_unit_test(wrong_requests_sign_nothing),
        cmocka_unit_test(keys_that_do_not_belong_together_are_noticed),
        cmocka_unit_test(certificates_are_revoked_by_file_serial_and_name),
        cmocka_unit_test(tokens_are_revoked_by_text_file_and_id),
        cmocka_unit_test(strangers_are_not_revoked),
        cmocka_unit_test(the_token_key_can_be_rotated),
        cmocka_unit_test(a_description_tells_what_is_wrong),
    };

    return cmocka_run_group_tests_name("guard/keys", tests, everything_begin, everything_end);
}
