/* plan/facts.c - names, and what facts and requests must be like before anything is computed.
 *
 * SPDX-License-Identifier: MIT */
#include "plan/plan.h"

#include "base/fail.h"

#include <math.h>
#include <string.h>

/* ---- names -------------------------------------------------------------------------------- */

const char *plan_mode_name(enum plan_mode mode)
{
    static const char *const names[PLAN_MODES] = { [PLAN_LOCAL] = "local",
                                                   [PLAN_CLOUD] = "cloud",
                                                   [PLAN_SPLIT] = "split",
                                                   [PLAN_PREFILL] = "prefill" };

    return names[mode];
}

const char *plan_privacy_name(enum plan_privacy privacy)
{
    static const char *const names[] = {
        [PLAN_STRICT] = "strict", [PLAN_PRIVATE] = "split", [PLAN_OPEN] = "open"
    };

    return names[privacy];
}

const char *plan_objective_name(enum plan_objective objective)
{
    static const char *const names[] = {
        [PLAN_LATENCY] = "latency", [PLAN_COST] = "cost", [PLAN_THROUGHPUT] = "throughput"
    };

    return names[objective];
}

const char *plan_drafter_name(enum plan_drafter drafter)
{
    static const char *const names[PLAN_DRAFTERS] = { [PLAN_NO_DRAFTS] = "none",
                                                      [PLAN_NGRAM] = "ngram",
                                                      [PLAN_DRAFT_MODEL] = "draft",
                                                      [PLAN_BOTH] = "both" };

    return names[drafter];
}

const char *plan_limit_name(enum plan_limit limit)
{
    static const char *const names[PLAN_LIMIT_COUNT] = {
#define X(name, code, text) [name] = text,
        PLAN_LIMITS(X)
#undef X
    };

    return names[limit];
}

const char *plan_term_name(enum plan_term term)
{
    static const char *const names[PLAN_TERMS] = {
#define X(name, text) [name] = text,
        PLAN_TERMS_LIST(X)
#undef X
    };

    return names[term];
}

/* ---- numbers ------------------------------------------------------------------------------ */

/* Largest amount of anything: arbitrary but safe, sums and products of it stay finite. */
static const double amount_max = 1e18;

static int check_amount(const char *of, const char *what, double value, double least, double most,
                        mcp_error *err)
{
    if (!(value >= least && value <= most))
        return base_fail(err, MCP_ERANGE, "plan: %s has %s %g, must be %g to %g", of, what, value,
                         least, most);
    return 0;
}

/* What is checked of one thing; the first that is wrong is told. */
struct amount {
    const char *what;
    double      value, least, most;
};

static int check_amounts(const char *of, const struct amount *amounts, size_t count, mcp_error *err)
{
    for (size_t i = 0; i < count; i++) {
        int rc = check_amount(of, amounts[i].what, amounts[i].value, amounts[i].least,
                              amounts[i].most, err);

        if (rc < 0)
            return rc;
    }
    return 0;
}

#define CHECK_AMOUNTS(of, amounts, err) \
    check_amounts(of, amounts, sizeof(amounts) / sizeof((amounts)[0]), err)

static int check_name(const char *what, const char *text, size_t bytes, mcp_error *err)
{
    if (memchr(text, '\0', bytes) == NULL)
        return base_fail(err, MCP_EINVAL, "plan: the name of a %s has no end", what);
    return 0;
}

/* ---- facts -------------------------------------------------------------------------------- */

static int check_model(const struct plan_model *m, mcp_error *err)
{
    double sum = 0.0;

    if (m == NULL)
        return base_fail(err, MCP_EINVAL, "plan: no model");
    if (m->layers == 0 || m->layers > PLAN_LAYERS_MAX || m->n_embd == 0 || m->n_vocab == 0)
        return base_fail(err, MCP_ERANGE,
                         "plan: a model of %u layers, width %u and %u tokens; must be 1 to %d "
                         "layers, at least 1 wide, 1 token",
                         m->layers, m->n_embd, m->n_vocab, PLAN_LAYERS_MAX);
    for (uint32_t i = 0; i < m->layers; i++) {
        int rc = check_amount("the model", "work of a layer", m->work[i], 0.0, amount_max, err);

        if (rc < 0)
            return rc;
        sum += m->work[i];
    }
    if (sum != 0.0 && fabs(sum / m->layers - 1.0) > 0.01)
        return base_fail(err, MCP_EINVAL,
                         "plan: the work of the model's layers is %g on average, must be 1",
                         sum / m->layers);
    return 0;
}

