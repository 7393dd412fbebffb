/* guard/stage.c - see stage.h.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/stage.h"

#include "base/fail.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Files that make a folder one that holds keys. */
static const char *const key_files[] = {
    "ca.pem",     "ca.key",    "worker.pem", "worker.key", "client.pem",
    "client.key", "admin.pem", "admin.key",  "token.pub",  "token.key",
};

/* The open folder holds nothing. */
static int check_empty(const struct guard_folder *folder, mcp_error *err)
{
    char           other[256] = "";
    struct dirent *entry;
    DIR           *dir;
    int            fd;

    for (size_t i = 0; i < sizeof(key_files) / sizeof(key_files[0]); i++)
        if (faccessat(folder->fd, key_files[i], F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            return base_fail(err, MCP_EINVAL,
                             "%s holds keys already (%s); keys are never overwritten: name another "
                             "folder, or move this one away",
                             folder->path, key_files[i]);
    fd = openat(folder->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        int failed = errno;

        if (fd >= 0)
            (void)close(fd);
        return base_fail(err, failed == ENOMEM ? MCP_ENOMEM : MCP_EIO, "%s: %s", folder->path,
                         strerror(failed));
    }
    entry = readdir(dir);
    while (entry != NULL && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0))
        entry = readdir(dir);
    if (entry != NULL)
        snprintf(other, sizeof(other), "%s", entry->d_name);
    (void)closedir(dir);
    if (other[0] != '\0')
        return base_fail(err, MCP_EINVAL,
                         "%s is not empty (%s); keys are put into a new folder: name another one",
                         folder->path, other);
    return MCP_OK;
}

/* The target is not there, or an empty folder that is closed to others. */
static int check_vacant(const char *target, mcp_error *err)
{
    struct guard_folder folder = GUARD_FOLDER_CLOSED;
    struct stat         st;
    int                 rc;

    if (lstat(target, &st) < 0)
        return errno == ENOENT ? MCP_OK
                               : base_fail(err, MCP_EIO, "%s: %s", target, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return base_fail(err, MCP_EINVAL, "%s exists and is %s: name a new folder", target,
                         S_ISLNK(st.st_mode) ? "a symbolic link" : "no folder");
    rc = guard_folder_open(&folder, target, err);
    if (rc == MCP_OK)
        rc = check_empty(&folder, err);
    guard_folder_close(&folder);
    return rc;
}

/* Every folder above the target, closed to others where it is made here. */
static int make_parents(char *target, mcp_error *err)
{
    for (char *slash = strchr(target + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        int rc, failed;

        *slash = '\0';
        rc = mkdir(target, 0700);
        failed = errno;
        if (rc < 0 && failed != EEXIST) {
            struct stat st;
            /* A read-only or foreign folder may say so before it says that it is there. */
            if (stat(target, &st) < 0 || !S_ISDIR(st.st_mode)) {
                rc = base_fail(err, MCP_EIO, "%s: %s", target, strerror(failed));
                *slash = '/';
                return rc;
            }
        }
        *slash = '/';
    }
    return MCP_OK;
}

int guard_stage_begin(struct guard_stage *stage, const char *target, mcp_error *err)
{
    char   beside[GUARD_PATH_BYTES];
    size_t bytes = strlen(target);
    int    rc;

    stage->folder.fd = -1;
    stage->count = 0;
    while (bytes > 1 && target[bytes - 1] == '/')
        bytes--;
    if (bytes == 0)
        return base_fail(err, MCP_EINVAL, "the name of the keys folder is empty");
    if (bytes + sizeof(".new-XXXXXX") > sizeof(beside))
        return base_fail(err, MCP_ERANGE, "the keys folder's path has %zu bytes, at most %zu",
                         bytes, sizeof(beside) - sizeof(".new-XXXXXX"));
    memcpy(stage->target, target, bytes);
    stage->target[bytes] = '\0';
    rc = check_vacant(stage->target, err);
    if (rc == MCP_OK)
        rc = make_parents(stage->target, err);
    if (rc < 0)
        return rc;
    snprintf(beside, sizeof(beside), "%.*s.new-XXXXXX", (int)bytes, stage->target);
    if (mkdtemp(beside) == NULL) /* with mode 0700 */
        return base_fail(err, MCP_EIO, "%s: cannot be made: %s", stage->target, strerror(errno));
    rc = guard_folder_open(&stage->folder, beside, err);
    if (rc < 0)
        (void)rmdir(beside);
    return rc;
}

int guard_stage_add(struct guard_stage *stage, const char *name, enum guard_mode mode,
                    const void *bytes, size_t count, mcp_error *err)
{
    int rc;

    assert(stage->count < GUARD_STAGE_FILES && strlen(name) < GUARD_STAGE_NAME);
    rc = guard_folder_add(&stage->folder, name, mode, bytes, count, err);
    if (rc == MCP_OK)
        memcpy(stage->files[stage->count++], name, strlen(name) + 1);
    return rc;
}

int guard_stage_commit(struct guard_stage *stage, mcp_error *err)
{
    int failed, rc;

    (void)fsync(stage->folder.fd); /* its files are on disk; some file systems sync no folder */
    if (rename(stage->folder.path, stage->target) == 0) {
        guard_folder_close(&stage->folder);
        return MCP_OK;
    }
    failed = errno;
    if (failed == EBUSY)
        return base_fail(err, MCP_EINVAL,
                         "%s is a mount point or the current folder: name a new folder inside it",
                         stage->target);
    rc = check_vacant(stage->target, err); /* somebody was faster: say so */
    return rc < 0 ? rc : base_fail(err, MCP_EIO, "%s: %s", stage->target, strerror(failed));
}

void guard_stage_fini(struct guard_stage *stage)
{
    if (stage->folder.fd < 0)
        return;
    for (size_t i = 0; i < stage->count; i++)
        (void)unlinkat(stage->folder.fd, stage->files[i], 0);
    (void)rmdir(stage->folder.path);
    guard_folder_close(&stage->folder);
}
