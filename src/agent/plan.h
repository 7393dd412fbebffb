/* agent/plan.h - the planner's facts, collected: model, this machine, workers, links, codecs.
 *
 * src/plan is pure; what it is to know is gathered here, measured where it never was, and kept as
 * long as the plan, so that a running session can ask again with newer links and loads.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_PLAN_H
#define AGENT_PLAN_H

#include "agent/profile.h"
#include "plan/plan.h"

#include <mcp/plan.h>

enum { AGENT_PLAN_NOTES_MAX = 2 * MCP_WORKERS_MAX + 8, AGENT_PLAN_NOTE_BYTES = 384 };

/* The handle of mcp/plan.h.  `facts` and `request` point into it. */
struct mcp_plan {
    mcp_engine_opts     engine; /* how layers run here */
    char                device[64];
    struct plan_model   model;
    struct plan_weights weights;
    struct mcp_profile  here_profile;
    struct plan_here    here;
    struct mcp_profile *profiles; /* (worker_count) */
    struct plan_worker *workers;  /* (worker_count) */
    int32_t            *indices;  /* (worker_count) in the remote; -1 = supposed */
    uint32_t            worker_count;
    uint32_t            codecs_common; /* bits: codecs that every worker has */
    struct plan_codec   codecs[WIRE_CODECS];
    struct plan_draft   drafts[1];
    struct plan_facts   facts;
    char                codec[16]; /* request.codec */
    struct plan_request request;
    struct plan_choice  choice;
    bool                fits;
    mcp_error           unfit; /* when nothing fits: why */
    char                notes[AGENT_PLAN_NOTES_MAX][AGENT_PLAN_NOTE_BYTES];
    uint32_t            note_count;
};

/* See mcp_plan_open(). */
int  agent_plan_open(struct mcp_plan **out, const mcp_plan_opts *opts, mcp_error *err);
void agent_plan_close(struct mcp_plan *plan);

/* Facts, request and choice for somebody who will change them. */
int agent_plan_copy(struct mcp_plan **out, const struct mcp_plan *plan, mcp_error *err);

/* Choose again, after facts or request have been changed. */
int agent_plan_choose(struct mcp_plan *plan, mcp_error *err);

/* ---- agent/plan_facts.c ------------------------------------------------------------------------ */

/* Fill everything that `facts` points to. */
int agent_plan_collect(struct mcp_plan *plan, const mcp_plan_opts *opts, mcp_error *err);

/* What worker `at` says of itself and its link by now, without asking; `ours`: a session of ours
 * is open there; `blocked`: it is to be left alone.  True: it came or went. */
bool agent_plan_look(struct mcp_plan *plan, uint32_t at, struct mcp_remote *remote,
                     const struct mcp_model *model, bool ours, bool blocked);

__attribute__((format(printf, 2, 3))) void agent_plan_note(struct mcp_plan *plan,
                                                           const char      *format, ...);

#endif
