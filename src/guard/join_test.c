/* guard/join_test.c - the one line that carries a client's folder.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/authority.h"
#include "guard/endpoint.h"
#include "guard/json.h"
#include "guard/keys.h"
#include "guard/made_test.h"

#include <time.h>

static char   *folder, *line;
static json_t *content; /* of the line */

static int everything_begin(void **state)
{
    uint8_t   bytes[16384];
    mcp_error err;

    (void)state;
    folder = strdup(made_path("authority"));
    unit_ok(guard_keys_init(folder, NULL, &err), &err);
    unit_ok(guard_keys_invite(folder, "bob", "gpu.lan:7070", &line, &err), &err);
    assert_memory_equal(line, "mcp1:", 5);
    assert_true(guard_base64_decode(bytes, line + 5, strlen(line) - 5));
    content = json_loadb((char *)bytes, guard_base64_bytes(strlen(line) - 5), 0, NULL);
    assert_non_null(content);
    return 0;
}

static int everything_end(void **state)
{
    (void)state;
    json_decref(content);
    free(line);
    free(folder);
    return 0;
}

/* A line of this text, or of the good content with one member changed (NULL removes it). */
static char *line_of(const char *text)
{
    char *made = malloc(6 + guard_base64_chars(strlen(text)));

    assert_non_null(made);
    strcpy(made, "mcp1:");
    guard_base64_encode(made + 5, (const uint8_t *)text, strlen(text));
    return made;
}

static char *line_with(const char *key, const char *value)
{
    json_t *other = json_deep_copy(content);
    char   *text, *made;

    if (value != NULL)
        json_object_set_new(other, key, json_string(value));
    else
        json_object_del(other, key);
    text = json_dumps(other, JSON_COMPACT);
    made = line_of(text);
    free(text);
    json_decref(other);
    return made;
}

/* Refused by a sentence that quotes no secret, and nothing is written. */
static void refused(const char *text, const char *target, int code, const char *about)
{
    const char *key = guard_json_text(content, "key");
    char        endpoint[128] = "untouched", piece[17];
    mcp_error   err;

    unit_refused(guard_keys_join(text, target, endpoint, sizeof(endpoint), &err), code, &err,
                 about);
    assert_string_equal(endpoint, "untouched");
    snprintf(piece, sizeof(piece), "%s", strchr(key, '\n') + 40);
    assert_null(strstr(err.text, piece));
    assert_int_equal(ERR_peek_error(), 0);
}

static void refused_free(char *text, int code, const char *about)
{
    const char *target = made_fresh("nowhere");

    refused(text, target, code, about);
    assert_int_equal(access(target, F_OK), -1);
    free(text);
}

static void joined(const char *text, const char *target)
{
    char      endpoint[128];
    mcp_error err;

    unit_ok(guard_keys_join(text, target, endpoint, sizeof(endpoint), &err), &err);
    assert_true(guard_is_endpoint(endpoint));
}

static void file_is(const char *path, const char *file, const char *text)
{
    size_t   bytes;
    uint8_t *data = unit_read(made_in(path, file), &bytes);

    data[bytes] = '\0';
    assert_string_equal((char *)data, text);
    free(data);
}

/* Goal:   what join writes is what invite carried, with safe permissions, and works.
 * Method: blanks around the line, as pasting leaves them; the files' bytes and modes. */
