/* sim/world_common.c - a world from a seed, and what goes wrong in it.
 *
 * SPDX-License-Identifier: MIT */
#include "sim/world_common.h"

static const double WORLD_MS_MAX = 600e3; /* a script takes a minute; beyond this it hangs */

/* ---- building ----------------------------------------------------------------------------- */

/* Each choice is a statement of its own: in one expression compilers order them as they like, and
 * a seed would be another world elsewhere. */
struct sim_options sim_options_any(struct sim_clock *c)
{
    static const uint32_t windows[] = { 1, 2, 8, 64 };
    static const double   rtts[] = { 0.5, 5.0, 20.0, 80.0, 200.0 };
    struct sim_options    o;

    o.agents = 1 + sim_below(c, SIM_AGENTS_MAX);
    o.workers = 1 + sim_below(c, SIM_WORKERS_MAX);
    if (sim_chance(c, 30))
        o.workers = 1; /* nowhere to go: its sessions are resumed */
    o.hops = sim_below(c, 3);
    o.fallback = sim_chance(c, 40);
    o.optimistic = sim_chance(c, 50);
    o.even_windows = sim_chance(c, 50);
    o.row_bytes = sim_chance(c, 15) ? SIM_ROW_BYTES_MAX : 16;
    o.rtt_ms = rtts[sim_below(c, UNIT_COUNT(rtts))];
    /* A part of a payload (32 KiB) has to pass within the silence that is taken for death. */
    o.mbit = sim_chance(c, 50) ? 1000.0 : sim_between(c, 2.0, 100.0);
    o.sessions_max = 1 + sim_below(c, 6);
    o.windows_max = windows[sim_below(c, UNIT_COUNT(windows))];
    o.fault_every_ms = sim_between(c, 30.0, 2000.0);
    o.faults_until_ms = sim_between(c, 1000.0, 30000.0);
    o.fault_kinds = sim_chance(c, 50) ? UINT32_MAX : (uint32_t)unit_next(&c->random);
    o.spite = sim_chance(c, 40) ? 1 + sim_below(c, 40) : 0;
    return o;
}

/* Who could wait for each other's places for ever does not: every agent may have all its remote
 * stages, and the successors of those, at one worker. */
static uint32_t sessions_needed(const struct sim_options *o)
{
    return o->hops > 1 ? 2 * o->hops * o->agents : 1;
}

static void make_worker(struct sim_world *w, uint32_t index)
{
    struct sim_worker *worker = &w->workers[index];
    struct sim_clock  *c = &w->clock;

    *worker = (struct sim_worker){ .world = w, .index = index, .last = SIM_LAYERS };
    worker->base_ms = sim_between(c, 0.5, 8.0);
    worker->token_ms = sim_between(c, 0.02, 0.4);
    worker->limits = worker_limits_default();
    worker->limits.sessions_max = w->opts.sessions_max > sessions_needed(&w->opts)
                                      ? w->opts.sessions_max
                                      : sessions_needed(&w->opts);
    worker->limits.ctx_tokens = SIM_CTX;
    worker->limits.last = worker->last;
    worker->limits.batch_tokens = SIM_WINDOW_MAX;
    worker->limits.chunk_tokens = 64 * (1 + sim_below(c, 4));
    worker->limits.windows_max = w->opts.windows_max;
    worker->limits.lease_ms = sim_between(c, 1000.0, 30000.0);
    worker->limits.detached_keep_ms = sim_between(c, 200.0, 5000.0);
    sim_worker_start(worker);
}

static void plan_stages(struct sim_agent *a, uint32_t hops)
{
    static const struct pipeline_stage plans[3][SIM_STAGES_MAX] = {
        { { 0, 8, true } },
        { { 0, 2, false }, { 2, 6, true }, { 6, 8, false } },
        { { 0, 1, false }, { 1, 4, true }, { 4, 7, true }, { 7, 8, false } },
    };

    memcpy(a->stages, plans[hops], sizeof(a->stages));
    a->stage_count = hops == 0 ? 1 : hops + 2;
}

