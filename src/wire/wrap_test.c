/* wire/wrap_test.c - lossless wraps: what goes in comes out, and lies about sizes are refused.
 *
 * SPDX-License-Identifier: MIT */
#include "base/starve_test.h"
#include "wire/codec.h"

#include <math.h>
#include <snappy-c.h>
#include <zstd.h>

enum { ROWS = 16, ELEMS = 576, PAYLOAD_MAX = ROWS * ELEMS * 4, GUARD = 64 };

static const uint32_t WRAPPING[] = { WIRE_ZSTD, WIRE_SNAPPY };

/* A payload of rows that come again, so that it compresses in any codec; its size. */
static size_t payload_make(uint8_t *payload, const struct wire_codec *c)
{
    static float x[ROWS * ELEMS];
    uint64_t     seed = unit_seed();

    for (size_t i = 0; i < ROWS * ELEMS; i++)
        x[i] = i < 3 * ELEMS ? (float)unit_below(&seed, 1000) / 7 : x[i - 3 * ELEMS];
    wire_codec_encode(c, payload, x, ROWS, ELEMS);
    return wire_codec_bytes(c, ROWS, ELEMS);
}

/* Unwrap and see that nothing was written behind what was asked for. */
static int unwrap(uint32_t wrap, const struct wire_codec *c, uint8_t *target, size_t bytes_out,
                  const uint8_t *source, size_t bytes, mcp_error *err)
{
    int rc;

    memset(target + bytes_out, 0x5a, GUARD);
    rc = wire_unwrap(wrap, c, target, bytes_out, source, bytes, err);
    for (size_t i = 0; i < GUARD; i++)
        assert_int_equal(target[bytes_out + i], 0x5a);
    return rc;
}

/* Goal:   ids are those of compute.proto. */
static void each_wrap_has_its_name(void **state)
{
    (void)state;
    assert_string_equal(wire_wrap_name(WIRE_PLAIN), "none");
    assert_string_equal(wire_wrap_name(WIRE_ZSTD), "zstd");
    assert_string_equal(wire_wrap_name(WIRE_SNAPPY), "snappy");
    assert_null(wire_wrap_name(WIRE_WRAPS));
    assert_null(wire_wrap_name(UINT32_MAX));
}

/* Goal:   every codec's payload comes back byte by byte, and is smaller in between; also where
 *         its size is no multiple of the plane's unit. */
static void what_was_wrapped_unwraps_to_the_same_bytes(void **state)
{
    static uint8_t payload[PAYLOAD_MAX], wrapped[2 * PAYLOAD_MAX], back[PAYLOAD_MAX + GUARD];
    mcp_error      err;

    (void)state;
    for (uint32_t id = 0; id < WIRE_CODECS; id++) {
        const struct wire_codec *c = wire_codec_by_id(id);
        size_t                   whole = payload_make(payload, c);

        for (size_t i = 0; i < UNIT_COUNT(WRAPPING); i++) {
            for (size_t bytes = whole - 3; bytes <= whole; bytes++) {
                size_t bound = wire_wrap_bound(WRAPPING[i], bytes), count;

                assert_true(bound <= sizeof(wrapped));
                count = wire_wrap(WRAPPING[i], c, wrapped, bound, payload, bytes);
                assert_true(count > 0 && count < bytes);
                unit_ok(unwrap(WRAPPING[i], c, back, bytes, wrapped, count, &err), &err);
                assert_memory_equal(back, payload, bytes);
            }
        }
    }
}

/* Goal:   bytes without pattern, and none at all, are not wrapped: plain is smaller. */
static void what_does_not_shrink_is_left_plain(void **state)
{
    uint8_t  noise[4096], wrapped[8192];
    uint64_t seed = unit_seed();

    (void)state;
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (uint8_t)unit_next(&seed);
    for (uint32_t wrap = 0; wrap <= WIRE_WRAPS; wrap++) {
        const struct wire_codec *c = wire_codec_by_id(WIRE_F16);

        assert_true(wire_wrap_bound(wrap, sizeof(noise)) >= sizeof(noise));
        assert_int_equal(wire_wrap(wrap, c, wrapped, sizeof(wrapped), noise, sizeof(noise)), 0);
        assert_int_equal(wire_wrap(wrap, c, wrapped, sizeof(wrapped), noise, 0), 0);
    }
}

