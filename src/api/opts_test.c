/* api/opts_test.c - option structs of older, newer and broken callers.
 *
 * SPDX-License-Identifier: MIT */
#include "api/opts.h"

#include "base/unit_test.h"

#include <mcp/generate.h>

struct options { /* without padding: compared byte by byte */
    uint32_t struct_size;
    uint32_t number;
    double   fraction;
    uint64_t newest;
};

static const struct options defaults = { sizeof(struct options), 7, 0.5, 9 };

/* Goal:   no options are the defaults. */
static void no_options_are_the_defaults(void **state)
{
    struct options own = defaults;

    (void)state;
    assert_int_equal(api_take_opts(&own, sizeof(own), NULL, "options", NULL), MCP_OK);
    assert_memory_equal(&own, &defaults, sizeof(own));
}

/* Goal:   what an older caller's struct lacks keeps its default, and is not read.
 * Method: every size from 4 to the whole, in memory of exactly that size. */
static void a_smaller_struct_keeps_todays_defaults(void **state)
{
    const struct options given = { 0, 100, 0.25, 200 };

    (void)state;
    for (uint32_t size = sizeof(uint32_t); size <= sizeof(struct options); size++) {
        struct options own = defaults, expected = defaults;
        uint8_t       *exact = malloc(size);

        assert_non_null(exact);
        memcpy(exact, &given, size);
        memcpy(exact, &size, sizeof(size));
        assert_int_equal(api_take_opts(&own, sizeof(own), exact, "options", NULL), MCP_OK);
        memcpy(&expected, exact, size);
        assert_memory_equal(&own, &expected, sizeof(own));
        free(exact);
    }
}

/* Goal:   a struct from a newer header, and one without a size, are refused; the target is
 *         as it was. */
static void a_larger_or_sizeless_struct_is_refused(void **state)
{
    static const uint32_t sizes[] = { 0, 1, 2, 3, sizeof(struct options) + 1, UINT32_MAX };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(sizes); i++) {
        struct options own = defaults, given = { sizes[i], 100, 0.25, 200 };
        mcp_error      err;
        char           about[64];

        snprintf(about, sizeof(about), "mcp_some_opts.struct_size is %u", sizes[i]);
        unit_refused(api_take_opts(&own, sizeof(own), &given, "mcp_some_opts", &err), MCP_EINVAL,
                     &err, about);
        assert_non_null(strstr(err.text, "INIT macro"));
        assert_memory_equal(&own, &defaults, sizeof(own));
    }
}

/* Goal:   the INIT macros name their own size, and struct_size comes first in each. */
static void the_init_macros_name_their_size(void **state)
{
    mcp_engine_opts   e = MCP_ENGINE_OPTS_INIT;
    mcp_session_opts  s = MCP_SESSION_OPTS_INIT;
    mcp_generate_opts g = MCP_GENERATE_OPTS_INIT;

    (void)state;
    assert_int_equal(e.struct_size, sizeof(e));
    assert_int_equal(s.struct_size, sizeof(s));
    assert_int_equal(g.struct_size, sizeof(g));
    assert_int_equal(offsetof(mcp_engine_opts, struct_size), 0);
    assert_int_equal(offsetof(mcp_session_opts, struct_size), 0);
    assert_int_equal(offsetof(mcp_generate_opts, struct_size), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_options_are_the_defaults),
        cmocka_unit_test(a_smaller_struct_keeps_todays_defaults),
        cmocka_unit_test(a_larger_or_sizeless_struct_is_refused),
        cmocka_unit_test(the_init_macros_name_their_size),
    };

    return cmocka_run_group_tests_name("api/opts", tests, NULL, NULL);
}
