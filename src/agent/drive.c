/* agent/drive.c - do what the pipeline asks for: forwards here and on workers, and new places for
 * stages that lost theirs.
 *
 * Everything runs in the session's thread: the pipeline's wishes first (so that workers have
 * work), then what workers have answered, then one local forward, and sleep when there is
 * nothing of these.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/session.h"

#include "agent/codecs.h"
#include "agent/layout.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"
#include "wire/codec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
    /* How long a stage may look for a worker when this machine could take it over: a
     * reconnect to a living worker takes 3 round trips. */
    FALLBACK_WAIT_MS = 400,
    POLL_MS = 50,           /* cancellation is looked at so often */
    REFUSED_WAIT_MS = 1000, /* a worker that refused and said no time is left alone so long */
    LOST_WAIT_MS = 100,     /* and one that was lost twice; doubled each time, up to */
    LOST_WAIT_MS_MAX = 5000,
};

/* ---- endpoints --------------------------------------------------------------------------------------- */

static struct session_endpoint *find(struct mcp_session *s, uint32_t number)
{
    for (struct session_endpoint *e = s->endpoints; e != NULL; e = e->next)
        if (e->number == number)
            return e;
    return NULL;
}

static struct session_endpoint *add_endpoint(struct mcp_session *s, uint32_t stage)
{
    struct session_endpoint *e = calloc(1, sizeof(*e));

    if (e == NULL)
        return NULL;
    e->number = s->endpoint_next++;
    e->stage = stage;
    e->next = s->endpoints;
    s->endpoints = e;
    return e;
}

static void forget_jobs(struct mcp_session *s, const struct session_endpoint *e)
{
    struct session_job **at = &s->jobs;

    while (*at != NULL) {
        struct session_job *job = *at;

        if (e != NULL && job->endpoint != e) {
            at = &job->next;
            continue;
        }
        *at = job->next;
        pipe_block_unref(job->act.block);
        free(job);
    }
    s->jobs_last = at;
}

/* Forwards from `pos` on that wait here will not be missed: the endpoint is trimmed to there. */
static void forget_void_jobs(struct mcp_session *s, const struct session_endpoint *e, uint32_t pos)
{
    struct session_job **at = &s->jobs;

    while (*at != NULL) {
        struct session_job *job = *at;

        if (job->endpoint != e || job->act.kind != PIPE_ACT_FORWARD || job->act.pos < pos) {
            at = &job->next;
            continue;
        }
        *at = job->next;
        pipe_block_unref(job->act.block);
        free(job);
    }
    s->jobs_last = at;
}

void drive_close_endpoint(struct mcp_session *s, struct session_endpoint *e)
{
    uint64_t out, in;

    for (struct session_endpoint **at = &s->endpoints; *at != NULL; at = &(*at)->next) {
        if (*at == e) {
            *at = e->next;
            break;
        }
    }
    forget_jobs(s, e);
    if (e->remote != NULL) {
        endpoint_bytes(e->remote, &out, &in);
        s->bytes_out += out;
        s->bytes_in += in;
        endpoint_close(e->remote);
    }
    free(e);
}

void drive_close(struct mcp_session *s)
{
    while (s->endpoints != NULL)
        drive_close_endpoint(s, s->endpoints);
}

/* ---- finding a place for a stage ------------------------------------------------------------------------ */

void drive_block(struct mcp_session *s, uint32_t worker, const struct wire_status *why,
                 double now_ms)
{
    struct session_worker *w = &s->workers[worker];
    double                 wait_ms = 0.0;

    s->unsettled = true;
    w->losses++;
    w->exhausted = w->exhausted || why->code == WIRE_RESOURCE_EXHAUSTED;
    switch (why->code) {
    case WIRE_UNAVAILABLE: /* mostly the link's; whose state says when it is back */
        for (uint32_t i = 1; i < w->losses && wait_ms < LOST_WAIT_MS_MAX; i++)
            wait_ms = i == 1 ? LOST_WAIT_MS : 2.0 * wait_ms;
        break;
    case WIRE_CANCELLED:
    case WIRE_RESOURCE_EXHAUSTED:
    case WIRE_DEADLINE_EXCEEDED:
        wait_ms = why->retry_after_ms > 0 ? why->retry_after_ms : REFUSED_WAIT_MS;
        break;
    default: wait_ms = INFINITY; /* it would refuse again */
    }
    w->blocked_ms = now_ms + wait_ms;
}

