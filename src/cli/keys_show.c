/* cli/keys_show.c - `mcp keys show`: what a keys folder holds.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/keys.h"
#include "cli/out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct show_args {
    struct cli_args args;
    const char     *keys;
    bool            json;
};

static const struct cli_option show_options[] = {
    CLI_KEYS_OPTION(struct show_args),
    { .name = "json",
      .type = CLI_FLAG,
      .at = offsetof(struct show_args, json),
      .help = "one JSON object" },
};

enum { DATE_BYTES = 40, LIST_BYTES = 2048 };

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "?";
}

/* "until 2027-11-23", "expired 2025-01-02", "revoked" */
static const char *state_of(char out[DATE_BYTES], const json_t *object, const char *key)
{
    time_t    expires = (time_t)json_integer_value(json_object_get(object, key));
    struct tm day = { 0 };
    char      date[16] = "?";

    if (gmtime_r(&expires, &day) != NULL)
        strftime(date, sizeof(date), "%Y-%m-%d", &day);
    if (json_is_true(json_object_get(object, "revoked")))
        snprintf(out, DATE_BYTES, "revoked");
    else
        snprintf(out, DATE_BYTES, "%s %s", expires <= time(NULL) ? "expired" : "until", date);
    return out;
}

/* Strings of an array with commas between, as many as fit. */
static const char *joined(char out[LIST_BYTES], const json_t *list)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(list) && used < LIST_BYTES; i++)
        used += (size_t)snprintf(out + used, LIST_BYTES - used, "%s%s", i > 0 ? ", " : "",
                                 json_string_value(json_array_get(list, i)));
    return out;
}

static void show_certificates(const json_t *object)
{
    const json_t *authority = json_object_get(object, "authority");
    const json_t *list = json_object_get(object, "certificates");
    char          date[DATE_BYTES], hosts[LIST_BYTES];

    if (json_is_object(authority))
        cli_row("authority", "%s, %s%s", text_of(authority, "name"),
                state_of(date, authority, "expires"),
                strcmp(text_of(authority, "key"), "ok") == 0 ? ", can certify others" : "");
    else
        cli_row("authority", "none: ca.pem is missing");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *c = json_array_get(list, i);
        const char   *key = text_of(c, "key");

        joined(hosts, json_object_get(c, "hosts"));
        cli_row(text_of(c, "role"), "%s, %s%s%s%s%s", text_of(c, "name"),
                state_of(date, c, "expires"), hosts[0] != '\0' ? ", for " : "", hosts,
                strcmp(key, "ok") == 0 ? "" : "; its key: ", strcmp(key, "ok") == 0 ? "" : key);
    }
}

static void show_tokens(const json_t *object)
{
    const json_t *keys = json_object_get(object, "token_keys");
    const json_t *token = json_object_get(object, "token");
    char          date[DATE_BYTES];

    for (size_t i = 0; i < json_array_size(keys); i++) {
        const json_t *key = json_array_get(keys, i);

        cli_row("token key", "%s, %s, %.16s...", text_of(key, "file"), text_of(key, "algorithm"),
                text_of(key, "id"));
    }
    if (json_is_true(json_object_get(object, "signs_tokens")))
        cli_row("", "token.key is here: 'mcp keys token' signs");
    if (json_is_object(token))
        cli_row("token", "of %s, %s, %s", text_of(token, "sub"), state_of(date, token, "exp"),
                text_of(token, "scope"));
}

static void show_lists(const json_t *object)
{
    const json_t *issued = json_object_get(object, "issued");
    const json_t *revoked = json_object_get(object, "revoked");
    char          date[DATE_BYTES], workers[LIST_BYTES];

    if (json_array_size(json_object_get(object, "workers")) > 0)
        cli_row("workers", "%s", joined(workers, json_object_get(object, "workers")));
    for (size_t i = 0; i < json_array_size(issued); i++) {
        const json_t *c = json_array_get(issued, i);

        cli_row(i == 0 ? "issued" : "", "%s %s, %s, serial %s", text_of(c, "role"),
                text_of(c, "name"), state_of(date, c, "expires"), text_of(c, "serial"));
    }
    cli_row("revoked", "%zu certificates, %zu tokens",
            json_array_size(json_object_get(revoked, "certificates")),
            json_array_size(json_object_get(revoked, "tokens")));
}

static int show_run(struct cli_args *args)
{
    const struct show_args *show = (const struct show_args *)args;
    char                    folder[MCP_KEYS_TEXT_BYTES], *text = NULL;
    json_t                 *object;
    mcp_error               err = { 0 };

    if (cli_keys_folder(folder, show->keys) < 0)
        return CLI_FAILED;
    if (mcp_keys_describe(folder, &text, &err) < 0)
        return cli_fail("%s", err.text);
    object = json_loads(text, 0, NULL);
    free(text);
    if (object == NULL)
        return cli_fail("out of memory");
    if (show->json) {
        json_object_set_new(object, "folder", cli_json_string(folder));
        return cli_print_json(object);
    }
    cli_row("folder", "%s", folder);
    show_certificates(object);
    show_tokens(object);
    show_lists(object);
    json_decref(object);
    return CLI_OK;
}

const struct cli_verb cli_verb_keys_show = {
    .name = "keys show",
    .summary = "what a keys folder holds: names, expiry, token keys, revocations",
    .usage = "[--keys DIR] [--json]",
    .groups = { { "Options", show_options, sizeof(show_options) / sizeof(show_options[0]), 0 } },
    .args_bytes = sizeof(struct show_args),
    .run = show_run,
};
