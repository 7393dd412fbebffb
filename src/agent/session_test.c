/* agent/session_test.c - one conversation on a tiny model: cuts, reuse, and every way to stop.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/session.h"

#include "engine/run_test.h"
#include "model/edit_test.h"

enum { ANSWER_MAX = 300, PROMPT = 20 };

struct answer {
    int32_t            tokens[ANSWER_MAX];
    char               bytes[4 * ANSWER_MAX];
    size_t             byte_count;
    uint32_t           count;
    uint32_t           stop_after; /* 0: never */
    struct mcp_engine *cancel;     /* cancel this one at stop_after instead */
};

static int collect(int32_t token, const char *bytes, size_t count, void *ctx)
{
    struct answer *a = ctx;

    assert_true(a->count < ANSWER_MAX);
    assert_true(a->byte_count + count <= sizeof(a->bytes));
    a->tokens[a->count++] = token;
    memcpy(a->bytes + a->byte_count, bytes, count);
    a->byte_count += count;
    if (a->stop_after != 0 && a->count == a->stop_after) {
        if (a->cancel == NULL)
            return 1;
        atomic_store(&a->cancel->cancel, 1);
    }
    return 0;
}

static struct mcp_model *model;
static int32_t           prompt[PROMPT + 10];

static int model_begin(void **state)
{
    uint64_t rng = unit_seed();

    (void)state;
    model = run_model(unit_synth("tiny.gguf", "tiny-llama", "q4_0", NULL));
    run_tokens(&rng, prompt, PROMPT + 10, model->hp.n_vocab);
    return 0;
}

static int model_end(void **state)
{
    (void)state;
    model_close(model);
    return 0;
}

static struct mcp_session *must_open(struct mcp_engine *e, uint32_t seq, const uint32_t *cuts,
                                     uint32_t cut_count)
{
    mcp_session_opts    o = MCP_SESSION_OPTS_INIT;
    struct mcp_session *s;
    mcp_error           err;

    o.seq = seq;
    o.cuts = cuts;
    o.cut_count = cut_count;
    unit_ok(session_open(&s, e, &o, &err), &err);
    return s;
}

static mcp_generate_opts greedy(uint32_t max_tokens)
{
    mcp_generate_opts o = MCP_GENERATE_OPTS_INIT;

    o.temperature = 0.0f;
    o.max_tokens = max_tokens;
    o.ignore_end = 1;
    return o;
}

static mcp_generate_result generate(struct mcp_session *s, const int32_t *tokens, uint32_t count,
                                    const mcp_generate_opts *o, struct answer *a)
{
    mcp_generate_result r;
    mcp_error           err;

    memset(&r, 0x5a, sizeof(r));
    a->count = 0;
    a->byte_count = 0;
    unit_ok(session_generate(s, tokens, count, o, collect, a, &r, &err), &err);
    assert_int_equal(r.prompt_tokens, count);
    return r;
}

/* What a fresh engine answers. */
static void straight(const struct mcp_model *m, const int32_t *tokens, uint32_t count,
                     const mcp_generate_opts *o, struct answer *a)
{
    mcp_engine_opts     eo = run_opts();
    struct mcp_engine  *e = run_engine(m, &eo);
    struct mcp_session *s = must_open(e, 0, NULL, 0);

    generate(s, tokens, count, o, a);
    session_close(s);
    engine_close(e);
}

static void same_answer(const struct answer *a, const struct answer *b)
{
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->tokens, b->tokens, a->count * sizeof(int32_t));
    assert_int_equal(a->byte_count, b->byte_count);
    assert_memory_equal(a->bytes, b->bytes, a->byte_count);
}

/* Tokens that the engine computed in its last batch. */
static uint32_t last_batch(const struct mcp_engine *e)
{
    for (size_t i = 0; i < ENGINE_GRAPHS_MAX; i++)
        if (e->shards[0].graphs[i] != NULL && e->shards[0].graphs[i]->used == e->shards[0].tick)
            return e->shards[0].graphs[i]->shape.tokens;
    return 0;
}

/* ---- opening -------------------------------------------------------------------- */

