/* cli/plan_graph.c - `mcp plan --graph`: the operations of a model, as table, JSON or DOT.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/cli.h"
#include "cli/out.h"
#include "cli/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct graph_view {
    const struct plan_args *args;
    mcp_graph              *graph;
    uint32_t                layers;
    uint32_t                count;
    mcp_op                 *ops;   /* (count) */
    uint32_t               *sizes; /* (groups): ops in each */
    double                  flops, weight_bytes, activation_bytes;
};

static const char *layer_text(char out[16], int32_t layer)
{
    if (layer == MCP_LAYER_EMBED || layer == MCP_LAYER_HEAD)
        return layer == MCP_LAYER_HEAD ? "head" : "embed";
    snprintf(out, 16, "%d", layer);
    return out;
}

/* ---- table -------------------------------------------------------------------------- */

static void print_cuts(const struct graph_view *v)
{
    double   width = mcp_graph_cut_width(v->graph, 0);
    uint32_t alike = 0;

    for (uint32_t layer = 0; layer <= v->layers; layer++)
        alike += mcp_graph_cut_width(v->graph, layer) == width;
    if (alike == v->layers + 1)
        cli_row("cuts", "%.0f floats a token at each of the %u boundaries", width, alike);
    else
        for (uint32_t layer = 0; layer <= v->layers; layer++)
            cli_row("cut", "below layer %u: %.0f floats a token", layer,
                    mcp_graph_cut_width(v->graph, layer));
}

static void print_table(const struct graph_view *v)
{
    uint32_t groups = mcp_graph_group_count(v->graph), wide = 0, widest = 0;
    char     text[16], weights[CLI_BYTES_TEXT], moved[CLI_BYTES_TEXT], flops[CLI_BYTES_TEXT];

    cli_printf("%5s  %-6s %-36s %-16s %5s %10s %12s %12s %9s  %s\n", "op", "layer", "name", "kind",
               "group", "FLOPs", "weights", "activations", "cut", "after");
    for (uint32_t i = 0; i < v->count; i++) {
        const mcp_op *op = &v->ops[i];

        cli_printf("%5u  %-6s %-36s %-16s %5u %10s %12s %12s %9.0f  ", i,
                   layer_text(text, op->layer), op->name, op->kind, op->group,
                   cli_count_text(flops, (uint64_t)op->flops),
                   cli_bytes_text(weights, (uint64_t)op->weight_bytes),
                   cli_bytes_text(moved, (uint64_t)op->activation_bytes), op->cut_width);
        for (uint32_t s = 0; s < op->source_count; s++)
            cli_printf("%s%u", s > 0 ? "," : "", op->sources[s]);
        cli_printf("\n");
    }
    for (uint32_t g = 0; g < groups; g++) {
        wide += v->sizes[g] > 1;
        widest = v->sizes[g] > widest ? v->sizes[g] : widest;
    }
    cli_printf("\n");
    cli_row("window", "%lld token%s behind %lld", (long long)v->args->tokens,
            v->args->tokens == 1 ? "" : "s", (long long)v->args->context);
    cli_row("work", "%s FLOPs, %s of weights, %s of activations and cache",
            cli_count_text(flops, (uint64_t)v->flops),
            cli_bytes_text(weights, (uint64_t)v->weight_bytes),
            cli_bytes_text(moved, (uint64_t)v->activation_bytes));
    cli_row("operations", "%u in %u groups; in %u groups more than one may run at once, at most %u",
            v->count, groups, wide, widest);
    print_cuts(v);
}

/* ---- JSON --------------------------------------------------------------------------- */

