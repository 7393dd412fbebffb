/* cli/keys.c - `mcp keys`: an authority, whom it certifies, and whom no longer.
 *
 * `token` and `show` have files of their own.  A line or token goes to standard output alone,
 * so that it can be piped; what to do next is printed only where nothing else is.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/keys.h"

#include "cli/cli.h"
#include "cli/out.h"

#include <stdio.h>
#include <stdlib.h>

int cli_keys_folder(char path[MCP_KEYS_TEXT_BYTES], const char *given)
{
    mcp_error err = { 0 };
    int       bytes;

    if (given == NULL || given[0] == '\0') {
        if (mcp_keys_folder(path, MCP_KEYS_TEXT_BYTES, &err) < 0)
            return cli_fail("%s", err.text), -1;
        return 0;
    }
    bytes = snprintf(path, MCP_KEYS_TEXT_BYTES, "%s", given);
    if (bytes >= MCP_KEYS_TEXT_BYTES)
        return cli_fail("--keys: the path has %d bytes, at most %d", bytes,
                        MCP_KEYS_TEXT_BYTES - 1),
               -1;
    return 0;
}

/* ---- init --------------------------------------------------------------------------- */

struct init_args {
    struct cli_args args;
    const char     *keys;
    const char     *hosts;
};

static const struct cli_option init_options[] = {
    CLI_KEYS_OPTION(struct init_args),
    { .name = "hosts",
      .type = CLI_TEXT,
      .at = offsetof(struct init_args, hosts),
      .value = "LIST",
      .help = "names and addresses by which a worker with these keys is reached, with commas "
              "between; localhost and this machine's name are always among them" },
};

static int init_run(struct cli_args *args)
{
    const struct init_args *init = (const struct init_args *)args;
    char                    folder[MCP_KEYS_TEXT_BYTES];
    mcp_error               err = { 0 };

    if (cli_keys_folder(folder, init->keys) < 0)
        return CLI_FAILED;
    if (mcp_keys_init(folder, init->hosts, &err) < 0)
        return cli_fail("%s", err.text);
    cli_printf(
        "keys are in %s; ca.key and token.key make others: keep the folder to yourself\n"
        "next: mcp worker -m FILE --listen HOST:PORT        a worker on this machine\n"
        "      mcp keys issue worker NAME                   keys for one elsewhere\n"
        "      mcp keys invite NAME --endpoint HOST:PORT    a line for a user's 'mcp join'\n",
        folder);
    return CLI_OK;
}

static const struct cli_verb verb_init = {
    .name = "keys init",
    .summary = "make an authority, its certificates and a token key in a new folder",
    .usage = "[--keys DIR] [--hosts LIST]",
    .groups = { { "Options", init_options, sizeof(init_options) / sizeof(init_options[0]), 0 } },
    .args_bytes = sizeof(struct init_args),
    .run = init_run,
};

/* ---- issue -------------------------------------------------------------------------- */

struct issue_args {
    struct cli_args args;
    int64_t         role;
    const char     *name;
    const char     *keys;
    const char     *hosts;
    const char     *output;
};

static const struct cli_word role_words[] = { { "worker", MCP_ROLE_WORKER },
                                              { "client", MCP_ROLE_CLIENT },
                                              { "admin", MCP_ROLE_ADMIN },
                                              { NULL, 0 } };

static const struct cli_option issue_options[] = {
    { .name = "role",
      .type = CLI_WORD,
      .bare = true,
      .at = offsetof(struct issue_args, role),
      .value = "",
      .words = role_words,
      .help = "what the certificate is good for" },
    { .name = "name",
      .type = CLI_TEXT,
      .bare = true,
      .at = offsetof(struct issue_args, name),
      .value = "NAME",
      .help = "1 to 64 of a-z A-Z 0-9 . _ -; a name may be certified again, to renew it" },
    CLI_KEYS_OPTION(struct issue_args),
    { .name = "hosts",
      .type = CLI_TEXT,
      .at = offsetof(struct issue_args, hosts),
      .value = "LIST",
      .help = "names and addresses of the worker; default: NAME" },
    { .name = "output",
      .brief = "o",
      .type = CLI_TEXT,
      .at = offsetof(struct issue_args, output),
      .value = "DIR",
      .help = "new folder for what the other machine needs; default: NAME-keys" },
};

static int issue_run(struct cli_args *args)
{
    const struct issue_args *issue = (const struct issue_args *)args;
    char                     folder[MCP_KEYS_TEXT_BYTES], own[128];
    const char              *target = issue->output;
    mcp_error                err = { 0 };

    if (!cli_args_given(args, "role") || issue->name == NULL)
        return cli_fail("say for whom; usage: mcp keys issue %s", args->verb->usage);
    if (cli_keys_folder(folder, issue->keys) < 0)
        return CLI_FAILED;
    if (target == NULL) {
        snprintf(own, sizeof(own), "%.100s-keys", issue->name);
        target = own;
    }
    if (mcp_keys_issue(folder, (mcp_role)issue->role, issue->name, issue->hosts, target, &err) < 0)
        return cli_fail("%s", err.text);
    cli_printf("keys of %s %s are in %s: carry the folder to that machine (scp -rp), and name it "
               "there with --keys\n",
               role_words[issue->role].text, issue->name, target);
    return CLI_OK;
}

