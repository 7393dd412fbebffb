/* SPDX-License-Identifier: MIT */
/* fill.c - small tensors number by number, large ones from pools.
 *
 * Quantising seven billion numbers takes minutes and nobody looks at them.  So a
 * pool of two million is quantised once per type and deviation, and a large
 * tensor is a mosaic of its pieces.  A piece is at most half a row and lengths
 * vary, because two equal rows of the output matrix would tie in every greedy
 * choice.  Rows of a few blocks are therefore drawn number by number always. */
#include "fill.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    DIRECT_ELEMENTS_MAX = 1 << 18, /* larger tensors come from a pool; also one batch */
    POOL_ROW = 2048,               /* a multiple of every block size */
    POOL_ROWS = 1024,              /* 2 Mi numbers: 8 MiB in F32, 1.1 MiB in Q4_0 */
    CHUNK_BYTES = 8 << 20,         /* one write */
    POOLED_BLOCKS_MIN = 4,         /* in a row: two pieces of two blocks at least */
    PIECE_BYTES_MIN = 384,         /* above the largest block, 210 bytes of Q6_K */
    PIECE_BYTES_SPAN = 1024,
};
_Static_assert(DIRECT_ELEMENTS_MAX * 4 <= CHUNK_BYTES, "a direct batch fits a chunk in any type");
_Static_assert(POOL_ROW *POOL_ROWS >= DIRECT_ELEMENTS_MAX, "the same floats serve both");

/* SplitMix64: any 64-bit state is a good one, so a hash can be the seed. */
static uint64_t next_u64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Bell-shaped with deviation 1: the sum of four uniform 16-bit numbers, which has
 * deviation 65536/sqrt(3).  Ends at 3.46, which spares tests rare outliers. */
float synth_fill_bell(uint64_t *state)
{
    uint64_t r = next_u64(state);
    int      sum = (int)(r & 0xffff) + (int)(r >> 16 & 0xffff) + (int)(r >> 32 & 0xffff) +
              (int)(r >> 48);

    return (float)(sum - 131070) * (1.7320508f / 65536.0f);
}

uint64_t synth_fill_stream(uint64_t seed, const char *name)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * 0x100000001b3u;
    return h ^ next_u64(&seed);
}

int synth_fill_init(struct synth_fill *f, const struct synth_shape *s, uint64_t seed,
                    struct synth_error *err)
{
    *f = (struct synth_fill){ .seed = seed, .shape = s };
    f->floats = malloc(sizeof(float) * POOL_ROW * POOL_ROWS);
    f->chunk = malloc(CHUNK_BYTES);
    if (!f->floats || !f->chunk) {
        synth_fill_fini(f);
        return synth_fail(err, "out of memory for the fill buffers");
    }
    return 0;
}

void synth_fill_fini(struct synth_fill *f)
{
    for (size_t i = 0; i < f->pool_count; i++)
        free(f->pools[i].data);
    free(f->floats);
    free(f->chunk);
    *f = (struct synth_fill){ 0 };
}

static int write_bytes(const void *data, size_t bytes, FILE *file, struct synth_error *err)
{
    if (fwrite(data, 1, bytes, file) != bytes)
        return synth_fail(err, "cannot write tensor data: %s", strerror(errno));
    return 0;
}

/* The scaling of Llama 3.1: low frequencies are divided by the factor, high ones
 * are left, and those in between are blended. */
static void rope_factors(const struct synth_shape *s, float *out, int64_t n)
{
    const double low_freq_factor = 1, high_freq_factor = 4, two_pi = 6.283185307179586;
    const double longest = s->rope_orig_ctx / low_freq_factor;
    const double shortest = s->rope_orig_ctx / high_freq_factor;

    for (int64_t i = 0; i < n; i++) {
        double wave = two_pi * pow((double)s->rope_base, 2.0 * (double)i / s->head_dim);
        double blend = (s->rope_orig_ctx / wave - low_freq_factor) /
                       (high_freq_factor - low_freq_factor);

        if (wave < shortest)
            out[i] = 1;
        else if (wave > longest)
            out[i] = s->rope_factor;
        else
            out[i] = (float)(1 / ((1 - blend) / (double)s->rope_factor + blend));
    }
}

