/* net/tls_test.c - who is let in, who is not, and what each side is told about it.
 *
 * Our client against our server with every kind of wrong certificate; and a raw OpenSSL client,
 * or none at all, against our server.
 *
 * SPDX-License-Identifier: MIT */
#include "net/world_test.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#define NGHTTP2_HELLO "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

static uint64_t shakes_failed(void)
{
    struct net_server_stats stats;

    net_server_get_stats(world.server, &stats);
    return stats.handshakes_failed;
}

/* A folder of its own for a certificate that deviates. */
static struct net_identity *special(const struct certs_authority *a, const char *role,
                                    const struct certs_spec *spec)
{
    const char          *folder = unit_path("special");
    struct net_identity *identity;

    certs_issue(a, folder, role, spec);
    identity = world_load(folder, role, NULL);
    certs_remove(folder);
    return identity;
}

static void serve_as(struct net_identity *identity)
{
    WORLD_NOTE(world.identity = identity);
}

/* Dial, call at once, and be told that an identity is wrong. */
static void must_be_refused(struct net_identity *client, const char *endpoint, const char *about)
{
    /* So large that the server hangs up with bytes unread: its alert must arrive all the same. */
    static const uint8_t large[2 << 20];
    struct world_conn    w;
    struct world_call    c = {
           .over = &w, .path = "/t.T/Echo", .say = large, .count = sizeof(large), .times = 1
    };

    world_dial(&w, endpoint, client);
    world_do(world.loop, world_call_here, &c);
    WORLD_AWAIT(w.down && (c.rc < 0 || c.closed));
    if (strstr(w.why.text, about) == NULL)
        fail_msg("'%s' does not say '%s'", w.why.text, about);
    assert_true(w.by_identity);
    assert_int_equal(w.why.code, WIRE_UNAUTHENTICATED);
    assert_int_equal(c.messages, 0);
    assert_int_equal(world.served.calls, 0);
    if (c.rc == MCP_OK)
        assert_int_equal(c.status.code, WIRE_UNAUTHENTICATED);
}

/* ---- our client --------------------------------------------------------------------- */

/* Goal:   a client whose certificate is refused learns it by TLS 1.3's late alert: it was "up"
 *         already, and its first call was on its way. */
static void a_client_of_another_authority_is_refused(void **state)
{
    struct certs_authority other;
    struct certs_spec      spec = { .name = "mallory" };
    const char            *folder = unit_path("special");
    struct net_identity   *client;

    (void)state;
    certs_authority_new(&other, "other");
    certs_issue(&other, folder, "client", &spec);
    certs_write(folder, "ca", "pem", world_authority.cert, NULL); /* it trusts the server */
    client = world_load(folder, "client", NULL);
    certs_remove(folder);
    world_serve(1, 0);
    must_be_refused(client, net_server_address(world.server), "does not know the authority");
    WORLD_AWAIT(shakes_failed() == 1);
    world_stop();
    net_identity_unref(client);
    certs_authority_free(&other);
}

static void a_server_of_another_authority_is_refused(void **state)
{
    struct certs_authority other;
    struct certs_spec      spec = { 0 };
    struct net_identity   *kept = world.identity;

    (void)state;
    certs_authority_new(&other, "other");
    serve_as(special(&other, "worker", &spec));
    world_serve(1, 0);
    must_be_refused(world.own, net_server_address(world.server), "authority that is not ours");
    WORLD_AWAIT(shakes_failed() == 1);
    world_stop();
    net_identity_unref(world.identity);
    serve_as(kept);
    certs_authority_free(&other);
}

/* Goal:   an expired certificate is refused by the other side, whichever it is.
 * Method: it expires between its loading, which looks at the dates too, and its use. */
static void expired_certificates_are_refused(void **state)
{
    struct certs_spec    spec = { .from_s = -100, .to_s = 2 };
    struct net_identity *kept = world.identity, *client, *server;
    mcp_error            err;
    const char          *folder = unit_path("special");

    (void)state;
    client = special(&world_authority, "client", &spec);
    server = special(&world_authority, "worker", &spec);
    sleep(3);
    world_serve(1, 0);
    must_be_refused(client, net_server_address(world.server), "which has expired");
    serve_as(server);
    must_be_refused(world.own, net_server_address(world.server),
                    "has expired: make a new one there");
    serve_as(kept);
    world_stop();
    net_identity_unref(client);
    net_identity_unref(server);

    spec.to_s = -10;
    certs_issue(&world_authority, folder, "client", &spec);
    unit_refused(net_identity_load(&client, folder, "client", NULL, &err), MCP_EDENIED, &err,
                 "has expired");
    spec.from_s = 1000;
    spec.to_s = 2000;
    certs_issue(&world_authority, folder, "client", &spec);
    unit_refused(net_identity_load(&client, folder, "client", NULL, &err), MCP_EDENIED, &err,
                 "not valid yet");
    certs_remove(folder);
}

