/* worker/places_test.c - who may have a session, and who has to go for it.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/made_test.h"

/* ---- slots ---------------------------------------------------------------------------- */

/* Goal:   a new session gets the lowest free slot. */
static void the_lowest_free_slot_is_given(void **state)
{
    struct made            m;
    struct worker_session *s[8];

    (void)state;
    made_new(&m);
    for (uint8_t i = 0; i < 8; i++) {
        s[i] = made_open(&m, (struct made_open){ .id = i });
        assert_int_equal(worker_session_info(s[i])->slot, i);
    }
    worker_table_close(m.t, m.now_ms, s[6]);
    worker_table_close(m.t, m.now_ms, s[2]);
    s[2] = made_open(&m, (struct made_open){ .id = 10 });
    s[6] = made_open(&m, (struct made_open){ .id = 11 });
    assert_int_equal(worker_session_info(s[2])->slot, 2);
    assert_int_equal(worker_session_info(s[6])->slot, 6);
    assert_int_equal(worker_session_info(made_open(&m, (struct made_open){ .id = 12 }))->slot, 8);
    made_free(&m);
}

/* Goal:   a slot in which something has run is cleared once, before the next batch, whoever has it
 *         then; one in which nothing has run is not. */
static void a_used_slot_is_cleared_before_anything_runs(void **state)
{
    struct made            m;
    struct worker_session *s[4];

    (void)state;
    made_new(&m);
    for (uint8_t i = 0; i < 4; i++)
        s[i] = made_open(&m, (struct made_open){ .id = i });
    made_push(&m, s[1], 5);
    made_exclusive(&m, s[2]); /* an import leaves something too */
    while (made_run(&m) > 0)
        assert_int_equal(m.batch.clear_count, 0);
    worker_table_close(m.t, m.now_ms, s[0]);
    worker_table_close(m.t, m.now_ms, s[1]);
    worker_table_close(m.t, m.now_ms, s[2]);
    made_open(&m, (struct made_open){ .id = 5 });
    s[1] = made_open(&m, (struct made_open){ .id = 6 });
    made_push(&m, s[1], 3);
    made_next(&m);
    assert_int_equal(m.batch.clear_count, 2);
    assert_int_equal(m.batch.clears[0], 1);
    assert_int_equal(m.batch.clears[1], 2);
    assert_int_equal(made_item(&m, s[1])->slot, 1);
    assert_int_equal(made_item(&m, s[1])->trim_to, UINT32_MAX);
    made_done(&m);
    made_push(&m, s[3], 1);
    made_next(&m);
    assert_int_equal(m.batch.clear_count, 0);
    made_free(&m);
}

/* Goal:   a session that is closed while it runs keeps its slot until the batch is done; one that
 *         was let in meanwhile is granted at once, may queue, and gets the slot then, cleared.  Who
 *         came first is served first. */
static void a_slot_in_a_running_batch_is_free_afterwards(void **state)
{
    struct made            m;
    struct worker_session *s[2], *next[2];
    struct worker_work    *works[2];

    (void)state;
    made_init(&m);
    m.limits.sessions_max = 2;
    made_start(&m);
    for (uint8_t i = 0; i < 2; i++) {
        s[i] = made_open(&m, (struct made_open){ .id = i });
        works[i] = made_push(&m, s[i], 3);
    }
    made_next(&m);
    for (uint8_t i = 0; i < 2; i++) {
        assert_false(worker_item_void(m.t, made_item(&m, s[i])));
        worker_table_close(m.t, m.now_ms, s[i]);
        assert_true(worker_item_void(m.t, made_item(&m, s[i])));
        assert_null(worker_session_info(s[i])->stream);
        next[i] = made_open(&m, (struct made_open){ .id = (uint8_t)(5 + i) });
        assert_int_equal(worker_session_info(next[i])->slot, UINT32_MAX);
    }
    made_push(&m, next[1], 4);
    assert_int_equal(made_stats(&m).sessions, 2);
    assert_ptr_equal(m.batch.items[0].work, works[0]); /* given back by the batch */
    assert_true(m.batch.items[0].last);
    made_done(&m);
    made_no_act(&m);
    assert_int_equal(worker_session_info(next[0])->slot, 0);
    assert_int_equal(worker_session_info(next[1])->slot, 1);
    made_next(&m);
    assert_int_equal(m.batch.clear_count, 2);
    assert_int_equal(m.batch.items[0].slot, 1);
    assert_int_equal(m.batch.items[0].pos, 0);
    made_free(&m);
}

