/* guard/lists.h - issued.json and revoked.json of a keys folder.
 *
 *     issued.json   { "certificates": [ { "serial": "4f..", "name": "alice", "role": "client",
 *                                         "expires": 1790000000, "sha256": "9f.." }, ... ] }
 *     revoked.json  { "certificates": [ { "serial": "4f..", "name": "alice", "when": ... }, ... ],
 *                     "tokens":       [ { "jti": "6b..", "when": ... }, ... ] }
 *
 * The first says whom an authority has certified; only its own folder has it.  The second is
 * public and is copied to every worker.  Nothing is ever taken out of either: a clock that was
 * wrong once must not bring a revoked certificate back.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_LISTS_H
#define GUARD_LISTS_H

#include "guard/certificate.h"

/* Read and check; a file that is not there is an empty list.
 *   MCP_EFORMAT  malformed */
int guard_issued_load(json_t **out, const struct guard_folder *folder, mcp_error *err);
int guard_revoked_load(json_t **out, const struct guard_folder *folder, mcp_error *err);

int guard_issued_add(json_t *issued, const struct guard_identity *identity, mcp_error *err);

/* 1 when added, 0 when it was there already, negative on failure. */
int guard_revoked_add_certificate(json_t *revoked, const char *serial, const char *name,
                                  int64_t now_s, mcp_error *err);
int guard_revoked_add_token(json_t *revoked, const char *jti, int64_t now_s, mcp_error *err);

/* Whether the list calls this serial number (hex) revoked. */
bool guard_revoked_has_certificate(const json_t *revoked, const char *serial);

/* The text of a list, one entry a line. */
int guard_list_text(const json_t *list, struct guard_bytes *text, mcp_error *err);

/* Replace issued.json or revoked.json; the folder is locked by the caller. */
int guard_issued_save(const json_t *issued, const struct guard_folder *folder, mcp_error *err);
int guard_revoked_save(const json_t *revoked, const struct guard_folder *folder, mcp_error *err);

/* 1 to 63 printable characters without blanks, quotes and backslashes. */
bool guard_is_jti(const char *text);

/* A certificate's serial number as lower-case hex of whole bytes, at most 20. */
bool guard_is_serial(const char *text);

#endif
