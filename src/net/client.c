/* net/client.c - dialling: a name, its addresses one after the other, then TLS.
 *
 * SPDX-License-Identifier: MIT */
#include "net/net_impl.h"

#include "base/fail.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void try_next(struct net_conn *c, const char *why_not);

void net_dial_free(struct net_dial *d)
{
    if (d == NULL)
        return;
    if (d->resolving) {
        d->orphan = true; /* on_resolved() frees it */
        uv_cancel((uv_req_t *)&d->request);
        return;
    }
    uv_freeaddrinfo(d->list);
    free(d);
}

static void end_unreachable(struct net_conn *c, const char *why)
{
    struct wire_status status = { .code = WIRE_UNAVAILABLE };

    snprintf(status.text, sizeof(status.text), "%s cannot be reached: %s", c->endpoint, why);
    net_conn_end(c, &status, false, false);
}

/* ---- TCP ---------------------------------------------------------------------------- */

static void on_connected(void *owner, int events)
{
    struct net_conn *c = owner;
    struct net_loop *loop = c->loop;
    char             host[NET_HOST_BYTES], port[8];
    int              error = 0;
    socklen_t        bytes = sizeof(error);

    (void)events;
    net_loop_enter(loop);
    net_timer_cancel(&c->tick);
    c->tick.run = net_conn_on_tick;
    if (getsockopt(c->socket->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0)
        error = errno;
    if (error != 0) {
        net_socket_close(c->socket);
        c->socket = NULL;
        try_next(c, strerror(error));
    } else {
        net_address_split(c->endpoint, host, port, NULL);
        net_conn_start(c, host);
    }
    net_loop_settle(loop);
}

/* This address is silent: leave time for the others. */
static void on_too_slow(struct net_timer *timer)
{
    struct net_conn *c = NET_OWNER(struct net_conn, tick, timer);

    net_socket_close(c->socket);
    c->socket = NULL;
    try_next(c, "no answer");
}

static int connect_to(struct net_conn *c, const struct addrinfo *a)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return errno;
    if (connect(fd, a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS) {
        int error = errno;

        close(fd);
        return error;
    }
    if (net_socket_open(&c->socket, c->loop, fd, on_connected, c, NULL) < 0)
        return ENOMEM;
    net_socket_watch(c->socket, UV_WRITABLE);
    net_address_print(c->peer.address, a->ai_addr);
    return 0;
}

static void try_next(struct net_conn *c, const char *why_not)
{
    struct net_dial *d = c->dial;
    double           now = c->loop->now_ms;
    int              error;

    c->state = NET_CONNECTING;
    while (d->next != NULL) {
        const struct addrinfo *a = d->next;

        d->next = a->ai_next;
        error = connect_to(c, a);
        if (error == 0) {
            c->tick.run = on_too_slow;
            if (d->next != NULL)
                net_timer_set(&c->tick, c->loop, now + (c->give_up_ms - now) / d->left);
            d->left--;
            return;
        }
        d->left--;
        why_not = strerror(error);
    }
    end_unreachable(c, why_not);
}

/* ---- the name ----------------------------------------------------------------------- */

static void addresses_known(struct net_conn *c, struct addrinfo *list)
{
    c->dial->list = c->dial->next = list;
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next)
        c->dial->left++;
    try_next(c, "the name has no address");
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
    struct net_dial *d = request->data;
    struct net_conn *c = d->conn;

    d->resolving = false;
    if (d->orphan) {
        uv_freeaddrinfo(list);
        net_dial_free(d);
        return;
    }
    net_loop_enter(c->loop);
    if (status < 0)
        end_unreachable(c, uv_strerror(status));
    else
        addresses_known(c, list);
    net_loop_settle(c->loop);
}

static int resolve(struct net_conn *c, const char *host, const char *port, mcp_error *err)
{
    struct addrinfo  hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST };
    struct addrinfo *list = NULL;
    int              rc;

    if (getaddrinfo(host, port, &hints, &list) == 0) { /* no name: no thread needed */
        addresses_known(c, list);
        return MCP_OK;
    }
    hints.ai_flags = AI_ADDRCONFIG;
    c->dial->request.data = c->dial;
    c->dial->conn = c;
    rc = uv_getaddrinfo(&c->loop->uv, &c->dial->request, on_resolved, host, port, &hints);
    if (rc < 0)
        return base_fail(err, MCP_ENOMEM, "%s cannot be looked up: %s", host, uv_strerror(rc));
    c->dial->resolving = true;
    return MCP_OK;
}

int net_conn_dial(struct net_conn **out, struct net_loop *loop, const char *endpoint,
                  struct net_identity *identity, double timeout_ms, const struct net_conn_ops *ops,
                  void *ctx, mcp_error *err)
{
    struct wire_conn_opts opts = { .authority = endpoint,
                                   .message_bytes = NET_MESSAGE_BYTES,
                                   .queue_bytes = NET_QUEUE_BYTES };
    struct net_conn      *c = NULL;
    char                  host[NET_HOST_BYTES], port[8];
    int                   rc;

    *out = NULL;
    assert(net_loop_here(loop));
    rc = net_address_split(endpoint, host, port, err);
    if (rc < 0)
        return rc;
    if (loop->stopping)
        return base_fail(err, MCP_EUNAVAIL, "this process is stopping");
    c = net_conn_new(loop, identity);
    if (c != NULL)
        c->dial = calloc(1, sizeof(*c->dial));
    if (c == NULL || c->dial == NULL) {
        rc = base_fail(err, MCP_ENOMEM, "no memory for a connection");
        goto out;
    }
    c->ops = *ops;
    c->ctx = ctx;
    c->give_up_ms = loop->now_ms + timeout_ms;
    snprintf(c->endpoint, sizeof(c->endpoint), "%s", endpoint);
    rc = wire_conn_new(&c->wire, &opts, loop->now_ms, err);
    if (rc < 0)
        goto out;
    net_timer_set(&c->patience, loop, c->give_up_ms);
    rc = resolve(c, host, port, err);
    if (rc < 0)
        goto out;
    *out = c;
    c = NULL;
out:
    if (c != NULL)
        net_conn_free(c);
    return rc;
}

void net_conn_close(struct net_conn *conn)
{
    struct wire_status why = { .code = WIRE_CANCELLED, .text = "closed here" };

    net_conn_end(conn, &why, false, true);
}