/* Goal:   cuts must lie inside the model and ascend; the sentence names the cut. */
static void cuts_outside_the_model_are_refused(void **state)
{
    static const uint32_t none[] = { 0 }, end[] = { 4 }, far[] = { UINT32_MAX }, back[] = { 2, 1 };
    static const uint32_t twice[] = { 1, 1 }, late[] = { 1, 4 }, all[] = { 1, 2, 3 };
    static const struct {
        const uint32_t *cuts;
        uint32_t        count;
        const char     *about;
    } rows[] = {
        { none, 1, "cut 0 is not inside the model's layers 1 to 3" },
        { end, 1, "cut 4 is not inside" },
        { far, 1, "cut 4294967295 is not inside" },
        { back, 2, "cut 1 follows 2" },
        { twice, 2, "cut 1 follows 1" },
        { late, 2, "cut 4 is not inside" },
        { all, MCP_CUTS_MAX + 1, "256 cuts, at most 255" },
    };
    mcp_engine_opts     eo = run_opts();
    struct mcp_engine  *e = run_engine(model, &eo);
    mcp_session_opts    o = MCP_SESSION_OPTS_INIT;
    struct mcp_session *s;
    mcp_error           err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        o.cuts = rows[i].cuts;
        o.cut_count = rows[i].count;
        s = (struct mcp_session *)0x5a;
        unit_refused(session_open(&s, e, &o, &err), MCP_ERANGE, &err, rows[i].about);
        assert_null(s);
    }
    session_close(must_open(e, 0, all, 3));
    o = (mcp_session_opts)MCP_SESSION_OPTS_INIT;
    o.seq = 1;
    unit_refused(session_open(&s, e, &o, &err), MCP_ERANGE, &err, "sequence 1: the engine has 1");
    session_close(NULL);
    engine_close(e);
}

/* Goal:   an engine of a part of the layers has no sessions. */
static void an_engine_of_some_layers_has_no_session(void **state)
{
    mcp_session_opts o = MCP_SESSION_OPTS_INIT;

    (void)state;
    for (int end = 0; end < 2; end++) {
        mcp_engine_opts     eo = run_opts();
        struct mcp_engine  *e;
        struct mcp_session *s;
        mcp_error           err;

        eo.first = end ? 0 : 1;
        eo.last = end ? 3 : 4;
        e = run_engine(model, &eo);
        unit_refused(session_open(&s, e, &o, &err), MCP_ERANGE, &err, "a session needs all");
        assert_null(s);
        engine_close(e);
    }
}

/* Goal:   a session begins with an empty sequence, whatever was in it. */
static void a_new_session_begins_at_zero(void **state)
{
    mcp_engine_opts     eo = run_opts();
    struct mcp_engine  *e = run_engine(model, &eo);
    struct mcp_session *s;
    mcp_generate_opts   o = greedy(10);
    struct answer       a = { 0 }, expected = { 0 };

    (void)state;
    run_append(e, 0, prompt + 3, 9, NULL);
    s = must_open(e, 0, NULL, 0);
    run_lengths(e, 0, 0);
    assert_int_equal(generate(s, prompt, PROMPT, &o, &a).prompt_cached, 0);
    straight(model, prompt, PROMPT, &o, &expected);
    same_answer(&a, &expected);
    session_close(s);
    engine_close(e);
}

/* ---- answers -------------------------------------------------------------------- */

/* Goal:   an answer does not depend on where the layers are cut.
 * Method: all eight ways to cut four layers, greedy and drawn. */
static void an_answer_does_not_depend_on_the_cuts(void **state)
{
    mcp_engine_opts    eo = run_opts();
    struct mcp_engine *e = run_engine(model, &eo);

    (void)state;
    for (int drawn = 0; drawn < 2; drawn++) {
        mcp_generate_opts o = greedy(30);
        struct answer     a = { 0 }, expected = { 0 };

        if (drawn) {
            o.temperature = 1.0f;
            o.seed = 7;
        }
        straight(model, prompt, PROMPT, &o, &expected);
        assert_int_equal(expected.count, 30);
        for (uint32_t set = 0; set < 8; set++) {
            uint32_t            cuts[3], count = 0;
            struct mcp_session *s;

            for (uint32_t cut = 1; cut < 4; cut++)
                if (set >> (cut - 1) & 1)
                    cuts[count++] = cut;
            s = must_open(e, 0, cuts, count);
            generate(s, prompt, PROMPT, &o, &a);
            same_answer(&a, &expected);
            session_close(s);
        }
    }
    engine_close(e);
}

