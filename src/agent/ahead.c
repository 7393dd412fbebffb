/* agent/ahead.c - see ahead.h.
 *
 * Guesses come from pipe/draft.h, and from a draft model by agent/guess.h; how many of them go out
 * from pipe/speculate.h; what a rejection makes void is the pipeline's to forget (pipeline_trim).
 *
 * A draft model shares this thread.  It takes one step at a time, and only when neither a row nor
 * work for a stage here is waiting.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/ahead.h"

#include "agent/guess.h"
#include "agent/steer.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"
#include "pipe/draft.h"
#include "pipe/speculate.h"

#include <stdlib.h>

/* Of speculate.h's stages: what is done with rows, then the pipeline's. */
enum { STAGE_ROWS = 0, STAGE_FIRST = 1 };

/* What a position costs alone, over its cost in a window of many: a first guess. */
#define ALONE 3.0

/* A guess of the text itself is taken before a draft model's when it is this likely, and no less
 * than the model's are: it is free, and often the first of many. */
#define SURE 0.8f

/* A draft model with more to read than this cannot guess soon: the text's own guesses go out
 * meanwhile.  After a window of its own it has its last guess and the token behind it to read. */
enum { BEHIND_MAX = 8 };

_Static_assert((int)GUESS_AHEAD_MAX >= (int)SPECULATE_HORIZON,
               "the draft model remembers all its guesses");

struct made {
    float probability;
    bool  by_model;
};

struct ahead {
    struct draft               *draft; /* the text and all guesses, and those of n-grams */
    bool                        ngrams;
    struct guess               *guess;    /* a draft model; NULL = none */
    bool                        drafting; /* it pays just now, */
    bool                        reading;  /* or will, when it has read what was sent */
    struct speculate            speculate;
    struct speculate_plan       plan, text_plan;          /* in use; without the draft model */
    struct pipeline_stage_stats before[SPECULATE_STAGES]; /* when the last window came out */
    struct made made[SPECULATE_HORIZON]; /* the guess at position n, at n mod HORIZON */
    uint32_t    end;                     /* positions that this answer may fill */

    const int32_t *truth; /* (truth_count) from the answer's first token on; NULL: real guesses */
    uint32_t       truth_count, truth_first; /* the position of the first one */
    float          synth;

    uint64_t drafted, seen, accepted, model_made, model_seen, model_accepted;
    double   model_ms; /* of one that has failed */
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
    if (opts->spec == MCP_SPEC_DRAFT && opts->draft_model == NULL && opts->spec_truth == NULL)
        return base_fail(err, MCP_ENOTSUP,
                         "guesses by a draft model are asked for, and none is given (-md)");
    if (!wanted(s, opts->spec) || s->window_tokens < 2)
        return MCP_OK;
    h = calloc(1, sizeof(*h));
    if (h == NULL)
        return base_fail(err, MCP_ENOMEM, "guesses");
    rc = draft_new(&h->draft, s->ctx_tokens + 1, err); /* a text's last token needs no position */
    if (rc == MCP_OK && opts->draft_model != NULL && opts->spec != MCP_SPEC_NGRAM &&
        opts->spec_truth == NULL)
        rc = guess_new(&h->guess, s->model, opts->draft_model, opts->draft_engine, s->engine,
                       s->ctx_tokens, err);
    if (rc < 0) {
        ahead_free(h);
        return rc;
    }
    h->ngrams = opts->spec != MCP_SPEC_DRAFT;
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
    guess_free(h->guess);
    draft_free(h->draft);
    free(h);
}

void ahead_stats(const struct ahead *h, mcp_session_stats *stats)
{
    stats->drafted += h->drafted;
    stats->drafted_seen += h->seen;
    stats->accepted += h->accepted;
    if (h->in_flight_max > stats->in_flight_max)
        stats->in_flight_max = h->in_flight_max;
    stats->draft_made += h->model_made;
    stats->draft_seen += h->model_seen;
    stats->draft_accepted += h->model_accepted;
    stats->draft_ms += h->guess != NULL ? guess_total_ms(h->guess) : h->model_ms;
}

