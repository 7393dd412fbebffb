/* pipe/fake_test.h - arithmetic of a model that forgets nothing.
 *
 * A stage's KV at a position is a hash of its input there, of the KV before it, and of how
 * its window was computed; a row that leaves the stage is a hash of that.  So an input that is
 * lost, doubled, exchanged or stale, and a window that is cut in another way than it was
 * first, changes everything that follows.
 *
 * Window sizes and bits are those of docs/architecture.md, made stricter: where a real engine
 * gives the same bits only within a class, this one does so only for the very same window.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PIPE_FAKE_TEST_H
#define PIPE_FAKE_TEST_H

#include "base/unit_test.h"
#include "pipe/pipeline.h"

struct fake_row {
    uint64_t hash[2];
};

/* One stage's cache of a session: positions [0, length) of at most `ctx`. */
struct fake_kv {
    uint32_t  stage;
    bool      even_windows;
    uint32_t  length, ctx;
    uint64_t *at; /* (ctx) */
};

static inline uint64_t fake_mix(uint64_t a, uint64_t b)
{
    uint64_t state = a * 0x2545f4914f6cdd1du ^ (b + 0x9e3779b97f4a7c15u);

    return unit_next(&state);
}

static inline void fake_kv_init(struct fake_kv *kv, uint32_t stage, bool even_windows, uint32_t ctx)
{
    *kv = (struct fake_kv){ .stage = stage, .even_windows = even_windows, .ctx = ctx };
    kv->at = calloc(ctx, sizeof(*kv->at));
    assert_non_null(kv->at);
}

/* What a window's size and place do to the bits; 0 for windows of which it does not matter how
 * a run of them is cut. */
static inline uint64_t fake_class(bool even_windows, uint32_t pos, uint32_t count)
{
    bool small = count <= 63;

    if (small && (even_windows || (pos + count + 255) / 256 * 256 < 512))
        return 0;
    return fake_mix(pos + 1, count);
}

static inline struct fake_row fake_token_row(int32_t token)
{
    return (struct fake_row){ { (uint64_t)token, 0 } };
}

/* Run [pos, pos + count): pos must be the length.  `out` may be `in`, or NULL. */
static inline void fake_forward(struct fake_kv *kv, uint32_t pos, uint32_t count,
                                const struct fake_row *in, struct fake_row *out)
{
    uint64_t class = fake_class(kv->even_windows, pos, count);

    assert_int_equal(pos, kv->length);
    assert_true(count <= kv->ctx - pos);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t before = pos + i > 0 ? kv->at[pos + i - 1] : 0;
        uint64_t hash = fake_mix(fake_mix(fake_mix(kv->stage, class), in[i].hash[0]), before);

        kv->at[pos + i] = hash;
        if (out != NULL)
            out[i] = (struct fake_row){ { fake_mix(hash, in[i].hash[1]), hash } };
    }
    kv->length = pos + count;
}

#endif
