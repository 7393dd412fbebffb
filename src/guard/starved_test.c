/* guard/starved_test.c - identities where memory ends: a sentence, nothing left in memory and
 * nothing half-made on disk.
 *
 * Counted are our own allocations and jansson's, which are made to come from this program.
 *
 * SPDX-License-Identifier: MIT */
#include "base/starve_test.h"
#include "guard/folder.h"
#include "guard/json.h"
#include "guard/keys.h"
#include "guard/made_test.h"
#include "guard/token.h"

static const char *authority; /* made once, with everything to go wrong in it */
static char       *token, *line;
static uint8_t     binding[32];

/* Files that uses change, as they were at first. */
static const char *const changing[] = { "issued.json", "revoked.json", "client.pem",
                                        "client.key",  "client.token", "workers" };
static uint8_t          *was[UNIT_COUNT(changing)];
static size_t            was_bytes[UNIT_COUNT(changing)];

/* Not in tail position: the caller that starve_test.h sees must be this program. */
static void *json_allocate(size_t bytes)
{
    void *memory = malloc(bytes);

    __asm__ volatile("" ::: "memory");
    return memory;
}

static void json_release(void *memory)
{
    free(memory);
    __asm__ volatile("" ::: "memory");
}

/* ---- one use each, which cleans up what it made -------------------------------------- */

static int use_init(mcp_error *err)
{
    int rc = guard_keys_init(made_path("new"), "a.lan,10.0.0.1", err);

    assert_int_equal(access(made_path("new"), F_OK), rc < 0 ? -1 : 0);
    return rc;
}

static int use_issue(mcp_error *err)
{
    int rc = guard_keys_issue(authority, MCP_ROLE_WORKER, "w", NULL, made_path("new"), err);

    assert_int_equal(access(made_path("new"), F_OK), rc < 0 ? -1 : 0);
    return rc;
}

static int use_token(mcp_error *err)
{
    mcp_token_opts opts = MCP_TOKEN_OPTS_INIT;
    char           text[MCP_KEYS_TEXT_BYTES];

    opts.subject = "alice";
    opts.model = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    opts.last = 4;
    opts.tokens_per_minute = 5;
    return guard_keys_token(authority, &opts, text, sizeof(text), err);
}

static int use_verify(mcp_error *err)
{
    struct guard_keyring *ring;
    struct guard_grant    grant;
    int                   rc = guard_keyring_load(&ring, authority, err);

    if (rc == MCP_OK)
        rc = guard_token_verify(ring, token, strlen(token), binding, "w", time(NULL), &grant, err);
    guard_keyring_unref(ring);
    return rc;
}

static int use_revoke(mcp_error *err)
{
    uint32_t count;

    return guard_keys_revoke(authority, "client", &count, err);
}

static int use_revoke_token(mcp_error *err)
{
    uint32_t count;

    return guard_keys_revoke(authority, token, &count, err);
}

static int use_describe(mcp_error *err)
{
    char *json = NULL;
    int   rc = guard_keys_describe(authority, &json, err);

    assert_int_equal(json != NULL, rc == MCP_OK);
    free(json);
    return rc;
}

static int use_invite(mcp_error *err)
{
    char *made = NULL;
    int   rc = guard_keys_invite(authority, "bob", "a:1", &made, err);

    assert_int_equal(made != NULL, rc == MCP_OK);
    free(made);
    return rc;
}

static int use_join(mcp_error *err)
{
    char endpoint[64];
    int  rc = guard_keys_join(line, made_path("new"), endpoint, sizeof(endpoint), err);

    assert_int_equal(access(made_path("new"), F_OK), rc < 0 ? -1 : 0);
    return rc;
}

static int use_join_again(mcp_error *err)
{
    char endpoint[64];

    return guard_keys_join(line, authority, endpoint, sizeof(endpoint), err);
}

/* ---- the test ------------------------------------------------------------------------ */

