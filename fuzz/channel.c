/* fuzz/channel.c - what a peer sends over a whole stream is the input.
 *
 * The first byte picks the end; then come steps, one byte each with its arguments: a message of
 * the peer as raw bytes or made from a few numbers, a frame to send, a message to take.  Beside
 * what the sanitizers see, broken promises are findings:
 *   - a failure is a sentence;
 *   - a frame that is told has its whole payload, inside the limit;
 *   - no more memory waits than was sent here: a peer cannot make answers pile up;
 *   - every message that leaves is one that an honest peer accepts;
 *   - what was lent to a channel is given back, once.
 *
 * ./dev fuzz channel SECONDS; seeds in fuzz/corpus/channel are written by
 * fuzz/make_wire_corpus.py.
 *
 * SPDX-License-Identifier: MIT */
#include "check.h"

#include "wire/channel.h"

enum { PAYLOAD_MAX = 100000, SENT_MAX = 3 * WIRE_PART_BYTES, MADE_BYTES = 1024 };

/* One byte each: also in fuzz/make_wire_corpus.py. */
enum step { RAW, HEAD, MORE, ACK, SEND, NEXT, STEPS };

struct run {
    const uint8_t       *at, *end; /* of the input */
    bool                 worker;
    struct wire_pace     pace;
    struct wire_channel *c, *peer; /* the end under test; one that gets what it sends */
    uint64_t             queued;   /* bytes given to it to send, in all */
    uint64_t             received; /* payload bytes that the peer sent */
    int                  lent;     /* payloads whose owner waits */
};

static uint8_t          zeros[SENT_MAX];
static volatile uint8_t looked_at; /* so that the sanitizer sees the payload's ends read */

static uint32_t number(struct run *r)
{
    uint32_t value = r->at < r->end ? *r->at++ : 0;

    return r->at < r->end ? value | (uint32_t)*r->at++ << 8 : value;
}

static enum wire_direction way_in(const struct run *r)
{
    return r->worker ? WIRE_REQUEST : WIRE_REPLY;
}

/* False: the stream has ended. */
static bool receive(struct run *r, const uint8_t *bytes, size_t count)
{
    struct wire_frame    f;
    struct wire_payload *payload;
    uint64_t             out, in;
    mcp_error            err;
    int                  rc = wire_channel_receive(r->c, 1, bytes, count, &f, &err);

    if (rc < 0) {
        check_failure(rc, &err);
        return false;
    }
    wire_channel_bytes(r->c, &out, &in);
    r->received += count;
    CHECK(in <= r->received);
    if (rc == 0)
        return true;
    CHECK(rc == 1 && f.kind > WIRE_NOTHING && f.kind < WIRE_KINDS);
    CHECK(f.kind != WIRE_MORE && f.kind != WIRE_ACK && (f.kind != WIRE_BEAT || !r->worker));
    payload = wire_frame_payload(&f);
    if (payload == NULL)
        return true;
    CHECK(payload->bytes == payload->total && payload->total <= PAYLOAD_MAX);
    if (payload->bytes > 0)
        looked_at = payload->data[0] ^ payload->data[payload->bytes - 1];
    return true;
}

static bool receive_made(struct run *r, const struct wire_frame *f)
{
    uint8_t bytes[MADE_BYTES + WIRE_FRAME_OVERHEAD];
    size_t  count = wire_frame_bytes(f, way_in(r));

    CHECK(count <= sizeof(bytes));
    wire_frame_encode(f, way_in(r), bytes);
    return receive(r, bytes, count);
}

static bool receive_raw(struct run *r)
{
    size_t         count = number(r), left = (size_t)(r->end - r->at);
    const uint8_t *bytes = r->at;

    count = count < left ? count : left;
    r->at += count;
    return receive(r, bytes, count);
}

static bool receive_head(struct run *r)
{
    struct wire_frame    f = { .kind = r->worker ? WIRE_FORWARD : WIRE_RESULT };
    struct wire_payload *payload = wire_frame_payload(&f);
    uint32_t             total = number(r), part = number(r);

    payload->data = zeros;
    payload->bytes = part % MADE_BYTES < total ? part % MADE_BYTES : total;
    payload->total = total * 2;
    if (r->worker)
        f.u.forward.bulk = (part & 0x8000) != 0;
    else
        f.u.result.bulk = (part & 0x8000) != 0;
    return receive_made(r, &f);
}

