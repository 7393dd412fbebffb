/* engine/forward_test.c - many windows at once, refusals that change nothing, cancelling.
 *
 * SPDX-License-Identifier: MIT */
#include "engine/engine.h"

#include "engine/run_test.h"

#include <pthread.h>
#include <time.h>

/* ---- many windows --------------------------------------------------------------- */

enum { SEQS = 9, LONGEST = 40, BEGUN = 250 };

/* Goal:   many windows of unequal lengths together give each the rows that it gets alone.
 * Method: random sequences and lengths, in random order, with gaps between the sequences and
 *         some begun before; neighbours of equal length become one segment, others not.
 *         Logits, hidden states and chosen rows; a -ub that cuts windows in the middle.
 * Replay: MCP_SEED=N ./dev test windows_together_equal_each_alone */
static void windows_together_equal_each_alone(void **state)
{
    static const struct {
        const char *shape, *quant;
        mcp_flash   flash;
        uint32_t    ubatch;
        float       tolerance; /* a wrong row is off by about 1 */
    } rows[] = {
        { "tiny-llama", "q4_0", MCP_FLASH_AUTO, 256, 3e-2f },
        { "tiny-llama", "q4_0", MCP_FLASH_OFF, 256, 3e-2f },
        { "tiny-qwen3", "f16", MCP_FLASH_AUTO, 256, 2e-3f },
        { "tiny-qwen2", "f32", MCP_FLASH_OFF, 256, 2e-3f },
        { "tiny-deepseek2-mla", "f32", MCP_FLASH_AUTO, 256, 2e-3f },
        { "tiny-llama", "q8_0", MCP_FLASH_AUTO, 32, 3e-2f },
    };

    (void)state;
    for (size_t r = 0; r < UNIT_COUNT(rows); r++) {
        struct mcp_model *m = run_model(
            unit_synth("many.gguf", rows[r].shape, rows[r].quant, NULL));
        uint32_t           n_vocab = m->hp.n_vocab, n_layer = m->hp.n_layer;
        mcp_engine_opts    o = run_opts();
        struct mcp_engine *together, *alone;
        uint64_t           rng = unit_seed() + r;
        float             *a = run_floats((size_t)SEQS * LONGEST * n_vocab);
        float             *b = run_floats((size_t)LONGEST * n_vocab);

        o.seqs = SEQS;
        o.ctx_tokens = 768;
        o.batch_tokens = SEQS * LONGEST;
        o.ubatch_tokens = rows[r].ubatch;
        o.flash = rows[r].flash;
        together = run_engine(m, &o);
        alone = run_engine(m, &o);
        for (uint32_t seq = 0; seq < SEQS; seq++) { /* attention over 256, 512 and 768 columns */
            int32_t begun[BEGUN];

            run_tokens(&rng, begun, BEGUN, n_vocab);
            for (uint32_t left = unit_below(&rng, 3) * BEGUN; left > 0; left -= BEGUN) {
                run_append(together, seq, begun, BEGUN, NULL);
                run_append(alone, seq, begun, BEGUN, NULL);
            }
        }
        for (int round = 0; round < 6; round++) {
            int32_t    tokens[SEQS][LONGEST];
            uint32_t   chosen[SEQS][LONGEST], count = 0, order[SEQS];
            mcp_window windows[SEQS];
            mcp_want   want = round % 3 == 2 ? MCP_WANT_HIDDEN : MCP_WANT_LOGITS;
            uint32_t   width = want == MCP_WANT_LOGITS ? n_vocab : m->hp.n_embd;
            mcp_error  err;
            size_t     at = 0;

            for (uint32_t i = 0; i < SEQS; i++) { /* a random order */
                uint32_t j = unit_below(&rng, i + 1);

                order[i] = order[j];
                order[j] = i;
            }
            for (uint32_t i = 0; i < SEQS; i++) {
                mcp_window *w = &windows[count];
                uint32_t    seq = order[i];

                if (unit_below(&rng, 4) == 0)
                    continue; /* a gap */
                *w = (mcp_window){ .seq = seq, .tokens = tokens[count] };
                w->pos = *engine_kv_length(&together->shards[0].kv, seq, 0);
                w->count = unit_below(&rng, 2) ? 3 : 1 + unit_below(&rng, LONGEST);
                run_tokens(&rng, tokens[count], w->count, n_vocab);
                w->out = (mcp_out)unit_below(&rng, 4);
                w->out_index = chosen[count];
                for (uint32_t t = 0; t < w->count; t++)
                    if (unit_below(&rng, 2))
                        chosen[count][w->out_count++] = t;
                count++;
            }
            unit_ok(engine_forward(together, 0, n_layer, want, windows, count, a,
                                   (size_t)SEQS * LONGEST * n_vocab, &err),
                    &err);
            for (uint32_t i = 0; i < count; i++) {
                uint64_t n = mcp_windows_rows(&windows[i], 1);
                char     what[128];

                /* alone, and in the pieces that a small -ub makes of it */
                unit_ok(engine_forward(alone, 0, n_layer, want, &windows[i], 1, b,
                                       (size_t)LONGEST * n_vocab, &err),
                        &err);
                snprintf(what, sizeof(what), "%s, round %d, window %u of sequence %u (%u tokens)",
                         rows[r].shape, round, i, windows[i].seq, windows[i].count);
                run_rows_near(a + at, b, n, width, rows[r].tolerance, what);
                at += n * width;
                run_lengths(together, windows[i].seq, windows[i].pos + windows[i].count);
            }
        }
        free(a);
        free(b);
        engine_close(together);
        engine_close(alone);
        model_close(m);
    }
}

