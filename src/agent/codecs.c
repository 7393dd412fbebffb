/* agent/codecs.c - see codecs.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/codecs.h"

#include "base/clock.h"
#include "wire/codec.h"

#include <math.h>

enum {
    LOOK_EVERY_MS = 50, /* at the links: sorting their samples takes some microseconds */
};

/* The bound on the change of perplexity; what the whole text loses. */
static const double bound_pct = 1.0;

/* Nanoseconds a value to encode and decode, and per cent of perplexity, for two cuts: `bench
 * codecs` (docs/benchmarks.md).  q4r is not among them: at 0.8 to 1.4 % (agent/quality.h) it is too
 * near the bound to be taken without being asked for; bf16 and q8 win nothing over f16 and q8r. */
static const struct {
    uint32_t id;
    double   value_ns, quality_pct;
} known[] = {
    { WIRE_Q8R, 11.8, 0.06 },
    { WIRE_F16, 3.0, 0.0 },
    { WIRE_F32, 1.9, 0.0 },
};

static bool any_hop(const struct mcp_session *s)
{
    for (uint32_t i = 1; i < s->stage_count; i++)
        if (s->stages[i].codec != WIRE_F32)
            return true;
    return false;
}

/* What all workers have that may come to run a stage; a worker that has said nothing yet has what
 * the session's own codec says. */
static uint32_t common_codecs(const struct mcp_session *s)
{
    uint32_t common = UINT32_MAX;

    for (uint32_t i = 0; i < s->remote->link_count; i++) {
        uint32_t has = remote_codecs(s->remote, i);

        if (has != 0 && s->workers[i].blocked_ms < INFINITY)
            common &= has;
    }
    return common | UINT32_C(1) << s->codec->id;
}

static void begin(struct mcp_session *s, uint32_t ids)
{
    struct codec_option options[CODEC_OPTIONS_MAX];
    size_t              elems = s->model->hp.n_embd;
    uint32_t            count = 0;

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        uint32_t id = known[i].id;
        size_t   row_bytes = wire_codec_bytes(wire_codec_by_id(id), 1, elems);
        double   pct = s->codec_pct[id] > 0.0 ? s->codec_pct[id] : known[i].quality_pct;

        if (row_bytes > 0 && (ids >> id & 1) != 0 && pct <= bound_pct)
            options[count++] = (struct codec_option){
                .id = id,
                .row_bytes = (double)row_bytes,
                .row_us = 2e-3 * known[i].value_ns * (double)elems,
                .quality_pct = pct,
            };
    }
    if (count == 0) /* a worker without f16 and f32, and a model that bears nothing less */
        options[count++] = (struct codec_option){ .id = s->codec->id };
    codec_choice_init(&s->choice, options, count, bound_pct);
    s->choice_ids = ids;
}

/* The slowest of the links in use.  A direction down that is not known is taken to be as fast as
 * the one up: access lines are, or more so. */
static void look(struct mcp_session *s, double now_ms)
{
    struct codec_path *path = &s->choice_path;
    uint32_t           ids;

    if (s->choice.count > 0 && now_ms - s->choice_ms < LOOK_EVERY_MS)
        return;
    s->choice_ms = now_ms;
    ids = common_codecs(s);
    if (ids != s->choice_ids)
        begin(s, ids);
    *path = (struct codec_path){ .up_mbit = INFINITY, .down_mbit = INFINITY };
    for (uint32_t i = 0; i < s->stage_count; i++) {
        struct plan_link_estimate e;
        int                       worker = s->stages[i].worker;

        if (!s->stages[i].remote || worker < 0 ||
            remote_link_estimate(s->remote, (uint32_t)worker, now_ms, &e) < 0)
            continue;
        path->rtt_ms += e.rtt_ms;
        path->up_mbit = fmin(path->up_mbit, e.mbit[PLAN_UP]);
        path->down_mbit = fmin(path->down_mbit,
                               e.mbit[PLAN_DOWN] > 0.0 ? e.mbit[PLAN_DOWN] : e.mbit[PLAN_UP]);
    }
    if (!isfinite(path->up_mbit))
        path->up_mbit = path->down_mbit = 0.0;
}

void codecs_choose(struct mcp_session *s, uint32_t pos, uint32_t count)
{
    struct session_codec *window = &s->window_codecs[s->window_codec_count % PIPE_WINDOWS_MAX];
    double                now_ms = base_clock_ms();

    *window = (struct session_codec){ .pos = pos, .id = s->codec->id };
    if (!s->codec_auto || !any_hop(s))
        return;
    look(s, now_ms);
    window->id = codec_choose(&s->choice, &s->choice_path, count, count > PIPE_DECODE_TOKENS,
                              now_ms);
}

void codecs_taken(struct mcp_session *s)
{
    uint32_t id = s->window_codecs[s->window_codec_count++ % PIPE_WINDOWS_MAX].id, most = id;

    if (!any_hop(s))
        return;
    s->codec_windows[id]++;
    for (uint32_t i = 0; i < WIRE_CODECS; i++)
        if (s->codec_windows[i] > s->codec_windows[most])
            most = i;
    s->codec_name = wire_codec_by_id(most)->name;
}

/* The newest choice for that position.  Windows on their way are fewer than those remembered; what
 * is sent anew of older ones wants no answer, and carries what it carried. */
const struct wire_codec *codecs_of(const struct mcp_session *s, uint32_t stage, uint32_t pos)
{
    uint32_t id = s->stages[stage].codec;
    uint64_t count = s->window_codec_count;

    for (uint64_t back = 1; id != WIRE_F32 && back <= count && back <= PIPE_WINDOWS_MAX; back++) {
        const struct session_codec *window = &s->window_codecs[(count - back) % PIPE_WINDOWS_MAX];

        if (window->pos == pos)
            return wire_codec_by_id(window->id);
    }
    return wire_codec_by_id(id);
}

bool codecs_expected(const struct mcp_session *s, uint32_t stage, uint32_t id)
{
    bool expected = id == s->stages[stage].codec;

    for (uint32_t i = 0; s->stages[stage].codec != WIRE_F32 && i < s->choice.count; i++)
        expected = expected || id == s->choice.options[i].id;
    return expected;
}
