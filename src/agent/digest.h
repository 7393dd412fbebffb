/* agent/digest.h - which weights these are, without reading them each time.
 *
 * Hashing the layers of a 7B model takes seconds, so a digest is kept in the cache folder under
 * the file's identity (device, inode, size, time of change) and the layers.  A cache that cannot
 * be read or written costs time and nothing else.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_DIGEST_H
#define AGENT_DIGEST_H

#include "model/model.h"
#include "wire/frame.h"

/* SHA-256 over the weights fingerprints of layers [first, last), as Open.weights. */
int agent_weights_digest(const struct mcp_model *model, uint32_t first, uint32_t last,
                         uint8_t digest[WIRE_DIGEST_BYTES], mcp_error *err);

#endif
