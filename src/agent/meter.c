/* agent/meter.c - see meter.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/meter.h"

#include <math.h>
#include <string.h>

enum {
    PIECE_BYTES = 2 * WIRE_PART_BYTES, /* a part's gap alone is noise */
};

/* Parts in one read of the socket came when they could be read, not when they arrived. */
#define PIECE_MS_LEAST 1.0
#define FULL_MS_LEAST  20.0 /* shorter, and the peer's pace may have been the limit */
#define PAUSE_GAPS     2.0  /* of the run so far; */
#define PAUSE_SLACK_MS 2.0  /* longer, and the sender had nothing to send */
#define PROBE_MS_LEAST 5.0  /* shorter, and it says at least that much */

void meter_init(struct agent_meter *m)
{
    memset(m, 0, sizeof(*m));
    pthread_mutex_init(&m->lock, NULL);
    plan_link_init(&m->path);
    m->asked_ms = m->beat_ms = m->busy_ms = m->bulk_ms = m->window_ms = -INFINITY;
    meter_restart(m);
}

void meter_fini(struct agent_meter *m)
{
    pthread_mutex_destroy(&m->lock);
}

void meter_restart(struct agent_meter *m)
{
    m->run = (struct meter_run){ .last_ms = -INFINITY };
    m->sample = 0;
}

static void note_rtt(struct agent_meter *m, double ms, double now_ms)
{
    pthread_mutex_lock(&m->lock);
    plan_link_rtt(&m->path, ms, now_ms);
    pthread_mutex_unlock(&m->lock);
}

static void note_bulk(struct agent_meter *m, enum plan_direction direction, uint64_t bytes,
                      double ms, bool full, double now_ms)
{
    pthread_mutex_lock(&m->lock);
    plan_link_bulk(&m->path, direction, bytes, ms, full, now_ms);
    pthread_mutex_unlock(&m->lock);
}

/* ---- windows and Beats ------------------------------------------------------------------------ */

void meter_sent(struct agent_meter *m, struct meter_stream *stream, uint64_t number, uint64_t bytes,
                const struct wire_pace *pace, double now_ms)
{
    bool burst = now_ms - m->window_ms < METER_BURST_MS;

    m->burst_bytes = bytes + (burst ? m->burst_bytes : 0);
    m->window_ms = m->busy_ms = now_ms;
    stream->windows[number % PIPE_WINDOWS_MAX] =
        (struct meter_window){ .number = number,
                               .bytes = m->burst_bytes,
                               .sent_ms = now_ms,
                               .clean = wire_pace_unacked(pace) == 0 };
}

bool meter_answered(struct agent_meter *m, struct meter_stream *stream, uint64_t number,
                    uint64_t bytes, double own_ms, double now_ms, double *rtt_ms)
{
    struct meter_window *window = &stream->windows[number % PIPE_WINDOWS_MAX];
    double               ms = now_ms - window->sent_ms - own_ms;

    if (window->number != number || window->sent_ms <= 0.0 || ms <= 0.0)
        return false;
    if (window->clean && m->bulk_ms < window->sent_ms) {
        pthread_mutex_lock(&m->lock);
        plan_link_pass(&m->path, ms, window->bytes, bytes, now_ms);
        pthread_mutex_unlock(&m->lock);
    }
    window->sent_ms = 0.0;
    *rtt_ms = ms;
    return true;
}

/* Not right behind a window, whose bytes it would wait for. */
bool meter_beat_due(const struct agent_meter *m, double now_ms)
{
    return now_ms - m->beat_ms >= METER_BEAT_MS && now_ms - m->window_ms >= METER_BURST_MS;
}

void meter_beat_sent(struct agent_meter *m, struct meter_stream *stream, uint64_t stamp,
                     const struct wire_pace *pace, double now_ms)
{
    m->beat_ms = now_ms;
    stream->beat = (struct meter_window){ .number = stamp,
                                          .sent_ms = now_ms,
                                          .clean = wire_pace_unacked(pace) == 0 &&
                                                   now_ms - m->window_ms >= METER_BURST_MS };
}

void meter_echoed(struct agent_meter *m, struct meter_stream *stream, uint64_t stamp, double now_ms)
{
    const struct meter_window *beat = &stream->beat;

    if (beat->number == stamp && beat->clean && m->bulk_ms < beat->sent_ms)
        note_rtt(m, now_ms - beat->sent_ms, now_ms);
    stream->beat.clean = false;
}

/* ---- bulk --------------------------------------------------------------------------------------- */

