/* wire/lag.c - see lag.h.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/lag.h"

void wire_lag_init(struct wire_lag *l)
{
    *l = (struct wire_lag){ 0 };
    wire_low_init(&l->low);
}

/* No stamp yet: the clocks are one. */
static double least_ms(const struct wire_lag *l)
{
    return l->stamped ? wire_low_value(&l->low) : 0;
}

double wire_lag_at_ms(struct wire_lag *l, double now_ms, uint64_t stamp_us)
{
    double at_ms;

    if (stamp_us == 0)
        return wire_lag_peer_ms(l, now_ms);
    if (!l->stamped)
        l->offset_ms = now_ms - (double)stamp_us * 1e-3;
    l->stamped = true;
    at_ms = (double)stamp_us * 1e-3 + l->offset_ms;
    wire_low_note(&l->low, now_ms, now_ms - at_ms);
    return at_ms;
}

double wire_lag_own_ms(const struct wire_lag *l, double at_ms)
{
    return at_ms + least_ms(l);
}

double wire_lag_peer_ms(const struct wire_lag *l, double own_ms)
{
    return own_ms - least_ms(l);
}
