/* SPDX-License-Identifier: MIT */
/* tokenizer.c - DeepSeek's own tokenizers give the ids that their authors' do.
 *
 * The vocabulary files in llama.cpp's sources come with texts (.inp, separated by a line)
 * and the ids that the original tokenizers gave (.out, one line a text).  The files hold
 * no tensors, so mcp_model_open() refuses them; model_vocab_open() reads them alone. */
#include "llama_common.h"

#include "model/vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS_MAX = 4096 };

static const char separator[] = "\n__ggml_vocab_test__\n";

/* MCP_LLAMA_SRC/models/ggml-vocab-NAME.gguf + suffix */
static const char *vocab_path(const char *name, const char *suffix)
{
    static char path[4096];
    const char *root = getenv("MCP_LLAMA_SRC");

    if (root == NULL || *root == '\0')
        fail_msg("MCP_LLAMA_SRC must name llama.cpp's sources");
    snprintf(path, sizeof(path), "%s/models/ggml-vocab-%s.gguf%s", root, name, suffix);
    return path;
}

/* Terminated, to be freed. */
static char *read_whole(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);

    if (file == NULL)
        fail_msg("%s does not open", path);
    assert_non_null(text);
    *bytes = fread(text, 1, (1 << 20) - 1, file);
    assert_true(*bytes < (1 << 20) - 1);
    fclose(file);
    return text;
}

static struct model_vocab *vocab_open(const char *name)
{
    struct model_vocab *vocab;
    mcp_error           err = { 0 };

    if (model_vocab_open(&vocab, vocab_path(name, ""), &err) < 0)
        fail_msg("model_vocab_open(%s): %s", name, err.text);
    return vocab;
}

/* Ids of one .out line, parsed. */
static size_t ids_of(char *line, int32_t *ids)
{
    char  *rest = NULL;
    size_t count = 0;

    for (char *id = strtok_r(line, " \r", &rest); id != NULL; id = strtok_r(NULL, " \r", &rest)) {
        assert_true(count < TOKENS_MAX);
        ids[count++] = (int32_t)strtol(id, NULL, 10);
    }
    return count;
}

static void must_give(const struct model_vocab *vocab, const char *text, size_t bytes, int flags,
                      const int32_t *expected, size_t count, const char *what, size_t number)
{
    static int32_t tokens[TOKENS_MAX];
    mcp_error      err = { 0 };
    int            rc = model_vocab_tokenize(vocab, text, bytes, flags, NULL, 0, &err);

    if (rc < 0 || (size_t)rc != count)
        fail_msg("%s %zu needs %d tokens, not %zu: %s", what, number, rc, count, err.text);
    rc = model_vocab_tokenize(vocab, text, bytes, flags, tokens, TOKENS_MAX, &err);
    assert_int_equal(rc, count);
    for (size_t i = 0; i < count; i++)
        if (tokens[i] != expected[i])
            fail_msg("%s %zu, token %zu is %d, not %d", what, number, i, tokens[i], expected[i]);
}

/* Goal:   the ids are those of the original tokenizer.
 * Method: every pair of the file; without prefix token, control tokens are plain text. */
static void pairs_are_reproduced(void **state)
{
    const char         *name = *state;
    static int32_t      expected[TOKENS_MAX];
    struct model_vocab *vocab = vocab_open(name);
    size_t              inp_bytes, out_bytes, number = 0;
    char               *inp = read_whole(vocab_path(name, ".inp"), &inp_bytes);
    char               *out = read_whole(vocab_path(name, ".out"), &out_bytes);
    char               *line = out;

    for (char *text = inp; text < inp + inp_bytes; number++) {
        char  *ends = memmem(text, (size_t)(inp + inp_bytes - text), separator,
                             sizeof(separator) - 1);
        char  *line_ends = strchr(line, '\n');
        size_t count;

        if (line_ends == NULL)
            fail_msg("%s: no ids for text %zu", name, number);
        *line_ends = '\0';
        count = ids_of(line, expected);
        must_give(vocab, text, (size_t)((ends != NULL ? ends : inp + inp_bytes) - text), 0,
                  expected, count, name, number);
        line = line_ends + 1;
        text = ends != NULL ? ends + sizeof(separator) - 1 : inp + inp_bytes;
    }
    assert_true(number > 30);
    if (*line != '\0')
        fail_msg("%s: ids for more than %zu texts", name, number);
    print_message("%s: %zu texts\n", name, number);
    free(inp);
    free(out);
    model_vocab_close(vocab);
}

/* Goal:   the flags mean what they mean in llama.cpp.
 * Method: texts with control tokens and without, each flag, against llama_tokenize(). */
static void flags_are_llamas(void **state)
{
    static const char *const texts[] = {
        "",
        " ",
        "Hello world",
        "<｜begin▁of▁sentence｜>User: hi\n\nAssistant:",
        "<｜end▁of▁sentence｜>",
        "<|im_start|>user\nhi<|im_end|>\n",
        "<|endoftext|>x",
        "<|begin_of_text|>a<|eot_id|>b",
        "line one\r\nline two\n\n\tdef f(x):\n        return x",
        "\xff\xfe broken \xe4\xb8",
        "数学 123456789 １２３",
        "e\xcc\x81 combining",
    };
    static int32_t            expected[TOKENS_MAX];
    const char               *name = *state;
    struct model_vocab       *vocab = vocab_open(name);
    struct llama_model       *llama = oracle_vocab_open(vocab_path(name, ""));
    const struct llama_vocab *oracle = llama_model_get_vocab(llama);

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        for (int flags = 0; flags < 4; flags++) {
            size_t  bytes = strlen(texts[i]);
            int32_t count = oracle_tokenize(
                oracle, texts[i], bytes, (flags & MCP_TOKENIZE_BOS) != 0,
                (flags & MCP_TOKENIZE_SPECIAL) != 0, expected, TOKENS_MAX);

            must_give(vocab, texts[i], bytes, flags, expected, (size_t)count, name, i);
        }
    }
    llama_model_free(llama);
    model_vocab_close(vocab);
}

/* Goal:   a vocabulary is not a model, and a refusal says so. */
static void a_vocabulary_file_is_refused_as_a_model(void **state)
{
    mcp_model *model = NULL;
    mcp_error  err = { 0 };

    assert_true(mcp_model_open(&model, vocab_path(*state, ""), &err) < 0);
    assert_null(model);
    assert_true(err.text[0] != '\0');
}

int main(void)
{
#define EACH(name)                                                                             \
    { name ": pairs are reproduced", pairs_are_reproduced, NULL, NULL, name },                 \
        { name ": flags are llama.cpp's", flags_are_llamas, NULL, NULL, name },                \
    {                                                                                          \
        name ": refused as a model", a_vocabulary_file_is_refused_as_a_model, NULL, NULL, name \
    }
    const struct CMUnitTest tests[] = {
        EACH("deepseek-llm"),
        EACH("deepseek-coder"),
        EACH("qwen2"),
        EACH("llama-bpe"),
    };
#undef EACH
    return cmocka_run_group_tests(tests, NULL, NULL);
}
