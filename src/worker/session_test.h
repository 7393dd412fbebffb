/* worker/session_test.h - sessions on a real worker, and the oracle for what they compute.
 *
 * Oracle: an engine of the test's own with all layers, which computes the same windows one by
 * one.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_SESSION_TEST_H
#define WORKER_SESSION_TEST_H

#include "worker/rig_test.h"
#include "worker/stream.h"

/* ---- Execute ------------------------------------------------------------------------ */

static inline struct rig_call *rig_execute(struct rig_client *c, const char *const *metadata)
{
    const struct wire_channel_opts opts = { .worker = false, .payload_max = 64 << 20 };
    struct wire_channel_opts       own = opts;
    struct rig_call               *call = calloc(1, sizeof(*call));
    mcp_error                      err;

    assert_non_null(call);
    call->client = c;
    call->path = WIRE_PATH_EXECUTE;
    call->metadata = metadata;
    assert_int_equal(wire_pace_init(&call->pace), 0);
    own.pace = &call->pace;
    unit_ok(wire_channel_new(&call->channel, &own, &err), &err);
    rig_on_loop(c, rig_call_now, call);
    return call;
}

static inline void rig_send_now(void *ctx)
{
    struct rig_call *call = ctx;
    mcp_error        err;

    if (call->stream == NULL)
        return; /* it has ended: the status tells */
    rig_must(wire_channel_send(call->channel, call->frame, NULL, NULL, &err), &err);
    rig_pump(call);
}

static inline void rig_send(struct rig_call *call, const struct wire_frame *frame)
{
    call->frame = frame;
    rig_on_loop(call->client, rig_send_now, call);
}

/* The next frame must be of this kind; its payload lives until it is freed. */
static inline struct rig_news *rig_expect(struct rig_call *call, enum wire_kind kind)
{
    struct rig_news *news = rig_take(call);

    if (news->frame.kind != kind)
        fail_msg("a frame %s came, not %s", wire_kind_name(news->frame.kind), wire_kind_name(kind));
    return news;
}

/* End the session, so that its place is free, and the call. */
static inline void rig_close(struct rig_call *call)
{
    const struct wire_frame frame = { .kind = WIRE_CLOSE };

    rig_send(call, &frame);
    rig_status(call);
    rig_drop(call);
}

static inline struct wire_open rig_open_frame(uint8_t id, uint32_t first, uint32_t last)
{
    struct wire_open open = { .first = first, .last = last };
    mcp_error        err;

    memset(open.session, id, sizeof(open.session));
    unit_ok(model_fingerprint(rig_model_open, open.model, &err), &err);
    return open;
}

static inline struct wire_opened rig_open_with(struct rig_call *call, const struct wire_open *open)
{
    const struct wire_frame frame = { .kind = WIRE_OPEN, .u.open = *open };
    struct rig_news        *news;
    struct wire_opened      opened;

    rig_send(call, &frame);
    news = rig_expect(call, WIRE_OPENED);
    opened = news->frame.u.opened;
    free(news);
    return opened;
}

/* A session `id` over layers [first, last) on a stream of its own. */
static inline struct rig_call *rig_session(struct rig_client *c, uint8_t id, uint32_t first,
                                           uint32_t last)
{
    const struct wire_open open = rig_open_frame(id, first, last);
    struct rig_call       *call = rig_execute(c, NULL);

    rig_open_with(call, &open);
    return call;
}

/* A window of hidden states in f32, all rows wanted back. */
static inline struct wire_frame rig_window(uint64_t number, uint32_t pos, uint32_t count,
                                           const float *hidden)
{
    struct wire_frame    frame = { .kind = WIRE_FORWARD };
    struct wire_forward *f = &frame.u.forward;

    f->number = number;
    f->pos = pos;
    f->count = count;
    f->want = WIRE_WANT_HIDDEN;
    f->bulk = count > 16;
    f->in.codec = WIRE_F32;
    f->in.data = (const uint8_t *)hidden;
    f->in.bytes = (size_t)count * rig_model_open->hp.n_embd * sizeof(float);
    f->in.total = f->in.bytes;
    return frame;
}

static inline struct wire_frame rig_tokens(uint64_t number, uint32_t pos, uint32_t count,
                                           const int32_t *tokens, enum wire_want want)
{
    struct wire_frame    frame = { .kind = WIRE_FORWARD };
    struct wire_forward *f = &frame.u.forward;

    f->number = number;
    f->pos = pos;
    f->count = count;
    f->want = want;
    f->tokens = tokens;
    f->token_count = count;
    return frame;
}

static inline struct wire_frame rig_trim(uint32_t epoch, uint32_t pos)
{
    struct wire_frame frame = { .kind = WIRE_TRIM };

    frame.u.trim.epoch = epoch;
    frame.u.trim.pos = pos;
    return frame;
}

/* The Result of window `number`: its rows, f32, are those expected. */
static inline void rig_result(struct rig_call *call, uint64_t number, uint32_t rows, uint32_t width,
                              const float *expected)
{
    struct rig_news          *news = rig_expect(call, WIRE_RESULT);
    const struct wire_result *r = &news->frame.u.result;
    float                    *got = run_floats((size_t)rows * width);

    assert_int_equal(r->number, number);
    assert_int_equal(r->rows, rows);
    assert_int_equal(r->out.bytes, rows * width * sizeof(float));
    if (rows > 0)
        memcpy(got, r->out.data, r->out.bytes);
    run_rows_equal(got, expected, rows, width, "a window");
    free(got);
    free(news);
}

/* ---- whole calls -------------------------------------------------------------------- */

