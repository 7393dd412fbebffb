/* api/arguments_test.c - NULL, and broken options, at the door of the public functions.
 *
 * SPDX-License-Identifier: MIT */
#include "base/unit_test.h"

#include <math.h>
#include <mcp/generate.h>

static const char   *path;
static mcp_model    *model;
static mcp_engine   *engine;
static mcp_session  *session;
static const int32_t tokens[] = { 1, 2, 3 };

static mcp_engine_opts small_opts(void)
{
    mcp_engine_opts o = MCP_ENGINE_OPTS_INIT;

    o.device = "cpu";
    o.threads = 1;
    o.ctx_tokens = 64;
    o.batch_tokens = o.ubatch_tokens = 32;
    o.seqs = 2;
    return o;
}

static int everything_begin(void **state)
{
    mcp_engine_opts o = small_opts();
    mcp_error       err;

    (void)state;
    path = unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL);
    unit_ok(mcp_model_open(&model, path, &err), &err);
    unit_ok(mcp_engine_open(&engine, model, &o, &err), &err);
    unit_ok(mcp_session_open(&session, engine, NULL, &err), &err);
    return 0;
}

static int everything_end(void **state)
{
    (void)state;
    mcp_session_close(session);
    mcp_engine_close(engine);
    mcp_model_close(model);
    return 0;
}

