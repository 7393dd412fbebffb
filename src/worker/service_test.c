/* worker/service_test.c - the calls around Execute, what a worker tells of itself, and how it ends.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/session_test.h"

enum { FIRST = 1, LAST = 3 };

static int begin(void **state)
{
    (void)state;
    rig_begin();
    return 0;
}

static int end(void **state)
{
    (void)state;
    rig_end();
    return 0;
}

/* ---- Describe and the like ---------------------------------------------------------- */

/* Goal:   Describe says what the worker is, for a part of a model and for the whole. */
static void describe_tells_what_is_here(void **state)
{
    static const uint32_t ranges[][2] = { { FIRST, LAST }, { 0, 4 } };
    uint8_t               print[MCP_FINGERPRINT_BYTES];
    mcp_error             err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(ranges); i++) {
        const mcp_worker_opts opts = rig_opts();
        struct mcp_worker    *w = rig_worker(ranges[i][0], ranges[i][1], &opts);
        struct rig_client    *client = rig_connect(w);
        struct rig_news      *news = rig_ask(client, WIRE_PATH_DESCRIBE, "", 0);
        struct wire_describe *d = calloc(1, sizeof(*d));
        bool                  generates = false;

        assert_non_null(d);
        unit_ok(wire_describe_decode(d, news->data, news->bytes, &err), &err);
        assert_string_equal(d->version, mcp_version());
        assert_string_equal(d->name, "worker");
        assert_string_equal(d->model.architecture, "llama");
        unit_ok(model_fingerprint(rig_model_open, print, &err), &err);
        assert_memory_equal(d->model.fingerprint, print, sizeof(print));
        assert_int_equal(d->model.layers, 4);
        assert_int_equal(d->model.first, ranges[i][0]);
        assert_int_equal(d->model.last, ranges[i][1]);
        assert_int_equal(d->model.n_embd, rig_embd());
        for (uint32_t l = ranges[i][0]; l < ranges[i][1]; l++) {
            unit_ok(model_weights_fingerprint(rig_model_open, (int)l, print, &err), &err);
            assert_memory_equal(d->model.weights[l - ranges[i][0]], print, sizeof(print));
        }
        assert_int_equal(d->capacity.sessions, RIG_SESSIONS);
        assert_int_equal(d->capacity.sessions_free, RIG_SESSIONS);
        assert_int_equal(d->capacity.ctx_tokens, RIG_CTX);
        assert_int_equal(d->capacity.batch_tokens, RIG_BATCH);
        assert_true(d->capacity.even_windows);
        assert_int_equal(d->codecs, (1 << WIRE_CODECS) - 1);
        assert_int_equal(d->wraps, (1 << WIRE_WRAPS) - 1);
        assert_false(d->draining);
        assert_string_equal(d->degraded, "");
        for (uint32_t f = 0; f < d->feature_count; f++)
            generates = generates || strcmp(d->features[f], "generate") == 0;
        assert_int_equal(generates, ranges[i][1] - ranges[i][0] == 4);
        wire_describe_fini(d);
        free(d);
        free(news);
        rig_disconnect(client);
        worker_close(w);
    }
}

static void probe_answers_with_the_bytes_asked_for(void **state)
{
    static const uint32_t sizes[] = { 0, 1, 5000, WIRE_PROBE_BYTES_MAX };
    const mcp_worker_opts opts = rig_opts();
    struct mcp_worker    *w = rig_worker(FIRST, LAST, &opts);
    struct rig_client    *client = rig_connect(w);
    struct rig_call      *call = rig_call(client, WIRE_PATH_PROBE, NULL);
    uint8_t               message[64];

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(sizes); i++) {
        const struct wire_probe request = { .stamp = 70 + i, .reply_bytes = sizes[i] };
        struct wire_probe       reply = { 0 };
        struct rig_news        *news;
        mcp_error               err;

        rig_send_bytes(call, message,
                       wire_probe_encode(&request, WIRE_REQUEST, message, sizeof(message)));
        news = rig_take(call);
        unit_ok(wire_probe_decode(&reply, WIRE_REPLY, news->data, news->bytes, &err), &err);
        assert_int_equal(reply.stamp, 70 + i);
        assert_int_equal(reply.bytes, sizes[i]);
        free(news);
    }
    rig_half_close(call);
    rig_ended(call, WIRE_OK, "");
    rig_drop(call);
    rig_disconnect(client);
    worker_close(w);
}

