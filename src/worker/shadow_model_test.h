/* worker/shadow_model_test.h - a slow model of what the session table promises.
 *
 * Written from table.h alone: plain arrays, no order of its own.  After every event it knows each
 * session's length, epoch and queue, which works come back as dropped, which streams end, and
 * what the engine's slots hold: every position is marked with the number of the window that wrote
 * it, so a trim or a clear that is forgotten shows as foreign marks.  See shadow_test.h.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_SHADOW_MODEL_TEST_H
#define WORKER_SHADOW_MODEL_TEST_H

#include "worker/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef SHADOW_CHECK
#define SHADOW_CHECK(condition)                                                             \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                        \
        }                                                                                   \
    } while (0)
#endif

enum {
    SHADOW_PLACES = 6,
    SHADOW_SESSIONS = 2 * SHADOW_PLACES, /* with those that only a batch remembers */
    SHADOW_CTX = 700,
    SHADOW_WINDOWS = 5,
    SHADOW_WORKS = SHADOW_SESSIONS * SHADOW_WINDOWS + 8,
    SHADOW_IDS = 8,
    SHADOW_SUBJECTS = 4,
    SHADOW_ENDS = SHADOW_PLACES + 1,
    SHADOW_THROTTLED = 3, /* this subject has a rate */
};

struct shadow_source {
    const uint8_t *bytes; /* NULL: `seed` makes them */
    size_t         count;
    uint64_t       seed;
};

enum shadow_state {
    SHADOW_OURS,    /* not in the table */
    SHADOW_WAITING, /* in a session's queue */
    SHADOW_RUNNING,
    SHADOW_DUE, /* must come back by an act before the next event */
};

struct shadow_work {
    struct worker_work work;
    enum shadow_state  state;
    bool               expired; /* while due */
    bool               import;
    uint32_t           run;     /* positions */
    uint32_t           kept;    /* of them, once all have run */
    uint32_t           guesses; /* at its end when it was pushed */
};

struct shadow_session {
    bool                   live;
    bool                   lingers; /* closed, but in the running batch */
    struct worker_session *s;
    uint8_t                id;
    uint32_t               subject;
    void                  *stream;
    enum wire_qos          qos;
    uint32_t               first, last, ctx, epoch, length, queued_pos;
    uint64_t               order;
    double                 detached_ms, active_ms;
    struct shadow_work    *queue[SHADOW_WINDOWS];
    uint32_t               count;
    struct shadow_work    *running;
    bool                   running_last, running_void;
    uint32_t               marks[SHADOW_CTX]; /* [0, queued_pos): which window writes it */
};

struct shadow_slot {
    uint64_t owner; /* order of the session whose state it holds; 0 = cleared */
    uint32_t length;
    uint32_t marks[SHADOW_CTX];
};

struct shadow {
    struct shadow_source *source;
    struct worker_table  *t;
    struct worker_limits  limits;
    double                now_ms;
    bool                  drained;
    uint64_t              order, number;
    uintptr_t             streams;
    struct shadow_session sessions[SHADOW_SESSIONS];
    struct shadow_work    works[SHADOW_WORKS];
    struct shadow_slot    slots[SHADOW_PLACES];
    struct {
        void *stream;
        int   code;
    } ends[SHADOW_ENDS];
    uint32_t            end_count;
    bool                running, paused, interrupted; /* paused: `batch`, perhaps for `urgent` */
    struct worker_batch batch, urgent;
    uint64_t windows_run, interruptions; /* so that a test knows that it tested something */
};

/* ---- choices -------------------------------------------------------------------------- */

static inline uint32_t shadow_byte(struct shadow *w)
{
    struct shadow_source *from = w->source;
    uint64_t              z;

    if (from->bytes != NULL) {
        if (from->count == 0)
            return 0;
        from->count--;
        return *from->bytes++;
    }
    z = from->seed += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 56);
}

static inline uint32_t shadow_pick(struct shadow *w, uint32_t limit)
{
    uint32_t value = shadow_byte(w);

    if (limit > 256)
        value = value << 8 | shadow_byte(w);
    return value % limit;
}

static inline struct shadow_session *shadow_pick_live(struct shadow *w)
{
    uint32_t from = shadow_pick(w, SHADOW_SESSIONS);

    for (uint32_t i = 0; i < SHADOW_SESSIONS; i++) {
        struct shadow_session *s = &w->sessions[(from + i) % SHADOW_SESSIONS];

        if (s->live)
            return s;
    }
    return NULL;
}

/* ---- the model ------------------------------------------------------------------------ */