/* Goal:   a prompt longer than a batch is computed in several, with the same answer. */
static void a_long_prompt_goes_in_several_batches(void **state)
{
    mcp_generate_opts o = greedy(20);
    struct answer     a = { 0 }, expected = { 0 };
    mcp_engine_opts   eo = run_opts();
    uint32_t          cut = 2;

    (void)state;
    eo.ubatch_tokens = 7; /* the same batches, from one window or from three */
    for (int small = 0; small < 2; small++) {
        struct mcp_engine  *e;
        struct mcp_session *s;

        eo.batch_tokens = small ? 7 : 256;
        e = run_engine(model, &eo);
        s = must_open(e, 0, &cut, 1);
        generate(s, prompt, PROMPT, &o, small ? &a : &expected);
        session_close(s);
        engine_close(e);
    }
    same_answer(&a, &expected);
}

/* Goal:   what the session has seen is not computed again, and the answer is that of a
 *         session which has seen nothing.
 * Method: a prompt; the conversation so far plus more; the same again; a changed middle; a
 *         shorter one; the engine's last batch shows how many tokens were computed. */
static void only_the_new_part_of_a_prompt_is_computed(void **state)
{
    mcp_engine_opts     eo = run_opts();
    struct mcp_engine  *e = run_engine(model, &eo);
    struct mcp_session *s = must_open(e, 0, NULL, 0);
    mcp_generate_opts   o = greedy(8), none = greedy(0);
    struct answer       a = { 0 }, expected = { 0 };
    int32_t             talk[64];
    mcp_generate_result r = generate(s, prompt, PROMPT, &o, &a);

    (void)state;
    assert_int_equal(r.prompt_cached, 0);
    assert_int_equal(s->count, PROMPT + 7); /* the last token of an answer is not computed */
    memcpy(talk, prompt, sizeof(prompt));
    memcpy(talk + PROMPT, a.tokens, 8 * sizeof(int32_t));
    memcpy(talk + PROMPT + 8, prompt + PROMPT, 10 * sizeof(int32_t));
    r = generate(s, talk, PROMPT + 18, &none, &a);
    assert_int_equal(r.prompt_cached, PROMPT + 7);
    assert_int_equal(last_batch(e), 11);
    r = generate(s, talk, PROMPT + 18, &none, &a); /* the same: its last one, for the logits */
    assert_int_equal(r.prompt_cached, PROMPT + 17);
    assert_int_equal(last_batch(e), 1);
    talk[10] ^= 1; /* another word in the middle */
    r = generate(s, talk, PROMPT + 18, &o, &a);
    assert_int_equal(r.prompt_cached, 10);
    straight(model, talk, PROMPT + 18, &o, &expected);
    assert_int_equal(a.count, expected.count);
    r = generate(s, talk, 5, &none, &a); /* a beginning of it */
    assert_int_equal(r.prompt_cached, 4);
    assert_int_equal(s->count, 5);
    run_lengths(e, 0, 5);
    session_close(s);
    engine_close(e);
}

/* Goal:   a conversation that goes on gives the answer of one told at once.
 * Method: prompts that grow by one token at a time and by answers, in a model of floats, where
 *         the order of computing changes no token. */
static void a_conversation_told_in_pieces_gets_the_same_answer(void **state)
{
    struct mcp_model   *m = run_model(unit_synth("f32.gguf", "tiny-qwen3", "f32", NULL));
    mcp_engine_opts     eo = run_opts();
    struct mcp_engine  *e = run_engine(m, &eo);
    struct mcp_session *s = must_open(e, 0, NULL, 0);
    mcp_generate_opts   o = greedy(6), none = greedy(0);
    struct answer       a = { 0 }, expected = { 0 };

    (void)state;
    for (uint32_t n = 1; n < PROMPT; n++)
        generate(s, prompt, n, &none, &a);
    assert_int_equal(generate(s, prompt, PROMPT, &o, &a).prompt_cached, PROMPT - 1);
    straight(m, prompt, PROMPT, &o, &expected);
    same_answer(&a, &expected);
    session_close(s);
    engine_close(e);
    model_close(m);
}

