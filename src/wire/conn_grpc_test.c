/* wire/conn_grpc_test.c - timeouts, messages and statuses as PROTOCOL-HTTP2.md writes them.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/conn_grpc.h"

#include "base/unit_test.h"

#include <math.h>

static void timeouts_are_printed_in_the_finest_unit_that_holds_them(void **state)
{
    static const struct {
        double      ms;
        const char *text;
    } rows[] = {
        { 0.0001, "1u" },           { 1, "1000u" },
        { 99999.999, "99999999u" }, { 100000, "100000m" },
        { 99999999, "99999999m" },  { 100000000, "100000S" },
        { 1e11, "1666667M" },       { 1e30, "99999999H" },
    };
    char text[WIRE_TIMEOUT_TEXT];

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        wire_grpc_timeout_print(text, rows[i].ms);
        assert_string_equal(text, rows[i].text);
    }
}

static void a_printed_timeout_is_read_back_never_shorter(void **state)
{
    uint64_t seed = unit_seed();
    char     text[WIRE_TIMEOUT_TEXT];
    double   back;

    (void)state;
    for (int i = 0; i < 10000; i++) {
        double ms = exp((double)unit_below(&seed, 3000) / 100.0 - 3.0);

        wire_grpc_timeout_print(text, ms);
        assert_true(wire_grpc_timeout_parse(&back, text, strlen(text)));
        assert_true(back >= ms * (1 - 1e-12));
        assert_true(back <= ms * 1.001 + 0.001);
    }
}

static void what_is_no_timeout_is_refused(void **state)
{
    static const char *const bad[] = { "",    "5",   "S",    "123456789S", "5s", "-5S",
                                       "5 S", "5SS", "0x5S", "1.5S",       "5h" };
    double                   ms = 7;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(bad); i++)
        assert_false(wire_grpc_timeout_parse(&ms, bad[i], strlen(bad[i])));
    assert_true(ms == 7);
    assert_true(wire_grpc_timeout_parse(&ms, "2H", 2) && ms == 7.2e6);
    assert_true(wire_grpc_timeout_parse(&ms, "00000010n", 9) && fabs(ms - 1e-5) < 1e-15);
}

static void messages_are_percent_encoded_and_come_back(void **state)
{
    static const struct {
        const char *plain, *escaped;
    } rows[] = {
        { "all is well", "all is well" },
        { "100 % of \xc3\xa9", "100 %25 of %C3%A9" },
        { "a~b", "a~b" },
        { "", "" },
    };
    char text[WIRE_ESCAPED_BYTES], back[WIRE_STATUS_TEXT_BYTES];

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        assert_int_equal(wire_grpc_message_escape(text, sizeof(text), rows[i].plain),
                         strlen(rows[i].escaped));
        assert_string_equal(text, rows[i].escaped);
        wire_grpc_message_unescape(back, sizeof(back), text, strlen(text));
        assert_string_equal(back, rows[i].plain);
    }
}

static void a_message_that_is_no_escape_stays_and_controls_do_not(void **state)
{
    char back[16];

    (void)state;
    wire_grpc_message_unescape(back, sizeof(back), "5%, %4, %zz", 11);
    assert_string_equal(back, "5%, %4, %zz");
    wire_grpc_message_unescape(back, sizeof(back), "a%0Ab%1b%7F%00c", 15);
    assert_string_equal(back, "a?b???c");
    wire_grpc_message_unescape(back, sizeof(back), "0123456789abcdefghij", 20);
    assert_string_equal(back, "0123456789abcde");
    wire_grpc_message_unescape(back, sizeof(back), "%4", 2);
    assert_string_equal(back, "%4");
}

static void content_types_of_grpc_are_known_from_its_cousins(void **state)
{
    static const struct {
        const char *type;
        bool        good;
    } rows[] = {
        { "application/grpc", true },
        { "application/grpc+proto", true },
        { "application/grpc;x=y", true },
        { "application/grpc-web", false },
        { "application/grpc-web+proto", false },
        { "application/json", false },
        { "application/grp", false },
        { "", false },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++)
        assert_int_equal(wire_grpc_content_type(rows[i].type, strlen(rows[i].type)), rows[i].good);
}

static void statuses_of_http_and_of_resets_are_grpcs_but_for_a_dying_worker(void **state)
{
    (void)state;
    assert_int_equal(wire_grpc_status_of_http(503), WIRE_UNAVAILABLE);
    assert_int_equal(wire_grpc_status_of_http(404), WIRE_UNIMPLEMENTED);
    assert_int_equal(wire_grpc_status_of_http(401), WIRE_UNAUTHENTICATED);
    assert_int_equal(wire_grpc_status_of_http(418), WIRE_UNKNOWN);
    assert_int_equal(wire_grpc_status_of_reset(7), WIRE_UNAVAILABLE);
    assert_int_equal(wire_grpc_status_of_reset(8), WIRE_CANCELLED);
    assert_int_equal(wire_grpc_status_of_reset(11), WIRE_RESOURCE_EXHAUSTED);
    assert_int_equal(wire_grpc_status_of_reset(1), WIRE_INTERNAL);
    assert_int_equal(wire_grpc_status_of_reset(2), WIRE_UNAVAILABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timeouts_are_printed_in_the_finest_unit_that_holds_them),
        cmocka_unit_test(a_printed_timeout_is_read_back_never_shorter),
        cmocka_unit_test(what_is_no_timeout_is_refused),
        cmocka_unit_test(messages_are_percent_encoded_and_come_back),
        cmocka_unit_test(a_message_that_is_no_escape_stays_and_controls_do_not),
        cmocka_unit_test(content_types_of_grpc_are_known_from_its_cousins),
        cmocka_unit_test(statuses_of_http_and_of_resets_are_grpcs_but_for_a_dying_worker),
    };

    return cmocka_run_group_tests_name("wire/conn_grpc", tests, NULL, NULL);
}
