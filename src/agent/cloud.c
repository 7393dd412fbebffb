/* agent/cloud.c - a worker does it all: it gets the tokens and streams back its choices.
 *
 * No round trip a token.  What is lost with a worker is only its KV: another one is given the
 * prompt and the answer so far, and the random draws already made, and goes on.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/answer.h"
#include "agent/layout.h"
#include "base/clock.h"
#include "base/fail.h"

#include <stdlib.h>
#include <string.h>

enum { POLL_MS = 50 };

/* One answer in the cloud. */
struct cloud {
    struct mcp_session      *s;
    const mcp_generate_opts *opts;
    uint32_t                 seed;
    cloud_token_fn           fn;
    void                    *ctx;
    int32_t                 *known; /* prompt and answer so far: (known_count) */
    uint32_t                 known_count;
    uint32_t                 prompt_count;
    uint64_t                 number; /* of the Generate that runs */
};

/* A worker with an open stream.  Waits until there is one, or the time is up. */
static int connect(struct mcp_session *s, mcp_error *err)
{
    struct session_stage *stage = &s->stages[0];

    if (s->endpoints == NULL)
        drive_wait(stage, base_clock_ms());
    while (s->endpoints == NULL) {
        struct session_endpoint *e;
        bool                     starved;
        int                      worker = drive_choose(s, stage, base_clock_ms());

        if (worker >= 0) {
            int rc = drive_open_remote(s, 0, (uint32_t)worker, false, &e, err);

            if (rc < 0)
                return rc;
            s->cloud_epoch = 0;
            s->count = 0;
            return MCP_OK;
        }
        if (session_cancelled(s))
            return base_fail(err, MCP_ECANCELED, "the answer was cancelled");
        if (drive_waited(stage, base_clock_ms()) > s->failover_ms)
            return base_fail(err, MCP_EUNAVAIL, "no worker is left for the whole model: %s",
                             s->last_loss.text[0] != '\0' ? s->last_loss.text : "none holds it");
        mail_wait(s->mail, base_clock_ms() + POLL_MS);
        mail_event_free(mail_take(s->mail, &starved));
    }
    return MCP_OK;
}

/* The worker computes the prompt in windows as large as it takes, an answer's tokens in narrow
 * ones. */
static void note_windows(const struct cloud *c)
{
    struct mcp_session *s = c->s;
    mcp_worker_info     info;

    if (remote_get_worker(s->remote, endpoint_worker(s->endpoints->remote), &info) < 0 ||
        info.batch_tokens == 0)
        return;
    for (uint32_t pos = s->count; pos < c->prompt_count; pos += info.batch_tokens)
        layout_note(s, pos,
                    c->prompt_count - pos < info.batch_tokens ? c->prompt_count - pos
                                                              : info.batch_tokens);
}

static int send_generate(struct cloud *c, mcp_error *err)
{
    struct mcp_session   *s = c->s;
    struct wire_frame     frame = { .kind = WIRE_GENERATE };
    struct wire_generate *g = &frame.u.generate;
    uint32_t              made = c->known_count - c->prompt_count;

    g->number = c->number = ++s->output_number;
    g->epoch = s->cloud_epoch;
    g->pos = s->count;
    g->tokens = c->known + s->count;
    g->token_count = c->known_count - s->count;
    g->max_tokens = c->opts->max_tokens == UINT32_MAX ? UINT32_MAX : c->opts->max_tokens - made;
    g->temperature = c->opts->temperature;
    g->top_k = c->opts->top_k;
    g->top_p = c->opts->top_p;
    g->min_p = c->opts->min_p;
    g->seed = c->seed;
    g->draws = made;
    g->ignore_end = c->opts->ignore_end != 0;
    g->no_guesses = s->spec == MCP_SPEC_NONE || s->spec == MCP_SPEC_DRAFT;
    g->guesses = s->spec_depth;
    note_windows(c);
    return endpoint_send(s->endpoints->remote, &frame, NULL, err);
}

static void lose(struct mcp_session *s, const struct wire_status *why)
{
    wire_status_fail(why, &s->last_loss);
    drive_block(s, endpoint_worker(s->endpoints->remote), why, base_clock_ms());
    drive_close_endpoint(s, s->endpoints);
    s->count = 0;
    s->cloud_failovers++;
}

