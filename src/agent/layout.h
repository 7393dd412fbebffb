/* agent/layout.h - what runs where in a session: its stages, their engines and workers, codec,
 * windows and the memory for them.  Laid out when it is opened, and anew for each move
 * (agent/steer.h).
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_LAYOUT_H
#define AGENT_LAYOUT_H

#include "agent/session.h"

/* From the session's fixed part and the options.  s->count is 0 then; tokens and windows that were
 * noted are kept, so that they can be replayed.  After a failure: layout_close().
 *   as mcp_session_open(); MCP_ERANGE: a later layout with a shorter context than the first */
int  layout_open(struct mcp_session *s, struct mcp_engine *engine, const mcp_session_opts *opts,
                 mcp_error *err);
void layout_close(struct mcp_session *s);

/* Compute s->tokens[0, count) in the windows in which they were first computed. */
int layout_replay(struct mcp_session *s, uint32_t count, mcp_error *err);

/* Positions of the window that begins at `pos`, of `left` that are wanted. */
uint32_t layout_window(const struct mcp_session *s, uint32_t pos, uint32_t left);

/* Such a window has been sent.  Only wide ones are noted: all others give the same bits however
 * they are cut. */
void layout_note(struct mcp_session *s, uint32_t pos, uint32_t count);

#endif