static void make_agent(struct sim_world *w, uint32_t index)
{
    struct sim_agent *a = &w->agents[index];
    struct sim_clock *c = &w->clock;

    *a = (struct sim_agent){
        .world = w, .index = index, .fallback = w->opts.fallback, .optimistic = w->opts.optimistic
    };
    a->patience_ms = sim_chance(c, 10) ? 3000.0 : 120e3;
    a->token_ms = sim_between(c, 0.1, 1.0);
    plan_stages(a, w->opts.hops);
    for (uint32_t i = 0; i < w->opts.workers; i++)
        a->conns[i] = (struct sim_conn){ .world = w,
                                         .agent = a,
                                         .worker = &w->workers[i],
                                         .rtt_ms = w->opts.rtt_ms * sim_between(c, 0.8, 1.2),
                                         .bytes_per_ms = w->opts.mbit * 125.0 };
}

struct sim_world *sim_world_new(uint64_t seed, const struct sim_options *opts)
{
    struct sim_world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    sim_clock_init(&w->clock, seed);
    w->opts = opts != NULL ? *opts : sim_options_any(&w->clock);
    w->model = (struct sim_model){ .row_bytes = w->opts.row_bytes,
                                   .even_windows = w->opts.even_windows };
    for (uint32_t i = 0; i < w->opts.workers; i++)
        make_worker(w, i);
    for (uint32_t i = 0; i < w->opts.agents; i++)
        make_agent(w, i);
    return w;
}

void sim_world_script(struct sim_world *w)
{
    for (uint32_t i = 0; i < w->opts.agents; i++)
        sim_script_make(&w->agents[i].script, &w->clock, &w->model);
}

/* ---- what goes wrong ------------------------------------------------------------------------ */

static struct sim_conn *any_conn(struct sim_world *w)
{
    uint32_t agent = sim_below(&w->clock, w->opts.agents);

    return &w->agents[agent].conns[sim_below(&w->clock, w->opts.workers)];
}

static struct sim_worker *any_worker(struct sim_world *w)
{
    return &w->workers[sim_below(&w->clock, w->opts.workers)];
}

static void restarts(struct sim_event *e)
{
    struct sim_worker *worker = e->ctx;

    if (!worker->alive)
        sim_worker_start(worker);
}

static void restart_after(struct sim_worker *worker, double ms)
{
    struct sim_clock *c = &worker->world->clock;

    sim_post(c, c->now_ms + ms, (struct sim_event){ .fire = restarts, .ctx = worker });
}

static void reset_one(struct sim_world *w)
{
    uint32_t knows = sim_below(&w->clock, 3);

    sim_conn_reset(any_conn(w), knows != 1, knows != 2);
}

static void kill_one(struct sim_world *w)
{
    struct sim_worker *worker = any_worker(w);

    sim_worker_kill(worker);
    restart_after(worker, sim_between(&w->clock, 10.0, 8000.0));
}

static void kill_all(struct sim_world *w)
{
    double ms = sim_between(&w->clock, 500.0, 8000.0);

    for (uint32_t i = 0; i < w->opts.workers; i++) {
        sim_worker_kill(&w->workers[i]);
        restart_after(&w->workers[i], ms);
    }
}

/* SIGSTOP, then SIGCONT.  What has been put off until then stays so: never earlier. */
static void stop_one(struct sim_world *w)
{
    struct sim_worker *worker = any_worker(w);
    double             until_ms = w->clock.now_ms + sim_between(&w->clock, 20.0, 4000.0);

    if (until_ms > worker->stopped_until_ms)
        worker->stopped_until_ms = until_ms;
}

static void hole_between(struct sim_world *w)
{
    struct sim_conn *c = any_conn(w);

    c->hole_until_ms = w->clock.now_ms + sim_between(&w->clock, 20.0, 4000.0);
}

static void hole_around(struct sim_world *w)
{
    uint32_t worker = any_worker(w)->index;
    double   until_ms = w->clock.now_ms + sim_between(&w->clock, 20.0, 4000.0);

    for (uint32_t i = 0; i < w->opts.agents; i++)
        w->agents[i].conns[worker].hole_until_ms = until_ms;
}

static void delay_spike(struct sim_world *w)
{
    struct sim_conn *c = any_conn(w);

    c->spike_ms = sim_between(&w->clock, 5.0, 600.0);
    c->spike_until_ms = w->clock.now_ms + sim_between(&w->clock, 10.0, 1000.0);
}

static void other_route(struct sim_world *w)
{
    struct sim_conn *c = any_conn(w);

    c->rtt_ms = w->opts.rtt_ms * sim_between(&w->clock, 0.3, 4.0);
}

