/* agent/remote.h - the workers behind mcp/remote.h: one link each, on one loop.
 *
 * Threads.  Links and endpoints live on the loop's thread.  What sessions and callers may read
 * of a link (its `shown` part) is guarded by the remote's lock and is a copy.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_REMOTE_H
#define AGENT_REMOTE_H

#include "agent/mail.h"
#include "agent/meter.h"
#include "net/net.h"
#include "pipe/places.h"
#include "wire/codec.h"
#include "wire/describe.h"
#include "wire/pace.h"

#include <mcp/remote.h>
#include <pthread.h>

struct agent_endpoint;
struct guard_keyring;

/* What others may know of a worker. */
struct link_shown {
    mcp_worker_info   info;
    struct pipe_place place;
    uint32_t          windows_max;
    uint32_t          codecs; /* bit i: codec i */
    bool              even_windows;
    bool              tried;               /* the first dial has ended, well or not */
    uint8_t (*weights)[WIRE_DIGEST_BYTES]; /* (info.last - info.first), or NULL; owned */
};

/* The connection to one worker: dialled again when lost.  Loop's thread. */
struct agent_link {
    struct mcp_remote     *remote;
    uint32_t               index;
    char                   endpoint[128]; /* immutable */
    struct net_conn       *conn;          /* NULL between two dials */
    struct net_timer       retry;
    struct wire_pace       pace;      /* of this connection, up */
    struct agent_meter     meter;     /* what it is seen to do; has a lock of its own */
    bool                   probing;   /* a Probe call of ours is on its way */
    struct agent_endpoint *endpoints; /* a list: open streams of sessions */
    bool                   described;
    bool                   stop;         /* the remote closes: no more dials */
    char                   silence[256]; /* why we closed the connection ourselves; "" */

    struct link_shown shown; /* under remote->lock */
};

/* A session's mailbox that wants to hear of changes. */
struct remote_listener {
    struct mail            *mail;
    struct remote_listener *next;
};

struct mcp_remote {
    struct net_loop        *loop;
    struct guard_keyring   *keyring;
    struct net_identity    *identity;
    char                   *authorization; /* "Bearer ...", or NULL */
    atomic_uint             computing;     /* answers in the making: links are not probed */
    double                  connect_ms;
    struct agent_link      *links; /* (link_count) */
    uint32_t                link_count;
    pthread_mutex_t         lock; /* guards links[].shown, listeners, closed_links */
    pthread_cond_t          changed;
    struct remote_listener *listeners;
    uint32_t                closed_links;
};

int  remote_open(struct mcp_remote **out, const mcp_remote_opts *opts, mcp_error *err);
void remote_close(struct mcp_remote *remote);
int  remote_get_worker(const struct mcp_remote *remote, uint32_t index, mcp_worker_info *info);
int  remote_weights(const struct mcp_remote *remote, uint32_t index, uint32_t first, uint32_t last,
                    uint8_t digest[WIRE_DIGEST_BYTES], mcp_error *err);
int  remote_ping(struct mcp_remote *remote, uint32_t index, const mcp_ping_opts *opts,
                 mcp_ping_result *result, mcp_error *err);

/* Hear of changes (MAIL_PLACES) from now on, until unlisten. */
void remote_listen(struct mcp_remote *remote, struct remote_listener *listener);
void remote_unlisten(struct mcp_remote *remote, struct remote_listener *listener);

/* The worker for layers [first, last), as pipe_places_choose(); -1. */
int remote_choose(struct mcp_remote *remote, uint32_t first, uint32_t last, int lost,
                  uint64_t excluded, double now_ms);

/* No worker for layers [first, last) can be expected soon: each one that is not excluded and may
 * hold them was lost and could not be dialled since. */
bool remote_hopeless(struct mcp_remote *remote, uint32_t first, uint32_t last, uint64_t excluded);

/* What the path to a worker does, as its traffic shows.  Whoever asks while nothing is on its way
 * makes a probe likely (at most 1 MiB each way, agent/meter.h), and finds its result a second or
 * two later.  Any thread.
 *   MCP_ERANGE  there is no such worker */
int remote_link_estimate(struct mcp_remote *remote, uint32_t index, double now_ms,
                         struct plan_link_estimate *out);

/* The codecs that a worker has: bit i for codec i. */
uint32_t remote_codecs(struct mcp_remote *remote, uint32_t index);

/* What a session needs to know of a worker before it answers. */
void remote_terms(struct mcp_remote *remote, uint32_t index, struct pipe_opened *opened);

/* ---- agent/link.c; loop's thread ----------------------------------------------------------- */

void link_start(struct agent_link *link);
void link_stop(struct agent_link *link);
/* Something is awaited of a worker on one of the link's streams (agent/endpoint.c). */
bool link_awaits(const struct agent_link *link);
/* A stream has ended: a link that stops waits for the last one, whose Close is on its way. */
void link_idle(struct agent_link *link);
/* The worker says nothing any more: give the connection up and dial again. */
void link_lost(struct agent_link *link, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void link_rtt(struct agent_link *link, double rtt_ms);
/* Measure an idle path, for link->meter. */
void link_probe(struct agent_link *link, const uint64_t bytes[PLAN_DIRECTIONS]);
/* The worker said so on a session's stream, before Watch did. */
void link_draining(struct agent_link *link);
/* The worker's own words about its load and health. */
void link_capacity(struct agent_link *link, const struct wire_capacity *c, bool draining,
                   const char *degraded);

/* Metadata of every call: authorization when there is a token.  (4) pointers. */
void remote_metadata(const struct mcp_remote *remote, const char *metadata[4]);

#endif
