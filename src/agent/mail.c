/* agent/mail.c - see mail.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/mail.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct mail {
    atomic_uint        refs;
    pthread_mutex_t    lock; /* guards what follows */
    pthread_cond_t     filled;
    struct mail_event *first, **last;
    bool               starved;
};

struct mail *mail_new(void)
{
    struct mail       *m = calloc(1, sizeof(*m));
    pthread_condattr_t attr;

    if (m == NULL)
        return NULL;
    atomic_init(&m->refs, 1);
    m->last = &m->first;
    pthread_mutex_init(&m->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* base_clock_ms()'s */
    pthread_cond_init(&m->filled, &attr);
    pthread_condattr_destroy(&attr);
    return m;
}

struct mail *mail_ref(struct mail *m)
{
    atomic_fetch_add(&m->refs, 1);
    return m;
}

void mail_event_free(struct mail_event *event)
{
    if (event == NULL)
        return;
    pipe_block_unref(event->block);
    free(event);
}

void mail_unref(struct mail *m)
{
    if (m == NULL || atomic_fetch_sub(&m->refs, 1) != 1)
        return;
    while (m->first != NULL) {
        struct mail_event *event = m->first;

        m->first = event->next;
        mail_event_free(event);
    }
    pthread_cond_destroy(&m->filled);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

void mail_put(struct mail *m, struct mail_event *event)
{
    pthread_mutex_lock(&m->lock);
    if (event == NULL) {
        m->starved = true;
    } else {
        event->next = NULL;
        *m->last = event;
        m->last = &event->next;
    }
    pthread_cond_signal(&m->filled);
    pthread_mutex_unlock(&m->lock);
}

struct mail_event *mail_take(struct mail *m, bool *starved)
{
    struct mail_event *event;

    pthread_mutex_lock(&m->lock);
    event = m->first;
    if (event != NULL) {
        m->first = event->next;
        if (m->first == NULL)
            m->last = &m->first;
    }
    *starved = m->starved;
    m->starved = false;
    pthread_mutex_unlock(&m->lock);
    return event;
}

void mail_wait(struct mail *m, double until_ms)
{
    struct timespec until = { .tv_sec = (time_t)(until_ms / 1e3) };

    until.tv_nsec = (long)((until_ms - (double)until.tv_sec * 1e3) * 1e6);
    pthread_mutex_lock(&m->lock);
    while (m->first == NULL && !m->starved)
        if (pthread_cond_timedwait(&m->filled, &m->lock, &until) != 0)
            break;
    pthread_mutex_unlock(&m->lock);
}
