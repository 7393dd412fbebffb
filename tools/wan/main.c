/* mcp-wan - a TCP relay that makes loopback behave like a wide-area link, with faults.
 *
 *     mcp-wan --to PORT [--listen PORT] [--rtt MS] [--jitter MS] [--mbit N] [--up N] [--down N]
 *             [--queue KIB]
 *
 * Both ends are on 127.0.0.1.  Each direction is one link that all connections share: bytes leave
 * at its rate (--mbit, or --up and --down apart; 0 = unlimited), then travel rtt/2 plus a
 * random 0..jitter, in order.  Opening a connection costs one round trip: what a client sends
 * first arrives 1.5 round trips after it connected.  A direction of a connection holds at most
 * --queue KiB (1024); past that the sender is not read, so that TCP pushes back.
 *
 * Prints "ready PORT" and then obeys lines on standard input, answering each with "ok" or
 * "error ...":
 *
 *     rtt MS | jitter MS | mbit N | up N | down N     change the link from now on
 *     hole on|off      nothing is delivered, nothing is closed, new connections hang
 *     reset            end every connection with RST
 *     stats            "ok up BYTES down BYTES open N connections N"
 *     quit             (or the end of standard input)
 *
 * One thread.  SPDX-License-Identifier: MIT */
#include "path.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNS_MAX = 4096, UP = 0, DOWN = 1, LINE_BYTES = 256 };

/* Direction d carries from fd[d] to fd[1 - d]. */
struct conn {
    struct conn    *next;
    int             fd[2]; /* client, server */
    struct wan_path path[2];
    uint64_t        open_ns; /* when the connection is through: nothing leaves before */
    bool            connecting;
    bool            shut[2]; /* direction d has passed on its end */
    bool            dead;
    bool            reset; /* end with RST */
    uint32_t        watched[2];
};

static struct {
    double          rtt_ms, jitter_ms;
    size_t          queue_bytes;
    bool            hole;
    int             to;
    struct wan_link link[2];
    struct conn    *conns;
    unsigned        open;
    uint64_t        opened;
    int             epoll, listener;
    uint64_t        random;
} wan = { .queue_bytes = 1024 * 1024, .random = 88172645463325252u };

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t delay_ns(void)
{
    double ms = wan.rtt_ms / 2.0;

    wan.random ^= wan.random << 13; /* xorshift64 (Marsaglia 2003) */
    wan.random ^= wan.random >> 7;
    wan.random ^= wan.random << 17;
    ms += wan.jitter_ms * (double)(wan.random >> 11) / 9007199254740992.0;
    return (uint64_t)(ms * 1e6);
}

/* ---- connections ------------------------------------------------------------------------ */

/* Ask epoll for what this descriptor can be used for now, and nothing else. */
static void watch(struct conn *c, int end, uint64_t now)
{
    size_t             arrived;
    uint32_t           want = 0;
    struct epoll_event event = { .data.ptr = c };

    if (c->fd[end] < 0)
        return;
    if (!wan.hole && !c->path[end].ended && c->path[end].bytes < wan.queue_bytes && !c->connecting)
        want |= EPOLLIN;
    if (end == DOWN && c->connecting)
        want |= EPOLLOUT;
    if (!wan.hole && wan_path_arrived(&c->path[1 - end], now, &arrived) != NULL)
        want |= EPOLLOUT;
    if (want == c->watched[end])
        return;
    c->watched[end] = event.events = want;
    epoll_ctl(wan.epoll, EPOLL_CTL_MOD, c->fd[end], &event);
}

static void hang_up(struct conn *c, bool reset)
{
    struct linger now = { 1, 0 };

    for (int end = 0; end < 2; end++) {
        if (c->fd[end] < 0)
            continue;
        if (reset)
            setsockopt(c->fd[end], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        close(c->fd[end]);
        c->fd[end] = -1;
        wan_path_clear(&c->path[end]);
    }
    c->dead = true;
}

static bool adopt(struct conn *c, int end, int fd)
{
    struct epoll_event event = { .data.ptr = c };
    int                one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    c->fd[end] = fd;
    return epoll_ctl(wan.epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

static void accept_one(void)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)wan.to) };
    struct conn       *c;
    int                client = accept4(wan.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int                server;

    if (client < 0)
        return;
    c = wan.open < CONNS_MAX ? calloc(1, sizeof(*c)) : NULL;
    if (c == NULL) {
        close(client);
        return;
    }
    c->fd[UP] = c->fd[DOWN] = -1;
    c->next = wan.conns;
    wan.conns = c;
    wan.open++;
    wan.opened++;
    c->open_ns = now_ns() + (uint64_t)(wan.rtt_ms * 1e6);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server < 0 || !adopt(c, UP, client) || !adopt(c, DOWN, server) ||
        (connect(server, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)) {
        hang_up(c, true);
        return;
    }
    c->connecting = true;
}

