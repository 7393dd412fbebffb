/* wire/conn_test.c - calls between a client core and a server core: what is told, in which
 * order, and what is left behind (nothing).
 *
 * The server does what the path says.  Both ends write what they are told into one log each,
 * which is compared with what must be there.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/conn_rig_test.h"

enum { LOG_BYTES = 1 << 16 };

struct talk {
    struct rig          rig;
    char                client[LOG_BYTES], server[LOG_BYTES];
    struct wire_stream *served; /* the last call that the server was told of */
    int                 closed; /* calls whose end the client was told */
    int                 status; /* of the last */
    char                text[WIRE_STATUS_TEXT_BYTES];
    uint32_t            retry_after_ms;
};

static uint32_t sum_of(const uint8_t *bytes, size_t count)
{
    uint32_t sum = 2166136261u;

    for (size_t i = 0; i < count; i++)
        sum = (sum ^ bytes[i]) * 16777619u;
    return sum;
}

__attribute__((format(printf, 2, 3))) static void note(char *log, const char *format, ...)
{
    size_t  used = strlen(log);
    va_list args;

    va_start(args, format);
    vsnprintf(log + used, LOG_BYTES - used, format, args);
    va_end(args);
}

static void note_event(char *log, const struct wire_event *e)
{
    static const char *const names[] = { "call", "message", "half", "writable", "closed" };

    note(log, "%s", names[e->kind]);
    if (e->kind == WIRE_EVENT_CALL)
        note(log, " %s %s %.0f", wire_stream_path(e->stream),
             wire_stream_metadata(e->stream, "x-tenant") != NULL
                 ? wire_stream_metadata(e->stream, "x-tenant")
                 : "-",
             wire_stream_timeout_ms(e->stream));
    if (e->kind == WIRE_EVENT_MESSAGE)
        note(log, " %zu:%08x", e->count, sum_of(e->bytes, e->count));
    if (e->kind == WIRE_EVENT_CLOSED)
        note(log, " %s", wire_status_name(e->status->code));
    note(log, "\n");
}

static void on_client(struct wire_conn *c, const struct wire_event *e, void *ctx)
{
    struct talk *t = ctx;

    (void)c;
    note_event(t->client, e);
    if (e->kind != WIRE_EVENT_CLOSED)
        return;
    t->closed++;
    t->status = e->status->code;
    t->retry_after_ms = e->status->retry_after_ms;
    snprintf(t->text, sizeof(t->text), "%s", e->status->text);
}

static void on_server(struct wire_conn *c, const struct wire_event *e, void *ctx)
{
    struct talk       *t = ctx;
    const char        *path = wire_stream_path(e->stream);
    struct wire_status ok = { 0 }, busy = { .code = WIRE_RESOURCE_EXHAUSTED,
                                            .retry_after_ms = 250,
                                            .text = "100 % \xc3\xa9 busy" };
    mcp_error          err;

    (void)c;
    note_event(t->server, e);
    if (e->kind == WIRE_EVENT_CALL)
        t->served = e->stream;
    if (strcmp(path, "/t.T/Refuse") == 0 && e->kind == WIRE_EVENT_CALL)
        wire_stream_finish(e->stream, &busy);
    if (strcmp(path, "/t.T/Late") == 0 && e->kind == WIRE_EVENT_MESSAGE)
        wire_stream_finish(e->stream, &busy);
    if (strcmp(path, "/t.T/Echo") == 0 && e->kind == WIRE_EVENT_MESSAGE)
        unit_ok(wire_stream_send(e->stream, e->bytes, e->count, WIRE_URGENT, &err), &err);
    if (e->kind == WIRE_EVENT_HALF_CLOSED)
        wire_stream_finish(e->stream, &ok);
}

static struct talk *talk_open(void)
{
    struct talk *t = calloc(1, sizeof(*t));

