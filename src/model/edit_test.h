/* model/edit_test.h - a GGUF file read whole, changed, and written again.
 *
 * SPDX-License-Identifier: MIT */
#ifndef MODEL_EDIT_TEST_H
#define MODEL_EDIT_TEST_H

#include "base/unit_test.h"

#include <ggml.h>
#include <gguf.h>

struct edit {
    struct gguf_context *gguf; /* the keys: change them with gguf_set_*() */
    struct ggml_context *ctx;  /* tensors with their bytes */
};

static inline struct edit edit_open(const char *path)
{
    struct edit             e = { NULL, NULL };
    struct gguf_init_params params = { .no_alloc = false, .ctx = &e.ctx };
    struct gguf_context    *from = gguf_init_from_file(path, params);

    if (from == NULL)
        fail_msg("%s cannot be read for a change", path);
    e.gguf = gguf_init_empty();
    gguf_set_kv(e.gguf, from);
    gguf_free(from);
    return e;
}

static inline struct ggml_tensor *edit_tensor(const struct edit *e, const char *name)
{
    struct ggml_tensor *t = ggml_get_tensor(e->ctx, name);

    if (t == NULL)
        fail_msg("there is no tensor %s to change", name);
    return t;
}

/* Write to `path`, leaving out the tensor `without` (may be NULL), and free. */
static inline const char *edit_write(struct edit *e, const char *path, const char *without)
{
    for (struct ggml_tensor *t = ggml_get_first_tensor(e->ctx); t != NULL;
         t = ggml_get_next_tensor(e->ctx, t))
        if (t->type != GGML_TYPE_I8 && (without == NULL || strcmp(t->name, without) != 0))
            gguf_add_tensor(e->gguf, t); /* an i8 tensor is the reader's own, of all bytes */
    assert_true(gguf_write_to_file(e->gguf, path, false));
    gguf_free(e->gguf);
    ggml_free(e->ctx);
    return path;
}

#endif
