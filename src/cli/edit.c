/* cli/edit.c - a small editor for one turn of a chat on a terminal.
 *
 * Emacs keys, arrows, earlier turns by up and down, pages pasted whole (bracketed
 * paste), Alt-Enter for a newline.  The text is drawn anew after each burst of input.
 * The terminal is in raw mode only inside cli_edit_read(); SIGTERM and SIGHUP put it
 * back first.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/line.h"
#include "cli/out.h"
#include "cli/screen.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

enum {
    ESCAPE_MS = 50,       /* the rest of a key's sequence follows its ESC within this */
    ESCAPE_BYTES_MAX = 32 /* longest sequence that a terminal sends, and more */
};

#define PASTE_ON  "\x1b[?2004h"
#define PASTE_OFF "\x1b[?2004l"
#define PASTE_END "\x1b[201~"

struct editor {
    struct cli_lines  *lines;
    struct cli_buffer *text;
    struct cli_buffer  kept;   /* what was typed before the up key went through history */
    size_t             cursor; /* byte in text, at the beginning of a character */
    size_t             recall; /* history entry shown; history_count = none */
    struct cli_screen  screen;
};

/* ---- the terminal's mode ---------------------------------------------------------- */

static struct termios cooked;

/* Async-signal-safe: put the terminal back, then die of the signal as if unhandled. */
static void on_end(int number)
{
    tcsetattr(STDIN_FILENO, TCSANOW, &cooked);
    (void)!write(STDOUT_FILENO, PASTE_OFF "\r\n", sizeof(PASTE_OFF "\r\n") - 1);
    signal(number, SIG_DFL);
    raise(number);
}

static void raw_mode(bool on)
{
    if (on) {
        struct sigaction action = { .sa_handler = on_end };
        struct termios   raw = cooked;

        sigaction(SIGTERM, &action, NULL);
        sigaction(SIGHUP, &action, NULL);
        raw.c_iflag &= ~(tcflag_t)(ICRNL | INLCR | IXON | ISTRIP);
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | IEXTEN);
        raw.c_cc[VMIN] = 1;
        raw.c_cc[VTIME] = 0;
        raw.c_cc[VSUSP] = _POSIX_VDISABLE; /* Ctrl-Z is a key here: the mode must be put back */
        raw.c_cc[VQUIT] = _POSIX_VDISABLE;
        tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
        cli_write(PASTE_ON, sizeof(PASTE_ON) - 1);
    } else {
        cli_write(PASTE_OFF, sizeof(PASTE_OFF) - 1);
        tcsetattr(STDIN_FILENO, TCSADRAIN, &cooked);
        signal(SIGTERM, SIG_DFL);
        signal(SIGHUP, SIG_DFL);
    }
}

/* ---- changing the text ------------------------------------------------------------ */

static void insert(struct editor *e, const char *bytes, size_t count)
{
    if (cli_buffer_splice(e->text, e->cursor, 0, bytes, count) == 0)
        e->cursor += count;
}

static void erase(struct editor *e, size_t from, size_t to)
{
    if (from < to && cli_buffer_splice(e->text, from, to - from, NULL, 0) == 0)
        e->cursor = from;
}

/* The place one character before or after `at`; marks that sit on a letter go with it. */
static size_t before(const struct editor *e, size_t at)
{
    struct cli_glyph g = { 0 };

    while (at > 0 && g.columns == 0 && !g.newline) {
        at--;
        while (at > 0 && ((unsigned char)e->text->text[at] & 0xC0) == 0x80)
            at--;
        g = cli_glyph_at(e->text->text + at, e->text->bytes - at);
    }
    return at;
}

static size_t after(const struct editor *e, size_t at)
{
    if (at < e->text->bytes)
        at += cli_glyph_at(e->text->text + at, e->text->bytes - at).bytes;
    while (at < e->text->bytes) {
        struct cli_glyph g = cli_glyph_at(e->text->text + at, e->text->bytes - at);
        if (g.columns > 0 || g.newline)
            break;
        at += g.bytes;
    }
    return at;
}

static size_t word_before(const struct editor *e, size_t at)
{
    const char *text = e->text->text;

    while (at > 0 && (text[at - 1] == ' ' || text[at - 1] == '\n'))
        at--;
    while (at > 0 && text[at - 1] != ' ' && text[at - 1] != '\n')
        at--;
    return at;
}

static void replace(struct editor *e, const char *text, size_t bytes)
{
    cli_buffer_drop(e->text, e->text->bytes);
    e->cursor = 0;
    insert(e, text, bytes);
}

