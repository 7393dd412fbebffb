/* model/tensors_test.c - every tensor of a file is one that the model is made of.
 *
 * SPDX-License-Identifier: MIT */
#include "model/tensors.h"

#include "base/log.h"
#include "model/made_test.h"

#include <math.h>

static void layer_tensor(struct made *m, uint32_t layer, const char *name, int64_t ne0, int64_t ne1,
                         int64_t ne2)
{
    char whole[GGML_MAX_NAME];

    snprintf(whole, sizeof(whole), "blk.%u.%s", layer, name);
    made_tensor(m, whole, ne0, ne1, ne2);
}

static void dense_ffn(struct made *m, uint32_t layer)
{
    layer_tensor(m, layer, "ffn_gate.weight", 64, 96, 1);
    layer_tensor(m, layer, "ffn_up.weight", 64, 96, 1);
    layer_tensor(m, layer, "ffn_down.weight", 96, 64, 1);
}

/* The tensors of one layer of made_new(). */
static void plain_layer(struct made *m, uint32_t layer)
{
    layer_tensor(m, layer, "attn_norm.weight", 64, 1, 1);
    layer_tensor(m, layer, "ffn_norm.weight", 64, 1, 1);
    layer_tensor(m, layer, "attn_q.weight", 64, 64, 1);
    layer_tensor(m, layer, "attn_k.weight", 64, 32, 1);
    layer_tensor(m, layer, "attn_v.weight", 64, 32, 1);
    layer_tensor(m, layer, "attn_output.weight", 64, 64, 1);
    if (strcmp(m->arch, "qwen3") == 0) {
        layer_tensor(m, layer, "attn_q_norm.weight", 16, 1, 1);
        layer_tensor(m, layer, "attn_k_norm.weight", 16, 1, 1);
    }
    dense_ffn(m, layer);
}

static void deepseek_layer(struct made *m, uint32_t layer, bool mla)
{
    layer_tensor(m, layer, "attn_norm.weight", 64, 1, 1);
    layer_tensor(m, layer, "ffn_norm.weight", 64, 1, 1);
    layer_tensor(m, layer, "attn_q_a.weight", 64, 48, 1);
    layer_tensor(m, layer, "attn_q_a_norm.weight", 48, 1, 1);
    layer_tensor(m, layer, "attn_q_b.weight", 48, 96, 1);
    layer_tensor(m, layer, "attn_kv_a_mqa.weight", 64, 40, 1);
    layer_tensor(m, layer, "attn_kv_a_norm.weight", 32, 1, 1);
    if (mla) {
        layer_tensor(m, layer, "attn_k_b.weight", 16, 32, 4);
        layer_tensor(m, layer, "attn_v_b.weight", 32, 20, 4);
    } else {
        layer_tensor(m, layer, "attn_kv_b.weight", 32, 4 * 36, 1);
    }
    layer_tensor(m, layer, "attn_output.weight", 80, 64, 1);
    if (layer == 0) {
        dense_ffn(m, layer);
        return;
    }
    layer_tensor(m, layer, "ffn_gate_inp.weight", 64, 4, 1);
    layer_tensor(m, layer, "ffn_gate_exps.weight", 64, 40, 4);
    layer_tensor(m, layer, "ffn_up_exps.weight", 64, 40, 4);
    layer_tensor(m, layer, "ffn_down_exps.weight", 40, 64, 4);
    layer_tensor(m, layer, "ffn_gate_shexp.weight", 64, 80, 1);
    layer_tensor(m, layer, "ffn_up_shexp.weight", 64, 80, 1);
    layer_tensor(m, layer, "ffn_down_shexp.weight", 80, 64, 1);
}

/* A whole model of one of the five kinds ("mla" is deepseek2 with latents), head tied. */
static struct made *whole(const char *kind)
{
    bool         mla = strcmp(kind, "mla") == 0;
    struct made *m = mla ? made_new_mla() : made_new(kind);

    made_tensor(m, "output_norm.weight", 64, 1, 1);
    for (uint32_t layer = 0; layer < 4; layer++) {
        if (strcmp(m->arch, "deepseek2") == 0)
            deepseek_layer(m, layer, mla);
        else
            plain_layer(m, layer);
    }
    return m;
}

static int find(const struct made *m, struct model_tensors *t, mcp_error *err)
{
    struct model_hparams hp;

    unit_ok(model_hparams_read(&hp, &m->file, err), err);
    return model_tensors_find(t, &hp, &m->file, err);
}

