/* net/conn.c - a connection: bytes between its socket, TLS and the core in wire/conn.h.
 *
 *     recv -> TLS -> wire_conn_feed -> events -> owner      (as bytes come)
 *     owner -> wire_conn_take -> TLS -> send                (when it is settled)
 *
 * One read, many answers, one write: nothing is sent while a read is worked off.  What cannot
 * be sent stays in the core, where an urgent message can still pass it; only a backlog of
 * NET_BACKLOG_BYTES is encrypted ahead.
 *
 * Its end has two halves: net_conn_end() notes the reason, and the settling tells it, after all
 * streams have been told theirs.  From then on the connection is nobody's, and stays only to
 * say its last words (an alert or a GOAWAY is lost if the socket is closed while the peer's
 * bytes are still unread).
 *
 * SPDX-License-Identifier: MIT */
#include "net/net_impl.h"

#include "base/fail.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In one go, so that one fast peer does not hold up the others: 256 KiB in, 512 KiB out. */
enum { READS_MAX = 4, PUMPS_MAX = 8 };

static void on_ready(void *owner, int events);
static void on_patience(struct net_timer *timer);

struct net_conn *net_conn_new(struct net_loop *loop, struct net_identity *identity)
{
    struct net_conn *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->loop = loop;
    c->identity = net_identity_ref(identity);
    c->patience.run = on_patience;
    c->tick.run = net_conn_on_tick;
    c->heard_ms = loop->now_ms;
    TAILQ_INSERT_TAIL(&loop->conns, c, all);
    return c;
}

void net_conn_free(struct net_conn *c)
{
    if (c->server != NULL)
        net_server_forget(c);
    net_timer_cancel(&c->patience);
    net_timer_cancel(&c->tick);
    if (c->is_touched)
        TAILQ_REMOVE(&c->loop->touched, c, touching);
    TAILQ_REMOVE(&c->loop->conns, c, all);
    net_socket_close(c->socket);
    net_dial_free(c->dial);
    wire_conn_free(c->wire);
    net_tls_close(&c->tls);
    net_identity_unref(c->identity);
    free(c);
}

void net_conn_touch(struct net_conn *c)
{
    if (c->is_touched)
        return;
    c->is_touched = true;
    TAILQ_INSERT_TAIL(&c->loop->touched, c, touching);
}

void net_conn_end(struct net_conn *c, const struct wire_status *why, bool identity, bool graceful)
{
    if (c->ended)
        return;
    c->ended = true;
    c->graceful = graceful;
    c->why = *why;
    c->why_identity = identity;
    if (c->wire != NULL && !wire_conn_over(c->wire, NULL))
        wire_conn_lose(c->wire, why);
    net_conn_touch(c);
}

static const char *peer_name(const struct net_conn *c)
{
    return c->server != NULL ? c->peer.address : c->endpoint;
}

/* Its bytes cannot go on; errno or TLS says why. */
static void end_broken(struct net_conn *c, const char *what, int error)
{
    struct wire_status why = { .code = WIRE_UNAVAILABLE };

    if (c->wire != NULL && wire_conn_goaway(c->wire) != NULL)
        why = *wire_conn_goaway(c->wire); /* it had said so before */
    else
        snprintf(why.text, sizeof(why.text), "%s: %s: %s", peer_name(c), what,
                 error != 0 ? strerror(error) : "the peer has hung up");
    net_conn_end(c, &why, false, false);
}

static void end_tls(struct net_conn *c)
{
    bool               identity;
    struct wire_status why = net_tls_why(&c->tls, peer_name(c), &identity);

    net_conn_end(c, &why, identity, true); /* the alert goes out */
}

/* ---- going out ---------------------------------------------------------------------- */

static void watch(struct net_conn *c)
{
    if (c->socket != NULL && c->state >= NET_SHAKING)
        net_socket_watch(c->socket, UV_READABLE | (c->blocked ? UV_WRITABLE : 0));
}

