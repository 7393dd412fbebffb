/* sim/stalls.c - how long a user waits when a worker fails, in virtual time.
 *
 * One session: 512 tokens of history, then an answer token by token.  Two workers, 20 ms away, one
 * of which has nothing to do; or one worker and the agent's own layers.  The fault comes at a
 * moment between any two tokens.
 *
 * SPDX-License-Identifier: MIT */
#include "sim/world_common.h"

#include <math.h>

const char *sim_program = "sim_stalls";

enum { HISTORY = 512, CHUNK = 128, ANSWER = 120 };

static const double RTT_MS = 20.0, BASE_MS = 5.0, TOKEN_MS = 0.1, LOCAL_MS = 0.5;

enum fault { NOTHING, KILL, RESET, STOP, HOLE, DRAIN };

struct place {
    uint32_t workers;
    bool     fallback;
    bool     optimistic;
};

static struct sim_world *make(uint64_t seed, const struct place *place)
{
    struct sim_options opts = { .agents = 1,
                                .workers = place->workers,
                                .hops = 1,
                                .fallback = place->fallback,
                                .optimistic = place->optimistic,
                                .even_windows = true,
                                .row_bytes = 16,
                                .rtt_ms = RTT_MS,
                                .mbit = 100.0,
                                .sessions_max = 4,
                                .windows_max = 64 };
    struct sim_world  *w = sim_world_new(seed, &opts);
    struct sim_script *s = &w->agents[0].script;

    for (uint32_t i = 0; i < opts.workers; i++) {
        w->workers[i].base_ms = BASE_MS;
        w->workers[i].token_ms = TOKEN_MS;
        w->workers[i].limits.lease_ms = 30e3;
        w->agents[0].conns[i].rtt_ms = RTT_MS;
    }
    w->agents[0].token_ms = LOCAL_MS;
    w->agents[0].patience_ms = 120e3;
    s->seed = seed;
    s->turn_count = 1;
    s->turns[0] =
        (struct sim_turn){ .prompt = HISTORY, .chunk = CHUNK, .answer = ANSWER, .depth = 1 };
    sim_script_expect(s, &w->model);
    return w;
}

/* The connection that the session runs over. */
static struct sim_conn *in_use(struct sim_world *w)
{
    struct sim_agent *a = &w->agents[0];

    for (uint32_t i = 0; i < w->opts.workers; i++)
        for (uint32_t k = 0; k < a->conns[i].stream_count; k++)
            if (a->conns[i].streams[k]->agent_holds && !a->conns[i].streams[k]->closed)
                return &a->conns[i];
    fail_msg("the session is nowhere");
    return NULL;
}

static void strike(struct sim_event *e)
{
    struct sim_world *w = e->ctx;
    struct sim_conn  *c = in_use(w);
    double            now_ms = w->clock.now_ms;

    switch ((enum fault)e->number) {
    case NOTHING: break;
    case KILL: sim_worker_kill(c->worker); break;
    case RESET: sim_conn_reset(c, false, false); break;
    case STOP: c->worker->stopped_until_ms = now_ms + 5000.0; break;
    case HOLE: c->hole_until_ms = now_ms + 5000.0; break;
    case DRAIN: sim_worker_drain(c->worker, 2000.0); break;
    }
}

