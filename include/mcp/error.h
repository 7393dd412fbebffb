/* mcp/error.h - how every mcp function says what went wrong.
 *
 * Functions return 0 (or a count) on success and a negative MCP_E* on failure.
 * The sentence goes into an mcp_error that the caller owns and passes last; NULL
 * is allowed.  Nothing is kept in thread-local storage, so an error may be handed
 * to another thread together with the call's result.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MCP_ERROR_H
#define MCP_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MCP_API __attribute__((visibility("default")))
#else
#define MCP_API
#endif

/* code, value, what it means for the caller.  Values are part of the ABI. */
#define MCP_ERRORS(X)                                                                   \
    X(MCP_OK, 0, "no error")                                                            \
    X(MCP_EINVAL, -1, "an argument breaks the function's contract")                     \
    X(MCP_ENOMEM, -2, "the host or a device has too little memory")                     \
    X(MCP_EIO, -3, "a file or device could not be read or written")                     \
    X(MCP_EFORMAT, -4, "a file or message is malformed or inconsistent")                \
    X(MCP_ENOTSUP, -5, "well-formed, but this build does not do it")                    \
    X(MCP_ERANGE, -6, "a layer range, position, token or size is outside its limit")    \
    X(MCP_ENOTFOUND, -7, "the named file, device or thing does not exist")              \
    X(MCP_EDEVICE, -8, "a compute device failed; the engine must be closed")            \
    X(MCP_ECORRUPT, -9, "a digest does not match: the bytes were damaged or exchanged") \
    X(MCP_ECANCELED, -10, "stopped by mcp_engine_cancel() or by a callback")            \
    X(MCP_EDENIED, -11, "an identity, token or permission was refused")                 \
    X(MCP_EBUSY, -12, "at a limit for now; try again later, or elsewhere")              \
    X(MCP_EUNAVAIL, -13, "the worker or the path to it is gone or draining")            \
    X(MCP_ETIMEOUT, -14, "not done in the time that was given")

typedef enum {
#define X(name, value, text) name = (value),
    MCP_ERRORS(X)
#undef X
} mcp_code;

enum { MCP_ERROR_TEXT_BYTES = 512 };

/* Filled only on failure.  text is one sentence: what, which value, which limit,
 * which knob; never empty after a failure, always terminated. */
typedef struct {
    int  code;
    char text[MCP_ERROR_TEXT_BYTES];
} mcp_error;

/* "MCP_EINVAL" for -1; "unknown" for a code this library does not have. */
MCP_API const char *mcp_code_name(int code);

/* One line about the code itself, for callers that lost the sentence. */
MCP_API const char *mcp_code_text(int code);

/* "0.1.0" */
MCP_API const char *mcp_version(void);

/* Lines about progress and oddities that are not failures (a skipped CPU variant,
 * an ignored tensor).  level: 0 = warning, 1 = information, 2 = detail.  fn is
 * called from any thread, one call at a time; NULL (the default) drops the lines.
 * The setting is global to the process. */
typedef void (*mcp_log_fn)(int level, const char *line, void *ctx);
MCP_API void mcp_log_set(mcp_log_fn fn, void *ctx);

#ifdef __cplusplus
}
#endif
#endif
