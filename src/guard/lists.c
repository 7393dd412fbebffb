/* guard/lists.c - see lists.h.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/lists.h"

#include "base/fail.h"
#include "guard/json.h"
#include "guard/token.h"

#include <stdlib.h>
#include <string.h>

static const char issued_name[] = "issued.json", revoked_name[] = "revoked.json";

bool guard_is_jti(const char *text)
{
    size_t bytes = strlen(text);

    for (size_t i = 0; i < bytes; i++)
        if (text[i] <= ' ' || text[i] > '~' || text[i] == '"' || text[i] == '\\')
            return false;
    return bytes > 0 && bytes < GUARD_JTI_BYTES;
}

bool guard_is_serial(const char *text)
{
    size_t chars = strlen(text);

    return chars >= 2 && chars <= 2 * GUARD_SERIAL_BYTES && chars % 2 == 0 &&
           strspn(text, "0123456789abcdef") == chars;
}

/* ---- reading ------------------------------------------------------------------------ */

/* An array of objects, each with such a text under `key`. */
static bool check_entries(const json_t *list, const char *key, bool (*good)(const char *text))
{
    if (!json_is_array(list))
        return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = guard_json_text(json_array_get(list, i), key);

        if (text == NULL || !good(text))
            return false;
    }
    return true;
}

/* The file's object, or NULL in *out with success when there is no file. */
static int load(json_t **out, const struct guard_folder *folder, const char *name, mcp_error *err)
{
    struct guard_bytes bytes;
    mcp_error          why = { 0 };
    int rc = guard_folder_read(folder, name, GUARD_PUBLIC, GUARD_LIST_BYTES, &bytes, &why);

    *out = NULL;
    if (rc == MCP_ENOTFOUND)
        return MCP_OK;
    if (rc < 0)
        return base_fail(err, rc, "%s", why.text);
    rc = guard_json_parse(out, bytes.data, bytes.count, name, err);
    guard_bytes_fini(&bytes);
    return rc;
}

int guard_issued_load(json_t **out, const struct guard_folder *folder, mcp_error *err)
{
    json_t *list;
    int     rc = load(&list, folder, issued_name, err);

    *out = NULL;
    if (rc < 0)
        return rc;
    if (list == NULL)
        list = json_pack("{s:[]}", "certificates");
    if (list == NULL)
        return base_fail(err, MCP_ENOMEM, "out of memory for %s", issued_name);
    if (!check_entries(json_object_get(list, "certificates"), "serial", guard_is_serial)) {
        json_decref(list);
        return base_fail(err, MCP_EFORMAT, "%s/%s is not a list of serial numbers in hex",
                         folder->path, issued_name);
    }
    *out = list;
    return MCP_OK;
}

int guard_revoked_load(json_t **out, const struct guard_folder *folder, mcp_error *err)
{
    json_t *list;
    int     rc = load(&list, folder, revoked_name, err);

    *out = NULL;
    if (rc < 0)
        return rc;
    if (list == NULL)
        list = json_pack("{s:[], s:[]}", "certificates", "tokens");
    if (list == NULL)
        return base_fail(err, MCP_ENOMEM, "out of memory for %s", revoked_name);
    if (!check_entries(json_object_get(list, "certificates"), "serial", guard_is_serial) ||
        !check_entries(json_object_get(list, "tokens"), "jti", guard_is_jti)) {
        json_decref(list);
        return base_fail(err, MCP_EFORMAT,
                         "%s/%s is not a list of serial numbers in hex and a list of token ids",
                         folder->path, revoked_name);
    }
    *out = list;
    return MCP_OK;
}

static bool has(const json_t *list, const char *key, const char *text)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(guard_json_text(json_array_get(list, i), key), text) == 0)
            return true;
    return false;
}

bool guard_revoked_has_certificate(const json_t *revoked, const char *serial)
{
    return has(json_object_get(revoked, "certificates"), "serial", serial);
}

/* ---- changing ----------------------------------------------------------------------- */

/* Takes the entry's reference, also when it is NULL for want of memory. */
static int append(json_t *list, json_t *entry, const char *name, mcp_error *err)
{
    if (entry == NULL || json_array_append_new(list, entry) < 0)
        return base_fail(err, MCP_ENOMEM, "out of memory for %s", name);
    return MCP_OK;
}

int guard_issued_add(json_t *issued, const struct guard_identity *identity, mcp_error *err)
{
    char serial[2 * GUARD_SERIAL_BYTES + 1], sha256[GUARD_HEX_BYTES];

    guard_hex(serial, identity->serial, identity->serial_bytes);
    guard_hex(sha256, identity->sha256, sizeof(identity->sha256));
    return append(json_object_get(issued, "certificates"),
                  json_pack("{s:s, s:s, s:s, s:I, s:s}", "serial", serial, "name", identity->name,
                            "role", identity->role, "expires", (json_int_t)identity->expires_s,
                            "sha256", sha256),
                  issued_name, err);
}

int guard_revoked_add_certificate(json_t *revoked, const char *serial, const char *name,
                                  int64_t now_s, mcp_error *err)
{
    json_t *list = json_object_get(revoked, "certificates");
    int     rc;

    if (has(list, "serial", serial))
        return 0;
    rc = append(
        list,
        json_pack("{s:s, s:s, s:I}", "serial", serial, "name", name, "when", (json_int_t)now_s),
        revoked_name, err);
    return rc < 0 ? rc : 1;
}

int guard_revoked_add_token(json_t *revoked, const char *jti, int64_t now_s, mcp_error *err)
{
    json_t *list = json_object_get(revoked, "tokens");
    int     rc;

    if (has(list, "jti", jti))
        return 0;
    rc = append(list, json_pack("{s:s, s:I}", "jti", jti, "when", (json_int_t)now_s), revoked_name,
                err);
    return rc < 0 ? rc : 1;
}

/* ---- writing ------------------------------------------------------------------------ */

int guard_list_text(const json_t *list, struct guard_bytes *text, mcp_error *err)
{
    /* jansson's own allocation is not ours to free(). */
    size_t bytes = json_dumpb(list, NULL, 0, JSON_INDENT(1));

    *text = (struct guard_bytes){ 0 };
    if (bytes == 0 || bytes >= GUARD_LIST_BYTES)
        return base_fail(err, bytes == 0 ? MCP_ENOMEM : MCP_ERANGE,
                         "a list of %zu bytes is larger than %d: begin a new authority", bytes,
                         GUARD_LIST_BYTES);
    text->data = malloc(bytes + 1);
    if (text->data == NULL || json_dumpb(list, text->data, bytes, JSON_INDENT(1)) != bytes) {
        guard_bytes_fini(text);
        return base_fail(err, MCP_ENOMEM, "out of memory for a list of %zu bytes", bytes);
    }
    text->data[bytes] = '\n';
    text->count = bytes + 1;
    return MCP_OK;
}

static int save(const json_t *list, const struct guard_folder *folder, const char *name,
                mcp_error *err)
{
    struct guard_bytes text;
    int                rc = guard_list_text(list, &text, err);

    if (rc < 0)
        return rc;
    rc = guard_folder_write(folder, name, GUARD_PUBLIC, text.data, text.count, err);
    guard_bytes_fini(&text);
    return rc;
}

int guard_issued_save(const json_t *issued, const struct guard_folder *folder, mcp_error *err)
{
    return save(issued, folder, issued_name, err);
}

int guard_revoked_save(const json_t *revoked, const struct guard_folder *folder, mcp_error *err)
{
    return save(revoked, folder, revoked_name, err);
}
