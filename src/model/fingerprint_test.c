/* model/fingerprint_test.c - who a model is, and who its weights are.
 *
 * SPDX-License-Identifier: MIT */
#include "model/edit_test.h"
#include "model/model.h"

struct prints {
    uint8_t model[MCP_FINGERPRINT_BYTES];
    uint8_t layers[4][MCP_FINGERPRINT_BYTES];
    uint8_t embed[MCP_FINGERPRINT_BYTES];
    uint8_t head[MCP_FINGERPRINT_BYTES];
};

static struct prints prints_of(const char *path)
{
    struct mcp_model *m;
    struct prints     p;
    mcp_error         err;

    unit_ok(model_open(&m, path, &err), &err);
    assert_int_equal(m->hp.n_layer, 4);
    unit_ok(model_fingerprint(m, p.model, &err), &err);
    for (int i = 0; i < 4; i++)
        unit_ok(model_weights_fingerprint(m, i, p.layers[i], &err), &err);
    unit_ok(model_weights_fingerprint(m, MCP_PART_EMBED, p.embed, &err), &err);
    unit_ok(model_weights_fingerprint(m, MCP_PART_HEAD, p.head, &err), &err);
    model_close(m);
    return p;
}

#define SAME(a, b)   assert_memory_equal(a, b, MCP_FINGERPRINT_BYTES)
#define DIFFER(a, b) assert_memory_not_equal(a, b, MCP_FINGERPRINT_BYTES)

static const char *base(const char *quant)
{
    char name[64];

    snprintf(name, sizeof(name), "base-%s.gguf", quant);
    return unit_synth(name, "tiny-llama", quant, NULL);
}

/* Goal:   the same model in another quantisation is the same model, with other weights.
 * Method: two files of one seed; and the same file written twice. */
static void two_quantisations_of_a_model_are_the_same_model(void **state)
{
    struct prints a = prints_of(base("f16")), b = prints_of(base("q4_0")), c;

    (void)state;
    SAME(a.model, b.model);
    for (int i = 0; i < 4; i++)
        DIFFER(a.layers[i], b.layers[i]);
    c = prints_of(unit_synth("again.gguf", "tiny-llama", "q4_0", NULL));
    assert_memory_equal(&b, &c, sizeof(b));
}

/* Goal:   a split file is the same as the whole one. */
static void a_split_file_has_the_prints_of_the_whole(void **state)
{
    struct prints a = prints_of(base("f32")), b;
    char          name[64];
    int           parts = 1;

    (void)state;
    unit_synth("split.gguf", "tiny-llama", "f32", "--split-max-bytes", "1M", NULL);
    for (; parts < 20; parts++) {
        snprintf(name, sizeof(name), "split-00001-of-%05d.gguf", parts);
        if (access(unit_path(name), R_OK) == 0)
            break;
    }
    assert_true(parts > 1 && parts < 20);
    b = prints_of(unit_path(name));
    assert_memory_equal(&a, &b, sizeof(a));
}

/* Goal:   other random weights are another model: their norms differ. */
static void another_seed_is_another_model(void **state)
{
    struct prints a = prints_of(base("f32"));
    struct prints b = prints_of(unit_synth("seed.gguf", "tiny-llama", "f32", "--seed", "2", NULL));

    (void)state;
    DIFFER(a.model, b.model);
    DIFFER(a.embed, b.embed);
    DIFFER(a.head, b.head);
    for (int i = 0; i < 4; i++)
        DIFFER(a.layers[i], b.layers[i]);
}

/* Goal:   layers differ from each other, and from embedding and head. */
static void each_part_has_a_print_of_its_own(void **state)
{
    struct prints a = prints_of(base("f32"));

    (void)state;
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < i; j++)
            DIFFER(a.layers[i], a.layers[j]);
        DIFFER(a.layers[i], a.embed);
        DIFFER(a.layers[i], a.head);
        DIFFER(a.layers[i], a.model);
    }
    DIFFER(a.embed, a.head);
}

/* Goal:   one byte of a norm makes another model; one of a matrix only another layer.
 * Method: the last byte of each tensor of layer 2, of the embedding and of the head. */
