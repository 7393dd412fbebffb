/* cli/stats.c - see stats.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/stats.h"

#include "cli/out.h"

#include <stdio.h>
#include <string.h>

/* "[0,2) here | [2,28) gpu-01 1.9 ms of 22.3 | ... | out 12.1 KiB". */
void cli_stats_stages(const mcp_session_stats *stats)
{
    char out[CLI_BYTES_TEXT], in[CLI_BYTES_TEXT];

    if (stats->plan[0] != '\0')
        fprintf(stderr, "plan: %s\n", stats->plan);
    if (stats->moves > 0)
        fprintf(stderr, "moved %u time%s, %.0f ms, at last because it %s\n", stats->moves,
                stats->moves == 1 ? "" : "s", stats->move_ms, stats->move_why);
    for (uint32_t i = 0; i < stats->stage_count && i < MCP_STAGE_STATS_MAX; i++) {
        const mcp_stage_stats *s = &stats->stages[i];
        double                 n = s->windows > 0 ? (double)s->windows : 1.0;
        char                   where[sizeof(s->where) * 3];

        cli_text_field(where, sizeof(where), s->where);
        fprintf(stderr, "%slayers [%u,%u) %s", i > 0 ? " | " : "", s->first, s->last, where);
        if (s->windows > 0)
            fprintf(stderr, " %.1f ms (computing %.1f)", s->elapsed_ms / n, s->compute_ms / n);
    }
    fprintf(stderr,
            "\n%s out, %s in, codec %s, failovers %u, handovers %u, longest stall %.0f ms\n",
            cli_bytes_text(out, stats->bytes_out), cli_bytes_text(in, stats->bytes_in),
            stats->codec[0] != '\0' ? stats->codec : "none", stats->failovers, stats->handovers,
            stats->stall_ms_max);
    if (stats->drafted > 0)
        fprintf(stderr,
                "guessed ahead %llu, right %llu of %llu looked at, up to %u windows in flight\n",
                (unsigned long long)stats->drafted, (unsigned long long)stats->accepted,
                (unsigned long long)stats->drafted_seen, stats->in_flight_max);
}

/* ---- live -------------------------------------------------------------------------------- */

/* What f16 would have put on the way, in both directions, for the same windows. */
static double f16_bytes(const mcp_session_stats *stats, uint32_t n_embd)
{
    double bytes = 0.0;

    for (uint32_t i = 0; i < stats->stage_count && i < MCP_STAGE_STATS_MAX; i++)
        if (strncmp(stats->stages[i].where, "here", 4) != 0)
            bytes += 2.0 * (double)stats->stages[i].positions * n_embd * 2.0;
    return bytes;
}

static void print_links(const mcp_remote *remote)
{
    for (uint32_t i = 0; i < mcp_remote_worker_count(remote); i++) {
        mcp_worker_info w = { .struct_size = sizeof(w) };

        if (mcp_remote_get_worker(remote, i, &w) < 0)
            continue;
        fprintf(stderr, " | %s %s", w.endpoint, mcp_worker_state_name(w.state));
        if (w.state != MCP_WORKER_UP)
            continue;
        if (w.rtt_ms > 0.0)
            fprintf(stderr, ", %.1f ms", w.rtt_ms_p50 > 0.0 ? w.rtt_ms_p50 : w.rtt_ms);
        if (w.goodput_mbit > 0.0)
            fprintf(stderr, ", up %.0f Mbit/s", w.goodput_mbit);
        if (w.goodput_down_mbit > 0.0)
            fprintf(stderr, ", down %.0f Mbit/s", w.goodput_down_mbit);
    }
}

void cli_stats_live(const struct cli_place *place, const mcp_model *model, uint32_t tokens)
{
    mcp_session_stats stats = { .struct_size = sizeof(stats) };
    char              text[CLI_BYTES_TEXT];
    double            bytes, f16;

    if (mcp_session_get_stats(place->session, &stats) < 0)
        return;
    bytes = (double)(stats.bytes_out + stats.bytes_in);
    f16 = f16_bytes(&stats, mcp_model_get_info(model)->n_embd);
    fprintf(stderr, "%u tokens | %s", tokens,
            stats.plan[0] != '\0' ? stats.plan : cli_mode_name(place->mode));
    if (stats.codec[0] != '\0')
        fprintf(stderr, " | codec %s", stats.codec);
    if (place->remote != NULL)
        print_links(place->remote);
    if (stats.drafted_seen > 0)
        fprintf(stderr, " | %.0f %% of %llu guesses right, %u windows in flight",
                100.0 * (double)stats.accepted / (double)stats.drafted_seen,
                (unsigned long long)stats.drafted_seen, stats.in_flight_max);
    if (bytes > 0.0)
        fprintf(stderr, " | %s", cli_bytes_text(text, (uint64_t)bytes));
    if (f16 > bytes && bytes > 0.0)
        fprintf(stderr, " (%.0f %% less than f16)", 100.0 * (1.0 - bytes / f16));
    fprintf(stderr, " | moves %u%s%s\n", stats.moves, stats.moves > 0 ? ": " : "",
            stats.moves > 0 ? stats.move_why : "");
}
