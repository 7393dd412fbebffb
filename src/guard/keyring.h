/* guard/keyring.h - what a worker knows about tokens and revocations; see token.h.
 *
 * Built once, then only read: any thread, no lock.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_KEYRING_H
#define GUARD_KEYRING_H

#include "guard/certificate.h"
#include "guard/token.h"

#include <stdatomic.h>

enum {
    GUARD_KEYS_MAX = 16, /* token.pub and token-*.pub: a rotation needs two at a time */
    GUARD_KEY_FILE_BYTES = 64,
};

struct guard_key {
    char      file[GUARD_KEY_FILE_BYTES];
    char      id[GUARD_HEX_BYTES]; /* what `kid` must say */
    EVP_PKEY *key;
};

struct guard_serial {
    uint8_t bytes[GUARD_SERIAL_BYTES];
    uint8_t count;
};

struct guard_keyring {
    atomic_uint          refs;
    char                 authority[GUARD_AUTHORITY_BYTES]; /* "" = the folder has no ca.pem */
    struct guard_key     keys[GUARD_KEYS_MAX];             /* (key_count) */
    size_t               key_count;
    struct guard_serial *serials; /* (serial_count) revoked, sorted */
    size_t               serial_count;
    char (*jtis)[GUARD_JTI_BYTES]; /* (jti_count) revoked, sorted */
    size_t jti_count;
};

/* Of an open folder. */
int guard_keyring_load_from(struct guard_keyring **out, const struct guard_folder *folder,
                            mcp_error *err);

/* The key with this id; NULL when there is none. */
const struct guard_key *guard_keyring_find(const struct guard_keyring *ring, const char *id);

bool guard_keyring_token_revoked(const struct guard_keyring *ring, const char *jti);

/* Names of token.pub and token-*.pub in a folder, sorted.
 *   MCP_EFORMAT  more than GUARD_KEYS_MAX, or a longer name than GUARD_KEY_FILE_BYTES */
int guard_key_files(char files[GUARD_KEYS_MAX][GUARD_KEY_FILE_BYTES], size_t *count,
                    const struct guard_folder *folder, mcp_error *err);

#endif
