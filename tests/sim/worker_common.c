/* sim/worker_common.c - a worker: the real session table, and a shell around it as thin as can be.
 *
 * What the table refuses of a stream that its agent was right to send is a failure of the test.
 *
 * SPDX-License-Identifier: MIT */
#include "sim/world_common.h"

static const double TICK_MS = 100.0;

/* A window on its way through the table. */
struct sim_job {
    struct worker_work work; /* .data is the job */
    struct sim_job    *prev, *next;
    enum wire_want     want;
    bool               bulk;
    double             started_ms;
    uint8_t           *rows;     /* (count, row_bytes): input, then output in its place */
    int32_t            tokens[]; /* (count), when the stage begins at layer 0 */
};

static struct sim_clock *clock_of(struct sim_worker *w)
{
    return &w->world->clock;
}

bool sim_worker_puts_off(struct sim_worker *w, struct sim_event *e)
{
    if (!w->alive || clock_of(w)->now_ms >= w->stopped_until_ms)
        return false;
    sim_post(clock_of(w), w->stopped_until_ms, *e);
    return true;
}

/* ---- jobs ----------------------------------------------------------------------------------- */

static struct sim_job *job_new(struct sim_worker *w, const struct wire_forward *f)
{
    uint32_t        row_bytes = w->world->model.row_bytes;
    struct sim_job *job = calloc(1, sizeof(*job) + f->count * sizeof(int32_t));

    assert_non_null(job);
    job->work = (struct worker_work){ .number = f->number,
                                      .epoch = f->epoch,
                                      .pos = f->pos,
                                      .count = f->count,
                                      .logits = f->want >= WIRE_WANT_LOGITS_LAST,
                                      .bytes = f->in.bytes,
                                      .data = job };
    job->want = f->want;
    job->bulk = f->bulk;
    job->rows = malloc((size_t)f->count * row_bytes);
    assert_non_null(job->rows);
    if (f->token_count > 0)
        memcpy(job->tokens, f->tokens, f->count * sizeof(int32_t));
    else
        memcpy(job->rows, f->in.data, f->in.bytes);
    job->next = w->jobs;
    if (w->jobs != NULL)
        w->jobs->prev = job;
    w->jobs = job;
    return job;
}

static void job_free(struct sim_worker *w, struct sim_job *job)
{
    if (job->prev != NULL)
        job->prev->next = job->next;
    else
        w->jobs = job->next;
    if (job->next != NULL)
        job->next->prev = job->prev;
    free(job->rows);
    free(job);
}

/* ---- streams ------------------------------------------------------------------------------ */

static void pump(struct sim_stream *s)
{
    const uint8_t *bytes;
    size_t         count;
    bool           bulk;

    if (s->down == NULL)
        return;
    while ((bytes = wire_channel_next(s->down, s->conn->world->clock.now_ms, &count, &bulk)) !=
           NULL)
        sim_send(s, SIM_DOWN, SIM_DATA, bytes, count);
}

/* An Ack on one stream makes room on all of the connection. */
static void pump_all(struct sim_conn *c)
{
    for (uint32_t i = 0; i < c->stream_count; i++)
        if (c->streams[i]->worker_holds)
            pump(c->streams[i]);
}

static void let_go(struct sim_stream *s)
{
    wire_channel_free(s->down);
    s->down = NULL;
    s->session = NULL;
    s->worker_holds = false;
}

static void end(struct sim_stream *s, const struct wire_status *status)
{
    sim_send(s, SIM_DOWN, SIM_END, status, sizeof(*status));
    let_go(s);
}

static void look(struct sim_worker *w);

/* Carry out what the table asks for. */
static void do_acts(struct sim_worker *w)
{
    struct worker_act act;

    while (worker_table_act(w->table, &act)) {
        if (act.kind == WORKER_ACT_DROP) {
            SIM_REQUIRE(clock_of(w), !act.expired, "a deadline that nobody set\n");
            job_free(w, act.work->data);
        } else if (act.stream != NULL) {
            end(act.stream, &act.status);
        }
    }
    look(w);
}

