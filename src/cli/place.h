/* cli/place.h - where the layers of a run are: here, on workers, or both.
 *
 * The options that say so, the workers behind them, and the session that results.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_PLACE_H
#define CLI_PLACE_H

#include "cli/load.h"
#include "cli/spec.h"

#include <mcp/plan.h>

struct cli_place_args {
    struct cli_texts workers;
    const char      *keys;
    const char      *token;
    int64_t          mode; /* enum cli_mode */
    const char      *codec;
    const char      *wrap;
    int64_t          chunk;
    int64_t          qos; /* mcp_qos */
    bool             mixed;
    int64_t          fallback; /* 1 = here */
    int64_t          failover_ms;
    int64_t          answer_ms;
    int64_t          privacy;  /* mcp_privacy */
    int64_t          optimize; /* mcp_optimize */
    const char      *vram;

    struct cli_spec_args spec;
};

enum cli_mode { CLI_MODE_AUTO, CLI_MODE_LOCAL, CLI_MODE_SPLIT, CLI_MODE_CLOUD };

enum { CLI_PLACE_OPTIONS = 21, CLI_STAGES_MAX = MCP_CUTS_MAX + 1, CLI_WORKERS_FILE_BYTES = 16384 };
extern const struct cli_option cli_place_options[CLI_PLACE_OPTIONS];

/* The group's row in a verb whose struct T keeps them in its member `place`. */
#define CLI_PLACE_GROUP(T)                                                  \
    {                                                                       \
        "Workers", cli_place_options, CLI_PLACE_OPTIONS, offsetof(T, place) \
    }

/* What is known of the request before there is a session: for the planner. */
struct cli_request {
    uint32_t prompt_tokens, gen_tokens; /* expected, where not known */
    uint32_t ctx_tokens;                /* of the conversation; 0 = the library's choice */
};

/* A session and what it stands on.  Zeroed before opening; closed also after a failure. */
struct cli_place {
    enum cli_mode   mode; /* as decided */
    mcp_remote     *remote;
    mcp_engine     *engines[2]; /* of the first layers (or all), of the last */
    mcp_session    *session;
    struct cli_spec spec; /* the draft model, borrowed by the session */
    mcp_stage       stages[CLI_STAGES_MAX];
    bool            here[CLI_STAGES_MAX]; /* stage i runs on an engine of ours */
    uint32_t        stage_count;
    uint32_t        ctx_tokens;
    mcp_plan       *plan;       /* NULL: laid out by hand */
    int32_t        *spec_truth; /* the session's, borrowed by it */
};

/* 0, or -1 with the line printed.  Where workers take part and nothing is laid down by --cuts or
 * --mode local and cloud, the planner decides, which measures what was never measured. */
int  cli_place_open(struct cli_place *place, const mcp_model *model, const struct cli_args *args,
                    const struct cli_engine_args *engine, const struct cli_place_args *given,
                    const struct cli_request *request);
void cli_place_close(struct cli_place *place);

const char *cli_mode_name(enum cli_mode mode);

/* Connect to the workers given, or to those that `mcp join` has written down.  With `quiet`,
 * failing to reach the latter is no failure (*out stays NULL).  0, or -1 with the line printed. */
int cli_remote_open(mcp_remote **out, const struct cli_place_args *given, bool quiet);

#endif