/* Goal:   tokens and hidden states may come together at layer 0, where a hidden state is the
 *         embedding.
 * Method: three windows of the same tokens, two of them as embeddings, in each order. */
static void tokens_and_embeddings_may_be_mixed(void **state)
{
    struct mcp_model  *m = run_model(unit_synth("mix.gguf", "tiny-qwen2", "q8_0", NULL));
    mcp_engine_opts    o = run_opts();
    size_t             n = m->hp.n_embd, width = m->hp.n_vocab;
    int32_t            tokens[5] = { 7, 300, 2, 2, 99 };
    float             *embedded = run_floats(5 * n), *expected = run_floats(5 * width);
    float             *out = run_floats(15 * width);
    struct mcp_engine *e;
    mcp_error          err;

    (void)state;
    o.seqs = 3;
    e = run_engine(m, &o);
    for (size_t t = 0; t < 5; t++)
        model_embed(m->tensors.global[G_TOKEN_EMBD], tokens[t], embedded + t * n);
    run_append(e, 0, tokens, 5, expected);
    for (uint32_t with_tokens = 0; with_tokens < 8; with_tokens++) {
        mcp_window windows[3];

        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(engine_trim(e, i, 0, NULL), MCP_OK);
            windows[i] = (mcp_window){ .seq = 2 - i, .count = 5, .out = MCP_OUT_ALL };
            if (with_tokens >> i & 1)
                windows[i].tokens = tokens;
            else
                windows[i].hidden = embedded;
        }
        unit_ok(
            engine_forward(e, 0, m->hp.n_layer, MCP_WANT_LOGITS, windows, 3, out, 15 * width, &err),
            &err);
        for (uint32_t i = 0; i < 3; i++)
            run_rows_near(out + 5 * i * width, expected, 5, width, 3e-2f, "a mixed forward");
    }
    free(embedded);
    free(expected);
    free(out);
    engine_close(e);
    model_close(m);
}

/* Goal:   the number of rows is what the windows ask for. */
static void rows_are_counted_by_what_windows_ask_for(void **state)
{
    mcp_window windows[] = {
        { .count = 7, .out = MCP_OUT_NONE, .out_count = 5 },
        { .count = 7, .out = MCP_OUT_LAST, .out_count = 5 },
        { .count = 7, .out = MCP_OUT_ALL, .out_count = 5 },
        { .count = 7, .out = MCP_OUT_CHOSEN, .out_count = 5 },
        { .count = UINT32_MAX, .out = MCP_OUT_ALL },
        { .count = UINT32_MAX, .out = MCP_OUT_ALL },
    };

    (void)state;
    assert_int_equal(mcp_windows_rows(windows, 4), 0 + 1 + 7 + 5);
    assert_true(mcp_windows_rows(windows + 4, 2) == 2 * (uint64_t)UINT32_MAX);
    assert_int_equal(mcp_windows_rows(NULL, 0), 0);
}

/* Goal:   numbers that overflowed do not hurt what comes in their place: neither after the
 *         sequence is emptied, nor after its end is cut off.
 * Method: NaN is written behind the third position, as a forward that overflows does it; the
 *         sequence is cut back and goes on with other tokens, as one that never overflowed. */
