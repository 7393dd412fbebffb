/* model/keys_test.c - typed reads of metadata that answer with a sentence.
 *
 * SPDX-License-Identifier: MIT */
#include "model/keys.h"

#include "base/unit_test.h"

#include <math.h>

static struct gguf_context *gguf;
static struct model_keys    keys = { .path = "made.gguf", .arch = "llama" };

static int gguf_begin(void **state)
{
    (void)state;
    keys.gguf = gguf = gguf_init_empty();
    return gguf == NULL;
}

static int gguf_end(void **state)
{
    (void)state;
    gguf_free(gguf);
    return 0;
}

static void u32_must_be(const char *name, uint32_t expected)
{
    uint32_t  value = 999;
    mcp_error err;
    int       rc = model_keys_u32(&keys, name, 0, UINT32_MAX, &value, &err);

    unit_ok(rc, &err);
    assert_int_equal(rc, 1);
    assert_int_equal(value, expected);
    value = 999;
    assert_int_equal(model_keys_need_u32(&keys, name, 0, UINT32_MAX, &value, NULL), 1);
    assert_int_equal(value, expected);
}

static void u32_must_fail(const char *name, uint32_t min, uint32_t max, int code, const char *about)
{
    uint32_t  value = 999;
    mcp_error err;

    unit_refused(model_keys_u32(&keys, name, min, max, &value, &err), code, &err, about);
    assert_int_equal(value, 999);
    assert_int_equal(model_keys_u32(&keys, name, min, max, &value, NULL), code);
    assert_int_equal(value, 999);
    unit_refused(model_keys_need_u32(&keys, name, min, max, &value, &err), code, &err, about);
    assert_non_null(strstr(err.text, "made.gguf"));
}

/* Goal:   every integer type is read as the number that it holds. */
static void every_integer_type_is_read(void **state)
{
    (void)state;
    gguf_set_val_u8(gguf, "llama.u8", 200);
    gguf_set_val_i8(gguf, "llama.i8", 100);
    gguf_set_val_u16(gguf, "llama.u16", 60000);
    gguf_set_val_i16(gguf, "llama.i16", 30000);
    gguf_set_val_u32(gguf, "llama.u32", UINT32_MAX);
    gguf_set_val_i32(gguf, "llama.i32", INT32_MAX);
    gguf_set_val_u64(gguf, "llama.u64", 5000000000u % 4294967296u);
    gguf_set_val_i64(gguf, "llama.i64", 4000000000);
    u32_must_be("u8", 200);
    u32_must_be("i8", 100);
    u32_must_be("u16", 60000);
    u32_must_be("i16", 30000);
    u32_must_be("u32", UINT32_MAX);
    u32_must_be("i32", INT32_MAX);
    u32_must_be("u64", 705032704);
    u32_must_be("i64", 4000000000u);
}

/* Goal:   a number outside [min, max] is refused, whatever its type; none wraps.
 * Method: negative ones of each signed type, u64 behind 32 and 63 bits. */
static void a_number_outside_its_bounds_is_refused(void **state)
{
    (void)state;
    gguf_set_val_i8(gguf, "llama.i8", -1);
    gguf_set_val_i16(gguf, "llama.i16", -2);
    gguf_set_val_i32(gguf, "llama.i32", INT32_MIN);
    gguf_set_val_i64(gguf, "llama.i64", INT64_MIN);
    gguf_set_val_u64(gguf, "llama.wide", ((uint64_t)1 << 32) + 5);
    gguf_set_val_u64(gguf, "llama.widest", UINT64_MAX);
    gguf_set_val_u64(gguf, "llama.sign", (uint64_t)1 << 63);
    u32_must_fail("i8", 0, 10, MCP_EFORMAT, "llama.i8 is -1, must be 0 to 10");
    u32_must_fail("i16", 0, UINT32_MAX, MCP_EFORMAT, "is -2");
    u32_must_fail("i32", 0, UINT32_MAX, MCP_EFORMAT, "is -2147483648");
    u32_must_fail("i64", 0, UINT32_MAX, MCP_EFORMAT, "is -9223372036854775808");
    u32_must_fail("wide", 0, 10, MCP_EFORMAT, "is 4294967301");
    u32_must_fail("wide", 0, UINT32_MAX, MCP_EFORMAT, "is 4294967301");
    u32_must_fail("widest", 0, UINT32_MAX, MCP_EFORMAT, "llama.widest");
    u32_must_fail("sign", 0, UINT32_MAX, MCP_EFORMAT, "llama.sign");
}