static int check_profile(const char *of, const struct plan_profile *profile,
                         const struct plan_model *model, mcp_error *err)
{
    int rc = plan_profile_check(profile, err);

    if (rc == 0 && (profile->layers != model->layers || profile->n_embd != model->n_embd))
        rc = base_fail(err, MCP_EINVAL,
                       "plan: the profile of %s is of %u layers of width %u, the model has %u of "
                       "width %u",
                       of, profile->layers, profile->n_embd, model->layers, model->n_embd);
    return rc;
}

static int check_here(const struct plan_here *h, const struct plan_model *model, mcp_error *err)
{
    const struct amount amounts[] = {
        { "a quality change of", h->quality_pct, -amount_max, amount_max },
    };
    int rc = check_name("set of weights here", h->name, sizeof(h->name), err);

    if (rc == 0 && (h->profile == NULL || h->weights == NULL))
        rc = base_fail(err, MCP_EINVAL, "plan: %s has no profile or no weights", h->name);
    if (rc == 0)
        rc = check_profile(h->name, h->profile, model, err);
    return rc == 0 ? CHECK_AMOUNTS(h->name, amounts, err) : rc;
}

static int check_worker(const struct plan_worker *w, const struct plan_model *model, mcp_error *err)
{
    const struct amount amounts[] = {
        { "a round trip of", w->link.rtt_ms, 0.0, 1e6 },
        { "goodput up of", w->link.mbit[PLAN_UP], 0.0, 1e9 },
        { "goodput down of", w->link.mbit[PLAN_DOWN], 0.0, 1e9 },
        { "a queue of", w->queue_ms, 0.0, 1e9 },
        { "a price of", w->price_hour, 0.0, 1e9 },
        { "a quality change of", w->quality_pct, -amount_max, amount_max },
        { "a sequence count of", w->others, 0.0, 65536.0 },
    };
    int rc = check_name("worker", w->name, sizeof(w->name), err);

    if (rc == 0 && (w->first > w->last || w->last > model->layers))
        rc = base_fail(err, MCP_ERANGE, "plan: %s holds layers [%u, %u) of a model of %u", w->name,
                       w->first, w->last, model->layers);
    if (rc == 0 && w->profile != NULL)
        rc = check_profile(w->name, w->profile, model, err);
    return rc == 0 ? CHECK_AMOUNTS(w->name, amounts, err) : rc;
}

static int check_codec(const struct plan_codec *c, mcp_error *err)
{
    const struct amount amounts[] = {
        { "a token of bytes", c->token_bytes, 0.0, 1e9 },
        { "a quality change of", c->quality_pct, -amount_max, amount_max },
        { "a time a token of", c->token_ms, 0.0, 1e6 },
    };
    int rc = check_name("codec", c->name, sizeof(c->name), err);

    return rc == 0 ? CHECK_AMOUNTS(c->name, amounts, err) : rc;
}

static int check_draft(const struct plan_draft *d, mcp_error *err)
{
    const struct amount amounts[] = {
        { "an acceptance of", d->accept, 0.0, 1.0 },
        { "a hit rate of", d->hit, 0.0, 1.0 },
        { "a time a token of", d->token_ms, 0.0, 1e6 },
    };

    if (d->drafter <= PLAN_NO_DRAFTS || d->drafter >= PLAN_DRAFTERS)
        return base_fail(err, MCP_EINVAL, "plan: there is no drafter %u", (unsigned)d->drafter);
    return CHECK_AMOUNTS(plan_drafter_name(d->drafter), amounts, err);
}

static int check_count(const char *what, uint32_t count, uint32_t count_max, const void *array,
                       mcp_error *err)
{
    if (count > count_max)
        return base_fail(err, MCP_ERANGE, "plan: %u %s, the limit is %u", count, what, count_max);
    if (count > 0 && array == NULL)
        return base_fail(err, MCP_EINVAL, "plan: %u %s at no address", count, what);
    return 0;
}