    assert_non_null(t);
    rig_open(&t->rig, on_client, on_server, t);
    rig_run(&t->rig);
    return t;
}

static void talk_close(struct talk *t)
{
    rig_close(&t->rig);
    free(t);
}

static struct wire_stream *call(struct talk *t, const char *path)
{
    struct wire_stream *s;
    mcp_error           err;

    unit_ok(wire_call_open(&s, t->rig.client, path, 0, NULL, NULL, &err), &err);
    return s;
}

static void say(struct wire_stream *s, const void *bytes, size_t count)
{
    mcp_error err;

    unit_ok(wire_stream_send(s, bytes, count, WIRE_URGENT, &err), &err);
}

/* ---- in order ----------------------------------------------------------------------- */

static void a_call_carries_its_path_metadata_and_deadline(void **state)
{
    static const char *const metadata[] = { "x-tenant", "blue", "authorization", "Bearer x", NULL };
    struct talk             *t = talk_open();
    struct wire_stream      *s;
    mcp_error                err;

    (void)state;
    unit_ok(wire_call_open(&s, t->rig.client, "/t.T/Echo", 1500, metadata, t, &err), &err);
    assert_ptr_equal(wire_stream_owner(s), t);
    say(s, "hello", 5);
    wire_stream_end(s);
    rig_run(&t->rig);
    assert_string_equal(t->server,
                        "call /t.T/Echo blue 1500\nmessage 5:4f9f2cab\nhalf\nclosed OK\n");
    assert_string_equal(t->client, "message 5:4f9f2cab\nclosed OK\n");
    rig_calm(t->rig.client);
    rig_calm(t->rig.server);
    talk_close(t);
}

/* Goal:   where bytes are cut, at TLS records or TCP segments, changes nothing.
 * Method: the same calls with 1 to 40 bytes a feed, and with all at once. */
static void the_same_is_told_however_the_bytes_are_cut(void **state)
{
    char whole[2][LOG_BYTES] = { "", "" };

    (void)state;
    for (size_t step = 0; step <= 40; step++) {
        struct talk        *t = talk_open();
        struct wire_stream *s = call(t, "/t.T/Echo"), *late = call(t, "/t.T/Late");

        t->rig.step = step;
        say(s, "", 0);
        say(s, "four", 4);
        say(late, "x", 1);
        say(s, "a longer message than before", 28);
        wire_stream_end(s);
        rig_run(&t->rig);
        wire_stream_end(call(t, "/t.T/Refuse"));
        rig_run(&t->rig);
        assert_int_equal(t->closed, 3);
        if (step == 0) {
            strcpy(whole[0], t->client);
            strcpy(whole[1], t->server);
        }
        assert_string_equal(t->client, whole[0]);
        assert_string_equal(t->server, whole[1]);
        rig_calm(t->rig.client);
        rig_calm(t->rig.server);
        talk_close(t);
    }
}

/* Goal:   messages of any size keep their bytes and their order, in both directions.
 * Method: random sizes around all the edges, both ends' sums compared with our own. */
static void messages_of_all_sizes_keep_bytes_and_order(void **state)
{
    static const size_t edges[] = { 0,     1,     4,     5,     6,     4096,       15995,
                                    15996, 16000, 16379, 16384, 65536, RIG_MESSAGE };
    uint64_t            seed = unit_seed();
    struct talk        *t = talk_open();
    struct wire_stream *s = call(t, "/t.T/Echo");
    uint8_t            *bytes = malloc(RIG_MESSAGE);
    char               *expected = calloc(1, LOG_BYTES);

    (void)state;
    assert_non_null(bytes);
    assert_non_null(expected);
    for (size_t i = 0; i < RIG_MESSAGE; i++)
        bytes[i] = (uint8_t)unit_next(&seed);
    for (size_t i = 0; i < 60; i++) {
        size_t count = i < UNIT_COUNT(edges) ? edges[i] : unit_below(&seed, 60000);
        size_t first = count < RIG_MESSAGE ? i : 0;

        if (i % 7 == 0 || count > 60000)
            rig_run(&t->rig);
        say(s, bytes + first, count);
        if (count == RIG_MESSAGE) /* the queue was full */
            note(expected, "writable\n");
        note(expected, "message %zu:%08x\n", count, sum_of(bytes + first, count));
        if (count > 60000)
            rig_run(&t->rig);
    }
    wire_stream_end(s);
    rig_run(&t->rig);
    note(expected, "closed OK\n");
    assert_string_equal(t->client, expected);
    rig_calm(t->rig.client);
    rig_calm(t->rig.server);
    free(expected);
    free(bytes);
    talk_close(t);
}

