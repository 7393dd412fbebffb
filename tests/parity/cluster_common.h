/* cluster_common.h - SmolLM2 here and on workers behind TLS on loopback, for tests that compare the
 * two.  Everything fails the test with its sentence.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLUSTER_COMMON_H
#define CLUSTER_COMMON_H

#include "parity_common.h"

#include <mcp/keys.h>
#include <mcp/worker.h>

enum { CLUSTER_LAYERS = 30, CLUSTER_WORKERS_MAX = 4 };

struct cluster {
    char        folder[256], keys[300];
    uint32_t    ctx_tokens;   /* of the engine and of all workers */
    uint32_t    batch_tokens; /* of workers */
    mcp_model  *model;
    mcp_engine *engine; /* all layers; sequence 0 is the oracle's, 1 the split's */
    mcp_worker *worker;
    mcp_remote *remote; /* to `worker` */
};

/* Keys, model, engine, and a worker with layers [first, last); `name` is in the folder's.  Nothing
 * when there is no model.  0, or -1 with the reason on stderr; either way end it. */
int cluster_begin(struct cluster *c, const char *name, uint32_t first, uint32_t last,
                  uint32_t seqs);
int cluster_end(struct cluster *c);

mcp_worker  *cluster_worker(const struct cluster *c, uint32_t first, uint32_t last, uint32_t seqs);
mcp_remote  *cluster_remote(const struct cluster *c, mcp_worker *const *workers, uint32_t count);
mcp_session *cluster_session(const mcp_session_opts *opts);
/* Everything here, in windows of `chunk`. */
mcp_session *cluster_session_here(const struct cluster *c, uint32_t chunk);

/* The tokens of a user's turn; at most `cap`. */
uint32_t cluster_prompt(const struct cluster *c, const char *text, int32_t *ids, uint32_t cap);

void cluster_same_tokens(const int32_t *expected, uint32_t expected_count, const int32_t *actual,
                         uint32_t actual_count, const char *what);

#endif
