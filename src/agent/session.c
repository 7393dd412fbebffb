/* agent/session.c - see session.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/session.h"

#include "agent/sampler.h"
#include "agent/stage_local.h"
#include "base/clock.h"
#include "base/fail.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { TOKEN_BYTES = 1024 }; /* longer pieces are allocated */

/* ---- opening ---------------------------------------------------------------------------- */

static int check_cuts(const struct mcp_engine *e, const mcp_session_opts *opts, mcp_error *err)
{
    uint32_t layers = e->model->hp.n_layer;

    if (opts->cut_count > MCP_CUTS_MAX)
        return base_fail(err, MCP_ERANGE, "%u cuts, at most %d", opts->cut_count, MCP_CUTS_MAX);
    for (uint32_t i = 0; i < opts->cut_count; i++) {
        if (opts->cuts[i] < 1 || opts->cuts[i] >= layers)
            return base_fail(err, MCP_ERANGE, "cut %u is not inside the model's layers 1 to %u",
                             opts->cuts[i], layers - 1);
        if (i > 0 && opts->cuts[i] <= opts->cuts[i - 1])
            return base_fail(err, MCP_ERANGE, "cut %u follows %u: cuts must ascend", opts->cuts[i],
                             opts->cuts[i - 1]);
    }
    return MCP_OK;
}

static int make_stages(struct mcp_session *s, const mcp_session_opts *opts, mcp_error *err)
{
    const struct mcp_engine *e = s->engine;
    uint32_t                 count = opts->cut_count + 1, first = 0;
    uint32_t                 window = e->info.batch_tokens;
    struct pipe_stage      **stages = calloc(count, sizeof(struct pipe_stage *));
    int                      rc;

    if (stages == NULL)
        return base_fail(err, MCP_ENOMEM, "%u stages", count);
    rc = pipeline_open(&s->pipeline, stages, count, e->model->hp.n_embd, e->model->hp.n_vocab,
                       window, err);
    for (uint32_t i = 0; i < count && rc == MCP_OK; i++) {
        uint32_t last = i < opts->cut_count ? opts->cuts[i] : e->model->hp.n_layer;

        stages[i] = stage_local_new(s->engine, s->seq, first, last);
        if (stages[i] == NULL)
            rc = base_fail(err, MCP_ENOMEM, "stage %u", i);
        first = last;
    }
    return rc;
}

int session_open(struct mcp_session **out, struct mcp_engine *engine, const mcp_session_opts *opts,
                 mcp_error *err)
{
    struct mcp_session *s;
    int                 rc;

    *out = NULL;
    if (engine->info.first != 0 || engine->info.last != engine->model->hp.n_layer)
        return base_fail(err, MCP_ERANGE,
                         "the engine holds layers [%u, %u) of %u, a session needs all",
                         engine->info.first, engine->info.last, engine->model->hp.n_layer);
    if (opts->seq >= engine->info.seqs)
        return base_fail(err, MCP_ERANGE, "sequence %u: the engine has %u", opts->seq,
                         engine->info.seqs);
    rc = check_cuts(engine, opts, err);
    if (rc < 0)
        return rc;

    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return base_fail(err, MCP_ENOMEM, "session");
    s->engine = engine;
    s->seq = opts->seq;
    s->tokens = malloc((size_t)engine->info.ctx_tokens * sizeof(*s->tokens));
    s->logits = engine_alloc(engine, engine->model->hp.n_vocab);
    if (s->tokens == NULL || s->logits == NULL)
        rc = base_fail(err, MCP_ENOMEM, "session of %u tokens", engine->info.ctx_tokens);
    if (rc == MCP_OK)
        rc = make_stages(s, opts, err);
    if (rc == MCP_OK)
        rc = engine_trim(engine, s->seq, 0, err);
    if (rc < 0) {
        session_close(s);
        return rc;
    }
    *out = s;
    return MCP_OK;
}

void session_close(struct mcp_session *session)
{
    if (session == NULL)
        return;
    pipeline_close(&session->pipeline);
    free(session->tokens);
    engine_free(session->logits);
    free(session);
}

/* ---- generating ------------------------------------------------------------------------- */

/* Compute tokens and remember them; the last one's logits go to s->logits when wanted. */
static int advance(struct mcp_session *s, const int32_t *tokens, uint32_t count, bool logits,
                   mcp_error *err)
{
    int rc = pipeline_forward(&s->pipeline, s->seq, s->count, tokens, count,
                              logits ? s->logits : NULL, err);

    if (rc < 0)
        return rc;
    memcpy(s->tokens + s->count, tokens, count * sizeof(*tokens));
    s->count += count;
    return MCP_OK;
}

/* Bring the session to exactly `tokens`, computing only what is new.  The last token is
 * always computed: its logits are needed. */
static int prefill(struct mcp_session *s, const int32_t *tokens, uint32_t count, uint32_t *cached,
                   mcp_error *err)
{
    uint32_t same = 0, window = s->pipeline.window_tokens;
    int      rc;

    while (same < s->count && same + 1 < count && s->tokens[same] == tokens[same])
        same++;
    rc = pipeline_trim(&s->pipeline, same, err);
    s->count = same;
    *cached = same;
    while (rc == MCP_OK && s->count < count) {
        uint32_t left = count - s->count;
        uint32_t take = left < window ? left : window;

        rc = advance(s, tokens + s->count, take, take == left, err);
    }
    return rc;
}