static void slow_down(struct sim_world *w)
{
    struct sim_worker *worker = any_worker(w);

    worker->slowness = sim_chance(&w->clock, 50) ? 1.0 : sim_between(&w->clock, 1.0, 20.0);
}

static void drain_one(struct sim_world *w)
{
    struct sim_worker *worker = any_worker(w);
    double             within_ms = sim_between(&w->clock, 50.0, 8000.0);

    if (!worker->alive || worker->draining)
        return;
    sim_worker_drain(worker, within_ms);
    restart_after(worker, within_ms + sim_between(&w->clock, 10.0, 5000.0));
}

static void spite_fires(struct sim_event *e)
{
    struct sim_agent *a = e->ctx;

    for (uint32_t i = 0; i < a->world->opts.workers; i++)
        if (a->conns[i].stream_count > 0 && sim_chance(&a->world->clock, 70))
            sim_conn_reset(&a->conns[i], true, sim_chance(&a->world->clock, 50));
    a->world->faults++;
    sim_agent_run(a);
}

void sim_spite(struct sim_agent *a, double ms)
{
    struct sim_clock *c = &a->world->clock;

    if (c->now_ms < a->world->opts.faults_until_ms && sim_chance(c, a->world->opts.spite))
        sim_post(c, c->now_ms + ms + sim_between(c, -2.0, 2.0) * a->world->opts.rtt_ms,
                 (struct sim_event){ .fire = spite_fires, .ctx = a });
}

static void fault(struct sim_event *e)
{
    static void (*const kinds[])(struct sim_world * w) = {
        reset_one,   kill_one,  kill_all,  stop_one,  hole_between, hole_around, delay_spike,
        other_route, slow_down, drain_one, reset_one, reset_one,    kill_one,    drain_one,
    };
    struct sim_world *w = e->ctx;
    double            now_ms = w->clock.now_ms;
    uint32_t          kind = sim_below(&w->clock, UNIT_COUNT(kinds));

    if (w->over == w->opts.agents || now_ms > w->opts.faults_until_ms)
        return;
    if ((w->opts.fault_kinds >> kind & 1) != 0) {
        kinds[kind](w);
        w->faults++;
    }
    sim_post(&w->clock, now_ms + sim_between(&w->clock, 0.0, 2.0 * w->opts.fault_every_ms), *e);
}

/* ---- running -------------------------------------------------------------------------------- */

void sim_world_start(struct sim_world *w)
{
    for (uint32_t i = 0; i < w->opts.agents; i++)
        sim_agent_start(&w->agents[i]);
    if (w->opts.fault_every_ms > 0.0)
        sim_post(&w->clock, w->clock.now_ms + sim_between(&w->clock, 0.0, w->opts.fault_every_ms),
                 (struct sim_event){ .fire = fault, .ctx = w });
}

/* Streams are gone at both ends, and no worker has anything left to run. */
static bool at_rest(const struct sim_world *w)
{
    for (uint32_t i = 0; i < w->opts.agents; i++)
        for (uint32_t k = 0; k < w->opts.workers; k++)
            if (w->agents[i].conns[k].stream_count > 0)
                return false;
    for (uint32_t i = 0; i < w->opts.workers; i++)
        if (w->workers[i].alive && w->workers[i].jobs != NULL)
            return false;
    return true;
}

void sim_world_run(struct sim_world *w)
{
    while (w->over < w->opts.agents || !at_rest(w)) {
        SIM_REQUIRE(&w->clock, w->clock.now_ms < WORLD_MS_MAX, "%u of %u agents are not done\n",
                    w->opts.agents - w->over, w->opts.agents);
        SIM_REQUIRE(&w->clock, sim_clock_step(&w->clock), "nothing happens any more\n");
    }
}

void sim_world_free(struct sim_world *w)
{
    for (uint32_t i = 0; i < w->opts.workers; i++)
        sim_worker_free(&w->workers[i]);
    for (uint32_t i = 0; i < w->opts.agents; i++)
        sim_agent_free(&w->agents[i]);
    for (uint32_t i = 0; i < w->opts.agents; i++)
        SIM_REQUIRE(&w->clock, w->agents[i].conns[0].stream_count == 0, "streams are left\n");
    sim_clock_fini(&w->clock);
    free(w);
}
