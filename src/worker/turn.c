/* worker/turn.c - whose turn it is.
 *
 * With the four queues of batch.c,
 *
 *                      decode       prefill
 *          front       D            P           realtime and normal sessions
 *          back        d            p           batch sessions
 *
 * Time.  The lanes share compute time, as measured: each ms of the front lane lets the back lane
 * fall behind by its weight over the weights of the front classes about, each ms of its own takes
 * that away, and it has a turn when it is behind, or the front lane has nothing to run.  Time that
 * the front lane did not want is held against the back lane for one turn at most.
 *
 * Slices.  What the back lane runs in one turn is layers of its batch, which then is paused: as
 * long as twice its share of a front forward with decodes, which is half of one by default.  A
 * decode that waits after it goes before the next one.  So a decode that takes T alone takes about
 * 1.5 T beside any number of batch sessions, and 2 T at most while a slice is not too coarse: one
 * layer of what cannot be cut, or the head, which goes with the last layer.
 *
 * Riders.  Decodes d that fit the front lane's batch ride along where that is cheap, as on a GPU:
 * as many as half of their share of the time pays for.
 *
 * Leaders.  In each lane the leader is its decode.  Prefill of other layers, exclusive work, and
 * what found no room cannot ride along: it is then left out, and leads the lane's next batch.
 * After that a decode leads again, so that none waits for two of them.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/table_private.h"

#include <math.h>
#include <stddef.h>

/* A slice while the front lane is away: whoever comes waits for it. */
static const double slice_idle_ms = 50;
/* Shorter ones would cost more to begin than they are worth. */
static const double slice_least_ms = 2;
/* Of a front forward with decodes. */
static const double slice_portion_least = 0.25;
/* One slice between two front forwards has to be more than the back lane's share, or what it is
 * behind would never be made up. */
static const double slice_shares = 2;
/* A batch of the back lane has so many slices, as far as its windows can be cut: it then holds its
 * sessions' slots for a second or so, and has few rows for the head, which is not cut. */
static const double slices_most = 6;
/* More than this the back lane is never behind: what it missed is then over. */
static const double back_due_ms_max = 1000;

uint32_t table_least_of(const struct worker_table *t, const struct worker_session *s)
{
    uint32_t left = s->head->count - s->head->done;

    if (s->head->exclusive)
        return table_smaller(TABLE_TURN_TOKENS, t->limits.batch_tokens);
    return left > TABLE_UNCUT_TOKENS_MAX ? TABLE_PIECE_TOKENS : left;
}

/* ---- shares --------------------------------------------------------------------------- */

/* Time of the back lane for each ms of the front lane. */
static double back_portion(const struct worker_table *t, const struct table_survey *survey)
{
    double front = 0;

    if (survey->about[WIRE_QOS_NORMAL])
        front += t->limits.weight[WIRE_QOS_NORMAL];
    if (survey->about[WIRE_QOS_REALTIME])
        front += t->limits.weight[WIRE_QOS_REALTIME];
    return front > 0 ? t->limits.weight[WIRE_QOS_BATCH] / front : 1;
}

static double slice_ms(const struct worker_table *t, const struct table_survey *survey)
{
    if (!survey->front || t->front_ms <= 0)
        return slice_idle_ms;
    return fmax(t->front_ms * fmax(slice_shares * back_portion(t, survey), slice_portion_least),
                slice_least_ms);
}

/* In a forward through all that this worker holds. */
static double layers_of(const struct worker_table *t)
{
    return t->limits.last - t->limits.first + t->head_layers;
}

uint32_t table_turn_back_room(const struct worker_table *t, const struct table_survey *survey)
{
    uint32_t room = t->limits.batch_tokens;

    if (!survey->front)
        return room;
    return table_smaller(
        room, worker_cost_tokens(&t->cost, layers_of(t), slices_most * slice_ms(t, survey)));
}

uint32_t table_turn_riders(const struct worker_table *t, const struct table_survey *survey,
                           uint32_t tokens)
{
    double forward_ms = worker_cost_ms(&t->cost, tokens, layers_of(t));
    double token_ms = worker_cost_token_ms(&t->cost, layers_of(t));
    double most = forward_ms * back_portion(t, survey) / 2;

    if (forward_ms <= 0)
        return 0;
    return most < token_ms * t->limits.batch_tokens ? (uint32_t)(most / token_ms)
                                                    : t->limits.batch_tokens;
}

uint32_t table_turn_slice(const struct worker_table *t, const struct table_survey *survey,
                          const struct worker_batch *batch)
{
    uint32_t layers = batch->last - batch->slice_first, fit = 1;
    double   all = batch->logits ? layers + t->head_layers : layers, most_ms = slice_ms(t, survey);
    double   layer_ms = t->layer_ms > 0 ? t->layer_ms : worker_cost_ms(&t->cost, batch->tokens, 1);

    if (layers == 1 || layer_ms * all <= most_ms)
        return layers;
    if (layer_ms < most_ms)
        fit = table_smaller(layers, (uint32_t)(most_ms / layer_ms));
    return table_smaller(fit, layers - 1); /* the head goes with one layer, if not with all */
}

