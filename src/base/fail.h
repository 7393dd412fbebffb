/* base/fail.h - filling an mcp_error in one expression.
 *
 * SPDX-License-Identifier: MIT */
#ifndef BASE_FAIL_H
#define BASE_FAIL_H

#include <mcp/error.h>

/* Write the sentence (when err is not NULL) and return `code`, so that a failing
 * function reads `rc = base_fail(err, MCP_E..., "...")`.  Of a sentence that
 * is too long the end is kept, behind "...".  Control characters and invalid UTF-8, which
 * may come from a hostile file's strings, become '?'. */
int base_fail(mcp_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