/* ---- the draft model ------------------------------------------------------------------------- */

/* A draft model that fails takes nothing with it: the answer goes on without. */
static void give_up_model(struct ahead *h, const mcp_error *why)
{
    base_log(BASE_LOG_WARN, "no more guesses by the draft model: %s", why->text);
    h->model_ms = guess_total_ms(h->guess);
    guess_free(h->guess);
    h->guess = NULL;
    h->drafting = h->reading = false;
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

/* What costs nothing: the true token, or what the text itself suggests.  Where a draft model is to
 * go on, only if that is likely. */
static bool next_of_text(const struct ahead *h, const struct mcp_session *s,
                         struct draft_guess *guess)
{
    if (h->truth != NULL)
        return next_of_truth(h, (int32_t)s->model->hp.n_vocab, guess);
    if (!h->ngrams || !draft_next(h->draft, guess))
        return false;
    return !h->drafting ||
           (guess->probability >= SURE && guess->probability >= guess_mean(h->guess));
}

/* The text, with the guesses on it that were sent. */
static uint32_t sent_length(const struct ahead *h, const struct mcp_session *s)
{
    uint32_t sent = pipeline_length(s->pipeline), known = draft_known(h->draft);

    return sent > known ? sent : known;
}

static bool has_room(const struct ahead *h)
{
    uint32_t length = draft_length(h->draft);

    return length < h->end && length - draft_known(h->draft) < SPECULATE_HORIZON;
}

static void push(struct ahead *h, const struct draft_guess *guess, bool by_model)
{
    h->made[draft_length(h->draft) % SPECULATE_HORIZON] = (struct made){ guess->probability,
                                                                         by_model };
    draft_push(h->draft, guess->token);
}

static void push_text(struct ahead *h, const struct mcp_session *s)
{
    struct draft_guess guess;

    while (has_room(h) && next_of_text(h, s, &guess))
        push(h, &guess, false);
}

static bool guesses(const struct speculate_plan *plan)
{
    return plan->drafts > 0 || plan->windows > 1;
}

/* The probabilities of the guesses that are there; returns how many of them came before any of the
 * draft model's. */
static uint32_t list_made(const struct ahead *h, float chances[SPECULATE_HORIZON], uint32_t *count)
{
    uint32_t known = draft_known(h->draft), free_count = UINT32_MAX;

    *count = 0;
    for (uint32_t pos = known; pos < draft_length(h->draft); pos++) {
        const struct made *made = &h->made[pos % SPECULATE_HORIZON];

        if (made->by_model && free_count == UINT32_MAX)
            free_count = *count;
        chances[(*count)++] = made->probability;
    }
    return free_count < *count ? free_count : *count;
}

/* Also counting on guesses that the draft model is yet to make. */
static struct speculate_plan plan_with_model(struct ahead *h, const float *made, uint32_t count,
                                             uint32_t free_count)
{
    uint32_t known = draft_known(h->draft), room = guess_room(h->guess);
    uint32_t end = h->end < room ? h->end : room;
    float    chances[SPECULATE_HORIZON];

    for (uint32_t i = 0; i < SPECULATE_HORIZON; i++)
        chances[i] = i < count ? made[i] : guess_mean(h->guess);
    if (known + count < end)
        count = end - known < SPECULATE_HORIZON ? end - known : SPECULATE_HORIZON;
    speculate_drafts(&h->speculate, free_count, guess_each_ms(h->guess));
    return speculate_choose(&h->speculate, chances, count);
}

/* Whether the draft model takes part, and the plan with or without it. */
static void choose_plan(struct ahead *h)
{
    float                 chances[SPECULATE_HORIZON];
    uint32_t              count, free_count = list_made(h, chances, &count);
    struct speculate_plan with;

    h->plan = h->text_plan;
    h->drafting = false;
    if (h->guess == NULL)
        return;
    with = plan_with_model(h, chances, count, free_count);
    if (!guesses(&with) || (guesses(&h->text_plan) && with.token_ms >= h->text_plan.token_ms))
        return;
    h->plan = with;
    h->drafting = true;
}

/* What the text itself suggests goes after the `sent` tokens, all of it, and this is its plan. */
static void plan_of_text(struct ahead *h, const struct mcp_session *s)
{
    float    chances[SPECULATE_HORIZON];
    uint32_t count;

    h->drafting = false;
    push_text(h, s);
    (void)list_made(h, chances, &count);
    speculate_drafts(&h->speculate, 0, 0.0);
    h->text_plan = speculate_choose(&h->speculate, chances, count);
}

/* Guess anew what has not been sent, and plan.  While the draft model takes part its guesses stay:
 * they have cost something, and nobody has said that they are wrong. */
static void look_ahead(struct ahead *h, const struct mcp_session *s)
{
    uint32_t from = sent_length(h, s);

    if (!h->drafting)
        draft_drop(h->draft, from);
    if (draft_length(h->draft) == from) {
        plan_of_text(h, s);
        if (h->guess != NULL) { /* which goes on from what is sure */
            draft_drop(h->draft, from);
            h->drafting = true;
            push_text(h, s);
        }
    }
    choose_plan(h);
    h->reading = h->drafting && s->remote != NULL && guess_behind(h->guess, from) > BEHIND_MAX;
    if (h->reading) {
        h->drafting = false;
        h->plan = h->text_plan;
    }
    if (h->guess != NULL && !h->drafting)
        push_text(h, s);
}

/* ---- one more guess ------------------------------------------------------------------------- */

/* Whether the draft model is to go on reading, in time that nothing else needs. */
static bool wants_reading(const struct ahead *h, const struct mcp_session *s)
{
    uint32_t length = sent_length(h, s);

    return h->reading && s->jobs == NULL && length <= guess_room(h->guess) &&
           guess_behind(h->guess, length) > 0;
}

/* Whether it is to guess now: there is less than one window of guesses to send, and no stage here
 * has work. */
static bool wants_model(const struct ahead *h, const struct mcp_session *s)
{
    uint32_t length = draft_length(h->draft), sent = pipeline_length(s->pipeline);

    return h->drafting && s->jobs == NULL && has_room(h) && length <= guess_room(h->guess) &&
           length - sent <= h->plan.drafts;
}

static void step_model(struct ahead *h, const struct mcp_session *s)
{
    struct draft_guess guess;
    mcp_error          why = { 0 };
    uint32_t           length = h->reading ? sent_length(h, s) : draft_length(h->draft);
    int                rc = guess_step(h->guess, draft_tokens(h->draft), length, &guess, &why);

    if (rc < 0) {
        give_up_model(h, &why);
        choose_plan(h);
    }
    if (rc <= 0 || h->reading)
        return;
    push(h, &guess, true);
    h->model_made++;
    push_text(h, s);
    choose_plan(h);
}

/* Do what there is to do without waiting.  The event is for nobody, and a turn that finds one does
 * not wait; the second turn does what the mail before it has asked for. */
static int turn_at_once(struct mcp_session *s, mcp_error *err)
{
    int rc = MCP_OK;

    for (int turn = 0; turn < 2 && rc == MCP_OK && !s->output.ready && s->jobs == NULL; turn++) {
        struct mail_event *event = calloc(1, sizeof(*event));

        if (event == NULL)
            return base_fail(err, MCP_ENOMEM, "an event");
        event->kind = MAIL_DRAINING;
        event->endpoint = PIPE_NO_ENDPOINT;
        mail_put(s->mail, event);
        rc = drive_turn(s, err);
    }
    return rc;
}

/* A step of the draft model, unless something has come in. */
static int draft_turn(struct ahead *h, struct mcp_session *s, mcp_error *err)
{
    int rc = s->mail != NULL ? turn_at_once(s, err) : drive_turn(s, err); /* waits for mail only */

    if (rc == MCP_OK && !s->output.ready && s->jobs == NULL)
        step_model(h, s);
    return rc;
}

/* ---- windows ------------------------------------------------------------------------------- */

/* Whether a window that is not full waits for the draft model.  One with the text's last token
 * does only where no other can follow it, and not for a prompt that the model has yet to read,
 * unless nothing but such a wait gives it time. */
static bool waits_for_guesses(const struct ahead *h, const struct mcp_session *s)
{
    if (!wants_model(h, s))
        return false;
    if (pipeline_length(s->pipeline) >= draft_known(h->draft) || s->remote == NULL)
        return true;
    return h->plan.windows == 1 && guess_behind(h->guess, draft_length(h->draft)) <= BEHIND_MAX;
}

/* Positions of the window that the plan sends next; 0: none now. */
static uint32_t next_window(const struct ahead *h, const struct mcp_session *s)
{
    uint32_t sent = pipeline_length(s->pipeline), count = h->plan.drafts;
    uint32_t made = draft_length(h->draft) - sent;

    if (pipeline_in_flight(s->pipeline) >= h->plan.windows || s->jobs != NULL)
        return 0; /* what is under way goes first */
    if (sent < draft_known(h->draft))
        count++; /* the text's last token */
    else if (count == 0)
        count = 1;
    if (count > s->window_tokens)
        count = s->window_tokens;
    if (made < count && waits_for_guesses(h, s))
        return 0;
    return count < made ? count : made;
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

/* The text goes on with `token`; false: otherwise than was guessed.  A guess that was not `sent`
 * teaches too. */
static bool compare(struct ahead *h, int32_t token, bool sent)
{
    uint32_t    pos = draft_known(h->draft);
    bool        guessed = draft_length(h->draft) > pos;
    struct made made = h->made[pos % SPECULATE_HORIZON];
    bool        right = draft_take(h->draft, token);

    h->seen += sent;
    h->accepted += sent && right;
    if (guessed && made.by_model && h->guess != NULL) {
        guess_learn(h->guess, pos, right);
        h->model_seen += sent;
        h->model_accepted += sent && right;
    } else if (h->guess != NULL) {
        guess_fade(h->guess);
    }
    return right;
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
        right = compare(h, token, guessed) || !guessed;
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
    int                 rc;

    if (count > 0)
        rc = send_window(h, s, count, a->err);
    else
        rc = wants_model(h, s) || wants_reading(h, s) ? draft_turn(h, s, a->err)
                                                      : drive_turn(s, a->err);
    if (rc < 0 || !s->output.ready)
        return rc;
    observe(h, s);
    rc = verify(h, a, sampler);
    if (rc == MCP_OK && steer_wants(a)) {
        rc = drive_trim(s, s->count, a->err);
        return rc < 0 ? rc : ANSWER_MOVES;
    }
    if (rc == MCP_OK)
        look_ahead(h, s);
    return rc;
}

int ahead_generate(struct answer *a, struct model_sampler *sampler, int32_t *token)
{
    struct mcp_session *s = a->session;
    struct ahead       *h = s->ahead;
    uint64_t            end = (uint64_t)s->count + a->opts->max_tokens - a->result.generated_tokens;
    int                 rc = MCP_OK;

    h->end = end < s->ctx_tokens ? (uint32_t)end : s->ctx_tokens;
    h->truth_first = s->count - (a->result.generated_tokens - 1);
    draft_begin(h->draft, s->tokens, s->count);
    (void)draft_take(h->draft, *token);
    expect(h, s);
    look_ahead(h, s);
    s->guessing = true;
    while (rc == MCP_OK)
        rc = step(h, a, sampler);
    if (rc == ANSWER_MOVES)
        *token = draft_tokens(h->draft)[s->count];
    drive_end(s, rc);
    return answer_ended(rc);
}