static const struct cli_verb verb_issue = {
    .name = "keys issue",
    .summary = "a certificate for another machine or person",
    .usage = "worker|client|admin NAME [--hosts LIST] [-o DIR] [--keys DIR]",
    .groups = { { "Options", issue_options, sizeof(issue_options) / sizeof(issue_options[0]), 0 } },
    .args_bytes = sizeof(struct issue_args),
    .run = issue_run,
};

/* ---- revoke ------------------------------------------------------------------------- */

struct revoke_args {
    struct cli_args args;
    const char     *what;
    const char     *keys;
};

static const struct cli_option revoke_options[] = {
    { .name = "what",
      .type = CLI_TEXT,
      .bare = true,
      .at = offsetof(struct revoke_args, what),
      .value = "WHAT",
      .help = "a certificate's file; a token, its file or its id; or a name: all certificates "
              "issued to it" },
    CLI_KEYS_OPTION(struct revoke_args),
};

static int revoke_run(struct cli_args *args)
{
    const struct revoke_args *revoke = (const struct revoke_args *)args;
    char                      folder[MCP_KEYS_TEXT_BYTES];
    uint32_t                  count = 0;
    mcp_error                 err = { 0 };

    if (revoke->what == NULL)
        return cli_fail("say what to take back; usage: mcp keys revoke %s", args->verb->usage);
    if (cli_keys_folder(folder, revoke->keys) < 0)
        return CLI_FAILED;
    if (mcp_keys_revoke(folder, revoke->what, &count, &err) < 0)
        return cli_fail("%s", err.text);
    if (count == 0)
        cli_printf("it was revoked already: %s/revoked.json is as it was\n", folder);
    else
        cli_printf("revoked: %u; workers with this folder refuse it within a second, others once "
                   "%s/revoked.json is copied to theirs\n",
                   count, folder);
    return CLI_OK;
}

static const struct cli_verb verb_revoke = {
    .name = "keys revoke",
    .summary = "take back a certificate, a token, or all certificates of a name",
    .usage = "FILE|TOKEN|ID|NAME [--keys DIR]",
    .groups = { { "Options", revoke_options, sizeof(revoke_options) / sizeof(revoke_options[0]),
                  0 } },
    .args_bytes = sizeof(struct revoke_args),
    .run = revoke_run,
};

/* ---- invite ------------------------------------------------------------------------- */

struct invite_args {
    struct cli_args args;
    const char     *name;
    const char     *endpoint;
    const char     *keys;
};

static const struct cli_option invite_options[] = {
    { .name = "name",
      .type = CLI_TEXT,
      .bare = true,
      .at = offsetof(struct invite_args, name),
      .value = "NAME",
      .help = "of the client: 1 to 64 of a-z A-Z 0-9 . _ -" },
    { .name = "endpoint",
      .type = CLI_TEXT,
      .at = offsetof(struct invite_args, endpoint),
      .value = "HOST:PORT",
      .help = "the worker's address as the client reaches it" },
    CLI_KEYS_OPTION(struct invite_args),
};

static int invite_run(struct cli_args *args)
{
    const struct invite_args *invite = (const struct invite_args *)args;
    char                      folder[MCP_KEYS_TEXT_BYTES], *line = NULL;
    mcp_error                 err = { 0 };

    if (invite->name == NULL || invite->endpoint == NULL)
        return cli_fail("say whom and to which worker; usage: mcp keys invite %s",
                        args->verb->usage);
    if (cli_keys_folder(folder, invite->keys) < 0)
        return CLI_FAILED;
    if (mcp_keys_invite(folder, invite->name, invite->endpoint, &line, &err) < 0)
        return cli_fail("%s", err.text);
    cli_printf("%s\n", line);
    free(line);
    return CLI_OK;
}

static const struct cli_verb verb_invite = {
    .name = "keys invite",
    .summary = "one line that 'mcp join' on a user's machine turns into all it needs",
    .usage = "NAME --endpoint HOST:PORT [--keys DIR]",
    .notes = "The line holds a private key: send it as you would send a password.",
    .groups = { { "Options", invite_options, sizeof(invite_options) / sizeof(invite_options[0]),
                  0 } },
    .args_bytes = sizeof(struct invite_args),
    .run = invite_run,
};

static const struct cli_verb *const keys_verbs[] = {
    &verb_init,   &verb_issue, &cli_verb_keys_token, &verb_revoke, &cli_verb_keys_show,
    &verb_invite, NULL,
};

const struct cli_verb cli_verb_keys = {
    .name = "keys",
    .summary = "certificates and tokens",
    .usage = "init|issue|token|revoke|show|invite [options]",
    .subs = keys_verbs,
};
