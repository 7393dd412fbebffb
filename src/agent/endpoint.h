/* agent/endpoint.h - a session's stage on a worker: one Execute stream.
 *
 * Functions are called from the session's thread and pass the work to the loop; answers come
 * through the session's mailbox with the endpoint's number.  After MAIL_LOST nothing comes any
 * more; the endpoint is still to be closed.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_ENDPOINT_H
#define AGENT_ENDPOINT_H

#include "agent/remote.h"

struct agent_endpoint;

/* Open a stream on worker `index` and send Open.  Does not wait: Forwards may follow at once.
 * A worker that sends nothing of what is awaited for patience_ms counts as lost.  MCP_ENOMEM. */
int endpoint_open(struct agent_endpoint **out, struct mcp_remote *remote, uint32_t index,
                  uint32_t number, struct mail *mail, const struct wire_open *open,
                  double patience_ms, mcp_error *err);

/* Close the session there and let the endpoint go.  NULL is allowed. */
void endpoint_close(struct agent_endpoint *e);

/* Send a frame; tokens are copied, `block` (may be NULL) is the payload's memory and is
 * referenced until it has left.  A lost endpoint drops it silently. */
int endpoint_send(struct agent_endpoint *e, const struct wire_frame *frame,
                  struct pipe_block *block, mcp_error *err);

/* Ask for a block of KV.  The answer comes to `states` (MAIL_STATE), and an empty MAIL_STATE to the
 * session's mailbox, which wakes it.  A Trim that follows may void what has not run yet: that is
 * never answered.  Answers come in order, at most one a request. */
int endpoint_export(struct agent_endpoint *e, const struct wire_export *asked, struct mail *states,
                    mcp_error *err);

uint32_t endpoint_worker(const struct agent_endpoint *e); /* index in the remote */

/* Payload bytes of this stream so far.  Any thread. */
void endpoint_bytes(const struct agent_endpoint *e, uint64_t *out, uint64_t *in);

#endif
