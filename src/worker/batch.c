/* worker/batch.c - which windows run next.
 *
 * A batch is made in three steps:
 *
 *   1. Survey every ready session: what may run, and who is first in each of four queues,
 *
 *                      decode       prefill
 *          front       D            P           realtime and normal sessions
 *          back        d            p           batch sessions
 *
 *      each of them ordered by virtual time (start-time fair queueing; a queue has its own
 *      clock, because what runs in one takes no room from the other).
 *   2. Choose the lane, and its leader (turn.c), whose layers and kind of result the batch has.
 *   3. Fill up with windows of the leader's kind: the lane's decodes, decodes of the back lane
 *      that ride along in front, then the lane's prefill.  What guesses get is settled before.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/table_private.h"

#include <assert.h>
#include <stdlib.h>

enum {
    /* A session that decodes sends its next window a round trip after the answer, or when the
     * other stages have run: in about the time that passed before the last one.  It is expected
     * for twice as long, for 100 ms at least; one that comes more seldom is not waited for. */
    EXPECTED_MS_MIN = 100,
    EXPECTED_MS_MAX = 2000,
};

struct table_candidate {
    struct worker_session *session;
    double                 tag, came_ms;
    uint8_t                step; /* of filling: decodes first */
    uint8_t                rank; /* realtime before normal */
};

/* A batch in the making. */
struct filling {
    struct worker_table *t;
    struct worker_batch *batch;
    enum table_lane      lane;
    uint32_t             room;         /* positions */
    uint32_t             prefill_room; /* of those, for prefill */
    uint32_t             rider_room;   /* of those, for the back lane's decodes in front */
    uint32_t             guesses;      /* most in a window */
    double               now_ms;
};

bool table_batch_init(struct worker_table *t)
{
    t->candidates = calloc(t->limits.sessions_max, sizeof(*t->candidates));
    return t->candidates != NULL;
}

void table_batch_fini(struct worker_table *t)
{
    free(t->candidates);
}

/* ---- order ---------------------------------------------------------------------------- */

static struct table_candidate candidate_of(const struct worker_table *t, struct worker_session *s)
{
    static const uint8_t ranks[TABLE_CLASSES] = {
        [WIRE_QOS_REALTIME] = 0, [WIRE_QOS_NORMAL] = 1, [WIRE_QOS_BATCH] = 2
    };
    static const uint8_t steps[TABLE_LANES][TABLE_FLOWS] = {
        [TABLE_FRONT] = { [TABLE_DECODE] = 0, [TABLE_PREFILL] = 2 },
        [TABLE_BACK] = { [TABLE_DECODE] = 1, [TABLE_PREFILL] = 3 },
    };
    enum table_flow flow = table_flow_of(t, s);

    return (struct table_candidate){ .session = s,
                                     .tag = s->tag[flow],
                                     .came_ms = s->head->came_ms,
                                     .step = steps[table_lane_of(s)][flow],
                                     .rank = ranks[s->info.qos] };
}

static bool goes_before(const struct table_candidate *a, const struct table_candidate *b)
{
    if (a->step != b->step)
        return a->step < b->step;
    if (a->tag != b->tag)
        return a->tag < b->tag;
    if (a->rank != b->rank)
        return a->rank < b->rank;
    if (a->came_ms != b->came_ms)
        return a->came_ms < b->came_ms;
    return a->session->order < b->session->order;
}

