/* worker/turn_test.c - who leads a batch, and the share of batch sessions.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/made_test.h"

/* A client that always has a window queued. */
struct endless {
    struct worker_session *s;
    struct worker_work     work;
    uint32_t               tokens; /* 0: exclusive */
    uint32_t               batches;
    uint64_t               had; /* positions */
};

static struct endless endless(struct made *m, uint8_t id, enum wire_qos qos, uint32_t first,
                              uint32_t tokens)
{
    struct made_open open = { .id = id, .qos = qos, .first = first, .last = m->limits.last };

    return (struct endless){ .s = made_open(m, open), .tokens = tokens };
}

/* One batch, `ms` long; each client has a window queued before it. */
static void run_batch(struct made *m, struct endless *clients, uint32_t count, double ms)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct worker_session_info *info = worker_session_info(clients[i].s);
        bool                              exclusive = clients[i].tokens == 0;

        if (info->queued_windows > 0)
            continue;
        clients[i].work = (struct worker_work){ .pos = exclusive ? 0 : info->queued_pos,
                                                .count = clients[i].tokens,
                                                .exclusive = exclusive };
        made_queue(m, clients[i].s, &clients[i].work);
    }
    made_next(m);
    for (uint32_t i = 0; i < count; i++) {
        const struct worker_item *item = made_item(m, clients[i].s);

        clients[i].batches += item != NULL;
        clients[i].had += item != NULL ? item->count : 0;
    }
    m->now_ms += ms;
    made_done(m);
}

static void ratio_within(uint64_t a, uint64_t b, double least, double most, const char *what)
{
    double ratio = (double)a / (double)b;

    if (!(ratio >= least && ratio <= most))
        fail_msg("%s: %" PRIu64 " to %" PRIu64 " is %.3f, not %.3f to %.3f", what, a, b, ratio,
                 least, most);
}

/* ---- turns ---------------------------------------------------------------------------- */

/* Goal:   while decodes never end, what cannot ride along with them (prefill of other layers, an
 *         export) has every second forward, within the chunk; and the decodes the other. */
static void other_layers_have_every_second_forward(void **state)
{
    struct made    m;
    struct endless c[3];

    (void)state;
    made_new(&m);
    c[0] = endless(&m, 1, WIRE_QOS_NORMAL, 4, 1);
    c[1] = endless(&m, 2, WIRE_QOS_NORMAL, 6, 512);
    c[2] = endless(&m, 3, WIRE_QOS_NORMAL, 4, 0);
    for (int i = 0; i < 40; i++) {
        run_batch(&m, c, 3, 10);
        assert_true(m.batch.tokens <= 256);
        assert_int_equal(c[0].batches, i / 2 + 1);
    }
    assert_int_equal(c[1].batches + c[2].batches, 20);
    assert_true(c[1].batches >= 4 && c[2].batches >= 4);
    made_free(&m);
}

/* Goal:   a decode waits for one batch at most, whoever else has been left out; and all of those
 *         have their turn.
 * Method: decodes of one range; normal prefill, batch decodes, batch prefill and an export of batch
 *         class, each of other layers. */
static void a_decode_has_every_second_forward(void **state)
{
    struct made    m;
    struct endless c[5];

    (void)state;
    made_init(&m);
    m.limits.ctx_tokens = INT32_MAX;
    made_start(&m);
    c[0] = endless(&m, 1, WIRE_QOS_NORMAL, 4, 1);
    c[1] = endless(&m, 2, WIRE_QOS_NORMAL, 5, 300);
    c[2] = endless(&m, 3, WIRE_QOS_BATCH, 6, 1);
    c[3] = endless(&m, 4, WIRE_QOS_BATCH, 7, 300);
    c[4] = endless(&m, 5, WIRE_QOS_BATCH, 8, 0);
    for (uint32_t i = 0; i < 2000; i++) {
        run_batch(&m, c, 5, 10);
        assert_true(c[0].batches >= (i + 1) / 2);
        assert_true(m.batch.tokens <= 256);
    }
    for (uint32_t i = 1; i < 5; i++)
        assert_true(c[i].batches >= 20);
    made_free(&m);
}

/* Goal:   prefill of other layers is shared by weight, too: 4 to 1 between normal and batch, with
 *         decodes about and without. */
static void turns_are_shared_by_weight(void **state)
{
    (void)state;
    for (uint32_t count = 2; count <= 3; count++) {
        struct made    m;
        struct endless c[3];

        made_init(&m);
        m.limits.ctx_tokens = INT32_MAX;
        made_start(&m);
        c[0] = endless(&m, 1, WIRE_QOS_NORMAL, 5, 256);
        c[1] = endless(&m, 2, WIRE_QOS_BATCH, 6, 256);
        c[2] = endless(&m, 3, WIRE_QOS_NORMAL, 4, 1);
        for (int i = 0; i < 3000; i++)
            run_batch(&m, c, count, 10);
        ratio_within(c[0].had, c[1].had, 3.6, 4.4, count == 2 ? "alone" : "beside decodes");
        made_free(&m);
    }
}

/* Goal:   turns that nobody else wanted are not held against a lane: who comes later does not have
 *         all turns until it has caught up.
 * Method: one of two has 3000 forwards alone; then the other comes, of other layers. */
