/* worker/call.c - see call.h.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/call.h"

#include "worker/service.h"

#include <assert.h>
#include <stddef.h>

static void run_wake(struct net_work *work)
{
    struct worker_call *call = (struct worker_call *)(void *)((char *)work -
                                                              offsetof(struct worker_call, wake));

    atomic_store(&call->waking, false); /* news from now on needs another wake */
    if (call->stream != NULL)
        call->kind->woken(call);
    worker_call_unref(call);
}

void worker_call_init(struct worker_call *call, const struct worker_call_kind *kind,
                      struct worker_service *service, struct net_stream *stream)
{
    call->kind = kind;
    call->service = service;
    call->stream = stream;
    call->loop = net_conn_loop(net_stream_conn(stream));
    call->wake.run = run_wake;
    atomic_init(&call->waking, false);
    atomic_init(&call->refs, 1);

    pthread_mutex_lock(&service->lock);
    call->prev = NULL;
    call->next = service->calls;
    if (call->next != NULL)
        call->next->prev = call;
    service->calls = call;
    service->call_count++;
    pthread_mutex_unlock(&service->lock);
}

void worker_call_closed(struct worker_call *call)
{
    struct worker_service *service = call->service;

    call->stream = NULL;
    pthread_mutex_lock(&service->lock);
    if (call->prev != NULL)
        call->prev->next = call->next;
    else
        service->calls = call->next;
    if (call->next != NULL)
        call->next->prev = call->prev;
    service->call_count--;
    pthread_cond_broadcast(&service->settled);
    pthread_mutex_unlock(&service->lock);
    worker_call_unref(call);
}

void worker_call_ref(struct worker_call *call)
{
    atomic_fetch_add(&call->refs, 1);
}

void worker_call_unref(struct worker_call *call)
{
    unsigned before = atomic_fetch_sub(&call->refs, 1);

    assert(before > 0);
    if (before == 1)
        call->kind->release(call);
}

void worker_call_wake(struct worker_call *call)
{
    if (atomic_exchange(&call->waking, true))
        return;
    worker_call_ref(call);
    net_loop_post(call->loop, &call->wake);
}