/* Show history entry `to`; the one past the last is what was being typed. */
static void recall(struct editor *e, size_t to)
{
    size_t count = e->lines->history_count;

    if (to > count)
        return;
    if (e->recall == count) {
        cli_buffer_drop(&e->kept, e->kept.bytes);
        cli_buffer_add(&e->kept, e->text->text, e->text->bytes);
    }
    e->recall = to;
    if (to == count)
        replace(e, e->kept.text, e->kept.bytes);
    else
        replace(e, e->lines->history[to], strlen(e->lines->history[to]));
}

static void remember(struct cli_lines *lines, const struct cli_buffer *line)
{
    size_t count = lines->history_count;
    char  *copy;

    if (line->bytes == 0 || (count > 0 && strcmp(lines->history[count - 1], line->text) == 0))
        return;
    copy = strdup(line->text);
    if (copy == NULL)
        return; /* the turn itself is not lost, only the up key's way back to it */
    if (count == CLI_LINE_HISTORY) {
        free(lines->history[0]);
        memmove(lines->history, lines->history + 1, (count - 1) * sizeof(lines->history[0]));
        count--;
    }
    lines->history[count] = copy;
    lines->history_count = count + 1;
}

/* ---- keys ------------------------------------------------------------------------- */

enum key_result { KEY_MORE, KEY_DONE, KEY_ENTER, KEY_END };

/* Keys by what the terminal sends: a control byte, or the tail of an escape sequence. */
enum action {
    ACT_NONE,
    ACT_LEFT,
    ACT_RIGHT,
    ACT_HOME,
    ACT_LAST,
    ACT_OLDER,
    ACT_NEWER,
    ACT_BACK,
    ACT_DELETE,
    ACT_KILL_ALL,
    ACT_KILL_REST,
    ACT_KILL_WORD,
    ACT_CLEAR,
    ACT_NEWLINE,
    ACT_ENTER,
    ACT_END,
    ACT_SUSPEND,
    ACT_PASTE,
};

static const struct {
    const char *bytes;
    enum action action;
} keys[] = {
    { "\x01", ACT_HOME },      { "\x02", ACT_LEFT },       { "\x04", ACT_END },
    { "\x05", ACT_LAST },      { "\x06", ACT_RIGHT },      { "\x08", ACT_BACK },
    { "\x0b", ACT_KILL_REST }, { "\x0c", ACT_CLEAR },      { "\x0e", ACT_NEWER },
    { "\x10", ACT_OLDER },     { "\x15", ACT_KILL_ALL },   { "\x17", ACT_KILL_WORD },
    { "\x1a", ACT_SUSPEND },   { "\x7f", ACT_BACK },       { "\r", ACT_ENTER },
    { "\n", ACT_ENTER },       { "\x1b\r", ACT_NEWLINE },  { "\x1b[A", ACT_OLDER },
    { "\x1b[B", ACT_NEWER },   { "\x1b[C", ACT_RIGHT },    { "\x1b[D", ACT_LEFT },
    { "\x1b[H", ACT_HOME },    { "\x1b[F", ACT_LAST },     { "\x1bOA", ACT_OLDER },
    { "\x1bOB", ACT_NEWER },   { "\x1bOC", ACT_RIGHT },    { "\x1bOD", ACT_LEFT },
    { "\x1bOH", ACT_HOME },    { "\x1bOF", ACT_LAST },     { "\x1b[1~", ACT_HOME },
    { "\x1b[3~", ACT_DELETE }, { "\x1b[4~", ACT_LAST },    { "\x1b[7~", ACT_HOME },
    { "\x1b[8~", ACT_LAST },   { "\x1b[200~", ACT_PASTE },
};

/* Length of the key at the beginning of `text`, 0 when more bytes must come first. */
static size_t key_bytes(const char *text, size_t count)
{
    if (text[0] != '\x1b')
        return 1;
    if (count < 2)
        return 0;
    if (text[1] == 'O')
        return count < 3 ? 0 : 3;
    if (text[1] != '[')
        return 2;
    for (size_t i = 2; i < count; i++)
        if (text[i] >= 0x40 && text[i] <= 0x7E)
            return i + 1;
    return count < ESCAPE_BYTES_MAX ? 0 : count;
}

static void suspend(struct editor *e)
{
    raw_mode(false);
    raise(SIGTSTP);
    raw_mode(true);
    e->screen.row = 0;
}

