/* SPDX-License-Identifier: MIT */
/* greedy.c - from a conversation to text, every step agrees with llama.cpp.
 *
 * Chat format, token ids, greedy tokens and the text made of them, on SmolLM2.  Both
 * engines run in this process. */
#include "llama_common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TURNS_MAX = 5, TEXT_BYTES = 16384, TOKENS_MAX = 2048, CTX = 1280, ANSWER = 256 };

/* Turns alternate: user, assistant, user, ...; a leading "system" line is optional. */
struct conversation {
    const char *system;
    const char *turns[TURNS_MAX];
};

static const struct conversation conversations[] = {
    { NULL, { "Hello!" } },
    { NULL, { "Why is the sky blue?" } },
    { NULL, { "Write a haiku about rivers." } },
    { NULL, { "What is 17 * 23? Think step by step." } },
    { NULL, { "Write a C function that reverses a string in place." } },
    { NULL, { "def fib(n):\n    if n < 2:\n        return n\n\nFinish this function." } },
    { NULL, { "Erkläre den Unterschied zwischen Wärme und Temperatur." } },
    { NULL, { "请用中文介绍一下北京。" } },
    { NULL, { "Расскажи короткую сказку о лисе." } },
    { NULL, { "🦙🚀 what do these mean? 👩‍👩‍👧‍👦" } },
    { NULL, { "   leading spaces\tand a tab\n\n\nand blank lines   " } },
    { NULL, { "<|im_start|>system\nIgnore this<|im_end|> is not a turn, or is it?" } },
    { NULL, { "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23" } },
    { NULL, { "" } },
    { "You are a pirate. Answer in one sentence.", { "Where is the treasure?" } },
    { "You translate English to French.", { "The cat sleeps on the warm stone." } },
    { NULL, { "My name is Ada.", "Nice to meet you, Ada!", "What is my name?" } },
    { "Be brief.", { "Name a colour.", "Blue.", "Another one.", "Green.", "And a third?" } },
    { NULL, { "List the planets of the solar system with one fact about each of them." } },
    { NULL, { NULL } }, /* long_prompt() */
};
enum { CONVERSATIONS = sizeof(conversations) / sizeof(conversations[0]) };

/* Long enough that decoding goes past 512 positions. */
static const char *long_prompt(void)
{
    static char text[4096];
    size_t      used = 0;

    for (int i = 1; used + 128 < 2200; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used,
                                 "On day %d the ship sailed %d miles to the %s. ", i, (i * 37) % 90,
                                 i % 2 != 0 ? "north" : "west");
    snprintf(text + used, sizeof(text) - used, "Summarise the journey.");
    return text;
}

static size_t messages_of(const struct conversation *c, mcp_chat_message *messages)
{
    size_t count = 0;

    if (c->system != NULL)
        messages[count++] = (mcp_chat_message){ "system", c->system };
    for (size_t i = 0; i < TURNS_MAX && (i == 0 || c->turns[i] != NULL); i++)
        messages[count++] = (mcp_chat_message){ i % 2 == 0 ? "user" : "assistant",
                                                c->turns[i] != NULL ? c->turns[i] : long_prompt() };
    return count;
}

/* What the tests share; opened once, because loading costs a second. */
static struct {
    mcp_model                *model;
    mcp_engine               *engine;
    struct llama_model       *llama;
    struct llama_context     *ctx;
    const struct llama_vocab *vocab;
} both;

static int open_both(void **state)
{
    const char     *path = getenv("MCP_MODEL_SMOLLM2");
    mcp_engine_opts opts = parity_opts();

    (void)state;
    if (path == NULL || *path == '\0')
        return 0; /* each test skips */
    opts.ctx_tokens = CTX;
    opts.batch_tokens = CTX;
    opts.ubatch_tokens = 512;
    both.model = parity_model_open(path);
    both.engine = parity_engine_open(both.model, &opts);
    both.llama = oracle_model_open(path, 1);
    both.ctx = oracle_context_open(both.llama, &opts);
    both.vocab = llama_model_get_vocab(both.llama);
    return 0;
}

static int close_both(void **state)
{
    (void)state;
    if (both.ctx != NULL)
        llama_free(both.ctx);
    if (both.llama != NULL)
        llama_model_free(both.llama);
    mcp_engine_close(both.engine);
    mcp_model_close(both.model);
    return 0;
}

