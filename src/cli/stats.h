/* cli/stats.h - what a session does, in lines on standard error.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_STATS_H
#define CLI_STATS_H

#include "cli/place.h"

/* What ran where, its plan and its moves, when an answer has ended. */
void cli_stats_stages(const mcp_session_stats *stats);

/* One line while an answer runs: tokens, plan, codec, links, guesses, bytes. */
void cli_stats_live(const struct cli_place *place, const mcp_model *model, uint32_t tokens);

#endif