static void join_writes_what_invite_carried(void **state)
{
    static const char *const files[] = { "ca.pem", "client.pem", "client.key", "workers" };
    const char              *target = made_fresh("bob");
    char                    *pasted, *json;
    struct stat              st;
    mcp_error                err;

    (void)state;
    assert_true(asprintf(&pasted, " \t%s\r\n", line) > 0);
    joined(pasted, target);
    free(pasted);
    file_is(target, "ca.pem", guard_json_text(content, "ca"));
    file_is(target, "client.pem", guard_json_text(content, "certificate"));
    file_is(target, "client.key", guard_json_text(content, "key"));
    file_is(target, "workers", "gpu.lan:7070\n");
    assert_int_equal(made_entries(target), 4);
    assert_int_equal(lstat(target, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    for (size_t i = 0; i < UNIT_COUNT(files); i++) {
        assert_int_equal(lstat(made_in(target, files[i]), &st), 0);
        assert_int_equal(st.st_mode & 07777, i == 2 ? 0600 : 0644);
    }
    unit_ok(guard_keys_describe(target, &json, &err), &err);
    assert_non_null(strstr(json, "\"bob\""));
    free(json);
}

/* Goal:   a second line of the same authority renews the certificate and adds its worker; the
 *         old token goes, since it belonged to the old certificate; the same line again changes
 *         nothing. */
static void joining_again_renews_and_adds(void **state)
{
    const char *target = made_fresh("bob");
    char       *second;
    mcp_error   err;

    (void)state;
    joined(line, target);
    made_file(target, "client.token", 0600, "a.b.c\n");
    joined(line, target);
    file_is(target, "client.token", "a.b.c\n");
    file_is(target, "workers", "gpu.lan:7070\n");

    unit_ok(guard_keys_invite(folder, "bob", "[2001:db8::1]:7071", &second, &err), &err);
    joined(second, target);
    file_is(target, "workers", "gpu.lan:7070\n[2001:db8::1]:7071\n");
    assert_int_equal(access(made_in(target, "client.token"), F_OK), -1);
    assert_int_equal(made_entries(target), 5); /* and the lock */
    free(second);
}

/* Goal:   a token in the line is stored for the agent. */
static void a_token_in_the_line_is_stored(void **state)
{
    const char *target = made_fresh("bob");
    char       *with = line_with("token", "ab-_.cd.ef");
    struct stat st;

    (void)state;
    joined(with, target);
    file_is(target, "client.token", "ab-_.cd.ef\n");
    assert_int_equal(lstat(made_in(target, "client.token"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    free(with);
    with = line_with("token", "gh.ij.kl");
    joined(with, target);
    file_is(target, "client.token", "gh.ij.kl\n");
    free(with);
    refused_free(line_with("token", "a\nb"), MCP_EFORMAT, "token is none");
    refused_free(line_with("token", ""), MCP_EFORMAT, "token is none");
}

/* Goal:   one folder, one authority: nothing is mixed, nothing of the old one is lost. */
static void another_authoritys_folder_is_left_alone(void **state)
{
    const char *other = made_fresh("other");
    uint8_t    *before;
    size_t      bytes;
    mcp_error   err;

    (void)state;
    unit_ok(guard_keys_init(other, NULL, &err), &err);
    before = unit_read(made_in(other, "client.key"), &bytes);
    refused(line, other, MCP_EINVAL, "keys of another authority");
    before[bytes] = '\0';
    file_is(other, "client.key", (char *)before);
    free(before);

    assert_int_equal(mkdir(made_fresh("stuff"), 0700), 0);
    made_file(made_path("stuff"), "notes.txt", 0600, "");
    refused(line, made_path("stuff"), MCP_EINVAL, "is not empty");
    assert_int_equal(mkdir(made_fresh("open"), 0755), 0);
    assert_int_equal(chmod(made_path("open"), 0755), 0);
    refused(line, made_path("open"), MCP_EIO, "chmod 700");
}

/* Goal:   a line that was cut, changed or never one is refused whole. */
static void damaged_lines_are_refused(void **state)
{
    char *text;

    (void)state;
    refused_free(strdup(""), MCP_EFORMAT, "mcp keys invite");
    refused_free(strdup("hello"), MCP_EFORMAT, "must begin with \"mcp1:\"");
    refused_free(strdup("mcp2:AAAA"), MCP_ENOTSUP, "mcp2");
    refused_free(strdup("mcp1:"), MCP_EFORMAT, "is not JSON");
    refused_free(line_of("[]"), MCP_EFORMAT, "not a JSON object");
    refused_free(line_of("{}"), MCP_EFORMAT, "endpoint");
    refused_free(line_of("{\"a\":1,\"a\":2}"), MCP_EFORMAT, "a member twice");
    for (size_t keep = strlen(line) - 1; keep > 5; keep -= keep > 40 ? 37 : 1) {
        char       *cut = strndup(line, keep);
        const char *target = made_fresh("nowhere");
        char        endpoint[128];

        assert_int_equal(guard_keys_join(cut, target, endpoint, sizeof(endpoint), NULL),
                         MCP_EFORMAT);
        free(cut);
    }
    assert_true(asprintf(&text, "%.*s\n%s", 80, line, line + 80) > 0); /* a wrapped paste */
    refused_free(text, MCP_EFORMAT, "paste it whole");
    assert_true(asprintf(&text, "%s=", line) > 0);
    refused_free(text, MCP_EFORMAT, "paste it whole");
    text = malloc(20001);
    memset(text, 'A', 20000);
    memcpy(text, "mcp1:", 5);
    text[20000] = '\0';
    refused_free(text, MCP_EFORMAT, "20000 characters, at most 16384");
}

/* Goal:   the parts of a line must belong together and to a client.
 * Method: each part exchanged for a well-formed one that is another's. */
static void parts_that_do_not_belong_together_are_refused(void **state)
{
    const char *other = made_fresh("other");
    mcp_error   err;

    (void)state;
    unit_ok(guard_keys_init(other, NULL, &err), &err);
    static const struct {
        const char *key, *from, *file, *about;
    } rows[] = {
        { "ca", "other", "ca.pem", "is not of its authority" },
        { "ca", "authority", "client.pem", "ca is no authority's" },
        { "ca", "authority", "token.pub", "ca holds no certificate" },
        { "certificate", "authority", "client.pem", "key does not belong to its certificate" },
        { "certificate", "other", "client.pem", "is not of its authority" },
        { "certificate", "authority", "client.key", "certificate holds no certificate" },
        { "key", "authority", "client.key", "key does not belong to its certificate" },
        { "key", "authority", "token.key", "key does not belong to its certificate" },
        { "key", "authority", "token.pub", "key holds no private key" },
    };
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        size_t   bytes;
        uint8_t *pem = unit_read(made_in(made_path(rows[i].from), rows[i].file), &bytes);

        pem[bytes] = '\0';
        refused_free(line_with(rows[i].key, (char *)pem), MCP_EFORMAT, rows[i].about);
        free(pem);
    }
    refused_free(line_with("ca", NULL), MCP_EFORMAT, "holds no ca");
    refused_free(line_with("certificate", NULL), MCP_EFORMAT, "holds no certificate");
    refused_free(line_with("key", NULL), MCP_EFORMAT, "holds no key");
    refused_free(line_with("endpoint", NULL), MCP_EFORMAT, "endpoint is not HOST:PORT");
    refused_free(line_with("endpoint", "a b:1"), MCP_EFORMAT, "endpoint is not HOST:PORT");
    refused_free(line_with("endpoint", "a:1\nb:2"), MCP_EFORMAT, "endpoint is not HOST:PORT");
}

/* Goal:   a worker's or an admin's keys do not travel as a client's; an expired certificate is
 *         said to be.
 * Method: both made by the authority itself. */
static void certificates_of_other_roles_and_times_are_refused(void **state)
{
    struct guard_authority authority;
    mcp_error              err;

    (void)state;
    unit_ok(guard_authority_open(&authority, folder, &err), &err);
    for (int i = 0; i < 2; i++) {
        struct guard_pair pair;
        json_t           *other = json_deep_copy(content);
        char             *text;

        unit_ok(guard_pair_make(&pair, i == 0 ? MCP_ROLE_ADMIN : MCP_ROLE_CLIENT, "x", NULL,
                                &authority.pair, i == 0 ? time(NULL) : time(NULL) - 400 * 86400,
                                &err),
                &err);
        json_object_set_new(other, "certificate", json_string(pair.certificate_pem.data));
        json_object_set_new(other, "key", json_string(pair.key_pem.data));
        text = json_dumps(other, JSON_COMPACT);
        refused_free(line_of(text), i == 0 ? MCP_EFORMAT : MCP_EINVAL,
                     i == 0 ? "is for another role: admin" : "has expired");
        free(text);
        json_decref(other);
        guard_pair_fini(&pair);
    }
    guard_authority_close(&authority);
}

/* Goal:   what else goes into a file of the folder does not follow from the line.
 * Method: text around the PEM blocks of the line. */
static void nothing_but_the_keys_reaches_the_files(void **state)
{
    const char *target = made_fresh("bob");
    char       *text, *with;

    (void)state;
    assert_true(asprintf(&text, "evil\n%sevil\n", guard_json_text(content, "ca")) > 0);
    with = line_with("ca", text);
    joined(with, target);
    file_is(target, "ca.pem", guard_json_text(content, "ca"));
    free(with);
    free(text);
}

/* Goal:   a small buffer, a wrong name or address, and a folder without the authority's key. */
static void wrong_requests_are_refused(void **state)
{
    char      endpoint[13] = "untouched", *made;
    mcp_error err;

    (void)state;
    unit_refused(guard_keys_join(line, made_fresh("bob"), endpoint, 12, &err), MCP_ERANGE, &err,
                 "has 12 bytes, room is for 11");
    assert_int_equal(access(made_path("bob"), F_OK), -1);
    joined(line, made_path("bob"));
    unit_refused(guard_keys_invite(made_path("bob"), "eve", "a:1", &made, &err), MCP_ENOTFOUND,
                 &err, "has no ca.key");
    unit_refused(guard_keys_invite(folder, "a b", "a:1", &made, &err), MCP_EINVAL, &err, "'a b'");
    unit_refused(guard_keys_invite(folder, "a", "a", &made, &err), MCP_EINVAL, &err, "HOST:PORT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(join_writes_what_invite_carried),
        cmocka_unit_test(joining_again_renews_and_adds),
        cmocka_unit_test(a_token_in_the_line_is_stored),
        cmocka_unit_test(another_authoritys_folder_is_left_alone),
        cmocka_unit_test(damaged_lines_are_refused),
        cmocka_unit_test(parts_that_do_not_belong_together_are_refused),
        cmocka_unit_test(certificates_of_other_roles_and_times_are_refused),
        cmocka_unit_test(nothing_but_the_keys_reaches_the_files),
        cmocka_unit_test(wrong_requests_are_refused),
    };

    return cmocka_run_group_tests_name("guard/join", tests, everything_begin, everything_end);
}
