/* guard/json.h - JSON from elsewhere, bounded before jansson sees it.
 *
 * jansson recurses: depth is counted here first.  Members that appear twice, bytes after the
 * object, invalid UTF-8, NUL in strings and numbers beyond their type are refused by it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_JSON_H
#define GUARD_JSON_H

#include <jansson.h>
#include <mcp/error.h>
#include <stddef.h>

/* Tokens and our own files nest three deep; twice that for what others add. */
enum { GUARD_JSON_DEPTH = 6 };

/* Parse one object, to be given back with json_decref().  The sentence begins with `what` and
 * quotes nothing of the text, which may hold a key.
 *   MCP_EFORMAT  not one JSON object within the bounds */
int guard_json_parse(json_t **out, const char *text, size_t bytes, const char *what,
                     mcp_error *err);

/* The member's text; NULL when it is missing or no string. */
const char *guard_json_text(const json_t *object, const char *key);

#endif