/* The longest time between two tokens. */
static double stall_of(uint64_t seed, const struct place *place, enum fault fault)
{
    struct sim_world *w = make(seed, place);
    uint32_t          after = 2 + sim_below(&w->clock, ANSWER - 20);
    double            stall_ms;

    sim_world_start(w);
    while (w->agents[0].tokens < after)
        assert_true(sim_clock_step(&w->clock));
    sim_post(&w->clock, w->clock.now_ms + sim_between(&w->clock, 0.0, 2.0 * RTT_MS),
             (struct sim_event){ .fire = strike, .ctx = w, .number = fault });
    sim_world_run(w);
    stall_ms = w->agents[0].stall_ms_max;
    sim_world_free(w);
    return stall_ms;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Stalls of 200 seeds; none may be above `most_ms`. */
static void measure(const char *name, const struct place *place, enum fault fault, double most_ms)
{
    double stalls[200];

    for (size_t i = 0; i < UNIT_COUNT(stalls); i++) {
        stalls[i] = stall_of(i, place, fault);
        if (stalls[i] > most_ms)
            fail_msg("%s: %.1f ms in seed %zu, at most %.1f", name, stalls[i], i, most_ms);
    }
    qsort(stalls, UNIT_COUNT(stalls), sizeof(stalls[0]), compare);
    print_message("%-28s median %4.0f, 95%% %4.0f, most %4.0f of %4.0f ms\n", name,
                  stalls[UNIT_COUNT(stalls) / 2], stalls[UNIT_COUNT(stalls) * 95 / 100],
                  stalls[UNIT_COUNT(stalls) - 1], most_ms);
}

/* ---- the arithmetic ------------------------------------------------------------------------ */

/* One token without faults: local layers before and after, the way, one forward. */
static double token_ms(void)
{
    double local_ms = LOCAL_MS * 2 * (1 + 1 / 4.0);

    return 2 * local_ms + RTT_MS + BASE_MS + TOKEN_MS + 1.0;
}

/* What was lost of a token when the fault came, the history again (chunks as they were, answers
 * joined to windows of 63), and the token. */
static double again_ms(void)
{
    double windows = HISTORY / CHUNK + (ANSWER + 62) / 63;

    return token_ms() + windows * BASE_MS + (HISTORY + ANSWER) * TOKEN_MS + token_ms();
}

/* The same on the agent's own four layers. */
static double again_local_ms(void)
{
    double windows = HISTORY / CHUNK + (ANSWER + 62) / 63;

    return token_ms() + LOCAL_MS * 4 * (windows + (HISTORY + ANSWER) / 4.0) + token_ms();
}

/* Silence is noticed: pulse.h; deviation and beats' own time are within a round trip here. */
static double silence_ms(void)
{
    return PULSE_SILENCE_MS + 3 * RTT_MS;
}

static void a_token_takes_a_round_trip(void **state)
{
    (void)state;
    measure("no fault", &(struct place){ 2, false, true }, NOTHING, token_ms());
}

/* Goal:   with a standby that is connected, a loss costs its detection, the replay, and a bounded
 *         number of round trips: half of one until the reset is heard, one for Open (none when
 *         the agent does not wait for Opened), one for the answer. */
static void a_standby_takes_over_within_round_trips_and_the_replay(void **state)
{
    const struct place waiting = { 2, false, false }, at_once = { 2, false, true };
    double             work_ms = again_ms() - RTT_MS; /* whose last one is counted below */

    (void)state;
    measure("kill", &at_once, KILL, work_ms + 1.5 * RTT_MS);
    measure("kill, waits for Opened", &waiting, KILL, work_ms + 2.5 * RTT_MS);
    measure("reset", &at_once, RESET, work_ms + 1.5 * RTT_MS);
    measure("stop", &at_once, STOP, work_ms + silence_ms() + 1.5 * RTT_MS);
    measure("black hole", &at_once, HOLE, work_ms + silence_ms() + 1.5 * RTT_MS);
}

/* Goal:   a drain to another worker costs nothing; one to the agent itself that a token's local
 * layers, before and after, wait behind a window of the replay. */
static void a_drain_is_not_noticed(void **state)
{
    (void)state;
    measure("drain", &(struct place){ 2, false, true }, DRAIN, token_ms());
    measure("drain to the agent itself", &(struct place){ 1, true, true }, DRAIN,
            token_ms() + 2 * LOCAL_MS * 4 * (1 + CHUNK / 4.0));
}

/* Goal:   the only worker is there again at once: its session is resumed, nothing is replayed.
 *         Dialling takes two round trips, Open and the answer one each. */
static void a_session_is_resumed_without_replay(void **state)
{
    (void)state;
    measure("reset, one worker", &(struct place){ 1, false, true }, RESET,
            2 * token_ms() + 0.5 * RTT_MS + 3.0 * RTT_MS);
}

/* Goal:   without another worker the agent's own layers take over, once dialling has failed. */
static void without_a_standby_local_takes_over(void **state)
{
    const struct place place = { 1, true, true };

    (void)state;
    measure("kill, local", &place, KILL, again_local_ms() + 2.5 * RTT_MS);
    measure("black hole, local", &place, HOLE,
            again_local_ms() + silence_ms() + SIM_DIAL_MS_MAX + 2.5 * RTT_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_takes_a_round_trip),
        cmocka_unit_test(a_standby_takes_over_within_round_trips_and_the_replay),
        cmocka_unit_test(a_drain_is_not_noticed),
        cmocka_unit_test(a_session_is_resumed_without_replay),
        cmocka_unit_test(without_a_standby_local_takes_over),
    };

    return cmocka_run_group_tests_name("sim/stalls", tests, NULL, NULL);
}
