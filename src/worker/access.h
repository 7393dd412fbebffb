/* worker/access.h - who may use this worker: its identity, the keys folder, grants.
 *
 * The folder is looked at once a second; when a file in it has changed, a new identity and
 * keyring take the place of the old ones, for new connections and for calls that run.  A
 * folder that cannot be used (half written, say) changes nothing but the problem that health
 * and Describe tell.
 *
 * Threads: worker_access_refresh() is one thread's; the rest may be called from any.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_ACCESS_H
#define WORKER_ACCESS_H

#include "guard/token.h"
#include "net/net.h"

struct worker_access;

enum { WORKER_PROBLEM_BYTES = 256 };

int  worker_access_open(struct worker_access **out, const char *folder, bool require_token,
                        mcp_error *err);
void worker_access_close(struct worker_access *a);

/* Load again what has changed; true when something is different now. */
bool worker_access_refresh(struct worker_access *a);

/* Rises with every change: who remembers it knows when to ask again. */
uint32_t worker_access_version(const struct worker_access *a);

/* Why the folder's latest state is not in use; false when it is. */
bool worker_access_problem(struct worker_access *a, char text[WORKER_PROBLEM_BYTES]);

/* For a new connection: referenced for the caller. */
struct net_identity *worker_access_identity(struct worker_access *a);

/* The name in its certificate, the same for its whole life: it is the audience of tokens. */
const char *worker_access_name(const struct worker_access *a);

/* May this peer call at all?  Its certificate may have been revoked since it connected. */
int worker_access_peer(struct worker_access *a, const struct net_peer *peer,
                       struct wire_status *status);

/* What a call with this `authorization` metadata (NULL = none) may do.  0, or negative with the
 * status to end it with.
 *   UNAUTHENTICATED    revoked, a token that is not good, or none where one is required
 *   PERMISSION_DENIED  a certificate of another role */
int worker_access_grant(struct worker_access *a, const struct net_peer *peer,
                        const char *authorization, struct guard_grant *grant,
                        struct wire_status *status);

#endif
