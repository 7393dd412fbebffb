/* guard/certificate_test.c - certificates as OpenSSL's own verifier sees them.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/certificate.h"

#include "guard/authority.h"
#include "guard/endpoint.h"
#include "guard/json.h"
#include "guard/made_test.h"

#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#define NOW 1790000000
#define DAY 86400

static struct guard_pair authority, worker, client, admin;

static struct guard_hosts hosts_of(const char *list)
{
    struct guard_hosts hosts = { .count = 0 };
    mcp_error          err;

    unit_ok(guard_hosts_add(&hosts, list, &err), &err);
    return hosts;
}

static int everything_begin(void **state)
{
    struct guard_hosts hosts = hosts_of("gpu-1.lan,192.0.2.7,2001:db8::7");
    mcp_error          err;

    (void)state;
    unit_ok(guard_pair_make_authority(&authority, NOW, &err), &err);
    unit_ok(guard_pair_make(&worker, MCP_ROLE_WORKER, "gpu-1", &hosts, &authority, NOW, &err),
            &err);
    unit_ok(guard_pair_make(&client, MCP_ROLE_CLIENT, "alice", NULL, &authority, NOW, &err), &err);
    unit_ok(guard_pair_make(&admin, MCP_ROLE_ADMIN, "root", NULL, &authority, NOW, &err), &err);
    return 0;
}

static int everything_end(void **state)
{
    (void)state;
    guard_pair_fini(&authority);
    guard_pair_fini(&worker);
    guard_pair_fini(&client);
    guard_pair_fini(&admin);
    return 0;
}

/* OpenSSL's verdict on a chain of one below `root`, for a purpose, strictly, at a time. */
static int verdict(X509 *leaf, X509 *root, int purpose, time_t at)
{
    X509_STORE        *store = X509_STORE_new();
    X509_STORE_CTX    *ctx = X509_STORE_CTX_new();
    X509_VERIFY_PARAM *param;
    int                error;

    assert_int_equal(X509_STORE_add_cert(store, root), 1);
    assert_int_equal(X509_STORE_CTX_init(ctx, store, leaf, NULL), 1);
    param = X509_STORE_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_time(param, at);
    X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_X509_STRICT);
    X509_VERIFY_PARAM_set_purpose(param, purpose);
    X509_VERIFY_PARAM_set_auth_level(param, 2);
    error = X509_verify_cert(ctx) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(ctx);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    ERR_clear_error();
    return error;
}

/* Goal:   each certificate is good for its own side of TLS and not for the other. */
static void each_role_is_good_for_its_side_only(void **state)
{
    (void)state;
    assert_int_equal(
        verdict(worker.certificate, authority.certificate, X509_PURPOSE_SSL_SERVER, NOW),
        X509_V_OK);
    assert_int_equal(
        verdict(client.certificate, authority.certificate, X509_PURPOSE_SSL_CLIENT, NOW),
        X509_V_OK);
    assert_int_equal(
        verdict(admin.certificate, authority.certificate, X509_PURPOSE_SSL_CLIENT, NOW), X509_V_OK);
    assert_int_equal(
        verdict(worker.certificate, authority.certificate, X509_PURPOSE_SSL_CLIENT, NOW),
        X509_V_ERR_INVALID_PURPOSE);
    assert_int_equal(
        verdict(client.certificate, authority.certificate, X509_PURPOSE_SSL_SERVER, NOW),
        X509_V_ERR_INVALID_PURPOSE);
    assert_int_equal(
        verdict(admin.certificate, authority.certificate, X509_PURPOSE_SSL_SERVER, NOW),
        X509_V_ERR_INVALID_PURPOSE);
}

/* Goal:   certificates begin an hour early and end after a year, the authority after ten.
 * Method: OpenSSL's verdict to the second; a leaf made in the authority's last days ends with
 *         it, and after them none is made. */
static void validity_is_kept_to_the_second(void **state)
{
    int64_t           end = (int64_t)NOW + (int64_t)GUARD_AUTHORITY_DAYS * DAY;
    struct guard_pair late;
    mcp_error         err;

    (void)state;
    const struct {
        time_t at;
        int    error;
    } rows[] = {
        { NOW - 3601, X509_V_ERR_CERT_NOT_YET_VALID },
        { NOW - 3600, X509_V_OK },
        { NOW + 365 * DAY - 1, X509_V_OK },
        { NOW + 365 * DAY, X509_V_ERR_CERT_HAS_EXPIRED },
    };
    for (size_t i = 0; i < UNIT_COUNT(rows); i++)
        assert_int_equal(
            verdict(client.certificate, authority.certificate, X509_PURPOSE_SSL_CLIENT, rows[i].at),
            rows[i].error);
    assert_int_equal(client.who.begins_s, NOW - 3600);
    assert_int_equal(client.who.expires_s, NOW + 365 * DAY);
    assert_int_equal(authority.who.expires_s, end);

    unit_ok(guard_pair_make(&late, MCP_ROLE_CLIENT, "late", NULL, &authority, end - DAY, &err),
            &err);
    assert_int_equal(late.who.expires_s, end);
    guard_pair_fini(&late);
    unit_refused(guard_pair_make(&late, MCP_ROLE_CLIENT, "late", NULL, &authority, end, &err),
                 MCP_EINVAL, &err, "has expired");
    guard_pair_fini(&late);
}

