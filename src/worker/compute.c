/* worker/compute.c - see compute.h.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/compute_private.h"

#include "base/clock.h"
#include "base/fail.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- the table: what next, and how it went ------------------------------------------ */

/* Wait for work, until `wake_ms` (0 = only a signal).  Lock held. */
static void wait_for_work(struct worker_service *s, double wake_ms)
{
    struct timespec until = { .tv_sec = (time_t)(wake_ms / 1e3) };

    if (wake_ms <= 0.0) {
        pthread_cond_wait(&s->work, &s->lock);
        return;
    }
    until.tv_nsec = (long)((wake_ms - (double)until.tv_sec * 1e3) * 1e6);
    pthread_cond_timedwait(&s->work, &s->lock, &until);
}

/* What the table gave, for ourselves.  Lock held. */
static void copy_items(struct compute_run *r)
{
    for (uint32_t i = 0; i < r->batch.count; i++)
        r->items[i] = (struct compute_item){ .item = r->batch.items[i],
                                             .job = worker_job_of(r->batch.items[i].work) };
}

/* The next batch; false when the thread is to end.  Lock held. */
static bool take(struct worker_compute *c, struct compute_run *r)
{
    struct worker_service *s = c->service;
    double                 wake_ms = 0.0;

    while (!s->stopping) {
        bool any = worker_table_next(s->table, base_clock_ms(), &r->batch, &wake_ms);

        worker_service_acts(s);
        if (any)
            break;
        wait_for_work(s, wake_ms);
    }
    if (s->stopping)
        return false;
    copy_items(r);
    return true;
}

/* End the session of an item that could not be run.  Its stream may be gone. */
static void fail_session(struct worker_compute *c, struct compute_item *it)
{
    struct worker_service *s = c->service;

    if (it->job->stream->session == it->item.session) {
        worker_stream_fail(it->job->stream, it->rc, &it->error);
        return;
    }
    worker_table_close(s->table, base_clock_ms(), it->item.session);
    worker_service_acts(s);
}

static void count(struct worker_compute *c, const struct compute_run *r)
{
    struct worker_meters *m = &c->service->meters;

    worker_histogram_add(&m->compute_ms, r->compute_ms);
    m->faults += c->faults;
    c->faults = 0;
    if (r->batch.exclusive)
        return;
    worker_histogram_add(&m->batch_tokens, r->batch.tokens);
    for (uint32_t i = 0; i < r->batch.count; i++) {
        struct compute_item *it = &r->items[i];

        m->positions += it->item.count;
        if (!it->item.last)
            continue;
        m->windows++;
        m->tokens_generated += it->job->chosen;
        if (it->job->chosen > 0 && it->job->want == WIRE_WANT_LOGITS) {
            m->guesses += it->job->work.count - 1;
            m->guesses_right += it->job->chosen - 1;
        }
        worker_histogram_add(&m->queue_ms, it->job->queue_ms);
    }
}

/* The wrong guesses of an answer's window are taken back.  Lock held. */
static void keep_chosen(struct worker_compute *c, const struct compute_item *it)
{
    const struct worker_job *job = it->job;

    if (job->kind == WORKER_GENERATE && job->want == WIRE_WANT_LOGITS && it->item.last &&
        it->rc == MCP_OK)
        worker_table_keep(c->service->table, &it->item, job->chosen);
}

/* What a forward of so many positions takes when all their rows are wanted, as in the windows of
 * answers. */
static void note_time(struct worker_compute *c, const struct compute_run *r)
{
    for (uint32_t i = 0; i < r->batch.count; i++)
        if (r->items[i].job->kind != WORKER_GENERATE || r->items[i].rc < 0 ||
            r->items[i].rows != r->items[i].item.count)
            return;
    worker_guess_note(&c->guess, r->batch.tokens, r->compute_ms);
}

