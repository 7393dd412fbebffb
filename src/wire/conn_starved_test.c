/* wire/conn_starved_test.c - calls where memory ends: every call ends once, and nothing is left.
 *
 * nghttp2 allocates through our own functions, so its allocations fail here too.
 *
 * SPDX-License-Identifier: MIT */
#include "base/starve_test.h"

#include "wire/conn_rig_test.h"

enum { CALLS = 3 };

struct story {
    struct wire_conn *client, *server;
    int               opened, closed; /* at the client */
    int               begun, ended;   /* at the server */
};

static void handle(struct story *t, struct wire_conn *c, const struct wire_event *e)
{
    bool               client = c == t->client;
    struct wire_status ok = { 0 };

    switch (e->kind) {
    case WIRE_EVENT_CALL: t->begun++; break;
    case WIRE_EVENT_CLOSED: *(client ? &t->closed : &t->ended) += 1; break;
    case WIRE_EVENT_MESSAGE:
        if (!client)
            wire_stream_send(e->stream, e->bytes, e->count, WIRE_BULK, NULL);
        break;
    case WIRE_EVENT_HALF_CLOSED: wire_stream_finish(e->stream, &ok); break;
    case WIRE_EVENT_WRITABLE: break;
    }
}

static void events(struct story *t, struct wire_conn *c)
{
    struct wire_event e;

    while (wire_conn_next(c, &e))
        handle(t, c, &e);
}

static bool carry(struct story *t, struct wire_conn *from, struct wire_conn *to)
{
    static uint8_t bytes[16384];
    size_t         count = wire_conn_take(from, bytes, sizeof(bytes));

    events(t, from);
    wire_conn_feed(to, rig_now, bytes, count);
    events(t, to);
    return count > 0;
}

/* Three calls with small and large messages, one of them paused for a while, one cancelled. */
static int play(struct story *t, mcp_error *err)
{
    static const char *const metadata[] = { "authorization", "Bearer x", NULL };
    static uint8_t           large[40000];
    struct wire_conn_opts    opts = {
           .authority = "w", .streams_max = 8, .message_bytes = 1 << 20, .queue_bytes = 1 << 20
    };
    struct wire_status  enough = { .code = WIRE_CANCELLED }, gone = { .code = WIRE_UNAVAILABLE };
    struct wire_stream *s[CALLS];
    int                 rc;

    rc = wire_conn_new(&t->client, &opts, rig_now, err);
    opts.server = true;
    if (rc == MCP_OK)
        rc = wire_conn_new(&t->server, &opts, rig_now, err);
    for (int i = 0; i < CALLS && rc == MCP_OK; i++) {
        rc = wire_call_open(&s[i], t->client, "/a/b", 100, metadata, NULL, err);
        if (rc < 0)
            break;
        t->opened++;
        wire_stream_send(s[i], large, i == 0 ? 10 : sizeof(large), WIRE_BULK, NULL);
        if (i == 1)
            wire_stream_pause(s[i], true);
        if (i != 2)
            wire_stream_end(s[i]);
    }
    if (rc < 0)
        goto out;
    while (carry(t, t->client, t->server) || carry(t, t->server, t->client))
        ;
    if (t->closed == 0) {
        wire_stream_pause(s[1], false);
        wire_stream_cancel(s[2], &enough);
    }
    while (carry(t, t->client, t->server) || carry(t, t->server, t->client))
        ;
out:
    if (t->client != NULL) {
        wire_conn_lose(t->client, &gone);
        events(t, t->client);
    }
    if (t->server != NULL) {
        wire_conn_lose(t->server, &gone);
        events(t, t->server);
    }
    wire_conn_free(t->client);
    wire_conn_free(t->server);
    return rc;
}

static void every_call_ends_once_whichever_allocation_fails(void **state)
{
    (void)state;
    for (int all_after = 0; all_after < 2; all_after++) {
        for (int n = 1, failed = 1; failed > 0; n++) {
            struct story t = { 0 };
            mcp_error    err;
            int          rc;

            starve_arm(n, all_after != 0);
            rc = play(&t, &err);
            failed = starve_disarm();
            if (rc < 0 && rc != MCP_EUNAVAIL) /* the connection died before the call */
                starve_check(rc, &err);
            assert_int_equal(t.closed, t.opened);
            assert_int_equal(t.ended, t.begun);
            if (failed == 0) {
                assert_true(n > 100); /* it was a story */
                assert_int_equal(t.begun, CALLS);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_ends_once_whichever_allocation_fails),
    };

    return cmocka_run_group_tests_name("wire/conn_starved", tests, NULL, NULL);
}