/* Goal:   names match what was asked for, and nothing else.
 * Method: OpenSSL's own matching. */
static void a_worker_is_known_by_its_names_only(void **state)
{
    X509   *x = worker.certificate;
    json_t *list = guard_certificate_hosts(x), *none = guard_certificate_hosts(client.certificate);

    (void)state;
    assert_int_equal(X509_check_host(x, "gpu-1.lan", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(x, "GPU-1.LAN", 0, 0, NULL), 1);
    assert_int_equal(X509_check_ip_asc(x, "192.0.2.7", 0), 1);
    assert_int_equal(X509_check_ip_asc(x, "2001:db8:0:0:0:0:0:7", 0), 1);
    assert_int_equal(X509_check_host(x, "gpu-1", 0, 0, NULL), 0); /* its CN is no host name */
    assert_int_equal(X509_check_host(x, "x.gpu-1.lan", 0, 0, NULL), 0);
    assert_int_equal(X509_check_host(x, "192.0.2.7", 0, 0, NULL), 0);
    assert_int_equal(X509_check_ip_asc(x, "192.0.2.8", 0), 0);
    assert_int_equal(json_array_size(list), 3);
    assert_string_equal(json_string_value(json_array_get(list, 0)), "gpu-1.lan");
    assert_string_equal(json_string_value(json_array_get(list, 1)), "192.0.2.7");
    assert_string_equal(json_string_value(json_array_get(list, 2)), "2001:db8::7");
    assert_int_equal(json_array_size(none), 0);
    json_decref(list);
    json_decref(none);
}

/* Goal:   identities come out as they went in; serial numbers are positive, of 16 bytes, and
 *         never the same. */
static void identities_come_back(void **state)
{
    const struct guard_pair *pairs[] = { &worker, &client, &admin, &authority };
    static const char *const names[] = { "gpu-1", "alice", "root" };
    static const char *const roles[] = { "worker", "client", "admin", "authority" };

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct guard_identity who = pairs[i]->who;

        if (i < 3)
            assert_string_equal(who.name, names[i]);
        assert_string_equal(who.role, roles[i]);
        assert_int_equal(who.serial_bytes, 16);
        assert_true(who.serial[0] >= 0x40 && who.serial[0] < 0x80);
        for (size_t j = 0; j < i; j++) {
            assert_memory_not_equal(who.serial, pairs[j]->who.serial, 16);
            assert_memory_not_equal(who.sha256, pairs[j]->who.sha256, 32);
        }
        assert_int_equal(X509_get_version(pairs[i]->certificate), X509_VERSION_3);
        assert_int_equal(X509_get_signature_nid(pairs[i]->certificate), NID_ecdsa_with_SHA256);
    }
}

/* Goal:   extensions are those that RFC 5280 asks of such certificates, critical where it says.
 */
static void extensions_are_those_of_rfc_5280(void **state)
{
    X509 *leaves[] = { worker.certificate, client.certificate };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        X509 *x = leaves[i];

        assert_int_equal(X509_check_ca(x), 0);
        assert_int_equal(X509_get_key_usage(x), KU_DIGITAL_SIGNATURE);
        assert_int_equal(X509_get_extended_key_usage(x), i == 0 ? XKU_SSL_SERVER : XKU_SSL_CLIENT);
        assert_true(X509_EXTENSION_get_critical(
            X509_get_ext(x, X509_get_ext_by_NID(x, NID_basic_constraints, -1))));
        assert_true(X509_EXTENSION_get_critical(
            X509_get_ext(x, X509_get_ext_by_NID(x, NID_key_usage, -1))));
        assert_non_null(X509_get0_authority_key_id(x));
        assert_int_equal(ASN1_OCTET_STRING_cmp(X509_get0_authority_key_id(x),
                                               X509_get0_subject_key_id(authority.certificate)),
                         0);
        assert_int_equal(
            ASN1_OCTET_STRING_cmp(X509_get0_authority_key_id(x), X509_get0_subject_key_id(x)) == 0,
            0);
    }
    assert_int_equal(X509_check_ca(authority.certificate), 1);
    assert_int_equal(X509_get_pathlen(authority.certificate), 0);
    assert_int_equal(X509_get_key_usage(authority.certificate), KU_KEY_CERT_SIGN | KU_CRL_SIGN);
}

