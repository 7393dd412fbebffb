/* engine/state.c - a sequence's KV as bytes, to move it to another engine.
 *
 * Layout, all numbers little-endian:
 *
 *   offset  bytes
 *        0      8  "mcp-kv-1"
 *        8     32  model fingerprint
 *       40      4  first layer          44  4  last layer (exclusive)
 *       48      4  first position       52  4  last position (exclusive)
 *       56      4  ggml type of K       60  4  ggml type of V
 *       64      4  bytes of a K row     68  4  bytes of a V row (0: latent attention)
 *       72      8  flags: 1 = K is rotated, 2 = V is rotated
 *       80      -  for each layer: the K rows, then the V rows, in order of position
 *   end-32     32  SHA-256 of everything before
 *
 * SPDX-License-Identifier: MIT */
#include "base/fail.h"
#include "base/sha256.h"
#include "engine/engine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_BYTES = 80 };

static const char magic[8] = { 'm', 'c', 'p', '-', 'k', 'v', '-', '1' };

struct header {
    uint8_t  fingerprint[MCP_FINGERPRINT_BYTES];
    uint32_t first, last;
    uint32_t pos_first, pos_last;
    uint32_t type_k, type_v;
    uint32_t row_k, row_v;
    uint64_t flags;
};

static void put_u32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
           (uint32_t)from[3] << 24;
}

static void header_write(uint8_t *to, const struct header *h)
{
    const uint32_t numbers[] = { h->first,  h->last,   h->pos_first, h->pos_last,
                                 h->type_k, h->type_v, h->row_k,     h->row_v };

    memcpy(to, magic, sizeof(magic));
    memcpy(to + 8, h->fingerprint, MCP_FINGERPRINT_BYTES);
    for (size_t i = 0; i < 8; i++)
        put_u32(to + 40 + 4 * i, numbers[i]);
    put_u32(to + 72, (uint32_t)h->flags);
    put_u32(to + 76, (uint32_t)(h->flags >> 32));
}

static void header_read(const uint8_t *from, struct header *h)
{
    uint32_t *const numbers[] = { &h->first,  &h->last,   &h->pos_first, &h->pos_last,
                                  &h->type_k, &h->type_v, &h->row_k,     &h->row_v };

    memcpy(h->fingerprint, from + 8, MCP_FINGERPRINT_BYTES);
    for (size_t i = 0; i < 8; i++)
        *numbers[i] = get_u32(from + 40 + 4 * i);
    h->flags = get_u32(from + 72) | (uint64_t)get_u32(from + 76) << 32;
}

/* What a block of this engine looks like, but for ranges. */
static int header_of(struct mcp_engine *e, struct header *h, mcp_error *err)
{
    const struct engine_kv *kv = &e->shards[0].kv;

    memset(h, 0, sizeof(*h));
    h->type_k = (uint32_t)kv->type_k;
    h->type_v = (uint32_t)kv->type_v;
    h->row_k = (uint32_t)engine_kv_row_bytes(kv, false);
    h->row_v = (uint32_t)engine_kv_row_bytes(kv, true);
    h->flags = (kv->rot_k != NULL ? 1u : 0u) | (kv->rot_v != NULL ? 2u : 0u);
    return model_fingerprint(e->model, h->fingerprint, err);
}

/* Cannot wrap: layers, positions and rows are bounded by 2^9, 2^28 and 2^26. */
static uint64_t block_bytes(const struct header *h)
{
    return HEADER_BYTES + BASE_SHA256_BYTES +
           (uint64_t)(h->last - h->first) * (h->pos_last - h->pos_first) *
               ((uint64_t)h->row_k + h->row_v);
}

static int digest(const uint8_t *bytes, size_t count, uint8_t out[BASE_SHA256_BYTES],
                  mcp_error *err)
{
    struct base_sha256 *h = base_sha256_new();

    base_sha256_add(h, bytes, count);
    return base_sha256_finish(h, out, err);
}

