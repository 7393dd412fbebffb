/* cli/talk.h - what `mcp run` keeps while it answers: one model, one session and what it
 * stands on, and how answers are shown.  Main thread only.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_TALK_H
#define CLI_TALK_H

#include "cli/load.h"
#include "cli/out.h"
#include "cli/place.h"

#include <mcp/generate.h>

#include <stdbool.h>

struct run_args {
    struct cli_args        args;
    struct cli_engine_args engine;
    struct cli_place_args  place;
    const char            *prompt;
    const char            *file;
    const char            *system_prompt;
    int64_t                n_predict; /* -1 = until the end of the answer or the context */
    int64_t                ctx_size;
    double                 temp;
    int64_t                top_k;
    double                 top_p;
    double                 min_p;
    int64_t                seed; /* -1 = a different one each time */
    bool                   raw;
    bool                   ignore_eos;
    bool                   json;
    bool                   stats;
};

struct talk {
    const struct run_args *args;
    mcp_model             *model;
    struct cli_place       place;
    bool                   raw; /* no chat format: asked for, or the model has none */
};

/* How an answer ended. */
enum talk_end {
    TALK_FAILED = -1, /* a line was printed, or standard output is gone */
    TALK_DONE = 0,
    TALK_INTERRUPTED = 1 /* Ctrl-C; what there is of the answer was shown */
};

/* Let the model continue `text` (all of the conversation, formatted), show the answer,
 * then its timings on stderr; or all of it as one line of JSON.  `answer`, emptied
 * first, gets the answer as valid UTF-8 without NUL bytes, also after a failure. */
enum talk_end talk_answer(struct talk *talk, const char *text, size_t bytes,
                          struct cli_buffer *answer);

/* Turns from standard input until it ends.  Returns the exit status. */
int talk_chat(struct talk *talk);

/* Append `messages` in the model's chat format, open for an answer.  0 or -1 (printed). */
int talk_format(const struct talk *talk, const mcp_chat_message *messages, size_t count,
                struct cli_buffer *text);

#endif
