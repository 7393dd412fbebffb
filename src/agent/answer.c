/* agent/answer.c - see answer.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/answer.h"

#include "agent/ahead.h"
#include "agent/steer.h"
#include "base/clock.h"
#include "base/fail.h"
#include "model/sampler.h"

#include <stdlib.h>
#include <sys/random.h>

enum { TOKEN_BYTES = 1024 /* longer pieces are allocated */ };

/* ---- tokens -------------------------------------------------------------------------------- */

/* Bring the session to exactly `tokens`, computing only what is new.  The last token is
 * always computed: its logits are needed. */
static int prefill(struct mcp_session *s, const int32_t *tokens, uint32_t count, uint32_t *cached,
                   mcp_error *err)
{
    uint32_t same = 0;
    int      rc;

    while (same < s->count && same + 1 < count && s->tokens[same] == tokens[same])
        same++;
    rc = drive_trim(s, same, err);
    *cached = same;
    if (rc == MCP_OK)
        rc = drive_advance(s, tokens + same, count - same, true, err);
    return rc;
}

/* Hand a token's bytes to the callback; *stop tells what it returned. */
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

/* Take one token of the answer: count it, time it, show it.  1: the answer is over. */
static int take(struct answer *a, int32_t token, bool ends)
{
    const struct model_vocab *vocab = model_get_vocab(a->session->model, NULL);
    mcp_generate_result      *r = &a->result;
    double                    now = base_clock_ms();
    int                       stop = 0, rc;

    r->generated_tokens++;
    if (r->generated_tokens == 1) {
        a->first_ms = now;
        r->ttft_ms = now - a->start_ms;
    } else if (now - a->last_ms > a->session->stall_ms_max) {
        a->session->stall_ms_max = now - a->last_ms;
    }
    a->last_ms = now;
    r->generate_ms = now - a->first_ms;
    if (ends) {
        r->stop = MCP_STOP_END;
        r->generated_tokens--; /* not part of the text */
        return 1;
    }
    rc = deliver(vocab, token, a->fn, a->ctx, &stop, a->err);
    if (rc < 0)
        return rc;
    if (stop) {
        r->stop = MCP_STOP_CALLBACK;
        return 1;
    }
    if (r->generated_tokens == a->opts->max_tokens) {
        r->stop = MCP_STOP_LENGTH;
        return 1;
    }
    return 0;
}

int answer_next(struct answer *a, struct model_sampler *sampler, const float *logits,
                int32_t *token)
{
    struct mcp_session       *s = a->session;
    const struct model_vocab *vocab = model_get_vocab(s->model, NULL);
    int                       rc;

    *token = model_sampler_pick(sampler, logits);
    if (*token < 0)
        return base_fail(a->err, MCP_EFORMAT,
                         "%s: the logits after position %u are not finite numbers: its weights "
                         "are damaged or overflow",
                         s->model->info.path, s->count);
    rc = take(a, *token,
              !a->opts->ignore_end && vocab != NULL && model_vocab_token_ends(vocab, *token));
    if (rc == 0 && s->count == s->ctx_tokens) {
        a->result.stop = MCP_STOP_CONTEXT;
        return 1;
    }
    return rc;
}

/* One token a window, from *token on, which has been shown. */
static int generate(struct answer *a, struct model_sampler *sampler, int32_t *token)
{
    struct mcp_session *s = a->session;
    int                 rc = MCP_OK;

    while (rc == MCP_OK) {
        rc = drive_advance(s, token, 1, true, a->err);
        if (rc == MCP_OK)
            rc = answer_next(a, sampler, s->logits, token);
        if (rc == MCP_OK && steer_wants(a))
            rc = ANSWER_MOVES;
    }
    return answer_ended(rc);
}

