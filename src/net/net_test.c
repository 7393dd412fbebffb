/* net/net_test.c - calls over real sockets and TLS: what both ends are told, and how it ends.
 *
 * SPDX-License-Identifier: MIT */
#include "net/world_test.h"

static struct world_call call_of(struct world_conn *over, const char *path, const char *say)
{
    return (struct world_call){ .over = over,
                                .path = path,
                                .say = say,
                                .count = say != NULL ? strlen(say) : 0,
                                .times = say != NULL };
}

static uint64_t open_streams(void)
{
    struct net_server_stats stats;

    net_server_get_stats(world.server, &stats);
    return stats.streams_open;
}

static void both_ends_know_each_other(void **state)
{
    struct world_conn w;
    struct world_call c = call_of(&w, "/t.T/Echo", "hello");

    (void)state;
    world_serve(1, 0);
    world_dial(&w, net_server_address(world.server), world.own);
    c.end = true;
    world_call(&c); /* before it is up */
    WORLD_AWAIT(c.closed);
    assert_int_equal(c.status.code, WIRE_OK);
    assert_int_equal(c.messages, 1);
    assert_int_equal(c.sum, world_sum(0, (const uint8_t *)"hello", 5));
    assert_true(w.up);
    assert_string_equal(w.peer.name, "w1");
    assert_string_equal(w.peer.role, "worker");
    assert_string_equal(w.peer.address, net_server_address(world.server));
    assert_non_null(strstr(w.peer.tls, "TLSv1.3 TLS_"));
    WORLD_AWAIT(world.served.closed);
    assert_string_equal(world.served.peer.name, "alice");
    assert_string_equal(world.served.peer.role, "client");
    assert_int_equal(world.served.peer.serial_bytes, 2);
    assert_memory_equal(world.served.peer.serial, "\x12\x34", 2);
    assert_string_equal(world.served.tenant, "blue");
    world_hang_up(&w);
    assert_int_equal(w.why.code, WIRE_CANCELLED);
    assert_false(w.by_identity);
    world_stop();
}

/* Goal:   16 calls on each of 3 connections to 2 loops, 4 MB messages among them, all at once. */
static void many_calls_carry_much_at_once(void **state)
{
    static struct world_call calls[48];
    static struct world_conn conns[3];
    uint8_t                 *bytes = malloc(NET_MESSAGE_BYTES);
    struct net_server_stats  stats;

    (void)state;
    assert_non_null(bytes);
    for (size_t i = 0; i < NET_MESSAGE_BYTES; i++)
        bytes[i] = (uint8_t)(i * 31 >> 4);
    world_serve(2, 0);
    for (size_t i = 0; i < UNIT_COUNT(conns); i++)
        world_dial(&conns[i], net_server_address(world.server), world.own);
    for (size_t i = 0; i < UNIT_COUNT(calls); i++) {
        calls[i] = call_of(&conns[i % 3], "/t.T/Echo", NULL);
        calls[i].say = bytes + i;
        calls[i].count = i < 6 ? NET_MESSAGE_BYTES - i : 1000 * i;
        calls[i].times = i < 6 ? 1 : 20;
        calls[i].end = true;
        world_call(&calls[i]);
    }
    for (size_t i = 0; i < UNIT_COUNT(calls); i++) {
        uint32_t sum = 0;

        WORLD_AWAIT(calls[i].closed);
        for (size_t k = 0; k < calls[i].times; k++)
            sum = world_sum(sum, bytes + i, calls[i].count);
        assert_int_equal(calls[i].status.code, WIRE_OK);
        assert_int_equal(calls[i].messages, calls[i].times);
        assert_int_equal(calls[i].sum, sum);
    }
    net_server_get_stats(world.server, &stats);
    assert_int_equal(stats.connections, 3);
    assert_int_equal(stats.streams, 48);
    assert_int_equal(stats.hostile, 0);
    assert_true(stats.bytes_in > 6 * NET_MESSAGE_BYTES && stats.bytes_out > 6 * NET_MESSAGE_BYTES);
    for (size_t i = 0; i < UNIT_COUNT(conns); i++)
        world_hang_up(&conns[i]);
    world_stop();
    free(bytes);
}