/* Goal:   sessions on other sequences of one engine do not see each other. */
static void sessions_of_one_engine_do_not_see_each_other(void **state)
{
    mcp_engine_opts     eo = run_opts();
    struct mcp_engine  *e;
    struct mcp_session *one, *two;
    mcp_generate_opts   o = greedy(12);
    struct answer       a = { 0 }, expected = { 0 };
    uint32_t            cut = 1;

    (void)state;
    eo.seqs = 3;
    e = run_engine(model, &eo);
    one = must_open(e, 2, NULL, 0);
    two = must_open(e, 0, &cut, 1);
    for (int round = 0; round < 3; round++) {
        const int32_t *own = prompt + round, *others = prompt + 7 + round;

        generate(one, own, 10, &o, &a);
        straight(model, own, 10, &o, &expected);
        same_answer(&a, &expected);
        generate(two, others, 12, &o, &a);
        straight(model, others, 12, &o, &expected);
        same_answer(&a, &expected);
    }
    run_lengths(e, 1, 0);
    session_close(one);
    session_close(two);
    engine_close(e);
}

/* ---- stopping ------------------------------------------------------------------- */

/* Goal:   at most max_tokens come; none for zero, but the prompt is computed. */
static void max_tokens_are_not_exceeded(void **state)
{
    static const uint32_t maxima[] = { 0, 1, 2, 17 };
    mcp_engine_opts       eo = run_opts();
    struct mcp_engine    *e = run_engine(model, &eo);

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(maxima); i++) {
        struct mcp_session *s = must_open(e, 0, NULL, 0);
        mcp_generate_opts   o = greedy(maxima[i]);
        struct answer       a = { 0 };
        mcp_generate_result r = generate(s, prompt, PROMPT, &o, &a);

        assert_int_equal(r.stop, MCP_STOP_LENGTH);
        assert_int_equal(r.generated_tokens, maxima[i]);
        assert_int_equal(a.count, maxima[i]);
        assert_int_equal(s->count, PROMPT + (maxima[i] > 0 ? maxima[i] - 1 : 0));
        assert_true(r.prompt_ms > 0.0 && r.prompt_per_second > 0.0);
        assert_true(maxima[i] > 0 ? r.ttft_ms >= r.prompt_ms : r.ttft_ms == 0.0);
        assert_true(maxima[i] > 1 ? r.predicted_per_second > 0.0 : r.predicted_per_second == 0.0);
        session_close(s);
    }
    engine_close(e);
}

/* Goal:   an answer ends where the context does, after the token that needs no position.
 * Method: prompts that leave ten positions, one and none; one more is refused. */
static void an_answer_ends_with_the_context(void **state)
{
    mcp_engine_opts     eo = run_opts();
    struct mcp_engine  *e;
    struct mcp_session *s;
    mcp_generate_opts   o = greedy(100);
    struct answer       a = { 0 };
    mcp_error           err;

    (void)state;
    eo.ctx_tokens = PROMPT;
    e = run_engine(model, &eo);
    s = must_open(e, 0, NULL, 0);
    for (uint32_t left = 0; left <= 10; left += left == 0 ? 1 : 9) {
        mcp_generate_result r = generate(s, prompt, PROMPT - left, &o, &a);

        assert_int_equal(r.stop, MCP_STOP_CONTEXT);
        assert_int_equal(r.generated_tokens, left + 1);
        assert_int_equal(a.count, left + 1);
        assert_int_equal(s->count, PROMPT);
    }
    unit_refused(session_generate(s, prompt, PROMPT + 1, &o, NULL, NULL, NULL, &err), MCP_ERANGE,
                 &err, "the prompt has 21 tokens, the context 20; raise -c");
    session_close(s);
    engine_close(e);
}

/* Goal:   a callback stops the answer after its token, and the next call goes on from there. */
static void a_callback_stops_the_answer(void **state)
{
    mcp_engine_opts     eo = run_opts();
    struct mcp_engine  *e = run_engine(model, &eo);
    struct mcp_session *s = must_open(e, 0, NULL, 0);
    mcp_generate_opts   o = greedy(10);
    struct answer       a = { .stop_after = 4 }, expected = { 0 };
    mcp_generate_result r = generate(s, prompt, PROMPT, &o, &a);

    (void)state;
    straight(model, prompt, PROMPT, &o, &expected);
    assert_int_equal(r.stop, MCP_STOP_CALLBACK);
    assert_int_equal(r.generated_tokens, 4);
    assert_int_equal(a.count, 4);
    assert_memory_equal(a.tokens, expected.tokens, 4 * sizeof(int32_t));
    a.stop_after = 0;
    r = generate(s, prompt, PROMPT, &o, &a);
    assert_int_equal(r.stop, MCP_STOP_LENGTH);
    assert_int_equal(a.count, 10);
    session_close(s);
    engine_close(e);
}