/* The answer from its first token on, or from a->token when it has moved here. */
static int generate_here(struct answer *a, const int32_t *tokens, uint32_t count)
{
    struct mcp_session   *s = a->session;
    struct model_sampler *sampler = model_sampler_new(a->opts, s->model->hp.n_vocab,
                                                      a->result.seed);
    int                   rc = MCP_OK;

    if (sampler == NULL)
        return base_fail(a->err, MCP_ENOMEM, "sampler");
    model_sampler_skip(sampler, a->result.generated_tokens);
    if (a->result.generated_tokens == 0) {
        rc = prefill(s, tokens, count, &a->result.prompt_cached, a->err);
        a->result.prompt_ms = base_clock_ms() - a->start_ms;
        if (rc == MCP_OK && a->opts->max_tokens == 0) {
            a->result.stop = MCP_STOP_LENGTH;
            goto out;
        }
        if (rc == MCP_OK)
            rc = answer_next(a, sampler, s->logits, &a->token);
        if (rc != MCP_OK)
            goto out;
    }
    steer_begin(a);
    rc = s->ahead != NULL ? ahead_generate(a, sampler, &a->token) : generate(a, sampler, &a->token);
out:
    model_sampler_free(sampler);
    return answer_ended(rc);
}

/* ---- generating in the cloud ------------------------------------------------------------------------- */

static int on_cloud_token(int32_t token, enum wire_stop stop, void *ctx)
{
    struct answer *a = ctx;
    bool           first = a->result.generated_tokens == 0;
    int            rc = take(a, token, stop == WIRE_STOP_END);

    if (rc == 0 && stop == WIRE_STOP_CONTEXT) {
        a->result.stop = MCP_STOP_CONTEXT;
        rc = 1;
    }
    if (rc != 0 || stop != WIRE_STOP_NOT)
        return rc;
    a->token = token;
    if (first)
        steer_begin(a);
    return steer_wants(a) ? ANSWER_MOVES : 0;
}

static int generate_in_the_cloud(struct answer *a, const int32_t *tokens, uint32_t count)
{
    struct mcp_session *s = a->session;
    uint32_t            made = a->result.generated_tokens, cached = 0;
    int                 rc;

    if (made > 0) { /* moved here: all so far is the prompt */
        count = a->result.prompt_tokens + made;
        s->tokens[count - 1] = a->token;
        tokens = s->tokens;
        steer_begin(a);
    }
    rc = cloud_generate(s, tokens, count, made, a->opts, a->result.seed, &cached, on_cloud_token, a,
                        a->err);
    if (made == 0) {
        a->result.prompt_cached = cached;
        a->result.prompt_ms = a->result.generated_tokens > 0 ? a->result.ttft_ms
                                                             : base_clock_ms() - a->start_ms;
    }
    return rc;
}

int session_generate(struct mcp_session *s, const int32_t *tokens, uint32_t count,
                     const mcp_generate_opts *opts, mcp_token_fn fn, void *ctx,
                     mcp_generate_result *result, mcp_error *err)
{
    struct answer a = { .session = s,
                        .opts = opts,
                        .fn = fn,
                        .ctx = ctx,
                        .start_ms = base_clock_ms(),
                        .result = { .prompt_tokens = count, .seed = choose_seed(opts->seed) },
                        .err = err };
    int           rc;

    (void)session_cancelled(s); /* one from before does not count */
    if (count == 0)
        return base_fail(err, MCP_ERANGE, "the prompt is empty");
    if (count > s->ctx_tokens)
        return base_fail(err, MCP_ERANGE, "the prompt has %u tokens, the context %u; raise -c",
                         count, s->ctx_tokens);
    if (s->stage_count == 0)
        return base_fail(err, MCP_EUNAVAIL, "the session has lost its places and found no others");
    do {
        rc = s->cloud ? generate_in_the_cloud(&a, tokens, count) : generate_here(&a, tokens, count);
        if (rc != ANSWER_MOVES)
            break;
        rc = steer_move(&a);
    } while (rc == MCP_OK);
    if (rc == MCP_ECANCELED) {
        a.result.stop = MCP_STOP_CANCEL;
        rc = MCP_OK;
    }
    if (a.result.prompt_ms > 0.0)
        a.result.prompt_per_second = (count - a.result.prompt_cached) * 1e3 / a.result.prompt_ms;
    if (a.result.generated_tokens > 1 && a.result.generate_ms > 0.0)
        a.result.predicted_per_second = (a.result.generated_tokens - 1) * 1e3 /
                                        a.result.generate_ms;
    if (result != NULL)
        *result = a.result;
    return rc;
}