/* ---- who is refused ------------------------------------------------------------------- */

/* Goal:   layers, context and class outside what is held or granted are refused with the reason. */
static void what_is_not_held_or_granted_is_refused(void **state)
{
    static const struct {
        struct made_open open;
        int              code;
        const char      *about;
    } cases[] = {
        { { .first = 3, .last = 12 }, MCP_ERANGE, "[3, 12)" },
        { { .first = 4, .last = 13 }, MCP_ERANGE, "holds [4, 12)" },
        { { .first = 9, .last = 9 }, MCP_ERANGE, "[9, 9)" },
        { { .first = 9, .last = 8 }, MCP_ERANGE, "[9, 8)" },
        { { .ctx_tokens = 100001 }, MCP_ERANGE, "100001" },
        { { .qos = WIRE_QOS_REALTIME, .no_priority = 1 }, MCP_EDENIED, "class realtime" },
        { { .qos = WIRE_QOS_NORMAL, .no_priority = 2 }, MCP_EDENIED, "class normal" },
        { { .grant_first = 5, .grant_last = 12 }, MCP_EDENIED, "grants [5, 12)" },
        { { .grant_first = 0, .grant_last = 11 }, MCP_EDENIED, "grants [0, 11)" },
        { { .subject = "" }, MCP_EDENIED, "no subject" },
        { { .qos = (enum wire_qos)3 }, MCP_EINVAL, "class 3" },
    };
    struct made            m;
    struct worker_session *s;
    uint32_t               retry_ms;
    mcp_error              err;

    (void)state;
    made_new(&m);
    for (size_t i = 0; i < UNIT_COUNT(cases); i++) {
        unit_refused(made_try(&m, cases[i].open, 1, &s, &retry_ms, &err), cases[i].code, &err,
                     cases[i].about);
        assert_null(s);
    }
    assert_int_equal(made_stats(&m).sessions, 0);
    assert_int_equal(made_stats(&m).refused_denied, 5);
    s = made_open(&m, (struct made_open){ .qos = WIRE_QOS_BATCH,
                                          .no_priority = 2,
                                          .grant_first = 4,
                                          .grant_last = 12,
                                          .ctx_tokens = 100000 });
    assert_int_equal(worker_session_info(s)->ctx_tokens, 100000);
    made_free(&m);
}

/* Goal:   the id of another subject's session is refused in the same words whatever is asked, and
 *         nothing happens to the session; one's own is refused unless resume is asked. */
static void a_foreign_id_is_refused_and_tells_nothing(void **state)
{
    struct made            m;
    struct worker_session *s, *out;
    uint32_t               retry_ms;
    mcp_error              first, err;

    (void)state;
    made_new(&m);
    s = made_open(&m, (struct made_open){ .id = 7, .first = 4, .last = 8 });
    made_push(&m, s, 9);
    assert_int_equal(
        made_try(&m, (struct made_open){ .id = 7, .subject = "eve" }, 2, &out, &retry_ms, &first),
        MCP_EDENIED);
    for (int i = 0; i < 4; i++) {
        struct made_open o = { .id = 7, .subject = "eve", .resume = i & 1 };

        if (i & 2)
            o = (struct made_open){
                .id = 7, .subject = "eve", .resume = i & 1, .first = 4, .last = 8
            };
        unit_refused(made_try(&m, o, 2, &out, &retry_ms, &err), MCP_EDENIED, &err,
                     "not for this subject");
        assert_string_equal(err.text, first.text);
        assert_null(out);
        worker_table_detach(m.t, m.now_ms, s);
    }
    made_no_act(&m);
    assert_int_equal(worker_session_info(s)->queued_windows, 1);
    assert_int_equal(made_stats(&m).refused_denied, 5);

    unit_refused(made_try(&m, (struct made_open){ .id = 7, .first = 4, .last = 8 }, 2, &out,
                          &retry_ms, &err),
                 MCP_EINVAL, &err, "in use");
    unit_refused(
        made_try(&m, (struct made_open){ .id = 7, .resume = true }, 2, &out, &retry_ms, &err),
        MCP_EINVAL, &err, "runs [4, 8)");
    made_free(&m);
}

/* Goal:   a full worker refuses with the time when a place is likely: when the oldest detached
 *         session makes room, else by how long sessions live; 100 ms to 30 s. */
