/* base/fail.c - error codes, their names, and the sentence writer.
 *
 * SPDX-License-Identifier: MIT */
#include "base/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#ifndef MCP_VERSION
#define MCP_VERSION "0.1.0"
#endif

static const struct {
    int         code;
    const char *name;
    const char *text;
} codes[] = {
#define X(name, value, text) { value, #name, text },
    MCP_ERRORS(X)
#undef X
};

const char *mcp_code_name(int code)
{
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].code == code)
            return codes[i].name;
    return "unknown";
}

const char *mcp_code_text(int code)
{
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].code == code)
            return codes[i].text;
    return "an error code that this library does not know";
}

const char *mcp_version(void)
{
    return MCP_VERSION;
}

int base_fail(mcp_error *err, int code, const char *format, ...)
{
    va_list args;
    int     wanted;

    if (err == NULL)
        return code;

    err->code = code;
    va_start(args, format);
    wanted = vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    if (wanted < 0)
        snprintf(err->text, sizeof(err->text), "%s", mcp_code_text(code));
    else if ((size_t)wanted >= sizeof(err->text))
        memcpy(err->text + sizeof(err->text) - 4, "...", 4);

    for (char *c = err->text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return code;
}
