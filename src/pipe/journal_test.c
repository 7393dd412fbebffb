/* pipe/journal_test.c - what entered a stage, against a plain list.
 *
 * What a replay joins is tested through the pipeline, in replace_test.c.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/journal.h"

#include "base/unit_test.h"

enum { POSITIONS = 3000 };

/* The oracle: for each position, which window it belongs to and where that began. */
struct list {
    uint32_t length;
    uint32_t window[POSITIONS], start[POSITIONS];
};

static void push(struct pipe_journal *j, struct list *l, uint32_t count)
{
    static uint32_t   numbers;
    struct pipe_entry entry = { .window = ++numbers,
                                .block = pipe_block_new(0, count, 4),
                                .pos = l->length,
                                .count = count,
                                .kept = count };

    assert_int_equal(pipe_journal_push(j, &entry), MCP_OK);
    for (uint32_t i = 0; i < count; i++) {
        l->window[l->length + i] = numbers;
        l->start[l->length + i] = l->length;
    }
    l->length += count;
}

static void must_agree(const struct pipe_journal *j, const struct list *l)
{
    uint32_t pos = j->pos;

    for (uint64_t i = j->first; i < j->last; i++) {
        const struct pipe_entry *e = pipe_journal_at(j, i);

        assert_int_equal(pipe_journal_pos(j, i), pos);
        assert_int_equal(e->pos, pos);
        assert_int_equal(e->block->rows, e->count);
        assert_true(e->kept >= 1 && e->kept <= e->count);
        for (uint32_t k = 0; k < e->kept; k++, pos++) {
            assert_int_equal(l->window[pos], e->window);
            assert_int_equal(l->start[pos], e->pos);
        }
    }
    assert_int_equal(pipe_journal_pos(j, j->last), pos);
    assert_int_equal(pos, l->length);
}

/* Goal:   after any pushes and trims the entries tell of each position what the list tells, and
 *         the numbers of those that stay do not change.
 * Method: random walks, beyond several growths of the ring. */
static void entries_cover_the_positions_as_a_list_does(void **state)
{
    uint64_t random = unit_seed();

    (void)state;
    for (int round = 0; round < 60; round++) {
        struct pipe_journal j = { 0 };
        struct list         l = { 0 };

        for (int step = 0; step < 400; step++) {
            if (unit_below(&random, 100) < 70 && l.length + 20 < POSITIONS) {
                push(&j, &l, 1 + unit_below(&random, round % 2 ? 20 : 2));
            } else {
                uint32_t back = unit_below(&random, 40);

                l.length -= back < l.length ? back : l.length;
                pipe_journal_trim(&j, l.length);
            }
            if (step % 16 == 0)
                must_agree(&j, &l);
        }
        must_agree(&j, &l);
        pipe_journal_trim(&j, 0);
        assert_int_equal(j.last, 0);
        pipe_journal_fini(&j);
        pipe_journal_fini(&j);
    }
}

/* Goal:   the entry of a position is found, for every position and every boundary. */
static void the_entry_of_each_position_is_found(void **state)
{
    struct pipe_journal j = { 0 };
    struct list         l = { 0 };

    (void)state;
    assert_int_equal(pipe_journal_find(&j, 0), 0);
    assert_int_equal(pipe_journal_find(&j, 9), 0);
    for (uint32_t i = 0; i < 100; i++) {
        push(&j, &l, 1 + i % 7);
        if (i % 5 == 0) { /* cut some: the next one begins where it was cut */
            l.length -= (1 + i % 7) / 2;
            pipe_journal_trim(&j, l.length);
        }
    }
    for (uint32_t pos = 0; pos < l.length; pos++) {
        uint64_t i = pipe_journal_find(&j, pos);

        assert_int_equal(pipe_journal_at(&j, i)->window, l.window[pos]);
    }
    assert_int_equal(pipe_journal_find(&j, l.length), j.last);
    assert_int_equal(pipe_journal_find(&j, UINT32_MAX), j.last);
    pipe_journal_fini(&j);
}

/* Goal:   a journal whose entries are dropped as they are answered stays small, and trims reach
 *         back before what it still has. */
static void dropped_entries_leave_their_end_behind(void **state)
{
    struct pipe_journal j = { 0 };
    struct list         l = { 0 };

    (void)state;
    for (uint32_t i = 0; i < 500; i++) {
        push(&j, &l, 1 + i % 5);
        if (i >= 3)
            pipe_journal_drop(&j, i - 2);
        assert_int_equal(pipe_journal_pos(&j, j.first), pipe_journal_at(&j, j.first)->pos);
        assert_int_equal(pipe_journal_pos(&j, j.last), l.length);
    }
    assert_int_equal(j.cap, 64);
    pipe_journal_drop(&j, j.last);
    assert_int_equal(pipe_journal_pos(&j, j.last), l.length);
    pipe_journal_trim(&j, l.length + 5);
    assert_int_equal(pipe_journal_pos(&j, j.last), l.length);
    pipe_journal_trim(&j, 7);
    assert_int_equal(pipe_journal_pos(&j, j.last), 7);
    l.length = 7;
    push(&j, &l, 3);
    assert_int_equal(pipe_journal_pos(&j, j.last), 10);
    pipe_journal_fini(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_cover_the_positions_as_a_list_does),
        cmocka_unit_test(the_entry_of_each_position_is_found),
        cmocka_unit_test(dropped_entries_leave_their_end_behind),
    };

    return cmocka_run_group_tests_name("pipe/journal", tests, NULL, NULL);
}
