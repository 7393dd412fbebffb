/* pipe/speculate.c - see speculate.h.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/speculate.h"

#include <math.h>

/* The first window of a size has a graph to build, and counts only where nothing else is known, and
 * this little. */
#define FIRST_WEIGHT 0.1
/* A time is believed this much when it is shorter than those before, and when longer: what
 * disturbs a measurement makes it longer. */
#define SHORTER_SHARE 0.5
#define LONGER_SHARE  0.1
/* Each window that runs leaves so much of what those of other sizes have shown. */
#define DECAY 0.93
/* Before windows of several sizes have run: the share of a one-token window that each further
 * position is taken to cost, and how many squared positions that belief is worth. */
#define EACH_PRIOR        0.35
#define EACH_PRIOR_WEIGHT 0.1
/* What void windows have used is charged at this share: a worker has others to serve. */
#define VOID_SHARE 0.02
/* Guesses must promise this much, or plain decoding stays. */
#define GAIN_MIN 1.03

void speculate_init(struct speculate *s, uint32_t drafts, uint32_t windows, uint32_t windows_max)
{
    *s = (struct speculate){ .drafts = drafts, .windows = windows, .windows_max = windows_max };
}

/* ---- what windows take ----------------------------------------------------------------------- */

void speculate_ran(struct speculate *s, uint32_t stage, bool away, double windows, double positions,
                   double ms)
{
    uint32_t               i = stage < SPECULATE_STAGES ? stage : SPECULATE_STAGES - 1;
    struct speculate_cost *c = &s->costs[i];
    uint32_t               size;
    double                 longer;
    bool                   known = false;

    if (windows <= 0.0 || positions < windows || positions / windows > SPECULATE_SIZES)
        return;
    s->away[i] = away;
    size = (uint32_t)(positions / windows + 0.5) - 1;
    longer = ms / windows - c->ms[size];
    for (uint32_t k = 0; k < SPECULATE_SIZES; k++) {
        known = known || c->weight[k] > 0.0;
        c->weight[k] *= k == size ? 1.0 : DECAY;
    }
    if (!c->seen[size] && known) {
        c->seen[size] = true;
        return;
    }
    if (c->weight[size] <= FIRST_WEIGHT)
        c->ms[size] = ms / windows;
    else
        c->ms[size] += longer * (longer > 0.0 ? LONGER_SHARE : SHORTER_SHARE);
    c->weight[size] = c->seen[size] ? 1.0 : FIRST_WEIGHT;
    c->seen[size] = true;
}

void speculate_drafts(struct speculate *s, uint32_t from, double ms)
{
    s->draft_from = from;
    s->draft_ms = ms > 0.0 ? ms : 0.0;
}

void speculate_waited(struct speculate *s, double ms)
{
    s->waits[s->wait_count++ % SPECULATE_WAITS] = ms > 0.0 ? ms : 0.0;
}

/* The shortest of late: others also waited behind each other, or for this thread. */
static double wait_ms(const struct speculate *s)
{
    uint32_t count = s->wait_count < SPECULATE_WAITS ? s->wait_count : SPECULATE_WAITS;
    double   least = count > 0 ? s->waits[0] : 0.0;

    for (uint32_t i = 1; i < count; i++)
        if (s->waits[i] < least)
            least = s->waits[i];
    return least;
}

struct line {
    double fixed, each;
};

/* Least squares for ms = fixed + each x size, both at least 0; the belief is one more equation. */
static struct line fit(const struct speculate_cost *c)
{
    double      n = 0.0, w = 0.0, ww = EACH_PRIOR_WEIGHT, t = 0.0, wt, det, belief;
    struct line line = { 0.0, 0.0 };

