/* worker/places.c - what subjects may have: slots, reservations, tokens a minute.
 *
 * Slots.  The lowest free one is given, because a batch over neighbouring sequences runs faster.
 * A slot whose session is closed while its batch runs is free only afterwards; a session that was
 * let in meanwhile waits for it with TABLE_NONE.
 *
 * Reservations.  A subject with no more sessions than it has reserved is protected: nothing of
 * its is ended for another.  The reserved places sum up to no more than there are, so whoever
 * has not used up its own finds one free or finds a session that is not protected.
 *
 * Fair places.  Opening and leaving costs a client nothing, so a subject could fill the table with
 * sessions that nobody uses.  When it is full, the subject that has most gives one of its detached
 * sessions, however young, to one that has less.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/table_private.h"

#include "base/fail.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* ---- subjects ------------------------------------------------------------------------- */

struct table_subject *table_subject_find(struct worker_table *t, const char *name)
{
    for (uint32_t i = 0; i < t->subjects_max; i++)
        if (strcmp(t->subjects[i].name, name) == 0)
            return &t->subjects[i];
    return NULL;
}

/* An unused row, else the one that nobody has used for the longest time. */
static struct table_subject *spare_subject(struct worker_table *t)
{
    struct table_subject *oldest = NULL;

    for (uint32_t i = 0; i < t->subjects_max; i++) {
        struct table_subject *row = &t->subjects[i];

        if (row->name[0] == '\0')
            return row;
        if (row->sessions == 0 && row->reserved == 0 &&
            (oldest == NULL || row->left_ms < oldest->left_ms))
            oldest = row;
    }
    assert(oldest != NULL); /* there are more rows than sessions and reservations */
    return oldest;
}

struct table_subject *table_subject_take(struct worker_table *t, const char *name)
{
    struct table_subject *subject = table_subject_find(t, name);

    if (subject != NULL)
        return subject;
    subject = spare_subject(t);
    *subject = (struct table_subject){ .filled_ms = t->now_ms };
    snprintf(subject->name, sizeof(subject->name), "%s", name);
    return subject;
}

/* ---- rate ----------------------------------------------------------------------------- */

/* What may be used at once after a pause: ten seconds' worth. */
static double burst_tokens(const struct table_subject *subject)
{
    return (double)subject->tokens_per_minute / 6.0;
}

static double tokens_per_ms(const struct table_subject *subject)
{
    return (double)subject->tokens_per_minute / 60e3;
}

static void fill(struct table_subject *subject, double now_ms)
{
    if (now_ms <= subject->filled_ms)
        return;
    subject->tokens += (now_ms - subject->filled_ms) * tokens_per_ms(subject);
    if (subject->tokens > burst_tokens(subject))
        subject->tokens = burst_tokens(subject);
    subject->filled_ms = now_ms;
}

void table_rate_set(struct table_subject *subject, uint32_t tokens_per_minute, double now_ms)
{
    bool first = subject->tokens_per_minute == 0;

    fill(subject, now_ms);
    subject->tokens_per_minute = tokens_per_minute;
    if (first || subject->tokens > burst_tokens(subject))
        subject->tokens = burst_tokens(subject);
}

bool table_rate_allows(struct worker_session *s, double now_ms, double *when_ms)
{
    struct table_subject *subject = s->subject;
    double                when;

    if (subject->tokens_per_minute == 0)
        return true;
    fill(subject, now_ms);
    if (subject->tokens > 0)
        return true;
    when = now_ms + (1.0 - subject->tokens) / tokens_per_ms(subject);
    if (*when_ms <= 0 || when < *when_ms)
        *when_ms = when;
    return false;
}

/* A window larger than what is in the bucket runs whole and leaves a debt: it must neither fail
 * nor wait for ever. */
void table_rate_charge(struct worker_session *s, uint32_t tokens)
{
    if (s->subject->tokens_per_minute != 0)
        s->subject->tokens -= tokens;
}

