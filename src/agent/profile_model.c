/* agent/profile_model.c - a model as the planner sees it: its op graph, from the file's header.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/profile.h"

#include "base/fail.h"
#include "engine/ops.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "ffn_gate-3" of blk.3.ffn_gate.weight.  An op without a weight is named by what it does to the
 * nearest one before it in its layer: "rope.attn_q-3". */
static void name_op(char name[PLAN_OP_NAME_BYTES], const struct engine_ops *list, uint32_t index,
                    uint32_t n_layer)
{
    const struct engine_op *op = &list->ops[index], *from = op;
    char                    verb[20] = "", noun[30] = "";
    const char             *weight;
    size_t                  used;

    while (from->weight == NULL && from->source_count > 0 &&
           list->ops[from->sources[0]].layer == op->layer)
        from = &list->ops[from->sources[0]];
    if (from->weight != NULL) {
        weight = strncmp(from->weight, "blk.", 4) == 0 ? strchr(from->weight + 4, '.') : NULL;
        snprintf(noun, sizeof(noun), "%.29s", weight != NULL ? weight + 1 : from->weight);
        used = strlen(noun);
        if (used > 7 && strcmp(noun + used - 7, ".weight") == 0)
            noun[used - 7] = '\0';
    }
    if (from != op || noun[0] == '\0') {
        snprintf(verb, sizeof(verb), "%.18s%s", op->name, noun[0] != '\0' ? "." : "");
        for (char *c = verb; *c != '\0'; c++)
            *c = (char)tolower((unsigned char)*c);
    }
    if (op->layer >= 0 && op->layer < (int32_t)n_layer)
        snprintf(name, PLAN_OP_NAME_BYTES, "%s%s-%d", verb, noun, op->layer);
    else
        snprintf(name, PLAN_OP_NAME_BYTES, "%s%s", verb, noun);
}

static void convert(struct plan_op *out, const struct engine_ops *list, uint32_t index,
                    uint32_t n_layer)
{
    const struct engine_op *op = &list->ops[index];

    name_op(out->name, list, index, n_layer);
    snprintf(out->kind, sizeof(out->kind), "%s", op->name);
    out->layer = op->layer == ENGINE_OP_EMBED    ? PLAN_OP_EMBED
                 : op->layer == (int32_t)n_layer ? PLAN_OP_HEAD
                                                 : op->layer;
    out->flops = (double)op->flops;
    out->weight_bytes = (double)op->weight_bytes;
    out->activation_bytes = (double)(op->kv_bytes + op->read_bytes + op->write_bytes);
    out->elements = (double)op->ne[0] * (double)op->ne[1] * (double)op->ne[2] * (double)op->ne[3];
    out->experts = op->experts;
    out->experts_used = op->experts_used;
    out->source_count = op->source_count;
    memcpy(out->sources, op->sources, op->source_count * sizeof(*op->sources));
}

_Static_assert((int)ENGINE_OP_SOURCES_MAX <= (int)PLAN_OP_SOURCES_MAX, "sources are copied");

/* The ops of one shape, owned by the caller. */
static int list_shape(struct plan_ops *out, const struct mcp_model *model, uint32_t tokens,
                      uint32_t columns, mcp_error *err)
{
    struct engine_ops_opts o = { .last = model->hp.n_layer,
                                 .tokens = tokens,
                                 .context = columns - tokens,
                                 .rows = tokens,
                                 .flash = true };
    struct engine_ops      list;
    struct plan_op        *ops;
    int                    rc = engine_ops_list(&list, model, &o, err);

    if (rc < 0)
        return rc;
    ops = calloc(list.count, sizeof(*ops));
    if (ops == NULL)
        rc = base_fail(err, MCP_ENOMEM, "list of %u operations", list.count);
    for (uint32_t i = 0; rc == MCP_OK && i < list.count; i++)
        convert(&ops[i], &list, i, model->hp.n_layer);
    *out =
        (struct plan_ops){ .tokens = tokens, .columns = columns, .count = list.count, .ops = ops };
    engine_ops_fini(&list);
    return rc;
}

int profile_graph(struct plan_graph **out, const struct mcp_model *model, mcp_error *err)
{
    /* Columns as the engine pads them; tokens above one, of which some kernels make an exception. */
    static const uint32_t tokens[PLAN_SHAPES] = { 2, 4, 2, 4 };
    static const uint32_t columns[PLAN_SHAPES] = { ENGINE_KV_PAD, ENGINE_KV_PAD, 2 * ENGINE_KV_PAD,
                                                   2 * ENGINE_KV_PAD };
    struct plan_ops       shapes[PLAN_SHAPES] = { 0 };
    int                   rc = MCP_OK;

    *out = NULL;
    for (int i = 0; i < PLAN_SHAPES && rc == MCP_OK; i++)
        rc = list_shape(&shapes[i], model, tokens[i], columns[i], err);
    if (rc == MCP_OK)
        rc = plan_graph_new(out, shapes, err);
    for (int i = 0; i < PLAN_SHAPES; i++)
        free((void *)(uintptr_t)shapes[i].ops);
    return rc;
}

void profile_work(const struct plan_graph *graph, double work[PLAN_LAYERS_MAX])
{
    uint32_t layers = plan_graph_layers(graph);
    double   sum = 0.0;

    memset(work, 0, PLAN_LAYERS_MAX * sizeof(*work));
    for (uint32_t i = 0; i < layers; i++) {
        struct plan_work w = plan_graph_layer(graph, (int32_t)i, 1, ENGINE_KV_PAD);

        work[i] = w.weight_bytes + w.activation_bytes;
        sum += work[i];
    }
    for (uint32_t i = 0; i < layers && sum > 0.0; i++)
        work[i] *= layers / sum;
}
