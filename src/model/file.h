/* model/file.h - the parts of a GGUF model, mapped and checked.
 *
 * ggml's own reader checks the header and that offsets are contiguous; it does not
 * check that the file is long enough for its tensors, so a truncated file would be a
 * SIGBUS at the first touch.  After model_file_open() every tensor's bytes lie inside
 * the mapping, aligned, and its size agrees with its type and shape.
 *
 * Immutable after opening; any thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MODEL_FILE_H
#define MODEL_FILE_H

#include <ggml.h>
#include <gguf.h>
#include <mcp/error.h>
#include <stddef.h>
#include <stdint.h>

enum {
    /* DeepSeek-R1 in F16 comes in about 30 parts of 50 GB; 1,000 is arbitrary but safe. */
    MODEL_PARTS_MAX = 1000,
    /* DeepSeek-V3 has 1,025 tensors; 65,536 bounds the work per hostile byte. */
    MODEL_TENSORS_MAX = 65536,
    /* ggml's CPU buffers want this for the base; AVX-512 kernels like it for rows. */
    MODEL_ALIGN_MIN = 32,
};

struct model_tensor {
    const char    *name; /* owned by the part's gguf */
    enum ggml_type type;
    int64_t        ne[GGML_MAX_DIMS];
    const uint8_t *data; /* into the mapping */
    size_t         bytes;
    uint32_t       part;
};

struct model_part {
    char                *path;
    uint8_t             *base; /* mapped, read-only */
    size_t               bytes;
    struct gguf_context *gguf;
};

struct model_file {
    struct model_part   *parts; /* [0] carries the keys */
    uint32_t             part_count;
    struct model_tensor *tensors; /* sorted by name, names unique */
    uint32_t             tensor_count;
};

int  model_file_open(struct model_file *file, const char *path, mcp_error *err);
void model_file_close(struct model_file *file); /* zeroed or opened */

/* NULL when there is none of that name. */
const struct model_tensor *model_file_find(const struct model_file *file, const char *name);

/* The library's log lines go to base/log; done once, before the first use of ggml. */
void model_libraries_init(void);

#endif
