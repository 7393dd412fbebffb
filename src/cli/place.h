/* cli/place.h - where the layers of a run are: here, on workers, or both.
 *
 * The options that say so, the workers behind them, and the session that results.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_PLACE_H
#define CLI_PLACE_H

#include "cli/load.h"
#include "cli/spec.h"

#include <mcp/generate.h>

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

    struct cli_spec_args spec;
};

enum cli_mode { CLI_MODE_AUTO, CLI_MODE_LOCAL, CLI_MODE_SPLIT, CLI_MODE_CLOUD };

enum { CLI_PLACE_OPTIONS = 17, CLI_STAGES_MAX = MCP_CUTS_MAX + 1, CLI_WORKERS_FILE_BYTES = 16384 };
extern const struct cli_option cli_place_options[CLI_PLACE_OPTIONS];

/* The group's row in a verb whose struct T keeps them in its member `place`. */
#define CLI_PLACE_GROUP(T)                                                  \
    {                                                                       \
        "Workers", cli_place_options, CLI_PLACE_OPTIONS, offsetof(T, place) \
    }

/* A session and what it stands on.  Zeroed before opening; closed also after a failure. */
struct cli_place {
    enum cli_mode mode; /* as decided */
    mcp_remote   *remote;
    mcp_engine   *engines[2]; /* of the first layers (or all), of the last */
    mcp_session  *session;
    mcp_stage     stages[CLI_STAGES_MAX];
    bool          here[CLI_STAGES_MAX]; /* stage i runs on an engine of ours */
    uint32_t      stage_count;
    uint32_t      ctx_tokens;
    int32_t      *spec_truth;                            /* the session's, borrowed by it */
    uint64_t      weight_bytes, kv_bytes, compute_bytes; /* of the engines here */
    char          devices[128];
};

int  cli_place_open(struct cli_place *place, const mcp_model *model, const struct cli_args *args,
                    const struct cli_engine_args *engine, const struct cli_place_args *given,
                    uint32_t ctx_tokens);
void cli_place_close(struct cli_place *place);

const char *cli_mode_name(enum cli_mode mode);

/* Connect to the workers given, or to those that `mcp join` has written down.  With `quiet`,
 * failing to reach the latter is no failure (*out stays NULL).  0, or -1 with the line printed. */
int cli_remote_open(mcp_remote **out, const struct cli_place_args *given, bool quiet);

#endif