/* Make the worker stop and forget what it made beyond `pos`. */
static int stop_at(struct mcp_session *s, uint32_t pos, mcp_error *err)
{
    struct wire_frame frame = { .kind = WIRE_TRIM };

    if (s->endpoints == NULL)
        return MCP_OK;
    s->cloud_epoch++;
    frame.u.trim.epoch = s->cloud_epoch;
    frame.u.trim.pos = pos;
    s->count = pos;
    return endpoint_send(s->endpoints->remote, &frame, NULL, err);
}

/* One event.  1: the answer is over; 0: go on; negative: failed. */
static int on_event(struct cloud *c, const struct mail_event *event, mcp_error *err)
{
    struct mcp_session      *s = c->s;
    const struct wire_token *t = &event->token;
    int                      rc;

    if (s->endpoints == NULL || event->endpoint != s->endpoints->number)
        return 0;
    if (event->kind == MAIL_LOST) {
        lose(s, &event->status);
        rc = connect(s, err);
        return rc == MCP_OK ? send_generate(c, err) : rc;
    }
    if (event->kind != MAIL_TOKEN || t->number != c->number)
        return 0;
    s->windows++;
    s->cloud_guessed += t->guessed;
    s->cloud_seen += t->guessed_right + (t->guessed_right < t->guessed);
    s->cloud_right += t->guessed_right;
    drive_progress(s);
    if (t->token < 0 || (uint32_t)t->token >= s->model->hp.n_vocab ||
        (t->stop != WIRE_STOP_END && c->known_count >= s->ctx_tokens + 1))
        return base_fail(err, MCP_EFORMAT, "the worker sent token %d at position %u", t->token,
                         c->known_count);
    rc = c->fn(t->token, t->stop, c->ctx);
    /* What the worker holds now: all but the token that it has just chosen. */
    s->count = c->known_count;
    if (t->stop != WIRE_STOP_END)
        c->known[c->known_count++] = t->token;
    if (rc != 0 && t->stop == WIRE_STOP_NOT) {
        int stopped = stop_at(s, s->count, err);

        return stopped < 0 ? stopped : rc;
    }
    return rc != 0 || t->stop != WIRE_STOP_NOT ? (rc < 0 ? rc : 1) : 0;
}

static int run(struct cloud *c, mcp_error *err)
{
    struct mcp_session *s = c->s;
    int                 rc = connect(s, err);

    if (rc == MCP_OK)
        rc = send_generate(c, err);
    while (rc == MCP_OK) {
        bool               starved = false;
        struct mail_event *event = mail_take(s->mail, &starved);

        if (starved) {
            rc = base_fail(err, MCP_ENOMEM, "an answer from a worker");
        } else if (event != NULL) {
            rc = on_event(c, event, err);
        } else if (session_cancelled(s)) {
            rc = stop_at(s, s->count, err);
            if (rc == MCP_OK)
                rc = base_fail(err, MCP_ECANCELED, "the answer was cancelled");
        } else {
            mail_wait(s->mail, base_clock_ms() + POLL_MS);
        }
        mail_event_free(event);
    }
    return answer_ended(rc);
}

int cloud_generate(struct mcp_session *s, const int32_t *tokens, uint32_t count, uint32_t made,
                   const mcp_generate_opts *opts, uint32_t seed, uint32_t *cached,
                   cloud_token_fn fn, void *ctx, mcp_error *err)
{
    struct cloud c = { .s = s,
                       .opts = opts,
                       .seed = seed,
                       .fn = fn,
                       .ctx = ctx,
                       .known_count = count,
                       .prompt_count = count - made };
    uint32_t     same = 0;
    int          rc = MCP_OK;

    if (opts->max_tokens == 0)
        return MCP_OK;
    c.known = malloc(((size_t)s->ctx_tokens + 1) * sizeof(*c.known));
    if (c.known == NULL)
        return base_fail(err, MCP_ENOMEM, "%u tokens", s->ctx_tokens);
    memcpy(c.known, tokens, count * sizeof(*tokens));
    while (same < s->count && same + 1 < count && s->tokens[same] == tokens[same])
        same++;
    if (same < s->count)
        rc = stop_at(s, same, err);
    *cached = same;
    if (rc == MCP_OK)
        rc = run(&c, err);
    memcpy(s->tokens, c.known, s->count * sizeof(*s->tokens));
    free(c.known);
    return rc;
}