static void the_status_comes_with_its_sentence_and_retry_after(void **state)
{
    static const char *const paths[] = { "/t.T/Refuse", "/t.T/Late" };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct talk *t = talk_open();

        say(call(t, paths[i]), "x", 1);
        rig_run(&t->rig); /* the client has not half-closed */
        assert_int_equal(t->closed, 1);
        assert_int_equal(t->status, WIRE_RESOURCE_EXHAUSTED);
        assert_int_equal(t->retry_after_ms, 250);
        assert_string_equal(t->text, "100 % \xc3\xa9 busy");
        rig_calm(t->rig.client);
        rig_calm(t->rig.server);
        talk_close(t);
    }
}

static void a_cancelled_call_ends_at_both_ends(void **state)
{
    struct wire_status why = { .code = WIRE_CANCELLED, .text = "not wanted" };

    (void)state;
    for (int by_server = 0; by_server < 2; by_server++) {
        struct talk        *t = talk_open();
        struct wire_stream *s = call(t, "/t.T/Sink");

        say(s, "x", 1);
        rig_run(&t->rig);
        say(s, "never seen", 10);
        wire_stream_cancel(by_server ? t->served : s, &why);
        if (by_server)
            say(t->served, "dropped", 7);
        rig_run(&t->rig);
        assert_int_equal(t->status, WIRE_CANCELLED);
        assert_non_null(strstr(t->server, "closed CANCELLED\n"));
        rig_calm(t->rig.client);
        rig_calm(t->rig.server);
        talk_close(t);
    }
}

static void a_call_that_is_cancelled_unsent_is_never_heard_of(void **state)
{
    struct talk        *t = talk_open();
    struct wire_status  why = { .code = WIRE_CANCELLED };
    struct wire_stream *s = call(t, "/t.T/Echo");

    (void)state;
    say(s, "x", 1);
    wire_stream_cancel(s, &why);
    rig_run(&t->rig);
    assert_string_equal(t->client, "closed CANCELLED\n");
    assert_string_equal(t->server, "");
    talk_close(t);
}

static void a_server_says_the_deadline_in_trailers(void **state)
{
    struct talk       *t = talk_open();
    struct wire_status late = { .code = WIRE_DEADLINE_EXCEEDED, .text = "late" };

    (void)state;
    say(call(t, "/t.T/Echo"), "x", 1);
    rig_run(&t->rig);
    say(t->served, "dropped", 7);
    wire_stream_abort(t->served, &late);
    rig_run(&t->rig);
    assert_int_equal(t->status, WIRE_DEADLINE_EXCEEDED);
    assert_string_equal(t->text, "late");
    assert_string_equal(strstr(t->server, "closed"), "closed DEADLINE_EXCEEDED\n");
    rig_calm(t->rig.client);
    rig_calm(t->rig.server);
    talk_close(t);
}

/* ---- order of what leaves ----------------------------------------------------------- */

struct first {
    void *owner; /* of the stream whose message came first */
};