static void rows_that_were_cut_off_hurt_nobody(void **state)
{
    static const uint32_t cuts[] = { 0, 1, 3 };
    static const int32_t  tokens[] = { 9, 8, 7, 6, 5, 4, 3, 2 };
    struct mcp_model     *m = run_model(unit_synth("nan.gguf", "tiny-llama", "q4_0", NULL));
    size_t                width = m->hp.n_vocab;
    float                *out = run_floats(8 * width), *expected = run_floats(8 * width);
    uint16_t              nan_row[5 * 128];

    (void)state;
    memset(nan_row, 0xff, sizeof(nan_row));
    for (int flash = 0; flash < 2; flash++)
        for (size_t c = 0; c < UNIT_COUNT(cuts); c++) {
            mcp_engine_opts    o = run_opts();
            struct mcp_engine *e, *fresh;
            char               what[64];

            o.flash = flash ? MCP_FLASH_ON : MCP_FLASH_OFF;
            e = run_engine(m, &o);
            fresh = run_engine(m, &o);
            run_append(e, 0, tokens, 8, out);
            for (uint32_t l = 0; l < 4; l++)
                for (int v = 0; v < 2; v++)
                    assert_int_equal(engine_kv_write(&e->shards[0].kv, 0, l, v != 0, 3, 5,
                                                     (const uint8_t *)nan_row, NULL),
                                     MCP_OK);
            assert_int_equal(engine_trim(e, 0, cuts[c], NULL), MCP_OK);
            run_append(fresh, 0, tokens, 8, expected);
            assert_int_equal(engine_trim(fresh, 0, cuts[c], NULL), MCP_OK);
            run_append(e, 0, tokens + 1, 2, out);
            run_append(fresh, 0, tokens + 1, 2, expected);
            snprintf(what, sizeof(what), "flash %d, cut back to %u", flash, cuts[c]);
            run_rows_equal(out, expected, 2, width, what);
            engine_close(e);
            engine_close(fresh);
        }
    free(out);
    free(expected);
    model_close(m);
}

/* NaN in rows [from, to) of layers [first, last) of sequence 0, as a forward that overflows
 * leaves them. */
static void poison(struct mcp_engine *e, uint32_t first, uint32_t last, uint32_t from, uint32_t to)
{
    struct engine_kv *kv = &e->shards[0].kv;
    size_t            bytes = (to - from) * engine_kv_row_bytes(kv, false);
    uint8_t          *rows = malloc(bytes);

    assert_non_null(rows);
    memset(rows, 0xff, bytes);
    for (uint32_t l = first; l < last; l++)
        for (int v = 0; v < 2; v++)
            assert_int_equal(engine_kv_write(kv, 0, l, v != 0, from, to - from, rows, NULL),
                             MCP_OK);
    free(rows);
}

/* Goal:   rows that were given up are out of the way before anything reads over them: the first
 *         piece of a long window already, and a layer that runs later than others.
 * Method: 200 positions, NaN from 20 on, cut back to 10.  Then a window of 150, of which the
 *         first piece sees columns that only the next pieces overwrite; or two positions through
 *         layers [0, 2) and eight more there, then the two through layers [2, 4). */
