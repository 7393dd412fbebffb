/* wire/codec.c - see codec.h.  The rows are codec_float.c, codec_q8.c and codec_q4r.c.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/codec.h"

#include "base/fail.h"
#include "wire/codec_rows.h"

#include <assert.h>

/* err_max: half a step of 11 or 8 bits for f16 and bf16, half a step of 1/127 for q8, which no
 * element exceeds.  Behind a rotation an element's error is a sum of 64, nearly normal; the
 * figures of q8r and q4r are what millions of elements stayed below.  All hold for rows whose
 * largest magnitude is between 0.01 and 65504, where neither scale nor number is subnormal or
 * saturates. */
static const struct wire_codec CODECS[WIRE_CODECS] = {
#define ROW(name) wire_##name##_bytes, wire_##name##_encode, wire_##name##_decode
    { "f32", WIRE_F32, 1, 0.0f, ROW(f32) },
    { "f16", WIRE_F16, 1, 0.0005f, ROW(f16) },
    { "bf16", WIRE_BF16, 1, 0.004f, ROW(bf16) },
    { "q8", WIRE_Q8, WIRE_Q8_BLOCK, 0.004f, ROW(q8) },
    { "q8r", WIRE_Q8R, WIRE_ROTATED, 0.025f, ROW(q8r) },
    { "q4r", WIRE_Q4R, WIRE_ROTATED, 0.3f, ROW(q4r) },
#undef ROW
};

/* A row longer than any model's: keeps the products of bytes() far from overflow. */
enum { ELEMS_MAX = 1 << 28 };

const struct wire_codec *wire_codec_by_id(uint32_t id)
{
    return id < WIRE_CODECS ? &CODECS[id] : NULL;
}

const struct wire_codec *wire_codec_by_name(const char *name)
{
    for (size_t i = 0; i < WIRE_CODECS; i++)
        if (strcmp(CODECS[i].name, name) == 0)
            return &CODECS[i];
    return NULL;
}

size_t wire_codec_bytes(const struct wire_codec *c, size_t rows, size_t elems)
{
    size_t bytes;

    if (elems > ELEMS_MAX || elems % c->row_elems != 0)
        return 0;
    return __builtin_mul_overflow(rows, c->bytes(elems), &bytes) ? 0 : bytes;
}

void wire_codec_encode(const struct wire_codec *c, uint8_t *target, const float *source,
                       size_t rows, size_t elems)
{
    size_t row_bytes = wire_codec_bytes(c, 1, elems);

    assert(row_bytes > 0 || elems == 0);
    for (size_t i = 0; i < rows; i++)
        c->encode(target + i * row_bytes, source + i * elems, elems);
}

int wire_codec_decode(const struct wire_codec *c, float *target, const uint8_t *source,
                      size_t bytes, size_t rows, size_t elems, mcp_error *err)
{
    size_t row_bytes = wire_codec_bytes(c, 1, elems), wanted = wire_codec_bytes(c, rows, elems);

    if (wanted == 0)
        return base_fail(
            err, MCP_EFORMAT,
            "%zu rows of %zu elements cannot be %s: a row is a multiple of %u elements", rows,
            elems, c->name, c->row_elems);
    if (bytes != wanted)
        return base_fail(err, MCP_EFORMAT, "%zu rows of %zu elements are %zu bytes in %s, not %zu",
                         rows, elems, wanted, c->name, bytes);
    for (size_t i = 0; i < rows; i++) {
        if (!c->decode(target + i * elems, source + i * row_bytes, elems))
            return base_fail(err, MCP_EFORMAT,
                             "row %zu of %zu in %s holds a value that is not finite%s", i, rows,
                             c->name, c->id == WIRE_Q4R ? ", or an index outside the row" : "");
    }
    return MCP_OK;
}
