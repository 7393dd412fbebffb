/* wire/conn_grpc.h - what gRPC writes into HTTP/2 fields: timeouts, messages, statuses.
 *
 * Pure functions over text.  PROTOCOL-HTTP2.md of gRPC is the reference.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_CONN_GRPC_H
#define WIRE_CONN_GRPC_H

#include "wire/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_TIMEOUT_TEXT = 12,                             /* "99999999H" */
    WIRE_ESCAPED_BYTES = 3 * WIRE_STATUS_TEXT_BYTES + 1 /* each byte as %XX */
};

/* grpc-timeout: 1 to 8 digits and a unit.  parse: false = not such a text. */
void wire_grpc_timeout_print(char out[WIRE_TIMEOUT_TEXT], double ms);
bool wire_grpc_timeout_parse(double *ms, const char *text, size_t bytes);

/* grpc-message: percent-encoded UTF-8.  Decoding never fails: what is no escape stays as it is,
 * control characters become '?', and what does not fit is cut. */
size_t wire_grpc_message_escape(char *out, size_t cap, const char *text);
void   wire_grpc_message_unescape(char *out, size_t cap, const char *text, size_t bytes);

/* A decimal number of at most 9 digits; false = anything else. */
bool wire_grpc_number_parse(uint32_t *out, const char *text, size_t bytes);

/* "application/grpc", "application/grpc+proto", "application/grpc; charset=..." */
bool wire_grpc_content_type(const char *text, size_t bytes);

/* The status of a call that ended without grpc-status. */
int wire_grpc_status_of_http(uint32_t http_status);
int wire_grpc_status_of_reset(uint32_t http2_error);

#endif