void sim_worker_lost(struct sim_stream *s)
{
    struct sim_worker     *w = s->conn->worker;
    struct worker_session *session = s->session;

    let_go(s);
    if (session != NULL && w->alive) {
        worker_table_detach(w->table, clock_of(w)->now_ms, session);
        do_acts(w);
    }
}

/* ---- frames --------------------------------------------------------------------------------- */

static void opened(struct sim_stream *s)
{
    struct sim_worker                *w = s->conn->worker;
    const struct worker_session_info *info = worker_session_info(s->session);
    struct wire_channel_opts opts = { true, w->limits.queue_bytes_max, &s->path->pace[SIM_DOWN] };
    struct wire_frame        f = { .kind = WIRE_OPENED };
    mcp_error                err;

    unit_ok(wire_channel_new(&s->down, &opts, &err), &err);
    f.u.opened = (struct wire_opened){ .length = info->length,
                                       .epoch = info->epoch,
                                       .ctx_tokens = info->ctx_tokens,
                                       .windows_max = w->limits.windows_max,
                                       .lease_ms = (uint32_t)w->limits.lease_ms,
                                       .batch_tokens = w->limits.batch_tokens,
                                       .queue_bytes_max = w->limits.queue_bytes_max,
                                       .even_windows = w->world->model.even_windows };
    unit_ok(wire_channel_send(s->down, &f, NULL, NULL, &err), &err);
}

static void open_stream(struct sim_stream *s, const uint8_t *bytes, size_t count)
{
    struct sim_worker  *w = s->conn->worker;
    struct wire_scratch scratch = { 0 };
    struct wire_frame   f;
    struct guard_grant  grant = { .any_model = true, .priority = GUARD_REALTIME };
    struct wire_status  status;
    uint32_t            retry_after_ms;
    mcp_error           err;
    int                 rc;

    unit_ok(wire_frame_decode(&f, WIRE_REQUEST, bytes, count, &scratch, &err), &err);
    assert_int_equal(f.kind, WIRE_OPEN);
    snprintf(grant.subject, sizeof(grant.subject), "agent %u", s->conn->agent->index);
    s->worker_holds = true;
    rc = worker_table_open(w->table, clock_of(w)->now_ms, &f.u.open, &grant, s, &s->session,
                           &retry_after_ms, &err);
    if (rc == MCP_OK) {
        opened(s);
    } else {
        if (rc != MCP_EBUSY && rc != MCP_EUNAVAIL)
            unit_ok(rc, &err);
        status = wire_status_of(rc, &err);
        status.retry_after_ms = retry_after_ms;
        end(s, &status);
    }
    wire_scratch_fini(&scratch);
}

static void take_frame(struct sim_stream *s, const struct wire_frame *f)
{
    struct sim_worker *w = s->conn->worker;
    double             now_ms = clock_of(w)->now_ms;
    mcp_error          err;

    switch (f->kind) {
    case WIRE_FORWARD:
        unit_ok(
            worker_table_push(w->table, now_ms, s->session, &job_new(w, &f->u.forward)->work, &err),
            &err);
        /* One more may be running although it is void. */
        SIM_REQUIRE(clock_of(w),
                    worker_session_info(s->session)->queued_windows <= w->limits.windows_max + 1,
                    "a session's queue grows\n");
        break;
    case WIRE_TRIM:
        unit_ok(
            worker_table_trim(w->table, now_ms, s->session, f->u.trim.epoch, f->u.trim.pos, &err),
            &err);
        break;
    case WIRE_CLOSE: {
        struct worker_session *session = s->session;

        end(s, &(struct wire_status){ .code = WIRE_OK });
        worker_table_close(w->table, now_ms, session);
        break;
    }
    default: fail_msg("a worker is sent a %s", wire_kind_name(f->kind));
    }
}

