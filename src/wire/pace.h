/* wire/pace.h - how many bulk bytes may be on their way on one connection, one direction.
 *
 * A decode frame that follows a full link waits for all that lies in its queue.  So bulk
 * (prefill) is not handed to the socket as fast as it takes it, but in parts of at most
 * WIRE_PART_BYTES, of which about 1.2 bandwidth-delay products are unacknowledged at a time:
 * enough for the full rate, and a queue of about a quarter of an RTT.  The estimate is that of
 * BBR (Cardwell et al. 2016) in small: the largest delivery rate of the last rounds times the
 * round trip without a queue; until the rate has stopped growing the credit doubles every round.
 *
 * Where bulk goes both ways, acknowledgements wait behind it.  Their stamps tell for how long
 * (wire/lag.h), so that the other direction's queue is not taken for this link's product; and
 * parts leave no closer together than the rate allows, or the acknowledgements that came together
 * would send a burst, behind which the peer's would come together, and so on.  That takes a timer,
 * so it is for owners who have one (`clocked`).
 *
 * Sans-IO: the caller gives the time.  One thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_PACE_H
#define WIRE_PACE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    WIRE_PART_BYTES = 32 * 1024,             /* of a payload in one message */
    WIRE_CREDIT_FIRST = 8 * WIRE_PART_BYTES, /* 256 KiB: one BDP at 20 ms, 100 Mbit/s */
    WIRE_CREDIT_MIN = 2 * WIRE_PART_BYTES,   /* below, an acknowledgement finds nothing to send */
    WIRE_CREDIT_MAX = 64 * 1024 * 1024,      /* 5 Gbit/s at 100 ms */
    WIRE_PACE_SENT_MAX = 4096,               /* parts in flight remembered; more share a record */
};

/* What an acknowledged part has shown: so many bytes came to the peer in that time. */
struct wire_pace_sample {
    uint64_t number; /* 1, 2, ...; 0: none yet */
    uint64_t bytes;
    double   ms;
    bool full; /* no more could have come: the credit was used up, and was meant to fill the link */
};

struct wire_pace {
    uint64_t                sent_bytes, acked_bytes; /* since the beginning, all streams */
    uint64_t                credit_bytes;            /* most unacknowledged */
    double                  rate_bytes_per_ms;       /* windowed maximum */
    double                  rtt_min_ms; /* smallest of the last 10 to 20 s; 0 = not known yet */
    bool                    clocked;    /* set by who asks wire_pace_due_ms(): parts are spaced */
    struct wire_pace_sample sample;     /* the last one */
    /* The rest is src/wire/pace.c's: samples in flight, windows, start-up state. */
    struct wire_pace_state *state; /* owned */
};

/* 0, or MCP_ENOMEM. */
int  wire_pace_init(struct wire_pace *p);
void wire_pace_fini(struct wire_pace *p);

/* May a part of this size leave now?  Always true when nothing is unacknowledged. */
bool wire_pace_may_send(struct wire_pace *p, double now_ms, uint64_t bytes);
/* When it may, if no acknowledgement comes; INFINITY: then it may not. */
double wire_pace_due_ms(const struct wire_pace *p, uint64_t bytes);
void   wire_pace_sent(struct wire_pace *p, double now_ms, uint64_t bytes);
/* So many further bytes were acknowledged; they came at `stamp_us` by the peer's clock, of any
 * epoch (0: it did not say).  More than was sent is ignored, as a peer's lie.  A false stamp gives
 * a false credit, between a part and WIRE_CREDIT_MAX. */
void wire_pace_acked(struct wire_pace *p, double now_ms, uint64_t bytes, uint64_t stamp_us);
/* Bytes of a stream that ended unacknowledged: they count no longer. */
void wire_pace_forget(struct wire_pace *p, uint64_t bytes);
/* A round trip measured elsewhere (a Beat, a Probe). */
void wire_pace_rtt(struct wire_pace *p, double now_ms, double rtt_ms);

/* Bytes on their way. */
uint64_t wire_pace_unacked(const struct wire_pace *p);

/* The estimates, for stats and the planner; 0 = unknown. */
double wire_pace_goodput_mbit(const struct wire_pace *p);

#endif
