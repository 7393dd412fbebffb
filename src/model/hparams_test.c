/* model/hparams_test.c - the numbers of a model, read from keys and checked.
 *
 * SPDX-License-Identifier: MIT */
#include "model/hparams.h"

#include "model/made_test.h"

#include <math.h>

static void must_read(const struct made *m, struct model_hparams *hp)
{
    mcp_error err;

    memset(hp, 0x5a, sizeof(*hp));
    unit_ok(model_hparams_read(hp, &m->file, &err), &err);
}

static void must_refuse(struct made *m, int code, const char *about)
{
    struct model_hparams hp;
    mcp_error            err;

    unit_refused(model_hparams_read(&hp, &m->file, &err), code, &err, about);
    assert_int_equal(model_hparams_read(&hp, &m->file, NULL), code);
    made_free(m);
}

/* Goal:   the three dense architectures are read alike, but for how they rotate.
 * Method: the least keys each: what is absent must get llama.cpp's default. */
static void a_dense_model_is_read_with_its_defaults(void **state)
{
    static const struct {
        const char     *name;
        enum model_arch arch;
        int             rope_mode;
    } rows[] = { { "llama", MODEL_LLAMA, 0 },
                 { "qwen2", MODEL_QWEN2, GGML_ROPE_TYPE_NEOX },
                 { "qwen3", MODEL_QWEN3, GGML_ROPE_TYPE_NEOX } };
    struct model_hparams hp;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct made *m = made_new(rows[i].name);

        must_read(m, &hp);
        assert_int_equal(hp.arch, rows[i].arch);
        assert_string_equal(model_arch_name(hp.arch), rows[i].name);
        assert_int_equal(hp.n_layer, 4);
        assert_int_equal(hp.n_layer_nextn, 0);
        assert_int_equal(hp.n_embd, 64);
        assert_int_equal(hp.n_vocab, 100);
        assert_int_equal(hp.n_ctx_train, 512);
        assert_int_equal(hp.n_head, 4);
        assert_int_equal(hp.n_head_kv, 2);
        assert_int_equal(hp.head_k, 16);
        assert_int_equal(hp.head_v, 16);
        assert_int_equal(hp.n_ff, 96);
        assert_true(hp.rms_eps == 1e-5f);
        assert_int_equal(hp.n_expert, 0);
        assert_false(hp.mla);
        assert_int_equal(hp.rope.mode, rows[i].rope_mode);
        assert_int_equal(hp.rope.n_rot, 16);
        assert_int_equal(hp.rope.n_ctx_orig, 512);
        assert_true(hp.rope.freq_base == 10000.0f);
        assert_true(hp.rope.freq_scale == 1.0f);
        assert_true(hp.rope.ext_factor == 0.0f);
        assert_true(hp.rope.attn_factor == 1.0f);
        assert_true(hp.rope.beta_fast == 32.0f && hp.rope.beta_slow == 1.0f);
        assert_int_equal(model_kv_width_k(&hp), 32);
        assert_int_equal(model_kv_width_v(&hp), 32);
        made_remove(m, "attention.head_count_kv");
        must_read(m, &hp);
        assert_int_equal(hp.n_head_kv, 4); /* as many as heads */
        made_free(m);
    }
}

/* Goal:   heads need not be embedding_length / head_count where the file says so. */
static void a_head_size_of_its_own_is_read(void **state)
{
    struct made         *m = made_new("qwen3");
    struct model_hparams hp;

    (void)state;
    made_u32(m, "attention.key_length", 32);
    made_u32(m, "attention.value_length", 32);
    must_read(m, &hp);
    assert_int_equal(hp.head_k, 32);
    assert_int_equal(hp.rope.n_rot, 32);
    assert_int_equal(model_kv_width_v(&hp), 64);
    made_free(m);
}

/* Goal:   deepseek2 is read with experts and with keys and values in full.
 * Method: every optional key absent, then given. */
