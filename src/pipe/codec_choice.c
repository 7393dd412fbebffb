/* pipe/codec_choice.c - see codec_choice.h.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/codec_choice.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* What is in use may cost so much more than what would replace it. */
static const double stay_tolerance = 1.1;

void codec_choice_init(struct codec_choice *c, const struct codec_option *options, uint32_t count,
                       double bound_pct)
{
    assert(count >= 1 && count <= CODEC_OPTIONS_MAX);
    memset(c, 0, sizeof(*c));
    for (uint32_t i = 0; i < count; i++)
        if (i == 0 || options[i].quality_pct <= bound_pct)
            c->options[c->count++] = options[i];
}

static double time_ms(const struct codec_option *o, const struct codec_path *path, uint32_t rows)
{
    return rows *
           (o->row_bytes * 8e-3 * (1.0 / path->up_mbit + 1.0 / path->down_mbit) + o->row_us * 1e-3);
}

/* Better ones, if they cost next to nothing more than the fastest. */
static uint32_t best(const struct codec_choice *c, const struct codec_path *path, uint32_t rows,
                     bool prefill, uint32_t now)
{
    double   rate = fmin(path->up_mbit, path->down_mbit);
    double   slack_ms = prefill ? 0.0 : CODEC_SLACK * path->rtt_ms;
    uint32_t fastest = 0, chosen;

    for (uint32_t i = 1; i < c->count; i++)
        if (time_ms(&c->options[i], path, rows) < time_ms(&c->options[fastest], path, rows))
            fastest = i;
    chosen = fastest;
    for (uint32_t i = 0; i < c->count; i++) {
        const struct codec_option *o = &c->options[i];
        double                     stay = i == now ? stay_tolerance : 1.0;
        double most = time_ms(&c->options[fastest], path, rows) * stay + slack_ms * stay * stay;

        if (rate >= (i == now ? CODEC_FAST_MBIT_LEAST : CODEC_FAST_MBIT) &&
            time_ms(o, path, rows) <= most && o->quality_pct <= c->options[chosen].quality_pct)
            chosen = i;
    }
    if (c->options[chosen].quality_pct >= c->options[now].quality_pct &&
        time_ms(&c->options[now], path, rows) <=
            stay_tolerance * time_ms(&c->options[chosen], path, rows))
        return now;
    return chosen;
}

uint32_t codec_choose(struct codec_choice *c, const struct codec_path *path, uint32_t rows,
                      bool prefill, double now_ms)
{
    uint32_t wanted, now = c->kinds[prefill].now;

    if (!(path->up_mbit > 0.0) || !(path->down_mbit > 0.0) || rows == 0)
        return c->options[now].id;
    wanted = best(c, path, rows, prefill, now);
    if (wanted != c->kinds[prefill].next || wanted == now) {
        c->kinds[prefill].next = wanted;
        c->kinds[prefill].next_ms = now_ms;
    }
    if (!c->kinds[prefill].known || now_ms - c->kinds[prefill].next_ms >= CODEC_DWELL_MS)
        c->kinds[prefill].now = wanted;
    c->kinds[prefill].known = true;
    return c->options[c->kinds[prefill].now].id;
}
