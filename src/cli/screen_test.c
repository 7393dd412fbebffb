/* cli/screen_test.c - where the editor's text and cursor fall.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/screen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <locale.h>
#include <string.h>

struct place {
    size_t rows, row, column;
};

/* Lay `text` out 10 columns wide behind "> "; `drawn` is what all rows look like. */
static void must_fall(const char *text, size_t cursor, struct place expected, const char *drawn)
{
    struct cli_buffer in = { 0 }, out = { 0 };
    struct place      got = { 0 };

    assert_int_equal(cli_buffer_add(&in, text, strlen(text)), 0);
    got.rows = cli_screen_rows("> ", &in, cursor, 10, &out, 0, 100, &got.row, &got.column);
    assert_string_equal(out.text, drawn);
    assert_int_equal(got.rows, expected.rows);
    assert_int_equal(got.row, expected.row);
    assert_int_equal(got.column, expected.column);
    /* Counting alone comes to the same. */
    assert_int_equal(cli_screen_rows("> ", &in, cursor, 10, NULL, 0, 0, &got.row, &got.column),
                     expected.rows);
    cli_buffer_fini(&in);
    cli_buffer_fini(&out);
}

static void text_falls_into_rows(void **state)
{
    (void)state;
    must_fall("", 0, (struct place){ 1, 0, 2 }, "> ");
    must_fall("abc", 1, (struct place){ 1, 0, 3 }, "> abc");
    must_fall("abcdefghij", 10, (struct place){ 2, 1, 2 }, "> abcdefgh\r\nij");
    must_fall("one\ntwo", 4, (struct place){ 2, 1, 0 }, "> one\r\ntwo");
    must_fall("one\n", 3, (struct place){ 2, 0, 5 }, "> one\r\n");
    must_fall("a\tb\x01", 4, (struct place){ 1, 0, 6 }, "> a b?");
}

/* A row that is just full: the cursor behind it needs a place of its own. */
static void the_cursor_behind_a_full_row_is_on_the_next(void **state)
{
    (void)state;
    must_fall("abcdefgh", 8, (struct place){ 2, 1, 0 }, "> abcdefgh\r\n");
    must_fall("abcdefgh", 7, (struct place){ 2, 0, 9 }, "> abcdefgh\r\n");
    must_fall("abcdefgh\nx", 10, (struct place){ 2, 1, 1 }, "> abcdefgh\r\nx");
}

static void wide_and_combining_characters_keep_their_columns(void **state)
{
    (void)state;
    must_fall("\xE6\xBC\xA2x", 3, (struct place){ 1, 0, 4 }, "> \xE6\xBC\xA2x");
    /* A wide one does not fit into the last column and goes down whole. */
    must_fall("abcdefg\xE6\xBC\xA2", 10, (struct place){ 2, 1, 2 }, "> abcdefg\r\n\xE6\xBC\xA2");
    /* e with a combining acute takes one column, in the last one too. */
    must_fall("abcdefge\xCC\x81", 10, (struct place){ 2, 1, 0 }, "> abcdefge\xCC\x81\r\n");
}

static void only_the_rows_asked_for_are_drawn(void **state)
{
    struct cli_buffer in = { 0 }, out = { 0 };
    size_t            row, column;

    (void)state;
    assert_int_equal(cli_buffer_add(&in, "0\n1\n2\n3\n4", 9), 0);
    assert_int_equal(cli_screen_rows("> ", &in, 9, 10, &out, 2, 2, &row, &column), 5);
    assert_string_equal(out.text, "2\r\n3");
    assert_int_equal(row, 4);
    cli_buffer_fini(&in);
    cli_buffer_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_falls_into_rows),
        cmocka_unit_test(the_cursor_behind_a_full_row_is_on_the_next),
        cmocka_unit_test(wide_and_combining_characters_keep_their_columns),
        cmocka_unit_test(only_the_rows_asked_for_are_drawn),
    };

    if (setlocale(LC_CTYPE, "C.UTF-8") == NULL)
        return 1; /* widths are unknown without it */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
