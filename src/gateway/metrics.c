/* gateway/metrics.c - see metrics.h.
 *
 * SPDX-License-Identifier: MIT */
#include "gateway/metrics.h"

#include <microhttpd.h>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    CONNECTIONS_MAX = 16, /* scrapers; arbitrary but safe */
    IDLE_S = 10,
    MEMORY_BYTES = 16 * 1024, /* of a connection: headers of a request */
    HOST_BYTES = 256,
    ADDRESS_BYTES = 80,
};

struct gateway_metrics {
    struct MHD_Daemon *daemon;
    char *(*text)(void *ctx);
    void *ctx;
    char  address[ADDRESS_BYTES];
};

static int fail(mcp_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(mcp_error *err, int code, const char *format, ...)
{
    va_list args;

    if (err == NULL)
        return code;
    err->code = code;
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    return code;
}

/* ---- the page ----------------------------------------------------------------------- */

static enum MHD_Result respond(struct MHD_Connection *connection, unsigned status, const char *type,
                               struct MHD_Response *response)
{
    enum MHD_Result result = MHD_NO;

    if (response == NULL)
        return MHD_NO;
    if (MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_YES)
        result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result respond_text(struct MHD_Connection *connection, unsigned status,
                                    const char *text)
{
    return respond(connection, status, "text/plain; charset=utf-8",
                   MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text,
                                                   MHD_RESPMEM_PERSISTENT));
}

static enum MHD_Result handle(void *ctx, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *data_bytes, void **request)
{
    struct gateway_metrics *m = ctx;
    char                   *page;

    (void)version;
    (void)data;
    (void)request;
    if (*data_bytes > 0) { /* a body: read over */
        *data_bytes = 0;
        return MHD_YES;
    }
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return respond_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET\n");
    if (strcmp(url, "/metrics") != 0)
        return respond_text(connection, MHD_HTTP_NOT_FOUND, "the page is /metrics\n");
    page = m->text(m->ctx);
    if (page == NULL)
        return respond_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "no memory for the page\n");
    return respond(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8",
                   MHD_create_response_from_buffer(strlen(page), page, MHD_RESPMEM_MUST_FREE));
}

/* ---- the address -------------------------------------------------------------------- */

/* "HOST:PORT" or "[HOST]:PORT" to its first address. */
static int resolve(const char *listen, struct addrinfo **found, mcp_error *err)
{
    const struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
                                    .ai_socktype = SOCK_STREAM };
    const char           *colon = strrchr(listen, ':');
    char                  host[HOST_BYTES];
    size_t                bytes = colon != NULL ? (size_t)(colon - listen) : 0;
    int                   rc;

    if (bytes > 2 && listen[0] == '[' && listen[bytes - 1] == ']') {
        listen++;
        bytes -= 2;
    } else if (memchr(listen, ':', bytes) != NULL) {
        bytes = 0; /* an IPv6 address without brackets: where does it end? */
    }
    if (bytes == 0 || bytes >= sizeof(host) || colon[1] == '\0')
        return fail(err, MCP_EINVAL, "metrics: '%.200s' is not HOST:PORT", listen);
    memcpy(host, listen, bytes);
    host[bytes] = '\0';
    rc = getaddrinfo(host, colon + 1, &hints, found);
    if (rc != 0)
        return fail(err, MCP_EINVAL, "metrics: '%.200s': %s", listen, gai_strerror(rc));
    return MCP_OK;
}

static void note_address(struct gateway_metrics *m, const struct addrinfo *at)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(m->daemon, MHD_DAEMON_INFO_BIND_PORT);
    char                        host[INET6_ADDRSTRLEN] = "";

    getnameinfo(at->ai_addr, at->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST);
    snprintf(m->address, sizeof(m->address), at->ai_family == AF_INET6 ? "[%s]:%u" : "%s:%u", host,
             info != NULL ? (unsigned)info->port : 0u);
}

int gateway_metrics_open(struct gateway_metrics **out, const char *listen, char *(*text)(void *ctx),
                         void *ctx, mcp_error *err)
{
    struct gateway_metrics *m;
    struct addrinfo        *at = NULL;
    unsigned                flags = MHD_USE_INTERNAL_POLLING_THREAD;
    int                     rc = resolve(listen, &at, err);

    *out = NULL;
    if (rc < 0)
        return rc;
    m = calloc(1, sizeof(*m));
    if (m == NULL) {
        freeaddrinfo(at);
        return fail(err, MCP_ENOMEM, "metrics");
    }
    m->text = text;
    m->ctx = ctx;
    if (at->ai_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    m->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, handle, m, MHD_OPTION_SOCK_ADDR, at->ai_addr,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_BYTES, MHD_OPTION_END);
    if (m->daemon == NULL)
        rc = fail(err, MCP_EIO, "metrics: %.200s cannot be listened on", listen);
    else
        note_address(m, at);
    freeaddrinfo(at);
    if (rc < 0) {
        gateway_metrics_close(m);
        return rc;
    }
    *out = m;
    return MCP_OK;
}

const char *gateway_metrics_address(const struct gateway_metrics *m)
{
    return m->address;
}

void gateway_metrics_close(struct gateway_metrics *m)
{
    if (m == NULL)
        return;
    if (m->daemon != NULL)
        MHD_stop_daemon(m->daemon);
    free(m);
}
