/* cli/args.c - the parser over the option tables.
 *
 * Every message names the option as the user can write it, the value that was given
 * and what would have been right.  Numbers are parsed whole: "12x", "", " 1" and
 * "1e3" are not numbers here, since a typo must not become a different run.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/args.h"

#include "cli/cli.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LABEL_BYTES = 128, /* "-ctk/--cache-type-k" or "MCP_CACHE_TYPE_K" */
    FLAG_BYTES = 64    /* an unknown flag is compared with known ones up to here */
};

/* Where a value came from, for messages. */
struct source {
    const struct cli_option *option;
    bool                     from_env;
};

const struct cli_option *cli_option_at(const struct cli_verb *verb, size_t index,
                                       const struct cli_group **group)
{
    for (size_t g = 0; g < CLI_GROUPS_MAX && verb->groups[g].count > 0; g++) {
        if (index < verb->groups[g].count) {
            if (group != NULL)
                *group = &verb->groups[g];
            return &verb->groups[g].options[index];
        }
        index -= verb->groups[g].count;
    }
    return NULL;
}

void cli_option_env(char out[CLI_ENV_NAME_BYTES], const struct cli_option *option)
{
    size_t used = (size_t)snprintf(out, CLI_ENV_NAME_BYTES, "MCP_%s", option->name);

    assert(used < CLI_ENV_NAME_BYTES);
    for (size_t i = 4; i < used; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

/* How the user gave, or can give, the option. */
static const char *label(char out[LABEL_BYTES], struct source source)
{
    const struct cli_option *option = source.option;

    if (source.from_env)
        cli_option_env(out, option);
    else if (option->brief != NULL)
        snprintf(out, LABEL_BYTES, "-%s/--%s", option->brief, option->name);
    else
        snprintf(out, LABEL_BYTES, "--%s", option->name);
    return out;
}

/* ---- values ----------------------------------------------------------------------- */

/* "LABEL: 'value' <problem>"; a problem that ends in a space goes on with the words that
 * would have been right. */
static int bad(struct source source, const char *value, const char *problem)
{
    char   name[LABEL_BYTES], words[256] = "";
    size_t used = 0;

    if (problem[strlen(problem) - 1] == ' ')
        for (const struct cli_word *w = source.option->words; w->text != NULL; w++)
            used += (size_t)snprintf(words + used, sizeof(words) - used, "%s%s",
                                     used == 0 ? "" : ", ", w->text);
    cli_fail("%s: '%.200s' %s%s", label(name, source), value, problem, words);
    return -1;
}

static int bad_range(struct source source, const char *value)
{
    char name[LABEL_BYTES];

    cli_fail("%s: %.200s is outside %.10g..%.10g", label(name, source), value, source.option->min,
             source.option->max);
    return -1;
}

/* Digits with an optional minus, up to `end`.  Returns false for anything else; a
 * number too large for int64_t saturates, so that the range check refuses it. */
static bool parse_int(const char *text, const char *end, int64_t *out)
{
    bool    minus = text < end && *text == '-';
    int64_t value = 0;

    text += minus;
    if (text == end)
        return false;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9')
            return false;
        if (value > (INT64_MAX - 9) / 10)
            value = INT64_MAX / 20;
        value = value * 10 + (*text - '0');
    }
    *out = minus ? -value : value;
    return true;
}

static bool parse_real(const char *text, double *out)
{
    char *end;

    if (text[0] == '\0' || strspn(text, "+-.0123456789eE") != strlen(text))
        return false;
    *out = strtod(text, &end);
    return *end == '\0' && isfinite(*out);
}

static bool in_range(const struct cli_option *option, double value)
{
    return value >= option->min && value <= option->max;
}

static int set_ints(struct source source, const char *all, struct cli_ints *out)
{
    const char     *text = all;
    struct cli_ints list = { 0 };
    size_t          cap = 1;

    for (const char *c = all; *c != '\0'; c++)
        cap += *c == ',';
    list.values = calloc(cap, sizeof(*list.values));
    if (list.values == NULL)
        return cli_fail("out of memory for a list of %zu numbers", cap), -1;

    while (*text != '\0') {
        const char *end = text + strcspn(text, ",");
        int64_t     value;

        if (!parse_int(text, end, &value)) {
            free(list.values);
            return bad(source, all, "is not a list of whole numbers like 1,8,32");
        }
        if (!in_range(source.option, (double)value)) {
            char item[64];
            snprintf(item, sizeof(item), "%.*s", (int)(end - text < 40 ? end - text : 40), text);
            free(list.values);
            return bad_range(source, item);
        }
        list.values[list.count++] = (uint32_t)value;
        if (*end == '\0')
            break;
        text = end + 1;
        if (*text == '\0') {
            free(list.values);
            return bad(source, all, "ends in a comma");
        }
    }
    free(out->values);
    *out = list;
    return 0;
}

static void free_texts(struct cli_texts *texts)
{
    for (size_t i = 0; i < texts->count; i++)
        free(texts->values[i]);
    free(texts->values);
    *texts = (struct cli_texts){ 0 };
}

/* Append the words of `all`. */
static int set_texts(struct source source, const char *all, struct cli_texts *out)
{
    if (out->from_env && !source.from_env)
        free_texts(out);
    out->from_env = source.from_env;
    for (const char *text = all;; text++) {
        size_t bytes = strcspn(text, ",");
        if (bytes == 0)
            return bad(source, all, "is not a list of words like a,b,c");
        char **values = realloc(out->values, (out->count + 1) * sizeof(*values));
        char  *word = values != NULL ? strndup(text, bytes) : NULL;
        if (values != NULL)
            out->values = values;
        if (word == NULL)
            return cli_fail("out of memory for a list of words"), -1;
        values[out->count++] = word;
        text += bytes;
        if (*text == '\0')
            return 0;
    }
}

static int set_flag(struct source source, const char *text, bool *out)
{
    static const struct cli_word words[] = { { "1", 1 },     { "on", 1 }, { "true", 1 },
                                             { "yes", 1 },   { "0", 0 },  { "off", 0 },
                                             { "false", 0 }, { "no", 0 }, { NULL, 0 } };

    for (const struct cli_word *w = words; w->text != NULL; w++) {
        if (strcmp(w->text, text) == 0) {
            *out = w->value != 0;
            return 0;
        }
    }
    return bad(source, text, "is not 1 or 0");
}

/* Parse `text` into the option's place.  On failure the place is as before. */
static int set_value(struct source source, const char *text, void *place)
{
    const struct cli_option *option = source.option;
    int64_t                  whole;
    double                   real;

    for (const struct cli_word *w = option->words; w != NULL && w->text != NULL; w++) {
        if (strcmp(w->text, text) == 0) {
            *(int64_t *)place = w->value;
            return 0;
        }
    }
    switch (option->type) {
    case CLI_FLAG: return set_flag(source, text, place);
    case CLI_TEXT: *(const char **)place = text; return 0;
    case CLI_INTS: return set_ints(source, text, place);
    case CLI_TEXTS: return set_texts(source, text, place);
    case CLI_WORD: return bad(source, text, "is not one of ");
    case CLI_INT:
        if (!parse_int(text, text + strlen(text), &whole))
            return bad(source, text,
                       option->words != NULL ? "is not a whole number, nor one of "
                                             : "is not a whole number");
        if (!in_range(option, (double)whole))
            return bad_range(source, text);
        *(int64_t *)place = whole;
        return 0;
    case CLI_REAL:
        if (!parse_real(text, &real))
            return bad(source, text, "is not a number");
        if (!in_range(option, real))
            return bad_range(source, text);
        *(double *)place = real;
        return 0;
    }
    return -1;
}

/* ---- names ------------------------------------------------------------------------ */

/* The option that a flag means, or NULL; `bytes` is the flag's length before any '='. */
static const struct cli_option *find(const struct cli_verb *verb, const char *flag, size_t bytes,
                                     size_t *index)
{
    bool                     is_long = bytes > 2 && flag[1] == '-';
    const char              *name = flag + (is_long ? 2 : 1);
    size_t                   name_bytes = bytes - (is_long ? 2 : 1);
    const struct cli_option *option;

    for (size_t i = 0; (option = cli_option_at(verb, i, NULL)) != NULL; i++) {
        const char *known[2] = { is_long ? option->name : option->brief,
                                 is_long ? option->also : NULL };
        for (size_t k = 0; k < 2; k++) {
            if (known[k] != NULL && strlen(known[k]) == name_bytes &&
                memcmp(known[k], name, name_bytes) == 0) {
                *index = i;
                return option;
            }
        }
    }
    return NULL;
}

static int unknown_flag(const struct cli_verb *verb, const char *flag, size_t bytes)
{
    char                     word[FLAG_BYTES + 1];
    const char              *names[CLI_OPTIONS_MAX];
    const struct cli_option *option;
    size_t                   count = 0, dashes = bytes > 1 && flag[1] == '-' ? 2 : 1;

    snprintf(word, sizeof(word), "%.*s", (int)(bytes - dashes), flag + dashes);
    for (size_t i = 0; (option = cli_option_at(verb, i, NULL)) != NULL; i++)
        names[count++] = option->name;

    const char *near = cli_nearest(word, names, count);
    if (near == NULL && dashes == 1) /* a single dash: "-nlg" */ {
        count = 0;
        for (size_t i = 0; (option = cli_option_at(verb, i, NULL)) != NULL; i++)
            if (option->brief != NULL)
                names[count++] = option->brief;
        near = cli_nearest(word, names, count);
        if (near != NULL) {
            cli_fail("unknown flag %.*s; did you mean -%s?", (int)bytes, flag, near);
            return -1;
        }
    }
    if (near != NULL)
        cli_fail("unknown flag %.*s; did you mean --%s?", (int)bytes, flag, near);
    else
        cli_fail("unknown flag %.*s; 'mcp %s --help' lists what there is", (int)bytes, flag,
                 verb->name);
    return -1;
}

/* ---- walking ---------------------------------------------------------------------- */

static void *place_of(struct cli_args *args, size_t index)
{
    const struct cli_group  *group = NULL;
    const struct cli_option *option = cli_option_at(args->verb, index, &group);

    return (char *)args + group->base + option->at;
}

/* Defaults first, then the environment over them. */
static int set_defaults(struct cli_args *args)
{
    const struct cli_option *option;

    for (size_t i = 0; (option = cli_option_at(args->verb, i, NULL)) != NULL; i++) {
        char env[CLI_ENV_NAME_BYTES];

        assert(i < CLI_OPTIONS_MAX);
        if (option->fallback != NULL &&
            set_value((struct source){ option, false }, option->fallback, place_of(args, i)) < 0)
            return -1;
        cli_option_env(env, option);
        const char *value = getenv(env);
        if (value == NULL || value[0] == '\0')
            continue;
        if (set_value((struct source){ option, true }, value, place_of(args, i)) < 0)
            return -1;
        args->given |= UINT64_C(1) << i;
    }
    return 0;
}

/* A word without a flag fills the next option whose row allows that. */
static int set_bare(struct cli_args *args, const char *word, uint64_t *filled)
{
    const struct cli_option *option;

    for (size_t i = 0; (option = cli_option_at(args->verb, i, NULL)) != NULL; i++) {
        if (!option->bare || (*filled & (UINT64_C(1) << i)) != 0)
            continue;
        *filled |= UINT64_C(1) << i;
        args->given |= UINT64_C(1) << i;
        return set_value((struct source){ option, false }, word, place_of(args, i));
    }
    cli_fail("'%.200s' is not expected here; usage: mcp %s %s", word, args->verb->name,
             args->verb->usage);
    return -1;
}

/* Looked for first, so that --help is answered whatever else is wrong.  A value that
 * happens to read "--help" does not count. */
static bool asks_help(const struct cli_verb *verb, int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        size_t bytes = strcspn(argv[i], "="), index;

        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
        if (argv[i][0] != '-' || argv[i][1] == '\0' || argv[i][bytes] == '=')
            continue;
        const struct cli_option *option = find(verb, argv[i], bytes, &index);
        if (option != NULL && option->type != CLI_FLAG)
            i++;
    }
    return false;
}