static enum key_result act(struct editor *e, enum action action)
{
    switch (action) {
    case ACT_LEFT: e->cursor = before(e, e->cursor); break;
    case ACT_RIGHT: e->cursor = after(e, e->cursor); break;
    case ACT_HOME: e->cursor = 0; break;
    case ACT_LAST: e->cursor = e->text->bytes; break;
    case ACT_OLDER: recall(e, e->recall - 1); break; /* from 0 wraps, which is refused */
    case ACT_NEWER: recall(e, e->recall + 1); break;
    case ACT_BACK: erase(e, before(e, e->cursor), e->cursor); break;
    case ACT_DELETE: erase(e, e->cursor, after(e, e->cursor)); break;
    case ACT_KILL_ALL: erase(e, 0, e->cursor); break;
    case ACT_KILL_REST: erase(e, e->cursor, e->text->bytes); break;
    case ACT_KILL_WORD: erase(e, word_before(e, e->cursor), e->cursor); break;
    case ACT_NEWLINE: insert(e, "\n", 1); break;
    case ACT_SUSPEND: suspend(e); break;
    case ACT_ENTER: return KEY_ENTER;
    case ACT_CLEAR:
        cli_write("\x1b[H\x1b[2J", 7);
        e->screen.row = 0;
        break;
    case ACT_END:
        if (e->text->bytes == 0)
            return KEY_END;
        erase(e, e->cursor, after(e, e->cursor));
        break;
    case ACT_NONE:
    case ACT_PASTE: break;
    }
    return KEY_DONE;
}

/* A paste goes in as it is, newlines too, up to its end mark. */
static enum key_result paste(struct editor *e, size_t head)
{
    struct cli_buffer *in = &e->lines->pending;
    char *end = memmem(in->text + head, in->bytes - head, PASTE_END, sizeof(PASTE_END) - 1);

    if (end == NULL)
        return KEY_MORE;
    for (char *c = in->text + head; c < end; c++)
        if (*c == '\r')
            *c = '\n';
    insert(e, in->text + head, (size_t)(end - in->text) - head);
    cli_buffer_drop(in, (size_t)(end - in->text) + sizeof(PASTE_END) - 1);
    return KEY_DONE;
}

/* Use up one key, or one run of plain text, from what is pending. */
static enum key_result take_key(struct editor *e)
{
    struct cli_buffer *in = &e->lines->pending;
    size_t             plain = 0;

    while (plain < in->bytes &&
           ((unsigned char)in->text[plain] >= 0x20 || in->text[plain] == '\t') &&
           in->text[plain] != 0x7F)
        plain++;
    plain = cli_utf8_complete(in->text, plain);
    if (plain > 0) {
        insert(e, in->text, plain);
        cli_buffer_drop(in, plain);
        return KEY_DONE;
    }
    size_t bytes = (unsigned char)in->text[0] >= 0x80 ? 0 : key_bytes(in->text, in->bytes);
    if (bytes == 0)
        return KEY_MORE;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strlen(keys[i].bytes) != bytes || memcmp(keys[i].bytes, in->text, bytes) != 0)
            continue;
        if (keys[i].action == ACT_PASTE)
            return paste(e, bytes);
        cli_buffer_drop(in, bytes);
        return act(e, keys[i].action);
    }
    cli_buffer_drop(in, bytes); /* a key that means nothing here */
    return KEY_DONE;
}

enum cli_line cli_edit_read(struct cli_lines *lines, const char *prompt, struct cli_buffer *line)
{
    struct editor   e = { .lines = lines, .text = line, .screen.prompt = prompt };
    enum cli_line   result = CLI_LINE_TEXT;
    enum key_result key = KEY_DONE;

    if (tcgetattr(STDIN_FILENO, &cooked) < 0) {
        cli_fail("the terminal: %s", strerror(errno));
        return CLI_LINE_FAILED;
    }
    cli_buffer_drop(line, line->bytes);
    if (cli_buffer_add(line, "", 0) < 0)
        return CLI_LINE_FAILED;
    e.recall = lines->history_count;
    lines->touched = false;
    raw_mode(true);

    while (result == CLI_LINE_TEXT) {
        while (lines->pending.bytes > 0 && key == KEY_DONE)
            key = take_key(&e);
        lines->touched |= line->bytes > 0 || e.recall < lines->history_count;
        if (key == KEY_ENTER || key == KEY_END)
            break;
        cli_screen_draw(&e.screen, line, e.cursor);
        /* A lone ESC is not the beginning of anything once some time has passed. */
        bool half = key == KEY_MORE && lines->pending.text[0] == '\x1b' &&
                    key_bytes(lines->pending.text, lines->pending.bytes) == 0;
        result = cli_lines_fill(lines, half ? ESCAPE_MS : -1);
        if (result == CLI_LINE_END && !lines->at_end) {
            cli_buffer_drop(&lines->pending, 1);
            result = CLI_LINE_TEXT;
        }
        key = KEY_DONE;
    }
    if (key == KEY_END)
        result = CLI_LINE_END;
    e.cursor = line->bytes;
    cli_screen_draw(&e.screen, line, e.cursor);
    cli_write("\r\n", 2);
    raw_mode(false);
    if (result == CLI_LINE_TEXT)
        remember(lines, line);
    else
        cli_buffer_drop(line, line->bytes);
    cli_buffer_fini(&e.kept);
    return result;
}