static void a_refusal_tells_when_to_come_again(void **state)
{
    struct made            m;
    struct worker_session *s[4], *out;
    uint32_t               retry_ms;
    mcp_error              err;

    (void)state;
    made_init(&m);
    m.limits.sessions_max = 4;
    made_start(&m);
    assert_int_equal(worker_table_retry_ms(m.t, m.now_ms), 100); /* there is room */
    for (uint8_t i = 0; i < 4; i++)
        s[i] = made_open(&m, (struct made_open){ .id = i });
    unit_refused(made_try(&m, (struct made_open){ .id = 9 }, 9, &out, &retry_ms, &err), MCP_EBUSY,
                 &err, "all 4 sessions are in use (-np)");
    assert_in_range(retry_ms, 100, 30000);

    m.now_ms += 8000; /* the first session ever to end has lived for 8 s: 2 s in 4 places */
    worker_table_close(m.t, m.now_ms, s[0]);
    s[0] = made_open(&m, (struct made_open){ .id = 5 });
    made_try(&m, (struct made_open){ .id = 9 }, 9, &out, &retry_ms, &err);
    assert_in_range(retry_ms, 2000, 2001);

    worker_table_detach(m.t, m.now_ms, s[1]);
    m.now_ms += 1500;
    worker_table_detach(m.t, m.now_ms, s[2]);
    made_try(&m, (struct made_open){ .id = 9 }, 9, &out, &retry_ms, &err);
    assert_in_range(retry_ms, 3500, 3501); /* of the 5 s that it is kept */
    assert_int_equal(worker_table_retry_ms(m.t, m.now_ms), retry_ms);
    m.now_ms += 3490;
    made_try(&m, (struct made_open){ .id = 9 }, 9, &out, &retry_ms, &err);
    assert_int_equal(retry_ms, 100);
    m.now_ms += 100;
    made_open(&m, (struct made_open){ .id = 9 });
    made_ended(&m, NULL, WIRE_UNAVAILABLE, "made room");
    assert_int_equal(made_stats(&m).refused_full, 4);
    assert_int_equal(made_stats(&m).evicted, 1);
    made_free(&m);
}

/* Goal:   a subject has at most its number of sessions, also where there is room; its own detached
 *         session makes room for it, another subject's does not. */
static void a_subject_has_its_number_of_sessions(void **state)
{
    struct made            m;
    struct worker_session *s, *out;
    uint32_t               retry_ms;
    mcp_error              err;

    (void)state;
    made_init(&m);
    m.limits.subject_sessions = 2;
    made_start(&m);
    s = made_open(&m, (struct made_open){ .id = 1 });
    made_open(&m, (struct made_open){ .id = 2 });
    worker_table_detach(m.t, m.now_ms,
                        made_open(&m, (struct made_open){ .id = 3, .subject = "other" }));
    m.now_ms += 6000;
    unit_refused(made_try(&m, (struct made_open){ .id = 4 }, 4, &out, &retry_ms, &err), MCP_EBUSY,
                 &err, "2 sessions of this subject are open, at most 2 (subject_sessions)");
    worker_table_detach(m.t, m.now_ms, s);
    m.now_ms += 4000;
    unit_refused(made_try(&m, (struct made_open){ .id = 4 }, 4, &out, &retry_ms, &err), MCP_EBUSY,
                 &err, "subject_sessions");
    assert_in_range(retry_ms, 1000, 1001);
    m.now_ms += retry_ms;
    made_open(&m, (struct made_open){ .id = 4 });
    made_ended(&m, NULL, WIRE_UNAVAILABLE, "made room");
    assert_int_equal(made_stats(&m).sessions, 3);
    assert_int_equal(made_stats(&m).detached, 1);
    made_free(&m);
}

/* A full table of 8: "flood" has five sessions and "team" two, of which the last of each is
 * attached and the others are not; "other" has one, detached. */
static void fill(struct made *m)
{
    static const char *const subjects[] = { "flood", "flood", "flood", "flood",
                                            "flood", "team",  "team",  "other" };

    made_init(m);
    m->limits.sessions_max = 8;
    made_start(m);
    for (uint8_t i = 0; i < 8; i++) {
        struct worker_session *s = made_open(m,
                                             (struct made_open){ .id = i, .subject = subjects[i] });

        m->now_ms += 10;
        if (i != 4 && i != 6)
            worker_table_detach(m->t, m->now_ms, s);
    }
}

static bool opens(struct made *m, struct made_open open)
{
    struct worker_session *s;
    uint32_t               retry_ms;
    mcp_error              err;
    int                    rc = made_try(m, open, open.id, &s, &retry_ms, &err);

    if (rc == MCP_OK)
        return true;
    assert_int_equal(rc, MCP_EBUSY);
    assert_true(retry_ms >= 100);
    return false;
}

