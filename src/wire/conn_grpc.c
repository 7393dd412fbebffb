/* wire/conn_grpc.c - see conn_grpc.h.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/conn_grpc.h"

#include <math.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <string.h>

enum { TIMEOUT_MAX = 99999999 }; /* 8 digits, says gRPC */

static const struct {
    char   unit;
    double ms;
} units[] = {
    { 'n', 1e-6 }, { 'u', 1e-3 }, { 'm', 1 }, { 'S', 1e3 }, { 'M', 6e4 }, { 'H', 3.6e6 }
};

enum { UNITS = sizeof(units) / sizeof(units[0]), MICROSECONDS = 1 };

/* Rounded up, in the finest unit from microseconds on that holds it: a peer must not give up
 * before we do. */
void wire_grpc_timeout_print(char out[WIRE_TIMEOUT_TEXT], double ms)
{
    for (size_t i = MICROSECONDS; i < UNITS; i++) {
        double count = ceil(ms / units[i].ms);

        if (count <= TIMEOUT_MAX || i + 1 == UNITS) {
            unsigned digits = count < 1 ? 1 : count > TIMEOUT_MAX ? TIMEOUT_MAX : (unsigned)count;

            snprintf(out, WIRE_TIMEOUT_TEXT, "%u%c", digits, units[i].unit);
            return;
        }
    }
}

bool wire_grpc_timeout_parse(double *ms, const char *text, size_t bytes)
{
    uint32_t count;

    if (bytes < 2 || bytes > 9 || !wire_grpc_number_parse(&count, text, bytes - 1))
        return false;
    for (size_t i = 0; i < UNITS; i++) {
        if (units[i].unit == text[bytes - 1]) {
            *ms = count * units[i].ms;
            return true;
        }
    }
    return false;
}

bool wire_grpc_number_parse(uint32_t *out, const char *text, size_t bytes)
{
    uint32_t value = 0;

    if (bytes == 0 || bytes > 9)
        return false;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (uint32_t)(text[i] - '0');
    }
    *out = value;
    return true;
}

size_t wire_grpc_message_escape(char *out, size_t cap, const char *text)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t            used = 0;

    for (; *text != '\0' && used + 4 <= cap; text++) {
        unsigned char byte = (unsigned char)*text;

        if (byte >= 0x20 && byte <= 0x7e && byte != '%') {
            out[used++] = (char)byte;
        } else {
            out[used++] = '%';
            out[used++] = hex[byte >> 4];
            out[used++] = hex[byte & 15];
        }
    }
    out[used] = '\0';
    return used;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

void wire_grpc_message_unescape(char *out, size_t cap, const char *text, size_t bytes)
{
    size_t used = 0;

    for (size_t i = 0; i < bytes && used + 1 < cap; i++) {
        unsigned char byte = (unsigned char)text[i];

        if (byte == '%' && bytes - i > 2 && hex_value(text[i + 1]) >= 0 &&
            hex_value(text[i + 2]) >= 0) {
            byte = (unsigned char)(hex_value(text[i + 1]) * 16 + hex_value(text[i + 2]));
            i += 2;
        }
        out[used++] = (char)(byte < 0x20 || byte == 0x7f ? '?' : byte);
    }
    out[used] = '\0';
}

bool wire_grpc_content_type(const char *text, size_t bytes)
{
    static const char grpc[] = "application/grpc";
    const size_t      length = sizeof(grpc) - 1;

    return bytes >= length && memcmp(text, grpc, length) == 0 &&
           (bytes == length || text[length] == '+' || text[length] == ';' || text[length] == ' ');
}

int wire_grpc_status_of_http(uint32_t http_status)
{
    switch (http_status) {
    case 400: return WIRE_INTERNAL;
    case 401: return WIRE_UNAUTHENTICATED;
    case 403: return WIRE_PERMISSION_DENIED;
    case 404: return WIRE_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504: return WIRE_UNAVAILABLE;
    default: return WIRE_UNKNOWN;
    }
}

int wire_grpc_status_of_reset(uint32_t http2_error)
{
    switch (http2_error) {
    /* gRPC's table says INTERNAL for an internal error; but that is what a terminating Envoy
     * sends when the worker behind it dies, and another worker may serve. */
    case NGHTTP2_INTERNAL_ERROR:
    case NGHTTP2_REFUSED_STREAM: return WIRE_UNAVAILABLE;
    case NGHTTP2_CANCEL: return WIRE_CANCELLED;
    case NGHTTP2_ENHANCE_YOUR_CALM: return WIRE_RESOURCE_EXHAUSTED;
    case NGHTTP2_INADEQUATE_SECURITY: return WIRE_PERMISSION_DENIED;
    default: return WIRE_INTERNAL;
    }
}
