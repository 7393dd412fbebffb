/* agent/cache.c - see cache.h.
 *
 * SPDX-License-Identifier: MIT */
#include "agent/cache.h"

#include "base/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

bool agent_cache_folder(char *path, size_t cap, const char *name, bool make)
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
        if (snprintf(path, cap, "%s%s/%s", base, places[i].below, name) >= (int)cap)
            return false;
        for (char *slash = strchr(path + 1, '/'); make && slash != NULL;
             slash = strchr(slash + 1, '/')) {
            *slash = '\0';
            (void)mkdir(path, 0755); /* mostly there already; the last one tells */
            *slash = '/';
        }
        return !make || mkdir(path, 0755) == 0 || errno == EEXIST;
    }
    return false;
}

int agent_cache_write(const char *path, const void *bytes, size_t count, mode_t mode,
                      mcp_error *err)
{
    char part[PATH_BYTES + sizeof(".XXXXXX")];
    bool written;
    int  fd;

    if (snprintf(part, sizeof(part), "%s.XXXXXX", path) >= (int)sizeof(part))
        return base_fail(err, MCP_EINVAL, "the path of a file is longer than %d bytes", PATH_BYTES);
    fd = mkostemp(part, O_CLOEXEC);
    if (fd < 0)
        return base_fail(err, MCP_EIO, "%s: %s", part, strerror(errno));
    written = write(fd, bytes, count) == (ssize_t)count;
    written = fchmod(fd, mode) == 0 && written;
    if (close(fd) < 0 || !written || rename(part, path) < 0) {
        base_fail(err, MCP_EIO, "%s: %s", path, strerror(errno));
        unlink(part);
        return MCP_EIO;
    }
    return MCP_OK;
}