static bool receive_number(struct run *r, enum wire_kind kind)
{
    struct wire_frame f = { .kind = kind };

    if (kind == WIRE_MORE) {
        f.u.more.data = zeros;
        f.u.more.bytes = number(r) % MADE_BYTES;
    } else {
        f.u.ack.bytes = number(r);
        f.u.ack.stamp_us = number(r);
    }
    return receive_made(r, &f);
}

static void give_back(void *owner)
{
    (*(int *)owner)--;
}

static void send_one(struct run *r)
{
    static const enum wire_kind kinds[2][4] = {
        { WIRE_FORWARD, WIRE_TRIM, WIRE_IMPORT, WIRE_BEAT },
        { WIRE_RESULT, WIRE_TOKEN, WIRE_STATE, WIRE_DRAINING },
    };
    uint32_t             what = number(r);
    bool                 lend = (what & 8) != 0;
    struct wire_frame    f = { .kind = kinds[r->worker][what % 4] };
    struct wire_payload *payload = wire_frame_payload(&f);
    mcp_error            err;

    if (payload != NULL) {
        payload->data = zeros;
        payload->bytes = (what >> 4) * 32 % SENT_MAX;
    }
    if (f.kind == WIRE_FORWARD)
        f.u.forward.bulk = (what & 4) != 0;
    if (f.kind == WIRE_RESULT)
        f.u.result.bulk = (what & 4) != 0;
    r->queued += (payload != NULL ? payload->bytes : 0) + WIRE_FRAME_OVERHEAD;
    r->lent += lend;
    CHECK(wire_channel_send(r->c, &f, lend ? give_back : NULL, lend ? &r->lent : NULL, &err) ==
          MCP_OK);
}

/* Acks go to nobody: the honest peer has sent nothing that they could acknowledge. */
static void take_next(struct run *r)
{
    enum wire_direction out = r->worker ? WIRE_REPLY : WIRE_REQUEST;
    struct wire_scratch scratch = { 0 };
    struct wire_frame   f;
    mcp_error           err;
    size_t              count;
    bool                bulk;
    const uint8_t      *bytes = wire_channel_next(r->c, 1, &count, &bulk);

    CHECK(wire_channel_queued_bytes(r->c) <= r->queued);
    if (bytes == NULL)
        return;
    CHECK(wire_frame_decode(&f, out, bytes, count, &scratch, &err) == MCP_OK);
    if (f.kind == WIRE_ACK)
        CHECK(f.u.ack.bytes <= r->received);
    else
        CHECK(wire_channel_receive(r->peer, 1, bytes, count, &f, &err) >= 0);
    wire_scratch_fini(&scratch);
}

static bool step(struct run *r)
{
    switch ((enum step)(*r->at++ % STEPS)) {
    case RAW: return receive_raw(r);
    case HEAD: return receive_head(r);
    case MORE: return receive_number(r, WIRE_MORE);
    case ACK: return receive_number(r, WIRE_ACK);
    case SEND: send_one(r); return true;
    default: take_next(r); return true;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run               r = { .at = data, .end = data + size };
    struct wire_channel_opts opts = { .payload_max = PAYLOAD_MAX, .pace = &r.pace };
    mcp_error                err;

    if (size < 2)
        return 0;
    r.worker = *r.at++ % 2 == 1;
    CHECK(wire_pace_init(&r.pace) == MCP_OK);
    opts.worker = r.worker;
    CHECK(wire_channel_new(&r.c, &opts, &err) == MCP_OK);
    opts.worker = !r.worker;
    opts.pace = NULL;
    CHECK(wire_channel_new(&r.peer, &opts, &err) == MCP_OK);
    while (r.at < r.end && step(&r))
        ;
    wire_channel_free(r.c);
    wire_channel_free(r.peer);
    CHECK(r.lent == 0);
    CHECK(wire_pace_may_send(&r.pace, 1, WIRE_CREDIT_MAX)); /* nothing is left unacknowledged */
    wire_pace_fini(&r.pace);
    return 0;
}