static void rows_given_up_hurt_no_later_piece_or_layer(void **state)
{
    struct mcp_model *m = run_model(unit_synth("nan.gguf", "tiny-llama", "q4_0", NULL));
    size_t            width = m->hp.n_vocab, n_embd = m->hp.n_embd;
    float            *out = run_floats(150 * width), *expected = run_floats(150 * width);
    float            *hidden = run_floats(8 * n_embd), *spare = run_floats(8 * n_embd);
    uint64_t          rng = unit_seed();
    int32_t           tokens[200];

    (void)state;
    run_tokens(&rng, tokens, 200, m->hp.n_vocab);
    for (int kind = 0; kind < 4; kind++) {
        mcp_engine_opts    o = run_opts();
        struct mcp_engine *e[2];

        o.flash = kind % 2 ? MCP_FLASH_ON : MCP_FLASH_OFF;
        for (int i = 0; i < 2; i++) {
            float     *rows = i == 0 ? expected : out;
            mcp_window two = { .pos = 10, .count = 2, .tokens = tokens, .out = MCP_OUT_ALL };
            mcp_window more = { .pos = 12, .count = 8, .tokens = tokens, .out = MCP_OUT_ALL };
            mcp_error  err;

            e[i] = run_engine(m, &o);
            run_append(e[i], 0, tokens, 10, NULL);
            if (i == 1) {
                run_append(e[i], 0, tokens + 10, 190, NULL);
                poison(e[i], 0, 4, 20, 200);
                assert_int_equal(engine_trim(e[i], 0, 10, NULL), MCP_OK);
            }
            if (kind < 2) {
                run_append(e[i], 0, tokens + 20, 150, rows);
                continue;
            }
            unit_ok(engine_forward(e[i], 0, 2, MCP_WANT_HIDDEN, &two, 1, hidden, 2 * n_embd, &err),
                    &err);
            unit_ok(engine_forward(e[i], 0, 2, MCP_WANT_HIDDEN, &more, 1, spare, 8 * n_embd, &err),
                    &err);
            two.tokens = NULL;
            two.hidden = hidden;
            unit_ok(engine_forward(e[i], 2, 4, MCP_WANT_LOGITS, &two, 1, rows, 2 * width, &err),
                    &err);
        }
        run_rows_equal(out, expected, kind < 2 ? 150 : 2, width,
                       kind < 2 ? "a long window" : "a later layer");
        engine_close(e[0]);
        engine_close(e[1]);
    }
    free(hidden);
    free(spare);
    free(out);
    free(expected);
    model_close(m);
}

/* ---- refusals ------------------------------------------------------------------- */

/* What a refused forward is made of: one good window, then one change. */
struct attempt {
    struct mcp_engine *e;
    uint32_t           first, last;
    mcp_want           want;
    mcp_window         windows[3];
    uint32_t           count;
    float             *out;
    size_t             floats;
};

/* Goal:   a forward that is refused or fails leaves every length, and the rows behind them,
 *         as they were.
 * Method: two sequences begun; every refusal in turn; then both go on with the bits of an
 *         engine that was never asked. */
