/* plan/plan.h - facts in, plan out: where the layers of a request run, and what that will cost.
 *
 *     facts (model, devices, links, codecs, drafts) --+
 *                                                     +--> every plan that is possible --> cost
 *     request (tokens, policy, limits, objective) ----+    of each --> the best, and why the
 *                                                          best of each other mode lost
 *
 * Candidates: `local`; `cloud` on each worker; `split` at each pair of cuts on each worker, or on
 * two that hold neighbouring parts; `prefill` with the same cuts, or none where everything may
 * leave; each with every codec, chunk size, drafter, depth and number of windows.  The scan is
 * exact: what is skipped cannot be better than what was found (choose.c).  Of equals the one that
 * comes first wins, so the same facts always give the same plan.
 *
 * docs/planning.md has the formulas and what they ignore.  Pure: no allocation, no clock, no I/O;
 * facts are only read, so one set may be used by several threads.  plan_choose() takes
 * about 100 KiB of stack.
 *
 * Times are ms, sizes bytes, rates of perplexity per cent.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PLAN_PLAN_H
#define PLAN_PLAN_H

#include "plan/link.h"
#include "plan/profile.h"

enum {
    PLAN_HERE_MAX = 4,     /* sets of weights of one model on this machine */
    PLAN_WORKERS_MAX = 64, /* MCP_WORKERS_MAX; request.workers_excluded has a bit for each */
    PLAN_CODECS_MAX = 16,
    PLAN_DRAFTS_MAX = 4,
    PLAN_HOPS_MAX = 2, /* remote stages of a plan: a third costs a round trip more than any gain */
    PLAN_DEPTH_MAX = 63,
    PLAN_WINDOWS_MAX = 16,
    PLAN_CHUNK_MAX = 4096,
    PLAN_CTX_MAX = 1 << 24, /* positions; far beyond any model */
    PLAN_WHY_BYTES = 256,
};

/* ---- facts ------------------------------------------------------------------------------ */

struct plan_model {
    uint32_t layers, n_embd, n_vocab;
    uint32_t kv_layer_bytes; /* of one position in one layer, as the engines keep it */
    /* Work of each layer, on average 1: its time is that of the profiles' average layer times
     * this.  All zero = all alike. */
    double work[PLAN_LAYERS_MAX];
};

/* What layers occupy where they are held. */
struct plan_weights {
    uint64_t layer_bytes[PLAN_LAYERS_MAX];
    uint64_t embed_bytes, head_bytes;
};

/* This machine with one set of weights.  Several (another quantisation of the same model) are
 * alternatives. */
struct plan_here {
    char                       name[PLAN_NAME_BYTES]; /* "Q4_K_M on cpu" */
    const struct plan_profile *profile;
    const struct plan_weights *weights;
    uint64_t                   weights_id;    /* equal = the same weights (a fingerprint's bytes) */
    uint64_t                   compute_bytes; /* buffers beside weights and KV */
    bool                       even_windows;  /* windows of 1 to 63 positions give the same bits */
    double                     quality_pct;   /* perplexity, against the user's reference weights */
};

/* A worker; one that holds two sets of weights is listed twice. */
struct plan_worker {
    char                       name[PLAN_NAME_BYTES];
    const struct plan_profile *profile; /* NULL = not known yet: it is not used */
    struct plan_link_estimate  link;
    bool                       up;          /* connected and fit, not draining */
    uint32_t                   first, last; /* layers held */
    uint32_t layers_max;    /* most of them to be asked for at once; 0 = all.  Lowered when it said
                               that its resources are exhausted */
    uint32_t sessions_free; /* one of ours that is open there counts as free */
    uint32_t ctx_tokens;    /* of a session; 0 = not known */
    uint32_t others;        /* sequences of others in its forwards now */
    double   queue_ms;      /* a window waits */
    bool     generates;     /* cloud mode */
    bool     exports_kv;    /* prefill mode */
    bool     even_windows;
    uint64_t weights_id;
    double   quality_pct;
    double   price_hour; /* of its computing, in any currency */
    /* A worker that is only supposed: what would have to be loaded, and the room for that and the
     * session's KV.  NULL and 0 = it is there, and sessions_free says what fits. */
    const struct plan_weights *weights;
    uint64_t                   memory_bytes;
};

/* Hidden states on the wire: a row of the codec table with what the planner needs of it. */
struct plan_codec {
    char   name[16];
    double token_bytes; /* of one hidden state */
    double quality_pct; /* change of perplexity by one pair of cuts */
    double token_ms;    /* to encode or decode one hidden state */
};

enum plan_drafter { PLAN_NO_DRAFTS, PLAN_NGRAM, PLAN_DRAFT_MODEL, PLAN_BOTH, PLAN_DRAFTERS };

/* One way to draft, with what was seen of it so far. */
struct plan_draft {
    enum plan_drafter drafter;
    double            accept;    /* chance that a draft is right, all before it being so */
    double            hit;       /* share of windows for which it has any drafts */
    double            token_ms;  /* to make one, on this machine */
    uint32_t          depth_max; /* most drafts of a window; 0 = PLAN_DEPTH_MAX */
};