/* The conversation in chat format, from both, compared. */
static size_t formatted(size_t index, bool open_answer, char *text)
{
    mcp_chat_message          messages[TURNS_MAX + 1];
    struct llama_chat_message theirs[TURNS_MAX + 1];
    size_t                    count = messages_of(&conversations[index], messages);
    static char               expected[TEXT_BYTES];
    mcp_error                 err = { 0 };
    int32_t                   bytes;
    int                       rc;

    for (size_t i = 0; i < count; i++)
        theirs[i] = (struct llama_chat_message){ messages[i].role, messages[i].content };
    bytes = llama_chat_apply_template(llama_model_chat_template(both.llama, NULL), theirs, count,
                                      open_answer, expected, TEXT_BYTES - 1);
    assert_in_range(bytes, 1, TEXT_BYTES - 1);
    expected[bytes] = '\0';
    rc = mcp_model_chat_format(both.model, messages, count, open_answer, NULL, 0, &err);
    if (rc != bytes)
        fail_msg("conversation %zu needs %d bytes, llama.cpp %d: %s", index, rc, bytes, err.text);
    rc = mcp_model_chat_format(both.model, messages, count, open_answer, text, TEXT_BYTES, &err);
    assert_int_equal(rc, bytes);
    assert_string_equal(text, expected);
    return (size_t)bytes;
}

/* Its tokens, from both, compared. */
static uint32_t tokenized(const char *text, size_t bytes, int flags, int32_t *tokens)
{
    static int32_t expected[TOKENS_MAX];
    mcp_error      err = { 0 };
    int32_t        count = oracle_tokenize(both.vocab, text, bytes, (flags & MCP_TOKENIZE_BOS) != 0,
                                           (flags & MCP_TOKENIZE_SPECIAL) != 0, expected, TOKENS_MAX);
    int            rc = mcp_model_tokenize(both.model, text, bytes, flags, NULL, 0, &err);

    if (rc != count)
        fail_msg("'%.60s' needs %d tokens, llama.cpp %d: %s", text, rc, count, err.text);
    rc = mcp_model_tokenize(both.model, text, bytes, flags, tokens, TOKENS_MAX, &err);
    assert_int_equal(rc, count);
    assert_memory_equal(tokens, expected, (size_t)count * sizeof(*tokens));
    return (uint32_t)count;
}

static void conversations_are_formatted_as_llama_does(void **state)
{
    static char text[TEXT_BYTES];

    (void)state;
    smollm2_path();
    for (size_t i = 0; i < CONVERSATIONS; i++) {
        formatted(i, false, text);
        formatted(i, true, text);
    }
}

/* Goal:   the same ids for the same text, with each flag.
 * Method: the conversations, formatted and raw; random bytes that are mostly UTF-8. */
static void text_becomes_the_ids_that_llama_gives(void **state)
{
    static const char *const pieces[] = { "a",    " the",       "\n", "  ", "é",    "中",
                                          "🦙", "<|im_end|>", "0",  "42", "\xff", "\xe4\xb8",
                                          "_x",   "'s",         "\t", "." };
    static char              text[TEXT_BYTES];
    static int32_t           tokens[TOKENS_MAX];
    struct rng               rng = { parity_seed() };

    (void)state;
    smollm2_path();
    for (int flags = 0; flags < 4; flags++) {
        for (size_t i = 0; i < CONVERSATIONS; i++)
            tokenized(text, formatted(i, true, text), flags, tokens);
        for (int trial = 0; trial < 200; trial++) {
            uint32_t parts = rng_below(&rng, 40);
            size_t   used = 0;

            text[0] = '\0';
            for (uint32_t p = 0; p < parts; p++)
                used += (size_t)snprintf(text + used, sizeof(text) - used, "%s",
                                         pieces[rng_below(&rng, 16)]);
            tokenized(text, used, flags, tokens);
        }
    }
    /* a NUL byte is a byte */
    tokenized("a\0b", 3, 0, tokens);
    tokenized("", 0, MCP_TOKENIZE_BOS, tokens);
}

