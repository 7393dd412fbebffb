/* worker/shadow_test.h - random events on a session table, beside a slow model of what it promises.
 *
 * Which windows run next is the table's choice; checked is that the choice is allowed, that
 * something runs when something can, and that the engine's slots hold what they should.
 *
 * The source of events is bytes: libFuzzer's (fuzz/table.c) or a seeded generator's
 * (table_test.c).  SHADOW_CHECK may be defined before inclusion.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_SHADOW_TEST_H
#define WORKER_SHADOW_TEST_H

#include "worker/shadow_events_test.h"

/* ---- batches -------------------------------------------------------------------------- */

static inline struct shadow_session *shadow_by_handle(struct shadow               *w,
                                                      const struct worker_session *handle)
{
    for (uint32_t i = 0; i < SHADOW_SESSIONS; i++)
        if ((w->sessions[i].live || w->sessions[i].lingers) && w->sessions[i].s == handle)
            return &w->sessions[i];
    return NULL;
}

/* Guesses at the end may be left out of a window as it begins, if no other one goes on there. */
static inline void shadow_left_out(struct shadow_session *s, struct shadow_work *work)
{
    uint32_t end = work->work.pos + work->work.count, next = end;

    if (work->work.exclusive)
        return;
    for (uint32_t i = s->count; i-- > 1;)
        next = s->queue[i]->work.exclusive ? next : s->queue[i]->work.pos;
    SHADOW_CHECK(next == end); /* of the first that waits behind, if any does */
    for (uint32_t i = 1; i < s->count; i++)
        if (!s->queue[i]->work.exclusive)
            return;
    SHADOW_CHECK(s->queued_pos - end == work->guesses - work->work.spare);
    s->queued_pos = end;
    work->guesses = work->work.spare;
}

static inline void shadow_run_item(struct shadow *w, const struct worker_batch *batch,
                                   const struct worker_item *item)
{
    struct shadow_session *s = shadow_by_handle(w, item->session);
    struct shadow_slot    *slot = &w->slots[item->slot];
    struct shadow_work    *work = item->work->data;
    uint32_t               left;

    SHADOW_CHECK(s != NULL && s->live && s->running == NULL && s->count > 0);
    SHADOW_CHECK(work == s->queue[0]); /* order within a session */
    SHADOW_CHECK(s->first == batch->first && s->last == batch->last);
    SHADOW_CHECK(work->work.exclusive == batch->exclusive);
    SHADOW_CHECK(work->work.logits == batch->logits);
    SHADOW_CHECK(work->work.epoch == s->epoch);
    SHADOW_CHECK(item->slot == worker_session_info(s->s)->slot);
    SHADOW_CHECK(item->offset == work->run);
    shadow_left_out(s, work);
    left = work->work.count - work->run - item->count;
    SHADOW_CHECK(item->last == (left == 0));
    if ((!item->last || item->offset > 0) && s->qos == WIRE_QOS_BATCH && w->limits.even &&
        work->work.count < 64) {
        SHADOW_CHECK(item->count > 0);
    } else if (!item->last || item->offset > 0) {
        SHADOW_CHECK(work->work.count > w->limits.decode_tokens);
        SHADOW_CHECK(item->offset % 64 == 0 && item->count >= 64);
        SHADOW_CHECK(item->last || (item->count % 64 == 0 && left >= 64));
    }

    SHADOW_CHECK(slot->owner == s->order || (slot->owner == 0 && slot->length == 0));
    slot->owner = s->order;
    if (item->trim_to != UINT32_MAX) {
        SHADOW_CHECK(item->trim_to <= slot->length);
        slot->length = item->trim_to;
    }
    if (!work->work.exclusive) {
        SHADOW_CHECK(item->pos == work->work.pos + item->offset && item->pos == slot->length);
        SHADOW_CHECK(memcmp(slot->marks, s->marks, item->pos * sizeof(uint32_t)) == 0);
        for (uint32_t i = 0; i < item->count; i++)
            slot->marks[slot->length++] = (uint32_t)work->work.number;
    } else {
        SHADOW_CHECK(slot->length == s->length);
        SHADOW_CHECK(memcmp(slot->marks, s->marks, s->length * sizeof(uint32_t)) == 0);
    }

    memmove(s->queue, s->queue + 1, --s->count * sizeof(struct shadow_work *));
    work->state = SHADOW_RUNNING;
    s->running = work;
    s->running_last = item->last;
    s->running_void = false;
    s->active_ms = w->now_ms;
}

