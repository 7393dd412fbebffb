/* wire/codec.h - how rows of floats travel: a table of encodings, and lossless wraps over them.
 *
 * A codec encodes each row by itself: n rows are n times wire_codec_bytes(c, 1, n_embd), and
 * a run of rows may be cut or joined without decoding.  All functions are pure, and the same
 * row gives the same bytes whatever the machine and the compiler, so a replay sends what was
 * sent before.  The formats are described in codec_float.c, codec_q8.c, codec_q4r.c and wrap.c.
 *
 * What is encoded decodes to finite numbers: an infinity becomes the format's largest one (as
 * does what exceeds it: 65504 in f16, about 8 million in q8 and 1 million in q8r and q4r), NaN
 * becomes 0.  What is decoded comes from a peer and is refused if it is not finite.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_CODEC_H
#define WIRE_CODEC_H

#include <mcp/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Values are those of enum Codec in compute.proto: on the wire for ever. */
enum wire_codec_id {
    WIRE_F32 = 0,
    WIRE_F16 = 1,
    WIRE_BF16 = 2,
    WIRE_Q8 = 3,  /* blocks of 32: one f16 scale, 32 int8 */
    WIRE_Q8R = 4, /* Hadamard rotation of each block, then q8: outliers are spread */
    WIRE_Q4R = 5, /* largest elements apart, rotation, 4 bits with a scale a block of 64 */
    WIRE_CODECS
};

enum wire_wrap_id { WIRE_PLAIN = 0, WIRE_ZSTD = 1, WIRE_SNAPPY = 2, WIRE_WRAPS };

/* One row of the table; --codec, Describe, tests and the bench walk it. */
struct wire_codec {
    const char *name;              /* "f16" */
    uint32_t    id;                /* enum wire_codec_id */
    uint32_t    row_elems;         /* a row's elements must be a multiple of this */
    float       err_max;           /* largest error of an element over the row's largest magnitude;
                              the test measures it */
    size_t (*bytes)(size_t elems); /* of one row */
    void (*encode)(uint8_t *target, const float *source, size_t elems);
    /* false: a value or scale is not finite, or an index outside the row; any bytes may come. */
    bool (*decode)(float *target, const uint8_t *source, size_t elems);
};

/* NULL for an id or name that this build does not know, which is no error by itself. */
const struct wire_codec *wire_codec_by_id(uint32_t id);
const struct wire_codec *wire_codec_by_name(const char *name);
const char              *wire_wrap_name(uint32_t id); /* "zstd"; NULL */

/* Payload bytes of `rows` rows; 0 when the codec cannot hold rows of this length or the
 * product overflows. */
size_t wire_codec_bytes(const struct wire_codec *c, size_t rows, size_t elems);

/* rows x elems floats <-> wire_codec_bytes() bytes.  decode checks the size and that every
 * value is finite:  MCP_EFORMAT. */
void wire_codec_encode(const struct wire_codec *c, uint8_t *target, const float *source,
                       size_t rows, size_t elems);
int  wire_codec_decode(const struct wire_codec *c, float *target, const uint8_t *source,
                       size_t bytes, size_t rows, size_t elems, mcp_error *err);

/* Wrap a payload of `codec` without loss: the bytes of f32, f16 and bf16 sorted into planes (all
 * first bytes of the elements, all second bytes, ...), then compressed.  Returns the bytes
 * written to `target`, which has room for wire_wrap_bound(); 0 when wrapping would not make it
 * smaller (send it plain). */
size_t wire_wrap_bound(uint32_t wrap, size_t bytes);
size_t wire_wrap(uint32_t wrap, const struct wire_codec *codec, uint8_t *target, size_t cap,
                 const uint8_t *source, size_t bytes);

/* The reverse.  `bytes_out` is what the payload must have: it comes from the announced rows and
 * codec, never from the compressed bytes, so a bomb cannot choose its size.  MCP_EFORMAT,
 * MCP_ENOMEM. */
int wire_unwrap(uint32_t wrap, const struct wire_codec *codec, uint8_t *target, size_t bytes_out,
                const uint8_t *source, size_t bytes, mcp_error *err);

#endif
