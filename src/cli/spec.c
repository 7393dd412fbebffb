/* cli/spec.c - see spec.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/spec.h"

#include "cli/cli.h"

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