static void on_first(struct wire_conn *c, const struct wire_event *e, void *ctx)
{
    struct first *f = ctx;

    (void)c;
    if (e->kind == WIRE_EVENT_CALL)
        wire_stream_set_owner(e->stream, (void *)(uintptr_t)wire_stream_path(e->stream));
    if (e->kind == WIRE_EVENT_MESSAGE && f->owner == NULL)
        f->owner = e->owner;
}

static void urgent_messages_pass_bulk(void **state)
{
    struct rig          r;
    struct first        f = { NULL };
    struct wire_stream *bulk, *urgent;
    uint8_t            *bytes = calloc(1, 1 << 20);
    mcp_error           err;

    (void)state;
    assert_non_null(bytes);
    rig_open(&r, NULL, on_first, &f);
    rig_run(&r);
    unit_ok(wire_call_open(&bulk, r.client, "/t.T/Bulk", 0, NULL, NULL, &err), &err);
    unit_ok(wire_call_open(&urgent, r.client, "/t.T/Urgent", 0, NULL, NULL, &err), &err);
    for (int i = 0; i < 3; i++)
        unit_ok(wire_stream_send(bulk, bytes, 1 << 20, WIRE_BULK, &err), &err);
    unit_ok(wire_stream_send(urgent, bytes, 100000, WIRE_URGENT, &err), &err);
    rig_run(&r);
    assert_string_equal(f.owner, "/t.T/Urgent");
    rig_close(&r);
    free(bytes);
}

/* Goal:   order within a stream is kept, so a bulk message in front of an urgent one hurries. */
static void bulk_in_front_of_an_urgent_message_is_urgent(void **state)
{
    struct rig          r;
    struct first        f = { NULL };
    struct wire_stream *bulk, *mixed;
    uint8_t            *bytes = calloc(1, 1 << 20);
    mcp_error           err;

    (void)state;
    assert_non_null(bytes);
    rig_open(&r, NULL, on_first, &f);
    rig_run(&r);
    unit_ok(wire_call_open(&bulk, r.client, "/t.T/Bulk", 0, NULL, NULL, &err), &err);
    unit_ok(wire_call_open(&mixed, r.client, "/t.T/Mixed", 0, NULL, NULL, &err), &err);
    unit_ok(wire_stream_send(bulk, bytes, 100000, WIRE_BULK, &err), &err);
    unit_ok(wire_stream_send(mixed, bytes, 1 << 20, WIRE_BULK, &err), &err);
    unit_ok(wire_stream_send(mixed, bytes, 1, WIRE_URGENT, &err), &err);
    rig_run(&r);
    assert_string_equal(f.owner, "/t.T/Mixed");
    rig_close(&r);
    free(bytes);
}

/* Goal:   equals take turns frame by frame.
 * Method: of two equal messages queued at once, the second must be half out before the first
 *         is whole. */
static void equals_take_turns(void **state)
{
    struct talk        *t = talk_open();
    struct wire_stream *s[2] = { call(t, "/t.T/Sink"), call(t, "/t.T/Sink") };
    static uint8_t      bytes[400000];
    static uint8_t      out[450000];
    size_t              used = 0, count;

    (void)state;
    say(s[0], bytes, sizeof(bytes));
    say(s[1], bytes, sizeof(bytes));
    while (used < sizeof(bytes) && (count = wire_conn_take(t->rig.client, out + used, 16384)) > 0)
        used += count;
    assert_in_range(s[0]->out.bytes, 150000, 250000);
    assert_in_range(s[1]->out.bytes, 150000, 250000);
    talk_close(t);
}

/* ---- bounds between honest ends ----------------------------------------------------- */