/* Goal:   cancelling is success that is cut short, while generating and while the prompt is
 *         computed; the session is usable afterwards.
 * Method: from the callback; a cut session, whose stages must agree again. */
static void cancelling_cuts_the_answer_short(void **state)
{
    mcp_engine_opts     eo = run_opts();
    struct mcp_engine  *e = run_engine(model, &eo);
    uint32_t            cut = 2;
    struct mcp_session *s = must_open(e, 0, &cut, 1);
    mcp_generate_opts   o = greedy(10);
    struct answer       a = { .stop_after = 3, .cancel = e }, expected = { 0 };
    mcp_generate_result r = generate(s, prompt, PROMPT, &o, &a);

    (void)state;
    assert_int_equal(r.stop, MCP_STOP_CANCEL);
    assert_int_equal(r.generated_tokens, 3);
    assert_int_equal(a.count, 3);
    assert_int_equal(s->count, PROMPT + 2);
    run_lengths(e, 0, PROMPT + 2);
    a.stop_after = 0;
    r = generate(s, prompt, PROMPT, &o, &a);
    assert_int_equal(r.stop, MCP_STOP_LENGTH);
    straight(model, prompt, PROMPT, &o, &expected);
    assert_int_equal(a.count, expected.count);
    session_close(s);
    engine_close(e);
}

/* A copy of the tiny model in which `token` ends an answer. */
static struct mcp_model *model_ending_with(int32_t token)
{
    struct edit e = edit_open(unit_path("tiny.gguf"));

    gguf_set_val_u32(e.gguf, "tokenizer.ggml.eos_token_id", (uint32_t)token);
    return run_model(edit_write(&e, unit_path("ends.gguf"), NULL));
}

/* Goal:   the token that ends an answer is not part of it, and is ignored when asked.
 * Method: the third token of the straight answer is made the end token. */
static void the_end_token_ends_the_answer(void **state)
{
    mcp_generate_opts   o = greedy(10);
    struct answer       a = { 0 }, expected = { 0 };
    mcp_engine_opts     eo = run_opts();
    struct mcp_engine  *e;
    struct mcp_session *s;
    struct mcp_model   *m;
    mcp_generate_result r;
    uint32_t            at = 2;

    (void)state;
    straight(model, prompt, PROMPT, &o, &expected);
    for (uint32_t i = 0; i < at; i++) /* its first time */
        if (expected.tokens[i] == expected.tokens[at])
            at = i;
    m = model_ending_with(expected.tokens[at]);
    e = run_engine(m, &eo);
    s = must_open(e, 0, NULL, 0);
    o.ignore_end = 0;
    r = generate(s, prompt, PROMPT, &o, &a);
    assert_int_equal(r.stop, MCP_STOP_END);
    assert_int_equal(r.generated_tokens, at);
    assert_int_equal(a.count, at);
    assert_memory_equal(a.tokens, expected.tokens, at * sizeof(int32_t));
    o.ignore_end = 1;
    r = generate(s, prompt, PROMPT, &o, &a);
    assert_int_equal(r.stop, MCP_STOP_LENGTH);
    assert_int_equal(a.count, 10);
    assert_int_equal(a.tokens[at], expected.tokens[at]);
    session_close(s);
    engine_close(e);
    model_close(m);
}

/* ---- what comes with a token ----------------------------------------------------- */

/* Goal:   the bytes of the callback are those of its token; without a tokenizer there are
 *         none and the tokens come all the same. */
