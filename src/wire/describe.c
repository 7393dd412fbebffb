/* wire/describe.c - Describe, Watch and Probe: see describe.h.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/describe.h"

#include "base/fail.h"
#include "mcp/v1/compute.pb-c.h"
#include "wire/fields.h"
#include "wire/message.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROW_FLOATS_MAX = 1 << 22, /* of a hidden state or of logits; the largest in use is 2^18 */
    SET_BITS = 32,            /* of a set of codecs or wraps */
    WATCH_MS_DEFAULT = 1000,
    WATCH_MS_MIN = 100,
};

/* ---- Capacity, which Describe and Watch share --------------------------------------- */

static void put_capacity(Mcp__V1__Capacity *to, const struct wire_capacity *from)
{
    mcp__v1__capacity__init(to);
    to->sessions = from->sessions;
    to->sessions_free = from->sessions_free;
    to->ctx_tokens = from->ctx_tokens;
    to->batch_tokens = from->batch_tokens;
    to->windows_max = from->windows_max;
    to->queue_bytes_max = from->queue_bytes_max;
    to->lease_ms = from->lease_ms;
    to->queued_tokens = from->queued_tokens;
    to->tokens_per_second = from->tokens_per_second;
    to->even_windows = from->even_windows;
}

static int take_capacity(struct wire_capacity *to, const Mcp__V1__Capacity *from, mcp_error *err)
{
    if (from == NULL)
        return MCP_OK; /* all zero: proto3 leaves an empty message out */
    if (!isfinite(from->tokens_per_second) || from->tokens_per_second < 0)
        return base_fail(err, MCP_EFORMAT, "Capacity: tokens_per_second is %g, cannot be",
                         (double)from->tokens_per_second);
    *to = (struct wire_capacity){
        .sessions = from->sessions,
        .sessions_free = from->sessions_free,
        .ctx_tokens = from->ctx_tokens,
        .batch_tokens = from->batch_tokens,
        .windows_max = from->windows_max,
        .queue_bytes_max = from->queue_bytes_max,
        .lease_ms = from->lease_ms,
        .queued_tokens = from->queued_tokens,
        .tokens_per_second = from->tokens_per_second,
        .even_windows = from->even_windows,
    };
    return MCP_OK;
}

/* ---- Describe ----------------------------------------------------------------------- */

/* In place.  Our own texts too: a model's name comes from its file, and a protobuf library
 * refuses a whole message for one byte that is no UTF-8. */
#define CLEANED(text) (wire_text_copy(text, sizeof(text), text), (text))

/* The numbers of the bits set; returns how many. */
static size_t list_bits(int *list, uint32_t bits)
{
    size_t count = 0;

    for (int i = 0; i < SET_BITS; i++)
        if ((bits >> i & 1) != 0)
            list[count++] = i;
    return count;
}

/* What a newer worker may offer beyond our bits is no error. */
static uint32_t set_of(const int *list, size_t count)
{
    uint32_t bits = 0;

    for (size_t i = 0; i < count; i++)
        if (list[i] >= 0 && list[i] < SET_BITS)
            bits |= 1u << list[i];
    return bits;
}

_Static_assert(sizeof(Mcp__V1__Codec) == sizeof(int), "protobuf-c's enums are read as ints");

int wire_describe_encode(const struct wire_describe *d, uint8_t **bytes, size_t *count,
                         mcp_error *err)
{
    struct wire_describe   own = *d; /* whose texts are cleaned */
    Mcp__V1__DescribeReply reply = MCP__V1__DESCRIBE_REPLY__INIT;
    Mcp__V1__Model         model = MCP__V1__MODEL__INIT;
    Mcp__V1__Capacity      capacity;
    ProtobufCBinaryData    weights[WIRE_LAYERS_MAX];
    char                  *features[WIRE_FEATURES_MAX];
    int                    codecs[SET_BITS], wraps[SET_BITS];

    assert(own.feature_count <= WIRE_FEATURES_MAX && own.model.first <= own.model.last &&
           own.model.last <= WIRE_LAYERS_MAX);
    for (uint32_t i = 0; i < own.feature_count; i++)
        features[i] = CLEANED(own.features[i]);
    for (uint32_t i = 0; own.model.weights != NULL && i < own.model.last - own.model.first; i++)
        weights[i] = (ProtobufCBinaryData){ WIRE_DIGEST_BYTES, own.model.weights[i] };
    put_capacity(&capacity, &own.capacity);

    model.name = CLEANED(own.model.name);
    model.architecture = CLEANED(own.model.architecture);
    model.quantisation = CLEANED(own.model.quantisation);
    model.fingerprint = (ProtobufCBinaryData){ WIRE_DIGEST_BYTES, own.model.fingerprint };
    model.layers = own.model.layers;
    model.n_embd = own.model.n_embd;
    model.n_vocab = own.model.n_vocab;
    model.ctx_trained = own.model.ctx_trained;
    model.first = own.model.first;
    model.last = own.model.last;
    model.weights = weights;
    model.n_weights = own.model.weights != NULL ? own.model.last - own.model.first : 0;

    reply.version = CLEANED(own.version);
    reply.name = CLEANED(own.name);
    reply.features = features;
    reply.n_features = own.feature_count;
    reply.model = &model;
    reply.capacity = &capacity;
    reply.n_codecs = list_bits(codecs, own.codecs);
    reply.codecs = (Mcp__V1__Codec *)codecs;
    reply.n_wraps = list_bits(wraps, own.wraps);
    reply.wraps = (Mcp__V1__Wrap *)wraps;
    reply.draining = own.draining;
    reply.degraded = CLEANED(own.degraded);
    return wire_message_pack(&reply.base, bytes, count, err);
}

