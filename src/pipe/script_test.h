/* pipe/script_test.h - a pipeline driven by hand: tell it something, say what it must ask for.
 *
 * One thread, one pipeline at a time.  SPDX-License-Identifier: MIT */
#ifndef PIPE_SCRIPT_TEST_H
#define PIPE_SCRIPT_TEST_H

#include "base/unit_test.h"
#include "pipe/pipeline.h"

enum { SCRIPT_CODEC = 7, SCRIPT_ROW_BYTES = 8 };

static const enum pipe_want NONE = PIPE_WANT_NONE, LAST = PIPE_WANT_LAST, ALL = PIPE_WANT_ALL;

static struct pipeline *script_pipeline;
static double           script_ms;     /* the clock: moves only when a test says so */
static uint32_t         script_codec;  /* of the rows in answers */
static uint64_t         script_number; /* of the last FORWARD */

static inline void script_begin(uint32_t stages, uint32_t windows_max, bool journal)
{
    struct pipeline_stage stage[PIPE_STAGES_MAX];
    mcp_error             err;

    for (uint32_t i = 0; i < stages; i++)
        stage[i] = (struct pipeline_stage){ i, i + 1, journal };
    script_ms = 1000.0;
    script_codec = SCRIPT_CODEC;
    script_number = 0;
    unit_ok(pipeline_new(&script_pipeline,
                         &(struct pipeline_opts){
                             .stages = stage, .count = stages, .windows_max = windows_max },
                         &err),
            &err);
}

static inline void script_end(void)
{
    pipeline_free(script_pipeline);
    script_pipeline = NULL;
}

/* ---- tell ------------------------------------------------------------------------------- */

static inline uint64_t script_submit(uint32_t count, enum pipe_want want)
{
    int32_t   tokens[1024];
    uint64_t  number = 0;
    mcp_error err;

    for (uint32_t i = 0; i < count; i++)
        tokens[i] = (int32_t)(pipeline_length(script_pipeline) + i);
    unit_ok(pipeline_submit(script_pipeline, script_ms, tokens, count, want, &number, &err), &err);
    return number;
}

static inline void script_trim(uint32_t pos)
{
    mcp_error err;

    unit_ok(pipeline_trim(script_pipeline, script_ms, pos, &err), &err);
}

static inline void script_opened_as(uint32_t stage, uint32_t endpoint, struct pipe_opened opened)
{
    pipeline_opened(script_pipeline, script_ms, stage, endpoint, &opened);
}

/* A new session that takes `windows_max` windows. */
static inline void script_opened(uint32_t stage, uint32_t endpoint, uint32_t windows_max)
{
    script_opened_as(stage, endpoint, (struct pipe_opened){ .windows_max = windows_max });
}

static inline void script_answer(uint32_t endpoint, uint64_t number, uint32_t rows)
{
    struct pipe_block *block = rows > 0 ? pipe_block_new(script_codec, rows, SCRIPT_ROW_BYTES)
                                        : NULL;

    if (block != NULL)
        memset(block->data, (int)(number & 0xff), block->bytes);
    pipeline_result(script_pipeline, script_ms, endpoint, number, block,
                    (struct pipe_timing){ .queue_us = 1000, .compute_us = 2000 });
    pipe_block_unref(block);
}

static inline void script_lost(uint32_t endpoint)
{
    pipeline_lost(script_pipeline, script_ms, endpoint,
                  &(mcp_error){ MCP_EUNAVAIL, "the connection is gone" });
}

static inline void script_draining(uint32_t endpoint)
{
    pipeline_draining(script_pipeline, script_ms, endpoint);
}

static inline void script_unavailable(uint32_t stage)
{
    pipeline_unavailable(script_pipeline, script_ms, stage,
                         &(mcp_error){ MCP_EUNAVAIL, "no worker is left" });
}

/* ---- what it must ask for --------------------------------------------------------------- */

static inline struct pipe_act script_next(enum pipe_act_kind kind)
{
    static const char *const names[] = { "OPEN", "FORWARD", "TRIM", "CLOSE", "OUTPUT", "FAILED" };
    struct pipe_act          act;

    if (!pipeline_act(script_pipeline, script_ms, &act))
        fail_msg("it asks for nothing, not for %s", names[kind]);
    if (act.kind != kind)
        fail_msg("it asks for %s (stage %u, endpoint %u, position %u, count %u), not for %s",
                 names[act.kind], act.stage, act.endpoint, act.pos, act.count, names[kind]);
    return act;
}

static inline void wants_nothing(void)
{
    struct pipe_act act;

    if (pipeline_act(script_pipeline, script_ms, &act))
        fail_msg("it asks for act %d (stage %u, endpoint %u, position %u, count %u), not nothing",
                 act.kind, act.stage, act.endpoint, act.pos, act.count);
}

static inline void wants_open(uint32_t stage, uint32_t lost, bool lost_answers)
{
    struct pipe_act act = script_next(PIPE_ACT_OPEN);

    assert_int_equal(act.stage, stage);
    assert_int_equal(act.lost, lost);
    assert_int_equal(act.lost_answers, lost_answers);
}

/* Returns its number. */
static inline uint64_t wants_forward(uint32_t endpoint, uint32_t epoch, uint32_t pos,
                                     uint32_t count, enum pipe_want want)
{
    struct pipe_act act = script_next(PIPE_ACT_FORWARD);

    if (act.endpoint != endpoint || act.epoch != epoch || act.pos != pos || act.count != count ||
        act.want != want)
        fail_msg("FORWARD to %u in epoch %u of [%u, +%u) wanting %d, not to %u in %u of [%u, +%u) "
                 "wanting %d",
                 act.endpoint, act.epoch, act.pos, act.count, act.want, endpoint, epoch, pos, count,
                 want);
    assert_true(act.number > script_number);
    script_number = act.number;
    assert_true((act.tokens != NULL) == (act.stage == 0));
    assert_true((act.block != NULL) == (act.stage > 0));
    if (act.block != NULL)
        assert_int_equal(act.block->rows, count);
    for (uint32_t i = 0; act.tokens != NULL && i < count; i++)
        assert_int_equal(act.tokens[i], pos + i);
    pipe_block_unref(act.block);
    return act.number;
}

static inline void wants_trim(uint32_t endpoint, uint32_t epoch, uint32_t pos)
{
    struct pipe_act act = script_next(PIPE_ACT_TRIM);

    if (act.endpoint != endpoint || act.epoch != epoch || act.pos != pos)
        fail_msg("TRIM of %u in epoch %u to %u, not of %u in %u to %u", act.endpoint, act.epoch,
                 act.pos, endpoint, epoch, pos);
}

static inline void wants_close(uint32_t endpoint, bool broken)
{
    struct pipe_act act = script_next(PIPE_ACT_CLOSE);

    assert_int_equal(act.endpoint, endpoint);
    assert_int_equal(act.error.code, broken ? MCP_EFORMAT : MCP_OK);
}

static inline void wants_output(uint64_t number, uint32_t rows)
{
    struct pipe_act act = script_next(PIPE_ACT_OUTPUT);

    assert_int_equal(act.number, number);
    assert_int_equal(act.block != NULL ? act.block->rows : 0, rows);
    pipe_block_unref(act.block);
}

static inline void wants_failed(int code)
{
    assert_int_equal(script_next(PIPE_ACT_FAILED).error.code, code);
}

#endif
