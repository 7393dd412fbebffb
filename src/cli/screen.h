/* cli/screen.h - a text and its cursor on a terminal.
 *
 *     row 0      > Write a function that      the cursor is on row `row`; before drawing
 *     row 1      returns the nth prime_       we go up that many rows and clear
 *
 * Rows are broken by us, never by the terminal, so what is on screen is known.  A text
 * with more rows than the screen shows the rows around the cursor.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_SCREEN_H
#define CLI_SCREEN_H

#include "cli/text.h"

#include <stdbool.h>
#include <stddef.h>

struct cli_screen {
    const char *prompt;
    size_t      row; /* the cursor's, below the first row drawn */
};

/* Draw prompt and text over what was drawn last, the cursor before byte `cursor`. */
void cli_screen_draw(struct cli_screen *screen, const struct cli_buffer *text, size_t cursor);

/* The text as rows `width` columns wide: rows [top, top + rows) are appended to `out`,
 * with "\r\n" between them; out NULL = only count.  Returns the number of all rows, at
 * least 1; *row and *column get the cursor's place. */
size_t cli_screen_rows(const char *prompt, const struct cli_buffer *text, size_t cursor,
                       size_t width, struct cli_buffer *out, size_t top, size_t rows, size_t *row,
                       size_t *column);

/* One character as it is drawn: its bytes in the text, its columns, and what to print. */
struct cli_glyph {
    size_t      bytes;
    size_t      columns; /* 0 for a newline, and for a mark that sits on a letter */
    const char *shown;   /* NULL = the bytes themselves */
    bool        newline;
};

/* The one at the beginning of `text`; count is at least 1. */
struct cli_glyph cli_glyph_at(const char *text, size_t count);

#endif
