/* SPDX-License-Identifier: MIT */
/* file.c - keys, the split into files, and the writing.
 *
 * Files are split as llama.cpp's gguf-split does: NAME-00001-of-0000N.gguf, all
 * keys in the first, split.no, split.count and split.tensors.count in each, and
 * a new file where the next tensor would pass the limit.  A tensor above the
 * limit gets a file of its own. */
#include "file.h"

#include "fill.h"
#include "vocab.h"

#include "gguf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    ALIGNMENT = GGUF_DEFAULT_ALIGNMENT,
    STDIO_BYTES = 4 << 20, /* norms between matrices join one write */
    SPLITS_MAX = 65535,    /* split.count is 16 bits */
    PATH_BYTES_MAX = 4096,
};

static void set_u32(struct gguf_context *g, const struct synth_shape *s, const char *key,
                    uint32_t v)
{
    char name[128];

    snprintf(name, sizeof name, "%s.%s", synth_arch_name(s->arch), key);
    gguf_set_val_u32(g, name, v);
}

static void set_f32(struct gguf_context *g, const struct synth_shape *s, const char *key, float v)
{
    char name[128];

    snprintf(name, sizeof name, "%s.%s", synth_arch_name(s->arch), key);
    gguf_set_val_f32(g, name, v);
}

static void set_rope(struct gguf_context *g, const struct synth_shape *s)
{
    const bool yarn = s->rope_scaling == SYNTH_ROPE_YARN;
    char       name[128];

    set_u32(g, s, "rope.dimension_count", s->arch == SYNTH_DEEPSEEK2 ? s->qk_rope : s->head_dim);
    set_f32(g, s, "rope.freq_base", s->rope_base);
    if (!yarn && s->rope_scaling != SYNTH_ROPE_LINEAR)
        return;
    snprintf(name, sizeof name, "%s.rope.scaling.type", synth_arch_name(s->arch));
    gguf_set_val_str(g, name, yarn ? "yarn" : "linear");
    set_f32(g, s, "rope.scaling.factor", s->rope_factor);
    if (yarn)
        set_u32(g, s, "rope.scaling.original_context_length", s->rope_orig_ctx);
    if (yarn && s->rope_log_mul > 0)
        set_f32(g, s, "rope.scaling.yarn_log_multiplier", s->rope_log_mul);
}

static void set_deepseek2(struct gguf_context *g, const struct synth_shape *s)
{
    char name[128];

    set_u32(g, s, "leading_dense_block_count", s->dense_lead);
    if (!synth_shape_is_lite(s)) /* required there, 0 meaning none */
        set_u32(g, s, "attention.q_lora_rank", s->q_lora);
    set_u32(g, s, "attention.kv_lora_rank", s->kv_lora);
    if (s->mla) {
        set_u32(g, s, "attention.key_length", s->kv_lora + s->qk_rope);
        set_u32(g, s, "attention.value_length", s->kv_lora);
        set_u32(g, s, "attention.key_length_mla", s->qk_nope + s->qk_rope);
        set_u32(g, s, "attention.value_length_mla", s->v_dim);
    } else {
        set_u32(g, s, "attention.key_length", s->qk_nope + s->qk_rope);
        set_u32(g, s, "attention.value_length", s->v_dim);
    }
    set_u32(g, s, "expert_feed_forward_length", s->expert_ff);
    set_u32(g, s, "expert_count", s->experts);
    set_u32(g, s, "expert_used_count", s->experts_used);
    set_u32(g, s, "expert_shared_count", s->experts_shared);
    set_u32(g, s, "expert_gating_func", s->gating);
    set_f32(g, s, "expert_weights_scale", s->weights_scale);
    snprintf(name, sizeof name, "%s.expert_weights_norm", synth_arch_name(s->arch));
    gguf_set_val_bool(g, name, s->weights_norm != 0);
    if (s->groups) {
        set_u32(g, s, "expert_group_count", s->groups);
        set_u32(g, s, "expert_group_used_count", s->groups_used);
    }
}

