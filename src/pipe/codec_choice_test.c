/* pipe/codec_choice_test.c - codecs of windows on random and on changing links.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/codec_choice.h"

#include "base/unit_test.h"

#include <math.h>

enum { F32 = 0, F16 = 1, Q8R = 4, Q4R = 5 };

/* Rows of a 7B model, by docs/benchmarks.md; q4r beyond the bound. */
static const struct codec_option options[] = {
    { Q8R, 4352.0, 96.0, 0.06 },
    { Q4R, 2290.0, 208.0, 1.06 },
    { F16, 8192.0, 24.7, 0.0 },
    { F32, 16384.0, 15.7, 0.0 },
};

static struct codec_choice fresh(void)
{
    struct codec_choice c;

    memset(&c, 0xff, sizeof(c));
    codec_choice_init(&c, options, UNIT_COUNT(options), 1.0);
    return c;
}

static double between(uint64_t *seed, double low, double high)
{
    return low + (high - low) * (double)(unit_next(seed) >> 11) * 0x1p-53;
}

static const struct codec_option *option(uint32_t id)
{
    for (size_t i = 0; i < UNIT_COUNT(options); i++)
        if (options[i].id == id)
            return &options[i];
    fail_msg("codec %u was not given", id);
    return NULL;
}

static double time_ms(uint32_t id, const struct codec_path *p, uint32_t rows)
{
    const struct codec_option *o = option(id);

    return rows *
           (o->row_bytes * 8e-3 * (1.0 / p->up_mbit + 1.0 / p->down_mbit) + o->row_us * 1e-3);
}

static struct codec_path random_path(uint64_t *seed)
{
    return (struct codec_path){ .rtt_ms = exp(between(seed, log(0.1), log(200.0))),
                                .up_mbit = exp(between(seed, log(1.0), log(20000.0))),
                                .down_mbit = exp(between(seed, log(1.0), log(20000.0))) };
}

/* Goal:   nothing beyond the bound is ever taken, also where it would be fastest; the first is,
 *         as there has to be one. */
static void the_bound_holds_on_every_link(void **state)
{
    uint64_t            seed = unit_seed();
    struct codec_choice c = fresh();
    double              now = 0.0;

    (void)state;
    for (int i = 0; i < 200000; i++) {
        struct codec_path p = random_path(&seed);
        uint32_t          id = codec_choose(&c, &p, 1 + unit_below(&seed, 512), i % 2, now);

        assert_true(option(id)->quality_pct <= 1.0);
        now += between(&seed, 0.0, 400.0);
    }
    codec_choice_init(&c, options + 1, 1, 1.0);
    assert_int_equal(codec_choose(&c, &(struct codec_path){ 20, 20, 20 }, 1, false, 0.0), Q4R);
}

/* Goal:   on a link that stays, no window takes longer than f16 by more than 2 % of a round trip
 *         and window; a prefill window by nothing but the hysteresis of a tenth.  On links up to
 *         100 Mbit/s it is q8r, 0.53 of f16's bytes. */
static void no_link_is_slower_than_with_f16(void **state)
{
    uint64_t seed = unit_seed();

    (void)state;
    for (int i = 0; i < 100000; i++) {
        struct codec_choice c = fresh();
        struct codec_path   p = random_path(&seed);
        bool                prefill = i % 2 != 0;
        uint32_t rows = prefill ? 17 + unit_below(&seed, 500) : 1 + unit_below(&seed, 16);
        uint32_t id = codec_choose(&c, &p, rows, prefill, 0.0);
        double   least = time_ms(F16, &p, rows);

        if (time_ms(id, &p, rows) > (prefill ? 1.1 * least : least + 0.02 * (p.rtt_ms + least)))
            fail_msg("codec %u takes %g ms, f16 %g (%g ms, %g and %g Mbit/s, %u rows)", id,
                     time_ms(id, &p, rows), least, p.rtt_ms, p.up_mbit, p.down_mbit, rows);
        if (p.up_mbit <= 100.0 || p.down_mbit <= 100.0)
            assert_int_equal(id, Q8R);
    }
}

