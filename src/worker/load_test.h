/* worker/load_test.h - a table in virtual time, with clients that load it.
 *
 * The forward of n positions takes 2 + 0.2 n ms, as much in each of its layers, and is run in the
 * slices that the table asks for.  A client keeps `ahead` windows of `tokens`
 * positions queued; each is followed by the next one `pause_ms` after its answer (a decode: a round
 * trip; a flood: 0).  What a client saw is kept: how long each window took, how long it waited
 * for its first piece, how many positions it got.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_LOAD_TEST_H
#define WORKER_LOAD_TEST_H

#include "worker/made_test.h"

enum {
    LOAD_CLIENTS = 128,
    LOAD_AHEAD = 8,
    LOAD_SAMPLES = 1 << 14, /* a client; later ones are not kept */
};

struct load_client {
    /* as told */
    enum wire_qos qos;
    uint32_t      tokens, ahead;
    double        pause_ms;
    uint32_t      first; /* layer; 0 = all */
    bool          logits, exclusive;
    /* as seen */
    struct worker_session *s;
    struct worker_work     works[LOAD_AHEAD];
    bool                   queued[LOAD_AHEAD];
    double                 push_ms[LOAD_AHEAD]; /* when not queued: from then on */
    uint32_t               next_slot;
    uint64_t               served; /* positions */
    uint32_t               samples;
    double                *took_ms; /* (LOAD_SAMPLES) push to answer */
    double                 waited_ms_max;
};

struct load {
    struct made        m; /* limits, table, time */
    struct load_client clients[LOAD_CLIENTS];
    uint32_t           count;
    uint64_t           seed;
    double             forward_ms_max;
    double             front_ms, back_ms; /* compute time; of riders what they added */
    uint64_t           tokens, forwards;
};

static inline double load_forward_ms(uint32_t tokens)
{
    return 2.0 + 0.2 * tokens;
}

/* Of so many of its layers. */
static inline double load_slice_ms(const struct load *w, uint32_t tokens, uint32_t layers)
{
    return load_forward_ms(tokens) * layers / (w->m.limits.last - w->m.limits.first);
}

static inline void load_init(struct load *w)
{
    memset(w, 0, sizeof(*w));
    made_init(&w->m);
    w->m.limits.sessions_max = LOAD_CLIENTS;
    w->m.limits.ctx_tokens = INT32_MAX;
    w->m.limits.queue_bytes_max = UINT64_MAX;
    w->seed = unit_seed();
}

/* `count` clients like `like`; the table is made with the first ones. */
static inline void load_clients(struct load *w, uint32_t count, struct load_client like)
{
    if (w->m.t == NULL)
        made_start(&w->m);
    for (uint32_t i = 0; i < count; i++) {
        struct load_client *c = &w->clients[w->count];

        assert_true(w->count < LOAD_CLIENTS);
        *c = like;
        c->took_ms = malloc(LOAD_SAMPLES * sizeof(double));
        assert_non_null(c->took_ms);
        c->s = made_open(&w->m, (struct made_open){ .id = (uint8_t)w->count,
                                                    .qos = c->qos,
                                                    .first = c->first,
                                                    .last = c->first != 0 ? w->m.limits.last : 0 });
        /* Not all at the same instant. */
        for (uint32_t j = 0; j < c->ahead; j++)
            c->push_ms[j] = w->m.now_ms + (c->pause_ms * w->count) / LOAD_CLIENTS;
        w->count++;
    }
}

static inline void load_fini(struct load *w)
{
    worker_table_free(w->m.t);
    for (uint32_t i = 0; i < w->count; i++)
        free(w->clients[i].took_ms);
}

/* Push what is due by now; returns when the next will be. */
static inline double load_push(struct load *w)
{
    double next_ms = 1e18;

    for (uint32_t i = 0; i < w->count; i++) {
        struct load_client *c = &w->clients[i];

        for (uint32_t n = 0; n < c->ahead; n++) {
            uint32_t            j = c->next_slot;
            struct worker_work *work = &c->works[j];
            mcp_error           err;

            if (c->queued[j])
                break;
            if (c->push_ms[j] > w->m.now_ms) {
                next_ms = c->push_ms[j] < next_ms ? c->push_ms[j] : next_ms;
                break;
            }
            *work = (struct worker_work){ .pos = worker_session_info(c->s)->queued_pos,
                                          .count = c->exclusive ? 0 : c->tokens,
                                          .logits = c->logits,
                                          .exclusive = c->exclusive,
                                          .data = c };
            if (c->exclusive)
                work->pos = 0;
            unit_ok(worker_table_push(w->m.t, c->push_ms[j], c->s, work, &err), &err);
            c->queued[j] = true;
            c->next_slot = (j + 1) % c->ahead;
        }
    }
    return next_ms;
}