static void a_refused_forward_changes_nothing(void **state)
{
    struct mcp_model  *m = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    uint32_t           n_vocab = m->hp.n_vocab, n_embd = m->hp.n_embd;
    mcp_engine_opts    o = run_opts();
    struct mcp_engine *e, *fresh;
    uint64_t           rng = unit_seed();
    int32_t            tokens[64], bad_tokens[4] = { 1, 2, (int32_t)n_vocab, 3 };
    int32_t            negative[4] = { 1, 2, -1, 3 };
    uint32_t           backwards[] = { 2, 1 }, twice[] = { 1, 1 }, outside[] = { 4 };
    float             *out = run_floats((size_t)64 * n_vocab), *expected, *hidden, *poisoned;

    (void)state;
    o.ctx_tokens = 40;
    o.batch_tokens = 24;
    o.seqs = 3;
    e = run_engine(m, &o);
    fresh = run_engine(m, &o);
    run_tokens(&rng, tokens, 64, n_vocab);
    hidden = run_floats((size_t)8 * n_embd);
    poisoned = run_floats((size_t)8 * n_embd);
    expected = run_floats((size_t)64 * n_vocab);
    for (size_t i = 0; i < (size_t)8 * n_embd; i++)
        hidden[i] = poisoned[i] = (float)unit_below(&rng, 2000) / 1000.0f - 1.0f;
    poisoned[3 * n_embd + 5] = INFINITY;
    for (uint32_t seq = 0; seq < 2; seq++) {
        run_append(e, seq, tokens, 11, out);
        run_append(fresh, seq, tokens, 11, expected);
    }

#define REFUSE(expected_code, text, change)                                                  \
    do {                                                                                     \
        struct attempt a = { .e = e,                                                         \
                             .last = 4,                                                      \
                             .want = MCP_WANT_LOGITS,                                        \
                             .count = 2,                                                     \
                             .out = out,                                                     \
                             .floats = (size_t)64 * n_vocab };                               \
        mcp_error      err;                                                                  \
        for (uint32_t i_ = 0; i_ < 3; i_++)                                                  \
            a.windows[i_] = (mcp_window){ .seq = i_,                                         \
                                          .pos = i_ < 2 ? 11 : 0,                            \
                                          .count = 4,                                        \
                                          .tokens = tokens + 20,                             \
                                          .out = MCP_OUT_ALL };                              \
        change;                                                                              \
        unit_refused(engine_forward(a.e, a.first, a.last, a.want, a.windows, a.count, a.out, \
                                    a.floats, &err),                                         \
                     expected_code, &err, text);                                             \
        run_lengths(e, 0, 11);                                                               \
        run_lengths(e, 1, 11);                                                               \
        run_lengths(e, 2, 0);                                                                \
    } while (0)

    REFUSE(MCP_ERANGE, "layers [0, 5)", a.last = 5);
    REFUSE(MCP_ERANGE, "layers [2, 2)", a.first = a.last = 2);
    REFUSE(MCP_ERANGE, "logits come after layer 4", a.last = 3);
    REFUSE(MCP_EINVAL, "want 7", a.want = (mcp_want)7);
    REFUSE(MCP_EINVAL, "want -1", a.want = (mcp_want)-1);
    REFUSE(MCP_ERANGE, "4 windows for 3 sequences", a.count = 4);
    REFUSE(MCP_ERANGE, "sequence 3: the engine has 3", a.windows[1].seq = 3);
    REFUSE(MCP_EINVAL, "sequence 0 has two windows", a.windows[1].seq = 0);
    REFUSE(MCP_EINVAL, "is empty", a.windows[1].count = 0);
    REFUSE(MCP_ERANGE, "sequence 1 has 11 positions in layer 0", a.windows[1].pos = 10);
    REFUSE(MCP_ERANGE, "sequence 1 has 11 positions in layer 0", a.windows[1].pos = 12);
    REFUSE(MCP_ERANGE, "exceed the context of 40", a.windows[1].count = 30);
    REFUSE(MCP_ERANGE, "exceed the context of 40", a.windows[1].count = UINT32_MAX);
    REFUSE(MCP_ERANGE, "exceed the context of 40", a.windows[1].pos = UINT32_MAX);
    REFUSE(MCP_ERANGE, "27 tokens in one forward, at most 24",
           (a.windows[0].count = 11, a.windows[1].count = 16));
    REFUSE(MCP_EINVAL, "either tokens or a hidden state", a.windows[1].tokens = NULL);
    REFUSE(MCP_EINVAL, "either tokens or a hidden state", a.windows[1].hidden = hidden);
    REFUSE(MCP_EINVAL, "tokens enter at layer 0", a.first = 1);
    REFUSE(MCP_ERANGE, "is outside the vocabulary", a.windows[1].tokens = bad_tokens);
    REFUSE(MCP_ERANGE, "token -1 at position 13", a.windows[1].tokens = negative);
    REFUSE(MCP_EINVAL, "NaN or infinity",
           (a.windows[1].tokens = NULL, a.windows[1].hidden = poisoned));
    REFUSE(MCP_EINVAL, "window output 4", a.windows[1].out = (mcp_out)4);
    REFUSE(MCP_EINVAL, "without out_index",
           (a.windows[1].out = MCP_OUT_CHOSEN, a.windows[1].out_count = 1));
    REFUSE(MCP_EINVAL, "is not ascending",
           (a.windows[1].out = MCP_OUT_CHOSEN, a.windows[1].out_count = 2,
            a.windows[1].out_index = backwards));
    REFUSE(MCP_EINVAL, "is not ascending",
           (a.windows[1].out = MCP_OUT_CHOSEN, a.windows[1].out_count = 2,
            a.windows[1].out_index = twice));
    REFUSE(MCP_EINVAL, "out_index 4",
           (a.windows[1].out = MCP_OUT_CHOSEN, a.windows[1].out_count = 1,
            a.windows[1].out_index = outside));
    REFUSE(MCP_EINVAL, "8 rows of", a.out = NULL);
    REFUSE(MCP_EINVAL, "8 rows of", a.floats = (size_t)8 * n_vocab - 1);
    REFUSE(MCP_EINVAL, "8 rows of", (a.want = MCP_WANT_HIDDEN, a.floats = (size_t)8 * n_embd - 1));
    REFUSE(MCP_ECANCELED, "cancelled", atomic_store(&e->cancel, 1));
#undef REFUSE

    for (uint32_t seq = 0; seq < 2; seq++) {
        run_append(e, seq, tokens + 20, 4, out);
        run_append(fresh, seq, tokens + 20, 4, expected);
        run_rows_equal(out, expected, 4, n_vocab, "after the refusals");
    }
    assert_int_equal(engine_forward(e, 0, 4, MCP_WANT_LOGITS, NULL, 0, NULL, 0, NULL), MCP_OK);
    free(out);
    free(expected);
    free(hidden);
    free(poisoned);
    engine_close(e);
    engine_close(fresh);
    model_close(m);
}

