/* guard/certificate.c - see certificate.h.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/certificate.h"

#include "base/fail.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { DAY_S = 24 * 3600, MADE_SERIAL_BYTES = 16 };

const char *const guard_role_names[GUARD_ROLES] = {
    [MCP_ROLE_WORKER] = "worker",
    [MCP_ROLE_CLIENT] = "client",
    [MCP_ROLE_ADMIN] = "admin",
};

/* ---- making ------------------------------------------------------------------------- */

struct extension {
    int         nid;
    const char *text; /* as openssl.cnf writes it */
};

static const struct extension authority_extensions[] = {
    { NID_basic_constraints, "critical,CA:TRUE,pathlen:0" },
    { NID_key_usage, "critical,keyCertSign,cRLSign" },
    { NID_subject_key_identifier, "hash" },
    { 0, NULL },
};

static const struct extension worker_extensions[] = {
    { NID_basic_constraints, "critical,CA:FALSE" },
    { NID_key_usage, "critical,digitalSignature" },
    { NID_ext_key_usage, "serverAuth" },
    { NID_subject_key_identifier, "hash" },
    { NID_authority_key_identifier, "keyid:always" },
    { 0, NULL },
};

static const struct extension client_extensions[] = {
    { NID_basic_constraints, "critical,CA:FALSE" },
    { NID_key_usage, "critical,digitalSignature" },
    { NID_ext_key_usage, "clientAuth" },
    { NID_subject_key_identifier, "hash" },
    { NID_authority_key_identifier, "keyid:always" },
    { 0, NULL },
};

static bool add_extensions(X509 *x, X509 *issuer, const struct extension *list)
{
    X509V3_CTX ctx;

    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    for (; list->text != NULL; list++) {
        X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, list->nid, list->text);
        bool            added = extension != NULL && X509_add_ext(x, extension, -1) == 1;

        X509_EXTENSION_free(extension);
        if (!added)
            return false;
    }
    return true;
}

/* The name as it stands in the SAN; NULL when memory is short. */
static GENERAL_NAME *general_name(const char *host)
{
    GENERAL_NAME      *name = GENERAL_NAME_new();
    ASN1_OCTET_STRING *value;
    uint8_t            bytes[16];
    int                kind = inet_pton(AF_INET, host, bytes) == 1    ? 4
                              : inet_pton(AF_INET6, host, bytes) == 1 ? 16
                                                                      : 0;

    value = kind > 0 ? ASN1_OCTET_STRING_new() : ASN1_IA5STRING_new();
    if (name == NULL || value == NULL ||
        ASN1_STRING_set(value, kind > 0 ? (const void *)bytes : host,
                        kind > 0 ? kind : (int)strlen(host)) != 1) {
        GENERAL_NAME_free(name);
        ASN1_STRING_free(value);
        return NULL;
    }
    GENERAL_NAME_set0_value(name, kind > 0 ? GEN_IPADD : GEN_DNS, value);
    return name;
}

static bool add_hosts(X509 *x, const struct guard_hosts *hosts)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    bool           good = names != NULL;

    for (size_t i = 0; good && i < hosts->count; i++) {
        GENERAL_NAME *name = general_name(hosts->text[i]);

        good = name != NULL && sk_GENERAL_NAME_push(names, name) > 0;
        if (!good)
            GENERAL_NAME_free(name);
    }
    good = good && X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1;
    GENERAL_NAMES_free(names);
    return good;
}

/* A positive number of always 16 bytes, of which 126 bits are random. */
static bool set_serial(X509 *x)
{
    uint8_t bytes[MADE_SERIAL_BYTES];
    BIGNUM *number;
    bool    good;

    if (RAND_bytes(bytes, sizeof(bytes)) != 1)
        return false;
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    number = BN_bin2bn(bytes, sizeof(bytes), NULL);
    good = number != NULL && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x)) != NULL;
    BN_free(number);
    return good;
}

static bool set_subject(X509 *x, const char *name, const char *role)
{
    X509_NAME *subject = X509_get_subject_name(x);

    return X509_NAME_add_entry_by_NID(subject, NID_organizationalUnitName, MBSTRING_ASC,
                                      (const unsigned char *)role, -1, -1, 0) == 1 &&
           X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_ASC,
                                      (const unsigned char *)name, -1, -1, 0) == 1;
}

