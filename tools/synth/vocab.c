/* SPDX-License-Identifier: MIT */
/* vocab.c - a tokenizer taken from a file or made up.
 *
 * gguf.h can copy all keys of a file or none, so the keys wanted are copied one
 * by one, by type.  Both ways end with a chat template, ChatML unless the file
 * brings its own, so that chat works with every file written here. */
#include "vocab.h"

#include <stdlib.h>
#include <string.h>

enum {
    TOKEN_NORMAL = 1, /* llama.cpp's enum llama_token_type */
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
    MOVED_MAX = 16,      /* ids that llama.cpp knows: bos, eos, pad, ... */
    TEXT_BYTES_MAX = 24, /* "[PAD4294967295]" and "<|im_start|>" fit */
};

static const char chatml[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/* Parallel arrays as the keys have them. */
struct tokens {
    uint32_t     count;
    const char **text; /* points into a source file or into `own` */
    float       *score;
    int32_t     *type;
    char (*own)[TEXT_BYTES_MAX];
};

static void tokens_fini(struct tokens *t)
{
    free(t->text);
    free(t->score);
    free(t->type);
    free(t->own);
}

static int tokens_init(struct tokens *t, uint32_t count, struct synth_error *err)
{
    *t = (struct tokens){ .count = count };
    t->text = calloc(count, sizeof *t->text);
    t->score = calloc(count, sizeof *t->score);
    t->type = calloc(count, sizeof *t->type);
    t->own = calloc(count, sizeof *t->own);
    if (!t->text || !t->score || !t->type || !t->own) {
        tokens_fini(t);
        return synth_fail(err, "out of memory for %u tokens", count);
    }
    return 0;
}

static void tokens_write(const struct tokens *t, struct gguf_context *out, bool scores)
{
    gguf_set_arr_str(out, "tokenizer.ggml.tokens", t->text, t->count);
    if (scores)
        gguf_set_arr_data(out, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, t->score, t->count);
    gguf_set_arr_data(out, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, t->type, t->count);
}

/* The i-th filler piece: a word mark, letters, marked letters, then every string
 * of two, three and four letters.  All differ; 475,000 of them exist. */
static void filler(char *text, uint32_t i)
{
    static const char letters[] = "etaoinshrdlcumwfgypbvkjxqz";
    static const char mark[] = "\xe2\x96\x81"; /* U+2581, SentencePiece's space */
    uint32_t          length = 2, combinations = 26 * 26;

    if (i == 0) {
        memcpy(text, mark, sizeof mark);
    } else if (i < 27) {
        text[0] = letters[i - 1];
    } else if (i < 53) {
        memcpy(text, mark, sizeof mark - 1);
        text[sizeof mark - 1] = letters[i - 27];
    } else {
        for (i -= 53; i >= combinations; combinations *= 26, length++)
            i -= combinations;
        while (length--) {
            text[length] = letters[i % 26];
            i /= 26;
        }
    }
}

int synth_vocab_invent(struct gguf_context *out, uint32_t n_vocab, struct synth_error *err)
{
    static const char *const special[] = { "<unk>", "<s>", "</s>" };
    static const char *const marks[] = { "<|im_start|>", "<|im_end|>" };
    struct tokens            t;

    if (n_vocab < SYNTH_VOCAB_MIN)
        return synth_fail(err, "a made-up tokenizer needs a vocab of at least %d, not %u",
                          SYNTH_VOCAB_MIN, n_vocab);
    if (tokens_init(&t, n_vocab, err) < 0)
        return -1;
    for (uint32_t i = 0; i < n_vocab; i++) {
        char *text = t.own[i];

        t.text[i] = text;
        if (i < 3) {
            strcpy(text, special[i]);
            t.type[i] = i ? TOKEN_CONTROL : TOKEN_UNKNOWN;
        } else if (i < 259) {
            snprintf(text, TEXT_BYTES_MAX, "<0x%02X>", i - 3);
            t.type[i] = TOKEN_BYTE;
        } else if (i < SYNTH_VOCAB_MIN) {
            strcpy(text, marks[i - 259]);
            t.type[i] = TOKEN_CONTROL;
        } else {
            filler(text, i - SYNTH_VOCAB_MIN);
            t.type[i] = TOKEN_NORMAL;
            t.score[i] = -(float)(i - SYNTH_VOCAB_MIN);
        }
    }
    gguf_set_val_str(out, "tokenizer.ggml.model", "llama");
    gguf_set_val_str(out, "tokenizer.ggml.pre", "default");
    tokens_write(&t, out, true);
    gguf_set_val_u32(out, "tokenizer.ggml.bos_token_id", 1);
    gguf_set_val_u32(out, "tokenizer.ggml.eos_token_id", 2);
    gguf_set_val_u32(out, "tokenizer.ggml.unknown_token_id", 0);
    gguf_set_val_bool(out, "tokenizer.ggml.add_bos_token", true);
    gguf_set_val_bool(out, "tokenizer.ggml.add_eos_token", false);
    gguf_set_val_str(out, "tokenizer.chat_template", chatml);
    tokens_fini(&t);
    return 0;
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), m = strlen(end);

    return n >= m && strcmp(s + n - m, end) == 0;
}