static void one_byte_changes_what_it_belongs_to(void **state)
{
    static const struct {
        const char *tensor;
        bool        norm;
        int         layer; /* or MCP_PART_* */
    } rows[] = {
        { "blk.2.attn_norm.weight", true, 2 },     { "blk.2.ffn_norm.weight", true, 2 },
        { "blk.2.attn_q.weight", false, 2 },       { "blk.2.attn_output.weight", false, 2 },
        { "blk.2.ffn_down.weight", false, 2 },     { "output_norm.weight", true, MCP_PART_HEAD },
        { "output.weight", false, MCP_PART_HEAD }, { "token_embd.weight", false, MCP_PART_EMBED },
    };
    struct prints a = prints_of(base("f32"));

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct edit         e = edit_open(base("f32"));
        struct ggml_tensor *t = edit_tensor(&e, rows[i].tensor);
        struct prints       b;

        ((uint8_t *)t->data)[ggml_nbytes(t) - 4] ^= 1; /* the lowest bit of a float */
        b = prints_of(edit_write(&e, unit_path("byte.gguf"), NULL));
        assert_int_equal(memcmp(a.model, b.model, MCP_FINGERPRINT_BYTES) != 0, rows[i].norm);
        for (int layer = 0; layer < 4; layer++)
            assert_int_equal(memcmp(a.layers[layer], b.layers[layer], MCP_FINGERPRINT_BYTES) != 0,
                             rows[i].layer == layer);
        assert_int_equal(memcmp(a.embed, b.embed, MCP_FINGERPRINT_BYTES) != 0,
                         rows[i].layer == MCP_PART_EMBED);
        assert_int_equal(memcmp(a.head, b.head, MCP_FINGERPRINT_BYTES) != 0,
                         rows[i].layer == MCP_PART_HEAD);
    }
}

/* Goal:   the same bytes read as another type are other weights.
 * Method: a matrix of f16 is called bf16; its bytes and its shape stay. */
static void another_type_is_other_weights(void **state)
{
    struct prints a = prints_of(base("f16")), b;
    struct edit   e = edit_open(base("f16"));

    (void)state;
    edit_tensor(&e, "blk.1.ffn_up.weight")->type = GGML_TYPE_BF16;
    b = prints_of(edit_write(&e, unit_path("type.gguf"), NULL));
    DIFFER(a.layers[1], b.layers[1]);
    SAME(a.layers[0], b.layers[0]);
    SAME(a.model, b.model);
}

static void token_text(struct gguf_context *g)
{
    int64_t      id = gguf_find_key(g, "tokenizer.ggml.tokens");
    size_t       count = gguf_get_arr_n(g, id);
    const char **text = calloc(count, sizeof(*text));
    char       **own = calloc(count, sizeof(*own));

    assert_true(text != NULL && own != NULL);
    for (size_t i = 0; i < count; i++) /* setting the key frees the old strings */
        text[i] = own[i] = strdup(gguf_get_arr_str(g, id, i));
    own[300][0] ^= 1;
    gguf_set_arr_str(g, "tokenizer.ggml.tokens", text, count);
    for (size_t i = 0; i < count; i++)
        free(own[i]);
    free(own);
    free(text);
}

static void token_type(struct gguf_context *g)
{
    int64_t id = gguf_find_key(g, "tokenizer.ggml.token_type");
    size_t  count = gguf_get_arr_n(g, id);
    int32_t types[1024];

    assert_true(count <= 1024);
    memcpy(types, gguf_get_arr_data(g, id), count * sizeof(*types));
    types[count - 1] ^= 4;
    gguf_set_arr_data(g, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types, count);
}

static void eos(struct gguf_context *g)
{
    gguf_set_val_u32(g, "tokenizer.ggml.eos_token_id", 3);
}

static void no_bos(struct gguf_context *g)
{
    gguf_remove_key(g, "tokenizer.ggml.bos_token_id");
}

