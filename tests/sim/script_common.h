/* sim/script_common.h - what a user does with a session, and what must come of it.
 *
 * Turns of a chat: a prompt in chunks, an answer token by token or in windows with drafts, some
 * under way ahead of their turn; then a pause, and the next turn begins at a common prefix.  What
 * is done depends only on what came out before, never on time, so the same script played
 * straight through the model gives the outputs that a disturbed run must have: they are noted
 * when the script is made and compared, output by output, when it is played.
 *
 * SPDX-License-Identifier: MIT */
#ifndef SIM_SCRIPT_COMMON_H
#define SIM_SCRIPT_COMMON_H

#include "pipe/pipeline.h"
#include "sim/clock_common.h"
#include "sim/engine_common.h"

enum { SIM_TURNS_MAX = 4, SIM_DEPTH_MAX = 4, SIM_IN_FLIGHT_MAX = 32 };

struct sim_turn {
    uint32_t keep;   /* percent of what is there: the common prefix */
    uint32_t prompt; /* tokens */
    uint32_t chunk;  /* of the prefill */
    uint32_t answer;
    uint32_t drafts; /* guesses behind the token in a window */
    uint32_t depth;  /* windows under way; more than 1 are begun on guesses */
    double   pause_ms;
};

enum sim_phase {
    SIM_PROMPT, /* until the prompt's last row is out */
    SIM_ANSWER, /* until `answer` tokens are decided */
    SIM_PAUSE,  /* what comes out now is looked at by nobody */
    SIM_OVER,   /* all turns are done */
};

/* What carries it out: a pipeline, or the model itself. */
struct sim_player {
    bool (*submit)(void *ctx, const int32_t *tokens, uint32_t count, enum pipe_want want,
                   uint64_t *number); /* false: come again after an output */
    void (*trim)(void *ctx, uint32_t pos);
    void *ctx;
};

struct sim_script {
    uint64_t        seed;
    uint32_t        turn_count;
    struct sim_turn turns[SIM_TURNS_MAX];
    uint64_t       *expected; /* (expected_count): a hash of all rows so far, output by output */
    uint32_t        expected_count, expected_cap;

    /* where it stands */
    enum sim_phase phase;
    uint32_t       turn;
    int32_t        text[SIM_CTX]; /* [0, decided) are so, up to `submitted` are guesses */
    uint32_t       decided, submitted, prompt_end, answer_end;
    uint64_t       rows_hash;
    uint32_t       outputs;
    struct {
        uint64_t number;
        uint32_t pos, count;
    } in_flight[SIM_IN_FLIGHT_MAX];
    uint32_t in_flight_count;
    uint64_t stale_until; /* windows up to this number are of a turn that is over */
};

void sim_script_make(struct sim_script *s, struct sim_clock *clock, const struct sim_model *m);
/* As made, but turns and all are the caller's. */
void sim_script_expect(struct sim_script *s, const struct sim_model *m);
void sim_script_fini(struct sim_script *s);

void sim_script_begin(struct sim_script *s); /* from the first turn, nothing played */
void sim_script_next_turn(struct sim_script *s, const struct sim_player *player);
void sim_script_play(struct sim_script       *s,
                     const struct sim_player *player); /* submit what can be */

/* Window `number` has come out with its rows.  Returns false when they are not what they must
 * be. */
bool sim_script_output(struct sim_script *s, const struct sim_player *player,
                       const struct sim_model *m, uint64_t number, const uint8_t *rows,
                       uint32_t row_count);

#endif