static void revoked_certificates_are_refused(void **state)
{
    struct guard_keyring ring = { .revoked = 0x1234 }, ring_of_client = { .revoked = 1000 };
    struct net_identity *kept = world.identity, *strict, *client;

    (void)state;
    strict = world_load(world.folder, "worker", &ring);
    serve_as(strict);
    world_serve(1, 0);
    must_be_refused(world.own, net_server_address(world.server), "which was revoked");
    serve_as(kept); /* asked anew for each connection */
    client = world_load(world.folder, "client", &ring_of_client);
    must_be_refused(client, net_server_address(world.server), "was revoked");
    world_stop();
    net_identity_unref(client);
    net_identity_unref(strict);
}

static void a_certificate_for_another_host_is_refused(void **state)
{
    struct certs_spec    spec = { .alt = "DNS:other.example,IP:192.0.2.1" };
    struct net_identity *kept = world.identity;
    char                 endpoint[64];

    (void)state;
    serve_as(special(&world_authority, "worker", &spec));
    world_serve(1, 0);
    must_be_refused(world.own, net_server_address(world.server), "other addresses");
    snprintf(endpoint, sizeof(endpoint), "localhost%s",
             strchr(net_server_address(world.server), ':'));
    must_be_refused(world.own, endpoint, "other names");
    world_stop();
    net_identity_unref(world.identity);
    serve_as(kept);
}

/* Goal:   whoever has a client's certificate cannot play a worker with it. */
static void a_clients_certificate_makes_no_server(void **state)
{
    struct certs_spec    spec = { .usage = "clientAuth" };
    struct net_identity *kept = world.identity;

    (void)state;
    serve_as(special(&world_authority, "worker", &spec));
    world_serve(1, 0);
    must_be_refused(world.own, net_server_address(world.server), "another purpose");
    world_stop();
    net_identity_unref(world.identity);
    serve_as(kept);
}

static void a_name_with_a_nul_inside_is_refused(void **state)
{
    struct certs_spec    spec = { 0 };
    const char          *folder = unit_path("special");
    EVP_PKEY            *key = EVP_EC_gen("P-256");
    X509                *cert = certs_blank(key, "x", "client", 7, -100, 1000);
    struct net_identity *client;

    (void)state;
    certs_issue(&world_authority, folder, "client", &spec);
    X509_NAME_ENTRY_free(X509_NAME_delete_entry(X509_get_subject_name(cert), 0));
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)"admin\0.evil", 11, 0, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(world_authority.cert));
    assert_true(X509_sign(cert, world_authority.key, EVP_sha256()) > 0);
    certs_write(folder, "client", "pem", cert, NULL);
    certs_write(folder, "client", "key", NULL, key);
    client = world_load(folder, "client", NULL);
    world_serve(1, 0);
    {
        struct world_conn w;

        world_dial(&w, net_server_address(world.server), client);
        WORLD_AWAIT(w.down);
        WORLD_AWAIT(shakes_failed() == 1);
    }
    world_stop();
    net_identity_unref(client);
    certs_remove(folder);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void a_keys_folder_that_is_unsafe_or_broken_is_refused(void **state)
{
    struct certs_spec    spec = { 0 };
    const char          *folder = unit_path("special");
    char                 key[600], cert[600];
    struct net_identity *identity;
    mcp_error            err;

    (void)state;
    unit_refused(net_identity_load(&identity, folder, "client", NULL, &err), MCP_ENOTFOUND, &err,
                 "mcp keys init");
    certs_issue(&world_authority, folder, "client", &spec);
    snprintf(key, sizeof(key), "%s/client.key", folder);
    snprintf(cert, sizeof(cert), "%s/client.pem", folder);
    assert_int_equal(chmod(key, 0640), 0);
    unit_refused(net_identity_load(&identity, folder, "client", NULL, &err), MCP_EDENIED, &err,
                 "mode 640");
    assert_int_equal(chmod(key, 0600), 0);
    identity = world_load(folder, "client", NULL);
    net_identity_unref(identity);
    {
        EVP_PKEY *other = EVP_EC_gen("P-256");

        certs_write(folder, "client", "key", NULL, other);
        EVP_PKEY_free(other);
    }
    unit_refused(net_identity_load(&identity, folder, "client", NULL, &err), MCP_EDENIED, &err,
                 "fits the certificate");
    unit_write(cert, "no certificate", 14);
    unit_refused(net_identity_load(&identity, folder, "client", NULL, &err), MCP_EDENIED, &err,
                 "client.pem: no certificate");
    assert_null(identity);
    certs_remove(folder);
}