static void a_full_queue_refuses_and_says_when_it_is_empty(void **state)
{
    struct talk        *t = talk_open();
    struct wire_stream *s = call(t, "/t.T/Sink");
    uint8_t            *bytes = calloc(1, RIG_MESSAGE + 1);
    mcp_error           err;

    (void)state;
    assert_non_null(bytes);
    assert_int_equal(wire_stream_room(s), RIG_QUEUE);
    unit_refused(wire_stream_send(s, bytes, RIG_MESSAGE + 1, WIRE_BULK, &err), MCP_ERANGE, &err,
                 "4194305");
    unit_ok(wire_stream_send(s, bytes, RIG_MESSAGE - 100, WIRE_BULK, &err), &err);
    assert_int_equal(wire_stream_room(s), 90);
    unit_refused(wire_stream_send(s, bytes, 91, WIRE_BULK, &err), MCP_EBUSY, &err, "91");
    assert_string_equal(t->client, "");
    rig_run(&t->rig);
    assert_string_equal(t->client, "writable\n");
    assert_int_equal(wire_stream_room(s), RIG_QUEUE);
    free(bytes);
    talk_close(t);
}

/* Goal:   a stream may not queue what all may queue together, but always a little.
 * Method: nothing is taken from the client while its streams fill the queue to the last byte. */
static void the_queue_of_all_streams_is_bounded_and_none_is_silenced(void **state)
{
    struct talk        *t = talk_open();
    uint8_t            *bytes = calloc(1, RIG_MESSAGE);
    struct wire_stream *s[32];
    size_t              i, room;
    mcp_error           err;

    (void)state;
    assert_non_null(bytes);
    for (i = 0; i < UNIT_COUNT(s); i++)
        s[i] = call(t, "/t.T/Sink");
    for (i = 0; wire_stream_send(s[i], bytes, RIG_MESSAGE, WIRE_BULK, &err) == MCP_OK; i++)
        ;
    assert_int_equal(i, QUEUE_CONN_BYTES / (RIG_MESSAGE + WIRE_MESSAGE_HEAD));
    room = wire_stream_room(s[i]);
    assert_int_equal(t->rig.client->queue_bytes + room + WIRE_MESSAGE_HEAD, QUEUE_CONN_BYTES);
    unit_ok(wire_stream_send(s[i++], bytes, room, WIRE_BULK, &err), &err);
    for (; i < UNIT_COUNT(s); i++) {
        assert_int_equal(wire_stream_room(s[i]), QUEUE_FLOOR);
        unit_ok(wire_stream_send(s[i], bytes, 60000, WIRE_BULK, &err), &err);
        unit_refused(wire_stream_send(s[i], bytes, 6000, WIRE_BULK, &err), MCP_EBUSY, &err, "6000");
    }
    assert_string_equal(t->client, "");
    rig_run(&t->rig);
    assert_int_equal(t->rig.client->queue_bytes, 0);
    assert_non_null(strstr(t->client, "writable\n")); /* who was refused is told */
    free(bytes);
    talk_close(t);
}

/* Goal:   a paused stream loses nothing, holds at most its window, and hinders nobody. */
static void a_paused_stream_holds_up_its_peer_only(void **state)
{
    struct talk        *t = talk_open();
    struct wire_stream *s = call(t, "/t.T/Sink"), *served;
    uint8_t            *bytes = calloc(1, 1 << 20);
    char                expected[LOG_BYTES] = "call /t.T/Sink - 0\n";
    mcp_error           err;

    (void)state;
    assert_non_null(bytes);
    rig_run(&t->rig);
    served = t->served;
    wire_stream_pause(served, true);
    for (int i = 0; i < 6; i++) {
        bytes[0] = (uint8_t)i;
        unit_ok(wire_stream_send(s, bytes, 1 << 20, WIRE_BULK, &err), &err);
        note(expected, "message %d:%08x\n", 1 << 20, sum_of(bytes, 1 << 20));
        if (i % 3 == 2)
            rig_run(&t->rig);
    }
    wire_stream_end(s);
    rig_run(&t->rig);
    assert_string_equal(t->server, "call /t.T/Sink - 0\n");
    assert_in_range(t->rig.server->held_bytes, 3 << 20, WIRE_WINDOW_STREAM);
    assert_true(s->out.bytes > 1 << 20); /* the window is used up */

    say(call(t, "/t.T/Refuse"), "x", 1); /* another passes */
    rig_run(&t->rig);
    assert_int_equal(t->status, WIRE_RESOURCE_EXHAUSTED);

    t->server[0] = '\0';
    wire_stream_pause(served, false);
    rig_run(&t->rig);
    note(expected, "half\nclosed OK\n");
    assert_string_equal(t->server, strchr(expected, '\n') + 1);
    assert_int_equal(t->status, WIRE_OK);
    rig_calm(t->rig.client);
    rig_calm(t->rig.server);
    free(bytes);
    talk_close(t);
}