int engine_export(struct mcp_engine *e, uint32_t seq, uint32_t first, uint32_t last,
                  uint32_t pos_first, uint32_t pos_last, void *buffer, size_t *bytes,
                  mcp_error *err)
{
    struct header h;
    uint64_t      needed;
    uint8_t      *at;
    int           rc = engine_check_range(e, first, last, err);

    if (rc < 0)
        return rc;
    if (seq >= e->info.seqs)
        return base_fail(err, MCP_ERANGE, "sequence %u: the engine has %u", seq, e->info.seqs);
    if (pos_first > pos_last)
        return base_fail(err, MCP_ERANGE, "positions [%u, %u) are not a range", pos_first,
                         pos_last);
    for (uint32_t layer = first; layer < last; layer++) {
        uint32_t length = *engine_kv_length(&engine_shard_of(e, layer)->kv, seq, layer);

        if (pos_last > length)
            return base_fail(err, MCP_ERANGE, "positions [%u, %u): sequence %u has %u in layer %u",
                             pos_first, pos_last, seq, length, layer);
    }

    rc = header_of(e, &h, err);
    if (rc < 0)
        return rc;
    h.first = first;
    h.last = last;
    h.pos_first = pos_first;
    h.pos_last = pos_last;
    needed = block_bytes(&h);
    if (buffer == NULL) {
        *bytes = (size_t)needed;
        return MCP_OK;
    }
    if (*bytes < needed)
        return base_fail(err, MCP_EINVAL, "a block of %" PRIu64 " bytes does not fit %zu", needed,
                         *bytes);

    at = buffer;
    header_write(at, &h);
    at += HEADER_BYTES;
    for (uint32_t layer = first; layer < last && rc == MCP_OK; layer++) {
        const struct engine_kv *kv = &engine_shard_of(e, layer)->kv;
        uint32_t                count = pos_last - pos_first;

        rc = engine_kv_read(kv, seq, layer, false, pos_first, count, at, err);
        at += (size_t)count * h.row_k;
        if (rc == MCP_OK)
            rc = engine_kv_read(kv, seq, layer, true, pos_first, count, at, err);
        at += (size_t)count * h.row_v;
    }
    if (rc == MCP_OK)
        rc = digest(buffer, (size_t)needed - BASE_SHA256_BYTES, at, err);
    if (rc == MCP_OK)
        *bytes = (size_t)needed;
    return rc;
}

/* The digest says that nothing was damaged on the way, not that the sender was honest. */
static int check_rows(const uint8_t *at, const struct header *h, mcp_error *err)
{
    size_t count = h->pos_last - h->pos_first;

    for (uint32_t layer = h->first; layer < h->last; layer++) {
        bool finite = engine_kv_finite((enum ggml_type)h->type_k, at, count * h->row_k);

        at += count * h->row_k;
        finite = finite && engine_kv_finite((enum ggml_type)h->type_v, at, count * h->row_v);
        at += count * h->row_v;
        if (!finite)
            return base_fail(err, MCP_EFORMAT, "the KV block holds NaN or infinity in layer %u",
                             layer);
    }
    return MCP_OK;
}

static bool is_block(const uint8_t *block, size_t bytes)
{
    return bytes >= HEADER_BYTES + BASE_SHA256_BYTES && memcmp(block, magic, sizeof(magic)) == 0;
}

/* Is this a whole, undamaged block, and of this engine's model and store? */
static int check_block(struct mcp_engine *e, const uint8_t *block, size_t bytes, struct header *h,
                       mcp_error *err)
{
    struct header own;
    uint8_t       sum[BASE_SHA256_BYTES];
    int           rc;

    if (!is_block(block, bytes))
        return base_fail(err, MCP_EFORMAT, "%zu bytes are not a KV block", bytes);
    rc = digest(block, bytes - BASE_SHA256_BYTES, sum, err);
    if (rc < 0)
        return rc;
    if (memcmp(sum, block + bytes - BASE_SHA256_BYTES, sizeof(sum)) != 0)
        return base_fail(err, MCP_ECORRUPT, "the digest of a KV block of %zu bytes does not match",
                         bytes);

    header_read(block, h);
    rc = header_of(e, &own, err);
    if (rc < 0)
        return rc;
    if (memcmp(h->fingerprint, own.fingerprint, sizeof(own.fingerprint)) != 0)
        return base_fail(err, MCP_EFORMAT, "the KV block belongs to another model");
    if (h->type_k != own.type_k || h->type_v != own.type_v || h->row_k != own.row_k ||
        h->row_v != own.row_v || h->flags != own.flags)
        return base_fail(
            err, MCP_EFORMAT,
            "the KV block has types %s and %s, this engine %s and %s; set -ctk and -ctv",
            h->type_k < GGML_TYPE_COUNT ? ggml_type_name(h->type_k) : "?",
            h->type_v < GGML_TYPE_COUNT ? ggml_type_name(h->type_v) : "?",
            ggml_type_name(own.type_k), ggml_type_name(own.type_v));
    rc = engine_check_range(e, h->first, h->last, err);
    if (rc < 0)
        return rc;
    if (h->pos_first > h->pos_last || h->pos_last > e->info.ctx_tokens)
        return base_fail(err, MCP_ERANGE, "positions [%u, %u) exceed the context of %u; raise -c",
                         h->pos_first, h->pos_last, e->info.ctx_tokens);
    if (block_bytes(h) != bytes)
        return base_fail(err, MCP_EFORMAT, "a KV block of %zu bytes should have %" PRIu64, bytes,
                         block_bytes(h));
    return check_rows(block + HEADER_BYTES, h, err);
}

