/* model/header_test.c - the walk over a GGUF's metadata, byte by byte.
 *
 * Headers are written by hand here: the library's writer refuses to write bad ones.
 *
 * SPDX-License-Identifier: MIT */
#include "model/header.h"

#include "base/unit_test.h"
#include "model/file.h"

/* A header in progress; `bytes` lies in memory of exactly `count` when checked, so that a
 * read past the end is seen by AddressSanitizer. */
struct made {
    uint8_t *bytes;
    size_t   count, cap;
};

static void put(struct made *m, const void *bytes, size_t count)
{
    if (m->count + count > m->cap) {
        m->cap = 2 * (m->count + count);
        m->bytes = realloc(m->bytes, m->cap);
        assert_non_null(m->bytes);
    }
    if (bytes != NULL)
        memcpy(m->bytes + m->count, bytes, count);
    else
        memset(m->bytes + m->count, 'x', count);
    m->count += count;
}

static void put_u32(struct made *m, uint32_t value)
{
    put(m, &value, sizeof(value));
}

static void put_u64(struct made *m, uint64_t value)
{
    put(m, &value, sizeof(value));
}

static void put_string(struct made *m, const char *text)
{
    put_u64(m, strlen(text));
    put(m, text, strlen(text));
}

static struct made made_begin(uint64_t tensors, uint64_t pairs)
{
    struct made m = { 0 };

    put(&m, "GGUF", 4);
    put_u32(&m, 3);
    put_u64(&m, tensors);
    put_u64(&m, pairs);
    return m;
}

static int check(const struct made *m, mcp_error *err)
{
    uint8_t *exact = malloc(m->count > 0 ? m->count : 1);
    int      rc;

    assert_non_null(exact);
    memcpy(exact, m->bytes, m->count);
    memset(err, 0, sizeof(*err));
    rc = model_header_check(exact, m->count, "made.gguf", err);
    free(exact);
    return rc;
}

static void must_pass(struct made *m)
{
    mcp_error err;

    unit_ok(check(m, &err), &err);
    free(m->bytes);
}

static void must_refuse(struct made *m, int code, const char *about)
{
    mcp_error err;

    unit_refused(check(m, &err), code, &err, about);
    assert_non_null(strstr(err.text, "made.gguf"));
    free(m->bytes);
}

/* One key of each type, arrays of each type, an empty string and an empty array. */
static struct made one_of_everything(void)
{
    static const struct {
        uint32_t type;
        size_t   bytes;
    } scalars[] = { { 0, 1 }, { 1, 1 }, { 2, 2 },  { 3, 2 },  { 4, 4 }, { 5, 4 },
                    { 6, 4 }, { 7, 1 }, { 10, 8 }, { 11, 8 }, { 12, 8 } };
    struct made m = made_begin(5, 2 * UNIT_COUNT(scalars) + 4);

    for (size_t i = 0; i < UNIT_COUNT(scalars); i++) {
        put_string(&m, "scalar");
        put_u32(&m, scalars[i].type);
        put(&m, NULL, scalars[i].bytes);
        put_string(&m, "array");
        put_u32(&m, GGUF_TYPE_ARRAY);
        put_u32(&m, scalars[i].type);
        put_u64(&m, 3);
        put(&m, NULL, 3 * scalars[i].bytes);
    }
    put_string(&m, "string");
    put_u32(&m, GGUF_TYPE_STRING);
    put_string(&m, "text");
    put_string(&m, "empty string");
    put_u32(&m, GGUF_TYPE_STRING);
    put_string(&m, "");
    put_string(&m, "empty array");
    put_u32(&m, GGUF_TYPE_ARRAY);
    put_u32(&m, GGUF_TYPE_UINT64);
    put_u64(&m, 0);
    put_string(&m, "strings");
    put_u32(&m, GGUF_TYPE_ARRAY);
    put_u32(&m, GGUF_TYPE_STRING);
    put_u64(&m, 2);
    put_string(&m, "a");
    put_string(&m, "bc");
    return m;
}

/* Goal:   a header of all types passes, with or without bytes behind it; cut at any byte it
 *         is refused.
 * Method: every length from 0 to the whole. */
