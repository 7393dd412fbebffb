/* agent/meter.h - what the traffic of a link tells of its path, while sessions use it.
 *
 * Fed by the link's streams with what they send and get anyway:
 *
 *     windows that are no bulk   took so long, less what the worker queued and computed
 *     Beats                      the same with next to no bytes; one goes along with the answers
 *                                every METER_BEAT_MS, so that bytes and round trip can be told apart
 *     Acks of bulk up            by the worker's clock (wire/pace.h)
 *     bulk that arrives          by ours
 *     Probe calls                (agent/ping.c) when nothing else is on its way
 *
 * What is not seen: the round trip while bulk is on its way, because windows and Beats then wait
 * behind it and would measure us (the last one stays, with its age); a lower rate that slows
 * nothing down; and, from small windows alone, which direction it was (plan/link.h).
 *
 * Times are given.  The loop's thread feeds; anybody may ask.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AGENT_METER_H
#define AGENT_METER_H

#include "pipe/pipeline.h"
#include "plan/link.h"
#include "wire/pace.h"

#include <pthread.h>

enum {
    METER_BEAT_MS = 250,    /* ten in the estimator's window; 4 x 60 bytes a second */
    METER_BURST_MS = 10,    /* windows closer than that leave one behind the other */
    METER_IDLE_MS = 2000,   /* nothing has been on its way for so long: a probe disturbs nobody */
    METER_ASKED_MS = 15000, /* an older question is no reason for a probe */
    METER_PROBE_MS = 50,    /* what a probe of known goodput takes */
    METER_PROBE_BYTES = 256 * 1024, /* each way, when it is not known */
    METER_PROBE_BYTES_MAX = 1024 * 1024,
};

/* A bulk transfer that arrives: from its first part on, without pauses of the sender. */
struct meter_run {
    bool     inside; /* the sender had more when the last part came */
    uint32_t parts;  /* after the first; */
    double   began_ms, last_ms;
    double   piece_ms; /* since when `piece_bytes` have come */
    uint64_t piece_bytes;
    double   last_mbit; /* of the last piece that the sender may have limited */
};

struct agent_meter {
    pthread_mutex_t  lock; /* guards the two below */
    struct plan_link path;
    double           asked_ms;

    /* loop's thread */
    double           beat_ms;     /* when the last Beat left */
    double           busy_ms;     /* last message of a session, any direction */
    double           bulk_ms;     /* last bulk that arrived */
    double           window_ms;   /* last window that left, */
    uint64_t         burst_bytes; /* and it with those right before */
    uint64_t         sample;      /* of the pace, seen */
    struct meter_run run;
};

/* A stream's part of it. */
struct meter_window {
    uint64_t number;
    uint64_t bytes;
    double   sent_ms;
    bool     clean; /* it found no bulk on its way */
};

struct meter_stream {
    struct meter_window windows[PIPE_WINDOWS_MAX]; /* number n at n mod MAX */
    struct meter_window beat;                      /* number: its stamp */
    uint64_t            bulk_in;
};

void meter_init(struct agent_meter *m);
void meter_fini(struct agent_meter *m);
/* A new connection: what arrives begins anew, what is known stays. */
void meter_restart(struct agent_meter *m);

/* A window that is no bulk leaves, and its answer comes: *rtt_ms is the time beside the other
 * end's own; false: it is not known when it left. */
void meter_sent(struct agent_meter *m, struct meter_stream *stream, uint64_t number, uint64_t bytes,
                const struct wire_pace *pace, double now_ms);
bool meter_answered(struct agent_meter *m, struct meter_stream *stream, uint64_t number,
                    uint64_t bytes, double own_ms, double now_ms, double *rtt_ms);

/* Time for a Beat along with the answers. */
bool meter_beat_due(const struct agent_meter *m, double now_ms);
void meter_beat_sent(struct agent_meter *m, struct meter_stream *stream, uint64_t stamp,
                     const struct wire_pace *pace, double now_ms);
void meter_echoed(struct agent_meter *m, struct meter_stream *stream, uint64_t stamp,
                  double now_ms);

/* After each message of a stream: what the pace has learned from it, and the stream's bulk so far
 * (wire_channel_bulk_in). */
void meter_received(struct agent_meter *m, struct meter_stream *stream,
                    const struct wire_pace *pace, uint64_t bulk_in, bool inside, double now_ms);

/* Results of a Probe call. */
void meter_probed_rtt(struct agent_meter *m, double rtt_ms, double now_ms);
void meter_probed_bulk(struct agent_meter *m, enum plan_direction direction, uint64_t bytes,
                       double ms, double now_ms);

/* Bytes to probe each direction with; zeros when there is nothing to find out, nobody asked
 * lately, or something was on its way within METER_IDLE_MS.  The caller knows whether more is about
 * to be. */
void meter_probe(struct agent_meter *m, double now_ms, uint64_t bytes[PLAN_DIRECTIONS]);

/* Any thread.  `asked`: the answer matters, an idle link may be probed for it. */
struct plan_link_estimate meter_estimate(struct agent_meter *m, bool asked, double now_ms);

#endif
