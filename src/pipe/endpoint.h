/* pipe/endpoint.h - one endpoint as its stage knows it: what it was sent, what it owes, where it
 * will be.
 *
 * Frames run in the order in which they are sent.  A Trim drops what has not run of what was
 * sent before it, so it has to wait until all that is still wanted has been answered:
 *
 *     sends   ├─ wanted ─┼─ wanted ─┼─ void ─┼─ void ─┤
 *                                   ▲ rewound to here by a trim of the session, or because
 *                                     answers must be asked for again: when the wanted ones
 *                                     are answered, Trim goes out and the void are forgotten
 *
 * Always: void sends follow the wanted ones, `next` is the entry behind the last wanted one, and
 * nothing is sent while `pos` is not where entry `next` begins.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PIPE_ENDPOINT_H
#define PIPE_ENDPOINT_H

#include "pipe/journal.h"

enum pipe_role {
    PIPE_ROLE_FREE,      /* nobody: the slot may be used */
    PIPE_ROLE_ACTIVE,    /* new windows go to it */
    PIPE_ROLE_FEEDING,   /* successor of a draining one: runs the journal beside it */
    PIPE_ROLE_FINISHING, /* predecessor: owes answers and gets nothing more */
    PIPE_ROLE_CLOSING,   /* to be told of by PIPE_ACT_CLOSE, then free */
};

/* A window on its way to the endpoint and back. */
struct pipe_send {
    uint64_t           number;      /* of this sending */
    uint64_t           first, last; /* entries [first, last) of the journal */
    uint32_t           rows;        /* wanted back */
    bool               live;        /* its answer is handed on; else a replay */
    bool               is_void;     /* nobody waits for it any more */
    bool               done;        /* answered */
    struct pipe_block *answer;
    struct pipe_timing timing;
    double             sent_ms;
};

struct pipe_endpoint {
    enum pipe_role   role;
    uint32_t         id;
    bool             draining;
    bool             even_windows;
    bool             trim_due; /* resumed: what it holds or has queued beyond is not ours to keep */
    uint32_t         windows_max;
    uint32_t         epoch;                /* of the frames sent */
    uint32_t         pos;                  /* its length once all that was sent has run */
    uint64_t         next;                 /* entry to be sent next */
    uint32_t         trim_epoch, trim_pos; /* of the last Trim sent */
    uint32_t         send_first, send_count;
    struct pipe_send sends[PIPE_WINDOWS_MAX]; /* ring */
    const char      *broken;                  /* CLOSING: how it broke the contract; or NULL */
};

/* What a successor may rely on if it resumes the session of an endpoint that was lost. */
struct pipe_legacy {
    uint32_t held;                 /* up to here its content can be that of the journal */
    uint32_t epoch;                /* the highest that it was sent */
    uint32_t trim_epoch, trim_pos; /* if its epoch is older, the Trim has not arrived */
};

void pipe_endpoint_fini(struct pipe_endpoint *e); /* the slot is free again */

struct pipe_legacy pipe_endpoint_legacy(const struct pipe_endpoint *e,
                                        const struct pipe_journal  *j);

/* Sent and still wanted, not answered. */
uint32_t pipe_endpoint_owes(const struct pipe_endpoint *e);

/* The first entry that is not yet run there, as far as is known. */
uint64_t pipe_endpoint_done(const struct pipe_endpoint *e);

/* Entries from `entry` on count as not sent. */
void pipe_endpoint_rewind(struct pipe_endpoint *e, uint64_t entry);

/* Must it be trimmed before anything else can be sent? */
bool pipe_endpoint_must_trim(const struct pipe_endpoint *e, const struct pipe_journal *j);
void pipe_endpoint_trim(struct pipe_endpoint *e, const struct pipe_journal *j);

struct pipe_send *pipe_endpoint_push(struct pipe_endpoint *e);
struct pipe_send *pipe_endpoint_front(struct pipe_endpoint *e); /* NULL when there is none */
void              pipe_endpoint_pop(struct pipe_endpoint *e);

/* Take an answer.  1: it was awaited; 0: nobody waits for it; negative: the endpoint broke the
 * contract, and e->broken says how. */
int pipe_endpoint_answer(struct pipe_endpoint *e, uint64_t number, struct pipe_block *rows,
                         struct pipe_timing timing);

#endif