struct plan_adjust; /* plan/adjust.h: factors learned from what plans took */

struct plan_facts {
    const struct plan_model  *model;
    const struct plan_here   *here; /* none: only cloud is possible */
    uint32_t                  here_count;
    const struct plan_worker *workers;
    uint32_t                  worker_count;
    const struct plan_codec  *codecs;
    uint32_t                  codec_count;
    const struct plan_draft  *drafts;
    uint32_t                  draft_count;
    const struct plan_adjust *adjust; /* NULL = predictions as computed */
};

/* ---- request ---------------------------------------------------------------------------- */

/* What may leave this machine.  Ordered: the later, the more. */
enum plan_privacy {
    PLAN_STRICT,  /* nothing */
    PLAN_PRIVATE, /* hidden states; tokens, logits, first and last layers stay ("split") */
    PLAN_OPEN,    /* anything */
};

enum plan_objective {
    PLAN_LATENCY,    /* the request's time; then its price */
    PLAN_COST,       /* its price; then its time */
    PLAN_THROUGHPUT, /* the time for which it occupies the busiest device or link, which is what
                        bounds many such requests at once; then its time */
};

/* In the order in which equals are preferred. */
enum plan_mode { PLAN_LOCAL, PLAN_CLOUD, PLAN_SPLIT, PLAN_PREFILL, PLAN_MODES };

const char *plan_mode_name(enum plan_mode mode);                /* "split" */
const char *plan_privacy_name(enum plan_privacy privacy);       /* "strict", "split", "open" */
const char *plan_objective_name(enum plan_objective objective); /* "latency" */
const char *plan_drafter_name(enum plan_drafter drafter);       /* "none", "ngram", "draft",
                                                                   "both" */

struct plan;

/* Start from PLAN_REQUEST_INIT.  What is 0 or NULL is left to the planner. */
struct plan_request {
    uint32_t prompt_tokens; /* 1 at least */
    uint32_t gen_tokens;    /* expected */
    uint32_t ctx_tokens;    /* to reserve; 0 = prompt and generated */
    /* Positions of the prompt that are computed already: in the places of `current`, so only for
     * plans with the same places; for all, when it is NULL. */
    uint32_t            cached_tokens;
    const struct plan  *current;
    enum plan_privacy   privacy;
    enum plan_objective objective;
    /* Hard limits. */
    uint64_t memory_limit_bytes;                /* here (--vram); 0 = 70 % of the device's memory */
    double   deadline_ms;                       /* of the whole request; 0 = none */
    double   quality_pct_max;                   /* change of perplexity by weights and codec */
    uint32_t layers_first_min, layers_last_min; /* that stay here in split; at least 1 */
    bool     mixed_weights;                     /* a worker's weights may be others than ours */
    bool     kv_q8;                             /* prefill may hand the KV back as q8_0 */
    bool     even; /* bits as without speculation: only where all windows are even */
    /* Decided by the user. */
    uint32_t    modes;               /* bits, 1 << PLAN_SPLIT; 0 = any */
    uint64_t    workers_excluded;    /* bits */
    uint32_t    cut_first, cut_last; /* both 0 = choose */
    const char *codec;               /* its name */
    uint32_t    chunk_tokens;
    uint32_t    drafters; /* bits, 1 << PLAN_NGRAM; 0 = any */
    int32_t     depth;    /* -1 = choose */
    uint32_t    windows;
};

#define PLAN_REQUEST_INIT                                                    \
    {                                                                        \
        .prompt_tokens = 1, .privacy = PLAN_PRIVATE, .quality_pct_max = 1.0, \
        .layers_first_min = 1, .layers_last_min = 1, .depth = -1,            \
    }

/* ---- plan ------------------------------------------------------------------------------- */

struct plan_hop {
    uint32_t worker; /* index into the facts */
    uint32_t first, last;
};

/* One candidate.  Layers that no hop has run here; a prefill plan ends with all of them here. */
struct plan {
    enum plan_mode  mode;
    uint32_t        here; /* index into the facts; not looked at in cloud */
    uint32_t        hop_count;
    struct plan_hop hops[PLAN_HOPS_MAX];
    uint32_t        codec; /* index; where hidden states leave */
    uint32_t        chunk_tokens;
    uint32_t        draft; /* index; looked at when speculating */
    /* Drafts in a window, behind its one known token; windows in flight.  0 and 1 = plain. */
    uint32_t depth, windows;
    bool     kv_q8;
};

bool plan_speculates(const struct plan *plan);
/* Whether each layer runs at the same place in both. */
bool plan_same_places(const struct plan *a, const struct plan *b);