static void deepseek2_is_read_with_its_experts(void **state)
{
    struct made         *m = made_new("deepseek2");
    struct model_hparams hp;

    (void)state;
    must_read(m, &hp);
    assert_int_equal(hp.arch, MODEL_DEEPSEEK2);
    assert_int_equal(hp.rope.mode, 0);
    assert_int_equal(hp.rope.n_rot, 8);
    assert_int_equal(hp.q_lora, 48);
    assert_int_equal(hp.kv_lora, 32);
    assert_false(hp.mla);
    assert_int_equal(hp.head_k_full, 24);
    assert_int_equal(hp.head_v_full, 20);
    assert_int_equal(hp.n_layer_dense, 1);
    assert_int_equal(hp.n_expert, 4);
    assert_int_equal(hp.n_expert_used, 2);
    assert_int_equal(hp.n_expert_shared, 2);
    assert_int_equal(hp.n_ff_expert, 40);
    assert_int_equal(hp.n_expert_groups, 0);
    assert_false(hp.gate_sigmoid);
    assert_false(hp.weights_norm);
    assert_true(hp.weights_scale == 0.0f);
    assert_int_equal(model_kv_width_k(&hp), 96);
    assert_int_equal(model_kv_width_v(&hp), 80);

    made_u32(m, "expert_gating_func", 2);
    made_u32(m, "expert_group_count", 2);
    made_u32(m, "expert_group_used_count", 1);
    made_f32(m, "expert_weights_scale", 2.5f);
    gguf_set_val_bool(m->part.gguf, "deepseek2.expert_weights_norm", true);
    made_tensor(m, "blk.0.attn_q.weight", 64, 96, 1); /* queries uncompressed */
    must_read(m, &hp);
    assert_int_equal(hp.q_lora, 0);
    assert_true(hp.gate_sigmoid);
    assert_true(hp.weights_norm);
    assert_int_equal(hp.n_expert_groups, 2);
    assert_int_equal(hp.n_group_used, 1);
    assert_true(hp.weights_scale == 2.5f);
    made_free(m);
}

/* Goal:   with latents in the cache, one row a token holds them and V is a view. */
static void a_latent_cache_has_one_row_a_token(void **state)
{
    struct made         *m = made_new_mla();
    struct model_hparams hp;

    (void)state;
    must_read(m, &hp);
    assert_true(hp.mla);
    assert_int_equal(hp.head_k, 40);
    assert_int_equal(hp.head_v, 32);
    assert_int_equal(hp.head_k_full, 24);
    assert_int_equal(hp.head_v_full, 20);
    assert_int_equal(model_kv_width_k(&hp), 40);
    assert_int_equal(model_kv_width_v(&hp), 0);
    made_free(m);
}

/* Goal:   layers that only predict further tokens do not count. */
static void prediction_layers_are_not_run(void **state)
{
    struct made         *m = made_new("deepseek2");
    struct model_hparams hp;

    (void)state;
    made_u32(m, "nextn_predict_layers", 1);
    must_read(m, &hp);
    assert_int_equal(hp.n_layer, 3);
    assert_int_equal(hp.n_layer_nextn, 1);
    made_u32(m, "nextn_predict_layers", 4); /* no layer would be left */
    must_refuse(m, MCP_EFORMAT, "nextn_predict_layers is 4, must be 0 to 3");
}

/* Goal:   linear scaling divides the positions, by either of its keys; "none" ignores it. */
static void linear_scaling_divides_positions(void **state)
{
    struct made         *m = made_new("llama");
    struct model_hparams hp;

    (void)state;
    made_f32(m, "rope.scale_linear", 4.0f); /* the old name */
    must_read(m, &hp);
    assert_true(hp.rope.freq_scale == 0.25f);
    made_f32(m, "rope.scaling.factor", 2.0f); /* the new one goes first */
    must_read(m, &hp);
    assert_true(hp.rope.freq_scale == 0.5f);
    assert_true(hp.rope.ext_factor == 0.0f && hp.rope.attn_factor == 1.0f);
    made_f32(m, "rope.scaling.attn_factor", 1.5f);
    must_read(m, &hp);
    assert_true(hp.rope.attn_factor == 1.5f);
    made_string(m, "rope.scaling.type", "none");
    must_read(m, &hp);
    assert_true(hp.rope.freq_scale == 1.0f);
    made_string(m, "rope.scaling.type", "linear");
    made_f32(m, "rope.scaling.factor", 0.0f); /* absent in all but name */
    must_read(m, &hp);
    assert_true(hp.rope.freq_scale == 1.0f);
    made_free(m);
}

