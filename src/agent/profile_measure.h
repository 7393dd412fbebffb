/* agent/profile_measure.h - how fast devices compute a model, measured: here, and on a worker.
 *
 * Here a few layers are loaded, never the whole of a big model; on a worker its layers are run in
 * a session of their own.  Both take seconds and block; the figures are those of a forward,
 * copies to and from a device included, and on a worker neither its queue nor the link.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_PROFILE_MEASURE_H
#define AGENT_PROFILE_MEASURE_H

#include "agent/remote.h"
#include "engine/engine.h"
#include "plan/profile.h"

/* Called before each of `all` figures is taken; non-zero stops. */
typedef int (*measure_progress_fn)(uint32_t done, uint32_t all, void *ctx);

/* Of the options count: device, threads, KV types, flash, poll, repack, even_windows.  `work`
 * (layers) as in plan_model.
 *   MCP_ECANCELED  the callback said so      and what mcp_engine_open() may say */
int measure_here(struct plan_profile *out, const struct mcp_model *model, const double *work,
                 const mcp_engine_opts *opts, measure_progress_fn progress, void *ctx,
                 mcp_error *err);

/* A worker of the remote, on all layers that it holds.
 *   MCP_ECANCELED; MCP_EUNAVAIL, MCP_EBUSY, MCP_EDENIED  as it says */
int measure_worker(struct plan_profile *out, const struct mcp_model *model, const double *work,
                   struct mcp_remote *remote, uint32_t index, measure_progress_fn progress,
                   void *ctx, mcp_error *err);

/* What both share: sorts the samples. */
double measure_median(double *samples, uint32_t count);

/* The work of layers [first, last). */
double measure_work(const double *work, uint32_t first, uint32_t last);

/* Heads for more rows than were measured (from index `known` on) cost more as a layer does. */
void measure_fill_heads(struct plan_profile *p, uint32_t known);

/* Names, grid and shape of a profile that is about to be measured. */
void measure_begin(struct plan_profile *p, const struct mcp_model *model);

#endif
