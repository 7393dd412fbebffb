/* base/sha256_test.c - the digests of FIPS 180-4, and what we add to them.
 *
 * SPDX-License-Identifier: MIT */
#include "base/sha256.h"

#include "base/unit_test.h"

static void finish_must_be(struct base_sha256 *h, const char *hex)
{
    uint8_t   digest[BASE_SHA256_BYTES];
    char      text[2 * BASE_SHA256_BYTES + 1];
    mcp_error err;

    unit_ok(base_sha256_finish(h, digest, &err), &err);
    for (size_t i = 0; i < sizeof(digest); i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    assert_string_equal(text, hex);
}

static const char empty[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
static const char abc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/* Goal:   the digests are SHA-256's.
 * Method: the examples of FIPS 180-4 with one block, two blocks and a million bytes. */
static void the_examples_of_fips_180_4_come_out(void **state)
{
    static char         million[1000000];
    static const char   two_blocks[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    struct base_sha256 *h = base_sha256_new();

    (void)state;
    finish_must_be(h, empty);
    h = base_sha256_new();
    base_sha256_add(h, "abc", 3);
    finish_must_be(h, abc);
    h = base_sha256_new();
    base_sha256_add(h, two_blocks, sizeof(two_blocks) - 1);
    finish_must_be(h, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    memset(million, 'a', sizeof(million));
    h = base_sha256_new();
    base_sha256_add(h, million, sizeof(million));
    finish_must_be(h, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* Goal:   how the bytes are cut into calls does not matter.
 * Method: the million again in pieces of 1 to 997 bytes, with empty ones between. */
static void the_digest_does_not_depend_on_the_pieces(void **state)
{
    struct base_sha256 *h = base_sha256_new();
    char                piece[997];
    size_t              left = 1000000;

    (void)state;
    memset(piece, 'a', sizeof(piece));
    for (size_t size = 1; left > 0; size = size % sizeof(piece) + 1) {
        size_t count = size < left ? size : left;

        base_sha256_add(h, piece, count);
        base_sha256_add(h, NULL, 0);
        left -= count;
    }
    finish_must_be(h, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* Goal:   numbers are eight little-endian bytes on every machine; floats are their bits.
 * Method: against the same bytes spelt out. */
static void numbers_are_little_endian(void **state)
{
    static const uint8_t bytes[] = { 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0x80, 0x3f, 0, 0, 0, 0 };
    uint8_t              spelt[BASE_SHA256_BYTES], numbers[BASE_SHA256_BYTES];
    struct base_sha256  *h = base_sha256_new();

    (void)state;
    base_sha256_add(h, bytes, sizeof(bytes));
    assert_int_equal(base_sha256_finish(h, spelt, NULL), MCP_OK);
    h = base_sha256_new();
    base_sha256_add_u64(h, 0x0102030405060708u);
    base_sha256_add_f32(h, 1.0f);
    assert_int_equal(base_sha256_finish(h, numbers, NULL), MCP_OK);
    assert_memory_equal(spelt, numbers, sizeof(spelt));
}

static void digest_of_pair(const char *a, const char *b, uint8_t out[BASE_SHA256_BYTES])
{
    struct base_sha256 *h = base_sha256_new();

    base_sha256_add_string(h, a, strlen(a));
    base_sha256_add_string(h, b, strlen(b));
    assert_int_equal(base_sha256_finish(h, out, NULL), MCP_OK);
}

/* Goal:   strings that are cut elsewhere make another digest: the length goes in. */
static void the_border_between_two_strings_counts(void **state)
{
    uint8_t one[BASE_SHA256_BYTES], two[BASE_SHA256_BYTES];

    (void)state;
    digest_of_pair("ab", "c", one);
    digest_of_pair("a", "bc", two);
    assert_memory_not_equal(one, two, sizeof(one));
    digest_of_pair("", "abc", two);
    assert_memory_not_equal(one, two, sizeof(one));
    digest_of_pair("ab", "c", two);
    assert_memory_equal(one, two, sizeof(one));
}

/* Goal:   running out of memory shows at the end, once: every call before takes NULL. */
static void a_hash_that_could_not_be_made_fails_at_the_end(void **state)
{
    uint8_t   digest[BASE_SHA256_BYTES];
    mcp_error err = { 0 };

    (void)state;
    base_sha256_add(NULL, "a", 1);
    base_sha256_add_u64(NULL, 1);
    base_sha256_add_f32(NULL, 1.0f);
    base_sha256_add_string(NULL, "a", 1);
    unit_refused(base_sha256_finish(NULL, digest, &err), MCP_ENOMEM, &err, "SHA-256");
    assert_int_equal(base_sha256_finish(NULL, digest, NULL), MCP_ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_examples_of_fips_180_4_come_out),
        cmocka_unit_test(the_digest_does_not_depend_on_the_pieces),
        cmocka_unit_test(numbers_are_little_endian),
        cmocka_unit_test(the_border_between_two_strings_counts),
        cmocka_unit_test(a_hash_that_could_not_be_made_fails_at_the_end),
    };

    return cmocka_run_group_tests_name("base/sha256", tests, NULL, NULL);
}
