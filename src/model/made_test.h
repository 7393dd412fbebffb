/* model/made_test.h - model files made in memory, key by key and tensor by tensor.
 *
 * Good for what reads keys and shapes: tensors carry no bytes unless a test gives them
 * some.  Whole files with weights come from mcp-synth (base/unit_test.h).
 *
 * SPDX-License-Identifier: MIT */
#ifndef MODEL_MADE_TEST_H
#define MODEL_MADE_TEST_H

#include "base/unit_test.h"
#include "model/hparams.h"

enum { MADE_TENSORS_MAX = 256 };

struct made {
    struct model_file   file; /* what the code under test gets */
    struct model_part   part;
    struct model_tensor tensors[MADE_TENSORS_MAX];
    char                names[MADE_TENSORS_MAX][GGML_MAX_NAME]; /* used once each */
    uint32_t            named;
    const char         *arch;
};

static inline const char *made_key(const struct made *m, const char *name)
{
    static char key[128];

    snprintf(key, sizeof(key), "%s.%s", m->arch, name);
    return key;
}

static inline void made_u32(struct made *m, const char *name, uint32_t value)
{
    gguf_set_val_u32(m->part.gguf, made_key(m, name), value);
}

static inline void made_f32(struct made *m, const char *name, float value)
{
    gguf_set_val_f32(m->part.gguf, made_key(m, name), value);
}

static inline void made_string(struct made *m, const char *name, const char *value)
{
    gguf_set_val_str(m->part.gguf, made_key(m, name), value);
}

static inline void made_remove(struct made *m, const char *name)
{
    assert_true(gguf_remove_key(m->part.gguf, made_key(m, name)) >= 0);
}

static inline int made_by_name(const void *a, const void *b)
{
    return strcmp(((const struct model_tensor *)a)->name, ((const struct model_tensor *)b)->name);
}

/* Add a tensor, or give the one of that name another shape. */
static inline struct model_tensor *made_tensor(struct made *m, const char *name, int64_t ne0,
                                               int64_t ne1, int64_t ne2)
{
    struct model_tensor *t = (struct model_tensor *)(uintptr_t)model_file_find(&m->file, name);

    if (t == NULL) {
        assert_true(m->named < MADE_TENSORS_MAX);
        snprintf(m->names[m->named], sizeof(m->names[0]), "%s", name);
        m->tensors[m->file.tensor_count++] = (struct model_tensor){ .name = m->names[m->named++] };
        qsort(m->tensors, m->file.tensor_count, sizeof(m->tensors[0]), made_by_name);
        t = (struct model_tensor *)(uintptr_t)model_file_find(&m->file, name);
        assert_non_null(t);
    }
    t->ne[0] = ne0;
    t->ne[1] = ne1;
    t->ne[2] = ne2;
    t->ne[3] = 1;
    t->type = GGML_TYPE_F32;
    t->bytes = (size_t)(ne0 * ne1 * ne2) * sizeof(float);
    return t;
}

static inline void made_tensor_remove(struct made *m, const char *name)
{
    struct model_tensor *t = (struct model_tensor *)(uintptr_t)model_file_find(&m->file, name);

    assert_non_null(t);
    memmove(t, t + 1, (size_t)(m->tensors + m->file.tensor_count - t - 1) * sizeof(*t));
    m->file.tensor_count--;
}

/* The keys of a model of that architecture which is read without complaint: four layers of
 * 64, four heads, two of them for keys; deepseek2 with plain latents and four experts. */
static inline struct made *made_new(const char *arch)
{
    struct made *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    m->arch = arch;
    m->part.gguf = gguf_init_empty();
    m->part.path = strdup("made.gguf");
    assert_true(m->part.gguf != NULL && m->part.path != NULL);
    m->file = (struct model_file){ .parts = &m->part, .part_count = 1, .tensors = m->tensors };
    gguf_set_val_str(m->part.gguf, "general.architecture", arch);
    made_u32(m, "block_count", 4);
    made_u32(m, "embedding_length", 64);
    made_u32(m, "context_length", 512);
    made_u32(m, "feed_forward_length", 96);
    made_u32(m, "attention.head_count", 4);
    made_u32(m, "attention.head_count_kv", 2);
    made_f32(m, "attention.layer_norm_rms_epsilon", 1e-5f);
    made_tensor(m, "token_embd.weight", 64, 100, 1);
    if (strcmp(arch, "deepseek2") == 0) {
        made_u32(m, "attention.head_count_kv", 4);
        made_u32(m, "attention.key_length", 24);
        made_u32(m, "attention.value_length", 20);
        made_u32(m, "rope.dimension_count", 8);
        made_u32(m, "attention.q_lora_rank", 48);
        made_u32(m, "attention.kv_lora_rank", 32);
        made_u32(m, "leading_dense_block_count", 1);
        made_u32(m, "expert_count", 4);
        made_u32(m, "expert_used_count", 2);
        made_u32(m, "expert_shared_count", 2);
        made_u32(m, "expert_feed_forward_length", 40);
    }
    return m;
}

/* deepseek2 whose cache holds latents. */
static inline struct made *made_new_mla(void)
{
    struct made *m = made_new("deepseek2");

    made_u32(m, "attention.head_count_kv", 1);
    made_u32(m, "attention.key_length", 40);
    made_u32(m, "attention.value_length", 32);
    made_u32(m, "attention.key_length_mla", 24);
    made_u32(m, "attention.value_length_mla", 20);
    return m;
}

static inline void made_free(struct made *m)
{
    gguf_free(m->part.gguf);
    free(m->part.path);
    free(m);
}

#endif
