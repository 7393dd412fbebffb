/* guard/revoke.c - taking identities back.
 *
 * What a user has at hand may be the certificate's file, a token (as text or as a file), a
 * token's id, or a name; each is understood as it is, in this order.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/keys.h"

#include "base/fail.h"
#include "guard/authority.h"
#include "guard/json.h"
#include "guard/jws.h"
#include "guard/lists.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { JTI_CHARS = 32 /* of those that mint.c makes */ };

struct revoking {
    struct guard_folder folder;
    int                 lock;
    json_t             *list;
    int64_t             now_s;
    uint32_t            count; /* added */
};

/* The sum of what guard_revoked_add_*() said. */
static int note(struct revoking *r, int added)
{
    if (added > 0)
        r->count++;
    return added < 0 ? added : MCP_OK;
}

static int add_token(struct revoking *r, const char *jti, mcp_error *err)
{
    return note(r, guard_revoked_add_token(r->list, jti, r->now_s, err));
}

static int add_identity(struct revoking *r, const struct guard_identity *who, mcp_error *err)
{
    char serial[2 * GUARD_SERIAL_BYTES + 1];

    guard_hex(serial, who->serial, who->serial_bytes);
    return note(r, guard_revoked_add_certificate(r->list, serial, who->name, r->now_s, err));
}

/* ---- a certificate ------------------------------------------------------------------ */

static int revoke_certificate(struct revoking *r, X509 *certificate, const char *name,
                              mcp_error *err)
{
    struct guard_identity who;
    X509                 *authority;
    int                   rc = guard_folder_certificate(&authority, &r->folder, "ca.pem", err);

    if (rc < 0)
        return rc;
    if (X509_cmp(certificate, authority) == 0)
        rc = base_fail(err, MCP_EINVAL,
                       "%s is the authority itself: to leave it behind, make a new one with 'mcp "
                       "keys init' in another folder",
                       name);
    else if (!guard_certificate_signed_by(certificate, authority))
        rc = base_fail(err, MCP_EINVAL, "%s was not issued by the authority of %s", name,
                       r->folder.path);
    X509_free(authority);
    if (rc == MCP_OK)
        rc = guard_certificate_identity(certificate, &who, err);
    return rc < 0 ? rc : add_identity(r, &who, err);
}

/* ---- a token ------------------------------------------------------------------------ */

/* Signed by a key of this folder, whatever else is wrong with it: it may have expired, and a
 * typing error must not be taken for a token. */
static int revoke_token(struct revoking *r, const char *token, size_t bytes, mcp_error *err)
{
    struct guard_keyring *ring;
    json_t               *claims = NULL;
    const char           *jti;
    int                   rc = guard_keyring_load_from(&ring, &r->folder, err);

    if (rc == MCP_OK)
        rc = guard_jws_open(&claims, ring, token, bytes, err);
    guard_keyring_unref(ring);
    if (rc < 0)
        return rc;
    jti = guard_json_text(claims, "jti");
    if (jti == NULL || !guard_is_jti(jti))
        rc = base_fail(err, MCP_EINVAL, "the token has no jti to revoke it by");
    else
        rc = add_token(r, jti, err);
    json_decref(claims);
    return rc;
}

static bool looks_like_token(const char *text, size_t bytes)
{
    size_t dots = 0;

    for (size_t i = 0; i < bytes; i++)
        dots += text[i] == '.';
    return dots == 2 && bytes > 100 && memcmp(text, "ey", 2) == 0; /* base64url of {" */
}

/* ---- a file ------------------------------------------------------------------------- */

/* 1 when it was a certificate or token, 0 when it is neither. */
static int revoke_file(struct revoking *r, const char *path, mcp_error *err)
{
    struct guard_bytes bytes;
    struct stat        st;
    X509              *certificate;
    size_t             line;
    bool               found = true;
    int                rc;

    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > GUARD_PEM_BYTES)
        return 0;
    rc = guard_file_read(path, GUARD_PEM_BYTES, &bytes, err);
    if (rc < 0)
        return rc;
    line = strcspn(bytes.data, " \r\n");
    if (looks_like_token(bytes.data, line)) {
        rc = revoke_token(r, bytes.data, line, err);
    } else {
        rc = guard_certificate_read(&certificate, &bytes, path, err);
        found = rc != MCP_EFORMAT;
        if (rc == MCP_OK)
            rc = revoke_certificate(r, certificate, path, err);
        X509_free(certificate);
    }
    guard_bytes_fini(&bytes);
    return !found ? 0 : rc < 0 ? rc : 1;
}

/* ---- a name ------------------------------------------------------------------------- */

/* All certificates issued to this name, or the one with this serial number: how many there
 * are. */
static int revoke_issued(struct revoking *r, const char *what, mcp_error *err)
{
    json_t *issued;
    int     found = 0, rc = guard_issued_load(&issued, &r->folder, err);

    if (rc < 0)
        return rc;
    const json_t *list = json_object_get(issued, "certificates");

    for (size_t i = 0; rc == MCP_OK && i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const char   *serial = guard_json_text(entry, "serial");
        const char   *name = guard_json_text(entry, "name");

        if (name == NULL || (strcmp(name, what) != 0 && strcmp(serial, what) != 0))
            continue;
        found++;
        rc = note(r, guard_revoked_add_certificate(r->list, serial, name, r->now_s, err));
    }
    json_decref(issued);
    return rc < 0 ? rc : found;
}

/* ---- any of them -------------------------------------------------------------------- */

static int revoke_any(struct revoking *r, const char *what, mcp_error *err)
{
    int found;

    if (strncmp(what, "jti:", 4) == 0)
        return guard_is_jti(what + 4) ? add_token(r, what + 4, err)
                                      : base_fail(err, MCP_EINVAL,
                                                  "'%.80s' is no token id: 1 to %d printable "
                                                  "characters",
                                                  what + 4, GUARD_JTI_BYTES - 1);
    if (looks_like_token(what, strlen(what)))
        return revoke_token(r, what, strlen(what), err);
    found = revoke_file(r, what, err);
    if (found == 0)
        found = revoke_issued(r, what, err);
    if (found != 0)
        return found < 0 ? found : MCP_OK;
    if (strlen(what) == JTI_CHARS && guard_is_serial(what))
        return add_token(r, what, err);
    return base_fail(
        err, MCP_ENOTFOUND,
        "'%.200s' is no certificate's or token's file, no token, and no name or serial "
        "number that %s issued; jti:ID revokes a token by its id",
        what, r->folder.path);
}

int guard_keys_revoke(const char *folder, const char *what, uint32_t *count, mcp_error *err)
{
    struct revoking r = { .folder = GUARD_FOLDER_CLOSED, .lock = -1, .now_s = time(NULL) };
    int             rc = guard_folder_open(&r.folder, folder, err);

    if (rc == MCP_OK)
        rc = guard_folder_lock(&r.folder, &r.lock, err);
    if (rc == MCP_OK)
        rc = guard_revoked_load(&r.list, &r.folder, err);
    if (rc == MCP_OK)
        rc = revoke_any(&r, what, err);
    if (rc == MCP_OK && r.count > 0)
        rc = guard_revoked_save(r.list, &r.folder, err);
    if (rc == MCP_OK)
        *count = r.count;
    json_decref(r.list);
    if (r.lock >= 0)
        (void)close(r.lock);
    guard_folder_close(&r.folder);
    return rc;
}