static void tokens_come_with_their_bytes(void **state)
{
    mcp_generate_opts         o = greedy(20);
    struct answer             a = { 0 }, bare = { 0 };
    const struct model_vocab *vocab = model_get_vocab(model, NULL);
    struct edit               e = edit_open(unit_path("tiny.gguf"));
    struct mcp_model         *m;
    char                      bytes[4 * ANSWER_MAX];
    size_t                    used = 0;

    (void)state;
    assert_non_null(vocab);
    straight(model, prompt, PROMPT, &o, &a);
    for (uint32_t i = 0; i < a.count; i++)
        used += (size_t)model_vocab_token_bytes(vocab, a.tokens[i], 0, bytes + used,
                                                sizeof(bytes) - used, NULL);
    assert_int_equal(a.byte_count, used);
    assert_memory_equal(a.bytes, bytes, used);
    gguf_remove_key(e.gguf, "tokenizer.ggml.model");
    m = run_model(edit_write(&e, unit_path("bare.gguf"), NULL));
    straight(m, prompt, PROMPT, &o, &bare);
    assert_int_equal(bare.byte_count, 0);
    assert_int_equal(bare.count, a.count);
    assert_memory_equal(bare.tokens, a.tokens, a.count * sizeof(int32_t));
    model_close(m);
}

/* Goal:   a seed makes an answer again; a random one is told and makes it again, too. */
static void a_seed_makes_the_answer_again(void **state)
{
    mcp_engine_opts    eo = run_opts();
    struct mcp_engine *e = run_engine(model, &eo);
    mcp_generate_opts  o = greedy(25);
    struct answer      answers[4] = { 0 };
    uint32_t           seeds[4];

    (void)state;
    o.temperature = 2.0f;
    for (int i = 0; i < 4; i++) {
        struct mcp_session *s = must_open(e, 0, NULL, 0);

        o.seed = i == 0 ? 99 : i == 1 ? 99 : i == 2 ? MCP_SEED_RANDOM : seeds[2];
        seeds[i] = generate(s, prompt, PROMPT, &o, &answers[i]).seed;
        session_close(s);
    }
    assert_int_equal(seeds[0], 99);
    same_answer(&answers[0], &answers[1]);
    same_answer(&answers[2], &answers[3]);
    assert_int_equal(seeds[2], seeds[3]);
    assert_int_not_equal(seeds[2], 99);
    assert_memory_not_equal(answers[0].tokens, answers[2].tokens, sizeof(answers[0].tokens));
    engine_close(e);
}

/* ---- failures ------------------------------------------------------------------- */

/* Goal:   a prompt that cannot be is refused, and the session goes on as if it had not been.
 * Method: empty; ids outside the vocabulary at the front and behind a shared beginning; with
 *         and without cuts. */
static void an_impossible_prompt_is_refused(void **state)
{
    mcp_engine_opts    eo = run_opts();
    struct mcp_engine *e = run_engine(model, &eo);
    mcp_generate_opts  o = greedy(10);
    uint32_t           cut = 3;

    (void)state;
    for (uint32_t cuts = 0; cuts < 2; cuts++) {
        struct mcp_session *s = must_open(e, 0, &cut, cuts);
        struct answer       a = { 0 }, expected = { 0 };
        int32_t             bad[PROMPT];
        mcp_error           err;

        generate(s, prompt, 10, &o, &a);
        unit_refused(session_generate(s, prompt, 0, &o, collect, &a, NULL, &err), MCP_ERANGE, &err,
                     "the prompt is empty");
        memcpy(bad, prompt, sizeof(bad));
        bad[PROMPT - 1] = (int32_t)model->hp.n_vocab;
        unit_refused(session_generate(s, bad, PROMPT, &o, collect, &a, NULL, &err), MCP_ERANGE,
                     &err, "outside the vocabulary");
        bad[0] = -1;
        unit_refused(session_generate(s, bad, PROMPT, &o, collect, &a, NULL, &err), MCP_ERANGE,
                     &err, "token -1 at position 0");
        run_lengths(e, 0, s->count);
        generate(s, prompt, PROMPT, &o, &a);
        straight(model, prompt, PROMPT, &o, &expected);
        same_answer(&a, &expected);
        session_close(s);
    }
    engine_close(e);
}

