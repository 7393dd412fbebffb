/* cli/say.c - the lines on stderr: one for a failure, one for a note, the log.
 *
 * Each is formatted whole and written by one call, so that lines of the log, which
 * come from any thread, do not mix with it.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"

#include <mcp/error.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LINE_BYTES = 2048 }; /* an error text is below 512, a value in it below 200 */

static const char *verb_name = "";

void cli_say_verb(const char *name)
{
    verb_name = name;
}

static void say(const char *kind, const char *format, va_list list)
    __attribute__((format(printf, 2, 0)));

static void say(const char *kind, const char *format, va_list list)
{
    char line[LINE_BYTES];
    int  head = snprintf(line, sizeof(line), "mcp%s%s: %s", verb_name[0] == '\0' ? "" : " ",
                         verb_name, kind);

    vsnprintf(line + head, sizeof(line) - (size_t)head - 1, format, list);
    for (char *c = line; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            *c = '?';
    strcat(line, "\n");
    fputs(line, stderr);
}

int cli_fail(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    say("", format, list);
    va_end(list);
    return CLI_FAILED;
}

void cli_note(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    say("note: ", format, list);
    va_end(list);
}

static void log_line(int level, const char *line, void *ctx)
{
    static const char *const levels[] = { "warning", "info", "detail" };
    char                     text[LINE_BYTES];

    (void)ctx;
    snprintf(text, sizeof(text), "%s: %s\n", levels[level < 0 || level > 2 ? 2 : level], line);
    fputs(text, stderr);
}

void cli_log_verbose(void)
{
    mcp_log_set(log_line, NULL);
}