/* Goal:   the messages that a paused client holds come before the end of the call. */
static void messages_held_at_the_end_come_before_it(void **state)
{
    struct talk        *t = talk_open();
    struct wire_stream *s = call(t, "/t.T/Echo");
    char                expected[LOG_BYTES] = "";

    (void)state;
    say(s, "one", 3);
    say(s, "two", 3);
    wire_stream_end(s);
    wire_stream_pause(s, true);
    rig_run(&t->rig);
    assert_string_equal(t->client, "");
    wire_stream_pause(s, false);
    rig_run(&t->rig);
    note(expected, "message 3:%08x\nmessage 3:%08x\nclosed OK\n", sum_of((const uint8_t *)"one", 3),
         sum_of((const uint8_t *)"two", 3));
    assert_string_equal(t->client, expected);
    rig_calm(t->rig.client);
    talk_close(t);
}

/* ---- the end of a connection -------------------------------------------------------- */

static void draining_ends_when_the_last_call_has_ended(void **state)
{
    struct talk        *t = talk_open();
    struct wire_stream *s = call(t, "/t.T/Echo"), *none;
    struct wire_status  why;
    mcp_error           err;

    (void)state;
    say(s, "before", 6);
    rig_run(&t->rig);
    wire_conn_drain(t->rig.server);
    rig_run(&t->rig);
    assert_false(wire_conn_over(t->rig.client, NULL));
    assert_true(wire_conn_draining(t->rig.client));
    unit_refused(wire_call_open(&none, t->rig.client, "/t.T/Echo", 0, NULL, NULL, &err),
                 MCP_EUNAVAIL, &err, "no more calls");
    say(s, "after", 5);
    wire_stream_end(s);
    rig_run(&t->rig);
    assert_int_equal(t->status, WIRE_OK);
    assert_true(wire_conn_over(t->rig.client, &why));
    assert_int_equal(why.code, WIRE_UNAVAILABLE);
    assert_true(wire_conn_over(t->rig.server, &why));
    assert_int_equal(why.code, WIRE_OK);
    talk_close(t);
}

/* Goal:   a call that crosses the GOAWAY on its way was not served, and may be tried again. */
static void a_call_that_crosses_goaway_is_unavailable(void **state)
{
    struct talk *t = talk_open();

    (void)state;
    wire_conn_drain(t->rig.server);
    say(call(t, "/t.T/Echo"), "x", 1);
    rig_carry(t->rig.server, t->rig.client, 0, on_client, t); /* nothing of the call has left */
    rig_run(&t->rig);
    assert_string_equal(t->client, "closed UNAVAILABLE\n");

    talk_close(t);
    t = talk_open();
    say(call(t, "/t.T/Echo"), "x", 1);
    wire_conn_drain(t->rig.server);
    {
        struct rig_bytes goaway = { NULL, 0, 0 };

        rig_take(t->rig.server, &goaway, 16384);
        rig_carry(t->rig.client, t->rig.server, 0, on_server, t); /* too late */
        rig_feed(t->rig.client, goaway.bytes, goaway.count, on_client, t);
        rig_drop(&goaway);
    }
    rig_run(&t->rig);
    assert_string_equal(t->client, "closed UNAVAILABLE\n");
    assert_string_equal(t->server, "");
    talk_close(t);
}

