/* wan/path.c - see path.h.
 *
 * SPDX-License-Identifier: MIT */
#include "path.h"

#include <stdlib.h>
#include <string.h>

struct wan_piece {
    struct wan_piece *next;
    uint64_t          arrives_ns;
    size_t            count, taken;
    uint8_t           bytes[];
};

bool wan_path_send(struct wan_path *path, struct wan_link *link, uint64_t now_ns, uint64_t delay_ns,
                   const void *bytes, size_t count)
{
    struct wan_piece *p = malloc(sizeof(*p) + count);

    if (p == NULL)
        return false;
    if (link->free_ns < now_ns)
        link->free_ns = now_ns;
    if (link->mbit > 0.0)
        link->free_ns += (uint64_t)((double)count * 8e3 / link->mbit);
    p->next = NULL;
    p->arrives_ns = link->free_ns + delay_ns;
    if (p->arrives_ns < path->last_ns)
        p->arrives_ns = path->last_ns; /* jitter does not reorder a TCP stream */
    p->count = count;
    p->taken = 0;
    memcpy(p->bytes, bytes, count);
    path->last_ns = p->arrives_ns;
    path->bytes += count;
    if (path->last != NULL)
        path->last->next = p;
    else
        path->first = p;
    path->last = p;
    return true;
}

const uint8_t *wan_path_arrived(const struct wan_path *path, uint64_t now_ns, size_t *count)
{
    const struct wan_piece *p = path->first;

    if (p == NULL || p->arrives_ns > now_ns)
        return NULL;
    *count = p->count - p->taken;
    return p->bytes + p->taken;
}

void wan_path_take(struct wan_path *path, struct wan_link *link, size_t count)
{
    struct wan_piece *p = path->first;

    p->taken += count;
    path->bytes -= count;
    link->bytes += count;
    if (p->taken < p->count)
        return;
    path->first = p->next;
    if (path->first == NULL)
        path->last = NULL;
    free(p);
}

uint64_t wan_path_next_ns(const struct wan_path *path)
{
    return path->first != NULL ? path->first->arrives_ns : 0;
}

void wan_path_clear(struct wan_path *path)
{
    while (path->first != NULL) {
        struct wan_piece *p = path->first;

        path->first = p->next;
        free(p);
    }
    path->last = NULL;
    path->bytes = 0;
}
