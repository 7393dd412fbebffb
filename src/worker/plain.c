/* worker/plain.c - calls that answer each message by itself: Describe, health Check, Probe,
 * reflection.
 *
 * Threads: the connection's loop.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/service.h"

#include "base/fail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct answer {
    uint8_t *bytes; /* freed by the caller */
    size_t   count;
    enum net_class class;
};

struct plain_kind {
    const char *path;
    bool        once; /* one message, one answer */
    int (*answer)(struct worker_service *s, const uint8_t *bytes, size_t count, struct answer *out,
                  mcp_error *err);
};

enum { PROBE_REQUEST_BYTES = 32 }; /* a stamp and a size, encoded */

struct plain {
    struct worker_service   *service;
    const struct plain_kind *kind;
    struct answer            answer; /* waits for room; until then no message is taken */
    bool                     half_closed;
    bool                     finished;
    /* A Probe that waits for room is kept as what it asks for, not as the large answer. */
    uint8_t request[PROBE_REQUEST_BYTES];
    size_t  request_bytes;
};

/* ---- answers ------------------------------------------------------------------------ */

static int describe(struct worker_service *s, const uint8_t *bytes, size_t count,
                    struct answer *out, mcp_error *err)
{
    struct wire_describe *d = calloc(1, sizeof(*d)); /* some KB */
    int                   rc;

    (void)bytes; /* DescribeRequest is empty; fields of later versions are ignored */
    (void)count;
    if (d == NULL)
        return base_fail(err, MCP_ENOMEM, "describe");
    worker_facts_describe(&s->facts, d);
    snprintf(d->name, sizeof(d->name), "%s", worker_access_name(s->access));
    worker_service_healthy(s, d->degraded);
    d->draining = atomic_load(&s->draining);
    worker_service_capacity(s, &d->capacity);
    rc = wire_describe_encode(d, &out->bytes, &out->count, err);
    free(d);
    return rc;
}

static int health(struct worker_service *s, const uint8_t *bytes, size_t count, struct answer *out,
                  mcp_error *err)
{
    char degraded[WORKER_PROBLEM_BYTES];

    return wire_health_answer(bytes, count, worker_service_healthy(s, degraded), &out->bytes,
                              &out->count, err);
}

static int reflect(struct worker_service *s, const uint8_t *bytes, size_t count, struct answer *out,
                   mcp_error *err)
{
    (void)s;
    return wire_reflection_answer(bytes, count, &out->bytes, &out->count, err);
}

static int probe(struct worker_service *s, const uint8_t *bytes, size_t count, struct answer *out,
                 mcp_error *err)
{
    enum { BULK_BYTES = 4096 }; /* above, it measures throughput and is in nobody's way */
    static const uint8_t zeros[WIRE_PROBE_BYTES_MAX];
    struct wire_probe    request = { 0 }, reply;
    int                  rc = wire_probe_decode(&request, WIRE_REQUEST, bytes, count, err);

    (void)s;
    if (rc < 0)
        return rc;
    reply =
        (struct wire_probe){ .stamp = request.stamp, .data = zeros, .bytes = request.reply_bytes };
    out->count = wire_probe_encode(&reply, WIRE_REPLY, NULL, 0);
    out->bytes = malloc(out->count);
    if (out->bytes == NULL)
        return base_fail(err, MCP_ENOMEM, "probe of %u bytes", request.reply_bytes);
    wire_probe_encode(&reply, WIRE_REPLY, out->bytes, out->count);
    out->class = reply.bytes > BULK_BYTES ? NET_BULK : NET_URGENT;
    return MCP_OK;
}

static const struct plain_kind kinds[] = {
    { WIRE_PATH_DESCRIBE, true, describe },
    { WIRE_PATH_HEALTH_CHECK, true, health },
    { WIRE_PATH_PROBE, false, probe },
    { WIRE_PATH_REFLECTION, false, reflect },
    { WIRE_PATH_REFLECTION_ALPHA, false, reflect },
};

/* ---- from net ----------------------------------------------------------------------- */

static void finish(struct net_stream *stream, struct plain *p, int rc, const mcp_error *err)
{
    struct wire_status status = wire_status_of(rc, err);

    p->finished = true;
    net_stream_finish(stream, &status);
}

/* Give net the answer.  Who does not read what was asked for is not read from. */
static void give(struct net_stream *stream, struct plain *p)
{
    mcp_error error = { 0 };
    int       rc;

    rc = net_stream_send(stream, p->answer.bytes, p->answer.count, p->answer.class, &error);
    net_stream_pause(stream, rc == MCP_EBUSY);
    if (rc == MCP_EBUSY && p->request_bytes == 0)
        return;
    free(p->answer.bytes);
    p->answer.bytes = NULL;
    if (rc == MCP_EBUSY)
        return;
    p->request_bytes = 0;
    if (rc < 0 || p->kind->once || p->half_closed)
        finish(stream, p, rc, &error);
}

static void message(struct net_stream *stream, void *ctx, const uint8_t *bytes, size_t count)
{
    struct plain     *p = ctx;
    struct wire_probe asked;
    mcp_error         error = { 0 };
    int               rc;

    if (p->finished)
        return;
    if (p->kind->answer == probe && bytes != p->request &&
        wire_probe_decode(&asked, WIRE_REQUEST, bytes, count, NULL) == MCP_OK) {
        asked.data = NULL;
        asked.bytes = 0;
        p->request_bytes = wire_probe_encode(&asked, WIRE_REQUEST, p->request, sizeof(p->request));
    }
    p->answer = (struct answer){ .class = NET_URGENT };
    rc = p->kind->answer(p->service, bytes, count, &p->answer, &error);
    if (rc < 0)
        finish(stream, p, rc, &error);
    else
        give(stream, p);
}

static void writable(struct net_stream *stream, void *ctx)
{
    struct plain *p = ctx;

    if (p->finished)
        return;
    if (p->request_bytes > 0)
        message(stream, p, p->request, p->request_bytes);
    else if (p->answer.bytes != NULL)
        give(stream, p);
}

static void half_closed(struct net_stream *stream, void *ctx)
{
    struct plain *p = ctx;
    mcp_error     error = { 0 };
    int           rc = MCP_OK;

    p->half_closed = true;
    if (p->finished || p->answer.bytes != NULL || p->request_bytes > 0)
        return;
    if (p->kind->once)
        rc = base_fail(&error, MCP_EINVAL, "%s takes one message, none came", p->kind->path);
    finish(stream, p, rc, &error);
}

static void closed(struct net_stream *stream, void *ctx, const struct wire_status *status)
{
    struct plain *p = ctx;

    (void)stream;
    (void)status;
    free(p->answer.bytes);
    free(p);
}

static const struct net_stream_ops ops = {
    .message = message, .half_closed = half_closed, .writable = writable, .closed = closed
};

const struct net_stream_ops *worker_plain_open(struct worker_service *s, struct net_stream *stream,
                                               const char *path, void **ctx,
                                               struct wire_status *status)
{
    struct plain *p = calloc(1, sizeof(*p));

    (void)stream;
    if (p == NULL) {
        *status = wire_status_of(MCP_ENOMEM, NULL);
        return NULL;
    }
    p->service = s;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].path, path) == 0)
            p->kind = &kinds[i];
    *ctx = p;
    return &ops;
}
