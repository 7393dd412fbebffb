/* fuzz/codec.c - payloads of rows, wrapped and plain, are the input.
 *
 * Six bytes choose what is done, the codec, the wrap, rows and elements; the rest is a payload
 * to decode, bytes to unwrap, or floats to encode.  Beside what the sanitizers see, broken
 * promises are findings:
 *   - what decodes is finite, and can be encoded and decoded again;
 *   - any floats, also NaN, encode to a payload that decodes;
 *   - what was wrapped unwraps to the same bytes, and nothing unwraps to another size;
 *   - a failure is a sentence.
 *
 * ./dev fuzz codec SECONDS; seeds in fuzz/corpus/codec are written by fuzz/make_codec_corpus.py.
 *
 * SPDX-License-Identifier: MIT */
#include "check.h"

#include "wire/codec.h"

#include <math.h>

/* Also in fuzz/make_codec_corpus.py. */
enum work { DECODE, ENCODE, UNWRAP, WRAP, WORKS };
enum { HEAD_BYTES = 6, ROWS_MAX = 4, ELEMS_MAX = 2048 };

struct input {
    enum work                work;
    const struct wire_codec *codec;
    uint32_t                 wrap;
    size_t                   rows, elems;
    const uint8_t           *data;
    size_t                   bytes;
};

/* A block of exactly this size, so that the sanitizer sees one byte too many; never NULL. */
static void *block(size_t bytes)
{
    void *p = malloc(bytes > 0 ? bytes : 1);

    CHECK(p != NULL);
    return p;
}

/* `bytes` of the data, filled up with zeros. */
static uint8_t *taken(const struct input *in, size_t bytes)
{
    uint8_t *copy = block(bytes);

    memset(copy, 0, bytes);
    memcpy(copy, in->data, in->bytes < bytes ? in->bytes : bytes);
    return copy;
}

/* Encode the rows and decode them again: must work for whatever they hold. */
static void pass(const struct input *in, const float *rows)
{
    size_t    floats = in->rows * in->elems;
    size_t    bytes = wire_codec_bytes(in->codec, in->rows, in->elems);
    uint8_t  *payload = block(bytes);
    float    *back = block(floats * sizeof(float));
    mcp_error err;

    wire_codec_encode(in->codec, payload, rows, in->rows, in->elems);
    CHECK(wire_codec_decode(in->codec, back, payload, bytes, in->rows, in->elems, &err) == MCP_OK);
    for (size_t i = 0; i < floats; i++)
        CHECK(isfinite(back[i]));
    free(payload);
    free(back);
}

static void decode(const struct input *in, const uint8_t *payload, size_t bytes)
{
    float    *rows = block(in->rows * in->elems * sizeof(float));
    mcp_error err;
    int       rc = wire_codec_decode(in->codec, rows, payload, bytes, in->rows, in->elems, &err);

    if (rc < 0) {
        check_failure(rc, &err);
        CHECK(rc == MCP_EFORMAT);
    } else {
        for (size_t i = 0; i < in->rows * in->elems; i++)
            CHECK(isfinite(rows[i]));
        pass(in, rows);
    }
    free(rows);
}

static void wrap_and_unwrap(const struct input *in, const uint8_t *payload, size_t bytes)
{
    size_t    bound = wire_wrap_bound(in->wrap, bytes), count;
    uint8_t  *wrapped = block(bound), *back = block(bytes);
    mcp_error err;

    count = wire_wrap(in->wrap, in->codec, wrapped, bound, payload, bytes);
    CHECK(count <= bound && (count == 0 || count < bytes));
    if (count > 0) {
        CHECK(wire_unwrap(in->wrap, in->codec, back, bytes, wrapped, count, &err) == MCP_OK);
        CHECK(memcmp(back, payload, bytes) == 0);
        CHECK(wire_unwrap(in->wrap, in->codec, back, bytes - 1, wrapped, count, &err) ==
              MCP_EFORMAT);
    }
    free(wrapped);
    free(back);
}

static void unwrap(const struct input *in)
{
    size_t    bytes = wire_codec_bytes(in->codec, in->rows, in->elems);
    uint8_t  *payload = block(bytes), *wrapped = taken(in, in->bytes);
    mcp_error err;
    int       rc = wire_unwrap(in->wrap, in->codec, payload, bytes, wrapped, in->bytes, &err);

    if (rc < 0) {
        check_failure(rc, &err);
        CHECK(rc == MCP_EFORMAT);
    } else {
        wrap_and_unwrap(in, payload, bytes);
        decode(in, payload, bytes);
    }
    free(payload);
    free(wrapped);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in;
    size_t       floats;
    uint8_t     *copy;

    if (size < HEAD_BYTES)
        return 0;
    in = (struct input){
        .work = (enum work)(data[0] % WORKS),
        .codec = wire_codec_by_id(data[1] % WIRE_CODECS),
        .wrap = data[2] % (WIRE_WRAPS + 1), /* also one that does not exist */
        .rows = 1 + data[3] % ROWS_MAX,
        .elems = (size_t)(data[4] | data[5] << 8) % ELEMS_MAX,
        .data = data + HEAD_BYTES,
        .bytes = size - HEAD_BYTES,
    };
    in.elems += in.codec->row_elems - in.elems % in.codec->row_elems;
    floats = in.rows * in.elems;

    switch (in.work) {
    case DECODE:
        copy = taken(&in, in.bytes);
        decode(&in, copy, in.bytes);
        free(copy);
        copy = taken(&in, wire_codec_bytes(in.codec, in.rows, in.elems));
        decode(&in, copy, wire_codec_bytes(in.codec, in.rows, in.elems));
        break;
    case ENCODE:
        copy = taken(&in, floats * sizeof(float));
        pass(&in, (const float *)(const void *)copy);
        break;
    case UNWRAP:
        copy = NULL;
        unwrap(&in);
        break;
    default:
        copy = taken(&in, in.bytes);
        wrap_and_unwrap(&in, copy, in.bytes);
        break;
    }
    free(copy);
    return 0;
}
