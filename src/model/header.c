/* model/header.c - see header.h.  The layout is in ggml's gguf.h.
 *
 * SPDX-License-Identifier: MIT */
#include "model/header.h"

#include "base/fail.h"
#include "model/file.h"
#include "model/keys.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct walk {
    const uint8_t *at, *end;
    const char    *path;
    char           key[80]; /* being read; cut for the sentence */
    uint64_t       elements;
    bool           cut; /* the file goes on behind `end`, which is MODEL_HEADER_BYTES_MAX */
    mcp_error     *err;
};

static int ends_early(struct walk *w)
{
    if (w->cut)
        return base_fail(w->err, MCP_EFORMAT,
                         "%s: the keys and their values exceed %d MiB at key %s", w->path,
                         MODEL_HEADER_BYTES_MAX >> 20, w->key);
    return base_fail(w->err, MCP_EFORMAT, "%s: the header ends inside key %s", w->path, w->key);
}

static int take(struct walk *w, void *out, size_t bytes)
{
    if ((size_t)(w->end - w->at) < bytes)
        return ends_early(w);
    if (out != NULL)
        memcpy(out, w->at, bytes);
    w->at += bytes;
    return MCP_OK;
}

/* Step over a string; *text points to its bytes when it is not NULL. */
static int take_string(struct walk *w, uint64_t max, const char *what, const uint8_t **text,
                       uint64_t *bytes)
{
    int rc = take(w, bytes, sizeof(*bytes));

    if (rc < 0)
        return rc;
    if (*bytes > max)
        return base_fail(w->err, MCP_EFORMAT,
                         "%s: %s of key %s has %" PRIu64 " bytes, at most %" PRIu64, w->path, what,
                         w->key, *bytes, max);
    if (text != NULL)
        *text = w->at;
    return take(w, NULL, (size_t)*bytes);
}

static int take_array(struct walk *w)
{
    uint32_t type = 0;
    uint64_t count = 0, bytes;
    int      rc = take(w, &type, sizeof(type));

    if (rc == MCP_OK)
        rc = take(w, &count, sizeof(count));
    if (rc < 0)
        return rc;
    if (type != GGUF_TYPE_STRING && model_number_bytes(type) == 0)
        return base_fail(w->err, MCP_EFORMAT, "%s: key %s is an array of type %u, which cannot be",
                         w->path, w->key, type);
    if (count > MODEL_ELEMENTS_MAX - w->elements)
        return base_fail(w->err, MCP_EFORMAT,
                         "%s: the array of key %s has %" PRIu64
                         " elements, all arrays together at most %d",
                         w->path, w->key, count, MODEL_ELEMENTS_MAX);
    w->elements += count;
    if (type != GGUF_TYPE_STRING)
        return take(w, NULL, (size_t)count * model_number_bytes(type));
    for (uint64_t i = 0; i < count && rc == MCP_OK; i++)
        rc = take_string(w, MODEL_STRING_BYTES_MAX, "an element", NULL, &bytes);
    return rc;
}

static int take_pair(struct walk *w, uint64_t index)
{
    const uint8_t *name = NULL;
    uint64_t       bytes;
    uint32_t       type = 0;
    int            rc;

    snprintf(w->key, sizeof(w->key), "number %" PRIu64, index);
    rc = take_string(w, MODEL_KEY_BYTES_MAX, "the name", &name, &bytes);
    if (rc < 0)
        return rc;
    snprintf(w->key, sizeof(w->key), "%.*s", (int)(bytes < 64 ? bytes : 64), (const char *)name);
    rc = take(w, &type, sizeof(type));
    if (rc < 0)
        return rc;
    if (type == GGUF_TYPE_STRING)
        return take_string(w, MODEL_STRING_BYTES_MAX, "the value", NULL, &bytes);
    if (type == GGUF_TYPE_ARRAY)
        return take_array(w);
    if (model_number_bytes(type) == 0)
        return base_fail(w->err, MCP_EFORMAT, "%s: key %s has type %u, which does not exist",
                         w->path, w->key, type);
    return take(w, NULL, model_number_bytes(type));
}

int model_header_check(const uint8_t *data, size_t bytes, const char *path, mcp_error *err)
{
    size_t      limit = bytes < MODEL_HEADER_BYTES_MAX ? bytes : MODEL_HEADER_BYTES_MAX;
    struct walk w = { .at = data,
                      .end = data + limit,
                      .path = path,
                      .key = "(none)",
                      .cut = bytes > limit,
                      .err = err };
    char        magic[4];
    uint32_t    version = 0;
    uint64_t    tensors = 0, pairs = 0;
    int         rc = take(&w, magic, sizeof(magic));

    if (rc == MCP_OK)
        rc = take(&w, &version, sizeof(version));
    if (rc == MCP_OK)
        rc = take(&w, &tensors, sizeof(tensors));
    if (rc == MCP_OK)
        rc = take(&w, &pairs, sizeof(pairs));
    if (rc < 0)
        return rc;
    if (memcmp(magic, "GGUF", 4) != 0)
        return base_fail(err, MCP_EFORMAT, "%s: not a GGUF file: it does not begin with 'GGUF'",
                         path);
    if (version < 2 || version > 3)
        return base_fail(err, MCP_ENOTSUP, "%s: GGUF version %u, this build reads 2 and 3%s", path,
                         version, (version & 0xffff) == 0 ? " (a big-endian file?)" : "");
    if (tensors > MODEL_TENSORS_MAX)
        return base_fail(err, MCP_EFORMAT,
                         "%s: the header announces %" PRIu64 " tensors, at most %d", path, tensors,
                         MODEL_TENSORS_MAX);
    if (pairs > MODEL_KEYS_MAX)
        return base_fail(err, MCP_EFORMAT, "%s: the header announces %" PRIu64 " keys, at most %d",
                         path, pairs, MODEL_KEYS_MAX);
    for (uint64_t i = 0; i < pairs && rc == MCP_OK; i++)
        rc = take_pair(&w, i);
    return rc;
}
