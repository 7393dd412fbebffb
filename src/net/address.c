/* net/address.c - names of endpoints, and sockets that libuv watches.
 *
 * SPDX-License-Identifier: MIT */
#include "net/net_impl.h"

#include "base/fail.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int net_address_split(const char *text, char host[NET_HOST_BYTES], char port[8], mcp_error *err)
{
    const char *colon = strrchr(text, ':'), *first = text, *end = colon;
    char       *stop;
    long        number;

    if (colon == NULL)
        return base_fail(err, MCP_EINVAL, "\"%.64s\" has no port: write HOST:PORT", text);
    if (text[0] == '[') {
        first++;
        end--;
        if (end <= first || *end != ']')
            return base_fail(err, MCP_EINVAL, "\"%.64s\": write [ADDRESS]:PORT", text);
    } else if (memchr(text, ':', (size_t)(colon - text)) != NULL) {
        return base_fail(err, MCP_EINVAL, "\"%.64s\": write an IPv6 address as [ADDRESS]:PORT",
                         text);
    }
    if (end == first || (size_t)(end - first) >= NET_HOST_BYTES)
        return base_fail(err, MCP_EINVAL, "\"%.64s\": the host must have 1 to %d characters", text,
                         NET_HOST_BYTES - 1);
    number = strtol(colon + 1, &stop, 10);
    if (colon[1] < '0' || colon[1] > '9' || *stop != '\0' || number > 65535)
        return base_fail(err, MCP_EINVAL, "\"%.64s\": a port is a number up to 65535", text);
    memcpy(host, first, (size_t)(end - first));
    host[end - first] = '\0';
    snprintf(port, 8, "%u", (unsigned)number & 0xffff);
    return MCP_OK;
}

void net_address_print(char text[NET_ADDRESS_BYTES], const struct sockaddr *address)
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address;

        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        snprintf(text, NET_ADDRESS_BYTES, "[%s]:%u", host, ntohs(in6->sin6_port));
    } else {
        const struct sockaddr_in *in4 = (const struct sockaddr_in *)(const void *)address;

        inet_ntop(AF_INET, &in4->sin_addr, host, sizeof(host));
        snprintf(text, NET_ADDRESS_BYTES, "%s:%u", host, ntohs(in4->sin_port));
    }
}

uint64_t net_address_key(const struct sockaddr *address)
{
    uint64_t key = 0;

    /* Whoever has one IPv6 address has a /64 of them. */
    if (address->sa_family == AF_INET6)
        memcpy(&key, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, sizeof(key));
    else
        memcpy(&key, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    return key;
}

/* None of these is vital: a kernel or a policy that refuses one costs speed only. */
void net_socket_tune(int fd)
{
    static const struct {
        int level, option, value;
    } options[] = {
        { IPPROTO_TCP, TCP_NODELAY, 1 },
        /* With the backlog, what an urgent message cannot pass (64 ms at 100 Mbit/s, not 175). */
        { IPPROTO_TCP, TCP_NOTSENT_LOWAT, NET_NOTSENT_BYTES },
        /* A peer whose machine is gone: noticed after 20 to 40 s without a word of ours. */
        { SOL_SOCKET, SO_KEEPALIVE, 1 },
        { IPPROTO_TCP, TCP_KEEPIDLE, 20 },
        { IPPROTO_TCP, TCP_KEEPINTVL, 5 },
        { IPPROTO_TCP, TCP_KEEPCNT, 4 },
        { IPPROTO_TCP, TCP_USER_TIMEOUT, NET_STALL_MS },
    };

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        (void)setsockopt(fd, options[i].level, options[i].option, &options[i].value,
                         sizeof(options[i].value));
    /* Where it is allowed: no slow start after idle, which costs a prefill after a pause two
     * round trips. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "bbr", 3);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct net_socket *s = poll->data;

    if (s->owner == NULL)
        return;
    if (status < 0) { /* libuv has stopped watching; the socket itself knows why */
        s->events = 0;
        events = UV_READABLE | UV_WRITABLE;
    }
    s->ready(s->owner, events);
}

static void on_closed(uv_handle_t *handle)
{
    struct net_socket *s = handle->data;

    close(s->fd);
    free(s);
}

int net_socket_open(struct net_socket **out, struct net_loop *loop, int fd,
                    void (*ready)(void *owner, int events), void *owner, mcp_error *err)
{
    struct net_socket *s = calloc(1, sizeof(*s));
    int                rc = s != NULL ? uv_poll_init_socket(&loop->uv, &s->poll, fd) : UV_ENOMEM;

    *out = NULL;
    if (rc < 0) {
        free(s);
        close(fd);
        return base_fail(err, rc == UV_ENOMEM ? MCP_ENOMEM : MCP_EIO, "a socket: %s",
                         uv_strerror(rc));
    }
    s->poll.data = s;
    s->fd = fd;
    s->ready = ready;
    s->owner = owner;
    *out = s;
    return MCP_OK;
}

void net_socket_watch(struct net_socket *s, int events)
{
    if (s->events == events)
        return;
    s->events = events;
    if (events == 0)
        uv_poll_stop(&s->poll);
    else
        uv_poll_start(&s->poll, events, on_ready);
}

void net_socket_close(struct net_socket *s)
{
    if (s == NULL)
        return;
    s->owner = NULL;
    uv_close((uv_handle_t *)&s->poll, on_closed);
}
