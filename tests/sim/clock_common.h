/* sim/clock_common.h - the simulation's time: a queue of events, and nothing happens between two.
 *
 * One thread, one world at a time; the same seed gives the same events in the same order.
 *
 * SPDX-License-Identifier: MIT */
#ifndef SIM_CLOCK_COMMON_H
#define SIM_CLOCK_COMMON_H

#include "base/unit_test.h"

enum {
    SIM_EVENTS_MAX = 1 << 16, /* pending at once: more means that something grows without bound */
};

struct sim_event {
    double   at_ms;
    uint64_t order; /* of posting: ties go first come, first served */
    void (*fire)(struct sim_event *e);
    void    *ctx;
    uint64_t number; /* the poster's: a generation, a kind */
    uint8_t *bytes;  /* owned by the event; NULL or to be freed by fire */
    size_t   count;
};

struct sim_clock {
    double            now_ms;
    uint64_t          seed, random; /* of the world: every choice comes from here */
    uint64_t          order, fired;
    struct sim_event *heap;
    uint32_t          count, cap, count_max;
};

void sim_clock_init(struct sim_clock *c, uint64_t seed);
void sim_clock_fini(struct sim_clock *c);

/* `bytes` are the event's from now on. */
void sim_post(struct sim_clock *c, double at_ms, struct sim_event event);

/* Fire the next event; false when there is none. */
bool sim_clock_step(struct sim_clock *c);

uint32_t sim_below(struct sim_clock *c, uint32_t limit);
bool     sim_chance(struct sim_clock *c, uint32_t percent);
double   sim_between(struct sim_clock *c, double low, double high);

/* A failed check names the command that shows it again. */
#define SIM_REQUIRE(clock, condition, ...)                                           \
    do {                                                                             \
        if (!(condition)) {                                                          \
            print_error("at %.3f ms: ", (clock)->now_ms);                            \
            print_error(__VA_ARGS__);                                                \
            fail_msg("%s\n  replay: MCP_SEED=%" PRIu64 " ./dev test %s", #condition, \
                     (clock)->seed, sim_program);                                    \
        }                                                                            \
    } while (0)

extern const char *sim_program; /* "sim_failover"; set by each main file */

#endif
