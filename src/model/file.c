/* model/file.c - see file.h.
 *
 * SPDX-License-Identifier: MIT */
#include "model/file.h"

#include "base/fail.h"
#include "base/log.h"
#include "model/header.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <llama.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Magic, version, two counts: the smallest header. */
enum { GGUF_HEADER_BYTES = 24 };

static void log_ggml(enum ggml_log_level level, const char *text, void *ctx)
{
    base_log_foreign((int)level, text, ctx);
}

static void libraries_init(void)
{
    llama_log_set(log_ggml, NULL); /* sets ggml's too */
}

void model_libraries_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, libraries_init);
}

static void part_close(struct model_part *part)
{
    gguf_free(part->gguf);
    if (part->base != NULL)
        munmap(part->base, part->bytes);
    free(part->path);
    memset(part, 0, sizeof(*part));
}

/* Map one part and parse its header.  On failure *part is zeroed. */
static int part_open(struct model_part *part, const char *path, mcp_error *err)
{
    struct gguf_init_params params = { .no_alloc = true, .ctx = NULL };
    struct stat             st;
    const char             *reason;
    int                     fd = -1;
    int                     rc = MCP_OK;

    memset(part, 0, sizeof(*part));
    part->path = strdup(path);
    if (part->path == NULL) {
        rc = base_fail(err, MCP_ENOMEM, "%s: path", path);
        goto out;
    }

    /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        rc = base_fail(err, errno == ENOENT ? MCP_ENOTFOUND : MCP_EIO, "%s: cannot be opened: %s",
                       path, strerror(errno));
        goto out;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        rc = base_fail(err, MCP_EIO, "%s: not a regular file", path);
        goto out;
    }
    if (st.st_size < GGUF_HEADER_BYTES) {
        rc = base_fail(err, MCP_EFORMAT, "%s: %jd bytes are too few for a GGUF header of %d", path,
                       (intmax_t)st.st_size, GGUF_HEADER_BYTES);
        goto out;
    }

    part->bytes = (size_t)st.st_size;
    part->base = mmap(NULL, part->bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (part->base == MAP_FAILED) {
        part->base = NULL;
        rc = base_fail(err, MCP_ENOMEM, "%s: cannot be mapped: %s", path, strerror(errno));
        goto out;
    }

    rc = model_header_check(part->base, part->bytes, path, err);
    if (rc < 0)
        goto out;
    base_log_capture_begin();
    part->gguf = gguf_init_from_buffer(part->base, part->bytes, params);
    reason = base_log_capture_end();
    if (part->gguf == NULL) {
        rc = base_fail(err, MCP_EFORMAT, "%s: not a readable GGUF file: %s", path,
                       reason[0] != '\0' ? reason : "the header ends early");
        goto out;
    }
    if (gguf_get_alignment(part->gguf) < MODEL_ALIGN_MIN) {
        rc = base_fail(err, MCP_ENOTSUP, "%s: general.alignment is %zu, at least %d is needed",
                       path, gguf_get_alignment(part->gguf), MODEL_ALIGN_MIN);
        goto out;
    }

out:
    if (fd >= 0)
        close(fd);
    if (rc < 0)
        part_close(part);
    return rc;
}

/* A split.* key, of the type that libllama insists on (it aborts on another): 1 found,
 * 0 absent. */
static int split_key(const struct model_part *part, const char *key, enum gguf_type type,
                     uint32_t *value, mcp_error *err)
{
    int64_t id = gguf_find_key(part->gguf, key);

    if (id < 0)
        return 0;
    if (gguf_get_kv_type(part->gguf, id) != type)
        return base_fail(err, MCP_EFORMAT, "%s: key %s must be of type %s", part->path, key,
                         gguf_type_name(type));
    *value = type == GGUF_TYPE_UINT16 ? gguf_get_val_u16(part->gguf, id)
                                      : (uint32_t)gguf_get_val_i32(part->gguf, id);
    return 1;
}