/* Goal:   inside the compression lie the planes that the format describes.
 * Method: zstd and snappy themselves take it apart. */
static void planes_hold_the_first_bytes_then_the_second_ones(void **state)
{
    static const size_t units[WIRE_CODECS] = { 4, 2, 2, 1, 1, 1 };
    static uint8_t      payload[PAYLOAD_MAX], wrapped[2 * PAYLOAD_MAX], planes[PAYLOAD_MAX];

    (void)state;
    for (uint32_t id = 0; id < WIRE_CODECS; id++) {
        const struct wire_codec *c = wire_codec_by_id(id);
        size_t                   bytes = payload_make(payload, c), count, length = sizeof(planes);

        for (size_t i = 0; i < UNIT_COUNT(WRAPPING); i++) {
            count = wire_wrap(WRAPPING[i], c, wrapped, wire_wrap_bound(WRAPPING[i], bytes), payload,
                              bytes);
            if (WRAPPING[i] == WIRE_ZSTD)
                length = ZSTD_decompress(planes, sizeof(planes), wrapped, count);
            else
                assert_int_equal(snappy_uncompress((char *)wrapped, count, (char *)planes, &length),
                                 SNAPPY_OK);
            assert_int_equal(length, bytes);
            for (size_t at = 0; at < bytes; at++)
                assert_int_equal(planes[at % units[id] * (bytes / units[id]) + at / units[id]],
                                 payload[at]);
        }
    }
}

/* Goal:   a size other than the payload's is refused with a sentence, above and below. */
static void another_size_than_announced_is_refused(void **state)
{
    static uint8_t           payload[PAYLOAD_MAX], wrapped[2 * PAYLOAD_MAX];
    static uint8_t           back[PAYLOAD_MAX + GUARD + 1];
    const struct wire_codec *c = wire_codec_by_id(WIRE_F16);
    size_t                   bytes = payload_make(payload, c);
    mcp_error                err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(WRAPPING); i++) {
        size_t      count = wire_wrap(WRAPPING[i], c, wrapped, wire_wrap_bound(WRAPPING[i], bytes),
                                      payload, bytes);
        const char *name = wire_wrap_name(WRAPPING[i]);

        unit_refused(unwrap(WRAPPING[i], c, back, bytes - 1, wrapped, count, &err), MCP_EFORMAT,
                     &err, name);
        unit_refused(unwrap(WRAPPING[i], c, back, bytes + 1, wrapped, count, &err), MCP_EFORMAT,
                     &err, name);
        unit_refused(unwrap(WRAPPING[i], c, back, 0, wrapped, count, &err), MCP_EFORMAT, &err,
                     name);
    }
    unit_refused(unwrap(WIRE_PLAIN, c, back, bytes + 1, payload, bytes, &err), MCP_EFORMAT, &err,
                 "not");
    unit_ok(unwrap(WIRE_PLAIN, c, back, bytes, payload, bytes, &err), &err);
    assert_memory_equal(back, payload, bytes);
    unit_refused(unwrap(WIRE_WRAPS, c, back, bytes, payload, bytes, &err), MCP_EFORMAT, &err,
                 "wrap 3");
}

/* Goal:   a bomb does not go off: 256 MiB of zeros in 8 KB of zstd, and 4 GiB announced by
 *         snappy, are refused for the announced 1 KB without being made. */