/* ---- others' clients ---------------------------------------------------------------- */

struct raw {
    bool        tls12, no_certificate, no_alpn;
    const char *alpn;
};

/* Speak as told; the reason of the alert that comes back, 0 = none. */
static int alert_of(const struct raw *how)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL     *ssl;
    char     path[600], byte;
    int      fd = world_dial_raw(), reason = 0;

    struct timeval patience = { .tv_usec = 300000 }; /* who is welcome gets no alert */

    assert_non_null(ctx);
    if (how->tls12)
        SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
    if (!how->no_certificate) {
        snprintf(path, sizeof(path), "%s/client.pem", world.folder);
        assert_int_equal(SSL_CTX_use_certificate_chain_file(ctx, path), 1);
        snprintf(path, sizeof(path), "%s/client.key", world.folder);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM), 1);
    }
    if (!how->no_alpn)
        assert_int_equal(SSL_CTX_set_alpn_protos(ctx, (const unsigned char *)how->alpn,
                                                 (unsigned)strlen(how->alpn)),
                         0);
    ssl = SSL_new(ctx);
    assert_non_null(ssl);
    SSL_set_fd(ssl, fd);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    ERR_clear_error();
    /* In TLS 1.3 the refusal of a certificate comes when the client already reads. */
    if (SSL_connect(ssl) == 1 && SSL_write(ssl, NGHTTP2_HELLO, 24) == 24)
        while (SSL_read(ssl, &byte, 1) == 1)
            ;
    reason = ERR_GET_REASON(ERR_peek_error());
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(fd);
    return reason;
}

static void clients_without_tls_13_a_certificate_or_h2_are_refused(void **state)
{
    static const struct {
        struct raw how;
        int        reason;
    } rows[] = {
        { { .alpn = "\2h2", .tls12 = true }, SSL_R_TLSV1_ALERT_PROTOCOL_VERSION },
        { { .alpn = "\10http/1.1" }, SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL },
        { { .alpn = "\2h2", .no_certificate = true }, SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED },
    };

    (void)state;
    world_serve(1, 0);
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        assert_int_equal(alert_of(&rows[i].how), rows[i].reason);
        WORLD_AWAIT(shakes_failed() == i + 1);
    }
    assert_int_equal(alert_of(&(struct raw){ .alpn = "\2h2" }),
                     0); /* the method tells them apart */
    assert_int_equal(world.served.calls, 0);
    world_stop();
}

/* Goal:   whoever does not say "h2" is not served, though its TLS is right. */
static void a_client_without_alpn_is_not_served(void **state)
{
    (void)state;
    world_serve(1, 0);
    assert_int_equal(alert_of(&(struct raw){ .no_alpn = true }),
                     SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
    world_stop();
}

static void a_client_without_tls_is_hung_up_on(void **state)
{
    char    answer[64];
    int     fd;
    ssize_t count;

    (void)state;
    world_serve(1, 0);
    fd = world_dial_raw();
    assert_int_equal(send(fd, NGHTTP2_HELLO, 24, MSG_NOSIGNAL), 24);
    do
        count = recv(fd, answer, sizeof(answer), 0);
    while (count > 0);
    assert_true(count == 0 || errno == ECONNRESET);
    WORLD_AWAIT(shakes_failed() == 1);
    close(fd);
    world_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_of_another_authority_is_refused),
        cmocka_unit_test(a_server_of_another_authority_is_refused),
        cmocka_unit_test(expired_certificates_are_refused),
        cmocka_unit_test(revoked_certificates_are_refused),
        cmocka_unit_test(a_certificate_for_another_host_is_refused),
        cmocka_unit_test(a_clients_certificate_makes_no_server),
        cmocka_unit_test(a_name_with_a_nul_inside_is_refused),
        cmocka_unit_test(a_keys_folder_that_is_unsafe_or_broken_is_refused),
        cmocka_unit_test(clients_without_tls_13_a_certificate_or_h2_are_refused),
        cmocka_unit_test(a_client_without_alpn_is_not_served),
        cmocka_unit_test(a_client_without_tls_is_hung_up_on),
    };

    return cmocka_run_group_tests_name("net/tls", tests, world_begin, world_end);
}
