/* base/fail_test.c - the sentence of an error.
 *
 * SPDX-License-Identifier: MIT */
#include "base/fail.h"

#include "base/unit_test.h"

/* Goal:   every code has a name and a text of its own, also the unknown ones.
 * Method: all codes of the table, and two that are not in it. */
static void every_code_has_a_name_and_a_text(void **state)
{
    static const int codes[] = {
#define X(name, value, text) value,
        MCP_ERRORS(X)
#undef X
    };

    (void)state;
    assert_string_equal(mcp_code_name(MCP_OK), "MCP_OK");
    assert_string_equal(mcp_code_name(MCP_EINVAL), "MCP_EINVAL");
    assert_string_equal(mcp_code_name(MCP_ECANCELED), "MCP_ECANCELED");
    for (size_t i = 0; i < UNIT_COUNT(codes); i++) {
        assert_int_equal(codes[i], -(int)i);
        assert_true(strlen(mcp_code_text(codes[i])) > 0);
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(mcp_code_name(codes[i]), mcp_code_name(codes[j]));
            assert_string_not_equal(mcp_code_text(codes[i]), mcp_code_text(codes[j]));
        }
    }
    assert_string_equal(mcp_code_name(1), "unknown");
    assert_string_equal(mcp_code_name(-1000), "unknown");
    assert_true(strlen(mcp_code_text(-1000)) > 0);
}

/* Goal:   the version is three numbers. */
static void the_version_is_three_numbers(void **state)
{
    unsigned a, b, c;
    int      end = 0;

    (void)state;
    assert_int_equal(sscanf(mcp_version(), "%u.%u.%u%n", &a, &b, &c, &end), 3);
    assert_int_equal(mcp_version()[end], '\0');
}

/* Goal:   base_fail() is an expression: it returns its code, with and without an error. */
static void a_failure_returns_its_code_also_without_an_error(void **state)
{
    mcp_error err = { 0 };

    (void)state;
    assert_int_equal(base_fail(NULL, MCP_EIO, "nobody reads %d", 1), MCP_EIO);
    assert_int_equal(base_fail(&err, MCP_ERANGE, "%s has %u", "it", 7u), MCP_ERANGE);
    assert_int_equal(err.code, MCP_ERANGE);
    assert_string_equal(err.text, "it has 7");
}

/* Goal:   a sentence that just fits is kept whole; one byte more, and the end is kept.
 * Method: lengths around the room, then far beyond it and beyond the inner buffer. */
static void a_long_sentence_keeps_its_end(void **state)
{
    enum { ROOM = MCP_ERROR_TEXT_BYTES - 1 };
    static char long_path[20000];
    mcp_error   err;

    (void)state;
    for (int length = ROOM - 3; length <= ROOM + 3; length++) {
        memset(&err, 0x55, sizeof(err));
        base_fail(&err, MCP_EIO, "%0*d: the end", length - 9, 0);
        assert_int_equal(strlen(err.text), length <= ROOM ? length : ROOM);
        assert_string_equal(err.text + strlen(err.text) - 9, ": the end");
        if (length <= ROOM)
            assert_int_equal(err.text[0], '0');
        else
            assert_memory_equal(err.text, "...0", 4);
    }

    memset(long_path, 'p', 4095);
    base_fail(&err, MCP_EIO, "%s: cannot be opened", long_path);
    assert_int_equal(strlen(err.text), ROOM);
    assert_memory_equal(err.text, "...p", 4);
    assert_string_equal(err.text + ROOM - 18, ": cannot be opened");

    memset(long_path, 'p', sizeof(long_path) - 1);
    base_fail(&err, MCP_EIO, "%s", long_path);
    assert_int_equal(strlen(err.text), ROOM);
    assert_memory_equal(err.text, "...p", 4);
}

/* Goal:   the cut never leaves a piece of a character.
 * Method: a long run of a three-byte character, shifted by each of its bytes: whatever is
 *         in front of the first whole character is a question mark. */
static void a_cut_through_a_character_leaves_no_piece_of_it(void **state)
{
    mcp_error err;
    char      text[1300];

    (void)state;
    for (size_t shift = 0; shift < 3; shift++) {
        const char *c;

        text[0] = '\0';
        for (int i = 0; i < 400; i++)
            strcat(text, "\xE2\x82\xAC");
        memset(text + 1200, 'x', shift);
        text[1200 + shift] = '\0';
        base_fail(&err, MCP_EIO, "%s", text);
        assert_int_equal(strlen(err.text), MCP_ERROR_TEXT_BYTES - 1);
        for (c = err.text + 3; *c == '?'; c++)
            ;
        assert_true(c - err.text - 3 < 3);
        for (; *c != '\0' && *c != 'x'; c += 3)
            assert_memory_equal(c, "\xE2\x82\xAC", 3);
        assert_int_equal(strlen(c), shift);
    }
}

/* Goal:   a hostile name cannot move the cursor, ring, or break the reader's decoder.
 * Method: each kind of bad byte on its own, between two letters. */
static void control_bytes_and_bad_utf8_become_question_marks(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        { "a\x1B[2Jz", "a?[2Jz" },        /* escape */
        { "a\nb\tc\rd\ae", "a?b?c?d?e" }, /* C0 */
        { "a\x7Fz", "a?z" },              /* delete */
        { "a\xC2\x9Bz", "a??z" },         /* C1: CSI */
        { "a\xC2\xA0z", "a\xC2\xA0z" },   /* just behind C1 */
        { "a\x80z", "a?z" },              /* a continuation alone */
        { "a\xFF\xFEz", "a??z" },         /* never in UTF-8 */
        { "a\xC0\xAFz", "a??z" },         /* overlong, two bytes */
        { "a\xC1\xBFz", "a??z" },
        { "a\xE0\x9F\xBFz", "a???z" }, /* overlong, three bytes */
        { "a\xE0\xA0\x80z", "a\xE0\xA0\x80z" },
        { "a\xED\xA0\x80z", "a???z" }, /* surrogate */
        { "a\xED\x9F\xBFz", "a\xED\x9F\xBFz" },
        { "a\xF0\x8F\xBF\xBFz", "a????z" }, /* overlong, four bytes */
        { "a\xF0\x9F\x98\x80z", "a\xF0\x9F\x98\x80z" },
        { "a\xF4\x8F\xBF\xBFz", "a\xF4\x8F\xBF\xBFz" }, /* the last character */
        { "a\xF4\x90\x80\x80z", "a????z" },             /* behind it */
        { "a\xF5\x80\x80\x80z", "a????z" },
        { "a\xE2\x82", "a??" }, /* ends early */
        { "a\xE2\x82z", "a??z" },
        { "a\xF0\x9F\x98", "a???" },
        { "gr\xC3\xBC\xC3\x9F \xE2\x82\xAC", "gr\xC3\xBC\xC3\x9F \xE2\x82\xAC" },
    };
    mcp_error err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        base_fail(&err, MCP_EFORMAT, "%s", rows[i].in);
        if (strcmp(err.text, rows[i].out) != 0)
            fail_msg("row %zu gives '%s', not '%s'", i, err.text, rows[i].out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_a_name_and_a_text),
        cmocka_unit_test(the_version_is_three_numbers),
        cmocka_unit_test(a_failure_returns_its_code_also_without_an_error),
        cmocka_unit_test(a_long_sentence_keeps_its_end),
        cmocka_unit_test(a_cut_through_a_character_leaves_no_piece_of_it),
        cmocka_unit_test(control_bytes_and_bad_utf8_become_question_marks),
    };

    return cmocka_run_group_tests_name("base/fail", tests, NULL, NULL);
}
