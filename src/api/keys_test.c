/* api/keys_test.c - the door of mcp/keys.h: NULL, old and new option structs, the folder's name.
 *
 * SPDX-License-Identifier: MIT */
#include <mcp/keys.h>

#include "base/unit_test.h"

/* The call answers MCP_EINVAL with a sentence, and the same without a place for one. */
#define INVALID(call_with_err)                                                    \
    do {                                                                          \
        mcp_error own = { 0 }, *err = &own;                                       \
        int       rc = (call_with_err);                                           \
        if (rc != MCP_EINVAL || own.code != rc || own.text[0] == '\0')            \
            fail_msg("%s: %s (%s)", #call_with_err, mcp_code_name(rc), own.text); \
        err = NULL;                                                               \
        assert_int_equal((call_with_err), MCP_EINVAL);                            \
    } while (0)

/* Goal:   NULL for what is required is MCP_EINVAL, never a crash; an out parameter is NULL then.
 * Method: every function, each argument in turn. */
static void null_is_refused(void **state)
{
    mcp_token_opts opts = MCP_TOKEN_OPTS_INIT;
    char           text[16] = "", *out = text;

    (void)state;
    opts.subject = "a";
    INVALID(mcp_keys_folder(NULL, 10, err));
    INVALID(mcp_keys_folder(text, 0, err));
    INVALID(mcp_keys_init(NULL, NULL, err));
    INVALID(mcp_keys_issue(NULL, MCP_ROLE_CLIENT, "a", NULL, "t", err));
    INVALID(mcp_keys_issue("f", MCP_ROLE_CLIENT, NULL, NULL, "t", err));
    INVALID(mcp_keys_issue("f", MCP_ROLE_CLIENT, "a", NULL, NULL, err));
    INVALID(mcp_keys_issue("f", (mcp_role)3, "a", NULL, "t", err));
    INVALID(mcp_keys_issue("f", (mcp_role)-1, "a", NULL, "t", err));
    INVALID(mcp_keys_token(NULL, &opts, text, sizeof(text), err));
    INVALID(mcp_keys_token("f", NULL, text, sizeof(text), err));
    INVALID(mcp_keys_token("f", &opts, NULL, sizeof(text), err));
    INVALID(mcp_keys_token("f", &opts, text, 0, err));
    opts.subject = NULL;
    INVALID(mcp_keys_token("f", &opts, text, sizeof(text), err));
    INVALID(mcp_keys_revoke(NULL, "a", NULL, err));
    INVALID(mcp_keys_revoke("f", NULL, NULL, err));
    INVALID(mcp_keys_describe("f", NULL, err));
    INVALID(mcp_keys_describe(NULL, &out, err));
    assert_null(out);
    INVALID(mcp_keys_invite("f", "a", "a:1", NULL, err));
    out = text;
    INVALID(mcp_keys_invite(NULL, "a", "a:1", &out, err));
    assert_null(out);
    INVALID(mcp_keys_invite("f", NULL, "a:1", &out, err));
    INVALID(mcp_keys_invite("f", "a", NULL, &out, err));
    INVALID(mcp_keys_join(NULL, "t", text, sizeof(text), err));
    INVALID(mcp_keys_join("mcp1:", NULL, text, sizeof(text), err));
    INVALID(mcp_keys_join("mcp1:", "t", NULL, sizeof(text), err));
    INVALID(mcp_keys_join("mcp1:", "t", text, 0, err));
}

/* Goal:   an older caller's options mean what they meant; a newer one's are refused.
 * Method: a struct that ends behind `subject`, with garbage behind its end; one that is larger.
 *         Past the options the folder is what fails. */
static void options_of_other_versions_are_understood_or_refused(void **state)
{
    const char    *none = unit_path("none");
    mcp_token_opts opts;
    char           text[MCP_KEYS_TEXT_BYTES];
    mcp_error      err;

    (void)state;
    memset(&opts, 0x5A, sizeof(opts));
    opts.struct_size = offsetof(mcp_token_opts, model);
    opts.subject = "alice";
    unit_refused(mcp_keys_token(none, &opts, text, sizeof(text), &err), MCP_ENOTFOUND, &err,
                 "there is no keys folder");
    opts.struct_size = sizeof(opts) + 8;
    unit_refused(mcp_keys_token(none, &opts, text, sizeof(text), &err), MCP_EINVAL, &err,
                 "mcp_token_opts.struct_size");
    opts.struct_size = 0;
    unit_refused(mcp_keys_token(none, &opts, text, sizeof(text), &err), MCP_EINVAL, &err,
                 "mcp_token_opts.struct_size");
}

/* Goal:   the folder is MCP_KEYS, else below XDG_CONFIG_HOME, else below HOME; empty is not
 *         set, and a relative XDG_CONFIG_HOME is none.
 * Method: every combination that matters, and buffers one byte too small. */
static void the_folders_name_follows_the_environment(void **state)
{
    static const struct {
        const char *keys, *config, *home, *path;
    } rows[] = {
        { "/k", "/c", "/h", "/k" },
        { "rel", NULL, NULL, "rel" },
        { "", "/c", "/h", "/c/mcp/keys" },
        { NULL, "/c", "/h", "/c/mcp/keys" },
        { NULL, "c", "/h", "/h/.config/mcp/keys" },
        { NULL, "", "/h", "/h/.config/mcp/keys" },
        { NULL, NULL, "/h", "/h/.config/mcp/keys" },
        { NULL, NULL, "", NULL },
        { NULL, NULL, NULL, NULL },
    };
    char      path[256];
    mcp_error err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const char *const names[] = { "MCP_KEYS", "XDG_CONFIG_HOME", "HOME" };
        const char *const values[] = { rows[i].keys, rows[i].config, rows[i].home };

        for (size_t v = 0; v < 3; v++)
            values[v] != NULL ? setenv(names[v], values[v], 1) : unsetenv(names[v]);
        if (rows[i].path == NULL) {
            unit_refused(mcp_keys_folder(path, sizeof(path), &err), MCP_ENOTFOUND, &err,
                         "none of MCP_KEYS, XDG_CONFIG_HOME and HOME");
            continue;
        }
        unit_ok(mcp_keys_folder(path, sizeof(path), &err), &err);
        assert_string_equal(path, rows[i].path);
        unit_ok(mcp_keys_folder(path, strlen(rows[i].path) + 1, &err), &err);
        unit_refused(mcp_keys_folder(path, strlen(rows[i].path), &err), MCP_ERANGE, &err,
                     "room is for");
    }
}