static void must_find(const struct made *m)
{
    struct model_tensors t;
    mcp_error            err;

    unit_ok(find(m, &t, &err), &err);
    model_tensors_free(&t);
}

static void must_refuse(struct made *m, int code, const char *about)
{
    struct model_tensors t;
    mcp_error            err;

    memset(&t, 0x5a, sizeof(t));
    unit_refused(find(m, &t, &err), code, &err, about);
    assert_null(t.layers);
    made_free(m);
}

static const char *const kinds[] = { "llama", "qwen2", "qwen3", "deepseek2", "mla" };

/* Goal:   the tensors of each kind are found where the engine looks for them. */
static void each_architecture_finds_its_tensors(void **state)
{
    struct model_tensors t;
    mcp_error            err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(kinds); i++) {
        struct made *m = whole(kinds[i]);
        uint32_t     used = 2;

        unit_ok(find(m, &t, &err), &err);
        assert_string_equal(t.global[G_TOKEN_EMBD]->name, "token_embd.weight");
        assert_string_equal(t.global[G_OUTPUT_NORM]->name, "output_norm.weight");
        assert_null(t.global[G_OUTPUT]);
        for (uint32_t layer = 0; layer < 4; layer++) {
            char prefix[16];

            snprintf(prefix, sizeof(prefix), "blk.%u.", layer);
            for (int slot = 0; slot < MODEL_SLOT_COUNT; slot++) {
                if (t.layers[layer].t[slot] == NULL)
                    continue;
                used++;
                assert_memory_equal(t.layers[layer].t[slot]->name, prefix, strlen(prefix));
            }
            assert_string_equal(t.layers[layer].t[W_ATTN_NORM]->name + 6, "attn_norm.weight");
            assert_string_equal(t.layers[layer].t[W_O]->name + 6, "attn_output.weight");
        }
        assert_int_equal(used, m->file.tensor_count); /* each in one place */
        model_tensors_free(&t);
        assert_null(t.layers);
        made_free(m);
    }
}

/* Goal:   without any one of its tensors a model is refused, by the tensor's name.
 * Method: every tensor of every kind in turn. */
static void any_missing_tensor_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(kinds); i++) {
        struct made *m = whole(kinds[i]);
        uint32_t     count = m->file.tensor_count;

        made_free(m);
        for (uint32_t j = 0; j < count; j++) {
            char name[GGML_MAX_NAME];

            m = whole(kinds[i]);
            snprintf(name, sizeof(name), "%s", m->file.tensors[j].name);
            if (strcmp(name, "token_embd.weight") == 0 ||   /* hparams' to miss */
                strcmp(name, "blk.0.attn_q.weight") == 0) { /* tells the two deepseek2 apart */
                made_free(m);
                continue;
            }
            made_tensor_remove(m, name);
            must_refuse(m, MCP_EFORMAT, name);
        }
    }
}

/* Goal:   a tensor of any other shape is refused: ggml would abort on it.
 * Method: each dimension of every tensor of every kind one larger and one smaller. */
static void any_other_shape_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(kinds); i++) {
        struct made *m = whole(kinds[i]);
        uint32_t     count = m->file.tensor_count;

        made_free(m);
        for (uint32_t j = 0; j < count * 8; j++) {
            struct model_tensor *t;
            char                 about[96];

            m = whole(kinds[i]);
            t = &m->file.tensors[j / 8];
            if (strcmp(t->name, "token_embd.weight") == 0 && j / 2 % 4 == 1) {
                made_free(m); /* its rows make the vocabulary */
                continue;
            }
            t->ne[j / 2 % 4] += j % 2 == 0 ? 1 : -1;
            snprintf(about, sizeof(about), "tensor %s has shape", t->name);
            must_refuse(m, MCP_EFORMAT, about);
        }
    }
}