/* Send what is encrypted.  False: not all could go. */
static bool flush(struct net_conn *c)
{
    struct net_buffer *out = &c->tls.out;

    while (out->count > 0 && !c->mute) {
        ssize_t sent = send(c->socket->fd, out->bytes + out->first, out->count,
                            MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (!c->blocked)
                c->blocked_ms = c->loop->now_ms;
            c->blocked = true;
            return false;
        }
        if (sent < 0) {
            /* An alert that says why may still be readable, but not for long. */
            c->mute = true;
            net_timer_set(&c->patience, c->loop, c->loop->now_ms + NET_LINGER_MS);
            return false;
        }
        c->blocked = false;
        c->bytes_out += (size_t)sent;
        if (c->server != NULL)
            net_server_moved(c, 0, (size_t)sent);
        out->first += (size_t)sent;
        out->count -= (size_t)sent;
    }
    net_buffer_trim(out);
    return !c->mute;
}

/* Encrypt what the core wants to send, up to the backlog.  False: it may have more. */
static bool encrypt(struct net_conn *c)
{
    size_t count;

    while (c->tls.out.count < NET_BACKLOG_BYTES) {
        count = wire_conn_take(c->wire, c->loop->plain, NET_RECORD_BYTES);
        if (count == 0)
            return true;
        if (net_tls_write(&c->tls, c->loop->plain, count) < 0) {
            end_broken(c, "sending", ENOMEM);
            return true;
        }
    }
    return false;
}

static void pump(struct net_conn *c)
{
    bool all = false;

    if (c->blocked || c->mute || c->socket == NULL || c->state < NET_SHAKING)
        return;
    for (int i = 0; i < PUMPS_MAX && !all; i++) {
        all = c->state != NET_UP || encrypt(c);
        if (!flush(c))
            break;
    }
    if (!all && !c->blocked && !c->mute) { /* go on when the others had their turn */
        c->blocked = true;
        c->blocked_ms = c->loop->now_ms;
    }
    watch(c);
}

/* ---- coming in ---------------------------------------------------------------------- */

static void tell_events(struct net_conn *c)
{
    struct wire_event event;

    while (c->wire != NULL && wire_conn_next(c->wire, &event))
        net_stream_event(c, &event);
}

static void on_up(struct net_conn *c)
{
    struct wire_status why = { .code = WIRE_UNAUTHENTICATED };

    if (!net_tls_is_h2(&c->tls)) {
        why.code = WIRE_UNAVAILABLE;
        snprintf(why.text, sizeof(why.text), "%s does not speak gRPC (ALPN h2)", peer_name(c));
        net_conn_end(c, &why, false, true);
        return;
    }
    if (!net_tls_peer(&c->tls, &c->peer)) {
        snprintf(why.text, sizeof(why.text), "the certificate of %s has an unusable name or serial",
                 peer_name(c));
        net_conn_end(c, &why, true, true);
        return;
    }
    c->state = NET_UP;
    if (c->server == NULL) {
        net_timer_cancel(&c->patience);
        c->ops.up(c, c->ctx, &c->peer);
        return;
    }
    net_timer_set(&c->patience, c->loop, c->loop->now_ms + NET_FIRST_CALL_MS);
    if (net_server_draining(c->server))
        wire_conn_drain(c->wire);
}

/* Server, half a round trip before the client can have proven who it is: our SETTINGS, so that
 * its first message may be large. */
static void greet(struct net_conn *c)
{
    struct wire_conn_opts opts = { .server = true,
                                   .streams_max = NET_STREAMS_MAX,
                                   .message_bytes = NET_MESSAGE_BYTES,
                                   .queue_bytes = NET_QUEUE_BYTES };
    size_t                count;

    if (wire_conn_new(&c->wire, &opts, c->loop->now_ms, NULL) < 0) {
        end_broken(c, "greeting", ENOMEM);
        return;
    }
    count = wire_conn_take(c->wire, c->loop->plain, NET_RECORD_BYTES);
    if (net_tls_greet(&c->tls, c->loop->plain, count) < 0)
        end_broken(c, "greeting", ENOMEM);
}