static int take_weights(struct wire_describe *d, const Mcp__V1__Model *m, mcp_error *err)
{
    if (m->n_weights == 0)
        return MCP_OK;
    if (m->n_weights != m->last - m->first)
        return base_fail(err, MCP_EFORMAT, "Model: %zu weights fingerprints for layers [%u, %u)",
                         m->n_weights, m->first, m->last);
    d->model.weights = malloc(m->n_weights * sizeof(d->model.weights[0]));
    if (d->model.weights == NULL)
        return base_fail(err, MCP_ENOMEM, "no memory for %zu weights fingerprints", m->n_weights);
    for (size_t i = 0; i < m->n_weights; i++) {
        if (m->weights[i].len != WIRE_DIGEST_BYTES)
            return base_fail(err, MCP_EFORMAT,
                             "Model: weights fingerprint %zu has %zu bytes, must have %d", i,
                             m->weights[i].len, WIRE_DIGEST_BYTES);
        memcpy(d->model.weights[i], m->weights[i].data, WIRE_DIGEST_BYTES);
    }
    return MCP_OK;
}

static int take_model(struct wire_describe *d, const Mcp__V1__Model *m, mcp_error *err)
{
    if (m == NULL)
        return base_fail(err, MCP_EFORMAT, "DescribeReply: no model");
    if (m->fingerprint.len != WIRE_DIGEST_BYTES)
        return base_fail(err, MCP_EFORMAT, "Model: fingerprint has %zu bytes, must have %d",
                         m->fingerprint.len, WIRE_DIGEST_BYTES);
    if (m->layers > WIRE_LAYERS_MAX || m->first >= m->last || m->last > m->layers)
        return base_fail(err, MCP_EFORMAT,
                         "Model: layers [%u, %u) of %u cannot be (a model has at most %d)",
                         m->first, m->last, m->layers, WIRE_LAYERS_MAX);
    if (m->n_embd == 0 || m->n_embd > ROW_FLOATS_MAX || m->n_vocab == 0 ||
        m->n_vocab > ROW_FLOATS_MAX)
        return base_fail(err, MCP_EFORMAT, "Model: n_embd %u and n_vocab %u must be 1 to %d",
                         m->n_embd, m->n_vocab, ROW_FLOATS_MAX);
    wire_text_copy(d->model.name, sizeof(d->model.name), m->name);
    wire_text_copy(d->model.architecture, sizeof(d->model.architecture), m->architecture);
    wire_text_copy(d->model.quantisation, sizeof(d->model.quantisation), m->quantisation);
    memcpy(d->model.fingerprint, m->fingerprint.data, WIRE_DIGEST_BYTES);
    d->model.layers = m->layers;
    d->model.n_embd = m->n_embd;
    d->model.n_vocab = m->n_vocab;
    d->model.ctx_trained = m->ctx_trained;
    d->model.first = m->first;
    d->model.last = m->last;
    return take_weights(d, m, err);
}

static int take_reply(struct wire_describe *d, const Mcp__V1__DescribeReply *reply, mcp_error *err)
{
    int rc;

    if (reply->n_features > WIRE_FEATURES_MAX)
        return base_fail(err, MCP_EFORMAT, "DescribeReply: %zu features, at most %d",
                         reply->n_features, WIRE_FEATURES_MAX);
    for (size_t i = 0; i < reply->n_features; i++)
        wire_text_copy(d->features[i], sizeof(d->features[i]), reply->features[i]);
    d->feature_count = (uint32_t)reply->n_features;
    wire_text_copy(d->version, sizeof(d->version), reply->version);
    wire_text_copy(d->name, sizeof(d->name), reply->name);
    wire_text_copy(d->degraded, sizeof(d->degraded), reply->degraded);
    d->codecs = set_of((const int *)reply->codecs, reply->n_codecs);
    d->wraps = set_of((const int *)reply->wraps, reply->n_wraps);
    d->draining = reply->draining;
    rc = take_capacity(&d->capacity, reply->capacity, err);
    return rc < 0 ? rc : take_model(d, reply->model, err);
}

