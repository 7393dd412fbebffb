/* worker/shadow_events_test.h - what clients and time do to a session table, at random.
 *
 * Each event goes to the table and to the model; what the table answers must be what the model
 * says.  See shadow_test.h.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_SHADOW_EVENTS_TEST_H
#define WORKER_SHADOW_EVENTS_TEST_H

#include "worker/shadow_model_test.h"

static inline struct shadow_session *shadow_by_id(struct shadow *w, uint8_t id)
{
    for (uint32_t i = 0; i < SHADOW_SESSIONS; i++)
        if (w->sessions[i].live && w->sessions[i].id == id)
            return &w->sessions[i];
    return NULL;
}

static inline int shadow_open_code(struct shadow *w, const struct wire_open *open,
                                   const struct guard_grant *grant, uint32_t subject,
                                   const struct shadow_session *known,
                                   struct shadow_session      **victim)
{
    static const enum guard_priority needs[] = { GUARD_NORMAL, GUARD_REALTIME, GUARD_BATCH };

    *victim = NULL;
    if (open->first >= open->last || open->first < w->limits.first || open->last > w->limits.last ||
        open->ctx_tokens > w->limits.ctx_tokens)
        return MCP_ERANGE;
    if (grant->priority < needs[open->qos] ||
        (grant->last > 0 && (open->first < grant->first || open->last > grant->last)))
        return MCP_EDENIED;
    if (known != NULL && known->subject != subject)
        return MCP_EDENIED;
    if (known != NULL)
        return open->resume && open->first == known->first && open->last == known->last
                   ? MCP_OK
                   : MCP_EINVAL;
    return w->drained ? MCP_EUNAVAIL : shadow_room(w, subject, victim);
}

static inline void shadow_opened(struct shadow *w, struct shadow_session *s,
                                 const struct wire_open *open, void *stream)
{
    uint32_t ctx = open->ctx_tokens > 0 ? open->ctx_tokens : w->limits.ctx_tokens;

    s->ctx = ctx > s->ctx ? ctx : s->ctx;
    s->qos = open->qos;
    s->stream = stream;
    s->active_ms = w->now_ms;
}

static inline void shadow_begin(struct shadow *w, struct worker_session *made,
                                const struct wire_open *open, uint32_t subject, void *stream)
{
    for (uint32_t i = 0; i < SHADOW_SESSIONS; i++) {
        struct shadow_session *s = &w->sessions[i];

        if (s->live || s->lingers)
            continue;
        *s = (struct shadow_session){ .live = true,
                                      .s = made,
                                      .id = open->session[0],
                                      .subject = subject,
                                      .first = open->first,
                                      .last = open->last,
                                      .order = ++w->order };
        shadow_opened(w, s, open, stream);
        return;
    }
    SHADOW_CHECK(false);
}

static inline void shadow_open(struct shadow *w)
{
    struct wire_open       open = { .session = { (uint8_t)shadow_pick(w, SHADOW_IDS) },
                                    .first = 4,
                                    .last = 12,
                                    .ctx_tokens = shadow_pick(w, 2) ? 0 : 1 + shadow_pick(w, 720),
                                    .qos = (enum wire_qos)shadow_pick(w, 3),
                                    .resume = shadow_pick(w, 2) };
    uint32_t               subject = shadow_pick(w, SHADOW_SUBJECTS);
    struct guard_grant     grant = { .priority = shadow_pick(w, 8)
                                                     ? GUARD_REALTIME
                                                     : (enum guard_priority)shadow_pick(w, 2),
                                     .tokens_per_minute = subject == SHADOW_THROTTLED ? 600 : 0 };
    struct shadow_session *known = shadow_by_id(w, open.session[0]), *victim;
    struct worker_session *made;
    void                  *stream = (void *)++w->streams;
    mcp_error              err;
    uint32_t               retry_ms;
    int                    rc, code;

    if (shadow_pick(w, 4) == 0)
        open.first = shadow_pick(w, 14);
    if (shadow_pick(w, 16) == 0)
        grant.last = 11;
    snprintf(grant.subject, sizeof(grant.subject), "%s", shadow_subject(subject));
    code = shadow_open_code(w, &open, &grant, subject, known, &victim);
    rc = worker_table_open(w->t, w->now_ms, &open, &grant, stream, &made, &retry_ms, &err);
    SHADOW_CHECK(rc == code);
    SHADOW_CHECK((rc == MCP_OK) == (made != NULL));
    SHADOW_CHECK(rc == MCP_OK || (err.code == rc && err.text[0] != '\0'));
    SHADOW_CHECK((rc == MCP_EBUSY) == (retry_ms != 0));
    SHADOW_CHECK(rc != MCP_EBUSY || (retry_ms >= 100 && retry_ms <= 30000));
    if (rc < 0)
        return;
    if (known != NULL) {
        SHADOW_CHECK(made == known->s);
        if (known->stream != NULL)
            shadow_expect_end(w, known->stream, WIRE_CANCELLED);
        shadow_rewind(known, known->length);
        shadow_opened(w, known, &open, stream);
        return;
    }
    if (victim != NULL) {
        shadow_expect_end(w, victim->stream, WIRE_UNAVAILABLE);
        shadow_end(victim);
    }
    shadow_begin(w, made, &open, subject, stream);
}

static inline struct shadow_work *shadow_new_work(struct shadow *w)
{
    for (uint32_t i = 0; i < SHADOW_WORKS; i++) {
        struct shadow_work *work = &w->works[i];

        if (work->state != SHADOW_OURS)
            continue;
        *work = (struct shadow_work){ .work = { .number = ++w->number, .data = work } };
        return work;
    }
    return NULL;
}

static inline int shadow_push_code(struct shadow *w, const struct shadow_session *s,
                                   const struct worker_work *work)
{
    uint64_t                  own = 0;
    struct worker_table_stats stats;

    if (work->epoch > s->epoch || (!work->exclusive && work->count == 0))
        return MCP_EINVAL;
    if (!work->exclusive && (work->count > w->limits.batch_tokens || work->pos != s->queued_pos ||
                             (uint64_t)work->pos + work->count > s->ctx))
        return MCP_ERANGE;
    for (uint32_t i = 0; i < s->count; i++)
        own += s->queue[i]->work.bytes;
    bool runs = s->running != NULL && !s->running_void; /* a void one takes no place */
    own += runs ? s->running->work.bytes : 0;
    worker_table_get_stats(w->t, &stats);
    if (s->count + runs >= w->limits.windows_max || own + work->bytes > w->limits.queue_bytes_max ||
        stats.queued_bytes + work->bytes > w->limits.queue_bytes_all)
        return MCP_EBUSY;
    return MCP_OK;
}