/* Goal:   another authority's certificate is not ours, even when the names are the same, and a
 *         leaf is no authority. */
static void only_the_authority_speaks_for_its_own(void **state)
{
    struct guard_pair other, theirs, forged;
    char              id[GUARD_AUTHORITY_BYTES], id_other[GUARD_AUTHORITY_BYTES];
    X509             *copy;
    mcp_error         err;

    (void)state;
    unit_ok(guard_pair_make_authority(&other, NOW, &err), &err);
    unit_ok(guard_pair_make(&theirs, MCP_ROLE_CLIENT, "alice", NULL, &other, NOW, &err), &err);
    assert_string_not_equal(other.who.name, authority.who.name);
    assert_false(guard_certificate_signed_by(theirs.certificate, authority.certificate));
    assert_int_not_equal(
        verdict(theirs.certificate, authority.certificate, X509_PURPOSE_SSL_CLIENT, NOW),
        X509_V_OK);
    guard_pair_fini(&theirs);

    /* The same issuer name and key identifier, signed by another key. */
    forged = authority;
    forged.key = other.key;
    copy = X509_dup(authority.certificate);
    forged.certificate = copy;
    unit_ok(guard_pair_make(&theirs, MCP_ROLE_CLIENT, "eve", NULL, &forged, NOW, &err), &err);
    assert_false(guard_certificate_signed_by(theirs.certificate, authority.certificate));
    X509_free(copy);

    assert_true(guard_certificate_signed_by(client.certificate, authority.certificate));
    assert_true(guard_certificate_is_authority(authority.certificate));
    assert_false(guard_certificate_is_authority(client.certificate));
    unit_ok(guard_certificate_authority_id(authority.certificate, id, &err), &err);
    unit_ok(guard_certificate_authority_id(other.certificate, id_other, &err), &err);
    assert_int_equal(strlen(id), GUARD_AUTHORITY_BYTES - 1);
    assert_string_not_equal(id, id_other);
    assert_int_equal(ERR_peek_error(), 0);
    guard_pair_fini(&theirs);
    guard_pair_fini(&other);
}

/* Goal:   a certificate of somebody else's making is refused by a sentence, not misread.
 * Method: no OU, two CNs, a CN with a newline, a long serial number, no certificate at all. */
static void foreign_certificates_are_refused(void **state)
{
    static const struct {
        const char *cn, *cn2, *ou;
        int         serial_bits;
        const char *about;
    } rows[] = {
        { "a", NULL, NULL, 8, "no single CN and OU" },
        { "a", "b", "client", 8, "no single CN and OU" },
        { "a\nb", NULL, "client", 8, "no single CN and OU" },
        { "a", NULL, "this-role-is-too-long", 8, "no single CN and OU" },
        { "a", NULL, "client", 160, "not 1 to 20 bytes" },
        { "a", NULL, "client", 159, NULL },
    };
    struct guard_bytes    empty = { .data = (char[]){ "" } }, pem;
    struct guard_identity who;
    mcp_error             err;
    X509                 *x;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        X509_NAME *subject;
        BIGNUM    *serial = BN_new();
        int        rc;

        x = X509_new();
        subject = X509_get_subject_name(x);
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const uint8_t *)rows[i].cn, -1,
                                   -1, 0);
        if (rows[i].cn2 != NULL)
            X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const uint8_t *)rows[i].cn2,
                                       -1, -1, 0);
        if (rows[i].ou != NULL)
            X509_NAME_add_entry_by_txt(subject, "OU", MBSTRING_UTF8, (const uint8_t *)rows[i].ou,
                                       -1, -1, 0);
        BN_set_bit(serial, rows[i].serial_bits);
        BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(x));
        X509_time_adj_ex(X509_getm_notBefore(x), 0, 0, NULL);
        X509_time_adj_ex(X509_getm_notAfter(x), 1, 0, NULL);
        X509_set_pubkey(x, client.key);
        X509_sign(x, client.key, EVP_sha256());
        rc = guard_certificate_identity(x, &who, &err);
        if (rows[i].about != NULL)
            unit_refused(rc, MCP_EFORMAT, &err, rows[i].about);
        else
            unit_ok(rc, &err);
        BN_free(serial);
        X509_free(x);
    }
    unit_refused(guard_certificate_read(&x, &empty, "a.pem", &err), MCP_EFORMAT, &err,
                 "a.pem holds no certificate");
    assert_null(x);
    pem = client.key_pem;
    unit_refused(guard_certificate_read(&x, &pem, "a.pem", &err), MCP_EFORMAT, &err,
                 "a.pem holds no certificate");
    assert_int_equal(ERR_peek_error(), 0);
}

