/* pipe/block_test.c - encoded rows: made, shared, joined.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/block.h"

#include "base/unit_test.h"

#include <pthread.h>

/* Goal:   a block has the size, alignment and codec that were asked for, and room for all of it. */
static void a_block_has_room_for_its_rows(void **state)
{
    (void)state;
    for (uint32_t rows = 0; rows < 40; rows++) {
        for (size_t row_bytes = 0; row_bytes < 70; row_bytes += 7) {
            struct pipe_block *b = pipe_block_new(5, rows, row_bytes);

            assert_non_null(b);
            assert_int_equal(b->codec, 5);
            assert_int_equal(b->rows, rows);
            assert_int_equal(b->bytes, rows * row_bytes);
            assert_int_equal(pipe_block_row_bytes(b), rows > 0 ? row_bytes : 0);
            assert_int_equal((uintptr_t)b->data % _Alignof(max_align_t), 0);
            memset(b->data, 0xee, b->bytes); /* the sanitizer looks on */
            pipe_block_unref(b);
        }
    }
}

/* Goal:   a size that does not fit is NULL, not a small block. */
static void a_block_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    assert_null(pipe_block_new(0, UINT32_MAX, SIZE_MAX));
    assert_null(pipe_block_new(0, UINT32_MAX, SIZE_MAX / UINT32_MAX + 1));
    assert_null(pipe_block_new(0, 1, SIZE_MAX));
    assert_null(pipe_block_new(0, 1, SIZE_MAX - 8));
}

/* Goal:   it lives until the last reference is gone. */
static void a_block_lives_until_its_last_reference(void **state)
{
    struct pipe_block *b = pipe_block_new(0, 1, 4);

    (void)state;
    for (int i = 0; i < 10; i++)
        assert_ptr_equal(pipe_block_ref(b), b);
    for (int i = 0; i < 10; i++) {
        pipe_block_unref(b);
        b->data[0] = (uint8_t)i; /* a use after free for the sanitizer, if it were gone */
    }
    pipe_block_unref(b);
    pipe_block_unref(NULL);
}

static void *take_and_give(void *ctx)
{
    struct pipe_block *b = ctx;

    for (int i = 0; i < 20000; i++)
        pipe_block_unref(pipe_block_ref(b));
    pipe_block_unref(b);
    return NULL;
}

/* Goal:   references are counted across threads. */
static void references_are_counted_across_threads(void **state)
{
    struct pipe_block *b = pipe_block_new(0, 1, 4);
    pthread_t          threads[4];

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, pipe_block_ref(b)), 0);
    for (size_t i = 0; i < UNIT_COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    b->data[0] = 1;
    pipe_block_unref(b);
}

/* Goal:   joined are the first rows of each, one after another, and nothing else.
 * Method: blocks of numbered rows; all pairs and triples of lengths and of what is taken. */
static void joining_puts_the_first_rows_one_after_another(void **state)
{
    enum { ROW = 3 };
    struct pipe_block *blocks[3];

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        blocks[i] = pipe_block_new(4, 4, ROW);
        for (uint32_t k = 0; k < 4 * ROW; k++)
            blocks[i]->data[k] = (uint8_t)(100 * i + k);
    }
    for (uint32_t a = 0; a <= 4; a++) {
        for (uint32_t b = 0; b <= 4; b++) {
            for (uint32_t c = 0; c <= 4; c++) {
                const uint32_t     rows[] = { a, b, c };
                struct pipe_block *joined = pipe_block_join(blocks, rows, 3);
                const uint8_t     *at = joined->data;

                assert_int_equal(joined->rows, a + b + c);
                assert_int_equal(joined->bytes, (a + b + c) * ROW);
                assert_int_equal(joined->codec, 4);
                for (uint32_t i = 0; i < 3; i++) {
                    assert_memory_equal(at, blocks[i]->data, rows[i] * ROW);
                    at += rows[i] * ROW;
                }
                pipe_block_unref(joined);
            }
        }
    }
    for (uint32_t i = 0; i < 3; i++)
        pipe_block_unref(blocks[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_has_room_for_its_rows),
        cmocka_unit_test(a_block_that_does_not_fit_is_refused),
        cmocka_unit_test(a_block_lives_until_its_last_reference),
        cmocka_unit_test(references_are_counted_across_threads),
        cmocka_unit_test(joining_puts_the_first_rows_one_after_another),
    };

    return cmocka_run_group_tests_name("pipe/block", tests, NULL, NULL);
}