/* A detached session is resumed with what it had, if it is still there. */
static bool is_kept(struct made *m, uint8_t id, const char *subject)
{
    uint64_t resumed = made_stats(m).resumed;

    return opens(m, (struct made_open){ .id = id, .subject = subject, .resume = true }) &&
           made_stats(m).resumed == resumed + 1;
}

/* Goal:   a subject that opens sessions and leaves them shuts nobody out of a full worker: the
 *         oldest of its detached ones goes for a subject that has fewer, however young it is. */
static void who_has_most_makes_room_for_who_has_less(void **state)
{
    struct made m;

    (void)state;
    fill(&m);
    assert_true(opens(&m, (struct made_open){ .id = 20, .subject = "new" }));
    made_ended(&m, NULL, WIRE_UNAVAILABLE, "made room");
    assert_true(opens(&m, (struct made_open){ .id = 21, .subject = "other" }));
    made_ended(&m, NULL, WIRE_UNAVAILABLE, "made room");
    assert_int_equal(made_stats(&m).evicted, 2);
    assert_true(is_kept(&m, 2, "flood"));
    assert_true(is_kept(&m, 3, "flood"));
    assert_true(is_kept(&m, 5, "team"));
    assert_true(is_kept(&m, 7, "other"));
    made_free(&m);
}

/* Goal:   no place goes to a subject that would then have as many as the one that gives it, or to
 *         the one that has most. */
static void a_fair_share_is_not_taken_back(void **state)
{
    struct made m;

    (void)state;
    fill(&m);
    assert_false(opens(&m, (struct made_open){ .id = 20, .subject = "flood" }));
    assert_true(opens(&m, (struct made_open){ .id = 20, .subject = "team" })); /* 4 and 3 now */
    assert_false(opens(&m, (struct made_open){ .id = 21, .subject = "team" }));
    assert_false(opens(&m, (struct made_open){ .id = 22, .subject = "flood" }));
    assert_true(is_kept(&m, 7, "other"));
    made_free(&m);
}

/* Goal:   as long as a place is free, no detached session goes before its lease is over, whoever
 *         opens how many. */
static void a_free_place_costs_nobody_a_session(void **state)
{
    struct worker_session *s;
    struct made            m;

    (void)state;
    fill(&m);
    m.now_ms += 6000; /* longer than detached_keep_ms, less than a lease */
    s = made_open(&m, (struct made_open){ .id = 7, .subject = "other", .resume = true });
    for (int i = 0; i < 100; i++) {
        worker_table_close(m.t, m.now_ms, s);
        s = made_open(&m, (struct made_open){ .id = 7, .subject = "other" });
    }
    assert_int_equal(made_stats(&m).evicted, 0);
    assert_true(is_kept(&m, 0, "flood"));
    made_free(&m);
}

/* Goal:   a draining worker takes no new session, but a detached one can still be resumed. */
static void a_draining_worker_takes_no_new_session(void **state)
{
    struct made            m;
    struct worker_session *s, *out;
    uint32_t               retry_ms;
    mcp_error              err;

    (void)state;
    made_new(&m);
    s = made_open(&m, (struct made_open){ .id = 1 });
    worker_table_detach(m.t, m.now_ms, s);
    worker_table_drain(m.t);
    unit_refused(made_try(&m, (struct made_open){ .id = 2 }, 2, &out, &retry_ms, &err),
                 MCP_EUNAVAIL, &err, "draining");
    assert_null(out);
    assert_ptr_equal(made_open(&m, (struct made_open){ .id = 1, .resume = true }), s);
    made_free(&m);
}

/* ---- reservations --------------------------------------------------------------------- */

static void reserve(struct made *m, const char *subject, uint32_t sessions)
{
    struct worker_reservation *r = &m->limits.reservations[m->limits.reservation_count++];

    snprintf(r->subject, sizeof(r->subject), "%s", subject);
    r->sessions = sessions;
}

/* Goal:   reserved places are lent, and called back: the youngest session of the lowest class goes
 *         first, of those that are not within a reservation themselves.
 * Method: 8 places, 3 for gold and 2 for silver; others fill all 8, silver's own within its 2.
 *         Gold comes three times, and a fourth time in vain. */