static int everything_begin(void **state)
{
    mcp_token_opts        opts = MCP_TOKEN_OPTS_INIT;
    struct guard_keyring *ring;
    struct guard_grant    grant;
    json_t               *description;
    char                 *json;
    uint32_t              count;
    mcp_error             err;

    (void)state;
    authority = strdup(made_path("authority"));
    token = calloc(1, MCP_KEYS_TEXT_BYTES);
    unit_ok(guard_keys_init(authority, NULL, &err), &err);
    opts.subject = "alice";
    unit_ok(guard_keys_token(authority, &opts, token, MCP_KEYS_TEXT_BYTES, &err), &err);
    made_file(authority, "client.token", 0600, token);
    made_file(authority, "workers", 0644, "a:1\nb:2\n");
    unit_ok(guard_keys_invite(authority, "carol", "c:3", &line, &err), &err);
    unit_ok(guard_keys_revoke(authority, "carol", &count, &err), &err);

    unit_ok(guard_keys_describe(authority, &json, &err), &err);
    description = json_loads(json, 0, NULL);
    const char *hex = guard_json_text(
        json_array_get(json_object_get(description, "certificates"), 1), "sha256");
    for (size_t i = 0; i < sizeof(binding); i++)
        assert_int_equal(sscanf(hex + 2 * i, "%2hhx", &binding[i]), 1);
    json_decref(description);
    free(json);
    unit_ok(guard_keyring_load(&ring, authority, &err), &err);
    unit_ok(guard_token_verify(ring, token, strlen(token), binding, "w", time(NULL), &grant, &err),
            &err);
    guard_keyring_unref(ring);
    for (size_t i = 0; i < UNIT_COUNT(changing); i++)
        was[i] = unit_read(made_in(authority, changing[i]), &was_bytes[i]);
    return 0;
}

static void restore(void)
{
    made_remove(made_path("new"));
    for (size_t i = 0; i < UNIT_COUNT(changing); i++) {
        const char *path = made_in(authority, changing[i]);

        unit_write(path, was[i], was_bytes[i]);
        assert_int_equal(chmod(path, 0600), 0);
    }
}

static int everything_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(changing); i++)
        free(was[i]);
    free(line);
    free(token);
    free((void *)(uintptr_t)authority);
    return 0;
}

/* Goal:   no allocation is taken for granted; what fails leaves neither memory nor files.
 * Method: each fails in turn alone, and each fifth with all that follow, until a run has none left;
 *         the number of entries beside the target and in the authority's folder is the same
 *         afterwards. */
static void every_use_survives_any_failing_allocation(void **state)
{
    int (*const uses[])(mcp_error *) = {
        use_init,   use_issue, use_token,  use_verify,       use_describe,
        use_invite, use_join,  use_revoke, use_revoke_token, use_join_again,
    };

    (void)state;
    for (size_t i = 0; i < 2 * UNIT_COUNT(uses); i++) {
        mcp_error err = { 0 };

        for (int n = 1, failed = 1; failed > 0; n += i % 2 == 0 ? 1 : 5) {
            unsigned beside, inside;
            int      rc;

            restore();
            beside = made_entries(made_root);
            inside = made_entries(authority);
            starve_arm(n, i % 2 != 0);
            rc = uses[i / 2](&err);
            failed = starve_disarm();
            starve_check(rc, &err);
            assert_true(rc == MCP_OK || failed > 0);
            assert_int_equal(ERR_peek_error(), 0);
            assert_int_equal(made_entries(made_root),
                             beside + (access(made_path("new"), F_OK) == 0));
            if (rc < 0)
                assert_int_equal(made_entries(authority), inside);
            assert_true(n < 2000);
        }
    }
}

/* Goal:   a text is read whole or not at all.  jansson by itself loses characters.
 * Method: strings of many lengths and escapes, against the same text parsed with memory enough.
 *         None has 14 or 30 characters: jansson 2.14 then loses the closing quote, and runs on. */
static void a_text_is_read_whole_or_not_at_all(void **state)
{
    static const char text[] =
        "{\"short\":\"a\",\"escapes\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\",\"unicode\":\"\\u0041\\u00e9"
        "\\u20AC\\ud83d\\ude00\xc3\xa9\xe2\x82\xac\",\"hex\":\"4512e8b023ad702eb858a785f02367f7\","
        "\"list\":[\"03447f6041760d60440ad52b133e13bef77a9be996d068eb92a3e01ed24f7326\",\"\",17,"
        "{\"a key of some length\":null}],\"numbers\":[-1,2.5,1790000000]}";
    json_t   *whole, *value;
    mcp_error err = { 0 };

    (void)state;
    unit_ok(guard_json_parse(&whole, text, strlen(text), "text", &err), &err);
    for (int n = 1, failed = 1; failed > 0; n++) {
        int rc;

        starve_arm(n, false);
        rc = guard_json_parse(&value, text, strlen(text), "text", &err);
        if (rc == MCP_OK && !json_equal(value, whole))
            fail_msg("with allocation %d failing another text is read", n);
        json_decref(value);
        failed = starve_disarm();
        starve_check(rc, &err);
        assert_true(rc == MCP_OK || failed > 0);
    }
    json_decref(whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_use_survives_any_failing_allocation),
        cmocka_unit_test(a_text_is_read_whole_or_not_at_all),
    };

    json_set_alloc_funcs(json_allocate, json_release);
    return cmocka_run_group_tests_name("guard/starved", tests, everything_begin, everything_end);
}