void drive_wait(struct session_stage *stage, double now_ms)
{
    stage->waiting = true;
    stage->waiting_ms = now_ms;
}

double drive_waited(const struct session_stage *stage, double now_ms)
{
    return stage->waited_ms + (stage->waiting ? now_ms - stage->waiting_ms : 0.0);
}

static void stop_waiting(struct mcp_session *s, struct session_stage *stage, double now_ms)
{
    stage->waited_ms = drive_waited(stage, now_ms);
    stage->waiting = false;
    s->unsettled = true;
}

void drive_progress(struct mcp_session *s)
{
    if (!s->unsettled)
        return;
    s->unsettled = false;
    for (uint32_t i = 0; i < MCP_WORKERS_MAX; i++)
        s->workers[i].losses = 0;
    for (uint32_t i = 0; i < s->stage_count; i++)
        s->stages[i].waited_ms = 0.0;
}

static uint64_t excluded(const struct mcp_session *s, double now_ms)
{
    uint64_t bits = 0;

    for (uint32_t i = 0; i < MCP_WORKERS_MAX; i++)
        if (s->workers[i].blocked_ms > now_ms)
            bits |= UINT64_C(1) << i;
    return bits;
}

int drive_choose(struct mcp_session *s, const struct session_stage *stage, double now_ms)
{
    mcp_worker_info info;
    int             worker = remote_choose(s->remote, stage->first, stage->last, stage->worker,
                                           excluded(s, now_ms), now_ms);

    if (worker < 0 || remote_get_worker(s->remote, (uint32_t)worker, &info) < 0 ||
        info.state != MCP_WORKER_UP)
        return -1;
    return worker;
}

int drive_open_remote(struct mcp_session *s, uint32_t stage, uint32_t worker, bool resume,
                      struct session_endpoint **out, mcp_error *err)
{
    struct session_stage    *st = &s->stages[stage];
    struct session_endpoint *e = add_endpoint(s, stage);
    struct wire_open         open = { .first = st->first,
                                      .last = st->last,
                                      .ctx_tokens = s->ctx_tokens,
                                      .qos = s->qos,
                                      .weights_given = !s->mixed,
                                      .resume = resume };
    int                      rc = MCP_OK;

    *out = NULL;
    if (e == NULL)
        return base_fail(err, MCP_ENOMEM, "endpoint");
    /* A new session has a new name: a worker may still keep one that was lost. */
    if (!resume && getrandom(st->id, sizeof(st->id), 0) != (ssize_t)sizeof(st->id))
        rc = base_fail(err, MCP_EIO, "no random numbers");
    memcpy(open.session, st->id, sizeof(open.session));
    memcpy(open.weights, st->weights, sizeof(open.weights));
    if (rc == MCP_OK)
        rc = model_fingerprint(s->model, open.model, err);
    if (rc == MCP_OK)
        rc = endpoint_open(&e->remote, s->remote, worker, e->number, s->mail, &open, s->answer_ms,
                           err);
    if (rc < 0) {
        drive_close_endpoint(s, e);
        return rc;
    }
    st->worker = (int)worker;
    stop_waiting(s, st, base_clock_ms());
    e->resuming = resume;
    *out = e;
    return MCP_OK;
}

/* The missing layers, here. */
static int open_fallback(struct mcp_session *s, uint32_t stage, mcp_error *err)
{
    struct session_stage *st = &s->stages[stage];
    mcp_engine_opts       opts = s->fallback;
    int                   rc;

    if (s->fallback_engine != NULL)
        return base_fail(err, MCP_EUNAVAIL, "the layers that are missing are loaded already");
    opts.first = st->first;
    opts.last = st->last;
    opts.device = s->fallback_device;
    opts.beside = s->engine;
    rc = engine_open(&s->fallback_engine, s->model, &opts, err);
    if (rc < 0)
        return rc;
    base_log(BASE_LOG_WARN, "no worker is left for layers [%u, %u): they run here from now on",
             st->first, st->last);
    st->engine = s->fallback_engine;
    return MCP_OK;
}

