/* fuzz/model_file.c - the bytes of a model file are the input.
 *
 * Opens the input as a GGUF, uses everything a model offers, and runs two tokens
 * through an engine when the model is small.  Beside crashes, leaks and undefined
 * behaviour, broken promises are findings:
 *   - a failure sets *out to NULL, returns the code that it stores, and says a
 *     printable sentence;
 *   - a model that opened has sizes inside their limits, and token ids inside its
 *     vocabulary;
 *   - a forward that is cut in two gives the same bits as the uncut one.
 *
 * ggml and libllama are linked as they are, without instrumentation: what our checks
 * let through to them shows as a crash there.
 *
 * ./dev fuzz model_file SECONDS; seeds in fuzz/corpus/model_file are written by
 * fuzz/make_corpus.py, words by fuzz/model_file.dict.
 *
 * SPDX-License-Identifier: MIT */
#include <mcp/engine.h>
#include <mcp/model.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    /* Larger models open, but are not run: 200,000 parameters take about 1 ms. */
    RUN_PARAMETERS_MAX = 200000,
    RUN_LAYERS_MAX = 16,
    RUN_FF_MAX = 4096,
    CTX_TOKENS = 32,
    TOKENS_MAX = 256,
};

/* assert() without its dependence on NDEBUG. */
#define CHECK(condition)                                                                    \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                        \
        }                                                                                   \
    } while (0)

/* A failed call: its code is stored and its sentence fits a terminal line. */
static void check_failure(int rc, const mcp_error *err)
{
    CHECK(rc < 0);
    CHECK(err->code == rc);
    CHECK(strcmp(mcp_code_name(rc), "unknown") != 0);
    CHECK(memchr(err->text, '\0', sizeof(err->text)) != NULL);
    CHECK(err->text[0] != '\0');
    for (const char *c = err->text; *c != '\0'; c++)
        CHECK((unsigned char)*c >= 0x20 && *c != 0x7f);
}

