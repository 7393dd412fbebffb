/* base/fail.c - error codes, their names, and the sentence writer.
 *
 * SPDX-License-Identifier: MIT */
#include "base/fail.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#ifndef MCP_VERSION
#define MCP_VERSION "0.1.0"
#endif

/* A path has at most 4,096 bytes, a sentence around it a few hundred. */
enum { SENTENCE_BYTES = 5120 };

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

/* Bytes that a terminal could act on, or that are no UTF-8, become '?': names come from
 * hostile files. */
static void make_printable(char *text)
{
    unsigned char *c = (unsigned char *)text;

    while (*c != '\0') {
        size_t follow = *c < 0x80                 ? 0
                        : *c >= 0xC2 && *c < 0xE0 ? 1
                        : *c >= 0xE0 && *c < 0xF0 ? 2
                        : *c >= 0xF0 && *c < 0xF5 ? 3
                                                  : 9;
        bool   good = follow < 9 && *c >= 0x20 && *c != 0x7f;

        for (size_t i = 1; i <= follow && good; i++)
            good = (c[i] & 0xC0) == 0x80;
        /* C1 controls, surrogates, overlong forms */
        if (good && ((c[0] == 0xC2 && c[1] < 0xA0) || (c[0] == 0xE0 && c[1] < 0xA0) ||
                     (c[0] == 0xED && c[1] >= 0xA0) || (c[0] == 0xF0 && c[1] < 0x90) ||
                     (c[0] == 0xF4 && c[1] >= 0x90)))
            good = false;
        if (good) {
            c += 1 + follow;
        } else {
            *c++ = '?';
        }
    }
}

int base_fail(mcp_error *err, int code, const char *format, ...)
{
    char    whole[SENTENCE_BYTES];
    va_list args;
    size_t  length, room = sizeof(err->text);

    if (err == NULL)
        return code;

    err->code = code;
    va_start(args, format);
    if (vsnprintf(whole, sizeof(whole), format, args) < 0)
        snprintf(whole, sizeof(whole), "%s", mcp_code_text(code));
    va_end(args);
    make_printable(whole);

    /* Too long means a long path in front: the end says what is wrong. */
    length = strlen(whole);
    if (length < room)
        memcpy(err->text, whole, length + 1);
    else
        snprintf(err->text, room, "...%s", whole + length - (room - 4));
    make_printable(err->text); /* the cut may have hit the middle of a character */
    return code;
}