/* Goal:   damaged weights that give no number are a sentence, not an endless answer. */
static void logits_that_are_no_numbers_are_an_error(void **state)
{
    struct edit         e = edit_open(unit_path("tiny.gguf"));
    float              *norm = edit_tensor(&e, "output_norm.weight")->data;
    struct mcp_model   *m;
    mcp_engine_opts     eo = run_opts();
    struct mcp_engine  *engine;
    struct mcp_session *s;

    (void)state;
    for (int i = 0; i < 128; i++)
        norm[i] = NAN;
    m = run_model(edit_write(&e, unit_path("nan.gguf"), NULL));
    engine = run_engine(m, &eo);
    s = must_open(engine, 0, NULL, 0);
    for (int drawn = 0; drawn < 2; drawn++) {
        mcp_generate_opts o = greedy(10);
        mcp_error         err;

        o.temperature = drawn ? 1.0f : 0.0f;
        unit_refused(session_generate(s, prompt, PROMPT, &o, NULL, NULL, NULL, &err), MCP_EFORMAT,
                     &err, "are not finite numbers");
    }
    session_close(s);
    engine_close(engine);
    model_close(m);
}

/* Goal:   neither callback, result nor error need to be given. */
static void nothing_but_the_prompt_is_required(void **state)
{
    mcp_engine_opts     eo = run_opts();
    struct mcp_engine  *e = run_engine(model, &eo);
    struct mcp_session *s = must_open(e, 0, NULL, 0);
    mcp_generate_opts   o = greedy(3);

    (void)state;
    assert_int_equal(session_generate(s, prompt, PROMPT, &o, NULL, NULL, NULL, NULL), MCP_OK);
    assert_int_equal(s->count, PROMPT + 2);
    assert_int_equal(session_generate(s, prompt, 0, &o, NULL, NULL, NULL, NULL), MCP_ERANGE);
    session_close(s);
    engine_close(e);
}

/* ---- guesses ----------------------------------------------------------------------- */

static struct mcp_session *must_guess(struct mcp_engine *e, mcp_session_opts *o)
{
    struct mcp_session *s;
    mcp_error           err;

    o->spec = MCP_SPEC_NGRAM;
    unit_ok(session_open(&s, e, o, &err), &err);
    return s;
}

/* Goal:   an answer with guesses is the answer without, and leaves the session as that does.
 * Method: greedy and drawn; guesses by n-gram and out of the answer, of several qualities and
 *         numbers; cut and whole; each session answers twice. */
static void guesses_do_not_change_an_answer(void **state)
{
    static const float rights[] = { -1.0f, 0.0f, 0.6f, 1.0f };
    mcp_engine_opts    eo = run_opts();
    struct mcp_engine *e;
    uint32_t           cut = 2, accepted = 0;

    (void)state;
    eo.even_windows = 1;
    e = run_engine(model, &eo);
    for (uint32_t i = 0; i < 48; i++) {
        struct mcp_session *s = must_open(e, 0, NULL, 0);
        mcp_session_opts    so = MCP_SESSION_OPTS_INIT;
        mcp_session_stats   stats = { .struct_size = sizeof(stats) };
        mcp_generate_opts   o = greedy(40);
        struct answer       a = { 0 }, expected = { 0 };

        if (i % 3 == 1) {
            o.temperature = 1.0f;
            o.seed = i;
        }
        generate(s, prompt, PROMPT, &o, &expected);
        session_close(s);
        so.cuts = &cut;
        so.cut_count = i % 2;
        so.spec_depth = i % 7;
        so.spec_synth = rights[i % UNIT_COUNT(rights)];
        so.spec_truth = so.spec_synth >= 0.0f ? expected.tokens : NULL;
        so.spec_truth_count = expected.count;
        s = must_guess(e, &so);
        for (int turn = 0; turn < 2; turn++) {
            generate(s, prompt, PROMPT, &o, &a);
            same_answer(&a, &expected);
            assert_int_equal(s->count, PROMPT + 39);
            assert_memory_equal(s->tokens + PROMPT, expected.tokens, 39 * sizeof(int32_t));
            run_lengths(e, 0, PROMPT + 39);
        }
        session_stats(s, &stats);
        assert_true(stats.accepted <= stats.drafted_seen && stats.drafted_seen <= stats.drafted);
        accepted += (uint32_t)stats.accepted;
        session_close(s);
    }
    assert_true(accepted > 200);
    engine_close(e);
}

/* Goal:   no guess goes beyond the context or the tokens that were asked for, and one that is
 *         under way when the callback stops leaves nothing behind. */
