/* wan/path.h - bytes on a wide-area path: what has been sent, and when it arrives.
 *
 * One direction of one connection.  Bytes leave the sender one after another at the link's rate,
 * which all connections share, and arrive half a round trip later, in order.
 *
 * SPDX-License-Identifier: MIT */
#ifndef WAN_PATH_H
#define WAN_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One direction of the link, shared by all connections.  Times in nanoseconds. */
struct wan_link {
    double   mbit;    /* 0 = as fast as it comes */
    uint64_t free_ns; /* when what was sent so far has left */
    uint64_t bytes;   /* that have crossed */
};

struct wan_piece;

/* Invariant: pieces are in the order of their arrival. */
struct wan_path {
    struct wan_piece *first, *last;
    size_t            bytes;   /* on the way or arrived and not taken */
    uint64_t          last_ns; /* arrival of the last piece */
    bool              ended;   /* no more will be sent */
};

enum { WAN_PIECE_BYTES = 16 * 1024 };

/* Send `count` (at most WAN_PIECE_BYTES) bytes now: they arrive `delay_ns` after they have left.
 * false: out of memory. */
bool wan_path_send(struct wan_path *path, struct wan_link *link, uint64_t now_ns, uint64_t delay_ns,
                   const void *bytes, size_t count);

/* What has arrived, or NULL; *count bytes of it are one piece.  take() removes some. */
const uint8_t *wan_path_arrived(const struct wan_path *path, uint64_t now_ns, size_t *count);
void           wan_path_take(struct wan_path *path, struct wan_link *link, size_t count);

/* When the next piece arrives; 0 = none is on the way. */
uint64_t wan_path_next_ns(const struct wan_path *path);
void     wan_path_clear(struct wan_path *path);

#endif
