/* cli/keys.h - the keys folder that a verb works on.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_KEYS_H
#define CLI_KEYS_H

#include "cli/args.h"

#include <mcp/keys.h>

/* The option's row in a verb whose struct T has a member `keys`. */
#define CLI_KEYS_OPTION(T)                                                                        \
    {                                                                                             \
        .name = "keys", .also = "dir", .type = CLI_TEXT, .at = offsetof(T, keys), .value = "DIR", \
        .help = "keys folder; default: ~/.config/mcp/keys, or the one"                            \
                " below $XDG_CONFIG_HOME",                                                        \
    }

/* The folder given, or the default one.  0, or -1 with the line printed. */
int cli_keys_folder(char path[MCP_KEYS_TEXT_BYTES], const char *given);

/* Rows of `mcp keys` with files of their own. */
extern const struct cli_verb cli_verb_keys_token;
extern const struct cli_verb cli_verb_keys_show;

#endif
