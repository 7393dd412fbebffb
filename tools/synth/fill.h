/* SPDX-License-Identifier: MIT */
/* fill.h - the numbers of a tensor, drawn from the seed and the tensor's name.
 *
 * The same seed and name give the same values before rounding in every type,
 * except for large tensors, whose pieces depend on the type's block size. */
#ifndef SYNTH_FILL_H
#define SYNTH_FILL_H

#include "error.h"
#include "plan.h"

#include <stdint.h>
#include <stdio.h>

/* Pools of ready rows, one for each pair of type and deviation.  A model uses
 * two dozen pairs at most (q4_k_m deepseek2: four types, a few fan-ins each). */
enum { SYNTH_POOLS_MAX = 48 };

struct synth_pool {
    enum ggml_type type;
    float          std;
    size_t         bytes;
    uint8_t       *data; /* owned */
};

struct synth_fill {
    uint64_t                  seed;
    const struct synth_shape *shape; /* borrowed */
    struct synth_pool         pools[SYNTH_POOLS_MAX];
    size_t                    pool_count;
    float                    *floats; /* owned; one batch before it is quantised */
    uint8_t                  *chunk;  /* owned; one write */
};

int  synth_fill_init(struct synth_fill *f, const struct synth_shape *s, uint64_t seed,
                     struct synth_error *err);
void synth_fill_fini(struct synth_fill *f);

/* The state of random numbers for a tensor; a number drawn from it, bell-shaped with
 * deviation 1. */
uint64_t synth_fill_stream(uint64_t seed, const char *name);
float    synth_fill_bell(uint64_t *state);

/* Write the t->bytes bytes of a tensor, without padding. */
int synth_fill_write(struct synth_fill *f, const struct synth_tensor *t, FILE *file,
                     struct synth_error *err);

#endif
