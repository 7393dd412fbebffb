/* net/loop_test.c - work that other threads post: all of it, once, in each thread's order.
 *
 * SPDX-License-Identifier: MIT */
#include "net/world_test.h"

enum { THREADS = 4, EACH = 20000 };

struct item {
    struct net_work work;
    int             thread, number;
};

static struct {
    struct net_loop *loop;
    struct item     *items; /* (THREADS * EACH) */
    int              next[THREADS];
    int              disorder, elsewhere;
    int              done;
} p;

static void on_item(struct net_work *work)
{
    struct item *item = (struct item *)(void *)work;

    p.disorder += item->number != p.next[item->thread];
    p.next[item->thread] = item->number + 1;
    p.elsewhere += !net_loop_here(p.loop);
    p.done++;
}

static void *post_all(void *ctx)
{
    struct item *items = ctx;

    for (int i = 0; i < EACH; i++)
        net_loop_post(p.loop, &items[i].work);
    return NULL;
}

/* Goal:   nothing posted is lost, run twice, run elsewhere, or run before what its thread posted
 *         earlier; also when the loop is closed the moment after. */
static void posted_work_runs_once_and_in_order(void **state)
{
    pthread_t threads[THREADS];
    mcp_error err;

    (void)state;
    p.items = calloc(THREADS * EACH, sizeof(*p.items));
    assert_non_null(p.items);
    unit_ok(net_loop_open(&p.loop, &err), &err);
    assert_false(net_loop_here(p.loop));
    for (int t = 0; t < THREADS; t++) {
        for (int i = 0; i < EACH; i++)
            p.items[t * EACH + i] = (struct item){ { on_item, NULL }, t, i };
        assert_int_equal(pthread_create(&threads[t], NULL, post_all, &p.items[t * EACH]), 0);
    }
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    net_loop_close(p.loop);
    assert_int_equal(p.done, THREADS * EACH);
    assert_int_equal(p.disorder, 0);
    assert_int_equal(p.elsewhere, 0);
    free(p.items);
}

static void repost(struct net_work *work)
{
    struct item *item = (struct item *)(void *)work;

    p.done++;
    if (++item->number < 1000)
        net_loop_post(p.loop, work);
}

/* Goal:   closing runs what was posted, and what that posts, to the end. */
static void work_may_be_posted_again_from_itself(void **state)
{
    struct item item = { .work.run = repost };
    mcp_error   err;

    (void)state;
    p.done = 0;
    unit_ok(net_loop_open(&p.loop, &err), &err);
    net_loop_post(p.loop, &item.work);
    net_loop_close(p.loop);
    assert_int_equal(p.done, 1000);
    net_loop_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posted_work_runs_once_and_in_order),
        cmocka_unit_test(work_may_be_posted_again_from_itself),
    };

    return cmocka_run_group_tests_name("net/loop", tests, NULL, NULL);
}
