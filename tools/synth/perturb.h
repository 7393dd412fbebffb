/* SPDX-License-Identifier: MIT */
/* perturb.h - a model that is nearly another one. */
#ifndef SYNTH_PERTURB_H
#define SYNTH_PERTURB_H

#include "error.h"
#include "file.h"

/* Copy the GGUF file `from` with noise in its matrices: to each number a bell-shaped one is added
 * whose deviation is `noise` times the root mean square of its row.  Norms and biases stay.  The
 * same seed gives the same file.  The file's types are kept, so that noise below their own
 * rounding disappears. */
int synth_perturb(const char *from, const char *out_path, double noise, uint64_t seed,
                  struct synth_result *result, struct synth_error *err);

#endif