static inline uint32_t shadow_live(const struct shadow *w)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < SHADOW_SESSIONS; i++)
        count += w->sessions[i].live;
    return count;
}

static inline uint32_t shadow_sessions_of(const struct shadow *w, uint32_t subject)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < SHADOW_SESSIONS; i++)
        count += w->sessions[i].live && w->sessions[i].subject == subject;
    return count;
}

static inline const char *shadow_subject(uint32_t index)
{
    static const char *const names[SHADOW_SUBJECTS] = { "ann", "bob", "eve", "slow" };

    return names[index];
}

static inline uint32_t shadow_reserved(const struct shadow *w, uint32_t subject)
{
    for (uint32_t i = 0; i < w->limits.reservation_count; i++)
        if (strcmp(w->limits.reservations[i].subject, shadow_subject(subject)) == 0)
            return w->limits.reservations[i].sessions;
    return 0;
}

/* What waits from `at` on is dropped. */
static inline void shadow_cut(struct shadow_session *s, uint32_t at)
{
    for (uint32_t i = at; i < s->count; i++) {
        struct shadow_work *work = s->queue[i];

        work->state = SHADOW_DUE;
        work->expired = false;
        if (!work->work.exclusive && work->work.pos < s->queued_pos)
            s->queued_pos = work->work.pos;
    }
    s->count = at;
}

static inline void shadow_rewind(struct shadow_session *s, uint32_t pos)
{
    shadow_cut(s, 0);
    if (s->running != NULL)
        s->running_void = true;
    s->length = s->queued_pos = pos;
}

static inline void shadow_expire(struct shadow *w, struct shadow_session *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        double   deadline_ms = s->queue[i]->work.deadline_ms;
        uint32_t count = s->count;

        if (deadline_ms <= 0 || deadline_ms > w->now_ms)
            continue;
        shadow_cut(s, i);
        for (; i < count; i++) {
            deadline_ms = s->queue[i]->work.deadline_ms;
            s->queue[i]->expired = deadline_ms > 0 && deadline_ms <= w->now_ms;
        }
        return;
    }
}

static inline void shadow_end(struct shadow_session *s)
{
    shadow_rewind(s, s->length);
    s->live = false;
    s->lingers = s->running != NULL;
}

static inline void shadow_expect_end(struct shadow *w, void *stream, int code)
{
    SHADOW_CHECK(w->end_count < SHADOW_ENDS);
    w->ends[w->end_count].stream = stream;
    w->ends[w->end_count++].code = code;
}

/* The oldest detached session that may go for `subject`; NULL when none is old enough. */
static inline struct shadow_session *shadow_oldest(struct shadow *w, uint32_t subject,
                                                   bool only_own)
{
    struct shadow_session *oldest = NULL;

    for (uint32_t i = 0; i < SHADOW_SESSIONS; i++) {
        struct shadow_session *s = &w->sessions[i];
        uint32_t               own = shadow_sessions_of(w, s->subject);

        if (!s->live || s->stream != NULL || (only_own && s->subject != subject))
            continue;
        if (s->subject != subject ? own <= shadow_reserved(w, s->subject)
                                  : own < shadow_reserved(w, s->subject))
            continue;
        if (w->now_ms < s->detached_ms + w->limits.detached_keep_ms)
            continue;
        if (oldest == NULL || s->detached_ms < oldest->detached_ms ||
            (s->detached_ms == oldest->detached_ms && s->order < oldest->order))
            oldest = s;
    }
    return oldest;
}

/* The oldest detached one of the subject that has most, and more than `subject` would. */
static inline struct shadow_session *shadow_of_the_rich(struct shadow *w, uint32_t subject)
{
    struct shadow_session *found = NULL;

    for (uint32_t i = 0; i < SHADOW_SESSIONS; i++) {
        struct shadow_session *s = &w->sessions[i];
        uint32_t               has = shadow_sessions_of(w, s->subject), most;

        if (!s->live || s->stream != NULL || has <= shadow_reserved(w, s->subject) ||
            has <= shadow_sessions_of(w, subject) + 1)
            continue;
        most = found != NULL ? shadow_sessions_of(w, found->subject) : 0;
        if (has > most ||
            (has == most && (s->detached_ms < found->detached_ms ||
                             (s->detached_ms == found->detached_ms && s->order < found->order))))
            found = s;
    }
    return found;
}