static void a_refused_call_says_why(void **state)
{
    struct world_conn w;
    struct world_call none = call_of(&w, "/t.T/Nothing", "x"), busy = call_of(&w, "/t.T/Busy", "x");

    (void)state;
    world_serve(1, 0);
    world_dial(&w, net_server_address(world.server), world.own);
    world_call(&none);
    world_call(&busy);
    WORLD_AWAIT(none.closed && busy.closed);
    assert_int_equal(none.status.code, WIRE_UNIMPLEMENTED);
    assert_string_equal(none.status.text, "there is no method /t.T/Nothing");
    assert_int_equal(busy.status.code, WIRE_RESOURCE_EXHAUSTED);
    assert_int_equal(busy.status.retry_after_ms, 70);
    assert_string_equal(busy.status.text, "too many");
    world_hang_up(&w);
    world_stop();
}

static void a_cancelled_call_ends_at_the_server(void **state)
{
    struct world_conn w;
    struct world_call c = call_of(&w, "/t.T/Sink", "x");

    (void)state;
    world_serve(1, 0);
    world_dial(&w, net_server_address(world.server), world.own);
    world_call(&c);
    WORLD_AWAIT(world.served.messages == 1);
    world_do(world.loop, world_cancel_here, &c);
    WORLD_AWAIT(c.closed && world.served.closed);
    assert_int_equal(c.status.code, WIRE_CANCELLED);
    assert_int_equal(world.served.last.code, WIRE_CANCELLED);
    WORLD_AWAIT(open_streams() == 0);
    world_hang_up(&w);
    world_stop();
}

/* Goal:   a deadline ends the call at both ends, whatever the other does.
 * Method: a method that never answers.  The time is that of the client's own timer. */
static void a_deadline_ends_the_call_at_both_ends(void **state)
{
    struct world_conn w;
    struct world_call c = call_of(&w, "/t.T/Sink", "x");
    double            began;

    (void)state;
    world_serve(1, 0);
    world_dial(&w, net_server_address(world.server), world.own);
    WORLD_AWAIT(w.up);
    c.deadline_ms = 120;
    began = base_clock_ms();
    world_call(&c);
    WORLD_AWAIT(c.closed && world.served.closed);
    assert_int_equal(c.status.code, WIRE_DEADLINE_EXCEEDED);
    assert_true(c.closed_ms - began >= 119);
    /* Which of the two timers was first shows at the other end as a reset or as trailers. */
    assert_true(world.served.last.code == WIRE_DEADLINE_EXCEEDED ||
                world.served.last.code == WIRE_CANCELLED);
    world_hang_up(&w);
    world_stop();
}

/* Goal:   a client that does not read stops the server's sending, loses nothing, and gets all.
 * Method: 24 MB are sent at a paused call: 4 MB of window, a queue of 4 MB. */
static void a_paused_client_gets_all_in_the_end(void **state)
{
    struct world_conn w;
    struct world_call c = call_of(&w, "/t.T/Flood", "x");
    uint64_t          flooded;

    (void)state;
    world_serve(1, 0);
    world_dial(&w, net_server_address(world.server), world.own);
    c.pause = true;
    world_call(&c);
    WORLD_AWAIT(world.served.flooded >= 6 << 20);
    usleep(50000);
    WORLD_AWAIT((flooded = world.served.flooded) != 0);
    assert_in_range(flooded, 6 << 20, 8 << 20);
    assert_int_equal(c.messages, 0);
    world_do(world.loop, world_resume_here, &c);
    WORLD_AWAIT(c.closed);
    assert_int_equal(c.status.code, WIRE_OK);
    assert_int_equal(c.messages, 24);
    assert_int_equal(c.bytes, 24 << 20);
    world_hang_up(&w);
    world_stop();
}