static void turns_nobody_wanted_do_not_count(void **state)
{
    (void)state;
    for (uint32_t late = 0; late < 2; late++) {
        struct made    m;
        struct endless c[2];

        made_init(&m);
        m.limits.ctx_tokens = INT32_MAX;
        made_start(&m);
        c[late] = endless(&m, 2, late ? WIRE_QOS_BATCH : WIRE_QOS_NORMAL, 6, 512);
        c[!late] = endless(&m, 1, late ? WIRE_QOS_NORMAL : WIRE_QOS_BATCH, 5, 512);
        for (int i = 0; i < 3000; i++)
            run_batch(&m, &c[!late], 1, 200);
        c[!late].batches = 0;
        for (int i = 0; i < 60; i++)
            run_batch(&m, c, 2, 200);
        assert_true(c[0].batches >= 5 && c[1].batches >= 5);
        made_free(&m);
    }
}

/* ---- the share of batch sessions ------------------------------------------------------ */

/* Goal:   batch sessions have their weight's share of a forward while others are about, no more and
 *         no less, and all of it when they are alone.
 * Method: endless prefill of all classes, eight sessions each; what each class had of 400
 *         forwards. */
static void batch_sessions_have_their_share_and_no_more(void **state)
{
    static const struct {
        enum wire_qos classes[3];
        uint32_t      count;
        double        share; /* of batch */
    } cases[] = {
        { { WIRE_QOS_BATCH, WIRE_QOS_NORMAL }, 2, 1.0 / 5 },
        { { WIRE_QOS_BATCH, WIRE_QOS_REALTIME }, 2, 1.0 / 17 },
        { { WIRE_QOS_BATCH, WIRE_QOS_NORMAL, WIRE_QOS_REALTIME }, 3, 1.0 / 21 },
        { { WIRE_QOS_BATCH }, 1, 1.0 },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(cases); i++) {
        struct made    m;
        struct endless c[24];
        uint64_t       had[4] = { 0 }; /* of the three, and in all */

        made_init(&m);
        m.limits.ctx_tokens = INT32_MAX;
        made_start(&m);
        for (uint8_t j = 0; j < 8 * cases[i].count; j++)
            c[j] = endless(&m, j, cases[i].classes[j / 8], 4, 300);
        for (int j = 0; j < 400; j++) {
            run_batch(&m, c, 8 * cases[i].count, 100);
            assert_true(m.batch.tokens > 512 - 128);
        }
        for (uint32_t j = 0; j < 8 * cases[i].count; j++) {
            had[j / 8] += c[j].had;
            had[3] += c[j].had;
        }
        ratio_within(had[0], had[3], 0.95 * cases[i].share, 1.15 * cases[i].share, "batch of all");
        if (cases[i].count == 3)
            ratio_within(had[2], had[1], 3.6, 4.4, "realtime of normal"); /* 16 to 4 */
        made_free(&m);
    }
}

/* Goal:   a batch session's prefill stays small also while a normal session's decode is only
 *         expected, so that this finds a short forward before it. */
static void batch_prefill_is_small_while_a_decode_is_expected(void **state)
{
    struct made    m;
    struct endless normal, batch;

    (void)state;
    made_new(&m);
    normal = endless(&m, 1, WIRE_QOS_NORMAL, 4, 1);
    batch = endless(&m, 2, WIRE_QOS_BATCH, 4, 512);
    run_batch(&m, &normal, 1, 10);
    for (int i = 0; i < 9; i++) {
        run_batch(&m, &batch, 1, 10);
        assert_int_equal(m.batch.tokens, 64);
    }
    m.now_ms += 10;
    run_batch(&m, &batch, 1, 10);
    assert_int_equal(m.batch.tokens, 448); /* what is left of two windows */
    made_free(&m);
}

/* Goal:   the smallest weight still moves, and so does work that costs more than a forward holds.
 * Method: weight 1 against 1000; forwards of 512 and of 16 positions; a batch session of each kind:
 *         decode, prefill, export. */
static void the_smallest_weight_still_moves(void **state)
{
    static const uint32_t forwards[] = { 512, 16 };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(forwards); i++)
        for (uint32_t layers = 4; layers < 6; layers++) {
            struct made    m;
            struct endless c[5];

            made_init(&m);
            m.limits.ctx_tokens = INT32_MAX;
            m.limits.batch_tokens = forwards[i];
            m.limits.decode_tokens = 4;
            m.limits.weight[WIRE_QOS_NORMAL] = 1000;
            made_start(&m);
            c[0] = endless(&m, 1, WIRE_QOS_NORMAL, 4, 1);
            c[1] = endless(&m, 2, WIRE_QOS_NORMAL, 4, forwards[i]);
            c[2] = endless(&m, 3, WIRE_QOS_BATCH, layers, 3);
            c[3] = endless(&m, 4, WIRE_QOS_BATCH, layers, 10);
            c[4] = endless(&m, 5, WIRE_QOS_BATCH, layers, 0);
            for (int j = 0; j < 5000; j++)
                run_batch(&m, c, 5, 10);
            for (uint32_t j = 2; j < 5; j++)
                if (c[j].batches == 0)
                    fail_msg("forwards of %u, layer %u: client %u was in none of 5000 batches",
                             forwards[i], layers, j);
            made_free(&m);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_layers_have_every_second_forward),
        cmocka_unit_test(a_decode_has_every_second_forward),
        cmocka_unit_test(turns_are_shared_by_weight),
        cmocka_unit_test(turns_nobody_wanted_do_not_count),
        cmocka_unit_test(batch_sessions_have_their_share_and_no_more),
        cmocka_unit_test(batch_prefill_is_small_while_a_decode_is_expected),
        cmocka_unit_test(the_smallest_weight_still_moves),
    };

    return cmocka_run_group_tests_name("worker/turn", tests, NULL, NULL);
}
