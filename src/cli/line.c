/* cli/line.c - input as lines of any length; see line.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/line.h"

#include "cli/cli.h"
#include "cli/interrupt.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    READ_BYTES = 64 * 1024,            /* a pipe's capacity on Linux */
    LINE_BYTES_MAX = 256 * 1024 * 1024 /* one turn; beyond every context, below memory */
};

void cli_lines_init(struct cli_lines *lines)
{
    const char *term = getenv("TERM");

    *lines = (struct cli_lines){ 0 };
    lines->editor = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term != NULL &&
                    strcmp(term, "dumb") != 0;
}

void cli_lines_fini(struct cli_lines *lines)
{
    for (size_t i = 0; i < lines->history_count; i++)
        free(lines->history[i]);
    lines->history_count = 0;
    cli_buffer_fini(&lines->pending);
}

enum cli_line cli_lines_fill(struct cli_lines *lines, int timeout_ms)
{
    char          bytes[READ_BYTES];
    struct pollfd fds[2] = { { .fd = STDIN_FILENO, .events = POLLIN },
                             { .fd = cli_interrupt_fd(), .events = POLLIN } };

    for (;;) {
        if (cli_interrupt_came())
            return CLI_LINE_INTERRUPTED;
        int ready = poll(fds, 2, timeout_ms);
        if (ready < 0 && errno != EINTR) {
            cli_fail("standard input: %s", strerror(errno));
            return CLI_LINE_FAILED;
        }
        if (ready == 0)
            return CLI_LINE_END;
        if (ready < 0 || fds[1].revents != 0 || fds[0].revents == 0)
            continue;

        ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0 && errno != EIO) { /* EIO: the terminal went away, which is an end */
            cli_fail("standard input: %s", strerror(errno));
            return CLI_LINE_FAILED;
        }
        if (n <= 0) {
            lines->at_end = true;
            return CLI_LINE_END;
        }
        if (lines->pending.bytes + (size_t)n > LINE_BYTES_MAX) {
            cli_fail("a line of input is longer than %d MiB", LINE_BYTES_MAX >> 20);
            return CLI_LINE_FAILED;
        }
        return cli_buffer_add(&lines->pending, bytes, (size_t)n) < 0 ? CLI_LINE_FAILED
                                                                     : CLI_LINE_TEXT;
    }
}

/* Move the first `count` pending bytes to `line`, and drop a newline behind them. */
static enum cli_line take(struct cli_lines *lines, size_t count, struct cli_buffer *line)
{
    cli_buffer_drop(line, line->bytes);
    if (cli_buffer_add(line, lines->pending.text, count) < 0)
        return CLI_LINE_FAILED;
    cli_buffer_drop(&lines->pending, count + (count < lines->pending.bytes));
    if (line->bytes > 0 && line->text[line->bytes - 1] == '\r') /* a file from elsewhere */
        line->text[--line->bytes] = '\0';
    return CLI_LINE_TEXT;
}

static enum cli_line plain_read(struct cli_lines *lines, struct cli_buffer *line)
{
    size_t searched = 0;

    for (;;) {
        const char *text = lines->pending.text;
        size_t      bytes = lines->pending.bytes;
        const char *end = bytes > searched ? memchr(text + searched, '\n', bytes - searched) : NULL;

        if (end != NULL)
            return take(lines, (size_t)(end - text), line);
        searched = bytes;
        if (lines->at_end) /* the last line may lack its newline */
            return bytes > 0 ? take(lines, bytes, line) : CLI_LINE_END;

        enum cli_line got = cli_lines_fill(lines, -1);
        if (got == CLI_LINE_INTERRUPTED)
            cli_buffer_drop(&lines->pending, lines->pending.bytes);
        if (got != CLI_LINE_TEXT && !lines->at_end)
            return got;
    }
}

enum cli_line cli_lines_read(struct cli_lines *lines, const char *prompt, struct cli_buffer *line)
{
    return lines->editor ? cli_edit_read(lines, prompt, line) : plain_read(lines, line);
}