static inline struct shadow_session *shadow_borrower(struct shadow *w)
{
    static const int       rank[] = { 1, 2, 0 }; /* normal, realtime, batch */
    struct shadow_session *found = NULL;

    for (uint32_t i = 0; i < SHADOW_SESSIONS; i++) {
        struct shadow_session *s = &w->sessions[i];

        if (!s->live || shadow_sessions_of(w, s->subject) <= shadow_reserved(w, s->subject))
            continue;
        if (found == NULL || rank[s->qos] < rank[found->qos] ||
            (s->qos == found->qos && s->order > found->order))
            found = s;
    }
    return found;
}

/* Who has to go so that `subject` can open one more: nobody, *victim, or MCP_EBUSY. */
static inline int shadow_room(struct shadow *w, uint32_t subject, struct shadow_session **victim)
{
    uint32_t own = shadow_sessions_of(w, subject), reserved = shadow_reserved(w, subject);
    uint32_t limit = w->limits.subject_sessions;

    *victim = NULL;
    if (limit != 0 && own >= (limit > reserved ? limit : reserved)) {
        *victim = shadow_oldest(w, subject, true);
        return *victim != NULL ? MCP_OK : MCP_EBUSY;
    }
    if (shadow_live(w) < w->limits.sessions_max)
        return MCP_OK;
    *victim = shadow_oldest(w, subject, false);
    if (*victim == NULL)
        *victim = shadow_of_the_rich(w, subject);
    if (*victim == NULL && own < reserved)
        *victim = shadow_borrower(w);
    return *victim != NULL ? MCP_OK : MCP_EBUSY;
}

/* ---- after every event ---------------------------------------------------------------- */

static inline void shadow_take_acts(struct shadow *w)
{
    struct worker_act act;

    while (worker_table_act(w->t, &act)) {
        uint32_t i = 0;

        if (act.kind == WORKER_ACT_DROP) {
            struct shadow_work *work = act.work->data;

            SHADOW_CHECK(&work->work == act.work && work->state == SHADOW_DUE);
            SHADOW_CHECK(act.expired == work->expired);
            work->state = SHADOW_OURS;
            continue;
        }
        while (i < w->end_count && w->ends[i].stream != act.stream)
            i++;
        SHADOW_CHECK(i < w->end_count);
        SHADOW_CHECK(w->ends[i].code == act.status.code && act.status.text[0] != '\0');
        w->ends[i] = w->ends[--w->end_count];
    }
    SHADOW_CHECK(w->end_count == 0);
    for (uint32_t i = 0; i < SHADOW_WORKS; i++)
        SHADOW_CHECK(w->works[i].state != SHADOW_DUE);
}

static inline void shadow_compare(struct shadow *w)
{
    struct worker_table_stats stats;
    uint64_t                  bytes = 0, tokens = 0;
    uint32_t                  windows = 0, detached = 0;
    bool                      slots[SHADOW_PLACES] = { 0 };

    for (uint32_t i = 0; i < SHADOW_SESSIONS; i++) {
        struct shadow_session            *s = &w->sessions[i];
        const struct worker_session_info *info;
        uint32_t                          own = s->count + (s->running != NULL);

        if (!s->live && !s->lingers)
            continue;
        info = worker_session_info(s->s);
        for (uint32_t j = 0; j < s->count; j++) {
            bytes += s->queue[j]->work.bytes;
            tokens += s->queue[j]->work.count - s->queue[j]->run;
        }
        if (s->running != NULL) {
            bytes += s->running->work.bytes;
            tokens += s->running->work.count - s->running->run;
        }
        windows += own;
        if (info->slot != UINT32_MAX) {
            SHADOW_CHECK(info->slot < w->limits.sessions_max && !slots[info->slot]);
            slots[info->slot] = true;
        }
        SHADOW_CHECK(info->queued_windows == own);
        if (!s->live)
            continue;
        detached += s->stream == NULL;
        SHADOW_CHECK(info->id[0] == s->id && info->stream == s->stream && info->qos == s->qos);
        SHADOW_CHECK(info->length == s->length && info->epoch == s->epoch);
        SHADOW_CHECK(info->queued_pos == s->queued_pos && info->ctx_tokens == s->ctx);
        SHADOW_CHECK(strcmp(info->grant->subject, shadow_subject(s->subject)) == 0);
    }
    worker_table_get_stats(w->t, &stats);
    SHADOW_CHECK(stats.sessions == shadow_live(w) && stats.detached == detached);
    SHADOW_CHECK(stats.sessions + stats.sessions_free == w->limits.sessions_max);
    SHADOW_CHECK(stats.queued_windows == windows && stats.queued_bytes == bytes);
    SHADOW_CHECK(stats.queued_tokens == tokens);
}

#endif
