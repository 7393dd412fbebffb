/* pipe/block.h - encoded rows on their way between stages: shared, never changed.
 *
 * What crosses a cut is kept as it was encoded: the journal, a resend and a replay hand out the
 * very bytes that were sent first.  Reference counted across threads.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PIPE_BLOCK_H
#define PIPE_BLOCK_H

#include <mcp/error.h>
#include <stddef.h>
#include <stdint.h>

struct pipe_block {
    uint32_t codec; /* enum wire_codec_id: pipe does not read it, only passes it on */
    uint32_t rows;
    size_t   bytes; /* rows x bytes of one row */
    uint8_t *data;  /* behind this struct */
};

/* rows x row_bytes bytes, not filled; NULL when out of memory. */
struct pipe_block *pipe_block_new(uint32_t codec, uint32_t rows, size_t row_bytes);
struct pipe_block *pipe_block_ref(struct pipe_block *block);
void               pipe_block_unref(struct pipe_block *block); /* NULL is allowed */

static inline size_t pipe_block_row_bytes(const struct pipe_block *block)
{
    return block->rows > 0 ? block->bytes / block->rows : 0;
}

/* The first rows[i] rows of each of `count` >= 1 blocks of the same codec and row size, one after
 * another; NULL when out of memory. */
struct pipe_block *pipe_block_join(struct pipe_block *const *blocks, const uint32_t *rows,
                                   size_t count);

#endif
