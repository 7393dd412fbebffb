/* fuzz/check.h - broken promises are findings, beside what the sanitizers see.
 *
 * SPDX-License-Identifier: MIT */
#ifndef FUZZ_CHECK_H
#define FUZZ_CHECK_H

#include <mcp/error.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* assert() without its dependence on NDEBUG. */
#define CHECK(condition)                                                                    \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                        \
        }                                                                                   \
    } while (0)

/* A failed call: its code is stored and its sentence fits a terminal line. */
static inline void check_failure(int rc, const mcp_error *err)
{
    CHECK(rc < 0);
    CHECK(err->code == rc);
    CHECK(strcmp(mcp_code_name(rc), "unknown") != 0);
    CHECK(memchr(err->text, '\0', sizeof(err->text)) != NULL);
    CHECK(err->text[0] != '\0');
    for (const char *c = err->text; *c != '\0'; c++)
        CHECK((unsigned char)*c >= 0x20 && *c != 0x7f);
}

#endif
