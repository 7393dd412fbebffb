/* agent/handback.c - see handback.h.
 *
 * Each stage of the session is a source: a worker, or an engine here.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/handback_private.h"

#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"
#include "guard/token.h"

#include <stdlib.h>

enum { COPY_BYTES = 1 << 20 /* of what is copied here in one piece */ };

static const double step_ms_max = 4.0; /* of importing in one step */
static const double away_ms = 500.0;   /* between two steps: then a silence is our own */

static struct session_endpoint *endpoint_of(const struct handback        *h,
                                            const struct handback_source *src)
{
    for (struct session_endpoint *e = h->session->endpoints; e != NULL; e = e->next)
        if (&h->sources[e->stage] == src && !e->resuming &&
            (src->endpoint == PIPE_NO_ENDPOINT || e->number == src->endpoint))
            return e;
    return NULL;
}

/* Its KV is in the right place from the start. */
static bool is_home(const struct handback *h, const struct session_endpoint *e)
{
    return e->engine == h->engine && h->session->seq == h->seq;
}

static uint32_t home_of(const struct handback *h)
{
    uint32_t home = h->session->count;

    for (uint32_t layer = 0; layer < h->layers; layer++)
        home = handback_smaller(home, handback_length(h, layer));
    return home;
}

static int take_answers(struct handback *h, double now_ms, mcp_error *err)
{
    int rc = MCP_OK;

    while (rc == MCP_OK && base_clock_ms() - now_ms < step_ms_max) {
        bool               starved;
        struct mail_event *event = mail_take(h->mail, &starved);

        if (starved)
            rc = base_fail(err, MCP_ENOMEM, "a block of KV");
        else if (event == NULL)
            break;
        for (uint32_t i = 0; i < h->source_count && rc == MCP_OK && event != NULL; i++)
            if (h->sources[i].endpoint == event->endpoint)
                rc = handback_take_answer(h, &h->sources[i], event, now_ms, err);
        mail_event_free(event);
    }
    return rc;
}

/* ---- what is here already ------------------------------------------------------------ */

/* From another engine or sequence here, one piece a step. */
static int copy(struct handback *h, struct handback_source *src, struct session_endpoint *e,
                mcp_error *err)
{
    struct engine_block block;
    size_t              bytes = 0;
    void               *piece;
    int                 rc;

    handback_count_asked(h, src);
    if (!handback_next_block(h, src, COPY_BYTES, &block))
        return MCP_OK;
    rc = engine_export(e->engine, h->session->seq, block.first, block.last, block.pos_first,
                       block.pos_last, NULL, &bytes, err);
    if (rc < 0)
        return rc;
    piece = malloc(bytes);
    if (piece == NULL)
        return base_fail(err, MCP_ENOMEM, "a block of KV of %zu bytes", bytes);
    rc = engine_export(e->engine, h->session->seq, block.first, block.last, block.pos_first,
                       block.pos_last, piece, &bytes, err);
    if (rc == MCP_OK)
        rc = engine_import(h->engine, h->seq, piece, bytes, err);
    free(piece);
    return rc;
}

/* ---- the whole ----------------------------------------------------------------------- */

static int serve(struct handback *h, struct handback_source *src, double now_ms, mcp_error *err)
{
    struct session_endpoint *e = endpoint_of(h, src);
    int                      rc = MCP_OK;

    if (e == NULL && src->endpoint != PIPE_NO_ENDPOINT)
        return base_fail(err, MCP_EUNAVAIL, "layers [%u, %u) run elsewhere now", src->first,
                         src->last);
    if (e == NULL)
        return MCP_OK;
    if (src->endpoint == PIPE_NO_ENDPOINT && e->remote != NULL)
        rc = handback_find_room(h, src, e, err);
    src->endpoint = e->number;
    if (rc < 0 || is_home(h, e))
        return rc;
    return e->remote != NULL ? handback_ask(h, src, e, now_ms, err) : copy(h, src, e, err);
}

/* All of the prompt, which was computed in wide windows, and nearly all of what came one by one. */
static bool is_near(const struct handback *h)
{
    uint32_t home = home_of(h);

    return home > 0 && home >= h->prompt && h->session->count - home <= HANDBACK_BEHIND_MAX;
}

