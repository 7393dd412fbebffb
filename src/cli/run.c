/* cli/run.c - `mcp run`: one prompt answered, or a chat.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/load.h"
#include "cli/talk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AT(member) .at = offsetof(struct run_args, member)

static const struct cli_option prompt_options[] = {
    { .name = "prompt",
      .brief = "p",
      .type = CLI_TEXT,
      AT(prompt),
      .value = "TEXT",
      .help = "answer this and end; without -p and -f: chat" },
    { .name = "file",
      .brief = "f",
      .type = CLI_TEXT,
      AT(file),
      .value = "FILE",
      .help = "the prompt from a file, - = standard input; a newline at its end is left out" },
    { .name = "system-prompt",
      .brief = "sys",
      .type = CLI_TEXT,
      AT(system_prompt),
      .value = "TEXT",
      .help = "how the model is to behave" },
    { .name = "raw",
      .type = CLI_FLAG,
      AT(raw),
      .help = "no chat template: the model continues the text as it is" },
    { .name = "json",
      .type = CLI_FLAG,
      AT(json),
      .help = "each answer as one JSON object on one line, at its end" },
    { .name = "stats",
      .type = CLI_FLAG,
      AT(stats),
      .help = "while an answer runs, each second on standard error: plan, links, guesses, bytes" },
};

static const struct cli_option answer_options[] = {
    { .name = "n-predict",
      .brief = "n",
      .also = "predict",
      .type = CLI_INT,
      AT(n_predict),
      .value = "N",
      .fallback = "-1",
      .min = -1,
      .max = 2147483647,
      .help = "most tokens of an answer; -1 = until the model ends it" },
    { .name = "ctx-size",
      .brief = "c",
      .type = CLI_INT,
      AT(ctx_size),
      .value = "N",
      .fallback = "0",
      .min = 0,
      .max = 1 << 24,
      .help = "tokens of the whole conversation; 0 = what the model was trained for, at most "
              "4096" },
    { .name = "temp",
      .also = "temperature",
      .type = CLI_REAL,
      AT(temp),
      .value = "T",
      .fallback = "0.8",
      .min = 0,
      .max = 100,
      .help = "0 = the most likely token, always" },
    { .name = "top-k",
      .type = CLI_INT,
      AT(top_k),
      .value = "N",
      .fallback = "40",
      .min = 0,
      .max = 2147483647,
      .help = "choose among the N likeliest; 0 = off" },
    { .name = "top-p",
      .type = CLI_REAL,
      AT(top_p),
      .value = "P",
      .fallback = "0.95",
      .min = 0,
      .max = 1,
      .help = "choose among the likeliest that make up P; 1 = off" },
    { .name = "min-p",
      .type = CLI_REAL,
      AT(min_p),
      .value = "P",
      .fallback = "0.05",
      .min = 0,
      .max = 1,
      .help = "leave out what is below P times the likeliest; 0 = off" },
    { .name = "seed",
      .brief = "s",
      .type = CLI_INT,
      AT(seed),
      .value = "N",
      .fallback = "-1",
      .min = -1,
      .max = 4294967294.0,
      .help = "-1 = a different one each time" },
    { .name = "ignore-eos",
      .type = CLI_FLAG,
      AT(ignore_eos),
      .help = "go on after the model's end-of-answer token" },
};

#undef AT

enum {
    PROMPT_BYTES_MAX = 1 << 30, /* what the tokenizer takes */
    READ_BYTES = 64 * 1024,
};

/* ---- the prompt ------------------------------------------------------------------- */

static int read_prompt_file(struct cli_buffer *text, const char *path)
{
    bool    standard = strcmp(path, "-") == 0;
    int     fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : 1;

    while (n > 0) {
        char bytes[READ_BYTES];

        n = read(fd, bytes, sizeof(bytes));
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0 && cli_buffer_add(text, bytes, (size_t)n) < 0)
            goto failed;
        if (text->bytes > PROMPT_BYTES_MAX) {
            cli_fail("-f/--file: %.300s is larger than %d MiB", path, PROMPT_BYTES_MAX >> 20);
            goto failed;
        }
    }
    if (n < 0) {
        cli_fail("-f/--file: %.300s: %s", path, strerror(errno));
        goto failed;
    }
    if (!standard)
        close(fd);
    if (text->bytes > 0 && text->text[text->bytes - 1] == '\n')
        text->text[--text->bytes] = '\0';
    return cli_buffer_add(text, "", 0);

failed:
    if (!standard && fd >= 0)
        close(fd);
    return -1;
}

/* The one prompt of -p or -f in *text; text->text stays NULL when there is none. */
static int read_prompt(struct cli_buffer *text, const struct run_args *run)
{
    if (run->prompt != NULL && run->file != NULL)
        return cli_fail("-p/--prompt and -f/--file are two prompts; give one"), -1;
    if (run->prompt != NULL)
        return cli_buffer_add(text, run->prompt, strlen(run->prompt));
    if (run->file == NULL)
        return 0;
    if (read_prompt_file(text, run->file) < 0)
        return -1;
    if (strlen(text->text) != text->bytes)
        return cli_fail("-f/--file: %.300s holds a NUL byte at offset %zu: it is no text",
                        run->file, strlen(text->text)),
               -1;
    return 0;
}

/* ---- the run ---------------------------------------------------------------------- */

