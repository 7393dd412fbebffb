/* wire/frame.h - the frames of an Execute stream as C structs, to and from bytes.
 *
 * compute.proto is the contract; this is the only place, with describe.h, that knows protobuf.
 * Decoding checks what can be checked without knowing the session: exactly one frame, enums in
 * range, fixed lengths, sizes below the limits here.  Whether positions, layers and codecs fit
 * is the session's business.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WIRE_FRAME_H
#define WIRE_FRAME_H

#include <mcp/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_SESSION_BYTES = 16,
    WIRE_DIGEST_BYTES = 32,
    WIRE_TOKENS_MAX = 1 << 20,    /* ids in one frame */
    WIRE_PAYLOAD_MAX = 512 << 20, /* data_total of one frame; a KV block is the largest */
    WIRE_FRAME_OVERHEAD = 256,    /* encoded bytes beyond tokens and data, at most */
};

enum wire_direction { WIRE_REQUEST, WIRE_REPLY };

/* One list for both directions; comment = who sends it. */
enum wire_kind {
    WIRE_NOTHING = 0,
    WIRE_OPEN,     /* agent */
    WIRE_OPENED,   /* worker */
    WIRE_FORWARD,  /* agent */
    WIRE_RESULT,   /* worker */
    WIRE_MORE,     /* both */
    WIRE_TRIM,     /* agent */
    WIRE_GENERATE, /* agent */
    WIRE_TOKEN,    /* worker */
    WIRE_EXPORT,   /* agent */
    WIRE_IMPORT,   /* agent */
    WIRE_STATE,    /* worker */
    WIRE_CLOSE,    /* agent */
    WIRE_CLOSED,   /* worker */
    WIRE_BEAT,     /* both */
    WIRE_ACK,      /* both */
    WIRE_DRAINING, /* worker */
    WIRE_KINDS
};

const char *wire_kind_name(enum wire_kind kind); /* "forward" */

/* Values as in compute.proto. */
enum wire_want {
    WIRE_WANT_NONE = 0,
    WIRE_WANT_HIDDEN = 1,
    WIRE_WANT_HIDDEN_LAST = 2,
    WIRE_WANT_LOGITS_LAST = 3,
    WIRE_WANT_LOGITS = 4,
};
enum wire_qos { WIRE_QOS_NORMAL = 0, WIRE_QOS_REALTIME = 1, WIRE_QOS_BATCH = 2 };
enum wire_stop {
    WIRE_STOP_NOT = 0,
    WIRE_STOP_END = 1,
    WIRE_STOP_LENGTH = 2,
    WIRE_STOP_CONTEXT = 3
};

/* A payload: rows of a codec, perhaps wrapped; or a KV block. */
struct wire_payload {
    uint32_t       codec; /* enum wire_codec_id */
    uint32_t       wrap;  /* enum wire_wrap_id */
    const uint8_t *data;  /* this frame's part; borrowed */
    size_t         bytes;
    uint64_t       total; /* of the whole payload; bytes when there are no More frames */
};

struct wire_open {
    uint8_t       session[WIRE_SESSION_BYTES];
    uint8_t       model[WIRE_DIGEST_BYTES];
    bool          weights_given;
    uint8_t       weights[WIRE_DIGEST_BYTES];
    uint32_t      first, last;
    uint32_t      ctx_tokens;
    enum wire_qos qos;
    bool          resume;
};

struct wire_opened {
    uint32_t length, epoch, ctx_tokens, windows_max, lease_ms, batch_tokens;
    uint64_t queue_bytes_max;
    bool     even_windows;
};

struct wire_forward {
    uint64_t            number;
    uint32_t            epoch, pos, count;
    const int32_t      *tokens; /* (token_count), or NULL; borrowed */
    size_t              token_count;
    struct wire_payload in;
    enum wire_want      want;
    uint32_t            reply_codec, reply_wrap;
    bool                bulk;
    uint32_t            deadline_ms;
};

struct wire_result {
    uint64_t            number;
    uint32_t            epoch, pos, count, rows;
    struct wire_payload out;
    bool                bulk;
    uint32_t            queue_us, compute_us, batch_tokens;
};

struct wire_generate {
    uint64_t       number;
    uint32_t       epoch, pos;
    const int32_t *tokens; /* (token_count); borrowed */
    size_t         token_count;
    uint32_t       max_tokens;
    float          temperature, top_p, min_p;
    int32_t        top_k;
    uint32_t       seed;
    uint64_t       draws;
    bool           ignore_end, no_guesses;
    uint32_t       guesses;
};

struct wire_token {
    uint64_t       number;
    uint32_t       pos;
    int32_t        token;
    enum wire_stop stop;
    uint32_t       queue_us, compute_us;
    uint32_t       guessed, guessed_right;
};

struct wire_export {
    uint64_t number;
    uint32_t first, last, pos_first, pos_last;
};

struct wire_state { /* import too: without length */
    uint64_t            number;
    uint32_t            length;
    struct wire_payload block;
};

struct wire_frame {
    enum wire_kind kind;
    union {
        struct wire_open    open;
        struct wire_opened  opened;
        struct wire_forward forward;
        struct wire_result  result;
        struct wire_payload more; /* data, bytes */
        struct {
            uint32_t epoch, pos;
        } trim;
        struct wire_generate generate;
        struct wire_token    token;
        struct wire_export export;
        struct wire_state state; /* WIRE_IMPORT, WIRE_STATE */
        uint64_t          beat;  /* stamp */
        struct {
            uint64_t bytes;
            uint64_t stamp_us; /* 0: none */
        } ack;
        uint32_t draining_within_ms;
    } u;
};

/* The payload inside a frame that can have one; NULL for the others. */
struct wire_payload *wire_frame_payload(struct wire_frame *frame);

/* Encoded size, then the bytes themselves (`target` has room for that many). */
size_t wire_frame_bytes(const struct wire_frame *frame, enum wire_direction direction);
void   wire_frame_encode(const struct wire_frame *frame, enum wire_direction direction,
                         uint8_t *target);

/* Fill `frame` from a message.  Tokens are copied into *tokens, which grows as needed (start
 * with NULL and 0; free it at the end) so that a stream of frames allocates once; data points
 * into `bytes`.  MCP_EFORMAT with a sentence; MCP_ENOMEM. */
struct wire_scratch {
    int32_t *tokens;
    size_t   cap;
};
int wire_frame_decode(struct wire_frame *frame, enum wire_direction direction, const uint8_t *bytes,
                      size_t count, struct wire_scratch *scratch, mcp_error *err);
void wire_scratch_fini(struct wire_scratch *scratch);

#endif