static void add_bos(struct gguf_context *g)
{
    int64_t id = gguf_find_key(g, "tokenizer.ggml.add_bos_token");

    gguf_set_val_bool(g, "tokenizer.ggml.add_bos_token", id < 0 || !gguf_get_val_bool(g, id));
}

static void epsilon(struct gguf_context *g)
{
    gguf_set_val_f32(g, "llama.attention.layer_norm_rms_epsilon", 2e-5f);
}

static void freq_base(struct gguf_context *g)
{
    gguf_set_val_f32(g, "llama.rope.freq_base", 10001.0f);
}

static void scaling(struct gguf_context *g)
{
    gguf_set_val_f32(g, "llama.rope.scaling.factor", 2.0f);
}

static void attn_factor(struct gguf_context *g)
{
    gguf_set_val_f32(g, "llama.rope.scaling.attn_factor", 1.5f);
}

static void original_context(struct gguf_context *g)
{
    gguf_set_val_u32(g, "llama.rope.scaling.original_context_length", 77);
}

static void name_of_it(struct gguf_context *g)
{
    gguf_set_val_str(g, "general.name", "Another name");
}

static void template(struct gguf_context *g)
{
    gguf_set_val_str(g, "tokenizer.chat_template", "{{ messages }}");
}

/* Goal:   each token and each hyper-parameter that changes an answer is part of who a model
 *         is; names and templates are not.  Weights do not care. */
static void one_key_makes_another_model(void **state)
{
    static const struct {
        void (*change)(struct gguf_context *g);
        bool same;
    } rows[] = {
        { token_text, false },       { token_type, false }, { eos, false },
        { no_bos, false },           { add_bos, false },    { epsilon, false },
        { freq_base, false },        { scaling, false },    { attn_factor, false },
        { original_context, false }, { name_of_it, true },  { template, true },
    };
    struct prints a = prints_of(base("q4_0"));

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct edit   e = edit_open(base("q4_0"));
        struct prints b;

        rows[i].change(e.gguf);
        b = prints_of(edit_write(&e, unit_path("key.gguf"), NULL));
        if ((memcmp(a.model, b.model, MCP_FINGERPRINT_BYTES) == 0) != rows[i].same)
            fail_msg("row %zu makes %s model", i, rows[i].same ? "another" : "no other");
        assert_memory_equal(a.layers, b.layers, sizeof(a.layers));
        SAME(a.embed, b.embed);
        SAME(a.head, b.head);
    }
}

/* Goal:   asking twice, or asking for a layer that is not there, changes nothing. */
static void a_layer_that_is_not_there_is_refused(void **state)
{
    uint8_t           one[MCP_FINGERPRINT_BYTES], two[MCP_FINGERPRINT_BYTES];
    struct mcp_model *m;
    mcp_error         err;

    (void)state;
    unit_ok(model_open(&m, base("q4_0"), &err), &err);
    unit_ok(model_fingerprint(m, one, &err), &err);
    unit_refused(model_weights_fingerprint(m, 4, two, &err), MCP_ERANGE, &err,
                 "layer 4 is outside");
    unit_refused(model_weights_fingerprint(m, -3, two, &err), MCP_ERANGE, &err, "layer -3");
    assert_int_equal(model_weights_fingerprint(m, INT32_MAX, two, NULL), MCP_ERANGE);
    assert_int_equal(model_weights_fingerprint(m, INT32_MIN, two, NULL), MCP_ERANGE);
    unit_ok(model_fingerprint(m, two, &err), &err);
    SAME(one, two);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_quantisations_of_a_model_are_the_same_model),
        cmocka_unit_test(a_split_file_has_the_prints_of_the_whole),
        cmocka_unit_test(another_seed_is_another_model),
        cmocka_unit_test(each_part_has_a_print_of_its_own),
        cmocka_unit_test(one_byte_changes_what_it_belongs_to),
        cmocka_unit_test(another_type_is_other_weights),
        cmocka_unit_test(one_key_makes_another_model),
        cmocka_unit_test(a_layer_that_is_not_there_is_refused),
    };

    return cmocka_run_group_tests_name("model/fingerprint", tests, NULL, NULL);
}
