/* net/identity.c - certificates and key of a keys folder, as two immutable SSL_CTX.
 *
 * Both sides of every connection demand the same of each other: TLS 1.3, ALPN h2, a
 * certificate of our authority, for its purpose (client or server), not revoked.
 *
 * SPDX-License-Identifier: MIT */
#include "net/tls.h"

#include "base/fail.h"
#include "guard/token.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum {
    PATH_BYTES = 4096,
    CHAIN_MAX = 4,                /* certificates above the peer's own */
    CHAIN_BYTES = 32 << 10,       /* of a peer's chain, before it is looked at */
    SERIAL_MAX = NET_SERIAL_BYTES /* RFC 5280 */
};

/* Preferred first.  An OpenSSL without ML-KEM (before 3.5) refuses the first list. */
static const char *const groups[] = { "X25519MLKEM768:X25519:P-256", "X25519:P-256" };

static int ssl_fail(mcp_error *err, int code, const char *what, const char *path)
{
    unsigned long e = ERR_peek_last_error();
    const char   *reason = ERR_reason_error_string(e);
    int           rc = base_fail(err, code, "%s: %s (%s)", path, what,
                       reason != NULL ? reason : "no reason given");

    ERR_clear_error();
    return rc;
}

static bool revoked(X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    const struct net_tls *tls = SSL_get_app_data(ssl);
    const ASN1_INTEGER   *serial = X509_get0_serialNumber(X509_STORE_CTX_get_current_cert(store));
    uint8_t               bytes[SERIAL_MAX];
    BIGNUM               *number;
    int                   count;
    bool                  yes = true; /* when it cannot be told */

    if (tls->identity->keyring == NULL)
        return false;
    number = ASN1_INTEGER_to_BN(serial, NULL);
    if (number == NULL)
        return true;
    count = BN_num_bytes(number);
    if (count <= SERIAL_MAX) {
        BN_bn2bin(number, bytes);
        yes = guard_keyring_cert_revoked(tls->identity->keyring, bytes, (size_t)count);
    }
    BN_free(number);
    return yes;
}

static int on_verify(int good, X509_STORE_CTX *store)
{
    if (good && revoked(store)) {
        X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REVOKED);
        return 0;
    }
    return good;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_bytes,
                   const unsigned char *in, unsigned int in_bytes, void *ctx)
{
    static const unsigned char h2[] = "\2h2";

    (void)ssl;
    (void)ctx;
    if (SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_bytes, h2, 3, in, in_bytes) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    return SSL_TLSEXT_ERR_OK;
}

/* Who offers no protocol at all is not asked by on_alpn(). */
static int on_client_hello(SSL *ssl, int *alert, void *ctx)
{
    const unsigned char *extension;
    size_t               bytes;

    (void)ctx;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation,
                                  &extension, &bytes) == 1)
        return SSL_CLIENT_HELLO_SUCCESS;
    *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
    return SSL_CLIENT_HELLO_ERROR;
}

static int set_groups(SSL_CTX *ctx)
{
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        if (SSL_CTX_set1_groups_list(ctx, groups[i]) == 1)
            return 1;
        ERR_clear_error();
    }
    return 0;
}

/* What does not depend on files. */
static SSL_CTX *ctx_new(bool server)
{
    static const unsigned char h2[] = "\2h2";
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

    if (ctx == NULL)
        return NULL;
    if (SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 || set_groups(ctx) != 1) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_verify_depth(ctx, CHAIN_MAX);
    SSL_CTX_set_max_cert_list(ctx, CHAIN_BYTES);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_verify);
    if (server) {
        /* No resumption: a resumed handshake would not look at the certificate again, which may
         * have been revoked meanwhile. */
        SSL_CTX_set_num_tickets(ctx, 0);
        SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
        SSL_CTX_set_client_hello_cb(ctx, on_client_hello, NULL);
    } else {
        SSL_CTX_set_alpn_protos(ctx, h2, 3);
    }
    return ctx;
}