/* All but issuer, extensions and signature. */
static X509 *begin(EVP_PKEY *key, const char *name, const char *role, int64_t begins_s,
                   int64_t expires_s)
{
    X509 *x = X509_new();

    if (x != NULL && X509_set_version(x, X509_VERSION_3) == 1 && set_serial(x) &&
        set_subject(x, name, role) && ASN1_TIME_set(X509_getm_notBefore(x), begins_s) != NULL &&
        ASN1_TIME_set(X509_getm_notAfter(x), expires_s) != NULL && X509_set_pubkey(x, key) == 1)
        return x;
    X509_free(x);
    return NULL;
}

int guard_certificate_authority(X509 **out, EVP_PKEY *key, int64_t now_s, mcp_error *err)
{
    char  id[GUARD_HEX_BYTES], name[GUARD_NAME_BYTES];
    X509 *x;
    int   rc = guard_key_id(key, id, err);

    *out = NULL;
    if (rc < 0)
        return rc;
    /* Two authorities must not have the same name: OpenSSL looks issuers up by it. */
    snprintf(name, sizeof(name), "mcp authority %.8s", id);
    x = begin(key, name, "authority", now_s - GUARD_BACKDATE_S,
              now_s + (int64_t)GUARD_AUTHORITY_DAYS * DAY_S);
    if (x == NULL || X509_set_issuer_name(x, X509_get_subject_name(x)) != 1 ||
        !add_extensions(x, x, authority_extensions) || X509_sign(x, key, EVP_sha256()) <= 0) {
        X509_free(x);
        return guard_openssl_fail(err, MCP_EIO, "making the authority's certificate");
    }
    *out = x;
    return MCP_OK;
}

int guard_certificate_issue(X509 **out, EVP_PKEY *key, mcp_role role, const char *name,
                            const struct guard_hosts *hosts, X509 *authority,
                            EVP_PKEY *authority_key, int64_t now_s, mcp_error *err)
{
    struct guard_identity by;
    int64_t               expires_s = now_s + (int64_t)GUARD_LEAF_DAYS * DAY_S;
    X509                 *x;
    int                   rc = guard_certificate_identity(authority, &by, err);

    *out = NULL;
    if (rc < 0)
        return rc;
    if (by.expires_s <= now_s)
        return base_fail(err, MCP_EINVAL,
                         "the authority's certificate has expired: make a new one "
                         "with 'mcp keys init' in another folder");
    if (expires_s > by.expires_s)
        expires_s = by.expires_s;
    x = begin(key, name, guard_role_names[role], now_s - GUARD_BACKDATE_S, expires_s);
    if (x == NULL || X509_set_issuer_name(x, X509_get_subject_name(authority)) != 1 ||
        !add_extensions(x, authority,
                        role == MCP_ROLE_WORKER ? worker_extensions : client_extensions) ||
        (role == MCP_ROLE_WORKER && !add_hosts(x, hosts)) ||
        X509_sign(x, authority_key, EVP_sha256()) <= 0) {
        X509_free(x);
        return guard_openssl_fail(err, MCP_EIO, "making a certificate");
    }
    *out = x;
    return MCP_OK;
}

/* ---- reading ------------------------------------------------------------------------ */

int guard_certificate_pem(X509 *certificate, struct guard_bytes *pem, mcp_error *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int  rc;

    *pem = (struct guard_bytes){ 0 };
    if (bio == NULL || PEM_write_bio_X509(bio, certificate) != 1)
        rc = guard_openssl_fail(err, MCP_EIO, "writing a certificate");
    else
        rc = guard_bio_take(bio, pem, err);
    BIO_free(bio);
    return rc;
}

int guard_certificate_read(X509 **out, const struct guard_bytes *pem, const char *name,
                           mcp_error *err)
{
    BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->count);

    *out = NULL;
    if (bio == NULL)
        return guard_openssl_fail(err, MCP_ENOMEM, name);
    *out = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    BIO_free(bio);
    ERR_clear_error();
    return *out != NULL ? MCP_OK
                        : base_fail(err, MCP_EFORMAT, "%s holds no certificate in PEM", name);
}