static void a_lost_connection_ends_every_call_once(void **state)
{
    struct talk        *t = talk_open();
    struct wire_status  why = { .code = WIRE_UNAVAILABLE, .text = "cable cut" };
    struct wire_stream *none;
    mcp_error           err;

    (void)state;
    for (int i = 0; i < 5; i++)
        say(call(t, "/t.T/Echo"), "x", 1);
    rig_carry(t->rig.client, t->rig.server, 0, on_server, t);
    wire_conn_lose(t->rig.client, &why);
    wire_conn_lose(t->rig.server, &why);
    rig_run(&t->rig);
    assert_int_equal(t->closed, 5);
    assert_int_equal(t->status, WIRE_UNAVAILABLE);
    assert_string_equal(t->text, "cable cut");
    assert_true(wire_conn_over(t->rig.client, NULL));
    unit_refused(wire_call_open(&none, t->rig.client, "/t.T/Echo", 0, NULL, NULL, &err),
                 MCP_EUNAVAIL, &err, "cable cut");
    rig_calm(t->rig.client);
    rig_calm(t->rig.server);
    talk_close(t);
}

static void more_calls_than_the_server_takes_wait_for_their_turn(void **state)
{
    struct talk        *t = talk_open();
    struct wire_stream *s[RIG_STREAMS + 10];

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(s); i++) {
        s[i] = call(t, "/t.T/Echo");
        say(s[i], "x", 1);
    }
    rig_run(&t->rig);
    assert_int_equal(wire_conn_streams(t->rig.server), RIG_STREAMS);
    for (size_t i = 0; i < UNIT_COUNT(s); i++) {
        wire_stream_end(s[i]);
        rig_run(&t->rig);
    }
    assert_int_equal(t->closed, UNIT_COUNT(s));
    assert_int_equal(t->status, WIRE_OK);
    assert_false(wire_conn_hostile(t->rig.client));
    rig_calm(t->rig.client);
    rig_calm(t->rig.server);
    talk_close(t);
}

/* Goal:   a drained server gives no more turns: calls that wait for theirs end at once, those
 *         that run go on. */
static void calls_that_wait_for_a_turn_end_at_goaway(void **state)
{
    struct talk        *t = talk_open();
    struct wire_stream *s[RIG_STREAMS + 3];

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(s); i++) {
        s[i] = call(t, "/t.T/Echo");
        say(s[i], "x", 1);
    }
    rig_run(&t->rig);
    wire_conn_drain(t->rig.server);
    rig_run(&t->rig);
    assert_int_equal(t->closed, 3);
    assert_int_equal(t->status, WIRE_UNAVAILABLE);
    for (size_t i = 0; i < RIG_STREAMS; i++)
        wire_stream_end(s[i]);
    rig_run(&t->rig);
    assert_int_equal(t->closed, UNIT_COUNT(s));
    assert_int_equal(t->status, WIRE_OK);
    assert_true(wire_conn_over(t->rig.client, NULL));
    talk_close(t);
}

static void metadata_that_http2_does_not_carry_is_refused(void **state)
{
    static const char *const bad[][3] = {
        { "X-Upper", "v", NULL }, { "a b", "v", NULL },         { "ok", "line\nbreak", NULL },
        { ":path", "/x", NULL },  { "grpc-status", "0", NULL }, { "te", "gzip", NULL },
        { "", "v", NULL },
    };
    struct talk        *t = talk_open();
    struct wire_stream *s;
    mcp_error           err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        unit_refused(wire_call_open(&s, t->rig.client, "/t.T/Echo", 0, bad[i], NULL, &err),
                     MCP_EINVAL, &err, "metadata");
        assert_null(s);
    }
    rig_calm(t->rig.client);
    talk_close(t);
}

/* ---- answers that are no answers ---------------------------------------------------- */