/* ---- cancel --------------------------------------------------------------------- */

struct canceller {
    struct mcp_engine *e;
    atomic_int         running;
};

static void *cancel_soon(void *ctx)
{
    struct canceller     *c = ctx;
    const struct timespec soon = { .tv_nsec = 2 * 1000 * 1000 };

    while (!atomic_load(&c->running))
        sched_yield();
    nanosleep(&soon, NULL);
    atomic_store(&c->e->cancel, 1);
    return NULL;
}

/* Goal:   a running forward ends with MCP_ECANCELED, nothing has grown, and the next one
 *         works and has the right bits.
 * Method: another thread cancels a prefill of 960 tokens through 24 layers, which takes some
 *         hundred milliseconds; a flag set before any forward cancels the next one only. */
static void a_running_forward_can_be_cancelled(void **state)
{
    struct mcp_model *m = run_model(unit_synth("long.gguf", "tiny-llama-256", "q4_0", "--set",
                                               "layers=24", "--set", "ff=2048", NULL));
    mcp_engine_opts   o = run_opts();
    struct canceller  c;
    pthread_t         thread;
    int32_t          *tokens = calloc(960, sizeof(*tokens));
    uint64_t          rng = unit_seed();
    uint32_t          n = m->hp.n_layer;
    float            *out = run_floats((size_t)8 * m->hp.n_vocab);
    float            *expected = run_floats((size_t)8 * m->hp.n_vocab);
    mcp_window        w = { .count = 960, .tokens = tokens, .out = MCP_OUT_LAST };
    mcp_error         err;
    int               rc = MCP_OK;

    (void)state;
    assert_non_null(tokens);
    run_tokens(&rng, tokens, 960, m->hp.n_vocab);
    o.ctx_tokens = o.batch_tokens = 1024;
    o.ubatch_tokens = 1024; /* one graph: only a node can notice */
    c.e = run_engine(m, &o);
    run_append(c.e, 0, tokens, 8, expected);
    unit_ok(engine_trim(c.e, 0, 0, &err), &err);

    for (int attempt = 0; rc != MCP_ECANCELED; attempt++) { /* on a busy machine it may win */
        assert_true(attempt < 20);
        atomic_store(&c.running, 0);
        assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &c), 0);
        atomic_store(&c.running, 1);
        rc = engine_forward(c.e, 0, n, MCP_WANT_LOGITS, &w, 1, out, m->hp.n_vocab, &err);
        pthread_join(thread, NULL);
        if (rc == MCP_OK) {
            atomic_store(&c.e->cancel, 0);
            unit_ok(engine_trim(c.e, 0, 0, &err), &err);
        } else {
            unit_refused(rc, MCP_ECANCELED, &err, "cancelled");
        }
    }
    run_lengths(c.e, 0, 0);
    run_append(c.e, 0, tokens, 8, out);
    run_rows_equal(out, expected, 8, m->hp.n_vocab, "after a cancelled forward");

    unit_ok(engine_trim(c.e, 0, 0, &err), &err);
    atomic_store(&c.e->cancel, 1);
    w.count = 8;
    unit_refused(engine_forward(c.e, 0, n, MCP_WANT_LOGITS, &w, 1, out, m->hp.n_vocab, &err),
                 MCP_ECANCELED, &err, "cancelled");
    run_lengths(c.e, 0, 0);
    run_append(c.e, 0, tokens, 8, out);
    run_rows_equal(out, expected, 8, m->hp.n_vocab, "after a forward cancelled before it began");
    free(tokens);
    free(out);
    free(expected);
    engine_close(c.e);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_together_equal_each_alone),
        cmocka_unit_test(tokens_and_embeddings_may_be_mixed),
        cmocka_unit_test(rows_are_counted_by_what_windows_ask_for),
        cmocka_unit_test(rows_that_were_cut_off_hurt_nobody),
        cmocka_unit_test(rows_given_up_hurt_no_later_piece_or_layer),
        cmocka_unit_test(a_refused_forward_changes_nothing),
        cmocka_unit_test(a_running_forward_can_be_cancelled),
    };

    return cmocka_run_group_tests_name("engine/forward", tests, NULL, NULL);
}