/* Of guesses in vain: the subject has not asked for them. */
void table_rate_refund(struct worker_session *s, uint32_t tokens)
{
    if (s->subject->tokens_per_minute != 0)
        s->subject->tokens += tokens;
}

/* ---- slots ---------------------------------------------------------------------------- */

void table_slot_take(struct worker_table *t, struct worker_session *s)
{
    s->info.slot = TABLE_NONE;
    for (uint32_t i = 0; i < t->limits.sessions_max; i++) {
        if (t->slot_used[i])
            continue;
        t->slot_used[i] = true;
        s->info.slot = i;
        return;
    }
}

void table_slot_give(struct worker_table *t, struct worker_session *s)
{
    struct worker_session *waiting = NULL;
    uint32_t               slot = s->info.slot;

    s->info.slot = TABLE_NONE;
    if (slot == TABLE_NONE)
        return;
    if (s->touched && !t->slot_dirty[slot]) {
        t->slot_dirty[slot] = true;
        t->dirty_count++;
    }
    t->slot_used[slot] = false;
    for (uint32_t i = 0; i < t->live_count; i++) {
        struct worker_session *other = t->live[i];

        if (other->info.slot == TABLE_NONE && (waiting == NULL || other->order < waiting->order))
            waiting = other;
    }
    if (waiting != NULL)
        table_slot_take(t, waiting);
}

/* ---- making room ---------------------------------------------------------------------- */

/* May `s` be ended so that `own` (NULL: a subject that is new here) gets its place?  Not while its
 * subject is within its reservation; at the end of that, its own session may go for another. */
static bool gives_way(const struct worker_session *s, const struct table_subject *own)
{
    if (s->subject->sessions > s->subject->reserved)
        return true;
    return own != NULL && s->subject == own && own->sessions == own->reserved;
}

/* When a detached session has been kept long enough to make room. */
static double room_ms(const struct worker_table *t, const struct worker_session *s)
{
    const struct worker_limits *l = &t->limits;

    return s->detached_ms + (l->detached_keep_ms < l->lease_ms ? l->detached_keep_ms : l->lease_ms);
}

/* Of two detached sessions. */
static bool goes_first(const struct worker_session *a, const struct worker_session *b)
{
    return a->detached_ms < b->detached_ms ||
           (a->detached_ms == b->detached_ms && a->order < b->order);
}

/* The detached session that makes room first, perhaps later than now; NULL without any. */
static struct worker_session *oldest_detached(const struct worker_table  *t,
                                              const struct table_subject *own, bool only_own)
{
    struct worker_session *oldest = NULL;

    for (uint32_t i = 0; i < t->live_count; i++) {
        struct worker_session *s = t->live[i];

        if (s->info.stream != NULL || !gives_way(s, own) || (only_own && s->subject != own))
            continue;
        if (oldest == NULL || goes_first(s, oldest))
            oldest = s;
    }
    return oldest;
}

/* The oldest detached session of the subject that has most, if that is more than `own` will have
 * with the place: between equals nobody would win. */
static struct worker_session *oldest_of_the_rich(const struct worker_table  *t,
                                                 const struct table_subject *own)
{
    uint32_t               most = (own != NULL ? own->sessions : 0) + 1;
    struct worker_session *oldest = NULL;

    for (uint32_t i = 0; i < t->live_count; i++) {
        struct worker_session *s = t->live[i];
        uint32_t               has = s->subject->sessions;

        if (s->info.stream != NULL || s->subject == own || !gives_way(s, own) || has <= most)
            continue;
        if (oldest == NULL || has > oldest->subject->sessions ||
            (has == oldest->subject->sessions && goes_first(s, oldest)))
            oldest = s;
    }
    return oldest;
}

