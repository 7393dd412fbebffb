/* cli/screen.c - see screen.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/screen.h"

#include "cli/out.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

static void screen_size(size_t *columns, size_t *rows)
{
    struct winsize size;

    *columns = 80;
    *rows = 24;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 && size.ws_row > 0) {
        *columns = size.ws_col;
        *rows = size.ws_row;
    }
}

struct cli_glyph cli_glyph_at(const char *text, size_t count)
{
    uint32_t code;
    size_t   n = cli_utf8_next(text, count, &code);
    int      columns = n > 0 ? wcwidth((wchar_t)code) : -1;

    if (n == 1 && code == '\n')
        return (struct cli_glyph){ 1, 0, "", true };
    if (n == 1 && code == '\t')
        return (struct cli_glyph){ 1, 1, " ", false };
    if (columns < 0) /* control characters, broken bytes */
        return (struct cli_glyph){ n > 0 ? n : 1, 1, "?", false };
    return (struct cli_glyph){ n, (size_t)columns, NULL, false };
}

size_t cli_screen_rows(const char *prompt, const struct cli_buffer *text, size_t cursor,
                       size_t width, struct cli_buffer *out, size_t top, size_t rows, size_t *row,
                       size_t *column)
{
    size_t x = 0, y = 0, prompt_bytes = strlen(prompt);
    size_t total = prompt_bytes + text->bytes;

    for (size_t at = 0; at <= total;) {
        bool             in_prompt = at < prompt_bytes;
        const char      *from = in_prompt ? prompt + at : text->text + (at - prompt_bytes);
        size_t           left = in_prompt ? prompt_bytes - at : total - at;
        struct cli_glyph g = { 0 };

        if (at < total)
            g = cli_glyph_at(from, left);
        bool visible = out != NULL && y >= top && y < top + rows;
        /* The cursor needs a column of its own behind the last character. */
        if (x + (g.columns > 0 ? g.columns : 1) > width && !g.newline &&
            (g.columns > 0 || at == total)) {
            x = 0;
            y++;
            if (visible && y < top + rows)
                cli_buffer_add(out, "\r\n", 2);
            visible = out != NULL && y >= top && y < top + rows;
        }
        if (at == prompt_bytes + cursor) {
            *row = y;
            *column = x;
        }
        if (at == total)
            break;
        if (visible)
            cli_buffer_add(out, g.shown != NULL ? g.shown : from,
                           g.shown != NULL ? strlen(g.shown) : g.bytes);
        x += g.columns;
        at += g.bytes;
        if (g.newline) {
            x = 0;
            y++;
            if (visible && y < top + rows)
                cli_buffer_add(out, "\r\n", 2);
        }
    }
    return y + 1;
}

/* Terminal escape: `count` times in the direction of `letter`; nothing for 0. */
static void move(struct cli_buffer *out, size_t count, char letter)
{
    char text[32];

    if (count > 0)
        cli_buffer_add(out, text,
                       (size_t)snprintf(text, sizeof(text), "\x1b[%zu%c", count, letter));
}

void cli_screen_draw(struct cli_screen *screen, const struct cli_buffer *text, size_t cursor)
{
    struct cli_buffer out = { 0 };
    size_t            width, height, row = 0, column = 0;

    screen_size(&width, &height);
    size_t rows = cli_screen_rows(screen->prompt, text, cursor, width, NULL, 0, 0, &row, &column);
    size_t shown = rows < height ? rows : height;
    size_t top = row < shown ? 0 : row - shown + 1;

    cli_buffer_add(&out, "\r", 1);
    move(&out, screen->row, 'A');
    cli_buffer_add(&out, "\x1b[J", 3);
    cli_screen_rows(screen->prompt, text, cursor, width, &out, top, shown, &row, &column);
    move(&out, top + shown - 1 - row, 'A');
    cli_buffer_add(&out, "\r", 1);
    move(&out, column, 'C');
    screen->row = row - top;
    if (out.text != NULL)
        cli_write(out.text, out.bytes);
    cli_buffer_fini(&out);
}