/* Tell the table, and end those whose work failed.  Lock held. */
static void settle(struct worker_compute *c, struct compute_run *r)
{
    struct worker_service *s = c->service;

    count(c, r);
    note_time(c, r);
    for (uint32_t i = 0; i < r->batch.count; i++) {
        struct compute_item *it = &r->items[i];

        it->unwanted = worker_item_void(s->table, &it->item);
        if (it->job->kind == WORKER_IMPORT && it->rc == MCP_OK)
            worker_table_set_length(s->table, it->item.session, it->length);
        keep_chosen(c, it);
        /* Its last token may be answered with the next Generate before we look here again. */
        if (it->item.last && it->job->stop != WIRE_STOP_NOT &&
            it->job->stream->answer == it->job->answer) {
            it->job->stream->answer = NULL;
            worker_stream_keep_text(it->job->stream, it->job->answer);
        }
    }
    worker_table_done(s->table, base_clock_ms(), &r->batch, r->slice_ms);
    for (uint32_t i = 0; i < r->batch.count; i++) {
        struct compute_item *it = &r->items[i];

        if (it->rc == MCP_EDEVICE) {
            worker_service_break(s, &it->error);
            break;
        }
        if (it->rc < 0 && !it->unwanted && !s->stopping)
            fail_session(c, it);
    }
    worker_service_acts(s);
}

/* ---- answers ------------------------------------------------------------------------ */

static void deliver(struct compute_run *r)
{
    for (uint32_t i = 0; i < r->batch.count; i++) {
        struct compute_item *it = &r->items[i];
        struct worker_reply *reply;

        if (!it->item.last || it->unwanted || it->rc < 0 || it->job->reply == NULL)
            continue;
        reply = it->job->reply;
        it->job->reply = NULL;
        worker_stream_reply(it->job->stream, reply);
    }
}

/* The window after the one that has just run.  Lock held. */
static void next_window(struct worker_compute *c, struct worker_job *job)
{
    const struct worker_limits *l = &c->service->limits;
    struct worker_work         *work = &job->work;
    uint32_t                    offset = 0;

    work->pos = worker_session_info(job->stream->session)->queued_pos;
    if (worker_answer_prompting(job->answer)) {
        work->count = worker_answer_prompt(job->answer, l->batch_tokens, &offset);
    } else {
        work->count = worker_answer_window(job->answer, &c->guess, work->pos, l->decode_tokens,
                                           (int32_t *)(void *)job->data);
        work->spare = work->count - 1;
        job->want = WIRE_WANT_LOGITS;
    }
    job->offset_bytes = offset * sizeof(int32_t);
    job->chosen = 0;
    job->settled = false;
    job->queue_ms = -1.0;
    job->compute_ms = 0.0;
}

/* An answer goes on.  False when it is over, was trimmed, or its stream has left.  Lock held. */
static bool go_on(struct worker_compute *c, struct compute_item *it)
{
    struct worker_service *s = c->service;
    struct worker_job     *job = it->job;
    struct worker_stream  *stream = job->stream;
    mcp_error              error = { 0 };
    int                    rc;

    if (job->kind != WORKER_GENERATE || it->unwanted || it->rc < 0 || job->stop != WIRE_STOP_NOT ||
        stream->session == NULL || stream->answer != job->answer)
        return false;
    next_window(c, job);
    rc = worker_table_push(s->table, base_clock_ms(), stream->session, &job->work, &error);
    if (rc < 0)
        worker_stream_fail(stream, rc, &error);
    worker_service_acts(s);
    return rc == MCP_OK;
}

/* Jobs that are done with are freed, answers go on.  Lock held. */
static void put_back(struct worker_compute *c, struct compute_run *r)
{
    for (uint32_t i = 0; i < r->batch.count; i++)
        if (r->items[i].item.last && !go_on(c, &r->items[i]))
            worker_job_free(r->items[i].job);
}

/* ---- the thread --------------------------------------------------------------------- */

/* Run the rest of a batch, and see to what comes of it. */
static void finish(struct worker_compute *c, struct compute_run *r)
{
    struct worker_service *s = c->service;

    compute_finish(c, r);
    pthread_mutex_lock(&s->lock);
    settle(c, r);
    pthread_mutex_unlock(&s->lock);
    deliver(r);
    pthread_mutex_lock(&s->lock);
    put_back(c, r);
    pthread_mutex_unlock(&s->lock);
}

/* What must not wait for the rest of `paused`; false = nothing, and that goes on.  Lock held. */
static bool take_urgent(struct worker_compute *c, struct compute_run *paused,
                        struct compute_run *urgent)
{
    struct worker_service *s = c->service;
    bool                   any;

    if (s->stopping) {
        for (uint32_t i = 0; i < paused->batch.count; i++)
            paused->items[i].rc = MCP_ECANCELED;
        paused->batch.slice_last = paused->batch.last;
        return false;
    }
    any = worker_table_urgent(s->table, base_clock_ms(), &paused->batch, &urgent->batch);
    worker_service_acts(s);
    if (any)
        copy_items(urgent);
    return any;
}

