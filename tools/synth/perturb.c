/* SPDX-License-Identifier: MIT */
/* perturb.c - see perturb.h.
 *
 * The file is read whole: this is for drafts of models that a test can afford. */
#include "perturb.h"

#include "fill.h"

#include "gguf.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT_MAX = 4096 };

/* One row: to floats, with noise, and back. */
static void perturb_row(struct ggml_tensor *t, int64_t row, float *values, double noise,
                        uint64_t *state)
{
    const int64_t n = t->ne[0];
    uint8_t      *data = (uint8_t *)t->data + (size_t)row * ggml_row_size(t->type, n);
    double        sum = 0.0;
    float         deviation;

    if (t->type == GGML_TYPE_F32)
        memcpy(values, data, (size_t)n * sizeof(float));
    else
        ggml_get_type_traits(t->type)->to_float(data, values, n);
    for (int64_t i = 0; i < n; i++)
        sum += (double)values[i] * values[i];
    deviation = (float)(noise * sqrt(sum / (double)n));
    for (int64_t i = 0; i < n; i++)
        values[i] += deviation * synth_fill_bell(state);
    ggml_quantize_chunk(t->type, values, data, 0, 1, n, NULL);
}

static int perturb_tensor(struct ggml_tensor *t, double noise, uint64_t seed,
                          struct synth_error *err)
{
    const int64_t rows = ggml_nrows(t);
    uint64_t      state = synth_fill_stream(seed, t->name);
    float        *values;

    if (rows == 1)
        return 0;
    if (ggml_quantize_requires_imatrix(t->type) ||
        (t->type != GGML_TYPE_F32 && ggml_get_type_traits(t->type)->to_float == NULL))
        return synth_fail(err, "%s is in %s, which cannot be written anew", t->name,
                          ggml_type_name(t->type));
    values = malloc((size_t)t->ne[0] * sizeof(*values));
    if (!values)
        return synth_fail(err, "out of memory for a row of %s", t->name);
    for (int64_t row = 0; row < rows; row++)
        perturb_row(t, row, values, noise, &state);
    free(values);
    return 0;
}

/* The file as it was, with the numbers that `data` has now. */
static int write_file(const struct gguf_context *g, struct ggml_context *data, const char *path,
                      uint64_t *bytes, struct synth_error *err)
{
    static const uint8_t zeros[ALIGNMENT_MAX];
    const size_t         alignment = gguf_get_alignment(g);
    FILE                *file;
    int                  rc;

    if (alignment > ALIGNMENT_MAX)
        return synth_fail(err, "tensors are aligned to %zu bytes, at most %d", alignment,
                          ALIGNMENT_MAX);
    file = fopen(path, "wb");
    if (!file)
        return synth_fail(err, "cannot create %s: %s", path, strerror(errno));
    rc = synth_file_meta(g, file, err);
    *bytes = gguf_get_meta_size(g);
    for (int64_t i = 0; rc == 0 && i < gguf_get_n_tensors(g); i++) {
        const struct ggml_tensor *t = ggml_get_tensor(data, gguf_get_tensor_name(g, i));
        const size_t              size = ggml_nbytes(t), padding = GGML_PAD(size, alignment) - size;

        if (fwrite(t->data, 1, size, file) != size || fwrite(zeros, 1, padding, file) != padding)
            rc = synth_fail(err, "cannot write to %s: %s", path, strerror(errno));
        *bytes += size + padding;
    }
    if (fclose(file) != 0 && rc == 0)
        rc = synth_fail(err, "cannot write to %s: %s", path, strerror(errno));
    if (rc < 0)
        synth_file_discard(path);
    return rc;
}

int synth_perturb(const char *from, const char *out_path, double noise, uint64_t seed,
                  struct synth_result *result, struct synth_error *err)
{
    struct ggml_context    *data = NULL;
    struct gguf_init_params params = { .no_alloc = false, .ctx = &data };
    struct gguf_context    *g = gguf_init_from_file(from, params);
    int                     rc = 0;

    *result = (struct synth_result){ .files = 1 };
    if (!g)
        return synth_fail(err, "%s cannot be read as a GGUF file", from);
    for (int64_t i = 0; rc == 0 && i < gguf_get_n_tensors(g); i++) {
        struct ggml_tensor *t = ggml_get_tensor(data, gguf_get_tensor_name(g, i));

        rc = perturb_tensor(t, noise, seed, err);
        result->tensors++;
    }
    if (rc == 0)
        rc = write_file(g, data, out_path, &result->bytes, err);
    gguf_free(g);
    ggml_free(data);
    return rc;
}