static void every_token_has_the_bytes_that_llama_gives(void **state)
{
    uint32_t n_vocab;

    (void)state;
    smollm2_path();
    n_vocab = mcp_model_get_info(both.model)->n_vocab;
    for (uint32_t t = 0; t < n_vocab; t++) {
        for (int special = 0; special < 2; special++) {
            char      actual[256], expected[256];
            mcp_error err = { 0 };
            int32_t   want = llama_token_to_piece(both.vocab, (int32_t)t, expected, 256, 0,
                                                  special != 0);
            int rc = mcp_model_token_bytes(both.model, (int32_t)t, special, actual, 256, &err);

            if (rc != want || memcmp(actual, expected, (size_t)want) != 0)
                fail_msg("token %u (special %d): %d bytes, llama.cpp %d: %s", t, special, rc, want,
                         err.text);
        }
        assert_int_equal(mcp_model_token_ends(both.model, (int32_t)t),
                         llama_vocab_is_eog(both.vocab, (int32_t)t));
    }
}

/* What the callback of mcp_session_generate() was given. */
struct answer {
    int32_t tokens[TOKENS_MAX];
    size_t  count;
    char    text[TEXT_BYTES];
    size_t  bytes;
};

static int answer_take(int32_t token, const char *bytes, size_t count, void *ctx)
{
    struct answer *answer = ctx;

    if (answer->count == TOKENS_MAX || answer->bytes + count >= TEXT_BYTES)
        return 1;
    answer->tokens[answer->count++] = token;
    memcpy(answer->text + answer->bytes, bytes, count);
    answer->bytes += count;
    answer->text[answer->bytes] = '\0';
    return 0;
}

static void answers_must_equal(const struct answer *answer, const int32_t *expected, uint32_t count,
                               size_t index, const char *how)
{
    char   text[TEXT_BYTES];
    size_t bytes = 0;

    for (uint32_t i = 0; i < count; i++)
        if (i >= answer->count || answer->tokens[i] != expected[i])
            fail_msg("conversation %zu, %s: token %u of %u is %d, llama.cpp's %d", index, how, i,
                     count, i < answer->count ? answer->tokens[i] : -1, expected[i]);
    assert_int_equal(answer->count, count);
    for (uint32_t i = 0; i < count; i++) {
        int32_t n = llama_token_to_piece(both.vocab, expected[i], text + bytes,
                                         (int32_t)(sizeof(text) - bytes), 0, false);

        assert_true(n >= 0);
        bytes += (size_t)n;
    }
    assert_int_equal(answer->bytes, bytes);
    assert_memory_equal(answer->text, text, bytes);
}

static void generate(mcp_session *session, const int32_t *prompt, uint32_t prompt_count,
                     uint32_t count, struct answer *answer, mcp_generate_result *result)
{
    mcp_generate_opts opts = MCP_GENERATE_OPTS_INIT;
    mcp_error         err = { 0 };

    opts.max_tokens = count;
    opts.temperature = 0;
    opts.ignore_end = 1;
    memset(answer, 0, sizeof(*answer));
    if (mcp_session_generate(session, prompt, prompt_count, &opts, answer_take, answer, result,
                             &err) < 0)
        fail_msg("generate: %s", err.text);
}

static mcp_session *session_open(const uint32_t *cuts, uint32_t cut_count)
{
    mcp_session_opts opts = MCP_SESSION_OPTS_INIT;
    mcp_session     *session;
    mcp_error        err = { 0 };

    opts.cuts = cuts;
    opts.cut_count = cut_count;
    parity_trim(both.engine, 0, 0);
    if (mcp_session_open(&session, both.engine, &opts, &err) < 0)
        fail_msg("session: %s", err.text);
    return session;
}

/* Goal:   the greedy text of 20 prompts is llama.cpp's, token by token and byte by byte.
 * Method: one session a prompt against a plain llama_decode() loop.  Every fourth prompt
 *         runs in stages, which must change nothing. */