/* Both numbers of a part: which it is, of how many.  A file that is whole is 0 of 1. */
static int split_numbers(const struct model_part *part, uint32_t *number, uint32_t *count,
                         mcp_error *err)
{
    int has_number, rc;

    *number = 0;
    *count = 1;
    rc = split_key(part, "split.count", GGUF_TYPE_UINT16, count, err);
    has_number = rc < 0 ? rc : split_key(part, "split.no", GGUF_TYPE_UINT16, number, err);
    if (has_number < 0)
        return has_number;
    if (*count < 1 || *count > MODEL_PARTS_MAX)
        return base_fail(err, MCP_EFORMAT, "%s: split.count is %u, must be 1 to %d", part->path,
                         *count, MODEL_PARTS_MAX);
    if (*count > 1 && (has_number == 0 || *number >= *count))
        return base_fail(err, MCP_EFORMAT, "%s: split.no is missing or not below split.count %u",
                         part->path, *count);
    if (*count == 1)
        *number = 0;
    return MCP_OK;
}

/* "dir/name-00002-of-00005.gguf" for part 1 of 5, from any part's path, into a new string. */
static int part_path(char **out, const char *path, uint32_t index, uint32_t count, mcp_error *err)
{
    static const char pattern[] = "-00000-of-00000.gguf";
    size_t            tail = sizeof(pattern) - 1;
    size_t            length = strlen(path);

    if (length <= tail || strcmp(path + length - 5, ".gguf") != 0 ||
        strncmp(path + length - tail + 6, "-of-", 4) != 0)
        return base_fail(err, MCP_EFORMAT,
                         "%s: one of %u parts, but the name does not end in -NNNNN-of-%05u.gguf",
                         path, count, count);
    *out = malloc(length + 32);
    if (*out == NULL)
        return base_fail(err, MCP_ENOMEM, "%s: name of part %u", path, index + 1);
    snprintf(*out, length + 32, "%.*s-%05u-of-%05u.gguf", (int)(length - tail), path, index + 1,
             count);
    return MCP_OK;
}

static int parts_open(struct model_file *file, const char *path, mcp_error *err)
{
    struct model_part first;
    uint32_t          count, number;
    int               rc;

    rc = part_open(&first, path, err);
    if (rc < 0)
        return rc;
    rc = split_numbers(&first, &number, &count, err);
    if (rc == MCP_OK) {
        file->parts = calloc(count, sizeof(*file->parts));
        if (file->parts == NULL)
            rc = base_fail(err, MCP_ENOMEM, "%s: table of %u parts", path, count);
    }
    if (rc < 0) {
        part_close(&first);
        return rc;
    }
    file->part_count = count;
    file->parts[number] = first;

    for (uint32_t i = 0; i < count; i++) {
        char    *name;
        uint32_t no = 0, of = 0;

        if (i == number)
            continue;
        rc = part_path(&name, path, i, count, err);
        if (rc < 0)
            return rc;
        rc = part_open(&file->parts[i], name, err);
        if (rc == MCP_OK)
            rc = split_numbers(&file->parts[i], &no, &of, err);
        if (rc == MCP_OK && (no != i || of != count))
            rc = base_fail(err, MCP_EFORMAT, "%s: is not part %u of %u of %s", name, i + 1, count,
                           path);
        free(name);
        if (rc < 0)
            return rc;
    }
    return MCP_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct model_tensor *)a)->name, ((const struct model_tensor *)b)->name);
}

