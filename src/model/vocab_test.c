/* model/vocab_test.c - text to tokens and back, and tokenizers that would crash libllama.
 *
 * SPDX-License-Identifier: MIT */
#include "model/vocab.h"

#include "base/unit_test.h"

/* MCP_LLAMA_SRC/models/ggml-vocab-NAME.gguf */
static const char *vocab_path(const char *name)
{
    static char path[4096];
    const char *root = getenv("MCP_LLAMA_SRC");

    if (root == NULL || *root == '\0')
        fail_msg("MCP_LLAMA_SRC must name llama.cpp's sources: run this test with ./dev test");
    snprintf(path, sizeof(path), "%s/models/ggml-vocab-%s.gguf", root, name);
    return path;
}

static struct model_vocab *vocab_open(const char *path)
{
    struct model_vocab *v;
    mcp_error           err;

    unit_ok(model_vocab_open(&v, path, &err), &err);
    return v;
}

/* Text of tokens put together again. */
static size_t join(const struct model_vocab *v, const int32_t *tokens, int count, int special,
                   char *text, size_t cap)
{
    size_t used = 0;

    for (int i = 0; i < count; i++) {
        int bytes = model_vocab_token_bytes(v, tokens[i], special, text + used, cap - used, NULL);

        assert_true(bytes >= 0 && used + (size_t)bytes < cap);
        used += (size_t)bytes;
    }
    return used;
}

/* Goal:   text survives the way to tokens and back, whatever its bytes.
 * Method: both kinds of tokenizer on words, blanks, UTF-8, bytes that are none, a zero. */
static void text_survives_the_way_to_tokens_and_back(void **state)
{
    static const char *const names[] = { "qwen2", "llama-spm", "deepseek-llm" };
    static const struct {
        const char *text;
        size_t      bytes;
    } texts[] = { { "Hello, world!", 13 },
                  { "", 0 },
                  { "  two  blanks\n\n\ttab", 19 },
                  { "gr\xC3\xBC\xC3\x9F"
                    "e \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80",
                    20 },
                  { "a\0b", 3 } };

    (void)state;
    for (size_t n = 0; n < UNIT_COUNT(names); n++) {
        struct model_vocab *v = vocab_open(vocab_path(names[n]));

        for (size_t i = 0; i < UNIT_COUNT(texts); i++) {
            int32_t   tokens[64];
            char      back[256];
            size_t    bytes, skip;
            mcp_error err;
            int count = model_vocab_tokenize(v, texts[i].text, texts[i].bytes, 0, tokens, 64, &err);

            unit_ok(count, &err);
            bytes = join(v, tokens, count, 0, back, sizeof(back));
            /* SentencePiece puts a blank in front */
            skip = bytes > texts[i].bytes && back[0] == ' ' ? 1 : 0;
            assert_int_equal(bytes - skip, texts[i].bytes);
            assert_memory_equal(back + skip, texts[i].text, texts[i].bytes);
        }
        model_vocab_close(v);
    }
}

/* Goal:   with too little room the count is returned and nothing is written. */
static void too_little_room_returns_the_count(void **state)
{
    struct model_vocab *v = vocab_open(vocab_path("qwen2"));
    const char          text[] = "The quick brown fox jumps over the lazy dog";
    int32_t             tokens[32], again[32];
    char                bytes[64];
    mcp_error           err;
    int                 count, needed;

    (void)state;
    count = model_vocab_tokenize(v, text, strlen(text), 0, NULL, 0, &err);
    assert_true(count > 5 && count < 32);
    memset(tokens, 0x5a, sizeof(tokens));
    memcpy(again, tokens, sizeof(again));
    assert_int_equal(
        model_vocab_tokenize(v, text, strlen(text), 0, tokens, (size_t)count - 1, &err), count);
    assert_memory_equal(tokens, again, sizeof(tokens));
    assert_int_equal(model_vocab_tokenize(v, text, strlen(text), 0, tokens, (size_t)count, &err),
                     count);

    needed = model_vocab_token_bytes(v, tokens[1], 0, NULL, 0, &err);
    assert_true(needed > 1);
    memset(bytes, 0x5a, sizeof(bytes));
    assert_int_equal(model_vocab_token_bytes(v, tokens[1], 0, bytes, (size_t)needed - 1, &err),
                     needed);
    assert_int_equal(bytes[0], 0x5a);
    assert_int_equal(model_vocab_token_bytes(v, tokens[1], 0, bytes, (size_t)needed, &err), needed);
    assert_memory_equal(bytes, " quick", 6);
    model_vocab_close(v);
}