static inline void shadow_check_batch(const struct shadow *w, const struct worker_batch *batch,
                                      bool decode_waits)
{
    uint32_t tokens = 0, prefill = 0, prefills = 0, shortest = UINT32_MAX;

    SHADOW_CHECK(batch->count > 0 && batch->count <= w->limits.sessions_max);
    SHADOW_CHECK(!batch->exclusive || batch->count == 1);
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct worker_item *item = &batch->items[i];

        tokens += item->count;
        if (item->work->count <= w->limits.decode_tokens)
            continue;
        prefill += item->count;
        prefills++;
        shortest = item->count < shortest ? item->count : shortest;
    }
    SHADOW_CHECK(tokens == batch->tokens && tokens <= w->limits.batch_tokens);
    /* A window that cannot be cut may go beyond the chunk, alone. */
    if (decode_waits && prefill > w->limits.chunk_tokens)
        SHADOW_CHECK(prefills == 1 && shortest < 128);
}

static inline void shadow_started(struct shadow *w, const struct worker_batch *batch,
                                  bool decode_waits)
{
    for (uint32_t i = 0; i < batch->clear_count; i++) {
        struct shadow_slot *slot = &w->slots[batch->clears[i]];

        for (uint32_t j = 0; j < SHADOW_SESSIONS; j++)
            SHADOW_CHECK(!w->sessions[j].live || w->sessions[j].order != slot->owner);
        *slot = (struct shadow_slot){ 0 };
    }
    shadow_check_batch(w, batch, decode_waits);
    SHADOW_CHECK(batch->slice_first == batch->first && batch->slice_last > batch->first);
    SHADOW_CHECK(batch->slice_last == batch->last || (batch->back && !batch->exclusive));
    for (uint32_t i = 0; i < batch->count; i++)
        shadow_run_item(w, batch, &batch->items[i]);
}

static inline void shadow_next(struct shadow *w)
{
    bool   decode_waits = false, can_run = false;
    double wake_ms = -1;

    for (uint32_t i = 0; i < SHADOW_SESSIONS; i++) {
        struct shadow_session *s = &w->sessions[i];

        if (!s->live)
            continue;
        shadow_expire(w, s);
        if (s->count == 0 || s->subject == SHADOW_THROTTLED)
            continue;
        can_run = true; /* no batch runs, so everybody has a slot */
        decode_waits |= !s->queue[0]->work.exclusive &&
                        s->queue[0]->work.count <= w->limits.decode_tokens;
    }
    w->running = worker_table_next(w->t, w->now_ms, &w->batch, &wake_ms);
    SHADOW_CHECK(w->running || !can_run);
    if (!w->running) {
        shadow_tick_model(w);
        SHADOW_CHECK(wake_ms == 0 || wake_ms > w->now_ms);
        return;
    }
    shadow_started(w, &w->batch, decode_waits);
}

/* An import has run: the slot holds `length` positions of its own now. */
static inline void shadow_imported(struct shadow *w, struct shadow_session *s, uint32_t slot,
                                   uint32_t length)
{
    uint32_t mark = (uint32_t)s->running->work.number;
    uint32_t kept = s->running_void && s->length < length ? s->length : length;

    w->slots[slot].length = length;
    for (uint32_t i = 0; i < length; i++)
        w->slots[slot].marks[i] = mark;
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->queue[i]->work.exclusive)
            continue;
        if (s->queue[i]->work.pos != kept)
            shadow_cut(s, 0);
        break;
    }
    for (uint32_t i = 0; i < kept; i++)
        s->marks[i] = mark;
    s->length = s->queued_pos = kept;
    for (uint32_t i = 0; i < s->count; i++)
        if (!s->queue[i]->work.exclusive)
            s->queued_pos = s->queue[i]->work.pos + s->queue[i]->work.count;
    worker_table_set_length(w->t, s->s, length);
}