static void shake(struct net_conn *c)
{
    enum net_tls_step step;

    do {
        step = net_tls_step(&c->tls);
        if (step == NET_TLS_GREET)
            greet(c);
    } while (step == NET_TLS_GREET && !c->ended);
    if (step == NET_TLS_READY)
        on_up(c);
    else if (step == NET_TLS_FAILED)
        end_tls(c);
}

/* Bytes have come from the socket. */
static void eat(struct net_conn *c, const uint8_t *bytes, size_t count)
{
    long n;

    net_tls_input(&c->tls, bytes, count);
    if (c->state == NET_SHAKING)
        shake(c);
    while (c->state == NET_UP && !c->ended) {
        n = net_tls_read(&c->tls, c->loop->plain, NET_RECORD_BYTES);
        if (n > 0) {
            wire_conn_feed(c->wire, c->loop->now_ms, c->loop->plain, (size_t)n);
            tell_events(c);
            continue;
        }
        if (n == NET_TLS_END)
            end_broken(c, "receiving", 0);
        else if (n == NET_TLS_BROKEN)
            end_tls(c);
        break;
    }
    net_tls_input(&c->tls, NULL, 0);
}

/* The owner is gone: the peer's bytes are read only so that ours are not lost. */
static void discard(struct net_conn *c, ssize_t count)
{
    c->lingered_bytes += count > 0 ? (size_t)count : 0;
    if (count <= 0 || c->lingered_bytes > NET_LINGER_BYTES)
        net_timer_set(&c->patience, c->loop, c->loop->now_ms); /* freed where nobody looks */
}

static void receive(struct net_conn *c)
{
    struct net_loop *loop = c->loop;

    for (int i = 0; i < READS_MAX; i++) {
        ssize_t count = recv(c->socket->fd, loop->in, sizeof(loop->in), MSG_DONTWAIT);

        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
            return;
        if (c->told) {
            discard(c, count);
            return;
        }
        if (count <= 0) {
            end_broken(c, "receiving", count < 0 ? errno : 0);
            return;
        }
        c->bytes_in += (size_t)count;
        c->heard_ms = loop->now_ms;
        if (c->server != NULL)
            net_server_moved(c, (size_t)count, 0);
        eat(c, loop->in, (size_t)count);
        if (c->ended || (size_t)count < sizeof(loop->in))
            return;
    }
}

static void on_ready(void *owner, int events)
{
    struct net_conn *c = owner;
    struct net_loop *loop = c->loop;

    net_loop_enter(loop);
    if (events & UV_WRITABLE)
        c->blocked = false;
    if (events & UV_READABLE)
        receive(c);
    net_conn_touch(c);
    net_loop_settle(loop);
}

/* ---- time --------------------------------------------------------------------------- */

static void on_patience(struct net_timer *timer)
{
    struct net_conn   *c = NET_OWNER(struct net_conn, patience, timer);
    struct wire_status why = { .code = WIRE_UNAVAILABLE };

    if (c->told) {
        net_conn_free(c);
        return;
    }
    if (c->mute) {
        end_broken(c, "sending", EPIPE);
    } else if (c->server == NULL) {
        snprintf(why.text, sizeof(why.text), "%s does not answer", c->endpoint);
        net_conn_end(c, &why, false, false);
    } else if (c->state == NET_UP) { /* no call came */
        snprintf(why.text, sizeof(why.text), "no call within %d s", NET_FIRST_CALL_MS / 1000);
        wire_conn_drain(c->wire);
        pump(c);
        net_conn_end(c, &why, false, true);
    } else {
        snprintf(why.text, sizeof(why.text), "no TLS handshake within %d s",
                 NET_HANDSHAKE_MS / 1000);
        net_conn_end(c, &why, false, false);
    }
}

void net_conn_on_tick(struct net_timer *timer)
{
    struct net_conn *c = NET_OWNER(struct net_conn, tick, timer);
    double           now = c->loop->now_ms;

    wire_conn_tick(c->wire, now);
    if (c->blocked && now - c->blocked_ms > NET_STALL_MS)
        end_broken(c, "sending", ETIMEDOUT);
    net_conn_touch(c); /* sets the timer again while there is need */
}