static void attn_factor_must_be(const struct made *m, double expected)
{
    struct model_hparams hp;

    must_read(m, &hp);
    assert_true(hp.rope.ext_factor == 1.0f);
    if (fabs((double)hp.rope.attn_factor / expected - 1.0) > 1e-6)
        fail_msg("attn_factor is %.9g, not %.9g", (double)hp.rope.attn_factor, expected);
}

/* Goal:   YaRN's factors are those of the paper's attention scale m(s) = 0.1 ln(s) + 1,
 *         divided by the m(s) that ggml's rope multiplies with itself.
 * Method: the formula in double.  Without a multiplier the file's scale is m(s): 1 remains.
 *         With deepseek2's (mscale = mscale_all_dim) the ratio is 1: 1 / m(s) remains. */
static void yarn_factors_follow_the_formula(void **state)
{
    static const float factors[] = { 1.0f, 2.0f, 4.0f, 40.0f };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(factors); i++) {
        static const char *const archs[] = { "llama", "qwen3", "deepseek2" };
        double                   m_of_s = 0.1 * log((double)factors[i]) + 1.0;
        struct model_hparams     hp;

        for (size_t a = 0; a < UNIT_COUNT(archs); a++) {
            struct made *m = made_new(archs[a]);

            made_string(m, "rope.scaling.type", "yarn");
            made_f32(m, "rope.scaling.factor", factors[i]);
            made_u32(m, "rope.scaling.original_context_length", 128);
            attn_factor_must_be(m, 1.0);
            must_read(m, &hp);
            assert_int_equal(hp.rope.n_ctx_orig, 128);
            assert_true(hp.rope.freq_scale == 1.0f / factors[i]);
            made_f32(m, "rope.scaling.attn_factor", 1.25f);
            attn_factor_must_be(m, 1.25);
            made_f32(m, "rope.scaling.yarn_log_multiplier", 0.0707f);
            attn_factor_must_be(m, strcmp(archs[a], "deepseek2") == 0 ? 1.25 / m_of_s : 1.25);
            must_read(m, &hp);
            if (strcmp(archs[a], "deepseek2") == 0)
                assert_true(fabs((double)hp.rope.log_mul - 0.707) < 1e-6);
            made_f32(m, "rope.scaling.yarn_log_multiplier", 0.1f);
            attn_factor_must_be(m, strcmp(archs[a], "deepseek2") == 0 ? 1.25 / m_of_s : 1.25);
            made_free(m);
        }
    }
}

/* Goal:   what is impossible or not built is refused, by the name of its key.
 * Method: one key at a time of a model that is otherwise good. */
