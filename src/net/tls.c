/* net/tls.c - see tls.h.
 *
 * OpenSSL reads and writes through a BIO of our own, which lends it the bytes that came and
 * gathers what must go: one copy less than its memory BIO, and no growth beyond OUT_BYTES_MAX.
 *
 * SPDX-License-Identifier: MIT */
#include "net/tls.h"

#include "base/fail.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    OUT_BYTES_MAX = 256 << 10, /* a backlog of 64 KiB, a record, a certificate chain: with room */
    OUT_BYTES_FIRST = 4 << 10,
    OUT_BYTES_KEPT = 32 << 10, /* by an idle connection */
};

/* ---- our BIO ------------------------------------------------------------------------ */

static bool buffer_add(struct net_buffer *b, const void *bytes, size_t count)
{
    size_t   cap = b->cap > 0 ? b->cap : OUT_BYTES_FIRST;
    uint8_t *grown;

    if (b->first > 0 && b->first + b->count + count > b->cap) {
        memmove(b->bytes, b->bytes + b->first, b->count);
        b->first = 0;
    }
    while (b->count + count > cap)
        cap *= 2;
    if (cap > OUT_BYTES_MAX)
        return false;
    if (cap > b->cap) {
        grown = realloc(b->bytes, cap);
        if (grown == NULL)
            return false;
        b->bytes = grown;
        b->cap = cap;
    }
    memcpy(b->bytes + b->first + b->count, bytes, count);
    b->count += count;
    return true;
}

void net_buffer_trim(struct net_buffer *b)
{
    if (b->count > 0)
        return;
    b->first = 0;
    if (b->cap > OUT_BYTES_KEPT) {
        free(b->bytes);
        b->bytes = NULL;
        b->cap = 0;
    }
}

static int on_bio_write(BIO *bio, const char *bytes, int count)
{
    struct net_tls *t = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    return count > 0 && buffer_add(&t->out, bytes, (size_t)count) ? count : -1;
}

static int on_bio_read(BIO *bio, char *bytes, int count)
{
    struct net_tls *t = BIO_get_data(bio);
    size_t          step = count > 0 ? (size_t)count : 0;

    BIO_clear_retry_flags(bio);
    step = step > t->in_bytes ? t->in_bytes : step;
    if (step == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(bytes, t->in, step);
    t->in += step;
    t->in_bytes -= step;
    return (int)step;
}

static long on_bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP ? 1 : 0;
}

static int on_bio_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

static BIO_METHOD *bio_method; /* for the life of the process */

static void bio_method_make(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "mcp");

    if (m == NULL)
        return;
    BIO_meth_set_write(m, on_bio_write);
    BIO_meth_set_read(m, on_bio_read);
    BIO_meth_set_ctrl(m, on_bio_ctrl);
    BIO_meth_set_create(m, on_bio_create);
    bio_method = m;
}

/* ---- open and close ----------------------------------------------------------------- */

/* A client expects the server's certificate to name the host that was dialled. */
static bool expect_host(SSL *ssl, const char *host)
{
    uint8_t address[16];

    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    return SSL_set_tlsext_host_name(ssl, host) == 1 && SSL_set1_host(ssl, host) == 1;
}

int net_tls_open(struct net_tls *t, struct net_identity *identity, const char *host, mcp_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    BIO                  *bio = NULL;

    memset(t, 0, sizeof(*t));
    ERR_clear_error();
    pthread_once(&once, bio_method_make);
    t->server = t->greeting = host == NULL;
    t->ssl = SSL_new(t->server ? identity->server : identity->client);
    if (t->ssl != NULL && bio_method != NULL)
        bio = BIO_new(bio_method);
    if (bio == NULL || (host != NULL && !expect_host(t->ssl, host))) {
        BIO_free(bio);
        SSL_free(t->ssl);
        t->ssl = NULL;
        return base_fail(err, MCP_ENOMEM, "no memory for a TLS connection");
    }
    t->identity = net_identity_ref(identity);
    BIO_set_data(bio, t);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_app_data(t->ssl, t);
    if (t->server)
        SSL_set_accept_state(t->ssl);
    else
        SSL_set_connect_state(t->ssl);
    return MCP_OK;
}

void net_tls_close(struct net_tls *t)
{
    SSL_free(t->ssl);
    net_identity_unref(t->identity);
    free(t->out.bytes);
    memset(t, 0, sizeof(*t));
}

/* ---- bytes -------------------------------------------------------------------------- */

void net_tls_input(struct net_tls *t, const uint8_t *bytes, size_t count)
{
    t->in = bytes;
    t->in_bytes = count;
}

