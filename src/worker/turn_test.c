/* worker/turn_test.c - who leads a batch, the share of batch sessions, and their slices.
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

/* Each client has a window queued. */
static void queue_all(struct made *m, struct endless *clients, uint32_t count)
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
}

/* What they have of the batch. */
static void note_all(const struct made *m, struct endless *clients, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct worker_item *item = made_item(m, clients[i].s);

        clients[i].batches += item != NULL;
        clients[i].had += item != NULL ? item->count : 0;
    }
}

/* One batch, `ms` long and not cut; each client has a window queued before it. */
static void run_batch(struct made *m, struct endless *clients, uint32_t count, double ms)
{
    queue_all(m, clients, count);
    made_next(m);
    note_all(m, clients, count);
    m->now_ms += ms;
    worker_table_done(m->t, m->now_ms, &m->batch, ms);
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

/* Goal:   compute time is shared by weight, 4 to 1 between normal and batch: whatever runs, and
 *         however long the forwards of either are.
 * Method: prefill of other layers for each, alone and beside decodes. */
static void compute_time_is_shared_by_weight(void **state)
{
    static const double batch_ms[] = { 4, 10, 50 };

    (void)state;
    for (size_t n = 0; n < 2 * UNIT_COUNT(batch_ms); n++) {
        struct made    m;
        struct endless c[3];
        uint32_t       count = n % 2 == 0 ? 2 : 3;
        double         time_ms[2] = { 0 };

        made_init(&m);
        m.limits.ctx_tokens = INT32_MAX;
        made_start(&m);
        c[0] = endless(&m, 1, WIRE_QOS_NORMAL, 5, 256);
        c[1] = endless(&m, 2, WIRE_QOS_BATCH, 6, 256);
        c[2] = endless(&m, 3, WIRE_QOS_NORMAL, 4, 1);
        for (int i = 0; i < 3000; i++) {
            uint32_t before = c[1].batches;
            double   ms = 10;

            queue_all(&m, c, count);
            made_next(&m);
            ms = m.batch.back ? batch_ms[n / 2] : ms;
            time_ms[m.batch.back] += ms;
            note_all(&m, c, count);
            assert_int_equal(c[1].batches, before + m.batch.back);
            m.now_ms += ms;
            worker_table_done(m.t, m.now_ms, &m.batch, ms);
        }
        ratio_within((uint64_t)time_ms[0], (uint64_t)time_ms[1], 3.8, 4.2, "front to back");
        assert_true(count == 2 || c[0].batches > 100);
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

/* ---- slices --------------------------------------------------------------------------- */

static uint32_t slice_layers(const struct worker_batch *batch)
{
    return batch->slice_last - batch->slice_first;
}

static void run_slice(struct made *m, double layer_ms)
{
    double ms = slice_layers(&m->batch) * layer_ms;

    m->now_ms += ms;
    worker_table_sliced(m->t, m->now_ms, &m->batch, ms);
}

/* Decodes that take 10 ms each, until that is known. */
static void run_decodes(struct made *m, struct endless *decoder, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        run_batch(m, decoder, 1, 10);
}

/* Goal:   beside decodes of 10 ms, a batch session's forward of 8 layers of 2 ms each runs in
 *         slices of at most half of that; a decode that comes meanwhile goes first after one of
 *         them, and then the forward goes on.
 * Method: the first slice is one layer, because nothing is known of such a forward yet. */
static void a_decode_waits_for_one_slice(void **state)
{
    struct made         m;
    struct endless      decoder, prefill;
    struct worker_batch urgent;

    (void)state;
    made_new(&m);
    decoder = endless(&m, 1, WIRE_QOS_NORMAL, 4, 1);
    prefill = endless(&m, 2, WIRE_QOS_BATCH, 4, 512);
    run_decodes(&m, &decoder, 8);
    queue_all(&m, &prefill, 1);
    made_next(&m);
    assert_true(m.batch.back);
    assert_int_equal(slice_layers(&m.batch), 1);
    run_slice(&m, 2);
    assert_false(worker_table_urgent(m.t, m.now_ms, &m.batch, &urgent));
    assert_int_equal(slice_layers(&m.batch), 2);
    for (uint32_t layer = 5; layer < 11; layer += 2) {
        queue_all(&m, &decoder, 1);
        run_slice(&m, 2);
        assert_true(worker_table_urgent(m.t, m.now_ms, &m.batch, &urgent));
        assert_int_equal(urgent.count, 1);
        assert_ptr_equal(urgent.items[0].session, decoder.s);
        assert_int_equal(urgent.slice_last, urgent.last);
        m.now_ms += 10;
        worker_table_done(m.t, m.now_ms, &urgent, 10);
        assert_false(worker_table_urgent(m.t, m.now_ms, &m.batch, &urgent));
        assert_int_equal(m.batch.slice_first, layer + 2);
    }
    assert_int_equal(m.batch.slice_last, m.batch.last);
    worker_table_done(m.t, m.now_ms, &m.batch, 2);
    made_free(&m);
}

/* Goal:   without others about a batch session's forward is cut as well, in slices of 50 ms: who
 *         comes then waits no longer. */
static void a_long_forward_is_cut_in_any_case(void **state)
{
    struct made         m;
    struct endless      prefill;
    struct worker_batch urgent;

    (void)state;
    made_new(&m);
    prefill = endless(&m, 2, WIRE_QOS_BATCH, 4, 512);
    run_batch(&m, &prefill, 1, 160);
    queue_all(&m, &prefill, 1);
    made_next(&m);
    assert_int_equal(m.batch.tokens, 512);
    assert_int_equal(slice_layers(&m.batch), 2); /* of 20 ms */
    run_slice(&m, 10);
    assert_false(worker_table_urgent(m.t, m.now_ms, &m.batch, &urgent));
    assert_int_equal(slice_layers(&m.batch), 5);
    made_free(&m);
}

/* Goal:   beside decodes of others a batch session's window of fewer than 64 positions is cut where
 *         that cannot be seen (even_windows), to what a few slices hold; one of 64 is not.
 * Method: decodes of 10 ms, so three positions are six slices of 5 ms, as far as is known. */
static void a_short_window_is_cut_where_that_cannot_be_seen(void **state)
{
    static const struct {
        bool     even;
        uint32_t tokens, expected;
    } cases[] = { { true, 63, 3 }, { true, 16, 3 }, { false, 63, 63 }, { true, 64, 64 } };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(cases); i++) {
        struct made    m;
        struct endless decoder, other;

        made_init(&m);
        m.limits.even = cases[i].even;
        made_start(&m);
        decoder = endless(&m, 1, WIRE_QOS_NORMAL, 4, 1);
        other = endless(&m, 2, WIRE_QOS_BATCH, 4, cases[i].tokens);
        run_decodes(&m, &decoder, 8);
        queue_all(&m, &other, 1);
        made_next(&m);
        assert_int_equal(m.batch.tokens, cases[i].expected);
        made_done(&m);
        made_free(&m);
    }
}

/* Goal:   the head runs with one layer when it does not fit beside more of them, and what it takes
 *         is learned. */
static void the_head_goes_with_the_last_layer(void **state)
{
    struct made         m;
    struct endless      decoder;
    struct worker_batch urgent;

    (void)state;
    made_new(&m);
    decoder = endless(&m, 1, WIRE_QOS_NORMAL, 4, 1);
    for (int i = 0; i < 2; i++) {
        struct worker_session *s = made_open(
            &m, (struct made_open){ .id = 2 + i, .qos = WIRE_QOS_BATCH });
        struct worker_work *work = made_work(&m, s, 40);

        run_decodes(&m, &decoder, 8);
        work->logits = true;
        made_queue(&m, s, work);
        made_next(&m);
        while (m.batch.slice_last < m.batch.last) {
            run_slice(&m, 1);
            assert_false(worker_table_urgent(m.t, m.now_ms, &m.batch, &urgent));
        }
        /* Layers of 1 ms, slices of 5: 1, 5, and 2 with the head, of which nothing is known. */
        assert_int_equal(slice_layers(&m.batch), i == 0 ? 2 : 1);
        worker_table_done(m.t, m.now_ms, &m.batch, slice_layers(&m.batch) + 6);
    }
    made_free(&m);
}

/* Goal:   a session that waits for the slot of one that was closed in the paused batch does not
 *         wait for the share of that. */
static void who_waits_for_a_slot_hurries_the_paused_batch(void **state)
{
    (void)state;
    for (int waits = 0; waits < 2; waits++) {
        struct made         m;
        struct endless      decoder, prefill;
        struct worker_batch urgent;
        uint32_t            decodes = 0;

        made_init(&m);
        m.limits.sessions_max = 2;
        made_start(&m);
        decoder = endless(&m, 1, WIRE_QOS_NORMAL, 4, 1);
        prefill = endless(&m, 2, WIRE_QOS_BATCH, 4, 512);
        run_decodes(&m, &decoder, 8);
        queue_all(&m, &prefill, 1);
        made_next(&m);
        worker_table_close(m.t, m.now_ms, prefill.s);
        if (waits)
            assert_int_equal(
                worker_session_info(made_open(&m, (struct made_open){ .id = 3 }))->slot,
                UINT32_MAX);
        while (m.batch.slice_last < m.batch.last) {
            run_slice(&m, 5);
            queue_all(&m, &decoder, 1);
            while (worker_table_urgent(m.t, m.now_ms, &m.batch, &urgent)) {
                decodes++;
                m.now_ms += 10;
                worker_table_done(m.t, m.now_ms, &urgent, 10);
                queue_all(&m, &decoder, 1);
            }
        }
        /* Eight slices of a layer: a decode behind each of seven, or two, as 20 to 5 ms. */
        assert_true(waits ? decodes == 7 : decodes >= 14);
        made_free(&m);
    }
}

/* ---- riders --------------------------------------------------------------------------- */

/* Goal:   decodes of batch sessions ride along with those of others where a position more costs
 *         nothing, and not where it costs as much as any. */
static void decodes_ride_along_where_that_is_cheap(void **state)
{
    (void)state;
    for (int cheap = 0; cheap < 2; cheap++) {
        struct made    m;
        struct endless c[24];

        made_new(&m);
        for (uint8_t i = 0; i < 24; i++)
            c[i] = endless(&m, i, i < 8 ? WIRE_QOS_NORMAL : WIRE_QOS_BATCH, 4, 1);
        for (uint32_t i = 0; i < 40; i++) /* of one to eight positions */
            run_batch(&m, c, 1 + i % 8, cheap ? 10 : 10 * (1 + i % 8));
        queue_all(&m, c, 24);
        made_next(&m);
        assert_false(m.batch.back);
        assert_int_equal(m.batch.count, cheap ? 24 : 8 + 1); /* half of a quarter of eight */
        made_free(&m);
    }
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
        cmocka_unit_test(compute_time_is_shared_by_weight),
        cmocka_unit_test(turns_nobody_wanted_do_not_count),
        cmocka_unit_test(batch_sessions_have_their_share_and_no_more),
        cmocka_unit_test(a_decode_waits_for_one_slice),
        cmocka_unit_test(a_long_forward_is_cut_in_any_case),
        cmocka_unit_test(a_short_window_is_cut_where_that_cannot_be_seen),
        cmocka_unit_test(the_head_goes_with_the_last_layer),
        cmocka_unit_test(who_waits_for_a_slot_hurries_the_paused_batch),
        cmocka_unit_test(decodes_ride_along_where_that_is_cheap),
        cmocka_unit_test(the_smallest_weight_still_moves),
    };

    return cmocka_run_group_tests_name("worker/turn", tests, NULL, NULL);
}