/* ---- turns ---------------------------------------------------------------------------- */

static bool wants(const struct table_survey *survey, enum table_lane lane)
{
    return survey->first[lane][TABLE_DECODE] != NULL || survey->first[lane][TABLE_PREFILL] != NULL;
}

/* A session that was let in waits for a slot that only the paused batch can set free. */
static bool slot_awaited(const struct worker_table *t)
{
    for (uint32_t i = 0; t->running[TABLE_BACK] && i < t->live_count; i++)
        if (t->live[i]->info.slot == TABLE_NONE)
            return true;
    return false;
}

enum table_lane table_turn_lane(struct worker_table *t, const struct table_survey *survey)
{
    bool decode = survey->first[TABLE_FRONT][TABLE_DECODE] != NULL;

    if (!wants(survey, TABLE_BACK) && !t->running[TABLE_BACK]) {
        t->back_due_ms = fmin(t->back_due_ms, 0); /* nobody is left who missed it */
        return TABLE_FRONT;
    }
    if (!wants(survey, TABLE_FRONT))
        return TABLE_BACK;
    if (decode && (t->back_ran || t->decode_owed[TABLE_FRONT])) {
        t->decode_owed[TABLE_FRONT] = true; /* it leads: two others would be one too many */
        return TABLE_FRONT;
    }
    return t->back_due_ms > 0 || slot_awaited(t) ? TABLE_BACK : TABLE_FRONT;
}

struct worker_session *table_turn_leader(const struct worker_table *t,
                                         const struct table_survey *survey, enum table_lane lane)
{
    struct worker_session *decode = survey->first[lane][TABLE_DECODE];
    struct worker_session *prefill = survey->first[lane][TABLE_PREFILL];

    if (decode == NULL || prefill == NULL)
        return decode != NULL ? decode : prefill;
    return prefill->left_out && !t->decode_owed[lane] ? prefill : decode;
}

void table_turn_note_batch(struct worker_table *t, const struct table_survey *survey,
                           const struct worker_session *leader)
{
    enum table_lane              lane = table_lane_of(leader);
    const struct worker_session *decode = survey->first[lane][TABLE_DECODE];

    t->decode_owed[lane] = decode != NULL && decode != leader;
    for (int flow = 0; flow < TABLE_FLOWS; flow++) {
        struct worker_session *s = survey->first[lane][flow];

        if (s != NULL)
            s->left_out = s->running == NULL;
    }
    if (lane == TABLE_BACK) {
        table_turn_note_slice(t, survey);
        return;
    }
    t->back_ran = false;
    t->back_portion = wants(survey, TABLE_BACK) || t->running[TABLE_BACK] ? back_portion(t, survey)
                                                                          : 0;
}

void table_turn_note_slice(struct worker_table *t, const struct table_survey *survey)
{
    t->back_ran = true;
    t->contended = wants(survey, TABLE_FRONT);
}

/* ---- accounts ------------------------------------------------------------------------- */

static void charge_back(struct worker_table *t, double ms)
{
    double due_ms = t->back_due_ms - ms;

    if (!t->contended)
        due_ms = fmax(due_ms, fmin(t->back_due_ms, -ms));
    t->back_due_ms = due_ms;
}

static void charge_front(struct worker_table *t, const struct worker_batch *batch, double ms)
{
    double riders_ms = fmin(ms, t->riders * worker_cost_token_ms(&t->cost, layers_of(t)));
    bool   decodes = false;

    t->back_due_ms += (ms - riders_ms) * t->back_portion - riders_ms;
    t->back_due_ms = fmin(t->back_due_ms, back_due_ms_max);
    for (uint32_t i = 0; i < batch->count; i++)
        decodes = decodes || table_is_decode(t, batch->items[i].work);
    if (decodes)
        t->front_ms += t->front_ms > 0 ? (ms - t->front_ms) / 8 : ms;
}

static void charge(struct worker_table *t, const struct worker_batch *batch, double ms)
{
    if (batch->back)
        charge_back(t, ms);
    else
        charge_front(t, batch, ms);
}

void table_turn_charge_slice(struct worker_table *t, const struct worker_batch *batch, double ms)
{
    uint32_t layers = batch->slice_last - batch->slice_first;

    t->layer_ms = ms / layers;
    worker_cost_note(&t->cost, batch->tokens, layers, ms);
    charge(t, batch, ms);
}

/* What the rest of a sliced batch took longer than its layers is the head's. */
static void note_head(struct worker_table *t, uint32_t layers, double ms)
{
    double head = fmax(ms / t->layer_ms - layers, 0);

    t->head_layers += t->head_layers > 0 ? (head - t->head_layers) / 8 : head;
}

void table_turn_charge_rest(struct worker_table *t, const struct worker_batch *batch, double ms)
{
    uint32_t layers = batch->last - batch->slice_first;

    if (batch->logits && batch->slice_first > batch->first && t->layer_ms > 0)
        note_head(t, layers, ms);
    if (!batch->exclusive)
        worker_cost_note(&t->cost, batch->tokens, batch->logits ? layers + t->head_layers : layers,
                         ms);
    charge(t, batch, ms);
}
