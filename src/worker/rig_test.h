/* worker/rig_test.h - a real worker on the loopback, and a client that waits for what it says.
 *
 * The client's calls live on a loop of its own; the test's thread sends messages and takes what
 * has come, in order.
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

#include <ftw.h>
#include <pthread.h>

/* For callbacks: cmocka's failures jump, which only the test's thread may. */
static inline void rig_must(int rc, const mcp_error *err)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "%s: %s\n", mcp_code_name(rc), err->text);
    abort();
}

/* Time for an answer: far more than any takes, also under a sanitizer on a busy machine. */
#define RIG_WAIT_MS 20000.0

/* ---- the worker --------------------------------------------------------------------- */

/* What is to meet in one batch may miss each other on a busy machine: then again, at most
 * RIG_ROUNDS times. */
enum { RIG_CTX = 256, RIG_BATCH = 128, RIG_SESSIONS = 6, RIG_ROUNDS = 20 };

static char              rig_keys[512];
static struct mcp_model *rig_model_open;

static inline int rig_remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

/* Before unit_folder_remove(), which knows no folders in folders. */
static inline void rig_remove(void)
{
    enum { DESCRIPTORS = 8 };

    (void)nftw(unit_folder, rig_remove_one, DESCRIPTORS, FTW_DEPTH | FTW_PHYS);
}

/* Keys and a model of 4 layers for the whole program. */
static inline void rig_begin(void)
{
    mcp_error err;

    snprintf(rig_keys, sizeof(rig_keys), "%s", unit_path("keys"));
    atexit(rig_remove);
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

/* Until so many Execute streams are open. */
static inline void rig_wait_for_streams(struct mcp_worker *w, uint32_t wanted)
{
    double until_ms = base_clock_ms() + RIG_WAIT_MS;

    for (uint32_t count = wanted + 1; count != wanted; usleep(1000)) {
        assert_true(base_clock_ms() < until_ms);
        pthread_mutex_lock(&w->service.lock);
        count = w->service.stream_count;
        pthread_mutex_unlock(&w->service.lock);
    }
}

/* ---- a client's connection ---------------------------------------------------------- */

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

/* The end of a group with one client and one worker. */
static inline int rig_finish(struct rig_client *client, struct mcp_worker *worker)
{
    rig_disconnect(client);
    worker_close(worker);
    rig_end();
    return 0;
}

/* ---- a call ------------------------------------------------------------------------- */

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

/* The same, but it stays. */
static inline const struct rig_news *rig_look(struct rig_call *call)
{
    const struct rig_news *news;

    pthread_mutex_lock(&call->client->lock);
    while (call->news == NULL && !call->closed)
        rig_wait(call->client, "a message");
    news = call->news;
    pthread_mutex_unlock(&call->client->lock);
    if (news == NULL)
        fail_msg("the call ended with %s: %s", wire_status_name(call->status.code),
                 call->status.text);
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

#endif