static inline void shadow_push(struct shadow *w)
{
    struct shadow_session *s = shadow_pick_live(w);
    struct shadow_work    *made = s != NULL ? shadow_new_work(w) : NULL;
    struct worker_work    *work;
    mcp_error              err;
    int                    rc, code;

    if (made == NULL)
        return;
    work = &made->work;
    work->epoch = s->epoch;
    work->exclusive = shadow_pick(w, 12) == 0;
    made->import = work->exclusive && shadow_pick(w, 2);
    work->logits = shadow_pick(w, 4) == 0;
    work->bytes = shadow_pick(w, 40);
    if (shadow_pick(w, 6) == 0)
        work->deadline_ms = w->now_ms + shadow_pick(w, 60);
    if (!work->exclusive) {
        work->pos = s->queued_pos;
        work->count = shadow_pick(w, 3) ? 1 + shadow_pick(w, 10) : shadow_pick(w, 400);
        work->spare = work->count > 1 && shadow_pick(w, 2) ? shadow_pick(w, work->count) : 0;
        made->guesses = work->spare;
    }
    if (shadow_pick(w, 16) == 0)
        work->epoch += shadow_pick(w, 3) - 1;
    if (!work->exclusive && shadow_pick(w, 16) == 0)
        work->pos += shadow_pick(w, 3) - 1;

    code = shadow_push_code(w, s, work);
    rc = worker_table_push(w->t, w->now_ms, s->s, work, &err);
    s->active_ms = w->now_ms;
    if (work->epoch < s->epoch) {
        SHADOW_CHECK(rc == MCP_OK);
        made->state = SHADOW_DUE;
        return;
    }
    SHADOW_CHECK(rc == code);
    SHADOW_CHECK(rc == MCP_OK || (err.code == rc && err.text[0] != '\0'));
    if (rc < 0)
        return;
    made->state = SHADOW_WAITING;
    s->queue[s->count++] = made;
    for (uint32_t i = 0; i < work->count; i++)
        s->marks[work->pos + i] = (uint32_t)work->number;
    if (!work->exclusive)
        s->queued_pos = work->pos + work->count;
}

static inline void shadow_trim(struct shadow *w)
{
    struct shadow_session *s = shadow_pick_live(w);
    uint32_t               most, epoch, pos;
    mcp_error              err;
    int                    rc;

    if (s == NULL)
        return;
    most = s->length;
    if (s->running != NULL && s->running_last && !s->running_void && !s->running->work.exclusive)
        most = s->running->work.pos + s->running->work.count;
    epoch = s->epoch + shadow_pick(w, 8);
    pos = shadow_pick(w, 3) ? most - shadow_pick(w, most < 20 ? most + 1 : 20)
                            : shadow_pick(w, most + 3);
    rc = worker_table_trim(w->t, w->now_ms, s->s, epoch, pos, &err);
    s->active_ms = w->now_ms;
    SHADOW_CHECK(rc == (epoch <= s->epoch ? MCP_EINVAL : pos > most ? MCP_ERANGE : MCP_OK));
    if (rc < 0)
        return;
    s->epoch = epoch;
    shadow_rewind(s, pos);
}

static inline void shadow_tick_model(struct shadow *w)
{
    for (uint32_t i = 0; i < SHADOW_SESSIONS; i++) {
        struct shadow_session *s = &w->sessions[i];
        double                 idle_ms = w->limits.idle_ms;
        bool                   over;

        if (!s->live)
            continue;
        shadow_expire(w, s);
        over = s->stream == NULL ? w->now_ms >= s->detached_ms + w->limits.lease_ms
                                 : idle_ms > 0 && s->count == 0 && s->running == NULL &&
                                       w->now_ms >= s->active_ms + idle_ms;
        if (!over)
            continue;
        shadow_expect_end(w, s->stream, WIRE_UNAVAILABLE);
        shadow_end(s);
    }
}

static inline void shadow_leave(struct shadow *w, bool close)
{
    struct shadow_session *s = shadow_pick_live(w);

    if (s == NULL)
        return;
    if (close) {
        worker_table_close(w->t, w->now_ms, s->s);
        shadow_end(s);
        return;
    }
    worker_table_detach(w->t, w->now_ms, s->s);
    if (s->stream != NULL)
        s->detached_ms = w->now_ms;
    s->stream = NULL;
}

#endif