static int open_local(struct mcp_session *s, uint32_t stage, double now_ms, mcp_error *err)
{
    struct session_stage    *st = &s->stages[stage];
    struct session_endpoint *e = add_endpoint(s, stage);
    struct pipe_opened       opened = { .windows_max = PIPE_WINDOWS_MAX,
                                        .even_windows = st->engine->info.even_windows != 0 };
    int                      rc;

    if (e == NULL)
        return base_fail(err, MCP_ENOMEM, "endpoint");
    e->engine = st->engine;
    rc = engine_trim(st->engine, s->seq, 0, err);
    if (rc < 0) {
        drive_close_endpoint(s, e);
        return rc;
    }
    pipeline_opened(s->pipeline, now_ms, stage, e->number, &opened);
    return MCP_OK;
}

/* Look for a place for a stage that waits for one.  Called when it begins to wait, when a worker
 * has changed, and when its time may be over. */
static void seek(struct mcp_session *s, uint32_t stage, double now_ms)
{
    struct session_stage    *st = &s->stages[stage];
    struct session_endpoint *e;
    struct pipe_opened       opened;
    double                   wait_ms = s->can_fall_back ? FALLBACK_WAIT_MS : s->failover_ms;
    mcp_error                err = { 0 };
    int                      worker, former = st->worker, rc;

    if (!st->remote || st->engine != NULL) {
        stop_waiting(s, st, now_ms);
        rc = open_local(s, stage, now_ms, &err);
        if (rc < 0)
            pipeline_unavailable(s->pipeline, now_ms, stage, &err);
        return;
    }
    worker = drive_choose(s, st, now_ms);
    if (worker >= 0) {
        /* The same worker again: it may have kept what it had computed. */
        bool resume = worker == former && st->replaces != PIPE_NO_ENDPOINT;

        remote_terms(s->remote, (uint32_t)worker, &opened);
        rc = drive_open_remote(s, stage, (uint32_t)worker, resume, &e, &err);
        if (rc < 0)
            pipeline_unavailable(s->pipeline, now_ms, stage, &err);
        else if (!resume) /* a new session is empty: no need to wait for its answer */
            pipeline_opened(s->pipeline, now_ms, stage, e->number, &opened);
        return;
    }
    if (drive_waited(st, now_ms) < wait_ms &&
        !(s->can_fall_back && remote_hopeless(s->remote, st->first, st->last, excluded(s, now_ms))))
        return;
    stop_waiting(s, st, now_ms);
    rc = MCP_EUNAVAIL;
    if (s->can_fall_back)
        rc = open_fallback(s, stage, &err);
    if (rc == MCP_OK)
        rc = open_local(s, stage, now_ms, &err);
    if (rc < 0 && err.code == 0)
        base_fail(&err, MCP_EUNAVAIL, "no worker is left for layers [%u, %u): %s", st->first,
                  st->last, s->last_loss.text[0] != '\0' ? s->last_loss.text : "none holds them");
    if (rc < 0)
        pipeline_unavailable(s->pipeline, now_ms, stage, &err);
}

static void seek_all(struct mcp_session *s, double now_ms)
{
    for (uint32_t i = 0; i < s->stage_count; i++)
        if (s->stages[i].waiting)
            seek(s, i, now_ms);
}

/* ---- forwards on workers ------------------------------------------------------------------------------------ */

/* The block as it travels: wrapped when that makes it smaller.  A reference for the caller. */
static struct pipe_block *wrapped(const struct mcp_session *s, struct pipe_block *block,
                                  uint32_t *wrap)
{
    size_t             bound, bytes;
    struct pipe_block *small;

    *wrap = WIRE_PLAIN;
    if (s->wrap == WIRE_PLAIN)
        return pipe_block_ref(block);
    bound = wire_wrap_bound(s->wrap, block->bytes);
    small = pipe_block_new(block->codec, 1, bound);
    if (small == NULL)
        return pipe_block_ref(block);
    bytes = wire_wrap(s->wrap, wire_codec_by_id(block->codec), small->data, bound, block->data,
                      block->bytes);
    if (bytes == 0) {
        pipe_block_unref(small);
        return pipe_block_ref(block);
    }
    small->bytes = bytes;
    *wrap = s->wrap;
    return small;
}

static enum wire_want want_of(const struct mcp_session *s, const struct pipe_act *act)
{
    bool final = act->stage + 1 == s->stage_count;

    switch (act->want) {
    case PIPE_WANT_LAST: return final ? WIRE_WANT_LOGITS_LAST : WIRE_WANT_HIDDEN_LAST;
    case PIPE_WANT_ALL: return final ? WIRE_WANT_LOGITS : WIRE_WANT_HIDDEN;
    default: return WIRE_WANT_NONE;
    }
}

