/* pipe/pipeline_test.c - what passes from stage to stage, and what a failure undoes.
 *
 * The stages are fakes behind the same vtable as real ones: each notes its calls in one
 * common journal, and adds its number to what comes in.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/pipeline.h"

#include "base/fail.h"
#include "base/unit_test.h"

#include <math.h>

enum { N_EMBD = 4, N_VOCAB = 6, WINDOW = 8, JOURNAL = 64 };

enum act { FORWARD, TRIM, CLOSE };

static struct {
    enum act act;
    uint32_t stage;
    uint32_t pos;
} journal[JOURNAL];
static size_t journal_count;

struct fake {
    struct pipe_stage stage;
    uint32_t          index, count;
    uint32_t          length; /* positions computed */
    int               fails;  /* code that the next forward returns */
    int               trim_fails;
};

static void note(enum act act, uint32_t stage, uint32_t pos)
{
    assert_true(journal_count < JOURNAL);
    journal[journal_count].act = act;
    journal[journal_count].stage = stage;
    journal[journal_count++].pos = pos;
}

/* Hidden state of position p from stage s: 1000 * (token) + 10 * p + number of stages passed;
 * every element the same plus its index / 10. */
static int fake_forward(struct pipe_stage *stage, const mcp_window *w, float *out,
                        size_t out_floats, mcp_error *err)
{
    struct fake *f = (struct fake *)stage;
    bool         final = f->index + 1 == f->count;
    size_t       rows = w->out == MCP_OUT_ALL ? w->count : w->out == MCP_OUT_LAST ? 1 : 0;

    note(FORWARD, f->index, w->pos);
    assert_int_equal(w->pos, f->length);
    assert_int_equal(w->seq, 3);
    assert_int_equal(w->out, !final ? MCP_OUT_ALL : out != NULL ? MCP_OUT_LAST : MCP_OUT_NONE);
    assert_true((w->tokens != NULL) == (f->index == 0));
    assert_true((w->hidden != NULL) == (f->index > 0));
    assert_true(out_floats >= rows * (final ? N_VOCAB : N_EMBD));
    if (f->fails != 0)
        return base_fail(err, f->fails, "stage %u failed as told", f->index);
    for (size_t i = 0; i < rows * (final ? N_VOCAB : N_EMBD); i++)
        out[i] = NAN; /* what comes in must lie elsewhere */
    for (uint32_t i = 0; i < w->count; i++) {
        float in[N_EMBD];

        for (uint32_t j = 0; j < N_EMBD; j++)
            in[j] = f->index == 0 ? (float)(1000 * w->tokens[i]) + 10.0f * (float)(w->pos + i) +
                                        (float)j / 10.0f
                                  : w->hidden[i * N_EMBD + j];
        if (final && (out == NULL || i + 1 < w->count))
            continue;
        for (uint32_t j = 0; j < (final ? N_VOCAB : N_EMBD); j++)
            out[(final ? 0 : i * N_EMBD) + j] = in[j % N_EMBD] + 1.0f;
    }
    f->length += w->count;
    return MCP_OK;
}

static int fake_trim(struct pipe_stage *stage, uint32_t pos, mcp_error *err)
{
    struct fake *f = (struct fake *)stage;

    note(TRIM, f->index, pos);
    if (f->trim_fails != 0)
        return base_fail(err, f->trim_fails, "stage %u does not trim", f->index);
    f->length = f->length > pos ? pos : f->length;
    return MCP_OK;
}

static void fake_close(struct pipe_stage *stage)
{
    note(CLOSE, ((struct fake *)stage)->index, 0);
    free(stage);
}

static const struct pipe_stage_ops fake_ops = { fake_forward, fake_trim, fake_close };

static void open_fakes(struct pipeline *p, uint32_t count)
{
    struct pipe_stage **stages = calloc(count, sizeof(struct pipe_stage *));
    mcp_error           err;

    assert_non_null(stages);
    for (uint32_t i = 0; i < count; i++) {
        struct fake *f = calloc(1, sizeof(*f));

        assert_non_null(f);
        *f = (struct fake){ .stage = { &fake_ops, i, i + 1 }, .index = i, .count = count };
        stages[i] = &f->stage;
    }
    journal_count = 0;
    unit_ok(pipeline_open(p, stages, count, N_EMBD, N_VOCAB, WINDOW, &err), &err);
    assert_int_equal(journal_count, 0);
}

