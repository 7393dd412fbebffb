/* model/model_test.c - an open model: what it says about itself, and its chat format.
 *
 * SPDX-License-Identifier: MIT */
#include "model/model.h"

#include "model/edit_test.h"

static struct mcp_model *must_open(const char *path)
{
    struct mcp_model *m;
    mcp_error         err;

    unit_ok(model_open(&m, path, &err), &err);
    return m;
}

/* Goal:   the description agrees with the file.
 * Method: a shape whose numbers are known; sums over ggml's own reading of it. */
static void the_description_agrees_with_the_file(void **state)
{
    const char       *path = unit_synth("info.gguf", "tiny-llama-gqa3", "q8_0", NULL);
    struct mcp_model *m = must_open(path);
    struct edit       e = edit_open(path);
    uint64_t          elements = 0, bytes = 0;

    (void)state;
    for (struct ggml_tensor *t = ggml_get_first_tensor(e.ctx); t != NULL;
         t = ggml_get_next_tensor(e.ctx, t)) {
        if (t->type == GGML_TYPE_I8)
            continue;
        elements += (uint64_t)ggml_nelements(t);
        bytes += ggml_nbytes(t);
    }
    gguf_free(e.gguf);
    ggml_free(e.ctx);
    assert_string_equal(m->info.path, path);
    assert_string_equal(m->info.architecture, "llama");
    assert_int_equal(m->info.parts, 1);
    assert_int_equal(m->info.layers, 4);
    assert_int_equal(m->info.n_embd, 96);
    assert_int_equal(m->info.n_vocab, 384);
    assert_int_equal(m->info.n_ctx_train, 1024);
    assert_int_equal(m->info.n_head, 6);
    assert_int_equal(m->info.n_head_kv, 2);
    assert_int_equal(m->info.n_ff, 104);
    assert_int_equal(m->info.parameters, elements);
    assert_int_equal(m->info.weight_bytes, bytes);
    assert_true(m->info.file_bytes > bytes);
    /* two heads of 40 for K and for V, four layers */
    assert_int_equal(m->info.kv_bytes_f16, 2 * 80 * 2 * 4);
    assert_int_equal(m->info.kv_bytes_q8_0, 2 * 80 * 34 / 32 * 4);
    assert_non_null(strstr(m->info.quantisation, "q8_0 "));
    assert_non_null(strstr(m->info.quantisation, "f32 9")); /* two norms a layer, and the last */
    assert_non_null(m->info.chat_template);
    assert_non_null(m->info.name);
    model_close(m);
    model_close(NULL);
}

/* Goal:   the bytes of ranges add up to those of the whole.
 * Method: every cut of a model with a head, and of one whose head is the embedding. */
static void the_bytes_of_ranges_add_up(void **state)
{
    static const char *const shapes[] = { "tiny-llama", "tiny-llama-gqa3", "tiny-deepseek2" };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(shapes); i++) {
        struct mcp_model *m = must_open(unit_synth("range.gguf", shapes[i], "f16", NULL));
        uint32_t          n = m->hp.n_layer;
        uint64_t tied = m->tensors.global[G_OUTPUT] == NULL ? m->tensors.global[G_TOKEN_EMBD]->bytes
                                                            : 0;
        uint64_t whole = model_range_bytes(m, 0, n);

        assert_int_equal(whole, m->info.weight_bytes + tied); /* both ends hold a tied one */
        for (uint32_t cut = 1; cut < n; cut++)
            assert_int_equal(model_range_bytes(m, 0, cut) + model_range_bytes(m, cut, n), whole);
        assert_int_equal(model_range_bytes(m, 2, 2), 0);
        model_close(m);
    }
}

/* Goal:   a row of the embedding is that token's, in floats.
 * Method: against ggml's dequantisation of the whole tensor. */
static void an_embedding_row_is_the_tokens(void **state)
{
    static const char *const quants[] = { "f32", "f16", "bf16", "q8_0", "q4_0", "q6_k" };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(quants); i++) {
        struct mcp_model *m = must_open(unit_synth("embd.gguf", "tiny-llama-256", quants[i], NULL));
        const struct model_tensor *t = m->tensors.global[G_TOKEN_EMBD];
        size_t                     n = m->hp.n_embd, all = n * m->hp.n_vocab;
        float                     *table = malloc(all * sizeof(float)), row[512];

        assert_non_null(table);
        if (t->type == GGML_TYPE_F32)
            memcpy(table, t->data, all * sizeof(float));
        else
            ggml_get_type_traits(t->type)->to_float(t->data, table, (int64_t)all);
        for (uint32_t token = 0; token < m->hp.n_vocab; token += 29) {
            model_embed(t, (int32_t)token, row);
            assert_memory_equal(row, table + token * n, n * sizeof(float));
        }
        model_embed(t, (int32_t)m->hp.n_vocab - 1, row);
        assert_memory_equal(row, table + (m->hp.n_vocab - 1) * n, n * sizeof(float));
        free(table);
        model_close(m);
    }
}

/* Goal:   a model without a usable tokenizer opens, and says why only when asked.
 * Method: no tokenizer; one of another kind; one whose arrays do not fit. */
static void a_model_without_a_tokenizer_still_opens(void **state)
{
    static const float scores[3];
    struct mcp_model  *m;
    mcp_error          err;

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct edit e = edit_open(unit_synth("tok.gguf", "tiny-llama", "q4_0", NULL));

        if (i == 0) {
            gguf_remove_key(e.gguf, "tokenizer.ggml.model");
            gguf_remove_key(e.gguf, "tokenizer.ggml.tokens");
        } else if (i == 1) {
            gguf_set_val_str(e.gguf, "tokenizer.ggml.model", "rwkv");
        } else {
            gguf_set_arr_data(e.gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores, 3);
        }
        m = must_open(edit_write(&e, unit_path("notok.gguf"), NULL));
        for (int twice = 0; twice < 2; twice++) {
            assert_null(model_get_vocab(m, &err));
            assert_int_equal(err.code, i < 2 ? MCP_ENOTSUP : MCP_EFORMAT);
            assert_non_null(strstr(err.text, "notok.gguf"));
        }
        assert_null(model_get_vocab(m, NULL));
        assert_string_equal(m->info.tokenizer, i == 0 ? "none" : m->tokenizer_name);
        model_close(m);
    }
}