static int send_forward(struct mcp_session *s, const struct session_endpoint *e,
                        const struct pipe_act *act, mcp_error *err)
{
    struct wire_frame    frame = { .kind = WIRE_FORWARD };
    struct wire_forward *f = &frame.u.forward;
    struct pipe_block   *block = NULL;
    int                  rc;

    f->number = act->number;
    f->epoch = act->epoch;
    f->pos = act->pos;
    f->count = act->count;
    f->want = want_of(s, act);
    f->bulk = act->bulk;
    f->reply_codec = act->stage + 1 < s->stage_count ? codecs_of(s, act->stage + 1, act->pos)->id
                                                     : (uint32_t)WIRE_F32;
    f->reply_wrap = s->wrap;
    if (act->tokens != NULL) {
        f->tokens = act->tokens;
        f->token_count = act->count;
    } else {
        f->in.codec = act->block->codec;
        block = wrapped(s, act->block, &f->in.wrap);
        f->in.data = block->data;
        f->in.bytes = block->bytes;
        f->in.total = block->bytes;
    }
    rc = endpoint_send(e->remote, &frame, block, err);
    pipe_block_unref(block);
    return rc;
}

static int send_trim(const struct session_endpoint *e, const struct pipe_act *act, mcp_error *err)
{
    struct wire_frame frame = { .kind = WIRE_TRIM };

    frame.u.trim.epoch = act->epoch;
    frame.u.trim.pos = act->pos;
    return endpoint_send(e->remote, &frame, NULL, err);
}

/* ---- forwards here -------------------------------------------------------------------------------------------- */

static int add_job(struct mcp_session *s, struct session_endpoint *e, const struct pipe_act *act,
                   mcp_error *err)
{
    size_t              tokens = act->tokens != NULL ? act->count : 0;
    struct session_job *job = malloc(sizeof(*job) + tokens * sizeof(int32_t));

    if (job == NULL)
        return base_fail(err, MCP_ENOMEM, "a window of %u tokens", act->count);
    job->next = NULL;
    job->endpoint = e;
    job->act = *act;
    if (tokens > 0) {
        memcpy(job->tokens, act->tokens, tokens * sizeof(int32_t));
        job->act.tokens = job->tokens;
    }
    if (act->block != NULL)
        pipe_block_ref(act->block);
    *s->jobs_last = job;
    s->jobs_last = &job->next;
    return MCP_OK;
}

static bool has_jobs(const struct mcp_session *s, const struct session_endpoint *e)
{
    for (const struct session_job *job = s->jobs; job != NULL; job = job->next)
        if (job->endpoint == e)
            return true;
    return false;
}

/* Floats of a block: in place when they are f32, else decoded into the first scratch. */
static const float *floats_of(struct mcp_session *s, const struct pipe_block *block, mcp_error *err)
{
    const struct wire_codec *codec = wire_codec_by_id(block->codec);

    if (block->codec == WIRE_F32)
        return (const float *)(const void *)block->data;
    if (wire_codec_decode(codec, s->scratch[0], block->data, block->bytes, block->rows,
                          s->model->hp.n_embd, err) < 0)
        return NULL;
    return s->scratch[0];
}

/* Hidden states after a local stage, in the codec of the next.  *to is where the engine writes
 * its floats. */
static struct pipe_block *hidden_block(struct mcp_session *s, const struct pipe_act *act,
                                       uint32_t rows, float **to)
{
    const struct wire_codec *codec = codecs_of(s, act->stage + 1, act->pos);
    size_t                   row = wire_codec_bytes(codec, 1, s->model->hp.n_embd);
    struct pipe_block       *block = pipe_block_new(codec->id, rows, row);

    *to = block != NULL && codec->id == WIRE_F32 ? (float *)(void *)block->data : s->scratch[1];
    return block;
}

