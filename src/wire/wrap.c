/* wire/wrap.c - lossless wraps of a payload: byte planes, then zstd or snappy.  See codec.h.
 *
 *     payload   a0 a1 a2 a3  b0 b1 b2 b3  ...  rest      units of 4 bytes, as f32 has
 *     planes    a0 b0 ...  a1 b1 ...  a2 b2 ...  a3 b3 ...  rest
 *
 * Neighbouring floats share their exponents, not their fractions: side by side the exponents
 * compress, between fractions nothing does.  Blocks of q8, q8r and q4r stay as they are: their
 * scales are 6 % of the bytes, and sorting them out was measured to win nothing.
 *
 * zstd is a single frame at level 1; snappy the raw format without framing.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/codec.h"

#include "base/fail.h"

#include <assert.h>
#include <snappy-c.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

enum { ZSTD_LEVEL = 1 };

static const size_t UNITS[WIRE_CODECS] = {
    [WIRE_F32] = 4, [WIRE_F16] = 2, [WIRE_BF16] = 2, [WIRE_Q8] = 1, [WIRE_Q8R] = 1, [WIRE_Q4R] = 1,
};

/* ---- planes --------------------------------------------------------------------------- */

static void planes_split(uint8_t *target, const uint8_t *source, size_t bytes, size_t unit)
{
    const size_t count = bytes / unit, rest = bytes % unit;

    for (size_t plane = 0; plane < unit; plane++)
        for (size_t i = 0; i < count; i++)
            target[plane * count + i] = source[i * unit + plane];
    memcpy(target + count * unit, source + count * unit, rest);
}

static void planes_join(uint8_t *target, const uint8_t *source, size_t bytes, size_t unit)
{
    const size_t count = bytes / unit, rest = bytes % unit;

    for (size_t plane = 0; plane < unit; plane++)
        for (size_t i = 0; i < count; i++)
            target[i * unit + plane] = source[plane * count + i];
    memcpy(target + count * unit, source + count * unit, rest);
}

/* ---- the table of wraps ------------------------------------------------------------------ */

static size_t zstd_bound(size_t bytes)
{
    return ZSTD_compressBound(bytes);
}

static size_t zstd_pack(uint8_t *target, size_t cap, const uint8_t *source, size_t bytes)
{
    size_t count = ZSTD_compress(target, cap, source, bytes, ZSTD_LEVEL);

    return ZSTD_isError(count) ? 0 : count;
}

/* Writes at most bytes_out; what the frame's header announces is not trusted. */
static int zstd_unpack(uint8_t *target, size_t bytes_out, const uint8_t *source, size_t bytes,
                       mcp_error *err)
{
    size_t count = ZSTD_decompress(target, bytes_out, source, bytes);

    if (ZSTD_isError(count) && ZSTD_getErrorCode(count) == ZSTD_error_memory_allocation)
        return base_fail(err, MCP_ENOMEM, "no memory to unwrap %zu bytes of zstd", bytes);
    if (ZSTD_isError(count))
        return base_fail(err, MCP_EFORMAT, "%zu bytes of zstd do not make a payload of %zu: %s",
                         bytes, bytes_out, ZSTD_getErrorName(count));
    if (count != bytes_out)
        return base_fail(err, MCP_EFORMAT, "%zu bytes of zstd make %zu, not the payload's %zu",
                         bytes, count, bytes_out);
    return MCP_OK;
}

static size_t snappy_bound(size_t bytes)
{
    return snappy_max_compressed_length(bytes);
}

static size_t snappy_pack(uint8_t *target, size_t cap, const uint8_t *source, size_t bytes)
{
    size_t count = cap;

    if (snappy_compress((const char *)source, bytes, (char *)target, &count) != SNAPPY_OK)
        return 0;
    return count;
}

