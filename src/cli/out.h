/* cli/out.h - standard output that notices when nobody reads it.
 *
 * stdio hides a failed write until the next one; here each write is made at once, and
 * the first failure is remembered and stops all later ones.  A closed pipe (`| head`)
 * is no mistake of the user: the program then ends with status 1 and no message.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_OUT_H
#define CLI_OUT_H

#include "cli/text.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Write to a descriptor, whole, over signals and partial writes.  0 or -1 with errno. */
int cli_write_all(int fd, const void *bytes, size_t count);

/* To standard output.  0, or -1 from the first failure on. */
int cli_write(const void *bytes, size_t count);
int cli_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "key            value" on a line of its own; control characters in the value are tamed. */
void cli_row(const char *key, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* One line of JSON; takes the reference.  Returns an exit status. */
int cli_print_json(json_t *value);

/* A JSON string of any bytes: what is not UTF-8 becomes U+FFFD.  NULL gives null. */
json_t *cli_json_text(const char *text, size_t bytes);
json_t *cli_json_string(const char *text);

/* A finite number, else null. */
json_t *cli_json_real(double value);

/* Whether a write to standard output has failed. */
bool cli_out_failed(void);

/* `status`, or CLI_FAILED when standard output failed; says why unless it was a closed
 * pipe.  main's last act. */
int cli_out_finish(int status);

/* Text that arrives token by token.  Bytes that begin a UTF-8 sequence wait for its
 * end; on a terminal, control characters that a model may have been talked into are
 * shown as U+FFFD instead of being obeyed. */
struct cli_stream {
    bool              terminal;
    char              last; /* the last byte written; '\n' before any */
    struct cli_buffer held;
};

void cli_stream_init(struct cli_stream *stream, bool terminal);
int  cli_stream_write(struct cli_stream *stream, const char *bytes, size_t count);
/* What was held back, then a newline unless the text ended in one. */
int  cli_stream_end(struct cli_stream *stream);
void cli_stream_fini(struct cli_stream *stream);

#endif
