/* pipe/block.c - see block.h.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/block.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct counted {
    struct pipe_block block; /* first: a block's address is that of its count */
    atomic_uint       references;
    _Alignas(max_align_t) uint8_t data[];
};

struct pipe_block *pipe_block_new(uint32_t codec, uint32_t rows, size_t row_bytes)
{
    struct counted *c;
    size_t          bytes;

    if (__builtin_mul_overflow((size_t)rows, row_bytes, &bytes) || bytes > SIZE_MAX - sizeof(*c))
        return NULL;
    c = malloc(sizeof(*c) + bytes);
    if (c == NULL)
        return NULL;
    c->block = (struct pipe_block){ .codec = codec, .rows = rows, .bytes = bytes, .data = c->data };
    atomic_init(&c->references, 1);
    return &c->block;
}

struct pipe_block *pipe_block_ref(struct pipe_block *block)
{
    atomic_fetch_add_explicit(&((struct counted *)block)->references, 1, memory_order_relaxed);
    return block;
}

void pipe_block_unref(struct pipe_block *block)
{
    struct counted *c = (struct counted *)block;

    /* Whoever frees it must see what the others did with it before they let go. */
    if (c != NULL && atomic_fetch_sub_explicit(&c->references, 1, memory_order_acq_rel) == 1)
        free(c);
}

struct pipe_block *pipe_block_join(struct pipe_block *const *blocks, const uint32_t *rows,
                                   size_t count)
{
    size_t             row_bytes = pipe_block_row_bytes(blocks[0]);
    uint32_t           sum = 0;
    uint8_t           *end;
    struct pipe_block *joined;

    for (size_t i = 0; i < count; i++) {
        assert(blocks[i]->codec == blocks[0]->codec && rows[i] <= blocks[i]->rows);
        assert(pipe_block_row_bytes(blocks[i]) == row_bytes);
        if (__builtin_add_overflow(sum, rows[i], &sum))
            return NULL;
    }
    joined = pipe_block_new(blocks[0]->codec, sum, row_bytes);
    if (joined == NULL)
        return NULL;
    end = joined->data;
    for (size_t i = 0; i < count; i++) {
        memcpy(end, blocks[i]->data, rows[i] * row_bytes);
        end += rows[i] * row_bytes;
    }
    return joined;
}