int handback_step(struct handback *h, mcp_error *err)
{
    double now_ms = base_clock_ms();
    int    rc = h->error.code;

    if (rc < 0)
        goto out;
    if (h->session->count < h->seen)
        handback_trimmed(h, h->session->count);
    h->seen = h->session->count;
    for (uint32_t i = 0; i < h->source_count && now_ms - h->stepped_ms > away_ms; i++)
        h->sources[i].heard_ms = now_ms; /* it is we who were away */
    h->stepped_ms = now_ms;
    rc = take_answers(h, now_ms, &h->error);
    for (uint32_t i = 0; i < h->source_count && rc == MCP_OK; i++)
        rc = serve(h, &h->sources[i], now_ms, &h->error);
    if (rc < 0)
        base_log(BASE_LOG_INFO, "the KV does not come home: %s", h->error.text);
    else if (is_near(h))
        return 1;
out:
    if (rc < 0 && err != NULL)
        *err = h->error;
    return rc;
}

void handback_trimmed(struct handback *h, uint32_t pos)
{
    h->seen = handback_smaller(h->seen, pos);
    h->prompt = handback_smaller(h->prompt, pos);
    (void)engine_trim(h->engine, h->seq, pos, NULL);
    for (uint32_t i = 0; i < h->source_count; i++) {
        struct handback_source *src = &h->sources[i];

        src->length = handback_smaller(src->length, pos);
        (void)handback_void(h, src, pos);
    }
}

void handback_prompt(struct handback *h, uint32_t count)
{
    h->prompt = count;
}

int handback_finish(struct handback *h, uint32_t *home, mcp_error *err)
{
    *home = home_of(h);
    return engine_trim(h->engine, h->seq, *home, err);
}

void handback_get_stats(const struct handback *h, struct handback_stats *stats)
{
    uint32_t home = home_of(h);

    *stats = (struct handback_stats){ .home = home,
                                      .behind = h->session->count - home,
                                      .blocks = h->blocks,
                                      .bytes = h->bytes,
                                      .again = h->again,
                                      .ms = base_clock_ms() - h->began_ms };
}

/* A request without the right to it would end the session there. */
static int check_token(const struct mcp_remote *remote, mcp_error *err)
{
    static const char bearer[] = "Bearer ";
    uint32_t          scopes;
    int               rc;

    if (remote == NULL || remote->authorization == NULL)
        return MCP_OK; /* a certificate alone grants it, or lets nobody in */
    rc = guard_token_scopes(remote->authorization + sizeof(bearer) - 1, &scopes, err);
    if (rc == MCP_OK && (scopes & GUARD_STATE) == 0)
        rc = base_fail(err, MCP_EDENIED,
                       "the token does not grant the scope state, without which no KV comes home");
    return rc;
}

int handback_new(struct handback **out, struct mcp_session *s, struct mcp_engine *engine,
                 uint32_t seq, mcp_error *err)
{
    uint32_t         layers = s->model->hp.n_layer;
    struct handback *h;
    int              rc;

    *out = NULL;
    if (engine->info.first != 0 || engine->info.last != layers)
        return base_fail(err, MCP_ERANGE, "the engine holds layers [%u, %u) of %u, KV comes to all",
                         engine->info.first, engine->info.last, layers);
    if (seq >= engine->info.seqs || engine->info.ctx_tokens < s->ctx_tokens)
        return base_fail(err, MCP_ERANGE,
                         "sequence %u of %u positions is needed, the engine has %u of %u", seq,
                         s->ctx_tokens, engine->info.seqs, engine->info.ctx_tokens);
    rc = check_token(s->remote, err);
    if (rc < 0)
        return rc;
    h = calloc(1, sizeof(*h));
    if (h != NULL) {
        h->sources = calloc(s->stage_count, sizeof(*h->sources));
        h->asked = calloc(layers, sizeof(*h->asked));
        h->mail = mail_new();
    }
    if (h == NULL || h->sources == NULL || h->asked == NULL || h->mail == NULL) {
        handback_free(h);
        return base_fail(err, MCP_ENOMEM, "a hand-back of %u layers", layers);
    }
    h->session = s;
    h->engine = engine;
    h->seq = seq;
    h->layers = layers;
    h->number = 1;
    h->began_ms = base_clock_ms();
    h->seen = s->count;
    h->source_count = s->stage_count;
    for (uint32_t i = 0; i < s->stage_count; i++) {
        handback_source_init(&h->sources[i], s->stages[i].first, s->stages[i].last);
        handback_count_asked(h, &h->sources[i]);
    }
    *out = h;
    return MCP_OK;
}

void handback_free(struct handback *h)
{
    if (h == NULL)
        return;
    mail_unref(h->mail);
    free(h->sources);
    free(h->asked);
    free(h);
}
