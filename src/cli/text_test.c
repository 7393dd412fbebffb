/* cli/text_test.c - UTF-8 as models emit it: in pieces, and sometimes broken.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define FFFD         "\xEF\xBF\xBD"

static struct cli_buffer made(const char *bytes, size_t count)
{
    struct cli_buffer buffer = { 0 };

    assert_int_equal(cli_buffer_add(&buffer, bytes, count), 0);
    return buffer;
}

static void must_be(struct cli_buffer *buffer, const char *expected)
{
    assert_int_equal(buffer->bytes, strlen(expected));
    assert_string_equal(buffer->text, expected);
    cli_buffer_fini(buffer);
}

static void a_buffer_is_cut_and_filled_anywhere(void **state)
{
    struct cli_buffer b = made("hello", 5);

    (void)state;
    assert_int_equal(cli_buffer_splice(&b, 1, 3, "EY, YOU, ", 9), 0);
    assert_string_equal(b.text, "hEY, YOU, o");
    assert_int_equal(cli_buffer_splice(&b, 0, 1, NULL, 0), 0);
    assert_int_equal(cli_buffer_splice(&b, 10, 0, "!", 1), 0);
    cli_buffer_drop(&b, 4);
    must_be(&b, "YOU, o!");
    assert_null(b.text);
    for (int i = 0; i < 5000; i++) /* grows over many reallocations */
        assert_int_equal(cli_buffer_add(&b, "ab", 2), 0);
    assert_int_equal(b.bytes, 10000);
    assert_string_equal(b.text + 9996, "abab");
    cli_buffer_fini(&b);
}

/* Goal:   text is given out as soon as it is whole, and never in half characters.
 * Method: every prefix of a text with characters of one to four bytes. */
static void only_whole_characters_are_complete(void **state)
{
    static const char   text[] = "a\xC3\xA9\xE6\xBC\xA2\xF0\x9F\x98\x80z"; /* a é 漢 😀 z */
    static const size_t whole[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11 };

    (void)state;
    for (size_t count = 0; count < COUNT(whole); count++)
        assert_int_equal(cli_utf8_complete(text, count), whole[count]);
}

/* What can never become a character is not waited for. */
static void hopeless_bytes_are_complete(void **state)
{
    static const char *const texts[] = {
        "\x80",     "a\xBF",    "\xC0",     "\xC1",     "\xF5",         "\xFF",
        "\xE0\x80", "\xED\xA0", "\xF4\x90", "\xF0\x8F", "\xC3\xC3\xA9",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++)
        assert_int_equal(cli_utf8_complete(texts[i], strlen(texts[i])), strlen(texts[i]));
}

static void code_points_are_read(void **state)
{
    static const struct {
        const char *text;
        size_t      bytes;
        uint32_t    code;
    } rows[] = {
        { "A", 1, 0x41 },
        { "\xC3\xA9", 2, 0xE9 },
        { "\xE6\xBC\xA2", 3, 0x6F22 },
        { "\xF0\x9F\x98\x80", 4, 0x1F600 },
        { "\xEF\xBF\xBF", 3, 0xFFFF },
        { "\xF4\x8F\xBF\xBF", 4, 0x10FFFF },
        { "\xC0\xAF", 0, 1 },         /* overlong */
        { "\xED\xA0\x80", 0, 1 },     /* surrogate */
        { "\xF4\x90\x80\x80", 0, 1 }, /* above U+10FFFF */
        { "\xF0\x9F\x98", 0, 3 },     /* broken off */
        { "\xE6\xBC.", 0, 2 },
        { "\x80", 0, 1 },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint32_t code = 0;
        assert_int_equal(cli_utf8_next(rows[i].text, strlen(rows[i].text), &code), rows[i].bytes);
        assert_int_equal(code, rows[i].code);
    }
}

