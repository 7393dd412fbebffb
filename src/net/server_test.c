/* net/server_test.c - what a server allows: connections in all, of one address, and in time.
 *
 * SPDX-License-Identifier: MIT */
#include "net/world_test.h"

#include <poll.h>

static const struct net_server_stats *stats_now(struct net_server_stats *stats)
{
    net_server_get_stats(world.server, stats);
    return stats;
}

static void connections_beyond_the_limit_are_refused(void **state)
{
    struct world_conn       w[4];
    struct world_call       c[4];
    struct net_server_stats stats;
    int                     served = 0;

    (void)state;
    world_serve(2, 2);
    for (size_t i = 0; i < 4; i++) {
        world_dial(&w[i], net_server_address(world.server), world.own);
        c[i] = (struct world_call){
            .over = &w[i], .path = "/t.T/Echo", .say = "x", .count = 1, .times = 1
        };
        world_do(world.loop, world_call_here, &c[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        WORLD_AWAIT(c[i].rc < 0 || c[i].messages == 1 || c[i].closed);
        served += (int)c[i].messages;
    }
    assert_int_equal(served, 2);
    net_server_get_stats(world.server, &stats);
    assert_int_equal(stats.refused, 2);
    for (size_t i = 0; i < 4; i++)
        world_hang_up(&w[i]);
    world_stop();
}

/* Goal:   one address cannot take all places.
 * Method: connections that say nothing; the server's limit is 256 an address. */
static void connections_of_one_address_are_bounded(void **state)
{
    static int              fds[NET_CONNS_ADDRESS_MAX + 3];
    struct net_server_stats stats;

    (void)state;
    world_serve(2, 1000);
    for (size_t i = 0; i < UNIT_COUNT(fds); i++)
        fds[i] = world_dial_raw();
    WORLD_AWAIT(stats_now(&stats)->refused == 3 && stats.connections_open == NET_CONNS_ADDRESS_MAX);
    assert_int_equal(stats.connections, UNIT_COUNT(fds));
    for (size_t i = 0; i < UNIT_COUNT(fds); i++)
        close(fds[i]);
    WORLD_AWAIT(stats_now(&stats)->connections_open == 0);
    world_stop();
}

/* Goal:   who connects and says nothing, or says it too slowly, does not keep its place. */
static void a_slow_hello_is_hung_up_on(void **state)
{
    struct pollfd p = { .events = POLLIN };
    double        began;
    char          byte;

    (void)state;
    world_serve(1, 0);
    p.fd = world_dial_raw();
    began = base_clock_ms();
    assert_int_equal(send(p.fd, "\26\3\1", 3, MSG_NOSIGNAL), 3);
    while (poll(&p, 1, 500) == 0 && base_clock_ms() - began < 15000)
        (void)send(p.fd, "\2", 1, MSG_NOSIGNAL);
    assert_true(recv(p.fd, &byte, 1, 0) <= 0);
    assert_in_range((unsigned)(base_clock_ms() - began), NET_HANDSHAKE_MS - 100, 12000);
    close(p.fd);
    world_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_beyond_the_limit_are_refused),
        cmocka_unit_test(connections_of_one_address_are_bounded),
        cmocka_unit_test(a_slow_hello_is_hung_up_on),
    };

    return cmocka_run_group_tests_name("net/server", tests, world_begin, world_end);
}