static int copy_strings(struct gguf_context *out, const struct gguf_context *in, int64_t id,
                        struct synth_error *err)
{
    const size_t n = gguf_get_arr_n(in, id);
    const char **text = calloc(n ? n : 1, sizeof *text);

    if (!text)
        return synth_fail(err, "out of memory for %zu strings", n);
    for (size_t i = 0; i < n; i++)
        text[i] = gguf_get_arr_str(in, id, i);
    gguf_set_arr_str(out, gguf_get_key(in, id), text, n);
    free(text);
    return 0;
}

/* Copy one key of any type. */
static int copy_key(struct gguf_context *out, const struct gguf_context *in, int64_t id,
                    struct synth_error *err)
{
    const char *key = gguf_get_key(in, id);

    switch (gguf_get_kv_type(in, id)) {
    case GGUF_TYPE_UINT8: gguf_set_val_u8(out, key, gguf_get_val_u8(in, id)); break;
    case GGUF_TYPE_INT8: gguf_set_val_i8(out, key, gguf_get_val_i8(in, id)); break;
    case GGUF_TYPE_UINT16: gguf_set_val_u16(out, key, gguf_get_val_u16(in, id)); break;
    case GGUF_TYPE_INT16: gguf_set_val_i16(out, key, gguf_get_val_i16(in, id)); break;
    case GGUF_TYPE_UINT32: gguf_set_val_u32(out, key, gguf_get_val_u32(in, id)); break;
    case GGUF_TYPE_INT32: gguf_set_val_i32(out, key, gguf_get_val_i32(in, id)); break;
    case GGUF_TYPE_FLOAT32: gguf_set_val_f32(out, key, gguf_get_val_f32(in, id)); break;
    case GGUF_TYPE_UINT64: gguf_set_val_u64(out, key, gguf_get_val_u64(in, id)); break;
    case GGUF_TYPE_INT64: gguf_set_val_i64(out, key, gguf_get_val_i64(in, id)); break;
    case GGUF_TYPE_FLOAT64: gguf_set_val_f64(out, key, gguf_get_val_f64(in, id)); break;
    case GGUF_TYPE_BOOL: gguf_set_val_bool(out, key, gguf_get_val_bool(in, id)); break;
    case GGUF_TYPE_STRING: gguf_set_val_str(out, key, gguf_get_val_str(in, id)); break;
    case GGUF_TYPE_ARRAY:
        if (gguf_get_arr_type(in, id) == GGUF_TYPE_STRING)
            return copy_strings(out, in, id, err);
        gguf_set_arr_data(out, key, gguf_get_arr_type(in, id), gguf_get_arr_data(in, id),
                          gguf_get_arr_n(in, id));
        break;
    case GGUF_TYPE_COUNT: break;
    }
    return 0;
}

/* The array of that key if it has this type and at least n entries, else NULL. */
static const void *array_of(const struct gguf_context *in, const char *key, enum gguf_type type,
                            size_t n)
{
    const int64_t id = gguf_find_key(in, key);

    if (id < 0 || gguf_get_kv_type(in, id) != GGUF_TYPE_ARRAY ||
        gguf_get_arr_type(in, id) != type || gguf_get_arr_n(in, id) < n)
        return NULL;
    return gguf_get_arr_data(in, id);
}

/* Special tokens that were cut off take the last places that are left. */
struct moved {
    uint32_t count;
    uint32_t from[MOVED_MAX];
    uint32_t n_vocab;
};