static int run_forward(struct mcp_session *s, struct session_job *job, mcp_error *err)
{
    const struct pipe_act *act = &job->act;
    struct mcp_engine     *engine = job->endpoint->engine;
    bool                   final = act->stage + 1 == s->stage_count;
    size_t                 n = s->model->hp.n_embd;
    mcp_window             w = { .seq = s->seq, .pos = act->pos, .count = act->count };
    struct pipe_block     *rows = NULL;
    float                 *out = NULL;
    size_t                 out_floats = 0;
    double                 start = base_clock_ms();
    int                    rc;

    w.out = act->want == PIPE_WANT_NONE   ? MCP_OUT_NONE
            : act->want == PIPE_WANT_LAST ? MCP_OUT_LAST
                                          : MCP_OUT_ALL;
    if (act->tokens != NULL) {
        w.tokens = act->tokens;
    } else {
        w.hidden = floats_of(s, act->block, err);
        if (w.hidden == NULL)
            return MCP_EFORMAT;
    }
    if (final && act->want == PIPE_WANT_LAST) {
        out = s->logits; /* page-locked where that matters; the block only stands for them */
        out_floats = s->model->hp.n_vocab;
        rows = pipe_block_new(WIRE_F32, 1, 0);
        if (rows == NULL)
            return base_fail(err, MCP_ENOMEM, "logits");
    } else if (act->want != PIPE_WANT_NONE) {
        uint32_t count = act->want == PIPE_WANT_LAST ? 1 : act->count;

        if (final) {
            rows = pipe_block_new(WIRE_F32, count, s->model->hp.n_vocab * sizeof(float));
            out = rows != NULL ? (float *)(void *)rows->data : NULL;
            out_floats = (size_t)count * s->model->hp.n_vocab;
        } else {
            rows = hidden_block(s, act, count, &out);
            out_floats = count * n;
        }
        if (rows == NULL)
            return base_fail(err, MCP_ENOMEM, "hidden states of %u tokens", count);
    }
    rc = engine_forward(engine, s->stages[act->stage].first, s->stages[act->stage].last,
                        final ? MCP_WANT_LOGITS : MCP_WANT_HIDDEN, &w, 1, out, out_floats, err);
    if (rc == MCP_OK && rows != NULL && !final && rows->codec != WIRE_F32)
        wire_codec_encode(wire_codec_by_id(rows->codec), rows->data, out, rows->rows, n);
    if (rc == MCP_OK) {
        double             now = base_clock_ms();
        struct pipe_timing timing = { .compute_us = (uint32_t)((now - start) * 1e3) };

        pipeline_result(s->pipeline, now, job->endpoint->number, act->number, rows, timing);
    }
    pipe_block_unref(rows);
    return rc;
}

static bool first_of_its_endpoint(const struct mcp_session *s, const struct session_job *job)
{
    for (const struct session_job *j = s->jobs; j != job; j = j->next)
        if (j->endpoint == job->endpoint)
            return false;
    return true;
}

/* Take the next job.  Those of one endpoint keep their order; of several, decode goes before
 * prefill and replay, and what is furthest on its way before what follows it. */
static struct session_job *take_job(struct mcp_session *s)
{
    struct session_job **at = &s->jobs, *job;

    for (struct session_job **other = &s->jobs; *other != NULL; other = &(*other)->next) {
        const struct session_job *o = *other, *best = *at;

        if (!o->act.bulk && (best->act.bulk || o->act.pos < best->act.pos) &&
            first_of_its_endpoint(s, o))
            at = other;
    }
    job = *at;
    *at = job->next;
    if (job->next == NULL)
        s->jobs_last = at;
    return job;
}

static int run_job(struct mcp_session *s, mcp_error *err)
{
    struct session_job *job = take_job(s);
    int                 rc;

    rc = job->act.kind == PIPE_ACT_TRIM
             ? engine_trim(job->endpoint->engine, s->seq, job->act.pos, err)
             : run_forward(s, job, err);
    pipe_block_unref(job->act.block);
    free(job);
    return rc;
}

/* ---- what the pipeline asks -------------------------------------------------------------------------------------- */

static int output(struct mcp_session *s, const struct pipe_act *act, mcp_error *err)
{
    bool in_block = act->block != NULL && act->block->bytes > 0; /* else in s->logits already */

    drive_progress(s);
    s->output_number = act->number;
    s->windows++;
    if (s->guessing) {
        s->output.ready = true;
        s->output.end = s->window_end[act->number % PIPE_WINDOWS_MAX];
    } else {
        s->count = s->window_end[act->number % PIPE_WINDOWS_MAX];
    }
    if (!in_block)
        return MCP_OK;
    if (s->guessing) {
        s->output.rows = pipe_block_ref(act->block);
        return MCP_OK;
    }
    return wire_codec_decode(wire_codec_by_id(act->block->codec), s->logits, act->block->data,
                             act->block->bytes, 1, s->model->hp.n_vocab, err);
}

