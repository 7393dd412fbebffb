/* cli/main.c - the `mcp` command: find the verb, parse its options, run it.
 *
 * The command uses include/mcp and nothing else of the library, as any other program
 * would; what it cannot do, the library does not offer.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/out.h"

#include <mcp/error.h>

#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_verb verb_help, verb_version;

static const struct cli_verb *const verbs[] = {
    &cli_verb_run,  &cli_verb_worker, &cli_verb_plan,    &cli_verb_profile, &cli_verb_ping,
    &cli_verb_show, &cli_verb_list,   &cli_verb_devices, &cli_verb_bench,   &cli_verb_keys,
    &cli_verb_join, &cli_verb_debug,  &verb_help,        &verb_version,     NULL,
};

/* ---- verbs about the command itself ----------------------------------------------- */

struct help_args {
    struct cli_args args;
    bool            json;
};

static const struct cli_option help_options[] = {
    { .name = "json",
      .type = CLI_FLAG,
      .at = offsetof(struct help_args, json),
      .help = "all verbs and options as one JSON array" },
};

static int help_run(struct cli_args *args)
{
    if (((struct help_args *)args)->json)
        return cli_help_json(verbs);
    cli_help_overview(verbs);
    return CLI_OK;
}

static const struct cli_verb verb_help = {
    .name = "help",
    .summary = "this page; 'mcp help VERB' tells about one",
    .usage = "[VERB] [--json]",
    .groups = { { "Options", help_options, sizeof(help_options) / sizeof(help_options[0]), 0 } },
    .args_bytes = sizeof(struct help_args),
    .run = help_run,
};

static int version_run(struct cli_args *args)
{
    (void)args;
    cli_printf("mcp %s\n", mcp_version());
    return CLI_OK;
}

static const struct cli_verb verb_version = {
    .name = "version",
    .summary = "print the version",
    .usage = "",
    .args_bytes = sizeof(struct cli_args),
    .run = version_run,
};

/* ---- finding the verb ------------------------------------------------------------- */

/* The row for `word`: its full name, or the second word of a sub verb's name. */
static const struct cli_verb *find(const struct cli_verb *const *table, const char *word)
{
    for (; *table != NULL; table++) {
        const char *last = strrchr((*table)->name, ' ');
        if (strcmp(last != NULL ? last + 1 : (*table)->name, word) == 0)
            return *table;
    }
    return NULL;
}

static int unknown_verb(const struct cli_verb *const *table, const char *word)
{
    enum { NAMES_MAX = 32 }; /* rows of one table; more than there are */
    const char *names[NAMES_MAX];
    size_t      count = 0;

    for (; count < NAMES_MAX && table[count] != NULL; count++) {
        const char *last = strrchr(table[count]->name, ' ');
        names[count] = last != NULL ? last + 1 : table[count]->name;
    }
    const char *near = cli_nearest(word, names, count);
    if (near != NULL)
        return cli_fail("unknown verb '%.200s'; did you mean '%s'?", word, near);
    return cli_fail("unknown verb '%.200s'; 'mcp help' lists them", word);
}

static int run_verb(const struct cli_verb *verb, int argc, char **argv)
{
    struct cli_args *args = calloc(1, verb->args_bytes);
    int              status = CLI_FAILED;

    if (args == NULL)
        return cli_fail("out of memory");
    if (cli_args_parse(args, verb, argc, argv) == 0) {
        if (args->help) {
            cli_help_verb(verb);
            status = CLI_OK;
        } else {
            status = verb->run(args);
        }
    }
    cli_args_free(args);
    free(args);
    return status;
}

static int dispatch(int argc, char **argv)
{
    static char                   help_flag[] = "--help";
    char                         *only_help[] = { help_flag, NULL };
    const struct cli_verb *const *table = verbs;
    bool                          help = false;

    if (argc > 0 && strcmp(argv[0], "help") == 0 && argc > 1 && argv[1][0] != '-') {
        help = true; /* mcp help VERB = mcp VERB --help */
        argc--;
        argv++;
    }
    if (argc == 0 || strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0) {
        cli_help_overview(verbs);
        return CLI_OK;
    }
    if (strcmp(argv[0], "--version") == 0)
        return version_run(NULL);

    while (argc > 0) {
        const struct cli_verb *verb = find(table, argv[0]);
        if (verb == NULL)
            return unknown_verb(table, argv[0]);
        cli_say_verb(verb->name);
        argc--;
        argv++;
        if (verb->subs == NULL)
            return help ? run_verb(verb, 1, only_help) : run_verb(verb, argc, argv);
        if (argc == 0 || argv[0][0] == '-') {
            bool asked = help || (argc > 0 &&
                                  (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0));
            if (!asked)
                return cli_fail("a second word is missing; 'mcp help %s' lists them", verb->name);
            cli_help_verb(verb);
            return CLI_OK;
        }
        table = verb->subs;
    }
    return CLI_FAILED;
}

int main(int argc, char **argv)
{
    /* A reader that goes away is noticed by the write that fails; see out.h. */
    signal(SIGPIPE, SIG_IGN);
    /* Text is UTF-8 here whatever the user's settings say; the C library knows the width of
     * a character only in a locale that agrees.  Numbers stay as in C. */
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        (void)setlocale(LC_CTYPE, "C.UTF-8"); /* without it the editor shows ? for é */
    return cli_out_finish(dispatch(argc > 0 ? argc - 1 : 0, argv + 1));
}