/* Goal:   the bounds themselves are inside. */
static void both_bounds_are_inside(void **state)
{
    uint32_t value = 0;

    (void)state;
    gguf_set_val_u32(gguf, "llama.n", 7);
    assert_int_equal(model_keys_u32(&keys, "n", 7, 7, &value, NULL), 1);
    assert_int_equal(value, 7);
    u32_must_fail("n", 8, 9, MCP_EFORMAT, "must be 8 to 9");
    u32_must_fail("n", 0, 6, MCP_EFORMAT, "must be 0 to 6");
}

/* Goal:   a number a layer counts as one when all agree, and is refused when they differ.
 * Method: arrays of several integer types; a difference at the end; one in the high half of
 *         a u64, which must not get lost. */
static void an_array_that_agrees_is_one_number(void **state)
{
    static const int32_t same[] = { 8, 8, 8, 8 }, differ[] = { 8, 8, 8, 9 },
                         negative[] = { -3, -3 };
    static const uint8_t  bytes[] = { 255, 255 };
    static const uint64_t wide[] = { 5, 5 }, high[] = { 5, ((uint64_t)1 << 32) + 5 };
    static const float    floats[] = { 1.0f, 1.0f };
    static const int8_t   bools[] = { 1, 1 };
    const char           *strings[] = { "8", "8" };

    (void)state;
    gguf_set_arr_data(gguf, "llama.same", GGUF_TYPE_INT32, same, 4);
    gguf_set_arr_data(gguf, "llama.one", GGUF_TYPE_INT32, same, 1);
    gguf_set_arr_data(gguf, "llama.differ", GGUF_TYPE_INT32, differ, 4);
    gguf_set_arr_data(gguf, "llama.negative", GGUF_TYPE_INT32, negative, 2);
    gguf_set_arr_data(gguf, "llama.bytes", GGUF_TYPE_UINT8, bytes, 2);
    gguf_set_arr_data(gguf, "llama.wide", GGUF_TYPE_UINT64, wide, 2);
    gguf_set_arr_data(gguf, "llama.high", GGUF_TYPE_UINT64, high, 2);
    gguf_set_arr_data(gguf, "llama.floats", GGUF_TYPE_FLOAT32, floats, 2);
    gguf_set_arr_data(gguf, "llama.bools", GGUF_TYPE_BOOL, bools, 2);
    gguf_set_arr_data(gguf, "llama.none", GGUF_TYPE_INT32, same, 0);
    gguf_set_arr_str(gguf, "llama.strings", strings, 2);
    u32_must_be("same", 8);
    u32_must_be("one", 8);
    u32_must_be("bytes", 255);
    u32_must_be("wide", 5);
    u32_must_fail("differ", 0, 100, MCP_ENOTSUP, "llama.differ differs between layers (8, 9)");
    u32_must_fail("high", 0, 100, MCP_ENOTSUP, "llama.high differs");
    u32_must_fail("negative", 0, 100, MCP_EFORMAT, "is -3");
    u32_must_fail("floats", 0, 100, MCP_EFORMAT, "array of f32");
    u32_must_fail("bools", 0, 100, MCP_EFORMAT, "array of bool");
    u32_must_fail("strings", 0, 100, MCP_EFORMAT, "array of str");
    u32_must_fail("none", 0, 100, MCP_EFORMAT, "llama.none");
}

/* Goal:   what is no integer is refused by its type's name; reading it must not abort. */
static void another_type_is_no_integer(void **state)
{
    (void)state;
    gguf_set_val_f32(gguf, "llama.f32", 1.0f);
    gguf_set_val_f64(gguf, "llama.f64", 1.0);
    gguf_set_val_bool(gguf, "llama.bool", true);
    gguf_set_val_str(gguf, "llama.str", "1");
    u32_must_fail("f32", 0, 9, MCP_EFORMAT, "llama.f32 is of type f32, must be an integer");
    u32_must_fail("f64", 0, 9, MCP_EFORMAT, "of type f64");
    u32_must_fail("bool", 0, 9, MCP_EFORMAT, "of type bool");
    u32_must_fail("str", 0, 9, MCP_EFORMAT, "of type str");
}