/* Goal:   control tokens are spelt by text and shown only when that is asked for, and the
 *         end of a turn ends an answer. */
static void control_tokens_need_to_be_asked_for(void **state)
{
    struct model_vocab *v = vocab_open(vocab_path("qwen2"));
    const char          text[] = "<|im_end|>";
    int32_t             tokens[16];
    char                bytes[32];
    int                 plain, special;

    (void)state;
    plain = model_vocab_tokenize(v, text, strlen(text), 0, tokens, 16, NULL);
    assert_true(plain > 1);
    for (int i = 0; i < plain; i++)
        assert_int_equal(model_vocab_token_ends(v, tokens[i]), 0);
    special = model_vocab_tokenize(v, text, strlen(text), MCP_TOKENIZE_SPECIAL, tokens, 16, NULL);
    assert_int_equal(special, 1);
    assert_int_equal(model_vocab_token_ends(v, tokens[0]), 1);
    assert_int_equal(model_vocab_token_bytes(v, tokens[0], 0, bytes, sizeof(bytes), NULL), 0);
    assert_int_equal(model_vocab_token_bytes(v, tokens[0], 1, bytes, sizeof(bytes), NULL), 10);
    assert_memory_equal(bytes, text, 10);
    model_vocab_close(v);
}

/* Goal:   the model's own prefix comes first when asked for, once. */
static void the_prefix_token_comes_first(void **state)
{
    struct model_vocab *v = vocab_open(vocab_path("llama-spm"));
    int32_t             with[16], without[16];
    int                 a, b;

    (void)state;
    a = model_vocab_tokenize(v, "Hello", 5, MCP_TOKENIZE_BOS, with, 16, NULL);
    b = model_vocab_tokenize(v, "Hello", 5, 0, without, 16, NULL);
    assert_int_equal(a, b + 1);
    assert_int_equal(with[0], 1);
    assert_memory_equal(with + 1, without, (size_t)b * sizeof(int32_t));
    model_vocab_close(v);
}

/* Goal:   a token id outside the vocabulary is refused, or ends nothing. */
static void an_id_outside_the_vocabulary_is_refused(void **state)
{
    struct model_vocab *v = vocab_open(vocab_path("llama-spm"));
    int32_t             bad[] = { -1, (int32_t)model_vocab_size(v), INT32_MAX, INT32_MIN };
    char                bytes[8];
    mcp_error           err;

    (void)state;
    assert_int_equal(model_vocab_size(v), 32000);
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        unit_refused(model_vocab_token_bytes(v, bad[i], 0, bytes, sizeof(bytes), &err), MCP_ERANGE,
                     &err, "outside the vocabulary of 32000");
        assert_int_equal(model_vocab_token_ends(v, bad[i]), 0);
    }
    unit_refused(model_vocab_tokenize(v, "", (size_t)MODEL_TEXT_BYTES_MAX + 1, 0, NULL, 0, &err),
                 MCP_ERANGE, &err, "can be tokenized at once");
    model_vocab_close(v);
    model_vocab_close(NULL);
}

