/* guard/base64_test.c - one spelling for each string of bytes.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/base64.h"

#include "base/unit_test.h"

/* Goal:   the published vectors, less their padding, and the two letters that differ.
 * Method: RFC 4648 section 10; bytes whose six-bit groups are all 62 and 63. */
static void published_vectors_are_met(void **state)
{
    static const struct {
        const char *bytes, *text;
    } rows[] = {
        { "", "" },
        { "f", "Zg" },
        { "fo", "Zm8" },
        { "foo", "Zm9v" },
        { "foob", "Zm9vYg" },
        { "fooba", "Zm9vYmE" },
        { "foobar", "Zm9vYmFy" },
        { "\xfb\xef\xbe\xff\xff\xff", "----____" },
    };
    char    text[64];
    uint8_t bytes[64];

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        size_t count = strlen(rows[i].bytes), chars = strlen(rows[i].text);

        guard_base64_encode(text, (const uint8_t *)rows[i].bytes, count);
        assert_string_equal(text, rows[i].text);
        assert_int_equal(guard_base64_chars(count), chars);
        assert_int_equal(guard_base64_bytes(chars), count);
        assert_true(guard_base64_decode(bytes, rows[i].text, chars));
        assert_memory_equal(bytes, rows[i].bytes, count);
    }
}

/* Goal:   any bytes come back.
 * Method: random bytes of every length up to 300. */
static void any_bytes_come_back(void **state)
{
    uint8_t  bytes[300], back[300];
    char     text[401];
    uint64_t seed = unit_seed();

    (void)state;
    for (size_t count = 0; count <= sizeof(bytes); count++) {
        for (size_t i = 0; i < count; i++)
            bytes[i] = (uint8_t)unit_next(&seed);
        guard_base64_encode(text, bytes, count);
        assert_int_equal(strlen(text), guard_base64_chars(count));
        memset(back, 0xA5, sizeof(back));
        assert_true(guard_base64_decode(back, text, strlen(text)));
        assert_memory_equal(back, bytes, count);
        if (count < sizeof(back))
            assert_int_equal(back[count], 0xA5); /* and not a byte more is written */
    }
}

/* Goal:   what is accepted is exactly what the encoder writes.
 * Method: all texts of one to three bytes' worth of characters, over a few letters each, are
 *         decoded and encoded again: accepted ones must be unchanged. */
static void nothing_but_the_encoders_spelling_is_accepted(void **state)
{
    static const char letters[] = "AQgwBZz09-_+/= \n.\x80";
    char              text[5] = "", again[8];
    uint8_t           bytes[4];
    size_t            accepted = 0, n = sizeof(letters) - 1;

    (void)state;
    for (size_t chars = 1; chars <= 4; chars++) {
        size_t all = 1;

        for (size_t i = 0; i < chars; i++)
            all *= n;
        for (size_t number = 0; number < all; number++) {
            size_t rest = number;

            for (size_t i = 0; i < chars; i++, rest /= n)
                text[i] = letters[rest % n];
            text[chars] = '\0';
            if (!guard_base64_decode(bytes, text, chars))
                continue;
            accepted++;
            guard_base64_encode(again, bytes, guard_base64_bytes(chars));
            assert_string_equal(again, text);
        }
    }
    /* 11 letters are of the alphabet; the last of 2 must be a multiple of 16 (A, Q, g, w), the
     * last of 3 a multiple of 4 (A, Q, g, w, 0, 8 would be: of ours A, Q, g, w, 0). */
    assert_int_equal(accepted, 11 * 4 + 11 * 11 * 5 + 11 * 11 * 11 * 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_vectors_are_met),
        cmocka_unit_test(any_bytes_come_back),
        cmocka_unit_test(nothing_but_the_encoders_spelling_is_accepted),
    };

    return cmocka_run_group_tests_name("guard/base64", tests, NULL, NULL);
}
