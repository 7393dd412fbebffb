/* cli/keys_token.c - `mcp keys token`: what a client may do, signed.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/keys.h"
#include "cli/out.h"

#include <stdio.h>
#include <string.h>

struct token_args {
    struct cli_args args;
    const char     *keys;
    const char     *subject;
    const char     *scope;
    const char     *fingerprint;
    const char     *layers;
    int64_t         rate;
    int64_t         priority;
    const char     *expires;
    const char     *audience;
    const char     *certificate;
    bool            json;
};

static const struct cli_word priority_words[] = {
    { "batch", 0 }, { "normal", 1 }, { "realtime", 2 }, { NULL, 0 }
};

#define AT(member) .at = offsetof(struct token_args, member)

static const struct cli_option token_options[] = {
    CLI_KEYS_OPTION(struct token_args),
    { .name = "subject",
      .type = CLI_TEXT,
      AT(subject),
      .value = "NAME",
      .help = "whom it is for: shown in logs, counted for rates and reservations" },
    { .name = "scope",
      .type = CLI_TEXT,
      AT(scope),
      .value = "WORDS",
      .fallback = "infer generate",
      .help = "what it allows: infer, generate, state, admin, with blanks between" },
    { .name = "fingerprint",
      .type = CLI_TEXT,
      AT(fingerprint),
      .value = "HEX",
      .help = "only this model, by its fingerprint as 'mcp show' prints it; default: any" },
    { .name = "layers",
      .type = CLI_TEXT,
      AT(layers),
      .value = "FIRST-LAST",
      .help = "only layers [FIRST, LAST); default: all" },
    { .name = "rate",
      .type = CLI_INT,
      AT(rate),
      .value = "N",
      .fallback = "0",
      .min = 0,
      .max = UINT32_MAX,
      .help = "tokens a minute; 0 = no limit of its own" },
    { .name = "priority",
      .type = CLI_WORD,
      AT(priority),
      .value = "",
      .fallback = "normal",
      .words = priority_words,
      .help = "highest class it may ask for" },
    { .name = "expires",
      .type = CLI_TEXT,
      AT(expires),
      .value = "TIME",
      .fallback = "24h",
      .help = "how long it lives, such as 90s, 15m, 24h, 30d; at most 30d" },
    { .name = "audience",
      .type = CLI_TEXT,
      AT(audience),
      .value = "NAME",
      .help = "only for the worker of this name; default: any of this authority" },
    { .name = "certificate",
      .type = CLI_TEXT,
      AT(certificate),
      .value = "FILE",
      .help = "client certificate it is bound to; default: client.pem in the keys folder" },
    { .name = "json", .type = CLI_FLAG, AT(json), .help = "one JSON object" },
};

#undef AT

/* Digits that end at *end; false when there are none or the number is above `max`. */
static bool read_digits(const char *text, const char **end, int64_t max, int64_t *out)
{
    int64_t value = 0;

    *end = text;
    for (; **end >= '0' && **end <= '9'; ++*end) {
        value = value * 10 + (**end - '0');
        if (value > max)
            return false;
    }
    *out = value;
    return *end != text;
}

/* "90s", "15m", "24h", "30d" */
static int read_time(const char *text, int64_t *seconds)
{
    static const struct {
        char    unit;
        int64_t seconds;
    } units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
    const char *end;
    int64_t     count;

    if (read_digits(text, &end, INT32_MAX, &count) && end[0] != '\0' && end[1] == '\0')
        for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
            if (units[i].unit == *end) {
                *seconds = count * units[i].seconds;
                return 0;
            }
    return cli_fail("--expires: '%.80s' is not a time such as 90s, 15m, 24h, 30d", text), -1;
}

static int read_layers(const char *text, uint32_t *first, uint32_t *last)
{
    const char *end;
    int64_t     from, to;

    if (read_digits(text, &end, UINT32_MAX, &from) && *end == '-' &&
        read_digits(end + 1, &end, UINT32_MAX, &to) && *end == '\0' && from < to) {
        *first = (uint32_t)from;
        *last = (uint32_t)to;
        return 0;
    }
    return cli_fail("--layers: '%.80s' is not FIRST-LAST such as 4-26, for layers [4, 26)", text),
           -1;
}

static int token_run(struct cli_args *args)
{
    const struct token_args *given = (const struct token_args *)args;
    char                     folder[MCP_KEYS_TEXT_BYTES], text[MCP_KEYS_TEXT_BYTES];
    mcp_token_opts           opts = MCP_TOKEN_OPTS_INIT;
    mcp_error                err = { 0 };

    if (given->subject == NULL)
        return cli_fail("no subject: say with --subject NAME whom the token is for");
    if (cli_keys_folder(folder, given->keys) < 0 ||
        read_time(given->expires, &opts.expires_s) < 0 ||
        (given->layers != NULL && read_layers(given->layers, &opts.first, &opts.last) < 0))
        return CLI_FAILED;
    opts.subject = given->subject;
    opts.scope = given->scope;
    opts.model = given->fingerprint;
    opts.tokens_per_minute = (uint32_t)given->rate;
    opts.priority = priority_words[given->priority].text;
    opts.audience = given->audience;
    opts.certificate = given->certificate;
    if (mcp_keys_token(folder, &opts, text, sizeof(text), &err) < 0)
        return cli_fail("%s", err.text);
    if (given->json)
        return cli_print_json(json_pack("{s:s, s:o, s:s, s:s, s:I}", "token", text, "subject",
                                        cli_json_string(opts.subject), "scope", opts.scope,
                                        "priority", opts.priority, "expires_s",
                                        (json_int_t)opts.expires_s));
    cli_printf("%s\n", text);
    return CLI_OK;
}

const struct cli_verb cli_verb_keys_token = {
    .name = "keys token",
    .summary = "sign a token: what a client may do, and for how long",
    .usage = "--subject NAME [options]",
    .notes = "The token is worth nothing without the key of the certificate that it is bound to.\n"
             "Put it into the client's keys folder as client.token, or give it with --token.",
    .groups = { { "Options", token_options, sizeof(token_options) / sizeof(token_options[0]), 0 } },
    .args_bytes = sizeof(struct token_args),
    .run = token_run,
};