/* The pipeline has given an endpoint up for what it answered: its worker would do so again. */
static void distrust(struct mcp_session *s, const struct session_endpoint *e, const mcp_error *why,
                     double now_ms)
{
    struct wire_status status = wire_status_of(why->code, why);

    s->last_loss = *why;
    base_log(BASE_LOG_WARN, "layers [%u, %u): %s", s->stages[e->stage].first,
             s->stages[e->stage].last, why->text);
    if (e->remote != NULL)
        drive_block(s, endpoint_worker(e->remote), &status, now_ms);
}

static int act_on(struct mcp_session *s, const struct pipe_act *act, double now_ms, mcp_error *err)
{
    struct session_endpoint *e = find(s, act->endpoint);
    struct session_stage    *st;

    switch (act->kind) {
    case PIPE_ACT_OPEN:
        st = &s->stages[act->stage];
        drive_wait(st, now_ms);
        st->replaces = act->lost;
        st->lost_answers = act->lost_answers;
        seek(s, act->stage, now_ms);
        return MCP_OK;
    case PIPE_ACT_FORWARD:
        if (e == NULL)
            return MCP_OK;
        return e->engine != NULL ? add_job(s, e, act, err) : send_forward(s, e, act, err);
    case PIPE_ACT_TRIM:
        if (e == NULL)
            return MCP_OK;
        if (e->engine == NULL)
            return send_trim(e, act, err);
        forget_void_jobs(s, e, act->pos);
        return has_jobs(s, e) ? add_job(s, e, act, err)
                              : engine_trim(e->engine, s->seq, act->pos, err);
    case PIPE_ACT_CLOSE:
        if (e != NULL && act->error.code < 0)
            distrust(s, e, &act->error, now_ms);
        if (e != NULL)
            drive_close_endpoint(s, e);
        return MCP_OK;
    case PIPE_ACT_OUTPUT: return output(s, act, err);
    case PIPE_ACT_FAILED:
        s->failed = true;
        return base_fail(err, act->error.code, "%s", act->error.text);
    }
    return MCP_OK;
}

/* Returns how many things were done.  An output that is to be looked at comes first. */
static int do_acts(struct mcp_session *s, mcp_error *err)
{
    struct pipe_act act = { 0 };
    int             done = 0;

    while (!s->output.ready && pipeline_act(s->pipeline, base_clock_ms(), &act)) {
        int rc = act_on(s, &act, base_clock_ms(), err);

        pipe_block_unref(act.block);
        act = (struct pipe_act){ 0 };
        if (rc < 0)
            return rc;
        done++;
    }
    return done;
}

/* ---- what workers answer -------------------------------------------------------------------------------------------- */

/* Also what the next stage only passes on is looked at here, where its sender is known. */
static int check_values(struct mcp_session *s, const struct wire_codec *codec,
                        const struct pipe_block *rows, size_t elems, mcp_error *err)
{
    size_t row_bytes = rows->bytes / rows->rows;
    int    rc = MCP_OK;

    for (uint32_t i = 0; i < rows->rows && rc == MCP_OK; i++)
        rc = wire_codec_decode(codec, s->row, rows->data + i * row_bytes, row_bytes, 1, elems, err);
    return rc;
}

/* The rows of a result as the pipeline wants them: unwrapped, of the codec and size asked for,
 * all values finite. */
