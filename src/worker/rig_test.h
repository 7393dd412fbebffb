/* worker/rig_test.h - a real worker on the loopback, and a client that waits
 * for what it says.
 *
 * The client's stream lives on a loop of its own; the test's thread sends
 * frames and takes what has come, in order.  Oracle: an engine of the test's
 * own with all layers, which computes the same windows one by one.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WORKER_RIG_TEST_H
#define WORKER_RIG_TEST_H

#include "base/clock.h"
#include "engine/run_test.h"
#include "guard/keys.h"
#include "guard/token.h"
#include "net/net.h"
#include "wire/channel.h"
#include "wire/codec.h"
#include "wire/describe.h"
#include "worker/worker.h"

#include <pthread.h>

/* For callbacks: cmocka's failures jump, which only the test's thread may. */
static inline void rig_must(int rc, const mcp_error *err)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "%s: %s\n", mcp_code_name(rc), err->text);
    abort();
}

/* Time for an answer: far more than any takes, also under a sanitizer on a busy
 * machine. */
#define RIG_WAIT_MS 20000.0

/* ---- the worker
 * ----------------------------------------------------------------------------
 */

enum { RIG_CTX = 256, RIG_BATCH = 128, RIG_SESSIONS = 6 };

static char              rig_keys[512];
static struct mcp_model *rig_model_open;

static inline void rig_keys_remove(void)
{
    char command[1200];

    snprintf(command, sizeof(command), "rm -rf '%s' '%s'-*", rig_keys, rig_keys);
    if (rig_keys[0] != '\0' && system(command) != 0)
        fprintf(stderr, "%s is left behind\n", rig_keys);
}

/* Keys and a model of 4 layers for the whole program. */
static inline void rig_begin(void)
{
    mcp_error err;

    snprintf(rig_keys, sizeof(rig_keys), "%s", unit_path("keys"));
    atexit(rig_keys_remove);
    unit_ok(guard_keys_init(rig_keys, NULL, &err), &err);
    rig_model_open = run_model(unit_synth("tiny.gguf", "tiny-llama", "q8_0", NULL));
}

static inline void rig_end(void)
{
    model_close(rig_model_open);
}

static inline mcp_engine_opts rig_engine_opts(uint32_t first, uint32_t last)
{
    mcp_engine_opts o = run_opts();

    o.first = first;
    o.last = last;
    o.seqs = RIG_SESSIONS;
    o.ctx_tokens = RIG_CTX;
    o.batch_tokens = o.ubatch_tokens = RIG_BATCH;
    o.even_windows = 1;
    return o;
}

static inline mcp_worker_opts rig_opts(void)
{
    mcp_worker_opts o = MCP_WORKER_OPTS_INIT;

    o.listen = "127.0.0.1:0";
    o.keys = rig_keys;
    o.chunk_tokens = 64;
    return o;
}

static inline struct mcp_worker *rig_worker(uint32_t first, uint32_t last,
                                            const mcp_worker_opts *opts)
{
    mcp_engine_opts    engine = rig_engine_opts(first, last);
    struct mcp_worker *w;
    mcp_error          err;

    unit_ok(worker_open(&w, rig_model_open, opts, &engine, &err), &err);
    return w;
}

/* ---- a client's connection
 * ------------------------------------------------------------------ */

struct rig_client {
    struct net_loop      *loop;
    struct net_conn      *conn;
    struct net_identity  *identity;
    struct guard_keyring *ring;
    pthread_mutex_t       lock; /* guards this and all its calls */
    pthread_cond_t        changed;
    bool                  down;
};

/* Run `fn` on the loop and wait for it. */
struct rig_errand {
    struct net_work    work;
    struct rig_client *client;
    void (*fn)(void *ctx);
    void *ctx;
    bool  done;
};

static inline void rig_run_errand(struct net_work *work)
{
    struct rig_errand *errand = (struct rig_errand *)(void *)work;

    errand->fn(errand->ctx);
    pthread_mutex_lock(&errand->client->lock);
    errand->done = true;
    pthread_cond_broadcast(&errand->client->changed);
    pthread_mutex_unlock(&errand->client->lock);
}

static inline void rig_wait(struct rig_client *c, const char *what)
{
    double          until_ms = base_clock_ms() + RIG_WAIT_MS;
    struct timespec until = { .tv_sec = (time_t)(until_ms / 1e3) };

    until.tv_nsec = (long)((until_ms - (double)until.tv_sec * 1e3) * 1e6);
    if (pthread_cond_timedwait(&c->changed, &c->lock, &until) != 0) {
        pthread_mutex_unlock(&c->lock);
        fail_msg("%s has not come", what);
    }
}

static inline void rig_on_loop(struct rig_client *c, void (*fn)(void *ctx), void *ctx)
{
    struct rig_errand errand = { .work.run = rig_run_errand, .client = c, .fn = fn, .ctx = ctx };

    net_loop_post(c->loop, &errand.work);
    pthread_mutex_lock(&c->lock);
    while (!errand.done)
        rig_wait(c, "an errand on the loop");
    pthread_mutex_unlock(&c->lock);
}