/* Nobody but its owner may read a private key. */
static int check_key_file(const char *path, mcp_error *err)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return base_fail(err, MCP_ENOTFOUND, "%s: no such key (mcp keys init makes one)", path);
    if ((st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return base_fail(err, MCP_EDENIED,
                         "%s: others may read this private key (mode %03o): chmod 600 it", path,
                         (unsigned)st.st_mode & 0777);
    return MCP_OK;
}

/* Of our own certificate, so that we do not learn it from the peer's alert. */
static int check_dates(SSL_CTX *ctx, const char *path, mcp_error *err)
{
    const X509 *cert = SSL_CTX_get0_certificate(ctx);

    if (X509_cmp_current_time(X509_get0_notAfter(cert)) < 0)
        return base_fail(err, MCP_EDENIED,
                         "%s: the certificate has expired: make a new one (mcp keys issue)", path);
    if (X509_cmp_current_time(X509_get0_notBefore(cert)) > 0)
        return base_fail(err, MCP_EDENIED,
                         "%s: the certificate is not valid yet: is this machine's clock right?",
                         path);
    return MCP_OK;
}

static int ctx_fill(SSL_CTX *ctx, const char *folder, const char *role, mcp_error *err)
{
    char ca[PATH_BYTES], cert[PATH_BYTES], key[PATH_BYTES];
    int  rc;

    if ((size_t)snprintf(ca, sizeof(ca), "%s/ca.pem", folder) >= sizeof(ca) ||
        (size_t)snprintf(cert, sizeof(cert), "%s/%s.pem", folder, role) >= sizeof(cert) ||
        (size_t)snprintf(key, sizeof(key), "%s/%s.key", folder, role) >= sizeof(key))
        return base_fail(err, MCP_EINVAL, "the name of the keys folder is too long");
    rc = check_key_file(key, err);
    if (rc < 0)
        return rc;
    if (SSL_CTX_load_verify_file(ctx, ca) != 1)
        return ssl_fail(err, MCP_EDENIED, "no certificate of an authority", ca);
    if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1)
        return ssl_fail(err, MCP_EDENIED, "no certificate", cert);
    if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(ctx) != 1)
        return ssl_fail(err, MCP_EDENIED, "no private key that fits the certificate", key);
    return check_dates(ctx, cert, err);
}

int net_identity_load(struct net_identity **out, const char *folder, const char *role,
                      struct guard_keyring *keyring, mcp_error *err)
{
    struct net_identity *id = calloc(1, sizeof(*id));
    int                  rc;

    *out = NULL;
    ERR_clear_error();
    if (id == NULL)
        return base_fail(err, MCP_ENOMEM, "no memory for an identity");
    atomic_init(&id->refs, 1);
    id->keyring = keyring != NULL ? guard_keyring_ref(keyring) : NULL;
    id->server = ctx_new(true);
    id->client = ctx_new(false);
    if (id->server == NULL || id->client == NULL) {
        rc = ssl_fail(err, MCP_ENOTSUP, "OpenSSL does not offer TLS 1.3", folder);
        goto out;
    }
    rc = ctx_fill(id->server, folder, role, err);
    if (rc < 0)
        goto out;
    rc = ctx_fill(id->client, folder, role, err);
    if (rc < 0)
        goto out;
    *out = id;
    id = NULL;
out:
    net_identity_unref(id);
    return rc;
}

struct net_identity *net_identity_ref(struct net_identity *identity)
{
    atomic_fetch_add(&identity->refs, 1);
    return identity;
}

void net_identity_unref(struct net_identity *identity)
{
    if (identity == NULL || atomic_fetch_sub(&identity->refs, 1) > 1)
        return;
    SSL_CTX_free(identity->server);
    SSL_CTX_free(identity->client);
    if (identity->keyring != NULL)
        guard_keyring_unref(identity->keyring);
    free(identity);
}