static void sift_down(struct table_candidate *heap, uint32_t count, uint32_t at)
{
    struct table_candidate moved = heap[at];

    for (uint32_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && goes_before(&heap[child + 1], &heap[child]))
            child++;
        if (!goes_before(&heap[child], &moved))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

/* ---- 1. survey ------------------------------------------------------------------------ */

static void note_first(const struct worker_table *t, struct table_survey *survey,
                       struct worker_session *s)
{
    struct worker_session **first = &survey->first[table_lane_of(s)][table_flow_of(t, s)];
    struct table_candidate  other, own = candidate_of(t, s);

    if (*first != NULL)
        other = candidate_of(t, *first);
    if (*first == NULL || goes_before(&own, &other))
        *first = s;
}

/* A queue's clock is the smallest virtual time in it, and never goes back. */
static void advance_clocks(struct worker_table *t, const struct table_survey *survey)
{
    for (int lane = 0; lane < TABLE_LANES; lane++)
        for (int flow = 0; flow < TABLE_FLOWS; flow++) {
            const struct worker_session *s = survey->first[lane][flow];

            if (s != NULL && s->tag[flow] > t->clock[lane][flow])
                t->clock[lane][flow] = s->tag[flow];
        }
}

static struct table_survey look(struct worker_table *t, double now_ms)
{
    struct table_survey survey = { 0 };

    for (uint32_t i = t->ready_count; i-- > 0;) { /* downwards: an expired one leaves */
        struct worker_session *s = t->ready[i];
        enum table_flow        flow;
        double                *tag, clock;

        table_queue_expire(t, s, now_ms);
        s->runnable = s->head != NULL && s->running == NULL && s->info.slot != TABLE_NONE &&
                      table_rate_allows(s, now_ms, &survey.wake_ms);
        if (!s->runnable)
            continue;
        flow = table_flow_of(t, s);
        tag = &s->tag[flow];
        clock = t->clock[table_lane_of(s)][flow];
        *tag = *tag > clock ? *tag : clock; /* was idle: has saved up nothing */
        note_first(t, &survey, s);
        survey.any = true;
        survey.about[s->info.qos] = true;
        survey.decode_near |= flow == TABLE_DECODE;
    }
    for (int qos = 0; qos < TABLE_CLASSES; qos++) {
        bool expected = now_ms < t->expected_ms[qos];

        survey.decode_near |= expected;
        survey.about[qos] |= expected;
    }
    survey.front = survey.about[WIRE_QOS_NORMAL] || survey.about[WIRE_QOS_REALTIME];
    advance_clocks(t, &survey);
    return survey;
}

/* Nothing can run: when does that, or a session, change without an event? */
static double wake_of(const struct worker_table *t, double wake_ms)
{
    for (uint32_t i = 0; i < t->live_count; i++) {
        const double times[] = { t->live[i]->deadline_ms, table_session_expires_ms(t, t->live[i]) };

        for (int j = 0; j < 2; j++)
            if (times[j] > 0 && (wake_ms <= 0 || times[j] < wake_ms))
                wake_ms = times[j];
    }
    return wake_ms;
}

/* ---- 2. filling ----------------------------------------------------------------------- */

/* Of `left` positions so many that neither they nor the rest are fewer than a piece. */
static uint32_t piece_of(uint32_t left, uint32_t room)
{
    uint32_t take = room / TABLE_PIECE_TOKENS * TABLE_PIECE_TOKENS;

    if (left <= room)
        return left;
    if (take > 0 && left - take < TABLE_PIECE_TOKENS)
        take -= TABLE_PIECE_TOKENS;
    return take;
}

static bool rides(const struct filling *f, const struct worker_session *s)
{
    return f->lane == TABLE_FRONT && table_lane_of(s) == TABLE_BACK;
}

/* How many guesses of the head are to be left out. */
static uint32_t cuts(const struct filling *f, const struct worker_session *s)
{
    uint32_t spare = table_queue_spare(s), needed = s->head->count - spare, keep = f->guesses;

    if (rides(f, s))
        keep = 0;
    keep = table_smaller(keep, f->room > needed ? f->room - needed : 0);
    return spare - table_smaller(spare, keep);
}

/* How many positions of the head fit. */
static uint32_t fits(const struct filling *f, const struct worker_session *s)
{
    const struct worker_work *work = s->head;
    uint32_t                  left = work->count - work->done - cuts(f, s), room = f->room;

    if (rides(f, s))
        room = table_smaller(room, f->rider_room);
    if (!table_is_decode(f->t, work))
        room = table_smaller(room, f->prefill_room);
    if (f->lane == TABLE_BACK && f->t->limits.even && work->count < TABLE_PIECE_TOKENS)
        return table_smaller(left, room);
    if (table_is_decode(f->t, work))
        return left <= room ? left : 0;
    return piece_of(left, room);
}

static void take(struct filling *f, struct worker_session *s, uint32_t count)
{
    struct worker_table *t = f->t;
    struct worker_item  *item = &f->batch->items[f->batch->count++];
    enum table_flow      flow = table_flow_of(t, s);
    uint32_t             cost = s->head->exclusive ? TABLE_TURN_TOKENS : count, cut = cuts(f, s);

    if (cut > 0)
        table_queue_shorten(t, s, cut);

    item->session = s;
    item->slot = s->info.slot;
    item->offset = s->head->done;
    item->pos = s->head->pos + s->head->done;
    item->count = count;
    item->trim_to = s->trim_to;
    item->work = table_queue_issue(t, s, count);
    item->last = s->running_last;
    f->batch->tokens += count;

    s->tag[flow] += (double)cost / t->limits.weight[s->info.qos];
    s->active_ms = f->now_ms;
    s->left_out = false;
    table_rate_charge(s, count);
    f->room -= table_smaller(f->room, count);
    if (flow == TABLE_PREFILL)
        f->prefill_room -= table_smaller(f->prefill_room, count);
    if (rides(f, s)) {
        f->rider_room -= count;
        t->riders += count;
    }
}

static struct filling begin_batch(struct worker_table *t, double now_ms,
                                  const struct table_survey *survey, struct worker_batch *batch,
                                  const struct worker_session *leader)
{
    enum table_lane lane = table_lane_of(leader);

    *batch = (struct worker_batch){ .first = leader->info.first,
                                    .last = leader->info.last,
                                    .slice_first = leader->info.first,
                                    .slice_last = leader->info.last,
                                    .back = lane == TABLE_BACK,
                                    .logits = leader->head->logits,
                                    .exclusive = leader->head->exclusive,
                                    .items = t->items[lane],
                                    .clears = t->clears[lane] };
    t->riders = lane == TABLE_FRONT ? 0 : t->riders;
    return (struct filling){ .t = t,
                             .batch = batch,
                             .lane = lane,
                             .room = lane == TABLE_FRONT ? t->limits.batch_tokens
                                                         : table_turn_back_room(t, survey),
                             .prefill_room = table_prefill_room(t, survey),
                             .now_ms = now_ms };
}

/* May it run in this batch, if there is room? */
static bool belongs(const struct filling *f, const struct worker_session *s)
{
    if (!s->runnable || s->running != NULL || s->head->exclusive ||
        s->head->logits != f->batch->logits || s->info.first != f->batch->first ||
        s->info.last != f->batch->last)
        return false;
    return table_lane_of(s) == f->lane || (rides(f, s) && table_is_decode(f->t, s->head));
}

/* Most guesses in a window of the batch that `leader` will lead. */
static uint32_t guesses_of(const struct filling *f, const struct worker_session *leader)
{
    const struct worker_table *t = f->t;
    uint32_t                   decodes = 0, prefill = 0, guessing = 0;

    for (uint32_t i = 0; i < t->ready_count; i++) {
        const struct worker_session *s = t->ready[i];
        const struct worker_work    *work = s->head;
        uint32_t                     spare;

        if (!belongs(f, s))
            continue;
        spare = table_queue_spare(s);
        *(table_is_decode(t, work) ? &decodes : &prefill) += work->count - work->done - spare;
        guessing += spare > 0;
    }
    if (guessing == 0 || table_spare_alone(t, leader, f->now_ms))
        return UINT32_MAX;
    decodes += table_smaller(prefill, f->prefill_room);
    return table_spare_room(t, table_smaller(decodes, f->room), f->room) / guessing;
}

static void fill_up(struct filling *f, const struct table_survey *survey)
{
    struct worker_table    *t = f->t;
    struct table_candidate *heap = t->candidates;
    uint32_t                count = 0, front = f->batch->tokens;

    for (uint32_t i = 0; i < t->ready_count; i++) {
        struct worker_session *s = t->ready[i];

        if (!belongs(f, s))
            continue;
        heap[count++] = candidate_of(t, s);
        if (!rides(f, s) && table_is_decode(t, s->head))
            front += s->head->count;
    }
    if (f->lane == TABLE_FRONT)
        f->rider_room = table_turn_riders(t, survey, front);
    for (uint32_t i = count / 2; i-- > 0;)
        sift_down(heap, count, i);
    /* Issuing changes t->ready, not the heap. */
    while (count > 0 && f->room > 0) {
        struct worker_session *s = heap[0].session;
        uint32_t               positions = fits(f, s);

        if (positions > 0)
            take(f, s, positions);
        heap[0] = heap[--count];
        if (count > 0)
            sift_down(heap, count, 0);
    }
}

static void gather_clears(struct worker_table *t, struct worker_batch *batch)
{
    for (uint32_t i = 0; t->dirty_count > 0 && i < t->limits.sessions_max; i++) {
        if (!t->slot_dirty[i])
            continue;
        t->slot_dirty[i] = false;
        t->dirty_count--;
        batch->clears[batch->clear_count++] = i;
    }
}

static void make_batch(struct worker_table *t, double now_ms, const struct table_survey *survey,
                       enum table_lane lane, struct worker_batch *batch)
{
    struct worker_session *leader = table_turn_leader(t, survey, lane);
    struct filling         f = begin_batch(t, now_ms, survey, batch, leader);
    uint32_t               positions;

    if (batch->exclusive) {
        take(&f, leader, 0);
    } else {
        f.guesses = guesses_of(&f, leader);
        /* Something has to run, be the room too small for it. */
        positions = fits(&f, leader);
        take(&f, leader, positions > 0 ? positions : table_least_of(t, leader) - cuts(&f, leader));
        fill_up(&f, survey);
    }
    if (batch->back)
        t->layer_ms = 0;
    if (batch->back && !batch->exclusive)
        batch->slice_last = batch->first + table_turn_slice(t, survey, batch);
    table_turn_note_batch(t, survey, leader);
    gather_clears(t, batch);
    t->running[lane] = true;
}

/* ---- the calls ------------------------------------------------------------------------ */

bool worker_table_next(struct worker_table *t, double now_ms, struct worker_batch *batch,
                       double *wake_ms)
{
    struct table_survey survey;

    assert(!t->running[TABLE_FRONT] && !t->running[TABLE_BACK]);
    *wake_ms = 0;
    table_note_time(t, now_ms);
    survey = look(t, now_ms);
    if (!survey.any) {
        worker_table_tick(t, now_ms); /* else what is over now would wake us for nothing */
        *wake_ms = wake_of(t, survey.wake_ms);
        return false;
    }
    make_batch(t, now_ms, &survey, table_turn_lane(t, &survey), batch);
    return true;
}

void worker_table_sliced(struct worker_table *t, double now_ms, struct worker_batch *batch,
                         double compute_ms)
{
    assert(t->running[TABLE_BACK] && batch->back && batch->slice_last < batch->last);
    table_note_time(t, now_ms);
    table_turn_charge_slice(t, batch, compute_ms);
    t->stats.compute_ms += compute_ms;
    batch->slice_first = batch->slice_last;
}

bool worker_table_urgent(struct worker_table *t, double now_ms, struct worker_batch *paused,
                         struct worker_batch *urgent)
{
    struct table_survey survey;

    assert(t->running[TABLE_BACK] && !t->running[TABLE_FRONT] && paused->back);
    table_note_time(t, now_ms);
    survey = look(t, now_ms);
    if (table_turn_lane(t, &survey) == TABLE_FRONT) {
        make_batch(t, now_ms, &survey, TABLE_FRONT, urgent);
        return true;
    }
    table_turn_note_slice(t, &survey);
    paused->slice_last = paused->slice_first + table_turn_slice(t, &survey, paused);
    return false;
}

bool worker_item_void(const struct worker_table *t, const struct worker_item *item)
{
    (void)t;
    assert(item->session->running == item->work);
    return item->session->running_void;
}

static void note_decode(struct worker_table *t, struct worker_session *s, double now_ms)
{
    double twice_ms = 2 * (now_ms - s->decoded_ms);
    double until_ms = now_ms + EXPECTED_MS_MIN;

    if (twice_ms > EXPECTED_MS_MIN && twice_ms < EXPECTED_MS_MAX)
        until_ms = now_ms + twice_ms;
    if (until_ms > t->expected_ms[s->info.qos])
        t->expected_ms[s->info.qos] = until_ms;
    s->decoded_ms = now_ms;
    s->expected_ms = until_ms;
}

void worker_table_done(struct worker_table *t, double now_ms, struct worker_batch *batch,
                       double compute_ms)
{
    enum table_lane lane = batch->back ? TABLE_BACK : TABLE_FRONT;

    assert(t->running[lane] && batch->items == t->items[lane]);
    table_note_time(t, now_ms);
    t->running[lane] = false;
    table_turn_charge_rest(t, batch, compute_ms);
    for (uint32_t i = 0; i < batch->count; i++) {
        struct worker_item    *item = &batch->items[i];
        struct worker_session *s = item->session;

        if (table_is_decode(t, item->work) && !s->closed)
            note_decode(t, s, now_ms);
        s->active_ms = now_ms;
        table_queue_return(t, s, item->count);
        if (s->closed)
            table_session_release(t, s);
    }
    t->stats.batches++;
    t->stats.batch_tokens += batch->tokens;
    t->stats.compute_ms += compute_ms;
    table_note_speed(t, batch->tokens);
}
