/* pipe/stage_state.c - see stage_state.h.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/stage_state.h"

#include "base/fail.h"

#include <assert.h>

/* ---- who is there ----------------------------------------------------------------------- */

struct pipe_endpoint *pipe_stage_in_role(struct pipe_stage_state *s, enum pipe_role role)
{
    for (int i = 0; i < 2; i++)
        if (s->slots[i].role == role)
            return &s->slots[i];
    return NULL;
}

struct pipe_endpoint *pipe_stage_by_id(struct pipe_stage_state *s, uint32_t id)
{
    for (int i = 0; i < 2; i++)
        if (s->slots[i].role != PIPE_ROLE_FREE && s->slots[i].role != PIPE_ROLE_CLOSING &&
            s->slots[i].id == id)
            return &s->slots[i];
    return NULL;
}

void pipe_stage_fini(struct pipe_stage_state *s)
{
    pipe_endpoint_fini(&s->slots[0]);
    pipe_endpoint_fini(&s->slots[1]);
    pipe_journal_fini(&s->journal);
}

static void let_go(struct pipe_endpoint *e, bool close)
{
    uint32_t id = e->id;

    pipe_endpoint_fini(e);
    if (close) {
        e->role = PIPE_ROLE_CLOSING;
        e->id = id;
    }
}

/* ---- windows ------------------------------------------------------------------------------ */

int pipe_stage_append(struct pipe_stage_state *s, double now_ms, const struct pipe_entry *entry)
{
    int rc = pipe_journal_push(&s->journal, entry);

    if (rc == MCP_OK && s->outage && s->outage_ms == 0.0)
        s->outage_ms = now_ms;
    return rc;
}

void pipe_stage_trim(struct pipe_stage_state *s, uint32_t pos)
{
    pipe_journal_trim(&s->journal, pos);
    for (int i = 0; i < 2; i++)
        pipe_endpoint_rewind(&s->slots[i], s->journal.last);
    if (s->answered >= s->journal.last) {
        s->answered = s->journal.last;
        s->outage_ms = 0.0; /* no window waits any more */
    }
    if (s->legacy.held > pos)
        s->legacy.held = pos;
}

static void count_answer(struct pipe_stage_state *s, double now_ms, const struct pipe_entry *entry,
                         const struct pipe_send *send)
{
    s->stats.windows++;
    s->stats.positions += entry->count;
    s->stats.elapsed_ms += now_ms - send->sent_ms;
    s->stats.queue_ms += send->timing.queue_us / 1e3;
    s->stats.compute_ms += send->timing.compute_us / 1e3;
    if (s->outage_ms > 0.0 && now_ms - s->outage_ms > s->stats.outage_ms_max)
        s->stats.outage_ms_max = now_ms - s->outage_ms;
    s->outage = false;
    s->outage_ms = 0.0;
}

/* The endpoint's oldest sending, if it is the answer that comes next.  Replays that were
 * answered are let go on the way. */
static struct pipe_send *next_answer(const struct pipe_stage_state *s, struct pipe_endpoint *e)
{
    struct pipe_send *front = pipe_endpoint_front(e);

    while (front != NULL && front->done && !front->live) {
        pipe_endpoint_pop(e);
        front = pipe_endpoint_front(e);
    }
    if (front == NULL || front->is_void || !front->done || front->first != s->answered)
        return NULL;
    return front;
}

bool pipe_stage_take(struct pipe_stage_state *s, double now_ms, struct pipe_entry *entry,
                     struct pipe_block **rows)
{
    for (int i = 0; i < 2; i++) {
        struct pipe_send *send = next_answer(s, &s->slots[i]);

        if (send == NULL)
            continue;
        *entry = *pipe_journal_at(&s->journal, s->answered);
        entry->block = NULL;
        *rows = send->answer;
        send->answer = NULL;
        count_answer(s, now_ms, entry, send);
        pipe_endpoint_pop(&s->slots[i]);
        s->answered++;
        if (!s->keep)
            pipe_journal_drop(&s->journal, s->answered);
        return true;
    }
    return false;
}

/* ---- endpoints come and go ------------------------------------------------------------------ */

static void ask(struct pipe_stage_state *s, uint32_t lost, struct pipe_legacy legacy)
{
    if (s->open != PIPE_OPEN_NOT)
        return;
    s->open = PIPE_OPEN_WANTED;
    s->lost = lost;
    s->legacy = legacy;
}

void pipe_stage_ask(struct pipe_stage_state *s)
{
    if (pipe_stage_in_role(s, PIPE_ROLE_ACTIVE) == NULL)
        ask(s, s->lost, s->legacy);
}

/* How far the journal may rely on what a resumed session says that it holds. */
static uint32_t length_held(const struct pipe_stage_state *s, const struct pipe_opened *opened)
{
    uint32_t length = opened->length;

    if (length > s->legacy.held)
        length = s->legacy.held;
    if (opened->epoch < s->legacy.trim_epoch && length > s->legacy.trim_pos)
        length = s->legacy.trim_pos;
    return length;
}