static void a_reservation_always_finds_a_place(void **state)
{
    static const struct {
        const char   *subject;
        enum wire_qos qos;
    } first[8] = {
        { "a", WIRE_QOS_REALTIME },   { "b", WIRE_QOS_NORMAL }, { "silver", WIRE_QOS_BATCH },
        { "a", WIRE_QOS_NORMAL },     { "b", WIRE_QOS_BATCH },  { "a", WIRE_QOS_BATCH },
        { "silver", WIRE_QOS_BATCH }, { "b", WIRE_QOS_NORMAL },
    };
    static const uint8_t   leaves[] = { 5, 4, 7 };
    struct made            m;
    struct worker_session *s[8], *gold[3], *out;
    uint32_t               retry_ms;
    mcp_error              err;

    (void)state;
    made_init(&m);
    m.limits.sessions_max = 8;
    reserve(&m, "gold", 3);
    reserve(&m, "silver", 2);
    made_start(&m);
    for (uint8_t i = 0; i < 8; i++) {
        s[i] = made_open(
            &m, (struct made_open){ .id = i, .subject = first[i].subject, .qos = first[i].qos });
        m.now_ms += 100;
    }
    made_push(&m, s[5], 1);
    made_next(&m); /* the first to go is in a batch */
    for (uint8_t i = 0; i < 3; i++) {
        gold[i] = made_open(&m, (struct made_open){ .id = (uint8_t)(10 + i), .subject = "gold" });
        made_ended(&m, made_stream(leaves[i]), WIRE_UNAVAILABLE, "--reserve");
        made_no_act(&m);
    }
    /* Slot 5 is still in use; those that came free went to whoever had waited longest. */
    assert_int_equal(worker_session_info(gold[0])->slot, 4);
    assert_int_equal(worker_session_info(gold[1])->slot, 7);
    assert_int_equal(worker_session_info(gold[2])->slot, UINT32_MAX);
    made_done(&m);
    assert_int_equal(worker_session_info(gold[2])->slot, 5);
    unit_refused(
        made_try(&m, (struct made_open){ .id = 20, .subject = "gold" }, 20, &out, &retry_ms, &err),
        MCP_EBUSY, &err, "all 8");
    unit_refused(made_try(&m, (struct made_open){ .id = 20, .subject = "silver" }, 20, &out,
                          &retry_ms, &err),
                 MCP_EBUSY, &err, "all 8");
    assert_int_equal(made_stats(&m).evicted, 3);
    made_free(&m);
}

/* Goal:   a detached session that is kept for long enough goes before an attached borrower; but one
 *         within a reservation is nobody else's. */
static void a_detached_session_within_its_reservation_is_kept(void **state)
{
    struct made            m;
    struct worker_session *gold, *other, *out;
    uint32_t               retry_ms;
    mcp_error              err;

    (void)state;
    made_init(&m);
    m.limits.sessions_max = 3;
    reserve(&m, "gold", 2);
    made_start(&m);
    gold = made_open(&m, (struct made_open){ .id = 1, .subject = "gold" });
    made_open(&m, (struct made_open){ .id = 2, .subject = "a" });
    other = made_open(&m, (struct made_open){ .id = 3, .subject = "a" });
    worker_table_detach(m.t, m.now_ms, gold);
    m.now_ms += 20000;
    unit_refused(
        made_try(&m, (struct made_open){ .id = 4, .subject = "b" }, 4, &out, &retry_ms, &err),
        MCP_EBUSY, &err, "all 3");
    worker_table_detach(m.t, m.now_ms - 5000, other);
    made_open(&m, (struct made_open){ .id = 5, .subject = "gold" });
    made_ended(&m, NULL, WIRE_UNAVAILABLE, "made room");
    assert_ptr_equal(
        made_open(&m, (struct made_open){ .id = 1, .subject = "gold", .resume = true }), gold);
    assert_int_equal(made_stats(&m).detached, 0);
    made_free(&m);
}

/* ---- time ----------------------------------------------------------------------------- */

/* Goal:   a detached session is there for its lease, with what it has, and then ends; an attached
 *         one ends only when it is idle for too long, if that is set. */