/* Of a window that has run whole, some positions at the end were wrong guesses. */
static inline void shadow_keep(struct shadow *w, struct shadow_session *s,
                               const struct worker_item *item)
{
    struct shadow_work *work = s->running;

    work->kept = work->work.count;
    if (!item->last || work->work.exclusive || shadow_pick(w, 4))
        return;
    work->kept = 1 + shadow_pick(w, work->work.count);
    worker_table_keep(w->t, item, work->kept);
    if (s->running_void || work->kept == work->work.count)
        return;
    for (uint32_t i = 0; i < s->count; i++)
        if (!s->queue[i]->work.exclusive) {
            shadow_cut(s, 0);
            break;
        }
    s->queued_pos = work->work.pos + work->kept;
}

static inline void shadow_done_item(struct shadow *w, struct shadow_session *s, uint32_t count)
{
    struct shadow_work *work = s->running;

    work->run += count;
    s->running = NULL;
    s->active_ms = w->now_ms;
    if (s->running_last) {
        work->state = SHADOW_OURS; /* given back by the batch */
        w->windows_run += !s->running_void;
        if (!s->running_void && !work->work.exclusive)
            s->length = work->work.pos + work->kept;
    } else if (s->running_void) {
        work->state = SHADOW_DUE;
        work->expired = false;
    } else {
        memmove(s->queue + 1, s->queue, s->count++ * sizeof(struct shadow_work *));
        s->queue[0] = work;
        work->state = SHADOW_WAITING;
    }
    s->lingers = false;
}

/* Long enough for slices now and then. */
static inline double shadow_ms(struct shadow *w)
{
    return 1 + shadow_pick(w, 100);
}

static inline void shadow_finish(struct shadow *w, struct worker_batch *batch)
{
    struct shadow_session *sessions[SHADOW_PLACES];
    uint32_t               counts[SHADOW_PLACES], count = batch->count;

    for (uint32_t i = 0; i < count; i++) {
        const struct worker_item *item = &batch->items[i];
        struct shadow_session    *s = shadow_by_handle(w, item->session);

        SHADOW_CHECK(s != NULL && item->work == &s->running->work);
        SHADOW_CHECK(worker_item_void(w->t, item) == s->running_void);
        if (s->running->import && s->live && shadow_pick(w, 4))
            shadow_imported(w, s, item->slot, shadow_pick(w, s->ctx + 1));
        shadow_keep(w, s, item);
        sessions[i] = s;
        counts[i] = item->count;
    }
    worker_table_done(w->t, w->now_ms, batch, shadow_ms(w));
    for (uint32_t i = 0; i < count; i++)
        shadow_done_item(w, sessions[i], counts[i]);
}

/* The paused batch goes on, unless something is urgent. */
static inline void shadow_go_on(struct shadow *w)
{
    for (uint32_t i = 0; i < SHADOW_SESSIONS; i++)
        if (w->sessions[i].live)
            shadow_expire(w, &w->sessions[i]);
    w->interrupted = worker_table_urgent(w->t, w->now_ms, &w->batch, &w->urgent);
    w->paused = w->interrupted;
    if (!w->interrupted) {
        SHADOW_CHECK(w->batch.slice_first < w->batch.slice_last);
        SHADOW_CHECK(w->batch.slice_last <= w->batch.last);
        return;
    }
    SHADOW_CHECK(!w->urgent.back);
    w->interruptions++;
    shadow_started(w, &w->urgent, false);
}

