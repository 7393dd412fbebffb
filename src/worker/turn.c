/* worker/turn.c - who leads a batch, and what batch sessions may take of it.
 *
 * With the four queues of batch.c,
 *
 *                      decode       prefill
 *          front       D            P           realtime and normal sessions
 *          back        d            p           batch sessions
 *
 * the leader is D.  Windows of other layers, exclusive work, and what found no room cannot ride
 * along: their first is then left out, and leads one of the next batches in turn.  After such a
 * batch a decode leads again, so that none waits for two of them.  Turns are shared between P and
 * the back lane by weight; within the back lane d and p alternate.
 *
 * The back lane's share of a batch, while the front lane is about, is its weight against the
 * weights of the classes about, in tokens of what a batch may have of prefill; d and p halve it.
 * What is not taken, because a window cannot be cut so small, is credit for the next batches.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/table_private.h"

#include <math.h>
#include <stddef.h>

uint32_t table_least_of(const struct worker_table *t, const struct worker_session *s)
{
    uint32_t left = s->head->count - s->head->done;

    if (s->head->exclusive)
        return table_smaller(TABLE_TURN_TOKENS, t->limits.batch_tokens);
    return left > TABLE_UNCUT_TOKENS_MAX ? TABLE_PIECE_TOKENS : left;
}

/* ---- credit --------------------------------------------------------------------------- */

/* Returns what is too much to keep: two shares are kept, so that a turn which other layers had is
 * not lost, and the longest window that cannot be cut. */
static uint32_t give(struct worker_table *t, enum table_flow flow, uint32_t share)
{
    uint32_t uncut = flow == TABLE_DECODE ? t->limits.decode_tokens : TABLE_UNCUT_TOKENS_MAX;
    uint32_t most = 2 * share + table_smaller(uncut, t->limits.batch_tokens);
    uint32_t credit = t->credit[flow] + share;

    t->credit[flow] = table_smaller(credit, most);
    return credit - t->credit[flow];
}

void table_turn_credit(struct worker_table *t, const struct table_survey *survey)
{
    bool     decode = survey->first[TABLE_BACK][TABLE_DECODE] != NULL;
    bool     prefill = survey->first[TABLE_BACK][TABLE_PREFILL] != NULL;
    uint64_t weights = t->limits.weight[WIRE_QOS_BATCH], share = table_prefill_room(t, survey);
    uint32_t half;

    if (!survey->front) { /* nobody to share with */
        t->credit[TABLE_DECODE] = t->credit[TABLE_PREFILL] = 0;
        return;
    }
    if (survey->about[WIRE_QOS_NORMAL])
        weights += t->limits.weight[WIRE_QOS_NORMAL];
    if (survey->about[WIRE_QOS_REALTIME])
        weights += t->limits.weight[WIRE_QOS_REALTIME];
    share = share * t->limits.weight[WIRE_QOS_BATCH] / weights;
    if (share < 2)
        share = 2; /* something for either, be the weight ever so small */
    half = (uint32_t)(prefill ? share / 2 : share);
    if (decode)
        share -= half - give(t, TABLE_DECODE, half);
    if (prefill)
        give(t, TABLE_PREFILL, (uint32_t)share);
}

/* ---- the leader ----------------------------------------------------------------------- */

/* The decode that leads unless another has its turn. */
static struct worker_session *first_decode(const struct table_survey *survey)
{
    struct worker_session *decode = survey->first[TABLE_FRONT][TABLE_DECODE];

    return decode == NULL && !survey->front ? survey->first[TABLE_BACK][TABLE_DECODE] : decode;
}

/* Who of the back lane was left out and has the credit to lead. */
static struct worker_session *left_out_behind(const struct worker_table   *t,
                                              const struct table_survey   *survey,
                                              const struct worker_session *decode)
{
    for (int i = 0; i < TABLE_FLOWS; i++) {
        enum table_flow        flow = (enum table_flow)((t->back_turn + i) % TABLE_FLOWS);
        struct worker_session *s = survey->first[TABLE_BACK][flow];

        if (s != NULL && s != decode && s->left_out &&
            (!survey->front || table_least_of(t, s) <= t->credit[flow]))
            return s;
    }
    return NULL;
}

/* Who leads in place of `decode` (NULL: there is none); NULL = nobody. */
static struct worker_session *other_leader(const struct worker_table   *t,
                                           const struct table_survey   *survey,
                                           const struct worker_session *decode)
{
    struct worker_session *front = survey->first[TABLE_FRONT][TABLE_PREFILL];
    struct worker_session *back = left_out_behind(t, survey, decode);

    if (front != NULL && decode != NULL && !front->left_out)
        front = NULL;
    if (front == NULL || back == NULL)
        return front != NULL ? front : back;
    return t->turn_lead <= 0 ? front : back;
}

struct worker_session *table_turn_leader(const struct worker_table *t,
                                         const struct table_survey *survey)
{
    struct worker_session *decode = first_decode(survey), *other;

    if (decode != NULL && t->decode_owed)
        return decode;
    other = other_leader(t, survey, decode);
    if (other != NULL)
        return other;
    if (decode == NULL)
        decode = survey->first[TABLE_BACK][TABLE_DECODE];
    return decode != NULL ? decode : survey->first[TABLE_BACK][TABLE_PREFILL];
}

void table_turn_note(struct worker_table *t, const struct table_survey *survey,
                     const struct worker_session *leader, uint32_t tokens)
{
    const struct worker_session *decode = first_decode(survey);
    enum table_lane              lane = table_lane_of(leader);
    double                       most = t->limits.batch_tokens;
    double                       cost = tokens > TABLE_TURN_TOKENS ? tokens : TABLE_TURN_TOKENS;

    cost /= t->limits.weight[leader->info.qos];
    if (leader != decode)
        t->turn_lead += lane == TABLE_FRONT ? cost : -cost;
    /* Turns that nobody else wanted are not held against a lane for long. */
    t->turn_lead = fmin(fmax(t->turn_lead, -most), most);
    t->decode_owed = decode != NULL && leader != decode;
    if (lane == TABLE_BACK)
        t->back_turn = leader == survey->first[lane][TABLE_DECODE] ? TABLE_PREFILL : TABLE_DECODE;
    for (int i = 0; i < TABLE_LANES; i++)
        for (int flow = 0; flow < TABLE_FLOWS; flow++) {
            struct worker_session *s = survey->first[i][flow];

            if (s != NULL)
                s->left_out = s->running == NULL;
        }
}
