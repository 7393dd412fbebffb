/* worker/link.c - see link.h.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/link.h"

#include "base/clock.h"

#include <stddef.h>
#include <stdlib.h>

static void release(void *data)
{
    struct worker_link *link = data;

    net_timer_cancel(&link->timer);
    wire_pace_fini(&link->pace);
    free(link);
}

static void pace_due(struct net_timer *timer)
{
    struct worker_link *link = (struct worker_link *)(void *)((char *)timer -
                                                              offsetof(struct worker_link, timer));

    worker_link_pump(link, base_clock_ms());
}

struct worker_link *worker_link_of(struct net_conn *conn)
{
    struct worker_link *link = net_conn_data(conn);

    if (link != NULL)
        return link;
    link = calloc(1, sizeof(*link));
    if (link != NULL && wire_pace_init(&link->pace) < 0) {
        free(link);
        link = NULL;
    }
    if (link != NULL) {
        link->pace.clocked = true;
        link->timer.run = pace_due;
        net_conn_set_data(conn, link, release);
    }
    return link;
}

void worker_link_block(struct worker_stream *s, bool blocked)
{
    struct worker_link *link = s->link;

    if (s->blocked == blocked)
        return;
    s->blocked = blocked;
    if (blocked) {
        s->blocked_prev = link->blocked_tail;
        s->blocked_next = NULL;
        if (s->blocked_prev != NULL)
            s->blocked_prev->blocked_next = s;
        else
            link->blocked = s;
        link->blocked_tail = s;
        return;
    }
    if (s->blocked_prev != NULL)
        s->blocked_prev->blocked_next = s->blocked_next;
    else
        link->blocked = s->blocked_next;
    if (s->blocked_next != NULL)
        s->blocked_next->blocked_prev = s->blocked_prev;
    else
        link->blocked_tail = s->blocked_prev;
}

void worker_link_pump(struct worker_link *link, double now_ms)
{
    struct worker_stream *last = link->blocked_tail, *s = link->blocked;

    /* Once through the list as it is now: who still waits goes to its end. */
    for (bool more = s != NULL; more; s = link->blocked) {
        more = s != last;
        worker_link_block(s, false);
        worker_stream_pump(s, now_ms);
    }
}