static inline void rig_down(struct net_conn *conn, void *ctx, const struct wire_status *why,
                            bool identity)
{
    struct rig_client *c = ctx;

    (void)conn;
    (void)why;
    (void)identity;
    pthread_mutex_lock(&c->lock);
    c->down = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static inline void rig_up(struct net_conn *conn, void *ctx, const struct net_peer *peer)
{
    (void)conn;
    (void)ctx;
    assert_string_equal(peer->role, "worker");
}

struct rig_dial {
    struct rig_client *client;
    const char        *endpoint;
    int                rc;
    mcp_error          err;
};

static inline void rig_dial_now(void *ctx)
{
    static const struct net_conn_ops ops = { .up = rig_up, .down = rig_down };
    struct rig_dial                 *d = ctx;

    d->rc = net_conn_dial(&d->client->conn, d->client->loop, d->endpoint, d->client->identity,
                          RIG_WAIT_MS, &ops, d->client, &d->err);
}

/* With the certificate of `role` in `folder`. */
static inline struct rig_client *rig_connect_as(const struct mcp_worker *w, const char *folder,
                                                const char *role)
{
    struct rig_client *c = calloc(1, sizeof(*c));
    struct rig_dial    dial = { .client = c, .endpoint = worker_address(w) };
    pthread_condattr_t attr;
    mcp_error          err;

    assert_non_null(c);
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &attr);
    pthread_condattr_destroy(&attr);
    unit_ok(guard_keyring_load(&c->ring, folder, &err), &err);
    unit_ok(net_identity_load(&c->identity, folder, role, c->ring, &err), &err);
    unit_ok(net_loop_open(&c->loop, &err), &err);
    rig_on_loop(c, rig_dial_now, &dial);
    unit_ok(dial.rc, &dial.err);
    return c;
}

static inline struct rig_client *rig_connect(const struct mcp_worker *w)
{
    return rig_connect_as(w, rig_keys, "client");
}

