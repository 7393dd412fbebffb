/* guard/folder.h - files of a keys folder: who may read them, and how they change.
 *
 * A folder is refused when other users can enter it, a file when it is a symbolic link or other
 * users can change it, a secret one when they can read it.  A file is replaced by writing
 * another one and renaming it, so that a reader sees the old or the new bytes.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_FOLDER_H
#define GUARD_FOLDER_H

#include <mcp/error.h>
#include <stddef.h>
#include <stdint.h>

enum {
    GUARD_PATH_BYTES = 4096,       /* PATH_MAX */
    GUARD_PEM_BYTES = 64 << 10,    /* largest PEM file: ours have 1 KB */
    GUARD_LIST_BYTES = 16 << 20,   /* largest issued.json, revoked.json: 90,000 entries */
    GUARD_LOCK_MS_MAX = 10 * 1000, /* wait for another process: its work takes milliseconds */
};

enum guard_mode {
    GUARD_PUBLIC = 0644, /* certificates and lists */
    GUARD_SECRET = 0600, /* keys and tokens */
};

/* Bytes that are wiped when they are given back; zeroed = empty. */
struct guard_bytes {
    char  *data; /* (count), and a terminator behind them; owned */
    size_t count;
};

void guard_bytes_fini(struct guard_bytes *bytes);

struct guard_folder {
    int  fd; /* -1 = closed */
    char path[GUARD_PATH_BYTES];
};

/* Zeroed is not closed: begin from GUARD_FOLDER_CLOSED where close may come first.
 *   MCP_ENOTFOUND  there is none
 *   MCP_EIO        other users can enter it, or it cannot be opened */
#define GUARD_FOLDER_CLOSED \
    {                       \
        .fd = -1            \
    }
int  guard_folder_open(struct guard_folder *folder, const char *path, mcp_error *err);
void guard_folder_close(struct guard_folder *folder);

/* The whole file, at most `bytes_max`.
 *   MCP_ENOTFOUND  there is none
 *   MCP_EIO        unsafe, or cannot be read
 *   MCP_EFORMAT    larger */
int guard_folder_read(const struct guard_folder *folder, const char *name, enum guard_mode mode,
                      size_t bytes_max, struct guard_bytes *bytes, mcp_error *err);

/* The same for a file that a user names: anywhere, also behind a link. */
int guard_file_read(const char *path, size_t bytes_max, struct guard_bytes *bytes, mcp_error *err);

/* Make a file that is not there yet; on disk when this returns, or not there. */
int guard_folder_add(const struct guard_folder *folder, const char *name, enum guard_mode mode,
                     const void *bytes, size_t count, mcp_error *err);

/* Make or replace a file; on failure the old one is as it was. */
int guard_folder_write(const struct guard_folder *folder, const char *name, enum guard_mode mode,
                       const void *bytes, size_t count, mcp_error *err);

/* Remove a file that may not be there. */
int guard_folder_remove(const struct guard_folder *folder, const char *name, mcp_error *err);

/* Keep other processes (and threads) that change this folder out until close(*fd).
 *   MCP_EBUSY  another one held it for GUARD_LOCK_MS_MAX */
int guard_folder_lock(const struct guard_folder *folder, int *fd, mcp_error *err);

#endif