static void an_impossible_number_is_refused(void **state)
{
    static const struct {
        const char *arch, *key;
        uint32_t    value;
        int         code;
        const char *about;
    } rows[] = {
        { "llama", "block_count", 0, MCP_EFORMAT, "block_count is 0" },
        { "llama", "block_count", MODEL_LAYERS_MAX + 1, MCP_EFORMAT, "block_count is 513" },
        { "llama", "embedding_length", 0, MCP_EFORMAT, "embedding_length" },
        { "llama", "embedding_length", MODEL_EMBD_MAX + 1, MCP_EFORMAT, "embedding_length" },
        { "llama", "context_length", 0, MCP_EFORMAT, "context_length" },
        { "llama", "context_length", MODEL_CTX_MAX + 1, MCP_EFORMAT, "context_length" },
        { "llama", "feed_forward_length", 0, MCP_EFORMAT, "feed_forward_length" },
        { "llama", "feed_forward_length", MODEL_FF_MAX + 1, MCP_EFORMAT, "feed_forward_length" },
        { "llama", "attention.head_count", 0, MCP_EFORMAT, "head_count" },
        { "llama", "attention.head_count", MODEL_HEADS_MAX + 1, MCP_EFORMAT, "head_count" },
        { "llama", "attention.head_count_kv", 0, MCP_EFORMAT, "head_count_kv" },
        { "llama", "attention.head_count_kv", 5, MCP_EFORMAT, "head_count_kv" },
        { "llama", "attention.head_count_kv", 3, MCP_EFORMAT, "do not fit together" },
        { "llama", "embedding_length", 3, MCP_EFORMAT, "do not fit together" },
        { "llama", "attention.key_length", MODEL_HEAD_DIM_MAX + 1, MCP_EFORMAT, "key_length" },
        { "llama", "attention.key_length", 32, MCP_ENOTSUP, "must be equal for llama" },
        { "llama", "attention.value_length", 32, MCP_ENOTSUP, "must be equal for llama" },
        { "llama", "rope.dimension_count", 8, MCP_ENOTSUP, "must be equal for llama" },
        { "llama", "rope.dimension_count", 15, MCP_EFORMAT, "must be even" },
        { "llama", "rope.dimension_count", 0, MCP_EFORMAT, "rope.dimension_count" },
        { "llama", "embedding_length", 66, MCP_OK, "" }, /* 4 heads of 16: the weights must fit */
        { "qwen2", "embedding_length", 66, MCP_EFORMAT, "4 heads of 16 are not" },
        { "llama", "expert_count", 4, MCP_ENOTSUP, "experts are built for deepseek2 only" },
        { "llama", "expert_count", 0, MCP_OK, "" },
        { "qwen3", "rope.scaling.original_context_length", 0, MCP_EFORMAT, "original_context" },
        { "deepseek2", "expert_count", 0, MCP_EFORMAT, "expert_count" },
        { "deepseek2", "expert_count", MODEL_EXPERTS_MAX + 1, MCP_EFORMAT, "expert_count" },
        { "deepseek2", "expert_used_count", 5, MCP_EFORMAT, "expert_used_count" },
        { "deepseek2", "expert_used_count", 0, MCP_EFORMAT, "expert_used_count" },
        { "deepseek2", "expert_shared_count", 0, MCP_EFORMAT, "expert_shared_count" },
        { "deepseek2", "leading_dense_block_count", 5, MCP_EFORMAT, "leading_dense" },
        { "deepseek2", "leading_dense_block_count", 4, MCP_OK, "" },
        { "deepseek2", "expert_gating_func", 3, MCP_ENOTSUP, "expert_gating_func is 3" },
        { "deepseek2", "expert_gating_func", 0, MCP_OK, "" },
        { "deepseek2", "expert_group_count", 3, MCP_EFORMAT, "do not fit 3 groups" },
        { "deepseek2", "expert_group_count", 4, MCP_EFORMAT, "do not fit 4 groups" },
        { "deepseek2", "expert_group_count", 2, MCP_EFORMAT, "of which 0 are used" },
        { "deepseek2", "expert_group_count", 1, MCP_OK, "" },
        { "deepseek2", "rope.dimension_count", 24, MCP_EFORMAT, "must be below the query size" },
        { "deepseek2", "attention.head_count_kv", 2, MCP_EFORMAT, "must be head_count 4" },
        { "deepseek2", "attention.kv_lora_rank", 0, MCP_EFORMAT, "kv_lora_rank" },
        { "deepseek2", "attention.q_lora_rank", 0, MCP_EFORMAT, "q_lora_rank" },
        { "deepseek2", "attention.key_length_mla", 24, MCP_EFORMAT, "must come together" },
        { "deepseek2", "attention.value_length_mla", 20, MCP_EFORMAT, "must come together" },
        { "mla", "attention.head_count_kv", 4, MCP_EFORMAT, "latent attention needs" },
        { "mla", "attention.key_length", 41, MCP_EFORMAT, "key_length 40" },
        { "mla", "attention.value_length", 31, MCP_EFORMAT, "value_length 32" },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct made *m = strcmp(rows[i].arch, "mla") == 0 ? made_new_mla() : made_new(rows[i].arch);
        struct model_hparams hp;

        made_u32(m, rows[i].key, rows[i].value);
        if (rows[i].code == MCP_OK) {
            must_read(m, &hp);
            made_free(m);
        } else {
            must_refuse(m, rows[i].code, rows[i].about);
        }
    }
}

