/* cli/spec.c - see spec.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/spec.h"

#include "cli/cli.h"
#include "cli/load.h"

#include <stdio.h>
#include <stdlib.h>

const struct cli_word cli_spec_words[] = { { "auto", MCP_SPEC_AUTO },
                                           { "none", MCP_SPEC_NONE },
                                           { "ngram", MCP_SPEC_NGRAM },
                                           { "draft", MCP_SPEC_DRAFT },
                                           { NULL, 0 } };

enum { TRUTH_MAX = 1 << 20 /* tokens: longer than any context */ };

/* Numbers of a file; their count, or -1. */
static int read_truth(const char *path, int32_t **out)
{
    FILE    *f = fopen(path, "r");
    int32_t *ids = NULL;
    int      count = 0, cap = 0, id;

    if (f == NULL)
        return cli_fail("--spec-truth: %s cannot be opened", path), -1;
    while (fscanf(f, "%d%*[ ,\n]", &id) == 1) {
        if (count == cap) {
            int32_t *more = cap < TRUTH_MAX ? realloc(ids, (size_t)(cap + 1024) * sizeof(*ids))
                                            : NULL;

            if (more == NULL)
                break;
            ids = more;
            cap += 1024;
        }
        ids[count++] = id;
    }
    if (!feof(f) || ferror(f)) {
        cli_fail("--spec-truth: %s is not a list of up to %d token ids", path, TRUTH_MAX);
        count = -1;
    }
    (void)fclose(f);
    *out = ids;
    return count;
}

int cli_spec_set(mcp_session_opts *session, const struct cli_spec_args *given, int32_t **truth)
{
    int count;

    session->spec = (mcp_spec)given->mode;
    session->spec_depth = (uint32_t)given->depth;
    session->spec_windows = (uint32_t)given->windows;
    if (given->synth < 0.0 && given->truth == NULL)
        return 0;
    if (given->synth < 0.0 || given->truth == NULL)
        return cli_fail("--spec-synth and --spec-truth go together"), -1;
    count = read_truth(given->truth, truth);
    if (count < 0)
        return -1;
    cli_note("--spec-synth: guesses are made from the answer itself, for measuring");
    session->spec_truth = *truth;
    session->spec_truth_count = (uint32_t)count;
    session->spec_synth = (float)given->synth;
    return 0;
}

/* Why a draft model would never be asked; NULL = it will. */
static const char *unused(const mcp_session_opts *session)
{
    if (session->cloud)
        return "in cloud mode";
    if (session->spec == MCP_SPEC_NONE || session->spec == MCP_SPEC_NGRAM)
        return "with this --spec";
    if (session->spec == MCP_SPEC_AUTO && session->remote == NULL)
        return "where all is here, unless --spec draft asks for it";
    return NULL;
}

int cli_spec_open(struct cli_spec *spec, mcp_session_opts *session,
                  const struct cli_spec_args *given, const mcp_engine_opts *engine)
{
    const char *why = unused(session);

    *spec = (struct cli_spec){ 0 };
    if (given->draft == NULL)
        return 0;
    if (why != NULL) {
        cli_note("-md/--draft-model has no effect %s", why);
        return 0;
    }
    if (cli_model_open(&spec->draft, given->draft) < 0)
        return -1;
    spec->draft_engine = *engine;
    spec->draft_engine.even_windows = 0; /* guesses may round as they like */
    spec->draft_engine.beside = NULL;
    session->draft_model = spec->draft;
    session->draft_engine = &spec->draft_engine;
    return 0;
}

void cli_spec_close(struct cli_spec *spec)
{
    mcp_model_close(spec->draft);
    *spec = (struct cli_spec){ 0 };
}
