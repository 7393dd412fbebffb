/* cli/chat.c - turns of a conversation, from a terminal or line by line from a pipe.
 *
 * The whole conversation is formatted anew for each turn; the session computes only
 * what it has not seen.  A turn that could not be answered is taken out again, so the
 * conversation goes on as if it had not been said.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/line.h"
#include "cli/talk.h"

#include <stdlib.h>
#include <string.h>

struct chat {
    struct talk      *talk;
    struct cli_lines  lines;
    mcp_chat_message *messages; /* (count); contents owned, roles static */
    size_t            count;
    struct cli_buffer raw; /* raw mode: the text so far, questions and answers */
};

/* ---- the conversation ------------------------------------------------------------- */

static int say(struct chat *chat, const char *role, const char *content)
{
    mcp_chat_message *messages = realloc(chat->messages,
                                         (chat->count + 1) * sizeof(chat->messages[0]));
    char             *copy = strdup(content);

    if (messages != NULL)
        chat->messages = messages;
    if (messages == NULL || copy == NULL) {
        free(copy);
        return cli_fail("out of memory for the conversation"), -1;
    }
    chat->messages[chat->count++] = (mcp_chat_message){ .role = role, .content = copy };
    return 0;
}

static void unsay(struct chat *chat, size_t keep)
{
    while (chat->count > keep)
        free((char *)chat->messages[--chat->count].content);
}

/* Forget all but the system prompt. */
static int begin(struct chat *chat)
{
    const char *system_prompt = chat->talk->args->system_prompt;

    unsay(chat, 0);
    cli_buffer_drop(&chat->raw, chat->raw.bytes);
    if (chat->talk->raw || system_prompt == NULL)
        return 0;
    return say(chat, "system", system_prompt);
}

static enum talk_end turn_chat(struct chat *chat, const char *line, struct cli_buffer *answer)
{
    struct cli_buffer text = { 0 };
    size_t            before = chat->count;
    enum talk_end     end = TALK_FAILED;

    if (say(chat, "user", line) == 0 &&
        talk_format(chat->talk, chat->messages, chat->count, &text) == 0)
        end = talk_answer(chat->talk, text.text, text.bytes, answer);
    if (end != TALK_FAILED && say(chat, "assistant", answer->text) < 0)
        end = TALK_FAILED;
    if (end == TALK_FAILED)
        unsay(chat, before);
    cli_buffer_fini(&text);
    return end;
}

static enum talk_end turn_raw(struct chat *chat, const struct cli_buffer *line,
                              struct cli_buffer *answer)
{
    size_t        before = chat->raw.bytes;
    enum talk_end end = TALK_FAILED;

    if ((before == 0 || cli_buffer_add(&chat->raw, "\n", 1) == 0) &&
        cli_buffer_add(&chat->raw, line->text, line->bytes) == 0)
        end = talk_answer(chat->talk, chat->raw.text, chat->raw.bytes, answer);
    if (end != TALK_FAILED && cli_buffer_add(&chat->raw, answer->text, answer->bytes) < 0)
        end = TALK_FAILED;
    if (end == TALK_FAILED)
        (void)cli_buffer_splice(&chat->raw, before, chat->raw.bytes - before, NULL, 0);
    return end;
}

/* ---- commands --------------------------------------------------------------------- */

enum outcome { GO_ON, LEAVE, BROKEN };

static enum outcome command_exit(struct chat *chat)
{
    (void)chat;
    return LEAVE;
}

static enum outcome command_clear(struct chat *chat)
{
    if (begin(chat) < 0)
        return BROKEN;
    if (chat->lines.editor)
        cli_printf("(the conversation begins anew)\n");
    return GO_ON;
}

static enum outcome command_help(struct chat *chat);

/* A turn that is one of these words, and nothing else, is not sent to the model. */
static const struct {
    const char *name, *help;
    enum outcome (*run)(struct chat *chat);
} commands[] = {
    { "/help", "this list", command_help },
    { "/clear", "forget the conversation, keep the system prompt", command_clear },
    { "/exit", "leave", command_exit },
};

enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static enum outcome command_help(struct chat *chat)
{
    (void)chat;
    for (size_t i = 0; i < COMMANDS; i++)
        cli_printf("%-9s %s\n", commands[i].name, commands[i].help);
    cli_printf("Ctrl-C    stop the answer; twice at the prompt: leave\n"
               "Ctrl-D    leave\n"
               "Alt-Enter a newline inside a turn; a pasted page is one turn\n");
    return GO_ON;
}

/* ---- turns ------------------------------------------------------------------------ */

static enum outcome turn(struct chat *chat, struct cli_buffer *line, struct cli_buffer *answer)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(line->text, commands[i].name) == 0)
            return commands[i].run(chat);
    if (strlen(line->text) != line->bytes) {
        cli_fail("a turn holds a NUL byte");
        return chat->lines.editor ? GO_ON : BROKEN;
    }
    enum talk_end end = chat->talk->raw ? turn_raw(chat, line, answer)
                                        : turn_chat(chat, line->text, answer);
    if (end == TALK_FAILED && (!chat->lines.editor || cli_out_failed()))
        return BROKEN;
    return GO_ON;
}

int talk_chat(struct talk *talk)
{
    struct chat       chat = { .talk = talk };
    struct cli_buffer line = { 0 }, answer = { 0 };
    enum outcome      outcome = GO_ON;
    size_t            turns = 0;
    bool              warned = false; /* the last thing at the prompt was a Ctrl-C */

    cli_lines_init(&chat.lines);
    if (begin(&chat) < 0)
        outcome = BROKEN;
    else if (chat.lines.editor)
        cli_printf("%s, %u layers, context of %u tokens. /help lists the commands.\n",
                   mcp_model_get_info(talk->model)->architecture,
                   mcp_model_get_info(talk->model)->layers, talk->place.ctx_tokens);

    while (outcome == GO_ON) {
        cli_interrupt_reset();
        enum cli_line got = cli_lines_read(&chat.lines, "> ", &line);
        if (got == CLI_LINE_INTERRUPTED && chat.lines.editor && (!warned || chat.lines.touched)) {
            warned = true;
            cli_printf("(Ctrl-C again, Ctrl-D or /exit to leave)\n");
            continue;
        }
        if (got == CLI_LINE_END || (got == CLI_LINE_INTERRUPTED && chat.lines.editor))
            break;
        if (got != CLI_LINE_TEXT) {
            outcome = BROKEN;
            break;
        }
        warned = false;
        if (line.bytes == 0)
            continue;
        turns++;
        cli_interrupt_reset();
        outcome = turn(&chat, &line, &answer);
    }
    if (turns == 0 && outcome == GO_ON && !chat.lines.editor) {
        cli_fail("no prompt: give -p or -f, or lines on standard input");
        outcome = BROKEN;
    }
    unsay(&chat, 0);
    free(chat.messages);
    cli_buffer_fini(&chat.raw);
    cli_buffer_fini(&line);
    cli_buffer_fini(&answer);
    cli_lines_fini(&chat.lines);
    return outcome == BROKEN ? CLI_FAILED : CLI_OK;
}
