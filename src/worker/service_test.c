/* worker/service_test.c - the calls around Execute, who may call, and how a worker ends.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/rig_test.h"

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

/* One message and its one answer. */
static struct rig_news *ask(struct rig_client *client, const char *path, const void *bytes,
                            size_t count)
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

/* ---- Describe and the like --------------------------------------------------------------------- */

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
        struct rig_news      *news = ask(client, WIRE_PATH_DESCRIBE, "", 0);
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
    news = ask(client, WIRE_PATH_HEALTH_CHECK, "", 0);
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

/* ---- who may call --------------------------------------------------------------------------------- */

static char token_text[MCP_KEYS_TEXT_BYTES + 8];

/* A token for the client's certificate, as metadata. */
static const char *const *token(const char *priority, const char *scope, uint32_t first,
                                uint32_t last)
{
    static const char *metadata[] = { "authorization", token_text, NULL };
    mcp_token_opts     opts = MCP_TOKEN_OPTS_INIT;
    mcp_error          err;

    opts.subject = "team-a";
    opts.priority = priority;
    opts.scope = scope;
    opts.first = first;
    opts.last = last;
    snprintf(token_text, sizeof(token_text), "Bearer ");
    unit_ok(guard_keys_token(rig_keys, &opts, token_text + 7, MCP_KEYS_TEXT_BYTES, &err), &err);
    return metadata;
}

static void opens(struct rig_client *client, const char *const *metadata, enum wire_qos qos)
{
    struct wire_open open = rig_open_frame(3, FIRST, LAST);
    struct rig_call *call = rig_execute(client, metadata);

    open.qos = qos;
    rig_open_with(call, &open);
    rig_close(call);
}

static void open_refused(struct rig_client *client, const char *const *metadata, enum wire_qos qos,
                         int code, const char *about)
{
    struct wire_frame frame = { .kind = WIRE_OPEN, .u.open = rig_open_frame(3, FIRST, LAST) };
    struct rig_call  *call = rig_execute(client, metadata);

    frame.u.open.qos = qos;
    rig_send(call, &frame);
    rig_ended(call, code, about);
    rig_drop(call);
}

/* Goal:   what a token grants, and nothing else.
 * Method: classes, layers, scopes; a damaged one; another scheme; none where one is required. */
static void tokens_grant_what_they_say(void **state)
{
    static const char *const basic[] = { "authorization", "Basic abc", NULL };
    mcp_worker_opts          opts = rig_opts();
    struct mcp_worker       *w;
    struct rig_client       *client;
    struct rig_call         *call;
    struct wire_frame        frame = { .kind = WIRE_EXPORT };
    const struct wire_open   open = rig_open_frame(4, FIRST, LAST);

    (void)state;
    opts.require_token = 1;
    w = rig_worker(FIRST, LAST, &opts);
    client = rig_connect(w);
    open_refused(client, NULL, WIRE_QOS_NORMAL, WIRE_UNAUTHENTICATED, "demands a token");
    open_refused(client, basic, WIRE_QOS_NORMAL, WIRE_UNAUTHENTICATED, "Bearer");
    opens(client, token("normal", NULL, 0, 0), WIRE_QOS_NORMAL);
    opens(client, token("realtime", NULL, 0, 0), WIRE_QOS_REALTIME);
    opens(client, token("normal", NULL, 1, 3), WIRE_QOS_BATCH);
    open_refused(client, token("normal", NULL, 0, 0), WIRE_QOS_REALTIME, WIRE_PERMISSION_DENIED,
                 "realtime");
    open_refused(client, token("normal", NULL, 0, 2), WIRE_QOS_NORMAL, WIRE_PERMISSION_DENIED,
                 "grants [0, 2)");
    token("normal", NULL, 0, 0);
    token_text[strlen(token_text) - 6] ^= 1;
    {
        const char *const damaged[] = { "authorization", token_text, NULL };

        open_refused(client, damaged, WIRE_QOS_NORMAL, WIRE_UNAUTHENTICATED, "");
    }
    call = rig_execute(client, token("normal", "infer", 0, 0));
    rig_open_with(call, &open);
    frame.u.export = (struct wire_export){ 1, FIRST, LAST, 0, 1 };
    rig_send(call, &frame);
    rig_ended(call, WIRE_PERMISSION_DENIED, "state");
    rig_drop(call);
    rig_disconnect(client);
    worker_close(w);
}

static void a_folder_without_its_role_cannot_serve(void **state)
{
    const char        *folder = unit_path("keys-clientonly");
    mcp_worker_opts    opts = rig_opts();
    mcp_engine_opts    engine = rig_engine_opts(FIRST, LAST);
    struct mcp_worker *w = (struct mcp_worker *)0x5a;
    mcp_error          err;

    (void)state;
    unit_ok(guard_keys_issue(rig_keys, MCP_ROLE_CLIENT, "someone", NULL, folder, &err), &err);
    opts.keys = folder;
    assert_true(worker_open(&w, rig_model_open, &opts, &engine, &err) < 0);
    assert_null(w);
    assert_true(strstr(err.text, "worker.") != NULL);
    opts.keys = "/nowhere/at/all";
    assert_true(worker_open(&w, rig_model_open, &opts, &engine, &err) < 0);
    assert_null(w);
}

