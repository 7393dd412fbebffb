/* cli/cli.h - what every verb uses: its exit status, its error line, its table row.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "cli/args.h"

/* Every failure is 1, wrong usage too; scripts need to know only whether it worked. */
enum { CLI_OK = 0, CLI_FAILED = 1 };

/* Print "mcp VERB: <sentence>" as one line on stderr and return CLI_FAILED.  Control
 * characters in the sentence (a file name may hold them) are replaced. */
int cli_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same with "note: ", for what the user should know though it is no failure. */
void cli_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The verb named in those lines; "" before one is known.  Kept by reference. */
void cli_say_verb(const char *name);

/* Lines of mcp_log_set() go to stderr from now on. */
void cli_log_verbose(void);

/* Help, from the tables. */
void cli_help_overview(const struct cli_verb *const *verbs);
void cli_help_verb(const struct cli_verb *verb);
int  cli_help_json(const struct cli_verb *const *verbs);

/* One row a verb, each in the file of its name. */
extern const struct cli_verb cli_verb_run;
extern const struct cli_verb cli_verb_worker;
extern const struct cli_verb cli_verb_ping;
extern const struct cli_verb cli_verb_plan;
extern const struct cli_verb cli_verb_profile;
extern const struct cli_verb cli_verb_show;
extern const struct cli_verb cli_verb_list;
extern const struct cli_verb cli_verb_devices;
extern const struct cli_verb cli_verb_bench;
extern const struct cli_verb cli_verb_keys;
extern const struct cli_verb cli_verb_join;
extern const struct cli_verb cli_verb_debug;

#endif
