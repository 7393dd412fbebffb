/* sim/failover.c - whatever fails, no token changes.
 *
 * SPDX-License-Identifier: MIT */
#include "sim/world_common.h"

const char *sim_program = "sim_failover";

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* What a run of seeds comes to. */
struct sums {
    double  *stalls; /* of each session, the longest */
    uint32_t sessions;
    uint64_t tokens, faults, events, failovers, handovers, replayed, resumes, opens, failures;
    uint32_t events_max;
};

static void add_world(struct sums *sums, const struct sim_world *w)
{
    sums->faults += w->faults;
    sums->events += w->clock.fired;
    if (w->clock.count_max > sums->events_max)
        sums->events_max = w->clock.count_max;
    for (uint32_t i = 0; i < w->opts.agents; i++) {
        const struct sim_agent *a = &w->agents[i];

        sums->stalls[sums->sessions++] = a->stall_ms_max;
        sums->tokens += a->tokens;
        sums->resumes += a->resumes;
        sums->opens += a->opens;
        sums->failures += a->failures;
        for (uint32_t k = 0; k < a->stage_count; k++) {
            struct pipeline_stage_stats stats;

            pipeline_get_stats(a->pipeline, k, &stats);
            sums->failovers += stats.failovers;
            sums->handovers += stats.handovers;
            sums->replayed += stats.replayed_positions;
        }
    }
}

static void run_seed(struct sums *sums, uint64_t seed, const struct sim_options *opts)
{
    struct sim_world *w = sim_world_new(seed, opts);

    sim_world_script(w);
    sim_world_start(w);
    sim_world_run(w);
    add_world(sums, w);
    sim_world_free(w);
}

static void say(struct sums *sums, uint64_t seeds)
{
    qsort(sums->stalls, sums->sessions, sizeof(*sums->stalls), compare);
    print_message("%" PRIu64 " seeds, %u sessions, %" PRIu64 " tokens, %" PRIu64 " faults, %" PRIu64
                  " events (at most %u wait)\n",
                  seeds, sums->sessions, sums->tokens, sums->faults, sums->events,
                  sums->events_max);
    print_message("%" PRIu64 " streams opened, %" PRIu64 " resumed; %" PRIu64 " failovers, %" PRIu64
                  " handovers, %" PRIu64 " positions replayed, %" PRIu64 " sessions failed\n",
                  sums->opens, sums->resumes, sums->failovers, sums->handovers, sums->replayed,
                  sums->failures);
    print_message("longest stall of a session: median %.0f ms, 95%% %.0f ms, most %.0f ms\n",
                  sums->stalls[sums->sessions / 2], sums->stalls[sums->sessions * 95 / 100],
                  sums->stalls[sums->sessions - 1]);
}

/* Goal:   the text of every session equals that of the undisturbed run, no work is lost or
 *         answered twice, no queue grows, and every session comes to its end.
 * Method: worlds from seeds: agents and workers of all kinds, resets, kills, stops, holes,
 *         spikes, slow and drained workers, one after another and together.
 * Replay: MCP_SEED=N ./dev test sim_failover */
static void no_fault_changes_a_token(void **state)
{
    bool        given = getenv("MCP_SEED") != NULL, longer = getenv("MCP_TEST_LONG") != NULL;
    uint64_t    count = given ? 1 : longer ? 50000 : 1000;
    struct sums sums = { .stalls = calloc(count * SIM_AGENTS_MAX, sizeof(double)) };

    (void)state;
    assert_non_null(sums.stalls);
    for (uint64_t seed = 0; seed < count; seed++)
        run_seed(&sums, given ? unit_seed() : seed, NULL);
    say(&sums, count);
    free(sums.stalls);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_fault_changes_a_token),
    };

    return cmocka_run_group_tests_name("sim/failover", tests, NULL, NULL);
}
