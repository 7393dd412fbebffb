/* cli/text.h - bytes that grow, UTF-8, and figures for people.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_TEXT_H
#define CLI_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Always terminated once anything was added; zeroed = empty. */
struct cli_buffer {
    char  *text;
    size_t bytes;
    size_t cap;
};

/* 0, or -1 when memory is short; then the buffer is unchanged and a line was printed. */
int cli_buffer_add(struct cli_buffer *buffer, const char *bytes, size_t count);
/* Replace `gone` bytes at `at` by `count` others. */
int cli_buffer_splice(struct cli_buffer *buffer, size_t at, size_t gone, const char *bytes,
                      size_t count);
/* Remove the first `count` bytes. */
void cli_buffer_drop(struct cli_buffer *buffer, size_t count);
void cli_buffer_fini(struct cli_buffer *buffer);

/* How many of the bytes come before a UTF-8 sequence that has begun and may yet be
 * completed; at least count - 3.  Bytes that can never be valid count as complete. */
size_t cli_utf8_complete(const char *text, size_t count);

/* Length of the valid sequence at `text` (1..4) and its code point; or 0, and then *code
 * is how many bytes (1..3) are to be replaced together. */
size_t cli_utf8_next(const char *text, size_t count, uint32_t *code);

/* Append `text` with what is not UTF-8 replaced: one U+FFFD for each byte that begins
 * nothing and for each sequence that breaks off, as most decoders do. */
int cli_utf8_repair(struct cli_buffer *out, const char *text, size_t count);

/* Append `text` with control characters other than newline and tab replaced by U+FFFD,
 * so that a terminal shows them and does not obey them. */
int cli_text_tame(struct cli_buffer *out, const char *text, size_t count);

/* The same for one field of a line, newlines and tabs too; `out` is always terminated. */
void cli_text_field(char *out, size_t cap, const char *text);

/* "93.8 MiB", "1.2 KiB", "17 B". */
enum { CLI_BYTES_TEXT = 32 };
const char *cli_bytes_text(char out[CLI_BYTES_TEXT], uint64_t bytes);

/* "134.52 M", "7.24 B", "812". */
const char *cli_count_text(char out[CLI_BYTES_TEXT], uint64_t count);

#endif