static void broken_bytes_are_replaced_and_nothing_else(void **state)
{
    static const struct {
        const char *text, *expected;
    } rows[] = {
        { "", "" },
        { "a\xC3\xA9\xF0\x9F\x98\x80\n", "a\xC3\xA9\xF0\x9F\x98\x80\n" },
        { "a\xFF"
          "b",
          "a" FFFD "b" },
        { "\xF0\x9F\x98", FFFD }, /* one for what broke off */
        { "\xF0\x9F\x98\xF0\x9F\x98\x80", FFFD "\xF0\x9F\x98\x80" },
        { "\xED\xA0\x80", FFFD FFFD FFFD }, /* three that begin nothing */
        { "x\xE6\xBC", "x" FFFD },
        { "\x80\x80y", FFFD FFFD "y" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct cli_buffer out = { 0 };
        assert_int_equal(cli_utf8_repair(&out, rows[i].text, strlen(rows[i].text)), 0);
        must_be(&out, rows[i].expected);
    }
}

/* Goal:   whatever bytes come, the result is UTF-8, and valid input is kept.
 * Method: random bytes, most of them leads and continuations, repaired once and twice. */
static void repair_always_gives_utf8(void **state)
{
    uint64_t random = UINT64_C(0x9E3779B97F4A7C15); /* xorshift64; the same each time */

    (void)state;
    for (int round = 0; round < 2000; round++) {
        char              bytes[40];
        size_t            count = (size_t)round % (sizeof(bytes) + 1);
        struct cli_buffer once = { 0 }, twice = { 0 };

        for (size_t i = 0; i < count; i++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            bytes[i] = (char)(random % 8 == 0 ? 0x41 : 0x80 | (random >> 20 & 0x7F));
        }
        assert_int_equal(cli_utf8_repair(&once, bytes, count), 0);
        for (size_t at = 0; at < once.bytes;) {
            uint32_t code;
            size_t   n = cli_utf8_next(once.text + at, once.bytes - at, &code);
            if (n == 0)
                fail_msg("byte %zu of round %d is not UTF-8", at, round);
            at += n;
        }
        assert_int_equal(cli_utf8_repair(&twice, once.text, once.bytes), 0);
        must_be(&twice, once.text);
        cli_buffer_fini(&once);
    }
}

static void a_terminal_is_given_no_orders(void **state)
{
    static const char text[] = "a\x1b[31m\tb\r\n\x7f\xC2\x9B"
                               "2J\xC2\xA0\xFF.";
    struct cli_buffer out = { 0 };
    char              field[64], small[8];

    (void)state;
    assert_int_equal(cli_text_tame(&out, text, strlen(text)), 0);
    must_be(&out, "a" FFFD "[31m\tb" FFFD "\n" FFFD FFFD "2J\xC2\xA0" FFFD ".");
    cli_text_field(field, sizeof(field), "one\ntwo\tthree");
    assert_string_equal(field, "one" FFFD "two" FFFD "three");
    cli_text_field(small, sizeof(small), "abcd\xF0\x9F\x98\x80"); /* 8 bytes do not fit */
    assert_string_equal(small, "abcd");
}

static void figures_are_rounded_for_people(void **state)
{
    char out[CLI_BYTES_TEXT];

    (void)state;
    assert_string_equal(cli_bytes_text(out, 0), "0 B");
    assert_string_equal(cli_bytes_text(out, 1023), "1023 B");
    assert_string_equal(cli_bytes_text(out, 1536), "1.5 KiB");
    assert_string_equal(cli_bytes_text(out, UINT64_MAX), "16.0 EiB");
    assert_string_equal(cli_count_text(out, 812), "812");
    assert_string_equal(cli_count_text(out, 134515008), "134.52 M");
    assert_string_equal(cli_count_text(out, 7241732096), "7.24 B");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_buffer_is_cut_and_filled_anywhere),
        cmocka_unit_test(only_whole_characters_are_complete),
        cmocka_unit_test(hopeless_bytes_are_complete),
        cmocka_unit_test(code_points_are_read),
        cmocka_unit_test(broken_bytes_are_replaced_and_nothing_else),
        cmocka_unit_test(repair_always_gives_utf8),
        cmocka_unit_test(a_terminal_is_given_no_orders),
        cmocka_unit_test(figures_are_rounded_for_people),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
