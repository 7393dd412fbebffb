/* worker/queue.c - the windows of one session: queued, begun, dropped, given back.
 *
 * A window leaves through exactly one of two doors: drop(), from where an act gives it back,
 * or table_queue_return() with its last piece, when the batch gives it back.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/table_private.h"

#include "base/fail.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>

/* ---- the list ------------------------------------------------------------------------- */

/* A session is among the ready ones as long as a window of it waits. */
static void mark_ready(struct worker_table *t, struct worker_session *s)
{
    bool listed = s->ready_index != TABLE_NONE;

    if ((s->head != NULL) == listed)
        return;
    if (listed) {
        struct worker_session *moved = t->ready[--t->ready_count];

        t->ready[s->ready_index] = moved;
        moved->ready_index = s->ready_index;
        s->ready_index = TABLE_NONE;
    } else {
        s->ready_index = t->ready_count;
        t->ready[t->ready_count++] = s;
    }
}

static void note_deadline(struct worker_session *s, const struct worker_work *work)
{
    if (work->deadline_ms > 0 && (s->deadline_ms <= 0 || work->deadline_ms < s->deadline_ms))
        s->deadline_ms = work->deadline_ms;
}

/* After windows have left: at most windows_max to look at, and only if one of those was first. */
static void find_deadline(struct worker_session *s)
{
    s->deadline_ms = 0;
    for (const struct worker_work *work = s->head; work != NULL; work = work->next)
        note_deadline(s, work);
}

/* Does anything but exclusive work wait from `work` on? */
static bool continued(const struct worker_work *work)
{
    while (work != NULL && work->exclusive)
        work = work->next;
    return work != NULL;
}

/* Where the next window has to begin. */
static uint32_t queue_end(const struct worker_session *s)
{
    uint32_t end = s->info.length;

    if (s->running != NULL && !s->running_void && !s->running->exclusive)
        end = s->running->pos + s->running->count;
    for (const struct worker_work *work = s->head; work != NULL; work = work->next)
        if (!work->exclusive)
            end = work->pos + work->count;
    return end;
}

/* The window is the caller's again. */
static void release(struct worker_table *t, struct worker_session *s,
                    const struct worker_work *work)
{
    s->info.queued_windows--;
    s->queued_bytes -= work->bytes;
    t->stats.queued_windows--;
    t->stats.queued_bytes -= work->bytes;
    t->stats.queued_tokens -= work->count - work->done;
}

static void note_dropped(struct worker_table *t, struct worker_session *s, struct worker_work *work,
                         bool expired)
{
    work->stream = s->info.stream;
    work->expired = expired;
    work->next = NULL;
    if (t->dropped == NULL)
        t->dropped = work;
    else
        t->dropped_tail->next = work;
    t->dropped_tail = work;
    t->stats.windows_dropped++;
    t->stats.deadlines_missed += expired;
}

static void drop(struct worker_table *t, struct worker_session *s, struct worker_work *work,
                 bool expired)
{
    release(t, s, work);
    note_dropped(t, s, work, expired);
}

/* Drop the windows behind `before` (NULL: all that wait). */
static void drop_behind(struct worker_table *t, struct worker_session *s,
                        struct worker_work *before, double now_ms)
{
    struct worker_work *work = before != NULL ? before->next : s->head;

    if (before != NULL)
        before->next = NULL;
    else
        s->head = NULL;
    s->tail = before;
    while (work != NULL) {
        struct worker_work *next = work->next;

        if (work->done > 0) /* only a head can have begun: its pieces are taken back */
            s->trim_to = work->pos;
        drop(t, s, work, work->deadline_ms > 0 && work->deadline_ms <= now_ms);
        work = next;
    }
    find_deadline(s);
    mark_ready(t, s);
}

/* ---- events --------------------------------------------------------------------------- */