/* Goal:   a file that libllama cannot read is a sentence with its reason. */
static void a_file_without_a_tokenizer_does_not_open(void **state)
{
    const char          *path = unit_path("keys.gguf");
    struct gguf_context *g = gguf_init_empty();
    struct model_vocab  *v;
    mcp_error            err;

    (void)state;
    gguf_set_val_str(g, "general.architecture", "llama");
    assert_true(gguf_write_to_file(g, path, false));
    gguf_free(g);
    unit_refused(model_vocab_open(&v, path, &err), MCP_EFORMAT, &err,
                 "the tokenizer cannot be used");
    assert_null(v);
    unit_refused(model_vocab_open(&v, unit_path("absent.gguf"), &err), MCP_EFORMAT, &err,
                 "absent.gguf");
    assert_null(v);
}

/* ---- checks before libllama ------------------------------------------------------ */

enum { TOKENS = 300 };

/* A tokenizer of 300 tokens, the first 256 of them all bytes. */
static struct gguf_context *made(const char *kind)
{
    static char          texts[TOKENS][16];
    static const char   *list[TOKENS];
    static int32_t       types[TOKENS];
    static float         scores[TOKENS];
    struct gguf_context *g = gguf_init_empty();

    for (int i = 0; i < TOKENS; i++) {
        snprintf(texts[i], sizeof(texts[i]), i < 256 ? "<0x%02X>" : "t%d", i);
        list[i] = texts[i];
        types[i] = i < 256 ? 6 : 1;
        scores[i] = (float)-i;
    }
    gguf_set_val_str(g, "tokenizer.ggml.model", kind);
    gguf_set_arr_str(g, "tokenizer.ggml.tokens", list, TOKENS);
    gguf_set_arr_data(g, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types, TOKENS);
    gguf_set_arr_data(g, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores, TOKENS);
    gguf_set_val_u32(g, "tokenizer.ggml.eos_token_id", 299);
    return g;
}

static void set_token(struct gguf_context *g, size_t index, const char *text)
{
    const char *list[TOKENS];
    char        own[TOKENS][16];
    int64_t     id = gguf_find_key(g, "tokenizer.ggml.tokens");

    for (size_t i = 0; i < TOKENS; i++) {
        snprintf(own[i], sizeof(own[i]), "%s", i == index ? text : gguf_get_arr_str(g, id, i));
        list[i] = own[i];
    }
    gguf_set_arr_str(g, "tokenizer.ggml.tokens", list, TOKENS);
}

static void check_must_refuse(struct gguf_context *g, int code, const char *about)
{
    mcp_error err;

    unit_refused(model_vocab_check(g, "made.gguf", &err), code, &err, about);
    gguf_free(g);
}

static void check_must_pass(struct gguf_context *g)
{
    mcp_error err;

    unit_ok(model_vocab_check(g, "made.gguf", &err), &err);
    gguf_free(g);
}

/* Goal:   without a tokenizer, or with one of another kind, layers can still run. */
static void another_kind_of_tokenizer_is_not_supported(void **state)
{
    struct gguf_context *g = gguf_init_empty();

    (void)state;
    check_must_refuse(g, MCP_ENOTSUP, "carries no tokenizer");
    check_must_pass(made("llama"));
    check_must_pass(made("gpt2"));
    check_must_refuse(made("bert"), MCP_ENOTSUP, "'bert' is not one of llama, gpt2");
    g = made("llama");
    gguf_remove_key(g, "tokenizer.ggml.tokens");
    check_must_refuse(g, MCP_ENOTSUP, "carries no tokenizer");
}

/* Goal:   keys on whose type libllama aborts are refused by name. */
static void a_key_of_another_type_is_refused(void **state)
{
    static const char *const typed[] = {
        "general.name",
        "general.file_type",
        "tokenizer.ggml.model",
        "tokenizer.ggml.pre",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
        "tokenizer.ggml.scores",
        "tokenizer.ggml.token_type",
        "tokenizer.chat_template",
        "tokenizer.ggml.add_bos_token",
        "tokenizer.ggml.add_space_prefix",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.fim_pad_token_id",
    };
    static const int8_t wrong[] = { 1, 2 };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(typed); i++) {
        struct gguf_context *g = made("llama");

        gguf_set_val_i8(g, typed[i], 1);
        check_must_refuse(g, MCP_EFORMAT, typed[i]);
        g = made("llama");
        gguf_set_arr_data(g, typed[i], GGUF_TYPE_INT8, wrong, 2);
        check_must_refuse(g, MCP_EFORMAT, typed[i]);
    }
}

