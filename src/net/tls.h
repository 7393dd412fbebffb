/* net/tls.h - TLS 1.3 with certificates both ways, as bytes in and bytes out.
 *
 * No socket here: what the peer sent is given with net_tls_input(), what must be sent is
 * gathered in `out`.
 *
 * SPDX-License-Identifier: MIT */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "net/net.h"

#include <openssl/ssl.h>
#include <stdatomic.h>

/* Bytes in a row, taken from the front. */
struct net_buffer {
    uint8_t *bytes; /* (cap) */
    size_t   first, count, cap;
};

void net_buffer_trim(struct net_buffer *b); /* a large buffer goes back when it is empty */

/* identity.c */
struct net_identity {
    atomic_int            refs;
    SSL_CTX              *server, *client;
    struct guard_keyring *keyring;
};

enum net_tls_step {
    NET_TLS_WANT,   /* more input */
    NET_TLS_GREET,  /* server: net_tls_greet() may be called now, then go on */
    NET_TLS_READY,  /* shaken hands */
    NET_TLS_FAILED, /* `out` may hold an alert */
};

struct net_tls {
    SSL                 *ssl; /* NULL: not begun */
    struct net_identity *identity;
    bool                 server;
    bool                 greeting; /* the server has not seen the client's hello to its end */
    const uint8_t       *in;       /* borrowed */
    size_t               in_bytes;
    struct net_buffer    out;
    unsigned long        error; /* of OpenSSL, when it failed */
    long                 verify_error;
};

enum { NET_TLS_END = -1, NET_TLS_BROKEN = -2 }; /* of net_tls_read() */

/* host: whom the server's certificate must name; NULL at a server. */
int  net_tls_open(struct net_tls *t, struct net_identity *identity, const char *host,
                  mcp_error *err);
void net_tls_close(struct net_tls *t);

void              net_tls_input(struct net_tls *t, const uint8_t *bytes, size_t count);
enum net_tls_step net_tls_step(struct net_tls *t);
/* Server, once: bytes that leave before the client's identity is known. */
int net_tls_greet(struct net_tls *t, const uint8_t *bytes, size_t count);
/* Bytes read, 0 = more input needed, or NET_TLS_END, NET_TLS_BROKEN. */
long net_tls_read(struct net_tls *t, uint8_t *out, size_t cap);
int  net_tls_write(struct net_tls *t, const uint8_t *bytes, size_t count); /* 0 or -1 */
void net_tls_bye(struct net_tls *t);                                       /* close_notify */

/* The peer has agreed to speak HTTP/2 (a server may ignore what it was offered). */
bool net_tls_is_h2(const struct net_tls *t);
/* Who the peer is; false: its certificate has no usable name. */
bool net_tls_peer(const struct net_tls *t, struct net_peer *peer);
/* Why it failed, in one sentence.  *identity: a certificate is the reason. */
struct wire_status net_tls_why(const struct net_tls *t, const char *peer, bool *identity);

#endif