static void a_header_cut_at_any_byte_is_refused(void **state)
{
    struct made m = one_of_everything(), more = one_of_everything();
    size_t      whole = m.count;
    mcp_error   err;

    (void)state;
    unit_ok(check(&m, &err), &err);
    put(&more, NULL, 100); /* the tensors' table, which is not this walk's */
    must_pass(&more);
    for (m.count = 0; m.count < whole; m.count++)
        unit_refused(check(&m, &err), MCP_EFORMAT, &err, "ends inside key");
    free(m.bytes);
}

/* Goal:   the key in which a header ends is named; a long name is cut. */
static void the_key_in_which_the_header_ends_is_named(void **state)
{
    struct made m = made_begin(0, 1);
    mcp_error   err;
    char        name[200];

    (void)state;
    put_string(&m, "general.architecture");
    put_u32(&m, GGUF_TYPE_UINT32);
    must_refuse(&m, MCP_EFORMAT, "key general.architecture");

    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    m = made_begin(0, 1);
    put_string(&m, name);
    unit_refused(check(&m, &err), MCP_EFORMAT, &err, "key nnnn");
    assert_null(strstr(err.text, name));
    free(m.bytes);

    m = made_begin(0, 2);
    put_string(&m, "a");
    put_u32(&m, GGUF_TYPE_UINT8);
    put(&m, NULL, 1);
    must_refuse(&m, MCP_EFORMAT, "key number 1");
}

/* Goal:   only GGUF of versions 2 and 3; a big-endian file is recognised. */
static void another_magic_or_version_is_refused(void **state)
{
    static const struct {
        uint32_t version;
        int      code;
    } rows[] = { { 0, MCP_ENOTSUP }, { 1, MCP_ENOTSUP }, { 2, MCP_OK },
                 { 3, MCP_OK },      { 4, MCP_ENOTSUP }, { 0x03000000, MCP_ENOTSUP } };
    struct made m;
    mcp_error   err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        m = made_begin(0, 0);
        memcpy(m.bytes + 4, &rows[i].version, 4);
        if (rows[i].code == MCP_OK)
            unit_ok(check(&m, &err), &err);
        else
            unit_refused(check(&m, &err), rows[i].code, &err, "version");
        if (rows[i].version == 0x03000000)
            assert_non_null(strstr(err.text, "big-endian"));
        free(m.bytes);
    }
    for (size_t i = 0; i < 4; i++) {
        m = made_begin(0, 0);
        m.bytes[i] ^= 0x20;
        must_refuse(&m, MCP_EFORMAT, "not a GGUF");
    }
}

/* A header of `keys` one-byte keys. */
static struct made many_keys(uint64_t keys)
{
    struct made m = made_begin(0, keys);

    for (uint64_t i = 0; i < keys && i < MODEL_KEYS_MAX; i++) {
        put_string(&m, "k");
        put_u32(&m, GGUF_TYPE_UINT8);
        put(&m, NULL, 1);
    }
    return m;
}

/* Goal:   the announced counts are bounded before anything is read.
 * Method: exactly the limit, one more, and the largest number. */
static void tensors_and_keys_are_counted_against_their_limits(void **state)
{
    struct made m = made_begin(MODEL_TENSORS_MAX, 0);

    (void)state;
    must_pass(&m);
    m = made_begin(MODEL_TENSORS_MAX + 1, 0);
    must_refuse(&m, MCP_EFORMAT, "65537 tensors");
    m = made_begin(UINT64_MAX, 0);
    must_refuse(&m, MCP_EFORMAT, "tensors");
    m = many_keys(MODEL_KEYS_MAX);
    must_pass(&m);
    m = many_keys(MODEL_KEYS_MAX + 1);
    must_refuse(&m, MCP_EFORMAT, "65537 keys");
    m = made_begin(0, UINT64_MAX);
    must_refuse(&m, MCP_EFORMAT, "keys");
}

/* A key whose name has `bytes` bytes. */
static struct made long_name(size_t bytes)
{
    struct made m = made_begin(0, 1);

    put_u64(&m, bytes);
    put(&m, NULL, bytes);
    put_u32(&m, GGUF_TYPE_BOOL);
    put(&m, NULL, 1);
    return m;
}

/* A key whose value (or array element) is a string of `bytes` bytes. */
static struct made long_value(size_t bytes, bool element)
{
    struct made m = made_begin(0, 1);

