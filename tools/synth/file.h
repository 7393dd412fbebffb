/* SPDX-License-Identifier: MIT */
/* file.h - from a plan to one GGUF file or several. */
#ifndef SYNTH_FILE_H
#define SYNTH_FILE_H

#include "error.h"
#include "plan.h"
#include "shape.h"

#include "gguf.h"

#include <stdint.h>

struct synth_job {
    const struct synth_shape *shape; /* checked */
    const struct synth_quant *quant;
    const char               *vocab_path; /* NULL: make one up */
    const char               *out_path;
    uint64_t                  seed;
    uint64_t                  split_bytes_max; /* of tensor data per file; 0: one file */
};

struct synth_result {
    size_t   tensors;
    size_t   files;
    uint64_t bytes;
};

/* Write the file or files of a job.  On failure the incomplete file and the ones
 * before it are removed. */
int synth_file_write(const struct synth_job *job, struct synth_result *result,
                     struct synth_error *err);

/* The keys and the list of tensors, padded to where the data begins. */
int synth_file_meta(const struct gguf_context *g, FILE *file, struct synth_error *err);

/* Remove what was written, unless the path names a device or a pipe. */
void synth_file_discard(const char *path);

#endif