static int check_facts(const struct plan_facts *f, mcp_error *err)
{
    int rc = check_model(f->model, err);

    if (rc == 0)
        rc = check_count("sets of weights here", f->here_count, PLAN_HERE_MAX, f->here, err);
    if (rc == 0)
        rc = check_count("workers", f->worker_count, PLAN_WORKERS_MAX, f->workers, err);
    if (rc == 0)
        rc = check_count("codecs", f->codec_count, PLAN_CODECS_MAX, f->codecs, err);
    if (rc == 0)
        rc = check_count("drafters", f->draft_count, PLAN_DRAFTS_MAX, f->drafts, err);
    if (rc == 0 && f->worker_count > 0 && f->codec_count == 0)
        rc = base_fail(err, MCP_EINVAL, "plan: %u workers and no codec to reach them with",
                       f->worker_count);
    for (uint32_t i = 0; i < f->here_count && rc == 0; i++)
        rc = check_here(&f->here[i], f->model, err);
    for (uint32_t i = 0; i < f->worker_count && rc == 0; i++)
        rc = check_worker(&f->workers[i], f->model, err);
    for (uint32_t i = 0; i < f->codec_count && rc == 0; i++)
        rc = check_codec(&f->codecs[i], err);
    for (uint32_t i = 0; i < f->draft_count && rc == 0; i++)
        rc = check_draft(&f->drafts[i], err);
    return rc;
}

/* ---- request ------------------------------------------------------------------------------ */

static int check_cuts(const struct plan_request *r, uint32_t layers, mcp_error *err)
{
    if (r->cut_first == 0 && r->cut_last == 0)
        return 0;
    if (r->cut_first == 0 || r->cut_first >= r->cut_last || r->cut_last >= layers)
        return base_fail(err, MCP_ERANGE,
                         "cuts at %u and %u: must ascend and lie inside the model's %u layers",
                         r->cut_first, r->cut_last, layers);
    return 0;
}

static int check_codec_name(const struct plan_request *r, const struct plan_facts *f,
                            mcp_error *err)
{
    if (r->codec == NULL)
        return 0;
    for (uint32_t i = 0; i < f->codec_count; i++)
        if (strcmp(f->codecs[i].name, r->codec) == 0)
            return 0;
    return base_fail(err, MCP_ENOTFOUND, "no codec is called '%s'", r->codec);
}

static int check_request(const struct plan_request *r, const struct plan_facts *f, mcp_error *err)
{
    const struct amount amounts[] = {
        { "prompt tokens", r->prompt_tokens, 1.0, PLAN_CTX_MAX },
        { "generated tokens", r->gen_tokens, 0.0, PLAN_CTX_MAX },
        { "context tokens", r->ctx_tokens, 0.0, PLAN_CTX_MAX },
        { "cached tokens", r->cached_tokens, 0.0, r->prompt_tokens },
        { "a deadline of", r->deadline_ms, 0.0, amount_max },
        { "a quality bound of", r->quality_pct_max, 0.0, amount_max },
        { "a chunk of", r->chunk_tokens, 0.0, PLAN_CHUNK_MAX },
        { "a draft depth of", r->depth, -1.0, PLAN_DEPTH_MAX },
        { "windows in flight", r->windows, 0.0, PLAN_WINDOWS_MAX },
    };
    int rc = CHECK_AMOUNTS("the request", amounts, err);

    if (rc == 0 && ((unsigned)r->privacy > PLAN_OPEN || (unsigned)r->objective > PLAN_THROUGHPUT))
        rc = base_fail(err, MCP_EINVAL, "plan: there is no privacy %u or no objective %u",
                       (unsigned)r->privacy, (unsigned)r->objective);
    if (rc == 0)
        rc = check_cuts(r, f->model->layers, err);
    return rc == 0 ? check_codec_name(r, f, err) : rc;
}

int plan_check(const struct plan_facts *facts, const struct plan_request *request, mcp_error *err)
{
    int rc = check_facts(facts, err);

    return rc == 0 ? check_request(request, facts, err) : rc;
}
