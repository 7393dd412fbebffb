/* bench/decode_behind_bulk.c - how long a decode frame takes while bulk fills its connection.
 *
 *     decode_behind_bulk KEYS HOST:PORT MODEL FIRST LAST SECONDS
 *
 * The sessions of one agent share its connection to a worker.  One decodes all the time: alone,
 * then beside bulk one way (prefill windows that want no answer), then beside bulk both ways
 * (windows whose hidden states come back).  Several sessions send the bulk, so that the link is
 * still full while one of them waits for its last answers to begin its context anew.  One line of
 * JSON a phase: the round trip of decode windows and the bulk's rate each way it goes, after
 * SETTLE_S in which the pace finds it.  Hidden states are random numbers: only their size matters here.
 * bench/decode_behind_bulk.py puts a wide-area link between.
 *
 * SPDX-License-Identifier: MIT */
#include "bench.h"

#include "agent/endpoint.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "wire/codec.h"

#include <mcp/remote.h>
#include <sys/random.h>

enum {
    BULK_SESSIONS = 3,
    BULK_TOKENS = 64,
    BULK_AHEAD = 8, /* windows unanswered, each session: 3.5 MB of SmolLM2's in all */
    SAMPLES_MAX = 100000,
    CTX = 2048,
};

static const double SETTLE_S = 3.0, PATIENCE_MS = 1e5;

enum bulk { NONE, ONE_WAY, BOTH_WAYS, BULKS };

static const char *const bulk_names[BULKS] = { "none", "one way", "both ways" };

struct side {
    struct agent_endpoint *endpoint;
    uint32_t               pos, end, epoch; /* end: where it begins anew */
    uint64_t               sent, answered;
};

struct run {
    struct mcp_remote *remote;
    struct mail       *mail;
    struct pipe_block *one, *many;               /* payloads of 1 and BULK_TOKENS rows, f32 */
    struct side        sides[1 + BULK_SESSIONS]; /* [0] decodes; endpoint i + 1 */
    double             sent_ms;                  /* the decode window that is under way */
    double            *sample;                   /* (SAMPLES_MAX), ms */
    uint32_t           samples;
    uint64_t           bulk_bytes; /* answered */
};

static struct pipe_block *payload(uint32_t rows, uint32_t n_embd)
{
    struct pipe_block *block = pipe_block_new(WIRE_F32, rows, n_embd * sizeof(float));
    float             *x = block != NULL ? (float *)(void *)block->data : NULL;

    if (block == NULL)
        bench_die("out of memory");
    for (size_t i = 0; i < (size_t)rows * n_embd; i++)
        x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    return block;
}

static void open_side(struct run *r, uint32_t index, const struct wire_open *open)
{
    struct wire_open own = *open;
    mcp_error        err;

    /* The first time earlier by turns, so that no two sessions wait at once. */
    r->sides[index].end = CTX - index * CTX / (1 + BULK_SESSIONS);
    if (getrandom(own.session, sizeof(own.session), 0) < 0)
        bench_die("no random numbers");
    if (endpoint_open(&r->sides[index].endpoint, r->remote, 0, index + 1, r->mail, &own,
                      PATIENCE_MS, &err) < 0)
        bench_die("%s", err.text);
}

static void send_frame(struct side *side, const struct wire_frame *frame, struct pipe_block *block)
{
    mcp_error err;

    if (endpoint_send(side->endpoint, frame, block, &err) < 0)
        bench_die("%s", err.text);
}

/* One window; the session begins anew where its context ends. */
static void send_window(struct side *side, struct pipe_block *block, bool bulk, enum wire_want want)
{
    struct wire_frame frame = { .kind = WIRE_TRIM };

    if (side->pos + block->rows > side->end) {
        frame.u.trim.epoch = ++side->epoch;
        side->pos = 0;
        side->end = CTX;
        send_frame(side, &frame, NULL);
    }
    frame = (struct wire_frame){ .kind = WIRE_FORWARD };
    frame.u.forward = (struct wire_forward){
        .number = ++side->sent,
        .epoch = side->epoch,
        .pos = side->pos,
        .count = block->rows,
        .in = { WIRE_F32, WIRE_PLAIN, block->data, block->bytes, block->bytes },
        .want = want,
        .bulk = bulk,
    };
    side->pos += block->rows;
    send_frame(side, &frame, block);
}

static void send_decode(struct run *r)
{
    r->sent_ms = base_clock_ms();
    send_window(&r->sides[0], r->one, false, WIRE_WANT_HIDDEN);
}