/* A slice of `r`, and what is urgent behind it. */
static void slice(struct worker_compute *c, struct compute_run *r, struct compute_run *urgent)
{
    struct worker_service *s = c->service;

    compute_slice(c, r);
    pthread_mutex_lock(&s->lock);
    worker_table_sliced(s->table, base_clock_ms(), &r->batch, r->slice_ms);
    while (take_urgent(c, r, urgent)) {
        pthread_mutex_unlock(&s->lock);
        compute_begin(c, urgent);
        finish(c, urgent);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
}

static void *run(void *ctx)
{
    struct worker_compute *c = ctx;
    struct worker_service *s = c->service;
    struct compute_run    *r = &c->runs[0], *urgent = &c->runs[1];

    pthread_mutex_lock(&s->lock);
    while (take(c, r)) {
        pthread_mutex_unlock(&s->lock);
        compute_begin(c, r);
        while (r->batch.slice_last < r->batch.last)
            slice(c, r, urgent);
        finish(c, r);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- opening ------------------------------------------------------------------------ */

static size_t out_floats(const struct worker_service *s)
{
    const struct worker_limits *l = &s->limits;
    size_t                      hidden = (size_t)l->batch_tokens * s->facts.n_embd, rows, logits;

    if (s->facts.last != s->facts.layers)
        return hidden;
    rows = l->sessions_max < l->batch_tokens ? l->sessions_max : l->batch_tokens;
    if (rows < WORKER_LOGITS_ROWS_MAX)
        rows = WORKER_LOGITS_ROWS_MAX;
    logits = rows * s->facts.n_vocab;
    return hidden > logits ? hidden : logits;
}

static bool open_run(struct worker_compute *c, struct compute_run *r)
{
    const struct worker_limits *l = &c->service->limits;

    r->items = calloc(l->sessions_max, sizeof(*r->items));
    r->windows = calloc(l->sessions_max, sizeof(*r->windows));
    r->in = engine_alloc(c->engine, (size_t)l->batch_tokens * c->n_embd);
    return r->items != NULL && r->windows != NULL && r->in != NULL;
}

int worker_compute_open(struct worker_compute **out, struct worker_service *service,
                        struct mcp_engine *engine, mcp_error *err)
{
    const struct worker_limits *l = &service->limits;
    struct worker_compute      *c = calloc(1, sizeof(*c));

    *out = NULL;
    if (c == NULL)
        return base_fail(err, MCP_ENOMEM, "compute thread");
    c->service = service;
    c->engine = engine;
    c->n_embd = service->facts.n_embd;
    c->n_vocab = service->facts.n_vocab;
    c->out_floats = out_floats(service);
    c->ready = calloc(l->sessions_max, sizeof(*c->ready));
    c->out = engine_alloc(engine, c->out_floats);
    if (c->ready == NULL || c->out == NULL || !open_run(c, &c->runs[0]) ||
        !open_run(c, &c->runs[1])) {
        size_t floats = COMPUTE_RUNS * (size_t)l->batch_tokens * c->n_embd + c->out_floats;

        worker_compute_close(c);
        return base_fail(err, MCP_ENOMEM,
                         "%zu bytes for rows of %u positions; lower -b/--batch-size",
                         floats * sizeof(float), l->batch_tokens);
    }
    if (pthread_create(&c->thread, NULL, run, c) != 0) {
        worker_compute_close(c);
        return base_fail(err, MCP_ENOMEM, "no thread to compute on");
    }
    c->started = true;
    *out = c;
    return MCP_OK;
}

void worker_compute_close(struct worker_compute *c)
{
    struct worker_service *s;

    if (c == NULL)
        return;
    s = c->service;
    if (c->started) {
        pthread_mutex_lock(&s->lock);
        s->stopping = true;
        atomic_store(&c->engine->cancel, 1); /* the running forward ends within a ubatch */
        pthread_cond_signal(&s->work);
        pthread_mutex_unlock(&s->lock);
        pthread_join(c->thread, NULL);
    }
    for (int i = 0; i < COMPUTE_RUNS; i++) {
        engine_free(c->runs[i].in);
        free(c->runs[i].items);
        free(c->runs[i].windows);
    }
    engine_free(c->out);
    free(c->ready);
    free(c);
}
