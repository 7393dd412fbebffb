/* cli/interrupt.h - Ctrl-C stops the answer, not the program.
 *
 * The signal may arrive on any thread (the compute threads do not block it), so the
 * handler does what is allowed there: cancel the session that answers, count, and write
 * a byte into a pipe, which whoever waits for input polls together with it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

#include <mcp/generate.h>

#include <stdbool.h>

/* Take over SIGINT.  0, or -1 with the line printed. */
int cli_interrupt_init(void);

/* From now on a Ctrl-C cancels `session`; NULL = nothing runs.  Set to NULL before the
 * session is closed. */
void cli_interrupt_target(mcp_session *session);

/* Whether one came since the last reset. */
bool cli_interrupt_came(void);
void cli_interrupt_reset(void);

/* Readable once one came. */
int cli_interrupt_fd(void);

#endif
