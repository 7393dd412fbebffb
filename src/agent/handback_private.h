/* agent/handback_private.h - what the files of the hand-back share.
 *
 *     handback.c      the whole: stages, what is copied here, when enough is home
 *     handback_ask.c  one worker: requests, answers, and those that a Trim has voided
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_HANDBACK_PRIVATE_H
#define AGENT_HANDBACK_PRIVATE_H

#include "agent/handback.h"

enum {
    HANDBACK_REQUESTS_MAX = 24, /* on their way to one worker */
    HANDBACK_FENCES_MAX = 8,    /* requests for one position beside them */
    HANDBACK_RING = HANDBACK_REQUESTS_MAX + HANDBACK_FENCES_MAX,
};
_Static_assert((HANDBACK_RING & (HANDBACK_RING - 1)) == 0, "slot is a mask");

struct handback_request {
    uint64_t            number;
    struct engine_block block;
    double              asked_ms;
    bool                stale; /* its answer is of no use */
};

struct handback_source {
    uint32_t                first, last; /* layers */
    uint32_t                endpoint;    /* that runs them; PIPE_NO_ENDPOINT until seen */
    struct handback_request ring[HANDBACK_RING];
    uint32_t                tail, head; /* counted on; slots are modulo HANDBACK_RING */
    uint32_t                window;     /* requests on their way at once */
    uint32_t                room;       /* most of them */
    bool                    was_full;   /* `window` was used up after the last step */
    size_t                  block_bytes;
    double                  resized_ms;
    double                  heard_ms;  /* the last answer, or the first request after a pause */
    double                  fenced_ms; /* how long a silence brings the next fence */
    uint32_t                length;    /* positions that the worker said it has */
};

struct handback {
    struct mcp_session     *session;
    struct mcp_engine      *engine;
    uint32_t                seq;
    struct mail            *mail; /* blocks */
    struct handback_source *sources;
    uint32_t                source_count;
    uint32_t               *asked; /* (layers) */
    uint32_t                layers;
    uint32_t                prompt; /* positions of it */
    uint32_t                seen;   /* positions of the session at the last step */
    uint64_t                number; /* of the next request */
    mcp_error               error;  /* why it was given up; code 0 = it was not */
    double                  began_ms, stepped_ms;
    uint64_t                blocks, bytes, again;
};

static inline uint32_t handback_length(const struct handback *h, uint32_t layer)
{
    return *engine_kv_length(&engine_shard_of(h->engine, layer)->kv, h->seq, layer);
}

static inline uint32_t handback_smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Positions that stand, of those that the source has. */
static inline uint32_t handback_standing(const struct handback        *h,
                                         const struct handback_source *src)
{
    uint32_t count = h->session->count, prompt = handback_smaller(h->prompt, src->length);

    return prompt > count ? prompt : count;
}

/* ---- agent/handback_ask.c ------------------------------------------------------------- */

void handback_source_init(struct handback_source *src, uint32_t first, uint32_t last);

/* How many requests the worker takes beside the session's windows.  MCP_ENOTSUP: none. */
int handback_find_room(struct handback *h, struct handback_source *src,
                       const struct session_endpoint *e, mcp_error *err);

/* Ask for what may be asked for now.  MCP_ETIMEOUT: nothing has been answered for too long. */
int handback_ask(struct handback *h, struct handback_source *src, struct session_endpoint *e,
                 double now_ms, mcp_error *err);

/* An answer: its block goes to the engine.
 *   MCP_EFORMAT and what engine_import() says: it is not what was asked for */
int handback_take_answer(struct handback *h, struct handback_source *src,
                         const struct mail_event *event, double now_ms, mcp_error *err);

/* Requests that reach beyond `pos` are of no use any more.  How many those were. */
uint32_t handback_void(struct handback *h, struct handback_source *src, uint32_t pos);

/* See asked[] from what the layers have, and what is still on its way to them. */
void handback_count_asked(struct handback *h, struct handback_source *src);

/* A block of at most `bytes`, but of one position at least; false when all is asked for. */
bool handback_next_block(const struct handback *h, const struct handback_source *src, size_t bytes,
                         struct engine_block *block);

#endif