static struct pipe_block *checked_rows(struct mcp_session *s, uint32_t stage,
                                       const struct mail_event *event, mcp_error *err)
{
    const struct wire_codec *codec = wire_codec_by_id(event->block->codec);
    bool                     final = stage + 1 == s->stage_count;
    size_t                   elems = final ? s->model->hp.n_vocab : s->model->hp.n_embd;
    size_t                   bytes = wire_codec_bytes(codec, event->rows, elems);
    bool                     expected;
    struct pipe_block       *rows;
    int                      rc = MCP_OK;

    expected = final ? codec->id == WIRE_F32 : codecs_expected(s, stage + 1, codec->id);
    if (!expected || event->rows > s->window_tokens || bytes == 0 ||
        (event->wrap == WIRE_PLAIN && event->block->bytes != bytes)) {
        base_fail(err, MCP_EFORMAT, "%u rows of %zu bytes in codec %s, which were not asked for",
                  event->rows, event->block->bytes, codec->name);
        return NULL;
    }
    rows = event->wrap == WIRE_PLAIN ? pipe_block_ref(event->block)
                                     : pipe_block_new(codec->id, event->rows, bytes / event->rows);
    if (rows == NULL) {
        base_fail(err, MCP_ENOMEM, "%u rows", event->rows);
        return NULL;
    }
    if (event->wrap != WIRE_PLAIN)
        rc = wire_unwrap(event->wrap, codec, rows->data, bytes, event->block->data,
                         event->block->bytes, err);
    if (rc == MCP_OK)
        rc = check_values(s, codec, rows, elems, err);
    if (rc < 0) {
        pipe_block_unref(rows);
        return NULL;
    }
    return rows;
}

static void lose(struct mcp_session *s, struct session_endpoint *e, const struct wire_status *why,
                 double now_ms)
{
    struct session_stage *st = &s->stages[e->stage];
    uint32_t              worker = endpoint_worker(e->remote);
    uint32_t              number = e->number, stage = e->stage;
    bool                  resuming = e->resuming;

    wire_status_fail(why, &s->last_loss);
    if (s->last_loss.code == 0)
        base_fail(&s->last_loss, MCP_EUNAVAIL, "the worker ended the session");
    drive_block(s, worker, why, now_ms);
    base_log(BASE_LOG_INFO, "layers [%u, %u) lost worker %s: %s", st->first, st->last,
             s->remote->links[worker].endpoint, s->last_loss.text);
    drive_close_endpoint(s, e);
    if (resuming) { /* the pipeline has not heard of it: the stage waits again */
        drive_wait(st, now_ms);
        seek(s, stage, now_ms);
    } else {
        pipeline_lost(s->pipeline, now_ms, number, &s->last_loss);
    }
}

static void on_result(struct mcp_session *s, struct session_endpoint *e, struct mail_event *event,
                      double now_ms)
{
    struct pipe_block *rows = NULL;
    mcp_error          err = { 0 };

    if (event->block != NULL) {
        rows = checked_rows(s, e->stage, event, &err);
        if (rows == NULL) {
            struct wire_status why = wire_status_of(err.code, &err);

            lose(s, e, &why, now_ms);
            return;
        }
    }
    pipeline_result(s->pipeline, now_ms, e->number, event->number, rows, event->timing);
    pipe_block_unref(rows);
}

static void on_mail(struct mcp_session *s, struct mail_event *event, double now_ms)
{
    struct session_endpoint *e = find(s, event->endpoint);
    struct pipe_opened       opened;

    if (event->kind == MAIL_PLACES) {
        seek_all(s, now_ms);
        return;
    }
    if (e == NULL || e->remote == NULL)
        return; /* of an endpoint that was closed meanwhile */
    switch (event->kind) {
    case MAIL_OPENED:
        opened = (struct pipe_opened){ .length = event->opened.length,
                                       .epoch = event->opened.epoch,
                                       .windows_max = event->opened.windows_max,
                                       .even_windows = event->opened.even_windows };
        if (e->resuming) {
            e->resuming = false;
            pipeline_opened(s->pipeline, now_ms, e->stage, e->number, &opened);
        }
        break;
    case MAIL_RESULT: on_result(s, e, event, now_ms); break;
    case MAIL_LOST: lose(s, e, &event->status, now_ms); break;
    case MAIL_DRAINING: pipeline_draining(s->pipeline, now_ms, e->number); break;
    default: break;
    }
}

/* ---- running ------------------------------------------------------------------------------------------------------------ */

/* Everything that can be done without waiting, or else a wait. */
int drive_turn(struct mcp_session *s, mcp_error *err)
{
    struct mail_event *event;
    bool               starved = false, any = false;
    double             now;
    int                rc = do_acts(s, err);

    if (rc != 0)
        return rc < 0 ? rc : MCP_OK;
    while (s->mail != NULL && (event = mail_take(s->mail, &starved)) != NULL) {
        on_mail(s, event, base_clock_ms());
        mail_event_free(event);
        any = true;
    }
    if (starved)
        return base_fail(err, MCP_ENOMEM, "an answer from a worker");
    if (session_cancelled(s))
        return base_fail(err, MCP_ECANCELED, "the answer was cancelled");
    if (any)
        return MCP_OK;
    if (s->jobs != NULL)
        return run_job(s, err);
    now = base_clock_ms();
    seek_all(s, now);
    rc = do_acts(s, err);
    if (rc == 0 && s->mail != NULL)
        mail_wait(s->mail, now + POLL_MS);
    return rc < 0 ? rc : MCP_OK;
}