/* Goal:   norms and biases are f32, matrices of a type that ggml multiplies by. */
static void another_type_is_refused(void **state)
{
    static const enum ggml_type never[] = { GGML_TYPE_I8, GGML_TYPE_I32, GGML_TYPE_F64,
                                            GGML_TYPE_Q8_1, GGML_TYPE_Q8_K };
    static const enum ggml_type fine[] = { GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q4_0,
                                           GGML_TYPE_Q6_K, GGML_TYPE_IQ4_XS };
    struct made                *m;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(never); i++) {
        m = whole("llama");
        made_tensor(m, "blk.2.ffn_up.weight", 64, 96, 1)->type = never[i];
        must_refuse(m, MCP_ENOTSUP, "blk.2.ffn_up.weight");
        m = whole("llama");
        made_tensor(m, "token_embd.weight", 64, 100, 1)->type = never[i];
        must_refuse(m, MCP_ENOTSUP, "token_embd.weight");
        m = whole("deepseek2");
        made_tensor(m, "blk.3.ffn_up_exps.weight", 64, 40, 4)->type = never[i];
        must_refuse(m, MCP_ENOTSUP, "blk.3.ffn_up_exps.weight");
    }
    for (size_t i = 0; i < UNIT_COUNT(fine); i++) {
        m = whole("llama");
        made_tensor(m, "blk.2.ffn_up.weight", 64, 96, 1)->type = fine[i];
        must_find(m);
        made_tensor(m, "blk.1.ffn_norm.weight", 64, 1, 1)->type = fine[i];
        must_refuse(m, MCP_ENOTSUP, "blk.1.ffn_norm.weight");
        m = whole("llama");
        made_tensor(m, "blk.1.attn_q.bias", 64, 1, 1)->type = fine[i];
        must_refuse(m, MCP_ENOTSUP, "blk.1.attn_q.bias");
    }
}

/* Goal:   a tensor nobody would use is refused: it may change what the model computes.
 * Method: names of no meaning, of another architecture, of layers that do not exist, and
 *         odd spellings of layer numbers. */
static void a_tensor_too_many_is_refused(void **state)
{
    static const struct {
        const char *kind, *name;
        int64_t     ne0;
    } rows[] = {
        { "llama", "blk.0.attn_sinks.weight", 4 },   { "llama", "blk.4.attn_norm.weight", 64 },
        { "llama", "blk.0.attn_q_norm.weight", 16 }, { "qwen2", "blk.0.attn_output.bias", 64 },
        { "qwen2", "blk.0.ffn_up.bias", 96 },        { "llama", "output.bias", 100 },
        { "qwen3", "rope_freqs.weight", 8 },         { "llama", "blk.00.attn_norm.weight", 64 },
        { "llama", "blk..attn_norm.weight", 64 },    { "llama", "blk.4294967296.x", 64 },
        { "llama", "blk.0.attn_norm.weight2", 64 },  { "deepseek2", "blk.0.attn_k_b.weight", 16 },
        { "deepseek2", "blk.1.ffn_up.weight", 64 },  { "mla", "blk.0.attn_kv_b.weight", 32 },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct made *m = whole(rows[i].kind);

        made_tensor(m, rows[i].name, rows[i].ne0, 1, 1);
        must_refuse(m, MCP_ENOTSUP, rows[i].name);
    }
}

static void note(int level, const char *line, void *ctx)
{
    (void)level;
    snprintf(ctx, 512, "%s", line);
}

/* Goal:   tensors of layers that only predict further tokens are left aside, with a line.
 * Method: two such layers behind four; a tensor one layer further is still too many. */
static void prediction_layers_are_skipped(void **state)
{
    struct made         *m = whole("deepseek2");
    struct model_tensors t;
    mcp_error            err;
    char                 line[512] = "";

    (void)state;
    made_u32(m, "block_count", 6);
    made_u32(m, "nextn_predict_layers", 2);
    made_tensor(m, "blk.4.nextn.eh_proj.weight", 128, 64, 1);
    made_tensor(m, "blk.5.anything", 1, 1, 1);
    mcp_log_set(note, line);
    unit_ok(find(m, &t, &err), &err);
    mcp_log_set(NULL, NULL);
    assert_non_null(strstr(line, "2 tensors past layer 3"));
    model_tensors_free(&t);
    made_tensor(m, "blk.6.anything", 1, 1, 1);
    must_refuse(m, MCP_ENOTSUP, "blk.6.anything");
}

/* Goal:   what a model may have or not is found when it is there, in its right shape.
 * Method: fused queries, biases, a head of its own, rope factors. */
