/* guard/describe.c - what a keys folder holds, as JSON.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/keys.h"

#include "base/fail.h"
#include "guard/authority.h"
#include "guard/base64.h"
#include "guard/endpoint.h"
#include "guard/json.h"
#include "guard/keyring.h"
#include "guard/lists.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

struct view {
    struct guard_folder folder;
    json_t             *revoked;
    json_t             *object; /* what is being made */
};

static int no_memory(mcp_error *err)
{
    return base_fail(err, MCP_ENOMEM, "out of memory for the description of a keys folder");
}

/* Takes the reference, also of NULL. */
static int put(json_t *object, const char *key, json_t *value, mcp_error *err)
{
    return json_object_set_new(object, key, value) == 0 ? MCP_OK : no_memory(err);
}

/* Missing is no failure here: *out stays NULL. */
static int certificate(X509 **out, const struct view *v, const char *file, mcp_error *err)
{
    mcp_error why = { 0 };
    int       rc = guard_folder_certificate(out, &v->folder, file, &why);

    return rc < 0 && rc != MCP_ENOTFOUND ? base_fail(err, rc, "%s", why.text) : MCP_OK;
}

/* "ok", "missing", "other": whether the private key of a certificate is there. */
static const char *key_state(const struct view *v, X509 *x, const char *file)
{
    EVP_PKEY   *key;
    const char *state = "missing";
    int         rc = guard_folder_key(&key, &v->folder, file, NULL);

    if (rc == MCP_OK)
        state = X509_check_private_key(x, key) == 1 ? "ok" : "other";
    else if (rc != MCP_ENOTFOUND)
        state = "unusable";
    ERR_clear_error();
    EVP_PKEY_free(key);
    return state;
}

/* What all certificates have. */
static json_t *identity_json(const struct guard_identity *who)
{
    char serial[2 * GUARD_SERIAL_BYTES + 1], sha256[GUARD_HEX_BYTES];

    guard_hex(serial, who->serial, who->serial_bytes);
    guard_hex(sha256, who->sha256, sizeof(who->sha256));
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I}", "name", who->name, "role", who->role,
                     "serial", serial, "sha256", sha256, "begins", (json_int_t)who->begins_s,
                     "expires", (json_int_t)who->expires_s);
}

static int add_authority(const struct view *v, mcp_error *err)
{
    struct guard_identity who;
    char                  id[GUARD_AUTHORITY_BYTES];
    X509                 *x;
    json_t               *object = NULL;
    int                   rc = certificate(&x, v, "ca.pem", err);

    if (rc < 0 || x == NULL)
        return rc < 0 ? rc : put(v->object, "authority", json_null(), err);
    rc = guard_certificate_identity(x, &who, err);
    if (rc == MCP_OK)
        rc = guard_certificate_authority_id(x, id, err);
    if (rc == MCP_OK) {
        object = identity_json(&who);
        rc = put(object, "id", json_string(id), err);
    }
    if (rc == MCP_OK)
        rc = put(object, "key", json_string(key_state(v, x, "ca.key")), err);
    X509_free(x);
    if (rc == MCP_OK)
        return put(v->object, "authority", object, err);
    json_decref(object);
    return rc;
}

/* ---- certificates of the roles ------------------------------------------------------ */

static int role_json(json_t **out, const struct view *v, X509 *x, const char *role, mcp_error *err)
{
    struct guard_identity who;
    json_t               *object;
    char                  file[32];
    int                   rc = guard_certificate_identity(x, &who, err);

    if (rc < 0)
        return rc;
    object = identity_json(&who);
    snprintf(file, sizeof(file), "%s.pem", role);
    rc = put(object, "file", json_string(file), err);
    snprintf(file, sizeof(file), "%s.key", role);
    if (rc == MCP_OK)
        rc = put(object, "key", json_string(key_state(v, x, file)), err);
    if (rc == MCP_OK)
        rc = put(object, "hosts", guard_certificate_hosts(x), err);
    if (rc == MCP_OK)
        rc = put(object, "revoked",
                 json_boolean(
                     guard_revoked_has_certificate(v->revoked, guard_json_text(object, "serial"))),
                 err);
    if (rc == MCP_OK)
        *out = object;
    else
        json_decref(object);
    return rc;
}

static int add_roles(const struct view *v, mcp_error *err)
{
    json_t *list = json_array();
    int     rc = list != NULL ? MCP_OK : no_memory(err);

    for (int i = 0; rc == MCP_OK && i < GUARD_ROLES; i++) {
        json_t *object = NULL;
        X509   *x;
        char    file[32];

        snprintf(file, sizeof(file), "%s.pem", guard_role_names[i]);
        rc = certificate(&x, v, file, err);
        if (rc < 0 || x == NULL)
            continue;
        rc = role_json(&object, v, x, guard_role_names[i], err);
        X509_free(x);
        if (rc == MCP_OK && json_array_append_new(list, object) < 0)
            rc = no_memory(err);
    }
    if (rc == MCP_OK)
        return put(v->object, "certificates", list, err);
    json_decref(list);
    return rc;
}

/* ---- tokens ------------------------------------------------------------------------- */

