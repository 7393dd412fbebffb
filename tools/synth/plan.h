/* SPDX-License-Identifier: MIT */
/* plan.h - which tensors a shape has, in file order, and the type of each. */
#ifndef SYNTH_PLAN_H
#define SYNTH_PLAN_H

#include "error.h"
#include "shape.h"

#include "ggml.h"

#include <stddef.h>
#include <stdint.h>

/* What `--quant` names. */
struct synth_quant {
    const char    *name;
    enum ggml_type type;
    uint32_t       file_type; /* general.file_type, llama.cpp's enum llama_ftype */
    uint32_t       mixed;     /* llama.cpp's "medium" mix rather than one type */
};

enum synth_content {
    SYNTH_DRAWN,       /* bell-shaped around mean */
    SYNTH_ROPE_FACTOR, /* Llama 3's factors, computed and not drawn */
};

struct synth_tensor {
    char               name[GGML_MAX_NAME];
    enum ggml_type     type;
    int                n_dims;
    int64_t            ne[3]; /* ne[0] is the row; unused ones are 1 */
    enum synth_content content;
    float              mean; /* of matrices 0 */
    float              std;
    size_t             bytes; /* without padding */
};

struct synth_plan {
    struct synth_tensor *tensors; /* owned */
    size_t               count;
    size_t               capacity;
};

/* The quantisation of that name, or NULL. */
const struct synth_quant *synth_quant_find(const char *name);
void                      synth_quant_print(FILE *out);

/* List the tensors of a checked shape.  On failure *p is empty. */
int  synth_plan_init(struct synth_plan *p, const struct synth_shape *s, const struct synth_quant *q,
                     struct synth_error *err);
void synth_plan_fini(struct synth_plan *p);

#endif
