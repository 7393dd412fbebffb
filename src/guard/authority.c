/* guard/authority.c - see authority.h.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/authority.h"

#include "base/fail.h"
#include "guard/lists.h"

#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int guard_name_check(const char *name, mcp_error *err)
{
    size_t chars = strlen(name);

    if (chars == 0 || chars >= GUARD_NAME_BYTES ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != chars)
        return base_fail(err, MCP_EINVAL,
                         "the name '%.80s' is not 1 to %d of the characters a-z A-Z 0-9 . _ -",
                         name, GUARD_NAME_BYTES - 1);
    return MCP_OK;
}

/* ---- pairs -------------------------------------------------------------------------- */

static int finish_pair(struct guard_pair *pair, mcp_error *err)
{
    int rc = guard_key_private_pem(pair->key, &pair->key_pem, err);

    if (rc == MCP_OK)
        rc = guard_certificate_pem(pair->certificate, &pair->certificate_pem, err);
    if (rc == MCP_OK)
        rc = guard_certificate_identity(pair->certificate, &pair->who, err);
    return rc;
}

int guard_pair_make_authority(struct guard_pair *pair, int64_t now_s, mcp_error *err)
{
    int rc;

    *pair = (struct guard_pair){ 0 };
    rc = guard_key_new(&pair->key, GUARD_P256, err);
    if (rc == MCP_OK)
        rc = guard_certificate_authority(&pair->certificate, pair->key, now_s, err);
    if (rc == MCP_OK)
        rc = finish_pair(pair, err);
    return rc;
}

int guard_pair_make(struct guard_pair *pair, mcp_role role, const char *name,
                    const struct guard_hosts *hosts, const struct guard_pair *authority,
                    int64_t now_s, mcp_error *err)
{
    int rc;

    *pair = (struct guard_pair){ 0 };
    rc = guard_key_new(&pair->key, GUARD_P256, err);
    if (rc == MCP_OK)
        rc = guard_certificate_issue(&pair->certificate, pair->key, role, name, hosts,
                                     authority->certificate, authority->key, now_s, err);
    if (rc == MCP_OK)
        rc = finish_pair(pair, err);
    return rc;
}

void guard_pair_fini(struct guard_pair *pair)
{
    guard_bytes_fini(&pair->key_pem);
    guard_bytes_fini(&pair->certificate_pem);
    X509_free(pair->certificate);
    EVP_PKEY_free(pair->key);
    *pair = (struct guard_pair){ 0 };
}

/* ---- files -------------------------------------------------------------------------- */

int guard_folder_certificate(X509 **out, const struct guard_folder *folder, const char *file,
                             mcp_error *err)
{
    char               path[GUARD_PATH_BYTES + 64];
    struct guard_bytes pem;
    int                rc;

    *out = NULL;
    rc = guard_folder_read(folder, file, GUARD_PUBLIC, GUARD_PEM_BYTES, &pem, err);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof(path), "%s/%s", folder->path, file);
    rc = guard_certificate_read(out, &pem, path, err);
    guard_bytes_fini(&pem);
    return rc;
}

int guard_folder_key(EVP_PKEY **out, const struct guard_folder *folder, const char *file,
                     mcp_error *err)
{
    char               path[GUARD_PATH_BYTES + 64];
    struct guard_bytes pem;
    int                rc;

    *out = NULL;
    rc = guard_folder_read(folder, file, GUARD_SECRET, GUARD_PEM_BYTES, &pem, err);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof(path), "%s/%s", folder->path, file);
    rc = guard_key_read_private(out, &pem, path, err);
    guard_bytes_fini(&pem);
    return rc;
}

/* ---- the authority ------------------------------------------------------------------ */

static int load_pair(struct guard_authority *a, mcp_error *err)
{
    mcp_error why = { 0 };
    int       rc = guard_folder_certificate(&a->pair.certificate, &a->folder, "ca.pem", err);

    if (rc < 0)
        return rc;
    rc = guard_folder_key(&a->pair.key, &a->folder, "ca.key", &why);
    if (rc == MCP_ENOTFOUND)
        return base_fail(err, rc,
                         "%s has no ca.key: certificates are made in the folder that 'mcp keys "
                         "init' made",
                         a->folder.path);
    if (rc < 0)
        return base_fail(err, rc, "%s", why.text);
    rc = guard_certificate_identity(a->pair.certificate, &a->pair.who, err);
    if (rc < 0)
        return rc;
    if (!guard_certificate_is_authority(a->pair.certificate))
        return base_fail(err, MCP_EFORMAT, "%s/ca.pem is no authority's certificate",
                         a->folder.path);
    if (X509_check_private_key(a->pair.certificate, a->pair.key) != 1) {
        ERR_clear_error();
        return base_fail(err, MCP_EFORMAT, "ca.key of %s does not belong to its ca.pem",
                         a->folder.path);
    }
    return MCP_OK;
}

int guard_authority_open(struct guard_authority *authority, const char *path, mcp_error *err)
{
    int rc;

    *authority = (struct guard_authority)GUARD_AUTHORITY_NONE;
    rc = guard_folder_open(&authority->folder, path, err);
    if (rc == MCP_OK)
        rc = guard_folder_lock(&authority->folder, &authority->lock, err);
    if (rc == MCP_OK)
        rc = load_pair(authority, err);
    if (rc < 0)
        guard_authority_close(authority);
    return rc;
}

void guard_authority_close(struct guard_authority *authority)
{
    guard_pair_fini(&authority->pair);
    if (authority->lock >= 0)
        (void)close(authority->lock);
    authority->lock = -1;
    guard_folder_close(&authority->folder);
}

int guard_authority_record(const struct guard_authority *authority,
                           const struct guard_identity *identity, mcp_error *err)
{
    json_t *issued;
    int     rc = guard_issued_load(&issued, &authority->folder, err);

    if (rc == MCP_OK)
        rc = guard_issued_add(issued, identity, err);
    if (rc == MCP_OK)
        rc = guard_issued_save(issued, &authority->folder, err);
    json_decref(issued);
    return rc;
}