static int add_token_keys(const struct view *v, mcp_error *err)
{
    struct guard_keyring *ring;
    json_t               *list;
    EVP_PKEY             *key;
    int                   rc = guard_keyring_load_from(&ring, &v->folder, err);

    if (rc < 0)
        return rc;
    list = json_array();
    for (size_t i = 0; rc == MCP_OK && i < ring->key_count; i++)
        if (json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "file", ring->keys[i].file,
                                                  "id", ring->keys[i].id, "algorithm",
                                                  guard_key_algorithm(ring->keys[i].key))) < 0)
            rc = no_memory(err);
    guard_keyring_unref(ring);
    if (rc < 0) {
        json_decref(list);
        return rc;
    }
    rc = put(v->object, "token_keys", list, err);
    if (rc < 0)
        return rc;
    rc = guard_folder_key(&key, &v->folder, "token.key", NULL);
    EVP_PKEY_free(key);
    return put(v->object, "signs_tokens", json_boolean(rc == MCP_OK), err);
}

/* The middle of header.payload.signature. */
static int parse_claims(json_t **out, const char *token, mcp_error *err)
{
    const char *first = strchr(token, '.');
    const char *second = first != NULL ? strchr(first + 1, '.') : NULL;
    size_t      chars = second != NULL ? (size_t)(second - first - 1) : 0;
    uint8_t     bytes[GUARD_TOKEN_BYTES];

    if (chars == 0 || chars > sizeof(bytes) || !guard_base64_decode(bytes, first + 1, chars))
        return base_fail(err, MCP_EFORMAT, "client.token is not header.payload.signature");
    return guard_json_parse(out, (const char *)bytes, guard_base64_bytes(chars),
                            "the payload of client.token", err);
}

/* The claims of client.token as they stand there; the worker is who checks them. */
static int add_token(const struct view *v, mcp_error *err)
{
    struct guard_bytes text;
    mcp_error          why = { 0 };
    json_t            *claims;
    int rc = guard_folder_read(&v->folder, "client.token", GUARD_SECRET, GUARD_PEM_BYTES, &text,
                               &why);

    if (rc == MCP_ENOTFOUND)
        return put(v->object, "token", json_null(), err);
    if (rc < 0)
        return base_fail(err, rc, "%s", why.text);
    rc = parse_claims(&claims, text.data, err);
    guard_bytes_fini(&text);
    return rc < 0 ? rc : put(v->object, "token", claims, err);
}

/* ---- lists -------------------------------------------------------------------------- */

static int add_workers(const struct view *v, mcp_error *err)
{
    struct guard_workers workers;
    json_t              *list;
    int                  rc = guard_workers_load(&workers, &v->folder, err);

    if (rc < 0)
        return rc;
    list = json_array();
    for (uint32_t i = 0; rc == MCP_OK && i < workers.count; i++)
        if (json_array_append_new(list, json_string(workers.endpoint[i])) < 0)
            rc = no_memory(err);
    if (rc == MCP_OK)
        return put(v->object, "workers", list, err);
    json_decref(list);
    return rc;
}

/* The authority's own list, each entry with whether it was taken back. */
static int add_issued(const struct view *v, mcp_error *err)
{
    json_t *issued;
    int     rc = guard_issued_load(&issued, &v->folder, err);

    if (rc < 0)
        return rc;
    json_t *list = json_object_get(issued, "certificates");

    for (size_t i = 0; rc == MCP_OK && i < json_array_size(list); i++) {
        json_t *entry = json_array_get(list, i);

        rc = put(entry, "revoked",
                 json_boolean(
                     guard_revoked_has_certificate(v->revoked, guard_json_text(entry, "serial"))),
                 err);
    }
    if (rc == MCP_OK)
        rc = put(v->object, "issued", json_incref(list), err);
    json_decref(issued);
    return rc;
}

static int add_revoked(const struct view *v, mcp_error *err)
{
    return put(v->object, "revoked", json_incref(v->revoked), err);
}

int guard_keys_describe(const char *folder, char **json, mcp_error *err)
{
    int (*const parts[])(const struct view *, mcp_error *) = {
        add_authority, add_roles, add_token_keys, add_token, add_workers, add_issued, add_revoked,
    };
    struct view        v = { .folder = GUARD_FOLDER_CLOSED };
    struct guard_bytes text = { 0 };
    int                rc = guard_folder_open(&v.folder, folder, err);

    if (rc == MCP_OK)
        rc = guard_revoked_load(&v.revoked, &v.folder, err);
    if (rc == MCP_OK) {
        v.object = json_object();
        rc = v.object != NULL ? MCP_OK : no_memory(err);
    }
    for (size_t i = 0; rc == MCP_OK && i < sizeof(parts) / sizeof(parts[0]); i++)
        rc = parts[i](&v, err);
    if (rc == MCP_OK)
        rc = guard_list_text(v.object, &text, err);
    if (rc == MCP_OK) {
        text.data[text.count - 1] = '\0'; /* the newline: what is left is one JSON text */
        *json = text.data;
    }
    json_decref(v.object);
    json_decref(v.revoked);
    guard_folder_close(&v.folder);
    return rc;
}