/* As far ahead as a session may; a Trim voids what was not answered, so it waits for that. */
static void send_bulk(struct run *r, enum bulk bulk)
{
    for (uint32_t i = 1; bulk != NONE && i <= BULK_SESSIONS; i++) {
        struct side *side = &r->sides[i];

        while (side->sent - side->answered < BULK_AHEAD &&
               (side->pos + BULK_TOKENS <= side->end || side->sent == side->answered))
            send_window(side, r->many, true, bulk == ONE_WAY ? WIRE_WANT_NONE : WIRE_WANT_HIDDEN);
    }
}

static void take(struct run *r, const struct mail_event *event)
{
    struct side *side = &r->sides[event->endpoint - 1];

    if (event->kind == MAIL_LOST)
        bench_die("%s", event->status.text);
    if (event->kind != MAIL_RESULT)
        return;
    side->answered = event->number;
    if (side != &r->sides[0]) {
        r->bulk_bytes += r->many->bytes;
        return;
    }
    if (r->samples < SAMPLES_MAX)
        r->sample[r->samples++] = base_clock_ms() - r->sent_ms;
    send_decode(r);
}

static void run_for(struct run *r, double seconds, enum bulk bulk)
{
    const double until_ms = base_clock_ms() + seconds * 1e3;

    r->samples = 0;
    r->bulk_bytes = 0;
    while (base_clock_ms() < until_ms) {
        struct mail_event *event;
        bool               starved;

        send_bulk(r, bulk);
        mail_wait(r->mail, base_clock_ms() + 20.0);
        while ((event = mail_take(r->mail, &starved)) != NULL) {
            take(r, event);
            mail_event_free(event);
        }
    }
}

static void measure(struct run *r, double seconds, enum bulk bulk)
{
    double began, took_ms, p50_ms;

    run_for(r, SETTLE_S, bulk);
    began = base_clock_ms();
    run_for(r, seconds, bulk);
    took_ms = base_clock_ms() - began;
    if (r->samples == 0)
        bench_die("no decode window was answered in %.0f s", seconds);
    p50_ms = bench_median(r->sample, r->samples);
    printf("{\"bulk\": \"%s\", \"p50_ms\": %.2f, \"p99_ms\": %.2f, \"samples\": %u, "
           "\"bulk_mbit\": %.2f}\n",
           bulk_names[bulk], p50_ms, r->sample[(uint32_t)((r->samples - 1) * 0.99)], r->samples,
           (double)r->bulk_bytes * 8e-3 / took_ms);
}

int main(int argc, char **argv)
{
    struct run        r = { 0 };
    struct wire_open  open = { .ctx_tokens = CTX };
    mcp_remote_opts   opts = MCP_REMOTE_OPTS_INIT;
    const char       *workers[1];
    struct mcp_model *model;
    double            seconds;
    mcp_error         err;

    if (argc != 7)
        bench_die("usage: decode_behind_bulk KEYS HOST:PORT MODEL FIRST LAST SECONDS");
    opts.keys = argv[1];
    workers[0] = argv[2];
    opts.workers = workers;
    opts.worker_count = 1;
    open.first = bench_number("FIRST", argv[4], 0, 1000);
    open.last = bench_number("LAST", argv[5], open.first + 1, 1000);
    seconds = bench_number("SECONDS", argv[6], 1, 3600);
    if (model_open(&model, argv[3], &err) < 0 || model_fingerprint(model, open.model, &err) < 0 ||
        mcp_remote_open(&r.remote, &opts, &err) < 0)
        bench_die("%s", err.text);
    r.mail = mail_new();
    if (r.mail == NULL)
        bench_die("out of memory");
    r.sample = bench_alloc(SAMPLES_MAX, sizeof(*r.sample));
    r.one = payload(1, model->hp.n_embd);
    r.many = payload(BULK_TOKENS, model->hp.n_embd);
    for (uint32_t i = 0; i <= BULK_SESSIONS; i++)
        open_side(&r, i, &open);
    send_decode(&r);
    for (enum bulk bulk = NONE; bulk < BULKS; bulk++)
        measure(&r, seconds, bulk);
    for (uint32_t i = 0; i <= BULK_SESSIONS; i++)
        endpoint_close(r.sides[i].endpoint);
    mcp_remote_close(r.remote);
    pipe_block_unref(r.one);
    pipe_block_unref(r.many);
    mail_unref(r.mail);
    model_close(model);
    free(r.sample);
    return 0;
}