/* Goal:   an absent key leaves the default; only the needing readers fail, and name it.
 * Method: also a key of another architecture, and one whose name goes on. */
static void an_absent_key_keeps_the_default(void **state)
{
    uint32_t    value = 41;
    float       number = 0.5f;
    bool        flag = true;
    const char *text = "default";
    mcp_error   err = { 0 };

    (void)state;
    gguf_set_val_u32(gguf, "qwen2.n", 7);
    gguf_set_val_u32(gguf, "llama.nn", 7);
    assert_int_equal(model_keys_u32(&keys, "n", 0, 9, &value, &err), 0);
    assert_int_equal(model_keys_f32(&keys, "n", 0, 9, &number, &err), 0);
    assert_int_equal(model_keys_bool(&keys, "n", &flag, &err), 0);
    assert_int_equal(model_keys_string(&keys, "n", &text, &err), 0);
    assert_int_equal(err.code, 0);
    assert_int_equal(value, 41);
    assert_true(number == 0.5f && flag);
    assert_string_equal(text, "default");
    unit_refused(model_keys_need_u32(&keys, "n", 0, 9, &value, &err), MCP_EFORMAT, &err,
                 "key llama.n is missing");
    unit_refused(model_keys_need_f32(&keys, "n", 0, 9, &number, &err), MCP_EFORMAT, &err,
                 "key llama.n is missing");
    assert_int_equal(value, 41);
    assert_true(number == 0.5f);
}

static void f32_must_fail(const char *name, const char *about)
{
    float     value = 0.5f;
    mcp_error err;

    unit_refused(model_keys_f32(&keys, name, -2.0f, 2.0f, &value, &err), MCP_EFORMAT, &err, about);
    assert_true(value == 0.5f);
    unit_refused(model_keys_need_f32(&keys, name, -2.0f, 2.0f, &value, &err), MCP_EFORMAT, &err,
                 about);
}

/* Goal:   floats of both widths are read; what is not finite or outside is refused.
 * Method: NaN, both infinities, an f64 that becomes infinite as an f32, the bounds. */
static void a_float_must_be_finite_and_inside(void **state)
{
    float value = 0.0f;

    (void)state;
    gguf_set_val_f32(gguf, "llama.f32", -1.25f);
    gguf_set_val_f64(gguf, "llama.f64", 0.1);
    gguf_set_val_f32(gguf, "llama.edge", 2.0f);
    gguf_set_val_f32(gguf, "llama.out", 2.0000002f);
    gguf_set_val_f32(gguf, "llama.nan", NAN);
    gguf_set_val_f64(gguf, "llama.nan64", (double)NAN);
    gguf_set_val_f32(gguf, "llama.inf", INFINITY);
    gguf_set_val_f32(gguf, "llama.minus", -INFINITY);
    gguf_set_val_f64(gguf, "llama.big", 1e300);
    gguf_set_val_u32(gguf, "llama.int", 1);
    gguf_set_val_str(gguf, "llama.str", "1.0");
    assert_int_equal(model_keys_f32(&keys, "f32", -2, 2, &value, NULL), 1);
    assert_true(value == -1.25f);
    assert_int_equal(model_keys_need_f32(&keys, "f64", -2, 2, &value, NULL), 1);
    assert_true(value == 0.1f);
    assert_int_equal(model_keys_f32(&keys, "edge", -2, 2, &value, NULL), 1);
    assert_true(value == 2.0f);
    f32_must_fail("out", "must be -2 to 2");
    f32_must_fail("nan", "llama.nan is nan");
    f32_must_fail("nan64", "nan");
    f32_must_fail("inf", "inf");
    f32_must_fail("minus", "-inf");
    f32_must_fail("big", "inf");
    f32_must_fail("int", "of type u32, must be a float");
    f32_must_fail("str", "of type str");
}

