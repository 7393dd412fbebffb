/* agent/digest.c - see digest.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/digest.h"

#include "base/fail.h"
#include "base/sha256.h"

#include <errno.h>
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

/* The folder, made when it is missing; false: there is none to be had. */
static bool cache_folder(char path[PATH_BYTES])
{
    static const struct {
        const char *env, *below;
    } places[] = {
        { "MCP_CACHE", "" },
        { "XDG_CACHE_HOME", "/mcp" },
        { "HOME", "/.cache/mcp" },
    };

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        const char *base = getenv(places[i].env);

        if (base == NULL || base[0] != '/')
            continue;
        if (snprintf(path, PATH_BYTES, "%s%s/fingerprints", base, places[i].below) >= PATH_BYTES)
            return false;
        for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
            *slash = '\0';
            (void)mkdir(path, 0755); /* mostly there already; the last one tells */
            *slash = '/';
        }
        return mkdir(path, 0755) == 0 || errno == EEXIST;
    }
    return false;
}

/* Where the digest of these layers of this very file is kept.  Of files in parts none is: the
 * others' identities are not at hand. */
static bool cache_path(const struct mcp_model *model, uint32_t first, uint32_t last,
                       char path[PATH_BYTES])
{
    struct base_sha256 *h;
    uint8_t             key[KEY_BYTES];
    struct stat         st;
    size_t              used;

    if (model->info.parts > 1 || stat(model->info.path, &st) < 0 || !cache_folder(path))
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

/* Whole or not at all: readers never see a half. */
static void cache_write(const char *path, const uint8_t digest[WIRE_DIGEST_BYTES])
{
    char part[PATH_BYTES + sizeof(".XXXXXX")];
    int  fd;
    bool written;

    snprintf(part, sizeof(part), "%s.XXXXXX", path);
    fd = mkostemp(part, O_CLOEXEC);
    if (fd < 0)
        return;
    written = write(fd, digest, WIRE_DIGEST_BYTES) == WIRE_DIGEST_BYTES;
    if (close(fd) < 0 || !written || rename(part, path) < 0)
        unlink(part);
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
        cache_write(path, digest);
    return rc;
}