/* The peer's pace has had two round trips to find out what the path carries. */
static bool run_is_full(struct agent_meter *m, double now_ms)
{
    double rtt_ms = plan_link_estimate(&m->path, now_ms).rtt_ms;

    return now_ms - m->run.began_ms >= fmax(FULL_MS_LEAST, 2.0 * rtt_ms);
}

/* What may have been limited by the sender says "at least"; the lesser of two, as a thread that
 * slept through the first parts of one would find it fast. */
static void piece_ends(struct agent_meter *m, double now_ms)
{
    struct meter_run *run = &m->run;
    double            ms = now_ms - run->piece_ms;
    double            mbit = (double)run->piece_bytes * 8e-3 / ms;

    if (run_is_full(m, now_ms)) {
        note_bulk(m, PLAN_DOWN, run->piece_bytes, ms, true, now_ms);
    } else {
        if (run->last_mbit > 0.0)
            note_bulk(m, PLAN_DOWN, run->piece_bytes, ms * fmax(1.0, mbit / run->last_mbit), false,
                      now_ms);
        run->last_mbit = mbit;
    }
    run->piece_ms = now_ms;
    run->piece_bytes = 0;
}

/* The first part of a run says when it began and no more: when it left is not known. */
static void arrived(struct agent_meter *m, uint64_t bytes, bool inside, double now_ms)
{
    struct meter_run *run = &m->run;
    double            gap_ms = run->parts > 0 ? (run->last_ms - run->began_ms) / run->parts : 0.0;
    bool pause = !run->inside && now_ms - run->last_ms > PAUSE_GAPS * gap_ms + PAUSE_SLACK_MS;

    if (pause) {
        run->parts = 0;
        run->piece_bytes = 0;
        run->began_ms = run->piece_ms = now_ms;
    } else {
        run->parts++;
        run->piece_bytes += bytes;
    }
    run->inside = inside;
    run->last_ms = m->bulk_ms = now_ms;
    if (run->piece_bytes >= PIECE_BYTES && now_ms - run->piece_ms >= PIECE_MS_LEAST)
        piece_ends(m, now_ms);
}

void meter_received(struct agent_meter *m, struct meter_stream *stream,
                    const struct wire_pace *pace, uint64_t bulk_in, bool inside, double now_ms)
{
    m->busy_ms = now_ms;
    if (pace->sample.number != m->sample) {
        m->sample = pace->sample.number;
        note_bulk(m, PLAN_UP, pace->sample.bytes, pace->sample.ms, pace->sample.full, now_ms);
    }
    if (bulk_in != stream->bulk_in)
        arrived(m, bulk_in - stream->bulk_in, inside, now_ms);
    stream->bulk_in = bulk_in;
}

/* ---- probes --------------------------------------------------------------------------------------- */

void meter_probed_rtt(struct agent_meter *m, double rtt_ms, double now_ms)
{
    note_rtt(m, rtt_ms, now_ms);
}

void meter_probed_bulk(struct agent_meter *m, enum plan_direction direction, uint64_t bytes,
                       double ms, double now_ms)
{
    note_bulk(m, direction, bytes, ms, ms >= PROBE_MS_LEAST, now_ms);
}

void meter_probe(struct agent_meter *m, double now_ms, uint64_t bytes[PLAN_DIRECTIONS])
{
    struct plan_link_estimate e;

    bytes[PLAN_UP] = bytes[PLAN_DOWN] = 0;
    if (now_ms - m->busy_ms < METER_IDLE_MS)
        return;
    pthread_mutex_lock(&m->lock);
    e = plan_link_estimate(&m->path, now_ms);
    for (int d = 0; d < PLAN_DIRECTIONS && now_ms - m->asked_ms < METER_ASKED_MS; d++) {
        double known = e.mbit[d] * 125.0 * METER_PROBE_MS;

        if (plan_link_probe_wanted(&m->path, (enum plan_direction)d, now_ms))
            bytes[d] = (uint64_t)fmin(known > 0.0 ? fmax(known, WIRE_PART_BYTES)
                                                  : METER_PROBE_BYTES,
                                      METER_PROBE_BYTES_MAX);
    }
    m->asked_ms = bytes[PLAN_UP] + bytes[PLAN_DOWN] > 0 ? -INFINITY : m->asked_ms;
    pthread_mutex_unlock(&m->lock);
}

struct plan_link_estimate meter_estimate(struct agent_meter *m, bool asked, double now_ms)
{
    struct plan_link path;

    pthread_mutex_lock(&m->lock);
    if (asked)
        m->asked_ms = now_ms;
    path = m->path;
    pthread_mutex_unlock(&m->lock);
    return plan_link_estimate(&path, now_ms);
}
