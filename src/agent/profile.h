/* agent/profile.h - profiles of devices: measured, kept in the cache folder, read from files.
 *
 * A file is one JSON object.  A measured one holds the grid of plan/profile.h and which model it
 * was measured with; one of kind "roofline" holds what a data sheet says, and becomes a profile of
 * the model at hand when it is read.  Files come from other people: every member is checked, and
 * one that is not known is refused.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_PROFILE_H
#define AGENT_PROFILE_H

#include "agent/profile_measure.h"
#include "plan/graph.h"

enum {
    PROFILE_PATH_BYTES = 4096,
    PROFILE_FILE_BYTES_MAX = 64 * 1024, /* the largest grid takes 4 KiB */
};

/* The handle of mcp/plan.h. */
struct mcp_profile {
    struct plan_profile p;
    uint32_t            threads;                            /* of a CPU; 0 */
    char                source[256];                        /* of a data sheet's figures; "" */
    uint8_t             fingerprint[MCP_FINGERPRINT_BYTES]; /* of the model */
    char                path[PROFILE_PATH_BYTES];           /* the file; "" = none yet */
};

/* ---- a model as the planner sees it (agent/profile_model.c) ----------------------------------- */

/* The op graph of the whole model. */
int profile_graph(struct plan_graph **out, const struct mcp_model *model, mcp_error *err);

/* Work of each layer of the model, 1 on average: bytes that decoding one token moves. */
void profile_work(const struct plan_graph *graph, double work[PLAN_LAYERS_MAX]);

/* ---- files (agent/profile_file.c) -------------------------------------------------------------- */

/* From a file's text.  `what` names it in sentences; `graph` is the model's.
 *   MCP_EFORMAT  no such file        MCP_ENOTSUP  measured with another model */
int profile_parse(struct mcp_profile *out, const char *text, size_t bytes, const char *what,
                  const struct mcp_model *model, const struct plan_graph *graph, mcp_error *err);

/* A measured profile as text, to be freed; NULL when out of memory. */
char *profile_text(const struct mcp_profile *profile);

int profile_read(struct mcp_profile *out, const char *path, const struct mcp_model *model,
                 const struct plan_graph *graph, mcp_error *err);

/* Whole or not at all.  MCP_EIO. */
int profile_write(const struct mcp_profile *profile, const char *path, mcp_error *err);

/* ---- where they are (agent/profile.c) ---------------------------------------------------------- */

/* A path, or the name of a file ("a100") in $MCP_PROFILES, the cache folder, or the folder that
 * comes with the program.  MCP_ENOTFOUND, and as profile_parse(). */
int profile_find(struct mcp_profile *out, const char *name, const struct mcp_model *model,
                 const struct plan_graph *graph, mcp_error *err);

enum profile_want {
    PROFILE_FIND,            /* in the cache folder, or MCP_ENOTFOUND */
    PROFILE_FIND_OR_MEASURE, /* and kept there */
    PROFILE_MEASURE,         /* whatever is there */
};

/* The measured profile of the device here that the options mean, for this model. */
int profile_here(struct mcp_profile *out, const struct mcp_model *model,
                 const struct plan_graph *graph, const mcp_engine_opts *opts,
                 enum profile_want want, measure_progress_fn progress, void *ctx, mcp_error *err);

/* The same of a worker. */
int profile_worker(struct mcp_profile *out, const struct mcp_model *model,
                   const struct plan_graph *graph, struct mcp_remote *remote, uint32_t index,
                   enum profile_want want, measure_progress_fn progress, void *ctx, mcp_error *err);

#endif