static enum net_tls_step failed(struct net_tls *t)
{
    t->error = ERR_peek_error();
    t->verify_error = SSL_get_verify_result(t->ssl);
    ERR_clear_error();
    return NET_TLS_FAILED;
}

enum net_tls_step net_tls_step(struct net_tls *t)
{
    uint8_t early[1];
    size_t  count;
    int     rc;

    ERR_clear_error();
    if (t->greeting) {
        /* The way to write at half a round trip.  We announce no early data, so none comes. */
        rc = SSL_read_early_data(t->ssl, early, sizeof(early), &count);
        if (rc == SSL_READ_EARLY_DATA_FINISH) {
            t->greeting = false;
            return NET_TLS_GREET;
        }
        if (rc == SSL_READ_EARLY_DATA_ERROR && SSL_get_error(t->ssl, 0) == SSL_ERROR_WANT_READ)
            return NET_TLS_WANT;
        return failed(t);
    }
    rc = SSL_do_handshake(t->ssl);
    if (rc == 1)
        return NET_TLS_READY;
    return SSL_get_error(t->ssl, rc) == SSL_ERROR_WANT_READ ? NET_TLS_WANT : failed(t);
}

int net_tls_greet(struct net_tls *t, const uint8_t *bytes, size_t count)
{
    size_t written;

    ERR_clear_error();
    return SSL_write_early_data(t->ssl, bytes, count, &written) == 1 && written == count ? 0 : -1;
}

long net_tls_read(struct net_tls *t, uint8_t *out, size_t cap)
{
    size_t count = 0;
    int    rc;

    ERR_clear_error();
    rc = SSL_read_ex(t->ssl, out, cap, &count);
    if (rc == 1)
        return (long)count;
    switch (SSL_get_error(t->ssl, rc)) {
    case SSL_ERROR_WANT_READ: return 0;
    case SSL_ERROR_ZERO_RETURN: return NET_TLS_END;
    default: failed(t); return NET_TLS_BROKEN;
    }
}

int net_tls_write(struct net_tls *t, const uint8_t *bytes, size_t count)
{
    size_t written = 0;

    ERR_clear_error();
    while (count > 0) {
        if (SSL_write_ex(t->ssl, bytes, count, &written) != 1)
            return -1;
        bytes += written;
        count -= written;
    }
    return 0;
}

void net_tls_bye(struct net_tls *t)
{
    ERR_clear_error();
    if (t->ssl != NULL && SSL_is_init_finished(t->ssl))
        SSL_shutdown(t->ssl);
    ERR_clear_error();
}

/* ---- who the peer is ---------------------------------------------------------------- */

bool net_tls_is_h2(const struct net_tls *t)
{
    const unsigned char *chosen;
    unsigned             bytes;

    SSL_get0_alpn_selected(t->ssl, &chosen, &bytes);
    return bytes == 2 && memcmp(chosen, "h2", 2) == 0;
}

/* False: a field that is there but cannot be a C string (a NUL inside is an old trick). */
static bool name_field(const X509_NAME *name, int nid, char *out, size_t cap)
{
    int            at = X509_NAME_get_index_by_NID(name, nid, -1), length;
    unsigned char *utf8 = NULL;
    bool           good;

    out[0] = '\0';
    if (at < 0)
        return true;
    length = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    good = length >= 0 && (size_t)length < cap;
    for (int i = 0; i < length && good; i++)
        good = utf8[i] >= 0x20 && utf8[i] != 0x7f;
    if (good)
        memcpy(out, utf8, (size_t)length + 1);
    OPENSSL_free(utf8);
    return good;
}

bool net_tls_peer(const struct net_tls *t, struct net_peer *peer)
{
    X509            *cert = SSL_get1_peer_certificate(t->ssl);
    const X509_NAME *name;
    BIGNUM          *serial = NULL;
    unsigned         digest_bytes = 0;
    bool             good = false;

    if (cert == NULL)
        return false;
    name = X509_get_subject_name(cert);
    serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
    if (serial == NULL || BN_num_bytes(serial) > NET_SERIAL_BYTES ||
        X509_digest(cert, EVP_sha256(), peer->cert_sha256, &digest_bytes) != 1)
        goto out;
    peer->serial_bytes = (size_t)BN_bn2bin(serial, peer->serial);
    good = name_field(name, NID_commonName, peer->name, sizeof(peer->name)) &&
           name_field(name, NID_organizationalUnitName, peer->role, sizeof(peer->role));
    snprintf(peer->tls, sizeof(peer->tls), "%s %s %s", SSL_get_version(t->ssl),
             SSL_get_cipher(t->ssl),
             SSL_group_to_name(t->ssl, (int)SSL_get_negotiated_group(t->ssl)));
out:
    BN_free(serial);
    X509_free(cert);
    return good;
}