size_t engine_block_row_bytes(const struct mcp_engine *e)
{
    const struct engine_kv *kv = &e->shards[0].kv;

    return engine_kv_row_bytes(kv, false) + engine_kv_row_bytes(kv, true);
}

uint64_t engine_block_bytes(const struct mcp_engine *e, const struct engine_block *block)
{
    const struct engine_kv *kv = &e->shards[0].kv;
    const struct header     h = { .first = block->first,
                                  .last = block->last,
                                  .pos_first = block->pos_first,
                                  .pos_last = block->pos_last,
                                  .row_k = (uint32_t)engine_kv_row_bytes(kv, false),
                                  .row_v = (uint32_t)engine_kv_row_bytes(kv, true) };

    return block_bytes(&h);
}

int engine_import(struct mcp_engine *e, uint32_t seq, const void *buffer, size_t bytes,
                  mcp_error *err)
{
    const uint8_t *at = buffer;
    struct header  h;
    int            rc;

    if (seq >= e->info.seqs)
        return base_fail(err, MCP_ERANGE, "sequence %u: the engine has %u", seq, e->info.seqs);
    rc = check_block(e, buffer, bytes, &h, err);
    if (rc < 0)
        return rc;
    for (uint32_t layer = h.first; layer < h.last; layer++) {
        uint32_t length = *engine_kv_length(&engine_shard_of(e, layer)->kv, seq, layer);

        if (length != h.pos_first)
            return base_fail(err, MCP_ERANGE,
                             "the KV block begins at position %u, sequence %u has %u in layer %u",
                             h.pos_first, seq, length, layer);
    }

    /* Rows behind the length do not count yet, so a failure on the way changes nothing. */
    at += HEADER_BYTES;
    for (uint32_t layer = h.first; layer < h.last; layer++) {
        struct engine_kv *kv = &engine_shard_of(e, layer)->kv;
        uint32_t          count = h.pos_last - h.pos_first;

        engine_kv_claim(kv, seq, layer, layer + 1, h.pos_last);
        rc = engine_kv_write(kv, seq, layer, false, h.pos_first, count, at, err);
        at += (size_t)count * h.row_k;
        if (rc == MCP_OK)
            rc = engine_kv_write(kv, seq, layer, true, h.pos_first, count, at, err);
        at += (size_t)count * h.row_v;
        if (rc < 0)
            return rc;
    }
    for (uint32_t layer = h.first; layer < h.last; layer++)
        *engine_kv_length(&engine_shard_of(e, layer)->kv, seq, layer) = h.pos_last;
    return MCP_OK;
}

int engine_import_as(struct mcp_engine *e, uint32_t seq, const struct engine_block *asked,
                     const void *buffer, size_t bytes, mcp_error *err)
{
    struct header h;

    if (!is_block(buffer, bytes))
        return base_fail(err, MCP_EFORMAT, "%zu bytes are not a KV block", bytes);
    header_read(buffer, &h);
    if (h.first != asked->first || h.last != asked->last || h.pos_first != asked->pos_first ||
        h.pos_last != asked->pos_last)
        return base_fail(
            err, MCP_EFORMAT,
            "the KV block is of layers [%u, %u) and positions [%u, %u), asked for were "
            "[%u, %u) and [%u, %u)",
            h.first, h.last, h.pos_first, h.pos_last, asked->first, asked->last, asked->pos_first,
            asked->pos_last);
    return engine_import(e, seq, buffer, bytes, err);
}