static inline void rig_disconnect(struct rig_client *c)
{
    net_loop_close(c->loop);
    net_identity_unref(c->identity);
    guard_keyring_unref(c->ring);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* ---- a call
 * ------------------------------------------------------------------------------------
 */

/* What has come: a frame with its payload behind it, or a plain message. */
struct rig_news {
    struct rig_news  *next;
    struct wire_frame frame;
    size_t            bytes;
    uint8_t           data[];
};

struct rig_call {
    struct rig_client   *client;
    struct net_stream   *stream;  /* loop's thread */
    struct wire_channel *channel; /* Execute only; loop's thread */
    struct wire_pace     pace;
    struct rig_news     *news, *news_tail;
    bool                 closed;
    struct wire_status   status;
    /* for errands */
    bool                     deaf;
    const char              *path;
    const char *const       *metadata;
    const struct wire_frame *frame;
    const void              *bytes;
    size_t                   count;
};

static inline void rig_pump(struct rig_call *call)
{
    const uint8_t *bytes;
    size_t         count;
    bool           bulk;

    while (call->stream != NULL && net_stream_room(call->stream) > 0 &&
           (bytes = wire_channel_next(call->channel, base_clock_ms(), &count, &bulk)) != NULL)
        net_stream_send(call->stream, bytes, count, bulk ? NET_BULK : NET_URGENT, NULL);
}

static inline void rig_keep(struct rig_call *call, const struct wire_frame *frame,
                            const uint8_t *bytes, size_t count)
{
    struct rig_news *news = calloc(1, sizeof(*news) + count);

    assert_non_null(news);
    news->frame = *frame;
    news->bytes = count;
    if (count > 0)
        memcpy(news->data, bytes, count);
    if (wire_frame_payload(&news->frame) != NULL)
        wire_frame_payload(&news->frame)->data = news->data;
    pthread_mutex_lock(&call->client->lock);
    if (call->news_tail != NULL)
        call->news_tail->next = news;
    else
        call->news = news;
    call->news_tail = news;
    pthread_cond_broadcast(&call->client->changed);
    pthread_mutex_unlock(&call->client->lock);
}

static inline void rig_message(struct net_stream *stream, void *ctx, const uint8_t *bytes,
                               size_t count)
{
    struct rig_call     *call = ctx;
    struct wire_frame    frame = { 0 };
    struct wire_payload *payload;
    mcp_error            err = { 0 };
    int                  rc;

    (void)stream;
    if (call->channel == NULL) {
        rig_keep(call, &frame, bytes, count);
        return;
    }
    rc = wire_channel_receive(call->channel, base_clock_ms(), bytes, count, &frame, &err);
    rig_must(rc, &err);
    if (rc > 0) {
        payload = wire_frame_payload(&frame);
        rig_keep(call, &frame, payload != NULL ? payload->data : NULL,
                 payload != NULL ? payload->bytes : 0);
    }
    rig_pump(call);
}

static inline void rig_half_closed(struct net_stream *stream, void *ctx)
{
    (void)stream;
    (void)ctx;
}

static inline void rig_writable(struct net_stream *stream, void *ctx)
{
    (void)stream;
    if (((struct rig_call *)ctx)->channel != NULL)
        rig_pump(ctx);
}

static inline void rig_closed(struct net_stream *stream, void *ctx,
                              const struct wire_status *status)
{
    struct rig_call *call = ctx;

    (void)stream;
    pthread_mutex_lock(&call->client->lock);
    call->stream = NULL;
    call->closed = true;
    call->status = *status;
    pthread_cond_broadcast(&call->client->changed);
    pthread_mutex_unlock(&call->client->lock);
}

static inline void rig_call_now(void *ctx)
{
    static const struct net_stream_ops ops = { .message = rig_message,
                                               .half_closed = rig_half_closed,
                                               .writable = rig_writable,
                                               .closed = rig_closed };
    struct rig_call                   *call = ctx;
    mcp_error                          err = { 0 };

    rig_must(net_call_open(&call->stream, call->client->conn, call->path, 0.0, call->metadata, &ops,
                           call, &err),
             &err);
}

static inline struct rig_call *rig_call(struct rig_client *c, const char *path,
                                        const char *const *metadata)
{
    struct rig_call *call = calloc(1, sizeof(*call));

    assert_non_null(call);
    call->client = c;
    call->path = path;
    call->metadata = metadata;
    rig_on_loop(c, rig_call_now, call);
    return call;
}

static inline void rig_send_bytes_now(void *ctx)
{
    struct rig_call *call = ctx;

    if (call->stream != NULL)
        net_stream_send(call->stream, call->bytes, call->count, NET_URGENT, NULL);
}

static inline void rig_send_bytes(struct rig_call *call, const void *bytes, size_t count)
{
    call->bytes = bytes;
    call->count = count;
    rig_on_loop(call->client, rig_send_bytes_now, call);
}

static inline void rig_end_now(void *ctx)
{
    struct rig_call *call = ctx;

    if (call->stream != NULL)
        net_stream_end(call->stream);
}

static inline void rig_half_close(struct rig_call *call)
{
    rig_on_loop(call->client, rig_end_now, call);
}

static inline void rig_deafen_now(void *ctx)
{
    struct rig_call *call = ctx;

    if (call->stream != NULL)
        net_stream_pause(call->stream, call->deaf);
}

/* Read nothing from now on, and so acknowledge nothing; or read again. */
static inline void rig_deafen(struct rig_call *call, bool deaf)
{
    call->deaf = deaf;
    rig_on_loop(call->client, rig_deafen_now, call);
}

/* The next thing that has come, to be freed. */
static inline struct rig_news *rig_take(struct rig_call *call)
{
    struct rig_news *news;

    pthread_mutex_lock(&call->client->lock);
    while (call->news == NULL) {
        if (call->closed) {
            pthread_mutex_unlock(&call->client->lock);
            fail_msg("the call ended with %s: %s", wire_status_name(call->status.code),
                     call->status.text);
        }
        rig_wait(call->client, "a message");
    }
    news = call->news;
    call->news = news->next;
    if (call->news == NULL)
        call->news_tail = NULL;
    pthread_mutex_unlock(&call->client->lock);
    return news;
}

static inline struct wire_status rig_status(struct rig_call *call)
{
    struct wire_status status;

    pthread_mutex_lock(&call->client->lock);
    while (!call->closed)
        rig_wait(call->client, "the end of a call");
    status = call->status;
    pthread_mutex_unlock(&call->client->lock);
    return status;
}

static inline void rig_ended(struct rig_call *call, int code, const char *about)
{
    struct wire_status status = rig_status(call);

    if (status.code != code)
        fail_msg("ended with %s (%s), not %s: looking for '%s'", wire_status_name(status.code),
                 status.text, wire_status_name(code), about);
    if (strstr(status.text, about) == NULL || strchr(status.text, '\n') != NULL)
        fail_msg("the sentence '%s' does not say '%s'", status.text, about);
}

static inline void rig_drop_now(void *ctx)
{
    struct rig_call *call = ctx;

    if (call->stream != NULL)
        net_stream_cancel(call->stream);
}

/* Cancel when it still runs, wait for the end, free. */
static inline void rig_drop(struct rig_call *call)
{
    rig_on_loop(call->client, rig_drop_now, call);
    rig_status(call);
    while (call->news != NULL) {
        struct rig_news *next = call->news->next;

        free(call->news);
        call->news = next;
    }
    wire_channel_free(call->channel);
    if (call->channel != NULL)
        wire_pace_fini(&call->pace);
    free(call);
}

/* ---- Execute
 * ------------------------------------------------------------------------------------
 */

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

/* ---- the oracle
 * ---------------------------------------------------------------------------------
 */

/* A conversation of random tokens, with the state before layer `first` and
 * after layer last-1 of every position, computed here in windows that end at
 * the given positions. */
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
