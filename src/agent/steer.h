/* agent/steer.h - a session that follows a plan, and leaves it for a better one.
 *
 *     plan ──▶ layout ──▶ session          engines here, stages, pinned workers, codec, chunk
 *                 ▲          │
 *                 │          ▼ each token: how long it took; now and then: links, loads
 *              better? ◀── watch          (plan/adjust.h decides)
 *
 * A move happens between two tokens: the engines of the new layout are opened, the stages are laid
 * out anew, and all positions so far run through them in the windows in which they ran first.  The
 * text goes on as it would have.  A move that fails is undone in the same way, and what it needed
 * is left alone for the rest of the answer.
 *
 * One thread at a time, the session's.  SPDX-License-Identifier: MIT */
#ifndef AGENT_STEER_H
#define AGENT_STEER_H

#include "agent/answer.h"

#include <mcp/plan.h>

struct steer;

/* Take a copy of opts->plan.  *out stays NULL where none is given.
 *   what the plan says when it does not fit; MCP_EINVAL: a mode that a session cannot have */
int  steer_new(struct steer **out, const mcp_session_opts *opts, mcp_error *err);
void steer_free(struct steer *st);

/* What the plan means: `opts` as given with engines, stages, codec and windows filled in.  Engines
 * are opened, or are those already there. */
int steer_layout(struct steer *st, mcp_session_opts *opts, mcp_error *err);

/* The worker that stage `stage` is to run on; -1 = any.  st may be NULL. */
int steer_worker(const struct steer *st, uint32_t stage);

/* An answer begins, or goes on after a move: what comes is measured against the plan. */
void steer_begin(struct answer *a);

/* A window of the answer is out.  True: the answer is to stop here and to call steer_move(). */
bool steer_wants(struct answer *a);

/* Lay the session out anew; its s->count positions are computed there then.  Failure means that
 * no layout is left, or that it was cancelled. */
int steer_move(struct answer *a);

void steer_stats(const struct steer *st, mcp_session_stats *stats);

#endif