/* ---- names and addresses ------------------------------------------------------------ */

/* Goal:   a list gives its names in order, each once, and a wrong one is refused by its text. */
static void host_lists_are_taken_apart(void **state)
{
    static const char *const wrong[] = {
        "",
        ",",
        "a,",
        ",a",
        "a,,b",
        "a b",
        "-a",
        "a-",
        "a.-b",
        "a-.b",
        ".a",
        "a.",
        "a..b",
        "1.2.3",
        "256.1.1.1",
        "1.2.3.4.5",
        "*.lan",
        "http://a",
        "a:7070",
        "[::1]",
        "::1%eth0",
        "a/b",
        "gr\xc3\xbc\xc3\x9f",
        "a\nb",
        "DNS:a",
        "a;IP:1.1.1.1",
    };
    struct guard_hosts hosts = hosts_of("a, B.c ,127.0.0.1,a,b.C,::1,x_1-2");
    char               label[70], name[300], many[1024] = "";
    mcp_error          err;

    (void)state;
    static const char *const right[] = { "a", "B.c", "127.0.0.1", "::1", "x_1-2" };
    assert_int_equal(hosts.count, UNIT_COUNT(right));
    for (size_t i = 0; i < UNIT_COUNT(right); i++)
        assert_string_equal(hosts.text[i], right[i]);

    for (size_t i = 0; i < UNIT_COUNT(wrong); i++) {
        struct guard_hosts none = { .count = 0 };
        int                rc = guard_hosts_add(&none, wrong[i], &err);

        if (rc != MCP_EINVAL)
            fail_msg("'%s' is taken for a list of hosts", wrong[i]);
        unit_refused(rc, MCP_EINVAL, &err, "neither a DNS name nor an address");
    }

    memset(label, 'a', sizeof(label));
    label[64] = '\0';
    assert_false(guard_is_dns_name(label));
    label[63] = '\0';
    assert_true(guard_is_dns_name(label));
    snprintf(name, sizeof(name), "%s.%s.%s.%.61s", label, label, label, label); /* 253 */
    assert_true(guard_is_dns_name(name));
    strcat(name, "a");
    assert_false(guard_is_dns_name(name));

    for (int i = 0; i < GUARD_HOSTS_MAX; i++)
        sprintf(many + strlen(many), "%sh%d", i > 0 ? "," : "", i);
    hosts = hosts_of(many);
    assert_int_equal(hosts.count, GUARD_HOSTS_MAX);
    unit_refused(guard_hosts_add(&hosts, "more", &err), MCP_EINVAL, &err, "64 host names");
}

/* Goal:   an endpoint is a host and a port, and nothing that a shell or URL would add. */
static void endpoints_are_a_host_and_a_port(void **state)
{
    static const char *const right[] = { "a:1", "gpu-1.lan:7070", "192.0.2.1:65535", "[::1]:443",
                                         "[2001:db8::1]:7070" };
    static const char *const wrong[] = { "",           ":",       "a",         "a:",       ":7070",
                                         "a:0",        "a:65536", "a:07070",   "a:+1",     "a: 1",
                                         "a:1 ",       "a:70a",   "a:123456",  "::1:7070", "[::1]",
                                         "[a]:1",      "[]:1",    "1.2.3:1",   "a b:1",    "a\n:1",
                                         "http://a:1", "a@b:1",   "[::1%lo]:1" };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(right); i++)
        if (!guard_is_endpoint(right[i]))
            fail_msg("'%s' is refused", right[i]);
    for (size_t i = 0; i < UNIT_COUNT(wrong); i++)
        if (guard_is_endpoint(wrong[i]))
            fail_msg("'%s' is taken", wrong[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_role_is_good_for_its_side_only),
        cmocka_unit_test(validity_is_kept_to_the_second),
        cmocka_unit_test(a_worker_is_known_by_its_names_only),
        cmocka_unit_test(identities_come_back),
        cmocka_unit_test(extensions_are_those_of_rfc_5280),
        cmocka_unit_test(only_the_authority_speaks_for_its_own),
        cmocka_unit_test(foreign_certificates_are_refused),
        cmocka_unit_test(host_lists_are_taken_apart),
        cmocka_unit_test(endpoints_are_a_host_and_a_port),
    };

    return cmocka_run_group_tests_name("guard/certificate", tests, everything_begin,
                                       everything_end);
}