/* ---- settling ----------------------------------------------------------------------- */

/* Tell its owner, and say goodbye to the peer. */
static void tell_end(struct net_conn *c)
{
    c->told = true;
    net_timer_cancel(&c->tick);
    if (c->server != NULL)
        net_server_ended(c);
    else
        c->ops.down(c, c->ctx, &c->why, c->why_identity);
    if (c->release != NULL)
        c->release(c->data);
    if (c->state < NET_SHAKING || c->socket == NULL || !c->graceful || c->loop->stopping) {
        net_conn_free(c);
        return;
    }
    net_tls_bye(&c->tls);
    c->state = NET_LEAVING;
    net_timer_set(&c->patience, c->loop, c->loop->now_ms + NET_LINGER_MS);
    net_conn_touch(c);
}

static void linger(struct net_conn *c)
{
    pump(c);
    if (c->state == NET_LEAVING && c->tls.out.count == 0) {
        shutdown(c->socket->fd, SHUT_WR);
        c->state = NET_LINGERING;
        net_tls_close(&c->tls); /* a place and a socket are all that is still held */
    }
    watch(c);
}

void net_conn_settle(struct net_conn *c)
{
    struct wire_status why;

    c->is_touched = false;
    TAILQ_REMOVE(&c->loop->touched, c, touching);
    if (c->told) {
        linger(c);
        return;
    }
    tell_events(c);
    pump(c);
    tell_events(c); /* sending makes room, or fails */
    if (c->state == NET_UP && c->tls.out.count == 0 && wire_conn_over(c->wire, &why)) {
        if (why.code == WIRE_OK)
            why.code = WIRE_UNAVAILABLE;
        net_conn_end(c, &why, false, true);
    }
    if (c->ended) {
        tell_events(c);
        tell_end(c);
        return;
    }
    if (c->state == NET_UP && c->tick.at_ms == 0 && (c->blocked || wire_conn_waits(c->wire)))
        net_timer_set(&c->tick, c->loop, c->loop->now_ms + NET_TICK_MS);
}

static void end_unstarted(struct net_conn *c, const mcp_error *err)
{
    struct wire_status why = wire_status_of(MCP_ENOMEM, err);

    net_conn_end(c, &why, false, false);
}

void net_conn_start(struct net_conn *c, const char *host)
{
    mcp_error err;

    net_socket_tune(c->socket->fd);
    c->socket->ready = on_ready;
    c->state = NET_SHAKING;
    if (net_tls_open(&c->tls, c->identity, host, &err) < 0) {
        end_unstarted(c, &err);
        return;
    }
    shake(c); /* a client's hello */
    watch(c);
    net_conn_touch(c);
}

void net_conn_adopt(struct net_conn *c, int fd)
{
    mcp_error err;

    c->state = NET_SHAKING;
    if (net_socket_open(&c->socket, c->loop, fd, on_ready, c, &err) < 0)
        end_unstarted(c, &err);
    else
        net_conn_start(c, NULL);
}

/* ---- what its owner asks ------------------------------------------------------------ */

struct net_loop *net_conn_loop(const struct net_conn *conn)
{
    return conn->loop;
}

double net_conn_heard_ms(const struct net_conn *conn)
{
    return conn->heard_ms;
}

double net_conn_tcp_rtt_ms(const struct net_conn *conn)
{
    struct tcp_info info = { 0 };
    socklen_t       bytes = sizeof(info);

    if (conn->socket == NULL ||
        getsockopt(conn->socket->fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) < 0)
        return 0.0;
    return info.tcpi_rtt * 1e-3;
}

void net_conn_bytes(const struct net_conn *conn, uint64_t *out, uint64_t *in)
{
    *out = conn->bytes_out;
    *in = conn->bytes_in;
}

void net_conn_set_data(struct net_conn *conn, void *data, void (*release)(void *data))
{
    conn->data = data;
    conn->release = release;
}

void *net_conn_data(const struct net_conn *conn)
{
    return conn->data;
}
