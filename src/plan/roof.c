/* plan/roof.c - how long ops take on a device of which only the data sheet is known; see graph.h.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/graph.h"

#include "base/fail.h"

#include <math.h>
#include <stdlib.h>

double plan_roof_ms(const struct plan_roof *roof, const struct plan_work *work)
{
    double bytes_s = (work->weight_bytes + work->activation_bytes) / roof->bytes_per_s;

    return 1000.0 * fmax(bytes_s, work->flops / roof->flops_per_s) +
           work->launches * roof->launch_ms;
}

static double op_ms(const struct plan_graph *g, uint32_t index, uint32_t tokens, uint32_t columns,
                    const struct plan_roof *roof)
{
    struct plan_work work = plan_graph_op_work(g, index, tokens, columns);

    return plan_roof_ms(roof, &work);
}

double plan_graph_layer_ms(const struct plan_graph *g, int32_t layer, uint32_t tokens,
                           uint32_t columns, const struct plan_roof *roof)
{
    double ms = 0.0;

    for (uint32_t i = 0; i < plan_graph_ops(g); i++)
        if (plan_graph_op(g, i).layer == layer)
            ms += op_ms(g, i, tokens, columns, roof);
    return ms;
}

/* The chain that ends with `last`, its ops in order. */
static uint32_t write_chain(const uint32_t *before, uint32_t last, uint32_t *chain)
{
    uint32_t count = 1, at = last;

    for (; before[at] != at; at = before[at])
        count++;
    for (uint32_t i = count; i > 0; i--) {
        chain[i - 1] = last;
        last = before[last];
    }
    return count;
}

int plan_graph_critical_ms(const struct plan_graph *g, uint32_t tokens, uint32_t columns,
                           const struct plan_roof *roof, double *ms, uint32_t *chain,
                           uint32_t *chain_count, mcp_error *err)
{
    uint32_t  count = plan_graph_ops(g);
    double   *end_ms = calloc(count, sizeof(*end_ms));
    uint32_t *before = calloc(count, sizeof(*before));
    uint32_t  last = 0;
    int       rc = 0;

    if (end_ms == NULL || before == NULL) {
        rc = base_fail(err, MCP_ENOMEM, "no memory for the critical path of %u ops", count);
        goto out;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct plan_op_info op = plan_graph_op(g, i);

        before[i] = i; /* itself: the chain begins here */
        for (uint32_t s = 0; s < op.source_count; s++) {
            uint32_t source = op.sources[s];

            if (before[i] == i || end_ms[source] > end_ms[before[i]])
                before[i] = source;
        }
        end_ms[i] = (before[i] == i ? 0.0 : end_ms[before[i]]) + op_ms(g, i, tokens, columns, roof);
        if (end_ms[i] > end_ms[last])
            last = i;
    }
    *ms = end_ms[last];
    if (chain != NULL)
        *chain_count = write_chain(before, last, chain);
out:
    free(end_ms);
    free(before);
    return rc;
}