static void optional_tensors_are_found(void **state)
{
    static const float   factors[8] = { 1, 1, 2, 4, 8, 8, 8, 8 };
    struct made         *m = whole("llama");
    struct model_tensors t;
    mcp_error            err;

    (void)state;
    made_tensor_remove(m, "blk.1.attn_q.weight");
    made_tensor_remove(m, "blk.1.attn_k.weight");
    made_tensor_remove(m, "blk.1.attn_v.weight");
    made_tensor(m, "blk.1.attn_qkv.weight", 64, 128, 1);
    made_tensor(m, "blk.1.attn_qkv.bias", 128, 1, 1);
    made_tensor(m, "blk.2.attn_q.bias", 64, 1, 1);
    made_tensor(m, "blk.2.attn_k.bias", 32, 1, 1);
    made_tensor(m, "blk.2.attn_v.bias", 32, 1, 1);
    made_tensor(m, "blk.2.attn_output.bias", 64, 1, 1);
    made_tensor(m, "blk.2.ffn_gate.bias", 96, 1, 1);
    made_tensor(m, "blk.2.ffn_up.bias", 96, 1, 1);
    made_tensor(m, "blk.2.ffn_down.bias", 64, 1, 1);
    made_tensor(m, "output.weight", 64, 100, 1);
    made_tensor(m, "rope_freqs.weight", 8, 1, 1)->data = (const uint8_t *)factors;
    unit_ok(find(m, &t, &err), &err);
    assert_non_null(t.layers[1].t[W_QKV]);
    assert_non_null(t.layers[1].t[B_QKV]);
    assert_null(t.layers[1].t[W_Q]);
    for (int slot = B_Q; slot <= B_V; slot++)
        assert_non_null(t.layers[2].t[slot]);
    assert_non_null(t.layers[2].t[B_O]);
    for (int slot = B_GATE; slot <= B_DOWN; slot++)
        assert_non_null(t.layers[2].t[slot]);
    assert_non_null(t.global[G_OUTPUT]);
    assert_non_null(t.global[G_ROPE_FREQS]);
    model_tensors_free(&t);

    made_tensor(m, "blk.1.attn_q.weight", 64, 64, 1); /* both forms in one layer */
    must_refuse(m, MCP_ENOTSUP, "blk.1.attn_q.weight");

    m = whole("qwen2");
    made_tensor(m, "output.bias", 100, 1, 1);
    must_find(m);
    made_free(m);
    m = whole("deepseek2");
    made_tensor(m, "blk.1.exp_probs_b.bias", 4, 1, 1);
    made_tensor_remove(m, "blk.2.ffn_gate_exps.weight");
    made_tensor_remove(m, "blk.2.ffn_up_exps.weight");
    made_tensor(m, "blk.2.ffn_gate_up_exps.weight", 64, 80, 4);
    must_find(m);
    made_free(m);
}

/* Goal:   a rope factor that would spread NaN into every token is refused, by its index. */
static void bad_rope_factors_are_refused(void **state)
{
    static const float bad[] = { 0.0f, -1.0f, NAN, INFINITY };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        float        factors[8] = { 1, 1, 2, 4, 8, 8, 8, bad[i] };
        struct made *m = whole("llama");

        made_tensor(m, "rope_freqs.weight", 8, 1, 1)->data = (const uint8_t *)factors;
        must_refuse(m, MCP_EFORMAT, "element 7 of tensor rope_freqs.weight");
    }
}

/* Goal:   the tables of roles say what the engine asks: rows on the host, norms as f32. */
static void every_slot_has_a_role(void **state)
{
    (void)state;
    assert_int_equal(model_slot_role(W_ATTN_NORM), MODEL_ROLE_NORM);
    assert_int_equal(model_slot_role(W_KV_A_NORM), MODEL_ROLE_NORM);
    assert_int_equal(model_slot_role(B_ROUTER), MODEL_ROLE_BIAS);
    assert_int_equal(model_slot_role(W_DOWN_EXPS), MODEL_ROLE_MATMUL_ID);
    assert_int_equal(model_slot_role(W_DOWN_SHEXP), MODEL_ROLE_MATMUL);
    assert_int_equal(model_global_role(G_TOKEN_EMBD), MODEL_ROLE_ROWS);
    assert_int_equal(model_global_role(G_OUTPUT), MODEL_ROLE_MATMUL);
    assert_int_equal(model_global_role(G_ROPE_FREQS), MODEL_ROLE_FREQS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_architecture_finds_its_tensors),
        cmocka_unit_test(any_missing_tensor_is_named),
        cmocka_unit_test(any_other_shape_is_refused),
        cmocka_unit_test(another_type_is_refused),
        cmocka_unit_test(a_tensor_too_many_is_refused),
        cmocka_unit_test(prediction_layers_are_skipped),
        cmocka_unit_test(optional_tensors_are_found),
        cmocka_unit_test(bad_rope_factors_are_refused),
        cmocka_unit_test(every_slot_has_a_role),
    };

    return cmocka_run_group_tests_name("model/tensors", tests, NULL, NULL);
}