/* Move what this end has to say onto its path. */
static void take_in(struct conn *c, int end)
{
    static uint8_t   bytes[WAN_PIECE_BYTES];
    struct wan_path *path = &c->path[end];

    while (!path->ended && path->bytes < wan.queue_bytes) {
        uint64_t now = now_ns();
        ssize_t  n = recv(c->fd[end], bytes, sizeof(bytes), 0);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0) {
            c->reset = true;
            return;
        }
        if (n == 0) {
            path->ended = true;
            return;
        }
        if (!wan_path_send(path, &wan.link[end], now > c->open_ns ? now : c->open_ns, delay_ns(),
                           bytes, (size_t)n)) {
            c->reset = true;
            return;
        }
    }
}

/* Hand what has arrived for this end to it, and the end of the stream after it. */
static void give_out(struct conn *c, int end)
{
    struct wan_path *path = &c->path[1 - end];
    const uint8_t   *bytes;
    size_t           count;

    while ((bytes = wan_path_arrived(path, now_ns(), &count)) != NULL) {
        ssize_t n = send(c->fd[end], bytes, count, MSG_NOSIGNAL);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0) {
            c->reset = true;
            return;
        }
        wan_path_take(path, &wan.link[1 - end], (size_t)n);
    }
    if (path->ended && path->bytes == 0 && !c->shut[1 - end]) {
        shutdown(c->fd[end], SHUT_WR);
        c->shut[1 - end] = true;
    }
}

static void finish_connect(struct conn *c)
{
    int       error = 0;
    socklen_t bytes = sizeof(error);

    getsockopt(c->fd[DOWN], SOL_SOCKET, SO_ERROR, &error, &bytes);
    c->connecting = false;
    c->reset = c->reset || error != 0;
}

/* Everything that this connection can do now. */
static void serve(struct conn *c)
{
    if (c->dead || wan.hole)
        return;
    for (int end = 0; end < 2 && !c->reset && !c->connecting; end++)
        take_in(c, end);
    for (int end = 0; end < 2 && !c->reset && !c->connecting; end++)
        give_out(c, end);
    if (c->reset || (c->shut[UP] && c->shut[DOWN]))
        hang_up(c, c->reset);
}

/* An end has died inside the hole: the other one hears of it when the hole closes. */
static void mourn(struct conn *c)
{
    for (int end = 0; end < 2; end++)
        if (c->fd[end] >= 0)
            epoll_ctl(wan.epoll, EPOLL_CTL_DEL, c->fd[end], NULL);
    c->reset = true;
}

static void bury(void)
{
    for (struct conn **at = &wan.conns; *at != NULL;) {
        struct conn *c = *at;

        if (!c->dead) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        wan.open--;
        free(c);
    }
}

/* ---- commands ----------------------------------------------------------------------------- */

static bool number(const char *text, double max, double *out)
{
    char  *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value >= 0.0 && value <= max))
        return false;
    *out = value;
    return true;
}

/* false: unknown or out of range */
static bool set_link(const char *name, const char *value)
{
    double *up = &wan.link[UP].mbit, *down = &wan.link[DOWN].mbit;

    if (strcmp(name, "rtt") == 0)
        return number(value, 60000.0, &wan.rtt_ms);
    if (strcmp(name, "jitter") == 0)
        return number(value, 60000.0, &wan.jitter_ms);
    if (strcmp(name, "up") == 0)
        return number(value, 1e6, up);
    if (strcmp(name, "down") == 0)
        return number(value, 1e6, down);
    return strcmp(name, "mbit") == 0 && number(value, 1e6, up) && number(value, 1e6, down);
}

static void command(char *line, bool *quit)
{
    char *value = strchr(line, ' ');
    bool  ok = true;

    if (value != NULL)
        *value++ = '\0';
    if (strcmp(line, "quit") == 0) {
        *quit = true;
    } else if (strcmp(line, "reset") == 0) {
        for (struct conn *c = wan.conns; c != NULL; c = c->next)
            if (!c->dead)
                hang_up(c, true);
    } else if (strcmp(line, "stats") == 0) {
        printf("ok up %llu down %llu open %u connections %llu\n",
               (unsigned long long)wan.link[UP].bytes, (unsigned long long)wan.link[DOWN].bytes,
               wan.open, (unsigned long long)wan.opened);
        fflush(stdout);
        return;
    } else if (strcmp(line, "hole") == 0 && value != NULL) {
        wan.hole = strcmp(value, "on") == 0;
    } else {
        ok = value != NULL && set_link(line, value);
    }
    puts(ok ? "ok" : "error: no such command, or its value is out of range");
    fflush(stdout);
}

