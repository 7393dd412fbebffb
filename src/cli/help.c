/* cli/help.c - help for people and, as JSON, for tests and documentation tools.
 * Nothing about an option is written here: it all comes from the tables.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/out.h"

#include <mcp/error.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FLAG_COLUMNS = 34, /* where an option's text begins; longer flags get a line of their own */
    TEXT_COLUMNS = 96,
};

static const char *const type_names[] = {
    [CLI_FLAG] = "flag", [CLI_INT] = "int",   [CLI_REAL] = "real",   [CLI_WORD] = "word",
    [CLI_TEXT] = "text", [CLI_INTS] = "ints", [CLI_TEXTS] = "texts",
};

void cli_help_overview(const struct cli_verb *const *verbs)
{
    cli_printf("mcp %s - run one language model across machines, cut at any layer\n\n"
               "usage: mcp VERB [options]\n\n",
               mcp_version());
    for (; *verbs != NULL; verbs++) {
        if ((*verbs)->subs == NULL)
            cli_printf("  %-14s %s\n", (*verbs)->name, (*verbs)->summary);
        for (size_t i = 0; (*verbs)->subs != NULL && (*verbs)->subs[i] != NULL; i++)
            cli_printf("  %-14s %s\n", (*verbs)->subs[i]->name, (*verbs)->subs[i]->summary);
    }
    cli_printf("\n'mcp VERB --help' tells its options. Try:\n"
               "  mcp run -m model.gguf -p \"Why is the sky blue?\"\n"
               "  mcp run -m model.gguf                 (chat)\n");
}

/* Print `text` from column `indent` on, broken at spaces. */
static void print_wrapped(const char *text, size_t indent)
{
    size_t width = TEXT_COLUMNS - indent;

    while (strlen(text) > width) {
        size_t end = width;
        while (end > 0 && text[end] != ' ')
            end--;
        if (end == 0)
            end = width;
        cli_printf("%.*s\n%*s", (int)end, text, (int)indent, "");
        text += end + (text[end] == ' ');
    }
    cli_printf("%s\n", text);
}

static void print_option(const struct cli_option *option)
{
    char   flag[320], text[640], env[CLI_ENV_NAME_BYTES], words[160] = "";
    size_t used = 0;

    for (const struct cli_word *w = option->words; w != NULL && w->text != NULL; w++)
        used += (size_t)snprintf(words + used, sizeof(words) - used, "%s%s",
                                 used == 0 && option->type == CLI_WORD ? "" : "|", w->text);
    snprintf(flag, sizeof(flag), "  %s%s%s--%s%s%s%s", option->brief != NULL ? "-" : "",
             option->brief != NULL ? option->brief : "    ", option->brief != NULL ? ", " : "",
             option->name, option->type == CLI_FLAG ? "" : " ",
             option->value != NULL ? option->value : "", words);
    cli_option_env(env, option);
    snprintf(text, sizeof(text), "%s%s%s%s [%s]", option->help,
             option->fallback != NULL ? " (default " : "",
             option->fallback != NULL ? option->fallback : "", option->fallback != NULL ? ")" : "",
             env);

    if (strlen(flag) >= FLAG_COLUMNS)
        cli_printf("%s\n%*s", flag, FLAG_COLUMNS, "");
    else
        cli_printf("%-*s", FLAG_COLUMNS, flag);
    print_wrapped(text, FLAG_COLUMNS);
}

void cli_help_verb(const struct cli_verb *verb)
{
    cli_printf("usage: mcp %s %s\n\n%s\n", verb->name, verb->usage, verb->summary);
    for (size_t i = 0; verb->subs != NULL && verb->subs[i] != NULL; i++)
        cli_printf("  mcp %-18s %s\n", verb->subs[i]->name, verb->subs[i]->summary);
    for (size_t g = 0; g < CLI_GROUPS_MAX && verb->groups[g].count > 0; g++) {
        cli_printf("\n%s:\n", verb->groups[g].title);
        for (size_t i = 0; i < verb->groups[g].count; i++)
            print_option(&verb->groups[g].options[i]);
    }
    if (verb->notes != NULL)
        cli_printf("\n%s\n", verb->notes);
    if (verb->groups[0].count > 0)
        cli_printf("\nA flag wins over the environment variable in [brackets].\n");
}

static json_t *option_json(const struct cli_option *option, const char *group)
{
    char    env[CLI_ENV_NAME_BYTES];
    json_t *words = json_array();
    bool number = option->type == CLI_INT || option->type == CLI_REAL || option->type == CLI_INTS;

    for (const struct cli_word *w = option->words; w != NULL && w->text != NULL; w++)
        json_array_append_new(words, json_string(w->text));
    cli_option_env(env, option);
    return json_pack("{s:s, s:s?, s:s?, s:s, s:s, s:b, s:s?, s:s?, s:o?, s:o?, s:o, s:s, s:s}",
                     "name", option->name, "brief", option->brief, "also", option->also, "env", env,
                     "type", type_names[option->type], "bare", option->bare, "value", option->value,
                     "default", option->fallback, "min", number ? json_real(option->min) : NULL,
                     "max", number ? json_real(option->max) : NULL, "words", words, "group", group,
                     "help", option->help);
}

static void verb_json(json_t *list, const struct cli_verb *verb)
{
    json_t                  *options = json_array();
    const struct cli_option *option;
    const struct cli_group  *group = NULL;

    if (verb->subs != NULL) {
        for (size_t i = 0; verb->subs[i] != NULL; i++)
            verb_json(list, verb->subs[i]);
        json_decref(options);
        return;
    }
    for (size_t i = 0; (option = cli_option_at(verb, i, &group)) != NULL; i++)
        json_array_append_new(options, option_json(option, group->title));
    json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:o}", "verb", verb->name, "summary",
                                          verb->summary, "usage", verb->usage, "options", options));
}

int cli_help_json(const struct cli_verb *const *verbs)
{
    json_t *list = json_array();

    for (; *verbs != NULL; verbs++)
        verb_json(list, *verbs);
    return cli_print_json(list);
}
