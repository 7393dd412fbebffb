/* agent/stage_local.h - a stage that runs on an engine in this process.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_STAGE_LOCAL_H
#define AGENT_STAGE_LOCAL_H

#include "engine/engine.h"
#include "pipe/stage.h"

/* Layers [first, last) of the engine, which is borrowed, for one of its sequences.
 * NULL when out of memory. */
struct pipe_stage *stage_local_new(struct mcp_engine *engine, uint32_t seq, uint32_t first,
                                   uint32_t last);

#endif