/* Goal:   the parallel arrays are as long as the tokens, special ids below their number. */
static void arrays_and_ids_fit_the_tokens(void **state)
{
    static const float   scores[TOKENS + 1];
    static const int32_t types[TOKENS + 1];
    struct gguf_context *g;

    (void)state;
    for (size_t count = TOKENS - 1; count <= TOKENS + 1; count += 2) {
        g = made("llama");
        gguf_set_arr_data(g, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores, count);
        check_must_refuse(g, MCP_EFORMAT, "tokenizer.ggml.scores has");
        g = made("llama");
        gguf_set_arr_data(g, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types, count);
        check_must_refuse(g, MCP_EFORMAT, "tokenizer.ggml.token_type has");
    }
    g = made("llama");
    gguf_set_val_u32(g, "tokenizer.ggml.eot_token_id", TOKENS - 1);
    gguf_set_val_u32(g, "tokenizer.ggml.padding_token_id", UINT32_MAX); /* none */
    check_must_pass(g);
    g = made("llama");
    gguf_set_val_u32(g, "tokenizer.ggml.eot_token_id", TOKENS);
    check_must_refuse(g, MCP_EFORMAT, "eot_token_id is 300, there are 300 tokens");
}

/* Goal:   every token has a text of its own, every byte a token: libllama relies on both. */
static void texts_are_unique_and_every_byte_has_a_token(void **state)
{
    struct gguf_context *g = made("gpt2");

    (void)state;
    set_token(g, 299, "t256");
    check_must_refuse(g, MCP_EFORMAT, "token 299 has the text of an earlier one");
    g = made("gpt2");
    set_token(g, 270, ""); /* libllama calls it [EMPTY_270] */
    check_must_pass(g);
    g = made("gpt2");
    set_token(g, 270, "");
    set_token(g, 271, "[EMPTY_270]");
    check_must_refuse(g, MCP_EFORMAT, "'[EMPTY_270]' is taken");
    g = made("llama");
    set_token(g, 17, "<0xZZ>");
    check_must_refuse(g, MCP_EFORMAT, "must be <0xHH>");
    g = made("llama");
    set_token(g, 17, "<0x11>x");
    check_must_refuse(g, MCP_EFORMAT, "must be <0xHH>");
    g = made("gpt2"); /* that kind needs none */
    set_token(g, 17, "<0xZZ>");
    check_must_pass(g);
    g = made("llama");
    gguf_remove_key(g, "tokenizer.ggml.token_type");
    set_token(g, 65, "A"); /* the byte itself will do */
    check_must_pass(g);
    g = made("llama");
    gguf_remove_key(g, "tokenizer.ggml.token_type");
    set_token(g, 65, "a"); /* but that is another byte's */
    check_must_refuse(g, MCP_EFORMAT, "no token <0x41> for byte 65");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_survives_the_way_to_tokens_and_back),
        cmocka_unit_test(too_little_room_returns_the_count),
        cmocka_unit_test(control_tokens_need_to_be_asked_for),
        cmocka_unit_test(the_prefix_token_comes_first),
        cmocka_unit_test(an_id_outside_the_vocabulary_is_refused),
        cmocka_unit_test(a_file_without_a_tokenizer_does_not_open),
        cmocka_unit_test(another_kind_of_tokenizer_is_not_supported),
        cmocka_unit_test(a_key_of_another_type_is_refused),
        cmocka_unit_test(arrays_and_ids_fit_the_tokens),
        cmocka_unit_test(texts_are_unique_and_every_byte_has_a_token),
    };

    return cmocka_run_group_tests_name("model/vocab", tests, NULL, NULL);
}