static void bombs_are_refused(void **state)
{
    static const uint8_t     snappy_4g[] = { 0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x00 };
    static uint8_t           zeros[1 << 20], bomb[1 << 16];
    const struct wire_codec *c = wire_codec_by_id(WIRE_F32);
    ZSTD_CCtx               *zstd = ZSTD_createCCtx();
    ZSTD_outBuffer           out = { bomb, sizeof(bomb), 0 };
    uint8_t                  back[1024 + GUARD];
    mcp_error                err;

    (void)state;
    assert_non_null(zstd);
    for (int i = 0; i < 256; i++) {
        ZSTD_inBuffer in = { zeros, sizeof(zeros), 0 };

        assert_int_equal(
            ZSTD_compressStream2(zstd, &out, &in, i < 255 ? ZSTD_e_continue : ZSTD_e_end), 0);
    }
    ZSTD_freeCCtx(zstd);
    unit_refused(unwrap(WIRE_ZSTD, c, back, 1024, bomb, out.pos, &err), MCP_EFORMAT, &err, "1024");
    unit_refused(unwrap(WIRE_SNAPPY, c, back, 1024, snappy_4g, sizeof(snappy_4g), &err),
                 MCP_EFORMAT, &err, "1024");
}

/* Goal:   damage is refused, or at worst gives other bytes of the right size; never a crash.
 * Method: cut at every byte, then every byte changed in turn. */
static void damaged_wraps_are_refused_or_harmless(void **state)
{
    static uint8_t           payload[PAYLOAD_MAX], wrapped[2 * PAYLOAD_MAX];
    static uint8_t           back[PAYLOAD_MAX + GUARD];
    const struct wire_codec *c = wire_codec_by_id(WIRE_BF16);
    size_t                   bytes = payload_make(payload, c) / 8;
    mcp_error                err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(WRAPPING); i++) {
        size_t count = wire_wrap(WRAPPING[i], c, wrapped, wire_wrap_bound(WRAPPING[i], bytes),
                                 payload, bytes);

        assert_true(count > 0);
        for (size_t cut = 0; cut < count; cut++)
            unit_refused(unwrap(WRAPPING[i], c, back, bytes, wrapped, cut, &err), MCP_EFORMAT, &err,
                         "");
        for (size_t at = 0; at < count; at++) {
            wrapped[at] ^= 0x11;
            if (unwrap(WRAPPING[i], c, back, bytes, wrapped, count, &err) < 0)
                assert_int_equal(err.code, MCP_EFORMAT);
            wrapped[at] ^= 0x11;
        }
    }
}

/* Goal:   without memory a payload is sent plain, and one that came is refused as such. */
static void without_memory_nothing_is_wrapped(void **state)
{
    static uint8_t           payload[PAYLOAD_MAX], wrapped[2 * PAYLOAD_MAX], back[PAYLOAD_MAX];
    const struct wire_codec *c = wire_codec_by_id(WIRE_F32);
    size_t                   bytes = payload_make(payload, c), bound, count, starved;
    mcp_error                err;
    int                      rc;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(WRAPPING); i++) {
        bound = wire_wrap_bound(WRAPPING[i], bytes);
        starve_arm(1, true);
        starved = wire_wrap(WRAPPING[i], c, wrapped, bound, payload, bytes);
        assert_true(starve_disarm() > 0);
        assert_int_equal(starved, 0);

        count = wire_wrap(WRAPPING[i], c, wrapped, bound, payload, bytes);
        starve_arm(1, true);
        rc = wire_unwrap(WRAPPING[i], c, back, bytes, wrapped, count, &err);
        assert_true(starve_disarm() > 0);
        unit_refused(rc, MCP_ENOMEM, &err, "memory");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_wrap_has_its_name),
        cmocka_unit_test(what_was_wrapped_unwraps_to_the_same_bytes),
        cmocka_unit_test(what_does_not_shrink_is_left_plain),
        cmocka_unit_test(planes_hold_the_first_bytes_then_the_second_ones),
        cmocka_unit_test(another_size_than_announced_is_refused),
        cmocka_unit_test(bombs_are_refused),
        cmocka_unit_test(damaged_wraps_are_refused_or_harmless),
        cmocka_unit_test(without_memory_nothing_is_wrapped),
    };

    return cmocka_run_group_tests_name("wire/wrap", tests, NULL, NULL);
}
