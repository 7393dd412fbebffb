/* cli/join.c - `mcp join`: the line that an administrator sent becomes this user's keys folder.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/keys.h"
#include "cli/out.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 16 << 10, ENDPOINT_BYTES = 256 };

struct join_args {
    struct cli_args args;
    const char     *line;
    const char     *keys;
};

static const struct cli_option join_options[] = {
    { .name = "line",
      .type = CLI_TEXT,
      .bare = true,
      .at = offsetof(struct join_args, line),
      .value = "LINE",
      .help = "what 'mcp keys invite' printed; - or nothing = read it from standard input" },
    CLI_KEYS_OPTION(struct join_args),
};

/* All of standard input, or a line of a terminal: 0, or -1 with the line printed. */
static int read_input(char text[LINE_BYTES + 1])
{
    bool    terminal = isatty(STDIN_FILENO);
    size_t  used = 0;
    ssize_t n;

    if (terminal)
        cli_note("paste the line that begins with mcp1: and press Enter");
    do {
        n = read(STDIN_FILENO, text + used, LINE_BYTES - used);
        if (n < 0 && errno != EINTR)
            return cli_fail("standard input: %s", strerror(errno)), -1;
        used += n > 0 ? (size_t)n : 0;
        if (used == LINE_BYTES)
            return cli_fail("standard input is longer than any line of 'mcp keys invite' (%d "
                            "bytes)",
                            LINE_BYTES),
                   -1;
    } while (n != 0 && !(terminal && used > 0 && text[used - 1] == '\n'));
    text[used] = '\0';
    return 0;
}

static int join_run(struct cli_args *args)
{
    const struct join_args *join = (const struct join_args *)args;
    char        folder[MCP_KEYS_TEXT_BYTES], endpoint[ENDPOINT_BYTES], text[LINE_BYTES + 1];
    const char *line = join->line;
    mcp_error   err = { 0 };

    if (cli_keys_folder(folder, join->keys) < 0)
        return CLI_FAILED;
    if (line == NULL || strcmp(line, "-") == 0) {
        if (read_input(text) < 0)
            return CLI_FAILED;
        line = text;
    }
    if (mcp_keys_join(line, folder, endpoint, sizeof(endpoint), &err) < 0)
        return cli_fail("%s", err.text);
    cli_printf("stored in %s: ca.pem, client.pem, client.key, and the worker %s in its file "
               "'workers'\n"
               "next: mcp run -m FILE --worker %s%s%s\n",
               folder, endpoint, endpoint, cli_args_given(args, "keys") ? " --keys " : "",
               cli_args_given(args, "keys") ? folder : "");
    return CLI_OK;
}

const struct cli_verb cli_verb_join = {
    .name = "join",
    .summary = "take part in a cluster with the line that its administrator sent",
    .usage = "[LINE] [--keys DIR]",
    .notes =
        "The line holds a private key.  Other users of this machine can see the arguments of a\n"
        "running command: 'mcp join' alone reads the line from standard input instead.",
    .groups = { { "Options", join_options, sizeof(join_options) / sizeof(join_options[0]), 0 } },
    .args_bytes = sizeof(struct join_args),
    .run = join_run,
};