/* One message and its one answer. */
static inline struct rig_news *rig_ask(struct rig_client *client, const char *path,
                                       const void *bytes, size_t count)
{
    struct rig_call *call = rig_call(client, path, NULL);
    struct rig_news *news;

    rig_send_bytes(call, bytes, count);
    rig_half_close(call);
    news = rig_take(call);
    rig_ended(call, WIRE_OK, "");
    rig_drop(call);
    return news;
}

/* A session over layers [1, 3) can be opened so, or the call ends so. */
static inline void rig_opens(struct rig_client *client, const char *const *metadata,
                             enum wire_qos qos)
{
    struct wire_open open = rig_open_frame(3, 1, 3);
    struct rig_call *call = rig_execute(client, metadata);

    open.qos = qos;
    rig_open_with(call, &open);
    rig_close(call);
}

static inline void rig_open_refused(struct rig_client *client, const char *const *metadata,
                                    enum wire_qos qos, int code, const char *about)
{
    struct wire_frame frame = { .kind = WIRE_OPEN, .u.open = rig_open_frame(3, 1, 3) };
    struct rig_call  *call = rig_execute(client, metadata);

    frame.u.open.qos = qos;
    rig_send(call, &frame);
    rig_ended(call, code, about);
    rig_drop(call);
}

/* Something done to a stream on its loop. */
struct rig_meddling {
    struct net_work       work;
    struct worker_stream *stream;
    void (*change)(struct worker_stream *s);
};

static inline void rig_meddle_now(struct net_work *work)
{
    struct rig_meddling *m = (struct rig_meddling *)(void *)work;

    m->change(m->stream);
    worker_call_unref(&m->stream->call);
    free(m);
}

static inline void rig_meddle(struct mcp_worker *w, void (*change)(struct worker_stream *s))
{
    struct rig_meddling *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    m->work.run = rig_meddle_now;
    m->change = change;
    pthread_mutex_lock(&w->service.lock);
    m->stream = worker_stream_of(w->service.calls);
    worker_call_ref(&m->stream->call);
    net_loop_post(m->stream->call.loop, &m->work);
    pthread_mutex_unlock(&w->service.lock);
}

/* ---- the oracle --------------------------------------------------------------------- */

/* A conversation of random tokens, with the state before layer `first` and after layer last-1 of
 * every position, computed here in windows that end at the given positions. */
struct rig_story {
    uint32_t first, last, count;
    int32_t *tokens;
    float   *in;     /* (count, n_embd) */
    float   *out;    /* (count, n_embd) */
    float   *logits; /* (count, n_vocab) */
};

static inline void rig_tell_window(struct mcp_engine *e, struct rig_story *story, uint32_t pos,
                                   uint32_t count)
{
    uint32_t   n = e->model->hp.n_embd, v = e->model->hp.n_vocab;
    mcp_window w = {
        .pos = pos, .count = count, .tokens = story->tokens + pos, .out = MCP_OUT_ALL
    };
    mcp_error err;

    if (story->first > 0) {
        unit_ok(engine_forward(e, 0, story->first, MCP_WANT_HIDDEN, &w, 1,
                               story->in + (size_t)pos * n, (size_t)count * n, &err),
                &err);
        w.tokens = NULL;
        w.hidden = story->in + (size_t)pos * n;
    }
    if (story->last == e->model->hp.n_layer) {
        unit_ok(engine_forward(e, story->first, story->last, MCP_WANT_LOGITS, &w, 1,
                               story->logits + (size_t)pos * v, (size_t)count * v, &err),
                &err);
    } else {
        unit_ok(engine_forward(e, story->first, story->last, MCP_WANT_HIDDEN, &w, 1,
                               story->out + (size_t)pos * n, (size_t)count * n, &err),
                &err);
    }
}

/* `ends`: where windows end, ascending; the last is the length. */
static inline struct rig_story *rig_tell(uint32_t first, uint32_t last, const uint32_t *ends,
                                         size_t end_count, uint64_t seed)
{
    mcp_engine_opts    opts = rig_engine_opts(0, 0);
    struct mcp_engine *e;
    struct rig_story  *story = calloc(1, sizeof(*story));
    uint32_t           pos = 0;

    assert_non_null(story);
    opts.seqs = 1;
    e = run_engine(rig_model_open, &opts);
    story->first = first;
    story->last = last;
    story->count = ends[end_count - 1];
    story->tokens = calloc(story->count, sizeof(int32_t));
    story->in = run_floats((size_t)story->count * e->model->hp.n_embd);
    story->out = run_floats((size_t)story->count * e->model->hp.n_embd);
    story->logits = run_floats((size_t)story->count * e->model->hp.n_vocab);
    assert_non_null(story->tokens);
    run_tokens(&seed, story->tokens, story->count, e->model->hp.n_vocab);
    for (size_t i = 0; i < end_count; i++) {
        rig_tell_window(e, story, pos, ends[i] - pos);
        pos = ends[i];
    }
    engine_close(e);
    return story;
}

static inline void rig_story_free(struct rig_story *story)
{
    free(story->tokens);
    free(story->in);
    free(story->out);
    free(story->logits);
    free(story);
}

static inline uint32_t rig_embd(void)
{
    return rig_model_open->hp.n_embd;
}

/* Positions [pos, pos + count) of the story as a window. */
static inline struct wire_frame rig_part(const struct rig_story *story, uint64_t number,
                                         uint32_t pos, uint32_t count)
{
    return rig_window(number, pos, count, story->in + (size_t)pos * rig_embd());
}

static inline void rig_part_result(struct rig_call *call, const struct rig_story *story,
                                   uint64_t number, uint32_t pos, uint32_t count)
{
    rig_result(call, number, count, rig_embd(), story->out + (size_t)pos * rig_embd());
}

#endif
