/* wire/channel.h - one end of an Execute stream: frames in and out, however large.
 *
 * Out: frames wait in order; a payload larger than WIRE_PART_BYTES leaves as the frame and More
 * parts, and bulk parts leave only as the connection's pace allows.  In: parts are put together
 * again, bulk parts acknowledged, Beats echoed (worker side) and Acks taken; what comes out of
 * wire_channel_receive() is a whole frame.  Whatever a peer announces is bounded before it is
 * allocated, and memory grows with what arrives.
 *
 * Sans-IO: message bytes in, message bytes out.  One thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_CHANNEL_H
#define WIRE_CHANNEL_H

#include "wire/frame.h"
#include "wire/pace.h"

struct wire_channel;

struct wire_channel_opts {
    bool              worker;      /* which end this is */
    uint64_t          payload_max; /* largest payload accepted in one frame */
    struct wire_pace *pace;        /* of the connection and direction out; borrowed; NULL = none */
};

int  wire_channel_new(struct wire_channel **out, const struct wire_channel_opts *opts,
                      mcp_error *err);
void wire_channel_free(struct wire_channel *c); /* its unacknowledged bytes leave the pace */

/* Queue a frame that this end sends, with its whole payload (the total is filled in here).
 * Tokens are copied, and a payload too unless `owner` is given: then its bytes stay where they
 * are until `release(owner)` is called, once, when all of them have left: from
 * wire_channel_next() or wire_channel_free().  Beats and Draining go before what waits.  Acks
 * are the channel's own.
 * MCP_ENOMEM, MCP_ERANGE (payload): nothing was taken (and owner not released). */
int wire_channel_send(struct wire_channel *c, const struct wire_frame *frame,
                      void (*release)(void *owner), void *owner, mcp_error *err);

/* The next message that may leave now; NULL when there is none (or the pace says wait: then an
 * Ack will come, here or on another channel of the pace, if it is not due before).  The bytes stay
 * valid until the next call of wire_channel_next() or _free().  `bulk` tells its class. */
const uint8_t *wire_channel_next(struct wire_channel *c, double now_ms, size_t *count, bool *bulk);

/* When bulk that waits may leave without an Ack: then call wire_channel_next() again.  INFINITY:
 * none waits, or for an Ack.  Only a pace that is `clocked` lets bulk wait so. */
double wire_channel_due_ms(const struct wire_channel *c);

/* Something waits to leave, now or when acknowledged. */
bool wire_channel_pending(const struct wire_channel *c);
/* Bytes of the frames that wait, payloads included. */
uint64_t wire_channel_queued_bytes(const struct wire_channel *c);

/* A message has come.  1: *frame is whole, borrowed (from `bytes` or the channel) until the next
 * call; 0: nothing to tell yet (a part, a Beat that was answered, an Ack); negative: the peer
 * broke the protocol (MCP_EFORMAT, MCP_ERANGE) or memory lacks (MCP_ENOMEM): end the stream.
 * At the agent's end a Beat is told: it is the echo.
 *
 * A worker's echo that could not leave before the next Beat came is replaced by it, and Acks
 * are cumulative: a peer cannot make answers pile up. */
int wire_channel_receive(struct wire_channel *c, double now_ms, const uint8_t *bytes, size_t count,
                         struct wire_frame *frame, mcp_error *err);

/* Payload bytes sent and received so far (for stats). */
void wire_channel_bytes(const struct wire_channel *c, uint64_t *out, uint64_t *in);

/* Of those received: bulk.  *inside: it has come as far as the middle of a payload, so the peer had
 * more of it to send. */
uint64_t wire_channel_bulk_in(const struct wire_channel *c, bool *inside);

#endif
