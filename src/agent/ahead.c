/* agent/ahead.c - see ahead.h.
 *
 * Guesses come from pipe/draft.h, how many of them go out from pipe/speculate.h; what a rejection
 * makes void is the pipeline's to forget (pipeline_trim).
 *
 * SPDX-License-Identifier: MIT */
#include "agent/ahead.h"

#include "base/clock.h"
#include "base/fail.h"
#include "pipe/draft.h"
#include "pipe/speculate.h"

#include <stdlib.h>

/* Of speculate.h's stages: what is done with rows, then the pipeline's. */
enum { STAGE_ROWS = 0, STAGE_FIRST = 1 };

/* What a position costs alone, over its cost in a window of many: a first guess. */
#define ALONE 3.0

struct ahead {
    struct draft               *draft;
    struct speculate            speculate;
    struct speculate_plan       plan;
    struct pipeline_stage_stats before[SPECULATE_STAGES]; /* when the last window came out */
    float    probabilities[SPECULATE_HORIZON];            /* of the guess at position n, at n mod */
    uint32_t end;                                         /* positions that this answer may fill */

    const int32_t *truth; /* (truth_count) from the answer's first token on; NULL: real guesses */
    uint32_t       truth_count, truth_first; /* the position of the first one */
    float          synth;

    uint64_t drafted, seen, accepted;
    uint32_t in_flight_max;
};

static bool wanted(const struct mcp_session *s, mcp_spec spec)
{
    return spec == MCP_SPEC_AUTO ? s->remote != NULL : spec != MCP_SPEC_NONE;
}

int ahead_new(struct ahead **out, const struct mcp_session *s, const mcp_session_opts *opts,
              mcp_error *err)
{
    struct ahead *h;
    uint32_t      windows_max = s->remote != NULL ? SESSION_WINDOWS_REMOTE : 1;
    int           rc;

    *out = NULL;
    if (opts->spec_depth > MCP_SPEC_DEPTH_MAX)
        return base_fail(err, MCP_ERANGE, "%u guesses in a window, at most %d", opts->spec_depth,
                         MCP_SPEC_DEPTH_MAX);
    if (opts->spec_windows > SESSION_WINDOWS_REMOTE)
        return base_fail(err, MCP_ERANGE, "%u windows in flight, at most %d", opts->spec_windows,
                         SESSION_WINDOWS_REMOTE);
    if (opts->spec == MCP_SPEC_DRAFT)
        return base_fail(err, MCP_ENOTSUP, "guesses by a draft model: not in this version");
    if (!wanted(s, opts->spec) || s->window_tokens < 2)
        return MCP_OK;
    h = calloc(1, sizeof(*h));
    if (h == NULL)
        return base_fail(err, MCP_ENOMEM, "guesses");
    rc = draft_new(&h->draft, s->ctx_tokens + 1, err); /* a text's last token needs no position */
    if (rc < 0) {
        ahead_free(h);
        return rc;
    }
    speculate_init(&h->speculate, opts->spec_depth,
                   opts->spec_windows < windows_max ? opts->spec_windows : windows_max,
                   windows_max);
    h->truth = opts->spec_truth;
    h->truth_count = opts->spec_truth_count;
    h->synth = opts->spec_synth;
    *out = h;
    return MCP_OK;
}

void ahead_free(struct ahead *h)
{
    if (h == NULL)
        return;
    draft_free(h->draft);
    free(h);
}

void ahead_stats(const struct ahead *h, mcp_session_stats *stats)
{
    stats->drafted = h->drafted;
    stats->drafted_seen = h->seen;
    stats->accepted = h->accepted;
    stats->in_flight_max = h->in_flight_max;
}

/* ---- guesses ------------------------------------------------------------------------------- */

/* The true token at `pos`, made wrong by chance.  The chance is the position's: a run is repeated
 * by the same guesses. */
