/* wire/describe.h - the messages around Execute: Describe, Watch, Probe, health, reflection.
 *
 * encode: *bytes is allocated, the caller frees it.  decode: what is variable is allocated
 * inside the struct; fini frees it.  Sizes, counts and strings from a peer are bounded, and
 * strings cleaned of control characters.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_DESCRIBE_H
#define WIRE_DESCRIBE_H

#include "wire/frame.h"

#define WIRE_SERVICE           "/mcp.v1.Compute/"
#define WIRE_PATH_DESCRIBE     WIRE_SERVICE "Describe"
#define WIRE_PATH_EXECUTE      WIRE_SERVICE "Execute"
#define WIRE_PATH_WATCH        WIRE_SERVICE "Watch"
#define WIRE_PATH_PROBE        WIRE_SERVICE "Probe"
#define WIRE_PATH_HEALTH_CHECK "/grpc.health.v1.Health/Check"
#define WIRE_PATH_HEALTH_WATCH "/grpc.health.v1.Health/Watch"
#define WIRE_PATH_REFLECTION   "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
/* grpcurl and older tools ask for this name; the messages are the same. */
#define WIRE_PATH_REFLECTION_ALPHA "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

enum {
    WIRE_TEXT_BYTES = 128,
    WIRE_FEATURES_MAX = 32,
    WIRE_LAYERS_MAX = 512,
    WIRE_PROBE_BYTES_MAX = 1 << 20,
};

struct wire_capacity {
    uint32_t sessions, sessions_free, ctx_tokens, batch_tokens, windows_max, lease_ms;
    uint64_t queue_bytes_max;
    uint32_t queued_tokens;
    float    tokens_per_second;
    bool     even_windows;
};

struct wire_describe {
    char     version[WIRE_TEXT_BYTES];
    char     name[WIRE_TEXT_BYTES];
    char     features[WIRE_FEATURES_MAX][WIRE_TEXT_BYTES];
    uint32_t feature_count;
    struct {
        char     name[WIRE_TEXT_BYTES], architecture[WIRE_TEXT_BYTES];
        char     quantisation[WIRE_TEXT_BYTES];
        uint8_t  fingerprint[WIRE_DIGEST_BYTES];
        uint32_t layers, n_embd, n_vocab, ctx_trained, first, last;
        uint8_t (*weights)[WIRE_DIGEST_BYTES]; /* (last - first), or NULL; owned */
    } model;
    struct wire_capacity capacity;
    uint32_t             codecs; /* bit i: codec i */
    uint32_t             wraps;
    bool                 draining;
    char                 degraded[WIRE_TEXT_BYTES * 2];
};

int  wire_describe_encode(const struct wire_describe *d, uint8_t **bytes, size_t *count,
                          mcp_error *err);
int  wire_describe_decode(struct wire_describe *d, const uint8_t *bytes, size_t count,
                          mcp_error *err);
void wire_describe_fini(struct wire_describe *d);

struct wire_watch_event {
    struct wire_capacity capacity;
    bool                 draining;
    uint32_t             within_ms;
    char                 degraded[WIRE_TEXT_BYTES * 2];
};

int wire_watch_request_encode(uint32_t every_ms, uint8_t **bytes, size_t *count, mcp_error *err);
int wire_watch_request_decode(uint32_t *every_ms, const uint8_t *bytes, size_t count,
                              mcp_error *err);
int wire_watch_event_encode(const struct wire_watch_event *e, uint8_t **bytes, size_t *count,
                            mcp_error *err);
int wire_watch_event_decode(struct wire_watch_event *e, const uint8_t *bytes, size_t count,
                            mcp_error *err);

struct wire_probe {
    uint64_t       stamp;
    const uint8_t *data; /* borrowed */
    size_t         bytes;
    uint32_t       reply_bytes; /* request only */
};

/* Into `target` when it has room (`cap`); returns the bytes needed. */
size_t wire_probe_encode(const struct wire_probe *p, enum wire_direction direction, uint8_t *target,
                         size_t cap);
int    wire_probe_decode(struct wire_probe *p, enum wire_direction direction, const uint8_t *bytes,
                         size_t count, mcp_error *err);

/* grpc.health.v1: the answer for the service asked about ("" = the whole server). */
int wire_health_answer(const uint8_t *request, size_t request_bytes, bool serving, uint8_t **bytes,
                       size_t *count, mcp_error *err);

/* grpc.reflection.v1: the answer to one request, from the descriptors compiled in. */
int wire_reflection_answer(const uint8_t *request, size_t request_bytes, uint8_t **bytes,
                           size_t *count, mcp_error *err);

#endif
