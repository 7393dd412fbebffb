/* sim/agent_common.c - an agent: its script played on the real pipeline, whose acts are carried out.
 *
 * SPDX-License-Identifier: MIT */
#include "sim/world_common.h"

static const double LOOK_MS = 50.0; /* how often a stage without place is looked at */
static const double RETRY_TURN_MS = 500.0;

static struct sim_clock *clock_of(struct sim_agent *a)
{
    return &a->world->clock;
}

static double now(struct sim_agent *a)
{
    return a->world->clock.now_ms;
}

/* ---- the script --------------------------------------------------------------------------------- */

static void next_turn(struct sim_event *e);

static void output(struct sim_agent *a, const struct pipe_act *act, const struct sim_player *player)
{
    struct sim_script *script = &a->script;
    enum sim_phase     before = script->phase;
    uint32_t           decided = script->decided, rows = act->block != NULL ? act->block->rows : 0;
    double             gap_ms = now(a) - a->last_token_ms;
    bool               right = sim_script_output(script, player, &a->world->model, act->number,
                                   act->block != NULL ? act->block->data : NULL, rows);

    SIM_REQUIRE(clock_of(a), right, "agent %u, turn %u, position %u: a wrong output\n", a->index,
                script->turn, script->decided);
    if (script->decided > decided) {
        a->tokens += script->decided - decided;
        if (before == SIM_ANSWER && gap_ms > a->stall_ms_max)
            a->stall_ms_max = gap_ms;
        a->last_token_ms = now(a);
    }
    if (before <= SIM_ANSWER && script->phase == SIM_PAUSE) {
        sim_spite(a, script->turns[script->turn].pause_ms);
        sim_post(clock_of(a), now(a) + script->turns[script->turn].pause_ms,
                 (struct sim_event){ .fire = next_turn, .ctx = a, .number = a->failures });
    }
}

static bool player_submit(void *ctx, const int32_t *tokens, uint32_t count, enum pipe_want want,
                          uint64_t *number)
{
    struct sim_agent *a = ctx;
    mcp_error         err;
    int               rc = pipeline_submit(a->pipeline, now(a), tokens, count, want, number, &err);

    SIM_REQUIRE(clock_of(a), rc == MCP_OK || rc == MCP_EBUSY || rc == MCP_EUNAVAIL, "%s\n",
                err.text);
    return rc == MCP_OK;
}

static void player_trim(void *ctx, uint32_t pos)
{
    struct sim_agent *a = ctx;
    mcp_error         err;

    unit_ok(pipeline_trim(a->pipeline, now(a), pos, &err), &err);
    sim_spite(a, 0.0);
}

static struct sim_player player_of(struct sim_agent *a)
{
    return (struct sim_player){ player_submit, player_trim, a };
}

static void next_turn(struct sim_event *e)
{
    struct sim_agent *a = e->ctx;
    struct sim_player player = player_of(a);

    if (e->number != a->failures || a->over)
        return; /* it failed meanwhile, and begins from the first one */
    sim_script_next_turn(&a->script, &player);
    sim_agent_run(a);
}

/* The user is told, and asks again from the beginning. */
static void failed(struct sim_agent *a)
{
    mcp_error err;

    a->failures++;
    unit_ok(pipeline_trim(a->pipeline, now(a), 0, &err), &err);
    sim_script_begin(&a->script);
    sim_post(clock_of(a), now(a) + RETRY_TURN_MS,
             (struct sim_event){ .fire = next_turn, .ctx = a, .number = a->failures });
}

/* ---- acts ----------------------------------------------------------------------------------- */

static void close_endpoint(struct sim_agent *a, uint32_t endpoint)
{
    struct sim_local  *l = sim_local_of(a, endpoint);
    struct sim_stream *s = sim_stream_of(a, endpoint);

    if (l != NULL)
        l->open = false;
    if (s != NULL)
        sim_stream_close(s);
}

static void carry_out(struct sim_agent *a, struct pipe_act *act)
{
    struct sim_player  player = player_of(a);
    struct sim_local  *l = sim_local_of(a, act->endpoint);
    struct sim_stream *s = sim_stream_of(a, act->endpoint);

    switch (act->kind) {
    case PIPE_ACT_OPEN:
        a->wanted[act->stage] =
            (struct sim_wanted){ .asked = true, .lost = act->lost, .since_ms = now(a) };
        sim_agent_look(a);
        break;
    case PIPE_ACT_FORWARD:
    case PIPE_ACT_TRIM:
        SIM_REQUIRE(clock_of(a), l != NULL || s != NULL, "endpoint %u is not there\n",
                    act->endpoint);
        if (l != NULL)
            sim_local_add(a, l, act);
        else if (act->kind == PIPE_ACT_FORWARD)
            sim_stream_forward(s, act);
        else
            sim_stream_trim(s, act);
        break;
    case PIPE_ACT_CLOSE:
        SIM_REQUIRE(clock_of(a), act->error.code == MCP_OK, "%s\n", act->error.text);
        close_endpoint(a, act->endpoint);
        break;
    case PIPE_ACT_OUTPUT:
        output(a, act, &player);
        pipe_block_unref(act->block);
        break;
    case PIPE_ACT_FAILED: failed(a); break;
    }
}

/* Forget streams that neither end holds; then let leave what may. */
static void tidy(struct sim_agent *a)
{
    for (uint32_t i = 0; i < a->world->opts.workers; i++)
        sim_conn_sweep(&a->conns[i]);
    sim_agent_pump(a);
}

void sim_agent_run(struct sim_agent *a)
{
    struct pipe_act act;

    if (a->running)
        return;
    if (a->over) {
        tidy(a);
        return;
    }
    a->running = true;
    while (!a->over && pipeline_act(a->pipeline, now(a), &act)) {
        carry_out(a, &act);
        if (a->script.phase == SIM_OVER)
            a->over = true;
    }
    a->running = false;
    if (a->over) {
        a->world->over++;
        for (uint32_t i = 1; i <= a->endpoints; i++)
            close_endpoint(a, i);
    }
    tidy(a);
}

static void look_again(struct sim_event *e)
{
    struct sim_agent *a = e->ctx;

    if (a->over)
        return;
    sim_agent_look(a);
    sim_agent_run(a);
    sim_post(clock_of(a), now(a) + LOOK_MS, *e);
}

/* ---- life ------------------------------------------------------------------------------------- */

void sim_agent_start(struct sim_agent *a)
{
    struct pipeline_opts opts = { .stages = a->stages,
                                  .count = a->stage_count,
                                  .windows_max = SIM_DEPTH_MAX + sim_below(clock_of(a), 12) };
    mcp_error            err;

    unit_ok(pipeline_new(&a->pipeline, &opts, &err), &err);
    a->places[a->world->opts.workers] = (struct pipe_place){
        .state = a->fallback ? PLACE_UP : PLACE_UNFIT, .local = true, .last = SIM_LAYERS
    };
    sim_post(clock_of(a), now(a), (struct sim_event){ .fire = look_again, .ctx = a });
    sim_post(clock_of(a), now(a) + sim_between(clock_of(a), 0.0, 500.0),
             (struct sim_event){ .fire = next_turn, .ctx = a });
}

void sim_agent_free(struct sim_agent *a)
{
    pipeline_free(a->pipeline);
    sim_local_fini(a);
    for (uint32_t i = 0; i < a->world->opts.workers; i++)
        sim_conn_fini(&a->conns[i]);
    sim_script_fini(&a->script);
}