/* Goal:   the experts chosen lie in the groups used, so those must hold as many.
 * Method: eight experts in four groups, two groups used, every number of experts used. */
static void the_groups_used_hold_the_experts_used(void **state)
{
    (void)state;
    for (uint32_t used = 1; used <= 8; used++) {
        struct made         *m = made_new("deepseek2");
        struct model_hparams hp;

        made_u32(m, "expert_count", 8);
        made_u32(m, "expert_used_count", used);
        made_u32(m, "expert_group_count", 4);
        made_u32(m, "expert_group_used_count", 2);
        if (used <= 4) {
            must_read(m, &hp);
            made_free(m);
        } else {
            must_refuse(m, MCP_EFORMAT, "do not fit 4 groups of which 2 are used");
        }
    }
}

/* Goal:   a key without which nothing can run is missed by name. */
static void a_missing_key_is_named(void **state)
{
    static const struct {
        const char *arch, *key;
    } rows[] = {
        { "llama", "block_count" },
        { "llama", "embedding_length" },
        { "qwen2", "context_length" },
        { "qwen3", "feed_forward_length" },
        { "llama", "attention.head_count" },
        { "llama", "attention.layer_norm_rms_epsilon" },
        { "deepseek2", "attention.q_lora_rank" },
        { "deepseek2", "attention.kv_lora_rank" },
        { "deepseek2", "expert_count" },
        { "deepseek2", "expert_used_count" },
        { "deepseek2", "expert_shared_count" },
        { "deepseek2", "expert_feed_forward_length" },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct made *m = made_new(rows[i].arch);
        char         about[128];

        made_remove(m, rows[i].key);
        snprintf(about, sizeof(about), "key %s.%s is missing", rows[i].arch, rows[i].key);
        must_refuse(m, MCP_EFORMAT, about);
    }
}

/* Goal:   floats out of bounds, and keys that would change the arithmetic, are refused. */
static void arithmetic_that_is_not_built_is_refused(void **state)
{
    static const struct {
        const char *key;
        float       value;
        int         code;
    } rows[] = {
        { "attention.layer_norm_rms_epsilon", 0.0f, MCP_EFORMAT },
        { "attention.layer_norm_rms_epsilon", 1e-13f, MCP_EFORMAT },
        { "attention.layer_norm_rms_epsilon", 2.0f, MCP_EFORMAT },
        { "rope.freq_base", 0.0f, MCP_EFORMAT },
        { "rope.freq_base", NAN, MCP_EFORMAT },
        { "rope.scaling.factor", -1.0f, MCP_EFORMAT },
        { "rope.scaling.attn_factor", 0.0f, MCP_EFORMAT },
        { "attention.max_alibi_bias", 8.0f, MCP_ENOTSUP },
        { "attention.clamp_kqv", 1.0f, MCP_ENOTSUP },
        { "attention.scale", 0.5f, MCP_ENOTSUP },
        { "logit_scale", 0.1f, MCP_ENOTSUP },
        { "residual_scale", 1.0f, MCP_ENOTSUP },
        { "embedding_scale", 12.0f, MCP_ENOTSUP },
        { "final_logit_softcapping", 30.0f, MCP_ENOTSUP },
        { "attn_logit_softcapping", 50.0f, MCP_ENOTSUP },
        { "attn_logit_softcapping", NAN, MCP_EFORMAT },
    };
    struct made *m;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        m = made_new("llama");
        made_f32(m, rows[i].key, rows[i].value);
        must_refuse(m, rows[i].code, rows[i].key);
    }
    m = made_new("llama");
    made_f32(m, "logit_scale", 0.0f); /* zero means: not there */
    gguf_set_val_bool(m->part.gguf, "llama.attention.causal", false);
    must_refuse(m, MCP_ENOTSUP, "attention.causal");
    m = made_new("llama");
    made_string(m, "rope.scaling.type", "longrope");
    must_refuse(m, MCP_ENOTSUP, "'longrope'");
}