static void *ask_for_vocab(void *ctx)
{
    return (void *)(uintptr_t)model_get_vocab(ctx, NULL);
}

/* Goal:   the tokenizer may be asked for by several threads at once, and closing at once
 *         after opening waits for its loader. */
static void many_threads_may_ask_for_the_tokenizer(void **state)
{
    const char *path = unit_synth("many.gguf", "tiny-llama", "q4_0", NULL);

    (void)state;
    for (int round = 0; round < 10; round++) {
        struct mcp_model *m = must_open(path);
        pthread_t         threads[4];
        void             *found[4];

        for (int i = 0; i < 4; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, ask_for_vocab, m), 0);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], &found[i]);
        for (int i = 0; i < 4; i++) {
            assert_non_null(found[i]);
            assert_ptr_equal(found[i], found[0]);
        }
        model_close(m);
        model_close(must_open(path));
    }
}

/* Goal:   the chat format is the template's, complete only where it fits.
 * Method: ChatML of two messages at every room around its length. */
static void a_chat_is_written_in_the_models_format(void **state)
{
    static const mcp_chat_message chat[] = { { "user", "Hi" }, { "assistant", "Ho" } };
    static const char expected[] = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo"
                                   "<|im_end|>\n<|im_start|>assistant\n";
    struct mcp_model *m = must_open(unit_synth("chat.gguf", "tiny-llama", "q4_0", NULL));
    int               length = (int)strlen(expected);
    char              text[256];
    mcp_error         err;

    (void)state;
    for (int room = 0; room <= length + 2; room++) {
        int bytes;

        memset(text, 0x5a, sizeof(text));
        bytes = model_chat_format(m, chat, 2, 1, room == 0 ? NULL : text, (size_t)room, &err);
        unit_ok(bytes, &err);
        assert_int_equal(bytes, length);
        if (room > length)
            assert_string_equal(text, expected);
        assert_int_equal(text[room], 0x5a);
    }
    assert_int_equal(model_chat_format(m, chat, 1, 0, text, sizeof(text), &err), 30);
    assert_string_equal(text, "<|im_start|>user\nHi<|im_end|>\n");
    assert_int_equal(model_chat_format(m, NULL, 0, 0, text, sizeof(text), &err), 0);
    model_close(m);
}

/* Goal:   no template, an unknown one and a huge one are refused with a sentence. */
static void a_chat_without_a_known_template_is_refused(void **state)
{
    static const mcp_chat_message chat[] = { { "user", "Hi" } };
    char                         *huge = calloc(1, MODEL_TEMPLATE_BYTES_MAX + 2);
    const char *const             templates[] = { NULL, "{{ surely unknown }}", huge };
    const char *const             about[] = { "has no chat template", "none of those",
                                              "is above 1048576 bytes" };

    (void)state;
    assert_non_null(huge);
    memset(huge, 'x', MODEL_TEMPLATE_BYTES_MAX + 1);
    for (size_t i = 0; i < 3; i++) {
        struct edit       e = edit_open(unit_synth("tmpl.gguf", "tiny-llama", "q4_0", NULL));
        struct mcp_model *m;
        char              text[64];
        mcp_error         err;

        if (templates[i] == NULL)
            gguf_remove_key(e.gguf, "tokenizer.chat_template");
        else
            gguf_set_val_str(e.gguf, "tokenizer.chat_template", templates[i]);
        m = must_open(edit_write(&e, unit_path("tmpl2.gguf"), NULL));
        unit_refused(model_chat_format(m, chat, 1, 1, text, sizeof(text), &err), MCP_ENOTSUP, &err,
                     about[i]);
        model_close(m);
    }
    free(huge);
}

/* Goal:   a file that is no model leaves nothing behind, not even the out parameter. */
static void a_failed_open_leaves_null(void **state)
{
    struct mcp_model *m = (struct mcp_model *)0x5a;
    struct edit       e = edit_open(unit_synth("bad.gguf", "tiny-llama", "q4_0", NULL));
    mcp_error         err;

    (void)state;
    unit_refused(model_open(&m, unit_path("absent.gguf"), &err), MCP_ENOTFOUND, &err,
                 "absent.gguf");
    assert_null(m);
    m = (struct mcp_model *)0x5a;
    edit_write(&e, unit_path("bad2.gguf"), "blk.3.ffn_down.weight");
    unit_refused(model_open(&m, unit_path("bad2.gguf"), &err), MCP_EFORMAT, &err,
                 "tensor blk.3.ffn_down.weight is missing");
    assert_null(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_description_agrees_with_the_file),
        cmocka_unit_test(the_bytes_of_ranges_add_up),
        cmocka_unit_test(an_embedding_row_is_the_tokens),
        cmocka_unit_test(a_model_without_a_tokenizer_still_opens),
        cmocka_unit_test(many_threads_may_ask_for_the_tokenizer),
        cmocka_unit_test(a_chat_is_written_in_the_models_format),
        cmocka_unit_test(a_chat_without_a_known_template_is_refused),
        cmocka_unit_test(a_failed_open_leaves_null),
    };

    return cmocka_run_group_tests_name("model/model", tests, NULL, NULL);
}