/* Windows that want no rows and have run where the session is resumed need not run again. */
static void take_as_answered(struct pipe_stage_state *s, double now_ms, struct pipe_endpoint *e,
                             uint32_t length)
{
    uint64_t i = s->answered;

    for (; s->final && i < s->journal.last && e->send_count < PIPE_WINDOWS_MAX; i++) {
        struct pipe_send *send;

        if (pipe_journal_at(&s->journal, i)->want != PIPE_WANT_NONE ||
            pipe_journal_pos(&s->journal, i + 1) > length)
            break;
        send = pipe_endpoint_push(e);
        *send = (struct pipe_send){
            .first = i, .last = i + 1, .live = true, .done = true, .sent_ms = now_ms
        };
    }
    e->next = i;
}

void pipe_stage_opened(struct pipe_stage_state *s, double now_ms, uint32_t id,
                       const struct pipe_opened *opened)
{
    struct pipe_endpoint *active = pipe_stage_in_role(s, PIPE_ROLE_ACTIVE);
    struct pipe_endpoint *e = pipe_stage_in_role(s, PIPE_ROLE_FREE);
    uint32_t              length = length_held(s, opened);

    assert(s->open == PIPE_OPEN_ASKED && e != NULL && id != PIPE_NO_ENDPOINT);
    *e = (struct pipe_endpoint){ .role = active == NULL ? PIPE_ROLE_ACTIVE : PIPE_ROLE_FEEDING,
                                 .id = id,
                                 .even_windows = opened->even_windows,
                                 .windows_max = opened->windows_max,
                                 .epoch = opened->epoch,
                                 .pos = opened->length };
    if (e->windows_max < 1)
        e->windows_max = 1;
    if (e->windows_max > PIPE_WINDOWS_MAX)
        e->windows_max = PIPE_WINDOWS_MAX;
    /* A resumed session may have windows queued that the lost endpoint was sent: they would run
     * before ours, unless a Trim in an epoch of its own comes first. */
    e->trim_due = s->lost != PIPE_NO_ENDPOINT || opened->length > 0;
    if (e->epoch < s->legacy.epoch)
        e->epoch = s->legacy.epoch;

    e->next = pipe_journal_find(&s->journal, length);
    if (active == NULL && e->next >= s->answered)
        take_as_answered(s, now_ms, e, length);
    else if (active != NULL && e->next > active->next)
        e->next = active->next;
    s->open = PIPE_OPEN_NOT;
    s->lost = PIPE_NO_ENDPOINT;
    s->legacy = (struct pipe_legacy){ 0 };
}

/* Who goes on where the active endpoint was lost. */
static struct pipe_endpoint *heir_of(struct pipe_stage_state *s)
{
    struct pipe_endpoint *heir = pipe_stage_in_role(s, PIPE_ROLE_FEEDING);

    return heir != NULL ? heir : pipe_stage_in_role(s, PIPE_ROLE_FINISHING);
}

bool pipe_stage_gone(struct pipe_stage_state *s, double now_ms, struct pipe_endpoint *e, bool close)
{
    struct pipe_legacy    legacy = pipe_endpoint_legacy(e, &s->journal);
    struct pipe_endpoint *heir;
    enum pipe_role        role = e->role;
    uint32_t              id = e->id;
    bool                  back = false; /* to the predecessor */

    let_go(e, close);
    s->stats.failovers++;
    if (role != PIPE_ROLE_FEEDING) {
        s->outage = true;
        if (s->answered < s->journal.last && s->outage_ms == 0.0)
            s->outage_ms = now_ms;
    }
    if (s->lost == id && s->open != PIPE_OPEN_NOT)
        s->legacy = legacy; /* it was only draining when a successor was asked for */

    heir = role == PIPE_ROLE_ACTIVE ? heir_of(s) : pipe_stage_in_role(s, PIPE_ROLE_ACTIVE);
    if (heir != NULL) {
        back = heir->role == PIPE_ROLE_FINISHING || role == PIPE_ROLE_FEEDING;
        heir->role = PIPE_ROLE_ACTIVE;
        if (!back) /* what the lost one owed is to be asked for again */
            pipe_endpoint_rewind(heir, s->answered);
    }
    if (heir == NULL || (back && heir->draining))
        ask(s, id, legacy);
    else if (heir->draining)
        pipe_stage_draining(s, heir);
    return s->keep;
}

void pipe_stage_draining(struct pipe_stage_state *s, struct pipe_endpoint *e)
{
    e->draining = true;
    if (e->role == PIPE_ROLE_ACTIVE && s->keep && heir_of(s) == NULL)
        ask(s, e->id, (struct pipe_legacy){ 0 });
}