/* Goal:   a client that asks for more than it reads gets all of it later, and is not read from
 *         meanwhile.
 * Method: 16 MiB are asked for while nothing is read: more than window and queue hold. */
static void probe_waits_for_a_slow_reader(void **state)
{
    enum { COUNT = 16 };
    const mcp_worker_opts opts = rig_opts();
    struct mcp_worker    *w = rig_worker(FIRST, LAST, &opts);
    struct rig_client    *client = rig_connect(w);
    struct rig_call      *call = rig_call(client, WIRE_PATH_PROBE, NULL);
    uint8_t               message[64];
    mcp_error             err;

    (void)state;
    rig_deafen(call, true);
    for (uint32_t i = 0; i < COUNT; i++) {
        const struct wire_probe request = { .stamp = i, .reply_bytes = WIRE_PROBE_BYTES_MAX };

        rig_send_bytes(call, message,
                       wire_probe_encode(&request, WIRE_REQUEST, message, sizeof(message)));
    }
    rig_half_close(call);
    usleep(50000);
    rig_deafen(call, false);
    for (uint32_t i = 0; i < COUNT; i++) {
        struct rig_news  *news = rig_take(call);
        struct wire_probe reply = { 0 };

        unit_ok(wire_probe_decode(&reply, WIRE_REPLY, news->data, news->bytes, &err), &err);
        assert_int_equal(reply.stamp, i);
        assert_int_equal(reply.bytes, WIRE_PROBE_BYTES_MAX);
        free(news);
    }
    rig_ended(call, WIRE_OK, "");
    rig_drop(call);
    rig_disconnect(client);
    worker_close(w);
}

static void calls_that_mean_nothing_are_refused(void **state)
{
    static const struct {
        const char *path, *bytes;
        size_t      count;
        int         code;
        const char *about;
    } rows[] = {
        { "/mcp.v1.Compute/Nothing", "", 0, WIRE_UNIMPLEMENTED, "/mcp.v1.Compute/Nothing" },
        { WIRE_PATH_DESCRIBE, NULL, 0, WIRE_INVALID_ARGUMENT, "none came" },
        { WIRE_PATH_WATCH, NULL, 0, WIRE_INVALID_ARGUMENT, "none came" },
        { WIRE_PATH_WATCH, "\x08\x05", 2, WIRE_INVALID_ARGUMENT, "every_ms is 5" },
        { WIRE_PATH_PROBE, "\xff", 1, WIRE_INVALID_ARGUMENT, "" },
        { WIRE_PATH_HEALTH_CHECK, "\xff", 1, WIRE_INVALID_ARGUMENT, "" },
        { WIRE_PATH_REFLECTION, "\xff", 1, WIRE_INVALID_ARGUMENT, "" },
    };
    const mcp_worker_opts opts = rig_opts();
    struct mcp_worker    *w = rig_worker(FIRST, LAST, &opts);
    struct rig_client    *client = rig_connect(w);

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct rig_call *call = rig_call(client, rows[i].path, NULL);

        if (rows[i].bytes != NULL)
            rig_send_bytes(call, rows[i].bytes, rows[i].count);
        rig_half_close(call);
        rig_ended(call, rows[i].code, rows[i].about);
        rig_drop(call);
    }
    rig_disconnect(client);
    worker_close(w);
}

static bool serving(const struct rig_news *news)
{
    uint8_t  *bytes = NULL;
    size_t    count = 0;
    bool      same;
    mcp_error err;

    unit_ok(wire_health_answer((const uint8_t *)"", 0, true, &bytes, &count, &err), &err);
    same = news->bytes == count && memcmp(news->data, bytes, count) == 0;
    free(bytes);
    return same;
}

/* Goal:   health, Watch and Describe tell the drain; running sessions hear of it; new ones are
 *         refused; the worker has drained when the last session has left.
 * Method: one of each, and a drain in between. */
