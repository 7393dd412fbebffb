/* engine/ops_test.c - the list of operations against closed formulas.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/ops.h"

#include "engine/run_test.h"

struct totals {
    uint64_t product_flops, expert_flops, attention_flops;
    uint64_t weight_bytes, kv_bytes;
};

static struct engine_ops list(const struct mcp_model *m, const struct engine_ops_opts *o)
{
    struct engine_ops ops;
    mcp_error         err;

    unit_ok(engine_ops_list(&ops, m, o, &err), &err);
    return ops;
}

static struct totals total(const struct engine_ops *ops)
{
    struct totals t = { 0 };

    for (uint32_t i = 0; i < ops->count; i++) {
        const struct engine_op *op = &ops->ops[i];

        t.product_flops += op->kind == ENGINE_OP_PRODUCT ? op->flops : 0;
        t.expert_flops += op->kind == ENGINE_OP_EXPERTS ? op->flops : 0;
        t.attention_flops += op->kind == ENGINE_OP_ATTENTION ? op->flops : 0;
        t.weight_bytes += op->weight_bytes;
        t.kv_bytes += op->kv_bytes;
    }
    return t;
}

/* Elements of the tensors that products read, of one layer; experts count `experts` of each. */
static uint64_t layer_elements(const struct mcp_model *m, uint32_t layer, enum model_role role,
                               uint64_t experts)
{
    uint64_t sum = 0;

    for (int slot = 0; slot < MODEL_SLOT_COUNT; slot++) {
        const struct model_tensor *t = m->tensors.layers[layer].t[slot];

        if (t == NULL || model_slot_role((enum model_slot)slot) != role)
            continue;
        sum += (uint64_t)(t->ne[0] * t->ne[1]) *
               (role == MODEL_ROLE_MATMUL_ID ? experts : (uint64_t)t->ne[2]);
    }
    return sum;
}

static const struct {
    const char *shape, *quant;
} shapes[] = {
    { "tiny-llama", "q4_0" },        { "tiny-llama-gqa3", "f16" },
    { "tiny-llama-bias", "f32" },    { "tiny-llama-fused", "f16" },
    { "tiny-llama-llama3", "f16" },  { "tiny-qwen2", "q8_0" },
    { "tiny-qwen3", "f16" },         { "tiny-deepseek2", "f16" },
    { "tiny-deepseek2-mla", "f16" }, { "tiny-deepseek2-groups", "f16" },
};

/* Goal:   products cost two operations for each weight and token, a head row two for each of its
 *         weights; every weight of the range is read once.
 * Method: against the model's own tensors. */
static void products_and_weights_are_the_models_own(void **state)
{
    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(shapes); i++) {
        struct mcp_model *m = run_model(
            unit_synth("ops.gguf", shapes[i].shape, shapes[i].quant, NULL));
        struct engine_ops_opts o = {
            .first = 0, .last = m->hp.n_layer - 1, .tokens = 7, .flash = true
        };
        struct engine_ops          ops = list(m, &o);
        struct totals              t = total(&ops);
        uint64_t                   products = 0, experts = 0, bytes;
        const struct model_tensor *head = m->tensors.global[G_OUTPUT];

        for (uint32_t layer = 0; layer < o.last; layer++) {
            products += layer_elements(m, layer, MODEL_ROLE_MATMUL, 1);
            experts += layer_elements(m, layer, MODEL_ROLE_MATMUL_ID, m->hp.n_expert_used);
        }
        assert_int_equal(t.product_flops, 2 * products * o.tokens);
        assert_int_equal(t.expert_flops, 2 * experts * o.tokens);
        engine_ops_fini(&ops);

        /* the last layer with the head, for one token */
        o = (struct engine_ops_opts){
            .first = o.last, .last = m->hp.n_layer, .tokens = 1, .rows = 1, .flash = true
        };
        ops = list(m, &o);
        t = total(&ops);
        bytes = model_range_bytes(m, o.first, o.last);
        if (m->tensors.global[G_ROPE_FREQS] != NULL) /* read for queries and for keys */
            bytes += 2 * m->tensors.global[G_ROPE_FREQS]->bytes;
        assert_int_equal(t.weight_bytes, bytes);
        if (head == NULL)
            head = m->tensors.global[G_TOKEN_EMBD];
        products = layer_elements(m, o.first, MODEL_ROLE_MATMUL, 1) +
                   (uint64_t)(head->ne[0] * head->ne[1]);
        assert_int_equal(t.product_flops, 2 * products);
        engine_ops_fini(&ops);
        model_close(m);
    }
}