static void a_full_queue_says_when_there_is_room(void **state)
{
    static const uint8_t large[NET_MESSAGE_BYTES];
    struct world_conn    w;
    struct world_call    c = call_of(&w, "/t.T/Sink", NULL);

    (void)state;
    world_serve(1, 0);
    world_dial(&w, net_server_address(world.server), world.own);
    c.say = large;
    c.count = sizeof(large);
    c.times = 2;
    world_do(world.loop, world_call_here, &c);
    unit_refused(c.rc, MCP_EBUSY, &c.err, "4194304");
    WORLD_AWAIT(c.writable == 1);
    WORLD_AWAIT(world.served.messages == 1);
    world_hang_up(&w);
    world_stop();
}

/* ---- ends --------------------------------------------------------------------------- */

static void a_draining_server_finishes_what_runs(void **state)
{
    struct world_conn w, late;
    struct world_call c = call_of(&w, "/t.T/Echo", "before"),
                      refused = call_of(&w, "/t.T/Echo", "x");

    (void)state;
    world_serve(2, 0);
    world_dial(&w, net_server_address(world.server), world.own);
    world_call(&c);
    WORLD_AWAIT(c.messages == 1);
    net_server_drain(world.server);
    net_server_drain(world.server);
    do {
        world_do(world.loop, world_call_here, &refused);
        if (refused.rc == MCP_OK) /* the GOAWAY was not here yet */
            WORLD_AWAIT(refused.closed);
    } while (refused.rc == MCP_OK && refused.status.code == WIRE_OK);
    if (refused.rc < 0)
        unit_refused(refused.rc, MCP_EUNAVAIL, &refused.err, "no more calls");
    else
        assert_int_equal(refused.status.code, WIRE_UNAVAILABLE);
    assert_false(c.closed);
    world_do(world.loop, world_end_here, &c);
    WORLD_AWAIT(c.closed && w.down);
    assert_int_equal(c.status.code, WIRE_OK);
    assert_int_equal(w.why.code, WIRE_UNAVAILABLE);
    assert_false(w.by_identity);
    world_dial(&late, net_server_address(world.server), world.own);
    WORLD_AWAIT(late.down);
    assert_non_null(strstr(late.why.text, "cannot be reached"));
    world_stop();
}

static void closing_the_server_ends_every_call(void **state)
{
    struct world_conn w;
    struct world_call a = call_of(&w, "/t.T/Sink", "x"), b = call_of(&w, "/t.T/Sink", "x");

    (void)state;
    world_serve(2, 0);
    world_dial(&w, net_server_address(world.server), world.own);
    world_call(&a);
    world_call(&b);
    WORLD_AWAIT(world.served.messages == 2);
    world_stop();
    assert_int_equal(world.served.closed, 2);
    assert_int_equal(world.served.last.code, WIRE_UNAVAILABLE);
    WORLD_AWAIT(a.closed && b.closed && w.down);
    assert_int_equal(a.status.code, WIRE_UNAVAILABLE);
    assert_int_equal(w.why.code, WIRE_UNAVAILABLE);
}

/* Goal:   closing a client's loop ends its calls and connections, whatever state they are in. */
static void closing_the_loop_ends_calls_and_connections(void **state)
{
    struct world_conn up, shaking, refused;
    struct world_call c = call_of(&up, "/t.T/Sink", "x"),
                      early = call_of(&shaking, "/t.T/Sink", "x");
    struct net_loop *kept = world.loop;
    mcp_error        err;

    (void)state;
    world_serve(1, 0);
    unit_ok(net_loop_open(&world.loop, &err), &err);
    world_dial(&up, net_server_address(world.server), world.own);
    world_call(&c);
    WORLD_AWAIT(world.served.messages == 1);
    world_dial(&shaking, net_server_address(world.server), world.own);
    world_call(&early);
    world_dial(&refused, "localhost:1", world.own); /* being looked up, or refused already */
    net_loop_close(world.loop);
    world.loop = kept;
    assert_int_equal(c.closed, 1);
    assert_int_equal(c.status.code, WIRE_UNAVAILABLE);
    assert_int_equal(early.closed, 1);
    assert_true(up.down && shaking.down && refused.down);
    WORLD_AWAIT(world.served.closed >= 1);
    world_stop();
}