    put_string(&m, "k");
    if (element) {
        put_u32(&m, GGUF_TYPE_ARRAY);
        put_u32(&m, GGUF_TYPE_STRING);
        put_u64(&m, 1);
    } else {
        put_u32(&m, GGUF_TYPE_STRING);
    }
    put_u64(&m, bytes);
    put(&m, NULL, bytes);
    return m;
}

/* Goal:   names, values and elements at their limit pass, one byte more does not. */
static void strings_are_bounded(void **state)
{
    struct made m = long_name(MODEL_KEY_BYTES_MAX);

    (void)state;
    must_pass(&m);
    m = long_name(MODEL_KEY_BYTES_MAX + 1);
    must_refuse(&m, MCP_EFORMAT, "the name of key number 0 has 1025 bytes");
    for (int element = 0; element < 2; element++) {
        m = long_value(MODEL_STRING_BYTES_MAX, element != 0);
        must_pass(&m);
        m = long_value(MODEL_STRING_BYTES_MAX + 1, element != 0);
        must_refuse(&m, MCP_EFORMAT, element ? "an element of key k" : "the value of key k");
    }
}

/* Goal:   a length near 2^64 neither wraps nor reads.
 * Method: as a name's, a value's, an element's length and as an array's count, each also
 *         times its element size. */
static void lengths_near_two_to_the_64_do_not_wrap(void **state)
{
    static const uint64_t lengths[] = { UINT64_MAX, UINT64_MAX - 7, UINT64_MAX / 8 + 1,
                                        (uint64_t)1 << 63, (uint64_t)1 << 61 };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(lengths); i++) {
        struct made m = long_name(8);

        memcpy(m.bytes + 24, &lengths[i], 8);
        must_refuse(&m, MCP_EFORMAT, "the name of key");
        m = long_value(8, false);
        memcpy(m.bytes + 24 + 9 + 4, &lengths[i], 8);
        must_refuse(&m, MCP_EFORMAT, "the value of key k");
        m = long_value(8, true);
        memcpy(m.bytes + 24 + 9 + 4 + 12, &lengths[i], 8);
        must_refuse(&m, MCP_EFORMAT, "an element of key k");
        m = long_value(8, true);
        memcpy(m.bytes + 24 + 9 + 4 + 4, &lengths[i], 8);
        must_refuse(&m, MCP_EFORMAT, "elements");
        m = long_value(8, true);
        m.bytes[24 + 9 + 4] = GGUF_TYPE_UINT64;
        memcpy(m.bytes + 24 + 9 + 4 + 4, &lengths[i], 8);
        must_refuse(&m, MCP_EFORMAT, "elements");
    }
}

/* Two arrays of bytes with these counts. */
static struct made two_arrays(size_t first, size_t second)
{
    struct made m = made_begin(0, 2);
    size_t      counts[] = { first, second };

    for (size_t i = 0; i < 2; i++) {
        put_string(&m, i == 0 ? "first" : "second");
        put_u32(&m, GGUF_TYPE_ARRAY);
        put_u32(&m, GGUF_TYPE_INT8);
        put_u64(&m, counts[i]);
        put(&m, NULL, counts[i]);
    }
    return m;
}

/* Goal:   the elements of all arrays together have one limit. */
static void the_elements_of_all_arrays_share_one_limit(void **state)
{
    struct made m = two_arrays(MODEL_ELEMENTS_MAX, 0);

    (void)state;
    must_pass(&m);
    m = two_arrays(MODEL_ELEMENTS_MAX - 5, 5);
    must_pass(&m);
    m = two_arrays(MODEL_ELEMENTS_MAX + 1, 0);
    must_refuse(&m, MCP_EFORMAT, "the array of key first has 4194305 elements");
    m = two_arrays(MODEL_ELEMENTS_MAX - 5, 6);
    must_refuse(&m, MCP_EFORMAT, "the array of key second has 6 elements");
}

/* Goal:   arrays of arrays, and types that do not exist, are refused by number.
 * Method: every type number from 0 to 40 and the largest, as a value's and as an array's. */
