/* guard/json.c - see json.h.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/json.h"

#include "base/fail.h"

#include <errno.h>
#include <stdbool.h>

/* Brackets outside of strings.  What is no JSON may count wrongly: jansson refuses it then,
 * but it never recurses deeper than brackets were seen. */
static size_t depth_of(const char *text, size_t bytes)
{
    size_t depth = 0, most = 0;
    bool   string = false;

    for (size_t i = 0; i < bytes; i++) {
        if (string) {
            if (text[i] == '\\')
                i++;
            else if (text[i] == '"')
                string = false;
        } else if (text[i] == '"') {
            string = true;
        } else if (text[i] == '{' || text[i] == '[') {
            depth++;
            most = depth > most ? depth : most;
        } else if ((text[i] == '}' || text[i] == ']') && depth > 0) {
            depth--;
        }
    }
    return most;
}

static json_t *load(const char *text, size_t bytes, json_error_t *why)
{
    errno = 0;
    return json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, why);
}

int guard_json_parse(json_t **out, const char *text, size_t bytes, const char *what, mcp_error *err)
{
    json_error_t why, why_again;
    json_t      *value, *again;
    int          rc = MCP_OK;

    *out = NULL;
    if (depth_of(text, bytes) > GUARD_JSON_DEPTH)
        return base_fail(err, MCP_EFORMAT, "%s nests deeper than %d", what, GUARD_JSON_DEPTH);
    value = load(text, bytes, &why);
    if (value == NULL && errno == ENOMEM)
        return base_fail(err, MCP_ENOMEM, "out of memory for %s", what);
    if (value == NULL && json_error_code(&why) == json_error_duplicate_key)
        return base_fail(err, MCP_EFORMAT, "%s has a member twice", what);
    if (value == NULL)
        return base_fail(err, MCP_EFORMAT, "%s is not JSON (at byte %d of %zu)", what, why.position,
                         bytes);
    /* When memory is short for an instant, jansson (2.14) drops a character from a string and
     * goes on: a serial number that lost a digit would take its revocation back.  It does not
     * tell, but it does not do so twice alike. */
    again = load(text, bytes, &why_again);
    if (!json_equal(value, again))
        rc = base_fail(err, MCP_ENOMEM, "out of memory for %s", what);
    else if (!json_is_object(value))
        rc = base_fail(err, MCP_EFORMAT, "%s is not a JSON object", what);
    json_decref(again);
    if (rc == MCP_OK)
        *out = value;
    else
        json_decref(value);
    return rc;
}

const char *guard_json_text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}