static int check_window(const struct worker_table *t, const struct worker_session *s,
                        const struct worker_work *work, mcp_error *err)
{
    if (work->epoch > s->info.epoch)
        return base_fail(err, MCP_EINVAL,
                         "window %" PRIu64 " is of epoch %u, the session is in epoch %u: a Trim "
                         "is missing",
                         work->number, work->epoch, s->info.epoch);
    if (work->exclusive)
        return MCP_OK;
    if (work->count == 0)
        return base_fail(err, MCP_EINVAL, "window %" PRIu64 " has no position", work->number);
    if (work->count > t->limits.batch_tokens)
        return base_fail(err, MCP_ERANGE,
                         "window %" PRIu64 " has %u positions, at most %u (batch_tokens)",
                         work->number, work->count, t->limits.batch_tokens);
    if (work->pos != s->info.queued_pos)
        return base_fail(err, MCP_ERANGE,
                         "window %" PRIu64 " begins at position %u, the session goes on at %u",
                         work->number, work->pos, s->info.queued_pos);
    if (work->count > s->info.ctx_tokens - work->pos)
        return base_fail(err, MCP_ERANGE,
                         "window %" PRIu64 " ends at position %" PRIu64
                         ", the session has %u (ctx_tokens of Open)",
                         work->number, (uint64_t)work->pos + work->count, s->info.ctx_tokens);
    return MCP_OK;
}

static int check_room(const struct worker_table *t, const struct worker_session *s,
                      const struct worker_work *work, mcp_error *err)
{
    const struct worker_limits *l = &t->limits;
    /* A window that runs although a Trim has made it void: its client knows nothing of it. */
    bool     idle = s->running != NULL && s->running_void;
    uint32_t windows = s->info.queued_windows - (idle ? 1 : 0);
    uint64_t bytes = s->queued_bytes - (idle ? s->running->bytes : 0);

    if (windows >= l->windows_max)
        return base_fail(err, MCP_EBUSY, "%u windows wait, at most %u a session (windows_max)",
                         windows, l->windows_max);
    if (work->bytes > l->queue_bytes_max - bytes)
        return base_fail(err, MCP_EBUSY,
                         "window %" PRIu64 " of %" PRIu64 " bytes behind %" PRIu64
                         ", at most %" PRIu64 " a session (queue_bytes_max)",
                         work->number, work->bytes, bytes, l->queue_bytes_max);
    if (work->bytes > l->queue_bytes_all - t->stats.queued_bytes)
        return base_fail(err, MCP_EBUSY,
                         "window %" PRIu64 " of %" PRIu64 " bytes behind %" PRIu64
                         " of all sessions, at most %" PRIu64 " (queue_bytes_all)",
                         work->number, work->bytes, t->stats.queued_bytes, l->queue_bytes_all);
    return MCP_OK;
}

int worker_table_push(struct worker_table *t, double now_ms, struct worker_session *s,
                      struct worker_work *work, mcp_error *err)
{
    int rc;

    assert(!s->closed && (!work->exclusive || work->count == 0));
    assert(work->spare == 0 || work->spare < work->count);
    table_note_time(t, now_ms);
    s->active_ms = now_ms;
    if (work->epoch < s->info.epoch) {
        note_dropped(t, s, work, false);
        return MCP_OK;
    }
    rc = check_window(t, s, work, err);
    if (rc == MCP_OK)
        rc = check_room(t, s, work, err);
    if (rc < 0)
        return rc;

    work->came_ms = now_ms;
    work->done = 0;
    work->unkept = 0;
    work->next = NULL;
    if (s->head == NULL)
        s->head = work;
    else
        s->tail->next = work;
    s->tail = work;
    if (!work->exclusive)
        s->info.queued_pos = work->pos + work->count;
    s->info.queued_windows++;
    s->queued_bytes += work->bytes;
    t->stats.queued_windows++;
    t->stats.queued_bytes += work->bytes;
    t->stats.queued_tokens += work->count;
    note_deadline(s, work);
    mark_ready(t, s);
    return MCP_OK;
}

int worker_table_trim(struct worker_table *t, double now_ms, struct worker_session *s,
                      uint32_t epoch, uint32_t pos, mcp_error *err)
{
    uint32_t length = s->info.length;

    assert(!s->closed);
    table_note_time(t, now_ms);
    s->active_ms = now_ms;
    if (s->running != NULL && s->running_last && !s->running_void && !s->running->exclusive)
        length = s->held;
    if (epoch <= s->info.epoch)
        return base_fail(err, MCP_EINVAL, "Trim to epoch %u, the session is in epoch %u already",
                         epoch, s->info.epoch);
    if (pos > length)
        return base_fail(err, MCP_ERANGE, "Trim to position %u, the session has %u", pos, length);
    s->info.epoch = epoch;
    table_queue_rewind(t, s, pos);
    return MCP_OK;
}

