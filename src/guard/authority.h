/* guard/authority.h - a folder that can certify others, and what it hands out.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_AUTHORITY_H
#define GUARD_AUTHORITY_H

#include "guard/certificate.h"
#include "guard/folder.h"

/* A key and its certificate, also as the files that they become. */
struct guard_pair {
    EVP_PKEY             *key;
    X509                 *certificate;
    struct guard_bytes    key_pem, certificate_pem;
    struct guard_identity who;
};

/* A new authority, which signs itself. */
int guard_pair_make_authority(struct guard_pair *pair, int64_t now_s, mcp_error *err);

/* A new key that the authority certifies.  `hosts` for a worker, else NULL. */
int  guard_pair_make(struct guard_pair *pair, mcp_role role, const char *name,
                     const struct guard_hosts *hosts, const struct guard_pair *authority,
                     int64_t now_s, mcp_error *err);
void guard_pair_fini(struct guard_pair *pair); /* zeroed is fine */

/* An open and locked folder with ca.pem and ca.key. */
struct guard_authority {
    struct guard_folder folder;
    int                 lock; /* -1 = not locked */
    struct guard_pair   pair; /* without its PEM texts */
};

#define GUARD_AUTHORITY_NONE                      \
    {                                             \
        .folder = GUARD_FOLDER_CLOSED, .lock = -1 \
    }

/*   MCP_ENOTFOUND  no such folder, or it has no ca.key
 *   MCP_EFORMAT    files are not what their names say, or key and certificate do not match */
int  guard_authority_open(struct guard_authority *authority, const char *path, mcp_error *err);
void guard_authority_close(struct guard_authority *authority);

/* Write down in issued.json whom the authority has certified. */
int guard_authority_record(const struct guard_authority *authority,
                           const struct guard_identity *identity, mcp_error *err);

/* A certificate of an open folder; the sentence names the file. */
int guard_folder_certificate(X509 **out, const struct guard_folder *folder, const char *file,
                             mcp_error *err);
/* And a private key. */
int guard_folder_key(EVP_PKEY **out, const struct guard_folder *folder, const char *file,
                     mcp_error *err);

/* 1 to 64 of a-z A-Z 0-9 . _ - */
int guard_name_check(const char *name, mcp_error *err);

#endif