static int set_keys(struct gguf_context *g, const struct synth_job *job, struct synth_error *err)
{
    const struct synth_shape *s = job->shape;

    gguf_set_val_str(g, "general.architecture", synth_arch_name(s->arch));
    gguf_set_val_str(g, "general.type", "model");
    gguf_set_val_str(g, "general.name", s->name);
    gguf_set_val_u32(g, "general.file_type", job->quant->file_type);
    gguf_set_val_u32(g, "general.quantization_version", GGML_QNT_VERSION);
    set_u32(g, s, "vocab_size", s->vocab);
    set_u32(g, s, "context_length", s->ctx);
    set_u32(g, s, "embedding_length", s->n_embd);
    set_u32(g, s, "block_count", s->layers);
    set_u32(g, s, "feed_forward_length", s->ff);
    set_u32(g, s, "attention.head_count", s->heads);
    set_u32(g, s, "attention.head_count_kv", s->kv_heads);
    set_f32(g, s, "attention.layer_norm_rms_epsilon", s->rms_eps);
    set_rope(g, s);
    if (s->arch == SYNTH_DEEPSEEK2) {
        set_deepseek2(g, s);
    } else if (s->arch == SYNTH_QWEN3 || s->heads * s->head_dim != s->n_embd) {
        set_u32(g, s, "attention.key_length", s->head_dim);
        set_u32(g, s, "attention.value_length", s->head_dim);
    }
    if (job->vocab_path)
        return synth_vocab_copy(g, job->vocab_path, s->vocab, err);
    return synth_vocab_invent(g, s->vocab, err);
}

/* Add the tensors [first, last) of a plan, whose data never is in memory. */
static int set_tensors(struct gguf_context *g, const struct synth_plan *plan, size_t first,
                       size_t last, struct synth_error *err)
{
    struct ggml_context *shapes = ggml_init((struct ggml_init_params){
        .mem_size = (last - first + 1) * ggml_tensor_overhead(), .no_alloc = true });

    if (!shapes)
        return synth_fail(err, "out of memory for %zu tensors", last - first);
    for (size_t i = first; i < last; i++) {
        const struct synth_tensor *t = &plan->tensors[i];
        struct ggml_tensor        *shape = ggml_new_tensor(shapes, t->type, t->n_dims, t->ne);

        ggml_set_name(shape, t->name);
        gguf_add_tensor(g, shape);
    }
    ggml_free(shapes);
    return 0;
}

int synth_file_meta(const struct gguf_context *g, FILE *file, struct synth_error *err)
{
    const size_t bytes = gguf_get_meta_size(g);
    void        *meta = malloc(bytes);
    int          rc = 0;

    if (!meta)
        return synth_fail(err, "out of memory for %zu bytes of metadata", bytes);
    gguf_get_meta_data(g, meta);
    if (fwrite(meta, 1, bytes, file) != bytes)
        rc = synth_fail(err, "cannot write metadata: %s", strerror(errno));
    free(meta);
    return rc;
}

void synth_file_discard(const char *path)
{
    struct stat st;

    if (lstat(path, &st) == 0 && S_ISREG(st.st_mode))
        unlink(path);
}

/* Write one file: the keys of g and the tensors [first, last).  An incomplete
 * file is removed. */
static int write_one(struct gguf_context *g, const char *path, const struct synth_plan *plan,
                     size_t first, size_t last, struct synth_fill *fill, uint64_t *bytes,
                     struct synth_error *err)
{
    static const uint8_t zeros[ALIGNMENT];
    FILE                *file;
    int                  rc;

    if (set_tensors(g, plan, first, last, err) < 0)
        return -1;
    file = fopen(path, "wb");
    if (!file)
        return synth_fail(err, "cannot create %s: %s", path, strerror(errno));
    setvbuf(file, NULL, _IOFBF, STDIO_BYTES);
    rc = synth_file_meta(g, file, err);
    for (size_t i = first; rc == 0 && i < last; i++) {
        const size_t size = plan->tensors[i].bytes, padding = GGML_PAD(size, ALIGNMENT) - size;

        rc = synth_fill_write(fill, &plan->tensors[i], file, err);
        if (rc == 0 && fwrite(zeros, 1, padding, file) != padding)
            rc = synth_fail(err, "cannot write to %s: %s", path, strerror(errno));
        *bytes += size + padding;
    }
    if (fclose(file) != 0 && rc == 0)
        rc = synth_fail(err, "cannot write to %s: %s", path, strerror(errno));
    if (rc < 0)
        synth_file_discard(path);
    else
        *bytes += gguf_get_meta_size(g);
    return rc;
}