    for (uint32_t i = 0; i < SPECULATE_SIZES; i++) {
        n += c->weight[i];
        w += c->weight[i] * (i + 1);
        t += c->weight[i] * c->ms[i];
    }
    if (n <= 0.0)
        return line;
    belief = EACH_PRIOR * t / (n + EACH_PRIOR * (w - n));
    wt = EACH_PRIOR_WEIGHT * belief;
    for (uint32_t i = 0; i < SPECULATE_SIZES; i++) {
        ww += c->weight[i] * (i + 1) * (i + 1);
        wt += c->weight[i] * (i + 1) * c->ms[i];
    }
    det = n * ww - w * w;
    if (det <= 0.0)
        return line;
    line.each = (n * wt - w * t) / det;
    line.fixed = (t * ww - w * wt) / det;
    if (line.each < 0.0)
        line = (struct line){ t / n, 0.0 };
    if (line.fixed < 0.0)
        line = (struct line){ 0.0, wt / ww };
    return line;
}

/* What a plan needs to know, so that the fits are made once. */
struct terms {
    struct line here, away[SPECULATE_STAGES];
    uint32_t    away_count;
    double      wait_ms;
    uint32_t    draft_from;
    double      draft_ms;
};

static void terms_of(const struct speculate *s, struct terms *t)
{
    *t = (struct terms){ .wait_ms = wait_ms(s),
                         .draft_from = s->draft_from,
                         .draft_ms = s->draft_ms };
    for (uint32_t i = 0; i < SPECULATE_STAGES; i++) {
        struct line line = fit(&s->costs[i]);

        if (s->away[i]) {
            t->away[t->away_count++] = line;
        } else {
            t->here.fixed += line.fixed;
            t->here.each += line.each;
        }
    }
}

struct times {
    double here, away; /* on this machine; on the busiest worker */
    double sum;
};

static struct times times_of(const struct terms *t, uint32_t positions)
{
    struct times times = { .here = t->here.fixed + t->here.each * positions };

    times.sum = times.here;
    for (uint32_t i = 0; i < t->away_count; i++) {
        double ms = t->away[i].fixed + t->away[i].each * positions;

        times.sum += ms;
        if (ms > times.away)
            times.away = ms;
    }
    return times;
}

/* ---- what a token costs ------------------------------------------------------------------------ */

/* What `windows` that turn out void cost the text: one of them may be under way, here when the
 * answer comes, there when the right token does, and half of it is still to do. */
static double void_ms(const struct terms *t, const struct times *each, double windows)
{
    double there_ms = windows * each->away - t->wait_ms;

    if (windows <= 0.0)
        return 0.0;
    if (there_ms < 0.0)
        there_ms = 0.0;
    if (there_ms > each->away / 2.0)
        there_ms = each->away / 2.0;
    return each->here / 8.0 + there_ms + VOID_SHARE * windows * each->away;
}

/* What it takes to make guesses [first, last). */
static double drafting_ms(const struct terms *t, uint32_t first, uint32_t last)
{
    if (first < t->draft_from)
        first = t->draft_from;
    return last > first ? (last - first) * t->draft_ms : 0.0;
}

/* One window at a time, its guesses made before.  While it is away further ones are made: of what
 * follows it, and those of the next window behind that.  They count if all was right, the first of
 * them too; the last one may keep the answer waiting. */
static double waiting_token_ms(const struct terms *t, const double *reach, uint32_t count,
                               uint32_t drafts)
{
    uint32_t     sent = drafts < count ? drafts : count;
    struct times window = times_of(t, 1 + sent);
    double       out_ms = t->wait_ms + window.sum, idle_ms = out_ms - window.here;
    double       draft_ms = drafting_ms(t, 0, sent), tokens = 1.0;

    for (uint32_t i = 0; i < sent; i++)
        tokens += reach[i];
    if (draft_ms > 0.0) {
        double made_ms = ceil(idle_ms / t->draft_ms) * t->draft_ms;

        if (made_ms > draft_ms + t->draft_ms)
            made_ms = draft_ms + t->draft_ms;
        if (made_ms > idle_ms)
            out_ms += made_ms - idle_ms;
        if (made_ms > t->draft_ms && sent < count)
            draft_ms -= reach[sent] * (made_ms - t->draft_ms);
    }
    return (out_ms + draft_ms) / tokens;
}

/* From a first window to the first guess that is wrong: tokens won over time spent, both as
 * expected.  reach[i] is the probability that guesses 0 to i are right. */