static int write_direct(struct synth_fill *f, const struct synth_tensor *t, FILE *file,
                        struct synth_error *err)
{
    const int64_t rows = t->ne[1] * t->ne[2], row = t->ne[0];
    const int64_t batch_max = DIRECT_ELEMENTS_MAX / row;
    uint64_t      state = synth_fill_stream(f->seed, t->name);

    for (int64_t done = 0; done < rows;) {
        const int64_t batch = rows - done < batch_max ? rows - done : batch_max;

        for (int64_t i = 0; i < batch * row; i++)
            f->floats[i] = t->mean + t->std * synth_fill_bell(&state);
        ggml_quantize_chunk(t->type, f->floats, f->chunk, 0, batch, row, NULL);
        if (write_bytes(f->chunk, ggml_row_size(t->type, row) * (size_t)batch, file, err) < 0)
            return -1;
        done += batch;
    }
    return 0;
}

static const struct synth_pool *pool_of(struct synth_fill *f, enum ggml_type type, float std,
                                        struct synth_error *err)
{
    struct synth_pool *p;
    uint64_t           state;
    char               name[64];

    for (size_t i = 0; i < f->pool_count; i++)
        if (f->pools[i].type == type && f->pools[i].std == std)
            return &f->pools[i];
    if (f->pool_count == SYNTH_POOLS_MAX) {
        synth_fail(err, "the shape needs more than %d pools of rows", SYNTH_POOLS_MAX);
        return NULL;
    }
    p = &f->pools[f->pool_count];
    p->type = type;
    p->std = std;
    p->bytes = ggml_row_size(type, POOL_ROW) * POOL_ROWS;
    p->data = malloc(p->bytes);
    if (!p->data) {
        synth_fail(err, "out of memory for a pool of rows");
        return NULL;
    }
    f->pool_count++;
    snprintf(name, sizeof name, "pool %s %a", ggml_type_name(type), (double)std);
    state = synth_fill_stream(f->seed, name);
    for (size_t i = 0; i < (size_t)POOL_ROW * POOL_ROWS; i++)
        f->floats[i] = std * synth_fill_bell(&state);
    ggml_quantize_chunk(type, f->floats, p->data, 0, POOL_ROWS, POOL_ROW, NULL);
    return p;
}

static int write_pooled(struct synth_fill *f, const struct synth_tensor *t, FILE *file,
                        struct synth_error *err)
{
    const struct synth_pool *pool = pool_of(f, t->type, t->std, err);
    const size_t             block = ggml_type_size(t->type);
    const size_t             half_row = ggml_row_size(t->type, t->ne[0]) / 2;
    uint64_t                 state = synth_fill_stream(f->seed, t->name);
    size_t                   left = t->bytes;

    if (!pool)
        return -1;
    while (left) {
        const size_t chunk_max = CHUNK_BYTES / block * block;
        const size_t chunk = left < chunk_max ? left : chunk_max;

        for (size_t at = 0; at < chunk;) {
            uint64_t r = next_u64(&state);
            size_t   bytes = PIECE_BYTES_MIN + (size_t)(r >> 48) % PIECE_BYTES_SPAN;
            size_t   from;

            if (bytes > half_row)
                bytes = half_row;
            bytes = bytes / block * block;
            if (bytes > chunk - at)
                bytes = chunk - at;
            from = (size_t)(r & 0xffffffff) % ((pool->bytes - bytes) / block) * block;
            memcpy(f->chunk + at, pool->data + from, bytes);
            at += bytes;
        }
        if (write_bytes(f->chunk, chunk, file, err) < 0)
            return -1;
        left -= chunk;
    }
    return 0;
}

int synth_fill_write(struct synth_fill *f, const struct synth_tensor *t, FILE *file,
                     struct synth_error *err)
{
    if (t->content == SYNTH_ROPE_FACTOR) {
        rope_factors(f->shape, f->floats, t->ne[0]);
        return write_bytes(f->floats, t->bytes, file, err);
    }
    if (t->ne[0] * t->ne[1] * t->ne[2] <= DIRECT_ELEMENTS_MAX ||
        t->ne[0] < POOLED_BLOCKS_MIN * ggml_blck_size(t->type))
        return write_direct(f, t, file, err);
    return write_pooled(f, t, file, err);
}