static void a_detached_session_lives_for_its_lease(void **state)
{
    struct made            m;
    struct worker_session *s, *out;
    uint32_t               retry_ms;
    mcp_error              err;

    (void)state;
    made_init(&m);
    m.limits.idle_ms = 60000;
    made_start(&m);
    s = made_open(&m, (struct made_open){ .id = 1 });
    made_push(&m, s, 40);
    worker_table_detach(m.t, m.now_ms, s);
    assert_int_equal(made_run(&m), 1); /* what was queued runs all the same */
    m.now_ms += 29999;
    worker_table_tick(m.t, m.now_ms);
    made_no_act(&m);
    assert_ptr_equal(made_open(&m, (struct made_open){ .id = 1, .resume = true }), s);
    assert_int_equal(worker_session_info(s)->length, 40);
    worker_table_detach(m.t, m.now_ms, s);
    assert_true(made_idle(&m) == m.now_ms + 30000);
    m.now_ms += 30000;
    worker_table_tick(m.t, m.now_ms);
    made_ended(&m, NULL, WIRE_UNAVAILABLE, "lease_ms");
    made_no_act(&m);
    assert_int_equal(made_stats(&m).expired_leases, 1);
    unit_ok(made_try(&m, (struct made_open){ .id = 1, .resume = true }, 1, &out, &retry_ms, &err),
            &err);
    assert_int_equal(worker_session_info(out)->length, 0); /* begun anew */

    made_push(&m, out, 1);
    m.now_ms += 60001;
    worker_table_tick(m.t, m.now_ms); /* a window waits: not idle */
    made_no_act(&m);
    made_run(&m);
    assert_true(made_idle(&m) == m.now_ms + 60000);
    m.now_ms += 60000;
    worker_table_tick(m.t, m.now_ms);
    made_ended(&m, made_stream(1), WIRE_UNAVAILABLE, "idle_ms");
    assert_int_equal(made_stats(&m).sessions, 0);
    made_free(&m);
}

/* Goal:   clients that open and vanish, in any number and under any name, take no more than there
 *         is, and leave nothing behind.
 * Method: 20,000 openings by 3,000 subjects in 16 places. */
static void openings_without_end_stay_within_bounds(void **state)
{
    struct made m;
    uint64_t    seed = unit_seed();
    uint32_t    opened = 0;

    (void)state;
    made_init(&m);
    m.limits.sessions_max = 16;
    m.limits.detached_keep_ms = 50;
    m.limits.lease_ms = 200;
    made_start(&m);
    for (int i = 0; i < 20000; i++) {
        struct worker_session *s;
        struct worker_act      act;
        uint32_t               retry_ms;
        char                   name[16];
        mcp_error              err;
        int                    rc;

        snprintf(name, sizeof(name), "u%u", unit_below(&seed, 3000));
        rc = made_try(&m,
                      (struct made_open){ .id = (uint8_t)unit_below(&seed, 256),
                                          .subject = name,
                                          .tokens_per_minute = unit_below(&seed, 2) * 60 },
                      1, &s, &retry_ms, &err);
        while (worker_table_act(m.t, &act)) {
        }
        if (rc == MCP_OK) {
            opened++;
            made_push(&m, s, 1 + unit_below(&seed, 30));
            worker_table_detach(m.t, m.now_ms, s);
        } else {
            assert_true(rc == MCP_EBUSY || rc == MCP_EDENIED);
        }
        if (i % 3 == 0)
            made_run(&m);
        while (worker_table_act(m.t, &act)) {
        }
        m.now_ms += unit_below(&seed, 10);
        assert_true(made_stats(&m).sessions <= 16);
    }
    assert_true(opened > 5000);
    m.now_ms += 1000;
    worker_table_tick(m.t, m.now_ms);
    assert_int_equal(made_stats(&m).sessions, 0);
    assert_int_equal(made_stats(&m).queued_bytes, 0);
    made_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_lowest_free_slot_is_given),
        cmocka_unit_test(a_used_slot_is_cleared_before_anything_runs),
        cmocka_unit_test(a_slot_in_a_running_batch_is_free_afterwards),
        cmocka_unit_test(what_is_not_held_or_granted_is_refused),
        cmocka_unit_test(a_foreign_id_is_refused_and_tells_nothing),
        cmocka_unit_test(a_refusal_tells_when_to_come_again),
        cmocka_unit_test(a_subject_has_its_number_of_sessions),
        cmocka_unit_test(who_has_most_makes_room_for_who_has_less),
        cmocka_unit_test(a_fair_share_is_not_taken_back),
        cmocka_unit_test(a_free_place_costs_nobody_a_session),
        cmocka_unit_test(a_draining_worker_takes_no_new_session),
        cmocka_unit_test(a_reservation_always_finds_a_place),
        cmocka_unit_test(a_detached_session_within_its_reservation_is_kept),
        cmocka_unit_test(a_detached_session_lives_for_its_lease),
        cmocka_unit_test(openings_without_end_stay_within_bounds),
    };

    return cmocka_run_group_tests_name("worker/places", tests, NULL, NULL);
}