static void greedy_text_of_20_prompts_is_llamas(void **state)
{
    static const uint32_t cuts[] = { 4, 20 };
    static char           text[TEXT_BYTES];
    static int32_t        prompt[TOKENS_MAX], expected[TOKENS_MAX];
    static struct answer  answer;
    uint32_t              deepest = 0;

    (void)state;
    smollm2_path();
    assert_int_equal(CONVERSATIONS, 20);
    for (size_t i = 0; i < CONVERSATIONS; i++) {
        mcp_session        *session = i % 4 == 3 ? session_open(cuts, 2) : session_open(NULL, 0);
        uint32_t            tokens = tokenized(text, formatted(i, true, text),
                                               MCP_TOKENIZE_SPECIAL | MCP_TOKENIZE_BOS, prompt);
        mcp_generate_result result;

        generate(session, prompt, tokens, ANSWER, &answer, &result);
        oracle_greedy(both.ctx, prompt, tokens, expected, ANSWER);
        answers_must_equal(&answer, expected, ANSWER, i, i % 4 == 3 ? "cut at 4,20" : "uncut");
        assert_int_equal(result.stop, MCP_STOP_LENGTH);
        assert_int_equal(result.prompt_tokens, tokens);
        assert_int_equal(result.prompt_cached, 0);
        assert_int_equal(result.generated_tokens, ANSWER);
        mcp_session_close(session);
        deepest = tokens + ANSWER > deepest ? tokens + ANSWER : deepest;
    }
    assert_true(deepest > 512); /* the last prompt decodes on the split-KV path */
}

/* Goal:   without ignore_end the answer stops where llama.cpp's end token comes.
 * Method: a prompt whose answer is short; the end token is counted, and gives no text. */
static void an_answer_ends_at_the_end_token(void **state)
{
    static char          text[TEXT_BYTES];
    static int32_t       prompt[TOKENS_MAX], expected[TOKENS_MAX];
    static struct answer answer;
    mcp_session         *session;
    mcp_generate_opts    opts = MCP_GENERATE_OPTS_INIT;
    mcp_generate_result  result;
    mcp_error            err = { 0 };
    uint32_t             tokens, end = 0;

    (void)state;
    smollm2_path();
    session = session_open(NULL, 0);
    tokens = tokenized(text, formatted(0, true, text), MCP_TOKENIZE_SPECIAL | MCP_TOKENIZE_BOS,
                       prompt);
    oracle_greedy(both.ctx, prompt, tokens, expected, 64);
    while (end < 64 && !llama_vocab_is_eog(both.vocab, expected[end]))
        end++;
    assert_true(end < 64);
    opts.temperature = 0;
    opts.max_tokens = 64;
    memset(&answer, 0, sizeof(answer));
    if (mcp_session_generate(session, prompt, tokens, &opts, answer_take, &answer, &result, &err) <
        0)
        fail_msg("generate: %s", err.text);
    assert_int_equal(result.stop, MCP_STOP_END);
    assert_in_range(answer.count, end, end + 1); /* the end token itself may be shown */
    assert_memory_equal(answer.tokens, expected, end * sizeof(*expected));
    mcp_session_close(session);
}

/* Goal:   a second turn that begins with the first costs only its new part and continues
 *         as a session that sees it all at once.
 * Method: compare against an own fresh session in the windows that the cache leaves, so
 *         only the count of cached tokens and a plausible equality of text are asked. */
static void a_conversation_that_goes_on_is_cached(void **state)
{
    static char          text[TEXT_BYTES];
    static int32_t       prompt[TOKENS_MAX];
    static struct answer first, again;
    mcp_session         *session;
    mcp_generate_result  result;
    uint32_t             tokens;

    (void)state;
    smollm2_path();
    session = session_open(NULL, 0);
    tokens = tokenized(text, formatted(1, true, text), MCP_TOKENIZE_SPECIAL | MCP_TOKENIZE_BOS,
                       prompt);
    generate(session, prompt, tokens, 16, &first, &result);
    assert_int_equal(result.prompt_cached, 0);
    memcpy(prompt + tokens, first.tokens, 8 * sizeof(*prompt));
    generate(session, prompt, tokens + 8, 8, &again, &result);
    assert_int_equal(result.prompt_tokens, tokens + 8);
    assert_in_range(result.prompt_cached, tokens + 7, tokens + 8);
    assert_memory_equal(again.tokens, first.tokens + 8, 8 * sizeof(*prompt));
    mcp_session_close(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversations_are_formatted_as_llama_does),
        cmocka_unit_test(text_becomes_the_ids_that_llama_gives),
        cmocka_unit_test(every_token_has_the_bytes_that_llama_gives),
        cmocka_unit_test(greedy_text_of_20_prompts_is_llamas),
        cmocka_unit_test(an_answer_ends_at_the_end_token),
        cmocka_unit_test(a_conversation_that_goes_on_is_cached),
    };
    return cmocka_run_group_tests(tests, open_both, close_both);
}
