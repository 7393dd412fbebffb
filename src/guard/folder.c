/* guard/folder.c - see folder.h.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/folder.h"

#include "base/clock.h"
#include "base/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

void guard_bytes_fini(struct guard_bytes *bytes)
{
    if (bytes->data != NULL)
        OPENSSL_cleanse(bytes->data, bytes->count);
    free(bytes->data);
    *bytes = (struct guard_bytes){ 0 };
}

/* Root may use anybody's files; everybody else only their own. */
static bool foreign(const struct stat *st)
{
    return st->st_uid != geteuid() && geteuid() != 0;
}

int guard_folder_open(struct guard_folder *folder, const char *path, mcp_error *err)
{
    struct stat st;

    folder->fd = -1;
    if (strlen(path) >= sizeof(folder->path))
        return base_fail(err, MCP_ERANGE, "the keys folder's path has %zu bytes, at most %zu",
                         strlen(path), sizeof(folder->path) - 1);
    memcpy(folder->path, path, strlen(path) + 1);
    folder->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder->fd < 0 && errno == ENOENT)
        return base_fail(err, MCP_ENOTFOUND,
                         "there is no keys folder %s: 'mcp keys init' makes one", path);
    if (folder->fd < 0 || fstat(folder->fd, &st) < 0) {
        int rc = base_fail(err, MCP_EIO, "keys folder %s: %s", path, strerror(errno));

        guard_folder_close(folder);
        return rc;
    }
    if (foreign(&st)) {
        guard_folder_close(folder);
        return base_fail(err, MCP_EIO, "keys folder %s belongs to another user (id %u)", path,
                         (unsigned)st.st_uid);
    }
    if ((st.st_mode & 077) != 0) {
        guard_folder_close(folder);
        return base_fail(err, MCP_EIO,
                         "keys folder %s has mode %04o, which lets other users in: chmod 700 it",
                         path, (unsigned)st.st_mode & 07777);
    }
    return MCP_OK;
}

void guard_folder_close(struct guard_folder *folder)
{
    if (folder->fd >= 0)
        (void)close(folder->fd); /* only read from: nothing can be lost */
    folder->fd = -1;
}

/* ---- reading ------------------------------------------------------------------------ */

/* Everything from `fd`, which is a regular file. */
static int read_all(int fd, const char *name, size_t bytes_max, struct guard_bytes *bytes,
                    mcp_error *err)
{
    struct guard_bytes got = { 0 };
    struct stat        st;
    size_t             cap;

    if (fstat(fd, &st) < 0)
        return base_fail(err, MCP_EIO, "%s: %s", name, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return base_fail(err, MCP_EIO, "%s is no regular file", name);
    if ((uintmax_t)st.st_size > bytes_max)
        return base_fail(err, MCP_EFORMAT, "%s has %jd bytes, at most %zu are read", name,
                         (intmax_t)st.st_size, bytes_max);
    cap = (size_t)st.st_size;
    got.data = malloc(cap + 1);
    if (got.data == NULL)
        return base_fail(err, MCP_ENOMEM, "out of memory for the %zu bytes of %s", cap, name);
    while (got.count < cap) { /* a file that shrinks meanwhile ends the loop by n == 0 */
        ssize_t n = read(fd, got.data + got.count, cap - got.count);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int rc = base_fail(err, MCP_EIO, "%s: %s", name, strerror(errno));

            guard_bytes_fini(&got);
            return rc;
        }
        if (n == 0)
            break;
        got.count += (size_t)n;
    }
    got.data[got.count] = '\0';
    *bytes = got;
    return MCP_OK;
}

static int check_mode(int fd, const char *name, enum guard_mode mode, mcp_error *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return base_fail(err, MCP_EIO, "%s: %s", name, strerror(errno));
    if (foreign(&st))
        return base_fail(err, MCP_EIO, "%s belongs to another user (id %u)", name,
                         (unsigned)st.st_uid);
    if ((st.st_mode & (mode == GUARD_SECRET ? 077 : 022)) != 0)
        return base_fail(err, MCP_EIO,
                         "%s has mode %04o, which lets other users %s it: chmod %o it", name,
                         (unsigned)st.st_mode & 07777,
                         mode == GUARD_SECRET ? "read or change" : "change", (unsigned)mode);
    return MCP_OK;
}