/* Goal:   booleans and strings are read, and nothing else for them. */
static void booleans_and_strings_have_one_type_each(void **state)
{
    static const int8_t bools[] = { 1 };
    bool                flag = false;
    const char         *text = NULL, *strings[] = { "a" };
    mcp_error           err;

    (void)state;
    gguf_set_val_bool(gguf, "llama.yes", true);
    gguf_set_val_bool(gguf, "llama.no", false);
    gguf_set_val_u8(gguf, "llama.u8", 1);
    gguf_set_val_str(gguf, "llama.str", "yarn");
    gguf_set_arr_data(gguf, "llama.bools", GGUF_TYPE_BOOL, bools, 1);
    gguf_set_arr_str(gguf, "llama.strs", strings, 1);
    assert_int_equal(model_keys_bool(&keys, "yes", &flag, NULL), 1);
    assert_true(flag);
    assert_int_equal(model_keys_bool(&keys, "no", &flag, NULL), 1);
    assert_false(flag);
    assert_int_equal(model_keys_string(&keys, "str", &text, NULL), 1);
    assert_string_equal(text, "yarn");
    unit_refused(model_keys_bool(&keys, "u8", &flag, &err), MCP_EFORMAT, &err, "must be a bool");
    unit_refused(model_keys_bool(&keys, "bools", &flag, &err), MCP_EFORMAT, &err, "must be a bool");
    unit_refused(model_keys_bool(&keys, "str", &flag, &err), MCP_EFORMAT, &err, "must be a bool");
    unit_refused(model_keys_string(&keys, "u8", &text, &err), MCP_EFORMAT, &err,
                 "must be a string");
    unit_refused(model_keys_string(&keys, "strs", &text, &err), MCP_EFORMAT, &err,
                 "must be a string");
    assert_string_equal(text, "yarn");
}

/* Goal:   a boolean stored as another byte than 0 and 1 is true, not undefined. */
static void a_boolean_of_two_is_true(void **state)
{
    uint8_t *bytes;
    bool     flag = false;
    size_t   count;

    (void)state;
    gguf_set_val_bool(gguf, "llama.odd", true);
    count = gguf_get_meta_size(gguf);
    bytes = malloc(count);
    assert_non_null(bytes);
    gguf_get_meta_data(gguf, bytes);
    gguf_free(gguf);
    bytes[24 + 8 + 9 + 4] = 2; /* counts, name, type, value */
    keys.gguf = gguf = gguf_init_from_buffer(bytes, count, (struct gguf_init_params){ true, NULL });
    assert_non_null(gguf);
    assert_int_equal(model_keys_bool(&keys, "odd", &flag, NULL), 1);
    assert_true(flag);
    free(bytes);
}

/* Goal:   a key of the whole file is found by its full name, and only a string counts. */
static void a_global_string_is_found_by_its_full_name(void **state)
{
    const char *strings[] = { "a" };

    (void)state;
    gguf_set_val_str(gguf, "general.name", "Test");
    gguf_set_val_u32(gguf, "general.number", 1);
    gguf_set_arr_str(gguf, "general.array", strings, 1);
    assert_string_equal(model_keys_global_string(gguf, "general.name"), "Test");
    assert_null(model_keys_global_string(gguf, "general.number"));
    assert_null(model_keys_global_string(gguf, "general.array"));
    assert_null(model_keys_global_string(gguf, "name"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define KEYS_TEST(name) cmocka_unit_test_setup_teardown(name, gguf_begin, gguf_end)
        KEYS_TEST(every_integer_type_is_read),
        KEYS_TEST(a_number_outside_its_bounds_is_refused),
        KEYS_TEST(both_bounds_are_inside),
        KEYS_TEST(an_array_that_agrees_is_one_number),
        KEYS_TEST(another_type_is_no_integer),
        KEYS_TEST(an_absent_key_keeps_the_default),
        KEYS_TEST(a_float_must_be_finite_and_inside),
        KEYS_TEST(booleans_and_strings_have_one_type_each),
        KEYS_TEST(a_boolean_of_two_is_true),
        KEYS_TEST(a_global_string_is_found_by_its_full_name),
#undef KEYS_TEST
    };

    return cmocka_run_group_tests_name("model/keys", tests, NULL, NULL);
}
