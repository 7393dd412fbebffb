/* SPDX-License-Identifier: MIT */
/* decode_behind_bulk.c - how long a decode frame takes while prefill fills the same connection.
 *
 *     decode_behind_bulk KEYS HOST:PORT MODEL FIRST LAST SECONDS
 *
 * Two sessions of one agent share its connection to a worker.  First one decodes alone; then the
 * other sends prefill windows as fast as it may, and the first goes on.  Prints one line of JSON:
 * the round trip of decode windows (p50, p99) in both phases, and the bulk's rate up.  Hidden
 * states are random numbers: only their size matters here.  bench/decode_behind_bulk.py puts a
 * wide-area link between. */
#include "agent/endpoint.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "wire/codec.h"

#include <mcp/remote.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { BULK_TOKENS = 64, BULK_AHEAD = 24, SAMPLES_MAX = 100000, CTX = 2048 };

struct side {
    struct agent_endpoint *endpoint;
    uint32_t               pos, epoch;
    uint64_t               sent, answered;
};

struct run {
    struct mcp_remote *remote;
    struct mail       *mail;
    struct pipe_block *one, *many;   /* payloads of 1 and BULK_TOKENS rows, f32 */
    struct side        decode, bulk; /* endpoints 1 and 2 */
    double             sent_ms;
    double            *sample; /* (SAMPLES_MAX) */
    size_t             samples;
    uint64_t           bulk_bytes;
};

static void die(const char *what, const mcp_error *err)
{
    fprintf(stderr, "decode_behind_bulk: %s: %s\n", what, err != NULL ? err->text : "");
    exit(1);
}

static struct pipe_block *payload(uint32_t rows, uint32_t n_embd)
{
    struct pipe_block *block = pipe_block_new(WIRE_F32, rows, n_embd * sizeof(float));
    float             *x = block != NULL ? (float *)(void *)block->data : NULL;

    if (block == NULL)
        die("memory", NULL);
    for (size_t i = 0; i < (size_t)rows * n_embd; i++)
        x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    return block;
}

static void open_side(struct run *r, struct side *side, uint32_t number,
                      const struct wire_open *open)
{
    struct wire_open own = *open;
    mcp_error        err;

    if (getrandom(own.session, sizeof(own.session), 0) < 0 ||
        endpoint_open(&side->endpoint, r->remote, 0, number, r->mail, &own, 1e5, &err) < 0)
        die("open", &err);
}

/* One window; the session begins anew when its context is full. */
static void send_window(struct run *r, struct side *side, struct pipe_block *block, bool bulk)
{
    struct wire_frame frame = { .kind = WIRE_TRIM };
    mcp_error         err;

    (void)r;
    if (side->pos + block->rows > CTX) {
        side->epoch++;
        frame.u.trim.epoch = side->epoch;
        side->pos = 0;
        side->answered = side->sent; /* what waited is void */
        if (endpoint_send(side->endpoint, &frame, NULL, &err) < 0)
            die("trim", &err);
    }
    frame = (struct wire_frame){ .kind = WIRE_FORWARD };
    frame.u.forward = (struct wire_forward){
        .number = ++side->sent,
        .epoch = side->epoch,
        .pos = side->pos,
        .count = block->rows,
        .in = { WIRE_F32, WIRE_PLAIN, block->data, block->bytes, block->bytes },
        .want = bulk ? WIRE_WANT_NONE : WIRE_WANT_HIDDEN,
        .bulk = bulk,
    };
    side->pos += block->rows;
    if (endpoint_send(side->endpoint, &frame, block, &err) < 0)
        die("forward", &err);
}

static void feed(struct run *r)
{
    /* Full contexts are trimmed only when everything has been answered. */
    while (r->bulk.sent - r->bulk.answered < BULK_AHEAD &&
           (r->bulk.pos + BULK_TOKENS <= CTX || r->bulk.sent == r->bulk.answered))
        send_window(r, &r->bulk, r->many, true);
}