/* Goal:   what is fast enough gets f16: at once where the link is known at the start, and where it
 *         becomes known later after the dwell. */
static void a_fast_link_gets_f16(void **state)
{
    static const struct codec_path unknown = { 0.2, 0.0, 0.0 }, fast = { 0.2, 5000.0, 5000.0 };
    struct codec_choice            c = fresh();

    (void)state;
    assert_int_equal(codec_choose(&c, &fast, 1, false, 0.0), F16);
    assert_int_equal(codec_choose(&c, &fast, 64, true, 0.0), F16);
    assert_int_equal(codec_choose(&c, &unknown, 1, false, 1000.0), F16); /* what is known stays */
    c = fresh();
    assert_int_equal(codec_choose(&c, &unknown, 1, false, 0.0), Q8R);
    assert_int_equal(codec_choose(&c, &unknown, 64, true, 0.0), Q8R);
    assert_int_equal(codec_choose(&c, &fast, 64, true, 10.0), F16);
}

/* Goal:   a link whose estimates wander by a fifth keeps its codec, wherever its rate lies.
 * Method: 60 s of a window each 20 ms, 400 random links; at most one change after the first
 *         choice, which noise may have made. */
static void noise_changes_nothing(void **state)
{
    uint64_t seed = unit_seed();

    (void)state;
    for (int i = 0; i < 400; i++) {
        struct codec_choice c = fresh();
        struct codec_path   p = random_path(&seed);
        uint32_t            last = UINT32_MAX, changes = 0;

        for (double now = 0.0; now < 60000.0; now += 20.0) {
            struct codec_path seen = { p.rtt_ms * between(&seed, 0.9, 1.1),
                                       p.up_mbit * between(&seed, 0.8, 1.2),
                                       p.down_mbit * between(&seed, 0.8, 1.2) };
            uint32_t          id = codec_choose(&c, &seen, 1 + unit_below(&seed, 8), i % 2, now);

            changes += last != UINT32_MAX && id != last;
            last = id;
        }
        if (changes > 1)
            fail_msg("%u changes at %g ms, %g and %g Mbit/s", changes, p.rtt_ms, p.up_mbit,
                     p.down_mbit);
    }
}

/* Goal:   a link that changes changes the codec once, within the dwell and what the link's
 *         estimate needs; and back once. */
static void one_change_of_the_link_is_one_change_of_codec(void **state)
{
    uint64_t            seed = unit_seed();
    struct codec_choice c = fresh();
    struct codec_path   fast = { 1.0, 2000.0, 2000.0 }, slow = { 1.0, 20.0, 20.0 };

    (void)state;
    for (int part = 0; part < 20; part++) {
        uint32_t wanted = part % 2 ? Q8R : F16, last = part % 2 ? F16 : Q8R, changes = 0;

        if (part == 0)
            last = F16;
        for (double ms = 0.0; ms < 5000.0; ms += 20.0) {
            /* The estimate slides over in 2.5 s. */
            double share = fmin(1.0, ms / 2500.0);
            double from = part == 0 ? fast.up_mbit : part % 2 ? fast.up_mbit : slow.up_mbit;
            double to = part % 2 ? slow.up_mbit : fast.up_mbit;
            double mbit = (from + (to - from) * share) * between(&seed, 0.9, 1.1);
            struct codec_path p = { 1.0, mbit, mbit };
            uint32_t          id = codec_choose(&c, &p, 1, false, part * 5000.0 + ms);

            changes += id != last;
            last = id;
        }
        assert_int_equal(last, wanted);
        assert_int_equal(changes, part > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bound_holds_on_every_link),
        cmocka_unit_test(no_link_is_slower_than_with_f16),
        cmocka_unit_test(a_fast_link_gets_f16),
        cmocka_unit_test(noise_changes_nothing),
        cmocka_unit_test(one_change_of_the_link_is_one_change_of_codec),
    };

    return cmocka_run_group_tests_name("pipe/codec_choice", tests, NULL, NULL);
}