static struct fake *fake_of(const struct pipeline *p, uint32_t i)
{
    return (struct fake *)p->stages[i];
}

static void journal_must_be(size_t at, enum act act, uint32_t stage, uint32_t pos)
{
    assert_true(at < journal_count);
    assert_int_equal(journal[at].act, act);
    assert_int_equal(journal[at].stage, stage);
    assert_int_equal(journal[at].pos, pos);
}

/* Goal:   each stage runs once, in order, on what the one before gave, and the last one
 *         alone makes logits, of the last position.
 * Method: pipelines of one to five stages, windows of several lengths. */
static void stages_run_in_order_on_what_the_one_before_gave(void **state)
{
    static const int32_t tokens[WINDOW] = { 7, 1, 2, 3, 4, 5, 6, 9 };

    (void)state;
    for (uint32_t count = 1; count <= 5; count++) {
        struct pipeline p;
        uint32_t        pos = 0;

        open_fakes(&p, count);
        for (uint32_t n = 1; n <= WINDOW; n++) {
            float     logits[N_VOCAB + 1];
            mcp_error err;

            logits[N_VOCAB] = -1.0f;
            journal_count = 0;
            unit_ok(pipeline_forward(&p, 3, pos, tokens, n, logits, &err), &err);
            assert_int_equal(journal_count, count);
            for (uint32_t i = 0; i < count; i++)
                journal_must_be(i, FORWARD, i, pos);
            for (uint32_t j = 0; j < N_VOCAB; j++)
                assert_true(logits[j] == (float)(1000 * tokens[n - 1]) +
                                             10.0f * (float)(pos + n - 1) +
                                             (float)(j % N_EMBD) / 10.0f + (float)count);
            assert_true(logits[N_VOCAB] == -1.0f);
            pos += n;
        }
        pipeline_close(&p);
    }
}

/* Goal:   without logits wanted the last stage is asked for nothing but its KV. */
static void without_logits_only_the_kv_is_filled(void **state)
{
    static const int32_t tokens[] = { 1, 2 };
    struct pipeline      p;

    (void)state;
    open_fakes(&p, 3);
    assert_int_equal(pipeline_forward(&p, 3, 0, tokens, 2, NULL, NULL), MCP_OK);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(fake_of(&p, i)->length, 2);
    pipeline_close(&p);
}

/* Goal:   when a stage fails, those behind it do not run, and all are brought back to where
 *         the window began, also those that had computed it.
 * Method: each stage in turn, with each kind of failure; then the same window again. */
static void a_failed_stage_brings_all_back(void **state)
{
    static const int     codes[] = { MCP_ENOMEM, MCP_ECANCELED, MCP_EDEVICE };
    static const int32_t tokens[] = { 1, 2, 3, 4, 5 };

    (void)state;
    for (uint32_t bad = 0; bad < 4; bad++)
        for (size_t c = 0; c < UNIT_COUNT(codes); c++) {
            struct pipeline p;
            float           logits[N_VOCAB];
            mcp_error       err = { 0 };
            char            about[32];

            open_fakes(&p, 4);
            unit_ok(pipeline_forward(&p, 3, 0, tokens, 2, logits, &err), &err);
            fake_of(&p, bad)->fails = codes[c];
            journal_count = 0;
            snprintf(about, sizeof(about), "stage %u failed", bad);
            unit_refused(pipeline_forward(&p, 3, 2, tokens + 2, 3, logits, &err), codes[c], &err,
                         about);
            assert_int_equal(journal_count, bad + 1 + 4);
            for (uint32_t i = 0; i <= bad; i++)
                journal_must_be(i, FORWARD, i, 2);
            for (uint32_t i = 0; i < 4; i++) {
                journal_must_be(bad + 1 + i, TRIM, i, 2);
                assert_int_equal(fake_of(&p, i)->length, 2);
            }
            fake_of(&p, bad)->fails = 0;
            unit_ok(pipeline_forward(&p, 3, 2, tokens + 2, 3, logits, &err), &err);
            assert_true(logits[0] == 5000.0f + 40.0f + 4.0f);
            pipeline_close(&p);
        }
}