int guard_folder_read(const struct guard_folder *folder, const char *name, enum guard_mode mode,
                      size_t bytes_max, struct guard_bytes *bytes, mcp_error *err)
{
    char path[GUARD_PATH_BYTES + 64];
    int  fd, rc;

    *bytes = (struct guard_bytes){ 0 };
    snprintf(path, sizeof(path), "%s/%s", folder->path, name);
    /* Not to wait for a pipe's other end. */
    fd = openat(folder->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return base_fail(err, MCP_ENOTFOUND, "there is no %s", path);
    if (fd < 0 && errno == ELOOP)
        return base_fail(err, MCP_EIO, "%s is a symbolic link: put the file itself there", path);
    if (fd < 0)
        return base_fail(err, MCP_EIO, "%s: %s", path, strerror(errno));
    rc = check_mode(fd, path, mode, err);
    if (rc == MCP_OK)
        rc = read_all(fd, path, bytes_max, bytes, err);
    (void)close(fd);
    return rc;
}

int guard_file_read(const char *path, size_t bytes_max, struct guard_bytes *bytes, mcp_error *err)
{
    int fd, rc;

    *bytes = (struct guard_bytes){ 0 };
    fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return base_fail(err, MCP_ENOTFOUND, "there is no %s", path);
    if (fd < 0)
        return base_fail(err, MCP_EIO, "%s: %s", path, strerror(errno));
    rc = read_all(fd, path, bytes_max, bytes, err);
    (void)close(fd);
    return rc;
}

/* ---- writing ------------------------------------------------------------------------ */

int guard_folder_add(const struct guard_folder *folder, const char *name, enum guard_mode mode,
                     const void *bytes, size_t count, mcp_error *err)
{
    const char *at = bytes;
    int fd = openat(folder->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    int failed;

    if (fd < 0)
        return base_fail(err, MCP_EIO, "%s/%s: %s", folder->path, name, strerror(errno));
    failed = fchmod(fd, mode) < 0 ? errno : 0; /* whatever the umask took */
    while (count > 0 && failed == 0) {
        ssize_t n = write(fd, at, count);

        if (n < 0 && errno != EINTR)
            failed = errno;
        at += n > 0 ? n : 0;
        count -= n > 0 ? (size_t)n : 0;
    }
    if (failed == 0 && fsync(fd) < 0)
        failed = errno;
    if (close(fd) < 0 && failed == 0)
        failed = errno;
    if (failed == 0)
        return MCP_OK;
    (void)unlinkat(folder->fd, name, 0);
    return base_fail(err, MCP_EIO, "%s/%s: %s", folder->path, name, strerror(failed));
}

int guard_folder_write(const struct guard_folder *folder, const char *name, enum guard_mode mode,
                       const void *bytes, size_t count, mcp_error *err)
{
    char     fresh[64];
    uint32_t random = 0;
    int      rc;

    if (RAND_bytes((unsigned char *)&random, sizeof(random)) != 1)
        return base_fail(err, MCP_EIO, "the system gives no random numbers");
    snprintf(fresh, sizeof(fresh), ".%s.%08x", name, (unsigned)random);
    rc = guard_folder_add(folder, fresh, mode, bytes, count, err);
    if (rc < 0)
        return rc;
    if (renameat(folder->fd, fresh, folder->fd, name) < 0) {
        rc = base_fail(err, MCP_EIO, "%s/%s: %s", folder->path, name, strerror(errno));
        (void)unlinkat(folder->fd, fresh, 0);
        return rc;
    }
    (void)fsync(folder->fd); /* the name is there already; some file systems cannot sync it */
    return MCP_OK;
}

int guard_folder_remove(const struct guard_folder *folder, const char *name, mcp_error *err)
{
    if (unlinkat(folder->fd, name, 0) < 0 && errno != ENOENT)
        return base_fail(err, MCP_EIO, "%s/%s: %s", folder->path, name, strerror(errno));
    return MCP_OK;
}

int guard_folder_lock(const struct guard_folder *folder, int *fd, mcp_error *err)
{
    const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };
    double                end_ms = base_clock_ms() + GUARD_LOCK_MS_MAX;
    int                   rc;

    *fd = openat(folder->fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, GUARD_SECRET);
    if (*fd < 0)
        return base_fail(err, MCP_EIO, "%s/lock: %s", folder->path, strerror(errno));
    while (flock(*fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK && base_clock_ms() < end_ms) {
            nanosleep(&pause, NULL);
            continue;
        }
        if (errno == EINTR)
            continue;
        rc = errno == EWOULDBLOCK
                 ? base_fail(err, MCP_EBUSY, "%s is being changed by another process for %d s",
                             folder->path, GUARD_LOCK_MS_MAX / 1000)
                 : base_fail(err, MCP_EIO, "%s/lock: %s", folder->path, strerror(errno));
        (void)close(*fd);
        *fd = -1;
        return rc;
    }
    return MCP_OK;
}