int wire_describe_decode(struct wire_describe *d, const uint8_t *bytes, size_t count,
                         mcp_error *err)
{
    ProtobufCMessage *reply;
    int rc = wire_message_unpack(&reply, &mcp__v1__describe_reply__descriptor, bytes, count, err);

    memset(d, 0, sizeof(*d));
    if (rc == MCP_OK)
        rc = take_reply(d, (const Mcp__V1__DescribeReply *)reply, err);
    if (rc < 0)
        wire_describe_fini(d);
    wire_message_free(reply);
    return rc;
}

void wire_describe_fini(struct wire_describe *d)
{
    free(d->model.weights);
    memset(d, 0, sizeof(*d));
}

/* ---- Watch -------------------------------------------------------------------------- */

int wire_watch_request_encode(uint32_t every_ms, uint8_t **bytes, size_t *count, mcp_error *err)
{
    Mcp__V1__WatchRequest request = MCP__V1__WATCH_REQUEST__INIT;

    request.every_ms = every_ms;
    return wire_message_pack(&request.base, bytes, count, err);
}

int wire_watch_request_decode(uint32_t *every_ms, const uint8_t *bytes, size_t count,
                              mcp_error *err)
{
    ProtobufCMessage *request;
    int               rc;

    *every_ms = 0;
    rc = wire_message_unpack(&request, &mcp__v1__watch_request__descriptor, bytes, count, err);
    if (rc < 0)
        return rc;
    *every_ms = ((const Mcp__V1__WatchRequest *)request)->every_ms;
    wire_message_free(request);
    if (*every_ms == 0)
        *every_ms = WATCH_MS_DEFAULT;
    if (*every_ms < WATCH_MS_MIN)
        return base_fail(err, MCP_EFORMAT, "WatchRequest: every_ms is %" PRIu32 ", at least %d",
                         *every_ms, WATCH_MS_MIN);
    return MCP_OK;
}

int wire_watch_event_encode(const struct wire_watch_event *e, uint8_t **bytes, size_t *count,
                            mcp_error *err)
{
    Mcp__V1__WatchEvent event = MCP__V1__WATCH_EVENT__INIT;
    Mcp__V1__Capacity   capacity;
    char                degraded[sizeof(e->degraded)];

    put_capacity(&capacity, &e->capacity);
    wire_text_copy(degraded, sizeof(degraded), e->degraded);
    event.capacity = &capacity;
    event.draining = e->draining;
    event.within_ms = e->within_ms;
    event.degraded = degraded;
    return wire_message_pack(&event.base, bytes, count, err);
}

int wire_watch_event_decode(struct wire_watch_event *e, const uint8_t *bytes, size_t count,
                            mcp_error *err)
{
    ProtobufCMessage          *message;
    const Mcp__V1__WatchEvent *event;
    int rc = wire_message_unpack(&message, &mcp__v1__watch_event__descriptor, bytes, count, err);

    memset(e, 0, sizeof(*e));
    if (rc < 0)
        return rc;
    event = (const Mcp__V1__WatchEvent *)message;
    rc = take_capacity(&e->capacity, event->capacity, err);
    e->draining = event->draining;
    e->within_ms = event->within_ms;
    wire_text_copy(e->degraded, sizeof(e->degraded), event->degraded);
    wire_message_free(message);
    return rc;
}

/* ---- Probe: large and frequent, so by table and without copies ----------------------- */

static const struct wire_field probe_fields[] = {
    [1] = { WIRE_FIELD_U64, offsetof(struct wire_probe, stamp), 0, 0, "stamp" },
    [2] = { WIRE_FIELD_DATA, offsetof(struct wire_probe, data), offsetof(struct wire_probe, bytes),
            0, "data" },
    [3] = { WIRE_FIELD_U32, offsetof(struct wire_probe, reply_bytes), 0, WIRE_PROBE_BYTES_MAX,
            "reply_bytes" },
};

/* By direction; a reply has no third field. */
static const struct wire_layout probe_layouts[] = {
    [WIRE_REQUEST] = { "probe", probe_fields, 4 },
    [WIRE_REPLY] = { "probe reply", probe_fields, 3 },
};

size_t wire_probe_encode(const struct wire_probe *p, enum wire_direction direction, uint8_t *target,
                         size_t cap)
{
    size_t need = wire_fields_bytes(&probe_layouts[direction], p);

    if (need <= cap)
        wire_fields_encode(&probe_layouts[direction], p, target);
    return need;
}

int wire_probe_decode(struct wire_probe *p, enum wire_direction direction, const uint8_t *bytes,
                      size_t count, mcp_error *err)
{
    const struct wire_layout *layout = &probe_layouts[direction];
    struct wire_pb            r = wire_pb_over(bytes, count, layout->name, err);
    int                       rc;

    memset(p, 0, sizeof(*p));
    rc = wire_fields_decode(layout, p, &r, NULL);
    if (rc == MCP_OK && p->bytes > WIRE_PROBE_BYTES_MAX)
        rc = base_fail(err, MCP_EFORMAT, "%s: data has %zu bytes, at most %d", layout->name,
                       p->bytes, WIRE_PROBE_BYTES_MAX);
    return rc;
}
