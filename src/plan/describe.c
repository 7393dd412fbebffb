/* plan/describe.c - see describe.h and plan.h.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/describe.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- the plan ----------------------------------------------------------------------------- */

struct line {
    char  *text;
    size_t bytes, used;
};

__attribute__((format(printf, 2, 3))) static void add(struct line *line, const char *format, ...)
{
    va_list args;
    int     more;

    if (line->used >= line->bytes)
        return;
    va_start(args, format);
    more = vsnprintf(line->text + line->used, line->bytes - line->used, format, args);
    va_end(args);
    line->used += more > 0 ? (size_t)more : 0;
}

static void add_stages(struct line *line, const struct plan_facts *facts, const struct plan *plan)
{
    uint32_t layers = facts->model->layers, at = 0;

    for (uint32_t i = 0; i < plan->hop_count; i++) {
        const struct plan_hop *hop = &plan->hops[i];

        if (hop->first > at)
            add(line, " %u-%u here,", at, hop->first);
        add(line, " %u-%u on %s%s", hop->first, hop->last, facts->workers[hop->worker].name,
            i + 1 < plan->hop_count ? "," : "");
        at = hop->last;
    }
    if (plan->hop_count > 0 && at < layers)
        add(line, ", %u-%u here", at, layers);
}

void plan_describe(char *text, size_t bytes, const struct plan_facts *facts,
                   const struct plan *plan)
{
    struct line line = { .text = text, .bytes = bytes };

    if (bytes > 0)
        text[0] = '\0';
    add(&line, "%s", plan_mode_name(plan->mode));
    add_stages(&line, facts, plan);
    if (plan->hop_count > 0 && plan->hops[0].first > 0)
        add(&line, ", %s", facts->codecs[plan->codec].name);
    if (plan->mode == PLAN_PREFILL)
        add(&line, ", KV back as %s", plan->kv_q8 ? "q8_0" : "f16");
    add(&line, ", chunks of %u", plan->chunk_tokens);
    if (plan_speculates(plan))
        add(&line, ", %s %u x %u", plan_drafter_name(facts->drafts[plan->draft].drafter),
            plan->depth, plan->windows);
}

/* ---- impossible --------------------------------------------------------------------------- */

static double gib(double bytes)
{
    return bytes / (1024.0 * 1024.0 * 1024.0);
}

static void say_not_private(char *text, const struct plan_request *r, enum plan_mode mode,
                            const struct plan_cost *c)
{
    const char *name = plan_mode_name(mode);

    if (c->limit_need > 0.0)
        snprintf(text, PLAN_WHY_BYTES, "%s: %g layers must stay at the ends, %g would", name,
                 c->limit_need, c->limit_have);
    else
        snprintf(text, PLAN_WHY_BYTES, "%s: privacy '%s' lets %s leave", name,
                 plan_privacy_name(r->privacy), r->privacy == PLAN_STRICT ? "nothing" : "no token");
}

static void say_no_place(char *text, const struct plan_facts *f, enum plan_mode mode)
{
    const char *name = plan_mode_name(mode);

    if (mode != PLAN_CLOUD && f->here_count == 0)
        snprintf(text, PLAN_WHY_BYTES, "%s: the model is not on this machine", name);
    else
        snprintf(text, PLAN_WHY_BYTES, "%s: no worker is connected that may be used", name);
}

