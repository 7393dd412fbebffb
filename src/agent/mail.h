/* agent/mail.h - what the loop's thread tells a session's thread.
 *
 * One mailbox a session.  Streams put events in from the loop's thread; the session takes them
 * out in its own, and sleeps on it when there is nothing else to do.  Reference counted: a stream
 * that ends after its session finds a mailbox that nobody reads.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_MAIL_H
#define AGENT_MAIL_H

#include "pipe/pipeline.h"
#include "wire/frame.h"
#include "wire/status.h"

#include <stdatomic.h>

enum mail_kind {
    MAIL_OPENED,
    MAIL_RESULT,
    MAIL_TOKEN,
    MAIL_STATE,    /* in the mailbox of who asked, the block; in the session's, that it is there */
    MAIL_LOST,     /* the stream is over; nothing more comes from this endpoint */
    MAIL_DRAINING, /* the endpoint's worker wants to stop */
    MAIL_PLACES,   /* a worker came, went or changed */
};

struct mail_event {
    struct mail_event *next;
    enum mail_kind     kind;
    uint32_t           endpoint;
    struct wire_opened opened;
    uint64_t           number; /* RESULT, STATE */
    struct pipe_block *block;  /* RESULT: rows or NULL; the event's.  With a wrap, one "row" of
                                  the wrapped bytes.  STATE: one "row", the KV block */
    uint32_t           length; /* STATE: positions held */
    uint32_t           rows, wrap;
    struct pipe_timing timing;
    struct wire_token  token;
    struct wire_status status; /* LOST */
};

struct mail;

struct mail *mail_new(void); /* one reference; NULL when out of memory */
struct mail *mail_ref(struct mail *mail);
void         mail_unref(struct mail *mail);

/* Take over `event` (from malloc).  NULL says that memory for an event was missing: the next
 * mail_take() reports it. */
void mail_put(struct mail *mail, struct mail_event *event);

/* The oldest event, to be given to mail_event_free(); NULL when there is none.  *starved is set
 * when an event was lost for want of memory. */
struct mail_event *mail_take(struct mail *mail, bool *starved);
void               mail_event_free(struct mail_event *event);

/* Sleep until an event is there, or until `until_ms` (base_clock_ms). */
void mail_wait(struct mail *mail, double until_ms);

#endif