/* Hand a token's bytes to the callback; returns what it returns, or an error. */
static int deliver(const struct model_vocab *vocab, int32_t token, mcp_token_fn fn, void *ctx,
                   int *stop, mcp_error *err)
{
    char small[TOKEN_BYTES], *bytes = small;
    int  count = 0;

    if (fn == NULL)
        return MCP_OK;
    if (vocab != NULL) {
        count = model_vocab_token_bytes(vocab, token, 0, small, sizeof(small), err);
        if (count > (int)sizeof(small)) {
            bytes = malloc((size_t)count);
            if (bytes == NULL)
                return base_fail(err, MCP_ENOMEM, "token of %d bytes", count);
            count = model_vocab_token_bytes(vocab, token, 0, bytes, (size_t)count, err);
        }
    }
    if (count >= 0)
        *stop = fn(token, bytes, (size_t)count, ctx) != 0;
    if (bytes != small)
        free(bytes);
    return count < 0 ? count : MCP_OK;
}

static uint32_t choose_seed(uint32_t seed)
{
    if (seed == MCP_SEED_RANDOM && getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        seed = (uint32_t)(base_clock_ms() * 1e3);
    return seed;
}

static int generate(struct mcp_session *s, struct sampler *sampler, const mcp_generate_opts *opts,
                    mcp_token_fn fn, void *ctx, double start_ms, mcp_generate_result *r,
                    mcp_error *err)
{
    const struct model_vocab *vocab = model_get_vocab(s->engine->model, NULL);
    double                    first_ms = 0.0;
    int                       rc = MCP_OK, stop = 0;

    for (;;) {
        int32_t token;

        if (r->generated_tokens == opts->max_tokens) {
            r->stop = MCP_STOP_LENGTH;
            break;
        }
        token = sampler_pick(sampler, s->logits);
        if (token < 0) {
            rc = base_fail(
                err, MCP_EFORMAT,
                "%s: the logits after position %u are not finite numbers: its weights are "
                "damaged or overflow",
                s->engine->model->info.path, s->count);
            break;
        }
        r->generated_tokens++;
        r->generate_ms = base_clock_ms() - start_ms;
        if (r->generated_tokens == 1)
            first_ms = r->ttft_ms = r->generate_ms;
        r->generate_ms -= first_ms;
        if (!opts->ignore_end && vocab != NULL && model_vocab_token_ends(vocab, token)) {
            r->stop = MCP_STOP_END;
            r->generated_tokens--; /* not part of the text */
            break;
        }
        rc = deliver(vocab, token, fn, ctx, &stop, err);
        if (rc < 0)
            break;
        if (stop) {
            r->stop = MCP_STOP_CALLBACK;
            break;
        }
        if (r->generated_tokens == opts->max_tokens) {
            r->stop = MCP_STOP_LENGTH;
            break;
        }
        if (s->count == s->engine->info.ctx_tokens) {
            r->stop = MCP_STOP_CONTEXT;
            break;
        }
        rc = advance(s, &token, 1, true, err);
        if (rc < 0)
            break;
    }
    if (rc == MCP_ECANCELED) {
        r->stop = MCP_STOP_CANCEL;
        rc = MCP_OK;
    }
    return rc;
}

int session_generate(struct mcp_session *s, const int32_t *tokens, uint32_t count,
                     const mcp_generate_opts *opts, mcp_token_fn fn, void *ctx,
                     mcp_generate_result *result, mcp_error *err)
{
    mcp_generate_result r = { .prompt_tokens = count, .seed = choose_seed(opts->seed) };
    double              start_ms = base_clock_ms();
    struct sampler     *sampler;
    int                 rc;

    atomic_store(&s->engine->cancel, 0);
    if (count == 0)
        return base_fail(err, MCP_ERANGE, "the prompt is empty");
    if (count > s->engine->info.ctx_tokens)
        return base_fail(err, MCP_ERANGE, "the prompt has %u tokens, the context %u; raise -c",
                         count, s->engine->info.ctx_tokens);
    sampler = sampler_new(opts, s->engine->model->hp.n_vocab, r.seed);
    if (sampler == NULL)
        return base_fail(err, MCP_ENOMEM, "sampler");

    rc = prefill(s, tokens, count, &r.prompt_cached, err);
    r.prompt_ms = base_clock_ms() - start_ms;
    if (rc == MCP_OK)
        rc = generate(s, sampler, opts, fn, ctx, start_ms, &r, err);
    else if (rc == MCP_ECANCELED)
        r.stop = MCP_STOP_CANCEL;
    sampler_free(sampler);

    if (r.prompt_ms > 0.0)
        r.prompt_per_second = (count - r.prompt_cached) * 1e3 / r.prompt_ms;
    if (r.generated_tokens > 1 && r.generate_ms > 0.0)
        r.predicted_per_second = (r.generated_tokens - 1) * 1e3 / r.generate_ms;
    if (result != NULL)
        *result = r;
    return rc == MCP_ECANCELED ? MCP_OK : rc;
}
