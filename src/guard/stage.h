/* guard/stage.h - a new keys folder, all or nothing.
 *
 * Files are put into a folder beside the target, which takes the target's name in one step at
 * the end: nobody ever sees half a set of keys, and of two processes that make the same folder
 * at once one is refused.
 *
 *     begin -> add, add, ... -> commit -> fini        fini without commit leaves nothing
 *
 * SPDX-License-Identifier: MIT */
#ifndef GUARD_STAGE_H
#define GUARD_STAGE_H

#include "guard/folder.h"

enum {
    GUARD_STAGE_FILES = 32, /* a full set has 12, and 16 more token keys may be copied */
    GUARD_STAGE_NAME = 64,
};

struct guard_stage {
    struct guard_folder folder; /* the one beside it; closed = nothing to remove */
    char                target[GUARD_PATH_BYTES];
    char                files[GUARD_STAGE_FILES][GUARD_STAGE_NAME]; /* (count) added so far */
    size_t              count;
};

#define GUARD_STAGE_NONE              \
    {                                 \
        .folder = GUARD_FOLDER_CLOSED \
    }

/* Missing parents of the target are made.  The target may exist when it is empty and safe.
 *   MCP_EINVAL  it holds something already
 *   MCP_EIO     cannot be written, or its permissions let others in */
int  guard_stage_begin(struct guard_stage *stage, const char *target, mcp_error *err);
int  guard_stage_add(struct guard_stage *stage, const char *name, enum guard_mode mode,
                     const void *bytes, size_t count, mcp_error *err);
int  guard_stage_commit(struct guard_stage *stage, mcp_error *err);
void guard_stage_fini(struct guard_stage *stage);

#endif
