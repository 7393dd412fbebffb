/* worker/access_test.c - who may use a worker: tokens, revocation, keys that change while it runs.
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
    rig_open_refused(client, NULL, WIRE_QOS_NORMAL, WIRE_UNAUTHENTICATED, "demands a token");
    rig_open_refused(client, basic, WIRE_QOS_NORMAL, WIRE_UNAUTHENTICATED, "Bearer");
    rig_opens(client, token("normal", NULL, 0, 0), WIRE_QOS_NORMAL);
    rig_opens(client, token("realtime", NULL, 0, 0), WIRE_QOS_REALTIME);
    rig_opens(client, token("normal", NULL, 1, 3), WIRE_QOS_BATCH);
    rig_open_refused(client, token("normal", NULL, 0, 0), WIRE_QOS_REALTIME, WIRE_PERMISSION_DENIED,
                     "realtime");
    rig_open_refused(client, token("normal", NULL, 0, 2), WIRE_QOS_NORMAL, WIRE_PERMISSION_DENIED,
                     "grants [0, 2)");
    token("normal", NULL, 0, 0);
    token_text[strlen(token_text) - 6] ^= 1;
    {
        const char *const damaged[] = { "authorization", token_text, NULL };

        rig_open_refused(client, damaged, WIRE_QOS_NORMAL, WIRE_UNAUTHENTICATED, "");
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
    assert_true(base_clock_ms() - since_ms < 5000.0);
    call = rig_call(bad, WIRE_PATH_DESCRIBE, NULL);
    rig_send_bytes(call, "", 0);
    rig_ended(call, WIRE_UNAUTHENTICATED, "revoked");
    rig_drop(call);

    rig_send(other, &beat);
    free(rig_expect(other, WIRE_BEAT));
    news = rig_ask(good, WIRE_PATH_DESCRIBE, "", 0);
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
    rig_opens(client, good, WIRE_QOS_NORMAL);
    unit_write(path, bytes, count);
    wait_for_keys(w, false);
    rig_opens(client, good, WIRE_QOS_NORMAL);
    free(bytes);
    rig_disconnect(client);
    worker_close(w);
}

/* Goal:   a token for another model opens nothing; one for this model does.
 * Method: the fingerprint in hex, and with its last digit changed. */
static void a_token_may_be_for_one_model(void **state)
{
    static char           text[MCP_KEYS_TEXT_BYTES + 8];
    const char *const     metadata[] = { "authorization", text, NULL };
    const mcp_worker_opts opts = rig_opts();
    struct mcp_worker    *w = rig_worker(FIRST, LAST, &opts);
    struct rig_client    *client = rig_connect(w);
    mcp_token_opts        grant = MCP_TOKEN_OPTS_INIT;
    uint8_t               print[MCP_FINGERPRINT_BYTES];
    char                  hex[2 * MCP_FINGERPRINT_BYTES + 1];
    mcp_error             err;

    (void)state;
    unit_ok(model_fingerprint(rig_model_open, print, &err), &err);
    for (size_t i = 0; i < sizeof(print); i++)
        snprintf(hex + 2 * i, 3, "%02x", print[i]);
    grant.subject = "team-b";
    grant.model = hex;
    for (int other = 0; other < 2; other++) {
        snprintf(text, sizeof(text), "Bearer ");
        unit_ok(guard_keys_token(rig_keys, &grant, text + 7, MCP_KEYS_TEXT_BYTES, &err), &err);
        if (other)
            rig_open_refused(client, metadata, WIRE_QOS_NORMAL, WIRE_PERMISSION_DENIED,
                             "the token is for model");
        else
            rig_opens(client, metadata, WIRE_QOS_NORMAL);
        hex[0] = hex[0] == '0' ? '1' : '0';
    }
    rig_disconnect(client);
    worker_close(w);
}

static void expire(struct worker_stream *s)
{
    s->grant.expires_s = 1000000000;
}

/* Goal:   a token that expires ends its stream; the session waits for one with a new token.
 * Method: the time in the grant is put back. */
static void an_expired_token_ends_the_stream(void **state)
{
    const mcp_worker_opts opts = rig_opts();
    struct wire_open      open = rig_open_frame(5, FIRST, LAST);
    struct mcp_worker    *w = rig_worker(FIRST, LAST, &opts);
    struct rig_client    *client = rig_connect(w);
    const char *const    *metadata = token("normal", NULL, 0, 0);
    struct rig_call      *call = rig_execute(client, metadata);
    mcp_worker_stats      stats;

    (void)state;
    rig_open_with(call, &open);
    rig_meddle(w, expire);
    rig_ended(call, WIRE_UNAUTHENTICATED, "expired");
    rig_drop(call);
    call = rig_execute(client, metadata);
    open.resume = true;
    rig_open_with(call, &open);
    worker_get_stats(w, &stats);
    assert_int_equal(stats.sessions_resumed, 1);
    rig_close(call);
    rig_disconnect(client);
    worker_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_grant_what_they_say),
        cmocka_unit_test(a_folder_without_its_role_cannot_serve),
        cmocka_unit_test(revocation_ends_running_sessions),
        cmocka_unit_test(broken_keys_are_told_and_not_used),
        cmocka_unit_test(a_token_may_be_for_one_model),
        cmocka_unit_test(an_expired_token_ends_the_stream),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