/* Goal:   a revoked certificate's running streams end within a second or two, and it opens no
 *         others on the connection that it has.
 * Method: two clients; one is revoked; the other goes on. */
static void revocation_ends_running_sessions(void **state)
{
    const char             *folder = unit_path("keys-revoked");
    const mcp_worker_opts   opts = rig_opts();
    const struct wire_open  open = rig_open_frame(2, FIRST, LAST);
    struct mcp_worker      *w;
    struct rig_client      *bad, *good;
    struct rig_call        *session, *watch, *call, *other;
    struct rig_news        *news;
    const struct wire_frame beat = { .kind = WIRE_BEAT, .u.beat = 1 };
    uint32_t                count;
    double                  since_ms;
    mcp_error               err;

    (void)state;
    unit_ok(guard_keys_issue(rig_keys, MCP_ROLE_CLIENT, "eve", NULL, folder, &err), &err);
    w = rig_worker(FIRST, LAST, &opts);
    bad = rig_connect_as(w, folder, "client");
    good = rig_connect(w);
    other = rig_session(good, 1, FIRST, LAST);
    session = rig_execute(bad, NULL);
    rig_open_with(session, &open);
    watch = rig_call(bad, WIRE_PATH_WATCH, NULL);
    rig_send_bytes(watch, "", 0);
    free(rig_take(watch));

    unit_ok(guard_keys_revoke(rig_keys, "eve", &count, &err), &err);
    assert_int_equal(count, 1);
    since_ms = base_clock_ms();
    rig_ended(session, WIRE_UNAUTHENTICATED, "revoked");
    rig_ended(watch, WIRE_UNAUTHENTICATED, "revoked");
    assert_true(base_clock_ms() - since_ms < 4000.0);
    call = rig_call(bad, WIRE_PATH_DESCRIBE, NULL);
    rig_send_bytes(call, "", 0);
    rig_ended(call, WIRE_UNAUTHENTICATED, "revoked");
    rig_drop(call);

    rig_send(other, &beat);
    free(rig_expect(other, WIRE_BEAT));
    news = ask(good, WIRE_PATH_DESCRIBE, "", 0);
    free(news);
    rig_close(other);
    rig_drop(session);
    rig_drop(watch);
    rig_disconnect(bad);
    rig_disconnect(good);
    worker_close(w);
}

/* The keeper has looked at the folder, and found it as said. */
static void wait_for_keys(struct mcp_worker *w, bool broken)
{
    double until_ms = base_clock_ms() + RIG_WAIT_MS;
    char   text[WORKER_PROBLEM_BYTES];

    while (worker_access_problem(w->service.access, text) != broken) {
        assert_true(base_clock_ms() < until_ms);
        usleep(10000);
    }
    if (broken && strstr(text, "token.pub") == NULL)
        fail_msg("the problem '%s' does not name the file", text);
}

/* Goal:   a folder that is broken while the worker runs changes nothing but what health tells.
 * Method: token.pub overwritten with nonsense and put back. */
static void broken_keys_are_told_and_not_used(void **state)
{
    const mcp_worker_opts opts = rig_opts();
    struct mcp_worker    *w = rig_worker(FIRST, LAST, &opts);
    struct rig_client    *client = rig_connect(w);
    const char *const    *good = token("normal", NULL, 0, 0);
    char                  path[600];
    uint8_t              *bytes;
    size_t                count;

    (void)state;
    snprintf(path, sizeof(path), "%s/token.pub", rig_keys);
    bytes = unit_read(path, &count);
    unit_write(path, "nonsense", 8);
    wait_for_keys(w, true);
    opens(client, good, WIRE_QOS_NORMAL);
    unit_write(path, bytes, count);
    wait_for_keys(w, false);
    opens(client, good, WIRE_QOS_NORMAL);
    free(bytes);
    rig_disconnect(client);
    worker_close(w);
}

/* ---- opening, figures ------------------------------------------------------------------------- */

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
        cmocka_unit_test(calls_that_mean_nothing_are_refused),
        cmocka_unit_test(a_drain_is_told_and_ends),
        cmocka_unit_test(a_drain_ends_who_stays),
        cmocka_unit_test(close_ends_what_runs),
        cmocka_unit_test(tokens_grant_what_they_say),
        cmocka_unit_test(a_folder_without_its_role_cannot_serve),
        cmocka_unit_test(revocation_ends_running_sessions),
        cmocka_unit_test(broken_keys_are_told_and_not_used),
        cmocka_unit_test(options_that_mean_nothing_are_refused),
        cmocka_unit_test(figures_count_what_happened),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