/* A printable ASCII entry of the subject, which must be there once. */
static bool subject_text(X509 *x, int nid, char *text, size_t cap)
{
    const X509_NAME   *subject = X509_get_subject_name(x);
    int                at = X509_NAME_get_index_by_NID(subject, nid, -1), bytes;
    const ASN1_STRING *value;

    if (at < 0 || X509_NAME_get_index_by_NID(subject, nid, at) >= 0)
        return false;
    value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    bytes = ASN1_STRING_length(value);
    if (bytes <= 0 || (size_t)bytes >= cap)
        return false;
    for (int i = 0; i < bytes; i++) {
        unsigned char c = ASN1_STRING_get0_data(value)[i];

        if (c < 0x20 || c > 0x7e)
            return false;
        *text++ = (char)c;
    }
    *text = '\0';
    return true;
}

static bool unix_time(const ASN1_TIME *time, int64_t *out)
{
    struct tm tm = { 0 };

    if (ASN1_TIME_to_tm(time, &tm) != 1)
        return false;
    *out = timegm(&tm);
    return true;
}

int guard_certificate_identity(X509 *certificate, struct guard_identity *identity, mcp_error *err)
{
    const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
    int                 bytes = ASN1_STRING_length(serial);
    unsigned            digest_bytes = sizeof(identity->sha256);

    *identity = (struct guard_identity){ 0 };
    if (!subject_text(certificate, NID_commonName, identity->name, sizeof(identity->name)) ||
        !subject_text(certificate, NID_organizationalUnitName, identity->role,
                      sizeof(identity->role)))
        return base_fail(err, MCP_EFORMAT,
                         "the certificate has no single CN and OU of printable characters: it was "
                         "not made by mcp");
    if (bytes <= 0 || bytes > GUARD_SERIAL_BYTES || ASN1_STRING_type(serial) != V_ASN1_INTEGER)
        return base_fail(err, MCP_EFORMAT, "the certificate's serial number is not 1 to %d bytes",
                         GUARD_SERIAL_BYTES);
    memcpy(identity->serial, ASN1_STRING_get0_data(serial), (size_t)bytes);
    identity->serial_bytes = (size_t)bytes;
    if (!unix_time(X509_get0_notBefore(certificate), &identity->begins_s) ||
        !unix_time(X509_get0_notAfter(certificate), &identity->expires_s) ||
        X509_digest(certificate, EVP_sha256(), identity->sha256, &digest_bytes) != 1)
        return guard_openssl_fail(err, MCP_EFORMAT, "reading a certificate");
    return MCP_OK;
}

bool guard_certificate_signed_by(X509 *certificate, X509 *authority)
{
    EVP_PKEY *key = X509_get0_pubkey(authority);
    bool      good = key != NULL && X509_check_issued(authority, certificate) == X509_V_OK &&
                X509_verify(certificate, key) == 1;

    ERR_clear_error();
    return good;
}

bool guard_certificate_is_authority(X509 *certificate)
{
    bool good = X509_check_ca(certificate) == 1;

    ERR_clear_error(); /* extensions that it could not read */
    return good && guard_certificate_signed_by(certificate, certificate);
}

int guard_certificate_authority_id(X509 *authority, char id[GUARD_AUTHORITY_BYTES], mcp_error *err)
{
    char hex[GUARD_HEX_BYTES];
    int  rc = guard_key_id(X509_get0_pubkey(authority), hex, err);

    if (rc == MCP_OK)
        snprintf(id, GUARD_AUTHORITY_BYTES, "mcp:%s", hex);
    return rc;
}

/* "gpu-1.lan", "192.0.2.1"; NULL for other kinds. */
static json_t *host_text(const GENERAL_NAME *name)
{
    int                kind = 0;
    const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &kind);
    const uint8_t     *bytes = kind == GEN_DNS || kind == GEN_IPADD ? ASN1_STRING_get0_data(value)
                                                                    : NULL;
    char               text[INET6_ADDRSTRLEN] = "";

    if (kind == GEN_DNS)
        return json_stringn((const char *)bytes, (size_t)ASN1_STRING_length(value));
    if (kind == GEN_IPADD && (ASN1_STRING_length(value) == 4 || ASN1_STRING_length(value) == 16))
        return json_string(inet_ntop(ASN1_STRING_length(value) == 4 ? AF_INET : AF_INET6, bytes,
                                     text, sizeof(text)));
    return NULL;
}

json_t *guard_certificate_hosts(X509 *certificate)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    json_t        *list = json_array();

    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        json_t *text = host_text(sk_GENERAL_NAME_value(names, i));

        if (text != NULL && json_array_append_new(list, text) < 0)
            break; /* a shorter list, for people only */
    }
    GENERAL_NAMES_free(names);
    ERR_clear_error();
    return list;
}