static int print_json(const struct graph_view *v)
{
    json_t *ops = json_array(), *cuts = json_array();
    char    text[16];

    for (uint32_t i = 0; i < v->count; i++) {
        const mcp_op *op = &v->ops[i];
        json_t       *sources = json_array(), *object;

        for (uint32_t s = 0; s < op->source_count; s++)
            json_array_append_new(sources, json_integer(op->sources[s]));
        object = json_pack("{s:o, s:o, s:s, s:o, s:i}", "name", cli_json_string(op->name), "kind",
                           cli_json_string(op->kind), "layer", layer_text(text, op->layer),
                           "sources", sources, "group", (int)op->group);
        json_object_set_new(object, "flops", cli_json_real(op->flops));
        json_object_set_new(object, "weight_bytes", cli_json_real(op->weight_bytes));
        json_object_set_new(object, "activation_bytes", cli_json_real(op->activation_bytes));
        json_object_set_new(object, "cut_width", cli_json_real(op->cut_width));
        json_array_append_new(ops, object);
    }
    for (uint32_t layer = 0; layer <= v->layers; layer++)
        json_array_append_new(cuts, cli_json_real(mcp_graph_cut_width(v->graph, layer)));
    return cli_print_json(json_pack(
        "{s:I, s:I, s:i, s:i, s:o, s:o, s:o, s:o, s:o}", "tokens", (json_int_t)v->args->tokens,
        "context", (json_int_t)v->args->context, "layers", (int)v->layers, "groups",
        (int)mcp_graph_group_count(v->graph), "flops", cli_json_real(v->flops), "weight_bytes",
        cli_json_real(v->weight_bytes), "activation_bytes", cli_json_real(v->activation_bytes),
        "cut_widths", cuts, "ops", ops));
}

/* ---- DOT ---------------------------------------------------------------------------- */

/* Names come from a file: quotes and backslashes would end the string. */
static void print_quoted(const char *text)
{
    cli_printf("\"");
    for (; *text != '\0'; text++)
        cli_printf(*text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
}

static void print_dot(const struct graph_view *v)
{
    char flops[CLI_BYTES_TEXT], weights[CLI_BYTES_TEXT];

    cli_printf("digraph model {\n  rankdir=TB; node [shape=box, fontsize=10];\n");
    for (uint32_t i = 0; i < v->count; i++) {
        const mcp_op *op = &v->ops[i];

        cli_printf("  n%u [label=", i);
        print_quoted(op->name);
        cli_printf("\\n%s\\n%s FLOPs, %s\"", op->kind, cli_count_text(flops, (uint64_t)op->flops),
                   cli_bytes_text(weights, (uint64_t)op->weight_bytes));
        cli_printf("%s];\n", v->sizes[op->group] > 1 ? ", style=filled, fillcolor=lightgrey" : "");
        for (uint32_t s = 0; s < op->source_count; s++)
            cli_printf("  n%u -> n%u;\n", op->sources[s], i);
    }
    cli_printf("}\n");
}

/* ---- all ---------------------------------------------------------------------------- */

static int fill(struct graph_view *v)
{
    uint32_t groups = mcp_graph_group_count(v->graph);

    v->count = mcp_graph_op_count(v->graph);
    v->ops = calloc(v->count + 1, sizeof(*v->ops));
    v->sizes = calloc(groups + 1, sizeof(*v->sizes));
    if (v->ops == NULL || v->sizes == NULL)
        return cli_fail("out of memory"), -1;
    for (uint32_t i = 0; i < v->count; i++) {
        mcp_op *op = &v->ops[i];

        op->struct_size = sizeof(*op);
        if (mcp_graph_get_op(v->graph, i, (uint32_t)v->args->tokens, (uint32_t)v->args->context,
                             op) < 0)
            return cli_fail("operation %u cannot be told", i), -1;
        if (op->flops > 0.0 || op->weight_bytes + op->activation_bytes > 0.0)
            v->sizes[op->group]++;
        v->flops += op->flops;
        v->weight_bytes += op->weight_bytes;
        v->activation_bytes += op->activation_bytes;
    }
    return 0;
}

int plan_show_graph(const struct plan_args *args, const mcp_model *model)
{
    struct graph_view v = { .args = args, .layers = mcp_model_get_info(model)->layers };
    mcp_error         err = { 0 };
    int               status = CLI_FAILED;

    if (mcp_graph_open(&v.graph, model, &err) < 0)
        return cli_fail("%s", err.text);
    if (fill(&v) == 0) {
        status = CLI_OK;
        if (args->json)
            status = print_json(&v);
        else if (args->dot)
            print_dot(&v);
        else
            print_table(&v);
    }
    free(v.ops);
    free(v.sizes);
    mcp_graph_close(v.graph);
    return status;
}