/* Where one tensor's bytes lie, checked against the part's size. */
static int tensor_place(struct model_tensor *tensor, const struct model_file *file, uint32_t part,
                        int64_t id, mcp_error *err)
{
    const struct model_part *p = &file->parts[part];
    size_t                   data = gguf_get_data_offset(p->gguf);
    size_t                   offset = gguf_get_tensor_offset(p->gguf, id);
    const int64_t           *ne = gguf_get_tensor_ne(p->gguf, id);

    tensor->name = gguf_get_tensor_name(p->gguf, id);
    tensor->type = gguf_get_tensor_type(p->gguf, id);
    tensor->bytes = gguf_get_tensor_size(p->gguf, id);
    tensor->part = part;
    memcpy(tensor->ne, ne, sizeof(tensor->ne));

    for (int d = 0; d < GGML_MAX_DIMS; d++)
        if (ne[d] <= 0)
            return base_fail(err, MCP_EFORMAT, "%s: tensor %s has no elements in dimension %d",
                             p->path, tensor->name, d);
    /* Written so that no sum can wrap. */
    if (data > p->bytes || offset > p->bytes - data || tensor->bytes > p->bytes - data - offset)
        return base_fail(err, MCP_EFORMAT,
                         "%s: tensor %s needs %zu bytes at offset %zu, the file has %zu: it is cut "
                         "short or damaged",
                         p->path, tensor->name, tensor->bytes, data + offset, p->bytes);
    tensor->data = p->base + data + offset;
    return MCP_OK;
}

static int tensors_collect(struct model_file *file, mcp_error *err)
{
    const char *path = file->parts[0].path;
    uint64_t    total = 0;
    uint32_t    promised = 0;
    int         rc;

    for (uint32_t p = 0; p < file->part_count; p++)
        total += (uint64_t)gguf_get_n_tensors(file->parts[p].gguf);
    if (total == 0)
        return base_fail(err, MCP_EFORMAT, "%s: has no tensors: a vocabulary-only file is no model",
                         path);
    if (total > MODEL_TENSORS_MAX)
        return base_fail(err, MCP_EFORMAT, "%s: %" PRIu64 " tensors exceed the limit of %d", path,
                         total, MODEL_TENSORS_MAX);
    rc = split_key(&file->parts[0], "split.tensors.count", GGUF_TYPE_INT32, &promised, err);
    if (rc < 0)
        return rc;
    if (file->part_count > 1 && rc > 0 && promised != total)
        return base_fail(err, MCP_EFORMAT, "%s: split.tensors.count is %u, the parts hold %" PRIu64,
                         path, promised, total);

    file->tensors = calloc(total, sizeof(*file->tensors));
    if (file->tensors == NULL)
        return base_fail(err, MCP_ENOMEM, "%s: table of %" PRIu64 " tensors", path, total);
    for (uint32_t p = 0; p < file->part_count; p++) {
        int64_t count = gguf_get_n_tensors(file->parts[p].gguf);

        for (int64_t i = 0; i < count; i++) {
            rc = tensor_place(&file->tensors[file->tensor_count], file, p, i, err);
            if (rc < 0)
                return rc;
            file->tensor_count++;
        }
    }

    qsort(file->tensors, file->tensor_count, sizeof(*file->tensors), by_name);
    for (uint32_t i = 1; i < file->tensor_count; i++)
        if (strcmp(file->tensors[i - 1].name, file->tensors[i].name) == 0)
            return base_fail(err, MCP_EFORMAT, "%s: tensor %s is in two parts", path,
                             file->tensors[i].name);
    return MCP_OK;
}

int model_file_open(struct model_file *file, const char *path, mcp_error *err)
{
    int rc;

    memset(file, 0, sizeof(*file));
    model_libraries_init();
    rc = parts_open(file, path, err);
    if (rc == MCP_OK)
        rc = tensors_collect(file, err);
    if (rc < 0)
        model_file_close(file);
    return rc;
}

void model_file_close(struct model_file *file)
{
    for (uint32_t i = 0; i < file->part_count; i++)
        part_close(&file->parts[i]);
    free(file->parts);
    free(file->tensors);
    memset(file, 0, sizeof(*file));
}

const struct model_tensor *model_file_find(const struct model_file *file, const char *name)
{
    struct model_tensor key = { .name = name };

    return bsearch(&key, file->tensors, file->tensor_count, sizeof(*file->tensors), by_name);
}