/* The input as a file; the path stays the same for the whole run. */
static const char *write_input(const uint8_t *data, size_t size)
{
    static char path[64];
    static int  fd = -1;

    if (fd < 0) {
        fd = memfd_create("model_file", MFD_CLOEXEC);
        CHECK(fd >= 0);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    CHECK(ftruncate(fd, 0) == 0);
    CHECK(pwrite(fd, data, size, 0) == (ssize_t)size);
    return path;
}

static void use_tokenizer(const mcp_model *model, const mcp_model_info *info)
{
    static const char text[] = "the <s>Qx\xc3\xa9\n\xff\xf0\x9f\x98\x80 </s>";
    int32_t           tokens[TOKENS_MAX];
    char              bytes[64], chat[256];
    mcp_chat_message  message = { "user", "the cat" };
    mcp_error         err;
    int               count;

    for (int flags = 0; flags <= (MCP_TOKENIZE_SPECIAL | MCP_TOKENIZE_BOS); flags++) {
        count = mcp_model_tokenize(model, text, sizeof(text) - 1, flags, tokens, TOKENS_MAX, &err);
        if (count < 0) {
            check_failure(count, &err);
            break;
        }
        for (int i = 0; i < count && count <= TOKENS_MAX; i++) {
            CHECK(tokens[i] >= 0 && (uint32_t)tokens[i] < info->n_vocab);
            CHECK(mcp_model_token_bytes(model, tokens[i], 1, bytes, sizeof(bytes), &err) >= 0);
            CHECK(mcp_model_token_ends(model, tokens[i]) >= 0);
        }
    }
    count = mcp_model_token_bytes(model, (int32_t)info->n_vocab, 1, bytes, sizeof(bytes), &err);
    check_failure(count, &err);
    CHECK(mcp_model_token_ends(model, -1) == 0);

    count = mcp_model_chat_format(model, &message, 1, 1, chat, sizeof(chat), &err);
    if (count < 0)
        check_failure(count, &err);
    else if ((size_t)count < sizeof(chat))
        CHECK(chat[count] == '\0');
}

static void use_fingerprints(const mcp_model *model, const mcp_model_info *info)
{
    uint8_t   first[MCP_FINGERPRINT_BYTES], again[MCP_FINGERPRINT_BYTES];
    mcp_error err;

    CHECK(mcp_model_fingerprint(model, first, &err) == MCP_OK);
    CHECK(mcp_model_fingerprint(model, again, &err) == MCP_OK);
    CHECK(memcmp(first, again, sizeof(first)) == 0);
    for (int layer = MCP_PART_HEAD; layer < (int)info->layers && layer < RUN_LAYERS_MAX; layer++)
        CHECK(mcp_model_weights_fingerprint(model, layer, first, &err) == MCP_OK);
    check_failure(mcp_model_weights_fingerprint(model, (int)info->layers, first, &err), &err);
}

/* Two tokens uncut in sequence 0, and cut in two in sequence 1. */
static void run(const mcp_model *model, const mcp_model_info *info)
{
    mcp_engine_opts opts = MCP_ENGINE_OPTS_INIT;
    mcp_engine     *engine = NULL;
    int32_t         tokens[2] = { 0, (int32_t)info->n_vocab - 1 };
    mcp_window      window = { .count = 2, .tokens = tokens, .out = MCP_OUT_LAST };
    float          *whole = malloc(info->n_vocab * sizeof(float));
    float          *cut = malloc(info->n_vocab * sizeof(float));
    float          *hidden = malloc(2 * info->n_embd * sizeof(float));
    uint32_t        middle = info->layers / 2;
    mcp_error       err;
    int             rc;

    CHECK(whole != NULL && cut != NULL && hidden != NULL);
    opts.ctx_tokens = CTX_TOKENS;
    opts.seqs = 2;
    opts.batch_tokens = opts.ubatch_tokens = CTX_TOKENS;
    opts.threads = 1;
    opts.poll = 0;
    opts.device = "cpu";
    rc = mcp_engine_open(&engine, model, &opts, &err);
    if (rc < 0) {
        check_failure(rc, &err);
        CHECK(engine == NULL);
        goto out;
    }
    rc = mcp_engine_forward(engine, 0, info->layers, MCP_WANT_LOGITS, &window, 1, whole,
                            info->n_vocab, &err);
    if (rc < 0) {
        check_failure(rc, &err);
        goto out;
    }
    if (middle == 0)
        goto out;

    window.seq = 1;
    window.out = MCP_OUT_ALL;
    rc = mcp_engine_forward(engine, 0, middle, MCP_WANT_HIDDEN, &window, 1, hidden,
                            2 * (size_t)info->n_embd, &err);
    CHECK(rc == MCP_OK);
    window.tokens = NULL;
    window.hidden = hidden;
    window.out = MCP_OUT_LAST;
    rc = mcp_engine_forward(engine, middle, info->layers, MCP_WANT_LOGITS, &window, 1, cut,
                            info->n_vocab, &err);
    if (rc < 0) { /* weights may hold a NaN, and then the hidden state does */
        check_failure(rc, &err);
        CHECK(rc == MCP_EINVAL);
    } else {
        CHECK(memcmp(whole, cut, info->n_vocab * sizeof(float)) == 0);
    }
out:
    mcp_engine_close(engine);
    free(whole);
    free(cut);
    free(hidden);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char           *path = write_input(data, size);
    const mcp_model_info *info;
    mcp_model            *model = NULL;
    mcp_error             err;
    int                   rc;

    rc = mcp_model_open(&model, path, &err);
    if (rc < 0) {
        check_failure(rc, &err);
        CHECK(model == NULL);
        return 0;
    }
    info = mcp_model_get_info(model);
    CHECK(strcmp(info->path, path) == 0);
    CHECK(info->architecture != NULL && info->name != NULL && info->quantisation != NULL &&
          info->tokenizer != NULL);
    CHECK(info->layers > 0 && info->n_embd > 0 && info->n_vocab > 0 && info->parts == 1);
    CHECK(info->file_bytes == size && info->weight_bytes <= size);
    CHECK(mcp_model_range_bytes(model, 0, info->layers) <= 2 * info->weight_bytes);
    CHECK(mcp_model_range_bytes(model, info->layers, UINT32_MAX) <= info->weight_bytes);

    use_fingerprints(model, info);
    use_tokenizer(model, info);
    if (info->parameters <= RUN_PARAMETERS_MAX && info->layers <= RUN_LAYERS_MAX &&
        info->n_ff <= RUN_FF_MAX)
        run(model, info);
    mcp_model_close(model);
    return 0;
}