static bool next_of_truth(const struct ahead *h, int32_t n_vocab, struct draft_guess *guess)
{
    uint32_t pos = draft_length(h->draft);
    uint64_t chance = (pos + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15);

    if (pos - h->truth_first >= h->truth_count)
        return false;
    chance = (chance ^ chance >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    chance ^= chance >> 32;
    guess->token = h->truth[pos - h->truth_first];
    guess->probability = h->synth;
    if ((double)(chance >> 11) * 0x1p-53 >= h->synth)
        guess->token = (guess->token + 1) % n_vocab;
    return true;
}

/* Guess anew what has not been sent, and plan. */
static void look_ahead(struct ahead *h, const struct mcp_session *s)
{
    uint32_t           sent = pipeline_length(s->pipeline), known = draft_known(h->draft);
    float              chances[SPECULATE_HORIZON];
    uint32_t           count = 0;
    struct draft_guess guess;

    draft_drop(h->draft, sent > known ? sent : known);
    while (draft_length(h->draft) < h->end && draft_length(h->draft) - known < SPECULATE_HORIZON) {
        if (h->truth != NULL ? !next_of_truth(h, (int32_t)s->model->hp.n_vocab, &guess)
                             : !draft_next(h->draft, &guess))
            break;
        h->probabilities[draft_length(h->draft) % SPECULATE_HORIZON] = guess.probability;
        draft_push(h->draft, guess.token);
    }
    for (uint32_t pos = known; pos < draft_length(h->draft); pos++)
        chances[count++] = h->probabilities[pos % SPECULATE_HORIZON];
    h->plan = speculate_choose(&h->speculate, chances, count);
}

/* ---- windows ------------------------------------------------------------------------------- */

/* Positions of the window that the plan sends next; 0: none now. */
static uint32_t next_window(const struct ahead *h, const struct mcp_session *s)
{
    uint32_t sent = pipeline_length(s->pipeline), count = h->plan.drafts;

    if (pipeline_in_flight(s->pipeline) >= h->plan.windows || s->jobs != NULL)
        return 0; /* what is under way goes first */
    if (sent < draft_known(h->draft))
        count++; /* the text's last token */
    else if (count == 0)
        count = 1;
    if (count > s->window_tokens)
        count = s->window_tokens;
    return count < draft_length(h->draft) - sent ? count : draft_length(h->draft) - sent;
}

static int send_window(struct ahead *h, struct mcp_session *s, uint32_t count, mcp_error *err)
{
    uint32_t sent = pipeline_length(s->pipeline);
    int      rc = drive_send(s, draft_tokens(h->draft) + sent, count, err);

    if (rc < 0)
        return rc;
    h->drafted += count - (sent < draft_known(h->draft));
    if (pipeline_in_flight(s->pipeline) > h->in_flight_max)
        h->in_flight_max = pipeline_in_flight(s->pipeline);
    return MCP_OK;
}

/* What the window that is out has taken, stage by stage. */
static void observe(struct ahead *h, const struct mcp_session *s)
{
    double wait_ms = 0.0;
    bool   whole = true; /* all stages have run something since */

    for (uint32_t i = 0; i < s->stage_count && i < SPECULATE_STAGES; i++) {
        struct pipeline_stage_stats *b = &h->before[i], now;
        bool                         away = s->stages[i].remote && s->stages[i].engine == NULL;
        double                       windows, compute_ms;

        pipeline_get_stats(s->pipeline, i, &now);
        windows = (double)(now.windows - b->windows);
        compute_ms = now.compute_ms - b->compute_ms;
        if (windows > 0.0)
            speculate_ran(&h->speculate, STAGE_FIRST + i, away, windows,
                          (double)(now.positions - b->positions), compute_ms);
        else
            whole = false;
        if (away && windows > 0.0)
            wait_ms += (now.elapsed_ms - b->elapsed_ms - compute_ms -
                        (now.queue_ms - b->queue_ms)) /
                       windows;
        *b = now;
    }
    if (whole)
        speculate_waited(&h->speculate, wait_ms);
}

/* Before any window with guesses has run, the prompt tells what to expect: a link waits about as
 * long, and a single token takes a few times as long as one of many. */
static void expect(struct ahead *h, const struct mcp_session *s)
{
    double wait_ms = 0.0;

    for (uint32_t i = 0; i < s->stage_count && i < SPECULATE_STAGES; i++) {
        struct pipeline_stage_stats *b = &h->before[i];

        pipeline_get_stats(s->pipeline, i, b);
        if (h->speculate.wait_count > 0 || b->windows == 0)
            continue;
        if (s->stages[i].remote)
            wait_ms += (b->elapsed_ms - b->compute_ms - b->queue_ms) / (double)b->windows;
        speculate_ran(&h->speculate, STAGE_FIRST + i, s->stages[i].remote, 1.0, 1.0,
                      ALONE * b->compute_ms / (double)b->positions);
    }
    if (h->speculate.wait_count == 0)
        speculate_waited(&h->speculate, wait_ms);
}

/* Look at the rows of the window that is out, until a guess was wrong or the answer is over. */
static int verify(struct ahead *h, struct answer *a, struct model_sampler *sampler)
{
    struct mcp_session *s = a->session;
    const float *row = s->output.rows != NULL ? (const float *)(const void *)s->output.rows->data
                                              : s->logits;
    uint32_t     end = s->output.end, first = s->count;
    double       start = base_clock_ms();
    bool         right = true;
    int          rc = MCP_OK;

    while (rc == MCP_OK && right && s->count < end) {
        int32_t token;
        bool    guessed;

        s->tokens[s->count] = draft_tokens(h->draft)[s->count];
        s->count++;
        rc = answer_next(a, sampler, row, &token);
        if (rc != MCP_OK)
            break;
        guessed = s->count < pipeline_length(s->pipeline);
        right = draft_take(h->draft, token) || !guessed;
        h->seen += guessed;
        h->accepted += guessed && right;
        row += s->model->hp.n_vocab;
    }
    speculate_ran(&h->speculate, STAGE_ROWS, false, 1.0, s->count - first, base_clock_ms() - start);
    drive_taken(s);
    if (rc >= 0 && (rc > 0 || !right)) {
        int trimmed = drive_trim(s, s->count, a->err);

        rc = trimmed < 0 ? trimmed : rc;
    }
    return rc;
}

/* Send what the plan says, one window at a time, so that answers are looked at in between. */
static int step(struct ahead *h, struct answer *a, struct model_sampler *sampler)
{
    struct mcp_session *s = a->session;
    uint32_t            count = next_window(h, s);
    int                 rc = count > 0 ? send_window(h, s, count, a->err) : drive_turn(s, a->err);

    if (rc < 0 || !s->output.ready)
        return rc;
    observe(h, s);
    rc = verify(h, a, sampler);
    if (rc == MCP_OK)
        look_ahead(h, s);
    return rc;
}

int ahead_generate(struct answer *a, struct model_sampler *sampler)
{
    struct mcp_session *s = a->session;
    struct ahead       *h = s->ahead;
    uint64_t            end = (uint64_t)s->count + a->opts->max_tokens - 1;
    int32_t             token;
    int                 rc = answer_next(a, sampler, s->logits, &token);

    if (rc != MCP_OK)
        return rc < 0 ? rc : MCP_OK;
    h->end = end < s->ctx_tokens ? (uint32_t)end : s->ctx_tokens;
    h->truth_first = s->count;
    draft_begin(h->draft, s->tokens, s->count);
    (void)draft_take(h->draft, token);
    expect(h, s);
    look_ahead(h, s);
    s->guessing = true;
    while (rc == MCP_OK)
        rc = step(h, a, sampler);
    drive_end(s, rc);
    return rc < 0 ? rc : MCP_OK;
}