/* Goal:   attention costs 2 d_k + 2 d_v + 5 for each query head, token and column, fused or not;
 *         it reads every column of K and V, and new rows are written once. */
static void attention_costs_every_column_it_reads(void **state)
{
    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(shapes); i++) {
        struct mcp_model *m = run_model(
            unit_synth("ops.gguf", shapes[i].shape, shapes[i].quant, NULL));
        const struct model_hparams *hp = &m->hp;
        struct engine_ops_opts      o = { .first = 0, .last = 2, .tokens = 5, .context = 600 };
        uint64_t columns = 768, width = model_kv_width_k(hp) + model_kv_width_v(hp);
        uint64_t read = model_kv_width_k(hp) + (uint64_t)hp->head_v * hp->n_head_kv;

        for (int flash = 0; flash < 2; flash++) {
            struct engine_ops ops;
            struct totals     t;

            o.flash = flash != 0;
            ops = list(m, &o);
            t = total(&ops);
            assert_int_equal(t.attention_flops, 2 * columns * o.tokens * hp->n_head *
                                                    (2 * hp->head_k + 2 * hp->head_v + 5));
            if (!hp->mla || o.flash)
                assert_int_equal(t.kv_bytes, 2 * 2 * (columns * read + o.tokens * width));
            engine_ops_fini(&ops);
        }
        model_close(m);
    }
}

/* Goal:   the list can be computed in its order, and every op says the layer it belongs to. */
static void sources_come_before_and_layers_ascend(void **state)
{
    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(shapes); i++) {
        struct mcp_model *m = run_model(
            unit_synth("ops.gguf", shapes[i].shape, shapes[i].quant, NULL));
        struct engine_ops_opts o = {
            .first = 0, .last = m->hp.n_layer, .tokens = 3, .rows = 1, .flash = true
        };
        struct engine_ops ops = list(m, &o);
        int32_t           layer = ENGINE_OP_EMBED;
        uint32_t          stores = 0;

        assert_int_equal(ops.ops[0].layer, ENGINE_OP_EMBED);
        assert_int_equal(ops.ops[1].layer, 0); /* a norm, whose input is the embedding's */
        for (uint32_t j = 0; j < ops.count; j++) {
            const struct engine_op *op = &ops.ops[j];

            if (op->layer < layer)
                fail_msg("%s: op %u (%s) is of layer %d, one before of %d", shapes[i].shape, j,
                         op->name, op->layer, layer);
            layer = op->layer;
            for (uint32_t s = 0; s < op->source_count; s++)
                assert_true(op->sources[s] < j);
            if (j > 0 && op->layer >= 0 && op->source_count == 0)
                fail_msg("%s: op %u (%s) has no source", shapes[i].shape, j, op->name);
            if (strcmp(op->name, "FLASH_ATTN_EXT") == 0)
                for (uint32_t s = 0; s < op->source_count; s++)
                    stores += strcmp(ops.ops[op->sources[s]].name, "SET_ROWS") == 0;
        }
        assert_int_equal(layer, m->hp.n_layer);
        assert_int_equal(stores, m->hp.n_layer * (m->hp.mla ? 1 : 2));
        engine_ops_fini(&ops);
        model_close(m);
    }
}

static void impossible_windows_are_refused(void **state)
{
    static const struct engine_ops_opts bad[] = {
        { .first = 0, .last = 0, .tokens = 1 },
        { .first = 2, .last = 1, .tokens = 1 },
        { .first = 0, .last = 5, .tokens = 1 },
        { .first = 0, .last = 4, .tokens = 0 },
        { .first = 0, .last = 4, .tokens = ENGINE_BATCH_MAX + 1 },
        { .first = 0, .last = 4, .tokens = 3, .rows = 0 },
        { .first = 0, .last = 4, .tokens = 3, .rows = 4 },
        { .first = 0, .last = 4, .tokens = 1, .context = MODEL_CTX_MAX + 1u },
    };
    struct mcp_model *m = run_model(unit_synth("ops.gguf", "tiny-llama", "f16", NULL));

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        struct engine_ops ops;
        mcp_error         err = { 0 };

        unit_refused(engine_ops_list(&ops, m, &bad[i], &err), MCP_ERANGE, &err, "");
        assert_null(ops.ops);
    }
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_and_weights_are_the_models_own),
        cmocka_unit_test(attention_costs_every_column_it_reads),
        cmocka_unit_test(sources_come_before_and_layers_ascend),
        cmocka_unit_test(impossible_windows_are_refused),
    };

    return cmocka_run_group_tests_name("engine/ops", tests, NULL, NULL);
}
