/* base/log.c - one process-wide sink; see log.h.
 *
 * The sink is read and called under a mutex, so that a line is never handed to a
 * function that mcp_log_set() has just replaced.
 *
 * SPDX-License-Identifier: MIT */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LINE_BYTES = 1024, CAPTURE_BYTES = 256 };

/* ggml's own numbers, see enum ggml_log_level. */
enum { FOREIGN_WARN = 3, FOREIGN_ERROR = 4 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static mcp_log_fn      sink;
static void           *sink_ctx;

static _Thread_local struct {
    int  on;
    char text[CAPTURE_BYTES];
} capture;

void mcp_log_set(mcp_log_fn fn, void *ctx)
{
    pthread_mutex_lock(&lock);
    sink = fn;
    sink_ctx = ctx;
    pthread_mutex_unlock(&lock);
}

static void deliver(int level, const char *line)
{
    pthread_mutex_lock(&lock);
    if (sink != NULL)
        sink(level, line, sink_ctx);
    pthread_mutex_unlock(&lock);
}

void base_log(enum base_log_level level, const char *format, ...)
{
    char    line[LINE_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    deliver((int)level, line);
}

void base_log_capture_begin(void)
{
    capture.on = 1;
    capture.text[0] = '\0';
}

const char *base_log_capture_end(void)
{
    capture.on = 0;
    return capture.text;
}

void base_log_foreign(int level, const char *text, void *ctx)
{
    char   line[LINE_BYTES];
    size_t length;

    (void)ctx;
    if (level < FOREIGN_WARN || level > FOREIGN_ERROR)
        return;

    snprintf(line, sizeof(line), "%s", text);
    length = strlen(line);
    while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r'))
        line[--length] = '\0';
    if (length == 0)
        return;

    if (level == FOREIGN_ERROR && capture.on && capture.text[0] == '\0') {
        const char *reason = strstr(line, ": ");

        snprintf(capture.text, sizeof(capture.text), "%.*s", CAPTURE_BYTES - 1,
                 reason ? reason + 2 : line);
    }
    deliver(level == FOREIGN_ERROR ? BASE_LOG_WARN : BASE_LOG_INFO, line);
}
