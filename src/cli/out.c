/* cli/out.c - see out.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/out.h"

#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int out_errno; /* of the first write to standard output that failed */

int cli_write_all(int fd, const void *bytes, size_t count)
{
    const char *at = bytes;

    while (count > 0) {
        ssize_t n = write(fd, at, count);
        if (n < 0 && errno == EAGAIN) {
            /* The terminal's other users may have made it non-blocking. */
            struct pollfd ready = { .fd = fd, .events = POLLOUT };
            (void)poll(&ready, 1, -1);
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        at += n;
        count -= (size_t)n;
    }
    return 0;
}

int cli_write(const void *bytes, size_t count)
{
    if (out_errno != 0)
        return -1;
    if (cli_write_all(STDOUT_FILENO, bytes, count) < 0) {
        out_errno = errno;
        return -1;
    }
    return 0;
}

int cli_printf(const char *format, ...)
{
    char   *text = NULL;
    va_list list;
    int     bytes, rc;

    va_start(list, format);
    bytes = vasprintf(&text, format, list);
    va_end(list);
    if (bytes < 0) {
        out_errno = ENOMEM;
        return -1;
    }
    rc = cli_write(text, (size_t)bytes);
    free(text);
    return rc;
}

void cli_row(const char *key, const char *format, ...)
{
    char    text[4096], safe[4096];
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    cli_text_field(safe, sizeof(safe), text);
    cli_printf("%-14s %s\n", key, safe);
}

int cli_print_json(json_t *value)
{
    char *text = value != NULL ? json_dumps(value, JSON_REAL_PRECISION(10)) : NULL;
    int   rc;

    json_decref(value);
    if (text == NULL)
        return cli_fail("out of memory for the JSON output");
    rc = cli_printf("%s\n", text);
    free(text);
    return rc < 0 ? CLI_FAILED : CLI_OK;
}

json_t *cli_json_text(const char *text, size_t bytes)
{
    struct cli_buffer good = { 0 };
    json_t           *value = NULL;

    if (text == NULL)
        return json_null();
    if (cli_utf8_repair(&good, text, bytes) == 0)
        value = json_stringn(good.text, good.bytes);
    cli_buffer_fini(&good);
    return value;
}

json_t *cli_json_string(const char *text)
{
    return cli_json_text(text, text != NULL ? strlen(text) : 0);
}

json_t *cli_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

bool cli_out_failed(void)
{
    return out_errno != 0;
}

int cli_out_finish(int status)
{
    if (out_errno == 0)
        return status;
    if (out_errno != EPIPE)
        cli_fail("standard output: %s", strerror(out_errno));
    return CLI_FAILED;
}

/* ---- streamed text ---------------------------------------------------------------- */

void cli_stream_init(struct cli_stream *stream, bool terminal)
{
    *stream = (struct cli_stream){ .terminal = terminal, .last = '\n' };
}

void cli_stream_fini(struct cli_stream *stream)
{
    cli_buffer_fini(&stream->held);
}

/* Pass on the first `count` held bytes. */
static int release(struct cli_stream *stream, size_t count)
{
    struct cli_buffer shown = { 0 };
    int               rc;

    if (count == 0)
        return 0;
    stream->last = stream->held.text[count - 1];
    if (stream->terminal) {
        rc = cli_text_tame(&shown, stream->held.text, count);
        if (rc == 0)
            rc = cli_write(shown.text, shown.bytes);
        cli_buffer_fini(&shown);
    } else {
        rc = cli_write(stream->held.text, count);
    }
    cli_buffer_drop(&stream->held, count);
    return rc;
}

int cli_stream_write(struct cli_stream *stream, const char *bytes, size_t count)
{
    if (cli_buffer_add(&stream->held, bytes, count) < 0)
        return -1;
    return release(stream, cli_utf8_complete(stream->held.text, stream->held.bytes));
}

int cli_stream_end(struct cli_stream *stream)
{
    int rc = release(stream, stream->held.bytes);

    if (rc == 0 && stream->last != '\n')
        rc = cli_write("\n", 1);
    stream->last = '\n';
    return rc;
}
