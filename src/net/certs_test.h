/* net/certs_test.h - authorities and keys folders for tests, made with OpenSSL.
 *
 * SPDX-License-Identifier: MIT */
#ifndef NET_CERTS_TEST_H
#define NET_CERTS_TEST_H

#include "base/unit_test.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

struct certs_authority {
    EVP_PKEY *key;
    X509     *cert;
};

struct certs_spec {
    const char *name;         /* CN; NULL = the role */
    const char *alt;          /* "DNS:localhost,IP:127.0.0.1"; NULL = that */
    long        from_s, to_s; /* from now; 0, 0 = yesterday to tomorrow */
    long        serial;       /* 0 = 1000 */
    const char *usage;        /* NULL = by role */
};

static inline void certs_extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX      ctx;
    X509_EXTENSION *extension;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(cert, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static inline X509 *certs_blank(EVP_PKEY *key, const char *name, const char *unit, long serial,
                                long from_s, long to_s)
{
    X509      *cert = X509_new();
    X509_NAME *subject;

    assert_non_null(cert);
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial);
    X509_gmtime_adj(X509_getm_notBefore(cert), from_s);
    X509_gmtime_adj(X509_getm_notAfter(cert), to_s);
    X509_set_pubkey(cert, key);
    subject = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    if (unit != NULL)
        X509_NAME_add_entry_by_txt(subject, "OU", MBSTRING_ASC, (const unsigned char *)unit, -1, -1,
                                   0);
    return cert;
}

static inline void certs_authority_new(struct certs_authority *a, const char *name)
{
    a->key = EVP_EC_gen("P-256");
    assert_non_null(a->key);
    a->cert = certs_blank(a->key, name, NULL, 1, -86400, 86400);
    X509_set_issuer_name(a->cert, X509_get_subject_name(a->cert));
    certs_extend(a->cert, a->cert, NID_basic_constraints, "critical,CA:TRUE");
    certs_extend(a->cert, a->cert, NID_key_usage, "critical,keyCertSign");
    assert_true(X509_sign(a->cert, a->key, EVP_sha256()) > 0);
}

static inline void certs_authority_free(struct certs_authority *a)
{
    X509_free(a->cert);
    EVP_PKEY_free(a->key);
}

static inline void certs_write(const char *folder, const char *role, const char *ending, X509 *cert,
                               EVP_PKEY *key)
{
    char  path[600];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s.%s", folder, role, ending);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fchmod(fileno(f), 0600), 0);
    if (cert != NULL)
        assert_int_equal(PEM_write_X509(f, cert), 1);
    if (key != NULL)
        assert_int_equal(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(f), 0);
}

/* A certificate and key of `role`, and the authority's certificate beside them. */
static inline void certs_issue(const struct certs_authority *a, const char *folder,
                               const char *role, const struct certs_spec *given)
{
    struct certs_spec spec = *given;
    EVP_PKEY         *key = EVP_EC_gen("P-256");
    X509             *cert;

    assert_non_null(key);
    if (spec.from_s == 0 && spec.to_s == 0) {
        spec.from_s = -86400;
        spec.to_s = 86400;
    }
    if (spec.usage == NULL)
        spec.usage = strcmp(role, "worker") == 0 ? "serverAuth,clientAuth" : "clientAuth";
    cert = certs_blank(key, spec.name != NULL ? spec.name : role, role,
                       spec.serial != 0 ? spec.serial : 1000, spec.from_s, spec.to_s);
    X509_set_issuer_name(cert, X509_get_subject_name(a->cert));
    certs_extend(cert, a->cert, NID_subject_alt_name,
                 spec.alt != NULL ? spec.alt : "DNS:localhost,IP:127.0.0.1");
    certs_extend(cert, a->cert, NID_ext_key_usage, spec.usage);
    assert_true(X509_sign(cert, a->key, EVP_sha256()) > 0);
    mkdir(folder, 0700);
    certs_write(folder, "ca", "pem", a->cert, NULL);
    certs_write(folder, role, "pem", cert, NULL);
    certs_write(folder, role, "key", NULL, key);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static inline void certs_remove(const char *folder)
{
    DIR           *dir = opendir(folder);
    struct dirent *entry;
    char           path[800];

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.')
            remove(path);
    }
    if (dir != NULL)
        closedir(dir);
    rmdir(folder);
}

#endif