/* Decide whether the chat template is used, and say so when it is not. */
static int choose_raw(struct talk *talk)
{
    const mcp_chat_message probe = { .role = "user", .content = "x" };
    mcp_error              err = { 0 };
    int rc = talk->args->raw ? 0 : mcp_model_chat_format(talk->model, &probe, 1, 1, NULL, 0, &err);

    if (rc < 0 && rc != MCP_ENOTSUP)
        return cli_fail("%s", err.text), -1;
    talk->raw = talk->args->raw || rc < 0;
    if (rc < 0)
        cli_note("%s; the text goes in as it is, as with --raw", err.text);
    if (talk->raw && talk->args->system_prompt != NULL)
        cli_note("-sys/--system-prompt has no effect without a chat template");
    return 0;
}

static int open_model(struct talk *talk)
{
    const struct run_args *run = talk->args;

    if (cli_model_open(&talk->model, run->engine.model) < 0)
        return -1;
    return cli_cuts_check(&run->engine.cuts, talk->model) < 0 ? -1 : choose_raw(talk);
}

/* What the planner is to reckon with.  `text` is empty in a chat, whose turns are not known yet. */
static struct cli_request expect(const struct talk *talk, const struct cli_buffer *text)
{
    enum { TURN_TOKENS = 64, ANSWER_TOKENS = 256 };
    const int          flags = MCP_TOKENIZE_SPECIAL | MCP_TOKENIZE_BOS;
    int64_t            n = talk->args->n_predict;
    struct cli_request r = { .prompt_tokens = TURN_TOKENS,
                             .gen_tokens = n < 0   ? ANSWER_TOKENS
                                           : n > 0 ? (uint32_t)n
                                                   : 1 };
    int                count;

    if (text->text == NULL)
        return r;
    count = mcp_model_tokenize(talk->model, text->text, text->bytes, flags, NULL, 0, NULL);
    if (count > 0)
        r.prompt_tokens = (uint32_t)count;
    return r;
}

static int open_place(struct talk *talk, const struct cli_buffer *text)
{
    const struct run_args *run = talk->args;
    struct cli_request     request = expect(talk, text);
    uint32_t               ctx = (uint32_t)run->ctx_size;
    uint32_t               trained = mcp_model_get_info(talk->model)->n_ctx_train;

    if (ctx > trained && trained > 0) {
        cli_note("-c/--ctx-size %u is lowered to %u, the length that the model was trained for",
                 ctx, trained);
        ctx = trained;
    }
    request.ctx_tokens = ctx;
    return cli_place_open(&talk->place, talk->model, &run->args, &run->engine, &run->place,
                          &request);
}

/* The prompt as it goes in: formatted, unless raw. */
static int prompt_text(const struct talk *talk, const struct cli_buffer *prompt,
                       struct cli_buffer *text)
{
    mcp_chat_message messages[2];
    size_t           count = 0;

    if (talk->raw)
        return cli_buffer_add(text, prompt->text, prompt->bytes);
    if (talk->args->system_prompt != NULL)
        messages[count++] = (mcp_chat_message){ .role = "system",
                                                .content = talk->args->system_prompt };
    messages[count++] = (mcp_chat_message){ .role = "user", .content = prompt->text };
    return talk_format(talk, messages, count, text);
}

static int answer_one(struct talk *talk, const struct cli_buffer *text)
{
    struct cli_buffer answer = { 0 };
    enum talk_end     end = talk_answer(talk, text->text, text->bytes, &answer);

    cli_buffer_fini(&answer);
    /* An answer that was cut short by Ctrl-C is shown, yet a script must not go on. */
    return end == TALK_DONE ? CLI_OK : CLI_FAILED;
}

static int run_run(struct cli_args *args)
{
    const struct run_args *run = (const struct run_args *)args;
    struct talk            talk = { .args = run };
    struct cli_buffer      prompt = { 0 }, text = { 0 };
    int                    status = CLI_FAILED;

    if (run->engine.verbose)
        cli_log_verbose();
    if (read_prompt(&prompt, run) < 0 || open_model(&talk) < 0)
        goto out;
    if (prompt.text != NULL && prompt_text(&talk, &prompt, &text) < 0)
        goto out;
    if (open_place(&talk, &text) < 0 || cli_interrupt_init() < 0)
        goto out;
    status = prompt.text != NULL ? answer_one(&talk, &text) : talk_chat(&talk);
out:
    cli_place_close(&talk.place);
    mcp_model_close(talk.model);
    cli_buffer_fini(&prompt);
    cli_buffer_fini(&text);
    return status;
}

const struct cli_verb cli_verb_run = {
    .name = "run",
    .summary = "answer a prompt, or chat",
    .usage = "-m FILE [-p TEXT | -f FILE] [options]",
    .notes =
        "A chat on a pipe takes one turn a line. In a chat: /help, /clear, /exit; Ctrl-C stops\n"
        "the answer. Text goes to standard output, timings to standard error. With --worker the\n"
        "planner decides what runs where, of what --privacy allows ('mcp plan' shows how it "
        "would);\n"
        "--cuts 2,28 lays it down: the first 2 layers and those from 28 on here, the rest there.",
    .groups = { { "Prompt", prompt_options, sizeof(prompt_options) / sizeof(prompt_options[0]), 0 },
                { "Answer", answer_options, sizeof(answer_options) / sizeof(answer_options[0]), 0 },
                CLI_PLACE_GROUP(struct run_args),
                CLI_ENGINE_GROUP(struct run_args) },
    .args_bytes = sizeof(struct run_args),
    .run = run_run,
};
