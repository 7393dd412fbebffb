/* agent/codecs.h - the codec of each window of a session, where it was left to us ("auto").
 *
 * A window's codec is chosen when it enters the pipeline, from what its workers' links do at that
 * time (pipe/codec_choice.h), and holds for all its hops and for every sending: a window that is
 * sent anew carries the same bytes, and its answer is asked for in the same codec.  With a codec
 * that the user named, nothing is chosen.
 *
 * The session's thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_CODECS_H
#define AGENT_CODECS_H

#include "agent/session.h"

/* A window of `count` positions from `pos` on is about to enter the pipeline. */
void codecs_choose(struct mcp_session *s, uint32_t pos, uint32_t count);
/* It has entered; until then another choice takes the place of this one. */
void codecs_taken(struct mcp_session *s);

/* The codec in which the rows of the window from `pos` on enter a stage. */
const struct wire_codec *codecs_of(const struct mcp_session *s, uint32_t stage, uint32_t pos);

/* May rows that enter `stage` come in this codec? */
bool codecs_expected(const struct mcp_session *s, uint32_t stage, uint32_t id);

#endif