static void guesses_respect_every_end(void **state)
{
    mcp_engine_opts     eo = run_opts();
    struct mcp_engine  *e;
    struct mcp_session *s;
    mcp_session_opts    so = MCP_SESSION_OPTS_INIT;
    mcp_generate_opts   o = greedy(ANSWER_MAX);
    struct answer       a = { 0 }, expected = { 0 };
    mcp_session_stats   stats = { .struct_size = sizeof(stats) };
    uint64_t            drafted;

    (void)state;
    eo.even_windows = 1;
    eo.ctx_tokens = PROMPT + 30;
    e = run_engine(model, &eo);
    s = must_open(e, 0, NULL, 0);
    assert_int_equal(generate(s, prompt, PROMPT, &o, &expected).stop, MCP_STOP_CONTEXT);
    session_close(s);
    so.spec_truth = expected.tokens;
    so.spec_truth_count = expected.count;
    so.spec_synth = 1.0f;
    so.spec_depth = 9;
    s = must_guess(e, &so);
    assert_int_equal(generate(s, prompt, PROMPT, &o, &a).stop, MCP_STOP_CONTEXT);
    same_answer(&a, &expected);
    run_lengths(e, 0, PROMPT + 30);
    for (uint32_t n = 1; n <= 31; n++) {
        o = greedy(n);
        session_stats(s, &stats);
        drafted = stats.drafted;
        assert_int_equal(generate(s, prompt, PROMPT, &o, &a).generated_tokens, n);
        session_stats(s, &stats);
        assert_in_range(stats.drafted - drafted, n / 3, n - 1);
        assert_memory_equal(a.tokens, expected.tokens, n * sizeof(int32_t));
        run_lengths(e, 0, PROMPT + n - 1);
        o = greedy(ANSWER_MAX);
        a.stop_after = n;
        assert_int_equal(generate(s, prompt, PROMPT, &o, &a).stop, MCP_STOP_CALLBACK);
        assert_memory_equal(a.tokens, expected.tokens, n * sizeof(int32_t));
        run_lengths(e, 0, PROMPT + n - 1);
        a.stop_after = 0;
    }
    session_close(s);
    engine_close(e);
}

static void guesses_outside_their_limits_are_refused(void **state)
{
    mcp_engine_opts     eo = run_opts();
    struct mcp_engine  *e = run_engine(model, &eo);
    mcp_session_opts    o = MCP_SESSION_OPTS_INIT;
    struct mcp_session *s;
    mcp_error           err;

    (void)state;
    o.spec_depth = 63;
    unit_refused(session_open(&s, e, &o, &err), MCP_ERANGE, &err,
                 "63 guesses in a window, at most 62");
    o.spec_depth = 0;
    o.spec_windows = 33;
    unit_refused(session_open(&s, e, &o, &err), MCP_ERANGE, &err,
                 "33 windows in flight, at most 32");
    o.spec_windows = 0;
    o.spec = MCP_SPEC_DRAFT;
    unit_refused(session_open(&s, e, &o, &err), MCP_ENOTSUP, &err, "draft model");
    engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_do_not_change_an_answer),
        cmocka_unit_test(guesses_respect_every_end),
        cmocka_unit_test(guesses_outside_their_limits_are_refused),
        cmocka_unit_test(cuts_outside_the_model_are_refused),
        cmocka_unit_test(an_engine_of_some_layers_has_no_session),
        cmocka_unit_test(a_new_session_begins_at_zero),
        cmocka_unit_test(an_answer_does_not_depend_on_the_cuts),
        cmocka_unit_test(a_long_prompt_goes_in_several_batches),
        cmocka_unit_test(only_the_new_part_of_a_prompt_is_computed),
        cmocka_unit_test(a_conversation_told_in_pieces_gets_the_same_answer),
        cmocka_unit_test(sessions_of_one_engine_do_not_see_each_other),
        cmocka_unit_test(max_tokens_are_not_exceeded),
        cmocka_unit_test(an_answer_ends_with_the_context),
        cmocka_unit_test(a_callback_stops_the_answer),
        cmocka_unit_test(cancelling_cuts_the_answer_short),
        cmocka_unit_test(the_end_token_ends_the_answer),
        cmocka_unit_test(tokens_come_with_their_bytes),
        cmocka_unit_test(a_seed_makes_the_answer_again),
        cmocka_unit_test(an_impossible_prompt_is_refused),
        cmocka_unit_test(logits_that_are_no_numbers_are_an_error),
        cmocka_unit_test(nothing_but_the_prompt_is_required),
    };

    return cmocka_run_group_tests_name("agent/session", tests, model_begin, model_end);
}