/* The call answers MCP_EINVAL with a sentence, and the same without a place for one. */
#define INVALID(call_with_err)                                                    \
    do {                                                                          \
        mcp_error own = { 0 }, *err = &own;                                       \
        int       rc = (call_with_err);                                           \
        if (rc != MCP_EINVAL || own.code != rc || own.text[0] == '\0')            \
            fail_msg("%s: %s (%s)", #call_with_err, mcp_code_name(rc), own.text); \
        err = NULL;                                                               \
        assert_int_equal((call_with_err), MCP_EINVAL);                            \
    } while (0)

/* Goal:   NULL for what is required is MCP_EINVAL, never a crash.
 * Method: every function of mcp/model.h, each argument in turn. */
static void null_is_refused_by_the_functions_of_a_model(void **state)
{
    static const mcp_chat_message no_role[] = { { "user", "a" }, { NULL, "b" } };
    static const mcp_chat_message no_content[] = { { "user", NULL } };
    uint8_t                       print[MCP_FINGERPRINT_BYTES];
    int32_t                       ids[4];
    char                          text[64];
    mcp_model                    *m = (mcp_model *)0x5a;

    (void)state;
    INVALID(mcp_model_open(NULL, path, err));
    INVALID(mcp_model_open(&m, NULL, err));
    assert_null(m);
    mcp_model_close(NULL);
    assert_null(mcp_model_get_info(NULL));
    assert_int_equal(mcp_model_range_bytes(NULL, 0, 4), 0);
    INVALID(mcp_model_fingerprint(NULL, print, err));
    INVALID(mcp_model_fingerprint(model, NULL, err));
    INVALID(mcp_model_weights_fingerprint(NULL, 0, print, err));
    INVALID(mcp_model_weights_fingerprint(model, 0, NULL, err));
    INVALID(mcp_model_tokenize(NULL, "a", 1, 0, ids, 4, err));
    INVALID(mcp_model_tokenize(model, NULL, 1, 0, ids, 4, err));
    INVALID(mcp_model_tokenize(model, "a", 1, 0, NULL, 4, err));
    assert_int_equal(mcp_model_tokenize(model, NULL, 0, 0, NULL, 0, NULL), 0);
    INVALID(mcp_model_token_bytes(NULL, 1, 0, text, sizeof(text), err));
    INVALID(mcp_model_token_bytes(model, 1, 0, NULL, sizeof(text), err));
    assert_true(mcp_model_token_bytes(model, 1, 1, NULL, 0, NULL) >= 0);
    assert_int_equal(mcp_model_token_ends(NULL, 1), 0);
    assert_int_equal(mcp_model_token_ends(model, -1), 0);
    INVALID(mcp_model_chat_format(NULL, NULL, 0, 0, text, sizeof(text), err));
    INVALID(mcp_model_chat_format(model, NULL, 1, 0, text, sizeof(text), err));
    INVALID(mcp_model_chat_format(model, no_role, 1, 0, NULL, sizeof(text), err));
    INVALID(mcp_model_chat_format(model, no_role, 2, 0, text, sizeof(text), err));
    INVALID(mcp_model_chat_format(model, no_content, 1, 0, text, sizeof(text), err));
}

/* Goal:   the same for mcp/engine.h. */
static void null_is_refused_by_the_functions_of_an_engine(void **state)
{
    mcp_engine_opts o = small_opts();
    mcp_engine_info info;
    mcp_engine     *e = (mcp_engine *)0x5a;
    mcp_window      w = { .count = 3, .tokens = tokens, .out = MCP_OUT_LAST };
    float           out[512];
    uint8_t         block[4096];
    size_t          bytes = sizeof(block);
    mcp_device      devices[1];

    (void)state;
    assert_true(mcp_devices(NULL, 0) >= 1);
    assert_int_equal(mcp_devices(NULL, 100), mcp_devices(devices, 1));
    assert_true(devices[0].name[0] != '\0');
    INVALID(mcp_engine_open(NULL, model, &o, err));
    INVALID(mcp_engine_open(&e, NULL, &o, err));
    assert_null(e);
    o.device = NULL; /* as "auto" */
    assert_int_equal(mcp_engine_open(&e, model, &o, NULL), MCP_OK);
    mcp_engine_close(e);
    mcp_engine_close(NULL);
    assert_int_equal(mcp_engine_get_info(NULL, &info), MCP_EINVAL);
    assert_int_equal(mcp_engine_get_info(engine, NULL), MCP_EINVAL);
    INVALID(mcp_engine_forward(NULL, 0, 4, MCP_WANT_LOGITS, &w, 1, out, 512, err));
    INVALID(mcp_engine_forward(engine, 0, 4, MCP_WANT_LOGITS, NULL, 1, out, 512, err));
    INVALID(mcp_engine_forward(engine, 0, 4, MCP_WANT_LOGITS, &w, 1, NULL, 512, err));
    assert_int_equal(mcp_engine_forward(engine, 0, 4, MCP_WANT_LOGITS, NULL, 0, NULL, 0, NULL), 0);
    assert_null(mcp_engine_alloc(NULL, 10));
    mcp_engine_free(NULL, NULL);
    mcp_engine_free(engine, NULL);
    INVALID(mcp_engine_trim(NULL, 0, 0, err));
    assert_int_equal(mcp_engine_length(NULL, 0, 0), 0);
    mcp_engine_cancel(NULL);
    INVALID(mcp_engine_export(NULL, 0, 0, 4, 0, 0, block, &bytes, err));
    INVALID(mcp_engine_export(engine, 0, 0, 4, 0, 0, block, NULL, err));
    INVALID(mcp_engine_import(NULL, 0, block, bytes, err));
    INVALID(mcp_engine_import(engine, 0, NULL, bytes, err));
}

/* Goal:   the same for mcp/generate.h. */
static void null_is_refused_by_the_functions_of_a_session(void **state)
{
    static const float bad[] = { NAN, -NAN };
    mcp_session_opts   o = MCP_SESSION_OPTS_INIT;
    mcp_generate_opts  g = MCP_GENERATE_OPTS_INIT;
    mcp_session       *s = (mcp_session *)0x5a;

    (void)state;
    INVALID(mcp_session_open(NULL, engine, &o, err));
    INVALID(mcp_session_open(&s, NULL, &o, err));
    assert_null(s);
    o.cut_count = 1;
    s = (mcp_session *)0x5a;
    INVALID(mcp_session_open(&s, engine, &o, err));
    assert_null(s);
    mcp_session_close(NULL);
    INVALID(mcp_session_generate(NULL, tokens, 3, &g, NULL, NULL, NULL, err));
    INVALID(mcp_session_generate(session, NULL, 3, &g, NULL, NULL, NULL, err));
    for (size_t i = 0; i < UNIT_COUNT(bad); i++) {
        g = (mcp_generate_opts)MCP_GENERATE_OPTS_INIT;
        g.temperature = bad[i];
        INVALID(mcp_session_generate(session, tokens, 3, &g, NULL, NULL, NULL, err));
        g = (mcp_generate_opts)MCP_GENERATE_OPTS_INIT;
        g.top_p = bad[i];
        INVALID(mcp_session_generate(session, tokens, 3, &g, NULL, NULL, NULL, err));
        g = (mcp_generate_opts)MCP_GENERATE_OPTS_INIT;
        g.min_p = bad[i];
        INVALID(mcp_session_generate(session, tokens, 3, &g, NULL, NULL, NULL, err));
    }
    assert_int_equal(mcp_session_generate(session, NULL, 0, NULL, NULL, NULL, NULL, NULL),
                     MCP_ERANGE);
}

/* Goal:   options of a newer header are refused, those of an older one are completed.
 * Method: each function that takes options, with sizes one too large and down to the first. */
static void options_of_other_versions_are_handled(void **state)
{
    mcp_engine_opts     o = small_opts();
    mcp_session_opts    so = MCP_SESSION_OPTS_INIT;
    mcp_generate_opts   g = MCP_GENERATE_OPTS_INIT;
    mcp_generate_result r;
    mcp_engine         *e = NULL;
    mcp_engine_info     info;
    mcp_session        *s = NULL;
    mcp_error           said;

    (void)state;
    o.struct_size = sizeof(o) + 1;
    INVALID(mcp_engine_open(&e, model, &o, err));
    so.struct_size = 0;
    INVALID(mcp_session_open(&s, engine, &so, err));
    g.struct_size = sizeof(g) + 4;
    INVALID(mcp_session_generate(session, tokens, 3, &g, NULL, NULL, NULL, err));
    assert_true(e == NULL && s == NULL);

    o.struct_size = offsetof(mcp_engine_opts, device); /* a caller without the later fields */
    o.gpu_layers = 12345;
    o.kv_k = (mcp_kv_type)99;
    unit_ok(mcp_engine_open(&e, model, &o, &said), &said);
    assert_int_equal(mcp_engine_get_info(e, &info), MCP_OK);
    assert_int_equal(info.ctx_tokens, 64);
    assert_int_equal(info.seqs, 2);
    mcp_engine_close(e);

    g = (mcp_generate_opts)MCP_GENERATE_OPTS_INIT;
    g.struct_size = offsetof(mcp_generate_opts, temperature);
    g.max_tokens = 2;
    g.temperature = NAN; /* not looked at */
    unit_ok(mcp_session_generate(session, tokens, 3, &g, NULL, NULL, &r, &said), &said);
    assert_true(r.generated_tokens <= 2);
}

/* Goal:   lengths of sequences and layers that are not there are zero. */
static void lengths_outside_the_engine_are_zero(void **state)
{
    mcp_window w = { .seq = 1, .count = 3, .tokens = tokens, .out = MCP_OUT_NONE };
    mcp_error  err;

    (void)state;
    unit_ok(mcp_engine_forward(engine, 0, 4, MCP_WANT_LOGITS, &w, 1, NULL, 0, &err), &err);
    assert_int_equal(mcp_engine_length(engine, 1, 0), 3);
    assert_int_equal(mcp_engine_length(engine, 1, 3), 3);
    assert_int_equal(mcp_engine_length(engine, 1, 4), 0);
    assert_int_equal(mcp_engine_length(engine, 2, 0), 0);
    assert_int_equal(mcp_engine_length(engine, UINT32_MAX, UINT32_MAX), 0);
    unit_ok(mcp_engine_trim(engine, 1, 0, &err), &err);
}

/* Goal:   every reason to stop has a name of its own, and a number that is none says so. */
static void every_reason_to_stop_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(mcp_stop_name(MCP_STOP_END), "end");
    assert_string_equal(mcp_stop_name(MCP_STOP_LENGTH), "length");
    assert_string_equal(mcp_stop_name(MCP_STOP_CONTEXT), "context");
    assert_string_equal(mcp_stop_name(MCP_STOP_CALLBACK), "callback");
    assert_string_equal(mcp_stop_name(MCP_STOP_CANCEL), "cancel");
    assert_string_equal(mcp_stop_name((mcp_stop)5), "unknown");
    assert_string_equal(mcp_stop_name((mcp_stop)-1), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_is_refused_by_the_functions_of_a_model),
        cmocka_unit_test(null_is_refused_by_the_functions_of_an_engine),
        cmocka_unit_test(null_is_refused_by_the_functions_of_a_session),
        cmocka_unit_test(options_of_other_versions_are_handled),
        cmocka_unit_test(lengths_outside_the_engine_are_zero),
        cmocka_unit_test(every_reason_to_stop_has_a_name),
    };

    return cmocka_run_group_tests_name("api/arguments", tests, everything_begin, everything_end);
}
