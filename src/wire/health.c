/* wire/health.c - grpc.health.v1: see describe.h.
 *
 * SPDX-License-Identifier: MIT */
#include "base/fail.h"
#include "grpc/health/v1/health.pb-c.h"
#include "wire/describe.h"
#include "wire/message.h"

#include <string.h>

#define ANSWER(status) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##status

int wire_health_answer(const uint8_t *request, size_t request_bytes, bool serving, uint8_t **bytes,
                       size_t *count, mcp_error *err)
{
    Grpc__Health__V1__HealthCheckResponse answer = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    ProtobufCMessage                     *message;
    const char                           *service;
    int                                   rc;

    *bytes = NULL;
    *count = 0;
    rc = wire_message_unpack(&message, &grpc__health__v1__health_check_request__descriptor, request,
                             request_bytes, err);
    if (rc < 0)
        return rc;
    service = ((const Grpc__Health__V1__HealthCheckRequest *)message)->service;
    answer.status = serving ? ANSWER(SERVING) : ANSWER(NOT_SERVING);
    if (service[0] == '\0' || strcmp(service, "mcp.v1.Compute") == 0)
        rc = wire_message_pack(&answer.base, bytes, count, err);
    else
        rc = base_fail(err, MCP_ENOTFOUND, "no service %.128s is watched here", service);
    wire_message_free(message);
    return rc;
}