int cli_args_parse(struct cli_args *args, const struct cli_verb *verb, int argc, char **argv)
{
    uint64_t filled = 0;
    bool     flags = true; /* until "--" */

    args->verb = verb;
    if (asks_help(verb, argc, argv)) {
        args->help = true;
        return 0;
    }
    if (set_defaults(args) < 0)
        return -1;

    for (int i = 0; i < argc; i++) {
        const char *word = argv[i], *value;
        size_t      index = 0, bytes = strcspn(word, "=");

        if (flags && strcmp(word, "--") == 0) {
            flags = false;
            continue;
        }
        if (!flags || word[0] != '-' || word[1] == '\0') {
            if (set_bare(args, word, &filled) < 0)
                return -1;
            continue;
        }
        const struct cli_option *option = find(verb, word, bytes, &index);
        if (option == NULL)
            return unknown_flag(verb, word, bytes);

        struct source source = { option, false };
        if (word[bytes] == '=')
            value = word + bytes + 1;
        else if (option->type == CLI_FLAG)
            value = "1";
        else if (i + 1 < argc)
            value = argv[++i];
        else {
            char name[LABEL_BYTES];
            cli_fail("%s needs a value: %s", label(name, source), option->value);
            return -1;
        }
        if (set_value(source, value, place_of(args, index)) < 0)
            return -1;
        args->given |= UINT64_C(1) << index;
        if (option->bare)
            filled |= UINT64_C(1) << index;
    }
    return 0;
}

void cli_args_free(struct cli_args *args)
{
    const struct cli_option *option;

    for (size_t i = 0; (option = cli_option_at(args->verb, i, NULL)) != NULL; i++) {
        if (option->type == CLI_INTS)
            free(((struct cli_ints *)place_of(args, i))->values);
        else if (option->type == CLI_TEXTS)
            free_texts(place_of(args, i));
    }
}

bool cli_args_given(const struct cli_args *args, const char *name)
{
    const struct cli_option *option;

    for (size_t i = 0; (option = cli_option_at(args->verb, i, NULL)) != NULL; i++)
        if (strcmp(option->name, name) == 0)
            return (args->given & (UINT64_C(1) << i)) != 0;
    assert(!"an option that this verb does not have");
    return false;
}
