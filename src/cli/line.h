/* cli/line.h - one turn of input after another, from a terminal or a pipe.
 *
 * On a terminal there is an editor, because the kernel's own line mode cuts lines at
 * 4095 bytes and would send a pasted page as one turn a line.  Elsewhere (pipe, file,
 * TERM=dumb) a turn is a line of any length and nothing is printed.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_LINE_H
#define CLI_LINE_H

#include "cli/text.h"

#include <stdbool.h>

enum cli_line {
    CLI_LINE_FAILED = -1, /* a line about it was printed */
    CLI_LINE_END = 0,     /* end of input, Ctrl-D */
    CLI_LINE_TEXT = 1,
    CLI_LINE_INTERRUPTED = 2 /* Ctrl-C; what was typed is dropped */
};

enum { CLI_LINE_HISTORY = 100 }; /* earlier turns that the up key brings back */

struct cli_lines {
    bool              editor;  /* a terminal at both ends */
    bool              at_end;  /* read() gave 0 */
    bool              touched; /* a key was pressed during the editor's last read */
    struct cli_buffer pending; /* read, but not used yet */
    char             *history[CLI_LINE_HISTORY]; /* (history_count) oldest first; owned */
    size_t            history_count;
};

void cli_lines_init(struct cli_lines *lines);
void cli_lines_fini(struct cli_lines *lines);

/* The next turn into `line`, without its newline.  `prompt` (ASCII) shows only in the
 * editor. */
enum cli_line cli_lines_read(struct cli_lines *lines, const char *prompt, struct cli_buffer *line);

/* The editor's half; edit.c. */
enum cli_line cli_edit_read(struct cli_lines *lines, const char *prompt, struct cli_buffer *line);

/* Wait for input and add it to `pending`.  CLI_LINE_TEXT when there is some, or what
 * came instead.  timeout_ms -1 = as long as it takes; CLI_LINE_END on time-out, too
 * (at_end tells them apart). */
enum cli_line cli_lines_fill(struct cli_lines *lines, int timeout_ms);

#endif
