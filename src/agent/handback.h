/* agent/handback.h - prefill mode: a running session's KV comes home, and then the session does.
 *
 * Workers compute the prompt, and go on decoding; meanwhile their KV is asked for block by block
 * and put into an engine here that holds all layers.  When that has all positions but a few, the
 * caller takes over: it runs those few again here, and goes on without workers.
 *
 *     worker    [ prompt ]  d d d d d d d d          d: a token decoded there
 *     home          ==== === == === == = =           =: blocks of KV
 *     here                                [r] d d d  r: the last positions, computed again
 *
 * What was computed never changes (positions are only trimmed, from the end), so a block of
 * positions that the session has can be asked for at any time.  A block holds a range of positions
 * of one or several layers, is small, and travels as bulk: decode frames go before it.  With equal
 * KV types what arrives are the worker's bits.
 *
 * A worker that sends a wrong block, is lost, or takes no such requests ends the hand-back, never
 * the session: that goes on as it was.
 *
 * Threads: the session's.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_HANDBACK_H
#define AGENT_HANDBACK_H

#include "agent/session.h"

/* So many positions may be missing at the end: one window of them costs here little more than one
 * token (weights are read once), while the last ones of a worker that decodes are always on their
 * way. */
enum { HANDBACK_BEHIND_MAX = 8 };

struct handback;

struct handback_stats {
    uint32_t home;   /* positions that all layers have here */
    uint32_t behind; /* of the session's, those that are not */
    uint64_t blocks, bytes;
    uint64_t again; /* blocks asked for anew, since a Trim had voided the request */
    double   ms;    /* since the hand-back began */
};

/* Begin to bring all of the session's KV into sequence `seq` of `engine`, which holds all layers.
 * Stages that run in this very sequence are home already; what other local stages hold is
 * copied.  Positions that `engine` has in the other layers must be this session's: trim it before,
 * if it holds anything else.  `engine` and session must outlive the hand-back.
 *   MCP_ERANGE    not all layers, or a context shorter than the session's
 *   MCP_EDENIED   the token that this agent shows grants no `state` */
int  handback_new(struct handback **out, struct mcp_session *session, struct mcp_engine *engine,
                  uint32_t seq, mcp_error *err);
void handback_free(struct handback *h); /* NULL is allowed */

/* The session's first `count` positions are the prompt's.  They are asked for as soon as the worker
 * has computed them, and are never among those that may be missing: they ran in wide windows, whose
 * bits narrow ones do not give again.  In cloud mode a Generate must have been sent before the
 * next step. */
void handback_prompt(struct handback *h, uint32_t count);

/* Ask for more, and take in what has arrived.  Never waits, and takes a few ms at most; to be
 * called at every token and whenever the session waits.  1: all positions but HANDBACK_BEHIND_MAX
 * are home; 0: not yet; negative: given up, for the reason that *err then and later says. */
int handback_step(struct handback *h, mcp_error *err);

/* The session has given up positions from `pos` on, and may go on there with other tokens. */
void handback_trimmed(struct handback *h, uint32_t pos);

/* Nothing more is asked for: `engine` has *home positions of the session in every layer, no more
 * and no less.  The caller goes on there; what the session's own stages have in that sequence is
 * cut to it too. */
int handback_finish(struct handback *h, uint32_t *home, mcp_error *err);

void handback_get_stats(const struct handback *h, struct handback_stats *stats);

#endif