/* One past the last tensor of the file that starts with tensor `first`. */
static size_t split_end(const struct synth_plan *plan, size_t first, uint64_t bytes_max)
{
    uint64_t bytes = 0;
    size_t   i = first;

    do
        bytes += GGML_PAD(plan->tensors[i].bytes, ALIGNMENT);
    while (++i < plan->count && bytes + GGML_PAD(plan->tensors[i].bytes, ALIGNMENT) <= bytes_max);
    return i;
}

static int split_path(char *path, const char *out_path, size_t no, size_t count,
                      struct synth_error *err)
{
    static const char suffix[] = ".gguf";
    size_t            n = strlen(out_path);

    if (n > strlen(suffix) && strcmp(out_path + n - strlen(suffix), suffix) == 0)
        n -= strlen(suffix);
    if (snprintf(path, PATH_BYTES_MAX, "%.*s-%05zu-of-%05zu%s", (int)n, out_path, no + 1, count,
                 suffix) >= PATH_BYTES_MAX)
        return synth_fail(err, "the output path is too long");
    return 0;
}

static int write_split(const struct synth_job *job, const struct synth_plan *plan,
                       struct synth_fill *fill, struct synth_result *result,
                       struct synth_error *err)
{
    char   path[PATH_BYTES_MAX];
    size_t count = 0, no = 0;
    int    rc = 0;

    for (size_t first = 0; first < plan->count; count++)
        first = split_end(plan, first, job->split_bytes_max);
    if (count > SPLITS_MAX)
        return synth_fail(err, "the limit gives %zu files, more than %d", count, SPLITS_MAX);
    for (size_t first = 0; rc == 0 && first < plan->count; no++) {
        const size_t         last = split_end(plan, first, job->split_bytes_max);
        struct gguf_context *g = gguf_init_empty();

        rc = no == 0 ? set_keys(g, job, err) : 0;
        gguf_set_val_u16(g, "split.no", (uint16_t)no);
        gguf_set_val_u16(g, "split.count", (uint16_t)count);
        gguf_set_val_i32(g, "split.tensors.count", (int32_t)plan->count);
        if (rc == 0)
            rc = split_path(path, job->out_path, no, count, err);
        if (rc == 0)
            rc = write_one(g, path, plan, first, last, fill, &result->bytes, err);
        gguf_free(g);
        first = last;
    }
    if (rc < 0) {
        struct synth_error ignored;

        /* no was advanced past the file that failed and was removed already */
        for (size_t i = 0; i + 1 < no; i++)
            if (split_path(path, job->out_path, i, count, &ignored) == 0)
                synth_file_discard(path);
    }
    result->files = count;
    return rc;
}

int synth_file_write(const struct synth_job *job, struct synth_result *result,
                     struct synth_error *err)
{
    struct synth_plan plan = { 0 };
    struct synth_fill fill = { 0 };
    int               rc;

    *result = (struct synth_result){ 0 };
    rc = synth_plan_init(&plan, job->shape, job->quant, err);
    if (rc == 0)
        rc = synth_fill_init(&fill, job->shape, job->seed, err);
    if (rc == 0 && job->split_bytes_max) {
        rc = write_split(job, &plan, &fill, result, err);
    } else if (rc == 0) {
        struct gguf_context *g = gguf_init_empty();

        rc = set_keys(g, job, err);
        if (rc == 0)
            rc = write_one(g, job->out_path, &plan, 0, plan.count, &fill, &result->bytes, err);
        result->files = 1;
        gguf_free(g);
    }
    result->tensors = plan.count;
    synth_fill_fini(&fill);
    synth_plan_fini(&plan);
    return rc;
}