static void take(struct run *r, struct mail_event *event)
{
    struct side *side = event->endpoint == 1 ? &r->decode : &r->bulk;

    if (event->kind == MAIL_LOST) {
        fprintf(stderr, "decode_behind_bulk: %s\n", event->status.text);
        exit(1);
    }
    if (event->kind != MAIL_RESULT)
        return;
    side->answered = event->number;
    if (side == &r->bulk) {
        r->bulk_bytes += r->many->bytes;
    } else {
        if (r->samples < SAMPLES_MAX)
            r->sample[r->samples++] = base_clock_ms() - r->sent_ms;
        r->sent_ms = base_clock_ms();
        send_window(r, &r->decode, r->one, false);
    }
}

static void phase(struct run *r, double seconds, bool bulk)
{
    double until = base_clock_ms() + seconds * 1e3;

    while (base_clock_ms() < until) {
        bool               starved;
        struct mail_event *event;

        if (bulk)
            feed(r);
        mail_wait(r->mail, base_clock_ms() + 20.0);
        while ((event = mail_take(r->mail, &starved)) != NULL) {
            take(r, event);
            mail_event_free(event);
        }
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double quantile(struct run *r, double q)
{
    qsort(r->sample, r->samples, sizeof(*r->sample), compare);
    return r->samples > 0 ? r->sample[(size_t)((double)(r->samples - 1) * q)] : 0.0;
}

int main(int argc, char **argv)
{
    struct run        r = { 0 };
    struct wire_open  open = { .ctx_tokens = CTX };
    mcp_remote_opts   opts = MCP_REMOTE_OPTS_INIT;
    const char       *workers[1];
    struct mcp_model *model;
    mcp_error         err;
    double            seconds, alone_p50, alone_p99, began;

    if (argc != 7) {
        fprintf(stderr, "usage: decode_behind_bulk KEYS HOST:PORT MODEL FIRST LAST SECONDS\n");
        return 2;
    }
    seconds = strtod(argv[6], NULL);
    workers[0] = argv[2];
    opts.keys = argv[1];
    opts.workers = workers;
    opts.worker_count = 1;
    if (model_open(&model, argv[3], &err) < 0 || model_fingerprint(model, open.model, &err) < 0)
        die(argv[3], &err);
    open.first = (uint32_t)strtoul(argv[4], NULL, 10);
    open.last = (uint32_t)strtoul(argv[5], NULL, 10);
    if (mcp_remote_open(&r.remote, &opts, &err) < 0)
        die(argv[2], &err);
    r.mail = mail_new();
    r.sample = calloc(SAMPLES_MAX, sizeof(*r.sample));
    if (r.mail == NULL || r.sample == NULL)
        die("memory", NULL);
    r.one = payload(1, model->hp.n_embd);
    r.many = payload(BULK_TOKENS, model->hp.n_embd);
    open_side(&r, &r.decode, 1, &open);
    open_side(&r, &r.bulk, 2, &open);

    r.sent_ms = base_clock_ms();
    send_window(&r, &r.decode, r.one, false);
    phase(&r, 1.0, false); /* warm */
    r.samples = 0;
    phase(&r, seconds / 2.0, false);
    alone_p50 = quantile(&r, 0.5);
    alone_p99 = quantile(&r, 0.99);
    phase(&r, 3.0, true); /* until the pace has found the rate */
    r.samples = 0;
    r.bulk_bytes = 0;
    began = base_clock_ms();
    phase(&r, seconds, true);
    printf("{\"alone_p50_ms\": %.2f, \"alone_p99_ms\": %.2f, \"behind_p50_ms\": %.2f, "
           "\"behind_p99_ms\": %.2f, \"samples\": %zu, \"bulk_mbit\": %.1f}\n",
           alone_p50, alone_p99, quantile(&r, 0.5), quantile(&r, 0.99), r.samples,
           (double)r.bulk_bytes * 8e-3 / (base_clock_ms() - began));
    endpoint_close(r.decode.endpoint);
    endpoint_close(r.bulk.endpoint);
    mcp_remote_close(r.remote);
    pipe_block_unref(r.one);
    pipe_block_unref(r.many);
    mail_unref(r.mail);
    model_close(model);
    free(r.sample);
    return 0;
}
