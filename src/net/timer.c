/* net/timer.c - a loop's timers: a pairing heap of nodes that lie in their owners' structs.
 *
 *     up      the parent (of a first child) or the left neighbour
 *     left    the first child
 *     right   the right neighbour
 *
 * Setting is O(1), cancelling and running O(log n) amortised (Fredman et al. 1986).  One timer of
 * libuv stands for the first of them all.
 *
 * SPDX-License-Identifier: MIT */
#include "net/net_impl.h"

#include "base/clock.h"

#include <math.h>

static struct net_timer *meld(struct net_timer *a, struct net_timer *b)
{
    struct net_timer *swap;

    if (a == NULL || b == NULL)
        return a == NULL ? b : a;
    if (b->at_ms < a->at_ms) {
        swap = a;
        a = b;
        b = swap;
    }
    b->right = a->left;
    if (b->right != NULL)
        b->right->up = b;
    b->up = a;
    a->left = b;
    return a;
}

/* One heap of a node's children: in pairs from the left, then all from the right. */
static struct net_timer *meld_children(struct net_timer *first)
{
    struct net_timer *pairs = NULL, *heap = NULL, *next;

    while (first != NULL) {
        struct net_timer *a = first, *b = a->right;

        first = b == NULL ? NULL : b->right;
        a->right = a->up = NULL;
        if (b != NULL)
            b->right = b->up = NULL;
        a = meld(a, b);
        a->right = pairs;
        pairs = a;
    }
    for (; pairs != NULL; pairs = next) {
        next = pairs->right;
        pairs->right = NULL;
        heap = meld(heap, pairs);
    }
    return heap;
}

/* Only the first timer is known to libuv.  It rounds down to milliseconds of its own clock; a
 * timer that comes too early is set again by net_timers_run(). */
static void arm(struct net_loop *loop)
{
    double wait;

    if (loop->timers == NULL || loop->timers->at_ms == loop->armed_ms)
        return;
    loop->armed_ms = loop->timers->at_ms;
    wait = ceil(loop->armed_ms - base_clock_ms());
    uv_update_time(&loop->uv);
    uv_timer_start(&loop->clock, net_loop_on_clock, wait > 0 ? (uint64_t)wait : 0, 0);
}

void net_timer_cancel(struct net_timer *timer)
{
    struct net_loop  *loop = timer->loop;
    struct net_timer *rest;

    if (timer->at_ms == 0)
        return;
    rest = meld_children(timer->left);
    if (timer == loop->timers) {
        loop->timers = rest;
    } else {
        if (timer->up->left == timer)
            timer->up->left = timer->right;
        else
            timer->up->right = timer->right;
        if (timer->right != NULL)
            timer->right->up = timer->up;
        loop->timers = meld(loop->timers, rest);
    }
    timer->left = timer->right = timer->up = NULL;
    timer->at_ms = 0;
}

void net_timer_set(struct net_timer *timer, struct net_loop *loop, double at_ms)
{
    net_timer_cancel(timer);
    timer->loop = loop;
    timer->at_ms = at_ms > 0 ? at_ms : 1; /* 0 would mean not set */
    timer->left = timer->right = timer->up = NULL;
    loop->timers = meld(loop->timers, timer);
    arm(loop);
}

void net_timers_run(struct net_loop *loop)
{
    double now = base_clock_ms();

    loop->armed_ms = 0;
    while (loop->timers != NULL && loop->timers->at_ms <= now) {
        struct net_timer *timer = loop->timers;

        net_timer_cancel(timer);
        timer->run(timer);
    }
    arm(loop);
}
