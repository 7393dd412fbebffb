/* wire/message.h - protobuf-c around the rare messages: bounded, checked for memory, cleaned.
 *
 * protobuf-c copies a message into a tree of small allocations, which is fine for what is asked
 * once a connection.  Frames do not come here (fields.h).
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_MESSAGE_H
#define WIRE_MESSAGE_H

#include <mcp/error.h>
#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

/* A Describe of 512 layers takes 20 KB.  The tree of the worst message of this size, all of
 * unknown fields, takes about 2 MB. */
enum { WIRE_MESSAGE_BYTES_MAX = 64 * 1024 };

/* *bytes is allocated for the caller. */
int wire_message_pack(const ProtobufCMessage *message, uint8_t **bytes, size_t *count,
                      mcp_error *err);

/* *out is of the type that `descriptor` tells; give it back with wire_message_free(), which
 * takes NULL.  MCP_EFORMAT, MCP_ENOMEM. */
int  wire_message_unpack(ProtobufCMessage **out, const ProtobufCMessageDescriptor *descriptor,
                         const uint8_t *bytes, size_t count, mcp_error *err);
void wire_message_free(ProtobufCMessage *message);

/* Copy a text that others made: at most `cap` - 1 bytes, cut between characters; control
 * characters and what is no UTF-8 become '?'.  The target may be the source. */
void wire_text_copy(char *target, size_t cap, const char *source);

#endif