static void a_port_where_nobody_listens_is_said_so(void **state)
{
    struct world_conn w;
    struct world_call c = call_of(&w, "/t.T/Echo", "x");

    (void)state;
    world_dial(&w, "localhost:1", world.own);
    world_do(world.loop, world_call_here, &c);
    WORLD_AWAIT(w.down);
    assert_non_null(strstr(w.why.text, "localhost:1 cannot be reached: Connection refused"));
    if (c.rc == MCP_OK)
        WORLD_AWAIT(c.closed);
    world_dial(&w, "no-such-host.invalid:1", world.own);
    WORLD_AWAIT(w.down);
    assert_non_null(strstr(w.why.text, "no-such-host.invalid:1 cannot be reached"));
}

/* A socket that accepts into its backlog and says nothing. */
static int silent_listener(char endpoint[64])
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t          bytes = sizeof(at);
    int                fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &bytes), 0);
    snprintf(endpoint, 64, "127.0.0.1:%u", ntohs(at.sin_port));
    return fd;
}

static void a_silent_peer_is_given_up_in_time(void **state)
{
    struct world_conn w = { .timeout_ms = 150 };
    double            began = base_clock_ms();
    int               fd = silent_listener(w.endpoint);

    (void)state;
    w.identity = world.own;
    world_do(world.loop, world_dial_here, &w);
    unit_ok(w.rc, &w.err);
    WORLD_AWAIT(w.down);
    assert_true(base_clock_ms() - began >= 149);
    assert_non_null(strstr(w.why.text, "does not answer"));
    assert_false(w.up);
    close(fd);
}

static void endpoints_that_are_none_are_refused(void **state)
{
    static const char *const bad[] = { "",           "host",  "host:", ":1",     "host:x",
                                       "host:70000", "::1:5", "[::1]", "[::1:5", "host:-1" };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        struct world_conn w = { .identity = world.own, .timeout_ms = 100 };

        snprintf(w.endpoint, sizeof(w.endpoint), "%s", bad[i]);
        world_do(world.loop, world_dial_here, &w);
        unit_refused(w.rc, MCP_EINVAL, &w.err, "");
        assert_null(w.conn);
    }
}

static void a_port_that_is_taken_is_said_so(void **state)
{
    static const struct net_server_ops ops = { world_on_open, world_identity };
    struct net_server_opts             opts = { .threads = 1 };
    struct net_server                 *second;
    mcp_error                          err;

    (void)state;
    world_serve(1, 0);
    opts.listen = net_server_address(world.server);
    unit_refused(net_server_open(&second, &opts, &ops, NULL, &err), MCP_EIO, &err, "in use");
    assert_null(second);
    world_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ends_know_each_other),
        cmocka_unit_test(many_calls_carry_much_at_once),
        cmocka_unit_test(a_refused_call_says_why),
        cmocka_unit_test(a_cancelled_call_ends_at_the_server),
        cmocka_unit_test(a_deadline_ends_the_call_at_both_ends),
        cmocka_unit_test(a_paused_client_gets_all_in_the_end),
        cmocka_unit_test(a_full_queue_says_when_there_is_room),
        cmocka_unit_test(a_draining_server_finishes_what_runs),
        cmocka_unit_test(closing_the_server_ends_every_call),
        cmocka_unit_test(closing_the_loop_ends_calls_and_connections),
        cmocka_unit_test(a_port_where_nobody_listens_is_said_so),
        cmocka_unit_test(a_silent_peer_is_given_up_in_time),
        cmocka_unit_test(endpoints_that_are_none_are_refused),
        cmocka_unit_test(a_port_that_is_taken_is_said_so),
    };

    return cmocka_run_group_tests_name("net/net", tests, world_begin, world_end);
}
