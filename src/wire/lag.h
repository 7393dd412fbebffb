/* wire/lag.h - how long acknowledgements wait on their way back.
 *
 * What a peer acknowledges has reached it earlier than the acknowledgement reaches us: by the way
 * back, and by what lies before it there, which is the bulk that the peer sends us.  The peer's
 * stamp tells the difference: the clocks are any two, but the smallest lag of a clock behind the
 * other is the way back without a queue, and what an acknowledgement has beyond it is its wait.
 * Clocks drift, so the smallest is that of the last 10 to 20 s (100 ppm: 2 ms).
 *
 * A peer without stamps has no waits.  One that lies about them gets numbers that are finite, and
 * a wait that is not negative; whoever uses them bounds them.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_LAG_H
#define WIRE_LAG_H

#include "wire/window.h"

#include <stdbool.h>
#include <stdint.h>

/* Times `at_ms` are of the peer's clock, moved so that its first stamp came without a lag. */
struct wire_lag {
    struct wire_low low;
    double          offset_ms; /* of `at_ms` from the stamps */
    bool            stamped;   /* it is known */
};

void wire_lag_init(struct wire_lag *l);
/* An acknowledgement has come, with this stamp (microseconds; 0: none): when its bytes came. */
double wire_lag_at_ms(struct wire_lag *l, double now_ms, uint64_t stamp_us);
/* To our own clock: when it would have come without a wait. */
double wire_lag_own_ms(const struct wire_lag *l, double at_ms);
/* And back, for a time before which nothing was on its way. */
double wire_lag_peer_ms(const struct wire_lag *l, double own_ms);

#endif
