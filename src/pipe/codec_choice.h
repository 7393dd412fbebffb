/* pipe/codec_choice.h - in which codec a window's hidden states travel.
 *
 * Of the codecs whose change of perplexity is within the bound, the one that costs a window the
 * least time:
 *
 *     time = rows x (bytes / up + bytes / down + encoding and decoding at both ends)
 *
 * Where the link is fast, a better one is taken in its place: in a decode window if that costs at
 * most CODEC_SLACK of a round trip; in a prefill window, where the link may set the pace, if it
 * costs nothing.  Fast is CODEC_FAST_MBIT both ways, so that on slow links, where bytes are what
 * is scarce, nothing but time counts.
 *
 * Decode and prefill windows are chosen for separately.  A choice stays until another would have
 * been made for CODEC_DWELL_MS without interruption, and whatever is in use is judged by wider
 * limits than what would replace it: one change of the link is one change of codec.  While the
 * link is not known the first option is taken; its first choice is made without waiting.
 *
 * Every option is within the bound by itself, so any mix of them is.  Pure; one thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PIPE_CODEC_CHOICE_H
#define PIPE_CODEC_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    CODEC_OPTIONS_MAX = 8,
    CODEC_DWELL_MS = 500,
    CODEC_FAST_MBIT = 500,      /* to begin to count as fast; */
    CODEC_FAST_MBIT_LEAST = 300 /* below, it no longer does */
};

#define CODEC_SLACK 0.01

struct codec_option {
    uint32_t id; /* enum wire_codec_id */
    double   row_bytes;
    double   row_us;      /* encoding and decoding, both ways */
    double   quality_pct; /* change of perplexity, with what is in doubt about it */
};

struct codec_path {
    double rtt_ms, up_mbit, down_mbit; /* 0 = not known */
};

struct codec_choice {
    struct codec_option options[CODEC_OPTIONS_MAX];
    uint32_t            count;
    struct {
        uint32_t now;     /* index */
        bool     known;   /* chosen, not assumed */
        uint32_t next;    /* what would be chosen, */
        double   next_ms; /* since when; it is `now` when nothing else would */
    } kinds[2];           /* decode, prefill */
};

/* Options beyond the bound are left out, but for the first, which is taken when nothing is known. */
void codec_choice_init(struct codec_choice *c, const struct codec_option *options, uint32_t count,
                       double bound_pct);

/* The codec's id for a window of so many rows that is sent now. */
uint32_t codec_choose(struct codec_choice *c, const struct codec_path *path, uint32_t rows,
                      bool prefill, double now_ms);

#endif
