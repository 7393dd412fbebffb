/* guard/peek_test.c - what a token says of itself.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/made_test.h"
#include "guard/token.h"

/* header.payload.signature, of which only the payload is looked at. */
static const char *token_of(const char *payload)
{
    static char text[1024];
    size_t      chars = guard_base64_chars(strlen(payload));

    assert_true(chars + 16 < sizeof(text));
    memcpy(text, "e30.", 4);
    guard_base64_encode(text + 4, (const uint8_t *)payload, strlen(payload));
    memcpy(text + 4 + chars, ".c2ln", 6);
    return text;
}

/* Goal:   the scopes are those that the worker would find; words that nobody knows grant nothing. */
static void a_token_tells_its_scopes(void **state)
{
    static const struct {
        const char *payload;
        uint32_t    scopes;
    } rows[] = {
        { "{\"sub\":\"alice\",\"scope\":\"infer generate\"}", GUARD_INFER | GUARD_GENERATE },
        { "{\"scope\":\"infer generate state\"}", GUARD_INFER | GUARD_GENERATE | GUARD_STATE },
        { "{\"scope\":\"state dance\"}", GUARD_STATE },
        { "{\"scope\":\"stately\"}", 0 },
    };
    mcp_error err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        uint32_t scopes = UINT32_MAX;

        unit_ok(guard_token_scopes(token_of(rows[i].payload), &scopes, &err), &err);
        assert_int_equal(scopes, rows[i].scopes);
    }
}

static void what_is_no_token_tells_nothing(void **state)
{
    static const struct {
        const char *token, *about;
    } rows[] = {
        { "", "header.payload.signature" },
        { "e30", "header.payload.signature" },
        { "e30.e30", "header.payload.signature" },
        { "e30..c2ln", "header.payload.signature" },
        { "e30.e3.c2ln", "payload" },
        { "e30.!!!.c2ln", "header.payload.signature" },
        { "e30.e30.c2ln", "no scope" },
    };
    uint32_t  scopes = UINT32_MAX;
    mcp_error err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++)
        unit_refused(guard_token_scopes(rows[i].token, &scopes, &err), MCP_EFORMAT, &err,
                     rows[i].about);
    unit_refused(guard_token_scopes(token_of("{\"scope\":\"infer  state\"}"), &scopes, &err),
                 MCP_EFORMAT, &err, "one blank");
    unit_refused(guard_token_scopes(token_of("{\"scope\":7}"), &scopes, &err), MCP_EFORMAT, &err,
                 "no scope");
    assert_int_equal(scopes, UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_tells_its_scopes),
        cmocka_unit_test(what_is_no_token_tells_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
