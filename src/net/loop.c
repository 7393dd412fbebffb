/* net/loop.c - a thread that runs libuv, and the way into it.
 *
 * Work from other threads is pushed on a lock-free stack; only who finds it empty wakes the
 * loop, which takes the whole stack and turns it around.
 *
 * SPDX-License-Identifier: MIT */
#include "net/net_impl.h"

#include "base/clock.h"
#include "base/fail.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Connections settled in one go; the rest after a look at the sockets, so that owners who call
 * each other back and forth do not starve them. */
enum { SETTLE_MAX = 4096 };

void net_loop_enter(struct net_loop *loop)
{
    loop->now_ms = base_clock_ms();
}

void net_loop_settle(struct net_loop *loop)
{
    struct net_conn *c;

    for (int i = 0; i < SETTLE_MAX && (c = TAILQ_FIRST(&loop->touched)) != NULL; i++)
        net_conn_settle(c);
    if (!TAILQ_EMPTY(&loop->touched))
        uv_async_send(&loop->wake);
}

void net_loop_on_clock(uv_timer_t *clock)
{
    struct net_loop *loop = clock->data;

    net_loop_enter(loop);
    net_timers_run(loop);
    net_loop_settle(loop);
}

/* ---- posted work -------------------------------------------------------------------- */

void net_loop_post(struct net_loop *loop, struct net_work *work)
{
    struct net_work *newest = atomic_load_explicit(&loop->posted, memory_order_relaxed);

    do
        work->next = newest;
    while (!atomic_compare_exchange_weak_explicit(&loop->posted, &newest, work,
                                                  memory_order_release, memory_order_relaxed));
    if (newest == NULL)
        uv_async_send(&loop->wake);
}

static bool run_posted(struct net_loop *loop)
{
    struct net_work *newest, *oldest = NULL, *next;
    bool             any;

    newest = atomic_exchange_explicit(&loop->posted, NULL, memory_order_acquire);
    any = newest != NULL;
    for (; newest != NULL; newest = next) {
        next = newest->next;
        newest->next = oldest;
        oldest = newest;
    }
    for (; oldest != NULL; oldest = next) {
        next = oldest->next; /* `run` may free it, or post it again */
        oldest->run(oldest);
    }
    return any;
}

static void on_wake(uv_async_t *wake)
{
    struct net_loop *loop = wake->data;

    net_loop_enter(loop);
    run_posted(loop);
    net_loop_settle(loop);
}

/* ---- the thread --------------------------------------------------------------------- */

static void *run(void *ctx)
{
    struct net_loop *loop = ctx;

    uv_run(&loop->uv, UV_RUN_DEFAULT); /* until stop() has closed everything */
    while (run_posted(loop))
        ;
    return NULL;
}

static void stop(struct net_work *work)
{
    struct net_loop   *loop = NET_OWNER(struct net_loop, stop, work);
    struct wire_status why = { .code = WIRE_UNAVAILABLE, .text = "this process is stopping" };
    struct net_conn   *c, *next;

    loop->stopping = true;
    for (c = TAILQ_FIRST(&loop->conns); c != NULL; c = next) {
        next = TAILQ_NEXT(c, all);
        net_conn_end(c, &why, false, false);
    }
    while (!TAILQ_EMPTY(&loop->conns)) {
        while ((c = TAILQ_FIRST(&loop->touched)) != NULL)
            net_conn_settle(c);
        /* Who is left had been told before, and only says its last words. */
        c = TAILQ_FIRST(&loop->conns);
        if (c != NULL)
            net_conn_free(c);
    }
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_close((uv_handle_t *)&loop->clock, NULL);
}

int net_loop_open(struct net_loop **out, mcp_error *err)
{
    struct net_loop *loop = calloc(1, sizeof(*loop));
    sigset_t         all, old;
    int              rc;

    *out = NULL;
    if (loop == NULL)
        return base_fail(err, MCP_ENOMEM, "no memory for an event loop");
    rc = uv_loop_init(&loop->uv);
    if (rc < 0) {
        free(loop);
        return base_fail(err, MCP_EIO, "no event loop: %s", uv_strerror(rc));
    }
    TAILQ_INIT(&loop->conns);
    TAILQ_INIT(&loop->touched);
    loop->stop.run = stop;
    loop->now_ms = base_clock_ms();
    uv_timer_init(&loop->uv, &loop->clock); /* cannot fail */
    loop->clock.data = loop->wake.data = loop;
    rc = uv_async_init(&loop->uv, &loop->wake, on_wake);
    if (rc < 0)
        goto out;
    /* Signals are the business of the program's own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = -pthread_create(&loop->thread, NULL, run, loop);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc < 0)
        uv_close((uv_handle_t *)&loop->wake, NULL);
out:
    if (rc < 0) {
        uv_close((uv_handle_t *)&loop->clock, NULL);
        uv_run(&loop->uv, UV_RUN_DEFAULT);
        uv_loop_close(&loop->uv);
        free(loop);
        return base_fail(err, MCP_EIO, "no event loop: %s", strerror(-rc));
    }
    *out = loop;
    return MCP_OK;
}

void net_loop_close(struct net_loop *loop)
{
    if (loop == NULL)
        return;
    net_loop_post(loop, &loop->stop);
    pthread_join(loop->thread, NULL);
    uv_loop_close(&loop->uv);
    free(loop);
}

bool net_loop_here(const struct net_loop *loop)
{
    return pthread_equal(loop->thread, pthread_self()) != 0;
}

double net_loop_now_ms(const struct net_loop *loop)
{
    return loop->now_ms;
}
