/* cli/spec.h - what the options say about guessing tokens ahead ("speculation").
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_SPEC_H
#define CLI_SPEC_H

#include "cli/args.h"

#include <mcp/generate.h>

#include <stdint.h>

/* The words of --spec: mcp_spec. */
extern const struct cli_word cli_spec_words[];

struct cli_spec_args {
    int64_t     mode; /* mcp_spec */
    int64_t     depth;
    int64_t     windows;
    double      synth; /* below 0: not given */
    const char *truth;
    const char *draft; /* -md */
};

/* What guesses besides the text itself.  Open until the session is closed. */
struct cli_spec {
    mcp_model      *draft;
    mcp_engine_opts draft_engine;
};

/* Put them into *session.  *truth is to be freed after the session is closed.  0, or -1 with the
 * line printed. */
int cli_spec_set(mcp_session_opts *session, const struct cli_spec_args *given, int32_t **truth);

/* Open the draft model that is given, to run as `engine` says of the model, and put it into
 * *session, where all else is set already.  Says where it has no effect.  0, or -1 with the line
 * printed; either way to be closed. */
int  cli_spec_open(struct cli_spec *spec, mcp_session_opts *session,
                   const struct cli_spec_args *given, const mcp_engine_opts *engine);
void cli_spec_close(struct cli_spec *spec);

#endif