/* Goal:   the functions do through the door what they do behind it.
 * Method: one identity's way from init to revocation. */
static void an_identity_goes_its_way(void **state)
{
    const char    *folder = unit_path("keys");
    mcp_token_opts opts = MCP_TOKEN_OPTS_INIT;
    char           text[MCP_KEYS_TEXT_BYTES], endpoint[64], *line, *json;
    uint32_t       count = 0;
    mcp_error      err;

    (void)state;
    unit_ok(mcp_keys_init(folder, "a.lan", &err), &err);
    opts.subject = "alice";
    unit_ok(mcp_keys_token(folder, &opts, text, sizeof(text), &err), &err);
    unit_ok(mcp_keys_issue(folder, MCP_ROLE_WORKER, "w", NULL, unit_path("worker"), &err), &err);
    unit_ok(mcp_keys_invite(folder, "bob", "a.lan:1", &line, &err), &err);
    unit_ok(mcp_keys_join(line, unit_path("bob"), endpoint, sizeof(endpoint), &err), &err);
    assert_string_equal(endpoint, "a.lan:1");
    unit_ok(mcp_keys_revoke(folder, "bob", &count, &err), &err);
    assert_int_equal(count, 1);
    unit_ok(mcp_keys_revoke(folder, text, NULL, &err), &err);
    unit_ok(mcp_keys_describe(folder, &json, &err), &err);
    assert_non_null(strstr(json, "\"bob\""));
    free(json);
    free(line);
}

/* unit_test.h removes files and empty folders. */
static int remove_folders(void **state)
{
    static const char *const folders[] = { "keys", "worker", "bob" };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(folders); i++) {
        char           path[600];
        DIR           *dir = opendir(unit_path(folders[i]));
        struct dirent *entry;

        while (dir != NULL && (entry = readdir(dir)) != NULL) {
            snprintf(path, sizeof(path), "%.200s/%.200s", unit_path(folders[i]), entry->d_name);
            if (entry->d_name[0] != '.')
                remove(path);
        }
        if (dir != NULL)
            closedir(dir);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_is_refused),
        cmocka_unit_test(options_of_other_versions_are_understood_or_refused),
        cmocka_unit_test(the_folders_name_follows_the_environment),
        cmocka_unit_test(an_identity_goes_its_way),
    };

    return cmocka_run_group_tests_name("api/keys", tests, NULL, remove_folders);
}