/* What a candidate breaks first, in the order in which it is looked at. */
#define PLAN_LIMITS(X)                                                       \
    X(PLAN_FITS, MCP_OK, "fits")                                             \
    X(PLAN_NOT_ASKED, MCP_EINVAL, "mode")                                    \
    X(PLAN_NOT_PRIVATE, MCP_EDENIED, "privacy")                              \
    X(PLAN_NO_PLACE, MCP_EUNAVAIL, "no worker")                              \
    X(PLAN_NO_PROFILE, MCP_EUNAVAIL, "no profile")                           \
    X(PLAN_NOT_ABLE, MCP_ENOTSUP, "feature of the worker")                   \
    X(PLAN_NOT_HELD, MCP_ERANGE, "layers held")                              \
    X(PLAN_OTHER_WEIGHTS, MCP_ENOTSUP, "weights")                            \
    X(PLAN_NO_SESSION, MCP_EBUSY, "sessions")                                \
    X(PLAN_NO_CONTEXT, MCP_ERANGE, "context")                                \
    X(PLAN_MEMORY_HERE, MCP_ENOMEM, "memory here")                           \
    X(PLAN_MEMORY_THERE, MCP_ENOMEM, "memory of the worker")                 \
    X(PLAN_NOT_CHOSEN, MCP_EINVAL, "cuts, codec, chunk or drafts asked for") \
    X(PLAN_QUALITY, MCP_ENOTSUP, "quality")                                  \
    X(PLAN_NOT_EVEN, MCP_ENOTSUP, "even windows")                            \
    X(PLAN_LATE, MCP_ETIMEOUT, "deadline")

enum plan_limit {
#define X(name, code, text) name,
    PLAN_LIMITS(X)
#undef X
        PLAN_LIMIT_COUNT
};

const char *plan_limit_name(enum plan_limit limit); /* "memory here" */

/* What a request's time consists of; they add up to it. */
#define PLAN_TERMS_LIST(X)                      \
    X(PLAN_TERM_HERE, "computing here")         \
    X(PLAN_TERM_WORKER, "computing there")      \
    X(PLAN_TERM_QUEUE, "waiting at the worker") \
    X(PLAN_TERM_RTT, "round trips")             \
    X(PLAN_TERM_UP, "bytes up")                 \
    X(PLAN_TERM_DOWN, "bytes down")             \
    X(PLAN_TERM_FRAME, "frames")                \
    X(PLAN_TERM_DRAFT, "drafting")

enum plan_term {
#define X(name, text) name,
    PLAN_TERMS_LIST(X)
#undef X
        PLAN_TERMS
};

const char *plan_term_name(enum plan_term term);

/* What can be occupied by only one window at a time. */
enum plan_resource {
    PLAN_RES_HERE,
    PLAN_RES_UP,
    PLAN_RES_WORKER,
    PLAN_RES_WORKER_2,
    PLAN_RES_DOWN,
    PLAN_RESOURCES
};

struct plan_cost {
    enum plan_limit limit;                  /* PLAN_FITS, or what it breaks; then: */
    double          limit_need, limit_have; /* where it is about a quantity; else 0 */
    uint32_t        limit_worker;           /* where it is about one */
    /* 0 where the limit left nothing to predict. */
    double   ttft_ms;      /* to the first token */
    double   token_ms;     /* each further one; in prefill, the mean of both phases */
    double   total_ms;     /* ttft + (generated - 1) x token */
    double   round_ms;     /* from a window's sending to its rows; what is measured per frame */
    double   round_tokens; /* expected of a window that is speculated */
    double   handover_ms;  /* prefill: when this machine has taken over */
    double   bytes_out, bytes_in;
    double   busy_ms[PLAN_RESOURCES]; /* over the request */
    double   term_ms[PLAN_TERMS];     /* sum: total_ms */
    double   price;
    double   quality_pct;
    uint64_t memory_here_bytes, memory_there_bytes;
};

/* MCP_EINVAL, MCP_ERANGE: facts or a request that contradict themselves or exceed a bound above,
 * a number that is negative or not finite.  Called by the functions below. */
int plan_check(const struct plan_facts *facts, const struct plan_request *request, mcp_error *err);

/* What `plan` will cost; cost->limit says whether it may be used.
 *   as plan_check(); MCP_ERANGE also for a plan whose indices, cuts or counts are outside */
int plan_predict(struct plan_cost *cost, const struct plan_facts *facts,
                 const struct plan_request *request, const struct plan *plan, mcp_error *err);

/* The best of one mode. */
struct plan_rival {
    bool             possible; /* else `cost.limit` is what came nearest to fitting */
    struct plan      plan;
    struct plan_cost cost;
    char             why[PLAN_WHY_BYTES]; /* one sentence: why it won, lost or is impossible */
};

struct plan_choice {
    struct plan       plan;
    struct plan_cost  cost;
    struct plan_rival modes[PLAN_MODES]; /* that of plan.mode is the winner */
    uint64_t          predicted;         /* candidates whose cost was computed */
};

/* The best plan.  *out is filled in any case but that of plan_check(), so that `mcp plan` can show
 * what failed.  When no plan fits, the code is that of the limit that the nearest one breaks, and
 * the sentence says what each mode breaks. */
int plan_choose(struct plan_choice *out, const struct plan_facts *facts,
                const struct plan_request *request, mcp_error *err);

/* The plan in words: "split 0-2 here, 2-28 on gpu-01, 28-30 here, q8r, chunks of 128, ngram 4 x 3".
 * Cut off at `bytes`. */
void plan_describe(char *text, size_t bytes, const struct plan_facts *facts,
                   const struct plan *plan);

#endif
