/* base/log.h - lines that are not failures, and what ggml and libllama say.
 *
 * SPDX-License-Identifier: MIT */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <mcp/error.h>
#include <stddef.h>

enum base_log_level { BASE_LOG_WARN = 0, BASE_LOG_INFO = 1, BASE_LOG_DETAIL = 2 };

/* Hand a line to the function set by mcp_log_set(); dropped when there is none. */
void base_log(enum base_log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Third-party libraries report the reason of a failure only by logging it.  Between
 * begin and end the calling thread's error lines are kept; end() returns the first of
 * them that was written, trimmed of "function: " prefixes and the newline, or "".  The
 * text stays valid until the thread's next begin.  Not nested. */
void        base_log_capture_begin(void);
const char *base_log_capture_end(void);

/* Sink for ggml_log_callback: level is ggml's (ERROR = 4, WARN = 3), text may be a
 * piece of a line. */
void base_log_foreign(int level, const char *text, void *ctx);

#endif