void worker_table_set_length(struct worker_table *t, struct worker_session *s, uint32_t length)
{
    /* Voided meanwhile: what was agreed then holds, as far as there are positions. */
    bool     voided = s->running != NULL && s->running_void;
    uint32_t kept = voided && s->info.length < length ? s->info.length : length;

    assert(length <= t->limits.ctx_tokens);
    s->info.length = kept;
    s->held = length;
    s->trim_to = kept < length ? kept : TABLE_NONE;
    for (const struct worker_work *work = s->head; work != NULL; work = work->next) {
        if (work->exclusive)
            continue;
        if (work->pos != kept) /* was queued without waiting for the import */
            drop_behind(t, s, NULL, 0);
        break;
    }
    s->info.queued_pos = queue_end(s);
}

void worker_table_keep(struct worker_table *t, const struct worker_item *item, uint32_t count)
{
    struct worker_session *s = item->session;
    struct worker_work    *work = item->work;

    assert(s->running == work && item->last && !work->exclusive);
    assert(count > 0 && count <= work->count);
    if (s->running_void || count == work->count)
        return;
    work->unkept = work->count - count;
    table_rate_refund(s, work->unkept);
    if (continued(s->head))
        drop_behind(t, s, NULL, 0);
    s->trim_to = work->pos + count;
    s->info.queued_pos = work->pos + count;
}

void table_queue_rewind(struct worker_table *t, struct worker_session *s, uint32_t pos)
{
    drop_behind(t, s, NULL, 0);
    if (s->running != NULL)
        s->running_void = true;
    s->info.length = pos;
    s->info.queued_pos = pos;
    if (pos < s->held)
        s->trim_to = pos;
}

void table_queue_expire(struct worker_table *t, struct worker_session *s, double now_ms)
{
    struct worker_work *before = NULL, *work = s->head;

    if (s->deadline_ms <= 0 || s->deadline_ms > now_ms)
        return;
    while (work->deadline_ms <= 0 || work->deadline_ms > now_ms) {
        before = work;
        work = work->next;
    }
    drop_behind(t, s, before, now_ms);
    s->info.queued_pos = queue_end(s);
}

/* ---- on behalf of batches ------------------------------------------------------------- */

uint32_t table_queue_spare(const struct worker_session *s)
{
    const struct worker_work *work = s->head;
    bool                      whole = work->done == 0 && work->count <= TABLE_UNCUT_TOKENS_MAX;

    return whole && !continued(work->next) ? work->spare : 0;
}

void table_queue_shorten(struct worker_table *t, struct worker_session *s, uint32_t count)
{
    struct worker_work *work = s->head;

    assert(count <= table_queue_spare(s));
    work->count -= count;
    work->spare -= count;
    s->info.queued_pos -= count;
    t->stats.queued_tokens -= count;
}

struct worker_work *table_queue_issue(struct worker_table *t, struct worker_session *s,
                                      uint32_t count)
{
    struct worker_work *work = s->head;

    s->head = work->next;
    if (s->head == NULL)
        s->tail = NULL;
    s->running = work;
    s->running_last = work->done + count == work->count;
    s->running_void = false;
    s->touched = true;
    if (!work->exclusive)
        s->held = work->pos + work->done + count;
    s->trim_to = TABLE_NONE;
    if (work->deadline_ms > 0)
        find_deadline(s);
    mark_ready(t, s);
    return work;
}

void table_queue_return(struct worker_table *t, struct worker_session *s, uint32_t count)
{
    struct worker_work *work = s->running;

    s->running = NULL;
    work->done += count;
    t->stats.queued_tokens -= count;
    if (s->running_last) {
        release(t, s, work);
        if (s->running_void) {
            t->stats.windows_dropped++;
            return;
        }
        t->stats.windows_run++;
        if (!work->exclusive)
            s->info.length = work->pos + work->count - work->unkept;
    } else if (s->running_void) {
        drop(t, s, work, false);
    } else {
        work->next = s->head;
        s->head = work;
        if (s->tail == NULL)
            s->tail = work;
        note_deadline(s, work);
        mark_ready(t, s);
    }
}