static void nested_arrays_and_unknown_types_are_refused(void **state)
{
    (void)state;
    for (uint32_t i = 0; i <= 41; i++) {
        uint32_t    type = i == 41 ? UINT32_MAX : i;
        bool        known = type <= 12;
        struct made m = made_begin(0, 1);
        char        about[64];

        put_string(&m, "k");
        put_u32(&m, type);
        put_u64(&m, 0); /* a scalar's bytes, an empty string, half an empty array */
        put_u64(&m, 0);
        snprintf(about, sizeof(about), "key k has type %u", type);
        if (known)
            must_pass(&m);
        else
            must_refuse(&m, MCP_EFORMAT, about);

        m = made_begin(0, 1);
        put_string(&m, "k");
        put_u32(&m, GGUF_TYPE_ARRAY);
        put_u32(&m, type);
        put_u64(&m, 0);
        snprintf(about, sizeof(about), "key k is an array of type %u,", type);
        if (known && type != GGUF_TYPE_ARRAY)
            must_pass(&m);
        else
            must_refuse(&m, MCP_EFORMAT, about);
    }
}

/* Goal:   keys and values together are bounded, whatever the file's size.
 * Method: strings that end exactly at the limit of 128 MiB, and one byte behind it. */
static void all_metadata_together_is_bounded(void **state)
{
    enum { VALUES = MODEL_HEADER_BYTES_MAX / MODEL_STRING_BYTES_MAX, FIELDS = 9 + 4 + 8 };

    (void)state;
    for (int over = 0; over < 2; over++) {
        struct made m = made_begin(0, VALUES);

        for (int i = 0; i < VALUES; i++) {
            size_t bytes = MODEL_STRING_BYTES_MAX;

            if (i + 1 == VALUES)
                bytes -= 24 + VALUES * FIELDS - (size_t)over;
            put_string(&m, "k");
            put_u32(&m, GGUF_TYPE_STRING);
            put_u64(&m, bytes);
            put(&m, NULL, bytes);
        }
        assert_int_equal(m.count, MODEL_HEADER_BYTES_MAX + over);
        put(&m, NULL, 64); /* the file goes on behind */
        if (over)
            must_refuse(&m, MCP_EFORMAT, "made.gguf: the");
        else
            must_pass(&m);
    }
}

/* Goal:   no bytes whatsoever make the walk read outside: it says yes or no.
 * Method: the header of everything with one to three bytes changed, 20,000 times.
 * Replay: MCP_SEED=N ./dev test changed_bytes_never_make_it_read_outside */
static void changed_bytes_never_make_it_read_outside(void **state)
{
    struct made good = one_of_everything(), m = good;
    uint64_t    rng = unit_seed();
    int         refused = 0, passed = 0;
    mcp_error   err;

    (void)state;
    m.bytes = malloc(good.count);
    assert_non_null(m.bytes);
    for (int i = 0; i < 20000; i++) {
        int rc;

        memcpy(m.bytes, good.bytes, good.count);
        for (uint32_t n = unit_below(&rng, 3) + 1; n > 0; n--)
            m.bytes[unit_below(&rng, (uint32_t)m.count)] = (uint8_t)unit_next(&rng);
        rc = check(&m, &err);
        if (rc != MCP_OK && (err.code != rc || err.text[0] == '\0'))
            fail_msg("no sentence: seed=%" PRIu64 " round=%d", unit_seed(), i);
        refused += rc < 0;
        passed += rc == 0;
    }
    assert_true(refused > 1000);
    assert_true(passed > 1000);
    free(m.bytes);
    free(good.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_cut_at_any_byte_is_refused),
        cmocka_unit_test(the_key_in_which_the_header_ends_is_named),
        cmocka_unit_test(another_magic_or_version_is_refused),
        cmocka_unit_test(tensors_and_keys_are_counted_against_their_limits),
        cmocka_unit_test(strings_are_bounded),
        cmocka_unit_test(lengths_near_two_to_the_64_do_not_wrap),
        cmocka_unit_test(the_elements_of_all_arrays_share_one_limit),
        cmocka_unit_test(nested_arrays_and_unknown_types_are_refused),
        cmocka_unit_test(all_metadata_together_is_bounded),
        cmocka_unit_test(changed_bytes_never_make_it_read_outside),
    };

    return cmocka_run_group_tests_name("model/header", tests, NULL, NULL);
}
