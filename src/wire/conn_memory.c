/* wire/conn_memory.c - what nghttp2 allocates for one connection: counted, bounded, and given
 * back at once.
 *
 * Counted, because nghttp2 has more queues and tables than we can know of.  Given back from
 * our own list and not by nghttp2_session_del(), because that trusts a state which 1.52 leaves
 * broken where memory ends (a stream's item is freed twice when its queue cannot grow).
 *
 * SPDX-License-Identifier: MIT */
#include "wire/conn_impl.h"

#include <stdlib.h>
#include <string.h>

struct wire_piece {
    LIST_ENTRY(wire_piece) list;
    size_t bytes;
    _Alignas(16) uint8_t memory[];
};

static struct wire_piece *piece_of(void *memory)
{
    return (struct wire_piece *)((uint8_t *)memory - offsetof(struct wire_piece, memory));
}

/* calloc and realloc in one: `old` may be NULL. */
static void *piece_resize(struct wire_memory *m, struct wire_piece *old, size_t bytes)
{
    size_t             before = old != NULL ? old->bytes : 0;
    struct wire_piece *p;

    if (bytes > HTTP2_BYTES || m->bytes - before + bytes > HTTP2_BYTES)
        return NULL;
    if (old != NULL)
        LIST_REMOVE(old, list);
    p = realloc(old, sizeof(*p) + bytes);
    if (p == NULL) {
        if (old != NULL)
            LIST_INSERT_HEAD(&m->pieces, old, list);
        return NULL;
    }
    LIST_INSERT_HEAD(&m->pieces, p, list);
    p->bytes = bytes;
    m->bytes += bytes - before;
    return p->memory;
}

static void *memory_malloc(size_t bytes, void *ctx)
{
    return piece_resize(ctx, NULL, bytes);
}

static void *memory_calloc(size_t count, size_t bytes, void *ctx)
{
    void *memory = bytes > 0 && count > HTTP2_BYTES / bytes
                       ? NULL
                       : piece_resize(ctx, NULL, count * bytes);

    if (memory != NULL)
        memset(memory, 0, count * bytes);
    return memory;
}

static void *memory_realloc(void *memory, size_t bytes, void *ctx)
{
    return piece_resize(ctx, memory != NULL ? piece_of(memory) : NULL, bytes);
}

static void memory_free(void *memory, void *ctx)
{
    struct wire_memory *m = ctx;
    struct wire_piece  *p;

    if (memory == NULL)
        return;
    p = piece_of(memory);
    LIST_REMOVE(p, list);
    m->bytes -= p->bytes;
    free(p);
}

nghttp2_mem wire_memory_functions(struct wire_memory *m)
{
    return (nghttp2_mem){ m, memory_malloc, memory_free, memory_calloc, memory_realloc };
}

void wire_memory_fini(struct wire_memory *m)
{
    while (!LIST_EMPTY(&m->pieces))
        memory_free(LIST_FIRST(&m->pieces)->memory, m);
}
