/* agent/digest.c - see digest.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/digest.h"

#include "agent/cache.h"
#include "base/fail.h"
#include "base/sha256.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, KEY_BYTES = 32 };

static int hash(const struct mcp_model *model, uint32_t first, uint32_t last,
                uint8_t digest[WIRE_DIGEST_BYTES], mcp_error *err)
{
    struct base_sha256 *h = base_sha256_new();
    uint8_t             layer[WIRE_DIGEST_BYTES];
    int                 rc = MCP_OK;

    for (uint32_t i = first; i < last && rc == MCP_OK; i++) {
        rc = model_weights_fingerprint(model, (int)i, layer, err);
        base_sha256_add(h, layer, sizeof(layer));
    }
    if (rc < 0)
        (void)base_sha256_finish(h, digest, NULL);
    else
        rc = base_sha256_finish(h, digest, err);
    return rc;
}

/* ---- the cache ------------------------------------------------------------------------------ */

/* Where the digest of these layers of this very file is kept.  Of files in parts none is: the
 * others' identities are not at hand. */
static bool cache_path(const struct mcp_model *model, uint32_t first, uint32_t last,
                       char path[PATH_BYTES])
{
    struct base_sha256 *h;
    uint8_t             key[KEY_BYTES];
    struct stat         st;
    size_t              used;

    if (model->info.parts > 1 || stat(model->info.path, &st) < 0 ||
        !agent_cache_folder(path, PATH_BYTES, "fingerprints", true))
        return false;
    h = base_sha256_new();
    base_sha256_add_u64(h, (uint64_t)st.st_dev);
    base_sha256_add_u64(h, (uint64_t)st.st_ino);
    base_sha256_add_u64(h, (uint64_t)st.st_size);
    base_sha256_add_u64(h, (uint64_t)st.st_mtim.tv_sec);
    base_sha256_add_u64(h, (uint64_t)st.st_mtim.tv_nsec);
    base_sha256_add_u64(h, (uint64_t)st.st_ctim.tv_sec);
    base_sha256_add_u64(h, (uint64_t)st.st_ctim.tv_nsec);
    base_sha256_add_u64(h, first);
    base_sha256_add_u64(h, last);
    if (base_sha256_finish(h, key, NULL) < 0)
        return false;
    used = strlen(path);
    if (used + 1 + 2 * KEY_BYTES + sizeof(".XXXXXX") > PATH_BYTES)
        return false;
    path[used++] = '/';
    for (size_t i = 0; i < KEY_BYTES; i++)
        used += (size_t)snprintf(path + used, PATH_BYTES - used, "%02x", key[i]);
    return true;
}

static bool cache_read(const char *path, uint8_t digest[WIRE_DIGEST_BYTES])
{
    int     fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd >= 0 ? read(fd, digest, WIRE_DIGEST_BYTES) : -1;

    if (fd >= 0)
        close(fd);
    return bytes == WIRE_DIGEST_BYTES;
}

int agent_weights_digest(const struct mcp_model *model, uint32_t first, uint32_t last,
                         uint8_t digest[WIRE_DIGEST_BYTES], mcp_error *err)
{
    char path[PATH_BYTES];
    bool cached = cache_path(model, first, last, path);
    int  rc;

    if (cached && cache_read(path, digest))
        return MCP_OK;
    rc = hash(model, first, last, digest, err);
    if (rc == MCP_OK && cached)
        (void)agent_cache_write(path, digest, WIRE_DIGEST_BYTES, 0600, NULL);
    return rc;
}
