/* cli/args.h - verbs, and the options that they take, as tables.
 *
 * A verb is a row of struct cli_verb; its options are rows of struct cli_option, in
 * groups that several verbs may share.  The parser, `--help`, the environment
 * variables, `mcp help --json` and the tests walk these same tables, so an option is
 * added by adding a row.
 *
 *     command line   --ctx-size 4096   --ctx-size=4096   -c 4096
 *     environment    MCP_CTX_SIZE=4096          (MCP_ + the long name, upper case)
 *     default        the row's text
 *
 * The first of these that is there wins.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What an option's value is, and so the C type found at its offset. */
enum cli_type {
    CLI_FLAG,  /* bool; takes no value on the command line */
    CLI_INT,   /* int64_t: a whole number in [min, max], or one of words */
    CLI_REAL,  /* double in [min, max] */
    CLI_WORD,  /* int64_t: one of words, nothing else */
    CLI_TEXT,  /* const char *, borrowed from argv or the environment; NULL = not given */
    CLI_INTS,  /* struct cli_ints: whole numbers in [min, max] with commas between */
    CLI_TEXTS, /* struct cli_texts: words with commas between; may be given repeatedly */
};

struct cli_ints {
    uint32_t *values; /* (count); owned, given back by cli_args_free */
    size_t    count;
};

struct cli_texts {
    char **values; /* (count); owned, given back by cli_args_free */
    size_t count;
    bool   from_env; /* the first one on the command line replaces them */
};

/* A name that a user may write in place of a number. */
struct cli_word {
    const char *text; /* NULL ends a list of words */
    int64_t     value;
};

struct cli_option {
    const char            *name;  /* long name, without dashes */
    const char            *brief; /* short name, without its dash; NULL = none */
    const char            *also;  /* a second long name that llama-server knows; NULL */
    enum cli_type          type;
    bool                   bare;     /* may also be given as a word without a flag */
    size_t                 at;       /* offset of the value from the group's base */
    const char            *value;    /* placeholder in --help: "FILE"; NULL for flags */
    const char            *fallback; /* default, as a user would write it; NULL = none */
    double                 min, max; /* CLI_INT, CLI_REAL, CLI_INTS; max below 2^53 */
    const struct cli_word *words;    /* CLI_WORD, CLI_INT */
    const char            *help;
};

struct cli_group {
    const char              *title;
    const struct cli_option *options;
    size_t                   count;
    size_t                   base; /* offset of the group's struct in the verb's struct */
};

enum {
    CLI_GROUPS_MAX = 4,   /* groups of one verb; arbitrary, asserted by the walk */
    CLI_OPTIONS_MAX = 64, /* options of one verb: cli_args.given is one bit each */
};

struct cli_args;

/* A row with subs has no options and no run: the next word picks one of them. */
struct cli_verb {
    const char      *name;    /* "run"; "debug logits" for a sub verb */
    const char      *summary; /* one line */
    const char      *usage;   /* what follows the name in the usage line */
    const char      *notes;   /* after the options in --help; NULL = nothing */
    struct cli_group groups[CLI_GROUPS_MAX];
    size_t           args_bytes;        /* sizeof the verb's struct, which begins with cli_args */
    int (*run)(struct cli_args *args);  /* returns the exit status */
    const struct cli_verb *const *subs; /* ended by NULL; NULL = none */
};

/* First member of every verb's struct. */
struct cli_args {
    const struct cli_verb *verb;
    uint64_t               given; /* bit i: option i came from argv or the environment */
    bool                   help;  /* --help was asked for; nothing else is checked then */
};

/* Fill `args` (zeroed, verb->args_bytes long) from defaults, environment and argv,
 * which holds what follows the verb.  On failure the sentence has been printed and -1
 * is returned; in both cases cli_args_free is to be called. */
int  cli_args_parse(struct cli_args *args, const struct cli_verb *verb, int argc, char **argv);
void cli_args_free(struct cli_args *args);

/* Whether the option called `name` was set by the user rather than by its default. */
bool cli_args_given(const struct cli_args *args, const char *name);

/* The i-th option of a verb and its group; NULL past the last. */
const struct cli_option *cli_option_at(const struct cli_verb *verb, size_t index,
                                       const struct cli_group **group);

/* "MCP_CTX_SIZE" for "ctx-size". */
enum { CLI_ENV_NAME_BYTES = 64 };
void cli_option_env(char out[CLI_ENV_NAME_BYTES], const struct cli_option *option);

/* The name in `names` that is the fewest typing errors away from `word`; NULL when
 * none is near enough to be meant. */
const char *cli_nearest(const char *word, const char *const *names, size_t count);

#endif