/* What runs comes to an end, or to a pause. */
static inline void shadow_done(struct shadow *w)
{
    if (w->interrupted) {
        w->interrupted = false;
        shadow_finish(w, &w->urgent);
    } else if (w->paused) {
        shadow_go_on(w);
    } else if (w->batch.slice_last < w->batch.last && shadow_pick(w, 8)) {
        worker_table_sliced(w->t, w->now_ms, &w->batch, shadow_ms(w));
        w->paused = true;
    } else {
        w->running = false;
        shadow_finish(w, &w->batch);
    }
}

/* ---- a whole run ---------------------------------------------------------------------- */

static inline void shadow_init(struct shadow *w, struct shadow_source *source)
{
    static const uint32_t chunks[] = { 64, 100, 128, 256 };
    mcp_error             err;

    memset(w, 0, sizeof(*w));
    w->source = source;
    w->now_ms = 1000;
    w->limits = worker_limits_default();
    w->limits.sessions_max = 1 + shadow_pick(w, SHADOW_PLACES);
    w->limits.subject_sessions = shadow_pick(w, 4);
    w->limits.ctx_tokens = SHADOW_CTX;
    w->limits.first = 4;
    w->limits.last = 12;
    w->limits.batch_tokens = 16 + shadow_pick(w, 400);
    w->limits.chunk_tokens = chunks[shadow_pick(w, 4)];
    w->limits.decode_tokens = 1 + shadow_pick(w, 16);
    w->limits.even = shadow_pick(w, 2);
    w->limits.windows_max = 1 + shadow_pick(w, SHADOW_WINDOWS);
    w->limits.queue_bytes_max = 100;
    w->limits.queue_bytes_all = 200;
    w->limits.lease_ms = 300;
    w->limits.detached_keep_ms = 50;
    w->limits.idle_ms = shadow_pick(w, 2) ? 200 : 0;
    if (shadow_pick(w, 2)) {
        w->limits.reservation_count = 1;
        snprintf(w->limits.reservations[0].subject, GUARD_SUBJECT_BYTES, "bob");
        w->limits.reservations[0].sessions = 1 + shadow_pick(w, w->limits.sessions_max);
    }
    SHADOW_CHECK(worker_table_new(&w->t, &w->limits, &err) == MCP_OK);
}

static inline void shadow_step(struct shadow *w)
{
    w->now_ms += shadow_pick(w, 4) ? shadow_pick(w, 4) : shadow_pick(w, 100);
    switch (shadow_pick(w, 32)) {
    case 0:
    case 1:
    case 2:
    case 3: shadow_open(w); break;
    case 4: shadow_leave(w, shadow_pick(w, 2)); break;
    case 5:
    case 6: shadow_trim(w); break;
    case 7:
        shadow_tick_model(w);
        worker_table_tick(w->t, w->now_ms);
        break;
    case 8:
        if (shadow_pick(w, 64) == 0) {
            worker_table_drain(w->t);
            w->drained = true;
        }
        break;
    default:
        if (shadow_pick(w, 2))
            shadow_push(w);
        else if (w->running)
            shadow_done(w);
        else
            shadow_next(w);
        break;
    }
    shadow_take_acts(w);
    shadow_compare(w);
}

/* End everything: every work must be ours again. */
static inline void shadow_fini(struct shadow *w)
{
    for (uint32_t i = 0; i < SHADOW_SESSIONS; i++) {
        if (!w->sessions[i].live)
            continue;
        worker_table_close(w->t, w->now_ms, w->sessions[i].s);
        shadow_end(&w->sessions[i]);
    }
    shadow_take_acts(w);
    while (w->running)
        shadow_done(w);
    shadow_take_acts(w);
    shadow_compare(w);
    for (uint32_t i = 0; i < SHADOW_WORKS; i++)
        SHADOW_CHECK(w->works[i].state == SHADOW_OURS);
    worker_table_free(w->t);
}

#endif