static void a_drain_is_told_and_ends(void **state)
{
    const mcp_worker_opts   opts = rig_opts();
    struct mcp_worker      *w = rig_worker(FIRST, LAST, &opts);
    struct rig_client      *client = rig_connect(w);
    struct rig_call        *session = rig_session(client, 1, FIRST, LAST), *late;
    struct rig_call        *watch = rig_call(client, WIRE_PATH_WATCH, NULL);
    struct rig_call        *health = rig_call(client, WIRE_PATH_HEALTH_WATCH, NULL);
    struct wire_watch_event event = { 0 };
    const struct wire_open  open = rig_open_frame(2, FIRST, LAST);
    const struct wire_frame frame = { .kind = WIRE_OPEN, .u.open = open };
    struct rig_news        *news;
    double                  since_ms;
    mcp_error               err;

    (void)state;
    news = rig_ask(client, WIRE_PATH_HEALTH_CHECK, "", 0);
    assert_true(serving(news));
    free(news);
    rig_send_bytes(watch, "\x08\x90\x4e", 3); /* every 10 s */
    rig_send_bytes(health, "", 0);
    news = rig_take(watch);
    unit_ok(wire_watch_event_decode(&event, news->data, news->bytes, &err), &err);
    assert_false(event.draining);
    assert_int_equal(event.capacity.sessions_free, RIG_SESSIONS - 1);
    free(news);
    news = rig_take(health);
    assert_true(serving(news));
    free(news);

    since_ms = base_clock_ms();
    worker_drain(w, 15000);
    worker_drain(w, 15000);
    assert_false(worker_wait(w, 0));
    news = rig_expect(session, WIRE_DRAINING);
    assert_in_range(news->frame.u.draining_within_ms, 10000, 15000);
    free(news);
    news = rig_take(watch);
    unit_ok(wire_watch_event_decode(&event, news->data, news->bytes, &err), &err);
    assert_true(event.draining);
    assert_in_range(event.within_ms, 10000, 15000);
    free(news);
    news = rig_take(health);
    assert_false(serving(news));
    free(news);
    late = rig_execute(client, NULL);
    rig_send(late, &frame);
    rig_ended(late, WIRE_UNAVAILABLE, "draining");

    rig_close(session);
    assert_true(worker_wait(w, 5000));
    assert_true(base_clock_ms() - since_ms < 10000.0);
    rig_drop(late);
    rig_drop(watch);
    rig_drop(health);
    rig_disconnect(client);
    worker_close(w);
}

/* Who does not leave in time is ended. */
static void a_drain_ends_who_stays(void **state)
{
    const mcp_worker_opts opts = rig_opts();
    struct mcp_worker    *w = rig_worker(FIRST, LAST, &opts);
    struct rig_client    *client = rig_connect(w);
    struct rig_call      *session = rig_session(client, 1, FIRST, LAST);

    (void)state;
    worker_drain(w, 150);
    free(rig_expect(session, WIRE_DRAINING));
    assert_true(worker_wait(w, 5000));
    rig_ended(session, WIRE_UNAVAILABLE, "drained");
    rig_drop(session);
    rig_disconnect(client);
    worker_close(w);
}

/* Goal:   close ends everything at once, with clients connected, windows queued and one running.
 */
static void close_ends_what_runs(void **state)
{
    static const char *const slow[] = { "mcp-debug-stall-ms", "100", NULL };
    static const uint32_t    ends[] = { 8, 16, 24 };
    const struct wire_open   open = rig_open_frame(1, FIRST, LAST);
    struct rig_story        *story = rig_tell(FIRST, LAST, ends, UNIT_COUNT(ends), 1);
    mcp_worker_opts          opts = rig_opts();
    struct mcp_worker       *w;
    struct rig_client       *client;
    struct rig_call         *session, *watch;

    (void)state;
    opts.debug_commands = 1;
    w = rig_worker(FIRST, LAST, &opts);
    client = rig_connect(w);
    session = rig_execute(client, slow);
    watch = rig_call(client, WIRE_PATH_WATCH, NULL);
    rig_send_bytes(watch, "", 0);
    rig_open_with(session, &open);
    for (uint32_t i = 0; i < UNIT_COUNT(ends); i++) {
        const struct wire_frame frame = rig_part(story, i, 8 * i, 8);

        rig_send(session, &frame);
    }
    worker_close(w);
    assert_int_equal(rig_status(session).code, WIRE_UNAVAILABLE);
    assert_int_equal(rig_status(watch).code, WIRE_UNAVAILABLE);
    rig_drop(session);
    rig_drop(watch);
    rig_disconnect(client);
    rig_story_free(story);
}

static void forget_progress(struct worker_stream *s)
{
    s->progress_ms -= 100000.0;
}

/* Goal:   a client that reads nothing for long is ended: what waits for it holds up its
 *         neighbours on the connection.
 * Method: one that reads nothing asks for more than its credit; the clock of its stream is put
 *         back. */