/* The place of a source's token in the file written; UINT32_MAX: none. */
static uint32_t moved_to(const struct moved *m, uint32_t id)
{
    if (id < m->n_vocab - m->count)
        return id;
    for (uint32_t i = 0; i < m->count; i++)
        if (m->from[i] == id)
            return m->n_vocab - 1 - i;
    return UINT32_MAX;
}

static bool is_special_id(const struct gguf_context *in, int64_t id)
{
    return ends_with(gguf_get_key(in, id), "_token_id") &&
           gguf_get_kv_type(in, id) == GGUF_TYPE_UINT32;
}

static struct moved move_specials(const struct gguf_context *in, size_t n, uint32_t n_vocab)
{
    struct moved m = { .n_vocab = n_vocab };

    for (int64_t id = 0; id < gguf_get_n_kv(in); id++) {
        uint32_t token;

        if (!is_special_id(in, id))
            continue;
        token = gguf_get_val_u32(in, id);
        if (token >= n_vocab && token < n && moved_to(&m, token) == UINT32_MAX &&
            m.count < MOVED_MAX && m.count < n_vocab)
            m.from[m.count++] = token;
    }
    return m;
}

static int copy_tokens(struct gguf_context *out, const struct gguf_context *in, const char *path,
                       uint32_t n_vocab, struct moved *moved, struct synth_error *err)
{
    const int64_t  id = gguf_find_key(in, "tokenizer.ggml.tokens");
    const float   *score;
    const int32_t *type;
    struct tokens  t;
    size_t         n;

    if (id < 0 || gguf_get_kv_type(in, id) != GGUF_TYPE_ARRAY ||
        gguf_get_arr_type(in, id) != GGUF_TYPE_STRING)
        return synth_fail(err, "%s has no tokenizer.ggml.tokens", path);
    n = gguf_get_arr_n(in, id);
    score = array_of(in, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, n);
    type = array_of(in, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, n);
    *moved = move_specials(in, n, n_vocab);
    if (tokens_init(&t, n_vocab, err) < 0)
        return -1;
    for (uint32_t i = 0; i < n_vocab; i++) {
        const uint32_t from_end = n_vocab - 1 - i;
        const size_t   from = from_end < moved->count ? moved->from[from_end] : i;

        if (from < n) {
            t.text[i] = gguf_get_arr_str(in, id, from);
            t.score[i] = score ? score[from] : 0;
            t.type[i] = type ? type[from] : TOKEN_NORMAL;
        } else {
            snprintf(t.own[i], TEXT_BYTES_MAX, "[PAD%u]", i);
            t.text[i] = t.own[i];
            t.type[i] = TOKEN_UNUSED;
        }
    }
    tokens_write(&t, out, score != NULL);
    tokens_fini(&t);
    return 0;
}

/* Copy a key, if it is the tokenizer's and not one of the arrays written above. */
static int copy_tokenizer_key(struct gguf_context *out, const struct gguf_context *in, int64_t id,
                              const struct moved *moved, struct synth_error *err)
{
    static const char *const per_token[] = {
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.scores",
        "tokenizer.ggml.token_type",
    };
    const char *key = gguf_get_key(in, id);

    if (strncmp(key, "tokenizer.", strlen("tokenizer.")) != 0)
        return 0;
    for (size_t i = 0; i < sizeof per_token / sizeof per_token[0]; i++)
        if (strcmp(key, per_token[i]) == 0)
            return 0;
    if (is_special_id(in, id)) {
        const uint32_t to = moved_to(moved, gguf_get_val_u32(in, id));

        if (to != UINT32_MAX)
            gguf_set_val_u32(out, key, to);
        return 0;
    }
    return copy_key(out, in, id, err);
}

int synth_vocab_copy(struct gguf_context *out, const char *path, uint32_t n_vocab,
                     struct synth_error *err)
{
    struct gguf_context *in;
    struct moved         moved = { 0 };
    int                  rc;

    in = gguf_init_from_file(path, (struct gguf_init_params){ .no_alloc = true });
    if (!in)
        return synth_fail(err, "cannot read the vocabulary file %s as GGUF", path);
    rc = copy_tokens(out, in, path, n_vocab, &moved, err);
    for (int64_t id = 0; rc == 0 && id < gguf_get_n_kv(in); id++)
        rc = copy_tokenizer_key(out, in, id, &moved, err);
    if (rc == 0 && gguf_find_key(out, "tokenizer.chat_template") < 0)
        gguf_set_val_str(out, "tokenizer.chat_template", chatml);
    gguf_free(in);
    return rc;
}
