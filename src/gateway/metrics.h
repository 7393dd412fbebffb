/* gateway/metrics.h - a page of metrics for Prometheus, over plain HTTP.
 *
 * One page, GET /metrics, of text that the caller makes when asked.  It is meant for the
 * loopback or a network of one's own: there is no TLS and no login, and nothing on the page is
 * anyone's text.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GATEWAY_METRICS_H
#define GATEWAY_METRICS_H

#include <mcp/error.h>

struct gateway_metrics;

/* Serve on "HOST:PORT" or "[::1]:PORT"; port 0 = any free one.  `text` is called on a thread of
 * the page's own, one call at a time; what it returns is freed with free(), NULL gives status
 * 503.
 *   MCP_EINVAL  not an address      MCP_EIO  it cannot be listened on */
int gateway_metrics_open(struct gateway_metrics **out, const char *listen, char *(*text)(void *ctx),
                         void *ctx, mcp_error *err);

/* "127.0.0.1:9100": the address that it really has. */
const char *gateway_metrics_address(const struct gateway_metrics *m);

/* When it returns, `text` is not called any more.  NULL is allowed. */
void gateway_metrics_close(struct gateway_metrics *m);

#endif