/* Of those who have borrowed places: the youngest of the lowest class. */
static struct worker_session *youngest_borrower(const struct worker_table *t)
{
    static const uint32_t rank[TABLE_CLASSES] = {
        [WIRE_QOS_BATCH] = 0, [WIRE_QOS_NORMAL] = 1, [WIRE_QOS_REALTIME] = 2
    };
    struct worker_session *youngest = NULL;

    for (uint32_t i = 0; i < t->live_count; i++) {
        struct worker_session *s = t->live[i];

        if (!gives_way(s, NULL))
            continue;
        if (youngest == NULL || rank[s->info.qos] < rank[youngest->info.qos] ||
            (s->info.qos == youngest->info.qos && s->order > youngest->order))
            youngest = s;
    }
    return youngest;
}

static uint32_t retry_ms(const struct worker_table *t, double now_ms,
                         const struct table_subject *own, bool only_own)
{
    const struct worker_session *s = oldest_detached(t, own, only_own);
    double                       wait_ms = 1000; /* nothing is known yet */

    /* Sessions end one after the other, a life apart in all places together. */
    if (s != NULL)
        wait_ms = room_ms(t, s) - now_ms;
    else if (t->life_ms > 0)
        wait_ms = t->life_ms / (only_own ? own->sessions : t->limits.sessions_max);
    if (wait_ms < TABLE_RETRY_MS_MIN)
        return TABLE_RETRY_MS_MIN;
    return wait_ms < TABLE_RETRY_MS_MAX ? (uint32_t)wait_ms + 1 : TABLE_RETRY_MS_MAX;
}

uint32_t worker_table_retry_ms(const struct worker_table *t, double now_ms)
{
    return t->live_count < t->limits.sessions_max ? TABLE_RETRY_MS_MIN
                                                  : retry_ms(t, now_ms, NULL, false);
}

static void evict(struct worker_table *t, double now_ms, struct worker_session *s,
                  enum table_why why)
{
    table_end_note(t, s->info.stream, why);
    t->stats.evicted++;
    table_session_end(t, now_ms, s);
}

/* Most sessions of the subject: a reservation is not cut short by the general limit. */
static uint32_t subject_limit(const struct worker_table *t, const struct table_subject *own)
{
    uint32_t limit = t->limits.subject_sessions;

    if (limit == 0)
        return UINT32_MAX;
    return own->reserved > limit ? own->reserved : limit;
}

int table_place_make(struct worker_table *t, double now_ms, const char *subject,
                     uint32_t *retry_after_ms, mcp_error *err)
{
    const struct table_subject *own = table_subject_find(t, subject);
    struct worker_session      *s;

    if (own != NULL && own->sessions >= subject_limit(t, own)) {
        s = oldest_detached(t, own, true);
        if (s == NULL || room_ms(t, s) > now_ms) {
            *retry_after_ms = retry_ms(t, now_ms, own, true);
            return base_fail(err, MCP_EBUSY,
                             "%u sessions of this subject are open, at most %u (subject_sessions); "
                             "come again in %u ms",
                             own->sessions, subject_limit(t, own), *retry_after_ms);
        }
        evict(t, now_ms, s, TABLE_MADE_ROOM);
    }
    if (t->live_count < t->limits.sessions_max)
        return MCP_OK;

    s = oldest_detached(t, own, false);
    if (s == NULL || room_ms(t, s) > now_ms)
        s = oldest_of_the_rich(t, own);
    if (s != NULL) {
        evict(t, now_ms, s, TABLE_MADE_ROOM);
        return MCP_OK;
    }
    if (own != NULL && own->sessions < own->reserved) {
        s = youngest_borrower(t);
        assert(s != NULL); /* see above: not all can be protected */
        evict(t, now_ms, s, TABLE_CALLED_BACK);
        return MCP_OK;
    }
    *retry_after_ms = retry_ms(t, now_ms, own, false);
    return base_fail(err, MCP_EBUSY, "all %u sessions are in use (-np); come again in %u ms",
                     t->limits.sessions_max, *retry_after_ms);
}
