/* wire/conn_bounds.c - floods: how many frames and resets a peer may send.
 *
 * nghttp2 bounds some floods, by version and by distribution; it does not even tell us of
 * frames that it ignores.  So the heads of all frames are counted here, before it sees them.
 * The limits are far above what honest peers send and far below what hurts: a frame costs
 * about 0.1 us to handle.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/conn_impl.h"

enum {
    /* PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, frames of unknown type: nine bytes
     * each, so that a gigabit carries 14 million a second, more than a core.  100,000 a second
     * are 1 % of a core. */
    FRAMES_BURST = 100000,
    FRAMES_PER_MS = 100,
    /* DATA and HEADERS with something in them pay for themselves: small messages are no flood. */
    FRAME_EARNS_BYTES = 32,

    /* Rapid reset (CVE-2023-44487): a call opened and reset costs its sender 50 bytes and us a
     * handler.  Streams that we reset for the peer's mistakes count too (CVE-2025-8671).  An
     * edge resets for all its clients at once, hence the burst. */
    RESETS_BURST = 1000,
    RESETS_PER_S = 200,

    /* Frames that continue one header block (CVE-2024-27316). */
    CONTINUATIONS_MAX = 8,

    PREFACE_BYTES = 24,
};

static bool take(struct wire_bucket *b, double now_ms, double cost)
{
    if (now_ms > b->last_ms) {
        b->tokens += (now_ms - b->last_ms) * b->per_ms;
        b->last_ms = now_ms;
    }
    b->tokens -= cost;
    if (b->tokens > b->burst)
        b->tokens = b->burst;
    return b->tokens >= 0;
}

void wire_bounds_init(struct wire_bounds *b, bool server, double now_ms)
{
    *b = (struct wire_bounds){
        .frames = { FRAMES_BURST, FRAMES_BURST, FRAMES_PER_MS, now_ms },
        .resets = { RESETS_BURST, RESETS_BURST, RESETS_PER_S / 1e3, now_ms },
        .walk = { .skip = server ? PREFACE_BYTES : 0 },
    };
}

bool wire_bounds_reset(struct wire_bounds *b, double now_ms, double cost)
{
    return take(&b->resets, now_ms, cost);
}

/* A head is complete; NULL or what is wrong. */
static const char *head_seen(struct wire_bounds *b, double now_ms, double *cost)
{
    struct wire_frame_walk *w = &b->walk;
    uint32_t length = (uint32_t)w->head[0] << 16 | (uint32_t)w->head[1] << 8 | w->head[2];
    uint8_t  type = w->head[3];

    w->have = 0;
    w->skip = length;
    *cost += 1;
    if (type == NGHTTP2_DATA || type == NGHTTP2_HEADERS)
        *cost -= (double)length / FRAME_EARNS_BYTES;
    w->continuations = type == NGHTTP2_CONTINUATION ? w->continuations + 1 : 0;
    if (w->continuations > CONTINUATIONS_MAX)
        return "a header block is continued in more than 8 frames";
    if (type == NGHTTP2_HEADERS || type == NGHTTP2_CONTINUATION) {
        if (!w->block_open)
            w->block_began_ms = now_ms;
        w->block_open = (w->head[4] & NGHTTP2_FLAG_END_HEADERS) == 0;
    }
    return NULL;
}

const char *wire_bounds_feed(struct wire_bounds *b, double now_ms, const uint8_t *bytes,
                             size_t count)
{
    struct wire_frame_walk *w = &b->walk;
    const char             *wrong = NULL;
    double                  cost = 0;

    while (count > 0 && wrong == NULL) {
        size_t step = w->skip > 0 ? w->skip : 1;

        step = step > count ? count : step;
        if (w->skip > 0) {
            w->skip -= (uint32_t)step;
        } else {
            w->head[w->have++] = *bytes;
            if (w->have == FRAME_HEAD)
                wrong = head_seen(b, now_ms, &cost);
        }
        bytes += step;
        count -= step;
    }
    if (wrong == NULL && !take(&b->frames, now_ms, cost))
        wrong = "more than 100000 frames a second carry nothing";
    return wrong;
}