static void a_client_that_reads_nothing_for_long_is_ended(void **state)
{
    static const uint32_t ends[] = { 100 };
    const mcp_worker_opts opts = rig_opts();
    struct rig_story     *story = rig_tell(FIRST, LAST, ends, 1, 2);
    struct mcp_worker    *w = rig_worker(FIRST, LAST, &opts);
    struct rig_client    *client = rig_connect(w);
    struct rig_call      *call = rig_session(client, 6, FIRST, LAST);
    size_t                bytes = wire_codec_bytes(wire_codec_by_id(WIRE_Q4R), 100, rig_embd());
    uint8_t              *rows = malloc(bytes);

    (void)state;
    assert_non_null(rows);
    wire_codec_encode(wire_codec_by_id(WIRE_Q4R), rows, story->in, 100, rig_embd());
    rig_deafen(call, true);
    for (uint32_t i = 0; i < 10; i++) {
        struct wire_frame       frame = rig_part(story, i, 0, 100);
        const struct wire_frame trim = rig_trim(i + 1, 0);

        frame.u.forward.epoch = i;
        frame.u.forward.in = (struct wire_payload){
            .codec = WIRE_Q4R, .data = rows, .bytes = bytes, .total = bytes
        };
        rig_send(call, &frame);
        usleep(20000);
        rig_send(call, &trim);
    }
    rig_meddle(w, forget_progress);
    rig_wait_for_streams(w, 0);
    rig_deafen(call, false);
    rig_ended(call, WIRE_RESOURCE_EXHAUSTED, "nothing was read");
    rig_drop(call);
    free(rows);
    rig_disconnect(client);
    worker_close(w);
    rig_story_free(story);
}

/* A call that never opens a session does not stay. */
static void a_call_without_open_is_ended(void **state)
{
    const mcp_worker_opts opts = rig_opts();
    struct mcp_worker    *w = rig_worker(FIRST, LAST, &opts);
    struct rig_client    *client = rig_connect(w);
    struct rig_call      *call = rig_execute(client, NULL);

    (void)state;
    rig_wait_for_streams(w, 1);
    rig_meddle(w, forget_progress);
    rig_ended(call, WIRE_DEADLINE_EXCEEDED, "no Open");
    rig_drop(call);
    rig_disconnect(client);
    worker_close(w);
}

/* Goal:   a device that fails ends all sessions, and everybody hears of it.
 * Method: said to the service as the compute thread would. */
static void a_broken_device_is_told(void **state)
{
    const mcp_worker_opts opts = rig_opts();
    struct mcp_worker    *w = rig_worker(FIRST, LAST, &opts);
    struct rig_client    *client = rig_connect(w);
    struct rig_call      *call = rig_session(client, 1, FIRST, LAST);
    struct wire_describe *d = calloc(1, sizeof(*d));
    struct rig_news      *news;
    mcp_error             err;

    (void)state;
    assert_non_null(d);
    snprintf(err.text, sizeof(err.text), "it caught fire");
    pthread_mutex_lock(&w->service.lock);
    worker_service_break(&w->service, &err);
    pthread_mutex_unlock(&w->service.lock);
    rig_ended(call, WIRE_UNAVAILABLE, "it caught fire");
    rig_open_refused(client, NULL, WIRE_QOS_NORMAL, WIRE_UNAVAILABLE, "it caught fire");
    news = rig_ask(client, WIRE_PATH_HEALTH_CHECK, "", 0);
    assert_false(serving(news));
    free(news);
    news = rig_ask(client, WIRE_PATH_DESCRIBE, "", 0);
    unit_ok(wire_describe_decode(d, news->data, news->bytes, &err), &err);
    assert_non_null(strstr(d->degraded, "it caught fire"));
    wire_describe_fini(d);
    free(d);
    free(news);
    rig_drop(call);
    rig_disconnect(client);
    worker_close(w);
}

/* ---- opening, figures --------------------------------------------------------------- */