/* A server written by hand: HEADERS with these fields, ending the call. */
static void answer(struct talk *t, const char *const *fields)
{
    struct rig_bytes wire = { NULL, 0, 0 }, block = { NULL, 0, 0 };

    for (; fields[0] != NULL; fields += 2)
        raw_field(&block, fields[0], fields[1]);
    raw_headers(&wire, 1, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, &block);
    rig_feed(t->rig.client, wire.bytes, wire.count, on_client, t);
    rig_drop(&wire);
    rig_drop(&block);
}

static struct talk *raw_server(void)
{
    struct talk     *t = calloc(1, sizeof(*t));
    struct rig_bytes wire = { NULL, 0, 0 };

    assert_non_null(t);
    t->rig.client = rig_conn(false);
    say(call(t, "/t.T/Echo"), "x", 1);
    rig_take(t->rig.client, &wire, 16384);
    wire.count = 0;
    raw_frame(&wire, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
    rig_feed(t->rig.client, wire.bytes, wire.count, on_client, t);
    rig_drop(&wire);
    return t;
}

static void answers_without_a_grpc_status_are_given_one(void **state)
{
    static const struct {
        const char *fields[7];
        int         status;
    } rows[] = {
        { { ":status", "503", NULL }, WIRE_UNAVAILABLE },
        { { ":status", "200", "content-type", "text/html", NULL }, WIRE_UNKNOWN },
        { { ":status", "200", "content-type", "application/grpc", NULL }, WIRE_UNKNOWN },
        { { ":status", "200", "grpc-status", "5", NULL }, WIRE_NOT_FOUND },
        { { ":status", "200", "grpc-status", "17", NULL }, WIRE_UNKNOWN },
        { { ":status", "200", "grpc-status", "-1", NULL }, WIRE_UNKNOWN },
        { { ":status", "200", "grpc-status", "0", NULL }, WIRE_OK },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct talk *t = raw_server();

        answer(t, rows[i].fields);
        assert_int_equal(t->closed, 1);
        assert_int_equal(t->status, rows[i].status);
        wire_conn_free(t->rig.client);
        free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_carries_its_path_metadata_and_deadline),
        cmocka_unit_test(the_same_is_told_however_the_bytes_are_cut),
        cmocka_unit_test(messages_of_all_sizes_keep_bytes_and_order),
        cmocka_unit_test(the_status_comes_with_its_sentence_and_retry_after),
        cmocka_unit_test(a_cancelled_call_ends_at_both_ends),
        cmocka_unit_test(a_call_that_is_cancelled_unsent_is_never_heard_of),
        cmocka_unit_test(a_server_says_the_deadline_in_trailers),
        cmocka_unit_test(urgent_messages_pass_bulk),
        cmocka_unit_test(bulk_in_front_of_an_urgent_message_is_urgent),
        cmocka_unit_test(equals_take_turns),
        cmocka_unit_test(a_full_queue_refuses_and_says_when_it_is_empty),
        cmocka_unit_test(the_queue_of_all_streams_is_bounded_and_none_is_silenced),
        cmocka_unit_test(a_paused_stream_holds_up_its_peer_only),
        cmocka_unit_test(messages_held_at_the_end_come_before_it),
        cmocka_unit_test(draining_ends_when_the_last_call_has_ended),
        cmocka_unit_test(a_call_that_crosses_goaway_is_unavailable),
        cmocka_unit_test(a_lost_connection_ends_every_call_once),
        cmocka_unit_test(more_calls_than_the_server_takes_wait_for_their_turn),
        cmocka_unit_test(calls_that_wait_for_a_turn_end_at_goaway),
        cmocka_unit_test(metadata_that_http2_does_not_carry_is_refused),
        cmocka_unit_test(answers_without_a_grpc_status_are_given_one),
    };

    return cmocka_run_group_tests_name("wire/conn", tests, NULL, NULL);
}