/* Move a drain on: a successor that is level takes over, a predecessor that owes nothing is
 * closed, and a successor that drains as well gets one of its own. */
static void settle(struct pipe_stage_state *s)
{
    struct pipe_endpoint *active = pipe_stage_in_role(s, PIPE_ROLE_ACTIVE);
    struct pipe_endpoint *other = pipe_stage_in_role(s, PIPE_ROLE_FEEDING);

    /* Level: all that the active one was sent it was sent as well, and it has run as much. */
    if (other != NULL && other->next == active->next && pipe_endpoint_done(other) >= s->answered &&
        !pipe_endpoint_must_trim(other, &s->journal)) {
        other->role = PIPE_ROLE_ACTIVE;
        active->role = PIPE_ROLE_FINISHING;
        s->stats.handovers++;
    }
    other = pipe_stage_in_role(s, PIPE_ROLE_FINISHING);
    if (other != NULL && pipe_endpoint_owes(other) == 0) {
        active = pipe_stage_in_role(s, PIPE_ROLE_ACTIVE);
        let_go(other, true);
        if (active->draining)
            pipe_stage_draining(s, active);
    }
}

/* ---- acts ----------------------------------------------------------------------------------- */

bool pipe_stage_close_act(struct pipe_stage_state *s, struct pipe_act *act)
{
    struct pipe_endpoint *e;

    settle(s);
    e = pipe_stage_in_role(s, PIPE_ROLE_CLOSING);
    if (e == NULL)
        return false;
    act->kind = PIPE_ACT_CLOSE;
    act->endpoint = e->id;
    if (e->broken != NULL)
        base_fail(&act->error, MCP_EFORMAT, "endpoint %u is given up: %s", e->id, e->broken);
    e->broken = NULL;
    pipe_endpoint_fini(e);
    return true;
}

static void forward(struct pipe_stage_state *s, double now_ms, struct pipe_endpoint *e,
                    uint64_t number, struct pipe_act *act)
{
    const struct pipe_entry *entry = pipe_journal_at(&s->journal, e->next);
    struct pipe_send        *send = pipe_endpoint_push(e);

    act->kind = PIPE_ACT_FORWARD;
    act->endpoint = e->id;
    act->epoch = e->epoch;
    act->number = number;
    if (e->next < s->answered) {
        struct pipe_replay r = pipe_journal_replay(&s->journal, e->next, s->answered,
                                                   e->even_windows);

        act->pos = r.pos;
        act->count = r.count;
        act->block = r.block;
        send->last = r.last;
    } else {
        act->pos = entry->pos;
        act->count = entry->count;
        act->block = pipe_block_ref(entry->block);
        send->last = e->next + 1;
        send->live = e->role == PIPE_ROLE_ACTIVE;
    }
    if (send->live)
        act->want = s->final ? entry->want : PIPE_WANT_ALL;
    else
        s->stats.replayed_positions += act->count;
    act->bulk = !send->live || act->count > PIPE_DECODE_TOKENS;
    send->number = number;
    send->first = e->next;
    send->rows = act->want == PIPE_WANT_ALL ? act->count : act->want == PIPE_WANT_LAST;
    send->sent_ms = now_ms;
    e->next = send->last;
    e->pos = act->pos + act->count;
}

/* The next thing to ask of this endpoint, which may be sent entries before `limit`. */
static bool endpoint_act(struct pipe_stage_state *s, double now_ms, struct pipe_endpoint *e,
                         uint64_t limit, uint64_t *number, struct pipe_act *act)
{
    if (pipe_endpoint_must_trim(e, &s->journal)) {
        if (pipe_endpoint_owes(e) > 0)
            return false;
        pipe_endpoint_trim(e, &s->journal);
        act->kind = PIPE_ACT_TRIM;
        act->endpoint = e->id;
        act->epoch = e->epoch;
        act->pos = e->pos;
        return true;
    }
    if (e->next >= limit || e->send_count >= e->windows_max)
        return false;
    forward(s, now_ms, e, ++*number, act);
    return true;
}

bool pipe_stage_act(struct pipe_stage_state *s, double now_ms, uint64_t *number,
                    struct pipe_act *act)
{
    struct pipe_endpoint *active = pipe_stage_in_role(s, PIPE_ROLE_ACTIVE);
    struct pipe_endpoint *feeding = pipe_stage_in_role(s, PIPE_ROLE_FEEDING);

    if (s->open == PIPE_OPEN_WANTED) {
        s->open = PIPE_OPEN_ASKED;
        act->kind = PIPE_ACT_OPEN;
        act->lost = s->lost;
        act->lost_answers = active != NULL;
        return true;
    }
    if (active != NULL && endpoint_act(s, now_ms, active, s->journal.last, number, act))
        return true;
    return feeding != NULL && endpoint_act(s, now_ms, feeding, active->next, number, act);
}