/* Goal:   an architecture that is not built is named, and cannot fill the sentence. */
static void another_architecture_is_refused(void **state)
{
    struct made *m = made_new("llama");
    char         name[2000];

    (void)state;
    gguf_set_val_str(m->part.gguf, "general.architecture", "mamba");
    must_refuse(m, MCP_ENOTSUP, "architecture 'mamba' is not one of llama");
    m = made_new("llama");
    memset(name, 'a', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    gguf_set_val_str(m->part.gguf, "general.architecture", name);
    must_refuse(m, MCP_ENOTSUP, "is not one of llama");
    m = made_new("llama");
    gguf_set_val_u32(m->part.gguf, "general.architecture", 1);
    must_refuse(m, MCP_EFORMAT, "general.architecture");
    m = made_new("llama");
    gguf_remove_key(m->part.gguf, "general.architecture");
    must_refuse(m, MCP_EFORMAT, "general.architecture");
}

/* Goal:   the vocabulary is the embedding's, and the tokenizer must have the same size.
 * Method: tokenizers of one token less, as many, one more; no embedding; a huge one. */
static void tokenizer_and_embedding_agree(void **state)
{
    const char          *tokens[101];
    struct model_hparams hp;
    struct made         *m;

    (void)state;
    for (size_t i = 0; i < 101; i++)
        tokens[i] = "t";
    for (size_t count = 99; count <= 101; count++) {
        m = made_new("llama");
        gguf_set_arr_str(m->part.gguf, "tokenizer.ggml.tokens", tokens, count);
        if (count == 100) {
            must_read(m, &hp);
            made_free(m);
        } else {
            must_refuse(m, MCP_EFORMAT, "token_embd.weight 100 rows");
        }
    }
    m = made_new("llama");
    made_tensor_remove(m, "token_embd.weight");
    must_refuse(m, MCP_EFORMAT, "token_embd.weight is missing");
    m = made_new("llama");
    made_tensor(m, "token_embd.weight", 64, MODEL_VOCAB_MAX, 1);
    must_read(m, &hp);
    assert_int_equal(hp.n_vocab, MODEL_VOCAB_MAX);
    made_tensor(m, "token_embd.weight", 64, (int64_t)MODEL_VOCAB_MAX + 1, 1);
    must_refuse(m, MCP_EFORMAT, "token_embd.weight has 4194305 rows");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dense_model_is_read_with_its_defaults),
        cmocka_unit_test(a_head_size_of_its_own_is_read),
        cmocka_unit_test(deepseek2_is_read_with_its_experts),
        cmocka_unit_test(a_latent_cache_has_one_row_a_token),
        cmocka_unit_test(prediction_layers_are_not_run),
        cmocka_unit_test(linear_scaling_divides_positions),
        cmocka_unit_test(yarn_factors_follow_the_formula),
        cmocka_unit_test(an_impossible_number_is_refused),
        cmocka_unit_test(the_groups_used_hold_the_experts_used),
        cmocka_unit_test(a_missing_key_is_named),
        cmocka_unit_test(arithmetic_that_is_not_built_is_refused),
        cmocka_unit_test(another_architecture_is_refused),
        cmocka_unit_test(tokenizer_and_embedding_agree),
    };

    return cmocka_run_group_tests_name("model/hparams", tests, NULL, NULL);
}