static double token_ms(const struct terms *t, const double *reach, uint32_t count, uint32_t drafts,
                       uint32_t windows)
{
    uint32_t     step = drafts > 0 ? drafts : 1, next = drafts < count ? drafts : count;
    bool         costly = drafting_ms(t, 0, count) > 0.0;
    struct times first, later = times_of(t, step);
    double       out[SPECULATE_HORIZON + 1]; /* when window i is out */
    double       tokens = 1.0, spent = 0.0, enters = 1.0;

    if (windows == 1)
        return waiting_token_ms(t, reach, count, drafts);
    if (costly && next > t->draft_from)
        next = t->draft_from;
    first = times_of(t, 1 + next);
    for (uint32_t i = 0; i < next; i++)
        tokens += reach[i];
    out[0] = t->wait_ms + first.sum;
    for (uint32_t i = 0;; i++) {
        double   goes_on = next < count ? reach[next] : 0.0; /* to window i + 1 */
        double   left = (count - next + step - 1) / step;    /* windows behind this one */
        uint32_t end = count - next < step ? count : next + step;
        double   here_ms = later.here + drafting_ms(t, next, end);

        /* An answer that is there waits for the guess that is being made. */
        spent += (enters - goes_on) *
                 (out[i] + void_ms(t, &later, left < windows - 1 ? left : windows - 1) +
                  (costly ? t->draft_ms / 2.0 : 0.0));
        if (next >= count)
            break;
        while (next < end)
            tokens += reach[next++];
        out[i + 1] = out[i] + (here_ms > later.away ? here_ms : later.away);
        if (i + 1 >= windows && out[i + 1] < out[i + 1 - windows] + t->wait_ms + later.sum)
            out[i + 1] = out[i + 1 - windows] + t->wait_ms + later.sum;
        enters = goes_on;
    }
    return spent / tokens;
}

static uint32_t reaches(const float *probabilities, uint32_t count, double reach[SPECULATE_HORIZON])
{
    double product = 1.0;

    if (count > SPECULATE_HORIZON)
        count = SPECULATE_HORIZON;
    for (uint32_t i = 0; i < count; i++) {
        product *= probabilities[i];
        reach[i] = product;
    }
    return count;
}

double speculate_token_ms(const struct speculate *s, const float *probabilities, uint32_t count,
                          uint32_t drafts, uint32_t windows)
{
    double       reach[SPECULATE_HORIZON];
    struct terms t;

    terms_of(s, &t);
    count = reaches(probabilities, count, reach);
    return token_ms(&t, reach, count, drafts, windows);
}

/* The best number of windows for so many drafts, if it beats *best. */
static void try_drafts(const struct speculate *s, const struct terms *t, const double *reach,
                       uint32_t count, uint32_t drafts, struct speculate_plan *best)
{
    uint32_t first = s->windows > 0 ? s->windows : 1;
    uint32_t last = s->windows > 0 ? s->windows : s->windows_max;

    for (uint32_t w = first; w <= last; w += 1 + w / 5) {
        double ms = token_ms(t, reach, count, drafts, w);

        if (ms < best->token_ms)
            *best = (struct speculate_plan){ drafts, w, ms };
    }
}

struct speculate_plan speculate_choose(const struct speculate *s, const float *probabilities,
                                       uint32_t count)
{
    double                reach[SPECULATE_HORIZON] = { 0 };
    struct terms          t;
    struct speculate_plan best = { .drafts = 0, .windows = 1 }, plain;
    bool                  told = s->drafts != 0 || s->windows != 0;

    terms_of(s, &t);
    count = reaches(probabilities, count, reach);
    plain = best;
    plain.token_ms = token_ms(&t, reach, 0, 0, 1);
    if (count == 0)
        return plain;
    best.token_ms = told ? INFINITY : plain.token_ms / GAIN_MIN; /* told: done, gain or not */
    if (s->drafts != 0)
        try_drafts(s, &t, reach, count, s->drafts, &best);
    else
        /* Few sizes of windows: engines keep a graph for each. */
        for (uint32_t d = s->windows != 0; d <= SPECULATE_DRAFTS_MAX; d += 1 + d / 4)
            try_drafts(s, &t, reach, count, d, &best);
    return best.drafts > 0 || best.windows > 1 ? best : plain;
}