static int snappy_unpack(uint8_t *target, size_t bytes_out, const uint8_t *source, size_t bytes,
                         mcp_error *err)
{
    size_t count = 0;

    if (snappy_uncompressed_length((const char *)source, bytes, &count) != SNAPPY_OK)
        return base_fail(err, MCP_EFORMAT, "%zu bytes do not begin as snappy does", bytes);
    if (count != bytes_out)
        return base_fail(err, MCP_EFORMAT,
                         "%zu bytes of snappy announce %zu, not the payload's %zu", bytes, count,
                         bytes_out);
    if (snappy_uncompress((const char *)source, bytes, (char *)target, &count) != SNAPPY_OK ||
        count != bytes_out)
        return base_fail(err, MCP_EFORMAT, "%zu bytes of snappy are damaged", bytes);
    return MCP_OK;
}

static const struct wrap {
    const char *name;
    size_t (*bound)(size_t bytes);
    size_t (*pack)(uint8_t *target, size_t cap, const uint8_t *source, size_t bytes);
    int (*unpack)(uint8_t *target, size_t bytes_out, const uint8_t *source, size_t bytes,
                  mcp_error *err);
} WRAPS[WIRE_WRAPS] = {
    [WIRE_PLAIN] = { "none", NULL, NULL, NULL },
    [WIRE_ZSTD] = { "zstd", zstd_bound, zstd_pack, zstd_unpack },
    [WIRE_SNAPPY] = { "snappy", snappy_bound, snappy_pack, snappy_unpack },
};

/* ---- codec.h ----------------------------------------------------------------------------- */

const char *wire_wrap_name(uint32_t id)
{
    return id < WIRE_WRAPS ? WRAPS[id].name : NULL;
}

size_t wire_wrap_bound(uint32_t wrap, size_t bytes)
{
    if (wrap >= WIRE_WRAPS || WRAPS[wrap].bound == NULL)
        return bytes;
    return WRAPS[wrap].bound(bytes);
}

size_t wire_wrap(uint32_t wrap, const struct wire_codec *codec, uint8_t *target, size_t cap,
                 const uint8_t *source, size_t bytes)
{
    const size_t unit = UNITS[codec->id];
    uint8_t     *planes = NULL;
    size_t       count = 0;

    if (wrap >= WIRE_WRAPS || WRAPS[wrap].pack == NULL)
        return 0;
    assert(cap >= wire_wrap_bound(wrap, bytes));
    if (unit > 1) {
        planes = malloc(bytes > 0 ? bytes : 1);
        if (planes == NULL)
            return 0; /* plain costs no memory */
        planes_split(planes, source, bytes, unit);
        source = planes;
    }
    count = WRAPS[wrap].pack(target, cap, source, bytes);
    free(planes);
    return count < bytes ? count : 0;
}

int wire_unwrap(uint32_t wrap, const struct wire_codec *codec, uint8_t *target, size_t bytes_out,
                const uint8_t *source, size_t bytes, mcp_error *err)
{
    const size_t unit = UNITS[codec->id];
    uint8_t     *planes = NULL;
    int          rc;

    if (wrap >= WIRE_WRAPS)
        return base_fail(err, MCP_EFORMAT, "payload in wrap %u: known are 0 to %d", wrap,
                         WIRE_WRAPS - 1);
    if (WRAPS[wrap].unpack == NULL) {
        if (bytes != bytes_out)
            return base_fail(err, MCP_EFORMAT, "payload of %zu bytes, not %zu", bytes, bytes_out);
        memcpy(target, source, bytes);
        return MCP_OK;
    }
    if (unit == 1)
        return WRAPS[wrap].unpack(target, bytes_out, source, bytes, err);
    planes = malloc(bytes_out > 0 ? bytes_out : 1);
    if (planes == NULL)
        return base_fail(err, MCP_ENOMEM, "no memory for %zu bytes to unwrap", bytes_out);
    rc = WRAPS[wrap].unpack(planes, bytes_out, source, bytes, err);
    if (rc == MCP_OK)
        planes_join(target, planes, bytes_out, unit);
    free(planes);
    return rc;
}