/* Goal:   a stage that cannot even trim does not keep the others from it, nor replace the
 *         first sentence. */
static void a_stage_that_does_not_trim_hides_no_failure(void **state)
{
    static const int32_t tokens[] = { 1 };
    struct pipeline      p;
    float                logits[N_VOCAB];
    mcp_error            err = { 0 };

    (void)state;
    open_fakes(&p, 3);
    fake_of(&p, 2)->fails = MCP_EIO;
    fake_of(&p, 0)->trim_fails = MCP_EDEVICE;
    unit_refused(pipeline_forward(&p, 3, 0, tokens, 1, logits, &err), MCP_EIO, &err,
                 "stage 2 failed");
    assert_int_equal(fake_of(&p, 1)->length, 0);
    assert_int_equal(journal_count, 3 + 3);
    pipeline_close(&p);
}

/* Goal:   trimming reaches every stage, and the first failure is told. */
static void trimming_reaches_every_stage(void **state)
{
    static const int32_t tokens[] = { 1, 2, 3 };
    struct pipeline      p;
    mcp_error            err = { 0 };

    (void)state;
    open_fakes(&p, 3);
    unit_ok(pipeline_forward(&p, 3, 0, tokens, 3, NULL, &err), &err);
    journal_count = 0;
    unit_ok(pipeline_trim(&p, 1, &err), &err);
    assert_int_equal(journal_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        journal_must_be(i, TRIM, i, 1);
        assert_int_equal(fake_of(&p, i)->length, 1);
    }
    fake_of(&p, 1)->trim_fails = MCP_EIO;
    unit_refused(pipeline_trim(&p, 0, &err), MCP_EIO, &err, "stage 1 does not trim");
    pipeline_close(&p);
}

/* Goal:   closing closes every stage once, also of a pipeline whose stages are not all made,
 *         and takes a zeroed one. */
static void closing_closes_every_stage_once(void **state)
{
    struct pipeline p;

    (void)state;
    open_fakes(&p, 4);
    pipeline_close(&p);
    assert_int_equal(journal_count, 4);
    for (uint32_t i = 0; i < 4; i++)
        journal_must_be(i, CLOSE, i, 0);
    assert_null(p.stages);
    assert_int_equal(p.count, 0);
    pipeline_close(&p);
    assert_int_equal(journal_count, 4);

    open_fakes(&p, 3);
    free(p.stages[1]);
    p.stages[1] = NULL; /* opening stopped before it was made */
    pipeline_close(&p);
    assert_int_equal(journal_count, 2);
    journal_must_be(1, CLOSE, 2, 0);
}

#if !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__) /* which end the program instead of returning NULL */
/* Goal:   a pipeline that does not fit in memory is MCP_ENOMEM, and its stages are closed:
 *         they were taken over. */
static void a_pipeline_without_memory_closes_its_stages(void **state)
{
    struct pipe_stage **stages = calloc(2, sizeof(struct pipe_stage *));
    struct pipeline     p;
    mcp_error           err;

    (void)state;
    assert_non_null(stages);
    for (uint32_t i = 0; i < 2; i++) {
        struct fake *f = calloc(1, sizeof(*f));

        assert_non_null(f);
        *f = (struct fake){ .stage = { &fake_ops, i, i + 1 }, .index = i, .count = 2 };
        stages[i] = &f->stage;
    }
    journal_count = 0;
    unit_refused(pipeline_open(&p, stages, 2, 1u << 30, N_VOCAB, 1u << 31, &err), MCP_ENOMEM, &err,
                 "hidden states of 2147483648 tokens");
    assert_int_equal(journal_count, 2);
    assert_null(p.stages);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_run_in_order_on_what_the_one_before_gave),
        cmocka_unit_test(without_logits_only_the_kv_is_filled),
        cmocka_unit_test(a_failed_stage_brings_all_back),
        cmocka_unit_test(a_stage_that_does_not_trim_hides_no_failure),
        cmocka_unit_test(trimming_reaches_every_stage),
        cmocka_unit_test(closing_closes_every_stage_once),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(a_pipeline_without_memory_closes_its_stages),
#endif
    };

    return cmocka_run_group_tests_name("pipe/pipeline", tests, NULL, NULL);
}