static void read_commands(bool *quit)
{
    static char   text[LINE_BYTES];
    static size_t used;
    ssize_t       n = read(STDIN_FILENO, text + used, sizeof(text) - 1 - used);
    char         *end;

    if (n <= 0) {
        *quit = n == 0 || (errno != EAGAIN && errno != EINTR);
        return;
    }
    used += (size_t)n;
    text[used] = '\0';
    while ((end = strchr(text, '\n')) != NULL) {
        *end = '\0';
        command(text, quit);
        used -= (size_t)(end + 1 - text);
        memmove(text, end + 1, used + 1);
    }
    if (used == sizeof(text) - 1)
        used = 0; /* no command is that long */
}

/* ---- the program ---------------------------------------------------------------------------- */

/* Nanoseconds until something arrives that had not at `seen`, when descriptors were watched for
 * what had; UINT64_MAX = nothing is on the way. */
static uint64_t next_wait_ns(uint64_t seen)
{
    uint64_t now = now_ns(), next = UINT64_MAX;

    if (wan.hole)
        return UINT64_MAX;
    for (struct conn *c = wan.conns; c != NULL; c = c->next)
        for (int d = 0; d < 2; d++) {
            uint64_t at = wan_path_next_ns(&c->path[d]);

            /* What had arrived waits for the socket, not for the clock. */
            if (at > seen && at < next)
                next = at;
        }
    return next == UINT64_MAX ? next : next > now ? next - now : 0;
}

static int run(void)
{
    struct epoll_event events[64];
    bool               quit = false;
    uint64_t           seen = 0;

    while (!quit) {
        uint64_t        wait = next_wait_ns(seen);
        struct timespec timeout = { (time_t)(wait / 1000000000u), (long)(wait % 1000000000u) };
        int count = epoll_pwait2(wan.epoll, events, 64, wait == UINT64_MAX ? NULL : &timeout, NULL);

        for (int i = 0; i < count; i++) {
            struct conn *c = events[i].data.ptr;

            if (c == NULL)
                read_commands(&quit);
            else if ((void *)c == (void *)&wan)
                accept_one();
            else if (wan.hole && (events[i].events & (EPOLLERR | EPOLLHUP)) != 0)
                mourn(c);
            else if (c->connecting && (events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0)
                finish_connect(c);
        }
        for (struct conn *c = wan.conns; c != NULL; c = c->next)
            serve(c);
        bury();
        seen = now_ns();
        for (struct conn *c = wan.conns; c != NULL; c = c->next) {
            watch(c, UP, seen);
            watch(c, DOWN, seen);
        }
    }
    return 0;
}

static int listen_on(int port)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    socklen_t          bytes = sizeof(at);
    int                one = 1;

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    wan.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (wan.listener < 0 ||
        setsockopt(wan.listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(wan.listener, (struct sockaddr *)&at, sizeof(at)) < 0 ||
        listen(wan.listener, 256) < 0 ||
        getsockname(wan.listener, (struct sockaddr *)&at, &bytes) < 0)
        return -1;
    return ntohs(at.sin_port);
}

int main(int argc, char **argv)
{
    struct epoll_event commands = { .events = EPOLLIN, .data.ptr = NULL };
    struct epoll_event clients = { .events = EPOLLIN, .data.ptr = &wan };
    double             port = 0.0, to = 0.0, kib = 1024.0;
    bool               ok = argc % 2 == 1;

    for (int i = 1; i + 1 < argc && ok; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];

        ok = strncmp(name, "--", 2) == 0 &&
             (strcmp(name, "--listen") == 0  ? number(value, 65535.0, &port)
              : strcmp(name, "--to") == 0    ? number(value, 65535.0, &to)
              : strcmp(name, "--queue") == 0 ? number(value, 1 << 20, &kib) && kib >= 16.0
                                             : set_link(name + 2, value));
    }
    if (!ok || to < 1.0) {
        fprintf(stderr, "usage: mcp-wan --to PORT [--listen PORT] [--rtt MS] [--jitter MS] "
                        "[--mbit N] [--up N] [--down N] [--queue KIB]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    wan.to = (int)to;
    wan.queue_bytes = (size_t)(kib * 1024.0);
    wan.epoll = epoll_create1(EPOLL_CLOEXEC);
    port = listen_on((int)port);
    if (port < 0 || wan.epoll < 0) {
        fprintf(stderr, "mcp-wan: cannot listen: %s\n", strerror(errno));
        return 1;
    }
    epoll_ctl(wan.epoll, EPOLL_CTL_ADD, wan.listener, &clients);
    fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
    if (epoll_ctl(wan.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &commands) < 0) {
        fprintf(stderr, "mcp-wan: standard input must be a pipe or a terminal\n");
        return 1;
    }
    printf("ready %d\n", (int)port);
    fflush(stdout);
    return run();
}