static void options_that_mean_nothing_are_refused(void **state)
{
    static const struct {
        const char *reserve, *about;
    } rows[] = {
        { "team", "'team' is not" },   { "=3", "'=3' is not" },
        { "a=", "'a=' is not" },       { "a=0", "'a=0' is not" },
        { "a=1,,b=2", "'' is not" },   { "a=-1", "'a=-1' is not" },
        { "a=99999999999", "is not" }, { "a=1x", "'a=1x' is not" },
        { "a=1,a=2", "two reserv" },   { "a=4,b=4", "8 sessions are re" },
    };
    mcp_engine_opts    engine = rig_engine_opts(FIRST, LAST);
    mcp_worker_opts    opts = rig_opts();
    struct mcp_worker *w;
    mcp_error          err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        opts.reserve = rows[i].reserve;
        unit_refused(worker_open(&w, rig_model_open, &opts, &engine, &err), MCP_EINVAL, &err,
                     rows[i].about);
        assert_null(w);
    }
    opts.reserve = NULL;
    opts.chunk_tokens = 1;
    unit_refused(worker_open(&w, rig_model_open, &opts, &engine, &err), MCP_EINVAL, &err,
                 "chunk_tokens");
    opts.chunk_tokens = 0;
    opts.listen = "nowhere";
    assert_true(worker_open(&w, rig_model_open, &opts, &engine, &err) < 0);
    assert_null(w);
    engine.last = 9;
    unit_refused(worker_open(&w, rig_model_open, &opts, &engine, &err), MCP_ERANGE, &err, "9");
    assert_null(w);
}

/* A figure of the metrics page. */
static double metric(const char *text, const char *name)
{
    char        line[128];
    const char *at;

    snprintf(line, sizeof(line), "\nmcp_worker_%s ", name);
    at = strstr(text, line);
    if (at == NULL)
        fail_msg("there is no metric %s", name);
    return strtod(at + strlen(line), NULL);
}

/* Goal:   figures count what happened.
 * Method: three windows of one session, in two loops' worker; stats and metrics. */
static void figures_count_what_happened(void **state)
{
    static const uint32_t ends[] = { 10, 11, 12 };
    struct rig_story     *story = rig_tell(FIRST, LAST, ends, UNIT_COUNT(ends), 1);
    mcp_worker_opts       opts = rig_opts();
    struct mcp_worker    *w;
    struct rig_client    *client;
    struct rig_call      *call;
    mcp_worker_stats      stats;
    char                 *text;

    (void)state;
    opts.io_threads = 2;
    w = rig_worker(FIRST, LAST, &opts);
    client = rig_connect(w);
    call = rig_session(client, 1, FIRST, LAST);
    for (uint32_t i = 0; i < 3; i++) {
        const struct wire_frame frame = rig_part(story, i, i > 0 ? ends[i - 1] : 0,
                                                 i > 0 ? 1 : ends[0]);

        rig_send(call, &frame);
        free(rig_expect(call, WIRE_RESULT));
    }
    worker_get_stats(w, &stats);
    assert_int_equal(stats.sessions, 1);
    assert_int_equal(stats.sessions_max, RIG_SESSIONS);
    assert_int_equal(stats.connections, 1);
    assert_int_equal(stats.sessions_opened, 1);
    assert_int_equal(stats.windows, 3);
    assert_int_equal(stats.positions, 12);
    assert_int_equal(stats.batches, 3);
    assert_true(stats.bytes_in > 12 * rig_embd() * sizeof(float));
    assert_true(stats.compute_ms > 0.0);
    text = worker_metrics(w);
    assert_non_null(text);
    assert_true(metric(text, "up") == 1.0);
    assert_true(metric(text, "windows_total") == 3.0);
    assert_true(metric(text, "positions_total") == 12.0);
    assert_true(metric(text, "sessions") == 1.0);
    assert_true(metric(text, "batch_tokens_count") == 3.0);
    assert_true(metric(text, "batch_tokens_sum") == 12.0);
    assert_non_null(strstr(text, "\nmcp_worker_batch_tokens_bucket{le=\"1\"} 2\n"));
    assert_non_null(strstr(text, "\nmcp_worker_batch_tokens_bucket{le=\"16\"} 3\n"));
    assert_non_null(strstr(text, "\nmcp_worker_batch_tokens_bucket{le=\"+Inf\"} 3\n"));
    free(text);
    rig_close(call);
    rig_disconnect(client);
    worker_close(w);
    rig_story_free(story);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(describe_tells_what_is_here),
        cmocka_unit_test(probe_answers_with_the_bytes_asked_for),
        cmocka_unit_test(probe_waits_for_a_slow_reader),
        cmocka_unit_test(calls_that_mean_nothing_are_refused),
        cmocka_unit_test(a_drain_is_told_and_ends),
        cmocka_unit_test(a_drain_ends_who_stays),
        cmocka_unit_test(close_ends_what_runs),
        cmocka_unit_test(a_client_that_reads_nothing_for_long_is_ended),
        cmocka_unit_test(a_call_without_open_is_ended),
        cmocka_unit_test(a_broken_device_is_told),
        cmocka_unit_test(options_that_mean_nothing_are_refused),
        cmocka_unit_test(figures_count_what_happened),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