/* After a failure: what was on its way is void, everything stands at s->count.  Also without
 * memory: then a stage elsewhere learns of it with its next frame, or is fed anew. */
static void recover(struct mcp_session *s)
{
    forget_jobs(s, NULL);
    drive_taken(s);
    if (s->failed) /* a pipeline that has failed begins anew, or not at all */
        s->count = 0;
    s->failed = false;
    if (pipeline_trim(s->pipeline, base_clock_ms(), s->count, NULL) == MCP_OK)
        (void)do_acts(s, NULL);
    for (const struct session_endpoint *e = s->endpoints; e != NULL; e = e->next)
        if (e->engine != NULL)
            (void)engine_trim(e->engine, s->seq, s->count, NULL);
}

int drive_advance(struct mcp_session *s, const int32_t *tokens, uint32_t count, bool logits,
                  mcp_error *err)
{
    uint32_t base = s->count, sent = 0;
    uint64_t number = 0;
    int      rc = MCP_OK;

    if (s->remote != NULL)
        atomic_fetch_add(&s->remote->computing, 1);
    while (rc == MCP_OK && (sent < count || s->output_number < number)) {
        uint32_t left = count - sent;
        uint32_t take = layout_window(s, base + sent, left);
        int      busy = MCP_EBUSY;

        if (left > 0)
            codecs_choose(s, base + sent, take);
        if (left > 0)
            busy = pipeline_submit(s->pipeline, base_clock_ms(), tokens + sent, take,
                                   logits && take == left ? PIPE_WANT_LAST : PIPE_WANT_NONE,
                                   &number, err);
        if (busy == MCP_OK) {
            codecs_taken(s);
            layout_note(s, base + sent, take);
            sent += take;
            s->window_end[number % PIPE_WINDOWS_MAX] = base + sent;
        } else if (busy != MCP_EBUSY)
            rc = busy;
        /* Feed the pipeline before waiting for it. */
        if (rc == MCP_OK)
            rc = busy == MCP_OK ? do_acts(s, err) : drive_turn(s, err);
        if (rc > 0)
            rc = MCP_OK;
    }
    if (s->remote != NULL)
        atomic_fetch_sub(&s->remote->computing, 1);
    if (rc < 0) {
        recover(s);
        return rc;
    }
    memmove(s->tokens + base, tokens, count * sizeof(*tokens));
    return MCP_OK;
}

int drive_trim(struct mcp_session *s, uint32_t pos, mcp_error *err)
{
    int rc;

    if (pos >= pipeline_length(s->pipeline))
        return MCP_OK;
    rc = pipeline_trim(s->pipeline, base_clock_ms(), pos, err);
    if (rc == MCP_OK)
        rc = do_acts(s, err);
    if (rc < 0)
        return rc;
    s->count = pos;
    return MCP_OK;
}

/* ---- windows that hold guesses ---------------------------------------------------------------------- */

int drive_send(struct mcp_session *s, const int32_t *tokens, uint32_t count, mcp_error *err)
{
    uint32_t end = pipeline_length(s->pipeline) + count;
    uint64_t number;
    int      rc;

    codecs_choose(s, end - count, count);
    /* One row comes by the way of plain decoding. */
    rc = pipeline_submit(s->pipeline, base_clock_ms(), tokens, count,
                         count == 1 ? PIPE_WANT_LAST : PIPE_WANT_ALL, &number, err);
    if (rc < 0)
        return rc;
    codecs_taken(s);
    s->window_end[number % PIPE_WINDOWS_MAX] = end;
    rc = do_acts(s, err);
    return rc < 0 ? rc : MCP_OK;
}

void drive_taken(struct mcp_session *s)
{
    pipe_block_unref(s->output.rows);
    s->output = (struct session_output){ 0 };
}

void drive_end(struct mcp_session *s, int rc)
{
    s->guessing = false;
    drive_taken(s);
    if (rc < 0)
        recover(s);
}