void sim_worker_receive(struct sim_stream *s, const uint8_t *bytes, size_t count)
{
    struct sim_worker *w = s->conn->worker;
    struct wire_frame  f;
    mcp_error          err;
    int                rc;

    if (s->down != NULL) {
        rc = wire_channel_receive(s->down, clock_of(w)->now_ms, bytes, count, &f, &err);
        unit_ok(rc, &err);
        if (rc > 0)
            take_frame(s, &f);
    } else if (!s->begun) {
        s->begun = true;
        open_stream(s, bytes, count);
    } /* else: sent before the agent heard that the stream had ended */
    do_acts(w);
    pump_all(s->conn);
}

/* ---- forwards ------------------------------------------------------------------------------- */

static void answer(struct sim_stream *s, const struct sim_job *job)
{
    uint32_t          row_bytes = s->conn->world->model.row_bytes;
    uint32_t          all = job->work.count, rows = all;
    double            now_ms = s->conn->world->clock.now_ms;
    struct wire_frame f = { .kind = WIRE_RESULT };
    mcp_error         err;

    if (job->want == WIRE_WANT_NONE)
        rows = 0;
    else if (job->want == WIRE_WANT_LOGITS_LAST || job->want == WIRE_WANT_HIDDEN_LAST)
        rows = 1;
    f.u.result = (struct wire_result){
        .number = job->work.number,
        .epoch = job->work.epoch,
        .pos = job->work.pos,
        .count = all,
        .rows = rows,
        .bulk = job->bulk,
        .queue_us = (uint32_t)((job->started_ms - job->work.came_ms) * 1e3),
        .compute_us = (uint32_t)((now_ms - job->started_ms) * 1e3),
        .out = { .data = job->rows + (size_t)(all - rows) * row_bytes,
                 .bytes = (size_t)rows * row_bytes },
    };
    unit_ok(wire_channel_send(s->down, &f, NULL, NULL, &err), &err);
    pump(s);
}

static void run_item(struct sim_worker *w, const struct worker_item *item)
{
    struct sim_job         *job = item->work->data;
    const struct sim_model *m = &w->world->model;
    struct sim_kv          *kv = &w->slots[item->slot];
    uint8_t                *rows = job->rows + (size_t)item->offset * m->row_bytes;

    SIM_REQUIRE(clock_of(w), item->pos == item->work->pos + item->offset, "a piece at %u\n",
                item->pos);
    if (item->trim_to != UINT32_MAX) {
        SIM_REQUIRE(clock_of(w), item->trim_to <= kv->length, "a trim to %u of %u\n", item->trim_to,
                    kv->length);
        kv->length = item->trim_to;
    }
    sim_forward(m, kv, w->batch.first, w->batch.last, item->pos, item->count,
                w->batch.first == 0 ? job->tokens + item->offset : NULL, rows, rows);
}

/* What has run is answered; a session that is detached has nobody to answer.  Works are given back
 * when the table looks at them no more. */
static void batch_done(struct sim_event *e)
{
    struct sim_worker *w = e->ctx;
    struct sim_job    *complete[WORKER_SESSIONS_MAX];
    uint32_t           count = 0;

    if (!w->alive || e->number != w->generation || sim_worker_puts_off(w, e))
        return;
    for (uint32_t i = 0; i < w->batch.clear_count; i++)
        w->slots[w->batch.clears[i]].length = 0;
    for (uint32_t i = 0; i < w->batch.count; i++) {
        const struct worker_item *item = &w->batch.items[i];
        struct sim_stream        *stream = worker_session_info(item->session)->stream;

        run_item(w, item);
        if (!item->last)
            continue;
        complete[count++] = item->work->data;
        if (!worker_item_void(w->table, item) && stream != NULL)
            answer(stream, item->work->data);
    }
    w->running = false;
    worker_table_done(w->table, w->world->clock.now_ms, &w->batch, w->batch_ms);
    while (count > 0)
        job_free(w, complete[--count]);
    do_acts(w);
}