void plan_why_impossible(char text[PLAN_WHY_BYTES], const struct plan_facts *f,
                         const struct plan_request *r, enum plan_mode mode,
                         const struct plan_rival *rival)
{
    const struct plan_cost *c = &rival->cost;
    const char             *name = plan_mode_name(mode);
    const char *worker = f->worker_count > 0 ? f->workers[c->limit_worker].name : "no worker";

    switch (c->limit) {
    case PLAN_FITS: break;
    case PLAN_NOT_ASKED:
        snprintf(text, PLAN_WHY_BYTES, "%s: not among the modes asked for", name);
        break;
    case PLAN_NOT_PRIVATE: say_not_private(text, r, mode, c); break;
    case PLAN_NO_PLACE: say_no_place(text, f, mode); break;
    case PLAN_NO_PROFILE:
        snprintf(text, PLAN_WHY_BYTES, "%s: the speed of %s is not known", name, worker);
        break;
    case PLAN_NOT_ABLE:
        snprintf(text, PLAN_WHY_BYTES, "%s: %s does not %s", name, worker,
                 mode == PLAN_PREFILL ? "hand back KV" : "generate by itself");
        break;
    case PLAN_NOT_HELD:
        if (c->limit_need > 0.0)
            snprintf(text, PLAN_WHY_BYTES, "%s: %g layers on %s, which has room for %g now", name,
                     c->limit_need, worker, c->limit_have);
        else
            snprintf(text, PLAN_WHY_BYTES, "%s: %s holds only layers %u-%u", name, worker,
                     f->workers[c->limit_worker].first, f->workers[c->limit_worker].last);
        break;
    case PLAN_OTHER_WEIGHTS:
        snprintf(text, PLAN_WHY_BYTES, "%s: %s has other weights, mixing is not allowed", name,
                 worker);
        break;
    case PLAN_NO_SESSION:
        snprintf(text, PLAN_WHY_BYTES, "%s: %s has no free session", name, worker);
        break;
    case PLAN_NO_CONTEXT:
        snprintf(text, PLAN_WHY_BYTES, "%s: needs %g positions, %s gives a session %g", name,
                 c->limit_need, worker, c->limit_have);
        break;
    case PLAN_MEMORY_HERE:
        snprintf(text, PLAN_WHY_BYTES, "%s: needs %.2f GiB here, the limit is %.2f GiB", name,
                 gib(c->limit_need), gib(c->limit_have));
        break;
    case PLAN_MEMORY_THERE:
        snprintf(text, PLAN_WHY_BYTES, "%s: needs %.2f GiB on %s, which has %.2f GiB", name,
                 gib(c->limit_need), worker, gib(c->limit_have));
        break;
    case PLAN_NOT_CHOSEN:
        snprintf(text, PLAN_WHY_BYTES,
                 "%s: impossible with the cuts, codec, chunk or drafts asked for", name);
        break;
    case PLAN_QUALITY:
        snprintf(text, PLAN_WHY_BYTES, "%s: changes perplexity by %.2f %%, the bound is %.2f %%",
                 name, c->limit_need, c->limit_have);
        break;
    case PLAN_NOT_EVEN:
        snprintf(text, PLAN_WHY_BYTES,
                 "%s: windows of drafts would not give the bits of plain decoding there", name);
        break;
    case PLAN_LATE:
        snprintf(text, PLAN_WHY_BYTES, "%s: takes %.0f ms, the deadline is %.0f ms", name,
                 c->limit_need, c->limit_have);
        break;
    case PLAN_LIMIT_COUNT: break;
    }
}

/* ---- won and lost ------------------------------------------------------------------------- */

static enum plan_term greatest_of(const struct plan_cost *cost)
{
    enum plan_term greatest = PLAN_TERM_HERE;

    for (int t = 1; t < PLAN_TERMS; t++)
        if (cost->term_ms[t] > cost->term_ms[greatest])
            greatest = (enum plan_term)t;
    return greatest;
}

static double busiest_ms(const struct plan_cost *cost)
{
    double most = 0.0;

    for (int r = 0; r < PLAN_RESOURCES; r++)
        most = cost->busy_ms[r] > most ? cost->busy_ms[r] : most;
    return most;
}

/* What the objective compares first, with its unit. */
static double compared(const struct plan_request *r, const struct plan_cost *c, const char **unit)
{
    *unit = r->objective == PLAN_COST         ? " in price"
            : r->objective == PLAN_THROUGHPUT ? " ms of the busiest part"
                                              : " ms";
    return r->objective == PLAN_COST         ? c->price
           : r->objective == PLAN_THROUGHPUT ? busiest_ms(c)
                                             : c->total_ms;
}

void plan_why_won(char text[PLAN_WHY_BYTES], const struct plan_request *r,
                  const struct plan_rival *winner, const struct plan_rival *second)
{
    const char *unit;
    double      value = compared(r, &winner->cost, &unit), other;

    if (second == NULL) {
        snprintf(text, PLAN_WHY_BYTES, "%s is the only mode that is possible: %.4g%s",
                 plan_mode_name(winner->plan.mode), value, unit);
        return;
    }
    other = compared(r, &second->cost, &unit);
    snprintf(text, PLAN_WHY_BYTES, "%s is best: %.4g%s, %s %.4g", plan_mode_name(winner->plan.mode),
             value, unit, plan_mode_name(second->plan.mode), other);
}

void plan_why_lost(char text[PLAN_WHY_BYTES], const struct plan_request *r,
                   const struct plan_rival *loser, const struct plan_rival *winner)
{
    const char    *name = plan_mode_name(loser->plan.mode), *unit;
    double         value = compared(r, &loser->cost, &unit);
    double         best = compared(r, &winner->cost, &unit);
    enum plan_term term = greatest_of(&loser->cost);

    if (value == best)
        snprintf(text, PLAN_WHY_BYTES, "%s: no better than %s, %.4g%s", name,
                 plan_mode_name(winner->plan.mode), value, unit);
    else
        snprintf(text, PLAN_WHY_BYTES, "%s: %.4g%s against %.4g; %.0f of its %.0f ms are %s", name,
                 value, unit, best, loser->cost.term_ms[term], loser->cost.total_ms,
                 plan_term_name(term));
}