static inline void load_answer(struct load *w, const struct worker_item *item)
{
    struct load_client *c = item->work->data;
    size_t              j = (size_t)(item->work - c->works);

    c->served += item->count;
    if (!item->last)
        return;
    if (c->samples < LOAD_SAMPLES)
        c->took_ms[c->samples++] = w->m.now_ms - item->work->came_ms;
    c->queued[j] = false;
    /* A path's jitter: without it clients march in step. */
    c->push_ms[j] = w->m.now_ms + c->pause_ms * (0.75 + unit_below(&w->seed, 512) / 1024.0);
}

/* `ms` of computing, and what comes meanwhile. */
static inline void load_compute(struct load *w, const struct worker_batch *batch, double ms)
{
    double   end_ms = w->m.now_ms + ms, next_ms, riders_ms = 0;
    uint32_t layers = batch->slice_last - batch->slice_first;

    for (uint32_t i = 0; i < batch->count && !batch->back; i++)
        if (worker_session_info(batch->items[i].session)->qos == WIRE_QOS_BATCH)
            riders_ms += load_slice_ms(w, batch->items[i].count, layers) -
                         load_slice_ms(w, 0, layers);
    w->back_ms += batch->back ? ms : riders_ms;
    w->front_ms += batch->back ? 0 : ms - riders_ms;
    while ((next_ms = load_push(w)) < end_ms)
        w->m.now_ms = next_ms;
    w->m.now_ms = end_ms;
}

static inline double load_compute_slice(struct load *w, const struct worker_batch *batch)
{
    double ms = load_slice_ms(w, batch->tokens, batch->slice_last - batch->slice_first);

    load_compute(w, batch, ms);
    return ms;
}

static inline void load_begin(struct load *w, const struct worker_batch *batch)
{
    double forward_ms = load_forward_ms(batch->tokens);

    for (uint32_t i = 0; i < batch->count; i++) {
        struct load_client *c = batch->items[i].work->data;
        double              waited_ms = w->m.now_ms - batch->items[i].work->came_ms;

        if (batch->items[i].offset == 0 && waited_ms > c->waited_ms_max)
            c->waited_ms_max = waited_ms;
    }
    w->forward_ms_max = forward_ms > w->forward_ms_max ? forward_ms : w->forward_ms_max;
    w->tokens += batch->tokens;
    w->forwards++;
}

static inline void load_finish(struct load *w, struct worker_batch *batch)
{
    double ms = load_compute_slice(w, batch);

    for (uint32_t i = 0; i < batch->count; i++)
        load_answer(w, &batch->items[i]);
    worker_table_done(w->m.t, w->m.now_ms, batch, ms);
}

/* One forward, or the wait for something to run. */
static inline void load_step(struct load *w)
{
    double              next_ms = load_push(w), wake_ms;
    struct worker_batch batch, urgent;

    if (!worker_table_next(w->m.t, w->m.now_ms, &batch, &wake_ms)) {
        if (wake_ms > 0 && wake_ms < next_ms)
            next_ms = wake_ms;
        assert_true(next_ms < 1e18);
        w->m.now_ms = next_ms;
        return;
    }
    load_begin(w, &batch);
    while (batch.slice_last < batch.last) {
        double ms = load_compute_slice(w, &batch);

        worker_table_sliced(w->m.t, w->m.now_ms, &batch, ms);
        while (worker_table_urgent(w->m.t, w->m.now_ms, &batch, &urgent)) {
            load_begin(w, &urgent);
            load_finish(w, &urgent);
            load_push(w);
        }
    }
    load_finish(w, &batch);
}

static inline void load_run(struct load *w, double ms)
{
    double end_ms = w->m.now_ms + ms;

    while (w->m.now_ms < end_ms)
        load_step(w);
}

/* Forget what was seen so far: what follows is the steady state. */
static inline void load_settle(struct load *w)
{
    w->forward_ms_max = 0;
    w->front_ms = w->back_ms = 0;
    w->tokens = w->forwards = 0;
    for (uint32_t i = 0; i < w->count; i++) {
        w->clients[i].served = 0;
        w->clients[i].samples = 0;
        w->clients[i].waited_ms_max = 0;
    }
}

static inline int load_order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* The q-quantile of how long the windows of clients [from, to) took. */
static inline double load_quantile(const struct load *w, uint32_t from, uint32_t to, double q)
{
    static double all[LOAD_CLIENTS * 1024];
    size_t        count = 0;

    for (uint32_t i = from; i < to; i++)
        for (uint32_t j = 0; j < w->clients[i].samples && count < UNIT_COUNT(all); j++)
            all[count++] = w->clients[i].took_ms[j];
    assert_true(count > 0);
    qsort(all, count, sizeof(all[0]), load_order);
    return all[(size_t)(q * (double)(count - 1))];
}

static inline uint64_t load_served(const struct load *w, uint32_t from, uint32_t to)
{
    uint64_t sum = 0;

    for (uint32_t i = from; i < to; i++)
        sum += w->clients[i].served;
    return sum;
}

#endif