static void ticked(struct sim_event *e)
{
    struct sim_worker *w = e->ctx;

    if (!w->alive || e->number != w->generation || sim_worker_puts_off(w, e))
        return;
    worker_table_tick(w->table, w->world->clock.now_ms);
    do_acts(w);
    sim_post(&w->world->clock, w->world->clock.now_ms + TICK_MS, *e);
}

/* Start a forward when there is something to run. */
static void look(struct sim_worker *w)
{
    double now_ms = clock_of(w)->now_ms, wake_ms;

    if (w->running || !worker_table_next(w->table, now_ms, &w->batch, &wake_ms))
        return; /* what waits for a time is looked at by the tick */
    w->running = true;
    for (uint32_t i = 0; i < w->batch.count; i++) {
        struct sim_job *job = w->batch.items[i].work->data;

        if (job->started_ms == 0.0)
            job->started_ms = now_ms;
    }
    w->batch_ms = (w->base_ms + w->token_ms * w->batch.tokens) * w->slowness;
    sim_post(clock_of(w), now_ms + w->batch_ms,
             (struct sim_event){ .fire = batch_done, .ctx = w, .number = w->generation });
}

/* ---- life ----------------------------------------------------------------------------------- */

void sim_worker_start(struct sim_worker *w)
{
    mcp_error err;

    w->alive = true;
    w->draining = w->running = false;
    w->stopped_until_ms = 0.0;
    w->slowness = 1.0;
    w->generation++;
    unit_ok(worker_table_new(&w->table, &w->limits, &err), &err);
    w->slots = calloc(w->limits.sessions_max, sizeof(*w->slots));
    assert_non_null(w->slots);
    for (uint32_t i = 0; i < w->limits.sessions_max; i++)
        sim_kv_init(&w->slots[i], w->first, w->last);
    sim_post(clock_of(w), clock_of(w)->now_ms + TICK_MS,
             (struct sim_event){ .fire = ticked, .ctx = w, .number = w->generation });
}

static void forget_process(struct sim_worker *w)
{
    w->alive = false;
    while (w->jobs != NULL)
        job_free(w, w->jobs);
    worker_table_free(w->table);
    w->table = NULL;
    for (uint32_t i = 0; i < w->limits.sessions_max; i++)
        sim_kv_fini(&w->slots[i]);
    free(w->slots);
    w->slots = NULL;
}

/* Its host resets the connections of a process that is gone. */
void sim_worker_kill(struct sim_worker *w)
{
    if (!w->alive)
        return;
    forget_process(w);
    for (uint32_t i = 0; i < w->world->opts.agents; i++) {
        struct sim_conn *c = &w->world->agents[i].conns[w->index];

        for (uint32_t k = 0; k < c->stream_count; k++)
            let_go(c->streams[k]);
        sim_conn_reset(c, false, true);
    }
}

static void exits(struct sim_event *e)
{
    struct sim_worker *w = e->ctx;

    if (e->number == w->generation)
        sim_worker_kill(w);
}

/* SIGTERM: it tells its clients and exits when they are gone, or when the time is over. */
void sim_worker_drain(struct sim_worker *w, double within_ms)
{
    struct wire_frame f = { .kind = WIRE_DRAINING };
    mcp_error         err;

    w->draining = true;
    worker_table_drain(w->table);
    f.u.draining_within_ms = (uint32_t)within_ms;
    for (uint32_t i = 0; i < w->world->opts.agents; i++) {
        struct sim_conn *c = &w->world->agents[i].conns[w->index];

        for (uint32_t k = 0; k < c->stream_count; k++) {
            if (c->streams[k]->down == NULL)
                continue;
            unit_ok(wire_channel_send(c->streams[k]->down, &f, NULL, NULL, &err), &err);
            pump(c->streams[k]);
        }
    }
    sim_post(clock_of(w), clock_of(w)->now_ms + within_ms,
             (struct sim_event){ .fire = exits, .ctx = w, .number = w->generation });
}

void sim_worker_free(struct sim_worker *w)
{
    SIM_REQUIRE(clock_of(w), w->jobs == NULL, "windows were not given back\n");
    if (w->alive)
        forget_process(w);
}
